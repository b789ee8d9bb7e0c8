/* The MIL program into its protobuf: fields in the order of their numbers, unknown ones last, nothing written that proto3
 * leaves out (zeros and empty texts outside of alternatives and map entries). So what coremltools wrote comes back byte
 * for byte, as long as nothing changed. */
#include <stdlib.h>

#include "mil_fields.h"
#include "wire.h"

typedef struct writer {
  const cml_mil_program *program;
  const cml_mil_moves *moves;
  cml_mil_extra *extras; /* sorted by owner and place */
  unsigned depth;
  cml_buffer *out;
  cml_error *err;
} writer;

static int compare_extras(const void *a, const void *b) {
  const cml_mil_extra *x = a, *y = b;
  uintptr_t p = (uintptr_t)x->owner, q = (uintptr_t)y->owner;
  return p != q ? (p < q ? -1 : 1) : (x->place > y->place) - (x->place < y->place);
}

static void put_span(writer *w, cml_span s) { cml_buffer_append(w->out, s.data, s.size); }

static void put_extras(writer *w, const void *owner, cml_mil_place place) {
  if (!w->extras) return;
  cml_mil_extra key = {owner, (uint32_t)place, {0}};
  const cml_mil_extra *found = bsearch(&key, w->extras, w->program->extra_count, sizeof key, compare_extras);
  if (found) put_span(w, found->fields);
}

static void put_text(writer *w, uint32_t number, const char *text) { cml_wire_put_bytes(w->out, number, text, strlen(text)); }
static void put_text_unless_empty(writer *w, uint32_t number, const char *text) {
  if (text && *text) put_text(w, number, text);
}
static void put_number_unless_zero(writer *w, uint32_t number, uint64_t value) {
  if (value) cml_wire_put_uint(w->out, number, value);
}

static cml_status enter(writer *w) {
  if (++w->depth <= CML_MIL_MAX_DEPTH) return CML_OK;
  return cml_fail(w->err, CML_LIMIT, CML_NO_OFFSET, "the program is nested more than %d deep", CML_MIL_MAX_DEPTH);
}

static cml_status put_type(writer *w, uint32_t number, const cml_mil_type *type);
static cml_status put_value(writer *w, uint32_t number, const cml_mil_value *value);
static cml_status put_block(writer *w, uint32_t number, const cml_mil_block *block);

static cml_status put_attributes(writer *w, uint32_t number, const cml_mil_attributes *attributes) {
  for (size_t i = 0; i < attributes->count; i++) {
    const cml_mil_attribute *a = &attributes->items[i];
    size_t mark = cml_wire_begin(w->out, number);
    put_text(w, CML_F_ENTRY_KEY, a->name);
    CML_TRY(put_value(w, CML_F_ENTRY_VALUE, a->value));
    put_extras(w, a, CML_PLACE_ATTRIBUTE_ENTRY);
    cml_wire_end(w->out, mark);
  }
  return CML_OK;
}

/* ---- types ---- */

static void put_dimension(writer *w, uint32_t number, const int64_t *dim) {
  size_t outer = cml_wire_begin(w->out, number);
  size_t inner = cml_wire_begin(w->out, *dim >= 0 ? CML_F_DIM_CONSTANT : CML_F_DIM_UNKNOWN);
  if (*dim >= 0) put_number_unless_zero(w, 1, (uint64_t)*dim);
  else put_number_unless_zero(w, 1, *dim == CML_DIM_VARIADIC);
  put_extras(w, dim, CML_PLACE_DIMENSION_KIND);
  cml_wire_end(w->out, inner);
  put_extras(w, dim, CML_PLACE_DIMENSION);
  cml_wire_end(w->out, outer);
}

static cml_status put_type_kind(writer *w, const cml_mil_type *type) {
  switch (type->kind) {
  case CML_TYPE_TENSOR:
    put_number_unless_zero(w, CML_F_TENSOR_DTYPE, cml_mil_dtype_number(type->dtype));
    put_number_unless_zero(w, CML_F_TENSOR_RANK, (uint64_t)(int64_t)type->rank);
    for (int32_t i = 0; i < type->rank; i++) put_dimension(w, CML_F_TENSOR_DIMS, &type->dims[i]);
    return put_attributes(w, CML_F_TENSOR_ATTRIBUTES, &type->attributes);
  case CML_TYPE_LIST:
    CML_TRY(put_type(w, CML_F_LIST_TYPE, type->args[0]));
    put_dimension(w, CML_F_LIST_LENGTH, &type->length);
    return CML_OK;
  case CML_TYPE_TUPLE:
    for (size_t i = 0; i < type->arg_count; i++) CML_TRY(put_type(w, 1, type->args[i]));
    return CML_OK;
  case CML_TYPE_DICTIONARY:
    CML_TRY(put_type(w, 1, type->args[0]));
    return put_type(w, 2, type->args[1]);
  case CML_TYPE_STATE: return put_type(w, 1, type->args[0]);
  }
  return CML_OK;
}

static cml_status put_type(writer *w, uint32_t number, const cml_mil_type *type) {
  static const uint32_t kinds[] = {CML_F_TYPE_TENSOR, CML_F_TYPE_LIST, CML_F_TYPE_TUPLE, CML_F_TYPE_DICTIONARY, CML_F_TYPE_STATE};
  CML_TRY(enter(w));
  size_t outer = cml_wire_begin(w->out, number), inner = cml_wire_begin(w->out, kinds[type->kind]);
  CML_TRY(put_type_kind(w, type));
  put_extras(w, type, CML_PLACE_TYPE_INNER);
  cml_wire_end(w->out, inner);
  put_span(w, type->unknown);
  cml_wire_end(w->out, outer);
  w->depth--;
  return CML_OK;
}

/* ---- values ---- */

static uint64_t load_integer(cml_dtype type, const uint8_t *p) {
  unsigned bits = cml_dtype_bits(type);
  uint64_t raw = 0;
  memcpy(&raw, p, bits / 8);
  if (!cml_dtype_is_signed(type) || bits == 64) return type == CML_BOOL ? raw != 0 : raw;
  uint64_t sign = UINT64_C(1) << (bits - 1);
  return (raw ^ sign) - sign;
}

/* The one field of RepeatedFloats and its kind. Numbers are packed; nothing is written for none. */
static void put_elements(writer *w, cml_mil_storage storage, const cml_mil_value *value) {
  if (storage == CML_STORAGE_STRINGS) {
    for (size_t i = 0; i < value->count; i++) cml_wire_put_bytes(w->out, 1, value->strings[i].data, value->strings[i].size);
    return;
  }
  if (!value->data.size) return;
  if (storage == CML_STORAGE_BYTES || storage == CML_STORAGE_FLOATS || storage == CML_STORAGE_DOUBLES) {
    cml_wire_put_bytes(w->out, 1, value->data.data, value->data.size);
    return;
  }
  cml_dtype type = value->type->dtype;
  size_t mark = cml_wire_begin(w->out, 1), width = cml_dtype_bits(type) / 8;
  for (size_t i = 0; i + width <= value->data.size; i += width) {
    uint64_t v = load_integer(type, value->data.data + i);
    if (storage == CML_STORAGE_INTS) v = (uint64_t)(int64_t)(int32_t)v;
    cml_wire_put_varint(w->out, v);
  }
  cml_wire_end(w->out, mark);
}

static cml_status put_tensor(writer *w, const cml_mil_value *value) {
  cml_mil_storage storage = value->storage ? value->storage : cml_mil_storage_for(value->type->dtype);
  size_t outer = cml_wire_begin(w->out, CML_F_IMMEDIATE_TENSOR);
  if (storage != CML_STORAGE_NONE) {
    size_t mark = cml_wire_begin(w->out, (uint32_t)(CML_F_NUMBERS_FLOATS + storage - CML_STORAGE_FLOATS));
    put_elements(w, storage, value);
    put_extras(w, value, CML_PLACE_NUMBERS);
    cml_wire_end(w->out, mark);
  }
  put_extras(w, value, CML_PLACE_TENSOR_VALUE);
  cml_wire_end(w->out, outer);
  return CML_OK;
}

static cml_status put_collection(writer *w, const cml_mil_value *value) {
  uint32_t number = value->kind == CML_VALUE_TUPLE  ? CML_F_IMMEDIATE_TUPLE
                    : value->kind == CML_VALUE_LIST ? CML_F_IMMEDIATE_LIST : CML_F_IMMEDIATE_DICTIONARY;
  size_t outer = cml_wire_begin(w->out, number);
  for (size_t i = 0; i < value->count; i++) {
    if (value->kind != CML_VALUE_DICTIONARY) {
      CML_TRY(put_value(w, 1, value->items[i]));
      continue;
    }
    size_t mark = cml_wire_begin(w->out, 1);
    CML_TRY(put_value(w, 1, value->keys[i]));
    CML_TRY(put_value(w, 2, value->items[i]));
    put_extras(w, value->keys[i], CML_PLACE_PAIR);
    cml_wire_end(w->out, mark);
  }
  put_extras(w, value, CML_PLACE_COLLECTION);
  cml_wire_end(w->out, outer);
  return CML_OK;
}

int cml_mil_compare_moves(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)((const cml_mil_move *)a)->value, y = (uintptr_t)((const cml_mil_move *)b)->value;
  return (x > y) - (x < y);
}

static void put_blob(writer *w, const cml_mil_value *value) {
  const cml_mil_moves *m = w->moves;
  const cml_mil_move key = {value, 0};
  const cml_mil_move *move = m && m->count ? bsearch(&key, m->items, m->count, sizeof key, cml_mil_compare_moves) : NULL;
  put_text_unless_empty(w, CML_F_BLOB_FILE, move ? m->file : value->file);
  put_number_unless_zero(w, CML_F_BLOB_OFFSET, move ? move->offset : value->offset);
}

static cml_status put_value(writer *w, uint32_t number, const cml_mil_value *value) {
  CML_TRY(enter(w));
  size_t outer = cml_wire_begin(w->out, number);
  put_text_unless_empty(w, CML_F_VALUE_DOC, value->doc);
  CML_TRY(put_type(w, CML_F_VALUE_TYPE, value->type));
  size_t inner = cml_wire_begin(w->out, value->kind == CML_VALUE_BLOB ? CML_F_VALUE_BLOB : CML_F_VALUE_IMMEDIATE);
  if (value->kind == CML_VALUE_BLOB) {
    put_blob(w, value);
  } else {
    CML_TRY(value->kind == CML_VALUE_TENSOR ? put_tensor(w, value) : put_collection(w, value));
  }
  put_span(w, value->unknown_inner);
  cml_wire_end(w->out, inner);
  put_span(w, value->unknown);
  cml_wire_end(w->out, outer);
  w->depth--;
  return CML_OK;
}

/* ---- program ---- */

static cml_status put_named(writer *w, uint32_t number, const cml_mil_named *named) {
  size_t mark = cml_wire_begin(w->out, number);
  put_text_unless_empty(w, CML_F_NAMED_NAME, named->name);
  CML_TRY(put_type(w, CML_F_NAMED_TYPE, named->type));
  put_span(w, named->unknown);
  cml_wire_end(w->out, mark);
  return CML_OK;
}

static cml_status put_input(writer *w, const cml_mil_argument *argument) {
  size_t entry = cml_wire_begin(w->out, CML_F_OP_INPUTS);
  put_text(w, CML_F_ENTRY_KEY, argument->parameter);
  size_t outer = cml_wire_begin(w->out, CML_F_ENTRY_VALUE);
  for (size_t i = 0; i < argument->count; i++) {
    const cml_mil_binding *b = &argument->bindings[i];
    size_t mark = cml_wire_begin(w->out, CML_F_ARGUMENT_BINDINGS);
    if (b->name) put_text(w, CML_F_BINDING_NAME, b->name);
    else CML_TRY(put_value(w, CML_F_BINDING_VALUE, b->value));
    put_extras(w, b, CML_PLACE_BINDING);
    cml_wire_end(w->out, mark);
  }
  put_extras(w, argument, CML_PLACE_ARGUMENT);
  cml_wire_end(w->out, outer);
  put_extras(w, argument, CML_PLACE_INPUT_ENTRY);
  cml_wire_end(w->out, entry);
  return CML_OK;
}

static cml_status put_op(writer *w, uint32_t number, const cml_mil_op *op) {
  size_t mark = cml_wire_begin(w->out, number);
  put_text_unless_empty(w, CML_F_OP_TYPE, op->type);
  for (size_t i = 0; i < op->input_count; i++) CML_TRY(put_input(w, &op->inputs[i]));
  for (size_t i = 0; i < op->output_count; i++) CML_TRY(put_named(w, CML_F_OP_OUTPUTS, &op->outputs[i]));
  for (size_t i = 0; i < op->block_count; i++) CML_TRY(put_block(w, CML_F_OP_BLOCKS, op->blocks[i]));
  CML_TRY(put_attributes(w, CML_F_OP_ATTRIBUTES, &op->attributes));
  put_span(w, op->unknown);
  cml_wire_end(w->out, mark);
  return CML_OK;
}

static cml_status put_block(writer *w, uint32_t number, const cml_mil_block *block) {
  CML_TRY(enter(w));
  size_t mark = cml_wire_begin(w->out, number);
  for (size_t i = 0; i < block->input_count; i++) CML_TRY(put_named(w, CML_F_BLOCK_INPUTS, &block->inputs[i]));
  for (size_t i = 0; i < block->output_count; i++) put_text(w, CML_F_BLOCK_OUTPUTS, block->outputs[i]);
  for (size_t i = 0; i < block->op_count; i++) CML_TRY(put_op(w, CML_F_BLOCK_OPERATIONS, block->ops[i]));
  CML_TRY(put_attributes(w, CML_F_BLOCK_ATTRIBUTES, &block->attributes));
  put_span(w, block->unknown);
  cml_wire_end(w->out, mark);
  w->depth--;
  return CML_OK;
}

static cml_status put_function(writer *w, const cml_mil_function *function) {
  size_t entry = cml_wire_begin(w->out, CML_F_PROGRAM_FUNCTIONS);
  put_text(w, CML_F_ENTRY_KEY, function->name);
  size_t mark = cml_wire_begin(w->out, CML_F_ENTRY_VALUE);
  for (size_t i = 0; i < function->input_count; i++) CML_TRY(put_named(w, CML_F_FUNCTION_INPUTS, &function->inputs[i]));
  put_text_unless_empty(w, CML_F_FUNCTION_OPSET, function->opset);
  for (size_t i = 0; i < function->specialization_count; i++) {
    const struct cml_mil_specialization *s = &function->specializations[i];
    size_t inner = cml_wire_begin(w->out, CML_F_FUNCTION_SPECIALIZATIONS);
    put_text(w, CML_F_ENTRY_KEY, s->opset);
    CML_TRY(put_block(w, CML_F_ENTRY_VALUE, s->block));
    put_extras(w, s, CML_PLACE_SPECIALIZATION_ENTRY);
    cml_wire_end(w->out, inner);
  }
  CML_TRY(put_attributes(w, CML_F_FUNCTION_ATTRIBUTES, &function->attributes));
  put_span(w, function->unknown);
  cml_wire_end(w->out, mark);
  put_extras(w, function, CML_PLACE_FUNCTION_ENTRY);
  cml_wire_end(w->out, entry);
  return CML_OK;
}

static cml_status put_program(writer *w) {
  const cml_mil_program *p = w->program;
  put_number_unless_zero(w, CML_F_PROGRAM_VERSION, (uint64_t)p->version);
  for (size_t i = 0; i < p->function_count; i++) CML_TRY(put_function(w, p->functions[i]));
  put_text_unless_empty(w, CML_F_PROGRAM_DOC, p->doc);
  CML_TRY(put_attributes(w, CML_F_PROGRAM_ATTRIBUTES, &p->attributes));
  put_span(w, p->unknown);
  return CML_OK;
}

cml_status cml_mil_write_proto(const cml_mil_program *program, const cml_mil_moves *moves, cml_buffer *out, cml_error *err) {
  writer w = {.program = program, .moves = moves, .out = out, .err = err};
  if (program->extra_count) {
    w.extras = malloc(program->extra_count * sizeof *w.extras);
    if (!w.extras) return cml_fail_memory(err);
    memcpy(w.extras, program->extras, program->extra_count * sizeof *w.extras);
    qsort(w.extras, program->extra_count, sizeof *w.extras, compare_extras);
  }
  cml_status status = put_program(&w);
  if (!status) status = cml_buffer_check(out, err);
  free(w.extras);
  return status;
}
