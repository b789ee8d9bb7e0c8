/* Draws a small graph in layers (Sugiyama, Tagawa, Toda 1981), in four steps:
 *
 *   1. a node's layer is one below the lowest of its sources (the program's order is topological, so one pass does);
 *   2. an edge over several layers is cut by a dummy in each layer between, so that it is routed past the boxes;
 *   3. within a layer nodes are sorted by the mean position of their neighbours, a few sweeps down and up;
 *   4. a few more sweeps move each node towards its neighbours' centre, as far as those beside it allow. */
#include "mil_graph.h"

#include <stdlib.h>

enum { MAX_NODES = 400, MAX_SPOTS = 8000, SWEEPS = 8, BOX_HEIGHT = 48, LAYER_HEIGHT = 84, GAP = 18, MARGIN = 16, DUMMY_WIDTH = 8, TEXT = 30 };

/* A place in a layer: a box, or a dummy on a long edge. */
typedef struct spot {
  size_t node; /* CML_GRAPH_NONE for a dummy */
  size_t layer, order;
  double width, x, key; /* x: of the centre */
} spot;

typedef struct link { size_t from, to; } link; /* between spots in neighbouring layers */

typedef struct drawing {
  cml_graph g;
  spot *spots;
  size_t spot_count;
  link *links;
  size_t link_count;
  size_t *ordered, *starts; /* spots by layer and order; where each layer starts in that */
  size_t layer_count;
} drawing;

/* ---- the flat graph ---- */

static size_t top_of(const cml_graph *g, size_t node) {
  while (g->nodes[node].parent != CML_GRAPH_NONE) node = g->nodes[node].parent;
  return node;
}

/* Edges of nested operations become those of the operation that holds them. */
static void flatten(cml_graph *g) {
  size_t kept = 0;
  for (size_t i = 0; i < g->edge_count; i++) {
    cml_graph_edge e = {top_of(g, g->edges[i].from), top_of(g, g->edges[i].to)};
    if (e.from < e.to) g->edges[kept++] = e;
  }
  g->edge_count = kept;
  cml_graph_sort_edges(g);
}

static double label_width(const cml_graph_node *n) {
  size_t longest = strlen(n->name) < TEXT ? strlen(n->name) : TEXT;
  if (n->op && strlen(n->op->type) > longest) longest = strlen(n->op->type) < TEXT ? strlen(n->op->type) : TEXT;
  if (n->type && longest < 24) longest = 24;
  return 16 + 6.2 * (double)longest;
}

/* Longest path from the inputs; outputs all go to the last layer. */
static size_t assign_layers(const cml_graph *g, size_t *layers) {
  size_t last = 0, at = 0;
  for (size_t i = 0; i < g->node_count; i++) { /* edges are sorted by source, sources come in order */
    while (at < g->edge_count && g->edges[at].from < i) at++;
    for (size_t e = at; e < g->edge_count && g->edges[e].from == i; e++)
      if (layers[g->edges[e].to] <= layers[i]) layers[g->edges[e].to] = layers[i] + 1;
    if (layers[i] > last && g->nodes[i].parent == CML_GRAPH_NONE) last = layers[i];
  }
  for (size_t i = 0; i < g->node_count; i++)
    if (g->nodes[i].is_output) layers[i] = last;
  return last + 1;
}

/* ---- spots and links ---- */

static bool measure(const cml_graph *g, const size_t *layers, size_t *spots, size_t *links) {
  *spots = *links = 0;
  for (size_t i = 0; i < g->node_count; i++) *spots += g->nodes[i].parent == CML_GRAPH_NONE;
  for (size_t i = 0; i < g->edge_count; i++) {
    size_t span = layers[g->edges[i].to] - layers[g->edges[i].from];
    *links += span;
    *spots += span - 1;
    if (*spots > MAX_SPOTS) return false;
  }
  return true;
}

static void cut_edge(drawing *d, size_t from, size_t to) {
  size_t last = from;
  for (size_t layer = d->spots[from].layer + 1; layer < d->spots[to].layer; layer++) {
    d->spots[d->spot_count] = (spot){CML_GRAPH_NONE, layer, 0, DUMMY_WIDTH, 0, 0};
    d->links[d->link_count++] = (link){last, d->spot_count};
    last = d->spot_count++;
  }
  d->links[d->link_count++] = (link){last, to};
}

static bool make_spots(drawing *d, cml_arena *arena) {
  const cml_graph *g = &d->g;
  size_t *layers = CML_ARENA_NEW_ARRAY(arena, size_t, g->node_count), *spot_of = CML_ARENA_NEW_ARRAY(arena, size_t, g->node_count);
  size_t spots, links;
  if (!layers || !spot_of) return false;
  d->layer_count = assign_layers(g, layers);
  if (!measure(g, layers, &spots, &links)) return false;
  d->spots = CML_ARENA_NEW_ARRAY(arena, spot, spots);
  d->links = CML_ARENA_NEW_ARRAY(arena, link, links);
  d->ordered = CML_ARENA_NEW_ARRAY(arena, size_t, spots);
  d->starts = CML_ARENA_NEW_ARRAY(arena, size_t, d->layer_count + 1);
  if (!d->spots || !d->links || !d->ordered || !d->starts) return false;
  for (size_t i = 0; i < g->node_count; i++) {
    if (g->nodes[i].parent != CML_GRAPH_NONE) continue;
    spot_of[i] = d->spot_count;
    d->spots[d->spot_count++] = (spot){i, layers[i], 0, label_width(&g->nodes[i]), 0, 0};
  }
  for (size_t i = 0; i < g->edge_count; i++) cut_edge(d, spot_of[g->edges[i].from], spot_of[g->edges[i].to]);
  return true;
}

/* ---- order within layers ---- */

static void fill_layers(drawing *d) {
  size_t at = 0;
  for (size_t layer = 0; layer < d->layer_count; layer++) {
    d->starts[layer] = at;
    for (size_t i = 0; i < d->spot_count; i++)
      if (d->spots[i].layer == layer) d->spots[i].order = at - d->starts[layer], d->ordered[at++] = i;
  }
  d->starts[d->layer_count] = at;
}

/* Mean of a field over a spot's neighbours above (down) or below; `otherwise` when it has none. */
static void neighbour_means(drawing *d, bool down, bool positions, double *sums, unsigned *counts) {
  memset(sums, 0, d->spot_count * sizeof *sums);
  memset(counts, 0, d->spot_count * sizeof *counts);
  for (size_t i = 0; i < d->link_count; i++) {
    size_t me = down ? d->links[i].to : d->links[i].from, other = down ? d->links[i].from : d->links[i].to;
    sums[me] += positions ? d->spots[other].x : (double)d->spots[other].order;
    counts[me]++;
  }
}

static void sort_layer(drawing *d, size_t layer) { /* insertion: stable, and nearly sorted after the first sweep */
  size_t *row = d->ordered + d->starts[layer], n = d->starts[layer + 1] - d->starts[layer];
  for (size_t i = 1; i < n; i++)
    for (size_t j = i; j > 0 && d->spots[row[j]].key < d->spots[row[j - 1]].key; j--) {
      size_t kept = row[j];
      row[j] = row[j - 1];
      row[j - 1] = kept;
    }
  for (size_t i = 0; i < n; i++) d->spots[row[i]].order = i;
}

static void order_layers(drawing *d, double *sums, unsigned *counts) {
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    bool down = !(sweep & 1);
    for (size_t k = 0; k < d->layer_count; k++) {
      size_t layer = down ? k : d->layer_count - 1 - k;
      neighbour_means(d, down, false, sums, counts);
      for (size_t i = d->starts[layer]; i < d->starts[layer + 1]; i++) {
        spot *s = &d->spots[d->ordered[i]];
        s->key = counts[d->ordered[i]] ? sums[d->ordered[i]] / counts[d->ordered[i]] : (double)s->order;
      }
      sort_layer(d, layer);
    }
  }
}

/* ---- coordinates ---- */

static double apart(const spot *a, const spot *b) { return (a->width + b->width) / 2 + GAP; }

/* Places a layer so that each spot is as near to its key as the order allows: pushed right, then all moved back by the mean push. */
static void place_layer(drawing *d, size_t layer) {
  size_t *row = d->ordered + d->starts[layer], n = d->starts[layer + 1] - d->starts[layer];
  double pushed = 0;
  for (size_t i = 0; i < n; i++) {
    spot *s = &d->spots[row[i]];
    double least = i ? d->spots[row[i - 1]].x + apart(&d->spots[row[i - 1]], s) : s->key;
    s->x = s->key > least ? s->key : least;
    pushed += s->x - s->key;
  }
  for (size_t i = 0; i < n; i++) d->spots[row[i]].x -= pushed / (double)n;
}

static void place(drawing *d, double *sums, unsigned *counts) {
  for (size_t layer = 0; layer < d->layer_count; layer++) {
    for (size_t i = d->starts[layer]; i < d->starts[layer + 1]; i++) d->spots[d->ordered[i]].key = 0;
    if (d->starts[layer + 1] > d->starts[layer]) place_layer(d, layer);
  }
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    bool down = !(sweep & 1);
    for (size_t k = 0; k < d->layer_count; k++) {
      size_t layer = down ? k : d->layer_count - 1 - k;
      neighbour_means(d, down, true, sums, counts);
      for (size_t i = d->starts[layer]; i < d->starts[layer + 1]; i++) {
        size_t id = d->ordered[i];
        d->spots[id].key = counts[id] ? sums[id] / counts[id] : d->spots[id].x;
      }
      if (d->starts[layer + 1] > d->starts[layer]) place_layer(d, layer);
    }
  }
}

/* ---- SVG ---- */

static void escape(cml_buffer *out, const char *text, size_t most) {
  for (size_t i = 0; text[i]; i++) {
    if (i >= most && (text[i] & 0xc0) != 0x80) {
      cml_buffer_text(out, "\xe2\x80\xa6");
      return;
    }
    unsigned char c = (unsigned char)text[i];
    if (c == '<') cml_buffer_text(out, "&lt;");
    else if (c == '>') cml_buffer_text(out, "&gt;");
    else if (c == '&') cml_buffer_text(out, "&amp;");
    else cml_buffer_char(out, c < 0x20 ? ' ' : (char)c);
  }
}

static void draw_line(cml_buffer *out, double x, double y, const char *style, const char *text) {
  cml_buffer_printf(out, "<text x=\"%.1f\" y=\"%.1f\"%s>", x, y, style);
  escape(out, text, TEXT);
  cml_buffer_text(out, "</text>\n");
}

static void draw_box(cml_buffer *out, const drawing *d, const spot *s, double left) {
  const cml_graph_node *n = &d->g.nodes[s->node];
  double x = s->x - left, y = MARGIN + (double)s->layer * LAYER_HEIGHT;
  cml_buffer type = CML_BUFFER_INIT;
  if (n->type) cml_mil_type_print(n->type, &type);
  const char *shape = type.data ? (const char *)type.data : "";
  cml_buffer_printf(out, "<g><title>");
  escape(out, n->op ? n->op->type : n->is_output ? "output" : "input", SIZE_MAX);
  cml_buffer_char(out, ' ');
  escape(out, n->name, SIZE_MAX);
  cml_buffer_char(out, ' ');
  escape(out, shape, SIZE_MAX);
  cml_buffer_printf(out, "</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"%d\" fill=\"%s\"/>\n", x - s->width / 2, y, s->width,
                    BOX_HEIGHT, n->op ? 6 : 20, n->op ? (n->op->block_count ? "#f7efe0" : "#f4f4f6") : "#dfe9f7");
  draw_line(out, x, y + 16, " font-weight=\"bold\"", n->op ? n->op->type : n->name);
  if (n->op) draw_line(out, x, y + 29, "", n->name);
  draw_line(out, x, y + 42, " fill=\"#666\"", shape);
  cml_buffer_text(out, "</g>\n");
  if (type.failed) out->failed = true;
  cml_buffer_free(&type);
}

static void draw_link(cml_buffer *out, const drawing *d, const link *l, double left) {
  const spot *a = &d->spots[l->from], *b = &d->spots[l->to];
  double y1 = MARGIN + (double)a->layer * LAYER_HEIGHT + BOX_HEIGHT, y2 = MARGIN + (double)b->layer * LAYER_HEIGHT, x1 = a->x - left,
         x2 = b->x - left, middle = (y1 + y2) / 2;
  if (a->node == CML_GRAPH_NONE) cml_buffer_printf(out, "<path d=\"M%.1f %.1fV%.1f\"/>", x1, y1 - BOX_HEIGHT, y1);
  cml_buffer_printf(out, "<path d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\"%s/>\n", x1, y1, x1, middle, x2, middle, x2, y2,
                    b->node == CML_GRAPH_NONE ? "" : " marker-end=\"url(#a)\"");
}

static void draw(const drawing *d, cml_buffer *out) {
  double left = 0, right = 0;
  for (size_t i = 0; i < d->spot_count; i++) {
    const spot *s = &d->spots[i];
    if (!i || s->x - s->width / 2 < left) left = s->x - s->width / 2;
    if (!i || s->x + s->width / 2 > right) right = s->x + s->width / 2;
  }
  left -= MARGIN;
  double width = right - left + MARGIN, height = 2.0 * MARGIN + (double)(d->layer_count - 1) * LAYER_HEIGHT + BOX_HEIGHT;
  cml_buffer_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
                         "font-family=\"sans-serif\" font-size=\"10\" text-anchor=\"middle\">\n", width, height, width, height);
  cml_buffer_text(out, "<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">"
                       "<path d=\"M0 0L8 4L0 8z\" fill=\"#777\"/></marker></defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
                       "<g fill=\"none\" stroke=\"#777\">\n");
  for (size_t i = 0; i < d->link_count; i++) draw_link(out, d, &d->links[i], left);
  cml_buffer_text(out, "</g>\n<g stroke=\"none\">\n");
  for (size_t i = 0; i < d->spot_count; i++)
    if (d->spots[i].node != CML_GRAPH_NONE) draw_box(out, d, &d->spots[i], left);
  cml_buffer_text(out, "</g>\n</svg>\n");
}

static cml_status too_large(const cml_mil_function *function, cml_error *err) {
  return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "function %s is too large to be drawn; print it as .dot", function->name);
}

/* Operations other than constants, at the top: so that a large program is told without a look at its edges. */
static size_t count_boxes(const cml_mil_function *function) {
  const cml_mil_block *body = cml_mil_body(function);
  size_t count = 0;
  for (size_t i = 0; body && i < body->op_count; i++) count += strcmp(body->ops[i]->type, "const") && strncmp(body->ops[i]->type, "constexpr_", 10);
  return count;
}

static cml_status lay_out(const cml_mil_function *function, cml_arena *arena, drawing *d, cml_error *err) {
  if (count_boxes(function) > MAX_NODES) return too_large(function, err);
  CML_TRY(cml_graph_build(function, arena, &d->g, err));
  if (d->g.node_count > MAX_NODES) return too_large(function, err);
  flatten(&d->g);
  return make_spots(d, arena) ? CML_OK : too_large(function, err);
}

bool cml_graph_is_small(const cml_mil_function *function) {
  cml_arena arena = CML_ARENA_INIT;
  drawing d = {0};
  bool small = !lay_out(function, &arena, &d, NULL);
  cml_arena_free(&arena);
  return small;
}

cml_status cml_graph_svg(const cml_mil_function *function, cml_buffer *out, cml_error *err) {
  cml_arena arena = CML_ARENA_INIT;
  drawing d = {0};
  cml_status status = lay_out(function, &arena, &d, err);
  if (!status) {
    double *sums = CML_ARENA_NEW_ARRAY(&arena, double, d.spot_count);
    unsigned *counts = CML_ARENA_NEW_ARRAY(&arena, unsigned, d.spot_count);
    if (sums && counts) {
      fill_layers(&d);
      order_layers(&d, sums, counts);
      place(&d, sums, counts);
      draw(&d, out);
      status = cml_buffer_check(out, err);
    } else {
      status = cml_fail_memory(err);
    }
  }
  cml_arena_free(&arena);
  return status;
}
