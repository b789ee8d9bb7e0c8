/* One driver for elementwise operators of the virtual machine: unary, binary, ternary, comparisons.
 *
 * Maps are plain loops over arrays of a computing type (float, double, int64_t). The driver walks the output's memory in chunks; an
 * operand that lies as the output does and is of the computing type is handed over in place, everything else (broadcast,
 * another order, another type) is brought into a buffer on the stack first. */
#ifndef CML_ET_ELEMENTWISE_H
#define CML_ET_ELEMENTWISE_H

#include <stdatomic.h>

#include "elementwise.h"
#include "et_op.h"
#include "wide.h"

enum { CML_ET_OPERANDS = 3, CML_ET_CHUNK = 1024 };

typedef struct cml_et_scalars {
  double d[3];
  int64_t i[3];
  atomic_bool *failed; /* a map sets it where an element has no result (integer division by zero) */
} cml_et_scalars;

/* out[0..n) from in[k][0..n); out may be an in[k]. */
typedef void cml_et_map(void *out, const void *const *in, size_t n, const cml_et_scalars *s);

/* For each computing type; NULL where an operator does not take it. */
typedef struct cml_et_maps {
  cml_et_map *f32, *f64, *i64;
  bool bytes; /* results are uint8_t 0 or 1, whatever the computing type */
} cml_et_maps;

/* A map is a loop written once: for the CPU at least, and with AVX2 where the kernels in use have vectors of 8 (wide.h). Without FMA:
 * the results are the same. */
#define CML_ET_MAP(name, O, I, OPERANDS, expression)                                                                      \
  CML_WIDE_INLINE void name##_loop(void *out, const void *const *in, size_t n, const cml_et_scalars *s) {                 \
    O *o = out;                                                                                                           \
    OPERANDS##_ARRAYS(I)                                                                                                  \
    (void)s;                                                                                                              \
    CML_INDEPENDENT for (size_t i = 0; i < n; i++) {                                                                      \
      OPERANDS(I)                                                                                                         \
      o[i] = (O)(expression);                                                                                             \
    }                                                                                                                     \
  }                                                                                                                       \
  CML_WIDE static void name##_wide(void *out, const void *const *in, size_t n, const cml_et_scalars *s) { name##_loop(out, in, n, s); } \
  static void name(void *out, const void *const *in, size_t n, const cml_et_scalars *s) {                                 \
    (cml_wide() ? name##_wide : name##_loop)(out, in, n, s);                                                              \
  }
#define CML_ET_ONE_ARRAYS(I) const I *xs = in[0];
#define CML_ET_TWO_ARRAYS(I) CML_ET_ONE_ARRAYS(I) const I *ys = in[1];
#define CML_ET_THREE_ARRAYS(I) CML_ET_TWO_ARRAYS(I) const I *zs = in[2];
#define CML_ET_ONE(I) const I x = xs[i];
#define CML_ET_TWO(I) CML_ET_ONE(I) const I y = ys[i];
#define CML_ET_THREE(I) CML_ET_TWO(I) const I z = zs[i];
#define CML_ET_MAP1(name, O, I, expression) CML_ET_MAP(name, O, I, CML_ET_ONE, expression)
#define CML_ET_MAP2(name, O, I, expression) CML_ET_MAP(name, O, I, CML_ET_TWO, expression)
#define CML_ET_MAP3(name, O, I, expression) CML_ET_MAP(name, O, I, CML_ET_THREE, expression)

/* A Scalar as a tensor of rank 0. */
typedef struct cml_et_scalar_tensor {
  cml_et_local local;
  union { int64_t i; double d; uint8_t b; } value;
} cml_et_scalar_tensor;
const cml_et_tensor *cml_et_number_tensor(cml_et_number number, cml_et_scalar_tensor *out);

/* Computes in `dtype`: broadcasts the operands (tensors or views: any strides), resizes out to the result, refuses an out that
 * cannot hold the results' type, runs. */
cml_status cml_et_elementwise(cml_et_call *c, const cml_et_maps *maps, cml_dtype dtype, const cml_et_tensor *const *in, size_t arity,
                              const cml_et_scalars *scalars, cml_et_tensor *out, cml_error *err);

/* torch.can_cast(from, to) as out= arguments need it; fails with words. */
cml_status cml_et_castable(const cml_et_call *c, cml_dtype from, const cml_et_tensor *out, cml_error *err);

/* The type that operators with real results compute in: the type itself, float32 for integers. */
static inline cml_dtype cml_et_real_type(cml_dtype t) { return cml_dtype_is_float(t) ? t : CML_F32; }

#endif
