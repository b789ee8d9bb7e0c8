/* Every check that cml knows, over one container: what opening refuses, and what it lets pass but a reader elsewhere may
 * not: overlaps, gaps, missing and left-over items, blobs that nothing refers to, names that do not agree. */
#ifndef CML_VERIFY_H
#define CML_VERIFY_H

#include "container.h"

typedef enum cml_severity {
  CML_SEVERITY_NOTE,    /* unusual, harms nobody */
  CML_SEVERITY_WARNING, /* some reader may stumble over it */
  CML_SEVERITY_ERROR,   /* broken */
} cml_severity;

typedef struct cml_finding {
  cml_severity severity;
  const char *path;   /* in the view; "" for the file itself */
  uint64_t offset;    /* in the file that `path` names, or in the container for ""; CML_NO_OFFSET when there is none */
  const char *text;   /* what is wrong; one line */
  const char *advice; /* what to do about it; one line, or "" */
} cml_finding;

typedef struct cml_verify_result {
  size_t errors, warnings, notes;
  const char *kind; /* of the container; NULL when it could not be opened */
} cml_verify_result;

CML_API const char *cml_severity_name(cml_severity severity); /* "error", "warning", "note" */

/* Calls `report` for every finding; its strings live as long as the call. A container that cannot be opened is one finding.
 * options may be NULL. Fails only for want of memory. */
CML_API CML_NODISCARD cml_status cml_verify(const char *path, const cml_container_options *options,
                                            void (*report)(void *context, const cml_finding *finding), void *context,
                                            cml_verify_result *out, cml_error *err);

#endif
