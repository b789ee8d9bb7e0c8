/* Whether two programs are the same, and where they first differ. */
#ifndef CML_MIL_EQUAL_H
#define CML_MIL_EQUAL_H

#include "mil.h"

/* Equal: the same functions with the same inputs, opsets, operations in the same order, names, types and values. The order
 * of named maps (functions, inputs, attributes) does not matter, nor does where a value is stored (inline or blob, when
 * bound; unbound blobs compare by file and offset). What tools stamp on a program is not compared: the program's own
 * attributes (buildInfo), docs, the program's version, unknown fields. difference (may be NULL): one line, e.g.
 * "function main, operation y (conv): input strides differs". */
CML_API bool cml_mil_program_equal(const cml_mil_program *a, const cml_mil_program *b, cml_buffer *difference);
/* Types and elements are equal. */
CML_API bool cml_mil_value_equal(const cml_mil_value *a, const cml_mil_value *b);

#endif
