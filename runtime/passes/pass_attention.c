/* matmul(q, k^T) -> * scale -> + mask -> softmax -> matmul(…, v), as converters write attention out, becomes one step that never
 * holds all scores. The scale and the mask are optional. */

#include "passes.h"

/* The step before that makes `value`, when nobody else uses it. */
static cml_step *maker(cml_graph *g, const cml_use *uses, size_t before, uint32_t value) {
  if (value == CML_NO_VALUE || uses[value].count != 1) return NULL;
  for (size_t i = before; i-- > 0;) {
    cml_step *s = &g->body.steps[i];
    if (s->op && !s->folded && s->out_count == 1 && s->outs[0] == value) return s;
  }
  return NULL;
}

static bool truth(const cml_graph *g, const cml_step *s, const char *param) {
  uint32_t v = cml_pass_arg(s, param);
  return v != CML_NO_VALUE && cml_pass_type(g, v)->data && cml_tensor_get_int(cml_pass_type(g, v), 0);
}

static bool scalar_constant(const cml_graph *g, uint32_t v, float *out) {
  if (v == CML_NO_VALUE) return false;
  const cml_tensor *t = cml_pass_type(g, v);
  if (!t->data || !cml_dtype_is_float(t->dtype) || !cml_tensor_known_shape(t) || cml_tensor_count(t) != 1) return false;
  *out = (float)cml_tensor_get(t, 0);
  return true;
}

static bool fits(const cml_graph *g, uint32_t q, uint32_t k, uint32_t v, uint32_t mask) {
  const cml_tensor *a = cml_pass_type(g, q), *b = cml_pass_type(g, k), *c = cml_pass_type(g, v);
  int32_t r = a->rank;
  if (r < 3 || r > 6 || b->rank != r || c->rank != r || a->dtype != b->dtype || a->dtype != c->dtype) return false;
  if (a->dtype != CML_F16 && a->dtype != CML_F32) return false;
  if (!cml_tensor_known_shape(a) || !cml_tensor_known_shape(b) || !cml_tensor_known_shape(c)) return false;
  for (int32_t i = 0; i < r - 2; i++)
    if (a->dims[i] != b->dims[i] || a->dims[i] != c->dims[i]) return false;
  if (a->dims[r - 1] != b->dims[r - 1] || b->dims[r - 2] != c->dims[r - 2]) return false;
  if (mask == CML_NO_VALUE) return true;
  const cml_tensor *m = cml_pass_type(g, mask);
  if (!cml_tensor_known_shape(m) || m->rank > r || m->rank < 1 || m->dtype != a->dtype) return false;
  for (int32_t i = 1; i <= m->rank; i++) {
    int64_t want = i == 1 ? b->dims[r - 2] : a->dims[r - i];
    if (m->dims[m->rank - i] != want && m->dims[m->rank - i] != 1) return false;
  }
  return true;
}

static cml_status fuse(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *last = &g->body.steps[at], *parts[4];
  if (!cml_pass_is(last, "matmul") || truth(g, last, "transpose_x") || truth(g, last, "transpose_y")) return CML_OK;
  uint32_t v = cml_pass_arg(last, "y"), mask = CML_NO_VALUE;
  size_t count = 0;
  cml_step *soft = maker(g, uses, at, cml_pass_arg(last, "x"));
  if (!soft || !cml_pass_is(soft, "softmax")) return CML_OK;
  uint32_t axis_value = cml_pass_arg(soft, "axis");
  int32_t rank = cml_pass_type(g, soft->outs[0])->rank;
  int64_t axis = axis_value == CML_NO_VALUE || !cml_pass_type(g, axis_value)->data ? -1 : cml_tensor_get_int(cml_pass_type(g, axis_value), 0);
  if (axis != -1 && axis != rank - 1) return CML_OK;
  parts[count++] = soft;
  float scale = 1;
  cml_step *s = maker(g, uses, at, cml_pass_arg(soft, "x"));
  if (s && cml_pass_is(s, "add")) {
    uint32_t x = cml_pass_arg(s, "x");
    cml_step *inner = maker(g, uses, at, x);
    bool first = inner && (cml_pass_is(inner, "mul") || cml_pass_is(inner, "matmul") || cml_pass_is(inner, "real_div"));
    mask = cml_pass_arg(s, first ? "y" : "x");
    parts[count++] = s;
    s = first ? inner : maker(g, uses, at, cml_pass_arg(s, "y"));
  }
  if (s && (cml_pass_is(s, "mul") || cml_pass_is(s, "real_div"))) {
    bool division = cml_pass_is(s, "real_div"), right = scalar_constant(g, cml_pass_arg(s, "y"), &scale);
    if (!right && (division || !scalar_constant(g, cml_pass_arg(s, "x"), &scale))) return CML_OK;
    if (division) scale = 1 / scale;
    parts[count++] = s;
    s = maker(g, uses, at, cml_pass_arg(s, right ? "x" : "y"));
  }
  if (!s || !cml_pass_is(s, "matmul") || truth(g, s, "transpose_x") || !truth(g, s, "transpose_y")) return CML_OK;
  parts[count++] = s;
  uint32_t q = cml_pass_arg(s, "x"), k = cml_pass_arg(s, "y");
  if (!fits(g, q, k, v, mask)) return CML_OK;
  const cml_binding bindings[] = {{"query", q}, {"key", k}, {"value", v}, {"attn_mask", mask}, {"scale", cml_pass_float(g, scale)}};
  CML_TRY(cml_pass_become(g, last, "cml_attention", bindings, sizeof bindings / sizeof *bindings, err));
  for (size_t i = 0; i < count; i++) parts[i]->op = NULL;
  return CML_OK;
}

cml_status cml_pass_attention(cml_graph *g, cml_error *err) {
  return cml_pass_each(g, fuse, err);
}
