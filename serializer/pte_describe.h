/* What an ExecuTorch program is, for people and machines: its methods with their inputs, outputs, memory plans, operators with the
 * number of their calls, and delegates with their compile specs. Nothing of the payloads is read. */
#ifndef CML_PTE_DESCRIBE_H
#define CML_PTE_DESCRIBE_H

#include "buffer.h"
#include "pte.h"

/* Lines of text, appended to `out`. CML_NO_MEMORY. */
CML_API CML_NODISCARD cml_status cml_pte_describe_text(const cml_pte *pte, cml_buffer *out, cml_error *err);
/* One JSON object and a line's end. CML_NO_MEMORY. */
CML_API CML_NODISCARD cml_status cml_pte_describe_json(const cml_pte *pte, cml_buffer *out, cml_error *err);

#endif
