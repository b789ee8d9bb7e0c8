/* How the arguments of a convolution are understood, for other rows than conv's own. Internal to runtime/. */
#ifndef CML_CONVOLUTIONS_H
#define CML_CONVOLUTIONS_H

#include "conv.h"
#include "op.h"

/* Parameters 3 to 7 of such rows. */
#define CML_CONV_WINDOW_PARAMS                                             \
  {"strides", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},    \
  {"pad_type", CML_M_STRING, CML_CONST | CML_OPTIONAL, 0},                 \
  {"pad", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},        \
  {"dilations", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},  \
  {"groups", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},

/* For a row that begins with conv's parameters (x, weight, bias, strides, pad_type, pad, dilations, groups), x with its channels last: sizes
 * of an ordinary convolution, out_pixel and places filled; those that are unknown are -1. x and weight must have a known rank.
 * between: channels that the weights meet in place of x's; -1: x's own. */
CML_NODISCARD cml_status cml_conv_read_last(const cml_call *c, int64_t between, cml_conv *out, cml_error *err);

/* In prepare: the bias as floats, kept; NULL: c->keep_status says why. */
const float *cml_conv_keep_bias(cml_call *c, const cml_tensor *bias, cml_error *err);

#endif
