/* Entries, trees and descriptions; programs are compared in diff_program.c. */
#include "diff.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "diff_internal.h"
#include "model_io.h"
#include "summary.h"

/* ---- entries ---- */

static cml_status push(cml_diff *diff, cml_diff_entry entry, cml_error *err) {
  if (!entry.where || !entry.what) return cml_fail_memory(err);
  if (diff->count == diff->capacity) {
    size_t capacity = diff->capacity ? diff->capacity * 2 : 32;
    cml_diff_entry *entries = realloc(diff->entries, capacity * sizeof *entries);
    if (!entries) return cml_fail_memory(err);
    diff->entries = entries;
    diff->capacity = capacity;
  }
  diff->entries[diff->count++] = entry;
  return CML_OK;
}

cml_status cml_diff_add(cml_diff *diff, cml_diff_section section, char change, const char *where, const char *what, cml_error *err) {
  return push(diff, (cml_diff_entry){.section = section, .change = change, .where = cml_arena_text(&diff->arena, where, strlen(where)),
                                     .what = cml_arena_text(&diff->arena, what, strlen(what))}, err);
}

cml_status cml_diff_note(cml_diff *diff, cml_diff_section section, char change, const char *where, cml_error *err, const char *format, ...) {
  char what[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(what, sizeof what, format, args);
  va_end(args);
  return cml_diff_add(diff, section, change, where, what, err);
}

void cml_diff_free(cml_diff *diff) {
  if (!diff) return;
  free(diff->entries);
  cml_arena_free(&diff->arena);
  cml_model_decompress *decompress = diff->decompress;
  *diff = (cml_diff)CML_DIFF_INIT;
  diff->decompress = decompress;
}

/* ---- trees ---- */

typedef struct tree_walk {
  cml_diff *diff;
  cml_buffer path;
  cml_error *err;
} tree_walk;

static bool is_view(const cml_node *node) {
  const char *name = cml_node_name(node);
  size_t n = strlen(name);
  return cml_node_kind_of(node) == CML_NODE_FOLDER && n > 5 && !strcmp(name + n - 5, ".view");
}

static const char *path_of(const tree_walk *w) { return w->path.data ? (const char *)w->path.data : ""; }

/* Goes into a child; returns the length to come back to. */
static size_t enter(tree_walk *w, const char *name) {
  size_t before = w->path.size;
  if (before) cml_buffer_char(&w->path, '/');
  cml_buffer_text(&w->path, name);
  return before;
}

static void leave(tree_walk *w, size_t before) {
  if (w->path.failed) return;
  w->path.size = before;
  if (w->path.data) w->path.data[before] = 0;
}

static cml_status note_one(tree_walk *w, const cml_node *node, char change) {
  size_t before = enter(w, cml_node_name(node));
  bool folder = cml_node_kind_of(node) == CML_NODE_FOLDER;
  cml_status status = cml_diff_note(w->diff, CML_DIFF_FILES, change, path_of(w), w->err, "only in the %s%s", change == '-' ? "first" : "second",
                                    folder ? " (a folder)" : "");
  leave(w, before);
  return status;
}

static cml_status compare_nodes(tree_walk *w, const cml_node *a, const cml_node *b);

/* Children are sorted by name, so that one pass over both finds what only one has. */
static cml_status compare_folders(tree_walk *w, const cml_node *a, const cml_node *b) {
  size_t i = 0, j = 0;
  while (i < cml_node_count(a) || j < cml_node_count(b)) {
    const cml_node *x = i < cml_node_count(a) ? cml_node_child(a, i) : NULL, *y = j < cml_node_count(b) ? cml_node_child(b, j) : NULL;
    int order = !x ? 1 : !y ? -1 : strcmp(cml_node_name(x), cml_node_name(y));
    i += order <= 0;
    j += order >= 0;
    if (is_view(order <= 0 ? x : y)) continue;
    if (order) {
      CML_TRY(note_one(w, order < 0 ? x : y, order < 0 ? '-' : '+'));
      continue;
    }
    size_t before = enter(w, cml_node_name(x));
    cml_status status = compare_nodes(w, x, y);
    leave(w, before);
    if (status) return status;
  }
  return CML_OK;
}

static cml_status compare_nodes(tree_walk *w, const cml_node *a, const cml_node *b) {
  if (cml_node_kind_of(a) != cml_node_kind_of(b)) return cml_diff_add(w->diff, CML_DIFF_FILES, '~', path_of(w), "a file in one, a folder in the other", w->err);
  if (cml_node_kind_of(a) == CML_NODE_FOLDER) return compare_folders(w, a, b);
  bool equal;
  uint64_t a_size, b_size;
  CML_TRY(cml_node_compare(a, b, &equal, NULL, w->err));
  if (equal) return CML_OK;
  CML_TRY(cml_node_size(a, &a_size, w->err));
  CML_TRY(cml_node_size(b, &b_size, w->err));
  if (a_size == b_size) return cml_diff_note(w->diff, CML_DIFF_FILES, '~', path_of(w), w->err, "contents differ (%" PRIu64 " bytes)", a_size);
  return cml_diff_note(w->diff, CML_DIFF_FILES, '~', path_of(w), w->err, "contents differ (%" PRIu64 " and %" PRIu64 " bytes)", a_size, b_size);
}

cml_status cml_diff_trees(cml_diff *diff, const cml_node *a, const cml_node *b, cml_error *err) {
  tree_walk w = {diff, CML_BUFFER_INIT, err};
  if (cml_node_kind_of(a) == CML_NODE_FILE) enter(&w, cml_node_name(a));
  cml_status status = compare_nodes(&w, a, b);
  if (!status) status = cml_buffer_check(&w.path, err);
  cml_buffer_free(&w.path);
  return status;
}

/* ---- descriptions ---- */

typedef struct description {
  cml_diff *diff;
  const char *where;
  cml_error *err;
} description;

static cml_status note(description *d, char change, const char *key, const char *what) {
  char *where = cml_arena_printf(&d->diff->arena, "%s%s", d->where, key);
  return where ? cml_diff_add(d->diff, CML_DIFF_DESCRIPTION, change, where, what, d->err) : cml_fail_memory(d->err);
}

/* Two texts, either of which may be missing. */
static cml_status compare_texts(description *d, const char *key, const char *a, const char *b) {
  if (!a) a = "";
  if (!b) b = "";
  if (!strcmp(a, b)) return CML_OK;
  char *what = !*b ? cml_arena_printf(&d->diff->arena, "%s", a) : !*a ? cml_arena_printf(&d->diff->arena, "%s", b)
                   : cml_arena_printf(&d->diff->arena, "%s -> %s", a, b);
  return what ? note(d, !*b ? '-' : !*a ? '+' : '~', key, what) : cml_fail_memory(d->err);
}

static cml_status compare_numbers(description *d, const char *key, int64_t a, int64_t b) {
  char x[32], y[32];
  snprintf(x, sizeof x, "%" PRId64, a);
  snprintf(y, sizeof y, "%" PRId64, b);
  return compare_texts(d, key, x, y);
}

static const cml_feature *find_feature(const cml_features *features, const char *name) {
  for (size_t i = 0; i < features->count; i++)
    if (!strcmp(features->items[i].name, name)) return &features->items[i];
  return NULL;
}

/* Both features in words; NULL is a missing one. */
static cml_status compare_feature(description *d, const char *role, const cml_feature *a, const cml_feature *b) {
  cml_buffer x = CML_BUFFER_INIT, y = CML_BUFFER_INIT;
  if (a) cml_feature_text(a, &x);
  if (b) cml_feature_text(b, &y);
  char *key = cml_arena_printf(&d->diff->arena, "%s %s", role, a ? a->name : b->name);
  cml_status status = key ? compare_texts(d, key, (const char *)x.data, (const char *)y.data) : cml_fail_memory(d->err);
  cml_buffer_free(&x);
  cml_buffer_free(&y);
  return status;
}

static cml_status compare_features(description *d, const char *role, const cml_features *a, const cml_features *b) {
  bool reordered = a->count == b->count;
  for (size_t i = 0; i < a->count; i++) {
    const cml_feature *other = find_feature(b, a->items[i].name);
    reordered &= other != NULL;
    CML_TRY(compare_feature(d, role, &a->items[i], other));
  }
  for (size_t i = 0; i < b->count; i++)
    if (!find_feature(a, b->items[i].name)) CML_TRY(compare_feature(d, role, NULL, &b->items[i]));
  for (size_t i = 0; i < a->count && reordered; i++)
    if (strcmp(a->items[i].name, b->items[i].name) != 0) return note(d, '~', role, "in another order");
  return CML_OK;
}

static const char *metadata_value(const cml_model *model, const char *key) {
  for (size_t i = 0; i < model->metadata_count; i++)
    if (!strcmp(model->metadata[i].key, key)) return model->metadata[i].value;
  return NULL;
}

static cml_status compare_metadata(description *d, const cml_model *a, const cml_model *b) {
  for (size_t i = 0; i < a->metadata_count; i++)
    CML_TRY(compare_texts(d, a->metadata[i].key, a->metadata[i].value, metadata_value(b, a->metadata[i].key)));
  for (size_t i = 0; i < b->metadata_count; i++)
    if (!metadata_value(a, b->metadata[i].key)) CML_TRY(compare_texts(d, b->metadata[i].key, NULL, b->metadata[i].value));
  return CML_OK;
}

static const cml_function_description *find_function(const cml_model *model, const char *name) {
  for (size_t i = 0; i < model->function_count; i++)
    if (!strcmp(model->functions[i].name, name)) return &model->functions[i];
  return NULL;
}

/* Functions that only one has are told with the programs. */
static cml_status compare_functions(cml_diff *diff, const char *where, const cml_model *a, const cml_model *b, cml_error *err) {
  for (size_t i = 0; i < a->function_count; i++) {
    const cml_function_description *x = &a->functions[i], *y = find_function(b, x->name);
    if (!y) continue;
    description d = {diff, cml_arena_printf(&diff->arena, "%s%s: ", where, x->name), err};
    if (!d.where) return cml_fail_memory(err);
    CML_TRY(compare_features(&d, "input", &x->inputs, &y->inputs));
    CML_TRY(compare_features(&d, "state", &x->states, &y->states));
    CML_TRY(compare_features(&d, "output", &x->outputs, &y->outputs));
  }
  return CML_OK;
}

cml_status cml_diff_models(cml_diff *diff, const char *where, const cml_model *a, const cml_model *b, cml_error *err) {
  description d = {diff, where, err};
  CML_TRY(compare_texts(&d, "type", cml_model_type_name(a->type_number), cml_model_type_name(b->type_number)));
  CML_TRY(compare_numbers(&d, "specification version", a->specification_version, b->specification_version));
  CML_TRY(compare_texts(&d, "updatable", a->updatable ? "yes" : "no", b->updatable ? "yes" : "no"));
  CML_TRY(compare_features(&d, "input", &a->inputs, &b->inputs));
  CML_TRY(compare_features(&d, "state", &a->states, &b->states));
  CML_TRY(compare_features(&d, "output", &a->outputs, &b->outputs));
  CML_TRY(compare_texts(&d, "predicted feature", a->predicted_feature, b->predicted_feature));
  CML_TRY(compare_texts(&d, "predicted probabilities", a->predicted_probabilities, b->predicted_probabilities));
  CML_TRY(compare_texts(&d, "description", a->short_description, b->short_description));
  CML_TRY(compare_texts(&d, "version", a->version, b->version));
  CML_TRY(compare_texts(&d, "author", a->author, b->author));
  CML_TRY(compare_texts(&d, "license", a->license, b->license));
  CML_TRY(compare_texts(&d, "default function", a->default_function, b->default_function));
  CML_TRY(compare_metadata(&d, a, b));
  CML_TRY(compare_functions(diff, where, a, b, err));
  return a->program && b->program ? cml_diff_programs(diff, where, a->program, b->program, err) : CML_OK;
}

/* ---- printing ---- */

static const char *const section_names[] = {"files", "description", "program", "weights"};

static void print_measure(cml_buffer *out, const cml_diff_entry *e) {
  cml_buffer_printf(out, ": max difference %.6g, SNR ", e->max_difference);
  if (isfinite(e->snr)) cml_buffer_printf(out, "%.1f dB", e->snr);
  else cml_buffer_text(out, e->snr > 0 ? "infinite" : "none");
}

cml_status cml_diff_text(const cml_diff *diff, cml_buffer *out, cml_error *err) {
  for (unsigned section = 0; section < sizeof section_names / sizeof *section_names; section++) {
    bool first = true;
    for (size_t i = 0; i < diff->count; i++) {
      const cml_diff_entry *e = &diff->entries[i];
      if (e->section != section) continue;
      if (first) cml_buffer_printf(out, "%s\n", section_names[section]);
      first = false;
      cml_buffer_printf(out, "  %c %s", e->change, e->where);
      if (*e->what) cml_buffer_printf(out, ": %s", e->what);
      if (e->measured) print_measure(out, e);
      cml_buffer_char(out, '\n');
    }
  }
  return cml_buffer_check(out, err);
}

static void json_number(cml_buffer *out, const char *key, double value) {
  if (isfinite(value)) cml_buffer_printf(out, ", \"%s\": %.9g", key, value);
  else cml_buffer_printf(out, ", \"%s\": null", key);
}

cml_status cml_diff_json(const cml_diff *diff, cml_buffer *out, cml_error *err) {
  cml_buffer_printf(out, "{\"equal\": %s, \"differences\": [", diff->count ? "false" : "true");
  for (size_t i = 0; i < diff->count; i++) {
    const cml_diff_entry *e = &diff->entries[i];
    cml_buffer_printf(out, "%s\n  {\"section\": \"%s\", \"change\": \"%s\", \"where\": ", i ? "," : "", section_names[e->section],
                      e->change == '-' ? "removed" : e->change == '+' ? "added" : "changed");
    cml_buffer_json_string(out, e->where, strlen(e->where));
    cml_buffer_text(out, ", \"what\": ");
    cml_buffer_json_string(out, e->what, strlen(e->what));
    if (e->measured) {
      json_number(out, "maxDifference", e->max_difference);
      json_number(out, "snr", e->snr);
    }
    cml_buffer_char(out, '}');
  }
  cml_buffer_text(out, diff->count ? "\n]}\n" : "]}\n");
  return cml_buffer_check(out, err);
}
