/* Parts of a whole: what concat joins can be computed where it will lie, and what split gives can be read where it is. Along the
 * last dimension (the channels of images that have them last) a part has its rows apart, if its maker can write and all who use it
 * can read them so; the whole may be such a part itself.
 *
 * The whole then lives as long as its parts do, which can take more memory than the copies. A whole is made only where that does
 * not lift the peak; late parts are tried alone when all of them would. */
#include <stdlib.h>

#include "plan.h"

enum { ALIGNMENT = 64 }; /* of parts in their whole: vectors at other places are slower */

typedef struct part {
  uint32_t root, first;
  uint64_t offset;
} part;

/* One step's parts: `base` bytes and their offsets from the start of the whole's root. */
typedef struct joint {
  uint32_t step, whole;
  uint64_t base;
  uint32_t host; /* the value that has the rows */
  bool cut;      /* by a step that need not run to make them */
  int64_t row;   /* as in cml_op */
  const uint32_t *values;
  size_t count;
} joint;

typedef struct joiner {
  cml_planner *p;
  uint64_t *live, peak;   /* bytes by step, and the most of them */
  uint64_t *offsets;      /* of one step's parts */
  uint32_t *seen;         /* by value: the last step, from 1, that took it as a part */
  part *parts;
} joiner;

static bool is_root(const cml_planner *p, uint32_t v) { return p->within[v] == v && !p->pinned[v]; }

static uint64_t bytes_of(const cml_planner *p, uint32_t v) {
  uint64_t bytes;
  return cml_tensor_bytes(&p->plan->types[v], &bytes) ? bytes : 0;
}

/* Bytes come (or go, negative by wrapping) at the steps of a root's life. */
static void add_life(joiner *j, uint32_t first, uint32_t last, uint64_t bytes) {
  for (uint32_t i = first; i <= last; i++) j->live[i] += bytes;
}

static void add_root(joiner *j, uint32_t r, bool comes) {
  uint64_t bytes = cml_planner_padded(bytes_of(j->p, r));
  add_life(j, j->p->first[r], j->p->last[r], comes ? bytes : 0 - bytes);
}

/* Moves the first n parts into the whole unless that lifts the peak. */
static bool try_parts(joiner *j, uint32_t whole, size_t n) {
  cml_planner *p = j->p;
  uint32_t first = p->first[whole], last = p->last[whole];
  uint64_t bytes = cml_planner_padded(bytes_of(p, whole));
  for (size_t i = 0; i < n; i++) {
    uint32_t r = j->parts[i].root;
    if (p->first[r] < first) first = p->first[r];
    if (p->last[r] > last) last = p->last[r];
    add_root(j, r, false);
  }
  add_root(j, whole, false);
  add_life(j, first, last, bytes);
  bool fits = true;
  for (uint32_t i = first; i <= last && fits; i++) fits = j->live[i] <= j->peak;
  if (!fits) {
    add_life(j, first, last, 0 - bytes);
    add_root(j, whole, true);
    for (size_t i = 0; i < n; i++) add_root(j, j->parts[i].root, true);
    return false;
  }
  for (size_t i = 0; i < n; i++) {
    p->within[j->parts[i].root] = whole;
    p->inner[j->parts[i].root] = j->parts[i].offset;
  }
  p->first[whole] = first;
  p->last[whole] = last;
  return p->parted[whole] = true;
}

static int late_first(const void *a, const void *b) {
  const part *x = a, *y = b;
  return x->first != y->first ? (x->first < y->first ? 1 : -1) : x->root < y->root ? -1 : 1;
}


static void join(joiner *j, const joint *t) {
  cml_planner *p = j->p;
  size_t n = 0;
  for (size_t i = 0; i < t->count; i++) {
    uint64_t inner, at = t->base + j->offsets[i];
    uint32_t v = t->values[i], r = cml_planner_root(p, v, &inner);
    if (r == t->whole || inner || !is_root(p, r) || j->seen[r] == t->step + 1 || !bytes_of(p, r) || bytes_of(p, r) != bytes_of(p, v)) continue;
    if (t->row ? r != v || p->dense[v] || p->spaced_uses[v] != p->uses[v] || !(t->cut || p->spaces_rows[p->maker[v]]) : at % ALIGNMENT) continue;
    j->seen[r] = t->step + 1;
    j->parts[n++] = (part){r, p->first[r], at};
  }
  qsort(j->parts, n, sizeof *j->parts, late_first);
  while (n && !try_parts(j, t->whole, n)) n /= 2;
  for (size_t i = 0; i < n; i++) p->row[j->parts[i].root] = t->row, p->host[j->parts[i].root] = t->host;
  if (n && !t->row) p->dense[t->whole] = true;
}

static void join_step(joiner *j, uint32_t i) {
  cml_planner *p = j->p;
  const cml_step *s = cml_planner_step(p, i);
  if (s->folded || !s->op->parts || p->plan->skip[s->index] || p->plan->dynamic[s->index]) return;
  cml_call c = cml_planner_call(p, s);
  for (size_t k = 0; k < s->arg_count; k++)
    if (!cml_tensor_known_shape(p->args[k])) return;
  joint t = {.step = i, .whole = s->outs[0], .host = s->outs[0], .values = s->outs, .count = s->out_count};
  switch (s->op->parts(&c, j->offsets, &t.row)) {
    case CML_PARTS_NONE: return;
    case CML_PARTS_OF_OUTPUT:
      t.values = s->args + s->first[0];
      t.count = (size_t)(s->first[1] - s->first[0]);
      break;
    case CML_PARTS_OF_ARGUMENT:
      t.whole = cml_planner_root(p, s->args[0], &t.base);
      t.host = s->args[0];
      t.cut = true;
      if (!t.row && p->row[t.host]) return;
      break;
  }
  if (is_root(p, t.whole)) join(j, &t);
}

static void count_live(joiner *j) {
  const cml_planner *p = j->p;
  const cml_graph *g = p->g;
  for (uint32_t i = 0; i < g->body.step_count; i++) {
    const cml_step *s = cml_planner_step(p, i);
    if (p->scratch[s->index]) j->live[i] += cml_planner_padded(p->scratch[s->index]);
    for (size_t k = 0; k < s->out_count; k++)
      if (is_root(p, s->outs[k])) add_root(j, s->outs[k], true);
  }
  for (size_t i = 0; i <= g->body.step_count; i++)
    if (j->live[i] > j->peak) j->peak = j->live[i];
}

cml_status cml_planner_parts(cml_planner *p, cml_error *err) {
  const cml_graph *g = p->g;
  size_t most = g->max_args > g->max_outs ? g->max_args : g->max_outs;
  joiner j = {.p = p};
  j.live = calloc(g->body.step_count + 2, sizeof *j.live);
  j.offsets = calloc(most + 1, sizeof *j.offsets);
  j.seen = calloc(g->value_count + 1, sizeof *j.seen);
  j.parts = calloc(most + 1, sizeof *j.parts);
  bool ok = j.live && j.offsets && j.seen && j.parts;
  if (ok) count_live(&j);
  for (uint32_t i = 0; ok && i < g->body.step_count; i++) join_step(&j, i);
  free(j.live);
  free(j.offsets);
  free(j.seen);
  free(j.parts);
  return ok ? CML_OK : cml_fail_memory(err);
}
