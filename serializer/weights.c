/* From a value's file and offset to its bytes. Only metadata records are touched, so binding costs a page a blob at most,
 * whatever the weights weigh. */
#include "weights.h"

#define MODEL_PATH "@model_path/"

cml_status cml_blob_find(cml_span file, uint64_t offset, cml_dtype dtype, uint64_t count, bool fewer, cml_span *out, cml_error *err) {
  cml_blobs blobs;
  cml_blob blob;
  CML_TRY(cml_blobs_begin(file, &blobs, err));
  if (offset < blobs.next) return cml_fail(err, CML_INVALID, offset, "no metadata record can stand in the file's header");
  CML_TRY(cml_blob_at(file, offset, &blob, err));
  if (blob.type != cml_blob_type_number(dtype))
    return cml_fail(err, CML_MISMATCH, offset + 4, "a blob of %s, where %s is expected", blob.name, cml_dtype_name(dtype));
  if (blob.count != count && !(fewer && dtype == CML_U8 && blob.count < count))
    return cml_fail(err, CML_MISMATCH, offset + 8, "a blob of %llu elements of %s, where %llu are expected", (unsigned long long)blob.count,
                    blob.name, (unsigned long long)count);
  *out = blob.data;
  return CML_OK;
}

typedef struct binder {
  const cml_node *folder;
  const char *name; /* of the newest file */
  cml_span file;
} binder;

static cml_status open_file(binder *b, const char *name, cml_error *err) {
  if (b->name && !strcmp(b->name, name)) return CML_OK;
  const char *path = strncmp(name, MODEL_PATH, strlen(MODEL_PATH)) ? name : name + strlen(MODEL_PATH);
  const cml_node *node = b->folder ? cml_node_find_file(b->folder, path) : NULL;
  if (!node)
    return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the model's weights are missing: no %s beside it", path);
  cml_status status = cml_node_span(node, &b->file, err);
  if (status) return cml_error_prefix(err, status, "%s", path);
  b->name = name;
  return CML_OK;
}

static cml_status bind_value(void *context, const cml_mil_op *op, cml_mil_value *value, cml_error *err) {
  binder *b = context;
  if (value->kind != CML_VALUE_BLOB) return CML_OK;
  CML_TRY(open_file(b, value->file ? value->file : "", err));
  bool fewer = op && !strncmp(op->type, "constexpr_", 10);
  uint64_t count;
  cml_span data;
  if (!cml_mil_type_elements(value->type, &count) || value->type->dtype == CML_STRING)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "a blob for a value that is no tensor of known shape");
  cml_status status = cml_blob_find(b->file, value->offset, value->type->dtype, count, fewer, &data, err);
  if (status) return cml_error_prefix(err, status, "%s, at %llu, of %s", value->file, (unsigned long long)value->offset,
                                      op ? cml_mil_op_name(op) : "the program");
  value->data = data;
  value->count = fewer && value->type->dtype == CML_U8 ? data.size : (size_t)count;
  return CML_OK;
}

cml_status cml_model_bind_weights(cml_model *model, const cml_node *model_folder, cml_error *err) {
  binder b = {model_folder, NULL, {NULL, 0}};
  return model->program ? cml_mil_each_value(model->program, bind_value, &b, err) : CML_OK;
}
