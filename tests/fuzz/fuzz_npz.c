/* .npz and .npy: what is accepted has its elements in memory, and is accepted again as it is written. */
#include <stdlib.h>
#include <string.h>

#include "npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_numeric(const cml_array *a) { return a->dtype != CML_STRING && a->rank <= 32; }

static void check_again(const cml_array *a) {
  cml_buffer file = CML_BUFFER_INIT;
  cml_arena arena = {0};
  cml_array again;
  cml_error error;
  if (cml_npy_header(a->dtype, a->rank, a->dims, &file, &error)) abort();
  cml_buffer_append(&file, a->data, a->bytes);
  if (cml_npy_parse(cml_buffer_span(&file), &arena, &again, &error)) abort();
  if (again.rank != a->rank || (a->rank && memcmp(again.dims, a->dims, a->rank * sizeof *a->dims)) || again.bytes != a->bytes) abort();
  if (a->bytes && memcmp(again.data, a->data, a->bytes)) abort();
  cml_arena_free(&arena);
  cml_buffer_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_mapping *mapping;
  cml_npz *npz;
  void *copy = malloc(size ? size : 1);
  unsigned sum = 0;
  if (!copy) return 0;
  memcpy(copy, data, size);
  if (cml_mapping_own(copy, size, "fuzz", &mapping, NULL)) return 0;
  if (!cml_npz_parse(mapping, &npz, NULL)) {
    for (size_t i = 0; i < cml_npz_count(npz); i++) {
      const cml_array *a = cml_npz_at(npz, i);
      for (uint64_t k = 0; k < a->bytes; k++) sum += ((const uint8_t *)a->data)[k];
      for (uint64_t k = 0; a->dtype == CML_STRING && k < a->bytes / sizeof(cml_string); k++) sum += (unsigned)strlen(((const cml_string *)a->data)[k].data);
      if (is_numeric(a) && a->dtype != CML_BF16 && a->bytes < 1 << 16) check_again(a);
    }
    cml_npz_close(npz);
  }
  cml_mapping_unref(mapping);
  return (int)(sum & 0);
}
