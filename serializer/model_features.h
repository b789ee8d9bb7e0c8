/* The ModelDescription message: features and metadata. Internal to serializer. */
#ifndef CML_MODEL_FEATURES_H
#define CML_MODEL_FEATURES_H

#include "mil.h"

/* Fills the description's part of the model; texts and shapes go to its arena. origin: where offsets in errors count from. */
cml_status cml_model_parse_description(cml_span bytes, const uint8_t *origin, cml_model *model, cml_error *err);

#endif
