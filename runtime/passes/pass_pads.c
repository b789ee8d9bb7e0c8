/* Zeros that a program puts around an image for one convolution alone become paddings of the convolution, which reads no zeros from
 * memory: converters write asymmetric paddings so, and those "as in TensorFlow". Edges that are cut off of what a transposed convolution makes
 * become its padding: converters write PyTorch's output_padding so, and audio codecs cut the end of each block. */
#include "passes.h"

/* Adds the step's zeros to pads, of the `dims` last dimensions; false when it does something else. */
static bool add_zeros(const cml_graph *g, const cml_step *s, int32_t dims, int64_t *pads) {
  const cml_tensor *by = cml_pass_constant(g, s, "pad"), *value = cml_pass_constant(g, s, "constant_val");
  if (!by || !cml_pass_is_word(g, s, "mode", "constant")) return false;
  if (cml_pass_arg(s, "constant_val") != CML_NO_VALUE && (!value || cml_tensor_count(value) != 1 || cml_tensor_get(value, 0) != 0)) return false;
  int64_t n = cml_tensor_count(by), skip = n - 2 * dims; /* the vector speaks of the last dimensions */
  for (int64_t i = 0; i < n; i++) {
    int64_t v = cml_tensor_get_int(by, i);
    if (v < 0 || v > INT32_MAX / 4 || (i < skip && v)) return false;
    if (i >= skip) pads[i - skip] += v;
  }
  return true;
}

static cml_status fold(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  if (!cml_pass_is(s, "pad")) return CML_OK;
  cml_step *conv = cml_pass_only_user(g, uses, s->outs[0]);
  if (!conv || !cml_pass_is(conv, "conv") || cml_pass_arg(conv, "x") != s->outs[0]) return CML_OK;
  int32_t dims = cml_pass_type(g, s->outs[0])->rank - 2;
  const cml_tensor *own = cml_pass_constant(g, conv, "pad");
  bool custom = cml_pass_arg(conv, "pad_type") != CML_NO_VALUE && cml_pass_is_word(g, conv, "pad_type", "custom");
  int64_t pads[6] = {0};
  if (dims < 1 || dims > 3 || (!custom && !cml_pass_is_word(g, conv, "pad_type", "valid")) || (custom && (!own || cml_tensor_count(own) != 2 * dims))) return CML_OK;
  for (int32_t i = 0; custom && i < 2 * dims; i++) pads[i] = cml_tensor_get_int(own, i);
  if (!add_zeros(g, s, dims, pads)) return CML_OK;
  uint32_t pad = cml_pass_ints(g, pads, 2 * dims), type = custom ? cml_pass_arg(conv, "pad_type") : cml_pass_word(g, "custom");
  if (pad == CML_NO_VALUE || type == CML_NO_VALUE) return cml_fail_memory(err);
  const cml_binding others[] = {{"x", cml_pass_arg(s, "x")}, {"pad_type", type}, {"pad", pad}};
  CML_TRY(cml_pass_become_like(g, conv, "conv", conv, others, sizeof others / sizeof *others, err));
  s->op = NULL;
  return CML_OK;
}

/* How much the step cuts off before the first element of each of the `dims` last dimensions; false when it does something else. */
static bool cut_before(const cml_graph *g, const cml_step *s, const cml_tensor *x, int32_t dims, int64_t *before) {
  const cml_tensor *down = cml_pass_constant(g, s, "crop_height"), *across = cml_pass_constant(g, s, "crop_width");
  if (cml_pass_is(s, "crop")) {
    if (dims != 2 || !down || !across) return false;
    before[0] = cml_tensor_get_int(down, 0), before[1] = cml_tensor_get_int(across, 0);
    return true;
  }
  if (!cml_pass_is(s, "slice_by_index")) return false;
  const cml_tensor *y = cml_pass_type(g, s->outs[0]), *begin = cml_pass_constant(g, s, "begin"), *from_start = cml_pass_constant(g, s, "begin_mask"), *step = cml_pass_constant(g, s, "stride");
  if (!begin || cml_tensor_count(begin) != x->rank || y->rank != x->rank || y->dims[0] != x->dims[0] || y->dims[1] != x->dims[1]) return false;
  if ((!from_start && cml_pass_arg(s, "begin_mask") != CML_NO_VALUE) || (!step && cml_pass_arg(s, "stride") != CML_NO_VALUE)) return false;
  for (int32_t i = 0; i < x->rank; i++) {
    int64_t at = from_start && cml_tensor_get_int(from_start, i) ? 0 : cml_tensor_get_int(begin, i);
    if (step && cml_tensor_get_int(step, i) != 1) return false;
    if (i >= 2) before[i - 2] = at < 0 ? at + x->dims[i] : at;
  }
  return true;
}

static cml_status fold_cut(cml_graph *g, const cml_use *uses, size_t at, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  if (!cml_pass_is(s, "conv_transpose")) return CML_OK;
  cml_step *cut = cml_pass_only_user(g, uses, s->outs[0]);
  const cml_tensor *x = cml_pass_type(g, s->outs[0]), *y = cut ? cml_pass_type(g, cut->outs[0]) : NULL, *own = cml_pass_constant(g, s, "pad");
  const bool custom = cml_pass_arg(s, "pad_type") != CML_NO_VALUE && cml_pass_is_word(g, s, "pad_type", "custom");
  const int32_t dims = x->rank - 2;
  int64_t before[3] = {0}, pads[6] = {0};
  if (!y || dims < 1 || dims > 3 || !cml_tensor_known_shape(x) || !cml_tensor_known_shape(y) || cml_tensor_count(y) == 0) return CML_OK;
  if ((!custom && !cml_pass_is_word(g, s, "pad_type", "valid")) || (custom && (!own || cml_tensor_count(own) != 2 * dims))) return CML_OK;
  if (!cut_before(g, cut, x, dims, before)) return CML_OK;
  for (int32_t i = 0; i < dims; i++) {
    if (before[i] < 0 || before[i] + y->dims[2 + i] > x->dims[2 + i]) return CML_OK;
    pads[2 * i] = (custom ? cml_tensor_get_int(own, 2 * i) : 0) + before[i];
    pads[2 * i + 1] = custom ? cml_tensor_get_int(own, 2 * i + 1) : 0; /* what output_shape says goes for the end */
  }
  uint32_t pad = cml_pass_ints(g, pads, 2 * dims), type = cml_pass_word(g, "custom"), shape = cml_pass_ints(g, y->dims, y->rank);
  if (pad == CML_NO_VALUE || type == CML_NO_VALUE || shape == CML_NO_VALUE) return cml_fail_memory(err);
  const cml_binding others[] = {{"pad_type", type}, {"pad", pad}, {"output_shape", shape}};
  CML_TRY(cml_pass_become_like(g, cut, "conv_transpose", s, others, sizeof others / sizeof *others, err));
  s->op = NULL;
  return CML_OK;
}

cml_status cml_pass_pads(cml_graph *g, cml_error *err) {
  CML_TRY(cml_pass_each(g, fold, err));
  return cml_pass_each(g, fold_cut, err);
}
