/* Control flow: an operation chooses which of its blocks to run, and hands values in and out. */
#include "families.h"

#include <stdlib.h>

static const cml_param cond_params[] = {{"pred", CML_M_BOOL, 0, 0}};
enum { LOOP_VARS };
static const cml_param while_params[] = {{"loop_vars", CML_M_ANY | CML_M_LIST, CML_VARIADIC, 0}};

/* The results are what the blocks give: as the program declares them. */
static cml_status infer_declared(cml_call *c, cml_error *err) {
  if (!c->declared) return cml_call_fail(c, err, "needs a program around it");
  for (size_t i = 0; i < c->out_count; i++) cml_out_like(c, i, &c->declared[i]);
  return CML_OK;
}

static cml_status copy_outputs(cml_call *c, const cml_tensor *const *values, cml_error *err) {
  for (size_t i = 0; i < c->out_count; i++) CML_TRY(cml_out_copy(c, i, values[i], err));
  return CML_OK;
}

static cml_status infer_cond(cml_call *c, cml_error *err) {
  const cml_tensor *pred = cml_arg(c, 0);
  if (cml_tensor_known_shape(pred) && cml_tensor_count(pred) != 1) return cml_call_fail(c, err, "pred must be a scalar");
  return infer_declared(c, err);
}

static cml_status run_cond(cml_call *c, cml_error *err) {
  const cml_tensor **values = calloc(c->out_count + 1, sizeof *values);
  if (!values) return cml_fail_memory(err);
  cml_status status = cml_run_block(c, cml_arg_bool(c, 0, false) ? 0 : 1, NULL, 0, values, c->out_count, err);
  if (!status) status = copy_outputs(c, values, err);
  free(values);
  return status;
}

static cml_status infer_while(cml_call *c, cml_error *err) {
  if (c->out_count != cml_arg_count(c, LOOP_VARS))
    return cml_call_fail(c, err, "has %zu loop variables and %zu outputs", cml_arg_count(c, LOOP_VARS), c->out_count);
  return infer_declared(c, err);
}

/* values: the loop variables, at first the arguments, then what the body gave. */
static cml_status loop(cml_call *c, const cml_tensor **values, cml_error *err) {
  for (;;) {
    const cml_tensor *go_on;
    CML_TRY(cml_run_block(c, 0, values, c->out_count, &go_on, 1, err));
    if (go_on->dtype != CML_BOOL || !go_on->data || cml_tensor_count(go_on) != 1)
      return cml_call_fail(c, err, "the condition must be one bool");
    if (!*(const uint8_t *)go_on->data) return copy_outputs(c, values, err);
    CML_TRY(cml_run_block(c, 1, values, c->out_count, values, c->out_count, err));
  }
}

static cml_status run_while(cml_call *c, cml_error *err) {
  const cml_tensor **values = calloc(c->out_count + 1, sizeof *values);
  if (!values) return cml_fail_memory(err);
  for (size_t i = 0; i < c->out_count; i++) values[i] = cml_arg_at(c, LOOP_VARS, i);
  cml_status status = loop(c, values, err);
  free(values);
  return status;
}

static const cml_op rows[] = {
    {.name = "cond", .since = CML_IOS15, .flags = CML_OP_CONTROL, .min_outputs = 0, .max_outputs = 255, CML_PARAMS(cond_params),
     .infer = infer_cond, .run = run_cond},
    {.name = "while_loop", .since = CML_IOS15, .flags = CML_OP_CONTROL, .min_outputs = 0, .max_outputs = 255, CML_PARAMS(while_params),
     .infer = infer_while, .run = run_while},
};

const cml_op_family cml_ops_control = {"control", rows, sizeof rows / sizeof *rows};
