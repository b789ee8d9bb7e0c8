/* Vector versions of C's functions. Each reduces its argument to a short interval and evaluates a polynomial there; the
 * coefficients are minimax fits of our own (Remez exchange at 40 digits, error in relative terms). kernels.h states the
 * bounds. */
#ifndef CML_VECTOR_MATH_H
#define CML_VECTOR_MATH_H

#include "simd.h"

#define V(x) vf_set1(x)

/* 2^n for n in -252 .. 254, in two factors so that results below 2^-126 and just under 2^128 come out. */
VINLINE vf v_scale(vf x, vi n) {
  vi half = n >> 1;
  return x * vi_float((half + 127) << 23) * vi_float((n - half + 127) << 23);
}

/* e^x = 2^n e^r, |r| <= ln 2 / 2; ln 2 in two parts so that n ln 2 is exact enough. */
VINLINE vf v_exp(vf x) {
  vf c = vf_min(V(89.0f), vf_max(V(-105.0f), x)); /* NaN passes through */
  vf n = vf_round(c * V(0x1.715476p+0f));
  vf r = vf_fma(n, V(-0x1.62e4p-1f), c);
  r = vf_fma(n, V(-0x1.7f7d1cp-20f), r);
  vf p = V(0x1.6ab76ep-10f);
  p = vf_fma(p, r, V(0x1.126f0cp-7f));
  p = vf_fma(p, r, V(0x1.5558a4p-5f));
  p = vf_fma(p, r, V(0x1.555406p-3f));
  p = vf_fma(p, r, V(0x1.fffffap-2f));
  p = vf_fma(p, r, V(1.0f));
  p = vf_fma(p, r, V(1.0f));
#if defined(CML_HAVE_SCALEF)
  return vf_scalef(p, n);
#else
  return v_scale(p, vf_int(n));
#endif
}

/* ln x: x = 2^e m with m in [sqrt 1/2, sqrt 2), f = m - 1, ln(1 + f) = f - f^2/2 + f^3 P(f). */
VINLINE vf v_log(vf x) {
  vi tiny = x < V(0x1p-126f);
  vf y = vf_select(tiny, x * V(0x1p23f), x);
  vi bits = (vi)((vu)vf_bits(y) - 0x3f3504f3u); /* sqrt 1/2 */
  vi e = (bits >> 23) - (tiny & 23);
  vf f = vi_float((bits & 0x7fffff) + 0x3f3504f3) - 1.0f, n = vf_from_int(e);
  vf p = V(-0x1.41edaap-4f);
  p = vf_fma(p, f, V(0x1.07d0c6p-3f));
  p = vf_fma(p, f, V(-0x1.0ce078p-3f));
  p = vf_fma(p, f, V(0x1.226e50p-3f));
  p = vf_fma(p, f, V(-0x1.54788cp-3f));
  p = vf_fma(p, f, V(0x1.99a596p-3f));
  p = vf_fma(p, f, V(-0x1.000220p-2f));
  p = vf_fma(p, f, V(0x1.55554ap-2f));
  vf f2 = f * f, r = p * f * f2;
  r = vf_fma(n, V(0x1.7f7d1cp-20f), r);
  r = vf_fma(V(-0.5f), f2, r);
  r = vf_fma(n, V(0x1.62e4p-1f), f + r);
  r = vf_select(x == V(__builtin_inff()), x, r);
  r = vf_select(x == V(0.0f), V(-__builtin_inff()), r);
  return vf_select((x < V(0.0f)) | (x != x), V(__builtin_nanf("")), r);
}

VINLINE vf v_sigmoid(vf x) { return 1.0f / (1.0f + v_exp(-x)); }

/* 1 - 2 / (e^2|x| + 1), with a polynomial near zero where that would cancel. */
VINLINE vf v_tanh(vf x) {
  vf a = vf_abs(x), t = x * x;
  vf p = V(-0x1.730b6cp-8f);
  p = vf_fma(p, t, V(0x1.5191acp-6f));
  p = vf_fma(p, t, V(-0x1.b8280cp-5f));
  p = vf_fma(p, t, V(0x1.1106a4p-3f));
  p = vf_fma(p, t, V(-0x1.555532p-2f));
  vf small = vf_fma(p * t, x, x);
  vf large = 1.0f - 2.0f / (v_exp(vf_min(V(20.0f), a) * 2.0f) + 1.0f);
  return vf_select(a < V(0.625f), small, vf_copysign(vf_select(x != x, x, large), x));
}

/* erfc(a) for 0.9 <= a, from a polynomial for its logarithm; constant past 6.5. */
VINLINE vf v_erfc_large(vf a) {
  a = vf_min(V(6.5f), a);
  vf p = V(0x1.593bdep-24f);
  p = vf_fma(p, a, V(-0x1.b77314p-19f));
  p = vf_fma(p, a, V(0x1.f89f1ep-15f));
  p = vf_fma(p, a, V(-0x1.5bedacp-11f));
  p = vf_fma(p, a, V(0x1.446184p-8f));
  p = vf_fma(p, a, V(-0x1.b651cep-6f));
  p = vf_fma(p, a, V(0x1.c44f6cp-4f));
  p = vf_fma(p, a, V(0x1.43647cp-1f));
  p = vf_fma(p, a, V(0x1.215a38p+0f));
  p = vf_fma(p, a, V(-0x1.505be0p-12f));
  return v_exp(-p);
}

VINLINE vf v_erf_small(vf x) {
  vf t = x * x, p = V(0x1.589472p-14f);
  p = vf_fma(p, t, V(-0x1.a8fc78p-11f));
  p = vf_fma(p, t, V(0x1.54a494p-8f));
  p = vf_fma(p, t, V(-0x1.b80b0ep-6f));
  p = vf_fma(p, t, V(0x1.ce2de2p-4f));
  p = vf_fma(p, t, V(-0x1.812742p-2f));
  p = vf_fma(p, t, V(0x1.20dd76p+0f));
  return p * x;
}

VINLINE vf v_erf(vf x) {
  vf a = vf_abs(x), large = vf_copysign(1.0f - v_erfc_large(a), x);
  return vf_select(a < V(0.92f), v_erf_small(x), vf_select(x != x, x, large));
}

/* 2^x for -160 < x < 127. */
VINLINE vf v_exp2(vf x) {
  vf n = vf_round(x), r = x - n, p = V(0x1.5c08e6p-10f);
  p = vf_fma(p, r, V(0x1.3d0c52p-7f));
  p = vf_fma(p, r, V(0x1.c6b6e4p-5f));
  p = vf_fma(p, r, V(0x1.ebf918p-3f));
  p = vf_fma(p, r, V(0x1.62e428p-1f));
  p = vf_fma(p, r, V(0x1.000002p+0f));
#if defined(CML_HAVE_SCALEF)
  return vf_scalef(p, n);
#else
  return v_scale(p, vf_int(n));
#endif
}

/* max(x, 0) - |x|/2 erfc(|x| / sqrt 2), for both signs without cancellation. -log2 of erfc is smooth: one polynomial, fitted where
 * the product is not negligible; past 10 it is far below the smallest result that counts. */
VINLINE vf v_gelu(vf x) {
  vf a = vf_min(V(10.0f), vf_abs(x)), p = V(0x1.0f9c82p-20f);
  p = vf_fma(p, a, V(-0x1.1f7742p-16f));
  p = vf_fma(p, a, V(0x1.471296p-14f));
  p = vf_fma(p, a, V(0x1.aa1f02p-12f));
  p = vf_fma(p, a, V(-0x1.e6ed3cp-8f));
  p = vf_fma(p, a, V(0x1.b03e58p-5f));
  p = vf_fma(p, a, V(0x1.d621b0p-2f));
  p = vf_fma(p, a, V(0x1.26afa4p+0f));
  return vf_fma(a * -0.5f, v_exp2(p * -a), vf_max(vf_zero(), x));
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
VINLINE vf v_gelu_tanh(vf x) {
  vf u2 = x * vf_fma(x * x, V(2 * 0.7978845608f * 0.044715f), V(2 * 0.7978845608f));
  vf y = x / (1.0f + v_exp(-u2));
  return vf_select(x < V(-16.0f), V(-0.0f), y);
}

VINLINE vf v_silu(vf x) {
  vf c = vf_max(V(-100.0f), x); /* there e^-x is infinite and the result -0 */
  return c / (1.0f + v_exp(-c));
}

/* max(x, 0) + log(1 + e), e = e^-|x|; what 1 + e loses to rounding is put back to first order. */
VINLINE vf v_softplus(vf x) {
  vf e = v_exp(-vf_abs(x)), s = 1.0f + e;
  vf l = v_log(s) + (e - (s - 1.0f)) / s;
  return vf_select(x != x, x, vf_max(x, V(0.0f)) + l);
}

#endif
