/* Reading and writing .bpte files, over the parts of the .pte parser that both formats share. */
#include "bpte.h"

#include <inttypes.h>
#include <stdlib.h>

#include "pte_internal.h"

enum { BOX_VALUE };
enum { TENSOR_SCALAR, TENSOR_SIZES, TENSOR_DATA, TENSOR_DIM_ORDER };
enum { VALUE_TYPE, VALUE_CONTENT };
enum { CASE_INPUTS, CASE_OUTPUTS };
enum { SUITE_METHOD, SUITE_CASES };
enum { ROOT_VERSION, ROOT_SUITES, ROOT_PROGRAM };
enum { TYPE_TENSOR = 1, TYPE_INTEGER, TYPE_BOOLEAN, TYPE_REAL };
enum { TENSOR_ALIGNMENT = 16, PROGRAM_ALIGNMENT = 32 };

/* ---- reading ---- */

static cml_pte_tensor *parse_tensor(pte_parser *p, const cml_fb_table *f) {
  cml_pte_tensor *t = TAKE(p, cml_pte_tensor, 1);
  if (!t) return NULL;
  cml_pte_parse_layout(p, t, f, TENSOR_SCALAR, TENSOR_SIZES, TENSOR_DIM_ORDER);
  t->storage = CML_PTE_CONSTANT;
  t->data = cml_fb_bytes(&p->fb, f, TENSOR_DATA);
  if (t->data.size != t->bytes)
    cml_fb_fail(&p->fb, f->at, "a tensor of %" PRIu64 " bytes with %zu bytes of data", t->bytes, t->data.size);
  return t;
}

static void parse_value(pte_parser *p, cml_pte_value *v, const cml_fb_table *boxed) {
  uint8_t type;
  cml_fb_table f = cml_fb_union(&p->fb, boxed, VALUE_TYPE, &type);
  if (!f.at) cml_fb_fail(&p->fb, boxed->at, "a value of kind %u has no content", type);
  switch (type) {
    case TYPE_TENSOR: *v = (cml_pte_value){.kind = CML_PTE_TENSOR, .tensor = parse_tensor(p, &f)}; break;
    case TYPE_INTEGER: *v = (cml_pte_value){.kind = CML_PTE_INTEGER, .integer = cml_fb_i64(&p->fb, &f, BOX_VALUE, 0)}; break;
    case TYPE_BOOLEAN: *v = (cml_pte_value){.kind = CML_PTE_BOOLEAN, .boolean = cml_fb_bool(&p->fb, &f, BOX_VALUE, false)}; break;
    case TYPE_REAL: *v = (cml_pte_value){.kind = CML_PTE_REAL, .real = cml_fb_f64(&p->fb, &f, BOX_VALUE, 0)}; break;
    default: cml_fb_fail_as(&p->fb, CML_UNSUPPORTED, boxed->at, "a value of kind %u, the schema knows 1 to 4", type);
  }
}

static cml_pte_value *parse_values(pte_parser *p, const cml_fb_table *t, unsigned slot, const char *what, uint32_t *out_count) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, t, slot, 4);
  cml_pte_value *values = TAKE(p, cml_pte_value, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table boxed = cml_fb_table_at(&p->fb, &v, i);
    parse_value(p, &values[i], &boxed);
    cml_pte_context(p, what, i);
  }
  *out_count = v.count;
  return values;
}

static void parse_suite(pte_parser *p, cml_bpte_suite *s, const cml_fb_table *t) {
  s->method = cml_fb_string(&p->fb, t, SUITE_METHOD);
  if (!s->method.data) cml_fb_fail(&p->fb, t->at, "there is no method name");
  cml_fb_vector v = cml_fb_vector_of(&p->fb, t, SUITE_CASES, 4);
  s->cases = TAKE(p, cml_bpte_case, v.count);
  s->count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table c = cml_fb_table_at(&p->fb, &v, i);
    s->cases[i].inputs = parse_values(p, &c, CASE_INPUTS, "input", &s->cases[i].input_count);
    s->cases[i].outputs = parse_values(p, &c, CASE_OUTPUTS, "expected output", &s->cases[i].output_count);
    cml_pte_context(p, "test case", i);
  }
}

static void parse_root(pte_parser *p, cml_bpte *bpte) {
  cml_fb_table root = cml_fb_root(&p->fb, "BP08");
  bpte->version = cml_fb_u32(&p->fb, &root, ROOT_VERSION, 0);
  cml_fb_vector v = cml_fb_vector_of(&p->fb, &root, ROOT_SUITES, 4);
  bpte->suites = TAKE(p, cml_bpte_suite, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    parse_suite(p, &bpte->suites[i], &t);
    cml_pte_context(p, "test suite", i);
  }
  bpte->suite_count = v.count;
  bpte->program = cml_fb_bytes(&p->fb, &root, ROOT_PROGRAM);
  if (!cml_fb_failed(&p->fb) && !bpte->program.data) cml_fb_fail(&p->fb, root.at, "there is no program");
}

cml_status cml_bpte_parse(cml_span file, cml_bpte **out, cml_error *err) {
  if (file.size < 8 || memcmp(file.data + 4, "BP08", 4))
    return cml_fail(err, CML_INVALID, 4, "not a bundled ExecuTorch program: the file identifier is not BP08");
  cml_bpte *bpte = calloc(1, sizeof *bpte);
  if (!bpte) return cml_fail_memory(err);
  bpte->file = file;
  pte_parser p = {.arena = &bpte->arena};
  cml_fb_init(&p.fb, file);
  parse_root(&p, bpte);
  cml_status status = cml_fb_check(&p.fb, err);
  if (status) cml_bpte_destroy(bpte);
  else *out = bpte;
  return status;
}

void cml_bpte_destroy(cml_bpte *bpte) {
  if (!bpte) return;
  cml_arena_free(&bpte->arena);
  free(bpte);
}

/* ---- writing ---- */

static cml_fb_ref put_tensor(cml_fb_writer *w, const cml_pte_tensor *t) {
  cml_fb_ref sizes = cml_fb_put_vector(w, t->sizes, t->rank, 4, 4);
  cml_fb_ref order = cml_fb_put_vector(w, t->dim_order, t->rank, 1, 1);
  cml_fb_ref data = cml_fb_put_bytes(w, t->data, TENSOR_ALIGNMENT);
  cml_fb_begin(w);
  cml_fb_add_u8(w, TENSOR_SCALAR, t->scalar, 0);
  cml_fb_add_ref(w, TENSOR_SIZES, sizes);
  cml_fb_add_ref(w, TENSOR_DATA, data);
  cml_fb_add_ref(w, TENSOR_DIM_ORDER, order);
  return cml_fb_end(w);
}

static cml_fb_ref put_content(cml_fb_writer *w, const cml_pte_value *v, uint8_t *type) {
  if (v->kind == CML_PTE_TENSOR) return *type = TYPE_TENSOR, put_tensor(w, v->tensor);
  cml_fb_begin(w);
  switch (v->kind) {
    case CML_PTE_INTEGER: *type = TYPE_INTEGER, cml_fb_add_u64(w, BOX_VALUE, (uint64_t)v->integer, 0); break;
    case CML_PTE_BOOLEAN: *type = TYPE_BOOLEAN, cml_fb_add_u8(w, BOX_VALUE, v->boolean, 0); break;
    case CML_PTE_REAL: *type = TYPE_REAL, cml_fb_add_f64(w, BOX_VALUE, v->real, 0); break;
    default: w->status = CML_ARGUMENT;
  }
  return cml_fb_end(w);
}

/* An array for refs that lives as long as the writer. */
static cml_fb_ref *take_refs(cml_fb_writer *w, uint32_t count) {
  cml_fb_ref *refs = CML_ARENA_NEW_ARRAY(&w->arena, cml_fb_ref, count);
  if (!refs) w->status = CML_NO_MEMORY;
  return refs;
}

static cml_fb_ref put_values(cml_fb_writer *w, const cml_pte_value *values, uint32_t count) {
  cml_fb_ref *refs = take_refs(w, count);
  for (uint32_t i = 0; refs && i < count; i++) {
    uint8_t type = 0;
    cml_fb_ref content = put_content(w, &values[i], &type);
    cml_fb_begin(w);
    cml_fb_add_union(w, VALUE_TYPE, type, content);
    refs[i] = cml_fb_end(w);
  }
  return refs ? cml_fb_put_refs(w, refs, count) : 0;
}

static cml_fb_ref put_suite(cml_fb_writer *w, const cml_bpte_suite *s) {
  cml_fb_ref *refs = take_refs(w, s->count), method = cml_fb_put_string(w, s->method);
  for (uint32_t i = 0; refs && i < s->count; i++) {
    cml_fb_ref inputs = put_values(w, s->cases[i].inputs, s->cases[i].input_count);
    cml_fb_ref outputs = put_values(w, s->cases[i].outputs, s->cases[i].output_count);
    cml_fb_begin(w);
    cml_fb_add_ref(w, CASE_INPUTS, inputs);
    cml_fb_add_ref(w, CASE_OUTPUTS, outputs);
    refs[i] = cml_fb_end(w);
  }
  cml_fb_ref cases = refs ? cml_fb_put_refs(w, refs, s->count) : 0;
  cml_fb_begin(w);
  cml_fb_add_ref(w, SUITE_METHOD, method);
  cml_fb_add_ref(w, SUITE_CASES, cases);
  return cml_fb_end(w);
}

static cml_fb_ref put_root(cml_fb_writer *w, const cml_bpte *bpte) {
  cml_fb_ref *refs = take_refs(w, bpte->suite_count), program = cml_fb_put_bytes(w, bpte->program, PROGRAM_ALIGNMENT);
  for (uint32_t i = 0; refs && i < bpte->suite_count; i++) refs[i] = put_suite(w, &bpte->suites[i]);
  cml_fb_ref suites = refs ? cml_fb_put_refs(w, refs, bpte->suite_count) : 0;
  cml_fb_begin(w);
  cml_fb_add_u32(w, ROOT_VERSION, bpte->version, 0);
  cml_fb_add_ref(w, ROOT_SUITES, suites);
  cml_fb_add_ref(w, ROOT_PROGRAM, program);
  return cml_fb_end(w);
}

cml_status cml_bpte_serialize(const cml_bpte *bpte, cml_sink sink, cml_error *err) {
  cml_fb_writer w = CML_FB_WRITER_INIT;
  cml_fb_ref root = put_root(&w, bpte);
  cml_status status = cml_fb_layout(&w, root, &(cml_fb_layout_options){.identifier = "BP08"}, err);
  if (!status) status = cml_fb_write(&w, NULL, sink, err);
  cml_fb_writer_free(&w);
  return status;
}
