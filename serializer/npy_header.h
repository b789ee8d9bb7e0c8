/* Between npy.c and npz.c: a .npy header for any NumPy type string. Internal. */
#ifndef CML_NPY_HEADER_H
#define CML_NPY_HEADER_H

#include "buffer.h"

void cml_npy_header_descr(const char *descr, size_t rank, const int64_t *dims, cml_buffer *out);

#endif
