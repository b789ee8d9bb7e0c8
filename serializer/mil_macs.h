/* How much an operation multiplies. */
#ifndef CML_MIL_MACS_H
#define CML_MIL_MACS_H

#include "mil_names.h"

/* Multiply-adds of one run of an operation: of conv, conv_transpose, linear, matmul, einsum, rnn, gru, lstm and
 * scaled_dot_product_attention; 0 for all others, whose work is of the order of their outputs' size. Nested blocks are
 * not counted in. False when a shape is not known or the product overflows. The formulae stand in mil_macs.c. */
CML_API bool cml_mil_macs(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out);

#endif
