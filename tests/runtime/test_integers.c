/* Products of bytes and what follows them, against whole numbers and double precision: the drivers over every table of kernels, random
 * shapes, buffers that end at an unmapped page; then programs with quantised activations in .mil text, whose bytes the pass `integers` must
 * give as exact arithmetic does. Where an exact value lies so near a tie that rounding decides, either byte is right. */
#include "test.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "buffer.h"
#include "exec_graph.h"
#include "executable.h"
#include "guarded.h"
#include "integer.h"
#include "passes.h"
#include "program_text.h"
#include "random_numbers.h"

/* A byte for an exact v (in units of the byte's scale); false: it is neither of those that are right. slack: how far v may be off. */
static bool byte_is_right(double v, int zero, double low, double high, int got, double slack) {
  double a = fmin(fmax(v - slack, low), high), b = fmin(fmax(v + slack, low), high);
  return got == (int)fmin(fmax(nearbyint(a) + zero, 0), 255) || got == (int)fmin(fmax(nearbyint(b) + zero, 0), 255);
}

/* ---- the drivers ---- */

typedef struct drawn {
  cml_conv v;
  uint8_t *x, *residual;
  int8_t *w;
  int32_t start[512], sums[512];
  float scale[512], bias[512];
  cml_integer_tile after;
  int zero;
  const uint8_t *table; /* NULL, or one that turns bytes around */
} drawn;

static int64_t out_size(int64_t in, int64_t before, int64_t after, int64_t kernel, int64_t stride, int64_t dilation) {
  int64_t span = (kernel - 1) * dilation + 1;
  return in + before + after < span ? 0 : (in + before + after - span) / stride + 1;
}

static bool draw(drawn *d, bool depthwise, bool extreme) {
  cml_conv *v = &d->v;
  static const int64_t kernels[] = {1, 1, 1, 3, 3, 2, 5};
  *v = (cml_conv){.batch = (size_t)between(1, 2), .groups = rnd() % 4 ? 1 : (size_t)between(2, 3), .in = {1, between(1, 12), between(1, 40)}, .kernel = {1, 1, 1},
                  .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .out = {1, 1, 1}, .in_last = true, .out_last = true, .planar = true};
  v->channels = v->groups > 1 ? v->groups * (size_t)between(1, 5) * 4 : rnd() % 2 ? (size_t)between(1, 70) : (size_t)between(1, 20) * 4;
  v->outputs = v->groups * (size_t)between(1, v->groups > 1 ? 40 : 90);
  int64_t kernel = kernels[rnd() % 7];
  if (depthwise) v->channels = v->outputs = v->groups = (size_t)between(2, rnd() % 2 ? 150 : 20), kernel = between(2, 9);
  for (int i = 1; i < 3; i++) {
    v->kernel[i] = kernel == 1 ? 1 : rnd() % 4 ? kernel : between(1, 4);
    v->stride[i] = rnd() % 3 ? 1 : 2;
    v->dilation[i] = rnd() % 5 ? 1 : 2;
    int64_t before = kernel == 1 ? 0 : between(0, v->kernel[i]), after = kernel == 1 ? 0 : between(0, v->kernel[i]);
    v->offset[i] = -before;
    v->out[i] = out_size(v->in[i], before, after, v->kernel[i], v->stride[i], v->dilation[i]);
    if (v->out[i] < 1) return false;
  }
  cml_conv_place_all(v);
  size_t image = (size_t)(v->in[1] * v->in[2]) * v->channels, taps = (size_t)(v->kernel[1] * v->kernel[2]), pixels = v->batch * (size_t)(v->out[1] * v->out[2]);
  d->x = at_end(0, v->batch * image);
  d->w = at_end(1, v->outputs * v->channels / v->groups * taps);
  d->residual = at_end(2, pixels * v->outputs);
  for (size_t i = 0; i < v->batch * image; i++) d->x[i] = extreme ? 255 : (uint8_t)rnd();
  for (size_t i = 0; i < v->outputs * v->channels / v->groups * taps; i++) d->w[i] = extreme ? -128 : (int8_t)rnd();
  for (size_t i = 0; i < pixels * v->outputs; i++) d->residual[i] = (uint8_t)rnd();
  static uint8_t around[256];
  for (int i = 0; i < 256; i++) around[i] = (uint8_t)(255 - i);
  d->zero = (int)between(0, 255);
  double typical = 75 * 75 * sqrt((double)(v->channels / v->groups * taps));
  for (size_t o = 0; o < v->outputs; o++) d->scale[o] = (float)(60 / typical * (double)(1 + uniform() * 0.5f)), d->bias[o] = uniform() * 30;
  cml_integer_tile *t = &d->after;
  *t = (cml_integer_tile){.scale = d->scale, .bias = d->bias, .start = d->start, .f_scale = 1};
  t->to = (enum cml_integer_to)(rnd() % 3);
  t->f = rnd() % 4 ? CML_UNARY_COPY : CML_UNARY_ABS;
  t->zero = t->to == CML_TO_BYTE ? (int)between(0, 255) : 0;
  t->low = t->to == CML_TO_BYTE ? (float)-t->zero : -INFINITY, t->high = t->to == CML_TO_BYTE ? (float)(255 - t->zero) : INFINITY;
  d->table = t->to == CML_TO_BYTE && rnd() % 2 ? around : NULL;
  if (rnd() % 2) t->low = fmaxf(t->low, 0); /* relu */
  if (t->low > t->high) t->low = t->high;
  if (rnd() % 3 == 0) t->middle = true, t->middle_low = -100.0f, t->middle_high = 90.0f, t->middle_scale = 1.3f;
  if (rnd() % 3 == 0) t->residual = d->residual, t->residual_scale = 0.37f, t->residual_bias = -41.5f;
  return true;
}

static int64_t exact_sum(const drawn *d, size_t image, int64_t y, int64_t x, size_t o) {
  const cml_conv *v = &d->v;
  size_t channels = v->channels / v->groups, group = o / (v->outputs / v->groups);
  int64_t sum = 0;
  for (int64_t i = 0; i < v->kernel[1]; i++)
    for (int64_t j = 0; j < v->kernel[2]; j++) {
      int64_t h = y * v->stride[1] + v->offset[1] + i * v->dilation[1], w = x * v->stride[2] + v->offset[2] + j * v->dilation[2];
      if (h < 0 || w < 0 || h >= v->in[1] || w >= v->in[2]) continue; /* zero, whatever byte stands for it */
      const uint8_t *p = d->x + ((image * (size_t)v->in[1] + (size_t)h) * (size_t)v->in[2] + (size_t)w) * v->channels + group * channels;
      for (size_t c = 0; c < channels; c++)
        sum += ((int64_t)p[c] - d->zero) * d->w[((o * channels + c) * (size_t)v->kernel[1] + (size_t)i) * (size_t)v->kernel[2] + (size_t)j];
    }
  return sum;
}

/* Whether `at` of the output may be what is there. */
static bool right(const drawn *d, int64_t sum, size_t o, size_t at, const void *c) {
  const cml_integer_tile *t = &d->after;
  double v = (double)sum * (double)d->scale[o] + (double)d->bias[o], slack = 1e-6 * (fabs((double)sum * (double)d->scale[o]) + 100);
  double other = v, add = t->residual ? d->residual[at] * (double)t->residual_scale + (double)t->residual_bias : 0;
  if (t->middle) { /* near a tie two values may go on */
    double low = (double)t->middle_low, high = (double)t->middle_high;
    other = nearbyint(fmin(fmax(v + slack, low), high)) * (double)t->middle_scale;
    v = nearbyint(fmin(fmax(v - slack, low), high)) * (double)t->middle_scale;
    slack = 1e-4;
  }
  v += add, other += add;
  if (t->f == CML_UNARY_ABS) v = fabs(v), other = fabs(other);
  if (t->to == CML_TO_BYTE) {
    int got = ((const uint8_t *)c)[at];
    if (d->table) got = 255 - got;
    return byte_is_right(v, t->zero, (double)t->low, (double)t->high, got, slack) || byte_is_right(other, t->zero, (double)t->low, (double)t->high, got, slack);
  }
  double got = t->to == CML_TO_F16 ? (double)cml_f16_to_f32(((const cml_f16 *)c)[at]) : (double)((const float *)c)[at];
  if (t->to == CML_TO_F16) slack += fmax(fabs(v), fabs(other)) * 0x1p-11 + 1e-6;
  return fabs(got - fmax(v, (double)t->low)) <= slack || fabs(got - fmax(other, (double)t->low)) <= slack;
}

/* in_floats: the codes of the weights as floats. */
static const void *pack_weights(const cml_kernels *k, drawn *d, bool depthwise, bool in_floats) {
  const cml_conv *v = &d->v;
  size_t taps = (size_t)(v->kernel[1] * v->kernel[2]), n = v->outputs * v->channels / v->groups * taps;
  void *packed = at_end(3, in_floats ? cml_conv_packed_bytes(k, v, false) : depthwise ? cml_integer_depthwise_packed_bytes(k, v) : cml_integer_packed_bytes(k, v));
  if (in_floats) {
    float *w = at_end(5, n * 4);
    for (size_t i = 0; i < n; i++) w[i] = d->w[i];
    cml_conv_pack(k, v, &(cml_conv_source){.data = w, .group_stride = (int64_t)(n / v->groups), .output_stride = (int64_t)(n / v->outputs), .channel_stride = (int64_t)taps,
                                           .tap_stride = {(int64_t)taps, v->kernel[2], 1}}, false, packed, NULL);
  } else if (depthwise) {
    cml_integer_depthwise_pack(k, v, d->w, true, NULL, packed, d->sums);
  } else {
    cml_integer_pack(k, v, d->w, true, NULL, packed, d->sums, NULL);
  }
  return packed;
}

static void check_driver(const cml_kernels *k, drawn *d, bool depthwise, bool in_floats, cml_pool *pool) {
  const cml_conv *v = &d->v;
  static char scratch[4][1 << 20] __attribute__((aligned(64)));
  size_t pixels = v->batch * (size_t)(v->out[1] * v->out[2]), size = d->after.to == CML_TO_BYTE ? 1 : d->after.to == CML_TO_F16 ? 2 : 4;
  assert_true(depthwise ? cml_integer_depthwise_fits(v) : cml_integer_fits(v));
  void *c = at_end(4, pixels * v->outputs * size);
  size_t need = depthwise ? cml_integer_depthwise_scratch(k, v, in_floats) : in_floats ? cml_integer_floats_scratch(k, v) : cml_integer_scratch(k, v);
  assert_true(need <= sizeof scratch[0]);
  const void *packed = pack_weights(k, d, depthwise, in_floats);
  for (size_t o = 0; o < v->outputs; o++) d->start[o] = (int32_t)(0 - (uint32_t)d->zero * (uint32_t)d->sums[o]);
  cml_integer_call call = {.k = k, .v = v, .packed = packed, .after = d->after, .table = d->table, .x = d->x, .x_zero = (uint8_t)d->zero, .pool = pool, .scratch = scratch,
                           .slots = cml_pool_threads(pool)};
  call.after.c = c;
  if (d->after.f != CML_UNARY_COPY) call.after.unary_rows = k->unary_rows;
  if (depthwise) cml_integer_depthwise_run(&call, in_floats);
  else if (in_floats) cml_integer_floats_run(&call);
  else cml_integer_run(&call);
  for (size_t p = 0; p < pixels; p++) {
    int64_t y = (int64_t)p / v->out[2] % v->out[1], x = (int64_t)p % v->out[2];
    for (size_t o = 0; o < v->outputs; o++)
      if (!right(d, exact_sum(d, p / (size_t)(v->out[1] * v->out[2]), y, x, o), o, p * v->outputs + o, c))
        fail_msg("%s: %zu of %zu channels to %zu in %zu groups, kernel %lld x %lld%s: pixel %zu, output %zu", k->name, pixels, v->channels, v->outputs, v->groups,
                 (long long)v->kernel[1], (long long)v->kernel[2], in_floats ? ", weights of floats" : "", p, o);
  }
}

static void test_drivers(void **state) {
  (void)state;
  const cml_kernels *k;
  cml_pool *pool;
  static drawn d;
  assert_ok(cml_pool_create(2, &pool, err));
  for (int round = 0; round < 1600; round++) {
    bool depthwise = round % 2;
    if (!draw(&d, depthwise, round % 20 < 2)) continue;
    for (size_t i = 0; (k = cml_kernels_at(i)); i++)
      for (int in_floats = 0; in_floats < 2; in_floats++) check_driver(k, &d, depthwise, in_floats, round % 3 ? NULL : pool);
  }
  cml_pool_destroy(pool);
}

/* Sums that fill 32 bits: as deep as cml_integer_fits allows, nothing saturates. */
static void test_depth(void **state) {
  (void)state;
  const cml_kernels *k;
  cml_conv v = {.batch = 1, .groups = 1, .channels = 65532, .outputs = 2, .in = {1, 1, 1}, .out = {1, 1, 1}, .kernel = {1, 1, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}};
  cml_conv_place_all(&v);
  uint8_t *x = at_end(0, v.channels);
  int8_t *w = at_end(1, v.channels * 2);
  memset(x, 255, v.channels);
  memset(w, -128, v.channels);
  memset(w + v.channels, 127, v.channels);
  assert_true(cml_integer_fits(&v));
  for (size_t i = 0; (k = cml_kernels_at(i)); i++) {
    int8_t *packed = at_end(3, cml_integer_packed_bytes(k, &v));
    static size_t scratch[1024];
    int32_t sums[2], start[2] = {0};
    float one[2] = {1, 1}, zero[2] = {0}, *y = at_end(4, 8);
    assert_true(cml_integer_scratch(k, &v) <= sizeof scratch);
    cml_integer_pack(k, &v, w, true, NULL, packed, sums, NULL);
    assert_int_equal(sums[0], -128 * 65532);
    cml_integer_call call = {.k = k, .v = &v, .packed = packed, .x = x, .scratch = scratch, .slots = 1,
                             .after = {.scale = one, .bias = zero, .start = start, .low = -INFINITY, .high = INFINITY, .to = CML_TO_F32, .c = y}};
    cml_integer_run(&call);
    assert_true(y[0] == (float)(255.0 * -128 * 65532) && y[1] == (float)(255.0 * 127 * 65532));
  }
  v.channels = 1 << 16;
  assert_false(cml_integer_fits(&v));
}

/* ---- kernels of one element ---- */

static void test_elements(void **state) {
  (void)state;
  const cml_kernels *k;
  for (int round = 0; round < 200; round++) {
    size_t n = (size_t)between(1, 200);
    float scale = 0.01f + fabsf(uniform()), scale2 = 0.1f + fabsf(uniform());
    int zero = (int)between(0, 255);
    float *x = at_end(0, n * 4), *back = at_end(5, n * 4);
    cml_f16 *half = at_end(1, n * 2);
    uint8_t *y = at_end(2, n), *a = at_end(3, n), *b = at_end(4, n);
    for (size_t i = 0; i < n; i++) x[i] = uniform() * 300 * scale, half[i] = cml_f16_from_f32(x[i]), a[i] = (uint8_t)rnd(), b[i] = (uint8_t)rnd();
    x[rnd() % n] = NAN, x[rnd() % n] = INFINITY, x[rnd() % n] = -INFINITY, x[rnd() % n] = 3.5f * scale, x[rnd() % n] = FLT_MAX;
    for (size_t t = 0; (k = cml_kernels_at(t)); t++) {
      k->quantize(x, false, n, scale, zero, 77, y);
      for (size_t i = 0; i < n; i++) /* one division, rounded as C does */
        assert_int_equal(y[i], isnan(x[i]) ? 77 : (int)fmin(fmax(nearbyint((double)(x[i] / scale)) + zero, 0), 255));
      k->quantize(half, true, n, scale, zero, 77, y);
      for (size_t i = 0; i < n; i++) assert_int_equal(y[i], (int)fmin(fmax(nearbyint((double)(cml_f16_to_f32(half[i]) / scale)) + zero, 0), 255));
      k->dequantize(a, n, scale, zero, back, false);
      for (size_t i = 0; i < n; i++) assert_true(back[i] == (float)(a[i] - zero) * scale);
      k->add_bytes(a, b, n, scale, scale2, -30.25f, -40, 90, 50, y);
      for (size_t i = 0; i < n; i++)
        assert_true(byte_is_right(a[i] * (double)scale + b[i] * (double)scale2 - 30.25, 50, -40, 90, y[i], 1e-4));
      const uint8_t *taps[] = {a, b, a};
      k->max_bytes((size_t)between(1, 3), taps, n, y);
      for (size_t i = 0; i < n; i++) assert_true(y[i] == a[i] || y[i] == (a[i] > b[i] ? a[i] : b[i]));
      k->max_bytes(2, taps, n, y);
      for (size_t i = 0; i < n; i++) assert_int_equal(y[i], a[i] > b[i] ? a[i] : b[i]);
      size_t rows = (size_t)between(1, 40), columns = (size_t)between(1, 40);
      uint8_t *from = at_end(0, rows * columns), *to = at_end(1, rows * columns);
      for (size_t i = 0; i < rows * columns; i++) from[i] = (uint8_t)rnd();
      k->transpose_8(rows, columns, from, columns, to, rows);
      for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) assert_int_equal(to[c * rows + r], from[r * columns + c]);
      for (size_t i = 0; i < n; i++) x[i] = uniform() * 300 * scale;
      for (size_t i = 0; i < n; i++) half[i] = cml_f16_from_f32(x[i]);
    }
  }
}

/* ---- programs ---- */

static const char *type, *code; /* fp32, fp16; int8, uint8 */

/* A value of a program, as exact arithmetic has it. */
typedef struct image {
  int64_t channels, height, width;
  double v[1 << 12];
} image;

static size_t image_count(const image *x) { return (size_t)(x->channels * x->height * x->width); }

/* Codes in brackets by dims. */
static const int *put_nested(const int *codes, const int64_t *dims, int rank) {
  if (!rank) return put("%d", *codes), codes + 1;
  put("[");
  for (int64_t i = 0; i < dims[0]; i++) {
    if (i) put(", ");
    codes = put_nested(codes, dims + 1, rank - 1);
  }
  put("]");
  return codes;
}

static void put_words(const char *name, const char *value) {
  put("tensor<string, []> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<string, []>(\"%s\")];\n", name, name, value);
}

static void put_ints(const char *name, const char *dims, const char *values) {
  put("tensor<int32, %s> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<int32, %s>(%s)];\n", dims, name, name, dims, values);
}

static bool near_tie; /* an exact value lay so near a tie that the program's bytes may go another way */

/* Adds quantize and dequantize (with `back` times the scale) of `from`; exact values follow. Scales have few bits: they are the same in
 * float16. */
static void quantize(const char *from, const char *to, image *x, double scale, int zero, double back, int64_t rank) {
  char dims[64];
  snprintf(dims, sizeof dims, rank == 2 ? "[%lld, %lld]" : "[1, %lld, %lld, %lld]", (long long)(rank == 2 ? x->height : x->channels),
           (long long)(rank == 2 ? x->channels : x->height), (long long)x->width);
  int lowest = !strcmp(code, "int8") ? -128 : 0;
  put("tensor<%s, []> %s_scale = const()[name = tensor<string, []>(\"%s_scale\"), val = tensor<%s, []>(%.9g)];\n", type, to, to, type, scale);
  put("tensor<%s, []> %s_back = const()[name = tensor<string, []>(\"%s_back\"), val = tensor<%s, []>(%.9g)];\n", type, to, to, type, back);
  put("tensor<%s, []> %s_zero = const()[name = tensor<string, []>(\"%s_zero\"), val = tensor<%s, []>(%d)];\n", code, to, to, code, zero);
  put("tensor<%s, %s> %s_codes = quantize(input = %s, output_dtype = code, scale = %s_scale, zero_point = %s_zero)[name = tensor<string, []>(\"%s_codes\")];\n", code,
      dims, to, from, to, to, to);
  put("tensor<%s, %s> %s = dequantize(input = %s_codes, scale = %s_back, zero_point = %s_zero)[name = tensor<string, []>(\"%s\")];\n", type, dims, to, to, to, to, to);
  for (size_t i = 0; i < image_count(x); i++) {
    double v = x->v[i] / scale, q = nearbyint(v);
    near_tie = near_tie || (fabs(fabs(v - floor(v)) - 0.5) < 2e-4 && v > lowest - zero - 1 && v < lowest + 256 - zero);
    x->v[i] = (fmin(fmax(q + zero, lowest), lowest + 255) - zero) * back;
  }
}

/* Weights of random codes with a scale for each output, and a bias. */
static void weights(const char *name, const int64_t *shape, int rank, int *codes, double *scale, double *bias, int zero) {
  int64_t outputs = shape[0], depth = shape[1];
  char dims[64];
  for (int i = 2; i < rank; i++) depth *= shape[i];
  snprintf(dims, sizeof dims, rank == 2 ? "[%lld, %lld]" : "[%lld, %lld, %lld, %lld]", (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3]);
  for (int64_t i = 0; i < outputs * depth; i++) codes[i] = (int)between(-127, 127) + zero;
  put("tensor<%s, %s> %s = constexpr_affine_dequantize()[axis = tensor<int32, []>(0), quantized_data = tensor<%s, %s>(", type, dims, name, zero ? "uint8" : "int8", dims);
  put_nested(codes, shape, rank);
  put("), scale = tensor<%s, [%lld]>([", type, (long long)outputs);
  for (int64_t o = 0; o < outputs; o++) scale[o] = (double)between(16, 63) / 65536, put("%s%.9g", o ? ", " : "", scale[o]);
  put("]), zero_point = tensor<%s, []>(%d), name = tensor<string, []>(\"%s\")];\n", zero ? "uint8" : "int8", zero, name);
  put("tensor<%s, [%lld]> %s_bias = const()[name = tensor<string, []>(\"%s_bias\"), val = tensor<%s, [%lld]>([", type, (long long)outputs, name, name, type, (long long)outputs);
  for (int64_t o = 0; o < outputs; o++) bias[o] = (double)between(-512, 512) / 1024, put("%s%.9g", o ? ", " : "", bias[o]);
  put("])];\n");
  for (int64_t i = 0; i < outputs * depth; i++) codes[i] -= zero;
}

static void convolve(image *x, int64_t outputs, int64_t kernel, int64_t pad, int64_t stride, const int *w, const double *scale, const double *bias) {
  static image y;
  y.channels = outputs, y.height = (x->height + 2 * pad - kernel) / stride + 1, y.width = (x->width + 2 * pad - kernel) / stride + 1;
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t h = 0; h < y.height; h++)
      for (int64_t c = 0; c < y.width; c++) {
        double sum = 0;
        for (int64_t i = 0; i < x->channels; i++)
          for (int64_t a = 0; a < kernel; a++)
            for (int64_t b = 0; b < kernel; b++) {
              int64_t r = h * stride + a - pad, s = c * stride + b - pad;
              if (r >= 0 && s >= 0 && r < x->height && s < x->width)
                sum += x->v[(i * x->height + r) * x->width + s] * w[((o * x->channels + i) * kernel + a) * kernel + b];
            }
        y.v[(o * y.height + h) * y.width + c] = sum * scale[o] + bias[o];
      }
  *x = y;
}

static void begin_program(const char *shape) {
  used = 0;
  near_tie = false;
  put("program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n  func main<ios17>(tensor<%s, %s> x) {\n", type, shape);
  put_words("code", code);
}

/* Runs the program and compares with the exact values; `operators`: what the pass must have made, how many of each. */
typedef struct wanted {
  const char *name;
  size_t count;
} wanted;

static void compare(const char *passes, const cml_tensor *x, const image *want, double slack, const wanted *operators) {
  cml_model *model = calloc(1, sizeof *model);
  cml_executable *e;
  cml_session *s;
  assert_ok(cml_mil_parse_text(cml_span_of(text, used), &model->arena, &model->program, err));
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.passes = passes, .threads = 2}, &e, err));
  for (; operators && operators->name; operators++) {
    size_t count = 0;
    for (size_t i = 0; i < e->graph.body.step_count; i++)
      count += !e->graph.body.steps[i].folded && !strcmp(e->graph.body.steps[i].op->name, operators->name);
    if (count != operators->count) fail_msg("%zu of %s, expected %zu (%s, %s)", count, operators->name, operators->count, type, code);
  }
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", x, err));
  assert_ok(cml_session_run(s, err));
  const cml_tensor *y = cml_session_output(s, 0);
  assert_int_equal(cml_tensor_count(y), image_count(want));
  for (size_t i = 0; i < image_count(want); i++)
    if (fabs(cml_tensor_get(y, (int64_t)i) - want->v[i]) > slack)
      fail_msg("%s, %s, %s, passes %s: element %zu is %g, should be %g", cml_kernels_get()->name, type, code, passes ? passes : "all", i, cml_tensor_get(y, (int64_t)i), want->v[i]);
  cml_session_destroy(s);
  cml_executable_unref(e);
  cml_arena_free(&model->arena);
  free(model);
}

static float input[4096];

/* A quarter beyond whole codes: no ties. */
static void draw_input(image *x, int64_t channels, int64_t height, int64_t width) {
  *x = (image){.channels = channels, .height = height, .width = width};
  for (size_t i = 0; i < image_count(x); i++) input[i] = (float)between(-127, 127) / 64 + 0x1p-8f, x->v[i] = (double)input[i];
}

/* An image through a convolution with relu, a pointwise one, a residual sum with relu, and a maximum; the last dequantize is the output. */
static void residual_block(void) {
  static image x, skip;
  static int w1[24 * 4 * 9], w2[24 * 24];
  static double scale[24], bias[24];
  int zero = !strcmp(code, "uint8") ? 120 : 3, relu_zero = !strcmp(code, "uint8") ? 0 : -128;
  do {
    begin_program("[1, 4, 9, 7]");
    draw_input(&x, 4, 9, 7);
    put_words("custom", "custom");
    put_words("valid", "valid");
    put_ints("pads", "[4]", "[1, 1, 1, 1]");
    put_ints("two", "[2]", "[2, 2]");
    put_ints("one", "[2]", "[1, 1]");
    put("tensor<bool, []> no = const()[name = tensor<string, []>(\"no\"), val = tensor<bool, []>(false)];\n");
    quantize("x", "q0", &x, 0.015625, zero, 0.015625, 4);
    weights("w1", (const int64_t[]){24, 4, 3, 3}, 4, w1, scale, bias, 0);
    put("tensor<%s, [1, 24, 9, 7]> c1 = conv(x = q0, weight = w1, bias = w1_bias, pad = pads, pad_type = custom, strides = one)[name = tensor<string, []>(\"c1\")];\n", type);
    put("tensor<%s, [1, 24, 9, 7]> r1 = relu(x = c1)[name = tensor<string, []>(\"r1\")];\n", type);
    convolve(&x, 24, 3, 1, 1, w1, scale, bias);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] = fmax(x.v[i], 0);
    quantize("r1", "q1", &x, 0.0113525390625, relu_zero, 0.0113525390625, 4);
    skip = x;
    weights("w2", (const int64_t[]){24, 24, 1, 1}, 4, w2, scale, bias, 128);
    put("tensor<%s, [1, 24, 9, 7]> c2 = conv(x = q1, weight = w2, bias = w2_bias, pad_type = valid, strides = one)[name = tensor<string, []>(\"c2\")];\n", type);
    convolve(&x, 24, 1, 0, 1, w2, scale, bias);
    quantize("c2", "q2", &x, 0.017333984375, zero, 0.0234375, 4); /* and back by another scale */
    put("tensor<%s, [1, 24, 9, 7]> sum = add(x = q2, y = q1)[name = tensor<string, []>(\"sum\")];\n", type);
    put("tensor<%s, [1, 24, 9, 7]> r2 = relu(x = sum)[name = tensor<string, []>(\"r2\")];\n", type);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] = fmax(x.v[i] + skip.v[i], 0);
    quantize("r2", "q3", &x, 0.0259552001953125, relu_zero, 0.0259552001953125, 4);
    put("tensor<%s, [1, 24, 4, 3]> pooled = max_pool(x = q3, kernel_sizes = two, strides = two, pad_type = valid, ceil_mode = no)[name = tensor<string, []>(\"pooled\")];\n", type);
    static image y;
    y = (image){.channels = 24, .height = 4, .width = 3};
    for (int64_t c = 0; c < 24; c++)
      for (int64_t h = 0; h < 4; h++)
        for (int64_t w = 0; w < 3; w++) {
          const double *from = x.v + (c * 9 + 2 * h) * 7 + 2 * w;
          y.v[(c * 4 + h) * 3 + w] = fmax(fmax(from[0], from[1]), fmax(from[7], from[8]));
        }
    x = y;
    quantize("pooled", "q4", &x, 0.031219482421875, relu_zero, 0.031219482421875, 4);
    put("  } -> (q4);\n}\n");
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 4, .dims = {1, 4, 9, 7}, .data = input};
  const wanted all[] = {{"cml_integer_conv", 2}, {"cml_integer_max_pool", 1}, {"cml_integer_map", 1}, {"cml_quantize", 1}, {"cml_dequantize", 1}, {"quantize", 0},
                        {"dequantize", 0},       {"add", 0},                  {NULL, 0}};
  double slack = 0.0312 / 4; /* a byte is either right or off by four times as much */
  compare(NULL, &in, &x, slack, all);
  if (!strcmp(type, "fp32")) compare("-integers", &in, &x, slack, NULL); /* in float16 sums are rounded in between */
}

/* Three quantizations behind a convolution, the first of which cuts values off; the third is that of a sum. No sum of its codes lies at a tie:
 * scales are 25, 27 and 213 of 8192 parts. */
static void quantized_thrice(void) {
  static image x, skip;
  static int w1[4 * 4];
  static double scale[4], bias[4];
  int zero = !strcmp(code, "uint8") ? 120 : 3, relu_zero = !strcmp(code, "uint8") ? 0 : -128;
  do {
    begin_program("[1, 4, 9, 7]");
    draw_input(&x, 4, 9, 7);
    put_words("valid", "valid");
    put_ints("one", "[2]", "[1, 1]");
    quantize("x", "q0", &x, 0.015625, zero, 0.015625, 4);
    skip = x;
    weights("w1", (const int64_t[]){4, 4, 1, 1}, 4, w1, scale, bias, 0);
    put("tensor<%s, [1, 4, 9, 7]> c1 = conv(x = q0, weight = w1, bias = w1_bias, pad_type = valid, strides = one)[name = tensor<string, []>(\"c1\")];\n", type);
    convolve(&x, 4, 1, 0, 1, w1, scale, bias);
    quantize("c1", "q1", &x, 25.0 / 8192, zero, 25.0 / 8192, 4);
    put("tensor<%s, [1, 4, 9, 7]> r1 = relu(x = q1)[name = tensor<string, []>(\"r1\")];\n", type);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] = fmax(x.v[i], 0);
    quantize("r1", "q2", &x, 27.0 / 8192, relu_zero, 27.0 / 8192, 4);
    put("tensor<%s, [1, 4, 9, 7]> sum = add(x = q2, y = q0)[name = tensor<string, []>(\"sum\")];\n", type);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] += skip.v[i];
    quantize("sum", "q3", &x, 213.0 / 8192, zero, 213.0 / 8192, 4);
    put("  } -> (q3);\n}\n");
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 4, .dims = {1, 4, 9, 7}, .data = input};
  const wanted all[] = {{"cml_integer_conv", 1}, {"cml_integer_add", 1}, {"quantize", 0}, {"dequantize", 0}, {"add", 0}, {NULL, 0}};
  compare(NULL, &in, &x, 213.0 / 8192 / 4, all);
  if (!strcmp(type, "fp32")) compare("-integers", &in, &x, 213.0 / 8192 / 4, NULL);
}

/* What is summed in floats: a depthwise convolution with codes, which quantizes twice, and a pointwise one with weights of floats. */
static void depthwise_block(void) {
  static image x, y;
  static int w1[24 * 9];
  static double scale[24], bias[24];
  static float w2[8 * 24];
  int zero = !strcmp(code, "uint8") ? 120 : 3, relu_zero = !strcmp(code, "uint8") ? 0 : -128;
  do {
    begin_program("[1, 24, 11, 8]");
    draw_input(&x, 24, 11, 8);
    put_words("custom", "custom");
    put_words("valid", "valid");
    put_ints("pads", "[4]", "[1, 1, 1, 1]");
    put_ints("two", "[2]", "[2, 2]");
    put_ints("one", "[2]", "[1, 1]");
    put_ints("groups", "[]", "24");
    quantize("x", "q0", &x, 0.015625, zero, 0.015625, 4);
    weights("w1", (const int64_t[]){24, 1, 3, 3}, 4, w1, scale, bias, 0);
    put("tensor<%s, [1, 24, 6, 4]> c1 = conv(x = q0, weight = w1, bias = w1_bias, pad = pads, pad_type = custom, strides = two, groups = groups)[name = tensor<string, []>(\"c1\")];\n", type);
    y = (image){.channels = 24, .height = 6, .width = 4};
    for (int64_t c = 0; c < 24; c++) {
      static image one;
      one = (image){.channels = 1, .height = 11, .width = 8};
      memcpy(one.v, x.v + c * 88, 88 * sizeof *one.v);
      convolve(&one, 1, 3, 1, 2, w1 + c * 9, scale + c, bias + c);
      memcpy(y.v + c * 24, one.v, 24 * sizeof *one.v);
    }
    quantize("c1", "q1", &y, 0.0113525390625, zero, 0.0113525390625, 4);
    put("tensor<%s, [1, 24, 6, 4]> r1 = relu(x = q1)[name = tensor<string, []>(\"r1\")];\n", type);
    for (size_t i = 0; i < image_count(&y); i++) y.v[i] = fmax(y.v[i], 0);
    quantize("r1", "q2", &y, 0.01220703125, relu_zero, 0.01220703125, 4);
    put("tensor<%s, [8, 24, 1, 1]> w2 = const()[name = tensor<string, []>(\"w2\"), val = tensor<%s, [8, 24, 1, 1]>([", type, type);
    for (int i = 0; i < 8 * 24; i++)
      w2[i] = (float)between(-400, 400) / 1024, put("%s%s[[%.9g]]%s", i % 24 ? ", " : i ? "], " : "", i % 24 ? "" : "[", (double)w2[i], i == 8 * 24 - 1 ? "]" : "");
    put("])];\n");
    put("tensor<%s, [1, 8, 6, 4]> c2 = conv(x = q2, weight = w2, pad_type = valid, strides = one)[name = tensor<string, []>(\"c2\")];\n", type);
    x = (image){.channels = 8, .height = 6, .width = 4};
    for (int64_t o = 0; o < 8; o++)
      for (int64_t i = 0; i < 24; i++) {
        double sum = 0;
        for (int64_t c = 0; c < 24; c++) sum += y.v[c * 24 + i] * (double)w2[o * 24 + c];
        x.v[o * 24 + i] = sum;
      }
    quantize("c2", "q3", &x, 0.017333984375, zero, 0.017333984375, 4);
    put("  } -> (q3);\n}\n");
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 4, .dims = {1, 24, 11, 8}, .data = input};
  const wanted all[] = {{"cml_integer_conv", 2}, {"cml_quantize", 1}, {"cml_dequantize", 0}, {"relu", 0}, {"cml_conv", 0}, {NULL, 0}};
  compare(NULL, &in, &x, 0.0173 / 4, all);
}

/* Vectors through two linear layers with a function that is no clamp between them, which becomes a table. */
static void linear_block(void) {
  static image x;
  static int w1[40 * 32], w2[17 * 40];
  static double scale[40], bias[40];
  int zero = !strcmp(code, "uint8") ? 128 : 0;
  do {
    begin_program("[13, 32]");
    draw_input(&x, 32, 13, 1);
    quantize("x", "q0", &x, 0.015625, zero, 0.015625, 2);
    weights("w1", (const int64_t[]){40, 32, 1, 1}, 2, w1, scale, bias, 0);
    put("tensor<%s, [13, 40]> l1 = linear(x = q0, weight = w1, bias = w1_bias)[name = tensor<string, []>(\"l1\")];\n", type);
    static image y;
    y = (image){.channels = 40, .height = 13, .width = 1};
    for (int64_t r = 0; r < 13; r++)
      for (int64_t o = 0; o < 40; o++) {
        double sum = 0;
        for (int64_t i = 0; i < 32; i++) sum += x.v[r * 32 + i] * w1[o * 32 + i];
        y.v[r * 40 + o] = sum * scale[o] + bias[o];
      }
    quantize("l1", "q1", &y, 0.0113525390625, zero, 0.0113525390625, 2);
    put("tensor<%s, [13, 40]> f = tanh(x = q1)[name = tensor<string, []>(\"f\")];\n", type);
    for (size_t i = 0; i < image_count(&y); i++) {
      y.v[i] = tanh(y.v[i]);
      if (!strcmp(type, "fp16")) y.v[i] = (double)cml_f16_to_f32(cml_f16_from_f32((float)y.v[i]));
    }
    quantize("f", "q2", &y, 0.0078125 * 1.05078125, zero, 0.0078125 * 1.05078125, 2);
    weights("w2", (const int64_t[]){17, 40, 1, 1}, 2, w2, scale, bias, 0);
    put("tensor<%s, [13, 17]> l2 = linear(x = q2, weight = w2, bias = w2_bias)[name = tensor<string, []>(\"l2\")];\n  } -> (l2);\n}\n", type);
    x = (image){.channels = 17, .height = 13, .width = 1};
    for (int64_t r = 0; r < 13; r++)
      for (int64_t o = 0; o < 17; o++) {
        double sum = 0;
        for (int64_t i = 0; i < 40; i++) sum += y.v[r * 40 + i] * w2[o * 40 + i];
        x.v[r * 17 + o] = sum * scale[o] + bias[o];
      }
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 2, .dims = {13, 32}, .data = input};
  const wanted all[] = {{"cml_integer_linear", 2}, {"cml_integer_map", 1}, {"cml_quantize", 1}, {"cml_dequantize", 0}, {"linear", 0}, {"tanh", 0}, {NULL, 0}};
  compare(NULL, &in, &x, !strcmp(type, "fp16") ? 2e-3 : 1e-5, all);
}

static void each_kind(void (*test)(void)) {
  static const char *const types[] = {"fp32", "fp16"}, *const codes[] = {"int8", "uint8"};
  const cml_kernels *k;
  for (size_t i = 0; (k = cml_kernels_at(i)); i++) {
    assert_ok(cml_kernels_use(k->name, err));
    for (int t = 0; t < 4; t++) {
      type = types[t / 2], code = codes[t % 2];
      test();
    }
  }
  assert_ok(cml_kernels_use(NULL, err));
}

static void test_residual_block(void **state) {
  (void)state;
  each_kind(residual_block);
}
static void test_quantized_thrice(void **state) {
  (void)state;
  each_kind(quantized_thrice);
}
static void test_depthwise_block(void **state) {
  (void)state;
  each_kind(depthwise_block);
}
static void test_linear_block(void **state) {
  (void)state;
  each_kind(linear_block);
}

int main(void) {
  guard_buffers();
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_drivers), cmocka_unit_test(test_depth), cmocka_unit_test(test_elements),
                                     cmocka_unit_test(test_residual_block), cmocka_unit_test(test_depthwise_block), cmocka_unit_test(test_linear_block),
                                     cmocka_unit_test(test_quantized_thrice)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
