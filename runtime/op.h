/* Operators are rows of a table: name, opsets, parameters, and what to do.
 *
 * An operator is asked in this order:
 *   infer    given the inputs' types and shapes (and data, where the value is already known), sets type and shape of each
 *            output. Called at load, where dims may be unknown (-1) and most data is NULL, again for each new set of input
 *            shapes, and right before run when the outputs' shape depends on data. It must cope with unknown dims (then
 *            the outputs' dims that depend on them are unknown) and is where everything wrong with the arguments is refused.
 *   prepare  optional; once for each loaded program, after the first infer: packs constant weights into memory of its own
 *            (cml_call_keep), shared by all sessions. Activations' shapes may be unknown.
 *   run      computes the outputs, whose memory is already there and never overlaps an input's, unless the row says IN_PLACE.
 *            Allocates nothing; scratch memory is asked for in infer. Where infer could not know an output's shape even
 *            with all data at hand (non_zero, …), run calls cml_out_alloc.
 *   parts    optional; where arguments lie in the output as they are, or outputs in an argument: the plan may then give both the
 *            same memory, and run finds what it would copy in its place.
 *   elementwise  optional; what run does as a map from the arguments' elements to the output's (elementwise.h), so that a chain
 *            of such operators can run in one pass over memory.
 *
 * Rows lie in tables, one a family, in runtime/ops/; the look-up, the list of tests and docs/operators.md derive from them. */
#ifndef CML_OP_H
#define CML_OP_H

#include "mil.h"
#include "parallel.h"
#include "tensor.h"

struct cml_elementwise;
typedef struct cml_op cml_op;
typedef struct cml_call cml_call;
typedef struct cml_runner cml_runner;

/* Opsets by deployment target; CoreML5 is iOS15. */
typedef enum cml_opset { CML_IOS15 = 15, CML_IOS16 = 16, CML_IOS17 = 17, CML_IOS18 = 18, CML_IOS26 = 26 } cml_opset;

/* Masks of element types that a parameter takes. */
#define CML_MASK(t) (UINT32_C(1) << CML_##t)
#define CML_M_FLOAT (CML_MASK(F16) | CML_MASK(F32))
#define CML_M_INT (CML_MASK(I8) | CML_MASK(I16) | CML_MASK(I32) | CML_MASK(I64) | CML_MASK(U8) | CML_MASK(U16) | CML_MASK(U32) | CML_MASK(U64))
#define CML_M_SUBBYTE (CML_MASK(I4) | CML_MASK(U1) | CML_MASK(U2) | CML_MASK(U3) | CML_MASK(U4) | CML_MASK(U6))
#define CML_M_BOOL CML_MASK(BOOL)
#define CML_M_STRING CML_MASK(STRING)
#define CML_M_NUMBER (CML_M_FLOAT | CML_M_INT)
#define CML_M_ANY (CML_M_NUMBER | CML_M_BOOL | CML_M_STRING | CML_M_SUBBYTE | CML_MASK(F64) | CML_MASK(BF16))
#define CML_M_LIST UINT32_C(1) /* a list value: dtype NONE */

enum cml_param_flags {
  CML_OPTIONAL = 1,
  CML_CONST = 2,    /* its value must be known when the program is loaded */
  CML_VARIADIC = 4, /* any number of values (concat's values, while_loop's loop_vars) */
  CML_STATE = 8,    /* a state: run may write through it */
  CML_VECTOR = 16,  /* of rank 1: axes, strides, shapes, … */
};

typedef struct cml_param {
  const char *name;
  uint32_t types; /* CML_M_… */
  uint8_t flags;
  uint8_t group;  /* parameters of one group other than 0 have one element type */
} cml_param;

enum cml_op_flags {
  CML_OP_IMPURE = 1,   /* random, or reads or writes state: never folded, never dropped, keeps its order */
  CML_OP_VIEW = 2,     /* output 0 is input 0's bytes under another shape: no run needed, memory is shared */
  CML_OP_IN_PLACE = 4, /* output 0 may be in the memory of an input of the same shape and type */
  CML_OP_CONTROL = 8,  /* has blocks */
  CML_OP_INTERNAL = 16,/* made by graph passes; not in any opset */
  CML_OP_CONSTEXPR = 32, /* decompresses a constant */
  CML_OP_IN_PLACE_FIRST = 64, /* output 0 may be in the memory of argument 0, when it has its shape and type; of no other */
};

/* What lies in what: parts of one run of bytes, or (row not 0) of `row` elements in each row of the whole's last dimension, which
 * they are parts of. Called with all shapes known; offsets in bytes, one a part. */
typedef enum cml_parts { CML_PARTS_NONE, CML_PARTS_OF_OUTPUT /* arguments of parameter 0 in output 0 */, CML_PARTS_OF_ARGUMENT /* outputs in argument 0 */ } cml_parts;

struct cml_op {
  const char *name;
  uint8_t since, until; /* first and last opset (cml_opset) with this row; until 0: no last */
  uint16_t flags;
  uint8_t param_count, min_outputs, max_outputs; /* max 255: any number */
  const cml_param *params;
  cml_status (*infer)(cml_call *call, cml_error *err);
  cml_status (*prepare)(cml_call *call, cml_error *err);
  cml_status (*run)(cml_call *call, cml_error *err);
  cml_parts (*parts)(const cml_call *call, uint64_t *offsets, int64_t *row);
  void (*elementwise)(const cml_call *call, struct cml_elementwise *out); /* such a row heeds all tensors' `row` */
};

/* One operation with its arguments at hand. */
struct cml_call {
  const cml_op *op;
  const char *name;             /* the operation's name in the program, for messages */
  int opset;
  const cml_tensor **args;      /* arguments of parameter i: args[first[i]] up to args[first[i+1]] */
  const uint16_t *first;        /* param_count + 1 of them */
  cml_tensor **outs;
  size_t out_count;
  const bool *arg_constant;     /* beside args: the value never changes (weights); valid in prepare and later */
  void *prepared;               /* from prepare */
  uint64_t unread;              /* set by prepare: bit i: run reads no data of argument i any more (the first 64; see cml_arg_unread) */
  bool spaces_rows;             /* set by infer: run heeds the `row` of output 0; of no other is it set */
  uint64_t spaced_args;         /* set by infer: bit i: run heeds the `row` of argument i (the first 64); no other argument has one */
  uint64_t scratch_size;        /* set by infer: bytes of scratch for these shapes; 0 none */
  void *scratch;                /* 64-byte aligned, scratch_size bytes, contents undefined */
  const cml_tensor *declared;   /* outputs' types as the program declares them (out_count of them), or NULL */
  cml_pool *pool;               /* threads, for cml_parallel */
  cml_runner *runner;           /* blocks, random state, memory: see below; NULL in infer */
  struct cml_kept **kept;       /* where cml_call_keep chains its memory */
  cml_status keep_status;       /* why cml_call_keep last gave NULL */
  struct cml_account *account;  /* that it counts against, or NULL */
  const struct cml_step *step;  /* the executable's own */
  const cml_call *compressed;   /* in prepare: the constexpr_ operation behind an argument without data, which was left to this row */
  struct cml_pack_cache *cache; /* in prepare, where there is one: see pack_cache.h */
};

/* ---- arguments ---- */

/* The parameter's (first) argument, or NULL when absent. */
static inline const cml_tensor *cml_arg(const cml_call *c, unsigned param) {
  return c->first[param] < c->first[param + 1] ? c->args[c->first[param]] : NULL;
}
static inline size_t cml_arg_count(const cml_call *c, unsigned param) { return (size_t)(c->first[param + 1] - c->first[param]); }
static inline const cml_tensor *cml_arg_at(const cml_call *c, unsigned param, size_t k) { return c->args[c->first[param] + k]; }
static inline bool cml_arg_is_constant(const cml_call *c, unsigned param) {
  return c->first[param] < c->first[param + 1] && c->arg_constant && c->arg_constant[c->first[param]];
}
/* In prepare: run will read packed copies in place of what the tensor (NULL: none) holds, which may then be given back. */
static inline void cml_arg_unread(cml_call *c, const cml_tensor *t) {
  for (unsigned i = 0; t && i < c->first[c->op->param_count] && i < 64; i++)
    if (c->args[i] == t) c->unread |= UINT64_C(1) << i;
}
/* Present and its data known. */
static inline bool cml_arg_known(const cml_call *c, unsigned param) {
  const cml_tensor *t = cml_arg(c, param);
  return t && t->data;
}
/* A scalar (first element); `otherwise` when absent. The value must be known (parameters with CML_CONST always are). */
CML_API int64_t cml_arg_int(const cml_call *c, unsigned param, int64_t otherwise);
CML_API double cml_arg_float(const cml_call *c, unsigned param, double otherwise);
CML_API bool cml_arg_bool(const cml_call *c, unsigned param, bool otherwise);
CML_API const char *cml_arg_text(const cml_call *c, unsigned param, const char *otherwise);
/* All elements of a known integer (or bool) tensor, at most `room`; returns how many there are, 0 when absent. */
CML_API size_t cml_arg_ints(const cml_call *c, unsigned param, int64_t *out, size_t room);

/* ---- outputs ---- */

CML_API void cml_out_set(cml_call *c, size_t i, cml_dtype dtype, int32_t rank, const int64_t *dims);
CML_API void cml_out_like(cml_call *c, size_t i, const cml_tensor *t); /* type and shape of t */
CML_API void cml_out_unknown(cml_call *c, size_t i, cml_dtype dtype, int32_t rank); /* rank may be -1; all dims unknown */
/* In run: gives output i (dims now set by run) memory that lives until the next run. */
CML_API CML_NODISCARD cml_status cml_out_alloc(cml_call *c, size_t i, cml_error *err);
/* Where the next part of scratch memory may begin, that many bytes behind one before. */
static inline uint64_t cml_scratch_part(uint64_t bytes) { return (bytes + 63) & ~UINT64_C(63); }
/* In prepare: zeroed memory, 64-byte aligned, that lives as long as the loaded program. NULL: return call->keep_status, which is
 * CML_NO_MEMORY, or CML_LIMIT beyond what the executable may take. */
CML_API void *cml_call_keep(cml_call *c, size_t size, cml_error *err);
/* "operation 'NAME' (TYPE): …" with CML_INVALID. */
CML_API cml_status cml_call_fail(const cml_call *c, cml_error *err, const char *format, ...) CML_PRINTF(3, 4);

/* ---- shape arithmetic that lets -1 through ---- */

static inline int64_t cml_dim_mul(int64_t a, int64_t b) { return a < 0 || b < 0 ? CML_DIM_UNKNOWN : a * b; }
static inline int64_t cml_dim_add(int64_t a, int64_t b) { return a < 0 ? CML_DIM_UNKNOWN : a + b; }
/* NumPy's broadcasting of two shapes; false when they do not fit. Rank unknown in, rank unknown out. */
CML_API bool cml_broadcast(const cml_tensor *a, const cml_tensor *b, int32_t *rank, int64_t *dims);
/* Axis -rank..rank-1 to 0..rank-1; false when out of range. */
static inline bool cml_axis(int64_t axis, int32_t rank, int32_t *out) {
  if (axis < -(int64_t)rank || axis >= rank) return false;
  *out = (int32_t)(axis < 0 ? axis + rank : axis);
  return true;
}

/* ---- what run may ask of the machine that runs it ---- */

/* Runs block b of a control-flow operation: copies inputs to the block's inputs, runs it, and gives pointers to its outputs,
 * valid until the block runs again. The results may live in the inputs' memory no longer. */
CML_API CML_NODISCARD cml_status cml_run_block(cml_call *c, size_t b, const cml_tensor *const *inputs, size_t input_count,
                                               const cml_tensor **outputs, size_t output_count, cml_error *err);
/* Copies a value (tensor or list, with its data) into output i. */
CML_API CML_NODISCARD cml_status cml_out_copy(cml_call *c, size_t i, const cml_tensor *from, cml_error *err);
/* An empty list owned by the session. */
CML_API cml_list *cml_list_create(cml_call *c, cml_error *err);
/* Copies the value in as element `index` (0 and up); the list grows to hold it. */
CML_API CML_NODISCARD cml_status cml_list_store(cml_list *list, int64_t index, const cml_tensor *value, cml_error *err);
CML_API CML_NODISCARD cml_status cml_list_resize(cml_list *list, int64_t length, cml_error *err); /* new elements are not written yet */
/* The session's random stream: xoshiro, seeded once per session unless the operation has a seed of its own. */
CML_API uint64_t *cml_random_state(cml_call *c); /* 4 words */

/* ---- the table ---- */

/* The row for an operation in an opset, or NULL. "conv" in CML_IOS17. Internal rows are found too. */
CML_API const cml_op *cml_op_find(const char *name, int opset);
/* Rows in order; NULL after the last. */
CML_API const cml_op *cml_op_at(size_t i);

/* A family's table: rows[count]. */
typedef struct cml_op_family {
  const char *name;
  const cml_op *rows;
  size_t count;
} cml_op_family;

#define CML_PARAMS(array) .param_count = (uint8_t)(sizeof(array) / sizeof *(array)), .params = (array)

/* ---- alone ---- */

/* Runs one operation on known tensors, outside any program: for tests and for constant folding. Argument i of parameter p
 * follows `first` as in cml_call. Outputs' data is malloc'ed; free with cml_eval_free. Control flow is not possible. */
CML_API CML_NODISCARD cml_status cml_op_eval(const cml_op *op, int opset, const cml_tensor **args, const uint16_t *first,
                                             cml_tensor *outs, size_t out_count, cml_error *err);
CML_API void cml_eval_free(cml_tensor *outs, size_t out_count);

#endif
