/* Pooling and sums over pixels with the channels last, compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "simd.h"

VINLINE vf load_at(const void *p, bool half, size_t i, size_t n) {
  if (half) return n >= W ? vh_load((const cml_f16 *)p + i) : vh_load_n((const cml_f16 *)p + i, n);
  return n >= W ? vf_load((const float *)p + i) : vf_load_n((const float *)p + i, n);
}

VINLINE void store_at(void *p, bool half, size_t i, vf x, size_t n) {
  if (half) {
    if (n >= W) vh_store((cml_f16 *)p + i, x);
    else vh_store_n((cml_f16 *)p + i, x, n);
  } else {
    if (n >= W) vf_store((float *)p + i, x);
    else vf_store_n((float *)p + i, x, n);
  }
}

/* `vectors` of them side by side: as many chains of operations. */
VINLINE void pool_vectors(const int vectors, const bool max, const bool half, size_t taps, const void *const *x, size_t c, size_t n, float divisor, void *y) {
  vf acc[4];
  for (int v = 0; v < vectors; v++) acc[v] = load_at(x[0], half, c + (size_t)v * W, n);
  for (size_t t = 1; t < taps; t++)
    for (int v = 0; v < vectors; v++) {
      vf a = load_at(x[t], half, c + (size_t)v * W, n);
      acc[v] = max ? vf_max_nan(a, acc[v]) : acc[v] + a;
    }
  for (int v = 0; v < vectors; v++) store_at(y, half, c + (size_t)v * W, max ? acc[v] : acc[v] / divisor, n);
}

VINLINE void pool_channels(const bool max, const bool half, size_t taps, const void *const *x, size_t channels, float divisor, void *y) {
  size_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) pool_vectors(4, max, half, taps, x, c, W, divisor, y);
  for (; c + W <= channels; c += W) pool_vectors(1, max, half, taps, x, c, W, divisor, y);
  if (c < channels) pool_vectors(1, max, half, taps, x, c, channels - c, divisor, y);
}

static void pool_pixel(bool max, bool half, size_t taps, const void *const *x, size_t channels, float divisor, void *y) {
  if (max && half) pool_channels(true, true, taps, x, channels, divisor, y);
  else if (max) pool_channels(true, false, taps, x, channels, divisor, y);
  else if (half) pool_channels(false, true, taps, x, channels, divisor, y);
  else pool_channels(false, false, taps, x, channels, divisor, y);
}

VINLINE void sum_vectors(const int vectors, const bool half, size_t pixels, const void *x, size_t c, size_t pixel, size_t n, float *sums) {
  vf acc[4][2] = {{{0}}};
  size_t p = 0;
  for (; p + 2 <= pixels; p += 2)
    for (int v = 0; v < vectors; v++) {
      acc[v][0] += load_at(x, half, p * pixel + c + (size_t)v * W, n);
      acc[v][1] += load_at(x, half, (p + 1) * pixel + c + (size_t)v * W, n);
    }
  for (int v = 0; v < vectors; v++) {
    if (p < pixels) acc[v][0] += load_at(x, half, p * pixel + c + (size_t)v * W, n);
    store_at(sums, false, c + (size_t)v * W, acc[v][0] + acc[v][1], n);
  }
}

VINLINE void sum_channels(const bool half, size_t pixels, size_t channels, const void *x, size_t pixel, float *sums) {
  size_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) sum_vectors(4, half, pixels, x, c, pixel, W, sums);
  for (; c + W <= channels; c += W) sum_vectors(1, half, pixels, x, c, pixel, W, sums);
  if (c < channels) sum_vectors(1, half, pixels, x, c, pixel, channels - c, sums);
}

static void channel_sums(size_t pixels, size_t channels, const void *x, bool half, size_t pixel, float *sums) {
  if (half) sum_channels(true, pixels, channels, x, pixel, sums);
  else sum_channels(false, pixels, channels, x, pixel, sums);
}

void CML_SIMD(cml_fill_pool)(cml_kernels *k) {
  k->pool_pixel = pool_pixel;
  k->channel_sums = channel_sums;
}
