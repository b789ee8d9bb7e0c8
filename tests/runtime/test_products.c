/* Convolutions, pools, matrix products, attention, folds of rows and topk against the definitions written out as loops in double precision, over
 * random arguments: ranks, strides, dilations, groups, paddings, both float types, every kernel table. */
#include "test.h"

#include <math.h>

#include "conv.h"
#include "f16.h"
#include "kernels.h"
#include "op.h"
#include "random_numbers.h"

/* ---- arguments by name ---- */

enum { ARGS = 14 };
typedef struct call {
  const cml_op *op;
  int opset;
  cml_tensor tensors[ARGS];
  cml_string text;
  const cml_tensor *args[ARGS];
  uint16_t first[32];
  const char *names[ARGS];
  size_t count;
} call;

static call start(const char *name, int opset) {
  call c = {.op = cml_op_find(name, opset), .opset = opset};
  assert_non_null(c.op);
  return c;
}
static cml_tensor *add(call *c, const char *name, cml_dtype type, int32_t rank, const int64_t *dims) {
  cml_tensor *t = &c->tensors[c->count];
  *t = (cml_tensor){.dtype = type, .rank = rank};
  for (int32_t i = 0; i < rank; i++) t->dims[i] = dims[i];
  t->data = calloc((size_t)cml_tensor_count(t) + 1, 8);
  assert_non_null(t->data);
  c->names[c->count++] = name;
  return t;
}
static cml_tensor *add_floats(call *c, const char *name, cml_dtype type, int32_t rank, const int64_t *dims) {
  cml_tensor *t = add(c, name, type, rank, dims);
  for (int64_t i = 0; i < cml_tensor_count(t); i++) cml_tensor_set(t, i, (double)((int32_t)rnd()) * 0x1p-31);
  return t;
}
static void add_ints(call *c, const char *name, int64_t n, const int64_t *values) {
  cml_tensor *t = add(c, name, CML_I32, n < 0 ? 0 : 1, &n);
  for (int64_t i = 0; i < (n < 0 ? 1 : n); i++) cml_tensor_set_int(t, i, values[i]);
}
static void add_bool(call *c, const char *name, bool value) { *(uint8_t *)add(c, name, CML_BOOL, 0, NULL)->data = value; }
static void add_text(call *c, const char *name, const char *value) {
  *(cml_string *)add(c, name, CML_STRING, 0, NULL)->data = (cml_string){value, strlen(value)};
}
static void evaluate(call *c, cml_tensor *out) {
  size_t n = 0;
  for (size_t p = 0; p < c->op->param_count; p++) {
    c->first[p] = (uint16_t)n;
    for (size_t i = 0; i < c->count; i++)
      if (!strcmp(c->names[i], c->op->params[p].name)) c->args[n++] = &c->tensors[i];
  }
  c->first[c->op->param_count] = (uint16_t)n;
  assert_int_equal(n, c->count);
  assert_ok(cml_op_eval(c->op, c->opset, c->args, c->first, out, 1, err));
}
static void done(call *c, cml_tensor *out) {
  for (size_t i = 0; i < c->count; i++) free(c->tensors[i].data);
  cml_eval_free(out, 1);
}
static void close_to(const cml_tensor *t, int64_t i, double want, double scale) {
  double got = cml_tensor_get(t, i), tolerance = (t->dtype == CML_F16 ? 1e-3 : 3e-6) * (scale + fabs(want)) + 1e-6;
  if (!(fabs(got - want) <= tolerance)) fail_msg("%s: element %lld is %g, should be %g", cml_kernels_get()->name, (long long)i, got, want);
}

static void each_table(void (*test)(void)) {
  const cml_kernels *k;
  for (size_t i = 0; (k = cml_kernels_at(i)); i++) {
    assert_ok(cml_kernels_use(k->name, err));
    test();
  }
  assert_ok(cml_kernels_use(NULL, err));
}

/* Where the element of an image, channel and pixel lies, with the channels first or last. */
static int64_t place(bool last, int64_t image, int64_t channels, int64_t channel, int64_t plane, int64_t pixel) {
  return last ? (image * plane + pixel) * channels + channel : (image * channels + channel) * plane + pixel;
}

/* ---- convolution: every output looks at every input that the definition names ---- */

typedef struct conv_case {
  bool transposed, fused; /* fused: the rows that passes make, with the channels last, a residual and an activation */
  int32_t dims;
  int64_t n, groups, cg, og; /* images; channels of a group in the input and in the output */
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], before[3], after[3]; /* the first 3 - dims are 1 and 0 */
  const cml_tensor *x, *w, *bias, *residual;
  cml_unary f;
} conv_case;

static conv_case draw_conv(bool transposed, bool fused) {
  conv_case v = {transposed, fused, (int32_t)between(1, 3)};
  v.groups = between(0, 3) ? 1 : between(2, 4), v.cg = between(1, rnd() % 3 ? 6 : 40), v.og = between(1, rnd() % 3 ? 7 : 45), v.n = between(1, 2);
  if (v.groups > 1 && rnd() % 2) v.groups = between(2, 9), v.og = v.cg = between(2, 9);
  if (rnd() % 4 == 0) v.groups = between(2, 40), v.cg = 1, v.og = rnd() % 2 ? 1 : between(2, 5); /* depthwise, or several outputs for each channel */
  if (rnd() % 8 == 0) v.groups = between(5, 40), v.cg = between(2, 6), v.og = between(1, 2); /* a few outputs a group: groups are taken together */
  bool point = rnd() % 6 == 0, strided = rnd() % 2; /* a kernel of one element, which is computed as a matrix product */
  if (fused && rnd() % 8 == 0) v.dims = (int32_t)between(2, 3), v.groups = 1, v.cg = between(100, v.dims == 3 ? 150 : 600), v.og = between(1, 140); /* a depth of several pieces */
  for (int i = 0; i < 3; i++) {
    v.in[i] = v.out[i] = v.kernel[i] = v.stride[i] = v.dilation[i] = 1;
    if (i < 3 - v.dims) continue;
    if (point && strided) v.stride[i] = between(1, 3);
    if (!point) {
      v.kernel[i] = between(1, 4), v.stride[i] = between(1, 3), v.dilation[i] = between(0, 2) ? 1 : between(1, 3);
      v.before[i] = between(0, 2), v.after[i] = between(0, 2);
    }
    v.in[i] = (v.kernel[i] - 1) * v.dilation[i] + 1 + between(0, v.dims == 1 ? 160 : v.cg >= 100 ? 6 : 14);
    int64_t reach = (v.kernel[i] - 1) * v.dilation[i] + 1, padding = v.before[i] + v.after[i];
    v.out[i] = transposed ? (v.in[i] - 1) * v.stride[i] + reach - padding : (v.in[i] + padding - reach) / v.stride[i] + 1;
  }
  if (!transposed && !point && v.dims == 2 && rnd() % 6 == 0) { /* taps that are outside the image for whole blocks of outputs */
    v.kernel[1] = between(2, 3), v.stride[1] = between(1, 2), v.dilation[1] = v.before[1] = v.after[1] = between(5, 12);
    v.in[1] = between(v.dilation[1], 26), v.in[2] += between(0, 40);
    v.out[1] = (v.in[1] + (3 - v.kernel[1]) * v.dilation[1] - 1) / v.stride[1] + 1;
    v.out[2] = (v.in[2] + v.before[2] + v.after[2] - (v.kernel[2] - 1) * v.dilation[2] - 1) / v.stride[2] + 1;
  }
  if (!transposed && v.dims == 2 && v.cg == 1 && rnd() % 3 == 0) { /* depthwise, one column wide */
    v.groups = between(8, 40), v.og = v.stride[1] = v.dilation[1] = v.kernel[2] = v.stride[2] = v.dilation[2] = 1;
    v.before[2] = v.after[2] = 0, v.out[2] = v.in[2], v.kernel[1] = between(2, 12), v.in[1] = v.kernel[1] + between(0, 14);
    v.out[1] = v.in[1] + v.before[1] + v.after[1] - v.kernel[1] + 1;
  }
  if (transposed && rnd() % 3 == 0) { /* pixels of a row that share no taps, often of few outputs */
    v.before[2] = v.after[2] = 0, v.dilation[2] = 1, v.kernel[2] = v.stride[2] = between(2, 4);
    v.out[2] = v.in[2] * v.stride[2];
    if (rnd() % 2) v.groups = between(1, 3), v.og = between(1, 5);
  }
  if (!transposed && v.dims > 1 && rnd() % 5 == 0) { /* a kernel as wide as the image, often of one channel */
    v.before[2] = v.after[2] = 0, v.out[2] = v.dilation[2] = 1;
    v.in[2] = v.kernel[2] = between(1, 40);
    if (rnd() % 2) v.groups = v.cg = 1, v.og = between(1, 45);
  }
  return v;
}

/* Adds the arguments, and keeps those that are numbers. */
static void add_conv(call *c, conv_case *v) {
  int first = 3 - v->dims, images = v->fused ? 1 : 2;
  cml_dtype type = rnd() % 2 ? CML_F32 : CML_F16, weight_type = rnd() % 2 ? CML_F32 : CML_F16;
  int64_t inputs = v->groups * v->cg, outputs = v->groups * v->og, pad[6];
  int64_t x_dims[5] = {v->n, inputs}, y_dims[5] = {v->n}, w_dims[5] = {v->transposed ? inputs : outputs, v->transposed ? v->og : v->cg};
  if (v->fused) x_dims[v->dims + 1] = inputs, y_dims[v->dims + 1] = outputs;
  for (int i = 0; i < v->dims; i++) {
    x_dims[images + i] = v->in[first + i], w_dims[2 + i] = v->kernel[first + i], y_dims[1 + i] = v->out[first + i];
    pad[2 * i] = v->before[first + i], pad[2 * i + 1] = v->after[first + i];
  }
  v->x = add_floats(c, "x", type, v->dims + 2, x_dims);
  v->w = add_floats(c, "weight", weight_type, v->dims + 2, w_dims);
  if (rnd() % 2) v->bias = add_floats(c, "bias", weight_type, 1, &outputs);
  add_ints(c, "strides", v->dims, v->stride + first);
  add_ints(c, "dilations", v->dims, v->dilation + first);
  add_ints(c, "groups", -1, &v->groups);
  add_text(c, "pad_type", "custom");
  add_ints(c, "pad", 2 * v->dims, pad);
  if (!v->fused) return;
  static const cml_unary functions[] = {CML_UNARY_COPY, CML_UNARY_RELU, CML_UNARY_CLIP, CML_UNARY_SILU};
  v->f = functions[rnd() % 4];
  int64_t one = 1, function = v->f;
  add_ints(c, "layout", -1, &one);
  if (rnd() % 2) v->residual = add_floats(c, "residual", type, v->dims + 2, y_dims);
  add_ints(c, "activation", -1, &function);
  cml_tensor_set(add(c, "alpha", CML_F32, 0, NULL), 0, -0.25);
  cml_tensor_set(add(c, "beta", CML_F32, 0, NULL), 0, 0.5);
}

/* Where tap k meets pixel p in the input; false: in the padding, or between the pixels of a transposed one. */
static bool conv_meets(const conv_case *v, const int64_t *p, const int64_t *k, int64_t *q) {
  for (int d = 0; d < 3; d++) {
    q[d] = v->transposed ? p[d] + v->before[d] - k[d] * v->dilation[d] : p[d] * v->stride[d] + k[d] * v->dilation[d] - v->before[d];
    if (v->transposed && (q[d] < 0 || q[d] % v->stride[d])) return false;
    if (v->transposed) q[d] /= v->stride[d];
    if (q[d] < 0 || q[d] >= v->in[d]) return false;
  }
  return true;
}

/* Element `at` of output o of an image by the definition; yi: where it lies. */
static double conv_expected(const conv_case *v, int64_t image, int64_t o, int64_t at, int64_t yi) {
  int64_t group = o / v->og, in_plane = v->in[0] * v->in[1] * v->in[2], taps = v->kernel[0] * v->kernel[1] * v->kernel[2], q[3];
  int64_t p[3] = {at / (v->out[1] * v->out[2]), at / v->out[2] % v->out[1], at % v->out[2]};
  double sum = v->bias ? cml_tensor_get(v->bias, o) : 0;
  for (int64_t t = 0; t < taps; t++) {
    int64_t k[3] = {t / (v->kernel[1] * v->kernel[2]), t / v->kernel[2] % v->kernel[1], t % v->kernel[2]};
    if (!conv_meets(v, p, k, q)) continue;
    for (int64_t ch = 0; ch < v->cg; ch++) {
      int64_t input = group * v->cg + ch, pixel = (q[0] * v->in[1] + q[1]) * v->in[2] + q[2];
      int64_t wi = v->transposed ? (input * v->og + o % v->og) * taps + t : (o * v->cg + ch) * taps + t;
      sum += cml_tensor_get(v->x, place(v->fused, image, v->groups * v->cg, input, in_plane, pixel)) * cml_tensor_get(v->w, wi);
    }
  }
  if (v->residual) sum += cml_tensor_get(v->residual, yi);
  if (v->f == CML_UNARY_RELU) sum = fmax(sum, 0);
  if (v->f == CML_UNARY_CLIP) sum = fmin(fmax(sum, -0.25), 0.5);
  if (v->f == CML_UNARY_SILU) sum /= 1 + exp(-sum);
  return sum;
}

/* The first argument as part of a wider tensor, NaN around it: not a bit of the result may change. */
static void same_with_rows_apart(call *c, const cml_tensor *y) {
  cml_tensor *x = &c->tensors[0], dense = *x, again;
  const int64_t length = x->dims[x->rank - 1], rows = cml_tensor_count(x) / length, row = length + between(1, 40);
  const size_t size = cml_dtype_bits(x->dtype) / 8;
  char *wide = malloc((size_t)(rows * row) * size + 64);
  assert_non_null(wide);
  memset(wide, 0xff, (size_t)(rows * row) * size + 64);
  for (int64_t i = 0; i < rows; i++) memcpy(wide + (size_t)(i * row) * size, (char *)dense.data + (size_t)(i * length) * size, (size_t)length * size);
  x->data = wide, x->row = row;
  evaluate(c, &again);
  if (memcmp(again.data, y->data, (size_t)cml_tensor_count(y) * cml_dtype_bits(y->dtype) / 8)) fail_msg("%s: rows %lld apart change the result", cml_kernels_get()->name, (long long)row);
  cml_eval_free(&again, 1);
  *x = dense;
  free(wide);
}

static void one_conv(bool transposed, bool fused) {
  static const char *const names[] = {"conv", "conv_transpose", "cml_conv", "cml_conv_transpose"};
  conv_case v = draw_conv(transposed, fused);
  for (int i = 0; i < 3; i++)
    if (v.out[i] < 1) return; /* padding that takes away all of a transposed one's output */
  call c = start(names[transposed + 2 * fused], CML_IOS17);
  add_conv(&c, &v);
  cml_tensor y;
  evaluate(&c, &y);
  int64_t outputs = v.groups * v.og, plane = v.out[0] * v.out[1] * v.out[2], terms = v.cg * v.kernel[0] * v.kernel[1] * v.kernel[2];
  assert_int_equal(cml_tensor_count(&y), v.n * outputs * plane);
  for (int i = 0; i < v.dims; i++) assert_int_equal(y.dims[i + (fused ? 1 : 2)], v.out[i + 3 - v.dims]);
  for (int64_t i = 0; i < v.n * outputs * plane; i++) {
    int64_t image = i / (plane * outputs), o = i / plane % outputs, at = i % plane, yi = place(fused, image, outputs, o, plane, at);
    close_to(&y, yi, conv_expected(&v, image, o, at, yi), sqrt((double)terms));
  }
  if (fused && v.groups * v.cg > 1) same_with_rows_apart(&c, &y);
  done(&c, &y);
}

/* Winograd's points 0, 1, -1, 2, -2 left 118 dB where those that it has leave 124 (64 channels to 33). Errors behind a relu, by the definition in double. */
static void winograd_of(size_t images, size_t channels, size_t outputs, size_t groups) {
  enum { SIZE = 24, OUT = SIZE - 2 };
  const cml_kernels *k = cml_kernels_get();
  const size_t depth = channels / groups, each = outputs / groups, inputs = images * SIZE * SIZE * channels, weights = outputs * depth * 9, results = images * OUT * OUT * outputs;
  cml_conv v = {.batch = images, .channels = channels, .outputs = outputs, .groups = groups, .in = {1, SIZE, SIZE}, .out = {1, OUT, OUT}, .kernel = {1, 3, 3},
                .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .in_last = true, .out_last = true, .planar = true, .winograd = true};
  cml_conv_place_all(&v);
  assert_true(cml_conv_suits_winograd(k, &v));
  float *x = calloc(inputs + weights + results, 4), *w = x + inputs, *y = w + weights;
  for (size_t i = 0; i < inputs; i++) x[i] = fmaxf((float)(int32_t)rnd() * 0x1p-31f, 0);
  for (size_t i = 0; i < weights; i++) w[i] = (float)(int32_t)rnd() * 0x1p-31f;
  size_t packed = (cml_conv_packed_bytes(k, &v, false) + 63) & ~(size_t)63, scratch = (cml_conv_scratch(k, &v) + cml_conv_shared(k, &v, 1) + 127) & ~(size_t)63;
  char *room = aligned_alloc(64, packed + scratch);
  assert_non_null(room);
  cml_conv_pack(k, &v, &(cml_conv_source){.data = w, .group_stride = (int64_t)(each * depth * 9), .output_stride = (int64_t)depth * 9, .channel_stride = 9, .tap_stride = {9, 3, 1}}, false, room, NULL);
  cml_conv_run(&(cml_conv_call){.k = k, .v = &v, .weights = {room, false}, .after = {.activation = CML_UNARY_COPY}, .x = x, .y = y, .scratch = room + packed, .slots = 1});
  double power = 0, error = 0;
  for (size_t i = 0; i < results; i++) {
    size_t o = i % outputs, at = i / outputs % (OUT * OUT), image = i / (outputs * OUT * OUT);
    double want = 0;
    for (size_t c = 0; c < depth; c++)
      for (size_t t = 0; t < 9; t++)
        want += (double)x[((image * SIZE + at / OUT + t / 3) * SIZE + at % OUT + t % 3) * channels + o / each * depth + c] * (double)w[(o * depth + c) * 9 + t];
    double off = (double)y[i] - want;
    power += want * want, error += off * off;
  }
  free(room), free(x);
  if (!(error < 1e-12 * power)) fail_msg("%s: %zu images, %zu to %zu in %zu groups: %g dB, should be 120", k->name, images, channels, outputs, groups, 10 * log10(power / error));
}

static void winograd(void) {
  winograd_of(1, 64, 33, 1);
  winograd_of(3, 80, 80, 5);   /* several groups in a block of outputs, the last block in part */
  winograd_of(1, 51, 150, 3);  /* panels in part */
  winograd_of(2, 40, 180, 2);  /* several blocks in a group; more weights than tiles */
}
static void test_winograd(void **state) {
  (void)state;
  each_table(winograd);
}

static void convs(void) {
  for (int i = 0; i < 120; i++) one_conv(false, i % 2);
}
static void transposed_convs(void) {
  for (int i = 0; i < 120; i++) one_conv(true, i % 2);
}
static void test_conv(void **state) {
  (void)state;
  each_table(convs);
}
static void test_conv_transpose(void **state) {
  (void)state;
  each_table(transposed_convs);
}

/* ---- matmul and linear ---- */

static void one_matmul(void) {
  int64_t m = between(1, rnd() % 3 ? 150 : 5), n = rnd() % 5 ? between(1, 90) : 1, k = between(1, rnd() % 2 ? 600 : 20), a = between(1, 3), b = between(1, 3);
  bool tx = rnd() % 2, ty = rnd() % 2, a1 = rnd() % 3 == 0, b1 = rnd() % 3 == 0;
  cml_dtype type = rnd() % 2 ? CML_F32 : CML_F16;
  int64_t x_dims[4] = {a, b1 ? 1 : b, tx ? k : m, tx ? m : k}, y_dims[4] = {a1 ? 1 : a, b, ty ? n : k, ty ? k : n};
  call c = start("matmul", CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", type, 4, x_dims), *y = add_floats(&c, "y", type, 4, y_dims), out;
  add_bool(&c, "transpose_x", tx);
  add_bool(&c, "transpose_y", ty);
  evaluate(&c, &out);
  assert_int_equal(out.rank, 4);
  assert_int_equal(cml_tensor_count(&out), a * b * m * n);
  for (int64_t s = 0; s < 400; s++) {
    int64_t i = between(0, cml_tensor_count(&out) - 1), col = i % n, row = i / n % m, bi = i / (n * m) % b, ai = i / (n * m * b);
    double sum = 0;
    for (int64_t d = 0; d < k; d++) {
      int64_t xi = (ai * x_dims[1] + (b1 ? 0 : bi)) * m * k + (tx ? d * m + row : row * k + d);
      int64_t yi = ((a1 ? 0 : ai) * b + bi) * n * k + (ty ? col * k + d : d * n + col);
      sum += cml_tensor_get(x, xi) * cml_tensor_get(y, yi);
    }
    close_to(&out, i, sum, sqrt((double)k));
  }
  done(&c, &out);
}

static void one_linear(void) {
  const bool apart = rnd() % 4 == 0; /* by 2 KiB, rows share the cache's sets */
  int64_t m = between(1, 60), n = apart ? 512 * between(1, 2) : between(1, 700), k = apart ? 256 * between(1, 2) + between(0, 1) : between(1, 300);
  int64_t x_dims[2] = {m, k}, w_dims[2] = {n, k};
  cml_dtype type = rnd() % 2 ? CML_F32 : CML_F16, weight_type = rnd() % 2 ? CML_F32 : CML_F16;
  call c = start("linear", CML_IOS17);
  cml_tensor *x = add_floats(&c, "x", type, 2, x_dims), *w = add_floats(&c, "weight", weight_type, 2, w_dims), *bias = NULL, out;
  if (rnd() % 2) bias = add_floats(&c, "bias", weight_type, 1, &n);
  evaluate(&c, &out);
  for (int64_t s = 0; s < 300; s++) {
    int64_t i = between(0, m * n - 1);
    double sum = bias ? cml_tensor_get(bias, i % n) : 0;
    for (int64_t d = 0; d < k; d++) sum += cml_tensor_get(x, i / n * k + d) * cml_tensor_get(w, i % n * k + d);
    close_to(&out, i, sum, sqrt((double)k));
  }
  done(&c, &out);
}

static void products(void) {
  for (int i = 0; i < 30; i++) one_matmul(), one_linear();
}
static void test_products(void **state) {
  (void)state;
  each_table(products);
}

/* ---- attention ---- */

static void one_attention(void) {
  int64_t b = between(1, 2), h = between(1, 3), l = between(1, 70), s = between(1, rnd() % 2 ? 600 : 20), e = between(1, 40), ev = between(1, 40);
  int64_t q_dims[4] = {b, h, l, e}, k_dims[4] = {b, h, s, e}, v_dims[4] = {b, h, s, ev}, m_dims[4] = {rnd() % 2 ? b : 1, rnd() % 2 ? h : 1, rnd() % 2 ? l : 1, s};
  cml_dtype type = rnd() % 2 ? CML_F32 : CML_F16;
  call c = start("scaled_dot_product_attention", CML_IOS18);
  cml_tensor *q = add_floats(&c, "query", type, 4, q_dims), *k = add_floats(&c, "key", type, 4, k_dims), *v = add_floats(&c, "value", type, 4, v_dims);
  cml_tensor *mask = NULL, out;
  int masked = (int)between(0, 2);
  if (masked) mask = add_floats(&c, "attn_mask", masked == 1 ? type : CML_BOOL, 4, m_dims);
  if (masked == 2)
    for (int64_t i = 0; i < cml_tensor_count(mask); i++) ((uint8_t *)mask->data)[i] = i % s == 0 || rnd() % 2;
  evaluate(&c, &out);
  static double scores[1000];
  for (int64_t row = 0; row < b * h * l; row++) {
    int64_t bi = row / (h * l), hi = row / l % h, li = row % l;
    double top = -INFINITY, total = 0;
    for (int64_t j = 0; j < s; j++) {
      scores[j] = 0;
      for (int64_t d = 0; d < e; d++) scores[j] += cml_tensor_get(q, row * e + d) * cml_tensor_get(k, ((bi * h + hi) * s + j) * e + d);
      scores[j] /= sqrt((double)e);
      if (mask) {
        int64_t mi = (((m_dims[0] == 1 ? 0 : bi) * m_dims[1] + (m_dims[1] == 1 ? 0 : hi)) * m_dims[2] + (m_dims[2] == 1 ? 0 : li)) * s + j;
        if (masked == 2) scores[j] = ((uint8_t *)mask->data)[mi] ? scores[j] : -INFINITY;
        else scores[j] += cml_tensor_get(mask, mi);
      }
      top = fmax(top, scores[j]);
    }
    for (int64_t j = 0; j < s; j++) total += scores[j] = exp(scores[j] - top);
    for (int64_t d = 0; d < ev; d++) {
      double sum = 0;
      for (int64_t j = 0; j < s; j++) sum += scores[j] / total * cml_tensor_get(v, ((bi * h + hi) * s + j) * ev + d);
      close_to(&out, row * ev + d, sum, 1);
    }
  }
  done(&c, &out);
}

static void attentions(void) {
  for (int i = 0; i < 25; i++) one_attention();
}
static void test_attention(void **state) {
  (void)state;
  each_table(attentions);
}

/* ---- pools ---- */

static void one_pool(int kind) {
  static const char *const names[] = {"max_pool", "avg_pool", "l2_pool", "cml_max_pool_last", "cml_avg_pool_last"};
  bool last = kind > 2;
  kind %= 3;
  int32_t dims = (int32_t)between(1, kind == 2 ? 2 : 3);
  int64_t n = between(1, 2), channels = between(1, last || rnd() % 4 == 0 ? 90 : 20), x_dims[5] = {n, channels}, kernel[3] = {0}, stride[3] = {0}, pad[6] = {0}, o3[3], k3[3] = {1, 1, 1}, s3[3] = {1, 1, 1}, b3[3] = {0}, a3[3] = {0}, i3[3] = {1, 1, 1};
  for (int i = 0; i < dims; i++) {
    int at = i + 3 - dims;
    kernel[i] = k3[at] = between(1, 4), stride[i] = s3[at] = between(1, 3);
    pad[2 * i] = b3[at] = between(0, kernel[i] / 2), pad[2 * i + 1] = a3[at] = between(0, kernel[i] / 2);
    x_dims[i + (last ? 1 : 2)] = i3[at] = kernel[i] + between(0, (i && i < dims - 1) || rnd() % 2 ? 12 : 70);
  }
  if (last) x_dims[dims + 1] = channels;
  call c = start(names[kind + (last ? 3 : 0)], CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, dims + 2, x_dims), y;
  bool exclude = rnd() % 2;
  add_ints(&c, "kernel_sizes", dims, kernel);
  add_ints(&c, "strides", dims, stride);
  add_text(&c, "pad_type", "custom");
  add_ints(&c, "pad", 2 * dims, pad);
  if (kind == 1) add_bool(&c, "exclude_padding_from_average", exclude);
  evaluate(&c, &y);
  for (int i = 0; i < 3; i++) o3[i] = i < 3 - dims ? 1 : y.dims[i - (3 - dims) + (last ? 1 : 2)];
  int64_t plane = o3[0] * o3[1] * o3[2], in_plane = i3[0] * i3[1] * i3[2];
  assert_int_equal(cml_tensor_count(&y), n * channels * plane);
  for (int64_t i = 0; i < cml_tensor_count(&y); i++) {
    int64_t image = i / plane / channels, channel = i / plane % channels;
    int64_t p[3] = {i % plane / (o3[1] * o3[2]), i % plane / o3[2] % o3[1], i % plane % o3[2]}, inside = 0, all = k3[0] * k3[1] * k3[2];
    double sum = kind ? 0 : -INFINITY;
    for (int64_t t = 0; t < all; t++) {
      int64_t q[3] = {p[0] * s3[0] - b3[0] + t / (k3[1] * k3[2]), p[1] * s3[1] - b3[1] + t / k3[2] % k3[1], p[2] * s3[2] - b3[2] + t % k3[2]};
      if (q[0] < 0 || q[1] < 0 || q[2] < 0 || q[0] >= i3[0] || q[1] >= i3[1] || q[2] >= i3[2]) continue;
      double v = cml_tensor_get(x, place(last, image, channels, channel, in_plane, (q[0] * i3[1] + q[1]) * i3[2] + q[2]));
      inside++;
      sum = kind == 0 ? fmax(sum, v) : kind == 1 ? sum + v : sum + v * v;
    }
    close_to(&y, place(last, image, channels, channel, plane, i % plane), kind == 0 ? sum : kind == 1 ? sum / (double)(exclude ? inside : all) : sqrt(sum), 1);
  }
  done(&c, &y);
}

static void pools(void) {
  for (int i = 0; i < 100; i++) one_pool(i % 5);
}
static void test_pools(void **state) {
  (void)state;
  each_table(pools);
}

/* A maximum with a NaN in its window is NaN wherever it stands, as in torch. */
static void nan_pool(void) {
  for (int64_t at = 0; at < 6; at++) {
    call c = start("cml_max_pool_last", CML_IOS15);
    cml_tensor *x = add_floats(&c, "x", CML_F32, 4, (int64_t[]){1, 2, 3, 33}), y;
    cml_tensor_set(x, at * 33 + 5, NAN);
    add_ints(&c, "kernel_sizes", 2, (int64_t[]){2, 3});
    evaluate(&c, &y);
    for (int64_t i = 0; i < 33; i++) assert_int_equal(isnan(cml_tensor_get(&y, i)), i == 5);
    done(&c, &y);
  }
}
static void test_nan_pool(void **state) {
  (void)state;
  each_table(nan_pool);
}

/* ---- sums over the pixels of an image with its channels last ---- */

static void one_mean(void) {
  int64_t h = between(1, 20), w = between(3, 40), channels = between(8, 300);
  bool mean = rnd() % 2, keep = rnd() % 2;
  call c = start(mean ? "reduce_mean" : "reduce_sum", CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, 4, (int64_t[]){1, h, w, channels}), y;
  add_ints(&c, "axes", 2, (int64_t[]){1, -2});
  add_bool(&c, "keep_dims", keep);
  evaluate(&c, &y);
  assert_int_equal(y.rank, keep ? 4 : 2);
  assert_int_equal(cml_tensor_count(&y), channels);
  for (int64_t i = 0; i < channels; i++) {
    double sum = 0;
    for (int64_t p = 0; p < h * w; p++) sum += cml_tensor_get(x, p * channels + i);
    close_to(&y, i, mean ? sum / (double)(h * w) : sum, mean ? 0.01 : sqrt((double)(h * w)));
  }
  done(&c, &y);
}
static void means(void) {
  for (int i = 0; i < 40; i++) one_mean();
}
static void test_means(void **state) {
  (void)state;
  each_table(means);
}

/* ---- folds of rows ---- */

static void one_fold(void) {
  static const char *const names[] = {"reduce_sum", "reduce_mean", "reduce_l1_norm", "reduce_l2_norm", "reduce_sum_square", "reduce_max", "reduce_min"};
  int kind = (int)(rnd() % 7);
  int64_t rows = between(1, 40), n = between(1, rnd() % 3 ? 40 : 1100), axis = -1;
  call c = start(names[kind], CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, 3, (int64_t[]){rows, 2, n}), y;
  int64_t nan = rnd() % 4 ? -1 : between(0, rows * 2 * n - 1);
  if (nan >= 0) cml_tensor_set(x, nan, NAN);
  add_ints(&c, "axes", 1, &axis);
  evaluate(&c, &y);
  assert_int_equal(cml_tensor_count(&y), rows * 2);
  for (int64_t r = 0; r < rows * 2; r++) {
    double sum = kind == 5 ? -INFINITY : kind == 6 ? INFINITY : 0;
    for (int64_t i = 0; i < n; i++) {
      double v = cml_tensor_get(x, r * n + i);
      if (kind < 2) sum += v;
      else if (kind == 2) sum += fabs(v);
      else if (kind < 5) sum += v * v;
      else sum = kind == 5 ? fmax(sum, v) : fmin(sum, v);
    }
    if (nan >= 0 && nan / n == r) assert_true(isnan(cml_tensor_get(&y, r)));
    else close_to(&y, r, kind == 1 ? sum / (double)n : kind == 3 ? sqrt(sum) : sum, kind == 1 || kind > 4 ? 0.1 : sqrt((double)n));
  }
  done(&c, &y);
}
/* Columns of a matrix, often short ones, in a batch; two axes now and then. */
static void one_column_fold(void) {
  static const char *const names[] = {"reduce_sum", "reduce_mean", "reduce_l1_norm", "reduce_sum_square", "reduce_prod", "reduce_max", "reduce_min", "reduce_log_sum_exp"};
  int kind = (int)(rnd() % 8);
  int64_t batch = between(1, 3), rows = between(1, 300), middle = between(1, 3), n = between(1, rnd() % 3 ? 9 : 300);
  bool two = rnd() % 3 == 0; /* rows of both dims are folded, else those of the second alone */
  call c = start(names[kind], CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", kind != 4 && rnd() % 2 ? CML_F16 : CML_F32, 4, (int64_t[]){middle, batch, rows, n}), y;
  int64_t outer = two ? 1 : middle, nan = rnd() % 4 ? -1 : between(0, middle * batch * rows * n - 1);
  if (nan >= 0) cml_tensor_set(x, nan, NAN);
  add_ints(&c, "axes", two ? 2 : 1, two ? (int64_t[]){0, 2} : (int64_t[]){2});
  evaluate(&c, &y);
  assert_int_equal(cml_tensor_count(&y), outer * batch * n);
  for (int64_t o = 0; o < outer * batch * n; o++) {
    double sum = kind == 4 ? 1 : kind == 5 ? -INFINITY : kind == 6 ? INFINITY : 0, count = (double)(rows * (two ? middle : 1));
    for (int64_t m = 0; m < (two ? middle : 1); m++)
      for (int64_t r = 0; r < rows; r++) {
        double v = cml_tensor_get(x, (((two ? m : o / n / batch) * batch + o / n % batch) * rows + r) * n + o % n);
        if (isnan(v)) sum = NAN;
        else if (isnan(sum)) continue;
        else if (kind < 2) sum += v;
        else if (kind == 7) sum += exp(v);
        else if (kind == 2) sum += fabs(v);
        else if (kind == 3) sum += v * v;
        else sum = kind == 4 ? sum * v : kind == 5 ? fmax(sum, v) : fmin(sum, v);
      }
    if (isnan(sum)) assert_true(isnan(cml_tensor_get(&y, o)));
    else close_to(&y, o, kind == 1 ? sum / count : kind == 7 ? log(sum) : sum, kind == 1 || kind > 3 ? 0.1 : sqrt(count));
  }
  done(&c, &y);
}
/* Any axes of four. */
static void one_axes_fold(void) {
  static const char *const names[] = {"reduce_sum", "reduce_mean", "reduce_l1_norm", "reduce_l2_norm", "reduce_sum_square", "reduce_max", "reduce_min", "reduce_log_sum_exp"};
  int kind = (int)(rnd() % 8);
  uint32_t set = (uint32_t)between(1, 15);
  int64_t dims[4], axes[4], last = rnd() % 2 ? 9 : 140;
  for (int i = 0; i < 4; i++) dims[i] = between(1, i == 3 ? last : 12);
  if (rnd() % 3 == 0) set = 4, dims[0] = between(100, 300); /* many small blocks */
  size_t count = 0;
  call c = start(names[kind], CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F16 : CML_F32, 4, dims), y;
  int64_t total = cml_tensor_count(x), outputs = 1;
  for (int i = 0; i < 4; i++) {
    if (set >> i & 1) axes[count++] = i;
    else outputs *= dims[i];
  }
  int64_t nan = rnd() % 4 ? -1 : between(0, total - 1);
  if (nan >= 0) cml_tensor_set(x, nan, NAN);
  add_ints(&c, "axes", (int64_t)count, axes);
  evaluate(&c, &y);
  assert_int_equal(cml_tensor_count(&y), outputs);
  double *want = calloc((size_t)outputs, sizeof *want), n = (double)(total / outputs);
  assert_non_null(want);
  for (int64_t o = 0; o < outputs && (kind == 5 || kind == 6); o++) want[o] = kind == 5 ? -INFINITY : INFINITY;
  for (int64_t e = 0; e < total; e++) {
    int64_t o = 0, at = e, stride = total;
    for (int i = 0; i < 4; i++) {
      stride /= dims[i];
      if (!(set >> i & 1)) o = o * dims[i] + at / stride;
      at %= stride;
    }
    double v = cml_tensor_get(x, e), w = want[o];
    if (isnan(v) || isnan(w)) want[o] = NAN;
    else if (kind < 5) want[o] += kind < 2 ? v : kind == 2 ? fabs(v) : v * v;
    else want[o] = kind == 5 ? fmax(w, v) : kind == 6 ? fmin(w, v) : w + exp(v);
  }
  for (int64_t o = 0; o < outputs; o++) {
    double w = kind == 1 ? want[o] / n : kind == 3 ? sqrt(want[o]) : kind == 7 ? log(want[o]) : want[o];
    if (isnan(w)) assert_true(isnan(cml_tensor_get(&y, o)));
    else close_to(&y, o, w, kind == 1 || kind > 4 ? 0.1 : sqrt(n));
  }
  free(want);
  done(&c, &y);
}
/* The place of the greatest or least along any axis of three: the first of equals, the first NaN. */
static void one_place(void) {
  int64_t dims[3] = {between(1, 300), between(1, rnd() % 2 ? 9 : 60), between(1, rnd() % 2 ? 9 : 70)}, axis = between(0, 2), inner = 1, n = dims[axis];
  bool lowest = rnd() % 2, coarse = rnd() % 2, nan = rnd() % 4 == 0;
  call c = start(lowest ? "reduce_argmin" : "reduce_argmax", CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, 3, dims), y;
  int64_t total = cml_tensor_count(x);
  for (int64_t i = 0; i < total && (coarse || nan); i++) {
    if (coarse) cml_tensor_set(x, i, (double)between(-5, 5));
    if (nan && rnd() % 50 == 0) cml_tensor_set(x, i, NAN);
  }
  add_ints(&c, "axis", -1, &axis);
  evaluate(&c, &y);
  for (int64_t i = axis + 1; i < 3; i++) inner *= dims[i];
  assert_int_equal(cml_tensor_count(&y), total / n);
  for (int64_t o = 0; o < total / n; o++) {
    int64_t best = 0;
    for (int64_t k = 1; k < n; k++) {
      double v = cml_tensor_get(x, (o / inner * n + k) * inner + o % inner), b = cml_tensor_get(x, (o / inner * n + best) * inner + o % inner);
      if (!isnan(b) && (isnan(v) || (lowest ? v < b : v > b))) best = k;
    }
    assert_int_equal(cml_tensor_get_int(&y, o), best);
  }
  done(&c, &y);
}
/* Normalised along one axis of three, or two that are not neighbours, with a large mean. */
static void one_layer_norm(void) {
  int64_t dims[3] = {between(1, 5), between(2, 60), between(2, rnd() % 2 ? 9 : 300)}, axes[2] = {rnd() % 3 ? 1 : 0, 2};
  int64_t count = axes[0] == 0 && rnd() % 2 ? 2 : 1, shape[2] = {dims[axes[0]], dims[2]}, wide = count == 2 ? dims[2] : 1;
  call c = start("layer_norm", CML_IOS15);
  cml_dtype dtype = rnd() % 2 ? CML_F32 : CML_F16;
  cml_tensor *x = add_floats(&c, "x", dtype, 3, dims), y;
  double mean = dtype == CML_F32 && rnd() % 2 ? 100 : 0;
  int64_t total = cml_tensor_count(x), n = shape[0] * wide;
  for (int64_t i = 0; i < total; i++) cml_tensor_set(x, i, cml_tensor_get(x, i) + mean);
  add_ints(&c, "axes", count, axes);
  const bool affine = rnd() % 2;
  cml_tensor *gamma = affine ? add_floats(&c, "gamma", dtype, (int32_t)count, shape) : NULL, *beta = affine ? add_floats(&c, "beta", dtype, (int32_t)count, shape) : NULL;
  evaluate(&c, &y);
  int64_t inner = axes[0] ? dims[2] : dims[1] * dims[2], columns = total / n, step = count == 2 ? 1 : 0;
  for (int64_t o = 0; o < columns; o++) {
    /* the first element of this group: a column, or a row of the middle dim in all images */
    int64_t base = count == 2 ? o * dims[2] : o / inner * n * inner + o % inner;
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += cml_tensor_get(x, base + i / wide * inner + i % wide * step);
    for (int64_t i = 0; i < n; i++) squares += pow(cml_tensor_get(x, base + i / wide * inner + i % wide * step) - sum / (double)n, 2);
    double scale = 1 / sqrt(squares / (double)n + 1e-5);
    for (int64_t i = 0; i < n; i++) {
      int64_t at = base + i / wide * inner + i % wide * step;
      double v = (cml_tensor_get(x, at) - sum / (double)n) * scale, g = affine ? cml_tensor_get(gamma, i) : 1;
      close_to(&y, at, v * g + (affine ? cml_tensor_get(beta, i) : 0), 1 + fabs(v * g) + (mean + 1) * scale);
    }
  }
  done(&c, &y);
}
/* Squares and cubes, which are products. */
static void one_power(void) {
  int64_t dims[2] = {between(1, 9), between(1, 700)}, k = between(0, 1) + 2;
  call c = start("pow", CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, 2, dims), y;
  cml_tensor_set(add(&c, "y", x->dtype, 0, NULL), 0, (double)k);
  evaluate(&c, &y);
  for (int64_t i = 0; i < cml_tensor_count(&y); i++) close_to(&y, i, pow(cml_tensor_get(x, i), (double)k), 0);
  done(&c, &y);
}

/* Slices of a few elements or many along any axis, by places that follow one another and others, in batches as well. */
static void one_gather(void) {
  int64_t dims[3] = {between(1, 9), between(1, 40), between(1, rnd() % 2 ? 3 : 70)}, batch = between(0, 1), axis = between((int)batch, 2), at[2] = {dims[0], between(1, 90)};
  call c = start("gather", CML_IOS16);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, 3, dims), y;
  cml_tensor *indices = add(&c, "indices", CML_I32, batch ? 2 : 1, batch ? at : at + 1);
  for (int64_t i = 0, v = 0; i < cml_tensor_count(indices); i++, v++) {
    if (!(rnd() % 4)) v = between(0, (int)dims[axis] - 1);
    cml_tensor_set_int(indices, i, rnd() % 5 ? v % dims[axis] : v % dims[axis] - dims[axis]);
  }
  add_ints(&c, "axis", -1, &axis);
  add_ints(&c, "batch_dims", -1, &batch);
  evaluate(&c, &y);
  int64_t mid = 1, inner = 1;
  for (int64_t i = batch; i < axis; i++) mid *= dims[i];
  for (int64_t i = axis + 1; i < 3; i++) inner *= dims[i];
  for (int64_t i = 0; i < cml_tensor_count(&y); i++) {
    int64_t k = i / inner % at[1], outer = i / inner / at[1], v = cml_tensor_get_int(indices, outer / mid * (batch ? at[1] : 0) + k);
    assert_true(cml_tensor_get(&y, i) == cml_tensor_get(x, (outer * dims[axis] + (v < 0 ? v + dims[axis] : v)) * inner + i % inner));
  }
  done(&c, &y);
}

/* Softmax along any axis of three: rows, and columns of which several short ones go together. */
static void one_softmax(void) {
  int64_t dims[3] = {between(1, 4), between(1, 200), between(1, rnd() % 3 ? 9 : 300)}, axis = between(0, 2), inner = 1;
  call c = start("softmax", CML_IOS15);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, 3, dims), y;
  add_ints(&c, "axis", -1, &axis);
  evaluate(&c, &y);
  for (int64_t i = axis + 1; i < 3; i++) inner *= dims[i];
  for (int64_t s = 0; s < 200; s++) {
    int64_t at = between(0, cml_tensor_count(&y) - 1), first = at - at / inner % dims[axis] * inner;
    double sum = 0;
    for (int64_t k = 0; k < dims[axis]; k++) sum += exp(cml_tensor_get(x, first + k * inner));
    close_to(&y, at, exp(cml_tensor_get(x, at)) / sum, 0.1);
  }
  done(&c, &y);
}
static void folds(void) {
  for (int i = 0; i < 150; i++) one_fold(), one_column_fold(), one_axes_fold(), one_place(), one_softmax(), one_layer_norm(), one_power(), one_gather();
}
static void test_folds(void **state) {
  (void)state;
  each_table(folds);
}

/* ---- the first of a line: many equal values, sometimes NaN, which come last ---- */

static bool comes_before(double a, double b, bool ascending) { return isnan(b) ? !isnan(a) : ascending ? a < b : a > b; }

static void one_topk(void) {
  int64_t rows = between(1, 9), n = between(1, 700), k = between(1, rnd() % 2 ? (n < 70 ? n : 70) : n / 9 + 1), axis = -1;
  bool ascending = rnd() % 2, coarse = rnd() % 2, nan = rnd() % 4 == 0;
  call c = start("topk", CML_IOS16);
  cml_tensor *x = add_floats(&c, "x", rnd() % 2 ? CML_F32 : CML_F16, 2, (int64_t[]){rows, n}), y[2];
  for (int64_t i = 0; i < rows * n && (coarse || nan); i++) {
    if (coarse) cml_tensor_set(x, i, (double)between(-5, 5));
    if (nan && rnd() % 100 == 0) cml_tensor_set(x, i, NAN);
  }
  add_ints(&c, "k", -1, &k);
  add_ints(&c, "axis", -1, &axis);
  add_bool(&c, "ascending", ascending);
  size_t args = 0;
  for (size_t p = 0; p < c.op->param_count; p++) {
    c.first[p] = (uint16_t)args;
    for (size_t i = 0; i < c.count; i++)
      if (!strcmp(c.names[i], c.op->params[p].name)) c.args[args++] = &c.tensors[i];
  }
  c.first[c.op->param_count] = (uint16_t)args;
  assert_ok(cml_op_eval(c.op, c.opset, c.args, c.first, y, 2, err));
  bool *taken = calloc((size_t)n, 1);
  assert_non_null(taken);
  for (int64_t r = 0; r < rows; r++) {
    memset(taken, 0, (size_t)n);
    for (int64_t i = 0; i < k; i++) {
      int64_t best = -1;
      for (int64_t e = 0; e < n; e++)
        if (!taken[e] && (best < 0 || comes_before(cml_tensor_get(x, r * n + e), cml_tensor_get(x, r * n + best), ascending))) best = e;
      taken[best] = true;
      double want = cml_tensor_get(x, r * n + best), got = cml_tensor_get(&y[0], r * k + i);
      assert_int_equal(cml_tensor_get_int(&y[1], r * k + i), best);
      assert_true(isnan(want) ? isnan(got) : got == want);
    }
  }
  free(taken);
  for (size_t i = 0; i < c.count; i++) free(c.tensors[i].data);
  cml_eval_free(y, 2);
}
static void topks(void) {
  for (int i = 0; i < 60; i++) one_topk();
}
static void test_topk(void **state) {
  (void)state;
  each_table(topks);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_conv),      cmocka_unit_test(test_conv_transpose), cmocka_unit_test(test_winograd), cmocka_unit_test(test_products),
      cmocka_unit_test(test_attention), cmocka_unit_test(test_pools),          cmocka_unit_test(test_nan_pool),
      cmocka_unit_test(test_means),     cmocka_unit_test(test_folds),          cmocka_unit_test(test_topk),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
