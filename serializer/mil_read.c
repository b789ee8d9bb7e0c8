/* The MIL program out of its protobuf.
 *
 * Every message is a table of its fields: which member of which object each fills, and how. One function walks a message
 * by its table, twice: first it counts and checks, so that arrays are allocated once and exactly; then it reads. Names are
 * copied (they need a NUL), numbers are decoded, once, into the arena; unknown fields stay spans of the file wherever
 * they are contiguous. Memory is bounded by the arena's limit, the stack by CML_MIL_MAX_DEPTH. */
#include <stdlib.h>

#include "mil_reader.h"

typedef enum row_kind {
  ROW_TEXT,   /* const char * */
  ROW_NUMBER, /* uint64_t or int64_t */
  ROW_SPAN,   /* cml_span of a nested message, read later */
  ROW_PART,   /* nested message read into object + at */
  ROW_MANY,   /* nested messages, one array element each */
  ROW_TEXTS,  /* const char ** */
} row_kind;

typedef cml_status read_part(reader *r, cml_span bytes, void *object);

typedef struct row {
  uint32_t number;
  row_kind kind;
  bool alternative; /* of a oneof: only one of the message's alternatives may stand */
  size_t at, count_at, size;
  read_part *read;
} row;

typedef struct message {
  const char *name;
  const row *rows;
  size_t count;
  size_t unknown_at; /* of a cml_span in the object, when place is OWN */
  cml_mil_place place;
} message;

#define ROWS(rows) rows, sizeof rows / sizeof *rows
#define TEXT(number, type, member) {number, ROW_TEXT, false, offsetof(type, member), 0, 0, NULL}
#define NUMBER(number, type, member) {number, ROW_NUMBER, false, offsetof(type, member), 0, 0, NULL}
#define PART(number, type, member, read) {number, ROW_PART, false, offsetof(type, member), 0, 0, read}
#define EITHER(number, kind, type, member, read) {number, kind, true, offsetof(type, member), 0, 0, read}
#define MANY(number, type, member, counter, read) \
  {number, ROW_MANY, false, offsetof(type, member), offsetof(type, counter), sizeof *((type *)0)->member, read}

enum { MAX_ROWS = 8 };

static cml_status read_text(reader *r, cml_span bytes, void *out) {
  if (!cml_wire_is_text(bytes))
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a text that is not UTF-8, or holds a NUL");
  char *copy = cml_arena_text(r->arena, (const char *)bytes.data, bytes.size);
  if (!copy) return out_of_memory(r);
  *(const char **)out = copy;
  return CML_OK;
}

static const row *find_row(const message *m, uint32_t number) {
  for (size_t i = 0; i < m->count; i++)
    if (m->rows[i].number == number) return &m->rows[i];
  return NULL;
}

/* What the first pass over a message finds. */
typedef struct tally {
  size_t counts[MAX_ROWS];
  cml_span unknown; /* of the first unknown field to the last */
  size_t unknown_size;
} tally;

static cml_status count_fields(reader *r, const message *m, cml_span bytes, tally *t) {
  size_t alternatives = 0;
  cml_wire_field f;
  cml_wire w = cml_wire_over(bytes);
  while (cml_wire_next(&w, &f)) {
    const row *way = find_row(m, f.number);
    if (!way) {
      if (!t->unknown_size) t->unknown.data = f.raw.data;
      t->unknown_size += f.raw.size;
      t->unknown.size = (size_t)(f.raw.data + f.raw.size - t->unknown.data);
      continue;
    }
    if (f.type != (way->kind == ROW_NUMBER ? CML_WIRE_VARINT : CML_WIRE_BYTES))
      return cml_fail(r->err, CML_INVALID, offset_of(r, f.raw.data), "%s: field %u has wire type %d", m->name, f.number, f.type);
    bool repeats = t->counts[way - m->rows]++ != 0;
    if (way->alternative) alternatives++;
    if (alternatives > 1 || (repeats && (way->kind == ROW_PART || way->kind == ROW_SPAN)))
      return cml_fail(r->err, CML_INVALID, offset_of(r, f.raw.data), "%s: field %u stands where another value is given already",
                      m->name, f.number);
  }
  if (w.problem) return cml_fail(r->err, CML_INVALID, offset_of(r, w.at), "%s: %s", m->name, w.problem);
  return CML_OK;
}

/* Unknown fields of a message, joined when known ones stood between them. */
static cml_status join_unknown(reader *r, const message *m, cml_span bytes, const tally *t, cml_span *out) {
  *out = t->unknown;
  if (t->unknown.size == t->unknown_size) return CML_OK;
  uint8_t *copy = cml_arena_alloc(r->arena, t->unknown_size);
  if (!copy) return out_of_memory(r);
  *out = (cml_span){copy, t->unknown_size};
  cml_wire_field f;
  cml_wire w = cml_wire_over(bytes);
  while (cml_wire_next(&w, &f)) {
    if (find_row(m, f.number)) continue;
    memcpy(copy, f.raw.data, f.raw.size);
    copy += f.raw.size;
  }
  return CML_OK;
}

static cml_status keep_extra(reader *r, const void *owner, cml_mil_place place, cml_span fields) {
  cml_mil_program *p = r->program;
  if (p->extra_count == r->extra_capacity) {
    size_t capacity = r->extra_capacity ? r->extra_capacity * 2 : 8;
    cml_mil_extra *extras = CML_ARENA_NEW_ARRAY(r->arena, cml_mil_extra, capacity);
    if (!extras) return out_of_memory(r);
    if (p->extra_count) memcpy(extras, p->extras, p->extra_count * sizeof *extras);
    p->extras = extras;
    r->extra_capacity = capacity;
  }
  p->extras[p->extra_count++] = (cml_mil_extra){owner, (uint32_t)place, fields};
  return CML_OK;
}

static cml_status keep_unknown(reader *r, const message *m, cml_span bytes, const tally *t, void *object, const void *owner) {
  if (!t->unknown_size) return CML_OK;
  cml_span fields;
  CML_TRY(join_unknown(r, m, bytes, t, &fields));
  if (m->place) return keep_extra(r, owner, m->place, fields);
  memcpy((char *)object + m->unknown_at, &fields, sizeof fields);
  return CML_OK;
}

static cml_status allocate_arrays(reader *r, const message *m, const tally *t, void *object) {
  for (size_t i = 0; i < m->count; i++) {
    const row *way = &m->rows[i];
    if ((way->kind != ROW_MANY && way->kind != ROW_TEXTS) || !t->counts[i]) continue;
    void *array = cml_arena_array(r->arena, t->counts[i], way->size);
    if (!array) return out_of_memory(r);
    memcpy((char *)object + way->at, &array, sizeof array);
  }
  return CML_OK;
}

static cml_status read_field(reader *r, const row *way, const cml_wire_field *f, void *object) {
  char *member = (char *)object + way->at;
  switch (way->kind) {
  case ROW_TEXT: return read_text(r, f->bytes, member);
  case ROW_NUMBER: memcpy(member, &f->value, sizeof f->value); return CML_OK;
  case ROW_SPAN: memcpy(member, &f->bytes, sizeof f->bytes); return CML_OK;
  case ROW_PART: return way->read(r, f->bytes, member);
  case ROW_MANY:
  case ROW_TEXTS: {
    char *array;
    memcpy(&array, member, sizeof array);
    size_t *count = (size_t *)(void *)((char *)object + way->count_at);
    char *item = array + (*count)++ * way->size;
    return way->kind == ROW_TEXTS ? read_text(r, f->bytes, item) : way->read(r, f->bytes, item);
  }
  }
  return CML_OK;
}

/* Reads a message into `object`; unknown fields of a message without a span of its own go under `owner`. */
static cml_status read_message(reader *r, const message *m, cml_span bytes, void *object, const void *owner) {
  if (r->depth == CML_MIL_MAX_DEPTH)
    return cml_fail(r->err, CML_LIMIT, offset_of(r, bytes.data), "%s: messages are nested more than %d deep", m->name,
                    CML_MIL_MAX_DEPTH);
  tally t = {0};
  CML_TRY(count_fields(r, m, bytes, &t));
  CML_TRY(keep_unknown(r, m, bytes, &t, object, owner));
  CML_TRY(allocate_arrays(r, m, &t, object));
  r->depth++;
  cml_wire_field f;
  cml_wire w = cml_wire_over(bytes);
  while (cml_wire_next(&w, &f)) {
    const row *way = find_row(m, f.number);
    if (way) CML_TRY(read_field(r, way, &f, object));
  }
  r->depth--;
  return CML_OK;
}

/* A name that a message must have: an empty one (which protobuf does not write) is "". */
static const char *text_or_empty(const char *text) { return text ? text : ""; }

/* ---- types ---- */

static read_part read_type, read_value, read_block, read_attribute, read_dimension;

static cml_status read_dimension_size(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {{1, ROW_NUMBER, false, 0, 0, 0, NULL}};
  static const message m = {"ConstantDimension", ROWS(rows), 0, CML_PLACE_DIMENSION_KIND};
  uint64_t size = 0;
  CML_TRY(read_message(r, &m, bytes, &size, object));
  if (size > INT64_MAX) return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a dimension of %llu", (unsigned long long)size);
  *(int64_t *)object = (int64_t)size;
  return CML_OK;
}

static cml_status read_dimension_unknown(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {{1, ROW_NUMBER, false, 0, 0, 0, NULL}};
  static const message m = {"UnknownDimension", ROWS(rows), 0, CML_PLACE_DIMENSION_KIND};
  uint64_t variadic = 0;
  CML_TRY(read_message(r, &m, bytes, &variadic, object));
  *(int64_t *)object = variadic ? CML_DIM_VARIADIC : CML_DIM_UNKNOWN;
  return CML_OK;
}

static cml_status read_dimension(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {{CML_F_DIM_CONSTANT, ROW_PART, true, 0, 0, 0, read_dimension_size},
                             {CML_F_DIM_UNKNOWN, ROW_PART, true, 0, 0, 0, read_dimension_unknown}};
  static const message m = {"Dimension", ROWS(rows), 0, CML_PLACE_DIMENSION};
  int64_t *dim = object;
  *dim = INT64_MIN;
  CML_TRY(read_message(r, &m, bytes, dim, dim));
  if (*dim == INT64_MIN) return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a dimension that is neither known nor unknown");
  return CML_OK;
}

typedef struct tensor_fields {
  uint64_t dtype;
  int64_t rank;
  int64_t *dims;
  size_t dim_count;
  cml_mil_attributes attributes;
} tensor_fields;

static cml_status read_tensor_type(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {
      NUMBER(CML_F_TENSOR_DTYPE, tensor_fields, dtype), NUMBER(CML_F_TENSOR_RANK, tensor_fields, rank),
      MANY(CML_F_TENSOR_DIMS, tensor_fields, dims, dim_count, read_dimension),
      MANY(CML_F_TENSOR_ATTRIBUTES, tensor_fields, attributes.items, attributes.count, read_attribute)};
  static const message m = {"TensorType", ROWS(rows), 0, CML_PLACE_TYPE_INNER};
  cml_mil_type *type = object;
  tensor_fields fields = {0};
  CML_TRY(read_message(r, &m, bytes, &fields, type));
  type->kind = CML_TYPE_TENSOR;
  type->dtype = cml_mil_dtype_from_number(fields.dtype);
  if (!type->dtype)
    return cml_fail(r->err, CML_UNSUPPORTED, offset_of(r, bytes.data), "a tensor of unknown element type %llu",
                    (unsigned long long)fields.dtype);
  bool agrees = fields.rank == CML_RANK_UNKNOWN ? !fields.dim_count : fields.rank >= 0 && (uint64_t)fields.rank == fields.dim_count;
  if (!agrees || fields.dim_count > INT32_MAX)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a tensor of rank %lld with %zu dimensions",
                    (long long)fields.rank, fields.dim_count);
  type->rank = (int32_t)fields.rank;
  type->dims = fields.dims;
  type->attributes = fields.attributes;
  return CML_OK;
}

/* Types of one, two or many parts: which parts must be there is the difference. */
static cml_status read_type_parts(reader *r, const message *m, cml_mil_type_kind kind, size_t parts, cml_span bytes, void *object) {
  cml_mil_type *type = object;
  type->kind = kind;
  if (parts) {
    type->args = CML_ARENA_NEW_ARRAY(r->arena, cml_mil_type *, parts);
    if (!type->args) return out_of_memory(r);
    type->arg_count = parts;
  }
  CML_TRY(read_message(r, m, bytes, parts ? (void *)type->args : type, type));
  for (size_t i = 0; i < type->arg_count; i++)
    if (!type->args[i]) return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "%s lacks a part", m->name);
  return CML_OK;
}

static cml_status read_tuple_type(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {MANY(1, cml_mil_type, args, arg_count, read_type)};
  static const message m = {"TupleType", ROWS(rows), 0, CML_PLACE_TYPE_INNER};
  return read_type_parts(r, &m, CML_TYPE_TUPLE, 0, bytes, object);
}

static cml_status read_dictionary_type(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {{1, ROW_PART, false, 0, 0, 0, read_type}, {2, ROW_PART, false, sizeof(cml_mil_type *), 0, 0, read_type}};
  static const message m = {"DictionaryType", ROWS(rows), 0, CML_PLACE_TYPE_INNER};
  return read_type_parts(r, &m, CML_TYPE_DICTIONARY, 2, bytes, object);
}

static cml_status read_state_type(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {{1, ROW_PART, false, 0, 0, 0, read_type}};
  static const message m = {"StateType", ROWS(rows), 0, CML_PLACE_TYPE_INNER};
  return read_type_parts(r, &m, CML_TYPE_STATE, 1, bytes, object);
}

static cml_status read_list_type(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {PART(CML_F_LIST_TYPE, cml_mil_type, args, read_type),
                             PART(CML_F_LIST_LENGTH, cml_mil_type, length, read_dimension)};
  static const message m = {"ListType", ROWS(rows), 0, CML_PLACE_TYPE_INNER};
  cml_mil_type *type = object, *element = NULL;
  type->kind = CML_TYPE_LIST;
  type->length = INT64_MIN;
  /* The one argument is read where the array will be, then moved behind a pointer. */
  CML_TRY(read_message(r, &m, bytes, type, type));
  memcpy(&element, &type->args, sizeof element);
  type->args = CML_ARENA_NEW(r->arena, cml_mil_type *);
  if (!type->args) return out_of_memory(r);
  type->args[0] = element;
  type->arg_count = 1;
  if (!element || type->length == INT64_MIN)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "ListType lacks its element type or its length");
  return CML_OK;
}

/* object is a cml_mil_type ** */
static cml_status read_type(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {{CML_F_TYPE_TENSOR, ROW_PART, true, 0, 0, 0, read_tensor_type},
                             {CML_F_TYPE_LIST, ROW_PART, true, 0, 0, 0, read_list_type},
                             {CML_F_TYPE_TUPLE, ROW_PART, true, 0, 0, 0, read_tuple_type},
                             {CML_F_TYPE_DICTIONARY, ROW_PART, true, 0, 0, 0, read_dictionary_type},
                             {CML_F_TYPE_STATE, ROW_PART, true, 0, 0, 0, read_state_type}};
  static const message m = {"ValueType", ROWS(rows), offsetof(cml_mil_type, unknown), CML_PLACE_OWN};
  cml_mil_type *type = CML_ARENA_NEW(r->arena, cml_mil_type);
  if (!type) return out_of_memory(r);
  type->dtype = CML_DTYPE_NONE;
  type->rank = INT32_MIN;
  CML_TRY(read_message(r, &m, bytes, type, type));
  if (type->kind == CML_TYPE_TENSOR && type->rank == INT32_MIN)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a type of an unknown kind");
  if (type->kind != CML_TYPE_TENSOR) type->rank = 0;
  *(cml_mil_type **)object = type;
  return CML_OK;
}

/* ---- values ---- */

static cml_status read_elements(reader *r, cml_span bytes, cml_mil_value *value) {
  static const row none[] = {{1, ROW_TEXTS, false, 0, 0, 0, NULL}};
  cml_wire_field f;
  size_t unknown = 0;
  cml_wire w = cml_wire_over(bytes);
  while (cml_wire_next(&w, &f)) unknown += f.number != 1;
  if (w.problem) return cml_fail(r->err, CML_INVALID, offset_of(r, w.at), "a tensor's elements: %s", w.problem);
  if (unknown) {
    message m = {"elements", none, 1, 0, CML_PLACE_NUMBERS};
    tally t = {0};
    for (w = cml_wire_over(bytes); cml_wire_next(&w, &f);) {
      if (f.number == 1) continue;
      if (!t.unknown_size) t.unknown.data = f.raw.data;
      t.unknown_size += f.raw.size;
      t.unknown.size = (size_t)(f.raw.data + f.raw.size - t.unknown.data);
    }
    CML_TRY(keep_unknown(r, &m, bytes, &t, value, value));
  }
  return cml_mil_read_elements(r, bytes, value);
}

typedef struct tensor_value_fields {
  cml_span kinds[7];
} tensor_value_fields;

static cml_status read_tensor_value(reader *r, cml_span bytes, void *object) {
#define STORED(number) EITHER(number, ROW_SPAN, tensor_value_fields, kinds[(number)-1], NULL)
  static const row rows[] = {STORED(CML_F_NUMBERS_FLOATS), STORED(CML_F_NUMBERS_INTS), STORED(CML_F_NUMBERS_BOOLS),
                             STORED(CML_F_NUMBERS_STRINGS), STORED(CML_F_NUMBERS_LONGS), STORED(CML_F_NUMBERS_DOUBLES),
                             STORED(CML_F_NUMBERS_BYTES)};
#undef STORED
  static const message m = {"TensorValue", ROWS(rows), 0, CML_PLACE_TENSOR_VALUE};
  cml_mil_value *value = object;
  tensor_value_fields fields = {0};
  if (value->type->kind != CML_TYPE_TENSOR)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a tensor given for a value of another type");
  CML_TRY(read_message(r, &m, bytes, &fields, value));
  value->kind = CML_VALUE_TENSOR;
  value->storage = CML_STORAGE_NONE;
  for (size_t i = 0; i < 7; i++) {
    if (!fields.kinds[i].data) continue;
    value->storage = (cml_mil_storage)(CML_STORAGE_FLOATS + i);
    if (!cml_mil_storage_fits(value->storage, value->type->dtype))
      return cml_fail(r->err, CML_INVALID, offset_of(r, fields.kinds[i].data), "elements of %s stored in field %zu of TensorValue",
                      cml_dtype_name(value->type->dtype), i + 1);
    CML_TRY(read_elements(r, fields.kinds[i], value));
  }
  uint64_t elements;
  bool as_bytes = value->storage == CML_STORAGE_BYTES; /* counted by read_bytes */
  if (!as_bytes && cml_mil_type_elements(value->type, &elements) && elements != value->count)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "%zu elements where the type asks for %llu", value->count,
                    (unsigned long long)elements);
  return CML_OK;
}

/* Whether an item may stand in a collection; unknown dimensions make shapes no matter of equality. */
static bool item_fits(const cml_mil_value *item, const cml_mil_type *type) {
  return item->type->kind == type->kind && item->type->dtype == type->dtype;
}

static cml_status check_items(reader *r, cml_span bytes, const cml_mil_value *value) {
  const cml_mil_type *type = value->type;
  for (size_t i = 0; i < value->count; i++) {
    const cml_mil_type *wanted = type->args[value->kind == CML_VALUE_TUPLE ? i : value->kind == CML_VALUE_DICTIONARY];
    if (!item_fits(value->items[i], wanted) || (value->keys && !item_fits(value->keys[i], type->args[0])))
      return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "item %zu is of another type than its collection says", i);
  }
  return CML_OK;
}

static cml_status check_collection(reader *r, cml_span bytes, const cml_mil_value *value, cml_mil_type_kind kind) {
  const cml_mil_type *type = value->type;
  if (type->kind != kind)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a collection given for a value of another type");
  if (kind == CML_TYPE_TUPLE ? value->count != type->arg_count
                             : kind == CML_TYPE_LIST && type->length >= 0 && (uint64_t)type->length != value->count)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "%zu items where the type asks for another number", value->count);
  return check_items(r, bytes, value);
}

static const row collection_rows[] = {MANY(1, cml_mil_value, items, count, read_value)};

static cml_status read_tuple_value(reader *r, cml_span bytes, void *object) {
  static const message m = {"TupleValue", ROWS(collection_rows), 0, CML_PLACE_COLLECTION};
  cml_mil_value *value = object;
  value->kind = CML_VALUE_TUPLE;
  CML_TRY(read_message(r, &m, bytes, value, value));
  return check_collection(r, bytes, value, CML_TYPE_TUPLE);
}

static cml_status read_list_value(reader *r, cml_span bytes, void *object) {
  static const message m = {"ListValue", ROWS(collection_rows), 0, CML_PLACE_COLLECTION};
  cml_mil_value *value = object;
  value->kind = CML_VALUE_LIST;
  CML_TRY(read_message(r, &m, bytes, value, value));
  return check_collection(r, bytes, value, CML_TYPE_LIST);
}

typedef struct pair { cml_mil_value *key, *value; } pair;
typedef struct pairs { pair *items; size_t count; } pairs;

static cml_status read_pair(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {PART(1, pair, key, read_value), PART(2, pair, value, read_value)};
  static const message m = {"KeyValuePair", ROWS(rows), 0, CML_PLACE_PAIR};
  pair *p = object;
  CML_TRY(read_message(r, &m, bytes, p, p));
  if (!p->key || !p->value)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a dictionary's entry lacks its key or its value");
  return CML_OK;
}

static cml_status read_dictionary_value(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {MANY(1, pairs, items, count, read_pair)};
  static const message m = {"DictionaryValue", ROWS(rows), 0, CML_PLACE_COLLECTION};
  cml_mil_value *value = object;
  pairs p = {0};
  value->kind = CML_VALUE_DICTIONARY;
  size_t extras = r->program->extra_count;
  CML_TRY(read_message(r, &m, bytes, &p, value));
  value->keys = CML_ARENA_NEW_ARRAY(r->arena, cml_mil_value *, p.count);
  value->items = CML_ARENA_NEW_ARRAY(r->arena, cml_mil_value *, p.count);
  if (!value->keys || !value->items) return out_of_memory(r);
  value->count = p.count;
  for (size_t i = 0; i < p.count; i++) {
    value->keys[i] = p.items[i].key;
    value->items[i] = p.items[i].value;
    for (size_t e = extras; e < r->program->extra_count; e++) /* the pair is gone: its key stands for it */
      if (r->program->extras[e].owner == &p.items[i]) r->program->extras[e].owner = p.items[i].key;
  }
  return check_collection(r, bytes, value, CML_TYPE_DICTIONARY);
}

static cml_status read_immediate(reader *r, cml_span bytes, cml_mil_value *value) {
  static const row rows[] = {{CML_F_IMMEDIATE_TENSOR, ROW_PART, true, 0, 0, 0, read_tensor_value},
                             {CML_F_IMMEDIATE_TUPLE, ROW_PART, true, 0, 0, 0, read_tuple_value},
                             {CML_F_IMMEDIATE_LIST, ROW_PART, true, 0, 0, 0, read_list_value},
                             {CML_F_IMMEDIATE_DICTIONARY, ROW_PART, true, 0, 0, 0, read_dictionary_value}};
  static const message m = {"ImmediateValue", ROWS(rows), offsetof(cml_mil_value, unknown_inner), CML_PLACE_OWN};
  value->storage = CML_STORAGE_AUTO;
  value->kind = CML_VALUE_BLOB; /* replaced by the part that is there */
  CML_TRY(read_message(r, &m, bytes, value, value));
  if (value->kind == CML_VALUE_BLOB)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "an immediate value of an unknown kind");
  return CML_OK;
}

static cml_status read_blob(reader *r, cml_span bytes, cml_mil_value *value) {
  static const row rows[] = {TEXT(CML_F_BLOB_FILE, cml_mil_value, file), NUMBER(CML_F_BLOB_OFFSET, cml_mil_value, offset)};
  static const message m = {"BlobFileValue", ROWS(rows), offsetof(cml_mil_value, unknown_inner), CML_PLACE_OWN};
  value->kind = CML_VALUE_BLOB;
  CML_TRY(read_message(r, &m, bytes, value, value));
  value->file = text_or_empty(value->file);
  uint64_t count = 0;
  if (value->type->kind != CML_TYPE_TENSOR || value->type->dtype == CML_STRING || !cml_mil_type_elements(value->type, &count) ||
      count > SIZE_MAX)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a blob for a value that is no tensor of known shape");
  value->count = (size_t)count;
  return CML_OK;
}

typedef struct value_fields {
  const char *doc;
  cml_mil_type *type;
  cml_span immediate, blob, unknown;
} value_fields;

/* object is a cml_mil_value ** */
static cml_status read_value(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {TEXT(CML_F_VALUE_DOC, value_fields, doc), PART(CML_F_VALUE_TYPE, value_fields, type, read_type),
                             EITHER(CML_F_VALUE_IMMEDIATE, ROW_SPAN, value_fields, immediate, NULL),
                             EITHER(CML_F_VALUE_BLOB, ROW_SPAN, value_fields, blob, NULL)};
  static const message m = {"Value", ROWS(rows), offsetof(value_fields, unknown), CML_PLACE_OWN};
  value_fields fields = {0};
  CML_TRY(read_message(r, &m, bytes, &fields, NULL));
  if (!fields.type) return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a value without a type");
  cml_mil_value *value = CML_ARENA_NEW(r->arena, cml_mil_value);
  if (!value) return out_of_memory(r);
  value->type = fields.type;
  value->doc = fields.doc;
  value->unknown = fields.unknown;
  if (!fields.immediate.data && !fields.blob.data)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "a value that is neither immediate nor in a blob file");
  r->depth++;
  CML_TRY(fields.blob.data ? read_blob(r, fields.blob, value) : read_immediate(r, fields.immediate, value));
  r->depth--;
  *(cml_mil_value **)object = value;
  return CML_OK;
}

/* ---- program ---- */

static cml_status read_attribute(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {TEXT(CML_F_ENTRY_KEY, cml_mil_attribute, name),
                             PART(CML_F_ENTRY_VALUE, cml_mil_attribute, value, read_value)};
  static const message m = {"attribute", ROWS(rows), 0, CML_PLACE_ATTRIBUTE_ENTRY};
  cml_mil_attribute *attribute = object;
  CML_TRY(read_message(r, &m, bytes, attribute, attribute));
  attribute->name = text_or_empty(attribute->name);
  if (!attribute->value)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "attribute %s has no value", attribute->name);
  return CML_OK;
}

static cml_status read_named(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {TEXT(CML_F_NAMED_NAME, cml_mil_named, name), PART(CML_F_NAMED_TYPE, cml_mil_named, type, read_type)};
  static const message m = {"NamedValueType", ROWS(rows), offsetof(cml_mil_named, unknown), CML_PLACE_OWN};
  cml_mil_named *named = object;
  CML_TRY(read_message(r, &m, bytes, named, named));
  named->name = text_or_empty(named->name);
  if (!named->type) return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "value %s has no type", named->name);
  return CML_OK;
}

static cml_status read_binding(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {EITHER(CML_F_BINDING_NAME, ROW_TEXT, cml_mil_binding, name, NULL),
                             EITHER(CML_F_BINDING_VALUE, ROW_PART, cml_mil_binding, value, read_value)};
  static const message m = {"Binding", ROWS(rows), 0, CML_PLACE_BINDING};
  cml_mil_binding *binding = object;
  CML_TRY(read_message(r, &m, bytes, binding, binding));
  if (!binding->name && !binding->value)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "an argument that is neither a name nor a value");
  return CML_OK;
}

static cml_status read_argument(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {MANY(CML_F_ARGUMENT_BINDINGS, cml_mil_argument, bindings, count, read_binding)};
  static const message m = {"Argument", ROWS(rows), 0, CML_PLACE_ARGUMENT};
  return read_message(r, &m, bytes, object, object);
}

static cml_status read_input(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {TEXT(CML_F_ENTRY_KEY, cml_mil_argument, parameter), {CML_F_ENTRY_VALUE, ROW_PART, false, 0, 0, 0, read_argument}};
  static const message m = {"input", ROWS(rows), 0, CML_PLACE_INPUT_ENTRY};
  cml_mil_argument *argument = object;
  CML_TRY(read_message(r, &m, bytes, argument, argument));
  argument->parameter = text_or_empty(argument->parameter);
  return CML_OK;
}

/* The type decides how elements are read, and stands where it likes; the last one counts. */
static bool is_constexpr(cml_span op) {
  cml_wire_field f;
  cml_span type = {0};
  for (cml_wire w = cml_wire_over(op); cml_wire_next(&w, &f);)
    if (f.number == CML_F_OP_TYPE && f.type == CML_WIRE_BYTES) type = f.bytes;
  return type.size >= 10 && !memcmp(type.data, "constexpr_", 10);
}

/* object is a cml_mil_op ** */
static cml_status read_op(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {TEXT(CML_F_OP_TYPE, cml_mil_op, type), MANY(CML_F_OP_INPUTS, cml_mil_op, inputs, input_count, read_input),
                             MANY(CML_F_OP_OUTPUTS, cml_mil_op, outputs, output_count, read_named),
                             MANY(CML_F_OP_BLOCKS, cml_mil_op, blocks, block_count, read_block),
                             MANY(CML_F_OP_ATTRIBUTES, cml_mil_op, attributes.items, attributes.count, read_attribute)};
  static const message m = {"Operation", ROWS(rows), offsetof(cml_mil_op, unknown), CML_PLACE_OWN};
  cml_mil_op *op = CML_ARENA_NEW(r->arena, cml_mil_op);
  if (!op) return out_of_memory(r);
  op->source_offset = offset_of(r, bytes.data);
  bool outer = r->in_constexpr;
  r->in_constexpr = is_constexpr(bytes);
  cml_status status = read_message(r, &m, bytes, op, op);
  r->in_constexpr = outer;
  if (status) return op->output_count && op->outputs[0].name && op->type
                         ? cml_error_prefix(r->err, status, "operation %s (%s)", op->outputs[0].name, op->type) : status;
  op->type = text_or_empty(op->type);
  *(cml_mil_op **)object = op;
  return CML_OK;
}

/* object is a cml_mil_block ** */
static cml_status read_block(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {MANY(CML_F_BLOCK_INPUTS, cml_mil_block, inputs, input_count, read_named),
                             {CML_F_BLOCK_OUTPUTS, ROW_TEXTS, false, offsetof(cml_mil_block, outputs),
                              offsetof(cml_mil_block, output_count), sizeof(const char *), NULL},
                             MANY(CML_F_BLOCK_OPERATIONS, cml_mil_block, ops, op_count, read_op),
                             MANY(CML_F_BLOCK_ATTRIBUTES, cml_mil_block, attributes.items, attributes.count, read_attribute)};
  static const message m = {"Block", ROWS(rows), offsetof(cml_mil_block, unknown), CML_PLACE_OWN};
  cml_mil_block *block = CML_ARENA_NEW(r->arena, cml_mil_block);
  if (!block) return out_of_memory(r);
  CML_TRY(read_message(r, &m, bytes, block, block));
  *(cml_mil_block **)object = block;
  return CML_OK;
}

static cml_status read_specialization(reader *r, cml_span bytes, void *object) {
  typedef struct cml_mil_specialization specialization;
  static const row rows[] = {TEXT(CML_F_ENTRY_KEY, specialization, opset), PART(CML_F_ENTRY_VALUE, specialization, block, read_block)};
  static const message m = {"block_specializations", ROWS(rows), 0, CML_PLACE_SPECIALIZATION_ENTRY};
  specialization *s = object;
  CML_TRY(read_message(r, &m, bytes, s, s));
  s->opset = text_or_empty(s->opset);
  if (!s->block) return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "the block for opset %s is missing", s->opset);
  return CML_OK;
}

static cml_status read_function_body(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {
      MANY(CML_F_FUNCTION_INPUTS, cml_mil_function, inputs, input_count, read_named),
      TEXT(CML_F_FUNCTION_OPSET, cml_mil_function, opset),
      MANY(CML_F_FUNCTION_SPECIALIZATIONS, cml_mil_function, specializations, specialization_count, read_specialization),
      MANY(CML_F_FUNCTION_ATTRIBUTES, cml_mil_function, attributes.items, attributes.count, read_attribute)};
  static const message m = {"Function", ROWS(rows), offsetof(cml_mil_function, unknown), CML_PLACE_OWN};
  return read_message(r, &m, bytes, object, object);
}

/* object is a cml_mil_function ** */
static cml_status read_function(reader *r, cml_span bytes, void *object) {
  static const row rows[] = {TEXT(CML_F_ENTRY_KEY, cml_mil_function, name), {CML_F_ENTRY_VALUE, ROW_PART, false, 0, 0, 0, read_function_body}};
  static const message m = {"functions", ROWS(rows), 0, CML_PLACE_FUNCTION_ENTRY};
  cml_mil_function *function = CML_ARENA_NEW(r->arena, cml_mil_function);
  if (!function) return out_of_memory(r);
  cml_status status = read_message(r, &m, bytes, function, function);
  if (status) return cml_error_prefix(r->err, status, "function %s", text_or_empty(function->name));
  function->name = text_or_empty(function->name);
  function->opset = text_or_empty(function->opset);
  *(cml_mil_function **)object = function;
  return CML_OK;
}

cml_status cml_mil_parse_proto(cml_span bytes, const uint8_t *origin, cml_arena *arena, cml_mil_program **out, cml_error *err) {
  static const row rows[] = {NUMBER(CML_F_PROGRAM_VERSION, cml_mil_program, version),
                             MANY(CML_F_PROGRAM_FUNCTIONS, cml_mil_program, functions, function_count, read_function),
                             TEXT(CML_F_PROGRAM_DOC, cml_mil_program, doc),
                             MANY(CML_F_PROGRAM_ATTRIBUTES, cml_mil_program, attributes.items, attributes.count, read_attribute)};
  static const message m = {"Program", ROWS(rows), offsetof(cml_mil_program, unknown), CML_PLACE_OWN};
  reader r = {.arena = arena, .origin = origin, .err = err};
  r.program = CML_ARENA_NEW(arena, cml_mil_program);
  if (!r.program) return out_of_memory(&r);
  r.program->unordered = true;
  CML_TRY(read_message(&r, &m, bytes, r.program, r.program));
  *out = r.program;
  return CML_OK;
}
