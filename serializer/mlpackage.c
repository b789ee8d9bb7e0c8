/* Manifests are small and JSON: jansson reads them, after a look at their size. */
#include "mlpackage.h"

#include <stdlib.h>

#include "json_read.h"

enum { MAX_MANIFEST = 16 << 20 };

static const char *copy_text(json_t *object, const char *key, cml_arena *arena) {
  json_t *text = json_object_get(object, key);
  return json_is_string(text) ? cml_arena_text(arena, json_string_value(text), json_string_length(text)) : "";
}

/* A path of plain components. */
static bool stays_inside(const char *path) {
  if (!*path) return false;
  for (size_t n; *path; path += n + (path[n] == '/')) {
    n = strcspn(path, "/");
    if (!n || (path[0] == '.' && (n == 1 || (n == 2 && path[1] == '.')))) return false;
  }
  return true;
}

static int by_identifier(const void *a, const void *b) {
  return strcmp(((const cml_manifest_item *)a)->identifier, ((const cml_manifest_item *)b)->identifier);
}

static cml_status read_item(const char *identifier, json_t *entry, cml_arena *arena, cml_manifest_item *item, cml_error *err) {
  *item = (cml_manifest_item){.identifier = cml_arena_text(arena, identifier, strlen(identifier)),
                              .path = copy_text(entry, "path", arena),
                              .author = copy_text(entry, "author", arena),
                              .name = copy_text(entry, "name", arena),
                              .description = copy_text(entry, "description", arena)};
  if (!item->identifier || !item->path || !item->author || !item->name || !item->description) return cml_fail_memory(err);
  if (!stays_inside(item->path))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "Manifest.json: item %s has the path \"%s\", expected one inside Data/", identifier,
                    item->path);
  return CML_OK;
}

static cml_status read_manifest(json_t *json, cml_arena *arena, cml_manifest *out, cml_error *err) {
  json_t *items = json_object_get(json, "itemInfoEntries");
  const char *root = json_string_value(json_object_get(json, "rootModelIdentifier"));
  cml_manifest m = {.version = copy_text(json, "fileFormatVersion", arena)};
  if (!m.version) return cml_fail_memory(err);
  if (!*m.version) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "Manifest.json has no fileFormatVersion");
  if (strncmp(m.version, "1.", 2))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "Manifest.json has fileFormatVersion \"%s\", expected 1.0.0", m.version);
  if (!json_is_object(items)) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "Manifest.json has no itemInfoEntries");
  m.items = CML_ARENA_NEW_ARRAY(arena, cml_manifest_item, json_object_size(items));
  if (!m.items) return cml_fail_memory(err);
  const char *identifier;
  json_t *entry;
  json_object_foreach(items, identifier, entry) CML_TRY(read_item(identifier, entry, arena, &m.items[m.count++], err));
  qsort(m.items, m.count, sizeof *m.items, by_identifier);
  for (size_t i = 0; root && i < m.count; i++)
    if (!strcmp(m.items[i].identifier, root)) m.root_model = &m.items[i];
  if (!m.root_model)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "Manifest.json: rootModelIdentifier %s names no item", root ? root : "is missing and so");
  *out = m;
  return CML_OK;
}

cml_status cml_manifest_parse(cml_span text, cml_arena *arena, cml_manifest *out, cml_error *err) {
  json_t *json;
  if (text.size > MAX_MANIFEST)
    return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "Manifest.json has %zu bytes, at most %d are read", text.size, MAX_MANIFEST);
  CML_TRY(cml_json_parse(text, JSON_REJECT_DUPLICATES, "Manifest.json", &json, err));
  cml_status status = json_is_object(json) ? read_manifest(json, arena, out, err)
                                           : cml_fail(err, CML_INVALID, 0, "Manifest.json holds no JSON object");
  json_decref(json);
  return status;
}

const cml_node *cml_manifest_node(const cml_node *root, const cml_manifest_item *item) {
  const cml_node *data = cml_node_lookup(root, "Data", 4);
  return data ? cml_node_find(data, item->path) : NULL;
}

static cml_status find_model(const cml_node *root, cml_span text, cml_arena *arena, const cml_node **out, cml_error *err) {
  cml_manifest manifest;
  CML_TRY(cml_manifest_parse(text, arena, &manifest, err));
  const cml_node *model = cml_manifest_node(root, manifest.root_model);
  if (!model)
    return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the package holds no Data/%s, which Manifest.json names as its model",
                    manifest.root_model->path);
  *out = model;
  return CML_OK;
}

bool cml_mlpackage_is(const cml_node *node) { return cml_node_find_file(node, "Manifest.json"); }
bool cml_mlmodelc_is(const cml_node *node) { return cml_node_find_file(node, "coremldata.bin") || cml_node_find_file(node, "model.mil"); }

cml_status cml_mlpackage_model(const cml_node *root, const cml_node **out, cml_error *err) {
  cml_span text;
  const cml_node *file = cml_node_find_file(root, "Manifest.json");
  if (!file)
    return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the package has no file Manifest.json");
  CML_TRY(cml_node_span(file, &text, err));
  cml_arena arena = CML_ARENA_INIT;
  cml_status status = find_model(root, text, &arena, out, err);
  cml_arena_free(&arena);
  return status;
}
