/* The rules are those of coremltools' spatial_dimensions_out_shape. "same" pads so that the output has ceil(in / stride)
 * elements, the odd one at the end; same_lower puts it at the beginning. */
#include "windows.h"

#include <strings.h>

enum { LARGEST = 1 << 24 }; /* of a stride, dilation, padding or kernel: keeps the sums below far from overflow */

cml_status cml_window_list(const cml_call *c, int param, int32_t count, int64_t otherwise, int64_t least, int64_t *out, cml_error *err) {
  int64_t values[8];
  size_t n = param < 0 ? 0 : cml_arg_ints(c, (unsigned)param, values, 8);
  if (n && n != (size_t)count) return cml_call_fail(c, err, "%s must have %d elements, not %zu", c->op->params[param].name, count, n);
  for (int32_t i = 0; i < count; i++) {
    out[i] = n ? values[i] : otherwise;
    if (out[i] < least || out[i] > LARGEST)
      return cml_call_fail(c, err, "%s holds %lld, which is out of range", param < 0 ? "a list" : c->op->params[param].name, (long long)out[i]);
  }
  return CML_OK;
}

static void pad_same(cml_windows *w, int32_t i, bool lower) {
  int64_t effective = (w->kernel[i] - 1) * w->dilation[i] + 1, rest = w->in[i] % w->stride[i];
  int64_t total = effective - (rest ? rest : w->stride[i]);
  if (total < 0) total = 0;
  w->before[i] = lower ? (total + 1) / 2 : total / 2;
  w->after[i] = total - w->before[i];
}

cml_status cml_windows_read(const cml_call *c, const cml_window_params *p, cml_windows *w, cml_error *err) {
  int64_t pad[6];
  const char *type = p->pad_type < 0 ? "valid" : cml_arg_text(c, (unsigned)p->pad_type, "valid");
  bool same = !strcasecmp(type, "same"), lower = !strcasecmp(type, "same_lower"), custom = !strcasecmp(type, "custom");
  bool ceiling = p->ceil_mode >= 0 && cml_arg_bool(c, (unsigned)p->ceil_mode, false);
  if (!same && !lower && !custom && strcasecmp(type, "valid")) return cml_call_fail(c, err, "pad_type '%s' is unknown", type);
  if (lower && c->opset < CML_IOS16) return cml_call_fail(c, err, "pad_type 'same_lower' needs iOS 16");
  if (ceiling && w->dims > 2) return cml_call_fail(c, err, "ceil_mode is for one or two spatial dimensions");
  if (ceiling && same) return cml_call_fail(c, err, "ceil_mode does not go with pad_type 'same'");
  CML_TRY(cml_window_list(c, p->strides, w->dims, 1, 1, w->stride, err));
  CML_TRY(cml_window_list(c, p->dilations, w->dims, 1, 1, w->dilation, err));
  CML_TRY(cml_window_list(c, custom ? p->pad : -1, 2 * w->dims, 0, 0, pad, err));
  for (int32_t i = 0; i < w->dims; i++) {
    if (w->kernel[i] == 0 || w->kernel[i] > LARGEST) return cml_call_fail(c, err, "a kernel of %lld elements", (long long)w->kernel[i]);
    w->before[i] = pad[2 * i];
    w->after[i] = pad[2 * i + 1];
    if (ceiling && pad[2 * i] != pad[2 * i + 1]) return cml_call_fail(c, err, "padding must be symmetric when ceil_mode is true");
    if (w->in[i] < 0 || w->kernel[i] < 0) {
      w->out[i] = CML_DIM_UNKNOWN;
      continue;
    }
    if (same || lower) pad_same(w, i, lower);
    int64_t room = w->in[i] + w->before[i] + w->after[i] - ((w->kernel[i] - 1) * w->dilation[i] + 1);
    if (ceiling) room += w->stride[i] - 1;
    if (room < 0) return cml_call_fail(c, err, "spatial dimension %d of %lld elements is smaller than the kernel", i, (long long)w->in[i]);
    w->out[i] = room / w->stride[i] + 1;
    if (ceiling && w->before[i] + w->after[i] > 0 && (w->out[i] - 1) * w->stride[i] >= w->in[i] + w->before[i]) w->out[i]--;
  }
  return CML_OK;
}
