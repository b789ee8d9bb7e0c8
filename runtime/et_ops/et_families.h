/* The operator families of the virtual machine, each a table `cml_et_ops_NAME` in runtime/et_ops/et_NAME.c. */
#ifndef CML_ET_FAMILIES_H
#define CML_ET_FAMILIES_H

#include "et_op.h"

#define CML_ET_FAMILY_MAP(X) \
  X(prim) \
  X(dim_order) \
  X(unary) \
  X(binary) \
  X(shape) \
  X(llama) \
  X(quantized) \
  X(make) \
  X(reduce) \
  X(along) \
  X(index) \
  X(image) \
  X(pool) \
  X(linear) \
  X(conv) \
  X(norm) \
  X(complex) \
  X(fourier)

#define CML_ET_FAMILY_DECLARE(name) extern const cml_et_family cml_et_ops_##name;
CML_ET_FAMILY_MAP(CML_ET_FAMILY_DECLARE)
#undef CML_ET_FAMILY_DECLARE

#endif
