/* Programs that are wrong in one place each: every one is refused when it is loaded, in words that name the operation. */
#include "test.h"

#include "executable.h"

#define HEAD "program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n  func main<ios16>(tensor<fp32, [1, 3, 4, 4]> x) {\n"
#define CONST(type, name, value) "    " type " " name " = const()[name = tensor<string, []>(\"" name "\"), val = " type "(" value ")];\n"
#define OP(type, name, call) "    " type " " name " = " call "[name = tensor<string, []>(\"" name "\")];\n"
#define RELU OP("tensor<fp32, [1, 3, 4, 4]>", "r", "relu(x = x)")
#define TAIL "  } -> (r);\n}\n"
#define PRED CONST("tensor<bool, []>", "p", "true")
#define BRANCH(type, name, call) "      {\n" OP(type, name, call) "      } -> (" name ")"
#define COND(branches) "    tensor<fp32, [1, 3, 4, 4]> r = cond(pred = p) " branches "[name = tensor<string, []>(\"r\")];\n"
#define GOOD BRANCH("tensor<fp32, [1, 3, 4, 4]>", "t", "relu(x = x)")
#define ALSO BRANCH("tensor<fp32, [1, 3, 4, 4]>", "f", "sin(x = x)")

static cml_model *parse(const char *text, cml_error *error) {
  cml_model *model = calloc(1, sizeof *model);
  if (cml_mil_parse_text(cml_span_text(text), &model->arena, &model->program, error)) fail_msg("%s: %s", error->text, text);
  return model;
}

static const struct { const char *body, *says; } wrong[] = {
    {OP("tensor<fp32, [1, 3, 4, 4]>", "r", "relu()"), "operation 'r' (relu): parameter x is missing"},
    {OP("tensor<fp32, [1, 3, 4, 4]>", "r", "relu(x = x, frob = x)"), "operation 'r' (relu): has no parameter frob"},
    {OP("tensor<fp32, [1, 3, 4, 4]>", "r", "frob(x = x)"), "lacks: frob"},
    {OP("tensor<fp32, [1, 3, 4, 4]>", "q", "frob(x = x)") OP("tensor<fp32, [1, 3, 4, 4]>", "r", "quux(x = x)"), "2 operators that opset CoreML6 lacks: frob, quux"},
    {OP("tensor<fp32, [1, 3, 4, 4]>", "r", "scaled_dot_product_attention(query = x, key = x, value = x)"), "lacks: scaled_dot_product_attention"},
    {OP("tensor<fp16, [1, 3, 4, 4]>", "r", "relu(x = x)"), "operation 'r' (relu): is declared fp16 [1, 3, 4, 4], and the arguments give fp32 [1, 3, 4, 4]"},
    {OP("tensor<fp32, [1, 3, 4, 5]>", "r", "relu(x = x)"), "operation 'r' (relu): is declared fp32 [1, 3, 4, 5]"},
    {OP("tensor<fp32, [48]>", "r", "relu(x = x)"), "operation 'r' (relu): is declared fp32 [48]"},
    {CONST("tensor<int32, [2]>", "s", "[7, 7]") OP("tensor<fp32, [7, 7]>", "r", "reshape(x = x, shape = s)"), "operation 'r' (reshape): [1, 3, 4, 4] has 48 elements"},
    {CONST("tensor<int32, []>", "i", "1") OP("tensor<fp32, [1, 3, 4, 4]>", "r", "add(x = x, y = i)"), "operation 'r' (add): parameter y is int32"},
    {CONST("tensor<fp32, [5]>", "v", "[1, 2, 3, 4, 5]") OP("tensor<fp32, [1, 3, 4, 4]>", "r", "add(x = x, y = v)"), "operation 'r' (add): "},
    {CONST("tensor<int32, []>", "a", "4") CONST("tensor<bool, []>", "n", "false") OP("tensor<fp32, [1, 6, 4, 4]>", "r", "concat(values = (x, x), axis = a, interleave = n)"),
     "operation 'r' (concat): axis 4"},
    {CONST("tensor<string, []>", "w", "\"sideways\"") CONST("tensor<fp32, [1, 3, 1, 1]>", "k", "[[[[1]], [[1]], [[1]]]]")
     OP("tensor<fp32, [1, 1, 4, 4]>", "r", "conv(x = x, weight = k, pad_type = w)"), "operation 'r' (conv): pad_type 'sideways'"},
    {CONST("tensor<fp32, [1, 2, 1, 1]>", "k", "[[[[1]], [[1]]]]") OP("tensor<fp32, [1, 1, 4, 4]>", "r", "conv(x = x, weight = k)"), "operation 'r' (conv): x has 3 channels"},
    {"    tensor<int32, [3]> c = const()[name = tensor<string, []>(\"c\"), val = tensor<int32, [2]>([1, 2])];\n" RELU, "operation 'c' (const): is declared int32 [3], and the value is int32 [2]"},
    {"    tensor<fp32, [1, 3, 4, 4]> r, tensor<fp32, [1, 3, 4, 4]> s = relu(x = x)[name = tensor<string, []>(\"r\")];\n", "operation 'r' (relu): has 2 outputs"},
    {PRED COND(GOOD), "operation 'r' (cond): has 1 blocks, expected 2"},
    {PRED COND(GOOD ", " ALSO ", " BRANCH("tensor<fp32, [1, 3, 4, 4]>", "g", "cos(x = x)")), "operation 'r' (cond): has 3 blocks"},
    {PRED COND(GOOD ", " BRANCH("tensor<bool, [1, 3, 4, 4]>", "f", "equal(x = x, y = x)")), "operation 'r' (cond): output 0 of block 1 is bool, expected fp32"},
    {PRED COND(GOOD ", " BRANCH("tensor<fp32, [1, 3, 4, 4]>", "f", "sin(x = x)") ), NULL},
    {"    tensor<fp32, [1, 3, 4, 4]> r = cond(pred = x) " GOOD ", " ALSO "[name = tensor<string, []>(\"r\")];\n", "operation 'r' (cond): parameter pred does not take fp32"},
    {"    tensor<fp32, [1, 3, 4, 4]> r = relu(x = x) " GOOD ", " ALSO "[name = tensor<string, []>(\"r\")];\n", "operation 'r' (relu): has 2 blocks, expected 0"},
    {RELU, NULL},
};

static void test_wrong_programs(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char text[4096];
    cml_error error = {0};
    cml_executable *e = NULL;
    snprintf(text, sizeof text, "%s%s%s", HEAD, wrong[i].body, TAIL);
    cml_model *model = parse(text, &error);
    cml_status status = cml_executable_prepare(model, &(cml_prepare_options){.threads = 1}, &e, &error);
    if (!wrong[i].says) {
      if (status) fail_msg("%s: %s", wrong[i].body, error.text);
    } else if (!status) {
      fail_msg("not refused: %s", wrong[i].body);
    } else if (!strstr(error.text, wrong[i].says) || strchr(error.text, '\n')) {
      fail_msg("\"%s\" does not say \"%s\"", error.text, wrong[i].says);
    }
    cml_executable_unref(e);
    cml_arena_free(&model->arena);
    free(model);
  }
}

static void test_a_description_of_other_shapes(void **state) {
  (void)state;
  cml_error error = {0};
  cml_executable *e;
  int64_t shape[] = {1, 4, 4, 4};
  cml_feature input = {.name = "x", .kind = CML_FEATURE_ARRAY, .dtype = CML_F32, .shape = shape, .rank = 4};
  cml_feature output = {.name = "r", .kind = CML_FEATURE_ARRAY, .dtype = CML_F32};
  cml_model *model = parse(HEAD RELU TAIL, &error);
  model->inputs = (cml_features){&input, 1};
  model->outputs = (cml_features){&output, 1};
  assert_int_not_equal(cml_executable_prepare(model, NULL, &e, &error), CML_OK);
  assert_non_null(strstr(error.text, "input 'x' is fp32 [1, 4, 4, 4] in the description and fp32 [1, 3, 4, 4] in function 'main'"));
  shape[1] = 3;
  assert_ok(cml_executable_prepare(model, NULL, &e, err));
  cml_executable_unref(e);
  cml_arena_free(&model->arena);
  free(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_wrong_programs), cmocka_unit_test(test_a_description_of_other_shapes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
