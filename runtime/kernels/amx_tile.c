/* Products of float16 matrices on AMX tiles, with sums in float32.
 *
 * A float16 has 11 significant bits, a bfloat16 has 8 and more range: each float16 is the sum of two bfloat16, its first 8 bits and its
 * last 3. Four products of such parts make the product of two halves, each exact in float32. TDPBF16PS multiplies pairs: to the
 * sum in row m and column n it adds a[m][2k] b[2k][n] + a[m][2k + 1] b[2k + 1][n] for 16 k. With (first, last) of one element of a as
 * a pair of its rows, and one part of b twice as a pair of its columns, two such instructions add 16 exact products:
 * 512 multiplications a cycle make 128 of halves, where AVX-512 makes 32 of floats. A pair takes four bytes as the float did that
 * it is made of, so tiles are loaded from wherever the drivers keep rows of floats. With AMX-FP16 the pair is (half, 0), and one
 * instruction does.
 *
 * The tiles take bfloat16 and sums below 2^-126 for zeros. Parts of halves are multiples of 2^-24 and sums of their products of
 * 2^-48, so that happens to none but what `from` holds. Infinity times a part that is 0 would be NaN: blocks of a that hold one are left
 * as floats (pair says so), and tiles whose b holds one are computed by the other instructions.
 *
 * Tiles are configured and released within a call: nobody else sees them, and a signal that comes in between finds 8 KiB to save. */
#include <immintrin.h>
#include <string.h>

#include "kernels_internal.h"
#if defined(CML_AMX_MODEL)
#define CML_FILL_PAIRS cml_fill_pairs_model
#include "amx_model.h" /* tests run the same loops where there are no tiles */
#else
#define CML_FILL_PAIRS cml_fill_pairs_amx
#include "amx_instructions.h"
#endif

#define INLINE static inline __attribute__((always_inline))

enum { STEP = 16, CHUNK = 128, COLUMNS = 32, TILE_BYTES = 64 };

typedef struct room {
  _Alignas(64) uint32_t b[2][CHUNK][COLUMNS]; /* pairs of the first, then of the last parts */
  _Alignas(64) float sums[CML_PAIR_ROWS][COLUMNS];
  _Alignas(64) uint32_t edge[2 * STEP][STEP]; /* of a, where it ends within a tile */
} room;

static struct {
  void (*tile)(const cml_tile *t);
  size_t rows;
} base; /* of the table that this one extends; set once, when tables are filled */

/* ---- the instructions: tiles 0 to 3 hold sums, 4 and 5 rows of a, 6 and 7 columns of b ---- */

#define MULTIPLY(sums, a, b)              \
  do {                                    \
    if (native) MULTIPLY_FP16(sums, a, b); \
    else MULTIPLY_BF16(sums, a, b);       \
  } while (0)

/* ---- halves to pairs ---- */

INLINE __mmask16 lanes(size_t n) { return n < 16 ? (__mmask16)((1u << n) - 1) : UINT16_MAX; }

enum { NOT_FINITE = 0x99 }; /* VFPCLASSPS: NaN, infinities */

static bool pair_bf16(float *x, size_t rows, size_t n, size_t stride) {
  __mmask16 bad = 0;
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i += 16) bad |= _mm512_fpclass_ps_mask(_mm512_maskz_loadu_ps(lanes(n - i), x + r * stride + i), NOT_FINITE);
  if (bad) return false;
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i += 16) {
      __m512 v = _mm512_maskz_loadu_ps(lanes(n - i), x + r * stride + i);
      __m512i first = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)0xffff0000));
      __m512i last = _mm512_castps_si512(_mm512_sub_ps(v, _mm512_castsi512_ps(first)));
      _mm512_mask_storeu_epi32(x + r * stride + i, lanes(n - i), _mm512_or_si512(_mm512_srli_epi32(first, 16), last));
    }
  return true;
}

static bool pair_fp16(float *x, size_t rows, size_t n, size_t stride) {
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i += 16) {
      __m512 v = _mm512_maskz_loadu_ps(lanes(n - i), x + r * stride + i);
      _mm512_mask_storeu_epi32(x + r * stride + i, lanes(n - i), _mm512_cvtepu16_epi32(_mm512_cvtps_ph(v, 8)));
    }
  return true;
}

/* n steps of b, and zeros up to a whole tile; false when one is not finite, which bfloat16 parts cannot say. */
INLINE bool pair_b(const bool native, const cml_f16 *b, size_t n, const char *ask, size_t ask_step, room *to) {
  __mmask16 bad = 0;
  for (size_t k = 0; k < n; k++, ask += ask_step) {
    if (ask_step) _mm_prefetch(ask, _MM_HINT_T1);
    for (size_t j = 0; j < COLUMNS; j += 16) {
      __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)(b + k * COLUMNS + j));
      if (native) {
        _mm512_store_si512(&to->b[0][k][j], _mm512_cvtepu16_epi32(halves));
        continue;
      }
      __m512 v = _mm512_cvtph_ps(halves);
      bad |= _mm512_fpclass_ps_mask(v, NOT_FINITE);
      __m512i first = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)0xffff0000));
      __m512i last = _mm512_castps_si512(_mm512_sub_ps(v, _mm512_castsi512_ps(first)));
      _mm512_store_si512(&to->b[0][k][j], _mm512_or_si512(first, _mm512_srli_epi32(first, 16)));
      _mm512_store_si512(&to->b[1][k][j], _mm512_or_si512(last, _mm512_srli_epi32(last, 16)));
    }
  }
  size_t zeros = (STEP - n % STEP) % STEP * sizeof to->b[0][0];
  memset(to->b[0][n], 0, zeros);
  if (!native) memset(to->b[1][n], 0, zeros);
  return !bad;
}

/* ---- products ---- */

/* `high` tiles of rows of a whose end lies within them, or whose depth does: the rest is zeros. */
static void copy_edge(const float *a, size_t stride, size_t rows, size_t depth, uint32_t (*to)[STEP]) {
  for (size_t r = 0; r < 2 * STEP; r++) {
    __mmask16 m = r < rows ? lanes(depth) : 0;
    _mm512_store_si512(to[r], _mm512_maskz_loadu_epi32(m, r < rows ? a + r * stride : a));
  }
}

/* `high` tiles of rows, from r on, times n steps of b. */
INLINE void group(const bool native, const int high, size_t r, size_t rows, const float *a, size_t a_stride, size_t n, room *m) {
  float *sums = m->sums[r];
  enum { ROW = COLUMNS * sizeof(float) };
  TILE_LOAD(0, sums, ROW);
  TILE_LOAD(1, sums + 16, ROW);
  if (high > 1) TILE_LOAD(2, sums + 16 * COLUMNS, ROW);
  if (high > 1) TILE_LOAD(3, sums + 16 * COLUMNS + 16, ROW);
  for (size_t k = 0; k < n; k += STEP) {
    const void *from = a + k;
    size_t stride = a_stride * sizeof(float), left = rows - r;
    if (left < (size_t)high * STEP || n - k < STEP) {
      copy_edge(a + k, a_stride, left < (size_t)high * STEP ? left : (size_t)high * STEP, n - k, m->edge);
      from = m->edge;
      stride = TILE_BYTES;
    }
    TILE_LOAD(4, from, stride);
    if (high > 1) TILE_LOAD(5, (const char *)from + STEP * stride, stride);
    for (int part = 0; part < (native ? 1 : 2); part++) {
      TILE_LOAD(6, m->b[part][k], ROW);
      TILE_LOAD(7, m->b[part][k] + 16, ROW);
      MULTIPLY(0, 4, 6);
      MULTIPLY(1, 4, 7);
      if (high > 1) MULTIPLY(2, 5, 6);
      if (high > 1) MULTIPLY(3, 5, 7);
    }
  }
  TILE_STORE(0, sums, ROW);
  TILE_STORE(1, sums + 16, ROW);
  if (high > 1) TILE_STORE(2, sums + 16 * COLUMNS, ROW);
  if (high > 1) TILE_STORE(3, sums + 16 * COLUMNS + 16, ROW);
}

static void begin(const cml_tile *t, room *m) {
  for (size_t r = 0; r < CML_PAIR_ROWS && r < ((t->rows + 2 * STEP - 1) & ~(size_t)(2 * STEP - 1)); r++)
    for (size_t j = 0; j < COLUMNS; j += 16) {
      __mmask16 some = t->from && r < t->rows && j < t->columns ? lanes(t->columns - j) : 0;
      _mm512_store_ps(m->sums[r] + j, some ? _mm512_maskz_loadu_ps(some, t->from + r * t->from_stride + j) : _mm512_setzero_ps());
    }
}

/* Bias, residual, function and store are the other tile's, which gets the sums to begin with and no depth. */
static void finish(const cml_tile *t, const room *m) {
  cml_tile u = *t;
  u.stretches = 0;
  u.from_stride = COLUMNS;
  for (size_t r = 0; r < t->rows; r += u.rows) {
    u.rows = t->rows - r < base.rows ? t->rows - r : base.rows;
    u.from = m->sums[r];
    if (t->residual) u.residual = (const char *)t->residual + r * t->residual_stride * (t->c_half ? 2 : 4);
    u.c = (char *)t->c + r * t->c_stride * (t->c_half ? 2 : 4);
    base.tile(&u);
  }
}

/* All of the product by the other tile, from pairs made floats again. */
static __attribute__((noinline)) void sums_of_floats(const cml_tile *t, room *m) {
  float rows[16][CHUNK];
  const char *b = t->b;
  begin(t, m);
  for (size_t s = 0; s < t->stretches; s++)
    for (size_t k = 0, n; k < t->depth; k += n, b += n * COLUMNS * sizeof(cml_f16)) {
      n = t->depth - k < CHUNK ? t->depth - k : CHUNK;
      for (size_t r = 0, high; r < t->rows; r += high) {
        high = t->rows - r < base.rows ? t->rows - r : base.rows;
        for (size_t i = 0; i < high; i++)
          for (size_t j = 0; j < n; j += 16) {
            const float *a = t->a + (t->offsets ? t->offsets[s] : 0) + (r + i) * t->a_stride + k + j;
            __m512i pair = _mm512_maskz_loadu_epi32(lanes(n - j), a), last = _mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000));
            __m512 v = _mm512_add_ps(_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), _mm512_castsi512_ps(last));
            _mm512_storeu_ps(rows[i] + j, v);
          }
        base.tile(&(cml_tile){.rows = high, .columns = t->columns, .stretches = 1, .depth = n, .a = rows[0], .a_stride = CHUNK, .b = b,
                              .b_half = true, .from = m->sums[r], .from_stride = COLUMNS, .low = -__builtin_inff(), .high = __builtin_inff(),
                              .c = m->sums[r], .c_stride = COLUMNS});
      }
    }
}

/* False: b is not finite, the sums are void. */
INLINE bool sums_of_pairs(const bool native, const cml_tile *t, room *m) {
  const cml_f16 *b = t->b;
  const char *ask = t->ask ? t->ask : t->b;
  bool finite = true;
  begin(t, m);
  TILE_CONFIGURE(&cml_whole_tiles);
  for (size_t s = 0; s < t->stretches && finite; s++)
    for (size_t k = 0, n; k < t->depth && finite; k += n, b += n * COLUMNS) {
      const float *a = t->a + (t->offsets ? t->offsets[s] : 0) + k;
      n = t->depth - k < CHUNK ? t->depth - k : CHUNK;
      finite = pair_b(native, b, n, ask, t->ask ? t->ask_step : 0, m);
      if (t->ask) ask += n * t->ask_step;
      for (size_t r = 0; r < t->rows && finite; r += 2 * STEP) {
        if (t->rows - r > STEP) group(native, 2, r, t->rows, a + r * t->a_stride, t->a_stride, n, m);
        else group(native, 1, r, t->rows, a + r * t->a_stride, t->a_stride, n, m);
      }
    }
  TILE_RELEASE();
  return finite;
}

static void tile_pairs_bf16(const cml_tile *t) {
  room m;
  if (!sums_of_pairs(false, t, &m)) sums_of_floats(t, &m);
  finish(t, &m);
}

static void tile_pairs_fp16(const cml_tile *t) {
  room m;
  (void)sums_of_pairs(true, t, &m);
  finish(t, &m);
}

void CML_FILL_PAIRS(cml_kernels *k, bool native) {
  base.tile = k->tile;
  base.rows = k->tile_rows;
  k->pair = native ? pair_fp16 : pair_bf16;
  k->tile_pairs = native ? tile_pairs_fp16 : tile_pairs_bf16;
}
