/* Operators that make tensors out of little: fill, fill_like, range_1d, one_hot, and positions of what is not zero; and
 * band_part, which makes zeros around a band. */
#include <math.h>

#include "elementwise.h"
#include "f16.h"
#include "families.h"
#include "strided.h"

/* ---- fill, fill_like ---- */

#define CML_M_FILL (CML_M_NUMBER | CML_M_BOOL)

static const cml_param fill_params[] = {{"shape", CML_M_AT17 | CML_MASK(U16), CML_VECTOR, 0}, {"value", CML_M_FILL, CML_OPTIONAL | CML_CONST, 0}};
static const cml_param fill_like_params[] = {{"ref_tensor", CML_M_ANY, 0, 0}, {"value", CML_M_FILL, CML_OPTIONAL | CML_CONST, 0}};

static cml_dtype value_type(const cml_call *c) { return cml_arg(c, 1) ? cml_arg(c, 1)->dtype : CML_F32; }

static cml_status infer_fill(cml_call *c, cml_error *err) {
  const cml_tensor *shape = cml_arg(c, 0);
  int64_t dims[CML_MAX_RANK];
  size_t rank;
  CML_TRY(cml_check_scalars(c, 2, err));
  if (!shape->data) {
    if (shape->rank > 1 || (shape->rank == 1 && shape->dims[0] > CML_MAX_RANK))
      return cml_call_fail(c, err, "shape must be a vector of at most %d elements", CML_MAX_RANK);
    cml_out_unknown(c, 0, value_type(c), shape->rank == 1 ? (int32_t)shape->dims[0] : CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(cml_arg_vector(c, 0, -1, dims, CML_MAX_RANK, &rank, err));
  for (size_t i = 0; i < rank; i++)
    if (dims[i] < 0) return cml_call_fail(c, err, "shape has the dimension %lld", (long long)dims[i]);
  cml_out_set(c, 0, value_type(c), (int32_t)rank, dims);
  return cml_check_output(c, 0, err);
}

static cml_status infer_fill_like(cml_call *c, cml_error *err) {
  CML_TRY(cml_check_scalars(c, 2, err));
  cml_out_like(c, 0, cml_arg(c, 0));
  c->outs[0]->dtype = value_type(c);
  return cml_check_output(c, 0, err);
}

static cml_status run_fill(cml_call *c, cml_error *err) {
  (void)err;
  static const uint64_t zero;
  cml_tensor *out = c->outs[0];
  const void *value = cml_arg(c, 1) ? cml_arg(c, 1)->data : &zero;
  cml_fill_elements(out->data, value, cml_element_size(out), cml_tensor_count(out), c->pool);
  return CML_OK;
}

/* ---- range_1d ---- */

static const cml_param range_params[] = {
    {"end", CML_M_FLOAT | CML_MASK(I32), 0, 1}, {"start", CML_M_FLOAT | CML_MASK(I32), 0, 1}, {"step", CML_M_FLOAT | CML_MASK(I32), 0, 1}};

/* Rounds to the element type, in which the number of elements is reckoned. */
static double in_type(double v, cml_dtype type) {
  return type == CML_F16 ? (double)cml_f16_to_f32(cml_f16_from_f32((float)v)) : type == CML_F32 ? (double)(float)v : v;
}

static cml_status infer_range(cml_call *c, cml_error *err) {
  cml_dtype type = cml_arg(c, 0)->dtype;
  int64_t n = CML_DIM_UNKNOWN;
  bool known = true;
  for (unsigned i = 0; i < 3; i++) {
    const cml_tensor *t = cml_arg(c, i);
    if (cml_tensor_known_shape(t) && cml_dims_product(t->dims, 0, t->rank) != 1)
      return cml_call_fail(c, err, "%s must be a scalar", c->op->params[i].name);
    known = known && t->data;
  }
  if (known) {
    double step = cml_arg_float(c, 2, 1);
    double count = ceil(in_type(in_type(cml_arg_float(c, 0, 0) - cml_arg_float(c, 1, 0), type) / step, type));
    if (step == 0 || isnan(count)) return cml_call_fail(c, err, "step is zero, or an argument is no number");
    if (count > (double)(INT64_C(1) << 40)) return cml_call_fail(c, err, "the range has %g elements", count);
    n = count > 0 ? (int64_t)count : 0;
  }
  cml_out_set(c, 0, type, 1, &n);
  return CML_OK;
}

static cml_status run_range(cml_call *c, cml_error *err) {
  (void)err;
  cml_tensor *out = c->outs[0];
  if (out->dtype == CML_I32) {
    int64_t start = cml_arg_int(c, 1, 0), step = cml_arg_int(c, 2, 1);
    for (int64_t i = 0; i < out->dims[0]; i++) ((int32_t *)out->data)[i] = (int32_t)(start + i * step);
    return CML_OK;
  }
  double start = cml_arg_float(c, 1, 0), step = cml_arg_float(c, 2, 1);
  for (int64_t i = 0; i < out->dims[0]; i++) cml_tensor_set(out, i, start + (double)i * step);
  return CML_OK;
}

/* ---- one_hot ---- */

#define ONE_HOT_PARAMS(index_types, value_types)                                                            \
  {{"indices", index_types, 0, 0}, {"one_hot_vector_size", index_types, 0, 0},                              \
   {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}, {"on_value", value_types, CML_OPTIONAL | CML_CONST, 1}, \
   {"off_value", value_types, CML_OPTIONAL | CML_CONST, 1}}
static const cml_param one_hot_15[] = ONE_HOT_PARAMS(CML_MASK(I32), CML_M_MOVE15);
static const cml_param one_hot_17[] = ONE_HOT_PARAMS(CML_M_AT17 | CML_MASK(U8) | CML_MASK(U16), CML_M_MOVE17);

static cml_status infer_one_hot(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *on = cml_arg(c, 3) ? cml_arg(c, 3) : cml_arg(c, 4), *size = cml_arg(c, 1);
  cml_dtype type = on ? on->dtype : CML_I32;
  int64_t dims[CML_MAX_RANK], depth = CML_DIM_UNKNOWN;
  int32_t axis;
  CML_TRY(cml_check_scalars(c, 4 | 8 | 16, err));
  if (cml_tensor_known_shape(size) && cml_dims_product(size->dims, 0, size->rank) != 1)
    return cml_call_fail(c, err, "one_hot_vector_size must be a scalar");
  if (size->data && (depth = cml_tensor_get_int(size, 0)) < 0)
    return cml_call_fail(c, err, "one_hot_vector_size is %lld", (long long)depth);
  if (x->rank < 0) {
    cml_out_unknown(c, 0, type, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  if (x->rank >= CML_MAX_RANK) return cml_call_fail(c, err, "the result would have more than %d dimensions", CML_MAX_RANK);
  CML_TRY(cml_check_axis(c, 2, -1, x->rank + 1, &axis, err));
  for (int32_t i = 0, k = 0; i <= x->rank; i++) dims[i] = i == axis ? depth : x->dims[k++];
  cml_out_set(c, 0, type, x->rank + 1, dims);
  return cml_check_output(c, 0, err);
}

/* Everything is off; then one element is on for each index within range. */
static cml_status run_one_hot(cml_call *c, cml_error *err) {
  static const int32_t int_one = 1, int_zero = 0;
  const cml_tensor *x = cml_arg(c, 0);
  cml_tensor *out = c->outs[0];
  cml_tensor one = {.dtype = out->dtype, .data = &(uint64_t){0}}, zero = {.dtype = out->dtype, .data = &(uint64_t){0}};
  cml_convert(one.data, out->dtype, &int_one, CML_I32, 1);
  cml_convert(zero.data, out->dtype, &int_zero, CML_I32, 1);
  const void *on = cml_arg(c, 3) ? cml_arg(c, 3)->data : one.data, *off = cml_arg(c, 4) ? cml_arg(c, 4)->data : zero.data;
  size_t size = cml_element_size(out);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 2, -1, out->rank, &axis, err));
  cml_fill_elements(out->data, off, size, cml_tensor_count(out), c->pool);
  int64_t depth = out->dims[axis], inner = cml_dims_product(out->dims, axis + 1, out->rank), n = cml_tensor_count(x);
  for (int64_t i = 0; i < n; i++) {
    int64_t index = cml_tensor_get_int(x, i);
    if (index < 0 || index >= depth) continue;
    memcpy((char *)out->data + (size_t)((i / inner * depth + index) * inner + i % inner) * size, on, size);
  }
  return CML_OK;
}

/* ---- non_zero ---- */

static const cml_param non_zero_params[] = {{"x", CML_M_MOVE17, 0, 0}};

/* The next of n elements from i on that is not zero, or n. NaN is none; -0 is one. */
static int64_t next_non_zero(const cml_tensor *x, int64_t i, int64_t n) {
  switch (x->dtype) {
    case CML_F32:
      while (i < n && ((const float *)x->data)[i] == 0) i++;
      return i;
    case CML_F16:
      while (i < n && !(((const cml_f16 *)x->data)[i] & 0x7fff)) i++;
      return i;
    case CML_I32:
      while (i < n && !((const int32_t *)x->data)[i]) i++;
      return i;
    default:
      while (i < n && !cml_tensor_get_int(x, i)) i++;
      return i;
  }
}

static int64_t count_non_zero(const cml_tensor *x, int64_t n) {
  int64_t count = 0;
  switch (x->dtype) { /* loops without branches, which become vectors */
    case CML_F32:
      for (int64_t i = 0; i < n; i++) count += ((const float *)x->data)[i] != 0;
      break;
    case CML_F16:
      for (int64_t i = 0; i < n; i++) count += (((const cml_f16 *)x->data)[i] & 0x7fff) != 0;
      break;
    case CML_I32:
      for (int64_t i = 0; i < n; i++) count += ((const int32_t *)x->data)[i] != 0;
      break;
    default:
      for (int64_t i = 0; i < n; i++) count += cml_tensor_get_int(x, i) != 0;
  }
  return count;
}

static cml_status infer_non_zero(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  int64_t dims[2] = {CML_DIM_UNKNOWN, x->rank};
  if (x->data) dims[0] = count_non_zero(x, cml_tensor_count(x));
  cml_out_set(c, 0, CML_I32, 2, dims);
  return CML_OK;
}

/* A row of the last dim after the other: only the last index differs within it. */
static cml_status run_non_zero(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  const int32_t rank = x->rank;
  int64_t n = cml_tensor_count(x), row = rank ? x->dims[rank - 1] : 1;
  int32_t *to = c->outs[0]->data, at[CML_MAX_RANK] = {0};
  for (int64_t begin = 0, end = row; begin < n; begin = end, end += row) {
    for (int64_t i = next_non_zero(x, begin, end); i < end; i = next_non_zero(x, i + 1, end), to += rank) {
      for (int32_t k = 0; k + 1 < rank; k++) to[k] = at[k];
      if (rank) to[rank - 1] = (int32_t)(i - begin);
    }
    for (int32_t k = rank - 2; k >= 0 && ++at[k] == x->dims[k]; k--) at[k] = 0;
  }
  return CML_OK;
}

/* ---- band_part ---- */

static const cml_param band_part_params[] = {{"x", CML_M_MOVE17, 0, 0},
                                             {"lower", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},
                                             {"upper", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}};

static cml_status infer_band_part(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, 6, err));
  if (x->rank >= 0 && x->rank < 2) return cml_call_fail(c, err, "x has rank %d and needs at least 2", x->rank);
  cml_out_like(c, 0, x);
  return CML_OK;
}

static cml_status run_band_part(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  int64_t lower = cml_arg_int(c, 1, -1), upper = cml_arg_int(c, 2, -1), rows = x->dims[x->rank - 2], n = x->dims[x->rank - 1];
  int64_t total = cml_dims_product(x->dims, 0, x->rank - 1);
  size_t size = cml_element_size(x), row = (size_t)n * size;
  for (int64_t r = 0; r < total; r++) {
    int64_t m = r % rows, low = lower < 0 || m < lower ? 0 : m - lower, high = upper < 0 || m + upper >= n ? n : m + upper + 1;
    size_t first = (size_t)(low < n ? low : n) * size, last = (size_t)high * size;
    const char *from = (const char *)x->data + (size_t)r * row;
    char *to = (char *)c->outs[0]->data + (size_t)r * row;
    if (last < first) last = first;
    memset(to, 0, first);
    memmove(to + first, from + first, last - first);
    memset(to + last, 0, row - last);
  }
  return CML_OK;
}

/* ---- rows ---- */

#define ROW(op, first, last, f, p, infer_function, run_function)                                                   \
  {.name = op, .since = first, .until = last, .flags = f, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(p), \
   .infer = infer_function, .run = run_function}

static const cml_op rows[] = {
    ROW("fill", CML_IOS15, 0, 0, fill_params, infer_fill, run_fill),
    ROW("fill_like", CML_IOS16, 0, 0, fill_like_params, infer_fill_like, run_fill),
    ROW("range_1d", CML_IOS15, 0, 0, range_params, infer_range, run_range),
    ROW("one_hot", CML_IOS15, CML_IOS16, 0, one_hot_15, infer_one_hot, run_one_hot),
    ROW("one_hot", CML_IOS17, 0, 0, one_hot_17, infer_one_hot, run_one_hot),
    ROW("non_zero", CML_IOS15, 0, 0, non_zero_params, infer_non_zero, run_non_zero),
    ROW("band_part", CML_IOS15, 0, CML_OP_IN_PLACE, band_part_params, infer_band_part, run_band_part),
};

const cml_op_family cml_ops_make = {"make", rows, sizeof rows / sizeof *rows};
