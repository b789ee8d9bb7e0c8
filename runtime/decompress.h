/* A compressed constant, decompressed, for views and comparisons. */
#ifndef CML_DECOMPRESS_H
#define CML_DECOMPRESS_H

#include "mil.h"

/* Appends the elements of a constexpr_ operation's output, packed as its type says. op: one of the function's body, whose
 * blobs are bound. Runs it, and the constants that it needs, as a program of its own. Fits cml_model_decompress (model_view.h). */
CML_API CML_NODISCARD cml_status cml_decompress(const cml_mil_op *op, const cml_mil_function *function, cml_buffer *out, cml_error *err);

#endif
