/* The copy engine against loops over indices: random nests of loops, every element size, with and without threads, between
 * arrays that end where the last element does. */
#include "test.h"

#include "strided.h"

enum { ROOM = 1 << 21 };

static uint64_t state = 88172645463325252u;

static int64_t below(int64_t n) { /* xorshift64 */
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (int64_t)(state % (uint64_t)n);
}

static void shuffle(int *order, int n) {
  for (int i = 0; i < n; i++) order[i] = i;
  for (int i = n - 1; i > 0; i--) {
    int k = (int)below(i + 1), t = order[i];
    order[i] = order[k];
    order[k] = t;
  }
}

/* A nest that writes each output element at most once: the output is a permuted array with gaps, the input anything. */
static void make_nest(cml_strided *s, int loops, int64_t most, int64_t *to_elements, int64_t *from_elements, int64_t *first) {
  int order[8];
  int64_t count[8], to = 1 + below(2) * below(3), from = 1, lowest = 0, highest = 0;
  *s = (cml_strided){.size = (size_t)1 << below(5)};
  shuffle(order, loops);
  for (int i = 0; i < loops; i++) count[i] = below(7) ? 1 + below(most) : below(2);
  s->loops = loops;
  *to_elements = 1;
  for (int i = loops - 1; i >= 0; i--) {
    s->count[i] = count[i];
    s->to[i] = to;
    if (count[i]) *to_elements += (count[i] - 1) * to;
    to *= count[i] ? count[i] : 1;
    if (!below(3)) to += below(4);
  }
  for (int k = 0; k < loops; k++) {
    int i = order[k];
    s->from[i] = below(6) ? from : 0;
    if (!below(4)) s->from[i] = -s->from[i];
    int64_t span = count[i] ? (count[i] - 1) * s->from[i] : 0;
    if (span < 0) lowest += span;
    else highest += span;
    from *= count[i] ? count[i] : 1;
    if (!below(5)) from += below(3);
  }
  *first = -lowest;
  *from_elements = highest - lowest + 1;
}

static void naive(const cml_strided *s, char *to, const char *from, int32_t loop) {
  if (loop == s->loops) {
    memcpy(to, from, s->size);
    return;
  }
  for (int64_t i = 0; i < s->count[loop]; i++)
    naive(s, to + i * s->to[loop] * (int64_t)s->size, from + i * s->from[loop] * (int64_t)s->size, loop + 1);
}

static void compare_nest(int loops, int64_t most, cml_pool *pool) {
  cml_strided s;
  int64_t to_elements, from_elements, first;
  make_nest(&s, loops, most, &to_elements, &from_elements, &first);
  size_t to_bytes = (size_t)to_elements * s.size, from_bytes = (size_t)from_elements * s.size;
  if (to_bytes > ROOM || from_bytes > ROOM) return;
  char *want = malloc(to_bytes), *got = malloc(to_bytes), *from = malloc(from_bytes);
  for (size_t i = 0; i < from_bytes; i++) from[i] = (char)below(256);
  memset(want, 0x5a, to_bytes);
  memset(got, 0x5a, to_bytes);
  naive(&s, want, from + first * (int64_t)s.size, 0);
  cml_strided_copy(&s, got, from + first * (int64_t)s.size, pool);
  assert_memory_equal(got, want, to_bytes);
  free(want);
  free(got);
  free(from);
}

static void copies_what_loops_copy(void **unused) {
  (void)unused;
  cml_pool *pool = NULL;
  assert_ok(cml_pool_create(3, &pool, err));
  for (int i = 0; i < 3000; i++) compare_nest(1 + i % 6, 9, i % 2 ? pool : NULL);
  for (int i = 0; i < 200; i++) compare_nest(1 + i % 3, 150, i % 2 ? pool : NULL);
  cml_pool_destroy(pool);
}

/* Two or three rows woven into one, as pixel_shuffle does; longer ones are cut into pieces. */
static void weaves_rows(void **unused) {
  (void)unused;
  cml_pool *pool = NULL;
  assert_ok(cml_pool_create(2, &pool, err));
  for (int i = 0; i < 60; i++) {
    int64_t n = 2 + i % 2, m = i % 10 ? 1 + below(200) : 70001, rows = 1 + below(3);
    size_t size = (size_t)1 << below(4), bytes = (size_t)(rows * n * m) * size;
    char *want = malloc(bytes), *got = calloc(bytes, 1), *from = malloc(bytes);
    for (size_t k = 0; k < bytes; k++) from[k] = (char)below(256);
    cml_strided s = {.size = size};
    cml_strided_loop(&s, rows, n * m, n * m);
    cml_strided_loop(&s, m, n, 1);
    cml_strided_loop(&s, n, 1, m);
    naive(&s, want, from, 0);
    cml_strided_copy(&s, got, from, i % 4 ? pool : NULL);
    assert_memory_equal(got, want, bytes);
    free(want);
    free(got);
    free(from);
  }
  cml_pool_destroy(pool);
}

static void fills_and_copies_runs(void **unused) {
  (void)unused;
  cml_pool *pool = NULL;
  assert_ok(cml_pool_create(2, &pool, err));
  const char value[16] = "0123456789abcdef";
  for (size_t size = 1; size <= 16; size *= 2)
    for (int64_t n = 0; n < 200000; n = n * 5 + 1) {
      char *p = malloc((size_t)n * size + 1), *q = malloc((size_t)n * size + 1);
      p[(size_t)n * size] = q[(size_t)n * size] = 'x';
      cml_fill_elements(p, value, size, n, pool);
      for (int64_t i = 0; i < n; i++) assert_memory_equal(p + (size_t)i * size, value, size);
      cml_copy_bytes(q, p, (size_t)n * size, pool);
      assert_memory_equal(q, p, (size_t)n * size + 1);
      free(p);
      free(q);
    }
  cml_pool_destroy(pool);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(copies_what_loops_copy), cmocka_unit_test(weaves_rows), cmocka_unit_test(fills_and_copies_runs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
