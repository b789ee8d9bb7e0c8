/* What the kernels (kernels/fourier.h) need to transform n numbers.
 *
 * Numbers with a large prime factor are transformed as a convolution (Bluestein): k t = (k k + t t - (k - t) (k - t)) / 2 makes each result
 * a sum of products of two chirps. Lines of at most a block at once, others block by block: each block of results from each block of
 * numbers, which takes a square of the blocks' count in time and a few blocks of memory. */
#include "et_transform.h"

enum {
  BUFFERS = 576 << 10, /* bytes of x and y at most */
  IN_LANES = 512 << 10, /* the same of lines in lanes */
  CHUNK = 64,
  BLOCK = 64 << 10 /* bytes of the numbers that are convolved at a time */
};

typedef cml_et_transform transform;
typedef cml_et_chirp chirp;
typedef cml_fourier_kernels kernels;

static int64_t least_factor(int64_t n) {
  for (int64_t p = 2; p * p <= n; p++)
    if (n % p == 0) return p;
  return n;
}

static bool is_smooth(int64_t n) {
  for (int64_t p; n > CML_FOURIER_RADIX; n /= p)
    if ((p = least_factor(n)) > CML_FOURIER_RADIX) return false;
  return true;
}

int64_t cml_et_columns(const kernels *k, int64_t n) {
  int64_t c = (int64_t)k->lanes;
  while (n % c) c--;
  return c;
}

static int64_t block_of(const kernels *k) { return BLOCK / 2 / (int64_t)k->width; }

int64_t cml_et_lane_bytes(const kernels *k, int64_t n) { return 4 * (n + 1) * (int64_t)(k->lanes * k->width); }

/* Whether a line goes through passes: without large prime factors, and in columns enough for that. */
static bool passes(const kernels *k, int64_t n) { return n <= BUFFERS && is_smooth(n) && cml_et_lane_bytes(k, n / cml_et_columns(k, n)) <= BUFFERS; }
int64_t cml_et_line_bytes(const kernels *k, int64_t n) { return passes(k, n) ? cml_et_lane_bytes(k, n / cml_et_columns(k, n)) : 10 * BLOCK; }

bool cml_et_fits_line(const kernels *k, int64_t n) { return n <= block_of(k) || passes(k, n); }
bool cml_et_fits_lanes(const kernels *k, int64_t n) { return n <= IN_LANES && cml_et_lane_bytes(k, n) <= IN_LANES && is_smooth(n); }

void *cml_et_reals(cml_et_call *c, const kernels *k, int64_t pairs) {
  uint64_t bytes;
  return cml_mul((uint64_t)pairs, 2 * k->width, &bytes) ? cml_et_temp(c, bytes) : NULL;
}

void cml_et_roots(const kernels *k, int64_t n, double sign, int64_t count, void *re) {
  double at[CHUNK];
  for (int64_t i = 0, m; i < count; i += m) {
    m = count - i < CHUNK ? count - i : CHUNK;
    for (int64_t j = 0; j < m; j++) at[j] = (double)(i + j);
    k->roots((double)n, sign, (size_t)m, at, cml_et_part_at(k, re, i), cml_et_part_at(k, re, count + i));
  }
}

/* Eights first, then what is left of two, then odd factors. */
static void take_radices(cml_fourier *f, int64_t n) {
  f->n = (size_t)n;
  f->passes = 0;
  for (int64_t p; n > 1; n /= p) {
    p = n % 8 == 0 && n != 16 ? 8 : n % 4 == 0 ? 4 : least_factor(n);
    f->radix[f->passes++] = (uint8_t)p;
  }
}

static cml_status prepare_passes(cml_et_call *c, const kernels *k, cml_fourier *f, int64_t n, double sign, cml_error *err) {
  int64_t odd = 0;
  take_radices(f, n);
  f->sign = sign;
  for (size_t i = 0; i < f->passes; i++) odd += CML_FOURIER_TABLE(f->radix[i]) ? f->radix[i] : 0;
  char *roots = cml_et_reals(c, k, n), *units = cml_et_reals(c, k, odd);
  if (!roots || !units) return cml_fail_memory(err);
  cml_et_roots(k, n, sign, n, roots);
  f->roots = roots;
  f->units = units;
  for (size_t i = 0; i < f->passes; i++) {
    if (!CML_FOURIER_TABLE(f->radix[i])) continue;
    cml_et_roots(k, f->radix[i], sign, f->radix[i], units);
    units += 2 * f->radix[i] * k->width;
  }
  return CML_OK;
}

/* x and y at once: what is large goes back to the system when it is released. */
static cml_status make_buffers(cml_et_call *c, transform *t, int64_t numbers, cml_error *err) {
  const size_t bytes = 2 * (size_t)numbers * t->k->width;
  char *both = cml_et_reals(c, t->k, 2 * numbers);
  if (!both) return cml_fail_memory(err);
  t->x = both;
  t->y = both + bytes;
  return CML_OK;
}

static cml_status prepare_line(cml_et_call *c, transform *t, double sign, cml_error *err) {
  const kernels *k = t->k;
  cml_fourier_line *l = &t->line;
  const size_t columns = (size_t)cml_et_columns(k, t->n), rows = (size_t)t->n / columns;
  const size_t im = ((size_t)t->n / k->lanes + 1) * k->lanes;
  *l = (cml_fourier_line){.rows = rows, .columns = columns, .im = im};
  CML_TRY(prepare_passes(c, k, &l->down, (int64_t)rows, sign, err));
  CML_TRY(prepare_passes(c, k, &l->across, (int64_t)columns, sign, err));
  const size_t numbers = im + k->lanes > rows * k->lanes ? im + k->lanes : rows * k->lanes;
  void *turns = cml_et_temp(c, k->turns);
  if (!turns) return cml_fail_memory(err);
  CML_TRY(make_buffers(c, t, (int64_t)numbers, err));
  k->begin_line(l, turns);
  return CML_OK;
}

static cml_status prepare_lanes(cml_et_call *c, transform *t, double sign, cml_error *err) {
  CML_TRY(make_buffers(c, t, (t->n + 1) * (int64_t)t->k->lanes, err));
  memset(t->x, 0, ((size_t)t->n + 1) * 2 * t->k->lanes * t->k->width); /* lanes that stay unused */
  return prepare_passes(c, t->k, &t->line.down, t->n, sign, err);
}

/* ---- convolutions with chirps ---- */

static char *im_of(const transform *t, void *line) { return cml_et_part_at(t->k, line, (int64_t)t->line.im); }

/* exp(sign pi i k k / n) for count k from `first` on. */
static void put_chirp(const chirp *h, int64_t first, int64_t count, double sign, void *re, void *im) {
  const uint64_t turn = 2 * (uint64_t)h->n;
  double at[CHUNK];
  for (int64_t i = 0, m; i < count; i += m) {
    m = count - i < CHUNK ? count - i : CHUNK;
    for (int64_t j = 0; j < m; j++) {
      uint64_t k = (uint64_t)(first + i + j < 0 ? -(first + i + j) : first + i + j);
      at[j] = (double)(k < UINT32_MAX ? k * k % turn : (uint64_t)((unsigned __int128)k * k % turn));
    }
    h->t.k->roots((double)turn, sign, (size_t)m, at, cml_et_part_at(h->t.k, re, i), cml_et_part_at(h->t.k, im, i));
  }
}

cml_status cml_et_chirp_prepare(cml_et_call *c, chirp *h, const kernels *k, int64_t n, double sign, cml_error *err) {
  int64_t block = 1;
  while (block < n && block < block_of(k)) block *= 2;
  *h = (chirp){.n = n, .block = block, .sign = sign, .held = -1, .base = -1};
  CML_TRY(cml_et_transform_prepare(c, &h->t, k, 2 * block, -1, false, err));
  const int64_t line = (int64_t)h->t.line.im, pair = 2 * (int64_t)k->width;
  char *all = cml_et_reals(c, k, line + block + (block < n ? line : 0));
  if (!all) return cml_fail_memory(err);
  h->spectrum = all;
  h->factors = all + line * pair;
  h->sum = block < n ? all + (line + block) * pair : NULL;
  return CML_OK;
}

/* What numbers `from` .. are weighted with for results `to` ..: the other chirp, transformed. */
static void take_spectrum(chirp *h, int64_t from, int64_t to) {
  const transform *t = &h->t;
  char *re = t->y, *im = im_of(t, t->y);
  const int64_t away = to - from, size = 2 * h->block, reach = h->n - 1; /* between a number and a result */
  if (h->held == away) return;
  memset(re, 0, (size_t)size * t->k->width);
  memset(im, 0, (size_t)size * t->k->width);
  for (int side = 0; side < 2; side++) { /* results away .. from its number, and those before, from block + 1 on */
    int64_t first = side ? away - h->block + 1 : away, last = (side ? away : away + h->block) - 1, at = side ? h->block + 1 : 0;
    if (first < -reach) at += -reach - first, first = -reach;
    if (last > reach) last = reach;
    if (first <= last) put_chirp(h, first, last - first + 1, -h->sign, cml_et_part_at(t->k, re, at), cml_et_part_at(t->k, im, at));
  }
  void *out = cml_et_transform_line(t);
  t->k->scale((size_t)size, 1 / (double)size, out);
  t->k->scale((size_t)size, 1 / (double)size, im_of(t, out));
  memcpy(h->spectrum, out, (t->line.im + (size_t)size) * t->k->width);
  h->held = away < 0 ? -1 : away;
}

/* The chirp itself for the block of numbers `from` .. */
static void take_factors(chirp *h, int64_t from) {
  if (h->base == from) return;
  put_chirp(h, from, h->n - from < h->block ? h->n - from : h->block, h->sign, h->factors, cml_et_part_at(h->t.k, h->factors, h->block));
  h->base = from;
}

/* The spectrum of numbers `from` .., which are in y, times that of the chirp: into `to`, or added to it, the parts changed over. */
static void add_block(chirp *h, int64_t from, int64_t count, bool adds, void *to) {
  const transform *t = &h->t;
  char *re = t->y, *im = im_of(t, re);
  const size_t left = (size_t)(2 * h->block - count) * t->k->width;
  take_factors(h, from);
  t->k->products((size_t)count, re, im, h->factors, cml_et_part_at(t->k, h->factors, h->block), false, re, im);
  memset(cml_et_part_at(t->k, re, count), 0, left);
  memset(cml_et_part_at(t->k, im, count), 0, left);
  char *out = cml_et_transform_line(t);
  t->k->products((size_t)(2 * h->block), out, im_of(t, out), h->spectrum, im_of(t, h->spectrum), adds, im_of(t, to), to);
}

/* Results `to` .. out of the sum of spectra in y: with parts changed over the way forward is the way back. Returns the imaginary parts. */
static char *end_block(chirp *h, int64_t to, int64_t count) {
  const transform *t = &h->t;
  char *im = cml_et_transform_line(t), *re = im_of(t, im);
  take_factors(h, to);
  t->k->products((size_t)count, re, im, h->factors, cml_et_part_at(t->k, h->factors, h->block), false, re, im);
  return im;
}

void cml_et_chirp_run(chirp *h, const cml_et_long_line *l, int64_t wanted) {
  const transform *t = &h->t;
  for (int64_t to = 0; to < wanted; to += h->block) {
    int64_t count = wanted - to < h->block ? wanted - to : h->block;
    for (int64_t from = 0; from < h->n; from += h->block) {
      int64_t some = h->n - from < h->block ? h->n - from : h->block;
      take_spectrum(h, from, to);
      l->load(l, from, some, t->y, im_of(t, t->y));
      add_block(h, from, some, from > 0, h->sum ? h->sum : t->y);
    }
    if (h->sum) memcpy(t->y, h->sum, (t->line.im + (size_t)(2 * h->block)) * t->k->width);
    char *im = end_block(h, to, count);
    l->store(l, to, 1, count, im_of(t, im), im);
  }
}

cml_status cml_et_transform_prepare(cml_et_call *c, transform *t, const kernels *k, int64_t n, double sign, bool in_lanes, cml_error *err) {
  *t = (transform){.n = n, .k = k};
  if (in_lanes || passes(k, n)) return (in_lanes ? prepare_lanes : prepare_line)(c, t, sign, err);
  chirp *h = cml_et_temp(c, sizeof *h);
  if (!h) return cml_fail_memory(err);
  CML_TRY(cml_et_chirp_prepare(c, h, k, n, sign, err));
  take_spectrum(h, 0, 0);
  *t = h->t;
  t->n = n;
  t->chirp = h;
  return CML_OK;
}

void *cml_et_transform_line(const transform *t) {
  if (t->chirp) {
    add_block(t->chirp, 0, t->n, false, t->y);
    char *im = end_block(t->chirp, 0, t->n), *re = im_of(t, im), *out = cml_et_other(t, im);
    memcpy(out, re, (size_t)t->n * t->k->width);
    memcpy(im_of(t, out), im, (size_t)t->n * t->k->width);
    return out;
  }
  t->k->spread(&t->line, t->y, t->x);
  void *x = t->k->run(&t->line.down, t->x, t->y), *line = cml_et_other(t, x);
  t->k->across(&t->line, x, line);
  return line;
}

void *cml_et_transform_lanes(const transform *t) { return t->k->run(&t->line.down, t->x, t->y); }
