/* Descriptions that were edited. Truth: messages assembled by hand from Core ML's field numbers; what cml does not know (fields 9999
 * and up) must come out where it stood. */
#include "mil.h"
#include "protobuf_by_hand.h"

static bytes later(void) { return CAT(num(9999, 77), str(10000, "later")); }

/* A feature: FeatureType.multiArrayType (5) of shape (1), element type (2), shape range (31). */
static bytes range(uint64_t lower, uint64_t upper) { return msg(1, CAT(num(1, lower), num(2, upper))); }
static bytes shape_range(void) { return msg(31, CAT(range(1, 2), range(3, (uint64_t)-1))); }
static bytes array(const char *dims, size_t rank, bytes more) { return CAT(msg(1, raw(dims, rank)), num(2, 0x10020), more, later()); }
static bytes feature(const char *name, const char *doc, bytes array_type, bool optional) {
  bytes type = CAT(msg(5, array_type), optional ? num(1000, 1) : raw("", 0), later());
  return CAT(str(1, name), *doc ? str(2, doc) : raw("", 0), msg(3, type), later());
}
static bytes user(const char *key, const char *value) { return msg(100, CAT(str(1, key), str(2, value), later())); }
static bytes program(void) {
  bytes function = CAT(str(2, "CoreML7"), msg(3, CAT(str(1, "CoreML7"), msg(2, raw("", 0)))));
  return msg(502, CAT(num(1, 1), msg(2, CAT(str(1, "main"), msg(2, function)))));
}
static bytes model(unsigned version, bytes description) { return CAT(num(1, version), msg(2, description), program(), later()); }

static void assert_written(const cml_model *m, bytes want) {
  cml_buffer out = CML_BUFFER_INIT;
  assert_ok(cml_model_serialize(m, &out, err));
  assert_int_equal(out.size, want.size);
  assert_memory_equal(out.data, want.data, want.size);
  cml_buffer_free(&out);
}

static bytes original(void) {
  return CAT(msg(1, feature("x", "", array("\2\3", 2, raw("", 0)), false)), msg(1, feature("y", "why", array("\4", 1, raw("", 0)), false)),
             msg(10, feature("z", "", array("\5", 1, raw("", 0)), false)), msg(100, CAT(str(1, "short"), str(3, "me"), user("a", "1"), user("b", "2"), later())), later());
}

static void test_untouched(void **state) {
  (void)state;
  cml_model m = {0};
  bytes b = model(8, original());
  assert_ok(cml_model_parse(cml_span_of(b.data, b.size), NULL, &m, err));
  assert_written(&m, b);
  cml_arena_free(&m.arena);
}

static void test_features(void **state) {
  (void)state;
  static int64_t shape[] = {7};
  static cml_range ranges[] = {{1, 2}, {3, -1}};
  cml_model m = {0};
  bytes b = model(8, original());
  assert_ok(cml_model_parse(cml_span_of(b.data, b.size), NULL, &m, err));
  m.specification_version = 9;
  m.inputs.items[0].flexibility = CML_FLEX_RANGE;
  m.inputs.items[0].ranges = ranges;
  m.inputs.items[1].name = "renamed";
  m.inputs.items[1].optional = true;
  m.outputs.items[0].shape = shape;
  bytes want = CAT(msg(1, feature("x", "", array("\2\3", 2, shape_range()), false)), msg(1, feature("renamed", "why", array("\4", 1, raw("", 0)), true)),
                   msg(10, feature("z", "", array("\7", 1, raw("", 0)), false)), msg(100, CAT(str(1, "short"), str(3, "me"), user("a", "1"), user("b", "2"), later())), later());
  assert_written(&m, model(9, want));
  cml_arena_free(&m.arena);
}

/* One feature goes, one is new, one is of another kind: ImageFeatureType (4) has width, height, colour space. */
static void test_lists(void **state) {
  (void)state;
  static int64_t size[] = {6, 5};
  cml_model m = {0};
  bytes b = model(8, original());
  assert_ok(cml_model_parse(cml_span_of(b.data, b.size), NULL, &m, err));
  cml_feature inputs[] = {m.inputs.items[1], {.name = "picture", .kind = CML_FEATURE_IMAGE, .shape = size, .rank = 2, .color = CML_COLOR_RGB}};
  cml_metadata_item items[] = {{"b", "two"}, {"c", "3"}};
  m.inputs = (cml_features){inputs, 2};
  m.outputs.items[0].kind = CML_FEATURE_INT64;
  m.metadata = items;
  m.short_description = "";
  bytes image = msg(3, msg(4, CAT(num(1, 5), num(2, 6), num(3, 20))));
  bytes want = CAT(msg(1, feature("y", "why", array("\4", 1, raw("", 0)), false)), msg(1, CAT(str(1, "picture"), image)),
                   msg(10, CAT(str(1, "z"), msg(3, CAT(msg(1, raw("", 0)), later())), later())),
                   msg(100, CAT(str(3, "me"), user("b", "two"), msg(100, CAT(str(1, "c"), str(2, "3"))), later())), later());
  assert_written(&m, model(8, want));
  cml_arena_free(&m.arena);
}

static void test_functions(void **state) {
  (void)state;
  cml_model m = {0};
  bytes one = CAT(str(1, "one"), msg(2, feature("x", "", array("\2", 1, raw("", 0)), false)), later());
  bytes two = CAT(str(1, "two"), msg(3, feature("y", "", array("\3", 1, raw("", 0)), false)), str(4, "label"), later());
  bytes b = model(9, CAT(msg(20, one), msg(20, two), str(21, "one")));
  assert_ok(cml_model_parse(cml_span_of(b.data, b.size), NULL, &m, err));
  assert_written(&m, b);
  m.functions[0].inputs.items[0].name = "u";
  m.functions[1].predicted_feature = "word";
  m.default_function = "two";
  one = CAT(str(1, "one"), msg(2, feature("u", "", array("\2", 1, raw("", 0)), false)), later());
  two = CAT(str(1, "two"), msg(3, feature("y", "", array("\3", 1, raw("", 0)), false)), str(4, "word"), later());
  assert_written(&m, model(9, CAT(msg(20, one), msg(20, two), str(21, "two"))));
  cml_arena_free(&m.arena);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_untouched), cmocka_unit_test(test_features), cmocka_unit_test(test_lists), cmocka_unit_test(test_functions)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
