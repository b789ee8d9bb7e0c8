/* Operators on bytes, which only the pass `integers` makes. A byte b of a value with scale s and zero z stands for s * (b - z); bytes are
 * unsigned here, and those of int8 values 128 more than in the program. Scales and zeros are constants, one a value.
 *
 * cml_integer_conv and cml_integer_linear sum bytes times signed bytes exactly, then compute what followed in the program in float32 up
 * to the next quantization (kernels.h says it in formulas). Where nothing but a clamp follows, everything is computed in units
 * of the output's scale, so that a byte takes one rounding. */
#include <math.h>
#include <stdlib.h>

#include "convolutions.h"
#include "families.h"
#include "integer.h"
#include "windows.h"

static size_t slots(const cml_call *c) { return cml_pool_threads(c->pool); }

/* ---- to bytes and back ---- */

static const cml_param quantize_params[] = {
    {"x", CML_M_FLOAT, 0, 0},
    {"scale", CML_MASK(F32), CML_CONST, 0},
    {"zero", CML_MASK(I32), CML_CONST, 0},
    {"nan", CML_MASK(I32), CML_CONST, 0}, /* what NaN becomes */
};
static const cml_param dequantize_params[] = {
    {"x", CML_MASK(U8), 0, 0},
    {"scale", CML_MASK(F32), CML_CONST, 0},
    {"zero", CML_MASK(I32), CML_CONST, 0},
    {"to", CML_MASK(I32), CML_CONST, 0}, /* a cml_dtype */
};

/* Zeros of bytes are bytes. */
static cml_status check_zeros(const cml_call *c, const unsigned *params, size_t count, cml_error *err) {
  for (size_t i = 0; i < count; i++) {
    int64_t zero = cml_arg_int(c, params[i], 0);
    if (zero < 0 || zero > 255) return cml_call_fail(c, err, "a zero of %lld is no byte", (long long)zero);
  }
  return CML_OK;
}

static cml_status infer_quantize(cml_call *c, cml_error *err) {
  CML_TRY(check_zeros(c, (const unsigned[]){2, 3}, 2, err));
  cml_out_like(c, 0, cml_arg(c, 0));
  c->outs[0]->dtype = CML_U8;
  return CML_OK;
}

/* The output's type from parameter `param`. */
static cml_status read_type(const cml_call *c, unsigned param, bool bytes, cml_dtype *out, cml_error *err) {
  *out = (cml_dtype)cml_arg_int(c, param, CML_F32);
  if (*out == CML_F16 || *out == CML_F32 || (bytes && *out == CML_U8)) return CML_OK;
  return cml_call_fail(c, err, "type %d is not one that it gives", (int)*out);
}

static cml_status infer_dequantize(cml_call *c, cml_error *err) {
  cml_dtype to;
  CML_TRY(read_type(c, 3, false, &to, err));
  CML_TRY(check_zeros(c, (const unsigned[]){2}, 1, err));
  cml_out_like(c, 0, cml_arg(c, 0));
  c->outs[0]->dtype = to;
  return CML_OK;
}

typedef struct element_job {
  const cml_kernels *k;
  const cml_tensor *x;
  cml_tensor *y;
  float scale;
  int32_t zero;
  uint8_t nan_code;
} element_job;

enum { PIECE = 4096 };

static void quantize_pieces(void *context, size_t begin, size_t end) {
  const element_job *j = context;
  bool half = j->x->dtype == CML_F16;
  size_t n = (size_t)cml_tensor_count(j->x), from = begin * PIECE, to = end * PIECE < n ? end * PIECE : n;
  j->k->quantize((const char *)j->x->data + from * (half ? 2 : 4), half, to - from, j->scale, j->zero, j->nan_code, (uint8_t *)j->y->data + from);
}

static void dequantize_pieces(void *context, size_t begin, size_t end) {
  const element_job *j = context;
  bool half = j->y->dtype == CML_F16;
  size_t n = (size_t)cml_tensor_count(j->x), from = begin * PIECE, to = end * PIECE < n ? end * PIECE : n;
  j->k->dequantize((const uint8_t *)j->x->data + from, to - from, j->scale, j->zero, (char *)j->y->data + from * (half ? 2 : 4), half);
}

static cml_status run_elements(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  bool back = x->dtype == CML_U8;
  element_job j = {cml_kernels_get(), x, c->outs[0], (float)cml_arg_float(c, 1, 1), (int32_t)cml_arg_int(c, 2, 0), (uint8_t)(back ? 0 : cml_arg_int(c, 3, 0))};
  cml_parallel(c->pool, ((size_t)cml_tensor_count(x) + PIECE - 1) / PIECE, 8, back ? dequantize_pieces : quantize_pieces, &j);
  return CML_OK;
}

/* ---- convolutions and linear layers ---- */

enum { X, WEIGHT, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS, X_SCALE, X_ZERO, WEIGHT_SCALE, WEIGHT_ZERO, MIDDLE_SCALE, MIDDLE_ZERO, MIDDLE_LOW,
       MIDDLE_HIGH, MIDDLE_BACK, RESIDUAL, RESIDUAL_SCALE, RESIDUAL_ZERO, ACTIVATION, ALPHA, BETA, SCALE, ZERO, TO, WIDE };

static const cml_param product_params[] = {
    {"x", CML_MASK(U8), 0, 0},
    {"weight", CML_MASK(I8) | CML_MASK(U8) | CML_M_FLOAT, CML_CONST, 0},
    {"bias", CML_M_FLOAT, CML_CONST | CML_OPTIONAL, 0},
    CML_CONV_WINDOW_PARAMS
    {"x_scale", CML_MASK(F32), CML_CONST, 0},
    {"x_zero", CML_MASK(I32), CML_CONST, 0},
    {"weight_scale", CML_M_FLOAT, CML_CONST, 0},                               /* one, or one for each output */
    {"weight_zero", CML_M_NUMBER, CML_CONST | CML_OPTIONAL, 0},                /* likewise */
    /* the value is kept within bounds, quantized, and dequantized with another scale */
    {"middle_scale", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"middle_zero", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"middle_low", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"middle_high", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"middle_back", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"residual", CML_MASK(U8), CML_OPTIONAL, 0},                               /* then this is added */
    {"residual_scale", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"residual_zero", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"activation", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"alpha", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"beta", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"scale", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},                     /* of the output, where it is bytes */
    {"zero", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"to", CML_MASK(I32), CML_CONST, 0},                                       /* a cml_dtype: uint8, or a float without scale and zero */
    {"wide", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},                      /* 1: weights less their zeros leave a signed byte */
};

/* How the sums are made. */
enum way { BY_TILES, BY_CHANNEL, BY_CHANNEL_IN_FLOATS, BY_FLOATS };

typedef struct product {
  const cml_kernels *k;
  const void *packed;
  enum way way;
  const uint8_t *table; /* what becomes of the bytes of the middle quantization, where nothing is added */
  cml_integer_tile after;
} product;

static bool is_linear(const cml_call *c) { return !strcmp(c->op->name, "cml_integer_linear"); }

/* A linear layer: each vector a pixel of its own row. */
static cml_status read_linear(const cml_call *c, cml_conv *v, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT);
  int64_t rows = 1;
  if (w->rank != 2 || x->rank < 1) return cml_call_fail(c, err, "weight has rank %d and x %d", w->rank, x->rank);
  if (x->dims[x->rank - 1] >= 0 && x->dims[x->rank - 1] != w->dims[1])
    return cml_call_fail(c, err, "the last dimension of x is %lld, weight has %lld columns", (long long)x->dims[x->rank - 1], (long long)w->dims[1]);
  for (int32_t i = 0; i + 1 < x->rank; i++) rows = cml_dim_mul(rows, x->dims[i]);
  *v = (cml_conv){.batch = 1, .channels = (size_t)w->dims[1], .outputs = (size_t)w->dims[0], .groups = 1, .in = {1, rows, 1}, .out = {1, rows, 1},
                  .kernel = {1, 1, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .in_last = true, .out_last = true};
  cml_conv_place_all(v);
  return CML_OK;
}

/* Floats for weights that are, and groups of so few channels that integers would not pay. */
static enum way choose_way(const cml_call *c, const cml_conv *v) {
  bool floats = cml_dtype_is_float(cml_arg(c, WEIGHT)->dtype);
  if (cml_integer_depthwise_fits(v) && !cml_depthwise_shares(cml_kernels_get(), v)) return floats || v->wide ? BY_CHANNEL_IN_FLOATS : BY_CHANNEL;
  return floats || !cml_integer_fits(v) || cml_conv_narrow(cml_kernels_get(), v) || cml_conv_multiplier(v) ? BY_FLOATS : BY_TILES;
}

static size_t way_scratch(const cml_kernels *k, const cml_conv *v, enum way way) {
  if (way == BY_TILES) return cml_integer_scratch(k, v);
  if (way == BY_FLOATS) return cml_integer_floats_scratch(k, v);
  return cml_integer_depthwise_scratch(k, v, way == BY_CHANNEL_IN_FLOATS);
}

static cml_status read_product(const cml_call *c, cml_conv *v, cml_error *err) {
  CML_TRY(is_linear(c) ? read_linear(c, v, err) : cml_conv_read_last(c, -1, v, err));
  if (cml_arg(c, X)->rank > 4 && !is_linear(c)) return cml_call_fail(c, err, "x has three spatial dimensions");
  v->wide = cml_arg_int(c, WIDE, 0);
  if (is_linear(c) && !cml_integer_fits(v)) return cml_call_fail(c, err, "the sums do not fit into 32 bits");
  static const unsigned columns[] = {BIAS, WEIGHT_SCALE, WEIGHT_ZERO};
  for (int i = 0; i < 3; i++) {
    int64_t n = cml_arg(c, columns[i]) ? cml_tensor_count(cml_arg(c, columns[i])) : 1;
    if (n != (int64_t)v->outputs && (n != 1 || columns[i] == BIAS) && cml_arg(c, columns[i]))
      return cml_call_fail(c, err, "%s has %lld elements for %lld outputs", c->op->params[columns[i]].name, (long long)n, (long long)v->outputs);
  }
  v->in_half = v->out_half = false;
  return CML_OK;
}

/* As the pass gives them: codes less their zeros stay near a byte. */
static cml_status check_weight_zeros(const cml_call *c, cml_error *err) {
  const cml_tensor *zeros = cml_arg(c, WEIGHT_ZERO);
  for (int64_t i = 0, n = zeros ? cml_tensor_count(zeros) : 0; i < n; i++) {
    double zero = cml_tensor_get(zeros, i);
    if (!(zero >= -1024 && zero <= 1024)) return cml_call_fail(c, err, "a weight's zero of %g is out of range", zero);
  }
  return CML_OK;
}

static cml_status infer_product(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *residual = cml_arg(c, RESIDUAL);
  cml_dtype to;
  int64_t dims[CML_MAX_RANK];
  cml_conv v;
  CML_TRY(read_type(c, TO, true, &to, err));
  CML_TRY(check_zeros(c, (const unsigned[]){X_ZERO, MIDDLE_ZERO, RESIDUAL_ZERO, ZERO}, 4, err));
  CML_TRY(check_weight_zeros(c, err));
  if (x->rank < 0) return cml_out_unknown(c, 0, to, CML_RANK_UNKNOWN), CML_OK;
  CML_TRY(read_product(c, &v, err));
  memcpy(dims, x->dims, sizeof dims);
  dims[x->rank - 1] = w->dims[0];
  for (int32_t i = 1; i + 1 < x->rank && !is_linear(c); i++) dims[i] = v.out[3 - (x->rank - 1) + i];
  cml_out_set(c, 0, to, x->rank, dims);
  if (residual && cml_tensor_known_shape(residual) && cml_tensor_known_shape(c->outs[0]) && !cml_tensor_same_shape(residual, c->outs[0]))
    return cml_call_fail(c, err, "the residual does not have the output's shape");
  if (!cml_tensor_known_shape(x)) return CML_OK;
  const cml_kernels *k = cml_kernels_get();
  c->scratch_size = slots(c) * cml_scratch_part(way_scratch(k, &v, choose_way(c, &v)));
  return CML_OK;
}

static float clampf(float x, float low, float high) { return fminf(fmaxf(x, low), high); }

/* What follows the sums: `unit` is what 1 stands for at the end. */
static void read_after(const cml_call *c, cml_integer_tile *t, float *first_unit) {
  cml_epilogue e = {.activation = (cml_unary)cml_arg_int(c, ACTIVATION, CML_UNARY_COPY), .a = (float)cml_arg_float(c, ALPHA, 0), .b = (float)cml_arg_float(c, BETA, 0)};
  cml_dtype to = (cml_dtype)cml_arg_int(c, TO, CML_F32);
  bool clamp = cml_epilogue_bounds(&e, &t->low, &t->high);
  float scale = (float)cml_arg_float(c, SCALE, 1), unit = to == CML_U8 && clamp ? scale : 1;
  *t = (cml_integer_tile){.low = t->low / unit, .high = t->high / unit, .f_scale = 1, .to = to == CML_U8 ? CML_TO_BYTE : to == CML_F16 ? CML_TO_F16 : CML_TO_F32};
  if (!clamp) t->f = e.activation, t->f_a = e.a, t->f_b = e.b, t->f_scale = 1 / scale, t->unary_rows = cml_kernels_get()->unary_rows;
  if (to == CML_U8) {
    t->zero = (int32_t)cml_arg_int(c, ZERO, 0);
    t->low = clampf(t->low, (float)-t->zero, (float)(255 - t->zero));
    t->high = clampf(t->high, (float)-t->zero, (float)(255 - t->zero));
  }
  if ((t->middle = cml_arg(c, MIDDLE_SCALE))) {
    float middle = (float)cml_arg_float(c, MIDDLE_SCALE, 1), zero = (float)cml_arg_int(c, MIDDLE_ZERO, 0);
    t->middle_low = clampf((float)cml_arg_float(c, MIDDLE_LOW, -INFINITY) / middle, -zero, 255 - zero);
    t->middle_high = clampf((float)cml_arg_float(c, MIDDLE_HIGH, INFINITY) / middle, -zero, 255 - zero);
    t->middle_scale = (float)cml_arg_float(c, MIDDLE_BACK, 1) / unit;
    *first_unit = middle;
  } else {
    *first_unit = unit;
  }
  if (cml_arg(c, RESIDUAL)) {
    t->residual_scale = (float)cml_arg_float(c, RESIDUAL_SCALE, 1) / unit;
    t->residual_bias = -(float)cml_arg_int(c, RESIDUAL_ZERO, 0) * t->residual_scale;
  }
}

/* A byte that is quantized again, with nothing but a clamp in between, is looked up: the sum needs one rounding less in registers. */
static cml_status keep_table(cml_call *c, product *p, cml_error *err) {
  cml_integer_tile *t = &p->after;
  if (!t->middle || cml_arg(c, RESIDUAL) || t->to != CML_TO_BYTE || t->unary_rows) return CML_OK;
  uint8_t *table = cml_call_keep(c, 256, err);
  if (!table) return c->keep_status;
  int32_t zero = (int32_t)cml_arg_int(c, MIDDLE_ZERO, 0);
  for (int32_t i = 0; i < 256; i++) table[i] = (uint8_t)((int32_t)nearbyintf(clampf((float)(i - zero) * t->middle_scale, t->low, t->high)) + t->zero);
  t->middle = false;
  t->low = t->middle_low, t->high = t->middle_high, t->zero = zero;
  p->table = table;
  return CML_OK;
}

/* Scales and biases by output in units of `unit`; the zero of x times a weight's sum is known beforehand. */
static cml_status keep_columns(cml_call *c, product *p, size_t outputs, const int32_t *sums, float unit, cml_error *err) {
  const cml_tensor *weight = cml_arg(c, WEIGHT_SCALE), *bias = cml_arg(c, BIAS);
  float *scales = cml_call_keep(c, outputs * 4, err), *biases = scales ? cml_call_keep(c, outputs * 4, err) : NULL;
  int32_t *start = biases ? cml_call_keep(c, outputs * 4, err) : NULL, zero = (int32_t)cml_arg_int(c, X_ZERO, 0);
  if (!start) return c->keep_status;
  bool one = cml_tensor_count(weight) == 1;
  double x_scale = cml_arg_float(c, X_SCALE, 1);
  for (size_t o = 0; o < outputs; o++) {
    scales[o] = (float)(x_scale * cml_tensor_get(weight, one ? 0 : (int64_t)o) / (double)unit);
    biases[o] = bias ? (float)(cml_tensor_get(bias, (int64_t)o) / (double)unit) : 0;
    start[o] = (int32_t)(0 - (uint32_t)zero * (uint32_t)sums[o]);
  }
  p->after.scale = scales;
  p->after.bias = biases;
  p->after.start = start;
  return CML_OK;
}

static int32_t *keep_zeros(cml_call *c, size_t outputs, cml_error *err) {
  const cml_tensor *t = cml_arg(c, WEIGHT_ZERO);
  int32_t *zeros = cml_call_keep(c, outputs * 4, err);
  bool one = cml_tensor_count(t) == 1;
  for (size_t o = 0; zeros && o < outputs; o++) zeros[o] = (int32_t)cml_tensor_get(t, one ? 0 : (int64_t)o);
  return zeros;
}

/* The weights as floats, codes less their zeros. */
static cml_status keep_floats(cml_call *c, const cml_conv *v, const int32_t *zeros, product *p, cml_error *err) {
  const cml_tensor *w = cml_arg(c, WEIGHT);
  int64_t n = cml_tensor_count(w), taps = v->kernel[1] * v->kernel[2], row = n / w->dims[0];
  float *values = w->dtype == CML_I8 || w->dtype == CML_U8 ? malloc(((size_t)n + 1) * sizeof *values) : NULL;
  if (!cml_dtype_is_float(w->dtype) && !values) return cml_fail_memory(err);
  for (int64_t i = 0; values && i < n; i++) values[i] = (float)(cml_tensor_get_int(w, i) - (zeros ? zeros[i / row] : 0));
  cml_conv_source from = {.data = values ? values : w->data, .half = w->dtype == CML_F16, .group_stride = n / (int64_t)v->groups, .output_stride = row,
                          .channel_stride = taps, .tap_stride = {taps, v->kernel[2], 1}};
  void *packed = cml_call_keep(c, cml_conv_packed_bytes(p->k, v, false), err);
  if (packed) cml_conv_pack(p->k, v, &from, false, packed, c->pool);
  free(values);
  p->packed = packed;
  return packed ? CML_OK : c->keep_status;
}

static cml_status keep_bytes(cml_call *c, const cml_conv *v, const int32_t *zeros, product *p, int32_t *sums, cml_error *err) {
  const cml_tensor *w = cml_arg(c, WEIGHT);
  bool channel = p->way == BY_CHANNEL, is_signed = w->dtype == CML_I8;
  void *packed = cml_call_keep(c, channel ? cml_integer_depthwise_packed_bytes(p->k, v) : cml_integer_packed_bytes(p->k, v), err);
  if (!packed) return c->keep_status;
  if (channel) cml_integer_depthwise_pack(p->k, v, w->data, is_signed, zeros, packed, sums);
  else cml_integer_pack(p->k, v, w->data, is_signed, zeros, packed, sums, c->pool);
  p->packed = packed;
  return CML_OK;
}

static cml_status prepare_product(cml_call *c, cml_error *err) {
  const cml_tensor *w = cml_arg(c, WEIGHT);
  const cml_kernels *k = cml_kernels_get();
  cml_conv v;
  float unit;
  if (cml_arg(c, X)->rank < 0) return CML_OK;
  CML_TRY(read_product(c, &v, err));
  product *p = cml_call_keep(c, sizeof *p, err);
  int32_t *sums = p ? cml_call_keep(c, (v.outputs + 1) * 4, err) : NULL, *zeros = NULL;
  if (!sums) return c->keep_status;
  if (cml_arg(c, WEIGHT_ZERO) && !(zeros = keep_zeros(c, v.outputs, err))) return c->keep_status;
  p->k = k;
  p->way = choose_way(c, &v);
  if (p->way == BY_FLOATS || p->way == BY_CHANNEL_IN_FLOATS) CML_TRY(keep_floats(c, &v, zeros, p, err));
  else CML_TRY(keep_bytes(c, &v, zeros, p, sums, err));
  read_after(c, &p->after, &unit);
  CML_TRY(keep_table(c, p, err));
  CML_TRY(keep_columns(c, p, v.outputs, sums, unit, err));
  cml_arg_unread(c, w);
  c->prepared = p;
  return CML_OK;
}

static cml_status run_product(cml_call *c, cml_error *err) {
  const product *p = c->prepared;
  cml_conv v;
  if (!p) return cml_call_fail(c, err, "was not prepared");
  CML_TRY(read_product(c, &v, err));
  if (!cml_tensor_count(c->outs[0])) return CML_OK;
  const cml_tensor *residual = cml_arg(c, RESIDUAL);
  cml_integer_call call = {.k = p->k, .v = &v, .packed = p->packed, .after = p->after, .table = p->table, .x = cml_arg(c, X)->data, .x_zero = (uint8_t)cml_arg_int(c, X_ZERO, 0),
                           .pool = c->pool, .scratch = c->scratch, .slots = slots(c)};
  call.after.c = c->outs[0]->data;
  call.after.residual = residual ? residual->data : NULL;
  if (p->way == BY_TILES) cml_integer_run(&call);
  else if (p->way == BY_FLOATS) cml_integer_floats_run(&call);
  else cml_integer_depthwise_run(&call, p->way == BY_CHANNEL_IN_FLOATS);
  return CML_OK;
}

/* ---- sums, maxima and tables ---- */

enum { A, B, A_SCALE, A_ZERO, B_SCALE, B_ZERO, ADD_ACTIVATION, ADD_ALPHA, ADD_BETA, ADD_SCALE, ADD_ZERO };

static const cml_param add_params[] = {
    {"x", CML_MASK(U8), 0, 0},           {"y", CML_MASK(U8), 0, 0},                             {"x_scale", CML_MASK(F32), CML_CONST, 0},
    {"x_zero", CML_MASK(I32), CML_CONST, 0}, {"y_scale", CML_MASK(F32), CML_CONST, 0},              {"y_zero", CML_MASK(I32), CML_CONST, 0},
    {"activation", CML_MASK(I32), CML_CONST, 0}, /* one that is a clamp */
    {"alpha", CML_MASK(F32), CML_CONST, 0},  {"beta", CML_MASK(F32), CML_CONST, 0},                 {"scale", CML_MASK(F32), CML_CONST, 0},
    {"zero", CML_MASK(I32), CML_CONST, 0},
};

static cml_status infer_like(cml_call *c, cml_error *err) {
  (void)err;
  cml_out_like(c, 0, cml_arg(c, 0));
  return CML_OK;
}

static cml_status infer_add(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, A), *y = cml_arg(c, B);
  CML_TRY(check_zeros(c, (const unsigned[]){A_ZERO, B_ZERO, ADD_ZERO}, 3, err));
  if (cml_tensor_known_shape(x) && cml_tensor_known_shape(y) && !cml_tensor_same_shape(x, y)) return cml_call_fail(c, err, "x and y differ in shape");
  return infer_like(c, err);
}

typedef struct add_job {
  const cml_kernels *k;
  const uint8_t *x1, *x2;
  uint8_t *y;
  size_t count;
  float scale1, scale2, bias, low, high;
  int32_t zero;
} add_job;

static void add_pieces(void *context, size_t begin, size_t end) {
  const add_job *j = context;
  size_t from = begin * PIECE, to = end * PIECE < j->count ? end * PIECE : j->count;
  j->k->add_bytes(j->x1 + from, j->x2 + from, to - from, j->scale1, j->scale2, j->bias, j->low, j->high, j->zero, j->y + from);
}

static cml_status run_add(cml_call *c, cml_error *err) {
  (void)err;
  cml_epilogue e = {.activation = (cml_unary)cml_arg_int(c, ADD_ACTIVATION, CML_UNARY_COPY), .a = (float)cml_arg_float(c, ADD_ALPHA, 0), .b = (float)cml_arg_float(c, ADD_BETA, 0)};
  float scale = (float)cml_arg_float(c, ADD_SCALE, 1);
  add_job j = {.k = cml_kernels_get(), .x1 = cml_arg(c, A)->data, .x2 = cml_arg(c, B)->data, .y = c->outs[0]->data,
               .count = (size_t)cml_tensor_count(c->outs[0]), .zero = (int32_t)cml_arg_int(c, ADD_ZERO, 0)};
  cml_epilogue_bounds(&e, &j.low, &j.high);
  j.low = clampf(j.low / scale, (float)-j.zero, (float)(255 - j.zero));
  j.high = clampf(j.high / scale, (float)-j.zero, (float)(255 - j.zero));
  j.scale1 = (float)cml_arg_float(c, A_SCALE, 1) / scale;
  j.scale2 = (float)cml_arg_float(c, B_SCALE, 1) / scale;
  j.bias = -(float)cml_arg_int(c, A_ZERO, 0) * j.scale1 - (float)cml_arg_int(c, B_ZERO, 0) * j.scale2;
  cml_parallel(c->pool, (j.count + PIECE - 1) / PIECE, 8, add_pieces, &j);
  return CML_OK;
}

static const cml_param map_params[] = {{"x", CML_MASK(U8), 0, 0}, {"table", CML_MASK(U8), CML_CONST | CML_VECTOR, 0}}; /* 256 entries */

static cml_status infer_map(cml_call *c, cml_error *err) {
  if (cml_tensor_count(cml_arg(c, 1)) != 256) return cml_call_fail(c, err, "the table has %lld entries", (long long)cml_tensor_count(cml_arg(c, 1)));
  return infer_like(c, err);
}

static void map_pieces(void *context, size_t begin, size_t end) {
  const cml_call *c = context;
  size_t n = (size_t)cml_tensor_count(c->outs[0]), to = end * PIECE < n ? end * PIECE : n;
  const uint8_t *x = cml_arg(c, 0)->data, *table = cml_arg(c, 1)->data;
  uint8_t *y = c->outs[0]->data;
  cml_kernels_get()->map_bytes(x + begin * PIECE, to - begin * PIECE, table, y + begin * PIECE);
}

static cml_status run_map(cml_call *c, cml_error *err) {
  (void)err;
  cml_parallel(c->pool, ((size_t)cml_tensor_count(c->outs[0]) + PIECE - 1) / PIECE, 8, map_pieces, c);
  return CML_OK;
}

/* As max_pool's, x with its channels last. */
static const cml_param max_params[] = {
    {"x", CML_MASK(U8), 0, 0},
    {"kernel_sizes", CML_MASK(I32), CML_CONST | CML_VECTOR, 0},
    {"strides", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},
    {"pad_type", CML_M_STRING, CML_CONST | CML_OPTIONAL, 0},
    {"pad", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},
    {"ceil_mode", CML_M_BOOL, CML_CONST | CML_OPTIONAL, 0},
};

static cml_status read_max(const cml_call *c, cml_windows *w, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  *w = (cml_windows){.dims = x->rank - 2};
  for (int32_t i = 0; i < w->dims; i++) w->in[i] = x->dims[i + 1];
  CML_TRY(cml_window_list(c, 1, w->dims, 1, 1, w->kernel, err));
  return cml_windows_read(c, &(cml_window_params){2, 3, 4, -1, 5}, w, err);
}

static cml_status infer_max(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t dims[CML_MAX_RANK];
  cml_windows w;
  if (x->rank < 3 || x->rank > 4) return cml_call_fail(c, err, "x has rank %d, expected 3 or 4", x->rank);
  CML_TRY(read_max(c, &w, err));
  memcpy(dims, x->dims, sizeof dims);
  for (int32_t i = 0; i < w.dims; i++) dims[i + 1] = w.out[i];
  cml_out_set(c, 0, CML_U8, x->rank, dims);
  return CML_OK;
}

typedef struct max_job {
  const cml_kernels *k;
  int64_t in[2], out[2], kernel[2], stride[2], before[2]; /* rows, columns */
  size_t channels;
  const uint8_t *x;
  uint8_t *y;
} max_job;

/* The largest of the pixels of one window, few at a time. */
static void max_window(const max_job *j, const int64_t *begin, const int64_t *end, const uint8_t *image, uint8_t *y) {
  enum { TAPS = 64 };
  const uint8_t *taps[TAPS];
  size_t n = 0;
  for (int64_t h = begin[0]; h < end[0]; h++)
    for (int64_t w = begin[1]; w < end[1]; w++) {
      if (n == TAPS) {
        j->k->max_bytes(n, taps, j->channels, y);
        taps[0] = y, n = 1;
      }
      taps[n++] = image + (size_t)(h * j->in[1] + w) * j->channels;
    }
  if (n) j->k->max_bytes(n, taps, j->channels, y);
  else memset(y, 0, j->channels); /* minus infinity, quantized */
}

static void max_rows(void *context, size_t begin, size_t end) {
  const max_job *j = context;
  for (size_t i = begin; i < end; i++) {
    int64_t image = (int64_t)i / j->out[0], o[2] = {(int64_t)i % j->out[0], 0}, from[2], to[2];
    for (; o[1] < j->out[1]; o[1]++) {
      for (int d = 0; d < 2; d++) {
        from[d] = o[d] * j->stride[d] - j->before[d];
        to[d] = from[d] + j->kernel[d] < j->in[d] ? from[d] + j->kernel[d] : j->in[d];
        if (from[d] < 0) from[d] = 0;
      }
      max_window(j, from, to, j->x + (size_t)(image * j->in[0] * j->in[1]) * j->channels, j->y + (i * (size_t)j->out[1] + (size_t)o[1]) * j->channels);
    }
  }
}

static cml_status run_max(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  cml_windows w;
  CML_TRY(read_max(c, &w, err));
  if (!cml_tensor_count(c->outs[0])) return CML_OK;
  max_job j = {.k = cml_kernels_get(), .channels = (size_t)x->dims[x->rank - 1], .x = x->data, .y = c->outs[0]->data};
  for (int d = 0; d < 2; d++) {
    int from = d - (2 - w.dims);
    j.in[d] = from < 0 ? 1 : w.in[from], j.out[d] = from < 0 ? 1 : w.out[from], j.kernel[d] = from < 0 ? 1 : w.kernel[from];
    j.stride[d] = from < 0 ? 1 : w.stride[from], j.before[d] = from < 0 ? 0 : w.before[from];
  }
  cml_parallel(c->pool, (size_t)(x->dims[0] * j.out[0]), 4, max_rows, &j);
  return CML_OK;
}

#define INTEGER_ROW(title, list, infer_, prepare_, run_)                                                                                      \
  {.name = title, .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(list), .infer = infer_, \
   .prepare = prepare_, .run = run_}

static const cml_op rows[] = {
    INTEGER_ROW("cml_quantize", quantize_params, infer_quantize, NULL, run_elements),
    INTEGER_ROW("cml_dequantize", dequantize_params, infer_dequantize, NULL, run_elements),
    INTEGER_ROW("cml_integer_conv", product_params, infer_product, prepare_product, run_product),
    INTEGER_ROW("cml_integer_linear", product_params, infer_product, prepare_product, run_product),
    INTEGER_ROW("cml_integer_add", add_params, infer_add, NULL, run_add),
    INTEGER_ROW("cml_integer_map", map_params, infer_map, NULL, run_map),
    INTEGER_ROW("cml_integer_max_pool", max_params, infer_max, NULL, run_max),
};

const cml_op_family cml_ops_integer = {"integer", rows, sizeof rows / sizeof *rows};
