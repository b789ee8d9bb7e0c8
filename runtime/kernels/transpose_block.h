/* W vectors as the rows of a matrix become its columns, in registers. Included by the kernels' sources alone. */
#ifndef CML_TRANSPOSE_BLOCK_H
#define CML_TRANSPOSE_BLOCK_H

#include "simd.h"

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

#endif
