/* cmlpack diff: how two files differ, down to the numbers in their weights. */
#include <string.h>

#include "cmlpack.h"
#include "cmlpack_models.h"
#include "decompress.h"
#include "diff.h"

static const cli_page page = {
    .usage = "cmlpack diff A B [--json]",
    .summary = "Compares two containers or models: their files, descriptions, programs operation by operation, and weights with the\n"
               "largest difference and the signal-to-noise ratio. Prints nothing when there is no difference.",
    .details = "Exit codes: 0 no difference, 1 some, 2 an error. A line starts with - for what only A has, + for what only B has, ~ for\n"
               "what differs. Operations are matched by the name of their first output; a renamed one is found by its type and place.",
    .examples = "cmlpack diff model.mlpackage model-int8.mlpackage\n"
                "cmlpack diff old.pte new.pte --json",
    .min_operands = 2, .max_operands = 2};

static bool is_view(const cml_node *node) {
  const char *name = cml_node_name(node);
  size_t n = strlen(name);
  return n > 5 && !strcmp(name + n - 5, ".view");
}

/* The one exact file or folder that the view shows, or the view's root when there are several: two models are compared
 * whatever their names. */
static const cml_node *exact_root(const cmlpack_models *models) {
  const cml_node *root = cml_tree_root(cml_container_view(models->container)), *found = NULL;
  for (size_t i = 0; i < cml_node_count(root); i++) {
    if (is_view(cml_node_child(root, i))) continue;
    if (found) return root;
    found = cml_node_child(root, i);
  }
  return found ? found : root;
}

static const cmlpack_model *find_model(const cmlpack_models *models, const char *name, size_t i) {
  for (size_t k = 0; k < models->count; k++)
    if (!strcmp(models->items[k].name, name)) return &models->items[k];
  return i < models->count && !*models->items[i].name ? &models->items[i] : NULL;
}

static cml_status compare_model(cml_diff *diff, const cmlpack_model *a, const cmlpack_model *b, cml_error *err) {
  char where[700];
  snprintf(where, sizeof where, "%s%s", a->name, *a->name ? ": " : "");
  return cml_diff_models(diff, where, a->model, b->model, err);
}

static cml_status compare(cml_diff *diff, const cmlpack_models *a, const cmlpack_models *b, cml_error *err) {
  CML_TRY(cml_diff_trees(diff, exact_root(a), exact_root(b), err));
  for (size_t i = 0; i < a->count; i++) {
    const cmlpack_model *other = a->count == 1 && b->count == 1 ? &b->items[0] : find_model(b, a->items[i].name, i);
    if (other) CML_TRY(compare_model(diff, &a->items[i], other, err));
    else CML_TRY(cml_diff_add(diff, CML_DIFF_DESCRIPTION, '-', a->items[i].name, "a model", err));
  }
  for (size_t i = 0; i < b->count; i++)
    if (!(a->count == 1 && b->count == 1) && !find_model(a, b->items[i].name, i))
      CML_TRY(cml_diff_add(diff, CML_DIFF_DESCRIPTION, '+', b->items[i].name, "a model", err));
  return CML_OK;
}

static int failed(const char *file, const cml_error *err) {
  (void)cli_error(file, err);
  return CLI_USAGE; /* like diff: 1 would mean that they differ */
}

int cmlpack_diff(int argc, char **argv) {
  bool json = false;
  const cli_option table[] = {CLI_FLAG(0, "json", &json, "as JSON"), CLI_END};
  int code = cli_parse(&page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cmlpack_models a, b;
  cml_error err = {0};
  cml_diff diff = CML_DIFF_INIT;
  diff.decompress = cml_decompress;
  cml_buffer out = CML_BUFFER_INIT;
  if (cmlpack_models_open(argv[0], NULL, &a, &err)) return failed(argv[0], &err);
  if (cmlpack_models_open(argv[1], NULL, &b, &err)) {
    cmlpack_models_close(&a);
    return failed(argv[1], &err);
  }
  cml_status status = compare(&diff, &a, &b, &err);
  if (!status) status = json ? cml_diff_json(&diff, &out, &err) : cml_diff_text(&diff, &out, &err);
  if (status) code = failed(NULL, &err);
  else cli_put(&out), code = diff.count ? CLI_FAILED : CLI_OK;
  cml_buffer_free(&out);
  cml_diff_free(&diff);
  cmlpack_models_close(&b);
  cmlpack_models_close(&a);
  return code;
}
