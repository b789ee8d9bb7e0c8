/* Each allocation of opening, reading every file of the view, flattening, restoring, extracting, checking, comparing and running
 * fails once, in libraries too: it must be told as a lack of memory (or done without), and nothing may be lost. */
#include "../fail_alloc.h"
#include "../inmemoryfs/scratch.h"
#include "container.h"
#include "decompress.h"
#include "diff.h"
#include "et_program.h"
#include "executable.h"
#include "flat.h"
#include "verify.h"

static const char *data_file(const char *path) {
  static char full[512];
  snprintf(full, sizeof full, "%s/tests/data/%s", getenv("CML_SOURCE"), path);
  return full;
}

/* ---- the view ---- */

static cml_status read_files(const cml_node *node, cml_error *err) {
  if (cml_node_kind_of(node) == CML_NODE_FILE) {
    cml_contents contents = {0};
    uint64_t size;
    CML_TRY(cml_node_open(node, &contents, err));
    cml_contents_close(&contents);
    return cml_node_size(node, &size, err);
  }
  for (size_t i = 0; i < cml_node_count(node); i++) CML_TRY(read_files(cml_node_child(node, i), err));
  return CML_OK;
}

static cml_status open_and_read(void *path, cml_error *err) {
  cml_container *c;
  const cml_container_options options = {.decompress = cml_decompress};
  CML_TRY(cml_container_open(path, &options, &c, err));
  cml_status status = read_files(cml_tree_root(cml_container_view(c)), err);
  cml_container_close(c);
  return status;
}

static void views(void **state) {
  (void)state;
  static const char *const paths[] = {"digits/digits.pte",  "digits/digits-classifier.mlpackage", "models/lut.mlpackage", "flat/wheel.bin",
                                      "fuzz/archive/tgz",   "fuzz/archive/zip",                   "fuzz/pte/multi_shared.pte",
                                      "fuzz/bpte/bundled.bpte"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    char path[512];
    snprintf(path, sizeof path, "%s", data_file(paths[i]));
    long seen = fail_alloc_each(open_and_read, path);
    print_message("# %s: %ld allocations\n", paths[i], seen);
    if (FAIL_ALLOC_WORKS) assert_true(seen > 10);
  }
}

static void ignore(void *context, const cml_finding *finding) { (void)context, (void)finding; }

static cml_status check(void *path, cml_error *err) {
  cml_verify_result result;
  return cml_verify(path, NULL, ignore, NULL, &result, err);
}

static void checks(void **state) {
  (void)state;
  char path[512];
  snprintf(path, sizeof path, "%s", data_file("digits/digits.pte"));
  fail_alloc_each(check, path);
}

/* ---- writing ---- */

static cml_status flatten(void *path, cml_error *err) {
  cml_tree *tree;
  CML_TRY(cml_tree_from_folder(path, NULL, &tree, err));
  cml_status status = cml_flatten_to_path(cml_tree_root(tree), "flat.bin", NULL, err);
  cml_tree_unref(tree);
  return status;
}

static cml_status unflatten(void *path, cml_error *err) {
  cml_container *c;
  const cml_container_options exact = {.only_exact = true};
  CML_TRY(cml_container_open(path, &exact, &c, err));
  cml_status status = cml_node_write(cml_tree_root(cml_container_view(c)), "restored", err);
  cml_container_close(c);
  fail_alloc_pause();
  assert_int_equal(!access("restored", F_OK), status == CML_OK);
  scratch_remove("restored");
  fail_alloc_resume();
  return status;
}

static void writing(void **state) {
  (void)state;
  char path[512];
  snprintf(path, sizeof path, "%s", data_file("digits"));
  fail_alloc_each(flatten, path);
  fail_alloc_each(unflatten, (void *)(uintptr_t) "flat.bin");
  snprintf(path, sizeof path, "%s", data_file("digits/digits.pte"));
  fail_alloc_each(unflatten, path);
}

/* ---- running ---- */

static cml_status run_once(cml_executable *e, cml_error *err) {
  cml_session *s;
  static float ones[4096];
  CML_TRY(cml_session_create(e, &s, err));
  const cml_features *inputs = cml_executable_inputs(e);
  cml_status status = CML_OK;
  for (size_t i = 0; !status && i < inputs->count; i++) {
    const cml_feature *f = &inputs->items[i];
    cml_tensor t = {.dtype = CML_F32, .rank = (int32_t)f->rank, .data = ones};
    for (size_t k = 0; k < f->rank; k++) t.dims[k] = f->shape[k];
    status = cml_session_set_input(s, f->name, &t, err);
  }
  for (int i = 0; !status && i < 2; i++) status = cml_session_run(s, err);
  cml_session_destroy(s);
  return status;
}

static cml_status load_and_run(void *path, cml_error *err) {
  cml_container *c = NULL;
  cml_model *model = NULL;
  cml_executable *e = NULL;
  const cml_prepare_options options = {.threads = 1};
  cml_status status = cml_container_open(path, NULL, &c, err);
  const cml_container_model *m = status ? NULL : cml_container_model_at(c, 0);
  if (!status) status = cml_model_read(m->tree, m->root, NULL, &model, err);
  if (!status) status = cml_executable_prepare(model, &options, &e, err);
  if (!status) status = run_once(e, err);
  cml_executable_unref(e);
  cml_model_close(model);
  cml_container_close(c);
  return status;
}

static cml_status run_program(void *path, cml_error *err) {
  cml_et_program *program = NULL;
  cml_et_method *method = NULL;
  static uint8_t zeros[1 << 16];
  const cml_et_options options = {.threads = 1};
  cml_status status = cml_et_program_open(path, NULL, &options, &program, err);
  if (!status) status = cml_et_method_load(program, cml_et_program_pte(program)->methods[0].name.data, &method, err);
  for (size_t i = 0; !status && i < cml_et_method_input_count(method); i++) {
    const cml_et_value *v = cml_et_method_input(method, i);
    if (v->kind != CML_PTE_TENSOR) continue;
    cml_tensor t = {.dtype = v->tensor->dtype, .rank = v->tensor->rank, .data = zeros};
    for (int32_t k = 0; k < t.rank; k++) t.dims[k] = v->tensor->sizes[k];
    status = cml_et_method_set_tensor(method, i, &t, err);
  }
  if (!status) status = cml_et_method_run(method, err);
  cml_et_method_unload(method);
  cml_et_program_close(program);
  return status;
}

static void running(void **state) {
  (void)state;
  static const char *const models[] = {"digits/digits.pte", "digits/digits-classifier.mlpackage", "models/lut.mlpackage"};
  static const char *const programs[] = {"digits/digits.pte", "fuzz/pte/pt_state.pte", "fuzz/pte/pt_dynamic.pte", "fuzz/pte/op_abs_f.pte"};
  char path[512];
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    snprintf(path, sizeof path, "%s", data_file(models[i]));
    print_message("# %s: %ld allocations\n", models[i], fail_alloc_each(load_and_run, path));
  }
  for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
    snprintf(path, sizeof path, "%s", data_file(programs[i]));
    print_message("# %s: %ld allocations\n", programs[i], fail_alloc_each(run_program, path));
  }
}

/* ---- comparing ---- */

static cml_status compare(void *path, cml_error *err) {
  cml_container *a = NULL, *b = NULL;
  cml_diff diff = {0};
  cml_buffer text = CML_BUFFER_INIT;
  cml_status status = cml_container_open(path, NULL, &a, err);
  if (!status) status = cml_container_open(data_file("digits/digits-classifier.mlpackage"), NULL, &b, err);
  if (!status) status = cml_diff_trees(&diff, cml_tree_root(cml_container_view(a)), cml_tree_root(cml_container_view(b)), err);
  if (!status) status = cml_diff_text(&diff, &text, err);
  cml_buffer_free(&text);
  cml_diff_free(&diff);
  cml_container_close(a);
  cml_container_close(b);
  return status;
}

static void comparing(void **state) {
  (void)state;
  char path[512];
  snprintf(path, sizeof path, "%s", data_file("models/lut.mlpackage"));
  fail_alloc_each(compare, path);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(views), cmocka_unit_test(checks), cmocka_unit_test(writing), cmocka_unit_test(running),
                                     cmocka_unit_test(comparing)};
  return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
