/* Operators that only hand a value on. */
#include "families.h"

static const cml_param identity_params[] = {{"x", CML_M_ANY | CML_M_LIST, 0, 0}};

static cml_status infer_identity(cml_call *c, cml_error *err) {
  (void)err;
  cml_out_like(c, 0, cml_arg(c, 0));
  return CML_OK;
}

static cml_status run_identity(cml_call *c, cml_error *err) { return cml_out_copy(c, 0, cml_arg(c, 0), err); }

static const cml_op rows[] = {
    {.name = "identity", .since = CML_IOS15, .flags = CML_OP_VIEW, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(identity_params), .infer = infer_identity, .run = run_identity},
};

const cml_op_family cml_ops_basic = {"basic", rows, sizeof rows / sizeof *rows};
