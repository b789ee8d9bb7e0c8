/* The FlatBuffer ("ED00", with its size in front) is put together event by event; names follow ExecuTorch's runtime:
 * "OPERATOR_CALL" and "native_call_NAME" for kernels, "DELEGATE_CALL", "Method::execute" around all. Times are in
 * nanoseconds. Schema: devtools/etdump/etdump_schema_flatcc.fbs. */
#include "etdump.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "flatbuffer.h"

enum { EVENT_PROFILE = 0, EVENT_DEBUG = 2 };
enum { PROFILE_NAME, PROFILE_CHAIN, PROFILE_INSTRUCTION, PROFILE_DELEGATE_INT, PROFILE_DELEGATE_TEXT, PROFILE_METADATA, PROFILE_START, PROFILE_END };
enum { DEBUG_CHAIN, DEBUG_INSTRUCTION, DEBUG_ENTRY, DEBUG_DELEGATE_INT, DEBUG_DELEGATE_TEXT, DEBUG_NAME };
enum { VALUE_KIND, VALUE_TENSOR, VALUE_LIST, VALUE_INT, VALUE_FLOAT, VALUE_DOUBLE, VALUE_BOOL };
enum { TENSOR_TYPE, TENSOR_SIZES, TENSOR_STRIDES, TENSOR_OFFSET };
enum { RUN_NAME, RUN_BUNDLED, RUN_ALLOCATORS, RUN_EVENTS };
enum { KIND_INT = 1, KIND_BOOL = 2, KIND_DOUBLE = 4, KIND_TENSOR = 5 };

struct cml_etdump {
  cml_fb_writer writer;
  cml_arena names;
  cml_buffer values;
  bool keep_values, failed;
  cml_fb_ref *events, *runs;
  size_t event_count, event_capacity, run_count, run_capacity;
  uint64_t run_begin;
};

cml_status cml_etdump_create(bool values, cml_etdump **out, cml_error *err) {
  cml_etdump *d = calloc(1, sizeof *d);
  if (!d) return cml_fail_memory(err);
  d->keep_values = values;
  *out = d;
  return CML_OK;
}

void cml_etdump_destroy(cml_etdump *d) {
  if (!d) return;
  cml_fb_writer_free(&d->writer);
  cml_arena_free(&d->names);
  cml_buffer_free(&d->values);
  free(d->events);
  free(d->runs);
  free(d);
}

static void append(cml_etdump *d, cml_fb_ref **list, size_t *count, size_t *capacity, cml_fb_ref ref) {
  if (*count == *capacity) {
    size_t grown = *capacity ? *capacity * 2 : 64;
    cml_fb_ref *p = realloc(*list, grown * sizeof *p);
    if (!p) return (void)(d->failed = true);
    *list = p;
    *capacity = grown;
  }
  (*list)[(*count)++] = ref;
}

static cml_fb_ref put_name(cml_etdump *d, const char *prefix, const char *name) {
  const char *text = cml_arena_printf(&d->names, "%s%s", prefix, name);
  if (!text) return d->failed = true, 0;
  return cml_fb_put_string(&d->writer, (cml_string){text, strlen(text)});
}

static void add_event(cml_etdump *d, unsigned slot, cml_fb_ref body) {
  cml_fb_begin(&d->writer);
  cml_fb_add_ref(&d->writer, slot, body);
  append(d, &d->events, &d->event_count, &d->event_capacity, cml_fb_end(&d->writer));
}

static void add_profile(cml_etdump *d, cml_fb_ref name, const cml_et_event *e, cml_fb_ref delegate, uint64_t begin, uint64_t end) {
  cml_fb_writer *w = &d->writer;
  cml_fb_begin(w);
  cml_fb_add_ref(w, PROFILE_NAME, name);
  if (e) cml_fb_add_u32(w, PROFILE_CHAIN, (uint32_t)e->chain, 0);
  if (e) cml_fb_add_u32(w, PROFILE_INSTRUCTION, (uint32_t)e->instruction, UINT32_MAX);
  cml_fb_add_ref(w, PROFILE_DELEGATE_TEXT, delegate);
  cml_fb_add_u64(w, PROFILE_START, begin, 0);
  cml_fb_add_u64(w, PROFILE_END, end, 0);
  add_event(d, EVENT_PROFILE, cml_fb_end(w));
}

/* ---- values ---- */

static cml_fb_ref put_tensor(cml_etdump *d, const cml_et_tensor *t) {
  cml_fb_writer *w = &d->writer;
  size_t bytes = (size_t)cml_et_numel(t) * cml_et_width(t);
  cml_buffer_zeros(&d->values, -d->values.size % 64);
  uint64_t offset = d->values.size;
  if (bytes) cml_buffer_append(&d->values, t->data, bytes);
  cml_fb_ref sizes = cml_fb_put_vector(w, t->sizes, t->rank, 8, 8), strides = cml_fb_put_vector(w, t->strides, t->rank, 8, 8);
  cml_fb_begin(w);
  cml_fb_add_u8(w, TENSOR_TYPE, (uint8_t)cml_pte_scalar_of(t->dtype), 0);
  cml_fb_add_ref(w, TENSOR_SIZES, sizes);
  cml_fb_add_ref(w, TENSOR_STRIDES, strides);
  cml_fb_add_u64(w, TENSOR_OFFSET, offset, 0);
  return cml_fb_end(w);
}

static cml_fb_ref put_value(cml_etdump *d, const cml_et_value *v) {
  cml_fb_writer *w = &d->writer;
  cml_fb_ref child;
  uint8_t kind;
  unsigned slot;
  if (v->kind == CML_PTE_TENSOR && v->tensor->dtype && (v->tensor->data || !cml_et_numel(v->tensor))) {
    child = put_tensor(d, v->tensor);
    kind = KIND_TENSOR, slot = VALUE_TENSOR;
  } else if (v->kind == CML_PTE_INTEGER || v->kind == CML_PTE_BOOLEAN || v->kind == CML_PTE_REAL) {
    cml_fb_begin(w);
    if (v->kind == CML_PTE_INTEGER) cml_fb_add_u64(w, 0, (uint64_t)v->integer, 0);
    else if (v->kind == CML_PTE_BOOLEAN) cml_fb_add_u8(w, 0, v->boolean, 0);
    else cml_fb_add_f64(w, 0, v->real, 0);
    child = cml_fb_end(w);
    kind = v->kind == CML_PTE_INTEGER ? KIND_INT : v->kind == CML_PTE_BOOLEAN ? KIND_BOOL : KIND_DOUBLE;
    slot = v->kind == CML_PTE_INTEGER ? VALUE_INT : v->kind == CML_PTE_BOOLEAN ? VALUE_BOOL : VALUE_DOUBLE;
  } else {
    return 0;
  }
  cml_fb_begin(w);
  cml_fb_add_u8(w, VALUE_KIND, kind, 0);
  cml_fb_add_ref(w, slot, child);
  return cml_fb_end(w);
}

static void add_debug(cml_etdump *d, cml_fb_ref name, const cml_et_event *e, const cml_et_value *v) {
  cml_fb_writer *w = &d->writer;
  cml_fb_ref entry = put_value(d, v);
  if (!entry) return;
  cml_fb_begin(w);
  cml_fb_add_u64(w, DEBUG_CHAIN, e->chain, 0);
  cml_fb_add_u32(w, DEBUG_INSTRUCTION, (uint32_t)e->instruction, UINT32_MAX);
  cml_fb_add_ref(w, DEBUG_ENTRY, entry);
  cml_fb_add_ref(w, DEBUG_NAME, name);
  add_event(d, EVENT_DEBUG, cml_fb_end(w));
}

static void add_outputs(cml_etdump *d, cml_fb_ref name, const cml_et_event *e) {
  for (size_t i = 0; i < e->arg_count && i < 64; i++) {
    const cml_et_value *v = e->args[i];
    if (!(e->out_mask >> i & 1)) continue;
    if (v->kind != CML_PTE_TENSORS) add_debug(d, name, e, v);
    else
      for (uint32_t k = 0; k < v->count; k++) add_debug(d, name, e, v->items[k]);
  }
}

/* ---- events ---- */

void cml_etdump_observe(void *context, const cml_et_event *e) {
  cml_etdump *d = context;
  if (e->op_type) {
    add_profile(d, put_name(d, "", e->name), e, put_name(d, "", e->name), e->begin_ns, e->end_ns);
  } else if (e->opcode == CML_PTE_KERNEL_CALL) {
    const char *colons = strstr(e->name, "::");
    cml_fb_ref name = put_name(d, "native_call_", colons ? colons + 2 : e->name);
    add_profile(d, name, e, 0, e->begin_ns, e->end_ns);
    add_profile(d, put_name(d, "", "OPERATOR_CALL"), e, 0, e->begin_ns, e->end_ns);
    if (d->keep_values) add_outputs(d, name, e);
  } else if (e->opcode == CML_PTE_DELEGATE_CALL) {
    add_profile(d, put_name(d, "", "DELEGATE_CALL"), e, 0, e->begin_ns, e->end_ns);
  }
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void cml_etdump_begin(cml_etdump *d) {
  d->event_count = 0;
  d->run_begin = now_ns();
}

void cml_etdump_end(cml_etdump *d) {
  cml_fb_writer *w = &d->writer;
  add_profile(d, put_name(d, "", "Method::execute"), NULL, 0, d->run_begin, now_ns());
  char step[48] = "Execute"; /* blocks of one name must have the same values: state makes steps differ */
  if (d->keep_values && d->run_count) snprintf(step, sizeof step, "Execute step %zu", d->run_count);
  cml_fb_ref name = put_name(d, "", step), none = cml_fb_put_refs(w, NULL, 0), events = cml_fb_put_refs(w, d->events, d->event_count);
  cml_fb_begin(w);
  cml_fb_add_ref(w, RUN_NAME, name);
  cml_fb_add_ref(w, RUN_ALLOCATORS, none);
  cml_fb_add_ref(w, RUN_EVENTS, events);
  append(d, &d->runs, &d->run_count, &d->run_capacity, cml_fb_end(w));
}

cml_status cml_etdump_write(cml_etdump *d, cml_sink sink, cml_error *err) {
  cml_fb_writer *w = &d->writer;
  const cml_fb_layout_options options = {.identifier = "ED00", .size_prefix = true};
  cml_fb_ref runs = cml_fb_put_refs(w, d->runs, d->run_count);
  cml_fb_begin(w);
  cml_fb_add_ref(w, 1, runs);
  cml_fb_ref root = cml_fb_end(w);
  if (d->failed) return cml_fail_memory(err);
  CML_TRY(cml_buffer_check(&d->values, err));
  CML_TRY(cml_fb_layout(w, root, &options, err));
  return cml_fb_write(w, NULL, sink, err);
}

cml_span cml_etdump_values(const cml_etdump *d) { return cml_buffer_span(&d->values); }
