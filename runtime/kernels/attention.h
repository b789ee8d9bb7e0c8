/* softmax(scale Q K^T + mask) V for many heads, without the matrix of scores: blocks of queries meet blocks of keys, and running
 * maxima and sums correct what was added before (the streaming softmax). */
#ifndef CML_ATTENTION_H
#define CML_ATTENTION_H

#include "gemm.h"

enum { CML_ATTENTION_DIMS = 4 };

/* Rows of `depth` neighbouring elements; the row of head h and position s begins at base + sum of index[i] * batch[i] + s * row, where
 * index are h's coordinates in the batch dims. */
typedef struct cml_attention_view {
  const void *data;
  int64_t batch[CML_ATTENTION_DIMS], row;
} cml_attention_view;

/* What is added to the scores of a query; bool: where it is false, `fill` takes their place. */
typedef struct cml_attention_mask {
  enum { CML_MASK_NONE, CML_MASK_BOOL, CML_MASK_F16, CML_MASK_F32 } type;
  cml_attention_view view; /* row 0: the same for all queries */
  int64_t column;          /* 1, or 0 when one value serves all keys */
} cml_attention_mask;

enum { CML_ATTENTION_MASKS = 2, CML_ATTENTION_VIEWS = 4 + CML_ATTENTION_MASKS };
/* Numbers that say how a call's operands lie, and of each an offset, strides of the heads, and distances of rows and columns. */
enum { CML_ATTENTION_VIEW_NUMBERS = CML_ATTENTION_DIMS + 3, CML_ATTENTION_NUMBERS = CML_ATTENTION_DIMS + 4 + CML_ATTENTION_VIEWS * CML_ATTENTION_VIEW_NUMBERS };

typedef struct cml_attention {
  int64_t dims[CML_ATTENTION_DIMS]; /* of the heads; unused ones 1 */
  size_t queries, keys, depth, value_depth;
  float scale, fill;                /* fill: -infinity leaves keys out */
  bool half;                        /* q, k, v, out are float16 */
  cml_attention_view q, k, v, out;
  cml_attention_mask masks[CML_ATTENTION_MASKS];
} cml_attention;

size_t cml_attention_scratch(const cml_kernels *k, const cml_attention *a); /* bytes, for one thread */
void cml_attention_run(const cml_kernels *k, const cml_attention *a, cml_pool *pool, void *scratch, size_t slots);

#endif
