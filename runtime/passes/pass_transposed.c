/* A transposed convolution with stride s gives each place of its blocks of s x s pixels (of s elements along one dimension) a sum of
 * ceil(kernel / s) taps a side. With few outputs all places are better computed at once than as one convolution for each: the places
 * are outputs of one ordinary convolution, a tile of sums has room for all of them, and `pixel_shuffle` spreads them.
 *
 * Element q of the output, p of padding before it: q + p = s m + r is place r of block m, and of its taps t = r + s j the j-th reads
 * x[m - j]; places with a tap less have a zero there. Blocks m0 = p / s to m1 = (p + size - 1) / s are computed; what the first
 * and last have beyond the output is cut off. With stride 1 that is an ordinary convolution already, whatever its outputs.
 *
 * A single pixel, as generators begin with, has one block whatever the stride: the whole kernel, each place of which is one tap. */
#include "passes.h"

enum { MOST_COLUMNS = 64, FEW_OUTPUTS = 4 }; /* more outputs fill enough of a vector by themselves */

typedef struct blocks {
  int32_t dims;
  int64_t kernel, stride, taps;
  int64_t before[2], after[2], count[2]; /* zeros around the image, and how many blocks */
  int64_t cut[2]; /* of the first one */
} blocks;

static bool all_are(const cml_graph *g, const cml_step *s, const char *param, int64_t count, int64_t value) {
  const cml_tensor *t = cml_pass_constant(g, s, param);
  if (cml_pass_arg(s, param) == CML_NO_VALUE) return value == 1;
  for (int64_t i = 0; t && i < count; i++)
    if (cml_tensor_count(t) != count || cml_tensor_get_int(t, i) != value) return false;
  return t;
}

/* The padding before the output, of each dimension; none with "same" where kernel = stride. */
static bool paddings(const cml_graph *g, const cml_step *s, const blocks *b, int64_t *pads) {
  const cml_tensor *pad = cml_pass_constant(g, s, "pad");
  pads[0] = pads[1] = 0;
  if (cml_pass_is_word(g, s, "pad_type", "valid")) return true;
  if (cml_pass_is_word(g, s, "pad_type", "same")) return b->kernel == b->stride;
  if (!cml_pass_is_word(g, s, "pad_type", "custom")) return false;
  if (cml_pass_arg(s, "pad") == CML_NO_VALUE) return true;
  if (!pad || cml_tensor_count(pad) != 2 * b->dims) return false;
  for (int32_t i = 0; i < b->dims; i++) pads[i] = cml_tensor_get_int(pad, 2 * i);
  return true;
}

static bool fits(const cml_graph *g, const cml_step *s, const cml_tensor *w, const cml_tensor *x, const cml_tensor *y, blocks *b) {
  if (!w || (w->dtype != CML_F32 && w->dtype != CML_F16) || w->dtype != y->dtype || w->rank < 3 || w->rank > 4 || x->rank != w->rank) return false;
  if (!cml_tensor_known_shape(x) || !cml_tensor_known_shape(y) || !cml_tensor_known_shape(w) || cml_tensor_count(y) == 0) return false;
  const cml_tensor *strides = cml_pass_constant(g, s, "strides");
  if (strides ? cml_tensor_count(strides) < 1 : cml_pass_arg(s, "strides") != CML_NO_VALUE) return false;
  *b = (blocks){.dims = x->rank - 2, .kernel = w->dims[2], .stride = strides ? cml_tensor_get_int(strides, 0) : 1};
  if (b->stride < 1 || b->stride > MOST_COLUMNS || b->kernel < b->stride || w->dims[x->rank - 1] != b->kernel) return false;
  const bool pixel = x->dims[2] == 1 && x->dims[x->rank - 1] == 1;
  if (!pixel && b->stride > 1 && (w->dims[1] > FEW_OUTPUTS || w->dims[1] * b->stride * (b->dims == 2 ? b->stride : 1) > MOST_COLUMNS)) return false;
  if (!all_are(g, s, "strides", b->dims, b->stride) || !all_are(g, s, "dilations", b->dims, 1) || !all_are(g, s, "groups", 1, 1)) return false;
  if (cml_pass_arg(s, "bias") != CML_NO_VALUE && !cml_pass_constant(g, s, "bias")) return false;
  int64_t pads[2];
  if (!paddings(g, s, b, pads)) return false;
  if (pixel) b->stride = b->kernel;
  b->taps = (b->kernel + b->stride - 1) / b->stride;
  for (int32_t i = 0; i < b->dims; i++) {
    if (pads[i] < 0 || pads[i] >= b->kernel) return false;
    const int64_t first = pads[i] / b->stride, last = (pads[i] + y->dims[2 + i] - 1) / b->stride;
    b->before[i] = b->taps - 1 - first, b->after[i] = last - (x->dims[2 + i] - 1);
    b->count[i] = last - first + 1, b->cut[i] = pads[i] % b->stride;
    if (b->after[i] < 0) return false;
  }
  return true;
}

/* [channels, outputs, k, k] as [outputs s s, channels, taps, taps]; the bias once for each place. */
static cml_status constants(cml_graph *g, const blocks *b, const cml_tensor *w, const cml_tensor *bias, cml_binding *weight, cml_binding *shifts, cml_error *err) {
  const bool flat = b->dims == 1;
  const int64_t channels = w->dims[0], s = b->stride, n = b->taps, k = b->kernel, places = flat ? s : s * s, columns = w->dims[1] * places;
  cml_tensor to = {.dtype = w->dtype, .rank = w->rank, .dims = {columns, channels, n, n}}, shift = {.dtype = w->dtype, .rank = 1, .dims = {columns}};
  CML_TRY(cml_graph_constant(g, &to, err));
  for (int64_t i = 0; i < cml_tensor_count(&to); i++) {
    const int64_t v = i % n, u = flat ? n - 1 : i / n % n, c = i / (flat ? n : n * n) % channels, column = i / (flat ? n : n * n) / channels;
    const int64_t across = column % s + s * (n - 1 - v), down = (flat ? 0 : column / s % s) + s * (n - 1 - u), o = column / places;
    const bool none = across >= k || down >= k;
    cml_tensor_set(&to, i, none ? 0 : cml_tensor_get(w, ((c * w->dims[1] + o) * (flat ? 1 : k) + down) * k + across));
  }
  if ((weight->value = cml_pass_value(g, "", &to, CML_ROLE_CONSTANT)) == CML_NO_VALUE) return cml_fail_memory(err);
  if (!bias) return CML_OK;
  CML_TRY(cml_graph_constant(g, &shift, err));
  for (int64_t i = 0; i < columns; i++) cml_tensor_set(&shift, i, cml_tensor_get(bias, i / places));
  shifts->value = cml_pass_value(g, "", &shift, CML_ROLE_CONSTANT);
  return shifts->value == CML_NO_VALUE ? cml_fail_memory(err) : CML_OK;
}

/* The steps that take the place of one. */
typedef struct chain {
  cml_graph *g;
  cml_additions *more;
  size_t at;
  const char *name;
  uint32_t value, result; /* what the last of them makes; what the one made */
  cml_tensor y;           /* the result's type */
} chain;

static uint32_t new_value(chain *c, const cml_tensor *type) {
  return cml_tensor_same_shape(type, &c->y) ? c->result : cml_pass_value(c->g, c->name, type, CML_ROLE_COMPUTED);
}

static cml_status append(chain *c, const char *type, const cml_tensor *result, const char *param, uint32_t with, cml_error *err) {
  const uint32_t out = new_value(c, result);
  if (out == CML_NO_VALUE) return cml_fail_memory(err);
  CML_TRY(cml_pass_add(c->g, c->more, c->at, type, (const cml_binding[]){{"x", c->value}, {param, with}}, 2, out, err));
  c->value = out;
  return CML_OK;
}

/* [n, outputs s, blocks] to [n, outputs, blocks s] */
static cml_status spread_line(chain *c, const blocks *b, cml_tensor *t, cml_error *err) {
  static const int64_t turn[] = {0, 1, 3, 2};
  const int64_t n = t->dims[0], outputs = t->dims[1] / b->stride, length = b->count[0];
  cml_tensor apart = {.dtype = t->dtype, .rank = 4, .dims = {n, outputs, b->stride, length}}, turned = {.dtype = t->dtype, .rank = 4, .dims = {n, outputs, length, b->stride}};
  t->dims[1] = outputs, t->dims[2] = length * b->stride;
  CML_TRY(append(c, "reshape", &apart, "shape", cml_pass_ints(c->g, apart.dims, 4), err));
  CML_TRY(append(c, "transpose", &turned, "perm", cml_pass_ints(c->g, turn, 4), err));
  return append(c, "reshape", t, "shape", cml_pass_ints(c->g, t->dims, 3), err);
}

static cml_status spread(chain *c, const blocks *b, cml_tensor *t, cml_error *err) {
  if (b->stride == 1) return CML_OK;
  if (b->dims == 1) return spread_line(c, b, t, err);
  t->dims[1] /= b->stride * b->stride, t->dims[2] *= b->stride, t->dims[3] *= b->stride;
  return append(c, "pixel_shuffle", t, "upscale_factor", cml_pass_int(c->g, b->stride), err);
}

static cml_status cut(chain *c, const blocks *b, cml_error *err) {
  int64_t begin[4] = {0}, end[4];
  for (int32_t i = 0; i < c->y.rank; i++) begin[i] = i < 2 ? 0 : b->cut[i - 2], end[i] = begin[i] + c->y.dims[i];
  const cml_binding bindings[] = {{"x", c->value}, {"begin", cml_pass_ints(c->g, begin, c->y.rank)}, {"end", cml_pass_ints(c->g, end, c->y.rank)}};
  return cml_pass_add(c->g, c->more, c->at, "slice_by_index", bindings, 3, c->result, err);
}

static cml_status split(cml_graph *g, size_t at, cml_additions *more, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  blocks b;
  if (!cml_pass_is(s, "conv_transpose")) return CML_OK;
  const cml_tensor *w = cml_pass_constant(g, s, "weight"), *x = cml_pass_type(g, cml_pass_arg(s, "x")), *y = cml_pass_type(g, s->outs[0]);
  if (!fits(g, s, w, x, y, &b)) return CML_OK;
  const cml_tensor *bias = cml_pass_constant(g, s, "bias"), weights = *w, shifts = bias ? *bias : (cml_tensor){0}; /* values move when there are more of them */
  chain c = {.g = g, .more = more, .at = at, .name = g->values[s->outs[0]].name, .value = cml_pass_arg(s, "x"), .result = s->outs[0], .y = *y};
  cml_tensor t = *x;
  const int64_t pads[] = {b.before[0], b.after[0], b.before[1], b.after[1]};
  t.data = NULL, t.dims[1] = weights.dims[1] * b.stride * (b.dims == 2 ? b.stride : 1);
  for (int32_t i = 0; i < b.dims; i++) t.dims[2 + i] = b.count[i];
  cml_binding bindings[] = {{"x", c.value}, {"weight", CML_NO_VALUE}, {"pad_type", cml_pass_word(g, "custom")}, {"pad", cml_pass_ints(g, pads, 2 * b.dims)}, {"bias", CML_NO_VALUE}};
  CML_TRY(constants(g, &b, &weights, bias ? &shifts : NULL, &bindings[1], &bindings[4], err));
  const uint32_t sums = new_value(&c, &t);
  if (sums == CML_NO_VALUE) return cml_fail_memory(err);
  CML_TRY(cml_pass_add(g, more, at, "conv", bindings, bias ? 5 : 4, sums, err));
  c.value = sums;
  CML_TRY(spread(&c, &b, &t, err));
  if (c.value != c.result) CML_TRY(cut(&c, &b, err));
  s->op = NULL;
  return CML_OK;
}

cml_status cml_pass_transposed(cml_graph *g, cml_error *err) {
  cml_additions more = {0};
  cml_status status = CML_OK;
  for (size_t i = 0; i < g->body.step_count && !status; i++) status = split(g, i, &more, err);
  return cml_pass_put_in(g, &more, status, err);
}
