/* Complex numbers: their parts as real numbers, and arithmetic in pairs of doubles, some of a line at a time, which are rounded once. */
#include "et_complex.h"

#include <math.h>

#include "et_families.h"

enum { CHUNK = 256 };
typedef cml_et_pair pair;

void cml_et_load_parts(pair *out, const cml_et_tensor *parts, int64_t at, int64_t im, int64_t step, int64_t count) {
  double some[CHUNK];
  if (im == 1 && step == 2) { /* as they lie in pairs */
    cml_et_load_f64(&out->re, parts, at, 1, 2 * count);
    return;
  }
  for (int64_t k = 0; k < count; k += CHUNK) {
    int64_t n = count - k < CHUNK ? count - k : CHUNK, first = at + k * step;
    cml_et_load_f64(some, parts, first, step, n);
    for (int64_t i = 0; i < n; i++) out[k + i].re = some[i];
    cml_et_load_f64(some, parts, first + im, step, n);
    for (int64_t i = 0; i < n; i++) out[k + i].im = some[i];
  }
}

void cml_et_store_parts(cml_et_tensor *parts, int64_t at, int64_t im, int64_t step, int64_t count, const pair *in, double scale) {
  double some[CHUNK];
  const bool in_pairs = im == 1 && step == 2;
  if (in_pairs && scale == 1) {
    cml_et_store_f64(parts, at, 1, 2 * count, &in->re);
    return;
  }
  for (int64_t k = 0, n; in_pairs && k < 2 * count; k += n) {
    n = 2 * count - k < CHUNK ? 2 * count - k : CHUNK;
    for (int64_t i = 0; i < n; i++) some[i] = (&in->re)[k + i] * scale;
    cml_et_store_f64(parts, at + k, 1, n, some);
  }
  if (in_pairs) return;
  for (int64_t k = 0; k < count; k += CHUNK) {
    int64_t n = count - k < CHUNK ? count - k : CHUNK, first = at + k * step;
    for (int64_t i = 0; i < n; i++) some[i] = in[k + i].re * scale;
    cml_et_store_f64(parts, first, step, n, some);
    for (int64_t i = 0; i < n; i++) some[i] = in[k + i].im * scale;
    cml_et_store_f64(parts, first + im, step, n, some);
  }
}

cml_et_lines cml_et_lines_of(const cml_et_tensor *a, const cml_et_tensor *b, int dim) {
  cml_et_lines l = {.a = a, .b = b, .dim = dim, .left = 1};
  for (int k = 0; k < a->rank; k++)
    if (k != dim) l.left *= a->sizes[k];
  return l;
}

void cml_et_next_line(cml_et_lines *l) {
  for (int k = l->a->rank - 1; k >= 0; k--) {
    if (k == l->dim) continue;
    l->first_a += l->a->strides[k];
    l->first_b += l->b->strides[k];
    if (++l->at[k] < l->a->sizes[k]) return;
    l->first_a -= l->at[k] * l->a->strides[k];
    l->first_b -= l->at[k] * l->b->strides[k];
    l->at[k] = 0;
  }
}

cml_status cml_et_take_dims(cml_et_call *c, size_t i, int rank, cml_et_dims *d, cml_error *err) {
  int64_t list[CML_PTE_MAX_RANK];
  unsigned seen = 0;
  CML_TRY(cml_et_ints(c, i, list, CML_PTE_MAX_RANK, &d->count, err));
  if (!d->count) return cml_et_fail(c, err, "no dimension is named");
  for (size_t k = 0; k < d->count; k++) {
    CML_TRY(cml_et_axis(c, list[k], rank, &d->list[k], err));
    if (d->list[k] >= rank || seen >> d->list[k] & 1) return cml_et_fail(c, err, "dimension %d is not there, or twice", d->list[k]);
    seen |= 1u << d->list[k];
  }
  return CML_OK;
}

static cml_status op_view_as_real(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 1);
  cml_et_local pairs;
  if (!x->complex || x->rank >= CML_PTE_MAX_RANK) return cml_et_fail(c, err, "the tensor is not complex");
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  cml_et_as_real(x, &pairs);
  CML_TRY(cml_et_resize(c, out, pairs.t.rank, pairs.sizes, err));
  cml_et_copy(out, &pairs.t);
  return CML_OK;
}

/* ---- arithmetic ---- */

/* At most CHUNK numbers of any type as pairs. */
static void load_any(pair *to, const cml_et_tensor *from, int64_t at, int64_t step, int64_t count) {
  if (from->complex) {
    cml_et_load_pairs(to, from, at, step, count);
    return;
  }
  cml_et_load_parts(to, from, at, 0, step, count);
  for (int64_t i = 0; i < count; i++) to[i].im = 0;
}

static void store_any(cml_et_tensor *to, int64_t at, int64_t step, int64_t count, const pair *in) {
  double re[CHUNK];
  if (to->complex) {
    cml_et_store_pairs(to, at, step, count, in, 1);
    return;
  }
  for (int64_t i = 0; i < count; i++) re[i] = in[i].re;
  cml_et_store_f64(to, at, step, count, re);
}

typedef pair operation(pair a, pair b);

/* A tensor seen in a shape that it broadcasts to. */
static const cml_et_tensor *spread(const cml_et_tensor *t, size_t rank, const int64_t *sizes, cml_et_local *out) {
  cml_et_make(out, t->dtype, rank, sizes, t->data);
  out->t.complex = t->complex;
  cml_et_broadcast_strides(t, rank, sizes, out->strides);
  return &out->t;
}

/* out = f(a, scale b), line by line; b may be NULL. */
static cml_status map(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, double scale, operation *f, cml_et_tensor *out, cml_error *err) {
  int64_t sizes[CML_PTE_MAX_RANK + 1];
  cml_et_local la, lb, lo;
  pair x[CHUNK], y[CHUNK];
  size_t rank;
  CML_TRY(cml_et_broadcast(c, (const cml_et_tensor *const[]){a, b}, 2, &rank, sizes, err));
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  if (!rank) sizes[rank++] = 1;
  a = spread(a, rank, sizes, &la);
  b = b ? spread(b, rank, sizes, &lb) : NULL;
  cml_et_tensor *to = (cml_et_tensor *)(uintptr_t)spread(out, rank, sizes, &lo);
  int last = (int)rank - 1;
  cml_et_lines second = cml_et_lines_of(b ? b : a, to, last);
  for (cml_et_lines l = cml_et_lines_of(a, to, last); l.left > 0; l.left--, cml_et_next_line(&l), cml_et_next_line(&second))
    for (int64_t k = 0; k < sizes[last]; k += CHUNK) {
      int64_t n = sizes[last] - k < CHUNK ? sizes[last] - k : CHUNK;
      load_any(x, a, l.first_a + k * a->strides[last], a->strides[last], n);
      if (b) load_any(y, b, second.first_a + k * b->strides[last], b->strides[last], n);
      for (int64_t i = 0; i < n; i++) x[i] = f(x[i], b ? (pair){y[i].re * scale, y[i].im * scale} : (pair){0, 0});
      store_any(to, l.first_b + k * to->strides[last], to->strides[last], n, x);
    }
  return CML_OK;
}

static pair minus(pair a, pair b) { return (pair){a.re - b.re, a.im - b.im}; }
static pair conjugate(pair a, pair b) { return (void)b, (pair){a.re, -a.im}; }
static pair magnitude(pair a, pair b) { return (void)b, (pair){hypot(a.re, a.im), 0}; }
static pair sum_of(pair a, pair b) { return cml_et_plus(a, b); }
static pair product_of(pair a, pair b) { return cml_et_times(a, b); }
static pair quotient(pair a, pair b) {
  double n = b.re * b.re + b.im * b.im;
  return (pair){(a.re * b.re + a.im * b.im) / n, (a.im * b.re - a.re * b.im) / n};
}

static cml_status want_complex(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, const cml_et_tensor *out, cml_error *err) {
  uint8_t widest = a->complex > b->complex ? a->complex : b->complex;
  return out->complex >= widest ? CML_OK : cml_et_fail(c, err, "the output is not complex of that precision");
}

static cml_status two(cml_et_call *c, double scale, operation *f, cml_et_tensor *out, cml_error *err) {
  const cml_et_tensor *a = cml_et_arg(c, 0), *b = cml_et_arg(c, 1);
  CML_TRY(want_complex(c, a, b, out, err));
  return map(c, a, b, scale, f, out, err);
}

static cml_status op_add(cml_et_call *c, cml_error *err) { return two(c, cml_et_real(c, 2, 1), sum_of, cml_et_arg(c, 3), err); }
static cml_status op_sub(cml_et_call *c, cml_error *err) { return two(c, cml_et_real(c, 2, 1), minus, cml_et_arg(c, 3), err); }
static cml_status op_mul(cml_et_call *c, cml_error *err) { return two(c, 1, product_of, cml_et_arg(c, 2), err); }
static cml_status op_div(cml_et_call *c, cml_error *err) { return two(c, 1, quotient, cml_et_arg(c, 2), err); }

static cml_status op_conj(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 1);
  if (x->complex != out->complex || x->dtype != out->dtype) return cml_et_fail(c, err, "the output is of another type");
  return map(c, x, NULL, 1, conjugate, out, err);
}

static cml_status op_abs(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 1);
  if (out->complex || out->dtype != cml_et_part_type(x)) return cml_et_fail(c, err, "the output is not real of that precision");
  return map(c, x, NULL, 1, magnitude, out, err);
}

/* What it was, in the output's precision; of a real output the real parts, as torch has it. */
static pair same(pair a, pair b) { return (void)b, a; }
static cml_status op_copy(cml_et_call *c, cml_error *err) { return map(c, cml_et_arg(c, 0), NULL, 1, same, cml_et_arg(c, 3), err); }
static cml_status op_copy_into(cml_et_call *c, cml_error *err) { return map(c, cml_et_arg(c, 1), NULL, 1, same, cml_et_arg(c, 0), err); }

/* Columns at .. at + n of row i of a product: sums[j] += a[i, k] b[k, j] over k, for matrices of pairs that lie anywhere. */
static void product_row(const cml_et_tensor *a, const cml_et_tensor *b, int64_t first_a, int64_t first_b, int64_t at, int64_t n, pair *sums) {
  int r = a->rank - 1, q = b->rank - 2;
  pair x[CHUNK], y[CHUNK];
  memset(sums, 0, (size_t)n * sizeof *sums);
  for (int64_t k = 0; k < a->sizes[r]; k++) {
    int64_t some = a->sizes[r] - k < CHUNK ? a->sizes[r] - k : CHUNK;
    if (k % CHUNK == 0) load_any(x, a, first_a + k * a->strides[r], a->strides[r], some);
    load_any(y, b, first_b + k * b->strides[q] + at * b->strides[q + 1], b->strides[q + 1], n);
    for (int64_t j = 0; j < n; j++) sums[j] = cml_et_plus(sums[j], cml_et_times(x[k % CHUNK], y[j]));
  }
}

/* mm and bmm. */
static cml_status op_product(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *a = cml_et_arg(c, 0), *b = cml_et_arg(c, 1);
  cml_et_tensor *out = cml_et_arg(c, 2);
  int rank = a->rank;
  int64_t sizes[3];
  pair sums[CHUNK];
  CML_TRY(want_complex(c, a, b, out, err));
  if (rank != b->rank || rank < 2 || rank > 3 || a->sizes[rank - 1] != b->sizes[rank - 2] || (rank == 3 && a->sizes[0] != b->sizes[0]))
    return cml_et_fail(c, err, "the shapes make no product");
  memcpy(sizes, a->sizes, (size_t)rank * sizeof *sizes);
  sizes[rank - 1] = b->sizes[rank - 1];
  CML_TRY(cml_et_resize(c, out, (size_t)rank, sizes, err));
  for (int64_t n = 0; n < (rank == 3 ? sizes[0] : 1); n++)
    for (int64_t i = 0; i < sizes[rank - 2]; i++)
      for (int64_t at = 0; at < sizes[rank - 1]; at += CHUNK) {
        int64_t some = sizes[rank - 1] - at < CHUNK ? sizes[rank - 1] - at : CHUNK, batch = rank == 3 ? n : 0;
        product_row(a, b, batch * a->strides[0] + i * a->strides[rank - 2], rank == 3 ? batch * b->strides[0] : 0, at, some, sums);
        store_any(out, (rank == 3 ? batch * out->strides[0] : 0) + i * out->strides[rank - 2] + at * out->strides[rank - 1], out->strides[rank - 1], some, sums);
      }
  return CML_OK;
}

/* Dimensions that are counted through, with their steps in two tensors. */
typedef struct counter {
  int rank;
  int64_t sizes[CML_PTE_MAX_RANK], at[CML_PTE_MAX_RANK], a[CML_PTE_MAX_RANK], b[CML_PTE_MAX_RANK];
} counter;

static void count_dim(counter *d, int64_t size, int64_t a, int64_t b) {
  d->sizes[d->rank] = size;
  d->a[d->rank] = a;
  d->b[d->rank++] = b;
}

/* False after the last, when it begins again. */
static bool count_on(counter *d, int64_t *a, int64_t *b) {
  for (int k = d->rank - 1; k >= 0; k--) {
    *a += d->a[k];
    *b += d->b[k];
    if (++d->at[k] < d->sizes[k]) return true;
    *a -= d->at[k] * d->a[k];
    *b -= d->at[k] * d->b[k];
    d->at[k] = 0;
  }
  return false;
}

/* Over some dimensions (all when none is named): for each result its elements. */
static cml_status op_sum(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 4);
  int64_t sizes[CML_PTE_MAX_RANK], from = 0, to = 0, none = 0;
  bool keep = cml_et_bool(c, 2, false), summed[CML_PTE_MAX_RANK] = {false};
  size_t rank = 0;
  cml_et_dims d = {.count = 0};
  counter kept = {0}, gone = {0};
  if (!x->complex || out->complex != x->complex) return cml_et_fail(c, err, "the tensor and the output are not complex of one precision");
  if (cml_et_count(c, 1)) CML_TRY(cml_et_take_dims(c, 1, x->rank, &d, err));
  for (int k = 0; k < x->rank; k++) summed[k] = !d.count;
  for (size_t k = 0; k < d.count; k++) summed[d.list[k]] = true;
  for (int k = 0; k < x->rank; k++)
    if (!summed[k] || keep) sizes[rank++] = summed[k] ? 1 : x->sizes[k];
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  for (int k = 0, o = 0; k < x->rank; o += !summed[k] || keep, k++) {
    if (summed[k]) count_dim(&gone, x->sizes[k], x->strides[k], 0);
    else count_dim(&kept, x->sizes[k], x->strides[k], out->strides[o]);
  }
  bool empty = cml_et_numel(x) == 0;
  do {
    pair sum = {0, 0}, one;
    int64_t at = from;
    if (!empty) do {
      cml_et_load_pairs(&one, x, at, 1, 1);
      sum = cml_et_plus(sum, one);
    } while (count_on(&gone, &at, &none));
    cml_et_store_pairs(out, to, 1, 1, &sum, 1);
  } while (count_on(&kept, &from, &to));
  return CML_OK;
}

/* What takes the place of rows of other families where a program gives them complex numbers. */
static const cml_et_op complex_rows[] = {
    {"aten::abs.out", "co", op_abs},
    {"aten::add.out", "ccnk", op_add},
    {"aten::bmm.out aten::mm.out", "cck", op_product},
    {"aten::copy_", "kcb", op_copy_into},
    {"aten::div.out", "cck", op_div},
    {"dim_order_ops::_to_dim_order_copy.out dim_order_ops::_clone_dim_order.out", "cbI?k", op_copy},
    {"aten::mul.out", "cck", op_mul},
    {"aten::sub.out", "ccnk", op_sub},
    {"aten::sum.IntList_out", "cI?bi?k", op_sum},
};

const cml_et_op *cml_et_op_for_complex(const char *name) {
  for (size_t i = 0; i < sizeof complex_rows / sizeof *complex_rows; i++) {
    const char *at = strstr(complex_rows[i].names, name);
    size_t n = strlen(name);
    if (at && (at == complex_rows[i].names || at[-1] == ' ') && (at[n] == 0 || at[n] == ' ')) return &complex_rows[i];
  }
  return NULL;
}

static const cml_et_op rows[] = {
    {"aten::_conj_physical.out aten::_conj_copy.out", "ck", op_conj},
    {"aten::view_as_real_copy.out", "co", op_view_as_real},
};
CML_ET_FAMILY(complex)
