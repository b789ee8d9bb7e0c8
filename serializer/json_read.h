/* JSON text in a file, read with jansson, with our errors. */
#ifndef CML_JSON_READ_H
#define CML_JSON_READ_H

#include <jansson.h>

#include "span.h"

/* flags: jansson's, for decoding. what: the text's name in errors ("Manifest.json"). CML_INVALID with the offset in the text. The
 * caller releases *out with json_decref. */
cml_status cml_json_parse(cml_span text, size_t flags, const char *what, json_t **out, cml_error *err);
/* As text, NUL-terminated, which the caller frees. */
cml_status cml_json_print(const json_t *json, size_t flags, char **out, cml_error *err);

#endif
