/* Elementwise operators of two tensors with NumPy's broadcasting, and select, which takes three.
 *
 * One line of a map makes an operator: its kernels for floats and for integers, which wrap; dividing by zero gives 0, as NumPy's
 * integers do. */
#include "families.h"

#include "elementwise.h"
#include "strided.h"

/* ---- the table ---- */

/* Wrapping; x to a negative power is truncated, so it is 0 but for 1 and -1. */
static int32_t pow_int(int32_t x, int32_t y) {
  if (y < 0) return x == 1 ? 1 : x == -1 ? (y % 2 ? -1 : 1) : 0;
  uint32_t r = 1;
  for (uint32_t base = (uint32_t)x; y; y >>= 1, base *= base)
    if (y & 1) r *= base;
  return (int32_t)r;
}

/* name, the kernels' */
#define ARITHMETIC_MAP(X)                                                                                                     \
  X(add, ADD) X(sub, SUB) X(mul, MUL) X(real_div, DIV) X(floor_div, FLOOR_DIV) X(mod, MOD) X(pow, POW) X(maximum, MAX) X(minimum, MIN)

/* name, the kernels'; bool from any type */
#define COMPARISON_MAP(X)                                                                                            \
  X(equal, EQUAL) X(not_equal, NOT_EQUAL) X(less, LESS) X(less_equal, LESS_EQUAL) X(greater, GREATER) X(greater_equal, GREATER_EQUAL)

#define LOGICAL_MAP(X)            \
  X(logical_and, x && y)          \
  X(logical_or, x || y)           \
  X(logical_xor, !x != !y)

#define ARITHMETIC(name, kernel) CML_KERNEL2(name##_f32, kernel)
ARITHMETIC_MAP(ARITHMETIC)
CML_MAP2(power_i32, int32_t, int32_t, pow_int(x, y))
#define WHOLE(name, kernel)                                                                               \
  static void name##_i32(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    if (CML_BINARY_##kernel == CML_BINARY_POW) power_i32(out, in, n, s);                                  \
    else cml_kernels_get()->binary_i32(CML_BINARY_##kernel, in[0], in[1], out, n);                        \
  }
ARITHMETIC_MAP(WHOLE)
#define COMPARISON(name, kernel)                                                                          \
  static void name##_f32(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    (void)s;                                                                                              \
    cml_kernels_get()->compare(CML_COMPARE_##kernel, in[0], in[1], out, n);                               \
  }                                                                                                       \
  CML_HALF(name##_f32, 2, false)                                                                          \
  static void name##_i32(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    (void)s;                                                                                              \
    cml_kernels_get()->compare_i32(CML_COMPARE_##kernel, in[0], in[1], out, n);                           \
  }
COMPARISON_MAP(COMPARISON)
#define LOGICAL(name, expression) CML_MAP2(name##_byte, uint8_t, uint8_t, expression)
LOGICAL_MAP(LOGICAL)

typedef struct binary {
  cml_map *f32, *half, *i32, *byte;
  bool truth; /* the result is bool whatever the operands are */
  bool kernel;
  cml_binary function; /* where there is a kernel for it */
} binary;

static const binary functions[] = {
#define ARITHMETIC_ENTRY(name, kernel) {name##_f32, name##_f32_half, name##_i32, NULL, false, true, CML_BINARY_##kernel},
#define COMPARISON_ENTRY(name, kernel) {name##_f32, name##_f32_half, name##_i32, NULL, true, false, 0},
#define LOGICAL_ENTRY(name, e) {NULL, NULL, NULL, name##_byte, true, false, 0},
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

CML_FLOAT1(cube_f32, x * x * x)

/* x to the power of this, as programs write squares and cubes: the product is about as exact and far cheaper. 0: something else. */
static double power(const cml_tensor *x, const cml_tensor *y, const cml_tensor *out) {
  return cml_tensor_count(y) == 1 && y->data && cml_tensor_count(x) == cml_tensor_count(out) ? cml_tensor_get(y, 0) : 0;
}

static void binary_map(const cml_call *c, cml_elementwise *out) {
  const binary *b = function_of(c);
  const cml_tensor *x = cml_arg(c, 0), *y = cml_arg(c, 1);
  cml_lane lane = cml_lane_of(x->dtype);
  const double p = b->f32 == pow_f32 && lane == CML_LANE_F32 ? power(x, y, c->outs[0]) : 0;
  if (p == 2) b = &functions[MUL], y = x;
  *out = (cml_elementwise){.map = lane == CML_LANE_F32 ? b->f32 : lane == CML_LANE_I32 ? b->i32 : b->byte,
                           .half = b->half, .kernel = b->kernel && lane == CML_LANE_F32, .function = b->function, .arity = 2, .in = {x, y}, .lanes = {lane, lane}, .out = c->outs[0], .out_lane = b->truth ? CML_LANE_BYTE : lane};
  if (p == 3) out->map = cube_f32, out->half = cube_f32_half, out->kernel = false, out->arity = 1;
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
SELECT(select_i32, int32_t)
SELECT(select_byte, uint8_t)

static void select_map(const cml_call *c, cml_elementwise *out) {
  static cml_map *const maps[] = {[CML_LANE_F32] = select_f32, [CML_LANE_I32] = select_i32, [CML_LANE_BYTE] = select_byte};
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

enum { SUM_COLUMNS = 256, SUM_LINES = 64 };

typedef struct cumsum_job {
  const cml_tensor *x;
  cml_tensor *out;
  const cml_kernels *k;
  int64_t outer, n, inner;
  bool exclusive, reverse;
} cumsum_job;

static int64_t column_blocks(const cumsum_job *j) { return (j->inner + SUM_COLUMNS - 1) / SUM_COLUMNS; }

/* Integers wrap. */
static void int32_columns(const cumsum_job *j, int64_t first, size_t width) {
  uint32_t totals[SUM_COLUMNS] = {0};
  for (int64_t k = 0; k < j->n; k++) {
    const int64_t at = first + (j->reverse ? j->n - 1 - k : k) * j->inner;
    const uint32_t *x = (const uint32_t *)j->x->data + at;
    uint32_t *y = (uint32_t *)j->out->data + at;
    for (size_t i = 0; i < width; i++) {
      const uint32_t before = totals[i];
      totals[i] += x[i];
      y[i] = j->exclusive ? before : totals[i];
    }
  }
}

/* Floats in double. */
static void float_columns(const cumsum_job *j, int64_t first, size_t width) {
  double sums[SUM_COLUMNS] = {0};
  const bool half = j->x->dtype == CML_F16;
  const size_t at = (size_t)(first + (j->reverse ? (j->n - 1) * j->inner : 0)) * (half ? 2 : 4);
  j->k->running_sums((size_t)j->n, width, (const char *)j->x->data + at, (char *)j->out->data + at, half, j->reverse ? -j->inner : j->inner, sums, j->exclusive);
}

static void sum_columns(void *context, size_t begin, size_t end) {
  const cumsum_job *j = context;
  for (int64_t i = (int64_t)begin; i < (int64_t)end; i++) {
    int64_t column = i % column_blocks(j) * SUM_COLUMNS, first = i / column_blocks(j) * j->n * j->inner + column;
    size_t width = (size_t)(j->inner - column < SUM_COLUMNS ? j->inner - column : SUM_COLUMNS);
    if (cml_dtype_is_float(j->x->dtype)) float_columns(j, first, width);
    else int32_columns(j, first, width);
  }
}

/* Lines of neighbouring floats, many at once: pieces of them are turned, so that sums go down columns, and turned back. */
static void sum_lines(const cumsum_job *j, int64_t first, size_t lines) {
  double sums[SUM_LINES] = {0};
  float piece[SUM_LINES * SUM_LINES], turned[SUM_LINES * SUM_LINES];
  for (int64_t done = 0, m; done < j->n; done += m) {
    m = j->n - done < SUM_LINES ? j->n - done : SUM_LINES;
    int64_t at = first + (j->reverse ? j->n - done - m : done);
    for (size_t r = 0; r < lines; r++) cml_load_f32(piece + r * SUM_LINES, j->x->data, j->x->dtype, at + (int64_t)r * j->n, (size_t)m);
    j->k->transpose(lines, (size_t)m, piece, SUM_LINES, turned, SUM_LINES);
    float *row = turned + (j->reverse ? (m - 1) * SUM_LINES : 0);
    j->k->running_sums((size_t)m, lines, row, row, false, j->reverse ? -SUM_LINES : SUM_LINES, sums, j->exclusive);
    j->k->transpose((size_t)m, lines, turned, SUM_LINES, piece, SUM_LINES);
    for (size_t r = 0; r < lines; r++) cml_store_f32(j->out->data, j->out->dtype, at + (int64_t)r * j->n, piece + r * SUM_LINES, (size_t)m);
  }
}

/* One line of floats: one addition after the other. */
static void sum_line(const cumsum_job *j, int64_t first) {
  double sum = 0;
  float piece[SUM_COLUMNS];
  for (int64_t done = 0, m; done < j->n; done += m) {
    m = j->n - done < SUM_COLUMNS ? j->n - done : SUM_COLUMNS;
    int64_t at = first + (j->reverse ? j->n - done - m : done);
    cml_load_f32(piece, j->x->data, j->x->dtype, at, (size_t)m);
    for (int64_t i = 0; i < m; i++) {
      float *e = piece + (j->reverse ? m - 1 - i : i);
      double before = sum;
      sum += (double)*e;
      *e = (float)(j->exclusive ? before : sum);
    }
    cml_store_f32(j->out->data, j->out->dtype, at, piece, (size_t)m);
  }
}

static void sum_blocks(void *context, size_t begin, size_t end) {
  enum { WORTH = 4 }; /* lines */
  const cumsum_job *j = context;
  for (int64_t i = (int64_t)begin; i < (int64_t)end; i++) {
    int64_t line = i * SUM_LINES, lines = j->outer - line < SUM_LINES ? j->outer - line : SUM_LINES;
    if (lines >= WORTH) sum_lines(j, line * j->n, (size_t)lines);
    else for (int64_t l = line; l < line + lines; l++) sum_line(j, l * j->n);
  }
}

static cml_status run_cumsum(cml_call *c, cml_error *err) {
  enum { GRAIN = 65536 }; /* elements that are worth a thread */
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, 0, x->rank, &axis, err));
  cumsum_job j = {.x = x, .out = c->outs[0], .k = cml_kernels_get(), .n = x->dims[axis], .exclusive = cml_arg_bool(c, 2, false), .reverse = cml_arg_bool(c, 3, false)};
  j.outer = cml_dims_product(x->dims, 0, axis);
  j.inner = cml_dims_product(x->dims, axis + 1, x->rank);
  if (!j.outer || !j.n || !j.inner) return CML_OK;
  bool lines = j.inner == 1 && cml_dtype_is_float(x->dtype);
  size_t units = (size_t)(lines ? (j.outer + SUM_LINES - 1) / SUM_LINES : j.outer * column_blocks(&j));
  cml_parallel(c->pool, units, (size_t)(GRAIN / (j.n * (lines ? SUM_LINES : SUM_COLUMNS)) + 1), lines ? sum_blocks : sum_columns, &j);
  return CML_OK;
}

static const cml_op rows[] = {
#define BINARY_ROW(text, parameters)                                                                                    \
  {.name = #text, .since = CML_IOS15, .flags = CML_OP_IN_PLACE, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(parameters), \
   .infer = infer_binary, .run = cml_elementwise_call, .elementwise = binary_map},
#define ARITHMETIC_ROW(name, kernel) BINARY_ROW(name, number_params)
#define COMPARISON_ROW(name, kernel) BINARY_ROW(name, number_params)
#define LOGICAL_ROW(name, e) BINARY_ROW(name, truth_params)
    ARITHMETIC_MAP(ARITHMETIC_ROW) COMPARISON_MAP(COMPARISON_ROW) LOGICAL_MAP(LOGICAL_ROW)
    {.name = "select", .since = CML_IOS15, .flags = CML_OP_IN_PLACE, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(select_params), .infer = infer_select, .run = cml_elementwise_call, .elementwise = select_map},
    {.name = "cumsum", .since = CML_IOS15, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(cumsum_params), .infer = infer_cumsum, .run = run_cumsum},
};

const cml_op_family cml_ops_binary = {"binary", rows, sizeof rows / sizeof *rows};
