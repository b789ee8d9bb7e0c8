/* Elementwise functions, reductions and rows (softmax, layer norm), compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "transpose_block.h"
#include "vector_math.h"

#include <math.h>

/* ---- loads and stores that serve both element types ---- */

VINLINE vf ld(const void *p, bool half, size_t i) { return half ? vh_load((const cml_f16 *)p + i) : vf_load((const float *)p + i); }
VINLINE vf ld_n(const void *p, bool half, size_t i, size_t n) {
  return half ? vh_load_n((const cml_f16 *)p + i, n) : vf_load_n((const float *)p + i, n);
}
VINLINE void st(void *p, bool half, size_t i, vf x) {
  if (half) vh_store((cml_f16 *)p + i, x);
  else vf_store((float *)p + i, x);
}
VINLINE void st_n(void *p, bool half, size_t i, vf x, size_t n) {
  if (half) vh_store_n((cml_f16 *)p + i, x, n);
  else vf_store_n((float *)p + i, x, n);
}

static void f16_to_f32(const cml_f16 *x, float *y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) vf_store(y + i, vh_load(x + i));
  if (i < n) vf_store_n(y + i, vh_load_n(x + i, n - i), n - i);
}

static void f32_to_f16(const float *x, cml_f16 *y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) vh_store(y + i, vf_load(x + i));
  if (i < n) vh_store_n(y + i, vf_load_n(x + i, n - i), n - i);
}

static void bytes_to_f32(const uint8_t *x, float *y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) vf_store(y + i, vf_from_int(bytes_load(x + i)));
  if (i < n) vf_store_n(y + i, vf_from_int(bytes_load_n(x + i, n - i)), n - i);
}

VINLINE void compare_loop(const cml_comparison c, const float *x, const float *y, uint8_t *to, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) bytes_store(to + i, V_COMPARED(c, vf_load(x + i), vf_load(y + i)) & 1);
  if (i < n) bytes_store_n(to + i, V_COMPARED(c, vf_load_n(x + i, n - i), vf_load_n(y + i, n - i)) & 1, n - i);
}

static void compare(cml_comparison c, const float *x, const float *y, uint8_t *to, size_t n) {
  switch (c) {
    case CML_COMPARE_EQUAL: compare_loop(CML_COMPARE_EQUAL, x, y, to, n); return;
    case CML_COMPARE_NOT_EQUAL: compare_loop(CML_COMPARE_NOT_EQUAL, x, y, to, n); return;
    case CML_COMPARE_LESS: compare_loop(CML_COMPARE_LESS, x, y, to, n); return;
    case CML_COMPARE_LESS_EQUAL: compare_loop(CML_COMPARE_LESS_EQUAL, x, y, to, n); return;
    case CML_COMPARE_GREATER: compare_loop(CML_COMPARE_GREATER, x, y, to, n); return;
    default: compare_loop(CML_COMPARE_GREATER_EQUAL, x, y, to, n); return;
  }
}

static void bf16_to_f32(const uint16_t *x, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = cml_bf16_to_f32(x[i]);
}

static void f32_to_bf16(const float *x, uint16_t *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = cml_bf16_from_f32(x[i]);
}

/* ---- one operand ---- */

VINLINE vf apply(cml_unary f, vf x, vf a, vf b) {
  switch (f) {
    case CML_UNARY_EXP: return v_exp(x);
    case CML_UNARY_LOG: return v_log(x);
    case CML_UNARY_TANH: return v_tanh(x);
    case CML_UNARY_ERF: return v_erf(x);
    case CML_UNARY_SIGMOID: return v_sigmoid(x);
    case CML_UNARY_SQRT: return vf_sqrt(x);
    case CML_UNARY_ABS: return vf_abs(x);
    case CML_UNARY_NEG: return -x;
    case CML_UNARY_SQUARE: return x * x;
    case CML_UNARY_RECIPROCAL: return 1.0f / x;
    case CML_UNARY_FLOOR: return vf_floor(x);
    case CML_UNARY_CEIL: return vf_ceil(x);
    case CML_UNARY_ROUND: return vf_round(x);
    case CML_UNARY_COPY: return x;
    case CML_UNARY_RELU: return vf_max(vf_zero(), x);
    case CML_UNARY_CLIP: return vf_min(b, vf_max(a, x));
    case CML_UNARY_LEAKY_RELU: return vf_select(x < vf_zero(), a * x, x);
    case CML_UNARY_ELU: return vf_select(x < vf_zero(), a * (v_exp(x) - 1.0f), x);
    case CML_UNARY_SILU: return v_silu(x);
    case CML_UNARY_GELU: return v_gelu(x);
    case CML_UNARY_GELU_TANH: return v_gelu_tanh(x);
    case CML_UNARY_GELU_SIGMOID: return vf_select(x < V(-51.0f), V(-0.0f), x / v_one_and_exp(vf_min(V(89.0f), x * -1.702f)));
    case CML_UNARY_SOFTPLUS: return v_softplus(x);
    case CML_UNARY_SOFTSIGN: return x / (1.0f + vf_abs(x));
    case CML_UNARY_HARD_SIGMOID: return vf_min(V(1.0f), vf_max(vf_zero(), a * x + b));
    case CML_UNARY_HARD_SWISH: return x * vf_min(V(1.0f), vf_max(vf_zero(), a * x + b));
    case CML_UNARY_SCALE: return a * x + b;
    case CML_UNARY_EXP2: return v_exp2(x);
    case CML_UNARY_SIN: return v_sin(x);
    case CML_UNARY_COS: return v_cos(x);
    case CML_UNARY_TAN: return v_tan(x);
    case CML_UNARY_ASIN: return v_asin(x);
    case CML_UNARY_ACOS: return v_acos(x);
    case CML_UNARY_ATAN: return v_atan(x);
    case CML_UNARY_SINH: return v_sinh(x);
    case CML_UNARY_COSH: return v_cosh(x);
    case CML_UNARY_ATANH: return v_atanh(x);
    case CML_UNARY_COUNT: break;
  }
  return x;
}

VINLINE void unary_loop(cml_unary f, bool half, const void *x, void *y, size_t n, float a, float b) {
  vf va = vf_set1(a), vb = vf_set1(b);
  size_t i = 0;
  for (; i + W <= n; i += W) st(y, half, i, apply(f, ld(x, half, i), va, vb));
  if (i < n) st_n(y, half, i, apply(f, ld_n(x, half, i, n - i), va, vb), n - i);
}

#define UNARY_CASE(name) case CML_UNARY_##name: unary_loop(CML_UNARY_##name, HALF, x, y, n, a, b); break;

static void unary(cml_unary f, const float *x, float *y, size_t n, float a, float b) {
#define HALF false
  switch (f) {
    CML_UNARY_MAP(UNARY_CASE)
    case CML_UNARY_COUNT: break;
  }
#undef HALF
}

static void unary_f16(cml_unary f, const cml_f16 *x, cml_f16 *y, size_t n, float a, float b) {
#define HALF true
  switch (f) {
    CML_UNARY_MAP(UNARY_CASE)
    case CML_UNARY_COUNT: break;
  }
#undef HALF
}

VINLINE void rows_loop(cml_unary f, bool half, size_t rows, size_t columns, const float *x, size_t x_stride, void *y, size_t y_stride, float a, float b) {
  vf va = vf_set1(a), vb = vf_set1(b);
  for (size_t r = 0; r < rows; r++) {
    const float *from = x + r * x_stride;
    size_t c = 0;
    for (; c + W <= columns; c += W) st(y, half, r * y_stride + c, apply(f, vf_load(from + c), va, vb));
    if (c < columns) st_n(y, half, r * y_stride + c, apply(f, vf_load_n(from + c, columns - c), va, vb), columns - c);
  }
}

#define ROWS_CASE(name) case CML_UNARY_##name: rows_loop(CML_UNARY_##name, half, rows, columns, x, x_stride, y, y_stride, a, b); break;

static void long_rows(cml_unary f, size_t rows, size_t columns, const float *x, size_t x_stride, void *y, size_t y_stride, bool half, float a, float b) {
  switch (f) {
    CML_UNARY_MAP(ROWS_CASE)
    case CML_UNARY_COUNT: break;
  }
}

/* Rows that follow one another are one; short ones, as tiles of few columns have, are brought together: a function takes a vector's time for each. */
static void unary_rows(cml_unary f, size_t rows, size_t columns, const float *x, size_t x_stride, void *y, size_t y_stride, bool half, float a, float b) {
  enum { TOGETHER = 16 * W };
  float part[TOGETHER + W];
  if (y_stride != columns || rows < 2 || !columns || (x_stride != columns && 2 * columns > W)) {
    long_rows(f, rows, columns, x, x_stride, y, y_stride, half, a, b);
  } else if (x_stride == columns) {
    long_rows(f, 1, rows * columns, x, 0, y, 0, half, a, b);
  } else {
    for (size_t r = 0, n; r < rows; r += n) {
      n = rows - r < TOGETHER / columns ? rows - r : TOGETHER / columns;
      for (size_t i = 0; i < n; i++) vf_store(part + i * columns, vf_load_n(x + (r + i) * x_stride, columns));
      long_rows(f, 1, n * columns, part, 0, (char *)y + r * columns * (half ? sizeof(cml_f16) : sizeof(float)), 0, half, a, b);
    }
  }
}

/* ---- remainders ---- */

static float floor_mod_one(float x, float y) {
  float r = fmodf(x, y);
  return r != 0 ? ((r < 0) != (y < 0) ? r + y : r) : copysignf(0, y);
}

static float floor_div_one(float x, float y) {
  if (y == 0) return x / y;
  float r = fmodf(x, y), q = (x - r) / y;
  if (r != 0 && (r < 0) != (y < 0)) q -= 1;
  if (q == 0) return copysignf(0, x / y);
  float f = floorf(q);
  return q - f > 0.5f ? f + 1 : f;
}

static __attribute__((noinline)) void each_lane(float (*f)(float, float), const float *x, const float *y, float *to) {
  for (int i = 0; i < W; i++) to[i] = f(x[i], y[i]);
}

/* x - trunc(x / y) y without rounding, where |x / y| < 2^22: the quotient is then right or, rounded up to a whole number, one too far from zero.
 * Products of it with y have 46 bits, and the difference, a multiple of y's last place that is smaller than y, is a float. */
VINLINE vf small_remainder(vf x, vf y, vf q) {
#if defined(__FMA__) || (defined(__aarch64__) && !defined(CML_PORTABLE))
  vf r = vf_fma(-vf_trunc(q), y, x);
#else
  vf r = vd_float(vf_double(x) - vf_double(vf_trunc(q)) * vf_double(y));
#endif
  vi far = (r != 0.0f) & (((vi)r ^ (vi)x) < 0);
  return vf_select(far, r + vf_copysign(y, x), r);
}

VINLINE vf floor_remainder(const bool divide, vf x, vf y) {
  vf quotient = x / y, r = small_remainder(x, y, quotient), to;
  vi small = (vf_abs(quotient) < 0x1p22f) & (vf_abs(y) < INFINITY), below = (r != 0.0f) & (((vi)r ^ (vi)y) < 0);
  if (divide) {
    vf q = (x - r) / y - vf_select(below, vf_set1(1), vf_zero()), f = vf_floor(q);
    to = vf_select(q == 0.0f, vf_copysign(vf_zero(), quotient), f + vf_select(q - f > 0.5f, vf_set1(1), vf_zero()));
  } else {
    to = vf_select(r == 0.0f, vf_copysign(vf_zero(), y), vf_select(below, r + y, r));
  }
  if (vf_hmin(vf_select(small, vf_set1(1), vf_zero())) != 0) return to;
  float xs[W], ys[W], some[W];
  vf_store(xs, x), vf_store(ys, y);
  each_lane(divide ? floor_div_one : floor_mod_one, xs, ys, some);
  return vf_load(some);
}

/* ---- two operands ---- */

VINLINE vf apply2(cml_binary f, vf x, vf y) {
  switch (f) {
    case CML_BINARY_ADD: return x + y;
    case CML_BINARY_SUB: return x - y;
    case CML_BINARY_MUL: return x * y;
    case CML_BINARY_DIV: return x / y;
    case CML_BINARY_MAX: return vf_max_nan(x, y);
    case CML_BINARY_MIN: return vf_min_nan(x, y);
    case CML_BINARY_POW: return v_pow(x, y);
    case CML_BINARY_MOD: return floor_remainder(false, x, y);
    case CML_BINARY_FLOOR_DIV: return floor_remainder(true, x, y);
    case CML_BINARY_COUNT: break;
  }
  return x;
}

VINLINE void binary_loop(cml_binary f, bool half, const void *x1, const void *x2, void *y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) st(y, half, i, apply2(f, ld(x1, half, i), ld(x2, half, i)));
  if (i < n) st_n(y, half, i, apply2(f, ld_n(x1, half, i, n - i), ld_n(x2, half, i, n - i)), n - i);
}

VINLINE void scalar_loop(cml_binary f, bool half, const void *x, float s, bool reversed, void *y, size_t n) {
  vf v = vf_set1(s);
  for (size_t i = 0; i < n; i += W) {
    size_t m = n - i < W ? n - i : W;
    vf e = m == W ? ld(x, half, i) : ld_n(x, half, i, m);
    e = reversed ? apply2(f, v, e) : apply2(f, e, v);
    if (m == W) st(y, half, i, e);
    else st_n(y, half, i, e, m);
  }
}

#define EACH_BINARY(CALL) \
  switch (f) { \
    case CML_BINARY_ADD: CALL(CML_BINARY_ADD); break; \
    case CML_BINARY_SUB: CALL(CML_BINARY_SUB); break; \
    case CML_BINARY_MUL: CALL(CML_BINARY_MUL); break; \
    case CML_BINARY_DIV: CALL(CML_BINARY_DIV); break; \
    case CML_BINARY_MAX: CALL(CML_BINARY_MAX); break; \
    case CML_BINARY_MIN: CALL(CML_BINARY_MIN); break; \
    case CML_BINARY_POW: CALL(CML_BINARY_POW); break; \
    case CML_BINARY_MOD: CALL(CML_BINARY_MOD); break; \
    case CML_BINARY_FLOOR_DIV: CALL(CML_BINARY_FLOOR_DIV); break; \
    case CML_BINARY_COUNT: break; \
  }

static void binary(cml_binary f, const float *x1, const float *x2, float *y, size_t n) {
#define CALL(f) binary_loop(f, false, x1, x2, y, n)
  EACH_BINARY(CALL)
#undef CALL
}
static void binary_f16(cml_binary f, const cml_f16 *x1, const cml_f16 *x2, cml_f16 *y, size_t n) {
#define CALL(f) binary_loop(f, true, x1, x2, y, n)
  EACH_BINARY(CALL)
#undef CALL
}
static void binary_scalar(cml_binary f, const float *x, float s, bool reversed, float *y, size_t n) {
#define CALL(f) scalar_loop(f, false, x, s, reversed, y, n)
  EACH_BINARY(CALL)
#undef CALL
}
static void binary_scalar_f16(cml_binary f, const cml_f16 *x, float s, bool reversed, cml_f16 *y, size_t n) {
#define CALL(f) scalar_loop(f, true, x, s, reversed, y, n)
  EACH_BINARY(CALL)
#undef CALL
}

VINLINE void sums_down(const size_t vectors, const bool half, size_t rows, size_t n, const void *x, void *y, ptrdiff_t stride, double *sums, const bool before) {
  vd_half sum[4][2];
  CML_UNROLL for (size_t v = 0; v < vectors; v++) memcpy(sum[v], sums + v * W, sizeof sum[v]);
  for (ptrdiff_t at = 0; rows--; at += stride)
    CML_UNROLL for (size_t v = 0; v < vectors; v++) {
      const size_t i = (size_t)at + v * W;
      const vf e = n == W ? ld(x, half, i) : ld_n(x, half, i, n);
      const vd_half low = sum[v][0] + vf_low_double(e), high = sum[v][1] + vf_high_double(e);
      const vf to = before ? vd_halves_float(sum[v][0], sum[v][1]) : vd_halves_float(low, high);
      sum[v][0] = low, sum[v][1] = high;
      if (n == W) st(y, half, i, to);
      else st_n(y, half, i, to, n);
    }
  CML_UNROLL for (size_t v = 0; v < vectors; v++) memcpy(sums + v * W, sum[v], sizeof sum[v]);
}

VINLINE void sums_of(const bool half, const bool before, size_t rows, size_t n, const char *x, char *y, ptrdiff_t stride, double *sums) {
  const size_t size = half ? 2 : 4;
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) sums_down(4, half, rows, W, x + i * size, y + i * size, stride, sums + i, before);
  for (; i + W <= n; i += W) sums_down(1, half, rows, W, x + i * size, y + i * size, stride, sums + i, before);
  if (i < n) sums_down(1, half, rows, n - i, x + i * size, y + i * size, stride, sums + i, before);
}

static void running_sums(size_t rows, size_t n, const void *x, void *y, bool half, ptrdiff_t stride, double *sums, bool before) {
  if (half && before) sums_of(true, true, rows, n, x, y, stride, sums);
  else if (half) sums_of(true, false, rows, n, x, y, stride, sums);
  else if (before) sums_of(false, true, rows, n, x, y, stride, sums);
  else sums_of(false, false, rows, n, x, y, stride, sums);
}

/* ---- reductions: four accumulators hide the latency of an addition ---- */

static float sum(const float *x, size_t n) {
  vf s[4] = {{0}};
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (size_t j = 0; j < 4; j++) s[j] += vf_load(x + i + j * W);
  for (; i + W <= n; i += W) s[0] += vf_load(x + i);
  if (i < n) s[1] += vf_load_n(x + i, n - i);
  return vf_sum((s[0] + s[1]) + (s[2] + s[3]));
}

static float dot(const float *x1, const float *x2, size_t n) {
  vf s[4] = {{0}};
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (size_t j = 0; j < 4; j++) s[j] = vf_fma(vf_load(x1 + i + j * W), vf_load(x2 + i + j * W), s[j]);
  for (; i + W <= n; i += W) s[0] = vf_fma(vf_load(x1 + i), vf_load(x2 + i), s[0]);
  if (i < n) s[1] = vf_fma(vf_load_n(x1 + i, n - i), vf_load_n(x2 + i, n - i), s[1]);
  return vf_sum((s[0] + s[1]) + (s[2] + s[3]));
}

static void moments(const float *x, size_t n, float shift, float *out_sum, float *out_squares) {
  vf s[2] = {{0}}, q[2] = {{0}}, m = vf_set1(shift);
  size_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W)
    for (size_t j = 0; j < 2; j++) {
      vf d = vf_load(x + i + j * W) - m;
      s[j] += d;
      q[j] = vf_fma(d, d, q[j]);
    }
  for (; i < n; i += W) {
    size_t k = n - i < W ? n - i : W;
    vf d = k == W ? vf_load(x + i) - m : vf_select(vi_iota() < (int32_t)k, vf_load_n(x + i, k) - m, vf_zero());
    s[0] += d;
    q[0] = vf_fma(d, d, q[0]);
  }
  *out_sum = vf_sum(s[0] + s[1]);
  *out_squares = vf_sum(q[0] + q[1]);
}

static void axpy(float a, const float *x, float *y, size_t n) {
  vf s = vf_set1(a);
  size_t i = 0;
  for (; i + W <= n; i += W) vf_store(y + i, vf_fma(s, vf_load(x + i), vf_load(y + i)));
  if (i < n) vf_store_n(y + i, vf_fma(s, vf_load_n(x + i, n - i), vf_load_n(y + i, n - i)), n - i);
}

static void blend(float a, const float *x1, const float *x2, float *y, size_t n) {
  vf s = vf_set1(a);
  size_t i = 0;
  for (; i + W <= n; i += W) {
    vf from = vf_load(x1 + i);
    vf_store(y + i, vf_fma(s, vf_load(x2 + i) - from, from));
  }
  if (i < n) {
    vf from = vf_load_n(x1 + i, n - i);
    vf_store_n(y + i, vf_fma(s, vf_load_n(x2 + i, n - i) - from, from), n - i);
  }
}

static float exp_sum(float *x, size_t n, float shift) {
  vf m = vf_set1(shift), s[2] = {{0}};
  size_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W)
    for (size_t j = 0; j < 2; j++) {
      vf e = v_exp_falling(vf_load(x + i + j * W) - m);
      vf_store(x + i + j * W, e);
      s[j] += e;
    }
  float total = vf_sum(s[0] + s[1]);
  for (; i < n; i += W) {
    size_t k = n - i < W ? n - i : W;
    vf e = v_exp_falling(vf_load_n(x + i, k) - m);
    vf_store_n(x + i, e, k);
    total += vf_sum(vf_select(vi_iota() < (int32_t)k, e, vf_zero()));
  }
  return total;
}

static void add_rows(size_t rows, size_t n, float *x, size_t x_stride, const void *y, bool half, size_t y_stride) {
  const size_t whole = n / W * W, rest = n - whole;
  for (size_t r = 0; r < rows; r++, x += x_stride) {
    const void *row = half ? (const void *)((const cml_f16 *)y + r * y_stride) : (const void *)((const float *)y + r * y_stride);
    for (size_t i = 0; i < whole; i += W) vf_store(x + i, vf_load(x + i) + ld(row, half, i));
    if (rest) vf_store_n(x + whole, vf_load_n(x + whole, rest) + ld_n(row, half, whole, rest), rest);
  }
}

/* The largest of n floats, NaN left out. */
VINLINE float row_top(const float *x, size_t whole, size_t rest) {
  vf m[2] = {vf_set1(-__builtin_inff()), vf_set1(-__builtin_inff())};
  size_t i = 0;
  for (; i + 2 * W <= whole; i += 2 * W)
    for (size_t j = 0; j < 2; j++) m[j] = vf_max(vf_load(x + i + j * W), m[j]);
  if (i < whole) m[0] = vf_max(vf_load(x + i), m[0]);
  if (rest) m[1] = vf_max(vf_select(vi_iota() < (int32_t)rest, vf_load_n(x + whole, rest), m[1]), m[1]);
  return vf_hmax(vf_max(m[0], m[1]));
}

/* NaN needs no care: it stays what it is, and makes the sum NaN. Rows of -inf alone become zeros. */
static void soften_rows(size_t rows, size_t n, float *x, size_t stride, float *tops, float *totals, float *corrections) {
  const size_t whole = n / W * W, rest = n - whole;
  const vi there = vi_iota() < (int32_t)rest;
  for (size_t r = 0; r < rows; r++, x += stride) {
    float before = tops[r], top = row_top(x, whole, rest);
    tops[r] = top = top > before ? top : before;
    corrections[r] = top == before || before == -__builtin_inff() ? 0 : before - top;
    vf m = vf_set1(top == -__builtin_inff() ? 0 : top), s = vf_zero();
    for (size_t i = 0; i < whole; i += W) {
      vf e = v_exp_falling(vf_load(x + i) - m);
      vf_store(x + i, e);
      s += e;
    }
    if (rest) {
      vf e = v_exp_falling(vf_load_n(x + whole, rest) - m);
      vf_store_n(x + whole, e, rest);
      s += vf_select(there, e, vf_zero());
    }
    float sum = vf_sum(s);
    if (corrections[r] == 0) {
      corrections[r] = 1;
      totals[r] += sum;
    } else {
      corrections[r] = v_exp_falling(vf_set1(corrections[r]))[0];
      totals[r] = totals[r] * corrections[r] + sum;
    }
  }
}

VINLINE float extreme(const void *x, bool half, size_t n, bool largest) {
  float none = largest ? -__builtin_inff() : __builtin_inff();
  vf m = vf_set1(none), nan = vf_zero();
  size_t i = 0;
  for (; i + W <= n; i += W) {
    vf e = ld(x, half, i);
    m = largest ? vf_max(e, m) : vf_min(e, m);
    nan = vf_select(e != e, e, nan);
  }
  float r = largest ? vf_hmax(m) : vf_hmin(m), bad = vf_sum(nan);
  for (; i < n; i++) {
    float e = half ? cml_f16_to_f32(((const cml_f16 *)x)[i]) : ((const float *)x)[i];
    r = largest ? (e > r ? e : r) : (e < r ? e : r);
    if (e != e) bad = e;
  }
  if (bad != bad)
    for (size_t k = 0; k < n; k++) {
      float e = half ? cml_f16_to_f32(((const cml_f16 *)x)[k]) : ((const float *)x)[k];
      if (e != e) return e;
    }
  return r;
}

static float max_of(const float *x, size_t n) { return extreme(x, false, n, true); }
static float min_of(const float *x, size_t n) { return extreme(x, false, n, false); }

/* Each lane keeps its first extreme and where that was; places are whole floats. */
VINLINE size_t extreme_place(const void *x, const bool half, size_t n, const bool lowest, float *value) {
  const vf start = vf_from_int(vi_iota()), none = vf_set1(-__builtin_inff());
  vf best = none, place = start, at = start, nan = vf_zero();
  for (size_t i = 0; i < n; i += W, at += (float)W) {
    vf e = n - i >= W ? ld(x, half, i) : ld_n(x, half, i, n - i);
    if (lowest) e = -e;
    if (n - i < W) e = vf_select(at < (float)n, e, none);
    nan = vf_select(e != e, vf_set1(1), nan);
    const vi better = e > best;
    best = vf_select(better, e, best);
    place = vf_select(better, at, place);
  }
  size_t first = 0;
  if (vf_hmax(nan) > 0) {
    for (float e = 0; e == e; first += e == e) e = half ? cml_f16_to_f32(((const cml_f16 *)x)[first]) : ((const float *)x)[first];
  } else {
    first = (size_t)vf_hmin(vf_select(best == vf_set1(vf_hmax(best)), place, vf_set1(0x1p24f)));
  }
  *value = half ? cml_f16_to_f32(((const cml_f16 *)x)[first]) : ((const float *)x)[first];
  return first;
}

static size_t first_extreme(const void *x, bool half, size_t n, bool lowest, float *value) {
  if (half) return lowest ? extreme_place(x, true, n, true, value) : extreme_place(x, true, n, false, value);
  return lowest ? extreme_place(x, false, n, true, value) : extreme_place(x, false, n, false, value);
}

/* ---- rows ---- */

/* W rows at once: each is folded to a vector, the vectors are transposed, and then folded lane by lane. */
VINLINE vf fold_step(const cml_row_fold f, vf a, vf x) {
  switch (f) {
    case CML_FOLD_SUM: return a + x;
    case CML_FOLD_ABS: return a + vf_abs(x);
    case CML_FOLD_SQUARE: return vf_fma(x, x, a);
    case CML_FOLD_MAX: return vf_max_nan(x, vf_max_nan(a, x));
    case CML_FOLD_MIN: return vf_min_nan(x, vf_min_nan(a, x));
  }
  return a;
}

VINLINE vf fold_join(const cml_row_fold f, vf a, vf b) {
  return f == CML_FOLD_MAX || f == CML_FOLD_MIN ? fold_step(f, a, b) : a + b;
}

VINLINE void fold_loop(const cml_row_fold f, const bool half, size_t rows, size_t n, const void *x, float *y) {
  const float none = f == CML_FOLD_MAX ? -__builtin_inff() : f == CML_FOLD_MIN ? __builtin_inff() : 0;
  const size_t whole = n / W * W, rest = n - whole;
  const vi there = vi_iota() < (int32_t)rest;
  for (size_t r = 0; r < rows; r += W) {
    const size_t m = rows - r < W ? rows - r : W;
    vf acc[W];
    for (size_t i = 0; i < W; i++) {
      acc[i] = vf_set1(none);
      if (i >= m) continue;
      const size_t at = (r + i) * n;
      for (size_t k = 0; k < whole; k += W) acc[i] = fold_step(f, acc[i], ld(x, half, at + k));
      if (rest) acc[i] = fold_step(f, acc[i], vf_select(there, ld_n(x, half, at + whole, rest), vf_set1(none)));
    }
    transpose_block(acc);
    for (size_t step = W / 2; step; step /= 2)
      for (size_t i = 0; i < step; i++) acc[i] = fold_join(f, acc[i], acc[i + step]);
    if (m == W) vf_store(y + r, acc[0]);
    else vf_store_n(y + r, acc[0], m);
  }
}

static void fold_rows(cml_row_fold f, size_t rows, size_t n, const void *x, bool half, float *y) {
#define FOLD_CASE(name)                                            \
  case name:                                                       \
    if (half) fold_loop(name, true, rows, n, x, y);                \
    else fold_loop(name, false, rows, n, x, y);                    \
    break;
  switch (f) {
    FOLD_CASE(CML_FOLD_SUM) FOLD_CASE(CML_FOLD_ABS) FOLD_CASE(CML_FOLD_SQUARE) FOLD_CASE(CML_FOLD_MAX) FOLD_CASE(CML_FOLD_MIN)
  }
}

/* e^(x - max) is kept and summed, then scaled: in y, or for float16 in a room of floats, so that it is rounded once. Rows longer than
 * the room are computed twice. NaN anywhere makes the sum NaN, and with it all of the row. */
VINLINE void softmax_row(const void *x, void *y, bool half, size_t n) {
  enum { ROOM = 4096 };
  float room[ROOM];
  const bool again = half && n > ROOM;
  void *kept = half ? (void *)room : y;
  const size_t whole = n / W * W, rest = n - whole;
  const vi there = vi_iota() < (int32_t)rest;
  vf m = vf_set1(-__builtin_inff()), s = vf_zero();
  size_t i;
  for (i = 0; i < whole; i += W) m = vf_max(ld(x, half, i), m);
  if (rest) m = vf_max(vf_select(there, ld_n(x, half, whole, rest), m), m);
  m = vf_set1(vf_hmax(m));
  for (i = 0; i < whole; i += W) {
    vf e = v_exp_falling(ld(x, half, i) - m);
    s += e;
    if (!again) st(kept, false, i, e);
  }
  vf last = rest ? v_exp_falling(ld_n(x, half, whole, rest) - m) : vf_zero(); /* not through memory: part of a vector would be waited for */
  s += vf_select(there, last, vf_zero());
  vf r = vf_set1(1.0f / vf_sum(s));
  for (i = 0; i < whole; i += W) st(y, half, i, (again ? v_exp_falling(ld(x, half, i) - m) : ld(kept, false, i)) * r);
  if (rest) st_n(y, half, whole, last * r, rest);
}

/* x - max - log of the sum: nothing is kept, and no small quotient is rounded before its logarithm is taken. */
VINLINE void log_softmax_row(const void *x, void *y, const bool half, size_t n, vf low) {
  const size_t whole = n / W * W, rest = n - whole;
  const vi there = vi_iota() < (int32_t)rest;
  const vf last = rest ? ld_n(x, half, whole, rest) : vf_zero();
  vf m = rest ? vf_select(there, last, vf_set1(-__builtin_inff())) : vf_set1(-__builtin_inff()), s = vf_zero();
  size_t i;
  for (i = 0; i < whole; i += W) m = vf_max(ld(x, half, i), m);
  m = vf_set1(vf_hmax(m));
  for (i = 0; i < whole; i += W) s += v_exp_falling(ld(x, half, i) - m);
  if (rest) s += vf_select(there, v_exp_falling(last - m), vf_zero());
  const vf log_sum = v_log(vf_set1(vf_sum(s)));
  for (i = 0; i < whole; i += W) st(y, half, i, vf_max(low, ld(x, half, i) - m - log_sum));
  if (rest) st_n(y, half, whole, vf_max(low, last - m - log_sum), rest);
}

/* Rows of a few vectors, `group` of them in registers: none waits for the others' maxima and sums. */
VINLINE void softmax_group(const size_t group, const size_t vectors, bool half, bool logarithm, size_t n, const char *x, char *y, vf low) {
  const size_t whole = (vectors - 1) * W, rest = n - whole, row = n * (half ? 2 : 4);
  const vi there = vi_iota() < (int32_t)rest;
  vf v[4][4], sums[4];
  float of_rows[W] = {0};
  CML_UNROLL for (size_t r = 0; r < group; r++) {
    CML_UNROLL for (size_t i = 0; i + 1 < vectors; i++) v[r][i] = ld(x + r * row, half, i * W);
    v[r][vectors - 1] = vf_select(there, ld_n(x + r * row, half, whole, rest), V(-__builtin_inff()));
  }
  CML_UNROLL for (size_t r = 0; r < group; r++) {
    vf top = v[r][0];
    CML_UNROLL for (size_t i = 1; i < vectors; i++) top = vf_max(v[r][i], top);
    top = vf_set1(vf_hmax(top));
    sums[r] = vf_zero();
    CML_UNROLL for (size_t i = 0; i < vectors; i++) {
      const vf d = v[r][i] - top, e = v_exp_falling(d); /* 0 where no element is */
      sums[r] += e;
      v[r][i] = logarithm ? d : e;
    }
  }
  for (size_t r = group; r < 4; r++) sums[r] = vf_zero();
  vf_sum_4(sums, of_rows);
  vf_store(of_rows, logarithm ? v_log(vf_load(of_rows)) : 1.0f / vf_load(of_rows));
  CML_UNROLL for (size_t r = 0; r < group; r++) {
    const vf by = vf_set1(of_rows[r]);
    CML_UNROLL for (size_t i = 0; i < vectors; i++) v[r][i] = logarithm ? vf_max(low, v[r][i] - by) : v[r][i] * by;
    CML_UNROLL for (size_t i = 0; i + 1 < vectors; i++) st(y + r * row, half, i * W, v[r][i]);
    st_n(y + r * row, half, whole, v[r][vectors - 1], rest);
  }
}

/* A row has the same bits whichever rows are beside it. */
static void softmax_rows(size_t rows, size_t n, const void *from, void *to, bool half, bool logarithm, float low) {
  const size_t row = n * (half ? 2 : 4), vectors = (n + W - 1) / W, group = vectors <= 2 ? 4 : vectors <= 4 ? 2 : 1;
  const char *x = from;
  char *y = to;
  for (size_t taken; rows; rows -= taken, x += taken * row, y += taken * row) {
    taken = rows >= group ? group : 1;
    if (vectors > 4 && logarithm && half) log_softmax_row(x, y, true, n, V(low));
    else if (vectors > 4 && logarithm) log_softmax_row(x, y, false, n, V(low));
    else if (vectors > 4 && half) softmax_row(x, y, true, n);
    else if (vectors > 4) softmax_row(x, y, false, n);
    else if (taken == 1 && vectors <= 1) softmax_group(1, 1, half, logarithm, n, x, y, V(low));
    else if (taken == 1 && vectors == 2) softmax_group(1, 2, half, logarithm, n, x, y, V(low));
    else if (taken == 1 && vectors == 3) softmax_group(1, 3, half, logarithm, n, x, y, V(low));
    else if (taken == 1) softmax_group(1, 4, half, logarithm, n, x, y, V(low));
    else if (vectors <= 1) softmax_group(4, 1, half, logarithm, n, x, y, V(low));
    else if (vectors == 2) softmax_group(4, 2, half, logarithm, n, x, y, V(low));
    else if (vectors == 3) softmax_group(2, 3, half, logarithm, n, x, y, V(low));
    else softmax_group(2, 4, half, logarithm, n, x, y, V(low));
  }
}

/* Sum of a row's elements less m, or of their squares. */
VINLINE float row_sum(const bool squares, const void *x, bool half, size_t n, vf m) {
  vf s[4] = {{0}};
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    CML_UNROLL for (size_t j = 0; j < 4; j++) {
      vf d = ld(x, half, i + j * W) - m;
      s[j] = squares ? vf_fma(d, d, s[j]) : s[j] + d;
    }
  for (; i < n; i += W) {
    size_t k = n - i < W ? n - i : W;
    vf d = k == W ? ld(x, half, i) - m : vf_select(vi_iota() < (int32_t)k, ld_n(x, half, i, k) - m, vf_zero());
    s[0] = squares ? vf_fma(d, d, s[0]) : s[0] + d;
  }
  return vf_sum((s[0] + s[1]) + (s[2] + s[3]));
}

/* Two passes, so that the variance of a row with a large mean does not cancel. */
VINLINE void layer_norm_row(const void *x, void *y, bool half, size_t n, const float *gamma, const float *beta, float epsilon) {
  vf m = vf_set1(row_sum(false, x, half, n, vf_zero()) / (float)n);
  vf r = vf_set1(1.0f / __builtin_sqrtf(row_sum(true, x, half, n, m) / (float)n + epsilon));
  for (size_t i = 0; i < n; i += W) {
    size_t k = n - i < W ? n - i : W;
    bool full = k == W;
    vf e = ((full ? ld(x, half, i) : ld_n(x, half, i, k)) - m) * r;
    if (gamma) e *= full ? vf_load(gamma + i) : vf_load_n(gamma + i, k);
    if (beta) e += full ? vf_load(beta + i) : vf_load_n(beta + i, k);
    if (full) st(y, half, i, e);
    else st_n(y, half, i, e, k);
  }
}

static void layer_norm(const float *x, float *y, size_t n, const float *gamma, const float *beta, float epsilon) {
  layer_norm_row(x, y, false, n, gamma, beta, epsilon);
}
static void layer_norm_f16(const cml_f16 *x, cml_f16 *y, size_t n, const float *gamma, const float *beta, float epsilon) {
  layer_norm_row(x, y, true, n, gamma, beta, epsilon);
}

VINLINE void rms_rows(const bool half, size_t rows, size_t n, const void *x, void *y, const void *gamma, float epsilon) {
  for (size_t at = 0; rows--; at += n) {
    const float squares = row_sum(true, (const char *)x + at * (half ? 2 : 4), half, n, vf_zero());
    const vf r = vf_set1(1.0f / __builtin_sqrtf(squares / (float)n + epsilon));
    for (size_t i = 0; i < n; i += W) {
      const size_t k = n - i;
      const bool full = k >= W;
      vf e = (full ? ld(x, half, at + i) : ld_n(x, half, at + i, k)) * r;
      if (gamma) e *= full ? ld(gamma, half, i) : ld_n(gamma, half, i, k);
      if (full) st(y, half, at + i, e);
      else st_n(y, half, at + i, e, k);
    }
  }
}

static void rms_norm(size_t rows, size_t n, const void *x, void *y, bool half, const void *gamma, float epsilon) {
  if (half) rms_rows(true, rows, n, x, y, gamma, epsilon);
  else rms_rows(false, rows, n, x, y, gamma, epsilon);
}

VINLINE vf cell_gate(const float *gates, const float *step, size_t i, size_t n) {
  return n == W ? vf_load(gates + i) + vf_load(step + i) : vf_load_n(gates + i, n) + vf_load_n(step + i, n);
}

static void lstm_cell(size_t n, const float *gates, const float *step, float *c, float *h) {
  for (size_t i = 0; i < n; i += W) {
    size_t m = n - i < W ? n - i : W;
    vf in = v_sigmoid(cell_gate(gates, step, i, m)), forget = v_sigmoid(cell_gate(gates, step, n + i, m));
    vf out = v_sigmoid(cell_gate(gates, step, 2 * n + i, m)), z = v_tanh(cell_gate(gates, step, 3 * n + i, m));
    vf cell = vf_fma(forget, m == W ? vf_load(c + i) : vf_load_n(c + i, m), in * z), y = out * v_tanh(cell);
    if (m == W) vf_store(c + i, cell), vf_store(h + i, y);
    else vf_store_n(c + i, cell, m), vf_store_n(h + i, y, m);
  }
}

void CML_SIMD(cml_fill_vector)(cml_kernels *k) {
  k->width = W;
  k->f16_to_f32 = f16_to_f32;
  k->f32_to_f16 = f32_to_f16;
  k->bytes_to_f32 = bytes_to_f32;
  k->compare = compare;
  k->bf16_to_f32 = bf16_to_f32;
  k->f32_to_bf16 = f32_to_bf16;
  k->unary = unary;
  k->unary_f16 = unary_f16;
  k->unary_rows = unary_rows;
  k->binary = binary;
  k->binary_f16 = binary_f16;
  k->binary_scalar = binary_scalar;
  k->running_sums = running_sums;
  k->binary_scalar_f16 = binary_scalar_f16;
  k->sum = sum;
  k->dot = dot;
  k->max = max_of;
  k->min = min_of;
  k->first_extreme = first_extreme;
  k->moments = moments;
  k->axpy = axpy;
  k->blend = blend;
  k->fold_rows = fold_rows;
  k->rms_norm = rms_norm;
  k->exp_sum = exp_sum;
  k->soften_rows = soften_rows;
  k->add_rows = add_rows;
  k->lstm_cell = lstm_cell;
  k->softmax_rows = softmax_rows;
  k->layer_norm = layer_norm;
  k->layer_norm_f16 = layer_norm_f16;
}
