/* Differences of programs, descriptions and trees, with measures worked out by hand. */
#include <math.h>

#include "diff.h"
#include "test.h"

static cml_model *model_of(const char *text) {
  cml_model *model = calloc(1, sizeof *model);
  model->type_number = 502;
  assert_ok(cml_mil_parse_text(cml_span_text(text), &model->arena, &model->program, err));
  return model;
}

/* The differences as text; the caller frees it. */
static char *differences(cml_model *a, cml_model *b) {
  cml_diff diff = CML_DIFF_INIT;
  cml_buffer text = CML_BUFFER_INIT;
  assert_ok(cml_diff_models(&diff, "", a, b, err));
  assert_ok(cml_diff_text(&diff, &text, err));
  cml_diff_free(&diff);
  return text.data ? (char *)text.data : calloc(1, 1);
}

static void check(const char *a_text, const char *b_text, const char *expected) {
  cml_model *a = model_of(a_text), *b = model_of(b_text);
  char *found = differences(a, b);
  assert_string_equal(found, expected);
  free(found);
  cml_arena_free(&a->arena);
  cml_arena_free(&b->arena);
  free(a);
  free(b);
}

#define P(body, output) "program(1.3)\n{ func main<ios18>(tensor<fp16, [4]> x) {" body "} -> (" output "); }"
#define RELU(name, from) "tensor<fp16, [4]> " name " = relu(x = " from ");"

static void test_programs(void **state) {
  (void)state;
  check(P(RELU("y", "x"), "y"), P(RELU("y", "x"), "y"), "");
  check(P(RELU("y", "x"), "y"), P(RELU("a", "x") RELU("y", "a"), "y"),
        "program\n  + main/a: relu -> tensor<fp16, [4]>\n  ~ main/y: x x -> a\n");
  check(P(RELU("a", "x") RELU("y", "a"), "y"), P(RELU("y", "x"), "y"),
        "program\n  - main/a: relu -> tensor<fp16, [4]>\n  ~ main/y: x a -> x\n");
  /* a renamed operation is one difference, its readers none */
  check(P(RELU("a", "x") RELU("y", "a"), "y"), P(RELU("b", "x") RELU("y", "b"), "y"), "program\n  ~ main/a: renamed a -> b\n");
  check(P(RELU("y", "x"), "y"), P("tensor<fp16, [4]> y = exp(x = x);", "y"),
        "program\n  ~ main/y: was relu -> tensor<fp16, [4]> -> exp -> tensor<fp16, [4]>\n");
  check(P("tensor<fp16, [4]> y = softmax(axis = int32(-1), x = x);", "y"), P("tensor<fp16, [4]> y = softmax(axis = int32(0), x = x)[name = string(\"n\")];", "y"),
        "program\n  ~ main/y: axis -1 -> 0\n");
  check(P("tensor<fp16, [4]> y = relu(x = x);", "y"), P("tensor<fp16, [2, 2]> y = relu(x = x);", "y"),
        "program\n  ~ main/y: output tensor<fp16, [4]> -> tensor<fp16, [2, 2]>\n");
  check(P("tensor<int32, [2]> s = const()[val = tensor<int32, [2]>([1, 2])];", "s"), P("tensor<int32, [2]> s = const()[val = tensor<int32, [2]>([1, 3])];", "s"),
        "program\n  ~ main/s: val [1, 2] -> [1, 3]\n");
  check(P(RELU("a", "x") RELU("b", "x"), "a"), P(RELU("b", "x") RELU("a", "x"), "a"), "program\n  ~ main: operations stand in another order\n");
  check(P("string d = const()[val = string(\"fp16\")];", "d"), P("string d = const()[val = string(\"fp32\")];", "d"),
        "program\n  ~ main/d: val \"fp16\" -> \"fp32\"\n");
  check("program(1.3){func f<ios17>() {} -> (); func g<ios17>() {} -> ();}", "program(1.3){func g<ios18>() {} -> (); func h<ios18>() {} -> ();}",
        "program\n  - f: a function\n  ~ g: opset CoreML7 -> CoreML8\n  + h: a function\n");
}

static void test_nested_blocks(void **state) {
  (void)state;
#define COND(in) P("bool p = const()[val = bool(true)]; tensor<fp16, [4]> y = cond(pred = p) { " in " } -> (a) { } -> (x);", "y")
  check(COND(RELU("a", "x")), COND("tensor<fp16, [4]> a = exp(x = x);"),
        "program\n  ~ main/a: was relu -> tensor<fp16, [4]> -> exp -> tensor<fp16, [4]>\n");
}

static void test_weights(void **state) {
  (void)state;
  /* a = 1, 2, 3, 4; b differs by 0.5 once: sum a^2 = 30, noise 0.25: 10 log10(120) = 20.79 dB */
  check(P("tensor<fp16, [4]> w = const()[val = tensor<fp16, [4]>([1, 2, 3, 4])];", "w"),
        P("tensor<fp32, [4]> w = const()[val = tensor<fp32, [4]>([1, 2, 3.5, 4])];", "w"),
        "program\n  ~ main/w: output tensor<fp16, [4]> -> tensor<fp32, [4]>\n"
        "weights\n  ~ main/w: tensor<fp16, [4]> -> tensor<fp32, [4]>: max difference 0.5, SNR 20.8 dB\n");
  check(P("tensor<fp16, [1]> w = const()[val = tensor<fp16, [1]>([0])];", "w"), P("tensor<fp16, [1]> w = const()[val = tensor<fp16, [1]>([1])];", "w"),
        "weights\n  ~ main/w: tensor<fp16, [1]>: max difference 1, SNR none\n");
}

static void test_descriptions(void **state) {
  (void)state;
  cml_model *a = model_of(P(RELU("y", "x"), "y")), *b = model_of(P(RELU("y", "x"), "y"));
  int64_t shape[] = {4}, other[] = {5};
  cml_feature fa = {.name = "x", .kind = CML_FEATURE_ARRAY, .dtype = CML_F16, .shape = shape, .rank = 1}, fb = fa;
  fb.shape = other;
  cml_metadata_item ma = {"k", "1"}, mb = {"l", "2"};
  a->inputs = (cml_features){&fa, 1};
  b->inputs = (cml_features){&fb, 1};
  a->author = "A";
  a->metadata = &ma;
  b->metadata = &mb;
  a->metadata_count = b->metadata_count = 1;
  a->specification_version = 7;
  b->specification_version = 8;
  char *found = differences(a, b);
  assert_string_equal(found, "description\n  ~ specification version: 7 -> 8\n  ~ input x: array fp16 [4] -> array fp16 [5]\n"
                             "  - author: A\n  - k: 1\n  + l: 2\n");
  free(found);
  cml_arena_free(&a->arena);
  cml_arena_free(&b->arena);
  free(a);
  free(b);
}

/* ---- trees ---- */

static void add_file(cml_tree *tree, cml_node *parent, const char *name, const char *text) {
  cml_piece piece = {(const uint8_t *)text, strlen(text), NULL, 0};
  assert_ok(cml_tree_add_file(tree, parent, name, strlen(name), &piece, 1, NULL, err));
}

static cml_node *add_folder(cml_tree *tree, const char *name) {
  cml_node *folder;
  assert_ok(cml_tree_add_folder(tree, cml_tree_root_mutable(tree), name, strlen(name), &folder, err));
  return folder;
}

static void test_trees(void **state) {
  (void)state;
  cml_tree *a, *b;
  cml_diff diff = CML_DIFF_INIT;
  cml_buffer text = CML_BUFFER_INIT, json = CML_BUFFER_INIT;
  assert_ok(cml_tree_create("", &a, err));
  assert_ok(cml_tree_create("", &b, err));
  add_file(a, cml_tree_root_mutable(a), "same", "1");
  add_file(b, cml_tree_root_mutable(b), "same", "1");
  add_file(a, cml_tree_root_mutable(a), "left", "1");
  add_file(b, add_folder(b, "right"), "in", "1");
  cml_node *x = add_folder(a, "d"), *y = add_folder(b, "d");
  add_file(a, x, "f", "12");
  add_file(b, y, "f", "123");
  add_file(a, x, "g", "12");
  add_file(b, y, "g", "13");
  add_file(a, add_folder(a, "m.view"), "generated", "1");
  assert_ok(cml_diff_trees(&diff, cml_tree_root(a), cml_tree_root(b), err));
  assert_ok(cml_diff_text(&diff, &text, err));
  assert_string_equal((char *)text.data, "files\n  ~ d/f: contents differ (2 and 3 bytes)\n  ~ d/g: contents differ (2 bytes)\n"
                                         "  - left: only in the first\n  + right: only in the second (a folder)\n");
  assert_ok(cml_diff_json(&diff, &json, err));
  assert_non_null(strstr((char *)json.data, "{\"equal\": false, \"differences\": [\n  {\"section\": \"files\", \"change\": \"changed\", \"where\": \"d/f\""));
  cml_diff_free(&diff);
  cml_buffer_free(&text);
  cml_buffer_free(&json);
  cml_tree_unref(a);
  cml_tree_unref(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_programs),     cmocka_unit_test(test_nested_blocks), cmocka_unit_test(test_weights),
      cmocka_unit_test(test_descriptions), cmocka_unit_test(test_trees),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
