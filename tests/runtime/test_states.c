/* States that are read, changed and written again: what the plan shares instead of copying gives the same values, by hand. */
#include "test.h"

#include "exec_graph.h"

enum { N = 4 };

/* Each op on vectors of N, in order; `s` the state, `x` the input; outputs "y" (and "z"). */
#define HEAD "program(1.0)\n{\n  func main<ios18>(state<tensor<fp32, [4]>> s, tensor<fp32, [4]> x) {\n" \
  "    tensor<int32, [1]> zero = const()[name = tensor<string, []>(\"zero\"), val = tensor<int32, [1]>([0])];\n" \
  "    tensor<int32, [1]> one = const()[name = tensor<string, []>(\"one\"), val = tensor<int32, [1]>([1])];\n" \
  "    tensor<int32, [1]> four = const()[name = tensor<string, []>(\"four\"), val = tensor<int32, [1]>([4])];\n"
#define OP(name, call) "    tensor<fp32, [4]> " name " = " call "[name = tensor<string, []>(\"" name "\")];\n"
#define READ(name) OP(name, "read_state(input = s)")
#define WRITE(value) "    write_state(input = s, data = " value ")[name = tensor<string, []>(\"w\")];\n"
#define HEAD_OF(name, from) "    tensor<fp32, [1]> " name " = slice_by_index(x = " from ", begin = zero, end = one)[name = tensor<string, []>(\"" name "\")];\n"
#define PUT(name, into, what) OP(name, "slice_update(x = " into ", update = " what ", begin = zero, end = one)")
#define TAIL "  } -> (y);\n}\n"

typedef struct bench {
  cml_model *model;
  cml_executable *executable;
  cml_session *session;
} bench;

static bench start(const char *text) {
  bench b = {.model = calloc(1, sizeof *b.model)};
  assert_ok(cml_mil_parse_text(cml_span_of(text, strlen(text)), &b.model->arena, &b.model->program, err));
  b.model->type_number = 502;
  assert_ok(cml_executable_prepare(b.model, &(cml_prepare_options){.threads = 1}, &b.executable, err));
  assert_ok(cml_session_create(b.executable, &b.session, err));
  return b;
}

static void stop(bench *b) {
  cml_session_destroy(b->session);
  cml_executable_unref(b->executable);
  cml_model_close(b->model);
}

static void run(bench *b, const float *x, const float *y, const float *state) {
  const cml_tensor in = {.dtype = CML_F32, .rank = 1, .dims = {N}, .data = (void *)(uintptr_t)x};
  assert_ok(cml_session_set_input(b->session, "x", &in, err));
  assert_ok(cml_session_run(b->session, err));
  for (int i = 0; i < N; i++) {
    float got = ((const float *)cml_session_output(b->session, 0)->data)[i], kept = ((const float *)cml_session_state(b->session, 0)->data)[i];
    if (got != y[i]) fail_msg("y[%d] is %g, not %g", i, (double)got, (double)y[i]);
    if (kept != state[i]) fail_msg("state[%d] is %g, not %g", i, (double)kept, (double)state[i]);
  }
}

static size_t shared(const bench *b) {
  const cml_variant *now = b->executable->preferred;
  size_t n = 0;
  for (size_t v = 0; v < now->graph.value_count; v++) n += now->plan->state[v] != UINT32_MAX;
  return n;
}

/* What converters write for a cache: nothing is copied but the new element. */
static void a_cache_is_changed_in_place(void **state) {
  (void)state;
  bench b = start(HEAD READ("r") HEAD_OF("h", "x") PUT("u", "r", "h") WRITE("u") READ("n") OP("y", "add(x = n, y = x)") TAIL);
  assert_int_equal(shared(&b), 3);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){2, 2, 3, 4}, (float[]){1, 0, 0, 0});
  run(&b, (float[]){5, 6, 7, 8}, (float[]){10, 6, 7, 8}, (float[]){5, 0, 0, 0});
  stop(&b);
}

/* The old value is wanted after the write. */
static void old_values_stay(void **state) {
  (void)state;
  bench b = start(HEAD READ("r") WRITE("x") OP("y", "sub(x = x, y = r)") TAIL);
  assert_int_equal(shared(&b), 0);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){1, 2, 3, 4}, (float[]){1, 2, 3, 4});
  run(&b, (float[]){5, 5, 5, 5}, (float[]){4, 3, 2, 1}, (float[]){5, 5, 5, 5});
  stop(&b);
}

/* What was changed is not written: the state keeps its value. */
static void an_unwritten_change_is_a_copy(void **state) {
  (void)state;
  bench b = start(HEAD WRITE("x") READ("r") HEAD_OF("h", "x") OP("d", "add(x = x, y = x)") HEAD_OF("g", "d") PUT("y", "r", "g") TAIL);
  assert_int_equal(shared(&b), 1);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){2, 2, 3, 4}, (float[]){1, 2, 3, 4});
  stop(&b);
}

/* A second reader between the change and the write sees the old value. */
static void a_reader_between_sees_the_old_value(void **state) {
  (void)state;
  bench b = start(HEAD READ("r") HEAD_OF("h", "x") PUT("u", "r", "h") READ("o") WRITE("u") OP("y", "sub(x = u, y = x)") TAIL);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){0, -2, -3, -4}, (float[]){1, 0, 0, 0});
  stop(&b);
  b = start(HEAD READ("r") HEAD_OF("h", "x") PUT("u", "r", "h") READ("o") OP("t", "add(x = o, y = u)") WRITE("u") OP("y", "identity(x = t)") TAIL);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){1, 0, 0, 0}, (float[]){1, 0, 0, 0});
  run(&b, (float[]){5, 2, 3, 4}, (float[]){6, 0, 0, 0}, (float[]){5, 0, 0, 0});
  stop(&b);
}

/* r is used after u was made of it; and the value written first is used after the second change. */
static void later_uses_forbid_the_change(void **state) {
  (void)state;
  bench b = start(HEAD READ("r") HEAD_OF("h", "x") PUT("u", "r", "h") OP("t", "add(x = r, y = u)") WRITE("u") OP("y", "identity(x = t)") TAIL);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){1, 0, 0, 0}, (float[]){1, 0, 0, 0});
  run(&b, (float[]){5, 2, 3, 4}, (float[]){6, 0, 0, 0}, (float[]){5, 0, 0, 0});
  stop(&b);
  b = start(HEAD READ("r") HEAD_OF("h", "x") PUT("u", "r", "h") WRITE("u") READ("n") OP("d", "add(x = x, y = x)") HEAD_OF("g", "d") PUT("v", "n", "g")
                OP("t", "add(x = u, y = v)") WRITE("v") OP("y", "identity(x = t)") TAIL);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){3, 0, 0, 0}, (float[]){2, 0, 0, 0});
  run(&b, (float[]){5, 2, 3, 4}, (float[]){15, 0, 0, 0}, (float[]){10, 0, 0, 0});
  stop(&b);
}

/* Two changes, one after the other, before the write; elementwise ones count as well. */
static void changes_follow_one_another(void **state) {
  (void)state;
  bench b = start(HEAD READ("r") HEAD_OF("h", "x") PUT("u", "r", "h") OP("v", "sub(x = u, y = x)") WRITE("v") READ("y") TAIL);
  run(&b, (float[]){1, 2, 3, 4}, (float[]){0, -2, -3, -4}, (float[]){0, -2, -3, -4});
  run(&b, (float[]){1, 1, 1, 1}, (float[]){0, -3, -4, -5}, (float[]){0, -3, -4, -5});
  stop(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_cache_is_changed_in_place), cmocka_unit_test(old_values_stay), cmocka_unit_test(an_unwritten_change_is_a_copy),
                                     cmocka_unit_test(a_reader_between_sees_the_old_value), cmocka_unit_test(later_uses_forbid_the_change),
                                     cmocka_unit_test(changes_follow_one_another)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
