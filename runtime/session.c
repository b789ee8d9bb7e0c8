/* Running: one slot for each value, one call for each step, both made once. A run walks the steps; what the plan placed needs
 * no work but the operator's own, and steps whose shapes depend on data are inferred again first. Blocks of control flow run
 * the same way, always inferred again, in memory that their slots keep from one round to the next. */
#include "session.h"

#include "exec_variants.h"
#include "strided.h"

#include <stdlib.h>
#include <time.h>

enum { FIRST_SEED = 0x636d6c };

/* ---- construction ---- */

static void make_calls(cml_session *s, const cml_graph_block *block, const cml_tensor ***args, cml_tensor ***outs) {
  const cml_graph *g = &s->variant->graph;
  for (size_t i = 0; i < block->step_count; i++) {
    const cml_step *step = &block->steps[i];
    cml_call *c = &s->calls[step->index];
    *c = (cml_call){.op = step->op, .name = step->name, .opset = g->opset, .args = *args, .first = step->first, .outs = *outs,
                    .out_count = step->out_count, .arg_constant = step->arg_constant, .prepared = step->prepared,
                    .declared = step->declared, .pool = s->executable->pool, .runner = &s->runner, .step = step};
    for (size_t k = 0; k < step->arg_count; k++) *(*args)++ = &cml_session_slot(s, step->args[k])->tensor;
    for (size_t k = 0; k < step->out_count; k++) *(*outs)++ = &cml_session_slot(s, step->outs[k])->tensor;
    for (size_t k = 0; k < step->block_count; k++) make_calls(s, step->blocks[k], args, outs);
  }
}

static void count_operands(const cml_graph_block *block, size_t *args, size_t *outs) {
  for (size_t i = 0; i < block->step_count; i++) {
    *args += block->steps[i].arg_count;
    *outs += block->steps[i].out_count;
    for (size_t k = 0; k < block->steps[i].block_count; k++) count_operands(block->steps[i].blocks[k], args, outs);
  }
}

static cml_status make_inputs(cml_session *s, cml_error *err) {
  cml_executable *e = s->executable;
  size_t count = e->general.graph.function->input_count;
  if (!(s->inputs = calloc(count + 1, sizeof *s->inputs))) return cml_fail_memory(err);
  for (size_t v = 0; v < count; v++) {
    uint64_t bytes;
    s->inputs[v].tensor = e->given[v].type;
    cml_slot_use_account(&s->inputs[v], &e->account);
    if (e->given[v].role != CML_ROLE_STATE) continue;
    if (!cml_tensor_known_shape(&s->inputs[v].tensor))
      return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "state '%s' has no fixed shape", e->given[v].name);
    CML_TRY(cml_slot_reserve(&s->inputs[v], err));
    if (cml_tensor_bytes(&s->inputs[v].tensor, &bytes)) memset(s->inputs[v].tensor.data, 0, bytes);
  }
  return CML_OK;
}

static void leave_variant(cml_session *s) {
  for (size_t v = 0; s->slots && v < s->variant->graph.value_count; v++) cml_slot_clear(&s->slots[v]);
  free(s->slots);
  free(s->calls);
  free(s->args);
  free(s->outs);
  s->slots = NULL;
  s->calls = NULL;
  s->args = NULL;
  s->outs = NULL;
  if (s->own_plan) cml_plan_destroy(s->plan);
  s->own_plan = false;
  s->plan = NULL;
  s->variant = NULL;
}

/* Slots and calls for another graph. */
static cml_status enter_variant(cml_session *s, const cml_variant *variant, cml_error *err) {
  const cml_graph *g = &variant->graph;
  size_t arg_total = 0, out_total = 0;
  if (s->variant) leave_variant(s);
  s->variant = variant;
  count_operands(&g->body, &arg_total, &out_total);
  s->slots = calloc(g->value_count + 1, sizeof *s->slots);
  s->calls = calloc(g->step_total + 1, sizeof *s->calls);
  s->args = calloc(arg_total + 1, sizeof *s->args);
  s->outs = calloc(out_total + 1, sizeof *s->outs);
  if (!s->slots || !s->calls || !s->args || !s->outs) {
    leave_variant(s);
    return cml_fail_memory(err);
  }
  for (size_t v = 0; v < g->value_count; v++) {
    s->slots[v].tensor = g->values[v].type;
    cml_slot_use_account(&s->slots[v], g->account);
  }
  const cml_tensor **args = s->args;
  cml_tensor **outs = s->outs;
  make_calls(s, &g->body, &args, &outs);
  return CML_OK;
}

static cml_status session_build(cml_session *s, cml_error *err) {
  cml_executable *e = s->executable;
  s->input_set = calloc(e->inputs.count + 1, sizeof *s->input_set);
  s->results = calloc(e->outputs.count + 1, sizeof *s->results);
  if (!s->input_set || !s->results) return cml_fail_memory(err);
  for (size_t i = 0; i < e->outputs.count; i++) cml_slot_use_account(&s->results[i], &e->account);
  return make_inputs(s, err);
}

static cml_status run_block(cml_call *c, size_t b, const cml_tensor *const *inputs, size_t input_count, const cml_tensor **outputs,
                            size_t output_count, cml_error *err);

cml_status cml_session_create(cml_executable *executable, cml_session **out, cml_error *err) {
  cml_session *s = calloc(1, sizeof *s);
  if (!s) return cml_fail_memory(err);
  s->executable = cml_executable_ref(executable);
  s->cancelled = &s->own_cancelled;
  s->runner.session = s;
  s->runner.run_block = run_block;
  cml_random_seed(s->runner.random, FIRST_SEED);
  cml_status status = session_build(s, err);
  if (status) cml_session_destroy(s);
  else *out = s;
  return status;
}

void cml_session_destroy(cml_session *s) {
  if (!s) return;
  if (s->variant) leave_variant(s);
  for (size_t v = 0; s->inputs && v < s->executable->general.graph.function->input_count; v++) cml_slot_clear(&s->inputs[v]);
  for (size_t i = 0; s->results && i < s->executable->outputs.count; i++) cml_slot_clear(&s->results[i]);
  for (size_t i = 0; i < s->seen_count; i++) cml_slot_clear(&s->gathered[i]);
  free(s->gathered);
  free(s->seen);
  free(s->inputs);
  free(s->input_set);
  free(s->results);
  free(s->arena);
  free(s->scratch);
  cml_account_give(&s->executable->account, (uint64_t)s->arena_capacity + s->scratch_capacity);
  cml_executable_unref(s->executable);
  free(s);
}

void cml_session_observe(cml_session *s, cml_observe *observe, void *context, bool values) {
  s->observe = observe;
  s->observe_context = context;
  s->observe_values = values;
}

/* ---- plans ---- */

/* The contents are lost. */
static cml_status grow(cml_session *s, void **memory, size_t *capacity, uint64_t size, cml_error *err) {
  cml_account *account = &s->executable->account;
  if (size <= *capacity) return CML_OK;
  free(*memory);
  *memory = NULL;
  cml_account_give(account, *capacity);
  *capacity = 0;
  CML_TRY(cml_account_take(account, size, err));
  if (size <= SIZE_MAX - 128) *memory = aligned_alloc(64, ((size_t)size + 127) & ~(size_t)63);
  if (!*memory) {
    cml_account_give(account, size);
    return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "out of memory: the values need %llu bytes", (unsigned long long)size);
  }
  *capacity = (size_t)size;
  return CML_OK;
}

/* Points every planned value at its place. */
static cml_status apply_plan(cml_session *s, cml_error *err) {
  const cml_graph *g = &s->variant->graph;
  const cml_plan *plan = s->plan;
  CML_TRY(grow(s, &s->arena, &s->arena_capacity, plan->arena_size, err));
  for (size_t v = g->function->input_count; v < g->value_count; v++) {
    if (g->values[v].depth) continue;
    s->slots[v].tensor = plan->types[v];
    if (plan->offsets[v] != CML_NO_OFFSET) s->slots[v].tensor.data = (char *)s->arena + plan->offsets[v];
    if (plan->state[v] != UINT32_MAX) s->slots[v].tensor.data = s->inputs[plan->state[v]].tensor.data;
  }
  for (size_t i = 0; i < g->body.step_count; i++) {
    size_t step = g->body.steps[i].index;
    s->calls[step].scratch = plan->scratch[step] == CML_NO_OFFSET ? NULL : (char *)s->arena + plan->scratch[step];
  }
  return CML_OK;
}

static cml_status make_plan(cml_session *s, cml_error *err) {
  cml_tensor *shapes = cml_executable_shapes(s->executable, s->inputs);
  if (!shapes) return cml_fail_memory(err);
  cml_status status = cml_plan_create(&s->variant->graph, shapes, &s->plan, err);
  free(shapes);
  s->own_plan = !status;
  return status;
}

/* The variant of the inputs' shapes, if there is one; one is made when a run repeats the shapes of the last, for sequences in which each
 * has another would spend their time on it. Then its plan, the general one for the default shapes, or one of our own, kept until the
 * shapes change. */
static cml_status choose_plan(cml_session *s, cml_error *err) {
  bool again = s->plan && cml_executable_same_shapes(s->executable, s->plan->types, s->inputs);
  const cml_variant *variant = &s->executable->general;
  if (again && (s->variant->shapes || !s->executable->flexible)) return CML_OK;
  if (s->executable->flexible) CML_TRY(cml_executable_variant(s->executable, s->inputs, again, &variant, err));
  if (variant != s->variant) CML_TRY(enter_variant(s, variant, err));
  else if (again) return CML_OK;
  if (s->own_plan) cml_plan_destroy(s->plan);
  s->own_plan = false;
  s->plan = variant->plan;
  if (!s->plan || !cml_executable_same_shapes(s->executable, s->plan->types, s->inputs)) {
    s->plan = NULL;
    CML_TRY(make_plan(s, err));
  }
  cml_status status = apply_plan(s, err);
  if (status) {
    if (s->own_plan) cml_plan_destroy(s->plan);
    s->own_plan = false;
    s->plan = NULL;
  }
  return status;
}

/* ---- steps ---- */

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static cml_status infer_now(cml_session *s, cml_call *c, cml_error *err) {
  for (size_t i = 0; i < c->out_count; i++) {
    cml_tensor *t = c->outs[i];
    *t = (cml_tensor){.rank = CML_RANK_UNKNOWN};
  }
  c->scratch_size = 0;
  CML_TRY(c->op->infer(c, err));
  CML_TRY(cml_scratch_check(c->scratch_size, err));
  for (size_t i = 0; i < c->out_count; i++) {
    if (i == 0 && (c->op->flags & CML_OP_VIEW)) continue;
    if (c->op->flags & CML_OP_CONTROL || !c->outs[i]->dtype || !cml_tensor_known_shape(c->outs[i])) continue;
    CML_TRY(cml_slot_reserve((cml_slot *)(void *)c->outs[i], err));
  }
  CML_TRY(grow(s, &s->scratch, &s->scratch_capacity, c->scratch_size, err));
  c->scratch = s->scratch;
  return CML_OK;
}

static cml_status gather_rows(cml_slot *to, const cml_tensor *from, cml_error *err) {
  cml_tensor *t = &to->tensor;
  *t = *from;
  t->row = 0;
  t->data = NULL;
  CML_TRY(cml_slot_reserve(to, err));
  cml_strided rows = {.size = cml_element_size(t)};
  int64_t n = t->dims[t->rank - 1];
  cml_strided_loop(&rows, n ? cml_tensor_count(t) / n : 0, n, from->row);
  cml_strided_loop(&rows, n, 1, 1);
  cml_strided_copy(&rows, t->data, from->data, NULL);
  return CML_OK;
}

static cml_status gather(cml_session *s, const cml_call *c, cml_error *err) {
  if (s->seen_count < c->out_count) {
    cml_slot *slots = realloc(s->gathered, c->out_count * sizeof *slots);
    if (slots) s->gathered = slots;
    const cml_tensor **seen = slots ? realloc(s->seen, c->out_count * sizeof *seen) : NULL;
    if (!seen) return cml_fail_memory(err);
    s->seen = seen;
    for (; s->seen_count < c->out_count; s->seen_count++) {
      slots[s->seen_count] = (cml_slot){.owned = NULL};
      cml_slot_use_account(&slots[s->seen_count], &s->executable->account);
    }
  }
  for (size_t i = 0; i < c->out_count; i++) {
    s->seen[i] = c->outs[i]->row ? &s->gathered[i].tensor : c->outs[i];
    if (c->outs[i]->row) CML_TRY(gather_rows(&s->gathered[i], c->outs[i], err));
  }
  return CML_OK;
}

static cml_status observe(cml_session *s, const cml_call *c, uint64_t begin, cml_error *err) {
  uint64_t end = now_ns();
  const cml_tensor *const *outs = (const cml_tensor *const *)c->outs;
  bool apart = false;
  for (size_t i = 0; s->observe_values && i < c->out_count; i++) apart = apart || outs[i]->row;
  if (apart) {
    CML_TRY(gather(s, c, err));
    outs = s->seen;
  }
  s->observe(s->observe_context, c->op->name, c->name, begin, end, c->args, c->step->arg_count, outs, c->out_count);
  return CML_OK;
}

void cml_session_cancel(cml_session *s) { atomic_store_explicit(s->cancelled, true, memory_order_relaxed); }

void cml_session_stop_by(cml_session *s, atomic_bool *flag) { s->cancelled = flag; }

static cml_status go_on(cml_session *s, cml_error *err) {
  if (!atomic_load_explicit(s->cancelled, memory_order_relaxed)) return CML_OK;
  atomic_store_explicit(s->cancelled, false, memory_order_relaxed);
  return cml_fail(err, CML_CANCELLED, CML_NO_OFFSET, "the run was stopped");
}

static cml_status run_step(cml_session *s, const cml_step *step, bool dynamic, cml_error *err) {
  cml_call *c = &s->calls[step->index];
  uint64_t begin = s->observe ? now_ns() : 0;
  CML_TRY(go_on(s, err));
  if (dynamic) CML_TRY(infer_now(s, c, err));
  if (c->op->flags & CML_OP_VIEW && !c->args[0]->list) {
    c->outs[0]->data = c->args[0]->data;
    c->outs[0]->keys = c->args[0]->keys;
  } else {
    CML_TRY(c->op->run(c, err));
  }
  return s->observe ? observe(s, c, begin, err) : CML_OK;
}

static cml_status name_step(const cml_step *step, cml_status status, cml_error *err) {
  if (err && !strncmp(err->text, "operation '", 11)) return status;
  return cml_error_prefix(err, status, "operation '%s' (%s)", step->name, step->op->name);
}

static cml_status run_inner_steps(cml_session *s, const cml_graph_block *block, cml_error *err) {
  for (size_t i = 0; i < block->step_count; i++) {
    const cml_step *step = &block->steps[i];
    if (step->folded) continue;
    cml_status status = run_step(s, step, true, err);
    if (status) return name_step(step, status, err);
  }
  return CML_OK;
}

/* ---- control flow ---- */

/* Inputs may be this block's own earlier outputs, or its inputs in another order: what a copy would overwrite too early is
 * set aside first. */
static cml_status set_block_inputs(cml_session *s, const cml_graph_block *block, const cml_tensor *const *inputs, cml_error *err) {
  cml_slot *aside = calloc(block->input_count + 1, sizeof *aside);
  if (!aside) return cml_fail_memory(err);
  for (size_t i = 0; i < block->input_count; i++) cml_slot_use_account(&aside[i], &s->executable->account);
  cml_status status = CML_OK;
  for (size_t i = 0; !status && i < block->input_count; i++)
    for (size_t j = 0; !status && j < i; j++) {
      const cml_slot *earlier = cml_session_slot(s, block->inputs[j]);
      bool clobbered = inputs[i]->list ? inputs[i]->list == &earlier->own_list : inputs[i]->data && inputs[i]->data == earlier->owned;
      if (clobbered && inputs[i] != &aside[i].tensor && !aside[i].tensor.data && !aside[i].tensor.list)
        status = cml_slot_copy(&aside[i], inputs[i], err);
    }
  for (size_t i = 0; !status && i < block->input_count; i++) {
    bool moved = aside[i].tensor.data || aside[i].tensor.list;
    status = cml_slot_copy(cml_session_slot(s, block->inputs[i]), moved ? &aside[i].tensor : inputs[i], err);
  }
  for (size_t i = 0; i < block->input_count; i++) cml_slot_clear(&aside[i]);
  free(aside);
  return status;
}

static cml_status run_block(cml_call *c, size_t b, const cml_tensor *const *inputs, size_t input_count, const cml_tensor **outputs,
                            size_t output_count, cml_error *err) {
  cml_session *s = c->runner->session;
  if (b >= c->step->block_count) return cml_call_fail(c, err, "has no block %zu", b);
  const cml_graph_block *block = c->step->blocks[b];
  if (input_count != block->input_count || output_count != block->output_count)
    return cml_call_fail(c, err, "block %zu takes %zu inputs and gives %zu outputs, not %zu and %zu", b, block->input_count,
                         block->output_count, input_count, output_count);
  CML_TRY(go_on(s, err)); /* a loop's blocks may hold no step at all */
  CML_TRY(set_block_inputs(s, block, inputs, err));
  CML_TRY(run_inner_steps(s, block, err));
  for (size_t i = 0; i < output_count; i++) outputs[i] = &cml_session_slot(s, block->outputs[i])->tensor;
  return CML_OK;
}

/* ---- a run ---- */

static cml_status run_body(cml_session *s, cml_error *err) {
  const cml_graph *g = &s->variant->graph;
  for (size_t i = 0; i < g->body.step_count; i++) {
    const cml_step *step = &g->body.steps[s->plan->order[i]];
    if (step->folded || s->plan->skip[step->index]) continue;
    cml_status status = run_step(s, step, s->plan->dynamic[step->index], err);
    if (status) return name_step(step, status, err);
  }
  return CML_OK;
}

cml_status cml_session_run(cml_session *s, cml_error *err) {
  CML_TRY(cml_session_complete_inputs(s, err));
  CML_TRY(choose_plan(s, err));
  CML_TRY(run_body(s, err));
  return cml_session_collect_outputs(s, err);
}

const cml_tensor *cml_session_output(const cml_session *s, size_t i) { return &s->results[i].tensor; }

cml_tensor *cml_session_state(cml_session *s, size_t i) { return &s->inputs[s->executable->state_values[i]].tensor; }
