/* Operators that give a tensor another shape and leave its bytes alone: views, which the executor need not run. And `shape`,
 * which reads no bytes at all. */
#include "elementwise.h"
#include "families.h"
#include "strided.h"

static cml_status run_view(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  uint64_t bytes, room;
  if (!cml_tensor_bytes(x, &bytes) || !cml_tensor_bytes(c->outs[0], &room) || bytes != room)
    return cml_call_fail(c, err, "the shapes differ in size");
  cml_copy_bytes(c->outs[0]->data, x->data, bytes, c->pool);
  return CML_OK;
}

/* Sets output 0 and sees to it that it has as many elements as x. */
static cml_status set_view(cml_call *c, int32_t rank, const int64_t *dims, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  cml_out_set(c, 0, x->dtype, rank, dims);
  if (!cml_tensor_known_shape(x) || !cml_tensor_known_shape(c->outs[0])) return CML_OK;
  int64_t have = cml_dims_product(x->dims, 0, x->rank), want = cml_dims_product(dims, 0, rank);
  if (have == want) return CML_OK;
  char a[160], b[160];
  return cml_call_fail(c, err, "%s has %lld elements and cannot become %s", cml_shape_text(x, a, sizeof a), (long long)have,
                       cml_shape_text(c->outs[0], b, sizeof b));
}

/* ---- reshape ---- */

#define RESHAPE_PARAMS(x_types, shape_types) {{"x", x_types, 0, 0}, {"shape", shape_types, CML_VECTOR, 0}}
static const cml_param reshape_15[] = RESHAPE_PARAMS(CML_M_MOVE15, CML_M_AT15);
static const cml_param reshape_17[] = RESHAPE_PARAMS(CML_M_MOVE17, CML_M_AT17);

/* 0 takes the dimension of x: at the same place up to iOS16, counted from the end from iOS17 on. */
static cml_status replace_zeros(cml_call *c, int64_t *dims, int32_t rank, bool *unknown, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  for (int32_t i = 0; i < rank; i++) {
    if (dims[i]) continue;
    if (x->rank < 0) {
      unknown[i] = true;
      continue;
    }
    if (c->opset < CML_IOS17 && x->rank != rank)
      return cml_call_fail(c, err, "shape has a 0, and its length %d is not the rank %d of x", rank, x->rank);
    int32_t from = i - rank + x->rank;
    dims[i] = from < 0 ? 1 : x->dims[from];
    if (dims[i] < 0) unknown[i] = true;
  }
  return CML_OK;
}

static cml_status infer_reshape(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *shape = cml_arg(c, 1);
  int64_t dims[CML_MAX_RANK];
  bool unknown[CML_MAX_RANK] = {false};
  size_t n;
  if (!shape->data) {
    if (shape->rank > 1 || (shape->rank == 1 && shape->dims[0] > CML_MAX_RANK))
      return cml_call_fail(c, err, "shape must be a vector of at most %d elements", CML_MAX_RANK);
    cml_out_unknown(c, 0, x->dtype, shape->rank == 1 && shape->dims[0] >= 0 ? (int32_t)shape->dims[0] : CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(cml_arg_vector(c, 1, -1, dims, CML_MAX_RANK, &n, err));
  int32_t rank = (int32_t)n, free_dim = -1;
  CML_TRY(replace_zeros(c, dims, rank, unknown, err));
  for (int32_t i = 0; i < rank; i++) {
    if (unknown[i] || dims[i] >= 0) continue;
    if (dims[i] < -1) return cml_call_fail(c, err, "shape has the dimension %lld", (long long)dims[i]);
    if (free_dim >= 0) return cml_call_fail(c, err, "shape has more than one -1");
    free_dim = i;
  }
  if (free_dim >= 0 && cml_tensor_known_shape(x)) {
    dims[free_dim] = 1;
    int64_t total = cml_dims_product(x->dims, 0, x->rank), rest = cml_dims_product(dims, 0, rank);
    if (rest == 0 ? total != 0 : total % rest != 0)
      return cml_call_fail(c, err, "%lld elements cannot be laid out in rows of %lld", (long long)total, (long long)rest);
    dims[free_dim] = rest ? total / rest : 0;
  }
  return set_view(c, rank, dims, err);
}

/* ---- reshape_like ---- */

static const cml_param reshape_like_params[] = {
    {"x", CML_M_MOVE17, 0, 0},
    {"ref_tensors", CML_M_ANY, CML_VARIADIC, 0},
    {"begins", CML_M_INT, CML_VARIADIC | CML_CONST, 0},
    {"ends", CML_M_INT, CML_VARIADIC | CML_CONST, 0},
    {"end_masks", CML_M_BOOL, CML_VARIADIC | CML_CONST, 0},
};

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

/* A position as Python's slices take it: negative ones count from the end, too far ones stop there. */
static int32_t slice_position(int64_t at, int32_t length) {
  return (int32_t)clamp(at < 0 ? at + length : at, 0, length);
}

static cml_status infer_reshape_like(cml_call *c, cml_error *err) {
  int64_t dims[CML_MAX_RANK];
  int32_t rank = 0;
  size_t n = cml_arg_count(c, 1);
  if (cml_arg_count(c, 2) != n || cml_arg_count(c, 3) != n || cml_arg_count(c, 4) != n)
    return cml_call_fail(c, err, "ref_tensors, begins, ends and end_masks are not equally many");
  for (size_t k = 0; k < n; k++) {
    const cml_tensor *ref = cml_arg_at(c, 1, k), *at[3] = {cml_arg_at(c, 2, k), cml_arg_at(c, 3, k), cml_arg_at(c, 4, k)};
    for (int i = 0; i < 3; i++)
      if (!at[i]->data || cml_tensor_count(at[i]) != 1) return cml_call_fail(c, err, "begins, ends and end_masks must be scalars");
    if (ref->rank < 0) {
      cml_out_unknown(c, 0, cml_arg(c, 0)->dtype, CML_RANK_UNKNOWN);
      return CML_OK;
    }
    int32_t begin = slice_position(cml_tensor_get_int(at[0], 0), ref->rank);
    int32_t end = cml_tensor_get_int(at[2], 0) ? ref->rank : slice_position(cml_tensor_get_int(at[1], 0), ref->rank);
    for (int32_t i = begin; i < end; i++) {
      if (rank == CML_MAX_RANK) return cml_call_fail(c, err, "the result has more than %d dimensions", CML_MAX_RANK);
      dims[rank++] = ref->dims[i];
    }
  }
  return set_view(c, rank, dims, err);
}

/* ---- expand_dims, squeeze ---- */

#define AXES_PARAMS(x_types, flags) {{"x", x_types, 0, 0}, {"axes", CML_MASK(I32), (flags) | CML_VECTOR, 0}}
static const cml_param expand_15[] = AXES_PARAMS(CML_M_MOVE15, CML_CONST);
static const cml_param expand_17[] = AXES_PARAMS(CML_M_MOVE17, CML_CONST);
static const cml_param squeeze_15[] = AXES_PARAMS(CML_M_MOVE15, CML_CONST | CML_OPTIONAL);
static const cml_param squeeze_17[] = AXES_PARAMS(CML_M_MOVE17, CML_CONST | CML_OPTIONAL);

/* The axes in ascending order, from 0. */
static cml_status sorted_axes(cml_call *c, int32_t rank, int32_t *axes, size_t *count, cml_error *err) {
  int64_t given[CML_MAX_RANK];
  CML_TRY(cml_arg_vector(c, 1, -1, given, CML_MAX_RANK, count, err));
  for (size_t i = 0; i < *count; i++) {
    int32_t axis;
    if (!cml_axis(given[i], rank, &axis))
      return cml_call_fail(c, err, "axis %lld is out of range for rank %d", (long long)given[i], rank);
    size_t at = i;
    for (; at > 0 && axes[at - 1] > axis; at--) axes[at] = axes[at - 1];
    axes[at] = axis;
  }
  return CML_OK;
}

static cml_status infer_expand_dims(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *given = cml_arg(c, 1);
  int32_t axes[CML_MAX_RANK];
  int64_t dims[CML_MAX_RANK];
  size_t count;
  if (x->rank < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  int64_t rank = x->rank + cml_tensor_count(given);
  if (rank > CML_MAX_RANK) return cml_call_fail(c, err, "the result would have more than %d dimensions", CML_MAX_RANK);
  CML_TRY(sorted_axes(c, (int32_t)rank, axes, &count, err));
  memcpy(dims, x->dims, sizeof dims);
  int32_t now = x->rank;
  for (size_t i = 0; i < count; i++) {
    if (axes[i] > now) return cml_call_fail(c, err, "axes leave dimension %d undefined", now);
    memmove(dims + axes[i] + 1, dims + axes[i], (size_t)(now - axes[i]) * sizeof *dims);
    dims[axes[i]] = 1;
    now++;
  }
  return set_view(c, now, dims, err);
}

static cml_status squeeze_all(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t dims[CML_MAX_RANK];
  int32_t rank = 0;
  for (int32_t i = 0; i < x->rank; i++) {
    if (x->dims[i] < 0) {
      cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
      return CML_OK;
    }
    if (x->dims[i] != 1) dims[rank++] = x->dims[i];
  }
  return set_view(c, rank, dims, err);
}

/* Named axes that are not 1 long stay, as in PyTorch. Whether one of unknown length goes is seen from the declared rank. */
static cml_status infer_squeeze(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axes[CML_MAX_RANK], rank = x->rank;
  int64_t dims[CML_MAX_RANK];
  size_t count;
  if (x->rank < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  if (!cml_arg(c, 1)) return squeeze_all(c, err);
  CML_TRY(sorted_axes(c, x->rank, axes, &count, err));
  memcpy(dims, x->dims, sizeof dims);
  int32_t declared = c->declared && c->declared[0].dtype ? c->declared[0].rank : -1;
  for (size_t i = 0; declared < 0 && i < count; i++)
    if (dims[axes[i]] < 0) {
      cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
      return CML_OK;
    }
  for (size_t i = count; i-- > 0;) {
    if (i + 1 < count && axes[i] == axes[i + 1]) continue;
    bool goes = dims[axes[i]] == 1 || (dims[axes[i]] < 0 && declared >= 0);
    if (!goes || (declared >= 0 && rank <= declared)) continue;
    memmove(dims + axes[i], dims + axes[i] + 1, (size_t)(rank - axes[i] - 1) * sizeof *dims);
    rank--;
  }
  return set_view(c, rank, dims, err);
}

/* ---- flatten2d ---- */

static const cml_param flatten2d_params[] = {{"x", CML_M_MOVE17, 0, 0}, {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}};

static cml_status infer_flatten2d(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t dims[2] = {-1, -1};
  CML_TRY(cml_check_scalars(c, 2, err));
  if (x->rank >= 0) {
    int32_t axis = slice_position(cml_arg_int(c, 1, 1), x->rank);
    dims[0] = cml_dims_product(x->dims, 0, axis);
    dims[1] = cml_dims_product(x->dims, axis, x->rank);
  }
  return set_view(c, 2, dims, err);
}

/* ---- shape ---- */

static const cml_param shape_params[] = {{"x", CML_M_ANY, 0, 0}};

static cml_status infer_shape(cml_call *c, cml_error *err) {
  (void)err;
  int64_t rank = cml_arg(c, 0)->rank;
  cml_out_set(c, 0, CML_I32, 1, &rank);
  return CML_OK;
}

static cml_status run_shape(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  for (int32_t i = 0; i < x->rank; i++) {
    if (x->dims[i] > INT32_MAX) return cml_call_fail(c, err, "dimension %d is beyond int32", i);
    ((int32_t *)c->outs[0]->data)[i] = (int32_t)x->dims[i];
  }
  return CML_OK;
}

/* ---- rows ---- */

#define VIEW_ROW(op, first, last, p, infer_function)                                                                      \
  {.name = op, .since = first, .until = last, .flags = CML_OP_VIEW, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(p), \
   .infer = infer_function, .run = run_view}

static const cml_op rows[] = {
    VIEW_ROW("reshape", CML_IOS15, CML_IOS16, reshape_15, infer_reshape),
    VIEW_ROW("reshape", CML_IOS17, 0, reshape_17, infer_reshape),
    VIEW_ROW("reshape_like", CML_IOS16, 0, reshape_like_params, infer_reshape_like),
    VIEW_ROW("expand_dims", CML_IOS15, CML_IOS16, expand_15, infer_expand_dims),
    VIEW_ROW("expand_dims", CML_IOS17, 0, expand_17, infer_expand_dims),
    VIEW_ROW("squeeze", CML_IOS15, CML_IOS16, squeeze_15, infer_squeeze),
    VIEW_ROW("squeeze", CML_IOS17, 0, squeeze_17, infer_squeeze),
    VIEW_ROW("flatten2d", CML_IOS15, 0, flatten2d_params, infer_flatten2d),
    {.name = "shape", .since = CML_IOS15, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(shape_params), .infer = infer_shape,
     .run = run_shape},
};

const cml_op_family cml_ops_shape = {"shape", rows, sizeof rows / sizeof *rows};
