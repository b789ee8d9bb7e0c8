/* Attention as converters write it out becomes one step that never holds all scores: matmul(q, k^T) -> * scale -> masks -> softmax ->
 * matmul(…, v). The scale is optional, or may be the query's and the key's; up to two masks may be added, or chosen by `select` (what they
 * leave out takes one number), for which the heads may be grouped in another way in between. Operands may lie with their rows as columns, the second product
 * may be that of the transposed matrices, keys and values may be shared by heads (broadcast): steps that say so are put before and after,
 * and `attention-views` makes strides of them. */
#include <math.h>
#include <stdlib.h>

#include "attention.h"
#include "passes.h"

enum { MOST_PARTS = 10 };

/* The step before that makes `value`, when nobody else uses it. */
static cml_step *maker(cml_graph *g, const cml_use *uses, size_t before, uint32_t value) {
  return value == CML_NO_VALUE || uses[value].count != 1 ? NULL : cml_pass_maker(g, before, value);
}

static bool truth(const cml_graph *g, const cml_step *s, const char *param) {
  uint32_t v = cml_pass_arg(s, param);
  return v != CML_NO_VALUE && cml_pass_type(g, v)->data && cml_tensor_get_int(cml_pass_type(g, v), 0);
}

static bool scalar_constant(const cml_graph *g, uint32_t v, float *out) {
  if (v == CML_NO_VALUE) return false;
  const cml_tensor *t = cml_pass_type(g, v);
  if (!t->data || !cml_dtype_is_float(t->dtype) || !cml_tensor_known_shape(t) || cml_tensor_count(t) != 1) return false;
  *out = (float)cml_tensor_get(t, 0);
  return true;
}

/* Whether the step multiplies one value by a constant number, or divides it. */
static bool scales(const cml_graph *g, const cml_step *s, uint32_t *x, float *factor) {
  const bool division = cml_pass_is(s, "real_div"), right = scalar_constant(g, cml_pass_arg(s, "y"), factor);
  if (!right && (division || !scalar_constant(g, cml_pass_arg(s, "x"), factor))) return false;
  if (division) *factor = 1 / *factor;
  *x = cml_pass_arg(s, right ? "x" : "y");
  return true;
}

typedef struct scores {
  uint32_t q, k, masks[CML_ATTENTION_MASKS], added_to[CML_ATTENTION_MASKS]; /* what they made, for its shape */
  bool inverted[CML_ATTENTION_MASKS];                                       /* true is what the mask leaves out */
  int mask_count;
  float scale, fill; /* what is left out */
  bool scaled, filled;
  bool q_turned, k_turned; /* with rows as columns */
  cml_step *turn;          /* a transpose that makes k so; or NULL */
  cml_step *parts[MOST_PARTS];
  size_t part_count;
} scores;

static bool same_rows(const cml_tensor *a, const cml_tensor *b) {
  return cml_tensor_known_shape(a) && cml_tensor_known_shape(b) && a->rank >= 3 && b->rank >= 3 && a->dims[a->rank - 1] == b->dims[b->rank - 1] &&
         a->dims[a->rank - 2] == b->dims[b->rank - 2];
}

static cml_tensor type_of(const cml_graph *g, uint32_t value, bool turned) {
  cml_tensor t = *cml_pass_type(g, value);
  int64_t columns = t.rank < 2 ? 0 : t.dims[t.rank - 1];
  if (turned && t.rank >= 2) t.dims[t.rank - 1] = t.dims[t.rank - 2], t.dims[t.rank - 2] = columns;
  t.data = NULL;
  return t;
}

/* A transposed key with its columns as rows, whatever else is transposed: the transpose does not swap the two then. */
static cml_status turn_back(cml_graph *g, cml_step *s, cml_error *err) {
  const cml_tensor *p = cml_pass_constant(g, s, "perm");
  cml_tensor *t = &g->values[s->outs[0]].type;
  int64_t perm[CML_MAX_RANK];
  for (int32_t i = 0, r = t->rank; i < r; i++) perm[i] = cml_tensor_get_int(p, i < r - 2 ? i : 2 * r - 3 - i);
  *t = type_of(g, s->outs[0], true);
  const cml_binding bindings[] = {{"x", cml_pass_arg(s, "x")}, {"perm", cml_pass_ints(g, perm, t->rank)}};
  if (bindings[1].value == CML_NO_VALUE) return cml_fail_memory(err);
  return cml_pass_become(g, s, "transpose", bindings, 2, err);
}

/* ---- what stands there ---- */

static bool walk(cml_graph *g, const cml_use *uses, size_t at, uint32_t value, scores *found);

static bool walk_mask(cml_graph *g, const cml_use *uses, size_t at, uint32_t value, uint32_t mask, uint32_t rest, scores *found) {
  scores tried = *found;
  tried.added_to[tried.mask_count] = value;
  tried.masks[tried.mask_count++] = mask;
  if (!cml_tensor_same_shape(cml_pass_type(g, rest), cml_pass_type(g, value)) || !walk(g, uses, at, rest, &tried)) return false;
  *found = tried;
  return true;
}

static bool walk_select(cml_graph *g, const cml_use *uses, size_t at, const cml_step *s, scores *found) {
  float fill;
  const uint32_t a = cml_pass_arg(s, "a"), b = cml_pass_arg(s, "b");
  bool inverted = !scalar_constant(g, b, &fill);
  if ((inverted && !scalar_constant(g, a, &fill)) || cml_pass_type(g, cml_pass_arg(s, "cond"))->dtype != CML_BOOL) return false;
  if (found->scaled) fill *= found->scale;
  if (found->filled && found->fill != fill) return false;
  found->filled = true, found->fill = fill;
  found->inverted[found->mask_count] = inverted;
  return walk_mask(g, uses, at, s->outs[0], cml_pass_arg(s, "cond"), inverted ? b : a, found);
}

/* Masks come first, between reshapes that group the heads in another way, then the scale. */
static bool walk(cml_graph *g, const cml_use *uses, size_t at, uint32_t value, scores *found) {
  cml_step *s = maker(g, uses, at, value);
  if (!s || found->part_count == MOST_PARTS) return false;
  found->parts[found->part_count++] = s;
  if (cml_pass_is(s, "reshape")) {
    uint32_t x = cml_pass_arg(s, "x");
    return same_rows(cml_pass_type(g, x), cml_pass_type(g, value)) && walk(g, uses, at, x, found);
  }
  if (cml_pass_is(s, "select")) return found->mask_count < CML_ATTENTION_MASKS && walk_select(g, uses, at, s, found);
  if (cml_pass_is(s, "add") && found->mask_count < CML_ATTENTION_MASKS && !found->scaled) {
    const uint32_t x = cml_pass_arg(s, "x"), y = cml_pass_arg(s, "y");
    return walk_mask(g, uses, at, value, y, x, found) || walk_mask(g, uses, at, value, x, y, found);
  }
  if ((cml_pass_is(s, "mul") || cml_pass_is(s, "real_div")) && !found->scaled) {
    uint32_t x;
    return (found->scaled = scales(g, s, &x, &found->scale)) && walk(g, uses, at, x, found);
  }
  if (!cml_pass_is(s, "matmul")) return false;
  found->q = cml_pass_arg(s, "x"), found->k = cml_pass_arg(s, "y");
  found->q_turned = truth(g, s, "transpose_x");
  if (truth(g, s, "transpose_y")) return true;
  found->turn = maker(g, uses, at, found->k);
  if (found->turn && !(cml_pass_is(found->turn, "transpose") && cml_pass_constant(g, found->turn, "perm"))) found->turn = NULL;
  found->k_turned = !found->turn;
  return true;
}

/* The softmax of rows that makes `value`, perhaps with the heads grouped in another way behind it. */
static cml_step *softmax_behind(cml_graph *g, const cml_use *uses, size_t at, uint32_t value, scores *found) {
  cml_step *s = maker(g, uses, at, value);
  found->part_count = 0;
  if (s && cml_pass_is(s, "reshape") && same_rows(cml_pass_type(g, cml_pass_arg(s, "x")), cml_pass_type(g, value))) {
    found->parts[found->part_count++] = s;
    s = maker(g, uses, at, cml_pass_arg(s, "x"));
  }
  if (!s || !cml_pass_is(s, "softmax")) return NULL;
  uint32_t axis_value = cml_pass_arg(s, "axis");
  int64_t axis = axis_value == CML_NO_VALUE || !cml_pass_type(g, axis_value)->data ? -1 : cml_tensor_get_int(cml_pass_type(g, axis_value), 0);
  if (axis != -1 && axis != cml_pass_type(g, s->outs[0])->rank - 1) return NULL;
  found->parts[found->part_count++] = s;
  return s;
}

/* ---- whether one step can do it ---- */

/* How the heads of keys and values are those of the query. */
typedef enum heads { SAME, SHARED, REGROUPED, OTHER } heads;

static heads heads_of(const cml_tensor *q, const cml_tensor *t, bool regroup) {
  int64_t n = 1, m = 1;
  heads h = t->rank == q->rank ? SAME : OTHER;
  for (int32_t i = 0; i < q->rank - 2 && h != OTHER; i++)
    if (t->dims[i] != q->dims[i]) h = t->dims[i] == 1 ? SHARED : OTHER;
  if (h != OTHER || !regroup) return h;
  for (int32_t i = 0; i < q->rank - 2; i++) n *= q->dims[i];
  for (int32_t i = 0; i < t->rank - 2; i++) m *= t->dims[i];
  return n == m ? REGROUPED : OTHER;
}

static bool fits(const cml_tensor *q, const cml_tensor *k, const cml_tensor *v) {
  int32_t r = q->rank;
  if (r < 3 || r > 6 || k->rank != r || v->rank < 3 || q->dtype != k->dtype || q->dtype != v->dtype) return false;
  if (q->dtype != CML_F16 && q->dtype != CML_F32) return false;
  if (!cml_tensor_known_shape(q) || !cml_tensor_known_shape(k) || !cml_tensor_known_shape(v)) return false;
  return q->dims[r - 1] == k->dims[r - 1] && k->dims[r - 2] == v->dims[v->rank - 2] && heads_of(q, k, false) != OTHER && heads_of(q, v, true) != OTHER;
}

/* The shape with the most dims in which a mask was added, or that of the scores as they were made. */
static void widest(const cml_graph *g, const scores *found, const cml_tensor *q, const cml_tensor *k, cml_tensor *out) {
  *out = *q;
  out->dims[out->rank - 1] = k->dims[k->rank - 2];
  for (int i = 0; i < found->mask_count; i++)
    if (cml_pass_type(g, found->added_to[i])->rank > out->rank) *out = *cml_pass_type(g, found->added_to[i]);
}

/* Whether the mask broadcasts to `all` as it did to the shape in which it was added. */
static bool mask_fits(const cml_graph *g, uint32_t mask, uint32_t added_to, const cml_tensor *all) {
  const cml_tensor *m = cml_pass_type(g, mask), *to = cml_pass_type(g, added_to);
  if (!cml_tensor_known_shape(m) || !cml_tensor_known_shape(to) || m->rank < 1 || m->rank > to->rank || (m->dtype != all->dtype && m->dtype != CML_BOOL)) return false;
  int32_t first = 0; /* of the dims of `to`, ones in front left out */
  while (first < to->rank - 2 && to->dims[first] == 1) first++;
  for (int32_t i = 1; i <= to->rank - first; i++) {
    bool alone = i == to->rank - first && (i > m->rank || m->dims[m->rank - i] == 1); /* the outermost, which the mask does not tell apart */
    if (!alone && (i > all->rank || all->dims[all->rank - i] != to->dims[to->rank - i])) return false;
  }
  return m->rank <= all->rank;
}

/* ---- the steps ---- */

typedef struct attention_pass {
  cml_graph *g;
  const cml_use *uses;
  cml_additions more;
} attention_pass;

static cml_status insert(attention_pass *p, size_t at, const char *type, const cml_binding *bindings, size_t count, uint32_t out, cml_error *err) {
  return cml_pass_add(p->g, &p->more, at, type, bindings, count, out, err);
}

static cml_status new_value(cml_graph *g, uint32_t like, const cml_tensor *type, uint32_t *out, cml_error *err) {
  *out = cml_pass_value(g, g->values[like].name, type, CML_ROLE_COMPUTED);
  return *out == CML_NO_VALUE ? cml_fail_memory(err) : CML_OK;
}

/* `to` is `from` with its rows as columns. */
static cml_status turn(attention_pass *p, size_t at, uint32_t from, uint32_t to, cml_error *err) {
  int32_t r = cml_pass_type(p->g, from)->rank;
  int64_t perm[CML_MAX_RANK];
  for (int32_t i = 0; i < r; i++) perm[i] = i < r - 2 ? i : 2 * r - 3 - i;
  return insert(p, at, "transpose", (const cml_binding[]){{"x", from}, {"perm", cml_pass_ints(p->g, perm, r)}}, 2, to, err);
}

static cml_status regroup(attention_pass *p, size_t at, uint32_t from, uint32_t to, cml_error *err) {
  const cml_tensor t = *cml_pass_type(p->g, to);
  return insert(p, at, "reshape", (const cml_binding[]){{"x", from}, {"shape", cml_pass_ints(p->g, t.dims, t.rank)}}, 2, to, err);
}

/* An operand with its rows as rows, and the query's heads. */
static cml_status bring(attention_pass *p, size_t at, const cml_tensor *q, bool turned, uint32_t *value, cml_error *err) {
  cml_graph *g = p->g;
  cml_tensor t = type_of(g, *value, turned);
  uint32_t to;
  if (turned) {
    CML_TRY(new_value(g, *value, &t, &to, err));
    CML_TRY(turn(p, at, *value, to, err));
    *value = to;
  }
  heads h = heads_of(q, &t, true);
  if (h == SAME) return CML_OK;
  cml_tensor grouped = t;
  int64_t times[CML_MAX_RANK];
  grouped.rank = q->rank;
  for (int32_t i = 0; i < q->rank; i++) {
    bool head = i < q->rank - 2;
    grouped.dims[i] = head ? q->dims[i] : t.dims[t.rank - q->rank + i];
    times[i] = head && h == SHARED ? q->dims[i] / t.dims[i] : 1;
  }
  CML_TRY(new_value(g, *value, &grouped, &to, err));
  if (h == REGROUPED) CML_TRY(regroup(p, at, *value, to, err));
  else CML_TRY(insert(p, at, "tile", (const cml_binding[]){{"x", *value}, {"reps", cml_pass_ints(g, times, q->rank)}}, 2, to, err));
  *value = to;
  return CML_OK;
}

/* A scale of one operand alone, made for this, becomes part of the scale of the scores; what else was done to the operand since then takes what was scaled. */
static cml_status take_scale(attention_pass *p, size_t at, uint32_t *value, float *scale, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = maker(g, p->uses, at, *value);
  float factor;
  if (s && (cml_pass_is(s, "transpose") || cml_pass_is(s, "reshape"))) {
    const uint32_t was = cml_pass_arg(s, "x");
    uint32_t x = was;
    CML_TRY(take_scale(p, at, &x, scale, err));
    return x == was ? CML_OK : cml_pass_become_like(g, s, s->op->name, s, &(cml_binding){"x", x}, 1, err);
  }
  uint32_t x;
  if (!s || !(cml_pass_is(s, "mul") || cml_pass_is(s, "real_div")) || !scales(g, s, &x, &factor)) return CML_OK;
  if (!cml_tensor_same_shape(cml_pass_type(g, x), cml_pass_type(g, *value))) return CML_OK;
  *scale *= factor, *value = x;
  s->op = NULL;
  return CML_OK;
}

/* A mask in which true keeps a key. */
static cml_status keep_mask(attention_pass *p, size_t at, bool inverted, uint32_t *mask, cml_error *err) {
  cml_tensor t = *cml_pass_type(p->g, *mask);
  uint32_t to;
  if (!inverted) return CML_OK;
  t.data = NULL;
  CML_TRY(new_value(p->g, *mask, &t, &to, err));
  CML_TRY(insert(p, at, "logical_not", &(cml_binding){"x", *mask}, 1, to, err));
  *mask = to;
  return CML_OK;
}

/* The result of `s` where the program has it: in another shape, with its rows as columns. */
static cml_status give_back(attention_pass *p, size_t at, cml_step *s, const cml_tensor *made, bool turned, cml_error *err) {
  cml_graph *g = p->g;
  const uint32_t result = s->outs[0];
  uint32_t *outs, as;
  cml_tensor lying = *made;
  if (turned) lying.dims[made->rank - 2] = made->dims[made->rank - 1], lying.dims[made->rank - 1] = made->dims[made->rank - 2];
  bool grouped = !cml_tensor_same_shape(&lying, cml_pass_type(g, result));
  if (!turned && !grouped) return CML_OK;
  if (!(outs = CML_ARENA_NEW(&g->arena, uint32_t))) return cml_fail_memory(err);
  CML_TRY(new_value(g, result, made, outs, err));
  s->outs = outs, s->declared = NULL;
  as = outs[0];
  if (turned) {
    uint32_t to = result;
    if (grouped) CML_TRY(new_value(g, result, &lying, &to, err));
    CML_TRY(turn(p, at, as, to, err));
    as = to;
  }
  return grouped ? regroup(p, at, as, result, err) : CML_OK;
}

static cml_status fuse(attention_pass *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *last = &g->body.steps[at], *soft;
  scores found = {.masks = {CML_NO_VALUE, CML_NO_VALUE}, .scale = 1};
  bool swapped = false, v_turned = truth(g, last, "transpose_y");
  uint32_t v = cml_pass_arg(last, "y");
  if (truth(g, last, "transpose_x") || !(soft = softmax_behind(g, p->uses, at, cml_pass_arg(last, "x"), &found))) {
    if (!v_turned || !(soft = softmax_behind(g, p->uses, at, v, &found))) return CML_OK;
    swapped = true, v = cml_pass_arg(last, "x"), v_turned = !truth(g, last, "transpose_x"); /* the product of the transposed matrices */
  }
  if (!walk(g, p->uses, at, cml_pass_arg(soft, "x"), &found)) return CML_OK;
  const cml_tensor q = type_of(g, found.q, found.q_turned), k = type_of(g, found.k, found.turn || found.k_turned), tv = type_of(g, v, v_turned);
  if (!fits(&q, &k, &tv)) return CML_OK;
  cml_tensor all, made = q;
  made.dims[q.rank - 1] = tv.dims[tv.rank - 1];
  widest(g, &found, &q, &k, &all);
  for (int i = 0; i < found.mask_count; i++)
    if (!mask_fits(g, found.masks[i], found.added_to[i], &all)) return CML_OK;
  if (cml_tensor_count(&made) != cml_tensor_count(cml_pass_type(g, last->outs[0]))) return CML_OK; /* its heads were more than the query's */
  CML_TRY(take_scale(p, at, &found.q, &found.scale, err));
  if (found.turn) {
    CML_TRY(turn_back(g, found.turn, err));
    found.k_turned = false;
  }
  CML_TRY(take_scale(p, at, &found.k, &found.scale, err));
  CML_TRY(bring(p, at, &q, found.q_turned, &found.q, err));
  CML_TRY(bring(p, at, &q, found.k_turned, &found.k, err));
  CML_TRY(bring(p, at, &q, v_turned, &v, err));
  for (int i = 0; i < found.mask_count; i++) CML_TRY(keep_mask(p, at, found.inverted[i], &found.masks[i], err));
  uint32_t batch = CML_NO_VALUE, fill = CML_NO_VALUE;
  if ((all.rank != q.rank || memcmp(all.dims, q.dims, (size_t)(q.rank - 2) * sizeof *q.dims)) && (batch = cml_pass_ints(g, all.dims, all.rank - 2)) == CML_NO_VALUE)
    return cml_fail_memory(err);
  if (found.filled && (fill = cml_pass_float(g, found.fill)) == CML_NO_VALUE) return cml_fail_memory(err);
  const cml_binding bindings[] = {{"query", found.q}, {"key", found.k}, {"value", v}, {"attn_mask", found.masks[0]}, {"scale", cml_pass_float(g, found.scale)},
                                  {"attn_mask_2", found.masks[1]}, {"batch", batch}, {"fill", fill}};
  CML_TRY(cml_pass_become(g, last, "cml_attention", bindings, sizeof bindings / sizeof *bindings, err));
  for (size_t i = 0; i < found.part_count; i++) found.parts[i]->op = NULL;
  return give_back(p, at + 1, last, &made, swapped, err);
}

cml_status cml_pass_attention(cml_graph *g, cml_error *err) {
  cml_use *uses = cml_pass_uses(g);
  if (!uses) return cml_fail_memory(err);
  attention_pass p = {.g = g, .uses = uses};
  cml_status status = CML_OK;
  for (size_t i = 0; i < g->body.step_count && !status; i++)
    if (cml_pass_is(&g->body.steps[i], "matmul")) status = fuse(&p, i, err);
  free(uses);
  return cml_pass_put_in(g, &p.more, status, err);
}
