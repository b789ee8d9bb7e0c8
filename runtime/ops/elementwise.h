/* What elementwise operators share: one driver for every arity, element type and broadcast.
 *
 * The output is cut into chunks of CML_CHUNK elements. For each chunk every operand is brought into a lane (float,
 * int64 or byte): a pointer into the tensor where that is already the right thing, else converted and broadcast into a
 * buffer on the stack. Then one map, a plain loop over contiguous arrays, computes the chunk, and the result is stored
 * in the output's element type. So a map is written once, for float, and serves float16, every broadcast and every
 * number of threads; float16 is rounded once, at the store. */
#ifndef CML_ELEMENTWISE_H
#define CML_ELEMENTWISE_H

#include "kernels.h"
#include "op.h"

enum { CML_CHUNK = 1024, CML_MAX_OPERANDS = 3 };

/* The element type in which a map sees its operands and leaves its result. */
typedef enum cml_lane { CML_LANE_F32, CML_LANE_I64, CML_LANE_BYTE } cml_lane;

typedef struct cml_scalars {
  float f[3];
  int64_t i[2];
} cml_scalars;

/* out[0..n) from in[k][0..n). out may be in[k]. n is at most CML_CHUNK. */
typedef void cml_map(void *out, const void *const *in, size_t n, const cml_scalars *scalars);

/* Loops over contiguous arrays where out may be an input, but never a shifted one. */
#if defined(__clang__)
#define CML_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define CML_INDEPENDENT _Pragma("GCC ivdep")
#endif

/* Defines a map of one or two float or integer operands, from an expression of x, y and s. */
#define CML_MAP1(function, to, from, expression)                                                        \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    to *o = out;                                                                                        \
    const from *xs = in[0];                                                                             \
    (void)s;                                                                                            \
    CML_INDEPENDENT for (size_t i = 0; i < n; i++) {                                                    \
      const from x = xs[i];                                                                             \
      o[i] = (to)(expression);                                                                          \
    }                                                                                                   \
  }
#define CML_MAP2(function, to, from, expression)                                                        \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    to *o = out;                                                                                        \
    const from *xs = in[0], *ys = in[1];                                                                \
    (void)s;                                                                                            \
    CML_INDEPENDENT for (size_t i = 0; i < n; i++) {                                                    \
      const from x = xs[i], y = ys[i];                                                                  \
      o[i] = (to)(expression);                                                                          \
    }                                                                                                   \
  }

/* A map that is a kernel's function with two of the scalars for parameters. */
#define CML_KERNEL1(function, name, a, b)                                                               \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    (void)s;                                                                                            \
    cml_kernels_get()->unary(CML_UNARY_##name, in[0], out, n, a, b);                                    \
  }
#define CML_KERNEL2(function, name)                                                                     \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    (void)s;                                                                                            \
    cml_kernels_get()->binary(CML_BINARY_##name, in[0], in[1], out, n);                                 \
  }

/* ---- elements in and out of lanes ---- */

/* Elements [at, at + n) of a tensor's data as floats; any numeric type, packed ones too. */
void cml_load_f32(float *to, const void *data, cml_dtype dtype, int64_t at, size_t n);
void cml_load_i64(int64_t *to, const void *data, cml_dtype dtype, int64_t at, size_t n);
/* Elements [at, at + n) of packed unsigned integers of 1, 2, 3, 4, 6 or 8 bits, low bits first; fast where at is a multiple of 8. */
void cml_unpack(uint8_t *to, const void *data, unsigned bits, int64_t at, size_t n);
/* The other way: float16 rounds to nearest even, integers truncate and saturate; bool is != 0. */
void cml_store_f32(void *data, cml_dtype dtype, int64_t at, const float *from, size_t n);
/* Integers wrap; floats round. */
void cml_store_i64(void *data, cml_dtype dtype, int64_t at, const int64_t *from, size_t n);
/* The lane in which a type computes: floats in F32, bool in BYTE, the rest in I64. */
cml_lane cml_lane_of(cml_dtype dtype);

/* ---- the driver ---- */

typedef struct cml_elementwise {
  cml_map *map;  /* NULL: hands the single operand on (a conversion) */
  size_t arity;
  const cml_tensor *in[CML_MAX_OPERANDS]; /* each broadcastable to out's shape */
  cml_lane lanes[CML_MAX_OPERANDS], out_lane;
  cml_tensor *out;
  cml_scalars scalars;
} cml_elementwise;
void cml_elementwise_run(const cml_elementwise *e, cml_pool *pool);

/* ---- checks that many operators need ---- */

/* Each argument of the parameters in the bit mask, when present, must be known and hold exactly one element. */
CML_NODISCARD cml_status cml_check_scalars(const cml_call *c, uint32_t params, cml_error *err);
/* Output dims must be representable together with the element type; refuses what could never be allocated. */
CML_NODISCARD cml_status cml_check_output(const cml_call *c, size_t i, cml_error *err);
/* The axis in param (or `otherwise`), from 0 to rank - 1; *out is -1 while the rank is unknown. */
CML_NODISCARD cml_status cml_check_axis(const cml_call *c, unsigned param, int64_t otherwise, int32_t rank, int32_t *out, cml_error *err);
/* "[1, ?, 3]" into a buffer, for messages. */
const char *cml_shape_text(const cml_tensor *t, char *buffer, size_t size);
/* Where a word stands in a NULL-terminated list, ignoring case; -1 when it does not. */
int cml_word_index(const char *word, const char *const *words);

#endif
