/* The graph of a function: nodes are its inputs, outputs and operations other than constants; edges follow names. */
#include "mil_graph.h"

#include <stdlib.h>

#include "mil_names.h"

/* ---- building ---- */

typedef struct building {
  cml_mil_names names;
  size_t *node_of; /* by slot of names */
  cml_arena *arena;
  cml_graph g;
  size_t node_capacity, edge_capacity;
} building;

static bool is_constant(const cml_mil_op *op) { return !strcmp(op->type, "const") || !strncmp(op->type, "constexpr_", 10); }

static void *grown(cml_arena *arena, void *items, size_t count, size_t *capacity, size_t size) {
  if (count < *capacity) return items;
  size_t next = *capacity ? *capacity * 2 : 32;
  void *more = cml_arena_array(arena, next, size);
  if (more && count) memcpy(more, items, count * size);
  if (more) *capacity = next;
  return more;
}

static bool add_node(building *b, cml_graph_node node) {
  cml_graph_node *nodes = grown(b->arena, b->g.nodes, b->g.node_count, &b->node_capacity, sizeof node);
  if (!nodes) return false;
  b->g.nodes = nodes;
  nodes[b->g.node_count++] = node;
  return true;
}

static void define(building *b, const char *name, size_t node) {
  const cml_mil_definition *d = cml_mil_names_find(&b->names, name);
  if (d) b->node_of[d - b->names.slots] = node;
}

static bool add_edge(building *b, const char *name, size_t to) {
  const cml_mil_definition *d = cml_mil_names_find(&b->names, name);
  size_t from = d ? b->node_of[d - b->names.slots] : CML_GRAPH_NONE;
  if (from == CML_GRAPH_NONE || from == to) return true;
  cml_graph_edge *edges = grown(b->arena, b->g.edges, b->g.edge_count, &b->edge_capacity, sizeof *edges);
  if (!edges) return false;
  b->g.edges = edges;
  edges[b->g.edge_count++] = (cml_graph_edge){from, to};
  return true;
}

static bool add_block(building *b, const cml_mil_block *block, size_t parent);

static bool add_op(building *b, const cml_mil_op *op, size_t parent) {
  size_t node = b->g.node_count;
  if (is_constant(op)) return true;
  if (!add_node(b, (cml_graph_node){op, false, cml_mil_op_name(op), op->output_count ? op->outputs[0].type : NULL, parent})) return false;
  for (size_t i = 0; i < op->input_count; i++)
    for (size_t j = 0; j < op->inputs[i].count; j++)
      if (!add_edge(b, op->inputs[i].bindings[j].name, node)) return false;
  for (size_t i = 0; i < op->block_count; i++)
    if (!add_block(b, op->blocks[i], node)) return false;
  for (size_t i = 0; i < op->output_count; i++) define(b, op->outputs[i].name, node);
  return true;
}

static bool add_block(building *b, const cml_mil_block *block, size_t parent) {
  for (size_t i = 0; i < block->op_count; i++)
    if (!add_op(b, block->ops[i], parent)) return false;
  return true;
}

static int edge_order(const void *a, const void *b) {
  const cml_graph_edge *x = a, *y = b;
  if (x->from != y->from) return x->from < y->from ? -1 : 1;
  return x->to < y->to ? -1 : x->to > y->to;
}

void cml_graph_sort_edges(cml_graph *g) {
  size_t kept = 0;
  if (g->edge_count) qsort(g->edges, g->edge_count, sizeof *g->edges, edge_order);
  for (size_t i = 0; i < g->edge_count; i++)
    if (!kept || edge_order(&g->edges[kept - 1], &g->edges[i]) != 0) g->edges[kept++] = g->edges[i];
  g->edge_count = kept;
}

cml_status cml_graph_build(const cml_mil_function *function, cml_arena *arena, cml_graph *out, cml_error *err) {
  const cml_mil_block *body = cml_mil_body(function);
  building b = {.arena = arena};
  if (!body) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "function %s has no body", function->name);
  CML_TRY(cml_mil_names_build(&b.names, arena, function, body, err)); /* bounds the depth of what follows */
  if (!(b.node_of = cml_arena_array(arena, b.names.capacity, sizeof *b.node_of))) return cml_fail_memory(err);
  for (size_t i = 0; i < b.names.capacity; i++) b.node_of[i] = CML_GRAPH_NONE;
  bool ok = true;
  for (size_t i = 0; i < function->input_count && ok; i++) {
    const cml_mil_named *input = &function->inputs[i];
    define(&b, input->name, b.g.node_count);
    ok = add_node(&b, (cml_graph_node){NULL, false, input->name, input->type, CML_GRAPH_NONE});
  }
  ok = ok && add_block(&b, body, CML_GRAPH_NONE);
  for (size_t i = 0; i < body->output_count && ok; i++) {
    const cml_mil_definition *d = cml_mil_names_find(&b.names, body->outputs[i]);
    ok = add_edge(&b, body->outputs[i], b.g.node_count) &&
         add_node(&b, (cml_graph_node){NULL, true, body->outputs[i], d ? d->type : NULL, CML_GRAPH_NONE});
  }
  if (!ok) return cml_fail_memory(err);
  cml_graph_sort_edges(&b.g);
  *out = b.g;
  return CML_OK;
}

/* ---- Graphviz ---- */

static void quote(cml_buffer *out, const char *text) {
  for (; text && *text; text++) {
    if (*text == '"' || *text == '\\') cml_buffer_char(out, '\\');
    cml_buffer_char(out, (unsigned char)*text < 0x20 ? ' ' : *text);
  }
}

static void print_node(cml_buffer *out, const cml_graph_node *n, size_t id) {
  cml_buffer_printf(out, "  n%zu [label=\"", id);
  if (n->op) {
    quote(out, n->op->type);
    cml_buffer_text(out, "\\n");
  }
  quote(out, n->name);
  if (n->type) {
    cml_buffer_text(out, "\\n");
    cml_mil_type_print(n->type, out);
  }
  cml_buffer_text(out, n->op ? "\"];\n" : "\", shape=oval, style=filled, fillcolor=\"#e8eef7\"];\n");
}

/* Prints the nodes [i, …) whose parent is `parent`, clusters and all; returns the first that is not. */
static size_t print_nodes(cml_buffer *out, const cml_graph *g, size_t i, size_t parent) {
  while (i < g->node_count && g->nodes[i].parent == parent) {
    print_node(out, &g->nodes[i], i);
    size_t id = i++;
    if (i < g->node_count && g->nodes[i].parent == id) {
      cml_buffer_printf(out, "  subgraph cluster_%zu { style=dashed;\n", id);
      i = print_nodes(out, g, i, id);
      cml_buffer_text(out, "  }\n");
    }
  }
  return i;
}

cml_status cml_graph_dot(const cml_mil_function *function, cml_buffer *out, cml_error *err) {
  cml_arena arena = CML_ARENA_INIT;
  cml_graph g;
  cml_status status = cml_graph_build(function, &arena, &g, err);
  if (!status) {
    cml_buffer_text(out, "digraph \"");
    quote(out, function->name);
    cml_buffer_text(out, "\" {\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];\n");
    print_nodes(out, &g, 0, CML_GRAPH_NONE);
    for (size_t i = 0; i < g.edge_count; i++) cml_buffer_printf(out, "  n%zu -> n%zu;\n", g.edges[i].from, g.edges[i].to);
    cml_buffer_text(out, "}\n");
    status = cml_buffer_check(out, err);
  }
  cml_arena_free(&arena);
  return status;
}
