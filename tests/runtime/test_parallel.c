/* Sharing work among threads: every item once, no index of a thread used twice at a time, no time spent when nothing runs; and
 * nobody waits for a worker that has not begun: one that is held up in another caller's work, or stopped by a signal at any point. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "parallel.h"
#include "test.h"

enum { ITEMS = 5000, THREADS = 4 };

typedef struct tally {
  atomic_int seen[ITEMS], busy[THREADS], clashes, beyond;
  size_t grain, count;
  atomic_int short_ones;
} tally;

static void count_items(void *context, size_t thread, size_t begin, size_t end) {
  tally *t = context;
  if (thread >= THREADS || end > t->count || begin >= end) {
    atomic_fetch_add(&t->beyond, 1);
    return;
  }
  if (atomic_fetch_add(&t->busy[thread], 1)) atomic_fetch_add(&t->clashes, 1);
  if (end - begin < t->grain) atomic_fetch_add(&t->short_ones, 1);
  for (size_t i = begin; i < end; i++) atomic_fetch_add(&t->seen[i], 1);
  atomic_fetch_sub(&t->busy[thread], 1);
}

static void every_item_once(void **state) {
  (void)state;
  static tally t;
  for (size_t threads = 1; threads <= THREADS; threads++) {
    cml_pool *pool;
    assert_ok(cml_pool_create(threads, &pool, err));
    assert_int_equal(cml_pool_threads(pool), threads);
    for (size_t count = 0; count < ITEMS; count += 1 + count / 3)
      for (size_t grain = 0; grain < 40; grain += 1 + grain) {
        memset(&t, 0, sizeof t);
        t.grain = grain, t.count = count;
        cml_parallel_with_thread(pool, count, grain, count_items, &t);
        for (size_t i = 0; i < ITEMS; i++) assert_int_equal(t.seen[i], i < count);
        assert_int_equal(t.clashes, 0);
        assert_int_equal(t.beyond, 0);
        assert_true((size_t)t.short_ones <= threads); /* the last one of each share */
      }
    cml_pool_destroy(pool);
  }
}

/* Among a few of a pool's threads, while other callers keep the rest awake: no index beyond those few. */
static void index_below(void *context, size_t thread, size_t begin, size_t end) {
  tally *t = context;
  if (thread >= t->grain) atomic_fetch_add(&t->beyond, 1);
  for (size_t i = begin; i < end; i++) atomic_fetch_add(&t->seen[i], 1);
}

static void few_of_many(void **state) {
  (void)state;
  static tally t, all;
  cml_pool *pool;
  assert_ok(cml_pool_create(THREADS, &pool, err));
  for (int round = 0; round < 2000; round++) {
    memset(&t, 0, sizeof t);
    memset(&all, 0, sizeof all);
    t.grain = 1 + (size_t)round % (THREADS + 1), t.count = ITEMS;
    all.count = ITEMS;
    cml_parallel_among(pool, t.grain, ITEMS, 1, index_below, &t);
    cml_parallel_with_thread(pool, ITEMS, 1, count_items, &all);
    for (size_t i = 0; i < ITEMS; i++) assert_true(t.seen[i] == 1 && all.seen[i] == 1);
    assert_int_equal(t.beyond + all.beyond + all.clashes, 0);
  }
  cml_pool_destroy(pool);
}

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Whoever watches is told of every piece by the thread that did it, and of nothing once the operation has returned. */
typedef struct watched {
  tally t;
  atomic_int pieces, backwards, beyond, open;
  uint64_t begin;
} watched;

static void note_piece(void *context, size_t thread, uint64_t begin, uint64_t end) {
  watched *w = context;
  atomic_fetch_add(&w->pieces, 1);
  if (thread >= THREADS) atomic_fetch_add(&w->beyond, 1);
  if (begin < w->begin || end < begin || !atomic_load(&w->open)) atomic_fetch_add(&w->backwards, 1);
}

static void pieces_can_be_watched(void **state) {
  (void)state;
  static watched w;
  cml_pool *pool;
  struct timespec now;
  assert_ok(cml_pool_create(THREADS, &pool, err));
  cml_pool_watch(pool, note_piece, &w);
  w.t.count = ITEMS;
  for (int i = 0; i < 200; i++) {
    int before = atomic_load(&w.pieces);
    clock_gettime(CLOCK_MONOTONIC, &now);
    w.begin = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    atomic_store(&w.open, 1);
    cml_parallel_with_thread(pool, ITEMS, 100, count_items, &w.t);
    atomic_store(&w.open, 0);
    assert_true(atomic_load(&w.pieces) >= before + THREADS); /* each thread's share is one piece at least */
  }
  for (size_t i = 0; i < ITEMS; i++) assert_int_equal(w.t.seen[i], 200);
  assert_int_equal(w.backwards, 0);
  assert_int_equal(w.beyond, 0);
  int all = atomic_load(&w.pieces);
  cml_pool_watch(pool, NULL, NULL);
  cml_parallel_with_thread(pool, ITEMS, 100, count_items, &w.t);
  assert_int_equal(atomic_load(&w.pieces), all);
  cml_pool_destroy(pool);
}

/* Threads wait for the next operation of a run awake, but not for long. */
static void idle_pools_sleep(void **state) {
  (void)state;
  static tally t;
  cml_pool *pool;
  assert_ok(cml_pool_create(THREADS, &pool, err));
  t.count = ITEMS;
  cml_parallel_with_thread(pool, ITEMS, 1, count_items, &t);
  double least = 1;
  for (int i = 0; i < 20 && least > 0.002; i++) { /* they fall asleep after a time that depends on the machine's load */
    usleep(100000);
    double before = seconds(CLOCK_PROCESS_CPUTIME_ID);
    usleep(100000);
    double used = seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
    if (used < least) least = used;
  }
  if (least > 0.002) fail_msg("an idle pool uses %.1f ms of processor time in 100 ms", least * 1e3);
  cml_pool_destroy(pool);
}


/* All threads on one core: a worker that waits for the next operation must not keep the core from the caller. Processor time is
 * measured, so that other processes do not matter. */
static void burn(void *context, size_t begin, size_t end) {
  (void)context;
  for (size_t i = begin; i < end; i++)
    for (volatile int k = 0; k < 2000; k++) continue;
}

static double operations_time(cml_pool *pool) {
  double before = seconds(CLOCK_PROCESS_CPUTIME_ID);
  for (int i = 0; i < 3000; i++) {
    cml_parallel(pool, 8, 1, burn, NULL);
    burn(NULL, 0, 8); /* the caller alone */
  }
  return seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
}

static void a_core_is_shared(void **state) {
  (void)state;
  cpu_set_t all, one;
  cml_pool *pool;
  if (sched_getaffinity(0, sizeof all, &all)) skip();
  CPU_ZERO(&one);
  for (size_t i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
    if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
  if (sched_setaffinity(0, sizeof one, &one)) skip();
  assert_ok(cml_pool_create(2, &pool, err)); /* workers run where their creator does */
  double ratio = 100;
  for (int i = 0; i < 10 && ratio > 1.25; i++) {
    double together = operations_time(pool), alone = operations_time(NULL);
    if (together / alone < ratio) ratio = together / alone;
  }
  print_message("# %.2f times the work of one thread\n", ratio);
  assert_true(ratio <= 1.25);
  cml_pool_destroy(pool);
  sched_setaffinity(0, sizeof all, &all);
}

/* More items than 32 bits count, in few pieces. */
typedef struct lengths {
  atomic_size_t items, last;
} lengths;

static void add_lengths(void *context, size_t begin, size_t end) {
  lengths *l = context;
  atomic_fetch_add(&l->items, end - begin);
  if (end > atomic_load(&l->last)) atomic_store(&l->last, end);
}

static void counts_beyond_32_bits(void **state) {
  (void)state;
  static const size_t counts[] = {(size_t)UINT32_MAX - 1, UINT32_MAX, (size_t)UINT32_MAX + 1, (size_t)UINT32_MAX * 3 + 5, (size_t)1 << 40};
  cml_pool *pool;
  assert_ok(cml_pool_create(THREADS, &pool, err));
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    lengths l = {0};
    cml_parallel(pool, counts[i], 100000001, add_lengths, &l);
    assert_int_equal(l.items, counts[i]);
    assert_int_equal(l.last, counts[i]);
  }
  cml_pool_destroy(pool);
}

static void refuses_too_many(void **state) {
  (void)state;
  cml_pool *pool = NULL;
  cml_error error = {0};
  assert_int_equal(cml_pool_create(SIZE_MAX, &pool, &error), CML_NO_MEMORY);
  assert_non_null(strstr(error.text, "threads"));
  assert_null(pool);
}

/* ---- many callers ---- */

enum { CALLERS = 20, ROUNDS = 300 }; /* more callers than a pool serves at a time */

typedef struct caller {
  pthread_t id;
  cml_pool *pool;
  unsigned number;
  int wrong;
} caller;

typedef struct squares {
  size_t offset;
  uint64_t *out;
  cml_pool *inner; /* for each item, another operation */
} squares;

static void square_items(void *context, size_t begin, size_t end) {
  const squares *s = context;
  for (size_t i = begin; i < end; i++) s->out[i] = (i + s->offset) * (i + s->offset);
}

static void square_rows(void *context, size_t begin, size_t end) {
  const squares *s = context;
  for (size_t row = begin; row < end; row++) {
    squares inner = {s->offset + row * 16, s->out + row * 16, NULL};
    cml_parallel(s->inner, 16, 1, square_items, &inner);
  }
}

/* An operation whose arguments and results are gone right after it, so that who comes late would touch freed memory. */
static int run_squares(cml_pool *pool, size_t count, size_t offset, bool nested) {
  int wrong = 0;
  if (nested) count &= ~(size_t)15;
  squares *s = malloc(sizeof *s);
  assert_non_null(s);
  *s = (squares){offset, malloc(count * sizeof *s->out), pool};
  assert_non_null(s->out);
  cml_parallel(pool, nested ? count / 16 : count, 1, nested ? square_rows : square_items, s);
  for (size_t i = 0; i < count; i++) wrong += s->out[i] != (i + offset) * (i + offset);
  free(s->out);
  memset(s, 0xA5, sizeof *s);
  free(s);
  return wrong;
}

static void *call_often(void *context) {
  caller *c = context;
  for (unsigned r = 0; r < ROUNDS; r++) c->wrong += run_squares(c->pool, 16 * (1 + (r + c->number) % 23), r * 31 + c->number, r % 3 == 0);
  return NULL;
}

static void callers_share_a_pool(void **state) {
  (void)state;
  caller callers[CALLERS];
  cml_pool *pool;
  assert_ok(cml_pool_create(THREADS, &pool, err));
  for (unsigned i = 0; i < CALLERS; i++) {
    callers[i] = (caller){.pool = pool, .number = i};
    assert_int_equal(pthread_create(&callers[i].id, NULL, call_often, &callers[i]), 0);
  }
  for (int i = 0; i < CALLERS; i++) {
    pthread_join(callers[i].id, NULL);
    assert_int_equal(callers[i].wrong, 0);
  }
  cml_pool_destroy(pool);
}

/* ---- workers that do not come ---- */

typedef struct gate {
  atomic_int inside, open, skipped;
} gate;

/* One item a thread; the workers' ones, and so their caller, stay until the gate opens. */
static void wait_at_gate(void *context, size_t thread, size_t begin, size_t end) {
  gate *g = context;
  atomic_fetch_add(&g->inside, (int)(end - begin));
  while (!atomic_load(&g->open)) usleep(200);
  (void)thread;
}

typedef struct gate_caller {
  cml_pool *pool;
  gate gate;
} gate_caller;

static void *call_gate(void *context) {
  gate_caller *c = context;
  cml_parallel_with_thread(c->pool, THREADS, 1, wait_at_gate, &c->gate);
  return NULL;
}

static void workers_held_up_elsewhere_hold_up_nobody(void **state) {
  (void)state;
  gate_caller c = {0};
  pthread_t other;
  assert_ok(cml_pool_create(THREADS, &c.pool, err));
  assert_int_equal(pthread_create(&other, NULL, call_gate, &c), 0);
  while (atomic_load(&c.gate.inside) < THREADS) usleep(200); /* the caller and all workers */
  for (size_t r = 0; r < 500; r++) assert_int_equal(run_squares(c.pool, 16 + r, r, false), 0);
  assert_int_equal(c.gate.open, 0);
  atomic_store(&c.gate.open, 1);
  pthread_join(other, NULL);
  cml_pool_destroy(c.pool);
}

/* The pieces that nobody began when a caller is told to stop find the flag set: the call returns without their work. */
static void stop_at_first(void *context, size_t thread, size_t begin, size_t end) {
  gate *g = context;
  (void)thread;
  if (atomic_exchange(&g->open, 1)) atomic_fetch_add(&g->skipped, (int)(end - begin));
  else atomic_fetch_add(&g->inside, (int)(end - begin));
}

static void work_can_be_given_up(void **state) {
  (void)state;
  cml_pool *pool;
  assert_ok(cml_pool_create(THREADS, &pool, err));
  for (int r = 0; r < 200; r++) {
    gate g = {0};
    cml_parallel_with_thread(pool, 1000, 1, stop_at_first, &g);
    assert_in_range(g.inside, 1, 125); /* the first piece: half of a share */
    assert_int_equal(g.inside + g.skipped, 1000);
  }
  cml_pool_destroy(pool);
}

static int stopped[2], go_on[2]; /* pipes: handlers may read and write */

static void stand_still(int signal) {
  (void)signal;
  char byte = 0;
  if (write(stopped[1], &byte, 1) != 1 || read(go_on[0], &byte, 1) != 1) _exit(3);
}

typedef struct crew {
  pthread_t ids[THREADS];
  atomic_int seen[THREADS];
} crew;

static void show_up(void *context, size_t thread, size_t begin, size_t end) {
  crew *c = context;
  c->ids[thread] = pthread_self();
  atomic_fetch_add(&c->seen[thread], (int)(end - begin));
  usleep(100);
}

static bool all_seen(const crew *c) {
  for (int i = 1; i < THREADS; i++)
    if (!c->seen[i]) return false;
  return true;
}

static void stopped_workers_are_not_awaited(void **state) {
  (void)state;
  if (CML_SANITIZED) skip_because("sanitizers put signals off");
  struct sigaction action = {.sa_handler = stand_still};
  char bytes[THREADS] = {0};
  crew c = {0}, late = {0};
  cml_pool *pool;
  assert_int_equal(pipe(stopped) | pipe(go_on) | sigaction(SIGUSR1, &action, NULL), 0);
  assert_ok(cml_pool_create(THREADS, &pool, err));
  while (!all_seen(&c)) cml_parallel_with_thread(pool, 64, 1, show_up, &c);
  for (int i = 1; i < THREADS; i++) assert_int_equal(pthread_kill(c.ids[i], SIGUSR1), 0);
  for (int i = 1; i < THREADS; i++) assert_int_equal(read(stopped[0], bytes, 1), 1);
  for (size_t r = 0; r < 500; r++) assert_int_equal(run_squares(pool, 16 + r, r, r % 2 == 0), 0);
  assert_int_equal(write(go_on[1], bytes, THREADS - 1), THREADS - 1);
  for (size_t r = 0; r < 500; r++) assert_int_equal(run_squares(pool, 16 + r, r, r % 2 == 0), 0);
  while (!all_seen(&late)) cml_parallel_with_thread(pool, 64, 1, show_up, &late); /* they work again */
  cml_pool_destroy(pool);
}

static atomic_int interruptions;

static void stand_still_shortly(int signal) {
  (void)signal;
  usleep((useconds_t)(atomic_fetch_add(&interruptions, 1) * 37 % 800));
}

typedef struct pest {
  crew crew;
  atomic_int done;
} pest;

static void *interrupt_workers(void *context) {
  pest *p = context;
  for (unsigned i = 0; !atomic_load(&p->done); i++) {
    pthread_kill(p->crew.ids[1 + i % (THREADS - 1)], SIGUSR1);
    usleep(i * 13 % 300);
  }
  return NULL;
}

/* Stopped anywhere, between reading an operation and claiming a piece of it as well, for several operations. */
static void workers_may_be_late_anywhere(void **state) {
  (void)state;
  if (CML_SANITIZED) skip_because("sanitizers put signals off");
  struct sigaction action = {.sa_handler = stand_still_shortly};
  pest p = {0};
  pthread_t interrupter;
  cml_pool *pool;
  assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
  assert_ok(cml_pool_create(THREADS, &pool, err));
  while (!all_seen(&p.crew)) cml_parallel_with_thread(pool, 64, 1, show_up, &p.crew);
  assert_int_equal(pthread_create(&interrupter, NULL, interrupt_workers, &p), 0);
  double end = seconds(CLOCK_MONOTONIC) + 1;
  for (size_t r = 0; r < 1000 || seconds(CLOCK_MONOTONIC) < end; r++) assert_int_equal(run_squares(pool, 16 + r % 300, r, r % 5 == 0), 0);
  atomic_store(&p.done, 1);
  pthread_join(interrupter, NULL);
  cml_pool_destroy(pool);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(few_of_many),
      cmocka_unit_test(every_item_once),      cmocka_unit_test(counts_beyond_32_bits),
      cmocka_unit_test(refuses_too_many),     cmocka_unit_test(idle_pools_sleep),
      cmocka_unit_test(pieces_can_be_watched), cmocka_unit_test(a_core_is_shared),
      cmocka_unit_test(callers_share_a_pool), cmocka_unit_test(workers_held_up_elsewhere_hold_up_nobody),
      cmocka_unit_test(work_can_be_given_up), cmocka_unit_test(stopped_workers_are_not_awaited),
      cmocka_unit_test(workers_may_be_late_anywhere),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
