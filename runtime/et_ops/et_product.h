/* Matrix products of the virtual machine, of any element type and layout, in pieces: beside the tensors themselves a product takes
 * about a megabyte of temporary memory, whatever its size. */
#ifndef CML_ET_PRODUCT_H
#define CML_ET_PRODUCT_H

#include "et_op.h"

/* A matrix in memory of any type: element (r, k) at first + r * row + k * column. */
typedef struct cml_et_matrix {
  const cml_et_tensor *t;
  int64_t first, rows, columns, row, column;
} cml_et_matrix;

/* The last two dimensions, from element `first` on. */
static inline cml_et_matrix cml_et_matrix_of(const cml_et_tensor *t, int64_t first) {
  int k = t->rank;
  return (cml_et_matrix){t, first, t->sizes[k - 2], t->sizes[k - 1], t->strides[k - 2], t->strides[k - 1]};
}
static inline cml_et_matrix cml_et_transposed(cml_et_matrix m) {
  return (cml_et_matrix){m.t, m.first, m.columns, m.rows, m.column, m.row};
}

/* Temporary memory of products, used again for the next ones of the same shapes and types (bmm). Zero at first. */
typedef struct cml_et_room {
  void *a, *b, *packed, *block, *bias;
  cml_et_crew crew; /* scratch of gemm.h's threads */
} cml_et_room;

/* What a product p becomes before it is rounded to the output's type: alpha p + beta add, where add, of the product's type, has the
 * output's shape (strides may be 0), and is not read where beta is 0. */
typedef struct cml_et_blend {
  cml_et_number alpha, beta;
  cml_et_matrix add;
} cml_et_blend;

/* out = a b, or what `blend` makes of it (NULL: a b), all of one type. Floats are multiplied in float32, or in float64 when they are
 * that; integers wrap in 64 bits. out may be blend's add, element for element, but shares no memory with a and b. */
CML_NODISCARD cml_status cml_et_product(cml_et_call *c, cml_et_room *room, cml_et_matrix a, cml_et_matrix b, const cml_et_blend *blend,
                                        cml_et_tensor *to, cml_et_matrix out, cml_error *err);

/* The same for float64 and integers alone (et_product64.c). */
cml_status cml_et_product64(cml_et_call *c, cml_et_room *room, cml_et_matrix a, cml_et_matrix b, const cml_et_blend *blend, cml_et_tensor *to,
                            cml_et_matrix out, cml_error *err);

/* A block of a product in the computing type, `columns` wide, put to its place in out at (row, column); its numbers are lost. */
void cml_et_put_f32(float *block, int64_t rows, int64_t columns, const cml_et_blend *blend, cml_et_tensor *to, const cml_et_matrix *out,
                    int64_t row, int64_t column);

#endif
