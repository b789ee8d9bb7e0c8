/* What the operator table knows of a program's types, written back into the program, and the executable graph printed.
 *
 * A flexible program declares `?` where a size depends on its inputs. With the inputs at the description's default shapes,
 * inference gives every size that does not depend on data; views and summaries then show numbers. */
#include "exec_types.h"

#include <stdio.h>

/* ---- default shapes ---- */

static bool fill(cml_tensor *type, const int64_t *dims, size_t rank) {
  if (type->rank != (int32_t)rank) return false;
  for (size_t i = 0; i < rank; i++) {
    if (type->dims[i] < 0) type->dims[i] = dims[i];
    if (type->dims[i] < 0 || type->dims[i] != dims[i]) return false;
  }
  return true;
}

bool cml_feature_default_type(const cml_feature *f, cml_tensor *type) {
  if (cml_tensor_known_shape(type)) return true;
  if (!f->shape) return false;
  if (f->kind != CML_FEATURE_IMAGE || f->rank != 2) return fill(type, f->shape, f->rank);
  const int64_t dims[4] = {1, f->color == CML_COLOR_RGB || f->color == CML_COLOR_BGR ? 3 : 1, f->shape[0], f->shape[1]};
  return fill(type, dims, 4);
}

/* ---- into the program ---- */

static cml_status set_type(cml_arena *arena, cml_mil_named *named, const cml_tensor *t, cml_error *err) {
  const cml_mil_type *declared = named->type;
  if (!t->dtype || t->list || t->rank < 0 || (declared && declared->kind != CML_TYPE_TENSOR)) return CML_OK;
  if (!(named->type = cml_mil_type_tensor(arena, t->dtype, t->rank, t->dims))) return cml_fail_memory(err);
  if (declared) named->type->attributes = declared->attributes;
  return CML_OK;
}

/* The graph as it was built has a step for each operation but constants, in their order. */
static cml_status set_block(const cml_executable *e, cml_arena *arena, const cml_graph_block *built, const cml_mil_block *block, cml_error *err) {
  const cml_graph *g = &e->general.graph;
  size_t at = 0;
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i];
    if (!strcmp(op->type, "const")) continue;
    const cml_step *s = &built->steps[at++];
    for (size_t k = 0; k < s->block_count; k++) CML_TRY(set_block(e, arena, s->blocks[k], op->blocks[k], err));
    for (size_t k = 0; k < s->out_count; k++) {
      bool planned = e->general.plan && !g->values[s->outs[k]].depth;
      CML_TRY(set_type(arena, &op->outputs[k], planned ? &e->general.plan->types[s->outs[k]] : &g->values[s->outs[k]].type, err));
    }
  }
  return CML_OK;
}

static cml_status set_function(const cml_executable *e, cml_arena *arena, cml_mil_function *f, cml_error *err) {
  for (size_t i = 0; e->general.plan && i < f->input_count; i++) CML_TRY(set_type(arena, &f->inputs[i], &e->general.plan->types[i], err));
  CML_TRY(set_block(e, arena, &e->general.graph.body, cml_mil_body(f), err));
  for (size_t i = 0; i < e->outputs.count; i++) {
    cml_feature *feature = &e->outputs.items[i];
    const cml_tensor *t = cml_executable_output_type(e, i);
    if (feature->kind != CML_FEATURE_ARRAY || feature->rank || t->rank < 0) continue;
    if (!(feature->shape = CML_ARENA_NEW_ARRAY(arena, int64_t, t->rank))) return cml_fail_memory(err);
    for (int32_t k = 0; k < t->rank; k++) feature->shape[k] = t->dims[k];
    feature->rank = (size_t)t->rank;
  }
  return CML_OK;
}

cml_status cml_model_infer_types(cml_model *model, cml_error *err) {
  cml_status status = CML_OK;
  for (size_t i = 0; !status && model->program && i < model->program->function_count; i++) {
    cml_executable *e;
    status = cml_executable_check(model, model->program->functions[i], &e, err);
    if (!status) status = set_function(e, &model->arena, model->program->functions[i], err), cml_executable_unref(e);
  }
  return status;
}

/* ---- the graph as text ---- */

enum { LONGEST_CONSTANT = 8 }; /* elements that are printed */

static void print_type(cml_buffer *b, const cml_tensor *t) {
  char text[160];
  cml_tensor_describe(t, text, sizeof text);
  cml_buffer_text(b, text);
}

static void print_element(cml_buffer *b, const cml_tensor *t, int64_t i) {
  const cml_string *s = t->data;
  if (t->dtype == CML_STRING) cml_buffer_json_string(b, s[i].data, s[i].size);
  else if (t->dtype == CML_BOOL) cml_buffer_text(b, cml_tensor_get(t, i) != 0 ? "true" : "false");
  else cml_buffer_printf(b, "%.9g", cml_tensor_get(t, i));
}

static void print_value(cml_buffer *b, const cml_graph *g, uint32_t v) {
  const cml_graph_value *value = &g->values[v];
  const cml_tensor *t = &value->type;
  int64_t n = value->role == CML_ROLE_CONSTANT && t->data && cml_tensor_known_shape(t) ? cml_tensor_count(t) : -1;
  if (n >= 0 && n <= LONGEST_CONSTANT && t->rank <= 1) {
    if (t->rank) cml_buffer_char(b, '[');
    for (int64_t i = 0; i < n; i++) cml_buffer_text(b, i ? ", " : ""), print_element(b, t, i);
    if (t->rank) cml_buffer_char(b, ']');
    return;
  }
  cml_buffer_printf(b, "%%%u", v);
  if (value->name && *value->name) cml_buffer_printf(b, ":%s", value->name);
  if (value->role == CML_ROLE_CONSTANT) cml_buffer_char(b, ' '), print_type(b, t);
}

static void print_step(cml_buffer *b, const cml_graph *g, const cml_step *s, int indent);

static void print_block(cml_buffer *b, const cml_graph *g, const cml_graph_block *block, int indent) {
  for (size_t i = 0; i < block->step_count; i++)
    if (block->steps[i].op && !block->steps[i].folded) print_step(b, g, &block->steps[i], indent);
  cml_buffer_printf(b, "%*s->", indent, "");
  for (size_t i = 0; i < block->output_count; i++) cml_buffer_text(b, i ? ", " : " "), print_value(b, g, block->outputs[i]);
  cml_buffer_char(b, '\n');
}

static void print_step(cml_buffer *b, const cml_graph *g, const cml_step *s, int indent) {
  cml_buffer_printf(b, "%*s", indent, "");
  for (size_t i = 0; i < s->out_count; i++) {
    cml_buffer_text(b, i ? ", " : "");
    print_type(b, &g->values[s->outs[i]].type);
    cml_buffer_char(b, ' ');
    print_value(b, g, s->outs[i]);
  }
  cml_buffer_printf(b, "%s%s(", s->out_count ? " = " : "", s->op->name);
  for (unsigned p = 0, first = 1; p < s->op->param_count; p++) {
    for (size_t i = s->first[p]; i < s->first[p + 1]; i++, first = 0) {
      cml_buffer_text(b, first ? "" : ", ");
      if (i == s->first[p]) cml_buffer_printf(b, "%s = ", s->op->params[p].name);
      print_value(b, g, s->args[i]);
    }
  }
  cml_buffer_text(b, ")\n");
  for (size_t i = 0; i < s->block_count; i++) {
    cml_buffer_printf(b, "%*sblock %zu", indent + 2, "", i);
    for (size_t k = 0; k < s->blocks[i]->input_count; k++) cml_buffer_text(b, k ? ", " : " of "), print_value(b, g, s->blocks[i]->inputs[k]);
    cml_buffer_char(b, '\n');
    print_block(b, g, s->blocks[i], indent + 4);
  }
}

void cml_graph_print(const cml_graph *g, cml_buffer *out) {
  cml_buffer_printf(out, "%s(", g->function->name);
  for (uint32_t i = 0; i < g->function->input_count; i++) {
    cml_buffer_text(out, i ? ", " : "");
    if (g->values[i].role == CML_ROLE_STATE) cml_buffer_text(out, "state ");
    print_type(out, &g->values[i].type);
    cml_buffer_char(out, ' ');
    print_value(out, g, i);
  }
  cml_buffer_text(out, ")\n");
  print_block(out, g, &g->body, 2);
}
