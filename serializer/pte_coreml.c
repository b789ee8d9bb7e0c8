/* What ExecuTorch's Core ML backend puts into a delegate: the flat blob of a package, or, where several methods share one
 * package, "CMJR" and a JSON object {version, key, functionName} that leads to it through named data. */
#include "json_read.h"
#include "pte.h"

static cml_string copy_text(const json_t *object, const char *name, cml_arena *arena) {
  const json_t *text = json_object_get(object, name);
  if (!json_is_string(text)) return (cml_string){NULL, 0};
  size_t size = json_string_length(text);
  const char *copy = cml_arena_text(arena, json_string_value(text), size);
  return (cml_string){copy, copy ? size : 0};
}

static cml_status decode_reference(const cml_pte *pte, cml_span bytes, cml_arena *arena, cml_pte_coreml *out, cml_error *err) {
  uint64_t at = cml_pte_offset(pte, bytes.data);
  json_t *json;
  cml_error problem;
  cml_status status = cml_json_parse((cml_span){bytes.data + 4, bytes.size - 4}, JSON_REJECT_DUPLICATES, "the reference to a Core ML model",
                                     &json, &problem);
  if (status)
    return cml_fail(err, status, at == CML_NO_OFFSET || problem.offset == CML_NO_OFFSET ? at : at + 4 + problem.offset, "%s", problem.text);
  out->is_reference = true;
  out->version = json_integer_value(json_object_get(json, "version"));
  out->key = copy_text(json, "key", arena);
  out->function = copy_text(json, "functionName", arena);
  json_decref(json);
  if (out->version != 1)
    return cml_fail(err, CML_UNSUPPORTED, at, "the reference to a Core ML model has version %lld, expected 1",
                    (long long)out->version);
  if (!out->key.size) return cml_fail(err, CML_INVALID, at, "the reference to a Core ML model has no key");
  if (!cml_pte_find_named(pte, out->key, &out->blob))
    return cml_fail(err, CML_NOT_FOUND, at, "a Core ML model is referred to as '%s', which is not in the named data",
                    out->key.data);
  return CML_OK;
}

static cml_string text_of(const cml_pte_spec *spec) {
  return (cml_string){spec->value.data ? (const char *)spec->value.data : "", spec->value.size};
}

const char *cml_pte_coreml_ignores(const cml_pte_spec *spec) {
  static const char *const in_the_model[] = {"min_deployment_target", "model_compute_precision", "multimethod_weight_sharing_strategy",
                                             "op_linear_quantizer_config", "enumerated_shapes", "pass_pipeline"};
  for (size_t i = 0; i < sizeof in_the_model / sizeof *in_the_model; i++)
    if (cml_pte_string_is(spec->key, in_the_model[i])) return NULL;
  cml_string value = text_of(spec);
  if (cml_pte_string_is(spec->key, "compute_units"))
    return !value.size || cml_pte_string_is(value, "all") || cml_pte_string_is(value, "cpu_only") ? NULL : "everything runs on the CPU";
  if (cml_pte_string_is(spec->key, "model_type"))
    return cml_pte_string_is(value, "model") || cml_pte_string_is(value, "compiled_model") ? NULL : "the model in the delegate is taken as it is";
  return "no such spec is known";
}

static void decode_spec(const cml_pte_spec *spec, cml_pte_coreml *out) {
  const struct {
    const char *key;
    cml_string *field;
  } rows[] = {
      {"compute_units", &out->compute_units},
      {"model_type", &out->model_type},
      {"min_deployment_target", &out->min_deployment_target},
      {"model_compute_precision", &out->compute_precision},
      {"multimethod_weight_sharing_strategy", &out->weight_sharing},
      {"op_linear_quantizer_config", &out->quantizer_config},
      {"enumerated_shapes", &out->enumerated_shapes},
      {"pass_pipeline", &out->pass_pipeline},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (cml_pte_string_is(spec->key, rows[i].key))
      *rows[i].field = text_of(spec);
}

cml_status cml_pte_coreml_decode(const cml_pte *pte, const cml_pte_delegate *delegate, cml_arena *arena, cml_pte_coreml *out,
                                 cml_error *err) {
  cml_pte_coreml r = {.blob = delegate->data};
  for (uint32_t i = 0; i < delegate->spec_count; i++) decode_spec(&delegate->specs[i], &r);
  if (delegate->data.size >= 4 && !memcmp(delegate->data.data, "CMJR", 4))
    CML_TRY(decode_reference(pte, delegate->data, arena, &r, err));
  *out = r;
  return CML_OK;
}
