/* What elementwise operators share: one driver for every arity, element type and broadcast.
 *
 * The output is cut into chunks of CML_CHUNK elements. For each chunk every operand is brought into a lane (float,
 * int32, byte, or int64 for other integers): a pointer into the tensor where that is already the right thing, else converted and broadcast into a
 * buffer on the stack. Then one map, a plain loop over contiguous arrays, computes the chunk, and the result is stored
 * in the output's element type. So a map is written once, for float, and serves float16, every broadcast and every
 * number of threads; float16 is rounded once, at the store. Where a kernel takes float16 as it is, the map has a second form,
 * which saves the conversions.
 *
 * Where a kernel's function of two operands is all that is done, rows of them go to the kernel as they lie in memory, one that repeats as a scalar.
 *
 * Several maps may run one after the other over each chunk: a step whose operand is the output of an earlier one takes that from a
 * buffer in the first-level cache, rounded to the output's type, and only the last output is written to memory. */
#ifndef CML_ELEMENTWISE_H
#define CML_ELEMENTWISE_H

#include "kernels.h"
#include "op.h"

enum { CML_CHUNK = 1024, CML_MAX_OPERANDS = 3, CML_MAX_CHAIN = 8, CML_MAX_CHAIN_OPERANDS = 10, CML_MAX_MAP_PARAMS = 4 };

/* The element type in which a map sees its operands and leaves its result. */
typedef enum cml_lane { CML_LANE_F32, CML_LANE_I32 /* of int32 alone */, CML_LANE_I64, CML_LANE_BYTE, CML_LANE_F16 /* the driver's own */ } cml_lane;

typedef struct cml_scalars {
  float f[3];
  int32_t i[2];
} cml_scalars;

/* out[0..n) from in[k][0..n). out may be in[k]. n is at most CML_CHUNK. */
typedef void cml_map(void *out, const void *const *in, size_t n, const cml_scalars *scalars);

/* Loops over contiguous arrays where out may be an input, but never a shifted one. */
#if defined(__clang__)
#define CML_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define CML_INDEPENDENT _Pragma("GCC ivdep")
#endif

/* A map over float16 operands by way of floats; the result is `half` as well, or what the map leaves. */
void cml_map_widened(cml_map *map, size_t arity, bool half, void *out, const void *const *in, size_t n, const cml_scalars *s);

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

/* The same for floats, and function_half for float16. */
#define CML_HALF(function, arity, half)                                                                 \
  static void function##_half(void *out, const void *const *in, size_t n, const cml_scalars *s) {       \
    cml_map_widened(function, arity, half, out, in, n, s);                                              \
  }
#define CML_FLOAT1(function, expression) CML_MAP1(function, float, float, expression) CML_HALF(function, 1, true)
#define CML_FLOAT2(function, expression) CML_MAP2(function, float, float, expression) CML_HALF(function, 2, true)
/* Maps that are a kernel's function; a, b: its parameters, of s. */
#define CML_KERNEL1(function, name, a, b)                                                               \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    (void)s;                                                                                            \
    cml_kernels_get()->unary(CML_UNARY_##name, in[0], out, n, a, b);                                    \
  }                                                                                                     \
  static void function##_half(void *out, const void *const *in, size_t n, const cml_scalars *s) {       \
    (void)s;                                                                                            \
    cml_kernels_get()->unary_f16(CML_UNARY_##name, in[0], out, n, a, b);                                \
  }
#define CML_KERNEL2(function, name)                                                                     \
  static void function(void *out, const void *const *in, size_t n, const cml_scalars *s) {              \
    (void)s;                                                                                            \
    cml_kernels_get()->binary(CML_BINARY_##name, in[0], in[1], out, n);                                 \
  }                                                                                                     \
  static void function##_half(void *out, const void *const *in, size_t n, const cml_scalars *s) {       \
    (void)s;                                                                                            \
    cml_kernels_get()->binary_f16(CML_BINARY_##name, in[0], in[1], out, n);                             \
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
/* The lane in which a type computes: floats in F32, int32 in I32, bool in BYTE, the rest in I64. */
cml_lane cml_lane_of(cml_dtype dtype);

/* ---- the driver ---- */

typedef struct cml_elementwise {
  cml_map *map;  /* NULL: hands the single operand on (a conversion) */
  cml_map *half; /* the same where operands of lane F32 are float16, and the output is unless its lane is another */
  bool kernel;   /* map and half are the kernels' `function` of two operands */
  cml_binary function;
  size_t arity;
  const cml_tensor *in[CML_MAX_OPERANDS]; /* each broadcastable to out's shape */
  cml_lane lanes[CML_MAX_OPERANDS], out_lane;
  cml_tensor *out;
  cml_scalars scalars;
} cml_elementwise;
void cml_elementwise_run(const cml_elementwise *e, cml_pool *pool);
/* steps[0..count), count at most CML_MAX_CHAIN, all of one shape: steps[i].in[k] may be steps[j].out with j < i, whose data is not touched
 * and whose lane must be the operand's; at most CML_MAX_CHAIN_OPERANDS others. More than one step: no lane is I64. Only the last output's
 * data is written; it may be an operand's of the same shape. */
void cml_elementwise_run_chain(const cml_elementwise *steps, size_t count, cml_pool *pool);
/* The run function of rows that have `elementwise`. */
CML_NODISCARD cml_status cml_elementwise_call(cml_call *c, cml_error *err);

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
