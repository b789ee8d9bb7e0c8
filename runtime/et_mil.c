/* Runs a MIL operator on tensors of the virtual machine: its arguments are put into the order of the row's parameters, its
 * outputs are tensors whose shape infer gives. */
#include <stdlib.h>

#include "et_memory.h"
#include "runner.h"

enum { MAX_ARGS = 64, MAX_OUTS = 8, NEWEST = CML_IOS18 };

typedef struct bridge {
  cml_tensor tensors[MAX_ARGS], outs[MAX_OUTS];
  const cml_tensor *args[MAX_ARGS];
  uint16_t first[MAX_ARGS + 1];
  cml_tensor *out_pointers[MAX_OUTS];
  cml_runner runner;
} bridge;

static cml_tensor tensor_of(const cml_et_tensor *t) {
  cml_tensor out = {.dtype = t->dtype, .rank = t->rank, .data = t->data};
  for (int k = 0; k < t->rank && k < CML_MAX_RANK; k++) out.dims[k] = t->sizes[k];
  return out;
}

static cml_status sort_args(cml_et_call *c, const cml_op *op, const cml_et_mil_arg *args, size_t arg_count, bridge *b, cml_error *err) {
  size_t used = 0;
  for (size_t p = 0; p < op->param_count; p++) {
    b->first[p] = (uint16_t)used;
    for (size_t i = 0; i < arg_count; i++) {
      if (strcmp(args[i].name, op->params[p].name)) continue;
      b->tensors[used] = args[i].tensor ? tensor_of(args[i].tensor) : args[i].constant;
      b->args[used] = &b->tensors[used];
      used++;
    }
  }
  b->first[op->param_count] = (uint16_t)used;
  return used == arg_count ? CML_OK : cml_et_fail(c, err, "an argument is no parameter of %s", op->name);
}

static cml_status run(cml_et_call *c, const cml_op *op, bridge *b, cml_et_tensor **outs, size_t out_count, cml_error *err) {
  cml_call call = {.op = op, .name = c->name, .opset = NEWEST, .args = b->args, .first = b->first, .outs = b->out_pointers,
                   .out_count = out_count, .pool = c->pool, .runner = &b->runner};
  for (size_t i = 0; i < out_count; i++) {
    b->outs[i] = (cml_tensor){.rank = CML_RANK_UNKNOWN};
    b->out_pointers[i] = &b->outs[i];
  }
  CML_TRY(op->infer(&call, err));
  for (size_t i = 0; i < out_count; i++) {
    if (!cml_tensor_known_shape(&b->outs[i]) || b->outs[i].dtype != outs[i]->dtype)
      return cml_et_fail(c, err, "output %zu is %s, and %s gives %s", i, cml_dtype_name(outs[i]->dtype), op->name,
                         cml_dtype_name(b->outs[i].dtype));
    CML_TRY(cml_et_resize(c, outs[i], (size_t)b->outs[i].rank, b->outs[i].dims, err));
    b->outs[i].data = outs[i]->data;
  }
  if (call.scratch_size && !(call.scratch = cml_et_temp(c, call.scratch_size))) return cml_fail_memory(err);
  return op->run(&call, err);
}

cml_status cml_et_mil(cml_et_call *c, const char *name, const cml_et_mil_arg *args, size_t arg_count, cml_et_tensor **outs, size_t out_count,
                      cml_error *err) {
  const cml_op *op = *c->memo;
  if (!op || strcmp(op->name, name)) op = cml_op_find(name, NEWEST);
  if (!op) return cml_et_fail(c, err, "there is no MIL operator '%s'", name);
  *c->memo = (void *)(uintptr_t)op;
  if (arg_count > MAX_ARGS || op->param_count > MAX_ARGS || out_count > MAX_OUTS) return cml_et_fail(c, err, "too many arguments");
  bridge *b = cml_et_temp(c, sizeof *b);
  if (!b) return cml_fail_memory(err);
  cml_random_seed(b->runner.random, 0);
  b->runner.session = NULL;
  b->runner.run_block = NULL;
  CML_TRY(sort_args(c, op, args, arg_count, b, err));
  return run(c, op, b, outs, out_count, err);
}
