/* A parsed program as text, complete but for offsets in the file, so that two models can be compared. */
#ifndef CML_PTE_DUMP_H
#define CML_PTE_DUMP_H

#include <inttypes.h>

#include "buffer.h"
#include "pte.h"

static inline void dump_string(cml_buffer *b, const char *what, cml_string s) {
  cml_buffer_printf(b, " %s=", what);
  if (s.data) cml_buffer_append(b, s.data, s.size);
  else cml_buffer_text(b, "(none)");
}

static inline void dump_bytes(cml_buffer *b, const char *what, cml_span s) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < s.size; i++) hash = (hash ^ s.data[i]) * 1099511628211u;
  cml_buffer_printf(b, " %s=%zu:%016" PRIx64, what, s.size, hash);
}

static inline void dump_items(cml_buffer *b, const char *what, const uint32_t *items, uint32_t count) {
  cml_buffer_printf(b, " %s=", what);
  for (uint32_t i = 0; i < count; i++) cml_buffer_printf(b, "%d,", (int)items[i]);
}

static inline void dump_tensor(cml_buffer *b, const cml_pte_tensor *t) {
  cml_buffer_printf(b, " %s dyn=%u layout=%d grad=%d alloc=%d:%u+%" PRIu64 " data=%u n=%" PRIu64 " bytes=%" PRIu64 " from=%d",
                    cml_pte_scalar_name(t->scalar), t->dynamism, t->layout, t->requires_grad, t->has_allocation, t->memory_id,
                    t->memory_offset, t->data_index, t->elements, t->bytes, t->storage);
  for (unsigned d = 0; d < t->rank; d++)
    cml_buffer_printf(b, " [%d @%u *%" PRId64 "]", t->sizes[d], t->dim_order[d], t->strides[d]);
  dump_bytes(b, "bytes", t->data);
  if (!t->extra) return;
  dump_string(b, "name", t->extra->name);
  cml_buffer_printf(b, " segment=%" PRIu64 " external=%d device=%d:%d", t->extra->mutable_segment, t->extra->external,
                    t->extra->device_type, t->extra->device_index);
}

static inline void dump_value(cml_buffer *b, const cml_pte_value *v) {
  cml_buffer_printf(b, "  %s", cml_pte_kind_name(v->kind));
  switch (v->kind) {
    case CML_PTE_NONE: break;
    case CML_PTE_INTEGER: cml_buffer_printf(b, " %" PRId64, v->integer); break;
    case CML_PTE_BOOLEAN: cml_buffer_printf(b, " %d", v->boolean); break;
    case CML_PTE_REAL: dump_bytes(b, "bits", cml_span_of(&v->real, 8)); break;
    case CML_PTE_TENSOR: dump_tensor(b, v->tensor); break;
    case CML_PTE_STRING: dump_string(b, "text", cml_pte_text(v)); break;
    case CML_PTE_REALS: dump_bytes(b, "bits", cml_span_of(v->reals, 8 * (size_t)v->count)); break;
    case CML_PTE_BOOLEANS: dump_bytes(b, "bits", cml_span_of(v->booleans, v->count)); break;
    default: dump_items(b, "items", v->items, v->count);
  }
  cml_buffer_text(b, "\n");
}

static inline void dump_chain(cml_buffer *b, const cml_pte_chain *c) {
  dump_items(b, " chain inputs", c->inputs.items, c->inputs.count);
  dump_items(b, "outputs", c->outputs.items, c->outputs.count);
  for (uint32_t i = 0; i < c->count; i++) {
    const cml_pte_instruction *in = &c->instructions[i];
    cml_buffer_printf(b, "\n  %s %u %u", cml_pte_opcode_name(in->opcode), in->index, in->target);
    dump_items(b, "args", in->args, in->arg_count);
  }
  for (uint32_t i = 0; i < c->stacktrace_count; i++)
    for (uint32_t f = 0; f < c->stacktraces[i].count; f++) {
      const cml_pte_frame *frame = &c->stacktraces[i].frames[f];
      cml_buffer_printf(b, "\n  frame %u %d", i, frame->line);
      dump_string(b, "file", frame->filename);
      dump_string(b, "name", frame->name);
      dump_string(b, "context", frame->context);
    }
  cml_buffer_text(b, "\n");
}

static inline void dump_method(cml_buffer *b, const cml_pte_method *m) {
  dump_string(b, "method", m->name);
  cml_buffer_printf(b, " container=%d", m->has_container);
  dump_string(b, "in", m->container_inputs);
  dump_string(b, "out", m->container_outputs);
  dump_items(b, "inputs", m->inputs.items, m->inputs.count);
  dump_items(b, "outputs", m->outputs.items, m->outputs.count);
  for (uint32_t i = 0; i < m->memory_count; i++) cml_buffer_printf(b, " memory=%" PRIu64, m->memory_sizes[i]);
  for (uint32_t i = 0; i < m->device_count; i++)
    cml_buffer_printf(b, " device=%d:%d:%d", m->devices[i].memory, m->devices[i].type, m->devices[i].index);
  cml_buffer_text(b, "\n");
  for (uint32_t i = 0; i < m->value_count; i++) dump_value(b, &m->values[i]);
  for (uint32_t i = 0; i < m->operator_count; i++) {
    dump_string(b, "operator", m->operators[i].name);
    dump_string(b, "overload", m->operators[i].overload);
    dump_string(b, "full", m->operators[i].full);
  }
  for (uint32_t i = 0; i < m->delegate_count; i++) {
    const cml_pte_delegate *d = &m->delegates[i];
    dump_string(b, "delegate", d->id);
    cml_buffer_printf(b, " %d:%u", d->in_segment, d->index);
    dump_bytes(b, "data", d->data);
    for (uint32_t s = 0; s < d->spec_count; s++) {
      dump_string(b, "spec", d->specs[s].key);
      dump_bytes(b, "value", d->specs[s].value);
    }
  }
  for (uint32_t i = 0; i < m->chain_count; i++) dump_chain(b, &m->chains[i]);
}

static inline void dump_subsegments(cml_buffer *b, const cml_pte_subsegments *s) {
  cml_buffer_printf(b, "\nsubsegments of %u:", s->segment);
  for (uint32_t i = 0; i < s->count; i++) cml_buffer_printf(b, " %" PRIu64, s->offsets[i]);
}

static inline void dump_pte(cml_buffer *b, const cml_pte *pte) {
  cml_buffer_printf(b, "version %u", pte->version);
  for (uint32_t i = 0; i < pte->segment_count; i++) dump_bytes(b, "segment", pte->segments[i].data);
  for (uint32_t i = 0; i < pte->constant_count; i++) dump_bytes(b, "constant", pte->constants[i]);
  for (uint32_t i = 0; i < pte->inline_count; i++) dump_bytes(b, "inline", pte->inline_data[i]);
  cml_buffer_printf(b, " constant segment=%d", pte->has_constant_segment);
  dump_subsegments(b, &pte->constant_segment);
  for (uint32_t i = 0; i < pte->mutable_count; i++) dump_subsegments(b, &pte->mutable_segments[i]);
  for (uint32_t i = 0; i < pte->named_count; i++) {
    dump_string(b, "\nnamed", pte->named[i].key);
    cml_buffer_printf(b, " %u", pte->named[i].segment);
  }
  cml_buffer_text(b, "\n");
  for (uint32_t i = 0; i < pte->method_count; i++) dump_method(b, &pte->methods[i]);
}

#endif
