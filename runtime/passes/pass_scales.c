/* A convolution whose result is scaled and shifted by constants, one a channel (batch_norm, mul, real_div, add, sub), does so with
 * weights and a bias that are scaled beforehand. */
#include <math.h>
#include <stdlib.h>

#include "mapping.h"
#include "passes.h"

/* y = scale[c] x + shift[c] */
typedef struct affine {
  int64_t channels;
  double *scale, *shift;
} affine;

static const cml_tensor *constant(const cml_graph *g, const cml_step *s, const char *param) {
  const cml_tensor *t = cml_pass_constant(g, s, param);
  return t && cml_dtype_is_float(t->dtype) ? t : NULL;
}

/* Whether a constant broadcasts along all dims of a tensor of this rank but the channels, dim 1. */
static bool is_per_channel(const cml_tensor *t, int32_t rank, int64_t channels) {
  if (!cml_tensor_known_shape(t) || t->rank > rank) return false;
  for (int32_t i = 0; i < t->rank; i++) {
    int64_t dim = t->dims[t->rank - 1 - i];
    if (dim != 1 && (i != rank - 2 || dim != channels)) return false;
  }
  return true;
}

static double at(const cml_tensor *t, int64_t c) { return cml_tensor_get(t, cml_tensor_count(t) == 1 ? 0 : c); }

static bool join_norm(const cml_graph *g, const cml_step *s, affine *f) {
  const cml_tensor *mean = constant(g, s, "mean"), *variance = constant(g, s, "variance"), *gamma = constant(g, s, "gamma"),
                   *beta = constant(g, s, "beta"), *epsilon = constant(g, s, "epsilon");
  if (!mean || !variance || (!gamma && cml_pass_arg(s, "gamma") != CML_NO_VALUE) || (!beta && cml_pass_arg(s, "beta") != CML_NO_VALUE)) return false;
  if (!epsilon && cml_pass_arg(s, "epsilon") != CML_NO_VALUE) return false;
  const cml_tensor *all[] = {mean, variance, gamma, beta};
  for (size_t i = 0; i < 4; i++)
    if (all[i] && (all[i]->rank != 1 || all[i]->dims[0] != f->channels)) return false;
  for (int64_t c = 0; c < f->channels; c++) {
    double scale = (gamma ? at(gamma, c) : 1) / sqrt(at(variance, c) + (epsilon ? at(epsilon, 0) : 1e-5));
    f->shift[c] = (f->shift[c] - at(mean, c)) * scale + (beta ? at(beta, c) : 0);
    f->scale[c] *= scale;
  }
  return true;
}

/* x op constant, or constant op x where that is the same. */
static bool join_binary(const cml_graph *g, const cml_step *s, uint32_t value, affine *f) {
  bool mul = cml_pass_is(s, "mul"), add = cml_pass_is(s, "add"), sub = cml_pass_is(s, "sub"), div = cml_pass_is(s, "real_div");
  if (!mul && !add && !sub && !div) return false;
  bool first = cml_pass_arg(s, "x") == value;
  const cml_tensor *t = constant(g, s, first ? "y" : "x"), *x = cml_pass_type(g, value);
  if (!t || (!first && !mul && !add) || !is_per_channel(t, x->rank, f->channels)) return false;
  for (int64_t c = 0; c < f->channels; c++) {
    double k = mul ? at(t, c) : div ? 1 / at(t, c) : 1, b = add ? at(t, c) : sub ? -at(t, c) : 0;
    f->scale[c] *= k;
    f->shift[c] = f->shift[c] * k + b;
  }
  return true;
}

/* ---- the new constants ---- */

/* Fails to fit when a float16 would overflow or a channel's scale is no number. */
static bool store(cml_tensor *t, int64_t i, double x) {
  cml_tensor_set(t, i, x);
  return isfinite(cml_tensor_get(t, i));
}

static bool scale_weight(const cml_tensor *from, cml_tensor *to, const affine *f, bool transpose, int64_t groups) {
  int64_t inner = 1, a = from->dims[0], b = from->dims[1];
  for (int32_t i = 2; i < from->rank; i++) inner *= from->dims[i];
  for (int64_t i = 0; i < a; i++)
    for (int64_t k = 0; k < b; k++) {
      double scale = f->scale[transpose ? i / (a / groups) * b + k : i];
      int64_t n = (i * b + k) * inner, end = n + inner;
      bool fits = true;
      if (from->dtype == CML_F32) /* most weights: no look at the type of each */
        for (; n < end; n++) fits &= isfinite(((float *)to->data)[n] = (float)((double)((const float *)from->data)[n] * scale)) != 0;
      for (; n < end; n++) fits = store(to, n, cml_tensor_get(from, n) * scale) && fits;
      if (!fits) return false;
    }
  return true;
}

static cml_status new_constant(cml_graph *g, const cml_tensor *like, uint32_t *value, cml_tensor **out, cml_error *err) {
  cml_tensor t = *like;
  CML_TRY(cml_graph_constant(g, &t, err));
  if ((*value = cml_pass_value(g, "", &t, CML_ROLE_CONSTANT)) == CML_NO_VALUE) return cml_fail_memory(err);
  *out = &g->values[*value].type;
  return CML_OK;
}

/* The convolution with other constants takes the place of `last`, the step that it has joined. */
static cml_status rewrite(cml_graph *g, cml_step *s, cml_step *last, const affine *f, bool *done, cml_error *err) {
  bool transpose = cml_pass_is(s, "conv_transpose");
  uint32_t weight = cml_pass_arg(s, "weight"), bias = cml_pass_arg(s, "bias");
  const cml_tensor *groups = cml_pass_arg(s, "groups") == CML_NO_VALUE ? NULL : cml_pass_type(g, cml_pass_arg(s, "groups"));
  cml_tensor like = {.dtype = cml_pass_type(g, s->outs[0])->dtype, .rank = 1, .dims = {f->channels}}, w = *cml_pass_type(g, weight), *to = NULL;
  uint32_t new_weight, new_bias;
  CML_TRY(new_constant(g, &w, &new_weight, &to, err));
  if (!scale_weight(&w, to, f, transpose, groups ? cml_tensor_get_int(groups, 0) : 1)) return CML_OK;
  CML_TRY(new_constant(g, &like, &new_bias, &to, err));
  for (int64_t c = 0; c < f->channels; c++)
    if (!store(to, c, (bias == CML_NO_VALUE ? 0 : cml_tensor_get(cml_pass_type(g, bias), c)) * f->scale[c] + f->shift[c])) return CML_OK;
  const cml_binding bindings[] = {
      {"x", cml_pass_arg(s, "x")}, {"weight", new_weight}, {"bias", new_bias}, {"strides", cml_pass_arg(s, "strides")},
      {"pad_type", cml_pass_arg(s, "pad_type")}, {"pad", cml_pass_arg(s, "pad")}, {"dilations", cml_pass_arg(s, "dilations")},
      {"groups", cml_pass_arg(s, "groups")}, {"output_shape", transpose ? cml_pass_arg(s, "output_shape") : CML_NO_VALUE}};
  CML_TRY(cml_pass_become(g, last, s->op->name, bindings, sizeof bindings / sizeof *bindings, err));
  last->name = s->name;
  cml_mapping_drop(w.data, (size_t)cml_tensor_count(&w) * cml_dtype_bits(w.dtype) / 8); /* the file's are not read again */
  *done = true;
  return CML_OK;
}

static cml_status fold(cml_graph *g, const cml_use *uses, size_t i, cml_error *err) {
  cml_step *s = &g->body.steps[i], *last = s, *joined[8];
  if (!cml_pass_is(s, "conv") && !cml_pass_is(s, "conv_transpose")) return CML_OK;
  const cml_tensor *weight = constant(g, s, "weight"), *bias = constant(g, s, "bias"), *y = cml_pass_type(g, s->outs[0]);
  if (!weight || weight->rank < 3 || y->rank < 3 || y->dims[1] < 1 || weight->dtype != y->dtype || (!bias && cml_pass_arg(s, "bias") != CML_NO_VALUE))
    return CML_OK;
  affine f = {.channels = y->dims[1], .scale = calloc((size_t)y->dims[1], sizeof(double)), .shift = calloc((size_t)y->dims[1], sizeof(double))};
  size_t count = 0;
  cml_status status = f.scale && f.shift ? CML_OK : cml_fail_memory(err);
  for (int64_t c = 0; !status && c < f.channels; c++) f.scale[c] = 1;
  while (!status && count < sizeof joined / sizeof *joined) {
    cml_step *next = cml_pass_only_user(g, uses, last->outs[0]);
    if (!next || !(cml_pass_is(next, "batch_norm") ? join_norm(g, next, &f) : join_binary(g, next, last->outs[0], &f))) break;
    joined[count++] = last = next;
  }
  bool done = false;
  if (!status && count) status = rewrite(g, s, last, &f, &done, err);
  if (done) {
    s->op = NULL;
    for (size_t k = 0; k + 1 < count; k++) joined[k]->op = NULL;
  }
  free(f.scale);
  free(f.shift);
  return status;
}

cml_status cml_pass_scales(cml_graph *g, cml_error *err) { return cml_pass_each(g, fold, err); }
