/* Tensors of the runtime: row-major, in the element type that the program says; contiguous, but for those whose rows lie apart. */
#ifndef CML_TENSOR_H
#define CML_TENSOR_H

#include <string.h>

#include "dtype.h"

enum { CML_MAX_RANK = 16 };

typedef struct cml_list cml_list;

/* While shapes are inferred, rank may be CML_RANK_UNKNOWN and a dim CML_DIM_UNKNOWN (both -1); data is NULL unless
 * the value is already known. While operators run, everything is known. Not owned: whoever made it knows. */
typedef struct cml_tensor {
  cml_dtype dtype;  /* NONE for a list */
  int32_t rank;
  int64_t dims[CML_MAX_RANK];
  int64_t row;      /* elements from one row of the last dimension to the next, where it is part of a wider tensor; 0: as many as the row has, always so outside of a run */
  void *data;       /* packed elements (sub-byte types low bits first); bool one byte; STRING: cml_string each */
  cml_list *list;   /* a list value (make_list …), else NULL */
  const struct cml_tensor *keys; /* a dictionary (classify): its keys, strings or int64, one for each element; else NULL */
} cml_tensor;

/* A list value: tensors of one type. Owned by the session. */
struct cml_list {
  struct cml_account *account; /* that its memory counts against, or NULL */
  cml_dtype dtype;
  cml_tensor *items; /* data NULL where nothing was written yet; else shared with copies of the list: never changed */
  int64_t length, capacity;
  int32_t element_rank; /* shape of elements as declared; dims may be -1 */
  int64_t element_dims[CML_MAX_RANK];
};

/* Elements from one row of the last dimension to the next. */
static inline int64_t cml_row_step(const cml_tensor *t) { return t->row ? t->row : t->dims[t->rank - 1]; }

/* Product of dims; 1 for rank 0. Only for tensors whose dims are known and were checked (their product fits). */
static inline int64_t cml_tensor_count(const cml_tensor *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++) n *= t->dims[i];
  return n;
}
static inline bool cml_tensor_known_shape(const cml_tensor *t) {
  if (t->rank < 0) return false;
  for (int32_t i = 0; i < t->rank; i++)
    if (t->dims[i] < 0) return false;
  return true;
}
static inline bool cml_tensor_same_shape(const cml_tensor *a, const cml_tensor *b) {
  if (a->rank != b->rank) return false;
  for (int32_t i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}
/* Bytes of the data; false when a dim is unknown or negative, or the product is over 2^48. */
CML_API bool cml_tensor_bytes(const cml_tensor *t, uint64_t *out);

/* Element i of an integer, bool or float tensor of any type, converted; i must be in range. */
CML_API double cml_tensor_get(const cml_tensor *t, int64_t i);
CML_API int64_t cml_tensor_get_int(const cml_tensor *t, int64_t i);
/* Stores with conversion: floats round to nearest even, integers wrap, bool is value != 0. */
CML_API void cml_tensor_set(cml_tensor *t, int64_t i, double value);
CML_API void cml_tensor_set_int(cml_tensor *t, int64_t i, int64_t value);
/* Converts count elements; types must be byte-sized or larger (no strings). Float to integer truncates toward zero, saturating;
 * to bool: != 0. */
CML_API void cml_convert(void *to, cml_dtype to_type, const void *from, cml_dtype from_type, int64_t count);

#endif
