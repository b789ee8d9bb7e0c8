/* The order of the steps: any in which values are made before they are used gives the same results, but not the same peak of
 * memory. Programs are written in an order that is mostly good; two others are tried, and taken when they need less:
 *   depth first  before a step what it uses, one argument after the other: first the one whose making needs the most beyond what
 *                it leaves (Sethi and Ullman's order, the best one for trees)
 *   greedy       of the steps that could run, the one that leaves the least alive
 * Random numbers, states, blocks and what depends on data stay where they are, and nothing moves across them. */
#include <stdlib.h>

#include "plan.h"

enum { GREEDY_STEPS = 4096 /* the greedy order looks at all steps that could run, each time */ };
static const uint32_t NONE = UINT32_MAX;

typedef struct edge {
  uint32_t step;
  uint64_t weight; /* of what a step needs: the bytes that making it takes beyond what it leaves */
} edge;

/* Lists by step: those of step i are items[from[i]] up to items[from[i + 1]]. A segment is what lies between two steps that stay. */
typedef struct sorter {
  const cml_planner *p;
  uint32_t steps;
  uint32_t *used, *used_from;    /* roots that a step uses, each once */
  edge *needs;                   /* steps of its segment that make what it uses, each once */
  uint32_t *needs_from;
  uint32_t *users, *users_from;  /* the same the other way round */
  uint32_t *segment, *reuse;     /* by step; the root whose memory its output may take over */
  uint32_t *maker;               /* by value: its step */
  uint32_t *times;               /* by root: how many steps use it, and the program's outputs */
  uint64_t *bytes;               /* by root */
  uint64_t *made;                /* by step: bytes of its outputs */
  uint32_t *seen_root, *seen_step; /* by the step (from 1) that saw them last */
  uint32_t *left, *waits, *next, *stack; /* work: by root, and by step */
} sorter;

static const cml_step *step_of(const sorter *s, uint32_t i) { return &s->p->g->body.steps[i]; }

/* ---- who uses what ---- */

static void use(sorter *s, uint32_t value, uint32_t step) {
  uint32_t r = cml_planner_view_root(s->p, value), maker = s->maker[value];
  if (s->bytes[r] && s->seen_root[r] != step + 1) {
    s->seen_root[r] = step + 1;
    s->times[r]++;
    s->used[s->used_from[step + 1]++] = r;
  }
  if (maker != NONE && s->segment[maker] == s->segment[step] && s->seen_step[maker] != step + 1) {
    s->seen_step[maker] = step + 1;
    s->needs[s->needs_from[step + 1]++].step = maker;
    s->users_from[maker + 1]++;
  }
}

static uint32_t reusable(const sorter *s, const cml_step *t) {
  size_t candidates = t->op->flags & CML_OP_IN_PLACE ? t->arg_count : t->op->flags & CML_OP_IN_PLACE_FIRST ? t->arg_count > 0 : 0;
  const cml_tensor *types = s->p->plan->types;
  for (size_t i = 0; i < candidates; i++) {
    const cml_tensor *a = &types[t->args[i]], *out = &types[t->outs[0]];
    uint32_t r = cml_planner_view_root(s->p, t->args[i]);
    if (s->bytes[r] && a->dtype == out->dtype && cml_tensor_same_shape(a, out)) return r;
  }
  return NONE;
}

static void link_steps(sorter *s) {
  const cml_planner *p = s->p;
  uint32_t segment = 0;
  for (uint32_t v = 0; v < p->g->value_count; v++) s->maker[v] = NONE;
  for (uint32_t i = 0; i < s->steps; i++) {
    const cml_step *t = step_of(s, i);
    bool idle = t->folded || p->plan->skip[t->index];
    bool stays = t->op->flags & (CML_OP_IMPURE | CML_OP_CONTROL) || p->plan->dynamic[t->index];
    s->segment[i] = segment += stays;
    segment += stays;
    s->used_from[i + 1] = s->used_from[i];
    s->needs_from[i + 1] = s->needs_from[i];
    size_t used = idle ? 0 : cml_planner_uses(p, t);
    for (size_t k = 0; k < used; k++) use(s, p->used[k], i);
    s->reuse[i] = idle ? NONE : reusable(s, t);
    for (size_t k = 0; k < t->out_count && !idle; k++) {
      uint32_t v = t->outs[k];
      uint64_t bytes;
      s->maker[v] = i;
      if (p->within[v] == v && !p->pinned[v] && cml_tensor_bytes(&p->plan->types[v], &bytes)) s->made[i] += s->bytes[v] = cml_planner_padded(bytes);
    }
  }
  for (size_t i = 0; i < p->g->body.output_count; i++) s->times[cml_planner_view_root(p, p->g->body.outputs[i])]++;
  for (uint32_t i = 0; i < s->steps; i++) s->users_from[i + 1] += s->users_from[i];
  memcpy(s->next, s->users_from, s->steps * sizeof *s->next);
  for (uint32_t i = 0; i < s->steps; i++)
    for (uint32_t k = s->needs_from[i]; k < s->needs_from[i + 1]; k++) s->users[s->next[s->needs[k].step]++] = i;
}

/* ---- what an order needs ---- */

/* Bytes of step i's output that lie in an argument which dies there. */
static uint64_t reused(const sorter *s, uint32_t i) {
  uint32_t r = s->reuse[i];
  return r != NONE && s->left[r] == 1 && s->made[i] ? s->bytes[r] : 0;
}

/* Runs step i: its arguments that nobody else waits for die. Returns their bytes. */
static uint64_t spend(sorter *s, uint32_t i) {
  uint64_t freed = 0;
  for (uint32_t k = s->used_from[i]; k < s->used_from[i + 1]; k++)
    if (--s->left[s->used[k]] == 0) freed += s->bytes[s->used[k]];
  const cml_step *t = step_of(s, i);
  for (size_t k = 0; k < t->out_count; k++)
    if (s->maker[t->outs[k]] == i && !s->left[t->outs[k]]) freed += s->bytes[t->outs[k]]; /* nobody wants it */
  return freed;
}

static void start_over(sorter *s) { memcpy(s->left, s->times, s->p->g->value_count * sizeof *s->left); }

static uint64_t peak_of(sorter *s, const uint32_t *order) {
  uint64_t live = 0, peak = 0;
  start_over(s);
  for (uint32_t k = 0; k < s->steps; k++) {
    uint32_t i = order[k];
    uint64_t scratch = s->p->scratch[step_of(s, i)->index];
    live += s->made[i];
    uint64_t now = live - reused(s, i) + (scratch ? cml_planner_padded(scratch) : 0);
    if (now > peak) peak = now;
    live -= spend(s, i);
  }
  return peak;
}

/* ---- the two orders ---- */

static int heavy_first(const void *a, const void *b) {
  const edge *x = a, *y = b;
  return x->weight != y->weight ? (x->weight < y->weight ? 1 : -1) : x->step < y->step ? -1 : x->step > y->step;
}

/* Leaves each step's needs with the heaviest first. */
static void weigh(sorter *s, uint64_t *need) {
  for (uint32_t i = 0; i < s->steps; i++) {
    edge *e = s->needs + s->needs_from[i];
    size_t n = s->needs_from[i + 1] - s->needs_from[i];
    uint64_t held = 0;
    for (size_t k = 0; k < n; k++) e[k].weight = need[e[k].step] - s->made[e[k].step];
    qsort(e, n, sizeof *e, heavy_first);
    need[i] = 0;
    for (size_t k = 0; k < n; k++) {
      if (held + need[e[k].step] > need[i]) need[i] = held + need[e[k].step];
      held += s->made[e[k].step];
    }
    if (held + s->made[i] > need[i]) need[i] = held + s->made[i];
  }
}

static void depth_first(sorter *s, uint32_t *order) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < s->steps; i++) s->next[i] = s->needs_from[i], s->waits[i] = 0; /* waits: 1 once it was begun */
  for (uint32_t i = 0; i < s->steps; i++) {
    if (s->waits[i] || s->users_from[i + 1] > s->users_from[i]) continue; /* begins at steps that nobody in their segment needs */
    uint32_t depth = 0;
    s->stack[depth++] = i;
    s->waits[i] = 1;
    while (depth) {
      uint32_t t = s->stack[depth - 1];
      if (s->next[t] == s->needs_from[t + 1]) {
        order[count++] = t;
        depth--;
        continue;
      }
      uint32_t child = s->needs[s->next[t]++].step;
      if (!s->waits[child]) s->waits[child] = 1, s->stack[depth++] = child;
    }
  }
}

/* What step i would add to what is alive; negative when it frees more. */
static int64_t growth(const sorter *s, uint32_t i) {
  int64_t bytes = (int64_t)s->made[i];
  for (uint32_t k = s->used_from[i]; k < s->used_from[i + 1]; k++)
    if (s->left[s->used[k]] == 1) bytes -= (int64_t)s->bytes[s->used[k]];
  return bytes;
}

static void greedy_segment(sorter *s, uint32_t begin, uint32_t end, uint32_t *order) {
  uint32_t ready = 0;
  for (uint32_t i = begin; i < end; i++)
    if (!(s->waits[i] = s->needs_from[i + 1] - s->needs_from[i])) s->stack[ready++] = i;
  for (uint32_t k = begin; k < end; k++) {
    uint32_t best = 0;
    int64_t least = INT64_MAX;
    for (uint32_t c = 0; c < ready; c++) {
      int64_t g = growth(s, s->stack[c]);
      if (g < least || (g == least && s->stack[c] < s->stack[best])) least = g, best = c;
    }
    uint32_t i = s->stack[best];
    s->stack[best] = s->stack[--ready];
    order[k] = i;
    spend(s, i);
    for (uint32_t u = s->users_from[i]; u < s->users_from[i + 1]; u++)
      if (--s->waits[s->users[u]] == 0) s->stack[ready++] = s->users[u];
  }
}

static void greedy(sorter *s, uint32_t *order) {
  start_over(s);
  for (uint32_t begin = 0, end; begin < s->steps; begin = end) {
    for (end = begin + 1; end < s->steps && s->segment[end] == s->segment[begin];) end++;
    greedy_segment(s, begin, end, order);
  }
}

static bool allocate(sorter *s, cml_arena *a) {
  size_t values = s->p->g->value_count, steps = s->steps, args = s->p->use_total;
  uint32_t **const by_value[] = {&s->maker, &s->times, &s->seen_root, &s->left};
  uint32_t **const by_step[] = {&s->used_from, &s->needs_from, &s->users_from, &s->segment, &s->reuse, &s->seen_step, &s->waits, &s->next, &s->stack};
  bool ok = true;
  for (size_t i = 0; i < sizeof by_value / sizeof *by_value; i++) ok = (*by_value[i] = CML_ARENA_NEW_ARRAY(a, uint32_t, values + 1)) && ok;
  for (size_t i = 0; i < sizeof by_step / sizeof *by_step; i++) ok = (*by_step[i] = CML_ARENA_NEW_ARRAY(a, uint32_t, steps + 2)) && ok;
  s->used = CML_ARENA_NEW_ARRAY(a, uint32_t, args + 1);
  s->users = CML_ARENA_NEW_ARRAY(a, uint32_t, args + 1);
  s->needs = CML_ARENA_NEW_ARRAY(a, edge, args + 1);
  s->bytes = CML_ARENA_NEW_ARRAY(a, uint64_t, values + 1);
  s->made = CML_ARENA_NEW_ARRAY(a, uint64_t, steps + 1);
  return ok && s->used && s->users && s->needs && s->bytes && s->made;
}

cml_status cml_planner_order(const cml_planner *p, uint32_t *order, bool *better, cml_error *err) {
  cml_arena memory = CML_ARENA_INIT;
  sorter s = {.p = p, .steps = (uint32_t)p->g->body.step_count};
  uint32_t *other = CML_ARENA_NEW_ARRAY(&memory, uint32_t, (size_t)s.steps + 1);
  uint64_t *need = CML_ARENA_NEW_ARRAY(&memory, uint64_t, (size_t)s.steps + 1);
  bool ok = allocate(&s, &memory) && other && need;
  *better = false;
  if (ok) {
    link_steps(&s);
    for (uint32_t i = 0; i < s.steps; i++) order[i] = i;
    uint64_t least = peak_of(&s, order);
    least -= least / 64; /* less is not worth a change */
    weigh(&s, need);
    for (int k = 0; k < (s.steps > GREEDY_STEPS ? 1 : 2); k++) {
      (k ? greedy : depth_first)(&s, other);
      uint64_t peak = peak_of(&s, other);
      if (peak >= least) continue;
      least = peak;
      *better = true;
      memcpy(order, other, s.steps * sizeof *order);
    }
  }
  cml_arena_free(&memory);
  return ok ? CML_OK : cml_fail_memory(err);
}
