/* Operators that only rearrange: each makes a view of its input and copies it to the output. */
#include "et_families.h"
#include "et_view.h"

/* ---- plain copies ---- */

/* The output is the input converted to its type. */
static cml_status convert_to(cml_et_call *c, const cml_et_tensor *x, cml_et_tensor *out, cml_error *err) {
  CML_TRY(cml_et_want(c, x, CML_ET_ANY, "the tensor", err));
  CML_TRY(cml_et_want(c, out, CML_ET_ANY, "the output", err));
  CML_TRY(cml_et_resize_like(c, out, x, err));
  cml_et_view to = cml_et_view_of(out), from = cml_et_view_of(x);
  cml_et_view_move(c, &to, &from);
  return CML_OK;
}

static cml_status clone_to(cml_et_call *c, size_t out, cml_error *err) {
  CML_TRY(cml_et_same_type(c, cml_et_arg(c, 0), cml_et_arg(c, out), err));
  return convert_to(c, cml_et_arg(c, 0), cml_et_arg(c, out), err);
}
static cml_status op_alias(cml_et_call *c, cml_error *err) { return clone_to(c, 1, err); }
static cml_status op_clone(cml_et_call *c, cml_error *err) { return clone_to(c, 2, err); }
static cml_status op_to_copy(cml_et_call *c, cml_error *err) { return convert_to(c, cml_et_arg(c, 0), cml_et_arg(c, 3), err); }

/* src, repeated to the shape of `like`, into out. */
static cml_status copy_broadcast(cml_et_call *c, const cml_et_tensor *like, const cml_et_tensor *src, cml_et_tensor *out, cml_error *err) {
  const cml_et_tensor *both[2] = {like, src};
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(cml_et_same_type(c, like, out, err));
  CML_TRY(cml_et_want(c, src, CML_ET_ANY, "the source", err));
  CML_TRY(cml_et_broadcast(c, both, 2, &rank, sizes, err));
  if (rank != like->rank || memcmp(sizes, like->sizes, rank * sizeof *sizes)) return cml_et_fail(c, err, "the source does not broadcast to the tensor's shape");
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  cml_et_view to = cml_et_view_of(out), from = to;
  from.t = src;
  cml_et_broadcast_strides(src, rank, sizes, from.strides);
  cml_et_view_move(c, &to, &from);
  return CML_OK;
}
static cml_status op_copy(cml_et_call *c, cml_error *err) { return copy_broadcast(c, cml_et_arg(c, 0), cml_et_arg(c, 1), cml_et_arg(c, 3), err); }
static cml_status op_copy_(cml_et_call *c, cml_error *err) { return copy_broadcast(c, cml_et_arg(c, 0), cml_et_arg(c, 1), cml_et_arg(c, 0), err); }

/* Elements by position in the shape, whatever the orders in memory. */
static cml_status op_view(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 2);
  int64_t sizes[CML_PTE_MAX_RANK], *open = NULL;
  uint64_t known = 1, count = (uint64_t)cml_et_numel(x);
  size_t rank;
  cml_et_local local;
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(cml_et_ints(c, 1, sizes, CML_PTE_MAX_RANK, &rank, err));
  for (size_t k = 0; k < rank; k++) {
    if (sizes[k] == -1 && !open) open = &sizes[k];
    else if (sizes[k] < 0 || !cml_mul(known, (uint64_t)sizes[k], &known)) return cml_et_fail(c, err, "the sizes make no shape");
  }
  if (open && known && count % known == 0) *open = (int64_t)(count / known);
  else if (open || known != count) return cml_et_fail(c, err, "%llu elements do not fill the shape", (unsigned long long)count);
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  bool dense = cml_et_is_contiguous(out);
  if (!dense && !cml_et_is_contiguous(x)) {
    cml_et_move_run(out, 0, x, 0, (int64_t)count);
    return CML_OK;
  }
  /* What is dense has the other's shape too. */
  if (dense) cml_et_make(&local, out->dtype, x->rank, x->sizes, out->data);
  else cml_et_make(&local, x->dtype, out->rank, out->sizes, x->data);
  cml_et_view to = cml_et_view_of(dense ? &local.t : out), from = cml_et_view_of(dense ? x : &local.t);
  cml_et_view_move(c, &to, &from);
  return CML_OK;
}

/* ---- dimensions ---- */

static cml_status op_permute(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int64_t dims[CML_PTE_MAX_RANK];
  int order[CML_PTE_MAX_RANK];
  uint32_t seen = 0;
  size_t count;
  CML_TRY(cml_et_ints(c, 1, dims, CML_PTE_MAX_RANK, &count, err));
  if (count != (size_t)v.rank) return cml_et_fail(c, err, "%zu dimensions are named of %d", count, v.rank);
  for (size_t k = 0; k < count; k++) {
    CML_TRY(cml_et_axis(c, dims[k], v.rank, &order[k], err));
    if (seen >> order[k] & 1) return cml_et_fail(c, err, "dimension %d is named twice", order[k]);
    seen |= UINT32_C(1) << order[k];
  }
  cml_et_view_permute(&v, order);
  return cml_et_view_emit(c, &v, cml_et_arg(c, 2), err);
}

static cml_status transpose(cml_et_call *c, int64_t d0, int64_t d1, size_t out, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int a, b, order[CML_PTE_MAX_RANK];
  CML_TRY(cml_et_axis(c, d0, v.rank, &a, err));
  CML_TRY(cml_et_axis(c, d1, v.rank, &b, err));
  for (int k = 0; k < v.rank; k++) order[k] = k == a ? b : k == b ? a : k;
  cml_et_view_permute(&v, order);
  return cml_et_view_emit(c, &v, cml_et_arg(c, out), err);
}
static cml_status op_transpose(cml_et_call *c, cml_error *err) { return transpose(c, cml_et_int(c, 1, 0), cml_et_int(c, 2, 0), 3, err); }
static cml_status op_t(cml_et_call *c, cml_error *err) {
  int rank = cml_et_arg(c, 0)->rank;
  if (rank > 2) return cml_et_fail(c, err, "takes a matrix; this tensor is of rank %d", rank);
  return transpose(c, 0, -1, 1, err);
}

static cml_status op_expand(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_view v = cml_et_view_of(x);
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(cml_et_ints(c, 1, sizes, CML_PTE_MAX_RANK, &rank, err));
  if (rank < x->rank) return cml_et_fail(c, err, "%zu sizes for a tensor of rank %d", rank, x->rank);
  while ((size_t)v.rank < rank) cml_et_view_insert(&v, 0, 1, 0);
  for (size_t k = 0; k < rank; k++) {
    if (sizes[k] == -1 && k >= rank - x->rank) continue;
    if (v.sizes[k] != sizes[k] && (v.sizes[k] != 1 || sizes[k] < 0))
      return cml_et_fail(c, err, "size %lld does not expand to %lld", (long long)v.sizes[k], (long long)sizes[k]);
    if (v.sizes[k] != sizes[k]) v.strides[k] = 0;
    v.sizes[k] = sizes[k];
  }
  return cml_et_view_emit(c, &v, cml_et_arg(c, 3), err);
}

static cml_status op_unsqueeze(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int axis;
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), v.rank + 1, &axis, err));
  cml_et_view_insert(&v, axis, 1, 0);
  return cml_et_view_emit(c, &v, cml_et_arg(c, 2), err);
}

static cml_status squeeze(cml_et_call *c, const int64_t *dims, size_t count, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  uint32_t seen = 0;
  for (size_t i = 0; i < count; i++) {
    int axis;
    CML_TRY(cml_et_axis(c, dims[i], v.rank, &axis, err));
    seen |= UINT32_C(1) << axis;
  }
  for (int k = v.rank - 1; k >= 0; k--)
    if (seen >> k & 1 && v.sizes[k] == 1) cml_et_view_select(&v, k, 0);
  return cml_et_view_emit(c, &v, cml_et_arg(c, 2), err);
}
static cml_status op_squeeze_dim(cml_et_call *c, cml_error *err) {
  int64_t dim = cml_et_int(c, 1, 0);
  return squeeze(c, &dim, 1, err);
}
static cml_status op_squeeze_dims(cml_et_call *c, cml_error *err) {
  int64_t dims[CML_PTE_MAX_RANK];
  size_t count;
  CML_TRY(cml_et_ints(c, 1, dims, CML_PTE_MAX_RANK, &count, err));
  return squeeze(c, dims, count, err);
}

static cml_status op_flip(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int64_t dims[CML_PTE_MAX_RANK];
  uint32_t seen = 0;
  size_t count;
  CML_TRY(cml_et_ints(c, 1, dims, CML_PTE_MAX_RANK, &count, err));
  for (size_t i = 0; i < count; i++) {
    int axis;
    CML_TRY(cml_et_axis(c, dims[i], v.rank, &axis, err));
    if (seen >> axis & 1) return cml_et_fail(c, err, "dimension %d is named twice", axis);
    seen |= UINT32_C(1) << axis;
    if (axis < v.rank && v.sizes[axis] > 0) cml_et_view_slice(&v, axis, v.sizes[axis] - 1, v.sizes[axis], -1);
  }
  return cml_et_view_emit(c, &v, cml_et_arg(c, 2), err);
}

static cml_status op_diagonal(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int64_t offset = cml_et_int(c, 1, 0);
  int a, b;
  CML_TRY(cml_et_axis(c, cml_et_int(c, 2, 0), v.rank, &a, err));
  CML_TRY(cml_et_axis(c, cml_et_int(c, 3, 1), v.rank, &b, err));
  if (a == b || v.rank < 2) return cml_et_fail(c, err, "dimensions %d and %d have no diagonal", a, b);
  int64_t rows = v.sizes[a], columns = v.sizes[b], step = v.strides[a] + v.strides[b], count = 0;
  if (offset >= 0 && offset < columns) count = columns - offset < rows ? columns - offset : rows;
  if (offset < 0 && offset > -rows) count = rows + offset < columns ? rows + offset : columns;
  if (count > 0) v.offset += offset >= 0 ? offset * v.strides[b] : -offset * v.strides[a];
  int64_t at = v.offset;
  cml_et_view_select(&v, a > b ? a : b, 0);
  cml_et_view_select(&v, a > b ? b : a, 0);
  cml_et_view_insert(&v, v.rank, count, step);
  v.offset = at;
  return cml_et_view_emit(c, &v, cml_et_arg(c, 4), err);
}

static cml_status op_as_strided(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_view v = {.t = x, .offset = cml_et_int(c, 3, 0)};
  size_t rank, strides;
  uint64_t last = (uint64_t)v.offset, count = 1;
  CML_TRY(cml_et_ints(c, 1, v.sizes, CML_PTE_MAX_RANK, &rank, err));
  CML_TRY(cml_et_ints(c, 2, v.strides, CML_PTE_MAX_RANK, &strides, err));
  if (rank != strides || v.offset < 0) return cml_et_fail(c, err, "sizes, strides and offset make no view");
  for (size_t k = 0; k < rank; k++) {
    uint64_t reach;
    if (v.sizes[k] < 0 || v.strides[k] < 0) return cml_et_fail(c, err, "sizes and strides must not be negative");
    if (!cml_mul(count, (uint64_t)v.sizes[k], &count)) return cml_et_fail(c, err, "the view is too large");
    if (v.sizes[k] && (!cml_mul((uint64_t)v.sizes[k] - 1, (uint64_t)v.strides[k], &reach) || !cml_add(last, reach, &last)))
      return cml_et_fail(c, err, "the view is too large");
  }
  if (count && last >= (uint64_t)cml_et_numel(x)) return cml_et_fail(c, err, "the view ends at element %llu of %lld", (unsigned long long)last, (long long)cml_et_numel(x));
  v.rank = (int)rank;
  return cml_et_view_emit(c, &v, cml_et_arg(c, 4), err);
}

static cml_status op_unfold(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int64_t size = cml_et_int(c, 2, 0), step = cml_et_int(c, 3, 0);
  int axis;
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), v.rank, &axis, err));
  int64_t n = v.rank ? v.sizes[axis] : 1, stride = v.rank ? v.strides[axis] : 1;
  if (size < 0 || size > n || step < 1) return cml_et_fail(c, err, "windows of %lld each %lld of %lld elements", (long long)size, (long long)step, (long long)n);
  if (v.rank) {
    v.sizes[axis] = (n - size) / step + 1;
    if (v.sizes[axis] > 1) v.strides[axis] = stride * step;
  }
  cml_et_view_insert(&v, v.rank, size, stride);
  return cml_et_view_emit(c, &v, cml_et_arg(c, 4), err);
}

/* ---- parts ---- */

/* torch's slice: start and end may be missing, negative, out of range. */
static cml_status slice(cml_et_call *c, cml_et_view *v, size_t first, cml_error *err) {
  int axis;
  if (!v->rank) return cml_et_fail(c, err, "a tensor of rank 0 has no slices");
  CML_TRY(cml_et_axis(c, cml_et_int(c, first, 0), v->rank, &axis, err));
  int64_t n = v->sizes[axis], start = cml_et_int(c, first + 1, 0), end = cml_et_int(c, first + 2, INT64_MAX), step = cml_et_int(c, first + 3, 1);
  if (step < 1) return cml_et_fail(c, err, "the step is %lld, not positive", (long long)step);
  if (start < 0) start = start < -n ? 0 : start + n;
  if (end < 0) end = end < -n ? 0 : end + n;
  if (start > n) start = n;
  if (end > n) end = n;
  if (end < start) end = start;
  int64_t count = end > start ? (end - start - 1) / step + 1 : 0;
  cml_et_view_slice(v, axis, count ? start : 0, count, count > 1 ? step : 1);
  return CML_OK;
}

static cml_status op_slice(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  CML_TRY(slice(c, &v, 1, err));
  return cml_et_view_emit(c, &v, cml_et_arg(c, 5), err);
}

static cml_status op_narrow(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int64_t start = cml_et_int(c, 2, 0), length = cml_et_int(c, 3, 0);
  int axis;
  if (!v.rank) return cml_et_fail(c, err, "a tensor of rank 0 has no slices");
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), v.rank, &axis, err));
  int64_t n = v.sizes[axis];
  if (start < 0 && start >= -n) start += n;
  if (start < 0 || start > n || length < 0 || length > n - start)
    return cml_et_fail(c, err, "%lld elements from %lld on are not in a dimension of %lld", (long long)length, (long long)start, (long long)n);
  cml_et_view_slice(&v, axis, start, length, 1);
  return cml_et_view_emit(c, &v, cml_et_arg(c, 4), err);
}

static cml_status select_index(cml_et_call *c, cml_et_view *v, size_t first, cml_error *err) {
  int64_t index = cml_et_int(c, first + 1, 0);
  int axis;
  if (!v->rank) return cml_et_fail(c, err, "a tensor of rank 0 has no parts");
  CML_TRY(cml_et_axis(c, cml_et_int(c, first, 0), v->rank, &axis, err));
  int64_t n = v->sizes[axis];
  if (index < -n || index >= n) return cml_et_fail(c, err, "index %lld is out of range for a dimension of %lld", (long long)index, (long long)n);
  cml_et_view_select(v, axis, index < 0 ? index + n : index);
  return CML_OK;
}

static cml_status op_select(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  CML_TRY(select_index(c, &v, 1, err));
  return cml_et_view_emit(c, &v, cml_et_arg(c, 3), err);
}

/* out is self with src in a part of it. */
static cml_status scatter_part(cml_et_call *c, cml_status (*part)(cml_et_call *, cml_et_view *, size_t, cml_error *), size_t out_index,
                               cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0), *src = cml_et_arg(c, 1);
  cml_et_tensor *out = cml_et_arg(c, out_index);
  cml_et_view v = cml_et_view_of(self), from = cml_et_view_of(src);
  CML_TRY(part(c, &v, 2, err));
  CML_TRY(cml_et_want(c, src, CML_ET_ANY, "the source", err));
  if (v.rank != from.rank || memcmp(v.sizes, from.sizes, (size_t)v.rank * sizeof *v.sizes)) return cml_et_fail(c, err, "the source's shape is not that of the part");
  CML_TRY(clone_to(c, out_index, err));
  v = cml_et_view_of(out);
  CML_TRY(part(c, &v, 2, err));
  cml_et_view_move(c, &v, &from);
  return CML_OK;
}
static cml_status op_select_scatter(cml_et_call *c, cml_error *err) { return scatter_part(c, select_index, 4, err); }
static cml_status op_slice_scatter(cml_et_call *c, cml_error *err) { return scatter_part(c, slice, 6, err); }

/* Item k of the outputs gets `size` elements from `start` on. */
static cml_status emit_part(cml_et_call *c, const cml_et_view *v, int axis, int64_t start, int64_t size, size_t list, size_t k, cml_error *err) {
  cml_et_view part = *v;
  cml_et_view_slice(&part, axis, start, size, 1);
  return cml_et_view_emit(c, &part, cml_et_item(c, list, k), err);
}

static cml_status op_split(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  int64_t size = cml_et_int(c, 1, 0);
  int axis;
  if (!v.rank) return cml_et_fail(c, err, "a tensor of rank 0 cannot be split");
  CML_TRY(cml_et_axis(c, cml_et_int(c, 2, 0), v.rank, &axis, err));
  int64_t n = v.sizes[axis], count = n == 0 ? 1 : size > 0 ? (n - 1) / size + 1 : -1;
  if (size < 0 || count < 0 || (uint64_t)count != c->args[3]->count) return cml_et_fail(c, err, "parts of %lld make not %u outputs of %lld", (long long)size, c->args[3]->count, (long long)n);
  for (int64_t k = 0; k < count; k++) CML_TRY(emit_part(c, &v, axis, k * size, k + 1 < count ? size : n - k * size, 3, (size_t)k, err));
  return CML_OK;
}

static cml_status op_split_sizes(cml_et_call *c, cml_error *err) {
  cml_et_view v = cml_et_view_of(cml_et_arg(c, 0));
  size_t count = cml_et_count(c, 1);
  int64_t start = 0;
  int axis;
  if (!v.rank) return cml_et_fail(c, err, "a tensor of rank 0 cannot be split");
  CML_TRY(cml_et_axis(c, cml_et_int(c, 2, 0), v.rank, &axis, err));
  if (count != c->args[3]->count) return cml_et_fail(c, err, "%zu sizes for %u outputs", count, c->args[3]->count);
  for (int pass = 0; pass < 2; pass++) {
    start = 0;
    for (size_t k = 0; k < count; k++) {
      int64_t size = cml_et_number_of(c->args[1]->items[k]).i;
      if (size < 0 || size > v.sizes[axis] - start) return cml_et_fail(c, err, "part %zu of %lld does not fit", k, (long long)size);
      if (pass) CML_TRY(emit_part(c, &v, axis, start, size, 3, k, err));
      start += size;
    }
    if (start != v.sizes[axis]) return cml_et_fail(c, err, "the parts are %lld of %lld elements", (long long)start, (long long)v.sizes[axis]);
  }
  return CML_OK;
}

static cml_status op_unbind(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  int axis;
  if (!x->rank) return cml_et_fail(c, err, "a tensor of rank 0 has no parts");
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), x->rank, &axis, err));
  if (x->sizes[axis] != c->args[2]->count) return cml_et_fail(c, err, "%u outputs for %lld parts", c->args[2]->count, (long long)x->sizes[axis]);
  for (int64_t k = 0; k < x->sizes[axis]; k++) {
    cml_et_view v = cml_et_view_of(x);
    cml_et_view_select(&v, axis, k);
    CML_TRY(cml_et_view_emit(c, &v, cml_et_item(c, 2, (size_t)k), err));
  }
  return CML_OK;
}

/* ---- joins ---- */

static bool is_legacy_empty(const cml_et_tensor *t) { return t->rank == 1 && t->sizes[0] == 0; }

/* Element types are promoted; empty vectors may stand among tensors of any rank. */
static cml_status op_cat(cml_et_call *c, cml_error *err) {
  size_t count = c->args[0]->count;
  cml_et_tensor *out = cml_et_arg(c, 2);
  const cml_et_tensor *shape = NULL;
  int axis;
  if (!count) return cml_et_fail(c, err, "there is nothing to join");
  cml_dtype dtype = cml_et_item(c, 0, 0)->dtype;
  for (size_t i = 0; i < count; i++) {
    const cml_et_tensor *t = cml_et_item(c, 0, i);
    CML_TRY(cml_et_want(c, t, CML_ET_ANY, "a tensor", err));
    dtype = cml_et_promote(dtype, t->dtype);
    if (!shape && !is_legacy_empty(t)) shape = t;
  }
  if (!shape) shape = cml_et_item(c, 0, 0);
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), shape->rank, &axis, err));
  if (!shape->rank) return cml_et_fail(c, err, "tensors of rank 0 cannot be joined");
  if (cml_dtype_is_float(dtype) && !cml_dtype_is_float(out->dtype)) return cml_et_fail(c, err, "type %s cannot be stored as %s", cml_dtype_name(dtype), cml_dtype_name(out->dtype));
  int64_t sizes[CML_PTE_MAX_RANK], at = 0;
  memcpy(sizes, shape->sizes, shape->rank * sizeof *sizes);
  for (size_t i = 0; i < count; i++) {
    const cml_et_tensor *t = cml_et_item(c, 0, i);
    if (is_legacy_empty(t)) continue;
    bool fits = t->rank == shape->rank;
    for (int k = 0; fits && k < shape->rank; k++) fits = k == axis || t->sizes[k] == shape->sizes[k];
    if (!fits || at > INT64_MAX - t->sizes[axis]) return cml_et_fail(c, err, "tensor %zu has another shape than the first", i);
    at += t->sizes[axis];
  }
  sizes[axis] = at;
  CML_TRY(cml_et_resize(c, out, shape->rank, sizes, err));
  at = 0;
  for (size_t i = 0; i < count; i++) {
    const cml_et_tensor *t = cml_et_item(c, 0, i);
    if (is_legacy_empty(t)) continue;
    cml_et_view to = cml_et_view_of(out), from = cml_et_view_of(t);
    cml_et_view_slice(&to, axis, at, t->sizes[axis], 1);
    cml_et_view_move(c, &to, &from);
    at += t->sizes[axis];
  }
  return CML_OK;
}

static cml_status op_stack(cml_et_call *c, cml_error *err) {
  size_t count = c->args[0]->count;
  cml_et_tensor *out = cml_et_arg(c, 2);
  int axis;
  if (!count) return cml_et_fail(c, err, "there is nothing to join");
  const cml_et_tensor *first = cml_et_item(c, 0, 0);
  cml_et_view whole = cml_et_view_of(first);
  cml_dtype dtype = first->dtype;
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), first->rank + 1, &axis, err));
  for (size_t i = 0; i < count; i++) {
    const cml_et_tensor *t = cml_et_item(c, 0, i);
    CML_TRY(cml_et_want(c, t, CML_ET_ANY, "a tensor", err));
    if (!cml_et_same_shape(t, first)) return cml_et_fail(c, err, "tensor %zu has another shape than the first", i);
    dtype = cml_et_promote(dtype, t->dtype);
  }
  if (cml_dtype_is_float(dtype) && !cml_dtype_is_float(out->dtype)) return cml_et_fail(c, err, "type %s cannot be stored as %s", cml_dtype_name(dtype), cml_dtype_name(out->dtype));
  cml_et_view_insert(&whole, axis, (int64_t)count, 0);
  CML_TRY(cml_et_resize(c, out, (size_t)whole.rank, whole.sizes, err));
  for (size_t i = 0; i < count; i++) {
    cml_et_view to = cml_et_view_of(out), from = cml_et_view_of(cml_et_item(c, 0, i));
    cml_et_view_select(&to, axis, (int64_t)i);
    cml_et_view_move(c, &to, &from);
  }
  return CML_OK;
}

/* ---- repeats ---- */

static cml_status op_repeat(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 2);
  cml_et_view from = cml_et_view_of(x);
  int64_t repeats[CML_PTE_MAX_RANK], sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(cml_et_ints(c, 1, repeats, CML_PTE_MAX_RANK, &rank, err));
  if (rank < x->rank) return cml_et_fail(c, err, "%zu repeats for a tensor of rank %d", rank, x->rank);
  while ((size_t)from.rank < rank) cml_et_view_insert(&from, 0, 1, 0);
  for (size_t k = 0; k < rank; k++)
    if (repeats[k] < 0 || __builtin_mul_overflow(from.sizes[k], repeats[k], &sizes[k])) return cml_et_fail(c, err, "%lld repeats make no size", (long long)repeats[k]);
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  cml_et_view to = cml_et_view_of(out);
  for (int k = (int)rank - 1; k >= 0; k--) {
    cml_et_view_split(&to, k, from.sizes[k]);
    cml_et_view_insert(&from, k, repeats[k], 0);
  }
  cml_et_view_move(c, &to, &from);
  return CML_OK;
}

/* Each rolled dimension is two runs that change places. */
static cml_status op_roll(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 3);
  int64_t shifts[CML_PTE_MAX_RANK], dims[CML_PTE_MAX_RANK], by[CML_PTE_MAX_RANK] = {0};
  size_t count, dim_count;
  cml_et_view whole = cml_et_view_of(x), target;
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(cml_et_ints(c, 1, shifts, CML_PTE_MAX_RANK, &count, err));
  CML_TRY(cml_et_ints(c, 2, dims, CML_PTE_MAX_RANK, &dim_count, err));
  CML_TRY(cml_et_resize_like(c, out, x, err));
  int64_t n = cml_et_numel(x);
  if (n == 0) return CML_OK;
  target = cml_et_view_of(out);
  if (dim_count == 0 && count == 1) { /* all elements as one row */
    int64_t shift = (shifts[0] % n + n) % n;
    cml_et_move_run(out, shift, x, 0, n - shift);
    cml_et_move_run(out, 0, x, n - shift, shift);
    return CML_OK;
  }
  if (count != dim_count) {
    return cml_et_fail(c, err, "%zu shifts for %zu dimensions", count, dim_count);
  }
  for (size_t i = 0; i < count; i++) {
    int axis;
    CML_TRY(cml_et_axis(c, dims[i], whole.rank, &axis, err));
    int64_t size = whole.rank ? whole.sizes[axis] : 1, shift = shifts[i] % size;
    by[axis] = (by[axis] + shift + size) % size;
  }
  for (uint32_t mask = 0; mask < UINT32_C(1) << whole.rank; mask++) {
    cml_et_view from = whole, to = target;
    bool some = true;
    for (int k = 0; k < whole.rank && some; k++) {
      int64_t size = whole.sizes[k], b = by[k];
      if (mask >> k & 1) {
        some = b > 0;
        cml_et_view_slice(&from, k, size - b, b, 1);
        cml_et_view_slice(&to, k, 0, b, 1);
      } else {
        cml_et_view_slice(&from, k, 0, size - b, 1);
        cml_et_view_slice(&to, k, b, size - b, 1);
      }
    }
    if (some) cml_et_view_move(c, &to, &from);
  }
  return CML_OK;
}

/* ---- pixels ---- */

static cml_status pixel(cml_et_call *c, bool shuffle, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 2);
  int64_t r = cml_et_int(c, 1, 0), sizes[CML_PTE_MAX_RANK];
  int h = x->rank - 2;
  if (x->rank < 3 || r < 1 || r > 1 << 20) return cml_et_fail(c, err, "takes images of channels, height, width and a factor above 0");
  int64_t *s = memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  if (shuffle ? s[h - 1] % (r * r) != 0 : s[h] % r != 0 || s[h + 1] % r != 0) return cml_et_fail(c, err, "the image's shape is no multiple of the factor %lld", (long long)r);
  if (shuffle && (s[h] > INT64_MAX / r || s[h + 1] > INT64_MAX / r)) return cml_et_fail(c, err, "the image is too large");
  s[h - 1] = shuffle ? s[h - 1] / (r * r) : s[h - 1] * r * r;
  s[h] = shuffle ? s[h] * r : s[h] / r;
  s[h + 1] = shuffle ? s[h + 1] * r : s[h + 1] / r;
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  cml_et_view from = cml_et_view_of(x), to = cml_et_view_of(out);
  cml_et_view *deep = shuffle ? &from : &to, *wide = shuffle ? &to : &from;
  cml_et_view_split(deep, h - 1, r * r); /* C, r r, H, W */
  cml_et_view_split(deep, h, r);         /* C, r, r, H, W */
  cml_et_view_split(wide, h + 1, r);     /* C, Hr, W, r */
  cml_et_view_split(wide, h, r);         /* C, H, r, W, r */
  int order[CML_ET_VIEW_RANK];
  for (int k = 0; k < h; k++) order[k] = k;
  order[h] = h + 1;
  order[h + 1] = h + 3;
  order[h + 2] = h;
  order[h + 3] = h + 2;
  cml_et_view_permute(wide, order); /* C, r, r, H, W */
  cml_et_view_move(c, &to, &from);
  return CML_OK;
}
static cml_status op_pixel_shuffle(cml_et_call *c, cml_error *err) { return pixel(c, true, err); }
static cml_status op_pixel_unshuffle(cml_et_call *c, cml_error *err) { return pixel(c, false, err); }

/* An image of whole tiles, tile by tile. */
static cml_status op_tile_crop(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  int64_t size = cml_et_int(c, 1, 0);
  if (x->rank != 3 || size < 1 || x->sizes[1] % size || x->sizes[2] % size)
    return cml_et_fail(c, err, "takes an image of channels, height and width, both multiples of the tile's size");
  cml_et_view from = cml_et_view_of(x), to;
  cml_et_tensor *out = cml_et_arg(c, 2);
  int64_t rows = x->sizes[1] / size, columns = x->sizes[2] / size;
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(cml_et_resize(c, out, 4, (int64_t[]){rows * columns, x->sizes[0], size, size}, err));
  to = cml_et_view_of(out);
  cml_et_view_split(&to, 0, columns); /* rows, columns, C, size, size */
  cml_et_view_split(&from, 2, size);
  cml_et_view_split(&from, 1, size);  /* C, rows, size, columns, size */
  cml_et_view_permute(&from, (const int[]){1, 3, 0, 2, 4});
  cml_et_view_move(c, &to, &from);
  return CML_OK;
}

/* The run of n elements in the output's memory that begins at (row, column) and goes along columns, along rows or along neither: what of
 * it is kept is one piece, from the first element on, up to the last or all. */
static void tril_run(char *to, const char *from, int64_t step, int64_t n, int64_t along_row, int64_t along_column, int64_t below, size_t width) {
  int64_t first = 0, last = n; /* below: how far the first element is below the diagonal; kept while it is >= 0 */
  if (along_column) last = below + 1 < 0 ? 0 : below + 1 < n ? below + 1 : n;
  else if (along_row) first = below >= 0 ? 0 : -below < n ? -below : n;
  else if (below < 0) last = 0;
  memset(to, 0, (size_t)first * width);
  cml_et_copy_steps(to + (size_t)first * width, 1, from + first * step * (int64_t)width, step, last - first, width);
  memset(to + (size_t)last * width, 0, (size_t)(n - last) * width);
}

/* In the order in which the output lies. */
static cml_status op_tril(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 2);
  int64_t diagonal = cml_et_int(c, 1, 0), at[CML_PTE_MAX_RANK] = {0}, source = 0;
  if (x->rank < 2) return cml_et_fail(c, err, "takes matrices; this tensor is of rank %d", x->rank);
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(cml_et_resize_like(c, out, x, err));
  int rows = x->rank - 2, columns = x->rank - 1, inner = out->order[x->rank - 1];
  int64_t far = x->sizes[rows] + x->sizes[columns], n = x->sizes[inner];
  if (diagonal > far) diagonal = far;
  if (diagonal < -far) diagonal = -far;
  size_t width = cml_et_width(x);
  char *to = out->data;
  for (int64_t left = cml_et_numel(x); left > 0; left -= n, to += (size_t)n * width) {
    tril_run(to, (const char *)x->data + (size_t)source * width, x->strides[inner], n, inner == rows, inner == columns, at[rows] - at[columns] + diagonal, width);
    for (int k = x->rank - 2; k >= 0; k--) {
      int d = out->order[k];
      source += x->strides[d];
      if (++at[d] < x->sizes[d]) break;
      source -= at[d] * x->strides[d];
      at[d] = 0;
    }
  }
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::alias_copy.out aten::detach_copy.out aten::lift_fresh_copy.out et_copy::_h2d_copy.out "
     "et_copy::_d2h_copy.out", "to", op_alias, true},
    {"aten::_to_copy.out", "tbi?o", op_to_copy},
    {"aten::as_strided_copy.out", "tIIi?o", op_as_strided, true},
    {"aten::cat.out", "Tio", op_cat, true},
    {"aten::clone.out", "ti?o", op_clone, true},
    {"aten::copy.out", "ttbo", op_copy},
    {"aten::copy_", "otb", op_copy_},
    {"aten::diagonal_copy.out", "tiiio", op_diagonal, true},
    {"aten::expand_copy.out", "tIbo", op_expand, true},
    {"aten::flip.out", "tIo", op_flip, true},
    {"aten::narrow_copy.out", "tiiio", op_narrow, true},
    {"aten::permute_copy.out", "tIo", op_permute, true},
    {"aten::pixel_shuffle.out", "tio", op_pixel_shuffle},
    {"aten::pixel_unshuffle.out", "tio", op_pixel_unshuffle},
    {"aten::repeat.out", "tIo", op_repeat, true},
    {"aten::roll.out", "tIIo", op_roll, true},
    {"aten::select_copy.int_out", "tiio", op_select, true},
    {"aten::select_scatter.out", "ttiio", op_select_scatter, true},
    {"aten::slice_copy.Tensor_out", "tii?i?io", op_slice, true},
    {"aten::slice_scatter.out", "ttii?i?io", op_slice_scatter, true},
    {"aten::split_copy.Tensor_out", "tiiW", op_split, true},
    {"aten::split_with_sizes_copy.out", "tIiW", op_split_sizes, true},
    {"aten::squeeze_copy.dim_out", "tio", op_squeeze_dim, true},
    {"aten::squeeze_copy.dims_out", "tIo", op_squeeze_dims, true},
    {"aten::stack.out", "Tio", op_stack, true},
    {"aten::t_copy.out", "to", op_t, true},
    {"aten::transpose_copy.int_out", "tiio", op_transpose, true},
    {"aten::tril.out", "tio", op_tril},
    {"aten::unbind_copy.int_out", "tiW", op_unbind, true},
    {"aten::unfold_copy.out", "tiiio", op_unfold, true},
    {"aten::unsqueeze_copy.out", "tio", op_unsqueeze, true},
    {"aten::view_copy.out", "tIo", op_view, true},
    {"preprocess::tile_crop.out", "tio", op_tile_crop},
};
CML_ET_FAMILY(shape)
