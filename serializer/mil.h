/* The MIL program: the one IR of the project.
 *
 * Everything that reads a network gives one (the protobuf Model, .mil text), everything that writes or runs one takes
 * one. Objects live in the program's arena; weights stay spans of the mapped weight file. The IR is plain data: graph
 * passes edit it in place. Strings are UTF-8, NUL-terminated, and live in the arena.
 *
 * Lossless: what the protobuf reader does not know is kept in the `unknown` span of the object in which it stood
 * (concatenated wire-format fields) and written back. Order of named lists is the order of the file.
 *
 * Source of the format: coremltools' MIL.proto and Model.proto descriptors. */
#ifndef CML_MIL_H
#define CML_MIL_H

#include "dtype.h"
#include "tree.h"

/* ---- types ---- */

typedef enum cml_mil_type_kind {
  CML_TYPE_TENSOR,
  CML_TYPE_LIST,       /* args[0] elements, length */
  CML_TYPE_TUPLE,      /* args[i] */
  CML_TYPE_DICTIONARY, /* args[0] key, args[1] value */
  CML_TYPE_STATE,      /* args[0] wrapped */
} cml_mil_type_kind;

/* A dimension that is not known: one, or (variadic, in .mil "...") any number of them. */
#define CML_DIM_UNKNOWN INT64_C(-1)
#define CML_DIM_VARIADIC INT64_C(-2)
#define CML_RANK_UNKNOWN (-1)

typedef struct cml_mil_type cml_mil_type;
typedef struct cml_mil_value cml_mil_value;
typedef struct cml_mil_op cml_mil_op;
typedef struct cml_mil_block cml_mil_block;
typedef struct cml_mil_function cml_mil_function;

/* A (name, value) of an attribute map. */
typedef struct cml_mil_attribute {
  const char *name;
  cml_mil_value *value;
} cml_mil_attribute;

typedef struct cml_mil_attributes {
  cml_mil_attribute *items;
  size_t count;
} cml_mil_attributes;

struct cml_mil_type {
  cml_mil_type_kind kind;
  cml_dtype dtype;     /* TENSOR */
  int32_t rank;        /* TENSOR: 0 and up, or CML_RANK_UNKNOWN */
  int64_t *dims;       /* TENSOR: rank of them; CML_DIM_UNKNOWN, CML_DIM_VARIADIC */
  cml_mil_attributes attributes; /* TENSOR: TensorType.attributes */
  cml_mil_type **args;
  size_t arg_count;
  int64_t length;      /* LIST: elements, or CML_DIM_UNKNOWN */
  cml_span unknown;
};

/* ---- values ---- */

typedef enum cml_mil_value_kind {
  CML_VALUE_TENSOR,     /* immediate: data or strings */
  CML_VALUE_TUPLE,      /* items */
  CML_VALUE_LIST,       /* items */
  CML_VALUE_DICTIONARY, /* keys, items */
  CML_VALUE_BLOB,       /* file and offset; after binding also data */
} cml_mil_value_kind;

/* How a protobuf TensorValue stored its elements, so that it is written the same way. AUTO: by the type's rule. */
typedef enum cml_mil_storage {
  CML_STORAGE_AUTO, CML_STORAGE_FLOATS, CML_STORAGE_INTS, CML_STORAGE_BOOLS, CML_STORAGE_STRINGS,
  CML_STORAGE_LONGS, CML_STORAGE_DOUBLES, CML_STORAGE_BYTES,
  CML_STORAGE_NONE, /* nothing was stored: only for a tensor without elements */
} cml_mil_storage;

struct cml_mil_value {
  cml_mil_value_kind kind;
  cml_mil_type *type;
  const char *doc;          /* docString, or NULL */
  cml_mil_storage storage;  /* TENSOR */
  cml_span data;            /* TENSOR, bound BLOB: elements packed as the dtype says, little-endian, row-major; bool 1 byte each;
                             * a BLOB's bytes need not be aligned in memory (a flat blob may start anywhere in a .pte) */
  cml_string *strings;      /* TENSOR of STRING */
  size_t count;             /* TENSOR: elements (fewer than the type's for packed indices of Apple's constexpr_ ops); others: items */
  cml_mil_value **items;
  cml_mil_value **keys;
  const char *file;         /* BLOB: as written, e.g. "@model_path/weights/weight.bin" */
  uint64_t offset;          /* BLOB: of the metadata record (coremltools' blob storage v2) or of the data (v1) */
  cml_span unknown, unknown_inner; /* of Value and of its immediate or blob value */
};

/* ---- program ---- */

/* A named, typed value: an operation's output, a block's or function's input. */
typedef struct cml_mil_named {
  const char *name;
  cml_mil_type *type;
  cml_span unknown;
} cml_mil_named;

/* One thing bound to an operator's parameter: another value's name, or an inline value. */
typedef struct cml_mil_binding {
  const char *name;     /* NULL for an inline value */
  cml_mil_value *value; /* NULL for a name */
} cml_mil_binding;

/* The argument of one parameter: mostly one binding; several for variadic ones (concat's values). */
typedef struct cml_mil_argument {
  const char *parameter;
  cml_mil_binding *bindings;
  size_t count;
  bool listed;          /* .mil text had parentheses around a single binding; says nothing else */
} cml_mil_argument;

struct cml_mil_op {
  const char *type;            /* "conv", "const", … */
  cml_mil_argument *inputs;
  size_t input_count;
  cml_mil_named *outputs;
  size_t output_count;
  cml_mil_block **blocks;      /* cond: 2, while_loop: 2 (cond, body) */
  size_t block_count;
  cml_mil_attributes attributes; /* "name"; const's "val" */
  uint64_t source_offset;      /* where it stood in the file, or CML_NO_OFFSET */
  cml_span unknown;
};

struct cml_mil_block {
  cml_mil_named *inputs;
  size_t input_count;
  const char **outputs;        /* names of values visible in the block */
  size_t output_count;
  cml_mil_op **ops;            /* in order; each uses only values defined before it */
  size_t op_count;
  cml_mil_attributes attributes;
  cml_span unknown;
};

/* A function and its bodies: one block for each opset that it is specialised for (mostly one). */
struct cml_mil_function {
  const char *name;
  cml_mil_named *inputs;
  size_t input_count;
  const char *opset;           /* "CoreML5" … "CoreML9" as in the protobuf */
  struct cml_mil_specialization { const char *opset; cml_mil_block *block; } *specializations;
  size_t specialization_count;
  cml_mil_attributes attributes;
  cml_span unknown;
};

/* Unknown fields of a message that became no object with a span of its own (say, a dimension): `owner` is the object or
 * array element that it became, `place` says which message. */
typedef struct cml_mil_extra {
  const void *owner;
  uint32_t place;
  cml_span fields;
} cml_mil_extra;

typedef struct cml_mil_program {
  int64_t version;
  cml_mil_function **functions;
  size_t function_count;
  const char *doc;
  cml_mil_attributes attributes;
  cml_span unknown;
  cml_mil_extra *extras; /* mostly none */
  size_t extra_count;
  bool unordered;        /* from protobuf, where arguments and attributes are maps: their order says nothing */
} cml_mil_program;

/* ---- the model around it ---- */

typedef enum cml_feature_kind {
  CML_FEATURE_INT64, CML_FEATURE_DOUBLE, CML_FEATURE_STRING, CML_FEATURE_IMAGE, CML_FEATURE_ARRAY,
  CML_FEATURE_DICTIONARY, CML_FEATURE_SEQUENCE, CML_FEATURE_STATE, CML_FEATURE_NONE,
} cml_feature_kind;

typedef enum cml_color { CML_COLOR_NONE = 0, CML_COLOR_GRAYSCALE = 10, CML_COLOR_RGB = 20, CML_COLOR_BGR = 30,
                         CML_COLOR_GRAYSCALE_FLOAT16 = 40 } cml_color; /* values of ImageFeatureType.ColorSpace */

typedef enum cml_flexibility { CML_FLEX_NONE, CML_FLEX_ENUMERATED, CML_FLEX_RANGE } cml_flexibility;

typedef struct cml_range { int64_t lower, upper; } cml_range; /* upper -1: none */

typedef struct cml_feature {
  const char *name, *doc;
  cml_feature_kind kind;
  bool optional;
  cml_dtype dtype;            /* ARRAY (and STATE of arrays): F16, F32, F64, I32, I8 */
  int64_t *shape;             /* ARRAY: default shape, rank of them. IMAGE: height, width; rank 2 */
  size_t rank;
  cml_flexibility flexibility;
  cml_range *ranges;          /* RANGE: rank of them (IMAGE: height, width) */
  int64_t *shapes;            /* ENUMERATED: shape_count rows of rank */
  size_t shape_count;
  bool has_default;           /* ARRAY: a default value for an optional input, uniform */
  double default_value;
  cml_color color;            /* IMAGE */
  bool key_is_string;         /* DICTIONARY: string keys, else int64 */
} cml_feature;

typedef struct cml_features { cml_feature *items; size_t count; } cml_features;

/* FunctionDescription of a multifunction package; a model with one function has none. */
typedef struct cml_function_description {
  const char *name;
  cml_features inputs, outputs, states;
  const char *predicted_feature, *predicted_probabilities;
} cml_function_description;

typedef struct cml_metadata_item { const char *key, *value; } cml_metadata_item;

typedef struct cml_model {
  cml_arena arena;              /* of everything below */
  int32_t specification_version;
  uint32_t type_number;         /* field number in Model's oneof: 502 ML Program, 500 neural network, … */
  bool updatable;
  cml_features inputs, outputs, states;
  const char *predicted_feature, *predicted_probabilities; /* NULL or "" when none */
  const char *short_description, *version, *author, *license;
  cml_metadata_item *metadata;  /* userDefined */
  size_t metadata_count;
  cml_function_description *functions;
  size_t function_count;
  const char *default_function; /* "" or NULL: main */
  cml_mil_program *program;     /* NULL unless type_number is 502 */
  cml_span rest;                /* the serialized Model without mlProgram (read back when it is written), in mapping or arena */
  cml_tree *tree;               /* referenced: the tree that holds the package, so that spans stay valid */
  const cml_node *root;         /* the package, file or compiled folder in it */
} cml_model;

typedef struct cml_model_options {
  uint64_t max_memory; /* of the arena; 0: 16 times the model file's size + 16 MiB */
  bool skip_weights;   /* leave BLOB values unbound */
} cml_model_options;

/* Reads the model that `root` holds: an .mlpackage folder (through Manifest.json), an .mlmodel file, or an .mlmodelc
 * folder (model.mil text, coremldata.bin, metadata.json). Blob values are bound to spans of the weight files and checked
 * against their metadata records. The tree is referenced. options may be NULL.
 * A model that is no ML Program is read too; its program is then NULL. */
CML_API CML_NODISCARD cml_status cml_model_read(cml_tree *tree, const cml_node *root, const cml_model_options *options,
                                                cml_model **out, cml_error *err);
CML_API void cml_model_close(cml_model *model); /* NULL is accepted */

/* ---- parts, for readers and writers ---- */

/* Model protobuf. The spans must outlive the model. Blobs are not bound. */
CML_API CML_NODISCARD cml_status cml_model_parse(cml_span bytes, const cml_model_options *options, cml_model *model, cml_error *err);
/* A Model message. What was not edited since it was read comes out as it was, fields that cml does not know included: the program,
 * features, functions, metadata, specification version. */
CML_API CML_NODISCARD cml_status cml_model_serialize(const cml_model *model, cml_buffer *out, cml_error *err);
/* .mil text, both dialects; errors give line and column in words and the byte offset. */
CML_API CML_NODISCARD cml_status cml_mil_parse_text(cml_span text, cml_arena *arena, cml_mil_program **out, cml_error *err);
typedef enum cml_mil_dialect { CML_MIL_1_0, CML_MIL_1_3 } cml_mil_dialect;
CML_API CML_NODISCARD cml_status cml_mil_print_text(const cml_mil_program *program, cml_mil_dialect dialect, cml_buffer *out,
                                                    cml_error *err);
/* Binds every BLOB value: file name to a node below `root` ("@model_path/" is the folder of the model file). */
CML_API CML_NODISCARD cml_status cml_model_bind_weights(cml_model *model, const cml_node *model_folder, cml_error *err);

/* ---- access and construction ---- */

CML_API const cml_mil_function *cml_mil_find_function(const cml_mil_program *program, const char *name);
/* The body that runs: the specialization for the function's own opset, else the first. */
CML_API cml_mil_block *cml_mil_body(const cml_mil_function *function);
CML_API cml_mil_value *cml_mil_attribute_find(const cml_mil_attributes *attributes, const char *name);
CML_API const cml_mil_argument *cml_mil_input(const cml_mil_op *op, const char *parameter);
CML_API const char *cml_mil_op_name(const cml_mil_op *op); /* attribute "name", else the first output's name, else "" */
CML_API cml_mil_type *cml_mil_type_tensor(cml_arena *arena, cml_dtype dtype, int32_t rank, const int64_t *dims);
/* The labels of a classifier: what its classify operation has as `classes`, a LIST of string or int64 scalars; NULL for others. */
CML_API const cml_mil_value *cml_mil_class_labels(const cml_mil_function *function);
/* Elements of a tensor type; false when a dimension is unknown or the product overflows. */
CML_API bool cml_mil_type_elements(const cml_mil_type *type, uint64_t *out);
CML_API bool cml_mil_type_equal(const cml_mil_type *a, const cml_mil_type *b);
/* "tensor<fp16, [1, 3, ?]>" */
CML_API void cml_mil_type_print(const cml_mil_type *type, cml_buffer *out);

#endif
