/* A model's features (inputs, states, outputs) for people and for programs. */
#ifndef CML_MODEL_IO_H
#define CML_MODEL_IO_H

#include "mil.h"

/* "array fp16 [1, 3, 224..448, 224]", one feature without its name. */
CML_API void cml_feature_text(const cml_feature *feature, cml_buffer *out);
/* One line a feature: its role, name and kind. */
CML_API void cml_model_io_text(const cml_features *inputs, const cml_features *states, const cml_features *outputs, cml_buffer *out);
/* {"type", "specificationVersion", "inputs", "states", "outputs", "functions", "metadata", …}: everything that the
 * description says of how the model is called, as JSON. */
CML_API CML_NODISCARD cml_status cml_model_io_json(const cml_model *model, cml_buffer *out, cml_error *err);

#endif
