/* Attention that reads its query, key and value where they were made, and writes where its result is wanted.
 *
 * Converters cut the joint product of q, k and v by reshape, transpose, split and squeeze, and turn the result back by another
 * transpose. Decoders repeat the heads of their cache for each head of the query, by tile and reshape. All of these only say where an
 * element lies: a view (offset and strides) of the value before them says it as well, and the copies are not made. A view is carried
 * back operation by operation, as long as each step along one of its dims, which may become several, is a step along one dim of the
 * operation's result, and rows keep their elements side by side. */
#include "attention.h"
#include "passes.h"

/* Heads may be several dims by now, of which a step along one is one step in the value: MOST_DIMS in all, the rows and columns last. */
enum { MOST_DIMS = 2 * CML_MAX_RANK };
typedef struct view {
  uint32_t value;
  int32_t rank;
  int64_t offset, dims[MOST_DIMS], strides[MOST_DIMS];
} view;

static void row_strides(int32_t rank, const int64_t *dims, int64_t *strides) {
  int64_t n = 1;
  for (int32_t i = rank - 1; i >= 0; i--) {
    strides[i] = n;
    n *= dims[i];
  }
}

static view whole(const cml_graph *g, uint32_t value) {
  const cml_tensor *t = cml_pass_type(g, value);
  view v = {.value = value, .rank = t->rank};
  memcpy(v.dims, t->dims, sizeof t->dims);
  row_strides(t->rank, t->dims, v.strides);
  return v;
}

/* What becomes of the axes of a value: a stride and a start for each, in another value. */
typedef struct axes {
  int32_t rank;
  int64_t dims[MOST_DIMS], stride[MOST_DIMS], start[MOST_DIMS];
} axes;

static void add_axis(axes *a, int64_t dim, int64_t stride, int64_t start) {
  a->dims[a->rank] = dim, a->stride[a->rank] = stride, a->start[a->rank++] = start;
}

/* A dim of n steps by `stride` along axes, whose places `last` are the furthest so far: the dims that it becomes, innermost first. 0:
 * it is not to be had by strides. */
static int32_t carry_dim(const axes *from, const int64_t *strides, int64_t n, int64_t stride, int64_t *last, int64_t *dims, int64_t *moved) {
  if (n == 1 || stride == 0) return dims[0] = n, moved[0] = 0, 1;
  for (int32_t count = 0; count < MOST_DIMS;) {
    int32_t a = 0;
    while (a < from->rank && (from->dims[a] == 1 || strides[a] > stride)) a++;
    if (a == from->rank || stride % strides[a]) return 0;
    int64_t steps = stride / strides[a], inside = n;
    if (last[a] + steps * (n - 1) >= from->dims[a]) { /* it goes on along the axis in front of this one */
      inside = from->dims[a] / steps;
      if (last[a] || from->dims[a] % steps || n % inside || inside < 2) return 0;
    }
    last[a] += steps * (inside - 1);
    dims[count] = inside, moved[count++] = steps * from->stride[a];
    n /= inside, stride *= inside;
    if (n == 1) return count;
  }
  return 0;
}

/* The view's elements after each axis of the value that it is a view of took a stride and a start of its own. */
static bool carry(const view *v, const axes *from, view *to) {
  int64_t strides[MOST_DIMS], last[MOST_DIMS], dims[MOST_DIMS], moved[MOST_DIMS], rest = v->offset; /* last: the furthest place along each axis */
  row_strides(from->rank, from->dims, strides);
  to->offset = 0;
  to->rank = 0;
  for (int32_t a = 0; a < from->rank; a++) {
    last[a] = rest / strides[a];
    rest %= strides[a];
    to->offset += last[a] * from->stride[a] + from->start[a];
  }
  for (int32_t k = 0; k < v->rank; k++) {
    int32_t n = carry_dim(from, strides, v->dims[k], v->strides[k], last, dims, moved);
    if (!n || (n > 1 && k >= v->rank - 2) || to->rank + n > MOST_DIMS) return false;
    while (n--) to->dims[to->rank] = dims[n], to->strides[to->rank++] = moved[n];
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

static bool through_transpose(const cml_graph *g, const cml_step *s, axes *out) {
  const cml_tensor *in = cml_pass_type(g, cml_pass_arg(s, "x")), *p = cml_pass_constant(g, s, "perm");
  int64_t strides[CML_MAX_RANK];
  if (!p || cml_tensor_count(p) != in->rank) return false;
  row_strides(in->rank, in->dims, strides);
  for (int32_t i = 0; i < in->rank; i++) {
    int64_t axis = cml_tensor_get_int(p, i);
    if (axis < 0) axis += in->rank;
    add_axis(out, in->dims[axis], strides[axis], 0);
  }
  return true;
}

static bool through_split(const cml_graph *g, const cml_step *s, uint32_t value, axes *out) {
  const cml_tensor *in = cml_pass_type(g, cml_pass_arg(s, "x")), *axis_value = cml_pass_constant(g, s, "axis");
  if (!axis_value) return false;
  int64_t axis = cml_tensor_get_int(axis_value, 0), strides[CML_MAX_RANK], start = 0;
  if (axis < 0) axis += in->rank;
  row_strides(in->rank, in->dims, strides);
  for (size_t part = 0; s->outs[part] != value; part++) start += cml_pass_type(g, s->outs[part])->dims[axis];
  for (int32_t i = 0; i < in->rank; i++) add_axis(out, cml_pass_type(g, value)->dims[i], strides[i], i == axis ? start * strides[i] : 0);
  return true;
}

/* What is repeated is one more axis, along which nothing moves. */
static bool through_tile(const cml_graph *g, const cml_step *s, axes *out) {
  const cml_tensor *in = cml_pass_type(g, cml_pass_arg(s, "x")), *reps = cml_pass_constant(g, s, "reps");
  int64_t strides[CML_MAX_RANK];
  if (!reps || cml_tensor_count(reps) != in->rank) return false;
  row_strides(in->rank, in->dims, strides);
  for (int32_t i = 0; i < in->rank; i++) {
    if (cml_tensor_get_int(reps, i) != 1) add_axis(out, cml_tensor_get_int(reps, i), 0, 0);
    add_axis(out, in->dims[i], strides[i], 0);
  }
  return true;
}

/* Rows side by side; or, for masks, one element for all columns. */
static bool usable(const cml_graph *g, const view *v, bool mask) {
  const cml_tensor *t = cml_pass_type(g, v->value);
  if (g->values[v->value].role == CML_ROLE_STATE || !cml_tensor_known_shape(t) || cml_tensor_count(t) > INT32_MAX) return false;
  return v->dims[v->rank - 1] == 1 || v->strides[v->rank - 1] == 1 || (mask && !v->strides[v->rank - 1]);
}

/* The view of the earliest value that still has rows side by side. */
static view origin(const cml_graph *g, size_t at, uint32_t value) {
  view best = whole(g, value), v = best, next;
  const cml_step *s;
  while ((s = maker(g, at, v.value))) {
    uint32_t first = s->arg_count ? s->args[0] : CML_NO_VALUE;
    axes from = {0};
    if (first == CML_NO_VALUE || !cml_tensor_known_shape(cml_pass_type(g, first)) || cml_tensor_count(cml_pass_type(g, first)) == 0) break;
    if ((s->op->flags & CML_OP_VIEW) && s->outs[0] == v.value) next = v; /* the same bytes */
    else if (!(cml_pass_is(s, "transpose") ? through_transpose(g, s, &from) : cml_pass_is(s, "split") ? through_split(g, s, v.value, &from)
               : cml_pass_is(s, "tile") && through_tile(g, s, &from)) || !carry(&v, &from, &next)) break;
    v = next;
    v.value = first;
    if (usable(g, &v, false)) best = v;
  }
  return best;
}

/* ---- the step ---- */

/* The views' heads as the same dims for all of them, at most CML_ATTENTION_DIMS: each of `dims` is one step in each view. False when
 * they have to be more. */
static bool same_dims(const view *views, size_t count, int64_t dims[CML_ATTENTION_DIMS], int64_t strides[][CML_ATTENTION_DIMS]) {
  int32_t at[CML_ATTENTION_VIEWS], slot = CML_ATTENTION_DIMS;
  int64_t left[CML_ATTENTION_VIEWS], step[CML_ATTENTION_VIEWS];
  for (size_t i = 0; i < count; i++) at[i] = views[i].rank - 2, left[i] = 1;
  for (;;) {
    int64_t n = INT64_MAX;
    for (size_t i = 0; i < count; i++) {
      while (left[i] == 1 && at[i] > 0) left[i] = views[i].dims[--at[i]], step[i] = views[i].strides[at[i]];
      if (left[i] < n) n = left[i];
    }
    if (n == 1) break; /* all end together, for they have as many heads */
    bool joins = slot < CML_ATTENTION_DIMS;
    for (size_t i = 0; i < count; i++) {
      if (left[i] % n) return false;
      joins = joins && step[i] == strides[i][slot] * dims[slot];
    }
    if (!joins && slot-- == 0) return false;
    for (size_t i = 0; i < count; i++) {
      if (!joins) strides[i][slot] = step[i];
      left[i] /= n, step[i] *= n;
    }
    dims[slot] = joins ? dims[slot] * n : n;
  }
  while (slot-- > 0) {
    dims[slot] = 1;
    for (size_t i = 0; i < count; i++) strides[i][slot] = 0;
  }
  return true;
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

/* A mask as all scores see it, whose shape is `all`: no step along dims that it does not tell apart. */
static view mask_view(const cml_graph *g, uint32_t mask, const cml_tensor *all) {
  view v = whole(g, mask), to = {.value = mask, .rank = all->rank};
  for (int32_t i = 1; i <= all->rank; i++) {
    to.dims[all->rank - i] = all->dims[all->rank - i];
    if (i <= v.rank && v.dims[v.rank - i] != 1) to.strides[all->rank - i] = v.strides[v.rank - i];
  }
  return to;
}

static bool known(const cml_graph *g, uint32_t value) {
  return cml_tensor_known_shape(cml_pass_type(g, value)) && cml_tensor_count(cml_pass_type(g, value)) && cml_tensor_count(cml_pass_type(g, value)) <= INT32_MAX;
}

/* The shape of all scores, with the heads as masks see them. */
static cml_tensor scores_of(const cml_graph *g, const cml_step *s) {
  cml_tensor all = *cml_pass_type(g, cml_pass_arg(s, "query"));
  const cml_tensor *batch = cml_pass_constant(g, s, "batch"), *k = cml_pass_type(g, cml_pass_arg(s, "key"));
  int64_t queries = all.dims[all.rank - 2];
  if (batch) {
    all.rank = (int32_t)cml_tensor_count(batch) + 2;
    for (int32_t i = 0; i < all.rank - 2; i++) all.dims[i] = cml_tensor_get_int(batch, i);
  }
  all.dims[all.rank - 2] = queries;
  all.dims[all.rank - 1] = k->dims[k->rank - 2];
  return all;
}

static size_t put_view(const view *v, const int64_t *strides, int64_t *out) {
  size_t n = 0;
  out[n++] = v->offset;
  for (int32_t i = 0; i < CML_ATTENTION_DIMS; i++) out[n++] = strides[i];
  out[n++] = v->strides[v->rank - 2];
  out[n++] = v->strides[v->rank - 1];
  return n;
}

static cml_status fuse(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  if (!cml_pass_is(s, "cml_attention") && !cml_pass_is(s, "scaled_dot_product_attention")) return CML_OK;
  const uint32_t args[] = {cml_pass_arg(s, "query"), cml_pass_arg(s, "key"), cml_pass_arg(s, "value")};
  const uint32_t masks[CML_ATTENTION_MASKS] = {cml_pass_arg(s, "attn_mask"), cml_pass_is(s, "cml_attention") ? cml_pass_arg(s, "attn_mask_2") : CML_NO_VALUE};
  for (int i = 0; i < 3; i++)
    if (!known(g, args[i]) || cml_pass_type(g, args[i])->rank < 3) return CML_OK;
  view views[CML_ATTENTION_VIEWS] = {origin(g, at, args[0]), origin(g, at, args[1]), origin(g, at, args[2])};
  cml_step *last = wanted_order(g, uses, s, &views[3]);
  if (!last && views[0].value == args[0] && views[1].value == args[1] && views[2].value == args[2]) return CML_OK;
  cml_tensor all = scores_of(g, s);
  size_t count = 4;
  for (int i = 0; i < CML_ATTENTION_MASKS; i++)
    if (masks[i] != CML_NO_VALUE && !known(g, masks[i])) return CML_OK;
    else if (masks[i] != CML_NO_VALUE) views[count++] = mask_view(g, masks[i], &all);
  for (size_t i = 0; i < count; i++)
    if (!usable(g, &views[i], i > 3)) return CML_OK;
  const cml_tensor *tq = cml_pass_type(g, args[0]), *tk = cml_pass_type(g, args[1]), *tv = cml_pass_type(g, args[2]);
  int64_t numbers[CML_ATTENTION_NUMBERS], strides[CML_ATTENTION_VIEWS][CML_ATTENTION_DIMS];
  int32_t r = tq->rank;
  size_t n = CML_ATTENTION_DIMS;
  if (!same_dims(views, count, numbers, strides)) return CML_OK;
  numbers[n++] = tq->dims[r - 2], numbers[n++] = tk->dims[r - 2], numbers[n++] = tq->dims[r - 1], numbers[n++] = tv->dims[r - 1];
  for (size_t i = 0; i < count; i++) n += put_view(&views[i], strides[i], numbers + n);
  const cml_tensor *out = cml_pass_type(g, views[3].value);
  uint32_t scale = cml_pass_arg(s, "scale"), fill = cml_pass_arg(s, "fill"), layout = cml_pass_ints(g, numbers, (int64_t)n), shape = cml_pass_ints(g, out->dims, r);
  const cml_binding bindings[] = {{"query", views[0].value}, {"key", views[1].value},   {"value", views[2].value},  {"scale", scale},
                                  {"layout", layout},        {"shape", shape},          {"attn_mask", masks[0]},    {"attn_mask_2", masks[1]},
                                  {"fill", fill}};
  if (layout == CML_NO_VALUE || shape == CML_NO_VALUE) return cml_fail_memory(err);
  CML_TRY(cml_pass_become(g, last ? last : s, "cml_attention_view", bindings, sizeof bindings / sizeof *bindings, err));
  if (last) s->op = NULL;
  return CML_OK;
}

cml_status cml_pass_attention_views(cml_graph *g, cml_error *err) {
  CML_TRY(cml_pass_each(g, fuse, err));
  return cml_pass_dead_code(g, err);
}
