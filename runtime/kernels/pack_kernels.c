/* Transposing, of matrices and of weights whose depth lies side by side (a linear layer's) into panels: blocks of W x W are transposed in
 * registers, so that both the rows that are read and those that are written move in whole vectors. */
#include "kernels_internal.h"
#include "simd.h"

#include <string.h>

enum { NR = CML_TILE_VECTORS * W };

#if defined(__AVX512F__)

VINLINE void transpose_block(vf *r) {
  __m512 t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps((__m512)r[i], (__m512)r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps((__m512)r[i], (__m512)r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) /* u[i + k]: column k of each quarter, of rows i to i + 3 */
    for (int k = 0; k < 2; k++) {
      __m512d a = _mm512_castps_pd(t[i + k]), b = _mm512_castps_pd(t[i + k + 2]);
      u[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      u[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  for (int k = 0; k < 4; k++) {
    __m512 a = _mm512_shuffle_f32x4(u[k], u[4 + k], 0x88), b = _mm512_shuffle_f32x4(u[k], u[4 + k], 0xdd);
    __m512 c = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0x88), d = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0xdd);
    r[k] = (vf)_mm512_shuffle_f32x4(a, c, 0x88);
    r[k + 4] = (vf)_mm512_shuffle_f32x4(b, d, 0x88);
    r[k + 8] = (vf)_mm512_shuffle_f32x4(a, c, 0xdd);
    r[k + 12] = (vf)_mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

#elif defined(__AVX2__)

VINLINE void transpose_block(vf *r) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int k = 0; k < 2; k++) {
      __m256d a = _mm256_castps_pd(t[i + k]), b = _mm256_castps_pd(t[i + k + 2]);
      u[i + 2 * k] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
      u[i + 2 * k + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
    }
  for (int k = 0; k < 4; k++) {
    r[k] = (vf)_mm256_permute2f128_ps(u[k], u[4 + k], 0x20);
    r[k + 4] = (vf)_mm256_permute2f128_ps(u[k], u[4 + k], 0x31);
  }
}

#else

VINLINE void transpose_block(vf *r) {
  vf t0 = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), t1 = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  vf t2 = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5), t3 = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  r[0] = __builtin_shufflevector(t0, t2, 0, 1, 4, 5);
  r[1] = __builtin_shufflevector(t0, t2, 2, 3, 6, 7);
  r[2] = __builtin_shufflevector(t1, t3, 0, 1, 4, 5);
  r[3] = __builtin_shufflevector(t1, t3, 2, 3, 6, 7);
}

#endif

/* A depth of at most W of the rows i0 up to n (at most W of them), others zero. */
VINLINE void load_block(vf *r, const void *from, bool half, size_t stride, size_t rows, size_t depth) {
  for (size_t i = 0; i < W; i++) {
    if (i >= rows) r[i] = vf_zero();
    else if (half) r[i] = depth == W ? vh_load((const cml_f16 *)from + i * stride) : vh_load_n((const cml_f16 *)from + i * stride, depth);
    else r[i] = depth == W ? vf_load((const float *)from + i * stride) : vf_load_n((const float *)from + i * stride, depth);
  }
}

VINLINE void store_block(const vf *r, void *to, bool half, size_t depth) {
  for (size_t d = 0; d < depth; d++) {
    if (half) vh_store((cml_f16 *)to + d * NR, r[d]);
    else vf_store((float *)to + d * NR, r[d]);
  }
}

VINLINE void pack(const bool half, const bool from_half, void *to, const void *from, size_t depth, size_t n, size_t stride) {
  size_t size = half ? 2 : 4, from_size = from_half ? 2 : 4;
  for (size_t d = 0; d < depth; d += W) {
    size_t m = depth - d < W ? depth - d : W;
    for (size_t j = 0; j < NR; j += W) {
      vf r[W];
      size_t rows = n > j ? n - j : 0;
      const char *p = (const char *)from + (j * stride + d) * from_size;
      if (rows >= W && m == W) load_block(r, p, from_half, stride, W, W);
      else load_block(r, p, from_half, stride, rows, m);
      transpose_block(r);
      store_block(r, (char *)to + (d * NR + j) * size, half, m);
    }
  }
}

static void pack_panel(void *to, bool half, const void *from, bool from_half, size_t depth, size_t n, size_t stride) {
  if (half) pack(true, true, to, from, depth, n, stride);
  else if (from_half) pack(false, true, to, from, depth, n, stride);
  else pack(false, false, to, from, depth, n, stride);
}

/* ---- matrices of floats, or of any 16 bits, which a lane of a float carries as an integer ---- */

typedef uint16_t shorts __attribute__((vector_size(W * 2)));

VINLINE vf load_lanes(const void *p, bool half, size_t n) {
  if (!half) return n == W ? vf_load(p) : vf_load_n(p, n);
  shorts s = {0};
  memcpy(&s, p, n == W ? sizeof s : n * 2);
  return (vf)__builtin_convertvector(s, vu);
}

VINLINE void store_lanes(void *p, bool half, vf v, size_t n) {
  if (!half) {
    if (n == W) vf_store(p, v);
    else vf_store_n(p, v, n);
    return;
  }
  shorts s = __builtin_convertvector((vu)v, shorts);
  memcpy(p, &s, n == W ? sizeof s : n * 2);
}

VINLINE void transpose_any(const bool half, size_t rows, size_t columns, const char *x, size_t x_stride, char *y, size_t y_stride) {
  const size_t size = half ? 2 : 4;
  for (size_t r = 0; r < rows; r += W)
    for (size_t c = 0; c < columns; c += W) {
      size_t rn = rows - r < W ? rows - r : W, cn = columns - c < W ? columns - c : W;
      const char *from = x + (r * x_stride + c) * size;
      char *to = y + (c * y_stride + r) * size;
      vf v[W];
      if (rn == W && cn == W) {
        for (size_t i = 0; i < W; i++) v[i] = load_lanes(from + i * x_stride * size, half, W);
        transpose_block(v);
        for (size_t i = 0; i < W; i++) store_lanes(to + i * y_stride * size, half, v[i], W);
      } else {
        for (size_t i = 0; i < W; i++) v[i] = i < rn ? load_lanes(from + i * x_stride * size, half, cn) : vf_zero();
        transpose_block(v);
        for (size_t i = 0; i < cn; i++) store_lanes(to + i * y_stride * size, half, v[i], rn);
      }
    }
}

static void transpose(size_t rows, size_t columns, const float *x, size_t x_stride, float *y, size_t y_stride) {
  if (rows == 3 && y_stride == 3) { /* an image's colours */
    const float *g = x + x_stride, *b = g + x_stride;
    for (size_t c = 0; c < columns; c++) y[3 * c] = x[c], y[3 * c + 1] = g[c], y[3 * c + 2] = b[c];
    return;
  }
  transpose_any(false, rows, columns, (const char *)x, x_stride, (char *)y, y_stride);
}

static void transpose_16(size_t rows, size_t columns, const uint16_t *x, size_t x_stride, uint16_t *y, size_t y_stride) {
  transpose_any(true, rows, columns, (const char *)x, x_stride, (char *)y, y_stride);
}

void CML_SIMD(cml_fill_pack)(cml_kernels *k) {
  k->pack_panel = pack_panel;
  k->transpose = transpose;
  k->transpose_16 = transpose_16;
}
