/* What the model fuzzer's two halves share: running (fuzz_run.c) and changing programs (fuzz_run_mutate.c). */
#ifndef FUZZ_RUN_H
#define FUZZ_RUN_H

#include <stdint.h>

typedef struct dice {
  uint64_t state;
} dice;

static inline uint32_t roll(dice *d, uint32_t sides) {
  d->state = d->state * 6364136223846793005u + 1442695040888963407u;
  return sides ? (uint32_t)((d->state >> 33) % sides) : 0;
}

#endif
