/* Products of float16 and float32 matrices on AMX tiles, with sums in float32.
 *
 * TDPBF16PS multiplies pairs of bfloat16, which have 8 significant bits and float32's range: to the sum in row m and column n it adds
 * a[m][2k] b[2k][n] + a[m][2k + 1] b[2k + 1][n] for 16 k, 512 multiplications a cycle where AVX-512 makes 32 of floats. A float16 (11 bits) is
 * the sum of two bfloat16, a float32 (24 bits) of three. Of the products of parts those are
 * computed that float32 would see beside the first: three of the four of halves (the last is below 2^-15 of the whole, a sixteenth of
 * what rounding to float16 leaves, and of either sign), six of the nine of floats (below 2^-24). With AMX-FP16 halves are
 * multiplied as they are.
 *
 * The tiles take bfloat16 and sums below 2^-126 for zeros: halves have none, floats below 2^-102 lose their last parts. Infinity times a part
 * that is 0 is NaN, so sums that are NaN are computed again from floats by the other table's tile.
 *
 * Tiles are configured and released within a call: nobody else sees them, and a signal that comes in between finds 8 KiB to save. */
#include <immintrin.h>
#include <string.h>

#include "kernels_internal.h"
#include "sizes.h"
#if defined(CML_AMX_MODEL)
#define CML_FILL_PARTS cml_fill_parts_model
#include "amx_model.h" /* tests run the same loops where there are no tiles */
#else
#define CML_FILL_PARTS cml_fill_parts_amx
#include "amx_instructions.h"
#endif

#define INLINE static inline __attribute__((always_inline))

enum { STEP = CML_PART_DEPTH, COLUMNS = 32, STRIP = 16, MOST_PARTS = 3, ROWS_AHEAD = 3 };

/* A step of b: of each part, and each 16 of the columns, 16 pairs of rows. */
typedef struct step {
  _Alignas(64) uint16_t pairs[2][STEP / 2][COLUMNS / 2][2];
} step;

static struct {
  void (*tile)(const cml_tile *t);
  size_t rows;
} base; /* of the table that this one extends; set once, when tables are filled */

INLINE __mmask16 lanes(size_t n) { return n < 16 ? (__mmask16)((1u << n) - 1) : UINT16_MAX; }
INLINE __mmask32 words(size_t n) { return n < 32 ? (__mmask32)((UINT32_C(1) << n) - 1) : UINT32_MAX; }

/* ---- numbers to parts ---- */

INLINE __m512 widened(__m256i bf16) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16)); }

/* The next part of x, which it leaves the rest of. A float that would round to infinity gives the largest number. */
INLINE __m512i take_part(__m512 x[2], bool half) {
  __m512 v[2] = {x[0], x[1]};
  for (int i = 0; i < 2 && !half; i++) {
    const __m512i most = _mm512_set1_epi32(0x7f7f0000), bits = _mm512_castps_si512(x[i]), size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
    const __mmask16 large = _mm512_cmpgt_epi32_mask(size, most) & _mm512_cmplt_epi32_mask(size, _mm512_set1_epi32(0x7f800000));
    v[i] = _mm512_castsi512_ps(_mm512_mask_ternarylogic_epi32(bits, large, most, _mm512_set1_epi32(INT32_MIN), 0xe4)); /* the sign of its own */
  }
  const __m512i part = ROUND_BF16(v[0], v[1]);
  x[0] = _mm512_sub_ps(x[0], widened(_mm512_castsi512_si256(part)));
  x[1] = _mm512_sub_ps(x[1], widened(_mm512_extracti64x4_epi64(part, 1)));
  return part;
}

INLINE void part_line(const int parts, const bool half, const void *from, size_t n, uint16_t *to, size_t apart) {
  for (size_t i = 0; i < n; i += STEP) {
    __m512i halves = _mm512_setzero_si512();
    __m512 x[2];
    if (half) {
      halves = _mm512_maskz_loadu_epi16(words(n - i), (const cml_f16 *)from + i);
      if (parts == 1) {
        _mm512_storeu_si512(to + i, halves);
        continue;
      }
      x[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(halves)), x[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
    } else {
      const float *floats = (const float *)from + i;
      x[0] = _mm512_maskz_loadu_ps(lanes(n - i), floats), x[1] = n - i > 16 ? _mm512_maskz_loadu_ps(lanes(n - i - 16), floats + 16) : _mm512_setzero_ps();
    }
    for (int p = 0; p < parts; p++) _mm512_storeu_si512(to + (size_t)p * apart + i, take_part(x, half));
  }
}

INLINE void part_rows(const int parts, const bool half, size_t rows, size_t n, const char *x, size_t x_stride, uint16_t *to, size_t to_stride, size_t apart) {
  for (size_t r = 0; r < rows; r++, x += x_stride * (half ? 2 : 4), to += to_stride) {
    for (size_t i = 0; i < n * (half ? 2 : 4) && r + ROWS_AHEAD < rows; i += 64) _mm_prefetch(x + ROWS_AHEAD * x_stride * (half ? 2 : 4) + i, _MM_HINT_T0);
    part_line(parts, half, x, n, to, apart);
  }
}

static void part_bf16(bool half, size_t rows, size_t n, const void *x, size_t x_stride, uint16_t *to, size_t to_stride, size_t apart) {
  if (half) part_rows(2, true, rows, n, x, x_stride, to, to_stride, apart);
  else part_rows(3, false, rows, n, x, x_stride, to, to_stride, apart);
}

static void part_fp16(bool half, size_t rows, size_t n, const void *x, size_t x_stride, uint16_t *to, size_t to_stride, size_t apart) {
  if (half) part_rows(1, true, rows, n, x, x_stride, to, to_stride, apart);
  else part_rows(3, false, rows, n, x, x_stride, to, to_stride, apart);
}

/* ---- panels of b, a piece of the depth at a time ----
 *
 * Weights lie as they are stored, halves or floats; vectors bring the next piece into parts while the tiles multiply one: memory gives a third to a half of
 * the bytes that parts take, and the instructions fit into the cycles that those of the tiles leave. */

enum { ROW_BYTES = COLUMNS * sizeof(float), PIECE_STEPS = 64, FEW_STEPS = 2, MOST_PAIRS = 14, AHEAD = 32 << 10 };

typedef struct room {
  const void *of; /* the panel whose first piece is here, */
  size_t at;      /* in this one */
  _Alignas(64) step pieces[2][PIECE_STEPS];
  float sums[MOST_PAIRS][2][STRIP][COLUMNS];
} room;
_Static_assert(sizeof(room) <= CML_PARTS_ROOM, "the room that callers give");

/* Rows of a panel on their way to a piece. */
typedef struct source {
  const char *row;
  size_t depth, left; /* rows of a stretch, and those that are left of one */
  step *to;
  size_t i, pairs;    /* the next pair of its step; pairs that are left */
} source;

INLINE source source_of(const cml_tile *t, const void *b, size_t first, size_t steps, step *to) {
  const size_t each = (t->depth + STEP - 1) / STEP, at = first % each * STEP;
  return (source){(const char *)b + (first / each * t->depth + at) * ROW_BYTES / (t->b_half ? 2 : 1), t->depth, t->depth - at, to, 0, steps * (STEP / 2)};
}

/* x with the next part in its upper half: of floats the nearest bfloat16, as infinity where that overflows; of halves what it has there, which is quicker and,
 * a's being the nearest, leaves out products of either sign, too. */
INLINE __m512i upper(__m512 x, bool half) {
  const __m512i bits = _mm512_castps_si512(x);
  return half ? bits : _mm512_add_epi32(bits, _mm512_set1_epi32(1 << 15));
}

INLINE __m512 rest(__m512 x, __m512i upper) { return _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_and_si512(upper, _mm512_set1_epi32(-65536)))); }

INLINE void part_pair(const int parts, const bool half, source *s) {
  const size_t row = ROW_BYTES / (half ? 2 : 1);
  const char *low = s->row, *high = low + row;
  for (size_t j = 0; j < 2 * row; j += 64) _mm_prefetch(low + AHEAD + j, _MM_HINT_T1);
  const bool two = s->left > 1, one = s->left > 0;
  for (int j = 0; j < 2; j++) {
    if (parts == 1) {
      const __m512i even = one ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)low + j)) : _mm512_setzero_si512();
      const __m512i odd = two ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)high + j)) : _mm512_setzero_si512();
      _mm512_store_si512(s->to->pairs[j][s->i], _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
      continue;
    }
    __m512 even = _mm512_setzero_ps(), odd = even;
    if (one) even = half ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)low + j)) : _mm512_loadu_ps((const float *)(const void *)low + 16 * j);
    if (two) odd = half ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)high + j)) : _mm512_loadu_ps((const float *)(const void *)high + 16 * j);
    for (int p = 0; p < parts; p++) {
      const __m512i first = upper(even, half), second = upper(odd, half);
      _mm512_store_si512(s->to[p].pairs[j][s->i], _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(first, 16), second));
      even = rest(even, first), odd = rest(odd, second);
    }
  }
  s->row += two ? 2 * row : one ? row : 0;
  s->left -= two ? 2 : one;
  s->pairs--;
  if (++s->i < STEP / 2) return;
  s->i = 0, s->to += parts;
  if (!s->left) s->left = s->depth;
}

INLINE void part_pairs(const int parts, const bool half, source *s, size_t n) {
  for (n = least(n, s->pairs); n; n--) part_pair(parts, half, s);
}

/* ---- products: tiles 0 to 3 hold sums, 4 and 5 rows of a, 6 and 7 columns of b ---- */

typedef struct strips {
  size_t in_row, rows, count; /* in each row of pixels; of pixels; in all */
  size_t height, pixels;
} strips;

INLINE strips cut(const cml_tile *t) {
  const size_t pixels = t->split ? t->split : t->rows, in_row = (pixels + STRIP - 1) / STRIP, rows = t->rows / pixels;
  return (strips){in_row, rows, in_row * rows, (pixels + in_row - 1) / in_row, pixels};
}

/* Where strip s begins: the row of pixels and the pixel in it. The last of a row may begin within the one before. */
INLINE size_t begins(const strips *c, size_t s) { return least(s % c->in_row * c->height, c->pixels - c->height); }

enum { LINE = 64 };

/* a0, a1: strips of a; both times a part of b. */
#define MULTIPLY(instruction)           \
  do {                                  \
    instruction(0, 4, 6);               \
    instruction(1, 4, 7);               \
    if (high > 1) instruction(2, 5, 6); \
    if (high > 1) instruction(3, 5, 7); \
  } while (0)
#define LOAD_A(part)                                                    \
  do {                                                                  \
    TILE_LOAD(4, a0 + (part)*apart, stride);                            \
    if (high > 1) TILE_LOAD(5, a1 + (part)*apart, stride);              \
  } while (0)
#define LOAD_B(part)                             \
  do {                                           \
    TILE_LOAD(6, b[part].pairs[0], LINE);        \
    TILE_LOAD(7, b[part].pairs[1], LINE);        \
  } while (0)

#define PRODUCT(instruction)          \
  do {                                \
    MULTIPLY(instruction);            \
    part_pairs(parts, half, next, n); \
  } while (0)

/* Each product differs from the one before in one factor. After each, n pairs of what comes next. */
INLINE void multiply_step(const int parts, const bool half, const int high, const uint16_t *a0, const uint16_t *a1, size_t apart, size_t stride, const step *b, source *next, size_t n) {
  LOAD_B(0);
  if (parts == 1) {
    LOAD_A(0);
    PRODUCT(MULTIPLY_FP16);
    return;
  }
  if (parts == 3) {
    LOAD_A(2);
    PRODUCT(MULTIPLY_BF16);
  }
  LOAD_A(1);
  PRODUCT(MULTIPLY_BF16);
  if (parts == 3) {
    LOAD_B(1);
    PRODUCT(MULTIPLY_BF16);
  }
  LOAD_A(0);
  PRODUCT(MULTIPLY_BF16);
  if (parts == 3) {
    LOAD_B(2);
    PRODUCT(MULTIPLY_BF16);
    LOAD_B(0);
  } else {
    LOAD_B(1);
  }
  PRODUCT(MULTIPLY_BF16);
}

/* A piece of the depth, in parts. */
typedef struct piece {
  const step *b;
  size_t first, steps;
  bool begins; /* its sums; else they are in memory */
} piece;

/* Strips s and, when high is 2, s + 1. */
INLINE void sums_of(const int parts, const bool half, const int high, const cml_tile *t, const strips *c, size_t s, const piece *p, float (*sums)[STRIP][COLUMNS], source *next, size_t n) {
  const uint16_t *a[2] = {t->parts, t->parts};
  for (int i = 0; i < high; i++) {
    const size_t row = (s + (size_t)i) / c->in_row, at = begins(c, s + (size_t)i);
    a[i] += (row * c->pixels + at) * t->a_stride + row * t->a_jump;
  }
  const size_t stride = t->a_stride * sizeof(uint16_t), apart = t->parts_apart, each = (t->depth + STEP - 1) / STEP;
  if (p->begins) {
    TILE_ZERO(0);
    TILE_ZERO(1);
    if (high > 1) TILE_ZERO(2);
    if (high > 1) TILE_ZERO(3);
  } else {
    TILE_LOAD(0, sums[0][0], ROW_BYTES);
    TILE_LOAD(1, sums[0][0] + 16, ROW_BYTES);
    if (high > 1) TILE_LOAD(2, sums[1][0], ROW_BYTES);
    if (high > 1) TILE_LOAD(3, sums[1][0] + 16, ROW_BYTES);
  }
  const step *b = p->b;
  for (size_t d = p->first, last = d + p->steps; d < last;) {
    size_t at = (t->offsets ? t->offsets[d / each] : 0) + d % each * STEP;
    for (const size_t end = least(last, (d / each + 1) * each); d < end; d++, at += STEP, b += parts) multiply_step(parts, half, high, a[0] + at, a[1] + at, apart, stride, b, next, n);
  }
  TILE_STORE(0, sums[0][0], ROW_BYTES);
  TILE_STORE(1, sums[0][0] + 16, ROW_BYTES);
  if (high > 1) TILE_STORE(2, sums[1][0], ROW_BYTES);
  if (high > 1) TILE_STORE(3, sums[1][0] + 16, ROW_BYTES);
}

static bool has_nan(const float (*sums)[COLUMNS], size_t rows) {
  __m512 all[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (size_t r = 0; r < rows; r++)
    for (int j = 0; j < 2; j++) all[j] = _mm512_add_ps(all[j], _mm512_load_ps(sums[r] + 16 * j)); /* or infinities of both signs */
  return _mm512_cmp_ps_mask(all[0], all[0], _CMP_UNORD_Q) | _mm512_cmp_ps_mask(all[1], all[1], _CMP_UNORD_Q);
}

/* n parts at x, `apart` apart, as the number that they were made of. */
INLINE __m512 whole(const int parts, const uint16_t *x, size_t apart, __mmask16 m) {
  if (parts == 1) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, x));
  __m512 v = widened(_mm256_maskz_loadu_epi16(m, x));
  for (int p = 1; p < parts; p++) {
    const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ);
    v = _mm512_mask_add_ps(v, finite, v, widened(_mm256_maskz_loadu_epi16(m, x + (size_t)p * apart)));
  }
  return v;
}

/* Those of the strip's sums that are NaN by the other tile, from a's parts made floats again. The others stay: which rows share a strip is the
 * threads' affair. */
static __attribute__((noinline)) void sums_of_floats(const int parts, const cml_tile *t, const strips *c, size_t s, float (*to)[COLUMNS]) {
  const size_t row = s / c->in_row;
  const uint16_t *a = t->parts + (row * c->pixels + begins(c, s)) * t->a_stride + row * t->a_jump;
  const char *b = t->b;
  float rows[STRIP][STEP], sums[STRIP][COLUMNS];
  memset(sums, 0, c->height * sizeof *sums);
  for (size_t i = 0; i < t->stretches; i++)
    for (size_t k = 0, n; k < t->depth; k += n, b += n * ROW_BYTES / (t->b_half ? 2 : 1)) {
      n = least(t->depth - k, STEP);
      for (size_t r = 0; r < c->height; r++)
        for (size_t j = 0; j < STEP; j += 16)
          _mm512_storeu_ps(rows[r] + j, whole(parts, a + (t->offsets ? t->offsets[i] : 0) + k + r * t->a_stride + j, t->parts_apart, n > j ? lanes(n - j) : 0));
      for (size_t r = 0, high; r < c->height; r += high) {
        high = least(c->height - r, base.rows);
        base.tile(&(cml_tile){.rows = high, .columns = COLUMNS, .stretches = 1, .depth = n, .a = rows[r], .a_stride = STEP, .b = b, .b_half = t->b_half, .from = sums[r],
                              .from_stride = COLUMNS, .low = -__builtin_inff(), .high = __builtin_inff(), .c = sums[r], .c_stride = COLUMNS});
      }
    }
  for (size_t r = 0; r < c->height; r++)
    for (size_t j = 0; j < COLUMNS; j += 16) {
      const __m512 v = _mm512_load_ps(to[r] + j);
      _mm512_mask_storeu_ps(to[r] + j, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), _mm512_loadu_ps(sums[r] + j));
    }
}

/* What was there before, bias, residual, function and store are the other tile's, which gets the sums to begin with and no depth. */
static void finish(const cml_tile *t, const strips *c, size_t s, const float (*sums)[COLUMNS]) {
  const size_t at = begins(c, s), skip = s % c->in_row * c->height - at, row = s / c->in_row, size = t->c_half ? 2 : 4;
  const size_t pixel = row * c->pixels + at + skip, n = c->height - skip;
  float more[STRIP][COLUMNS];
  if (t->from) {
    for (size_t r = 0; r < n; r++)
      for (size_t j = 0; j < t->columns; j += 16)
        _mm512_storeu_ps(more[r] + j, _mm512_add_ps(_mm512_load_ps(sums[skip + r] + j), _mm512_maskz_loadu_ps(lanes(t->columns - j), t->from + (pixel + r) * t->from_stride + j)));
    sums = (const float(*)[COLUMNS])more;
  } else {
    sums += skip;
  }
  cml_tile u = *t;
  u.stretches = 0, u.split = 0;
  u.from_stride = COLUMNS;
  for (size_t r = 0; r < n; r += u.rows) {
    const size_t to = (pixel + r) * t->c_stride + row * t->c_jump;
    u.rows = least(n - r, base.rows);
    u.from = sums[r];
    if (t->residual) u.residual = (const char *)t->residual + ((pixel + r) * t->residual_stride + row * t->c_jump) * size;
    u.c = (char *)t->c + to * size;
    base.tile(&u);
  }
}

INLINE void finish_pair(const int parts, const cml_tile *t, const strips *c, size_t s, size_t high, float (*sums)[STRIP][COLUMNS]) {
  for (size_t i = 0; i < high; i++) {
    if (has_nan((const float(*)[COLUMNS])sums[i], c->height)) sums_of_floats(parts, t, c, s + i, sums[i]);
    finish(t, c, s + i, (const float(*)[COLUMNS])sums[i]);
  }
}

INLINE void tile_of(const int parts, const bool half, const cml_tile *t) {
  room *m = t->room;
  const strips c = cut(t);
  cml_tile_configuration low = cml_whole_tiles; /* but for b's */
  for (int i = 0; i < 6; i++) low.rows[i] = (uint8_t)c.height;
  /* few rows read each piece of floats so seldom that it should not leave the first-level cache */
  const size_t most = parts == 3 && c.count <= 4 ? FEW_STEPS : PIECE_STEPS / parts, steps = t->stretches * ((t->depth + STEP - 1) / STEP), pieces = steps > most ? (steps + most - 1) / most : 1, length = (steps + pieces - 1) / pieces;
  TILE_CONFIGURE(&low);
  if (m->of != t->b && steps) {
    source now = source_of(t, t->b, 0, length, m->pieces[m->at = 0]);
    part_pairs(parts, half, &now, now.pairs);
  }
  for (size_t s = 0, some; s < c.count; s += some) { /* as many as sums have room for */
    some = least(c.count - s, 2 * MOST_PAIRS);
    for (size_t d = 0; d < pieces; d++) {
      const piece p = {m->pieces[m->at], d * length, least(steps - d * length, length), !d};
      const bool again = d + 1 < pieces || s + some < c.count; /* of this panel */
      const size_t from = d + 1 < pieces ? (d + 1) * length : 0;
      source next = {0};
      if (steps && (again || t->next)) next = source_of(t, again ? t->b : t->next, from, least(steps - from, length), m->pieces[m->at ^= 1]);
      const size_t n = p.steps ? (next.pairs + (some + 1) / 2 * p.steps * parts * (parts + 1) / 2 - 1) / ((some + 1) / 2 * p.steps * parts * (parts + 1) / 2) : 0;
      for (size_t i = 0; i < some; i += 2) {
        float(*sums)[STRIP][COLUMNS] = m->sums[pieces > 1 ? i / 2 : 0];
        const size_t high = some - i > 1 ? 2 : 1;
        if (high > 1) sums_of(parts, half, 2, t, &c, s + i, &p, sums, &next, n);
        else sums_of(parts, half, 1, t, &c, s + i, &p, sums, &next, n);
        if (d + 1 == pieces) finish_pair(parts, t, &c, s + i, high, sums);
      }
      part_pairs(parts, half, &next, next.pairs);
    }
  }
  m->of = t->next;
  TILE_RELEASE();
}

static void tile_bf16(const cml_tile *t) {
  if (t->b_half) tile_of(2, true, t);
  else tile_of(3, false, t);
}

static void tile_fp16(const cml_tile *t) {
  if (t->b_half) tile_of(1, true, t);
  else tile_of(3, false, t);
}

void CML_FILL_PARTS(cml_kernels *k, bool native) {
  base.tile = k->tile;
  base.rows = k->tile_rows;
  k->half_parts = native ? 1 : 2;
  k->part = native ? part_fp16 : part_bf16;
  k->tile_parts = native ? tile_fp16 : tile_bf16;
}
