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
/* Elements in the order of their shape, whatever the dim order: runs of equal steps, one after the other. */
typedef struct cml_et_run {
  const cml_et_tensor *t;
  int64_t step;                           /* from one element of a run to the next */
  int64_t place, at, size;                /* in memory; within the run; of all of the run */
  int64_t index[CML_PTE_MAX_RANK];
} cml_et_run;
/* Begins at element `first` of the shape. */
void cml_et_run_from(cml_et_run *r, const cml_et_tensor *t, int64_t first);
/* The next at most `most` elements that lie in one run: their number, and where in memory the first is. There must be some left. */
int64_t cml_et_run_take(cml_et_run *r, int64_t most, int64_t *place);
/* Elements first .. first + n of the shape, as the computing type and back. */
void cml_et_load_run_f32(float *out, const cml_et_tensor *t, int64_t first, int64_t n);
void cml_et_load_run_f64(double *out, const cml_et_tensor *t, int64_t first, int64_t n);
void cml_et_store_run_f32(cml_et_tensor *t, int64_t first, int64_t n, const float *in);
void cml_et_store_run_f64(cml_et_tensor *t, int64_t first, int64_t n, const double *in);
/* n elements from one tensor to another of its type that lies elsewhere. */
void cml_et_move_run(cml_et_tensor *to, int64_t to_first, const cml_et_tensor *from, int64_t from_first, int64_t n);
/* `count` elements of `width` bytes, steps in elements. */
void cml_et_copy_steps(void *to, int64_t to_step, const void *from, int64_t from_step, int64_t count, size_t width);
/* Fails unless the types are equal. */
cml_status cml_et_same_type(const cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, cml_error *err);

#endif
