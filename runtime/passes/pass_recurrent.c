/* GRU layers as torch's converter writes them out: a loop whose body takes row i of its input and of a buffer of states, computes the
 * next state and puts it into row i + 1. One cml_gru then multiplies the input of all steps at once and packs its weights, which
 * are expanded if they are compressed.
 *
 * Two that read the same input, or one of them its reverse, as the directions of a bidirectional layer do, become one step, whose
 * directions run side by side. It stands at the first one's place, for but that input both read constants alone. */
#include "mapping.h"
#include "passes.h"

typedef struct loop {
  cml_graph *g;
  const cml_graph_block *body;
  int64_t steps;
} loop;

/* The body's step of this type that makes the value. */
static const cml_step *maker(const loop *l, uint32_t value, const char *type) {
  for (size_t i = 0; i < l->body->step_count; i++) {
    const cml_step *s = &l->body->steps[i];
    if (s->op && s->out_count == 1 && s->outs[0] == value) return cml_pass_is(s, type) ? s : NULL;
  }
  return NULL;
}

/* What a value was before casts between integers or between floats, as float16 programs have around their loops: counters stay far
 * below 2^15, and a state keeps more digits then, never fewer. */
static uint32_t plain(const loop *l, uint32_t v) {
  for (const cml_step *s; (s = maker(l, v, "cast")); v = cml_pass_arg(s, "x"))
    if (cml_dtype_is_float(cml_pass_type(l->g, v)->dtype) != cml_dtype_is_float(cml_pass_type(l->g, cml_pass_arg(s, "x"))->dtype)) break;
  return v;
}

static const cml_tensor *constant(const loop *l, uint32_t v) {
  return v != CML_NO_VALUE && l->g->values[v].role == CML_ROLE_CONSTANT && cml_pass_type(l->g, v)->data ? cml_pass_type(l->g, v) : NULL;
}

static bool is_number(const loop *l, uint32_t v, double want) {
  const cml_tensor *t = constant(l, v);
  return t && cml_tensor_count(t) == 1 && cml_tensor_get(t, 0) == want;
}

/* i, or i made valid for negative numbers, which it never is: select(i >= 0, i, i + n). */
static bool is_counter(const loop *l, uint32_t v) {
  uint32_t i = l->body->inputs[0];
  v = plain(l, v);
  const cml_step *select = maker(l, v, "select"), *test = select ? maker(l, cml_pass_arg(select, "cond"), "greater_equal") : NULL;
  return v == i || (test && plain(l, cml_pass_arg(select, "a")) == i && plain(l, cml_pass_arg(test, "x")) == i && is_number(l, cml_pass_arg(test, "y"), 0));
}

/* Row i of a value, without its first dim: that value. */
static uint32_t row_of(const loop *l, uint32_t v) {
  const cml_step *squeeze = maker(l, v, "squeeze"), *gather = squeeze ? maker(l, cml_pass_arg(squeeze, "x"), "gather") : NULL;
  if (!gather || !is_number(l, cml_pass_arg(squeeze, "axes"), 0) || !is_counter(l, cml_pass_arg(gather, "indices"))) return CML_NO_VALUE;
  uint32_t axis = cml_pass_arg(gather, "axis"), batch = cml_pass_arg(gather, "batch_dims");
  if ((axis != CML_NO_VALUE && !is_number(l, axis, 0)) || (batch != CML_NO_VALUE && !is_number(l, batch, 0))) return CML_NO_VALUE;
  return plain(l, cml_pass_arg(gather, "x"));
}

/* A gate's two products, of x and of h. */
typedef struct gate {
  const cml_step *of[2];
} gate;

static bool read_product(const loop *l, uint32_t v, uint32_t operands[2], gate *out) {
  const cml_step *s = maker(l, v, "linear");
  if (!s || (!constant(l, cml_pass_arg(s, "weight")) && !l->g->values[cml_pass_arg(s, "weight")].deferred) || (cml_pass_arg(s, "bias") != CML_NO_VALUE && !constant(l, cml_pass_arg(s, "bias")))) return false;
  uint32_t from = row_of(l, cml_pass_arg(s, "x"));
  int which = from == l->body->inputs[1];
  if (from == CML_NO_VALUE || out->of[which] || (operands[which] != CML_NO_VALUE && operands[which] != cml_pass_arg(s, "x"))) return false;
  operands[which] = cml_pass_arg(s, "x");
  out->of[which] = s;
  return true;
}

/* sigmoid(linear(x) + linear(h)) */
static bool read_gate(const loop *l, uint32_t v, uint32_t operands[2], gate *out) {
  const cml_step *s = maker(l, v, "sigmoid"), *add = s ? maker(l, cml_pass_arg(s, "x"), "add") : NULL;
  return add && read_product(l, cml_pass_arg(add, "x"), operands, out) && read_product(l, cml_pass_arg(add, "y"), operands, out);
}

/* The arguments of an operator that takes them in any order, the other way round when swapped. */
static void both(const cml_step *s, bool swapped, uint32_t v[2]) {
  v[swapped] = cml_pass_arg(s, "x");
  v[!swapped] = cml_pass_arg(s, "y");
}

/* tanh(linear(x) + r * linear(h)); gates: r, n, z */
static bool read_candidate(const loop *l, uint32_t v, uint32_t operands[2], gate gates[3]) {
  const cml_step *tanh_ = maker(l, v, "tanh"), *add = tanh_ ? maker(l, cml_pass_arg(tanh_, "x"), "add") : NULL, *reset;
  uint32_t a[2], b[2];
  for (int i = 0; add && i < 4; i++) {
    gate mine[2] = {{{0}}};
    both(add, i & 1, a);
    if (!(reset = maker(l, a[1], "mul"))) continue;
    both(reset, i & 2, b);
    if (!maker(l, b[0], "sigmoid")) continue;
    if (!read_product(l, a[0], operands, &mine[1]) || !read_product(l, b[1], operands, &mine[1]) || !read_gate(l, b[0], operands, &mine[0])) return false;
    gates[0] = mine[0], gates[1] = mine[1];
    return true;
  }
  return false;
}

/* (1 - z) * n + z * h */
static bool read_state(const loop *l, uint32_t v, uint32_t operands[2], gate gates[3]) {
  const cml_step *add = maker(l, v, "add");
  for (int i = 0; add && i < 8; i++) {
    uint32_t a[2], fresh[2], old[2];
    both(add, i & 1, a);
    const cml_step *m = maker(l, a[0], "mul"), *o = maker(l, a[1], "mul");
    if (!m || !o) return false;
    both(m, i & 2, fresh);
    both(o, i & 4, old);
    const cml_step *one_less = maker(l, fresh[0], "sub");
    if (!one_less || !is_number(l, cml_pass_arg(one_less, "x"), 1) || cml_pass_arg(one_less, "y") != old[0]) continue;
    return read_candidate(l, fresh[1], operands, gates) && read_gate(l, old[0], operands, &gates[2]) && operands[1] == old[1];
  }
  return false;
}

/* Weights of the three gates, one below the other; biases too, zeros where there are none. */
static uint32_t stack(const loop *l, const gate gates[3], int which, const char *param, int64_t hidden, cml_dtype type) {
  int64_t columns = 0;
  for (int i = 0; i < 3; i++) {
    uint32_t v = cml_pass_arg(gates[i].of[which], param);
    const cml_tensor *t = v == CML_NO_VALUE ? NULL : cml_pass_type(l->g, v), *w = cml_pass_type(l->g, cml_pass_arg(gates[i].of[which], "weight"));
    bool bias = !strcmp(param, "bias");
    if ((!t && !bias) || (t && (t->dtype != type || t->dims[0] != hidden || t->rank != (bias ? 1 : 2)))) return CML_NO_VALUE;
    if (w->rank != 2 || (i && columns != w->dims[1])) return CML_NO_VALUE;
    columns = w->dims[1];
  }
  if (!strcmp(param, "bias")) columns = 1;
  cml_tensor r = {.dtype = type, .rank = columns == 1 && !strcmp(param, "bias") ? 1 : 2, .dims = {3 * hidden, columns}};
  size_t part = (size_t)(hidden * columns) * cml_dtype_bits(type) / 8;
  if (r.rank == 1) r.dims[1] = 0;
  if (cml_graph_constant(l->g, &r, NULL)) return CML_NO_VALUE;
  memset(r.data, 0, 3 * part);
  for (int i = 0; i < 3; i++) {
    uint32_t v = cml_pass_arg(gates[i].of[which], param);
    if (v == CML_NO_VALUE) continue;
    if (l->g->values[v].deferred && cml_graph_expand(l->g, v, NULL)) return CML_NO_VALUE;
    memcpy((char *)r.data + (size_t)i * part, cml_pass_type(l->g, v)->data, part);
    cml_mapping_drop(cml_pass_type(l->g, v)->data, part); /* the file's are not read again */
  }
  return cml_pass_value(l->g, "", &r, CML_ROLE_CONSTANT);
}

/* Row 0 of the buffer, when all others are zeros. */
static uint32_t first_row(cml_graph *g, const cml_tensor *buffer) {
  /* the value lies in an array that grows: buffer is not used after it has */
  int64_t n = cml_tensor_count(buffer), row = n / buffer->dims[0];
  for (int64_t i = row; i < n; i++)
    if (cml_tensor_get(buffer, i) != 0) return CML_NO_VALUE;
  cml_tensor t = {.dtype = buffer->dtype, .rank = 2, .dims = {buffer->dims[1], buffer->dims[2]}, .data = buffer->data};
  return cml_pass_value(g, "", &t, CML_ROLE_CONSTANT);
}

static bool counts_to(const loop *l, const cml_graph_block *condition, int64_t *steps) {
  const loop c = {.g = l->g, .body = condition};
  const cml_step *less = condition->output_count == 1 ? maker(&c, condition->outputs[0], "less") : NULL;
  const cml_tensor *t = less ? constant(l, cml_pass_arg(less, "y")) : NULL;
  if (!t || cml_tensor_count(t) != 1 || cml_pass_arg(less, "x") != condition->inputs[0]) return false;
  *steps = cml_tensor_get_int(t, 0);
  return *steps > 0 && *steps < 1 << 14;
}

static cml_status fuse(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  if (!cml_pass_is(s, "while_loop") || s->block_count != 2 || s->out_count != 2 || s->arg_count != 2 || uses[s->outs[0]].count) return CML_OK;
  loop l = {.g = g, .body = s->blocks[1]};
  if (l.body->output_count != 2 || l.body->input_count != 2 || !counts_to(&l, s->blocks[0], &l.steps) || !is_number(&l, s->args[0], 0)) return CML_OK;
  const cml_tensor *buffer = constant(&l, s->args[1]);
  const cml_step *next = maker(&l, l.body->outputs[0], "add"), *put = maker(&l, plain(&l, l.body->outputs[1]), "scatter");
  if (!buffer || buffer->rank != 3 || buffer->dims[0] != l.steps + 1 || (buffer->dtype != CML_F32 && buffer->dtype != CML_F16)) return CML_OK;
  if (!next || plain(&l, cml_pass_arg(next, "x")) != l.body->inputs[0] || !is_number(&l, cml_pass_arg(next, "y"), 1)) return CML_OK;
  if (!put || plain(&l, cml_pass_arg(put, "data")) != l.body->inputs[1] || plain(&l, cml_pass_arg(put, "indices")) != next->outs[0] || !is_number(&l, cml_pass_arg(put, "axis"), 0))
    return CML_OK;
  const cml_tensor *mode = constant(&l, cml_pass_arg(put, "mode"));
  const char *how = mode && mode->dtype == CML_STRING ? ((const cml_string *)mode->data)->data : "";
  const cml_step *expand = maker(&l, cml_pass_arg(put, "updates"), "expand_dims");
  if ((strcmp(how, "add") && strcmp(how, "update")) || !expand || !is_number(&l, cml_pass_arg(expand, "axes"), 0)) return CML_OK;
  gate gates[3] = {{{0}}};
  uint32_t operands[2] = {CML_NO_VALUE, CML_NO_VALUE};
  if (!read_state(&l, cml_pass_arg(expand, "x"), operands, gates)) return CML_OK;
  uint32_t x = row_of(&l, operands[0]);
  const cml_tensor *xt = cml_pass_type(g, x);
  if (xt->rank != 3 || xt->dims[0] != l.steps || xt->dims[1] != buffer->dims[1] || (xt->dtype != CML_F32 && xt->dtype != CML_F16)) return CML_OK;
  cml_dtype type = xt->dtype;
  int64_t hidden = buffer->dims[2];
  uint32_t initial = first_row(g, buffer);
  const cml_binding bindings[] = {
      {"x", x}, {"initial_h", initial}, {"weight_ih", stack(&l, gates, 0, "weight", hidden, type)}, {"weight_hh", stack(&l, gates, 1, "weight", hidden, type)},
      {"bias", stack(&l, gates, 1, "bias", hidden, type)}, {"input_bias", stack(&l, gates, 0, "bias", hidden, type)}};
  for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++)
    if (bindings[i].value == CML_NO_VALUE) return CML_OK; /* another shape, or no memory: the loop stays */
  CML_TRY(cml_pass_become(g, s, "cml_gru", bindings, sizeof bindings / sizeof *bindings, err));
  s->outs++;
  if (s->declared) s->declared++;
  s->out_count = 1;
  s->blocks = NULL;
  s->block_count = 0;
  return CML_OK;
}

/* ---- directions ---- */

/* What the step reads; from_end: the x of reverse(x, axes = [0]). */
static uint32_t source(cml_graph *g, size_t at, bool *from_end) {
  uint32_t x = cml_pass_arg(&g->body.steps[at], "x");
  const cml_step *s = cml_pass_maker(g, at, x);
  const cml_tensor *axes = s && cml_pass_is(s, "reverse") ? cml_pass_constant(g, s, "axes") : NULL;
  *from_end = axes && cml_tensor_count(axes) == 1 && (cml_tensor_get_int(axes, 0) == 0 || cml_tensor_get_int(axes, 0) == -3);
  return *from_end ? cml_pass_arg(s, "x") : x;
}

static bool same_sizes(const cml_graph *g, const cml_step *a, const cml_step *b) {
  static const char *const params[] = {"initial_h", "weight_ih", "weight_hh"};
  for (size_t i = 0; i < sizeof params / sizeof *params; i++) {
    const cml_tensor *t = cml_pass_constant(g, a, params[i]), *u = cml_pass_constant(g, b, params[i]);
    if (!t || !u || t->dtype != u->dtype || t->rank != 2 || u->rank != 2 || memcmp(t->dims, u->dims, 2 * sizeof *t->dims)) return false;
  }
  return true;
}

/* Makes `into` the step of both directions, a and b, copies because it is one of them. */
static cml_status join(cml_graph *g, cml_step *into, const cml_step a, const cml_step b, bool from_end, cml_error *err) {
  const cml_binding bindings[] = {
      {"x", cml_pass_arg(&a, "x")}, {"initial_h", cml_pass_arg(&a, "initial_h")}, {"initial_h_back", cml_pass_arg(&b, "initial_h")},
      {"weight_ih", cml_pass_arg(&a, "weight_ih")}, {"weight_ih_back", cml_pass_arg(&b, "weight_ih")},
      {"weight_hh", cml_pass_arg(&a, "weight_hh")}, {"weight_hh_back", cml_pass_arg(&b, "weight_hh")},
      {"bias", cml_pass_arg(&a, "bias")}, {"bias_back", cml_pass_arg(&b, "bias")},
      {"input_bias", cml_pass_arg(&a, "input_bias")}, {"input_bias_back", cml_pass_arg(&b, "input_bias")},
      {"from_end", from_end ? cml_pass_int(g, 1) : CML_NO_VALUE}};
  if (from_end && bindings[11].value == CML_NO_VALUE) return cml_fail_memory(err);
  uint32_t *outs = CML_ARENA_NEW_ARRAY(&g->arena, uint32_t, 2);
  cml_tensor *declared = CML_ARENA_NEW_ARRAY(&g->arena, cml_tensor, 2);
  if (!outs || !declared) return cml_fail_memory(err);
  CML_TRY(cml_pass_become(g, into, "cml_gru", bindings, sizeof bindings / sizeof *bindings, err));
  outs[0] = a.outs[0], outs[1] = b.outs[0];
  declared[0] = *cml_pass_type(g, outs[0]), declared[1] = *cml_pass_type(g, outs[1]);
  into->outs = outs;
  into->declared = declared;
  into->out_count = 2;
  return CML_OK;
}

static cml_status pair(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  (void)uses;
  cml_step *s = &g->body.steps[at];
  for (size_t i = 0; i < at && cml_pass_is(s, "cml_gru") && s->out_count == 1; i++) {
    cml_step *earlier = &g->body.steps[i];
    if (!cml_pass_is(earlier, "cml_gru") || earlier->out_count != 1 || !same_sizes(g, earlier, s)) continue;
    bool from_end[2], same = cml_pass_arg(earlier, "x") == cml_pass_arg(s, "x");
    if (!same && (source(g, i, &from_end[0]) != source(g, at, &from_end[1]) || from_end[0] == from_end[1])) continue;
    bool swapped = !same && from_end[0]; /* the first direction reads x from its beginning */
    CML_TRY(join(g, earlier, swapped ? *s : *earlier, swapped ? *earlier : *s, !same, err));
    s->op = NULL;
  }
  return CML_OK;
}

cml_status cml_pass_recurrent(cml_graph *g, cml_error *err) {
  CML_TRY(cml_pass_each(g, fuse, err));
  CML_TRY(cml_pass_each(g, pair, err));
  return cml_pass_dead_code(g, err);
}
