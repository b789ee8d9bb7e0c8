/* What the kernel (kernels.h: cml_fourier) needs to transform n numbers without large prime factors.
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

static int64_t largest_factor(int64_t n) {
  int64_t p = 1;
  for (; n > 1; n /= p) p = least_factor(n);
  return p;
}

bool cml_et_short(int64_t n) { return n <= LONG || (n <= 2 * LONG && largest_factor(n) <= DIRECT); }

pair *cml_et_pairs(cml_et_call *c, int64_t count) {
  uint64_t bytes;
  return cml_mul((uint64_t)count, sizeof(pair), &bytes) ? cml_et_temp(c, bytes) : NULL;
}

/* The n-th roots of unity: each the product of one of few and of a whole block's first. */
enum { BLOCK = 64 };
typedef struct roots {
  pair low[BLOCK], *high; /* high: of every BLOCK-th */
} roots;

static bool make_roots(cml_et_call *c, roots *r, int64_t n, double sign) {
  if (!(r->high = cml_et_pairs(c, n / BLOCK + 1))) return false;
  for (int64_t k = 0; k < BLOCK; k++) r->low[k] = cml_et_root(k, n, sign);
  for (int64_t k = 0; k <= n / BLOCK; k++) r->high[k] = cml_et_root(k * BLOCK, n, sign);
  return true;
}

static inline pair root(const roots *r, int64_t k) { return cml_et_times(r->high[k / BLOCK], r->low[k % BLOCK]); }

bool cml_et_take_roots(cml_et_call *c, int64_t n, double sign, int64_t count, pair *out) {
  roots r;
  if (!make_roots(c, &r, n, sign)) return false;
  for (int64_t k = 0; k < count; k++) out[k] = root(&r, k);
  return true;
}

/* Eights first, then what is left of two, then odd factors: where vectors go over many lines. */
static void take_radices(cml_fourier *f, int64_t n) {
  f->n = (size_t)n;
  f->passes = 0;
  for (int64_t p; n > 1; n /= p) {
    p = n % 8 == 0 ? 8 : n % 4 == 0 ? 4 : least_factor(n);
    f->radix[f->passes++] = (uint8_t)p;
  }
}

static cml_status prepare_plain(cml_et_call *c, transform *t, int64_t n, double sign, cml_error *err) {
  *t = (transform){.n = n, .kernels = cml_kernels_get(), .in = cml_et_pairs(c, n), .out = cml_et_pairs(c, n)};
  cml_fourier *f = &t->f;
  take_radices(f, n);
  f->sign = sign;
  int64_t r = f->passes ? f->radix[0] : 1, m = n / r, odd = 0;
  for (size_t i = 0; i < f->passes; i++) odd += CML_FOURIER_TABLE(f->radix[i]) ? f->radix[i] : 0;
  pair *first = cml_et_pairs(c, (r - 1) * m + 1), *all = cml_et_pairs(c, m), *units = cml_et_pairs(c, odd + 1);
  roots table;
  if (!t->in || !t->out || !first || !all || !units || !make_roots(c, &table, n, sign)) return cml_fail_memory(err);
  for (int64_t k = 1; k < r; k++)
    for (int64_t p = 0; p < m; p++) {
      pair w = root(&table, k * p);
      double *parts = (double *)(first + (k - 1) * m);
      parts[p] = w.re;
      parts[m + p] = w.im;
    }
  for (int64_t p = 0; p < m; p++) all[p] = root(&table, p * r);
  f->first = &first->re;
  f->roots = &all->re;
  f->units = &units->re;
  for (size_t i = 0; i < f->passes; i++)
    for (int64_t k = 0; k < f->radix[i] && CML_FOURIER_TABLE(f->radix[i]); k++) *units++ = cml_et_root(k, f->radix[i], sign);
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
  *h = (chirp){.n = n, .block = block, .sign = sign, .spectrum = cml_et_pairs(c, 2 * block), .sum = cml_et_pairs(c, 2 * block), .held = -1};
  h->factors = block < n ? NULL : cml_et_pairs(c, n);
  if (!h->spectrum || !h->sum || (block >= n && !h->factors)) return cml_fail_memory(err);
  roots r;
  if (h->factors && !make_roots(c, &r, 2 * n, sign)) return cml_fail_memory(err);
  for (int64_t k = 0; k < n && h->factors; k++) h->factors[k] = root(&r, k * k % (2 * n));
  return prepare_plain(c, &h->t, 2 * block, -1, err);
}

static inline pair factor(const chirp *h, int64_t k) { return h->factors ? h->factors[k] : chirp_at(h, k, h->sign); }

/* What numbers `from` .. are weighted with for results `to` ..: the other chirp, transformed. */
static void take_spectrum(chirp *h, int64_t from, int64_t to) {
  int64_t away = to - from, size = 2 * h->block;
  if (h->held == away) return;
  for (int64_t i = 0; i < size; i++) {
    int64_t at = away + (i < h->block ? i : i - size), k = at < 0 ? -at : at;
    if (i == h->block || (h->factors && k >= h->n)) h->t.in[i] = (pair){0, 0}; /* of no number to any result */
    else if (h->factors) h->t.in[i] = (pair){h->factors[k].re, -h->factors[k].im};
    else h->t.in[i] = chirp_at(h, k, -h->sign);
  }
  memcpy(h->spectrum, cml_et_transform_run(&h->t), (size_t)size * sizeof *h->spectrum);
  h->held = away < 0 ? -1 : away;
}

/* The spectrum of numbers `from` .., which are in t.in, times that of the chirp: added to h->sum, or put there. */
static void add_block(chirp *h, int64_t from, int64_t count, bool adds) {
  transform *t = &h->t;
  for (int64_t i = 0; i < count; i++) t->in[i] = cml_et_times(t->in[i], factor(h, from + i));
  memset(t->in + count, 0, (size_t)(2 * h->block - count) * sizeof *t->in);
  const pair *out = cml_et_transform_run(t);
  for (int64_t i = 0; i < 2 * h->block; i++) {
    pair v = cml_et_times(out[i], h->spectrum[i]);
    h->sum[i] = adds ? cml_et_plus(h->sum[i], v) : v;
  }
}

/* Results `to` .. out of the sum of spectra: back by way of conjugates. */
static pair *end_block(chirp *h, int64_t to, int64_t count) {
  transform *t = &h->t;
  for (int64_t i = 0; i < 2 * h->block; i++) t->in[i] = (pair){h->sum[i].re, -h->sum[i].im};
  pair *out = cml_et_transform_run(t);
  double part = 1 / (double)(2 * h->block);
  for (int64_t i = 0; i < count; i++) out[i] = cml_et_times((pair){out[i].re * part, -out[i].im * part}, factor(h, to + i));
  return out;
}

void cml_et_chirp_run(chirp *h, const cml_et_long_line *l, int64_t wanted) {
  for (int64_t to = 0; to < wanted; to += h->block) {
    int64_t count = wanted - to < h->block ? wanted - to : h->block;
    for (int64_t from = 0; from < h->n; from += h->block) {
      int64_t some = h->n - from < h->block ? h->n - from : h->block;
      take_spectrum(h, from, to);
      l->load(l, from, some, h->t.in);
      add_block(h, from, some, from > 0);
    }
    l->store(l, to, count, end_block(h, to, count));
  }
}

cml_status cml_et_transform_prepare(cml_et_call *c, transform *t, int64_t n, double sign, cml_error *err) {
  if (largest_factor(n) <= DIRECT) return prepare_plain(c, t, n, sign, err);
  chirp *h = cml_et_temp(c, sizeof *h);
  if (!h) return cml_fail_memory(err);
  CML_TRY(cml_et_chirp_prepare(c, h, n, sign, err));
  take_spectrum(h, 0, 0);
  *t = (transform){.n = n, .kernels = h->t.kernels, .in = h->t.in, .chirp = h};
  return CML_OK;
}

pair *cml_et_transform_run(const transform *t) {
  chirp *h = t->chirp;
  if (!h) return (pair *)(void *)t->kernels->fourier(&t->f, &t->in->re, &t->out->re);
  add_block(h, 0, t->n, false);
  return end_block(h, 0, t->n);
}
