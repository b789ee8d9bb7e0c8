/* One arena for all values of the function's body and the scratch of its steps, by lifetime.
 *
 * With the input shapes fixed, inference is run over the steps again; what follows from shapes alone is computed now. A value
 * lives from the step that makes it to the last that uses it (a control-flow step uses what its blocks use). Views share the
 * memory of what they look at, so lifetimes belong to roots. Roots are placed one by one at the lowest offset where no
 * other root alive at the same time lies, in several orders, of which the best is kept; an operator that works in place takes
 * over its dying argument's memory. */
#include "exec_graph.h"

#include <stdlib.h>

static const uint32_t NO_VALUE = UINT32_MAX;

/* What needs memory over some steps: a value, or (NO_VALUE) the scratch of step `begin`. */
typedef struct root {
  uint32_t value;
  uint32_t begin, end; /* steps, inclusive */
  uint64_t bytes, offset, crowd; /* crowd: the most bytes alive at one of its steps */
} root;

typedef struct planner {
  const cml_graph *g;
  cml_plan *plan;
  uint32_t *root_of;  /* by value: the value whose memory it is in */
  uint32_t *first, *last; /* by root value: steps of the body */
  uint64_t *scratch;  /* by step: bytes */
  bool *pinned;       /* by root: may not be overwritten in place (constants, inputs, states) */
  const cml_tensor **args;
  cml_tensor **outs;
} planner;

static cml_status keep_computed(cml_plan *plan, cml_slot **slots, size_t count, cml_error *err) {
  if (plan->computed_count + count > plan->computed_capacity) {
    size_t capacity = plan->computed_capacity * 2 + count + 16;
    cml_slot **computed = realloc(plan->computed, capacity * sizeof *computed);
    if (!computed) {
      for (size_t i = 0; i < count; i++) cml_slot_clear(slots[i]), free(slots[i]);
      return cml_fail_memory(err);
    }
    plan->computed = computed;
    plan->computed_capacity = capacity;
  }
  for (size_t i = 0; i < count; i++) plan->computed[plan->computed_count++] = slots[i];
  return CML_OK;
}

/* Small results that follow from shapes, computed while planning. */
static cml_status compute_now(planner *p, const cml_step *s, bool *done, cml_error *err) {
  cml_plan *plan = p->plan;
  cml_slot *slots[16];
  *done = false;
  if (s->out_count > 16 || !cml_step_foldable(s, p->args)) return CML_OK;
  for (size_t i = 0; i < s->out_count; i++) {
    uint64_t bytes;
    if (cml_tensor_known_shape(p->outs[i]) && (!cml_tensor_bytes(p->outs[i], &bytes) || bytes > 65536)) return CML_OK;
  }
  cml_status status = cml_step_evaluate(p->g, s, p->args, slots, err);
  if (status == CML_CANCELLED) return CML_OK;
  CML_TRY(status);
  CML_TRY(keep_computed(plan, slots, s->out_count, err));
  for (size_t i = 0; i < s->out_count; i++) plan->types[s->outs[i]] = slots[i]->tensor;
  *done = true;
  return CML_OK;
}

static cml_status infer_step(planner *p, const cml_step *s, cml_error *err) {
  cml_plan *plan = p->plan;
  for (size_t i = 0; i < s->arg_count; i++) p->args[i] = &plan->types[s->args[i]];
  for (size_t i = 0; i < s->out_count; i++) {
    p->outs[i] = &plan->types[s->outs[i]];
    *p->outs[i] = (cml_tensor){.rank = CML_RANK_UNKNOWN};
  }
  cml_call c = {.op = s->op, .name = s->name, .opset = p->g->opset, .args = p->args, .first = s->first, .outs = p->outs,
                .out_count = s->out_count, .arg_constant = s->arg_constant, .declared = s->declared, .prepared = s->prepared, .pool = p->g->pool, .step = s};
  CML_TRY(s->op->infer(&c, err));
  for (size_t i = 0; i < s->out_count; i++)
    if (!cml_tensor_known_shape(p->outs[i]) || !p->outs[i]->dtype) plan->dynamic[s->index] = true;
  if (s->op->flags & CML_OP_CONTROL) plan->dynamic[s->index] = true;
  CML_TRY(cml_scratch_check(c.scratch_size, err));
  p->scratch[s->index] = plan->dynamic[s->index] ? 0 : c.scratch_size;
  return compute_now(p, s, &plan->skip[s->index], err);
}

static void use_value(planner *p, uint32_t value, uint32_t step) {
  uint32_t r = p->root_of[value];
  if (p->last[r] < step) p->last[r] = step;
}

/* What a block uses of the values around it lives until the control-flow step. */
static void use_block(planner *p, const cml_graph_block *block, uint32_t step) {
  for (size_t i = 0; i < block->step_count; i++) {
    const cml_step *s = &block->steps[i];
    for (size_t k = 0; k < s->arg_count; k++) use_value(p, s->args[k], step);
    for (size_t k = 0; k < s->block_count; k++) use_block(p, s->blocks[k], step);
  }
  for (size_t i = 0; i < block->output_count; i++) use_value(p, block->outputs[i], step);
}

static void find_lifetimes(planner *p) {
  const cml_graph *g = p->g;
  for (uint32_t v = 0; v < g->value_count; v++) {
    p->root_of[v] = v;
    p->pinned[v] = g->values[v].role != CML_ROLE_COMPUTED;
  }
  for (uint32_t i = 0; i < g->body.step_count; i++) {
    const cml_step *s = &g->body.steps[i];
    for (size_t k = 0; k < s->arg_count; k++) use_value(p, s->args[k], i);
    for (size_t k = 0; k < s->block_count; k++) use_block(p, s->blocks[k], i);
    bool computed = s->folded || p->plan->skip[s->index];
    for (size_t k = 0; k < s->out_count; k++) {
      uint32_t v = s->outs[k];
      p->first[v] = p->last[v] = i;
      if (computed) p->pinned[v] = true;
      else if (k == 0 && (s->op->flags & CML_OP_VIEW) && s->arg_count && !p->plan->types[s->args[0]].list) {
        p->root_of[v] = p->root_of[s->args[0]];
        use_value(p, v, i);
      }
    }
  }
  for (size_t i = 0; i < g->body.output_count; i++) use_value(p, g->body.outputs[i], (uint32_t)g->body.step_count);
}

/* A root needs a place in the arena unless it is constant, computed while planning, or its shape is unknown until run. */
static bool needs_place(const planner *p, const cml_step *s, uint32_t value) {
  return p->root_of[value] == value && !p->pinned[value] && !p->plan->dynamic[s->index] && p->plan->types[value].dtype;
}

static const cml_step *step_at(const planner *p, uint32_t i) { return &p->g->body.steps[i]; }

/* The dying argument whose memory output 0 may take, or the output itself. */
static uint32_t in_place_source(const planner *p, const cml_step *s, uint32_t step) {
  uint32_t out = s->outs[0];
  if (!(s->op->flags & (CML_OP_IN_PLACE | CML_OP_IN_PLACE_FIRST))) return out;
  size_t candidates = s->op->flags & CML_OP_IN_PLACE ? s->arg_count : s->arg_count > 0;
  for (size_t i = 0; i < candidates; i++) {
    uint32_t v = s->args[i], r = p->root_of[v];
    const cml_tensor *t = &p->plan->types[v];
    if (p->pinned[r] || p->last[r] != step || r == out || t->dtype != p->plan->types[out].dtype ||
        !cml_tensor_same_shape(t, &p->plan->types[out]) || p->plan->dynamic[step_at(p, p->first[r])->index])
      continue;
    bool only = true; /* the argument's memory may not be read under another name, too */
    for (size_t k = 0; k < s->arg_count; k++) only = only && (k == i || p->root_of[s->args[k]] != r);
    if (only) return r;
  }
  return out;
}

/* Orders of placing; each wins on some programs, so all are tried. */
static int by_time(const void *a, const void *b) {
  const root *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end != y->end ? (x->end > y->end ? -1 : 1) : 0;
}
static int by_size(const void *a, const void *b) {
  const root *x = a, *y = b;
  return x->bytes != y->bytes ? (x->bytes < y->bytes ? 1 : -1) : by_time(a, b);
}
static int by_crowd(const void *a, const void *b) { /* where the most is alive first */
  const root *x = a, *y = b;
  return x->crowd != y->crowd ? (x->crowd < y->crowd ? 1 : -1) : by_size(a, b);
}
static int by_life(const void *a, const void *b) {
  const root *x = a, *y = b;
  uint32_t m = x->end - x->begin, n = y->end - y->begin;
  return m != n ? (m < n ? 1 : -1) : by_size(a, b);
}

static int by_offset(const void *a, const void *b) {
  const root *const *x = a, *const *y = b;
  return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

/* Lowest offset where `r` fits among the placed roots that live at the same time. */
static void place(root *r, root *roots, size_t count, const root **overlap) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    if (roots[i].begin <= r->end && roots[i].end >= r->begin) overlap[n++] = &roots[i];
  qsort(overlap, n, sizeof *overlap, by_offset);
  uint64_t at = 0;
  for (size_t i = 0; i < n && at + r->bytes > overlap[i]->offset; i++)
    if (overlap[i]->offset + overlap[i]->bytes > at) at = overlap[i]->offset + overlap[i]->bytes;
  r->offset = at;
}

/* Fills each root's crowd, and gives the largest. */
static cml_status count_crowds(root *roots, size_t count, size_t steps, uint64_t *peak, cml_error *err) {
  uint64_t *live = calloc(steps + 2, sizeof *live);
  if (!live) return cml_fail_memory(err);
  for (size_t i = 0; i < count; i++) {
    live[roots[i].begin] += roots[i].bytes;
    live[roots[i].end + 1] -= roots[i].bytes;
  }
  for (size_t i = 1; i < steps + 2; i++) live[i] += live[i - 1];
  for (size_t i = 0; i < count; i++)
    for (size_t k = roots[i].begin; k <= roots[i].end; k++)
      if (live[k] > roots[i].crowd) roots[i].crowd = live[k];
  *peak = 0;
  for (size_t i = 0; i < count; i++)
    if (roots[i].crowd > *peak) *peak = roots[i].crowd;
  free(live);
  return CML_OK;
}

static uint64_t place_all(root *roots, size_t count, size_t *top, const root **overlap) {
  uint64_t size = 0;
  for (size_t i = 0; i < count; i++) {
    place(&roots[i], roots, i, overlap);
    if (roots[i].offset + roots[i].bytes > size) size = roots[i].offset + roots[i].bytes, *top = i;
  }
  return size;
}

/* Tries the orders; what then sticks out at the top is placed first in another round. Leaves the best offsets in `roots`. */
static uint64_t place_well(root *roots, size_t count, uint64_t bound, root *best, const root **overlap) {
  static int (*const orders[])(const void *, const void *) = {by_size, by_crowd, by_life, by_time};
  enum { ORDERS = sizeof orders / sizeof *orders, ROUNDS = 8, WORK = 1 << 24 };
  uint64_t least = UINT64_MAX;
  size_t left = count ? WORK / count / count : 0; /* a round looks at every pair */
  for (size_t k = 0; k < ORDERS && least > bound && (!k || left); k++) {
    qsort(roots, count, sizeof *roots, orders[k]);
    for (size_t round = 0, top = 0; round < ROUNDS && least > bound && (least == UINT64_MAX || left); round++) {
      left -= left > 0;
      uint64_t size = place_all(roots, count, &top, overlap);
      if (size < least) least = size, memcpy(best, roots, count * sizeof *roots);
      root first = roots[top];
      memmove(roots + 1, roots, top * sizeof *roots);
      roots[0] = first;
    }
  }
  if (count) memcpy(roots, best, count * sizeof *roots);
  return count ? least : 0;
}

static uint64_t padded(uint64_t bytes) { return (bytes + 64 + 63) & ~UINT64_C(63); }

static cml_status collect_roots(planner *p, root *roots, size_t *count, cml_error *err) {
  const cml_graph *g = p->g;
  for (uint32_t i = 0; i < g->body.step_count; i++) {
    const cml_step *s = &g->body.steps[i];
    if (p->scratch[s->index]) roots[(*count)++] = (root){.value = NO_VALUE, .begin = i, .end = i, .bytes = padded(p->scratch[s->index])};
    for (size_t k = 0; k < s->out_count; k++) {
      uint32_t v = s->outs[k];
      uint64_t bytes;
      if (s->folded || !needs_place(p, s, v)) continue;
      uint32_t source = k == 0 ? in_place_source(p, s, i) : v;
      if (source != v) { /* one root from here on, which lives as long as the two of them */
        uint32_t end = p->last[v];
        for (uint32_t w = 0; w < g->value_count; w++)
          if (p->root_of[w] == v) p->root_of[w] = source;
        if (p->last[source] < end) p->last[source] = end;
        continue;
      }
      if (!cml_tensor_bytes(&p->plan->types[v], &bytes))
        return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "operation '%s': its result is too large", s->name);
      roots[(*count)++] = (root){.value = v, .begin = i, .bytes = padded(bytes)};
    }
  }
  for (size_t i = 0; i < *count; i++)
    if (roots[i].value != NO_VALUE) roots[i].end = p->last[roots[i].value];
  return CML_OK;
}

static cml_status place_roots(planner *p, cml_error *err) {
  const cml_graph *g = p->g;
  cml_plan *plan = p->plan;
  size_t count = 0, room = g->value_count + g->body.step_count + 1;
  root *roots = calloc(room, sizeof *roots), *best = calloc(room, sizeof *best);
  const root **overlap = calloc(room, sizeof *overlap);
  cml_status status = roots && best && overlap ? collect_roots(p, roots, &count, err) : cml_fail_memory(err);
  if (!status) status = count_crowds(roots, count, g->body.step_count, &plan->live_peak, err);
  if (!status) {
    plan->arena_size = place_well(roots, count, plan->live_peak, best, overlap);
    for (size_t i = 0; i < count; i++) {
      if (roots[i].value == NO_VALUE) plan->scratch[step_at(p, roots[i].begin)->index] = roots[i].offset;
      else plan->offsets[roots[i].value] = roots[i].offset;
    }
    for (uint32_t v = 0; v < g->value_count; v++) plan->offsets[v] = plan->offsets[p->root_of[v]];
  }
  free(overlap);
  free(best);
  free(roots);
  return status;
}

static cml_status plan_all(planner *p, const cml_tensor *input_types, cml_error *err) {
  const cml_graph *g = p->g;
  cml_plan *plan = p->plan;
  for (uint32_t v = 0; v < g->value_count; v++) {
    plan->types[v] = g->values[v].type;
    plan->offsets[v] = CML_NO_OFFSET;
  }
  for (size_t i = 0; i < g->step_total; i++) plan->scratch[i] = CML_NO_OFFSET;
  for (size_t i = 0; input_types && i < g->function->input_count; i++) plan->types[i] = input_types[i];
  for (size_t i = 0; i < g->body.step_count; i++)
    if (!g->body.steps[i].folded) CML_TRY(infer_step(p, &g->body.steps[i], err));
  find_lifetimes(p);
  return place_roots(p, err);
}

cml_status cml_plan_create(const cml_graph *g, const cml_tensor *input_types, cml_plan **out, cml_error *err) {
  cml_plan *plan = calloc(1, sizeof *plan);
  if (!plan) return cml_fail_memory(err);
  cml_arena *a = &plan->arena, temporary = CML_ARENA_INIT;
  plan->types = CML_ARENA_NEW_ARRAY(a, cml_tensor, g->value_count);
  plan->offsets = CML_ARENA_NEW_ARRAY(a, uint64_t, g->value_count);
  plan->scratch = CML_ARENA_NEW_ARRAY(a, uint64_t, g->step_total);
  plan->dynamic = CML_ARENA_NEW_ARRAY(a, bool, g->step_total);
  plan->skip = CML_ARENA_NEW_ARRAY(a, bool, g->step_total);
  planner p = {.g = g, .plan = plan};
  p.root_of = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.first = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.last = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.pinned = CML_ARENA_NEW_ARRAY(&temporary, bool, g->value_count);
  p.scratch = plan->scratch_bytes = CML_ARENA_NEW_ARRAY(a, uint64_t, g->step_total);
  p.args = cml_arena_array(&temporary, g->max_args + 1, sizeof *p.args);
  p.outs = cml_arena_array(&temporary, g->max_outs + 1, sizeof *p.outs);
  bool ok = plan->types && plan->offsets && plan->scratch && plan->dynamic && plan->skip && p.root_of && p.first && p.last && p.pinned &&
            p.scratch && p.args && p.outs;
  cml_status status = ok ? plan_all(&p, input_types, err) : cml_fail_memory(err);
  cml_arena_free(&temporary);
  if (status) cml_plan_destroy(plan);
  else *out = plan;
  return status;
}

void cml_plan_destroy(cml_plan *plan) {
  if (!plan) return;
  for (size_t i = 0; i < plan->computed_count; i++) {
    cml_slot_clear(plan->computed[i]);
    free(plan->computed[i]);
  }
  free(plan->computed);
  cml_arena_free(&plan->arena);
  free(plan);
}
