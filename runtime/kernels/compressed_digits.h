/* What all files of compressed products in fixed point share: vectors become whole numbers of 24 bits, x = q * 2^e with one e. */
#ifndef CML_COMPRESSED_DIGITS_H
#define CML_COMPRESSED_DIGITS_H

#include <math.h>

#include "kernels_internal.h"
#include "simd.h"

enum { AHEAD = 8192 }; /* bytes from what is read to what is asked for, of all rows that are read at once */
enum { NEAR = 512 };   /* to what should be in the first-level cache by now */
enum { HEAD = 16 };    /* floats */

/* Into the second-level cache: the first one holds tables. */
VINLINE void ask(const uint8_t *p) {
  _mm_prefetch((const char *)p, _MM_HINT_T1);
  __asm__ volatile(""); /* where it stands: compilers gather them, and bursts wait for one another */
}

/* The power of two that brings numbers up to `largest` into so many digits to the base of 256. */
VINLINE int digits_exponent(double largest, int digits) {
  int e = 0;
  if (largest > 0) (void)frexp(largest * (1 + 0x1p-7), &e);
  return largest > 0 ? 8 * digits - 1 - e : 0;
}

/* Whether `depth` elements, by the sum of their sizes and the largest of these, may become such numbers. The mean size without the largest
 * element bounds what its last digit may be: errors of half a digit grow with the root of the depth, the sum of sizes with the depth. All
 * this is false where there is a NaN or an infinity. */
VINLINE bool digits_suffice(double total, double largest, double depth) {
  return total <= 1e37 && largest * depth <= fmin(256, 4 * sqrt(depth)) * (total - largest);
}

/* For cml_kernels.compressed_depth: parts of 1024 elements or so, at least two and at most eight. */
VINLINE size_t part_depth(size_t depth) {
  enum { PART = 1024, MOST = 8, UNIT = 128 };
  size_t parts = depth / PART < 2 ? 2 : depth / PART < MOST ? depth / PART : MOST;
  return depth > UNIT ? (depth / parts + UNIT - 1) / UNIT * UNIT : depth;
}

VINLINE vf load_elements(const float *x, size_t at, size_t n) {
  return at + W <= n ? vf_load(x + at) : at < n ? vf_load_n(x + at, n - at) : vf_zero();
}

/* Whether two digits do in place of three for numbers of float16 programs. Numbers err by at most half of what the last digit counts, and float16's
 * within a factor of 16 of the largest one not at all. An error of 2^-14 of the mean size of the numbers (without the largest: what it is multiplied
 * with may be zero), is one of 84 dB below a sum of many products, where rounding that sum to float16 is one of 74 dB. added: what
 * errors add up to may not be more, either, as they are multiplied with weights that may have one sign. */
VINLINE bool two_digits_err_little(const float *x, size_t n, double largest, const bool added) {
  const int e = digits_exponent(largest, 2);
  const float first = ldexpf(1, e / 2), second = ldexpf(1, e - e / 2); /* 2^e may be too large for a float */
  vf errors = vf_zero(), sum = vf_zero(), sizes = vf_zero();
  for (size_t i = 0; i < n; i += W) {
    vf v = load_elements(x, i, n) * first * second, error = v - vf_round(v);
    errors = vf_fma(error, error, errors), sum += error, sizes += vf_abs(v);
  }
  double mean = ((double)vf_sum(sizes) - ldexp(largest, e)) / (double)n;
  const double all = added ? (double)vf_sum(sum) : 0, most = 0x1p-28 * mean * mean * (double)n;
  return (double)vf_sum(errors) <= most && all * all <= most;
}

VINLINE bool two_digits_suffice(const float *x, size_t n, double largest) { return two_digits_err_little(x, n, largest, false); }

/* The next W scales from number `at`, of a row that has `left` of them. */
VINLINE vf load_scales(const void *s, bool half, size_t at, size_t left) {
  if (half) return left >= W ? vh_load((const cml_f16 *)s + at) : vh_load_n((const cml_f16 *)s + at, left);
  return left >= W ? vf_load((const float *)s + at) : vf_load_n((const float *)s + at, left);
}

#endif
