/* A pool in which nobody waits for a thread that has not begun.
 *
 * The caller cuts an operation into one share a thread, publishes it, and works: through its own share first, then through what
 * is left of the others. A worker that is awake in time does the same from its own share on, so that the same rows stay with the
 * same thread, and its cache, from operation to operation. Whoever works claims a piece of a share at a time, half of what is left
 * in it, so that the last pieces are short and all end together. The caller then waits for the pieces that workers did claim,
 * and for nothing else: a worker that the system did not schedule in time finds nothing to do and goes back to sleep. (Pools that
 * pass a barrier with every worker, as pthreadpool's does, made a run 10 to 70 times slower where other processes wanted the cores.)
 *
 * A claim is one compare-and-swap of a share's word {generation of the operation, items left}. It succeeds only while the operation
 * whose fields the worker read has items left, so a late worker can neither run a piece of a later operation with the arguments of
 * an earlier one nor touch what an operation that returned left behind; all it reads before is memory of the pool.
 *
 * Callers on several threads publish in slots of their own, which workers look through; one that finds no slot works alone. */
#include "parallel.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"

enum {
  CACHE_LINE = 64,
  SLOTS = 16,        /* callers served at a time */
  MOST_THREADS = 4096,
  IDLE_SPIN = 200000, /* nanoseconds that a worker stays awake for the next operation; waking it takes tens of microseconds */
  END_SPIN = 50000    /* that a caller does for the last pieces, before it leaves its core to them */
};

typedef void pool_body(void *context, size_t thread, size_t begin, size_t end);

typedef struct watch {
  cml_pool_observe *observe;
  void *context;
} watch;

typedef struct share {
  _Alignas(CACHE_LINE) _Atomic uint64_t left; /* generation << 32 | units that nobody claimed */
} share;

/* An operation. Items are counted in units, one item each unless there are more than 32 bits hold. */
typedef struct slot {
  _Alignas(CACHE_LINE) atomic_bool taken; /* by a caller */
  atomic_bool open;                       /* units may be left to claim */
  _Atomic(pool_body *) body;
  _Atomic(void *) context;
  atomic_size_t count, unit;
  _Atomic uint32_t units, grain, parts; /* parts: shares that hold something, at most one a thread */
  _Atomic uint32_t crew;                  /* threads that may work: those with the lowest numbers */
  uint32_t generation;                             /* of the caller that has taken the slot */
  _Atomic(const watch *) watch;                    /* told of each piece, or NULL */
  _Alignas(CACHE_LINE) _Atomic uint32_t finished; /* units done by workers; a futex */
  atomic_bool awaited;                             /* the caller sleeps on it */
  share *shares;                                   /* one for each thread of the pool */
} slot;

typedef struct worker {
  pthread_t id;
  cml_pool *pool;
  size_t thread; /* 1 to threads - 1; 0 is the caller */
} worker;

struct cml_pool {
  slot slots[SLOTS];
  _Alignas(CACHE_LINE) _Atomic uint32_t published; /* changes with each operation; a futex */
  _Atomic uint32_t sleepers;
  atomic_bool stop;
  size_t threads, started;
  share *shares;
  worker *workers;
  watch watch; /* changes between operations only */
};

static _Thread_local size_t own_index; /* of a worker in its pool; 0 for everybody else */

/* ---- sleeping ---- */

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0); }
static void futex_wake(_Atomic uint32_t *word, int threads) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0); }

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void rest(void) {
#if defined __x86_64__ || defined __i386__
  __builtin_ia32_pause();
#elif defined __aarch64__
  __asm__ volatile("yield");
#endif
}

/* Whether the word came to be (or, with `change`, to differ from) the value within the time. */
static bool spin(_Atomic uint32_t *word, uint32_t value, bool change, int64_t nanoseconds) {
  int64_t end = 0;
  do {
    for (int i = 0; i < 32; i++) {
      if ((atomic_load_explicit(word, memory_order_acquire) == value) != change) return true;
      rest();
    }
    if (!end) end = now() + nanoseconds;
    else sched_yield(); /* what is waited for may need this very core */
  } while (now() < end);
  return false;
}

/* ---- pieces ---- */

static uint32_t share_end(uint32_t units, uint32_t part, uint32_t parts) { return (uint32_t)((uint64_t)units * (part + 1) / parts); }

/* The fields are read after the word and before the exchange, both acquiring: they are at least as new as the word, and if newer,
 * the word is used up by then and the exchange fails. */
static bool claim(slot *s, size_t thread, uint32_t part, uint32_t *begin, uint32_t *end) {
  _Atomic uint64_t *word = &s->shares[part].left;
  uint64_t seen = atomic_load_explicit(word, memory_order_acquire);
  uint32_t n;
  do {
    uint32_t left = (uint32_t)seen;
    if (!left || thread >= atomic_load_explicit(&s->crew, memory_order_acquire)) return false;
    uint32_t grain = atomic_load_explicit(&s->grain, memory_order_acquire), units = atomic_load_explicit(&s->units, memory_order_acquire);
    n = left / 2 > grain ? left / 2 : grain;
    if (n > left) n = left;
    *begin = share_end(units, part, atomic_load_explicit(&s->parts, memory_order_acquire)) - left;
    *end = *begin + n;
  } while (!atomic_compare_exchange_weak_explicit(word, &seen, seen - n, memory_order_acq_rel, memory_order_acquire));
  return true;
}

static void run_piece(slot *s, size_t thread, uint32_t begin, uint32_t end) {
  size_t count = atomic_load_explicit(&s->count, memory_order_relaxed), unit = atomic_load_explicit(&s->unit, memory_order_relaxed);
  size_t last = end == atomic_load_explicit(&s->units, memory_order_relaxed) ? count : end * unit;
  pool_body *body = atomic_load_explicit(&s->body, memory_order_relaxed);
  const watch *w = atomic_load_explicit(&s->watch, memory_order_relaxed);
  int64_t start = w ? now() : 0;
  body(atomic_load_explicit(&s->context, memory_order_relaxed), thread, begin * unit, last);
  if (w) w->observe(w->context, own_index, (uint64_t)start, (uint64_t)now());
}

/* All that can be claimed, from the thread's own share on. Returns the number of units done. */
static uint32_t work(slot *s, size_t thread) {
  uint32_t done = 0, parts = atomic_load_explicit(&s->parts, memory_order_acquire), begin, end;
  for (uint32_t i = 0; i < parts; i++) {
    while (claim(s, thread, (uint32_t)((thread + i) % parts), &begin, &end)) {
      run_piece(s, thread, begin, end);
      done += end - begin;
      if (!thread) continue;
      atomic_fetch_add(&s->finished, end - begin);
      if (atomic_load(&s->awaited)) futex_wake(&s->finished, 1);
    }
  }
  return done;
}

/* ---- workers ---- */

static void await_operation(cml_pool *p, uint32_t seen) {
  if (spin(&p->published, seen, true, IDLE_SPIN)) return;
  atomic_fetch_add(&p->sleepers, 1);
  while (atomic_load(&p->published) == seen) futex_wait(&p->published, seen);
  atomic_fetch_sub(&p->sleepers, 1);
}

static void *run_worker(void *context) {
  worker *w = context;
  cml_pool *p = w->pool;
  own_index = w->thread;
  for (;;) {
    uint32_t seen = atomic_load(&p->published);
    if (atomic_load(&p->stop)) return NULL;
    for (int i = 0; i < SLOTS; i++)
      if (atomic_load_explicit(&p->slots[i].open, memory_order_acquire)) work(&p->slots[i], w->thread);
    await_operation(p, seen);
  }
}

static void announce(cml_pool *p, int most) {
  atomic_fetch_add(&p->published, 1);
  if (atomic_load(&p->sleepers)) futex_wake(&p->published, most);
}

/* ---- callers ---- */

static slot *take_slot(cml_pool *p) {
  for (int i = 0; i < SLOTS; i++) {
    slot *s = &p->slots[i];
    if (!atomic_load_explicit(&s->taken, memory_order_relaxed) && !atomic_exchange_explicit(&s->taken, true, memory_order_acquire)) return s;
  }
  return NULL;
}

static uint32_t publish(cml_pool *p, slot *s, size_t crew, size_t count, size_t grain, pool_body *body, void *context) {
  size_t unit = count / UINT32_MAX + 1;
  uint32_t units = (uint32_t)(count / unit + (count % unit != 0)), least = (uint32_t)(grain / unit + (grain % unit != 0));
  uint32_t parts = (units - 1) / least + 1;
  if (parts > crew) parts = (uint32_t)crew;
  atomic_store_explicit(&s->body, body, memory_order_release);
  atomic_store_explicit(&s->context, context, memory_order_release);
  atomic_store_explicit(&s->watch, p->watch.observe ? &p->watch : NULL, memory_order_release);
  atomic_store_explicit(&s->count, count, memory_order_release);
  atomic_store_explicit(&s->unit, unit, memory_order_release);
  atomic_store_explicit(&s->units, units, memory_order_release);
  atomic_store_explicit(&s->grain, least, memory_order_release);
  atomic_store_explicit(&s->parts, parts, memory_order_release);
  atomic_store_explicit(&s->crew, (uint32_t)crew, memory_order_release);
  atomic_store_explicit(&s->finished, 0, memory_order_relaxed);
  uint64_t generation = (uint64_t)++s->generation << 32;
  for (uint32_t i = 0, begin = 0; i < parts; i++) {
    uint32_t end = share_end(units, i, parts);
    atomic_store_explicit(&s->shares[i].left, generation | (end - begin), memory_order_release);
    begin = end;
  }
  atomic_store_explicit(&s->open, true, memory_order_release);
  announce(p, crew < p->threads ? INT_MAX : (int)parts - 1); /* sleepers have no numbers */
  return units;
}

static void await_workers(slot *s, uint32_t units) {
  if (spin(&s->finished, units, false, END_SPIN)) return;
  atomic_store(&s->awaited, true);
  for (uint32_t seen; (seen = atomic_load(&s->finished)) != units;) futex_wait(&s->finished, seen);
  atomic_store(&s->awaited, false);
}

void cml_parallel_among(cml_pool *p, size_t most, size_t count, size_t grain, void (*body)(void *, size_t, size_t, size_t), void *context) {
  size_t crew = most < cml_pool_threads(p) ? most : cml_pool_threads(p);
  if (!grain) grain = 1;
  if (!count) return;
  slot *s = crew > 1 && count > grain ? take_slot(p) : NULL;
  if (!s) {
    body(context, 0, 0, count);
    return;
  }
  uint32_t units = publish(p, s, crew, count, grain, body, context);
  uint32_t done = work(s, 0);
  atomic_store_explicit(&s->open, false, memory_order_relaxed);
  await_workers(s, units - done);
  atomic_store_explicit(&s->taken, false, memory_order_release);
}

void cml_parallel_with_thread(cml_pool *p, size_t count, size_t grain, void (*body)(void *, size_t, size_t, size_t), void *context) {
  cml_parallel_among(p, SIZE_MAX, count, grain, body, context);
}

typedef struct plain_task {
  void (*body)(void *context, size_t begin, size_t end);
  void *context;
} plain_task;

static void run_plain(void *context, size_t thread, size_t begin, size_t end) {
  (void)thread;
  const plain_task *t = context;
  t->body(t->context, begin, end);
}

void cml_parallel_most(cml_pool *p, size_t most, size_t count, size_t grain, void (*body)(void *, size_t, size_t), void *context) {
  plain_task t = {body, context};
  cml_parallel_among(p, most, count, grain, run_plain, &t);
}

void cml_parallel(cml_pool *p, size_t count, size_t grain, void (*body)(void *, size_t, size_t), void *context) {
  cml_parallel_most(p, SIZE_MAX, count, grain, body, context);
}

/* ---- the pool ---- */

static void *new_lines(size_t bytes) {
  void *lines = aligned_alloc(CACHE_LINE, bytes);
  if (lines) memset(lines, 0, bytes);
  return lines;
}

static cml_status start_workers(cml_pool *p, cml_error *err) {
  if (!(p->shares = new_lines(SLOTS * p->threads * sizeof *p->shares)) || !(p->workers = calloc(p->threads, sizeof *p->workers)))
    return cml_fail_memory(err);
  for (size_t i = 0; i < SLOTS; i++) p->slots[i].shares = p->shares + i * p->threads;
  for (size_t i = 1; i < p->threads; i++, p->started++) {
    worker *w = &p->workers[i];
    *w = (worker){.pool = p, .thread = i};
    if (pthread_create(&w->id, NULL, run_worker, w)) return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "cannot start %zu threads", p->threads);
  }
  return CML_OK;
}

cml_status cml_pool_create(size_t threads, cml_pool **out, cml_error *err) {
  if (threads > MOST_THREADS) return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "cannot start %zu threads: at most %d", threads, MOST_THREADS);
  cml_pool *p = new_lines(sizeof *p);
  if (!p) return cml_fail_memory(err);
  p->threads = threads ? threads : cml_machine_limits().cores;
  cml_status status = p->threads > 1 ? start_workers(p, err) : CML_OK;
  if (status) cml_pool_destroy(p);
  else *out = p;
  return status;
}

void cml_pool_destroy(cml_pool *p) {
  if (!p) return;
  atomic_store(&p->stop, true);
  announce(p, INT_MAX);
  for (size_t i = 1; i <= p->started; i++) pthread_join(p->workers[i].id, NULL);
  free(p->workers);
  free(p->shares);
  free(p);
}

void cml_pool_watch(cml_pool *p, cml_pool_observe *observe, void *context) { p->watch = (watch){observe, context}; }

size_t cml_pool_threads(const cml_pool *p) { return p ? p->threads : 1; }
