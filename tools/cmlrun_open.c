/* Opens whatever holds a model and prepares it. */
#include "cmlrun_program.h"

#include <string.h>

#include "kernels.h"

/* The model of the wanted method; without one, the only model there is. */
static cml_status choose_model(const cml_container *c, const char *method, const cml_container_model **out, cml_error *err) {
  size_t count = cml_container_model_count(c), fitting = 0;
  for (size_t i = 0; i < count; i++) {
    const cml_container_model *m = cml_container_model_at(c, i);
    if (method && strcmp(m->method, method)) continue;
    *out = m;
    fitting++;
  }
  if (fitting == 1) return CML_OK;
  if (!count) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "there is no Core ML model in it");
  if (!fitting) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "no model belongs to a method '%s'", method);
  return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "there are %zu models in it: name one with --method", fitting);
}

static struct {
  const char *path;
  cml_container *container;
} looked_into;

cml_container *cmlrun_take(const char *path) {
  bool same = looked_into.container && !strcmp(looked_into.path, path);
  cml_container *c = same ? looked_into.container : NULL;
  if (same) looked_into.container = NULL;
  return c;
}

const cml_container *cmlrun_look_into(const char *path) {
  if (looked_into.container && !strcmp(looked_into.path, path)) return looked_into.container;
  cml_container_close(looked_into.container);
  looked_into.container = NULL;
  looked_into.path = path;
  return cml_container_open(path, NULL, &looked_into.container, NULL) ? NULL : looked_into.container;
}

cml_status cmlrun_open(const char *path, const cmlrun_options *options, bool at_first_run, cmlrun_model *out, cml_error *err) {
  const cml_container_options where = {.data_path = options->data.count ? options->data.items[0] : NULL};
  const cml_container_model *chosen = NULL;
  *out = (cmlrun_model){NULL};
  if (!options->data.count) out->container = cmlrun_take(path);
  cml_status status = out->container ? CML_OK : cml_container_open(path, &where, &out->container, err);
  if (!status) status = choose_model(out->container, options->method, &chosen, err);
  if (!status) status = cml_model_read(chosen->tree, chosen->root, NULL, &out->model, err);
  if (!status) {
    const char *function = options->function ? options->function : chosen->function;
    const cml_prepare_options prepare = {.function = function, .passes = options->passes, .threads = options->threads, .cache = options->cache,
                                         .max_memory = options->max_memory, .at_first_run = at_first_run};
    status = cml_executable_prepare(out->model, &prepare, &out->executable, err);
  }
  if (status) cmlrun_close(out);
  return status;
}

int cmlrun_choose_kernels(const cmlrun_options *options) {
  cml_error err;
  return cml_kernels_use(options->kernels, &err) ? cli_usage_error("%s", err.text) : CLI_GO_ON;
}

void cmlrun_close(cmlrun_model *m) {
  cmlrun_stops(NULL, NULL);
  cml_executable_unref(m->executable);
  cml_model_close(m->model);
  cml_container_close(m->container);
  *m = (cmlrun_model){NULL};
}
