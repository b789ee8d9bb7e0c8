/* Normalisations as converters write them out: (mean, subtraction,) mean of squares, + epsilon, square root, division. Over groups of
 * channels, between two reshapes and with an activation behind it; over trailing dims, or along the channels of images, with a scale and a
 * shift behind it; over the last dim without a mean (RMS). One step then reads its input twice and writes once. */
#include "kernels.h"
#include "passes.h"

/* The first of the axes of a mean that keeps its dims, when they are all from there on; else -1. */
static int32_t axes_from(const cml_graph *g, const cml_step *s) {
  uint32_t axes = cml_pass_arg(s, "axes"), keep = cml_pass_arg(s, "keep_dims");
  const cml_tensor *x = cml_pass_type(g, cml_pass_arg(s, "x")), *t = axes == CML_NO_VALUE ? NULL : cml_pass_type(g, axes);
  if (!t || !t->data || keep == CML_NO_VALUE || !cml_pass_type(g, keep)->data || x->rank < 1) return -1;
  int64_t count = cml_tensor_count(t);
  if (!cml_tensor_get_int(cml_pass_type(g, keep), 0) || count < 1 || count > x->rank) return -1;
  uint32_t seen = 0;
  for (int64_t i = 0; i < count; i++) {
    int64_t a = cml_tensor_get_int(t, i);
    if (a < 0) a += x->rank;
    if (a < 0 || a >= x->rank) return -1;
    seen |= 1u << a;
  }
  int32_t first = x->rank - (int32_t)count;
  return seen == (1u << x->rank) - (1u << first) ? first : -1;
}

/* ---- the part that all have: d / sqrt(mean(d^2) + epsilon) ---- */

enum { MOST_PARTS = 10 };

typedef struct norm {
  cml_step *parts[MOST_PARTS]; /* besides the last step, to be dropped */
  size_t count;
  uint32_t deviation;          /* d */
  cml_step *mean, *center;     /* d = x - mean(x): both; else NULL */
  cml_step *variance;          /* the mean of squares */
  float epsilon;
} norm;

static bool scalar_of(const cml_graph *g, uint32_t v, float *out) {
  const cml_tensor *t = v == CML_NO_VALUE ? NULL : cml_pass_type(g, v);
  if (!t || !t->data || !cml_dtype_is_float(t->dtype) || cml_tensor_count(t) != 1) return false;
  *out = (float)cml_tensor_get(t, 0);
  return true;
}

/* The step that makes the value, when it is one of these and its result is used so often. */
static cml_step *part(cml_graph *g, const cml_use *uses, size_t before, uint32_t value, const char *type, uint32_t used, norm *n) {
  cml_step *s = cml_pass_maker(g, before, value);
  if (!s || !cml_pass_is(s, type) || uses[value].count != used || n->count == MOST_PARTS) return NULL;
  return n->parts[n->count++] = s;
}

static bool is_square(const cml_graph *g, const cml_step *s, uint32_t *of) {
  float two = 0;
  *of = cml_pass_arg(s, "x");
  if (cml_pass_is(s, "square")) return true;
  if (cml_pass_is(s, "mul")) return cml_pass_arg(s, "y") == *of;
  return cml_pass_is(s, "pow") && scalar_of(g, cml_pass_arg(s, "y"), &two) && two == 2;
}

/* v = mean(d^2) (+ epsilon): sets all but the epsilon that may come on top. */
static bool match_variance(cml_graph *g, const cml_use *uses, size_t at, uint32_t v, norm *n) {
  cml_step *add = part(g, uses, at, v, "add", 1, n);
  if (add) {
    uint32_t x = cml_pass_arg(add, "x"), y = cml_pass_arg(add, "y");
    bool first = scalar_of(g, x, &n->epsilon);
    if (!first && !scalar_of(g, y, &n->epsilon)) return false;
    v = first ? y : x;
  }
  if (!(n->variance = part(g, uses, at, v, "reduce_mean", 1, n))) return false;
  uint32_t squared = cml_pass_arg(n->variance, "x");
  cml_step *square = cml_pass_maker(g, at, squared);
  if (!square || uses[squared].count != 1 || !is_square(g, square, &n->deviation) || n->count == MOST_PARTS) return false;
  n->parts[n->count++] = square;
  return true;
}

/* last: d / sqrt(variance), or d * rsqrt(variance). */
static bool match_norm(cml_graph *g, const cml_use *uses, size_t at, norm *n) {
  cml_step *last = &g->body.steps[at], *root = NULL;
  uint32_t x = cml_pass_arg(last, "x"), y = cml_pass_arg(last, "y"), d = x;
  *n = (norm){.count = 0};
  if (cml_pass_is(last, "real_div")) {
    root = part(g, uses, at, y, "sqrt", 1, n);
  } else if (cml_pass_is(last, "mul")) {
    if (!(root = part(g, uses, at, y, "rsqrt", 1, n))) root = part(g, uses, at, d = x, "rsqrt", 1, n), d = y;
  }
  if (!root || !match_variance(g, uses, at, cml_pass_arg(root, "x"), n) || n->deviation != d) return false;
  float more = 0;
  if (cml_pass_is(root, "rsqrt") && !scalar_of(g, cml_pass_arg(root, "epsilon"), &more)) more = 1e-12f;
  n->epsilon += more;
  cml_step *square = n->parts[n->count - 1];
  n->center = part(g, uses, at, d, "sub", cml_pass_is(square, "mul") ? 3 : 2, n);
  if (!n->center) return true;
  n->mean = part(g, uses, at, cml_pass_arg(n->center, "y"), "reduce_mean", 1, n);
  if (n->mean && cml_pass_arg(n->mean, "x") == cml_pass_arg(n->center, "x")) return true;
  n->count -= n->mean ? 2 : 1; /* another subtraction: d is whatever it is */
  n->center = n->mean = NULL;
  return true;
}

static void drop(const norm *n) {
  for (size_t i = 0; i < n->count; i++) n->parts[i]->op = NULL;
}

/* ---- groups of channels ---- */

static cml_status fuse_groups(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *last = &g->body.steps[at], *division = cml_pass_is(last, "reshape") ? cml_pass_maker(g, at, cml_pass_arg(last, "x")) : NULL;
  norm n;
  if (!division || uses[division->outs[0]].count != 1 || !match_norm(g, uses, (size_t)(division - g->body.steps), &n) || !n.center) return CML_OK;
  cml_step *split = part(g, uses, at, cml_pass_arg(n.center, "x"), "reshape", 2, &n);
  if (!split || n.count == MOST_PARTS) return CML_OK;
  n.parts[n.count++] = division;
  uint32_t x = cml_pass_arg(split, "x");
  const cml_tensor *xt = cml_pass_type(g, x), *grouped = cml_pass_type(g, split->outs[0]), *out = cml_pass_type(g, last->outs[0]);
  if (!cml_tensor_known_shape(xt) || !cml_tensor_known_shape(grouped) || !cml_tensor_known_shape(out) || xt->rank < 3 ||
      !cml_tensor_same_shape(xt, out) || (xt->dtype != CML_F16 && xt->dtype != CML_F32))
    return CML_OK;
  if (grouped->rank != xt->rank + 1 || grouped->dims[0] != xt->dims[0] || grouped->dims[1] * grouped->dims[2] != xt->dims[1]) return CML_OK;
  for (int32_t i = 2; i < xt->rank; i++)
    if (grouped->dims[i + 1] != xt->dims[i]) return CML_OK;
  if (axes_from(g, n.mean) != 2 || axes_from(g, n.variance) != 2) return CML_OK;
  int64_t groups = grouped->dims[1];
  cml_unary f = CML_UNARY_COPY;
  cml_step *next = cml_pass_only_user(g, uses, last->outs[0]);
  if (next && (cml_pass_is(next, "silu") || cml_pass_is(next, "relu"))) {
    f = cml_pass_is(next, "silu") ? CML_UNARY_SILU : CML_UNARY_RELU;
    last->op = NULL;
    last = next;
  }
  const cml_binding bindings[] = {{"x", x}, {"groups", cml_pass_int(g, groups)}, {"epsilon", cml_pass_float(g, n.epsilon)}, {"activation", cml_pass_int(g, f)}};
  CML_TRY(cml_pass_become(g, last, "cml_group_norm", bindings, sizeof bindings / sizeof *bindings, err));
  drop(&n);
  return CML_OK;
}

cml_status cml_pass_group_norm(cml_graph *g, cml_error *err) { return cml_pass_each(g, fuse_groups, err); }

/* ---- trailing dims ---- */

/* The constant of the right shape that alone scales (mul) or shifts (add) the value; joins its step. */
static uint32_t join(cml_graph *g, const cml_use *uses, const char *type, cml_step **last, int32_t dims, norm *n) {
  uint32_t value = (*last)->outs[0];
  cml_step *next = cml_pass_only_user(g, uses, value);
  if (!next || !cml_pass_is(next, type) || n->count == MOST_PARTS) return CML_NO_VALUE;
  uint32_t v = cml_pass_arg(next, cml_pass_arg(next, "x") == value ? "y" : "x");
  const cml_tensor *x = cml_pass_type(g, value), *t = cml_pass_type(g, v);
  if (g->values[v].role != CML_ROLE_CONSTANT || !t->data || t->dtype != x->dtype || t->rank != dims) return CML_NO_VALUE;
  for (int32_t i = 0; i < dims; i++)
    if (t->dims[i] != x->dims[x->rank - dims + i]) return CML_NO_VALUE;
  n->parts[n->count++] = *last;
  *last = next;
  return v;
}

/* The same for a norm along dim 1 alone: a constant by channel, with ones around it; as a vector. */
static uint32_t join_channels(cml_graph *g, const cml_use *uses, const char *type, cml_step **last, norm *n) {
  uint32_t value = (*last)->outs[0];
  cml_step *next = cml_pass_only_user(g, uses, value);
  if (!next || !cml_pass_is(next, type) || n->count == MOST_PARTS) return CML_NO_VALUE;
  uint32_t v = cml_pass_arg(next, cml_pass_arg(next, "x") == value ? "y" : "x");
  const cml_tensor *x = cml_pass_type(g, value), *t = cml_pass_type(g, v);
  int32_t at = t->rank - (x->rank - 1);
  if (g->values[v].role != CML_ROLE_CONSTANT || !t->data || t->dtype != x->dtype || at < 0 || at > 1) return CML_NO_VALUE;
  if (t->dims[at] != x->dims[1] || cml_tensor_count(t) != x->dims[1]) return CML_NO_VALUE;
  cml_tensor vector = *t;
  vector.rank = 1;
  vector.dims[0] = x->dims[1];
  uint32_t made = cml_pass_value(g, g->values[v].name, &vector, CML_ROLE_CONSTANT);
  if (made == CML_NO_VALUE) return made;
  n->parts[n->count++] = *last;
  *last = next;
  return made;
}

/* Whether a mean that keeps its dims is over dim 1 alone, of at least three. */
static bool along_channels(const cml_graph *g, const cml_step *s) {
  uint32_t axes = cml_pass_arg(s, "axes"), keep = cml_pass_arg(s, "keep_dims");
  const cml_tensor *x = cml_pass_type(g, cml_pass_arg(s, "x")), *t = axes == CML_NO_VALUE ? NULL : cml_pass_type(g, axes);
  if (!t || !t->data || cml_tensor_count(t) != 1 || keep == CML_NO_VALUE || !cml_pass_type(g, keep)->data || x->rank < 3) return false;
  int64_t axis = cml_tensor_get_int(t, 0);
  return cml_tensor_get_int(cml_pass_type(g, keep), 0) && (axis == 1 || axis + x->rank == 1);
}

static cml_status fuse_channels(cml_graph *g, const cml_use *uses, cml_step *last, norm *n, cml_error *err) {
  uint32_t x = cml_pass_arg(n->center, "x");
  uint32_t gamma = join_channels(g, uses, "mul", &last, n), beta = join_channels(g, uses, "add", &last, n);
  const cml_binding bindings[] = {{"x", x}, {"axes", cml_pass_ints(g, &(int64_t){1}, 1)}, {"gamma", gamma}, {"beta", beta},
                                  {"epsilon", cml_pass_float(g, n->epsilon)}};
  CML_TRY(cml_pass_become(g, last, "layer_norm", bindings, sizeof bindings / sizeof *bindings, err));
  drop(n);
  return CML_OK;
}

static cml_status fuse_rows(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *last = &g->body.steps[at];
  norm n;
  if (!match_norm(g, uses, at, &n)) return CML_OK;
  uint32_t x = n.center ? cml_pass_arg(n.center, "x") : n.deviation;
  const cml_tensor t = *cml_pass_type(g, x);
  if (n.center && cml_tensor_known_shape(&t) && (t.dtype == CML_F16 || t.dtype == CML_F32) && along_channels(g, n.variance) &&
      along_channels(g, n.mean) && cml_tensor_same_shape(&t, cml_pass_type(g, last->outs[0])))
    return fuse_channels(g, uses, last, &n, err);
  int32_t first = axes_from(g, n.variance), dims = t.rank - first;
  if (!cml_tensor_known_shape(&t) || (t.dtype != CML_F16 && t.dtype != CML_F32) || first < 1 || (n.center && axes_from(g, n.mean) != first)) return CML_OK;
  if (!cml_tensor_same_shape(&t, cml_pass_type(g, last->outs[0])) || (!n.center && dims != 1)) return CML_OK;
  uint32_t gamma = join(g, uses, "mul", &last, dims, &n), beta = n.center ? join(g, uses, "add", &last, dims, &n) : CML_NO_VALUE;
  int64_t axes[CML_MAX_RANK];
  for (int32_t i = 0; i < dims; i++) axes[i] = first + i;
  const cml_binding bindings[] = {{"x", x}, {"axes", n.center ? cml_pass_ints(g, axes, dims) : CML_NO_VALUE}, {"gamma", gamma}, {"beta", beta},
                                  {"epsilon", cml_pass_float(g, n.epsilon)}};
  CML_TRY(cml_pass_become(g, last, n.center ? "layer_norm" : "cml_rms_norm", bindings, sizeof bindings / sizeof *bindings, err));
  drop(&n);
  return CML_OK;
}

cml_status cml_pass_layer_norm(cml_graph *g, cml_error *err) { return cml_pass_each(g, fuse_rows, err); }
