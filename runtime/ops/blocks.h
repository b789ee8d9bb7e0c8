/* Tables that belong to blocks of a tensor: scales, offsets and palettes of compressed weights.
 *
 * A table of counts [c0, c1, ...] over data of dims [d0, d1, ...] divides each dim into ck blocks of dk / ck elements; an
 * element takes the entry of its block. Per tensor (all ones), per channel and block-wise are the same thing. Dims are
 * merged where neighbours allow it, so that in row-major order long runs of elements share an entry. */
#ifndef CML_BLOCKS_H
#define CML_BLOCKS_H

#include "tensor.h"

typedef struct cml_blocks {
  int32_t rank;
  int64_t dims[CML_MAX_RANK], sizes[CML_MAX_RANK]; /* of the merged data; elements of a block along each dim */
  int64_t strides[CML_MAX_RANK];                   /* of the table's entries */
} cml_blocks;

/* Where an element lies, to walk on from. */
typedef struct cml_block_position {
  int64_t index[CML_MAX_RANK];
  int64_t row; /* entry of the row's first block */
} cml_block_position;

/* counts[k] divides dims[k]; all are at least 1 where a dim is not 0. */
static inline void cml_blocks_init(cml_blocks *b, int32_t rank, const int64_t *dims, const int64_t *counts) {
  int64_t stride = 1, blocks = 1; /* blocks: of the last merged dim */
  int32_t n = 0;
  int64_t d[CML_MAX_RANK], s[CML_MAX_RANK], t[CML_MAX_RANK];
  for (int32_t k = rank - 1; k >= 0; k--) {
    if (dims[k] <= 1 || counts[k] < 1) continue; /* nothing is looked up in an empty tensor */
    bool whole = n && blocks == 1;               /* what lies behind is one block */
    bool single = n && counts[k] == dims[k];     /* a block for each index here */
    if (whole || single) {
      s[n - 1] = whole ? d[n - 1] * (dims[k] / counts[k]) : s[n - 1];
      if (whole) t[n - 1] = stride;
      d[n - 1] *= dims[k];
      blocks *= counts[k];
    } else {
      d[n] = dims[k];
      s[n] = dims[k] / counts[k];
      t[n++] = stride;
      blocks = counts[k];
    }
    stride *= counts[k];
  }
  if (!n) d[0] = s[0] = t[0] = 1, n = 1;
  b->rank = n;
  for (int32_t k = 0; k < n; k++) b->dims[k] = d[n - 1 - k], b->sizes[k] = s[n - 1 - k] ? s[n - 1 - k] : 1, b->strides[k] = t[n - 1 - k];
}

static inline void cml_blocks_row(const cml_blocks *b, cml_block_position *p) {
  p->row = 0;
  for (int32_t k = 0; k < b->rank - 1; k++) p->row += p->index[k] / b->sizes[k] * b->strides[k];
}

static inline void cml_blocks_seek(const cml_blocks *b, int64_t at, cml_block_position *p) {
  for (int32_t k = b->rank - 1; k >= 0; k--) {
    p->index[k] = at % b->dims[k];
    at /= b->dims[k];
  }
  cml_blocks_row(b, p);
}

/* The entry at p; *run: how many elements from here on share it. */
static inline int64_t cml_blocks_entry(const cml_blocks *b, const cml_block_position *p, int64_t *run) {
  int32_t last = b->rank - 1;
  int64_t size = b->sizes[last], block = p->index[last] / size;
  *run = (block + 1) * size - p->index[last];
  return p->row + block * b->strides[last];
}

/* Steps over n elements, at most what the run was. */
static inline void cml_blocks_step(const cml_blocks *b, cml_block_position *p, int64_t n) {
  int32_t k = b->rank - 1;
  p->index[k] += n;
  if (p->index[k] < b->dims[k]) return;
  while (k > 0 && p->index[k] >= b->dims[k]) {
    p->index[k--] = 0;
    p->index[k]++;
  }
  cml_blocks_row(b, p);
}

#endif
