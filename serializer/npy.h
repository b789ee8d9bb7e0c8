/* NumPy's .npy and .npz, the format in which tensors come and go.
 * Source: numpy.lib.format, versions 1.0 to 3.0. */
#ifndef CML_NPY_H
#define CML_NPY_H

#include "buffer.h"
#include "dtype.h"
#include "arena.h"
#include "mapping.h"

/* The header of a version 1.0 .npy for a C-contiguous array, padded so that the data behind it is aligned to 64 bytes.
 * F16 F32 F64, the integers of 8 to 64 bits and BOOL have NumPy types; BF16 is written as uint16; sub-byte types are CML_UNSUPPORTED. */
CML_API CML_NODISCARD cml_status cml_npy_header(cml_dtype dtype, size_t rank, const int64_t *dims, cml_buffer *out, cml_error *err);

typedef struct cml_array {
  const char *name;   /* of the member, without ".npy" */
  cml_dtype dtype;    /* STRING: NumPy's U and S arrays, converted to UTF-8 */
  size_t rank;
  int64_t *dims;
  bool complex;       /* NumPy's complex64 or complex128: a last dimension of 2 that NumPy has not, real and imaginary parts */
  void *data;         /* row-major, little-endian (Fortran order and big-endian are converted); may point into the mapping */
  uint64_t bytes;
} cml_array;

typedef struct cml_npz cml_npz;
typedef struct cml_npz_writer cml_npz_writer;

/* Reads a .npz (zip of .npy) or a single .npy (its name is then ""). */
CML_API CML_NODISCARD cml_status cml_npz_open(const char *path, cml_npz **out, cml_error *err);
/* The same of a file that is mapped, which the result holds. */
CML_API CML_NODISCARD cml_status cml_npz_parse(cml_mapping *file, cml_npz **out, cml_error *err);
CML_API void cml_npz_close(cml_npz *npz);
CML_API size_t cml_npz_count(const cml_npz *npz);
CML_API const cml_array *cml_npz_at(const cml_npz *npz, size_t i);
CML_API const cml_array *cml_npz_find(const cml_npz *npz, const char *name);
/* One .npy in a span (for fuzzing and for members); the array lives in the arena or in the span. */
CML_API CML_NODISCARD cml_status cml_npy_parse(cml_span bytes, cml_arena *arena, cml_array *out, cml_error *err);

/* Writes a .npz (stored, not compressed) under a temporary name and renames it at close. */
CML_API CML_NODISCARD cml_status cml_npz_create(const char *path, cml_npz_writer **out, cml_error *err);
CML_API CML_NODISCARD cml_status cml_npz_add(cml_npz_writer *writer, const char *name, cml_dtype dtype, size_t rank,
                                             const int64_t *dims, const void *data, cml_error *err);
/* F32 or F64 parts, the last dimension being 2: written as NumPy's complex64 or complex128 without it. */
CML_API CML_NODISCARD cml_status cml_npz_add_complex(cml_npz_writer *writer, const char *name, cml_dtype dtype, size_t rank,
                                                     const int64_t *dims, const void *data, cml_error *err);
/* Publishes the file, or on failure (or when `keep` is false) removes it. Frees the writer in any case. */
CML_API CML_NODISCARD cml_status cml_npz_finish(cml_npz_writer *writer, bool keep, cml_error *err);

#endif
