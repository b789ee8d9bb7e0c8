/* Runs that must not go on: a loop without end that another thread stops, and programs that ask for more memory than they may take. */
#include <pthread.h>
#include <unistd.h>

#include "et_program.h"
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

/* 4 MiB of weights, which are packed: 8 rows are too many to multiply with them as they are. */
#define PACKED "program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n  func main<ios16>(tensor<fp32, [8, 1024]> x) {\n" \
  "    tensor<int32, [2]> n = const()[name = tensor<string, []>(\"n\"), val = tensor<int32, [2]>([1024, 1024])];\n" \
  "    tensor<fp32, []> v = const()[name = tensor<string, []>(\"v\"), val = tensor<fp32, []>(0x1p-1)];\n" \
  "    tensor<fp32, [1024, 1024]> w = fill(shape = n, value = v)[name = tensor<string, []>(\"w\")];\n" \
  "    tensor<fp32, [8, 1024]> r = linear(x = x, weight = w)[name = tensor<string, []>(\"r\")];\n  } -> (r);\n}\n"

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

/* ---- programs of the virtual machine ---- */

static const char *data_file(const char *name) {
  static char path[512];
  snprintf(path, sizeof path, "%s/tests/data/%s", getenv("CML_SOURCE"), name);
  return path;
}

/* pt_map.pte jumps back until it has seen each row (value 12 says whether): here the jump leads to the comparison before it, instruction 6, for
 * ever. (A jump to itself would be refused.) */
static void write_endless(const char *path) {
  static const uint32_t jump[] = {1, 12}, back[] = {6, 12};
  static unsigned char bytes[1 << 16];
  FILE *f = fopen(data_file("fuzz/pte/pt_map.pte"), "rb");
  assert_non_null(f);
  size_t size = fread(bytes, 1, sizeof bytes, f);
  fclose(f);
  unsigned char *at = memmem(bytes, size, jump, sizeof jump);
  assert_non_null(at);
  memcpy(at, back, sizeof back);
  assert_non_null(f = fopen(path, "wb"));
  assert_int_equal(fwrite(bytes, 1, size, f), size);
  fclose(f);
}

static cml_et_method *load_method(const char *path, cml_et_program **program) {
  static float ones[4096];
  cml_et_method *m;
  const cml_et_options options = {.threads = 1};
  assert_ok(cml_et_program_open(path, NULL, &options, program, err));
  assert_ok(cml_et_method_load(*program, NULL, &m, err));
  for (size_t i = 0; i < cml_et_method_input_count(m); i++) {
    const cml_et_tensor *v = cml_et_method_input(m, i)->tensor;
    cml_tensor t = {.dtype = v->dtype, .rank = v->rank, .data = ones};
    for (int32_t k = 0; k < t.rank; k++) t.dims[k] = v->sizes[k];
    assert_ok(cml_et_method_set_tensor(m, i, &t, err));
  }
  return m;
}

static void *stop_method_soon(void *method) {
  usleep(20000);
  cml_et_method_cancel(method);
  return NULL;
}

static void stops_a_program_without_end(void **state) {
  (void)state;
  char path[] = "/tmp/cml-stop-XXXXXX";
  cml_et_program *program;
  cml_error error = {0};
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  write_endless(path);
  cml_et_method *m = load_method(path, &program);
  for (int again = 0; again < 2; again++) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_method_soon, m), 0);
    assert_int_equal(cml_et_method_run(m, &error), CML_CANCELLED);
    assert_non_null(strstr(error.text, "stopped"));
    pthread_join(thread, NULL);
  }
  cml_et_method_unload(m);
  cml_et_program_close(program);
  unlink(path);
}

static void stop_now(void *context, const cml_et_event *event) {
  cml_et_method **m = context;
  if (!event->delegate || event->opcode != CML_PTE_DELEGATE_CALL) return;
  cml_et_method_cancel(*m);
}

/* The observer stops the run when the delegate's first operation is through: inside, or at the next instruction. */
static void stops_a_program_in_its_delegate(void **state) {
  (void)state;
  cml_et_program *program;
  cml_error error = {0};
  cml_et_method *m = load_method(data_file("digits/digits.pte"), &program);
  cml_et_method_observe(m, stop_now, &m);
  assert_int_equal(cml_et_method_run(m, &error), CML_CANCELLED);
  cml_et_method_observe(m, NULL, NULL);
  assert_ok(cml_et_method_run(m, err));
  cml_et_method_cancel(m); /* when nothing runs: the next one */
  assert_int_equal(cml_et_method_run(m, &error), CML_CANCELLED);
  assert_ok(cml_et_method_run(m, err));
  cml_et_method_unload(m);
  cml_et_program_close(program);
}

/* ---- memory ---- */

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

/* Between what the weights take as they are and what they take packed beside that. */
static void refuses_weights_that_do_not_fit_packed(void **state) {
  (void)state;
  static const struct { uint64_t limit; cml_status status; } cases[] = {{2 << 20, CML_LIMIT}, {6 << 20, CML_LIMIT}, {12 << 20, CML_OK}};
  for (int i = 0; i < 3; i++) {
    cml_model model = {.type_number = 502};
    cml_executable *e = NULL;
    cml_error error = {0};
    assert_ok(cml_mil_parse_text(cml_span_text(PACKED), &model.arena, &model.program, err));
    assert_int_equal(cml_executable_prepare(&model, &(cml_prepare_options){.threads = 1, .max_memory = cases[i].limit}, &e, &error), cases[i].status);
    if (cases[i].status) assert_int_equal(error.status, CML_LIMIT);
    if (cases[i].status) assert_non_null(strstr(error.text, "it may take"));
    cml_executable_unref(e);
    cml_arena_free(&model.arena);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stops_a_loop_without_end),
      cmocka_unit_test(stops_a_program_without_end),
      cmocka_unit_test(stops_a_program_in_its_delegate),
      cmocka_unit_test(refuses_more_memory_than_it_may_take),
      cmocka_unit_test(refuses_weights_that_do_not_fit_packed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
