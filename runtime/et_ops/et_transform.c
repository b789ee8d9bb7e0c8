/* The transform of n = p m numbers is p transforms of m numbers each, of every p-th one, which p-point transforms put together
 * (Cooley and Tukey), p being four or n's least prime factor. All twiddle factors come from one table of the n-th roots of unity.
 *
 * Numbers with a large prime factor are transformed as a convolution (Bluestein): k t = (k k + t t - (k - t) (k - t)) / 2 makes each result
 * a sum of products of two chirps. Lines of at most LONG at once, others block by block: each block of results from each block of numbers,
 * which takes a square of the blocks' count in time and a few blocks of memory. */
#include "et_transform.h"

#include <math.h>

enum { LONG = CML_ET_LONG, DIRECT = 100 /* the largest prime factor that is transformed as it is defined */ };

typedef cml_et_pair pair;
typedef cml_et_transform transform;
typedef cml_et_chirp chirp;

pair cml_et_root(int64_t k, int64_t n, double sign) {
  double angle = sign * 2 * M_PI * (double)k / (double)n;
  return (pair){cos(angle), sin(angle)};
}

static int64_t least_factor(int64_t n) {
  for (int64_t p = 2; p * p <= n; p++)
    if (n % p == 0) return p;
  return n;
}

static pair minus(pair a, pair b) { return (pair){a.re - b.re, a.im - b.im}; }

/* The transform of four numbers; turn: the sign of the imaginary unit. */
static inline void four(pair *out, int64_t step, pair a, pair b, pair c, pair d, double turn) {
  pair e = cml_et_plus(a, c), f = minus(a, c), g = cml_et_plus(b, d), h = minus(b, d);
  h = (pair){-turn * h.im, turn * h.re};
  out[0] = cml_et_plus(e, g);
  out[step] = cml_et_plus(f, h);
  out[2 * step] = minus(e, g);
  out[3 * step] = minus(f, h);
}

static double turn_of(const transform *t) { return t->roots[t->n / 4].im > 0 ? 1 : -1; }

static void put_together(const transform *t, pair *out, int64_t n, int64_t p) {
  int64_t m = n / p, step = t->n / n;
  int64_t whole = t->n / p;
  double turn = p == 4 ? turn_of(t) : 0;
  for (int64_t k = 0; k < m && p == 4; k++) {
    const pair *w = t->roots + k * step;
    four(out + k, m, out[k], cml_et_times(out[m + k], w[0]), cml_et_times(out[2 * m + k], w[k * step]), cml_et_times(out[3 * m + k], w[2 * k * step]), turn);
  }
  for (int64_t k = 0; k < m && p == 2; k++) {
    pair a = out[k], b = cml_et_times(out[m + k], t->roots[k * step]);
    out[k] = cml_et_plus(a, b);
    out[m + k] = minus(a, b);
  }
  for (int64_t k = 0; k < m && p != 2 && p != 4; k++) {
    for (int64_t r = 0; r < p; r++) t->mixed[r] = cml_et_times(out[r * m + k], t->roots[r * k * step]);
    for (int64_t q = 0; q < p; q++) {
      pair sum = t->mixed[0];
      for (int64_t r = 1, at = q; r < p; r++, at += at + q < p ? q : q - p) sum = cml_et_plus(sum, cml_et_times(t->mixed[r], t->roots[at * whole]));
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
  if (n == 4) {
    four(out, 1, in[0], in[stride], in[2 * stride], in[3 * stride], turn_of(t));
    return;
  }
  int64_t p = n % 4 ? least_factor(n) : 4, m = n / p;
  for (int64_t r = 0; r < p; r++) run_transform(t, out + r * m, in + r * stride, m, stride * p);
  put_together(t, out, n, p);
}

static int64_t largest_factor(int64_t n) {
  int64_t p = 1;
  for (; n > 1; n /= p) p = least_factor(n);
  return p;
}

pair *cml_et_pairs(cml_et_call *c, int64_t count) {
  uint64_t bytes;
  return cml_mul((uint64_t)count, sizeof(pair), &bytes) ? cml_et_temp(c, bytes) : NULL;
}

static cml_status prepare_plain(cml_et_call *c, transform *t, int64_t n, double sign, cml_error *err) {
  *t = (transform){.n = n, .roots = cml_et_pairs(c, n), .in = cml_et_pairs(c, n), .out = cml_et_pairs(c, n), .mixed = cml_et_pairs(c, largest_factor(n))};
  if (!t->roots || !t->in || !t->out || !t->mixed) return cml_fail_memory(err);
  for (int64_t k = 0; k < n; k++) t->roots[k] = cml_et_root(k, n, sign);
  return CML_OK;
}

/* ---- convolutions with chirps ---- */

/* exp(sign pi i k k / n) */
static pair chirp_at(const chirp *h, int64_t k, double sign) {
  return cml_et_root((int64_t)((unsigned __int128)k * (unsigned __int128)k % (unsigned __int128)(2 * h->n)), 2 * h->n, sign);
}

cml_status cml_et_chirp_prepare(cml_et_call *c, chirp *h, int64_t n, double sign, cml_error *err) {
  int64_t block = 1;
  while (block < n && block < LONG) block *= 2;
  *h = (chirp){.n = n, .block = block, .sign = sign, .spectrum = cml_et_pairs(c, 2 * block), .sum = block < n ? cml_et_pairs(c, 2 * block) : NULL, .held = -1};
  if (!h->spectrum || (block < n && !h->sum)) return cml_fail_memory(err);
  return prepare_plain(c, &h->t, 2 * block, -1, err);
}

/* What numbers `from` .. are weighted with for results `to` ..: the other chirp, transformed. */
static void take_spectrum(chirp *h, int64_t from, int64_t to) {
  int64_t away = to - from, size = 2 * h->block;
  if (h->held == away) return;
  for (int64_t i = 0; i < size; i++) {
    int64_t at = away + (i < h->block ? i : i - size);
    h->t.in[i] = i == h->block ? (pair){0, 0} : chirp_at(h, at < 0 ? -at : at, -h->sign);
  }
  run_transform(&h->t, h->spectrum, h->t.in, size, 1);
  h->held = away < 0 ? -1 : away;
}

/* The spectrum of numbers `from` .., which are in t.in, times that of the chirp: added to sum, or put there. */
static void add_block(chirp *h, int64_t from, int64_t count, pair *sum, bool adds) {
  transform *t = &h->t;
  for (int64_t i = 0; i < count; i++) t->in[i] = cml_et_times(t->in[i], chirp_at(h, from + i, h->sign));
  memset(t->in + count, 0, (size_t)(2 * h->block - count) * sizeof *t->in);
  run_transform(t, t->out, t->in, 2 * h->block, 1);
  for (int64_t i = 0; i < 2 * h->block; i++) {
    pair v = cml_et_times(t->out[i], h->spectrum[i]);
    sum[i] = adds ? cml_et_plus(sum[i], v) : v;
  }
}

/* Results `to` .. out of the sum of spectra, into t.out: back by way of conjugates. */
static void end_block(chirp *h, int64_t to, int64_t count, const pair *sum) {
  transform *t = &h->t;
  for (int64_t i = 0; i < 2 * h->block; i++) t->in[i] = (pair){sum[i].re, -sum[i].im};
  run_transform(t, t->out, t->in, 2 * h->block, 1);
  double part = 1 / (double)(2 * h->block);
  for (int64_t i = 0; i < count; i++) t->out[i] = cml_et_times((pair){t->out[i].re * part, -t->out[i].im * part}, chirp_at(h, to + i, h->sign));
}

void cml_et_chirp_run(chirp *h, const cml_et_long_line *l, int64_t wanted) {
  for (int64_t to = 0; to < wanted; to += h->block) {
    int64_t count = wanted - to < h->block ? wanted - to : h->block;
    for (int64_t from = 0; from < h->n; from += h->block) {
      int64_t some = h->n - from < h->block ? h->n - from : h->block;
      take_spectrum(h, from, to);
      l->load(l, from, some, h->t.in);
      add_block(h, from, some, h->sum, from > 0);
    }
    end_block(h, to, count, h->sum);
    l->store(l, to, count, h->t.out);
  }
}

cml_status cml_et_transform_prepare(cml_et_call *c, transform *t, int64_t n, double sign, cml_error *err) {
  if (largest_factor(n) <= DIRECT) return prepare_plain(c, t, n, sign, err);
  chirp *h = cml_et_temp(c, sizeof *h);
  if (!h) return cml_fail_memory(err);
  CML_TRY(cml_et_chirp_prepare(c, h, n, sign, err));
  take_spectrum(h, 0, 0);
  *t = (transform){.n = n, .in = h->t.in, .out = h->t.out, .chirp = h};
  return CML_OK;
}

void cml_et_transform_run(const transform *t) {
  chirp *h = t->chirp;
  if (!h) {
    run_transform(t, t->out, t->in, t->n, 1);
    return;
  }
  add_block(h, 0, t->n, t->out, false);
  end_block(h, 0, t->n, t->out);
}
