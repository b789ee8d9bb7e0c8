/* Products of bytes and what follows them, against whole numbers and double precision: the drivers over every table of kernels, random
 * shapes, buffers that end at an unmapped page. Where an exact value lies so near a tie that rounding decides, either byte is right. */
#include "test.h"

#include <float.h>
#include <math.h>

#include "guarded.h"
#include "integer.h"
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
  assert_true(depthwise ? cml_integer_depthwise_fits(v) : in_floats || cml_integer_fits(v));
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
  for (int round = 0; round < 800; round++) {
    bool depthwise = round % 2;
    if (!draw(&d, depthwise, round % 20 < 2)) continue;
    for (size_t i = 0; (k = cml_kernels_at(i)); i++)
      for (int in_floats = 0; in_floats < (depthwise ? 3 : 2); in_floats++) /* the third: depthwise ones in blocks of floats */
        check_driver(k, &d, depthwise && in_floats < 2, in_floats, round % 3 ? NULL : pool);
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

int main(void) {
  guard_buffers();
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_drivers), cmocka_unit_test(test_depth), cmocka_unit_test(test_elements)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
