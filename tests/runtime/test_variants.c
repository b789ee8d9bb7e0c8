/* Flexible programs run graphs for certain shapes and the general one in turns: values and states must be what arithmetic by hand gives,
 * whichever runs. All numbers are small integers, so that sums are exact in any order. */
#include <pthread.h>

#include "exec_graph.h"
#include "program_text.h"
#include "session.h"

enum { WIDTH = 64, MOST_ROWS = 48 };

static int weight(int i, int j) { return (i * 7 + j * 3) % 11 - 5; }
static int element(int run, int row, int j) { return (run * 5 + row * 3 + j * 2) % 7 - 3; }

/* y = x w^T for rows of x, and s + the sum of all of them as the state. */
static void write_program(void) {
  used = 0;
  put("program(1.0)\n{\n  func main<ios18>(state<tensor<fp32, [1, %d]>> s, tensor<fp32, [?, %d]> x) {\n", WIDTH, WIDTH);
  put("tensor<fp32, [%d, %d]> w = const()[name = tensor<string, []>(\"w\"), val = tensor<fp32, [%d, %d]>([", WIDTH, WIDTH, WIDTH, WIDTH);
  for (int i = 0; i < WIDTH; i++) {
    put("%s[", i ? ", " : "");
    for (int j = 0; j < WIDTH; j++) put("%s%d.0", j ? ", " : "", weight(i, j));
    put("]");
  }
  put("])];\n");
  put("tensor<int32, [1]> zero = const()[name = tensor<string, []>(\"zero\"), val = tensor<int32, [1]>([0])];\n");
  put("tensor<bool, []> yes = const()[name = tensor<string, []>(\"yes\"), val = tensor<bool, []>(true)];\n");
  put("tensor<fp32, [1, %d]> old = read_state(input = s)[name = tensor<string, []>(\"old\")];\n", WIDTH);
  put("tensor<fp32, [1, %d]> all = reduce_sum(x = x, axes = zero, keep_dims = yes)[name = tensor<string, []>(\"all\")];\n", WIDTH);
  put("tensor<fp32, [1, %d]> new = add(x = old, y = all)[name = tensor<string, []>(\"new\")];\n", WIDTH);
  put("write_state(input = s, data = new)[name = tensor<string, []>(\"kept\")];\n");
  put("tensor<fp32, [?, %d]> y = linear(x = x, weight = w)[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n", WIDTH);
}

typedef struct bench {
  cml_executable *executable;
  cml_session *session;
  double state[WIDTH]; /* what it must be */
  int runs;
} bench;

static cml_model *read_program(void) {
  cml_model *model = calloc(1, sizeof *model);
  assert_ok(cml_mil_parse_text(cml_span_of(text, used), &model->arena, &model->program, err));
  return model;
}

/* The description that the text lacks: x of 20 rows by default, from 1 to MOST_ROWS. */
static void describe(cml_model *model, int64_t rows) {
  static int64_t shape[2];
  static cml_range ranges[] = {{1, MOST_ROWS}, {WIDTH, WIDTH}};
  static cml_feature x = {.name = "x", .kind = CML_FEATURE_ARRAY, .dtype = CML_F32, .shape = shape, .rank = 2, .flexibility = CML_FLEX_RANGE, .ranges = ranges},
                     y = {.name = "y", .kind = CML_FEATURE_ARRAY, .dtype = CML_F32}, s = {.name = "s", .kind = CML_FEATURE_STATE, .dtype = CML_F32};
  shape[0] = rows, shape[1] = WIDTH;
  model->inputs = (cml_features){&x, 1};
  model->outputs = (cml_features){&y, 1};
  model->states = (cml_features){&s, 1};
}

static void start_with(bench *b, cml_model *model, cml_prepare_options options) {
  *b = (bench){0};
  options.threads = 2;
  assert_ok(cml_executable_prepare(model, &options, &b->executable, err));
  assert_ok(cml_session_create(b->executable, &b->session, err));
}

static void start(bench *b, cml_model *model) { start_with(b, model, (cml_prepare_options){0}); }

static void stop(bench *b, cml_model *model) {
  cml_session_destroy(b->session);
  cml_executable_unref(b->executable);
  if (model) cml_model_close(model);
}

static bool run_right(bench *b, int rows) {
  float x[MOST_ROWS * WIDTH];
  const cml_tensor in = {.dtype = CML_F32, .rank = 2, .dims = {rows, WIDTH}, .data = x};
  for (int i = 0; i < rows * WIDTH; i++) x[i] = (float)element(b->runs, i / WIDTH, i % WIDTH), b->state[i % WIDTH] += (double)x[i];
  b->runs++;
  if (cml_session_set_input(b->session, "x", &in, NULL) || cml_session_run(b->session, NULL)) return false;
  const cml_tensor *y = cml_session_output(b->session, 0), *kept = cml_session_state(b->session, 0);
  if (y->rank != 2 || y->dims[0] != rows || y->dims[1] != WIDTH) return false;
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < WIDTH; i++) {
      int sum = 0;
      for (int j = 0; j < WIDTH; j++) sum += (int)x[r * WIDTH + j] * weight(i, j);
      if (cml_tensor_get(y, r * WIDTH + i) != sum) return false;
    }
  for (int i = 0; i < WIDTH; i++)
    if (cml_tensor_get(kept, i) != b->state[i]) return false;
  return true;
}

static uint64_t packed(const cml_variant *v) {
  uint64_t bytes = 0;
  for (const struct cml_kept *k = v->graph.kept; k; k = k->next) bytes += k->size;
  return bytes;
}

static void repeated_shapes_get_a_graph(void **state) {
  (void)state;
  write_program();
  cml_model *model = read_program();
  bench b;
  start(&b, model);
  const cml_variant *general = &b.executable->general;
  assert_ptr_equal(b.executable->preferred, general); /* nothing says what is usual */
  const cml_tensor *kept = cml_session_state(b.session, 0);
  assert_true(run_right(&b, 20));
  assert_ptr_equal(b.session->variant, general);
  assert_true(run_right(&b, 20));
  const cml_variant *twenty = b.session->variant;
  assert_ptr_not_equal(twenty, general);
  assert_true(run_right(&b, 33)); /* another one once: not worth it */
  assert_ptr_equal(b.session->variant, general);
  assert_true(run_right(&b, 20)); /* known */
  assert_ptr_equal(b.session->variant, twenty);
  assert_true(packed(general) >= WIDTH * WIDTH * 4);
  assert_true(packed(twenty) < 1024); /* the weights are the general graph's */
  assert_ptr_equal(cml_session_state(b.session, 0), kept);
  for (int rows = 1; rows <= 20; rows++)
    for (int k = 0; k < 3; k++) assert_true(run_right(&b, rows));
  assert_int_equal(b.executable->variant_count, 8);
  stop(&b, model);
}

static void default_shapes_have_a_graph_at_once(void **state) {
  (void)state;
  write_program();
  cml_model *model = read_program();
  bench b;
  describe(model, 20);
  start(&b, model);
  assert_ptr_not_equal(b.executable->preferred, &b.executable->general);
  assert_false(b.executable->general.ready);
  assert_true(run_right(&b, 20));
  assert_false(b.executable->general.ready);
  assert_ptr_equal(b.session->variant, b.executable->preferred);
  assert_true(run_right(&b, 7));
  assert_true(b.executable->general.ready);
  assert_true(packed(&b.executable->general) < 1024);
  assert_true(run_right(&b, 20));
  assert_ptr_equal(b.session->variant, b.executable->preferred);
  model->inputs = model->outputs = model->states = (cml_features){0};
  stop(&b, model);
}

static void the_first_run_decides(void **state) {
  (void)state;
  write_program();
  cml_model *model = read_program();
  bench b;
  describe(model, 20);
  start_with(&b, model, (cml_prepare_options){.at_first_run = true});
  assert_int_equal(b.executable->variant_count, 0);
  assert_true(run_right(&b, 33));
  const cml_variant *usual = b.session->variant;
  assert_non_null(usual->shapes);
  assert_ptr_equal(b.executable->preferred, usual);
  assert_false(b.executable->general.ready);
  assert_true(run_right(&b, 20)); /* the default shapes are nothing special now */
  assert_ptr_equal(b.session->variant, &b.executable->general);
  model->inputs = model->outputs = model->states = (cml_features){0};
  stop(&b, model);
}

/* Pieces found, packed anew, and whether the file was written, for a load whose first run has these rows. */
static void load(const char *folder, int rows, uint64_t *found, uint64_t *fresh, bool *written) {
  cml_model *model = read_program();
  bench b;
  describe(model, 20);
  start_with(&b, model, (cml_prepare_options){.at_first_run = true, .cache = folder});
  assert_true(run_right(&b, rows));
  cml_executable_cached(b.executable, found, fresh, written);
  model->inputs = model->outputs = model->states = (cml_features){0};
  stop(&b, model);
}

/* A single row packs its weights in another way than many, or not at all; either load leaves the other's pieces where they are. */
static void the_cache_keeps_what_other_shapes_need(void **state) {
  (void)state;
  char folder[] = "/tmp/cml-variants-XXXXXX", command[64];
  uint64_t found, fresh;
  bool written;
  assert_non_null(mkdtemp(folder));
  write_program();
  load(folder, 33, &found, &fresh, &written);
  assert_true(found == 0 && fresh > 0 && written);
  load(folder, 1, &found, &fresh, &written);
  load(folder, 33, &found, &fresh, &written);
  assert_true(found > 0 && fresh == 0 && !written);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  assert_int_equal(system(command), 0);
}

/* Rows of x in pairs: a default of an odd number of rows fits nothing, and neither do runs with one. */
static void shapes_that_do_not_fit(void **state) {
  (void)state;
  used = 0;
  put("program(1.0)\n{\n  func main<ios18>(tensor<fp32, [?, %d]> x) {\n", WIDTH);
  put("tensor<int32, [3]> pairs = const()[name = tensor<string, []>(\"pairs\"), val = tensor<int32, [3]>([-1, 2, %d])];\n", WIDTH);
  put("tensor<fp32, [?, 2, %d]> y = reshape(x = x, shape = pairs)[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n", WIDTH);
  cml_model *model = read_program();
  bench b;
  float x[MOST_ROWS * WIDTH] = {0};
  describe(model, 3);
  model->states = (cml_features){0};
  start(&b, model);
  assert_ptr_equal(b.executable->preferred, &b.executable->general);
  for (int run = 0; run < 12; run++) {
    int64_t rows = run % 6 < 3 ? 3 : 4; /* each three times */
    const cml_tensor in = {.dtype = CML_F32, .rank = 2, .dims = {rows, WIDTH}, .data = x};
    assert_ok(cml_session_set_input(b.session, "x", &in, err));
    x[5] = (float)run;
    assert_int_equal(cml_session_run(b.session, NULL), rows == 3 ? CML_INVALID : CML_OK);
    if (rows == 4) assert_int_equal(cml_session_output(b.session, 0)->dims[0], 2);
  }
  model->inputs = model->outputs = (cml_features){0};
  stop(&b, model);
}

static void *work(void *context) {
  bench *b = context;
  for (int k = 0; k < 60; k++)
    if (!run_right(b, 1 + k / 4 * 3)) return NULL;
  return b;
}

static void threads_share_them(void **state) {
  (void)state;
  enum { THREADS = 4 };
  write_program();
  cml_model *model = read_program();
  bench b, each[THREADS];
  pthread_t threads[THREADS];
  describe(model, 20);
  start(&b, model);
  for (int i = 0; i < THREADS; i++) {
    each[i] = (bench){.executable = cml_executable_ref(b.executable), .runs = i};
    assert_ok(cml_session_create(b.executable, &each[i].session, err));
    assert_int_equal(pthread_create(&threads[i], NULL, work, &each[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    void *right;
    pthread_join(threads[i], &right);
    assert_non_null(right);
    stop(&each[i], NULL);
  }
  model->inputs = model->outputs = model->states = (cml_features){0};
  stop(&b, model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(repeated_shapes_get_a_graph),
      cmocka_unit_test(default_shapes_have_a_graph_at_once),
      cmocka_unit_test(the_first_run_decides),
      cmocka_unit_test(the_cache_keeps_what_other_shapes_need),
      cmocka_unit_test(shapes_that_do_not_fit),
      cmocka_unit_test(threads_share_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
