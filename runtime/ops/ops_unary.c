/* Elementwise operators of one tensor: mathematical functions, clip, threshold, logical_not, cast.
 *
 * UNARY_MAP lists them: name, tag of its maps, opsets, the group of parameters, the default of its scalar.
 * Scalars (epsilon, alpha, beta) reach the map in s->f, and in s->i for integers. */
#include "families.h"

#include <math.h>

#include "elementwise.h"
#include "f16.h"

#define NO_UNTIL 0

/* name, tag, since, until, parameters, default of the first scalar */
#define UNARY_MAP(X)                                                     \
  X(abs, abs, CML_IOS15, NO_UNTIL, number, 0)                            \
  X(acos, acos, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(asin, asin, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(atan, atan, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(atanh, atanh, CML_IOS15, NO_UNTIL, plain, 0)                         \
  X(ceil, ceil, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(clip, clip, CML_IOS15, NO_UNTIL, alpha_beta, 0)                      \
  X(cos, cos, CML_IOS15, NO_UNTIL, plain, 0)                             \
  X(cosh, cosh, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(erf, erf, CML_IOS15, NO_UNTIL, plain, 0)                             \
  X(exp, exp, CML_IOS15, NO_UNTIL, plain, 0)                             \
  X(exp2, exp2, CML_IOS15, NO_UNTIL, number, 0)                          \
  X(floor, floor, CML_IOS15, NO_UNTIL, plain, 0)                         \
  X(inverse, inverse, CML_IOS15, CML_IOS16, epsilon, 1e-4)               \
  X(inverse, inverse, CML_IOS17, NO_UNTIL, epsilon_any, 1e-4)            \
  X(log, log, CML_IOS15, CML_IOS16, epsilon, 1e-45)                      \
  X(log, log, CML_IOS17, NO_UNTIL, epsilon_any, 1e-45)                   \
  X(logical_not, logical_not, CML_IOS15, NO_UNTIL, truth, 0)             \
  X(round, round, CML_IOS15, NO_UNTIL, plain, 0)                         \
  X(rsqrt, rsqrt, CML_IOS15, CML_IOS16, epsilon, 1e-12)                  \
  X(rsqrt, rsqrt, CML_IOS17, NO_UNTIL, epsilon_any, 1e-12)               \
  X(sign, sign, CML_IOS15, NO_UNTIL, number, 0)                          \
  X(sin, sin, CML_IOS15, NO_UNTIL, plain, 0)                             \
  X(sinh, sinh, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(sqrt, sqrt, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(square, square, CML_IOS15, NO_UNTIL, number, 0)                      \
  X(tan, tan, CML_IOS15, NO_UNTIL, plain, 0)                             \
  X(tanh, tanh, CML_IOS15, NO_UNTIL, plain, 0)                           \
  X(threshold, threshold, CML_IOS15, NO_UNTIL, alpha, 0)

/* ---- the functions ---- */

#define FLOAT1(tag, expression) CML_FLOAT1(tag##_f32, expression)
#define KERNEL1(tag, name) CML_KERNEL1(tag##_f32, name, 0, 0)
#define INTEGER1(tag, expression) CML_MAP1(tag##_i32, int32_t, int32_t, expression)

KERNEL1(abs, ABS)
KERNEL1(acos, ACOS)
KERNEL1(asin, ASIN)
KERNEL1(atan, ATAN)
KERNEL1(atanh, ATANH)
KERNEL1(ceil, CEIL)
KERNEL1(cos, COS)
KERNEL1(cosh, COSH)
KERNEL1(erf, ERF)
KERNEL1(exp, EXP)
KERNEL1(exp2, EXP2)
KERNEL1(floor, FLOOR)
KERNEL1(round, ROUND) /* halves to even */
FLOAT1(sign, x > 0 ? 1.0f : x < 0 ? -1.0f : x)
KERNEL1(sin, SIN)
KERNEL1(sinh, SINH)
KERNEL1(sqrt, SQRT)
KERNEL1(square, SQUARE)
KERNEL1(tan, TAN)
KERNEL1(tanh, TANH)
CML_KERNEL1(threshold_f32, CLIP, s->f[0], INFINITY) /* NaN comes through, as NumPy's minimum and maximum let it */
CML_KERNEL1(clip_f32, CLIP, s->f[0], s->f[1])

/* A kernel's function of x + epsilon. */
#define OF_SUM(function, name)                                                                    \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {        \
    const cml_kernels *k = cml_kernels_get();                                                     \
    k->binary_scalar(CML_BINARY_ADD, in[0], s->f[0], false, out, n);                              \
    k->unary(CML_UNARY_##name, out, out, n, 0, 0);                                                \
  }
OF_SUM(log_f32, LOG)
OF_SUM(inverse_f32, RECIPROCAL)
OF_SUM(root_f32, SQRT)
static void rsqrt_f32(void *out, const void *const *in, size_t n, const cml_scalars *s) {
  root_f32(out, in, n, s);
  cml_kernels_get()->unary(CML_UNARY_RECIPROCAL, out, out, n, 0, 0);
}
CML_HALF(log_f32, 1, true)
CML_HALF(inverse_f32, 1, true)
CML_HALF(rsqrt_f32, 1, true)

INTEGER1(abs, x < 0 ? (int32_t)(0 - (uint32_t)x) : x)
INTEGER1(exp2, x < 0 || x > 31 ? 0 : (int32_t)(UINT32_C(1) << x))
INTEGER1(sign, (x > 0) - (x < 0))
INTEGER1(square, (int32_t)((uint32_t)x * (uint32_t)x))
INTEGER1(threshold, x < s->i[0] ? s->i[0] : x)

CML_MAP1(logical_not_byte, uint8_t, uint8_t, !x)

/* ---- parameters ---- */

static const cml_param plain_params[] = {{"x", CML_M_FLOAT, 0, 0}};
static const cml_param number_params[] = {{"x", CML_M_FLOAT | CML_MASK(I32), 0, 0}};
static const cml_param truth_params[] = {{"x", CML_M_BOOL, 0, 0}};
static const cml_param epsilon_params[] = {{"x", CML_M_FLOAT, 0, 1}, {"epsilon", CML_M_FLOAT, CML_OPTIONAL | CML_CONST, 1}};
static const cml_param epsilon_any_params[] = {{"x", CML_M_FLOAT, 0, 0}, {"epsilon", CML_M_FLOAT, CML_OPTIONAL | CML_CONST, 0}};
static const cml_param alpha_params[] = {{"x", CML_M_FLOAT | CML_MASK(I32), 0, 1}, {"alpha", CML_M_FLOAT | CML_MASK(I32), CML_CONST, 1}};
static const cml_param alpha_beta_params[] = {
    {"x", CML_M_FLOAT, 0, 1}, {"alpha", CML_M_FLOAT, CML_CONST, 1}, {"beta", CML_M_FLOAT, CML_CONST, 1}};

/* ---- the rows' functions beside the table ---- */

typedef struct unary {
  cml_map *f32, *half, *i32, *byte;
  double otherwise;
} unary;

/* The maps of each tag; integer or byte maps only where they exist. */
#define MAPS_plain(tag) .f32 = tag##_f32, .half = tag##_f32_half
#define MAPS_number(tag) MAPS_plain(tag), .i32 = tag##_i32
#define MAPS_truth(tag) .byte = tag##_byte
#define MAPS_epsilon(tag) MAPS_plain(tag)
#define MAPS_epsilon_any(tag) MAPS_plain(tag)
#define MAPS_alpha(tag) MAPS_number(tag)
#define MAPS_alpha_beta(tag) MAPS_plain(tag)

static const unary functions[] = {
#define UNARY_FUNCTION(text, tag, since, until, parameters, otherwise_) {MAPS_##parameters(tag), .otherwise = otherwise_},
    UNARY_MAP(UNARY_FUNCTION)
#undef UNARY_FUNCTION
};

extern const cml_op_family cml_ops_unary;

static cml_status infer_unary(cml_call *c, cml_error *err) {
  CML_TRY(cml_check_scalars(c, ~1u, err));
  if (c->opset >= CML_IOS17 && !strcmp(c->op->name, "clip") && !(cml_arg_float(c, 1, 0) < cml_arg_float(c, 2, 0)))
    return cml_call_fail(c, err, "alpha (%g) must be less than beta (%g)", cml_arg_float(c, 1, 0), cml_arg_float(c, 2, 0));
  cml_out_like(c, 0, cml_arg(c, 0));
  return CML_OK;
}

static void unary_map(const cml_call *c, cml_elementwise *out) {
  const unary *u = &functions[c->op - cml_ops_unary.rows];
  const cml_tensor *x = cml_arg(c, 0);
  cml_lane lane = cml_lane_of(x->dtype);
  *out = (cml_elementwise){.half = u->half, .arity = 1, .in = {x}, .lanes = {lane}, .out_lane = lane, .out = c->outs[0]};
  out->map = lane == CML_LANE_F32 ? u->f32 : lane == CML_LANE_I32 ? u->i32 : u->byte;
  /* A default is a value of the tensor's type: 1e-12 is zero in float16. */
  float otherwise = x->dtype == CML_F16 ? cml_f16_to_f32(cml_f16_from_f32((float)u->otherwise)) : (float)u->otherwise;
  for (unsigned p = 1; p < c->op->param_count; p++) {
    out->scalars.f[p - 1] = (float)cml_arg_float(c, p, (double)otherwise);
    if (lane == CML_LANE_I32) out->scalars.i[p - 1] = (int32_t)cml_arg_int(c, p, 0);
  }
}

/* ---- cast ---- */

static const cml_param cast_params_15[] = {
    {"x", CML_M_FLOAT | CML_MASK(I32) | CML_M_BOOL, 0, 0}, {"dtype", CML_M_STRING, CML_CONST, 0}};
static const cml_param cast_params_17[] = {
    {"x", CML_M_FLOAT | CML_MASK(I8) | CML_MASK(U8) | CML_MASK(I16) | CML_MASK(U16) | CML_MASK(I32) | CML_M_BOOL, 0, 0},
    {"dtype", CML_M_STRING, CML_CONST, 0}};

static cml_status infer_cast(cml_call *c, cml_error *err) {
  CML_TRY(cml_check_scalars(c, 2, err));
  const char *text = cml_arg_text(c, 1, "");
  cml_dtype to = cml_dtype_by_name(text, strlen(text));
  uint32_t allowed = c->op->params[0].types;
  if (!to || !(allowed >> to & 1)) return cml_call_fail(c, err, "dtype '%s' is not one that cast gives in this opset", text);
  cml_out_like(c, 0, cml_arg(c, 0));
  c->outs[0]->dtype = to;
  return CML_OK;
}

#define CONVERSION(function, kernel)                                                           \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {     \
    (void)s;                                                                                   \
    cml_kernels_get()->kernel(in[0], out, n);                                                  \
  }
CONVERSION(truth_f32, bytes_to_f32)
CONVERSION(whole_f32, i32_to_f32)
CONVERSION(f32_whole, f32_to_i32)
CML_MAP1(truth_whole, int32_t, uint8_t, x)
CML_MAP1(whole_truth, uint8_t, int32_t, x != 0)
CML_MAP1(f32_truth, uint8_t, float, x != 0)

/* Where lanes differ, so that chains may hand on what they hold: NULL where the driver's loads and stores convert. */
static cml_map *conversion(cml_lane from, cml_lane to) {
  switch (from) {
    case CML_LANE_F32: return to == CML_LANE_I32 ? f32_whole : to == CML_LANE_BYTE ? f32_truth : NULL;
    case CML_LANE_I32: return to == CML_LANE_F32 ? whole_f32 : to == CML_LANE_BYTE ? whole_truth : NULL;
    case CML_LANE_BYTE: return to == CML_LANE_F32 ? truth_f32 : to == CML_LANE_I32 ? truth_whole : NULL;
    default: return NULL;
  }
}

/* Floats truncate and saturate, integers wrap, bool is != 0. Integers become floats by way of float: those that round there are infinite in float16. */
static void cast_map(const cml_call *c, cml_elementwise *out) {
  const cml_tensor *x = cml_arg(c, 0);
  const cml_dtype dtype = c->outs[0]->dtype;
  const cml_lane from = cml_lane_of(x->dtype), to = cml_lane_of(dtype);
  const cml_lane common = from == CML_LANE_F32 || dtype == CML_F32 || dtype == CML_F16 ? CML_LANE_F32 : CML_LANE_I64;
  cml_map *map = conversion(from, to);
  const bool same = map || from == to;
  *out = (cml_elementwise){.map = map, .arity = 1, .in = {x}, .lanes = {same ? from : common}, .out_lane = same ? to : common, .out = c->outs[0]};
}

/* ---- the table ---- */

static const cml_op rows[] = {
#define UNARY_ROW(text, tag, since_, until_, parameters, otherwise)                                             \
  {.name = #text, .since = since_, .until = until_, .flags = CML_OP_IN_PLACE, .min_outputs = 1, .max_outputs = 1, \
   CML_PARAMS(parameters##_params), .infer = infer_unary, .run = cml_elementwise_call, .elementwise = unary_map},
    UNARY_MAP(UNARY_ROW)
#undef UNARY_ROW
    {.name = "cast", .since = CML_IOS15, .until = CML_IOS16, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(cast_params_15), .infer = infer_cast, .run = cml_elementwise_call, .elementwise = cast_map},
    {.name = "cast", .since = CML_IOS17, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(cast_params_17), .infer = infer_cast, .run = cml_elementwise_call, .elementwise = cast_map},
};

const cml_op_family cml_ops_unary = {"unary", rows, sizeof rows / sizeof *rows};
