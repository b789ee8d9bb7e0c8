/* Every value of a program, wherever it may stand. Recursion is as deep as the program, which its reader bounded. */
#include "weights.h"

typedef struct visitor {
  cml_mil_visit *visit;
  void *context;
  const cml_mil_op *op;
  cml_error *err;
} visitor;

static cml_status visit_type(visitor *v, const cml_mil_type *type);

static cml_status visit_value(visitor *v, cml_mil_value *value) {
  CML_TRY(v->visit(v->context, v->op, value, v->err));
  CML_TRY(visit_type(v, value->type));
  if (value->kind != CML_VALUE_TUPLE && value->kind != CML_VALUE_LIST && value->kind != CML_VALUE_DICTIONARY) return CML_OK;
  for (size_t i = 0; i < value->count; i++) {
    if (value->keys) CML_TRY(visit_value(v, value->keys[i]));
    CML_TRY(visit_value(v, value->items[i]));
  }
  return CML_OK;
}

static cml_status visit_attributes(visitor *v, const cml_mil_attributes *attributes) {
  for (size_t i = 0; i < attributes->count; i++) CML_TRY(visit_value(v, attributes->items[i].value));
  return CML_OK;
}

static cml_status visit_type(visitor *v, const cml_mil_type *type) {
  if (!type) return CML_OK;
  for (size_t i = 0; i < type->arg_count; i++) CML_TRY(visit_type(v, type->args[i]));
  return visit_attributes(v, &type->attributes);
}

static cml_status visit_named(visitor *v, const cml_mil_named *named, size_t count) {
  for (size_t i = 0; i < count; i++) CML_TRY(visit_type(v, named[i].type));
  return CML_OK;
}

static cml_status visit_block(visitor *v, const cml_mil_block *block) {
  CML_TRY(visit_named(v, block->inputs, block->input_count));
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i], *outer = v->op;
    v->op = op;
    for (size_t k = 0; k < op->input_count; k++)
      for (size_t b = 0; b < op->inputs[k].count; b++)
        if (op->inputs[k].bindings[b].value) CML_TRY(visit_value(v, op->inputs[k].bindings[b].value));
    CML_TRY(visit_attributes(v, &op->attributes));
    CML_TRY(visit_named(v, op->outputs, op->output_count));
    for (size_t k = 0; k < op->block_count; k++) CML_TRY(visit_block(v, op->blocks[k]));
    v->op = outer;
  }
  return visit_attributes(v, &block->attributes);
}

cml_status cml_mil_each_value(const cml_mil_program *program, cml_mil_visit *visit, void *context, cml_error *err) {
  visitor v = {visit, context, NULL, err};
  for (size_t i = 0; i < program->function_count; i++) {
    const cml_mil_function *f = program->functions[i];
    CML_TRY(visit_named(&v, f->inputs, f->input_count));
    CML_TRY(visit_attributes(&v, &f->attributes));
    for (size_t k = 0; k < f->specialization_count; k++) CML_TRY(visit_block(&v, f->specializations[k].block));
  }
  return visit_attributes(&v, &program->attributes);
}
