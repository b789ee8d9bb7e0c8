/* Every operator against recorded results of NumPy and torch: tests/data/ops holds one file a family. Further files may be
 * named on the command line. */
#include "test.h"

#include <glob.h>

#include "mapping.h"
#include "op_cases.h"

/* ---- files of cases ---- */

typedef void visit(const char *path, op_case *t, cml_arena *arena, void *context);

static void each_case(const char *path, visit *look, void *context) {
  cml_mapping *mapping = NULL;
  assert_ok(cml_mapping_open(path, &mapping, err));
  cml_cursor c = cml_cursor_over(cml_mapping_span(mapping));
  cml_arena arena = CML_ARENA_INIT;
  op_case t;
  int count = 0;
  for (; op_case_next(&c, &arena, &t); count++) {
    look(path, &t, &arena, context);
    for (size_t i = 0; i < t.arg_count; i++) free(t.args[i].data);
    for (size_t i = 0; i < t.output_count; i++) free(t.outputs[i].data);
  }
  assert_false(c.failed);
  assert_true(count > 0);
  cml_arena_free(&arena);
  cml_mapping_unref(mapping);
}

static void each_recorded(visit *look, void *context) {
  char pattern[4096];
  snprintf(pattern, sizeof pattern, "%s/tests/data/ops/*.cases", getenv("CML_SOURCE") ? getenv("CML_SOURCE") : ".");
  glob_t g;
  assert_int_equal(glob(pattern, 0, NULL, &g), 0);
  for (size_t i = 0; i < g.gl_pathc; i++) each_case(g.gl_pathv[i], look, context);
  globfree(&g);
}

typedef struct tally { int count, failures; } tally;

static void check(const char *path, op_case *t, cml_arena *arena, void *context) {
  tally *n = context;
  const char *wrong = op_case_check(t, arena);
  n->count++;
  if (wrong && ++n->failures <= 40) print_message("%s: %s, opset %d, %s: %s\n", path, t->op, t->opset, t->name, wrong);
}

static void conclude(const tally *n) {
  print_message("%d cases, %d wrong\n", n->count, n->failures);
  assert_int_equal(n->failures, 0);
}

static void recorded_cases(void **state) {
  (void)state;
  tally n = {0, 0};
  each_recorded(check, &n);
  conclude(&n);
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

static void mark(const char *path, op_case *t, cml_arena *arena, void *context) {
  bool *seen = context;
  (void)path, (void)arena;
  for (size_t i = 0; cml_op_at(i) && !t->refused; i++) seen[i] |= cml_op_at(i) == cml_op_find(t->op, t->opset);
}

static void every_row_has_cases(void **state) {
  (void)state;
  static bool seen[1024];
  each_recorded(mark, seen);
  for (size_t i = 0; cml_op_at(i) && i < 1024; i++) {
    const cml_op *op = cml_op_at(i);
    if (!seen[i] && !excused(op)) fail_msg("no recorded case has %s as of iOS %d", op->name, op->since);
  }
}

static void attack(const char *path, op_case *t, cml_arena *arena, void *context) {
  (void)path, (void)arena;
  op_case_attack(t, context);
}

/* Whatever the arguments are, infer refuses them or run copes. CML_ROUNDS asks for more than one round. */
static void hostile_arguments_do_no_harm(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (long round = getenv("CML_ROUNDS") ? atol(getenv("CML_ROUNDS")) : 1; round > 0; round--) each_recorded(attack, &seed);
}

static char **extra;

static void named_files(void **state) {
  (void)state;
  tally n = {0, 0};
  for (char **path = extra; *path; path++) each_case(*path, check, &n);
  conclude(&n);
}

int main(int argc, char **argv) {
  extra = argv + 1;
  const struct CMUnitTest recorded[] = {cmocka_unit_test(recorded_cases), cmocka_unit_test(every_row_has_cases), cmocka_unit_test(hostile_arguments_do_no_harm)};
  const struct CMUnitTest named[] = {cmocka_unit_test(named_files)};
  return argc > 1 ? cmocka_run_group_tests(named, NULL, NULL) : cmocka_run_group_tests(recorded, NULL, NULL);
}
