/* Opens whatever holds a model and prepares it. */
#include "cmlrun.h"

#include <sys/stat.h>

static cml_status open_file(const char *path, cml_tree **tree, const cml_node **root, cml_error *err) {
  cml_mapping *mapping = NULL;
  cml_node *node = NULL;
  CML_TRY(cml_mapping_open(path, &mapping, err));
  cml_span span = cml_mapping_span(mapping);
  cml_piece piece = {span.data, span.size, mapping, 0};
  cml_status status = cml_tree_create("", tree, err);
  if (!status) status = cml_tree_add_file(*tree, cml_tree_root_mutable(*tree), "model.mlmodel", 13, &piece, 1, &node, err);
  cml_mapping_unref(mapping);
  *root = node;
  return status;
}

cml_status cmlrun_open(const char *path, const cmlrun_options *options, cmlrun_model *out, cml_error *err) {
  struct stat st;
  const cml_node *root = NULL;
  cml_status status;
  *out = (cmlrun_model){NULL};
  if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
    status = cml_tree_from_folder(path, NULL, &out->tree, err);
    if (!status) root = cml_tree_root(out->tree);
  } else {
    status = open_file(path, &out->tree, &root, err);
  }
  if (!status) status = cml_model_read(out->tree, root, NULL, &out->model, err);
  const cml_prepare_options prepare = {.function = options->function, .passes = options->passes, .threads = options->threads};
  if (!status) status = cml_executable_prepare(out->model, &prepare, &out->executable, err);
  if (status) cmlrun_close(out);
  return status;
}

void cmlrun_close(cmlrun_model *m) {
  cml_executable_unref(m->executable);
  cml_model_close(m->model);
  cml_tree_unref(m->tree);
  *m = (cmlrun_model){NULL};
}
