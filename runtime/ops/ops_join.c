/* concat, stack, split and pad: tensors as parts of larger ones. */
#include "elementwise.h"
#include "families.h"
#include "strided.h"

/* Copies all of `part`, seen as [outer, inner] elements, into or out of the rows of a larger array. */
static void copy_part(void *to, const void *from, size_t size, int64_t outer, int64_t inner, int64_t to_row, int64_t from_row, cml_pool *pool) {
  cml_strided s = {.size = size};
  cml_strided_loop(&s, outer, to_row, from_row);
  cml_strided_loop(&s, inner, 1, 1);
  cml_strided_copy(&s, to, from, pool);
}

/* ---- concat ---- */

static const cml_param concat_params[] = {{"values", CML_M_ANY & ~CML_M_SUBBYTE, CML_VARIADIC, 1},
                                          {"axis", CML_M_INT, CML_CONST, 0},
                                          {"interleave", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}};

/* Merges one more value's shape; the axis is added up. */
static cml_status add_value(cml_call *c, const cml_tensor *v, int32_t rank, int32_t axis, int64_t *dims, bool same, cml_error *err) {
  if (v->rank != rank) return cml_call_fail(c, err, "values of rank %d and %d cannot be joined", rank, v->rank);
  for (int32_t i = 0; i < rank; i++) {
    bool differ = dims[i] >= 0 && v->dims[i] >= 0 && dims[i] != v->dims[i];
    if (i == axis && !same) {
      if (v->dims[i] < 0) dims[i] = CML_DIM_UNKNOWN;
      else if (!cml_dim_affine(dims[i], 1, v->dims[i], &dims[i])) return cml_call_fail(c, err, "the result is too large");
      continue;
    }
    if (differ)
      return cml_call_fail(c, err, "dimension %d is %lld in one value and %lld in another", i, (long long)dims[i], (long long)v->dims[i]);
    if (dims[i] < 0) dims[i] = v->dims[i];
  }
  return CML_OK;
}

static cml_status infer_concat(cml_call *c, cml_error *err) {
  size_t n = cml_arg_count(c, 0);
  CML_TRY(cml_check_scalars(c, 2 | 4, err));
  if (!n) return cml_call_fail(c, err, "has no values");
  const cml_tensor *v = cml_arg(c, 0);
  bool interleave = cml_arg_bool(c, 2, false);
  int64_t dims[CML_MAX_RANK];
  int32_t axis, rank = v->rank;
  for (size_t i = 0; i < n; i++) {
    if (cml_arg_at(c, 0, i)->dtype != v->dtype) return cml_call_fail(c, err, "values have several types");
    if (cml_arg_at(c, 0, i)->rank < 0) {
      cml_out_unknown(c, 0, v->dtype, CML_RANK_UNKNOWN);
      return CML_OK;
    }
  }
  if (rank == 0) { /* scalars become a vector */
    dims[0] = (int64_t)n;
    for (size_t i = 1; i < n; i++) CML_TRY(add_value(c, cml_arg_at(c, 0, i), 0, 0, dims, false, err));
    cml_out_set(c, 0, v->dtype, 1, dims);
    return CML_OK;
  }
  CML_TRY(cml_check_axis(c, 1, 0, rank, &axis, err));
  memcpy(dims, v->dims, sizeof dims);
  for (size_t i = 1; i < n; i++) CML_TRY(add_value(c, cml_arg_at(c, 0, i), rank, axis, dims, interleave, err));
  if (interleave && !cml_dim_affine(dims[axis], (int64_t)n, 0, &dims[axis])) return cml_call_fail(c, err, "the result is too large");
  cml_out_set(c, 0, v->dtype, rank, dims);
  c->spaces_rows = axis == rank - 1 && !interleave;
  c->spaced_args = c->spaces_rows ? UINT64_MAX : 0;
  return cml_check_output(c, 0, err);
}

static cml_status run_concat(cml_call *c, cml_error *err) {
  cml_tensor *out = c->outs[0];
  size_t n = cml_arg_count(c, 0), size = cml_element_size(out);
  bool interleave = cml_arg_bool(c, 2, false);
  int32_t axis = 0;
  if (cml_arg(c, 0)->rank) CML_TRY(cml_check_axis(c, 1, 0, out->rank, &axis, err));
  int64_t outer = cml_dims_product(out->dims, 0, axis), inner = cml_dims_product(out->dims, axis + 1, out->rank);
  const bool last = out->rank && axis == out->rank - 1; /* the tensors' rows may lie apart */
  int64_t row = last ? cml_row_step(out) : out->dims[axis] * inner, at = 0;
  for (size_t i = 0; i < n; i++) {
    const cml_tensor *v = cml_arg_at(c, 0, i);
    int64_t length = v->rank ? v->dims[axis] : 1;
    if (interleave)
      copy_part((char *)out->data + i * (size_t)inner * size, v->data, size, outer * length, inner, (int64_t)n * inner, inner, c->pool);
    else
      copy_part((char *)out->data + (size_t)at * size, v->data, size, outer, length * inner, row, v->row ? v->row : length * inner, c->pool);
    at += length * inner;
  }
  return CML_OK;
}

/* The parts follow one another where nothing lies before the axis; along the last one they share the rows. The same for what is split. */
static cml_parts parts_concat(const cml_call *c, uint64_t *offsets, int64_t *row) {
  const cml_tensor *out = c->outs[0];
  int32_t axis = 0;
  if (cml_arg_bool(c, 2, false) || (cml_arg(c, 0)->rank && !cml_axis(cml_arg_int(c, 1, 0), out->rank, &axis))) return CML_PARTS_NONE;
  bool one_run = cml_dims_product(out->dims, 0, axis) == 1;
  if (!one_run && axis != out->rank - 1) return CML_PARTS_NONE;
  *row = one_run ? 0 : out->dims[axis];
  uint64_t at = 0;
  for (size_t i = 0; i < cml_arg_count(c, 0); i++) {
    const cml_tensor *v = cml_arg_at(c, 0, i);
    offsets[i] = at;
    at += (uint64_t)(one_run ? cml_tensor_count(v) : v->dims[axis]) * cml_element_size(out);
  }
  return CML_PARTS_OF_OUTPUT;
}

/* ---- stack ---- */

static const cml_param stack_params[] = {{"values", CML_M_ANY & ~CML_M_SUBBYTE, CML_VARIADIC, 1}, {"axis", CML_M_INT, CML_CONST, 0}};

static cml_status infer_stack(cml_call *c, cml_error *err) {
  size_t n = cml_arg_count(c, 0);
  CML_TRY(cml_check_scalars(c, 2, err));
  if (!n) return cml_call_fail(c, err, "has no values");
  const cml_tensor *v = cml_arg(c, 0);
  int64_t dims[CML_MAX_RANK + 1];
  int32_t axis;
  for (size_t i = 0; i < n; i++) {
    if (cml_arg_at(c, 0, i)->dtype != v->dtype) return cml_call_fail(c, err, "values have several types");
    if (cml_arg_at(c, 0, i)->rank < 0) {
      cml_out_unknown(c, 0, v->dtype, CML_RANK_UNKNOWN);
      return CML_OK;
    }
  }
  if (v->rank >= CML_MAX_RANK) return cml_call_fail(c, err, "the result would have more than %d dimensions", CML_MAX_RANK);
  CML_TRY(cml_check_axis(c, 1, 0, v->rank + 1, &axis, err));
  memcpy(dims, v->dims, sizeof v->dims);
  for (size_t i = 1; i < n; i++) CML_TRY(add_value(c, cml_arg_at(c, 0, i), v->rank, -1, dims, true, err));
  memmove(dims + axis + 1, dims + axis, (size_t)(v->rank - axis) * sizeof *dims);
  dims[axis] = (int64_t)n;
  cml_out_set(c, 0, v->dtype, v->rank + 1, dims);
  return cml_check_output(c, 0, err);
}

static cml_status run_stack(cml_call *c, cml_error *err) {
  cml_tensor *out = c->outs[0];
  size_t n = cml_arg_count(c, 0), size = cml_element_size(out);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, 0, out->rank, &axis, err));
  int64_t outer = cml_dims_product(out->dims, 0, axis), inner = cml_dims_product(out->dims, axis + 1, out->rank);
  if (inner == 1 && outer > 1 && cml_strided_zips(n, size)) {
    const void *from[CML_ZIP_MOST];
    for (size_t i = 0; i < n; i++) from[i] = cml_arg_at(c, 0, i)->data;
    cml_strided_zip(out->data, from, (int64_t)n, size, outer, c->pool);
    return CML_OK;
  }
  for (size_t i = 0; i < n; i++)
    copy_part((char *)out->data + i * (size_t)inner * size, cml_arg_at(c, 0, i)->data, size, outer, inner, (int64_t)n * inner, inner, c->pool);
  return CML_OK;
}

static cml_parts parts_stack(const cml_call *c, uint64_t *offsets, int64_t *row) {
  const cml_tensor *out = c->outs[0];
  int32_t axis;
  *row = 0;
  if (!cml_axis(cml_arg_int(c, 1, 0), out->rank, &axis) || cml_dims_product(out->dims, 0, axis) != 1) return CML_PARTS_NONE;
  for (size_t i = 0; i < cml_arg_count(c, 0); i++) offsets[i] = i * (uint64_t)cml_tensor_count(cml_arg(c, 0)) * cml_element_size(out);
  return CML_PARTS_OF_OUTPUT;
}

/* ---- split ---- */

static const cml_param split_params[] = {{"x", CML_M_MOVE17, 0, 0},
                                         {"num_splits", CML_M_INT, CML_OPTIONAL | CML_CONST, 0},
                                         {"split_sizes", CML_M_INT, CML_OPTIONAL | CML_VECTOR, 0},
                                         {"axis", CML_M_INT, CML_CONST, 0}};

static cml_status split_count(cml_call *c, cml_error *err) {
  const cml_tensor *sizes = cml_arg(c, 2);
  int64_t n = cml_arg(c, 1) ? cml_arg_int(c, 1, 0) : (int64_t)c->out_count;
  if (!sizes && !cml_arg(c, 1)) return cml_call_fail(c, err, "has neither num_splits nor split_sizes");
  if (n != (int64_t)c->out_count) return cml_call_fail(c, err, "num_splits is %lld and there are %zu outputs", (long long)n, c->out_count);
  if (sizes && (sizes->rank > 1 || (sizes->rank == 0 && n != 1) || (sizes->rank == 1 && sizes->dims[0] >= 0 && sizes->dims[0] != n)))
    return cml_call_fail(c, err, "split_sizes must have %lld elements", (long long)n);
  return CML_OK;
}

static cml_status infer_split(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *sizes = cml_arg(c, 2);
  int32_t axis;
  CML_TRY(cml_check_scalars(c, 2 | 8, err));
  CML_TRY(split_count(c, err));
  if (x->rank < 0) {
    for (size_t i = 0; i < c->out_count; i++) cml_out_unknown(c, i, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(cml_check_axis(c, 3, 0, x->rank, &axis, err));
  int64_t total = 0, length = x->dims[axis], n = (int64_t)c->out_count;
  if (!sizes && length >= 0 && length % n) return cml_call_fail(c, err, "%lld elements cannot be split into %lld equal parts", (long long)length, (long long)n);
  for (size_t i = 0; i < c->out_count; i++) {
    int64_t dims[CML_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    if (sizes) dims[axis] = sizes->data ? cml_tensor_get_int(sizes, (int64_t)i) : CML_DIM_UNKNOWN;
    else dims[axis] = length < 0 ? CML_DIM_UNKNOWN : length / n;
    if (sizes && sizes->data && (dims[axis] < 0 || !cml_dim_affine(total, 1, dims[axis], &total)))
      return cml_call_fail(c, err, "split_sizes has the element %lld", (long long)dims[axis]);
    cml_out_set(c, i, x->dtype, x->rank, dims);
  }
  if (sizes && sizes->data && length >= 0 && total != length)
    return cml_call_fail(c, err, "split_sizes add up to %lld and dimension %d is %lld", (long long)total, axis, (long long)length);
  c->spaced_args = axis == x->rank - 1;
  return CML_OK;
}

static cml_status run_split(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  size_t size = cml_element_size(x);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 3, 0, x->rank, &axis, err));
  int64_t outer = cml_dims_product(x->dims, 0, axis), inner = cml_dims_product(x->dims, axis + 1, x->rank), at = 0;
  const int64_t row = axis == x->rank - 1 ? cml_row_step(x) : x->dims[axis] * inner;
  for (size_t i = 0; i < c->out_count; i++) {
    int64_t length = c->outs[i]->dims[axis] * inner;
    if (at + length > x->dims[axis] * inner) return cml_call_fail(c, err, "the parts are longer than x");
    if (!c->outs[i]->row) copy_part(c->outs[i]->data, (const char *)x->data + (size_t)at * size, size, outer, length, length, row, c->pool); /* else it lies in x */
    at += length;
  }
  return CML_OK;
}

static cml_parts parts_split(const cml_call *c, uint64_t *offsets, int64_t *row) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axis;
  if (!cml_axis(cml_arg_int(c, 3, 0), x->rank, &axis)) return CML_PARTS_NONE;
  const bool one_run = cml_dims_product(x->dims, 0, axis) == 1;
  if (!one_run && axis != x->rank - 1) return CML_PARTS_NONE;
  *row = one_run ? 0 : x->dims[axis];
  uint64_t at = 0;
  for (size_t i = 0; i < c->out_count; i++) {
    offsets[i] = at;
    at += (uint64_t)(one_run ? cml_tensor_count(c->outs[i]) : c->outs[i]->dims[axis]) * cml_element_size(x);
  }
  return CML_PARTS_OF_ARGUMENT;
}

/* ---- pad ---- */

static const cml_param pad_params[] = {{"x", CML_M_MOVE17, 0, 1},
                                       {"pad", CML_M_AT17, CML_VECTOR, 0},
                                       {"mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0},
                                       {"constant_val", CML_M_MOVE17, CML_OPTIONAL | CML_CONST, 1}};
enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_REPLICATE };
static const char *const pad_modes[] = {"constant", "reflect", "replicate", NULL};

/* Elements before and after each dimension of x; the vector speaks of the last ones. */
static cml_status get_pads(const cml_call *c, int64_t *before, int64_t *after, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t v[2 * CML_MAX_RANK];
  size_t n;
  CML_TRY(cml_arg_vector(c, 1, -1, v, 2 * CML_MAX_RANK, &n, err));
  if (n % 2 || n > 2 * (size_t)x->rank) return cml_call_fail(c, err, "pad has %zu elements for rank %d", n, x->rank);
  int mode = cml_word_index(cml_arg_text(c, 2, "constant"), pad_modes);
  int32_t skip = x->rank - (int32_t)(n / 2);
  for (int32_t i = 0; i < x->rank; i++) {
    before[i] = i < skip ? 0 : v[2 * (i - skip)];
    after[i] = i < skip ? 0 : v[2 * (i - skip) + 1];
    int64_t most = before[i] > after[i] ? before[i] : after[i];
    if (before[i] < 0 || after[i] < 0) return cml_call_fail(c, err, "pad of dimension %d is negative", i);
    if (most && x->dims[i] >= 0 && ((mode == PAD_REFLECT && most >= x->dims[i]) || (mode == PAD_REPLICATE && !x->dims[i])))
      return cml_call_fail(c, err, "dimension %d has %lld elements, too few to %s %lld", i, (long long)x->dims[i], pad_modes[mode], (long long)most);
  }
  return CML_OK;
}

static cml_status infer_pad(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *pad = cml_arg(c, 1);
  int64_t before[CML_MAX_RANK], after[CML_MAX_RANK], dims[CML_MAX_RANK];
  CML_TRY(cml_check_scalars(c, 4 | 8, err));
  if (cml_word_index(cml_arg_text(c, 2, "constant"), pad_modes) < 0)
    return cml_call_fail(c, err, "mode '%s' is none of constant, reflect, replicate", cml_arg_text(c, 2, ""));
  if (x->rank < 0 || !pad->data) {
    cml_out_unknown(c, 0, x->dtype, x->rank);
    for (int32_t i = 0; x->rank >= 0 && pad->rank == 1 && pad->dims[0] >= 0 && i < x->rank - pad->dims[0] / 2; i++)
      c->outs[0]->dims[i] = x->dims[i];
    return CML_OK;
  }
  CML_TRY(get_pads(c, before, after, err));
  for (int32_t i = 0; i < x->rank; i++)
    if (before[i] > INT32_MAX || after[i] > INT32_MAX || !cml_dim_affine(x->dims[i], 1, before[i] + after[i], &dims[i]))
      return cml_call_fail(c, err, "dimension %d of the result is too large", i);
  cml_out_set(c, 0, x->dtype, x->rank, dims);
  return cml_check_output(c, 0, err);
}

/* Where an element before or after the others comes from. */
static int64_t mirror(int64_t i, int64_t n, int mode) {
  if (mode == PAD_REPLICATE) return i < 0 ? 0 : i >= n ? n - 1 : i;
  return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i;
}

typedef struct pad_job {
  const cml_tensor *x;
  cml_tensor *out;
  int64_t before[CML_MAX_RANK], stride[CML_MAX_RANK];
  int mode;
  size_t size;
} pad_job;

/* Rows of the output: the row's indices are mirrored into x, then its own two edges are. */
static void pad_rows(void *context, size_t begin, size_t end) {
  const pad_job *p = context;
  const cml_tensor *x = p->x;
  int32_t last = x->rank - 1;
  int64_t n = x->dims[last], width = p->out->dims[last], left = p->before[last];
  for (size_t row = begin; row < end; row++) {
    int64_t at = 0, rest = (int64_t)row;
    for (int32_t k = last - 1; k >= 0; k--) {
      at += mirror(rest % p->out->dims[k] - p->before[k], x->dims[k], p->mode) * p->stride[k];
      rest /= p->out->dims[k];
    }
    const char *from = (const char *)x->data + (size_t)at * p->size;
    char *to = (char *)p->out->data + row * (size_t)width * p->size;
    memcpy(to + (size_t)left * p->size, from, (size_t)n * p->size);
    for (int64_t i = 0; i < width; i++) {
      if (i == left) i += n;
      if (i < width) memcpy(to + (size_t)i * p->size, from + (size_t)mirror(i - left, n, p->mode) * p->size, p->size);
    }
  }
}

static void pad_constant(cml_call *c, const pad_job *p) {
  static const uint64_t zero;
  const cml_tensor *x = p->x;
  int64_t to[CML_MAX_RANK], at = 0;
  cml_fill_elements(p->out->data, cml_arg(c, 3) ? cml_arg(c, 3)->data : &zero, p->size, cml_tensor_count(p->out), c->pool);
  cml_row_strides(p->out, to);
  cml_strided s = {.size = p->size};
  for (int32_t i = 0; i < x->rank; i++) {
    cml_strided_loop(&s, x->dims[i], to[i], p->stride[i]);
    at += p->before[i] * to[i];
  }
  if (cml_tensor_count(x)) cml_strided_copy(&s, (char *)p->out->data + (size_t)at * p->size, x->data, c->pool);
}

static cml_status run_pad(cml_call *c, cml_error *err) {
  pad_job p = {.x = cml_arg(c, 0), .out = c->outs[0], .mode = cml_word_index(cml_arg_text(c, 2, "constant"), pad_modes)};
  int64_t after[CML_MAX_RANK];
  CML_TRY(get_pads(c, p.before, after, err));
  p.size = cml_element_size(p.x);
  cml_row_strides(p.x, p.stride);
  if (p.mode == PAD_CONSTANT || p.x->rank == 0) {
    pad_constant(c, &p);
    return CML_OK;
  }
  if (cml_tensor_count(p.out) == 0) return CML_OK;
  int64_t width = p.out->dims[p.x->rank - 1];
  cml_parallel(c->pool, (size_t)(cml_tensor_count(p.out) / width), (size_t)(16384 / width + 1), pad_rows, &p);
  return CML_OK;
}

/* ---- rows ---- */

#define ROW(op, outputs, p, infer_function, run_function, parts_function)                                                             \
  {.name = op, .since = CML_IOS15, .min_outputs = 1, .max_outputs = outputs, CML_PARAMS(p), .infer = infer_function, .run = run_function, \
   .parts = parts_function}

static const cml_op rows[] = {
    ROW("concat", 1, concat_params, infer_concat, run_concat, parts_concat),
    ROW("stack", 1, stack_params, infer_stack, run_stack, parts_stack),
    ROW("split", 255, split_params, infer_split, run_split, parts_split),
    ROW("pad", 1, pad_params, infer_pad, run_pad, NULL),
};

const cml_op_family cml_ops_join = {"join", rows, sizeof rows / sizeof *rows};
