/* Writes .mil text, byte for byte as Apple's compiler lays it out, so that what it wrote comes back unchanged.
 *
 * The two dialects differ in scalars alone: program(1.0) writes tensor<string, []>, program(1.3) string. What that
 * compiler never has to write has a form of our own that our reader takes back: names that are no identifiers stand in
 * quotes, several opsets of one function follow each other, a tensor type's attributes stand behind its shape, a value with
 * another number of elements than its type says is PACKED.
 * Arguments and attributes of a program from protobuf are printed by name, as that compiler prints them: there they were
 * maps, and the order in which they happened to lie in the file says nothing.
 * A program from a hostile file may be inconsistent (a tuple's value of a list's type, fewer elements than its shape
 * says): everything is compared before it is used. */
#include <stdlib.h>
#include <string.h>

#include "mil.h"
#include "mil_text_number.h"
#include "mil_text_words.h"

enum { MAX_DEPTH = 64, MAX_PRINT_RANK = 32 };

typedef struct printer {
  cml_buffer *out;
  cml_mil_dialect dialect;
  cml_error *err;
  unsigned depth;
  bool by_name;  /* arguments and attributes */
} printer;

static void text(printer *w, const char *s) { cml_buffer_text(w->out, s); }
static void separate(printer *w, size_t i) {
  if (i) cml_buffer_append(w->out, ", ", 2);
}

static cml_status deeper(printer *w) {
  if (w->depth == MAX_DEPTH) return cml_fail(w->err, CML_LIMIT, CML_NO_OFFSET, "the program is nested more than %d deep", MAX_DEPTH);
  w->depth++;
  return CML_OK;
}

static cml_status malformed(printer *w, const char *what) {
  return cml_fail(w->err, CML_INVALID, CML_NO_OFFSET, "%s", what);
}

/* ---- words ---- */

static void print_string(printer *w, const char *s, size_t size) {
  static const char from[] = "\n\r\t\a\b\f\v\"\\", to[] = "nrtabfv\"\\";
  cml_buffer_char(w->out, '"');
  for (size_t i = 0, start = 0; i <= size; i++) {
    unsigned char c = i < size ? (unsigned char)s[i] : '"';
    if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) continue;
    cml_buffer_append(w->out, s + start, i - start);
    start = i + 1;
    if (i == size) break;
    const char *found = c ? strchr(from, c) : NULL;
    if (found) cml_buffer_printf(w->out, "\\%c", to[found - from]);
    else cml_buffer_printf(w->out, "\\x%02x", c);
  }
  cml_buffer_char(w->out, '"');
}

static void print_name(printer *w, const char *name) {
  if (!name) name = "";
  if (cml_mil_name_plain(name)) text(w, name);
  else print_string(w, name, strlen(name));
}

/* ---- types ---- */

static cml_status print_attributes(printer *w, const cml_mil_attributes *attributes);

static void print_dimension(printer *w, int64_t dim) {
  char number[CML_MIL_NUMBER_SIZE];
  if (dim == CML_DIM_VARIADIC) text(w, "...");
  else if (dim < 0) text(w, "?");
  else cml_buffer_append(w->out, number, cml_mil_number_print(number, CML_I64, (uint64_t)dim));
}

static cml_status print_tensor_type(printer *w, const cml_mil_type *type) {
  if (type->dtype == CML_DTYPE_NONE) return malformed(w, "a tensor type without an element type");
  if (type->rank == 0 && w->dialect == CML_MIL_1_3 && !type->attributes.count) return text(w, cml_dtype_name(type->dtype)), CML_OK;
  text(w, "tensor<");
  text(w, cml_dtype_name(type->dtype));
  text(w, ", [");
  if (type->rank < 0) text(w, "...");
  for (int32_t i = 0; i < type->rank; i++) {
    separate(w, (size_t)i);
    print_dimension(w, type->dims[i]);
  }
  text(w, "]");
  if (type->attributes.count) {
    text(w, ", ");
    CML_TRY(print_attributes(w, &type->attributes));
  }
  return text(w, ">"), CML_OK;
}

static cml_status print_type(printer *w, const cml_mil_type *type) {
  static const struct { const char *word; size_t args; } forms[] = {
      [CML_TYPE_LIST] = {"list", 1}, [CML_TYPE_TUPLE] = {"tuple", SIZE_MAX}, [CML_TYPE_DICTIONARY] = {"dict", 2}, [CML_TYPE_STATE] = {"state", 1}};
  if (!type) return malformed(w, "a value without a type");
  CML_TRY(deeper(w));
  if (type->kind == CML_TYPE_TENSOR) {
    CML_TRY(print_tensor_type(w, type));
  } else {
    if (forms[type->kind].args != SIZE_MAX && type->arg_count != forms[type->kind].args)
      return malformed(w, "a type with the wrong number of types within");
    text(w, forms[type->kind].word);
    text(w, "<");
    for (size_t i = 0; i < type->arg_count; i++) {
      separate(w, i);
      CML_TRY(print_type(w, type->args[i]));
    }
    if (type->kind == CML_TYPE_LIST) {
      text(w, ", ");
      print_dimension(w, type->length);
    }
    text(w, ">");
  }
  w->depth--;
  return CML_OK;
}

/* ---- tensor literals ---- */

static uint64_t load_element(const uint8_t *data, size_t i, unsigned bits) {
  uint64_t value = 0;
  if (bits >= 8) {
    memcpy(&value, data + i * (bits / 8), bits / 8);
    return value;
  }
  for (unsigned b = 0; b < bits; b++) {
    size_t at = i * bits + b;
    value |= (uint64_t)(data[at >> 3] >> (at & 7) & 1) << b;
  }
  return value;
}

static void print_elements(printer *w, const cml_mil_value *value, size_t first, size_t count) {
  cml_dtype type = value->type->dtype;
  unsigned bits = cml_dtype_bits(type);
  for (size_t i = 0; i < count; i++) {
    if (type == CML_STRING) {
      separate(w, i);
      print_string(w, value->strings[first + i].data, value->strings[first + i].size);
      continue;
    }
    char number[CML_MIL_NUMBER_SIZE + 2] = ", ";
    size_t n = 2 + cml_mil_number_print(number + 2, type, load_element(value->data.data, first + i, bits));
    cml_buffer_append(w->out, i ? number : number + 2, i ? n : n - 2);
  }
}

/* One level of brackets; the elements below it are [*next, …). */
static void print_level(printer *w, const cml_mil_value *value, const uint64_t *dims, int32_t rank, size_t *next) {
  text(w, "[");
  if (rank == 1) {
    print_elements(w, value, *next, (size_t)dims[0]);
    *next += (size_t)dims[0];
  } else {
    for (uint64_t i = 0; i < dims[0]; i++) {
      separate(w, (size_t)i);
      print_level(w, value, dims + 1, rank - 1, next);
    }
  }
  text(w, "]");
}

/* The dimensions of a value: its type's, one unknown dimension from the count of elements. *out_rank is -1 when the
 * elements are not as many as they must be for that: they are then printed as PACKED, without dimensions. */
static cml_status literal_dims(printer *w, const cml_mil_value *value, uint64_t dims[MAX_PRINT_RANK], int32_t *out_rank) {
  const cml_mil_type *type = value->type;
  if (type->rank > MAX_PRINT_RANK) return malformed(w, "a tensor value with too many dimensions");
  uint64_t product = 1, levels = 1;
  int32_t unknown = -1;
  if (type->rank < 0) return *out_rank = -1, CML_OK;
  for (int32_t i = 0; i < type->rank; i++) {
    if (type->dims[i] < 0 && unknown >= 0) return *out_rank = -1, CML_OK; /* cannot be told */
    if (type->dims[i] < 0) unknown = i;
    else if (dims[i] = (uint64_t)type->dims[i], !cml_mul(product, dims[i], &product)) product = UINT64_MAX;
  }
  if (unknown >= 0) {
    dims[unknown] = product ? value->count / product : 0;
    product *= dims[unknown];
  }
  *out_rank = -1;
  if (product != value->count) return CML_OK;
  for (int32_t i = 0; i + 1 < type->rank; i++) { /* brackets are printed for empty tensors too: a [99999999, 0] is refused */
    if (!cml_mul(levels, dims[i], &levels) || levels > value->count + 65536) return CML_OK;
  }
  *out_rank = type->rank;
  return CML_OK;
}

static cml_status print_tensor(printer *w, const cml_mil_value *value) {
  uint64_t dims[MAX_PRINT_RANK], bytes;
  int32_t rank = 0;
  size_t next = 0;
  if (value->type->kind != CML_TYPE_TENSOR || value->type->dtype == CML_DTYPE_NONE) return malformed(w, "a tensor value that is not of a tensor type");
  CML_TRY(literal_dims(w, value, dims, &rank));
  bool strings = value->type->dtype == CML_STRING;
  if (strings ? value->count && !value->strings : !cml_dtype_bytes(value->type->dtype, value->count, &bytes) || bytes > value->data.size)
    return malformed(w, "a tensor value with too few bytes");
  if (rank < 0) {
    text(w, "PACKED([");
    print_elements(w, value, 0, value->count);
    text(w, "])");
  } else if (rank == 0) {
    print_elements(w, value, 0, 1);
  } else {
    print_level(w, value, dims, rank, &next);
  }
  return CML_OK;
}

/* ---- values ---- */

static cml_status print_typed(printer *w, const cml_mil_value *value);
static cml_status print_literal(printer *w, const cml_mil_value *value);

/* A container's item: bare when the container's type says what it is. */
static cml_status print_item(printer *w, const cml_mil_value *item, const cml_mil_type *type) {
  if (!item || !item->type) return malformed(w, "a container's item without a value or type");
  return type && cml_mil_type_equal(item->type, type) ? print_literal(w, item) : print_typed(w, item);
}

static cml_status print_container(printer *w, const cml_mil_value *value) {
  static const struct { cml_mil_type_kind kind; const char *open, *close; } forms[] = {
      [CML_VALUE_TUPLE] = {CML_TYPE_TUPLE, "(", ")"}, [CML_VALUE_LIST] = {CML_TYPE_LIST, "[", "]"}, [CML_VALUE_DICTIONARY] = {CML_TYPE_DICTIONARY, "{", "}"}};
  const cml_mil_type *type = value->type;
  bool tuple = value->kind == CML_VALUE_TUPLE, dictionary = value->kind == CML_VALUE_DICTIONARY;
  if (type->kind != forms[value->kind].kind || (tuple && value->count > type->arg_count) || (!tuple && type->arg_count < 1u + dictionary))
    return malformed(w, "a value that is not of its type");
  if (tuple && !type->arg_count) return CML_OK; /* "tuple<>()" */
  text(w, forms[value->kind].open);
  for (size_t i = 0; i < value->count; i++) {
    separate(w, i);
    if (dictionary) {
      text(w, "{");
      CML_TRY(print_item(w, value->keys[i], type->args[0]));
      text(w, ", ");
    }
    CML_TRY(print_item(w, value->items[i], type->args[tuple ? i : dictionary]));
    if (dictionary) text(w, "}");
  }
  return text(w, forms[value->kind].close), CML_OK;
}

static void print_blob(printer *w, const cml_mil_value *value) {
  bool old = w->dialect == CML_MIL_1_0;
  const char *file = value->file ? value->file : "";
  text(w, old ? "BLOBFILE(path = tensor<string, []>(" : "BLOBFILE(path = string(");
  print_string(w, file, strlen(file));
  cml_buffer_printf(w->out, old ? "), offset = tensor<uint64, []>(%llu))" : "), offset = uint64(%llu))", (unsigned long long)value->offset);
}

static cml_status print_literal(printer *w, const cml_mil_value *value) {
  CML_TRY(deeper(w));
  if (value->kind == CML_VALUE_BLOB) print_blob(w, value);
  else CML_TRY(value->kind == CML_VALUE_TENSOR ? print_tensor(w, value) : print_container(w, value));
  w->depth--;
  return CML_OK;
}

static cml_status print_typed(printer *w, const cml_mil_value *value) {
  if (!value) return malformed(w, "an attribute or argument without a value");
  CML_TRY(print_type(w, value->type));
  text(w, "(");
  CML_TRY(print_literal(w, value));
  return text(w, ")"), CML_OK;
}

/* ---- lists that are maps in protobuf ---- */

typedef struct entry {
  const char *name;
  const void *item;
} entry;

static int compare_entries(const void *a, const void *b) {
  const entry *x = a, *y = b;
  int order = strcmp(x->name, y->name);
  return order ? order : (x->item > y->item) - (x->item < y->item);
}

typedef cml_status print_entry(printer *w, const void *item);

/* Prints `count` items of `size` bytes, each of which begins with its name. */
static cml_status print_entries(printer *w, const void *items, size_t count, size_t size, print_entry *print) {
  entry few[16], *sorted = few;
  cml_status status = CML_OK;
  if (count > 16 && w->by_name && !(sorted = malloc(count * sizeof *sorted))) return cml_fail_memory(w->err);
  for (size_t i = 0; i < count && w->by_name; i++) {
    const void *item = (const uint8_t *)items + i * size;
    sorted[i] = (entry){*(const char *const *)item, item};
  }
  if (w->by_name) qsort(sorted, count, sizeof *sorted, compare_entries);
  for (size_t i = 0; i < count && !status; i++) {
    separate(w, i);
    status = print(w, w->by_name ? sorted[i].item : (const uint8_t *)items + i * size);
  }
  if (sorted != few) free(sorted);
  return status;
}

static cml_status print_attribute(printer *w, const void *item) {
  const cml_mil_attribute *attribute = item;
  print_name(w, attribute->name);
  text(w, " = ");
  return print_typed(w, attribute->value);
}

static cml_status print_attributes(printer *w, const cml_mil_attributes *attributes) {
  text(w, "[");
  CML_TRY(print_entries(w, attributes->items, attributes->count, sizeof *attributes->items, print_attribute));
  return text(w, "]"), CML_OK;
}

/* ---- operations ---- */

static cml_status print_named(printer *w, const cml_mil_named *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    separate(w, i);
    CML_TRY(print_type(w, items[i].type));
    text(w, " ");
    print_name(w, items[i].name);
  }
  return CML_OK;
}

static cml_status print_argument(printer *w, const void *item) {
  const cml_mil_argument *argument = item;
  print_name(w, argument->parameter);
  text(w, " = ");
  bool list = argument->count != 1 || argument->listed;
  if (list) text(w, "(");
  for (size_t i = 0; i < argument->count; i++) {
    separate(w, i);
    if (argument->bindings[i].value) CML_TRY(print_typed(w, argument->bindings[i].value));
    else print_name(w, argument->bindings[i].name);
  }
  if (list) text(w, ")");
  return CML_OK;
}

static void indent(printer *w, unsigned columns) {
  static const char spaces[] = "                                ";
  for (; columns; columns -= columns < 32 ? columns : 32) cml_buffer_append(w->out, spaces, columns < 32 ? columns : 32);
}

static cml_status print_body(printer *w, const cml_mil_block *block, unsigned columns);

static cml_status print_op(printer *w, const cml_mil_op *op, unsigned columns) {
  indent(w, columns);
  CML_TRY(print_named(w, op->outputs, op->output_count));
  if (op->output_count) text(w, " = ");
  print_name(w, op->type);
  text(w, "(");
  CML_TRY(print_entries(w, op->inputs, op->input_count, sizeof *op->inputs, print_argument));
  text(w, ")");
  if (op->attributes.count) CML_TRY(print_attributes(w, &op->attributes));
  for (size_t i = 0; i < op->block_count; i++) {
    text(w, " ");
    if (op->blocks[i]->input_count) {
      text(w, "(");
      CML_TRY(print_named(w, op->blocks[i]->inputs, op->blocks[i]->input_count));
      text(w, ") ");
    }
    CML_TRY(print_body(w, op->blocks[i], columns));
  }
  return text(w, ";\n"), CML_OK;
}

/* "{ operations } -> (outputs)", the closing brace at `columns`. */
static cml_status print_body(printer *w, const cml_mil_block *block, unsigned columns) {
  CML_TRY(deeper(w));
  text(w, "{\n");
  for (size_t i = 0; i < block->op_count; i++) CML_TRY(print_op(w, block->ops[i], columns + 4));
  indent(w, columns);
  text(w, "} -> (");
  for (size_t i = 0; i < block->output_count; i++) {
    separate(w, i);
    print_name(w, block->outputs[i]);
  }
  w->depth--;
  return text(w, ")"), CML_OK;
}

static cml_status print_specialization(printer *w, const cml_mil_function *f, const char *opset, const cml_mil_block *block) {
  text(w, "    func ");
  print_name(w, f->name);
  text(w, "<");
  print_name(w, cml_mil_opset_to_text(opset ? opset : ""));
  text(w, ">(");
  CML_TRY(print_named(w, f->inputs, f->input_count));
  text(w, ") ");
  if (f->attributes.count) {
    CML_TRY(print_attributes(w, &f->attributes));
    text(w, " ");
  }
  if (block->input_count) {
    text(w, "(");
    CML_TRY(print_named(w, block->inputs, block->input_count));
    text(w, ") ");
  }
  CML_TRY(print_body(w, block, 8));
  if (block->attributes.count) {
    text(w, " ");
    CML_TRY(print_attributes(w, &block->attributes));
  }
  return text(w, ";\n"), CML_OK;
}

/* The function's own opset first: the reader takes the first as the function's. */
static cml_status print_function(printer *w, const cml_mil_function *f) {
  const char *own = f->opset ? f->opset : "";
  for (int first = 1; first >= 0; first--)
    for (size_t i = 0; i < f->specialization_count; i++) {
      const char *opset = f->specializations[i].opset ? f->specializations[i].opset : "";
      if ((strcmp(opset, own) == 0) == first) CML_TRY(print_specialization(w, f, opset, f->specializations[i].block));
    }
  return CML_OK;
}

cml_status cml_mil_print_text(const cml_mil_program *program, cml_mil_dialect dialect, cml_buffer *out, cml_error *err) {
  printer w = {out, dialect, err, 0, program->unordered};
  size_t before = out->size;
  cml_status status = CML_OK;
  text(&w, dialect == CML_MIL_1_0 ? "program(1.0)\n" : "program(1.3)\n");
  if (program->attributes.count) {
    status = print_attributes(&w, &program->attributes);
    text(&w, "\n");
  }
  text(&w, "{\n");
  for (size_t i = 0; i < program->function_count && !status; i++) status = print_function(&w, program->functions[i]);
  text(&w, "}");
  if (!status) status = cml_buffer_check(out, err);
  if (status && !out->failed) out->size = before;
  return status;
}
