/* The same numbers in every run: xorshift. */
#ifndef CML_RANDOM_NUMBERS_H
#define CML_RANDOM_NUMBERS_H

#include <stdint.h>

static uint64_t seed = 88172645463325252u;

static inline uint32_t rnd(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (uint32_t)(seed >> 32);
}
static inline int64_t between(int64_t low, int64_t high) { return low + rnd() % (uint32_t)(high - low + 1); }
static inline float uniform(void) { return (float)rnd() * 0x1p-31f - 1.0f; } /* [-1, 1) */

#endif
