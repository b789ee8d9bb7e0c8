/* As much of cmocka as the kernels' tests use, for builds on machines without it. A failure ends the program. */
#ifndef CML_CROSS_CMOCKA_H
#define CML_CROSS_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
  const char *name;
  void (*test)(void **state);
};

#define cmocka_unit_test(f) {#f, f}
#define print_message(...) printf(__VA_ARGS__)
#define fail_msg(...) (printf("# %s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), printf("\n"), exit(1))
#define assert_true(x) ((x) ? (void)0 : fail_msg("%s", #x))
#define assert_false(x) assert_true(!(x))
#define assert_non_null(x) assert_true((x) != NULL)
#define assert_int_equal(a, b) assert_true((long long)(a) == (long long)(b))
#define assert_memory_equal(a, b, size) assert_true(!memcmp(a, b, size))

static inline int run_tests(const struct CMUnitTest *tests, size_t count) {
  printf("1..%zu\n", count);
  for (size_t i = 0; i < count; i++) {
    void *state = NULL;
    tests[i].test(&state);
    printf("ok %zu - %s\n", i + 1, tests[i].name);
    fflush(stdout);
  }
  return 0;
}

#define cmocka_run_group_tests(tests, setup, teardown) run_tests(tests, sizeof(tests) / sizeof *(tests))

#endif
