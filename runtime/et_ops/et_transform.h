/* Transforms of lines of numbers in scratch memory, for et_fourier.c: by themselves, or as many at once as a vector has lanes. Those with
 * a large prime factor go by a convolution, long ones of them block by block. */
#ifndef CML_ET_TRANSFORM_H
#define CML_ET_TRANSFORM_H

#include "et_op.h"
#include "kernels.h"

/* kernels/fourier.h says how lines lie in memory. */
typedef struct cml_et_transform {
  int64_t n;
  const cml_fourier_kernels *k;
  cml_fourier_line line;      /* of lines in lanes: `down` alone */
  void *x, *y;                /* a line each, which may have n + 1 numbers; or n + 1 numbers in lanes */
  struct cml_et_chirp *chirp; /* how it is done with a large prime factor; or NULL */
} cml_et_transform;

/* Whether lines of n numbers can be transformed at once, by themselves or in lanes. */
bool cml_et_fits_line(const cml_fourier_kernels *k, int64_t n);
bool cml_et_fits_lanes(const cml_fourier_kernels *k, int64_t n);
/* As how many columns a line of n numbers is transformed. */
int64_t cml_et_columns(const cml_fourier_kernels *k, int64_t n);
/* About how much memory a line of n takes, and lines of n in lanes. */
int64_t cml_et_line_bytes(const cml_fourier_kernels *k, int64_t n);
int64_t cml_et_lane_bytes(const cml_fourier_kernels *k, int64_t n);
/* Lines of n of which that is true, in temporary memory, about 720 KB at most. */
CML_NODISCARD cml_status cml_et_transform_prepare(cml_et_call *c, cml_et_transform *t, const cml_fourier_kernels *k, int64_t n, double sign, bool in_lanes, cml_error *err);
/* Of what lies in y (a line) or x (in lanes), which is lost; x or y, where the results are. */
void *cml_et_transform_line(const cml_et_transform *t);
void *cml_et_transform_lanes(const cml_et_transform *t);
static inline void *cml_et_other(const cml_et_transform *t, const void *one) { return one == t->x ? t->y : t->x; }

/* Where number i of floats or doubles lies. */
static inline char *cml_et_part_at(const cml_fourier_kernels *k, const void *x, int64_t i) { return (char *)(uintptr_t)x + (size_t)i * k->width; }

/* exp(sign 2 pi i k / n) for count k from 0 on: their real parts, then the imaginary ones. */
void cml_et_roots(const cml_fourier_kernels *k, int64_t n, double sign, int64_t count, void *to);
/* Temporary memory for pairs of reals; NULL where there is none. */
void *cml_et_reals(cml_et_call *c, const cml_fourier_kernels *k, int64_t pairs);

/* A convolution with a chirp. */
typedef struct cml_et_chirp {
  int64_t n, block;      /* block: numbers that are convolved at a time */
  double sign;
  cml_et_transform t;    /* of 2 block numbers */
  void *spectrum, *sum;  /* a line of 2 block numbers each; sum: NULL where there is one block */
  void *factors;         /* of one block: the chirp, a line of `block` numbers */
  int64_t held, base;    /* what results are away from the numbers that spectrum is for, -1: none; the number that factors begin with */
} cml_et_chirp;

/* A line whose numbers are loaded, and its results stored, some at a time, as parts. */
typedef struct cml_et_long_line {
  void (*load)(const struct cml_et_long_line *l, int64_t first, int64_t count, void *re, void *im);
  void (*store)(const struct cml_et_long_line *l, int64_t first, int64_t step, int64_t count, void *re, void *im); /* may change what it is given */
  void *context;
} cml_et_long_line;

CML_NODISCARD cml_status cml_et_chirp_prepare(cml_et_call *c, cml_et_chirp *h, const cml_fourier_kernels *k, int64_t n, double sign, cml_error *err);
/* The first `wanted` results, block by block: each number is loaded once for each block. */
void cml_et_chirp_run(cml_et_chirp *h, const cml_et_long_line *l, int64_t wanted);

#endif
