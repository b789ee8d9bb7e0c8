/* The text of a program that a test writes piece by piece; `used` bytes of it are there. */
#ifndef CML_PROGRAM_TEXT_H
#define CML_PROGRAM_TEXT_H

#include <stdarg.h>
#include <stdio.h>

#include "test.h"

static char text[1 << 20];
static size_t used;

__attribute__((format(printf, 1, 2))) static void put(const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text + used, sizeof text - used, format, args);
  va_end(args);
  assert_true(n >= 0 && used + (size_t)n < sizeof text);
  used += (size_t)n;
}

#endif
