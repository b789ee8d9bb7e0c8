/* Matrix products and distances. Products of floats go through the blocked matrix product in float32; float64 and integers through
 * plain loops in their own arithmetic. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_view.h"
#include "gemm.h"

/* A matrix in memory of any type: element (r, k) at first + r * row + k * column. */
typedef struct matrix {
  const cml_et_tensor *t;
  int64_t first, rows, columns, row, column;
} matrix;

static matrix matrix_of(const cml_et_tensor *t, int64_t first) { /* the last two dimensions */
  int k = t->rank;
  return (matrix){t, first, t->sizes[k - 2], t->sizes[k - 1], t->strides[k - 2], t->strides[k - 1]};
}
static matrix transposed(matrix m) { return (matrix){m.t, m.first, m.columns, m.rows, m.column, m.row}; }

/* Temporary memory of a product, used again for the next one of the same shapes (bmm). */
typedef struct work {
  float *a, *b;
  void *packed, *scratch;
} work;

/* As floats: in place, or converted into *room, temporary memory. */
static const float *floats_of(cml_et_call *c, matrix *m, float **room) {
  if (m->t->dtype == CML_F32) return (const float *)m->t->data + m->first;
  if (!*room) *room = cml_et_temp(c, (uint64_t)(m->rows * m->columns) * sizeof **room);
  float *p = *room;
  if (!p) return NULL;
  bool by_rows = m->column == 1 || m->row != 1;
  int64_t outer = by_rows ? m->rows : m->columns, inner = by_rows ? m->columns : m->rows;
  for (int64_t i = 0; i < outer; i++)
    cml_et_load_f32(p + i * inner, m->t, m->first + i * (by_rows ? m->row : m->column), by_rows ? m->column : m->row, inner);
  m->row = by_rows ? inner : 1;
  m->column = by_rows ? 1 : inner;
  return p;
}

/* A few rows a times b, without packing b, which costs as much as going over it: each of b's columns against a row of a where
 * the columns lie in one piece, else each of b's rows on top of the others. False where b lies otherwise. */
typedef struct few_rows {
  const float *a, *bias;
  const void *b;
  bool half;
  int64_t rows, depth, columns, a_row, b_row, b_column;
  float *to;
} few_rows;

static void few_columns(void *context, size_t begin, size_t end) {
  const few_rows *f = context;
  const cml_kernels *k = cml_kernels_get();
  size_t width = f->half ? 2 : 4, n = end - begin;
  for (int64_t r = 0; r < f->rows; r++) {
    float *to = f->to + r * f->columns + begin;
    const float *a = f->a + r * f->a_row;
    const char *b = f->b;
    if (f->b_row == 1) {
      k->gemv_rows(n, (size_t)f->depth, b + (size_t)f->b_column * begin * width, f->half, (size_t)f->b_column, a, to);
      if (f->bias) k->binary(CML_BINARY_ADD, to, f->bias + begin, to, n);
      continue;
    }
    if (f->bias) memcpy(to, f->bias + begin, n * sizeof *to);
    else memset(to, 0, n * sizeof *to);
    for (int64_t d = 0; d < f->depth; d++) k->axpy(a[d], (const float *)(const void *)b + d * f->b_row + begin, to, n);
  }
}

static bool product_few(cml_et_call *c, work *w, matrix a, matrix b, const float *bias, float *to) {
  bool half = b.t->dtype == CML_F16, by_columns = b.row == 1 && b.column >= 1, by_rows = b.column == 1 && !half && b.columns >= 16;
  if (a.rows > 4 || (b.t->dtype != CML_F32 && !half) || !(by_columns || by_rows)) return false;
  const float *x = floats_of(c, &a, &w->a);
  if (!x || (a.column != 1 && a.columns != 1)) return false;
  few_rows f = {x, bias, (const char *)b.t->data + b.first * (half ? 2 : 4), half, a.rows, a.columns, b.columns, a.row, by_columns ? 1 : b.row, b.column, to};
  cml_parallel(c->pool, (size_t)b.columns, (size_t)(65536 / (a.columns * a.rows) + 16), few_columns, &f);
  return true;
}

/* Columns of b that are packed at a time: what fits half a megabyte, so that a program's memory does not grow by its weights. */
static int64_t block_columns(const cml_kernels *k, int64_t depth, int64_t columns) {
  int64_t tile = (int64_t)k->tile_columns, n = (INT64_C(1) << 17) / (depth + 1) / tile * tile;
  return n < tile ? (tile < columns ? tile : columns) : n < columns ? n : columns;
}

static cml_status product_f32(cml_et_call *c, work *w, matrix a, matrix b, const float *bias, float *to, cml_error *err) {
  if (product_few(c, w, a, b, bias, to)) return CML_OK;
  const cml_kernels *k = cml_kernels_get();
  size_t threads = cml_pool_threads(c->pool), depth = (size_t)a.columns;
  int64_t step = block_columns(k, a.columns, b.columns);
  const float *x = floats_of(c, &a, &w->a);
  if (!w->packed) w->packed = cml_et_temp(c, cml_pack_bytes(k, depth, (size_t)step, false));
  if (!w->scratch) w->scratch = cml_et_temp(c, cml_gemm_scratch(k) * threads);
  if (!x || !w->packed || !w->scratch) return cml_fail_memory(err);
  for (int64_t at = 0; at < b.columns; at += step) {
    matrix part = b;
    part.first += at * b.column;
    part.columns = b.columns - at < step ? b.columns - at : step;
    const float *y = floats_of(c, &part, &w->b);
    if (!y) return cml_fail_memory(err);
    size_t columns = (size_t)part.columns;
    cml_pack_panels(k, w->packed, false, y, false, depth, columns, (size_t)part.row, (size_t)part.column, 0, cml_panel_count(k, columns));
    cml_gemm g = {.rows = (size_t)a.rows, .columns = columns, .depth = depth, .a = x, .a_stride = (size_t)a.row,
                  .a_depth_stride = (size_t)a.column, .b = w->packed, .c = to + at, .c_stride = (size_t)b.columns,
                  .after = {.bias = bias ? bias + at : NULL, .activation = CML_UNARY_COPY}};
    cml_gemm_run(k, &g, 1, c->pool, w->scratch, threads);
  }
  return CML_OK;
}

/* Where products are wide they are also fused. */
#ifdef __x86_64__
__attribute__((target("avx2,fma")))
#endif
static void product_f64_wide(double *to, const double *x, const double *y, int64_t step, int64_t n) {
  const double *y1 = y + step, *y2 = y1 + step, *y3 = y2 + step;
  CML_INDEPENDENT for (int64_t j = 0; j < n; j++)
    to[j] = __builtin_fma(x[3], y3[j], __builtin_fma(x[2], y2[j], __builtin_fma(x[1], y1[j], __builtin_fma(x[0], y[j], to[j]))));
}

/* The others: in steps of four of b's rows, which are in place or brought into the computing type. */
#define PLAIN_PRODUCT(name, T, U, TYPE, load)                                               \
  CML_WIDE_INLINE void name##_loop(T *to, const T *x, const T *y, int64_t step, int64_t n) { \
    const T *y1 = y + step, *y2 = y1 + step, *y3 = y2 + step;                               \
    CML_INDEPENDENT for (int64_t j = 0; j < n; j++)                                         \
      to[j] = (T)((U)to[j] + (U)x[0] * (U)y[j] + (U)x[1] * (U)y1[j] + (U)x[2] * (U)y2[j] + (U)x[3] * (U)y3[j]); \
  }                                                                                         \
  static cml_status name(cml_et_call *c, work *w, matrix a, matrix b, T *to, cml_error *err) { \
    if (!w->scratch) w->scratch = cml_et_temp(c, (uint64_t)(a.columns + 4) * sizeof(T));      \
    T *x = w->scratch, *y = (T *)b.t->data + b.first, *mine = NULL; \
    int64_t step = b.row, whole = a.columns & ~INT64_C(3);                                  \
    if (!x) return cml_fail_memory(err);                                                    \
    if (b.t->dtype != TYPE || b.column != 1) {                                              \
      if (!w->packed) w->packed = cml_et_temp(c, (uint64_t)(b.rows * b.columns) * sizeof *mine); \
      if (!(mine = w->packed)) return cml_fail_memory(err);                                 \
      for (int64_t k = 0; k < b.rows; k++) load(mine + k * b.columns, b.t, b.first + k * b.row, b.column, b.columns); \
      y = mine;                                                                             \
      step = b.columns;                                                                     \
    }                                                                                       \
    memset(to, 0, (size_t)(a.rows * b.columns) * sizeof *to);                               \
    for (int64_t i = 0; i < a.rows; i++) {                                                  \
      T *row = to + i * b.columns;                                                          \
      load(x, a.t, a.first + i * a.row, a.column, a.columns);                               \
      for (int64_t k = 0; k < whole; k += 4) (cml_wide() ? name##_wide : name##_loop)(row, x + k, y + k * step, step, b.columns); \
      for (int64_t k = whole; k < a.columns; k++)                                           \
        for (int64_t j = 0; j < b.columns; j++) row[j] = (T)((U)row[j] + (U)x[k] * (U)y[k * step + j]); \
    }                                                                                       \
    return CML_OK;                                                                          \
  }
CML_WIDE_INLINE void product_i64_loop(int64_t *to, const int64_t *x, const int64_t *y, int64_t step, int64_t n);
CML_WIDE static void product_i64_wide(int64_t *to, const int64_t *x, const int64_t *y, int64_t step, int64_t n) { product_i64_loop(to, x, y, step, n); }
PLAIN_PRODUCT(product_f64, double, double, CML_F64, cml_et_load_f64)
PLAIN_PRODUCT(product_i64, int64_t, uint64_t, CML_I64, cml_et_load_i64)

static cml_dtype product_type(cml_dtype t) { return t == CML_F64 ? CML_F64 : cml_dtype_is_float(t) ? CML_F32 : CML_I64; }

/* a b, contiguous, of product_type, at `to`. */
static cml_status product(cml_et_call *c, work *w, matrix a, matrix b, const float *bias, void *to, cml_error *err) {
  if (a.rows == 0 || b.columns == 0) return CML_OK;
  cml_dtype type = product_type(a.t->dtype);
  if (type == CML_F64) return product_f64(c, w, a, b, to, err);
  if (type == CML_I64) return product_i64(c, w, a, b, to, err);
  if (a.columns > 0) return product_f32(c, w, a, b, bias, to, err);
  for (int64_t i = 0; i < a.rows * b.columns; i++) ((float *)to)[i] = bias ? bias[i % b.columns] : 0;
  return CML_OK;
}

static cml_status check_product(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, const cml_et_tensor *out, cml_error *err) {
  CML_TRY(cml_et_want(c, a, CML_ET_ANY & ~CML_M_BOOL, "a matrix", err));
  CML_TRY(cml_et_same_type(c, a, b, err));
  return cml_et_same_type(c, a, out, err);
}

static cml_status mismatch(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, cml_error *err) {
  char x[128], y[128];
  return cml_et_fail(c, err, "shapes %s and %s make no product", cml_et_shape_text(a, x, sizeof x), cml_et_shape_text(b, y, sizeof y));
}

/* Memory for the product: the output's own where it can be. */
static void *product_room(cml_et_call *c, cml_et_tensor *out, cml_et_local *local) {
  cml_dtype type = product_type(out->dtype);
  void *data = out->data;
  if (type != out->dtype || !cml_et_is_contiguous(out)) data = cml_et_temp(c, (uint64_t)cml_et_numel(out) * 8);
  cml_et_make(local, type, out->rank, out->sizes, data);
  return data;
}

/* `count` products, one behind the other in `out`, which has its shape already. */
static cml_status products(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, int64_t count, cml_et_tensor *out, cml_error *err) {
  work w = {NULL};
  cml_et_local local;
  if (cml_et_numel(out) == 0) return CML_OK;
  if (!product_room(c, out, &local)) return cml_fail_memory(err);
  size_t bytes = (size_t)(cml_et_numel(out) / count) * cml_et_width(&local.t);
  for (int64_t n = 0; n < count; n++)
    CML_TRY(product(c, &w, matrix_of(a, n * a->strides[0]), matrix_of(b, n * b->strides[0]), NULL, (char *)local.t.data + (size_t)n * bytes, err));
  if (local.t.data != out->data) cml_et_copy(out, &local.t);
  return CML_OK;
}

static cml_status op_mm(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *a = cml_et_arg(c, 0), *b = cml_et_arg(c, 1);
  cml_et_tensor *out = cml_et_arg(c, 2);
  CML_TRY(check_product(c, a, b, out, err));
  if (a->rank != 2 || b->rank != 2 || a->sizes[1] != b->sizes[0]) return mismatch(c, a, b, err);
  CML_TRY(cml_et_resize(c, out, 2, (int64_t[]){a->sizes[0], b->sizes[1]}, err));
  return products(c, a, b, 1, out, err);
}

static cml_status op_bmm(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *a = cml_et_arg(c, 0), *b = cml_et_arg(c, 1);
  cml_et_tensor *out = cml_et_arg(c, 2);
  CML_TRY(check_product(c, a, b, out, err));
  if (a->rank != 3 || b->rank != 3 || a->sizes[2] != b->sizes[1] || a->sizes[0] != b->sizes[0]) return mismatch(c, a, b, err);
  CML_TRY(cml_et_resize(c, out, 3, (int64_t[]){a->sizes[0], a->sizes[1], b->sizes[2]}, err));
  return products(c, a, b, a->sizes[0], out, err);
}

/* s0 x + s1 y */
CML_ET_MAP2(blend_f32, float, float, (float)s->d[0] * x + (float)s->d[1] * y)
CML_ET_MAP2(blend_f64, double, double, s->d[0] * x + s->d[1] * y)
CML_ET_MAP2(blend_i64, int64_t, int64_t, (uint64_t)s->i[0] * (uint64_t)x + (uint64_t)s->i[1] * (uint64_t)y)
CML_ET_MAP1(scale_f32, float, float, (float)s->d[0] * x)
CML_ET_MAP1(scale_f64, double, double, s->d[0] * x)
CML_ET_MAP1(scale_i64, int64_t, int64_t, (uint64_t)s->i[0] * (uint64_t)x)

static cml_status op_addmm(cml_et_call *c, cml_error *err) {
  static const cml_et_maps blend = {blend_f32, blend_f64, blend_i64, false}, scale = {scale_f32, scale_f64, scale_i64, false};
  const cml_et_tensor *self = cml_et_arg(c, 0), *a = cml_et_arg(c, 1), *b = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 5);
  work w = {NULL};
  cml_et_number beta = cml_et_scalar(c, 3), alpha = cml_et_scalar(c, 4);
  cml_et_local local;
  CML_TRY(check_product(c, a, b, out, err));
  CML_TRY(cml_et_same_type(c, self, out, err));
  if (a->rank != 2 || b->rank != 2 || a->sizes[1] != b->sizes[0]) return mismatch(c, a, b, err);
  int64_t sizes[2] = {a->sizes[0], b->sizes[1]}, together[CML_PTE_MAX_RANK];
  size_t rank;
  cml_et_make(&local, product_type(a->dtype), 2, sizes, NULL);
  CML_TRY(cml_et_broadcast(c, (const cml_et_tensor *const[]){self, &local.t}, 2, &rank, together, err));
  if (rank != 2 || memcmp(together, sizes, sizeof sizes)) return mismatch(c, self, a, err);
  CML_TRY(cml_et_resize(c, out, 2, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  if (out->data == self->data) local.t.data = cml_et_temp(c, (uint64_t)cml_et_numel(out) * 8);
  else product_room(c, out, &local);
  if (!local.t.data) return cml_fail_memory(err);
  CML_TRY(product(c, &w, matrix_of(a, 0), matrix_of(b, 0), NULL, local.t.data, err));
  cml_et_scalars s = {.d = {alpha.d, beta.d}, .i = {alpha.i, beta.i}};
  return cml_et_elementwise(c, beta.d == 0 ? &scale : &blend, a->dtype, (const cml_et_tensor *const[]){&local.t, self}, 2, &s, out, err);
}

/* x w^T + bias; all dimensions of x but the last are rows. */
static cml_status op_linear(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *w = cml_et_arg(c, 1), *bias = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 3);
  cml_et_local local, dense;
  int64_t sizes[CML_PTE_MAX_RANK];
  float *b = NULL;
  work room = {NULL};
  CML_TRY(check_product(c, x, w, out, err));
  if (x->rank < 1 || w->rank < 1 || w->rank > 2 || x->sizes[x->rank - 1] != w->sizes[w->rank - 1]) return mismatch(c, x, w, err);
  int64_t depth = w->sizes[w->rank - 1], columns = w->rank == 2 ? w->sizes[0] : 1, count = 1;
  if (bias && (bias->dtype != x->dtype || cml_et_numel(bias) != columns || bias->rank > 1)) return mismatch(c, bias, w, err);
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  sizes[x->rank - 1] = columns;
  CML_TRY(cml_et_resize(c, out, (size_t)(w->rank == 2 ? x->rank : x->rank - 1), sizes, err));
  for (int k = 0; k + 1 < x->rank; k++) count *= x->sizes[k];
  if (cml_et_numel(out) == 0) return CML_OK;
  CML_TRY(cml_et_contiguous(c, x, &dense, &x, err));
  if (!product_room(c, out, &local)) return cml_fail_memory(err);
  cml_dtype type = product_type(x->dtype);
  if (bias && type == CML_F32) {
    if (!(b = cml_et_temp(c, (uint64_t)columns * sizeof *b))) return cml_fail_memory(err);
    cml_et_load_f32(b, bias, 0, 1, columns);
  }
  matrix a = {x, 0, count, depth, depth, 1}, m = {w, 0, columns, depth, w->rank == 2 ? w->strides[0] : depth, w->strides[w->rank - 1]};
  CML_TRY(product(c, &room, a, transposed(m), b, local.t.data, err));
  if (bias && !b) {
    static const cml_et_maps blend = {blend_f32, blend_f64, blend_i64, false};
    cml_et_scalars s = {.d = {1, 1}, .i = {1, 1}};
    return cml_et_elementwise(c, &blend, x->dtype, (const cml_et_tensor *const[]){&local.t, bias}, 2, &s, out, err);
  }
  if (local.t.data != out->data) cml_et_copy(out, &local.t);
  return CML_OK;
}

/* ---- distances ---- */

CML_WIDE_INLINE double square_distance_loop(const double *x, const double *y, int64_t n) {
  double part[8] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int k = 0; k < 8; k++) part[k] += (x[i + k] - y[i + k]) * (x[i + k] - y[i + k]);
  for (; i < n; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
  for (int k = 0; k < 8; k++) sum += part[k];
  return sum;
}
CML_WIDE static double square_distance_wide(const double *x, const double *y, int64_t n) { return square_distance_loop(x, y, n); }

static double distance(const double *x, const double *y, int64_t n, double p) {
  double sum = 0;
  if (p == 2) return sqrt((cml_wide() ? square_distance_wide : square_distance_loop)(x, y, n));
  for (int64_t i = 0; i < n; i++) {
    double d = fabs(x[i] - y[i]);
    if (p == 0) sum += d != 0;
    else if (p == 1) sum += d;
    else if (isinf(p)) sum = d > sum || d != d ? d : sum;
    else sum += pow(d, p);
  }
  return p == 0 || p == 1 || isinf(p) ? sum : pow(sum, 1 / p);
}

static double *doubles_of(cml_et_call *c, const cml_et_tensor *t) {
  cml_et_local local;
  double *p = cml_et_temp(c, (uint64_t)cml_et_numel(t) * sizeof *p);
  if (!p) return NULL;
  cml_et_make(&local, CML_F64, t->rank, t->sizes, p);
  cml_et_copy(&local.t, t);
  return p;
}

static cml_status op_cdist(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *a = cml_et_arg(c, 0), *b = cml_et_arg(c, 1);
  cml_et_tensor *out = cml_et_arg(c, 4);
  double p = cml_et_real(c, 2, 2);
  int64_t sizes[CML_PTE_MAX_RANK], as[CML_PTE_MAX_RANK], bs[CML_PTE_MAX_RANK];
  size_t rank;
  cml_et_local la, lb;
  CML_TRY(check_product(c, a, b, out, err));
  CML_TRY(cml_et_want(c, a, CML_ET_FLOATING, "the tensor", err));
  if (a->rank < 2 || b->rank < 2 || a->sizes[a->rank - 1] != b->sizes[b->rank - 1] || !(p >= 0)) return mismatch(c, a, b, err);
  int64_t m = a->sizes[a->rank - 1], rows_a = a->sizes[a->rank - 2], rows_b = b->sizes[b->rank - 2], batches = 1;
  cml_et_make(&la, CML_F64, (size_t)a->rank - 2, a->sizes, NULL);
  cml_et_make(&lb, CML_F64, (size_t)b->rank - 2, b->sizes, NULL);
  CML_TRY(cml_et_broadcast(c, (const cml_et_tensor *const[]){&la.t, &lb.t}, 2, &rank, sizes, err));
  cml_et_broadcast_strides(&la.t, rank, sizes, as);
  cml_et_broadcast_strides(&lb.t, rank, sizes, bs);
  for (size_t k = 0; k < rank; k++) batches *= sizes[k];
  sizes[rank] = rows_a;
  sizes[rank + 1] = rows_b;
  CML_TRY(cml_et_resize(c, out, rank + 2, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  if (!cml_et_is_contiguous(out)) return cml_et_fail(c, err, "the output is not contiguous");
  double *x = doubles_of(c, a), *y = doubles_of(c, b);
  if (!x || !y) return cml_fail_memory(err);
  for (int64_t n = 0, at = 0; n < batches; n++) {
    int64_t fa = 0, fb = 0, rest = n;
    for (int k = (int)rank - 1; k >= 0; rest /= sizes[k], k--) {
      fa += rest % sizes[k] * as[k];
      fb += rest % sizes[k] * bs[k];
    }
    for (int64_t i = 0; i < rows_a; i++)
      for (int64_t j = 0; j < rows_b; j++, at++) {
        double d = distance(x + (fa * rows_a + i) * m, y + (fb * rows_b + j) * m, m, p);
        cml_et_store_f64(out, at, 1, 1, &d);
      }
  }
  return CML_OK;
}

static cml_status op_pdist(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *a = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 2);
  double p = cml_et_real(c, 1, 2);
  CML_TRY(cml_et_want(c, a, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_same_type(c, a, out, err));
  if (a->rank != 2 || !(p >= 0)) return cml_et_fail(c, err, "takes a matrix and a norm that is not negative");
  int64_t n = a->sizes[0], m = a->sizes[1], count = n > INT32_MAX ? -1 : n * (n - 1) / 2, at = 0;
  CML_TRY(cml_et_resize(c, out, 1, &count, err));
  if (count == 0) return CML_OK;
  double *x = doubles_of(c, a);
  if (!x) return cml_fail_memory(err);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++, at++) {
      double d = distance(x + i * m, x + j * m, m, p);
      cml_et_store_f64(out, at, 1, 1, &d);
    }
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::_cdist_forward.out", "ttdi?o", op_cdist},
    {"aten::_pdist_forward.out", "tdo", op_pdist},
    {"aten::addmm.out", "tttnno", op_addmm},
    {"aten::bmm.out", "tto", op_bmm},
    {"aten::linear.out", "ttt?o", op_linear},
    {"aten::mm.out", "tto", op_mm},
};
CML_ET_FAMILY(linear)
