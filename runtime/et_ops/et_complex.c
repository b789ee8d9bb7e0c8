/* Complex numbers: Fourier transforms, and their parts as real numbers. A complex tensor is one of pairs; its lines are taken apart
 * into two rows of doubles, transformed there, and rounded once.
 *
 * The transform of n = p m numbers is p transforms of m numbers each, of every p-th one, which p-point transforms put together
 * (Cooley and Tukey), p being n's least prime factor. All twiddle factors come from one table of the n-th roots of unity. */
#include <math.h>

#include "et_families.h"
#include "et_view.h"

typedef struct pair { double re, im; } pair;

typedef struct transform {
  int64_t n;
  double sign;   /* -1: forward */
  pair *roots;   /* n: exp(sign 2 pi i k / n) */
  pair *in, *out, *mixed; /* n each */
  double *parts; /* n */
} transform;

static pair times(pair a, pair b) { return (pair){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static pair plus(pair a, pair b) { return (pair){a.re + b.re, a.im + b.im}; }

static int64_t least_factor(int64_t n) {
  for (int64_t p = 2; p * p <= n; p++)
    if (n % p == 0) return p;
  return n;
}

static void put_together(const transform *t, pair *out, int64_t n, int64_t p) {
  int64_t m = n / p, step = t->n / n;
  for (int64_t k = 0; k < m; k++) {
    for (int64_t r = 0; r < p; r++) t->mixed[r] = times(out[r * m + k], t->roots[r * k * step]);
    if (p == 2) {
      pair a = t->mixed[0], b = t->mixed[1];
      out[k] = plus(a, b);
      out[m + k] = (pair){a.re - b.re, a.im - b.im};
      continue;
    }
    for (int64_t q = 0; q < p; q++) {
      pair sum = t->mixed[0];
      for (int64_t r = 1; r < p; r++) sum = plus(sum, times(t->mixed[r], t->roots[r * q % p * (t->n / p)]));
      out[q * m + k] = sum;
    }
  }
}

/* The recursion halves n at least: its depth is at most 62. */
static void run_transform(const transform *t, pair *out, const pair *in, int64_t n, int64_t stride) {
  if (n == 1) {
    *out = *in;
    return;
  }
  int64_t p = least_factor(n), m = n / p;
  for (int64_t r = 0; r < p; r++) run_transform(t, out + r * m, in + r * stride, m, stride * p);
  put_together(t, out, n, p);
}

static cml_status prepare(cml_et_call *c, transform *t, int64_t n, double sign, cml_error *err) {
  uint64_t bytes;
  if (!cml_mul((uint64_t)n + 1, sizeof(pair) * 4 + sizeof(double), &bytes)) return cml_fail_memory(err);
  char *room = cml_et_temp(c, bytes);
  if (!room) return cml_fail_memory(err);
  *t = (transform){.n = n, .sign = sign, .roots = (pair *)(void *)room};
  t->in = t->roots + n;
  t->out = t->in + n;
  t->mixed = t->out + n;
  t->parts = (double *)(t->mixed + n);
  for (int64_t k = 0; k < n; k++) {
    double angle = sign * 2 * M_PI * (double)k / (double)n;
    t->roots[k] = (pair){cos(angle), sin(angle)};
  }
  return CML_OK;
}

/* ---- lines of tensors ---- */

static cml_dtype part_type(const cml_et_tensor *t) { return t->complex == 2 ? CML_F16 : t->complex == 4 ? CML_F32 : CML_F64; }

/* The parts of a complex tensor as one real tensor of twice the elements, in memory's order. */
static cml_et_tensor parts_of(const cml_et_tensor *t) {
  cml_et_tensor parts = *t;
  parts.dtype = part_type(t);
  parts.complex = 0;
  return parts;
}

static void load_pairs(transform *t, const cml_et_tensor *from, int64_t at, int64_t step, int64_t count) {
  cml_et_tensor parts = parts_of(from);
  cml_et_load_f64(t->parts, &parts, 2 * at, 2 * step, count);
  for (int64_t i = 0; i < count; i++) t->in[i].re = t->parts[i];
  cml_et_load_f64(t->parts, &parts, 2 * at + 1, 2 * step, count);
  for (int64_t i = 0; i < count; i++) t->in[i].im = t->parts[i];
}

static void store_pairs(transform *t, cml_et_tensor *to, int64_t at, int64_t step, int64_t count, double scale) {
  cml_et_tensor parts = parts_of(to);
  for (int64_t i = 0; i < count; i++) t->parts[i] = t->out[i].re * scale;
  cml_et_store_f64(&parts, 2 * at, 2 * step, count, t->parts);
  for (int64_t i = 0; i < count; i++) t->parts[i] = t->out[i].im * scale;
  cml_et_store_f64(&parts, 2 * at + 1, 2 * step, count, t->parts);
}

/* Lines along `dim`, one after another: where each begins in two tensors that differ in that dimension alone. */
typedef struct lines {
  const cml_et_tensor *a, *b;
  int dim;
  int64_t at[CML_PTE_MAX_RANK], first_a, first_b, left;
} lines;

static lines lines_of(const cml_et_tensor *a, const cml_et_tensor *b, int dim) {
  lines l = {.a = a, .b = b, .dim = dim, .left = 1};
  for (int k = 0; k < a->rank; k++)
    if (k != dim) l.left *= a->sizes[k];
  return l;
}

static void next_line(lines *l) {
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

/* Complex numbers whose parts lie apart: shape's strides count parts, the imaginary one lies `im` behind the real one. */
typedef struct grid {
  cml_et_tensor parts;
  cml_et_local shape;
  int64_t im;
} grid;

static void load_grid(transform *t, const grid *g, int64_t at, int64_t step) {
  cml_et_load_f64(t->parts, &g->parts, at, step, t->n);
  for (int64_t i = 0; i < t->n; i++) t->in[i].re = t->parts[i];
  cml_et_load_f64(t->parts, &g->parts, at + g->im, step, t->n);
  for (int64_t i = 0; i < t->n; i++) t->in[i].im = t->parts[i];
}

static void store_grid(transform *t, grid *g, int64_t at, int64_t step, const pair *from, int64_t count, double scale) {
  for (int64_t i = 0; i < count; i++) t->parts[i] = from[i].re * scale;
  cml_et_store_f64(&g->parts, at, step, count, t->parts);
  for (int64_t i = 0; i < count; i++) t->parts[i] = from[i].im * scale;
  cml_et_store_f64(&g->parts, at + g->im, step, count, t->parts);
}

/* Complex to complex along one dimension, in place. */
static cml_status along(cml_et_call *c, grid *g, int dim, double sign, double scale, cml_error *err) {
  transform t = {0};
  int64_t step = g->shape.strides[dim];
  CML_TRY(prepare(c, &t, g->shape.sizes[dim], sign, err));
  for (lines l = lines_of(&g->shape.t, &g->shape.t, dim); l.left > 0; l.left--, next_line(&l)) {
    load_grid(&t, g, l.first_a, step);
    run_transform(&t, t.out, t.in, t.n, 1);
    store_grid(&t, g, l.first_a, step, t.out, t.n, scale);
  }
  return CML_OK;
}

static void grid_of(cml_et_tensor *x, grid *g) {
  g->parts = parts_of(x);
  g->im = 1;
  cml_et_make(&g->shape, CML_F64, x->rank, x->sizes, x->data);
  for (int k = 0; k < x->rank; k++) g->shape.strides[k] = 2 * x->strides[k];
}

/* ---- operators ---- */

typedef struct dims {
  int list[CML_PTE_MAX_RANK];
  size_t count;
} dims;

static cml_status take_dims(cml_et_call *c, size_t i, int rank, dims *d, cml_error *err) {
  int64_t list[CML_PTE_MAX_RANK];
  unsigned seen = 0;
  CML_TRY(cml_et_ints(c, i, list, CML_PTE_MAX_RANK, &d->count, err));
  if (!d->count) return cml_et_fail(c, err, "no dimension to transform");
  for (size_t k = 0; k < d->count; k++) {
    CML_TRY(cml_et_axis(c, list[k], rank, &d->list[k], err));
    if (d->list[k] >= rank || seen >> d->list[k] & 1) return cml_et_fail(c, err, "dimension %d is not there, or twice", d->list[k]);
    seen |= 1u << d->list[k];
  }
  return CML_OK;
}

/* 0: none, 1: by the root of the count, 2: by the count. */
static cml_status take_scale(cml_et_call *c, size_t i, const int64_t *sizes, const dims *d, double *out, cml_error *err) {
  int64_t how = cml_et_int(c, i, 0);
  double n = 1;
  if (how < 0 || how > 2) return cml_et_fail(c, err, "normalization %lld is not known", (long long)how);
  for (size_t k = 0; k < d->count; k++) n *= (double)sizes[d->list[k]];
  *out = how == 0 ? 1 : how == 1 ? 1 / sqrt(n) : 1 / n;
  return CML_OK;
}

static cml_status op_r2c(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 4);
  bool onesided = cml_et_bool(c, 3, true);
  int64_t sizes[CML_PTE_MAX_RANK];
  double scale = 1;
  transform t = {0};
  dims d;
  CML_TRY(cml_et_want(c, x, CML_MASK(F16) | CML_MASK(F32) | CML_MASK(F64), "the signal", err));
  if (!out->complex || part_type(out) != x->dtype) return cml_et_fail(c, err, "the output is not complex of the signal's precision");
  CML_TRY(take_dims(c, 1, x->rank, &d, err));
  CML_TRY(take_scale(c, 2, x->sizes, &d, &scale, err));
  int last = d.list[d.count - 1];
  int64_t n = x->sizes[last];
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  if (n < 1) return cml_et_fail(c, err, "the transformed dimension is empty");
  if (onesided) sizes[last] = n / 2 + 1;
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  CML_TRY(prepare(c, &t, n, -1, err));
  for (lines l = lines_of(x, out, last); l.left > 0; l.left--, next_line(&l)) {
    cml_et_load_f64(t.parts, x, l.first_a, x->strides[last], n);
    for (int64_t i = 0; i < n; i++) t.in[i] = (pair){t.parts[i], 0};
    run_transform(&t, t.out, t.in, n, 1);
    store_pairs(&t, out, l.first_b, out->strides[last], sizes[last], d.count > 1 ? 1 : scale);
  }
  grid g;
  grid_of(out, &g);
  for (size_t k = d.count - 1; k-- > 0;) CML_TRY(along(c, &g, d.list[k], -1, k ? 1 : scale, err));
  return CML_OK;
}

/* The half of a spectrum that is given stands for all: the other half is its conjugate, mirrored. */
static void mirror(transform *t, int64_t given) {
  t->in[0].im = 0;
  if (t->n % 2 == 0 && t->n / 2 < given) t->in[t->n / 2].im = 0;
  for (int64_t i = t->n / 2 + 1; i < t->n; i++) t->in[i] = (pair){t->in[t->n - i].re, -t->in[t->n - i].im};
}

/* The other dimensions are transformed first, in the output's own memory: a line there holds n reals, as many as count of half a spectrum.
 *
 *     re 0 | re 1 | im 1 | re 2 | im 2 | … | re n/2, where n is even
 *
 * Of the first and the last number only the real part counts in the end; until then their imaginary part takes the place of `re 1`,
 * which comes later. Where there is none (n of 1 or 2) they are transformed beside the output. */
typedef struct halves {
  const cml_et_tensor *x;
  cml_et_tensor *out;
  const dims *d;
  int last;
} halves;

/* Numbers k .. k + count of all lines, transformed along all dimensions but the last one named. */
static cml_status take_numbers(cml_et_call *c, const halves *h, int64_t k, int64_t count, grid *g, cml_error *err) {
  transform t = {0};
  int last = h->last;
  int64_t step = h->x->strides[last];
  CML_TRY(prepare(c, &t, count, 1, err));
  for (lines l = lines_of(h->x, &g->shape.t, last); l.left > 0; l.left--, next_line(&l)) {
    load_pairs(&t, h->x, l.first_a + k * step, step, count);
    store_grid(&t, g, l.first_b, g->shape.strides[last], t.in, count, 1);
  }
  for (size_t i = 0; i + 1 < h->d->count; i++) CML_TRY(along(c, g, h->d->list[i], 1, 1, err));
  return CML_OK;
}

/* The grid of `count` numbers whose parts begin at these places of the output's lines. */
static void grid_in(const halves *h, int64_t count, int64_t re, int64_t im, grid *g) {
  int64_t sizes[CML_PTE_MAX_RANK], step = h->out->strides[h->last];
  memcpy(sizes, h->x->sizes, h->x->rank * sizeof *sizes);
  sizes[h->last] = count;
  cml_et_make(&g->shape, CML_F64, h->x->rank, sizes, NULL);
  memcpy(g->shape.strides, h->out->strides, h->x->rank * sizeof *sizes);
  g->shape.strides[h->last] = 2 * step;
  g->parts = *h->out;
  g->parts.data = (char *)h->out->data + (size_t)(re * step) * cml_et_width(h->out);
  g->im = (im - re) * step;
}

static cml_status beside(cml_et_call *c, const halves *h, int64_t k, int64_t place, cml_error *err) {
  grid g, to;
  cml_et_local column;
  int64_t sizes[CML_PTE_MAX_RANK];
  memcpy(sizes, h->x->sizes, h->x->rank * sizeof *sizes);
  sizes[h->last] = 1;
  cml_et_make(&column, CML_DTYPE_NONE, h->x->rank, sizes, NULL);
  column.t.complex = h->x->complex;
  if (!(column.t.data = cml_et_temp(c, (uint64_t)cml_et_numel(&column.t) * cml_et_width(&column.t)))) return cml_fail_memory(err);
  grid_of(&column.t, &g);
  CML_TRY(take_numbers(c, h, k, 1, &g, err));
  grid_in(h, 1, place, place, &to);
  for (lines l = lines_of(&g.shape.t, &to.shape.t, h->last); l.left > 0; l.left--, next_line(&l)) {
    double re;
    cml_et_load_f64(&re, &g.parts, l.first_a, 1, 1);
    cml_et_store_f64(&to.parts, l.first_b, 1, 1, &re);
  }
  return CML_OK;
}

static cml_status other_dims(cml_et_call *c, const halves *h, int64_t n, cml_error *err) {
  grid g;
  for (int end = 0; end < (n % 2 ? 1 : 2); end++) { /* the first, the last */
    int64_t k = end * (n / 2), place = end * (n - 1);
    if (n <= 2) {
      CML_TRY(beside(c, h, k, place, err));
    } else {
      grid_in(h, 1, place, 1, &g);
      CML_TRY(take_numbers(c, h, k, 1, &g, err));
    }
  }
  if (n <= 2) return CML_OK;
  grid_in(h, (n - 1) / 2, 1, 2, &g);
  return take_numbers(c, h, 1, (n - 1) / 2, &g, err);
}

/* Half a spectrum out of a line of the output, as other_dims left it. */
static void load_half(transform *t, const cml_et_tensor *out, int64_t first, int64_t step) {
  cml_et_load_f64(t->parts, out, first, step, t->n);
  t->in[0].re = t->parts[0];
  for (int64_t k = 1; 2 * k < t->n; k++) t->in[k] = (pair){t->parts[2 * k - 1], t->parts[2 * k]};
  if (t->n % 2 == 0) t->in[t->n / 2].re = t->parts[t->n - 1];
}

static cml_status op_c2r(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 4);
  int64_t sizes[CML_PTE_MAX_RANK], n = cml_et_int(c, 3, 0);
  double scale = 1;
  transform t = {0};
  dims d;
  if (!x->complex || part_type(x) != out->dtype) return cml_et_fail(c, err, "the spectrum is not complex of the output's precision");
  CML_TRY(take_dims(c, 1, x->rank, &d, err));
  int last = d.list[d.count - 1];
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  sizes[last] = n;
  if (n < 1 || x->sizes[last] < n / 2 + 1)
    return cml_et_fail(c, err, "a spectrum of %lld numbers makes no signal of %lld", (long long)x->sizes[last], (long long)n);
  CML_TRY(take_scale(c, 2, sizes, &d, &scale, err));
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  if (d.count > 1 && cml_et_numel(out)) CML_TRY(other_dims(c, &(halves){x, out, &d, last}, n, err));
  CML_TRY(prepare(c, &t, n, 1, err));
  for (lines l = lines_of(x, out, last); l.left > 0; l.left--, next_line(&l)) {
    if (d.count > 1) load_half(&t, out, l.first_b, out->strides[last]);
    else load_pairs(&t, x, l.first_a, x->strides[last], n / 2 + 1);
    mirror(&t, n / 2 + 1);
    run_transform(&t, t.out, t.in, n, 1);
    for (int64_t i = 0; i < n; i++) t.parts[i] = t.out[i].re * scale;
    cml_et_store_f64(out, l.first_b, out->strides[last], n, t.parts);
  }
  return CML_OK;
}

static cml_status op_view_as_real(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 1);
  int64_t sizes[CML_PTE_MAX_RANK];
  cml_et_local pairs;
  if (!x->complex || x->rank >= CML_PTE_MAX_RANK) return cml_et_fail(c, err, "the tensor is not complex");
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  sizes[x->rank] = 2;
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  CML_TRY(cml_et_resize(c, out, (size_t)x->rank + 1, sizes, err));
  cml_et_make(&pairs, part_type(x), (size_t)x->rank + 1, sizes, x->data);
  for (int k = 0; k < x->rank; k++) pairs.strides[k] = 2 * x->strides[k];
  pairs.strides[x->rank] = 1;
  cml_et_copy(out, &pairs.t);
  return CML_OK;
}

/* ---- arithmetic ---- */

/* A line of any type as pairs. */
static void load_any(transform *t, pair *to, const cml_et_tensor *from, int64_t at, int64_t step, int64_t count) {
  pair *in = t->in;
  t->in = to;
  if (from->complex) load_pairs(t, from, at, step, count);
  else cml_et_load_f64(t->parts, from, at, step, count);
  for (int64_t i = 0; !from->complex && i < count; i++) to[i] = (pair){t->parts[i], 0};
  t->in = in;
}

static void store_any(transform *t, cml_et_tensor *to, int64_t at, int64_t step, int64_t count) {
  if (to->complex) {
    store_pairs(t, to, at, step, count, 1);
    return;
  }
  for (int64_t i = 0; i < count; i++) t->parts[i] = t->out[i].re;
  cml_et_store_f64(to, at, step, count, t->parts);
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
  transform t = {0};
  size_t rank;
  CML_TRY(cml_et_broadcast(c, (const cml_et_tensor *const[]){a, b}, 2, &rank, sizes, err));
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  if (!rank) sizes[rank++] = 1;
  a = spread(a, rank, sizes, &la);
  b = b ? spread(b, rank, sizes, &lb) : NULL;
  cml_et_tensor *to = (cml_et_tensor *)(uintptr_t)spread(out, rank, sizes, &lo);
  int last = (int)rank - 1;
  CML_TRY(prepare(c, &t, sizes[last], 0, err));
  lines second = lines_of(b ? b : a, to, last);
  for (lines l = lines_of(a, to, last); l.left > 0 && t.n; l.left--, next_line(&l), next_line(&second)) {
    load_any(&t, t.in, a, l.first_a, a->strides[last], t.n);
    if (b) load_any(&t, t.mixed, b, second.first_a, b->strides[last], t.n);
    for (int64_t i = 0; i < t.n; i++)
      t.out[i] = f(t.in[i], b ? (pair){t.mixed[i].re * scale, t.mixed[i].im * scale} : (pair){0, 0});
    store_any(&t, to, l.first_b, to->strides[last], t.n);
  }
  return CML_OK;
}

static pair minus(pair a, pair b) { return (pair){a.re - b.re, a.im - b.im}; }
static pair conjugate(pair a, pair b) { return (void)b, (pair){a.re, -a.im}; }
static pair magnitude(pair a, pair b) { return (void)b, (pair){hypot(a.re, a.im), 0}; }
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

static cml_status op_add(cml_et_call *c, cml_error *err) { return two(c, cml_et_real(c, 2, 1), plus, cml_et_arg(c, 3), err); }
static cml_status op_sub(cml_et_call *c, cml_error *err) { return two(c, cml_et_real(c, 2, 1), minus, cml_et_arg(c, 3), err); }
static cml_status op_mul(cml_et_call *c, cml_error *err) { return two(c, 1, times, cml_et_arg(c, 2), err); }
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
  if (out->complex || out->dtype != part_type(x)) return cml_et_fail(c, err, "the output is not real of that precision");
  return map(c, x, NULL, 1, magnitude, out, err);
}

/* sums[i] += a[i] b[i, j] over i, for matrices of pairs that lie anywhere: the product of a line of a and one column after another. */
static cml_status product(cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, cml_et_tensor *out, int64_t n, cml_error *err) {
  int r = a->rank - 2, q = b->rank - 2, o = out->rank - 2;
  int64_t first_a = r ? n * a->strides[0] : 0, first_b = q ? n * b->strides[0] : 0, first_o = o ? n * out->strides[0] : 0;
  int64_t depth = a->sizes[r + 1], columns = b->sizes[q + 1];
  transform t = {0};
  CML_TRY(prepare(c, &t, depth > columns ? depth : columns, 0, err));
  for (int64_t i = 0; i < a->sizes[r]; i++) {
    load_any(&t, t.in, a, first_a + i * a->strides[r], a->strides[r + 1], depth);
    for (int64_t j = 0; j < columns; j++) t.out[j] = (pair){0, 0};
    for (int64_t k = 0; k < depth; k++) {
      load_any(&t, t.mixed, b, first_b + k * b->strides[q], b->strides[q + 1], columns);
      for (int64_t j = 0; j < columns; j++) t.out[j] = plus(t.out[j], times(t.in[k], t.mixed[j]));
    }
    store_any(&t, out, first_o + i * out->strides[o], out->strides[o + 1], columns);
  }
  return CML_OK;
}

/* mm and bmm. */
static cml_status op_product(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *a = cml_et_arg(c, 0), *b = cml_et_arg(c, 1);
  cml_et_tensor *out = cml_et_arg(c, 2);
  int rank = a->rank;
  int64_t sizes[3];
  CML_TRY(want_complex(c, a, b, out, err));
  if (rank != b->rank || rank < 2 || rank > 3 || a->sizes[rank - 1] != b->sizes[rank - 2] || (rank == 3 && a->sizes[0] != b->sizes[0]))
    return cml_et_fail(c, err, "the shapes make no product");
  memcpy(sizes, a->sizes, (size_t)rank * sizeof *sizes);
  sizes[rank - 1] = b->sizes[rank - 1];
  CML_TRY(cml_et_resize(c, out, (size_t)rank, sizes, err));
  for (int64_t n = 0; n < (rank == 3 ? sizes[0] : 1); n++) CML_TRY(product(c, a, b, out, n, err));
  return CML_OK;
}

/* Over some dimensions (all when none is named): for each result its elements, line by line. */
static cml_status op_sum(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 4);
  int64_t sizes[CML_PTE_MAX_RANK], kept[CML_PTE_MAX_RANK], steps[CML_PTE_MAX_RANK] = {0}, at[CML_PTE_MAX_RANK] = {0};
  bool keep = cml_et_bool(c, 2, false), summed[CML_PTE_MAX_RANK] = {false};
  size_t rank = 0;
  dims d = {.count = 0};
  pair *sums;
  if (!out->complex) return cml_et_fail(c, err, "the output is not complex");
  if (cml_et_count(c, 1)) CML_TRY(take_dims(c, 1, x->rank, &d, err));
  for (int k = 0; k < x->rank; k++) summed[k] = !d.count;
  for (size_t k = 0; k < d.count; k++) summed[d.list[k]] = true;
  for (int k = 0; k < x->rank; k++)
    if (!summed[k] || keep) sizes[rank++] = summed[k] ? 1 : x->sizes[k];
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  int64_t n = cml_et_numel(x), outputs = cml_et_numel(out), step = 1, o = 0;
  for (int k = x->rank - 1; k >= 0; k--) { /* distances in the sums, which are dense */
    steps[k] = summed[k] ? 0 : step;
    if (!summed[k]) step *= x->sizes[k];
    kept[k] = x->strides[k];
  }
  if (!(sums = cml_et_temp(c, (uint64_t)outputs * sizeof *sums))) return cml_fail_memory(err);
  memset(sums, 0, (size_t)outputs * sizeof *sums);
  cml_et_tensor from = parts_of(x), to = parts_of(out);
  for (int64_t i = 0, place = 0; i < n; i++) {
    double re, im;
    cml_et_load_f64(&re, &from, 2 * place, 1, 1);
    cml_et_load_f64(&im, &from, 2 * place + 1, 1, 1);
    sums[o] = plus(sums[o], (pair){re, im});
    for (int k = x->rank - 1; k >= 0; k--) {
      place += kept[k];
      o += steps[k];
      if (++at[k] < x->sizes[k]) break;
      place -= at[k] * kept[k];
      o -= at[k] * steps[k];
      at[k] = 0;
    }
  }
  int64_t where[CML_PTE_MAX_RANK] = {0};
  for (int64_t i = 0, place = 0; i < outputs; i++) { /* out's order may be any */
    cml_et_store_f64(&to, 2 * place, 1, 1, &sums[i].re);
    cml_et_store_f64(&to, 2 * place + 1, 1, 1, &sums[i].im);
    for (int k = out->rank - 1; k >= 0; k--) {
      place += out->strides[k];
      if (++where[k] < out->sizes[k]) break;
      place -= where[k] * out->strides[k];
      where[k] = 0;
    }
  }
  return CML_OK;
}

/* What takes the place of rows of other families where a program gives them complex numbers. */
static const cml_et_op complex_rows[] = {
    {"aten::abs.out", "co", op_abs},
    {"aten::add.out", "ccnk", op_add},
    {"aten::bmm.out aten::mm.out", "cck", op_product},
    {"aten::div.out", "cck", op_div},
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
    {"aten::_conj_physical.out", "ck", op_conj},
    {"aten::_fft_r2c.out", "tIibk", op_r2c},
    {"aten::_fft_c2r.out", "cIiio", op_c2r},
    {"aten::view_as_real_copy.out", "co", op_view_as_real},
};
CML_ET_FAMILY(complex)
