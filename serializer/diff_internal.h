/* What the parts of diff share. */
#ifndef CML_DIFF_INTERNAL_H
#define CML_DIFF_INTERNAL_H

#include "diff.h"

/* Adds an entry whose words are printed into it. */
cml_status cml_diff_note(cml_diff *diff, cml_diff_section section, char change, const char *where, cml_error *err, const char *format, ...)
    CML_PRINTF(6, 7);
cml_status cml_diff_programs(cml_diff *diff, const char *where, const cml_mil_program *a, const cml_mil_program *b, cml_error *err);

#endif
