/* Running: inputs in, the chain's instructions one after another, outputs out.
 *
 * Kernel arguments are checked against the operator's signature at every call, for values change kind and memory while a
 * program runs (MoveCall, views, FreeCall); the rest was checked at load. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "et_internal.h"

#define MOST_INSTRUCTIONS UINT64_C(1000000000) /* of one run, unless the options say otherwise: some ten seconds of loops */

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

cml_status cml_et_at(const cml_et_method *m, size_t chain, size_t i, cml_status status, cml_error *err) {
  const cml_et_step *s = &m->steps[chain][i];
  const char *name = s->name ? s->name : cml_pte_opcode_name(m->pte->chains[chain].instructions[i].opcode);
  if (err && s->name && !strncmp(err->text, s->name, strlen(s->name)))
    return cml_error_prefix(err, status, "method '%.*s', instruction %zu", (int)m->pte->name.size, m->pte->name.data, i);
  return cml_error_prefix(err, status, "method '%.*s', instruction %zu (%s)", (int)m->pte->name.size, m->pte->name.data, i, name);
}

/* ---- inputs ---- */

static void print_wanted(const cml_et_method *m, size_t i, char *text, size_t room) {
  const cml_pte_tensor *t = m->pte->values[m->pte->inputs.items[i]].tensor;
  size_t at = (size_t)snprintf(text, room, "%s [", cml_pte_scalar_name(t->scalar));
  for (int k = 0; k < t->rank && at < room; k++) at += (size_t)snprintf(text + at, room - at, "%s%d", k ? ", " : "", t->sizes[k]);
  const char *words = t->dynamism == CML_PTE_BOUNDED ? "] at most" : t->dynamism == CML_PTE_UNBOUNDED ? "], any sizes" : "]";
  const char *parts = m->values[m->pte->inputs.items[i]].tensor->complex ? ", real and imaginary parts in a last dimension of 2" : "";
  if (at < room) snprintf(text + at, room - at, "%s%s", words, parts);
}

static cml_status refuse_input(const cml_et_method *m, size_t i, const cml_tensor *v, cml_error *err) {
  char wanted[200], shape[200];
  const cml_et_tensor given = {.rank = (uint8_t)v->rank, .sizes = (int64_t *)(uintptr_t)v->dims};
  print_wanted(m, i, wanted, sizeof wanted);
  return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "input %zu takes %s; given is %s %s", i, wanted, cml_dtype_name(v->dtype),
                  cml_et_shape_text(&given, shape, sizeof shape));
}

static cml_status fill_complex(cml_et_method *m, cml_et_tensor *t, const cml_tensor *v, cml_error *err) {
  cml_et_local from, to;
  if (v->rank != t->rank + 1 || v->rank > CML_PTE_MAX_RANK || v->dims[t->rank] != 2 || !cml_dtype_is_float(v->dtype)) return CML_MISMATCH;
  CML_TRY(cml_et_resize(&m->call, t, t->rank, v->dims, err));
  cml_et_make(&from, v->dtype, (size_t)v->rank, v->dims, v->data);
  cml_et_as_real(t, &to);
  cml_et_copy(&to.t, &from.t);
  return CML_OK;
}

/* Copies a contiguous tensor into t: types converted, rank 0 and [1] the same. */
static cml_status fill(cml_et_method *m, cml_et_tensor *t, const cml_tensor *v, cml_error *err) {
  if (t->complex) return fill_complex(m, t, v, err);
  cml_et_local from;
  size_t rank = (size_t)v->rank;
  int64_t one = 1;
  const int64_t *sizes = v->dims;
  if (rank != t->rank && rank <= 1 && t->rank <= 1 && cml_tensor_count(v) == 1) rank = t->rank, sizes = &one;
  CML_TRY(cml_et_resize(&m->call, t, rank, sizes, err));
  cml_et_make(&from, v->dtype, rank, sizes, v->data);
  cml_et_copy(t, &from.t);
  return CML_OK;
}

/* Upper bounds hold dim by dim: what a program does with a larger one is not planned for. */
static bool within_bounds(const cml_pte_tensor *t, const cml_tensor *v) {
  if (t->dynamism != CML_PTE_BOUNDED) return true;
  for (int k = 0; k < t->rank && v->rank >= t->rank; k++)
    if (v->dims[k] > t->sizes[k]) return false;
  return true;
}

cml_status cml_et_method_set_tensor(cml_et_method *m, size_t i, const cml_tensor *v, cml_error *err) {
  if (i >= m->pte->inputs.count) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "there is no input %zu", i);
  cml_et_value *value = &m->values[m->pte->inputs.items[i]];
  if (value->kind != CML_PTE_TENSOR)
    return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "input %zu takes %s, not a tensor", i, cml_pte_kind_name(value->kind));
  cml_et_tensor *t = value->tensor;
  if (v->rank < 0 || v->rank > CML_PTE_MAX_RANK || (!t->dtype && !t->complex) || t->constant || v->dtype == CML_STRING || cml_dtype_bits(v->dtype) < 8 ||
      !within_bounds(m->pte->values[m->pte->inputs.items[i]].tensor, v))
    return refuse_input(m, i, v, err);
  m->call.name = "input";
  if (fill(m, t, v, NULL)) return refuse_input(m, i, v, err);
  m->input_set[i] = CML_ET_INPUT_SET;
  return CML_OK;
}

cml_status cml_et_method_set_number(cml_et_method *m, size_t i, cml_et_number n, cml_error *err) {
  if (i >= m->pte->inputs.count) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "there is no input %zu", i);
  cml_et_value *v = &m->values[m->pte->inputs.items[i]];
  switch (v->kind) {
    case CML_PTE_INTEGER: v->integer = n.i; break;
    case CML_PTE_BOOLEAN: v->boolean = n.i != 0; break;
    case CML_PTE_REAL: v->real = n.d; break;
    default: return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "input %zu takes %s, not a number", i, cml_pte_kind_name(v->kind));
  }
  m->input_set[i] = CML_ET_INPUT_SET;
  return CML_OK;
}

/* "'delegate_0/output_1', fp32 [9, 8] at most" */
static void name_skipped(cml_buffer *b, const cml_et_method *m, const cml_et_skipped *k) {
  char shape[200];
  const int32_t *most = m->pte->values[k->value].tensor->sizes;
  int64_t sizes[CML_PTE_MAX_RANK];
  for (int d = 0; d < k->tensor->rank; d++) sizes[d] = most[d];
  const cml_et_tensor declared = {.rank = k->tensor->rank, .sizes = sizes};
  cml_buffer_printf(b, "%s'delegate_%u/output_%u', %s %s%s", b->size ? ", " : "", k->call, k->output, cml_dtype_name(k->tensor->dtype),
                    cml_et_shape_text(&declared, shape, sizeof shape), k->tensor->dynamism == CML_PTE_BOUNDED ? " at most" : "");
}

/* All outputs of skipped calls, or those that were not given. */
static cml_status fail_with_skipped(const cml_et_method *m, bool missing, cml_status status, const char *words, cml_error *err) {
  cml_buffer b = CML_BUFFER_INIT;
  for (size_t i = 0; i < m->skipped_count; i++)
    if (!missing || !m->skipped[i].given) name_skipped(&b, m, &m->skipped[i]);
  status = cml_fail(err, status, CML_NO_OFFSET, "%s %s", words, b.size && !b.failed ? (const char *)b.data : "none");
  cml_buffer_free(&b);
  return status;
}

/* The declared shape, or one within it. */
static bool suits(const cml_et_method *m, const cml_et_skipped *k, const cml_tensor *v) {
  const cml_pte_tensor *t = m->pte->values[k->value].tensor;
  if (v->rank != t->rank || v->dtype == CML_STRING || cml_dtype_bits(v->dtype) < 8) return false;
  for (int d = 0; d < t->rank; d++)
    if (t->dynamism == CML_PTE_STATIC ? v->dims[d] != t->sizes[d] : t->dynamism == CML_PTE_BOUNDED && v->dims[d] > t->sizes[d]) return false;
  return true;
}

static cml_status keep_skipped(cml_et_method *m, cml_et_skipped *k, const cml_tensor *v, cml_error *err) {
  uint64_t bytes;
  void *data;
  if (!suits(m, k, v) || !cml_tensor_bytes(v, &bytes)) {
    char shape[200];
    cml_buffer b = CML_BUFFER_INIT;
    const cml_et_tensor given = {.rank = (uint8_t)(v->rank < CML_PTE_MAX_RANK ? v->rank : CML_PTE_MAX_RANK), .sizes = (int64_t *)(uintptr_t)v->dims};
    name_skipped(&b, m, k);
    cml_status status = cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "wanted is %s; given is %s %s", b.failed ? "another" : (const char *)b.data,
                                 cml_dtype_name(v->dtype), cml_et_shape_text(&given, shape, sizeof shape));
    cml_buffer_free(&b);
    return status;
  }
  if (!(data = malloc(bytes ? bytes : 1))) return cml_fail_memory(err);
  if (bytes) memcpy(data, v->data, bytes);
  free(k->data);
  k->data = data;
  k->type = v->dtype;
  memcpy(k->sizes, v->dims, (size_t)v->rank * sizeof *k->sizes);
  k->given = true;
  return CML_OK;
}

cml_status cml_et_method_set_skipped(cml_et_method *m, const char *name, const cml_tensor *v, cml_error *err) {
  unsigned call, output;
  int end = 0;
  bool named = sscanf(name, "delegate_%u/output_%u%n", &call, &output, &end) == 2 && !name[end];
  for (size_t i = 0; named && i < m->skipped_count; i++)
    if (m->skipped[i].call == call && m->skipped[i].output == output) return keep_skipped(m, &m->skipped[i], v, err);
  if (!m->program->options.skip_delegates)
    return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "there is no '%s': delegates are not skipped", name);
  cml_status status = fail_with_skipped(m, false, CML_NOT_FOUND, "outputs of skipped delegate calls are", err);
  return cml_error_prefix(err, status, "there is no '%s'", name);
}

/* ---- instructions ---- */

static void tell(cml_et_method *m, size_t chain, size_t i, uint64_t begin) {
  const cml_et_step *s = &m->steps[chain][i];
  cml_pte_opcode opcode = m->pte->chains[chain].instructions[i].opcode;
  const cml_et_event event = {.chain = chain, .instruction = i, .opcode = opcode, .name = s->name ? s->name : cml_pte_opcode_name(opcode),
                              .delegate = opcode == CML_PTE_DELEGATE_CALL ? s->name : NULL, .begin_ns = begin, .end_ns = now_ns(),
                              .args = (const cml_et_value *const *)s->args, .arg_count = s->arg_count, .out_mask = s->out_mask};
  m->observe(m->observe_context, &event);
}

/* Complex numbers of 4 and 8 bytes as integers, and back. */
static void disguise(cml_et_value *v, bool on) {
  if (v->kind == CML_PTE_TENSORS || v->kind == CML_PTE_OPTIONAL_TENSORS)
    for (uint32_t k = 0; k < v->count; k++) disguise(v->items[k], on);
  else if (v->kind == CML_PTE_TENSOR && (v->tensor->complex == 2 || v->tensor->complex == 4))
    v->tensor->dtype = !on ? CML_DTYPE_NONE : v->tensor->complex == 2 ? CML_I32 : CML_I64;
}

static cml_status run_disguised(cml_et_method *m, cml_et_step *s, cml_error *err) {
  for (uint32_t i = 0; i < s->arg_count; i++) disguise(s->args[i], true);
  cml_status status = s->op->run(&m->call, err);
  for (uint32_t i = 0; i < s->arg_count; i++) disguise(s->args[i], false);
  return status;
}

static cml_status run_kernel(cml_et_method *m, cml_et_step *s, cml_error *err) {
  CML_TRY(cml_et_check_args(s->op, s->args, s->arg_count, true, err));
  m->call.op = s->op;
  m->call.name = s->name;
  m->call.args = s->args;
  m->call.arg_count = s->arg_count;
  m->call.memo = &s->memo;
  cml_status status = m->has_complex && s->op->moves ? run_disguised(m, s, err) : s->op->run(&m->call, err);
  status = cml_et_memory_explain(&m->memory, status, err);
  cml_et_memory_reset(&m->memory);
  return status;
}

static cml_status run_skipped(cml_et_method *m, cml_et_step *s, cml_error *err) {
  for (size_t i = 0; i < m->skipped_count; i++) {
    cml_et_skipped *k = &m->skipped[i];
    if (k->call != s->ordinal) continue;
    if (!k->given) return fail_with_skipped(m, true, CML_ARGUMENT, "the delegate is skipped; give what skipped ones would compute:", err);
    cml_tensor v = {.dtype = k->type, .rank = k->tensor->rank, .data = k->data};
    memcpy(v.dims, k->sizes, k->tensor->rank * sizeof *k->sizes);
    CML_TRY(fill(m, k->tensor, &v, err));
  }
  return CML_OK;
}

static cml_status run_delegate(cml_et_method *m, size_t chain, size_t i, cml_error *err) {
  cml_et_step *s = &m->steps[chain][i];
  cml_et_handle *h = &m->handles[m->pte->chains[chain].instructions[i].index];
  m->call.op = NULL;
  m->call.name = s->name;
  m->call.args = s->args;
  m->call.arg_count = s->arg_count;
  m->call.memo = &s->memo;
  if (m->program->options.skip_delegates) return run_skipped(m, s, err);
  const cml_et_event now = {.chain = chain, .instruction = i, .opcode = CML_PTE_DELEGATE_CALL, .delegate = s->name};
  m->current = &now;
  if (h->backend == &cml_et_coreml_backend) cml_et_coreml_observe(h->handle, m);
  cml_status status = cml_et_memory_explain(&m->memory, h->backend->execute(h->handle, &m->call, err), err);
  m->current = NULL;
  cml_et_memory_reset(&m->memory);
  return status;
}

/* A bool, or a bool tensor all of whose elements are true. */
static cml_status condition(const cml_et_value *v, bool *out, cml_error *err) {
  if (v->kind == CML_PTE_BOOLEAN) return *out = v->boolean, CML_OK;
  if (v->kind != CML_PTE_TENSOR || v->tensor->dtype != CML_BOOL)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the condition is neither a bool nor a tensor of them");
  int64_t n = cml_et_numel(v->tensor);
  const uint8_t *p = v->tensor->data;
  if (n && !p) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the condition has no data");
  *out = true;
  for (int64_t i = 0; i < n; i++) *out &= p[i] != 0;
  return CML_OK;
}

static void free_value(cml_et_method *m, cml_et_value *v) {
  if (v->kind == CML_PTE_TENSOR) cml_et_memory_drop(&m->memory, v->tensor);
}

static bool names(const cml_pte_instruction *in, uint32_t value) {
  if (in->opcode == CML_PTE_MOVE_CALL) return in->target == value;
  for (uint32_t k = 0; k < in->arg_count; k++)
    if (in->args[k] == value) return true;
  return false;
}

/* Whether the jump back at `at` is taken for ever: nothing from its target on writes the bool that it looks at, and no other jump leads
 * out. (Other loops that do not end meet the limit on instructions.) */
static bool is_endless(const cml_et_method *m, size_t chain, size_t at) {
  const cml_pte_instruction *all = m->pte->chains[chain].instructions, *jump = &all[at];
  if (m->values[jump->index].kind != CML_PTE_BOOLEAN) return false;
  for (size_t i = jump->target; i < at; i++)
    if (names(&all[i], jump->index) || (all[i].opcode == CML_PTE_JUMP_FALSE_CALL && (all[i].target > at || all[i].target < jump->target))) return false;
  return true;
}

static cml_status run_step(cml_et_method *m, size_t chain, size_t *at, cml_error *err) {
  const cml_pte_instruction *in = &m->pte->chains[chain].instructions[*at];
  bool yes = true;
  switch (in->opcode) {
    case CML_PTE_KERNEL_CALL: CML_TRY(run_kernel(m, &m->steps[chain][*at], err)); break;
    case CML_PTE_DELEGATE_CALL: CML_TRY(run_delegate(m, chain, *at, err)); break;
    case CML_PTE_MOVE_CALL: m->values[in->target] = m->values[in->index]; break;
    case CML_PTE_FREE_CALL: free_value(m, &m->values[in->index]); break;
    case CML_PTE_JUMP_FALSE_CALL:
      CML_TRY(condition(&m->values[in->index], &yes, err));
      if (!yes) {
        if (in->target <= *at && is_endless(m, chain, *at))
          return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "it jumps back to instruction %u for ever", in->target);
        *at = in->target;
        return CML_OK;
      }
      break;
  }
  ++*at;
  return CML_OK;
}

void cml_et_method_cancel(cml_et_method *m) { atomic_store_explicit(&m->cancelled, true, memory_order_relaxed); }

static cml_status go_on(cml_et_method *m, cml_error *err) {
  if (!atomic_load_explicit(&m->cancelled, memory_order_relaxed)) return CML_OK;
  atomic_store_explicit(&m->cancelled, false, memory_order_relaxed);
  return cml_fail(err, CML_CANCELLED, CML_NO_OFFSET, "the run was stopped");
}

static cml_status run_chain(cml_et_method *m, size_t chain, uint64_t *left, cml_error *err) {
  for (size_t at = 0; at < m->pte->chains[chain].count;) {
    size_t i = at;
    uint64_t begin = m->observe ? now_ns() : 0;
    if (!(*left)--) return cml_et_at(m, chain, i, cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "more instructions ran than one run may have: a loop that does not end?"), err);
    cml_status status = go_on(m, err);
    if (!status) status = run_step(m, chain, &at, err);
    if (status) return cml_et_at(m, chain, i, status, err);
    if (m->observe) tell(m, chain, i, begin);
  }
  return CML_OK;
}

static bool apart(const cml_et_tensor *t, const cml_et_value *v) {
  if (v->kind == CML_PTE_TENSORS) {
    for (uint32_t k = 0; k < v->count; k++)
      if (!apart(t, v->items[k])) return false;
    return true;
  }
  if (v->kind != CML_PTE_TENSOR || v->tensor == t || v->tensor->owned || v->tensor->constant || !v->tensor->data) return true;
  const char *a = t->data, *b = v->tensor->data;
  return a + t->capacity <= b || b + v->tensor->capacity <= a;
}

/* Whether what was put into t is there after a run too: plans reuse an input's place once it was read for the last time. */
static bool survives(const cml_et_method *m, const cml_et_tensor *t) {
  for (uint32_t c = 0; c < m->pte->chain_count && !t->owned; c++)
    for (uint32_t i = 0; i < m->pte->chains[c].count; i++) {
      const cml_et_step *s = &m->steps[c][i];
      bool delegate = m->pte->chains[c].instructions[i].opcode == CML_PTE_DELEGATE_CALL;
      for (uint32_t k = 0; k < s->arg_count; k++)
        if ((delegate || (k < 64 && s->out_mask >> k & 1)) && !apart(t, s->args[k])) return false;
    }
  return true;
}

static cml_status need_inputs(const cml_et_method *m, cml_error *err) {
  char wanted[200];
  for (uint32_t i = 0; i < m->pte->inputs.count; i++) {
    const cml_et_value *v = &m->values[m->pte->inputs.items[i]];
    if (v->kind != CML_PTE_TENSOR || m->pte->values[m->pte->inputs.items[i]].kind != CML_PTE_TENSOR) continue;
    if (m->input_set[i] == CML_ET_INPUT_USED) m->input_set[i] = survives(m, v->tensor) ? CML_ET_INPUT_KEPT : CML_ET_INPUT_LOST;
    if (m->input_set[i] == CML_ET_INPUT_SET || m->input_set[i] == CML_ET_INPUT_KEPT) continue;
    print_wanted(m, i, wanted, sizeof wanted);
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "input %u was not given%s: %s", i,
                    m->input_set[i] ? " again (the memory plan used its place in the run before)" : "", wanted);
  }
  return CML_OK;
}

static void use_inputs(cml_et_method *m) {
  for (uint32_t i = 0; i < m->pte->inputs.count; i++)
    if (m->input_set[i] == CML_ET_INPUT_SET) m->input_set[i] = CML_ET_INPUT_USED;
}

/* Views of the last run point to what may be gone. */
static void forget_views(cml_et_method *m) {
  for (uint32_t i = 0; i < m->tensor_count; i++) {
    cml_et_tensor *t = m->tensors[i];
    if (!t->view) continue;
    t->view = t->constant = false;
    t->data = NULL;
    t->capacity = 0;
  }
  cml_et_memory_release(&m->memory);
}

cml_status cml_et_method_run(cml_et_method *m, cml_error *err) {
  uint64_t limit = m->program->options.instruction_limit, left = limit ? limit : MOST_INSTRUCTIONS;
  CML_TRY(need_inputs(m, err));
  forget_views(m);
  use_inputs(m);
  for (uint32_t c = 0; c < m->pte->chain_count; c++) CML_TRY(run_chain(m, c, &left, err));
  return CML_OK;
}

/* ---- results ---- */

cml_status cml_et_method_export(cml_et_method *m, const cml_et_value *v, cml_tensor *out, cml_error *err) {
  if (v->kind != CML_PTE_TENSOR) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "the value is of kind %s", cml_pte_kind_name(v->kind));
  const cml_et_tensor *t = v->tensor;
  cml_et_local parts, local;
  if (!t->dtype && (!t->complex || t->rank == CML_PTE_MAX_RANK))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "the tensor's element type has no name outside the program");
  if (t->complex) cml_et_as_real(t, &parts), t = &parts.t;
  if (!t->data && cml_et_numel(t)) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the tensor has no data: nothing has written it");
  *out = (cml_tensor){.dtype = t->dtype, .rank = t->rank, .data = t->data};
  memcpy(out->dims, t->sizes, t->rank * sizeof *t->sizes);
  if (cml_et_is_contiguous(t)) return CML_OK;
  uint64_t bytes = (uint64_t)cml_et_numel(t) * cml_et_width(t);
  if (bytes > m->exported_size) {
    free(m->exported);
    m->exported_size = 0;
    if (!(m->exported = malloc(bytes))) return cml_fail_memory(err);
    m->exported_size = bytes;
  }
  cml_et_make(&local, t->dtype, t->rank, t->sizes, m->exported);
  cml_et_copy(&local.t, t);
  out->data = m->exported;
  return CML_OK;
}

void cml_et_method_observe(cml_et_method *m, cml_et_observe *observe, void *context) {
  m->observe = observe;
  m->observe_context = context;
}
