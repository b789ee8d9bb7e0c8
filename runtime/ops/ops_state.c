/* State lives in the session. Reading copies, so that a later write does not change what was read, unless the plan has put what is
 * read, and what it becomes, into the state's own memory, where nobody would see the difference (plan_states.c). Writing gives no value
 * (coremltools' builder calls it coreml_update_state and reads the state again after it; under that name it gives the value
 * that was written). */
#include "families.h"

enum { INPUT, DATA };
static const cml_param read_params[] = {{"input", CML_M_ANY, CML_STATE, 0}};
static const cml_param write_params[] = {{"input", CML_M_ANY, CML_STATE, 1}, {"data", CML_M_ANY, 0, 1}};

static const cml_param update_params[] = {{"state", CML_M_ANY, CML_STATE, 1}, {"value", CML_M_ANY, 0, 1}};

static cml_status infer_read(cml_call *c, cml_error *err) {
  (void)err;
  cml_out_like(c, 0, cml_arg(c, INPUT));
  return CML_OK;
}

static cml_status run_read(cml_call *c, cml_error *err) {
  const cml_tensor *state = cml_arg(c, INPUT);
  return c->outs[0]->data == state->data ? CML_OK : cml_out_copy(c, 0, state, err);
}

static cml_status infer_write(cml_call *c, cml_error *err) {
  const cml_tensor *state = cml_arg(c, INPUT), *data = cml_arg(c, DATA);
  if (cml_tensor_known_shape(state) && cml_tensor_known_shape(data) && !cml_tensor_same_shape(state, data))
    return cml_call_fail(c, err, "the data has another shape than the state");
  return CML_OK;
}

static cml_status run_write(cml_call *c, cml_error *err) {
  const cml_tensor *state = cml_arg(c, INPUT), *data = cml_arg(c, DATA);
  uint64_t bytes, given;
  if (!cml_tensor_bytes(state, &bytes)) return cml_call_fail(c, err, "the state is too large");
  if (!cml_tensor_bytes(data, &given) || given != bytes) return cml_call_fail(c, err, "the data has another size than the state");
  if (state->data != data->data) memmove(state->data, data->data, bytes);
  return CML_OK;
}

static cml_status infer_update(cml_call *c, cml_error *err) {
  CML_TRY(infer_write(c, err));
  cml_out_like(c, 0, cml_arg(c, INPUT));
  return CML_OK;
}

static cml_status run_update(cml_call *c, cml_error *err) {
  CML_TRY(run_write(c, err));
  return run_read(c, err);
}

static const cml_op rows[] = {
    {.name = "read_state", .since = CML_IOS18, .flags = CML_OP_IMPURE, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(read_params),
     .infer = infer_read, .run = run_read},
    {.name = "write_state", .since = CML_IOS18, .flags = CML_OP_IMPURE, .min_outputs = 0, .max_outputs = 0, CML_PARAMS(write_params),
     .infer = infer_write, .run = run_write},
    {.name = "coreml_update_state", .since = CML_IOS18, .flags = CML_OP_IMPURE, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(update_params), .infer = infer_update, .run = run_update},
};

const cml_op_family cml_ops_state = {"state", rows, sizeof rows / sizeof *rows};
