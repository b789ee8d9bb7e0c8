/* Loads a Core ML model from whatever holds it, runs it once with every input filled with ones, and prints the first
 * numbers of each output. Preparing (checking, folding, packing) is done once; sessions then run cheaply, several at a
 * time from several threads if wanted.
 *
 *     cc load_and_run.c $(pkg-config --cflags --libs cml) -o load_and_run && ./load_and_run model.mlpackage */
#include <cml/container.h>
#include <cml/executable.h>
#include <stdio.h>
#include <stdlib.h>

static cml_status fill_inputs(const cml_executable *executable, cml_session *session, cml_error *err) {
  const cml_features *inputs = cml_executable_inputs(executable);
  for (size_t i = 0; i < inputs->count; i++) {
    const cml_feature *f = &inputs->items[i];
    cml_tensor t = {.dtype = CML_F32, .rank = (int32_t)f->rank};
    for (size_t k = 0; k < f->rank; k++) t.dims[k] = f->shape[k];
    if (f->color == CML_COLOR_RGB || f->color == CML_COLOR_BGR) t.dims[t.rank++] = 3; /* height, width, then colours */
    int64_t count = cml_tensor_count(&t);
    float *ones = malloc((size_t)(count + 1) * sizeof *ones);
    if (!ones) return cml_fail_memory(err);
    for (int64_t k = 0; k < count; k++) ones[k] = 1;
    t.data = ones; /* converted to the declared type, and copied */
    cml_status status = cml_session_set_input(session, f->name, &t, err);
    free(ones);
    if (status) return status;
  }
  return CML_OK;
}

static void print_outputs(const cml_executable *executable, const cml_session *session) {
  const cml_features *outputs = cml_executable_outputs(executable);
  for (size_t i = 0; i < outputs->count; i++) {
    const cml_tensor *t = cml_session_output(session, i);
    printf("%s:", outputs->items[i].name);
    for (int64_t k = 0; k < cml_tensor_count(t) && k < 8; k++)
      if (t->dtype == CML_STRING) printf(" %s", ((const cml_string *)t->data)[k].data);
      else printf(" %g", cml_tensor_get(t, k));
    printf("\n");
  }
}

int main(int argc, char **argv) {
  cml_container *container = NULL;
  cml_model *model = NULL;
  cml_executable *executable = NULL;
  cml_session *session = NULL;
  cml_error err;
  if (argc != 2) {
    fprintf(stderr, "usage: load_and_run MODEL\n");
    return 2;
  }
  cml_status status = cml_container_open(argv[1], NULL, &container, &err);
  if (!status && !cml_container_model_count(container))
    status = cml_fail(&err, CML_NOT_FOUND, CML_NO_OFFSET, "there is no Core ML model in it");
  if (!status) { /* one of a .pte's delegates, or the package's only model */
    const cml_container_model *found = cml_container_model_at(container, 0);
    status = cml_model_read(found->tree, found->root, NULL, &model, &err);
    const cml_prepare_options options = {.function = found->function};
    if (!status) status = cml_executable_prepare(model, &options, &executable, &err);
  }
  if (!status) status = cml_session_create(executable, &session, &err);
  if (!status) status = fill_inputs(executable, session, &err);
  if (!status) status = cml_session_run(session, &err);
  if (!status) print_outputs(executable, session);
  else fprintf(stderr, "load_and_run: %s: %s\n", argv[1], err.text);
  cml_session_destroy(session);
  cml_executable_unref(executable);
  cml_model_close(model);
  cml_container_close(container);
  return status != CML_OK;
}
