/* Convolutions compute with the channels last. This pass lets what lies between them stay that way: each value may have a twin,
 * the same elements with the channels moved from the second to the last dimension, and steps that can work on twins do. Where a
 * step needs the other form, a conversion is put before it, once for each value. */
#include <stdlib.h>

#include "passes.h"

enum { PLANES_CHANNELS = 32, PLANES_FEW = 8, PLANES_TAPS = 100 }; /* of a group: where planes are convolved as such, of single taps, of several, and taps of all its channels */

typedef struct layout_pass {
  cml_graph *g;
  uint32_t *twin;   /* by value: the one with its channels last, or CML_NO_VALUE */
  bool *missing;    /* by value: exists as its twin only */
  cml_use *uses;    /* by value, as the pass began */
  size_t value_count;
  size_t room;
  cml_step *steps;  /* the new body */
  size_t count, capacity;
  bool failed;      /* out of memory */
} layout_pass;

static bool grow_values(layout_pass *p) {
  if (p->g->value_count < p->room) return true;
  size_t room = p->g->value_count * 2 + 64;
  uint32_t *twin = realloc(p->twin, room * sizeof *twin);
  if (twin) p->twin = twin;
  bool *missing = realloc(p->missing, room * sizeof *missing);
  if (missing) p->missing = missing;
  if (!twin || !missing) return !(p->failed = true);
  for (size_t i = p->room; i < room; i++) twin[i] = CML_NO_VALUE, missing[i] = false;
  p->room = room;
  return true;
}

static cml_step *push(layout_pass *p, const cml_step *s) {
  if (p->count == p->capacity) {
    size_t capacity = p->capacity ? p->capacity * 2 : 64;
    cml_step *steps = realloc(p->steps, capacity * sizeof *steps);
    if (!steps) return p->failed = true, NULL;
    p->steps = steps;
    p->capacity = capacity;
  }
  p->steps[p->count] = *s;
  return &p->steps[p->count++];
}

static cml_tensor last_type(const cml_tensor *t) {
  cml_tensor r = *t;
  for (int32_t i = 1; i + 1 < t->rank; i++) r.dims[i] = t->dims[i + 1];
  r.dims[t->rank - 1] = t->dims[1];
  r.data = NULL;
  return r;
}

static uint32_t new_twin(layout_pass *p, uint32_t v) {
  cml_tensor t = last_type(cml_pass_type(p->g, v));
  uint32_t twin = cml_pass_value(p->g, p->g->values[v].name, &t, CML_ROLE_COMPUTED);
  if (twin == CML_NO_VALUE || !grow_values(p)) return p->failed = true, CML_NO_VALUE;
  p->twin[v] = twin;
  return twin;
}

static cml_status convert(layout_pass *p, const char *op, uint32_t from, uint32_t to, cml_error *err) {
  cml_step s;
  CML_TRY(cml_pass_new_step(p->g, op, &(cml_binding){"x", from}, 1, to, &s, err));
  return push(p, &s) ? CML_OK : cml_fail_memory(err);
}

/* A constant of `rank` (ones are put before the dims that it has) with its elements moved. */
static uint32_t constant_twin(layout_pass *p, uint32_t v, int32_t rank) {
  cml_graph *g = p->g;
  cml_tensor full = *cml_pass_type(g, v), *t = &full;
  for (int32_t i = rank - 1, ones = rank - t->rank; ones && i >= 0; i--) t->dims[i] = i < ones ? 1 : t->dims[i - ones];
  t->rank = rank;
  cml_tensor r = last_type(t);
  int64_t channels = t->dims[1], plane = 1, size = cml_dtype_bits(t->dtype) / 8;
  for (int32_t i = 2; i < t->rank; i++) plane *= t->dims[i];
  if (!(r.data = cml_arena_array(&g->arena, (size_t)cml_tensor_count(t) + 16, (size_t)size))) return p->failed = true, CML_NO_VALUE;
  for (int64_t n = 0; n < t->dims[0]; n++)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t i = 0; i < plane; i++)
        memcpy((char *)r.data + ((n * plane + i) * channels + c) * size, (const char *)t->data + ((n * channels + c) * plane + i) * size, (size_t)size);
  uint32_t twin = cml_pass_value(g, g->values[v].name, &r, CML_ROLE_CONSTANT);
  if (twin == CML_NO_VALUE || !grow_values(p)) return p->failed = true, CML_NO_VALUE;
  return twin;
}

/* v with its channels last, made when there is none yet. */
static cml_status want_last(layout_pass *p, uint32_t v, uint32_t *out, cml_error *err) {
  if (p->twin[v] == CML_NO_VALUE) {
    if (p->g->values[v].role == CML_ROLE_CONSTANT) {
      uint32_t twin = constant_twin(p, v, cml_pass_type(p->g, v)->rank);
      if (twin == CML_NO_VALUE) return cml_fail_memory(err);
      p->twin[v] = twin;
    } else {
      if (new_twin(p, v) == CML_NO_VALUE) return cml_fail_memory(err);
      CML_TRY(convert(p, "cml_to_last", v, p->twin[v], err));
    }
  }
  *out = p->twin[v];
  return CML_OK;
}

static cml_status want_first(layout_pass *p, uint32_t v, cml_error *err) {
  if (!p->missing[v]) return CML_OK;
  p->missing[v] = false;
  return convert(p, "cml_to_first", p->twin[v], v, err);
}

/* The step's outputs become twins. */
static cml_status give_last(layout_pass *p, cml_step *s, cml_error *err) {
  uint32_t *outs = CML_ARENA_NEW_ARRAY(&p->g->arena, uint32_t, s->out_count);
  cml_tensor *declared = CML_ARENA_NEW_ARRAY(&p->g->arena, cml_tensor, s->out_count);
  if (!outs || !declared) return cml_fail_memory(err);
  for (size_t i = 0; i < s->out_count; i++) {
    if ((outs[i] = new_twin(p, s->outs[i])) == CML_NO_VALUE) return cml_fail_memory(err);
    declared[i] = *cml_pass_type(p->g, outs[i]);
    p->missing[s->outs[i]] = true;
  }
  s->outs = outs;
  s->declared = declared;
  return CML_OK;
}

static bool is_any(const cml_step *s, const char *const *names) {
  for (; *names; names++)
    if (cml_pass_is(s, *names)) return true;
  return false;
}

static int32_t rank_of(const layout_pass *p, uint32_t v) { return cml_pass_type(p->g, v)->rank; }

/* Arguments of the step copied, so that they may be replaced. */
static cml_status own_args(layout_pass *p, cml_step *s, cml_error *err) {
  uint32_t *args = CML_ARENA_NEW_ARRAY(&p->g->arena, uint32_t, s->arg_count + 1);
  bool *constant = CML_ARENA_NEW_ARRAY(&p->g->arena, bool, s->arg_count + 1);
  if (!args || !constant) return cml_fail_memory(err);
  memcpy(args, s->args, s->arg_count * sizeof *args);
  for (size_t i = 0; i < s->arg_count; i++) constant[i] = p->g->values[args[i]].role == CML_ROLE_CONSTANT;
  s->args = args;
  s->arg_constant = constant;
  return CML_OK;
}

static cml_status replace(layout_pass *p, cml_step *s, const char *param, uint32_t value) {
  for (unsigned i = 0; i < s->op->param_count; i++)
    if (!strcmp(s->op->params[i].name, param) && s->first[i] < s->first[i + 1]) {
      s->args[s->first[i]] = value;
      s->arg_constant[s->first[i]] = p->g->values[value].role == CML_ROLE_CONSTANT;
    }
  return CML_OK;
}

/* ---- kinds of steps; each returns with *done set when it took the step ---- */

static cml_status take_conv(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  bool transpose = cml_pass_is(s, "cml_conv_transpose");
  if (!transpose && !cml_pass_is(s, "cml_conv")) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x"), residual = cml_pass_arg(s, "residual");
  const int32_t rank = rank_of(p, x);
  if (rank < 3 || rank_of(p, s->outs[0]) != rank || (residual != CML_NO_VALUE && rank_of(p, residual) != rank)) return CML_OK; /* a run will know */
  CML_TRY(want_last(p, x, &x, err));
  if (residual != CML_NO_VALUE) CML_TRY(want_last(p, residual, &residual, err));
  const cml_binding bindings[] = {
      {"x", x}, {"weight", cml_pass_arg(s, "weight")}, {"bias", cml_pass_arg(s, "bias")}, {"strides", cml_pass_arg(s, "strides")},
      {"pad_type", cml_pass_arg(s, "pad_type")}, {"pad", cml_pass_arg(s, "pad")}, {"dilations", cml_pass_arg(s, "dilations")},
      {"groups", cml_pass_arg(s, "groups")}, {"layout", cml_pass_int(p->g, 1)}, {"residual", residual},
      {"activation", cml_pass_arg(s, "activation")}, {"alpha", cml_pass_arg(s, "alpha")}, {"beta", cml_pass_arg(s, "beta")},
      {"output_shape", transpose ? cml_pass_arg(s, "output_shape") : CML_NO_VALUE},
  };
  if (!grow_values(p)) return cml_fail_memory(err);
  CML_TRY(cml_pass_become(p->g, s, transpose ? "cml_conv_transpose" : "cml_conv", bindings, sizeof bindings / sizeof *bindings, err));
  *done = true;
  return give_last(p, s, err);
}

static bool one_element(const cml_tensor *t) { return cml_tensor_known_shape(t) && cml_tensor_count(t) == 1; }

/* Quantization by one scale; by channel it is left where it is. */
static cml_status take_quantization(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  static const char *const names[] = {"quantize", "dequantize", NULL};
  if (!is_any(s, names)) return CML_OK;
  uint32_t x = cml_pass_arg(s, "input"), scale = cml_pass_arg(s, "scale");
  if (x == CML_NO_VALUE || p->twin[x] == CML_NO_VALUE || p->g->values[x].role == CML_ROLE_CONSTANT) return CML_OK;
  if (cml_pass_arg(s, "axis") != CML_NO_VALUE || !one_element(cml_pass_type(p->g, scale))) return CML_OK;
  *done = true;
  CML_TRY(own_args(p, s, err));
  CML_TRY(replace(p, s, "input", p->twin[x]));
  return give_last(p, s, err);
}

static cml_status take_unary(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  static const char *const unary[] = {"relu", "relu6", "silu", "sigmoid", "tanh", "clip", "leaky_relu", "gelu", "elu", "softplus", "softsign",
                                      "sigmoid_hard", "exp", "sqrt", "rsqrt", "square", "abs", "log", "erf", "cast", "identity",
                                      "scaled_tanh", "thresholded_relu", "linear_activation", "sin", "cos", "tan", "asin", "acos", "atan",
                                      "sinh", "cosh", "atanh", "ceil", "floor", "round", "sign", "inverse", "exp2", "threshold", "logical_not", NULL};
  static const char *const group_norm[] = {"cml_group_norm", NULL};
  bool norm = is_any(s, group_norm);
  if (!norm && !is_any(s, unary)) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x");
  if (x == CML_NO_VALUE || p->twin[x] == CML_NO_VALUE || p->g->values[x].role == CML_ROLE_CONSTANT) return CML_OK;
  *done = true;
  if (norm) {
    const cml_binding bindings[] = {{"x", p->twin[x]}, {"groups", cml_pass_arg(s, "groups")}, {"epsilon", cml_pass_arg(s, "epsilon")},
                                    {"gamma", cml_pass_arg(s, "gamma")}, {"beta", cml_pass_arg(s, "beta")}, {"layout", cml_pass_int(p->g, 1)},
                                    {"activation", cml_pass_arg(s, "activation")}};
    if (!grow_values(p)) return cml_fail_memory(err);
    CML_TRY(cml_pass_become(p->g, s, "cml_group_norm", bindings, sizeof bindings / sizeof *bindings, err));
    return give_last(p, s, err);
  }
  CML_TRY(own_args(p, s, err));
  CML_TRY(replace(p, s, "x", p->twin[x]));
  return give_last(p, s, err);
}

/* Of two operands, and the choice between two. */
static cml_status take_binary(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  static const char *const binary[] = {"add", "sub", "mul", "real_div", "maximum", "minimum", "pow", "floor_div", "mod", "greater", "greater_equal",
                                       "less", "less_equal", "equal", "not_equal", "logical_and", "logical_or", "logical_xor", NULL};
  static const char *const operands[] = {"x", "y"}, *const choice[] = {"cond", "a", "b"};
  const bool chooses = cml_pass_is(s, "select");
  const char *const *names = chooses ? choice : operands;
  const int count = chooses ? 3 : 2;
  if (!chooses && !is_any(s, binary)) return CML_OK;
  uint32_t v[3] = {0};
  int32_t rank = rank_of(p, s->outs[0]);
  bool any = false;
  for (int i = 0; i < count; i++) {
    if ((v[i] = cml_pass_arg(s, names[i])) == CML_NO_VALUE) return CML_OK;
    bool constant = p->g->values[v[i]].role == CML_ROLE_CONSTANT;
    any = any || (!constant && p->twin[v[i]] != CML_NO_VALUE);
    if (!(constant && cml_tensor_known_shape(cml_pass_type(p->g, v[i]))) && rank_of(p, v[i]) != rank) return CML_OK;
  }
  if (!any || rank < 3) return CML_OK;
  CML_TRY(own_args(p, s, err));
  for (int i = 0; i < count; i++) {
    if (p->g->values[v[i]].role == CML_ROLE_CONSTANT && one_element(cml_pass_type(p->g, v[i]))) continue;
    uint32_t twin;
    if (rank_of(p, v[i]) == rank) CML_TRY(want_last(p, v[i], &twin, err));
    else if ((twin = constant_twin(p, v[i], rank)) == CML_NO_VALUE) return cml_fail_memory(err);
    CML_TRY(replace(p, s, names[i], twin));
  }
  *done = true;
  return give_last(p, s, err);
}

/* Dimension i of a value as one of its twin. */
static int64_t last_axis(int64_t axis, int32_t rank) {
  if (axis < 0) axis += rank;
  return axis == 1 ? rank - 1 : axis > 1 ? axis - 1 : axis;
}

static cml_status take_concat(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  if (!cml_pass_is(s, "concat")) return CML_OK;
  uint32_t axis = cml_pass_arg(s, "axis"), interleave = cml_pass_arg(s, "interleave");
  int32_t rank = rank_of(p, s->outs[0]);
  bool any = false;
  if (axis == CML_NO_VALUE || !cml_pass_type(p->g, axis)->data || rank < 3) return CML_OK;
  if (interleave != CML_NO_VALUE && (!cml_pass_type(p->g, interleave)->data || cml_tensor_get_int(cml_pass_type(p->g, interleave), 0))) return CML_OK;
  for (size_t i = s->first[0]; i < s->first[1]; i++) {
    if (rank_of(p, s->args[i]) != rank) return CML_OK;
    any = any || (p->twin[s->args[i]] != CML_NO_VALUE && p->g->values[s->args[i]].role != CML_ROLE_CONSTANT);
  }
  if (!any || strcmp(s->op->params[0].name, "values")) return CML_OK;
  uint32_t moved = cml_pass_int(p->g, last_axis(cml_tensor_get_int(cml_pass_type(p->g, axis), 0), rank));
  if (moved == CML_NO_VALUE || !grow_values(p)) return cml_fail_memory(err);
  CML_TRY(own_args(p, s, err));
  CML_TRY(replace(p, s, "axis", moved));
  for (size_t i = s->first[0]; i < s->first[1]; i++) CML_TRY(want_last(p, s->args[i], &s->args[i], err));
  *done = true;
  return give_last(p, s, err);
}

static cml_status take_reduce(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  static const char *const reduce[] = {"reduce_mean", "reduce_sum", "reduce_max", "reduce_min", NULL};
  if (!is_any(s, reduce)) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x"), axes = cml_pass_arg(s, "axes"), keep = cml_pass_arg(s, "keep_dims");
  if (p->twin[x] == CML_NO_VALUE || axes == CML_NO_VALUE || !cml_pass_type(p->g, axes)->data) return CML_OK;
  const cml_tensor *t = cml_pass_type(p->g, axes);
  bool keeps = keep != CML_NO_VALUE && cml_pass_type(p->g, keep)->data && cml_tensor_get_int(cml_pass_type(p->g, keep), 0);
  int32_t rank = rank_of(p, x);
  int64_t n = cml_tensor_count(t), moved[CML_MAX_RANK];
  bool spatial = n == rank - 2;
  if (n > rank) return CML_OK;
  for (int64_t i = 0; i < n; i++) {
    moved[i] = last_axis(cml_tensor_get_int(t, i), rank);
    spatial = spatial && moved[i] > 0 && moved[i] < rank - 1;
  }
  if (!keeps && !spatial) return CML_OK;
  uint32_t list = cml_pass_ints(p->g, moved, n);
  if (list == CML_NO_VALUE || !grow_values(p)) return cml_fail_memory(err);
  CML_TRY(own_args(p, s, err));
  CML_TRY(replace(p, s, "axes", list));
  CML_TRY(replace(p, s, "x", p->twin[x]));
  *done = true;
  return keeps ? give_last(p, s, err) : CML_OK;
}

/* A norm along the channels becomes one along the last dim. */
static cml_status take_layer_norm(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  if (!cml_pass_is(s, "layer_norm")) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x"), axes = cml_pass_arg(s, "axes");
  const cml_tensor *t = axes == CML_NO_VALUE ? NULL : cml_pass_type(p->g, axes);
  int32_t rank = rank_of(p, x);
  if (!p->missing[x] || !t || !t->data || rank < 3 || cml_tensor_count(t) != 1 || last_axis(cml_tensor_get_int(t, 0), rank) != rank - 1) return CML_OK;
  uint32_t last = cml_pass_ints(p->g, &(int64_t){rank - 1}, 1);
  if (last == CML_NO_VALUE || !grow_values(p)) return cml_fail_memory(err);
  CML_TRY(own_args(p, s, err));
  CML_TRY(replace(p, s, "axes", last));
  CML_TRY(replace(p, s, "x", p->twin[x]));
  *done = true;
  return give_last(p, s, err);
}

static cml_status take_pool(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  bool max = cml_pass_is(s, "max_pool");
  if (!max && !cml_pass_is(s, "avg_pool")) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x");
  if (p->twin[x] == CML_NO_VALUE) return CML_OK;
  const cml_binding bindings[] = {
      {"x", p->twin[x]}, {"kernel_sizes", cml_pass_arg(s, "kernel_sizes")}, {"strides", cml_pass_arg(s, "strides")},
      {"pad_type", cml_pass_arg(s, "pad_type")}, {"pad", cml_pass_arg(s, "pad")}, {"ceil_mode", cml_pass_arg(s, "ceil_mode")},
      {"exclude_padding_from_average", cml_pass_arg(s, "exclude_padding_from_average")},
  };
  CML_TRY(cml_pass_become(p->g, s, max ? "cml_max_pool_last" : "cml_avg_pool_last", bindings, sizeof bindings / sizeof *bindings, err));
  *done = true;
  return give_last(p, s, err);
}

static cml_status take_affine(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  if (!cml_pass_is(s, "cml_affine")) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x");
  if (p->twin[x] == CML_NO_VALUE || p->g->values[x].role == CML_ROLE_CONSTANT) return CML_OK;
  const cml_binding bindings[] = {{"x", p->twin[x]}, {"scale", cml_pass_arg(s, "scale")}, {"bias", cml_pass_arg(s, "bias")},
                                  {"layout", cml_pass_int(p->g, 1)}, {"activation", cml_pass_arg(s, "activation")},
                                  {"alpha", cml_pass_arg(s, "alpha")}, {"beta", cml_pass_arg(s, "beta")}};
  if (!grow_values(p)) return cml_fail_memory(err);
  CML_TRY(cml_pass_become(p->g, s, "cml_affine", bindings, sizeof bindings / sizeof *bindings, err));
  *done = true;
  return give_last(p, s, err);
}

/* Nothing but a conversion of its type comes between the value and an output of the program. */
static bool ends(const layout_pass *p, uint32_t v) {
  for (int depth = 0; depth < 4 && v < p->value_count; depth++) {
    for (size_t i = 0; i < p->g->body.output_count; i++)
      if (p->g->body.outputs[i] == v) return true;
    const cml_step *user = p->uses[v].count == 1 && p->uses[v].step < p->g->body.step_count ? &p->g->body.steps[p->uses[v].step] : NULL;
    if (!user || !user->op || !cml_pass_is(user, "cast")) return false;
    v = user->outs[0];
  }
  return false;
}

/* Images are made larger or smaller as they are; those that leave the program at once, and those of few channels, in the program's form. */
static cml_status take_resize(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  static const char *const names[][2] = {{"upsample_nearest_neighbor", "cml_upsample_nearest_neighbor_last"},
                                         {"upsample_bilinear", "cml_upsample_bilinear_last"},
                                         {"resize_nearest_neighbor", "cml_resize_nearest_neighbor_last"},
                                         {"resize_bilinear", "cml_resize_bilinear_last"}};
  enum { FEW_CHANNELS = 8 };
  const char *last = NULL;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (cml_pass_is(s, names[i][0])) last = names[i][1];
  if (!last) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x");
  if (!p->missing[x] || rank_of(p, x) != 4 || cml_pass_type(p->g, x)->dims[1] < FEW_CHANNELS || ends(p, s->outs[0])) return CML_OK;
  CML_TRY(cml_pass_become_like(p->g, s, last, s, &(cml_binding){"x", p->twin[x]}, 1, err));
  *done = true;
  return give_last(p, s, err);
}

/* Operators with a list of `each` numbers by dimension, for all dimensions or the last ones. */
static cml_status take_by_dims(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  bool pad = cml_pass_is(s, "pad");
  if (!pad && !cml_pass_is(s, "tile")) return CML_OK;
  const char *name = pad ? "pad" : "reps";
  uint32_t x = cml_pass_arg(s, "x"), list = cml_pass_arg(s, name);
  const cml_tensor *t = list == CML_NO_VALUE ? NULL : cml_pass_type(p->g, list);
  int64_t each = pad ? 2 : 1, moved[2 * CML_MAX_RANK] = {0};
  int32_t rank = rank_of(p, x);
  if (!p->missing[x] || !t || !t->data || t->rank != 1 || rank < 3 || rank > CML_MAX_RANK || t->dims[0] % each || t->dims[0] / each > rank) return CML_OK;
  int32_t skip = rank - (int32_t)(t->dims[0] / each);
  for (int32_t i = skip; i < rank; i++)
    for (int64_t k = 0; k < each; k++) moved[last_axis(i, rank) * each + k] = cml_tensor_get_int(t, (i - skip) * each + k);
  if (!pad && skip) return CML_OK;
  uint32_t value = cml_pass_ints(p->g, moved, rank * each);
  if (value == CML_NO_VALUE || !grow_values(p)) return cml_fail_memory(err);
  CML_TRY(own_args(p, s, err));
  CML_TRY(replace(p, s, name, value));
  CML_TRY(replace(p, s, "x", p->twin[x]));
  *done = true;
  return give_last(p, s, err);
}

static cml_status take_split(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  if (!cml_pass_is(s, "split")) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x"), axis = cml_pass_arg(s, "axis");
  int32_t rank = rank_of(p, x);
  if (!p->missing[x] || axis == CML_NO_VALUE || !cml_pass_type(p->g, axis)->data || rank < 3) return CML_OK;
  uint32_t moved = cml_pass_int(p->g, last_axis(cml_tensor_get_int(cml_pass_type(p->g, axis), 0), rank));
  if (moved == CML_NO_VALUE || !grow_values(p)) return cml_fail_memory(err);
  CML_TRY(own_args(p, s, err));
  CML_TRY(replace(p, s, "axis", moved));
  CML_TRY(replace(p, s, "x", p->twin[x]));
  *done = true;
  return give_last(p, s, err);
}

/* A transposition that moves the channels last or first, as programs write around layers that want them last: its result is the
 * twin of its input under another name, or has the input for its twin. */
static cml_status take_transpose(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  if (!cml_pass_is(s, "transpose")) return CML_OK;
  uint32_t x = cml_pass_arg(s, "x"), perm = cml_pass_arg(s, "perm"), y = s->outs[0];
  const cml_tensor *t = perm == CML_NO_VALUE ? NULL : cml_pass_type(p->g, perm);
  int32_t rank = rank_of(p, x);
  if (!t || !t->data || rank < 3 || rank > CML_MAX_RANK || cml_tensor_count(t) != rank || p->g->values[x].role == CML_ROLE_CONSTANT) return CML_OK;
  bool last = p->twin[x] != CML_NO_VALUE, first = p->twin[y] == CML_NO_VALUE;
  for (int32_t i = 0; i < rank; i++) {
    int64_t axis = cml_tensor_get_int(t, i);
    if (axis < 0) axis += rank;
    last = last && axis == (i == 0 ? 0 : i == rank - 1 ? 1 : i + 1);
    first = first && axis == (i == 0 ? 0 : i == 1 ? rank - 1 : i - 1);
  }
  if (last) {
    *done = true;
    return cml_pass_become(p->g, s, "identity", &(cml_binding){"x", p->twin[x]}, 1, err);
  }
  if (!first || p->missing[x]) return CML_OK;
  p->twin[y] = x;
  p->missing[y] = true;
  s->op = NULL;
  *done = true;
  return CML_OK;
}

/* Rows and columns become a line of tokens, or a line rows and columns: the channels stay where they are. */
static cml_status take_reshape(layout_pass *p, cml_step *s, bool *done, cml_error *err) {
  if (!cml_pass_is(s, "reshape")) return CML_OK;
  const uint32_t x = cml_pass_arg(s, "x");
  const cml_tensor *from = cml_pass_type(p->g, x), *to = cml_pass_type(p->g, s->outs[0]);
  if (!p->missing[x] || from->rank < 3 || to->rank < 3 || !cml_tensor_known_shape(from) || !cml_tensor_known_shape(to)) return CML_OK;
  if (from->dims[0] != to->dims[0] || from->dims[1] != to->dims[1] || cml_tensor_count(to) == 0) return CML_OK;
  const cml_tensor twin = last_type(to);
  const cml_binding others[] = {{"x", p->twin[x]}, {"shape", cml_pass_ints(p->g, twin.dims, twin.rank)}};
  if (others[1].value == CML_NO_VALUE || !grow_values(p)) return cml_fail_memory(err);
  CML_TRY(cml_pass_become_like(p->g, s, "reshape", s, others, 2, err));
  *done = true;
  return give_last(p, s, err);
}

static cml_status first_for_block(layout_pass *p, const cml_graph_block *b, cml_error *err) {
  for (size_t i = 0; i < b->step_count; i++) {
    for (size_t k = 0; k < b->steps[i].arg_count; k++) CML_TRY(want_first(p, b->steps[i].args[k], err));
    for (size_t k = 0; k < b->steps[i].block_count; k++) CML_TRY(first_for_block(p, b->steps[i].blocks[k], err));
  }
  for (size_t i = 0; i < b->output_count; i++) CML_TRY(want_first(p, b->outputs[i], err));
  return CML_OK;
}

static cml_status take_step(layout_pass *p, const cml_step *given, cml_error *err) {
  static cml_status (*const kinds[])(layout_pass *, cml_step *, bool *, cml_error *) = {take_conv,   take_unary,  take_binary, take_quantization,
                                                                                      take_concat, take_reduce, take_pool,
                                                                                      take_affine, take_transpose, take_resize,
                                                                                      take_by_dims, take_split, take_layer_norm, take_reshape};
  cml_step s = *given;
  bool done = false;
  if (!s.folded && (s.out_count == 1 || cml_pass_is(&s, "split")) && !s.block_count)
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !done; i++) CML_TRY(kinds[i](p, &s, &done, err));
  for (size_t k = 0; !done && k < s.arg_count; k++) CML_TRY(want_first(p, s.args[k], err));
  for (size_t k = 0; k < s.block_count; k++) CML_TRY(first_for_block(p, s.blocks[k], err));
  if (!s.op) return CML_OK;
  return push(p, &s) ? CML_OK : cml_fail_memory(err);
}

/* A large convolution whose result is wanted with its channels first only writes planes, a block of pixels at a time while it is in the cache: what
 * would leave the cache in between, in float32 (halves showed no gain). Not where it is computed otherwise than by tiles: depthwise, or (as 3 x 3 with
 * stride 1 may be) by Winograd's. */
static cml_status write_planes(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  enum { LARGE = 1 << 18 }; /* elements */
  cml_step *s = &g->body.steps[at], *next = cml_pass_is(s, "cml_conv") ? cml_pass_only_user(g, uses, s->outs[0]) : NULL;
  if (!next || !cml_pass_is(next, "cml_to_first") || cml_pass_arg(s, "residual") != CML_NO_VALUE || cml_pass_number(g, s, "groups", 1) != 1) return CML_OK;
  const cml_tensor *y = cml_pass_type(g, s->outs[0]);
  if (y->dtype != CML_F32 || !cml_tensor_known_shape(y) || cml_tensor_count(y) < LARGE) return CML_OK;
  const cml_tensor *w = cml_pass_type(g, cml_pass_arg(s, "weight")), *strides = cml_pass_constant(g, s, "strides");
  bool winograd = w->rank == 4 && w->dims[2] == 3 && w->dims[3] == 3;
  for (int64_t i = 0; strides && i < cml_tensor_count(strides); i++) winograd = winograd && cml_tensor_get_int(strides, i) == 1;
  if (winograd) return CML_OK;
  CML_TRY(cml_pass_become_like(g, s, "cml_conv", s, &(cml_binding){"layout", cml_pass_int(g, 2)}, 1, err));
  s->outs[0] = next->outs[0];
  s->declared[0] = *cml_pass_type(g, s->outs[0]);
  next->op = NULL;
  return CML_OK;
}

/* A convolution in groups of few channels that stands alone among planes, which would be turned for it and back: it reads and writes planes. */
static cml_status stay_planes(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *s = &g->body.steps[at], *conv = cml_pass_is(s, "cml_to_last") ? cml_pass_only_user(g, uses, s->outs[0]) : NULL;
  cml_step *next = conv && cml_pass_is(conv, "cml_conv") ? cml_pass_only_user(g, uses, conv->outs[0]) : NULL;
  if (!next || !cml_pass_is(next, "cml_to_first") || cml_pass_arg(conv, "residual") != CML_NO_VALUE || cml_pass_arg(conv, "x") != s->outs[0]) return CML_OK;
  const int64_t groups = (int64_t)cml_pass_number(g, conv, "groups", 1);
  const cml_tensor *w = cml_pass_type(g, cml_pass_arg(conv, "weight"));
  if (groups < 2 || !cml_tensor_known_shape(w) || w->rank < 3 || w->rank > 4) return CML_OK;
  const int64_t taps = w->dims[2] * (w->rank > 3 ? w->dims[3] : 1);
  if (w->dims[1] > (taps == 1 ? PLANES_CHANNELS : PLANES_FEW) || w->dims[0] < 2 * groups || w->dims[1] * taps > PLANES_TAPS) return CML_OK;
  CML_TRY(cml_pass_become_like(g, conv, "cml_conv", conv, (const cml_binding[]){{"layout", cml_pass_int(g, 0)}, {"x", cml_pass_arg(s, "x")}}, 2, err));
  conv->outs[0] = next->outs[0];
  conv->declared[0] = *cml_pass_type(g, conv->outs[0]);
  s->op = next->op = NULL;
  return CML_OK;
}

cml_status cml_pass_layout(cml_graph *g, cml_error *err) {
  layout_pass p = {.g = g};
  cml_status status = CML_OK;
  bool any = false;
  for (size_t i = 0; i < g->body.step_count; i++) any = any || cml_pass_is(&g->body.steps[i], "cml_conv") || cml_pass_is(&g->body.steps[i], "cml_conv_transpose");
  if (!any) return CML_OK;
  p.value_count = g->value_count;
  p.uses = cml_pass_uses(g);
  if (!p.uses || !grow_values(&p)) status = cml_fail_memory(err);
  for (size_t i = 0; i < g->body.step_count && !status; i++) status = take_step(&p, &g->body.steps[i], err);
  for (size_t i = 0; i < g->body.output_count && !status; i++) status = want_first(&p, g->body.outputs[i], err);
  cml_step *steps = status ? NULL : CML_ARENA_NEW_ARRAY(&g->arena, cml_step, p.count + 1);
  if (!status && !steps) status = cml_fail_memory(err);
  if (!status) {
    memcpy(steps, p.steps, p.count * sizeof *steps);
    g->body.steps = steps;
    g->body.step_count = p.count;
  }
  free(p.steps);
  free(p.twin);
  free(p.missing);
  free(p.uses);
  CML_TRY(status);
  CML_TRY(cml_pass_each(g, stay_planes, err));
  return cml_pass_each(g, write_planes, err);
}
