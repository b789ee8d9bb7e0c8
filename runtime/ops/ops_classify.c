/* classify: the label of the largest probability, and the probabilities by label. */
#include "families.h"

enum { PROBABILITIES, CLASSES };
static const cml_param params[] = {{"probabilities", CML_M_FLOAT, 0, 0}, {"classes", CML_M_STRING | CML_MASK(I64) | CML_MASK(I32), CML_CONST, 0}};

static cml_status infer_classify(cml_call *c, cml_error *err) {
  const cml_tensor *p = cml_arg(c, PROBABILITIES), *classes = cml_arg(c, CLASSES);
  int64_t n = cml_tensor_count(classes);
  if (cml_tensor_known_shape(p) && cml_tensor_count(p) != n)
    return cml_call_fail(c, err, "has %lld classes and %lld probabilities", (long long)n, (long long)cml_tensor_count(p));
  if (n < 1) return cml_call_fail(c, err, "has no classes");
  cml_out_set(c, 0, classes->dtype, 0, NULL);
  if (c->out_count > 1) cml_out_set(c, 1, p->dtype, 1, &n);
  return CML_OK;
}

static cml_status run_classify(cml_call *c, cml_error *err) {
  const cml_tensor *p = cml_arg(c, PROBABILITIES), *classes = cml_arg(c, CLASSES);
  int64_t n = cml_tensor_count(classes), best = 0;
  (void)err;
  for (int64_t i = 1; i < n; i++)
    if (cml_tensor_get(p, i) > cml_tensor_get(p, best)) best = i;
  if (classes->dtype == CML_STRING) *(cml_string *)c->outs[0]->data = ((const cml_string *)classes->data)[best];
  else cml_tensor_set_int(c->outs[0], 0, cml_tensor_get_int(classes, best));
  if (c->out_count > 1) {
    cml_convert(c->outs[1]->data, c->outs[1]->dtype, p->data, p->dtype, n);
    c->outs[1]->keys = classes;
  }
  return CML_OK;
}

static const cml_op rows[] = {
    {.name = "classify", .since = CML_IOS15, .min_outputs = 1, .max_outputs = 2, CML_PARAMS(params), .infer = infer_classify,
     .run = run_classify},
};

const cml_op_family cml_ops_classify = {"classify", rows, sizeof rows / sizeof *rows};
