/* Writing a program: the model is put into a FlatBuffer bottom-up, mirroring the parser function by function; segments
 * follow it, each from where it lies. Vectors that ExecuTorch's runtime expects are written even when they are empty. */
#include <stdlib.h>

#include "checked.h"
#include "flatbuffer.h"
#include "pte.h"
#include "pte_internal.h"
#include "pte_schema.h"

enum { HEADER_SIZE = 32, DEFAULT_SEGMENT_ALIGNMENT = 128, LEAST_ALIGNMENT = 16, MOST_ALIGNMENT = 1 << 16 };

typedef struct pte_writer {
  cml_fb_writer w;
  cml_arena scratch;
  const cml_pte *pte;
  uint32_t inline_alignment, segment_alignment;
  uint64_t *offsets; /* of the segments */
} pte_writer;

static cml_fb_ref put_string(pte_writer *p, cml_string s) { return s.data ? cml_fb_put_string(&p->w, s) : 0; }

typedef cml_fb_ref put_function(pte_writer *p, const void *item);

/* A vector of what `put` makes of each item of an array. */
static cml_fb_ref put_each(pte_writer *p, const void *items, uint32_t count, size_t item_size, put_function *put) {
  cml_fb_ref *refs = cml_arena_array(&p->scratch, count, sizeof *refs);
  if (!refs) return p->w.status = CML_NO_MEMORY, 0;
  for (uint32_t i = 0; i < count; i++) refs[i] = put(p, (const char *)items + i * item_size);
  return cml_fb_put_refs(&p->w, refs, count);
}

#define PUT_EACH(p, items, count, put) put_each((p), (items), (count), sizeof *(items), (put))

static cml_fb_ref put_indices(pte_writer *p, cml_pte_indices v) { return cml_fb_put_vector(&p->w, v.items, v.count, 4, 4); }

/* ---- values ---- */

static cml_fb_ref put_extra(pte_writer *p, const cml_pte_tensor_extra *e) {
  cml_fb_ref name = put_string(p, e->name);
  cml_fb_begin(&p->w);
  cml_fb_add_u64(&p->w, EXTRA_MUTABLE_SEGMENT, e->mutable_segment, 0);
  cml_fb_add_ref(&p->w, EXTRA_NAME, name);
  cml_fb_add_u8(&p->w, EXTRA_LOCATION, e->external, 0);
  cml_fb_add_u8(&p->w, EXTRA_DEVICE_TYPE, (uint8_t)e->device_type, 0);
  cml_fb_add_u8(&p->w, EXTRA_DEVICE_INDEX, (uint8_t)e->device_index, 0);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_allocation(pte_writer *p, const cml_pte_tensor *t) {
  cml_fb_begin(&p->w);
  cml_fb_add_u32(&p->w, ALLOCATION_MEMORY, t->memory_id, 0);
  cml_fb_add_u32(&p->w, ALLOCATION_LOW, (uint32_t)t->memory_offset, 0);
  cml_fb_add_u32(&p->w, ALLOCATION_HIGH, (uint32_t)(t->memory_offset >> 32), 0);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_tensor(pte_writer *p, const cml_pte_tensor *t) {
  cml_fb_ref sizes = cml_fb_put_vector(&p->w, t->sizes, t->rank, 4, 4);
  cml_fb_ref order = cml_fb_put_vector(&p->w, t->dim_order, t->rank, 1, 1);
  cml_fb_ref allocation = t->has_allocation ? put_allocation(p, t) : 0;
  cml_fb_ref extra = t->extra ? put_extra(p, t->extra) : 0;
  cml_fb_begin(&p->w);
  cml_fb_add_u8(&p->w, TENSOR_SCALAR, t->scalar, 0);
  cml_fb_add_ref(&p->w, TENSOR_SIZES, sizes);
  cml_fb_add_ref(&p->w, TENSOR_DIM_ORDER, order);
  cml_fb_add_u8(&p->w, TENSOR_REQUIRES_GRAD, t->requires_grad, 0);
  cml_fb_add_u32(&p->w, TENSOR_DATA_INDEX, t->data_index, 0);
  cml_fb_add_ref(&p->w, TENSOR_ALLOCATION, allocation);
  cml_fb_add_u8(&p->w, TENSOR_LAYOUT, (uint8_t)t->layout, 0);
  cml_fb_add_u8(&p->w, TENSOR_DYNAMISM, t->dynamism, 0);
  cml_fb_add_ref(&p->w, TENSOR_EXTRA, extra);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_box_ref(pte_writer *p, cml_fb_ref content) {
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, BOX_VALUE, content);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_integers(pte_writer *p, const cml_pte_value *v) {
  int64_t *wide = cml_arena_array(&p->scratch, v->count, sizeof *wide);
  if (!wide) return p->w.status = CML_NO_MEMORY, 0;
  for (uint32_t i = 0; i < v->count; i++) wide[i] = v->items[i];
  return put_box_ref(p, cml_fb_put_vector(&p->w, wide, v->count, 8, 8));
}

static cml_fb_ref put_scalar(pte_writer *p, const cml_pte_value *v) {
  cml_fb_begin(&p->w);
  if (v->kind == CML_PTE_INTEGER) cml_fb_add_u64(&p->w, BOX_VALUE, (uint64_t)v->integer, 0);
  if (v->kind == CML_PTE_BOOLEAN) cml_fb_add_u8(&p->w, BOX_VALUE, v->boolean, 0);
  if (v->kind == CML_PTE_REAL) cml_fb_add_f64(&p->w, BOX_VALUE, v->real, 0);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_content(pte_writer *p, const cml_pte_value *v) {
  switch (v->kind) {
    case CML_PTE_TENSOR: return put_tensor(p, v->tensor);
    case CML_PTE_STRING: return put_box_ref(p, cml_fb_put_string(&p->w, cml_pte_text(v)));
    case CML_PTE_INTEGERS: return put_integers(p, v);
    case CML_PTE_REALS: return put_box_ref(p, cml_fb_put_vector(&p->w, v->reals, v->count, 8, 8));
    case CML_PTE_BOOLEANS: return put_box_ref(p, cml_fb_put_vector(&p->w, v->booleans, v->count, 1, 1));
    case CML_PTE_TENSORS: /* CML_PTE_NO_VALUE is the -1 of the file */
    case CML_PTE_OPTIONAL_TENSORS: return put_box_ref(p, cml_fb_put_vector(&p->w, v->items, v->count, 4, 4));
    default: return put_scalar(p, v);
  }
}

static cml_fb_ref put_union(pte_writer *p, uint8_t type, cml_fb_ref content) {
  cml_fb_begin(&p->w);
  cml_fb_add_union(&p->w, UNION_TYPE, type, content);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_value(pte_writer *p, const void *item) {
  const cml_pte_value *v = item;
  return put_union(p, (uint8_t)v->kind, put_content(p, v));
}

/* ---- chains ---- */

static cml_fb_ref put_instruction(pte_writer *p, const void *item) {
  const cml_pte_instruction *in = item;
  bool call = in->opcode == CML_PTE_KERNEL_CALL || in->opcode == CML_PTE_DELEGATE_CALL;
  cml_fb_ref args = call ? put_indices(p, (cml_pte_indices){in->arg_count, in->args}) : 0;
  cml_fb_begin(&p->w);
  cml_fb_add_u32(&p->w, CALL_INDEX, in->index, 0); /* the first field of every kind */
  if (call) cml_fb_add_ref(&p->w, CALL_ARGS, args);
  else if (in->opcode != CML_PTE_FREE_CALL) cml_fb_add_u32(&p->w, MOVE_TO, in->target, 0);
  return put_union(p, (uint8_t)in->opcode, cml_fb_end(&p->w));
}

static cml_fb_ref put_frame(pte_writer *p, const void *item) {
  const cml_pte_frame *f = item;
  cml_fb_ref filename = put_string(p, f->filename), name = put_string(p, f->name), context = put_string(p, f->context);
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, FRAME_FILENAME, filename);
  cml_fb_add_u32(&p->w, FRAME_LINE, (uint32_t)f->line, 0);
  cml_fb_add_ref(&p->w, FRAME_NAME, name);
  cml_fb_add_ref(&p->w, FRAME_CONTEXT, context);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_frames(pte_writer *p, const void *item) {
  const cml_pte_frames *list = item;
  cml_fb_ref items = PUT_EACH(p, list->frames, list->count, put_frame);
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, FRAMES_ITEMS, items);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_chain(pte_writer *p, const void *item) {
  const cml_pte_chain *c = item;
  cml_fb_ref inputs = put_indices(p, c->inputs), outputs = put_indices(p, c->outputs);
  cml_fb_ref instructions = PUT_EACH(p, c->instructions, c->count, put_instruction);
  cml_fb_ref stacktraces = c->stacktrace_count ? PUT_EACH(p, c->stacktraces, c->stacktrace_count, put_frames) : 0;
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, CHAIN_INPUTS, inputs);
  cml_fb_add_ref(&p->w, CHAIN_OUTPUTS, outputs);
  cml_fb_add_ref(&p->w, CHAIN_INSTRUCTIONS, instructions);
  cml_fb_add_ref(&p->w, CHAIN_STACKTRACE, stacktraces);
  return cml_fb_end(&p->w);
}

/* ---- methods ---- */

static cml_fb_ref put_container(pte_writer *p, const cml_pte_method *m) {
  cml_fb_ref inputs = put_string(p, m->container_inputs), outputs = put_string(p, m->container_outputs);
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, CONTAINER_INPUTS, inputs);
  cml_fb_add_ref(&p->w, CONTAINER_OUTPUTS, outputs);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_operator(pte_writer *p, const void *item) {
  const cml_pte_operator *o = item;
  cml_fb_ref name = put_string(p, o->name), overload = put_string(p, o->overload);
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, OPERATOR_NAME, name);
  cml_fb_add_ref(&p->w, OPERATOR_OVERLOAD, overload);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_spec(pte_writer *p, const void *item) {
  const cml_pte_spec *s = item;
  cml_fb_ref key = put_string(p, s->key), value = s->value.data ? cml_fb_put_bytes(&p->w, s->value, 1) : 0;
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, SPEC_KEY, key);
  cml_fb_add_ref(&p->w, SPEC_VALUE, value);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_delegate(pte_writer *p, const void *item) {
  const cml_pte_delegate *d = item;
  cml_fb_ref id = put_string(p, d->id), specs = PUT_EACH(p, d->specs, d->spec_count, put_spec);
  cml_fb_begin(&p->w);
  cml_fb_add_u8(&p->w, REFERENCE_LOCATION, d->in_segment, 0);
  cml_fb_add_u32(&p->w, REFERENCE_INDEX, d->index, 0);
  cml_fb_ref processed = cml_fb_end(&p->w);
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, DELEGATE_ID, id);
  cml_fb_add_ref(&p->w, DELEGATE_PROCESSED, processed);
  cml_fb_add_ref(&p->w, DELEGATE_SPECS, specs);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_device(pte_writer *p, const void *item) {
  const cml_pte_memory_device *d = item;
  cml_fb_begin(&p->w);
  cml_fb_add_u32(&p->w, DEVICE_MEMORY, (uint32_t)d->memory, 0);
  cml_fb_add_u8(&p->w, DEVICE_TYPE, (uint8_t)d->type, 0);
  cml_fb_add_u8(&p->w, DEVICE_INDEX, (uint8_t)d->index, 0);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_method(pte_writer *p, const void *item) {
  const cml_pte_method *m = item;
  cml_fb_ref name = put_string(p, m->name), container = m->has_container ? put_container(p, m) : 0;
  cml_fb_ref values = PUT_EACH(p, m->values, m->value_count, put_value);
  cml_fb_ref inputs = put_indices(p, m->inputs), outputs = put_indices(p, m->outputs);
  cml_fb_ref chains = PUT_EACH(p, m->chains, m->chain_count, put_chain);
  cml_fb_ref operators = PUT_EACH(p, m->operators, m->operator_count, put_operator);
  cml_fb_ref delegates = PUT_EACH(p, m->delegates, m->delegate_count, put_delegate);
  cml_fb_ref memory = cml_fb_put_vector(&p->w, m->memory_sizes, m->memory_count, 8, 8);
  cml_fb_ref devices = m->device_count ? PUT_EACH(p, m->devices, m->device_count, put_device) : 0;
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, PLAN_NAME, name);
  cml_fb_add_ref(&p->w, PLAN_CONTAINER, container);
  cml_fb_add_ref(&p->w, PLAN_VALUES, values);
  cml_fb_add_ref(&p->w, PLAN_INPUTS, inputs);
  cml_fb_add_ref(&p->w, PLAN_OUTPUTS, outputs);
  cml_fb_add_ref(&p->w, PLAN_CHAINS, chains);
  cml_fb_add_ref(&p->w, PLAN_OPERATORS, operators);
  cml_fb_add_ref(&p->w, PLAN_DELEGATES, delegates);
  cml_fb_add_ref(&p->w, PLAN_MEMORY_SIZES, memory);
  cml_fb_add_ref(&p->w, PLAN_MEMORY_DEVICES, devices);
  return cml_fb_end(&p->w);
}

/* ---- the program ---- */

static cml_fb_ref put_byte_table(pte_writer *p, const void *item) {
  const cml_span *bytes = item;
  cml_fb_ref data = bytes->data ? cml_fb_put_bytes(&p->w, *bytes, p->inline_alignment) : 0;
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, BYTES_DATA, data);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_segment(pte_writer *p, const void *item) {
  const cml_pte_segment *s = item;
  cml_fb_begin(&p->w);
  cml_fb_add_u64(&p->w, SEGMENT_OFFSET, p->offsets[s - p->pte->segments], 0);
  cml_fb_add_u64(&p->w, SEGMENT_SIZE, s->data.size, 0);
  return cml_fb_end(&p->w);
}

bool cml_pte_place_segments(const cml_pte_segment *segments, uint32_t count, uint64_t alignment, uint64_t *offsets,
                            uint64_t *out_end) {
  uint64_t next = 0;
  *out_end = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t size = segments[i].data.size;
    offsets[i] = next; /* of an empty one, whatever it is */
    if (!size) continue;
    if (!cml_align(next, alignment, &offsets[i]) || !cml_add(offsets[i], size, &next)) return false;
    *out_end = next;
  }
  return true;
}

static cml_fb_ref put_segments(pte_writer *p, uint64_t *end) {
  const cml_pte *pte = p->pte;
  p->offsets = cml_arena_array(&p->scratch, pte->segment_count, sizeof *p->offsets);
  if (!p->offsets) return p->w.status = CML_NO_MEMORY, 0;
  if (!cml_pte_place_segments(pte->segments, pte->segment_count, p->segment_alignment, p->offsets, end))
    return p->w.status = CML_LIMIT, 0;
  return PUT_EACH(p, pte->segments, pte->segment_count, put_segment);
}

static cml_fb_ref put_subsegments(pte_writer *p, const void *item) {
  const cml_pte_subsegments *s = item;
  cml_fb_ref offsets = cml_fb_put_vector(&p->w, s->offsets, s->count, 8, 8);
  cml_fb_begin(&p->w);
  cml_fb_add_u32(&p->w, SUBSEGMENT_SEGMENT, s->segment, 0);
  cml_fb_add_ref(&p->w, SUBSEGMENT_OFFSETS, offsets);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_named(pte_writer *p, const void *item) {
  const cml_pte_named *n = item;
  cml_fb_ref key = put_string(p, n->key);
  cml_fb_begin(&p->w);
  cml_fb_add_ref(&p->w, NAMED_KEY, key);
  cml_fb_add_u32(&p->w, NAMED_SEGMENT, n->segment, 0);
  return cml_fb_end(&p->w);
}

static cml_fb_ref put_program(pte_writer *p, uint64_t *segments_end) {
  const cml_pte *pte = p->pte;
  cml_fb_ref methods = PUT_EACH(p, pte->methods, pte->method_count, put_method);
  cml_fb_ref constants = PUT_EACH(p, pte->constants, pte->constant_count, put_byte_table);
  cml_fb_ref inlines = PUT_EACH(p, pte->inline_data, pte->inline_count, put_byte_table);
  cml_fb_ref segments = put_segments(p, segments_end);
  cml_fb_ref constant_segment = pte->has_constant_segment ? put_subsegments(p, &pte->constant_segment) : 0;
  cml_fb_ref mutables = pte->mutable_count ? PUT_EACH(p, pte->mutable_segments, pte->mutable_count, put_subsegments) : 0;
  cml_fb_ref named = pte->named_count ? PUT_EACH(p, pte->named, pte->named_count, put_named) : 0;
  cml_fb_begin(&p->w);
  cml_fb_add_u32(&p->w, PROGRAM_VERSION, pte->version, 0);
  cml_fb_add_ref(&p->w, PROGRAM_PLANS, methods);
  cml_fb_add_ref(&p->w, PROGRAM_CONSTANTS, constants);
  cml_fb_add_ref(&p->w, PROGRAM_INLINE_DATA, inlines);
  cml_fb_add_ref(&p->w, PROGRAM_SEGMENTS, segments);
  cml_fb_add_ref(&p->w, PROGRAM_CONSTANT_SEGMENT, constant_segment);
  cml_fb_add_ref(&p->w, PROGRAM_MUTABLE_SEGMENTS, mutables);
  cml_fb_add_ref(&p->w, PROGRAM_NAMED, named);
  return cml_fb_end(&p->w);
}

/* ---- alignment ---- */

/* The largest power of two that divides all the places where these bytes lie in the parsed file. */
static void common_alignment(const cml_pte *pte, cml_span bytes, uint64_t *all) {
  uint64_t at = bytes.size ? cml_pte_offset(pte, bytes.data) : CML_NO_OFFSET;
  if (at != CML_NO_OFFSET) *all |= at;
}

static uint32_t clamp_alignment(uint64_t all, uint32_t otherwise) {
  if (!all) return otherwise;
  uint64_t lowest = all & -all;
  return lowest < LEAST_ALIGNMENT ? LEAST_ALIGNMENT : lowest > MOST_ALIGNMENT ? MOST_ALIGNMENT : (uint32_t)lowest;
}

static cml_status choose_alignments(pte_writer *p, const cml_pte_write_options *options, cml_error *err) {
  uint64_t segments = 0, inlines = 0;
  for (uint32_t i = 0; i < p->pte->segment_count; i++) common_alignment(p->pte, p->pte->segments[i].data, &segments);
  for (uint32_t i = 0; i < p->pte->inline_count; i++) common_alignment(p->pte, p->pte->inline_data[i], &inlines);
  for (uint32_t i = 0; i < p->pte->constant_count; i++) common_alignment(p->pte, p->pte->constants[i], &inlines);
  p->segment_alignment = options ? options->segment_alignment : 0;
  p->inline_alignment = options ? options->inline_alignment : 0;
  if (!p->segment_alignment) p->segment_alignment = clamp_alignment(segments, DEFAULT_SEGMENT_ALIGNMENT);
  if (!p->inline_alignment) p->inline_alignment = clamp_alignment(inlines, LEAST_ALIGNMENT);
  if (cml_is_power_of_two(p->segment_alignment) && cml_is_power_of_two(p->inline_alignment)) return CML_OK;
  return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "an alignment of %u or %u is no power of two", p->segment_alignment,
                  p->inline_alignment);
}

/* ---- bytes ---- */

cml_status cml_pte_write_segments(const cml_pte_segment *segments, uint32_t count, const uint64_t *offsets, uint64_t base,
                                  uint64_t position, cml_sink sink, cml_error *err) {
  for (uint32_t i = 0; i < count; i++) {
    cml_span data = segments[i].data;
    if (!data.size) continue;
    CML_TRY(cml_sink_zeros(sink, base + offsets[i] - position, err));
    CML_TRY(cml_sink_write(sink, data.data, data.size, err));
    position = base + offsets[i] + data.size;
  }
  return CML_OK;
}

static cml_status write_program(pte_writer *p, cml_sink sink, cml_error *err) {
  uint64_t segments_size = 0, base = 0;
  cml_fb_ref root = put_program(p, &segments_size);
  bool segmented = segments_size > 0;
  CML_TRY(cml_fb_layout(&p->w, root, &(cml_fb_layout_options){"ET12", segmented ? HEADER_SIZE : 0, false}, err));
  if (!cml_align(p->w.size, p->segment_alignment, &base)) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the program is too large");
  uint8_t header[HEADER_SIZE] = "eh00";
  memcpy(header + 4, &(uint32_t){HEADER_SIZE}, 4);
  memcpy(header + 8, &p->w.size, 8);
  memcpy(header + 16, &base, 8);
  memcpy(header + 24, &segments_size, 8);
  CML_TRY(cml_fb_write(&p->w, header, sink, err));
  return segmented ? cml_pte_write_segments(p->pte->segments, p->pte->segment_count, p->offsets, base, p->w.size, sink, err)
                   : CML_OK;
}

cml_status cml_pte_serialize(const cml_pte *pte, const cml_pte_write_options *options, cml_sink sink, cml_error *err) {
  pte_writer p = {.w = CML_FB_WRITER_INIT, .scratch = CML_ARENA_INIT, .pte = pte};
  cml_status status = choose_alignments(&p, options, err);
  if (!status) status = cml_pte_check(pte, err);
  if (!status) status = write_program(&p, sink, err);
  cml_fb_writer_free(&p.w);
  cml_arena_free(&p.scratch);
  return status;
}
