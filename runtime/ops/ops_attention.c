/* scaled_dot_product_attention (iOS 18), over cml_attention. */
#include <math.h>

#include "attention.h"
#include "families.h"

enum { QUERY, KEY, VALUE, MASK, SCALE };

static const cml_param attention_params[] = {
    {"query", CML_M_FLOAT, 0, 1},
    {"key", CML_M_FLOAT, 0, 1},
    {"value", CML_M_FLOAT, 0, 1},
    {"attn_mask", CML_M_FLOAT | CML_M_BOOL, CML_OPTIONAL, 0},
};

/* Made by passes: the scale is an argument. */
static const cml_param scaled_params[] = {
    {"query", CML_M_FLOAT, 0, 1},
    {"key", CML_M_FLOAT, 0, 1},
    {"value", CML_M_FLOAT, 0, 1},
    {"attn_mask", CML_M_FLOAT | CML_M_BOOL, CML_OPTIONAL, 0},
    {"scale", CML_MASK(F32), CML_CONST, 0},
};

static bool differ(int64_t a, int64_t b) { return a >= 0 && b >= 0 && a != b; }

static cml_status check(const cml_call *c, cml_error *err) {
  const cml_tensor *q = cml_arg(c, QUERY), *k = cml_arg(c, KEY), *v = cml_arg(c, VALUE), *mask = cml_arg(c, MASK);
  if (q->rank < 0 || k->rank < 0 || v->rank < 0) return CML_OK;
  int32_t r = q->rank;
  if (r != k->rank || r != v->rank) return cml_call_fail(c, err, "query, key and value have ranks %d, %d and %d, which must be one", r, k->rank, v->rank);
  if (r < 3) return cml_call_fail(c, err, "query has rank %d, expected at least 3", r);
  for (int32_t i = 0; i < r - 2; i++)
    if (differ(q->dims[i], k->dims[i]) || differ(q->dims[i], v->dims[i]))
      return cml_call_fail(c, err, "query, key and value differ in batch dimension %d", i);
  if (differ(q->dims[r - 1], k->dims[r - 1])) return cml_call_fail(c, err, "query and key have embeddings of %lld and %lld", (long long)q->dims[r - 1], (long long)k->dims[r - 1]);
  if (differ(k->dims[r - 2], v->dims[r - 2])) return cml_call_fail(c, err, "key and value have %lld and %lld positions", (long long)k->dims[r - 2], (long long)v->dims[r - 2]);
  if (!mask || mask->rank < 0) return CML_OK;
  if (mask->rank < 1 || mask->rank > r) return cml_call_fail(c, err, "attn_mask has rank %d", mask->rank);
  if (differ(mask->dims[mask->rank - 1], k->dims[r - 2]) && mask->dims[mask->rank - 1] != 1)
    return cml_call_fail(c, err, "attn_mask has %lld columns for %lld keys", (long long)mask->dims[mask->rank - 1], (long long)k->dims[r - 2]);
  for (int32_t i = 2; i <= mask->rank; i++) {
    int64_t have = mask->dims[mask->rank - i], want = q->dims[r - i];
    if (differ(have, want) && have != 1) return cml_call_fail(c, err, "attn_mask does not broadcast to the scores: %lld against %lld", (long long)have, (long long)want);
  }
  return CML_OK;
}

/* Batch dims are joined from the left until there are few enough; a mask keeps its own strides, 0 where it broadcasts. Returns
 * false when the mask broadcasts over dims that cannot be joined. */
static bool describe(const cml_call *c, cml_attention *a) {
  const cml_tensor *q = cml_arg(c, QUERY), *k = cml_arg(c, KEY), *v = cml_arg(c, VALUE), *mask = cml_arg(c, MASK);
  int32_t r = q->rank, batch = r - 2;
  *a = (cml_attention){.queries = (size_t)q->dims[r - 2], .keys = (size_t)k->dims[r - 2], .depth = (size_t)q->dims[r - 1],
                       .value_depth = (size_t)v->dims[r - 1], .half = q->dtype == CML_F16};
  a->scale = c->op->param_count > SCALE ? (float)cml_arg_float(c, SCALE, 1) : 1.0f / sqrtf((float)a->depth);
  a->q.data = q->data, a->k.data = k->data, a->v.data = v->data, a->out.data = c->outs[0]->data;
  a->q.row = (int64_t)a->depth, a->k.row = (int64_t)a->depth, a->v.row = (int64_t)a->value_depth, a->out.row = (int64_t)a->value_depth;
  int64_t mask_strides[CML_MAX_RANK] = {0}, stride = 1;
  for (int32_t i = 1; mask && i <= mask->rank; i++) {
    int64_t n = mask->dims[mask->rank - i];
    mask_strides[r - i] = n == 1 ? 0 : stride;
    stride *= n;
  }
  if (mask) {
    a->mask.data = mask->data;
    a->mask_type = mask->dtype == CML_BOOL ? CML_MASK_BOOL : mask->dtype == CML_F16 ? CML_MASK_F16 : CML_MASK_F32;
    a->mask_column = mask_strides[r - 1];
    a->mask.row = mask_strides[r - 2];
  }
  int64_t heads = 1;
  for (int i = 0; i < CML_ATTENTION_DIMS; i++) a->dims[i] = 1;
  int slot = CML_ATTENTION_DIMS - 1;
  for (int32_t i = batch - 1; i >= 0; i--) {
    int64_t n = q->dims[i];
    if (n == 1) continue;
    /* joins the dim behind it where the mask goes on with the same stride */
    bool joins = slot < CML_ATTENTION_DIMS - 1 && mask_strides[i] == a->mask.batch[slot + 1] * a->dims[slot + 1];
    if (joins) {
      a->dims[slot + 1] *= n;
    } else {
      if (slot < 0) return false;
      a->dims[slot] = n;
      a->mask.batch[slot] = mask_strides[i];
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

static const cml_op rows[] = {
    {.name = "scaled_dot_product_attention", .since = CML_IOS18, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(attention_params),
     .infer = infer, .run = run},
    {.name = "cml_attention", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(scaled_params),
     .infer = infer, .run = run},
};

const cml_op_family cml_ops_attention = {"attention", rows, sizeof rows / sizeof *rows};
