/* Manifest.json: a manifest that is accepted names its model, and no path leads outside. */
#include <stdlib.h>

#include "mlpackage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_arena arena = CML_ARENA_INIT;
  cml_manifest m;
  if (!cml_manifest_parse(cml_span_of(data, size), &arena, &m, NULL)) {
    if (!m.root_model) abort();
    for (size_t i = 0; i < m.count; i++)
      if (m.items[i].path[0] == '/' || !strncmp(m.items[i].path, "../", 3) || strstr(m.items[i].path, "/../")) abort();
  }
  cml_arena_free(&arena);
  return 0;
}
