/* Opening: what lies at the path is told by its bytes, archives and folders are looked through for the one thing that
 * they hold, and the view is built. Whatever the view's files need later (mappings, parsed programs) is kept by the
 * view itself, so that it outlives the container.
 *
 * Content tells: a FlatBuffer's identifier, an archive's magic, a protobuf that reads as a Model, a flat blob's end, a
 * folder's Manifest.json or coremldata.bin. */
#include "container.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "archive.h"
#include "flat.h"
#include "json_read.h"
#include "mlpackage.h"
#include "view.h"
#include "wire.h"

struct cml_container {
  cml_container_kind kind;
  bool only_exact;
  cml_model_decompress *decompress;
  cml_tree *view;
  cml_arena arena;
  const cml_pte *pte;   /* kept by the view, as all below */
  const cml_ptd *ptd;   /* of a .ptd */
  const cml_ptd *data;  /* of options.data_path */
  cml_container_file program_file, data_file;
  cml_container_model *models;
  size_t model_count;
};

static const char *const kind_names[] = {"ExecuTorch program", "ExecuTorch bundled program", "ExecuTorch external data",
                                         "Core ML package", "Core ML model", "Core ML compiled model",
                                         "flat blob", "folder"};

/* ---- recognising ---- */

typedef enum found_kind { FOUND_NONE, FOUND_ARCHIVE, FOUND_PTE, FOUND_BPTE, FOUND_PTD, FOUND_MODEL, FOUND_TEXT, FOUND_FLAT } found_kind;

/* Whether the top level reads as a Model: a version, and one field that names a type of model. A large model is stepped over. */
static bool is_model_message(cml_span bytes) {
  cml_wire_field f;
  cml_wire w = cml_wire_over(bytes);
  bool version = false, type = false;
  for (unsigned n = 0; n < 64 && cml_wire_next(&w, &f); n++) {
    if (f.number == 1 && f.type == CML_WIRE_VARINT && f.value && f.value < 1000) version = true;
    else if (!version) return false; /* every writer starts with it */
    if (f.number >= 200 && f.number <= 3000 && f.type == CML_WIRE_BYTES) type = true;
  }
  /* A model that is cut off or damaged behind its start should be told so, rather than not be known. */
  return version && (type || (bytes.size > 4 && bytes.data[0] == 8 && bytes.data[2] == 0x12));
}

/* .mil text starts with program(1.0) or the like, after white space and comments. */
static bool is_mil_text(cml_span bytes) {
  static const char word[] = "program(";
  size_t at = 0;
  for (bool comment = false; at < bytes.size && at < 4096; at++) {
    uint8_t c = bytes.data[at];
    if (!comment && c == '/' && at + 1 < bytes.size && bytes.data[at + 1] == '/') comment = true;
    else if (comment && c == '\n') comment = false;
    else if (!comment && !memchr(" \t\r\n", c, 4)) break;
  }
  return bytes.size - at >= sizeof word - 1 && !memcmp(bytes.data + at, word, sizeof word - 1);
}

static found_kind recognise_start(cml_span bytes) {
  if (bytes.size >= 8 && !memcmp(bytes.data + 4, "ET", 2) && bytes.data[6] >= '0' && bytes.data[6] <= '9') return FOUND_PTE;
  if (bytes.size >= 8 && !memcmp(bytes.data + 4, "BP08", 4)) return FOUND_BPTE;
  if (bytes.size >= 8 && !memcmp(bytes.data + 4, "FT01", 4)) return FOUND_PTD;
  if (cml_archive_is(bytes)) return FOUND_ARCHIVE;
  if (is_model_message(bytes)) return FOUND_MODEL;
  if (is_mil_text(bytes)) return FOUND_TEXT;
  return FOUND_NONE;
}

/* A flat blob starts as its first file does, and some of the others may end in a flat blob. */
static cml_status recognise(cml_span bytes, found_kind *out, cml_error *err) {
  bool whole = false;
  *out = recognise_start(bytes);
  if (*out == FOUND_NONE) {
    if (cml_flat_recognise(bytes)) *out = FOUND_FLAT;
    return CML_OK;
  }
  CML_TRY(cml_flat_is_whole(bytes, &whole, err));
  if (whole) *out = FOUND_FLAT;
  return CML_OK;
}

/* ---- names ---- */

/* "dir/model.pte/" gives "model.pte"; what has no name of its own gets one. */
static const char *base_name(cml_arena *arena, const char *path) {
  size_t size = strlen(path);
  while (size > 1 && path[size - 1] == '/') size--;
  size_t start = size;
  while (start && path[start - 1] != '/') start--;
  path += start;
  size -= start;
  if (!size || (path[0] == '.' && (size == 1 || (size == 2 && path[1] == '.'))) || path[0] == '/') return "model";
  return cml_arena_text(arena, path, size);
}

/* ---- models ---- */

static cml_container_model *add_model(cml_container *c) {
  if ((c->model_count & (c->model_count - 1)) == 0) {
    size_t capacity = c->model_count ? c->model_count * 2 : 1;
    cml_container_model *grown = CML_ARENA_NEW_ARRAY(&c->arena, cml_container_model, capacity);
    if (!grown) return NULL;
    if (c->model_count) memcpy(grown, c->models, c->model_count * sizeof *grown);
    c->models = grown;
  }
  cml_container_model *m = &c->models[c->model_count++];
  *m = (cml_container_model){.method = "", .function = ""};
  return m;
}

static cml_status read_names(cml_arena *arena, json_t *list, const char ***out, size_t *out_count, cml_error *err) {
  size_t count = json_array_size(list);
  const char **names = CML_ARENA_NEW_ARRAY(arena, const char *, count);
  if (!names) return cml_fail_memory(err);
  for (size_t i = 0; i < count; i++) {
    json_t *text = json_array_get(list, i);
    names[i] = json_is_string(text) ? cml_arena_text(arena, json_string_value(text), json_string_length(text)) : "";
    if (!names[i]) return cml_fail_memory(err);
  }
  *out = names;
  *out_count = count;
  return CML_OK;
}

/* metadata.json of a delegate's folder: names of the features in the order of the delegate's arguments; with several
 * methods in one blob there is a set a method. A folder without it, or with a damaged one, has no names. */
static cml_status read_metadata(cml_container *c, cml_container_model *m, cml_error *err) {
  cml_span text;
  json_t *json = NULL;
  const cml_node *file = m->folder ? cml_node_find_file(m->folder, "metadata.json") : NULL;
  if (!file || cml_node_span(file, &text, NULL) || text.size > 1 << 24) return CML_OK;
  if (cml_json_parse(text, 0, "metadata.json", &json, err) == CML_NO_MEMORY) return CML_NO_MEMORY;
  json_t *methods = json_object_get(json, "methods"), *named = json;
  if (json_is_object(methods)) {
    json_t *own = json_object_get(methods, *m->function ? m->function : m->method);
    named = own ? own : json_object_get(methods, m->method);
  }
  cml_status status = read_names(&c->arena, json_object_get(named, "inputNames"), &m->input_names, &m->input_count, err);
  if (!status) status = read_names(&c->arena, json_object_get(named, "outputNames"), &m->output_names, &m->output_count, err);
  json_decref(json);
  return status;
}

static cml_status add_folder_model(cml_container *c, cml_tree *tree, const cml_node *folder, cml_error *err) {
  const cml_node *root = cml_view_find_model(folder);
  if (!root) return CML_OK;
  cml_container_model *m = add_model(c);
  if (!m) return cml_fail_memory(err);
  m->tree = tree;
  m->root = root;
  m->folder = root == folder ? NULL : folder;
  return read_metadata(c, m, err);
}

static cml_status add_delegate_models(cml_container *c, const cml_view_pte *v, cml_error *err) {
  for (uint32_t i = 0; i < v->pte->method_count; i++)
    for (uint32_t k = 0; k < v->pte->methods[i].delegate_count; k++) {
      const cml_view_delegate *d = &v->methods[i].delegates[k];
      size_t before = c->model_count;
      if (!d->tree) continue;
      CML_TRY(add_folder_model(c, d->tree, cml_tree_root(d->tree), err));
      if (c->model_count == before) continue;
      cml_container_model *m = &c->models[before];
      m->delegate = k;
      m->method = cml_arena_text(&c->arena, v->pte->methods[i].name.data, v->pte->methods[i].name.size);
      m->function = cml_arena_text(&c->arena, d->coreml.function.data ? d->coreml.function.data : "", d->coreml.function.size);
      if (!m->method || !m->function) return cml_fail_memory(err);
      m->folder = cml_tree_root(d->tree);
      CML_TRY(read_metadata(c, m, err));
    }
  return CML_OK;
}

/* ---- keeping ---- */

static void unref_mapping(void *p) { cml_mapping_unref(p); }
static void unref_tree(void *p) { cml_tree_unref(p); }
static void destroy_pte(void *p) { cml_pte_destroy(p); }
static void destroy_ptd(void *p) { cml_ptd_destroy(p); }
static void destroy_bpte(void *p) { cml_bpte_destroy(p); }

static cml_status keep_mapping(cml_container *c, const cml_view_source *s, cml_error *err) {
  return cml_tree_keep(c->view, unref_mapping, cml_mapping_ref(s->mapping), err);
}

/* ---- kinds of files ---- */

/* The folder `weights` beside a file, if there is one, in a tree of its own or in the file's. */
typedef struct beside { cml_tree *tree; const cml_node *weights; } beside;

static cml_status open_pte(cml_container *c, cml_view_source s, cml_bpte *bpte, cml_error *err) {
  cml_view_pte *v = CML_ARENA_NEW(cml_tree_arena(c->view), cml_view_pte);
  if (!v) return cml_fail_memory(err);
  *v = (cml_view_pte){.view = c->view, .source = s, .bpte = bpte, .only_exact = c->only_exact, .decompress = c->decompress};
  CML_TRY(keep_mapping(c, &s, err));
  CML_TRY(cml_pte_parse(s.bytes, &v->pte, err));
  CML_TRY(cml_tree_keep(c->view, destroy_pte, v->pte, err));
  c->kind = bpte ? CML_CONTAINER_BPTE : CML_CONTAINER_PTE;
  if (!bpte) c->program_file = (cml_container_file){s.mapping, s.bytes};
  c->pte = v->pte;
  CML_TRY(cml_view_build_pte(v, err));
  return add_delegate_models(c, v, err);
}

static cml_status open_bpte(cml_container *c, cml_view_source s, cml_error *err) {
  cml_bpte *bpte = NULL;
  CML_TRY(keep_mapping(c, &s, err));
  CML_TRY(cml_bpte_parse(s.bytes, &bpte, err));
  CML_TRY(cml_tree_keep(c->view, destroy_bpte, bpte, err));
  uint64_t inner = (uint64_t)(bpte->program.data - s.bytes.data);
  cml_view_source program = {s.mapping, s.offset + inner, bpte->program};
  c->program_file = (cml_container_file){s.mapping, s.bytes};
  cml_status status = open_pte(c, program, bpte, err);
  if (status && err && err->offset != CML_NO_OFFSET) err->offset += inner;
  return status;
}

static cml_status open_ptd(cml_container *c, cml_view_source s, cml_error *err) {
  cml_view_ptd *v = CML_ARENA_NEW(cml_tree_arena(c->view), cml_view_ptd);
  if (!v) return cml_fail_memory(err);
  v->source = s;
  CML_TRY(keep_mapping(c, &s, err));
  CML_TRY(cml_ptd_parse(s.bytes, &v->ptd, err));
  CML_TRY(cml_tree_keep(c->view, destroy_ptd, v->ptd, err));
  c->kind = CML_CONTAINER_PTD;
  c->ptd = v->ptd;
  return cml_view_build_ptd(c->view, v, err);
}

/* An exact tree or file under its own name, and what can be decoded of it beside it. Takes over a reference to `tree`. */
static cml_status open_exact(cml_container *c, cml_container_kind kind, cml_tree *tree, const cml_node *node, const char *name,
                             cml_error *err) {
  cml_node *root = cml_tree_root_mutable(c->view);
  c->kind = kind;
  CML_TRY(cml_tree_keep(c->view, unref_tree, tree, err));
  CML_TRY(cml_tree_escape_name(c->view, root, name, strlen(name), &name, err));
  CML_TRY(cml_tree_graft(c->view, root, name, strlen(name), tree, node, err));
  if (!c->only_exact) CML_TRY(cml_view_add_decoded(c->view, root, name, tree, node, c->decompress, err));
  return add_folder_model(c, tree, node, err);
}

static cml_status open_flat(cml_container *c, cml_view_source s, const char *name, cml_error *err) {
  cml_tree *tree;
  CML_TRY(cml_flat_restore(s.mapping, s.offset, s.bytes.size, NULL, &tree, err));
  const char *own = cml_node_name(cml_tree_root(tree));
  return open_exact(c, CML_CONTAINER_FLAT, tree, cml_tree_root(tree), *own ? own : name, err);
}

/* A file that is a model: a tree of that file and of the folder `weights` beside it, as a package and a compiled model have
 * them, so that readers of models find it as they find any other. */
static cml_status plant(cml_tree *tree, cml_view_source s, const beside *near, const char *name, cml_node **file, cml_error *err) {
  cml_node *root = cml_tree_root_mutable(tree);
  cml_piece piece = {s.bytes.data, s.bytes.size, s.mapping, s.offset};
  CML_TRY(cml_tree_add_file(tree, root, name, strlen(name), &piece, 1, file, err));
  if (near->weights) return cml_tree_graft(tree, root, "weights", 7, near->tree, near->weights, err);
  return CML_OK;
}

static cml_status open_mlmodel(cml_container *c, cml_view_source s, const beside *near, const char *name, cml_error *err) {
  cml_tree *tree = NULL;
  cml_node *file;
  cml_model_options options = {.skip_weights = true};
  cml_model model = {0};
  CML_TRY(cml_model_parse(s.bytes, &options, &model, err));
  bool program = model.program;
  cml_arena_free(&model.arena);
  CML_TRY(cml_tree_create("", &tree, err));
  cml_status status = cml_tree_escape_name(tree, cml_tree_root(tree), name, strlen(name), &name, err);
  if (!status) status = plant(tree, s, program ? near : &(beside){0}, name, &file, err);
  if (status) {
    cml_tree_unref(tree);
    return status;
  }
  CML_TRY(open_exact(c, CML_CONTAINER_MLMODEL, tree, file, name, err));
  if (c->model_count) return CML_OK;
  cml_container_model *m = add_model(c); /* its name does not end in .mlmodel */
  if (!m) return cml_fail_memory(err);
  m->tree = tree;
  m->root = file;
  return CML_OK;
}

/* Text alone is a compiled model without its description. */
static cml_status open_text(cml_container *c, cml_view_source s, const beside *near, const char *name, cml_error *err) {
  cml_tree *tree = NULL;
  cml_node *file;
  CML_TRY(cml_tree_create("", &tree, err));
  cml_status status = plant(tree, s, near, "model.mil", &file, err);
  if (!status) return open_exact(c, CML_CONTAINER_MLMODELC, tree, cml_tree_root(tree), name, err);
  cml_tree_unref(tree);
  return status;
}

static cml_status unknown(cml_span bytes, cml_error *err) {
  if (!bytes.size) return cml_fail(err, CML_INVALID, 0, "the file is empty");
  return cml_fail(err, CML_UNSUPPORTED, 0,
                  "starts with no format that cml knows (.pte, .bpte, .ptd, .mlmodel, .mil, flat blob, .tar, .zip, or a folder that is "
                  "an .mlpackage or .mlmodelc)");
}

static cml_status open_archive(cml_container *c, cml_span bytes, const cml_container_options *o, const char *name, cml_error *err);

static cml_status open_source(cml_container *c, cml_view_source s, const beside *near, const cml_container_options *o, const char *name,
                              bool nested, cml_error *err) {
  found_kind kind;
  CML_TRY(recognise(s.bytes, &kind, err));
  switch (kind) {
    case FOUND_PTE: return open_pte(c, s, NULL, err);
    case FOUND_BPTE: return open_bpte(c, s, err);
    case FOUND_PTD: return open_ptd(c, s, err);
    case FOUND_MODEL: return open_mlmodel(c, s, near, name, err);
    case FOUND_TEXT: return open_text(c, s, near, name, err);
    case FOUND_FLAT: return open_flat(c, s, name, err);
    case FOUND_ARCHIVE:
      if (!nested) return open_archive(c, s.bytes, o, name, err);
      return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "an archive within an archive");
    case FOUND_NONE: break;
  }
  return unknown(s.bytes, err);
}

/* ---- folders ---- */

enum { MAX_LOOKED_AT = 256, MAX_FOLDERS_DOWN = 16 };

typedef struct search {
  const cml_node *found, *data; /* the first thing that can be opened; the first .ptd */
  size_t found_count, data_count, looked_at;
  cml_error *err;
} search;

/* What cannot be opened is nothing that we look for; only a lack of memory is told. */
static cml_status recognise_node(const cml_node *file, found_kind *out, cml_error *err) {
  cml_contents contents = {0};
  *out = FOUND_NONE;
  cml_status status = cml_node_open(file, &contents, err);
  if (!status && contents.count == 1)
    status = recognise((cml_span){contents.pieces[0].data, (size_t)contents.pieces[0].size}, out, err);
  cml_contents_close(&contents);
  return status == CML_NO_MEMORY ? status : CML_OK;
}

static cml_status search_folder(const cml_node *folder, unsigned depth, search *s) {
  for (size_t i = 0, n = cml_node_count(folder); i < n && s->looked_at < MAX_LOOKED_AT; i++, s->looked_at++) {
    const cml_node *node = cml_node_child(folder, i);
    bool hit = false;
    if (cml_node_kind_of(node) == CML_NODE_FOLDER) {
      hit = cml_mlpackage_is(node) || cml_mlmodelc_is(node);
      if (!hit && depth < MAX_FOLDERS_DOWN) CML_TRY(search_folder(node, depth + 1, s));
    } else {
      found_kind kind;
      CML_TRY(recognise_node(node, &kind, s->err));
      if (kind == FOUND_PTD && !s->data_count++) s->data = node;
      hit = kind != FOUND_NONE && kind != FOUND_ARCHIVE && kind != FOUND_PTD;
    }
    if (hit && !s->found_count++) s->found = node;
  }
  return CML_OK;
}

static cml_status open_file_node(cml_container *c, cml_tree *tree, const cml_node *file, const cml_container_options *o, cml_error *err) {
  cml_contents contents = {0};
  cml_status status = cml_node_open(file, &contents, err);
  if (!status && (contents.count != 1 || !contents.pieces[0].mapping))
    status = cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "its contents are not one piece");
  if (!status) {
    cml_piece p = contents.pieces[0];
    const cml_node *weights = cml_node_lookup(cml_node_parent(file), "weights", 7);
    beside near = {tree, weights && cml_node_kind_of(weights) == CML_NODE_FOLDER ? weights : NULL};
    status = open_source(c, (cml_view_source){p.mapping, p.offset, {p.data, (size_t)p.size}}, &near, o, cml_node_name(file), true, err);
  }
  cml_contents_close(&contents);
  cml_tree_unref(tree);
  return status ? cml_error_prefix(err, status, "%s", cml_node_name(file)) : CML_OK;
}

static cml_status attach_data(cml_container *c, cml_mapping *mapping, cml_span bytes, cml_error *err);

/* The .ptd beside the one program of a folder. */
static cml_status attach_node(cml_container *c, const cml_node *file, cml_error *err) {
  cml_contents contents = {0};
  CML_TRY(cml_node_open(file, &contents, err));
  cml_status status = CML_OK;
  if (contents.count == 1 && contents.pieces[0].mapping) {
    cml_piece p = contents.pieces[0];
    status = attach_data(c, cml_mapping_ref(p.mapping), (cml_span){p.data, (size_t)p.size}, err);
  }
  cml_contents_close(&contents);
  return status ? cml_error_prefix(err, status, "%s", cml_node_name(file)) : CML_OK;
}

/* Takes over `tree`. A folder that is no model itself but holds one thing is that thing; a folder with a metadata.json
 * beside its model is a delegate's, and any other is shown as it is. */
static cml_status open_folder(cml_container *c, cml_tree *tree, const cml_container_options *o, const char *name, cml_error *err) {
  const cml_node *root = cml_tree_root(tree);
  search s = {.err = err};
  if (cml_mlpackage_is(root)) return open_exact(c, CML_CONTAINER_MLPACKAGE, tree, root, name, err);
  if (cml_mlmodelc_is(root)) return open_exact(c, CML_CONTAINER_MLMODELC, tree, root, name, err);
  if (cml_node_find_file(root, "metadata.json")) return open_exact(c, CML_CONTAINER_FOLDER, tree, root, name, err);
  cml_status searched = search_folder(root, 0, &s);
  if (searched) {
    cml_tree_unref(tree);
    return searched;
  }
  if (!s.found_count && s.data_count == 1) s.found = s.data, s.found_count = 1;
  if (s.found_count != 1 || s.looked_at >= MAX_LOOKED_AT) return open_exact(c, CML_CONTAINER_FOLDER, tree, root, name, err);
  if (cml_node_kind_of(s.found) == CML_NODE_FOLDER)
    return open_exact(c, cml_mlpackage_is(s.found) ? CML_CONTAINER_MLPACKAGE : CML_CONTAINER_MLMODELC, tree, s.found, cml_node_name(s.found), err);
  if (s.data_count != 1 || s.data == s.found) return open_file_node(c, tree, s.found, o, err);
  cml_tree_ref(tree);
  cml_status status = open_file_node(c, tree, s.found, o, err);
  if (!status && c->pte && !(o && o->data_path)) status = attach_node(c, s.data, err);
  cml_tree_unref(tree);
  return status;
}

static cml_status open_archive(cml_container *c, cml_span bytes, const cml_container_options *o, const char *name, cml_error *err) {
  cml_archive_options limits = {o ? o->max_archive_bytes : 0, o ? o->max_archive_entries : 0};
  cml_tree *tree;
  CML_TRY(cml_archive_open(bytes, &limits, &tree, err));
  return open_folder(c, tree, o, name, err);
}

/* ---- external data ---- */

/* Takes over a reference to the mapping. */
static cml_status attach_data(cml_container *c, cml_mapping *mapping, cml_span bytes, cml_error *err) {
  cml_ptd *ptd;
  CML_TRY(cml_tree_keep(c->view, unref_mapping, mapping, err));
  CML_TRY(cml_ptd_parse(bytes, &ptd, err));
  CML_TRY(cml_tree_keep(c->view, destroy_ptd, ptd, err));
  c->data = ptd;
  c->data_file = (cml_container_file){mapping, bytes};
  return CML_OK;
}

static cml_status open_data(cml_container *c, const char *path, cml_error *err) {
  cml_mapping *mapping;
  if (!c->pte) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "external data %s, but no ExecuTorch program that could use it", path);
  cml_status status = cml_mapping_open(path, &mapping, err);
  if (!status) status = attach_data(c, mapping, cml_mapping_span(mapping), err);
  return status ? cml_error_prefix(err, status, "%s", path) : CML_OK;
}

/* ---- the interface ---- */

/* On disk; a folder that holds more than models do is left alone. */
static cml_status find_beside(cml_container *c, const char *path, beside *out, cml_error *err) {
  struct stat st;
  const char *slash = strrchr(path, '/');
  const char *folder = cml_arena_printf(&c->arena, "%.*sweights", slash ? (int)(slash + 1 - path) : 0, path);
  if (!folder) return cml_fail_memory(err);
  if (stat(folder, &st) || !S_ISDIR(st.st_mode)) return CML_OK;
  const cml_folder_options limits = {.max_nodes = 4096, .max_depth = 16};
  if (cml_tree_from_folder(folder, &limits, &out->tree, NULL)) return CML_OK;
  out->weights = cml_tree_root(out->tree);
  return CML_OK;
}

static cml_status open_path(cml_container *c, const char *path, const cml_container_options *o, cml_error *err) {
  struct stat st;
  const char *name = base_name(&c->arena, path);
  if (!name) return cml_fail_memory(err);
  if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
    cml_tree *tree;
    CML_TRY(cml_tree_from_folder(path, NULL, &tree, err));
    return open_folder(c, tree, o, name, err);
  }
  cml_mapping *mapping;
  beside near = {0};
  CML_TRY(cml_mapping_open(path, &mapping, err));
  found_kind kind = recognise_start(cml_mapping_span(mapping));
  cml_status status = kind == FOUND_MODEL || kind == FOUND_TEXT ? find_beside(c, path, &near, err) : CML_OK;
  if (!status) status = open_source(c, (cml_view_source){mapping, 0, cml_mapping_span(mapping)}, &near, o, name, false, err);
  cml_tree_unref(near.tree);
  cml_mapping_unref(mapping);
  return status;
}

cml_status cml_container_open(const char *path, const cml_container_options *options, cml_container **out, cml_error *err) {
  cml_container *c = calloc(1, sizeof *c);
  if (!c) return cml_fail_memory(err);
  c->only_exact = options && options->only_exact;
  c->decompress = options ? options->decompress : NULL;
  cml_status status = cml_tree_create("", &c->view, err);
  if (!status) status = open_path(c, path, options, err);
  if (!status && options && options->data_path) status = open_data(c, options->data_path, err);
  if (status) cml_container_close(c);
  else *out = c;
  return status;
}

void cml_container_close(cml_container *c) {
  if (!c) return;
  cml_tree_unref(c->view);
  cml_arena_free(&c->arena);
  free(c);
}

cml_container_kind cml_container_kind_of(const cml_container *c) { return c->kind; }

const char *cml_container_kind_name(cml_container_kind kind) {
  return (size_t)kind < sizeof kind_names / sizeof *kind_names ? kind_names[kind] : "?";
}

cml_tree *cml_container_view(const cml_container *c) { return c->view; }
size_t cml_container_model_count(const cml_container *c) { return c->model_count; }

const cml_container_model *cml_container_model_at(const cml_container *c, size_t i) {
  return i < c->model_count ? &c->models[i] : NULL;
}

const cml_pte *cml_container_pte(const cml_container *c) { return c->pte; }
const cml_ptd *cml_container_ptd(const cml_container *c) { return c->ptd ? c->ptd : c->data; }
cml_container_file cml_container_program_file(const cml_container *c) { return c->program_file; }
cml_container_file cml_container_data_file(const cml_container *c) { return c->data_file; }
