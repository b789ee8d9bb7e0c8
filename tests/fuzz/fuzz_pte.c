/* .pte: whatever is accepted is written, what is written is accepted, and both models are equal. */
#include <stdlib.h>

#include "../serializer/pte_dump.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode_delegates(const cml_pte *pte) {
  cml_arena arena = CML_ARENA_INIT;
  for (uint32_t m = 0; m < pte->method_count; m++)
    for (uint32_t d = 0; d < pte->methods[m].delegate_count; d++) {
      cml_pte_coreml c;
      cml_error error;
      if (!cml_pte_coreml_decode(pte, &pte->methods[m].delegates[d], &arena, &c, &error)) (void)c;
    }
  cml_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_pte *pte, *again;
  cml_error error;
  if (cml_pte_parse(cml_span_of(data, size), &pte, &error)) return 0;
  if (pte->arena.total > 64 * size + (1 << 20)) abort(); /* memory is in proportion to the file */
  decode_delegates(pte);
  cml_buffer first = CML_BUFFER_INIT, second = CML_BUFFER_INIT, file = CML_BUFFER_INIT;
  if (cml_pte_serialize(pte, NULL, cml_sink_to_buffer(&file), &error)) abort();
  if (cml_pte_parse(cml_buffer_span(&file), &again, &error)) abort();
  dump_pte(&first, pte);
  dump_pte(&second, again);
  if (!cml_span_equal(cml_buffer_span(&first), cml_buffer_span(&second))) abort();
  cml_pte_destroy(pte);
  cml_pte_destroy(again);
  cml_buffer_free(&first);
  cml_buffer_free(&second);
  cml_buffer_free(&file);
  return 0;
}
