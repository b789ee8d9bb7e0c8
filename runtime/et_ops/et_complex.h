/* Complex tensors as pairs of doubles: what the operators on complex numbers (et_complex.c) and the Fourier transforms (et_fourier.c)
 * share. */
#ifndef CML_ET_COMPLEX_H
#define CML_ET_COMPLEX_H

#include "et_op.h"

typedef struct cml_et_pair { double re, im; } cml_et_pair;

static inline cml_et_pair cml_et_times(cml_et_pair a, cml_et_pair b) { return (cml_et_pair){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static inline cml_et_pair cml_et_plus(cml_et_pair a, cml_et_pair b) { return (cml_et_pair){a.re + b.re, a.im + b.im}; }

/* The parts of a complex tensor as one real tensor of twice the elements, in memory's order. */
static inline cml_et_tensor cml_et_parts_of(const cml_et_tensor *t) {
  cml_et_tensor parts = *t;
  parts.dtype = cml_et_part_type(t);
  parts.complex = 0;
  return parts;
}

/* `count` pairs whose real parts lie `step` elements of a real tensor apart from element `at` on, and the imaginary ones `im` behind. */
void cml_et_load_parts(cml_et_pair *out, const cml_et_tensor *parts, int64_t at, int64_t im, int64_t step, int64_t count);
/* The way back, times `scale`. */
void cml_et_store_parts(cml_et_tensor *parts, int64_t at, int64_t im, int64_t step, int64_t count, const cml_et_pair *in, double scale);

/* The same of a complex tensor, in its elements. */
static inline void cml_et_load_pairs(cml_et_pair *out, const cml_et_tensor *t, int64_t at, int64_t step, int64_t count) {
  cml_et_tensor parts = cml_et_parts_of(t);
  cml_et_load_parts(out, &parts, 2 * at, 1, 2 * step, count);
}
static inline void cml_et_store_pairs(cml_et_tensor *t, int64_t at, int64_t step, int64_t count, const cml_et_pair *in, double scale) {
  cml_et_tensor parts = cml_et_parts_of(t);
  cml_et_store_parts(&parts, 2 * at, 1, 2 * step, count, in, scale);
}

/* Lines along `dim`, one after another: where each begins in two tensors that differ in that dimension alone. */
typedef struct cml_et_lines {
  const cml_et_tensor *a, *b;
  int dim;
  int64_t at[CML_PTE_MAX_RANK], first_a, first_b, left;
} cml_et_lines;
cml_et_lines cml_et_lines_of(const cml_et_tensor *a, const cml_et_tensor *b, int dim);
void cml_et_next_line(cml_et_lines *l);

typedef struct cml_et_dims {
  int list[CML_PTE_MAX_RANK];
  size_t count;
} cml_et_dims;
/* Argument i: a list of dimensions, each once; none is an error. */
CML_NODISCARD cml_status cml_et_take_dims(cml_et_call *c, size_t i, int rank, cml_et_dims *d, cml_error *err);

#endif
