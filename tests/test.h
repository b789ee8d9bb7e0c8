/* What every test program needs: cmocka and the headers that it forgets. */
#ifndef CML_TEST_H
#define CML_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"
#include "sanitized.h"

/* cmocka's own skip() says "not ok … # SKIP" in TAP, which counts as a failure. tools/count_tests.py counts these lines. */
#undef skip
#define skip_because(...) \
  do {                    \
    printf("# SKIP ");    \
    printf(__VA_ARGS__);  \
    printf("\n");         \
    return;               \
  } while (0)
#define skip() skip_because("see above")

/* A call that must succeed; prints the error when it does not. */
#define assert_ok(call)                                                         \
  do {                                                                          \
    cml_error test_error = {0};                                                 \
    cml_error *err = &test_error;                                               \
    cml_status test_status = (call);                                            \
    if (test_status) fail_msg("%s: %s", #call, test_error.text);                \
  } while (0)

#endif
