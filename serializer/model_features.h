/* The ModelDescription message: features and metadata. Internal to serializer. */
#ifndef CML_MODEL_FEATURES_H
#define CML_MODEL_FEATURES_H

#include "mil.h"

/* Fills the description's part of the model; texts and shapes go to its arena. origin: where offsets in errors count from. */
cml_status cml_model_parse_description(cml_span bytes, const uint8_t *origin, cml_model *model, cml_error *err);

/* The description as the model now says it, appended: `old` (a ModelDescription message, or nothing) with what was edited since. */
cml_status cml_model_write_description(const cml_model *model, cml_span old, cml_buffer *out, cml_error *err);

/* Takes a copy of a description: the model's specification version, features and `rest` are then as if a Model message had held it. */
cml_status cml_model_set_description(cml_model *model, int32_t version, cml_span bytes, cml_error *err);
/* Describes the program by the types of its function `main` (or the first). */
cml_status cml_model_derive_description(cml_model *model, cml_error *err);

#endif
