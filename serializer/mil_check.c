/* Names in scope: a hash table of all names of a function, each marked visible or not. A block hides what it defined when
 * it ends, which a stack of definitions tells. One pass, linear in the program. */
#include "mil_check.h"

#include <stdlib.h>

typedef struct name_slot {
  const char *name;
  uint64_t hash;
  bool visible;
} name_slot;

typedef struct scope {
  name_slot *slots;
  size_t capacity, used;
  uint32_t *defined; /* stack of slots */
  size_t defined_count, defined_capacity;
  cml_error *err;
} scope;

static uint64_t hash_name(const char *name) { /* FNV-1a */
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (; *name; name++) h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
  return h ^ h >> 29;
}

static size_t slot_of(const scope *s, const char *name, uint64_t hash) {
  size_t i = (size_t)hash & (s->capacity - 1);
  while (s->slots[i].name && (s->slots[i].hash != hash || strcmp(s->slots[i].name, name))) i = (i + 1) & (s->capacity - 1);
  return i;
}

static void forget(scope *s) {
  free(s->slots);
  free(s->defined);
  *s = (scope){.err = s->err};
}

/* Slots never move, so that the stack can name them: room for every definition of a function is made before. */
static cml_status make_room(scope *s, size_t names) {
  size_t capacity = 16;
  if (names > UINT32_MAX / 4) return cml_fail(s->err, CML_LIMIT, CML_NO_OFFSET, "a function of over a billion values");
  while (capacity < names * 2) capacity *= 2;
  s->slots = calloc(capacity, sizeof *s->slots);
  s->defined = calloc(names + 1, sizeof *s->defined);
  s->capacity = capacity;
  return s->slots && s->defined ? CML_OK : cml_fail_memory(s->err);
}

static size_t count_names(const cml_mil_block *b) {
  size_t n = b->input_count;
  for (size_t i = 0; i < b->op_count; i++) {
    n += b->ops[i]->output_count;
    for (size_t k = 0; k < b->ops[i]->block_count; k++) n += count_names(b->ops[i]->blocks[k]);
  }
  return n;
}

static cml_status define(scope *s, const char *name, uint64_t offset) {
  uint64_t hash = hash_name(name);
  size_t i = slot_of(s, name, hash);
  if (!*name) return cml_fail(s->err, CML_INVALID, offset, "a value without a name");
  if (s->slots[i].visible) return cml_fail(s->err, CML_INVALID, offset, "the name %s is defined twice", name);
  s->slots[i] = (name_slot){name, hash, true};
  s->defined[s->defined_count++] = (uint32_t)i;
  return CML_OK;
}

static cml_status use(const scope *s, const char *name, uint64_t offset) {
  if (s->slots[slot_of(s, name, hash_name(name))].visible) return CML_OK;
  return cml_fail(s->err, CML_INVALID, offset, "the name %s is used, but not defined before", name);
}

static void leave(scope *s, size_t count) {
  while (s->defined_count > count) s->slots[s->defined[--s->defined_count]].visible = false;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

cml_status cml_mil_check_keys(const void *items, size_t count, size_t size, uint64_t offset, cml_error *err) {
  if (count < 2) return CML_OK;
  const char *few[16], **names = count <= 16 ? few : malloc(count * sizeof *names);
  if (!names) return cml_fail_memory(err);
  for (size_t i = 0; i < count; i++) memcpy(&names[i], (const char *)items + i * size, sizeof *names);
  qsort(names, count, sizeof *names, compare_names);
  cml_status status = CML_OK;
  for (size_t i = 1; i < count && !status; i++)
    if (!strcmp(names[i - 1], names[i])) status = cml_fail(err, CML_INVALID, offset, "%s is given twice", names[i]);
  if (names != few) free(names);
  return status;
}

static cml_status check_block(scope *s, const cml_mil_block *block, uint64_t offset);

static cml_status check_op(scope *s, const cml_mil_op *op) {
  CML_TRY(cml_mil_check_keys(op->inputs, op->input_count, sizeof *op->inputs, op->source_offset, s->err));
  CML_TRY(cml_mil_check_keys(op->attributes.items, op->attributes.count, sizeof *op->attributes.items, op->source_offset, s->err));
  for (size_t i = 0; i < op->input_count; i++)
    for (size_t k = 0; k < op->inputs[i].count; k++)
      if (op->inputs[i].bindings[k].name) CML_TRY(use(s, op->inputs[i].bindings[k].name, op->source_offset));
  for (size_t i = 0; i < op->block_count; i++) CML_TRY(check_block(s, op->blocks[i], op->source_offset));
  for (size_t i = 0; i < op->output_count; i++) CML_TRY(define(s, op->outputs[i].name, op->source_offset));
  return CML_OK;
}

static cml_status check_block(scope *s, const cml_mil_block *block, uint64_t offset) {
  size_t mark = s->defined_count;
  for (size_t i = 0; i < block->input_count; i++) CML_TRY(define(s, block->inputs[i].name, offset));
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i];
    cml_status status = check_op(s, op);
    if (status) return cml_error_prefix(s->err, status, "operation %s (%s)", cml_mil_op_name(op), op->type);
  }
  for (size_t i = 0; i < block->output_count; i++) CML_TRY(use(s, block->outputs[i], offset));
  leave(s, mark);
  return CML_OK;
}

static cml_status check_function(const cml_mil_function *f, cml_error *err) {
  if (!f->specialization_count) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "it has no body");
  CML_TRY(cml_mil_check_keys(f->specializations, f->specialization_count, sizeof *f->specializations, CML_NO_OFFSET, err));
  for (size_t i = 0; i < f->specialization_count; i++) {
    const cml_mil_block *block = f->specializations[i].block;
    scope s = {.err = err};
    cml_status status = make_room(&s, f->input_count + count_names(block));
    for (size_t k = 0; k < f->input_count && !status; k++) status = define(&s, f->inputs[k].name, CML_NO_OFFSET);
    if (!status) status = check_block(&s, block, CML_NO_OFFSET);
    forget(&s);
    if (status) return status;
  }
  return CML_OK;
}

static cml_status check_function_names(const cml_mil_program *program, cml_error *err) {
  struct { const char *name; } *names = calloc(program->function_count + 1, sizeof *names);
  if (!names) return cml_fail_memory(err);
  for (size_t i = 0; i < program->function_count; i++) names[i].name = program->functions[i]->name;
  cml_status status = cml_mil_check_keys(names, program->function_count, sizeof *names, CML_NO_OFFSET, err);
  free(names);
  return status;
}

cml_status cml_mil_check(const cml_mil_program *program, cml_error *err) {
  CML_TRY(check_function_names(program, err));
  for (size_t i = 0; i < program->function_count; i++) {
    cml_status status = check_function(program->functions[i], err);
    if (status) return cml_error_prefix(err, status, "function %s", program->functions[i]->name);
  }
  return CML_OK;
}
