/* Element types in MIL.proto: their numbers, and where their elements are stored. */
#include "mil_fields.h"

static const uint8_t dtype_numbers[CML_DTYPE_COUNT] = {
    [CML_BOOL] = 1, [CML_STRING] = 2, [CML_F16] = 10, [CML_F32] = 11, [CML_F64] = 12, [CML_BF16] = 13, [CML_I8] = 21,
    [CML_I16] = 22, [CML_I32] = 23,   [CML_I64] = 24, [CML_I4] = 25,  [CML_U8] = 31,  [CML_U16] = 32,  [CML_U32] = 33,
    [CML_U64] = 34, [CML_U4] = 35,    [CML_U2] = 36,  [CML_U1] = 37,  [CML_U6] = 38,  [CML_U3] = 39};

uint32_t cml_mil_dtype_number(cml_dtype type) { return (unsigned)type < CML_DTYPE_COUNT ? dtype_numbers[type] : 0; }

cml_dtype cml_mil_dtype_from_number(uint64_t number) {
  for (unsigned i = 1; i < CML_DTYPE_COUNT; i++)
    if (dtype_numbers[i] == number) return (cml_dtype)i;
  return CML_DTYPE_NONE;
}

cml_mil_storage cml_mil_storage_for(cml_dtype type) {
  switch (type) {
  case CML_F32: return CML_STORAGE_FLOATS;
  case CML_F64: return CML_STORAGE_DOUBLES;
  case CML_I16: case CML_U16: case CML_I32: return CML_STORAGE_INTS;
  case CML_I64: case CML_U64: return CML_STORAGE_LONGS;
  case CML_BOOL: return CML_STORAGE_BOOLS;
  case CML_STRING: return CML_STORAGE_STRINGS;
  default: return CML_STORAGE_BYTES;
  }
}
