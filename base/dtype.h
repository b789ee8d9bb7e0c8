/* Element types of tensors: one list for every format that cml reads.
 *
 * name: as cml prints it and as .mil text writes it. bits: of one element; sub-byte types are packed, low bits
 * first (Core ML's blob storage). STRING elements are cml_string in memory. */
#ifndef CML_DTYPE_H
#define CML_DTYPE_H

#include "checked.h"
#include "error.h"

/* name, text in MIL, bits */
#define CML_DTYPE_MAP(X) \
  X(F16, "fp16", 16)     \
  X(F32, "fp32", 32)     \
  X(F64, "fp64", 64)     \
  X(BF16, "bf16", 16)    \
  X(I8, "int8", 8)       \
  X(I16, "int16", 16)    \
  X(I32, "int32", 32)    \
  X(I64, "int64", 64)    \
  X(U8, "uint8", 8)      \
  X(U16, "uint16", 16)   \
  X(U32, "uint32", 32)   \
  X(U64, "uint64", 64)   \
  X(BOOL, "bool", 8)     \
  X(STRING, "string", 128) \
  X(I4, "int4", 4)       \
  X(U1, "uint1", 1)      \
  X(U2, "uint2", 2)      \
  X(U3, "uint3", 3)      \
  X(U4, "uint4", 4)      \
  X(U6, "uint6", 6)

typedef enum cml_dtype {
  CML_DTYPE_NONE,
#define CML_DTYPE_ENUM(name, text, bits) CML_##name,
  CML_DTYPE_MAP(CML_DTYPE_ENUM)
#undef CML_DTYPE_ENUM
  CML_DTYPE_COUNT
} cml_dtype;

/* An element of a STRING tensor: UTF-8, not owned, a NUL follows. */
typedef struct cml_string {
  const char *data;
  size_t size;
} cml_string;

CML_API const char *cml_dtype_name(cml_dtype type); /* "fp16", ...; "?" for others */
CML_API unsigned cml_dtype_bits(cml_dtype type);    /* 0 for NONE */
CML_API cml_dtype cml_dtype_by_name(const char *name, size_t size); /* CML_DTYPE_NONE when unknown */
/* Bytes of `count` packed elements, rounded up; false on overflow. */
CML_API bool cml_dtype_bytes(cml_dtype type, uint64_t count, uint64_t *out);

static inline bool cml_dtype_is_float(cml_dtype t) { return t == CML_F16 || t == CML_F32 || t == CML_F64 || t == CML_BF16; }
static inline bool cml_dtype_is_signed(cml_dtype t) { return (t >= CML_I8 && t <= CML_I64) || t == CML_I4; }
static inline bool cml_dtype_is_integer(cml_dtype t) {
  return (t >= CML_I8 && t <= CML_U64) || (t >= CML_I4 && t <= CML_U6);
}

#endif
