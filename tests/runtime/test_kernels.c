/* Every table of kernels that this CPU can run, against C's own functions in double precision: random sizes with ragged
 * tails, buffers that end at an unmapped page, special values. With --bench it prints what each kernel reaches. */
#include "test.h"

#include <math.h>
#include <time.h>

#include "guarded.h"
#include "kernels.h"
#include "random_numbers.h"

static void fill(float *x, size_t n) {
  for (size_t i = 0; i < n; i++) x[i] = uniform();
}

#define EACH_TABLE(k) for (size_t table = 0; (k = cml_kernels_at(table)); table++)

/* ---- conversions ---- */

static void test_f16(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < 70; n++) {
      cml_f16 *h = at_end(0, n * 2), *back = at_end(2, n * 2);
      float *f = at_end(1, n * 4);
      for (size_t i = 0; i < n; i++) h[i] = (cml_f16)rnd();
      k->f16_to_f32(h, f, n);
      for (size_t i = 0; i < n; i++) {
        float want = cml_f16_to_f32(h[i]);
        assert_true(isnan(want) ? isnan(f[i]) : !memcmp(&want, &f[i], 4));
      }
      for (size_t i = 0; i < n; i++) {
        uint32_t bits = rnd();
        memcpy(&f[i], &bits, 4);
      }
      if (n > 4) f[0] = 65519.99f, f[1] = 65520.0f, f[2] = 0x1p-25f, f[3] = 0x1.8p-25f;
      k->f32_to_f16(f, back, n);
      for (size_t i = 0; i < n; i++) {
        cml_f16 want = cml_f16_from_f32(f[i]);
        if (isnan(f[i])) assert_true((back[i] & 0x7fff) > 0x7c00);
        else assert_int_equal(back[i], want);
      }
    }
  }
}

/* ---- functions of one array ---- */

static double gelu(double x) { return 0.5 * x * erfc(-x * M_SQRT1_2); }

static double exact(cml_unary f, double x, double a, double b) {
  switch (f) {
    case CML_UNARY_EXP: return exp(x);
    case CML_UNARY_LOG: return log(x);
    case CML_UNARY_TANH: return tanh(x);
    case CML_UNARY_ERF: return erf(x);
    case CML_UNARY_SIGMOID: return 1 / (1 + exp(-x));
    case CML_UNARY_SQRT: return sqrt(x);
    case CML_UNARY_ABS: return fabs(x);
    case CML_UNARY_NEG: return -x;
    case CML_UNARY_SQUARE: return x * x;
    case CML_UNARY_RECIPROCAL: return 1 / x;
    case CML_UNARY_FLOOR: return floor(x);
    case CML_UNARY_CEIL: return ceil(x);
    case CML_UNARY_ROUND: return rint(x);
    case CML_UNARY_COPY: return x;
    case CML_UNARY_RELU: return isnan(x) ? x : fmax(x, 0);
    case CML_UNARY_CLIP: return isnan(x) ? x : fmin(fmax(x, a), b);
    case CML_UNARY_LEAKY_RELU: return x < 0 ? (float)a * x : x;
    case CML_UNARY_ELU: return x < 0 ? a * expm1(x) : x;
    case CML_UNARY_SILU: return x < -700 ? -0.0 : x / (1 + exp(-x));
    case CML_UNARY_GELU: return x < -30 ? -0.0 : gelu(x);
    case CML_UNARY_GELU_TANH: return x < -30 ? -0.0 : 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case CML_UNARY_GELU_SIGMOID: return x < -400 ? -0.0 : x / (1 + exp(-1.702 * x));
    case CML_UNARY_SOFTPLUS: return isnan(x) ? x : fmax(x, 0) + log1p(exp(-fabs(x)));
    case CML_UNARY_SOFTSIGN: return x / (1 + fabs(x));
    case CML_UNARY_HARD_SIGMOID: return isnan(x) ? x : fmin(fmax(a * x + b, 0), 1);
    case CML_UNARY_HARD_SWISH: return x * fmin(fmax(a * x + b, 0), 1);
    case CML_UNARY_SCALE: return a * x + b;
    case CML_UNARY_EXP2: return exp2(x);
    case CML_UNARY_SIN: return sin(x);
    case CML_UNARY_COS: return cos(x);
    case CML_UNARY_TAN: return tan(x);
    case CML_UNARY_ASIN: return asin(x);
    case CML_UNARY_ACOS: return acos(x);
    case CML_UNARY_ATAN: return atan(x);
    case CML_UNARY_SINH: return sinh(x);
    case CML_UNARY_COSH: return cosh(x);
    case CML_UNARY_ATANH: return atanh(x);
    case CML_UNARY_COUNT: break;
  }
  return NAN;
}

/* ulp: the bound; absolute: what is allowed beside it */
static const struct bound {
  double ulp, absolute;
} bounds[CML_UNARY_COUNT] = {
    [CML_UNARY_EXP] = {1.5, 0}, [CML_UNARY_LOG] = {1.5, 0}, [CML_UNARY_TANH] = {3, 0}, [CML_UNARY_ERF] = {2.5, 0},
    [CML_UNARY_SIGMOID] = {3, 1e-37}, [CML_UNARY_SILU] = {4, 1e-36}, [CML_UNARY_GELU] = {4, 1e-7}, [CML_UNARY_GELU_TANH] = {4, 1e-7},
    [CML_UNARY_GELU_SIGMOID] = {4, 1e-6}, [CML_UNARY_SOFTPLUS] = {3, 0}, [CML_UNARY_SOFTSIGN] = {2, 0}, [CML_UNARY_ELU] = {2, 1e-7},
    [CML_UNARY_HARD_SIGMOID] = {1, 2e-7}, [CML_UNARY_HARD_SWISH] = {4, 2e-7}, [CML_UNARY_SCALE] = {2, 4e-7},
    [CML_UNARY_EXP2] = {1.5, 0}, [CML_UNARY_SIN] = {2, 0}, [CML_UNARY_COS] = {2, 0}, [CML_UNARY_TAN] = {3.5, 0}, [CML_UNARY_ASIN] = {2.5, 0},
    [CML_UNARY_ACOS] = {2, 0}, [CML_UNARY_ATAN] = {2.5, 0}, [CML_UNARY_SINH] = {2.5, 0}, [CML_UNARY_COSH] = {2.5, 0}, [CML_UNARY_ATANH] = {2, 0},
    [CML_UNARY_SQUARE] = {0.51, 0}, [CML_UNARY_RECIPROCAL] = {0.51, 0}, [CML_UNARY_SQRT] = {0.51, 0}, [CML_UNARY_LEAKY_RELU] = {0.51, 0},
};
static const char *const unary_names[] = {
#define NAME(name) #name,
    CML_UNARY_MAP(NAME)
#undef NAME
};

static double ulps(float got, double want) {
  if (isnan(want)) return isnan(got) ? 0 : INFINITY;
  if ((double)got == want) return 0;
  if (isinf(got) || fabs(want) > 3.5e38) return (float)want == got || (isinf(got) && fabs(want) > 3.40282e38) ? 0 : INFINITY;
  int e = want == 0 ? -126 : ilogb(want);
  return fabs((double)got - want) / ldexp(1, (e < -126 ? -126 : e) - 23);
}

static float sample(size_t i) {
  static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, -1.0f, 0x1p-149f, -0x1p-149f, 88.7f, -87.3f, -103.0f, 0.5f, 1.5f,
                                  2.5f, -0.5f, 0x1.fffffep127f, 0x1p-126f, 8388609.0f, -8388607.5f};
  if (i < sizeof special / sizeof *special) return special[i];
  if (i % 4 == 0) {
    uint32_t bits = rnd();
    float f;
    memcpy(&f, &bits, 4);
    return f;
  }
  return uniform() * (i % 4 == 1 ? 1.0f : i % 4 == 2 ? 10.0f : 100.0f);
}

static void test_unary(void **state) {
  (void)state;
  const cml_kernels *k;
  enum { N = 60013 };
  float *x = at_end(0, N * 4), *y = at_end(1, N * 4), a = 0.2f, b = 0.5f;
  EACH_TABLE(k) {
    for (int f = 0; f < CML_UNARY_COUNT; f++) {
      double worst = 0;
      for (size_t i = 0; i < N; i++) x[i] = sample(i);
      k->unary((cml_unary)f, x, y, N, a, b);
      for (size_t i = 0; i < N; i++) {
        double want = exact((cml_unary)f, (double)x[i], (double)a, (double)b), u = ulps(y[i], want);
        if (fabs((double)y[i] - want) <= bounds[f].absolute * fmax(1, fabs((double)x[i]))) continue;
        if (u > worst) worst = u;
        if (u > bounds[f].ulp) fail_msg("%s %s(%a) is %a, should be %a: %g ulp", k->name, unary_names[f], (double)x[i], (double)y[i], want, u);
      }
      if (getenv("CML_TEST_VERBOSE")) print_message("# %s %s: %.2f ulp\n", k->name, unary_names[f], worst);
    }
  }
}

/* All float16 values; the result may be off by one unit of float16 where the float32 result is next to a tie. */
static void test_unary_f16(void **state) {
  (void)state;
  const cml_kernels *k;
  static cml_f16 x[65536], y[65536];
  for (size_t i = 0; i < 65536; i++) x[i] = (cml_f16)i;
  EACH_TABLE(k) {
    for (int f = 0; f < CML_UNARY_COUNT; f++) {
      k->unary_f16((cml_unary)f, x, y, 65536, 0.25f, 0.5f);
      for (size_t i = 0; i < 65536; i++) {
        double want = exact((cml_unary)f, (double)cml_f16_to_f32(x[i]), 0.25, 0.5);
        cml_f16 w = cml_f16_from_f32((float)want);
        float got = cml_f16_to_f32(y[i]), rounded = cml_f16_to_f32(w);
        if (isnan(want) ? isnan(got) : got == rounded) continue;
        if (fabs((double)got - want) <= 1.01 * fabs((double)rounded - want) + 1e-7) continue;
        fail_msg("%s %s(%a) is %a, should be %a", k->name, unary_names[f], (double)cml_f16_to_f32(x[i]), (double)got, want);
      }
    }
  }
}

static void test_f32_to_i32(void **state) {
  (void)state;
  const cml_kernels *k;
  static const float special[] = {NAN, INFINITY, -INFINITY, 0x1p31f, 0x1.fffffep30f, -0x1p31f, -0x1.000002p31f, -0.75f, 2.5f, -0.0f};
  EACH_TABLE(k) {
    for (size_t n = 1; n < 70; n++) {
      float *x = at_end(0, n * 4);
      int32_t *y = at_end(1, n * 4);
      for (size_t i = 0; i < n; i++) x[i] = i < sizeof special / sizeof *special ? special[i] : uniform() * (i % 2 ? 4e9f : 100.0f);
      k->f32_to_i32(x, y, n);
      for (size_t i = 0; i < n; i++) {
        double want = isnan(x[i]) ? 0 : fmin(INT32_MAX, fmax(INT32_MIN, trunc((double)x[i])));
        if ((double)y[i] != want) fail_msg("%s: %a is %d, should be %g", k->name, (double)x[i], y[i], want);
      }
    }
  }
}

static void test_compare(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < 70; n++) {
      float *x = at_end(0, n * 4), *y = at_end(1, n * 4), *back = at_end(2, n * 4);
      uint8_t to[70 + 1], bytes[70];
      for (size_t i = 0; i < n; i++) x[i] = (float)(int)(uniform() * 2), y[i] = i % 7 ? (float)(int)(uniform() * 2) : NAN, bytes[i] = (uint8_t)rnd();
      for (int c = 0; c < CML_COMPARE_COUNT; c++) {
        to[n] = 77;
        k->compare((cml_comparison)c, x, y, to, n);
        for (size_t i = 0; i < n; i++) {
          const bool want[] = {x[i] == y[i], x[i] != y[i], x[i] < y[i], x[i] <= y[i], x[i] > y[i], x[i] >= y[i]};
          assert_int_equal(to[i], want[c]);
        }
        assert_int_equal(to[n], 77);
      }
      k->bytes_to_f32(bytes, back, n);
      for (size_t i = 0; i < n; i++) assert_true(back[i] == (float)bytes[i]);
    }
  }
}

/* What C's own operators give, wrapped; the corners of division in every lane. */
static void test_int32(void **state) {
  (void)state;
  const cml_kernels *k;
  static const int32_t special[] = {INT32_MIN, INT32_MAX, 0, 1, -1, 2, -2, 7, -7, INT32_MIN + 1, 65536, -46341};
  enum { SPECIAL = sizeof special / sizeof *special };
  EACH_TABLE(k) {
    for (size_t n = 1; n < 200; n++) {
      int32_t *x = at_end(0, n * 4), *z = at_end(1, n * 4), *y = at_end(2, n * 4);
      float f[200];
      uint8_t to[200 + 1];
      for (size_t i = 0; i < n; i++) {
        x[i] = n > 100 ? special[i % SPECIAL] : (int32_t)rnd() >> rnd() % 31;
        z[i] = n > 100 ? special[i / SPECIAL % SPECIAL] : (int32_t)rnd() >> rnd() % 31;
      }
      for (int b = 0; b < CML_BINARY_COUNT; b++) {
        if (b == CML_BINARY_POW) continue;
        k->binary_i32((cml_binary)b, x, z, y, n);
        for (size_t i = 0; i < n; i++) {
          const int64_t p = x[i], q = z[i], quotient = q ? p / q : 0, rest = q ? p % q : 0, below = rest && (rest < 0) != (q < 0);
          const int64_t want = b == CML_BINARY_ADD ? p + q : b == CML_BINARY_SUB ? p - q : b == CML_BINARY_MUL ? p * q : b == CML_BINARY_DIV ? quotient
                               : b == CML_BINARY_MAX ? (p > q ? p : q) : b == CML_BINARY_MIN ? (p < q ? p : q) : b == CML_BINARY_MOD ? rest + below * q : quotient - below;
          if (y[i] != (int32_t)want) fail_msg("%s: %d of %d and %d is %d", k->name, b, x[i], z[i], y[i]);
        }
      }
      for (int c = 0; c < CML_COMPARE_COUNT; c++) {
        to[n] = 77;
        k->compare_i32((cml_comparison)c, x, z, to, n);
        for (size_t i = 0; i < n; i++) {
          const bool want[] = {x[i] == z[i], x[i] != z[i], x[i] < z[i], x[i] <= z[i], x[i] > z[i], x[i] >= z[i]};
          assert_int_equal(to[i], want[c]);
        }
        assert_int_equal(to[n], 77);
      }
      k->i32_to_f32(x, f, n);
      for (size_t i = 0; i < n; i++) assert_true(f[i] == (float)x[i]);
    }
  }
}

static void test_binary(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < 50; n++) {
      float *x = at_end(0, n * 4), *z = at_end(1, n * 4), *y = at_end(2, n * 4);
      fill(x, n);
      fill(z, n);
      if (n > 3) x[0] = NAN, z[1] = NAN;
      for (int f = 0; f < CML_BINARY_MOD; f++)
        for (int mode = 0; mode < 3; mode++) {
          float s = 0.75f;
          if (mode == 0) k->binary((cml_binary)f, x, z, y, n);
          else k->binary_scalar((cml_binary)f, x, s, mode == 2, y, n);
          for (size_t i = 0; i < n; i++) {
            float p = mode == 2 ? s : x[i], q = mode == 0 ? z[i] : mode == 2 ? x[i] : s;
            float want = f == CML_BINARY_ADD ? p + q : f == CML_BINARY_SUB ? p - q : f == CML_BINARY_MUL ? p * q : f == CML_BINARY_DIV ? p / q
                         : f == CML_BINARY_POW ? (float)pow((double)p, (double)q)
                         : isnan(p) || isnan(q) ? NAN : f == CML_BINARY_MAX ? fmaxf(p, q) : fminf(p, q);
            if (f == CML_BINARY_POW && !isnan(want)) assert_true(ulps(y[i], pow((double)p, (double)q)) <= 1);
            else assert_true(isnan(want) ? isnan(y[i]) : y[i] == want);
          }
        }
    }
  }
}

/* Remainders against libm's, which are exact, quotients against double's, which are right below 2^28: whole quotients and their neighbours too. */
static void test_remainders(void **state) {
  (void)state;
  static const float special[] = {0, -0.0f, 1, -1, 0.3f, -0.3f, 7, 1e-42f, -1e-42f, 1e38f, -1e38f, INFINITY, -INFINITY, NAN, 0x1p22f, 0x1p23f, 12345.678f};
  enum { SPECIAL = sizeof special / sizeof *special, N = 3 * SPECIAL * SPECIAL };
  const cml_kernels *k;
  EACH_TABLE(k) {
    float *x = at_end(0, N * 4), *z = at_end(1, N * 4), *y = at_end(2, N * 4), *q = at_end(3, N * 4);
    for (int i = 0; i < N; i++) {
      x[i] = special[i % SPECIAL], z[i] = special[i / SPECIAL % SPECIAL];
      if (i < SPECIAL * SPECIAL) continue;
      z[i] = ldexpf(uniform(), (int)between(0, 60) - 30);
      x[i] = z[i] * (float)((int)between(0, 1 << 21) - (1 << 20)); /* rounded: a multiple, or just beside one */
      if (i % 2) x[i] = nextafterf(x[i], i % 4 == 1 ? INFINITY : -INFINITY);
    }
    k->binary(CML_BINARY_MOD, x, z, y, N);
    k->binary(CML_BINARY_FLOOR_DIV, x, z, q, N);
    for (int i = 0; i < N; i++) {
      float r = fmodf(x[i], z[i]), want = r != 0 && signbit(r) != signbit(z[i]) ? r + z[i] : r;
      if (isnan(want) ? !isnan(y[i]) : y[i] != want) fail_msg("%s: %a mod %a is %a, should be %a", k->name, (double)x[i], (double)z[i], (double)y[i], (double)want);
      if (want == 0) assert_int_equal(signbit(y[i]) != 0, signbit(z[i]) != 0);
      double quotient = (double)x[i] / (double)z[i];
      if (!(fabs(quotient) < 0x1p24) || isinf(z[i])) continue;
      if (q[i] != (float)floor(quotient)) fail_msg("%s: %a / %a is %a, should be %a", k->name, (double)x[i], (double)z[i], (double)q[i], floor(quotient));
    }
  }
}

/* Every sum in double, rounded to float and then to a half: what a plain loop gives. Rows apart, down and up. */
static void test_running_sums(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < 150; n++) {
      const size_t rows = 1 + n % 5, stride = n + n % 3, size = n % 2 ? 4 : 2, count = (rows - 1) * stride + n;
      const bool half = size == 2, before = n % 4 < 2, up = n % 7 < 3;
      char *x = at_end(0, count * size), *y = at_end(1, count * size);
      double sums[192] = {0}, want[192] = {0};
      if (half) for (size_t i = 0; i < count; i++) ((cml_f16 *)(void *)x)[i] = cml_f16_from_f32(uniform());
      else fill((float *)(void *)x, count);
      const size_t first = up ? (rows - 1) * stride : 0;
      for (size_t i = 0; i < n; i++) want[i] = sums[i] = (double)uniform();
      k->running_sums(rows, n, x + first * size, y + first * size, half, up ? -(ptrdiff_t)stride : (ptrdiff_t)stride, sums, before);
      for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++) {
          const size_t at = (up ? rows - 1 - r : r) * stride + i;
          const double old = want[i];
          want[i] += half ? (double)cml_f16_to_f32(((cml_f16 *)(void *)x)[at]) : (double)((float *)(void *)x)[at];
          const float to = (float)(before ? old : want[i]);
          assert_true(half ? ((cml_f16 *)(void *)y)[at] == cml_f16_from_f32(to) : ((float *)(void *)y)[at] == to);
        }
      assert_memory_equal(sums, want, n * sizeof *sums);
    }
  }
}

/* Of halves: one rounding of the exact result (float32's, which has bits enough for these), bit for bit, in every table; ends of vectors. */
static void test_binary_f16(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 400; round++) {
      size_t n = between(1, 100);
      cml_f16 *x = at_end(0, n * 2), *z = at_end(1, n * 2), *y = at_end(2, n * 2);
      for (size_t i = 0; i < n; i++) x[i] = (cml_f16)rnd(), z[i] = rnd() % 2 ? (cml_f16)rnd() : (cml_f16)(x[i] ^ (rnd() & 0x801f));
      for (int f = 0; f < CML_BINARY_POW; f++) {
        k->binary_f16((cml_binary)f, x, z, y, n);
        for (size_t i = 0; i < n; i++) {
          float p = cml_f16_to_f32(x[i]), q = cml_f16_to_f32(z[i]);
          float want = f == CML_BINARY_ADD ? p + q : f == CML_BINARY_SUB ? p - q : f == CML_BINARY_MUL ? p * q : f == CML_BINARY_DIV ? p / q
                       : isnan(p) || isnan(q) ? NAN : f == CML_BINARY_MAX ? fmaxf(p, q) : fminf(p, q);
          bool same = isnan(want) ? isnan(cml_f16_to_f32(y[i])) : f >= CML_BINARY_MAX ? cml_f16_to_f32(y[i]) == want : y[i] == cml_f16_from_f32(want);
          if (!same) fail_msg("%s: %d of %04x and %04x is %04x", k->name, f, x[i], z[i], y[i]);
        }
      }
    }
  }
}

/* All tables give the same halves, bit for bit, for functions whose float32 results are the same in all. */
static void test_same_halves(void **state) {
  (void)state;
  const cml_kernels *k, *first = cml_kernels_at(0);
  static const cml_unary functions[] = {CML_UNARY_SQRT, CML_UNARY_ABS, CML_UNARY_NEG, CML_UNARY_SQUARE, CML_UNARY_RECIPROCAL, CML_UNARY_FLOOR,
                                        CML_UNARY_CEIL, CML_UNARY_ROUND, CML_UNARY_COPY, CML_UNARY_RELU, CML_UNARY_CLIP, CML_UNARY_LEAKY_RELU};
  static const float parameters[][2] = {{0.25f, 0.5f}, {-1.5f, 6}, {0.1f, 1e6f}, {-INFINITY, 0x1p-25f}, {-0x1.004p0f, 0x1.006p-15f}, {-0.01f, 0}};
  static cml_f16 x[65536], want[65536], got[65536];
  for (size_t i = 0; i < 65536; i++) x[i] = (cml_f16)i;
  EACH_TABLE(k) {
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++)
      for (size_t p = 0; p < sizeof parameters / sizeof *parameters; p++) {
        size_t n = 65536 - between(0, 40), least = functions[f] == CML_UNARY_CLIP || functions[f] == CML_UNARY_LEAKY_RELU || !p;
        if (!least) continue;
        first->unary_f16(functions[f], x, want, 65536, parameters[p][0], parameters[p][1]);
        memset(got, 0x11, sizeof got);
        k->unary_f16(functions[f], x, got, n, parameters[p][0], parameters[p][1]);
        for (size_t i = 0; i < 65536; i++) {
          bool nan = i < n && isnan(cml_f16_to_f32(want[i])) && isnan(cml_f16_to_f32(got[i]));
          bool zeros = i < n && (functions[f] == CML_UNARY_RELU || functions[f] == CML_UNARY_CLIP) && !((want[i] | got[i]) & 0x7fff);
          if (!nan && !zeros && got[i] != (i < n ? want[i] : 0x1111))
            fail_msg("%s: %s(%04zx) of %g, %g is %04x, not %04x", k->name, unary_names[functions[f]], i, (double)parameters[p][0], (double)parameters[p][1], got[i], want[i]);
        }
      }
  }
}

/* Powers of every sign and size, of zeros, infinities and NaN. */
static void test_pow(void **state) {
  (void)state;
  static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, -1.0f, 0x1p-149f, 0.5f, 2.0f, -2.0f, 3.0f, -3.0f, 16777217.0f, 0x1.fffffep127f, 1e-3f};
  enum { S = sizeof special / sizeof *special, N = 200003 };
  const cml_kernels *k;
  float *x = at_end(0, N * 4), *z = at_end(1, N * 4), *y = at_end(2, N * 4);
  EACH_TABLE(k) {
    double worst = 0;
    for (size_t i = 0; i < N; i++) {
      x[i] = i < S * S ? special[i / S] : i % 3 ? fabsf(uniform()) * 8 : ldexpf(uniform(), (int)(rnd() % 250) - 125);
      z[i] = i < S * S ? special[i % S] : i % 5 == 0 ? (float)(int)(uniform() * 20) : uniform() * (i % 2 ? 4 : 60);
    }
    k->binary(CML_BINARY_POW, x, z, y, N);
    for (size_t i = 0; i < N; i++) {
      double want = pow((double)x[i], (double)z[i]), u = ulps(y[i], want);
      if (u > worst) worst = u;
      if (u > 1 || (want == 0 && !signbit(want) != !signbit(y[i])))
        fail_msg("%s pow(%a, %a) is %a, should be %a: %g ulp", k->name, (double)x[i], (double)z[i], (double)y[i], want, u);
    }
    if (getenv("CML_TEST_VERBOSE")) print_message("# %s pow: %.2f ulp\n", k->name, worst);
  }
}

/* ---- reductions and rows ---- */

static void test_rows(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < 200; n += 1 + n / 16) {
      float *x = at_end(0, n * 4), *y = at_end(1, n * 4), *g = at_end(2, n * 4), *b = at_end(3, n * 4);
      fill(x, n), fill(g, n), fill(b, n);
      double sum = 0, dot = 0, squares = 0, e = 0, count = (double)n;
      float top = -INFINITY, low = INFINITY;
      for (size_t i = 0; i < n; i++) sum += (double)x[i], dot += (double)x[i] * (double)g[i], top = fmaxf(top, x[i]), low = fminf(low, x[i]);
      for (size_t i = 0; i < n; i++) squares += ((double)x[i] - sum / count) * ((double)x[i] - sum / count), e += exp((double)x[i] - (double)top);
      assert_true(fabs((double)k->sum(x, n) - sum) < 1e-5 * (double)n);
      assert_true(fabs((double)k->dot(x, g, n) - dot) < 1e-5 * (double)n);
      assert_true(k->max(x, n) == top && k->min(x, n) == low);
      k->blend(0.3f, x, g, y, n);
      for (size_t i = 0; i < n; i++) assert_true(fabs((double)y[i] - ((double)x[i] + 0.3 * ((double)g[i] - (double)x[i]))) < 1e-6);
      float s, q;
      k->moments(x, n, (float)(sum / count), &s, &q);
      assert_true(fabs((double)q - squares) < 1e-5 * (double)n);
      k->softmax_rows(1, n, x, y, false, false, 0);
      for (size_t i = 0; i < n; i++) assert_true(fabs((double)y[i] - exp((double)x[i] - (double)top) / e) < 1e-6);
      k->layer_norm(x, y, n, g, b, 1e-3f);
      for (size_t i = 0; i < n; i++) {
        double want = ((double)x[i] - sum / count) / sqrt(squares / count + 1e-3) * (double)g[i] + (double)b[i];
        assert_true(fabs((double)y[i] - want) < 2e-5);
      }
      x[n / 2] = NAN;
      assert_true(isnan(k->max(x, n)) && isnan(k->min(x, n)));
      x[n / 2] = INFINITY;
      assert_true(k->max(x, n) == INFINITY);
    }
  }
}

/* Softmax and its logarithm of some rows at once, in either type, in place or not. */
static void test_softmax_rows(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < 160; n += 1 + n / 24) {
      for (int way = 0; way < 8; way++) {
        const bool half = way & 1, logarithm = way & 2;
        const size_t rows = between(1, 9), size = half ? 2 : 4;
        float *wide = at_end(0, rows * n * 4);
        void *x = at_end(1, rows * n * size), *y = way & 4 ? x : at_end(2, rows * n * size);
        fill(wide, rows * n);
        for (size_t i = 0; i < rows * n; i++) {
          if (half) wide[i] = cml_f16_to_f32(((cml_f16 *)x)[i] = cml_f16_from_f32(wide[i] * 4));
          else ((float *)x)[i] = wide[i] = wide[i] * 4;
        }
        const float least = -9;
        char alone[160 * 4];
        const size_t last = (rows - 1) * n * size;
        k->softmax_rows(1, n, (char *)x + last, alone, half, logarithm, least);
        k->softmax_rows(rows, n, x, y, half, logarithm, least);
        assert_memory_equal((char *)y + last, alone, n * size); /* threads take other rows together */
        for (size_t r = 0; r < rows; r++) {
          double top = -INFINITY, e = 0;
          for (size_t i = 0; i < n; i++) top = fmax(top, (double)wide[r * n + i]);
          for (size_t i = 0; i < n; i++) e += exp((double)wide[r * n + i] - top);
          for (size_t i = 0; i < n; i++) {
            const double d = (double)wide[r * n + i] - top, want = logarithm ? fmax((double)least, d - log(e)) : exp(d) / e;
            const double got = half ? (double)cml_f16_to_f32(((cml_f16 *)y)[r * n + i]) : (double)((float *)y)[r * n + i];
            assert_true(fabs(got - want) < (half ? 6e-4 * (fabs(want) + 1e-4) : logarithm ? 2e-6 : 1e-6));
          }
        }
      }
    }
  }
}

/* What lies far below the largest: to the end of the normal numbers, then nothing; NaN spoils its row. */
static void test_softmax_depths(void **state) {
  (void)state;
  static const float depths[] = {0, -0.5f, -80, -86.9f, -88, -104, -1000, -1e30f, -INFINITY};
  enum { N = sizeof depths / sizeof *depths };
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = N; n < 80; n += 7) {
      float *x = at_end(0, n * 4), *y = at_end(1, n * 4);
      for (size_t i = 0; i < n; i++) x[i] = 3 + depths[i % N];
      double sum = 0;
      for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - 3);
      k->softmax_rows(1, n, x, y, false, false, 0);
      for (size_t i = 0; i < n; i++) {
        const double want = exp((double)x[i] - 3) / sum;
        assert_true(i % N >= 6 ? y[i] == 0 : fabs((double)y[i] - want) <= 2e-6 * want + (i % N > 2 ? 0x1p-126 : 0));
      }
      x[n / 2] = NAN;
      k->softmax_rows(1, n, x, y, false, false, 0);
      for (size_t i = 0; i < n; i++) assert_true(isnan(y[i]));
    }
  }
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void test_lstm_cell(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < 70; n++) {
      float *gates = at_end(0, 4 * n * 4), *step = at_end(1, 4 * n * 4), *c = at_end(2, n * 4), *h = at_end(3, n * 4), old[70];
      fill(gates, 4 * n), fill(step, 4 * n), fill(c, n);
      for (size_t i = 0; i < 4 * n; i++) gates[i] *= i % 3 ? 2 : 30;
      memcpy(old, c, n * 4);
      k->lstm_cell(n, gates, step, c, h);
      for (size_t i = 0; i < n; i++) {
        double x[4];
        for (size_t j = 0; j < 4; j++) x[j] = (double)(gates[j * n + i] + step[j * n + i]);
        double cell = sigmoid(x[1]) * (double)old[i] + sigmoid(x[0]) * tanh(x[3]);
        assert_true(fabs((double)c[i] - cell) < 1e-6);
        assert_true(fabs((double)h[i] - sigmoid(x[2]) * tanh(cell)) < 1e-6);
      }
    }
  }
}

/* ---- the matrix product ---- */

static void test_gemm(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 300; round++) {
      size_t m = between(1, k->tile_rows), n = between(1, k->tile_columns), depth = between(0, 40), stride = depth + between(0, 5);
      bool half = rnd() % 2, accumulate = rnd() % 2, biased = rnd() % 2, clipped = rnd() % 2;
      float *a = at_end(0, ((m - 1) * stride + depth) * 4), *c = at_end(2, m * n * 4), *bias = at_end(3, n * 4);
      void *b = at_end(1, depth * k->tile_columns * (half ? 2 : 4));
      float before[64 * 64], low = clipped ? -1.0f : -INFINITY, high = clipped ? 1.0f : INFINITY;
      fill(a, (m - 1) * stride + depth), fill(c, m * n), fill(bias, n);
      memcpy(before, c, m * n * 4);
      for (size_t i = 0; i < depth * k->tile_columns; i++) {
        cml_f16 h = cml_f16_from_f32(uniform());
        if (half) ((cml_f16 *)b)[i] = h;
        else ((float *)b)[i] = cml_f16_to_f32(h);
      }
      k->gemm_tile(m, n, depth, a, stride, b, half, c, n, accumulate, biased ? bias : NULL, low, high);
      for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
          double want = (accumulate ? (double)before[i * n + j] : 0) + (biased ? (double)bias[j] : 0);
          for (size_t d = 0; d < depth; d++) {
            size_t at = d * k->tile_columns + j;
            want += (double)a[i * stride + d] * (double)(half ? cml_f16_to_f32(((cml_f16 *)b)[at]) : ((float *)b)[at]);
          }
          want = fmin(fmax(want, (double)low), (double)high);
          assert_true(fabs((double)c[i * n + j] - want) < 1e-4);
        }
    }
  }
}

/* Panels of halves, of floats, and of halves before one of floats. */
static void test_gemv_panels(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 200; round++) {
      const size_t nr = k->tile_columns, depth = between(0, 40);
      const int floats = rnd() % 2, halves = floats ? (int)between(0, 2) : 1, panels = halves + floats;
      const size_t n = (size_t)(panels - 1) * nr + between(1, nr);
      float *x = at_end(0, depth * 4), *y = at_end(2, n * 4);
      char *b = at_end(1, depth * nr * (size_t)(2 * halves + 4 * floats));
      double want[3 * 64] = {0};
      fill(x, depth);
      for (int p = 0; p < panels; p++)
        for (size_t i = 0; i < depth * nr; i++) {
          const cml_f16 h = cml_f16_from_f32(uniform());
          char *panel = b + (size_t)p * depth * nr * 2;
          if (p < halves) ((cml_f16 *)(void *)panel)[i] = h;
          else ((float *)(void *)panel)[i] = cml_f16_to_f32(h);
          want[(size_t)p * nr + i % nr] += (double)x[i / nr] * (double)cml_f16_to_f32(h);
        }
      k->gemv_panels(n, depth, x, b, halves, floats, y);
      for (size_t j = 0; j < n; j++) assert_true(fabs((double)y[j] - want[j]) < 1e-4);
    }
  }
}

/* Where in b the element of a tile's step d and column j lies: b packed in panels, or by columns. */
static size_t weight_at(const cml_kernels *k, bool slim, size_t all, size_t d, size_t j) {
  return slim ? j * all + d : (j / k->tile_columns * all + d) * k->tile_columns + j % k->tile_columns;
}

/* A tile with all that may follow it; the last row of the last stretch ends at the unmapped page. Slim: few columns whose weights lie one
 * column after the other. Rows from `split` on, where it is not 0, lie further away. */
static void check_tile(const cml_kernels *k, size_t rows, size_t columns, bool slim, size_t split) {
  size_t stretches = between(1, 3), depth = between(1, 50), all = stretches * depth, panels = (columns + k->tile_columns - 1) / k->tile_columns;
  size_t weights = all * (slim ? columns : panels * k->tile_columns);
  size_t stride = depth + between(0, 5), apart = rows * stride + between(0, 3), offsets[] = {0, apart, 2 * apart};
  bool half = rnd() % 2, to_half = rnd() % 2, biased = rnd() % 2, added = rnd() % 2, continued = !split && rnd() % 2;
  size_t a_jump = split ? between(0, 9) : 0, c_jump = split ? between(0, 9) : 0, size = to_half ? 2 : 4;
  size_t span = offsets[stretches - 1] + (rows - 1) * stride + a_jump + depth, count = rows * columns + c_jump;
  float *a = at_end(0, span * 4), *bias = at_end(3, columns * 4), *from = at_end(5, rows * columns * 4);
  void *b = at_end(1, weights * (half ? 2 : 4)), *c = at_end(2, count * size), *residual = at_end(4, count * size);
  fill(a, span), fill(bias, columns), fill(from, rows * columns);
  for (size_t i = 0; i < weights; i++) {
    cml_f16 h = cml_f16_from_f32(uniform());
    if (half) ((cml_f16 *)b)[i] = h;
    else ((float *)b)[i] = cml_f16_to_f32(h);
  }
  for (size_t i = 0; i < count; i++) {
    if (to_half) ((cml_f16 *)residual)[i] = cml_f16_from_f32(uniform());
    else ((float *)residual)[i] = uniform();
  }
  const bool widens = half && !slim && !split && columns > k->tile_columns / 2 && columns <= k->tile_columns && rnd() % 2;
  float *widened = widens ? at_end(6, weights * 4) : NULL;
  k->tile(&(cml_tile){.rows = rows, .columns = columns, .stretches = stretches, .widened = widened, .depth = depth, .offsets = offsets, .a = a, .a_stride = stride,
                      .split = split, .a_jump = a_jump, .c_jump = c_jump, .b = b, .b_half = half, .b_panel = all * k->tile_columns * (half ? 2 : 4), .b_column = slim ? all : 0, .bias = biased ? bias : NULL,
                      .from = continued ? from : NULL, .from_stride = columns, .residual = added ? residual : NULL,
                      .residual_stride = columns, .low = -2, .high = 1.5f, .c = c, .c_stride = columns, .c_half = to_half});
  for (size_t i = 0; widens && i < weights; i++) assert_true(widened[i] == cml_f16_to_f32(((cml_f16 *)b)[i]));
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < columns; j++) {
      bool further = split && i >= split;
      size_t at = i * columns + j + (further ? c_jump : 0);
      double want = (biased ? (double)bias[j] : 0) + (continued ? (double)from[at] : 0);
      if (added) want += to_half ? (double)cml_f16_to_f32(((cml_f16 *)residual)[at]) : (double)((float *)residual)[at];
      for (size_t d = 0; d < all; d++) {
        size_t w = weight_at(k, slim, all, d, j);
        want += (double)a[i * stride + (further ? a_jump : 0) + offsets[d / depth] + d % depth] * (double)(half ? cml_f16_to_f32(((cml_f16 *)b)[w]) : ((float *)b)[w]);
      }
      want = fmin(fmax(want, -2), 1.5);
      float got = to_half ? cml_f16_to_f32(((cml_f16 *)c)[at]) : ((float *)c)[at];
      assert_true(fabs((double)got - want) < (to_half ? 2e-3 : 1e-4));
    }
}

static void test_slim_tile(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k)
    for (int round = 0; round < 300; round++) check_tile(k, between(1, k->tile_rows), between(1, CML_SLIM), true, 0);
}

/* Panels, whole and ragged, and those that reach into the next by a vector at most. */
static void test_packed_tile(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    assert_true(k->wide_columns == k->tile_columns + k->width && k->wide_rows > 0);
    for (int round = 0; round < 600; round++) check_tile(k, between(1, k->tile_rows), between(1, k->tile_columns), false, 0);
    for (int round = 0; round < 600; round++) check_tile(k, between(1, k->wide_rows), between(k->tile_columns + 1, k->wide_columns), false, 0);
    for (int round = 0; k->tile_splits && round < 600; round++) {
      size_t rows = between(2, k->tile_rows);
      check_tile(k, rows, between(1, k->tile_columns), false, between(1, rows - 1));
    }
  }
}

static void test_gemv_rows(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t depth = 1; depth < 90; depth += depth < 18 ? 1 : 3)
      for (int round = 0; round < 8; round++) {
        int half = round % 2;
        size_t rows = between(1, 70), stride = depth + (round < 4 ? 0 : between(0, 3)), count = (rows - 1) * stride + depth;
        void *w = at_end(0, count * (half ? 2 : 4));
        float *x = at_end(1, depth * 4), *y = at_end(2, rows * 4);
        fill(x, depth);
        for (size_t i = 0; i < count; i++) {
          if (half) ((cml_f16 *)w)[i] = cml_f16_from_f32(uniform());
          else ((float *)w)[i] = uniform();
        }
        k->gemv_rows(rows, depth, w, half, stride, x, y);
        for (size_t r = 0; r < rows; r++) {
          double want = 0;
          for (size_t d = 0; d < depth; d++)
            want += (double)x[d] * (double)(half ? cml_f16_to_f32(((cml_f16 *)w)[r * stride + d]) : ((float *)w)[r * stride + d]);
          assert_true(fabs((double)y[r] - want) < 1e-4);
          float alone; /* the same bits, however rows are shared among threads */
          k->gemv_rows(1, depth, (char *)w + r * stride * (half ? 2 : 4), half, stride, x, &alone);
          assert_memory_equal(&alone, &y[r], 4);
        }
      }
  }
}

static void test_interpolate(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 500; round++) {
      size_t count = between(1, rnd() % 2 ? 60 : 250), n = between(1, 150);
      float *x = at_end(0, count * 4), *y = at_end(1, n * 4), *weight = at_end(2, n * 4);
      int32_t low[150];
      fill(x, count);
      if (rnd() % 4 == 0) x[between(0, count - 1)] = NAN;
      for (size_t i = 0; i < n; i++) { /* seldom so that neighbours lie further apart than a vector is long */
        double p = (double)i * (double)(count - 1) / (double)(n > 1 ? n - 1 : 1);
        low[i] = (int32_t)p;
        weight[i] = (float)(p - low[i]);
      }
      k->interpolate(n, low, weight, x, count, y);
      for (size_t i = 0; i < n; i++) {
        double a = (double)x[low[i]], want = weight[i] == 0 ? a : a + (double)weight[i] * ((double)x[low[i] + 1] - a);
        if (isnan(want)) assert_true(isnan(y[i]));
        else assert_true(fabs((double)y[i] - want) < 1e-6);
      }
    }
  }
}

/* Rows of a plane to a line, and that to outputs: nothing beyond the rows is touched. */
static void test_pool_lines(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 400; round++) {
      size_t taps = between(1, 5), width = between(1, 70), kernel = between(1, width < 6 ? width : 6), stride = between(1, 4), before = between(0, kernel - 1);
      size_t outputs = (before + width + between(0, kernel - 1) - kernel) / stride + 1, size = rnd() % 2 ? 2 : 4;
      cml_pool_fold fold = (cml_pool_fold)(rnd() % 3);
      float line[200], wide[5][70], scales[80];
      const void *rows[5];
      void *y = at_end(0, outputs * size);
      fill(scales, 80);
      for (size_t i = 0; i < 80; i++) scales[i] = 1 + fabsf(scales[i]);
      for (size_t i = 0; i < 200; i++) line[i] = fold == CML_POOL_MAX ? -INFINITY : 0;
      char *x = at_end(1, taps * width * size);
      for (size_t t = 0; t < taps; t++) {
        rows[t] = x + t * width * size;
        fill(wide[t], width);
        for (size_t i = 0; i < width; i++) {
          if (size == 2) wide[t][i] = cml_f16_to_f32(((cml_f16 *)(void *)x)[t * width + i] = cml_f16_from_f32(wide[t][i]));
          else ((float *)(void *)x)[t * width + i] = wide[t][i];
        }
      }
      size_t first = between(0, taps); /* in two calls */
      k->pool_rows(fold, size == 2, first, rows, width, false, line + before);
      k->pool_rows(fold, size == 2, taps - first, rows + first, width, true, line + before);
      bool scaled = fold == CML_POOL_SUM && rnd() % 2;
      float *at = at_end(2, outputs * 4);
      memcpy(at, scales, outputs * 4);
      const cml_pool_line slid = {.half = size == 2, .taps = taps, .width = width, .before = before, .kernel = kernel, .stride = stride, .outputs = outputs,
                                  .rows = rows, .scales = scaled ? at : NULL, .scale = .5f, .y = y};
      for (int way = 0; way < 2; way++) { /* in two steps, and in registers */
        if (way) memset(y, 0, outputs * size);
        if (way && !k->pool_slide(fold, &slid)) break;
        if (!way) k->pool_line(fold, line, kernel, stride, outputs, scaled ? at : NULL, .5f, size == 2, y);
        for (size_t o = 0; o < outputs; o++) {
          double want = fold == CML_POOL_MAX ? -INFINITY : 0;
          for (size_t t = 0; t < taps; t++)
            for (size_t v = 0; v < kernel; v++) {
              if (o * stride + v < before || o * stride + v >= before + width) continue;
              double e = (double)wide[t][o * stride + v - before];
              want = fold == CML_POOL_MAX ? fmax(want, e) : fold == CML_POOL_SUM ? want + e : want + e * e;
            }
          if (scaled) want *= (double)scales[o] * .5;
          if (fold == CML_POOL_SQUARES) want = sqrt(want);
          double got = size == 2 ? (double)cml_f16_to_f32(((cml_f16 *)y)[o]) : (double)((float *)y)[o];
          assert_true(isinf(want) ? got == want : fabs(got - want) <= (size == 2 ? 1e-3 : 1e-5) * (1 + fabs(want)) * (fold == CML_POOL_MAX ? 1 : (double)(taps * kernel)));
        }
      }
    }
  }
}

/* Lines of 3 x 3 windows: those that the definition gives, in any place of a plane. */
static void test_pool_strip(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    bool any = false;
    for (int round = 0; round < 600; round++) {
      const size_t height = between(1, 9), width = between(2, 70), before = between(0, 2), size = rnd() % 2 ? 2 : 4, lines = between(1, height);
      const size_t outputs = between(1, before + width), above = rnd() % 2, below = rnd() % 2, rows = lines + 2 - above - below;
      const cml_pool_fold fold = (cml_pool_fold)(rnd() % 3);
      float x[11][70];
      char *plane = at_end(0, rows * width * size), *y = at_end(1, lines * outputs * size);
      float *scales = at_end(2, outputs * 4);
      const bool scaled = fold == CML_POOL_SUM && rnd() % 2;
      fill(scales, outputs);
      for (size_t i = 0; i < rows * width; i++) {
        float v;
        fill(&v, 1);
        if (fold == CML_POOL_MAX && rnd() % 50 == 0) v = rnd() % 2 ? NAN : -INFINITY;
        if (size == 2) v = cml_f16_to_f32(((cml_f16 *)(void *)plane)[i] = cml_f16_from_f32(v));
        else ((float *)(void *)plane)[i] = v;
        x[i / width][i % width] = v;
      }
      const cml_pool_strip s = {.half = size == 2, .above = above, .below = below, .width = width, .before = before, .outputs = outputs, .lines = lines,
                                .x = plane, .scales = scaled ? scales : NULL, .scale = .5f, .y = y};
      if (!k->pool_strip(fold, &s)) continue;
      any = true;
      for (size_t l = 0; l < lines; l++)
        for (size_t o = 0; o < outputs; o++) {
          double want = fold == CML_POOL_MAX ? -INFINITY : 0;
          for (size_t u = 0; u < 3; u++)
            for (size_t v = 0; v < 3; v++) {
              if (l + u < above || l + u - above >= rows || o + v < before || o + v - before >= width) continue;
              const double e = (double)x[l + u - above][o + v - before];
              want = fold == CML_POOL_SUM ? want + e : fold == CML_POOL_SQUARES ? want + e * e : isnan(want) || isnan(e) ? NAN : fmax(want, e);
            }
          if (scaled) want *= (double)scales[o] * .5;
          if (fold == CML_POOL_SQUARES) want = sqrt(want);
          const double got = size == 2 ? (double)cml_f16_to_f32(((cml_f16 *)(void *)y)[l * outputs + o]) : (double)((float *)(void *)y)[l * outputs + o];
          assert_true(isnan(want) ? isnan(got) : isinf(want) ? got == want : fabs(got - want) <= (size == 2 ? 1e-3 : 1e-6) * (1 + fabs(want)) * (fold == CML_POOL_MAX ? 1 : 9));
        }
    }
    assert_true(any);
  }
}

/* The first extreme of a row, and the first NaN before all. */
static void test_first_extreme(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 500; round++) {
      const size_t n = between(1, 90), size = rnd() % 2 ? 2 : 4;
      const bool lowest = rnd() % 2, infinite = rnd() % 8 == 0;
      char *x = at_end(0, n * size);
      float v[90], value;
      fill(v, n);
      size_t want = 0;
      for (size_t i = 0; i < n; i++) {
        v[i] = infinite ? (lowest ? INFINITY : -INFINITY) : rnd() % 60 ? roundf(v[i] * 4) : rnd() % 4 ? INFINITY : rnd() % 2 ? -INFINITY : NAN;
        if (size == 2) ((cml_f16 *)(void *)x)[i] = cml_f16_from_f32(v[i]);
        else ((float *)(void *)x)[i] = v[i];
        if (!isnan(v[want]) && (isnan(v[i]) || (lowest ? v[i] < v[want] : v[i] > v[want]))) want = i;
      }
      assert_int_equal(k->first_extreme(x, size == 2, n, lowest, &value), want);
      assert_true(isnan(v[want]) ? isnan(value) : value == v[want]);
    }
  }
}

/* The first few of columns: those that counting finds, for equal ones the earlier, NaN last. */
static void test_sort(void **state) {
  (void)state;
  enum { C = CML_SORT_COLUMNS, MOST = 9 };
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 60; round++) {
      const size_t n = between(1, 40), levels = between(1, n < MOST ? n : MOST), width = between(1, C);
      const bool descending = rnd() % 2;
      int32_t *keys = at_end(0, levels * C * 4), *rows = at_end(1, levels * C * 4), *row = at_end(2, C * 4);
      float *x = at_end(3, width * 4), all[40][C];
      memset(row, 0, C * 4);
      for (size_t r = 0; r < n; r++) {
        fill(x, width);
        for (size_t i = 0; i < width; i++) {
          x[i] = rnd() % 16 ? roundf(x[i] * 4) : rnd() % 4 ? INFINITY : NAN; /* many equal ones */
          if (x[i] == 0 && rnd() % 2) x[i] = -0.0f;
          all[r][i] = x[i];
        }
        k->sort_keys(x, width, descending, row);
        k->sort_insert(r < levels ? r : levels, r < levels, row, (int32_t)r, keys, rows);
      }
      for (size_t i = 0; i < width; i++)
        for (size_t r = 0; r < n; r++) {
          size_t before = 0;
          for (size_t o = 0; o < n; o++) {
            const float a = all[o][i], b = all[r][i];
            const bool less = isnan(b) ? !isnan(a) : descending ? a > b : a < b, same = isnan(b) ? isnan(a) : a == b;
            before += less || (same && o < r);
          }
          if (before < levels) assert_int_equal(rows[before * C + i], r);
        }
    }
  }
}

static void test_rms_norm(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 300; round++) {
      size_t rows = between(1, 4), n = between(1, 200);
      bool half = rnd() % 2, scaled = rnd() % 2, in_place = rnd() % 2;
      float *wide = malloc(rows * n * sizeof *wide), by[200];
      size_t size = half ? 2 : 4;
      void *x = at_end(0, rows * n * size), *y = in_place ? x : at_end(1, rows * n * size), *gamma = at_end(2, n * size);
      fill(wide, rows * n);
      fill(by, n);
      for (size_t i = 0; i < rows * n; i++) {
        if (half) wide[i] = cml_f16_to_f32(((cml_f16 *)x)[i] = cml_f16_from_f32(wide[i]));
        else ((float *)x)[i] = wide[i];
      }
      for (size_t i = 0; i < n; i++) {
        if (half) by[i] = cml_f16_to_f32(((cml_f16 *)gamma)[i] = cml_f16_from_f32(by[i]));
        else ((float *)gamma)[i] = by[i];
      }
      k->rms_norm(rows, n, x, y, half, scaled ? gamma : NULL, 1e-3f);
      for (size_t r = 0; r < rows; r++) {
        double squares = 0;
        for (size_t i = 0; i < n; i++) squares += (double)wide[r * n + i] * (double)wide[r * n + i];
        for (size_t i = 0; i < n; i++) {
          double want = (double)wide[r * n + i] / sqrt(squares / (double)n + 1e-3) * (scaled ? (double)by[i] : 1);
          double got = (double)(half ? cml_f16_to_f32(((cml_f16 *)y)[r * n + i]) : ((float *)y)[r * n + i]);
          assert_true(fabs(got - want) <= (half ? 1e-3 : 1e-6) * fmax(1, fabs(want)));
        }
      }
      free(wide);
    }
  }
}

static void test_attend(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 200; round++) {
      size_t queries = between(1, CML_ATTEND), keys = between(1, 40), depth = between(1, 90), row = depth + between(0, 3), stride = keys + between(0, 2);
      bool half = rnd() % 2;
      size_t count = (keys - 1) * row + depth;
      void *w = at_end(0, count * (half ? 2 : 4));
      float *q = at_end(1, queries * depth * 4), *p = at_end(2, ((queries - 1) * stride + keys) * 4), *wide = malloc(count * sizeof *wide);
      fill(q, queries * depth);
      fill(wide, count);
      for (size_t i = 0; i < count; i++) {
        if (half) wide[i] = cml_f16_to_f32(((cml_f16 *)w)[i] = cml_f16_from_f32(wide[i]));
        else ((float *)w)[i] = wide[i];
      }
      fill(p, (queries - 1) * stride + keys);
      k->attend_values(queries, keys, depth, p, stride, w, half, row, q, depth);
      for (size_t v = 0; v < queries; v++)
        for (size_t d = 0; d < depth; d++) {
          double want = 0;
          for (size_t s = 0; s < keys; s++) want += (double)p[v * stride + s] * (double)wide[s * row + d];
          assert_true(fabs((double)q[v * depth + d] - want) < 1e-4);
        }
      free(wide);
    }
  }
}

static void test_pack_panel(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 300; round++) {
      size_t depth = between(0, 40), n = between(1, k->tile_columns), stride = depth + between(0, 3), nr = k->tile_columns;
      bool half = rnd() % 2, from_half = half || rnd() % 2;
      size_t size = half ? 2 : 4, from_size = from_half ? 2 : 4, count = depth ? (n - 1) * stride + depth : 0;
      void *from = at_end(0, count * from_size), *to = at_end(1, depth * nr * size);
      for (size_t i = 0; i < count; i++) {
        if (from_half) ((cml_f16 *)from)[i] = cml_f16_from_f32(uniform());
        else ((float *)from)[i] = uniform();
      }
      k->pack_panel(to, half, from, from_half, depth, n, stride);
      for (size_t d = 0; d < depth; d++)
        for (size_t j = 0; j < nr; j++) {
          size_t at = j * stride + d;
          float want = j >= n ? 0 : from_half ? cml_f16_to_f32(((cml_f16 *)from)[at]) : ((float *)from)[at];
          float got = half ? cml_f16_to_f32(((cml_f16 *)to)[d * nr + j]) : ((float *)to)[d * nr + j];
          assert_true(got == want);
        }
    }
  }
}

static void test_transpose(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 400; round++) {
      size_t rows = between(1, round % 8 ? 40 : 3), columns = between(1, 40);
      if (round % 8 < 4) rows = round % 8 < 2 ? between(1, 8) : between(1, 160), columns = round % 8 < 2 ? between(1, 160) : between(1, 8);
      size_t x_stride = columns + between(0, 3), y_stride = rows + between(0, 2);
      size_t x_count = (rows - 1) * x_stride + columns, y_count = (columns - 1) * y_stride + rows;
      uint32_t *x = at_end(0, x_count * 4), *y = at_end(1, y_count * 4);
      for (size_t i = 0; i < x_count; i++) x[i] = rnd(); /* any bits, NaN too */
      memset(y, 0xa5, y_count * 4);
      k->transpose(rows, columns, (const float *)x, x_stride, (float *)y, y_stride);
      for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < y_stride && c * y_stride + r < y_count; r++)
          assert_int_equal(y[c * y_stride + r], r < rows ? x[r * x_stride + c] : 0xa5a5a5a5);
      uint16_t *x16 = at_end(0, x_count * 2), *y16 = at_end(1, y_count * 2);
      for (size_t i = 0; i < x_count; i++) x16[i] = (uint16_t)rnd();
      memset(y16, 0xa5, y_count * 2);
      k->transpose_16(rows, columns, x16, x_stride, y16, y_stride);
      for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < y_stride && c * y_stride + r < y_count; r++)
          assert_int_equal(y16[c * y_stride + r], r < rows ? x16[r * x_stride + c] : 0xa5a5);
    }
  }
}

/* Rows between guard pages, NaN in some. */
static void test_fold_rows(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 300; round++) {
      size_t rows = between(1, 40), n = between(1, round % 4 ? 20 : 90), at = rnd() % 3 ? SIZE_MAX : rnd() % (rows * n);
      bool half = rnd() % 2;
      float *x = at_end(0, rows * n * 4), *y = at_end(1, rows * 4);
      fill(x, rows * n);
      if (at != SIZE_MAX) x[at] = NAN;
      cml_f16 *x16 = at_end(2, rows * n * 2);
      k->f32_to_f16(x, x16, rows * n);
      if (half) k->f16_to_f32(x16, x, rows * n);
      for (int f = CML_FOLD_SUM; f <= CML_FOLD_MIN; f++) {
        k->fold_rows((cml_row_fold)f, rows, n, half ? (const void *)x16 : x, half, y);
        for (size_t r = 0; r < rows; r++) {
          double want = f == CML_FOLD_MAX ? -INFINITY : f == CML_FOLD_MIN ? INFINITY : 0;
          for (size_t i = 0; i < n; i++) {
            double v = (double)x[r * n + i];
            want = f == CML_FOLD_MAX ? fmax(want, v) : f == CML_FOLD_MIN ? fmin(want, v) : want + (f == CML_FOLD_SUM ? v : f == CML_FOLD_ABS ? fabs(v) : v * v);
          }
          if (at != SIZE_MAX && at / n == r) assert_true(isnan(y[r]));
          else assert_true(fabs((double)y[r] - want) < 1e-5 * (double)n && (f < CML_FOLD_MAX || (double)y[r] == want));
        }
      }
    }
  }
}

static double any_at(const void *p, bool half, int64_t i) { return half ? (double)cml_f16_to_f32(((const cml_f16 *)p)[i]) : (double)((const float *)p)[i]; }

static void test_depthwise(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 400; round++) {
      size_t channels = between(1, 40), kh = between(1, 5), kw = between(1, rnd() % 8 ? 11 : 25), outputs = between(1, rnd() % 4 ? 19 : 60), group = between(1, 8);
      if (rnd() % 2 || group > k->width) group = 1;
      if (group > 1 && rnd() % 2) kw = 3;
      if (group == 1 && rnd() % 3 == 0) channels = between(1, k->width / 2);
      channels = (channels + group - 1) / group * group;
      size_t each = group == 1 && rnd() % 3 == 0 ? between(2, 20) : 1, inputs = (channels + each - 1) / each;
      int64_t stride = (int64_t)between(1, 3), dilation = rnd() % 3 ? 1 : (int64_t)between(2, 5), first = rnd() % 4 == 0 ? 0 : -(int64_t)between(0, round % 4 ? 5 : 20); /* some outputs, or all, before the first column */
      int64_t columns = (int64_t)between(1, outputs * (size_t)stride + 4);
      if (rnd() % 3 == 0) columns = (int64_t)(outputs - 1) * stride + (int64_t)(kw - 1) * dilation + 1; /* nothing is behind them */
      bool x_half = rnd() % 2, y_half = rnd() % 2;
      size_t count = (size_t)columns * inputs, x_size = x_half ? 2 : 4, y_size = y_half ? 2 : 4;
      float *w = at_end(1, kh * kw * group * channels * 4), *bias = at_end(2, channels * 4);
      char *x = (char *)at_end(0, kh * count * x_size);
      void *y = at_end(3, outputs * channels * y_size);
      const void *rows[5];
      fill(w, kh * kw * group * channels), fill(bias, channels);
      for (size_t i = 0; i < kh * count; i++) {
        float v;
        fill(&v, 1);
        if (x_half) ((cml_f16 *)(void *)x)[i] = cml_f16_from_f32(v);
        else ((float *)(void *)x)[i] = v;
      }
      for (size_t r = 0; r < kh; r++) rows[r] = rnd() % 4 ? x + r * count * x_size : NULL;
      k->depthwise(&(cml_depthwise){.outputs = outputs, .channels = channels, .kh = kh, .kw = kw, .group = group, .multiplier = each, .rows = rows, .x_half = x_half, .stride = stride,
                                    .dilation = dilation, .first = first, .columns = columns, .pixel = inputs, .w = w, .w_stride = channels,
                                    .bias = bias, .low = -0.5f, .high = 0.75f, .y = y, .y_pixel = channels, .y_half = y_half});
      for (size_t o = 0; o < outputs; o++)
        for (size_t c = 0; c < channels; c++) {
          double want = (double)bias[c];
          for (size_t t = 0; t < kh * kw; t++) {
            int64_t column = first + (int64_t)o * stride + (int64_t)(t % kw) * dilation;
            for (size_t i = 0; rows[t / kw] && column >= 0 && column < columns && i < group; i++)
              want += any_at(rows[t / kw], x_half, column * (int64_t)inputs + (int64_t)(c / each / group * group + i)) * (double)w[(t * group + i) * channels + c];
          }
          assert_true(fabs(any_at(y, y_half, (int64_t)(o * channels + c)) - fmin(fmax(want, -0.5), 0.75)) < (y_half ? 5e-4 : 4e-5));
        }
    }
  }
}

/* Lines of sums of taps, between guard pages: against sums in double. */
static void test_plane_taps(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 300; round++) {
      const size_t outputs = between(1, CML_PLANE_OUTPUTS), taps = between(1, 40), n = between(1, 300), stride = n + between(0, 20);
      size_t offsets[40], most = 0;
      for (size_t t = 0; t < taps; t++) offsets[t] = between(0, 200), most = offsets[t] > most ? offsets[t] : most;
      float *x = at_end(0, (most + n) * 4), *w = at_end(1, taps * outputs * 4), *bias = rnd() % 2 ? at_end(2, outputs * 4) : NULL, *y = at_end(3, ((outputs - 1) * stride + n) * 4);
      fill(x, most + n), fill(w, taps * outputs);
      if (bias) fill(bias, outputs);
      k->plane_taps(&(cml_plane_taps){.outputs = outputs, .taps = taps, .offsets = offsets, .x = x, .weights = w, .bias = bias, .n = n, .y = y, .stride = stride});
      for (size_t o = 0; o < outputs; o++)
        for (size_t i = 0; i < n; i++) {
          double want = bias ? (double)bias[o] : 0;
          for (size_t t = 0; t < taps; t++) want += (double)w[t * outputs + o] * (double)x[offsets[t] + i];
          assert_true(fabs((double)y[o * stride + i] - want) < 4e-4);
        }
    }
  }
}

/* Outputs that sum over all channels, between guard pages: against sums in double. */
static void test_channel_sums(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 400; round++) {
      const size_t channels = between(1, 70), kh = between(1, 4), kw = rnd() % 2 ? 3 : between(1, 16), outputs = between(1, 30), sums = between(1, 5), apart = sums + rnd() % 3;
      const int64_t first = (int64_t)between(0, 9) - 6, columns = (int64_t)between(1, outputs + 8);
      const bool half = rnd() % 2;
      const size_t count = (size_t)columns * channels, all = kh * kw * channels;
      char *x = (char *)at_end(0, kh * count * (half ? 2 : 4));
      float *w = at_end(1, sums * all * 4), *bias = at_end(2, sums * 4), *y = at_end(3, ((outputs - 1) * apart + sums) * 4);
      const void *rows[4];
      fill(w, sums * all), fill(bias, sums);
      for (size_t i = 0; i < kh * count; i++) {
        float v;
        fill(&v, 1);
        if (half) ((cml_f16 *)(void *)x)[i] = cml_f16_from_f32(v);
        else ((float *)(void *)x)[i] = v;
      }
      for (size_t r = 0; r < kh; r++) rows[r] = rnd() % 4 ? x + r * count * (half ? 2 : 4) : NULL;
      k->depthwise(&(cml_depthwise){.outputs = outputs, .channels = channels, .kh = kh, .kw = kw, .sums = sums, .rows = rows, .x_half = half, .stride = 1, .dilation = 1,
                                    .first = first, .columns = columns, .pixel = channels, .w = w, .w_stride = channels, .bias = rnd() % 2 ? bias : memset(bias, 0, sums * 4),
                                    .low = -2, .high = 3, .y = y, .y_pixel = apart});
      for (size_t o = 0; o < outputs; o++)
        for (size_t j = 0; j < sums; j++) {
          double want = (double)bias[j];
          for (size_t t = 0; t < kh * kw; t++) {
            const int64_t column = first + (int64_t)(o + t % kw);
            for (size_t c = 0; rows[t / kw] && column >= 0 && column < columns && c < channels; c++)
              want += any_at(rows[t / kw], half, column * (int64_t)channels + (int64_t)c) * (double)w[j * all + t * channels + c];
          }
          assert_true(fabs((double)y[o * apart + j] - fmin(fmax(want, -2), 3)) < 1e-4);
        }
    }
  }
}

/* Rows anywhere, to floats or halves: the same results as over one array. */
static void test_unary_rows(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 400; round++) {
      bool few = rnd() % 3 == 0; /* columns, of many rows */
      size_t rows = few ? between(1, 200) : between(1, 5), columns = few ? between(1, 9) : between(1, 40);
      size_t x_stride = columns + between(0, 3), y_stride = columns + (few ? between(0, 1) : between(0, 3));
      cml_unary f = (cml_unary)(rnd() % CML_UNARY_COUNT);
      bool half = rnd() % 2;
      float *x = at_end(0, ((rows - 1) * x_stride + columns) * 4), want[40];
      void *y = at_end(1, ((rows - 1) * y_stride + columns) * (half ? 2 : 4));
      cml_f16 narrow[40];
      fill(x, (rows - 1) * x_stride + columns);
      k->unary_rows(f, rows, columns, x, x_stride, y, y_stride, half, 0.2f, 0.5f);
      for (size_t r = 0; r < rows; r++) {
        k->unary(f, x + r * x_stride, want, columns, 0.2f, 0.5f);
        k->f32_to_f16(want, narrow, columns);
        if (half) assert_memory_equal((cml_f16 *)y + r * y_stride, narrow, columns * 2);
        else assert_memory_equal((float *)y + r * y_stride, want, columns * 4);
      }
    }
  }
}

/* ---- speed ---- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int bench(void) {
  const cml_kernels *k;
  static float x[1 << 16], y[1 << 16], c[64 * 64];
  fill(x, 1 << 16), fill(y, 1 << 16);
  EACH_TABLE(k) {
    for (size_t depth = 64; depth <= 512; depth *= 2) {
      double begin = now(), spent;
      size_t n = 0;
      for (; (spent = now() - begin) < 0.1; n += 100)
        for (int i = 0; i < 100; i++)
          k->gemm_tile(k->tile_rows, k->tile_columns, depth, x, depth + 16, y, false, c, k->tile_columns, true, NULL, -INFINITY, INFINITY);
      printf("%s gemm_tile %zux%zu depth %zu: %.1f GFLOP/s\n", k->name, k->tile_rows, k->tile_columns, depth,
             2e-9 * (double)(k->tile_rows * k->tile_columns * depth * n) / spent);
    }
    for (int f = 0; f < CML_UNARY_COUNT; f++) {
      double begin = now(), spent;
      size_t n = 0;
      for (; (spent = now() - begin) < 0.02; n += 4096) k->unary((cml_unary)f, x, y, 4096, 0.2f, 0.5f);
      printf("%s %s: %.2f ns a float\n", k->name, unary_names[f], 1e9 * spent / (double)n);
    }
  }
  return 0;
}

/* ---- a softmax in pieces ---- */

/* Scores with some left out, and with masks added: all pieces together make each row's softmax. */
static void test_softening(void **state) {
  (void)state;
  enum { ROWS = 3, MOST = 150 };
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t n = 1; n < MOST; n += 1 + n / 5) {
      double want[ROWS][MOST], sums[ROWS] = {0};
      float *x = at_end(0, ROWS * n * 4), *mask = at_end(1, ROWS * n * 4), tops[ROWS], totals[ROWS] = {0}, corrections[ROWS], done[ROWS][MOST];
      cml_f16 *halves = at_end(2, ROWS * n * 2);
      fill(x, ROWS * n), fill(mask, ROWS * n);
      for (size_t i = 0; i < ROWS * n; i++) mask[i] = rnd() % 4 ? mask[i] * 20 : -INFINITY, halves[i] = cml_f16_from_f32(mask[i]), mask[i] = cml_f16_to_f32(halves[i]);
      for (size_t r = 0; r < ROWS; r++) {
        tops[r] = -INFINITY;
        for (size_t i = 0; i < n; i++) sums[r] += want[r][i] = exp((double)x[r * n + i] + (double)mask[r * n + i]);
      }
      size_t first = n / 3; /* two pieces: the second may have larger scores */
      for (int half = 0; half < 2; half++) {
        size_t from = half ? first : 0, count = half ? n - first : first;
        if (!count) continue;
        k->add_rows(ROWS, count, x + from, n, half ? (void *)(halves + from) : mask + from, half, n);
        k->soften_rows(ROWS, count, x + from, n, tops, totals, corrections);
        for (size_t r = 0; r < ROWS; r++) {
          for (size_t i = 0; i < from; i++) done[r][i] *= corrections[r];
          for (size_t i = from; i < from + count; i++) done[r][i] = x[r * n + i];
        }
      }
      for (size_t r = 0; r < ROWS; r++)
        for (size_t i = 0; i < n; i++)
          if (sums[r] > 0) assert_true(fabs((double)done[r][i] / (double)totals[r] - want[r][i] / sums[r]) < 2e-6);
          else assert_true(totals[r] == 0 && done[r][i] == 0);
    }
    float x[] = {-INFINITY, NAN, 1, 2}, tops[] = {-INFINITY, -INFINITY}, totals[] = {0, 0}, corrections[2];
    k->soften_rows(2, 2, x, 2, tops, totals, corrections);
    assert_true(x[0] == 0 && isnan(x[1]) && isnan(totals[0]) && x[3] == 1 && fabs((double)totals[1] - 1 - exp(-1)) < 1e-6);
  }
}

/* ---- sampling ---- */

/* The sum of what is around (row, column), pixel by pixel of the image and of a frame of padding. */
static double sampled(const float *x, int height, int width, double row, double column, bool border, bool nearest, double pad) {
  if (border) {
    row = row > 0 ? fmin(row, height - 1) : 0, column = column > 0 ? fmin(column, width - 1) : 0;
  } else if (!(row > -1 && row < height && column > -1 && column < width)) {
    return pad;
  }
  if (nearest) row = floor(row + 0.5), column = floor(column + 0.5);
  double sum = 0;
  for (int r = -1; r <= height; r++)
    for (int c = -1; c <= width; c++) {
      double weight = fmax(0, 1 - fabs(row - r)) * fmax(0, 1 - fabs(column - c));
      if (weight > 0) sum += weight * (r < 0 || r >= height || c < 0 || c >= width ? pad : (double)x[r * width + c]);
    }
  return sum;
}

static void test_sampling(void **state) {
  (void)state;
  static const double wild[] = {NAN, INFINITY, -INFINITY, 1e300, -1e300, -0.5, -1, 0};
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (size_t round = 0; round < 400; round++) {
      int height = 1 + (int)(rnd() % 7), width = 1 + (int)(rnd() % 9);
      size_t n = 1 + rnd() % CML_SAMPLES, pixels = (size_t)(height * width);
      bool border = rnd() % 2, nearest = rnd() % 2, half = rnd() % 2;
      double rows[CML_SAMPLES], columns[CML_SAMPLES];
      for (size_t i = 0; i < CML_SAMPLES; i++) {
        rows[i] = rnd() % 8 ? (double)uniform() * (height + 2) : wild[rnd() % 8];
        columns[i] = rnd() % 8 ? (double)uniform() * (width + 2) : wild[rnd() % 8];
      }
      float *x = at_end(0, pixels * 4), values[CML_SAMPLES];
      fill(x, pixels);
      cml_f16 *halves = at_end(1, pixels * 2);
      for (size_t i = 0; i < pixels; i++) halves[i] = cml_f16_from_f32(x[i]), x[i] = cml_f16_to_f32(halves[i]);
      cml_axis_points vertical, horizontal;
      cml_plane_points points;
      k->sample_axis(rows, n, height, border, nearest, &vertical);
      k->sample_axis(columns, n, width, border, nearest, &horizontal);
      k->sample_points(&vertical, &horizontal, n, width, 2.5f, &points);
      void *y = at_end(2, n * (half ? 2 : 4));
      k->sample_plane(&points, n, half ? (void *)halves : x, half, y);
      if (half) k->f16_to_f32(y, values, n);
      else memcpy(values, y, n * 4);
      for (size_t i = 0; i < n; i++)
        assert_true(fabs(sampled(x, height, width, rows[i], columns[i], border, nearest, 2.5) - (double)values[i]) < (half ? 2e-3 : 2e-6));
    }
  }
}

/* ---- Fourier transforms, of floats or doubles, against their definition ---- */

static double part_at(const cml_fourier_kernels *f, const void *x, size_t i) { return f->width == 8 ? ((const double *)x)[i] : (double)((const float *)x)[i]; }
static void set_part(const cml_fourier_kernels *f, void *x, size_t i, double v) {
  if (f->width == 8) ((double *)x)[i] = v;
  else ((float *)x)[i] = (float)v;
}

/* exp(sign 2 pi i k / n) for k from 0 on: real parts, then the imaginary ones. */
static void put_units(const cml_fourier_kernels *f, void *to, size_t n, size_t count, double sign) {
  for (size_t k = 0; k < count; k++) {
    double angle = 2 * M_PI * (double)k / (double)n;
    set_part(f, to, k, cos(angle));
    set_part(f, to, count + k, sign * sin(angle));
  }
}

/* Number k of the transform of n pairs. */
static void by_definition(const double *given, size_t n, size_t k, double sign, double *re, double *im) {
  *re = *im = 0;
  for (size_t j = 0; j < n; j++) {
    double angle = 2 * M_PI * (double)(j * k % n) / (double)n, c = cos(angle), s = sign * sin(angle);
    *re += given[2 * j] * c - given[2 * j + 1] * s;
    *im += given[2 * j] * s + given[2 * j + 1] * c;
  }
}

static void close_to(const cml_fourier_kernels *f, double got, double wanted, size_t n) { assert_true(fabs(got - wanted) < (f->width == 8 ? 1e-14 : 3e-6) * (double)(n + 4)); }

static void set_passes(const cml_fourier_kernels *f, cml_fourier *p, const uint8_t *radices, double sign, void *roots, void *units) {
  *p = (cml_fourier){.n = 1, .sign = sign, .roots = roots, .units = units};
  char *to = units;
  for (; p->passes < 4 && radices[p->passes] > 1; p->passes++) {
    const uint8_t r = p->radix[p->passes] = radices[p->passes];
    p->n *= r;
    if (CML_FOURIER_TABLE(r)) put_units(f, to, r, r, sign), to += 2 * r * f->width;
  }
  put_units(f, roots, p->n, p->n, sign);
}

/* Lines in lanes by every order of radices that is given, and two reals in each number, there and back. */
static void fourier_lanes(const cml_fourier_kernels *f, const uint8_t *radices, double sign) {
  static double roots[2048], units[2048], turns[2048];
  cml_fourier p;
  set_passes(f, &p, radices, sign, roots, units);
  const size_t n = p.n, lanes = f->lanes, size = (n + 1) * 2 * lanes * f->width;
  void *x = at_end(0, size), *y = at_end(1, size);
  double *given = malloc(2 * n * lanes * sizeof *given);
  assert_non_null(given);
  for (size_t l = 0; l < lanes; l++)
    for (size_t i = 0; i < 2 * n; i++) {
      given[l * 2 * n + i] = (double)uniform();
      set_part(f, x, i / 2 * 2 * lanes + i % 2 * lanes + l, given[l * 2 * n + i]);
    }
  void *got = f->run(&p, x, y);
  for (size_t l = 0; l < lanes; l += lanes - 1)
    for (size_t k = 0; k < n; k++) {
      double re, im;
      by_definition(given + l * 2 * n, n, k, sign, &re, &im);
      close_to(f, part_at(f, got, 2 * k * lanes + l), re, n);
      close_to(f, part_at(f, got, (2 * k + 1) * lanes + l), im, n);
    }
  if (sign < 0) {
    put_units(f, turns, 2 * n, n / 2 + 1, -1);
    f->lane_reals(n, -1, turns, got);
    for (size_t k = 0; k <= n; k++) {
      double re = 0, im = 0;
      for (size_t t = 0; t < 2 * n; t++) {
        double angle = 2 * M_PI * (double)(t * k % (2 * n)) / (double)(2 * n);
        re += given[t] * cos(angle), im -= given[t] * sin(angle);
      }
      close_to(f, part_at(f, got, 2 * k * lanes), re, n);
      close_to(f, part_at(f, got, (2 * k + 1) * lanes), im, n);
    }
    put_units(f, turns, 2 * n, n / 2 + 1, 1);
    f->lane_reals(n, 1, turns, got);
    set_passes(f, &p, radices, 1, roots, units);
    got = f->run(&p, got, got == x ? y : x);
    for (size_t i = 0; i < 2 * n; i++) close_to(f, part_at(f, got, i / 2 * 2 * lanes + i % 2 * lanes), given[i] * 2 * (double)n, 4 * n);
  }
  free(given);
}

/* A line by itself, of `rows` times `columns` numbers. */
static void fourier_line(const cml_fourier_kernels *f, const uint8_t *rows, const uint8_t *columns, double sign) {
  static double roots[2][2048], units[2][2048], turns[2048];
  cml_fourier_line l = {0};
  set_passes(f, &l.down, rows, sign, roots[0], units[0]);
  set_passes(f, &l.across, columns, sign, roots[1], units[1]);
  l.rows = l.down.n, l.columns = l.across.n;
  if (l.columns > f->lanes) return;
  const size_t n = l.rows * l.columns, lanes = f->lanes;
  l.im = n + 1;
  const size_t reals = 2 * l.im + lanes > l.rows * 2 * lanes ? 2 * l.im + lanes : l.rows * 2 * lanes;
  char *x = at_end(0, reals * f->width), *y = at_end(1, reals * f->width), *pairs = at_end(2, (2 * n + 2) * f->width);
  double *given = malloc(2 * n * sizeof *given);
  void *scratch = malloc(f->turns);
  assert_true(given && scratch);
  memset(y, 0, reals * f->width);
  for (size_t i = 0; i < 2 * n; i++) given[i] = (double)uniform(), set_part(f, pairs, i, given[i]);
  f->part(1, n, pairs, 0, y, l.im, 0);
  f->begin_line(&l, scratch);
  f->spread(&l, y, x);
  char *columns_of = f->run(&l.down, x, y), *out = columns_of == x ? y : x;
  f->across(&l, columns_of, out);
  for (size_t k = 0; k < n; k++) {
    double re, im;
    by_definition(given, n, k, sign, &re, &im);
    close_to(f, part_at(f, out, k), re, n);
    close_to(f, part_at(f, out, l.im + k), im, n);
  }
  if (sign < 0) { /* the same as 2 n reals, and back */
    put_units(f, turns, 2 * n, n / 2 + 1, -1);
    f->line_reals(n, l.im, -1, turns, out, columns_of);
    f->join(1, n + 1, columns_of, l.im, 0, pairs, 0);
    for (size_t k = 0; k <= n; k++) {
      double re = 0, im = 0;
      for (size_t t = 0; t < 2 * n; t++) {
        double angle = 2 * M_PI * (double)(t * k % (2 * n)) / (double)(2 * n);
        re += given[t] * cos(angle), im -= given[t] * sin(angle);
      }
      close_to(f, part_at(f, pairs, 2 * k), re, n);
      close_to(f, part_at(f, pairs, 2 * k + 1), im, n);
    }
    put_units(f, turns, 2 * n, n / 2 + 1, 1);
    f->line_reals(n, l.im, 1, turns, columns_of, out);
    for (size_t k = 0; k < n; k++) { /* twice the transform of n numbers, in which each holds two reals */
      double re, im;
      by_definition(given, n, k, -1, &re, &im);
      close_to(f, part_at(f, out, k), 2 * re, 2 * n);
      close_to(f, part_at(f, out, l.im + k), 2 * im, 2 * n);
    }
  }
  free(given);
  free(scratch);
}

static void test_fourier(void **state) {
  (void)state;
  static const uint8_t radices[][4] = {{1}, {2}, {3}, {4}, {5}, {8}, {7}, {2, 2}, {8, 4}, {4, 8, 2}, {8, 3}, {3, 8}, {5, 5}, {8, 5, 5}, {2, 3, 7}, {11, 3}, {3, 3, 3, 4}, {97}, {2, 97}, {5, 8, 3, 2}};
  static const uint8_t columns[][4] = {{1}, {2}, {3}, {4}, {5}, {7}, {8}, {11}, {3, 4}, {5, 3}, {4, 4}};
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int wide = 0; wide < 2; wide++) {
      const cml_fourier_kernels *f = wide ? k->fourier64 : k->fourier;
      for (size_t r = 0; r < sizeof radices / sizeof *radices; r++)
        for (int sign = -1; sign < 2; sign += 2) {
          fourier_lanes(f, radices[r], sign);
          for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
            if (r < 13 && (r + c) % 2 == 0) fourier_line(f, radices[r], columns[c], sign);
        }
    }
  }
}

/* Exponentials, turned numbers, mirrored ones, products. */
static void test_fourier_parts(void **state) {
  (void)state;
  const cml_kernels *t;
  EACH_TABLE(t) {
    for (int wide = 0; wide < 2; wide++) {
      const cml_fourier_kernels *f = wide ? t->fourier64 : t->fourier;
      const double off = wide ? 3e-16 : 1.2e-7, n = 1048573;
      double k[37];
      for (size_t i = 0; i < 37; i++) k[i] = i == 36 ? n : (double)((i * 7919 + 1) * 13 * i % 1048573);
      char *re = at_end(0, 37 * f->width), *im = at_end(1, 37 * f->width);
      f->roots(n, -1, 37, k, re, im);
      for (size_t i = 0; i < 37; i++) {
        long double angle = -2 * 3.14159265358979323846264338327950288L * (long double)k[i] / (long double)n;
        assert_true(fabs(part_at(f, re, i) - (double)cosl(angle)) < off && fabs(part_at(f, im, i) - (double)sinl(angle)) < off);
      }
      const size_t rows = 2 * f->lanes + 3, lanes = f->lanes;
      char *x = at_end(0, rows * 2 * lanes * f->width);
      for (size_t i = 0; i < rows * 2 * lanes; i++) set_part(f, x, i, i / lanes % 2 ? 0.5 : 1);
      f->turn(997, 1, rows, 5, x);
      for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < lanes; j++) {
          double angle = 2 * M_PI * (double)(r * (5 + j)) / 997, c = cos(angle), s = sin(angle);
          assert_true(fabs(part_at(f, x, 2 * r * lanes + j) - (c - s / 2)) < 4 * off && fabs(part_at(f, x, (2 * r + 1) * lanes + j) - (s + c / 2)) < 4 * off);
        }
      for (size_t i = 0; i < 7 * 2 * lanes; i++) set_part(f, x, i, (double)i);
      f->mirror_lanes(7, x);
      for (size_t i = 0; i < 7 * 2 * lanes; i++) {
        size_t number = i / (2 * lanes), part = i / lanes % 2, from = number < 4 ? i : i + (7 - 2 * number) * 2 * lanes;
        assert_true(part_at(f, x, i) == (part && !number ? 0 : part && number > 3 ? -(double)from : (double)from));
      }
      for (size_t i = 0; i < 37; i++) set_part(f, re, i, (double)i), set_part(f, im, i, 1);
      char *sum = at_end(2, 37 * f->width);
      f->products(37, re, im, re, im, false, sum, im); /* (i + j)^2 = i i - 1 + 2 i j */
      for (size_t i = 0; i < 37; i++) assert_true(part_at(f, sum, i) == (double)(i * i) - 1 && part_at(f, im, i) == 2 * (double)i);
      f->products(37, re, im, re, im, true, sum, im); /* i (1 + 2 j) squared is i i (4 j - 3) */
      for (size_t i = 0; i < 37; i++) assert_true(part_at(f, sum, i) == (double)(i * i) - 1 - 3 * (double)(i * i) && part_at(f, im, i) == 2 * (double)i + 4 * (double)(i * i));
    }
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--bench")) return bench();
  guard_buffers();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_f16),  cmocka_unit_test(test_unary), cmocka_unit_test(test_unary_f16), cmocka_unit_test(test_unary_rows), cmocka_unit_test(test_f32_to_i32), cmocka_unit_test(test_compare), cmocka_unit_test(test_int32), cmocka_unit_test(test_binary), cmocka_unit_test(test_remainders), cmocka_unit_test(test_running_sums), cmocka_unit_test(test_binary_f16), cmocka_unit_test(test_same_halves), cmocka_unit_test(test_pow),
      cmocka_unit_test(test_rows), cmocka_unit_test(test_softmax_rows), cmocka_unit_test(test_softmax_depths), cmocka_unit_test(test_lstm_cell), cmocka_unit_test(test_gemm), cmocka_unit_test(test_gemv_panels), cmocka_unit_test(test_slim_tile), cmocka_unit_test(test_packed_tile), cmocka_unit_test(test_gemv_rows), cmocka_unit_test(test_attend), cmocka_unit_test(test_interpolate), cmocka_unit_test(test_pool_lines), cmocka_unit_test(test_pool_strip), cmocka_unit_test(test_first_extreme), cmocka_unit_test(test_sort), cmocka_unit_test(test_rms_norm), cmocka_unit_test(test_depthwise), cmocka_unit_test(test_channel_sums), cmocka_unit_test(test_plane_taps), cmocka_unit_test(test_fold_rows),
      cmocka_unit_test(test_pack_panel), cmocka_unit_test(test_softening), cmocka_unit_test(test_sampling), cmocka_unit_test(test_fourier), cmocka_unit_test(test_fourier_parts), cmocka_unit_test(test_transpose),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
