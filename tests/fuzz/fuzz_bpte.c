/* .bpte: whatever is accepted is written, and writing what was written gives the same bytes. */
#include "bpte.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool rewrite(cml_span bytes, cml_buffer *out) {
  cml_bpte *bpte;
  cml_error error;
  if (cml_bpte_parse(bytes, &bpte, &error)) return false;
  if (cml_bpte_serialize(bpte, cml_sink_to_buffer(out), &error)) abort();
  cml_bpte_destroy(bpte);
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_buffer first = CML_BUFFER_INIT, second = CML_BUFFER_INIT;
  if (rewrite(cml_span_of(data, size), &first)) {
    if (!rewrite(cml_buffer_span(&first), &second)) abort();
    if (!cml_span_equal(cml_buffer_span(&first), cml_buffer_span(&second))) abort();
  }
  cml_buffer_free(&first);
  cml_buffer_free(&second);
  return 0;
}
