/* weight.bin: every record that is given lies in the file, and its elements can be read. */
#include <stdlib.h>

#include "blob.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_blobs blobs;
  cml_blob blob;
  bool found = true;
  unsigned sum = 0;
  cml_span file = cml_span_of(data, size);
  if (cml_blobs_begin(file, &blobs, NULL)) return 0;
  while (!cml_blobs_next(&blobs, &blob, &found, NULL) && found) {
    if (blob.data.data < data || blob.data.data + blob.data.size > data + size) abort();
    for (size_t i = 0; i < blob.data.size; i++) sum += blob.data.data[i];
    unsigned bits = cml_dtype_bits(blob.dtype);
    for (uint64_t i = 0; bits && bits < 8 && i < blob.count; i++) sum += (unsigned)cml_blob_element(&blob, i);
    cml_blob again;
    if (cml_blob_at(file, blob.record, &again, NULL) || again.count != blob.count) abort();
  }
  return (int)(sum & 0);
}
