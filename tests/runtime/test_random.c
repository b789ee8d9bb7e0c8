/* Random operators: their statistics, seeds, limits, and what they refuse. Bounds are five standard errors wide. */
#include "test.h"

#include <math.h>

#include "op.h"

enum { COUNT = 40000 };

typedef struct moments {
  double mean, deviation, low, high;
} moments;

static moments measure(const cml_tensor *t) {
  moments m = {.low = INFINITY, .high = -INFINITY};
  int64_t n = cml_tensor_count(t);
  for (int64_t i = 0; i < n; i++) {
    double v = cml_tensor_get(t, i);
    m.mean += v / (double)n;
    m.low = fmin(m.low, v);
    m.high = fmax(m.high, v);
  }
  for (int64_t i = 0; i < n; i++) m.deviation += pow(cml_tensor_get(t, i) - m.mean, 2) / (double)n;
  m.deviation = sqrt(m.deviation);
  return m;
}

/* An operator over a shape with two numbers (NAN: absent) and a seed (-1: absent). */
static cml_status draw(const char *name, int32_t *dims, int64_t rank, cml_dtype dtype, float a, float b, int32_t seed, cml_tensor *out, cml_error *err) {
  const cml_op *op = cml_op_find(name, CML_IOS17);
  assert_non_null(op);
  float numbers[2] = {a, b};
  uint16_t halves[2];
  cml_tensor shape = {.dtype = CML_I32, .rank = 1, .dims = {rank}, .data = dims}, seeds = {.dtype = CML_I32, .data = &seed}, scalar[2];
  cml_convert(halves, CML_F16, numbers, CML_F32, 2);
  const cml_tensor *args[4] = {&shape};
  uint16_t first[5] = {0}, n = 1;
  for (unsigned p = 1; p < op->param_count; p++) {
    first[p] = n;
    if (p == op->param_count - 1u) {
      if (seed >= 0) args[n++] = &seeds;
    } else if (!isnan(numbers[p - 1])) {
      scalar[p - 1] = (cml_tensor){.dtype = dtype, .data = dtype == CML_F16 ? (void *)&halves[p - 1] : (void *)&numbers[p - 1]};
      args[n++] = &scalar[p - 1];
    }
  }
  first[op->param_count] = n;
  return cml_op_eval(op, CML_IOS17, args, first, out, 1, err);
}

static moments moments_of(const char *name, cml_dtype dtype, float a, float b, int32_t seed) {
  int32_t dims[2] = {200, COUNT / 200};
  cml_tensor out = {0};
  assert_ok(draw(name, dims, 2, dtype, a, b, seed, &out, err));
  assert_int_equal(out.dtype, dtype);
  assert_int_equal(out.rank, 2);
  moments m = measure(&out);
  cml_eval_free(&out, 1);
  return m;
}

static void near(double got, double want, double error) {
  if (!(fabs(got - want) <= error)) fail_msg("%g is not within %g of %g", got, error, want);
}

static void statistics_fit(void **state) {
  (void)state;
  const double root = sqrt(COUNT);
  moments m = moments_of("random_uniform", CML_F32, -2, 5, -1);
  near(m.mean, 1.5, 5 * 7 / sqrt(12) / root);
  near(m.deviation, 7 / sqrt(12), 0.03);
  assert_true(m.low >= -2 && m.low < -1.99 && m.high < 5 && m.high > 4.99);
  m = moments_of("random_uniform", CML_F16, 0.5f, 0.625f, 11);
  assert_true(m.low >= 0.5 && m.high < 0.625);
  near(m.mean, 0.5625, 0.001);
  m = moments_of("random_uniform", CML_F32, 3, 3, 1);
  assert_true(m.low == 3 && m.high == 3);
  m = moments_of("random_normal", CML_F32, 3, 2, -1);
  near(m.mean, 3, 5 * 2 / root);
  near(m.deviation, 2, 5 * 2 / root);
  assert_true(m.low < -3 && m.high > 9 && m.low > -10 && m.high < 16);
  m = moments_of("random_bernoulli", CML_F16, 0.25f, NAN, 5);
  near(m.mean, 0.25, 5 * sqrt(0.25 * 0.75) / root);
  assert_true(m.low == 0 && m.high == 1);
  near(moments_of("random_uniform", CML_F32, NAN, NAN, 3).mean, 0.5, 5 / sqrt(12) / root);
  near(moments_of("random_normal", CML_F32, NAN, NAN, 3).deviation, 1, 5 / root);
  near(moments_of("random_bernoulli", CML_F32, NAN, NAN, 3).mean, 0.5, 2.5 / root);
}

static void seeds_repeat(void **state) {
  (void)state;
  int32_t dims[1] = {64};
  cml_tensor a = {0}, b = {0}, other = {0};
  assert_ok(draw("random_normal", dims, 1, CML_F32, 0, 1, 42, &a, err));
  assert_ok(draw("random_normal", dims, 1, CML_F32, 0, 1, 42, &b, err));
  assert_ok(draw("random_normal", dims, 1, CML_F32, 0, 1, 43, &other, err));
  assert_memory_equal(a.data, b.data, 64 * 4);
  assert_memory_not_equal(a.data, other.data, 64 * 4);
  cml_eval_free(&a, 1);
  cml_eval_free(&b, 1);
  cml_eval_free(&other, 1);
}

static void shapes_are_checked(void **state) {
  (void)state;
  cml_error error;
  cml_tensor out = {0};
  int32_t negative[2] = {3, -1}, huge[3] = {INT32_MAX, INT32_MAX, INT32_MAX}, empty[2] = {0, 4}, none[1] = {0};
  assert_int_equal(draw("random_uniform", negative, 2, CML_F32, 0, 1, 1, &out, &error), CML_INVALID);
  assert_int_equal(draw("random_uniform", huge, 3, CML_F32, 0, 1, 1, &out, &error), CML_INVALID);
  assert_ok(draw("random_uniform", empty, 2, CML_F32, 0, 1, 1, &out, err));
  assert_int_equal(cml_tensor_count(&out), 0);
  cml_eval_free(&out, 1);
  assert_ok(draw("random_uniform", none, 0, CML_F32, 0, 1, 1, &out, err));
  assert_int_equal(out.rank, 0);
  cml_eval_free(&out, 1);
}

/* Two rows of three categories; weights 1 : 2 : 5 and 0 : 3 : 1. */
static void categories_are_drawn_by_weight(void **state) {
  (void)state;
  const double want[2][3] = {{0.125, 0.25, 0.625}, {0, 0.75, 0.25}};
  for (int probs = 0; probs < 2; probs++) {
    float x[6] = {0.125f, 0.25f, 0.625f, 0, 0.75f, 0.25f};
    for (int i = 0; i < 6 && !probs; i++) x[i] = logf(x[i]) + 1000;
    int32_t size = COUNT, seed = 9;
    cml_string mode = {probs ? "probs" : "logits", probs ? 5 : 6};
    cml_tensor tx = {.dtype = CML_F32, .rank = 2, .dims = {2, 3}, .data = x}, tm = {.dtype = CML_STRING, .data = &mode};
    cml_tensor ts = {.dtype = CML_I32, .data = &size}, td = {.dtype = CML_I32, .data = &seed}, out = {0};
    const cml_tensor *args[] = {&tx, &tm, &ts, &td};
    const uint16_t first[] = {0, 1, 2, 3, 4};
    assert_ok(cml_op_eval(cml_op_find("random_categorical", CML_IOS15), CML_IOS15, args, first, &out, 1, err));
    assert_int_equal(out.dims[1], COUNT);
    for (int r = 0; r < 2; r++) {
      double counts[3] = {0};
      for (int64_t i = 0; i < COUNT; i++) counts[cml_tensor_get_int(&out, r * COUNT + i)] += 1.0 / COUNT;
      for (int k = 0; k < 3; k++) near(counts[k], want[r][k], want[r][k] ? 5 * 0.5 / sqrt(COUNT) : 0);
    }
    cml_eval_free(&out, 1);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(statistics_fit), cmocka_unit_test(seeds_repeat), cmocka_unit_test(shapes_are_checked),
                                     cmocka_unit_test(categories_are_drawn_by_weight)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
