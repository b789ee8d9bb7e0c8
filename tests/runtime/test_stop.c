/* Runs that must not go on: a loop without end that another thread stops, and programs that ask for more memory than they may take. */
#include <pthread.h>
#include <unistd.h>

#include "executable.h"
#include "test.h"

#define HEAD "program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n  func main<ios16>(tensor<fp32, [4]> x) {\n"
#define FOREVER HEAD "    tensor<fp32, [4]> r = while_loop(loop_vars = (x)) (tensor<fp32, [4]> a) {\n" \
  "        tensor<bool, []> t = const()[name = tensor<string, []>(\"t\"), val = tensor<bool, []>(true)];\n" \
  "      } -> (t) (tensor<fp32, [4]> b) {\n" \
  "%s" \
  "      } -> (%s)[name = tensor<string, []>(\"r\")];\n  } -> (r);\n}\n"
#define STEP "        tensor<fp32, [4]> c = cos(x = b)[name = tensor<string, []>(\"c\")];\n"
/* 64 MiB of x again and again. */
#define LARGE HEAD "    tensor<int32, [1]> n = const()[name = tensor<string, []>(\"n\"), val = tensor<int32, [1]>([4194304])];\n" \
  "    tensor<fp32, [16777216]> r = tile(x = x, reps = n)[name = tensor<string, []>(\"r\")];\n  } -> (r);\n}\n"

static cml_executable *prepare(cml_model *model, const char *text, uint64_t max_memory) {
  cml_executable *e = NULL;
  *model = (cml_model){.type_number = 502};
  assert_ok(cml_mil_parse_text(cml_span_text(text), &model->arena, &model->program, err));
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.threads = 1, .max_memory = max_memory}, &e, err));
  return e;
}

static cml_status run_once(cml_session *s, cml_error *error) {
  const float x[4] = {1, 2, 3, 4};
  const cml_tensor t = {.dtype = CML_F32, .rank = 1, .dims = {4}, .data = (void *)(uintptr_t)x};
  cml_status status = cml_session_set_input(s, "x", &t, error);
  return status ? status : cml_session_run(s, error);
}

static void *stop_soon(void *session) {
  usleep(20000);
  cml_session_cancel(session);
  return NULL;
}

static void stops_a_loop_without_end(void **state) {
  (void)state;
  static const char *const steps[][2] = {{STEP, "c"}, {"", "b"}}; /* a body without operations, too */
  for (int i = 0; i < 2; i++) {
    char text[2048];
    cml_model model;
    cml_session *s = NULL;
    cml_error error = {0};
    pthread_t thread;
    snprintf(text, sizeof text, FOREVER, steps[i][0], steps[i][1]);
    cml_executable *e = prepare(&model, text, 0);
    assert_ok(cml_session_create(e, &s, err));
    for (int again = 0; again < 2; again++) {
      assert_int_equal(pthread_create(&thread, NULL, stop_soon, s), 0);
      assert_int_equal(run_once(s, &error), CML_CANCELLED);
      assert_non_null(strstr(error.text, "stopped"));
      pthread_join(thread, NULL);
    }
    cml_session_destroy(s);
    cml_executable_unref(e);
    cml_arena_free(&model.arena);
  }
}

static void refuses_more_memory_than_it_may_take(void **state) {
  (void)state;
  static const struct { uint64_t limit; cml_status status; } cases[] = {{32 << 20, CML_LIMIT}, {100 << 20, CML_OK}};
  for (int i = 0; i < 2; i++) {
    cml_model model;
    cml_session *s = NULL;
    cml_error error = {0};
    cml_executable *e = prepare(&model, LARGE, cases[i].limit);
    assert_ok(cml_session_create(e, &s, err));
    assert_int_equal(run_once(s, &error), cases[i].status);
    if (cases[i].status) assert_non_null(strstr(error.text, "it may take 33554432"));
    cml_session_destroy(s);
    cml_executable_unref(e);
    cml_arena_free(&model.arena);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stops_a_loop_without_end),
      cmocka_unit_test(refuses_more_memory_than_it_may_take),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
