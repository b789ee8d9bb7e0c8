/* Memory that ends where the process may not read: a kernel that goes one element too far dies. */
#ifndef CML_GUARDED_H
#define CML_GUARDED_H

#include <sys/mman.h>

#include "test.h"

enum { GUARDED = 1 << 22, BUFFERS = 7 };
static char *guarded[BUFFERS];

static void guard_buffers(void) {
  for (int i = 0; i < BUFFERS; i++) {
    guarded[i] = mmap(NULL, GUARDED + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(guarded[i] != MAP_FAILED);
    assert_int_equal(mprotect(guarded[i] + GUARDED, 4096, PROT_NONE), 0);
  }
}
static void *at_end(int buffer, size_t bytes) {
  assert_true(bytes <= GUARDED);
  return guarded[buffer] + GUARDED - bytes;
}

#endif
