/* Structural comparison, top down; the first difference is told with the path to it. */
#include "mil_equal.h"

typedef struct comparison {
  const char *function;
  const cml_mil_op *op; /* innermost operation of a */
  cml_buffer *difference;
} comparison;

static bool differs(const comparison *c, const char *what, const char *name, const char *how) {
  if (!c->difference) return false;
  if (c->function) cml_buffer_printf(c->difference, "function %s", c->function);
  if (c->op) cml_buffer_printf(c->difference, ", operation %s (%s)", cml_mil_op_name(c->op), c->op->type);
  cml_buffer_printf(c->difference, "%s%s%s%s %s", c->function ? ": " : "", what, *name ? " " : "", name, how);
  return false;
}

static bool differs_in_words(const comparison *c, const char *what, const char *a, const char *b) {
  if (!c->difference) return false;
  cml_buffer text = CML_BUFFER_INIT;
  cml_buffer_printf(&text, "is %s in one and %s in the other", a, b);
  differs(c, what, "", text.data ? (const char *)text.data : "differs");
  cml_buffer_free(&text);
  return false;
}

static bool same_text(const char *a, const char *b) { return !strcmp(a ? a : "", b ? b : ""); }

static bool same_strings(const cml_mil_value *a, const cml_mil_value *b) {
  for (size_t i = 0; i < a->count; i++)
    if (a->strings[i].size != b->strings[i].size || memcmp(a->strings[i].data, b->strings[i].data, a->strings[i].size)) return false;
  return true;
}

static bool is_tensor(const cml_mil_value *v) { return v->kind == CML_VALUE_TENSOR || v->kind == CML_VALUE_BLOB; }
static bool is_unbound(const cml_mil_value *v) { return v->kind == CML_VALUE_BLOB && !v->data.data; }

bool cml_mil_value_equal(const cml_mil_value *a, const cml_mil_value *b) {
  if (a == b) return true;
  if (!a || !b || !cml_mil_type_equal(a->type, b->type)) return false;
  if (is_tensor(a) && is_tensor(b)) {
    if (is_unbound(a) || is_unbound(b))
      return is_unbound(a) && is_unbound(b) && a->offset == b->offset && same_text(a->file, b->file);
    if (a->count != b->count || !a->strings != !b->strings) return false;
    return a->strings ? same_strings(a, b) : cml_span_equal(a->data, b->data);
  }
  if (a->kind != b->kind || a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++) {
    if (a->keys && !cml_mil_value_equal(a->keys[i], b->keys[i])) return false;
    if (!cml_mil_value_equal(a->items[i], b->items[i])) return false;
  }
  return true;
}

static bool compare_attributes(comparison *c, const cml_mil_attributes *a, const cml_mil_attributes *b) {
  for (size_t i = 0; i < a->count; i++) {
    const cml_mil_value *other = cml_mil_attribute_find(b, a->items[i].name);
    if (!other) return differs(c, "attribute", a->items[i].name, "is only in one");
    if (!cml_mil_value_equal(a->items[i].value, other)) return differs(c, "attribute", a->items[i].name, "differs");
  }
  for (size_t i = 0; i < b->count; i++)
    if (!cml_mil_attribute_find(a, b->items[i].name)) return differs(c, "attribute", b->items[i].name, "is only in the other");
  return true;
}

static bool compare_named(comparison *c, const char *what, const cml_mil_named *a, size_t a_count, const cml_mil_named *b, size_t b_count) {
  if (a_count != b_count) return differs(c, what, "", "differ in number");
  for (size_t i = 0; i < a_count; i++) {
    if (strcmp(a[i].name, b[i].name)) return differs_in_words(c, what, a[i].name, b[i].name);
    if (!cml_mil_type_equal(a[i].type, b[i].type)) return differs(c, what, a[i].name, "differs in type");
  }
  return true;
}

static bool compare_bindings(const cml_mil_argument *a, const cml_mil_argument *b) {
  if (a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++) {
    const cml_mil_binding *x = &a->bindings[i], *y = &b->bindings[i];
    if (!x->name != !y->name) return false;
    if (x->name ? strcmp(x->name, y->name) != 0 : !cml_mil_value_equal(x->value, y->value)) return false;
  }
  return true;
}

static bool compare_inputs(comparison *c, const cml_mil_op *a, const cml_mil_op *b) {
  for (size_t i = 0; i < a->input_count; i++) {
    const cml_mil_argument *other = cml_mil_input(b, a->inputs[i].parameter);
    if (!other) return differs(c, "input", a->inputs[i].parameter, "is only in one");
    if (!compare_bindings(&a->inputs[i], other)) return differs(c, "input", a->inputs[i].parameter, "differs");
  }
  for (size_t i = 0; i < b->input_count; i++)
    if (!cml_mil_input(a, b->inputs[i].parameter)) return differs(c, "input", b->inputs[i].parameter, "is only in the other");
  return true;
}

static bool compare_block(comparison *c, const cml_mil_block *a, const cml_mil_block *b);

static bool compare_op(comparison *c, const cml_mil_op *a, const cml_mil_op *b) {
  const cml_mil_op *outer = c->op;
  c->op = a;
  if (strcmp(a->type, b->type)) return differs_in_words(c, "its type", a->type, b->type);
  if (!compare_named(c, "output", a->outputs, a->output_count, b->outputs, b->output_count)) return false;
  if (!compare_inputs(c, a, b) || !compare_attributes(c, &a->attributes, &b->attributes)) return false;
  if (a->block_count != b->block_count) return differs(c, "blocks", "", "differ in number");
  for (size_t i = 0; i < a->block_count; i++)
    if (!compare_block(c, a->blocks[i], b->blocks[i])) return false;
  c->op = outer;
  return true;
}

static bool compare_block(comparison *c, const cml_mil_block *a, const cml_mil_block *b) {
  if (!compare_named(c, "block input", a->inputs, a->input_count, b->inputs, b->input_count)) return false;
  for (size_t i = 0; i < a->op_count && i < b->op_count; i++)
    if (!compare_op(c, a->ops[i], b->ops[i])) return false;
  if (a->op_count != b->op_count) return differs(c, "operations", "", "differ in number");
  if (a->output_count != b->output_count) return differs(c, "block outputs", "", "differ in number");
  for (size_t i = 0; i < a->output_count; i++)
    if (strcmp(a->outputs[i], b->outputs[i])) return differs_in_words(c, "block output", a->outputs[i], b->outputs[i]);
  return compare_attributes(c, &a->attributes, &b->attributes);
}

static const cml_mil_block *body_for(const cml_mil_function *f, const char *opset) {
  for (size_t i = 0; i < f->specialization_count; i++)
    if (same_text(f->specializations[i].opset, opset)) return f->specializations[i].block;
  return NULL;
}

static bool compare_function(comparison *c, const cml_mil_function *a, const cml_mil_function *b) {
  if (!compare_named(c, "input", a->inputs, a->input_count, b->inputs, b->input_count)) return false;
  if (!same_text(a->opset, b->opset)) return differs_in_words(c, "its opset", a->opset, b->opset);
  if (a->specialization_count != b->specialization_count) return differs(c, "bodies", "", "differ in number");
  for (size_t i = 0; i < a->specialization_count; i++) {
    const cml_mil_block *other = body_for(b, a->specializations[i].opset);
    if (!other) return differs(c, "the body for", a->specializations[i].opset, "is only in one");
    if (!compare_block(c, a->specializations[i].block, other)) return false;
  }
  return compare_attributes(c, &a->attributes, &b->attributes);
}

bool cml_mil_program_equal(const cml_mil_program *a, const cml_mil_program *b, cml_buffer *difference) {
  comparison c = {NULL, NULL, difference};
  for (size_t i = 0; i < a->function_count; i++) {
    const cml_mil_function *other = cml_mil_find_function(b, a->functions[i]->name);
    if (!other) return differs(&c, "function", a->functions[i]->name, "is only in one");
    c.function = a->functions[i]->name;
    if (!compare_function(&c, a->functions[i], other)) return false;
    c.function = NULL;
  }
  for (size_t i = 0; i < b->function_count; i++)
    if (!cml_mil_find_function(a, b->functions[i]->name)) return differs(&c, "function", b->functions[i]->name, "is only in the other");
  return true;
}
