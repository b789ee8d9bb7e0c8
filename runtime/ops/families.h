/* The operator families, each a table `cml_ops_NAME` in runtime/ops/ops_NAME.c. */
#ifndef CML_FAMILIES_H
#define CML_FAMILIES_H

#include "op.h"

#define CML_FAMILY_MAP(X) \
  X(basic) \
  X(linear) \
  X(internal) \
  X(integer) \
  X(chain) \
  X(conv) \
  X(conv_pair) \
  X(pool) \
  X(attention) \
  X(classify) \
  X(control) \
  X(conv_quantized) \
  X(list) \
  X(state) \
  X(unary) \
  X(binary) \
  X(activation) \
  X(reduce) \
  X(norm) \
  X(constexpr) \
  X(image) \
  X(image_sample) \
  X(random) \
  X(sort) \
  X(shape) \
  X(make) \
  X(move) \
  X(join) \
  X(slice) \
  X(gather) \
  X(scatter) \
  X(detect) \
  X(recurrent)

#define CML_FAMILY_DECLARE(name) extern const cml_op_family cml_ops_##name;
CML_FAMILY_MAP(CML_FAMILY_DECLARE)
#undef CML_FAMILY_DECLARE

#endif
