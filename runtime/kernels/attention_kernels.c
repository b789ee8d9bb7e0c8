/* A few rows times a matrix as it lies, compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "simd.h"

enum { NV = W == 16 ? 4 : 2 }; /* vectors of a value's columns at once: with CML_ATTEND rows of sums they fill half of the registers or less */

VINLINE vf load_at(const void *p, bool half, size_t i, size_t n) {
  if (half) return n >= W ? vh_load((const cml_f16 *)p + i) : vh_load_n((const cml_f16 *)p + i, n);
  return n >= W ? vf_load((const float *)p + i) : vf_load_n((const float *)p + i, n);
}

/* Columns [c, c + vectors * W) of all queries' sums; of the last vector n lanes. */
VINLINE void sum_columns(const int queries, const int vectors, const bool half, size_t keys, const float *p, size_t stride, const void *x, size_t row, size_t c,
                         size_t n, float *y, size_t y_stride) {
  vf acc[CML_ATTEND][NV] = {{{0}}};
  for (size_t s = 0; s < keys; s++) {
    vf xv[NV];
    CML_UNROLL for (int j = 0; j < vectors; j++) xv[j] = load_at(x, half, s * row + c + (size_t)j * W, n);
    CML_UNROLL for (int v = 0; v < queries; v++) {
      const vf a = vf_set1(p[(size_t)v * stride + s]);
      CML_UNROLL for (int j = 0; j < vectors; j++) acc[v][j] = vf_fma(a, xv[j], acc[v][j]);
    }
  }
  CML_UNROLL for (int v = 0; v < queries; v++)
    CML_UNROLL for (int j = 0; j < vectors; j++) {
      float *to = y + (size_t)v * y_stride + c + (size_t)j * W;
      if (n == W) vf_store(to, acc[v][j]);
      else vf_store_n(to, acc[v][j], n);
    }
}

VINLINE void sum_values(const int queries, const bool half, size_t keys, size_t depth, const float *p, size_t stride, const void *x, size_t row, float *y, size_t y_stride) {
  size_t c = 0;
  for (; c + NV * W <= depth; c += NV * W) sum_columns(queries, NV, half, keys, p, stride, x, row, c, W, y, y_stride);
  for (; c + W <= depth; c += W) sum_columns(queries, 1, half, keys, p, stride, x, row, c, W, y, y_stride);
  if (c < depth) sum_columns(queries, 1, half, keys, p, stride, x, row, c, depth - c, y, y_stride);
}

VINLINE void any_values(const bool half, size_t queries, size_t keys, size_t depth, const float *p, size_t stride, const void *x, size_t row, float *y, size_t y_stride) {
  switch (queries) {
    case 1: sum_values(1, half, keys, depth, p, stride, x, row, y, y_stride); break;
    case 2: sum_values(2, half, keys, depth, p, stride, x, row, y, y_stride); break;
    case 3: sum_values(3, half, keys, depth, p, stride, x, row, y, y_stride); break;
    default: sum_values(CML_ATTEND, half, keys, depth, p, stride, x, row, y, y_stride); break;
  }
}

static void attend_values(size_t queries, size_t keys, size_t depth, const float *p, size_t stride, const void *x, bool half, size_t row, float *y,
                          size_t y_stride) {
  if (half) any_values(true, queries, keys, depth, p, stride, x, row, y, y_stride);
  else any_values(false, queries, keys, depth, p, stride, x, row, y, y_stride);
}

void CML_SIMD(cml_fill_attention)(cml_kernels *k) {
  k->attend_values = attend_values;
}
