/* The virtual machine's products against plain sums: every type, layouts by rows and by columns, sizes around those of tiles and
 * blocks, sums so long that they are split; and that none of them takes more than a megabyte and a half beside its tensors. */
#include "test.h"

#include <math.h>

#include "et_op.h"
#include "random_numbers.h"

enum { LIMIT = 1536 << 10 };

typedef struct matrix {
  cml_et_local local;
  int64_t sizes[3];
} matrix;

static void make(matrix *m, cml_dtype type, int rank, int64_t a, int64_t b, int64_t c, bool by_columns) {
  int64_t sizes[3] = {a, b, c};
  const int64_t *used = sizes + 3 - rank;
  uint64_t n = 1;
  for (int k = 0; k < rank; k++) n *= (uint64_t)used[k];
  cml_et_make(&m->local, type, (size_t)rank, used, calloc(n + 1, 8));
  m->local.t.capacity = n * 8;
  if (by_columns) { /* the last two dimensions the other way round */
    int64_t *strides = m->local.t.strides + rank - 2;
    uint8_t *order = m->local.t.order + rank - 2, first = order[0];
    order[0] = order[1];
    order[1] = first;
    strides[0] = 1;
    strides[1] = used[rank - 2];
  }
}

static void fill(matrix *m) {
  for (int64_t i = 0, n = cml_et_numel(&m->local.t); i < n; i++) {
    double v = (double)between(-8, 8);
    if (m->local.t.dtype == CML_U8) v += 8;
    if (cml_dtype_is_float(m->local.t.dtype)) v /= 8; /* exact in every type */
    cml_et_store_f64(&m->local.t, i, 1, 1, &v);
  }
}

static double at(const matrix *m, int64_t batch, int64_t r, int64_t c) {
  const cml_et_tensor *t = &m->local.t;
  double v;
  int64_t place = (t->rank > 2 ? batch * t->strides[0] : 0) + (t->rank > 1 ? r * t->strides[t->rank - 2] : 0) + c * t->strides[t->rank - 1];
  cml_et_load_f64(&v, t, place, 1, 1);
  return v;
}

/* As the type has it; wraps as integers do. */
static double rounded(cml_dtype type, double v) {
  cml_et_local one;
  uint64_t room = 0;
  int64_t whole = (int64_t)v;
  cml_et_make(&one, type, 0, NULL, &room);
  if (cml_dtype_is_float(type)) cml_et_store_f64(&one.t, 0, 1, 1, &v);
  else cml_et_store_i64(&one.t, 0, 1, 1, &whole);
  cml_et_load_f64(&v, &one.t, 0, 1, 1);
  return v;
}

static double tolerance(cml_dtype type, double sum) {
  double unit = type == CML_F32 ? 0x1p-22 : type == CML_F16 ? 0x1p-10 : type == CML_BF16 ? 0x1p-7 : type == CML_F64 ? 0x1p-50 : 0;
  return unit * (fabs(sum) + (type == CML_F32 ? 16 : 1)); /* numbers are exact: what differs is the last rounding, and sums of floats */
}

typedef struct sizes {
  int64_t batch, rows, depth, columns;
} sizes;

static void check(const matrix *out, const matrix *a, const matrix *b, bool b_transposed, const matrix *add, double alpha, double beta, const sizes *s) {
  cml_dtype type = out->local.t.dtype;
  int64_t step = s->rows * s->columns * (s->depth + 1) / 20000 | 1; /* of large ones, some */
  for (int64_t n = 0; n < s->batch; n++)
    for (int64_t k = 0; k < s->rows * s->columns; k += step) {
      int64_t i = k / s->columns, j = k % s->columns;
      double sum = 0;
      for (int64_t d = 0; d < s->depth; d++) sum += at(a, n, i, d) * (b_transposed ? at(b, n, j, d) : at(b, n, d, j));
      if (add) sum = alpha * sum + (beta != 0 ? beta * at(add, 0, add->local.t.rank == 2 ? i : 0, j) : 0);
      double got = at(out, n, i, j), wanted = rounded(type, sum);
      if (!(fabs(got - wanted) <= tolerance(type, sum)))
        fail_msg("%s [%d, %d, %d, %d] at %d, %d, %d: %.9g, expected %.9g", cml_dtype_name(type), (int)s->batch, (int)s->rows, (int)s->depth,
                 (int)s->columns, (int)n, (int)i, (int)j, got, wanted);
    }
}

static void eval(const char *name, cml_et_value **args, size_t count) {
  const cml_et_op *op = cml_et_op_find(name, strlen(name));
  cml_error err = {0};
  assert_non_null(op);
  if (cml_et_op_eval_within(op, args, count, NULL, LIMIT, &err)) fail_msg("%s", err.text);
}

#define TENSOR(m) {.kind = CML_PTE_TENSOR, .tensor = &(m).local.t}

static void one(cml_dtype type, const sizes *s, bool a_columns, bool b_columns, bool out_columns) {
  matrix a, b, w, bias, add, out, batches[3];
  double alpha = 2, beta = rnd() % 3 ? 3 : 0;
  make(&a, type, 2, 1, s->rows, s->depth, a_columns);
  make(&b, type, 2, 1, s->depth, s->columns, b_columns);
  make(&w, type, 2, 1, s->columns, s->depth, b_columns);
  make(&bias, type, 1, 1, 1, s->columns, false);
  make(&add, type, 2, 1, s->rows, s->columns, a_columns);
  make(&out, type, 2, 1, s->rows, s->columns, out_columns);
  make(&batches[0], type, 3, s->batch, s->rows, s->depth, a_columns);
  make(&batches[1], type, 3, s->batch, s->depth, s->columns, b_columns);
  make(&batches[2], type, 3, s->batch, s->rows, s->columns, out_columns);
  matrix *const given[] = {&a, &b, &w, &bias, &add, &batches[0], &batches[1]};
  for (size_t i = 0; i < sizeof given / sizeof *given; i++) fill(given[i]);
  cml_et_value va = TENSOR(a), vb = TENSOR(b), vw = TENSOR(w), vbias = TENSOR(bias), vadd = TENSOR(add), vout = TENSOR(out), none = {.kind = CML_PTE_NONE},
               v0 = TENSOR(batches[0]), v1 = TENSOR(batches[1]), v2 = TENSOR(batches[2]), valpha = {.kind = CML_PTE_INTEGER, .integer = 2},
               vbeta = {.kind = CML_PTE_INTEGER, .integer = (int64_t)beta}, vone = {.kind = CML_PTE_INTEGER, .integer = 1};
  const sizes single = {1, s->rows, s->depth, s->columns};
  eval("aten::mm.out", (cml_et_value *[]){&va, &vb, &vout}, 3);
  check(&out, &a, &b, false, NULL, 1, 0, &single);
  eval("aten::linear.out", (cml_et_value *[]){&va, &vw, &none, &vout}, 4);
  check(&out, &a, &w, true, NULL, 1, 0, &single);
  eval("aten::linear.out", (cml_et_value *[]){&va, &vw, &vbias, &vout}, 4);
  check(&out, &a, &w, true, &bias, 1, 1, &single);
  eval("aten::addmm.out", (cml_et_value *[]){&vbias, &va, &vb, &vone, &vone, &vout}, 6);
  check(&out, &a, &b, false, &bias, 1, 1, &single);
  eval("aten::addmm.out", (cml_et_value *[]){&vadd, &va, &vb, &vbeta, &valpha, &vout}, 6);
  check(&out, &a, &b, false, &add, alpha, beta, &single);
  if (s->batch) {
    eval("aten::bmm.out", (cml_et_value *[]){&v0, &v1, &v2}, 3);
    check(&batches[2], &batches[0], &batches[1], false, NULL, 1, 0, s);
  }
  matrix *const all[] = {&a, &b, &w, &bias, &add, &out, &batches[0], &batches[1], &batches[2]};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->local.t.data);
}

/* int8 weights with a scale a row or group: [m, k] times [n, k]. */
static void mixed_linear(cml_dtype type, cml_dtype scale_type, int64_t m, int64_t k, int64_t n, int64_t groups) {
  matrix x, w, scales, out;
  make(&x, type, 2, 1, m, k, false);
  make(&w, CML_I8, 2, 1, n, k, false);
  if (groups) make(&scales, scale_type, 2, 1, n, groups, false);
  else make(&scales, scale_type, 1, 1, 1, n, false);
  make(&out, type, 2, 1, m, n, false);
  fill(&x), fill(&scales);
  for (int64_t i = 0; i < n * k; i++) ((int8_t *)w.local.t.data)[i] = (int8_t)(rnd() % 5 ? rnd() : 0x80);
  cml_et_value vx = TENSOR(x), vw = TENSOR(w), vscales = TENSOR(scales), none = {.kind = CML_PTE_NONE}, vout = TENSOR(out);
  eval("quantized_decomposed::mixed_linear.out", (cml_et_value *[]){&vx, &vw, &vscales, &none, &none, &vout}, 6);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0, size = 0, unit = type == CML_F32 ? 0 : type == CML_F16 ? 0x1p-11 : 0x1p-8, got = at(&out, 0, i, j);
      for (int64_t d = 0; d < k; d++) {
        double p = at(&x, 0, i, d) * at(&w, 0, j, d) * (groups ? at(&scales, 0, j, d / (k / groups)) : at(&scales, 0, 0, j));
        sum += p, size += fabs(p);
      }
      if (!(fabs(got - sum) <= 1e-6 * size + unit * fabs(sum)) && fabs(sum) < 60000)
        fail_msg("%s [%d, %d, %d] by %d groups at %d, %d: %.9g, expected %.9g", cml_dtype_name(type), (int)m, (int)k, (int)n, (int)groups, (int)i, (int)j, got, sum);
    }
  matrix *const all[] = {&x, &w, &scales, &out};
  for (size_t i = 0; i < 4; i++) free(all[i]->local.t.data);
}

static void mixed_weights(void **state) {
  static const cml_dtype floats[] = {CML_F32, CML_F16, CML_BF16};
  static const int64_t cases[][4] = {{1, 64, 3, 0}, {2, 128, 70, 4}, {3, 96, 130, 3}, {1, 7, 5, 1}, {2, 130, 9, 13}, {1, 4096, 65, 32}, {1, 70016, 4, 0}, {1, 256, 5000, 2}};
  (void)state;
  for (size_t t = 0; t < 9; t++)
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) mixed_linear(floats[t % 3], floats[t / 3], cases[k][0], cases[k][1], cases[k][2], cases[k][3]);
}

static const cml_dtype types[] = {CML_F32, CML_F16, CML_BF16, CML_F64, CML_I32, CML_I64, CML_U8};

static void every_type_and_layout(void **state) {
  static const sizes some[] = {{2, 1, 5, 7}, {2, 3, 8, 33}, {3, 9, 17, 16}, {2, 8, 16, 32}, {1, 31, 1, 50}, {2, 5, 0, 6}, {1, 17, 130, 65}};
  (void)state;
  for (size_t t = 0; t < sizeof types / sizeof *types; t++)
    for (size_t k = 0; k < sizeof some / sizeof *some; k++)
      for (int layout = 0; layout < 8; layout++) one(types[t], &some[k], layout & 1, layout & 2, layout & 4);
}

static void long_sums(void **state) {
  static const sizes some[] = {{1, 2, 9001, 5}, {1, 19, 9001, 35}, {1, 70, 4100, 40}};
  (void)state;
  for (size_t t = 0; t < sizeof types / sizeof *types; t++)
    for (size_t k = 0; k < sizeof some / sizeof *some; k++)
      for (int layout = 0; layout < 8; layout += 3) one(types[t], &some[k], layout & 1, layout & 2, layout & 4);
}

static void large_ones_in_little_memory(void **state) {
  static const sizes some[] = {{1, 300, 700, 2500}, {1, 3, 600, 9000}};
  (void)state;
  for (size_t t = 0; t < sizeof types / sizeof *types; t++)
    for (size_t k = 0; k < sizeof some / sizeof *some; k++)
      for (int layout = 0; layout < 8; layout += 7) one(types[t], &some[k], layout & 1, layout & 2, layout & 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_type_and_layout), cmocka_unit_test(mixed_weights), cmocka_unit_test(long_sums), cmocka_unit_test(large_ones_in_little_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
