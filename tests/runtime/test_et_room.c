/* Operators on tensors that lie with their channels last, on long rows and on large planes: what they give, computed here in plain
 * loops, and that none takes memory by the size of its tensors (LIMIT is less than one byte an element), nor by the number of threads. */
#include "test.h"

#include <math.h>

#include "et_op.h"

enum { LIMIT = 768 << 10, MOST = LIMIT + (768 << 10), N = 2, C = 42, H = 96, W = 100, ELEMENTS = N * C * H * W };

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

static cml_pool *pool;
static uint64_t limit = LIMIT; /* bytes */

static void run(const char *name, cml_et_value **args, size_t count) {
  cml_error err = {0};
  const cml_et_op *op = cml_et_op_find(name, strlen(name));
  assert_non_null(op);
  if (cml_et_op_eval_within(op, args, count, pool, limit, &err)) fail_msg("%s: %s", name, err.text);
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

static double part_of(const array *a, int64_t i) { return a->local.t.complex == 8 ? ((const double *)a->local.t.data)[i] : (double)((const float *)a->local.t.data)[i]; }
static void set_part(array *a, int64_t i, double v) {
  if (a->local.t.complex == 8) ((double *)a->local.t.data)[i] = v;
  else ((float *)a->local.t.data)[i] = (float)v;
}

/* One number of a spectrum over three dimensions is a wave; of one or two reals, and where no dimension has more, too. */
static void waves(void **state) {
  (void)state;
  static const int64_t lengths[][3] = {{6, 5, 1}, {6, 5, 2}, {400, 300, 1}, {300, 400, 2}, {2, 2, 2}, {1, 2, 1}, {6, 5, 3}, {6, 5, 4}, {6, 5, 5}, {60, 70, 50}, {103, 20, 127}, {60, 70, 214}};
  for (size_t c = 0; c < 2 * sizeof lengths / sizeof *lengths; c++)
    for (int last = 0; last < 2; last++) {
      const bool wide = c % 2;
      const int64_t *l = lengths[c / 2], n = l[2], sizes[4] = {2, l[0], l[1], n}, given[4] = {2, l[0], l[1], n / 2 + 1};
      array *x = make(CML_DTYPE_NONE, wide ? 8 : 4, 4, given, last), *y = make(wide ? CML_F64 : CML_F32, 0, 4, sizes, last);
      const int64_t a = l[0] > 2 ? 2 : l[0] - 1, b = l[1] > 3 ? 3 : l[1] - 1, k = n / 2, lines = sizes[1] * sizes[2];
      set_part(x, 2 * place(x, ((sizes[1] + a) * sizes[2] + b) * given[3] + k), 1); /* of the second of the two */
      run("aten::_fft_c2r.out", (cml_et_value *[]){&x->value, LIST(INT(1), INT(2), INT(3)), INT(0), INT(n), &y->value}, 5);
      for (int64_t i = 0; i < 2 * lines * n; i++) {
        double turn = (double)a * (double)(i / n / sizes[2] % sizes[1]) / (double)sizes[1] + (double)b * (double)(i / n % sizes[2]) / (double)sizes[2];
        double wave = k == 0 || 2 * k == n ? cos(2 * M_PI * turn) * cos(2 * M_PI * (double)(k * (i % n)) / (double)n)
                                           : 2 * cos(2 * M_PI * (turn + (double)(k * (i % n)) / (double)n));
        near("_fft_c2r", i, get(y, i), i < lines * n ? 0 : wave, wide ? 1e-12 : 1e-5);
      }
      drop(x), drop(y);
    }
}

/* Some numbers of the spectra of long lines, by summing up; and back. */
static void long_waves(void **state) {
  (void)state;
  static const int64_t lengths[] = {7921 /* 89 * 89 */, 30000, 65536, 98304, 99225 /* odd */, 16411 /* a prime */, 19946 /* 2 * 9973 */, 65537, 200001 /* 3 * 163 * 409 */};
  for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++)
    for (int turned = 0; turned < 2; turned++) { /* along the last dimension, or along the first */
      const bool wide = i % 2;
      const int64_t n = lengths[i / 2], half = n / 2 + 1, rows = turned ? 3 : 1, sizes[2] = {turned ? n : rows, turned ? rows : n}, given[2] = {turned ? half : rows, turned ? rows : half};
      const cml_dtype type = wide ? CML_F64 : CML_F32;
      array *x = filled(type, 2, sizes, false), *y = make(CML_DTYPE_NONE, wide ? 8 : 4, 2, given, false), *back = make(type, 0, 2, sizes, false);
      cml_et_value *dims = LIST(INT(turned ? 0 : 1)), yes = {.kind = CML_PTE_BOOLEAN, .boolean = true};
      run("aten::_fft_r2c.out", (cml_et_value *[]){&x->value, dims, INT(0), &yes, &y->value}, 5);
      for (int64_t k = 0; k < half; k += half / 6)
        for (int64_t r = 0; r < rows; r++) {
          double re = 0, im = 0;
          for (int64_t t = 0; t < n; t++) {
            double v = get(x, turned ? t * rows + r : r * n + t), angle = -2 * M_PI * (double)(k * t % n) / (double)n;
            re += v * cos(angle), im += v * sin(angle);
          }
          int64_t at = turned ? k * rows + r : r * half + k;
          near("real part of _fft_r2c", k, part_of(y, 2 * at), re, wide ? 1e-8 : 3e-3);
          near("imaginary part of _fft_r2c", k, part_of(y, 2 * at + 1), im, wide ? 1e-8 : 3e-3);
        }
      run("aten::_fft_c2r.out", (cml_et_value *[]){&y->value, dims, INT(2), INT(n), &back->value}, 5);
      for (int64_t t = 0; t < rows * n; t++) near("_fft_c2r of _fft_r2c", t, get(back, t), get(x, t), wide ? 1e-12 : 1e-5);
      drop(x), drop(y), drop(back);
    }
}

/* Long lines in two dimensions, and both sides of a spectrum: a wave is one number, or two. */
static void long_planes(void **state) {
  (void)state;
  static const int64_t lengths[] = {20000, 19845 /* odd */, 16411 /* a prime */};
  const int64_t m = 4;
  for (int c = 0; c < 6; c++) {
    bool tall = c % 2; /* the long dimension comes first */
    const int64_t n = lengths[c / 2], sizes[2] = {tall ? n : m, tall ? m : n}, given[2] = {sizes[0], sizes[1] / 2 + 1}, k = 777;
    array *x = make(CML_F32, 0, 2, sizes, false), *y = make(CML_DTYPE_NONE, 4, 2, sizes, false), *half = make(CML_DTYPE_NONE, 4, 2, given, false);
    for (int64_t i = 0; i < m * n; i++) {
      int64_t along = tall ? i / m : i % n, across = tall ? i % m : i / n;
      set(x, i, cos(2 * M_PI * ((double)across / (double)m + (double)(along * k % n) / (double)n)));
    }
    run("aten::_fft_r2c.out", (cml_et_value *[]){&x->value, LIST(INT(0), INT(1)), INT(0), &no, &y->value}, 5);
    const float *parts = y->local.t.data;
    for (int64_t i = 0; i < m * n; i++) {
      bool there = i == (tall ? k * m + 1 : n + k) || i == (tall ? (n - k) * m + 3 : 3 * n + (n - k));
      near("_fft_r2c, both sides", i, (double)parts[2 * i], there ? (double)(m * n) / 2 : 0, 0.05);
      near("_fft_r2c, both sides", i, (double)parts[2 * i + 1], 0, 0.05);
    }
    ((float *)half->local.t.data)[2 * (tall ? k * given[1] + 1 : given[1] + k)] = 1;
    array *back = make(CML_F32, 0, 2, sizes, false);
    run("aten::_fft_c2r.out", (cml_et_value *[]){&half->value, LIST(INT(0), INT(1)), INT(0), INT(sizes[1]), &back->value}, 5);
    for (int64_t i = 0; i < m * n; i++) near("_fft_c2r, two dimensions", i, get(back, i), 2 * get(x, i), 1e-5);
    drop(x), drop(y), drop(half), drop(back);
  }
}

/* Products and sums of complex numbers with long rows. */
static void complex_numbers(void **state) {
  (void)state;
  const int64_t n = 40000, shape_a[2] = {2, n}, shape_b[2] = {n, 2}, two[2] = {2, 2}, one[1] = {2};
  array *a = make(CML_DTYPE_NONE, 4, 2, shape_a, false), *b = make(CML_DTYPE_NONE, 4, 2, shape_b, false), *y = make(CML_DTYPE_NONE, 4, 2, two, false),
        *z = make(CML_DTYPE_NONE, 4, 2, shape_a, false), *sums = make(CML_DTYPE_NONE, 4, 1, one, false), *abs = make(CML_F32, 0, 2, shape_a, false);
  float *pa = a->local.t.data, *pb = b->local.t.data, *py = y->local.t.data, *pz = z->local.t.data, *ps = sums->local.t.data;
  double re[4] = {0}, im[4] = {0}, sum_re[2] = {0}, sum_im[2] = {0};
  cml_error err;
  for (int64_t i = 0; i < 4 * n; i++) pa[i] = (float)number(i), pb[i] = (float)number(i + 5);
  for (int64_t r = 0; r < 2; r++)
    for (int64_t k = 0; k < n; k++) {
      double ar = (double)pa[2 * (r * n + k)], ai = (double)pa[2 * (r * n + k) + 1];
      sum_re[r] += ar, sum_im[r] += ai;
      for (int64_t j = 0; j < 2; j++) {
        double br = (double)pb[2 * (2 * k + j)], bi = (double)pb[2 * (2 * k + j) + 1];
        re[2 * r + j] += ar * br - ai * bi, im[2 * r + j] += ar * bi + ai * br;
      }
    }
#define COMPLEX(name, ...) assert_int_equal(cml_et_op_eval_within(cml_et_op_for_complex(name), (cml_et_value *[]){__VA_ARGS__}, sizeof (cml_et_value *[]){__VA_ARGS__} / sizeof(void *), pool, 64 << 10, &err), CML_OK)
  COMPLEX("aten::mm.out", &a->value, &b->value, &y->value);
  COMPLEX("aten::mul.out", &a->value, &a->value, &z->value);
  COMPLEX("aten::abs.out", &a->value, &abs->value);
  COMPLEX("aten::sum.IntList_out", &a->value, LIST(INT(1)), &no, &none, &sums->value);
  array *real = filled(CML_F64, 1, one, false), *copy = make(CML_DTYPE_NONE, 4, 1, one, false);
  COMPLEX("dim_order_ops::_to_dim_order_copy.out", &real->value, &no, &none, &copy->value);
  for (int k = 0; k < 4; k++) near("_to_dim_order_copy", k, (double)((float *)copy->local.t.data)[k], k % 2 ? 0 : number(k / 2), 0);
  COMPLEX("aten::copy_", &copy->value, &sums->value, &no);
  for (int k = 0; k < 4; k++) near("copy_", k, (double)((float *)copy->local.t.data)[k], (double)ps[k], 0);
  drop(real), drop(copy);
#undef COMPLEX
  for (int k = 0; k < 4; k++) near("mm", k, (double)py[2 * k], re[k], 0.01), near("mm", k, (double)py[2 * k + 1], im[k], 0.01);
  for (int r = 0; r < 2; r++) near("sum", r, (double)ps[2 * r], sum_re[r], 0.01), near("sum", r, (double)ps[2 * r + 1], sum_im[r], 0.01);
  for (int64_t i = 0; i < 2 * n; i++) {
    double x = (double)pa[2 * i], v = (double)pa[2 * i + 1];
    near("mul", i, (double)pz[2 * i], x * x - v * v, 1e-5);
    near("mul", i, (double)pz[2 * i + 1], 2 * x * v, 1e-5);
    near("abs", i, get(abs, i), hypot(x, v), 1e-5);
  }
  drop(a), drop(b), drop(y), drop(z), drop(sums), drop(abs);
}

/* Convolutions along rows: [1, in, rows, width] with [., ., 1, taps]. */
typedef struct kernel_case {
  const char *what;
  int64_t in, out, rows, width, taps, stride, pad, dilation, groups;
  bool transposed;
  uint8_t order[4]; /* of the images */
} kernel_case;

/* One element, as convolutions are defined. */
static double convolved(const kernel_case *k, const array *x, const array *w, int64_t c, int64_t row, int64_t at) {
  int64_t ins = k->in / k->groups, outs = k->out / k->groups, group = c / outs;
  double sum = 0;
  for (int64_t i = 0; i < ins; i++)
    for (int64_t t = 0; t < k->taps; t++) {
      int64_t in = group * ins + i, from = k->transposed ? at + k->pad - t * k->dilation : at * k->stride - k->pad + t * k->dilation;
      if (k->transposed && from % k->stride) continue;
      if (k->transposed) from /= k->stride;
      if (from < 0 || from >= k->width) continue;
      sum += get(x, (in * k->rows + row) * k->width + from) * get(w, (k->transposed ? in * outs + c % outs : c * ins + i) * k->taps + t);
    }
  return sum;
}

static array *ordered(const int64_t *sizes, const uint8_t *order) {
  array *a = make(CML_F32, 0, 4, sizes, false);
  int64_t step = 1;
  memcpy(a->local.order, order, 4);
  for (int k = 3; k >= 0; k--) a->local.strides[order[k]] = step, step *= sizes[order[k]];
  return a;
}

static void convolutions(void **state) {
  (void)state;
  static const kernel_case cases[] = {
      {"plain", 3, 4, 1, 300000, 5, 1, 2, 1, 1, false, {0, 1, 2, 3}},
      {"last", 3, 4, 1, 300000, 5, 2, 2, 1, 1, false, {0, 2, 3, 1}},
      {"reversed", 3, 4, 2, 200000, 5, 2, 3, 7, 1, false, {3, 2, 1, 0}},
      {"depthwise", 8, 8, 1, 200000, 7, 1, 3, 1, 8, false, {0, 1, 2, 3}},
      {"depthwise, last", 8, 8, 1, 200000, 7, 1, 3, 1, 8, false, {0, 2, 3, 1}},
      {"depthwise, reversed", 8, 8, 1, 100000, 7, 3, 3, 1, 8, false, {3, 2, 1, 0}},
      {"far taps", 2, 2, 1, 200000, 3, 1, 0, 9001, 1, false, {3, 1, 2, 0}},
      {"long kernel", 1, 1, 1, 9000, 3000, 3, 70, 1, 1, false, {3, 2, 0, 1}},
      {"transposed", 3, 2, 1, 60000, 16, 8, 4, 1, 1, true, {0, 1, 2, 3}},
      {"transposed, last", 4, 6, 2, 30000, 9, 5, 2, 3, 2, true, {0, 2, 3, 1}},
  };
  for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
    const kernel_case *k = &cases[n];
    int64_t reach = k->dilation * (k->taps - 1) + 1;
    int64_t wide = k->transposed ? (k->width - 1) * k->stride - 2 * k->pad + reach : (k->width + 2 * k->pad - reach) / k->stride + 1;
    const int64_t sizes[4] = {1, k->in, k->rows, k->width}, result[4] = {1, k->out, k->rows, wide};
    const int64_t weight[4] = {k->transposed ? k->in : k->out, (k->transposed ? k->out : k->in) / k->groups, 1, k->taps};
    array *x = ordered(sizes, k->order), *w = filled(CML_F32, 4, weight, false), *y = ordered(result, k->order);
    for (int64_t i = 0; i < cml_et_numel(&x->local.t); i++) set(x, i, number(i));
    run("aten::convolution.out", (cml_et_value *[]){&x->value, &w->value, &none, LIST(INT(1), INT(k->stride)), LIST(INT(0), INT(k->pad)), LIST(INT(1), INT(k->dilation)),
                                                     &(cml_et_value){.kind = CML_PTE_BOOLEAN, .boolean = k->transposed}, LIST(INT(0), INT(0)), INT(k->groups), &y->value}, 10);
    for (int64_t i = 0, count = cml_et_numel(&y->local.t); i < count; i += 1 + count / 1009) {
      double wanted = convolved(k, x, w, i / (wide * k->rows), i / wide % k->rows, i % wide);
      near(k->what, i, get(y, i), wanted, 1e-3 + 2e-5 * fabs(wanted));
    }
    drop(x), drop(w), drop(y);
  }
}

/* A slope stays one, 70000 columns wide; to the nearest, columns double; many columns become few. */
static void wide_images(void **state) {
  (void)state;
  const int64_t in = 35000, out = 70000;
  array *x = make(CML_F32, 0, 4, (int64_t[]){1, 2, 3, in}, false), *y = make(CML_F32, 0, 4, (int64_t[]){1, 2, 6, out}, false), *z = make(CML_F32, 0, 4, (int64_t[]){1, 2, 3, 700}, false);
  for (int64_t i = 0; i < 6 * in; i++) set(x, i, (double)(i % in) + 3 * (double)(i / in % 3) + 5 * (double)(i / in / 3));
  run("aten::upsample_bilinear2d.vec_out", (cml_et_value *[]){&x->value, LIST(INT(6), INT(out)), &no, &none, &y->value}, 5);
  for (int64_t i = 0; i < 12 * out; i++) {
    double column = fmin(fmax(((double)(i % out) + 0.5) / 2 - 0.5, 0), (double)(in - 1)), row = fmin(fmax(((double)(i / out % 6) + 0.5) / 2 - 0.5, 0), 2);
    near("upsample_bilinear2d", i, get(y, i), column + 3 * row + 5 * (double)(i / out / 6), 0.02);
  }
  run("aten::upsample_nearest2d.vec_out", (cml_et_value *[]){&x->value, LIST(INT(6), INT(out)), &none, &y->value}, 4);
  for (int64_t i = 0; i < 12 * out; i++) near("upsample_nearest2d", i, get(y, i), (double)(i % out / 2) + 3 * (double)(i / out % 6 / 2) + 5 * (double)(i / out / 6), 0);
  run("aten::_upsample_bilinear2d_aa.out", (cml_et_value *[]){&x->value, LIST(INT(3), INT(700)), &no, &none, &none, &z->value}, 6);
  for (int64_t i = 0; i < 6 * 700; i++)
    if (i % 700 > 1 && i % 700 < 698) near("_upsample_bilinear2d_aa", i, get(z, i), 50 * (double)(i % 700) + 24.5 + 3 * (double)(i / 700 % 3) + 5 * (double)(i / 2100), 0.02);
  drop(x), drop(y), drop(z);
  for (int tall = 0; tall < 2; tall++) { /* many columns, or rows, become one: their triangle's mean; of a slope it is the middle */
    const int64_t many = 200001;
    x = make(CML_F32, 0, 4, (int64_t[]){1, 1, tall ? many : 2, tall ? 2 : many}, false), y = make(CML_F32, 0, 4, (int64_t[]){1, 1, tall ? 1 : 2, tall ? 2 : 1}, false);
    for (int64_t i = 0; i < 2 * many; i++) set(x, i, tall ? (double)(i / 2) + 7 * (double)(i % 2) : (double)(i % many) + 7 * (double)(i / many));
    run("aten::_upsample_bilinear2d_aa.out", (cml_et_value *[]){&x->value, LIST(INT(tall ? 1 : 2), INT(tall ? 2 : 1)), &no, &none, &none, &y->value}, 6);
    for (int64_t i = 0; i < 2; i++) near("_upsample_bilinear2d_aa to one", i, get(y, i), (double)(many - 1) / 2 + 7 * (double)i, 0.05);
    drop(x), drop(y);
  }
}

/* Of a number there is index 0 alone. */
static void index_of_number(void **state) {
  (void)state;
  array *x = filled(CML_F32, 0, NULL, false), *index = make(CML_I64, 0, 1, (int64_t[]){1}, false), *y = make(CML_F32, 0, 0, NULL, false);
  set(x, 0, 7);
  run("aten::index_select.out", (cml_et_value *[]){&x->value, INT(0), &index->value, &y->value}, 4);
  near("index_select", 0, get(y, 0), 7, 0);
  set(index, 0, 1);
  cml_error err = {0};
  assert_int_equal(cml_et_op_eval_within(cml_et_op_find("aten::index_select.out", 22), (cml_et_value *[]){&x->value, INT(0), &index->value, &y->value}, 4, pool, limit, &err), CML_INVALID);
  drop(x), drop(index), drop(y);
}

/* A mask beside indices: for each row of these all of its places. */
static void masks(void **state) {
  (void)state;
  const int64_t rows = 4, n = 150000, kept = n - n / 3, sizes[2] = {rows, n}, shape_of_index[2] = {2, 1}, result[2] = {2, kept};
  array *x = filled(CML_F32, 2, sizes, false), *mask = make(CML_BOOL, 0, 1, &n, false), *index = make(CML_I64, 0, 2, shape_of_index, false), *y = make(CML_F32, 0, 2, result, false);
  for (int64_t i = 0; i < n; i++) ((uint8_t *)mask->local.t.data)[i] = i % 3 != 2;
  set(index, 0, 3), set(index, 1, 1);
  cml_et_value *items[2] = {&index->value, &mask->value}, list = {.kind = CML_PTE_OPTIONAL_TENSORS, .count = 2, .items = items};
  run("aten::index.Tensor_out", (cml_et_value *[]){&x->value, &list, &y->value}, 3);
  for (int64_t i = 0; i < 2 * kept; i++) near("index", i, get(y, i), number((i < kept ? 3 : 1) * n + i % kept / 2 * 3 + i % kept % 2), 0);
  for (int64_t i = 0; i < 2 * kept; i++) set(y, i, (double)i);
  array *z = make(CML_F32, 0, 2, sizes, false);
  run("aten::index_put.out", (cml_et_value *[]){&x->value, &list, &y->value, &no, &z->value}, 5);
  for (int64_t i = 0; i < rows * n; i++) {
    int64_t row = i / n, column = i % n, first = row == 3 ? 0 : kept;
    bool put = row % 2 && column % 3 != 2;
    near("index_put", i, get(z, i), put ? (double)(first + column / 3 * 2 + column % 3) : number(i), 0);
  }
  drop(x), drop(mask), drop(index), drop(y), drop(z);
}

/* Many channels; long rows of distances, and those with the channels last; long rows of quantized weights. */
static void channels(void **state) {
  (void)state;
  const int64_t n = 100000, sizes[4] = {2, n, 1, 2};
  for (int last = 0; last < 2; last++) {
    array *x = filled(CML_F32, 4, sizes, last), *y = make(CML_F32, 0, 4, sizes, last), *w = filled(CML_F32, 1, &n, false), *mean = filled(CML_F32, 1, &n, false),
          *variance = make(CML_F32, 0, 1, &n, false), *nothing = make(CML_F32, 0, 1, (int64_t[]){0}, false), *nothing2 = make(CML_F32, 0, 1, (int64_t[]){0}, false);
    for (int64_t i = 0; i < n; i++) set(variance, i, 0.5 + (double)(i % 7));
    cml_et_value epsilon = {.kind = CML_PTE_REAL, .real = 0.25}, momentum = {.kind = CML_PTE_REAL, .real = 0.1};
    run("aten::_native_batch_norm_legit_no_training.out", (cml_et_value *[]){&x->value, &w->value, &w->value, &mean->value, &variance->value, &momentum, &epsilon, &y->value, &nothing->value, &nothing2->value}, 10);
    for (int64_t i = 0; i < 4 * n; i++) {
      int64_t k = i / 2 % n;
      near("batch_norm", i, get(y, i), (number(i) - number(k)) / sqrt(0.75 + (double)(k % 7)) * number(k) + number(k), 1e-5);
    }
    drop(x), drop(y), drop(w), drop(mean), drop(variance), drop(nothing), drop(nothing2);
  }
}

static void distances(void **state) {
  (void)state;
  const int64_t n = 70000, long_rows_of[2] = {3, n}, last_sizes[4] = {2, 3, 5, 4}, between[4] = {2, 3, 5, 5};
  static const double norms_of[] = {0, 1, 2, 3, INFINITY};
  for (int k = 0; k < 5; k++)
    for (int wide = 0; wide < 2; wide++) {
      const int64_t *sizes = wide ? long_rows_of : last_sizes, *result = wide ? (int64_t[]){3, 3} : between, size = wide ? n : 4, rows = wide ? 3 : 5;
      size_t rank = wide ? 2 : 4;
      array *x = filled(CML_F32, rank, sizes, !wide), *y = make(CML_F32, 0, rank, result, !wide);
      cml_et_value norm = {.kind = CML_PTE_REAL, .real = norms_of[k]};
      run("aten::_cdist_forward.out", (cml_et_value *[]){&x->value, &x->value, &norm, &none, &y->value}, 5);
      for (int64_t i = 0; i < cml_et_numel(&y->local.t); i++) {
        int64_t block = i / (rows * rows) * rows, a = (block + i / rows % rows) * size, b = (block + i % rows) * size;
        double sum = 0;
        for (int64_t j = 0; j < size; j++) {
          double d = fabs(number(a + j) - number(b + j));
          sum = k == 0 ? sum + (d != 0) : k == 4 ? fmax(sum, d) : sum + pow(d, norms_of[k]);
        }
        if (k > 0 && k < 4) sum = pow(sum, 1 / norms_of[k]);
        near("_cdist_forward", i, get(y, i), sum, 1e-5 * sum);
      }
      drop(x), drop(y);
    }
}

static void mixed_products(void **state) {
  (void)state;
  const int64_t k = 70000, n = 3, groups = 35000;
  array *x = filled(CML_F32, 2, (int64_t[]){1, k}, false), *w = make(CML_I8, 0, 2, (int64_t[]){n, k}, false), *scales = filled(CML_F32, 2, (int64_t[]){n, groups}, false),
        *y = make(CML_F32, 0, 2, (int64_t[]){1, n}, false), *across = make(CML_I8, 0, 2, (int64_t[]){n, k}, false), *of_rows = filled(CML_F32, 1, &n, false), *z = make(CML_F32, 0, 2, (int64_t[]){1, k}, false),
        *few = filled(CML_F32, 2, (int64_t[]){1, n}, false);
  for (int64_t i = 0; i < n * k; i++) set(w, i, (double)(i % 201 - 100)), set(across, i, (double)(i % 97 - 48));
  run("quantized_decomposed::mixed_linear.out", (cml_et_value *[]){&x->value, &w->value, &scales->value, &none, &none, &y->value}, 6);
  for (int64_t o = 0; o < n; o++) {
    double sum = 0;
    for (int64_t j = 0; j < k; j++) sum += number(j) * (double)((o * k + j) % 201 - 100) * number(o * groups + j / 2);
    near("mixed_linear", o, get(y, o), sum, 5);
  }
  run("quantized_decomposed::mixed_mm.out", (cml_et_value *[]){&few->value, &across->value, &of_rows->value, &none, &z->value}, 5);
  for (int64_t j = 0; j < k; j++) {
    double sum = 0;
    for (int64_t o = 0; o < n; o++) sum += number(o) * number(o) * (double)((o * k + j) % 97 - 48);
    near("mixed_mm", j, get(z, j), sum, 1e-3);
  }
  drop(x), drop(w), drop(scales), drop(y), drop(across), drop(of_rows), drop(z), drop(few);
}

/* By channel where those lie last. */
static void channels_last(void **state) {
  (void)state;
  const int64_t sizes[4] = {2, 5, 3, 4}, n = 5;
  array *q = make(CML_I8, 0, 4, sizes, true), *scales = filled(CML_F32, 1, &n, false), *zeros = make(CML_I64, 0, 1, &n, false), *y = make(CML_F32, 0, 4, sizes, true), *back = make(CML_I8, 0, 4, sizes, true);
  for (int64_t i = 0; i < 120; i++) set(q, i, (double)(i * 37 % 255 - 127));
  for (int64_t i = 0; i < n; i++) set(scales, i, 0.25 + (double)i / 8), set(zeros, i, (double)(i - 2));
  cml_et_value *low = INT(-128), *high = INT(127), *byte = INT(1);
  run("quantized_decomposed::dequantize_per_channel.out", (cml_et_value *[]){&q->value, &scales->value, &zeros->value, INT(1), low, high, byte, &none, &y->value}, 9);
  for (int64_t i = 0; i < 120; i++) near("dequantize_per_channel", i, get(y, i), ((double)(i * 37 % 255 - 127) - (double)(i / 12 % 5 - 2)) * (0.25 + (double)(i / 12 % 5) / 8), 0);
  run("quantized_decomposed::quantize_per_channel.out", (cml_et_value *[]){&y->value, &scales->value, &zeros->value, INT(1), low, high, byte, &back->value}, 8);
  for (int64_t i = 0; i < 120; i++) near("quantize_per_channel", i, get(back, i), (double)(i * 37 % 255 - 127), 0);
  drop(q), drop(scales), drop(zeros), drop(y), drop(back);
}

/* Attention over many keys: scores are not kept for all of them. Keys that are zero weigh alike. */
static void many_keys(void **state) {
  (void)state;
  const int64_t keys = 300000, cache[4] = {1, keys, 1, 2}, one[4] = {1, 1, 1, 2};
  array *q = filled(CML_F32, 4, one, false), *k = make(CML_F32, 0, 4, cache, false), *v = filled(CML_F32, 4, cache, false), *y = make(CML_F32, 0, 4, one, false);
  set(k, 2 * 200000, 9), set(k, 2 * 5, -7);
  cml_et_value scale = {.kind = CML_PTE_REAL, .real = 1};
  double at[3] = {number(0) * 9, number(0) * -7, 0}, sum[2] = {0}, total = 0;
  for (int64_t i = 0; i < keys; i++) {
    double weight = exp(at[i == 200000 ? 0 : i == 5 ? 1 : 2]);
    total += weight;
    for (int j = 0; j < 2; j++) sum[j] += weight * number(2 * i + j);
  }
  run("llama::custom_sdpa.out", (cml_et_value *[]){&q->value, &k->value, &v->value, INT(keys - 1), &none, &(cml_et_value){.kind = CML_PTE_REAL}, &no, &scale, &y->value}, 9);
  for (int j = 0; j < 2; j++) near("custom_sdpa", j, get(y, j), sum[j] / total, 2e-4);
  drop(q), drop(k), drop(v), drop(y);
}

/* Products that leave a double's range on the way, in whatever order, and those that end beyond a float's; against wider numbers. */
static void range_of_products(void **state) {
  (void)state;
  cml_et_value as_it_is = {.kind = CML_PTE_NONE};
  for (int64_t n = 1; n < 300; n += 1 + n / 9) /* within the range of wider numbers */
    for (int kind = 0; kind < 7; kind++) {
      array *x = make(CML_F32, 0, 1, &n, false), *y = make(CML_F32, 0, 0, NULL, false);
      long double wanted = 1;
      for (int64_t i = 0; i < n; i++) {
        double large = i % 2 ? 1.5e30 : -0.7e30, small = i % 2 ? 1e-40 : 3e-30;
        double v = kind == 0 ? (i < n / 2 ? large : 1 / large) : kind == 1 ? (i % 3 ? 1.25 : 0.64) : kind == 2 ? large : kind == 3 ? small : kind == 4 && i == n / 3 ? 0 : kind == 5 && i == n / 2 ? (double)INFINITY
                 : kind == 6 && i == n - 1 ? (double)NAN : 1.1;
        set(x, i, v);
        wanted *= (long double)get(x, i);
      }
      run("aten::prod.out", (cml_et_value *[]){&x->value, &as_it_is, &y->value}, 3);
      double got = get(y, 0), expected = (double)(float)wanted;
      if ((kind == 6 && !isnan(got)) || (isinf(expected) && got != expected)) fail_msg("prod of kind %d of %lld: %g, expected %g", kind, (long long)n, got, expected);
      if (kind != 6 && !isinf(expected)) near("prod", n, got, expected, fabs(expected) * 1e-6);
      drop(x), drop(y);
    }
  const int64_t n = 4099;
  array *x = make(CML_I64, 0, 1, &n, false), *y = make(CML_I64, 0, 0, NULL, false);
  uint64_t wanted = 1;
  for (int64_t i = 0; i < n; i++) ((int64_t *)x->local.t.data)[i] = 2 * i - n, wanted *= (uint64_t)(2 * i - n);
  run("aten::prod.out", (cml_et_value *[]){&x->value, &as_it_is, &y->value}, 3);
  assert_int_equal(*(int64_t *)y->local.t.data, (int64_t)wanted);
  drop(x), drop(y);
}

/* ---- scratch of threads ---- */

/* Two layers of sliced weights, the images' channels last or first: more than half a megabyte of them is never packed at once. */
static void many_weights(void **state) {
  (void)state;
  for (int depthwise = 0; depthwise < 2; depthwise++)
    for (int last = 0; last < 2; last++) {
      const int64_t c = depthwise ? 700 : 600, side = 5, k = depthwise ? 17 : 1, sizes[4] = {2, c, side, side}, weight[4] = {c, depthwise ? 1 : c, k, k};
      array *x = filled(CML_F32, 4, sizes, last), *w = filled(CML_F32, 4, weight, false), *y = make(CML_F32, 0, 4, sizes, last), *bias = filled(CML_F32, 1, &c, false);
      cml_et_value *pad = INT(k / 2);
      run("aten::convolution.out", (cml_et_value *[]){&x->value, &w->value, &bias->value, LIST(INT(1), INT(1)), LIST(pad, pad), LIST(INT(1), INT(1)), &no, LIST(INT(0), INT(0)), INT(depthwise ? c : 1), &y->value}, 10);
      for (int64_t i = 0; i < 2 * c * side * side; i += depthwise ? 3 : 7) {
        int64_t at = i % (side * side), channel = i / (side * side) % c, image = i / (side * side) / c * c * side * side;
        double sum = number(channel);
        for (int64_t j = 0; j < (depthwise ? side * side : c); j++) {
          int64_t tap = (j / side - at / side + k / 2) * k + j % side - at % side + k / 2; /* of pixel j */
          sum += depthwise ? number(image + channel * side * side + j) * number(channel * k * k + tap) : number(image + j * side * side + at) * number(channel * c + j);
        }
        near(depthwise ? "many depthwise weights" : "many weights", i, get(y, i), sum, 2e-3);
      }
      drop(x), drop(w), drop(y), drop(bias);
    }
}

/* Products of halves and of what is brought into floats, in one piece and with a part added. */
static void half_products(void **state) {
  (void)state;
  static const cml_dtype types[] = {CML_F16, CML_BF16, CML_F32};
  const int64_t m = 300, k = 512, n = 600;
  for (int t = 0; t < 3; t++) {
    array *a = make(types[t], 0, 2, (int64_t[]){m, k}, false), *b = make(types[t], 0, 2, (int64_t[]){k, n}, false), *c = make(types[t], 0, 2, (int64_t[]){m, n}, false), *y = make(types[t], 0, 2, (int64_t[]){m, n}, false);
    for (int64_t i = 0; i < m * k; i++) set(a, i, (double)(i * 31 % 17 - 8) / 8);
    for (int64_t i = 0; i < k * n; i++) set(b, i, (double)(i * 7 % 13 - 6) / 8);
    for (int64_t i = 0; i < m * n; i++) set(c, i, (double)(i % 5));
    for (int added = 0; added < 2; added++) {
      cml_et_value half = {.kind = CML_PTE_REAL, .real = 0.5}, one = {.kind = CML_PTE_REAL, .real = 1};
      if (added) run("aten::addmm.out", (cml_et_value *[]){&c->value, &a->value, &b->value, &half, &one, &y->value}, 6);
      else run("aten::mm.out", (cml_et_value *[]){&a->value, &b->value, &y->value}, 3);
      for (int64_t i = 0; i < m * n; i += 37) {
        double sum = added ? (double)(i % 5) / 2 : 0;
        for (int64_t j = 0; j < k; j++) sum += get(a, i / n * k + j) * get(b, j * n + i % n);
        near(added ? "addmm" : "mm", i, get(y, i), sum, fabs(sum) * (t == 2 ? 1e-6 : t ? 4e-3 : 5e-4) + 1e-4);
      }
    }
    drop(a), drop(b), drop(c), drop(y);
  }
}

/* As many threads as a large machine has, more than this one: all take less than a few would without a limit. */
static int many_threads(void **state) {
  (void)state;
  limit = MOST;
  return cml_pool_create(128, &pool, NULL);
}
static int two_threads(void **state) {
  (void)state;
  limit = MOST;
  return cml_pool_create(2, &pool, NULL);
}
static int no_threads(void **state) {
  (void)state;
  cml_pool_destroy(pool);
  pool = NULL;
  limit = LIMIT;
  return 0;
}

#define AMONG_TWO(test) {"among two threads: " #test, test, two_threads, no_threads, NULL}
#define AMONG_MANY(test) {"among many threads: " #test, test, many_threads, no_threads, NULL}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(moves),        cmocka_unit_test(searches),  cmocka_unit_test(reductions),  cmocka_unit_test(norms),           cmocka_unit_test(long_rows),
      cmocka_unit_test(images),       AMONG_TWO(waves), AMONG_TWO(long_waves), AMONG_TWO(long_planes),     cmocka_unit_test(complex_numbers),
      cmocka_unit_test(convolutions), cmocka_unit_test(wide_images), cmocka_unit_test(masks),     cmocka_unit_test(channels),        cmocka_unit_test(distances),
      cmocka_unit_test(mixed_products), cmocka_unit_test(many_keys), cmocka_unit_test(channels_last), cmocka_unit_test(index_of_number), cmocka_unit_test(range_of_products),
      AMONG_TWO(many_weights), AMONG_TWO(half_products),
      AMONG_MANY(norms), AMONG_MANY(long_rows), AMONG_MANY(images), AMONG_MANY(convolutions), AMONG_MANY(many_weights), AMONG_MANY(half_products),
      AMONG_MANY(mixed_products), AMONG_MANY(many_keys), AMONG_MANY(reductions)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
