/* amx_tile.c with its instructions in C: cml_fill_parts_model. */
#include "kernels.h"

void cml_fill_parts_model(cml_kernels *k, bool native);

#define CML_AMX_MODEL
#include "../../runtime/kernels/amx_tile.c"
