/* One arena for all values of the function's body and the scratch of its steps, by lifetime.
 *
 * With the input shapes fixed, inference is run over the steps again; what follows from shapes alone is computed now. A value
 * lives from the step that makes it to the last that uses it (a control-flow step uses what its blocks use). Views share the
 * memory of what they look at, an operator that works in place takes over its dying argument's, parts may lie in their whole
 * (plan_parts.c) and what is read of states in these (plan_states.c), so lifetimes belong to roots. place.c gives these their places. */
#include "place.h"
#include "plan.h"

#include <stdlib.h>

static const uint32_t NO_VALUE = UINT32_MAX;

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
static cml_status compute_now(cml_planner *p, const cml_step *s, bool *done, cml_error *err) {
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

cml_call cml_planner_call(cml_planner *p, const cml_step *s) {
  for (size_t i = 0; i < s->arg_count; i++) p->args[i] = &p->plan->types[s->args[i]];
  for (size_t i = 0; i < s->out_count; i++) p->outs[i] = &p->plan->types[s->outs[i]];
  return (cml_call){.op = s->op, .name = s->name, .opset = p->g->opset, .args = p->args, .first = s->first, .outs = p->outs,
                    .out_count = s->out_count, .arg_constant = s->arg_constant, .declared = s->declared, .prepared = s->prepared,
                    .pool = p->g->pool, .step = s};
}

static cml_status infer_step(cml_planner *p, const cml_step *s, cml_error *err) {
  cml_plan *plan = p->plan;
  cml_call c = cml_planner_call(p, s);
  if (s->op->elementwise) c.spaces_rows = true, c.spaced_args = UINT64_MAX;
  for (size_t i = 0; i < s->out_count; i++) *p->outs[i] = (cml_tensor){.rank = CML_RANK_UNKNOWN};
  CML_TRY(s->op->infer(&c, err));
  for (size_t i = 0; i < s->arg_count; i++) /* what the results' shapes do not say may still be wrong, and scratch memory needs */
    if (!cml_tensor_known_shape(p->args[i])) plan->dynamic[s->index] = true;
  for (size_t i = 0; i < s->out_count; i++)
    if (!cml_tensor_known_shape(p->outs[i]) || !p->outs[i]->dtype) plan->dynamic[s->index] = true;
  if (s->op->flags & CML_OP_CONTROL) plan->dynamic[s->index] = true;
  CML_TRY(cml_scratch_check(c.scratch_size, err));
  p->spaces_rows[s->index] = c.spaces_rows;
  p->spaced_args[s->index] = plan->dynamic[s->index] ? 0 : c.spaced_args;
  p->scratch[s->index] = plan->dynamic[s->index] ? 0 : c.scratch_size;
  return compute_now(p, s, &plan->skip[s->index], err);
}

/* ---- lifetimes ---- */

/* out may be NULL: to count. */
static size_t list_uses(const cml_step *s, uint32_t *out, size_t n) {
  for (size_t k = 0; k < s->arg_count; k++, n++)
    if (out) out[n] = s->args[k];
  for (size_t b = 0; b < s->block_count; b++) {
    const cml_graph_block *block = s->blocks[b];
    for (size_t i = 0; i < block->step_count; i++) n = list_uses(&block->steps[i], out, n);
    for (size_t i = 0; i < block->output_count; i++, n++)
      if (out) out[n] = block->outputs[i];
  }
  return n;
}

size_t cml_planner_uses(const cml_planner *p, const cml_step *s) { return list_uses(s, p->used, 0); }

uint32_t cml_planner_root(cml_planner *p, uint32_t v, uint64_t *inner) {
  uint64_t in = 0;
  uint32_t r = v;
  for (; p->within[r] != r; r = p->within[r]) in += p->inner[r];
  if (inner) *inner = in;
  while (v != r) { /* the next look-up is shorter */
    uint32_t next = p->within[v];
    uint64_t step = p->inner[v];
    p->within[v] = r;
    p->inner[v] = in;
    in -= step;
    v = next;
  }
  return r;
}

static uint32_t root_of(cml_planner *p, uint32_t v) { return cml_planner_root(p, v, NULL); }

static void use_value(cml_planner *p, uint32_t value, uint32_t step) {
  p->uses[value]++;
  p->plan->last[value] = step;
  uint32_t r = root_of(p, value);
  if (p->last[r] < step) p->last[r] = step;
}

static cml_status find_lifetimes(cml_planner *p, cml_error *err) {
  const cml_graph *g = p->g;
  for (uint32_t v = 0; v < g->value_count; v++) {
    p->within[v] = v;
    p->inner[v] = 0;
    p->first[v] = p->last[v] = 0;
    p->parted[v] = p->dense[v] = false;
    p->row[v] = 0;
    p->uses[v] = p->spaced_uses[v] = 0;
    p->pinned[v] = g->values[v].role != CML_ROLE_COMPUTED;
  }
  for (uint32_t i = 0; i < g->body.step_count; i++) {
    const cml_step *s = cml_planner_step(p, i);
    size_t used = cml_planner_uses(p, s);
    for (size_t k = 0; k < used; k++) use_value(p, p->used[k], i); /* what blocks use of the values around them lives until their step */
    for (size_t k = 0; k < s->arg_count && k < 64; k++) p->spaced_uses[s->args[k]] += p->spaced_args[s->index] >> k & 1;
    bool computed = s->folded || p->plan->skip[s->index];
    for (size_t k = 0; k < s->out_count; k++) {
      uint32_t v = s->outs[k];
      p->first[v] = p->last[v] = p->plan->last[v] = i;
      p->maker[v] = s->index;
      bool view = !computed && k == 0 && (s->op->flags & CML_OP_VIEW) && s->arg_count && !p->plan->types[s->args[0]].list;
      p->pinned[v] = computed || p->plan->dynamic[s->index] || !p->plan->types[v].dtype;
      if (view) p->within[v] = root_of(p, s->args[0]); /* which is used here: it is an argument */
    }
  }
  for (size_t i = 0; i < g->body.output_count; i++) use_value(p, g->body.outputs[i], (uint32_t)g->body.step_count);
  return g->plan_with & CML_PLAN_STATES ? cml_planner_states(p, err) : CML_OK;
}

/* The dying argument whose memory output 0 may take, or the output itself. */
static uint32_t in_place_source(cml_planner *p, const cml_step *s, uint32_t step) {
  uint32_t out = s->outs[0];
  if (!(s->op->flags & (CML_OP_IN_PLACE | CML_OP_IN_PLACE_FIRST))) return out;
  size_t candidates = s->op->flags & CML_OP_IN_PLACE ? s->arg_count : s->arg_count > 0;
  for (size_t i = 0; i < candidates; i++) {
    uint32_t v = s->args[i], r = root_of(p, v);
    const cml_tensor *t = &p->plan->types[v];
    const bool part = p->parted[r] && cml_tensor_count(t) != cml_tensor_count(&p->plan->types[r]);
    if (p->pinned[r] || part || p->last[r] != step || r == out || t->dtype != p->plan->types[out].dtype ||
        !cml_tensor_same_shape(t, &p->plan->types[out]))
      continue;
    bool only = true; /* the argument's memory may not be read under another name, too */
    for (size_t k = 0; k < s->arg_count; k++) only = only && (k == i || root_of(p, s->args[k]) != r);
    if (only) return r;
  }
  return out;
}

/* ---- places ---- */

static cml_status collect_roots(cml_planner *p, cml_root *roots, size_t *count, cml_error *err) {
  const cml_graph *g = p->g;
  *count = 0;
  for (uint32_t i = 0; i < g->body.step_count; i++) {
    const cml_step *s = cml_planner_step(p, i);
    if (p->scratch[s->index]) roots[(*count)++] = (cml_root){.value = NO_VALUE, .begin = i, .end = i, .bytes = cml_planner_padded(p->scratch[s->index])};
    for (size_t k = 0; k < s->out_count; k++) {
      uint32_t v = s->outs[k];
      uint64_t bytes;
      if (p->within[v] != v || p->pinned[v]) continue;
      uint32_t source = k == 0 ? in_place_source(p, s, i) : v;
      if (source != v) { /* one root from here on, which lives as long as the two of them */
        p->within[v] = source;
        p->parted[source] = p->parted[v];
        if (p->last[source] < p->last[v]) p->last[source] = p->last[v];
        continue;
      }
      if (!cml_tensor_bytes(&p->plan->types[v], &bytes))
        return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "operation '%s': its result is too large", s->name);
      roots[(*count)++] = (cml_root){.value = v, .begin = p->first[v], .bytes = cml_planner_padded(bytes)};
    }
  }
  for (size_t i = 0; i < *count; i++)
    if (roots[i].value != NO_VALUE) roots[i].end = p->last[roots[i].value];
  return CML_OK;
}

static cml_status find_roots(cml_planner *p, bool parts, cml_root *roots, size_t *count, cml_error *err) {
  CML_TRY(find_lifetimes(p, err));
  if (parts) CML_TRY(cml_planner_parts(p, err));
  CML_TRY(collect_roots(p, roots, count, err));
  return cml_place_peak(roots, *count, p->g->body.step_count, &p->plan->live_peak, err);
}

/* Parts in their wholes save copies, another order may save memory: both are taken where they do not make the peak higher. */
static cml_status find_best_roots(cml_planner *p, cml_root *roots, size_t *count, cml_error *err) {
  size_t steps = p->g->body.step_count;
  uint64_t least = UINT64_MAX;
  uint32_t *orders[] = {p->order, p->other};
  bool better = false, parts = false;
  size_t best = 0, last = 0;
  for (size_t i = 0; i < steps; i++) p->order[i] = (uint32_t)i, parts = parts || (p->g->plan_with & CML_PLAN_PARTS && p->g->body.steps[i].op->parts);
  if (p->g->plan_with & CML_PLAN_ORDER) {
    CML_TRY(find_lifetimes(p, err));
    CML_TRY(cml_planner_order(p, p->other, &better, err));
  }
  for (size_t k = 0; k < (better ? 4 : 2); k++) { /* with parts first: they win when nothing is lost */
    if (!(k & 1) && !parts) continue;
    p->order = orders[k / 2];
    CML_TRY(find_roots(p, !(k & 1), roots, count, err));
    if (p->plan->live_peak < least) least = p->plan->live_peak, best = k;
    last = k;
  }
  p->order = orders[best / 2];
  return best == last ? CML_OK : find_roots(p, !(best & 1), roots, count, err);
}

static cml_status place_roots(cml_planner *p, cml_error *err) {
  const cml_graph *g = p->g;
  cml_plan *plan = p->plan;
  size_t count = 0, room = g->value_count + g->body.step_count + 1;
  cml_root *roots = calloc(room, sizeof *roots);
  cml_status status = roots ? find_best_roots(p, roots, &count, err) : cml_fail_memory(err);
  if (!status) status = cml_place(roots, count, plan->live_peak, &plan->arena_size, err);
  for (size_t i = 0; i < count && !status; i++) {
    if (roots[i].value == NO_VALUE) plan->scratch[cml_planner_step(p, roots[i].begin)->index] = roots[i].offset;
    else plan->offsets[roots[i].value] = roots[i].offset;
  }
  for (uint32_t v = 0; v < g->value_count && !status; v++) {
    uint64_t inner;
    uint32_t r = cml_planner_root(p, v, &inner);
    plan->state[v] = r != v && g->values[r].role == CML_ROLE_STATE ? r : NO_VALUE;
    if (plan->offsets[r] != CML_NO_OFFSET) plan->offsets[v] = plan->offsets[r] + inner;
    uint32_t host = v;
    while (p->row[host] && p->row[p->host[host]]) host = p->host[host];
    plan->types[v].row = p->row[host];
  }
  memcpy(plan->order, p->order, g->body.step_count * sizeof *plan->order);
  free(roots);
  return status;
}

static cml_status plan_all(cml_planner *p, const cml_tensor *input_types, cml_error *err) {
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
  return place_roots(p, err);
}

cml_status cml_plan_create(const cml_graph *g, const cml_tensor *input_types, cml_plan **out, cml_error *err) {
  cml_plan *plan = calloc(1, sizeof *plan);
  if (!plan) return cml_fail_memory(err);
  cml_arena *a = &plan->arena, temporary = CML_ARENA_INIT;
  plan->types = CML_ARENA_NEW_ARRAY(a, cml_tensor, g->value_count);
  plan->offsets = CML_ARENA_NEW_ARRAY(a, uint64_t, g->value_count);
  plan->state = CML_ARENA_NEW_ARRAY(a, uint32_t, g->value_count);
  plan->last = CML_ARENA_NEW_ARRAY(a, uint32_t, g->value_count);
  plan->scratch = CML_ARENA_NEW_ARRAY(a, uint64_t, g->step_total);
  plan->dynamic = CML_ARENA_NEW_ARRAY(a, bool, g->step_total);
  plan->order = CML_ARENA_NEW_ARRAY(a, uint32_t, g->body.step_count + 1);
  plan->skip = CML_ARENA_NEW_ARRAY(a, bool, g->step_total);
  cml_planner p = {.g = g, .plan = plan};
  p.order = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->body.step_count + 1);
  p.other = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->body.step_count + 1);
  p.spaces_rows = CML_ARENA_NEW_ARRAY(&temporary, bool, g->step_total);
  p.spaced_args = CML_ARENA_NEW_ARRAY(&temporary, uint64_t, g->step_total);
  p.maker = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.uses = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.spaced_uses = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.within = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.inner = CML_ARENA_NEW_ARRAY(&temporary, uint64_t, g->value_count);
  p.parted = CML_ARENA_NEW_ARRAY(&temporary, bool, g->value_count);
  p.dense = CML_ARENA_NEW_ARRAY(&temporary, bool, g->value_count);
  p.row = CML_ARENA_NEW_ARRAY(&temporary, int64_t, g->value_count);
  p.host = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.first = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.last = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, g->value_count);
  p.pinned = CML_ARENA_NEW_ARRAY(&temporary, bool, g->value_count);
  p.scratch = plan->scratch_bytes = CML_ARENA_NEW_ARRAY(a, uint64_t, g->step_total);
  for (size_t i = 0; i < g->body.step_count; i++) p.use_total += list_uses(&g->body.steps[i], NULL, 0);
  p.used = CML_ARENA_NEW_ARRAY(&temporary, uint32_t, p.use_total + 1);
  p.args = cml_arena_array(&temporary, g->max_args + 1, sizeof *p.args);
  p.outs = cml_arena_array(&temporary, g->max_outs + 1, sizeof *p.outs);
  bool ok = plan->types && plan->order && plan->offsets && plan->state && plan->last && plan->scratch && plan->dynamic && plan->skip && p.order &&
            p.other && p.spaces_rows && p.spaced_args && p.maker && p.uses && p.spaced_uses && p.within && p.inner && p.parted && p.dense && p.row && p.host && p.first && p.last && p.pinned &&
            p.scratch && p.used && p.args && p.outs;
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
