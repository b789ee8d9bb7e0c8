/* A transposed convolution whose taps do not overlap (kernel = stride, no padding) gives each of its pixels all outputs of a block of
 * kernel x kernel pixels. With few outputs that is better done at once, as an ordinary convolution of single pixels whose outputs
 * `pixel_shuffle` spreads, than as one convolution for each place of the block: a tile of sums has room for all of them. */
#include "passes.h"

enum { MOST_COLUMNS = 16, FEW_OUTPUTS = 4 }; /* a vector of sums; more outputs fill enough of it by themselves */

static bool absent_or(const cml_graph *g, const cml_step *s, const char *param, int64_t count, int64_t value) {
  const cml_tensor *t = cml_pass_constant(g, s, param);
  if (cml_pass_arg(s, param) == CML_NO_VALUE) return true;
  for (int64_t i = 0; t && i < count; i++)
    if (cml_tensor_count(t) != count || cml_tensor_get_int(t, i) != value) return false;
  return t;
}

static bool fits(const cml_graph *g, const cml_step *s, const cml_tensor *w, const cml_tensor *x, const cml_tensor *y) {
  if (!w || (w->dtype != CML_F32 && w->dtype != CML_F16) || w->dtype != y->dtype || w->rank != 4 || x->rank != 4) return false;
  if (!cml_tensor_known_shape(x) || !cml_tensor_known_shape(y) || !cml_tensor_known_shape(w)) return false;
  const int64_t k = w->dims[2];
  if (k < 2 || w->dims[3] != k || w->dims[1] > FEW_OUTPUTS || w->dims[1] * k * k > MOST_COLUMNS) return false;
  if (y->dims[2] != x->dims[2] * k || y->dims[3] != x->dims[3] * k) return false; /* the sizes that no padding and no rest give */
  return cml_pass_arg(s, "strides") != CML_NO_VALUE && absent_or(g, s, "strides", 2, k) && absent_or(g, s, "dilations", 2, 1) && absent_or(g, s, "groups", 1, 1) &&
         absent_or(g, s, "pad", 4, 0) && (cml_pass_arg(s, "bias") == CML_NO_VALUE || cml_pass_constant(g, s, "bias"));
}

/* [channels, outputs, k, k] as [outputs k k, channels, 1, 1]; the bias once for each place. */
static cml_status constants(cml_graph *g, const cml_tensor *w, const cml_tensor *bias, cml_binding *weight, cml_binding *shifts, cml_error *err) {
  const int64_t channels = w->dims[0], places = w->dims[2] * w->dims[3], columns = w->dims[1] * places;
  cml_tensor to = {.dtype = w->dtype, .rank = 4, .dims = {columns, channels, 1, 1}}, b = {.dtype = w->dtype, .rank = 1, .dims = {columns}};
  CML_TRY(cml_graph_constant(g, &to, err));
  for (int64_t c = 0; c < channels; c++)
    for (int64_t i = 0; i < columns; i++) cml_tensor_set(&to, i * channels + c, cml_tensor_get(w, c * columns + i));
  if ((weight->value = cml_pass_value(g, "", &to, CML_ROLE_CONSTANT)) == CML_NO_VALUE) return cml_fail_memory(err);
  if (!bias) return CML_OK;
  CML_TRY(cml_graph_constant(g, &b, err));
  for (int64_t i = 0; i < columns; i++) cml_tensor_set(&b, i, cml_tensor_get(bias, i / places));
  shifts->value = cml_pass_value(g, "", &b, CML_ROLE_CONSTANT);
  return shifts->value == CML_NO_VALUE ? cml_fail_memory(err) : CML_OK;
}

static cml_status split(cml_graph *g, size_t at, bool *done, cml_error *err) {
  cml_graph_block *body = &g->body;
  cml_step *s = &body->steps[at];
  if (!s->op || !cml_pass_is(s, "conv_transpose")) return CML_OK;
  const cml_tensor *w = cml_pass_constant(g, s, "weight"), *x = cml_pass_type(g, cml_pass_arg(s, "x")), *y = cml_pass_type(g, s->outs[0]);
  if (!fits(g, s, w, x, y)) return CML_OK;
  const int64_t k = w->dims[2];
  cml_tensor pixels = *x;
  pixels.data = NULL, pixels.dims[1] = w->dims[1] * k * k;
  cml_binding bindings[] = {{"x", cml_pass_arg(s, "x")}, {"weight", CML_NO_VALUE}, {"bias", CML_NO_VALUE}};
  CML_TRY(constants(g, w, cml_pass_constant(g, s, "bias"), &bindings[1], &bindings[2], err));
  const uint32_t made = cml_pass_value(g, g->values[s->outs[0]].name, &pixels, CML_ROLE_COMPUTED), factor = cml_pass_int(g, k);
  cml_step *steps = CML_ARENA_NEW_ARRAY(&g->arena, cml_step, body->step_count + 1);
  if (!steps || made == CML_NO_VALUE || factor == CML_NO_VALUE) return cml_fail_memory(err);
  memcpy(steps, body->steps, at * sizeof *steps);
  memcpy(steps + at + 1, body->steps + at, (body->step_count - at) * sizeof *steps);
  CML_TRY(cml_pass_new_step(g, "conv", bindings, 3, made, &steps[at], err));
  CML_TRY(cml_pass_become(g, &steps[at + 1], "pixel_shuffle", (const cml_binding[]){{"x", made}, {"upscale_factor", factor}}, 2, err));
  body->steps = steps, body->step_count++;
  *done = true;
  return CML_OK;
}

cml_status cml_pass_transposed(cml_graph *g, cml_error *err) {
  for (size_t i = 0; i < g->body.step_count; i++) {
    bool done = false;
    CML_TRY(split(g, i, &done, err));
    i += done;
  }
  return CML_OK;
}
