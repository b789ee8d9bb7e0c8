/* The Model protobuf. Truth: real files (written by coremltools) must come back byte for byte, messages assembled here by
 * hand from the field numbers, and case.json of the reference cases (made by coremltools' own view of the model). */
#include <ftw.h>
#include <jansson.h>

#include "f16.h"
#include "mapping.h"
#include "mil.h"
#include "model_io.h"
#include "protobuf_by_hand.h"

/* ---- messages ---- */

static const bytes none = {{0}, 0};

static bytes unknown(void) { return CAT(num(9999, 77), str(10000, "later")); }

/* ValueType of a tensor */
static bytes tensor_type(unsigned dtype, size_t rank, const uint64_t *dims) {
  bytes t = num(1, dtype);
  if (rank) t = CAT(t, num(2, rank));
  for (size_t i = 0; i < rank; i++) t = CAT(t, msg(3, msg(1, num(1, dims[i]))));
  return msg(1, t);
}
/* Value with a TensorValue whose field `storage` holds `elements` */
static bytes tensor_value(bytes type, uint32_t storage, bytes elements) {
  return CAT(msg(2, type), msg(3, msg(1, msg(storage, elements))));
}
static bytes const_op(const char *name, bytes type, bytes value) {
  return CAT(str(1, "const"), msg(3, CAT(str(1, name), msg(2, type))), msg(5, CAT(str(1, "val"), msg(2, value))));
}
static bytes model_of_block(bytes block) {
  bytes function = CAT(str(2, "CoreML7"), msg(3, CAT(str(1, "CoreML7"), msg(2, block))));
  return CAT(num(1, 8), msg(2, str(100, "")), msg(502, CAT(num(1, 1), msg(2, CAT(str(1, "main"), msg(2, function))))));
}
static bytes model_of_value(bytes type, bytes value) {
  return model_of_block(CAT(str(2, "c"), msg(3, const_op("c", type, value))));
}

static cml_status parse(bytes b, cml_model *m, cml_error *error) {
  memset(m, 0, sizeof *m);
  uint8_t *exact = malloc(b.size); /* so that ASan sees a read past the end; kept, for spans point into it */
  memcpy(exact, b.data, b.size);
  cml_status status = cml_model_parse(cml_span_of(exact, b.size), NULL, m, error);
  cml_buffer out = CML_BUFFER_INIT;
  if (!status) { /* whatever is accepted comes back the same, for these are written in the usual order */
    assert_ok(cml_model_serialize(m, &out, err));
    assert_int_equal(out.size, b.size);
    assert_memory_equal(out.data, b.data, b.size);
  }
  cml_buffer_free(&out);
  m->rest = (cml_span){NULL, 0};
  free(exact);
  return status;
}

static const cml_mil_value *only_value(const cml_model *m) {
  return cml_mil_attribute_find(&cml_mil_body(m->program->functions[0])->ops[0]->attributes, "val");
}

static void refuse(bytes b, cml_status status, const char *text) {
  cml_model m;
  cml_error err = {0};
  assert_int_equal(parse(b, &m, &err), status);
  if (!strstr(err.text, text)) fail_msg("\"%s\" does not say \"%s\"", err.text, text);
}

static bytes bound_to(const char *parameter, const char *name) {
  return msg(2, CAT(str(1, parameter), msg(2, msg(1, str(1, name)))));
}
static bytes word(const char *attribute, const char *text) {
  return msg(5, CAT(str(1, attribute), msg(2, tensor_value(tensor_type(2, 0, NULL), 4, str(1, text)))));
}

/* Maps have no order: as text, arguments and attributes come by name, which is how Apple's compiler prints them (coremltools' own
 * tests look for its "constexpr_sparse_to_dense(mask = ", where the file has nonzero_data first). */
static void test_text_by_name(void **state) {
  (void)state;
  cml_model m;
  cml_buffer out = CML_BUFFER_INIT;
  const uint64_t three[] = {3};
  const bytes text = tensor_type(2, 0, NULL), x = msg(3, const_op("x", text, tensor_value(text, 4, str(1, "w"))));
  bytes op = CAT(str(1, "select"), bound_to("cond", "x"), bound_to("b", "x"), bound_to("a", "x"),
                 msg(3, CAT(str(1, "s"), msg(2, tensor_type(11, 1, three)))), word("z", "q"), word("name", "s"));
  assert_ok(parse(model_of_block(CAT(str(2, "s"), x, msg(3, op))), &m, err));
  assert_ok(cml_mil_print_text(m.program, CML_MIL_1_3, &out, err));
  cml_buffer_char(&out, 0);
  const char *wanted = "tensor<fp32, [3]> s = select(a = x, b = x, cond = x)[name = string(\"s\"), z = string(\"q\")];";
  if (!strstr((const char *)out.data, wanted)) fail_msg("%s\nhas no\n%s", (const char *)out.data, wanted);
  cml_buffer_free(&out);
  cml_arena_free(&m.arena);

  bytes many = str(1, "concat"); /* more than fit on the stack, last first */
  char name[4] = "a99";
  for (int i = 39; i >= 0; i--) {
    name[1] = (char)('0' + i / 10), name[2] = (char)('0' + i % 10);
    many = CAT(many, bound_to(name, "x"));
  }
  assert_ok(parse(model_of_block(CAT(x, msg(3, many))), &m, err));
  assert_ok(cml_mil_print_text(m.program, CML_MIL_1_3, &out, err));
  cml_buffer_char(&out, 0);
  assert_non_null(strstr((const char *)out.data, "concat(a00 = x, a01 = x, "));
  assert_non_null(strstr((const char *)out.data, "a38 = x, a39 = x);"));
  cml_buffer_free(&out);
  cml_arena_free(&m.arena);
}

static void test_values(void **state) {
  (void)state;
  cml_model m;
  const uint64_t three[] = {3}, two_two[] = {2, 2};
  const float f[] = {1.5f, -2, 0};
  bytes t = tensor_type(11, 1, three);
  assert_ok(parse(model_of_value(t, tensor_value(t, 1, msg(1, raw(f, 12)))), &m, err));
  const cml_mil_value *v = only_value(&m);
  assert_int_equal(v->type->dtype, CML_F32);
  assert_int_equal(v->count, 3);
  assert_memory_equal(v->data.data, f, 12);
  cml_arena_free(&m.arena);

  t = tensor_type(23, 2, two_two); /* int32 with a negative number of ten bytes */
  assert_ok(parse(model_of_value(t, tensor_value(t, 2, msg(1, CAT(varint(5), varint((uint64_t)-7), varint(0), varint(300))))), &m, err));
  assert_memory_equal(only_value(&m)->data.data, ((int32_t[]){5, -7, 0, 300}), 16);
  cml_arena_free(&m.arena);

  t = tensor_type(22, 1, three); /* int16 stands in ints */
  assert_ok(parse(model_of_value(t, tensor_value(t, 2, msg(1, CAT(varint(5), varint((uint64_t)-7), varint(32767))))), &m, err));
  assert_memory_equal(only_value(&m)->data.data, ((int16_t[]){5, -7, 32767}), 6);
  cml_arena_free(&m.arena);
  refuse(model_of_value(t, tensor_value(t, 2, msg(1, CAT(varint(5), varint(32768), varint(1))))), CML_INVALID, "32768 does not fit in int16");

  t = tensor_type(25, 1, three); /* int4, packed: 3 elements in 2 bytes */
  assert_ok(parse(model_of_value(t, tensor_value(t, 7, msg(1, raw("\x21\x0f", 2)))), &m, err));
  assert_int_equal(only_value(&m)->count, 3);
  assert_int_equal(only_value(&m)->data.size, 2);
  cml_arena_free(&m.arena);
  refuse(model_of_value(t, tensor_value(t, 7, msg(1, raw("\x21", 1)))), CML_INVALID, "1 bytes for 3 elements of int4");

  t = tensor_type(2, 0, NULL);
  assert_ok(parse(model_of_value(t, tensor_value(t, 4, str(1, "h\xc3\xa9llo"))), &m, err));
  assert_string_equal(only_value(&m)->strings[0].data, "h\xc3\xa9llo");
  cml_arena_free(&m.arena);
  refuse(model_of_value(t, tensor_value(t, 4, str(1, "\xc3"))), CML_INVALID, "not UTF-8");

  t = tensor_type(1, 1, three);
  assert_ok(parse(model_of_value(t, tensor_value(t, 3, msg(1, raw("\1\0\1", 3)))), &m, err));
  assert_memory_equal(only_value(&m)->data.data, "\1\0\1", 3);
  cml_arena_free(&m.arena);
}

/* An unknown field in every kind of message of the program survives. */
static void test_unknown_fields(void **state) {
  (void)state;
  cml_model m;
  bytes u = unknown();
  bytes dims = msg(3, CAT(msg(1, CAT(num(1, 1), u)), u));
  bytes type = CAT(msg(1, CAT(num(1, 23), num(2, 1), dims, u)), u);
  bytes value = CAT(msg(2, type), msg(3, CAT(msg(1, CAT(msg(2, CAT(msg(1, varint(4)), u)), u)), u)), u);
  assert_ok(parse(model_of_value(type, value), &m, err));
  assert_int_equal(m.program->extra_count, 2 * 3 + 2); /* two types of three places each, the tensor and its numbers */
  cml_arena_free(&m.arena);
}

static void test_unknown_fields_of_the_program(void **state) {
  (void)state;
  cml_model m;
  bytes u = unknown(), t = tensor_type(23, 0, NULL);
  bytes argument = msg(1, CAT(str(1, "x"), u));
  bytes op = CAT(str(1, "identity"), msg(2, CAT(str(1, "x"), msg(2, CAT(argument, u)), u)), msg(3, CAT(str(1, "y"), msg(2, t), u)), u);
  bytes block = CAT(str(2, "y"), msg(3, op), u);
  bytes function = CAT(msg(1, CAT(str(1, "x"), msg(2, t), u)), str(2, "CoreML7"), msg(3, CAT(str(1, "CoreML7"), msg(2, block), u)), u);
  bytes program = CAT(num(1, 1), msg(2, CAT(str(1, "main"), msg(2, function), u)), u);
  assert_ok(parse(CAT(num(1, 8), msg(502, program), u), &m, err));
  cml_arena_free(&m.arena);
}

static void test_names(void **state) {
  (void)state;
  bytes t = tensor_type(23, 0, NULL), v = tensor_value(t, 2, msg(1, varint(1)));
  bytes c = msg(3, const_op("c", t, v));
  bytes use = CAT(str(1, "identity"), msg(2, CAT(str(1, "x"), msg(2, msg(1, str(1, "c"))))), msg(3, CAT(str(1, "y"), msg(2, t))));
  cml_model m;
  assert_ok(parse(model_of_block(CAT(str(2, "y"), c, msg(3, use))), &m, err));
  cml_arena_free(&m.arena);
  refuse(model_of_block(CAT(str(2, "y"), msg(3, use), c)), CML_INVALID, "operation y (identity): the name c is used, but not defined before");
  refuse(model_of_block(CAT(str(2, "z"), c, msg(3, use))), CML_INVALID, "the name z is used");
  refuse(model_of_block(CAT(str(2, "c"), c, c)), CML_INVALID, "the name c is defined twice");
  /* what a block defines is not seen behind it */
  bytes inner = CAT(str(2, "c"), c);
  bytes cond = CAT(str(1, "cond"), msg(3, CAT(str(1, "r"), msg(2, t))), msg(4, inner), msg(4, inner));
  assert_ok(parse(model_of_block(CAT(str(2, "r"), msg(3, cond))), &m, err));
  cml_arena_free(&m.arena);
  refuse(model_of_block(CAT(str(2, "c"), msg(3, cond))), CML_INVALID, "the name c is used");
}

static void test_collections(void **state) {
  (void)state;
  cml_model m;
  bytes text = tensor_type(2, 0, NULL), whole = tensor_type(24, 0, NULL);
  bytes a = tensor_value(text, 4, str(1, "a")), one = tensor_value(whole, 5, msg(1, varint(1)));
  bytes list = msg(2, CAT(msg(1, text), msg(2, msg(1, num(1, 2))))), dict = msg(4, CAT(msg(1, text), msg(2, whole)));
  bytes tuple = msg(3, CAT(msg(1, text), msg(1, whole)));
#define IMMEDIATE(type, number, items) CAT(msg(2, type), msg(3, msg(number, items)))
  assert_ok(parse(model_of_value(list, IMMEDIATE(list, 3, CAT(msg(1, a), msg(1, a)))), &m, err));
  assert_int_equal(only_value(&m)->kind, CML_VALUE_LIST);
  assert_string_equal(only_value(&m)->items[1]->strings[0].data, "a");
  cml_arena_free(&m.arena);
  assert_ok(parse(model_of_value(dict, IMMEDIATE(dict, 4, msg(1, CAT(msg(1, a), msg(2, one))))), &m, err));
  assert_int_equal(only_value(&m)->kind, CML_VALUE_DICTIONARY);
  assert_string_equal(only_value(&m)->keys[0]->strings[0].data, "a");
  assert_int_equal(cml_load_u64(only_value(&m)->items[0]->data.data), 1);
  cml_arena_free(&m.arena);
  assert_ok(parse(model_of_value(tuple, IMMEDIATE(tuple, 2, CAT(msg(1, a), msg(1, one)))), &m, err));
  cml_buffer words = CML_BUFFER_INIT;
  cml_mil_type_print(only_value(&m)->type, &words);
  assert_string_equal((char *)words.data, "tuple<tensor<string, []>, tensor<int64, []>>");
  cml_buffer_free(&words);
  cml_arena_free(&m.arena);
  refuse(model_of_value(list, IMMEDIATE(list, 3, msg(1, a))), CML_INVALID, "1 items where the type asks for another number");
  refuse(model_of_value(list, IMMEDIATE(list, 3, CAT(msg(1, a), msg(1, one)))), CML_INVALID, "item 1 is of another type");
  refuse(model_of_value(tuple, IMMEDIATE(tuple, 2, CAT(msg(1, one), msg(1, a)))), CML_INVALID, "item 0 is of another type");
  refuse(model_of_value(dict, IMMEDIATE(dict, 4, msg(1, CAT(msg(1, one), msg(2, one))))), CML_INVALID, "item 0 is of another type");
  refuse(model_of_value(dict, IMMEDIATE(dict, 4, msg(1, msg(1, a)))), CML_INVALID, "lacks its key or its value");
  refuse(model_of_value(dict, IMMEDIATE(dict, 3, msg(1, a))), CML_INVALID, "another type");
}

static void test_hostile(void **state) {
  (void)state;
  refuse(none, CML_INVALID, "not a Core ML model");
  refuse(raw("hello, world", 12), CML_INVALID, "not a Core ML model");
  refuse(CAT(num(1, 8), num(502, 1)), CML_INVALID, "wire type");
  refuse(CAT(num(1, 8), msg(502, none), msg(500, none)), CML_INVALID, "second network");
  bytes t = tensor_type(23, 0, NULL);
  for (int i = 0; i < 60; i++) t = msg(5, msg(1, t)); /* state of state of ... */
  refuse(model_of_value(t, tensor_value(t, 2, none)), CML_LIMIT, "nested more than 100");
  const uint64_t huge[] = {UINT64_C(1) << 62, 8};
  t = tensor_type(11, 2, huge);
  refuse(model_of_value(t, CAT(msg(2, t), msg(5, CAT(str(1, "@model_path/w"), num(2, 64))))), CML_INVALID, "no tensor of known shape");
  refuse(model_of_value(tensor_type(99, 0, NULL), none), CML_UNSUPPORTED, "unknown element type 99");
  refuse(model_of_value(tensor_type(11, 0, NULL), tensor_value(tensor_type(11, 0, NULL), 1, msg(1, raw("\0\0\0\0\0\0\0\0", 8)))),
         CML_INVALID, "2 elements where the type asks for 1");
}

/* The seeds are small models of coremltools'; what is expected here was read with its own protobuf classes. */
static void parse_seed(const char *name, uint8_t data[8192], cml_model *m) {
  char path[4096];
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/tests/data/fuzz/model/%s", source ? source : ".", name);
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  size_t size = fread(data, 1, 8192, f);
  fclose(f);
  memset(m, 0, sizeof *m);
  assert_ok(cml_model_parse(cml_span_of(data, size), NULL, m, err));
}

static void test_class_labels(void **state) {
  (void)state;
  uint8_t data[8192];
  cml_model m;
  cml_buffer json = CML_BUFFER_INIT;
  parse_seed("classify", data, &m);
  const cml_mil_value *labels = cml_mil_class_labels(m.program->functions[0]);
  assert_non_null(labels);
  assert_int_equal(labels->kind, CML_VALUE_LIST);
  assert_int_equal(labels->count, 3); /* a, b, c */
  assert_string_equal(labels->items[1]->strings[0].data, "b");
  assert_string_equal(m.predicted_feature, "classLabel");
  assert_ok(cml_model_io_json(&m, &json, err));
  json_t *io = json_loadb((char *)json.data, json.size, 0, NULL);
  assert_non_null(io);
  assert_int_equal(json_array_size(json_object_get(io, "classLabels")), 3);
  for (size_t i = 0; i < 3; i++)
    assert_string_equal(json_string_value(json_array_get(json_object_get(io, "classLabels"), i)), labels->items[i]->strings[0].data);
  json_decref(io);
  cml_buffer_free(&json);
  cml_arena_free(&m.arena);
}

static void test_features(void **state) {
  (void)state;
  uint8_t data[8192];
  cml_model m;
  parse_seed("image", data, &m);
  const cml_feature *f = m.inputs.items;
  assert_string_equal(f->name, "picture");
  assert_int_equal(f->kind, CML_FEATURE_IMAGE);
  assert_int_equal(f->color, CML_COLOR_GRAYSCALE);
  assert_memory_equal(f->shape, ((int64_t[]){6, 9}), 16); /* height, width */
  cml_arena_free(&m.arena);
  parse_seed("enum", data, &m);
  f = m.inputs.items;
  assert_int_equal(f->flexibility, CML_FLEX_ENUMERATED);
  assert_int_equal(f->shape_count, 3);
  assert_memory_equal(f->shapes, ((int64_t[]){1, 4, 6, 1, 2, 6, 1, 9, 6}), 72);
  assert_int_equal(m.outputs.items[0].rank, 0);
  cml_arena_free(&m.arena);
  parse_seed("state", data, &m);
  assert_int_equal(m.states.count, 1);
  assert_string_equal(m.states.items[0].name, "accumulator");
  assert_int_equal(m.states.items[0].kind, CML_FEATURE_STATE);
  assert_int_equal(m.states.items[0].dtype, CML_F16);
  assert_int_equal(m.states.items[0].shape[0], 1);
  cml_arena_free(&m.arena);
  parse_seed("functions", data, &m);
  assert_int_equal(m.function_count, 3);
  assert_string_equal(m.default_function, "classify");
  assert_string_equal(m.functions[1].name, "locate");
  assert_memory_equal(m.functions[2].outputs.items[0].shape, ((int64_t[]){3, 8}), 16);
  cml_arena_free(&m.arena);
}

/* Kinds of features that no seed has, from FeatureTypes' field numbers. */
static void test_other_features(void **state) {
  (void)state;
  cml_model m;
  double half = 0.5;
  bytes real = CAT(varint(61 << 3 | 1), raw(&half, 8));
  bytes array = CAT(msg(1, CAT(varint(2), varint(3))), num(2, 0x10040), real);
  bytes sizes = msg(31, CAT(msg(1, CAT(num(1, 16), num(2, 64))), msg(2, CAT(num(1, 8), num(2, UINT64_MAX)))));
  bytes image = CAT(num(1, 32), num(2, 24), num(3, 30), sizes);
  bytes in = CAT(msg(1, CAT(str(1, "a"), msg(3, CAT(msg(5, array), num(1000, 1))))), msg(1, CAT(str(1, "i"), msg(3, msg(4, image)))),
                 msg(1, CAT(str(1, "d"), msg(3, msg(6, msg(2, none))))), msg(1, CAT(str(1, "s"), msg(3, msg(7, msg(1, none))))),
                 msg(1, CAT(str(1, "n"), str(2, "how many"), msg(3, msg(1, none)))));
  bytes meta = msg(100, CAT(str(1, "short"), str(3, "me"), msg(100, CAT(str(1, "k"), str(2, "v")))));
  assert_ok(parse(CAT(num(1, 4), msg(2, CAT(in, str(11, "label"), meta)), num(10, 1), msg(500, none)), &m, err));
  assert_int_equal(m.type_number, 500);
  assert_true(m.updatable);
  assert_int_equal(m.inputs.count, 5);
  const cml_feature *f = m.inputs.items;
  assert_true(f[0].optional && f[0].has_default && f[0].default_value == 0.5);
  assert_int_equal(f[0].dtype, CML_F64);
  assert_memory_equal(f[0].shape, ((int64_t[]){2, 3}), 16);
  assert_int_equal(f[1].color, CML_COLOR_BGR);
  assert_memory_equal(f[1].shape, ((int64_t[]){24, 32}), 16);
  assert_int_equal(f[1].flexibility, CML_FLEX_RANGE);
  assert_memory_equal(f[1].ranges, ((cml_range[]){{8, -1}, {16, 64}}), sizeof(cml_range) * 2);
  assert_true(f[2].kind == CML_FEATURE_DICTIONARY && f[2].key_is_string);
  assert_true(f[3].kind == CML_FEATURE_SEQUENCE && !f[3].key_is_string);
  assert_int_equal(f[4].kind, CML_FEATURE_INT64);
  assert_string_equal(f[4].doc, "how many");
  assert_string_equal(m.predicted_feature, "label");
  assert_string_equal(m.short_description, "short");
  assert_string_equal(m.author, "me");
  assert_string_equal(m.metadata[0].value, "v");
  cml_arena_free(&m.arena);
  bytes odd = CAT(num(1, 4), msg(2, msg(1, CAT(str(1, "a"), msg(3, msg(5, CAT(num(1, 2), msg(31, none))))))), msg(500, none));
  refuse(odd, CML_INVALID, "feature a: as many ranges as dimensions");
  refuse(CAT(num(1, 4), msg(2, raw("\x0a\x7f", 2)), msg(500, none)), CML_INVALID, "description is malformed");
  refuse(CAT(num(1, 4), msg(2, msg(1, msg(1, raw("a\0b", 3)))), msg(500, none)), CML_INVALID, "holds a NUL");
}

/* ---- real files ---- */

static size_t files_seen, programs_seen;

/* Operators by type, as case.json counts them: without const, of all functions and nested blocks. */
static void count_ops(const cml_mil_block *b, json_t *counts) {
  for (size_t i = 0; i < b->op_count; i++) {
    const cml_mil_op *op = b->ops[i];
    for (size_t k = 0; k < op->block_count; k++) count_ops(op->blocks[k], counts);
    if (!strcmp(op->type, "const")) continue;
    json_int_t n = json_integer_value(json_object_get(counts, op->type));
    json_object_set_new(counts, op->type, json_integer(n + 1));
  }
}

static void compare_features(const char *path, const json_t *expected, const cml_features *found) {
  size_t i;
  const json_t *e;
  assert_int_equal(json_array_size(expected), found->count);
  json_array_foreach(expected, i, e) {
    const cml_feature *f = &found->items[i];
    assert_string_equal(f->name, json_string_value(json_object_get(e, "name")));
    const json_t *shape = json_object_get(e, "shape"), *range = json_object_get(e, "shape_range");
    if (f->kind != CML_FEATURE_ARRAY || !shape) continue;
    if (json_array_size(shape) && json_array_size(shape) != f->rank) fail_msg("%s: %s has rank %zu", path, f->name, f->rank);
    for (size_t k = 0; k < json_array_size(shape); k++)
      assert_int_equal(f->shape[k], json_integer_value(json_array_get(shape, k)));
    assert_int_equal(range && json_array_size(range), f->flexibility == CML_FLEX_RANGE);
    for (size_t k = 0; k < json_array_size(range); k++) {
      assert_int_equal(f->ranges[k].lower, json_integer_value(json_array_get(json_array_get(range, k), 0)));
      assert_int_equal(f->ranges[k].upper, json_integer_value(json_array_get(json_array_get(range, k), 1)));
    }
  }
}

/* What the case says of its model; the case's folder holds model.mlpackage/Data/com.apple.CoreML/model.mlmodel. */
static void compare_case(const char *path, const cml_model *m) {
  char name[4096];
  const char *end = strstr(path, "/model.mlpackage/");
  if (!end) return;
  snprintf(name, sizeof name, "%.*s/case.json", (int)(end - path), path);
  json_t *c = json_load_file(name, 0, NULL);
  if (!c) return;
  assert_int_equal(m->specification_version, json_integer_value(json_object_get(c, "specification_version")));
  const cml_features *inputs = &m->inputs, *outputs = &m->outputs;
  const char *function = json_string_value(json_object_get(c, "function"));
  for (size_t i = 0; i < m->function_count; i++)
    if (!strcmp(m->functions[i].name, function ? function : m->default_function))
      inputs = &m->functions[i].inputs, outputs = &m->functions[i].outputs;
  compare_features(path, json_object_get(c, "inputs"), inputs);
  compare_features(path, json_object_get(c, "outputs"), outputs);
  if (m->program) {
    json_t *counts = json_object();
    for (size_t i = 0; i < m->program->function_count; i++) count_ops(cml_mil_body(m->program->functions[i]), counts);
    if (!json_equal(counts, json_object_get(c, "ops"))) fail_msg("%s: operators differ", path);
    json_decref(counts);
  }
  json_decref(c);
}

static int check_file(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
  (void)st, (void)ftw;
  const char *dot = strrchr(path, '.');
  if (kind != FTW_F || !dot || strcmp(dot, ".mlmodel")) return 0;
  cml_mapping *mapping = NULL;
  cml_model m = {0};
  cml_buffer out = CML_BUFFER_INIT;
  cml_error error = {0};
  assert_ok(cml_mapping_open(path, &mapping, err));
  cml_span s = cml_mapping_span(mapping);
  if (cml_model_parse(s, NULL, &m, &error)) fail_msg("%s: %s (at %llu)", path, error.text, (unsigned long long)error.offset);
  assert_ok(cml_model_serialize(&m, &out, err));
  if (!cml_span_equal(s, cml_buffer_span(&out))) fail_msg("%s: written back, it differs", path);
  assert_int_equal(m.type_number == 502, m.program != NULL);
  compare_case(path, &m);
  files_seen++;
  programs_seen += m.program != NULL;
  cml_buffer_free(&out);
  cml_arena_free(&m.arena);
  cml_mapping_unref(mapping);
  return 0;
}

static void test_real_files(void **state) {
  (void)state;
  char path[4096];
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/../shared", source ? source : ".");
  char *real = realpath(path, NULL);
  if (!real) {
    print_message("# skipped: no ../shared\n");
    return;
  }
  nftw(real, check_file, 16, FTW_PHYS);
  free(real);
  print_message("# %zu models, %zu programs\n", files_seen, programs_seen);
  assert_true(programs_seen > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values), cmocka_unit_test(test_text_by_name), cmocka_unit_test(test_unknown_fields), cmocka_unit_test(test_unknown_fields_of_the_program),
      cmocka_unit_test(test_names), cmocka_unit_test(test_collections), cmocka_unit_test(test_hostile), cmocka_unit_test(test_class_labels), cmocka_unit_test(test_features),
      cmocka_unit_test(test_other_features), cmocka_unit_test(test_real_files),
  };
  return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
