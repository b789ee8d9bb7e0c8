/* Single files of a view: tensors as .npy, pretty JSON, and what stands in NAME.view/ beside an exact NAME.
 *
 * A .npy of a row-major tensor is two pieces, a header of a hundred bytes and the tensor where it lies. Elements of less
 * than a byte are shown one a byte (int4 as int8, the others as uint8): such a file is generated when it is read. */
#include <stdio.h>
#include <stdlib.h>

#include "blob.h"
#include "json_read.h"
#include "mlpackage.h"
#include "npy.h"
#include "model_view.h"
#include "view.h"
#include "wire.h"

/* ---- bytes and tensors ---- */

cml_piece cml_view_piece(const cml_view_source *source, cml_span bytes) {
  return (cml_piece){bytes.data, bytes.size, source->mapping, source->offset + (uint64_t)(bytes.data - source->bytes.data)};
}

cml_status cml_view_add_bytes(cml_tree *view, cml_node *folder, const char *name, const cml_view_source *source, cml_span bytes,
                              cml_error *err) {
  cml_piece piece = {0};
  if (bytes.size) piece = cml_view_piece(source, bytes);
  return cml_tree_add_file(view, folder, name, strlen(name), &piece, bytes.size ? 1 : 0, NULL, err);
}

static cml_status keep_header(cml_tree *view, cml_dtype dtype, size_t rank, const int64_t *dims, cml_span *out, cml_error *err) {
  cml_buffer header = CML_BUFFER_INIT;
  cml_status status = cml_npy_header(dtype, rank, dims, &header, err);
  if (!status) {
    uint8_t *copy = cml_arena_alloc(cml_tree_arena(view), header.size);
    if (copy) *out = cml_span_of(memcpy(copy, header.data, header.size), header.size);
    else status = cml_fail_memory(err);
  }
  cml_buffer_free(&header);
  return status;
}

static cml_status add_array(cml_tree *view, cml_node *folder, const char *name, const cml_view_source *source, cml_dtype dtype,
                            size_t rank, const int64_t *dims, cml_span data, cml_error *err) {
  cml_span header = {NULL, 0};
  CML_TRY(keep_header(view, dtype, rank, dims, &header, err));
  cml_piece pieces[2] = {{header.data, header.size, NULL, 0}};
  if (data.size) pieces[1] = cml_view_piece(source, data);
  return cml_tree_add_file(view, folder, name, strlen(name), pieces, data.size ? 2 : 1, NULL, err);
}

static bool is_row_major(const cml_pte_tensor *t) {
  int64_t stride = 1;
  for (size_t i = t->rank; i--;) {
    if (t->sizes[i] > 1 && t->strides[i] != stride) return false;
    stride *= t->sizes[i] ? t->sizes[i] : 1;
  }
  return true;
}

/* Reads a tensor of any dim order in row-major order, counting up the index like an odometer. */
static cml_status generate_permuted(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  const cml_pte_tensor *t = context;
  int64_t dims[CML_PTE_MAX_RANK], index[CML_PTE_MAX_RANK] = {0}, at = 0;
  size_t item = cml_pte_scalar_bytes(t->scalar);
  for (size_t i = 0; i < t->rank; i++) dims[i] = t->sizes[i];
  CML_TRY(cml_npy_header(t->dtype, t->rank, dims, out, err));
  uint8_t *room = cml_buffer_extend(out, t->data.size);
  if (!room) return cml_fail_memory(err);
  for (uint64_t n = 0; n < t->elements; n++) {
    memcpy(room + n * item, t->data.data + (size_t)at * item, item);
    for (size_t i = t->rank; i--;) {
      at += t->strides[i];
      if (++index[i] < dims[i]) break;
      at -= t->strides[i] * dims[i];
      index[i] = 0;
    }
  }
  return CML_OK;
}

cml_status cml_view_add_tensor(cml_tree *view, cml_node *folder, const char *stem, const cml_view_source *source,
                               const cml_pte_tensor *t, const char **out_name, cml_error *err) {
  cml_arena *arena = cml_tree_arena(view);
  int64_t dims[CML_PTE_MAX_RANK];
  for (size_t i = 0; i < t->rank; i++) dims[i] = t->sizes[i];
  const char *name = cml_arena_printf(arena, "%s.%s", stem, t->dtype ? "npy" : "bin");
  if (!name) return cml_fail_memory(err);
  if (out_name) *out_name = name;
  if (!t->dtype) return cml_view_add_bytes(view, folder, name, source, t->data, err);
  if (is_row_major(t)) return add_array(view, folder, name, source, t->dtype, t->rank, dims, t->data, err);
  return cml_tree_add_generated(view, folder, name, strlen(name), generate_permuted, (void *)(uintptr_t)t, NULL, err);
}

/* ---- weight files ---- */

static cml_status generate_expanded(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  const cml_blob *blob = context;
  int64_t count = (int64_t)blob->count;
  CML_TRY(cml_npy_header(blob->dtype == CML_I4 ? CML_I8 : CML_U8, 1, &count, out, err));
  uint8_t *room = cml_buffer_extend(out, (size_t)blob->count);
  if (!room) return cml_fail_memory(err);
  for (uint64_t i = 0; i < blob->count; i++) room[i] = (uint8_t)cml_blob_element(blob, i);
  return CML_OK;
}

static cml_status add_blob(cml_tree *view, cml_node *folder, const cml_view_source *source, const cml_blob *blob, cml_error *err) {
  char name[40];
  snprintf(name, sizeof name, "%llu.npy", (unsigned long long)blob->record);
  int64_t count = (int64_t)blob->count;
  if (!blob->dtype || cml_dtype_bits(blob->dtype) >= 8)
    return add_array(view, folder, name, source, blob->dtype ? blob->dtype : CML_U8, 1, &count, blob->data, err);
  cml_blob *copy = CML_ARENA_NEW(cml_tree_arena(view), cml_blob);
  if (!copy) return cml_fail_memory(err);
  *copy = *blob;
  return cml_tree_add_generated(view, folder, name, strlen(name), generate_expanded, copy, NULL, err);
}

static void unref_mapping(void *mapping) { cml_mapping_unref(mapping); }

static cml_status add_text(cml_tree *view, cml_node *folder, const char *name, const char *text, cml_error *err) {
  size_t size = strlen(text);
  char *copy = cml_arena_printf(cml_tree_arena(view), "%s\n", text);
  if (!copy) return cml_fail_memory(err);
  cml_piece piece = {(const uint8_t *)copy, size + 1, NULL, 0};
  return cml_tree_add_file(view, folder, name, strlen(name), &piece, 1, NULL, err);
}

/* Every blob as OFFSET.npy, the offset being that of its record, which the program refers to. A file that is damaged is
 * shown as far as it can be read, and error.txt says what is wrong behind that. */
static cml_status add_weight_file(cml_tree *view, cml_node *folder, const cml_node *file, cml_error *err) {
  cml_contents contents = {0};
  CML_TRY(cml_node_open(file, &contents, err));
  cml_view_source source = {0};
  if (contents.count == 1 && contents.pieces[0].mapping)
    source = (cml_view_source){contents.pieces[0].mapping, contents.pieces[0].offset,
                               {contents.pieces[0].data, (size_t)contents.pieces[0].size}};
  cml_status status = CML_OK;
  if (source.mapping) status = cml_tree_keep(view, unref_mapping, cml_mapping_ref(source.mapping), err);
  cml_contents_close(&contents);
  if (status || !source.mapping) return status;
  cml_blobs blobs;
  cml_blob blob;
  cml_error problem = {0};
  bool found = true;
  if (cml_blobs_begin(source.bytes, &blobs, &problem)) return add_text(view, folder, "error.txt", problem.text, err);
  while (!status && found) {
    if (cml_blobs_next(&blobs, &blob, &found, &problem)) return add_text(view, folder, "error.txt", problem.text, err);
    if (found) status = add_blob(view, folder, &source, &blob, err);
  }
  return status;
}

typedef struct weight_files {
  const cml_node *files[16];
  size_t count;
} weight_files;

/* Files named *.bin in folders named weights. */
static void find_weights(const cml_node *node, unsigned depth, weight_files *found) {
  for (size_t i = 0, n = cml_node_count(node); i < n && depth < 64; i++) {
    const cml_node *child = cml_node_child(node, i);
    const char *name = cml_node_name(child);
    size_t size = strlen(name);
    if (cml_node_kind_of(child) == CML_NODE_FOLDER) find_weights(child, depth + 1, found);
    else if (!strcmp(cml_node_name(node), "weights") && size > 4 && !strcmp(name + size - 4, ".bin") && found->count < 16)
      found->files[found->count++] = child;
  }
}

static cml_status add_weights(cml_tree *view, cml_node *folder, const cml_node *node, cml_error *err) {
  weight_files found = {.count = 0};
  cml_node *weights = NULL, *into;
  find_weights(node, 0, &found);
  if (!found.count) return CML_OK;
  CML_TRY(cml_tree_add_folder(view, folder, "weights", 7, &weights, err));
  for (size_t i = 0; i < found.count; i++) {
    const char *name = cml_node_name(found.files[i]);
    into = weights;
    if (found.count > 1) { /* a pipeline's models have a file each */
      CML_TRY(cml_tree_escape_name(view, weights, name, strlen(name), &name, err));
      CML_TRY(cml_tree_add_folder(view, weights, name, strlen(name), &into, err));
    }
    CML_TRY(add_weight_file(view, into, found.files[i], err));
  }
  return CML_OK;
}

/* ---- JSON ---- */

static cml_status generate_pretty(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  cml_contents contents = {0};
  CML_TRY(cml_node_open(context, &contents, err));
  cml_error problem = {.text = "it is too large"};
  json_t *json = NULL;
  cml_status status = CML_OK;
  if (contents.count == 1 && contents.size < 1 << 24)
    status = cml_json_parse((cml_span){contents.pieces[0].data, (size_t)contents.size}, JSON_ALLOW_NUL, cml_node_name(context), &json, &problem);
  char *text = NULL;
  if (json) status = cml_json_print(json, JSON_INDENT(2) | JSON_REAL_PRECISION(17), &text, &problem);
  if (status == CML_NO_MEMORY) status = cml_fail_memory(err);
  else if (text) {
    cml_buffer_text(out, text);
    cml_buffer_char(out, '\n');
  } else { /* a file that says what is wrong is better than one that cannot be read */
    cml_json j = cml_json_over(out);
    cml_json_open(&j, '{');
    cml_json_put_text(&j, "error", problem.text);
    cml_json_close(&j, '}');
  }
  free(text);
  json_decref(json);
  cml_contents_close(&contents);
  return status == CML_NO_MEMORY ? status : CML_OK;
}

/* ---- the siblings ---- */

static bool ends_with(const char *name, const char *end) {
  size_t a = strlen(name), b = strlen(end);
  return a >= b && !strcmp(name + a - b, end);
}

static bool is_model(const cml_node *node) {
  if (cml_node_kind_of(node) == CML_NODE_FILE) return ends_with(cml_node_name(node), ".mlmodel");
  return cml_mlpackage_is(node) || cml_mlmodelc_is(node);
}

const cml_node *cml_view_find_model(const cml_node *node) {
  if (is_model(node)) return node;
  const cml_node *found = NULL;
  for (size_t i = 0, n = cml_node_count(node); i < n; i++) {
    const cml_node *child = cml_node_child(node, i);
    if (!is_model(child)) continue;
    if (found) return NULL;
    found = child;
  }
  return found;
}

cml_status cml_view_add_decoded(cml_tree *view, cml_node *parent, const char *exact_name, cml_tree *tree, const cml_node *node,
                                cml_model_decompress *decompress, cml_error *err) {
  cml_node *folder;
  const char *name = cml_arena_printf(cml_tree_arena(view), "%s.view", exact_name);
  if (!name) return cml_fail_memory(err);
  CML_TRY(cml_tree_escape_name(view, parent, name, strlen(name), &name, err));
  CML_TRY(cml_tree_add_folder(view, parent, name, strlen(name), &folder, err));
  const cml_node *metadata = cml_node_find_file(node, "metadata.json");
  if (metadata)
    CML_TRY(cml_tree_add_generated(view, folder, "metadata.json", 13, generate_pretty, (void *)(uintptr_t)metadata, NULL, err));
  CML_TRY(add_weights(view, folder, node, err));
  const cml_node *model = cml_view_find_model(node);
  const cml_model_view_options options = {.decompress = decompress};
  return model ? cml_model_view_add(view, folder, tree, model, &options, err) : CML_OK;
}
