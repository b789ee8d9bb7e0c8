/* What the tests of .mil text share: parse, print, and say where two texts part. */
#ifndef CML_MIL_TEXT_CHECK_H
#define CML_MIL_TEXT_CHECK_H

#include "mil.h"
#include "test.h"

static inline cml_mil_dialect dialect_of(cml_span text) {
  return text.size > 11 && !memcmp(text.data, "program(1.0", 11) ? CML_MIL_1_0 : CML_MIL_1_3;
}

/* text -> IR -> text; the caller frees *out. */
static inline cml_status mil_round_trip(cml_span text, cml_buffer *out, cml_error *err) {
  cml_arena arena = CML_ARENA_INIT;
  cml_mil_program *program;
  *out = (cml_buffer)CML_BUFFER_INIT;
  cml_status status = cml_mil_parse_text(text, &arena, &program, err);
  if (!status) status = cml_mil_print_text(program, dialect_of(text), out, err);
  cml_arena_free(&arena);
  return status;
}

/* Equal but for white space outside strings at the end of the file. */
static inline void assert_same_text(cml_span expected, cml_span actual, const char *what) {
  while (expected.size && expected.data[expected.size - 1] == '\n') expected.size--;
  size_t n = expected.size < actual.size ? expected.size : actual.size, i = 0;
  while (i < n && expected.data[i] == actual.data[i]) i++;
  if (i == expected.size && i == actual.size) return;
  size_t from = i > 40 ? i - 40 : 0;
  fail_msg("%s: differs at byte %zu\n expected …%.*s\n found    …%.*s", what, i,
           (int)(expected.size - from < 120 ? expected.size - from : 120), (const char *)expected.data + from,
           (int)(actual.size - from < 120 ? actual.size - from : 120), (const char *)actual.data + from);
}

#endif
