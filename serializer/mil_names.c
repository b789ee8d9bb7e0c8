/* Names are unique in a valid body, so one flat table serves nested blocks too. */
#include "mil_names.h"

enum { MAX_DEPTH = 64 };

static uint64_t hash(const char *name) { /* FNV-1a */
  uint64_t h = 0xcbf29ce484222325;
  for (; *name; name++) h = (h ^ (uint8_t)*name) * 0x100000001b3;
  return h ^ h >> 29;
}

static cml_mil_definition *slot_of(const cml_mil_names *names, const char *name) {
  size_t i = (size_t)hash(name) & (names->capacity - 1);
  while (names->slots[i].name && strcmp(names->slots[i].name, name) != 0) i = (i + 1) & (names->capacity - 1);
  return &names->slots[i];
}

static void define(cml_mil_names *names, const cml_mil_named *what, const cml_mil_op *op) {
  if (!what->name) return;
  cml_mil_definition *slot = slot_of(names, what->name);
  names->count += !slot->name;
  *slot = (cml_mil_definition){what->name, what->type, op, op ? cml_mil_const_value(op) : NULL};
}

/* How many names a block defines, or false when it nests too deeply. */
static bool count_block(const cml_mil_block *block, unsigned depth, size_t *count) {
  if (depth > MAX_DEPTH) return false;
  *count += block->input_count;
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i];
    *count += op->output_count;
    for (size_t j = 0; j < op->block_count; j++)
      if (!count_block(op->blocks[j], depth + 1, count)) return false;
  }
  return true;
}

static void define_block(cml_mil_names *names, const cml_mil_block *block) {
  for (size_t i = 0; i < block->input_count; i++) define(names, &block->inputs[i], NULL);
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i];
    for (size_t j = 0; j < op->block_count; j++) define_block(names, op->blocks[j]);
    for (size_t j = 0; j < op->output_count; j++) define(names, &op->outputs[j], op);
  }
}

cml_status cml_mil_names_build(cml_mil_names *names, cml_arena *arena, const cml_mil_function *function, const cml_mil_block *body,
                               cml_error *err) {
  size_t count = function->input_count, capacity = 16;
  if (!count_block(body, 0, &count)) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "blocks are nested more than %d deep", MAX_DEPTH);
  while (capacity < count * 2) capacity *= 2;
  cml_mil_names made = {cml_arena_array(arena, capacity, sizeof(cml_mil_definition)), capacity, 0};
  if (!made.slots) return cml_fail_memory(err);
  for (size_t i = 0; i < function->input_count; i++) define(&made, &function->inputs[i], NULL);
  define_block(&made, body);
  *names = made;
  return CML_OK;
}

const cml_mil_definition *cml_mil_names_find(const cml_mil_names *names, const char *name) {
  const cml_mil_definition *slot = name ? slot_of(names, name) : NULL;
  return slot && slot->name ? slot : NULL;
}

const cml_mil_value *cml_mil_const_value(const cml_mil_op *op) {
  if (strcmp(op->type, "const") != 0) return NULL;
  const cml_mil_value *value = cml_mil_attribute_find(&op->attributes, "val");
  const cml_mil_argument *argument = value ? NULL : cml_mil_input(op, "val");
  return argument && argument->count ? argument->bindings[0].value : value;
}

const cml_mil_type *cml_mil_argument_type(const cml_mil_names *names, const cml_mil_op *op, const char *parameter) {
  const cml_mil_argument *argument = cml_mil_input(op, parameter);
  if (!argument || !argument->count) return NULL;
  if (argument->bindings[0].value) return argument->bindings[0].value->type;
  const cml_mil_definition *d = cml_mil_names_find(names, argument->bindings[0].name);
  return d ? d->type : NULL;
}

const cml_mil_value *cml_mil_argument_constant(const cml_mil_names *names, const cml_mil_op *op, const char *parameter) {
  const cml_mil_argument *argument = cml_mil_input(op, parameter);
  if (!argument || !argument->count) return NULL;
  if (argument->bindings[0].value) return argument->bindings[0].value;
  const cml_mil_definition *d = cml_mil_names_find(names, argument->bindings[0].name);
  return d ? d->value : NULL;
}
