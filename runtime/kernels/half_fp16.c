/* Elementwise functions of float16 in the CPU's own float16 arithmetic (AVX512-FP16): 32 elements a vector and no conversions.
 *
 * Only those are here whose result is bit for bit that of the other tables, which compute in float32 and round once more: sums,
 * differences and products, for 24 bits are at least 2 * 11 + 2, so that rounding twice is rounding once; and what does not round at all.
 * Bounds of a clamp are rounded before instead of after, which for a monotone function is the same. The others go to the functions that
 * the table had before: quotients and square roots too, which take a Granite Rapids longer in float16 than with conversions. */
#include <immintrin.h>

#include "kernels_internal.h"

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 32 };

static struct {
  void (*unary)(cml_unary f, const cml_f16 *x, cml_f16 *y, size_t n, float a, float b);
  void (*binary)(cml_binary f, const cml_f16 *x1, const cml_f16 *x2, cml_f16 *y, size_t n);
} wider; /* set once, when tables are filled */

INLINE __m512h load(const cml_f16 *p, __mmask32 lanes) { return _mm512_castsi512_ph(_mm512_maskz_loadu_epi16(lanes, p)); }
INLINE void store(cml_f16 *p, __mmask32 lanes, __m512h x) { _mm512_mask_storeu_epi16(p, lanes, _mm512_castph_si512(x)); }
INLINE __m512h set(cml_f16 x) { return _mm512_castsi512_ph(_mm512_set1_epi16((short)x)); }
INLINE __m512h bits_and(__m512h x, uint16_t mask) { return _mm512_castsi512_ph(_mm512_and_si512(_mm512_castph_si512(x), _mm512_set1_epi16((short)mask))); }
INLINE __m512h bits_xor(__m512h x, uint16_t mask) { return _mm512_castsi512_ph(_mm512_xor_si512(_mm512_castph_si512(x), _mm512_set1_epi16((short)mask))); }

/* a where its lane of x is NaN, else the other */
INLINE __m512h unless_nan(__m512h x, __m512h other) { return _mm512_mask_blend_ph(_mm512_cmp_ph_mask(x, x, _CMP_UNORD_Q), other, x); }

INLINE __m512h apply(const cml_unary f, __m512h x, __m512h a, __m512h b) {
  switch (f) {
    case CML_UNARY_ABS: return bits_and(x, 0x7fff);
    case CML_UNARY_NEG: return bits_xor(x, 0x8000);
    case CML_UNARY_SQUARE: return _mm512_mul_ph(x, x);
    case CML_UNARY_ROUND: return _mm512_roundscale_ph(x, 8);
    case CML_UNARY_FLOOR: return _mm512_roundscale_ph(x, 9);
    case CML_UNARY_CEIL: return _mm512_roundscale_ph(x, 10);
    case CML_UNARY_RELU: return _mm512_max_ph(set(0), x);
    case CML_UNARY_CLIP: return _mm512_min_ph(b, _mm512_max_ph(a, x));
    case CML_UNARY_LEAKY_RELU: return _mm512_mask_mul_ph(x, _mm512_cmp_ph_mask(x, set(0), _CMP_LT_OQ), a, x);
    default: return x;
  }
}

INLINE void unary_loop(const cml_unary f, const cml_f16 *x, cml_f16 *y, size_t n, float a, float b) {
  __m512h va = set(cml_f16_from_f32(a)), vb = set(cml_f16_from_f32(b));
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, UINT32_MAX, apply(f, load(x + i, UINT32_MAX), va, vb));
  __mmask32 rest = (UINT32_C(1) << (n - i)) - 1;
  if (i < n) store(y + i, rest, apply(f, load(x + i, rest), va, vb));
}

#define UNARY_CASE(name) case CML_UNARY_##name: unary_loop(CML_UNARY_##name, x, y, n, a, b); break;

static void unary_f16(cml_unary f, const cml_f16 *x, cml_f16 *y, size_t n, float a, float b) {
  if (f == CML_UNARY_LEAKY_RELU && cml_f16_to_f32(cml_f16_from_f32(a)) != a) { /* the slope is no float16 */
    wider.unary(f, x, y, n, a, b);
    return;
  }
  switch (f) {
    UNARY_CASE(ABS) UNARY_CASE(NEG) UNARY_CASE(SQUARE) UNARY_CASE(FLOOR) UNARY_CASE(CEIL) UNARY_CASE(ROUND) UNARY_CASE(RELU)
    UNARY_CASE(CLIP) UNARY_CASE(LEAKY_RELU)
    default: wider.unary(f, x, y, n, a, b);
  }
}

INLINE __m512h apply2(const cml_binary f, __m512h x, __m512h y) {
  switch (f) {
    case CML_BINARY_ADD: return _mm512_add_ph(x, y);
    case CML_BINARY_SUB: return _mm512_sub_ph(x, y);
    case CML_BINARY_MUL: return _mm512_mul_ph(x, y);
    case CML_BINARY_MAX: return unless_nan(x, _mm512_max_ph(x, y));
    case CML_BINARY_MIN: return unless_nan(x, _mm512_min_ph(x, y));
    default: return x;
  }
}

INLINE void binary_loop(const cml_binary f, const cml_f16 *x1, const cml_f16 *x2, cml_f16 *y, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, UINT32_MAX, apply2(f, load(x1 + i, UINT32_MAX), load(x2 + i, UINT32_MAX)));
  __mmask32 rest = (UINT32_C(1) << (n - i)) - 1;
  if (i < n) store(y + i, rest, apply2(f, load(x1 + i, rest), load(x2 + i, rest)));
}

#define BINARY_CASE(name) case CML_BINARY_##name: binary_loop(CML_BINARY_##name, x1, x2, y, n); break;

static void binary_f16(cml_binary f, const cml_f16 *x1, const cml_f16 *x2, cml_f16 *y, size_t n) {
  switch (f) {
    BINARY_CASE(ADD) BINARY_CASE(SUB) BINARY_CASE(MUL) BINARY_CASE(MAX) BINARY_CASE(MIN)
    default: wider.binary(f, x1, x2, y, n);
  }
}

void cml_fill_half_avx512fp16(cml_kernels *k) {
  wider.unary = k->unary_f16;
  wider.binary = k->binary_f16;
  k->unary_f16 = unary_f16;
  k->binary_f16 = binary_f16;
}
