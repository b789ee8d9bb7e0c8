/* The copy engine: one description of a copy between two strided arrays serves transpose, slices, concat, tile, pad,
 * space_to_depth and whatever else only moves elements.
 *
 * A copy is a loop nest: for all i, to[sum i_k to_k] = from[sum i_k from_k]. Loops of one step vanish and neighbours that
 * walk both arrays as one are joined; then the innermost pair decides how it is done: whole runs by memcpy, two crossing
 * unit strides as a blocked transpose (or, of two or three rows, woven into one), the rest by plain loops over elements of 1, 2, 4, 8 or 16 bytes. */
#ifndef CML_STRIDED_H
#define CML_STRIDED_H

#include "op.h"

enum { CML_STRIDED_LOOPS = 2 * CML_MAX_RANK };

typedef struct cml_strided {
  int32_t loops;
  size_t size;                       /* bytes of an element: 1, 2, 4, 8 or 16 */
  int64_t count[CML_STRIDED_LOOPS];  /* steps of each loop; 0: nothing is copied */
  int64_t to[CML_STRIDED_LOOPS];     /* elements between steps in the output: positive, no element written twice */
  int64_t from[CML_STRIDED_LOOPS];   /* in the input: any, 0 repeats, negative walks back */
} cml_strided;

static inline void cml_strided_loop(cml_strided *s, int64_t count, int64_t to, int64_t from) {
  s->count[s->loops] = count;
  s->to[s->loops] = to;
  s->from[s->loops++] = from;
}

/* to and from point at the elements of step 0 of all loops; the arrays do not overlap, or to equals from: nothing moves then. */
void cml_strided_copy(const cml_strided *s, void *to, const void *from, cml_pool *pool);

/* to[i * n + k] = from[k][i] for i < count, k < n. The arrays do not overlap. Only for numbers of arrays and sizes of elements that kernels have
 * instructions for: a copy of each array is faster else. */
enum { CML_ZIP_MOST = 8 };
static inline bool cml_strided_zips(size_t n, size_t size) { return (size == 2 || size == 4) && (n == 2 || n == 3 || n == 4 || n == CML_ZIP_MOST); }
void cml_strided_zip(void *to, const void *const *from, int64_t n, size_t size, int64_t count, cml_pool *pool);

/* Sets `count` elements of `size` bytes to the one at `value`. */
void cml_fill_elements(void *to, const void *value, size_t size, int64_t count, cml_pool *pool);

/* Runs of `bytes`, `to_step` and `from_step` bytes apart. */
void cml_copy_runs(void *to, size_t to_step, const void *from, size_t from_step, size_t bytes, size_t runs);

/* memcpy on several threads. */
void cml_copy_bytes(void *to, const void *from, size_t bytes, cml_pool *pool);

/* ---- shapes ---- */

/* Row-major strides in elements, by the tensor's `row`. */
void cml_row_strides(const cml_tensor *t, int64_t *strides);
/* Offset of the i-th step, row by row, of a walk over n dims. */
static inline int64_t cml_step_offset(int64_t i, int32_t n, const int64_t *dims, const int64_t *strides) {
  int64_t at = 0;
  for (int32_t k = n - 1; k >= 0; k--) {
    at += i % dims[k] * strides[k];
    i /= dims[k];
  }
  return at;
}
/* Product of dims[begin, end); -1 when one is unknown; saturates at INT64_MAX. */
int64_t cml_dims_product(const int64_t *dims, int32_t begin, int32_t end);
/* d * factor + term where d may be unknown (then so is the result). False when the result is negative or above 2^47. */
bool cml_dim_affine(int64_t d, int64_t factor, int64_t term, int64_t *out);
/* Bytes of an element of a tensor whose elements are whole bytes. */
static inline size_t cml_element_size(const cml_tensor *t) { return cml_dtype_bits(t->dtype) / 8; }
/* Reads a vector argument whose value is known: rank 1 (or a scalar as one element) of at most `room` integers. Fails, naming
 * the parameter, when there are more, or other than `expected` where that is not negative. */
CML_NODISCARD cml_status cml_arg_vector(const cml_call *c, unsigned param, int64_t expected, int64_t *out, size_t room, size_t *count,
                                        cml_error *err);

/* Types that data-moving operators take: up to iOS16, and from iOS17 on. */
#define CML_M_MOVE15 (CML_M_FLOAT | CML_MASK(I32) | CML_M_BOOL)
#define CML_M_MOVE17 (CML_M_MOVE15 | CML_MASK(I8) | CML_MASK(U8) | CML_MASK(I16) | CML_MASK(U16))
/* Integers that describe positions: up to iOS16, and from iOS17 on. */
#define CML_M_AT15 CML_MASK(I32)
#define CML_M_AT17 (CML_MASK(I32) | CML_MASK(I16) | CML_MASK(I8))

#endif
