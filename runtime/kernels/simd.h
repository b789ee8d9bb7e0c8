/* A vector of floats, as wide as the instruction set that this file is compiled for: 16 with AVX-512, 8 with AVX2, 4 with
 * NEON and in portable C (compiler vectors of 4). The kernels are written once on top of this; the build compiles them once
 * for each instruction set. Everything here is static inline; nothing but the kernels' sources includes it.
 *
 *   vf, vi     W floats, W 32-bit integers; compiler vectors, so that + - * / & | < and so on work on them
 *   *_n        the first n lanes only (0 < n <= W): the others are read as zero and not written
 *   vh_*       lanes are float16 in memory, float32 in the register; stores round to nearest even */
#ifndef CML_SIMD_H
#define CML_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "f16.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define CML_TILE_MAX 14
enum { W = 16, CML_TILE_ROWS = 14, CML_TILE_VECTORS = 2 };
#define CML_SIMD(name) name##_avx512
#elif defined(__AVX2__)
#include <immintrin.h>
#define CML_TILE_MAX 6
enum { W = 8, CML_TILE_ROWS = 6, CML_TILE_VECTORS = 2 };
#define CML_SIMD(name) name##_avx2
#elif defined(__aarch64__) && !defined(CML_PORTABLE)
#include <arm_neon.h>
#define CML_TILE_MAX 6
enum { W = 4, CML_TILE_ROWS = 6, CML_TILE_VECTORS = 4 };
#define CML_SIMD(name) name##_neon
#else
#define CML_TILE_MAX 4
enum { W = 4, CML_TILE_ROWS = 4, CML_TILE_VECTORS = 2 };
#define CML_SIMD(name) name##_portable
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef int64_t vl __attribute__((vector_size(W * 8)));
typedef double vd __attribute__((vector_size(W * 8))); /* two registers: for the few places where a float is too coarse */
typedef float vf_any __attribute__((vector_size(W * 4), aligned(4), may_alias));

/* Before loops whose count is a constant where the function is inlined. Not for sanitizers, whose checks multiply: they took minutes. */
#if defined(__has_feature)
#define CML_SANITIZED __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define CML_SANITIZED 1
#else
#define CML_SANITIZED 0
#endif
#if CML_SANITIZED && !defined(__clang__)
#define CML_UNROLL _Pragma("GCC unroll 1")
#elif CML_SANITIZED
#define CML_UNROLL _Pragma("nounroll")
#elif defined(__clang__)
#define CML_UNROLL _Pragma("unroll")
#else
#define CML_UNROLL _Pragma("GCC unroll 32")
#endif

#define VINLINE static inline __attribute__((always_inline, unused))

VINLINE vf vf_load(const float *p) { return *(const vf_any *)p; }
VINLINE void vf_store(float *p, vf x) { *(vf_any *)p = x; }
VINLINE vf vf_set1(float x) { return x - (vf){0}; } /* x + 0 would turn -0 into 0 */
VINLINE vi vi_iota(void) { /* 0, 1, 2, ... */
  static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vi x;
  memcpy(&x, lanes, sizeof x);
  return x;
}
VINLINE vi vi_set1(int32_t x) { return x + (vi){0}; }
VINLINE vi vf_bits(vf x) { return (vi)x; }
VINLINE vf vi_float(vi x) { return (vf)x; } /* the same bits */
VINLINE vf vf_zero(void) { return (vf){0}; }
VINLINE vd vf_double(vf x) { return __builtin_convertvector(x, vd); }
VINLINE vf vd_float(vd x) { return __builtin_convertvector(x, vf); }
VINLINE vd vd_set1(double x) { return x - (vd){0}; }
VINLINE vd vd_select(vl mask, vd a, vd b) { return (vd)((mask & (vl)a) | (~mask & (vl)b)); }
/* mask ? a : b, lanes of mask all ones or zeros */
VINLINE vf vf_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
VINLINE vf vf_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }
VINLINE vf vf_copysign(vf magnitude, vf sign) { return (vf)(((vi)magnitude & 0x7fffffff) | ((vi)sign & INT32_MIN)); }

#if defined(__AVX512F__)

VINLINE __mmask16 v_mask(size_t n) { return (__mmask16)((1u << n) - 1); }
VINLINE vf vf_load_n(const float *p, size_t n) { return (vf)_mm512_maskz_loadu_ps(v_mask(n), p); }
VINLINE void vf_store_n(float *p, vf x, size_t n) { _mm512_mask_storeu_ps(p, v_mask(n), (__m512)x); }
VINLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
VINLINE vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); } /* b when either is NaN */
VINLINE vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
VINLINE vf vf_round(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 8); } /* to nearest even */
VINLINE vf vf_floor(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 9); }
VINLINE vf vf_ceil(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 10); }
VINLINE vf vf_trunc(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 11); }
VINLINE vf vf_sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
VINLINE vi vf_int(vf x) { return (vi)_mm512_cvtps_epi32((__m512)x); } /* x must be whole */
VINLINE vf vf_from_int(vi x) { return (vf)_mm512_cvtepi32_ps((__m512i)x); }
VINLINE vf vh_load(const cml_f16 *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
VINLINE vf vh_load_n(const cml_f16 *p, size_t n) { return (vf)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_mask(n), p)); }
VINLINE void vh_store(cml_f16 *p, vf x) { _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph((__m512)x, 8)); }
VINLINE void vh_store_n(cml_f16 *p, vf x, size_t n) { _mm256_mask_storeu_epi16(p, v_mask(n), _mm512_cvtps_ph((__m512)x, 8)); }
#define CML_HAVE_SCALEF 1
VINLINE vf vf_scalef(vf x, vf n) { return (vf)_mm512_scalef_ps((__m512)x, (__m512)n); } /* x 2^n */
VINLINE float vf_sum(vf x) { return _mm512_reduce_add_ps((__m512)x); }
VINLINE void vf_sum_4(const vf *x, float *to) { /* of four vectors, in fewer instructions than one by one */
  __m512 a = _mm512_add_ps(_mm512_unpacklo_ps((__m512)x[0], (__m512)x[1]), _mm512_unpackhi_ps((__m512)x[0], (__m512)x[1]));
  __m512 b = _mm512_add_ps(_mm512_unpacklo_ps((__m512)x[2], (__m512)x[3]), _mm512_unpackhi_ps((__m512)x[2], (__m512)x[3]));
  __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
  a = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
  __m256 e = _mm256_add_ps(_mm512_castps512_ps256(a), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1)));
}
VINLINE float vf_hmax(vf x) { return _mm512_reduce_max_ps((__m512)x); }
VINLINE float vf_hmin(vf x) { return _mm512_reduce_min_ps((__m512)x); }

#elif defined(__AVX2__)

VINLINE __m256i v_mask(size_t n) {
  static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256((const __m256i *)(const void *)(ones + 8 - n));
}
VINLINE vf vf_load_n(const float *p, size_t n) { return (vf)_mm256_maskload_ps(p, v_mask(n)); }
VINLINE void vf_store_n(float *p, vf x, size_t n) { _mm256_maskstore_ps(p, v_mask(n), (__m256)x); }
VINLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
VINLINE vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
VINLINE vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
VINLINE vf vf_round(vf x) { return (vf)_mm256_round_ps((__m256)x, 8); }
VINLINE vf vf_floor(vf x) { return (vf)_mm256_round_ps((__m256)x, 9); }
VINLINE vf vf_ceil(vf x) { return (vf)_mm256_round_ps((__m256)x, 10); }
VINLINE vf vf_trunc(vf x) { return (vf)_mm256_round_ps((__m256)x, 11); }
VINLINE vf vf_sqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
VINLINE vi vf_int(vf x) { return (vi)_mm256_cvtps_epi32((__m256)x); }
VINLINE vf vf_from_int(vi x) { return (vf)_mm256_cvtepi32_ps((__m256i)x); }
VINLINE vf vh_load(const cml_f16 *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
VINLINE void vh_store(cml_f16 *p, vf x) { _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph((__m256)x, 8)); }
VINLINE vf vh_load_n(const cml_f16 *p, size_t n) { /* not by way of memory, where a load waits for several stores */
  __m128i low, high = _mm_setzero_si128();
  if (n >= 4) { /* the first four, and of the last four those behind them */
    low = _mm_loadl_epi64((const __m128i *)(const void *)p);
    high = _mm_srl_epi64(_mm_loadl_epi64((const __m128i *)(const void *)(p + n - 4)), _mm_cvtsi64_si128((int64_t)(16 * (8 - n))));
  } else {
    uint64_t few = p[0];
    if (n > 1) few |= (uint64_t)p[1] << 16;
    if (n > 2) few |= (uint64_t)p[2] << 32;
    low = _mm_cvtsi64_si128((int64_t)few);
  }
  return (vf)_mm256_cvtph_ps(_mm_unpacklo_epi64(low, high));
}
VINLINE void vh_store_n(cml_f16 *p, vf x, size_t n) {
  cml_f16 t[8];
  vh_store(t, x);
  for (size_t i = 0; i < n; i++) p[i] = t[i];
}
VINLINE float vf_sum(vf x) {
  __m128 a = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
VINLINE void vf_sum_4(const vf *x, float *to) {
  __m256 a = _mm256_hadd_ps(_mm256_hadd_ps((__m256)x[0], (__m256)x[1]), _mm256_hadd_ps((__m256)x[2], (__m256)x[3]));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)));
}
VINLINE float vf_hmax(vf x) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}
VINLINE float vf_hmin(vf x) {
  __m128 a = _mm_min_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  a = _mm_min_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)));
}

#else /* NEON and portable: lanes by lanes where there is no instruction */

VINLINE vf vf_load_n(const float *p, size_t n) {
  vf x = {0};
  for (size_t i = 0; i < n; i++) x[i] = p[i];
  return x;
}
VINLINE void vf_store_n(float *p, vf x, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = x[i];
}
VINLINE vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
VINLINE vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }
VINLINE float vf_sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
VINLINE void vf_sum_4(const vf *x, float *to) {
  for (int i = 0; i < 4; i++) to[i] = vf_sum(x[i]);
}
VINLINE float vf_hmax(vf x) {
  float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
  return a > b ? a : b;
}
VINLINE float vf_hmin(vf x) {
  float a = x[0] < x[1] ? x[0] : x[1], b = x[2] < x[3] ? x[2] : x[3];
  return a < b ? a : b;
}

#if defined(__aarch64__) && !defined(CML_PORTABLE)
VINLINE vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
VINLINE vf vf_round(vf x) { return (vf)vrndnq_f32((float32x4_t)x); }
VINLINE vf vf_floor(vf x) { return (vf)vrndmq_f32((float32x4_t)x); }
VINLINE vf vf_ceil(vf x) { return (vf)vrndpq_f32((float32x4_t)x); }
VINLINE vf vf_trunc(vf x) { return (vf)vrndq_f32((float32x4_t)x); }
VINLINE vf vf_sqrt(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }
VINLINE vi vf_int(vf x) { return (vi)vcvtnq_s32_f32((float32x4_t)x); }
VINLINE vf vf_from_int(vi x) { return (vf)vcvtq_f32_s32((int32x4_t)x); }
VINLINE vf vh_load(const cml_f16 *p) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
VINLINE void vh_store(cml_f16 *p, vf x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)x))); }
#else
VINLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
VINLINE vi vf_int(vf x) { return __builtin_convertvector(x, vi); }
VINLINE vf vf_from_int(vi x) { return __builtin_convertvector(x, vf); }
VINLINE vf vf_round(vf x) { /* adding 2^23 leaves no room for a fraction; larger values are whole already */
  vf magic = vf_copysign(vf_set1(0x1p23f), x), r = vf_copysign((x + magic) - magic, x);
  return vf_select(vf_abs(x) < 0x1p23f, r, x);
}
VINLINE vf vf_floor(vf x) {
  vf r = vf_round(x);
  return vf_select(r > x, r - 1, r);
}
VINLINE vf vf_ceil(vf x) {
  vf r = vf_round(x);
  return vf_copysign(vf_select(r < x, r + 1, r), x);
}
VINLINE vf vf_trunc(vf x) { return vf_copysign(vf_floor(vf_abs(x)), x); }
VINLINE vf vf_sqrt(vf x) {
  for (int i = 0; i < W; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
VINLINE vf vh_load(const cml_f16 *p) {
  vf x;
  for (int i = 0; i < W; i++) x[i] = cml_f16_to_f32(p[i]);
  return x;
}
VINLINE void vh_store(cml_f16 *p, vf x) {
  for (int i = 0; i < W; i++) p[i] = cml_f16_from_f32(x[i]);
}
#endif

VINLINE vf vh_load_n(const cml_f16 *p, size_t n) {
  vf x = {0};
  for (size_t i = 0; i < n; i++) x[i] = cml_f16_to_f32(p[i]);
  return x;
}
VINLINE void vh_store_n(cml_f16 *p, vf x, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = cml_f16_from_f32(x[i]);
}
#endif

/* 32-bit integers of memory; only bits are moved. */
VINLINE vi vi_load(const void *p) { return (vi)vf_load(p); }
VINLINE vi vi_load_n(const void *p, size_t n) { return (vi)vf_load_n(p, n); }
VINLINE void vi_store(void *p, vi x) { vf_store(p, (vf)x); }
VINLINE void vi_store_n(void *p, vi x, size_t n) { vf_store_n(p, (vf)x, n); }

/* Unsigned bytes of memory to lanes and back, which hold values of a byte. */
#if defined(__AVX512F__)
VINLINE vi bytes_load(const uint8_t *p) { return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)); }
VINLINE vi bytes_load_n(const uint8_t *p, size_t n) { return (vi)_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(v_mask(n), p)); }
VINLINE void bytes_store(uint8_t *p, vi x) { _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8((__m512i)x)); }
VINLINE void bytes_store_n(uint8_t *p, vi x, size_t n) { _mm_mask_storeu_epi8(p, v_mask(n), _mm512_cvtepi32_epi8((__m512i)x)); }
#else
VINLINE vi bytes_load_n(const uint8_t *p, size_t n) {
  vi x = {0};
  for (size_t i = 0; i < n; i++) x[i] = p[i];
  return x;
}
VINLINE void bytes_store_n(uint8_t *p, vi x, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = (uint8_t)x[i];
}
#if defined(__AVX2__)
VINLINE vi bytes_load(const uint8_t *p) { return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)); }
VINLINE void bytes_store(uint8_t *p, vi x) {
  __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)x, (__m256i)x), 0x08);
  __m128i low = _mm256_castsi256_si128(words);
  _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(low, low));
}
#else
VINLINE vi bytes_load(const uint8_t *p) { return bytes_load_n(p, W); }
VINLINE void bytes_store(uint8_t *p, vi x) { bytes_store_n(p, x, W); }
#endif
#endif

/* A vector's lanes as doubles in two registers: for sums over a loop, where compilers keep a vd in memory. */
typedef double vd_half __attribute__((vector_size(W * 4)));
#if defined(__AVX512F__)
VINLINE vd_half vf_low_double(vf x) { return (vd_half)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)x)); }
VINLINE vd_half vf_high_double(vf x) { return (vd_half)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)x, 1)); }
VINLINE vf vd_halves_float(vd_half low, vd_half high) {
  return (vf)_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)low)), _mm512_cvtpd_ps((__m512d)high), 1);
}
#elif defined(__AVX2__)
VINLINE vd_half vf_low_double(vf x) { return (vd_half)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x)); }
VINLINE vd_half vf_high_double(vf x) { return (vd_half)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, 1)); }
VINLINE vf vd_halves_float(vd_half low, vd_half high) { return (vf)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)high), _mm256_cvtpd_ps((__m256d)low)); }
#else
VINLINE vd_half vf_low_double(vf x) { return (vd_half){(double)x[0], (double)x[1]}; }
VINLINE vd_half vf_high_double(vf x) { return (vd_half){(double)x[2], (double)x[3]}; }
VINLINE vf vd_halves_float(vd_half low, vd_half high) { return (vf){(float)low[0], (float)low[1], (float)high[0], (float)high[1]}; }
#endif

/* Lane i becomes lane from[i]. */
#if defined(__AVX512F__)
VINLINE vf vf_permute(vf x, vi from) { return (vf)_mm512_permutexvar_ps((__m512i)from, (__m512)x); }
#elif defined(__AVX2__)
VINLINE vf vf_permute(vf x, vi from) { return (vf)_mm256_permutevar8x32_ps((__m256)x, (__m256i)from); }
#elif defined(__aarch64__) && !defined(CML_PORTABLE)
VINLINE vf vf_permute(vf x, vi from) {
  uint8x16_t bytes = (uint8x16_t)(from * 0x04040404 + 0x03020100);
  return (vf)vqtbl1q_u8((uint8x16_t)x, bytes);
}
#else
VINLINE vf vf_permute(vf x, vi from) { return (vf){x[from[0] & 3], x[from[1] & 3], x[from[2] & 3], x[from[3] & 3]}; }
#endif

/* The same from two vectors, lanes W and more those of b, where it takes a few instructions. */
#if defined(__AVX512F__)
#define CML_HAVE_PERMUTE2 1
VINLINE vf vf_permute2(vf a, vf b, vi from) { return (vf)_mm512_permutex2var_ps((__m512)a, (__m512i)from, (__m512)b); }
#elif defined(__AVX2__)
#define CML_HAVE_PERMUTE2 1
VINLINE vf vf_permute2(vf a, vf b, vi from) { return vf_select(from >= W, vf_permute(b, from), vf_permute(a, from)); }
#endif

/* Lanes of a from the by-th on and then those of b; by at most W. */
#if defined(CML_HAVE_PERMUTE2)
VINLINE vf vf_slide(vf a, vf b, size_t by) { return vf_permute2(a, b, vi_iota() + vi_set1((int32_t)by)); }
#elif defined(__aarch64__) && !defined(CML_PORTABLE)
VINLINE vf vf_slide(vf a, vf b, size_t by) {
  const uint8x16_t bytes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return (vf)vqtbl2q_u8((uint8x16x2_t){{(uint8x16_t)a, (uint8x16_t)b}}, vaddq_u8(bytes, vdupq_n_u8((uint8_t)(4 * by))));
}
#else
VINLINE vf vf_slide(vf a, vf b, size_t by) {
  float x[2 * W];
  vf_store(x, a), vf_store(x + W, b);
  return vf_load(x + by);
}
#endif

/* Every second element of a and then b, from the first or the second on. */
#if defined(__AVX512F__)
VINLINE vf vf_even(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30); }
VINLINE vf vf_odd(vf a, vf b) { return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); }
#elif defined(__AVX2__)
VINLINE vf vf_even(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14); }
VINLINE vf vf_odd(vf a, vf b) { return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15); }
#else
VINLINE vf vf_even(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 2, 4, 6); }
VINLINE vf vf_odd(vf a, vf b) { return __builtin_shufflevector(a, b, 1, 3, 5, 7); }
#endif

/* One element of a, one of b, and so on: the first half of all, and the second. */
#if defined(__AVX512F__)
VINLINE vf vf_zip_low(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
VINLINE vf vf_zip_high(vf a, vf b) { return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31); }
#elif defined(__AVX2__)
VINLINE vf vf_zip_low(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
VINLINE vf vf_zip_high(vf a, vf b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
VINLINE vf vf_zip_low(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
VINLINE vf vf_zip_high(vf a, vf b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#endif

/* Signed zeros and NaN as torch has them: NaN in either operand gives NaN. */
#if defined(__AVX512F__) /* lanes of a that are NaN stay as they are */
VINLINE vf vf_max_nan(vf a, vf b) { return (vf)_mm512_mask_max_ps((__m512)a, _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q), (__m512)a, (__m512)b); }
VINLINE vf vf_min_nan(vf a, vf b) { return (vf)_mm512_mask_min_ps((__m512)a, _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q), (__m512)a, (__m512)b); }
#else
VINLINE vf vf_max_nan(vf a, vf b) { return vf_select(a != a, a, vf_max(a, b)); }
VINLINE vf vf_min_nan(vf a, vf b) { return vf_select(a != a, a, vf_min(a, b)); }
#endif

#endif
