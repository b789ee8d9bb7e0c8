/* Sliding windows, as convolutions and pools have them: strides, paddings by mode, sizes of the output. */
#ifndef CML_WINDOWS_H
#define CML_WINDOWS_H

#include "op.h"

typedef struct cml_windows {
  int32_t dims; /* spatial dimensions, 1 to 3 */
  int64_t in[3], kernel[3], stride[3], dilation[3], before[3], after[3], out[3]; /* in and out -1 where unknown */
} cml_windows;

/* Which parameters hold them; -1 for those that an operator has not. */
typedef struct cml_window_params {
  int strides, pad_type, pad, dilations, ceil_mode;
} cml_window_params;

/* Reads the parameters and computes paddings and output sizes; x's spatial dims follow its batch and channels. dims, in and
 * kernel are set by the caller. Refuses what the operators' definitions refuse. */
CML_NODISCARD cml_status cml_windows_read(const cml_call *c, const cml_window_params *params, cml_windows *w, cml_error *err);
/* The values of a list parameter: `count` of them or a refusal; `otherwise` when absent; each at least `least`. */
CML_NODISCARD cml_status cml_window_list(const cml_call *c, int param, int32_t count, int64_t otherwise, int64_t least, int64_t *out,
                                         cml_error *err);

#endif
