/* Descriptions that contradict their program in one place each: versions, functions, names, kinds, element types, shapes, states,
 * what a classifier predicts. Every one is refused when the model is loaded, in words that name the feature. */
#include "test.h"

#include "executable.h"

#define INFO "program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n"
#define IMAGE_PROGRAM INFO "  func main<ios16>(tensor<fp32, [1, 3, 4, 8]> x) {\n" \
  "    tensor<fp32, [1, 3, 4, 8]> y = relu(x = x)[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n"
#define BYTES_PROGRAM INFO "  func main<ios17>(tensor<uint8, [1, 1, 4, 8]> x) {\n" \
  "    tensor<fp32, [1, 1, 4, 8]> y = cast(x = x, dtype = tensor<string, []>(\"fp32\"))[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n"
#define OPEN_PROGRAM INFO "  func main<ios16>(tensor<fp32, [1, ?]> x) {\n" \
  "    tensor<fp32, [1, ?]> y = relu(x = x)[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n"
#define STATE_PROGRAM INFO "  func main<ios18>(state<tensor<fp16, [4]>> s, tensor<fp16, [4]> x) {\n" \
  "    tensor<fp16, [4]> v = read_state(input = s)[name = tensor<string, []>(\"v\")];\n" \
  "    tensor<fp16, [4]> y = add(x = v, y = x)[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n"
#define CLASS_PROGRAM INFO "  func main<ios16>(tensor<fp32, [3]> x) {\n" \
  "    tensor<string, [3]> names = const()[name = tensor<string, []>(\"names\"), val = tensor<string, [3]>([\"a\", \"b\", \"c\"])];\n" \
  "    tensor<string, []> y, dict<tensor<string, []>, tensor<fp32, []>> p = classify(probabilities = x, classes = names)[name = tensor<string, []>(\"y\")];\n" \
  "  } -> (y, p);\n}\n"

#define SHAPE(...) .shape = (int64_t[]){__VA_ARGS__}, .rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)
#define ARRAY(name_, type_, ...) {.name = name_, .kind = CML_FEATURE_ARRAY, .dtype = CML_##type_, SHAPE(__VA_ARGS__)}
#define IMAGE(name_, color_, height, width) {.name = name_, .kind = CML_FEATURE_IMAGE, .color = CML_COLOR_##color_, SHAPE(height, width)}
#define RANGE(default_, low, high) {.name = "x", .kind = CML_FEATURE_ARRAY, .dtype = CML_F32, SHAPE(1, default_), .flexibility = CML_FLEX_RANGE, \
                                    .ranges = (cml_range[]){{1, 1}, {low, high}}}
#define ENUMERATED(...) {.name = "x", .kind = CML_FEATURE_ARRAY, .dtype = CML_F32, SHAPE(1, 4), .flexibility = CML_FLEX_ENUMERATED, \
                         .shapes = (int64_t[]){__VA_ARGS__}, .shape_count = sizeof((int64_t[]){__VA_ARGS__}) / 2 / sizeof(int64_t)}
#define KIND(name_, kind_) {.name = name_, .kind = CML_FEATURE_##kind_}
#define LABELS(string) {.name = "p", .kind = CML_FEATURE_DICTIONARY, .key_is_string = string}
#define STATE(name_, type_, ...) {.name = name_, .kind = CML_FEATURE_STATE, .dtype = CML_##type_, SHAPE(__VA_ARGS__)}
#define X ARRAY("x", F32, 1, 3, 4, 8)
#define Y ARRAY("y", F32, 1, 3, 4, 8)
#define HALF_X ARRAY("x", F16, 4)
#define HALF_Y ARRAY("y", F16, 4)
#define CLASS_X ARRAY("x", F32, 3)

typedef struct description {
  const char *program;
  cml_feature inputs[2], outputs[2], states[2]; /* up to one without a name */
  const char *predicted;
  const char *says; /* NULL: fits */
} description;

static const description cases[] = {
    {IMAGE_PROGRAM, {X}, {Y}, {{0}}, NULL, NULL},
    {IMAGE_PROGRAM, {X, X}, {Y}, {{0}}, NULL, "the description's inputs: x is given twice"},
    {IMAGE_PROGRAM, {X}, {Y, Y}, {{0}}, NULL, NULL}, /* see test_repeated_outputs */
    {IMAGE_PROGRAM, {X}, {Y, IMAGE("y", RGB, 4, 8)}, {{0}}, NULL, "the description's outputs: y is given twice, in different types"},
    {IMAGE_PROGRAM, {ARRAY("z", F32, 1)}, {Y}, {{0}}, NULL, "input 'z' is not in function 'main'"},
    {IMAGE_PROGRAM, {X}, {ARRAY("x", F32, 1, 3, 4, 8)}, {{0}}, NULL, "output 'x' is not in function 'main'"},
    {IMAGE_PROGRAM, {X}, {{0}}, {{0}}, NULL, "has no outputs"},
    {IMAGE_PROGRAM, {{0}}, {Y}, {{0}}, NULL, "input 'x' of function 'main' is not in the model's description"},
    {IMAGE_PROGRAM, {ARRAY("x", I32, 1, 3, 4, 8)}, {Y}, {{0}}, NULL, "input 'x' is int32 in the description and fp32 [1, 3, 4, 8]"},
    {IMAGE_PROGRAM, {ARRAY("x", F16, 1, 3, 4, 8)}, {Y}, {{0}}, NULL, "input 'x' is fp16"},
    {IMAGE_PROGRAM, {X}, {ARRAY("y", F64, 1, 3, 4, 8)}, {{0}}, NULL, "output 'y' is fp64"},
    {IMAGE_PROGRAM, {ARRAY("x", F32, 1, 4, 4, 8)}, {Y}, {{0}}, NULL, "input 'x' is fp32 [1, 4, 4, 8] in the description and fp32 [1, 3, 4, 8]"},
    {IMAGE_PROGRAM, {X}, {ARRAY("y", F32, 96)}, {{0}}, NULL, "output 'y' is fp32 [96] in the description and fp32 [1, 3, 4, 8]"},
    {IMAGE_PROGRAM, {KIND("x", STRING)}, {Y}, {{0}}, NULL, "input 'x' is a string"},
    {IMAGE_PROGRAM, {KIND("x", DICTIONARY)}, {Y}, {{0}}, NULL, "input 'x' is a dictionary"},
    {IMAGE_PROGRAM, {KIND("x", SEQUENCE)}, {Y}, {{0}}, NULL, "input 'x' is a sequence"},
    {IMAGE_PROGRAM, {KIND("x", DOUBLE)}, {Y}, {{0}}, NULL, "input 'x' is a number"},
    {IMAGE_PROGRAM, {KIND("x", NONE)}, {Y}, {{0}}, NULL, "input 'x' is of no type"},
    {IMAGE_PROGRAM, {X}, {KIND("y", INT64)}, {{0}}, NULL, "output 'y' is an integer"},
    {IMAGE_PROGRAM, {X}, {KIND("y", DICTIONARY)}, {{0}}, NULL, "output 'y' is a dictionary"},
    {IMAGE_PROGRAM, {IMAGE("x", RGB, 4, 8)}, {IMAGE("y", BGR, 4, 8)}, {{0}}, NULL, NULL},
    {IMAGE_PROGRAM, {IMAGE("x", RGB, 8, 4)}, {Y}, {{0}}, NULL, "input 'x' is an image of 3 x 8 x 4 in the description and fp32 [1, 3, 4, 8]"},
    {IMAGE_PROGRAM, {IMAGE("x", GRAYSCALE, 4, 8)}, {Y}, {{0}}, NULL, "input 'x' is an image of 1 x 4 x 8"},
    {IMAGE_PROGRAM, {IMAGE("x", RGB, 4, 0)}, {Y}, {{0}}, NULL, "input 'x' is an image of 3 x 4 x 0"},
    {BYTES_PROGRAM, {IMAGE("x", GRAYSCALE, 4, 8)}, {ARRAY("y", F32, 1, 1, 4, 8)}, {{0}}, NULL, NULL},
    {IMAGE_PROGRAM, {X}, {IMAGE("y", RGB, 0, 0)}, {{0}}, NULL, NULL},
    {IMAGE_PROGRAM, {X}, {IMAGE("y", GRAYSCALE_FLOAT16, 4, 8)}, {{0}}, NULL, "output 'y' is an image of 1 x 4 x 8"},
    {IMAGE_PROGRAM, {X}, {Y}, {STATE("x", F32, 1, 3, 4, 8)}, NULL, "state 'x' is a state in the description and none in function 'main'"},
    {IMAGE_PROGRAM, {X}, {Y}, {STATE("s", F32, 4)}, NULL, "state 's' is not in function 'main'"},
    {IMAGE_PROGRAM, {X}, {Y}, {{0}}, "label", "'label' is predicted, which is no output"},
    {OPEN_PROGRAM, {RANGE(4, 1, 8)}, {KIND("y", ARRAY)}, {{0}}, NULL, "output 'y' is an array without a type"},
    {OPEN_PROGRAM, {RANGE(4, 1, 8)}, {ARRAY("y", F32, 1, 4)}, {{0}}, NULL, NULL},
    {OPEN_PROGRAM, {RANGE(9, 1, 8)}, {ARRAY("y", F32, 1, 4)}, {{0}}, NULL, "input 'x' has a default shape outside its range"},
    {OPEN_PROGRAM, {ENUMERATED(1, 4, 1, 6)}, {ARRAY("y", F32, 1, 4)}, {{0}}, NULL, NULL},
    {OPEN_PROGRAM, {ENUMERATED(1, 4, 2, 6)}, {ARRAY("y", F32, 1, 4)}, {{0}}, NULL, "input 'x' is fp32 [2, 6] in the description and fp32 [1, ?]"},
    {STATE_PROGRAM, {HALF_X}, {HALF_Y}, {STATE("s", F16, 4)}, NULL, NULL},
    {STATE_PROGRAM, {HALF_X}, {HALF_Y}, {{0}}, NULL, "state 's' of function 'main' is not in the model's description"},
    {STATE_PROGRAM, {HALF_X}, {HALF_Y}, {STATE("s", F16, 5)}, NULL, "state 's' is fp16 [5] in the description and fp16 [4]"},
    {STATE_PROGRAM, {HALF_X}, {HALF_Y}, {STATE("s", F32, 4)}, NULL, "state 's' is fp32 in the description and fp16 [4]"},
    {STATE_PROGRAM, {HALF_X, ARRAY("s", F16, 4)}, {HALF_Y}, {{0}}, NULL, "input 's' is an array in the description and a state"},
    {CLASS_PROGRAM, {CLASS_X}, {KIND("y", STRING), LABELS(true)}, {{0}}, "y", NULL},
    {CLASS_PROGRAM, {CLASS_X}, {KIND("y", INT64), LABELS(true)}, {{0}}, "y", "output 'y' is an integer in the description and string []"},
    {CLASS_PROGRAM, {CLASS_X}, {KIND("y", STRING), LABELS(false)}, {{0}}, "y", "output 'p' is a dictionary by integer"},
    {CLASS_PROGRAM, {CLASS_X}, {KIND("y", STRING), ARRAY("p", F32, 3)}, {{0}}, "y", "output 'p' is an array in the description and a dictionary"},
};

static cml_features features(const cml_feature *two) {
  return (cml_features){(cml_feature *)(uintptr_t)two, (two[0].name != NULL) + (two[1].name != NULL)};
}

static void parse(cml_model *m, const char *text) {
  *m = (cml_model){.type_number = 502};
  assert_ok(cml_mil_parse_text(cml_span_text(text), &m->arena, &m->program, err));
}

/* says: NULL when it must load. */
static void load(cml_model *m, const char *says, const char *what) {
  cml_executable *e = NULL;
  cml_error error = {0};
  cml_status status = cml_executable_prepare(m, &(cml_prepare_options){.threads = 1}, &e, &error);
  if (!says && status) fail_msg("%s: refused: %s", what, error.text);
  if (says && !status) fail_msg("%s: not refused (\"%s\")", what, says);
  if (says && !strstr(error.text, says)) fail_msg("%s: \"%s\" does not say \"%s\"", what, error.text, says);
  cml_executable_unref(e);
}

static void test_features(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const description *d = &cases[i];
    cml_model m;
    char what[32];
    snprintf(what, sizeof what, "case %zu", i);
    parse(&m, d->program);
    m.inputs = features(d->inputs);
    m.outputs = features(d->outputs);
    m.states = features(d->states);
    m.predicted_feature = d->predicted;
    load(&m, d->says, what);
    cml_arena_free(&m.arena);
  }
}

static void test_versions(void **state) {
  (void)state;
  static const struct { int32_t specification; int64_t program; const char *says; } versions[] = {
      {6, 1, NULL}, {10, 1, NULL}, {5, 1, "specification version 5"}, {11, 1, "specification version 11"}, {99, 1, "specification version 99"},
      {9, 2, "version 2 of the program"}, {9, 0, "version 0 of the program"}};
  for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
    cml_model m;
    parse(&m, IMAGE_PROGRAM);
    m.specification_version = versions[i].specification;
    m.program->version = versions[i].program;
    load(&m, versions[i].says, "a version");
    cml_arena_free(&m.arena);
  }
}

/* coremltools writes `main` where the description names no default function, and reads nothing else. */
static void test_functions(void **state) {
  (void)state;
  cml_model m;
  cml_function_description other = {.name = "other"};
  parse(&m, IMAGE_PROGRAM);
  m.default_function = "other";
  load(&m, "no function 'other'; it has 'main'", "a default that is not there");
  m.default_function = "";
  m.functions = &other;
  m.function_count = 1;
  load(&m, "the description has a function 'other'", "a described function that is not there");
  m.program->functions[0]->name = "other";
  load(&m, "no function 'main'; it has 'other'", "no main");
  m.default_function = "other";
  load(&m, NULL, "another default");
  cml_arena_free(&m.arena);
}

/* coremltools writes `return y, z, y` as three outputs, two of one name; Core ML loads that and gives a dictionary of two. */
static void test_repeated_outputs(void **state) {
  (void)state;
  static const char text[] = INFO "  func main<ios16>(tensor<fp32, [2]> x) {\n"
    "    tensor<fp32, [2]> y = relu(x = x)[name = tensor<string, []>(\"y\")];\n"
    "    tensor<fp32, [2]> z = abs(x = x)[name = tensor<string, []>(\"z\")];\n  } -> (y, z, y, x);\n}\n";
  const char *passes[] = {NULL, ""};
  for (int k = 0; k < 2; k++) {
    cml_model m;
    cml_executable *e = NULL;
    cml_session *s = NULL;
    cml_feature in[] = {ARRAY("x", F32, 2)}, out[] = {ARRAY("y", F32, 2), ARRAY("z", F32, 2), ARRAY("y", F32, 2), ARRAY("x", F32, 2)};
    parse(&m, text);
    m.inputs = (cml_features){in, 1};
    m.outputs = (cml_features){out, 4};
    assert_ok(cml_executable_prepare(&m, &(cml_prepare_options){.threads = 1, .passes = passes[k]}, &e, err));
    assert_ok(cml_session_create(e, &s, err));
    assert_int_equal(cml_executable_outputs(e)->count, 3);
    const cml_tensor x = {.dtype = CML_F32, .rank = 1, .dims = {2}, .data = (float[]){-3, 5}};
    assert_ok(cml_session_set_input(s, "x", &x, err));
    assert_ok(cml_session_run(s, err));
    static const struct { const char *name; float values[2]; } wanted[] = {{"y", {0, 5}}, {"z", {3, 5}}, {"x", {-3, 5}}};
    for (size_t i = 0; i < 3; i++) {
      assert_string_equal(cml_executable_outputs(e)->items[i].name, wanted[i].name);
      assert_memory_equal(cml_session_output(s, i)->data, wanted[i].values, sizeof wanted[i].values);
    }
    cml_session_destroy(s);
    cml_executable_unref(e);
    cml_arena_free(&m.arena);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_features), cmocka_unit_test(test_repeated_outputs), cmocka_unit_test(test_versions), cmocka_unit_test(test_functions)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
