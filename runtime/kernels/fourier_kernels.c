/* Fourier transforms, compiled for each instruction set twice: for floats, and for doubles by fourier_doubles.c; see fourier.h.
 *
 * Lines of numbers are transformed L at a time, one in each lane of a vector, by Stockham's passes: each cuts lines of r m numbers into r
 * of m, by r-point transforms of numbers that lie m apart, and puts results next to each other, so that nothing is left to be sorted. A
 * line by itself is a matrix of at most L columns: these are its lines in lanes, and then its rows are, transposed in registers. */
#include "kernels_internal.h"
#include "simd.h"
#include "transpose_block.h"

#ifdef CML_DOUBLES
typedef double real;
enum { L = W / 2 };
typedef double vec __attribute__((vector_size(L * 8)));
typedef double vec_any __attribute__((vector_size(L * 8), aligned(8), may_alias));
#else
typedef float real;
enum { L = W };
typedef vf vec;
typedef vf_any vec_any;
#endif

VINLINE vec load(const real *p) { return *(const vec_any *)p; }
VINLINE void store(real *p, vec v) { *(vec_any *)p = v; }
VINLINE void store_some(real *p, vec v, size_t n) {
  if (n >= L) store(p, v);
  else memcpy(p, &v, n * sizeof *p);
}

/* Lanes of two vectors: backwards; every second one; one of each in turn. */
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#if defined(__AVX512F__) && !defined(CML_DOUBLES)
#define BACKWARDS 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX512F__) || (defined(__AVX2__) && !defined(CML_DOUBLES))
#define BACKWARDS 7, 6, 5, 4, 3, 2, 1, 0
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif defined(__AVX2__) || !defined(CML_DOUBLES)
#define BACKWARDS 3, 2, 1, 0
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#else
#define BACKWARDS 1, 0
#define EVEN 0, 2
#define ODD 1, 3
#define LOW 0, 2
#define HIGH 1, 3
#endif
VINLINE vec reversed(vec v) { return PICK(v, v, BACKWARDS); }

/* L vectors as rows become columns. */
VINLINE void turn_block(vec *r) {
#ifndef CML_DOUBLES
  transpose_block(r);
#else
#define SWAP(i, j, low, high)                       \
  do {                                              \
    vec a = PICK(r[i], r[j], low), b = PICK(r[i], r[j], high); \
    r[i] = a;                                       \
    r[j] = b;                                       \
  } while (0)
#define LIST(...) __VA_ARGS__
#if defined(__AVX512F__)
  for (int i = 0; i < 8; i += 2) SWAP(i, i + 1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15));
  for (int i = 0; i < 8; i += i % 2 ? 3 : 1) SWAP(i, i + 2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15));
  for (int i = 0; i < 4; i++) SWAP(i, i + 4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15));
#elif defined(__AVX2__)
  for (int i = 0; i < 4; i += 2) SWAP(i, i + 1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7));
  for (int i = 0; i < 2; i++) SWAP(i, i + 2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7));
#else
  SWAP(0, 1, LIST(0, 2), LIST(1, 3));
#endif
#endif
}

/* ---- numbers, one in each lane ---- */

typedef struct number {
  vec re, im;
} number;

VINLINE number plus(number a, number b) { return (number){a.re + b.re, a.im + b.im}; }
VINLINE number minus(number a, number b) { return (number){a.re - b.re, a.im - b.im}; }
VINLINE number times(number a, number b) { return (number){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
VINLINE number turned(number a, real re, real im) { return (number){a.re * re - a.im * im, a.re * im + a.im * re}; }
VINLINE number scaled(number a, real by) { return (number){a.re * by, a.im * by}; }
/* Number i of those whose parts lie in vectors behind each other. */
VINLINE number get(const real *x, size_t i) { return (number){load(x + 2 * L * i), load(x + 2 * L * i + L)}; }
VINLINE void put(real *y, size_t i, number v) {
  store(y + 2 * L * i, v.re);
  store(y + 2 * L * i + L, v.im);
}

/* sign i a */
VINLINE number quarter(number a, const int sign) { return sign < 0 ? (number){a.im, -a.re} : (number){-a.im, a.re}; }

typedef struct quad {
  number v[4];
} quad;

VINLINE quad four_points(number a, number b, number c, number d, const int sign) {
  number e = plus(a, c), g = minus(a, c), h = plus(b, d), side = quarter(minus(b, d), sign);
  return (quad){{plus(e, h), plus(g, side), minus(e, h), minus(g, side)}};
}

/* Three and five points: sums and differences of those that mirror each other, times cosines and sines. */
VINLINE void three_points(const number *in, const int sign, number *out) {
  const real sine = (real)0.86602540378443864676;
  number sum = plus(in[1], in[2]), gap = quarter(scaled(minus(in[1], in[2]), sine), sign), middle = minus(in[0], scaled(sum, (real)0.5));
  out[0] = plus(in[0], sum);
  out[1] = plus(middle, gap);
  out[2] = minus(middle, gap);
}

VINLINE void five_points(const number *in, const int sign, number *out) {
  const real c1 = (real)0.30901699437494742410, c2 = (real)-0.80901699437494742410, s1 = (real)0.95105651629515357212, s2 = (real)0.58778525229247312917;
  number near = plus(in[1], in[4]), far = plus(in[2], in[3]), near_gap = minus(in[1], in[4]), far_gap = minus(in[2], in[3]);
  number a = plus(in[0], plus(scaled(near, c1), scaled(far, c2))), b = quarter(plus(scaled(near_gap, s1), scaled(far_gap, s2)), sign);
  number c = plus(in[0], plus(scaled(near, c2), scaled(far, c1))), d = quarter(minus(scaled(near_gap, s2), scaled(far_gap, s1)), sign);
  out[0] = plus(in[0], plus(near, far));
  out[1] = plus(a, b);
  out[4] = minus(a, b);
  out[2] = plus(c, d);
  out[3] = minus(c, d);
}

VINLINE void eight_points(const number *in, const int sign, number *out) {
  const real root = (real)0.70710678118654752440;
  quad even = four_points(in[0], in[2], in[4], in[6], sign), odd = four_points(in[1], in[3], in[5], in[7], sign);
  number side = quarter(odd.v[1], sign), back = quarter(odd.v[3], sign);
  odd.v[1] = scaled(plus(odd.v[1], side), root);
  odd.v[2] = quarter(odd.v[2], sign);
  odd.v[3] = scaled(minus(back, odd.v[3]), root);
  for (size_t k = 0; k < 4; k++) out[k] = plus(even.v[k], odd.v[k]), out[k + 4] = minus(even.v[k], odd.v[k]);
}

/* Number q of line p of those that lie s apart, results times powers of a root. */
VINLINE void butterfly(const size_t r, const int sign, const bool turns, size_t m, size_t s, const real *restrict x, real *restrict y, size_t p, size_t q, const real *roots, size_t n) {
  number in[8], out[8];
  for (size_t k = 0; k < r; k++) in[k] = get(x, q + s * (p + m * k));
  if (r == 2) out[0] = plus(in[0], in[1]), out[1] = minus(in[0], in[1]);
  else if (r == 3) three_points(in, sign, out);
  else if (r == 5) five_points(in, sign, out);
  else if (r == 8) eight_points(in, sign, out);
  else {
    quad all = four_points(in[0], in[1], in[2], in[3], sign);
    for (size_t k = 0; k < 4; k++) out[k] = all.v[k];
  }
  for (size_t k = 0; k < r; k++) put(y, q + s * (r * p + k), turns && k ? turned(out[k], roots[k * p * s], roots[n + k * p * s]) : out[k]);
}

/* roots: k p s belongs to result k of line p. */
VINLINE void pass(const size_t r, const int sign, size_t m, size_t s, const real *roots, const real *x, real *y) {
  const size_t n = r * m * s;
  for (size_t q = 0; q < s; q++) butterfly(r, sign, false, m, s, x, y, 0, q, roots, n);
  for (size_t p = 1; p < m; p++)
    for (size_t q = 0; q < s; q++) butterfly(r, sign, true, m, s, x, y, p, q, roots, n);
}

#define PASS(name, R)                                                                                          \
  static void name(const cml_fourier *f, size_t m, size_t s, const real *restrict x, real *restrict y) { \
    if (f->sign < 0) pass(R, -1, m, s, f->roots, x, y);                                                        \
    else pass(R, 1, m, s, f->roots, x, y);                                                                     \
  }
PASS(by_two, 2)
PASS(by_three, 3)
PASS(by_four, 4)
PASS(by_five, 5)
PASS(by_eight, 8)

/* An odd radix, as it is defined: sums of those that mirror each other times cosines, differences times sines. */
static void by_any(const cml_fourier *f, size_t r, const real *units, size_t m, size_t s, const real *restrict x, real *restrict y) {
  const real *roots = f->roots;
  number sum[CML_FOURIER_RADIX / 2 + 1], gap[CML_FOURIER_RADIX / 2 + 1];
  for (size_t p = 0; p < m; p++)
    for (size_t q = 0; q < s; q++) {
      const size_t to = q + s * r * p;
      number first = get(x, q + s * p), all = first;
      for (size_t j = 1; 2 * j < r; j++) {
        number a = get(x, q + s * (p + m * j)), b = get(x, q + s * (p + m * (r - j)));
        sum[j] = plus(a, b);
        gap[j] = minus(a, b);
        all = plus(all, sum[j]);
      }
      put(y, to, all);
      for (size_t k = 1; 2 * k < r; k++) {
        number a = first, b = {{0}, {0}};
        for (size_t j = 1, u = k; 2 * j < r; j++, u = u + k < r ? u + k : u + k - r) {
          a = plus(a, scaled(sum[j], units[u]));
          b = plus(b, scaled(gap[j], units[r + u]));
        }
        number side = quarter(b, 1), front = plus(a, side), back = minus(a, side);
        put(y, to + k * s, turned(front, roots[k * p * s], roots[f->n + k * p * s]));
        put(y, to + (r - k) * s, turned(back, roots[(r - k) * p * s], roots[f->n + (r - k) * p * s]));
      }
    }
}

static void *lanes(const cml_fourier *f, void *from, void *to) {
  const real *units = f->units;
  real *x = from, *y = to;
  for (size_t i = 0, s = 1, m = f->n; i < f->passes; i++) {
    const size_t r = f->radix[i];
    m /= r;
    switch (r) {
      case 2: by_two(f, m, s, x, y); break;
      case 3: by_three(f, m, s, x, y); break;
      case 4: by_four(f, m, s, x, y); break;
      case 5: by_five(f, m, s, x, y); break;
      case 8: by_eight(f, m, s, x, y); break;
      default: by_any(f, r, units, m, s, x, y); units += 2 * r;
    }
    s *= r;
    real *done = y;
    y = x;
    x = done;
  }
  return x;
}

/* ---- exponentials ---- */

enum { H = W / 2 };
typedef double angles __attribute__((vector_size(H * 8)));
typedef int64_t masks __attribute__((vector_size(H * 8)));
typedef double angles_any __attribute__((vector_size(H * 8), aligned(8), may_alias));
VINLINE angles pick(masks mask, angles a, angles b) { return (angles)((mask & (masks)a) | (~mask & (masks)b)); }

/* The angle in quarters of a turn, from which the nearest whole one is taken: of what is left, at most an eighth of a turn, Taylor's series. */
VINLINE void some_roots(double n, double sign, const double *k, double *re, double *im) {
  const double magic = 0x1.8p52, per_quarter = 4 / n, unit = 1.57079632679489661923 / n;
  const angles at = *(const angles_any *)k, q = (at * per_quarter + magic) - magic, x = (4 * at - q * n) * unit, z = x * x;
  const angles s = x * (1 + z * (-1. / 6 + z * (1. / 120 + z * (-1. / 5040 + z * (1. / 362880 + z * (-1. / 39916800 + z * (1. / 6227020800 - z * (1. / 1307674368000))))))));
  const angles c = 1 + z * (-1. / 2 + z * (1. / 24 + z * (-1. / 720 + z * (1. / 40320 + z * (-1. / 3628800 + z * (1. / 479001600 + z * (-1. / 87178291200 + z * (1. / 20922789888000))))))));
  const masks odd = (q == 1) | (q == 3), left = (q == 1) | (q == 2), below = (q == 2) | (q == 3);
  const angles side = pick(odd, s, c), up = pick(odd, c, s) * sign;
  *(angles_any *)re = pick(left, -side, side);
  *(angles_any *)im = pick(below, -up, up);
}

static void roots(double n, double sign, size_t count, const double *k, void *to_re, void *to_im) {
  real *restrict re = to_re, *restrict im = to_im;
  for (size_t i = 0; i < count; i += H) {
    double some[H] = {0}, cosines[H], sines[H];
    const size_t m = count - i < H ? count - i : H;
    if (m < H) memcpy(some, k + i, m * sizeof *some);
    some_roots(n, sign, m == H ? k + i : some, cosines, sines);
    if (m == H) {
      for (size_t j = 0; j < H; j++) re[i + j] = (real)cosines[j], im[i + j] = (real)sines[j];
    } else {
      for (size_t j = 0; j < m; j++) re[i + j] = (real)cosines[j], im[i + j] = (real)sines[j];
    }
  }
}

/* exp(sign 2 pi i row (column + j) / n) for lanes j and rows of a block from `row` on: what the first of these has times what its row among
 * them has in `fine`, in doubles. */
typedef struct tile {
  real re[L], im[L];
} tile;

VINLINE void coarse_roots(double n, double sign, size_t row, size_t column, double *re, double *im) {
  double k[W];
  for (size_t j = 0; j < W; j++) k[j] = (double)(int64_t)(row * (column + j));
  for (size_t j = 0; j < L; j += H) some_roots(n, sign, k + j, re + j, im + j);
}

static void fine_roots(double n, double sign, size_t column, double *fine) {
  for (size_t i = 0; i < L; i++) coarse_roots(n, sign, i, column, fine + 2 * L * i, fine + 2 * L * i + L);
}

static void turns_of(double n, double sign, size_t row, size_t column, const double *restrict fine, tile *restrict to) {
  double re[W], im[W];
  coarse_roots(n, sign, row, column, re, im);
  for (size_t i = 0; i < L; i++)
    for (size_t j = 0; j < L; j++) {
      const double a = fine[2 * L * i + j], b = fine[2 * L * i + L + j];
      to[i].re[j] = (real)(re[j] * a - im[j] * b);
      to[i].im[j] = (real)(re[j] * b + im[j] * a);
    }
}

/* Each block's first row lies at most n apart, so that products above stay whole. */
static void turn(double n, double sign, size_t rows, size_t column, void *numbers) {
  double fine[2 * L * L] __attribute__((aligned(64)));
  tile w[L] __attribute__((aligned(64)));
  real *x = numbers;
  fine_roots(n, sign, column, fine);
  for (size_t row = 0; row < rows; row += L) {
    turns_of(n, sign, row, column, fine, w);
    for (size_t i = 0; i < L && row + i < rows; i++) put(x, row + i, times(get(x, row + i), (number){load(w[i].re), load(w[i].im)}));
  }
}

/* ---- lines by themselves ---- */

static void spread(const cml_fourier_line *l, const void *from, void *to) {
  const real *re = from, *im = re + l->im;
  real *y = to;
  for (size_t r = 0; r < l->rows; r++) put(y, r, (number){load(re + r * l->columns), load(im + r * l->columns)});
}

static void begin_line(cml_fourier_line *l, void *to) {
  const double n = (double)(l->rows * l->columns);
  double *fine = to;
  fine_roots(n, l->across.sign, 0, fine);
  turns_of(n, l->across.sign, 0, 0, fine, (tile *)(void *)(fine + 2 * L * L));
  l->turns = to;
}

/* Blocks of L rows at a time. */
static void across(const cml_fourier_line *l, const void *from, void *to) {
  const double n = (double)(l->rows * l->columns), *fine = l->turns;
  const tile *first = (const tile *)(const void *)(fine + 2 * L * L);
  real a[2 * L * L] __attribute__((aligned(64))), b[2 * L * L] __attribute__((aligned(64)));
  tile later[L] __attribute__((aligned(64)));
  const real *x = from;
  real *re = to, *im = re + l->im;
  for (size_t row = 0; row < l->rows; row += L) {
    const size_t some = l->rows - row < L ? l->rows - row : L;
    const tile *w = row ? later : first;
    vec tile_re[L], tile_im[L];
    if (row) turns_of(n, l->across.sign, row, 0, fine, later);
    for (size_t i = 0; i < L; i++) {
      number v = {{0}, {0}};
      if (i < some) v = times(get(x, row + i), (number){load(w[i].re), load(w[i].im)});
      tile_re[i] = v.re;
      tile_im[i] = v.im;
    }
    turn_block(tile_re);
    turn_block(tile_im);
    for (size_t j = 0; j < L; j++) put(a, j, (number){tile_re[j], tile_im[j]});
    const real *y = lanes(&l->across, a, b);
    for (size_t j = 0; j < l->columns; j++) {
      number v = get(y, j);
      store_some(re + row + j * l->rows, v.re, some);
      store_some(im + row + j * l->rows, v.im, some);
    }
  }
}

/* ---- reals ---- */

/* What numbers k and m - k add up to of two transforms in one, of the even (as real parts) and the odd reals, w being the k-th root of 2 m:
 * with e = a + conj(b) and o = a - conj(b), forward (e - i w o) / 2 and its like, back e + i w o. */
VINLINE void untie(number *a, number *b, number w, const int sign) {
  number e = {a->re + b->re, a->im - b->im}, o = {a->re - b->re, a->im + b->im}, t = times(quarter(w, sign), o);
  *a = plus(e, t);
  *b = (number){e.re - t.re, t.im - e.im};
  if (sign < 0) *a = scaled(*a, (real)0.5), *b = scaled(*b, (real)0.5);
}

/* roots: m / 2 + 1 real parts, then the imaginary ones. */
VINLINE void lane_reals_of(size_t m, const int sign, const real *roots, real *x) {
  number a = get(x, 0), b = sign < 0 ? a : get(x, m);
  if (sign < 0) {
    put(x, 0, (number){a.re + a.im, {0}});
    put(x, m, (number){a.re - a.im, {0}});
  } else {
    put(x, 0, (number){a.re + b.re, a.re - b.re});
  }
  for (size_t k = 1; 2 * k <= m; k++) {
    const number w = {roots[k] - (vec){0}, roots[m / 2 + 1 + k] - (vec){0}};
    a = get(x, k), b = get(x, m - k);
    untie(&a, &b, w, sign);
    put(x, m - k, b);
    put(x, k, a);
  }
}
static void lane_reals(size_t m, double sign, const void *turns, void *x) {
  if (sign < 0) lane_reals_of(m, -1, turns, x);
  else lane_reals_of(m, 1, turns, x);
}

VINLINE number one(const real *x, size_t k, size_t im) { return (number){x[k] - (vec){0}, x[im + k] - (vec){0}}; }

/* Vectors from both ends, one by one what is left in the middle. */
VINLINE void line_reals_of(size_t m, size_t im, const int sign, const real *roots, const real *restrict x, real *restrict y) {
  const size_t half = m / 2 + 1;
  size_t k = 1;
  y[0] = x[0] + (sign < 0 ? x[im] : x[m]);
  y[im] = sign < 0 ? 0 : x[0] - x[m];
  if (sign < 0) y[m] = x[0] - x[im], y[im + m] = 0;
  for (; 2 * (k + L) <= m + 1; k += L) {
    const size_t j = m - k - L + 1;
    number w = {load(roots + k), load(roots + half + k)}, a = {load(x + k), load(x + im + k)}, b = {reversed(load(x + j)), reversed(load(x + im + j))};
    untie(&a, &b, w, sign);
    store(y + k, a.re);
    store(y + im + k, a.im);
    store(y + j, reversed(b.re));
    store(y + im + j, reversed(b.im));
  }
  for (; 2 * k <= m; k++) {
    number w = one(roots, k, half), a = one(x, k, im), b = one(x, m - k, im);
    untie(&a, &b, w, sign);
    y[m - k] = b.re[0];
    y[im + m - k] = b.im[0];
    y[k] = a.re[0];
    y[im + k] = a.im[0];
  }
}
static void line_reals(size_t m, size_t im, double sign, const void *turns, const void *x, void *y) {
  if (sign < 0) line_reals_of(m, im, -1, turns, x, y);
  else line_reals_of(m, im, 1, turns, x, y);
}

static void mirror_lanes(size_t n, void *to) {
  real *x = to;
  store(x + L, (vec){0});
  for (size_t i = n / 2 + 1; i < n; i++) put(x, i, (number){load(x + 2 * L * (n - i)), -load(x + 2 * L * (n - i) + L)});
}

static void mirror_line(size_t n, size_t im, void *line) {
  real *re = line, *side = re + im;
  side[0] = 0;
  for (size_t i = n / 2 + 1; i < n; i++) re[i] = re[n - i], side[i] = -side[n - i];
}

/* ---- numbers in memory ---- */

static void part(size_t rows, size_t n, const void *pairs, size_t stride, void *to, size_t im, size_t to_stride) {
  for (size_t r = 0; r < rows; r++) {
    const real *x = (const real *)pairs + r * stride;
    real *re = (real *)to + r * to_stride, *side = re + im;
    size_t i = 0;
    for (; i + L <= n; i += L) {
      vec a = load(x + 2 * i), b = load(x + 2 * i + L);
      store(re + i, PICK(a, b, EVEN));
      store(side + i, PICK(a, b, ODD));
    }
    for (; i < n; i++) re[i] = x[2 * i], side[i] = x[2 * i + 1];
  }
}

static void join(size_t rows, size_t n, const void *from, size_t im, size_t from_stride, void *pairs, size_t stride) {
  for (size_t r = 0; r < rows; r++) {
    const real *re = (const real *)from + r * from_stride, *side = re + im;
    real *y = (real *)pairs + r * stride;
    size_t i = 0;
    for (; i + L <= n; i += L) {
      vec a = load(re + i), b = load(side + i);
      store(y + 2 * i, PICK(a, b, LOW));
      store(y + 2 * i + L, PICK(a, b, HIGH));
    }
    for (; i < n; i++) y[2 * i] = re[i], y[2 * i + 1] = side[i];
  }
}

static void scale(size_t n, double by, void *x) {
  real *y = x;
  for (size_t i = 0; i < n; i++) y[i] *= (real)by;
}

static void products(size_t n, const void *a_re, const void *a_im, const void *b_re, const void *b_im, bool adds, void *to_re, void *to_im) {
  const real *p = a_re, *q = a_im, *r = b_re, *s = b_im;
  real *re = to_re, *im = to_im;
  size_t i = 0;
  for (; i + L <= n; i += L) {
    number v = times((number){load(p + i), load(q + i)}, (number){load(r + i), load(s + i)});
    if (adds) v = plus(v, (number){load(re + i), load(im + i)});
    store(re + i, v.re);
    store(im + i, v.im);
  }
  for (; i < n; i++) {
    const real x = p[i] * r[i] - q[i] * s[i], y = p[i] * s[i] + q[i] * r[i];
    re[i] = adds ? re[i] + x : x;
    im[i] = adds ? im[i] + y : y;
  }
}

static const cml_fourier_kernels table = {L, sizeof(real), 4 * L * L * sizeof(double), lanes, roots, turn, begin_line, spread, across, lane_reals, line_reals, mirror_lanes, mirror_line, part, join, scale, products};

#ifdef CML_DOUBLES
void CML_SIMD(cml_fill_fourier64)(cml_kernels *k) { k->fourier64 = &table; }
#else
void CML_SIMD(cml_fill_fourier)(cml_kernels *k) { k->fourier = &table; }
#endif
