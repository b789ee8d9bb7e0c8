/* Sharing work among threads: every item once, no index of a thread used twice at a time, and no time spent when nothing runs. */
#include <stdatomic.h>
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

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_item_once),
      cmocka_unit_test(idle_pools_sleep),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
