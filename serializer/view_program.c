/* program.json: everything that a program says, without the payloads, streamed in the file's order. Offsets count from the
 * start of the file (of the program, in a bundled one). What is shown under another name than the file's says so: `folder`
 * and `file` are names in the view. */
#include "view.h"

static const cml_pte *pte_of(const cml_view_pte *v) { return v->pte; }

/* ---- values ---- */

static const char *storage_name(cml_pte_storage storage) {
  static const char *const names[] = {"unplanned", "planned", "constant", "mutable", "external", "external_mutable"};
  return (size_t)storage < sizeof names / sizeof *names ? names[storage] : "?";
}

static void put_place(cml_json *j, const cml_pte *pte, cml_span data) {
  uint64_t offset = data.size ? cml_pte_offset(pte, data.data) : CML_NO_OFFSET;
  if (offset != CML_NO_OFFSET) cml_json_put_uint(j, "offset", offset);
  cml_json_put_uint(j, "size", data.size);
}

static void put_sizes(cml_json *j, const cml_pte_tensor *t) {
  cml_json_key(j, "sizes");
  cml_json_open_flat(j, '[');
  for (size_t i = 0; i < t->rank; i++) cml_json_int(j, t->sizes[i]);
  cml_json_close(j, ']');
  bool plain = true;
  for (size_t i = 0; i < t->rank; i++) plain = plain && t->dim_order[i] == i;
  if (plain) return;
  cml_json_key(j, "dim_order");
  cml_json_open_flat(j, '[');
  for (size_t i = 0; i < t->rank; i++) cml_json_uint(j, t->dim_order[i]);
  cml_json_close(j, ']');
}

/* The members of a tensor; the object is open. */
static void put_tensor(cml_json *j, const cml_pte_tensor *t) {
  static const char *const dynamism[] = {"static", "bounded", "unbounded"};
  cml_json_put_text(j, "dtype", cml_pte_scalar_name(t->scalar));
  put_sizes(j, t);
  if (t->dynamism) cml_json_put_text(j, "dynamism", t->dynamism < 3 ? dynamism[t->dynamism] : "?");
  cml_json_put_text(j, "storage", storage_name(t->storage));
  if (t->layout) cml_json_put_int(j, "layout", t->layout);
  if (t->requires_grad) cml_json_put_bool(j, "requires_grad", true);
  if (t->has_allocation) {
    cml_json_put_uint(j, "memory_id", t->memory_id);
    cml_json_put_uint(j, "memory_offset", t->memory_offset);
  }
  if (t->data_index) cml_json_put_uint(j, "data_index", t->data_index);
  if (!t->extra) return;
  if (t->extra->name.data) cml_json_put_string(j, "name", t->extra->name);
  if (t->extra->external) cml_json_put_bool(j, "external", true);
  if (t->extra->mutable_segment) cml_json_put_uint(j, "mutable_segment", t->extra->mutable_segment);
  if (t->extra->device_type) {
    cml_json_put_int(j, "device_type", t->extra->device_type);
    cml_json_put_int(j, "device_index", t->extra->device_index);
  }
}

static void put_list(cml_json *j, const cml_pte_value *v) {
  cml_json_key(j, v->kind == CML_PTE_REALS || v->kind == CML_PTE_BOOLEANS ? "items" : "values");
  cml_json_open_flat(j, '[');
  for (uint32_t i = 0; i < v->count; i++) {
    if (v->kind == CML_PTE_REALS) cml_json_real(j, v->reals[i]);
    else if (v->kind == CML_PTE_BOOLEANS) cml_json_bool(j, v->booleans[i]);
    else if (v->items[i] == CML_PTE_NO_VALUE) cml_json_null(j);
    else cml_json_uint(j, v->items[i]);
  }
  cml_json_close(j, ']');
}

static void put_value(cml_json *j, const cml_pte_value *v) {
  cml_json_put_text(j, "kind", cml_pte_kind_name(v->kind));
  switch (v->kind) {
    case CML_PTE_NONE: break;
    case CML_PTE_INTEGER: cml_json_put_int(j, "value", v->integer); break;
    case CML_PTE_BOOLEAN: cml_json_put_bool(j, "value", v->boolean); break;
    case CML_PTE_REAL: cml_json_key(j, "value"), cml_json_real(j, v->real); break;
    case CML_PTE_STRING: cml_json_put_string(j, "value", cml_pte_text(v)); break;
    case CML_PTE_TENSOR: put_tensor(j, v->tensor); break;
    default: put_list(j, v);
  }
}

/* ---- instructions ---- */

static void put_indices(cml_json *j, const char *key, uint32_t count, const uint32_t *items) {
  cml_json_key(j, key);
  cml_json_open_flat(j, '[');
  for (uint32_t i = 0; i < count; i++) cml_json_uint(j, items[i]);
  cml_json_close(j, ']');
}

static void put_instruction(cml_json *j, const cml_pte_method *m, const cml_pte_instruction *in) {
  cml_json_open_flat(j, '{');
  cml_json_put_text(j, "opcode", cml_pte_opcode_name(in->opcode));
  switch (in->opcode) {
    case CML_PTE_KERNEL_CALL:
      cml_json_put_uint(j, "operator", in->index);
      cml_json_put_string(j, "name", m->operators[in->index].full);
      break;
    case CML_PTE_DELEGATE_CALL:
      cml_json_put_uint(j, "delegate", in->index);
      cml_json_put_string(j, "name", m->delegates[in->index].id);
      break;
    case CML_PTE_MOVE_CALL:
      cml_json_put_uint(j, "from", in->index);
      cml_json_put_uint(j, "to", in->target);
      break;
    case CML_PTE_JUMP_FALSE_CALL:
      cml_json_put_uint(j, "condition", in->index);
      cml_json_put_uint(j, "target", in->target);
      break;
    case CML_PTE_FREE_CALL: cml_json_put_uint(j, "value", in->index); break;
  }
  if (in->opcode == CML_PTE_KERNEL_CALL || in->opcode == CML_PTE_DELEGATE_CALL) put_indices(j, "args", in->arg_count, in->args);
  cml_json_close(j, '}');
}

static void put_stacktraces(cml_json *j, const cml_pte_chain *c) {
  cml_json_key(j, "stacktraces");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < c->stacktrace_count; i++) {
    cml_json_open(j, '[');
    for (uint32_t k = 0; k < c->stacktraces[i].count; k++) {
      const cml_pte_frame *f = &c->stacktraces[i].frames[k];
      cml_json_open_flat(j, '{');
      cml_json_put_string(j, "file", f->filename);
      cml_json_put_int(j, "line", f->line);
      cml_json_put_string(j, "name", f->name);
      cml_json_put_string(j, "context", f->context);
      cml_json_close(j, '}');
    }
    cml_json_close(j, ']');
  }
  cml_json_close(j, ']');
}

static void put_chains(cml_json *j, const cml_pte_method *m) {
  cml_json_key(j, "chains");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < m->chain_count; i++) {
    const cml_pte_chain *c = &m->chains[i];
    cml_json_open(j, '{');
    put_indices(j, "inputs", c->inputs.count, c->inputs.items);
    put_indices(j, "outputs", c->outputs.count, c->outputs.items);
    cml_json_key(j, "instructions");
    cml_json_open(j, '[');
    for (uint32_t k = 0; k < c->count; k++) put_instruction(j, m, &c->instructions[k]);
    cml_json_close(j, ']');
    if (c->stacktrace_count) put_stacktraces(j, c);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

/* ---- delegates ---- */

static void put_specs(cml_json *j, const cml_pte_delegate *d) {
  cml_json_key(j, "compile_specs");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < d->spec_count; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_string(j, "key", d->specs[i].key);
    cml_json_key(j, "value");
    cml_json_bytes(j, d->specs[i].value);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

static void put_delegate(cml_json *j, const cml_view_pte *v, const cml_pte_delegate *d, const cml_view_delegate *shown) {
  cml_json_open(j, '{');
  cml_json_put_string(j, "id", d->id);
  cml_json_put_text(j, shown->tree ? "folder" : "file", shown->name);
  cml_json_put_text(j, "location", d->in_segment ? "segment" : "inline");
  cml_json_put_uint(j, "index", d->index);
  put_place(j, pte_of(v), d->data);
  put_specs(j, d);
  if (shown->is_coreml && shown->coreml.is_reference) {
    cml_json_key(j, "reference");
    cml_json_open_flat(j, '{');
    cml_json_put_int(j, "version", shown->coreml.version);
    cml_json_put_string(j, "key", shown->coreml.key);
    cml_json_put_string(j, "function", shown->coreml.function);
    put_place(j, pte_of(v), shown->coreml.blob);
    cml_json_close(j, '}');
  }
  if (shown->problem) cml_json_put_text(j, "error", shown->problem);
  cml_json_close(j, '}');
}

/* ---- methods ---- */

static void put_arguments(cml_json *j, const char *key, const cml_pte_method *m, cml_pte_indices list) {
  cml_json_key(j, key);
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < list.count; i++) {
    const cml_pte_value *value = &m->values[list.items[i]];
    cml_json_open_flat(j, '{');
    cml_json_put_uint(j, "value", list.items[i]);
    if (value->kind == CML_PTE_TENSOR) cml_json_put_text(j, "kind", "Tensor"), put_tensor(j, value->tensor);
    else cml_json_put_text(j, "kind", cml_pte_kind_name(value->kind)); /* the rest stands in the list of values */
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

static void put_memory(cml_json *j, const cml_pte_method *m) {
  cml_json_key(j, "memory_plan");
  cml_json_open_flat(j, '[');
  for (uint32_t i = 1; i < m->memory_count; i++) cml_json_uint(j, m->memory_sizes[i]);
  cml_json_close(j, ']');
  if (!m->device_count) return;
  cml_json_key(j, "memory_devices");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < m->device_count; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_int(j, "memory_id", m->devices[i].memory);
    cml_json_put_int(j, "type", m->devices[i].type);
    cml_json_put_int(j, "index", m->devices[i].index);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

static void put_method(cml_json *j, const cml_view_pte *v, uint32_t index) {
  const cml_pte_method *m = &pte_of(v)->methods[index];
  cml_json_open(j, '{');
  cml_json_put_string(j, "name", m->name);
  cml_json_put_text(j, "folder", v->methods[index].folder);
  put_arguments(j, "inputs", m, m->inputs);
  put_arguments(j, "outputs", m, m->outputs);
  if (m->has_container) {
    cml_json_put_string(j, "container_inputs", m->container_inputs);
    cml_json_put_string(j, "container_outputs", m->container_outputs);
  }
  put_memory(j, m);
  cml_json_key(j, "delegates");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < m->delegate_count; i++) put_delegate(j, v, &m->delegates[i], &v->methods[index].delegates[i]);
  cml_json_close(j, ']');
  cml_json_key(j, "operators");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < m->operator_count; i++) cml_json_text(j, m->operators[i].full.data, m->operators[i].full.size);
  cml_json_close(j, ']');
  put_chains(j, m);
  cml_json_key(j, "values");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < m->value_count; i++) {
    cml_json_open_flat(j, '{');
    put_value(j, &m->values[i]);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  cml_json_close(j, '}');
}

/* ---- data ---- */

static void put_constants(cml_json *j, const cml_view_pte *v, const char *key, const cml_view_constant *list, uint32_t count) {
  cml_json_key(j, key);
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < count; i++) {
    if (!list[i].tensor) continue;
    cml_json_open_flat(j, '{');
    cml_json_put_uint(j, "index", i);
    cml_json_put_text(j, "file", list[i].file);
    put_place(j, pte_of(v), list[i].tensor->data);
    cml_json_put_text(j, "dtype", cml_pte_scalar_name(list[i].tensor->scalar));
    put_sizes(j, list[i].tensor);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

static void put_segments(cml_json *j, const cml_pte *pte) {
  cml_json_key(j, "segments");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < pte->segment_count; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_uint(j, "segment_offset", pte->segments[i].offset);
    put_place(j, pte, pte->segments[i].data);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  if (pte->has_constant_segment) {
    cml_json_key(j, "constant_segment");
    cml_json_open_flat(j, '{');
    cml_json_put_uint(j, "segment", pte->constant_segment.segment);
    cml_json_put_uint(j, "count", pte->constant_segment.count);
    cml_json_close(j, '}');
  } else {
    cml_json_put_uint(j, "constant_buffer_count", pte->constant_count);
  }
  cml_json_put_uint(j, "inline_delegate_count", pte->inline_count);
}

static void put_named(cml_json *j, const cml_view_pte *v) {
  const cml_pte *pte = pte_of(v);
  cml_json_key(j, "named_data");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < pte->named_count; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_string(j, "key", pte->named[i].key);
    cml_json_put_text(j, "file", v->named[i]);
    cml_json_put_uint(j, "segment", pte->named[i].segment);
    put_place(j, pte, pte->segments[pte->named[i].segment].data);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

static void put_escaped(cml_json *j, const char *where, cml_string name, const char *file) {
  if (cml_pte_string_is(name, file)) return;
  cml_json_open_flat(j, '{');
  cml_json_put_text(j, "kind", where);
  cml_json_put_string(j, "name", name);
  cml_json_put_text(j, "file", file);
  cml_json_close(j, '}');
}

static void put_header(cml_json *j, const cml_view_pte *v) {
  const cml_pte *pte = pte_of(v);
  cml_json_put_text(j, "format", v->bpte ? "bpte" : "pte");
  cml_json_put_uint(j, "version", pte->version);
  cml_json_put_uint(j, "size", pte->file.size);
  cml_json_key(j, "extended_header");
  if (!pte->header.length) {
    cml_json_null(j);
    return;
  }
  cml_json_open_flat(j, '{');
  cml_json_put_uint(j, "length", pte->header.length);
  cml_json_put_uint(j, "program_size", pte->header.program_size);
  cml_json_put_uint(j, "segment_base_offset", pte->header.segment_base);
  if (pte->header.length >= 32) cml_json_put_uint(j, "segment_data_size", pte->header.segment_size);
  cml_json_close(j, '}');
}

static void put_tests(cml_json *j, const cml_view_pte *v) {
  if (!v->bpte) return;
  cml_json_key(j, "bundle");
  cml_json_open(j, '{');
  cml_json_put_uint(j, "version", v->bpte->version);
  cml_json_put_uint(j, "program_offset", v->source.offset);
  cml_json_key(j, "test_suites");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < v->bpte->suite_count; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_string(j, "method", v->bpte->suites[i].method);
    cml_json_put_uint(j, "cases", v->bpte->suites[i].count);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  cml_json_close(j, '}');
}

/* In a FlatBuffer many fields may share one text or table: what they say is limited by what it took to say it. */
static uint64_t size_limit(uint64_t program_size) { return program_size < UINT64_MAX / 64 ? 32 * program_size + (1 << 20) : UINT64_MAX; }

cml_status cml_view_program_json(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  const cml_view_pte *v = context;
  const cml_pte *pte = pte_of(v);
  cml_json json = cml_json_over(out), *j = &json;
  json.limit = size_limit(pte->header.length ? pte->header.program_size : pte->file.size);
  cml_json_open(j, '{');
  put_header(j, v);
  put_tests(j, v);
  cml_json_key(j, "methods");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < pte->method_count; i++) put_method(j, v, i);
  cml_json_close(j, ']');
  put_constants(j, v, "constants", v->constants, v->constant_count);
  put_constants(j, v, "initial_values", v->initials, v->initial_count);
  put_segments(j, pte);
  put_named(j, v);
  cml_json_key(j, "escaped_names");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < pte->method_count; i++) put_escaped(j, "method", pte->methods[i].name, v->methods[i].folder);
  for (uint32_t i = 0; i < pte->named_count; i++) put_escaped(j, "named_data", pte->named[i].key, v->named[i]);
  cml_json_close(j, ']');
  cml_json_close(j, '}');
  if (j->over) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "what the program says takes over %llu bytes as JSON", (unsigned long long)j->limit);
  return cml_buffer_check(out, err);
}

cml_status cml_view_data_json(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  const cml_view_ptd *v = context;
  cml_json json = cml_json_over(out), *j = &json;
  json.limit = size_limit(v->ptd->file.size);
  cml_json_open(j, '{');
  cml_json_put_text(j, "format", "ptd");
  cml_json_put_uint(j, "version", v->ptd->version);
  cml_json_put_uint(j, "size", v->ptd->file.size);
  cml_json_key(j, "entries");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < v->ptd->count; i++) {
    const cml_ptd_entry *e = &v->ptd->entries[i];
    cml_span data = cml_ptd_data(v->ptd, e);
    cml_json_open_flat(j, '{');
    cml_json_put_string(j, "key", e->key);
    cml_json_put_text(j, "file", v->names[i]);
    cml_json_put_uint(j, "segment", e->segment);
    if (data.size) cml_json_put_uint(j, "offset", (uint64_t)(data.data - v->ptd->file.data));
    cml_json_put_uint(j, "size", data.size);
    if (e->tensor) {
      cml_json_put_text(j, "dtype", cml_pte_scalar_name(e->tensor->scalar));
      put_sizes(j, e->tensor);
    }
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  cml_json_close(j, '}');
  if (j->over) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "what the file says takes over %llu bytes as JSON", (unsigned long long)j->limit);
  return cml_buffer_check(out, err);
}
