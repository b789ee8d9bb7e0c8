/* Registers a backend of one's own for delegates of ExecuTorch programs, in one table of functions, and runs a program that has such
 * delegates. The backend "ScaleBackend" multiplies a tensor by the number that its compile spec "factor" holds.
 *
 *     cc own_backend.c $(pkg-config --cflags --libs cml) -o own_backend && ./own_backend scale.pte 1 -2 0.5 */
#include <cml/et_program.h>
#include <stdio.h>
#include <stdlib.h>

/* Once for each delegate, when a method is loaded: everything about it is in `info`. */
static cml_status init(void *context, const cml_et_delegate_info *info, void **out_handle, cml_error *err) {
  (void)context;
  for (uint32_t i = 0; i < info->delegate->spec_count; i++) {
    const cml_pte_spec *s = &info->delegate->specs[i];
    if (!cml_pte_string_is(s->key, "factor") || s->value.size != sizeof(float)) continue;
    float *factor = malloc(sizeof *factor);
    if (!factor) return cml_fail_memory(err);
    memcpy(factor, s->value.data, sizeof *factor);
    *out_handle = factor;
    return CML_OK;
  }
  return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "there is no factor among the compile specs");
}

/* At each call: the arguments are the program's values, inputs then outputs. The program may be anybody's: check them. */
static cml_status execute(void *handle, cml_et_call *call, cml_error *err) {
  if (call->arg_count != 2 || call->args[0]->kind != CML_PTE_TENSOR || call->args[1]->kind != CML_PTE_TENSOR)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "takes one tensor and gives one");
  const cml_et_tensor *x = call->args[0]->tensor;
  cml_et_tensor *y = call->args[1]->tensor;
  if (x->dtype != CML_F32 || y->dtype != CML_F32 || y->constant || !cml_et_is_contiguous(x) || !cml_et_is_contiguous(y) || !x->data)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "takes contiguous float32 tensors");
  cml_status status = cml_et_resize_like(call, y, x, err); /* also checks that the memory is large enough */
  if (status) return status;
  for (int64_t i = 0; i < cml_et_numel(x); i++) ((float *)y->data)[i] = ((const float *)x->data)[i] * *(float *)handle;
  return CML_OK;
}

static cml_status run(cml_et_method *method, float *numbers, int64_t count, cml_error *err) {
  const cml_tensor in = {.dtype = CML_F32, .rank = 2, .dims = {1, count}, .data = numbers};
  cml_tensor out;
  cml_status status = cml_et_method_set_tensor(method, 0, &in, err);
  if (!status) status = cml_et_method_run(method, err);
  if (!status) status = cml_et_method_export(method, cml_et_method_output(method, 0), &out, err);
  for (int64_t i = 0; !status && i < cml_tensor_count(&out); i++) printf("%g\n", cml_tensor_get(&out, i));
  return status;
}

int main(int argc, char **argv) {
  static const cml_et_backend backend = {.id = "ScaleBackend", .init = init, .execute = execute, .destroy = free};
  cml_et_program *program = NULL;
  cml_et_method *method = NULL;
  float numbers[16];
  cml_error err;
  if (argc < 3 || argc > 18) {
    fprintf(stderr, "usage: own_backend PROGRAM.pte NUMBER...\n");
    return 2;
  }
  for (int i = 2; i < argc; i++) numbers[i - 2] = strtof(argv[i], NULL);
  cml_status status = cml_et_backend_register(&backend, &err);
  if (!status) status = cml_et_program_open(argv[1], NULL, NULL, &program, &err);
  if (!status) status = cml_et_method_load(program, NULL, &method, &err);
  if (!status) status = run(method, numbers, argc - 2, &err);
  if (status) fprintf(stderr, "%s: %s\n", argv[1], err.text);
  cml_et_method_unload(method);
  cml_et_program_close(program);
  return status != CML_OK;
}
