/* A program's graph for people: as Graphviz text of any size, or drawn as SVG when it is small. */
#ifndef CML_MIL_GRAPH_H
#define CML_MIL_GRAPH_H

#include "mil.h"

/* Graphviz's language; nested blocks are clusters. Constants are left out. */
CML_API CML_NODISCARD cml_status cml_graph_dot(const cml_mil_function *function, cml_buffer *out, cml_error *err);
/* Whether cml_graph_svg would draw the function: no more than a few hundred operations and not too many long edges. */
CML_API bool cml_graph_is_small(const cml_mil_function *function);
/* Layers from the inputs down to the outputs; an operation with nested blocks is one box. CML_LIMIT when it is not small. */
CML_API CML_NODISCARD cml_status cml_graph_svg(const cml_mil_function *function, cml_buffer *out, cml_error *err);

/* ---- the graph itself, for other drawings ---- */

#define CML_GRAPH_NONE SIZE_MAX

typedef struct cml_graph_node {
  const cml_mil_op *op;      /* NULL for an input or output of the function */
  bool is_output;
  const char *name;
  const cml_mil_type *type;  /* of its first output, or NULL */
  size_t parent;             /* the node whose block holds it, or CML_GRAPH_NONE */
} cml_graph_node;

typedef struct cml_graph_edge { size_t from, to; } cml_graph_edge;

typedef struct cml_graph {
  cml_graph_node *nodes; /* inputs, operations in order (an operation stands before those nested in it), outputs */
  size_t node_count;
  cml_graph_edge *edges; /* sorted, each once; from an operation, or from one nested in it, to an operation */
  size_t edge_count;
} cml_graph;

CML_API CML_NODISCARD cml_status cml_graph_build(const cml_mil_function *function, cml_arena *arena, cml_graph *out, cml_error *err);
/* Sorts edges and drops repeats, after a caller has changed them. */
CML_API void cml_graph_sort_edges(cml_graph *graph);

#endif
