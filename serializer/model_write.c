/* A model as a package: a tree is put together from the old package's nodes, the new protobuf and pieces of weights that stay
 * where they are, and the tree's writer does the rest (streaming, atomic). */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "json_read.h"
#include "mil_fields.h"
#include "mlpackage.h"
#include "weights.h"

#define ITEM_FOLDER "com.apple.CoreML"
#define WEIGHTS_FILE "@model_path/weights/weight.bin"

typedef struct package {
  const cml_model *model;
  cml_tree *tree;
  cml_blob_writer *weights;
  cml_mil_move *moves;
  size_t move_count, move_capacity;
  cml_piece *pieces; /* of weight.bin */
  size_t piece_count, piece_capacity;
  cml_error *err;
} package;

/* ---- weights ---- */

static cml_status add_value(void *context, const cml_mil_op *op, cml_mil_value *value, cml_error *err) {
  package *p = context;
  uint64_t offset;
  if (value->kind != CML_VALUE_BLOB) return CML_OK;
  if (!value->data.data)
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "the weights of %s are not loaded", op ? cml_mil_op_name(op) : "the program");
  CML_TRY(cml_blob_writer_add(p->weights, value->type->dtype, value->count, value->data, &offset, err));
  if (p->move_count == p->move_capacity) {
    size_t capacity = p->move_capacity ? p->move_capacity * 2 : 64;
    cml_mil_move *moves = realloc(p->moves, capacity * sizeof *moves);
    if (!moves) return cml_fail_memory(err);
    p->moves = moves;
    p->move_capacity = capacity;
  }
  p->moves[p->move_count++] = (cml_mil_move){value, offset};
  return CML_OK;
}

/* A sink that remembers where large parts lie and copies small ones into the tree's arena. */
static cml_status keep_piece(void *context, cml_span bytes, cml_error *err) {
  package *p = context;
  if (p->piece_count == p->piece_capacity) {
    size_t capacity = p->piece_capacity ? p->piece_capacity * 2 : 64;
    cml_piece *pieces = realloc(p->pieces, capacity * sizeof *pieces);
    if (!pieces) return cml_fail_memory(err);
    p->pieces = pieces;
    p->piece_capacity = capacity;
  }
  const uint8_t *data = bytes.data;
  if (bytes.size <= CML_BLOB_ALIGNMENT) { /* records and padding lie in the writer's own memory */
    uint8_t *copy = cml_arena_alloc(cml_tree_arena(p->tree), bytes.size);
    if (!copy) return cml_fail_memory(err);
    data = memcpy(copy, data, bytes.size);
  }
  p->pieces[p->piece_count++] = (cml_piece){data, bytes.size, NULL, 0};
  return CML_OK;
}

/* ---- the old package's other items ---- */

/* Whether a node is written anew: the model's protobuf, or a weight file that a value names. */
typedef struct replaced {
  const cml_node *model, *folder; /* folder: where "@model_path" is */
  const char *weights;            /* newest name looked up, and its node */
  const cml_node *weights_node;
  const cml_node *node;           /* asked for */
  bool found;
} replaced;

static cml_status look_at_file(void *context, const cml_mil_op *op, cml_mil_value *value, cml_error *err) {
  (void)op, (void)err;
  replaced *r = context;
  if (value->kind != CML_VALUE_BLOB || !value->file || r->found) return CML_OK;
  if (!r->weights || strcmp(r->weights, value->file)) {
    const char *path = strncmp(value->file, "@model_path/", 12) ? value->file : value->file + 12;
    r->weights = value->file;
    r->weights_node = cml_node_find(r->folder, path);
  }
  r->found = r->weights_node == r->node;
  return CML_OK;
}

static bool is_replaced(const package *p, replaced *r, const cml_node *node) {
  const char *name = cml_node_name(node);
  size_t n = strlen(name);
  if (node == r->model || !strcmp(name, "Manifest.json")) return true;
  if (n < 4 || strcmp(name + n - 4, ".bin")) return false;
  r->node = node;
  r->found = false;
  return !cml_mil_each_value(p->model->program, look_at_file, r, NULL) && r->found;
}

static cml_status copy_children(package *p, replaced *r, cml_node *to, const cml_node *from) {
  for (size_t i = 0; i < cml_node_count(from); i++) {
    const cml_node *child = cml_node_child(from, i);
    const char *name = cml_node_name(child);
    if (cml_node_kind_of(child) == CML_NODE_FOLDER) {
      cml_node *folder;
      CML_TRY(cml_tree_add_folder(p->tree, to, name, strlen(name), &folder, p->err));
      CML_TRY(copy_children(p, r, folder, child));
    } else if (!is_replaced(p, r, child)) {
      CML_TRY(cml_tree_graft(p->tree, to, name, strlen(name), p->model->tree, child, p->err));
    }
  }
  return CML_OK;
}

/* ---- manifest ---- */

/* An identifier that depends on the content alone, so that the same model gives the same package. */
static void make_uuid(uint64_t seed, char out[37]) {
  uint64_t a = seed * UINT64_C(0x9e3779b97f4a7c15), b = (a ^ a >> 31) * UINT64_C(0xbf58476d1ce4e5b9);
  snprintf(out, 37, "%08X-%04X-4%03X-%04X-%012llX", (unsigned)(a >> 32), (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
           (unsigned)(b >> 50 | 0x8000) & 0xbfff, (unsigned long long)(b & 0xffffffffffff));
}

static json_t *make_item(const char *name, const char *path, const char *description) {
  return json_pack("{s:s, s:s, s:s, s:s}", "author", ITEM_FOLDER, "description", description, "name", name, "path", path);
}

static json_t *old_manifest(const cml_model *model) {
  cml_span text;
  const cml_node *node = model->root ? cml_node_find_file(model->root, "Manifest.json") : NULL;
  if (!node || cml_node_span(node, &text, NULL)) return NULL;
  return json_loadb((const char *)text.data, text.size, 0, NULL);
}

/* The old manifest, or a new one; *out_path is where its model goes below Data/. NULL: memory ran out, which jansson may pass over
 * with a part left out, but malloc's errno tells. */
static json_t *make_manifest(const cml_model *model, bool has_weights, const char **out_path) {
  errno = 0;
  json_t *manifest = old_manifest(model), *items = json_object_get(manifest, "itemInfoEntries");
  const char *root = json_string_value(json_object_get(manifest, "rootModelIdentifier"));
  const char *path = root ? json_string_value(json_object_get(json_object_get(items, root), "path")) : NULL;
  char uuid[37];
  if (!path) {
    json_decref(manifest);
    path = ITEM_FOLDER "/model.mlmodel";
    make_uuid(1, uuid);
    manifest = json_pack("{s:s, s:{s:o}, s:s}", "fileFormatVersion", "1.0.0", "itemInfoEntries", uuid,
                         make_item("model.mlmodel", path, "CoreML Model Specification"), "rootModelIdentifier", uuid);
    items = json_object_get(manifest, "itemInfoEntries");
    path = json_string_value(json_object_get(json_object_get(items, uuid), "path"));
  }
  const char *key, *slash = path ? strrchr(path, '/') : NULL;
  json_t *item;
  char weights[512];
  snprintf(weights, sizeof weights, "%.*sweights", slash ? (int)(slash + 1 - path) : 0, path ? path : "");
  json_object_foreach(items, key, item) {
    const char *other = json_string_value(json_object_get(item, "path"));
    if (other && !strcmp(other, weights)) has_weights = false; /* named already */
  }
  make_uuid(2, uuid);
  if (has_weights) json_object_set_new(items, uuid, make_item("weights", weights, "CoreML Model Weights"));
  *out_path = path;
  if (errno != ENOMEM) return manifest;
  json_decref(manifest);
  return NULL;
}

static cml_status add_manifest(package *p, json_t *manifest) {
  char *text;
  CML_TRY(cml_json_print(manifest, JSON_INDENT(4) | JSON_SORT_KEYS, &text, p->err));
  size_t size = strlen(text);
  char *copy = cml_arena_text(cml_tree_arena(p->tree), text, size);
  free(text);
  if (!copy) return cml_fail_memory(p->err);
  cml_piece piece = {(const uint8_t *)copy, size, NULL, 0};
  return cml_tree_add_file(p->tree, cml_tree_root_mutable(p->tree), "Manifest.json", strlen("Manifest.json"), &piece, 1, NULL, p->err);
}

/* ---- together ---- */

/* The folder at a path below `from`, made where it is missing; the path's last component is left in *out_name. */
static cml_status make_folders(package *p, cml_node *from, const char *path, cml_node **out, const char **out_name) {
  for (const char *slash; (slash = strchr(path, '/')); path = slash + 1) {
    size_t n = (size_t)(slash - path);
    cml_node *next = (cml_node *)(uintptr_t)cml_node_lookup(from, path, n); /* of our own tree, which is being built */
    if (!next) CML_TRY(cml_tree_add_folder(p->tree, from, path, n, &next, p->err));
    from = next;
  }
  *out = from;
  *out_name = path;
  return CML_OK;
}

static cml_status add_file(package *p, cml_node *from, const char *path, const cml_piece *pieces, size_t count) {
  cml_node *folder;
  const char *name;
  CML_TRY(make_folders(p, from, path, &folder, &name));
  return cml_tree_add_file(p->tree, folder, name, strlen(name), pieces, count, NULL, p->err);
}

static cml_status copy_old(package *p, const char *path) {
  const cml_node *root = p->model->root;
  if (!p->model->tree || !root || !cml_mlpackage_is(root)) return CML_OK;
  const cml_node *data = cml_node_find(root, "Data"), *file = data ? cml_node_find(data, path) : NULL;
  replaced r = {.model = file, .folder = file ? cml_node_parent(file) : root};
  return copy_children(p, &r, cml_tree_root_mutable(p->tree), root);
}

static cml_status build(package *p, const char *path, const cml_buffer *proto) {
  cml_node *root = cml_tree_root_mutable(p->tree), *folder;
  const char *name;
  cml_piece model = {proto->data, proto->size, NULL, 0};
  cml_node *data = (cml_node *)(uintptr_t)cml_node_lookup(root, "Data", 4);
  if (!data) CML_TRY(cml_tree_add_folder(p->tree, root, "Data", 4, &data, p->err));
  CML_TRY(add_file(p, data, path, &model, 1));
  if (!p->move_count) return CML_OK;
  CML_TRY(make_folders(p, data, path, &folder, &name));
  CML_TRY(cml_blob_writer_write(p->weights, (cml_sink){keep_piece, p}, p->err));
  return add_file(p, folder, "weights/weight.bin", p->pieces, p->piece_count);
}

static cml_status write_package(package *p, json_t *manifest, const char *item, const char *path) {
  cml_buffer proto = CML_BUFFER_INIT;
  cml_mil_moves moves = {WEIGHTS_FILE, p->moves, p->move_count};
  cml_status status = cml_model_serialize_moved(p->model, &moves, &proto, p->err);
  if (!status) status = copy_old(p, item);
  if (!status) status = build(p, item, &proto);
  if (!status) status = add_manifest(p, manifest);
  if (!status) status = cml_node_write(cml_tree_root(p->tree), path, p->err);
  cml_tree_unref(p->tree);
  p->tree = NULL;
  cml_buffer_free(&proto);
  return status;
}

cml_status cml_model_write_package(const cml_model *model, const char *path, cml_error *err) {
  if (!model->program) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "only an ML Program can be written as a package");
  package p = {.model = model, .err = err};
  json_t *manifest = NULL;
  const char *item = NULL;
  cml_status status = cml_blob_writer_create(true, &p.weights, err);
  if (!status) status = cml_mil_each_value(model->program, add_value, &p, err);
  if (!status) status = cml_tree_create("", &p.tree, err);
  if (status) goto done;
  if (p.move_count) qsort(p.moves, p.move_count, sizeof *p.moves, cml_mil_compare_moves);
  manifest = make_manifest(model, p.move_count > 0, &item);
  if (!manifest || !item) status = cml_fail_memory(err);
  else status = write_package(&p, manifest, item, path);
done:
  cml_tree_unref(p.tree);
  cml_blob_writer_destroy(p.weights);
  json_decref(manifest);
  free(p.moves);
  free(p.pieces);
  return status;
}
