/* Small questions that everybody asks of a program. Linear searches: an operation has a handful of inputs. */
#include "mil.h"

const cml_mil_function *cml_mil_find_function(const cml_mil_program *program, const char *name) {
  for (size_t i = 0; i < program->function_count; i++)
    if (!strcmp(program->functions[i]->name, name)) return program->functions[i];
  return NULL;
}

cml_mil_block *cml_mil_body(const cml_mil_function *function) {
  for (size_t i = 0; i < function->specialization_count; i++)
    if (function->opset && !strcmp(function->specializations[i].opset, function->opset))
      return function->specializations[i].block;
  return function->specialization_count ? function->specializations[0].block : NULL;
}

cml_mil_value *cml_mil_attribute_find(const cml_mil_attributes *attributes, const char *name) {
  for (size_t i = 0; i < attributes->count; i++)
    if (!strcmp(attributes->items[i].name, name)) return attributes->items[i].value;
  return NULL;
}

const cml_mil_argument *cml_mil_input(const cml_mil_op *op, const char *parameter) {
  for (size_t i = 0; i < op->input_count; i++)
    if (!strcmp(op->inputs[i].parameter, parameter)) return &op->inputs[i];
  return NULL;
}

const char *cml_mil_op_name(const cml_mil_op *op) {
  const cml_mil_value *name = cml_mil_attribute_find(&op->attributes, "name");
  if (name && name->kind == CML_VALUE_TENSOR && name->strings && name->count == 1) return name->strings[0].data;
  return op->output_count ? op->outputs[0].name : "";
}

/* The value of the constant of that name, among the operations before `end`. */
static const cml_mil_value *find_constant(const cml_mil_block *block, size_t end, const char *name) {
  for (size_t i = end; i-- > 0;) {
    const cml_mil_op *op = block->ops[i];
    if (op->output_count && !strcmp(op->outputs[0].name, name)) return cml_mil_attribute_find(&op->attributes, "val");
  }
  return NULL;
}

const cml_mil_value *cml_mil_class_labels(const cml_mil_function *function) {
  const cml_mil_block *body = cml_mil_body(function);
  for (size_t i = body ? body->op_count : 0; i-- > 0;) {
    const cml_mil_argument *classes = strcmp(body->ops[i]->type, "classify") ? NULL : cml_mil_input(body->ops[i], "classes");
    if (!classes || classes->count != 1) continue;
    return classes->bindings[0].value ? classes->bindings[0].value : find_constant(body, i, classes->bindings[0].name);
  }
  return NULL;
}

cml_mil_type *cml_mil_type_tensor(cml_arena *arena, cml_dtype dtype, int32_t rank, const int64_t *dims) {
  cml_mil_type *type = CML_ARENA_NEW(arena, cml_mil_type);
  if (!type) return NULL;
  *type = (cml_mil_type){.kind = CML_TYPE_TENSOR, .dtype = dtype, .rank = rank};
  if (rank > 0) {
    type->dims = CML_ARENA_NEW_ARRAY(arena, int64_t, (size_t)rank);
    if (!type->dims) return NULL;
    memcpy(type->dims, dims, (size_t)rank * sizeof *dims);
  }
  return type;
}

bool cml_mil_type_elements(const cml_mil_type *type, uint64_t *out) {
  if (type->kind != CML_TYPE_TENSOR || type->rank < 0) return false;
  uint64_t n = 1;
  bool empty = false;
  for (int32_t i = 0; i < type->rank; i++) {
    if (type->dims[i] < 0) return false;
    empty |= !type->dims[i];
  }
  for (int32_t i = 0; i < type->rank && !empty; i++)
    if (!cml_mul(n, (uint64_t)type->dims[i], &n)) return false;
  *out = empty ? 0 : n;
  return true;
}

static bool tensor_equal(const cml_mil_type *a, const cml_mil_type *b) {
  if (a->dtype != b->dtype || a->rank != b->rank) return false;
  for (int32_t i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}

bool cml_mil_type_equal(const cml_mil_type *a, const cml_mil_type *b) {
  if (a == b) return true;
  if (!a || !b || a->kind != b->kind || a->arg_count != b->arg_count) return false;
  if (a->kind == CML_TYPE_TENSOR) return tensor_equal(a, b);
  if (a->kind == CML_TYPE_LIST && a->length != b->length) return false;
  for (size_t i = 0; i < a->arg_count; i++)
    if (!cml_mil_type_equal(a->args[i], b->args[i])) return false;
  return true;
}

static void print_dim(int64_t dim, cml_buffer *out) {
  if (dim == CML_DIM_UNKNOWN) cml_buffer_char(out, '?');
  else if (dim == CML_DIM_VARIADIC) cml_buffer_text(out, "...");
  else cml_buffer_printf(out, "%lld", (long long)dim);
}

void cml_mil_type_print(const cml_mil_type *type, cml_buffer *out) {
  static const char *const names[] = {"tensor", "list", "tuple", "dict", "state"};
  cml_buffer_printf(out, "%s<", names[type->kind]);
  if (type->kind == CML_TYPE_TENSOR) {
    cml_buffer_printf(out, "%s, [", cml_dtype_name(type->dtype));
    for (int32_t i = 0; i < type->rank; i++) {
      if (i) cml_buffer_text(out, ", ");
      print_dim(type->dims[i], out);
    }
    cml_buffer_text(out, type->rank == CML_RANK_UNKNOWN ? "...]" : "]");
  }
  for (size_t i = 0; i < type->arg_count; i++) {
    if (i) cml_buffer_text(out, ", ");
    cml_mil_type_print(type->args[i], out);
  }
  if (type->kind == CML_TYPE_LIST) cml_buffer_text(out, ", "), print_dim(type->length, out);
  cml_buffer_char(out, '>');
}
