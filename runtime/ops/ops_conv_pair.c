/* cml_conv_pair: a convolution of single pixels, then a depthwise one that alone reads what it makes; the pass `pairs` makes it. Images have
 * their channels last. The parameters are the second's, then those of the first (before_…). */
#include "convolutions.h"
#include "families.h"
#include "pack_cache.h"

enum { X, WEIGHT, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS, RESIDUAL, ACTIVATION, ALPHA, BETA, BEFORE_WEIGHT, BEFORE_BIAS, BEFORE_ACTIVATION,
       BEFORE_ALPHA, BEFORE_BETA };

static const cml_param params[] = {
    {"x", CML_M_FLOAT, 0, 0},
    {"weight", CML_M_FLOAT, CML_CONST, 0},
    {"bias", CML_M_FLOAT, CML_CONST | CML_OPTIONAL, 0},
    CML_CONV_WINDOW_PARAMS
    {"residual", CML_M_FLOAT, CML_OPTIONAL, 0},
    {"activation", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"alpha", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"beta", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"before_weight", CML_M_FLOAT, CML_CONST, 0},                 /* [channels, x's channels, 1, 1] */
    {"before_bias", CML_M_FLOAT, CML_CONST | CML_OPTIONAL, 0},
    {"before_activation", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"before_alpha", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"before_beta", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
};

typedef struct prepared {
  const cml_kernels *k;
  const void *first, *second;
  bool half; /* first */
  const float *bias, *before_bias;
} prepared;

static size_t slots(const cml_call *c) { return cml_pool_threads(c->pool); }

static cml_status read(const cml_call *c, cml_conv *v, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, BEFORE_WEIGHT), *second = cml_arg(c, WEIGHT), *bias = cml_arg(c, BEFORE_BIAS);
  if (x->rank != 4 || w->rank != 4 || second->rank != 4 || !cml_tensor_known_shape(x)) return cml_call_fail(c, err, "images of two dimensions, of known sizes, are needed");
  if (w->dims[1] != x->dims[3] || w->dims[2] != 1 || w->dims[3] != 1 || (bias && (bias->rank != 1 || bias->dims[0] != w->dims[0])))
    return cml_call_fail(c, err, "before_weight and before_bias do not fit x");
  CML_TRY(cml_conv_read_last(c, w->dims[0], v, err));
  if (!cml_conv_pair_fits(cml_kernels_get(), v)) return cml_call_fail(c, err, "weight is not that of a depthwise convolution that fits");
  return CML_OK;
}

static cml_status prepare(cml_call *c, cml_error *err) {
  cml_conv v;
  CML_TRY(read(c, &v, err));
  const cml_kernels *k = cml_kernels_get();
  const cml_tensor *w = cml_arg(c, WEIGHT), *first = cml_arg(c, BEFORE_WEIGHT), *bias = cml_arg(c, BIAS), *before_bias = cml_arg(c, BEFORE_BIAS);
  int64_t taps = v.kernel[1] * v.kernel[2];
  size_t depth = (size_t)first->dims[1];
  const bool half = first->dtype == CML_F16;
  prepared *p = cml_call_keep(c, sizeof *p, err);
  if (!p) return c->keep_status;
  *p = (prepared){.k = k, .half = half};
  if (bias && !(p->bias = cml_conv_keep_bias(c, bias, err))) return c->keep_status;
  if (before_bias && !(p->before_bias = cml_conv_keep_bias(c, before_bias, err))) return c->keep_status;
  enum { SECOND = -1, FIRST = -2 }; /* what no other operator's layout begins with */
  bool ready;
  void *to = cml_call_keep_packed(c, cml_conv_packed_bytes(k, &v, false), w, (int64_t[]){SECOND, taps, (int64_t)v.outputs}, 3, &ready, err);
  if (!to) return c->keep_status;
  const cml_conv_source from = {.data = w->data, .half = w->dtype == CML_F16, .group_stride = taps, .output_stride = taps, .channel_stride = taps,
                                .tap_stride = {taps, v.kernel[2], 1}};
  if (!ready) cml_conv_pack(k, &v, &from, false, to, c->pool);
  p->second = to;
  to = cml_call_keep_packed(c, cml_pack_bytes(k, depth, v.channels, p->half), first, (int64_t[]){FIRST, p->half, (int64_t)depth, (int64_t)v.channels}, 4, &ready, err);
  if (!to) return c->keep_status;
  if (!ready) cml_pack_panels(k, to, p->half, first->data, half, depth, v.channels, 1, depth, 0, cml_panel_count(k, v.channels));
  p->first = to;
  for (unsigned i = 0; i < 4; i++) cml_arg_unread(c, ((const cml_tensor *[]){w, first, bias, before_bias})[i]);
  c->prepared = p;
  return CML_OK;
}

static cml_status infer(cml_call *c, cml_error *err) {
  cml_conv v;
  const cml_tensor *x = cml_arg(c, X), *residual = cml_arg(c, RESIDUAL);
  CML_TRY(read(c, &v, err));
  cml_out_set(c, 0, x->dtype, 4, (int64_t[]){x->dims[0], v.out[1], v.out[2], (int64_t)v.outputs});
  if (residual && (!cml_tensor_same_shape(residual, c->outs[0]) || residual->dtype != x->dtype))
    return cml_call_fail(c, err, "the residual does not have the output's shape and type");
  c->spaces_rows = !residual;
  c->spaced_args = 1 << X;
  c->scratch_size = slots(c) * cml_conv_pair_scratch(cml_kernels_get(), &v, slots(c));
  return CML_OK;
}

static cml_epilogue epilogue(const cml_call *c, unsigned activation, const float *bias) {
  return (cml_epilogue){.bias = bias, .activation = (cml_unary)cml_arg_int(c, activation, CML_UNARY_COPY),
                        .a = (float)cml_arg_float(c, activation + 1, 0), .b = (float)cml_arg_float(c, activation + 2, 0)};
}

static cml_status run(cml_call *c, cml_error *err) {
  cml_conv v;
  const cml_tensor *x = cml_arg(c, X), *residual = cml_arg(c, RESIDUAL);
  const prepared *p = c->prepared;
  CML_TRY(read(c, &v, err));
  v.in_pixel = (size_t)x->row;
  if (c->outs[0]->row) v.out_pixel = (size_t)c->outs[0]->row;
  cml_epilogue after = epilogue(c, ACTIVATION, p->bias);
  if (residual) after.residual = residual->data, after.residual_stride = v.outputs;
  cml_conv_pair_run(&(cml_conv_pair){.second = {.k = p->k, .v = &v, .weights = {p->second, false}, .after = after, .x = x->data, .y = c->outs[0]->data,
                                                .pool = c->pool, .scratch = c->scratch, .slots = slots(c)},
                                     .depth = (size_t)x->dims[3], .packed = p->first, .half = p->half, .before = epilogue(c, BEFORE_ACTIVATION, p->before_bias)});
  return CML_OK;
}

static const cml_op rows[] = {
    {.name = "cml_conv_pair", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(params), .infer = infer,
     .prepare = prepare, .run = run},
};

const cml_op_family cml_ops_conv_pair = {"conv_pair", rows, sizeof rows / sizeof *rows};
