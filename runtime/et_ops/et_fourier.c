/* Fourier transforms. Lines are brought into scratch memory, transformed there (et_transform.h) in floats, or in doubles for those, and
 * brought back: many at once, one in each lane of a vector, or a line by itself. Reals are transformed as half as many complex numbers.
 *
 * A program's peak memory is its plan, so long lines stay where they are (et_long.h), and what is transformed before the last dimension
 * of a spectrum lies in the memory of the output, which has reals. */
#include <math.h>

#include "et_families.h"
#include "et_long.h"

typedef cml_et_pair pair;
typedef cml_et_detour detour;
typedef cml_et_long_line long_line;
typedef cml_et_grid grid;
typedef cml_et_walk walk;
typedef cml_et_transform transform;
typedef cml_fourier_kernels kernels;

/* Numbers `at` .. of a line lie from `offset` on, `step` parts apart, imaginary parts `im` behind the real ones; im 0: there are none. */
typedef struct piece {
  int64_t at, count, offset, step, im;
} piece;

/* How lines are transformed. HALVED: n numbers stand for 2 n reals, before (sign -1) or after. MIRRORED: half of the numbers are given. */
typedef struct job {
  enum { PLAIN, HALVED, MIRRORED } how;
  int64_t n;
  double sign, scale;
  grid from, to;
  piece given[3], wanted;
  size_t pieces;
} job;

static void load_line(const job *j, const transform *t, int64_t first, void *line) {
  for (size_t i = 0; i < j->pieces; i++) {
    const piece *p = &j->given[i];
    char *re = cml_et_part_at(t->k, line, p->at);
    cml_et_load_range(t->k, &j->from, first + p->offset, p->step, p->im, p->count, re, t->line.im);
  }
}

static void load_lanes(const job *j, const transform *t, int64_t first, int64_t lane, int64_t lanes) {
  for (size_t i = 0; i < j->pieces; i++) {
    const piece *p = &j->given[i];
    char *x = cml_et_part_at(t->k, t->x, 2 * p->at * (int64_t)t->k->lanes);
    cml_et_load_lanes(t->k, &j->from, first + p->offset, p->step, p->im, lane, p->count, lanes, x);
  }
}

static void run_line(job *j, const transform *t, const void *turns, int64_t from, int64_t to) {
  const kernels *k = t->k;
  const size_t n = (size_t)j->n, im = t->line.im, wanted = (size_t)j->wanted.count;
  load_line(j, t, from, j->how == HALVED && j->sign > 0 ? t->x : t->y);
  if (j->how == MIRRORED) k->mirror_line(n, im, t->y);
  if (j->how == HALVED && j->sign > 0) k->line_reals(n, im, 1, turns, t->x, t->y);
  void *out = cml_et_transform_line(t);
  if (j->how == HALVED && j->sign < 0) {
    void *other = cml_et_other(t, out);
    k->line_reals(n, im, -1, turns, out, other);
    out = other;
  }
  if (j->scale != 1) {
    k->scale(wanted, j->scale, out);
    k->scale(wanted, j->scale, cml_et_part_at(k, out, (int64_t)im));
  }
  cml_et_store_range(k, &j->to, to + j->wanted.offset, j->wanted.step, j->wanted.im, j->wanted.count, out, im);
}

static void run_lanes(job *j, const transform *t, const void *turns, const walk *w, int64_t lane, int64_t lanes) {
  const kernels *k = t->k;
  load_lanes(j, t, w->from + lane * w->lane_from, w->lane_from, lanes);
  if (j->how == MIRRORED) k->mirror_lanes((size_t)j->n, t->x);
  if (j->how == HALVED && j->sign > 0) k->lane_reals((size_t)j->n, 1, turns, t->x);
  void *out = cml_et_transform_lanes(t);
  if (j->how == HALVED && j->sign < 0) k->lane_reals((size_t)j->n, -1, turns, out);
  if (j->scale != 1) k->scale((size_t)j->wanted.count * 2 * k->lanes, j->scale, out);
  cml_et_store_lanes(k, &j->to, w->to + lane * w->lane_to + j->wanted.offset, j->wanted.step, j->wanted.im, w->lane_to, j->wanted.count, lanes, out);
}

/* In lanes unless the lines are too few, or each fills the vectors by itself. */
static bool takes_lanes(const kernels *k, int64_t n, int64_t lines) {
  const int64_t lanes = (int64_t)k->lanes, columns = cml_et_columns(k, n);
  return cml_et_fits_lanes(k, n) && lines * columns > 2 * lanes && (columns < lanes || n < lanes * lanes);
}

static cml_status run(cml_et_call *c, job *j, walk w, cml_error *err) {
  const kernels *k = cml_et_kernels_of(&j->to);
  const bool in_lanes = takes_lanes(k, j->n, w.lanes);
  const int64_t half = j->n / 2 + 1, most = in_lanes ? (int64_t)k->lanes : 1;
  const cml_et_mark mark = cml_et_temp_mark(c);
  transform t;
  void *turns = NULL;
  CML_TRY(cml_et_transform_prepare(c, &t, k, j->n, j->sign, in_lanes, err));
  if (j->how == HALVED) {
    if (!(turns = cml_et_reals(c, k, half))) return cml_fail_memory(err);
    cml_et_roots(k, 2 * j->n, j->sign, half, turns);
  }
  for (; w.left > 0; cml_et_walk_on(&w))
    for (int64_t lane = 0; lane < w.lanes; lane += most) {
      if (in_lanes) run_lanes(j, &t, turns, &w, lane, w.lanes - lane < most ? w.lanes - lane : most);
      else run_line(j, &t, turns, w.from + lane * w.lane_from, w.to + lane * w.lane_to);
    }
  cml_et_temp_release(c, mark);
  return CML_OK;
}

enum { SOME = 256 };

/* ---- long lines whose results lie elsewhere, some numbers at a time ---- */

/* One line of a job. */
typedef struct passage {
  const job *j;
  const kernels *k;
  int64_t from, to;
} passage;

static size_t apart(const kernels *k, const void *re, const void *im) { return (size_t)((const char *)im - (const char *)re) / k->width; }

static void load_given(const passage *p, int64_t first, int64_t count, void *re, void *im) {
  for (size_t i = 0; i < p->j->pieces; i++) {
    const piece *q = &p->j->given[i];
    int64_t begin = first > q->at ? first : q->at, end = first + count < q->at + q->count ? first + count : q->at + q->count;
    if (begin < end)
      cml_et_load_range(p->k, &p->j->from, p->from + q->offset + (begin - q->at) * q->step, q->step, q->im, end - begin, cml_et_part_at(p->k, re, begin - first), apart(p->k, re, im));
  }
}

#define TURN_ROUND(T)                                      \
  for (int64_t i = 0, j = count - 1; i <= j; i++, j--) {   \
    T *x = re, *y = im, a = x[i], b = y[i];                \
    x[i] = x[j], x[j] = a;                                 \
    y[i] = -y[j], y[j] = -b;                               \
  }

/* Behind the middle the conjugates of those before it, backwards. */
static void load_some(const long_line *l, int64_t first, int64_t count, void *re, void *im) {
  const passage *p = l->context;
  const int64_t half = p->j->n / 2 + 1, there = p->j->how != MIRRORED || first + count <= half ? count : first < half ? half - first : 0;
  load_given(p, first, there, re, im);
  if (there == count) return;
  re = cml_et_part_at(p->k, re, there);
  im = cml_et_part_at(p->k, im, there);
  count -= there;
  load_given(p, p->j->n - (first + there + count - 1), count, re, im);
  if (p->k->width == 8) TURN_ROUND(double)
  else TURN_ROUND(float)
}

static void store_some(const long_line *l, int64_t first, int64_t step, int64_t count, void *re, void *im) {
  const passage *p = l->context;
  const piece *w = &p->j->wanted;
  grid to = p->j->to;
  if (p->j->scale != 1) {
    p->k->scale((size_t)count, p->j->scale, re);
    p->k->scale((size_t)count, p->j->scale, im);
  }
  cml_et_store_range(p->k, &to, p->to + w->offset + first * w->step, step * w->step, w->im, count, re, apart(p->k, re, im));
}

static void copy_some(cml_et_tensor *to, int64_t at, const cml_et_tensor *from, int64_t first, int64_t step, int64_t count) {
  double some[SOME];
  for (int64_t i = 0, n; i < count; i += n) {
    n = count - i < SOME ? count - i : SOME;
    cml_et_load_f64(some, from, first + i * step, step, n);
    cml_et_store_f64(to, at + i, 1, n, some);
  }
}

/* kept: where a line's numbers lie that results take the place of: they are copied before, real parts before imaginary ones, and `saved` is the
 * job for that; or NULL. */
static cml_status run_detour(cml_et_call *c, const job *j, const cml_et_place *kept, job *saved, walk w, cml_error *err) {
  const kernels *k = cml_et_kernels_of(&j->to);
  const cml_et_mark mark = cml_et_temp_mark(c);
  detour d;
  CML_TRY(cml_et_detour_prepare(c, &d, k, j->n, j->sign, err));
  if (kept) {
    saved->from.parts = j->to.parts;
    if (!(saved->from.parts.data = cml_et_temp(c, (uint64_t)kept->n * (kept->im ? 2 : 1) * cml_et_width(&j->to.parts)))) return cml_fail_memory(err);
  }
  for (; w.left > 0; cml_et_walk_on(&w))
    for (int64_t lane = 0; lane < w.lanes; lane++) {
      passage p = {j, k, w.from + lane * w.lane_from, w.to + lane * w.lane_to};
      if (kept) {
        copy_some(&saved->from.parts, 0, &j->to.parts, p.to, kept->step, kept->n);
        if (kept->im) copy_some(&saved->from.parts, kept->n, &j->to.parts, p.to + kept->im, kept->step, kept->n);
        p.j = saved;
        p.from = 0;
      }
      cml_et_detour_run(&d, &(long_line){load_some, store_some, &p}, j->wanted.count);
    }
  cml_et_temp_release(c, mark);
  return CML_OK;
}

/* ---- complex numbers ---- */

/* Numbers as they are given into the places of those that are wanted. */
static void copy_lines(job *j, walk w) {
  const kernels *k = cml_et_kernels_of(&j->to);
  const piece *from = &j->given[0], *to = &j->wanted;
  double some[2 * SOME];
  for (; w.left > 0; cml_et_walk_on(&w))
    for (int64_t lane = 0; lane < w.lanes; lane++)
      for (int64_t i = 0, n; i < j->n; i += n) {
        n = j->n - i < SOME ? j->n - i : SOME;
        cml_et_load_range(k, &j->from, w.from + lane * w.lane_from + from->offset + i * from->step, from->step, from->im, n, some, SOME);
        cml_et_store_range(k, &j->to, w.to + lane * w.lane_to + to->offset + i * to->step, to->step, to->im, n, some, SOME);
      }
}

/* Along one dimension, into the same memory or another. */
static cml_status along(cml_et_call *c, size_t rank, const int64_t *sizes, const grid *from, const grid *to, int dim, double sign, double scale, cml_error *err) {
  const kernels *k = cml_et_kernels_of(to);
  const int64_t n = sizes[dim];
  walk w = cml_et_walk_of(rank, sizes, dim, from, to);
  job j = {.n = n, .sign = sign, .scale = scale, .from = *from, .to = *to, .given = {{0, n, 0, from->strides[dim], from->im}}, .pieces = 1, .wanted = {0, n, 0, to->strides[dim], to->im}};
  if (cml_et_fits_line(k, n)) return run(c, &j, w, err);
  const bool same = from->parts.data == to->parts.data;
  const cml_et_place p = {n, 0, to->strides[dim], to->im};
  if (!cml_et_stays(to, n)) {
    job saved = j;
    saved.given[0] = (piece){0, n, 0, 1, n};
    return run_detour(c, &j, same ? &p : NULL, &saved, w, err);
  }
  if (!same) copy_lines(&j, w);
  return cml_et_in_place(c, &j.to, &w, &p, sign, scale, err);
}

/* ---- reals ---- */

/* 0: none, 1: by the root of the count, 2: by the count. */
static cml_status take_scale(cml_et_call *c, size_t i, const int64_t *sizes, const cml_et_dims *d, double *out, cml_error *err) {
  int64_t how = cml_et_int(c, i, 0);
  double n = 1;
  if (how < 0 || how > 2) return cml_et_fail(c, err, "normalization %lld is not known", (long long)how);
  for (size_t k = 0; k < d->count; k++) n *= (double)sizes[d->list[k]];
  *out = how == 0 ? 1 : how == 1 ? 1 / sqrt(n) : 1 / n;
  return CML_OK;
}

/* A long line of an even number of reals goes through half as many complex numbers in the output's memory. */
static pair root_of(int64_t k, int64_t n, double sign) {
  const double angle = sign * 2 * M_PI * (double)k / (double)n;
  return (pair){cos(angle), sin(angle)};
}

typedef struct line {
  cml_et_tensor *parts;
  int64_t first, step, im, n;
} line;

static pair get(const line *l, int64_t i) {
  pair p;
  cml_et_load_parts(&p, l->parts, l->first + i * l->step, l->im, 1, 1);
  return p;
}
static void put(const line *l, int64_t i, pair p, double scale) { cml_et_store_parts(l->parts, l->first + i * l->step, l->im, 1, 1, &p, scale); }
/* Every `stride`-th number from i on, count of them: out of the line and into it. */
static void take_out(const line *l, int64_t i, int64_t stride, int64_t count, pair *out) { cml_et_load_parts(out, l->parts, l->first + i * l->step, l->im, stride * l->step, count); }
static void put_in(const line *l, int64_t i, int64_t stride, int64_t count, const pair *in, double scale) {
  cml_et_store_parts(l->parts, l->first + i * l->step, l->im, stride * l->step, count, in, scale);
}

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
  untie_pair(&a, &b, root_of(k, 2 * m, sign), sign);
  put(l, k, a, scale);
  if (j != k && (k || sign < 0)) put(l, j, b, scale);
}

/* All of them but, back, the first: blocks from both ends, and one by one what is left in the middle. */
static void untie_all(const line *l, double sign, double scale) {
  enum { BLOCK = 128 };
  pair low[BLOCK], front[BLOCK], back[BLOCK];
  int64_t m = l->n, k = 1;
  if (sign < 0) untie(l, 0, sign, scale /= 2);
  for (int64_t i = 0; i < BLOCK; i++) low[i] = root_of(i, 2 * m, sign);
  for (; k + BLOCK <= m - k - BLOCK; k += BLOCK) {
    const pair base = root_of(k, 2 * m, sign);
    take_out(l, k, 1, BLOCK, front);
    take_out(l, m - k, -1, BLOCK, back);
    for (int64_t i = 0; i < BLOCK; i++) untie_pair(&front[i], &back[i], cml_et_times(base, low[i]), sign);
    put_in(l, k, 1, BLOCK, front, scale);
    put_in(l, m - k, -1, BLOCK, back, scale);
  }
  for (; k <= m / 2; k++) untie(l, k, sign, scale);
}

static cml_status long_r2c(cml_et_call *c, job *j, walk w, cml_error *err) {
  const piece *to = &j->wanted;
  const int64_t m = j->n;
  const cml_et_place p = {m, 0, to->step, to->im};
  copy_lines(j, w);
  CML_TRY(cml_et_in_place(c, &j->to, &w, &p, -1, 1, err));
  for (; w.left > 0; cml_et_walk_on(&w))
    for (int64_t lane = 0; lane < w.lanes; lane++) untie_all(&(line){&j->to.parts, w.to + lane * w.lane_to, to->step, to->im, m}, -1, j->scale);
  return CML_OK;
}

/* The other half of a spectrum: conjugates, backwards. */
static void both_sides(cml_et_tensor *out, int dim) {
  const int64_t n = out->sizes[dim], step = out->strides[dim];
  for (cml_et_lines l = cml_et_lines_of(out, out, dim); l.left > 0; l.left--, cml_et_next_line(&l))
    for (int64_t k = n / 2 + 1, m; k < n; k += m) {
      pair some[SOME];
      m = n - k < SOME ? n - k : SOME;
      cml_et_load_pairs(some, out, l.first_b + (n - k) * step, -step, m);
      for (int64_t i = 0; i < m; i++) some[i].im = -some[i].im;
      cml_et_store_pairs(out, l.first_b + k * step, step, m, some, 1);
    }
}

static cml_status reals_to_complex(cml_et_call *c, const cml_et_tensor *x, cml_et_tensor *out, int dim, double scale, cml_error *err) {
  const int64_t n = x->sizes[dim], step = x->strides[dim], half = n / 2 + 1;
  job j = {.how = n % 2 ? PLAIN : HALVED, .n = n % 2 ? n : n / 2, .sign = -1, .scale = scale, .given = {{0, n % 2 ? n : n / 2, 0, n % 2 ? step : 2 * step, n % 2 ? 0 : step}}, .pieces = 1};
  cml_et_grid_of(x, &j.from);
  cml_et_grid_of(out, &j.to);
  j.wanted = (piece){0, half, 0, j.to.strides[dim], 1};
  walk w = cml_et_walk_of(x->rank, x->sizes, dim, &j.from, &j.to);
  if (cml_et_fits_line(cml_et_kernels_of(&j.to), j.n)) CML_TRY(run(c, &j, w, err));
  else if (j.how == HALVED && cml_et_stays(&j.to, j.n)) CML_TRY(long_r2c(c, &j, w, err));
  else {
    j.how = PLAIN;
    j.n = n;
    j.given[0] = (piece){0, n, 0, step, 0};
    CML_TRY(run_detour(c, &j, NULL, NULL, w, err));
  }
  if (out->sizes[dim] > half) both_sides(out, dim);
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
  if (cml_et_numel(out) == 0) return CML_OK;
  CML_TRY(reals_to_complex(c, x, out, last, d.count > 1 ? 1 : scale, err));
  grid g;
  cml_et_grid_of(out, &g);
  for (size_t k = d.count - 1; k-- > 0;) CML_TRY(along(c, out->rank, out->sizes, &g, &g, d.list[k], -1, k ? 1 : scale, err));
  return CML_OK;
}

/* ---- half spectra to reals ---- */

/* The other dimensions are transformed first, in the output's own memory: a line there holds n reals, as many as count of half a spectrum.
 *
 *     re 0 | re 1 | im 1 | re 2 | im 2 | … | re n/2, where n is even
 *
 * Of the first and the last number only the real part counts in the end; until then their imaginary part takes the place of `re 1`, which
 * comes later. Where there is none (n of 1 or 2), only the real part of a transform over the other dimensions is wanted: of the part of the
 * numbers that mirrors itself, of which again half a spectrum stands for all. */
typedef struct halves {
  const cml_et_tensor *x;
  cml_et_tensor *out;
  cml_et_dims d;   /* the last one has reals in the end */
  bool mirrors;    /* the part that mirrors itself in all of them is taken of x */
} halves;

static int last_of(const halves *h) { return h->d.list[h->d.count - 1]; }

/* The grid of `count` numbers whose parts begin at these places of the output's lines, and its sizes. */
static void grid_in(const halves *h, int64_t count, int64_t re, int64_t im, grid *g, int64_t *sizes) {
  const int last = last_of(h);
  const int64_t step = h->out->strides[last];
  memcpy(sizes, h->out->sizes, h->out->rank * sizeof *sizes);
  sizes[last] = count;
  cml_et_grid_of(h->out, g);
  g->strides[last] = 2 * step;
  g->parts.data = (char *)h->out->data + (size_t)(re * step) * cml_et_width(h->out);
  g->im = (im - re) * step;
}

/* Numbers k .. of x with the conjugates of those that they mirror, into the grid. */
static void take_mirrored(const halves *h, int64_t k, grid *g, const int64_t *sizes) {
  const cml_et_tensor *x = h->x;
  int64_t at[CML_PTE_MAX_RANK] = {0}, left = 1;
  for (int i = 0; i < x->rank; i++) left *= sizes[i];
  for (; left > 0; left--) {
    int64_t from = k * x->strides[last_of(h)], back = 0, to = 0;
    pair a, b;
    for (int i = 0; i < x->rank; i++) from += at[i] * x->strides[i], back += at[i] * x->strides[i], to += at[i] * g->strides[i];
    for (size_t i = 0; i < h->d.count; i++) {
      const int dim = h->d.list[i];
      const int64_t index = at[dim] + (dim == last_of(h) ? k : 0);
      back += ((index ? x->sizes[dim] - index : 0) - at[dim]) * x->strides[dim];
    }
    cml_et_load_pairs(&a, x, from, 1, 1);
    cml_et_load_pairs(&b, x, back, 1, 1);
    a = (pair){(a.re + b.re) / 2, (a.im - b.im) / 2};
    cml_et_store_parts(&g->parts, to, g->im, 1, 1, &a, 1);
    for (int i = x->rank - 1; i >= 0 && ++at[i] == sizes[i]; i--) at[i] = 0;
  }
}

/* Numbers k .. k + count of all lines, transformed along all dimensions but the last one named. */
static cml_status take_numbers(cml_et_call *c, const halves *h, int64_t k, int64_t count, int64_t re, int64_t im, cml_error *err) {
  int64_t sizes[CML_PTE_MAX_RANK];
  grid from, to;
  grid_in(h, count, re, im, &to, sizes);
  cml_et_grid_of(h->x, &from);
  from.parts.data = (char *)from.parts.data + (size_t)(k * from.strides[last_of(h)]) * cml_et_width(&from.parts);
  if (count < 1) return CML_OK;
  if (h->mirrors) take_mirrored(h, k, &to, sizes);
  for (size_t i = 0; i + 1 < h->d.count; i++) CML_TRY(along(c, h->out->rank, sizes, i || h->mirrors ? &to : &from, &to, h->d.list[i], 1, 1, err));
  return CML_OK;
}

static cml_status other_dims(cml_et_call *c, const halves *h, int64_t n, cml_error *err) {
  CML_TRY(take_numbers(c, h, 0, 1, 0, 1, err));
  if (n % 2 == 0) CML_TRY(take_numbers(c, h, n / 2, 1, n - 1, 1, err));
  return take_numbers(c, h, 1, (n - 1) / 2, 1, 2, err);
}

/* Half a spectrum of 2 m reals into m numbers of the output's line, the real part of the last one as the imaginary one of the first:
 * out of the input; or as other_dims left it there, where all move by one place, the last ones first. */
static void begin_half(const job *j, const line *l, bool inside, int64_t from) {
  pair first, last, some[SOME];
  const int64_t m = l->n, step = j->given[0].step;
  if (!inside) {
    cml_et_load_parts(&first, &j->from.parts, from, 1, 1, 1);
    cml_et_load_parts(&last, &j->from.parts, from + m * step, 1, 1, 1);
    for (int64_t k = 1, n; k < m; k += n) {
      n = m - k < SOME ? m - k : SOME;
      cml_et_load_parts(some, &j->from.parts, from + k * step, 1, step, n);
      put_in(l, k, 1, n, some, 1);
    }
  } else {
    const line before = {l->parts, l->first - l->im, l->step, l->im, m};
    cml_et_load_parts(&first, l->parts, l->first, 0, 1, 1);
    cml_et_load_parts(&last, l->parts, l->first + (2 * m - 1) * l->im, 0, 1, 1);
    for (int64_t k = m - 1; k > 0; k--) put(l, k, get(&before, k), 1);
  }
  put(l, 0, (pair){first.re + last.re, first.re - last.re}, 1);
}

static cml_status long_c2r(cml_et_call *c, job *j, bool inside, walk lines, cml_error *err) {
  const piece *to = &j->wanted;
  for (walk w = lines; w.left > 0; cml_et_walk_on(&w))
    for (int64_t lane = 0; lane < w.lanes; lane++) {
      const line l = {&j->to.parts, w.to + lane * w.lane_to, to->step, to->im, j->n};
      begin_half(j, &l, inside, w.from + lane * w.lane_from);
      untie_all(&l, 1, 1);
    }
  return cml_et_in_place(c, &j->to, &lines, &(cml_et_place){j->n, 0, to->step, to->im}, 1, j->scale, err);
}

/* Half a spectrum of n reals, where it is in complex numbers `step` parts apart, or in reals as other_dims leaves it. */
static size_t half_pieces(piece *p, int64_t n, int64_t step, bool inside) {
  p[0] = (piece){0, 1, 0, step, 0};
  p[1] = (piece){1, (n - 1) / 2, step, inside ? 2 * step : step, inside ? step : 1};
  p[2] = (piece){n / 2, 1, (inside ? n - 1 : n / 2) * step, step, 0};
  return n % 2 ? 2 : 3;
}

static cml_status complex_to_reals(cml_et_call *c, const halves *h, double scale, cml_error *err) {
  const int last = last_of(h);
  const bool inside = h->d.count > 1 || h->mirrors, even = h->out->sizes[last] % 2 == 0;
  const int64_t n = h->out->sizes[last], step = h->out->strides[last];
  if (inside) CML_TRY(other_dims(c, h, n, err));
  job j = {.how = even ? HALVED : MIRRORED, .n = even ? n / 2 : n, .sign = 1, .scale = scale, .wanted = {0, even ? n / 2 : n, 0, even ? 2 * step : step, even ? step : 0}};
  cml_et_grid_of(inside ? h->out : h->x, &j.from);
  cml_et_grid_of(h->out, &j.to);
  walk w = cml_et_walk_of(h->out->rank, h->out->sizes, last, &j.from, &j.to);
  j.pieces = half_pieces(j.given, n, j.from.strides[last], inside);
  if (cml_et_fits_line(cml_et_kernels_of(&j.to), j.n)) {
    if (!inside && even) j.given[0] = (piece){0, n / 2 + 1, 0, j.from.strides[last], 1}, j.pieces = 1;
    return run(c, &j, w, err);
  }
  if (even && cml_et_stays(&j.to, j.n)) return long_c2r(c, &j, inside, w, err);
  j.how = MIRRORED;
  j.n = n;
  j.wanted = (piece){0, n, 0, step, 0};
  job saved = j;
  half_pieces(saved.given, n, 1, true);
  return run_detour(c, &j, inside ? &(cml_et_place){n, 0, step, 0} : NULL, &saved, w, err);
}

/* Sums and differences of two reals each along a dimension, in place. */
static void sums_and_differences(cml_et_tensor *out, int dim, double scale) {
  for (cml_et_lines l = cml_et_lines_of(out, out, dim); l.left > 0; l.left--, cml_et_next_line(&l)) {
    double two[2];
    cml_et_load_f64(two, out, l.first_a, out->strides[dim], 2);
    cml_et_store_f64(out, l.first_a, out->strides[dim], 2, (double[]){(two[0] + two[1]) * scale, (two[0] - two[1]) * scale});
  }
}

/* Where no dimension has more than two numbers all mirror themselves: their real parts are what counts. */
static void smallest(const halves *h, double scale) {
  cml_et_tensor *out = h->out;
  const int last = last_of(h);
  for (cml_et_lines l = cml_et_lines_of(h->x, out, last); l.left > 0; l.left--, cml_et_next_line(&l)) {
    double re[2] = {0};
    const cml_et_tensor parts = cml_et_parts_of(h->x);
    cml_et_load_f64(re, &parts, 2 * l.first_a, 2 * h->x->strides[last], out->sizes[last]);
    for (int k = 0; k < 2; k++) re[k] *= scale;
    cml_et_store_f64(out, l.first_b, out->strides[last], out->sizes[last], re);
  }
  for (size_t k = 0; k < h->d.count; k++)
    if (out->sizes[h->d.list[k]] == 2) sums_and_differences(out, h->d.list[k], 1);
}

static void slice(const cml_et_tensor *t, int dim, int64_t at, cml_et_local *out) {
  cml_et_make(out, t->dtype, t->rank, t->sizes, (char *)t->data + (size_t)(at * t->strides[dim]) * cml_et_width(t));
  memcpy(out->strides, t->strides, t->rank * sizeof *out->strides);
  out->sizes[dim] = 1;
  out->t.complex = t->complex;
}

/* One or two reals: of each the other dimensions, of which the largest has reals in the end. */
static cml_status few_reals(cml_et_call *c, const halves *h, double scale, cml_error *err) {
  const int last = last_of(h);
  const int64_t n = h->out->sizes[last];
  halves each = {.d = h->d, .mirrors = true};
  size_t most = 0;
  each.d.count--;
  for (size_t k = 1; k < each.d.count; k++)
    if (h->out->sizes[each.d.list[k]] > h->out->sizes[each.d.list[most]]) most = k;
  if (h->out->sizes[each.d.list[most]] <= 2) {
    smallest(h, scale);
    return CML_OK;
  }
  each.d.list[most] = each.d.list[each.d.count - 1];
  each.d.list[each.d.count - 1] = h->d.list[most];
  for (int64_t k = 0; k < n; k++) {
    cml_et_local x, out;
    slice(h->x, last, k, &x);
    slice(h->out, last, k, &out);
    each.x = &x.t;
    each.out = &out.t;
    CML_TRY(complex_to_reals(c, &each, scale, err));
  }
  if (n == 2) sums_and_differences(h->out, last, 1);
  return CML_OK;
}

static cml_status op_c2r(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 4);
  int64_t sizes[CML_PTE_MAX_RANK], n = cml_et_int(c, 3, 0);
  double scale = 1;
  halves h = {.x = x, .out = out};
  if (!x->complex || cml_et_part_type(x) != out->dtype) return cml_et_fail(c, err, "the spectrum is not complex of the output's precision");
  CML_TRY(cml_et_take_dims(c, 1, x->rank, &h.d, err));
  const int last = last_of(&h);
  memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  sizes[last] = n;
  if (n < 1 || x->sizes[last] < n / 2 + 1)
    return cml_et_fail(c, err, "a spectrum of %lld numbers makes no signal of %lld", (long long)x->sizes[last], (long long)n);
  CML_TRY(take_scale(c, 2, sizes, &h.d, &scale, err));
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  return (n <= 2 && h.d.count > 1 ? few_reals : complex_to_reals)(c, &h, scale, err);
}

static const cml_et_op rows[] = {
    {"aten::_fft_r2c.out", "tIibk", op_r2c},
    {"aten::_fft_c2r.out", "cIiio", op_c2r},
};
CML_ET_FAMILY(fourier)
