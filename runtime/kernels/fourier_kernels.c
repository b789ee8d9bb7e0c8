/* Fourier transforms, compiled once for each instruction set; see kernels.h.
 *
 * Stockham's passes: each cuts lines of r m numbers into r of m, by r-point transforms of numbers that lie m apart, and puts results
 * next to each other, so that nothing is left to be sorted. Before a pass s = n / (r m) lines lie number by number side by side: vectors
 * go over these, in the first pass, where there is one line, over its numbers. Parts lie apart between passes, in pairs before and after all. */
#include "kernels_internal.h"
#include "simd.h"



typedef struct number {
  double re, im;
} number;

VINLINE number plus(number a, number b) { return (number){a.re + b.re, a.im + b.im}; }
VINLINE number minus(number a, number b) { return (number){a.re - b.re, a.im - b.im}; }
VINLINE number times(number a, number b) { return (number){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
VINLINE number get(const double *x, size_t n, size_t i, bool pairs) { return pairs ? (number){x[2 * i], x[2 * i + 1]} : (number){x[i], x[n + i]}; }
VINLINE void put(double *y, size_t n, size_t i, bool pairs, number v) {
  y[pairs ? 2 * i : i] = v.re;
  y[pairs ? 2 * i + 1 : n + i] = v.im;
}

typedef struct quad {
  number v[4];
} quad;

VINLINE quad four_points(number a, number b, number c, number d, double sign) {
  number e = plus(a, c), g = minus(a, c), h = plus(b, d), i = minus(b, d), side = {-sign * i.im, sign * i.re};
  return (quad){{plus(e, h), plus(g, side), minus(e, h), minus(g, side)}};
}

/* Three and five points: sums and differences of those that mirror each other, times cosines and sines. */
VINLINE void three_points(const number *in, double sign, number *out) {
  const double sine = sign * 0.86602540378443864676;
  number sum = plus(in[1], in[2]), gap = minus(in[1], in[2]), middle = {in[0].re - 0.5 * sum.re, in[0].im - 0.5 * sum.im};
  out[0] = plus(in[0], sum);
  out[1] = (number){middle.re - sine * gap.im, middle.im + sine * gap.re};
  out[2] = (number){middle.re + sine * gap.im, middle.im - sine * gap.re};
}

VINLINE void five_points(const number *in, double sign, number *out) {
  const double c1 = 0.30901699437494742410, c2 = -0.80901699437494742410, s1 = sign * 0.95105651629515357212, s2 = sign * 0.58778525229247312917;
  number near = plus(in[1], in[4]), far = plus(in[2], in[3]), near_gap = minus(in[1], in[4]), far_gap = minus(in[2], in[3]);
  number a = {in[0].re + c1 * near.re + c2 * far.re, in[0].im + c1 * near.im + c2 * far.im}, b = {s1 * near_gap.re + s2 * far_gap.re, s1 * near_gap.im + s2 * far_gap.im};
  number c = {in[0].re + c2 * near.re + c1 * far.re, in[0].im + c2 * near.im + c1 * far.im}, d = {s2 * near_gap.re - s1 * far_gap.re, s2 * near_gap.im - s1 * far_gap.im};
  out[0] = plus(in[0], plus(near, far));
  out[1] = (number){a.re - b.im, a.im + b.re};
  out[4] = (number){a.re + b.im, a.im - b.re};
  out[2] = (number){c.re - d.im, c.im + d.re};
  out[3] = (number){c.re + d.im, c.im - d.re};
}

/* Number q of line p of those that lie s apart, by radix 8, 5, 4, 3 or 2, results times w. */
VINLINE void butterfly(size_t r, size_t n, size_t m, size_t s, double sign, const double *restrict x, double *restrict y, bool in_pairs, bool out_pairs, size_t p,
                       size_t q, const number *w) {
  const size_t at = q + s * p, to = q + r * s * p, far = s * m;
  number out[8];
  if (r == 2) {
    number a = get(x, n, at, in_pairs), b = get(x, n, at + far, in_pairs);
    out[0] = plus(a, b);
    out[1] = minus(a, b);
  } else if (r == 4) {
    quad all = four_points(get(x, n, at, in_pairs), get(x, n, at + far, in_pairs), get(x, n, at + 2 * far, in_pairs), get(x, n, at + 3 * far, in_pairs), sign);
    for (size_t k = 0; k < 4; k++) out[k] = all.v[k];
  } else if (r == 3 || r == 5) {
    number in[5];
    for (size_t k = 0; k < r; k++) in[k] = get(x, n, at + k * far, in_pairs);
    if (r == 3) three_points(in, sign, out);
    else five_points(in, sign, out);
  } else {
    const double root = 0.70710678118654752440;
    quad even = four_points(get(x, n, at, in_pairs), get(x, n, at + 2 * far, in_pairs), get(x, n, at + 4 * far, in_pairs), get(x, n, at + 6 * far, in_pairs), sign);
    quad odd = four_points(get(x, n, at + far, in_pairs), get(x, n, at + 3 * far, in_pairs), get(x, n, at + 5 * far, in_pairs), get(x, n, at + 7 * far, in_pairs), sign);
    number turned[4] = {odd.v[0],
                        {root * (odd.v[1].re - sign * odd.v[1].im), root * (odd.v[1].im + sign * odd.v[1].re)},
                        {-sign * odd.v[2].im, sign * odd.v[2].re},
                        {-root * (odd.v[3].re + sign * odd.v[3].im), root * (sign * odd.v[3].re - odd.v[3].im)}};
    for (size_t k = 0; k < 4; k++) out[k] = plus(even.v[k], turned[k]), out[k + 4] = minus(even.v[k], turned[k]);
  }
  put(y, n, to, out_pairs, out[0]);
  for (size_t k = 1; k < r; k++) put(y, n, to + k * s, out_pairs, w ? times(out[k], w[k - 1]) : out[k]);
}

/* first: as in cml_fourier. */
#define FIRST_PASS(name, R)                                                                                                              \
  static void name(size_t n, double sign, const double *restrict first, const double *restrict x, double *restrict y) {                 \
    const size_t m = n / (R);                                                                                                           \
    for (size_t p = 0; p < m; p++) {                                                                                                    \
      number w[(R) - 1];                                                                                                                \
      for (size_t k = 0; k < (R) - 1; k++) w[k] = (number){first[2 * k * m + p], first[(2 * k + 1) * m + p]};                           \
      butterfly(R, n, m, 1, sign, x, y, true, false, p, 0, w);                                                                          \
    }                                                                                                                                   \
  }

/* roots: pairs, of which `step` times k p belongs to result k of line p. S: s where it is known. */
#define PASS(name, R, S)                                                                                                                \
  static void name(size_t n, size_t m, size_t any, double sign, const double *restrict roots, size_t step, const double *restrict x,    \
                   double *restrict y) {                                                                                                \
    const size_t s = (S) ? (S) : any;                                                                                                   \
    for (size_t p = 0; p < m; p++) {                                                                                                    \
      number w[(R) - 1];                                                                                                                \
      for (size_t k = 1; k < (R); k++) w[k - 1] = (number){roots[2 * k * p * step], roots[2 * k * p * step + 1]};                       \
      for (size_t q = 0; q < s; q++) butterfly(R, n, m, s, sign, x, y, false, false, p, q, w);                                          \
    }                                                                                                                                   \
  }

#define LAST_PASS(name, R, IN_PAIRS)                                                                                                    \
  static void name(size_t n, double sign, const double *restrict x, double *restrict y) {                                               \
    for (size_t q = 0; q < n / (R); q++) butterfly(R, n, 1, n / (R), sign, x, y, IN_PAIRS, true, 0, q, NULL);                            \
  }

#define RADIX(word, R)                 \
  FIRST_PASS(first_##word, R)          \
  PASS(middle_##word, R, 0)            \
  PASS(second_##word, R, 8)            \
  LAST_PASS(last_##word, R, false)     \
  LAST_PASS(only_##word, R, true)
RADIX(two, 2)
RADIX(three, 3)
RADIX(four, 4)
RADIX(five, 5)
RADIX(eight, 8)

static const struct passes {
  void (*first)(size_t n, double sign, const double *first, const double *x, double *y);
  void (*middle)(size_t n, size_t m, size_t s, double sign, const double *roots, size_t step, const double *x, double *y);
  void (*second)(size_t n, size_t m, size_t s, double sign, const double *roots, size_t step, const double *x, double *y); /* s of 8 */
  void (*last)(size_t n, double sign, const double *x, double *y);
  void (*only)(size_t n, double sign, const double *x, double *y);
} radices[] = {[2] = {first_two, middle_two, second_two, last_two, only_two},
               [3] = {first_three, middle_three, second_three, last_three, only_three},
               [4] = {first_four, middle_four, second_four, last_four, only_four},
               [5] = {first_five, middle_five, second_five, last_five, only_five},
               [8] = {first_eight, middle_eight, second_eight, last_eight, only_eight}};

/* Any radix, as it is defined: one factor for each pair of a number and a result. */
static void any(const cml_fourier *f, size_t r, const double *units, size_t m, size_t s, const double *restrict x, double *restrict y, bool in_pairs, bool out_pairs) {
  const size_t n = f->n;
  for (size_t p = 0; p < m; p++)
    for (size_t k = 0; k < r; k++) {
      const size_t step = p * k * (s / f->radix[0]);
      number w = {1, 0};
      if (k && m > 1) w = s == 1 ? (number){f->first[(k - 1) * 2 * m + p], f->first[(k - 1) * 2 * m + m + p]} : (number){f->roots[2 * step], f->roots[2 * step + 1]};
      for (size_t j = 0; j < r; j++) {
        const size_t u = j * k % r, from = s * (p + m * j), to = s * (r * p + k);
        number by = times(w, (number){units[2 * u], units[2 * u + 1]});
        if (j == 0) {
          for (size_t q = 0; q < s; q++) put(y, n, to + q, out_pairs, times(get(x, n, from + q, in_pairs), by));
        } else if (out_pairs) {
          for (size_t q = 0; q < s; q++) put(y, n, to + q, true, plus(get(y, n, to + q, true), times(get(x, n, from + q, in_pairs), by)));
        } else {
          for (size_t q = 0; q < s; q++) put(y, n, to + q, false, plus(get(y, n, to + q, false), times(get(x, n, from + q, in_pairs), by)));
        }
      }
    }
}

static void pass(const cml_fourier *f, size_t r, const double *units, size_t m, size_t s, const double *x, double *y) {
  const struct passes *known = &radices[r <= 8 ? r : 0];
  const size_t n = f->n;
  if (!known->only) any(f, r, units, m, s, x, y, s == 1, m == 1);
  else if (s == 1 && m == 1) known->only(n, f->sign, x, y);
  else if (s == 1) known->first(n, f->sign, f->first, x, y);
  else if (m == 1) known->last(n, f->sign, x, y);
  else (s == 8 ? known->second : known->middle)(n, m, s, f->sign, f->roots, s / f->radix[0], x, y);
}

static double *fourier(const cml_fourier *f, double *x, double *y) {
  const double *units = f->units;
  size_t s = 1, m = f->n;
  for (size_t i = 0; i < f->passes; i++) {
    const size_t r = f->radix[i];
    double *to = y;
    m /= r;
    pass(f, r, units, m, s, x, y);
    s *= r;
    if (CML_FOURIER_TABLE(r)) units += 2 * r;
    y = x;
    x = to;
  }
  return x;
}

/* Numbers k and m - k of two transforms in one, of the even (as real parts) and the odd reals: what they add up to. With
 * e = a + conj(b) and o = a - conj(b), forward they are (e - i w o) / 2 and its like, back e + i w o, w being the k-th root. */
static void fourier_reals(size_t m, double sign, const double *restrict roots, const double *restrict from, double *restrict to) {
  const double scale = sign < 0 ? 0.5 : 1;
  for (size_t k = 1; k < m - k; k++) {
    number a = get(from, m, k, true), b = get(from, m, m - k, true), e = {a.re + b.re, a.im - b.im}, o = {a.re - b.re, a.im + b.im},
           t = times((number){-sign * roots[2 * k + 1], sign * roots[2 * k]}, o);
    put(to, m, k, true, (number){(e.re + t.re) * scale, (e.im + t.im) * scale});
    put(to, m, m - k, true, (number){(e.re - t.re) * scale, (t.im - e.im) * scale});
  }
}

void CML_SIMD(cml_fill_fourier)(cml_kernels *k) {
  k->fourier = fourier;
  k->fourier_reals = fourier_reals;
}
