/* The shared reference cases, each run in several ways: with all graph passes and without, on one thread and on two. Threads never
 * change a bit, nor do the passes that say so; the others stay within the case's tolerance of what the program as written gives.
 * Skips where the cases are not there; CML_REFERENCE_SHARE=N takes every Nth. */
#include <glob.h>
#include <math.h>

#include "container.h"
#include "executable.h"
#include "json_read.h"
#include "npy.h"
#include "test.h"

enum { MOST_OUTPUTS = 512, WRITTEN = 0, ALL = 2 };

static const struct variant {
  const char *passes, *what;
  size_t threads;
  int like;  /* which one it is compared with, an earlier one */
  bool exact;
} variants[] = {
    {"", "as written", 1, WRITTEN, true},
    {"dead-code,chains", "passes that keep each bit", 1, WRITTEN, true},
    {NULL, "all passes", 1, WRITTEN, false},
    {NULL, "all passes on two threads", 2, ALL, true},
    {"", "as written on two threads", 2, WRITTEN, true},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

typedef struct result {
  cml_tensor items[MOST_OUTPUTS]; /* data is ours */
  size_t count;
} result;

typedef struct reference {
  char path[480];
  json_t *json;
  double rtol, atol, mismatches;
} reference;

/* ---- running ---- */

static void keep(result *r, const cml_tensor *t) {
  uint64_t bytes = 0;
  if (t->dtype == CML_STRING || !cml_tensor_bytes(t, &bytes) || r->count == MOST_OUTPUTS) return;
  cml_tensor *to = &r->items[r->count++];
  *to = *t;
  assert_non_null(to->data = malloc((size_t)bytes + 1));
  memcpy(to->data, t->data, (size_t)bytes);
}

static cml_status run_step(cml_session *s, const cml_executable *e, const char *inputs, result *out, cml_error *error) {
  cml_npz *npz;
  CML_TRY(cml_npz_open(inputs, &npz, error));
  cml_status status = CML_OK;
  for (size_t i = 0; !status && i < cml_npz_count(npz); i++) {
    const cml_array *a = cml_npz_at(npz, i);
    cml_tensor t = {.dtype = a->dtype, .rank = (int32_t)a->rank, .data = a->data};
    for (size_t k = 0; k < a->rank && k < CML_MAX_RANK; k++) t.dims[k] = a->dims[k];
    status = cml_session_set_input(s, a->name, &t, error);
  }
  if (!status) status = cml_session_run(s, error);
  for (size_t i = 0; !status && i < cml_executable_outputs(e)->count; i++) keep(out, cml_session_output(s, i));
  cml_npz_close(npz);
  return status;
}

static cml_status run(const reference *c, cml_model *model, const struct variant *v, result *out, cml_error *error) {
  cml_executable *e = NULL;
  cml_session *s = NULL;
  const char *function = json_string_value(json_object_get(c->json, "function"));
  json_t *steps = json_object_get(c->json, "steps");
  cml_status status = cml_executable_prepare(model, &(cml_prepare_options){.function = function, .passes = v->passes, .threads = v->threads}, &e, error);
  if (!status) status = cml_session_create(e, &s, error);
  for (json_int_t k = 0; !status && k < (steps ? json_integer_value(steps) : 1); k++) {
    char inputs[512];
    if (k) snprintf(inputs, sizeof inputs, "%s/inputs_%d.npz", c->path, (int)k);
    else snprintf(inputs, sizeof inputs, "%s/inputs.npz", c->path);
    status = run_step(s, e, inputs, out, error);
  }
  cml_session_destroy(s);
  cml_executable_unref(e);
  return status;
}

/* ---- comparing ---- */

static bool close_enough(const reference *c, double a, double b) { return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= c->atol + c->rtol * fabs(b); }

/* Elements that differ, by value, NaN being equal to NaN. */
static int64_t different(const reference *c, const cml_tensor *a, const cml_tensor *b, bool exact) {
  int64_t count = 0;
  for (int64_t i = 0, n = cml_tensor_count(a); i < n; i++) {
    if (cml_dtype_is_float(a->dtype)) {
      double x = cml_tensor_get(a, i), y = cml_tensor_get(b, i);
      count += exact ? !(x == y || (isnan(x) && isnan(y))) : !close_enough(c, x, y);
    } else {
      count += cml_tensor_get_int(a, i) != cml_tensor_get_int(b, i);
    }
  }
  return count;
}

static bool same(const reference *c, const result *a, const result *b, bool exact, const char *what) {
  bool equal = a->count == b->count;
  for (size_t i = 0; equal && i < a->count; i++) {
    bool alike = a->items[i].dtype == b->items[i].dtype && cml_tensor_same_shape(&a->items[i], &b->items[i]);
    int64_t n = alike ? different(c, &a->items[i], &b->items[i], exact) : -1, all = cml_tensor_count(&a->items[i]);
    if (n < 0 || (double)n > (exact ? 0 : c->mismatches * (double)all)) {
      print_message("%s: %s: %lld of %lld values of output %zu differ\n", strrchr(c->path, '/') + 1, what, (long long)n, (long long)all, i);
      equal = false;
    }
  }
  return equal;
}

/* ---- cases ---- */

static bool has(const json_t *list, const char *text) {
  for (size_t i = 0; i < json_array_size(list); i++)
    if (!strcmp(json_string_value(json_array_get(list, i)), text)) return true;
  return false;
}

/* False for those whose results are random. */
static bool read_reference(reference *c, const char *json_path) {
  snprintf(c->path, sizeof c->path, "%.*s", (int)(strrchr(json_path, '/') - json_path), json_path);
  c->json = json_load_file(json_path, 0, NULL);
  assert_non_null(c->json);
  bool half = has(json_object_get(c->json, "element_types"), "float16");
  c->rtol = fmax(half ? 2e-2 : 1e-3, json_number_value(json_object_get(c->json, "rtol")));
  c->atol = fmax(half ? 5e-3 : 1e-4, json_number_value(json_object_get(c->json, "atol")));
  c->mismatches = json_number_value(json_object_get(c->json, "allow_mismatch_ratio"));
  return !json_object_get(c->json, "statistics");
}

/* Whether the variants agree. Passes keep float16 states in float32, so that a program with states may round otherwise. */
static bool check(const reference *c) {
  static result results[VARIANTS];
  char path[512];
  cml_container *container;
  cml_model *model;
  bool good = true;
  snprintf(path, sizeof path, "%s/%s", c->path, json_string_value(json_object_get(c->json, "model")));
  assert_ok(cml_container_open(path, NULL, &container, err));
  const cml_container_model *m = cml_container_model_at(container, 0);
  assert_ok(cml_model_read(m->tree, m->root, NULL, &model, err));
  for (int v = 0; v < VARIANTS; v++) {
    cml_error error = {0};
    results[v].count = 0;
    cml_status status = run(c, model, &variants[v], &results[v], &error);
    if (status) print_message("%s: %s: %s\n", strrchr(c->path, '/') + 1, variants[v].what, error.text);
    bool exact = variants[v].exact && (variants[v].threads > 1 || !model->states.count);
    good = good && !status && same(c, &results[v], &results[variants[v].like], exact, variants[v].what);
  }
  for (int v = 0; v < VARIANTS; v++)
    for (size_t i = 0; i < results[v].count; i++) free(results[v].items[i].data);
  cml_model_close(model);
  cml_container_close(container);
  return good;
}

static void test_reference(void **state) {
  (void)state;
  glob_t g;
  char pattern[512];
  const char *share = getenv("CML_REFERENCE_SHARE"), *folder = getenv("CML_REFERENCE");
  size_t step = share && atoi(share) > 0 ? (size_t)atoi(share) : 1, wrong = 0, checked = 0;
  if (folder) snprintf(pattern, sizeof pattern, "%s/ops/mlprogram-*/case.json", folder);
  else snprintf(pattern, sizeof pattern, "%s/../shared/reference/ops/mlprogram-*/case.json", getenv("CML_SOURCE"));
  if (glob(pattern, 0, NULL, &g)) skip_because("the reference cases are not here");
  for (size_t i = 0; i < g.gl_pathc; i += step) {
    reference c;
    if (read_reference(&c, g.gl_pathv[i])) checked++, wrong += !check(&c);
    json_decref(c.json);
  }
  globfree(&g);
  print_message("%zu cases in %d ways\n", checked, VARIANTS);
  assert_int_equal(wrong, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
