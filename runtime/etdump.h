/* ETDump: what a run did, in the file that ExecuTorch's Inspector reads: when each instruction and each operation within a
 * delegate ran and, on request, what instructions gave. */
#ifndef CML_ETDUMP_H
#define CML_ETDUMP_H

#include "et_program.h"

typedef struct cml_etdump cml_etdump;

/* values: keep what instructions, and operations within delegates, give: for cml_etdump_values. */
CML_API CML_NODISCARD cml_status cml_etdump_create(bool values, cml_etdump **out, cml_error *err);
CML_API void cml_etdump_destroy(cml_etdump *dump); /* NULL is accepted */
/* A cml_et_observe; the context is the cml_etdump. */
CML_API void cml_etdump_observe(void *dump, const cml_et_event *event);
/* Around each run: the events between them are one block of the file. */
CML_API void cml_etdump_begin(cml_etdump *dump);
/* Before the end, where values are kept: the method's outputs, which the Inspector compares with those of a reference. */
CML_API void cml_etdump_outputs(cml_etdump *dump, const cml_et_method *method);
CML_API void cml_etdump_end(cml_etdump *dump);
/* The file; CML_NO_MEMORY when an event was lost. Call once. */
CML_API CML_NODISCARD cml_status cml_etdump_write(cml_etdump *dump, cml_sink sink, cml_error *err);
/* The values, to which the file's debug events point by offset (the Inspector's debug buffer). */
CML_API cml_span cml_etdump_values(const cml_etdump *dump);

#endif
