/* The model's description against the program that it describes: names, kinds, element types and shapes must say the same, so far
 * as both say anything. What is flexible in one and open in the other fits; [1] and a rank of 0 are the same. */
#include "mil_check.h"
#include "session.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct checker {
  const cml_executable *e;
  const cml_function_description *d;
  const char *what; /* "input", "output" or "state" */
  bool dictionaries; /* the program makes some */
  cml_error *err;
} checker;

static const char *const kinds[] = {"an integer", "a number", "a string", "an image", "an array", "a dictionary", "a sequence", "a state", "of no type"};

static cml_status contradicts(const checker *c, const cml_feature *f, const char *described, const char *found) {
  return cml_fail(c->err, CML_INVALID, CML_NO_OFFSET, "%s '%s' is %s in the description and %s in function '%s'", c->what, f->name, described, found,
                  c->e->general.graph.function->name);
}

static cml_status other_type(const checker *c, const cml_feature *f, const char *described, const cml_tensor *found) {
  char text[128];
  cml_tensor_describe(found, text, sizeof text);
  return contradicts(c, f, described, text);
}

static cml_status other_shape(const checker *c, const cml_feature *f, const cml_tensor *described, const cml_tensor *found) {
  char text[128];
  cml_tensor_describe(described, text, sizeof text);
  return other_type(c, f, text, found);
}

/* ---- shapes ---- */

static bool dims_fit(const int64_t *dims, size_t rank, const cml_tensor *t) {
  if (t->rank < 0 || (t->rank == 0 && rank == 1 && dims[0] == 1)) return true;
  if ((size_t)t->rank != rank) return false;
  for (size_t i = 0; i < rank; i++)
    if (dims[i] >= 0 && t->dims[i] >= 0 && dims[i] != t->dims[i]) return false;
  return true;
}

static bool ranges_fit(const cml_feature *f, const cml_tensor *t) {
  if (t->rank < 0 || (size_t)t->rank != f->rank) return t->rank < 0;
  for (size_t i = 0; i < f->rank; i++)
    if (t->dims[i] >= 0 && (t->dims[i] < f->ranges[i].lower || (f->ranges[i].upper >= 0 && t->dims[i] > f->ranges[i].upper))) return false;
  return true;
}

static cml_status check_shape(const checker *c, const cml_feature *f, const cml_tensor *t, cml_dtype dtype) {
  if (!f->rank || f->rank > CML_MAX_RANK) return CML_OK;
  cml_tensor described = {.dtype = dtype, .rank = (int32_t)f->rank};
  for (size_t k = 0; k < f->rank; k++) described.dims[k] = f->shape[k];
  if (f->flexibility == CML_FLEX_RANGE && !ranges_fit(f, &described))
    return cml_fail(c->err, CML_INVALID, CML_NO_OFFSET, "%s '%s' has a default shape outside its range", c->what, f->name);
  if (f->flexibility == CML_FLEX_RANGE && !ranges_fit(f, t)) return other_type(c, f, "of a range of shapes that does not hold its shape", t);
  for (size_t i = 0; f->flexibility == CML_FLEX_ENUMERATED && i < f->shape_count; i++) {
    for (size_t k = 0; k < f->rank; k++) described.dims[k] = f->shapes[i * f->rank + k];
    if (!dims_fit(described.dims, f->rank, t)) return other_shape(c, f, &described, t);
  }
  return f->flexibility != CML_FLEX_NONE || dims_fit(f->shape, f->rank, t) ? CML_OK : other_shape(c, f, &described, t);
}

/* 1 x C x H x W; an output's size may be left open as 0. The numbers may be bytes, too: coremltools offers that. */
static cml_status check_image(const checker *c, const cml_feature *f, const cml_tensor *t) {
  char text[96];
  int64_t dims[] = {1, f->color == CML_COLOR_RGB || f->color == CML_COLOR_BGR ? 3 : 1, f->shape[0], f->shape[1]};
  bool open = f->flexibility != CML_FLEX_NONE, output = !strcmp(c->what, "output"), numbers = CML_M_NUMBER >> t->dtype & 1;
  for (int i = 2; i < 4; i++)
    if (open || (output && !dims[i])) dims[i] = CML_DIM_UNKNOWN;
  snprintf(text, sizeof text, "an image of %d x %lld x %lld", (int)dims[1], (long long)f->shape[0], (long long)f->shape[1]);
  return numbers && dims_fit(dims, 4, t) ? CML_OK : other_type(c, f, text, t);
}

/* ---- types ---- */

/* Element types that a feature can have. A description that was made for a program without one has the nearest for others. */
static bool is_described(cml_dtype t) { return t == CML_F16 || t == CML_F32 || t == CML_F64 || t == CML_I32 || t == CML_I8; }

static cml_status check_array(const checker *c, const cml_feature *f, const cml_tensor *t) {
  bool same = f->dtype && (f->dtype == t->dtype || !is_described(t->dtype)) && t->dtype != CML_STRING;
  if (!same) return other_type(c, f, f->dtype ? cml_dtype_name(f->dtype) : "an array without a type", t);
  return check_shape(c, f, t, f->dtype);
}

static bool one_element(const cml_tensor *t) { return !cml_tensor_known_shape(t) || cml_tensor_count(t) == 1; }

static cml_status check_type(const checker *c, const cml_feature *f, const cml_tensor *t) {
  bool whole = t->dtype >= CML_I8 && t->dtype <= CML_U64, fits = false;
  switch (f->kind) {
  case CML_FEATURE_ARRAY: return check_array(c, f, t);
  case CML_FEATURE_IMAGE: return check_image(c, f, t);
  case CML_FEATURE_STRING: fits = t->dtype == CML_STRING; break;
  case CML_FEATURE_INT64: fits = whole; break;
  case CML_FEATURE_DOUBLE: fits = t->dtype == CML_F16 || t->dtype == CML_F32 || t->dtype == CML_F64; break;
  default: break;
  }
  return fits && one_element(t) ? CML_OK : other_type(c, f, kinds[f->kind], t);
}

/* ---- each side ---- */

static cml_status no_such(const checker *c, const char *name) {
  return cml_fail(c->err, CML_INVALID, CML_NO_OFFSET, "the description's %s '%s' is not in function '%s'", c->what, name, c->e->general.graph.function->name);
}

static bool find_input(const checker *c, const char *name, size_t *at) {
  const cml_mil_function *f = c->e->general.graph.function;
  for (*at = 0; *at < f->input_count; ++*at)
    if (!strcmp(f->inputs[*at].name, name)) return true;
  return false;
}

static cml_status check_input(const checker *c, const cml_feature *f) {
  size_t at;
  if (!find_input(c, f->name, &at)) return no_such(c, f->name);
  const cml_graph_value *v = &c->e->general.graph.values[at];
  if ((v->role == CML_ROLE_STATE) != (f->kind == CML_FEATURE_STATE))
    return contradicts(c, f, kinds[f->kind], v->role == CML_ROLE_STATE ? "a state" : "none");
  return f->kind == CML_FEATURE_STATE ? check_array(c, f, &v->type) : check_type(c, f, &v->type);
}

/* The output's type in the program where it is a dictionary (only classify gives one), else NULL. */
static const cml_mil_type *dictionary_type(const checker *c, const char *name) {
  const cml_mil_block *body = cml_mil_body(c->e->general.graph.function);
  for (size_t i = 0; c->dictionaries && i < body->op_count; i++)
    for (size_t k = 0; k < body->ops[i]->output_count; k++)
      if (!strcmp(body->ops[i]->outputs[k].name, name)) {
        const cml_mil_type *type = body->ops[i]->outputs[k].type;
        return type && type->kind == CML_TYPE_DICTIONARY ? type : NULL;
      }
  return NULL;
}

static cml_status check_dictionary(const checker *c, const cml_feature *f, const cml_mil_type *type) {
  if (f->kind != CML_FEATURE_DICTIONARY) return contradicts(c, f, kinds[f->kind], kinds[CML_FEATURE_DICTIONARY]);
  bool texts = type->arg_count && type->args[0]->dtype == CML_STRING;
  if (texts == f->key_is_string) return CML_OK;
  return contradicts(c, f, f->key_is_string ? "a dictionary by string" : "a dictionary by integer", texts ? "one by string" : "one by integer");
}

static cml_status check_output(const checker *c, const cml_feature *f) {
  const cml_graph *g = &c->e->general.graph;
  for (size_t i = 0; i < g->body.output_count; i++) {
    const cml_graph_value *v = &g->values[g->body.outputs[i]];
    if (strcmp(v->name, f->name)) continue;
    const cml_mil_type *dictionary = dictionary_type(c, f->name);
    return dictionary ? check_dictionary(c, f, dictionary) : check_type(c, f, &v->type);
  }
  return no_such(c, f->name);
}

/* A program that gives one value twice has its feature described twice, in the same words: Core ML takes it, and has one output. */
static cml_status check_repeated(const cml_features *outputs, cml_error *err) {
  if (!cml_mil_check_keys(outputs->items, outputs->count, sizeof *outputs->items, CML_NO_OFFSET, NULL)) return CML_OK;
  for (size_t i = 1; i < outputs->count; i++) {
    const cml_feature *f = &outputs->items[i], *first = outputs->items;
    while (strcmp(first->name, f->name)) first++;
    if (f->kind != first->kind || f->dtype != first->dtype || f->color != first->color)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "%s is given twice, in different types", f->name);
  }
  return CML_OK;
}

static cml_status check_all(checker *c, const char *what, const cml_features *features, cml_status (*check)(const checker *, const cml_feature *)) {
  c->what = what;
  cml_status status = check == check_output ? check_repeated(features, c->err)
                                            : cml_mil_check_keys(features->items, features->count, sizeof *features->items, CML_NO_OFFSET, c->err);
  if (status) return cml_error_prefix(c->err, status, "the description's %ss", what);
  for (size_t i = 0; i < features->count && !status; i++) status = check(c, &features->items[i]);
  return status;
}

static bool holds(const cml_features *features, const char *name) {
  for (size_t i = 0; i < features->count; i++)
    if (!strcmp(features->items[i].name, name)) return true;
  return false;
}

static cml_status need_all_inputs(const checker *c) {
  const cml_graph *g = &c->e->general.graph;
  for (uint32_t i = 0; i < g->function->input_count; i++) {
    bool state = g->values[i].role == CML_ROLE_STATE;
    if (!holds(state ? &c->d->states : &c->d->inputs, g->values[i].name))
      return cml_fail(c->err, CML_INVALID, CML_NO_OFFSET, "%s '%s' of function '%s' is not in the model's description", state ? "state" : "input",
                      g->values[i].name, g->function->name);
  }
  return CML_OK;
}

/* What a classifier calls its label and its probabilities. */
static cml_status check_predicted(const checker *c, const char *name) {
  if (!name || !*name || holds(&c->d->outputs, name)) return CML_OK;
  return cml_fail(c->err, CML_INVALID, CML_NO_OFFSET, "the description says that '%s' is predicted, which is no output", name);
}

cml_status cml_executable_check_features(const cml_executable *e, cml_error *err) {
  const cml_function_description d = cml_function_describe(e->model, e->general.graph.function->name);
  checker c = {.e = e, .d = &d, .err = err};
  for (size_t i = 0; i < e->general.graph.body.step_count; i++) c.dictionaries |= !strcmp(e->general.graph.body.steps[i].op->name, "classify");
  if (d.inputs.count + d.outputs.count + d.states.count == 0) return CML_OK; /* it says nothing */
  CML_TRY(check_all(&c, "input", &d.inputs, check_input));
  CML_TRY(check_all(&c, "state", &d.states, check_input));
  CML_TRY(check_all(&c, "output", &d.outputs, check_output));
  if (!d.outputs.count && e->general.graph.body.output_count)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the description has no outputs, and function '%s' has", e->general.graph.function->name);
  CML_TRY(check_predicted(&c, d.predicted_feature));
  CML_TRY(check_predicted(&c, d.predicted_probabilities));
  return need_all_inputs(&c);
}
