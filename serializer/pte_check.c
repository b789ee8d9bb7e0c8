/* The parser's promises about indices, asked of a model that somebody edited. */
#include <inttypes.h>

#include "pte.h"

static cml_status wrong(cml_error *err, const char *what, uint64_t i) {
  return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "%s %" PRIu64 " refers to what the model does not have", what, i);
}

static bool all_below(const uint32_t *items, uint32_t count, uint32_t limit) {
  for (uint32_t i = 0; i < count; i++)
    if (items[i] >= limit) return false;
  return true;
}

static bool subsegments_hold(const cml_pte *pte, const cml_pte_subsegments *s, uint32_t unused) {
  if (s->count <= unused) return true;
  if (s->segment >= pte->segment_count) return false;
  for (uint32_t i = 0; i < s->count; i++)
    if (s->offsets[i] > pte->segments[s->segment].data.size) return false;
  return true;
}

static bool data_holds(const cml_pte *pte, const cml_pte_tensor *t) {
  if (t->data_index == 0 || (t->extra && t->extra->external)) return true;
  if (!t->has_allocation)
    return t->data_index < (pte->constant_segment.count ? pte->constant_segment.count : pte->constant_count);
  uint64_t k = t->extra ? t->extra->mutable_segment : 0;
  return k < pte->mutable_count && t->data_index < pte->mutable_segments[k].count;
}

static bool tensor_holds(const cml_pte *pte, const cml_pte_method *m, const cml_pte_tensor *t) {
  if (!t || t->rank > CML_PTE_MAX_RANK || !cml_pte_scalar_bytes(t->scalar) || t->dynamism > CML_PTE_UNBOUNDED) return false;
  uint32_t seen = 0;
  for (unsigned d = 0; d < t->rank; d++) {
    if (t->sizes[d] < 0 || t->dim_order[d] >= t->rank) return false;
    seen |= 1u << t->dim_order[d];
  }
  if (seen + 1 != 1u << t->rank) return false;
  if (t->has_allocation && (t->memory_id == 0 || t->memory_id >= m->memory_count)) return false;
  return data_holds(pte, t);
}

static bool items_hold(const cml_pte_method *m, const cml_pte_value *v) {
  for (uint32_t i = 0; i < v->count; i++) {
    uint32_t at = v->items[i];
    if (at == CML_PTE_NO_VALUE && v->kind == CML_PTE_OPTIONAL_TENSORS) continue;
    if (at >= m->value_count) return false;
    cml_pte_kind kind = m->values[at].kind;
    if (v->kind == CML_PTE_INTEGERS ? kind != CML_PTE_INTEGER
                                    : kind != CML_PTE_TENSOR && !(kind == CML_PTE_NONE && v->kind == CML_PTE_OPTIONAL_TENSORS))
      return false;
  }
  return true;
}

static bool value_holds(const cml_pte *pte, const cml_pte_method *m, const cml_pte_value *v) {
  switch (v->kind) {
    case CML_PTE_NONE:
    case CML_PTE_INTEGER:
    case CML_PTE_BOOLEAN:
    case CML_PTE_REAL:
    case CML_PTE_REALS:
    case CML_PTE_BOOLEANS: return true;
    case CML_PTE_TENSOR: return tensor_holds(pte, m, v->tensor);
    case CML_PTE_STRING: return v->text != NULL;
    case CML_PTE_INTEGERS:
    case CML_PTE_TENSORS:
    case CML_PTE_OPTIONAL_TENSORS: return items_hold(m, v);
    default: return false;
  }
}

static bool instruction_holds(const cml_pte_method *m, const cml_pte_chain *c, const cml_pte_instruction *in) {
  switch (in->opcode) {
    case CML_PTE_KERNEL_CALL: return in->index < m->operator_count && all_below(in->args, in->arg_count, m->value_count);
    case CML_PTE_DELEGATE_CALL: return in->index < m->delegate_count && all_below(in->args, in->arg_count, m->value_count);
    case CML_PTE_MOVE_CALL: return in->index < m->value_count && in->target < m->value_count;
    case CML_PTE_JUMP_FALSE_CALL: return in->index < m->value_count && in->target <= c->count;
    case CML_PTE_FREE_CALL: return in->index < m->value_count;
    default: return false;
  }
}

static cml_status check_chain(const cml_pte_method *m, const cml_pte_chain *c, cml_error *err) {
  uint32_t values = m->value_count;
  for (uint32_t i = 0; i < c->count; i++)
    if (!instruction_holds(m, c, &c->instructions[i])) return wrong(err, "instruction", i);
  bool traces = !c->stacktrace_count || c->stacktrace_count == c->count;
  if (!traces || !all_below(c->inputs.items, c->inputs.count, values) || !all_below(c->outputs.items, c->outputs.count, values))
    return wrong(err, "chain", (uint64_t)(c - m->chains));
  return CML_OK;
}

static cml_status check_method(const cml_pte *pte, const cml_pte_method *m, cml_error *err) {
  if (!m->name.data) return wrong(err, "the name of method", (uint64_t)(m - pte->methods));
  for (uint32_t i = 0; i < m->value_count; i++)
    if (!value_holds(pte, m, &m->values[i])) return wrong(err, "value", i);
  for (uint32_t i = 0; i < m->operator_count; i++)
    if (!m->operators[i].name.data) return wrong(err, "the name of operator", i);
  for (uint32_t i = 0; i < m->delegate_count; i++) {
    const cml_pte_delegate *d = &m->delegates[i];
    if (!d->id.data || d->index >= (d->in_segment ? pte->segment_count : pte->inline_count)) return wrong(err, "delegate", i);
    for (uint32_t s = 0; s < d->spec_count; s++)
      if (!d->specs[s].key.data) return wrong(err, "the key of compile spec", s);
  }
  for (uint32_t i = 0; i < m->chain_count; i++) CML_TRY(check_chain(m, &m->chains[i], err));
  if (!all_below(m->inputs.items, m->inputs.count, m->value_count) ||
      !all_below(m->outputs.items, m->outputs.count, m->value_count))
    return wrong(err, "an input or output of method", (uint64_t)(m - pte->methods));
  return CML_OK;
}

cml_status cml_pte_check(const cml_pte *pte, cml_error *err) {
  if (!subsegments_hold(pte, &pte->constant_segment, 1)) return wrong(err, "the constant segment", pte->constant_segment.segment);
  for (uint32_t i = 0; i < pte->mutable_count; i++)
    if (!subsegments_hold(pte, &pte->mutable_segments[i], 0)) return wrong(err, "mutable data", i);
  for (uint32_t i = 0; i < pte->named_count; i++)
    if (!pte->named[i].key.data || pte->named[i].segment >= pte->segment_count) return wrong(err, "named data", i);
  for (uint32_t i = 0; i < pte->method_count; i++) {
    cml_status status = check_method(pte, &pte->methods[i], err);
    if (status) return cml_error_prefix(err, status, "method %" PRIu32, i);
  }
  return CML_OK;
}
