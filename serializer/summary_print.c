/* The summary as lines and as JSON. Columns are as wide as their widest cell, up to a limit. */
#include <inttypes.h>
#include <stdio.h>

#include "model_io.h"
#include "summary.h"

const char *cml_model_type_name(uint32_t type_number) {
  static const struct { uint32_t number; const char *name; } rows[] = { /* Model's oneof Type, Core ML's Model.proto */
      {200, "pipelineClassifier"}, {201, "pipelineRegressor"}, {202, "pipeline"}, {300, "glmRegressor"}, {301, "supportVectorRegressor"},
      {302, "treeEnsembleRegressor"}, {303, "neuralNetworkRegressor"}, {304, "bayesianProbitRegressor"}, {400, "glmClassifier"},
      {401, "supportVectorClassifier"}, {402, "treeEnsembleClassifier"}, {403, "neuralNetworkClassifier"},
      {404, "kNearestNeighborsClassifier"}, {500, "neuralNetwork"}, {501, "itemSimilarityRecommender"}, {502, "mlProgram"},
      {555, "customModel"}, {556, "linkedModel"}, {560, "classConfidenceThresholding"}, {600, "oneHotEncoder"}, {601, "imputer"},
      {602, "featureVectorizer"}, {603, "dictVectorizer"}, {604, "scaler"}, {606, "categoricalMapping"}, {607, "normalizer"},
      {609, "arrayFeatureExtractor"}, {610, "nonMaximumSuppression"}, {900, "identity"}, {2000, "textClassifier"},
      {2001, "wordTagger"}, {2002, "visionFeaturePrint"}, {2003, "soundAnalysisPreprocessing"}, {2004, "gazetteer"},
      {2005, "wordEmbedding"}, {2006, "audioFeaturePrint"}, {3000, "serializedModel"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].number == type_number) return rows[i].name;
  return "model";
}

/* ---- text ---- */

/* 1234567 as "1,234,567". */
static void print_grouped(cml_buffer *out, uint64_t n, int width) {
  char text[32], grouped[32];
  int digits = snprintf(text, sizeof text, "%" PRIu64, n), at = 0;
  for (int i = 0; i < digits; i++) {
    if (i && (digits - i) % 3 == 0) grouped[at++] = ',';
    grouped[at++] = text[i];
  }
  grouped[at] = 0;
  cml_buffer_printf(out, "%*s", width, grouped);
}

static void print_type(cml_buffer *out, const cml_mil_type *type) {
  if (type) cml_mil_type_print(type, out);
  else cml_buffer_char(out, '?');
}

static int width_of(const char *text, int so_far, int most) {
  size_t n = strlen(text);
  int width = n > (size_t)most ? most : (int)n;
  return width > so_far ? width : so_far;
}

static void print_operators(cml_buffer *out, const cml_summary *s) {
  int width = 8;
  for (size_t i = 0; i < s->operator_count; i++) width = width_of(s->operators[i].type, width, 48);
  cml_buffer_printf(out, "\n  %-*s %10s %15s %15s %20s\n", width, "operator", "count", "parameters", "weight bytes", "multiply-adds");
  for (size_t i = 0; i < s->operator_count; i++) {
    const cml_summary_operator *o = &s->operators[i];
    cml_buffer_printf(out, "  %-*s", width, o->type);
    print_grouped(out, o->count, 11);
    print_grouped(out, o->parameters, 16);
    print_grouped(out, o->weight_bytes, 16);
    print_grouped(out, o->macs, 21);
    cml_buffer_char(out, '\n');
  }
}

static void print_layers(cml_buffer *out, const cml_summary *s) {
  int type_width = 5, name_width = 4;
  for (size_t i = 0; i < s->layer_count; i++) {
    type_width = width_of(s->layers[i].op->type, type_width, 36);
    name_width = width_of(cml_mil_op_name(s->layers[i].op), name_width, 72);
  }
  cml_buffer_printf(out, "\n  %-*s %-*s %15s %15s %20s  output\n", type_width, "layer", name_width, "name", "parameters", "weight bytes",
                    "multiply-adds");
  for (size_t i = 0; i < s->layer_count; i++) {
    const cml_summary_layer *l = &s->layers[i];
    cml_buffer_printf(out, "  %*s%-*s %-*s", (int)l->depth * 2, "", type_width - (int)l->depth * 2, l->op->type, name_width, cml_mil_op_name(l->op));
    print_grouped(out, l->parameters, 16);
    print_grouped(out, l->weight_bytes, 16);
    if (l->macs_known) print_grouped(out, l->macs, 21);
    else cml_buffer_printf(out, "%21s", "?");
    for (size_t j = 0; j < l->op->output_count; j++) {
      cml_buffer_text(out, j ? ", " : "  ");
      print_type(out, l->op->outputs[j].type);
    }
    cml_buffer_char(out, '\n');
  }
}

static cml_status print_function(const cml_mil_function *f, cml_buffer *out, cml_error *err) {
  cml_arena arena = CML_ARENA_INIT;
  cml_summary s;
  cml_status status = cml_summary_of(f, &arena, &s, err);
  if (!status) {
    cml_buffer_printf(out, "\nfunction %s (%s)\n", f->name, f->opset ? f->opset : "");
    cml_buffer_text(out, "  operations       "), print_grouped(out, s.operations, 0);
    cml_buffer_text(out, ", of these constants "), print_grouped(out, s.constants, 0);
    cml_buffer_text(out, "\n  parameters       "), print_grouped(out, s.parameters, 0);
    cml_buffer_text(out, "\n  weight bytes     "), print_grouped(out, s.weight_bytes, 0);
    cml_buffer_text(out, "\n  multiply-adds    "), print_grouped(out, s.macs, 0);
    if (s.macs_unknown) cml_buffer_printf(out, " and those of %" PRIu64 " layers of unknown shape", s.macs_unknown);
    cml_buffer_char(out, '\n');
    if (s.operator_count) print_operators(out, &s);
    if (s.layer_count) print_layers(out, &s);
  }
  cml_arena_free(&arena);
  return status;
}

static void print_word(cml_buffer *out, const char *label, const char *value) {
  if (value && *value) cml_buffer_printf(out, "  %-16s %s\n", label, value);
}

cml_status cml_summary_text(const cml_model *model, cml_buffer *out, cml_error *err) {
  cml_buffer_printf(out, "%s, specification version %d%s\n", cml_model_type_name(model->type_number), (int)model->specification_version,
                    model->updatable ? ", updatable" : "");
  print_word(out, "description", model->short_description);
  print_word(out, "author", model->author);
  print_word(out, "license", model->license);
  print_word(out, "version", model->version);
  cml_model_io_text(&model->inputs, &model->states, &model->outputs, out);
  print_word(out, "class label", model->predicted_feature);
  print_word(out, "probabilities", model->predicted_probabilities);
  for (size_t i = 0; i < model->function_count; i++) {
    cml_buffer_printf(out, "\nfeatures of %s\n", model->functions[i].name);
    cml_model_io_text(&model->functions[i].inputs, &model->functions[i].states, &model->functions[i].outputs, out);
  }
  for (size_t i = 0; model->program && i < model->program->function_count; i++) CML_TRY(print_function(model->program->functions[i], out, err));
  return cml_buffer_check(out, err);
}

/* ---- JSON ---- */

static void json_text(cml_buffer *out, const char *text) {
  if (!text) text = "";
  cml_buffer_json_string(out, text, strlen(text));
}

static void json_member(cml_buffer *out, const char *key, const char *value) {
  cml_buffer_printf(out, "\"%s\": ", key);
  json_text(out, value);
}

static void json_type(cml_buffer *out, const cml_mil_type *type) {
  cml_buffer text = CML_BUFFER_INIT;
  print_type(&text, type);
  if (text.failed) out->failed = true;
  json_text(out, (const char *)text.data);
  cml_buffer_free(&text);
}

static void json_named(cml_buffer *out, const char *name, const cml_mil_type *type) {
  cml_buffer_text(out, "{");
  json_member(out, "name", name);
  cml_buffer_text(out, ", \"type\": ");
  json_type(out, type);
  cml_buffer_text(out, "}");
}

static void json_numbers(cml_buffer *out, uint64_t parameters, uint64_t bytes, uint64_t macs, bool known) {
  cml_buffer_printf(out, "\"parameters\": %" PRIu64 ", \"weightBytes\": %" PRIu64 ", \"multiplyAdds\": ", parameters, bytes);
  if (known) cml_buffer_printf(out, "%" PRIu64, macs);
  else cml_buffer_text(out, "null");
}

static void json_layers(cml_buffer *out, const cml_summary *s) {
  for (size_t i = 0; i < s->layer_count; i++) {
    const cml_summary_layer *l = &s->layers[i];
    cml_buffer_text(out, i ? ",\n      {" : "\n      {");
    json_member(out, "operator", l->op->type);
    cml_buffer_text(out, ", ");
    json_member(out, "name", cml_mil_op_name(l->op));
    cml_buffer_printf(out, ", \"depth\": %u, ", l->depth);
    json_numbers(out, l->parameters, l->weight_bytes, l->macs, l->macs_known);
    cml_buffer_text(out, ", \"outputs\": [");
    for (size_t j = 0; j < l->op->output_count; j++) {
      if (j) cml_buffer_text(out, ", ");
      json_named(out, l->op->outputs[j].name, l->op->outputs[j].type);
    }
    cml_buffer_text(out, "]}");
  }
}

static void json_interface(cml_buffer *out, const cml_summary *s) {
  const cml_mil_block *body = cml_mil_body(s->function);
  cml_buffer_text(out, ",\n     \"inputs\": [");
  for (size_t i = 0; i < s->function->input_count; i++) {
    if (i) cml_buffer_text(out, ", ");
    json_named(out, s->function->inputs[i].name, s->function->inputs[i].type);
  }
  cml_buffer_text(out, "],\n     \"outputs\": [");
  for (size_t i = 0; i < body->output_count; i++) {
    const cml_mil_definition *d = cml_mil_names_find(&s->names, body->outputs[i]);
    if (i) cml_buffer_text(out, ", ");
    json_named(out, body->outputs[i], d ? d->type : NULL);
  }
  cml_buffer_text(out, "]");
}

static cml_status json_function(const cml_mil_function *f, cml_buffer *out, cml_error *err) {
  cml_arena arena = CML_ARENA_INIT;
  cml_summary s;
  cml_status status = cml_summary_of(f, &arena, &s, err);
  if (!status) {
    cml_buffer_text(out, "{");
    json_member(out, "name", f->name);
    cml_buffer_text(out, ", ");
    json_member(out, "opset", f->opset);
    json_interface(out, &s);
    cml_buffer_printf(out, ",\n     \"operations\": %" PRIu64 ", \"constants\": %" PRIu64 ", ", s.operations, s.constants);
    json_numbers(out, s.parameters, s.weight_bytes, s.macs, true);
    cml_buffer_printf(out, ", \"layersOfUnknownShape\": %" PRIu64 ",\n     \"operators\": [", s.macs_unknown);
    for (size_t i = 0; i < s.operator_count; i++) {
      cml_buffer_text(out, i ? ",\n      {" : "\n      {");
      json_member(out, "operator", s.operators[i].type);
      cml_buffer_printf(out, ", \"count\": %" PRIu64 ", ", s.operators[i].count);
      json_numbers(out, s.operators[i].parameters, s.operators[i].weight_bytes, s.operators[i].macs, true);
      cml_buffer_text(out, "}");
    }
    cml_buffer_text(out, "],\n     \"layers\": [");
    json_layers(out, &s);
    cml_buffer_text(out, "]}");
  }
  cml_arena_free(&arena);
  return status;
}

cml_status cml_summary_json(const cml_model *model, cml_buffer *out, cml_error *err) {
  cml_status status = CML_OK;
  cml_buffer_printf(out, "{\"type\": \"%s\", \"specificationVersion\": %d,\n \"functions\": [", cml_model_type_name(model->type_number),
                    (int)model->specification_version);
  for (size_t i = 0; model->program && i < model->program->function_count && !status; i++) {
    cml_buffer_text(out, i ? ",\n    " : "\n    ");
    status = json_function(model->program->functions[i], out, err);
  }
  cml_buffer_text(out, "]}\n");
  return status ? status : cml_buffer_check(out, err);
}
