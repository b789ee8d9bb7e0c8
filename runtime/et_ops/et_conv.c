/* Convolutions. Ordinary ones of float32 and float16 go through the blocked convolution of the kernels; transposed ones, gradients
 * and the other types through plain loops in double precision, which all are one: the taps pair elements of a small image
 * (the output of an ordinary convolution, the input of a transposed one) with those of a big one, and each of small, big and
 * weight can be what is summed up. */
#include "conv.h"
#include "et_families.h"
#include "et_view.h"

typedef struct geometry {
  int dims; /* of space: 1 to 3 */
  int64_t stride[3], pad[3], dilation[3], output_pad[3];
  bool transposed;
  int64_t groups, batch, small_channels, big_channels;
  int64_t small[3], big[3], kernel[3]; /* leading ones are 1 */
} geometry;

static cml_status take_list(cml_et_call *c, size_t i, int dims, int64_t least, int64_t otherwise, int64_t *out, cml_error *err) {
  int64_t list[3];
  size_t count;
  CML_TRY(cml_et_ints(c, i, list, 3, &count, err));
  if (count > 1 && count != (size_t)dims) return cml_et_fail(c, err, "argument %zu has %zu numbers for %d dimensions", i, count, dims);
  for (int k = 0; k < 3; k++) out[k] = otherwise;
  for (int k = 0; k < dims; k++) {
    int64_t v = count == 0 ? otherwise : list[count == 1 ? 0 : k];
    if (v < least || v > INT32_MAX) return cml_et_fail(c, err, "%lld in argument %zu is out of range", (long long)v, i);
    out[3 - dims + k] = v;
  }
  return CML_OK;
}

/* first: the argument of strides. x: the convolution's input. out: sizes of its output. */
static cml_status take_geometry(cml_et_call *c, size_t first, const cml_et_tensor *x, const cml_et_tensor *w, geometry *g, int64_t *out, cml_error *err) {
  memset(g, 0, sizeof *g);
  g->dims = x->rank - 2;
  if (x->rank < 3 || x->rank > 5 || w->rank != x->rank) return cml_et_fail(c, err, "an image of rank %d and a weight of rank %d", x->rank, w->rank);
  CML_TRY(take_list(c, first, g->dims, 1, 1, g->stride, err));
  CML_TRY(take_list(c, first + 1, g->dims, 0, 0, g->pad, err));
  CML_TRY(take_list(c, first + 2, g->dims, 1, 1, g->dilation, err));
  CML_TRY(take_list(c, first + 4, g->dims, 0, 0, g->output_pad, err));
  g->transposed = cml_et_bool(c, first + 3, false);
  g->groups = cml_et_int(c, first + 5, 1);
  g->batch = x->sizes[0];
  int64_t in = x->sizes[1], w0 = w->sizes[0], w1 = w->sizes[1];
  if (g->groups < 1 || g->groups > INT32_MAX || w1 > INT32_MAX || w0 % g->groups || in != (g->transposed ? w0 : w1 * g->groups))
    return cml_et_fail(c, err, "%lld channels in %lld groups do not fit a weight of %lld by %lld", (long long)in, (long long)g->groups, (long long)w0, (long long)w1);
  g->small_channels = w0;
  g->big_channels = w1 * g->groups;
  out[0] = g->batch;
  out[1] = g->transposed ? g->big_channels : g->small_channels;
  for (int k = 0; k < 3; k++) {
    int at = 2 + k - (3 - g->dims);
    bool used = k >= 3 - g->dims;
    int64_t n = used ? x->sizes[at] : 1, reach;
    g->kernel[k] = used ? w->sizes[at] : 1;
    if (g->kernel[k] < 1 || g->kernel[k] > INT32_MAX || n > INT32_MAX || n < 1) return cml_et_fail(c, err, "dimension %d of the image or the weight is out of range", at);
    reach = g->dilation[k] * (g->kernel[k] - 1) + 1;
    int64_t result = g->transposed ? (n - 1) * g->stride[k] - 2 * g->pad[k] + reach + g->output_pad[k]
                                   : n + 2 * g->pad[k] < reach ? 0 : (n + 2 * g->pad[k] - reach) / g->stride[k] + 1;
    if (result < !g->transposed) return cml_et_fail(c, err, "the kernel is larger than the padded image along dimension %d", at);
    g->small[k] = g->transposed ? n : result;
    g->big[k] = g->transposed ? result : n;
    if (used) out[at] = result;
  }
  return CML_OK;
}

/* ---- plain loops ---- */

typedef enum target { SMALL, BIG, WEIGHT } target;

/* One row of small, x0 to x1, meets a row of big at steps of `step`. */
static void tap_row(double *small, double *big, double *w, int64_t count, int64_t step, target t) {
  if (t == SMALL) for (int64_t i = 0; i < count; i++) small[i] += big[i * step] * *w;
  else if (t == BIG) for (int64_t i = 0; i < count; i++) big[i * step] += small[i] * *w;
  else {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += small[i] * big[i * step];
    *w += sum;
  }
}

/* One plane of small with one of big, all taps. */
static void tap_planes(const geometry *g, double *small, double *big, double *w, target t) {
  int64_t first[3], last[3];
  for (int64_t z = 0; z < g->kernel[0]; z++)
    for (int64_t y = 0; y < g->kernel[1]; y++)
      for (int64_t x = 0; x < g->kernel[2]; x++, w++) {
        const int64_t tap[3] = {z, y, x};
        for (int k = 0; k < 3; k++) { /* positions of small whose partner is inside big */
          int64_t at = tap[k] * g->dilation[k] - g->pad[k], s = g->stride[k];
          first[k] = at >= 0 ? 0 : (-at + s - 1) / s;
          last[k] = at >= g->big[k] ? 0 : (g->big[k] - 1 - at) / s + 1;
          if (last[k] > g->small[k]) last[k] = g->small[k];
        }
        int64_t count = last[2] - first[2], bx = first[2] * g->stride[2] - g->pad[2] + x * g->dilation[2];
        for (int64_t sz = first[0]; sz < last[0] && count > 0; sz++)
          for (int64_t sy = first[1]; sy < last[1]; sy++) {
            int64_t bz = sz * g->stride[0] - g->pad[0] + z * g->dilation[0], by = sy * g->stride[1] - g->pad[1] + y * g->dilation[1];
            tap_row(small + (sz * g->small[1] + sy) * g->small[2] + first[2], big + (bz * g->big[1] + by) * g->big[2] + bx, w, count, g->stride[2], t);
          }
      }
}

typedef struct plain {
  const geometry *g;
  double *small, *big, *w;
  target t;
} plain;

/* Pairs of channels that sum up into one plane stay on one thread: items are groups. */
static void plain_groups(void *context, size_t begin, size_t end) {
  const plain *p = context;
  const geometry *g = p->g;
  int64_t smalls = g->small_channels / g->groups, bigs = g->big_channels / g->groups;
  int64_t sp = g->small[0] * g->small[1] * g->small[2], bp = g->big[0] * g->big[1] * g->big[2], taps = g->kernel[0] * g->kernel[1] * g->kernel[2];
  for (size_t group = begin; group < end; group++)
    for (int64_t n = 0; n < g->batch; n++)
      for (int64_t o = 0; o < smalls; o++)
        for (int64_t i = 0; i < bigs; i++) {
          int64_t so = (int64_t)group * smalls + o, bi = (int64_t)group * bigs + i;
          tap_planes(g, p->small + (n * g->small_channels + so) * sp, p->big + (n * g->big_channels + bi) * bp, p->w + (so * bigs + i) * taps, p->t);
        }
}

/* The tensor as doubles in temporary memory, or zeros in its shape. */
static double *doubles(cml_et_call *c, const cml_et_tensor *t, bool zero, cml_et_local *local) {
  double *p = cml_et_temp(c, (uint64_t)cml_et_numel(t) * sizeof *p);
  if (!p) return NULL;
  cml_et_make(local, CML_F64, t->rank, t->sizes, p);
  if (zero) memset(p, 0, (size_t)cml_et_numel(t) * sizeof *p);
  else cml_et_copy(&local->t, t);
  return p;
}

static cml_status run_plain(cml_et_call *c, const geometry *g, const cml_et_tensor *x, const cml_et_tensor *w, const cml_et_tensor *bias,
                            cml_et_tensor *out, cml_error *err) {
  cml_et_local lx, lw, lo;
  double *px = doubles(c, x, false, &lx), *pw = doubles(c, w, false, &lw), *po = doubles(c, out, true, &lo);
  if (!px || !pw || !po) return cml_fail_memory(err);
  int64_t plane = cml_et_numel(out) / (out->sizes[0] * out->sizes[1]);
  for (int64_t i = 0; bias && i < out->sizes[0] * out->sizes[1]; i++) {
    double b;
    cml_et_load_f64(&b, bias, i % out->sizes[1], 1, 1);
    for (int64_t k = 0; k < plane; k++) po[i * plane + k] = b;
  }
  plain p = {g, g->transposed ? px : po, g->transposed ? po : px, pw, g->transposed ? BIG : SMALL};
  cml_parallel(c->pool, (size_t)g->groups, 1, plain_groups, &p);
  cml_et_copy(out, &lo.t);
  return CML_OK;
}

/* ---- the blocked convolution ---- */

/* Layout of an image: 0 channels first, 1 last, -1 neither. */
static int layout_of(const cml_et_tensor *t) {
  if (cml_et_is_contiguous(t)) return 0;
  int64_t step = t->sizes[1];
  if (t->strides[1] != 1 && t->sizes[1] != 1) return -1;
  for (int k = t->rank - 1; k != 1; k = k == 2 ? 0 : k - 1) {
    if (t->sizes[k] != 1 && t->strides[k] != step) return -1;
    step *= t->sizes[k];
    if (k == 0) break;
  }
  return 1;
}

static cml_status run_blocked(cml_et_call *c, const geometry *g, const cml_et_tensor *x, const cml_et_tensor *w, const cml_et_tensor *bias,
                              cml_et_tensor *out, cml_error *err) {
  const cml_kernels *k = cml_kernels_get();
  bool half = x->dtype == CML_F16;
  cml_conv v = {.batch = (size_t)g->batch, .channels = (size_t)g->big_channels, .outputs = (size_t)g->small_channels,
                .groups = (size_t)g->groups, .in_last = layout_of(x) == 1, .out_last = layout_of(out) == 1, .in_half = half, .out_half = half};
  cml_conv_source source = {.data = w->data, .half = half, .group_stride = g->small_channels / g->groups * w->strides[0],
                            .output_stride = w->strides[0], .channel_stride = w->strides[1]};
  cml_conv_weights weights = {.half = half};
  cml_epilogue after = {.activation = CML_UNARY_COPY};
  for (int i = 0; i < 3; i++) {
    v.in[i] = g->big[i];
    v.out[i] = g->small[i];
    v.kernel[i] = g->kernel[i];
    v.stride[i] = g->stride[i];
    v.dilation[i] = g->dilation[i];
    v.offset[i] = -g->pad[i];
    source.tap_stride[i] = i >= 3 - g->dims ? w->strides[2 + i - (3 - g->dims)] : 0;
  }
  cml_conv_place_all(&v);
  size_t threads = cml_pool_threads(c->pool);
  void *packed = cml_et_temp(c, cml_conv_packed_bytes(k, &v, half)), *scratch = cml_et_temp(c, cml_conv_scratch(k, &v) * threads);
  float *b = bias ? cml_et_temp(c, (uint64_t)g->small_channels * sizeof *b) : NULL;
  if (!packed || !scratch || (bias && !b)) return cml_fail_memory(err);
  if (bias) cml_et_load_f32(b, bias, 0, 1, g->small_channels);
  after.bias = b;
  weights.packed = packed;
  cml_conv_pack(k, &v, &source, half, packed, c->pool);
  cml_conv_run(k, &v, &weights, &after, x->data, out->data, c->pool, scratch, threads);
  return CML_OK;
}

static cml_status op_convolution(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *w = cml_et_arg(c, 1), *bias = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 9);
  int64_t sizes[5];
  geometry g;
  CML_TRY(cml_et_want(c, x, CML_ET_ANY & ~CML_M_BOOL, "the image", err));
  CML_TRY(cml_et_same_type(c, x, w, err));
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(take_geometry(c, 3, x, w, &g, sizes, err));
  if (bias) CML_TRY(cml_et_same_type(c, x, bias, err));
  if (bias && (bias->rank != 1 || bias->sizes[0] != sizes[1])) return cml_et_fail(c, err, "the bias does not fit %lld channels", (long long)sizes[1]);
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  bool blocked = !g.transposed && (x->dtype == CML_F32 || x->dtype == CML_F16) && layout_of(x) >= 0 && layout_of(out) >= 0 && g.big_channels > 0;
  return (blocked ? run_blocked : run_plain)(c, &g, x, w, bias, out, err);
}

/* ---- gradients ---- */

static cml_status gradient(cml_et_call *c, plain p, target t, const cml_et_tensor *like, cml_et_tensor *out, cml_error *err) {
  cml_et_local local;
  if (!out) return CML_OK;
  CML_TRY(cml_et_resize_like(c, out, like, err));
  double *sums = doubles(c, out, true, &local);
  if (!sums) return cml_fail_memory(err);
  *(t == SMALL ? &p.small : t == BIG ? &p.big : &p.w) = sums;
  p.t = t;
  cml_parallel(c->pool, (size_t)p.g->groups, 1, plain_groups, &p);
  cml_et_copy(out, &local.t);
  return CML_OK;
}

static cml_status bias_gradient(cml_et_call *c, const double *grad, const int64_t *sizes, int64_t plane, cml_et_tensor *out, cml_error *err) {
  if (!out) return CML_OK;
  CML_TRY(cml_et_resize(c, out, 1, &sizes[1], err));
  for (int64_t k = 0; k < sizes[1]; k++) {
    double sum = 0;
    for (int64_t n = 0; n < sizes[0]; n++)
      for (int64_t i = 0; i < plane; i++) sum += grad[(n * sizes[1] + k) * plane + i];
    cml_et_store_f64(out, k, 1, 1, &sum);
  }
  return CML_OK;
}

static cml_status op_backward(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *grad = cml_et_arg(c, 0), *x = cml_et_arg(c, 1), *w = cml_et_arg(c, 2);
  cml_et_tensor *outs[3];
  int64_t sizes[5], plane = 1;
  cml_et_local lg, lx, lw;
  geometry g;
  CML_TRY(cml_et_want(c, x, CML_ET_FLOATING, "the image", err));
  CML_TRY(cml_et_same_type(c, x, w, err));
  CML_TRY(cml_et_same_type(c, x, grad, err));
  CML_TRY(take_geometry(c, 4, x, w, &g, sizes, err));
  if (c->args[10]->count != 3) return cml_et_fail(c, err, "output_mask has %u entries, not 3", c->args[10]->count);
  if (grad->rank != x->rank || memcmp(grad->sizes, sizes, x->rank * sizeof *sizes)) return cml_et_fail(c, err, "the gradient's shape is not that of the convolution's result");
  for (size_t k = 0; k < 3; k++) {
    outs[k] = c->args[10]->booleans[k] ? cml_et_arg(c, 11 + k) : NULL;
    if (outs[k]) CML_TRY(cml_et_same_type(c, x, outs[k], err));
  }
  for (int k = 2; k < x->rank; k++) plane *= sizes[k];
  double *pg = doubles(c, grad, false, &lg), *px = doubles(c, x, false, &lx), *pw = doubles(c, w, false, &lw);
  if (!pg || !px || !pw) return cml_fail_memory(err);
  plain p = {.g = &g, .small = g.transposed ? px : pg, .big = g.transposed ? pg : px, .w = pw};
  CML_TRY(gradient(c, p, g.transposed ? SMALL : BIG, x, outs[0], err));
  CML_TRY(gradient(c, p, WEIGHT, w, outs[1], err));
  return bias_gradient(c, pg, sizes, plane, outs[2], err);
}

static const cml_et_op rows[] = {
    {"aten::convolution.out", "ttt?IIIbIio", op_convolution},
    {"aten::convolution_backward.out", "tttI?IIIbIiBo?o?o?", op_backward},
};
CML_ET_FAMILY(conv)
