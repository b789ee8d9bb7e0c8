/* Attention that reads its query, key and value where they were made, and writes where its result is wanted.
 *
 * Converters cut the joint product of q, k and v by reshape, transpose, split and squeeze, and turn the result back by another
 * transpose. All of these only say where an element lies: a view (offset and strides) of the value before them says it as well,
 * and the copies are not made. A view is carried back operation by operation, as long as each step along one of its dims is a
 * step along one dim of the operation's result, and rows keep their elements side by side. */
#include "attention.h"
#include "passes.h"

typedef struct view {
  uint32_t value;
  int32_t rank;
  int64_t offset, dims[CML_MAX_RANK], strides[CML_MAX_RANK];
} view;

static void row_strides(const cml_tensor *t, int64_t *strides) {
  int64_t n = 1;
  for (int32_t i = t->rank - 1; i >= 0; i--) {
    strides[i] = n;
    n *= t->dims[i];
  }
}

static view whole(const cml_graph *g, uint32_t value) {
  const cml_tensor *t = cml_pass_type(g, value);
  view v = {.value = value, .rank = t->rank};
  memcpy(v.dims, t->dims, sizeof v.dims);
  row_strides(t, v.strides);
  return v;
}

/* The view's elements after each axis of `out`, the value that it is a view of, took a stride and a start of its own. */
static bool carry(const view *v, const cml_tensor *out, const int64_t *axis_stride, const int64_t *axis_start, view *to) {
  int64_t strides[CML_MAX_RANK], last[CML_MAX_RANK], rest = v->offset; /* last: the furthest place along each axis */
  row_strides(out, strides);
  *to = *v;
  to->offset = 0;
  for (int32_t a = 0; a < out->rank; a++) {
    last[a] = rest / strides[a];
    rest %= strides[a];
    to->offset += (last[a] + axis_start[a]) * axis_stride[a];
  }
  for (int32_t k = 0; k < v->rank; k++) {
    if (v->dims[k] == 1) continue;
    int32_t a = 0;
    while (a < out->rank && (out->dims[a] == 1 || strides[a] > v->strides[k])) a++;
    if (a == out->rank || v->strides[k] % strides[a]) return false;
    int64_t steps = v->strides[k] / strides[a];
    to->strides[k] = steps * axis_stride[a];
    if ((last[a] += steps * (v->dims[k] - 1)) >= out->dims[a]) return false;
  }
  return true;
}

/* The step before `before` that makes `value`. */
static const cml_step *maker(const cml_graph *g, size_t before, uint32_t value) {
  for (size_t i = before; i-- > 0;) {
    const cml_step *s = &g->body.steps[i];
    for (size_t k = 0; s->op && !s->folded && k < s->out_count; k++)
      if (s->outs[k] == value) return s;
  }
  return NULL;
}

static bool through_transpose(const cml_graph *g, const cml_step *s, const view *v, view *to) {
  uint32_t x = cml_pass_arg(s, "x"), perm = cml_pass_arg(s, "perm");
  const cml_tensor *in = cml_pass_type(g, x), *out = cml_pass_type(g, s->outs[0]), *p = perm == CML_NO_VALUE ? NULL : cml_pass_type(g, perm);
  int64_t strides[CML_MAX_RANK], moved[CML_MAX_RANK], start[CML_MAX_RANK] = {0};
  if (!p || !p->data || cml_tensor_count(p) != in->rank) return false;
  row_strides(in, strides);
  for (int32_t i = 0; i < in->rank; i++) {
    int64_t axis = cml_tensor_get_int(p, i);
    moved[i] = strides[axis < 0 ? axis + in->rank : axis];
  }
  if (!carry(v, out, moved, start, to)) return false;
  to->value = x;
  return true;
}

static bool through_split(const cml_graph *g, const cml_step *s, const view *v, view *to) {
  uint32_t x = cml_pass_arg(s, "x"), axis_value = cml_pass_arg(s, "axis");
  const cml_tensor *in = cml_pass_type(g, x);
  if (axis_value == CML_NO_VALUE || !cml_pass_type(g, axis_value)->data) return false;
  int64_t axis = cml_tensor_get_int(cml_pass_type(g, axis_value), 0), strides[CML_MAX_RANK], start[CML_MAX_RANK] = {0};
  if (axis < 0) axis += in->rank;
  row_strides(in, strides);
  size_t part = 0;
  for (; part < s->out_count && s->outs[part] != v->value; part++) start[axis] += cml_pass_type(g, s->outs[part])->dims[axis];
  if (!carry(v, cml_pass_type(g, v->value), strides, start, to)) return false;
  to->value = x;
  return true;
}

static bool usable(const cml_graph *g, const view *v) {
  const cml_tensor *t = cml_pass_type(g, v->value);
  if (g->values[v->value].role == CML_ROLE_STATE || !cml_tensor_known_shape(t) || cml_tensor_count(t) > INT32_MAX) return false;
  return v->dims[v->rank - 1] == 1 || v->strides[v->rank - 1] == 1;
}

/* The view of the earliest value that still has rows side by side. */
static view origin(const cml_graph *g, size_t at, uint32_t value) {
  view best = whole(g, value), v = best, next;
  const cml_step *s;
  while ((s = maker(g, at, v.value))) {
    next = v;
    uint32_t first = s->arg_count ? s->args[0] : CML_NO_VALUE;
    if (first == CML_NO_VALUE || !cml_tensor_known_shape(cml_pass_type(g, first)) || cml_tensor_count(cml_pass_type(g, first)) == 0) break;
    if ((s->op->flags & CML_OP_VIEW) && s->outs[0] == v.value) next.value = first; /* the same bytes */
    else if (cml_pass_is(s, "transpose") ? !through_transpose(g, s, &v, &next) : !cml_pass_is(s, "split") || !through_split(g, s, &v, &next)) break;
    v = next;
    if (usable(g, &v)) best = v;
  }
  return best;
}

/* ---- the step ---- */

static size_t put_view(const view *v, int64_t *out) {
  int32_t batch = v->rank - 2;
  size_t n = 0;
  out[n++] = v->offset;
  for (int32_t i = 0; i < CML_ATTENTION_DIMS; i++) {
    int32_t k = i - (CML_ATTENTION_DIMS - batch);
    out[n++] = k < 0 || v->dims[k] == 1 ? 0 : v->strides[k];
  }
  out[n++] = v->strides[v->rank - 2];
  return n;
}

/* A transpose that alone uses the result and leaves rows whole: the view of its output that the attention's is. */
static cml_step *wanted_order(cml_graph *g, const cml_use *uses, const cml_step *s, view *out) {
  uint32_t y = s->outs[0];
  *out = whole(g, y);
  if (uses[y].count != 1 || uses[y].step >= g->body.step_count) return NULL;
  cml_step *t = &g->body.steps[uses[y].step];
  uint32_t perm = cml_pass_is(t, "transpose") ? cml_pass_arg(t, "perm") : CML_NO_VALUE;
  const cml_tensor *p = perm == CML_NO_VALUE ? NULL : cml_pass_type(g, perm);
  if (!p || !p->data || cml_tensor_count(p) != out->rank) return NULL;
  view moved = whole(g, t->outs[0]);
  for (int32_t i = 0; i < out->rank; i++) {
    int64_t axis = cml_tensor_get_int(p, i);
    if (axis < 0) axis += out->rank;
    if (axis == out->rank - 1 && i != axis) return NULL;
    out->strides[axis] = moved.strides[i];
  }
  out->value = t->outs[0];
  return t;
}

static cml_status fuse(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  if (!cml_pass_is(s, "cml_attention") && !cml_pass_is(s, "scaled_dot_product_attention")) return CML_OK;
  uint32_t q = cml_pass_arg(s, "query"), k = cml_pass_arg(s, "key"), v = cml_pass_arg(s, "value"), mask = cml_pass_arg(s, "attn_mask");
  const cml_tensor *tq = cml_pass_type(g, q), *tk = cml_pass_type(g, k), *tv = cml_pass_type(g, v);
  if (mask != CML_NO_VALUE || tq->rank < 3 || tq->rank > CML_ATTENTION_DIMS + 2 || !cml_tensor_known_shape(tq) || !cml_tensor_known_shape(tk) ||
      !cml_tensor_known_shape(tv) || !cml_tensor_count(tq) || !cml_tensor_count(tk) || !cml_tensor_count(tv))
    return CML_OK;
  view views[4] = {origin(g, at, q), origin(g, at, k), origin(g, at, v)};
  cml_step *last = wanted_order(g, uses, s, &views[3]);
  for (int i = 0; i < 4; i++)
    if (!usable(g, &views[i])) return CML_OK;
  if (!last && views[0].value == q && views[1].value == k && views[2].value == v) return CML_OK;
  int32_t r = tq->rank;
  int64_t numbers[64];
  size_t n = 0;
  for (int32_t i = 0; i < CML_ATTENTION_DIMS; i++) numbers[n++] = i < CML_ATTENTION_DIMS - (r - 2) ? 1 : tq->dims[i - (CML_ATTENTION_DIMS - (r - 2))];
  numbers[n++] = tq->dims[r - 2], numbers[n++] = tk->dims[r - 2], numbers[n++] = tq->dims[r - 1], numbers[n++] = tv->dims[r - 1];
  for (int i = 0; i < 4; i++) n += put_view(&views[i], numbers + n);
  const cml_tensor *out = cml_pass_type(g, views[3].value);
  uint32_t scale = cml_pass_arg(s, "scale"), layout = cml_pass_ints(g, numbers, (int64_t)n), shape = cml_pass_ints(g, out->dims, r);
  const cml_binding bindings[] = {{"query", views[0].value}, {"key", views[1].value}, {"value", views[2].value},
                                  {"scale", scale},          {"layout", layout},      {"shape", shape}};
  if (layout == CML_NO_VALUE || shape == CML_NO_VALUE) return cml_fail_memory(err);
  CML_TRY(cml_pass_become(g, last ? last : s, "cml_attention_view", bindings, sizeof bindings / sizeof *bindings, err));
  if (last) s->op = NULL;
  return CML_OK;
}

cml_status cml_pass_attention_views(cml_graph *g, cml_error *err) {
  CML_TRY(cml_pass_each(g, fuse, err));
  return cml_pass_dead_code(g, err);
}
