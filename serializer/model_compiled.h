/* coremldata.bin of a compiled model. Internal to serializer and its tests. */
#ifndef CML_MODEL_COMPILED_H
#define CML_MODEL_COMPILED_H

#include "mil.h"

/* Fills type, specification version, description and rest of a zeroed model (whose arena may have a limit). */
CML_API CML_NODISCARD cml_status cml_model_parse_compiled(cml_span bytes, cml_model *model, cml_error *err);

#endif
