/* Operators of ExecuTorch's virtual machine: rows of a table, as runtime/op.h has them for MIL.
 *
 * A kernel call names an operator ("aten::add.out") and gives values: numbers, lists, tensors, and the tensors to write to.
 * A row is {names, signature, run}. The signature has one letter an argument, so that what a program passes is checked by
 * the machine, when the program is loaded and again at each call (values may change), and run trusts it:
 *
 *     t  tensor        i  int (also of ScalarType, MemoryFormat, …)   I  list of int     T  list of tensors
 *     o  tensor to     d  float (an int or bool will do)              D  list of float   O  list of optional tensors
 *        write to      b  bool                                        B  list of bool    W  list of tensors to write to
 *     s  string        n  Scalar: int, float or bool                  v  number to write to (prim operators)
 *     x  tensor of indices: like t, and its memory is apart from the outputs' (the machine refuses others), so that an
 *        index that was checked keeps its value while outputs are written; X the same for O
 *     w  tensor that becomes a view of another: may have no data yet
 *     c  tensor that may be complex     k  tensor to write to that may be complex
 *     a  any value     ?  behind a letter: or None                    *  behind the last: any number of such arguments
 *
 *     {"aten::add.out", "ttno", add_out}     add.out(Tensor self, Tensor other, *, Scalar alpha=1, Tensor(a!) out)
 *
 * The arguments are those of the out-variant's schema in order, the outputs last; what the file passes behind them (the
 * returned values, which are the outputs again) is ignored. Every t, o and item of T, O and W has memory (data may be NULL
 * only where there are no elements), sizes that fit it and a dtype of cml's; it is otherwise whatever the file says: dtypes,
 * ranks and sizes are for run to check. Outputs may share memory with inputs (aten::copy_, in-place reuse in the memory
 * plan is not allowed to overlap partly; equal ranges happen): read an element before its place is written, or use
 * cml_et_temp.
 *
 * What run does:  check dtypes and shapes (cml_et_fail);  cml_et_resize each output to the shape that it must have, even
 * where the shape is always static (that is the check);  compute. No malloc: temporaries from cml_et_temp, kept small.
 *
 * Element types: loops are written for the computing type (float, double, int64_t; fp16 and bf16 compute in float, one
 * rounding an operator) over chunks that cml_et_load and cml_et_store convert, or by CML_ET_SWITCH for bytes-only work
 * (copies, permutations: switch on cml_et_width). Promotion is torch's: cml_et_promote.
 *
 * Dim order: a tensor's elements lie densely in the order of `order`, outermost first (0 1 2 3: contiguous, 0 2 3 1:
 * channels last); `strides` follows. Elementwise work on tensors of one shape and one order is linear whatever the order is
 * (cml_et_same_layout); otherwise index by strides, or take cml_et_contiguous's copy. An output keeps its own order.
 *
 * Threads: call->pool with cml_parallel; where threads take scratch, or much stack, a cml_et_crew. Reuse of MIL operators: cml_et_mil runs a row of op.h on tensors. */
#ifndef CML_ET_OP_H
#define CML_ET_OP_H

#include "op.h"
#include "pte.h"

typedef struct cml_et_call cml_et_call;

/* ---- values ---- */

typedef struct cml_et_tensor {
  cml_dtype dtype;
  uint8_t rank;      /* <= CML_PTE_MAX_RANK; never changes */
  uint8_t dynamism;  /* cml_pte_dynamism */
  bool constant;     /* its memory must not be written: never an output (the machine checks) */
  bool owned;        /* the machine allocated data (unplanned or unbounded) and may grow it */
  bool viewed, view; /* others point into its data; its data is another's */
  uint8_t complex;   /* bytes of each part of a complex number, whose dtype is NONE; else 0 */
  void *data;
  uint64_t capacity; /* bytes at data */
  int64_t *sizes, *strides; /* rank each; strides in elements */
  uint8_t *order;    /* rank: dim order */
} cml_et_tensor;

typedef struct cml_et_value {
  cml_pte_kind kind;
  uint32_t count; /* of a list; bytes of a string */
  union {
    int64_t integer;
    bool boolean;
    double real;
    cml_et_tensor *tensor;
    const char *text; /* a NUL follows */
    struct cml_et_value **items; /* INTEGERS, TENSORS, OPTIONAL_TENSORS (a None value where there is no tensor) */
    const double *reals;
    const bool *booleans;
  };
} cml_et_value;

typedef struct cml_et_op {
  const char *names;     /* full names, separated by spaces */
  const char *signature;
  cml_status (*run)(cml_et_call *call, cml_error *err);
  bool moves; /* it only moves elements: complex ones are shown to it as integers of their size */
} cml_et_op;

struct cml_et_call {
  const cml_et_op *op;
  const char *name;       /* the one by which the program calls it */
  cml_et_value **args;    /* as many as the signature has letters, or more */
  size_t arg_count;       /* with `*`: up to and including what the signature covers */
  cml_pool *pool;
  uint64_t *random;       /* 4 words, cml_et_random */
  struct cml_et_memory *memory; /* the machine's, for cml_et_temp and cml_et_resize */
  void **memo;            /* one pointer an instruction, NULL at first: for what cml_et_keep gave */
};

/* ---- arguments (i: position in the signature) ---- */

static inline bool cml_et_none(const cml_et_call *c, size_t i) { return c->args[i]->kind == CML_PTE_NONE; }
/* t, o; NULL for None. */
static inline cml_et_tensor *cml_et_arg(const cml_et_call *c, size_t i) { return cml_et_none(c, i) ? NULL : c->args[i]->tensor; }
static inline int64_t cml_et_int(const cml_et_call *c, size_t i, int64_t if_none) {
  return cml_et_none(c, i) ? if_none : c->args[i]->kind == CML_PTE_BOOLEAN ? c->args[i]->boolean : c->args[i]->integer;
}
static inline bool cml_et_bool(const cml_et_call *c, size_t i, bool if_none) {
  return cml_et_none(c, i) ? if_none : c->args[i]->kind == CML_PTE_INTEGER ? c->args[i]->integer != 0 : c->args[i]->boolean;
}

/* s. */
static inline cml_string cml_et_string(const cml_et_call *c, size_t i) { return (cml_string){c->args[i]->text, c->args[i]->count}; }

/* A Scalar: its kind and value as both; i saturates where a real does not fit (0 for NaN). */
typedef struct cml_et_number {
  cml_pte_kind kind; /* INTEGER, BOOLEAN, REAL; NONE */
  int64_t i;
  double d;
} cml_et_number;
CML_API cml_et_number cml_et_number_of(const cml_et_value *v);
static inline cml_et_number cml_et_scalar(const cml_et_call *c, size_t i) { return cml_et_number_of(c->args[i]); }
/* d, n. */
static inline double cml_et_real(const cml_et_call *c, size_t i, double if_none) {
  return cml_et_none(c, i) ? if_none : cml_et_number_of(c->args[i]).d;
}
/* I: its length (0 for None), and its items now. A list of more than `room` items is an error. */
static inline size_t cml_et_count(const cml_et_call *c, size_t i) { return cml_et_none(c, i) ? 0 : c->args[i]->count; }
CML_API CML_NODISCARD cml_status cml_et_ints(const cml_et_call *c, size_t i, int64_t *out, size_t room, size_t *count, cml_error *err);
/* T, O, W: item k; NULL where an optional one is missing. */
static inline cml_et_tensor *cml_et_item(const cml_et_call *c, size_t i, size_t k) {
  return c->args[i]->items[k]->kind == CML_PTE_TENSOR ? c->args[i]->items[k]->tensor : NULL;
}
/* ScalarType, i: as cml's type; CML_DTYPE_NONE when None or no type of cml's. */
CML_API cml_dtype cml_et_dtype(const cml_et_call *c, size_t i);
/* -rank..rank-1 to 0..rank-1 (rank 0 counts as 1, as in torch); an error when out of range. */
CML_API CML_NODISCARD cml_status cml_et_axis(const cml_et_call *c, int64_t axis, int rank, int *out, cml_error *err);

/* "NAME: …" with CML_INVALID; the machine puts method and instruction before it. */
CML_API cml_status cml_et_fail(const cml_et_call *c, cml_error *err, const char *format, ...) CML_PRINTF(3, 4);
/* Fails with words when t's dtype is not in the mask (CML_M_…). */
CML_API CML_NODISCARD cml_status cml_et_want(const cml_et_call *c, const cml_et_tensor *t, uint32_t mask, const char *what, cml_error *err);
#define CML_ET_INTEGRAL (CML_M_INT | CML_M_BOOL)
#define CML_ET_FLOATING (CML_M_FLOAT | CML_MASK(F64) | CML_MASK(BF16))
#define CML_ET_ANY (CML_ET_INTEGRAL | CML_ET_FLOATING)

static inline int64_t cml_et_least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t cml_et_most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- tensors ---- */

static inline int64_t cml_et_numel(const cml_et_tensor *t) {
  int64_t n = 1;
  for (int k = 0; k < t->rank; k++) n *= t->sizes[k];
  return n;
}
/* Bytes of an element. */
static inline size_t cml_et_width(const cml_et_tensor *t) { return t->complex ? 2u * t->complex : cml_dtype_bits(t->dtype) / 8; }
/* Of a complex tensor. */
static inline cml_dtype cml_et_part_type(const cml_et_tensor *t) { return t->complex == 2 ? CML_F16 : t->complex == 4 ? CML_F32 : CML_F64; }
CML_API bool cml_et_is_contiguous(const cml_et_tensor *t); /* order 0 1 2 …, or as good as that (dims of 1) */
CML_API bool cml_et_same_shape(const cml_et_tensor *a, const cml_et_tensor *b);
/* Same shape, and element k of one's memory is element k of the other's. */
CML_API bool cml_et_same_layout(const cml_et_tensor *a, const cml_et_tensor *b);
/* "[2, 3]" into text, for messages. */
CML_API const char *cml_et_shape_text(const cml_et_tensor *t, char *text, size_t room);

/* Gives an output its sizes: same rank; the tensor's sizes where it is static, no more elements than fit where it is
 * bounded (machine memory grows where it is unbounded or unplanned). Recomputes strides. Fails with words. */
CML_API CML_NODISCARD cml_status cml_et_resize(cml_et_call *c, cml_et_tensor *t, size_t rank, const int64_t *sizes, cml_error *err);
static inline CML_NODISCARD cml_status cml_et_resize_like(cml_et_call *c, cml_et_tensor *t, const cml_et_tensor *like, cml_error *err) {
  return cml_et_resize(c, t, like->rank, like->sizes, err);
}
/* NumPy's broadcasting of n tensors' shapes (NULL ones are left out) into sizes, which has room for CML_PTE_MAX_RANK. */
CML_API CML_NODISCARD cml_status cml_et_broadcast(const cml_et_call *c, const cml_et_tensor *const *tensors, size_t n, size_t *rank,
                                                  int64_t *sizes, cml_error *err);
/* Strides of t as seen from a shape that it broadcasts to: 0 along dims that repeat; out has `rank` entries. */
CML_API void cml_et_broadcast_strides(const cml_et_tensor *t, size_t rank, const int64_t *sizes, int64_t *out);

/* A tensor made by a kernel for itself. */
typedef struct cml_et_local {
  cml_et_tensor t;
  int64_t sizes[CML_PTE_MAX_RANK], strides[CML_PTE_MAX_RANK];
  uint8_t order[CML_PTE_MAX_RANK];
} cml_et_local;
/* A contiguous tensor over `data`, which may be NULL. */
CML_API void cml_et_make(cml_et_local *out, cml_dtype dtype, size_t rank, const int64_t *sizes, void *data);
/* A complex tensor as a real one, over the same memory, with a last dimension of 2: the parts (torch.view_as_real). t's rank is below
 * CML_PTE_MAX_RANK. */
CML_API void cml_et_as_real(const cml_et_tensor *t, cml_et_local *out);
/* t itself where it is contiguous, else a contiguous copy in temporary memory. */
CML_API CML_NODISCARD cml_status cml_et_contiguous(cml_et_call *c, const cml_et_tensor *t, cml_et_local *local, const cml_et_tensor **out,
                                                   cml_error *err);
/* Copies all elements, by position in the shape (which must be equal), whatever the orders and types: converts as torch's
 * copy_ does (floats truncate toward zero into integers, which wrap; to bool != 0). */
CML_API void cml_et_copy(cml_et_tensor *to, const cml_et_tensor *from);

/* ---- elements ---- */

/* `count` elements from element `first` of t's memory on, `step` elements apart (0 repeats one), as the computing type. */
CML_API void cml_et_load_f32(float *out, const cml_et_tensor *t, int64_t first, int64_t step, int64_t count);
CML_API void cml_et_load_f64(double *out, const cml_et_tensor *t, int64_t first, int64_t step, int64_t count);
CML_API void cml_et_load_i64(int64_t *out, const cml_et_tensor *t, int64_t first, int64_t step, int64_t count);
/* The way back: rounds to nearest even into narrower floats, wraps integers, != 0 into bool, truncates reals into integers. */
CML_API void cml_et_store_f32(cml_et_tensor *t, int64_t first, int64_t step, int64_t count, const float *in);
CML_API void cml_et_store_f64(cml_et_tensor *t, int64_t first, int64_t step, int64_t count, const double *in);
CML_API void cml_et_store_i64(cml_et_tensor *t, int64_t first, int64_t step, int64_t count, const int64_t *in);

/* Runs a statement with T as the C type of `dtype`: CML_ET_SWITCH(t->dtype, T, sum += ((const T *)t->data)[i]; ). Types without
 * a C type (fp16, bf16) take `otherwise`. */
#define CML_ET_SWITCH(dtype, T, statement, otherwise)      \
  switch (dtype) {                                         \
    case CML_F32: { typedef float T; statement } break;    \
    case CML_F64: { typedef double T; statement } break;   \
    case CML_I8: { typedef int8_t T; statement } break;    \
    case CML_I16: { typedef int16_t T; statement } break;  \
    case CML_I32: { typedef int32_t T; statement } break;  \
    case CML_I64: { typedef int64_t T; statement } break;  \
    case CML_BOOL:                                         \
    case CML_U8: { typedef uint8_t T; statement } break;   \
    case CML_U16: { typedef uint16_t T; statement } break; \
    case CML_U32: { typedef uint32_t T; statement } break; \
    case CML_U64: { typedef uint64_t T; statement } break; \
    default: { otherwise } break;                          \
  }

/* torch.promote_types; the order of arguments does not matter. */
CML_API cml_dtype cml_et_promote(cml_dtype a, cml_dtype b);
/* torch's result type of a tensor (of rank > 0) and a Scalar: the Scalar counts by kind only. A float Scalar makes an
 * integer tensor float32, torch's default type. */
CML_API cml_dtype cml_et_promote_scalar(cml_dtype tensor, cml_pte_kind scalar);
/* torch's result type of tensors: those of rank 0 count by kind where others of rank > 0 have as high a kind. NULLs are left out. */
CML_API cml_dtype cml_et_result_type(const cml_et_tensor *const *tensors, size_t n);

/* ---- memory, random numbers ---- */

/* Memory for this call alone, 64-byte aligned, contents undefined; NULL when there is none. */
CML_API void *cml_et_temp(cml_et_call *c, uint64_t size);
/* Before the call ends: gives back what it was given since the mark was taken. */
typedef struct cml_et_mark {
  uint64_t used, wanted;
  void *overflow;
} cml_et_mark;
cml_et_mark cml_et_temp_mark(const cml_et_call *c);
void cml_et_temp_release(cml_et_call *c, cml_et_mark mark);
/* Zeroed memory that lives as long as the loaded method; for *memo. */
CML_API void *cml_et_keep(cml_et_call *c, uint64_t size);

/* Bytes of scratch that one call should not exceed: together with the loaded program's tables 2 MB at most, within bounds. */
CML_API size_t cml_et_scratch(const cml_et_call *c);
/* What of it is for threads' scratch. */
static inline size_t cml_et_crew_scratch(const cml_et_call *c) { return cml_et_scratch(c) / 5 * 3; }
/* Threads that work together, each over scratch of its own: as many as have room in that (fewer where the pool has
 * many threads), at least one, so that a machine of many cores takes no more memory than one of few. */
typedef struct cml_et_crew {
  cml_pool *pool;
  size_t threads, slot; /* slot: bytes of one thread's */
  char *scratch;
} cml_et_crew;
/* cml_parallel over as many threads as may take `stack` bytes each, for a body with large buffers. */
CML_API void cml_et_parallel(const cml_et_call *c, size_t stack, size_t count, size_t grain, void (*body)(void *context, size_t begin, size_t end),
                             void *context);
/* Bytes that each of all threads may take so that all can work, within [least, most]. */
CML_API size_t cml_et_crew_share(const cml_et_call *c, size_t least, size_t most);
/* The crew with its scratch, `bytes` for each, contents undefined. */
CML_API CML_NODISCARD cml_status cml_et_crew_of(cml_et_call *c, uint64_t bytes, cml_et_crew *out, cml_error *err);
/* cml_parallel over them; body gets its thread's scratch. */
CML_API void cml_et_crew_run(const cml_et_crew *crew, size_t count, size_t grain,
                             void (*body)(void *context, void *scratch, size_t begin, size_t end), void *context);

/* Uniform 64 bits; (x >> 11) * 0x1p-53 is uniform in [0, 1). */
CML_API uint64_t cml_et_random(cml_et_call *c);

/* ---- MIL operators ---- */

/* An argument of a MIL operator by the name of its parameter: a tensor, or a constant. */
typedef struct cml_et_mil_arg {
  const char *name;
  const cml_et_tensor *tensor; /* must be contiguous; or NULL and */
  cml_tensor constant;         /* CML_ET_INTS, CML_ET_INT32, … */
} cml_et_mil_arg;
/* Constants over caller's memory: int32 vector or scalar, float32 scalar, bool scalar. */
#define CML_ET_INTS(param, array, n) {param, NULL, {.dtype = CML_I32, .rank = 1, .dims = {(int64_t)(n)}, .data = (void *)(array)}}
#define CML_ET_INT32(param, pointer) {param, NULL, {.dtype = CML_I32, .rank = 0, .data = (pointer)}}
#define CML_ET_F32(param, pointer) {param, NULL, {.dtype = CML_F32, .rank = 0, .data = (pointer)}}
#define CML_ET_BOOLEAN(param, pointer) {param, NULL, {.dtype = CML_BOOL, .rank = 0, .data = (pointer)}}
#define CML_ET_TEXT(param, string) {param, NULL, {.dtype = CML_STRING, .rank = 0, .data = (string)}} /* cml_string * */

/* Runs the MIL operator `name` (newest opset) into outs, contiguous tensors: infers, resizes outs to what comes out (dtypes
 * must be the outs'), runs. The operator is found once an instruction (memo is used). Variadic parameters repeat a name. */
CML_API CML_NODISCARD cml_status cml_et_mil(cml_et_call *c, const char *name, const cml_et_mil_arg *args, size_t arg_count,
                                            cml_et_tensor **outs, size_t out_count, cml_error *err);

/* ---- the table ---- */

typedef struct cml_et_family {
  const char *name;
  const cml_et_op *rows;
  size_t count;
} cml_et_family;

#define CML_ET_FAMILY(family) \
  const cml_et_family cml_et_ops_##family = {#family, rows, sizeof rows / sizeof *rows};

/* The row of a full name, or NULL. */
CML_API const cml_et_op *cml_et_op_find(const char *name, size_t size);
/* What an operator's name means where a tensor among its arguments is complex and its row takes none; or NULL. */
const cml_et_op *cml_et_op_for_complex(const char *name);
/* Rows in order; NULL after the last. */
CML_API const cml_et_op *cml_et_op_at(size_t i);

/* Runs one operator outside any program, for tests. Outputs are cml_et_tensor values of dynamism UNBOUNDED and owned, or
 * whatever memory the caller gives. Checks the signature. */
CML_API CML_NODISCARD cml_status cml_et_op_eval(const cml_et_op *op, cml_et_value **args, size_t arg_count, cml_error *err);
/* The same on a pool's threads (NULL: the caller alone) with at most `limit` bytes beside its arguments (0: any number), else CML_NO_MEMORY. */
CML_API CML_NODISCARD cml_status cml_et_op_eval_within(const cml_et_op *op, cml_et_value **args, size_t arg_count, cml_pool *pool, uint64_t limit, cml_error *err);
/* Makes `view` (see w) share another tensor's data; sizes are for cml_et_resize. */
CML_API void cml_et_alias(cml_et_call *c, cml_et_tensor *view, cml_et_tensor *of);
/* Frees data that cml_et_resize gave to an owned tensor. */
CML_API void cml_et_tensor_free(cml_et_tensor *t);

#endif
