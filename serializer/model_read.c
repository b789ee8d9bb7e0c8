/* A model in a tree: the package's manifest names the protobuf, weights lie beside it; a compiled folder holds the program
 * as text and the description in coremldata.bin; text alone is described by its types.
 *
 * coremldata.bin: u32 at 0 is the field number of the model's type; at 0x1c u64 length and text "generic"; u64
 * specification version at 0x2b; u64 length at 0x4b and the ModelDescription at 0x53. What follows depends on the type. */
#include <stdlib.h>

#include "mil.h"
#include "mil_check.h"
#include "mlpackage.h"
#include "model_compiled.h"
#include "model_features.h"
#include "wire.h"

enum { TYPE_ML_PROGRAM = 502 };

static cml_status named_error(const cml_node *node, cml_status status, cml_error *err) {
  return status ? cml_error_prefix(err, status, "%s", cml_node_name(node)) : CML_OK;
}

static cml_status read_file(cml_model *model, const cml_node *file, const cml_model_options *options, cml_error *err) {
  cml_span bytes;
  cml_status status = cml_node_span(file, &bytes, err);
  if (!status) status = cml_model_parse(bytes, options, model, err);
  if (!status && model->program && !(options && options->skip_weights))
    return cml_model_bind_weights(model, cml_node_parent(file), err);
  return named_error(file, status, err);
}

/* ---- .mlmodelc ---- */

enum { AT_GENERIC = 0x1c, AT_VERSION = 0x2b, AT_LENGTH = 0x4b, AT_DESCRIPTION = 0x53 };

cml_status cml_model_parse_compiled(cml_span bytes, cml_model *model, cml_error *err) {
  cml_span description;
  if (bytes.size < AT_DESCRIPTION || cml_load_u64(bytes.data + AT_GENERIC) != 7 || memcmp(bytes.data + AT_GENERIC + 8, "generic", 7))
    return cml_fail(err, CML_INVALID, 0, "not the description of a compiled model");
  uint64_t length = cml_load_u64(bytes.data + AT_LENGTH), version = cml_load_u64(bytes.data + AT_VERSION);
  if (!cml_span_slice(bytes, AT_DESCRIPTION, length, &description))
    return cml_fail(err, CML_INVALID, AT_LENGTH, "a description of %llu bytes, where %zu are left", (unsigned long long)length,
                    bytes.size - AT_DESCRIPTION);
  if (!version || version > INT32_MAX) return cml_fail(err, CML_INVALID, AT_VERSION, "specification version %llu", (unsigned long long)version);
  model->type_number = cml_load_u32(bytes.data);
  cml_status status = cml_model_set_description(model, (int32_t)version, description, err);
  if (status && err && err->offset != CML_NO_OFFSET) err->offset += AT_DESCRIPTION;
  return status;
}

cml_status cml_model_set_description(cml_model *model, int32_t version, cml_span bytes, cml_error *err) {
  model->specification_version = version;
  CML_TRY(cml_model_parse_description(bytes, bytes.data, model, err));
  cml_buffer rest = CML_BUFFER_INIT; /* as the Model protobuf would say it */
  cml_wire_put_uint(&rest, 1, (uint64_t)version);
  cml_wire_put_bytes(&rest, 2, bytes.data, bytes.size);
  void *copy = rest.failed ? NULL : cml_arena_alloc(&model->arena, rest.size);
  if (copy) model->rest = cml_span_of(memcpy(copy, rest.data, rest.size), rest.size);
  cml_buffer_free(&rest);
  return copy ? CML_OK : cml_fail_memory(err);
}

static cml_status read_program_text(cml_model *model, const cml_node *file, cml_error *err) {
  cml_span text;
  CML_TRY(cml_node_span(file, &text, err));
  CML_TRY(cml_mil_parse_text(text, &model->arena, &model->program, err));
  return cml_mil_check(model->program, err);
}

static cml_status read_compiled(cml_model *model, const cml_node *root, const cml_model_options *options, cml_error *err) {
  const cml_node *data = cml_node_find(root, "coremldata.bin"), *text = cml_node_find(root, "model.mil");
  uint64_t size = 0;
  cml_span bytes;
  if (!data && !text) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the compiled model has no coremldata.bin");
  if (text) CML_TRY(cml_node_size(text, &size, err));
  model->arena.limit = options && options->max_memory ? (size_t)options->max_memory : size < SIZE_MAX / 128 ? size * 64 + (1 << 24) : SIZE_MAX;
  model->type_number = TYPE_ML_PROGRAM;
  if (data) {
    CML_TRY(named_error(data, cml_node_span(data, &bytes, err), err));
    CML_TRY(named_error(data, cml_model_parse_compiled(bytes, model, err), err));
  }
  if (model->type_number != TYPE_ML_PROGRAM) return CML_OK;
  if (!text) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the compiled ML Program has no model.mil");
  CML_TRY(named_error(text, read_program_text(model, text, err), err));
  if (!data) CML_TRY(named_error(text, cml_model_derive_description(model, err), err));
  return options && options->skip_weights ? CML_OK : cml_model_bind_weights(model, root, err);
}

/* ---- any ---- */

static cml_status read_node(cml_model *model, const cml_node *root, const cml_model_options *options, cml_error *err) {
  if (cml_node_kind_of(root) == CML_NODE_FILE) return read_file(model, root, options, err);
  if (!cml_mlpackage_is(root)) {
    if (cml_mlmodelc_is(root)) return read_compiled(model, root, options, err);
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the folder is no Core ML model: it holds neither Manifest.json nor coremldata.bin");
  }
  const cml_node *file;
  CML_TRY(cml_mlpackage_model(root, &file, err));
  if (cml_node_kind_of(file) == CML_NODE_FOLDER)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "Manifest.json names a folder, %s, as the model", cml_node_name(file));
  return read_file(model, file, options, err);
}

cml_status cml_model_read(cml_tree *tree, const cml_node *root, const cml_model_options *options, cml_model **out, cml_error *err) {
  cml_model *model = calloc(1, sizeof *model);
  if (!model) return cml_fail_memory(err);
  model->tree = cml_tree_ref(tree);
  model->root = root;
  cml_status status = read_node(model, root, options, err);
  if (status) cml_model_close(model);
  else *out = model;
  return status;
}

void cml_model_close(cml_model *model) {
  if (!model) return;
  cml_arena_free(&model->arena);
  cml_tree_unref(model->tree);
  free(model);
}
