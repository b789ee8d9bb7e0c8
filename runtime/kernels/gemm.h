/* The matrix product C = act(A B + bias + residual), driven in blocks that fit the caches, over the tables' tiles.
 *
 * B is packed once (weights, when the model is prepared) into panels of tile_columns columns: [panel][depth][tile_columns],
 * in float or, where the weights are float16, still in float16: halves are widened a panel at a time, or brought into parts for matrix units. A is read in place where it
 * is float with rows at hand, else a block of it is widened or transposed into scratch memory. */
#ifndef CML_GEMM_H
#define CML_GEMM_H

#include "kernels.h"
#include "parallel.h"

/* What follows the product before the result is stored: bias by column, the residual (elementwise, in C's layout and type),
 * then the function. */
typedef struct cml_epilogue {
  const float *bias;
  const void *residual;
  size_t residual_stride;
  cml_unary activation; /* CML_UNARY_COPY: none */
  float a, b;
} cml_epilogue;

typedef struct cml_gemm {
  size_t rows, columns, depth;
  const void *a;        /* (r, k) at a[r * a_stride + k * a_depth_stride]; with in_parts halves' values where b is of halves */
  size_t a_stride, a_depth_stride;
  bool a_half;
  const void *b;        /* packed */
  bool b_half;
  bool in_parts;        /* by matrix units, where cml_parts_pay */
  size_t b_column;      /* not 0: it has at most CML_SLIM columns, which lie one after the other, so many elements apart */
  void *c;              /* (r, j) at c[r * c_stride + j] */
  size_t c_stride;
  bool c_half;
  bool more;            /* adds to what c holds, which are floats */
  size_t scratch;       /* bytes that each slot has, a multiple of 64; 0: cml_gemm_scratch. With in_parts CML_PARTS_ROOM and more */
  cml_epilogue after;
} cml_gemm;

/* Bytes of a packed matrix, with room for vectors to read past the end. */
size_t cml_pack_bytes(const cml_kernels *k, size_t depth, size_t columns, bool half);
/* Packs panels [first, last) of B; (d, j) at b[d * depth_stride + j * column_stride], halves when b_half; to halves only then. */
void cml_pack_panels(const cml_kernels *k, void *to, bool half, const void *b, bool b_half, size_t depth, size_t columns,
                     size_t depth_stride, size_t column_stride, size_t first, size_t last);
size_t cml_panel_count(const cml_kernels *k, size_t columns);
/* Whether such a product, of halves with halves or of floats, is faster by matrix units. */
bool cml_parts_pay(const cml_kernels *k, bool half, int64_t rows, size_t depth, size_t columns);

/* Rows of A as neighbouring floats, to[r * to_stride + d], whatever A's strides are. */
void cml_gemm_stage(const cml_kernels *k, const void *a, bool half, size_t stride, size_t depth_stride, size_t rows, size_t depth, float *to, size_t to_stride);

/* Bytes of scratch for one thread. */
size_t cml_gemm_scratch(const cml_kernels *k);
size_t cml_gemm_scratch_without_parts(void); /* what is enough where none is in_parts; with less, under 3 KiB at least, fewer rows are taken at a time */
/* `count` products of one shape on the pool's threads, at most `slots` of them, each with scratch of its own. */
void cml_gemm_run(const cml_kernels *k, const cml_gemm *g, size_t count, cml_pool *pool, void *scratch, size_t slots);

/* Finishes a block of float results: residual, function, and the store to c (as halves when c_half); block may be c. The bias
 * and a clamp are the tiles' own work. */
void cml_epilogue_store(const cml_kernels *k, const cml_epilogue *e, float *block, size_t block_stride, size_t rows, size_t columns,
                        void *c, size_t c_stride, bool c_half, size_t row, size_t column);
/* The clamp that the tiles can do for this function (RELU, CLIP, none), and whether that is all of it. */
bool cml_epilogue_bounds(const cml_epilogue *e, float *low, float *high);
/* The same when tiles leave the residual to what follows: no clamp then. */
bool cml_epilogue_clamp(const cml_epilogue *e, float *low, float *high);

#endif
