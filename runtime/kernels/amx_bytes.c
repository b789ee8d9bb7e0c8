/* Products of unsigned bytes with signed bytes on AMX tiles: TDPBUSD sums 64 of them for each of 16 x 16 places in 16 cycles, eight times
 * what VNNI does. The weights are packed as it wants them, four of the depth for each column, and rows are read in place.
 *
 * Two tiles of rows by two of columns are summed over the whole depth, then finished by the table's functions for sums of floats: a sum becomes
 * the same float there as here. The second tile of the last rows may overlap the one before it; what it sums again is not finished again.
 * Where a stretch ends within a tile, what is left of it is copied and filled up with zeros. */
#include <immintrin.h>
#include <string.h>

#include "kernels_internal.h"
#if defined(CML_AMX_MODEL)
#define CML_FILL_BYTES cml_fill_bytes_model
#include "amx_model.h" /* tests run the same loops where there are no tiles */
#else
#define CML_FILL_BYTES cml_fill_bytes_amx
#include "amx_instructions.h"
#endif

enum { STEP = 64, ROWS = 16, COLUMNS = 32, B_ROW = COLUMNS * 4, MOST_ROWS = 64 };

static struct {
  void (*tile)(const cml_integer_tile *t);
  void (*finish)(const cml_integer_tile *t, const float *x, size_t x_stride);
  size_t rows;
} base; /* of the table that this one extends; set once, when tables are filled */

typedef struct edges {
  _Alignas(64) uint8_t a[2][ROWS][STEP];
  _Alignas(64) int8_t b[ROWS][B_ROW];
} edges;

/* What a stretch has left, less than a step, of two tiles of rows and of the weights. */
static void copy_edges(const uint8_t *first, const uint8_t *second, size_t stride, const int8_t *b, size_t depth, edges *to) {
  __mmask64 m = (UINT64_C(1) << depth) - 1;
  for (size_t r = 0; r < ROWS; r++) {
    _mm512_store_si512(to->a[0][r], _mm512_maskz_loadu_epi8(m, first + r * stride));
    _mm512_store_si512(to->a[1][r], _mm512_maskz_loadu_epi8(m, second + r * stride));
  }
  memcpy(to->b, b, depth / 4 * B_ROW);
  memset(to->b[depth / 4], 0, (ROWS - depth / 4) * B_ROW);
}

/* Rows [first, first + 16) and [second, second + 16) of the tile. */
static void sum_rows(const cml_integer_tile *t, size_t first, size_t second, edges *e, int32_t (*sums)[COLUMNS]) {
  const int8_t *b = t->b;
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  for (size_t s = 0; s < t->stretches; s++)
    for (size_t k = 0, n; k < t->depth; k += n, b += n / 4 * B_ROW) {
      const uint8_t *a = t->a + (t->offsets ? t->offsets[s] : 0) + k, *low = a + first * t->a_stride, *high = a + second * t->a_stride;
      const int8_t *weights = b;
      size_t stride = t->a_stride;
      n = t->depth - k < STEP ? t->depth - k : STEP;
      if (n < STEP) {
        copy_edges(low, high, stride, b, n, e);
        low = e->a[0][0], high = e->a[1][0], stride = STEP, weights = e->b[0];
      }
      TILE_LOAD(4, low, stride);
      TILE_LOAD(5, high, stride);
      TILE_LOAD(6, weights, B_ROW);
      TILE_LOAD(7, weights + B_ROW / 2, B_ROW);
      MULTIPLY_BYTES(0, 4, 6);
      MULTIPLY_BYTES(1, 4, 7);
      MULTIPLY_BYTES(2, 5, 6);
      MULTIPLY_BYTES(3, 5, 7);
    }
  TILE_STORE(0, sums[0], B_ROW);
  TILE_STORE(1, sums[0] + 16, B_ROW);
  TILE_STORE(2, sums[ROWS], B_ROW);
  TILE_STORE(3, sums[ROWS] + 16, B_ROW);
}

/* Rows [begin, end) of the tile. */
static cml_integer_tile rows_of(const cml_integer_tile *t, size_t begin, size_t end) {
  cml_integer_tile u = *t;
  u.rows = end - begin;
  if (t->a) u.a = t->a + begin * t->a_stride; /* sums of floats have none */
  if (t->residual) u.residual = t->residual + begin * t->residual_stride;
  u.c = (char *)t->c + begin * t->c_stride * cml_integer_to_bytes(t->to);
  return u;
}

/* Any number of rows, in pieces that the other function takes. */
static void finish(const cml_integer_tile *t, const float *x, size_t x_stride) {
  for (size_t r = 0, end; r < t->rows; r = end) {
    end = t->rows - r < base.rows ? t->rows : r + base.rows;
    const cml_integer_tile u = rows_of(t, r, end);
    base.finish(&u, x + r * x_stride, x_stride);
  }
}

/* Bytes, one column's scale after another's sum, from the sums themselves: as finish_columns in integer_kernels.c computes them. */
static void finish_bytes(const cml_integer_tile *t, int32_t (*sums)[COLUMNS]) {
  const __m512 low = _mm512_set1_ps(t->low), high = _mm512_set1_ps(t->high);
  const __m512 residual_scale = _mm512_set1_ps(t->residual_scale), residual_bias = _mm512_set1_ps(t->residual_bias);
  const __m512i zero = _mm512_set1_epi32(t->zero);
  for (size_t j = 0; j < t->columns; j += 16) {
    const __mmask16 some = t->columns - j < 16 ? (__mmask16)((1u << (t->columns - j)) - 1) : UINT16_MAX;
    const __m512 scale = _mm512_maskz_loadu_ps(some, t->scale + j), bias = _mm512_maskz_loadu_ps(some, t->bias + j);
    const __m512i start = _mm512_maskz_loadu_epi32(some, t->start + j);
    for (size_t r = 0; r < t->rows; r++) {
      const __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(&sums[r][j]), start);
      __m512 v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, bias);
      if (t->residual) {
        const __m512i codes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(some, t->residual + r * t->residual_stride + j));
        v = _mm512_add_ps(v, _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), residual_scale, residual_bias));
      }
      v = _mm512_min_ps(_mm512_max_ps(v, low), high);
      const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), zero));
      _mm_mask_storeu_epi8((uint8_t *)t->c + r * t->c_stride + j, some, bytes);
    }
  }
}

/* Rows [begin, end) of the tile, at most 16, whose sums these are. */
static void finish_sums(const cml_integer_tile *t, size_t begin, size_t end, int32_t (*sums)[COLUMNS]) {
  float values[ROWS][COLUMNS];
  const cml_integer_tile u = rows_of(t, begin, end);
  if (t->to == CML_TO_BYTE && !t->middle && !t->unary_rows) {
    finish_bytes(&u, sums);
    return;
  }
  for (size_t r = 0; r < u.rows; r++)
    for (size_t j = 0; j < t->columns; j += 16) {
      __mmask16 some = t->columns - j < 16 ? (__mmask16)((1u << (t->columns - j)) - 1) : UINT16_MAX;
      __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(&sums[r][j]), _mm512_maskz_loadu_epi32(some, t->start + j));
      _mm512_storeu_ps(&values[r][j], _mm512_cvtepi32_ps(sum));
    }
  finish(&u, values[0], COLUMNS);
}

static void few_rows(const cml_integer_tile *t) {
  for (size_t r = 0, end; r < t->rows; r = end) {
    end = t->rows - r < base.rows ? t->rows : r + base.rows;
    const cml_integer_tile u = rows_of(t, r, end);
    base.tile(&u);
  }
}

static void integer_tile(const cml_integer_tile *t) {
  _Alignas(64) int32_t sums[2 * ROWS][COLUMNS];
  edges e;
  if (t->rows < ROWS) {
    few_rows(t);
    return;
  }
  TILE_CONFIGURE(&cml_whole_tiles);
  for (size_t r = 0, middle, end; r < t->rows; r = end) {
    size_t last = t->rows - ROWS, first = r < last ? r : last, second = r + ROWS < last ? r + ROWS : last;
    middle = t->rows - r < ROWS ? t->rows : r + ROWS;
    end = t->rows - r < 2 * ROWS ? t->rows : r + 2 * ROWS;
    sum_rows(t, first, second, &e, sums);
    finish_sums(t, r, middle, sums + (r - first));
    if (middle < end) finish_sums(t, middle, end, sums + ROWS + (middle - second));
  }
  TILE_RELEASE();
}

void CML_FILL_BYTES(cml_kernels *k) {
  if (k->integer_columns != COLUMNS) return;
  base.tile = k->integer_tile;
  base.finish = k->integer_finish;
  base.rows = k->integer_rows;
  k->integer_tile = integer_tile;
  k->integer_finish = finish;
  k->integer_rows = MOST_ROWS;
}
