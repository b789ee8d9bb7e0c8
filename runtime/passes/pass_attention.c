/* matmul(q, k^T) -> * scale -> + mask -> softmax -> matmul(…, v), as converters write attention out, becomes one step that never
 * holds all scores. The scale is optional, and up to two masks may be added (positions, and what windows leave out), for which the
 * heads may be grouped in another way in between. */

#include "attention.h"
#include "passes.h"

enum { MOST_PARTS = 10 };

/* The step before that makes `value`, when nobody else uses it. */
static cml_step *maker(cml_graph *g, const cml_use *uses, size_t before, uint32_t value) {
  if (value == CML_NO_VALUE || uses[value].count != 1) return NULL;
  for (size_t i = before; i-- > 0;) {
    cml_step *s = &g->body.steps[i];
    if (s->op && !s->folded && s->out_count == 1 && s->outs[0] == value) return s;
  }
  return NULL;
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

/* What is found on the way back from a softmax to the matrix product of query and key. */
typedef struct scores {
  uint32_t q, k, masks[CML_ATTENTION_MASKS], added_to[CML_ATTENTION_MASKS]; /* the sums with the masks, for their shapes */
  int mask_count;
  float scale;
  bool scaled;
  cml_step *turn; /* a transpose that makes k with its rows as columns; or NULL */
  cml_step *parts[MOST_PARTS];
  size_t part_count;
} scores;

static bool same_rows(const cml_tensor *a, const cml_tensor *b) {
  return cml_tensor_known_shape(a) && cml_tensor_known_shape(b) && a->rank >= 3 && b->rank >= 3 && a->dims[a->rank - 1] == b->dims[b->rank - 1] &&
         a->dims[a->rank - 2] == b->dims[b->rank - 2];
}

static bool same_shape(const cml_tensor *a, const cml_tensor *b) { return a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims); }

/* A transposed key with its columns as rows, whatever else is transposed: the transpose does not swap the two then. */
static cml_status turn_back(cml_graph *g, cml_step *s, cml_error *err) {
  const cml_tensor *p = cml_pass_constant(g, s, "perm");
  cml_tensor *t = &g->values[s->outs[0]].type;
  int64_t perm[CML_MAX_RANK], columns = t->dims[t->rank - 2];
  for (int32_t i = 0, r = t->rank; i < r; i++) perm[i] = cml_tensor_get_int(p, i < r - 2 ? i : 2 * r - 3 - i);
  t->dims[t->rank - 2] = t->dims[t->rank - 1];
  t->dims[t->rank - 1] = columns;
  const cml_binding bindings[] = {{"x", cml_pass_arg(s, "x")}, {"perm", cml_pass_ints(g, perm, t->rank)}};
  if (bindings[1].value == CML_NO_VALUE) return cml_fail_memory(err);
  return cml_pass_become(g, s, "transpose", bindings, 2, err);
}

/* Sums with masks come first, between reshapes that group the heads in another way, then the scale. */
static bool walk(cml_graph *g, const cml_use *uses, size_t at, uint32_t value, scores *found) {
  cml_step *s = maker(g, uses, at, value);
  if (!s || found->part_count == MOST_PARTS) return false;
  found->parts[found->part_count++] = s;
  if (cml_pass_is(s, "reshape")) {
    uint32_t x = cml_pass_arg(s, "x");
    return same_rows(cml_pass_type(g, x), cml_pass_type(g, value)) && walk(g, uses, at, x, found);
  }
  if (cml_pass_is(s, "add") && found->mask_count < CML_ATTENTION_MASKS && !found->scaled) {
    const uint32_t terms[] = {cml_pass_arg(s, "x"), cml_pass_arg(s, "y")};
    found->added_to[found->mask_count] = value;
    for (int i = 0; i < 2; i++) {
      scores tried = *found;
      tried.masks[tried.mask_count++] = terms[!i];
      if (!same_shape(cml_pass_type(g, terms[i]), cml_pass_type(g, value)) || !walk(g, uses, at, terms[i], &tried)) continue;
      *found = tried;
      return true;
    }
    return false;
  }
  if ((cml_pass_is(s, "mul") || cml_pass_is(s, "real_div")) && !found->scaled) {
    bool division = cml_pass_is(s, "real_div"), right = scalar_constant(g, cml_pass_arg(s, "y"), &found->scale);
    if (!right && (division || !scalar_constant(g, cml_pass_arg(s, "x"), &found->scale))) return false;
    if (division) found->scale = 1 / found->scale;
    found->scaled = true;
    return walk(g, uses, at, cml_pass_arg(s, right ? "x" : "y"), found);
  }
  found->q = cml_pass_arg(s, "x"), found->k = cml_pass_arg(s, "y");
  if (!cml_pass_is(s, "matmul") || truth(g, s, "transpose_x")) return false;
  if (truth(g, s, "transpose_y")) return true;
  found->turn = maker(g, uses, at, found->k);
  return found->turn && cml_pass_is(found->turn, "transpose") && cml_pass_constant(g, found->turn, "perm");
}

static bool fits(const cml_graph *g, const scores *found, uint32_t v) {
  const cml_tensor *a = cml_pass_type(g, found->q), *b = cml_pass_type(g, found->k), *c = cml_pass_type(g, v);
  int32_t r = a->rank, row = found->turn ? 1 : 2; /* of the key, from the end */
  if (r < 3 || r > 6 || b->rank != r || c->rank != r || a->dtype != b->dtype || a->dtype != c->dtype) return false;
  if (a->dtype != CML_F16 && a->dtype != CML_F32) return false;
  if (!cml_tensor_known_shape(a) || !cml_tensor_known_shape(b) || !cml_tensor_known_shape(c)) return false;
  for (int32_t i = 0; i < r - 2; i++)
    if (a->dims[i] != b->dims[i] || a->dims[i] != c->dims[i]) return false;
  return a->dims[r - 1] == b->dims[r - 3 + row] && b->dims[r - row] == c->dims[r - 2];
}

/* The shape with the most dims in which a mask was added, or that of the scores as they were made. */
static void widest(const cml_graph *g, const scores *found, cml_tensor *out) {
  const cml_tensor *q = cml_pass_type(g, found->q);
  *out = *q;
  out->dims[out->rank - 1] = cml_pass_type(g, found->k)->dims[q->rank - (found->turn ? 1 : 2)];
  for (int i = 0; i < found->mask_count; i++)
    if (cml_pass_type(g, found->added_to[i])->rank > out->rank) *out = *cml_pass_type(g, found->added_to[i]);
}

/* Whether the mask broadcasts to `all` as it did to the shape in which it was added. */
static bool mask_fits(const cml_graph *g, uint32_t mask, uint32_t added_to, const cml_tensor *all) {
  const cml_tensor *m = cml_pass_type(g, mask), *to = cml_pass_type(g, added_to);
  if (!cml_tensor_known_shape(m) || !cml_tensor_known_shape(to) || m->rank < 1 || m->rank > to->rank || m->dtype != all->dtype) return false;
  int32_t first = 0; /* of the dims of `to`, ones in front left out */
  while (first < to->rank - 2 && to->dims[first] == 1) first++;
  for (int32_t i = 1; i <= to->rank - first; i++) {
    bool alone = i == to->rank - first && (i > m->rank || m->dims[m->rank - i] == 1); /* the outermost, which the mask does not tell apart */
    if (!alone && (i > all->rank || all->dims[all->rank - i] != to->dims[to->rank - i])) return false;
  }
  return m->rank <= all->rank;
}

/* A scale of the query alone, made for this: it becomes part of the scale of the scores. */
static void take_scale(cml_graph *g, const cml_use *uses, size_t at, scores *found) {
  cml_step *s = maker(g, uses, at, found->q);
  float scale;
  if (!s || !cml_pass_is(s, "mul") || found->part_count == MOST_PARTS) return;
  bool right = scalar_constant(g, cml_pass_arg(s, "y"), &scale);
  if (!right && !scalar_constant(g, cml_pass_arg(s, "x"), &scale)) return;
  uint32_t x = cml_pass_arg(s, right ? "x" : "y");
  if (!same_shape(cml_pass_type(g, x), cml_pass_type(g, found->q))) return;
  found->scale *= scale;
  found->q = x;
  found->parts[found->part_count++] = s;
}

static cml_status fuse(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *last = &g->body.steps[at];
  if (!cml_pass_is(last, "matmul") || truth(g, last, "transpose_x") || truth(g, last, "transpose_y")) return CML_OK;
  uint32_t v = cml_pass_arg(last, "y");
  cml_step *soft = maker(g, uses, at, cml_pass_arg(last, "x"));
  if (!soft || !cml_pass_is(soft, "softmax")) return CML_OK;
  uint32_t axis_value = cml_pass_arg(soft, "axis");
  int32_t rank = cml_pass_type(g, soft->outs[0])->rank;
  int64_t axis = axis_value == CML_NO_VALUE || !cml_pass_type(g, axis_value)->data ? -1 : cml_tensor_get_int(cml_pass_type(g, axis_value), 0);
  if (axis != -1 && axis != rank - 1) return CML_OK;
  scores found = {.masks = {CML_NO_VALUE, CML_NO_VALUE}, .scale = 1, .parts = {soft}, .part_count = 1};
  if (!walk(g, uses, at, cml_pass_arg(soft, "x"), &found) || !fits(g, &found, v)) return CML_OK;
  cml_tensor all;
  widest(g, &found, &all);
  for (int i = 0; i < found.mask_count; i++)
    if (!mask_fits(g, found.masks[i], found.added_to[i], &all)) return CML_OK;
  take_scale(g, uses, at, &found);
  uint32_t batch = CML_NO_VALUE;
  const cml_tensor *q = cml_pass_type(g, found.q);
  if (all.rank != q->rank || memcmp(all.dims, q->dims, (size_t)(q->rank - 2) * sizeof *q->dims)) {
    batch = cml_pass_ints(g, all.dims, all.rank - 2);
    if (batch == CML_NO_VALUE) return cml_fail_memory(err);
  }
  const cml_binding bindings[] = {{"query", found.q}, {"key", found.k}, {"value", v}, {"attn_mask", found.masks[0]}, {"scale", cml_pass_float(g, found.scale)},
                                  {"attn_mask_2", found.masks[1]}, {"batch", batch}};
  if (found.turn) CML_TRY(turn_back(g, found.turn, err));
  CML_TRY(cml_pass_become(g, last, "cml_attention", bindings, sizeof bindings / sizeof *bindings, err));
  for (size_t i = 0; i < found.part_count; i++) found.parts[i]->op = NULL;
  return CML_OK;
}

cml_status cml_pass_attention(cml_graph *g, cml_error *err) {
  return cml_pass_each(g, fuse, err);
}
