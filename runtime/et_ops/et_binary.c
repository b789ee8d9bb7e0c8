/* Functions of two and three tensors, or of a tensor and a Scalar: arithmetic, comparisons, logic, bits, choice. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_view.h"
#include "kernels.h"

typedef struct pair {
  const cml_et_tensor *in[3];
  cml_et_scalar_tensor scalars[2];
  cml_dtype dtype; /* torch's result type */
} pair;

/* Arguments 0 and 1, tensors or Scalars, and their result type. */
static void take_pair(cml_et_call *c, pair *p) {
  bool tensor[2];
  for (size_t i = 0; i < 2; i++) {
    tensor[i] = c->args[i]->kind == CML_PTE_TENSOR;
    p->in[i] = tensor[i] ? cml_et_arg(c, i) : cml_et_number_tensor(cml_et_scalar(c, i), &p->scalars[i]);
  }
  if (tensor[0] && tensor[1]) p->dtype = cml_et_result_type(p->in, 2);
  else if (tensor[0]) p->dtype = cml_et_promote_scalar(p->in[0]->dtype, c->args[1]->kind);
  else p->dtype = cml_et_promote_scalar(p->in[1]->dtype, c->args[0]->kind);
}

static cml_status run_pair(cml_et_call *c, const pair *p, const cml_et_maps *maps, const cml_et_scalars *s, size_t out, cml_error *err) {
  return cml_et_elementwise(c, maps, p->dtype, p->in, 2, s, cml_et_arg(c, out), err);
}

#define BINARY_KERNEL(name, function)                                                                        \
  static void name(void *out, const void *const *in, size_t n, const cml_et_scalars *s) {                    \
    (void)s;                                                                                                 \
    cml_kernels_get()->binary(CML_BINARY_##function, in[0], in[1], out, n);                                  \
  }

/* ---- add, sub, mul ---- */

BINARY_KERNEL(add_f32, ADD)
BINARY_KERNEL(sub_f32, SUB)
BINARY_KERNEL(mul_f32, MUL)
BINARY_KERNEL(div_f32, DIV)
CML_ET_MAP2(add_f64, double, double, x + y)
CML_ET_MAP2(sub_f64, double, double, x - y)
CML_ET_MAP2(mul_f64, double, double, x * y)
CML_ET_MAP2(div_f64, double, double, x / y)
CML_ET_MAP2(add_i64, int64_t, int64_t, (uint64_t)x + (uint64_t)y)
CML_ET_MAP2(sub_i64, int64_t, int64_t, (uint64_t)x - (uint64_t)y)
CML_ET_MAP2(mul_i64, int64_t, int64_t, (uint64_t)x * (uint64_t)y)
CML_ET_MAP2(scaled_f32, float, float, x + (float)s->d[0] * y)
CML_ET_MAP2(scaled_f64, double, double, x + s->d[0] * y)
CML_ET_MAP2(scaled_i64, int64_t, int64_t, (uint64_t)x + (uint64_t)s->i[0] * (uint64_t)y)

static const cml_et_maps add_maps = {add_f32, add_f64, add_i64, false}, sub_maps = {sub_f32, sub_f64, sub_i64, false},
                         scaled_maps = {scaled_f32, scaled_f64, scaled_i64, false};

/* x + sign * alpha * y. */
static cml_status add_scaled(cml_et_call *c, pair *p, int sign, cml_error *err) {
  cml_et_number alpha = cml_et_scalar(c, 2);
  if (sign < 0 && (p->in[0]->dtype == CML_BOOL || p->in[1]->dtype == CML_BOOL) && p->dtype == CML_BOOL)
    return cml_et_fail(c, err, "bools cannot be subtracted");
  if (alpha.kind == CML_PTE_REAL && !cml_dtype_is_float(p->dtype)) return cml_et_fail(c, err, "alpha is a float where the tensors hold integers");
  if (alpha.d == 1) return run_pair(c, p, sign > 0 ? &add_maps : &sub_maps, NULL, 3, err);
  cml_et_scalars s = {.d = {sign * alpha.d}, .i = {sign > 0 ? alpha.i : (int64_t)(0 - (uint64_t)alpha.i)}};
  return run_pair(c, p, &scaled_maps, &s, 3, err);
}

static cml_status op_add(cml_et_call *c, cml_error *err) {
  pair p;
  take_pair(c, &p);
  return add_scaled(c, &p, 1, err);
}

static cml_status op_sub(cml_et_call *c, cml_error *err) {
  pair p;
  take_pair(c, &p);
  return add_scaled(c, &p, -1, err);
}

static cml_status op_rsub(cml_et_call *c, cml_error *err) {
  pair p;
  take_pair(c, &p);
  const cml_et_tensor *x = p.in[0];
  p.in[0] = p.in[1];
  p.in[1] = x;
  return add_scaled(c, &p, -1, err);
}

static cml_status op_mul(cml_et_call *c, cml_error *err) {
  static const cml_et_maps maps = {mul_f32, mul_f64, mul_i64, false};
  pair p;
  take_pair(c, &p);
  return run_pair(c, &p, &maps, NULL, 2, err);
}

/* ---- division ---- */

/* fmodf by a quotient in double, where that is exact: below 2^29 the product with a float is, and a quotient that was rounded up
 * is one too many. */
static inline float fmod_f(float x, float y) {
  double q = (double)x / (double)y;
  if (!(fabs(q) < 0x1p29 && fabsf(y) < INFINITY)) return fmodf(x, y);
  double r = (double)x - trunc(q) * (double)y;
  if (x > 0 ? r < 0 : r > 0) r += copysign((double)y, (double)x);
  return copysignf((float)r, x);
}

/* As Python divides: the quotient of a - a mod b, so that the two agree in every bit. */
#define FLOOR_DIVIDE(name, T, fmod, floor, copysign)                        \
  static T name(T a, T b) {                                                 \
    if (b == 0) return a / b;                                               \
    T mod = fmod(a, b), div = (a - mod) / b;                                \
    if (mod != 0 && (b < 0) != (mod < 0)) div -= 1;                         \
    if (div == 0) return copysign(0, a / b);                                \
    T whole = floor(div);                                                   \
    return div - whole > (T)0.5 ? whole + 1 : whole;                        \
  }
FLOOR_DIVIDE(floor_divide_f, float, fmod_f, floorf, copysignf)
FLOOR_DIVIDE(floor_divide_d, double, fmod, floor, copysign)

static inline float remainder_f(float a, float b) {
  float mod = fmod_f(a, b);
  return mod != 0 && (b < 0) != (mod < 0) ? mod + b : mod;
}
static inline double remainder_d(double a, double b) {
  double mod = fmod(a, b);
  return mod != 0 && (b < 0) != (mod < 0) ? mod + b : mod;
}

/* Divisions that C leaves open: by zero is an error of the operator, by -1 wraps. */
static inline bool no_divisor(int64_t b, const cml_et_scalars *s) {
  if (b) return false;
  atomic_store_explicit(s->failed, true, memory_order_relaxed);
  return true;
}
static inline int64_t quotient(int64_t a, int64_t b, const cml_et_scalars *s) {
  return no_divisor(b, s) ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}
static inline int64_t modulo(int64_t a, int64_t b, const cml_et_scalars *s) { return no_divisor(b, s) || b == -1 ? 0 : a % b; }
static inline int64_t floor_modulo(int64_t a, int64_t b, const cml_et_scalars *s) {
  int64_t r = modulo(a, b, s);
  return r && (r < 0) != (b < 0) ? r + b : r;
}
static inline int64_t floor_quotient(int64_t a, int64_t b, const cml_et_scalars *s) {
  int64_t r = modulo(a, b, s), q = b ? quotient(a, b, s) : 0;
  return r && (r < 0) != (b < 0) ? q - 1 : q;
}

CML_ET_MAP2(floor_f32, float, float, floor_divide_f(x, y))
CML_ET_MAP2(floor_f64, double, double, floor_divide_d(x, y))
CML_ET_MAP2(floor_i64, int64_t, int64_t, floor_quotient(x, y, s))
CML_ET_MAP2(trunc_f32, float, float, truncf(x / y))
CML_ET_MAP2(trunc_f16, float, float, truncf(cml_f16_to_f32(cml_f16_from_f32(x / y))))
CML_ET_MAP2(trunc_bf16, float, float, truncf(cml_bf16_to_f32(cml_bf16_from_f32(x / y))))
CML_ET_MAP2(trunc_f64, double, double, trunc(x / y))
CML_ET_MAP2(trunc_i64, int64_t, int64_t, quotient(x, y, s))
CML_ET_MAP2(remainder_f32, float, float, remainder_f(x, y))
CML_ET_MAP2(remainder_f64, double, double, remainder_d(x, y))
CML_ET_MAP2(remainder_i64, int64_t, int64_t, floor_modulo(x, y, s))
CML_ET_MAP2(fmod_f32, float, float, fmod_f(x, y))
CML_ET_MAP2(fmod_f64, double, double, fmod(x, y))
CML_ET_MAP2(fmod_i64, int64_t, int64_t, modulo(x, y, s))

static const cml_et_maps div_maps = {div_f32, div_f64, NULL, false}, floor_maps = {floor_f32, floor_f64, floor_i64, false},
                         trunc_maps = {trunc_f32, trunc_f64, trunc_i64, false},
                         /* torch divides in the type itself, then truncates */
                         trunc_f16_maps = {trunc_f16, NULL, NULL, false}, trunc_bf16_maps = {trunc_bf16, NULL, NULL, false};

static cml_status true_divide(cml_et_call *c, pair *p, size_t out, cml_error *err) {
  p->dtype = cml_et_real_type(p->dtype);
  return run_pair(c, p, &div_maps, NULL, out, err);
}

static cml_status op_div(cml_et_call *c, cml_error *err) {
  pair p;
  take_pair(c, &p);
  return true_divide(c, &p, 2, err);
}

static cml_status op_div_mode(cml_et_call *c, cml_error *err) {
  pair p;
  take_pair(c, &p);
  if (cml_et_none(c, 2)) return true_divide(c, &p, 3, err);
  const cml_string mode = cml_et_string(c, 2);
  if (mode.size == 5 && !memcmp(mode.data, "floor", 5)) return run_pair(c, &p, &floor_maps, NULL, 3, err);
  if (mode.size == 5 && !memcmp(mode.data, "trunc", 5))
    return run_pair(c, &p, p.dtype == CML_F16 ? &trunc_f16_maps : p.dtype == CML_BF16 ? &trunc_bf16_maps : &trunc_maps, NULL, 3, err);
  return cml_et_fail(c, err, "rounding_mode is '%.*s', neither 'floor' nor 'trunc'", (int)(mode.size < 40 ? mode.size : 40), mode.data);
}

/* An operator whose arguments are a pair and the output. */
#define PAIR(name, f32, f64, i64, bytes)                          \
  static cml_status name(cml_et_call *c, cml_error *err) {        \
    static const cml_et_maps maps = {f32, f64, i64, bytes};       \
    pair p;                                                       \
    take_pair(c, &p);                                             \
    return run_pair(c, &p, &maps, NULL, 2, err);                  \
  }
PAIR(op_floor_divide, floor_f32, floor_f64, floor_i64, false)
PAIR(op_remainder, remainder_f32, remainder_f64, remainder_i64, false)
PAIR(op_fmod, fmod_f32, fmod_f64, fmod_i64, false)

BINARY_KERNEL(maximum_f32, MAX)
BINARY_KERNEL(minimum_f32, MIN)
CML_ET_MAP2(maximum_f64, double, double, x != x || x > y ? x : y)
CML_ET_MAP2(minimum_f64, double, double, x != x || x < y ? x : y)
CML_ET_MAP2(maximum_i64, int64_t, int64_t, x > y ? x : y)
CML_ET_MAP2(minimum_i64, int64_t, int64_t, x < y ? x : y)
PAIR(op_maximum, maximum_f32, maximum_f64, maximum_i64, false)
PAIR(op_minimum, minimum_f32, minimum_f64, minimum_i64, false)

CML_ET_MAP2(atan2_f32, float, float, atan2f(x, y))
CML_ET_MAP2(atan2_f64, double, double, atan2(x, y))
static cml_status op_atan2(cml_et_call *c, cml_error *err) {
  static const cml_et_maps maps = {atan2_f32, atan2_f64, NULL, false};
  pair p;
  take_pair(c, &p);
  p.dtype = cml_et_real_type(p.dtype);
  return run_pair(c, &p, &maps, NULL, 2, err);
}

/* ---- powers ---- */

/* Integers wrap; a negative exponent leaves only what has an integer reciprocal. */
static int64_t power(int64_t base, int64_t exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
  uint64_t result = 1, b = (uint64_t)base;
  for (uint64_t e = (uint64_t)exponent; e; e >>= 1, b *= b)
    if (e & 1) result *= b;
  return (int64_t)result;
}
CML_ET_MAP2(pow_f32, float, float, powf(x, y))
CML_ET_MAP2(pow_f64, double, double, pow(x, y))
CML_ET_MAP2(pow_i64, int64_t, int64_t, power(x, y))
static const cml_et_maps pow_maps = {pow_f32, pow_f64, pow_i64, false};

/* The exponents that programs are full of have ways of their own, which torch takes too: the root of -infinity is NaN there. The
 * second operand is the exponent. */
#define WAY(name, f32, f64)                  \
  CML_ET_MAP1(name##_f32, float, float, f32) \
  CML_ET_MAP1(name##_f64, double, double, f64)
WAY(square, x * x, x * x)
WAY(cube, x * x * x, x * x * x)
WAY(root, sqrtf(x), sqrt(x))
WAY(inverse_root, 1.0f / sqrtf(x), 1.0 / sqrt(x))
WAY(inverse, 1.0f / x, 1.0 / x)

static cml_status op_pow(cml_et_call *c, cml_error *err) {
  pair p;
  take_pair(c, &p);
  return run_pair(c, &p, &pow_maps, NULL, 2, err);
}

static cml_status op_pow_scalar(cml_et_call *c, cml_error *err) {
  static const struct { double exponent; cml_et_maps maps; } ways[] = {
      {2, {square_f32, square_f64, NULL, false}}, {3, {cube_f32, cube_f64, NULL, false}}, {0.5, {root_f32, root_f64, NULL, false}},
      {-0.5, {inverse_root_f32, inverse_root_f64, NULL, false}}, {-1, {inverse_f32, inverse_f64, NULL, false}}};
  pair p;
  cml_et_number e = cml_et_scalar(c, 1);
  take_pair(c, &p);
  if (!cml_dtype_is_float(p.dtype) && e.i < 0) return cml_et_fail(c, err, "integers have no negative powers");
  for (size_t i = 0; cml_dtype_is_float(p.dtype) && i < sizeof ways / sizeof *ways; i++)
    if (ways[i].exponent == e.d) return run_pair(c, &p, &ways[i].maps, NULL, 2, err);
  return run_pair(c, &p, &pow_maps, NULL, 2, err);
}

/* ---- comparisons and logic ---- */

#define COMPARE(name, expression)                           \
  CML_ET_MAP2(name##_f32, uint8_t, float, expression)       \
  CML_ET_MAP2(name##_f64, uint8_t, double, expression)      \
  CML_ET_MAP2(name##_i64, uint8_t, int64_t, expression)     \
  PAIR(name, name##_f32, name##_f64, name##_i64, true)
COMPARE(op_eq, x == y)
COMPARE(op_ne, x != y)
COMPARE(op_lt, x < y)
COMPARE(op_le, x <= y)
COMPARE(op_gt, x > y)
COMPARE(op_ge, x >= y)
COMPARE(op_logical_and, (x != 0) & (y != 0))
COMPARE(op_logical_or, (x != 0) | (y != 0))
COMPARE(op_logical_xor, (x != 0) != (y != 0))

/* ---- bits ---- */

CML_ET_MAP2(and_i64, int64_t, int64_t, x & y)
CML_ET_MAP2(or_i64, int64_t, int64_t, x | y)
CML_ET_MAP2(xor_i64, int64_t, int64_t, x ^ y)
CML_ET_MAP2(and_bytes, uint8_t, uint8_t, x & y)
CML_ET_MAP2(or_bytes, uint8_t, uint8_t, x | y)
CML_ET_MAP2(xor_bytes, uint8_t, uint8_t, x ^ y)

/* Tensors of one type and layout are bytes. */
static cml_status bits(cml_et_call *c, const cml_et_maps *maps, cml_et_map *bytes, cml_error *err) {
  pair p;
  take_pair(c, &p);
  cml_et_tensor *out = cml_et_arg(c, 2);
  bool one_type = p.in[0]->dtype == p.in[1]->dtype && p.in[0]->dtype == out->dtype && (CML_ET_INTEGRAL >> out->dtype & 1);
  if (!one_type || !cml_et_same_layout(p.in[0], p.in[1])) return run_pair(c, &p, maps, NULL, 2, err);
  CML_TRY(cml_et_resize_like(c, out, p.in[0], err));
  if (!cml_et_same_layout(p.in[0], out)) return run_pair(c, &p, maps, NULL, 2, err);
  bytes(out->data, (const void *const[]){p.in[0]->data, p.in[1]->data}, (size_t)cml_et_numel(out) * cml_et_width(out), NULL);
  return CML_OK;
}
#define BITS(name, i64, bytes)                                \
  static cml_status name(cml_et_call *c, cml_error *err) {    \
    static const cml_et_maps maps = {NULL, NULL, i64, false}; \
    return bits(c, &maps, bytes, err);                        \
  }
BITS(op_bitwise_and, and_i64, and_bytes)
BITS(op_bitwise_or, or_i64, or_bytes)
BITS(op_bitwise_xor, xor_i64, xor_bytes)

/* Shifts by less than nothing or by all bits and more push everything out; s->i[0]: bits of the type. */
CML_ET_MAP2(left_i64, int64_t, int64_t, ((uint64_t)x << (y & 63)) & ((uint64_t)y < (uint64_t)s->i[0] ? ~UINT64_C(0) : 0))
CML_ET_MAP2(right_i64, int64_t, int64_t, x >> ((uint64_t)y < (uint64_t)s->i[0] ? y : 63))
static cml_status shift(cml_et_call *c, const cml_et_maps *maps, cml_error *err) {
  pair p;
  take_pair(c, &p);
  if (p.dtype == CML_BOOL) return cml_et_fail(c, err, "bools cannot be shifted");
  return run_pair(c, &p, maps, &(cml_et_scalars){.i = {cml_dtype_bits(p.dtype)}}, 2, err);
}
static cml_status op_left_shift(cml_et_call *c, cml_error *err) {
  static const cml_et_maps maps = {NULL, NULL, left_i64, false};
  return shift(c, &maps, err);
}
static cml_status op_right_shift(cml_et_call *c, cml_error *err) {
  static const cml_et_maps maps = {NULL, NULL, right_i64, false};
  return shift(c, &maps, err);
}

/* ---- bounds ---- */

/* NaN anywhere is the result; where the bounds cross, the upper one is. */
#define LOW(x, low) ((x) != (x) || (x) > (low) ? (x) : (low))
#define HIGH(x, high) ((x) != (x) || (x) < (high) ? (x) : (high))
CML_ET_MAP3(clamp_f32, float, float, HIGH(LOW(x, y), z))
CML_ET_MAP3(clamp_f64, double, double, HIGH(LOW(x, y), z))
CML_ET_MAP3(clamp_i64, int64_t, int64_t, HIGH(LOW(x, y), z))

static cml_status run_clamp(cml_et_call *c, cml_dtype dtype, const cml_et_tensor *x, const cml_et_tensor *low, const cml_et_tensor *high,
                            size_t out, cml_error *err) {
  static const cml_et_maps both = {clamp_f32, clamp_f64, clamp_i64, false}, below = {maximum_f32, maximum_f64, maximum_i64, false},
                           above = {minimum_f32, minimum_f64, minimum_i64, false};
  const cml_et_tensor *in[3] = {x, low ? low : high, high};
  if (!low && !high) return cml_et_fail(c, err, "neither min nor max is given");
  return cml_et_elementwise(c, low && high ? &both : low ? &below : &above, dtype, in, low && high ? 3 : 2, NULL, cml_et_arg(c, out), err);
}

static cml_status op_clamp(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *bounds[2] = {NULL, NULL};
  cml_et_scalar_tensor scalars[2];
  cml_dtype dtype = x->dtype;
  for (size_t i = 0; i < 2; i++)
    if (!cml_et_none(c, 1 + i)) {
      bounds[i] = cml_et_number_tensor(cml_et_scalar(c, 1 + i), &scalars[i]);
      dtype = cml_et_promote_scalar(dtype, c->args[1 + i]->kind);
    }
  return run_clamp(c, dtype, x, bounds[0], bounds[1], 3, err);
}

static cml_status op_clamp_tensor(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *in[3] = {cml_et_arg(c, 0), cml_et_arg(c, 1), cml_et_arg(c, 2)};
  return run_clamp(c, cml_et_result_type(in, 3), in[0], in[1], in[2], 3, err);
}

/* The type stays: bounds are cast to it. */
static cml_status op_hardtanh(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_scalar_tensor low, high;
  CML_TRY(cml_et_want(c, x, CML_ET_ANY & ~CML_M_BOOL, "the tensor", err));
  return run_clamp(c, x->dtype, x, cml_et_number_tensor(cml_et_scalar(c, 1), &low), cml_et_number_tensor(cml_et_scalar(c, 2), &high), 3, err);
}

/* ---- choice ---- */

CML_ET_MAP3(where_f32, float, float, x != 0 ? y : z)
CML_ET_MAP3(where_f64, double, double, x != 0 ? y : z)
CML_ET_MAP3(where_i64, int64_t, int64_t, x != 0 ? y : z)
static const cml_et_maps where_maps = {where_f32, where_f64, where_i64, false};

static cml_status op_where(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *in[3] = {cml_et_arg(c, 0), cml_et_arg(c, 1), cml_et_arg(c, 2)};
  CML_TRY(cml_et_want(c, in[0], CML_M_BOOL | CML_MASK(U8), "the condition", err));
  return cml_et_elementwise(c, &where_maps, cml_et_result_type(in + 1, 2), in, 3, NULL, cml_et_arg(c, 3), err);
}

static cml_status op_masked_fill(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *mask = cml_et_arg(c, 1);
  cml_et_number value = cml_et_scalar(c, 2);
  cml_et_scalar_tensor scalar;
  CML_TRY(cml_et_want(c, mask, CML_M_BOOL, "the mask", err));
  if (value.kind == CML_PTE_REAL && !cml_dtype_is_float(x->dtype)) { /* cast to the tensor's type, as torch has it */
    if (x->dtype == CML_BOOL) value.i = value.d != 0;
    else if (!(fabs(value.d) < 0x1p63)) return cml_et_fail(c, err, "%g is no value of type %s", value.d, cml_dtype_name(x->dtype));
    value.kind = CML_PTE_INTEGER;
  }
  const cml_et_tensor *in[3] = {mask, cml_et_number_tensor(value, &scalar), x};
  return cml_et_elementwise(c, &where_maps, x->dtype, in, 3, NULL, cml_et_arg(c, 3), err);
}

/* The first half of a dimension, gated by the second. */
CML_ET_MAP2(glu_f32, float, float, x / (1.0f + expf(-y)))
CML_ET_MAP2(glu_f64, double, double, x / (1.0 + exp(-y)))
static cml_status op_glu(cml_et_call *c, cml_error *err) {
  static const cml_et_maps maps = {glu_f32, glu_f64, NULL, false};
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_view halves[2] = {cml_et_view_of(x), cml_et_view_of(x)};
  cml_et_local locals[2];
  int axis;
  if (!x->rank) return cml_et_fail(c, err, "a tensor of rank 0 has no halves");
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, -1), x->rank, &axis, err));
  int64_t n = x->sizes[axis] / 2;
  if (x->sizes[axis] % 2) return cml_et_fail(c, err, "%lld elements have no halves", (long long)x->sizes[axis]);
  cml_et_view_slice(&halves[0], axis, 0, n, 1);
  cml_et_view_slice(&halves[1], axis, n, n, 1);
  const cml_et_tensor *in[2] = {cml_et_view_tensor(&halves[0], &locals[0]), cml_et_view_tensor(&halves[1], &locals[1])};
  return cml_et_elementwise(c, &maps, x->dtype, in, 2, NULL, cml_et_arg(c, 2), err);
}

static const cml_et_op rows[] = {
    {"aten::add.out", "ttno", op_add},
    {"aten::add.Scalar_out", "tnno", op_add},
    {"aten::atan2.out", "tto", op_atan2},
    {"aten::bitwise_and.Scalar_out", "tno", op_bitwise_and},
    {"aten::bitwise_and.Tensor_out", "tto", op_bitwise_and},
    {"aten::bitwise_left_shift.Tensor_out", "tto", op_left_shift},
    {"aten::bitwise_left_shift.Tensor_Scalar_out", "tno", op_left_shift},
    {"aten::bitwise_or.Scalar_out", "tno", op_bitwise_or},
    {"aten::bitwise_or.Tensor_out", "tto", op_bitwise_or},
    {"aten::bitwise_right_shift.Tensor_out", "tto", op_right_shift},
    {"aten::bitwise_right_shift.Tensor_Scalar_out", "tno", op_right_shift},
    {"aten::bitwise_xor.Scalar_out", "tno", op_bitwise_xor},
    {"aten::bitwise_xor.Tensor_out", "tto", op_bitwise_xor},
    {"aten::clamp.out", "tn?n?o", op_clamp},
    {"aten::clamp.Tensor_out", "tt?t?o", op_clamp_tensor},
    {"aten::div.out", "tto", op_div},
    {"aten::div.Scalar_out", "tno", op_div},
    {"aten::div.out_mode", "tts?o", op_div_mode},
    {"aten::div.Scalar_mode_out", "tns?o", op_div_mode},
    {"aten::eq.Scalar_out", "tno", op_eq},
    {"aten::eq.Tensor_out", "tto", op_eq},
    {"aten::floor_divide.out", "tto", op_floor_divide},
    {"aten::fmod.Scalar_out", "tno", op_fmod},
    {"aten::fmod.Tensor_out", "tto", op_fmod},
    {"aten::ge.Scalar_out", "tno", op_ge},
    {"aten::ge.Tensor_out", "tto", op_ge},
    {"aten::glu.out", "tio", op_glu},
    {"aten::gt.Scalar_out", "tno", op_gt},
    {"aten::gt.Tensor_out", "tto", op_gt},
    {"aten::hardtanh.out", "tnno", op_hardtanh},
    {"aten::le.Scalar_out", "tno", op_le},
    {"aten::le.Tensor_out", "tto", op_le},
    {"aten::logical_and.out", "tto", op_logical_and},
    {"aten::logical_or.out", "tto", op_logical_or},
    {"aten::logical_xor.out", "tto", op_logical_xor},
    {"aten::lt.Scalar_out", "tno", op_lt},
    {"aten::lt.Tensor_out", "tto", op_lt},
    {"aten::masked_fill.Scalar_out", "ttno", op_masked_fill},
    {"aten::maximum.out", "tto", op_maximum},
    {"aten::minimum.out", "tto", op_minimum},
    {"aten::mul.out", "tto", op_mul},
    {"aten::mul.Scalar_out", "tno", op_mul},
    {"aten::ne.Scalar_out", "tno", op_ne},
    {"aten::ne.Tensor_out", "tto", op_ne},
    {"aten::pow.Scalar_out", "nto", op_pow},
    {"aten::pow.Tensor_Scalar_out", "tno", op_pow_scalar},
    {"aten::pow.Tensor_Tensor_out", "tto", op_pow},
    {"aten::remainder.Scalar_out", "tno", op_remainder},
    {"aten::remainder.Tensor_out", "tto", op_remainder},
    {"aten::rsub.Scalar_out", "tnno", op_rsub},
    {"aten::sub.out", "ttno", op_sub},
    {"aten::sub.Scalar_out", "tnno", op_sub},
    {"aten::where.self_out", "ttto", op_where},
};
CML_ET_FAMILY(binary)
