/* Transforms of numbers in memory, for et_fourier.c: short lines at once, long ones with a large prime factor block by block. */
#ifndef CML_ET_TRANSFORM_H
#define CML_ET_TRANSFORM_H

#include "et_complex.h"
#include "kernels.h"

enum { CML_ET_LONG = 1 << 13 }; /* numbers of a line that is taken out as a whole, at most; twice as many without large prime factors */
bool cml_et_short(int64_t n);

/* exp(sign 2 pi i k / n) */
cml_et_pair cml_et_root(int64_t k, int64_t n, double sign);

/* The first `count` of the n-th roots, sign as above; false for want of memory. */
bool cml_et_take_roots(cml_et_call *c, int64_t n, double sign, int64_t count, cml_et_pair *out);

/* Temporary memory for that many; NULL where there is none. */
cml_et_pair *cml_et_pairs(cml_et_call *c, int64_t count);

typedef struct cml_et_transform {
  int64_t n;
  const cml_kernels *kernels;
  cml_fourier f;
  cml_et_pair *in, *out;         /* n each; out: NULL with a chirp */
  struct cml_et_chirp *chirp;    /* how it is done with a large prime factor, in place of f; or NULL */
} cml_et_transform;

/* Of n numbers, in temporary memory: about 48 bytes for each; with a large prime factor up to 340, of which n must have no more than CML_ET_LONG. */
CML_NODISCARD cml_status cml_et_transform_prepare(cml_et_call *c, cml_et_transform *t, int64_t n, double sign, cml_error *err);
/* Of what is in `in`, which is lost; where the results are. */
cml_et_pair *cml_et_transform_run(const cml_et_transform *t);

/* A convolution with a chirp. */
typedef struct cml_et_chirp {
  int64_t n, block;            /* block: numbers that are convolved at a time */
  double sign;
  cml_et_transform t;          /* of 2 block numbers */
  cml_et_pair *spectrum, *sum; /* 2 block each */
  cml_et_pair *factors;        /* n: the chirp; NULL where there are more blocks than one */
  int64_t held;                /* what results are away from the numbers that spectrum is for; -1: none */
} cml_et_chirp;

/* A line whose numbers are loaded, and its results stored, some at a time. */
typedef struct cml_et_long_line {
  void (*load)(const struct cml_et_long_line *l, int64_t first, int64_t count, cml_et_pair *to);
  void (*store)(const struct cml_et_long_line *l, int64_t first, int64_t count, const cml_et_pair *from);
  void *context;
} cml_et_long_line;

/* 1.5 MB at most, whatever n is. */
CML_NODISCARD cml_status cml_et_chirp_prepare(cml_et_call *c, cml_et_chirp *h, int64_t n, double sign, cml_error *err);
/* The first `wanted` results, block by block: each number is loaded once for each block. */
void cml_et_chirp_run(cml_et_chirp *h, const cml_et_long_line *l, int64_t wanted);

#endif
