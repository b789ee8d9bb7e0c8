/* Every operator against recorded results of NumPy and torch: tests/data/ops holds one file a family. Further files may be
 * named on the command line. */
#include "test.h"

#include <glob.h>

#include "mapping.h"
#include "op_cases.h"

static int run_file(const char *path) {
  cml_mapping *mapping = NULL;
  assert_ok(cml_mapping_open(path, &mapping, err));
  cml_cursor c = cml_cursor_over(cml_mapping_span(mapping));
  cml_arena arena = CML_ARENA_INIT;
  op_case t;
  int failures = 0, count = 0;
  while (op_case_next(&c, &arena, &t)) {
    const char *wrong = op_case_check(&t, &arena);
    count++;
    if (wrong && ++failures <= 40) print_message("%s, opset %d, %s: %s\n", t.op, t.opset, t.name, wrong);
    for (size_t i = 0; i < t.arg_count; i++) free(t.args[i].data);
    for (size_t i = 0; i < t.output_count; i++) free(t.outputs[i].data);
  }
  assert_false(c.failed);
  assert_true(count > 0);
  print_message("%s: %d cases, %d wrong\n", path, count, failures);
  cml_arena_free(&arena);
  cml_mapping_unref(mapping);
  return failures;
}

static void recorded_cases(void **state) {
  (void)state;
  char pattern[4096];
  snprintf(pattern, sizeof pattern, "%s/tests/data/ops/*.cases", getenv("CML_SOURCE") ? getenv("CML_SOURCE") : ".");
  glob_t g;
  assert_int_equal(glob(pattern, 0, NULL, &g), 0);
  int failures = 0;
  for (size_t i = 0; i < g.gl_pathc; i++) failures += run_file(g.gl_pathv[i]);
  globfree(&g);
  assert_int_equal(failures, 0);
}

/* ---- none is forgotten ---- */

/* Operators that only a whole program can show: check_flow.py, test_random.c and the reference cases have them. */
static const char *const in_programs[] = {"cond", "while_loop", "make_list", "list_read", "list_write", "list_gather", "list_scatter", "list_length",
                                          "read_state", "write_state", "coreml_update_state", "classify"};

static bool excused(const cml_op *op) {
  bool found = (op->flags & CML_OP_INTERNAL) != 0;
  for (size_t i = 0; i < sizeof in_programs / sizeof *in_programs; i++) found = found || !strcmp(in_programs[i], op->name);
  return found;
}

static void mark_file(const char *path, bool *seen) {
  cml_mapping *mapping = NULL;
  assert_ok(cml_mapping_open(path, &mapping, err));
  cml_cursor c = cml_cursor_over(cml_mapping_span(mapping));
  cml_arena arena = CML_ARENA_INIT;
  op_case t;
  while (op_case_next(&c, &arena, &t)) {
    for (size_t i = 0; cml_op_at(i) && !t.refused; i++) seen[i] |= cml_op_at(i) == cml_op_find(t.op, t.opset);
    for (size_t i = 0; i < t.arg_count; i++) free(t.args[i].data);
    for (size_t i = 0; i < t.output_count; i++) free(t.outputs[i].data);
  }
  cml_arena_free(&arena);
  cml_mapping_unref(mapping);
}

static void every_row_has_cases(void **state) {
  (void)state;
  char pattern[4096];
  static bool seen[1024];
  snprintf(pattern, sizeof pattern, "%s/tests/data/ops/*.cases", getenv("CML_SOURCE") ? getenv("CML_SOURCE") : ".");
  glob_t g;
  assert_int_equal(glob(pattern, 0, NULL, &g), 0);
  for (size_t i = 0; i < g.gl_pathc; i++) mark_file(g.gl_pathv[i], seen);
  globfree(&g);
  for (size_t i = 0; cml_op_at(i) && i < 1024; i++) {
    const cml_op *op = cml_op_at(i);
    if (!seen[i] && !excused(op)) fail_msg("no recorded case has %s as of iOS %d", op->name, op->since);
  }
}

static void attack_file(const char *path, uint64_t *state) {
  cml_mapping *mapping = NULL;
  assert_ok(cml_mapping_open(path, &mapping, err));
  cml_cursor c = cml_cursor_over(cml_mapping_span(mapping));
  cml_arena arena = CML_ARENA_INIT;
  op_case t;
  while (op_case_next(&c, &arena, &t)) {
    op_case_attack(&t, state);
    for (size_t i = 0; i < t.arg_count; i++) free(t.args[i].data);
    for (size_t i = 0; i < t.output_count; i++) free(t.outputs[i].data);
  }
  cml_arena_free(&arena);
  cml_mapping_unref(mapping);
}

/* Whatever the arguments are, infer refuses them or run copes. CML_ROUNDS asks for more than one round. */
static void hostile_arguments_do_no_harm(void **state) {
  (void)state;
  char pattern[4096];
  snprintf(pattern, sizeof pattern, "%s/tests/data/ops/*.cases", getenv("CML_SOURCE") ? getenv("CML_SOURCE") : ".");
  glob_t g;
  uint64_t seed = 1;
  assert_int_equal(glob(pattern, 0, NULL, &g), 0);
  for (long round = getenv("CML_ROUNDS") ? atol(getenv("CML_ROUNDS")) : 1; round > 0; round--)
    for (size_t i = 0; i < g.gl_pathc; i++) attack_file(g.gl_pathv[i], &seed);
  globfree(&g);
}

static char **extra;

static void named_files(void **state) {
  (void)state;
  int failures = 0;
  for (char **path = extra; *path; path++) failures += run_file(*path);
  assert_int_equal(failures, 0);
}

int main(int argc, char **argv) {
  extra = argv + 1;
  const struct CMUnitTest recorded[] = {cmocka_unit_test(recorded_cases), cmocka_unit_test(every_row_has_cases), cmocka_unit_test(hostile_arguments_do_no_harm)};
  const struct CMUnitTest named[] = {cmocka_unit_test(named_files)};
  return argc > 1 ? cmocka_run_group_tests(named, NULL, NULL) : cmocka_run_group_tests(recorded, NULL, NULL);
}
