/* A convolution of single pixels whose result a depthwise one alone reads becomes one step with it: the image between, several times as
 * large as those around it, is not written. It runs after `epilogues` and `layout`: both are cml_conv with their channels last. */
#include "conv.h"
#include "passes.h"

/* A cml_conv of known sizes by constants; its weight. */
static const cml_tensor *weight_of(const cml_graph *g, const cml_step *s) {
  if (!cml_pass_is(s, "cml_conv") || cml_pass_number(g, s, "layout", 0) != 1 || !cml_pass_constant(g, s, "weight")) return NULL;
  if (cml_pass_arg(s, "bias") != CML_NO_VALUE && !cml_pass_constant(g, s, "bias")) return NULL;
  const cml_tensor *w = cml_pass_constant(g, s, "weight"), *x = cml_pass_type(g, cml_pass_arg(s, "x")), *y = cml_pass_type(g, s->outs[0]);
  return w->rank == 4 && cml_dtype_is_float(w->dtype) && x->rank == 4 && cml_tensor_known_shape(x) && cml_tensor_known_shape(y) ? w : NULL;
}

static bool each_is(const cml_graph *g, const cml_step *s, const char *param, int64_t value) {
  const cml_tensor *t = cml_pass_constant(g, s, param);
  for (int64_t i = 0; t && i < cml_tensor_count(t); i++)
    if ((int64_t)cml_tensor_get(t, i) != value) return false;
  return t || cml_pass_arg(s, param) == CML_NO_VALUE;
}

static bool of_pixels(const cml_graph *g, const cml_step *s) {
  const cml_tensor *w = weight_of(g, s), *x, *y;
  if (!w || w->dims[2] != 1 || w->dims[3] != 1 || cml_pass_number(g, s, "groups", 1) != 1 || !each_is(g, s, "strides", 1)) return false;
  x = cml_pass_type(g, cml_pass_arg(s, "x")), y = cml_pass_type(g, s->outs[0]);
  return x->dims[1] == y->dims[1] && x->dims[2] == y->dims[2] && each_is(g, s, "pad", 0) && cml_pass_arg(s, "residual") == CML_NO_VALUE;
}

static cml_status fuse(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *first = &g->body.steps[at], *second;
  if (!of_pixels(g, first) || !(second = cml_pass_only_user(g, uses, first->outs[0]))) return CML_OK;
  const cml_tensor *w = weight_of(g, second), *x = cml_pass_type(g, cml_pass_arg(first, "x")), *y = cml_pass_type(g, second->outs[0]);
  if (!w || w->dims[1] != 1 || (int64_t)cml_pass_number(g, second, "groups", 1) != w->dims[0] || w->dims[0] != cml_pass_type(g, first->outs[0])->dims[3] ||
      cml_pass_arg(second, "x") != first->outs[0])
    return CML_OK;
  cml_conv v = {.batch = (size_t)x->dims[0], .channels = (size_t)w->dims[0], .outputs = (size_t)w->dims[0], .groups = (size_t)w->dims[0],
                .in = {1, x->dims[1], x->dims[2]}, .out = {1, y->dims[1], y->dims[2]}, .kernel = {1, w->dims[2], w->dims[3]}, .stride = {1, 1, 1},
                .dilation = {1, 1, 1}, .in_last = true, .out_last = true, .planar = true};
  const cml_tensor *strides = cml_pass_constant(g, second, "strides"), *dilations = cml_pass_constant(g, second, "dilations");
  if ((strides && cml_tensor_count(strides) != 2) || (dilations && cml_tensor_count(dilations) != 2)) return CML_OK;
  for (int64_t i = 0; i < 2; i++) {
    if (strides) v.stride[i + 1] = (int64_t)cml_tensor_get(strides, i);
    if (dilations) v.dilation[i + 1] = (int64_t)cml_tensor_get(dilations, i);
  }
  cml_conv_place_all(&v);
  if (!cml_conv_pair_fits(cml_kernels_get(), &v)) return CML_OK;
  static const char *const own[] = {"weight", "bias", "strides", "pad_type", "pad", "dilations", "groups", "residual", "activation", "alpha", "beta"};
  static const char *const firsts[][2] = {{"x", "x"}, {"weight", "before_weight"}, {"bias", "before_bias"}, {"activation", "before_activation"},
                                          {"alpha", "before_alpha"}, {"beta", "before_beta"}};
  enum { OWN = sizeof own / sizeof *own, FIRSTS = sizeof firsts / sizeof *firsts };
  cml_binding bindings[OWN + FIRSTS];
  for (size_t i = 0; i < OWN; i++) bindings[i] = (cml_binding){own[i], cml_pass_arg(second, own[i])};
  for (size_t i = 0; i < FIRSTS; i++) bindings[OWN + i] = (cml_binding){firsts[i][1], cml_pass_arg(first, firsts[i][0])};
  CML_TRY(cml_pass_become(g, second, "cml_conv_pair", bindings, OWN + FIRSTS, err));
  first->op = NULL;
  return CML_OK;
}

cml_status cml_pass_pairs(cml_graph *g, cml_error *err) { return cml_pass_each(g, fuse, err); }
