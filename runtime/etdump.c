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
enum { VALUE_KIND, VALUE_TENSOR, VALUE_LIST, VALUE_INT, VALUE_FLOAT, VALUE_DOUBLE, VALUE_BOOL, VALUE_OUTPUT };
enum { TENSOR_TYPE, TENSOR_SIZES, TENSOR_STRIDES, TENSOR_OFFSET };
enum { RUN_NAME, RUN_BUNDLED, RUN_ALLOCATORS, RUN_EVENTS };
enum { KIND_INT = 1, KIND_BOOL = 2, KIND_DOUBLE = 4, KIND_TENSOR = 5 };

struct cml_etdump {
  cml_fb_writer writer;
  cml_arena names;
  cml_buffer values;
  bool keep_values, failed, ending; /* ending: values are the run's outputs */
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

static cml_fb_ref put_tensor(cml_etdump *d, cml_dtype dtype, size_t rank, const int64_t *sizes, const int64_t *strides, const void *data, size_t bytes) {
  cml_fb_writer *w = &d->writer;
  cml_buffer_zeros(&d->values, -d->values.size % 64);
  uint64_t offset = d->values.size;
  if (bytes) cml_buffer_append(&d->values, data, bytes);
  cml_fb_ref shape = cml_fb_put_vector(w, sizes, rank, 8, 8), steps = cml_fb_put_vector(w, strides, rank, 8, 8);
  cml_fb_begin(w);
  cml_fb_add_u8(w, TENSOR_TYPE, (uint8_t)cml_pte_scalar_of(dtype), 0);
  cml_fb_add_ref(w, TENSOR_SIZES, shape);
  cml_fb_add_ref(w, TENSOR_STRIDES, steps);
  cml_fb_add_u64(w, TENSOR_OFFSET, offset, 0);
  return cml_fb_end(w);
}

static cml_fb_ref put_kind(cml_etdump *d, uint8_t kind, unsigned slot, cml_fb_ref child) {
  cml_fb_ref output = 0;
  if (d->ending) {
    cml_fb_begin(&d->writer);
    cml_fb_add_u8(&d->writer, 0, 1, 0);
    output = cml_fb_end(&d->writer);
  }
  cml_fb_begin(&d->writer);
  cml_fb_add_u8(&d->writer, VALUE_KIND, kind, 0);
  cml_fb_add_ref(&d->writer, slot, child);
  cml_fb_add_ref(&d->writer, VALUE_OUTPUT, output);
  return cml_fb_end(&d->writer);
}

static cml_fb_ref put_value(cml_etdump *d, const cml_et_value *v) {
  cml_fb_writer *w = &d->writer;
  const cml_et_tensor *t = v->tensor;
  if (v->kind == CML_PTE_TENSOR && t->dtype && (t->data || !cml_et_numel(t)))
    return put_kind(d, KIND_TENSOR, VALUE_TENSOR, put_tensor(d, t->dtype, t->rank, t->sizes, t->strides, t->data, (size_t)cml_et_numel(t) * cml_et_width(t)));
  if (v->kind != CML_PTE_INTEGER && v->kind != CML_PTE_BOOLEAN && v->kind != CML_PTE_REAL) return 0;
  cml_fb_begin(w);
  if (v->kind == CML_PTE_INTEGER) cml_fb_add_u64(w, 0, (uint64_t)v->integer, 0);
  else if (v->kind == CML_PTE_BOOLEAN) cml_fb_add_u8(w, 0, v->boolean, 0);
  else cml_fb_add_f64(w, 0, v->real, 0);
  cml_fb_ref child = cml_fb_end(w);
  return v->kind == CML_PTE_INTEGER   ? put_kind(d, KIND_INT, VALUE_INT, child)
         : v->kind == CML_PTE_BOOLEAN ? put_kind(d, KIND_BOOL, VALUE_BOOL, child)
                                      : put_kind(d, KIND_DOUBLE, VALUE_DOUBLE, child);
}

/* e: NULL for what a whole run gave. delegate: the operation's name within a delegate, or 0: values of instructions have no name of their
 * own, so that each of their profiling events keeps its own. */
static void add_debug(cml_etdump *d, const cml_et_event *e, cml_fb_ref delegate, cml_fb_ref entry) {
  cml_fb_writer *w = &d->writer;
  if (!entry) return;
  cml_fb_begin(w);
  if (e) cml_fb_add_u64(w, DEBUG_CHAIN, e->chain, 0);
  if (e) cml_fb_add_u32(w, DEBUG_INSTRUCTION, (uint32_t)e->instruction, UINT32_MAX);
  cml_fb_add_ref(w, DEBUG_ENTRY, entry);
  cml_fb_add_ref(w, DEBUG_DELEGATE_TEXT, delegate);
  cml_fb_add_ref(w, DEBUG_NAME, delegate);
  add_event(d, EVENT_DEBUG, cml_fb_end(w));
}

/* Of an operation within a delegate. */
static void add_inner_outputs(cml_etdump *d, cml_fb_ref name, const cml_et_event *e) {
  for (size_t i = 0; i < e->output_count; i++) {
    const cml_tensor *t = e->outputs[i];
    int64_t strides[CML_MAX_RANK], step = 1;
    uint64_t bytes;
    if (t->list || t->dtype == CML_STRING || cml_dtype_bits(t->dtype) < 8 || !cml_tensor_bytes(t, &bytes) || (bytes && !t->data)) continue;
    for (int32_t k = t->rank - 1; k >= 0; step *= t->dims[k--]) strides[k] = step;
    add_debug(d, e, name, put_kind(d, KIND_TENSOR, VALUE_TENSOR, put_tensor(d, t->dtype, (size_t)t->rank, t->dims, strides, t->data, (size_t)bytes)));
  }
}

static void add_outputs(cml_etdump *d, const cml_et_event *e) {
  for (size_t i = 0; i < e->arg_count && i < 64; i++) {
    const cml_et_value *v = e->args[i];
    if (!(e->out_mask >> i & 1)) continue;
    if (v->kind != CML_PTE_TENSORS) add_debug(d, e, 0, put_value(d, v));
    else
      for (uint32_t k = 0; k < v->count; k++) add_debug(d, e, 0, put_value(d, v->items[k]));
  }
}

/* ---- events ---- */

void cml_etdump_observe(void *context, const cml_et_event *e) {
  cml_etdump *d = context;
  if (e->op_type) {
    cml_fb_ref name = put_name(d, "", e->debug_symbol ? e->debug_symbol : e->name); /* with that the Inspector finds it in an ETRecord */
    add_profile(d, name, e, name, e->begin_ns, e->end_ns);
    if (d->keep_values) add_inner_outputs(d, name, e);
  } else if (e->opcode == CML_PTE_KERNEL_CALL) {
    const char *colons = strstr(e->name, "::");
    cml_fb_ref name = put_name(d, "native_call_", colons ? colons + 2 : e->name);
    add_profile(d, name, e, 0, e->begin_ns, e->end_ns);
    add_profile(d, put_name(d, "", "OPERATOR_CALL"), e, 0, e->begin_ns, e->end_ns);
    if (d->keep_values) add_outputs(d, e);
  } else if (e->opcode == CML_PTE_DELEGATE_CALL) {
    cml_fb_ref name = put_name(d, "", "DELEGATE_CALL");
    add_profile(d, name, e, 0, e->begin_ns, e->end_ns);
    if (d->keep_values) add_outputs(d, e);
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

void cml_etdump_outputs(cml_etdump *d, const cml_et_method *m) {
  d->ending = true;
  for (size_t i = 0; d->keep_values && i < cml_et_method_output_count(m); i++) add_debug(d, NULL, 0, put_value(d, cml_et_method_output(m, i)));
  d->ending = false;
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
