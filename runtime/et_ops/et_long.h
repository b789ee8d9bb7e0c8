/* Transforms of lines that are too long to be taken out as a whole, for et_fourier.c: some hundred KB of scratch memory whatever their length. */
#ifndef CML_ET_LONG_H
#define CML_ET_LONG_H

#include "et_lines.h"

/* A line's n numbers from part `first` on, `step` parts apart, imaginary parts `im` behind. */
typedef struct cml_et_place {
  int64_t n, first, step, im;
} cml_et_place;

/* Whether lines of n numbers of a grid can be transformed where they lie. */
bool cml_et_stays(const cml_et_grid *g, int64_t n);
/* All lines of the grid to which w goes (p->first: from where w is), in place, results times scale. */
CML_NODISCARD cml_status cml_et_in_place(cml_et_call *c, cml_et_grid *g, const cml_et_walk *w, const cml_et_place *p, double sign, double scale, cml_error *err);

/* Otherwise: each number is loaded several times, so that results must lie elsewhere. By groups of rows of a matrix, or by a chirp. */
typedef struct cml_et_detour {
  int64_t n, rows, columns, group; /* group: rows at a time; 0: by the chirp */
  double sign;
  cml_et_transform down, across;
  void *kept;                      /* group lines */
  cml_et_chirp chirp;
} cml_et_detour;
CML_NODISCARD cml_status cml_et_detour_prepare(cml_et_call *c, cml_et_detour *d, const cml_fourier_kernels *k, int64_t n, double sign, cml_error *err);
/* The first `wanted` results. */
void cml_et_detour_run(cml_et_detour *d, const cml_et_long_line *l, int64_t wanted);

#endif
