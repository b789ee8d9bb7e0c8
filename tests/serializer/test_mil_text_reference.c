/* Programs that coremltools wrote, printed in both dialects and read back: equal in every operation, type and value, and
 * printed the same again. */
#include <glob.h>

#include "mil_equal.h"
#include "mil_text_check.h"

static void check_program(const char *path, const cml_mil_program *program, cml_mil_dialect dialect) {
  cml_arena arena = CML_ARENA_INIT;
  cml_buffer text = CML_BUFFER_INIT, again = CML_BUFFER_INIT, difference = CML_BUFFER_INIT;
  cml_mil_program *read;
  cml_error e;
  if (cml_mil_print_text(program, dialect, &text, &e) || cml_mil_parse_text(cml_buffer_span(&text), &arena, &read, &e))
    fail_msg("%s: %s", path, e.text);
  if (!cml_mil_program_equal(program, read, &difference)) fail_msg("%s: %s", path, (const char *)difference.data);
  assert_ok(cml_mil_print_text(read, dialect, &again, err));
  assert_same_text(cml_buffer_span(&text), cml_buffer_span(&again), path);
  cml_buffer_free(&text);
  cml_buffer_free(&again);
  cml_buffer_free(&difference);
  cml_arena_free(&arena);
}

static void check_package(const char *path, size_t *checked) {
  cml_model_options options = {.skip_weights = true};
  cml_tree *tree;
  cml_model *model;
  assert_ok(cml_tree_from_folder(path, NULL, &tree, err));
  assert_ok(cml_model_read(tree, cml_tree_root(tree), &options, &model, err));
  if (model->program) {
    check_program(path, model->program, CML_MIL_1_0);
    check_program(path, model->program, CML_MIL_1_3);
    (*checked)++;
  }
  cml_model_close(model);
  cml_tree_unref(tree);
}

static void check_pattern(const char *below, size_t least) {
  char pattern[4096];
  const char *source = getenv("CML_SOURCE");
  size_t checked = 0;
  glob_t found;
  snprintf(pattern, sizeof pattern, "%s/../shared/%s", source ? source : ".", below);
  if (glob(pattern, 0, NULL, &found)) {
    print_message("no ../shared here\n");
    skip();
  }
  for (size_t i = 0; i < found.gl_pathc; i++) check_package(found.gl_pathv[i], &checked);
  assert_true(checked >= least);
  globfree(&found);
}

static void test_captured_operators(void **state) {
  (void)state;
  check_pattern("reference/ops/mlprogram-*/model.mlpackage", 500);
}

static void test_the_corpus(void **state) {
  (void)state;
  check_pattern("corpus/mlprogram-pairs/*.mlpackage", 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_captured_operators), cmocka_unit_test(test_the_corpus)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
