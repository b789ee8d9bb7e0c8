/* Views: where the elements of one shape lie inside a tensor's memory. Slices, permutations, diagonals, flips are views; copying
 * operators move one view to another. */
#ifndef CML_ET_VIEW_H
#define CML_ET_VIEW_H

#include "et_op.h"

enum { CML_ET_VIEW_RANK = 2 * CML_PTE_MAX_RANK }; /* room for dimensions split in two */

typedef struct cml_et_view {
  const cml_et_tensor *t;
  int rank;
  int64_t sizes[CML_ET_VIEW_RANK], strides[CML_ET_VIEW_RANK]; /* elements; any sign, 0 repeats */
  int64_t offset;                                             /* elements */
} cml_et_view;

/* All of a tensor. */
cml_et_view cml_et_view_of(const cml_et_tensor *t);
int64_t cml_et_view_numel(const cml_et_view *v);
/* Elements start, start + step, … of one dimension. */
void cml_et_view_slice(cml_et_view *v, int axis, int64_t start, int64_t count, int64_t step);
/* One element of a dimension, which goes. */
void cml_et_view_select(cml_et_view *v, int axis, int64_t index);
/* A new dimension of `size` repeats before `axis`. */
void cml_et_view_insert(cml_et_view *v, int axis, int64_t size, int64_t stride);
/* Dimension `axis` of outer * inner elements becomes two. */
void cml_et_view_split(cml_et_view *v, int axis, int64_t inner);
/* order: rank entries. */
void cml_et_view_permute(cml_et_view *v, const int *order);
/* A tensor for the elementwise driver, whose memory may have gaps. */
const cml_et_tensor *cml_et_view_tensor(const cml_et_view *v, cml_et_local *out);
/* to[i] = from[i] for all i of one shape, converted as torch's copy_ does. No element of `to` may be there twice. */
void cml_et_view_move(cml_et_call *c, const cml_et_view *to, const cml_et_view *from);
/* Resizes out to the view's shape and copies. The types must be equal. */
cml_status cml_et_view_emit(cml_et_call *c, const cml_et_view *from, cml_et_tensor *out, cml_error *err);
/* What an operator that writes in contiguous order writes to: the output itself where it lies so, else temporary memory, which
 * cml_et_dense_done copies. NULL when there is no memory. */
cml_et_tensor *cml_et_dense(cml_et_call *c, cml_et_tensor *out, cml_et_local *local);
void cml_et_dense_done(cml_et_tensor *out, const cml_et_tensor *dense);
/* Fails unless the types are equal. */
cml_status cml_et_same_type(const cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, cml_error *err);

#endif
