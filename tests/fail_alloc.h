/* Makes chosen allocations fail, and counts what is never freed: include it in one file of a test program.
 *
 * It defines malloc and its kin for the whole process on top of glibc's own, so that allocations inside libraries
 * (jansson, protobuf-c, opendir, qsort) fail too. A sanitizer has its own malloc: there the linker sends the calls of libcml
 * and of the test here (FAIL_ALLOC_WRAP, which tests/meson.build defines), libraries are spared, and what is never freed is for
 * LeakSanitizer to tell. mmap64 goes through the linker in both, because glibc's own maps are not meant. */
#ifndef CML_FAIL_ALLOC_H
#define CML_FAIL_ALLOC_H

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "test.h"

#ifdef __GLIBC__
#define FAIL_ALLOC_WORKS 1
#else
#define FAIL_ALLOC_WORKS 0
#endif

static atomic_long fail_alloc_left; /* the allocation that makes this 0 fails; below: none does */
static atomic_long fail_alloc_live; /* allocations not yet freed */
static atomic_bool fail_alloc_did;

#if FAIL_ALLOC_WORKS
/* libarchive 3.6 follows null pointers, or ends the process, when memory runs out: its own calls are spared. */
static bool fail_alloc_spared(void) {
  void *frames[24];
  Dl_info where;
  for (int i = 0, n = backtrace(frames, 24); i < n; i++)
    if (dladdr(frames[i], &where) && where.dli_fname && strstr(where.dli_fname, "libarchive")) return true;
  return false;
}

static bool fail_alloc_now(void) {
  if (atomic_load(&fail_alloc_left) <= 0 || atomic_fetch_sub(&fail_alloc_left, 1) != 1) return false;
  atomic_store(&fail_alloc_did, true);
  if (fail_alloc_spared()) return false;
  errno = ENOMEM;
  return true;
}

extern void *__real_mmap64(void *, size_t, int, int, int, off_t);
void *__wrap_mmap64(void *, size_t, int, int, int, off_t);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  return fail_alloc_now() ? MAP_FAILED : __real_mmap64(at, size, protection, flags, fd, offset);
}

#ifdef FAIL_ALLOC_WRAP
extern void *__real_malloc(size_t);
extern void *__real_calloc(size_t, size_t);
extern void *__real_realloc(void *, size_t);
extern void *__real_aligned_alloc(size_t, size_t);
extern int __real_posix_memalign(void **, size_t, size_t);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
void *__wrap_aligned_alloc(size_t, size_t);
int __wrap_posix_memalign(void **, size_t, size_t);
void *__wrap_malloc(size_t size) { return fail_alloc_now() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return fail_alloc_now() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return fail_alloc_now() ? NULL : __real_realloc(p, size); }
void *__wrap_aligned_alloc(size_t a, size_t size) { return fail_alloc_now() ? NULL : __real_aligned_alloc(a, size); }
int __wrap_posix_memalign(void **out, size_t a, size_t size) { return fail_alloc_now() ? ENOMEM : __real_posix_memalign(out, a, size); }
#else
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void *fail_alloc_count(void *p) {
  if (p) atomic_fetch_add(&fail_alloc_live, 1);
  return p;
}

#define FAIL_ALLOC_PUBLIC __attribute__((visibility("default")))
FAIL_ALLOC_PUBLIC void *malloc(size_t size) { return fail_alloc_now() ? NULL : fail_alloc_count(__libc_malloc(size)); }
FAIL_ALLOC_PUBLIC void *calloc(size_t n, size_t size) { return fail_alloc_now() ? NULL : fail_alloc_count(__libc_calloc(n, size)); }
FAIL_ALLOC_PUBLIC void *aligned_alloc(size_t a, size_t size) {
  return fail_alloc_now() ? NULL : fail_alloc_count(__libc_memalign(a, size));
}
FAIL_ALLOC_PUBLIC int posix_memalign(void **out, size_t a, size_t size) {
  void *p = aligned_alloc(a, size);
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}
FAIL_ALLOC_PUBLIC void free(void *p) {
  if (p) atomic_fetch_sub(&fail_alloc_live, 1);
  __libc_free(p);
}
FAIL_ALLOC_PUBLIC void *realloc(void *p, size_t size) {
  if (fail_alloc_now()) return NULL;
  if (!p) return fail_alloc_count(__libc_realloc(p, size));
  if (!size) atomic_fetch_sub(&fail_alloc_live, 1);
  return __libc_realloc(p, size);
}
#endif
#endif

/* The n-th allocation from now on, counted from 1, fails. */
static inline void fail_alloc_start(long n) {
  atomic_store(&fail_alloc_did, false);
  atomic_store(&fail_alloc_left, n);
}

/* What stands between these two is the test's own, and does not fail. */
static long fail_alloc_paused;
static inline void fail_alloc_pause(void) { fail_alloc_paused = atomic_exchange(&fail_alloc_left, 0); }
static inline void fail_alloc_resume(void) { atomic_store(&fail_alloc_left, fail_alloc_paused); }

/* True when it came to that. */
static inline bool fail_alloc_stop(void) {
  atomic_store(&fail_alloc_left, 0);
  return atomic_load(&fail_alloc_did);
}

/* Runs `run` again and again with the first, second, ... allocation failing, until none fails. Each time it must free
 * all that it allocated, and give CML_NO_MEMORY, or CML_OK where it can do without; at last CML_OK. Returns the number of
 * allocations seen. `run` must clean up behind itself. */
static inline long fail_alloc_each(cml_status (*run)(void *context, cml_error *err), void *context) {
  cml_error err;
  assert_int_equal(run(context, &err), CML_OK); /* what is loaded once and kept is loaded now */
#if FAIL_ALLOC_WORKS
  (void)fail_alloc_spared(); /* backtrace loads a library */
#else
  return 0;
#endif
  for (long n = 1;; n++) {
    memset(&err, 0, sizeof err);
    long before = atomic_load(&fail_alloc_live);
    fail_alloc_start(n);
    cml_status status = run(context, &err);
    bool failed = fail_alloc_stop();
    long after = atomic_load(&fail_alloc_live);
    if (after != before) fail_msg("with allocation %ld failing, %ld allocations are not freed", n, after - before);
    if (status != CML_OK && (!failed || status != CML_NO_MEMORY))
      fail_msg("with allocation %ld failing: %s (%s)", n, cml_status_name(status), err.text);
    if (!failed) return n - 1;
  }
}

#endif
