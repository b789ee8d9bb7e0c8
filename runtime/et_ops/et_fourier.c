/* Fourier transforms. A line is taken out into pairs of doubles, transformed there (et_transform.h), and rounded once.
 *
 * A line of more than LONG numbers stays where it is, for a program's peak memory is its plan: as a matrix of n = rows * columns numbers
 * whose columns and then rows are transformed one at a time, turned in between, and which is transposed in place at the end. A long
 * line of reals goes through one of half as many complex numbers, which is as much memory as its output has. Long lines of an odd number
 * of reals, and of float16 (which would be rounded twice), are transformed in a copy, those without two factors of at most LONG block by
 * block. */
#include <math.h>

#include "et_families.h"
#include "et_transform.h"

enum { LONG = CML_ET_LONG };

typedef cml_et_pair pair;
typedef cml_et_transform transform;
typedef cml_et_long_line long_line;

/* ---- lines in a tensor's memory ---- */

/* Complex numbers whose parts lie apart: shape's strides count parts, the imaginary one lies `im` behind the real one. */
typedef struct grid {
  cml_et_tensor parts;
  cml_et_local shape;
  int64_t im;
} grid;

static void grid_of(const cml_et_tensor *x, grid *g) {
  g->parts = cml_et_parts_of(x);
  g->im = 1;
  cml_et_make(&g->shape, CML_F64, x->rank, x->sizes, x->data);
  for (int k = 0; k < x->rank; k++) g->shape.strides[k] = 2 * x->strides[k];
}

/* n numbers of a grid, `step` parts apart. */
typedef struct line {
  grid *g;
  int64_t first, step, n;
} line;

static pair get(const line *l, int64_t i) {
  pair p;
  cml_et_load_parts(&p, &l->g->parts, l->first + i * l->step, l->g->im, 1, 1);
  return p;
}

static void put(const line *l, int64_t i, pair p, double scale) {
  cml_et_store_parts(&l->g->parts, l->first + i * l->step, l->g->im, 1, 1, &p, scale);
}

/* Every `stride`-th number from i on, count of them: out of the line and into it. */
static void take_out(const line *l, int64_t i, int64_t stride, int64_t count, pair *out) {
  cml_et_load_parts(out, &l->g->parts, l->first + i * l->step, l->g->im, stride * l->step, count);
}
static void put_in(const line *l, int64_t i, int64_t stride, int64_t count, const pair *in, double scale) {
  cml_et_store_parts(&l->g->parts, l->first + i * l->step, l->g->im, stride * l->step, count, in, scale);
}

static void move_part(const line *l, int64_t to, int64_t from, int64_t part, void *saved) {
  size_t width = cml_et_width(&l->g->parts);
  char *data = l->g->parts.data, *a = to < 0 ? saved : data + (size_t)(l->first + to * l->step + part) * width;
  memcpy(a, from < 0 ? (char *)saved : data + (size_t)(l->first + from * l->step + part) * width, width);
}

/* The matrix's number (r, k) goes to k * rows + r, cycle by cycle, each from its least place. */
static void transpose(const line *l, int64_t rows, int64_t columns) {
  for (int64_t start = 1; start + 1 < l->n; start++) {
    int64_t from = start;
    do from = from % rows * columns + from / rows;
    while (from > start);
    if (from < start) continue;
    double saved[2];
    for (int part = 0; part < 2; part++) move_part(l, -1, start, part ? l->g->im : 0, &saved[part]);
    for (int64_t to = start;; to = from) {
      from = to % rows * columns + to / rows;
      for (int part = 0; part < 2; part++) move_part(l, to, from == start ? -1 : from, part ? l->g->im : 0, &saved[part]);
      if (from == start) break;
    }
  }
}

/* n pairs of floats, or of doubles for those, one behind the other. */
static cml_status make_pairs(cml_et_call *c, grid *g, int64_t n, cml_dtype type, cml_error *err) {
  type = type == CML_F64 ? CML_F64 : CML_F32;
  void *data = n < INT64_MAX / 16 ? cml_et_temp(c, 2 * (uint64_t)n * cml_dtype_bits(type) / 8) : NULL;
  if (!data) return cml_fail_memory(err);
  cml_et_make(&g->shape, type, 1, (int64_t[]){2 * n}, data);
  g->parts = g->shape.t;
  g->im = 1;
  return CML_OK;
}

/* How lines of n numbers are transformed in place: `rows` is 1 where they are taken out as a whole. */
typedef struct engine {
  transform column, row;
  int64_t rows, columns;
  double sign;
  bool copies; /* the numbers between columns and rows lie in a copy, out of which rows are put where they belong */
  grid copy;
  pair *block; /* of some columns */
} engine;

enum { COLUMNS = 8, COPIED = 512 << 10 /* bytes of a copy at most */, BLOCK_BYTES = 128 << 10 };

/* The largest divisor of n that is not above its root; 0 where it leaves more than LONG. */
static int64_t rows_of(int64_t n) {
  if (n > (int64_t)LONG * LONG) return 0;
  for (int64_t d = LONG; d > 0; d--)
    if (d * d <= n && n % d == 0) return n / d <= LONG ? d : 0;
  return 0;
}

static int64_t columns_at_once(const engine *e) {
  int64_t most = BLOCK_BYTES / (int64_t)sizeof(pair) / e->rows;
  return most < 1 ? 1 : most < COLUMNS ? most : COLUMNS;
}

static cml_status prepare_engine(cml_et_call *c, engine *e, int64_t n, double sign, cml_dtype type, cml_error *err) {
  int64_t rows = cml_et_short(n) ? 1 : rows_of(n);
  *e = (engine){.rows = rows > 1 ? rows : 1, .sign = sign};
  e->columns = n / e->rows;
  e->copies = e->rows > 1 && n <= COPIED / (type == CML_F64 ? 16 : 8);
  if (e->copies) CML_TRY(make_pairs(c, &e->copy, n, type, err));
  if (e->rows > 1) {
    CML_TRY(cml_et_transform_prepare(c, &e->column, e->rows, sign, err));
    if (!(e->block = cml_et_pairs(c, columns_at_once(e) * e->rows))) return cml_fail_memory(err);
  }
  return cml_et_transform_prepare(c, &e->row, e->columns, sign, err);
}

/* Columns, some at a time, for they lie side by side in memory. */
static void run_columns(const engine *e, const line *from, const line *to) {
  const transform *t = &e->column;
  pair some[COLUMNS];
  for (int64_t first = 0, count, most = columns_at_once(e); first < e->columns; first += count) {
    count = e->columns - first < most ? e->columns - first : most;
    for (int64_t r = 0; r < e->rows; r++) {
      take_out(from, r * e->columns + first, 1, count, some);
      for (int64_t k = 0; k < count; k++) e->block[k * e->rows + r] = some[k];
    }
    for (int64_t k = 0; k < count; k++) {
      pair *column = e->block + k * e->rows, turn = {1, 0}, step = cml_et_root(first + k, from->n, e->sign);
      memcpy(t->in, column, (size_t)e->rows * sizeof *column);
      const pair *out = cml_et_transform_run(t);
      column[0] = out[0];
      for (int64_t r = 1; r < e->rows; r++) {
        turn = r % 32 ? cml_et_times(turn, step) : cml_et_root((first + k) * r, from->n, e->sign); /* before roundings add up */
        column[r] = cml_et_times(out[r], turn);
      }
    }
    for (int64_t r = 0; r < e->rows; r++) {
      for (int64_t k = 0; k < count; k++) some[k] = e->block[k * e->rows + r];
      put_in(to, r * e->columns + first, 1, count, some, 1);
    }
  }
}

static void run_engine(engine *e, const line *l, double scale) {
  const line copy = {&e->copy, 0, 2, l->n}, *between = e->copies ? &copy : l;
  const transform *t = &e->row;
  if (e->rows > 1) run_columns(e, l, between);
  for (int64_t r = 0; r < e->rows; r++) {
    take_out(between, r * e->columns, 1, e->columns, t->in);
    put_in(l, e->copies ? r : r * e->columns, e->copies ? e->rows : 1, e->columns, cml_et_transform_run(t), scale);
  }
  if (e->rows > 1 && !e->copies) transpose(l, e->rows, e->columns);
}

/* ---- long lines that cannot be transformed where they are ---- */

static bool stays(int64_t n, cml_dtype type) { return cml_et_short(n) || (type != CML_F16 && rows_of(n)); }

/* Through a copy of pairs, or without two factors by a convolution. */
typedef struct detour {
  bool copied;
  engine e;
  grid copy;
  cml_et_chirp chirp;
} detour;

static cml_status prepare_detour(cml_et_call *c, detour *d, int64_t n, double sign, cml_dtype type, cml_error *err) {
  d->copied = rows_of(n) > 0;
  if (!d->copied) return cml_et_chirp_prepare(c, &d->chirp, n, sign, err);
  CML_TRY(make_pairs(c, &d->copy, n, type, err));
  return prepare_engine(c, &d->e, n, sign, type, err);
}

/* All numbers are loaded before the first results are stored where they are copied; else they must stay where they are. */
static void run_detour(detour *d, const long_line *l, int64_t n, int64_t wanted) {
  pair some[256];
  line copy = {&d->copy, 0, 2, n};
  if (!d->copied) {
    cml_et_chirp_run(&d->chirp, l, wanted);
    return;
  }
  for (int64_t i = 0, m; i < n; i += m) {
    m = n - i < 256 ? n - i : 256;
    l->load(l, i, m, some);
    put_in(&copy, i, 1, m, some, 1);
  }
  run_engine(&d->e, &copy, 1);
  for (int64_t i = 0, m; i < wanted; i += m) {
    m = wanted - i < 256 ? wanted - i : 256;
    take_out(&copy, i, 1, m, some);
    l->store(l, i, m, some);
  }
}

/* From one line of pairs to another. */
typedef struct move { const line *from, *to; double scale; } move;
static void load_line(const long_line *l, int64_t first, int64_t count, pair *to) { take_out(((const move *)l->context)->from, first, 1, count, to); }
static void store_line(const long_line *l, int64_t first, int64_t count, const pair *from) {
  const move *m = l->context;
  put_in(m->to, first, 1, count, from, m->scale);
}

static cml_status long_along(cml_et_call *c, grid *g, int dim, double sign, double scale, cml_error *err) {
  int64_t n = g->shape.sizes[dim];
  detour d;
  grid saved;
  CML_TRY(prepare_detour(c, &d, n, sign, g->parts.dtype, err));
  if (!d.copied) CML_TRY(make_pairs(c, &saved, n, g->parts.dtype, err));
  for (cml_et_lines at = cml_et_lines_of(&g->shape.t, &g->shape.t, dim); at.left > 0; at.left--, cml_et_next_line(&at)) {
    const line there = {g, at.first_a, g->shape.strides[dim], n}, kept = {&saved, 0, 2, n};
    move m = {d.copied ? &there : &kept, &there, scale}, save = {&there, &kept, 1};
    const long_line l = {load_line, store_line, &m};
    pair some[256];
    for (int64_t i = 0, count; i < n && !d.copied; i += count) {
      const long_line keep = {load_line, store_line, &save};
      count = n - i < 256 ? n - i : 256;
      load_line(&keep, i, count, some);
      store_line(&keep, i, count, some);
    }
    run_detour(&d, &l, n, n);
  }
  return CML_OK;
}

static cml_status short_along(cml_et_call *c, grid *g, int dim, double sign, double scale, cml_error *err) {
  engine e;
  CML_TRY(prepare_engine(c, &e, g->shape.sizes[dim], sign, g->parts.dtype, err));
  for (cml_et_lines l = cml_et_lines_of(&g->shape.t, &g->shape.t, dim); l.left > 0; l.left--, cml_et_next_line(&l))
    run_engine(&e, &(line){g, l.first_a, g->shape.strides[dim], g->shape.sizes[dim]}, scale);
  return CML_OK;
}

/* Complex to complex along one dimension, in place. */
static cml_status along(cml_et_call *c, grid *g, int dim, double sign, double scale, cml_error *err) {
  const cml_et_mark mark = cml_et_temp_mark(c);
  cml_status status = (stays(g->shape.sizes[dim], g->parts.dtype) ? short_along : long_along)(c, g, dim, sign, scale, err);
  cml_et_temp_release(c, mark);
  return status;
}

/* ---- operators ---- */

/* 0: none, 1: by the root of the count, 2: by the count. */
static cml_status take_scale(cml_et_call *c, size_t i, const int64_t *sizes, const cml_et_dims *d, double *out, cml_error *err) {
  int64_t how = cml_et_int(c, i, 0);
  double n = 1;
  if (how < 0 || how > 2) return cml_et_fail(c, err, "normalization %lld is not known", (long long)how);
  for (size_t k = 0; k < d->count; k++) n *= (double)sizes[d->list[k]];
  *out = how == 0 ? 1 : how == 1 ? 1 / sqrt(n) : 1 / n;
  return CML_OK;
}

/* Whether a line of n reals goes through half as many complex numbers in the output's memory. */
static bool by_halves(int64_t n, cml_dtype type) { return n % 2 == 0 && type != CML_F16 && rows_of(n / 2); }

static bool short_reals(int64_t n) { return cml_et_short(n % 2 ? n : n / 2); }

/* Numbers k and m - k of two transforms in one, of the even (as real parts) and the odd reals: what they add up to. With
 * e = a + conj(b) and o = a - conj(b), forward they are (e - i w o) / 2 and its like, back e + i w o, w being the k-th root. The half
 * is left to the caller. */
static inline void untie_pair(pair *a, pair *b, pair w, double sign) {
  pair e = {a->re + b->re, a->im - b->im}, o = {a->re - b->re, a->im + b->im};
  pair turned = cml_et_times((pair){-sign * w.im, sign * w.re}, o); /* i w o back, -i w o forward */
  *a = cml_et_plus(e, turned);
  *b = (pair){e.re - turned.re, turned.im - e.im};
}

static void untie(const line *l, int64_t k, double sign, double scale) {
  int64_t m = l->n, j = m - k;
  pair a = get(l, k), b = get(l, k ? j : 0);
  untie_pair(&a, &b, cml_et_root(k, 2 * m, sign), sign);
  put(l, k, a, scale);
  if (j != k && (k || sign < 0)) put(l, j, b, scale);
}

/* All of them but, back, the first: blocks from both ends, and one by one what is left in the middle. */
static void untie_all(const line *l, double sign, double scale) {
  enum { BLOCK = 128 };
  pair low[BLOCK], front[BLOCK], back[BLOCK];
  int64_t m = l->n, k = 1;
  if (sign < 0) untie(l, 0, sign, scale /= 2);
  for (int64_t i = 0; i < BLOCK; i++) low[i] = cml_et_root(i, 2 * m, sign);
  for (; k + BLOCK <= m - k - BLOCK; k += BLOCK) {
    const pair base = cml_et_root(k, 2 * m, sign);
    take_out(l, k, 1, BLOCK, front);
    take_out(l, m - k, -1, BLOCK, back);
    for (int64_t i = 0; i < BLOCK; i++) untie_pair(&front[i], &back[i], cml_et_times(base, low[i]), sign);
    put_in(l, k, 1, BLOCK, front, scale);
    put_in(l, m - k, -1, BLOCK, back, scale);
  }
  for (; k <= m / 2; k++) untie(l, k, sign, scale);
}

/* Reals 2 k and 2 k + 1 are number k. */
static void pair_up(const cml_et_tensor *x, int64_t from, int64_t step, const line *l) {
  pair some[256];
  for (int64_t k = 0; k < l->n; k += 256) {
    int64_t n = l->n - k < 256 ? l->n - k : 256;
    cml_et_load_parts(some, x, from + 2 * k * step, step, 2 * step, n);
    put_in(l, k, 1, n, some, 1);
  }
}

static cml_status long_r2c(cml_et_call *c, const cml_et_tensor *x, cml_et_tensor *out, int dim, double scale, cml_error *err) {
  int64_t n = x->sizes[dim], m = n / 2;
  engine e;
  grid g;
  grid_of(out, &g);
  CML_TRY(prepare_engine(c, &e, m, -1, x->dtype, err));
  for (cml_et_lines at = cml_et_lines_of(x, out, dim); at.left > 0; at.left--, cml_et_next_line(&at)) {
    const line l = {&g, 2 * at.first_b, g.shape.strides[dim], m};
    pair_up(x, at.first_a, x->strides[dim], &l);
    run_engine(&e, &l, 1);
    untie_all(&l, -1, scale);
    for (int64_t k = m + 1; k < out->sizes[dim]; k++) { /* both sides are wanted */
      pair p = get(&l, n - k);
      put(&l, k, (pair){p.re, -p.im}, 1);
    }
  }
  return CML_OK;
}

/* An even number of reals is transformed as half as many complex numbers, as untie has it. */
typedef struct reals {
  transform t;
  pair *turns, *numbers; /* half / 2 + 1, half + 1; NULL where n is odd */
  int64_t n, half;
} reals;

static cml_status prepare_reals(cml_et_call *c, reals *r, int64_t n, double sign, cml_error *err) {
  *r = (reals){.n = n, .half = n / 2};
  if (n % 2) return cml_et_transform_prepare(c, &r->t, n, sign, err);
  r->turns = cml_et_pairs(c, r->half / 2 + 1);
  r->numbers = cml_et_pairs(c, r->half + 1);
  if (!r->turns || !r->numbers || !cml_et_take_roots(c, n, sign, r->half / 2 + 1, r->turns)) return cml_fail_memory(err);
  return cml_et_transform_prepare(c, &r->t, r->half, sign, err);
}

/* Half the spectrum of what is in t.in. */
static const pair *spectrum_of(const reals *r) {
  const pair *z = cml_et_transform_run(&r->t);
  int64_t m = r->half;
  if (r->n % 2) return z;
  r->t.kernels->fourier_reals((size_t)m, -1, &r->turns->re, &z->re, &r->numbers->re);
  r->numbers[0] = (pair){z[0].re + z[0].im, 0};
  if (m % 2 == 0) r->numbers[m / 2] = (pair){z[m / 2].re, -z[m / 2].im};
  r->numbers[m] = (pair){z[0].re - z[0].im, 0};
  return r->numbers;
}

/* The reals, two in a pair, whose half spectrum is in numbers; the first's and the last's imaginary parts do not count. */
static const pair *reals_of(const reals *r) {
  const pair *x = r->numbers;
  int64_t m = r->half;
  r->t.kernels->fourier_reals((size_t)m, 1, &r->turns->re, &x->re, &r->t.in->re);
  r->t.in[0] = (pair){x[0].re + x[m].re, x[0].re - x[m].re};
  if (m % 2 == 0) r->t.in[m / 2] = (pair){2 * x[m / 2].re, -2 * x[m / 2].im};
  return cml_et_transform_run(&r->t);
}

static cml_status short_r2c(cml_et_call *c, const cml_et_tensor *x, cml_et_tensor *out, int dim, double scale, cml_error *err) {
  int64_t n = x->sizes[dim], step = x->strides[dim], there = n / 2 + 1 < out->sizes[dim] ? n / 2 + 1 : out->sizes[dim];
  reals r;
  CML_TRY(prepare_reals(c, &r, n, -1, err));
  for (cml_et_lines l = cml_et_lines_of(x, out, dim); l.left > 0; l.left--, cml_et_next_line(&l)) {
    cml_et_load_parts(r.t.in, x, l.first_a, n % 2 ? 0 : step, n % 2 ? step : 2 * step, r.t.n);
    for (int64_t i = 0; i < n && n % 2; i++) r.t.in[i].im = 0;
    const pair *all = spectrum_of(&r);
    cml_et_store_pairs(out, l.first_b, out->strides[dim], there, all, scale);
    for (int64_t k = there; k < out->sizes[dim]; k++) { /* both sides are wanted */
      const pair p = {all[n - k].re, -all[n - k].im};
      cml_et_store_pairs(out, l.first_b + k * out->strides[dim], 0, 1, &p, scale);
    }
  }
  return CML_OK;
}

/* Between reals and complex numbers of two tensors' lines. */
typedef struct between {
  const cml_et_tensor *x;
  cml_et_tensor *out;
  int64_t from, step, to, to_step, n;
  double scale;
} between;

static void load_reals(const long_line *l, int64_t first, int64_t count, pair *to) {
  const between *b = l->context;
  cml_et_load_parts(to, b->x, b->from + first * b->step, 0, b->step, count);
  for (int64_t i = 0; i < count; i++) to[i].im = 0;
}
static void store_numbers(const long_line *l, int64_t first, int64_t count, const pair *from) {
  const between *b = l->context;
  cml_et_store_pairs(b->out, b->to + first * b->to_step, b->to_step, count, from, b->scale);
}

static cml_status detour_r2c(cml_et_call *c, const cml_et_tensor *x, cml_et_tensor *out, int dim, double scale, cml_error *err) {
  int64_t n = x->sizes[dim];
  detour d;
  CML_TRY(prepare_detour(c, &d, n, -1, x->dtype, err));
  for (cml_et_lines at = cml_et_lines_of(x, out, dim); at.left > 0; at.left--, cml_et_next_line(&at)) {
    between b = {x, out, at.first_a, x->strides[dim], at.first_b, out->strides[dim], n, scale};
    run_detour(&d, &(long_line){load_reals, store_numbers, &b}, n, out->sizes[dim]);
  }
  return CML_OK;
}

static cml_status op_r2c(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 4);
  bool onesided = cml_et_bool(c, 3, true);
  int64_t sizes[CML_PTE_MAX_RANK];
  double scale = 1;
  cml_et_dims d;
  CML_TRY(cml_et_want(c, x, CML_MASK(F16) | CML_MASK(F32) | CML_MASK(F64), "the signal", err));
  if (!out->complex || cml_et_part_type(out) != x->dtype) return cml_et_fail(c, err, "the output is not complex of the signal's precision");
  CML_TRY(cml_et_take_dims(c, 1, x->rank, &d, err));
  CML_TRY(take_scale(c, 2, x->sizes, &d, &scale, err));
  int last = d.list[d.count - 1];
  int64_t n = x->sizes[last];
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  if (n < 1) return cml_et_fail(c, err, "the transformed dimension is empty");
  if (onesided) sizes[last] = n / 2 + 1;
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  const cml_et_mark mark = cml_et_temp_mark(c);
  CML_TRY((short_reals(n) ? short_r2c : by_halves(n, x->dtype) ? long_r2c : detour_r2c)(c, x, out, last, d.count > 1 ? 1 : scale, err));
  cml_et_temp_release(c, mark);
  grid g;
  grid_of(out, &g);
  for (size_t k = d.count - 1; k-- > 0;) CML_TRY(along(c, &g, d.list[k], -1, k ? 1 : scale, err));
  return CML_OK;
}

/* The half of a spectrum of an odd number of reals stands for all: the other half is its conjugate, mirrored. */
static void mirror(transform *t) {
  t->in[0].im = 0;
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
  const cml_et_dims *d;
  int last;
} halves;

/* Numbers k .. k + count of all lines, transformed along all dimensions but the last one named. */
static cml_status take_numbers(cml_et_call *c, const halves *h, int64_t k, int64_t count, grid *g, cml_error *err) {
  pair some[256];
  int last = h->last;
  int64_t step = h->x->strides[last];
  for (cml_et_lines l = cml_et_lines_of(h->x, &g->shape.t, last); l.left > 0; l.left--, cml_et_next_line(&l)) {
    const line to = {g, l.first_b, g->shape.strides[last], count};
    for (int64_t i = 0; i < count; i += 256) {
      int64_t n = count - i < 256 ? count - i : 256;
      cml_et_load_pairs(some, h->x, l.first_a + (k + i) * step, step, n);
      put_in(&to, i, 1, n, some, 1);
    }
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
  for (cml_et_lines l = cml_et_lines_of(&g.shape.t, &to.shape.t, h->last); l.left > 0; l.left--, cml_et_next_line(&l)) {
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
static void load_half(pair *to, int64_t n, const cml_et_tensor *out, int64_t first, int64_t step) {
  cml_et_load_parts(to, out, first, 0, step, 1);
  cml_et_load_parts(to + 1, out, first + step, step, 2 * step, (n - 1) / 2);
  if (n % 2 == 0) cml_et_load_parts(to + n / 2, out, first + (n - 1) * step, 0, step, 1);
}

/* Half a spectrum of 2 m reals into m numbers of the output's line, the real part of the last one as the imaginary one of the first:
 * out of the input; or as other_dims left it there, where all move by one place, the last ones first. */
static void begin_half(const halves *h, const cml_et_lines *at, const line *l) {
  pair first, last, some[256];
  int64_t m = l->n, step = h->x->strides[h->last];
  if (h->d->count == 1) {
    cml_et_load_pairs(&first, h->x, at->first_a, 1, 1);
    cml_et_load_pairs(&last, h->x, at->first_a + m * step, 1, 1);
    for (int64_t k = 1; k < m; k += 256) {
      int64_t n = m - k < 256 ? m - k : 256;
      cml_et_load_pairs(some, h->x, at->first_a + k * step, step, n);
      put_in(l, k, 1, n, some, 1);
    }
  } else {
    const line before = {l->g, l->first - l->g->im, l->step, m};
    cml_et_load_parts(&first, h->out, l->first, 0, 1, 1);
    cml_et_load_parts(&last, h->out, l->first + (2 * m - 1) * l->g->im, 0, 1, 1);
    for (int64_t k = m - 1; k > 0; k--) put(l, k, get(&before, k), 1);
  }
  put(l, 0, (pair){first.re, last.re}, 1);
}

static cml_status long_c2r(cml_et_call *c, const halves *h, double scale, cml_error *err) {
  int64_t step = h->out->strides[h->last], m = h->out->sizes[h->last] / 2;
  engine e;
  grid g = {.parts = *h->out, .im = step};
  CML_TRY(prepare_engine(c, &e, m, 1, h->out->dtype, err));
  for (cml_et_lines at = cml_et_lines_of(h->x, h->out, h->last); at.left > 0; at.left--, cml_et_next_line(&at)) {
    const line l = {&g, at.first_b, 2 * step, m};
    begin_half(h, &at, &l);
    pair ends = get(&l, 0);
    put(&l, 0, (pair){ends.re + ends.im, ends.re - ends.im}, 1);
    untie_all(&l, 1, 1);
    run_engine(&e, &l, scale);
  }
  return CML_OK;
}

static cml_status short_c2r(cml_et_call *c, const halves *h, double scale, cml_error *err) {
  const cml_et_tensor *x = h->x;
  cml_et_tensor *out = h->out;
  int64_t n = out->sizes[h->last], step = out->strides[h->last];
  reals r;
  CML_TRY(prepare_reals(c, &r, n, 1, err));
  double *re = n % 2 ? cml_et_temp(c, (uint64_t)n * sizeof *re) : NULL;
  if (n % 2 && !re) return cml_fail_memory(err);
  for (cml_et_lines l = cml_et_lines_of(x, out, h->last); l.left > 0; l.left--, cml_et_next_line(&l)) {
    pair *given = n % 2 ? r.t.in : r.numbers;
    if (h->d->count > 1) load_half(given, n, out, l.first_b, step);
    else cml_et_load_pairs(given, x, l.first_a, x->strides[h->last], n / 2 + 1);
    if (n % 2 == 0) {
      cml_et_store_parts(out, l.first_b, step, 2 * step, r.half, reals_of(&r), scale);
      continue;
    }
    mirror(&r.t);
    const pair *all = cml_et_transform_run(&r.t);
    for (int64_t i = 0; i < n; i++) re[i] = all[i].re * scale;
    cml_et_store_f64(out, l.first_b, step, n, re);
  }
  return CML_OK;
}

/* Numbers first .. first + count of a spectrum of which half is there: as complex numbers of x, or as other_dims left it, in reals. */
static void load_there(const between *b, int64_t first, int64_t count, int64_t direction, pair *to) {
  if (b->x->complex) cml_et_load_pairs(to, b->x, b->from + first * b->step, direction * b->step, count);
  for (int64_t i = 0, k = first; i < count && !b->x->complex; i++, k += direction)
    cml_et_load_parts(to + i, b->x, b->from + (k ? 2 * k - 1 : 0) * b->step, k && 2 * k != b->n ? b->step : 0, b->step, 1);
  for (int64_t i = 0, k = first; i < count; i++, k += direction)
    if (k == 0 || 2 * k == b->n) to[i].im = 0;
}

static void load_mirrored(const long_line *l, int64_t first, int64_t count, pair *to) {
  const between *b = l->context;
  int64_t there = first > b->n / 2 ? 0 : b->n / 2 + 1 - first < count ? b->n / 2 + 1 - first : count;
  if (there) load_there(b, first, there, 1, to);
  if (there == count) return;
  load_there(b, b->n - first - there, count - there, -1, to + there);
  for (int64_t i = there; i < count; i++) to[i].im = -to[i].im;
}
static void store_reals(const long_line *l, int64_t first, int64_t count, const pair *from) {
  const between *b = l->context;
  double re[256];
  for (int64_t i = 0, m; i < count; i += m) {
    m = count - i < 256 ? count - i : 256;
    for (int64_t k = 0; k < m; k++) re[k] = from[i + k].re * b->scale;
    cml_et_store_f64(b->out, b->to + (first + i) * b->to_step, b->to_step, m, re);
  }
}

static cml_status detour_c2r(cml_et_call *c, const halves *h, double scale, cml_error *err) {
  int64_t n = h->out->sizes[h->last], step = h->out->strides[h->last];
  cml_et_local kept;
  detour d;
  bool moved = h->d->count > 1, saves;
  CML_TRY(prepare_detour(c, &d, n, 1, h->out->dtype, err));
  saves = moved && !d.copied;
  cml_et_make(&kept, h->out->dtype, 1, &n, saves ? cml_et_temp(c, (uint64_t)n * cml_et_width(h->out)) : NULL);
  if (saves && !kept.t.data) return cml_fail_memory(err);
  for (cml_et_lines at = cml_et_lines_of(h->x, h->out, h->last); at.left > 0; at.left--, cml_et_next_line(&at)) {
    between b = {h->x, h->out, at.first_a, h->x->strides[h->last], at.first_b, step, n, scale};
    if (moved) b.x = h->out, b.from = at.first_b, b.step = step;
    if (saves) {
      double some[256];
      for (int64_t i = 0, m; i < n; i += m) {
        m = n - i < 256 ? n - i : 256;
        cml_et_load_f64(some, h->out, at.first_b + i * step, step, m);
        cml_et_store_f64(&kept.t, i, 1, m, some);
      }
      b.x = &kept.t, b.from = 0, b.step = 1;
    }
    run_detour(&d, &(long_line){load_mirrored, store_reals, &b}, n, n);
  }
  return CML_OK;
}

static cml_status op_c2r(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 4);
  int64_t sizes[CML_PTE_MAX_RANK], n = cml_et_int(c, 3, 0);
  double scale = 1;
  cml_et_dims d;
  if (!x->complex || cml_et_part_type(x) != out->dtype) return cml_et_fail(c, err, "the spectrum is not complex of the output's precision");
  CML_TRY(cml_et_take_dims(c, 1, x->rank, &d, err));
  int last = d.list[d.count - 1];
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  sizes[last] = n;
  if (n < 1 || x->sizes[last] < n / 2 + 1)
    return cml_et_fail(c, err, "a spectrum of %lld numbers makes no signal of %lld", (long long)x->sizes[last], (long long)n);
  CML_TRY(take_scale(c, 2, sizes, &d, &scale, err));
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  const halves h = {x, out, &d, last};
  if (d.count > 1) CML_TRY(other_dims(c, &h, n, err));
  return (short_reals(n) ? short_c2r : by_halves(n, out->dtype) ? long_c2r : detour_c2r)(c, &h, scale, err);
}

static const cml_et_op rows[] = {
    {"aten::_fft_r2c.out", "tIibk", op_r2c},
    {"aten::_fft_c2r.out", "cIiio", op_c2r},
};
CML_ET_FAMILY(fourier)
