/* amx_bytes.c with its instructions in C: cml_fill_bytes_model. */
#include "kernels.h"

void cml_fill_bytes_model(cml_kernels *k);

#define CML_AMX_MODEL
#include "../../runtime/kernels/amx_bytes.c"
