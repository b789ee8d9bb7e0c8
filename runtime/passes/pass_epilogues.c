/* convolution or linear -> (+ residual) -> activation becomes one step, which finishes each block while it is in the cache. The
 * step takes the place of the last of them, where all arguments are known. */
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

static uint32_t other_term(const cml_graph *g, const cml_step *s, uint32_t value) {
  if (!cml_pass_is(s, "add")) return CML_NO_VALUE;
  uint32_t x = cml_pass_arg(s, "x"), y = cml_pass_arg(s, "y"), other = x == value ? y : x;
  const cml_tensor *a = cml_pass_type(g, value), *b = other == CML_NO_VALUE ? NULL : cml_pass_type(g, other);
  if (!b || x == y || a->dtype != b->dtype || !cml_tensor_known_shape(a) || !cml_tensor_known_shape(b) || !cml_tensor_same_shape(a, b)) return CML_NO_VALUE;
  return g->values[other].role == CML_ROLE_STATE ? CML_NO_VALUE : other;
}

static bool constant_or_absent(const cml_graph *g, uint32_t v) { return v == CML_NO_VALUE || g->values[v].role == CML_ROLE_CONSTANT; }

/* known: values that `uses` covers. */
static cml_status fuse(cml_graph *g, cml_use *uses, size_t known, cml_step *s, cml_error *err) {
  bool linear = cml_pass_is(s, "linear"), transpose = cml_pass_is(s, "conv_transpose"), conv = transpose || cml_pass_is(s, "conv");
  if (!linear && !conv) return CML_OK;
  uint32_t weight = cml_pass_arg(s, "weight"), bias = cml_pass_arg(s, "bias"), residual = CML_NO_VALUE;
  cml_dtype type = cml_pass_type(g, s->outs[0])->dtype;
  if (!constant_or_absent(g, weight) || !constant_or_absent(g, bias) || (type != CML_F16 && type != CML_F32) ||
      !cml_dtype_is_float(cml_pass_type(g, weight)->dtype))
    return CML_OK;
  cml_step *last = s, *parts[3] = {s};
  size_t count = 1;
  activation f = {.f = CML_UNARY_COPY};
  cml_step *next = cml_pass_only_user(g, uses, last->outs[0]);
  if (next && (residual = other_term(g, next, last->outs[0])) != CML_NO_VALUE) {
    parts[count++] = last = next;
    next = cml_pass_only_user(g, uses, last->outs[0]);
  }
  if (next && cml_pass_arg(next, "x") == last->outs[0] && read_activation(g, next, &f)) parts[count++] = last = next;
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
  /* what the joined steps used is now used by the last of them */
  uint32_t at = (uint32_t)(last - g->body.steps), moved[] = {cml_pass_arg(last, "x"), residual};
  for (size_t i = 0; i < 2; i++)
    if (moved[i] != CML_NO_VALUE && moved[i] < known && uses[moved[i]].step < at) uses[moved[i]].step = at;
  return CML_OK;
}

cml_status cml_pass_epilogues(cml_graph *g, cml_error *err) {
  cml_use *uses = cml_pass_uses(g);
  if (!uses) return cml_fail_memory(err);
  cml_status status = CML_OK;
  /* no value is used more or less often after a fusion: the counts stay right */
  size_t known = g->value_count;
  for (size_t i = 0; i < g->body.step_count && !status; i++) status = fuse(g, uses, known, &g->body.steps[i], err);
  free(uses);
  return status;
}
