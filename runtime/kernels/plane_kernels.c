/* Convolutions of planes: sums of taps over lines, compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "simd.h"

/* `vectors` x `outputs` sums in registers: what is loaded serves all outputs. */
VINLINE void sum_taps(const size_t outputs, const size_t vectors, const cml_plane_taps *t, size_t i, size_t n) {
  vf sum[CML_PLANE_OUTPUTS][8];
  CML_UNROLL for (size_t o = 0; o < outputs; o++)
    CML_UNROLL for (size_t v = 0; v < vectors; v++) sum[o][v] = vf_set1(t->bias ? t->bias[o] : 0);
  const float *w = t->weights;
  for (size_t k = 0; k < t->taps; k++, w += outputs) {
    const float *x = t->x + t->offsets[k] + i;
    CML_UNROLL for (size_t v = 0; v < vectors; v++) {
      const vf e = n == W ? vf_load(x + v * W) : vf_load_n(x + v * W, n);
      CML_UNROLL for (size_t o = 0; o < outputs; o++) sum[o][v] = vf_fma(e, vf_set1(w[o]), sum[o][v]);
    }
  }
  CML_UNROLL for (size_t o = 0; o < outputs; o++)
    CML_UNROLL for (size_t v = 0; v < vectors; v++) {
      if (n == W) vf_store(t->y + o * t->stride + i + v * W, sum[o][v]);
      else vf_store_n(t->y + o * t->stride + i + v * W, sum[o][v], n);
    }
}

VINLINE void sum_line(const size_t outputs, const size_t vectors, const cml_plane_taps *t) {
  size_t i = 0;
  for (; i + vectors * W <= t->n; i += vectors * W) sum_taps(outputs, vectors, t, i, W);
  if (vectors > 4 && i + 4 * W <= t->n) sum_taps(outputs, 4, t, i, W), i += 4 * W;
  if (vectors > 2 && i + 2 * W <= t->n) sum_taps(outputs, 2, t, i, W), i += 2 * W;
  for (; i + W <= t->n; i += W) sum_taps(outputs, 1, t, i, W);
  if (i < t->n) sum_taps(outputs, 1, t, i, t->n - i);
}

static void plane_taps(const cml_plane_taps *t) {
  enum { WIDE = W >= 16 ? 4 : 2 }; /* of four outputs: half of the registers hold sums */
  switch (t->outputs) {
    case 1: sum_line(1, 8, t); break;
    case 2: sum_line(2, 4, t); break;
    case 3: sum_line(3, WIDE, t); break;
    default: sum_line(4, WIDE, t); break;
  }
}

void CML_SIMD(cml_fill_plane)(cml_kernels *k) { k->plane_taps = plane_taps; }
