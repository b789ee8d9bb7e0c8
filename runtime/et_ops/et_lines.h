/* Lines of numbers in tensors for the Fourier transforms: where they lie, and the ways from there into scratch memory and back. */
#ifndef CML_ET_LINES_H
#define CML_ET_LINES_H

#include "et_complex.h"
#include "et_transform.h"

/* A tensor's numbers: complex ones, whose imaginary parts lie `im` elements of `parts` behind the real ones, or reals (im 0). */
typedef struct cml_et_grid {
  cml_et_tensor parts;
  int64_t im, strides[CML_PTE_MAX_RANK]; /* in parts */
} cml_et_grid;
void cml_et_grid_of(const cml_et_tensor *x, cml_et_grid *g);

/* Those for its type: of floats, or of doubles. */
const cml_fourier_kernels *cml_et_kernels_of(const cml_et_grid *g);

/* Whether their elements need no conversion. */
static inline bool cml_et_native(const cml_fourier_kernels *k, const cml_et_grid *g) { return cml_et_width(&g->parts) == k->width; }

/* Lines of two grids along one dimension, some side by side at a time: where the first of these begin. */
typedef struct cml_et_walk {
  int64_t left;                                 /* times */
  int64_t from, to;
  int64_t lanes, lane_from, lane_to;            /* how many are side by side, and how far apart */
  int rank;                                     /* of the dimensions that are counted through */
  int64_t sizes[CML_PTE_MAX_RANK], at[CML_PTE_MAX_RANK], step_from[CML_PTE_MAX_RANK], step_to[CML_PTE_MAX_RANK];
} cml_et_walk;
cml_et_walk cml_et_walk_of(size_t rank, const int64_t *sizes, int dim, const cml_et_grid *from, const cml_et_grid *to);
void cml_et_walk_on(cml_et_walk *w);

/* `count` numbers from part `first` on, `step` parts apart, into a line (kernels/fourier.h); imaginary parts are 0 where im is. Type: the kernels'. */
void cml_et_load_range(const cml_fourier_kernels *k, const cml_et_grid *g, int64_t first, int64_t step, int64_t im, int64_t count, void *line, size_t apart);
/* The way back; without imaginary parts where im is 0. */
void cml_et_store_range(const cml_fourier_kernels *k, cml_et_grid *g, int64_t first, int64_t step, int64_t im, int64_t count, const void *line, size_t apart);
/* The same of lines that begin `lane` parts apart, with numbers in lanes. */
void cml_et_load_lanes(const cml_fourier_kernels *k, const cml_et_grid *g, int64_t first, int64_t step, int64_t im, int64_t lane, int64_t count, int64_t lanes, void *x);
void cml_et_store_lanes(const cml_fourier_kernels *k, cml_et_grid *g, int64_t first, int64_t step, int64_t im, int64_t lane, int64_t count, int64_t lanes, const void *x);

#endif
