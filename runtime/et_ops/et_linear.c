/* Matrix products (et_product.h) and distances. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_product.h"
#include "et_view.h"

static cml_status check_product(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, const cml_et_tensor *out, cml_error *err) {
  CML_TRY(cml_et_want(c, a, CML_ET_ANY & ~CML_M_BOOL, "a matrix", err));
  CML_TRY(cml_et_same_type(c, a, b, err));
  return cml_et_same_type(c, a, out, err);
}

static cml_status mismatch(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, cml_error *err) {
  char x[128], y[128];
  return cml_et_fail(c, err, "shapes %s and %s make no product", cml_et_shape_text(a, x, sizeof x), cml_et_shape_text(b, y, sizeof y));
}

/* `count` products into `out`, which has its shape already. */
static cml_status products(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, int64_t count, cml_et_tensor *out, cml_error *err) {
  cml_et_room room = {NULL};
  for (int64_t n = 0; n < count && cml_et_numel(out); n++)
    CML_TRY(cml_et_product(c, &room, cml_et_matrix_of(a, n * a->strides[0]), cml_et_matrix_of(b, n * b->strides[0]), NULL, out,
                           cml_et_matrix_of(out, n * out->strides[0]), err));
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

static cml_status op_addmm(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0), *a = cml_et_arg(c, 1), *b = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 5);
  cml_et_room room = {NULL};
  cml_et_local shape;
  CML_TRY(check_product(c, a, b, out, err));
  CML_TRY(cml_et_same_type(c, self, out, err));
  if (a->rank != 2 || b->rank != 2 || a->sizes[1] != b->sizes[0]) return mismatch(c, a, b, err);
  int64_t sizes[2] = {a->sizes[0], b->sizes[1]}, together[CML_PTE_MAX_RANK], strides[2];
  size_t rank;
  cml_et_make(&shape, out->dtype, 2, sizes, NULL);
  CML_TRY(cml_et_broadcast(c, (const cml_et_tensor *const[]){self, &shape.t}, 2, &rank, together, err));
  if (rank != 2 || memcmp(together, sizes, sizeof sizes)) return mismatch(c, self, a, err);
  CML_TRY(cml_et_resize(c, out, 2, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  cml_et_broadcast_strides(self, 2, sizes, strides);
  const cml_et_blend blend = {cml_et_scalar(c, 4), cml_et_scalar(c, 3), {self, 0, sizes[0], sizes[1], strides[0], strides[1]}};
  return cml_et_product(c, &room, cml_et_matrix_of(a, 0), cml_et_matrix_of(b, 0), &blend, out, cml_et_matrix_of(out, 0), err);
}

/* x w^T + bias; all dimensions of x but the last are rows: one matrix where they lie so, else one for each index of those in front. */
static cml_status op_linear(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *w = cml_et_arg(c, 1), *bias = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 3);
  int64_t sizes[CML_PTE_MAX_RANK], at[CML_PTE_MAX_RANK] = {0};
  cml_et_room room = {NULL};
  cml_et_number one = {CML_PTE_INTEGER, 1, 1};
  CML_TRY(check_product(c, x, w, out, err));
  if (x->rank < 1 || w->rank < 1 || w->rank > 2 || x->sizes[x->rank - 1] != w->sizes[w->rank - 1]) return mismatch(c, x, w, err);
  int64_t depth = w->sizes[w->rank - 1], columns = w->rank == 2 ? w->sizes[0] : 1;
  if (bias && (bias->dtype != x->dtype || cml_et_numel(bias) != columns || bias->rank > 1)) return mismatch(c, bias, w, err);
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  sizes[x->rank - 1] = columns;
  CML_TRY(cml_et_resize(c, out, (size_t)(w->rank == 2 ? x->rank : x->rank - 1), sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  int last = x->rank - 1, front = last > 0 ? last - 1 : 0; /* dimensions in front of a matrix */
  cml_et_matrix a = {x, 0, last ? x->sizes[last - 1] : 1, depth, last ? x->strides[last - 1] : depth, x->strides[last]};
  cml_et_matrix to = {out, 0, a.rows, columns, last ? out->strides[last - 1] : columns, w->rank == 2 ? out->strides[last] : 1};
  cml_et_matrix m = {w, 0, columns, depth, w->rank == 2 ? w->strides[0] : depth, w->strides[w->rank - 1]};
  if (cml_et_is_contiguous(x) && cml_et_is_contiguous(out)) {
    a = (cml_et_matrix){x, 0, cml_et_numel(out) / columns, depth, depth, 1};
    to = (cml_et_matrix){out, 0, a.rows, columns, columns, 1};
    front = 0;
  }
  const cml_et_blend blend = {one, one, {bias, 0, a.rows, columns, 0, 1}};
  for (bool more = true; more;) {
    CML_TRY(cml_et_product(c, &room, a, cml_et_transposed(m), bias ? &blend : NULL, out, to, err));
    more = false;
    for (int k = front - 1; k >= 0 && !more; k--) {
      more = ++at[k] < x->sizes[k];
      a.first += x->strides[k] * (more ? 1 : 1 - x->sizes[k]);
      to.first += out->strides[k] * (more ? 1 : 1 - x->sizes[k]);
      if (!more) at[k] = 0;
    }
  }
  return CML_OK;
}

/* ---- distances ---- */

/* Euclid's, of x to each of `rows` rows of y: squares in float, summed in 8 parts, those of 128 elements in double. */
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
CML_WIDE_INLINE void euclid_loop(float *to, const float *x, const float *y, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, y += n) {
    double sum = 0;
    for (int64_t from = 0; from < n; from += 128) {
      int64_t end = n - from < 128 ? n : from + 128, i = from;
      eight part = {0};
      float rest = 0;
      for (; i + 8 <= end; i += 8) {
        eight d = *(const eight *)(x + i) - *(const eight *)(y + i);
        part += d * d;
      }
      for (; i < end; i++) rest += (x[i] - y[i]) * (x[i] - y[i]);
      sum += (double)(((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7])) + rest);
    }
    to[r] = (float)sqrt(sum);
  }
}
CML_WIDE static void euclid_wide(float *to, const float *x, const float *y, int64_t rows, int64_t n) { euclid_loop(to, x, y, rows, n); }

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

/* What n more elements add to a distance before its root is taken. */
static double add_distance(double sum, const double *x, const double *y, int64_t n, double p) {
  if (p == 2) return sum + (cml_wide() ? square_distance_wide : square_distance_loop)(x, y, n);
  for (int64_t i = 0; i < n; i++) {
    double d = fabs(x[i] - y[i]);
    if (p == 0) sum += d != 0;
    else if (p == 1) sum += d;
    else if (isinf(p)) sum = d > sum || d != d ? d : sum;
    else sum += pow(d, p);
  }
  return sum;
}
static double root_of(double sum, double p) { return p == 2 ? sqrt(sum) : p == 0 || p == 1 || isinf(p) ? sum : pow(sum, 1 / p); }

/* Rows of numbers, one behind the other from element `first` of the shape on; a row is `size` elements of any type. */
typedef struct lines {
  const cml_et_tensor *t;
  int64_t first, rows, size;
} lines;

/* out[at ..] = the distances of row x of a to rows of b, some of which are brought into doubles at a time, or some of one long row. */
enum { ROOM = 4096 };
typedef struct distances {
  cml_et_tensor *out;
  double p, *x, *y; /* ROOM each */
  bool in_place;    /* float32 and contiguous */
} distances;

static cml_status prepare_distances(cml_et_call *c, distances *d, const cml_et_tensor *a, const cml_et_tensor *b) {
  d->in_place = d->p == 2 && a->dtype == CML_F32 && cml_et_is_contiguous(a) && cml_et_is_contiguous(b) && cml_et_is_contiguous(d->out);
  if (d->in_place) return CML_OK;
  d->x = cml_et_temp(c, ROOM * sizeof *d->x);
  d->y = cml_et_temp(c, ROOM * sizeof *d->y);
  return d->x && d->y ? CML_OK : CML_NO_MEMORY;
}

static double distance_of_long(const distances *d, const lines *a, int64_t from, const lines *b, int64_t to) {
  double sum = 0;
  for (int64_t k = 0; k < a->size; k += ROOM) {
    int64_t n = a->size - k < ROOM ? a->size - k : ROOM;
    cml_et_load_run_f64(d->x, a->t, from + k, n);
    cml_et_load_run_f64(d->y, b->t, to + k, n);
    sum = add_distance(sum, d->x, d->y, n, d->p);
  }
  return root_of(sum, d->p);
}

static void distances_of(const distances *d, const lines *a, int64_t row, const lines *b, int64_t at) {
  int64_t size = a->size, from = a->first + row * size, together = size <= ROOM ? ROOM / (size + 1) + (size == ROOM) : 1;
  if (d->in_place) {
    (cml_wide() ? euclid_wide : euclid_loop)((float *)d->out->data + at, (const float *)a->t->data + from, (const float *)b->t->data + b->first, b->rows, size);
    return;
  }
  if (size <= ROOM) cml_et_load_run_f64(d->x, a->t, from, size);
  for (int64_t j = 0; j < b->rows; j += together) {
    int64_t n = b->rows - j < together ? b->rows - j : together, to = b->first + j * size;
    if (size <= ROOM) cml_et_load_run_f64(d->y, b->t, to, n * size);
    for (int64_t i = 0; i < n; i++) {
      double v = size <= ROOM ? root_of(add_distance(0, d->x, d->y + i * size, size, d->p), d->p) : distance_of_long(d, a, from, b, to);
      cml_et_store_run_f64(d->out, at + j + i, 1, &v);
    }
  }
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
  distances d = {.out = out, .p = p};
  if (prepare_distances(c, &d, a, b)) return cml_fail_memory(err);
  for (int64_t n = 0; n < batches; n++) {
    int64_t fa = 0, fb = 0, rest = n;
    for (int k = (int)rank - 1; k >= 0; rest /= sizes[k], k--) {
      fa += rest % sizes[k] * as[k];
      fb += rest % sizes[k] * bs[k];
    }
    const lines from = {a, fa * rows_a * m, rows_a, m}, to = {b, fb * rows_b * m, rows_b, m};
    for (int64_t i = 0; i < rows_a; i++) distances_of(&d, &from, i, &to, (n * rows_a + i) * rows_b);
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
  distances d = {.out = out, .p = p};
  if (prepare_distances(c, &d, a, a)) return cml_fail_memory(err);
  for (int64_t i = 0; i + 1 < n; i++) {
    const lines from = {a, 0, n, m}, to = {a, (i + 1) * m, n - i - 1, m};
    distances_of(&d, &from, i, &to, at);
    at += to.rows;
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
