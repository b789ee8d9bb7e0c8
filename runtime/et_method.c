/* Loading a method: arenas, values, a kernel for each operator, a handle for each delegate. What running relies on is
 * checked here once: operators are known, arguments have the kinds that signatures want, constants are there. */
#include <stdio.h>
#include <stdlib.h>

#include "et_internal.h"
#include "machine.h"
#include "runner.h"

/* ---- arenas ---- */

/* Memory of one arena, shared by the methods that were loaded beside each other; it lies behind this. */
typedef struct cml_et_arena {
  _Alignas(64) atomic_size_t owners;
  void *raw; /* as allocated */
  uint64_t size;
} cml_et_arena;

static void drop_arena(cml_et_arena *a) {
  if (a && atomic_fetch_sub(&a->owners, 1) == 1) free(a->raw);
}

static cml_status new_arena(uint64_t size, uint32_t i, cml_et_arena **out, cml_error *err) {
  uint64_t whole;
  char *raw = NULL;
  if (cml_add(size, sizeof **out + 128, &whole) && whole <= PTRDIFF_MAX) raw = calloc(1, (size_t)whole); /* zero pages: touched as they are used */
  if (!raw)
    return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "no memory for arena %u of the memory plan, %llu bytes", i, (unsigned long long)size);
  *out = (cml_et_arena *)(((uintptr_t)raw + 63) & ~(uintptr_t)63);
  **out = (cml_et_arena){.owners = 1, .raw = raw, .size = size};
  return CML_OK;
}

/* What the method beside holds at this place, when both plans mean the same: activations lie in the first arena, and exporters
 * that share buffers put them in one more that is equally large in each method. */
static cml_et_arena *shared_arena(const cml_et_method *m, const cml_et_method *beside, uint32_t i) {
  if (!beside || i < 2 || i >= beside->pte->memory_count || beside->shared[i]->size != m->pte->memory_sizes[i]) return NULL;
  return beside->shared[i];
}

static cml_status make_arenas(cml_et_method *m, const cml_et_method *beside, cml_error *err) {
  uint32_t count = m->pte->memory_count;
  uint64_t limit = m->program->options.memory_limit ? m->program->options.memory_limit : cml_machine_limits().memory;
  m->arenas = CML_ARENA_NEW_ARRAY(&m->arena, char *, count);
  m->shared = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_arena *, count);
  if (!m->arenas || !m->shared) return cml_fail_memory(err);
  for (uint32_t i = 1; i < count; i++) {
    uint64_t size = m->pte->memory_sizes[i];
    if (m->planned > limit || size > limit - m->planned)
      return cml_error_prefix(err, cml_account_refuse(size, m->planned, limit, err), "arena %u of the memory plan", i);
    m->planned += size;
    if ((m->shared[i] = shared_arena(m, beside, i))) atomic_fetch_add(&m->shared[i]->owners, 1);
    else CML_TRY(new_arena(size, i, &m->shared[i], err));
    m->arenas[i] = (char *)(m->shared[i] + 1);
  }
  m->memory.planned = m->planned;
  m->memory.limit = limit > m->planned ? limit - m->planned : 1;
  return CML_OK;
}

/* ---- tensors ---- */

static size_t element_alignment(const cml_pte_tensor *t) {
  unsigned n = cml_pte_scalar_bytes(t->scalar);
  return n > 8 ? 8 : n ? n : 1;
}

static cml_status external_bytes(const cml_et_method *m, const cml_pte_tensor *t, cml_span *out, cml_error *err) {
  cml_string name = t->extra->name;
  const cml_ptd_entry *e = NULL;
  const cml_et_data *d = m->program->data;
  for (; d && !(e = cml_ptd_find(d->ptd, name)); d = d->next) continue;
  if (e) {
    *out = e->tensor && e->tensor->data.data ? e->tensor->data : cml_ptd_data(d->ptd, e);
    if (e->tensor && (e->tensor->scalar != t->scalar || e->tensor->elements != t->elements))
      return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "external tensor '%.*s' has another type or shape in the .ptd", (int)name.size, name.data);
  } else if (!cml_pte_find_named(m->program->pte, name, out)) {
    return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "external tensor '%.*s' is not in the program's named data%s", (int)name.size, name.data,
                    m->program->data ? " nor in a .ptd that was given" : ": a .ptd is needed");
  }
  if (out->size < t->bytes)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "external tensor '%.*s' has %zu bytes where %llu are wanted", (int)name.size, name.data,
                    out->size, (unsigned long long)t->bytes);
  out->size = (size_t)t->bytes;
  return CML_OK;
}

/* In the file where its alignment allows, else a copy. */
static cml_status place_constant(cml_et_method *m, const cml_pte_tensor *t, cml_span bytes, cml_et_tensor *out, cml_error *err) {
  out->constant = true;
  out->data = (void *)(uintptr_t)bytes.data;
  out->capacity = bytes.size;
  if (!bytes.size || (uintptr_t)bytes.data % element_alignment(t) == 0) return CML_OK;
  uint64_t limit = m->memory.limit;
  if (limit && m->arena.total + bytes.size > limit) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "constants take too much memory");
  if (!(out->data = cml_arena_alloc(&m->arena, bytes.size))) return cml_fail_memory(err);
  memcpy(out->data, bytes.data, bytes.size);
  return CML_OK;
}

static cml_status place_planned(cml_et_method *m, const cml_pte_tensor *t, cml_et_tensor *out, cml_error *err) {
  if (t->memory_offset % element_alignment(t))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the memory plan places a tensor of %s at offset %llu, which is not aligned",
                    cml_pte_scalar_name(t->scalar), (unsigned long long)t->memory_offset);
  uint64_t arena = m->pte->memory_sizes[t->memory_id];
  if (t->memory_offset > arena || t->bytes > arena - t->memory_offset)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the memory plan places a tensor outside its arena");
  out->data = m->arenas[t->memory_id] + t->memory_offset;
  out->capacity = t->bytes;
  return CML_OK;
}

static cml_status place_tensor(cml_et_method *m, const cml_pte_tensor *t, cml_et_tensor *out, cml_error *err) {
  cml_span bytes = t->data;
  if (t->storage == CML_PTE_EXTERNAL || t->storage == CML_PTE_EXTERNAL_MUTABLE) CML_TRY(external_bytes(m, t, &bytes, err));
  if (t->storage == CML_PTE_CONSTANT || t->storage == CML_PTE_EXTERNAL) return place_constant(m, t, bytes, out, err);
  if (t->storage == CML_PTE_UNPLANNED || t->dynamism == CML_PTE_UNBOUNDED) {
    out->owned = true;
    return CML_OK;
  }
  CML_TRY(place_planned(m, t, out, err));
  if (bytes.size && (t->storage == CML_PTE_MUTABLE || t->storage == CML_PTE_EXTERNAL_MUTABLE)) memcpy(out->data, bytes.data, (size_t)t->bytes);
  return CML_OK;
}

static cml_status make_tensor(cml_et_method *m, const cml_pte_tensor *t, cml_et_tensor **result, cml_error *err) {
  cml_et_tensor *out = cml_arena_alloc(&m->arena, sizeof *out + t->rank * (2 * sizeof(int64_t) + 1));
  if (!out) return cml_fail_memory(err);
  int64_t *dims = (int64_t *)(out + 1);
  bool complex = t->scalar >= CML_PTE_COMPLEX_HALF && t->scalar <= CML_PTE_COMPLEX_DOUBLE;
  m->has_complex |= complex;
  *out = (cml_et_tensor){.dtype = t->dtype, .complex = (uint8_t)(complex ? cml_pte_scalar_bytes(t->scalar) / 2 : 0), .rank = t->rank, .dynamism = t->dynamism, .sizes = dims, .strides = dims + t->rank,
                         .order = (uint8_t *)(dims + 2 * t->rank)};
  for (int k = 0; k < t->rank; k++) {
    out->sizes[k] = t->dynamism == CML_PTE_UNBOUNDED ? 0 : t->sizes[k];
    out->order[k] = t->dim_order[k];
  }
  cml_et_strides(out);
  *result = out;
  return place_tensor(m, t, out, err);
}

/* ---- values ---- */

static cml_status make_list(cml_et_method *m, const cml_pte_value *from, cml_et_value *to, cml_error *err) {
  to->items = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_value *, from->count);
  if (!to->items) return cml_fail_memory(err);
  for (uint32_t k = 0; k < from->count; k++) to->items[k] = from->items[k] == CML_PTE_NO_VALUE ? &m->none : &m->values[from->items[k]];
  return CML_OK;
}

static cml_status make_value(cml_et_method *m, uint32_t i, cml_error *err) {
  const cml_pte_value *from = &m->pte->values[i];
  cml_et_value *to = &m->values[i];
  to->kind = from->kind;
  to->count = from->count;
  switch (from->kind) {
    case CML_PTE_INTEGER: to->integer = from->integer; break;
    case CML_PTE_BOOLEAN: to->boolean = from->boolean; break;
    case CML_PTE_REAL: to->real = from->real; break;
    case CML_PTE_STRING: to->text = from->text; break;
    case CML_PTE_REALS: to->reals = from->reals; break;
    case CML_PTE_BOOLEANS: to->booleans = from->booleans; break;
    case CML_PTE_INTEGERS: case CML_PTE_TENSORS: case CML_PTE_OPTIONAL_TENSORS: return make_list(m, from, to, err);
    case CML_PTE_TENSOR: {
      cml_status status = make_tensor(m, from->tensor, &to->tensor, err);
      if (to->tensor) m->tensors[m->tensor_count++] = to->tensor;
      return status ? cml_error_prefix(err, status, "value %u", i) : status;
    }
    default: to->kind = CML_PTE_NONE; break;
  }
  return CML_OK;
}

static cml_status make_values(cml_et_method *m, cml_error *err) {
  m->none.kind = CML_PTE_NONE;
  size_t tensors = 0;
  for (uint32_t i = 0; i < m->pte->value_count; i++) tensors += m->pte->values[i].kind == CML_PTE_TENSOR;
  m->values = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_value, m->pte->value_count);
  m->tensors = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_tensor *, tensors);
  m->input_set = CML_ARENA_NEW_ARRAY(&m->arena, uint8_t, m->pte->inputs.count);
  if (!m->values || !m->tensors || !m->input_set) return cml_fail_memory(err);
  for (uint32_t i = 0; i < m->pte->value_count; i++) CML_TRY(make_value(m, i, err));
  return CML_OK;
}

/* ---- operators and backends ---- */

static void name_missing(cml_buffer *b, const char *what, cml_string name) {
  cml_buffer_printf(b, "%s%s '%.*s'", b->size ? ", " : "", what, (int)name.size, name.data);
}

/* Resolves all, or names all that are missing in one error. */
static cml_status resolve(cml_et_method *m, const cml_et_op **ops, cml_error *err) {
  cml_buffer missing = CML_BUFFER_INIT;
  for (uint32_t i = 0; i < m->pte->operator_count; i++) {
    cml_string full = m->pte->operators[i].full;
    if (!(ops[i] = cml_et_op_find(full.data, full.size))) name_missing(&missing, "operator", full);
  }
  for (uint32_t i = 0; i < m->pte->delegate_count && !m->program->options.skip_delegates; i++) {
    cml_string id = m->pte->delegates[i].id;
    bool named = false;
    for (uint32_t k = 0; k < i; k++) named |= m->pte->delegates[k].id.size == id.size && !memcmp(m->pte->delegates[k].id.data, id.data, id.size);
    if (!(m->handles[i].backend = cml_et_backend_find(id)) && !named) name_missing(&missing, "backend", id);
  }
  cml_status status = missing.size ? cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "it needs what there is not: %s", (char *)missing.data) : CML_OK;
  cml_buffer_free(&missing);
  return status;
}

static cml_status init_delegates(cml_et_method *m, cml_error *err) {
  char name[256];
  snprintf(name, sizeof name, "%.*s", (int)m->pte->name.size, m->pte->name.data);
  for (uint32_t i = 0; i < m->pte->delegate_count; i++) {
    cml_et_handle *h = &m->handles[i];
    const cml_et_delegate_info info = {.program = m->program, .method = name, .index = i, .delegate = &m->pte->delegates[i]};
    if (!h->backend || !h->backend->init) continue;
    cml_status status = h->backend->init(h->backend->context, &info, &h->handle, err);
    if (status) h->backend = NULL;
    if (status) return cml_error_prefix(err, status, "delegate %u (%.*s)", i, (int)info.delegate->id.size, info.delegate->id.data);
  }
  return CML_OK;
}

/* ---- instructions ---- */

/* Bits of the arguments that a kernel call writes, by its signature. */
static uint64_t outputs_of(const cml_et_op *op) {
  uint64_t mask = 0;
  unsigned i = 0;
  for (const char *s = op->signature; *s && i < 64; s++) {
    if (*s == '?' || *s == '*') continue;
    if (strchr("oWvwk", *s)) mask |= UINT64_C(1) << i;
    i++;
  }
  return mask;
}

static cml_status make_args(cml_et_method *m, const cml_pte_instruction *from, cml_et_step *to, cml_error *err) {
  to->args = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_value *, from->arg_count);
  to->arg_count = from->arg_count;
  if (!to->args) return cml_fail_memory(err);
  for (uint32_t k = 0; k < from->arg_count; k++) to->args[k] = &m->values[from->args[k]];
  return CML_OK;
}

/* Values that MoveCall may give another kind are checked when they are used, not here. */
static bool has_moved(const cml_et_method *m, const bool *moved, const cml_et_step *s) {
  for (uint32_t k = 0; k < s->arg_count; k++)
    if (moved[s->args[k] - m->values]) return true;
  return false;
}

static bool has_complex(const cml_et_step *s) {
  for (uint32_t i = 0; i < s->arg_count; i++)
    if (s->args[i]->kind == CML_PTE_TENSOR && s->args[i]->tensor->complex) return true;
  return false;
}

static cml_status make_step(cml_et_method *m, const cml_pte_instruction *from, const cml_et_op **ops, const bool *moved, cml_et_step *to,
                            cml_error *err) {
  if (from->opcode == CML_PTE_KERNEL_CALL) {
    cml_string full = m->pte->operators[from->index].full;
    to->op = ops[from->index];
    to->out_mask = outputs_of(to->op);
    if (!(to->name = cml_arena_text(&m->arena, full.data, full.size))) return cml_fail_memory(err);
    CML_TRY(make_args(m, from, to, err));
    const cml_et_op *complex = m->has_complex && has_complex(to) ? cml_et_op_for_complex(to->name) : NULL;
    if (complex) to->op = complex, to->out_mask = outputs_of(complex);
    return has_moved(m, moved, to) ? CML_OK : cml_et_check_args(to->op, to->args, to->arg_count, false, err);
  }
  if (from->opcode != CML_PTE_DELEGATE_CALL) return CML_OK;
  cml_string id = m->pte->delegates[from->index].id;
  if (!(to->name = cml_arena_text(&m->arena, id.data, id.size))) return cml_fail_memory(err);
  return make_args(m, from, to, err);
}

static cml_status make_chains(cml_et_method *m, const cml_et_op **ops, const bool *moved, cml_error *err) {
  uint32_t calls = 0;
  m->steps = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_step *, m->pte->chain_count);
  if (!m->steps) return cml_fail_memory(err);
  for (uint32_t c = 0; c < m->pte->chain_count; c++) {
    const cml_pte_chain *chain = &m->pte->chains[c];
    if (!(m->steps[c] = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_step, chain->count))) return cml_fail_memory(err);
    for (uint32_t i = 0; i < chain->count; i++) {
      if (chain->instructions[i].opcode == CML_PTE_DELEGATE_CALL) m->steps[c][i].ordinal = calls++;
      cml_status status = make_step(m, &chain->instructions[i], ops, moved, &m->steps[c][i], err);
      if (status) return cml_et_at(m, c, i, status, err);
    }
  }
  return CML_OK;
}

/* ---- what delegates write ---- */

/* What nobody has written before a call, the call must write: marks values as known in program order. */
static void mark_list(const cml_et_method *m, const cml_et_value *v, bool *known) {
  known[v - m->values] = true;
  if (v->kind == CML_PTE_TENSORS)
    for (uint32_t k = 0; k < v->count; k++)
      if (v->items[k] >= m->values && v->items[k] < m->values + m->pte->value_count) known[v->items[k] - m->values] = true;
}

static cml_status add_skipped(cml_et_method *m, const cml_et_step *s, uint32_t output, const cml_et_value *v, cml_error *err) {
  cml_et_skipped *grown = realloc(m->skipped, (m->skipped_count + 1) * sizeof *grown);
  if (!grown) return cml_fail_memory(err);
  m->skipped = grown;
  grown[m->skipped_count++] = (cml_et_skipped){.call = s->ordinal, .output = output, .value = (uint32_t)(v - m->values), .tensor = v->tensor};
  return CML_OK;
}

static cml_status mark_call(cml_et_method *m, cml_et_step *s, bool *known, cml_error *err) {
  uint32_t output = 0;
  for (uint32_t k = 0; k < s->arg_count; k++) {
    const cml_et_value *v = s->args[k];
    if (v->kind != CML_PTE_TENSOR || known[v - m->values]) continue;
    known[v - m->values] = true;
    if (k < 64) s->out_mask |= UINT64_C(1) << k;
    if (m->program->options.skip_delegates) CML_TRY(add_skipped(m, s, output++, v, err));
  }
  return CML_OK;
}

/* Sets out_mask of delegate calls, and lists their outputs where they are skipped. */
static cml_status find_outputs(cml_et_method *m, cml_error *err) {
  const cml_pte_method *p = m->pte;
  if (!p->delegate_count) return CML_OK;
  bool *known = calloc(p->value_count + 1, sizeof *known);
  cml_status status = known ? CML_OK : cml_fail_memory(err);
  for (uint32_t i = 0; !status && i < p->value_count; i++)
    known[i] = p->values[i].kind == CML_PTE_TENSOR && p->values[i].tensor->storage != CML_PTE_UNPLANNED && p->values[i].tensor->storage != CML_PTE_PLANNED;
  for (uint32_t i = 0; !status && i < p->inputs.count; i++) known[p->inputs.items[i]] = true;
  for (uint32_t c = 0; !status && c < p->chain_count; c++)
    for (uint32_t i = 0; !status && i < p->chains[c].count; i++) {
      const cml_pte_instruction *in = &p->chains[c].instructions[i];
      cml_et_step *s = &m->steps[c][i];
      if (in->opcode == CML_PTE_MOVE_CALL) known[in->target] = true;
      if (in->opcode == CML_PTE_DELEGATE_CALL) status = mark_call(m, s, known, err);
      for (uint32_t k = 0; s->op && k < s->arg_count && k < 64; k++)
        if (s->out_mask >> k & 1) mark_list(m, s->args[k], known);
    }
  free(known);
  return status;
}

/* ---- loading ---- */

static cml_status choose(cml_et_program *p, const char *name, const cml_pte_method **out, cml_error *err) {
  if (!name) name = "forward";
  *out = cml_pte_find_method(p->pte, name);
  if (!*out && !strcmp(name, "forward") && p->pte->method_count == 1) *out = &p->pte->methods[0];
  if (*out) return CML_OK;
  cml_buffer b = CML_BUFFER_INIT;
  for (uint32_t i = 0; i < p->pte->method_count; i++)
    cml_buffer_printf(&b, "%s'%.*s'", i ? ", " : "", (int)p->pte->methods[i].name.size, p->pte->methods[i].name.data);
  cml_status status = cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the program has no method '%s'; it has %s", name, b.data ? (char *)b.data : "none");
  cml_buffer_free(&b);
  return status;
}

static cml_status build(cml_et_method *m, const cml_et_method *beside, cml_error *err) {
  const cml_et_op **ops = CML_ARENA_NEW_ARRAY(&m->arena, const cml_et_op *, m->pte->operator_count);
  bool *moved = CML_ARENA_NEW_ARRAY(&m->arena, bool, m->pte->value_count);
  m->handles = CML_ARENA_NEW_ARRAY(&m->arena, cml_et_handle, m->pte->delegate_count);
  if (!ops || !moved || !m->handles) return cml_fail_memory(err);
  CML_TRY(resolve(m, ops, err));
  CML_TRY(make_arenas(m, beside, err));
  CML_TRY(make_values(m, err));
  for (uint32_t c = 0; c < m->pte->chain_count; c++)
    for (uint32_t i = 0; i < m->pte->chains[c].count; i++)
      if (m->pte->chains[c].instructions[i].opcode == CML_PTE_MOVE_CALL) moved[m->pte->chains[c].instructions[i].target] = true;
  CML_TRY(make_chains(m, ops, moved, err));
  CML_TRY(find_outputs(m, err));
  m->memory.tables = cml_arena_filled(&m->arena) + cml_arena_filled(&m->program->pte->arena);
  return m->program->options.skip_delegates ? CML_OK : init_delegates(m, err);
}

cml_status cml_et_method_load(cml_et_program *program, const char *name, cml_et_method **out, cml_error *err) {
  return cml_et_method_load_beside(program, name, NULL, out, err);
}

cml_status cml_et_method_load_beside(cml_et_program *program, const char *name, const cml_et_method *beside, cml_et_method **out,
                                     cml_error *err) {
  const cml_pte_method *method;
  CML_TRY(choose(program, name, &method, err));
  cml_et_method *m = calloc(1, sizeof *m);
  if (!m) return cml_fail_memory(err);
  m->program = program;
  m->pte = method;
  for (int i = 0; i < 4; i++) m->random[i] = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(i + 1);
  m->call = (cml_et_call){.pool = program->pool, .random = m->random, .memory = &m->memory};
  cml_status status = build(m, beside, err);
  if (status) {
    if (!err || strncmp(err->text, "method '", 8)) cml_error_prefix(err, status, "method '%.*s'", (int)method->name.size, method->name.data);
    cml_et_method_unload(m);
  } else {
    *out = m;
  }
  return status;
}

void cml_et_method_unload(cml_et_method *m) {
  if (!m) return;
  for (uint32_t i = 0; m->handles && i < m->pte->delegate_count; i++)
    if (m->handles[i].backend && m->handles[i].backend->destroy) m->handles[i].backend->destroy(m->handles[i].handle);
  for (uint32_t i = 0; i < m->tensor_count; i++) cml_et_tensor_free(m->tensors[i]);
  for (uint32_t i = 1; m->shared && i < m->pte->memory_count; i++) drop_arena(m->shared[i]);
  for (size_t i = 0; i < m->skipped_count; i++) free(m->skipped[i].data);
  free(m->skipped);
  free(m->exported);
  cml_et_memory_free(&m->memory);
  cml_arena_free(&m->arena);
  free(m);
}

const cml_pte_method *cml_et_method_of(const cml_et_method *m) { return m->pte; }
bool cml_et_method_ignored(const cml_et_method *m, size_t i, cml_et_ignored *out) {
  for (uint32_t d = 0; d < m->pte->delegate_count; d++) {
    const cml_pte_delegate *delegate = &m->pte->delegates[d];
    for (uint32_t k = 0; m->handles[d].backend == &cml_et_coreml_backend && k < delegate->spec_count; k++) {
      const cml_pte_spec *s = &delegate->specs[k];
      const char *why = cml_pte_coreml_ignores(s);
      if (!why || i--) continue;
      *out = (cml_et_ignored){d, s->key, {s->value.data ? (const char *)s->value.data : "", s->value.size}, why};
      return true;
    }
  }
  return false;
}
size_t cml_et_method_input_count(const cml_et_method *m) { return m->pte->inputs.count; }
size_t cml_et_method_output_count(const cml_et_method *m) { return m->pte->outputs.count; }
const cml_et_value *cml_et_method_input(const cml_et_method *m, size_t i) { return &m->values[m->pte->inputs.items[i]]; }
const cml_et_value *cml_et_method_output(const cml_et_method *m, size_t i) { return &m->values[m->pte->outputs.items[i]]; }

void cml_et_method_memory(const cml_et_method *m, uint64_t *planned, uint64_t *other) {
  *planned = m->planned;
  *other = m->memory.total + m->arena.total;
}
