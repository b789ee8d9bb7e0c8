/* Reads weight.bin (MIL blob storage, version 2) record by record, with every check that the format allows.
 *
 * A 64-byte header {u32 count, u32 version 2}, then blobs: a 64-byte record {u32 0xDEADBEEF, u32 type, u64 size in bytes,
 * u64 offset of the data, u64 bits of padding behind the last element of a sub-byte type} and the data, both aligned to 64.
 * MIL refers to a blob by its record's offset. */
#ifndef CML_BLOB_H
#define CML_BLOB_H

#include "dtype.h"
#include "span.h"

enum { CML_BLOB_ALIGNMENT = 64, CML_BLOB_HEADER = 64, CML_BLOB_RECORD = 64, CML_BLOB_VERSION = 2 };
#define CML_BLOB_SENTINEL UINT32_C(0xDEADBEEF)

/* The number of an element type in blob storage, or 0 when it cannot be stored (bool is stored as uint8). */
CML_API uint32_t cml_blob_type_number(cml_dtype type);

typedef struct cml_blob {
  uint64_t record;     /* offset of the record */
  uint64_t offset;     /* offset of the data */
  uint32_t type;       /* the file's number */
  cml_dtype dtype;     /* CML_DTYPE_NONE: a type that cml has not, say an 8-bit float */
  const char *name;    /* of the type, also where dtype is NONE */
  uint64_t count;      /* elements */
  cml_span data;       /* packed elements */
} cml_blob;

typedef struct cml_blobs {
  cml_span file;
  uint32_t count; /* as the header says */
  uint32_t done;
  uint64_t next;  /* where the next record should be */
} cml_blobs;

/* Checks the header. CML_INVALID, CML_UNSUPPORTED (another version). */
CML_API CML_NODISCARD cml_status cml_blobs_begin(cml_span file, cml_blobs *out, cml_error *err);
/* The next blob; *out_found is false behind the last. Errors carry the offset in the file. */
CML_API CML_NODISCARD cml_status cml_blobs_next(cml_blobs *blobs, cml_blob *out, bool *out_found, cml_error *err);
/* The blob whose record is at `offset`. */
CML_API CML_NODISCARD cml_status cml_blob_at(cml_span file, uint64_t offset, cml_blob *out, cml_error *err);
/* Element i of a sub-byte blob, sign-extended when its type is signed; i < count. */
CML_API int cml_blob_element(const cml_blob *blob, uint64_t i);

#endif
