/* Whether a program's names make sense. Internal to serializer; every reader of programs calls it. */
#ifndef CML_MIL_CHECK_H
#define CML_MIL_CHECK_H

#include "mil.h"

/* Each name is defined once in its scope and before its use; keys do not repeat; each function has a body. */
CML_API CML_NODISCARD cml_status cml_mil_check(const cml_mil_program *program, cml_error *err);

#endif
