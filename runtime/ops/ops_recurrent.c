/* rnn, gru, lstm.
 *
 * What depends on the input alone, W x + bias, is computed for all steps at once; a step then adds R h and applies the gates.
 * All arithmetic is in float32, the state between steps included; results are rounded once, as they are stored. Weights are
 * packed into panels when the program is prepared, float or half as they are, for each step reads all of R: that, from the
 * second-level cache, is what a step costs. R is packed gate by gate, but for several sequences whose gates are computed at once:
 * then one after the other, so that only the last panel has columns to spare. Every other step goes over the panels backwards, so that it begins with
 * those that the cache still holds. For one sequence a third of the panels of halves are widened at once, and read with the others (mixed). A single short call reads the weights in place. The two directions of a bidirectional layer
 * are two threads' work, be they those of one lstm or two loops over one input that pass recurrent makes one cml_gru: that has an
 * output for each, as the loop had it, in the order in which it works. So are shares of a batch, whose sequences have nothing in common.
 *
 * A layer of direction `reverse` gives its results in the order in which it works, last step first; the backward half of a
 * bidirectional one gives them in the order of its input. So coremltools' and torch's expectations have it. */
#include <math.h>

#include "elementwise.h"
#include "families.h"
#include "gemm.h"

#define M CML_M_FLOAT
#define OPTIONAL (CML_OPTIONAL | CML_CONST)
#define WEIGHTS(types) {"weight_ih", types, CML_CONST, 1}, {"weight_hh", types, CML_CONST, 1}, {"bias", types, OPTIONAL, 1}
#define CHOICES {"direction", CML_M_STRING, OPTIONAL, 0}, {"output_sequence", CML_M_BOOL, OPTIONAL, 0}
#define RECURRENT_ACTIVATION {"recurrent_activation", CML_M_STRING, OPTIONAL, 0}
#define ACTIVATION {"activation", CML_M_STRING, OPTIONAL, 0}

/* Each operator's parameters for each element type that an opset allows. */
#define RNN_PARAMS(types) {{"x", types, 0, 1}, {"initial_h", types, 0, 1}, WEIGHTS(types), CHOICES, ACTIVATION}
#define GRU_PARAMS(types) {"x", types, 0, 1}, {"initial_h", types, 0, 1}, WEIGHTS(types), CHOICES, RECURRENT_ACTIVATION, ACTIVATION
#define LSTM_PARAMS(types)                                                                                                    \
  {{"x", types, 0, 1}, {"initial_h", types, 0, 1}, {"initial_c", types, 0, 1}, WEIGHTS(types), {"peephole", types, OPTIONAL, 1}, \
   {"weight_ih_back", types, OPTIONAL, 1}, {"weight_hh_back", types, OPTIONAL, 1}, {"bias_back", types, OPTIONAL, 1},           \
   {"peephole_back", types, OPTIONAL, 1}, CHOICES, RECURRENT_ACTIVATION, {"cell_activation", CML_M_STRING, OPTIONAL, 0},        \
   ACTIVATION, {"clip", types, OPTIONAL, 1}}
static const cml_param rnn_15[] = RNN_PARAMS(CML_MASK(F32));
static const cml_param rnn_17[] = RNN_PARAMS(M);
static const cml_param gru_15[] = {GRU_PARAMS(CML_MASK(F32))};
static const cml_param gru_17[] = {GRU_PARAMS(M)};
static const cml_param gru_18[] = {GRU_PARAMS(M), {"reset_after", CML_M_BOOL, OPTIONAL, 0}, {"input_bias", M, OPTIONAL, 1}};
/* What a pass makes of a written-out loop: reset_after, and the result begins with the initial state
 * and has its type. With the parameters …_back of two loops over one x, which gives the second output; from_end: that reads x from its end. */
static const cml_param gru_loop[] = {GRU_PARAMS(M), {"input_bias", M, OPTIONAL, 1}, {"initial_h_back", M, OPTIONAL, 1}, {"weight_ih_back", M, OPTIONAL, 1},
                                     {"weight_hh_back", M, OPTIONAL, 1}, {"bias_back", M, OPTIONAL, 1}, {"input_bias_back", M, OPTIONAL, 1},
                                     {"from_end", CML_MASK(I32), OPTIONAL, 0}};
static const cml_param lstm_15[] = LSTM_PARAMS(CML_MASK(F32));
static const cml_param lstm_17[] = LSTM_PARAMS(M);

/* ---- arguments ---- */

enum kind { RNN, GRU, LSTM };
static bool is_loop(const cml_call *c) { return c->op->params == gru_loop; }
static enum kind kind_of(const cml_call *c) { return c->op->name[0] == 'r' ? RNN : c->op->name[0] == 'g' || is_loop(c) ? GRU : LSTM; }

static const cml_tensor *argument(const cml_call *c, const char *name) {
  for (unsigned i = 0; i < c->op->param_count; i++)
    if (!strcmp(c->op->params[i].name, name)) return cml_arg(c, i);
  return NULL;
}

static const char *text_argument(const cml_call *c, const char *name, const char *otherwise) {
  const cml_tensor *t = argument(c, name);
  return t && t->data && t->dtype == CML_STRING && cml_tensor_count(t) == 1 ? ((const cml_string *)t->data)->data : otherwise;
}

static bool bool_argument(const cml_call *c, const char *name) {
  const cml_tensor *t = argument(c, name);
  return t && t->data && cml_tensor_count(t) == 1 && cml_tensor_get_int(t, 0) != 0;
}

typedef struct function {
  cml_unary f;
  float a, b;
} function;

static bool find_function(const char *name, function *out) {
  static const char *const names[] = {"tanh", "scaled_tanh", "sigmoid", "hard_sigmoid", "sigmoid_hard", "relu", "linear", NULL};
  static const function functions[] = {{CML_UNARY_TANH, 0, 0},  {CML_UNARY_TANH, 0, 0},
                                       {CML_UNARY_SIGMOID, 0, 0}, {CML_UNARY_HARD_SIGMOID, 0.2f, 0.5f},
                                       {CML_UNARY_HARD_SIGMOID, 0.2f, 0.5f}, {CML_UNARY_RELU, 0, 0}, {CML_UNARY_COPY, 0, 0}};
  int i = cml_word_index(name, names);
  if (i >= 0) *out = functions[i];
  return i >= 0;
}

/* Weights of one direction. */
typedef struct direction {
  const cml_tensor *w, *r, *bias, *peephole, *input_bias;
  bool backward; /* it reads x from the end */
} direction;

typedef struct layer {
  enum kind kind;
  int64_t gates, directions, steps, batch, inputs, hidden; /* -1 while unknown: steps, batch, inputs */
  int64_t abreast; /* directions in a row of a state or an output: all, but for loops, which keep their own */
  bool sequence, reset_after;
  function recurrent, cell, output;
  float clip;
  direction dir[2];
} layer;

static cml_status check_vector(const cml_call *c, const cml_tensor *t, const char *name, int64_t length, cml_error *err) {
  if (!t || (t->rank == 1 && t->dims[0] == length)) return CML_OK;
  return cml_call_fail(c, err, "%s must be a vector of %lld elements", name, (long long)length);
}

static cml_status check_direction(const cml_call *c, const layer *l, const direction *d, cml_error *err) {
  if (!d->w || !d->r) return cml_call_fail(c, err, "a bidirectional layer needs weight_ih_back and weight_hh_back");
  if (d->w->rank != 2 || d->r->rank != 2 || d->r->dims[1] != l->hidden || d->r->dims[0] != l->gates * l->hidden ||
      d->w->dims[0] != l->gates * l->hidden || (l->inputs >= 0 && d->w->dims[1] != l->inputs)) {
    char a[160], b[160];
    return cml_call_fail(c, err, "weights of shapes %s and %s do not fit %lld inputs and %lld hidden values in %lld gates",
                         d->w->rank >= 0 ? cml_shape_text(d->w, a, sizeof a) : "?", d->r->rank >= 0 ? cml_shape_text(d->r, b, sizeof b) : "?",
                         (long long)l->inputs, (long long)l->hidden, (long long)l->gates);
  }
  CML_TRY(check_vector(c, d->bias, "bias", l->gates * l->hidden, err));
  CML_TRY(check_vector(c, d->input_bias, "input_bias", l->gates * l->hidden, err));
  return check_vector(c, d->peephole, "peephole", 3 * l->hidden, err);
}

static cml_status read_functions(const cml_call *c, layer *l, cml_error *err) {
  const char *names[3] = {text_argument(c, "recurrent_activation", "sigmoid"), text_argument(c, "cell_activation", "tanh"),
                          text_argument(c, "activation", "tanh")};
  function *functions[3] = {&l->recurrent, &l->cell, &l->output};
  for (int i = 0; i < 3; i++)
    if (!find_function(names[i], functions[i]))
      return cml_call_fail(c, err, "activation '%s' is none of tanh, scaled_tanh, sigmoid, hard_sigmoid, relu, linear", names[i]);
  return CML_OK;
}

/* A state for more sequences than there are gives its first rows: coremltools makes such ones of zeros for packed sequences, by
 * their length. */
static cml_status check_state(const cml_call *c, const cml_tensor *t, const char *name, const layer *l, cml_error *err) {
  int64_t width = l->abreast * l->hidden;
  bool fits = t->rank < 0 || (t->rank == 2 && (t->dims[0] < 0 || l->batch < 0 || t->dims[0] >= l->batch) && (t->dims[1] < 0 || t->dims[1] == width));
  if (fits) return CML_OK;
  char a[160];
  return cml_call_fail(c, err, "%s has shape %s and must have [%lld, %lld]", name, cml_shape_text(t, a, sizeof a), (long long)l->batch, (long long)width);
}

static const cml_tensor *initial_h(const cml_call *c, int64_t d) {
  const cml_tensor *own = d && is_loop(c) ? argument(c, "initial_h_back") : NULL;
  return own ? own : cml_arg(c, 1);
}

/* Reads and checks everything but the inputs' values. */
static cml_status read_layer(const cml_call *c, layer *l, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *r = argument(c, "weight_hh"), *clip = argument(c, "clip");
  const char *way = text_argument(c, "direction", "forward");
  enum kind kind = kind_of(c);
  *l = (layer){.kind = kind, .gates = kind == RNN ? 1 : kind == GRU ? 3 : 4, .directions = 1, .steps = -1, .batch = -1, .inputs = -1,
               .sequence = is_loop(c) || bool_argument(c, "output_sequence"), .reset_after = is_loop(c) || bool_argument(c, "reset_after"), .clip = INFINITY};
  bool loops = is_loop(c) && argument(c, "weight_ih_back"), both = !strcmp(way, "bidirectional") && kind == LSTM;
  if (!both && strcmp(way, "forward") && strcmp(way, "reverse")) return cml_call_fail(c, err, "direction '%s' is not known", way);
  if (x->rank >= 0 && x->rank != 3) return cml_call_fail(c, err, "x has rank %d and needs 3", x->rank);
  if (x->rank == 3) l->steps = x->dims[0], l->batch = x->dims[1], l->inputs = x->dims[2];
  if (r->rank != 2 || r->dims[1] <= 0) return cml_call_fail(c, err, "weight_hh must be a matrix");
  l->hidden = r->dims[1];
  l->directions = both || loops ? 2 : 1;
  l->abreast = both ? 2 : 1;
  l->dir[0] = (direction){argument(c, "weight_ih"), r, argument(c, "bias"), argument(c, "peephole"), argument(c, "input_bias"), !strcmp(way, "reverse")};
  l->dir[1] = (direction){argument(c, "weight_ih_back"), argument(c, "weight_hh_back"), argument(c, "bias_back"), argument(c, "peephole_back"), argument(c, "input_bias_back"),
                          !loops || bool_argument(c, "from_end")};
  for (int64_t d = 0; d < l->directions; d++) CML_TRY(check_direction(c, l, &l->dir[d], err));
  CML_TRY(read_functions(c, l, err));
  if (clip && cml_tensor_count(clip) != 1) return cml_call_fail(c, err, "clip must be a scalar");
  if (clip && clip->data) l->clip = fabsf((float)cml_tensor_get(clip, 0));
  CML_TRY(check_state(c, cml_arg(c, 1), "initial_h", l, err));
  if (loops) CML_TRY(check_state(c, initial_h(c, 1), "initial_h_back", l, err));
  return kind == LSTM ? check_state(c, cml_arg(c, 2), "initial_c", l, err) : CML_OK;
}

/* ---- shapes and memory ---- */

/* Scratch, in floats; what follows `first` is there for each direction, `stride` apart. */
typedef struct places {
  uint64_t x, gemm, first, projection, gates, bias, peephole, h, c, t, stride, total;
} places;

static bool reserve(uint64_t *at, uint64_t a, uint64_t b, uint64_t c, uint64_t *place) {
  uint64_t n;
  *place = *at;
  return cml_mul(a, b, &n) && cml_mul(n, c, &n) && cml_align(n, 16, &n) && cml_add(*at, n, at) && *at < UINT64_C(1) << 44;
}

static bool place_scratch(const cml_call *call, const layer *l, places *p) {
  uint64_t at = 0, b = (uint64_t)l->batch, h = (uint64_t)l->hidden, g = (uint64_t)l->gates * h, s = (uint64_t)l->steps;
  bool ok = reserve(&at, s, b, (uint64_t)l->inputs, &p->x) &&
            reserve(&at, cml_pool_threads(call->pool), cml_gemm_scratch(cml_kernels_get()) / sizeof(float) + 16, 1, &p->gemm);
  p->first = at;
  ok = ok && reserve(&at, s, b, g, &p->projection) && reserve(&at, b, g, 1, &p->gates) && reserve(&at, 2 * g, 1, 1, &p->bias) &&
       reserve(&at, 3 * h, 1, 1, &p->peephole) && reserve(&at, b, h, 1, &p->h) && reserve(&at, b, h, 1, &p->c) && reserve(&at, b, h, 1, &p->t);
  p->stride = at - p->first;
  p->total = p->first + (uint64_t)l->directions * p->stride;
  return ok;
}

static cml_status infer_recurrent(cml_call *c, cml_error *err) {
  layer l;
  places p;
  CML_TRY(read_layer(c, &l, err));
  cml_dtype type = cml_arg(c, is_loop(c) ? 1 : 0)->dtype;
  int64_t rows = l.steps < 0 ? l.steps : l.steps + is_loop(c), dims[3] = {l.sequence ? rows : 1, l.batch, l.abreast * l.hidden};
  if (is_loop(c) && (int64_t)c->out_count != l.directions) return cml_call_fail(c, err, "each direction has an output");
  cml_out_set(c, 0, type, 3, dims);
  if (is_loop(c) && c->out_count > 1) cml_out_set(c, 1, initial_h(c, 1)->dtype, 3, dims);
  else if (c->out_count > 1) cml_out_set(c, 1, type, 2, dims + 1);
  if (c->out_count > 2) cml_out_set(c, 2, type, 2, dims + 1);
  if (l.steps < 0 || l.batch < 0 || l.inputs < 0) return CML_OK;
  if (!place_scratch(c, &l, &p)) return cml_call_fail(c, err, "the sequence is too long");
  c->scratch_size = p.total * sizeof(float);
  return CML_OK;
}

/* ---- packed weights ---- */

enum {
  FEW_VECTORS = 4,            /* in all steps: from here on packing pays */
  SHARED_PRODUCTS = 1 << 19,  /* multiplications of a step, or of all where threads have sequences of their own; fewer are done before another thread has begun */
  SHARE = 4,                  /* sequences of a thread's own, at least: so many keep the multipliers busy */
  MIXED = 2 << 20,            /* bytes of R in halves at most: more come from so far that each byte counts */
  SHARED_WEIGHTS = 1 << 16,   /* at least so many are a thread's piece where they are read in place */
};

/* The panels of a gate, or a part of them: each kind in turn. Threes and twos are of halves but for their last panel. */
typedef struct groups {
  size_t threes, twos, ones;
} groups;

typedef struct packed {
  const char *w[2], *r[2]; /* by direction; r: `gates` packed matrices, gate_bytes apart */
  size_t gate_bytes;
  groups groups;           /* of the panels of a gate of R */
  bool joined;             /* R is one matrix, not one for each gate */
} packed;

static groups group_panels(size_t count, bool mixed) {
  const size_t twos = (3 - count % 3) % 3;
  return mixed && count > 1 ? (groups){(count - 2 * twos) / 3, twos, 0} : (groups){0, 0, count};
}

/* The group that is the at-th: its first panel, the panels of its own size, and where it begins, in panels of halves. */
static size_t group_at(const groups *g, size_t at, size_t *panels, size_t *halves) {
  const size_t before = at < g->threes ? at : g->threes, twos = at - before < g->twos ? at - before : g->twos;
  *panels = at < g->threes ? 3 : at < g->threes + g->twos ? 2 : 1;
  *halves = 4 * before + 3 * twos + (at - before - twos);
  return 3 * before + 2 * twos + (at - before - twos);
}

static bool is_half(const cml_tensor *t) { return t->dtype == CML_F16; }

static void pack(const cml_tensor *m, size_t first_row, size_t rows, bool half, char *to) {
  const cml_kernels *k = cml_kernels_get();
  const size_t depth = (size_t)m->dims[1];
  const bool from_half = is_half(m);
  const char *from = (const char *)m->data + first_row * depth * (from_half ? 2 : 4);
  cml_pack_panels(k, to, half, from, from_half, depth, rows, 1, depth, 0, cml_panel_count(k, rows));
}

/* A gate of R; to NULL: the bytes alone. */
static size_t pack_gate(const cml_tensor *r, size_t gate, const groups *g, char *to) {
  const size_t h = (size_t)r->dims[1], nr = cml_kernels_get()->tile_columns, count = g->threes + g->twos + g->ones;
  const bool half = r->dtype == CML_F16;
  const size_t unit = h * nr * (half ? 2 : 4);
  size_t panels, units;
  for (size_t at = 0; to && at < count; at++) {
    const size_t first = group_at(g, at, &panels, &units) * nr, last = first + (panels - 1) * nr;
    if (panels > 1) pack(r, gate * h + first, last - first, true, to + units * unit);
    pack(r, gate * h + last, h - last < nr ? h - last : nr, half && panels == 1, to + (units + panels - 1) * unit);
  }
  group_at(g, count, &panels, &units);
  return cml_scratch_part(units * unit + 64);
}

static cml_status prepare_recurrent(cml_call *c, cml_error *err) {
  layer l;
  CML_TRY(read_layer(c, &l, err));
  if (l.steps >= 0 && l.batch >= 0 && l.steps * l.batch < FEW_VECTORS) return CML_OK;
  const cml_kernels *k = cml_kernels_get();
  size_t h = (size_t)l.hidden, gates = (size_t)l.gates;
  packed *p = cml_call_keep(c, sizeof *p, err);
  if (!p) return c->keep_status;
  p->groups = group_panels(cml_panel_count(k, h), l.batch == 1 && l.dir[0].r->dtype == CML_F16 && gates * h * h * 2 <= MIXED);
  p->gate_bytes = pack_gate(l.dir[0].r, 0, &p->groups, NULL);
  p->joined = l.batch > 1 && (l.kind != GRU || l.reset_after);
  for (int64_t d = 0; d < l.directions; d++) {
    const cml_tensor *w = l.dir[d].w, *r = l.dir[d].r;
    char *to = cml_call_keep(c, cml_pack_bytes(k, (size_t)w->dims[1], gates * h, is_half(w)), err);
    if (!to) return c->keep_status;
    pack(w, 0, gates * h, is_half(w), to);
    p->w[d] = to;
    if (!(to = cml_call_keep(c, p->joined ? cml_pack_bytes(k, h, gates * h, is_half(r)) : gates * p->gate_bytes, err))) return c->keep_status;
    if (p->joined) pack(r, 0, gates * h, is_half(r), to);
    for (size_t g = 0; !p->joined && g < gates; g++) pack_gate(r, g, &p->groups, to + g * p->gate_bytes);
    p->r[d] = to;
    cml_arg_unread(c, w);
    cml_arg_unread(c, r);
  }
  c->prepared = p;
  return CML_OK;
}

typedef struct in_place {
  const char *w;
  const float *x;
  float *y;
  size_t depth;
  bool half;
} in_place;

static void multiply_rows(void *context, size_t begin, size_t end) {
  const in_place *s = context;
  cml_kernels_get()->gemv_rows(end - begin, s->depth, s->w + begin * s->depth * (s->half ? 2 : 4), s->half, s->depth, s->x, s->y + begin);
}

/* y[v] = W[first_row ... first_row + rows) x[v], weights as the program holds them. */
static void multiply_in_place(const cml_tensor *w, int64_t first_row, int64_t rows, int64_t vectors, const float *x, float *y, int64_t y_stride,
                              cml_pool *pool) {
  size_t depth = (size_t)w->dims[1], size = w->dtype == CML_F16 ? 2 : 4;
  for (int64_t v = 0; v < vectors; v++) {
    in_place s = {(const char *)w->data + (size_t)first_row * depth * size, x + (size_t)v * depth, y + v * y_stride, depth, size == 2};
    cml_parallel(pool, (size_t)rows, SHARED_WEIGHTS / (depth + 1) + 1, multiply_rows, &s);
  }
}

static void apply(function f, float *x, int64_t n) {
  if (f.f != CML_UNARY_COPY) cml_kernels_get()->unary(f.f, x, x, (size_t)n, f.a, f.b);
}

/* ---- one step ---- */

typedef struct pass {
  const cml_call *call;
  const layer *l;
  const direction *d;
  const packed *packed;
  cml_pool *pool; /* for one step's products; NULL: they stay on this thread */
  int64_t index;  /* of the direction */
  int64_t first, batch; /* the sequences; gates, h, c and t are theirs */
  float *projection, *gates, *bias, *recurrent_bias, *peephole, *h, *c, *t, *gemm;
  bool backwards; /* over the panels */
} pass;

typedef struct panels {
  const pass *p;
  size_t first_gate, count, in_gate; /* groups of panels in all, and in a gate */
  size_t shares;                     /* of the threads, each of which goes to and fro over its own */
  const float *h;
} panels;

/* gates = R h for one vector, group by group of panels. */
static void multiply_panels(void *context, size_t begin, size_t end) {
  const panels *s = context;
  const pass *p = s->p;
  const layer *l = p->l;
  const cml_kernels *k = cml_kernels_get();
  size_t h = (size_t)l->hidden, nr = k->tile_columns;
  bool half = p->d->r->dtype == CML_F16;
  for (size_t i = begin, last = begin, ends = 0; i < end; i++) {
    if (i == last) { /* a share begins, or the piece within it */
      const size_t share = ((i + 1) * s->shares - 1) / s->count;
      last = (share + 1) * s->count / s->shares, ends = share * s->count / s->shares + last - 1;
    }
    size_t at = p->backwards ? ends - i : i, gate = s->first_gate + at / s->in_gate, count, units;
    size_t j = group_at(&p->packed->groups, at % s->in_gate, &count, &units) * nr;
    const char *b = p->packed->r[p->index] + gate * p->packed->gate_bytes + units * nr * h * (half ? 2 : 4);
    const int halves = half && count == 1 ? 1 : (int)count - 1;
    k->gemv_panels(h - j < count * nr ? h - j : count * nr, h, s->h, b, halves, !half || count > 1, p->gates + gate * h + j);
  }
}

/* For several vectors, be they two: a product of matrices for each gate, or for all, which reads each panel once for all. */
static void multiply_gates(const pass *p, size_t first_gate, size_t gate_count, const float *h) {
  const layer *l = p->l;
  size_t n = (size_t)l->hidden, columns = n;
  cml_gemm g[4];
  if (p->packed->joined) columns *= gate_count, gate_count = 1;
  for (size_t i = 0; i < gate_count; i++)
    g[i] = (cml_gemm){.rows = (size_t)p->batch, .columns = columns, .depth = n, .a = h, .a_stride = n, .a_depth_stride = 1,
                      .b = p->packed->r[p->index] + (first_gate + i) * p->packed->gate_bytes, .b_half = is_half(p->d->r),
                      .c = p->gates + (first_gate + i) * n, .c_stride = (size_t)l->gates * n, .after = {.activation = CML_UNARY_COPY}};
  cml_gemm_run(cml_kernels_get(), g, gate_count, p->pool, p->gemm, cml_pool_threads(p->pool));
}

/* gates[b] = R h[b] */
static void multiply(const pass *p, int64_t first_gate, int64_t gate_count, const float *h) {
  const layer *l = p->l;
  int64_t n = l->hidden, width = l->gates * n;
  if (!p->packed) {
    multiply_in_place(p->d->r, first_gate * n, gate_count * n, p->batch, h, p->gates + first_gate * n, width,
                      p->call->pool);
    return;
  }
  if (p->batch != 1) {
    multiply_gates(p, (size_t)first_gate, (size_t)gate_count, h);
    return;
  }
  const groups *g = &p->packed->groups;
  panels s = {.p = p, .first_gate = (size_t)first_gate, .in_gate = g->threes + g->twos + g->ones, .h = h};
  s.count = s.in_gate * (size_t)gate_count;
  s.shares = cml_pool_threads(p->pool) < s.count ? cml_pool_threads(p->pool) : s.count;
  cml_parallel(p->pool, s.count, 1, multiply_panels, &s);
}

/* gates[b] += what the input gives at this step. */
static void add_input(const pass *p, const float *step, int64_t first_gate, int64_t gate_count) {
  const layer *l = p->l;
  int64_t width = l->gates * l->hidden, first = first_gate * l->hidden, n = gate_count * l->hidden;
  for (int64_t b = 0; b < p->batch; b++) {
    float *gates = p->gates + b * width + first;
    cml_kernels_get()->binary(CML_BINARY_ADD, gates, step + b * width + first, gates, (size_t)n);
  }
}

/* gates[b] = R h[b] + what the input gives. */
static void recur(const pass *p, const float *step, int64_t first_gate, int64_t gate_count, const float *h) {
  multiply(p, first_gate, gate_count, h);
  add_input(p, step, first_gate, gate_count);
}

static void step_rnn(const pass *p, const float *step) {
  int64_t n = p->batch * p->l->hidden;
  recur(p, step, 0, 1, p->h);
  memcpy(p->h, p->gates, (size_t)n * sizeof(float));
  apply(p->l->output, p->h, n);
}

/* Gates r, o, z. The reset acts on h before the matrix, or on R h + bias after it. */
static void step_gru(const pass *p, const float *step) {
  const layer *l = p->l;
  int64_t n = l->hidden;
  multiply(p, 0, l->reset_after ? 3 : 1, p->h);
  add_input(p, step, 0, 1);
  if (l->reset_after) add_input(p, step, 2, 1);
  else recur(p, step, 2, 1, p->h);
  for (int64_t b = 0; b < p->batch; b++) {
    float *r = p->gates + b * 3 * n, *z = r + 2 * n;
    apply(l->recurrent, r, n);
    apply(l->recurrent, z, n);
    for (int64_t i = 0; i < n; i++) p->t[b * n + i] = r[i] * p->h[b * n + i];
  }
  if (!l->reset_after) recur(p, step, 1, 1, p->t);
  for (int64_t b = 0; b < p->batch; b++) {
    float *r = p->gates + b * 3 * n, *o = r + n, *z = o + n, *h = p->h + b * n;
    const float *input = step + b * 3 * n + n;
    for (int64_t i = 0; l->reset_after && i < n; i++) o[i] = input[i] + r[i] * (o[i] + p->recurrent_bias[n + i]);
    apply(l->output, o, n);
    for (int64_t i = 0; i < n; i++) h[i] = (1 - z[i]) * o[i] + z[i] * h[i];
  }
}

static bool is_plain_lstm(const pass *p) {
  const layer *l = p->l;
  return !p->d->peephole && l->clip == INFINITY && l->recurrent.f == CML_UNARY_SIGMOID && l->cell.f == CML_UNARY_TANH && l->output.f == CML_UNARY_TANH;
}

/* Gates i, f, o, z. Peepholes of i and f see the old cell, that of o the new one. */
static void step_lstm(const pass *p, const float *step) {
  const layer *l = p->l;
  int64_t n = l->hidden;
  if (is_plain_lstm(p)) {
    multiply(p, 0, 4, p->h);
    for (int64_t b = 0; b < p->batch; b++)
      cml_kernels_get()->lstm_cell((size_t)n, p->gates + b * 4 * n, step + b * 4 * n, p->c + b * n, p->h + b * n);
    return;
  }
  recur(p, step, 0, 4, p->h);
  for (int64_t b = 0; b < p->batch; b++) {
    float *gi = p->gates + b * 4 * n, *gf = gi + n, *go = gf + n, *gz = go + n, *cell = p->c + b * n, *h = p->h + b * n;
    for (int64_t i = 0; p->d->peephole && i < n; i++) {
      gi[i] += p->peephole[i] * cell[i];
      gf[i] += p->peephole[n + i] * cell[i];
    }
    apply(l->recurrent, gi, 2 * n);
    apply(l->cell, gz, n);
    for (int64_t i = 0; i < n; i++) cell[i] = gf[i] * cell[i] + gi[i] * gz[i];
    for (int64_t i = 0; l->clip < INFINITY && i < n; i++) cell[i] = cell[i] > l->clip ? l->clip : cell[i] < -l->clip ? -l->clip : cell[i];
    for (int64_t i = 0; p->d->peephole && i < n; i++) go[i] += p->peephole[2 * n + i] * cell[i];
    apply(l->recurrent, go, n);
    memcpy(h, cell, (size_t)n * sizeof(float));
    apply(l->output, h, n);
    for (int64_t i = 0; i < n; i++) h[i] *= go[i];
  }
}

/* ---- a run ---- */

/* Rows of `hidden` floats into the columns of an output that are the direction's. */
static void store_state(cml_tensor *out, const pass *p, int64_t step, const float *from) {
  const layer *l = p->l;
  for (int64_t b = 0; b < p->batch; b++)
    cml_store_f32(out->data, out->dtype, ((step * l->batch + p->first + b) * l->abreast + p->index % l->abreast) * l->hidden, from + b * l->hidden, (size_t)l->hidden);
}

static void load_state(float *to, const cml_tensor *from, const pass *p) {
  const layer *l = p->l;
  for (int64_t b = 0; b < p->batch; b++)
    cml_load_f32(to + b * l->hidden, from->data, from->dtype, ((p->first + b) * l->abreast + p->index % l->abreast) * l->hidden, (size_t)l->hidden);
}

/* Biases: what is added to W x for all steps, and what reset_after keeps with R h for the o gate. */
static void prepare_biases(const pass *p) {
  const layer *l = p->l;
  size_t n = (size_t)(l->gates * l->hidden);
  memset(p->bias, 0, 2 * n * sizeof(float));
  if (p->d->bias) cml_load_f32(p->recurrent_bias, p->d->bias->data, p->d->bias->dtype, 0, n);
  if (p->d->input_bias) cml_load_f32(p->bias, p->d->input_bias->data, p->d->input_bias->dtype, 0, n);
  for (int64_t i = 0; i < (int64_t)n; i++) {
    bool kept = l->reset_after && l->kind == GRU && i >= l->hidden && i < 2 * l->hidden;
    if (!kept) p->bias[i] += p->recurrent_bias[i];
  }
  if (p->d->peephole) cml_load_f32(p->peephole, p->d->peephole->data, p->d->peephole->dtype, 0, (size_t)(3 * l->hidden));
}

/* W x + bias for all steps. */
static void project(const pass *p, const float *x, cml_pool *pool) {
  const layer *l = p->l;
  const cml_tensor *w = p->d->w;
  int64_t width = l->gates * l->hidden, vectors = l->steps * l->batch;
  prepare_biases(p);
  if (!p->packed) {
    multiply_in_place(w, 0, width, vectors, x, p->projection, width, pool);
    for (int64_t v = 0; v < vectors; v++)
      for (int64_t i = 0; i < width; i++) p->projection[v * width + i] += p->bias[i];
    return;
  }
  cml_gemm g = {.rows = (size_t)vectors, .columns = (size_t)width, .depth = (size_t)l->inputs, .a = x, .a_stride = (size_t)l->inputs,
                .a_depth_stride = 1, .b = p->packed->w[p->index], .b_half = is_half(w),
                .in_parts = cml_parts_pay(cml_kernels_get(), is_half(w), vectors, (size_t)l->inputs, (size_t)width), .c = p->projection,
                .c_stride = (size_t)width, .after = {.bias = p->bias, .activation = CML_UNARY_COPY}};
  cml_gemm_run(cml_kernels_get(), &g, 1, pool, p->gemm, cml_pool_threads(pool));
}

static void run_steps(pass *p) {
  const layer *l = p->l;
  const cml_call *call = p->call;
  int64_t width = l->gates * l->hidden, before = is_loop(call);
  cml_tensor *out = call->outs[before ? p->index : 0];
  load_state(p->h, initial_h(call, p->index), p);
  if (l->kind == LSTM) load_state(p->c, cml_arg(call, 2), p);
  if (before) store_state(out, p, 0, p->h);
  for (int64_t s = 0; s < l->steps; s++) {
    int64_t at = p->d->backward ? l->steps - 1 - s : s;
    const float *step = p->projection + (at * l->batch + p->first) * width;
    p->backwards = s % 2;
    if (l->kind == RNN) step_rnn(p, step);
    else if (l->kind == GRU) step_gru(p, step);
    else step_lstm(p, step);
    if (l->sequence) store_state(out, p, l->abreast == 2 ? at : s + before, p->h);
  }
  if (before) return;
  if (!l->sequence) store_state(out, p, 0, p->h);
  if (call->out_count > 1) store_state(call->outs[1], p, 0, p->h);
  if (call->out_count > 2) store_state(call->outs[2], p, 0, p->c);
}

typedef struct pieces {
  const pass *passes; /* of the directions */
  size_t shares;      /* of the batch */
} pieces;

static void run_pieces(void *context, size_t thread, size_t begin, size_t end) {
  const pieces *j = context;
  for (size_t i = begin; i < end; i++) {
    pass p = j->passes[i / j->shares];
    const layer *l = p.l;
    int64_t share = (int64_t)(i % j->shares), shares = (int64_t)j->shares;
    p.first = l->batch * share / shares;
    p.batch = l->batch * (share + 1) / shares - p.first;
    p.gates += p.first * l->gates * l->hidden;
    p.h += p.first * l->hidden, p.c += p.first * l->hidden, p.t += p.first * l->hidden;
    p.gemm += thread * cml_gemm_scratch(cml_kernels_get()) / sizeof(float);
    run_steps(&p);
  }
}

static cml_status run_recurrent(cml_call *c, cml_error *err) {
  layer l;
  places at;
  CML_TRY(read_layer(c, &l, err));
  if (!place_scratch(c, &l, &at)) return cml_call_fail(c, err, "the sequence is too long");
  const cml_tensor *x = cml_arg(c, 0);
  float *scratch = c->scratch;
  const float *input = x->data;
  if (x->dtype != CML_F32) {
    cml_load_f32(scratch + at.x, x->data, x->dtype, 0, (size_t)cml_tensor_count(x));
    input = scratch + at.x;
  }
  /* each thread has a direction or a share of the batch to itself; large steps for which that leaves threads idle are shared by all */
  double products = (double)l.gates * (double)l.hidden * (double)l.hidden * (double)l.batch;
  size_t threads = cml_pool_threads(c->pool), directions = (size_t)l.directions, shares = threads / directions, most = products * (double)l.steps < SHARED_PRODUCTS ? 1 : (size_t)l.batch / SHARE;
  if (shares > most) shares = most;
  if (shares < 1) shares = 1;
  bool shared = products >= SHARED_PRODUCTS && shares * directions < threads;
  if (shared) shares = 1;
  pass passes[2];
  for (int64_t d = 0; d < l.directions; d++) {
    float *own = scratch + (uint64_t)d * at.stride;
    passes[d] = (pass){.call = c, .l = &l, .d = &l.dir[d], .packed = c->prepared, .pool = shared ? c->pool : NULL, .index = d,
                       .projection = own + at.projection, .gates = own + at.gates, .bias = own + at.bias,
                       .recurrent_bias = own + at.bias + l.gates * l.hidden, .peephole = own + at.peephole, .h = own + at.h, .c = own + at.c,
                       .t = own + at.t, .gemm = scratch + at.gemm};
    project(&passes[d], input, c->pool);
  }
  cml_parallel_with_thread(shared ? NULL : c->pool, shares * directions, 1, run_pieces, &(pieces){passes, shares});
  return CML_OK;
}

/* ---- rows ---- */

#define ROW(op, first, last, outputs, p) \
  {.name = op, .since = first, .until = last, .min_outputs = 1, .max_outputs = outputs, CML_PARAMS(p), .infer = infer_recurrent,          \
   .prepare = prepare_recurrent, .run = run_recurrent}

static const cml_op rows[] = {
    ROW("rnn", CML_IOS15, CML_IOS16, 2, rnn_15),   ROW("rnn", CML_IOS17, 0, 2, rnn_17),
    ROW("gru", CML_IOS15, CML_IOS16, 2, gru_15),   ROW("gru", CML_IOS17, CML_IOS17, 2, gru_17),
    ROW("gru", CML_IOS18, 0, 2, gru_18),           ROW("lstm", CML_IOS15, CML_IOS16, 3, lstm_15),
    ROW("lstm", CML_IOS17, 0, 3, lstm_17),
    {.name = "cml_gru", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 2, CML_PARAMS(gru_loop),
     .infer = infer_recurrent, .prepare = prepare_recurrent, .run = run_recurrent},
};

const cml_op_family cml_ops_recurrent = {"recurrent", rows, sizeof rows / sizeof *rows};
