/* A method: its memory plan, operators, delegates and chains of instructions around the values. */
#include <inttypes.h>

#include "pte_internal.h"
#include "pte_schema.h"

static void parse_memory(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan) {
  cml_fb *fb = &p->fb;
  cml_fb_vector v = cml_fb_vector_of(fb, plan, PLAN_MEMORY_SIZES, 8);
  m->memory_sizes = TAKE(p, uint64_t, v.count);
  m->memory_count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(fb); i++) {
    m->memory_sizes[i] = cml_load_u64(cml_fb_element(fb, &v, i));
    if (m->memory_sizes[i] > INT64_MAX)
      cml_fb_fail(fb, v.at + 8 * (uint64_t)i, "memory %" PRIu32 " has %" PRId64 " bytes", i, (int64_t)m->memory_sizes[i]);
  }
  cml_fb_vector d = cml_fb_vector_of(fb, plan, PLAN_MEMORY_DEVICES, 4);
  m->devices = TAKE(p, cml_pte_memory_device, d.count);
  m->device_count = d.count;
  for (uint32_t i = 0; i < d.count && !cml_fb_failed(fb); i++) {
    cml_fb_table t = cml_fb_table_at(fb, &d, i);
    m->devices[i] = (cml_pte_memory_device){cml_fb_i32(fb, &t, DEVICE_MEMORY, 0), cml_fb_i8(fb, &t, DEVICE_TYPE, 0),
                                            cml_fb_i8(fb, &t, DEVICE_INDEX, 0)};
    cml_pte_index(p, m->devices[i].memory, m->memory_count, t.at, "a device's memory");
    cml_pte_context(p, "device", i);
  }
}

/* "name.overload" costs memory that the file need not have (names can be shared), so the reader's budget pays for it. */
static void join_name(pte_parser *p, cml_pte_operator *o, uint64_t at) {
  o->full = o->name;
  if (!o->overload.size) return;
  size_t size = o->name.size + 1 + o->overload.size;
  if (!cml_fb_spend(&p->fb, at, size)) return;
  char *full = TAKE(p, char, size + 1);
  if (!full) return;
  memcpy(full, o->name.data, o->name.size);
  full[o->name.size] = '.';
  memcpy(full + o->name.size + 1, o->overload.data, o->overload.size);
  o->full = (cml_string){full, size};
}

static void parse_operators(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, plan, PLAN_OPERATORS, 4);
  m->operators = TAKE(p, cml_pte_operator, v.count);
  m->operator_count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    cml_pte_operator *o = &m->operators[i];
    o->name = cml_fb_string(&p->fb, &t, OPERATOR_NAME);
    o->overload = cml_fb_string(&p->fb, &t, OPERATOR_OVERLOAD);
    if (!o->name.data) cml_fb_fail(&p->fb, t.at, "there is no name");
    else join_name(p, o, t.at);
    cml_pte_context(p, "operator", i);
  }
}

static void parse_processed(pte_parser *p, cml_pte_delegate *d, const cml_fb_table *t) {
  cml_fb_table r = cml_fb_table_of(&p->fb, t, DELEGATE_PROCESSED);
  uint8_t location = cml_fb_u8(&p->fb, &r, REFERENCE_LOCATION, 0);
  uint32_t index = cml_fb_u32(&p->fb, &r, REFERENCE_INDEX, 0);
  if (cml_fb_failed(&p->fb)) return;
  if (!r.at || location > 1) {
    if (r.at) cml_fb_fail(&p->fb, r.at, "the location of the data is %u, expected 0 (inline) or 1 (segment)", location);
    else cml_fb_fail(&p->fb, t->at, "there is no data");
    return;
  }
  d->in_segment = location == 1;
  const cml_pte *pte = p->pte;
  d->index = cml_pte_index(p, index, d->in_segment ? pte->segment_count : pte->inline_count, r.at,
                           d->in_segment ? "a segment" : "inline data");
  if (!cml_fb_failed(&p->fb)) d->data = d->in_segment ? pte->segments[d->index].data : pte->inline_data[d->index];
}

static void parse_delegate(pte_parser *p, cml_pte_delegate *d, const cml_fb_table *t) {
  cml_fb *fb = &p->fb;
  d->id = cml_fb_string(fb, t, DELEGATE_ID);
  if (!d->id.data) cml_fb_fail(fb, t->at, "there is no backend id");
  parse_processed(p, d, t);
  cml_fb_vector v = cml_fb_vector_of(fb, t, DELEGATE_SPECS, 4);
  d->specs = TAKE(p, cml_pte_spec, v.count);
  d->spec_count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(fb); i++) {
    cml_fb_table s = cml_fb_table_at(fb, &v, i);
    d->specs[i] = (cml_pte_spec){cml_fb_string(fb, &s, SPEC_KEY), cml_fb_bytes(fb, &s, SPEC_VALUE)};
    if (!d->specs[i].key.data) cml_fb_fail(fb, s.at, "there is no key");
    cml_pte_context(p, "compile spec", i);
  }
}

static void parse_delegates(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, plan, PLAN_DELEGATES, 4);
  m->delegates = TAKE(p, cml_pte_delegate, v.count);
  m->delegate_count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    parse_delegate(p, &m->delegates[i], &t);
    cml_pte_context(p, "delegate", i);
  }
}

/* ---- chains ---- */

static void parse_call(pte_parser *p, const cml_pte_method *m, cml_pte_instruction *in, const cml_fb_table *t) {
  bool kernel = in->opcode == CML_PTE_KERNEL_CALL;
  in->index = cml_pte_index(p, cml_fb_i32(&p->fb, t, CALL_INDEX, 0), kernel ? m->operator_count : m->delegate_count, t->at,
                            kernel ? "an operator" : "a delegate");
  cml_pte_indices args = cml_pte_read_indices(p, t, CALL_ARGS, m->value_count, "an argument's value");
  in->arg_count = args.count;
  in->args = args.items;
}

static void parse_instruction(pte_parser *p, const cml_pte_method *m, cml_pte_instruction *in, const cml_fb_table *boxed,
                              uint32_t count) {
  uint8_t opcode;
  cml_fb_table t = cml_fb_union(&p->fb, boxed, UNION_TYPE, &opcode);
  in->opcode = opcode;
  if (!t.at) cml_fb_fail(&p->fb, boxed->at, "an instruction of kind %u without content", opcode);
  uint32_t values = m->value_count;
  switch (in->opcode) {
    case CML_PTE_KERNEL_CALL:
    case CML_PTE_DELEGATE_CALL: parse_call(p, m, in, &t); break;
    case CML_PTE_MOVE_CALL:
      in->index = cml_pte_index(p, cml_fb_i32(&p->fb, &t, MOVE_FROM, 0), values, t.at, "a value moved from");
      in->target = cml_pte_index(p, cml_fb_i32(&p->fb, &t, MOVE_TO, 0), values, t.at, "a value moved to");
      break;
    case CML_PTE_JUMP_FALSE_CALL:
      in->index = cml_pte_index(p, cml_fb_i32(&p->fb, &t, JUMP_CONDITION, 0), values, t.at, "a condition's value");
      in->target = cml_pte_index(p, cml_fb_i32(&p->fb, &t, JUMP_TARGET, 0), (uint64_t)count + 1, t.at, "an instruction");
      break;
    case CML_PTE_FREE_CALL:
      in->index = cml_pte_index(p, cml_fb_i32(&p->fb, &t, FREE_VALUE, 0), values, t.at, "a value to free");
      break;
    default: cml_fb_fail_as(&p->fb, CML_UNSUPPORTED, boxed->at, "an instruction of kind %u, the schema knows 1 to 5", opcode);
  }
}

static void parse_frames(pte_parser *p, cml_pte_frames *list, const cml_fb_table *t) {
  cml_fb *fb = &p->fb;
  cml_fb_vector v = cml_fb_vector_of(fb, t, FRAMES_ITEMS, 4);
  list->frames = TAKE(p, cml_pte_frame, v.count);
  list->count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(fb); i++) {
    cml_fb_table f = cml_fb_table_at(fb, &v, i);
    list->frames[i] = (cml_pte_frame){
        .filename = cml_fb_string(fb, &f, FRAME_FILENAME),
        .name = cml_fb_string(fb, &f, FRAME_NAME),
        .context = cml_fb_string(fb, &f, FRAME_CONTEXT),
        .line = cml_fb_i32(fb, &f, FRAME_LINE, 0),
    };
  }
}

static void parse_stacktraces(pte_parser *p, cml_pte_chain *c, const cml_fb_table *t) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, t, CHAIN_STACKTRACE, 4);
  if (v.count && v.count != c->count)
    cml_fb_fail(&p->fb, v.at - 4, "%" PRIu32 " stack traces for %" PRIu32 " instructions", v.count, c->count);
  c->stacktraces = TAKE(p, cml_pte_frames, v.count);
  c->stacktrace_count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table f = cml_fb_table_at(&p->fb, &v, i);
    parse_frames(p, &c->stacktraces[i], &f);
    cml_pte_context(p, "stack trace", i);
  }
}

static void parse_chain(pte_parser *p, const cml_pte_method *m, cml_pte_chain *c, const cml_fb_table *t) {
  c->inputs = cml_pte_read_indices(p, t, CHAIN_INPUTS, m->value_count, "an input's value");
  c->outputs = cml_pte_read_indices(p, t, CHAIN_OUTPUTS, m->value_count, "an output's value");
  cml_fb_vector v = cml_fb_vector_of(&p->fb, t, CHAIN_INSTRUCTIONS, 4);
  c->instructions = TAKE(p, cml_pte_instruction, v.count);
  c->count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table boxed = cml_fb_table_at(&p->fb, &v, i);
    parse_instruction(p, m, &c->instructions[i], &boxed, v.count);
    cml_pte_context(p, "instruction", i);
  }
  parse_stacktraces(p, c, t);
}

static void parse_chains(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, plan, PLAN_CHAINS, 4);
  m->chains = TAKE(p, cml_pte_chain, v.count);
  m->chain_count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    parse_chain(p, m, &m->chains[i], &t);
    cml_pte_context(p, "chain", i);
  }
}

void cml_pte_parse_method(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan) {
  cml_fb *fb = &p->fb;
  m->name = cml_fb_string(fb, plan, PLAN_NAME);
  if (!m->name.data) cml_fb_fail(fb, plan->at, "there is no name");
  cml_fb_table container = cml_fb_table_of(fb, plan, PLAN_CONTAINER);
  m->has_container = container.at != 0;
  m->container_inputs = cml_fb_string(fb, &container, CONTAINER_INPUTS);
  m->container_outputs = cml_fb_string(fb, &container, CONTAINER_OUTPUTS);
  parse_memory(p, m, plan);
  cml_pte_parse_values(p, m, plan);
  m->inputs = cml_pte_read_indices(p, plan, PLAN_INPUTS, m->value_count, "an input's value");
  m->outputs = cml_pte_read_indices(p, plan, PLAN_OUTPUTS, m->value_count, "an output's value");
  parse_operators(p, m, plan);
  parse_delegates(p, m, plan);
  parse_chains(p, m, plan);
}
