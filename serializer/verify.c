/* Checks go from the outside in: the program's segments, its delegates, each delegate's or package's model, its weight
 * files. A check that cannot run because an outer one failed is left out: one fault gives one finding. */
#include "verify.h"

#include <stdio.h>
#include <stdlib.h>

#include "blob.h"
#include "mil.h"
#include "mlpackage.h"
#include "ptd.h"
#include "pte.h"
#include "view.h"
#include "weights.h"

typedef struct checker {
  const cml_container *container;
  void (*report)(void *context, const cml_finding *finding);
  void *context;
  cml_verify_result result;
} checker;

static const char *const rewrite = "make the file again with the tool that wrote it";

static void find(checker *c, cml_severity severity, const char *path, uint64_t offset, const char *advice, const char *format, ...)
    CML_PRINTF(6, 7);

static void find(checker *c, cml_severity severity, const char *path, uint64_t offset, const char *advice, const char *format, ...) {
  char text[640];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  size_t *count = severity == CML_SEVERITY_ERROR ? &c->result.errors : severity == CML_SEVERITY_WARNING ? &c->result.warnings : &c->result.notes;
  ++*count;
  c->report(c->context, &(cml_finding){severity, path, offset, text, advice});
}

static void find_error(checker *c, const char *path, const cml_error *err, const char *advice) {
  find(c, CML_SEVERITY_ERROR, path, err->offset, advice, "%s", err->text);
}

/* ---- runs of bytes ---- */

typedef struct range {
  uint64_t start, end;
  uint32_t index;
} range;

static int by_start(const void *a, const void *b) {
  const range *x = a, *y = b;
  return x->start != y->start ? (x->start > y->start) - (x->start < y->start) : (x->end > y->end) - (x->end < y->end);
}

static bool is_zero(cml_span bytes) {
  for (size_t i = 0; i < bytes.size; i++)
    if (bytes.data[i]) return false;
  return true;
}

/* Looks at what lies between sorted ranges of a span. */
static void check_ranges(checker *c, const char *what, cml_span all, range *ranges, size_t count, uint64_t base) {
  uint64_t end = base;
  cml_span gap;
  qsort(ranges, count, sizeof *ranges, by_start);
  for (size_t i = 0; i < count; i++) {
    if (ranges[i].start == ranges[i].end) continue;
    if (ranges[i].start < end)
      find(c, CML_SEVERITY_WARNING, "", ranges[i].start, rewrite, "%s %u overlaps what lies before it", what, ranges[i].index);
    else if (cml_span_slice(all, end, ranges[i].start - end, &gap) && !is_zero(gap))
      find(c, CML_SEVERITY_NOTE, "", end, "nothing refers to these bytes; writing the file again drops them",
           "%llu bytes that are not zero lie before %s %u", (unsigned long long)gap.size, what, ranges[i].index);
    if (ranges[i].end > end) end = ranges[i].end;
  }
}

static void check_segments(checker *c, cml_span file, const cml_pte_segment *segments, uint32_t count, uint64_t base) {
  range *ranges = calloc(count + 1, sizeof *ranges);
  if (!ranges) return;
  size_t used = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (!segments[i].data.size) continue;
    uint64_t start = (uint64_t)(segments[i].data.data - file.data);
    ranges[used++] = (range){start, start + segments[i].data.size, i};
    if (start % 16)
      find(c, CML_SEVERITY_NOTE, "", start, "readers that map it in place want 16; write it with a larger segment alignment",
           "segment %u is not aligned to 16 bytes", i);
  }
  check_ranges(c, "segment", file, ranges, used, base);
  free(ranges);
}

/* ---- weight files ---- */

static int by_number(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

typedef struct references {
  uint64_t *offsets;
  size_t count, capacity;
  bool failed;
} references;

static cml_status collect_reference(void *context, const cml_mil_op *op, cml_mil_value *value, cml_error *err) {
  (void)op, (void)err;
  references *r = context;
  if (value->kind != CML_VALUE_BLOB) return CML_OK;
  if (r->count == r->capacity) {
    size_t capacity = r->capacity ? r->capacity * 2 : 256;
    uint64_t *grown = realloc(r->offsets, capacity * sizeof *grown);
    if (!grown) return cml_fail_memory(err);
    r->offsets = grown;
    r->capacity = capacity;
  }
  r->offsets[r->count++] = value->offset;
  return CML_OK;
}

/* program NULL: references are not known. */
static void check_weight_file(checker *c, const char *path, cml_span bytes, const cml_mil_program *program) {
  cml_blobs blobs;
  cml_blob blob;
  cml_error err = {0};
  bool found = true;
  references r = {0};
  size_t unused = 0;
  if (cml_blobs_begin(bytes, &blobs, &err)) {
    find_error(c, path, &err, rewrite);
    return;
  }
  bool known = program && !cml_mil_each_value(program, collect_reference, &r, NULL);
  if (r.count) qsort(r.offsets, r.count, sizeof *r.offsets, by_number);
  while (found) {
    if (cml_blobs_next(&blobs, &blob, &found, &err)) {
      find_error(c, path, &err, "the weights behind it are lost; export the model again");
      break;
    }
    if (found && known && !(r.count && bsearch(&blob.record, r.offsets, r.count, sizeof *r.offsets, by_number))) unused++;
  }
  if (unused)
    find(c, CML_SEVERITY_NOTE, path, CML_NO_OFFSET, "saving the model again drops them", "%zu of %u blobs are used by no operation", unused, blobs.count);
  if (!found && blobs.next < bytes.size)
    find(c, CML_SEVERITY_WARNING, path, blobs.next, "export the model again", "%llu bytes lie behind the last of %u blobs",
         (unsigned long long)(bytes.size - blobs.next), blobs.count);
  free(r.offsets);
}

static void check_weights(checker *c, const cml_node *node, unsigned depth, const cml_mil_program *program) {
  for (size_t i = 0, n = cml_node_count(node); i < n && depth < 64; i++) {
    const cml_node *child = cml_node_child(node, i);
    const char *name = cml_node_name(child);
    size_t size = strlen(name);
    cml_span bytes;
    if (cml_node_kind_of(child) == CML_NODE_FOLDER) check_weights(c, child, depth + 1, program);
    else if (!strcmp(cml_node_name(node), "weights") && size > 4 && !strcmp(name + size - 4, ".bin") && !cml_node_span(child, &bytes, NULL)) {
      cml_buffer path = CML_BUFFER_INIT;
      cml_node_path(child, &path);
      if (path.data) check_weight_file(c, (const char *)path.data, bytes, program);
      cml_buffer_free(&path);
    }
  }
}

/* ---- packages ---- */

static void check_covered(checker *c, const cml_node *node, const cml_manifest *m, const char *path, unsigned depth) {
  for (size_t i = 0, n = cml_node_count(node); i < n && depth < 64; i++) {
    const cml_node *child = cml_node_child(node, i);
    char inner[1024];
    snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "/" : "", cml_node_name(child));
    bool covered = false, inside = false;
    for (size_t k = 0; k < m->count; k++) {
      covered = covered || !strcmp(m->items[k].path, inner);
      inside = inside || (!strncmp(m->items[k].path, inner, strlen(inner)) && m->items[k].path[strlen(inner)] == '/');
    }
    if (covered) continue;
    if (inside) check_covered(c, child, m, inner, depth + 1);
    else
      find(c, CML_SEVERITY_WARNING, inner, CML_NO_OFFSET, "name it in itemInfoEntries or remove it", "Data/%s is no item of Manifest.json", inner);
  }
}

static void check_manifest(checker *c, const cml_node *root) {
  const cml_node *file = cml_node_find_file(root, "Manifest.json");
  cml_arena arena = CML_ARENA_INIT;
  cml_manifest m;
  cml_error err = {0};
  cml_span text;
  if (!file) return;
  if (cml_node_span(file, &text, &err) || cml_manifest_parse(text, &arena, &m, &err)) {
    find_error(c, "Manifest.json", &err, "correct the manifest");
  } else {
    const cml_node *data = cml_node_lookup(root, "Data", 4);
    for (size_t i = 0; i < m.count; i++)
      if (!cml_manifest_node(root, &m.items[i]))
        /* Empty folders get lost on the way; weights that are missed are found when the model is read. */
        find(c, &m.items[i] == m.root_model ? CML_SEVERITY_ERROR : CML_SEVERITY_WARNING, "Manifest.json", CML_NO_OFFSET,
             "restore it or take the item out of the manifest",
             "item %s is missing: there is no Data/%s", m.items[i].identifier, m.items[i].path);
    if (data && m.count < 4096) check_covered(c, data, &m, "", 0);
  }
  cml_arena_free(&arena);
}

/* ---- models ---- */

static bool has_feature(const cml_features *list, const char *name) {
  for (size_t i = 0; i < list->count; i++)
    if (!strcmp(list->items[i].name, name)) return true;
  return false;
}

static void check_names(checker *c, const char *what, const char *const *names, size_t count, const cml_features *features) {
  for (size_t i = 0; i < count; i++)
    if (!has_feature(features, names[i]))
      find(c, CML_SEVERITY_ERROR, "metadata.json", CML_NO_OFFSET, "name the model's own features in metadata.json",
           "%s %zu is called \"%s\", which is no %s of the model", what, i, names[i], what);
  if (count && count != features->count)
    find(c, CML_SEVERITY_WARNING, "metadata.json", CML_NO_OFFSET, "name the model's own features in metadata.json",
         "it names %zu %ss, the model has %zu", count, what, features->count);
}

static void check_metadata(checker *c, const cml_container_model *m, const cml_model *model) {
  const cml_features *inputs = &model->inputs, *outputs = &model->outputs;
  if (!m->input_names && !m->output_names) return;
  for (size_t i = 0; i < model->function_count; i++)
    if (!strcmp(model->functions[i].name, *m->function ? m->function : model->default_function ? model->default_function : "")) {
      inputs = &model->functions[i].inputs;
      outputs = &model->functions[i].outputs;
    }
  check_names(c, "input", m->input_names, m->input_count, inputs);
  check_names(c, "output", m->output_names, m->output_count, outputs);
}

static void check_model(checker *c, const cml_container_model *m) {
  cml_error err = {0};
  cml_model *model = NULL;
  size_t before = c->result.errors;
  check_manifest(c, m->root);
  if (c->result.errors == before && cml_model_read(m->tree, m->root, NULL, &model, &err)) {
    find_error(c, cml_node_name(m->root), &err, "export the model again");
    check_weights(c, m->root, 0, NULL);
    return;
  }
  check_weights(c, m->root, 0, model ? model->program : NULL);
  if (model) check_metadata(c, m, model);
  cml_model_close(model);
}

/* ---- flat blobs ---- */

static void collect_files(const cml_node *node, range **ranges, size_t *count, cml_mapping **mapping) {
  for (size_t i = 0, n = cml_node_count(node); i < n; i++) {
    const cml_node *child = cml_node_child(node, i);
    cml_contents contents = {0};
    if (cml_node_kind_of(child) == CML_NODE_FOLDER) collect_files(child, ranges, count, mapping);
    else if (!cml_node_open(child, &contents, NULL) && contents.count == 1 && contents.pieces[0].mapping) {
      range *grown = (*count & (*count - 1)) ? *ranges : realloc(*ranges, (*count ? *count * 2 : 1) * sizeof **ranges);
      if (grown) {
        *ranges = grown;
        grown[*count] = (range){contents.pieces[0].offset, contents.pieces[0].offset + contents.pieces[0].size, (uint32_t)*count};
        ++*count;
        *mapping = contents.pieces[0].mapping; /* held by the tree */
      }
    }
    cml_contents_close(&contents);
  }
}

static void check_flat(checker *c, const cml_node *root) {
  range *ranges = NULL;
  size_t count = 0;
  cml_mapping *mapping = NULL;
  collect_files(root, &ranges, &count, &mapping);
  if (count) {
    qsort(ranges, count, sizeof *ranges, by_start);
    check_ranges(c, "file", cml_mapping_span(mapping), ranges, count, ranges[0].start);
  }
  free(ranges);
}

/* ---- programs ---- */

static void check_delegate(checker *c, const cml_pte *pte, const cml_pte_method *m, uint32_t index) {
  const cml_pte_delegate *d = &m->delegates[index];
  cml_pte_coreml coreml;
  cml_error err = {0};
  cml_arena arena = CML_ARENA_INIT;
  uint64_t at = d->data.size ? cml_pte_offset(pte, d->data.data) : CML_NO_OFFSET;
  bool found = false;
  if (!d->data.size) find(c, CML_SEVERITY_WARNING, "", CML_NO_OFFSET, rewrite, "method %s: delegate %u (%s) is empty", m->name.data, index, d->id.data);
  if (!cml_pte_is_coreml(d)) goto done;
  if (cml_pte_coreml_decode(pte, d, &arena, &coreml, &err)) {
    find_error(c, "", &err, "export the program again");
    goto done;
  }
  for (size_t i = 0; i < cml_container_model_count(c->container); i++) {
    const cml_container_model *model = cml_container_model_at(c->container, i);
    if (model->delegate == index && !strcmp(model->method, m->name.data)) found = true;
  }
  if (!found)
    find(c, CML_SEVERITY_ERROR, "", at, "export the program again", "method %s: delegate %u is no flat blob that holds a Core ML model", m->name.data, index);
done:
  cml_arena_free(&arena);
}

/* A delegate's arguments are the model's inputs and outputs by position. */
static void check_arguments(checker *c, const cml_pte *pte) {
  for (size_t i = 0; i < cml_container_model_count(c->container); i++) {
    const cml_container_model *model = cml_container_model_at(c->container, i);
    const cml_pte_method *m = cml_pte_find_method(pte, model->method);
    if (!m || !model->input_names || !model->output_names) continue;
    size_t expected = model->input_count + model->output_count;
    for (uint32_t k = 0; k < m->chain_count; k++)
      for (uint32_t n = 0; n < m->chains[k].count; n++) {
        const cml_pte_instruction *in = &m->chains[k].instructions[n];
        if (in->opcode != CML_PTE_DELEGATE_CALL || in->index != model->delegate || in->arg_count == expected) continue;
        find(c, CML_SEVERITY_ERROR, "metadata.json", CML_NO_OFFSET, "export the program again",
             "method %s calls delegate %zu with %u arguments, metadata.json names %zu features", model->method, model->delegate,
             in->arg_count, expected);
      }
  }
}

static void check_program(checker *c, const cml_pte *pte) {
  const cml_pte_header *h = &pte->header;
  if (h->length && h->segment_base && h->segment_base < h->program_size)
    find(c, CML_SEVERITY_ERROR, "", 8, rewrite, "segments start at %llu, inside the program of %llu bytes", (unsigned long long)h->segment_base,
         (unsigned long long)h->program_size);
  uint64_t end = h->length && h->segment_base ? h->segment_base : pte->file.size;
  for (uint32_t i = 0; i < pte->segment_count; i++) {
    const cml_pte_segment *s = &pte->segments[i];
    if (h->length >= 32 && h->segment_size && s->offset + s->data.size > h->segment_size)
      find(c, CML_SEVERITY_ERROR, "", h->segment_base + s->offset, rewrite, "segment %u ends at %llu, past the %llu bytes that the header gives all segments",
           i, (unsigned long long)(s->offset + s->data.size), (unsigned long long)h->segment_size);
  }
  check_segments(c, pte->file, pte->segments, pte->segment_count, end);
  for (uint32_t i = 0; i < pte->method_count; i++)
    for (uint32_t k = 0; k < pte->methods[i].delegate_count; k++) check_delegate(c, pte, &pte->methods[i], k);
  check_arguments(c, pte);
}

/* ---- all of it ---- */

const char *cml_severity_name(cml_severity severity) {
  static const char *const names[] = {"note", "warning", "error"};
  return (size_t)severity < 3 ? names[severity] : "?";
}

/* A blob that several delegates share is looked at once. */
static bool seen_before(const cml_container *container, size_t i) {
  for (size_t k = 0; k < i && k < 256; k++)
    if (cml_container_model_at(container, k)->root == cml_container_model_at(container, i)->root) return true;
  return false;
}

static void check_all(checker *c) {
  const cml_pte *pte = cml_container_pte(c->container);
  const cml_ptd *ptd = cml_container_ptd(c->container);
  cml_container_kind kind = cml_container_kind_of(c->container);
  c->result.kind = cml_container_kind_name(kind);
  if (pte) check_program(c, pte);
  if (ptd && ptd->segment_count) check_segments(c, ptd->file, ptd->segments, ptd->segment_count, (uint64_t)(ptd->segments[0].data.data - ptd->file.data));
  size_t count = cml_container_model_count(c->container);
  for (size_t i = 0; i < count; i++) {
    const cml_container_model *m = cml_container_model_at(c->container, i);
    if (seen_before(c->container, i)) continue;
    if (kind == CML_CONTAINER_FLAT || pte) check_flat(c, cml_tree_root(m->tree));
    check_model(c, m);
  }
  if (!count && !pte && !ptd)
    find(c, CML_SEVERITY_WARNING, "", CML_NO_OFFSET, "name the model's own file or folder", "it holds no single model that could be checked");
}

cml_status cml_verify(const char *path, const cml_container_options *options,
                      void (*report)(void *context, const cml_finding *finding), void *context, cml_verify_result *out,
                      cml_error *err) {
  checker c = {.report = report, .context = context};
  cml_container *container = NULL;
  cml_error problem = {0};
  cml_status status = cml_container_open(path, options, &container, &problem);
  if (status == CML_NO_MEMORY) return cml_fail_memory(err);
  c.container = container;
  if (status) find_error(&c, "", &problem, status == CML_INVALID ? rewrite : "");
  else check_all(&c);
  cml_container_close(container);
  *out = c.result;
  return CML_OK;
}
