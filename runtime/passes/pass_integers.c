/* Programs with quantised activations say: dequantize, a layer in floats, quantize. Between the two is an exact sum of bytes times the
 * weights' codes, and a few operations on each sum. This pass makes operators on bytes of it (ops_integer.c), so that activations
 * stay bytes from layer to layer:
 *
 *   1. quantize and dequantize by one scale speak of unsigned bytes (int8 values 128 higher), with kernels of their own;
 *   2. a conversion to channels last moves before dequantize, onto the bytes;
 *   3. a convolution or linear layer of a dequantized value with weights of 8 bits becomes a sum of bytes, which takes the quantize that
 *      alone uses it along;
 *   4. what follows that, dequantize, (+ another dequantized value), (a clamp), quantize, joins it too;
 *   5. the maximum of a window moves before dequantize, other sums of two dequantized values are sums of bytes, and any other function of
 *      one of them that is quantized again is a table of 256 bytes; quantize moves before concat.
 *
 * It runs after `epilogues` and `layout`: activations are part of layers, images have their channels last. Against the program in
 * floats only roundings between these operations differ, so that a byte can be one off where the exact value lies at a tie. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "integer.h"
#include "passes.h"

typedef struct integers {
  cml_graph *g;
  cml_use *uses;
  size_t known; /* values that `uses` covers */
} integers;

/* ---- reading ---- */

static const cml_tensor *constant(const cml_graph *g, uint32_t v) {
  const cml_tensor *t = v == CML_NO_VALUE ? NULL : cml_pass_type(g, v);
  return t && t->data && g->values[v].role == CML_ROLE_CONSTANT ? t : NULL;
}

static bool finite_values(const cml_tensor *t) {
  for (int64_t i = 0, n = t ? cml_tensor_count(t) : 0; i < n; i++)
    if (!isfinite(cml_tensor_get(t, i))) return false;
  return true;
}

/* A quantize or dequantize by one scale for all. */
static bool by_one_scale(const cml_graph *g, const cml_step *s) {
  const cml_tensor *scale = constant(g, cml_pass_arg(s, "scale"));
  if (!scale || cml_pass_arg(s, "axis") != CML_NO_VALUE || cml_tensor_count(scale) != 1) return false;
  double v = cml_tensor_get(scale, 0);
  return v >= (double)FLT_MIN && v <= (double)(FLT_MAX / 1024); /* what is divided by it stays finite */
}

static int32_t rank_of(const cml_graph *g, uint32_t v) { return cml_pass_type(g, v)->rank; }

static cml_step *only_user(const integers *p, uint32_t v) { return v < p->known ? cml_pass_only_user(p->g, p->uses, v) : NULL; }

/* The cml_dequantize before step `before` that makes the value. */
static cml_step *dequantized(const integers *p, size_t before, uint32_t v) {
  if (v == CML_NO_VALUE || p->g->values[v].role != CML_ROLE_COMPUTED) return NULL;
  cml_step *s = cml_pass_maker(p->g, before, v);
  return s && cml_pass_is(s, "cml_dequantize") ? s : NULL;
}

static void moved_use(const integers *p, uint32_t v, const cml_step *user) {
  uint32_t at = (uint32_t)(user - p->g->body.steps);
  if (v != CML_NO_VALUE && v < p->known && p->uses[v].step < at) p->uses[v].step = at;
}

/* ---- 1. to bytes ---- */

static cml_status set_type(cml_graph *g, cml_step *s, cml_dtype type, cml_error *err) {
  cml_tensor *declared = CML_ARENA_NEW(&g->arena, cml_tensor);
  if (!declared) return cml_fail_memory(err);
  g->values[s->outs[0]].type.dtype = type;
  *declared = g->values[s->outs[0]].type;
  s->declared = declared;
  return CML_OK;
}

/* The zero of a byte: int8 codes are 128 higher. */
static int64_t byte_zero(const cml_graph *g, const cml_step *s, cml_dtype code) {
  return (int64_t)cml_pass_number(g, s, "zero_point", 0) + (code == CML_I8 ? 128 : 0);
}

/* Whether dequantize alone uses the codes; their steps are counted in the order of the body. */
static bool only_dequantized(const integers *p, size_t from, uint32_t codes) {
  uint32_t found = 0;
  for (size_t i = from + 1; i < p->g->body.step_count && found < p->uses[codes].count; i++) {
    const cml_step *s = &p->g->body.steps[i];
    if (cml_pass_is(s, "dequantize") && cml_pass_arg(s, "input") == codes && by_one_scale(p->g, s)) found++;
  }
  return found && found == p->uses[codes].count;
}

static cml_status make_dequantize(cml_graph *g, cml_step *s, cml_dtype code, cml_error *err) {
  const cml_binding bindings[] = {{"x", cml_pass_arg(s, "input")}, {"scale", cml_pass_float(g, (float)cml_pass_number(g, s, "scale", 1))},
                                  {"zero", cml_pass_int(g, byte_zero(g, s, code))}, {"to", cml_pass_int(g, cml_pass_type(g, s->outs[0])->dtype)}};
  return cml_pass_become(g, s, "cml_dequantize", bindings, sizeof bindings / sizeof *bindings, err);
}

static cml_status to_bytes(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = &g->body.steps[at];
  if (!cml_pass_is(s, "quantize") || !by_one_scale(g, s) || !only_dequantized(p, at, s->outs[0])) return CML_OK;
  uint32_t codes = s->outs[0];
  cml_dtype code = cml_pass_type(g, codes)->dtype;
  const cml_binding bindings[] = {{"x", cml_pass_arg(s, "input")}, {"scale", cml_pass_float(g, (float)cml_pass_number(g, s, "scale", 1))},
                                  {"zero", cml_pass_int(g, byte_zero(g, s, code))}, {"nan", cml_pass_int(g, code == CML_I8 ? 128 : 0)}};
  CML_TRY(cml_pass_become(g, s, "cml_quantize", bindings, sizeof bindings / sizeof *bindings, err));
  CML_TRY(set_type(g, s, CML_U8, err));
  for (size_t i = at + 1; i < g->body.step_count; i++)
    if (cml_pass_is(&g->body.steps[i], "dequantize") && cml_pass_arg(&g->body.steps[i], "input") == codes)
      CML_TRY(make_dequantize(g, &g->body.steps[i], code, err));
  return CML_OK;
}

/* ---- 2. channels last before dequantize ---- */

static cml_status move_layout(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = &g->body.steps[at], *d = cml_pass_is(s, "cml_to_last") ? dequantized(p, at, cml_pass_arg(s, "x")) : NULL;
  if (!d || only_user(p, d->outs[0]) != s) return CML_OK;
  uint32_t bytes = cml_pass_arg(d, "x"), moved = d->outs[0];
  const cml_binding last[] = {{"x", bytes}}, back[] = {{"x", moved}, {"scale", cml_pass_arg(d, "scale")}, {"zero", cml_pass_arg(d, "zero")}, {"to", cml_pass_arg(d, "to")}};
  CML_TRY(cml_pass_become(g, s, "cml_dequantize", back, sizeof back / sizeof *back, err));
  CML_TRY(cml_pass_become(g, d, "cml_to_last", last, 1, err));
  g->values[moved].type = *cml_pass_type(g, s->outs[0]); /* the value between the two now has its channels last */
  return set_type(g, d, CML_U8, err);
}

/* ---- 3. layers ---- */

typedef struct weight_codes {
  uint32_t data, scale, zero; /* values; zero CML_NO_VALUE: 0 */
  bool wide;                  /* codes less their zeros leave a signed byte */
} weight_codes;

static const cml_step *folded_maker(const cml_graph *g, uint32_t v) {
  for (size_t i = 0; i < g->body.step_count; i++)
    if (g->body.steps[i].op && g->body.steps[i].folded && g->body.steps[i].out_count == 1 && g->body.steps[i].outs[0] == v) return &g->body.steps[i];
  return NULL;
}

/* One for all, or one for each of the first dimension. */
static bool by_output(const cml_tensor *t, const cml_tensor *data, bool vector) {
  if (!t) return false;
  int64_t n = cml_tensor_count(t);
  return n == 1 || (n == data->dims[0] && (vector ? t->rank == 1 : t->rank == data->rank && t->dims[0] == n));
}

/* How many signed bytes the codes less their zeros are sums of: 1 or 2; 0: more. */
static int bytes_of(const cml_tensor *data, const cml_tensor *zero) {
  int64_t rows = data->dims[0], row = rows ? cml_tensor_count(data) / rows : 0, zeros = zero ? cml_tensor_count(zero) : 0;
  int count = 1;
  for (int64_t r = 0; r < rows; r++) {
    double z = zero ? cml_tensor_get(zero, zeros == 1 ? 0 : r) : 0;
    int64_t lowest = data->dtype == CML_I8 ? -128 : 0, most = lowest + 255;
    if (z != floor(z) || fabs(z) > 1024) return 0;
    if ((double)lowest - z >= -128 && (double)most - z <= 127) continue;
    const uint8_t *codes = (const uint8_t *)data->data + r * row;
    for (int64_t i = 0; i < row; i++) {
      double v = (data->dtype == CML_I8 ? (double)(int8_t)codes[i] : (double)codes[i]) - z;
      if (v < -256 || v > 254) return 0;
      if (v < -128 || v > 127) count = 2;
    }
  }
  return count;
}

/* Codes of less than a byte as bytes. */
static uint32_t whole_bytes(cml_graph *g, uint32_t v) {
  const cml_tensor *t = constant(g, v);
  if (!t || cml_dtype_bits(t->dtype) >= 8 || !cml_tensor_known_shape(t)) return v;
  cml_tensor bytes = *t;
  int64_t n = cml_tensor_count(t);
  bytes.dtype = cml_dtype_is_signed(t->dtype) ? CML_I8 : CML_U8;
  if (!(bytes.data = cml_arena_alloc(&g->arena, (size_t)n + 1))) return CML_NO_VALUE;
  for (int64_t i = 0; i < n; i++) ((uint8_t *)bytes.data)[i] = (uint8_t)cml_tensor_get_int(t, i);
  return cml_pass_value(g, "", &bytes, CML_ROLE_CONSTANT);
}

/* The codes behind weights that a constexpr_ operation made. */
static bool find_codes(cml_graph *g, uint32_t weight, weight_codes *out) {
  const cml_step *s = folded_maker(g, weight);
  bool affine = s && !strcmp(s->op->name, "constexpr_affine_dequantize"), blocks = s && !strcmp(s->op->name, "constexpr_blockwise_shift_scale");
  if (!affine && !blocks) return false;
  *out = (weight_codes){cml_pass_arg(s, affine ? "quantized_data" : "data"), cml_pass_arg(s, "scale"), cml_pass_arg(s, affine ? "zero_point" : "offset"), false};
  const cml_tensor *data = constant(g, out->data), *scale = constant(g, out->scale), *zero = constant(g, out->zero);
  if (!data || !cml_dtype_is_integer(data->dtype) || cml_dtype_bits(data->dtype) > 8 || data->rank < 2 || !cml_tensor_known_shape(data)) return false;
  if (affine) {
    int64_t axis = (int64_t)cml_pass_number(g, s, "axis", 0);
    bool vector = (scale && scale->rank == 1 && scale->dims[0] != 1) || (zero && zero->rank == 1 && zero->dims[0] != 1);
    if (vector && axis != 0 && axis != -data->rank) return false;
  }
  if (!by_output(scale, data, affine) || (out->zero != CML_NO_VALUE && !by_output(zero, data, affine)) || !finite_values(scale)) return false;
  out->data = whole_bytes(g, out->data);
  out->zero = whole_bytes(g, out->zero);
  data = constant(g, out->data);
  int bytes = data ? bytes_of(data, constant(g, out->zero)) : 0;
  out->wide = bytes > 1;
  return bytes;
}

/* Weights of floats are taken where they are few or no transformation (Winograd's) would make more of them. */
static bool take_floats(cml_graph *g, uint32_t weight, weight_codes *out) {
  const cml_tensor *w = constant(g, weight);
  if (!w || !cml_dtype_is_float(w->dtype) || !cml_tensor_known_shape(w) || w->rank < 3 || !finite_values(w)) return false;
  if (w->rank == 4 && w->dims[2] == 3 && w->dims[3] == 3 && w->dims[1] >= 16) return false;
  *out = (weight_codes){weight, cml_pass_float(g, 1), CML_NO_VALUE, false};
  return true;
}

/* Whether the rows of ops_integer.c take these sizes. */
static bool sizes_fit(const cml_tensor *data, bool wide, bool linear) {
  if (linear) return data->rank == 2 && data->dims[1] > 0 && cml_integer_fits(&(cml_conv){.wide = wide, .channels = (size_t)data->dims[1], .groups = 1, .in = {1, 1, 1}, .kernel = {1, 1, 1}});
  return data->rank == 3 || data->rank == 4;
}

/* Makes `last` what step s computes of bytes. quantize: the step behind it whose bytes it gives, or NULL: floats. */
static cml_status become_product(integers *p, cml_step *s, const cml_step *d, const cml_step *r, const weight_codes *w, const cml_step *quantize, cml_step *last,
                                 cml_error *err) {
  cml_graph *g = p->g;
  bool linear = !cml_pass_is(s, "cml_conv");
  uint32_t x = cml_pass_arg(d, "x"), residual = r ? cml_pass_arg(r, "x") : CML_NO_VALUE;
  const cml_binding bindings[] = {
      {"x", x}, {"weight", w->data}, {"bias", cml_pass_arg(s, "bias")}, {"strides", cml_pass_arg(s, "strides")},
      {"pad_type", cml_pass_arg(s, "pad_type")}, {"pad", cml_pass_arg(s, "pad")}, {"dilations", cml_pass_arg(s, "dilations")},
      {"groups", cml_pass_arg(s, "groups")}, {"x_scale", cml_pass_arg(d, "scale")}, {"x_zero", cml_pass_arg(d, "zero")},
      {"weight_scale", w->scale}, {"weight_zero", w->zero}, {"residual", residual},
      {"residual_scale", r ? cml_pass_arg(r, "scale") : CML_NO_VALUE}, {"residual_zero", r ? cml_pass_arg(r, "zero") : CML_NO_VALUE},
      {"activation", cml_pass_arg(s, "activation")}, {"alpha", cml_pass_arg(s, "alpha")}, {"beta", cml_pass_arg(s, "beta")},
      {"scale", quantize ? cml_pass_arg(quantize, "scale") : CML_NO_VALUE}, {"zero", quantize ? cml_pass_arg(quantize, "zero") : CML_NO_VALUE},
      {"to", cml_pass_int(g, quantize ? CML_U8 : cml_pass_type(g, s->outs[0])->dtype)},
      {"wide", w->wide ? cml_pass_int(g, 1) : CML_NO_VALUE},
  };
  const char *name = s->name;
  CML_TRY(cml_pass_become(g, last, linear ? "cml_integer_linear" : "cml_integer_conv", bindings, sizeof bindings / sizeof *bindings, err));
  if (last != s) s->op = NULL;
  last->name = name;
  moved_use(p, x, last);
  moved_use(p, residual, last);
  return CML_OK;
}

static cml_status take_layer(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = &g->body.steps[at];
  bool linear = cml_pass_is(s, "linear") || cml_pass_is(s, "cml_linear"), conv = cml_pass_is(s, "cml_conv") && cml_pass_number(g, s, "layout", 0) == 1;
  weight_codes w;
  if (!linear && !conv) return CML_OK;
  uint32_t bias = cml_pass_arg(s, "bias"), residual = cml_pass_arg(s, "residual");
  cml_dtype type = cml_pass_type(g, s->outs[0])->dtype;
  cml_step *d = dequantized(p, at, cml_pass_arg(s, "x")), *r = residual == CML_NO_VALUE ? NULL : dequantized(p, at, residual);
  if (!d || (residual != CML_NO_VALUE && !r) || (type != CML_F16 && type != CML_F32) || cml_pass_type(g, cml_pass_arg(d, "x"))->rank < 1) return CML_OK;
  if (bias != CML_NO_VALUE && (!constant(g, bias) || !finite_values(constant(g, bias)))) return CML_OK;
  if (!find_codes(g, cml_pass_arg(s, "weight"), &w) && (linear || !take_floats(g, cml_pass_arg(s, "weight"), &w))) return CML_OK;
  if (!sizes_fit(cml_pass_type(g, w.data), w.wide, linear)) return CML_OK;
  cml_step *q = only_user(p, s->outs[0]);
  if (q && !cml_pass_is(q, "cml_quantize")) q = NULL;
  return become_product(p, s, d, r, &w, q, q ? q : s, err);
}

/* ---- 4. what follows a layer ---- */

static bool same_shape(const cml_graph *g, uint32_t x, uint32_t y) {
  const cml_tensor *a = cml_pass_type(g, x), *b = cml_pass_type(g, y);
  return cml_tensor_known_shape(a) && cml_tensor_known_shape(b) && cml_tensor_same_shape(a, b);
}

/* The function that alone uses the value; NULL, and a copy for one, where there is none. */
static cml_step *function_of(const integers *p, uint32_t value, cml_unary *f, float *a, float *b) {
  cml_step *s = only_user(p, value);
  if (s && cml_pass_activation(p->g, s, f, a, b) && cml_pass_arg(s, "x") == value) return s;
  *f = CML_UNARY_COPY, *a = *b = 0;
  return NULL;
}

typedef struct tail {
  cml_step *add, *function, *quantize; /* NULL: none */
  const cml_step *residual;
  cml_unary f;
  float a, b;
  cml_step *last;
  uint32_t value; /* what `last` makes */
} tail;

static bool is_clamp(cml_unary f, float a, float b, float *low, float *high) {
  return cml_epilogue_bounds(&(cml_epilogue){.activation = f, .a = a, .b = b}, low, high);
}

/* From a dequantize on: (+ residual), (a function), (quantize), each the only user of what is before it. */
static tail follow(const integers *p, cml_step *dequantize) {
  const cml_graph *g = p->g;
  tail t = {.last = dequantize, .value = dequantize->outs[0], .f = CML_UNARY_COPY};
  cml_step *next = only_user(p, t.value);
  if (next && cml_pass_is(next, "add")) {
    uint32_t x = cml_pass_arg(next, "x"), y = cml_pass_arg(next, "y");
    const cml_step *r = x == y ? NULL : dequantized(p, (size_t)(next - g->body.steps), x == t.value ? y : x);
    if (!r || !same_shape(g, x, y)) return t;
    t.add = t.last = next, t.residual = r, t.value = next->outs[0];
  }
  if ((t.function = function_of(p, t.value, &t.f, &t.a, &t.b))) t.last = t.function, t.value = t.function->outs[0];
  next = only_user(p, t.value);
  if (next && cml_pass_is(next, "cml_quantize")) t.quantize = t.last = next, t.value = next->outs[0];
  return t;
}

static void drop(cml_step *s, const cml_step *but) {
  if (s && s != but) s->op = NULL;
}

static cml_status take_tail(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = &g->body.steps[at];
  float low, high;
  if ((!cml_pass_is(s, "cml_integer_linear") && !cml_pass_is(s, "cml_integer_conv")) || (int)cml_pass_number(g, s, "to", 0) != CML_U8) return CML_OK;
  if (cml_pass_arg(s, "residual") != CML_NO_VALUE || cml_pass_arg(s, "middle_scale") != CML_NO_VALUE) return CML_OK; /* it has taken one */
  cml_step *d = only_user(p, s->outs[0]);
  if (!d || !cml_pass_is(d, "cml_dequantize") || (int)cml_pass_number(g, d, "zero", 0) != (int)cml_pass_number(g, s, "zero", 0)) return CML_OK;
  if (!is_clamp((cml_unary)(int)cml_pass_number(g, s, "activation", CML_UNARY_COPY), (float)cml_pass_number(g, s, "alpha", 0), (float)cml_pass_number(g, s, "beta", 0), &low, &high)) return CML_OK;
  tail t = follow(p, d);
  float ignored;
  if (t.function && !is_clamp(t.f, t.a, t.b, &ignored, &ignored) && (!t.add || t.quantize)) return CML_OK; /* a table is faster */
  uint32_t residual = t.residual ? cml_pass_arg(t.residual, "x") : CML_NO_VALUE, x = cml_pass_arg(s, "x");
  const cml_binding others[] = {
      {"middle_scale", cml_pass_arg(s, "scale")}, {"middle_zero", cml_pass_arg(s, "zero")}, {"middle_low", cml_pass_float(g, low)},
      {"middle_high", cml_pass_float(g, high)}, {"middle_back", cml_pass_arg(d, "scale")}, {"residual", residual},
      {"residual_scale", t.residual ? cml_pass_arg(t.residual, "scale") : CML_NO_VALUE},
      {"residual_zero", t.residual ? cml_pass_arg(t.residual, "zero") : CML_NO_VALUE}, {"activation", cml_pass_int(g, t.f)},
      {"alpha", cml_pass_float(g, t.a)}, {"beta", cml_pass_float(g, t.b)}, {"scale", t.quantize ? cml_pass_arg(t.quantize, "scale") : CML_NO_VALUE},
      {"zero", t.quantize ? cml_pass_arg(t.quantize, "zero") : CML_NO_VALUE},
      {"to", cml_pass_int(g, t.quantize ? CML_U8 : cml_pass_type(g, t.value)->dtype)},
  };
  const char *name = s->name;
  CML_TRY(cml_pass_become_like(g, t.last, s->op->name, s, others, sizeof others / sizeof *others, err));
  t.last->name = name;
  drop(s, t.last), drop(d, t.last), drop(t.add, t.last), drop(t.function, t.last), drop(t.quantize, t.last);
  moved_use(p, x, t.last);
  moved_use(p, residual, t.last);
  return CML_OK;
}

/* ---- 5. maxima, sums, tables ---- */

static cml_status take_max(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = &g->body.steps[at], *d = cml_pass_is(s, "cml_max_pool_last") ? dequantized(p, at, cml_pass_arg(s, "x")) : NULL;
  if (!d || only_user(p, d->outs[0]) != s || rank_of(g, d->outs[0]) < 3 || rank_of(g, d->outs[0]) > 4) return CML_OK;
  uint32_t bytes = cml_pass_arg(d, "x"), moved = d->outs[0];
  const cml_binding max[] = {{"x", bytes}, {"kernel_sizes", cml_pass_arg(s, "kernel_sizes")}, {"strides", cml_pass_arg(s, "strides")},
                             {"pad_type", cml_pass_arg(s, "pad_type")}, {"pad", cml_pass_arg(s, "pad")}, {"ceil_mode", cml_pass_arg(s, "ceil_mode")}},
                    back[] = {{"x", moved}, {"scale", cml_pass_arg(d, "scale")}, {"zero", cml_pass_arg(d, "zero")}, {"to", cml_pass_arg(d, "to")}};
  CML_TRY(cml_pass_become(g, s, "cml_dequantize", back, sizeof back / sizeof *back, err));
  CML_TRY(cml_pass_become(g, d, "cml_integer_max_pool", max, sizeof max / sizeof *max, err));
  g->values[moved].type = *cml_pass_type(g, s->outs[0]);
  return set_type(g, d, CML_U8, err);
}

static cml_status take_add(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = &g->body.steps[at];
  float low, high;
  if (!cml_pass_is(s, "add")) return CML_OK;
  cml_step *x = dequantized(p, at, cml_pass_arg(s, "x")), *y = dequantized(p, at, cml_pass_arg(s, "y")), *function, *q;
  if (!x || !y || !same_shape(g, x->outs[0], y->outs[0])) return CML_OK;
  cml_unary f;
  float a, b;
  function = function_of(p, s->outs[0], &f, &a, &b);
  q = only_user(p, function ? function->outs[0] : s->outs[0]);
  if (!q || !cml_pass_is(q, "cml_quantize") || !is_clamp(f, a, b, &low, &high)) return CML_OK;
  const cml_binding bindings[] = {{"x", cml_pass_arg(x, "x")}, {"y", cml_pass_arg(y, "x")}, {"x_scale", cml_pass_arg(x, "scale")},
                                  {"x_zero", cml_pass_arg(x, "zero")}, {"y_scale", cml_pass_arg(y, "scale")}, {"y_zero", cml_pass_arg(y, "zero")},
                                  {"activation", cml_pass_int(g, f)}, {"alpha", cml_pass_float(g, a)}, {"beta", cml_pass_float(g, b)},
                                  {"scale", cml_pass_arg(q, "scale")}, {"zero", cml_pass_arg(q, "zero")}};
  CML_TRY(cml_pass_become(g, q, "cml_integer_add", bindings, sizeof bindings / sizeof *bindings, err));
  drop(s, q), drop(function, q);
  moved_use(p, cml_pass_arg(q, "x"), q);
  moved_use(p, cml_pass_arg(q, "y"), q);
  return CML_OK;
}

/* What the steps make of each byte, rounded where they round. */
static void fill_table(const cml_graph *g, const cml_step *d, const cml_step *function, const cml_step *q, uint8_t *table) {
  const cml_kernels *k = cml_kernels_get();
  bool half = (int)cml_pass_number(g, d, "to", CML_F32) == CML_F16;
  cml_unary f = CML_UNARY_COPY;
  float a = 0, b = 0, values[256];
  cml_f16 halves[256];
  uint8_t bytes[256];
  for (int i = 0; i < 256; i++) bytes[i] = (uint8_t)i;
  if (function) cml_pass_activation(g, function, &f, &a, &b);
  k->dequantize(bytes, 256, (float)cml_pass_number(g, d, "scale", 1), (int32_t)cml_pass_number(g, d, "zero", 0), half ? (void *)halves : values, half);
  if (half) k->unary_f16(f, halves, halves, 256, a, b);
  else k->unary(f, values, values, 256, a, b);
  k->quantize(half ? (void *)halves : values, half, 256, (float)cml_pass_number(g, q, "scale", 1), (int32_t)cml_pass_number(g, q, "zero", 0), (uint8_t)cml_pass_number(g, q, "nan", 0), table);
}

/* Makes s the table of what d, a function (NULL: none) and q make of bytes. */
static cml_status become_map(cml_graph *g, cml_step *s, const cml_step *d, const cml_step *function, const cml_step *q, cml_error *err) {
  cml_tensor table = {.dtype = CML_U8, .rank = 1, .dims = {256}, .data = cml_arena_alloc(&g->arena, 256)};
  if (!table.data) return cml_fail_memory(err);
  fill_table(g, d, function, q, table.data);
  const cml_binding bindings[] = {{"x", cml_pass_arg(d, "x")}, {"table", cml_pass_value(g, "", &table, CML_ROLE_CONSTANT)}};
  if (bindings[1].value == CML_NO_VALUE) return cml_fail_memory(err);
  bool same = true;
  for (int i = 0; i < 256; i++) same = same && ((uint8_t *)table.data)[i] == i;
  return cml_pass_become(g, s, same ? "identity" : "cml_integer_map", bindings, same ? 1 : 2, err);
}

static cml_status take_map(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *q = &g->body.steps[at], *function = NULL;
  if (!cml_pass_is(q, "cml_quantize")) return CML_OK;
  uint32_t x = cml_pass_arg(q, "x");
  cml_step *d = dequantized(p, at, x);
  cml_unary f;
  float a, b;
  if (!d && (function = cml_pass_maker(g, at, x))) {
    if (only_user(p, x) != q || !cml_pass_activation(g, function, &f, &a, &b)) return CML_OK;
    d = dequantized(p, at, cml_pass_arg(function, "x"));
  }
  if (!d) return CML_OK;
  uint32_t bytes = cml_pass_arg(d, "x");
  CML_TRY(become_map(g, q, d, function, q, err));
  drop(function, q);
  moved_use(p, bytes, q);
  return CML_OK;
}

/* A quantize behind parts that are dequantized for them alone moves before each: their bytes are joined. */
static cml_status take_concat(integers *p, size_t at, cml_error *err) {
  cml_graph *g = p->g;
  cml_step *s = &g->body.steps[at], *q = cml_pass_is(s, "concat") ? only_user(p, s->outs[0]) : NULL;
  if (!q || !cml_pass_is(q, "cml_quantize")) return CML_OK;
  for (uint16_t i = s->first[0]; i < s->first[1]; i++) {
    const cml_step *d = dequantized(p, at, s->args[i]);
    if (!d || only_user(p, d->outs[0]) != s) return CML_OK;
  }
  for (uint16_t i = s->first[0]; i < s->first[1]; i++) {
    cml_step *d = dequantized(p, at, s->args[i]);
    CML_TRY(become_map(g, d, d, NULL, q, err));
    CML_TRY(set_type(g, d, CML_U8, err));
  }
  const cml_binding same[] = {{"x", s->outs[0]}};
  CML_TRY(set_type(g, s, CML_U8, err));
  return cml_pass_become(g, q, "identity", same, 1, err);
}

/* ---- the pass ---- */

static cml_status each(integers *p, cml_status (*take)(integers *p, size_t at, cml_error *err), cml_error *err) {
  free(p->uses);
  p->known = p->g->value_count;
  if (!(p->uses = cml_pass_uses(p->g))) return cml_fail_memory(err);
  for (size_t i = 0; i < p->g->body.step_count; i++)
    if (p->g->body.steps[i].op && !p->g->body.steps[i].folded) CML_TRY(take(p, i, err));
  return CML_OK;
}

cml_status cml_pass_integers(cml_graph *g, cml_error *err) {
  integers p = {.g = g};
  bool any = false;
  for (size_t i = 0; i < g->body.step_count; i++) any = any || cml_pass_is(&g->body.steps[i], "quantize");
  if (!any) return CML_OK;
  cml_status status = each(&p, to_bytes, err);
  if (!status) status = each(&p, move_layout, err);
  if (!status) status = each(&p, take_max, err);
  if (!status) status = each(&p, take_concat, err);
  if (!status) status = each(&p, take_layer, err);
  if (!status) status = each(&p, take_tail, err);
  if (!status) status = each(&p, take_add, err);
  if (!status) status = each(&p, take_map, err);
  free(p.uses);
  return status ? status : cml_pass_dead_code(g, err); /* values that only layers in floats wanted */
}
