/* Kernels on bytes that stand for scale * (byte - zero), compiled once for each instruction set.
 *
 * The product sums unsigned bytes times signed bytes exactly in 32 bits, four of the depth to a lane. With VNNI that is one
 * instruction, with ARM's dot products nearly. Without bytes at even and odd places become numbers of 16 bits (each weight once for all rows of the tile, each row's
 * bytes once for all columns), whose products are added in pairs; in portable C each byte becomes a lane of 32 bits. Nothing
 * saturates anywhere: 255 * -128 * 2 fits where two products meet. All variants take the same packed weights but for the number of columns.
 *
 * The end of a tile is float arithmetic by column: what follows a layer up to the next quantization, one rounding to a byte. */
#include <math.h>

#include "kernels_internal.h"
#include "simd.h"

#if defined(__AVX512VNNI__)
enum { IR = 14, PARTS = 1 };
#if defined(__AVX512VBMI__)
#define FILL cml_fill_integer_avx512vbmi
#else
#define FILL cml_fill_integer_avx512vnni
#endif
#elif defined(__AVX512F__)
enum { IR = 12, PARTS = 2 };
#define FILL CML_SIMD(cml_fill_integer)
#elif defined(__AVXVNNI__)
enum { IR = 6, PARTS = 1 };
#define FILL cml_fill_integer_avxvnni
#elif defined(__ARM_FEATURE_DOTPROD) && !defined(CML_PORTABLE)
enum { IR = 8, PARTS = 1 };
#define FILL cml_fill_integer_neondot
#elif defined(__AVX2__)
enum { IR = 4, PARTS = 2 };
#define FILL CML_SIMD(cml_fill_integer)
#else
enum { IR = 4, PARTS = 4 };
#define FILL CML_SIMD(cml_fill_integer)
#endif
enum { NV = 2, NR = NV * W };

/* To the nearest whole number, ties to even; |x| < 2^31. */
VINLINE vi nearest(vf x) {
#if defined(__AVX2__) || (defined(__aarch64__) && !defined(CML_PORTABLE))
  return vf_int(x);
#else
  return vf_int(vf_round(x));
#endif
}

VINLINE vf clamped(vf x, vf low, vf high) { return vf_min(vf_max(x, low), high); } /* NaN becomes low */

/* ---- the product ---- */

#if defined(__AVX512VNNI__)
VINLINE void split_weights(vi *w, vi all) { w[0] = all; }
VINLINE void split_bytes(vi *x, vi all) { x[0] = all; }
VINLINE vi multiply(vi sum, const vi *x, const vi *w) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x[0]), "v"(w[0])); /* the intrinsic makes gcc 12 copy the sum */
  return sum;
}
#elif defined(__AVXVNNI__)
VINLINE void split_weights(vi *w, vi all) { w[0] = all; }
VINLINE void split_bytes(vi *x, vi all) { x[0] = all; }
VINLINE vi multiply(vi sum, const vi *x, const vi *w) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x[0]), "x"(w[0]));
  return sum;
}
#elif defined(__ARM_FEATURE_DOTPROD) && !defined(CML_PORTABLE)
/* Both factors are signed: bytes are taken 128 lower, and what the sums lack, 128 times those of the weights, is subtracted (-128 fits). */
#define LOWERED 1
VINLINE void split_weights(vi *w, vi all) { w[0] = all; }
VINLINE void split_bytes(vi *x, vi all) { x[0] = all ^ (int32_t)0x80808080; }
VINLINE vi multiply(vi sum, const vi *x, const vi *w) { return (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)x[0], (int8x16_t)w[0]); }
#elif defined(__AVX2__)
typedef int16_t vs __attribute__((vector_size(W * 4)));
typedef uint16_t vus __attribute__((vector_size(W * 4)));
VINLINE void split_weights(vi *w, vi all) {
  w[0] = (vi)((vs)((vus)all << 8) >> 8);
  w[1] = (vi)((vs)all >> 8);
}
VINLINE void split_bytes(vi *x, vi all) {
  x[0] = all & 0x00ff00ff;
  x[1] = (vi)((vus)all >> 8);
}
VINLINE vi multiply(vi sum, const vi *x, const vi *w) {
#if defined(__AVX512F__)
  return sum + (vi)_mm512_madd_epi16((__m512i)x[0], (__m512i)w[0]) + (vi)_mm512_madd_epi16((__m512i)x[1], (__m512i)w[1]);
#else
  return sum + (vi)_mm256_madd_epi16((__m256i)x[0], (__m256i)w[0]) + (vi)_mm256_madd_epi16((__m256i)x[1], (__m256i)w[1]);
#endif
}
#else
VINLINE void split_weights(vi *w, vi all) {
  w[0] = (vi)((vu)all << 24) >> 24;
  w[1] = (vi)((vu)all << 16) >> 24;
  w[2] = (vi)((vu)all << 8) >> 24;
  w[3] = all >> 24;
}
VINLINE void split_bytes(vi *x, vi all) {
  x[0] = all & 255;
  x[1] = (vi)((vu)all >> 8) & 255;
  x[2] = (vi)((vu)all >> 16) & 255;
  x[3] = (vi)((vu)all >> 24);
}
VINLINE vi multiply(vi sum, const vi *x, const vi *w) { return sum + x[0] * w[0] + x[1] * w[1] + (x[2] * w[2] + x[3] * w[3]); }
#endif

#if !defined(LOWERED)
#define LOWERED 0
#endif
/* Sums that lowered bytes' sums lack, negated. */
VINLINE void add_lack(const int nv, vi *lack, vi (*w)[PARTS]) {
  const vi lowest = vi_set1((int32_t)0x80808080);
  if (LOWERED) CML_UNROLL for (int j = 0; j < nv; j++) lack[j] = multiply(lack[j], &lowest, w[j]);
}
VINLINE void subtract_lack(const int rows, const int nv, vi (*acc)[NV], const vi *lack) {
  if (LOWERED)
    CML_UNROLL for (int i = 0; i < rows; i++)
      CML_UNROLL for (int j = 0; j < nv; j++) acc[i][j] -= lack[j];
}

VINLINE vf load_some(const float *p, size_t n) { return n >= W ? vf_load(p) : vf_load_n(p, n); }

/* The end of a tile for one vector of columns. whole: sums are integers, else floats; general: there is something beside a clamp. */
VINLINE void finish_columns(const bool whole, const bool general, const cml_integer_tile *t, const void *block, size_t width, size_t c, float *values) {
  const size_t n = t->columns - c < W ? t->columns - c : W;
  const vf scale = load_some(t->scale + c, n), bias = load_some(t->bias + c, n), low = vf_set1(t->low), high = vf_set1(t->high);
  for (size_t r = 0; r < t->rows; r++) {
    vf sum = whole ? vf_from_int(vi_load((const int32_t *)block + r * width + c)) : load_some((const float *)block + r * width + c, n);
    vf v = vf_fma(sum, scale, bias);
    if (general && t->middle) {
      v = vf_from_int(nearest(clamped(v, vf_set1(t->middle_low), vf_set1(t->middle_high)))) * t->middle_scale;
    }
    if (general && t->residual) {
      const uint8_t *p = t->residual + r * t->residual_stride + c;
      v += vf_fma(vf_from_int(n >= W ? bytes_load(p) : bytes_load_n(p, n)), vf_set1(t->residual_scale), vf_set1(t->residual_bias));
    }
    if (general && values) {
      vf_store(values + r * NR + c, v);
      continue;
    }
    v = clamped(v, low, high);
    if (t->to == CML_TO_BYTE) {
      uint8_t *to = (uint8_t *)t->c + r * t->c_stride + c;
      vi code = nearest(v) + t->zero;
      if (n >= W) bytes_store(to, code);
      else bytes_store_n(to, code, n);
    } else if (t->to == CML_TO_F16) {
      cml_f16 *to = (cml_f16 *)t->c + r * t->c_stride + c;
      if (n >= W) vh_store(to, v);
      else vh_store_n(to, v, n);
    } else {
      float *to = (float *)t->c + r * t->c_stride + c;
      if (n >= W) vf_store(to, v);
      else vf_store_n(to, v, n);
    }
  }
}

/* The function of all values, and the store. */
static __attribute__((noinline)) void finish_function(const cml_integer_tile *t, float *values, size_t width) {
  if (t->to != CML_TO_BYTE) {
    t->unary_rows(t->f, t->rows, t->columns, values, width, t->c, t->c_stride, t->to == CML_TO_F16, t->f_a, t->f_b);
    return;
  }
  t->unary_rows(t->f, t->rows, t->columns, values, width, values, width, false, t->f_a, t->f_b);
  for (size_t r = 0; r < t->rows; r++)
    for (size_t c = 0; c < t->columns; c += W) {
      size_t n = t->columns - c < W ? t->columns - c : W;
      vi code = nearest(clamped(load_some(values + r * width + c, n) * t->f_scale, vf_set1(t->low), vf_set1(t->high))) + t->zero;
      uint8_t *to = (uint8_t *)t->c + r * t->c_stride + c;
      if (n >= W) bytes_store(to, code);
      else bytes_store_n(to, code, n);
    }
}

VINLINE void finish_block(const bool whole, const cml_integer_tile *t, const void *block, size_t width) {
  _Alignas(64) float values[IR * NR];
  bool function = t->unary_rows, general = function || t->middle || t->residual;
  for (size_t c = 0; c < t->columns; c += W) {
    if (general) finish_columns(whole, true, t, block, width, c, function ? values : NULL);
    else finish_columns(whole, false, t, block, width, c, NULL);
  }
  if (function) finish_function(t, values, NR);
}

static __attribute__((noinline)) void finish(const cml_integer_tile *t, const int32_t *block, size_t width) { finish_block(true, t, block, width); }
static void integer_finish(const cml_integer_tile *t, const float *x, size_t x_stride) { finish_block(false, t, x, x_stride); }

/* Bytes of whole vectors with nothing but a clamp: from registers. */
VINLINE void finish_bytes(const int rows, const int nv, vi (*acc)[NV], const cml_integer_tile *t) {
  const vf low = vf_set1(t->low), high = vf_set1(t->high);
  const vi zero = vi_set1(t->zero);
  const size_t stride = t->c_stride;
  uint8_t *to = t->c;
  CML_UNROLL for (int j = 0; j < nv; j++) {
    const vf scale = vf_load(t->scale + j * W), bias = vf_load(t->bias + j * W);
    CML_UNROLL for (int i = 0; i < rows; i++)
      bytes_store(to + (size_t)i * stride + j * W, nearest(clamped(vf_fma(vf_from_int(acc[i][j]), scale, bias), low, high)) + zero);
  }
}

VINLINE void first_sums(const int rows, const int nv, vi (*acc)[NV], const cml_integer_tile *t) {
  CML_UNROLL for (int j = 0; j < nv; j++) {
    size_t left = t->columns > (size_t)j * W ? t->columns - (size_t)j * W : 0;
    vi start = {0};
    if (left >= W) start = vi_load(t->start + j * W);
    else if (left) memcpy(&start, t->start + j * W, left * sizeof *t->start);
    CML_UNROLL for (int i = 0; i < rows; i++) acc[i][j] = start;
  }
}

VINLINE void finish_sums(const int rows, const int nv, vi (*acc)[NV], const cml_integer_tile *t) {
  _Alignas(64) int32_t block[IR * NR];
  if (t->to == CML_TO_BYTE && t->columns == (size_t)(nv * W) && !t->middle && !t->residual && !t->unary_rows) {
    finish_bytes(rows, nv, acc, t);
    return;
  }
  CML_UNROLL for (int i = 0; i < rows; i++)
    CML_UNROLL for (int j = 0; j < nv; j++) memcpy(block + (i * nv + j) * W, &acc[i][j], sizeof acc[i][j]);
  finish(t, block, (size_t)(nv * W));
}

VINLINE void tile_of(const int rows, const int nv, const cml_integer_tile *t) {
  vi acc[IR][NV];
  const size_t a_stride = t->a_stride, depth = t->depth;
  const int8_t *b = t->b;
  vi lack[NV] = {{0}};
  first_sums(rows, nv, acc, t);
  for (size_t s = 0; s < t->stretches; s++) {
    const uint8_t *a = t->a + (t->offsets ? t->offsets[s] : 0), *p[(IR + 2) / 3]; /* a pointer for three rows: sixteen integer registers */
    CML_UNROLL for (int i = 0; i < rows; i += 3) p[i / 3] = a + (size_t)i * a_stride;
    for (size_t k = 0; k < depth; k += 4, b += NR * 4) {
      vi w[NV][PARTS];
      CML_UNROLL for (int j = 0; j < nv; j++) split_weights(w[j], vi_load(b + j * W * 4));
      add_lack(nv, lack, w);
      CML_UNROLL for (int i = 0; i < rows; i++) {
        vi x[PARTS];
        int32_t four;
        memcpy(&four, p[i / 3] + (size_t)(i % 3) * a_stride + k, 4);
        split_bytes(x, vi_set1(four));
        CML_UNROLL for (int j = 0; j < nv; j++) acc[i][j] = multiply(acc[i][j], x, w[j]);
      }
    }
  }
  subtract_lack(rows, nv, acc, lack);
  finish_sums(rows, nv, acc, t);
}

/* A last panel of at most half the columns takes half the time. */
VINLINE void tile_rows(const int rows, const cml_integer_tile *t) {
  if (t->columns <= W) tile_of(rows, 1, t);
  else tile_of(rows, NV, t);
}

static void integer_tile(const cml_integer_tile *t) {
  switch (t->rows) {
    case 1: tile_rows(1, t); break;
    case 2: tile_rows(2, t); break;
    case 3: tile_rows(3, t); break;
    case 4: tile_rows(4, t); break;
#if defined(__AVX512F__) || defined(__AVXVNNI__) || LOWERED
    case 5: tile_rows(5, t); break;
    case 6: tile_rows(6, t); break;
#endif
#if defined(__AVX512F__) || LOWERED
    case 7: tile_rows(7, t); break;
    case 8: tile_rows(8, t); break;
#endif
#if defined(__AVX512F__)
    case 9: tile_rows(9, t); break;
    case 10: tile_rows(10, t); break;
    case 11: tile_rows(11, t); break;
    case 12: tile_rows(12, t); break;
#endif
#if defined(__AVX512VNNI__)
    case 13: tile_rows(13, t); break;
    case 14: tile_rows(14, t); break;
#endif
    default: break;
  }
}

/* ---- depthwise: each column has four bytes of its own in a ---- */

enum { MANY = IR > 7 ? 7 : IR, SOME = IR > 7 ? 3 : 2 }; /* rows at a time */

VINLINE void depthwise_of(const int rows, const int nv, const cml_integer_tile *t) {
  vi acc[IR][NV];
  const size_t a_stride = t->a_stride;
  const int8_t *b = t->b;
  vi lack[NV] = {{0}};
  first_sums(rows, nv, acc, t);
  for (size_t s = 0; s < t->stretches; s++, b += NR * 4) {
    const uint8_t *a = t->a + t->offsets[s];
    vi w[NV][PARTS];
    CML_UNROLL for (int j = 0; j < nv; j++) split_weights(w[j], vi_load(b + j * W * 4));
    add_lack(nv, lack, w);
    CML_UNROLL for (int i = 0; i < rows; i++)
      CML_UNROLL for (int j = 0; j < nv; j++) {
        vi x[PARTS];
        split_bytes(x, vi_load(a + (size_t)i * a_stride + j * W * 4));
        acc[i][j] = multiply(acc[i][j], x, w[j]);
      }
  }
  subtract_lack(rows, nv, acc, lack);
  finish_sums(rows, nv, acc, t);
}

VINLINE void depthwise_rows(const int rows, const cml_integer_tile *t) {
  if (t->columns <= W) depthwise_of(rows, 1, t);
  else depthwise_of(rows, NV, t);
}

static void integer_depthwise(const cml_integer_tile *whole) {
  cml_integer_tile t = *whole;
  for (size_t r = 0; r < whole->rows; r += t.rows) {
    const size_t left = whole->rows - r;
    t.rows = left >= MANY ? MANY : left >= SOME ? SOME : 1;
    t.a = whole->a + r * t.a_stride;
    t.c = (char *)whole->c + r * t.c_stride * cml_integer_to_bytes(t.to);
    if (t.residual) t.residual = whole->residual + r * t.residual_stride;
    if (t.rows == MANY) depthwise_rows(MANY, &t);
    else if (t.rows == SOME) depthwise_rows(SOME, &t);
    else depthwise_rows(1, &t);
  }
}

/* Sixteen bytes of each of four rows, made four bytes of each of sixteen places. */
#if defined(__AVX512VBMI__)
#define WEAVE_LOAD(r) _mm_loadu_si128((const __m128i *)(const void *)(rows[r] + (at & moves[r])))
VINLINE void weave_16(const uint8_t *const *rows, const size_t *moves, size_t at, uint8_t *z) {
  static const uint8_t from[64] = {0, 16, 32, 48, 1, 17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21, 37, 53, 6,  22, 38, 54, 7,  23, 39, 55,
                                   8, 24, 40, 56, 9, 25, 41, 57, 10, 26, 42, 58, 11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
  __m512i all = _mm512_inserti32x4(_mm512_castsi128_si512(WEAVE_LOAD(0)), WEAVE_LOAD(1), 1);
  all = _mm512_inserti32x4(_mm512_inserti32x4(all, WEAVE_LOAD(2), 2), WEAVE_LOAD(3), 3);
  _mm512_storeu_si512(z, _mm512_permutexvar_epi8(_mm512_loadu_si512(from), all));
}
#else
VINLINE void weave_16(const uint8_t *const *rows, const size_t *moves, size_t at, uint8_t *z) {
  typedef uint8_t vb16 __attribute__((vector_size(16)));
  typedef uint16_t vw8 __attribute__((vector_size(16)));
  vb16 r[4];
  CML_UNROLL for (int i = 0; i < 4; i++) memcpy(&r[i], rows[i] + (at & moves[i]), 16);
  const vw8 low01 = (vw8)__builtin_shufflevector(r[0], r[1], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const vw8 low23 = (vw8)__builtin_shufflevector(r[2], r[3], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const vw8 high01 = (vw8)__builtin_shufflevector(r[0], r[1], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const vw8 high23 = (vw8)__builtin_shufflevector(r[2], r[3], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const vw8 out[4] = {__builtin_shufflevector(low01, low23, 0, 8, 1, 9, 2, 10, 3, 11), __builtin_shufflevector(low01, low23, 4, 12, 5, 13, 6, 14, 7, 15),
                      __builtin_shufflevector(high01, high23, 0, 8, 1, 9, 2, 10, 3, 11), __builtin_shufflevector(high01, high23, 4, 12, 5, 13, 6, 14, 7, 15)};
  memcpy(z, out, 64);
}
#endif

/* Rows that are absent are a few bytes, which are read again and again. */
static void weave_bytes(const uint8_t *const *rows, uint8_t absent, size_t pixels, size_t channels, size_t x_pixel, uint8_t *z, size_t z_pixel) {
  uint8_t blank[16];
  const uint8_t *from[4];
  size_t moves[4];
  memset(blank, absent, sizeof blank);
  for (int r = 0; r < 4; r++) from[r] = rows[r] ? rows[r] : blank, moves[r] = rows[r] ? SIZE_MAX : 0;
  if (x_pixel == channels && z_pixel == channels * 4) channels *= pixels, pixels = 1;
  for (size_t p = 0; p < pixels; p++, z += z_pixel) {
    const size_t at = p * x_pixel, whole = channels & ~(size_t)15;
    for (size_t c = 0; c < whole; c += 16) weave_16(from, moves, at + c, z + c * 4);
    for (size_t c = whole; c < channels; c++)
      for (size_t r = 0; r < 4; r++) z[c * 4 + r] = from[r][(at + c) & moves[r]];
  }
}

/* ---- one element at a time ---- */

static void quantize(const void *x, bool half, size_t n, float scale, int32_t zero, uint8_t nan_code, uint8_t *y) {
  for (size_t i = 0; i < n; i += W) {
    size_t m = n - i < W ? n - i : W;
    vf v = half ? m < W ? vh_load_n((const cml_f16 *)x + i, m) : vh_load((const cml_f16 *)x + i) : load_some((const float *)x + i, m);
    vi nan = v != v;
    /* clamped before it is rounded, which changes nothing: the bounds are whole */
    vi code = nearest(clamped(v / scale, vf_set1((float)-zero), vf_set1((float)(255 - zero)))) + zero;
    code = (nan & nan_code) | (~nan & code);
    if (m >= W) bytes_store(y + i, code);
    else bytes_store_n(y + i, code, m);
  }
}

static void dequantize(const uint8_t *x, size_t n, float scale, int32_t zero, void *y, bool half) {
  for (size_t i = 0; i < n; i += W) {
    size_t m = n - i < W ? n - i : W;
    vf v = vf_from_int((m < W ? bytes_load_n(x + i, m) : bytes_load(x + i)) - zero) * scale;
    if (half && m >= W) vh_store((cml_f16 *)y + i, v);
    else if (half) vh_store_n((cml_f16 *)y + i, v, m);
    else if (m >= W) vf_store((float *)y + i, v);
    else vf_store_n((float *)y + i, v, m);
  }
}

static void add_bytes(const uint8_t *x1, const uint8_t *x2, size_t n, float scale1, float scale2, float bias, float low, float high, int32_t zero,
                      uint8_t *y) {
  for (size_t i = 0; i < n; i += W) {
    size_t m = n - i < W ? n - i : W;
    vf a = vf_from_int(m < W ? bytes_load_n(x1 + i, m) : bytes_load(x1 + i)), b = vf_from_int(m < W ? bytes_load_n(x2 + i, m) : bytes_load(x2 + i));
    vf v = vf_fma(a, vf_set1(scale1), vf_fma(b, vf_set1(scale2), vf_set1(bias)));
    vi code = nearest(clamped(v, vf_set1(low), vf_set1(high))) + zero;
    if (m >= W) bytes_store(y + i, code);
    else bytes_store_n(y + i, code, m);
  }
}

static void map_bytes(const uint8_t *x, size_t n, const uint8_t *table, uint8_t *y) {
  size_t i = 0;
#if defined(__AVX512VBMI__) /* two look-ups in halves of the table */
  __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64), t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
  for (; i < n; i += 64) {
    __mmask64 m = n - i < 64 ? ((__mmask64)1 << (n - i)) - 1 : ~(__mmask64)0;
    __m512i v = _mm512_maskz_loadu_epi8(m, x + i);
    __m512i low = _mm512_permutex2var_epi8(t0, v, t1), high = _mm512_permutex2var_epi8(t2, v, t3);
    _mm512_mask_storeu_epi8(y + i, m, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
  }
#endif
  for (; i < n; i++) y[i] = table[x[i]];
}

static void max_bytes(size_t taps, const uint8_t *const *x, size_t channels, uint8_t *y) {
  typedef uint8_t vb __attribute__((vector_size(W * 4)));
  size_t c = 0;
  for (; c + W * 4 <= channels; c += W * 4) {
    vb m, v;
    memcpy(&m, x[0] + c, sizeof m);
    for (size_t t = 1; t < taps; t++) {
      memcpy(&v, x[t] + c, sizeof v);
      vb more = (vb)(v > m);
      m = (v & more) | (m & ~more);
    }
    memcpy(y + c, &m, sizeof m);
  }
  for (; c < channels; c++) {
    uint8_t m = x[0][c];
    for (size_t t = 1; t < taps; t++) m = x[t][c] > m ? x[t][c] : m;
    y[c] = m;
  }
}

static __attribute__((noinline)) void weave_3(size_t n, const uint8_t *restrict a, const uint8_t *restrict b, const uint8_t *restrict c, uint8_t *restrict y) {
  for (size_t i = 0; i < n; i++) y[3 * i] = a[i], y[3 * i + 1] = b[i], y[3 * i + 2] = c[i]; /* compilers know this as shuffles of vectors */
}

/* Blocks of 8 x 8 bytes in 64-bit words: halves change places, then quarters, then eighths. */
static void transpose_8(size_t rows, size_t columns, const uint8_t *x, size_t x_stride, uint8_t *y, size_t y_stride) {
  if (rows == 3 && y_stride == 3) { /* pictures */
    weave_3(columns, x, x + x_stride, x + 2 * x_stride, y);
    return;
  }
  size_t full_rows = rows & ~(size_t)7, full_columns = columns & ~(size_t)7;
  for (size_t r = 0; r < full_rows; r += 8)
    for (size_t c = 0; c < full_columns; c += 8) {
      uint64_t w[8];
      for (size_t i = 0; i < 8; i++) memcpy(&w[i], x + (r + i) * x_stride + c, 8);
      for (size_t i = 0; i < 4; i++) {
        uint64_t t = ((w[i] >> 32) ^ w[i + 4]) & 0x00000000ffffffff;
        w[i + 4] ^= t, w[i] ^= t << 32;
      }
      for (size_t j = 0; j < 4; j++) {
        size_t i = j / 2 * 4 + j % 2;
        uint64_t t = ((w[i] >> 16) ^ w[i + 2]) & 0x0000ffff0000ffff;
        w[i + 2] ^= t, w[i] ^= t << 16;
      }
      for (size_t i = 0; i < 8; i += 2) {
        uint64_t t = ((w[i] >> 8) ^ w[i + 1]) & 0x00ff00ff00ff00ff;
        w[i + 1] ^= t, w[i] ^= t << 8;
      }
      for (size_t i = 0; i < 8; i++) memcpy(y + (c + i) * y_stride + r, &w[i], 8);
    }
  for (size_t r = 0; r < rows; r++)
    for (size_t c = r < full_rows ? full_columns : 0; c < columns; c++) y[c * y_stride + r] = x[r * x_stride + c];
}

void FILL(cml_kernels *k) {
  k->integer_rows = IR;
  k->integer_columns = NR;
  k->integer_tile = integer_tile;
  k->integer_depthwise = integer_depthwise;
  k->weave_bytes = weave_bytes;
  k->quantize = quantize;
  k->dequantize = dequantize;
  k->add_bytes = add_bytes;
  k->integer_finish = integer_finish;
  k->map_bytes = map_bytes;
  k->max_bytes = max_bytes;
  k->transpose_8 = transpose_8;
}
