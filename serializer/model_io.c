/* Features as words and as JSON. */
#include "model_io.h"

#include <inttypes.h>
#include <math.h>

#include "summary.h"

static const char *kind_name(cml_feature_kind kind) {
  static const char *const kinds[] = {"int64", "double", "string", "image", "array", "dictionary", "sequence", "state", "none"};
  return kinds[kind];
}

static bool has_shape(const cml_feature *f) {
  return f->kind == CML_FEATURE_ARRAY || f->kind == CML_FEATURE_STATE || f->kind == CML_FEATURE_IMAGE;
}

static void print_shape(cml_buffer *out, const cml_feature *f) {
  cml_buffer_char(out, '[');
  for (size_t i = 0; i < f->rank; i++) {
    if (i) cml_buffer_text(out, ", ");
    bool range = f->flexibility == CML_FLEX_RANGE && f->ranges && f->ranges[i].lower != f->ranges[i].upper;
    if (!range) cml_buffer_printf(out, "%" PRId64, f->shape[i]);
    else if (f->ranges[i].upper < 0) cml_buffer_printf(out, "%" PRId64 "..", f->ranges[i].lower);
    else cml_buffer_printf(out, "%" PRId64 "..%" PRId64, f->ranges[i].lower, f->ranges[i].upper);
  }
  cml_buffer_char(out, ']');
  if (f->flexibility == CML_FLEX_ENUMERATED) cml_buffer_printf(out, " and %zu shapes in all", f->shape_count);
}

static const char *color_name(cml_color color) {
  switch (color) {
    case CML_COLOR_GRAYSCALE: return "grayscale";
    case CML_COLOR_RGB: return "RGB";
    case CML_COLOR_BGR: return "BGR";
    case CML_COLOR_GRAYSCALE_FLOAT16: return "grayscale fp16";
    default: return "any colour";
  }
}

void cml_feature_text(const cml_feature *f, cml_buffer *out) {
  cml_buffer_text(out, kind_name(f->kind));
  if (f->kind == CML_FEATURE_IMAGE) cml_buffer_printf(out, " %s, height and width ", color_name(f->color));
  if (f->kind == CML_FEATURE_ARRAY || f->kind == CML_FEATURE_STATE) cml_buffer_printf(out, " %s ", cml_dtype_name(f->dtype));
  if (f->kind == CML_FEATURE_ARRAY || f->kind == CML_FEATURE_STATE || f->kind == CML_FEATURE_IMAGE) print_shape(out, f);
  if (f->kind == CML_FEATURE_DICTIONARY) cml_buffer_text(out, f->key_is_string ? " of string keys" : " of int64 keys");
  if (f->optional) cml_buffer_text(out, ", optional");
  if (f->has_default) cml_buffer_printf(out, ", default %g", f->default_value);
}

static void print_feature(cml_buffer *out, const char *role, const cml_feature *f) {
  cml_buffer_printf(out, "  %-7s %-24s ", role, f->name ? f->name : "");
  cml_feature_text(f, out);
  cml_buffer_char(out, '\n');
}

void cml_model_io_text(const cml_features *inputs, const cml_features *states, const cml_features *outputs, cml_buffer *out) {
  for (size_t i = 0; i < inputs->count; i++) print_feature(out, "input", &inputs->items[i]);
  for (size_t i = 0; i < states->count; i++) print_feature(out, "state", &states->items[i]);
  for (size_t i = 0; i < outputs->count; i++) print_feature(out, "output", &outputs->items[i]);
}

/* ---- JSON ---- */

static void json_text(cml_buffer *out, const char *key, const char *value) {
  cml_buffer_printf(out, "\"%s\": ", key);
  if (value) cml_buffer_json_string(out, value, strlen(value));
  else cml_buffer_text(out, "null");
}

static void json_integers(cml_buffer *out, const int64_t *values, size_t count) {
  cml_buffer_char(out, '[');
  for (size_t i = 0; i < count; i++) cml_buffer_printf(out, i ? ", %" PRId64 : "%" PRId64, values[i]);
  cml_buffer_char(out, ']');
}

static void json_flexibility(cml_buffer *out, const cml_feature *f) {
  if (f->flexibility == CML_FLEX_RANGE && f->ranges) {
    cml_buffer_text(out, ", \"ranges\": [");
    for (size_t i = 0; i < f->rank; i++) {
      cml_buffer_printf(out, "%s[%" PRId64 ", ", i ? ", " : "", f->ranges[i].lower);
      if (f->ranges[i].upper < 0) cml_buffer_text(out, "null]");
      else cml_buffer_printf(out, "%" PRId64 "]", f->ranges[i].upper);
    }
    cml_buffer_char(out, ']');
  }
  if (f->flexibility == CML_FLEX_ENUMERATED) {
    cml_buffer_text(out, ", \"shapes\": [");
    for (size_t i = 0; i < f->shape_count; i++) {
      if (i) cml_buffer_text(out, ", ");
      json_integers(out, f->shapes + i * f->rank, f->rank);
    }
    cml_buffer_char(out, ']');
  }
}

static void json_feature(cml_buffer *out, const cml_feature *f) {
  cml_buffer_char(out, '{');
  json_text(out, "name", f->name ? f->name : "");
  cml_buffer_text(out, ", ");
  json_text(out, "kind", kind_name(f->kind));
  if (f->kind == CML_FEATURE_ARRAY || f->kind == CML_FEATURE_STATE) cml_buffer_printf(out, ", \"type\": \"%s\"", cml_dtype_name(f->dtype));
  if (f->kind == CML_FEATURE_IMAGE) cml_buffer_printf(out, ", \"color\": \"%s\"", color_name(f->color));
  if (has_shape(f)) {
    cml_buffer_text(out, ", \"shape\": ");
    json_integers(out, f->shape, f->rank);
    json_flexibility(out, f);
  }
  if (f->kind == CML_FEATURE_DICTIONARY) cml_buffer_printf(out, ", \"keys\": \"%s\"", f->key_is_string ? "string" : "int64");
  if (f->has_default && isfinite(f->default_value)) cml_buffer_printf(out, ", \"default\": %.17g", f->default_value);
  if (f->optional) cml_buffer_text(out, ", \"optional\": true");
  if (f->doc && *f->doc) {
    cml_buffer_text(out, ", ");
    json_text(out, "description", f->doc);
  }
  cml_buffer_char(out, '}');
}

static void json_features(cml_buffer *out, const char *role, const cml_features *features) {
  cml_buffer_printf(out, ",\n \"%s\": [", role);
  for (size_t i = 0; i < features->count; i++) {
    cml_buffer_text(out, i ? ",\n  " : "\n  ");
    json_feature(out, &features->items[i]);
  }
  cml_buffer_char(out, ']');
}

static void json_optional(cml_buffer *out, const char *key, const char *value) {
  if (!value || !*value) return;
  cml_buffer_text(out, ",\n ");
  json_text(out, key, value);
}

/* A scalar of a list of labels. */
static void json_label(cml_buffer *out, const cml_mil_value *label) {
  if (label->kind == CML_VALUE_TENSOR && label->count == 1 && label->strings)
    cml_buffer_json_string(out, label->strings[0].data, label->strings[0].size);
  else if (label->kind == CML_VALUE_TENSOR && label->type->dtype == CML_I64 && label->data.size == 8)
    cml_buffer_printf(out, "%" PRId64, (int64_t)cml_load_u64(label->data.data));
  else cml_buffer_text(out, "null");
}

static void json_labels(cml_buffer *out, const cml_model *model, const char *function) {
  const cml_mil_function *f = model->program ? cml_mil_find_function(model->program, function) : NULL;
  const cml_mil_value *labels = f ? cml_mil_class_labels(f) : NULL;
  if (!labels || labels->kind != CML_VALUE_LIST) return;
  cml_buffer_text(out, ",\n \"classLabels\": [");
  for (size_t i = 0; i < labels->count; i++) {
    cml_buffer_text(out, i ? ", " : "");
    json_label(out, labels->items[i]);
  }
  cml_buffer_char(out, ']');
}

static void json_functions(cml_buffer *out, const cml_model *model) {
  cml_buffer_text(out, ",\n \"functions\": [");
  for (size_t i = 0; i < model->function_count; i++) {
    const cml_function_description *f = &model->functions[i];
    cml_buffer_text(out, i ? ", {" : "{");
    json_text(out, "name", f->name);
    json_features(out, "inputs", &f->inputs);
    json_features(out, "states", &f->states);
    json_features(out, "outputs", &f->outputs);
    json_optional(out, "predictedFeature", f->predicted_feature);
    json_optional(out, "predictedProbabilities", f->predicted_probabilities);
    json_labels(out, model, f->name);
    cml_buffer_char(out, '}');
  }
  cml_buffer_char(out, ']');
}

cml_status cml_model_io_json(const cml_model *model, cml_buffer *out, cml_error *err) {
  cml_buffer_printf(out, "{\"type\": \"%s\",\n \"specificationVersion\": %d", cml_model_type_name(model->type_number),
                    (int)model->specification_version);
  json_features(out, "inputs", &model->inputs);
  json_features(out, "states", &model->states);
  json_features(out, "outputs", &model->outputs);
  json_optional(out, "predictedFeature", model->predicted_feature);
  json_optional(out, "predictedProbabilities", model->predicted_probabilities);
  if (!model->function_count) json_labels(out, model, "main");
  if (model->function_count) json_functions(out, model);
  json_optional(out, "defaultFunction", model->default_function);
  json_optional(out, "description", model->short_description);
  json_optional(out, "author", model->author);
  json_optional(out, "license", model->license);
  json_optional(out, "version", model->version);
  cml_buffer_printf(out, ",\n \"updatable\": %s,\n \"metadata\": {", model->updatable ? "true" : "false");
  for (size_t i = 0; i < model->metadata_count; i++) {
    cml_buffer_text(out, i ? ", " : "");
    cml_buffer_json_string(out, model->metadata[i].key, strlen(model->metadata[i].key));
    cml_buffer_text(out, ": ");
    cml_buffer_json_string(out, model->metadata[i].value, strlen(model->metadata[i].value));
  }
  cml_buffer_text(out, "}}\n");
  return cml_buffer_check(out, err);
}
