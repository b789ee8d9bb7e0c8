/* How the arguments of a convolution are understood, for other rows than conv's own. Internal to runtime/. */
#ifndef CML_CONVOLUTIONS_H
#define CML_CONVOLUTIONS_H

#include "conv.h"
#include "op.h"

/* For a row that begins with conv's parameters (x, weight, bias, strides, pad_type, pad, dilations, groups), x with its channels last: sizes
 * of an ordinary convolution, out_pixel and places filled; those that are unknown are -1. x and weight must have a known rank. */
CML_NODISCARD cml_status cml_conv_read_last(const cml_call *c, cml_conv *out, cml_error *err);

#endif
