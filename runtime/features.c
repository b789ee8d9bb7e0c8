/* The border between callers and the program: features of the model's description on one side, typed values on the other.
 *
 * Inputs are converted to the program's element type and checked against the feature's shapes; images come as height x width
 * x 3 (red, green, blue) or height x width and become 1 x C x H x W; a rank-0 value may come as [1]. */
#include "session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "f16.h"
#include "mil_check.h"

/* ---- finding them ---- */

cml_function_description cml_function_describe(const cml_model *m, const char *name) {
  for (size_t i = 0; i < m->function_count; i++)
    if (!strcmp(m->functions[i].name, name)) return m->functions[i];
  return (cml_function_description){.name = name, .inputs = m->inputs, .outputs = m->outputs, .states = m->states, .predicted_feature = m->predicted_feature,
                                    .predicted_probabilities = m->predicted_probabilities};
}

/* A feature made from a program's type, for functions that the description does not mention. */
static cml_status feature_from_type(cml_arena *a, const char *name, const cml_tensor *t, cml_feature *out, cml_error *err) {
  *out = (cml_feature){.name = name, .kind = CML_FEATURE_ARRAY, .dtype = t->dtype, .rank = t->rank < 0 ? 0 : (size_t)t->rank};
  out->shape = CML_ARENA_NEW_ARRAY(a, int64_t, out->rank);
  if (!out->shape) return cml_fail_memory(err);
  for (size_t i = 0; i < out->rank; i++) out->shape[i] = t->dims[i];
  return CML_OK;
}

static bool find_input(const cml_graph *g, const char *name, uint32_t *value) {
  for (uint32_t i = 0; i < g->function->input_count; i++)
    if (!strcmp(g->values[i].name, name)) return *value = i, true;
  return false;
}

static bool find_output(const cml_graph *g, const char *name, uint32_t *value) {
  for (size_t i = 0; i < g->body.output_count; i++)
    if (!strcmp(g->values[g->body.outputs[i]].name, name)) return *value = g->body.outputs[i], true;
  return false;
}

/* Names that are not found were refused before. */
static cml_status bind_described(cml_arena *arena, const cml_graph *g, const cml_features *features,
                                 bool (*find)(const cml_graph *, const char *, uint32_t *), uint32_t **values, cml_error *err) {
  *values = CML_ARENA_NEW_ARRAY(arena, uint32_t, features->count);
  if (!*values) return cml_fail_memory(err);
  for (size_t i = 0; i < features->count; i++)
    if (!find(g, features->items[i].name, &(*values)[i])) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "no '%s'", features->items[i].name);
  return CML_OK;
}

/* What is described twice (see check_repeated) is one feature. */
static cml_status merge_repeated(cml_executable *e, cml_features *features, cml_error *err) {
  if (!cml_mil_check_keys(features->items, features->count, sizeof *features->items, CML_NO_OFFSET, NULL)) return CML_OK;
  cml_feature *kept = CML_ARENA_NEW_ARRAY(&e->arena, cml_feature, features->count);
  if (!kept) return cml_fail_memory(err);
  size_t count = 0;
  for (size_t i = 0; i < features->count; i++) {
    size_t k = 0;
    while (k < count && strcmp(kept[k].name, features->items[i].name)) k++;
    if (k == count) kept[count++] = features->items[i];
  }
  *features = (cml_features){kept, count};
  return CML_OK;
}

static cml_status bind_from_types(cml_executable *e, cml_value_role role, bool outputs, cml_features *features, uint32_t **values,
                                  cml_error *err) {
  const cml_graph *g = &e->general.graph;
  size_t count = outputs ? g->body.output_count : g->function->input_count;
  features->items = CML_ARENA_NEW_ARRAY(&e->arena, cml_feature, count);
  *values = CML_ARENA_NEW_ARRAY(&e->arena, uint32_t, count);
  if (!features->items || !*values) return cml_fail_memory(err);
  features->count = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t v = outputs ? g->body.outputs[i] : (uint32_t)i;
    if (!outputs && g->values[v].role != role) continue;
    (*values)[features->count] = v;
    cml_feature *f = &features->items[features->count++];
    CML_TRY(feature_from_type(&e->arena, g->values[v].name, &g->values[v].type, f, err));
    if (role == CML_ROLE_STATE) f->kind = CML_FEATURE_STATE;
  }
  return CML_OK;
}

cml_status cml_variant_bind_outputs(const cml_executable *e, cml_variant *v, cml_error *err) {
  return bind_described(&v->graph.arena, &v->graph, &e->outputs, find_output, &v->output_values, err);
}

cml_status cml_executable_bind_features(cml_executable *e, cml_error *err) {
  const cml_function_description d = cml_function_describe(e->model, e->general.graph.function->name);
  e->inputs = d.inputs;
  e->outputs = d.outputs;
  bool described = e->inputs.count + e->outputs.count > 0;
  if (described) {
    CML_TRY(merge_repeated(e, &e->outputs, err));
    CML_TRY(bind_described(&e->arena, &e->general.graph, &e->inputs, find_input, &e->input_values, err));
  } else {
    CML_TRY(bind_from_types(e, CML_ROLE_INPUT, false, &e->inputs, &e->input_values, err));
    uint32_t *values;
    CML_TRY(bind_from_types(e, CML_ROLE_COMPUTED, true, &e->outputs, &values, err));
  }
  cml_graph_value *given = CML_ARENA_NEW_ARRAY(&e->arena, cml_graph_value, e->general.graph.function->input_count);
  if (!given) return cml_fail_memory(err);
  memcpy(given, e->general.graph.values, e->general.graph.function->input_count * sizeof *given);
  e->given = given;
  CML_TRY(cml_variant_bind_outputs(e, &e->general, err));
  return bind_from_types(e, CML_ROLE_STATE, false, &e->states, &e->state_values, err);
}

/* ---- shapes ---- */

static void print_dims(cml_buffer *b, const int64_t *dims, size_t rank) {
  cml_buffer_char(b, '[');
  for (size_t i = 0; i < rank; i++) cml_buffer_printf(b, "%s%lld", i ? ", " : "", (long long)dims[i]);
  cml_buffer_char(b, ']');
}

/* What the feature allows, in words. */
static void print_allowed(cml_buffer *b, const cml_feature *f) {
  if (f->flexibility == CML_FLEX_ENUMERATED) {
    for (size_t i = 0; i < f->shape_count; i++) {
      if (i) cml_buffer_text(b, " or ");
      print_dims(b, f->shapes + i * f->rank, f->rank);
    }
  } else if (f->flexibility == CML_FLEX_RANGE) {
    cml_buffer_char(b, '[');
    for (size_t i = 0; i < f->rank; i++) {
      if (i) cml_buffer_text(b, ", ");
      if (f->ranges[i].lower == f->ranges[i].upper) cml_buffer_printf(b, "%lld", (long long)f->ranges[i].lower);
      else if (f->ranges[i].upper < 0) cml_buffer_printf(b, "%lld or more", (long long)f->ranges[i].lower);
      else cml_buffer_printf(b, "%lld to %lld", (long long)f->ranges[i].lower, (long long)f->ranges[i].upper);
    }
    cml_buffer_char(b, ']');
  } else {
    print_dims(b, f->shape, f->rank);
  }
}

static bool shape_allowed(const cml_feature *f, const int64_t *dims, size_t rank) {
  if (rank != f->rank) return false;
  if (f->flexibility == CML_FLEX_ENUMERATED) {
    for (size_t i = 0; i < f->shape_count; i++)
      if (!memcmp(f->shapes + i * rank, dims, rank * sizeof *dims)) return true;
    return f->shape && !memcmp(f->shape, dims, rank * sizeof *dims);
  }
  for (size_t i = 0; i < rank; i++) {
    if (f->flexibility == CML_FLEX_RANGE) {
      if (dims[i] < f->ranges[i].lower || (f->ranges[i].upper >= 0 && dims[i] > f->ranges[i].upper)) return false;
    } else if (f->shape[i] >= 0 && dims[i] != f->shape[i]) {
      return false;
    }
  }
  return true;
}

static cml_status refuse_shape(const cml_feature *f, const int64_t *dims, size_t rank, cml_error *err) {
  cml_buffer b = CML_BUFFER_INIT;
  cml_buffer_printf(&b, "input '%s' has shape ", f->name);
  print_dims(&b, dims, rank);
  cml_buffer_text(&b, f->kind == CML_FEATURE_IMAGE ? "; the model takes height and width " : "; the model takes ");
  print_allowed(&b, f);
  cml_status status = cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "%s", b.data ? (char *)b.data : "wrong shape");
  cml_buffer_free(&b);
  return status;
}

/* The shape against the program's own type; dims of rank 0 and [1] are the same thing. */
static cml_status set_shape(cml_tensor *slot, const cml_tensor *type, const cml_feature *f, const int64_t *dims, size_t rank, cml_error *err) {
  bool ok = type->rank < 0 || (size_t)type->rank == rank;
  for (size_t i = 0; ok && type->rank >= 0 && i < rank; i++) ok = type->dims[i] < 0 || type->dims[i] == dims[i];
  bool scalar = !ok && type->rank == 0 && rank == 1 && dims[0] == 1;
  bool vector = !ok && type->rank == 1 && rank == 0 && (type->dims[0] < 0 || type->dims[0] == 1);
  if (!ok && !scalar && !vector) return refuse_shape(f, dims, rank, err);
  slot->dtype = type->dtype;
  slot->rank = scalar ? 0 : vector ? 1 : (int32_t)rank;
  for (size_t i = 0; i < rank; i++) slot->dims[i] = dims[i];
  if (vector) slot->dims[0] = 1;
  return CML_OK;
}

/* ---- inputs ---- */

static bool is_color(cml_color c) { return c == CML_COLOR_RGB || c == CML_COLOR_BGR; }

/* H x W x 3 or H x W in, 1 x C x H x W out; BGR layouts have blue first. */
static cml_status set_image(cml_slot *slot, const cml_tensor *type, const cml_feature *f, const cml_tensor *v, cml_error *err) {
  int64_t channels = is_color(f->color) ? 3 : 1, h = v->rank > 0 ? v->dims[0] : 0, w = v->rank > 1 ? v->dims[1] : 0;
  bool fits = (v->rank == 2 && channels == 1) || (v->rank == 3 && v->dims[2] == channels);
  if (!fits)
    return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "input '%s' is an image: it takes height x width%s", f->name,
                    channels == 3 ? " x 3 (red, green, blue)" : "");
  int64_t hw[2] = {h, w}, dims[4] = {1, channels, h, w};
  if (!shape_allowed(f, hw, 2)) return refuse_shape(f, hw, 2, err);
  CML_TRY(set_shape(&slot->tensor, type, f, dims, 4, err));
  CML_TRY(cml_slot_reserve(slot, err));
  for (int64_t c = 0; c < channels; c++) {
    int64_t from = f->color == CML_COLOR_BGR ? 2 - c : c;
    for (int64_t i = 0; i < h * w; i++) cml_tensor_set(&slot->tensor, c * h * w + i, cml_tensor_get(v, i * channels + from));
  }
  return CML_OK;
}

static bool image_is_raw(const cml_tensor *v, const cml_tensor *type) {
  return v->rank == 4 && (type->rank < 0 || (type->rank == 4 && v->dims[1] == type->dims[1] && v->dims[0] == 1));
}

static cml_status set_value(cml_session *s, size_t i, const cml_tensor *v, cml_error *err) {
  const cml_executable *e = s->executable;
  const cml_feature *f = &e->inputs.items[i];
  cml_slot *slot = &s->inputs[e->input_values[i]];
  const cml_tensor *type = &e->given[e->input_values[i]].type;
  if (v->rank < 0 || v->rank > CML_MAX_RANK || !v->data || (v->dtype == CML_STRING) != (type->dtype == CML_STRING))
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "input '%s' takes %s", f->name, cml_dtype_name(type->dtype));
  if (f->kind == CML_FEATURE_IMAGE && !image_is_raw(v, type)) return set_image(slot, type, f, v, err);
  bool scalar = f->rank <= 1 && v->rank <= 1 && cml_tensor_count(v) == 1;
  if (f->kind == CML_FEATURE_ARRAY && f->rank && !scalar && !shape_allowed(f, v->dims, (size_t)v->rank))
    return refuse_shape(f, v->dims, (size_t)v->rank, err);
  CML_TRY(set_shape(&slot->tensor, type, f, v->dims, (size_t)v->rank, err));
  CML_TRY(cml_slot_reserve(slot, err));
  cml_convert(slot->tensor.data, type->dtype, v->data, v->dtype, cml_tensor_count(v));
  return CML_OK;
}

cml_status cml_session_set_input(cml_session *s, const char *name, const cml_tensor *value, cml_error *err) {
  const cml_features *inputs = &s->executable->inputs;
  for (size_t i = 0; i < inputs->count; i++) {
    if (strcmp(inputs->items[i].name, name)) continue;
    CML_TRY(set_value(s, i, value, err));
    s->input_set[i] = true;
    return CML_OK;
  }
  cml_buffer b = CML_BUFFER_INIT;
  for (size_t i = 0; i < inputs->count; i++) cml_buffer_printf(&b, "%s'%s'", i ? ", " : "", inputs->items[i].name);
  cml_status status = cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the model has no input '%s'; its inputs are %s", name,
                               b.data ? (char *)b.data : "none");
  cml_buffer_free(&b);
  return status;
}

static cml_status set_default(cml_session *s, size_t i, cml_error *err) {
  const cml_executable *e = s->executable;
  const cml_feature *f = &e->inputs.items[i];
  cml_slot *slot = &s->inputs[e->input_values[i]];
  const cml_tensor *type = &e->given[e->input_values[i]].type;
  CML_TRY(set_shape(&slot->tensor, type, f, f->shape, f->rank, err));
  CML_TRY(cml_slot_reserve(slot, err));
  int64_t n = cml_tensor_count(&slot->tensor);
  for (int64_t k = 0; k < n; k++) cml_tensor_set(&slot->tensor, k, f->has_default ? f->default_value : 0);
  return CML_OK;
}

cml_status cml_session_complete_inputs(cml_session *s, cml_error *err) {
  const cml_features *inputs = &s->executable->inputs;
  for (size_t i = 0; i < inputs->count; i++) {
    if (s->input_set[i]) continue;
    if (!inputs->items[i].optional && !inputs->items[i].has_default)
      return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "input '%s' was not given", inputs->items[i].name);
    CML_TRY(set_default(s, i, err));
  }
  return CML_OK;
}

/* ---- outputs ---- */

/* 1 x C x H x W to H x W x 3 or H x W: rounded to nearest and clamped to 0..255; a float16 layout keeps its values as float32. */
static cml_status collect_image(cml_slot *out, const cml_feature *f, const cml_tensor *v, cml_error *err) {
  int64_t channels = is_color(f->color) ? 3 : 1;
  if (v->rank != 4 || v->dims[0] != 1 || v->dims[1] != channels)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "output '%s' is an image, and the program gives another shape", f->name);
  int64_t h = v->dims[2], w = v->dims[3];
  bool is_float = f->color == CML_COLOR_GRAYSCALE_FLOAT16;
  out->tensor = (cml_tensor){.dtype = is_float ? CML_F32 : CML_U8, .rank = channels == 3 ? 3 : 2, .dims = {h, w, channels}};
  CML_TRY(cml_slot_reserve(out, err));
  for (int64_t c = 0; c < channels; c++) {
    int64_t to = f->color == CML_COLOR_BGR ? 2 - c : c;
    for (int64_t i = 0; i < h * w; i++) {
      double x = cml_tensor_get(v, c * h * w + i);
      if (is_float) ((float *)out->tensor.data)[i] = (float)x;
      else ((uint8_t *)out->tensor.data)[i * channels + to] = (uint8_t)(x >= 254.5 ? 255 : x > 0 ? rint(x) : 0);
    }
  }
  return CML_OK;
}

static cml_status collect_output(cml_session *s, size_t i, cml_error *err) {
  const cml_executable *e = s->executable;
  const cml_feature *f = &e->outputs.items[i];
  const cml_tensor *v = &cml_session_slot(s, s->variant->output_values[i])->tensor;
  cml_slot *out = &s->results[i];
  if (v->list) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "output '%s' is a list", f->name);
  if (!v->data) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "output '%s' was not computed", f->name);
  if (f->kind == CML_FEATURE_IMAGE) return collect_image(out, f, v, err);
  cml_dtype to = f->kind == CML_FEATURE_ARRAY && f->dtype && v->dtype != CML_STRING ? f->dtype : v->dtype;
  out->tensor = *v;
  if (f->kind == CML_FEATURE_ARRAY && v->rank == 0) out->tensor.rank = 1, out->tensor.dims[0] = 1; /* arrays have a rank: Core ML gives [1] */
  if (to == v->dtype) return CML_OK; /* seen in place, until the next run */
  out->tensor.dtype = to;
  CML_TRY(cml_slot_reserve(out, err));
  cml_convert(out->tensor.data, to, v->data, v->dtype, cml_tensor_count(v));
  return CML_OK;
}

cml_status cml_session_collect_outputs(cml_session *s, cml_error *err) {
  for (size_t i = 0; i < s->executable->outputs.count; i++) CML_TRY(collect_output(s, i, err));
  return CML_OK;
}
