/* Types that the operator table infers, written into programs, and programs printed after each pass. Shapes by hand. */
#include "test.h"

#include "buffer.h"
#include "executable.h"

#define HEAD "program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n  func main<ios16>(tensor<fp32, [1, ?]> x) {\n"
#define CONST(type, name, value) "    " type " " name " = const()[name = tensor<string, []>(\"" name "\"), val = " type "(" value ")];\n"
#define OP(type, name, call) "    " type " " name " = " call "[name = tensor<string, []>(\"" name "\")];\n"

static cml_model *model_of(const char *text) {
  static int64_t shape[] = {1, 7};
  static cml_range ranges[] = {{1, 1}, {2, 9}};
  static cml_feature input, outputs[2];
  input = (cml_feature){.name = "x", .kind = CML_FEATURE_ARRAY, .dtype = CML_F32, .shape = shape, .rank = 2, .flexibility = CML_FLEX_RANGE, .ranges = ranges};
  for (size_t i = 0; i < 2; i++) outputs[i] = (cml_feature){.name = i ? "where" : "y", .kind = CML_FEATURE_ARRAY, .dtype = i ? CML_I32 : CML_F32};
  cml_model *model = calloc(1, sizeof *model);
  assert_ok(cml_mil_parse_text(cml_span_text(text), &model->arena, &model->program, err));
  model->inputs = (cml_features){&input, 1};
  model->outputs = (cml_features){outputs, 2};
  return model;
}

static void done(cml_model *model) {
  cml_arena_free(&model->arena);
  free(model);
}

static void assert_type(const cml_model *model, const char *name, const char *want) {
  const cml_mil_block *body = cml_mil_body(model->program->functions[0]);
  for (size_t i = 0; i < body->op_count; i++) {
    cml_buffer b = CML_BUFFER_INIT;
    if (strcmp(body->ops[i]->outputs[0].name, name)) continue;
    cml_mil_type_print(body->ops[i]->outputs[0].type, &b);
    cml_buffer_char(&b, 0);
    assert_string_equal((char *)b.data, want);
    cml_buffer_free(&b);
    return;
  }
  fail_msg("no %s", name);
}

static const char program[] = HEAD
    CONST("tensor<int32, [1]>", "axes", "[1]") CONST("tensor<bool, []>", "keep", "false") CONST("tensor<int32, []>", "axis", "1")
    CONST("tensor<bool, []>", "interleave", "false") CONST("tensor<fp32, [3, 14]>", "w", "[[0,0,0,0,0,0,0,0,0,0,0,0,0,0],[0,0,0,0,0,0,0,0,0,0,0,0,0,0],[0,0,0,0,0,0,0,0,0,0,0,0,0,0]]")
    OP("tensor<fp32, [1, ?]>", "twice", "concat(values = (x, x), axis = axis, interleave = interleave)")
    OP("tensor<fp32, [1, 3]>", "h", "linear(x = twice, weight = w)")
    OP("tensor<fp32, [1, 3]>", "y", "relu(x = h)")
    OP("tensor<fp32, [1]>", "sum", "reduce_sum(x = twice, axes = axes, keep_dims = keep)")
    OP("tensor<int32, [?, 2]>", "where", "non_zero(x = twice)")
    "  } -> (y, where);\n}\n";

/* x has 7 columns by default; what non_zero finds is open. */
static void test_default_shapes_fill_the_program(void **state) {
  (void)state;
  cml_model *model = model_of(program);
  assert_ok(cml_model_infer_types(model, err));
  assert_type(model, "twice", "tensor<fp32, [1, 14]>");
  assert_type(model, "y", "tensor<fp32, [1, 3]>");
  assert_type(model, "where", "tensor<int32, [?, 2]>");
  assert_int_equal(model->outputs.items[0].rank, 2);
  assert_int_equal(model->outputs.items[0].shape[1], 3);
  assert_int_equal(model->outputs.items[1].shape[0], -1);
  assert_int_equal(model->outputs.items[1].shape[1], 2);
  done(model);
}

static void test_a_refused_program_says_why(void **state) {
  (void)state;
  static const char wrong[] = HEAD CONST("tensor<fp32, [3, 4]>", "w", "[[0,0,0,0],[0,0,0,0],[0,0,0,0]]")
      OP("tensor<int32, [?, 2]>", "where", "non_zero(x = x)") OP("tensor<fp32, [2, 3]>", "y", "linear(x = x, weight = w)") "  } -> (y, where);\n}\n";
  cml_model *model = model_of(wrong);
  cml_error error = {0};
  assert_int_not_equal(cml_model_infer_types(model, &error), CML_OK);
  assert_non_null(strstr(error.text, "operation 'y' (linear)"));
  done(model);
}

/* Runs with other shapes than the default ones all the same. */
static void test_other_shapes_still_run(void **state) {
  (void)state;
  cml_model *model = model_of(HEAD OP("tensor<fp32, [1, ?]>", "y", "add(x = x, y = x)") OP("tensor<int32, [?, 2]>", "where", "non_zero(x = x)") "  } -> (y, where);\n}\n");
  cml_executable *e;
  cml_session *s;
  uint64_t arena, packed, live;
  float values[] = {1, 0, 3};
  cml_tensor x = {.dtype = CML_F32, .rank = 2, .dims = {1, 3}, .data = values};
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.threads = 1}, &e, err));
  assert_int_equal(cml_executable_output_type(e, 0)->dims[1], 7);
  cml_executable_memory(e, &arena, &packed, &live);
  assert_int_equal(live >= 7 * sizeof(float), 1);
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", &x, err));
  assert_ok(cml_session_run(s, err));
  assert_int_equal(cml_session_output(s, 0)->dims[1], 3);
  assert_true(cml_tensor_get(cml_session_output(s, 0), 2) == 6);
  assert_int_equal(cml_session_output(s, 1)->dims[0], 2);
  cml_session_destroy(s);
  cml_executable_unref(e);
  done(model);
}

static void test_passes_are_printed(void **state) {
  (void)state;
  cml_model *model = model_of(program);
  cml_buffer b = CML_BUFFER_INIT;
  assert_ok(cml_executable_print_passes(model, NULL, &b, err));
  cml_buffer_char(&b, 0);
  const char *text = (char *)b.data, *written = strstr(text, "# as written"), *after = strstr(text, "# after epilogues");
  assert_ptr_equal(written, text);
  assert_non_null(after);
  const char *relu = strstr(text, " = relu(x = ");
  assert_true(relu && relu < after);
  assert_null(strstr(after, " = relu(x = "));
  assert_non_null(strstr(after, " = cml_linear(x = "));
  assert_non_null(strstr(text, "(nothing to do)"));
  cml_buffer_free(&b);
  cml_error error = {0};
  assert_int_equal(cml_executable_print_passes(model, &(cml_prepare_options){.passes = "frob"}, &b, &error), CML_ARGUMENT);
  cml_buffer_free(&b);
  done(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_default_shapes_fill_the_program), cmocka_unit_test(test_a_refused_program_says_why),
      cmocka_unit_test(test_other_shapes_still_run),          cmocka_unit_test(test_passes_are_printed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
