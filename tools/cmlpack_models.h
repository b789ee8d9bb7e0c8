/* The models in a file, for the commands that look into them. */
#ifndef CML_CMLPACK_MODELS_H
#define CML_CMLPACK_MODELS_H

#include "cli.h"
#include "container.h"
#include "mil.h"

typedef struct cmlpack_model {
  char *name; /* "forward/coreml_0" within an ExecuTorch program, else "" */
  cml_model *model;
} cmlpack_model;

typedef struct cmlpack_models {
  cml_container *container;
  cmlpack_model *items;
  size_t count;
} cmlpack_models;

/* Opens a file and reads every model in it. On failure there is nothing to close. */
cml_status cmlpack_models_open(const char *path, const cml_model_options *options, cmlpack_models *out, cml_error *err);
void cmlpack_models_close(cmlpack_models *models);

#endif
