/* Reads all models of a container; functions that share one package are one model. */
#include "cmlpack_models.h"

#include <stdlib.h>
#include <string.h>

static bool known(const cmlpack_models *models, const cml_node *root) {
  for (size_t i = 0; i < models->count; i++)
    if (models->items[i].model->root == root) return true;
  return false;
}

static char *name_of(const cml_container_model *m) {
  char name[600];
  if (!m->method || !*m->method) return strdup("");
  snprintf(name, sizeof name, "%.500s/coreml_%zu", m->method, m->delegate);
  return strdup(name);
}

static cml_status read_models(const cml_model_options *options, cmlpack_models *models, cml_error *err) {
  size_t count = cml_container_model_count(models->container);
  models->items = calloc(count + 1, sizeof *models->items);
  if (!models->items) return cml_fail_memory(err);
  for (size_t i = 0; i < count; i++) {
    const cml_container_model *m = cml_container_model_at(models->container, i);
    if (known(models, m->root)) continue;
    cmlpack_model *item = &models->items[models->count];
    if (!(item->name = name_of(m))) return cml_fail_memory(err);
    cml_status status = cml_model_read(m->tree, m->root, options, &item->model, err);
    if (status && *item->name) cml_error_prefix(err, status, "%s", item->name);
    if (status) {
      free(item->name);
      return status;
    }
    models->count++;
  }
  return CML_OK;
}

cml_status cmlpack_models_open(const char *path, const cml_model_options *options, cmlpack_models *out, cml_error *err) {
  *out = (cmlpack_models){NULL, NULL, 0};
  const cml_container_options where = {.only_exact = true};
  cml_status status = cml_container_open(path, &where, &out->container, err);
  if (!status) status = read_models(options, out, err);
  if (status) cmlpack_models_close(out);
  return status;
}

void cmlpack_models_close(cmlpack_models *models) {
  for (size_t i = 0; i < models->count; i++) {
    cml_model_close(models->items[i].model);
    free(models->items[i].name);
  }
  free(models->items);
  cml_container_close(models->container);
  *models = (cmlpack_models){NULL, NULL, 0};
}
