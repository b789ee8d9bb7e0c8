/* The folders of a program's view. Delegates that share a blob share one restored tree; how many nodes all of them may
 * show together is limited, because a small program can name one large blob many times. */
#include <stdio.h>
#include <stdlib.h>

#include "flat.h"
#include "view.h"

enum { MAX_GRAFTED = 1000000 };

typedef struct restored {
  const uint8_t *data;
  cml_tree *tree; /* referenced by `keep` of the view */
  uint64_t nodes;
} restored;

typedef struct builder {
  cml_view_pte *v;
  cml_tree *view;
  cml_arena *arena; /* the view's */
  restored *blobs;
  size_t blob_count;
  uint64_t grafted;
} builder;

static cml_node *root_of(builder *b) { return cml_tree_root_mutable(b->view); }

static cml_status add_folder(builder *b, cml_node *parent, const char *name, cml_node **out, cml_error *err) {
  return cml_tree_add_folder(b->view, parent, name, strlen(name), out, err);
}

/* ---- delegates ---- */

static uint64_t count_nodes(const cml_node *node) {
  uint64_t total = 1;
  for (size_t i = 0, n = cml_node_count(node); i < n; i++) total += count_nodes(cml_node_child(node, i));
  return total;
}

static void unref_tree(void *tree) { cml_tree_unref(tree); }

/* The tree of a blob; *out_problem says why there is none. */
static cml_status restore(builder *b, cml_span blob, cml_tree **out, const char **out_problem, cml_error *err) {
  const cml_view_source *s = &b->v->source;
  *out = NULL;
  for (size_t i = 0; i < b->blob_count; i++)
    if (b->blobs[i].data == blob.data && (*out = b->blobs[i].tree)) goto found;
  cml_error problem = {0};
  uint64_t offset = blob.data ? s->offset + (uint64_t)(blob.data - s->bytes.data) : s->offset;
  cml_status status = cml_flat_restore(s->mapping, offset, blob.size, NULL, out, &problem);
  if (status == CML_NO_MEMORY) return cml_fail_memory(err);
  if (status) {
    *out_problem = problem.offset == CML_NO_OFFSET ? cml_arena_printf(b->arena, "%s", problem.text)
                                                   : cml_arena_printf(b->arena, "%s (at byte %llu)", problem.text,
                                                                      (unsigned long long)problem.offset);
    return *out_problem ? CML_OK : cml_fail_memory(err);
  }
  CML_TRY(cml_tree_keep(b->view, unref_tree, *out, err));
  restored *grown = realloc(b->blobs, (b->blob_count + 1) * sizeof *grown);
  if (!grown) return cml_fail_memory(err);
  b->blobs = grown;
  b->blobs[b->blob_count++] = (restored){blob.data, *out, count_nodes(cml_tree_root(*out))};
found:
  for (size_t i = 0; i < b->blob_count; i++)
    if (b->blobs[i].tree == *out) b->grafted += b->blobs[i].nodes;
  if (b->grafted > MAX_GRAFTED)
    return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the program's delegates show over %d files and folders", MAX_GRAFTED);
  return CML_OK;
}

/* "XnnpackBackend" becomes "xnnpack". */
static const char *backend_stem(builder *b, cml_string id) {
  char *stem = cml_arena_text(b->arena, id.data ? id.data : "", id.size);
  if (!stem) return NULL;
  for (char *c = stem; *c; c++)
    if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
  size_t n = strlen(stem);
  if (n > 7 && !strcmp(stem + n - 7, "backend")) stem[n - 7] = 0;
  return stem;
}

static cml_status add_opaque(builder *b, cml_node *folder, const cml_pte_delegate *d, const char *stem, uint32_t number,
                             cml_view_delegate *out, cml_error *err) {
  const char *name = cml_arena_printf(b->arena, "%s_%u.bin", stem, number);
  if (!name) return cml_fail_memory(err);
  CML_TRY(cml_tree_escape_name(b->view, folder, name, strlen(name), &out->name, err));
  return cml_view_add_bytes(b->view, folder, out->name, &b->v->source, d->data, err);
}

static cml_status add_coreml(builder *b, cml_node *folder, const cml_pte_delegate *d, uint32_t number, cml_view_delegate *out,
                             cml_error *err) {
  cml_error problem = {0};
  out->is_coreml = true;
  cml_status status = cml_pte_coreml_decode(b->v->pte, d, b->arena, &out->coreml, &problem);
  if (status == CML_NO_MEMORY) return cml_fail_memory(err);
  if (status) {
    out->problem = cml_arena_printf(b->arena, "%s", problem.text);
    if (!out->problem) return cml_fail_memory(err);
  } else {
    CML_TRY(restore(b, out->coreml.blob, &out->tree, &out->problem, err));
  }
  if (!out->tree) return add_opaque(b, folder, d, "coreml", number, out, err);
  const char *name = cml_arena_printf(b->arena, "coreml_%u", number);
  if (!name) return cml_fail_memory(err);
  CML_TRY(cml_tree_escape_name(b->view, folder, name, strlen(name), &out->name, err));
  const cml_node *root = cml_tree_root(out->tree);
  CML_TRY(cml_tree_graft(b->view, folder, out->name, strlen(out->name), out->tree, root, err));
  return b->v->only_exact ? CML_OK : cml_view_add_decoded(b->view, folder, out->name, out->tree, root, b->v->decompress, err);
}

/* How many of the delegates before `i` are of the same backend; a method has few. */
static uint32_t number_of(const cml_pte_method *m, uint32_t i) {
  uint32_t n = 0;
  for (uint32_t j = 0; j < i; j++)
    n += m->delegates[j].id.size == m->delegates[i].id.size &&
         !memcmp(m->delegates[j].id.data, m->delegates[i].id.data, m->delegates[i].id.size);
  return n;
}

static cml_status add_method(builder *b, uint32_t index, cml_error *err) {
  const cml_pte_method *m = &b->v->pte->methods[index];
  cml_view_method *view = &b->v->methods[index];
  cml_node *folder;
  CML_TRY(cml_view_name(b->view, root_of(b), m->name, &view->folder, err));
  CML_TRY(add_folder(b, root_of(b), view->folder, &folder, err));
  cml_view_method_context *context = CML_ARENA_NEW(b->arena, cml_view_method_context);
  view->delegates = CML_ARENA_NEW_ARRAY(b->arena, cml_view_delegate, m->delegate_count);
  if (!context || !view->delegates) return cml_fail_memory(err);
  *context = (cml_view_method_context){b->v, index};
  CML_TRY(cml_tree_add_generated(b->view, folder, "method.txt", 10, cml_view_method_text, context, NULL, err));
  for (uint32_t i = 0; i < m->delegate_count; i++) {
    const cml_pte_delegate *d = &m->delegates[i];
    const char *stem = backend_stem(b, d->id);
    if (!stem) return cml_fail_memory(err);
    if (i >= 4096) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "a method has over 4096 delegates");
    if (cml_pte_is_coreml(d)) CML_TRY(add_coreml(b, folder, d, number_of(m, i), &view->delegates[i], err));
    else CML_TRY(add_opaque(b, folder, d, stem, number_of(m, i), &view->delegates[i], err));
  }
  return CML_OK;
}

/* ---- data ---- */

static void find_users(cml_view_pte *v) {
  for (uint32_t i = 0; i < v->pte->method_count; i++)
    for (uint32_t k = 0; k < v->pte->methods[i].value_count; k++) {
      const cml_pte_value *value = &v->pte->methods[i].values[k];
      if (value->kind != CML_PTE_TENSOR) continue;
      const cml_pte_tensor *t = value->tensor;
      cml_view_constant *list = t->storage == CML_PTE_CONSTANT ? v->constants : t->storage == CML_PTE_MUTABLE ? v->initials : NULL;
      uint32_t count = list == v->constants ? v->constant_count : v->initial_count;
      if (t->storage == CML_PTE_MUTABLE && t->extra && t->extra->mutable_segment) continue;
      if (list && t->data_index < count && !list[t->data_index].tensor) list[t->data_index].tensor = t;
    }
}

static cml_status add_constants(builder *b, const char *folder_name, cml_view_constant *list, uint32_t count, cml_error *err) {
  cml_node *folder = NULL;
  char stem[16];
  for (uint32_t i = 0; i < count; i++) {
    if (!list[i].tensor) continue;
    if (!folder) CML_TRY(add_folder(b, root_of(b), folder_name, &folder, err));
    snprintf(stem, sizeof stem, "%u", i);
    CML_TRY(cml_view_add_tensor(b->view, folder, stem, &b->v->source, list[i].tensor, &list[i].file, err));
  }
  return CML_OK;
}

static cml_status add_all_constants(builder *b, cml_error *err) {
  cml_view_pte *v = b->v;
  v->constant_count = v->pte->has_constant_segment && v->pte->constant_segment.count ? v->pte->constant_segment.count : v->pte->constant_count;
  v->initial_count = v->pte->mutable_count ? v->pte->mutable_segments[0].count : 0;
  v->constants = CML_ARENA_NEW_ARRAY(b->arena, cml_view_constant, v->constant_count);
  v->initials = CML_ARENA_NEW_ARRAY(b->arena, cml_view_constant, v->initial_count);
  if (!v->constants || !v->initials) return cml_fail_memory(err);
  find_users(v);
  CML_TRY(add_constants(b, "constants", v->constants, v->constant_count, err));
  return add_constants(b, "initial_values", v->initials, v->initial_count, err);
}

static cml_status add_named(builder *b, cml_error *err) {
  const cml_pte *pte = b->v->pte;
  cml_node *folder = NULL;
  b->v->named = CML_ARENA_NEW_ARRAY(b->arena, const char *, pte->named_count);
  if (!b->v->named) return cml_fail_memory(err);
  for (uint32_t i = 0; i < pte->named_count; i++) {
    const cml_pte_named *n = &pte->named[i];
    if (!folder) CML_TRY(add_folder(b, root_of(b), "named_data", &folder, err));
    CML_TRY(cml_view_name(b->view, folder, n->key, &b->v->named[i], err));
    CML_TRY(cml_view_add_bytes(b->view, folder, b->v->named[i], &b->v->source, pte->segments[n->segment].data, err));
  }
  return CML_OK;
}

/* ---- bundled test cases ---- */

static cml_status add_test_values(builder *b, cml_node *folder, const char *what, const cml_pte_value *values, uint32_t count,
                                  cml_error *err) {
  char stem[32];
  for (uint32_t i = 0; i < count; i++) {
    if (values[i].kind != CML_PTE_TENSOR) continue;
    snprintf(stem, sizeof stem, "%s_%u", what, i);
    CML_TRY(cml_view_add_tensor(b->view, folder, stem, &b->v->source, values[i].tensor, NULL, err));
  }
  return CML_OK;
}

static cml_status add_tests(builder *b, const cml_bpte *bpte, cml_error *err) {
  cml_node *top, *folder, *inner;
  const char *name;
  char number[16];
  if (!bpte->suite_count) return CML_OK;
  CML_TRY(add_folder(b, root_of(b), "test_cases", &top, err));
  for (uint32_t i = 0; i < bpte->suite_count; i++) {
    const cml_bpte_suite *suite = &bpte->suites[i];
    CML_TRY(cml_view_name(b->view, top, suite->method, &name, err));
    CML_TRY(add_folder(b, top, name, &folder, err));
    for (uint32_t k = 0; k < suite->count; k++) {
      snprintf(number, sizeof number, "%u", k);
      CML_TRY(add_folder(b, folder, number, &inner, err));
      CML_TRY(add_test_values(b, inner, "input", suite->cases[k].inputs, suite->cases[k].input_count, err));
      CML_TRY(add_test_values(b, inner, "expected", suite->cases[k].outputs, suite->cases[k].output_count, err));
    }
  }
  return CML_OK;
}

/* ---- all of it ---- */

static cml_status build(builder *b, cml_error *err) {
  cml_view_pte *v = b->v;
  v->methods = CML_ARENA_NEW_ARRAY(b->arena, cml_view_method, v->pte->method_count);
  if (!v->methods) return cml_fail_memory(err);
  CML_TRY(cml_tree_add_generated(b->view, root_of(b), "program.json", 12, cml_view_program_json, v, NULL, err));
  CML_TRY(add_all_constants(b, err));
  CML_TRY(add_named(b, err));
  if (v->bpte) CML_TRY(add_tests(b, v->bpte, err));
  for (uint32_t i = 0; i < v->pte->method_count; i++) CML_TRY(add_method(b, i, err));
  return CML_OK;
}

cml_status cml_view_build_pte(cml_view_pte *v, cml_error *err) {
  builder b = {.v = v, .view = v->view, .arena = cml_tree_arena(v->view)};
  cml_status status = build(&b, err);
  free(b.blobs);
  return status;
}

cml_status cml_view_build_ptd(cml_tree *view, cml_view_ptd *v, cml_error *err) {
  cml_node *root = cml_tree_root_mutable(view);
  v->names = CML_ARENA_NEW_ARRAY(cml_tree_arena(view), const char *, v->ptd->count);
  if (!v->names) return cml_fail_memory(err);
  CML_TRY(cml_tree_add_generated(view, root, "data.json", 9, cml_view_data_json, v, NULL, err));
  for (uint32_t i = 0; i < v->ptd->count; i++) {
    const cml_ptd_entry *e = &v->ptd->entries[i];
    const char *ending = !e->tensor ? "" : e->tensor->dtype ? ".npy" : ".bin";
    cml_buffer wanted = CML_BUFFER_INIT; /* escaped with its ending, so that "x.npy" is unique as a whole */
    cml_buffer_append(&wanted, e->key.data, e->key.size);
    cml_buffer_text(&wanted, ending);
    cml_status status = cml_buffer_check(&wanted, err);
    if (!status) status = cml_tree_escape_name(view, root, (const char *)wanted.data, wanted.size, &v->names[i], err);
    cml_buffer_free(&wanted);
    if (status) return status;
    if (!e->tensor) {
      CML_TRY(cml_view_add_bytes(view, root, v->names[i], &v->source, cml_ptd_data(v->ptd, e), err));
      continue;
    }
    size_t n = strlen(v->names[i]);
    bool plain = n > 4 && !strcmp(v->names[i] + n - 4, ending);
    const char *stem = cml_arena_text(cml_tree_arena(view), v->names[i], plain ? n - 4 : n);
    if (!stem) return cml_fail_memory(err);
    CML_TRY(cml_view_add_tensor(view, root, stem, &v->source, e->tensor, &v->names[i], err));
  }
  return CML_OK;
}
