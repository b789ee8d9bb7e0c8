/* Kernels of Fourier transforms, y[k] = sum over j of x[j] exp(sign 2 pi i j k / n), in floats or in doubles (below: reals).
 *
 * Numbers lie in one of two ways:
 *   in lanes  [n][2][lanes] reals: number i of as many lines as a vector has reals, real parts before imaginary ones
 *   in a line [2][im] reals: real parts, and `im` behind them the imaginary ones */
#ifndef CML_FOURIER_H
#define CML_FOURIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CML_FOURIER_RADIX = 100 /* the largest prime factor, at most */ };

/* By passes of one radix each, whose product is n: 2, 3, 4, 5, 8 or an odd prime. */
typedef struct cml_fourier {
  size_t n, passes;
  uint8_t radix[64];
  double sign;       /* 1 or -1 */
  const void *roots; /* exp(sign 2 pi i p / n): n real parts, then the imaginary ones */
  const void *units; /* for each pass with a radix r of CML_FOURIER_TABLE: exp(sign 2 pi i p / r) in the same way */
} cml_fourier;
#define CML_FOURIER_TABLE(r) ((r) == 7 || (r) > 8)

/* A line as a matrix of rows * columns numbers. */
typedef struct cml_fourier_line {
  size_t rows, columns; /* at most `lanes` columns */
  size_t im;            /* of the line: at least rows * columns */
  cml_fourier down, across; /* of rows numbers, of columns numbers */
  const void *turns;    /* begin_line's */
} cml_fourier_line;

typedef struct cml_fourier_kernels {
  size_t lanes, width; /* reals in a vector; bytes of one */
  size_t turns;        /* bytes that begin_line takes */
  /* Of lines in lanes in x, with room for as many in y; x or y, where the results are, is returned. */
  void *(*run)(const cml_fourier *f, void *x, void *y);
  /* exp(sign 2 pi i k / n) for count whole k of 0 to n. */
  void (*roots)(double n, double sign, size_t count, const double *k, void *re, void *im);
  /* Numbers in lanes times exp(sign 2 pi i row (column + lane) / n). */
  void (*turn)(double n, double sign, size_t rows, size_t column, void *x);
  /* Prepares `across`, in memory of the caller's. */
  void (*begin_line)(cml_fourier_line *l, void *turns);
  /* A line into lanes, a row into the numbers of one place; reads up to `lanes` reals more behind its parts. Then `run` down, and: */
  void (*spread)(const cml_fourier_line *l, const void *line, void *x);
  /* what that gave turned and transformed across, into a line. */
  void (*across)(const cml_fourier_line *l, const void *x, void *line);
  /* Numbers 0 to m of the spectrum of 2 m reals out of the transform of m numbers, of which each holds two reals; or, for a sign of 1, back
   * (twice them, where imaginary parts of numbers 0 and m do not count). turns: exp(sign pi i k / m), m / 2 + 1 real parts, then the imaginary ones. */
  void (*lane_reals)(size_t m, double sign, const void *turns, void *x);
  void (*line_reals)(size_t m, size_t im, double sign, const void *turns, const void *x, void *y);
  /* A spectrum of n reals (n odd) out of its first half: the others are their conjugates, mirrored, and number 0 is real. */
  void (*mirror_lanes)(size_t n, void *x);
  void (*mirror_line)(size_t n, size_t im, void *line);
  /* Rows of n pairs of reals, `stride` reals apart, into parts that lie `im` apart, the rows `to_stride`; and back. */
  void (*part)(size_t rows, size_t n, const void *pairs, size_t stride, void *to, size_t im, size_t to_stride);
  void (*join)(size_t rows, size_t n, const void *from, size_t im, size_t from_stride, void *pairs, size_t stride);
  void (*scale)(size_t n, double by, void *x); /* n reals */
  /* y = a b, or y + a b where it adds; y may be one of them. */
  void (*products)(size_t n, const void *a_re, const void *a_im, const void *b_re, const void *b_im, bool adds, void *y_re, void *y_im);
} cml_fourier_kernels;

#endif
