/* Graphs for certain input shapes, and which one a session runs. Internal to runtime/. */
#ifndef CML_EXEC_VARIANTS_H
#define CML_EXEC_VARIANTS_H

#include "exec_graph.h"

/* Whether inputs (by position of the function's inputs; states are passed over) have these shapes. */
bool cml_executable_same_shapes(const cml_executable *e, const cml_tensor *shapes, const cml_slot *inputs);
/* The shapes of inputs, without data, for free(); NULL for want of memory. */
cml_tensor *cml_executable_shapes(const cml_executable *e, const cml_slot *inputs);
/* An empty graph of the executable. */
void cml_variant_begin(cml_executable *e, cml_variant *v);
/* A variant for these shapes, NULL when there can be none; prepared and planned, or only built and then not to be run. While nobody
 * else uses the executable. */
cml_variant *cml_variant_create(cml_executable *e, const cml_tensor *shapes, bool to_run);
/* While nobody else uses the executable. */
CML_NODISCARD cml_status cml_variant_prepare_general(cml_executable *e, cml_error *err);
/* Frees all graphs, the general one too. */
void cml_variants_free(cml_executable *e);
/* What runs with these inputs; `repeated`: the run before had the same shapes. Any thread may call it. */
CML_NODISCARD cml_status cml_executable_variant(cml_executable *e, const cml_slot *inputs, bool repeated, const cml_variant **out, cml_error *err);

#endif
