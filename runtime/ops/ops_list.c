/* Lists of tensors of one type. An operation that changes a list gives a new one; the elements are shared, so that a copy
 * costs a pointer an element. An element that was never written reads as zeros. */
#include "families.h"

enum { MAKE_LENGTH, MAKE_DYNAMIC, MAKE_SHAPE, MAKE_TYPE };
static const cml_param make_params[] = {{"init_length", CML_MASK(I32), CML_OPTIONAL, 0},
                                        {"dynamic_length", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0},
                                        {"elem_shape", CML_MASK(I32) | CML_M_STRING, CML_VARIADIC | CML_OPTIONAL, 0},
                                        {"dtype", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}};
enum { LS, INDEX, VALUE };
#define ELEMENT (CML_M_FLOAT | CML_MASK(I32) | CML_M_BOOL)
static const cml_param list_params[] = {{"ls", CML_M_LIST, 0, 0}};
static const cml_param read_params[] = {{"ls", CML_M_LIST, 0, 0}, {"index", CML_MASK(I32), 0, 0}};
static const cml_param write_params[] = {{"ls", CML_M_LIST, 0, 0}, {"index", CML_MASK(I32), 0, 0}, {"value", ELEMENT, 0, 0}};
static const cml_param gather_params[] = {{"ls", CML_M_LIST, 0, 0}, {"indices", CML_MASK(I32), CML_VECTOR, 0}};
static const cml_param scatter_params[] = {{"ls", CML_M_LIST, 0, 0}, {"indices", CML_MASK(I32), CML_VECTOR, 0}, {"value", ELEMENT, 0, 0}};

enum { LONGEST = 1 << 24 };

/* ---- make_list, list_length ---- */

static cml_status infer_list(cml_call *c, cml_error *err) {
  (void)err;
  cml_out_unknown(c, 0, CML_DTYPE_NONE, CML_RANK_UNKNOWN);
  return CML_OK;
}

/* Shape of elements: one value a dimension (a string stands for an unknown one), or vectors of them. */
static cml_status element_shape(const cml_call *c, cml_list *list, cml_error *err) {
  for (size_t k = 0; k < cml_arg_count(c, MAKE_SHAPE); k++) {
    const cml_tensor *t = cml_arg_at(c, MAKE_SHAPE, k);
    for (int64_t i = 0; t->data && i < cml_tensor_count(t); i++) {
      if (list->element_rank == CML_MAX_RANK) return cml_call_fail(c, err, "elem_shape has too many dimensions");
      list->element_dims[list->element_rank++] = t->dtype == CML_STRING ? CML_DIM_UNKNOWN : cml_tensor_get_int(t, i);
    }
  }
  return CML_OK;
}

static cml_status run_make(cml_call *c, cml_error *err) {
  const char *type = cml_arg_text(c, MAKE_TYPE, "fp32");
  int64_t length = cml_arg_int(c, MAKE_LENGTH, 1);
  cml_dtype dtype = cml_dtype_by_name(type, strlen(type));
  if (!dtype || !(ELEMENT >> dtype & 1)) return cml_call_fail(c, err, "dtype %s is no element type of lists", type);
  if (length < 0 || length > LONGEST) return cml_call_fail(c, err, "init_length is %lld", (long long)length);
  cml_list *list = cml_list_create(c, err);
  if (!list) return CML_NO_MEMORY;
  list->dtype = dtype;
  CML_TRY(element_shape(c, list, err));
  return cml_list_resize(list, length, err);
}

/* A value without a type may be no list after all (a model's input declared as one, a dictionary). */
static cml_status need_list(const cml_call *c, cml_error *err) {
  return cml_arg(c, LS)->list ? CML_OK : cml_call_fail(c, err, "ls is no list");
}

static cml_status infer_length(cml_call *c, cml_error *err) {
  (void)err;
  cml_out_set(c, 0, CML_I32, 0, NULL);
  return CML_OK;
}

static cml_status run_length(cml_call *c, cml_error *err) {
  CML_TRY(need_list(c, err));
  *(int32_t *)c->outs[0]->data = (int32_t)cml_arg(c, LS)->list->length;
  return CML_OK;
}

/* ---- list_write, list_scatter ---- */

static cml_status write_element(cml_call *c, int64_t index, const cml_tensor *value, cml_error *err) {
  cml_list *list = c->outs[0]->list;
  if (index < 0 || index > LONGEST) return cml_call_fail(c, err, "index %lld is out of range", (long long)index);
  if (value->dtype != list->dtype) return cml_call_fail(c, err, "writes %s into a list of %s", cml_dtype_name(value->dtype), cml_dtype_name(list->dtype));
  return cml_list_store(list, index, value, err);
}

static cml_status run_write(cml_call *c, cml_error *err) {
  CML_TRY(need_list(c, err));
  CML_TRY(cml_out_copy(c, 0, cml_arg(c, LS), err));
  return write_element(c, cml_arg_int(c, INDEX, 0), cml_arg(c, VALUE), err);
}

static cml_status run_scatter(cml_call *c, cml_error *err) {
  const cml_tensor *indices = cml_arg(c, INDEX), *value = cml_arg(c, VALUE);
  int64_t n = cml_tensor_count(indices);
  cml_tensor part = *value;
  uint64_t bytes;
  if (value->rank < 1 || value->dims[0] != n) return cml_call_fail(c, err, "value must have one part for each of %lld indices", (long long)n);
  part.rank--;
  for (int32_t i = 0; i < part.rank; i++) part.dims[i] = value->dims[i + 1];
  if (!cml_tensor_bytes(&part, &bytes)) return cml_call_fail(c, err, "value is too large");
  CML_TRY(need_list(c, err));
  CML_TRY(cml_out_copy(c, 0, cml_arg(c, LS), err));
  for (int64_t i = 0; i < n; i++) {
    part.data = (char *)value->data + (uint64_t)i * bytes;
    CML_TRY(write_element(c, cml_tensor_get_int(indices, i), &part, err));
  }
  return CML_OK;
}

/* ---- list_read, list_gather ---- */

/* The type of elements as far as it is known: from a written one, else as the list was made. */
static bool element_type(const cml_list *list, cml_tensor *out) {
  *out = (cml_tensor){.dtype = list->dtype, .rank = list->element_rank};
  memcpy(out->dims, list->element_dims, sizeof out->dims);
  for (int64_t i = 0; i < list->length; i++)
    if (list->items[i].data) {
      *out = list->items[i];
      out->data = NULL;
      return true;
    }
  return cml_tensor_known_shape(out);
}

/* What follows was checked for what the program declares. */
static cml_status check_element(const cml_call *c, const cml_tensor *element, cml_error *err) {
  if (!c->declared || !c->declared[0].dtype || c->declared[0].dtype == element->dtype) return CML_OK;
  return cml_call_fail(c, err, "is declared %s, and the list holds %s", cml_dtype_name(c->declared[0].dtype), cml_dtype_name(element->dtype));
}

static cml_status infer_read(cml_call *c, cml_error *err) {
  cml_tensor element;
  const cml_list *list = cml_arg(c, LS)->list;
  if (!list) {
    if (!c->declared) return cml_call_fail(c, err, "needs a program around it");
    cml_out_unknown(c, 0, c->declared[0].dtype, c->declared[0].rank);
    return CML_OK;
  }
  int64_t index = cml_arg_int(c, INDEX, 0);
  if (index < 0 || index >= list->length)
    return cml_call_fail(c, err, "index %lld is not in a list of %lld", (long long)index, (long long)list->length);
  if (list->items[index].data) element = list->items[index];
  else if (!element_type(list, &element)) return cml_call_fail(c, err, "reads an element that was never written");
  CML_TRY(check_element(c, &element, err));
  cml_out_like(c, 0, &element);
  return CML_OK;
}

static cml_status copy_element(cml_call *c, const cml_list *list, int64_t index, void *to, uint64_t bytes, cml_error *err) {
  const cml_tensor *item = &list->items[index];
  uint64_t have = 0;
  if (item->data && (!cml_tensor_bytes(item, &have) || have != bytes)) return cml_call_fail(c, err, "the list's elements differ in shape");
  if (item->data) memcpy(to, item->data, bytes);
  else memset(to, 0, bytes);
  return CML_OK;
}

static cml_status run_read(cml_call *c, cml_error *err) {
  CML_TRY(need_list(c, err));
  uint64_t bytes;
  if (!cml_tensor_bytes(c->outs[0], &bytes)) return cml_call_fail(c, err, "the element is too large");
  return copy_element(c, cml_arg(c, LS)->list, cml_arg_int(c, INDEX, 0), c->outs[0]->data, bytes, err);
}

static cml_status infer_gather(cml_call *c, cml_error *err) {
  const cml_tensor *indices = cml_arg(c, INDEX);
  const cml_list *list = cml_arg(c, LS)->list;
  cml_tensor element;
  int64_t dims[CML_MAX_RANK];
  if (indices->rank >= 0 && indices->rank != 1) return cml_call_fail(c, err, "indices must be a vector");
  if (!list || !indices->data) {
    if (!c->declared) return cml_call_fail(c, err, "needs a program around it");
    cml_out_unknown(c, 0, c->declared[0].dtype, c->declared[0].rank);
    return CML_OK;
  }
  for (int64_t i = 0; i < cml_tensor_count(indices); i++) {
    int64_t index = cml_tensor_get_int(indices, i);
    if (index < 0 || index >= list->length)
      return cml_call_fail(c, err, "index %lld is not in a list of %lld", (long long)index, (long long)list->length);
  }
  if (!element_type(list, &element) || element.rank == CML_MAX_RANK) return cml_call_fail(c, err, "gathers elements that were never written");
  CML_TRY(check_element(c, &element, err));
  dims[0] = indices->dims[0];
  memcpy(dims + 1, element.dims, (size_t)element.rank * sizeof *dims);
  cml_out_set(c, 0, element.dtype, element.rank + 1, dims);
  return CML_OK;
}

static cml_status run_gather(cml_call *c, cml_error *err) {
  const cml_tensor *indices = cml_arg(c, INDEX);
  int64_t n = cml_tensor_count(indices);
  CML_TRY(need_list(c, err));
  uint64_t bytes;
  if (!cml_tensor_bytes(c->outs[0], &bytes)) return cml_call_fail(c, err, "the result is too large");
  for (int64_t i = 0; i < n; i++)
    CML_TRY(copy_element(c, cml_arg(c, LS)->list, cml_tensor_get_int(indices, i), (char *)c->outs[0]->data + (uint64_t)i * (bytes / (uint64_t)n),
                         bytes / (uint64_t)n, err));
  return CML_OK;
}

#define ROW(text, table, infer_function, run_function)                                                                    \
  {.name = text, .since = CML_IOS15, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(table), .infer = infer_function, .run = run_function}

static const cml_op rows[] = {
    ROW("make_list", make_params, infer_list, run_make),       ROW("list_length", list_params, infer_length, run_length),
    ROW("list_write", write_params, infer_list, run_write),    ROW("list_scatter", scatter_params, infer_list, run_scatter),
    ROW("list_read", read_params, infer_read, run_read),       ROW("list_gather", gather_params, infer_gather, run_gather),
};

const cml_op_family cml_ops_list = {"list", rows, sizeof rows / sizeof *rows};
