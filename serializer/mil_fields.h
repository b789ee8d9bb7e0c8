/* Field numbers of MIL.proto and the places in it, shared by reader and writer.
 *
 * A place is a kind of message. Unknown fields of a message that has no `unknown` span of its own in the IR are kept in
 * the program's `extras`, under the object that the message became and its place. */
#ifndef CML_MIL_FIELDS_H
#define CML_MIL_FIELDS_H

#include "mil.h"

enum { CML_MIL_MAX_DEPTH = 100 }; /* nested messages, as protobuf's own limit */

typedef enum cml_mil_place {
  CML_PLACE_OWN, /* the object has a span of its own */
  CML_PLACE_FUNCTION_ENTRY, CML_PLACE_SPECIALIZATION_ENTRY, CML_PLACE_ATTRIBUTE_ENTRY, CML_PLACE_INPUT_ENTRY,
  CML_PLACE_ARGUMENT, CML_PLACE_BINDING, CML_PLACE_DIMENSION, CML_PLACE_DIMENSION_KIND, CML_PLACE_TYPE_INNER,
  CML_PLACE_TENSOR_VALUE, CML_PLACE_NUMBERS, CML_PLACE_COLLECTION, CML_PLACE_PAIR,
} cml_mil_place;

enum { CML_F_PROGRAM_VERSION = 1, CML_F_PROGRAM_FUNCTIONS, CML_F_PROGRAM_DOC, CML_F_PROGRAM_ATTRIBUTES };
enum { CML_F_FUNCTION_INPUTS = 1, CML_F_FUNCTION_OPSET, CML_F_FUNCTION_SPECIALIZATIONS, CML_F_FUNCTION_ATTRIBUTES };
enum { CML_F_BLOCK_INPUTS = 1, CML_F_BLOCK_OUTPUTS, CML_F_BLOCK_OPERATIONS, CML_F_BLOCK_ATTRIBUTES };
enum { CML_F_OP_TYPE = 1, CML_F_OP_INPUTS, CML_F_OP_OUTPUTS, CML_F_OP_BLOCKS, CML_F_OP_ATTRIBUTES };
enum { CML_F_ENTRY_KEY = 1, CML_F_ENTRY_VALUE };
enum { CML_F_ARGUMENT_BINDINGS = 1 };
enum { CML_F_BINDING_NAME = 1, CML_F_BINDING_VALUE };
enum { CML_F_NAMED_NAME = 1, CML_F_NAMED_TYPE };
enum { CML_F_TYPE_TENSOR = 1, CML_F_TYPE_LIST, CML_F_TYPE_TUPLE, CML_F_TYPE_DICTIONARY, CML_F_TYPE_STATE };
enum { CML_F_TENSOR_DTYPE = 1, CML_F_TENSOR_RANK, CML_F_TENSOR_DIMS, CML_F_TENSOR_ATTRIBUTES };
enum { CML_F_LIST_TYPE = 1, CML_F_LIST_LENGTH };
enum { CML_F_DIM_CONSTANT = 1, CML_F_DIM_UNKNOWN };
enum { CML_F_VALUE_DOC = 1, CML_F_VALUE_TYPE, CML_F_VALUE_IMMEDIATE, CML_F_VALUE_BLOB = 5 };
enum { CML_F_IMMEDIATE_TENSOR = 1, CML_F_IMMEDIATE_TUPLE, CML_F_IMMEDIATE_LIST, CML_F_IMMEDIATE_DICTIONARY };
enum { CML_F_BLOB_FILE = 1, CML_F_BLOB_OFFSET };
enum { CML_F_NUMBERS_FLOATS = 1, CML_F_NUMBERS_INTS, CML_F_NUMBERS_BOOLS, CML_F_NUMBERS_STRINGS, CML_F_NUMBERS_LONGS,
       CML_F_NUMBERS_DOUBLES, CML_F_NUMBERS_BYTES };

/* The number of an element type in MIL.proto's DataType, and back (CML_DTYPE_NONE when unknown). */
uint32_t cml_mil_dtype_number(cml_dtype type);
cml_dtype cml_mil_dtype_from_number(uint64_t number);
/* Where a value of this type stores its elements when nothing else was said. */
cml_mil_storage cml_mil_storage_for(cml_dtype type);

/* Fields that are not the program's are not looked at; `origin` is the byte from which offsets in errors count. */
cml_status cml_mil_parse_proto(cml_span bytes, const uint8_t *origin, cml_arena *arena, cml_mil_program **out, cml_error *err);
/* Where a BLOB value is to be found in a file that is about to be written. */
typedef struct cml_mil_move {
  const cml_mil_value *value;
  uint64_t offset;
} cml_mil_move;

/* All BLOB values' new places, sorted by address, in one file; NULL stands for the places that the values name. */
typedef struct cml_mil_moves {
  const char *file;
  const cml_mil_move *items;
  size_t count;
} cml_mil_moves;

/* Appends the Program message. moves may be NULL. */
cml_status cml_mil_write_proto(const cml_mil_program *program, const cml_mil_moves *moves, cml_buffer *out, cml_error *err);
cml_status cml_model_serialize_moved(const cml_model *model, const cml_mil_moves *moves, cml_buffer *out, cml_error *err);
int cml_mil_compare_moves(const void *a, const void *b);

#endif
