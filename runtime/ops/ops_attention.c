/* scaled_dot_product_attention (iOS 18), over cml_attention. */
#include <math.h>

#include "attention.h"
#include "families.h"

enum { QUERY, KEY, VALUE, MASK, SCALE, MASK_2, BATCH, FILL };

static const cml_param attention_params[] = {
    {"query", CML_M_FLOAT, 0, 1},
    {"key", CML_M_FLOAT, 0, 1},
    {"value", CML_M_FLOAT, 0, 1},
    {"attn_mask", CML_M_FLOAT | CML_M_BOOL, CML_OPTIONAL, 0},
};

/* Made by passes: the scale is an argument, two masks are added, and both may be for the heads grouped in another way: batch. What masks of
 * bools leave out takes the score fill, -infinity without. */
static const cml_param scaled_params[] = {
    {"query", CML_M_FLOAT, 0, 1},
    {"key", CML_M_FLOAT, 0, 1},
    {"value", CML_M_FLOAT, 0, 1},
    {"attn_mask", CML_M_FLOAT | CML_M_BOOL, CML_OPTIONAL, 0},
    {"scale", CML_MASK(F32), CML_CONST, 0},
    {"attn_mask_2", CML_M_FLOAT | CML_M_BOOL, CML_OPTIONAL, 0},
    {"batch", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"fill", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
};

/* Made by passes: layout holds 4 batch dims, queries, keys, depth, value depth, then for query, key, value, output and each mask an offset, 4
 * batch strides and the distances of rows and columns; shape is the output's. */
enum { LAYOUT = 4, SHAPE, VIEW_MASKS, VIEW_FILL = VIEW_MASKS + CML_ATTENTION_MASKS };
static const cml_param view_params[] = {
    {"query", CML_M_FLOAT, 0, 1},
    {"key", CML_M_FLOAT, 0, 1},
    {"value", CML_M_FLOAT, 0, 1},
    {"scale", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"layout", CML_MASK(I32), CML_CONST, 0},
    {"shape", CML_MASK(I32), CML_CONST, 0},
    {"attn_mask", CML_M_FLOAT | CML_M_BOOL, CML_OPTIONAL, 0},
    {"attn_mask_2", CML_M_FLOAT | CML_M_BOOL, CML_OPTIONAL, 0},
    {"fill", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
};

static bool differ(int64_t a, int64_t b) { return a >= 0 && b >= 0 && a != b; }

static const cml_tensor *mask_of(const cml_call *c, int i) {
  return i == 0 ? cml_arg(c, MASK) : c->op->param_count > MASK_2 ? cml_arg(c, MASK_2) : NULL;
}

/* The shape of all scores: the heads, as masks group them, queries and keys. Returns the rank. */
static int32_t scores_shape(const cml_call *c, int64_t dims[CML_MAX_RANK]) {
  const cml_tensor *q = cml_arg(c, QUERY);
  int32_t n = q->rank - 2;
  memcpy(dims, q->dims, (size_t)n * sizeof *dims);
  if (c->op->param_count > BATCH && cml_arg(c, BATCH)) n = (int32_t)cml_arg_ints(c, BATCH, dims, CML_MAX_RANK - 2);
  dims[n] = q->dims[q->rank - 2];
  dims[n + 1] = cml_arg(c, KEY)->dims[q->rank - 2];
  return n + 2;
}

/* -1 where it is not known, or too large to be a size. */
static int64_t product(const int64_t *dims, size_t count) {
  int64_t n = 1;
  for (size_t i = 0; i < count; i++) {
    if (dims[i] < 0 || (dims[i] && n > INT32_MAX / dims[i])) return CML_DIM_UNKNOWN;
    n *= dims[i];
  }
  return n;
}

/* The groups are all heads. */
static cml_status check_batch(const cml_call *c, cml_error *err) {
  const cml_tensor *q = cml_arg(c, QUERY);
  int64_t dims[CML_MAX_RANK], heads = product(q->dims, (size_t)q->rank - 2);
  size_t count = cml_arg_ints(c, BATCH, dims, CML_MAX_RANK - 2);
  if (count > CML_MAX_RANK - 2) return cml_call_fail(c, err, "%zu batch dimensions", count);
  int64_t groups = product(dims, count);
  if (groups < 0 || differ(groups, heads)) return cml_call_fail(c, err, "heads are grouped as %lld and are %lld", (long long)groups, (long long)heads);
  return CML_OK;
}

static cml_status check_mask(const cml_call *c, const cml_tensor *mask, cml_error *err) {
  int64_t dims[CML_MAX_RANK];
  int32_t r = scores_shape(c, dims);
  if (mask->rank < 1 || mask->rank > r) return cml_call_fail(c, err, "attn_mask has rank %d", mask->rank);
  if (differ(mask->dims[mask->rank - 1], dims[r - 1]) && mask->dims[mask->rank - 1] != 1)
    return cml_call_fail(c, err, "attn_mask has %lld columns for %lld keys", (long long)mask->dims[mask->rank - 1], (long long)dims[r - 1]);
  for (int32_t i = 2; i <= mask->rank; i++) {
    int64_t have = mask->dims[mask->rank - i], want = dims[r - i];
    if (differ(have, want) && have != 1) return cml_call_fail(c, err, "attn_mask does not broadcast to the scores: %lld against %lld", (long long)have, (long long)want);
  }
  return CML_OK;
}

static cml_status check(const cml_call *c, cml_error *err) {
  const cml_tensor *q = cml_arg(c, QUERY), *k = cml_arg(c, KEY), *v = cml_arg(c, VALUE);
  if (q->rank < 0 || k->rank < 0 || v->rank < 0) return CML_OK;
  int32_t r = q->rank;
  if (r != k->rank || r != v->rank) return cml_call_fail(c, err, "query, key and value have ranks %d, %d and %d, which must be one", r, k->rank, v->rank);
  if (r < 3) return cml_call_fail(c, err, "query has rank %d, expected at least 3", r);
  for (int32_t i = 0; i < r - 2; i++)
    if (differ(q->dims[i], k->dims[i]) || differ(q->dims[i], v->dims[i]))
      return cml_call_fail(c, err, "query, key and value differ in batch dimension %d", i);
  if (differ(q->dims[r - 1], k->dims[r - 1])) return cml_call_fail(c, err, "query and key have embeddings of %lld and %lld", (long long)q->dims[r - 1], (long long)k->dims[r - 1]);
  if (differ(k->dims[r - 2], v->dims[r - 2])) return cml_call_fail(c, err, "key and value have %lld and %lld positions", (long long)k->dims[r - 2], (long long)v->dims[r - 2]);
  if (c->op->param_count > BATCH && cml_arg(c, BATCH)) CML_TRY(check_batch(c, err));
  for (int i = 0; i < CML_ATTENTION_MASKS; i++)
    if (mask_of(c, i) && mask_of(c, i)->rank >= 0) CML_TRY(check_mask(c, mask_of(c, i), err));
  return CML_OK;
}

static int mask_type(const cml_tensor *t) { return t->dtype == CML_BOOL ? CML_MASK_BOOL : t->dtype == CML_F16 ? CML_MASK_F16 : CML_MASK_F32; }

/* Reads a mask's strides along the scores' dims, 0 where it broadcasts. */
static void describe_mask(const cml_tensor *t, int32_t rank, cml_attention_mask *mask, int64_t strides[CML_MAX_RANK]) {
  int64_t stride = 1;
  for (int32_t i = 1; t && i <= t->rank; i++) {
    int64_t n = t->dims[t->rank - i];
    strides[rank - i] = n == 1 ? 0 : stride;
    stride *= n;
  }
  if (!t) return;
  mask->view.data = t->data;
  mask->type = mask_type(t);
  mask->column = strides[rank - 1];
  mask->view.row = strides[rank - 2];
}

/* Batch dims are joined from the right until there are few enough; masks keep their own strides. Returns
 * false when they broadcast over dims that cannot be joined. */
static bool describe(const cml_call *c, cml_attention *a) {
  const cml_tensor *q = cml_arg(c, QUERY), *k = cml_arg(c, KEY), *v = cml_arg(c, VALUE);
  int64_t dims[CML_MAX_RANK], mask_strides[CML_ATTENTION_MASKS][CML_MAX_RANK] = {{0}}, heads = 1;
  int32_t r = q->rank, rank = scores_shape(c, dims);
  *a = (cml_attention){.queries = (size_t)q->dims[r - 2], .keys = (size_t)k->dims[r - 2], .depth = (size_t)q->dims[r - 1],
                       .value_depth = (size_t)v->dims[r - 1], .half = q->dtype == CML_F16};
  a->scale = c->op->param_count > SCALE ? (float)cml_arg_float(c, SCALE, 1) : 1.0f / sqrtf((float)a->depth);
  a->fill = c->op->param_count > FILL ? (float)cml_arg_float(c, FILL, -INFINITY) : -INFINITY;
  a->q.data = q->data, a->k.data = k->data, a->v.data = v->data, a->out.data = c->outs[0]->data;
  a->q.row = (int64_t)a->depth, a->k.row = (int64_t)a->depth, a->v.row = (int64_t)a->value_depth, a->out.row = (int64_t)a->value_depth;
  for (int m = 0; m < CML_ATTENTION_MASKS; m++) describe_mask(mask_of(c, m), rank, &a->masks[m], mask_strides[m]);
  for (int i = 0; i < CML_ATTENTION_DIMS; i++) a->dims[i] = 1;
  int slot = CML_ATTENTION_DIMS - 1;
  for (int32_t i = rank - 3; i >= 0; i--) {
    int64_t n = dims[i];
    if (n == 1) continue;
    /* joins the dim behind it where the masks go on with the same stride */
    bool joins = slot < CML_ATTENTION_DIMS - 1;
    for (int m = 0; m < CML_ATTENTION_MASKS && joins; m++) joins = mask_strides[m][i] == a->masks[m].view.batch[slot + 1] * a->dims[slot + 1];
    if (joins) {
      a->dims[slot + 1] *= n;
    } else {
      if (slot < 0) return false;
      a->dims[slot] = n;
      for (int m = 0; m < CML_ATTENTION_MASKS; m++) a->masks[m].view.batch[slot] = mask_strides[m][i];
      a->q.batch[slot] = heads * a->q.row * (int64_t)a->queries;
      a->k.batch[slot] = heads * a->k.row * (int64_t)a->keys;
      a->v.batch[slot] = heads * a->v.row * (int64_t)a->keys;
      a->out.batch[slot] = heads * a->out.row * (int64_t)a->queries;
      slot--;
    }
    heads *= n;
  }
  return true;
}

static cml_status infer(cml_call *c, cml_error *err) {
  const cml_tensor *q = cml_arg(c, QUERY), *k = cml_arg(c, KEY), *v = cml_arg(c, VALUE);
  CML_TRY(check(c, err));
  if (q->rank < 0 || v->rank < 0) return cml_out_unknown(c, 0, q->dtype, q->rank < 0 ? v->rank : q->rank), CML_OK;
  int64_t dims[CML_MAX_RANK];
  memcpy(dims, q->dims, sizeof dims);
  dims[q->rank - 1] = v->dims[q->rank - 1];
  cml_out_set(c, 0, q->dtype, q->rank, dims);
  if (!cml_tensor_known_shape(q) || !cml_tensor_known_shape(k) || !cml_tensor_known_shape(v)) return CML_OK;
  cml_attention a;
  if (!describe(c, &a)) return cml_call_fail(c, err, "attn_mask broadcasts over more dimensions than are supported");
  c->scratch_size = cml_pool_threads(c->pool) * cml_attention_scratch(cml_kernels_get(), &a);
  return CML_OK;
}

static cml_status run(cml_call *c, cml_error *err) {
  cml_attention a;
  if (!describe(c, &a)) return cml_call_fail(c, err, "attn_mask broadcasts over more dimensions than are supported");
  cml_attention_run(cml_kernels_get(), &a, c->pool, c->scratch, cml_pool_threads(c->pool));
  return CML_OK;
}

/* ---- by strides ---- */

/* What view number i of the layout is of; NULL: there is none. */
static const cml_tensor *viewed(const cml_call *c, size_t i) { return i < 3 ? cml_arg(c, (unsigned)i) : i == 3 ? c->outs[0] : cml_arg(c, VIEW_MASKS + (unsigned)i - 4); }

static cml_attention_view read_view(const int64_t *numbers, const cml_tensor *t) {
  cml_attention_view v = {.row = numbers[1 + CML_ATTENTION_DIMS]};
  if (t->data) v.data = (const char *)t->data + (size_t)numbers[0] * (cml_dtype_bits(t->dtype) / 8);
  memcpy(v.batch, numbers + 1, sizeof v.batch);
  return v;
}

static void describe_views(const cml_call *c, const int64_t *numbers, cml_attention *a) {
  const int64_t *sizes = numbers + CML_ATTENTION_DIMS, *view = sizes + 4;
  *a = (cml_attention){.queries = (size_t)sizes[0], .keys = (size_t)sizes[1], .depth = (size_t)sizes[2], .value_depth = (size_t)sizes[3],
                       .half = cml_arg(c, QUERY)->dtype == CML_F16};
  memcpy(a->dims, numbers, sizeof a->dims);
  a->scale = (float)cml_arg_float(c, SCALE - 1, 1 / sqrt((double)sizes[2]));
  a->fill = (float)cml_arg_float(c, VIEW_FILL, -INFINITY);
  cml_attention_view *const to[CML_ATTENTION_VIEWS] = {&a->q, &a->k, &a->v, &a->out, &a->masks[0].view, &a->masks[1].view};
  for (size_t i = 0; i < CML_ATTENTION_VIEWS; i++) {
    const cml_tensor *t = viewed(c, i);
    if (!t) continue;
    *to[i] = read_view(view, t);
    if (i > 3) a->masks[i - 4].type = mask_type(t), a->masks[i - 4].column = view[CML_ATTENTION_VIEW_NUMBERS - 1];
    view += CML_ATTENTION_VIEW_NUMBERS;
  }
}

/* Whether all that is read or written lies within a tensor of `count` elements. */
static bool reaches(const int64_t *numbers, const int64_t *view, int64_t rows, int64_t columns, int64_t count) {
  int64_t at = view[0] + (rows - 1) * view[1 + CML_ATTENTION_DIMS] + (columns - 1) * view[2 + CML_ATTENTION_DIMS];
  for (int i = 0; i < CML_ATTENTION_DIMS; i++) at += (numbers[i] - 1) * view[1 + i];
  return at < count;
}

static cml_status infer_views(cml_call *c, cml_error *err) {
  int64_t n[CML_ATTENTION_NUMBERS], dims[CML_MAX_RANK], *sizes = n + CML_ATTENTION_DIMS, *view = sizes + 4;
  size_t rank = cml_arg_ints(c, SHAPE, dims, CML_MAX_RANK), count = cml_arg_ints(c, LAYOUT, n, CML_ATTENTION_NUMBERS);
  cml_out_set(c, 0, cml_arg(c, QUERY)->dtype, (int32_t)rank, dims);
  const int64_t rows[] = {sizes[0], sizes[1], sizes[1], sizes[0], sizes[0], sizes[0]};
  const int64_t columns[] = {sizes[2], sizes[2], sizes[3], sizes[3], sizes[1], sizes[1]};
  for (unsigned i = 0; i < CML_ATTENTION_VIEWS; i++) {
    const cml_tensor *t = viewed(c, i);
    if (!t) continue;
    if ((size_t)(view + CML_ATTENTION_VIEW_NUMBERS - n) > count) return cml_call_fail(c, err, "layout has but %zu numbers", count);
    if (!cml_tensor_known_shape(t) || !reaches(n, view, rows[i], columns[i], cml_tensor_count(t)))
      return cml_call_fail(c, err, "the layout goes beyond a value's %lld elements", (long long)cml_tensor_count(t));
    view += CML_ATTENTION_VIEW_NUMBERS;
  }
  cml_attention a;
  describe_views(c, n, &a);
  c->scratch_size = cml_pool_threads(c->pool) * cml_attention_scratch(cml_kernels_get(), &a);
  return CML_OK;
}

static cml_status run_views(cml_call *c, cml_error *err) {
  (void)err;
  int64_t n[CML_ATTENTION_NUMBERS];
  cml_attention a;
  cml_arg_ints(c, LAYOUT, n, CML_ATTENTION_NUMBERS);
  describe_views(c, n, &a);
  cml_attention_run(cml_kernels_get(), &a, c->pool, c->scratch, cml_pool_threads(c->pool));
  return CML_OK;
}

static const cml_op rows[] = {
    {.name = "scaled_dot_product_attention", .since = CML_IOS18, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(attention_params),
     .infer = infer, .run = run},
    {.name = "cml_attention", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(scaled_params),
     .infer = infer, .run = run},
    {.name = "cml_attention_view", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(view_params),
     .infer = infer_views, .run = run_views},
};

const cml_op_family cml_ops_attention = {"attention", rows, sizeof rows / sizeof *rows};
