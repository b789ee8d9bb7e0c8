/* Arithmetic on sizes from untrusted files: true when the result fits, false (and *out untouched) when not. */
#ifndef CML_CHECKED_H
#define CML_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool cml_add(uint64_t a, uint64_t b, uint64_t *out) {
  uint64_t r;
  if (__builtin_add_overflow(a, b, &r)) return false;
  *out = r;
  return true;
}

static inline bool cml_mul(uint64_t a, uint64_t b, uint64_t *out) {
  uint64_t r;
  if (__builtin_mul_overflow(a, b, &r)) return false;
  *out = r;
  return true;
}

static inline bool cml_is_power_of_two(uint64_t x) { return x && !(x & (x - 1)); }

/* Rounds up to a power of two. */
static inline bool cml_align(uint64_t x, uint64_t alignment, uint64_t *out) {
  uint64_t r;
  if (!cml_add(x, alignment - 1, &r)) return false;
  *out = r & ~(alignment - 1);
  return true;
}

#endif
