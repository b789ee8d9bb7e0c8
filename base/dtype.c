/* The rows of CML_DTYPE_MAP, looked up. */
#include "dtype.h"

#include <string.h>

static const struct {
  const char *name;
  unsigned bits;
} types[CML_DTYPE_COUNT] = {
    [CML_DTYPE_NONE] = {"?", 0},
#define CML_DTYPE_ROW(name, text, bits) [CML_##name] = {text, bits},
    CML_DTYPE_MAP(CML_DTYPE_ROW)
#undef CML_DTYPE_ROW
};

const char *cml_dtype_name(cml_dtype type) { return types[(unsigned)type < CML_DTYPE_COUNT ? type : 0].name; }
unsigned cml_dtype_bits(cml_dtype type) { return types[(unsigned)type < CML_DTYPE_COUNT ? type : 0].bits; }

cml_dtype cml_dtype_by_name(const char *name, size_t size) {
  for (unsigned i = 1; i < CML_DTYPE_COUNT; i++)
    if (strlen(types[i].name) == size && !memcmp(types[i].name, name, size)) return (cml_dtype)i;
  return CML_DTYPE_NONE;
}

bool cml_dtype_bytes(cml_dtype type, uint64_t count, uint64_t *out) {
  uint64_t bits;
  if (!cml_mul(count, cml_dtype_bits(type), &bits) || bits > UINT64_MAX - 7) return false;
  *out = (bits + 7) / 8;
  return true;
}
