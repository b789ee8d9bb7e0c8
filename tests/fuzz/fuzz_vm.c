/* Programs of the virtual machine: whatever loads is run twice on made-up inputs, within limits of memory and instructions.
 * Nothing may be read or written out of bounds; errors are fine. The first byte of the input chooses how inputs look; the program follows. */
#include <stdio.h>
#include <stdlib.h>

#include "et_program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t next(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return *seed >> 8;
}

/* Sizes as declared, some smaller where bounds allow it; small numbers, so that they make indices now and then. */
static void set_tensor(cml_et_method *m, size_t i, const cml_et_tensor *t, uint32_t *seed) {
  cml_tensor v = {.dtype = t->dtype, .rank = t->rank};
  int64_t count = 1;
  for (int k = 0; k < t->rank; k++) {
    v.dims[k] = t->dynamism == CML_PTE_STATIC ? t->sizes[k] : t->sizes[k] ? 1 + next(seed) % t->sizes[k] : next(seed) % 4;
    count *= v.dims[k];
    if (count > 1 << 16) return;
  }
  void *p = calloc((size_t)(count + 1), 8);
  v.data = p;
  for (int64_t k = 0; t->dtype && k < count; k++) cml_tensor_set(&v, k, (double)(next(seed) % 7) - 2);
  if (cml_et_method_set_tensor(m, i, &v, NULL)) (void)0;
  free(p);
}

static void run(cml_et_method *m, uint32_t seed) {
  cml_error error;
  for (size_t i = 0; i < cml_et_method_input_count(m); i++) {
    const cml_et_value *v = cml_et_method_input(m, i);
    const cml_et_number n = {CML_PTE_INTEGER, next(&seed) % 5 - 1, 1.5};
    if (v->kind == CML_PTE_TENSOR) set_tensor(m, i, v->tensor, &seed);
    else if (cml_et_method_set_number(m, i, n, NULL)) continue;
  }
  if (cml_et_method_run(m, &error)) return;
  for (size_t i = 0; i < cml_et_method_output_count(m); i++) {
    cml_tensor t;
    uint64_t bytes;
    volatile uint8_t sum = 0;
    const cml_et_value *v = cml_et_method_output(m, i);
    if (v->kind != CML_PTE_TENSOR || cml_et_method_export(m, v, &t, &error) || !cml_tensor_bytes(&t, &bytes)) continue;
    for (uint64_t k = 0; k < bytes; k++) sum = (uint8_t)(sum + ((const uint8_t *)t.data)[k]);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const cml_et_options options = {.threads = 1, .memory_limit = 1 << 24, .instruction_limit = 2000};
  cml_mapping *mapping;
  cml_et_program *program = NULL;
  cml_error error;
  if (size < 2) return 0;
  void *copy = aligned_alloc(64, (size + 63) & ~(size_t)63);
  if (!copy) return 0;
  memcpy(copy, data + 1, size - 1);
  if (cml_mapping_own(copy, size - 1, "fuzz.pte", &mapping, &error)) return free(copy), 0;
  if (!cml_et_program_create(mapping, NULL, &options, &program, &error)) {
    const cml_pte *pte = cml_et_program_pte(program);
    for (uint32_t i = 0; i < pte->method_count && i < 4; i++) {
      cml_et_method *m;
      char name[64];
      snprintf(name, sizeof name, "%.*s", (int)pte->methods[i].name.size, pte->methods[i].name.data);
      if (cml_et_method_load(program, name, &m, &error)) continue;
      run(m, data[0]);
      run(m, data[0] * 31u + 7);
      cml_et_method_unload(m);
    }
    cml_et_program_close(program);
  }
  cml_mapping_unref(mapping);
  return 0;
}
