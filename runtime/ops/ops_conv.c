/* conv and conv_transpose: arguments to cml_conv, weights packed when they are constant. One transposed convolution is a list
 * of ordinary ones, one for each phase of its output. */
#include "conv.h"
#include "convolutions.h"
#include "pack_cache.h"
#include "families.h"
#include "windows.h"

enum { X, WEIGHT, BIAS };
enum { STRIDES = 3, PAD_TYPE, PAD, DILATIONS, GROUPS };                              /* conv */
enum { T_PAD = 3, T_OUTPUT_SHAPE, T_PAD_TYPE, T_STRIDES, T_DILATIONS, T_GROUPS };    /* conv_transpose */

#define CONV_PARAMS(weight_group, x_group)                          \
  {"x", CML_M_FLOAT, 0, x_group},                                   \
  {"weight", CML_M_FLOAT, 0, weight_group},                         \
  {"bias", CML_M_FLOAT, CML_OPTIONAL, weight_group},                \
  CML_CONV_WINDOW_PARAMS

#define TRANSPOSE_PARAMS(weight_group, x_group)                     \
  {"x", CML_M_FLOAT, 0, x_group},                                   \
  {"weight", CML_M_FLOAT, 0, weight_group},                         \
  {"bias", CML_M_FLOAT, CML_OPTIONAL, weight_group},                \
  {"pad", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},              \
  {"output_shape", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},     \
  {"pad_type", CML_M_STRING, CML_CONST | CML_OPTIONAL, 0},          \
  {"strides", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},          \
  {"dilations", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},        \
  {"groups", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},

static const cml_param conv_params[] = {CONV_PARAMS(1, 1)};
static const cml_param conv_params_17[] = {CONV_PARAMS(2, 0)};
static const cml_param transpose_params[] = {TRANSPOSE_PARAMS(1, 1)};
static const cml_param transpose_params_17[] = {TRANSPOSE_PARAMS(2, 0)};
/* What passes make of a convolution and its neighbours: channels last, bias, residual and activation in one. */
enum { F_LAYOUT, F_RESIDUAL, F_ACTIVATION, F_ALPHA, F_BETA }; /* behind the others */
#define FUSED_PARAMS                                                                                                  \
  {"layout", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0}, /* 1: x and the output have their channels last; 2: x alone */ \
  {"residual", CML_M_FLOAT, CML_OPTIONAL, 0},                                                                         \
  {"activation", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},                                                         \
  {"alpha", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},                                                              \
  {"beta", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
static const cml_param fused_params[] = {CONV_PARAMS(2, 0) FUSED_PARAMS};
static const cml_param fused_transpose_params[] = {TRANSPOSE_PARAMS(2, 0) FUSED_PARAMS};

/* The call, understood. */
typedef struct conv_call {
  cml_conv conv;       /* of an ordinary convolution; of a transposed one, what its phases share */
  cml_windows windows;
  bool transposed, known, last; /* known: all sizes; last: channels last */
  bool trims;          /* taps that never meet the image are left out, which takes all sizes when weights are packed */
  int64_t outputs;
  size_t phases;
  size_t joined;       /* neighbouring pixels of a transposed convolution that are outputs of one pixel (then of one phase); 1: none */
} conv_call;

typedef struct conv_prepared {
  const cml_kernels *kernels;
  bool winograd, trims; /* trims: as in conv_call, */
  size_t joined;              /* and this */
  const float *bias;
  cml_conv_weights *weights; /* by phase */
} conv_prepared;

/* Where a row's FUSED_PARAMS begin; 0: it has none. */
static unsigned fused(const cml_call *c) {
  return c->op->params == fused_params                     ? sizeof fused_params / sizeof *fused_params - F_BETA - 1
         : c->op->params == fused_transpose_params ? sizeof fused_transpose_params / sizeof *fused_transpose_params - F_BETA - 1
                                                   : 0;
}
static bool channels_last(const cml_call *c) { return fused(c) && cml_arg_int(c, fused(c) + F_LAYOUT, 0) != 0; }
static bool makes_planes(const cml_call *c) { return !fused(c) || cml_arg_int(c, fused(c) + F_LAYOUT, 0) != 1; }

static size_t slots(const cml_call *c) { return cml_pool_threads(c->pool); }

/* ---- understanding the call ---- */

static cml_status read_groups(const cml_call *c, unsigned param, int64_t channels, int64_t *groups, cml_error *err) {
  *groups = cml_arg_int(c, param, 1);
  if (*groups < 1 || (channels >= 0 && (channels % *groups || *groups > channels)))
    return cml_call_fail(c, err, "%lld channels do not divide into %lld groups", (long long)channels, (long long)*groups);
  return CML_OK;
}

static cml_status check_ranks(const cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  if (x->rank >= 0 && (x->rank < 3 || x->rank > 5)) return cml_call_fail(c, err, "x has rank %d, expected 3 to 5", x->rank);
  if (w->rank >= 0 && x->rank >= 0 && w->rank != x->rank) return cml_call_fail(c, err, "x has rank %d but weight %d", x->rank, w->rank);
  if (w->rank >= 0 && (w->rank < 3 || w->rank > 5)) return cml_call_fail(c, err, "weight has rank %d, expected 3 to 5", w->rank);
  if (bias && bias->rank >= 0 && bias->rank != 1) return cml_call_fail(c, err, "bias has rank %d, expected 1", bias->rank);
  return CML_OK;
}

static void fill_spatial(conv_call *v, const cml_windows *w) {
  v->conv.planar = w->dims < 3;
  for (int i = 0; i < 3; i++) {
    int d = i - (3 - w->dims);
    v->conv.in[i] = d < 0 ? 1 : w->in[d];
    v->conv.out[i] = d < 0 ? 1 : w->out[d];
    v->conv.kernel[i] = d < 0 ? 1 : w->kernel[d];
    v->conv.stride[i] = d < 0 ? 1 : w->stride[d];
    v->conv.dilation[i] = d < 0 ? 1 : w->dilation[d];
    v->conv.offset[i] = d < 0 ? 0 : -w->before[d];
  }
}

/* The channels' place in x's dims, and those of its spatial dims. */
static int32_t channel_axis(const conv_call *v, const cml_tensor *x) { return v->last ? x->rank - 1 : 1; }

/* between: channels that the weights meet in place of x's; -1: x's own */
static cml_status read_conv(const cml_call *c, bool last, int64_t between, conv_call *v, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  *v = (conv_call){.phases = 1, .joined = 1, .last = last};
  CML_TRY(check_ranks(c, err));
  if (x->rank < 0 || w->rank < 0) return CML_OK;
  int64_t channels = between < 0 ? x->dims[channel_axis(v, x)] : between, groups;
  CML_TRY(read_groups(c, GROUPS, channels, &groups, err));
  v->outputs = w->dims[0];
  if (v->outputs >= 0 && v->outputs % groups) return cml_call_fail(c, err, "%lld outputs do not divide into %lld groups", (long long)v->outputs, (long long)groups);
  if (channels >= 0 && w->dims[1] >= 0 && channels / groups != w->dims[1])
    return cml_call_fail(c, err, "x has %lld channels in %lld groups, but weight takes %lld a group", (long long)channels, (long long)groups, (long long)w->dims[1]);
  if (bias && bias->rank == 1 && bias->dims[0] >= 0 && v->outputs >= 0 && bias->dims[0] != v->outputs)
    return cml_call_fail(c, err, "bias has %lld elements for %lld outputs", (long long)bias->dims[0], (long long)v->outputs);
  v->windows.dims = x->rank - 2;
  for (int32_t i = 0; i < v->windows.dims; i++) v->windows.in[i] = x->dims[i + (v->last ? 1 : 2)], v->windows.kernel[i] = w->dims[i + 2];
  CML_TRY(cml_windows_read(c, &(cml_window_params){STRIDES, PAD_TYPE, PAD, DILATIONS, -1}, &v->windows, err));
  if (channels < 0) channels = w->dims[1] < 0 ? -1 : w->dims[1] * groups;
  v->known = cml_tensor_known_shape(x) && cml_tensor_known_shape(w);
  v->conv = (cml_conv){.batch = (size_t)x->dims[0], .channels = (size_t)channels, .outputs = (size_t)v->outputs, .groups = (size_t)groups,
                       .in_last = v->last, .out_last = v->last, .in_half = x->dtype == CML_F16, .out_half = x->dtype == CML_F16};
  fill_spatial(v, &v->windows);
  cml_conv_place_all(&v->conv);
  return CML_OK;
}

cml_status cml_conv_read_last(const cml_call *c, int64_t between, cml_conv *out, cml_error *err) {
  conv_call v;
  CML_TRY(read_conv(c, true, between, &v, err));
  *out = v.conv;
  return CML_OK;
}

/* "same" crops the full result, k - s elements, the odd one at the end. */
static cml_status transpose_sizes(const cml_call *c, conv_call *v, cml_error *err) {
  cml_windows *w = &v->windows;
  const char *type = cml_arg_text(c, T_PAD_TYPE, "valid");
  bool same = !strcmp(type, "same"), custom = !strcmp(type, "custom");
  if (!same && !custom && strcmp(type, "valid")) return cml_call_fail(c, err, "pad_type '%s' is unknown", type);
  int64_t pad[6], shape[8];
  CML_TRY(cml_window_list(c, T_STRIDES, w->dims, 1, 1, w->stride, err));
  CML_TRY(cml_window_list(c, T_DILATIONS, w->dims, 1, 1, w->dilation, err));
  CML_TRY(cml_window_list(c, custom ? T_PAD : -1, 2 * w->dims, 0, 0, pad, err));
  size_t given = cml_arg_ints(c, T_OUTPUT_SHAPE, shape, 8);
  if (given && given != (size_t)w->dims + 2) return cml_call_fail(c, err, "output_shape has %zu elements, expected %d", given, w->dims + 2);
  for (int32_t i = 0; i < w->dims; i++) {
    int64_t effective = w->kernel[i] < 0 ? -1 : (w->kernel[i] - 1) * w->dilation[i] + 1;
    if (w->kernel[i] == 0) return cml_call_fail(c, err, "a kernel without elements");
    w->before[i] = pad[2 * i];
    w->after[i] = pad[2 * i + 1];
    w->out[i] = w->in[i] < 0 || effective < 0 ? -1
                : same                        ? w->in[i] * w->stride[i]
                                              : (w->in[i] - 1) * w->stride[i] + effective - w->before[i] - w->after[i];
    if (given) w->out[i] = shape[i + 2];
    if (given ? w->out[i] < 1 : w->out[i] < 1 && w->in[i] > 0 && effective > 0)
      return cml_call_fail(c, err, "spatial dimension %d has the invalid size %lld", i, (long long)w->out[i]);
    if (same && w->in[i] >= 0 && effective >= 0) {
      int64_t crop = (w->in[i] - 1) * w->stride[i] + effective - w->out[i];
      w->before[i] = crop > 0 ? crop / 2 : 0;
    }
  }
  return CML_OK;
}

static cml_status read_transpose(const cml_call *c, conv_call *v, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  *v = (conv_call){.transposed = true, .phases = 1, .joined = 1, .last = channels_last(c)};
  CML_TRY(check_ranks(c, err));
  if (x->rank < 0 || w->rank < 0) return CML_OK;
  int64_t channels = x->dims[channel_axis(v, x)], groups;
  CML_TRY(read_groups(c, T_GROUPS, channels, &groups, err));
  v->outputs = cml_dim_mul(w->dims[1], groups);
  if (channels >= 0 && w->dims[0] >= 0 && channels != w->dims[0])
    return cml_call_fail(c, err, "x has %lld channels, weight takes %lld", (long long)channels, (long long)w->dims[0]);
  if (bias && bias->rank == 1 && bias->dims[0] >= 0 && v->outputs >= 0 && bias->dims[0] != v->outputs)
    return cml_call_fail(c, err, "bias has %lld elements for %lld outputs", (long long)bias->dims[0], (long long)v->outputs);
  v->windows.dims = x->rank - 2;
  for (int32_t i = 0; i < v->windows.dims; i++) v->windows.in[i] = x->dims[i + (v->last ? 1 : 2)], v->windows.kernel[i] = w->dims[i + 2];
  CML_TRY(transpose_sizes(c, v, err));
  v->known = cml_tensor_known_shape(x) && cml_tensor_known_shape(w);
  v->conv = (cml_conv){.batch = (size_t)x->dims[0], .channels = (size_t)(channels < 0 ? w->dims[0] : channels), .outputs = (size_t)v->outputs,
                       .groups = (size_t)groups, .in_last = v->last, .out_last = v->last, .in_half = x->dtype == CML_F16, .out_half = x->dtype == CML_F16};
  fill_spatial(v, &v->windows);
  cml_conv_place_all(&v->conv);
  for (int i = 0; i < 3; i++) {
    if (v->phases > 4096 / (size_t)v->conv.stride[i]) return cml_call_fail(c, err, "the product of the strides is too large");
    v->phases *= (size_t)v->conv.stride[i];
  }
  return CML_OK;
}

static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    int64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

/* The convolution that makes the outputs o = phase + q s of one dimension. Output o gets x[i] w[k] where o + pad = i s + k d, so
 * its taps are those k with k d = o + pad (mod s): every s / gcd(s, d)-th. They are taken from the last to the first, so that
 * the inputs ascend. Returns false when no tap falls on this phase. */
static bool phase_dimension(const conv_call *v, int i, int64_t phase, cml_conv *out, int64_t *first_tap, int64_t *tap_step) {
  const cml_conv *t = &v->conv;
  int64_t s = t->stride[i], d = t->dilation[i], every = s / gcd(s, d), pad = -t->offset[i], k = 0;
  out->place[i] = phase;
  out->step[i] = s;
  out->full[i] = t->out[i];
  out->out[i] = phase < t->out[i] ? (t->out[i] - phase + s - 1) / s : 0;
  out->stride[i] = 1;
  while (k < t->kernel[i] && k < every && (phase + pad - k * d) % s) k++;
  if (k >= t->kernel[i] || k >= every) {
    out->kernel[i] = 0;
    return false;
  }
  int64_t count = (t->kernel[i] - 1 - k) / every + 1, last = k + (count - 1) * every;
  out->kernel[i] = count;
  out->dilation[i] = every * d / s;
  out->offset[i] = (phase + pad - last * d) / s;
  *first_tap = last;
  *tap_step = -every;
  return true;
}

/* Neighbouring pixels of a row are what a block multiplies at once. So a kernel as wide as an image of one channel takes that image's rows for
 * pixels, their elements for channels; and images of one column become rows. After cml_conv_trim, which makes more of these. */
static void fold_columns(cml_conv *v, cml_conv_source *from) {
  if (v->out[2] != 1 || v->full[2] != 1 || v->offset[2] || v->out[1] < 2) return;
  if (v->channels == 1 && v->kernel[2] == v->in[2] && v->dilation[2] == 1) {
    v->channels = (size_t)v->in[2];
    v->in[2] = v->kernel[2] = 1;
    v->in_last = true;
    from->channel_stride = from->tap_stride[2];
  }
  if (v->in[2] != 1 || v->kernel[2] != 1) return;
  int64_t *const triples[] = {v->in, v->out, v->kernel, v->stride, v->dilation, v->offset, v->place, v->step, v->full, from->tap_stride};
  for (size_t i = 0; i < sizeof triples / sizeof *triples; i++) {
    int64_t *t = triples[i], column = t[2];
    t[2] = t[1], t[1] = t[0], t[0] = column;
  }
}

/* As many pixels of a row of a transposed convolution as there are taps, none of which overlap: with the channels last they are neighbours in
 * memory. One convolution computes them all, where they fill fewer vectors together. */
static size_t pixels_joined(const cml_kernels *k, const conv_call *v) {
  const cml_conv *t = &v->conv;
  if (!v->known || !v->transposed || !t->in_last || !t->out_last || t->stride[2] == 1 || t->kernel[2] != t->stride[2] || t->dilation[2] != 1) return 1;
  if (t->offset[2] || t->out[2] != t->in[2] * t->stride[2]) return 1;
  cml_conv phase = *t;
  for (int i = 0; i < 3; i++) phase.step[i] = t->stride[i], phase.kernel[i] = (t->kernel[i] + t->stride[i] - 1) / t->stride[i];
  if (t->groups > 1 && cml_conv_bundle(k, &phase) != t->groups) return 1;
  const size_t n = (size_t)t->stride[2], apart = (t->outputs + k->width - 1) / k->width * n, together = (t->outputs * n + k->width - 1) / k->width;
  return together < apart ? n : 1;
}

/* `joined` is known: the phases that are left. */
static void join_pixels(conv_call *v, size_t joined) {
  v->phases /= joined / v->joined;
  v->joined = joined;
}

/* The x-th phases of each row as outputs of one. */
static void join_phases(const conv_call *v, cml_conv *out, cml_conv_source *from, int64_t tap) {
  out->place[2] = 0, out->step[2] = 1, out->full[2] = out->out[2];
  out->outputs *= v->joined, out->out_pixel *= v->joined;
  from->joined = v->joined, from->joined_stride = tap;
}

static void bundle_groups(const cml_kernels *k, cml_conv *out, cml_conv_source *from) {
  from->bundle = cml_conv_bundle(k, out);
  out->groups /= from->bundle;
}

/* Convolution number `phase` of the call and where its weights are. False when there is nothing to sum: the output is the bias. */
static bool phase_conv(const cml_kernels *k, const conv_call *v, const cml_tensor *weight, size_t phase, cml_conv *out, cml_conv_source *from) {
  *out = v->conv;
  int64_t size[3] = {v->conv.kernel[1] * v->conv.kernel[2], v->conv.kernel[2], 1}, n_taps = v->conv.kernel[0] * size[0];
  int64_t channels = (int64_t)(v->conv.channels / v->conv.groups), outputs = (int64_t)(v->conv.outputs / v->conv.groups);
  *from = (cml_conv_source){.data = weight->data, .half = weight->dtype == CML_F16};
  if (!v->transposed) {
    from->group_stride = outputs * channels * n_taps;
    from->output_stride = channels * n_taps;
    from->channel_stride = n_taps;
    memcpy(from->tap_stride, size, sizeof size);
    if (v->trims) cml_conv_trim(out, from), fold_columns(out, from);
    bundle_groups(k, out, from);
    return true;
  }
  from->group_stride = channels * outputs * n_taps;
  from->output_stride = n_taps;
  from->channel_stride = outputs * n_taps;
  bool any = true;
  for (int i = 2; i >= 0; i--) {
    const size_t phases = (size_t)v->conv.stride[i] / (i == 2 ? v->joined : 1);
    int64_t first = 0, step = 0, p = (int64_t)(phase % phases);
    phase /= phases;
    any = phase_dimension(v, i, p, out, &first, &step) && any;
    from->start += first * size[i];
    from->tap_stride[i] = step * size[i];
  }
  bundle_groups(k, out, from);
  if (v->joined > 1) join_phases(v, out, from, size[2]);
  return any;
}

/* ---- weights ---- */

static uint64_t phase_bytes(const cml_kernels *k, const conv_call *v, const cml_tensor *weight, size_t phase, bool half) {
  cml_conv conv;
  cml_conv_source from;
  return phase_conv(k, v, weight, phase, &conv, &from) ? cml_scratch_part(cml_conv_packed_bytes(k, &conv, half)) : 0;
}

static void widen_bias(const cml_kernels *k, const cml_tensor *t, float *to) {
  if (t->dtype == CML_F16) k->f16_to_f32(t->data, to, (size_t)cml_tensor_count(t));
  else memcpy(to, t->data, (size_t)cml_tensor_count(t) * 4);
}

static const float *keep_bias(cml_call *c, const cml_tensor *bias, size_t times, cml_error *err) {
  const size_t n = (size_t)cml_tensor_count(bias);
  float *to = cml_call_keep(c, times * n * sizeof *to, err);
  for (size_t i = 0; to && i < times; i++) widen_bias(cml_kernels_get(), bias, to + i * n);
  return to;
}

const float *cml_conv_keep_bias(cml_call *c, const cml_tensor *bias, cml_error *err) { return keep_bias(c, bias, 1, err); }

static cml_status read_call(const cml_call *c, conv_call *v, cml_error *err) {
  CML_TRY(strstr(c->op->name, "conv_transpose") ? read_transpose(c, v, err) : read_conv(c, channels_last(c), -1, v, err));
  v->conv.out_last = !makes_planes(c);
  return CML_OK;
}

static bool weights_constant(const cml_call *c) {
  return cml_arg_is_constant(c, WEIGHT) && (!cml_arg(c, BIAS) || cml_arg_is_constant(c, BIAS));
}

static cml_status prepare(cml_call *c, cml_error *err) {
  conv_call v;
  const cml_tensor *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  CML_TRY(read_call(c, &v, err));
  if (!weights_constant(c) || !w->data || !cml_tensor_known_shape(w) || cml_arg(c, X)->rank < 0) return CML_OK;
  const cml_kernels *k = cml_kernels_get();
  conv_prepared *p = cml_call_keep(c, sizeof *p, err);
  if (!p || !(p->weights = cml_call_keep(c, v.phases * sizeof *p->weights, err))) return c->keep_status;
  p->kernels = k;
  v.conv.winograd = p->winograd = v.known && !v.transposed && cml_conv_suits_winograd(k, &v.conv);
  v.trims = p->trims = v.known && !p->winograd;
  join_pixels(&v, p->joined = pixels_joined(k, &v));
  if (bias && !(p->bias = keep_bias(c, bias, p->joined, err))) return c->keep_status;
  for (size_t i = 0; i < v.phases; i++) {
    cml_conv conv;
    cml_conv_source from;
    if (!phase_conv(k, &v, w, i, &conv, &from)) continue;
    const bool half = from.half && (!v.known || cml_conv_pack_half(k, &conv, true));
    /* where weights go does not depend on the image's size: the same ones over images of several sizes, as in detectors' heads, are packed once */
    const int64_t layout[] = {half, (int64_t)cml_conv_narrow(k, &conv), (int64_t)cml_conv_multiplier(&conv), conv.winograd, (int64_t)conv.outputs, (int64_t)conv.channels,
                              (int64_t)conv.groups, conv.kernel[0], conv.kernel[1], conv.kernel[2], from.start, from.group_stride, from.output_stride, from.channel_stride,
                              from.tap_stride[0], from.tap_stride[1], from.tap_stride[2], (int64_t)from.bundle, (int64_t)from.joined};
    bool ready;
    void *to = cml_call_keep_packed(c, cml_conv_packed_bytes(k, &conv, half), w, layout, sizeof layout / sizeof *layout, &ready, err);
    if (!to) return c->keep_status;
    if (!ready) cml_conv_pack(k, &conv, &from, half, to, c->pool);
    p->weights[i] = (cml_conv_weights){to, half};
  }
  cml_arg_unread(c, w);
  cml_arg_unread(c, bias);
  c->prepared = p;
  return CML_OK;
}

/* ---- infer and run ---- */

/* What was decided when weights were packed, if they were. */
static void do_as_prepared(conv_call *v, const conv_prepared *p) {
  v->conv.winograd = p && p->winograd;
  v->trims = !p || p->trims;
  if (p) join_pixels(v, p->joined);
}

/* Bytes of scratch that phases work in, one after the other; packed: behind it, of their weights where they are not prepared. */
static uint64_t working_bytes(const cml_call *c, const cml_kernels *k, const conv_call *v, const cml_tensor *w, uint64_t *packed) {
  uint64_t most = 0, shared = 0;
  *packed = 0;
  for (size_t i = 0; i < v->phases; i++) {
    cml_conv conv;
    cml_conv_source from;
    if (!phase_conv(k, v, w, i, &conv, &from)) continue;
    uint64_t need = cml_scratch_part(cml_conv_scratch(k, &conv)), bytes = phase_bytes(k, v, w, i, w->dtype == CML_F16), together = cml_conv_shared(k, &conv, slots(c));
    if (need > most) most = need;
    if (together > shared) shared = together;
    if (bytes > *packed) *packed = bytes;
  }
  return slots(c) * most + cml_scratch_part(shared);
}

static cml_status infer(cml_call *c, cml_error *err) {
  conv_call v;
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT);
  int64_t dims[5];
  CML_TRY(read_call(c, &v, err));
  if (x->rank < 0 || w->rank < 0) return cml_out_unknown(c, 0, x->dtype, x->rank < 0 ? w->rank : x->rank), CML_OK;
  dims[0] = x->dims[0];
  const bool last = !makes_planes(c);
  dims[last ? x->rank - 1 : 1] = v.outputs;
  for (int32_t i = 0; i < v.windows.dims; i++) dims[i + (last ? 1 : 2)] = v.windows.out[i];
  cml_out_set(c, 0, x->dtype, x->rank, dims);
  const cml_tensor *residual = fused(c) ? cml_arg(c, fused(c) + F_RESIDUAL) : NULL;
  if (residual && cml_tensor_known_shape(residual) && cml_tensor_known_shape(c->outs[0]) &&
      (!cml_tensor_same_shape(residual, c->outs[0]) || residual->dtype != x->dtype))
    return cml_call_fail(c, err, "the residual does not have the output's shape and type");
  const cml_kernels *k = cml_kernels_get();
  do_as_prepared(&v, c->prepared);
  c->spaces_rows = last && !residual && v.joined == 1;
  c->spaced_args = v.last && v.conv.channels > 1 ? 1 << X : 0; /* fold_columns takes single channels together */
  if (!v.known) return CML_OK;
  uint64_t packed;
  c->scratch_size = working_bytes(c, k, &v, w, &packed);
  if (!c->prepared) c->scratch_size += packed + cml_scratch_part((uint64_t)v.outputs * 4);
  return CML_OK;
}

/* A phase without taps: the bias alone, and what follows it. */
static void fill_phase(const cml_kernels *k, const cml_conv *p, const cml_epilogue *after, cml_tensor *y) {
  int64_t plane = p->full[0] * p->full[1] * p->full[2], channels = (int64_t)p->outputs;
  for (int64_t n = 0; n < (int64_t)p->batch * channels; n++)
    for (int64_t d = p->place[0]; d < p->full[0]; d += p->step[0])
      for (int64_t h = p->place[1]; h < p->full[1]; h += p->step[1])
        for (int64_t w = p->place[2]; w < p->full[2]; w += p->step[2]) {
          int64_t pixel = (d * p->full[1] + h) * p->full[2] + w, at = p->out_last ? (n / channels * plane + pixel) * (int64_t)p->out_pixel + n % channels : n * plane + pixel;
          float v = after->bias ? after->bias[n % channels] : 0;
          if (after->residual) v += p->out_half ? cml_f16_to_f32(((const cml_f16 *)after->residual)[at]) : ((const float *)after->residual)[at];
          if (after->activation != CML_UNARY_COPY) k->unary(after->activation, &v, &v, 1, after->a, after->b);
          cml_tensor_set(y, at, (double)v);
        }
}

static cml_status run(cml_call *c, cml_error *err) {
  conv_call v;
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  cml_tensor *y = c->outs[0];
  CML_TRY(read_call(c, &v, err));
  if (!cml_tensor_count(y)) return CML_OK;
  const conv_prepared *p = c->prepared;
  const cml_kernels *k = p ? p->kernels : cml_kernels_get();
  do_as_prepared(&v, p);
  v.conv.in_pixel = (size_t)x->row;
  if (y->row) v.conv.out_pixel = (size_t)y->row;
  uint64_t bytes;
  char *packed = (char *)c->scratch + (p ? 0 : working_bytes(c, k, &v, w, &bytes)); /* of weights that are not packed yet */
  cml_epilogue after = {.bias = p ? p->bias : NULL, .activation = CML_UNARY_COPY};
  if (!p && bias) {
    widen_bias(k, bias, (float *)(void *)packed);
    after.bias = (float *)(void *)packed;
    packed += cml_scratch_part((uint64_t)v.outputs * 4);
  }
  if (fused(c)) {
    unsigned f = fused(c);
    const cml_tensor *residual = cml_arg(c, f + F_RESIDUAL);
    if (residual) after.residual = residual->data, after.residual_stride = (size_t)v.outputs * v.joined;
    after.activation = (cml_unary)cml_arg_int(c, f + F_ACTIVATION, CML_UNARY_COPY);
    after.a = (float)cml_arg_float(c, f + F_ALPHA, 0);
    after.b = (float)cml_arg_float(c, f + F_BETA, 0);
  }
  for (size_t i = 0; i < v.phases; i++) {
    cml_conv conv;
    cml_conv_source from;
    if (!phase_conv(k, &v, w, i, &conv, &from)) {
      if (conv.out[0] > 0 && conv.out[1] > 0 && conv.out[2] > 0) fill_phase(k, &conv, &after, y);
      continue;
    }
    if (conv.out[0] <= 0 || conv.out[1] <= 0 || conv.out[2] <= 0) continue;
    const cml_conv_weights unprepared = {packed, w->dtype == CML_F16};
    if (!p) cml_conv_pack(k, &conv, &from, unprepared.half, packed, c->pool);
    cml_conv_run(&(cml_conv_call){.k = k, .v = &conv, .weights = p ? p->weights[i] : unprepared, .after = after,
                                  .x = x->data, .y = y->data, .pool = c->pool, .scratch = c->scratch, .slots = slots(c)});
  }
  return CML_OK;
}

#define CONV_ROW .min_outputs = 1, .max_outputs = 1, .infer = infer, .prepare = prepare, .run = run

static const cml_op rows[] = {
    {.name = "conv", .since = CML_IOS15, .until = CML_IOS16, CML_PARAMS(conv_params), CONV_ROW},
    {.name = "conv", .since = CML_IOS17, CML_PARAMS(conv_params_17), CONV_ROW},
    {.name = "conv_transpose", .since = CML_IOS15, .until = CML_IOS16, CML_PARAMS(transpose_params), CONV_ROW},
    {.name = "conv_transpose", .since = CML_IOS17, CML_PARAMS(transpose_params_17), CONV_ROW},
    {.name = "cml_conv", .since = CML_IOS15, .flags = CML_OP_INTERNAL, CML_PARAMS(fused_params), CONV_ROW},
    {.name = "cml_conv_transpose", .since = CML_IOS15, .flags = CML_OP_INTERNAL, CML_PARAMS(fused_transpose_params), CONV_ROW},
};

const cml_op_family cml_ops_conv = {"conv", rows, sizeof rows / sizeof *rows};
