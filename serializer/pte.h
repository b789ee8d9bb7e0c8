/* ExecuTorch programs (.pte) as a typed model that is valid by construction.
 *
 * The file: a FlatBuffer ("ET12") with the execution plans, then, behind an extended header {"eh00", u32 header bytes, u64
 * program bytes, u64 segment base, u64 segment bytes} at byte 8, data segments: constants, initial states, delegates, named
 * data. Without the header everything lies in the FlatBuffer. (ExecuTorch's schema/program.fbs is the authority.)
 *
 * cml_pte_parse checks once what a machine that runs the program relies on, and refuses the rest with a byte offset: every
 * index is in range, jump targets lie in their chain, list items have the kind that the list says, dim orders are
 * permutations, sizes multiply without overflow, planned tensors fit their arena, constants and initial states fit their
 * segment, segments lie in the file. What the file cannot prove (the kinds of arguments that an operator wants, an external
 * tensor's presence, a delegate's own format) is left to the users of the model.
 *
 * Names and payloads are spans into the file; the arrays lie in the program's arena. The arrays may be edited in place
 * before cml_pte_serialize; fields marked "derived" are computed by the parser and ignored by the writer. */
#ifndef CML_PTE_H
#define CML_PTE_H

#include "arena.h"
#include "dtype.h"
#include "sink.h"
#include "span.h"

/* ---- scalar types ---- */

/* name, number in the file, name in torch, bytes, cml's type */
#define CML_PTE_SCALAR_MAP(X)                                  \
  X(BYTE, 0, "uint8", 1, CML_U8)                               \
  X(CHAR, 1, "int8", 1, CML_I8)                                \
  X(SHORT, 2, "int16", 2, CML_I16)                             \
  X(INT, 3, "int32", 4, CML_I32)                               \
  X(LONG, 4, "int64", 8, CML_I64)                              \
  X(HALF, 5, "float16", 2, CML_F16)                            \
  X(FLOAT, 6, "float32", 4, CML_F32)                           \
  X(DOUBLE, 7, "float64", 8, CML_F64)                          \
  X(COMPLEX_HALF, 8, "complex32", 4, CML_DTYPE_NONE)           \
  X(COMPLEX_FLOAT, 9, "complex64", 8, CML_DTYPE_NONE)          \
  X(COMPLEX_DOUBLE, 10, "complex128", 16, CML_DTYPE_NONE)      \
  X(BOOL, 11, "bool", 1, CML_BOOL)                             \
  X(QINT8, 12, "qint8", 1, CML_DTYPE_NONE)                     \
  X(QUINT8, 13, "quint8", 1, CML_DTYPE_NONE)                   \
  X(QINT32, 14, "qint32", 4, CML_DTYPE_NONE)                   \
  X(BFLOAT16, 15, "bfloat16", 2, CML_BF16)                     \
  X(QUINT4X2, 16, "quint4x2", 1, CML_DTYPE_NONE)               \
  X(QUINT2X4, 17, "quint2x4", 1, CML_DTYPE_NONE)               \
  X(BITS1X8, 18, "bits1x8", 1, CML_DTYPE_NONE)                 \
  X(BITS2X4, 19, "bits2x4", 1, CML_DTYPE_NONE)                 \
  X(BITS4X2, 20, "bits4x2", 1, CML_DTYPE_NONE)                 \
  X(BITS8, 21, "bits8", 1, CML_DTYPE_NONE)                     \
  X(BITS16, 22, "bits16", 2, CML_DTYPE_NONE)                   \
  X(FLOAT8E5M2, 23, "float8_e5m2", 1, CML_DTYPE_NONE)          \
  X(FLOAT8E4M3FN, 24, "float8_e4m3fn", 1, CML_DTYPE_NONE)      \
  X(FLOAT8E5M2FNUZ, 25, "float8_e5m2fnuz", 1, CML_DTYPE_NONE)  \
  X(FLOAT8E4M3FNUZ, 26, "float8_e4m3fnuz", 1, CML_DTYPE_NONE)  \
  X(UINT16, 27, "uint16", 2, CML_U16)                          \
  X(UINT32, 28, "uint32", 4, CML_U32)                          \
  X(UINT64, 29, "uint64", 8, CML_U64)

typedef enum cml_pte_scalar {
#define CML_PTE_SCALAR_ENUM(name, number, text, bytes, dtype) CML_PTE_##name = number,
  CML_PTE_SCALAR_MAP(CML_PTE_SCALAR_ENUM)
#undef CML_PTE_SCALAR_ENUM
  CML_PTE_SCALAR_COUNT
} cml_pte_scalar;

CML_API const char *cml_pte_scalar_name(int scalar);   /* as torch writes it; NULL for a number that is no type */
CML_API unsigned cml_pte_scalar_bytes(int scalar);     /* of one element; 0 for a number that is no type */
CML_API cml_dtype cml_pte_scalar_dtype(int scalar);    /* CML_DTYPE_NONE where cml has none */
CML_API int cml_pte_scalar_of(cml_dtype type);         /* -1 where ExecuTorch has none */

/* ---- values ---- */

typedef enum cml_pte_dynamism {
  CML_PTE_STATIC,
  CML_PTE_BOUNDED,  /* sizes are upper bounds */
  CML_PTE_UNBOUNDED /* sizes mean nothing */
} cml_pte_dynamism;

/* Where a tensor's bytes come from. */
typedef enum cml_pte_storage {
  CML_PTE_UNPLANNED,        /* from the caller (an input), from the operator that makes it, or from elsewhere at run time */
  CML_PTE_PLANNED,          /* in arena memory_id at memory_offset; starts undefined */
  CML_PTE_CONSTANT,         /* data */
  CML_PTE_MUTABLE,          /* planned, and starts as a copy of data */
  CML_PTE_EXTERNAL,         /* constant, found by name in named data: the program's or a .ptd's */
  CML_PTE_EXTERNAL_MUTABLE, /* planned, and starts as a copy of such */
} cml_pte_storage;

enum { CML_PTE_MAX_RANK = 16 };

/* What few tensors have. */
typedef struct cml_pte_tensor_extra {
  uint64_t mutable_segment; /* index in cml_pte.mutable_segments */
  cml_string name;          /* fully qualified, say "encoder.linear.weight"; NULL data when absent */
  bool external;
  int8_t device_type, device_index; /* 0, 0: the CPU */
} cml_pte_tensor_extra;

typedef struct cml_pte_tensor {
  uint8_t scalar;    /* cml_pte_scalar */
  uint8_t rank;      /* <= CML_PTE_MAX_RANK */
  uint8_t dynamism;  /* cml_pte_dynamism */
  int8_t layout;     /* 0: strided; as in the file */
  bool requires_grad;
  bool has_allocation;
  uint32_t memory_id; /* with has_allocation: 1 <= memory_id < memory_count of its method */
  uint64_t memory_offset;
  uint32_t data_index; /* 0: no data; else an index in the constants or in a mutable segment's offsets */
  int32_t *sizes;      /* rank of them, >= 0 */
  uint8_t *dim_order;  /* rank of them, outermost first: a permutation */
  cml_pte_tensor_extra *extra; /* or NULL */
  /* derived */
  int64_t *strides;  /* in elements, for sizes and dim_order */
  uint64_t elements; /* product of sizes: an upper bound when BOUNDED, meaningless when UNBOUNDED */
  uint64_t bytes;    /* of elements */
  cml_dtype dtype;
  cml_pte_storage storage;
  cml_span data; /* of CONSTANT and MUTABLE: exactly `bytes` bytes, of any alignment; else NULL */
} cml_pte_tensor;

/* The numbers of the file. */
typedef enum cml_pte_kind {
  CML_PTE_NONE = 1,
  CML_PTE_INTEGER,
  CML_PTE_BOOLEAN,
  CML_PTE_REAL,
  CML_PTE_TENSOR,
  CML_PTE_STRING,
  CML_PTE_INTEGERS,         /* items: indices of INTEGER values */
  CML_PTE_REALS,
  CML_PTE_BOOLEANS,
  CML_PTE_TENSORS,          /* items: indices of TENSOR values */
  CML_PTE_OPTIONAL_TENSORS, /* items: indices of TENSOR or NONE values, or CML_PTE_NO_VALUE */
} cml_pte_kind;

#define CML_PTE_NO_VALUE UINT32_MAX

typedef struct cml_pte_value {
  cml_pte_kind kind;
  uint32_t count; /* of a list; bytes of a string */
  union {
    int64_t integer;
    bool boolean;
    double real;
    cml_pte_tensor *tensor;
    const char *text; /* a NUL follows */
    uint32_t *items;
    double *reals;
    bool *booleans;
  };
} cml_pte_value;

static inline cml_string cml_pte_text(const cml_pte_value *v) { return (cml_string){v->text, v->count}; }

CML_API const char *cml_pte_kind_name(cml_pte_kind kind); /* "None", "Int", …; "?" */

/* ---- instructions ---- */

typedef enum cml_pte_opcode {
  CML_PTE_KERNEL_CALL = 1,
  CML_PTE_DELEGATE_CALL,
  CML_PTE_MOVE_CALL,
  CML_PTE_JUMP_FALSE_CALL,
  CML_PTE_FREE_CALL,
} cml_pte_opcode;

CML_API const char *cml_pte_opcode_name(cml_pte_opcode opcode); /* "KernelCall", …; "?" */

typedef struct cml_pte_instruction {
  cml_pte_opcode opcode;
  uint32_t index;     /* operator, delegate; value: moved from, tested, freed */
  uint32_t target;    /* value moved to; instruction jumped to (the chain's count ends it) */
  uint32_t arg_count; /* of kernel and delegate calls */
  uint32_t *args;     /* values, inputs then outputs */
} cml_pte_instruction;

typedef struct cml_pte_frame {
  cml_string filename, name, context;
  int32_t line;
} cml_pte_frame;

typedef struct cml_pte_frames {
  uint32_t count;
  cml_pte_frame *frames;
} cml_pte_frames;

typedef struct cml_pte_indices {
  uint32_t count;
  uint32_t *items;
} cml_pte_indices;

typedef struct cml_pte_chain {
  cml_pte_indices inputs, outputs;
  uint32_t count;
  cml_pte_instruction *instructions;
  uint32_t stacktrace_count; /* 0, or one list of frames an instruction */
  cml_pte_frames *stacktraces;
} cml_pte_chain;

/* ---- methods ---- */

typedef struct cml_pte_operator {
  cml_string name, overload;
  cml_string full; /* derived: "name.overload", or the name where the overload is empty */
} cml_pte_operator;

typedef struct cml_pte_spec {
  cml_string key;
  cml_span value;
} cml_pte_spec;

typedef struct cml_pte_delegate {
  cml_string id; /* "CoreMLBackend", "XnnpackBackend", … */
  bool in_segment;
  uint32_t index; /* in segments, or in inline_data */
  uint32_t spec_count;
  cml_pte_spec *specs;
  cml_span data; /* derived: the processed bytes that the reference names, as they lie in the file */
} cml_pte_delegate;

/* The device of an arena, for programs that use others than the CPU. */
typedef struct cml_pte_memory_device {
  int32_t memory;
  int8_t type, index;
} cml_pte_memory_device;

typedef struct cml_pte_method {
  cml_string name;
  bool has_container;
  cml_string container_inputs, container_outputs; /* how Python's containers were flattened */
  uint32_t value_count, operator_count, delegate_count, chain_count, memory_count, device_count;
  cml_pte_value *values;
  cml_pte_indices inputs, outputs;
  cml_pte_chain *chains;
  cml_pte_operator *operators;
  cml_pte_delegate *delegates;
  uint64_t *memory_sizes; /* bytes of each arena; [0] is not used */
  cml_pte_memory_device *devices;
} cml_pte_method;

/* ---- the program ---- */

typedef struct cml_pte_segment {
  uint64_t offset; /* from the segment base; derived */
  cml_span data;
} cml_pte_segment;

typedef struct cml_pte_subsegments {
  uint32_t segment; /* in range when count > 0 (of the constants: > 1) */
  uint32_t count;
  uint64_t *offsets; /* bytes into the segment, each within it */
} cml_pte_subsegments;

typedef struct cml_pte_named {
  cml_string key;
  uint32_t segment;
} cml_pte_named;

typedef struct cml_pte_header {
  uint32_t length; /* 24 or 32; 0 when the file has no extended header */
  uint64_t program_size, segment_base, segment_size; /* segment_size: 0 when the length is 24 */
} cml_pte_header;

typedef struct cml_pte {
  cml_span file;         /* derived: what was parsed */
  cml_pte_header header; /* derived */
  uint32_t version;      /* of the schema: 0 */
  uint32_t method_count, constant_count, inline_count, segment_count, mutable_count, named_count;
  cml_pte_method *methods;
  cml_span *constants;   /* the deprecated constant_buffer, from before constant segments; [0] is not used */
  cml_span *inline_data; /* backend_delegate_data */
  cml_pte_segment *segments;
  bool has_constant_segment;
  cml_pte_subsegments constant_segment;
  cml_pte_subsegments *mutable_segments;
  cml_pte_named *named;
  uint32_t *named_order; /* derived: indices of named, sorted by key */
  cml_arena arena;       /* holds all of the above but the file's bytes */
} cml_pte;

/* Parses a program; `file` (the whole file, padding behind it is accepted) must outlive it. The cost is that of the
 * structure, however large the segments are. Errors: CML_INVALID with the offset in `file`, CML_UNSUPPORTED (another
 * version's identifier, a scalar type or value kind that no schema knows, a storage offset), CML_LIMIT, CML_NO_MEMORY. */
CML_API CML_NODISCARD cml_status cml_pte_parse(cml_span file, cml_pte **out, cml_error *err);
CML_API void cml_pte_destroy(cml_pte *pte); /* NULL is accepted */

/* The method of that name, or NULL. */
CML_API const cml_pte_method *cml_pte_find_method(const cml_pte *pte, const char *name);
/* Named data (binary search); false when there is none of that key. */
CML_API bool cml_pte_find_named(const cml_pte *pte, cml_string key, cml_span *out);
/* Where bytes that the model points to lie in the file; CML_NO_OFFSET for bytes from elsewhere. */
CML_API uint64_t cml_pte_offset(const cml_pte *pte, const void *data);
static inline bool cml_pte_string_is(cml_string s, const char *text) {
  return s.size == strlen(text) && !memcmp(s.data, text, s.size);
}

/* ---- Core ML delegates (pte_coreml.c) ---- */

/* What a delegate of CoreMLBackend says about itself. Text is NULL, 0 where the program does not say it. */
typedef struct cml_pte_coreml {
  cml_span blob;        /* the flat blob (see flat.h), behind the reference if there is one */
  bool is_reference;    /* the delegate's bytes were "CMJR" and JSON; several delegates may share the blob */
  int64_t version;      /* of the reference */
  cml_string key;       /* entry of named data */
  cml_string function;  /* of the multifunction package to run */
  cml_string compute_units;          /* all, cpu_only, cpu_and_gpu, cpu_and_ne */
  cml_string model_type;             /* model (.mlpackage), compiled_model (.mlmodelc) */
  cml_string min_deployment_target;  /* specification version in digits, or empty */
  cml_string compute_precision;      /* float16, float32 */
  cml_string weight_sharing;         /* of several methods: positional, disabled */
  cml_string quantizer_config, enumerated_shapes, pass_pipeline; /* JSON */
} cml_pte_coreml;

#define CML_PTE_COREML_ID "CoreMLBackend"

static inline bool cml_pte_is_coreml(const cml_pte_delegate *d) { return cml_pte_string_is(d->id, CML_PTE_COREML_ID); }
/* Resolves a delegate's reference and compile specs. Texts of the reference lie in `arena` (which may be any), the rest in
 * the file. CML_INVALID when the reference is malformed, CML_NOT_FOUND when it names no named data. */
CML_API CML_NODISCARD cml_status cml_pte_coreml_decode(const cml_pte *pte, const cml_pte_delegate *delegate, cml_arena *arena,
                                                       cml_pte_coreml *out, cml_error *err);
/* Why running on Linux takes no notice of a compile spec of this backend; NULL for one that is honoured: by what the model holds
 * (precision, target, weights, enumerated shapes) or by how it is read (model_type). */
CML_API const char *cml_pte_coreml_ignores(const cml_pte_spec *spec);

/* ---- writing (pte_write.c) ---- */

typedef struct cml_pte_write_options {
  uint32_t segment_alignment; /* power of two; 0: as the parsed file has it, at least 16 (128 for a model made by hand) */
  uint32_t inline_alignment;  /* of inline delegates and constants; 0: likewise, at least 16 */
} cml_pte_write_options;

/* Whether an edited model still holds what the parser promises about indices, kinds and names (not the derived fields);
 * CML_ARGUMENT with words where it does not. cml_pte_serialize asks this first. */
CML_API CML_NODISCARD cml_status cml_pte_check(const cml_pte *pte, cml_error *err);
/* Writes the program: the FlatBuffer, then its segments in order, payloads straight from where they lie. Parsing the result
 * gives an equal model (offsets of segments aside). options may be NULL. CML_ARGUMENT when the model contradicts itself
 * (an index out of range); CML_LIMIT when the FlatBuffer would exceed 2 GiB. */
CML_API CML_NODISCARD cml_status cml_pte_serialize(const cml_pte *pte, const cml_pte_write_options *options, cml_sink sink,
                                                   cml_error *err);

#endif
