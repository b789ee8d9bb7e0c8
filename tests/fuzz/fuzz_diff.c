/* Two programs, split at the first '\x01' byte, and everything that is said of their difference. */
#include "diff.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *split = size ? memchr(data, 1, size) : NULL;
  size_t first = split ? (size_t)(split - data) : size / 2;
  cml_model a = {.arena = {.limit = 32 << 20}, .type_number = 502}, b = a;
  cml_diff diff = CML_DIFF_INIT;
  cml_buffer out = CML_BUFFER_INIT;
  cml_error error;
  size_t skip = first + (split != NULL);
  if (!cml_mil_parse_text(cml_span_of(data, first), &a.arena, &a.program, &error) &&
      !cml_mil_parse_text(cml_span_of(data ? data + skip : NULL, size - skip), &b.arena, &b.program, &error) &&
      !cml_diff_models(&diff, "", &a, &b, &error)) {
    cml_status ignored = cml_diff_text(&diff, &out, &error);
    ignored = cml_diff_json(&diff, &out, &error);
    (void)ignored;
  }
  cml_buffer_free(&out);
  cml_diff_free(&diff);
  cml_arena_free(&a.arena);
  cml_arena_free(&b.arena);
  return 0;
}
