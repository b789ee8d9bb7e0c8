/* Zeros that a program puts around an image for one convolution alone become paddings of the convolution, which reads no zeros from
 * memory: converters write asymmetric paddings so, and those "as in TensorFlow". */
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

cml_status cml_pass_pads(cml_graph *g, cml_error *err) { return cml_pass_each(g, fold, err); }
