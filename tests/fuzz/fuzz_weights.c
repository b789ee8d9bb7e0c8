/* A weight file: its first 16 bytes of the input say what is looked for, the rest is the file. Every byte that is given must
 * be readable. */
#include "weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_span out;
  cml_error error;
  if (size < 16) return 0;
  uint64_t offset = cml_load_u32(data), count = cml_load_u64(data + 4);
  for (unsigned dtype = 0; dtype <= CML_DTYPE_COUNT; dtype++) {
    if (cml_blob_find(cml_span_of(data + 16, size - 16), offset, (cml_dtype)dtype, count, data[12] & 1, &out, &error)) continue;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < out.size; i++) sum = (uint8_t)(sum + out.data[i]);
  }
  return 0;
}
