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
#define LOOP(inputs, outputs) "    tensor<fp32, [1, 3, 4, 4]> r = while_loop(loop_vars = (x)) (tensor<fp32, [1, 3, 4, 4]> a) {\n" \
  CONST("tensor<bool, []>", "t", "false") "      } -> (t) (" inputs ") {\n      } -> (" outputs ")[name = tensor<string, []>(\"r\")];\n"
#define GOOD BRANCH("tensor<fp32, [1, 3, 4, 4]>", "t", "relu(x = x)")
#define ALSO BRANCH("tensor<fp32, [1, 3, 4, 4]>", "f", "sin(x = x)")

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
    {PRED COND(GOOD ", " BRANCH("tensor<bool, [1, 3, 4, 4]>", "f", "equal(x = x, y = x)")), "operation 'r' (cond): output 0 of block 1 is bool [1, 3, 4, 4], expected fp32"},
    {PRED CONST("tensor<int32, [1]>", "one", "[0]") COND(GOOD ", " BRANCH("tensor<fp32, [3, 4, 4]>", "f", "squeeze(x = x, axes = one)")), "operation 'r' (cond): output 0 of block 1 is fp32 [3, 4, 4]"},
    {LOOP("tensor<fp32, [1, 3, 4, 4]> b", "b"), NULL},
    {LOOP("tensor<fp32, [1, 3, 4, 5]> b", "b"), "operation 'r' (while_loop): input 0 of block 1 is fp32 [1, 3, 4, 5], expected fp32 [1, 3, 4, 4]"},
    {LOOP("tensor<fp32, [1, 3, 4, 4]> b, tensor<fp32, [1, 3, 4, 4]> c", "b"), "operation 'r' (while_loop): block 1 has 2 inputs, expected 1"},
    {LOOP("tensor<fp32, [1, 3, 4, 4]> b", "b, b"), "operation 'r' (while_loop): block 1 has 2 outputs, expected 1"},
    {LOOP("tensor<fp32, [1, 3, 4, 4]> b", "t"), "the name t is used, but not defined before"},
    {LOOP("tensor<fp32, [1, 3, 4, 4]> x", "x"), "the name x is defined twice"},
    {OP("tensor<fp32, [1, 3, 4, 4]>", "r", "relu(x = later)") OP("tensor<fp32, [1, 3, 4, 4]>", "later", "relu(x = x)"), "the name later is used, but not defined before"},
    {RELU RELU, "the name r is defined twice"},
    {OP("tensor<fp32, [1, 3, 4, 4]>", "q", "relu(x = x)"), "the name r is used, but not defined before"},
    {CONST("tensor<int32, []>", "a", "1") OP("tensor<fp32, [1, 4, 4]>", "r", "reduce_sum(x = x, axes = a)"), "operation 'r' (reduce_sum): parameter axes must be a vector"},
    {CONST("tensor<int32, [1, 1]>", "a", "[[1]]") OP("tensor<fp32, [1, 4, 4]>", "r", "squeeze(x = x, axes = a)"), "operation 'r' (squeeze): parameter axes must be a vector"},
    {PRED COND(GOOD ", " BRANCH("tensor<fp32, [1, 3, 4, 4]>", "f", "sin(x = x)") ), NULL},
    {"    tensor<fp32, [1, 3, 4, 4]> r = cond(pred = x) " GOOD ", " ALSO "[name = tensor<string, []>(\"r\")];\n", "operation 'r' (cond): parameter pred does not take fp32"},
    {"    tensor<fp32, [1, 3, 4, 4]> r = relu(x = x) " GOOD ", " ALSO "[name = tensor<string, []>(\"r\")];\n", "operation 'r' (relu): has 2 blocks, expected 0"},
    {RELU, NULL},
};

/* Names are checked when the text is read, everything else when it is prepared. */
static cml_status load(const char *body, cml_error *error) {
  char text[4096];
  cml_model model = {.type_number = 502};
  cml_executable *e = NULL;
  snprintf(text, sizeof text, "%s%s%s", HEAD, body, TAIL);
  cml_status status = cml_mil_parse_text(cml_span_text(text), &model.arena, &model.program, error);
  if (!status) status = cml_executable_prepare(&model, &(cml_prepare_options){.threads = 1}, &e, error);
  cml_executable_unref(e);
  cml_arena_free(&model.arena);
  return status;
}

static void test_wrong_programs(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    cml_error error = {0};
    cml_status status = load(wrong[i].body, &error);
    if (!wrong[i].says) {
      if (status) fail_msg("%s: %s", wrong[i].body, error.text);
    } else if (!status) {
      fail_msg("not refused: %s", wrong[i].body);
    } else if (!strstr(error.text, wrong[i].says) || strchr(error.text, '\n')) {
      fail_msg("\"%s\" does not say \"%s\"", error.text, wrong[i].says);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_wrong_programs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
