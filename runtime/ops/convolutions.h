/* How the arguments of a convolution are understood, for other rows than conv's own. Internal to runtime/. */
#ifndef CML_CONVOLUTIONS_H
#define CML_CONVOLUTIONS_H

#include "conv.h"
#include "op.h"

/* For a row that begins with conv's parameters (x, weight, bias, strides, pad_type, pad, dilations, groups), x with its channels last: sizes
 * of an ordinary convolution, out_pixel and places filled; those that are unknown are -1. x and weight must have a known rank.
 * between: channels that the weights meet in place of x's; -1: x's own. */
CML_NODISCARD cml_status cml_conv_read_last(const cml_call *c, int64_t between, cml_conv *out, cml_error *err);

#endif
