/* .mil text: whatever is accepted is printed, and what is printed is accepted and prints the same again. */
#include "mil.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool print_again(cml_span text, cml_mil_dialect dialect, cml_buffer *out) {
  cml_arena arena = {.limit = 64 << 20};
  cml_mil_program *program;
  cml_error error;
  bool ok = !cml_mil_parse_text(text, &arena, &program, &error) && !cml_mil_print_text(program, dialect, out, &error);
  cml_arena_free(&arena);
  return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_mil_dialect dialect = size & 1 ? CML_MIL_1_0 : CML_MIL_1_3;
  cml_buffer first = CML_BUFFER_INIT, second = CML_BUFFER_INIT;
  if (print_again(cml_span_of(data, size), dialect, &first)) {
    if (!print_again(cml_buffer_span(&first), dialect, &second)) abort();
    if (!cml_span_equal(cml_buffer_span(&first), cml_buffer_span(&second))) abort();
  }
  cml_buffer_free(&first);
  cml_buffer_free(&second);
  return 0;
}
