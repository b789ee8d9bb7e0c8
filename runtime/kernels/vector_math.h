/* Vector versions of C's functions. Each reduces its argument to a short interval and evaluates a polynomial there; the
 * coefficients are minimax fits of our own (Remez exchange at 40 digits, error in relative terms). kernels.h states the
 * bounds. */
#ifndef CML_VECTOR_MATH_H
#define CML_VECTOR_MATH_H

#include <math.h>

#include "simd.h"

#define V(x) vf_set1(x)
#define VD(x) vd_set1(x)

VINLINE bool v_any(vi mask) { return vf_hmax(vf_select(mask, V(1.0f), V(0.0f))) != 0.0f; }

/* 2^n for n in -252 .. 254, in two factors so that results below 2^-126 and just under 2^128 come out. */
VINLINE vf v_scale(vf x, vi n) {
  vi half = n >> 1;
  return x * vi_float((half + 127) << 23) * vi_float((n - half + 127) << 23);
}

/* The same for n in -126 .. 127. */
VINLINE vf v_power_of_2(vf n) {
#if defined(CML_HAVE_SCALEF)
  return vf_scalef(V(1.0f), n);
#else
  return vi_float((vf_int(n) + 127) << 23);
#endif
}

VINLINE vf v_scale_by(vf p, vf n) {
#if defined(CML_HAVE_SCALEF)
  return vf_scalef(p, n);
#else
  return v_scale(p, vf_int(n));
#endif
}

/* The same where the result lies in 2^-126 .. 2^128: n is added to the exponent. */
VINLINE vf v_scale_normal(vf p, vf n) {
#if defined(CML_HAVE_SCALEF)
  return vf_scalef(p, n);
#else
  return vi_float(vf_bits(p) + (vf_int(n) << 23));
#endif
}

/* e^x = 2^n e^r, |r| <= ln 2 / 2; ln 2 in two parts so that n ln 2 is exact enough. Returns e^r times a power of 2. */
VINLINE vf v_exp_reduced(vf x, vf *n, const float times) {
  *n = vf_round(x * V(0x1.715476p+0f));
  vf r = vf_fma(*n, V(-0x1.62e4p-1f), x);
  r = vf_fma(*n, V(-0x1.7f7d1cp-20f), r);
  vf p = V(0x1.6ab76ep-10f * times);
  p = vf_fma(p, r, V(0x1.126f0cp-7f * times));
  p = vf_fma(p, r, V(0x1.5558a4p-5f * times));
  p = vf_fma(p, r, V(0x1.555406p-3f * times));
  p = vf_fma(p, r, V(0x1.fffffap-2f * times));
  p = vf_fma(p, r, V(times));
  return vf_fma(p, r, V(times));
}

/* e^x 2^shift for -105 <= x <= 110. */
VINLINE vf v_exp_inside(vf x, float shift) {
  vf n, p = v_exp_reduced(x, &n, 1);
  return v_scale_by(p, shift != 0 ? n + shift : n); /* n + 0 would be computed, for the sake of -0 */
}

/* e^x for x <= 0, of which a softmax is made: below e^-87, which is 2^-125.5, it is 0. That an instruction finds that a result underflows takes
 * an Intel CPU 150 cycles, and masked scores all do. */
VINLINE vf v_exp_falling(vf x) {
  vf n, p = v_exp_reduced(x, &n, 1);
#if defined(CML_HAVE_SCALEF)
  return (vf)_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask((__m512)x, (__m512)V(-87.0f), _CMP_NLT_UQ), (__m512)p, (__m512)n);
#else
  return vi_float(vf_bits(v_scale_normal(p, n)) & ~(x < V(-87.0f))); /* NaN stays */
#endif
}

/* 1 + e^x for x <= 89, infinite where e^x is. */
VINLINE vf v_one_and_exp(vf x) {
#if defined(CML_HAVE_SCALEF)
  return 1.0f + v_exp_inside(vf_max(V(-86.0f), x), 0.0f);
#else
  vf n, half = v_exp_reduced(vf_max(V(-86.0f), x), &n, 0.5f); /* of e^x: a normal number also where n is 128 */
  return vf_fma(v_scale_normal(half, n), V(2.0f), V(1.0f));
#endif
}

VINLINE vf v_exp_shifted(vf x, float low, float high, float shift) {
  return v_exp_inside(vf_min(V(high), vf_max(V(low), x)), shift); /* NaN passes through */
}

VINLINE vf v_exp(vf x) { return v_exp_shifted(x, -105.0f, 89.0f, 0.0f); }

/* 2^x = 2^n 2^f, |f| <= 1/2. Returns 2^f. */
VINLINE vf v_exp2_reduced(vf x, vf *n) {
  *n = vf_round(x);
  vf f = x - *n, p = V(0x1.67b514p-13f);
  p = vf_fma(p, f, V(0x1.5fe47ep-10f));
  p = vf_fma(p, f, V(0x1.3af9c6p-7f));
  p = vf_fma(p, f, V(0x1.c6ad62p-5f));
  p = vf_fma(p, f, V(0x1.ebfc1ap-3f));
  p = vf_fma(p, f, V(0x1.62e432p-1f));
  return vf_fma(p, f, V(1.0f));
}

VINLINE vf v_exp2(vf x) {
  vf n, p = v_exp2_reduced(vf_min(V(129.0f), vf_max(V(-151.0f), x)), &n);
  return v_scale_by(p, n);
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

/* ---- angles ----
 *
 * x - n pi/2 in double, pi/2 in two parts of which the first times n is exact: good for the whole of float16 and beyond. What is
 * larger than the limit goes through C's function, lane by lane. */
#define V_ANGLE_LIMIT 1e6f

VINLINE void v_quarter(vf x, vf *r, vi *quarter) {
  vf c = vf_min(V(V_ANGLE_LIMIT), vf_max(V(-V_ANGLE_LIMIT), x)), n = vf_round(c * V(0x1.45f306p-1f));
  vd d = vf_double(n);
  *r = vd_float((vf_double(c) - d * VD(0x1.921fb544p+0)) - d * VD(0x1.0b4611a626331p-34));
  *quarter = vf_int(n);
}

VINLINE void v_sin_cos(vf r, vf *s, vf *c) {
  vf z = r * r, p = V(-0x1.9952fap-13f), q = V(0x1.99e80cp-16f);
  p = vf_fma(p, z, V(0x1.110776p-7f));
  p = vf_fma(p, z, V(-0x1.555546p-3f));
  q = vf_fma(q, z, V(-0x1.6c0c28p-10f));
  q = vf_fma(q, z, V(0x1.55554ap-5f));
  *s = vf_fma(r * z, p, r);
  *c = vf_fma(z * z, q, vf_fma(V(-0.5f), z, V(1.0f)));
}

VINLINE vf v_large_angles(vf y, vf x, float (*f)(float)) {
  if (v_any(vf_abs(x) > V(V_ANGLE_LIMIT)))
    for (int i = 0; i < W; i++)
      if (fabsf(x[i]) > V_ANGLE_LIMIT) y[i] = f(x[i]);
  return y;
}

VINLINE vf v_flip(vf x, vi sign) { return (vf)((vi)x ^ (sign << 31)); } /* lowest bit: negate */

VINLINE vf v_sin(vf x) {
  vf r, s, c;
  vi q;
  v_quarter(vf_abs(x), &r, &q);
  v_sin_cos(r, &s, &c);
  vf y = v_flip(vf_select((q & 1) != 0, c, s), q >> 1);
  return v_large_angles((vf)((vi)y ^ ((vi)x & INT32_MIN)), x, sinf);
}

VINLINE vf v_cos(vf x) {
  vf r, s, c;
  vi q;
  v_quarter(x, &r, &q);
  v_sin_cos(r, &s, &c);
  return v_large_angles(v_flip(vf_select((q & 1) != 0, s, c), (q + 1) >> 1), x, cosf);
}

VINLINE vf v_tan(vf x) {
  vf r, s, c;
  vi q;
  v_quarter(vf_abs(x), &r, &q);
  v_sin_cos(r, &s, &c);
  vi odd = (q & 1) != 0;
  vf y = vf_select(odd, -c, s) / vf_select(odd, s, c);
  return v_large_angles((vf)((vi)y ^ ((vi)x & INT32_MIN)), x, tanf);
}

/* asin a = t + t^3 P(t^2) for a <= 1/2 (t = a), else pi/2 - 2 asin t, t = sqrt((1 - a) / 2); acos likewise. */
VINLINE vf v_asin_part(vf a, vi *large) {
  *large = a > V(0.5f);
  vf z = vf_select(*large, (1.0f - a) * 0.5f, a * a), t = vf_select(*large, vf_sqrt(z), a);
  vf p = V(0x1.34c5a8p-5f);
  p = vf_fma(p, z, V(0x1.d522dep-7f));
  p = vf_fma(p, z, V(0x1.04d2e6p-5f));
  p = vf_fma(p, z, V(0x1.6ca754p-5f));
  p = vf_fma(p, z, V(0x1.3338acp-4f));
  p = vf_fma(p, z, V(0x1.55554cp-3f));
  return vf_fma(t * z, p, t);
}

#define V_HALF_PI V(0x1.921fb6p+0f)
#define V_HALF_PI_LOW V(-0x1.777a5cp-25f) /* pi/2 less the above */

VINLINE vf v_asin(vf x) {
  vi large;
  vf p = v_asin_part(vf_abs(x), &large);
  return vf_copysign(vf_select(large, (V_HALF_PI - 2.0f * p) + V_HALF_PI_LOW, p), x);
}

VINLINE vf v_acos(vf x) {
  vi large;
  vf p = v_asin_part(vf_abs(x), &large);
  vf outer = vf_select(x < V(0.0f), 2.0f * (V_HALF_PI - p) + 2.0f * V_HALF_PI_LOW, 2.0f * p);
  return vf_select(large, outer, (V_HALF_PI - vf_copysign(p, x)) + V_HALF_PI_LOW);
}

/* atan a = atan t + 0, pi/4 or pi/2, with t = a, (a - 1) / (a + 1) or -1 / a, so that |t| <= tan pi/8. */
VINLINE vf v_atan(vf x) {
  vf a = vf_abs(x);
  vi large = a > V(0x1.3504f4p+1f), middle = ~large & (a > V(0x1.a8279ap-2f));
  vf t = vf_select(large, V(-1.0f), vf_select(middle, a - 1.0f, a)) / vf_select(large, a, vf_select(middle, a + 1.0f, V(1.0f)));
  vf z = t * t, p = V(-0x1.f2e5a8p-5f);
  p = vf_fma(p, z, V(0x1.b22456p-4f));
  p = vf_fma(p, z, V(-0x1.23b9a2p-3f));
  p = vf_fma(p, z, V(0x1.9991e2p-3f));
  p = vf_fma(p, z, V(-0x1.55554ap-2f));
  vf base = vf_select(large, V_HALF_PI, vf_select(middle, 0.5f * V_HALF_PI, V(0.0f)));
  vf low = vf_select(large, V_HALF_PI_LOW, vf_select(middle, 0.5f * V_HALF_PI_LOW, V(0.0f)));
  return vf_copysign(base + (vf_fma(t * z, p, t) + low), x);
}

/* ---- hyperbolic functions: e^|x| / 2 and what it is the reciprocal of, four times over ---- */

VINLINE vf v_half_exp(vf a) { return v_exp_shifted(a, 0.0f, 90.0f, -1.0f); }

VINLINE vf v_sinh(vf x) {
  vf a = vf_abs(x), z = x * x, p = V(0x1.756c1ep-19f), e = v_half_exp(a);
  p = vf_fma(p, z, V(0x1.a022bcp-13f));
  p = vf_fma(p, z, V(0x1.1110e0p-7f));
  p = vf_fma(p, z, V(0x1.555556p-3f));
  return vf_select(a < V(1.0f), vf_fma(x * z, p, x), vf_copysign(e - 0.25f / e, x));
}

VINLINE vf v_cosh(vf x) {
  vf e = v_half_exp(vf_abs(x));
  return e + 0.25f / e;
}

/* log((1 + a) / (1 - a)) / 2, with a polynomial where that would cancel. */
VINLINE vf v_atanh(vf x) {
  vf a = vf_abs(x), z = x * x, p = V(0x1.6947dep-3f);
  p = vf_fma(p, z, V(0x1.a6975ep-5f));
  p = vf_fma(p, z, V(0x1.e4045ep-4f));
  p = vf_fma(p, z, V(0x1.234d60p-3f));
  p = vf_fma(p, z, V(0x1.99a678p-3f));
  p = vf_fma(p, z, V(0x1.555540p-2f));
  vf large = 0.5f * v_log((1.0f + a) / (1.0f - a));
  return vf_select(a < V(0.5f), vf_fma(x * z, p, x), vf_copysign(large, x));
}

/* ---- powers ----
 *
 * |x|^y = 2^(y log2 |x|) in double, so that y does not multiply the logarithm's error: with x = 2^e m, log2 m = 2 artanh(t) / ln 2,
 * t = (m - 1) / (m + 1). Signs and zeros by hand; lanes with infinities or NaN go through C's powf. */
VINLINE vf v_pow(vf x, vf y) {
  vf a = vf_abs(x), big = V(0x1.fffffep127f);
  vi wild = ~((a <= big) & (vf_abs(y) <= big)), tiny = a < V(0x1p-126f);
  vi bits = (vi)((vu)vf_bits(vf_select(tiny, a * V(0x1p23f), a)) - 0x3f3504f3u);
  vd e = vf_double(vf_from_int((bits >> 23) - (tiny & 23))), m = vf_double(vi_float((bits & 0x7fffff) + 0x3f3504f3));
  vd t = (m - 1.0) / (m + 1.0), z = t * t;
  vd p = VD(0x1.c68f568d31760p-3); /* 2 / (13 ln 2), 2 / (11 ln 2), … */
  p = p * z + VD(0x1.0c9a84994022dp-2);
  p = p * z + VD(0x1.484b13d7c02a9p-2);
  p = p * z + VD(0x1.a61762a7aded9p-2);
  p = p * z + VD(0x1.2776c50ef9bfep-1);
  p = p * z + VD(0x1.ec709dc3a03fdp-1);
  p = p * z + VD(0x1.71547652b82fep+1);
  vd w = vf_double(y) * (e + p * t), low = VD(-160.0), high = VD(140.0);
  w = vd_select(w < low, low, vd_select(w > high, high, w));
  vd n = (w + VD(0x1.8p52)) - VD(0x1.8p52), f = w - n;
  vd q = VD(0x1.62c0223a5c824p-20); /* ln 2^k / k!, k = 8 … */
  q = q * f + VD(0x1.ffcbfc588b0c7p-17);
  q = q * f + VD(0x1.430912f86c787p-13);
  q = q * f + VD(0x1.5d87fe78a6731p-10);
  q = q * f + VD(0x1.3b2ab6fba4e77p-7);
  q = q * f + VD(0x1.c6b08d704a0c0p-5);
  q = q * f + VD(0x1.ebfbdff82c58fp-3);
  q = q * f + VD(0x1.62e42fefa39efp-1);
  vf r = v_scale_by(vd_float(q * f + 1.0), vd_float(n));
  vf half = y * 0.5f;
  vi whole = vf_trunc(y) == y, odd = whole & (vf_trunc(half) != half), negative = vf_bits(x) < 0, zero = a == V(0.0f);
  vf of_zero = vf_select(y < V(0.0f), V(__builtin_inff()), vf_select(y > V(0.0f), V(0.0f), V(1.0f)));
  r = vf_select(zero, of_zero, r);
  r = vf_select(negative & ~zero & ~whole, V(__builtin_nanf("")), r);
  r = vf_select(negative & odd, -r, r);
  if (v_any(wild))
    for (int i = 0; i < W; i++)
      if (wild[i]) r[i] = powf(x[i], y[i]);
  return r;
}

VINLINE vf v_sigmoid(vf x) { return 1.0f / v_one_and_exp(vf_min(V(89.0f), -x)); }

/* -E / (2 + E) with E = e^-2|x| - 1 = 2^n (e^r - 1) + (2^n - 1), which loses nothing near zero. The sum's second part is 0 or
 * larger, so ln 2 in one part is exact enough. */
VINLINE vf v_tanh(vf x) {
  vf a = vf_min(V(10.0f), vf_abs(x)), n = vf_round(a * V(-0x1.715476p+1f));
  vf r = vf_fma(n, V(-0x1.62e430p-1f), a * V(-2.0f));
  vf p = V(0x1.6bebcep-10f);
  p = vf_fma(p, r, V(0x1.1228e6p-7f));
  p = vf_fma(p, r, V(0x1.555676p-5f));
  p = vf_fma(p, r, V(0x1.5554aep-3f));
  p = vf_fma(p, r, V(0x1.fffffep-2f));
  p = vf_fma(r * r, p, r);
  vf s = v_power_of_2(n), e = vf_fma(p, s, s - 1.0f);
  return vf_copysign(e / (e + 2.0f), x);
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

/* max(x, 0) - |x|/2 erfc(|x| / sqrt 2), for both signs without cancellation. -log2 of erfc is smooth: one polynomial, fitted where
 * the product is not negligible; past 10, where erfc is 2^-76, it is far below the smallest result that counts. */
VINLINE vf v_gelu(vf x) {
  vf n, a = vf_min(V(10.0f), vf_abs(x)), p = V(0x1.0f9c82p-20f);
  p = vf_fma(p, a, V(-0x1.1f7742p-16f));
  p = vf_fma(p, a, V(0x1.471296p-14f));
  p = vf_fma(p, a, V(0x1.aa1f02p-12f));
  p = vf_fma(p, a, V(-0x1.e6ed3cp-8f));
  p = vf_fma(p, a, V(0x1.b03e58p-5f));
  p = vf_fma(p, a, V(0x1.d621b0p-2f));
  p = vf_fma(p, a, V(0x1.26afa4p+0f));
  p = v_exp2_reduced(p * -a, &n);
  return vf_fma(a * -0.5f, v_scale_normal(p, n), vf_max(vf_zero(), x));
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
VINLINE vf v_gelu_tanh(vf x) {
  vf u2 = x * vf_fma(x * x, V(2 * 0.7978845608f * 0.044715f), V(2 * 0.7978845608f));
  vf y = x / v_one_and_exp(vf_min(V(89.0f), -u2));
  return vf_select(x < V(-16.0f), V(-0.0f), y);
}

VINLINE vf v_silu(vf x) {
  vf c = vf_max(V(-89.0f), x); /* there e^-x is infinite and the result -0 */
  return c / v_one_and_exp(-c);
}

/* max(x, 0) + log(1 + e), e = e^-|x|; what 1 + e loses to rounding is put back to first order. */
VINLINE vf v_softplus(vf x) {
  vf e = v_exp(-vf_abs(x)), s = 1.0f + e;
  vf l = v_log(s) + (e - (s - 1.0f)) / s;
  return vf_select(x != x, x, vf_max(x, V(0.0f)) + l);
}

#endif
