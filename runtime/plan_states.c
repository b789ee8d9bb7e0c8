/* States without copies: what is read of a state is its own memory, and what works in place on that memory changes the state, so
 * that writing it back has nothing left to do. A cache of keys and values then costs the rows that are new.
 *
 * That is the same as copying as long as nobody looks at old values after the memory has changed: all uses of what was read lie
 * before the next write to the state; and what changes the memory is the last of them, with nothing else alive that was read of
 * the state, and makes what is written next. States that blocks touch are copied. */
#include <stdlib.h>

#include "plan.h"

static const uint32_t NONE = UINT32_MAX;

typedef struct state_access {
  uint32_t state, position;
  uint32_t read, written; /* values, or NONE; an update writes, then reads */
} state_access;

typedef struct sharer {
  cml_planner *p;
  uint32_t *last;   /* by value: the last position that uses it or its views */
  bool *in_blocks;  /* by value: used in a block */
  state_access *accesses;
  size_t count;
} sharer;

static void find_uses(sharer *h) {
  const cml_planner *p = h->p;
  const cml_graph_block *body = &p->g->body;
  for (uint32_t i = 0; i < body->step_count; i++) {
    const cml_step *s = cml_planner_step(p, i);
    size_t used = cml_planner_uses(p, s);
    for (size_t k = 0; k < used; k++) {
      h->last[p->used[k]] = i;
      if (k >= s->arg_count) h->in_blocks[p->used[k]] = true;
    }
    /* by the operators' parameters: a state first, then what is written */
    if (!s->arg_count || p->g->values[s->args[0]].role != CML_ROLE_STATE) continue;
    h->accesses[h->count++] = (state_access){s->args[0], i, s->out_count ? s->outs[0] : NONE, s->arg_count > 1 ? s->args[1] : NONE};
  }
  for (size_t i = 0; i < body->output_count; i++) h->last[body->outputs[i]] = (uint32_t)body->step_count;
  for (uint32_t i = (uint32_t)body->step_count; i-- > 0;) {
    const cml_step *s = cml_planner_step(p, i);
    if (s->out_count && p->within[s->outs[0]] != s->outs[0] && h->last[s->outs[0]] > h->last[s->args[0]]) h->last[s->args[0]] = h->last[s->outs[0]];
  }
}

/* What the step at `position` makes of `value` in its memory, or NONE. */
static uint32_t changed(const sharer *h, uint32_t position, uint32_t value) {
  cml_planner *p = h->p;
  if (position >= p->g->body.step_count) return NONE;
  const cml_step *s = cml_planner_step(p, position);
  if (s->folded || p->plan->skip[s->index] || p->plan->dynamic[s->index] || !(s->op->flags & (CML_OP_IN_PLACE | CML_OP_IN_PLACE_FIRST)) ||
      s->args[0] != value)
    return NONE;
  const cml_tensor *from = &p->plan->types[value], *to = &p->plan->types[s->outs[0]];
  bool fits = from->dtype == to->dtype && cml_tensor_same_shape(from, to) && p->within[s->outs[0]] == s->outs[0];
  for (size_t k = 1; k < s->arg_count; k++) fits = fits && cml_planner_root(p, s->args[k], NULL) != cml_planner_root(p, value, NULL);
  return fits ? s->outs[0] : NONE;
}

/* Whether `from` turns, step by step in place, into what is written at position `write`. busy: until when other values of the
 * state are used. */
static bool becomes(const sharer *h, uint32_t from, uint32_t written, uint32_t write, int64_t busy) {
  for (uint32_t v = from; v != written;) {
    uint32_t at = h->last[v];
    if (at >= write || busy >= (int64_t)at || (v = changed(h, at, v)) == NONE) return false;
  }
  return true;
}

static size_t next_write(const state_access *a, size_t i, size_t count) {
  for (i++; i < count && a[i].written == NONE;) i++;
  return i;
}

static uint32_t write_position(const state_access *a, size_t i, size_t count) { return i < count ? a[i].position : UINT32_MAX; }

/* a: one state's accesses in order. */
static void share(sharer *h, const state_access *a, size_t count) {
  cml_planner *p = h->p;
  int64_t busy = -1;
  for (size_t i = 0; i < count; i++) {
    uint32_t v = a[i].read;
    size_t w = next_write(a, i, count);
    if (v == NONE || p->within[v] != v || p->pinned[v] || h->last[v] > write_position(a, w, count)) continue;
    int64_t until = h->last[v];
    p->within[v] = a[i].state;
    if (w == i + 1 && w < count && h->last[a[w].written] <= write_position(a, next_write(a, w, count), count) &&
        becomes(h, v, a[w].written, a[w].position, busy)) {
      for (uint32_t u = v; u != a[w].written;) {
        u = changed(h, h->last[u], u);
        until = h->last[u];
        p->within[u] = a[i].state;
      }
    }
    if (until > busy) busy = until;
  }
}

static int by_state(const void *a, const void *b) {
  const state_access *x = a, *y = b;
  return x->state != y->state ? (x->state < y->state ? -1 : 1) : x->position < y->position ? -1 : 1;
}

cml_status cml_planner_states(cml_planner *p, cml_error *err) {
  const cml_graph *g = p->g;
  bool any = false;
  for (size_t v = 0; v < g->value_count && !any; v++) any = g->values[v].role == CML_ROLE_STATE;
  if (!any) return CML_OK;
  sharer h = {.p = p};
  h.last = calloc(g->value_count + 1, sizeof *h.last);
  h.in_blocks = calloc(g->value_count + 1, sizeof *h.in_blocks);
  h.accesses = calloc(g->body.step_count + 1, sizeof *h.accesses);
  bool ok = h.last && h.in_blocks && h.accesses;
  if (ok) {
    find_uses(&h);
    qsort(h.accesses, h.count, sizeof *h.accesses, by_state);
    for (size_t i = 0, n; i < h.count; i += n) {
      for (n = 1; i + n < h.count && h.accesses[i + n].state == h.accesses[i].state;) n++;
      if (!h.in_blocks[h.accesses[i].state]) share(&h, h.accesses + i, n);
    }
  }
  free(h.last);
  free(h.in_blocks);
  free(h.accesses);
  return ok ? CML_OK : cml_fail_memory(err);
}
