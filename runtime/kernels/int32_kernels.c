/* Elementwise functions of 32-bit integers, compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "simd.h"

static void f32_to_i32(const float *x, int32_t *y, size_t n) {
  for (size_t i = 0; i < n; i += W) {
    const size_t m = n - i;
    const vf v = m >= W ? vf_load(x + i) : vf_load_n(x + i, m), high = vf_set1(0x1.fffffep30f);
    vi r = vf_int(vf_min(high, vf_max(vf_trunc(v), vf_set1(-0x1p31f)))), above = v > high;
    r = ((r & ~above) | (INT32_MAX & above)) & (v == v);
    if (m >= W) vi_store(y + i, r);
    else vi_store_n(y + i, r, m);
  }
}

static void i32_to_f32(const int32_t *x, float *y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) vf_store(y + i, vf_from_int(vi_load(x + i)));
  if (i < n) vf_store_n(y + i, vf_from_int(vi_load_n(x + i, n - i)), n - i);
}

/* ---- two operands ---- */

VINLINE void compare_loop(const cml_comparison c, const int32_t *x, const int32_t *y, uint8_t *to, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) bytes_store(to + i, V_COMPARED(c, vi_load(x + i), vi_load(y + i)) & 1);
  if (i < n) bytes_store_n(to + i, V_COMPARED(c, vi_load_n(x + i, n - i), vi_load_n(y + i, n - i)) & 1, n - i);
}

static void compare_i32(cml_comparison c, const int32_t *x, const int32_t *y, uint8_t *to, size_t n) {
#define CASE(name) case CML_COMPARE_##name: compare_loop(CML_COMPARE_##name, x, y, to, n); return;
  switch (c) {
    CASE(EQUAL) CASE(NOT_EQUAL) CASE(LESS) CASE(LESS_EQUAL) CASE(GREATER) CASE(GREATER_EQUAL)
    case CML_COMPARE_COUNT: return;
  }
#undef CASE
}

/* Quotients of 32 bits are exact in double: what is no whole number differs from one by 2^-31 at least. */
VINLINE vi quotient(vi x, vi y) {
  const vi minus = y == -1, special = (y == 0) | minus; /* INT32_MIN / -1 is no int32 */
  const vd q = __builtin_convertvector(x, vd) / __builtin_convertvector((y & ~special) - special, vd);
  return ((vi)(0 - (vu)x) & minus) | (__builtin_convertvector(q, vi) & ~special);
}

VINLINE vi apply(const cml_binary f, vi x, vi y) {
  switch (f) {
    case CML_BINARY_ADD: return (vi)((vu)x + (vu)y);
    case CML_BINARY_SUB: return (vi)((vu)x - (vu)y);
    case CML_BINARY_MUL: return (vi)((vu)x * (vu)y);
    case CML_BINARY_DIV: return quotient(x, y);
    case CML_BINARY_MAX: return (x & (x > y)) | (y & (x <= y));
    case CML_BINARY_MIN: return (x & (x < y)) | (y & (x >= y));
    default: break;
  }
  const vi q = quotient(x, y), r = (vi)((vu)x - (vu)q * (vu)y), below = (r != 0) & ((r ^ y) < 0);
  return f == CML_BINARY_FLOOR_DIV ? q + (below & (y != 0)) : (r + (y & below)) & (y != 0);
}

VINLINE void binary_loop(const cml_binary f, const int32_t *x1, const int32_t *x2, int32_t *y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) vi_store(y + i, apply(f, vi_load(x1 + i), vi_load(x2 + i)));
  if (i < n) vi_store_n(y + i, apply(f, vi_load_n(x1 + i, n - i), vi_load_n(x2 + i, n - i)), n - i);
}

static void binary_i32(cml_binary f, const int32_t *x1, const int32_t *x2, int32_t *y, size_t n) {
#define CASE(name) case CML_BINARY_##name: binary_loop(CML_BINARY_##name, x1, x2, y, n); return;
  switch (f) {
    CASE(ADD) CASE(SUB) CASE(MUL) CASE(DIV) CASE(MAX) CASE(MIN) CASE(MOD) CASE(FLOOR_DIV)
    case CML_BINARY_POW: case CML_BINARY_COUNT: return;
  }
#undef CASE
}

void CML_SIMD(cml_fill_int32)(cml_kernels *k) {
  k->f32_to_i32 = f32_to_i32;
  k->i32_to_f32 = i32_to_f32;
  k->compare_i32 = compare_i32;
  k->binary_i32 = binary_i32;
}
