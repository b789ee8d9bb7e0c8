/* Reads .mil text, the form in which Apple's compiler stores a program:
 *
 *   program(1.3)
 *   [buildInfo = dict<string, string>({{"coremlc-version", "3520.5.1"}})]
 *   {
 *       func main<ios16>(tensor<fp32, [1, 4]> x) [attributes] {
 *           tensor<fp32, [4]> w = const()[name = string("w"), val = tensor<fp32, [4]>([0x1p+0, …])];
 *           tensor<fp32, [1, 4]> y = add(x = x, y = w)[name = string("y")];
 *       } -> (y);
 *   }
 *
 * program(1.0) differs in how it writes scalars: tensor<string, []> for string. Both are accepted anywhere. Values are
 * typed once, outside; within the parentheses stand bare literals: [] around tensors and lists, () around tuples,
 * {{key, value}, …} around dictionaries, BLOBFILE(path = …, offset = …) for weights.
 *
 * There is no separate lexer: the grammar needs one character of look-ahead, so a recursive descent over the bytes is
 * both the shortest and the fastest. What is collected before its count is known lies on one scratch stack, whose top
 * part is copied to the arena when a list closes. Names are checked at the end (mil_check.h). What nothing documents is read leniently: parentheses around several
 * outputs, comments, names of blocks, quoted names, opsets under either name. */
#include "mil.h"
#include "mil_check.h"
#include "mil_text_number.h"
#include "mil_text_parser.h"
#include "mil_text_words.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RANK = 32 };

/* ---- types ---- */

static cml_status parse_type(cml_mil_parser *r, cml_mil_type **out);
static cml_status parse_attributes(cml_mil_parser *r, cml_mil_attributes *out);

static cml_status parse_dimension(cml_mil_parser *r, int64_t *out) {
  skip(r);
  if (accept(r, '?')) return *out = CML_DIM_UNKNOWN, CML_OK;
  if (r->end - r->p >= 3 && !memcmp(r->p, "...", 3)) return r->p += 3, *out = CML_DIM_VARIADIC, CML_OK;
  return cml_mil_text_unsigned(r, "a dimension (a number, ? or ...)", out);
}

/* "[1, ?, 3]"; "[...]" alone is a tensor of unknown rank. */
static cml_status parse_dimensions(cml_mil_parser *r, cml_mil_type *type) {
  CML_TRY(cml_mil_text_expect(r, '['));
  size_t mark = r->scratch_size, count = 0;
  while (!accept(r, ']')) {
    if (count && !accept(r, ',')) return cml_mil_text_expected(r, "\",\" or \"]\" in a shape");
    int64_t dim = 0;
    CML_TRY(parse_dimension(r, &dim));
    if (++count > MAX_RANK) return cml_mil_text_fail(r, CML_LIMIT, r->p, "a tensor of more than %d dimensions", MAX_RANK);
    PUSH(r, dim);
  }
  CML_TRY(cml_mil_text_pop(r, mark, sizeof(int64_t), &type->dims, &count));
  type->rank = (int32_t)count;
  if (count == 1 && type->dims[0] == CML_DIM_VARIADIC) type->rank = CML_RANK_UNKNOWN, type->dims = NULL;
  return CML_OK;
}

/* "<fp16, [1, 3]>" */
static cml_status parse_tensor_type(cml_mil_parser *r, cml_mil_type *type) {
  CML_TRY(cml_mil_text_expect(r, '<'));
  cml_span word = cml_mil_text_peek(r);
  type->dtype = cml_dtype_by_name((const char *)word.data, word.size);
  if (type->dtype == CML_DTYPE_NONE) return cml_mil_text_expected(r, "an element type (fp16, int32, string, ...)");
  r->p += word.size;
  CML_TRY(cml_mil_text_expect(r, ','));
  CML_TRY(parse_dimensions(r, type));
  if (accept(r, ',')) CML_TRY(parse_attributes(r, &type->attributes));
  return cml_mil_text_expect(r, '>');
}

/* "<A, B>" with `least` to `most` types; a list's length comes last. */
static cml_status parse_type_arguments(cml_mil_parser *r, cml_mil_type *type, size_t least, size_t most) {
  CML_TRY(cml_mil_text_expect(r, '<'));
  size_t mark = r->scratch_size, count = 0;
  while (!next_is(r, '>') && !(type->kind == CML_TYPE_LIST && count)) {
    if (count == most) return cml_mil_text_expected(r, "\">\"");
    if (count++) CML_TRY(cml_mil_text_expect(r, ','));
    cml_mil_type *arg = NULL;
    CML_TRY(parse_type(r, &arg));
    PUSH(r, arg);
  }
  if (count < least) return cml_mil_text_expected(r, "a type");
  CML_TRY(cml_mil_text_pop(r, mark, sizeof(cml_mil_type *), &type->args, &type->arg_count));
  if (type->kind == CML_TYPE_LIST) {
    CML_TRY(cml_mil_text_expect(r, ','));
    if (accept(r, '?')) type->length = CML_DIM_UNKNOWN;
    else CML_TRY(cml_mil_text_unsigned(r, "a list's length (a number or ?)", &type->length));
  }
  return cml_mil_text_expect(r, '>');
}

static cml_status parse_type_body(cml_mil_parser *r, cml_mil_type *type) {
  cml_span word = cml_mil_text_peek(r);
  r->p += word.size;
  if (cml_mil_text_is(word, "tensor")) return type->kind = CML_TYPE_TENSOR, parse_tensor_type(r, type);
  if (cml_mil_text_is(word, "list")) return type->kind = CML_TYPE_LIST, parse_type_arguments(r, type, 1, 1);
  if (cml_mil_text_is(word, "tuple")) return type->kind = CML_TYPE_TUPLE, parse_type_arguments(r, type, 0, SIZE_MAX);
  if (cml_mil_text_is(word, "dict")) return type->kind = CML_TYPE_DICTIONARY, parse_type_arguments(r, type, 2, 2);
  if (cml_mil_text_is(word, "state")) return type->kind = CML_TYPE_STATE, parse_type_arguments(r, type, 1, 1);
  type->dtype = cml_dtype_by_name((const char *)word.data, word.size); /* program(1.3): a scalar */
  if (word.size && type->dtype != CML_DTYPE_NONE) return CML_OK;
  r->p -= word.size;
  return cml_mil_text_expected(r, "a type");
}

static cml_status parse_type(cml_mil_parser *r, cml_mil_type **out) {
  cml_mil_type *type = CML_ARENA_NEW(r->arena, cml_mil_type);
  if (!type) return cml_fail_memory(r->err);
  CML_TRY(cml_mil_text_deeper(r));
  CML_TRY(parse_type_body(r, type));
  r->depth--;
  *out = type;
  return CML_OK;
}

static bool is_type_word(cml_span word) {
  return cml_mil_text_is(word, "tensor") || cml_mil_text_is(word, "list") || cml_mil_text_is(word, "tuple") || cml_mil_text_is(word, "dict") ||
         cml_mil_text_is(word, "state") || cml_dtype_by_name((const char *)word.data, word.size) != CML_DTYPE_NONE;
}

/* Whether a type with its value comes next: a name that is also a type's is followed by neither. */
static bool at_typed_value(cml_mil_parser *r) {
  cml_span word = cml_mil_text_peek(r);
  if (!word.size || !is_type_word(word)) return false;
  const uint8_t *back = r->p;
  r->p += word.size;
  bool typed = next_is(r, '(') || next_is(r, '<');
  r->p = back;
  return typed;
}

/* ---- tensor literals ---- */

static cml_status parse_element(cml_mil_parser *r, cml_dtype type) {
  if (type == CML_STRING) {
    cml_string s;
    CML_TRY(cml_mil_text_string(r, &s));
    PUSH(r, s);
    return CML_OK;
  }
  uint64_t bits = 0;
  bool range = true;
  if (type == CML_BOOL) {
    if (cml_mil_text_accept_word(r, "true")) bits = 1;
    else if (!cml_mil_text_accept_word(r, "false")) return cml_mil_text_expected(r, "true or false");
  } else {
    const uint8_t *p = cml_dtype_is_float(type) ? cml_mil_number_float(r->p, r->end, type, &bits)
                                                : cml_mil_number_integer(r->p, r->end, type, &bits, &range);
    if (!range) return cml_mil_text_fail(r, CML_INVALID, r->p, "a number does not fit %s", cml_dtype_name(type));
    if (!p) return cml_mil_text_expected(r, cml_dtype_is_float(type) ? "a number" : "an integer");
    r->p = p;
  }
  size_t bytes = (cml_dtype_bits(type) + 7) / 8;
  void *top = cml_mil_text_push(r, bytes);
  if (!top) return cml_fail_memory(r->err);
  memcpy(top, &bits, bytes);
  return CML_OK;
}

/* What is known of a literal's shape; dimensions that are not are taken from the brackets. */
typedef struct literal_shape {
  int64_t dims[MAX_RANK];
  int rank; /* -1: to be found */
} literal_shape;

static cml_status parse_level(cml_mil_parser *r, cml_dtype type, literal_shape *shape, int level) {
  skip(r);
  const uint8_t *open = r->p;
  CML_TRY(cml_mil_text_expect(r, '['));
  if (level == MAX_RANK) return cml_mil_text_fail(r, CML_LIMIT, open, "a tensor of more than %d dimensions", MAX_RANK);
  bool nested = shape->rank >= 0 ? level + 1 < shape->rank : next_is(r, '[');
  int64_t n = 0;
  if (!accept(r, ']')) {
    do {
      skip(r);
      CML_TRY(nested ? parse_level(r, type, shape, level + 1) : parse_element(r, type));
      n++;
    } while (accept(r, ','));
    if (!accept(r, ']')) return cml_mil_text_expected(r, "\",\" or \"]\" in a tensor");
  }
  if (shape->rank < 0 && !nested) shape->rank = level + 1;
  if (shape->dims[level] < 0) shape->dims[level] = n;
  if (shape->dims[level] == n) return CML_OK;
  return cml_mil_text_fail(r, CML_INVALID, open, "dimension %d has %lld elements, expected %lld", level, (long long)n,
                 (long long)shape->dims[level]);
}

/* Bits of `count` elements, a byte each, packed: low bits first. */
static void pack(uint8_t *to, const uint8_t *from, size_t count, unsigned bits) {
  for (size_t i = 0; i < count; i++) {
    size_t at = i * bits;
    unsigned wide = (unsigned)(from[i] & ((1u << bits) - 1)) << (at & 7);
    to[at >> 3] |= (uint8_t)wide;
    if (wide >> 8) to[(at >> 3) + 1] |= (uint8_t)(wide >> 8);
  }
}

static cml_status take_elements(cml_mil_parser *r, size_t mark, cml_mil_value *value) {
  cml_dtype type = value->type->dtype;
  if (type == CML_STRING) return cml_mil_text_pop(r, mark, sizeof(cml_string), &value->strings, &value->count);
  unsigned bits = cml_dtype_bits(type);
  uint8_t *data = NULL;
  if (bits >= 8) {
    CML_TRY(cml_mil_text_pop(r, mark, bits / 8, &data, &value->count));
    value->data = cml_span_of(data, value->count * (bits / 8));
    return CML_OK;
  }
  uint64_t bytes;
  value->count = r->scratch_size - mark;
  r->scratch_size = mark;
  if (!cml_dtype_bytes(type, value->count, &bytes) || !(data = cml_arena_alloc(r->arena, (size_t)bytes)))
    return cml_fail_memory(r->err);
  pack(data, r->scratch + mark, value->count, bits);
  value->data = cml_span_of(data, (size_t)bytes);
  return CML_OK;
}

/* One unknown dimension is told by the elements' count and stays unknown, as Apple's compiler wrote it; where the count
 * cannot tell (several unknown, a known 0), the type takes the literal's shape. */
static cml_status settle_shape(cml_mil_parser *r, cml_mil_type **type, const literal_shape *shape) {
  int unknown = shape->rank == (*type)->rank ? 0 : 2;
  bool empty = false;
  for (int32_t i = 0; i < (*type)->rank; i++) {
    unknown += (*type)->dims[i] < 0;
    empty |= (*type)->dims[i] == 0;
  }
  if (unknown == 0 || (unknown == 1 && !empty)) return CML_OK;
  cml_mil_type *settled = cml_mil_type_tensor(r->arena, (*type)->dtype, shape->rank, shape->dims);
  if (!settled) return cml_fail_memory(r->err);
  settled->attributes = (*type)->attributes;
  *type = settled;
  return CML_OK;
}

/* Elements in brackets. PACKED is ours: a value whose elements are not as many as its type says, as some constexpr_
 * operations of other tools have. */
static cml_status parse_tensor_literal(cml_mil_parser *r, cml_mil_value *value) {
  const cml_mil_type *type = value->type;
  literal_shape shape = {.rank = type->rank};
  for (int i = 0; i < MAX_RANK; i++) shape.dims[i] = i < type->rank && type->dims[i] >= 0 ? type->dims[i] : -1;
  for (int i = 0; i < type->rank; i++)
    if (type->dims[i] == CML_DIM_VARIADIC) shape.rank = -1;
  if (shape.rank < 0)
    for (int i = 0; i < MAX_RANK; i++) shape.dims[i] = -1;
  size_t mark = r->scratch_size;
  if (cml_mil_text_accept_word(r, "PACKED")) {
    shape = (literal_shape){.rank = 1, .dims = {-1}};
    CML_TRY(cml_mil_text_expect(r, '('));
    CML_TRY(parse_level(r, type->dtype, &shape, 0));
    CML_TRY(cml_mil_text_expect(r, ')'));
    return take_elements(r, mark, value);
  }
  skip(r);
  bool scalar = shape.rank < 0 && !next_is(r, '[');
  if (scalar) shape.rank = 0;
  CML_TRY(shape.rank == 0 ? parse_element(r, type->dtype) : parse_level(r, type->dtype, &shape, 0));
  CML_TRY(settle_shape(r, &value->type, &shape));
  return take_elements(r, mark, value);
}

/* ---- values ---- */

static cml_status parse_typed(cml_mil_parser *r, cml_mil_value **out);

/* "BLOBFILE(path = string("…"), offset = uint64(64))", the word taken. */
static cml_status parse_blob(cml_mil_parser *r, cml_mil_value *value) {
  value->kind = CML_VALUE_BLOB;
  CML_TRY(cml_mil_text_expect(r, '('));
  bool has_offset = false;
  for (int i = 0; i < 2; i++) {
    if (i) CML_TRY(cml_mil_text_expect(r, ','));
    bool path = cml_mil_text_accept_word(r, "path");
    if (!path && !cml_mil_text_accept_word(r, "offset")) return cml_mil_text_expected(r, "path or offset");
    CML_TRY(cml_mil_text_expect(r, '='));
    skip(r);
    const uint8_t *at = r->p;
    cml_mil_value *part = NULL;
    CML_TRY(parse_typed(r, &part));
    if (part->kind != CML_VALUE_TENSOR || part->count != 1 || part->type->dtype != (path ? CML_STRING : CML_U64))
      return cml_mil_text_fail(r, CML_INVALID, at, "a BLOBFILE's %s must be one %s", path ? "path" : "offset", path ? "string" : "uint64");
    if (path) value->file = part->strings[0].data;
    else value->offset = cml_load_u64(part->data.data), has_offset = true;
  }
  if (!value->file || !has_offset) return cml_mil_text_expected(r, "both path and offset");
  return cml_mil_text_expect(r, ')');
}

static cml_status parse_literal(cml_mil_parser *r, cml_mil_type *type, cml_mil_value **out);

/* An item of a list, tuple or dictionary: typed by the container, or by itself. */
static cml_status parse_item(cml_mil_parser *r, cml_mil_type *type, cml_mil_value **out) {
  if (at_typed_value(r)) return parse_typed(r, out);
  if (!type) return cml_mil_text_expected(r, "a typed value");
  return parse_literal(r, type, out);
}

/* "[a, b]" of a list or "(a, b)" of a tuple. */
static cml_status parse_items(cml_mil_parser *r, cml_mil_value *value, char open, char close) {
  const cml_mil_type *type = value->type;
  CML_TRY(cml_mil_text_expect(r, open));
  size_t mark = r->scratch_size, n = 0;
  while (!accept(r, close)) {
    if (n) CML_TRY(cml_mil_text_expect(r, ','));
    cml_mil_value *item = NULL;
    bool list = type->kind == CML_TYPE_LIST;
    if (!list && n >= type->arg_count) return cml_mil_text_fail(r, CML_INVALID, r->p, "more values than the tuple has types (%zu)", type->arg_count);
    CML_TRY(parse_item(r, type->args[list ? 0 : n], &item));
    PUSH(r, item);
    n++;
  }
  return cml_mil_text_pop(r, mark, sizeof(cml_mil_value *), &value->items, &value->count);
}

/* "{{key, value}, …}" */
static cml_status parse_dictionary(cml_mil_parser *r, cml_mil_value *value) {
  const cml_mil_type *type = value->type;
  CML_TRY(cml_mil_text_expect(r, '{'));
  size_t mark = r->scratch_size, n = 0;
  while (!accept(r, '}')) {
    if (n++) CML_TRY(cml_mil_text_expect(r, ','));
    cml_mil_value *pair[2];
    CML_TRY(cml_mil_text_expect(r, '{'));
    CML_TRY(parse_item(r, type->args[0], &pair[0]));
    CML_TRY(cml_mil_text_expect(r, ','));
    CML_TRY(parse_item(r, type->args[1], &pair[1]));
    CML_TRY(cml_mil_text_expect(r, '}'));
    PUSH(r, pair);
  }
  cml_mil_value **both = NULL;
  CML_TRY(cml_mil_text_pop(r, mark, sizeof(cml_mil_value *), &both, &value->count));
  value->count /= 2;
  value->keys = cml_arena_array(r->arena, value->count, sizeof(cml_mil_value *));
  value->items = cml_arena_array(r->arena, value->count, sizeof(cml_mil_value *));
  if (!value->keys || !value->items) return cml_fail_memory(r->err);
  for (size_t i = 0; i < value->count; i++) value->keys[i] = both[2 * i], value->items[i] = both[2 * i + 1];
  return CML_OK;
}

static cml_status parse_literal_body(cml_mil_parser *r, cml_mil_value *value) {
  if (cml_mil_text_accept_word(r, "BLOBFILE")) return parse_blob(r, value);
  switch (value->type->kind) {
    case CML_TYPE_TENSOR: return value->kind = CML_VALUE_TENSOR, parse_tensor_literal(r, value);
    case CML_TYPE_LIST: return value->kind = CML_VALUE_LIST, parse_items(r, value, '[', ']');
    case CML_TYPE_TUPLE: return value->kind = CML_VALUE_TUPLE, parse_items(r, value, '(', ')');
    case CML_TYPE_DICTIONARY: return value->kind = CML_VALUE_DICTIONARY, parse_dictionary(r, value);
    case CML_TYPE_STATE: break;
  }
  return cml_mil_text_fail(r, CML_INVALID, r->p, "a state has no literal value");
}

static cml_status parse_literal(cml_mil_parser *r, cml_mil_type *type, cml_mil_value **out) {
  cml_mil_value *value = CML_ARENA_NEW(r->arena, cml_mil_value);
  if (!value) return cml_fail_memory(r->err);
  value->type = type;
  CML_TRY(cml_mil_text_deeper(r));
  CML_TRY(parse_literal_body(r, value));
  r->depth--;
  *out = value;
  return CML_OK;
}

/* "TYPE(literal)" */
static cml_status parse_typed(cml_mil_parser *r, cml_mil_value **out) {
  cml_mil_type *type = NULL;
  CML_TRY(parse_type(r, &type));
  CML_TRY(cml_mil_text_expect(r, '('));
  if (type->kind == CML_TYPE_TUPLE && accept(r, ')')) { /* nothing at all within */
    cml_mil_value *value = CML_ARENA_NEW(r->arena, cml_mil_value);
    if (!value) return cml_fail_memory(r->err);
    *value = (cml_mil_value){.kind = CML_VALUE_TUPLE, .type = type};
    *out = value;
    return CML_OK;
  }
  CML_TRY(parse_literal(r, type, out));
  return cml_mil_text_expect(r, ')');
}

/* "[name = VALUE, name = VALUE]" */
static cml_status parse_attributes(cml_mil_parser *r, cml_mil_attributes *out) {
  CML_TRY(cml_mil_text_expect(r, '['));
  size_t mark = r->scratch_size, n = 0;
  while (!accept(r, ']')) {
    if (n++) CML_TRY(cml_mil_text_expect(r, ','));
    cml_mil_attribute attribute;
    CML_TRY(cml_mil_text_name(r, "an attribute's name", &attribute.name));
    CML_TRY(cml_mil_text_expect(r, '='));
    CML_TRY(parse_typed(r, &attribute.value));
    PUSH(r, attribute);
  }
  return cml_mil_text_pop(r, mark, sizeof(cml_mil_attribute), &out->items, &out->count);
}

/* ---- operations ---- */

/* "TYPE name"; of a block's or function's inputs and an operation's outputs. */
static cml_status parse_named(cml_mil_parser *r, cml_mil_named *out) {
  *out = (cml_mil_named){0};
  CML_TRY(parse_type(r, &out->type));
  return cml_mil_text_name(r, "a value's name", &out->name);
}

/* "(TYPE name, TYPE name)" */
static cml_status parse_inputs(cml_mil_parser *r, cml_mil_named **out, size_t *out_count) {
  CML_TRY(cml_mil_text_expect(r, '('));
  size_t mark = r->scratch_size, n = 0;
  while (!accept(r, ')')) {
    if (n++) CML_TRY(cml_mil_text_expect(r, ','));
    cml_mil_named input;
    CML_TRY(parse_named(r, &input));
    PUSH(r, input);
  }
  return cml_mil_text_pop(r, mark, sizeof(cml_mil_named), out, out_count);
}

static cml_status parse_binding(cml_mil_parser *r, cml_mil_binding *out) {
  *out = (cml_mil_binding){0};
  if (at_typed_value(r)) return parse_typed(r, &out->value);
  return cml_mil_text_name(r, "a value or a value's name", &out->name);
}

/* "parameter = binding" or "parameter = (binding, binding)" */
static cml_status parse_argument(cml_mil_parser *r, cml_mil_argument *out) {
  *out = (cml_mil_argument){0};
  CML_TRY(cml_mil_text_name(r, "a parameter's name", &out->parameter));
  CML_TRY(cml_mil_text_expect(r, '='));
  size_t mark = r->scratch_size, n = 0;
  cml_mil_binding binding;
  if (accept(r, '(')) {
    while (!accept(r, ')')) {
      if (n++) CML_TRY(cml_mil_text_expect(r, ','));
      CML_TRY(parse_binding(r, &binding));
      PUSH(r, binding);
    }
    out->listed = n == 1;
  } else {
    CML_TRY(parse_binding(r, &binding));
    PUSH(r, binding);
  }
  return cml_mil_text_pop(r, mark, sizeof(cml_mil_binding), &out->bindings, &out->count);
}

static cml_status parse_arguments(cml_mil_parser *r, cml_mil_op *op) {
  CML_TRY(cml_mil_text_expect(r, '('));
  size_t mark = r->scratch_size, n = 0;
  while (!accept(r, ')')) {
    if (n++) CML_TRY(cml_mil_text_expect(r, ','));
    cml_mil_argument argument;
    CML_TRY(parse_argument(r, &argument));
    PUSH(r, argument);
  }
  return cml_mil_text_pop(r, mark, sizeof(cml_mil_argument), &op->inputs, &op->input_count);
}

/* "TYPE a, TYPE b =", perhaps in parentheses; nothing for an operation without outputs, which starts with "type(". */
static cml_status parse_outputs(cml_mil_parser *r, cml_mil_op *op) {
  bool parentheses = accept(r, '(');
  const uint8_t *back = r->p;
  cml_span word = cml_mil_text_peek(r);
  r->p += word.size;
  bool none = !parentheses && word.size && next_is(r, '(');
  r->p = back;
  if (none) return CML_OK;
  size_t mark = r->scratch_size;
  do {
    cml_mil_named output;
    CML_TRY(parse_named(r, &output));
    PUSH(r, output);
  } while (accept(r, ','));
  if (parentheses) CML_TRY(cml_mil_text_expect(r, ')'));
  CML_TRY(cml_mil_text_expect(r, '='));
  return cml_mil_text_pop(r, mark, sizeof(cml_mil_named), &op->outputs, &op->output_count);
}

static cml_status parse_block(cml_mil_parser *r, cml_mil_block **out);

/* Attributes and nested blocks up to the semicolon, in any order. */
static cml_status parse_op_tail(cml_mil_parser *r, cml_mil_op *op) {
  size_t mark = r->scratch_size;
  bool has_attributes = false;
  while (!accept(r, ';')) {
    if (next_is(r, '[') && !has_attributes) {
      CML_TRY(parse_attributes(r, &op->attributes));
      has_attributes = true;
    } else if (next_is(r, '{') || next_is(r, '(') || next_is(r, ',') || cml_mil_text_peek(r).size) {
      if (accept(r, ',') && !op->block_count) return cml_mil_text_expected(r, "\";\"");
      r->p += cml_mil_text_peek(r).size; /* a block's name says nothing */
      cml_mil_block *block = NULL;
      CML_TRY(parse_block(r, &block));
      PUSH(r, block);
      op->block_count++;
    } else {
      return cml_mil_text_expected(r, "\";\"");
    }
  }
  return cml_mil_text_pop(r, mark, sizeof(cml_mil_block *), &op->blocks, &op->block_count);
}

static cml_status parse_op(cml_mil_parser *r, cml_mil_op **out) {
  cml_mil_op *op = CML_ARENA_NEW(r->arena, cml_mil_op);
  if (!op) return cml_fail_memory(r->err);
  skip(r);
  op->source_offset = (uint64_t)(r->p - r->start);
  CML_TRY(parse_outputs(r, op));
  CML_TRY(cml_mil_text_name(r, "an operation", &op->type));
  CML_TRY(parse_arguments(r, op));
  CML_TRY(parse_op_tail(r, op));
  *out = op;
  return CML_OK;
}

/* "{ operations } -> (a, b)", the part that functions and nested blocks share. */
static cml_status parse_body(cml_mil_parser *r, cml_mil_block *block) {
  CML_TRY(cml_mil_text_deeper(r));
  CML_TRY(cml_mil_text_expect(r, '{'));
  size_t mark = r->scratch_size;
  while (!accept(r, '}')) {
    cml_mil_op *op = NULL;
    CML_TRY(parse_op(r, &op));
    PUSH(r, op);
  }
  CML_TRY(cml_mil_text_pop(r, mark, sizeof(cml_mil_op *), &block->ops, &block->op_count));
  CML_TRY(cml_mil_text_expect_arrow(r));
  CML_TRY(cml_mil_text_expect(r, '('));
  mark = r->scratch_size;
  size_t n = 0;
  while (!accept(r, ')')) {
    if (n++) CML_TRY(cml_mil_text_expect(r, ','));
    const char *name = NULL;
    CML_TRY(cml_mil_text_name(r, "an output's name", &name));
    PUSH(r, name);
  }
  r->depth--;
  return cml_mil_text_pop(r, mark, sizeof(char *), &block->outputs, &block->output_count);
}

static cml_status parse_block(cml_mil_parser *r, cml_mil_block **out) {
  cml_mil_block *block = CML_ARENA_NEW(r->arena, cml_mil_block);
  if (!block) return cml_fail_memory(r->err);
  if (next_is(r, '(')) CML_TRY(parse_inputs(r, &block->inputs, &block->input_count));
  CML_TRY(parse_body(r, block));
  *out = block;
  return CML_OK;
}

/* ---- functions ---- */

static cml_status parse_opset(cml_mil_parser *r, const char **out) {
  CML_TRY(cml_mil_text_expect(r, '<'));
  CML_TRY(cml_mil_text_name(r, "an opset", out));
  *out = cml_mil_opset_from_text(*out);
  return cml_mil_text_expect(r, '>');
}

static cml_status add_specialization(cml_mil_parser *r, cml_mil_function *f, const char *opset, cml_mil_block *block) {
  struct cml_mil_specialization *all = cml_arena_array(r->arena, f->specialization_count + 1, sizeof *all);
  if (!all) return cml_fail_memory(r->err);
  if (f->specialization_count) memcpy(all, f->specializations, f->specialization_count * sizeof *all);
  all[f->specialization_count] = (struct cml_mil_specialization){opset, block};
  f->specializations = all;
  f->specialization_count++;
  return CML_OK;
}

static cml_mil_function *function_so_far(cml_mil_parser *r, size_t mark, const char *name) {
  for (size_t at = mark; at < r->scratch_size; at += sizeof(cml_mil_function *)) {
    cml_mil_function *f;
    memcpy(&f, r->scratch + at, sizeof f);
    if (!strcmp(f->name, name)) return f;
  }
  return NULL;
}

/* "func NAME<OPSET>(inputs) [attributes] { … } -> (outputs);"; one more opset of a function that stood before, or a
 * new function. */
static cml_status parse_function(cml_mil_parser *r, size_t mark) {
  cml_mil_function f = {0};
  cml_mil_block *block = CML_ARENA_NEW(r->arena, cml_mil_block);
  if (!block) return cml_fail_memory(r->err);
  if (!cml_mil_text_accept_word(r, "func")) return cml_mil_text_expected(r, "\"func\" or \"}\"");
  CML_TRY(cml_mil_text_name(r, "a function's name", &f.name));
  skip(r);
  const uint8_t *at = r->p;
  CML_TRY(parse_opset(r, &f.opset));
  CML_TRY(parse_inputs(r, &f.inputs, &f.input_count));
  if (next_is(r, '[')) CML_TRY(parse_attributes(r, &f.attributes));
  if (next_is(r, '(')) CML_TRY(parse_inputs(r, &block->inputs, &block->input_count));
  CML_TRY(parse_body(r, block));
  if (next_is(r, '[')) CML_TRY(parse_attributes(r, &block->attributes));
  CML_TRY(cml_mil_text_expect(r, ';'));
  cml_mil_function *function = function_so_far(r, mark, f.name);
  if (!function) {
    if (!(function = CML_ARENA_NEW(r->arena, cml_mil_function))) return cml_fail_memory(r->err);
    *function = f;
    PUSH(r, function);
  }
  for (size_t i = 0; i < function->specialization_count; i++)
    if (!strcmp(function->specializations[i].opset, f.opset))
      return cml_mil_text_fail(r, CML_INVALID, at, "function %s is defined twice for opset %s", f.name, f.opset);
  return add_specialization(r, function, f.opset, block);
}

/* "program(1.3)": the minor number is the dialect, which the text itself shows. */
static cml_status parse_version(cml_mil_parser *r, int64_t *out) {
  int64_t minor;
  if (!cml_mil_text_accept_word(r, "program")) return cml_mil_text_expected(r, "\"program(1.0)\" or \"program(1.3)\"");
  CML_TRY(cml_mil_text_expect(r, '('));
  skip(r);
  const uint8_t *at = r->p;
  CML_TRY(cml_mil_text_unsigned(r, "a version", out));
  if (r->p < r->end && *r->p == '.') {
    r->p++;
    CML_TRY(cml_mil_text_unsigned(r, "a minor version", &minor));
  }
  if (*out != 1) return cml_mil_text_fail(r, CML_UNSUPPORTED, at, "version %lld of the text form, expected 1", (long long)*out);
  return cml_mil_text_expect(r, ')');
}

static cml_status parse_program(cml_mil_parser *r, cml_mil_program **out) {
  cml_mil_program *program = CML_ARENA_NEW(r->arena, cml_mil_program);
  if (!program) return cml_fail_memory(r->err);
  CML_TRY(parse_version(r, &program->version));
  if (next_is(r, '[')) CML_TRY(parse_attributes(r, &program->attributes));
  CML_TRY(cml_mil_text_expect(r, '{'));
  size_t mark = r->scratch_size;
  while (!accept(r, '}')) CML_TRY(parse_function(r, mark));
  CML_TRY(cml_mil_text_pop(r, mark, sizeof(cml_mil_function *), &program->functions, &program->function_count));
  skip(r);
  if (r->p != r->end) return cml_mil_text_expected(r, "the end of the text");
  *out = program;
  return CML_OK;
}

cml_status cml_mil_parse_text(cml_span text, cml_arena *arena, cml_mil_program **out, cml_error *err) {
  static const uint8_t nothing[1];
  const uint8_t *start = text.data ? text.data : nothing;
  cml_error own;
  cml_mil_parser r = {.start = start, .p = start, .end = start + text.size, .arena = arena, .err = err ? err : &own};
  cml_mil_program *program = NULL;
  cml_status status = parse_program(&r, &program);
  free(r.scratch);
  if (status) return status;
  status = cml_mil_check(program, r.err);
  if (!status) *out = program;
  else if (r.err->offset <= text.size) cml_mil_text_place(&r, status, start + r.err->offset);
  return status;
}
