/* The description of a program that came without one (.mil text alone): each input, output and state of its function is an
 * array of the value's type, with a range where a dimension is unknown. It is made as the ModelDescription message, so that it
 * is read and written like any other.
 *
 * Field numbers: Model.proto, FeatureTypes.proto of the Core ML specification; description.proto names them. */
#include "mil_names.h"
#include "model_features.h"
#include "wire.h"

enum { INPUT = 1, OUTPUT = 10, STATE = 13 };        /* ModelDescription */
enum { FEATURE_NAME = 1, FEATURE_TYPE = 3 };        /* FeatureDescription */
enum { TYPE_ARRAY = 5, TYPE_STATE = 8 };            /* FeatureType */
enum { ARRAY_SHAPE = 1, ARRAY_DTYPE = 2, ARRAY_RANGE = 31 };
enum { LARGEST_CORE_ML_OPSET = 9 };

/* The nearest of the five types that a feature can have; values are converted at the border. */
static uint32_t array_dtype(cml_dtype dtype) {
  switch (dtype) {
  case CML_F16: return 0x10010;
  case CML_F64: return 0x10040;
  case CML_I8: return 0x20008;
  case CML_I16: case CML_I32: case CML_I64: case CML_U8: case CML_U16: case CML_U32: case CML_U64: return 0x20020;
  default: return 0x10020;
  }
}

static void put_shape(cml_buffer *b, const cml_mil_type *t) {
  bool flexible = false;
  for (int32_t i = 0; i < t->rank; i++) {
    flexible |= t->dims[i] < 0;
    cml_wire_put_uint(b, ARRAY_SHAPE, t->dims[i] < 0 ? 1 : (uint64_t)t->dims[i]);
  }
  if (!flexible) return;
  size_t range = cml_wire_begin(b, ARRAY_RANGE);
  for (int32_t i = 0; i < t->rank; i++) {
    size_t one = cml_wire_begin(b, 1);
    cml_wire_put_uint(b, 1, t->dims[i] < 0 ? 1 : (uint64_t)t->dims[i]);
    cml_wire_put_uint(b, 2, (uint64_t)(t->dims[i] < 0 ? -1 : t->dims[i]));
    cml_wire_end(b, one);
  }
  cml_wire_end(b, range);
}

static cml_status put_feature(cml_buffer *b, uint32_t field, const char *name, const cml_mil_type *type, cml_error *err) {
  const cml_mil_type *t = type && type->kind == CML_TYPE_STATE && type->arg_count ? type->args[0] : type;
  if (!t || t->kind != CML_TYPE_TENSOR)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "%s is no array, and there is no description that says what it is", name);
  size_t feature = cml_wire_begin(b, field);
  cml_wire_put_bytes(b, FEATURE_NAME, name, strlen(name));
  size_t kind = cml_wire_begin(b, FEATURE_TYPE), state = 0;
  if (field == STATE) state = cml_wire_begin(b, TYPE_STATE);
  size_t array = cml_wire_begin(b, field == STATE ? 1 : TYPE_ARRAY);
  put_shape(b, t);
  cml_wire_put_uint(b, ARRAY_DTYPE, array_dtype(t->dtype));
  cml_wire_end(b, array);
  if (field == STATE) cml_wire_end(b, state);
  cml_wire_end(b, kind);
  cml_wire_end(b, feature);
  return CML_OK;
}

static cml_status put_features(cml_buffer *b, const cml_mil_function *f, const cml_mil_names *names, cml_error *err) {
  const cml_mil_block *body = cml_mil_body(f);
  for (size_t i = 0; i < f->input_count; i++) {
    const cml_mil_named *in = &f->inputs[i];
    CML_TRY(put_feature(b, in->type && in->type->kind == CML_TYPE_STATE ? STATE : INPUT, in->name, in->type, err));
  }
  for (size_t i = 0; i < body->output_count; i++) {
    const cml_mil_definition *d = cml_mil_names_find(names, body->outputs[i]);
    CML_TRY(put_feature(b, OUTPUT, body->outputs[i], d ? d->type : NULL, err));
  }
  return b->failed ? cml_fail_memory(err) : CML_OK;
}

/* CoreML5 came with specification version 6. */
static int32_t version_of(const cml_mil_function *f) {
  const char *digits = f->opset && !strncmp(f->opset, "CoreML", 6) ? f->opset + 6 : "";
  return digits[0] >= '5' && digits[0] <= '0' + LARGEST_CORE_ML_OPSET && !digits[1] ? digits[0] - '0' + 1 : LARGEST_CORE_ML_OPSET + 1;
}

cml_status cml_model_derive_description(cml_model *model, cml_error *err) {
  const cml_mil_function *f = cml_mil_find_function(model->program, "main");
  if (!f && model->program->function_count) f = model->program->functions[0];
  if (!f || !cml_mil_body(f)) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the program has no function that could run");
  cml_buffer description = CML_BUFFER_INIT;
  cml_mil_names names = {0};
  cml_status status = cml_mil_names_build(&names, &model->arena, f, cml_mil_body(f), err);
  if (!status) status = put_features(&description, f, &names, err);
  if (!status) status = cml_model_set_description(model, version_of(f), cml_span_of(description.data, description.size), err);
  if (!status && strcmp(f->name, "main")) model->default_function = f->name;
  cml_buffer_free(&description);
  return status;
}
