/* Operators on tensors that lie with their channels last, on long rows and on large planes: what they give, computed here in plain
 * loops, and that none takes memory by the size of its tensors (LIMIT is less than one byte an element). */
#include "test.h"

#include <math.h>

#include "et_op.h"

enum { LIMIT = 768 << 10, N = 2, C = 42, H = 96, W = 100, ELEMENTS = N * C * H * W };

typedef struct array {
  cml_et_local local;
  cml_et_value value;
} array;

/* Zeroed; of rank 4 with the channels last where `last`. */
static array *make(cml_dtype type, int complex, size_t rank, const int64_t *sizes, bool last) {
  array *a = calloc(1, sizeof *a);
  cml_et_make(&a->local, type, rank, sizes, NULL);
  a->local.t.complex = (uint8_t)complex;
  if (last) {
    cml_et_local *l = &a->local;
    memcpy(l->order, (uint8_t[]){0, 2, 3, 1}, 4);
    int64_t step = 1;
    for (int k = 3; k >= 0; k--) l->strides[l->order[k]] = step, step *= sizes[l->order[k]];
  }
  a->local.t.capacity = (uint64_t)cml_et_numel(&a->local.t) * cml_et_width(&a->local.t);
  a->local.t.data = calloc((size_t)a->local.t.capacity + 1, 1);
  a->value = (cml_et_value){.kind = CML_PTE_TENSOR, .tensor = &a->local.t};
  return a;
}

static void drop(array *a) {
  free(a->local.t.data);
  free(a);
}

/* Where element i of the shape lies. */
static int64_t place(const array *a, int64_t i) {
  int64_t p = 0;
  for (int k = a->local.t.rank - 1; k >= 0; i /= a->local.sizes[k], k--) p += i % a->local.sizes[k] * a->local.strides[k];
  return p;
}

static double get(const array *a, int64_t i) {
  double v;
  cml_et_load_f64(&v, &a->local.t, place(a, i), 1, 1);
  return v;
}

static void set(array *a, int64_t i, double v) { cml_et_store_f64(&a->local.t, place(a, i), 1, 1, &v); }

static double number(int64_t i) { return (double)(i * 2654435761 % 4093) / 1024 - 2; } /* exact in float16's range to 2^-10 */

static array *filled(cml_dtype type, size_t rank, const int64_t *sizes, bool last) {
  array *a = make(type, 0, rank, sizes, last);
  for (int64_t i = 0, n = cml_et_numel(&a->local.t); i < n; i++) set(a, i, number(i));
  return a;
}

static void run(const char *name, cml_et_value **args, size_t count) {
  cml_error err = {0};
  const cml_et_op *op = cml_et_op_find(name, strlen(name));
  assert_non_null(op);
  if (cml_et_op_eval_within(op, args, count, LIMIT, &err)) fail_msg("%s", err.text);
}

static void near(const char *name, int64_t i, double got, double wanted, double off) {
  if (!(fabs(got - wanted) <= off)) fail_msg("%s, element %lld: %.9g, expected %.9g", name, (long long)i, got, wanted);
}

static cml_et_value none = {.kind = CML_PTE_NONE}, no = {.kind = CML_PTE_BOOLEAN};
#define INT(v) (&(cml_et_value){.kind = CML_PTE_INTEGER, .integer = (v)})
#define LIST(...) (&(cml_et_value){.kind = CML_PTE_INTEGERS, .count = sizeof (cml_et_value *[]){__VA_ARGS__} / sizeof(void *), .items = (cml_et_value *[]){__VA_ARGS__}})
static const int64_t shape[4] = {N, C, H, W};

static void moves(void **state) {
  (void)state;
  array *x = filled(CML_F32, 4, shape, true), *y = make(CML_F32, 0, 4, shape, true), *z = make(CML_F32, 0, 4, (int64_t[]){C, N, W, H}, true);
  run("aten::tril.out", (cml_et_value *[]){&x->value, INT(-3), &y->value}, 3);
  for (int64_t i = 0; i < ELEMENTS; i++) near("tril", i, get(y, i), i % W <= i / W % H - 3 ? number(i) : 0, 0);
  run("aten::view_copy.out", (cml_et_value *[]){&x->value, LIST(INT(C), INT(N), INT(-1), INT(H)), &z->value}, 3);
  for (int64_t i = 0; i < ELEMENTS; i++) near("view", i, get(z, i), number(i), 0);
  run("aten::roll.out", (cml_et_value *[]){&x->value, LIST(INT(-777)), LIST(INT(0)), &y->value}, 4);
  run("aten::roll.out", (cml_et_value *[]){&x->value, LIST(INT(-777)), &(cml_et_value){.kind = CML_PTE_INTEGERS}, &y->value}, 4);
  for (int64_t i = 0; i < ELEMENTS; i++) near("roll", i, get(y, i), number((i + 777) % ELEMENTS), 0);
  drop(x), drop(y), drop(z);
}

static void searches(void **state) {
  (void)state;
  array *x = make(CML_F32, 0, 4, shape, true), *found = make(CML_I64, 0, 0, NULL, false), *places = make(CML_I64, 0, 2, (int64_t[]){3, 4}, false);
  const int64_t at[3] = {7, 54321, ELEMENTS - 2};
  for (int k = 0; k < 3; k++) set(x, at[k], k == 1 ? 2 : 1);
  run("aten::argmax.out", (cml_et_value *[]){&x->value, &none, &no, &found->value}, 4);
  assert_int_equal((int64_t)get(found, 0), at[1]);
  run("aten::nonzero.out", (cml_et_value *[]){&x->value, &places->value}, 2);
  for (int k = 0; k < 3; k++) assert_int_equal((int64_t)(((get(places, 4 * k) * C + get(places, 4 * k + 1)) * H + get(places, 4 * k + 2)) * W + get(places, 4 * k + 3)), at[k]);
  drop(x), drop(found), drop(places);
}

/* Outputs in another dim order than the input's. */
static void reductions(void **state) {
  (void)state;
  for (int last = 0; last < 2; last++) {
    array *x = filled(CML_F32, 4, shape, !last), *most = make(CML_F32, 0, 4, (int64_t[]){1, C, H, W}, last), *which = make(CML_I64, 0, 4, (int64_t[]){1, C, H, W}, last);
    run("aten::max.dim_max", (cml_et_value *[]){&x->value, INT(0), &(cml_et_value){.kind = CML_PTE_BOOLEAN, .boolean = true}, &most->value, &which->value}, 5);
    for (int64_t i = 0; i < ELEMENTS / N; i++) {
      double a = number(i), b = number(i + ELEMENTS / N);
      near("max", i, get(most, i), a > b ? a : b, 0);
      near("index of max", i, get(which, i), a >= b ? 0 : 1, 0);
    }
    drop(x), drop(most), drop(which);
  }
}

static void norms(void **state) {
  (void)state;
  static const cml_dtype types[] = {CML_F32, CML_F16, CML_F64};
  for (int t = 0; t < 3; t++)
    for (int groups = 0; groups < 2; groups++) { /* layer_norm over C, H, W; or group_norm of 3 groups */
      int64_t rows = groups ? N * 3 : N, n = ELEMENTS / rows, ones[4] = {N, 1, 1, 1}, pair[2] = {N, 3};
      array *x = filled(types[t], 4, shape, true), *y = make(types[t], 0, 4, shape, true), *mean = make(types[t], 0, groups ? 2 : 4, groups ? pair : ones, false),
            *rstd = make(types[t], 0, groups ? 2 : 4, groups ? pair : ones, false), *g = filled(types[t], groups ? 1 : 3, groups ? (int64_t[]){C} : shape + 1, false);
      cml_et_value epsilon = {.kind = CML_PTE_REAL, .real = 1e-5};
      if (groups)
        run("aten::native_group_norm.out", (cml_et_value *[]){&x->value, &g->value, &none, INT(N), INT(C), INT(H * W), INT(3), &epsilon, &y->value, &mean->value, &rstd->value}, 11);
      else
        run("aten::native_layer_norm.out", (cml_et_value *[]){&x->value, LIST(INT(C), INT(H), INT(W)), &g->value, &none, &epsilon, &y->value, &mean->value, &rstd->value}, 8);
      for (int64_t r = 0; r < rows; r++) {
        double sum = 0, squares = 0;
        for (int64_t i = r * n; i < (r + 1) * n; i++) sum += get(x, i);
        for (int64_t i = r * n; i < (r + 1) * n; i++) squares += (get(x, i) - sum / (double)n) * (get(x, i) - sum / (double)n);
        double scale = 1 / sqrt(squares / (double)n + 1e-5), off = t == 1 ? 1e-2 : 1e-5;
        near("mean", r, get(mean, r), sum / (double)n, t == 1 ? 1e-4 : 1e-6);
        for (int64_t i = r * n; i < (r + 1) * n; i += 7)
          near("norm", i, get(y, i), (get(x, i) - sum / (double)n) * scale * get(g, groups ? i / (H * W) % C : i % (C * H * W)), off);
      }
      drop(x), drop(y), drop(mean), drop(rstd), drop(g);
    }
}

static void long_rows(void **state) {
  (void)state;
  static const cml_dtype types[] = {CML_F32, CML_F16, CML_F64};
  const int64_t n = ELEMENTS, sizes[2] = {2, ELEMENTS / 2}, half = n / 2;
  for (int t = 0; t < 6; t++) {
    bool log_of = t >= 3;
    array *x = filled(types[t % 3], 2, sizes, false), *y = make(types[t % 3], 0, 2, sizes, false);
    run(log_of ? "aten::_log_softmax.out" : "aten::_softmax.out", (cml_et_value *[]){&x->value, INT(1), &no, &y->value}, 4);
    for (int64_t r = 0; r < 2; r++) {
      double sum = 0;
      for (int64_t i = 0; i < half; i++) sum += exp(get(x, r * half + i));
      for (int64_t i = 0; i < half; i += 11) {
        double wanted = log_of ? get(x, r * half + i) - log(sum) : exp(get(x, r * half + i)) / sum;
        near("softmax", i, get(y, r * half + i), wanted, fabs(wanted) * (t % 3 == 1 ? 2e-3 : 1e-5) + (t % 3 == 1 ? 1e-7 : 0));
      }
    }
    drop(x), drop(y);
  }
  /* n numbers, each once, and the larger half of them in order */
  array *x = make(CML_I32, 0, 1, &n, false), *values = make(CML_I32, 0, 1, &half, false), *at = make(CML_I64, 0, 1, &half, false);
  for (int64_t i = 0; i < n; i++) ((int32_t *)x->local.t.data)[i] = (int32_t)(i * 7919 % n);
  run("aten::topk.values", (cml_et_value *[]){&x->value, INT(half), INT(0), &(cml_et_value){.kind = CML_PTE_BOOLEAN, .boolean = true}, &no, &values->value, &at->value}, 7);
  for (int64_t i = 0; i < half; i++) {
    near("topk", i, get(values, i), (double)(n - 1 - i), 0);
    near("place of topk", i, get(x, (int64_t)get(at, i)), (double)(n - 1 - i), 0);
  }
  drop(x), drop(values), drop(at);
}

static void images(void **state) {
  (void)state;
  const int64_t wide = ELEMENTS / 2, out = (wide + 2 - 3) / 2 + 1;
  array *x = filled(CML_F32, 4, (int64_t[]){1, 1, 2, wide}, false), *y = make(CML_F32, 0, 4, (int64_t[]){1, 1, 1, out}, false), *at = make(CML_I64, 0, 4, (int64_t[]){1, 1, 1, out}, false);
  cml_et_value *kernel = LIST(INT(2), INT(3)), *stride = LIST(INT(2), INT(2)), *pad = LIST(INT(0), INT(1)), *ones = LIST(INT(1), INT(1));
  run("aten::avg_pool2d.out", (cml_et_value *[]){&x->value, kernel, stride, pad, &no, &no, &none, &y->value}, 8);
  for (int64_t i = 0; i < out; i++) {
    double sum = 0, count = 0;
    for (int64_t k = 2 * i - 1; k < 2 * i + 2; k++)
      if (k >= 0 && k < wide) sum += number(k) + number(wide + k), count += 2;
    near("avg_pool2d", i, get(y, i), sum / count, 1e-6);
  }
  run("aten::max_pool2d_with_indices.out", (cml_et_value *[]){&x->value, kernel, stride, pad, ones, &no, &y->value, &at->value}, 8);
  for (int64_t i = 0; i < out; i++) {
    double most = -1e9;
    int64_t where = -1;
    for (int64_t r = 0; r < 2; r++)
      for (int64_t k = 2 * i - 1; k < 2 * i + 2; k++)
        if (k >= 0 && k < wide && number(r * wide + k) > most) most = number(where = r * wide + k);
    near("max_pool2d", i, get(y, i), most, 0);
    near("place of max_pool2d", i, get(at, i), (double)where, 0);
  }
  drop(x), drop(y), drop(at);
  /* A slope stays a slope; between the last two columns it is cut off. */
  x = make(CML_F32, 0, 4, (int64_t[]){1, 1, 500, 500}, false), y = make(CML_F32, 0, 4, (int64_t[]){1, 1, 1000, 1000}, false);
  for (int64_t i = 0; i < 250000; i++) set(x, i, (double)(i % 500) + 2 * (double)(i / 500));
  run("aten::upsample_bilinear2d.vec_out", (cml_et_value *[]){&x->value, LIST(INT(1000), INT(1000)), &no, &none, &y->value}, 5);
  for (int64_t i = 0; i < 1000000; i++) {
    double column = fmin(fmax(((double)(i % 1000) + 0.5) / 2 - 0.5, 0), 499), row = fmin(fmax(((double)(i / 1000) + 0.5) / 2 - 0.5, 0), 499);
    near("upsample_bilinear2d", i, get(y, i), column + 2 * row, 1e-3);
  }
  drop(x), drop(y);
}

/* One number of a spectrum over three dimensions is a wave. */
static void waves(void **state) {
  (void)state;
  for (int64_t n = 1; n <= 50; n += n < 5 ? 1 : 45)
    for (int last = 0; last < 2; last++) {
      const int64_t sizes[4] = {2, n > 5 ? 60 : 6, n > 5 ? 70 : 5, n}, given[4] = {2, sizes[1], sizes[2], n / 2 + 1};
      array *x = make(CML_DTYPE_NONE, 4, 4, given, last), *y = make(CML_F32, 0, 4, sizes, last);
      int64_t a = 2, b = 3, k = n / 2, lines = sizes[1] * sizes[2];
      ((float *)x->local.t.data)[2 * place(x, ((sizes[1] + a) * sizes[2] + b) * given[3] + k)] = 1; /* of the second of the two */
      run("aten::_fft_c2r.out", (cml_et_value *[]){&x->value, LIST(INT(1), INT(2), INT(3)), INT(0), INT(n), &y->value}, 5);
      for (int64_t i = 0; i < 2 * lines * n; i++) {
        double turn = (double)a * (double)(i / n / sizes[2] % sizes[1]) / (double)sizes[1] + (double)b * (double)(i / n % sizes[2]) / (double)sizes[2];
        double wave = k == 0 || 2 * k == n ? cos(2 * M_PI * turn) * cos(2 * M_PI * (double)(k * (i % n)) / (double)n)
                                           : 2 * cos(2 * M_PI * (turn + (double)(k * (i % n)) / (double)n));
        near("_fft_c2r", i, get(y, i), i < lines * n ? 0 : wave, 1e-5);
      }
      drop(x), drop(y);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(moves),     cmocka_unit_test(searches), cmocka_unit_test(reductions), cmocka_unit_test(norms),
                                     cmocka_unit_test(long_rows), cmocka_unit_test(images),   cmocka_unit_test(waves)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
