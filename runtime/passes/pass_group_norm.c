/* Group normalisation as converters write it out: reshape to [N, G, C/G, ...], mean, subtraction, mean of squares, + epsilon,
 * square root, division, reshape back; an activation behind it joins. One step then reads its input twice and writes once. */

#include "kernels.h"
#include "passes.h"

static cml_step *maker(cml_graph *g, size_t before, uint32_t value) {
  for (size_t i = before; value != CML_NO_VALUE && i-- > 0;) {
    cml_step *s = &g->body.steps[i];
    if (s->op && !s->folded && s->out_count == 1 && s->outs[0] == value) return s;
  }
  return NULL;
}

/* Axes 2 and up of a value, all of them, kept. */
static bool over_groups(const cml_graph *g, const cml_step *s) {
  uint32_t axes = cml_pass_arg(s, "axes"), keep = cml_pass_arg(s, "keep_dims");
  const cml_tensor *x = cml_pass_type(g, cml_pass_arg(s, "x"));
  if (axes == CML_NO_VALUE || keep == CML_NO_VALUE || !cml_pass_type(g, axes)->data || !cml_pass_type(g, keep)->data) return false;
  if (!cml_tensor_get_int(cml_pass_type(g, keep), 0) || cml_tensor_count(cml_pass_type(g, axes)) != x->rank - 2) return false;
  uint32_t seen = 0;
  for (int64_t i = 0; i < x->rank - 2; i++) {
    int64_t a = cml_tensor_get_int(cml_pass_type(g, axes), i);
    if (a < 0) a += x->rank;
    if (a < 2 || a >= x->rank) return false;
    seen |= 1u << a;
  }
  return seen == ((1u << x->rank) - 1) - 3;
}

static cml_status fuse(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *last = &g->body.steps[at], *division, *center, *root, *add, *variance, *square, *mean, *split;
  if (!cml_pass_is(last, "reshape") || !(division = maker(g, at, cml_pass_arg(last, "x"))) || !cml_pass_is(division, "real_div")) return CML_OK;
  if (!(center = maker(g, at, cml_pass_arg(division, "x"))) || !cml_pass_is(center, "sub")) return CML_OK;
  if (!(root = maker(g, at, cml_pass_arg(division, "y"))) || !cml_pass_is(root, "sqrt")) return CML_OK;
  if (!(add = maker(g, at, cml_pass_arg(root, "x"))) || !cml_pass_is(add, "add")) return CML_OK;
  if (!(variance = maker(g, at, cml_pass_arg(add, "x"))) || !cml_pass_is(variance, "reduce_mean")) return CML_OK;
  if (!(square = maker(g, at, cml_pass_arg(variance, "x"))) || !cml_pass_is(square, "square") || cml_pass_arg(square, "x") != center->outs[0]) return CML_OK;
  if (!(mean = maker(g, at, cml_pass_arg(center, "y"))) || !cml_pass_is(mean, "reduce_mean")) return CML_OK;
  if (!(split = maker(g, at, cml_pass_arg(center, "x"))) || !cml_pass_is(split, "reshape") || cml_pass_arg(mean, "x") != split->outs[0]) return CML_OK;
  cml_step *parts[] = {division, center, root, add, variance, square, mean, split};
  static const uint32_t counts[] = {1, 2, 1, 1, 1, 1, 1, 2};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (uses[parts[i]->outs[0]].count != counts[i]) return CML_OK;
  uint32_t x = cml_pass_arg(split, "x"), epsilon = cml_pass_arg(add, "y");
  const cml_tensor *xt = cml_pass_type(g, x), *grouped = cml_pass_type(g, split->outs[0]), *out = cml_pass_type(g, last->outs[0]);
  const cml_tensor *e = epsilon == CML_NO_VALUE ? NULL : cml_pass_type(g, epsilon);
  if (!e || !e->data || !cml_dtype_is_float(e->dtype) || cml_tensor_count(e) != 1) return CML_OK;
  if (!cml_tensor_known_shape(xt) || !cml_tensor_known_shape(grouped) || !cml_tensor_known_shape(out) || xt->rank < 3 ||
      !cml_tensor_same_shape(xt, out) || (xt->dtype != CML_F16 && xt->dtype != CML_F32))
    return CML_OK;
  if (grouped->rank != xt->rank + 1 || grouped->dims[0] != xt->dims[0] || grouped->dims[1] * grouped->dims[2] != xt->dims[1]) return CML_OK;
  for (int32_t i = 2; i < xt->rank; i++)
    if (grouped->dims[i + 1] != xt->dims[i]) return CML_OK;
  if (!over_groups(g, mean) || !over_groups(g, variance)) return CML_OK;
  int64_t groups = grouped->dims[1];
  float eps = (float)cml_tensor_get(e, 0);
  cml_unary f = CML_UNARY_COPY;
  uint32_t v = last->outs[0];
  if (uses[v].count == 1 && uses[v].step < g->body.step_count) {
    cml_step *next = &g->body.steps[uses[v].step];
    bool silu = cml_pass_is(next, "silu"), relu = cml_pass_is(next, "relu");
    if (silu || relu) {
      f = silu ? CML_UNARY_SILU : CML_UNARY_RELU;
      last->op = NULL;
      last = next;
    }
  }
  const cml_binding bindings[] = {{"x", x}, {"groups", cml_pass_int(g, groups)}, {"epsilon", cml_pass_float(g, eps)}, {"activation", cml_pass_int(g, f)}};
  CML_TRY(cml_pass_become(g, last, "cml_group_norm", bindings, sizeof bindings / sizeof *bindings, err));
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) parts[i]->op = NULL;
  return CML_OK;
}

cml_status cml_pass_group_norm(cml_graph *g, cml_error *err) {
  return cml_pass_each(g, fuse, err);
}
