/* Every allocation of reading, printing, summing up, drawing and comparing fails once: an error each time, nothing lost. */
#include "diff.h"
#include "fail_alloc.h"
#include "mil_graph.h"
#include "summary.h"

static const char text[] =
    "program(1.3)[b = dict<string, string>({{\"k\", \"v\"}})]{ func main<ios18>(tensor<fp16, [1, 4]> x, bool p) {"
    "tensor<fp16, [4, 4]> w = const()[val = tensor<fp16, [4, 4]>([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])];"
    "tensor<uint4, [4, 4]> i = const()[val = tensor<uint4, [4, 4]>(BLOBFILE(path = string(\"@model_path/w\"), offset = uint64(64)))];"
    "tensor<fp16, [1, 4]> y = cond(pred = p)[name = string(\"c\")] { tensor<fp16, [1, 4]> a = linear(weight = w, x = x); } -> (a) { } -> (x); } -> (y); }";

static cml_status use(void *context, cml_error *err) {
  (void)context;
  cml_model model = {.type_number = 502};
  cml_diff diff = CML_DIFF_INIT;
  cml_buffer out = CML_BUFFER_INIT;
  cml_model other = {.type_number = 502};
  cml_status s = cml_mil_parse_text(cml_span_text(text), &model.arena, &model.program, err);
  if (!s) s = cml_mil_parse_text(cml_span_text(text), &other.arena, &other.program, err);
  if (!s) s = cml_mil_print_text(model.program, CML_MIL_1_0, &out, err);
  if (!s) s = cml_summary_text(&model, &out, err);
  if (!s) s = cml_summary_json(&model, &out, err);
  if (!s) s = cml_graph_dot(model.program->functions[0], &out, err);
  if (!s) s = cml_graph_svg(model.program->functions[0], &out, err);
  if (!s) other.author = "x", s = cml_diff_models(&diff, "", &model, &other, err);
  if (!s) s = cml_diff_json(&diff, &out, err);
  cml_diff_free(&diff);
  cml_buffer_free(&out);
  cml_arena_free(&model.arena);
  cml_arena_free(&other.arena);
  return s;
}

static void test_each_allocation_fails_once(void **state) {
  (void)state;
  if (!FAIL_ALLOC_WORKS) {
    print_message("the sanitizer's malloc cannot be made to fail\n");
    skip();
  }
  assert_true(fail_alloc_each(use, NULL) > 20);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_allocation_fails_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
