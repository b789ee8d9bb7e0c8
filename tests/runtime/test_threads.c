/* Many threads, one executable: each with a session of its own, all at once, with inputs of their own; each must get what
 * one thread alone gets. Worth most under ThreadSanitizer. */
#include <pthread.h>

#include "container.h"
#include "executable.h"
#include "test.h"

enum { THREADS = 8, RUNS = 20, PIXELS = 64, CLASSES = 10 };

typedef struct worker {
  pthread_t thread;
  cml_executable *executable;
  float pixels[PIXELS];
  double expected[CLASSES], got[RUNS][CLASSES];
  bool failed;
} worker;

static cml_status run_once(cml_executable *executable, cml_session *s, worker *w, double *out, cml_error *err) {
  cml_tensor t = {.dtype = CML_F32, .rank = 4, .dims = {1, 1, 8, 8}, .data = w->pixels};
  cml_status status = cml_session_set_input(s, cml_executable_inputs(executable)->items[0].name, &t, err);
  if (!status) status = cml_session_run(s, err);
  for (int i = 0; !status && i < CLASSES; i++) out[i] = cml_tensor_get(cml_session_output(s, 0), i);
  return status;
}

static void *work(void *context) {
  worker *w = context;
  cml_session *s = NULL;
  cml_executable *held = cml_executable_ref(w->executable);
  w->failed = cml_session_create(held, &s, NULL) != CML_OK;
  for (int r = 0; !w->failed && r < RUNS; r++) w->failed = run_once(held, s, w, w->got[r], NULL) != CML_OK;
  cml_session_destroy(s);
  cml_executable_unref(held);
  return NULL;
}

static void check_with(size_t inner_threads) {
  static worker workers[THREADS];
  cml_container *c = NULL;
  cml_model *model = NULL;
  cml_executable *executable = NULL;
  cml_session *s = NULL;
  char path[4096];
  snprintf(path, sizeof path, "%s/tests/data/digits/digits.pte", getenv("CML_SOURCE"));
  assert_ok(cml_container_open(path, NULL, &c, err));
  const cml_container_model *m = cml_container_model_at(c, 0);
  assert_ok(cml_model_read(m->tree, m->root, NULL, &model, err));
  const cml_prepare_options options = {.function = m->function, .threads = inner_threads};
  assert_ok(cml_executable_prepare(model, &options, &executable, err));
  assert_ok(cml_session_create(executable, &s, err));
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (worker){.executable = executable};
    for (int k = 0; k < PIXELS; k++) workers[i].pixels[k] = (float)((k * 37 + i * 11) % 256);
    assert_ok(run_once(executable, s, &workers[i], workers[i].expected, err));
  }
  assert_memory_not_equal(workers[0].expected, workers[1].expected, sizeof workers->expected); /* the inputs do differ */
  cml_session_destroy(s);
  for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
  for (int i = 0; i < THREADS; i++) pthread_join(workers[i].thread, NULL);
  for (int i = 0; i < THREADS; i++) {
    assert_false(workers[i].failed);
    for (int r = 0; r < RUNS; r++) assert_memory_equal(workers[i].got[r], workers[i].expected, sizeof workers->expected);
  }
  cml_executable_unref(executable);
  cml_model_close(model);
  cml_container_close(c);
}

static void sessions_share_an_executable(void **state) {
  (void)state;
  check_with(1);
}

static void sessions_share_an_executable_with_threads_of_its_own(void **state) {
  (void)state;
  check_with(3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sessions_share_an_executable),
      cmocka_unit_test(sessions_share_an_executable_with_threads_of_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
