/* convolution or linear -> (+ residual) -> activation becomes one step, which finishes each block while it is in the cache. The
 * step takes the place of the last of them, where all arguments are known. An activation behind reshapes and transposes of such a result, as where
 * rows and columns become tokens, goes before them first. Normalisations by constants (batch_norm) become a factor
 * and a term of each channel in the same way, and a softmax takes in the logarithm behind it. */
#include <math.h>
#include <stdlib.h>

#include "kernels.h"
#include "passes.h"

typedef struct activation {
  cml_unary f;
  float a, b;
} activation;

static bool scalar(const cml_graph *g, const cml_step *s, const char *param, float otherwise, float *out) {
  uint32_t v = cml_pass_arg(s, param);
  *out = otherwise;
  if (v == CML_NO_VALUE) return true;
  const cml_tensor *t = cml_pass_type(g, v);
  if (!t->data || !cml_dtype_is_float(t->dtype)) return false;
  *out = (float)cml_tensor_get(t, 0);
  return true;
}

static bool read_activation(const cml_graph *g, const cml_step *s, activation *out) {
  static const struct { const char *name; cml_unary f; } plain[] = {
      {"relu", CML_UNARY_RELU}, {"silu", CML_UNARY_SILU}, {"sigmoid", CML_UNARY_SIGMOID}, {"tanh", CML_UNARY_TANH}, {"softplus", CML_UNARY_SOFTPLUS},
  };
  *out = (activation){.f = CML_UNARY_COPY};
  if (!s->op || s->folded) return false;
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (!strcmp(s->op->name, plain[i].name)) return out->f = plain[i].f, true;
  if (!strcmp(s->op->name, "relu6")) return *out = (activation){CML_UNARY_CLIP, 0, 6}, true;
  if (!strcmp(s->op->name, "clip")) return out->f = CML_UNARY_CLIP, scalar(g, s, "alpha", 0, &out->a) && scalar(g, s, "beta", 0, &out->b);
  if (!strcmp(s->op->name, "sigmoid_hard"))
    return out->f = CML_UNARY_HARD_SIGMOID, scalar(g, s, "alpha", 0.2f, &out->a) && scalar(g, s, "beta", 0.5f, &out->b);
  if (!strcmp(s->op->name, "elu")) return out->f = CML_UNARY_ELU, scalar(g, s, "alpha", 1, &out->a);
  if (!strcmp(s->op->name, "leaky_relu")) return out->f = CML_UNARY_LEAKY_RELU, scalar(g, s, "alpha", 0.01f, &out->a);
  if (!strcmp(s->op->name, "gelu")) {
    uint32_t mode = cml_pass_arg(s, "mode");
    const cml_tensor *t = mode == CML_NO_VALUE ? NULL : cml_pass_type(g, mode);
    const char *text = !t ? "EXACT" : t->data && t->dtype == CML_STRING ? ((const cml_string *)t->data)->data : "";
    out->f = !strcmp(text, "EXACT") ? CML_UNARY_GELU : !strcmp(text, "TANH_APPROXIMATION") ? CML_UNARY_GELU_TANH
             : !strcmp(text, "SIGMOID_APPROXIMATION") ? CML_UNARY_GELU_SIGMOID : CML_UNARY_COPY;
    return out->f != CML_UNARY_COPY;
  }
  return false;
}

bool cml_pass_activation(const cml_graph *g, const cml_step *s, cml_unary *f, float *a, float *b) {
  activation out;
  if (!read_activation(g, s, &out)) return false;
  *f = out.f, *a = out.a, *b = out.b;
  return true;
}

/* value * gate(value), the gate a (hard) sigmoid, as silu and hard_swish are written out; for hard_swish torch's converter puts a
 * threshold before it, where the gate is 0 anyhow. Fills the steps and returns how many they are. */
static size_t gated(cml_graph *g, const cml_use *uses, uint32_t value, activation *f, cml_step **steps) {
  cml_step *threshold = cml_pass_only_user(g, uses, value);
  float least = 0;
  size_t count = 0;
  if (threshold && cml_pass_is(threshold, "thresholded_relu") && scalar(g, threshold, "alpha", 1, &least)) {
    value = threshold->outs[0];
    steps[count++] = threshold;
  }
  if (uses[value].count != 2 || uses[value].step >= g->body.step_count) return 0;
  cml_step *product = &g->body.steps[uses[value].step];
  if (!cml_pass_is(product, "mul")) return 0;
  uint32_t x = cml_pass_arg(product, "x"), y = cml_pass_arg(product, "y"), other = x == value ? y : x;
  cml_step *gate = other == CML_NO_VALUE || (x != value && y != value) ? NULL : cml_pass_maker(g, (size_t)(product - g->body.steps), other);
  if (!gate || uses[other].count != 1 || !read_activation(g, gate, f) || cml_pass_arg(gate, "x") != value) return 0;
  float slack = cml_pass_type(g, value)->dtype == CML_F16 ? 1e-3f : 1e-5f; /* the slope may have been rounded */
  if (f->f == CML_UNARY_HARD_SIGMOID && (!count || fabsf(f->a * least + f->b) < slack)) f->f = CML_UNARY_HARD_SWISH;
  else if (f->f == CML_UNARY_SIGMOID && !count) f->f = CML_UNARY_SILU;
  else return 0;
  steps[count++] = gate;
  steps[count++] = product;
  return count;
}

/* What follows the last of the steps, an activation in one step or in several. */
static size_t follow(cml_graph *g, const cml_use *uses, uint32_t value, activation *f, cml_step **steps) {
  cml_step *next = cml_pass_only_user(g, uses, value);
  if (next && cml_pass_arg(next, "x") == value && read_activation(g, next, f)) return steps[0] = next, 1;
  size_t count = gated(g, uses, value, f, steps);
  if (!count) f->f = CML_UNARY_COPY;
  return count;
}

static uint32_t other_term(const cml_graph *g, const cml_step *s, uint32_t value) {
  if (!cml_pass_is(s, "add")) return CML_NO_VALUE;
  uint32_t x = cml_pass_arg(s, "x"), y = cml_pass_arg(s, "y"), other = x == value ? y : x;
  const cml_tensor *a = cml_pass_type(g, value), *b = other == CML_NO_VALUE ? NULL : cml_pass_type(g, other);
  if (!b || x == y || a->dtype != b->dtype || !cml_tensor_known_shape(a) || !cml_tensor_known_shape(b) || !cml_tensor_same_shape(a, b)) return CML_NO_VALUE;
  return g->values[other].role == CML_ROLE_STATE ? CML_NO_VALUE : other;
}

static bool constant_or_absent(const cml_graph *g, uint32_t v) { return v == CML_NO_VALUE || g->values[v].role == CML_ROLE_CONSTANT; }

/* What joined steps used is now used by the last of them. known: values that `uses` covers. */
static void move_use(const cml_graph *g, cml_use *uses, size_t known, uint32_t value, const cml_step *last) {
  uint32_t at = (uint32_t)(last - g->body.steps);
  if (value != CML_NO_VALUE && value < known && uses[value].step < at) uses[value].step = at;
}

static cml_status fuse(cml_graph *g, cml_use *uses, size_t known, cml_step *s, cml_error *err) {
  bool linear = cml_pass_is(s, "linear"), transpose = cml_pass_is(s, "conv_transpose"), conv = transpose || cml_pass_is(s, "conv");
  if (!linear && !conv) return CML_OK;
  uint32_t weight = cml_pass_arg(s, "weight"), bias = cml_pass_arg(s, "bias"), residual = CML_NO_VALUE;
  cml_dtype type = cml_pass_type(g, s->outs[0])->dtype;
  if (!constant_or_absent(g, weight) || !constant_or_absent(g, bias) || (type != CML_F16 && type != CML_F32) ||
      !cml_dtype_is_float(cml_pass_type(g, weight)->dtype))
    return CML_OK;
  cml_step *last = s, *parts[5] = {s};
  size_t count = 1;
  activation f = {.f = CML_UNARY_COPY};
  cml_step *next = cml_pass_only_user(g, uses, last->outs[0]);
  if (next && (residual = other_term(g, next, last->outs[0])) != CML_NO_VALUE) {
    parts[count++] = last = next;
  }
  count += follow(g, uses, last->outs[0], &f, parts + count);
  last = parts[count - 1];
  if (count == 1 && linear) return CML_OK;
  const cml_binding bindings[] = {
      {"x", cml_pass_arg(s, "x")}, {"weight", weight}, {"bias", bias}, {"strides", cml_pass_arg(s, "strides")},
      {"pad_type", cml_pass_arg(s, "pad_type")}, {"pad", cml_pass_arg(s, "pad")}, {"dilations", cml_pass_arg(s, "dilations")},
      {"groups", cml_pass_arg(s, "groups")}, {"residual", residual}, {"activation", cml_pass_int(g, f.f)},
      {"alpha", cml_pass_float(g, f.a)}, {"beta", cml_pass_float(g, f.b)}, {"output_shape", transpose ? cml_pass_arg(s, "output_shape") : CML_NO_VALUE},
  };
  const char *name = s->name;
  CML_TRY(cml_pass_become(g, last, linear ? "cml_linear" : transpose ? "cml_conv_transpose" : "cml_conv", bindings, sizeof bindings / sizeof *bindings, err));
  last->name = name;
  for (size_t i = 0; i + 1 < count; i++) parts[i]->op = NULL;
  move_use(g, uses, known, cml_pass_arg(last, "x"), last);
  move_use(g, uses, known, residual, last);
  return CML_OK;
}

/* ---- activations behind views ---- */

static bool moves_elements(const cml_step *s) {
  return cml_pass_is(s, "reshape") || cml_pass_is(s, "transpose") || cml_pass_is(s, "expand_dims") || cml_pass_is(s, "squeeze");
}

/* f(view(x)) becomes view(f(x)): the steps change places, the values between them stay. */
static cml_status change_places(cml_graph *g, cml_step *view, cml_step *f, cml_error *err) {
  const uint32_t x = cml_pass_arg(view, "x"), between = view->outs[0];
  cml_tensor *declared = CML_ARENA_NEW(&g->arena, cml_tensor);
  if (!declared) return cml_fail_memory(err);
  const cml_step moved = *view;
  *declared = *cml_pass_type(g, x);
  CML_TRY(cml_pass_become_like(g, view, f->op->name, f, &(cml_binding){"x", x}, 1, err));
  CML_TRY(cml_pass_become_like(g, f, moved.op->name, &moved, &(cml_binding){"x", between}, 1, err));
  view->name = f->name, f->name = moved.name;
  view->declared = declared;
  g->values[between].type = *declared;
  g->values[between].type.data = NULL;
  return CML_OK;
}

static cml_status move_before_views(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  enum { MOST = 4 };
  activation f;
  cml_step *views[MOST], *s = &g->body.steps[at], *maker = s;
  size_t count = 0;
  if (!read_activation(g, s, &f)) return CML_OK;
  for (;; views[count++] = maker) {
    const uint32_t x = cml_pass_arg(maker, "x");
    if (x == CML_NO_VALUE || uses[x].count != 1 || !(maker = cml_pass_maker(g, (size_t)(maker - g->body.steps), x))) return CML_OK;
    if (!moves_elements(maker)) break;
    if (count == MOST) return CML_OK;
  }
  if (!cml_pass_is(maker, "linear") && !cml_pass_is(maker, "conv") && !cml_pass_is(maker, "conv_transpose")) return CML_OK;
  for (size_t i = 0; i < count; s = views[i++]) CML_TRY(change_places(g, views[i], s, err));
  return CML_OK;
}

/* ---- the logarithm of a softmax ---- */

/* Exact but for rounding where what the logarithm adds to a quotient is at most the smallest float: that is then what takes the place of zeros. */
static cml_status fuse_log(cml_graph *g, cml_use *uses, size_t known, cml_step *s, cml_error *err) {
  cml_step *next = cml_pass_is(s, "softmax") ? cml_pass_only_user(g, uses, s->outs[0]) : NULL;
  cml_dtype type = cml_pass_type(g, s->outs[0])->dtype;
  float epsilon;
  if (!next || !cml_pass_is(next, "log") || (type != CML_F16 && type != CML_F32) || !scalar(g, next, "epsilon", 1e-45f, &epsilon)) return CML_OK;
  if (!(epsilon >= 0 && epsilon <= 1e-45f)) return CML_OK;
  const cml_binding bindings[] = {{"x", cml_pass_arg(s, "x")}, {"axis", cml_pass_arg(s, "axis")}, {"low", cml_pass_float(g, (float)log((double)epsilon))}};
  CML_TRY(cml_pass_become(g, next, "cml_log_softmax", bindings, sizeof bindings / sizeof *bindings, err));
  s->op = NULL;
  move_use(g, uses, known, cml_pass_arg(next, "x"), next);
  return CML_OK;
}

/* ---- batch_norm ---- */

static uint32_t float_vector(cml_graph *g, const float *values, int64_t count) {
  cml_tensor t = {.dtype = CML_F32, .rank = 1, .dims = {count}};
  if (!(t.data = cml_arena_array(&g->arena, (size_t)count + 16, sizeof(float)))) return CML_NO_VALUE;
  memcpy(t.data, values, (size_t)count * sizeof(float));
  return cml_pass_value(g, "", &t, CML_ROLE_CONSTANT);
}

/* Whether a parameter is absent or a constant vector of n. */
static bool vector_of(const cml_graph *g, uint32_t value, int64_t n, const cml_tensor **t) {
  *t = value == CML_NO_VALUE ? NULL : cml_pass_type(g, value);
  return !*t || ((*t)->data && cml_dtype_is_float((*t)->dtype) && (*t)->rank == 1 && (*t)->dims[0] == n);
}

static cml_status fuse_norm(cml_graph *g, cml_use *uses, size_t known, cml_step *s, cml_error *err) {
  if (!cml_pass_is(s, "batch_norm")) return CML_OK;
  const cml_tensor *x = cml_pass_type(g, cml_pass_arg(s, "x")), *mean, *variance, *gamma, *beta;
  float epsilon;
  if (x->rank < 3 || x->dims[1] < 1 || x->dims[1] > 1 << 20 || (x->dtype != CML_F16 && x->dtype != CML_F32)) return CML_OK;
  int64_t n = x->dims[1];
  if (!vector_of(g, cml_pass_arg(s, "mean"), n, &mean) || !vector_of(g, cml_pass_arg(s, "variance"), n, &variance) || !mean || !variance ||
      !vector_of(g, cml_pass_arg(s, "gamma"), n, &gamma) || !vector_of(g, cml_pass_arg(s, "beta"), n, &beta) || !scalar(g, s, "epsilon", 1e-5f, &epsilon))
    return CML_OK;
  float *values = malloc(2 * (size_t)n * sizeof *values), *terms = values + n;
  if (!values) return cml_fail_memory(err);
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    double scale = (gamma ? cml_tensor_get(gamma, i) : 1) / sqrt(cml_tensor_get(variance, i) + (double)epsilon);
    values[i] = (float)scale;
    terms[i] = (float)((beta ? cml_tensor_get(beta, i) : 0) - cml_tensor_get(mean, i) * scale);
    finite = finite && isfinite(values[i]) && isfinite(terms[i]); /* else x * scale + term is NaN where (x - mean) * scale is infinite */
  }
  if (!finite) return free(values), CML_OK;
  uint32_t scale = float_vector(g, values, n), bias = float_vector(g, terms, n);
  free(values);
  activation f = {.f = CML_UNARY_COPY};
  cml_step *parts[4] = {s};
  size_t count = 1 + follow(g, uses, s->outs[0], &f, parts + 1);
  const cml_binding bindings[] = {{"x", cml_pass_arg(s, "x")}, {"scale", scale}, {"bias", bias}, {"activation", cml_pass_int(g, f.f)},
                                  {"alpha", cml_pass_float(g, f.a)}, {"beta", cml_pass_float(g, f.b)}};
  if (scale == CML_NO_VALUE || bias == CML_NO_VALUE) return cml_fail_memory(err);
  CML_TRY(cml_pass_become(g, parts[count - 1], "cml_affine", bindings, sizeof bindings / sizeof *bindings, err));
  for (size_t i = 0; i + 1 < count; i++) parts[i]->op = NULL;
  move_use(g, uses, known, cml_pass_arg(parts[count - 1], "x"), parts[count - 1]);
  return CML_OK;
}

cml_status cml_pass_epilogues(cml_graph *g, cml_error *err) {
  CML_TRY(cml_pass_each(g, move_before_views, err));
  cml_use *uses = cml_pass_uses(g);
  if (!uses) return cml_fail_memory(err);
  cml_status status = CML_OK;
  /* no value is used more or less often after a fusion: the counts stay right */
  size_t known = g->value_count;
  for (size_t i = 0; i < g->body.step_count && !status; i++) {
    status = fuse(g, uses, known, &g->body.steps[i], err);
    if (!status) status = fuse_log(g, uses, known, &g->body.steps[i], err);
    if (!status) status = fuse_norm(g, uses, known, &g->body.steps[i], err);
  }
  free(uses);
  return status;
}
