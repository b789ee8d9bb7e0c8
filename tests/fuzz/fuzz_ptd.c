/* .ptd: whatever is accepted is written, and what is written is accepted with the same entries. */
#include "ptd.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(const cml_ptd *a, const cml_ptd *b) {
  if (a->count != b->count || a->segment_count != b->segment_count) abort();
  for (uint32_t i = 0; i < a->count; i++) {
    const cml_ptd_entry *x = &a->entries[i], *y = &b->entries[i];
    if (!cml_span_equal(cml_ptd_data(a, x), cml_ptd_data(b, y)) || !x->tensor != !y->tensor) abort();
    if (x->tensor && !cml_span_equal(x->tensor->data, y->tensor->data)) abort();
    const cml_ptd_entry *found = cml_ptd_find(b, x->key);
    if (!found || found > y) abort(); /* the first of equal keys */
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_ptd *ptd, *again;
  cml_error error;
  if (cml_ptd_parse(cml_span_of(data, size), &ptd, &error)) return 0;
  cml_buffer file = CML_BUFFER_INIT;
  if (cml_ptd_serialize(ptd, 16, cml_sink_to_buffer(&file), &error)) abort();
  if (cml_ptd_parse(cml_buffer_span(&file), &again, &error)) abort();
  compare(ptd, again);
  cml_ptd_destroy(ptd);
  cml_ptd_destroy(again);
  cml_buffer_free(&file);
  return 0;
}
