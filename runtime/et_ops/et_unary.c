/* Functions of one tensor. Those with real results take integers as float32; the others keep the type. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "kernels.h"

static cml_status real_unary(cml_et_call *c, const cml_et_maps *maps, const cml_et_scalars *s, size_t out, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  return cml_et_elementwise(c, maps, cml_et_real_type(x->dtype), &x, 1, s, cml_et_arg(c, out), err);
}

static cml_status same_unary(cml_et_call *c, const cml_et_maps *maps, const cml_et_scalars *s, size_t out, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  return cml_et_elementwise(c, maps, x->dtype, &x, 1, s, cml_et_arg(c, out), err);
}

#define KERNEL(name, function)                                                                            \
  static void name(void *out, const void *const *in, size_t n, const cml_et_scalars *s) {                 \
    cml_kernels_get()->unary(CML_UNARY_##function, in[0], out, n, (float)s->d[0], (float)s->d[1]);        \
  }

#define RUN_REAL(name)                                           \
  static cml_status name(cml_et_call *c, cml_error *err) {       \
    static const cml_et_maps maps = {name##_f32, name##_f64, NULL, false}; \
    return real_unary(c, &maps, NULL, 1, err);                   \
  }
#define REAL(name, e32, e64)                 \
  CML_ET_MAP1(name##_f32, float, float, e32) \
  CML_ET_MAP1(name##_f64, double, double, e64) \
  RUN_REAL(name)
#define REAL_KERNEL(name, function, e64)     \
  KERNEL(name##_f32, function)               \
  CML_ET_MAP1(name##_f64, double, double, e64) \
  RUN_REAL(name)

REAL(op_acos, acosf(x), acos(x))
REAL(op_acosh, acoshf(x), acosh(x))
REAL(op_asin, asinf(x), asin(x))
REAL(op_asinh, asinhf(x), asinh(x))
REAL(op_atan, atanf(x), atan(x))
REAL(op_atanh, atanhf(x), atanh(x))
REAL(op_cos, cosf(x), cos(x))
REAL(op_cosh, coshf(x), cosh(x))
REAL(op_expm1, expm1f(x), expm1(x))
REAL(op_log10, log10f(x), log10(x))
REAL(op_log1p, log1pf(x), log1p(x))
REAL(op_log2, log2f(x), log2(x))
REAL(op_rsqrt, 1.0f / sqrtf(x), 1.0 / sqrt(x))
REAL(op_sin, sinf(x), sin(x))
REAL(op_sinh, sinhf(x), sinh(x))
REAL(op_tan, tanf(x), tan(x))
REAL_KERNEL(op_erf, ERF, erf(x))
REAL_KERNEL(op_exp, EXP, exp(x))
REAL_KERNEL(op_log, LOG, log(x))
REAL_KERNEL(op_sigmoid, SIGMOID, 1.0 / (1.0 + exp(-x)))
REAL_KERNEL(op_sqrt, SQRT, sqrt(x))
REAL_KERNEL(op_tanh, TANH, tanh(x))
REAL(op_reciprocal, 1.0f / x, 1.0 / x)

/* ---- the type stays ---- */

CML_ET_MAP1(same_i64, int64_t, int64_t, x)
#define RUN_SAME(name, integer)                                  \
  static cml_status name(cml_et_call *c, cml_error *err) {       \
    static const cml_et_maps maps = {name##_f32, name##_f64, integer, false}; \
    return same_unary(c, &maps, NULL, 1, err);                   \
  }
#define SAME(name, e32, e64, integer)        \
  CML_ET_MAP1(name##_f32, float, float, e32) \
  CML_ET_MAP1(name##_f64, double, double, e64) \
  RUN_SAME(name, integer)

CML_ET_MAP1(abs_i64, int64_t, int64_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
CML_ET_MAP1(neg_i64, int64_t, int64_t, 0 - (uint64_t)x)
CML_ET_MAP1(sign_i64, int64_t, int64_t, (x > 0) - (x < 0))
CML_ET_MAP1(relu_i64, int64_t, int64_t, x > 0 ? x : 0)
SAME(op_abs, fabsf(x), fabs(x), abs_i64)
SAME(neg, -x, -x, neg_i64)
/* The sign of NaN is NaN, as ExecuTorch has it; torch says 0. */
SAME(op_sign, x > 0 ? 1.0f : x < 0 ? -1.0f : x == 0 ? 0.0f : x, x > 0 ? 1.0 : x < 0 ? -1.0 : x == 0 ? 0.0 : x, sign_i64)
SAME(op_ceil, ceilf(x), ceil(x), same_i64)
SAME(op_floor, floorf(x), floor(x), same_i64)
SAME(op_round, rintf(x), rint(x), same_i64)
SAME(op_trunc, truncf(x), trunc(x), same_i64)
SAME(relu, x < 0 ? 0 : x, x < 0 ? 0 : x, relu_i64)

static cml_status no_bool(cml_et_call *c, cml_status (*run)(cml_et_call *, cml_error *), cml_error *err) {
  CML_TRY(cml_et_want(c, cml_et_arg(c, 0), CML_ET_ANY & ~CML_M_BOOL, "the tensor", err));
  return run(c, err);
}
static cml_status op_neg(cml_et_call *c, cml_error *err) { return no_bool(c, neg, err); }
static cml_status op_relu(cml_et_call *c, cml_error *err) { return no_bool(c, relu, err); }

CML_ET_MAP1(not_i64, int64_t, int64_t, ~x)
CML_ET_MAP1(not_bool, int64_t, int64_t, !x)
CML_WIDE_INLINE void not_loop(uint8_t *to, const uint8_t *from, size_t n) {
  CML_INDEPENDENT for (size_t i = 0; i < n; i++) to[i] = (uint8_t)~from[i];
}
CML_WIDE static void not_wide(uint8_t *to, const uint8_t *from, size_t n) { not_loop(to, from, n); }
static void not_bytes(void *context, size_t begin, size_t end) {
  const cml_et_call *c = context;
  uint8_t *to = (uint8_t *)cml_et_arg(c, 1)->data + begin;
  const uint8_t *from = (const uint8_t *)cml_et_arg(c, 0)->data + begin;
  (cml_wide() ? not_wide : not_loop)(to, from, end - begin);
}

static cml_status op_bitwise_not(cml_et_call *c, cml_error *err) {
  static const cml_et_maps integers = {NULL, NULL, not_i64, false}, booleans = {NULL, NULL, not_bool, false};
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 1);
  if (x->dtype == out->dtype && x->dtype != CML_BOOL && CML_ET_INTEGRAL >> x->dtype & 1 && cml_et_same_layout(x, out)) {
    cml_parallel(c->pool, (size_t)cml_et_numel(out) * cml_et_width(out), 1 << 17, not_bytes, c); /* whatever the integers' width */
    return CML_OK;
  }
  return same_unary(c, cml_et_arg(c, 0)->dtype == CML_BOOL ? &booleans : &integers, NULL, 1, err);
}

/* ---- predicates ---- */

#define PREDICATE(name, real, integer)               \
  CML_ET_MAP1(name##_f32, uint8_t, float, real)      \
  CML_ET_MAP1(name##_f64, uint8_t, double, real)     \
  CML_ET_MAP1(name##_i64, uint8_t, int64_t, integer) \
  static cml_status name(cml_et_call *c, cml_error *err) { \
    static const cml_et_maps maps = {name##_f32, name##_f64, name##_i64, true}; \
    return same_unary(c, &maps, NULL, 1, err);       \
  }
PREDICATE(op_isinf, isinf(x) != 0, 0 & x)
PREDICATE(op_isnan, x != x, 0 & x)
PREDICATE(op_logical_not, x == 0, x == 0)

/* ---- with parameters ---- */

KERNEL(gelu_finite, GELU)
KERNEL(gelu_tanh_finite, GELU_TANH)
CML_ET_MAP1(gelu_plain, float, float, 0.5f * x * (1.0f + erff(x * (float)M_SQRT1_2)))
/* torch computes minus infinity times 0 by both formulas: NaN. The kernels say 0. */
static bool has_minus_infinity(const float *x, size_t n) {
  bool any = false;
  for (size_t i = 0; i < n; i++) any |= x[i] == -INFINITY;
  return any;
}
static void gelu_f32(void *out, const void *const *in, size_t n, const cml_et_scalars *s) {
  (has_minus_infinity(in[0], n) ? gelu_plain : gelu_finite)(out, in, n, s);
}
CML_ET_MAP1(gelu_f64, double, double, 0.5 * x * (1.0 + erf(x * M_SQRT1_2)))
CML_ET_MAP1(gelu_tanh_f64, double, double, 0.5 * x * (1.0 + tanh(M_SQRT2 * M_2_SQRTPI * 0.5 * (x + 0.044715 * x * x * x))))
CML_ET_MAP1(gelu_tanh_plain, float, float, 0.5f * x * (1.0f + tanhf((float)(M_SQRT2 * M_2_SQRTPI * 0.5) * (x + 0.044715f * x * x * x))))
static void gelu_tanh_f32(void *out, const void *const *in, size_t n, const cml_et_scalars *s) {
  (has_minus_infinity(in[0], n) ? gelu_tanh_plain : gelu_tanh_finite)(out, in, n, s);
}
static cml_status op_gelu(cml_et_call *c, cml_error *err) {
  static const cml_et_maps exact = {gelu_f32, gelu_f64, NULL, false}, approximate = {gelu_tanh_f32, gelu_tanh_f64, NULL, false};
  const cml_string mode = cml_et_string(c, 1);
  bool by_tanh = mode.size == 4 && !memcmp(mode.data, "tanh", 4);
  if (!by_tanh && !(mode.size == 4 && !memcmp(mode.data, "none", 4)))
    return cml_et_fail(c, err, "approximate is '%.*s', neither 'none' nor 'tanh'", (int)(mode.size < 40 ? mode.size : 40), (const char *)mode.data);
  return same_unary(c, by_tanh ? &approximate : &exact, NULL, 2, err);
}

CML_ET_MAP1(elu_f32, float, float, x < 0 ? expm1f(x * (float)s->d[2]) * (float)s->d[0] : x * (float)s->d[1])
CML_ET_MAP1(elu_f64, double, double, x < 0 ? expm1(x * s->d[2]) * s->d[0] : x * s->d[1])
static cml_status op_elu(cml_et_call *c, cml_error *err) {
  static const cml_et_maps maps = {elu_f32, elu_f64, NULL, false};
  double scale = cml_et_real(c, 2, 1);
  return same_unary(c, &maps, &(cml_et_scalars){.d = {cml_et_real(c, 1, 1) * scale, scale, cml_et_real(c, 3, 1)}}, 4, err);
}

KERNEL(leaky_f32, LEAKY_RELU)
CML_ET_MAP1(leaky_f64, double, double, x > 0 ? x : x * s->d[0])
static cml_status op_leaky_relu(cml_et_call *c, cml_error *err) {
  static const cml_et_maps maps = {leaky_f32, leaky_f64, NULL, false};
  return same_unary(c, &maps, &(cml_et_scalars){.d = {cml_et_real(c, 1, 0.01)}}, 2, err);
}

CML_ET_MAP1(logit_f32, float, float, logf(x / (1.0f - x)))
CML_ET_MAP1(logit_f64, double, double, log(x / (1.0 - x)))
static inline double within(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
CML_ET_MAP1(logit_eps_f32, float, float, log(within(x, s->d[0], s->d[1]) / (1.0 - within(x, s->d[0], s->d[1]))))
CML_ET_MAP1(logit_eps_f64, double, double, log(within(x, s->d[0], s->d[1]) / (1.0 - within(x, s->d[0], s->d[1]))))
/* v as an element of t's type holds it. */
static double rounded(double v, cml_dtype t) {
  float f = (float)v;
  return t == CML_F64 ? v : t == CML_F16 ? cml_f16_to_f32(cml_f16_from_f32(f)) : t == CML_BF16 ? cml_bf16_to_f32(cml_bf16_from_f32(f)) : f;
}
static cml_status op_logit(cml_et_call *c, cml_error *err) {
  static const cml_et_maps plain = {logit_f32, logit_f64, NULL, false}, bounded = {logit_eps_f32, logit_eps_f64, NULL, false};
  cml_dtype t = cml_et_real_type(cml_et_arg(c, 0)->dtype);
  double low = rounded(cml_et_real(c, 1, 0), t), high = rounded(1 - low, t); /* the bounds are of the tensor's type */
  return real_unary(c, cml_et_none(c, 1) ? &plain : &bounded, &(cml_et_scalars){.d = {low, high}}, 2, err);
}

static const cml_et_op rows[] = {
    {"aten::abs.out", "to", op_abs},
    {"aten::acos.out", "to", op_acos},
    {"aten::acosh.out", "to", op_acosh},
    {"aten::asin.out", "to", op_asin},
    {"aten::asinh.out", "to", op_asinh},
    {"aten::atan.out", "to", op_atan},
    {"aten::atanh.out", "to", op_atanh},
    {"aten::bitwise_not.out", "to", op_bitwise_not},
    {"aten::ceil.out", "to", op_ceil},
    {"aten::cos.out", "to", op_cos},
    {"aten::cosh.out", "to", op_cosh},
    {"aten::elu.out", "tnnno", op_elu},
    {"aten::erf.out", "to", op_erf},
    {"aten::exp.out", "to", op_exp},
    {"aten::expm1.out", "to", op_expm1},
    {"aten::floor.out", "to", op_floor},
    {"aten::gelu.out", "tso", op_gelu},
    {"aten::isinf.out", "to", op_isinf},
    {"aten::isnan.out", "to", op_isnan},
    {"aten::leaky_relu.out", "tno", op_leaky_relu},
    {"aten::log.out", "to", op_log},
    {"aten::log10.out", "to", op_log10},
    {"aten::log1p.out", "to", op_log1p},
    {"aten::log2.out", "to", op_log2},
    {"aten::logical_not.out", "to", op_logical_not},
    {"aten::logit.out", "td?o", op_logit},
    {"aten::neg.out", "to", op_neg},
    {"aten::reciprocal.out", "to", op_reciprocal},
    {"aten::relu.out", "to", op_relu},
    {"aten::round.out", "to", op_round},
    {"aten::rsqrt.out", "to", op_rsqrt},
    {"aten::sigmoid.out", "to", op_sigmoid},
    {"aten::sign.out", "to", op_sign},
    {"aten::sin.out", "to", op_sin},
    {"aten::sinh.out", "to", op_sinh},
    {"aten::sqrt.out", "to", op_sqrt},
    {"aten::tan.out", "to", op_tan},
    {"aten::tanh.out", "to", op_tanh},
    {"aten::trunc.out", "to", op_trunc},
};
CML_ET_FAMILY(unary)
