/* Convolutions whose outputs each read one channel, though their weights say all, with zeros: converters write im2col (`unfold`) so, as
 * a convolution with the rows of a unit matrix, which takes as many times the work and the weights as there are channels. They become
 * convolutions with a group for each channel. A channel's infinities no longer become NaN in the outputs that do not read it. */
#include "mapping.h"
#include "passes.h"

enum { LEAST_CHANNELS = 2 };

static bool all_zero(const cml_tensor *w, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; i++)
    if (cml_tensor_get(w, i) != 0) return false;
  return true;
}

/* Whether each output reads nothing but the channel that its group would. Most weights say no at their second channel. */
static bool is_diagonal(const cml_tensor *w, int64_t inner) {
  const int64_t outputs = w->dims[0], channels = w->dims[1], each = outputs / channels;
  for (int64_t o = 0; o < outputs; o++) {
    const int64_t row = o * channels * inner, own = row + o / each * inner;
    if (!all_zero(w, row, own) || !all_zero(w, own + inner, row + channels * inner)) return false;
  }
  return true;
}

static cml_status fold(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  (void)uses;
  if (!cml_pass_is(s, "conv")) return CML_OK;
  const cml_tensor *from = cml_pass_constant(g, s, "weight");
  if (!from || (from->dtype != CML_F32 && from->dtype != CML_F16) || !cml_tensor_known_shape(from) || from->rank < 3) return CML_OK;
  const cml_tensor w = *from;
  const int64_t outputs = w.dims[0], channels = w.dims[1];
  if (cml_pass_number(g, s, "groups", 1) != 1 || channels < LEAST_CHANNELS || !outputs || outputs % channels) return CML_OK;
  const int64_t inner = cml_tensor_count(&w) / (outputs * channels);
  if (!is_diagonal(&w, inner)) return CML_OK;
  cml_tensor to = w;
  to.dims[1] = 1;
  CML_TRY(cml_graph_constant(g, &to, err));
  const size_t run = (size_t)inner * cml_dtype_bits(w.dtype) / 8;
  for (int64_t o = 0; o < outputs; o++)
    memcpy((char *)to.data + (size_t)o * run, (const char *)w.data + (size_t)(o * channels + o / (outputs / channels)) * run, run);
  const cml_binding others[] = {{"weight", cml_pass_value(g, "", &to, CML_ROLE_CONSTANT)}, {"groups", cml_pass_int(g, channels)}};
  if (others[0].value == CML_NO_VALUE || others[1].value == CML_NO_VALUE) return cml_fail_memory(err);
  CML_TRY(cml_pass_become_like(g, s, "conv", s, others, sizeof others / sizeof *others, err));
  cml_mapping_drop(w.data, (size_t)cml_tensor_count(&w) * cml_dtype_bits(w.dtype) / 8); /* the file's are not read again */
  return CML_OK;
}

cml_status cml_pass_groups(cml_graph *g, cml_error *err) { return cml_pass_each(g, fold, err); }
