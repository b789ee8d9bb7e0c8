/* Where memory runs out, jansson may speak of bad syntax, and may even succeed with a part of a text left out; malloc's errno
 * tells. */
#include "json_read.h"

#include <errno.h>
#include <stdlib.h>

cml_status cml_json_parse(cml_span text, size_t flags, const char *what, json_t **out, cml_error *err) {
  json_error_t problem;
  errno = 0;
  json_t *json = json_loadb(text.size ? (const char *)text.data : "", text.size, flags, &problem);
  if (errno == ENOMEM) {
    json_decref(json);
    return cml_fail_memory(err);
  }
  if (!json)
    return cml_fail(err, CML_INVALID, problem.position < 0 ? CML_NO_OFFSET : (uint64_t)problem.position, "%s is not JSON: %s", what,
                    problem.text);
  *out = json;
  return CML_OK;
}

cml_status cml_json_print(const json_t *json, size_t flags, char **out, cml_error *err) {
  errno = 0;
  char *text = json_dumps(json, flags);
  if (!text || errno == ENOMEM) {
    free(text);
    return cml_fail_memory(err);
  }
  *out = text;
  return CML_OK;
}
