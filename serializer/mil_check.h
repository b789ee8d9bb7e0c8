/* Whether names make sense: a program's, which every reader of programs checks, and those of a list of named things. */
#ifndef CML_MIL_CHECK_H
#define CML_MIL_CHECK_H

#include "mil.h"

/* Each name is defined once in its scope and before its use; keys do not repeat; each function has a body. */
CML_API CML_NODISCARD cml_status cml_mil_check(const cml_mil_program *program, cml_error *err);
/* Items of `size` bytes that begin with the pointer to their name: no name may be given twice. */
CML_NODISCARD cml_status cml_mil_check_keys(const void *items, size_t count, size_t size, uint64_t offset, cml_error *err);

#endif
