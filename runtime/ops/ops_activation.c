/* Activations, and softmax.
 *
 * An activation is a map of x and up to two scalars (alpha in s->f[0], beta in s->f[1]); where the scalars belong to
 * channels (prelu, softplus_parametric), they are operands broadcast over the other dims. From iOS17 on, the
 * scalars may have another float type than x: two rows of one line. */
#include "families.h"

#include <math.h>

#include "elementwise.h"

/* ---- the functions ---- */

/* log(1 + e^x) without overflow. */
static float softplus_one(float x) { return log1pf(expf(-fabsf(x))) + (x > 0 ? x : x < 0 ? 0 : x); }
static float at_most(float x, float high) { return x > high ? high : x; } /* NaN comes through */

#define MAP(tag, expression) CML_FLOAT1(tag##_map, expression)
CML_KERNEL1(relu_map, RELU, 0, 0)
CML_KERNEL1(relu6_map, CLIP, 0, 6)
CML_KERNEL1(sigmoid_map, SIGMOID, 0, 0)
CML_KERNEL1(silu_map, SILU, 0, 0)
CML_KERNEL1(softplus_map, SOFTPLUS, 0, 0)
CML_KERNEL1(softsign_map, SOFTSIGN, 0, 0)
CML_KERNEL1(elu_map, ELU, s->f[0], 0)
CML_KERNEL1(leaky_relu_map, LEAKY_RELU, s->f[0], 0)
MAP(thresholded_relu, x < s->f[0] ? 0 : x)
MAP(clamped_relu, at_most(x < 0 ? s->f[0] * x : x, s->f[1]))
CML_KERNEL1(linear_activation_map, SCALE, s->f[0], s->f[1])
CML_KERNEL1(sigmoid_hard_map, HARD_SIGMOID, s->f[0], s->f[1])
CML_KERNEL1(gelu_exact_map, GELU, 0, 0)
CML_KERNEL1(gelu_tanh_map, GELU_TANH, 0, 0)
CML_KERNEL1(gelu_sigmoid_map, GELU_SIGMOID, 0, 0)
CML_FLOAT2(prelu_map, x < 0 ? y * x : x)

static void scaled_tanh_map(void *out, const void *const *in, size_t n, const cml_scalars *s) {
  const cml_kernels *k = cml_kernels_get();
  k->unary(CML_UNARY_SCALE, in[0], out, n, s->f[1], 0);
  k->unary(CML_UNARY_TANH, out, out, n, 0, 0);
  k->unary(CML_UNARY_SCALE, out, out, n, s->f[0], 0);
}
CML_HALF(scaled_tanh_map, 1, true)

static void softplus_parametric_map(void *out, const void *const *in, size_t n, const cml_scalars *s) {
  float *o = out;
  const float *x = in[0], *alpha = in[1], *beta = in[2];
  (void)s;
  for (size_t i = 0; i < n; i++) o[i] = alpha[i] * softplus_one(x[i] * beta[i]);
}

/* ---- parameters: _15 one type for all, _17 scalars of any float type ---- */

#define FLOAT_PARAM(name, flags, group) {name, CML_M_FLOAT, flags, group}
static const cml_param plain_params[] = {FLOAT_PARAM("x", 0, 0)};
static const cml_param alpha_15_params[] = {FLOAT_PARAM("x", 0, 1), FLOAT_PARAM("alpha", CML_CONST, 1)};
static const cml_param alpha_17_params[] = {FLOAT_PARAM("x", 0, 0), FLOAT_PARAM("alpha", CML_CONST, 0)};
static const cml_param both_15_params[] = {
    FLOAT_PARAM("x", 0, 1), FLOAT_PARAM("alpha", CML_CONST, 1), FLOAT_PARAM("beta", CML_CONST, 1)};
static const cml_param both_17_params[] = {
    FLOAT_PARAM("x", 0, 0), FLOAT_PARAM("alpha", CML_CONST, 1), FLOAT_PARAM("beta", CML_CONST, 1)};
static const cml_param gelu_params[] = {FLOAT_PARAM("x", 0, 0), {"mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}};

/* ---- maps with scalars ---- */

#define PLAIN_MAP(X) X(relu) X(relu6) X(sigmoid) X(silu) X(softplus) X(softsign)
#define ALPHA_MAP(X) X(elu) X(leaky_relu) X(thresholded_relu)
#define BOTH_MAP(X) X(clamped_relu) X(linear_activation) X(scaled_tanh) X(sigmoid_hard)

/* Beside the rows of the table, in their order. */
static cml_map *const maps[][2] = {
#define ONE(tag) {tag##_map, tag##_map_half},
#define TWO(tag) ONE(tag) ONE(tag)
    PLAIN_MAP(ONE) ALPHA_MAP(TWO) BOTH_MAP(TWO)
};

extern const cml_op_family cml_ops_activation;

static cml_status infer_scalars(cml_call *c, cml_error *err) {
  CML_TRY(cml_check_scalars(c, ~1u, err));
  cml_out_like(c, 0, cml_arg(c, 0));
  return CML_OK;
}

static void scalars_map_of(const cml_call *c, cml_map *const map[2], cml_elementwise *out) {
  *out = (cml_elementwise){.map = map[0], .half = map[1], .arity = 1, .in = {cml_arg(c, 0)}, .lanes = {CML_LANE_F32}, .out_lane = CML_LANE_F32,
                       .out = c->outs[0]};
  for (unsigned p = 1; p < c->op->param_count; p++) out->scalars.f[p - 1] = (float)cml_arg_float(c, p, 0);
}

static void scalars_map(const cml_call *c, cml_elementwise *out) { scalars_map_of(c, maps[c->op - cml_ops_activation.rows], out); }

static const char *const gelu_modes[] = {"EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION", NULL};

static cml_status infer_gelu(cml_call *c, cml_error *err) {
  CML_TRY(infer_scalars(c, err));
  const char *mode = cml_arg_text(c, 1, "EXACT");
  if (cml_word_index(mode, gelu_modes) < 0)
    return cml_call_fail(c, err, "mode '%s' is none of EXACT, TANH_APPROXIMATION, SIGMOID_APPROXIMATION", mode);
  return CML_OK;
}

static void gelu_map(const cml_call *c, cml_elementwise *out) {
  static cml_map *const by_mode[][2] = {ONE(gelu_exact) ONE(gelu_tanh) ONE(gelu_sigmoid)};
  scalars_map_of(c, by_mode[cml_word_index(cml_arg_text(c, 1, "EXACT"), gelu_modes)], out);
}

/* ---- one scalar a channel ---- */

static cml_status infer_channels(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  bool prelu = c->op->param_count == 2;
  if (x->rank >= 0 && (x->rank < 3 || (prelu && x->rank > 5)))
    return cml_call_fail(c, err, "x must have rank 3%s, found %d", prelu ? ", 4 or 5" : " or more", (int)x->rank);
  for (unsigned p = 1; p < c->op->param_count; p++) {
    const cml_tensor *t = cml_arg(c, p);
    const char *name = c->op->params[p].name;
    if (t->rank >= 0 && t->rank != 1) return cml_call_fail(c, err, "%s must have rank 1, found %d", name, (int)t->rank);
    if (t->rank == 1 && x->rank >= 0 && t->dims[0] >= 0 && x->dims[1] >= 0 && t->dims[0] != x->dims[1])
      return cml_call_fail(c, err, "%s has %lld values for %lld channels", name, (long long)t->dims[0], (long long)x->dims[1]);
  }
  const cml_tensor *alpha = cml_arg(c, 1);
  for (int64_t i = 1; prelu && x->rank != 4 && x->rank >= 0 && alpha->data && i < alpha->dims[0]; i++)
    if (fabs(cml_tensor_get(alpha, i) - cml_tensor_get(alpha, 0)) > 1e-5)
      return cml_call_fail(c, err, "x of rank %d needs the same alpha for all channels", (int)x->rank);
  cml_out_like(c, 0, x);
  return CML_OK;
}

static cml_status run_channels(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  size_t arity = c->op->param_count;
  cml_tensor spread[2];
  cml_elementwise e = {.map = arity == 2 ? prelu_map : softplus_parametric_map, .half = arity == 2 ? prelu_map_half : NULL, .arity = arity, .in = {x},
                       .out_lane = CML_LANE_F32, .out = c->outs[0]};
  for (unsigned p = 1; p < arity; p++) { /* [C] as [C, 1, ...] */
    spread[p - 1] = *cml_arg(c, p);
    spread[p - 1].rank = x->rank - 1;
    for (int32_t i = 1; i < x->rank - 1; i++) spread[p - 1].dims[i] = 1;
    e.in[p] = &spread[p - 1];
  }
  cml_elementwise_run(&e, c->pool);
  return CML_OK;
}

/* ---- softmax ---- */

#define SOFTMAX_PARAMS FLOAT_PARAM("x", 0, 0), {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}
static const cml_param softmax_params[] = {SOFTMAX_PARAMS};
static const cml_param log_softmax_params[] = {SOFTMAX_PARAMS, {"low", CML_MASK(F32), CML_CONST, 0}}; /* what passes make: no result lies below `low` */

static cml_status infer_softmax(cml_call *c, cml_error *err) {
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, -1, cml_arg(c, 0)->rank, &axis, err));
  cml_out_like(c, 0, cml_arg(c, 0));
  return CML_OK;
}

/* x as [outer, n, inner]; a task is a row, or where inner is not 1 a band of neighbouring columns, or so many short rows. */
typedef struct softmax_job {
  const cml_tensor *x;
  cml_tensor *out;
  int64_t outer, n, inner, bands;
  bool logarithm;
  float low;
} softmax_job;

enum { BAND = 256, SHORT = 8, NARROW = 16, TURNED = 4096 };

/* What `groups` short bands side by side hold becomes one band, in all of them. */
static void join_groups(cml_binary f, float *band, size_t width, size_t groups) {
  for (size_t left = groups, half; left > 1; left = half) { /* the upper half to the lower one */
    half = (left + 1) / 2;
    cml_kernels_get()->binary(f, band + half * width, band, band, (left - half) * width);
  }
  for (size_t i = width; i < groups * width; i++) band[i] = band[i - width];
}

/* Columns side by side, row by row: their maxima, then the sums of exponentials, which wait in `out` where it is float32,
 * then the quotients, or the logarithms' differences. Short rows, which follow one another, go together, as many as BAND holds. */
static void softmax_band(const softmax_job *j, int64_t at, size_t width) {
  const cml_kernels *kernels = cml_kernels_get();
  float row[BAND], top[BAND], sum[BAND];
  bool keep = j->out->dtype == CML_F32 && !j->logarithm;
  size_t groups = j->inner <= BAND / 2 ? (size_t)(BAND / j->inner) : 1;
  if ((int64_t)groups > j->n) groups = (size_t)j->n;
  for (size_t i = 0; i < groups * width; i++) top[i] = -INFINITY, sum[i] = 0;
  for (int pass = 0; pass < 3; pass++) {
    for (int64_t k = 0; k < j->n; k += (int64_t)groups) {
      int64_t here = at + k * j->inner;
      const size_t n = (j->n - k < (int64_t)groups ? (size_t)(j->n - k) : groups) * width;
      const cml_tensor *from = pass == 2 && keep ? j->out : j->x;
      cml_load_f32(row, from->data, from->dtype, here, n);
      if (!pass) {
        kernels->binary(CML_BINARY_MAX, row, top, top, n);
        continue;
      }
      if (pass == 1 || !keep) kernels->binary(CML_BINARY_SUB, row, top, row, n);
      if (pass == 1 || !(keep || j->logarithm)) kernels->unary(CML_UNARY_EXP, row, row, n, 0, 0);
      kernels->binary(pass == 1 ? CML_BINARY_ADD : j->logarithm ? CML_BINARY_SUB : CML_BINARY_DIV, row, sum, pass == 1 ? sum : row, n);
      if (pass == 2 && j->logarithm) kernels->unary(CML_UNARY_CLIP, row, row, n, j->low, INFINITY);
      if (pass == 2 || keep) cml_store_f32(j->out->data, j->out->dtype, here, row, n);
    }
    if (pass < 2) join_groups(pass ? CML_BINARY_ADD : CML_BINARY_MAX, pass ? sum : top, width, groups);
    if (pass == 1 && j->logarithm) kernels->unary(CML_UNARY_LOG, sum, sum, groups * width, 0, 0);
  }
}

static void softmax_rows(const softmax_job *j, size_t begin, size_t end) {
  const size_t n = (size_t)j->n, at = begin * n * (j->x->dtype == CML_F16 ? 2 : 4);
  cml_kernels_get()->softmax_rows(end - begin, n, (const char *)j->x->data + at, (char *)j->out->data + at, j->x->dtype == CML_F16, j->logarithm, j->low);
}

/* Rows that would each leave most of a vector empty are turned into columns. */
static void softmax_short(const softmax_job *j, int64_t row) {
  const cml_kernels *kernels = cml_kernels_get();
  float rows[BAND * SHORT], columns[BAND * SHORT];
  const size_t n = (size_t)j->n, count = j->outer - row < BAND ? (size_t)(j->outer - row) : BAND;
  cml_tensor t = {.dtype = CML_F32, .data = columns};
  softmax_job turned = *j;
  turned.x = turned.out = &t, turned.inner = (int64_t)count;
  cml_load_f32(rows, j->x->data, j->x->dtype, row * j->n, count * n);
  kernels->transpose(count, n, rows, n, columns, count);
  softmax_band(&turned, 0, count);
  kernels->transpose(n, count, columns, count, rows, n);
  cml_store_f32(j->out->data, j->out->dtype, row * j->n, rows, count * n);
}

/* Few columns are turned to rows, those of neighbouring slices together. */
static void softmax_slices(const softmax_job *j, int64_t slice, size_t slices) {
  const cml_kernels *kernels = cml_kernels_get();
  float columns[TURNED], rows[TURNED];
  const size_t n = (size_t)j->n, inner = (size_t)j->inner, size = n * inner;
  const float *from = columns;
  if (j->x->dtype == CML_F32) from = (const float *)j->x->data + slice * (int64_t)size;
  else cml_load_f32(columns, j->x->data, j->x->dtype, slice * (int64_t)size, slices * size);
  for (size_t i = 0; i < slices; i++) kernels->transpose(n, inner, from + i * size, inner, rows + i * size, n);
  kernels->softmax_rows(slices * inner, n, rows, rows, false, j->logarithm, j->low);
  float *to = j->out->dtype == CML_F32 ? (float *)j->out->data + slice * (int64_t)size : columns;
  for (size_t i = 0; i < slices; i++) kernels->transpose(inner, n, rows + i * size, n, to + i * size, inner);
  if (to == columns) cml_store_f32(j->out->data, j->out->dtype, slice * (int64_t)size, columns, slices * size);
}

static bool few_columns(const softmax_job *j) { return j->inner > 1 && j->inner <= NARROW && j->n > SHORT && j->n * j->inner <= TURNED; }

static bool short_rows(const softmax_job *j) { return j->inner == 1 && j->n <= SHORT && j->outer >= SHORT; }

static void softmax_tasks(void *context, size_t begin, size_t end) {
  const softmax_job *j = context;
  if (short_rows(j)) {
    for (size_t t = begin; t < end; t++) softmax_short(j, (int64_t)t * BAND);
    return;
  }
  if (j->inner == 1) {
    softmax_rows(j, begin, end);
    return;
  }
  if (few_columns(j)) {
    const size_t together = (size_t)(TURNED / (j->n * j->inner));
    for (size_t t = begin; t < end; t += together) softmax_slices(j, (int64_t)t, end - t < together ? end - t : together);
    return;
  }
  for (size_t t = begin; t < end; t++) {
    int64_t outer = (int64_t)t / j->bands, from = (int64_t)t % j->bands * BAND;
    softmax_band(j, outer * j->n * j->inner + from, j->inner - from < BAND ? (size_t)(j->inner - from) : BAND);
  }
}

static cml_status run_softmax(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, -1, x->rank, &axis, err));
  softmax_job j = {.x = x, .out = c->outs[0], .n = x->dims[axis], .inner = 1, .logarithm = c->op->params == log_softmax_params};
  if (j.logarithm) j.low = (float)cml_arg_float(c, 2, -INFINITY);
  j.outer = 1;
  for (int32_t i = 0; i < axis; i++) j.outer *= x->dims[i];
  for (int32_t i = axis + 1; i < x->rank; i++) j.inner *= x->dims[i];
  if (!cml_tensor_count(x)) return CML_OK;
  j.bands = (j.inner + BAND - 1) / BAND;
  const bool many = short_rows(&j);
  const int64_t work = j.n * (!many && j.inner < BAND ? j.inner : BAND), tasks = many ? (j.outer + BAND - 1) / BAND : j.outer * j.bands;
  cml_parallel(c->pool, (size_t)tasks, (size_t)(work < 8192 ? 8192 / work : 1), softmax_tasks, &j);
  return CML_OK;
}

/* ---- the table: first the rows beside `maps` ---- */

#define ROW(text, since_, until_, flags_, parameters, infer_, run_, ...)                                        \
  {.name = text, .since = since_, .until = until_, .flags = flags_, .min_outputs = 1, .max_outputs = 1,         \
   CML_PARAMS(parameters), .infer = infer_, .run = run_, __VA_ARGS__},
#define MAP_ROW(text, since_, until_, parameters, infer_, map_) \
  ROW(text, since_, until_, CML_OP_IN_PLACE, parameters, infer_, cml_elementwise_call, .elementwise = map_)

static const cml_op rows[] = {
#define PLAIN_ROW(tag) MAP_ROW(#tag, CML_IOS15, 0, plain_params, infer_scalars, scalars_map)
#define SCALAR_ROWS(tag, group)                                                                                \
  MAP_ROW(#tag, CML_IOS15, CML_IOS16, group##_15_params, infer_scalars, scalars_map)                           \
  MAP_ROW(#tag, CML_IOS17, 0, group##_17_params, infer_scalars, scalars_map)
#define ALPHA_ROWS(tag) SCALAR_ROWS(tag, alpha)
#define BOTH_ROWS(tag) SCALAR_ROWS(tag, both)
    PLAIN_MAP(PLAIN_ROW) ALPHA_MAP(ALPHA_ROWS) BOTH_MAP(BOTH_ROWS)
    MAP_ROW("gelu", CML_IOS15, 0, gelu_params, infer_gelu, gelu_map)
    ROW("prelu", CML_IOS15, CML_IOS16, CML_OP_IN_PLACE, alpha_15_params, infer_channels, run_channels)
    ROW("prelu", CML_IOS17, 0, CML_OP_IN_PLACE, alpha_17_params, infer_channels, run_channels)
    ROW("softplus_parametric", CML_IOS15, CML_IOS16, CML_OP_IN_PLACE, both_15_params, infer_channels, run_channels)
    ROW("softplus_parametric", CML_IOS17, 0, CML_OP_IN_PLACE, both_17_params, infer_channels, run_channels)
    ROW("softmax", CML_IOS15, 0, CML_OP_IN_PLACE, softmax_params, infer_softmax, run_softmax)
    ROW("cml_log_softmax", CML_IOS15, 0, CML_OP_IN_PLACE | CML_OP_INTERNAL, log_softmax_params, infer_softmax, run_softmax)
};

const cml_op_family cml_ops_activation = {"activation", rows, sizeof rows / sizeof *rows};
