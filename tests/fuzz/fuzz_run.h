/* What the model fuzzer's two halves share: running (fuzz_run.c) and changing programs (fuzz_run_mutate.c). */
#ifndef FUZZ_RUN_H
#define FUZZ_RUN_H

#include <stddef.h>
#include <stdint.h>

enum { KEPT_PROGRAMS = 512 };

/* Programs that ran, the last of them: changes of one that does not load seldom give one that does. */
typedef struct ran {
  uint8_t *data;
  size_t size;
} ran;
extern ran programs_that_ran[KEPT_PROGRAMS];
extern uint32_t programs_that_ran_count; /* in all */

typedef struct dice {
  uint64_t state;
} dice;

static inline uint32_t roll(dice *d, uint32_t sides) {
  d->state = d->state * 6364136223846793005u + 1442695040888963407u;
  return sides ? (uint32_t)((d->state >> 33) % sides) : 0;
}

#endif
