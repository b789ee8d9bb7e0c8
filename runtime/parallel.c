/* pthreadpool wakes each thread once; the threads then take stretches from a shared counter, long ones first,
 * so that a slow core does not hold the others up. One pool serves one caller at a time (a mutex), for sessions on several threads. */
#include "parallel.h"

#include <pthread.h>
#include <pthreadpool.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

struct cml_pool {
  size_t threads;
  pthreadpool_t pool; /* NULL for one thread */
  pthread_mutex_t busy;
  _Atomic(struct task *) task; /* handed over here and not through pthreadpool alone, so that a race detector can follow it */
  atomic_size_t finished;
};

static size_t available_cores(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set)) return 1;
  int n = CPU_COUNT(&set);
  return n > 0 ? (size_t)n : 1;
}

cml_status cml_pool_create(size_t threads, cml_pool **out, cml_error *err) {
  cml_pool *p = calloc(1, sizeof *p);
  if (!p) return cml_fail_memory(err);
  p->threads = threads ? threads : available_cores();
  if (p->threads > 1 && !(p->pool = pthreadpool_create(p->threads))) {
    free(p);
    return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "cannot start %zu threads", threads);
  }
  pthread_mutex_init(&p->busy, NULL);
  *out = p;
  return CML_OK;
}

void cml_pool_destroy(cml_pool *p) {
  if (!p) return;
  if (p->pool) pthreadpool_destroy(p->pool);
  pthread_mutex_destroy(&p->busy);
  free(p);
}

size_t cml_pool_threads(const cml_pool *p) { return p ? p->threads : 1; }

typedef struct task {
  void (*body)(void *context, size_t thread, size_t begin, size_t end);
  void *context;
  size_t count, grain, threads;
  atomic_size_t next;
} task;

/* The next stretch: half of a thread's even share of what is left, so that the last ones are short and all end together. */
static bool take(task *t, size_t *begin, size_t *end) {
  size_t at = atomic_load_explicit(&t->next, memory_order_relaxed), n;
  do {
    if (at >= t->count) return false;
    size_t left = t->count - at;
    n = left / (2 * t->threads);
    if (n < t->grain) n = t->grain < left ? t->grain : left;
  } while (!atomic_compare_exchange_weak_explicit(&t->next, &at, at + n, memory_order_relaxed, memory_order_relaxed));
  *begin = at;
  *end = at + n;
  return true;
}

/* One item a thread; each takes stretches until none is left. */
static void run_worker(void *context, size_t thread) {
  cml_pool *p = context;
  task *t = atomic_load_explicit(&p->task, memory_order_acquire);
  for (size_t begin, end; take(t, &begin, &end);) t->body(t->context, thread, begin, end);
  atomic_fetch_add_explicit(&p->finished, 1, memory_order_release);
}

void cml_parallel_with_thread(cml_pool *p, size_t count, size_t grain, void (*body)(void *, size_t, size_t, size_t), void *context) {
  if (!grain) grain = 1;
  if (!count) return;
  if (!p || !p->pool || count <= grain) {
    body(context, 0, 0, count);
    return;
  }
  task t = {.body = body, .context = context, .count = count, .grain = grain, .threads = p->threads};
  atomic_init(&t.next, 0);
  pthread_mutex_lock(&p->busy);
  atomic_store_explicit(&p->task, &t, memory_order_release);
  pthreadpool_parallelize_1d(p->pool, run_worker, p, p->threads, 0);
  (void)atomic_load_explicit(&p->finished, memory_order_acquire);
  pthread_mutex_unlock(&p->busy);
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

void cml_parallel(cml_pool *p, size_t count, size_t grain, void (*body)(void *, size_t, size_t), void *context) {
  plain_task t = {body, context};
  cml_parallel_with_thread(p, count, grain, run_plain, &t);
}
