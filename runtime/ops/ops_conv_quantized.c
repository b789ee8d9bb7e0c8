/* conv_quantized: a convolution whose weight is stored in 8 bits. The weight becomes floating point when the program is
 * prepared, weight = stored * quant_scale + quant_bias by output channel (linear) or quant_bias[stored] (lut, a table), and the row of conv
 * does the rest through a call of its own. Source: coremltools' iOS15 conv_quantized. */
#include "families.h"

enum { X, WEIGHT, BIAS, TYPE, NBITS, SCALE, OFFSET, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS, PARAMS };

static const cml_param params[] = {
    {"x", CML_M_FLOAT, 0, 1},
    {"weight", CML_MASK(U8), CML_CONST, 0},
    {"bias", CML_MASK(U8) | CML_M_FLOAT, CML_OPTIONAL | CML_CONST, 0},
    {"quantization_type", CML_M_STRING, CML_CONST, 0},
    {"nbits", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},
    {"quant_scale", CML_M_FLOAT, CML_CONST, 1},
    {"quant_bias", CML_M_FLOAT, CML_CONST, 1},
    {"strides", CML_MASK(I32), CML_OPTIONAL | CML_CONST | CML_VECTOR, 0},
    {"pad_type", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0},
    {"pad", CML_MASK(I32), CML_OPTIONAL | CML_CONST | CML_VECTOR, 0},
    {"dilations", CML_MASK(I32), CML_OPTIONAL | CML_CONST | CML_VECTOR, 0},
    {"groups", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},
};

/* The convolution within: its arguments stand in the order of conv's parameters. */
typedef struct inner {
  cml_tensor weight, bias;
  const cml_tensor *args[PARAMS];
  uint16_t first[PARAMS];
  bool constant[PARAMS];
  cml_call call;
} inner;

static const unsigned taken[] = {X, WEIGHT, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS}; /* as conv's row has them */
enum { TAKEN = sizeof taken / sizeof *taken };

static cml_status inner_init(inner *in, cml_call *c, cml_error *err) {
  const cml_tensor *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  uint16_t n = 0;
  in->call = *c;
  if (!(in->call.op = cml_op_find("conv", CML_IOS15)) || in->call.op->param_count != TAKEN) return cml_call_fail(c, err, "conv is not in this build");
  if (in->weight.dtype == CML_DTYPE_NONE) in->weight = *w, in->weight.data = NULL;
  in->weight.dtype = cml_arg(c, X)->dtype;
  if (bias && !in->bias.data) in->bias = *bias, in->bias.data = NULL;
  if (bias) in->bias.dtype = in->weight.dtype;
  for (unsigned i = 0; i < TAKEN; i++) {
    const cml_tensor *t = taken[i] == WEIGHT ? &in->weight : taken[i] == BIAS && bias ? &in->bias : cml_arg(c, taken[i]);
    in->first[i] = n;
    if (!t) continue;
    in->constant[n] = taken[i] != X;
    in->args[n++] = t;
  }
  in->first[TAKEN] = n;
  in->call.args = in->args;
  in->call.first = in->first;
  in->call.arg_constant = in->constant;
  return CML_OK;
}

/* One number for all, or one for each output channel. */
static bool per_channel(const cml_tensor *t, int64_t channels) {
  int64_t n = cml_tensor_count(t);
  return n == 1 || n == channels;
}

static cml_status check(const cml_call *c, cml_error *err) {
  const cml_tensor *w = cml_arg(c, WEIGHT);
  int64_t bits = cml_arg_int(c, NBITS, 8);
  const char *type = cml_arg_text(c, TYPE, "");
  bool linear = !strcmp(type, "linear");
  if (!linear && strcmp(type, "lut")) return cml_call_fail(c, err, "quantization_type is '%s', expected linear or lut", type);
  if (bits < 1 || bits > 8) return cml_call_fail(c, err, "nbits is %lld, expected 1 to 8", (long long)bits);
  if (w->rank < 3) return cml_call_fail(c, err, "weight has rank %d, expected 3 to 5", w->rank);
  if (linear && (!per_channel(cml_arg(c, SCALE), w->dims[0]) || !per_channel(cml_arg(c, OFFSET), w->dims[0])))
    return cml_call_fail(c, err, "quant_scale and quant_bias have one element, or one for each output channel");
  if (!linear && cml_tensor_count(cml_arg(c, OFFSET)) < INT64_C(1) << bits) return cml_call_fail(c, err, "the table has too few entries");
  return CML_OK;
}

static cml_status infer(cml_call *c, cml_error *err) {
  inner in = {.weight = {0}};
  CML_TRY(check(c, err));
  CML_TRY(inner_init(&in, c, err));
  CML_TRY(in.call.op->infer(&in.call, err));
  c->scratch_size = in.call.scratch_size;
  return CML_OK;
}

static cml_status decode(cml_call *c, cml_tensor *out, cml_error *err) {
  const cml_tensor *w = cml_arg(c, WEIGHT), *scale = cml_arg(c, SCALE), *offset = cml_arg(c, OFFSET);
  bool linear = !strcmp(cml_arg_text(c, TYPE, ""), "linear");
  int64_t n = cml_tensor_count(w), channel = w->dims[0] ? n / w->dims[0] : 1, scales = cml_tensor_count(scale), offsets = cml_tensor_count(offset);
  const uint8_t *stored = w->data;
  for (int64_t i = 0; i < n; i++) {
    if (!linear && stored[i] >= offsets) return cml_call_fail(c, err, "the weight has index %u and the table %lld entries", stored[i], (long long)offsets);
    int64_t k = i / channel;
    double v = linear ? stored[i] * cml_tensor_get(scale, scales > 1 ? k : 0) + cml_tensor_get(offset, offsets > 1 ? k : 0)
                      : cml_tensor_get(offset, stored[i]);
    cml_tensor_set(out, i, v);
  }
  return CML_OK;
}

static cml_status prepare(cml_call *c, cml_error *err) {
  inner *in = cml_call_keep(c, sizeof *in, err);
  uint64_t bytes;
  if (!in) return c->keep_status;
  CML_TRY(inner_init(in, c, err));
  if (!cml_tensor_bytes(&in->weight, &bytes)) return cml_call_fail(c, err, "the weight is too large");
  if (!(in->weight.data = cml_call_keep(c, bytes, err))) return c->keep_status;
  CML_TRY(decode(c, &in->weight, err));
  const cml_tensor *bias = cml_arg(c, BIAS);
  if (bias) {
    if (!cml_tensor_bytes(&in->bias, &bytes)) return cml_call_fail(c, err, "the bias is too large");
    if (!(in->bias.data = cml_call_keep(c, bytes, err))) return c->keep_status;
    cml_convert(in->bias.data, in->bias.dtype, bias->data, bias->dtype, cml_tensor_count(bias));
  }
  in->call.kept = c->kept;
  in->call.account = c->account;
  if (in->call.op->prepare) CML_TRY(in->call.op->prepare(&in->call, err));
  c->prepared = in;
  return CML_OK;
}

static cml_status run(cml_call *c, cml_error *err) {
  const inner *kept = c->prepared;
  if (!kept) return cml_call_fail(c, err, "was not prepared");
  inner in = *kept;
  void *prepared = kept->call.prepared;
  CML_TRY(inner_init(&in, c, err));
  in.call.prepared = prepared;
  return in.call.op->run(&in.call, err);
}

/* Folding would run it unprepared: IMPURE keeps it as a step. */
static const cml_op rows[] = {
    {.name = "conv_quantized", .since = CML_IOS15, .flags = CML_OP_IMPURE, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(params),
     .infer = infer, .prepare = prepare, .run = run},
};

const cml_op_family cml_ops_conv_quantized = {"conv_quantized", rows, sizeof rows / sizeof *rows};
