/* Inferred types and printed graphs. Internal to runtime/. */
#ifndef CML_EXEC_TYPES_H
#define CML_EXEC_TYPES_H

#include "exec_graph.h"

/* Fills the unknown dims of an input's type from the feature's default shape; false when some stay unknown or contradict it. */
bool cml_feature_default_type(const cml_feature *f, cml_tensor *type);
/* A function checked and, where the default shapes allow it, planned, but not made ready to run: weights are not packed, and
 * compressed ones of more than a MiB not decompressed. */
CML_NODISCARD cml_status cml_executable_check(cml_model *model, const cml_mil_function *function, cml_executable **out, cml_error *err);
/* The graph, one line an operation: types as inferred, short constants by value. */
void cml_graph_print(const cml_graph *g, cml_buffer *out);

#endif
