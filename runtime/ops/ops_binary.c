/* Elementwise operators of two tensors with NumPy's broadcasting, and select, which takes three.
 *
 * One line of BINARY_MAP makes an operator: its result for floats and for integers. Integers compute in int64 and wrap
 * at the store; dividing by zero gives 0, as NumPy's integers do. */
#include "families.h"

#include <math.h>

#include "elementwise.h"

/* ---- what the expressions need ---- */

/* Rounded toward minus infinity. The quotient is exact in int64 for every narrower type; INT64_MIN / -1 wraps. */
static int64_t floor_div_int(int64_t x, int64_t y) {
  if (!y) return 0;
  if (y == -1) return (int64_t)(0 - (uint64_t)x);
  return x / y - (x % y != 0 && (x < 0) != (y < 0));
}

/* The remainder has the divisor's sign. */
static int64_t floor_mod_int(int64_t x, int64_t y) {
  if (!y || y == -1) return 0;
  int64_t r = x % y;
  return r && (r < 0) != (y < 0) ? r + y : r;
}

static int64_t real_div_int(int64_t x, int64_t y) {
  if (!y) return 0;
  return y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}

/* Wrapping; x to a negative power is truncated, so it is 0 but for 1 and -1. */
static int64_t pow_int(int64_t x, int64_t y) {
  if (y < 0) return x == 1 ? 1 : x == -1 ? (y % 2 ? -1 : 1) : 0;
  uint64_t r = 1;
  for (uint64_t base = (uint64_t)x; y; y >>= 1, base *= base)
    if (y & 1) r *= base;
  return (int64_t)r;
}

static float floor_mod_float(float x, float y) {
  float r = fmodf(x, y);
  return r != 0 ? ((r < 0) != (y < 0) ? r + y : r) : copysignf(0, y);
}

/* NumPy's: from the exact remainder, so that the quotient is not one too high after rounding. */
static float floor_div_float(float x, float y) {
  if (y == 0) return x / y;
  float r = fmodf(x, y), q = (x - r) / y;
  if (r != 0 && (r < 0) != (y < 0)) q -= 1;
  if (q == 0) return copysignf(0, x / y);
  float f = floorf(q);
  return q - f > 0.5f ? f + 1 : f;
}

/* ---- the table ---- */

/* name, the kernel or the expression for floats, what integers give; both of the operands' type */
#define ARITHMETIC_MAP(X)                                                                     \
  X(add, KERNEL, ADD, (int64_t)((uint64_t)x + (uint64_t)y))                                   \
  X(sub, KERNEL, SUB, (int64_t)((uint64_t)x - (uint64_t)y))                                   \
  X(mul, KERNEL, MUL, (int64_t)((uint64_t)x * (uint64_t)y))                                   \
  X(real_div, KERNEL, DIV, real_div_int(x, y))                                                \
  X(floor_div, EXPRESSION, floor_div_float(x, y), floor_div_int(x, y))                        \
  X(mod, EXPRESSION, floor_mod_float(x, y), floor_mod_int(x, y))                              \
  X(pow, KERNEL, POW, pow_int(x, y))                                                          \
  X(maximum, KERNEL, MAX, x > y ? x : y)                                                      \
  X(minimum, KERNEL, MIN, x < y ? x : y)
#define BY_KERNEL(name, kernel) CML_KERNEL2(name##_f32, kernel)
#define BY_EXPRESSION(name, e) CML_FLOAT2(name##_f32, e)

/* name, what x and y give; bool from any type */
#define COMPARISON_MAP(X)   \
  X(equal, x == y)          \
  X(not_equal, x != y)      \
  X(less, x < y)            \
  X(less_equal, x <= y)     \
  X(greater, x > y)         \
  X(greater_equal, x >= y)

#define LOGICAL_MAP(X)            \
  X(logical_and, x && y)          \
  X(logical_or, x || y)           \
  X(logical_xor, !x != !y)

#define ARITHMETIC(name, how, f, i) BY_##how(name, f) CML_MAP2(name##_i64, int64_t, int64_t, i)
ARITHMETIC_MAP(ARITHMETIC)
#define COMPARISON(name, expression) \
  CML_MAP2(name##_f32, uint8_t, float, expression) CML_HALF(name##_f32, 2, false) CML_MAP2(name##_i64, uint8_t, int64_t, expression)
COMPARISON_MAP(COMPARISON)
#define LOGICAL(name, expression) CML_MAP2(name##_byte, uint8_t, uint8_t, expression)
LOGICAL_MAP(LOGICAL)

typedef struct binary {
  cml_map *f32, *half, *i64, *byte;
  bool truth; /* the result is bool whatever the operands are */
} binary;

static const binary functions[] = {
#define ARITHMETIC_ENTRY(name, how, f, i) {name##_f32, name##_f32_half, name##_i64, NULL, false},
#define COMPARISON_ENTRY(name, e) {name##_f32, name##_f32_half, name##_i64, NULL, true},
#define LOGICAL_ENTRY(name, e) {NULL, NULL, NULL, name##_byte, true},
    ARITHMETIC_MAP(ARITHMETIC_ENTRY) COMPARISON_MAP(COMPARISON_ENTRY) LOGICAL_MAP(LOGICAL_ENTRY)
};

enum { MUL = 2 }; /* the place of mul in ARITHMETIC_MAP */

static const cml_param number_params[] = {{"x", CML_M_FLOAT | CML_MASK(I32), 0, 1}, {"y", CML_M_FLOAT | CML_MASK(I32), 0, 1}};
static const cml_param truth_params[] = {{"x", CML_M_BOOL, 0, 1}, {"y", CML_M_BOOL, 0, 1}};

extern const cml_op_family cml_ops_binary;

static const binary *function_of(const cml_call *c) { return &functions[c->op - cml_ops_binary.rows]; }

static cml_status infer_broadcast(cml_call *c, const cml_tensor *x, const cml_tensor *y, cml_dtype dtype, cml_error *err) {
  cml_tensor t = {.dtype = dtype};
  char a[128], b[128];
  if (!cml_broadcast(x, y, &t.rank, t.dims))
    return cml_call_fail(c, err, "shapes %s and %s cannot be broadcast", cml_shape_text(x, a, sizeof a), cml_shape_text(y, b, sizeof b));
  cml_out_like(c, 0, &t);
  return cml_check_output(c, 0, err);
}

static cml_status infer_binary(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *y = cml_arg(c, 1);
  return infer_broadcast(c, x, y, function_of(c)->truth ? CML_BOOL : x->dtype, err);
}

/* x to the power of 2, as programs write squares: the product is as exact and far cheaper. */
static bool is_square(const cml_tensor *x, const cml_tensor *y, const cml_tensor *out) {
  return cml_tensor_count(y) == 1 && y->data && cml_tensor_count(x) == cml_tensor_count(out) && cml_tensor_get(y, 0) == 2;
}

static void binary_map(const cml_call *c, cml_elementwise *out) {
  const binary *b = function_of(c);
  const cml_tensor *x = cml_arg(c, 0), *y = cml_arg(c, 1);
  cml_lane lane = cml_lane_of(x->dtype);
  if (b->f32 == pow_f32 && lane == CML_LANE_F32 && is_square(x, y, c->outs[0])) b = &functions[MUL], y = x;
  *out = (cml_elementwise){.map = lane == CML_LANE_F32 ? b->f32 : lane == CML_LANE_I64 ? b->i64 : b->byte,
                           .half = b->half, .arity = 2, .in = {x, y}, .lanes = {lane, lane}, .out = c->outs[0], .out_lane = b->truth ? CML_LANE_BYTE : lane};
}

/* ---- select ---- */

static const cml_param select_params[] = {
    {"cond", CML_M_BOOL, 0, 0},
    {"a", CML_M_FLOAT | CML_MASK(I32) | CML_M_BOOL, 0, 1},
    {"b", CML_M_FLOAT | CML_MASK(I32) | CML_M_BOOL, 0, 1},
};

static cml_status infer_select(cml_call *c, cml_error *err) {
  CML_TRY(infer_broadcast(c, cml_arg(c, 1), cml_arg(c, 2), cml_arg(c, 1)->dtype, err));
  const cml_tensor both = *c->outs[0];
  return infer_broadcast(c, cml_arg(c, 0), &both, both.dtype, err);
}

#define SELECT(function, type)                                                                             \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {                 \
    type *o = out;                                                                                         \
    const uint8_t *cond = in[0];                                                                           \
    const type *a = in[1], *b = in[2];                                                                     \
    (void)s;                                                                                               \
    CML_INDEPENDENT for (size_t i = 0; i < n; i++) { /* both are read whatever cond says: vectors */        \
      const type x = a[i], y = b[i];                                                                       \
      o[i] = cond[i] ? x : y;                                                                              \
    }                                                                                                      \
  }
SELECT(select_f32, float)
SELECT(select_half, cml_f16)
SELECT(select_i64, int64_t)
SELECT(select_byte, uint8_t)

static void select_map(const cml_call *c, cml_elementwise *out) {
  static cml_map *const maps[] = {[CML_LANE_F32] = select_f32, [CML_LANE_I64] = select_i64, [CML_LANE_BYTE] = select_byte};
  cml_lane lane = cml_lane_of(c->outs[0]->dtype);
  *out = (cml_elementwise){.map = maps[lane], .half = select_half, .arity = 3, .in = {cml_arg(c, 0), cml_arg(c, 1), cml_arg(c, 2)},
                           .lanes = {CML_LANE_BYTE, lane, lane}, .out = c->outs[0], .out_lane = lane};
}

/* ---- cumsum ---- */

static const cml_param cumsum_params[] = {
    {"x", CML_M_FLOAT | CML_MASK(I32), 0, 0},
    {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},
    {"exclusive", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0},
    {"reverse", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0},
};

static cml_status infer_cumsum(cml_call *c, cml_error *err) {
  int32_t axis;
  CML_TRY(cml_check_scalars(c, 12, err));
  CML_TRY(cml_check_axis(c, 1, 0, cml_arg(c, 0)->rank, &axis, err));
  cml_out_like(c, 0, cml_arg(c, 0));
  return CML_OK;
}

/* Column by column in double (or wrapping int64), blocks of neighbouring columns side by side. */
static cml_status run_cumsum(cml_call *c, cml_error *err) {
  enum { BLOCK = 256 };
  const cml_tensor *x = cml_arg(c, 0);
  cml_tensor *out = c->outs[0];
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, 0, x->rank, &axis, err));
  bool exclusive = cml_arg_bool(c, 2, false), reverse = cml_arg_bool(c, 3, false), whole = !cml_dtype_is_float(x->dtype);
  int64_t outer = 1, n = x->dims[axis], inner = 1;
  for (int32_t i = 0; i < axis; i++) outer *= x->dims[i];
  for (int32_t i = axis + 1; i < x->rank; i++) inner *= x->dims[i];
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t at = 0; at < inner; at += BLOCK) {
      size_t width = inner - at < BLOCK ? (size_t)(inner - at) : BLOCK;
      double sums[BLOCK] = {0};
      int64_t totals[BLOCK] = {0}, values[BLOCK];
      float row[BLOCK], result[BLOCK];
      for (int64_t k = 0; k < n; k++) {
        int64_t offset = (o * n + (reverse ? n - 1 - k : k)) * inner + at;
        if (whole) {
          cml_load_i64(values, x->data, x->dtype, offset, width);
          if (exclusive) cml_store_i64(out->data, out->dtype, offset, totals, width);
          for (size_t i = 0; i < width; i++) totals[i] = (int64_t)((uint64_t)totals[i] + (uint64_t)values[i]);
          if (!exclusive) cml_store_i64(out->data, out->dtype, offset, totals, width);
        } else {
          cml_load_f32(row, x->data, x->dtype, offset, width);
          for (size_t i = 0; i < width; i++) {
            double before = sums[i];
            sums[i] += (double)row[i];
            result[i] = (float)(exclusive ? before : sums[i]);
          }
          cml_store_f32(out->data, out->dtype, offset, result, width);
        }
      }
    }
  }
  return CML_OK;
}

static const cml_op rows[] = {
#define BINARY_ROW(text, parameters)                                                                                    \
  {.name = #text, .since = CML_IOS15, .flags = CML_OP_IN_PLACE, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(parameters), \
   .infer = infer_binary, .run = cml_elementwise_call, .elementwise = binary_map},
#define ARITHMETIC_ROW(name, how, f, i) BINARY_ROW(name, number_params)
#define COMPARISON_ROW(name, e) BINARY_ROW(name, number_params)
#define LOGICAL_ROW(name, e) BINARY_ROW(name, truth_params)
    ARITHMETIC_MAP(ARITHMETIC_ROW) COMPARISON_MAP(COMPARISON_ROW) LOGICAL_MAP(LOGICAL_ROW)
    {.name = "select", .since = CML_IOS15, .flags = CML_OP_IN_PLACE, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(select_params), .infer = infer_select, .run = cml_elementwise_call, .elementwise = select_map},
    {.name = "cumsum", .since = CML_IOS15, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(cumsum_params), .infer = infer_cumsum, .run = run_cumsum},
};

const cml_op_family cml_ops_binary = {"binary", rows, sizeof rows / sizeof *rows};
