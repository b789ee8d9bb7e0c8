/* Changes of programs that keep them programs: bytes alone hardly ever give one that loads. The Model is read, its operations
 * are changed one to four times, and it is written again; now and then bytes are changed as always. What was declared of
 * results is mostly forgotten, so that inference finds other shapes where an attribute is another. */
#include <stdio.h>

#include "executable.h"
#include "fuzz_run.h"
#include "op.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t room, unsigned seed);

enum { MAX_OPS = 512, MAX_VALUES = 4096 };

typedef struct place {
  cml_mil_block *block;
  size_t index;
} place;

/* A program's operations and immediate values. */
typedef struct parts {
  place ops[MAX_OPS];
  cml_mil_value *values[MAX_VALUES];
  size_t op_count, value_count;
} parts;

/* ---- finding ---- */

static void add_value(parts *p, cml_mil_value *v) {
  if (!v || p->value_count == MAX_VALUES) return;
  if (v->kind == CML_VALUE_TENSOR) p->values[p->value_count++] = v;
  for (size_t i = 0; v->kind == CML_VALUE_LIST && i < v->count && p->value_count < MAX_VALUES; i++)
    if (v->items[i]->kind == CML_VALUE_TENSOR) p->values[p->value_count++] = v->items[i];
}

static void find_parts(parts *p, cml_mil_block *b, int depth) {
  for (size_t i = 0; i < b->op_count && p->op_count < MAX_OPS; i++) {
    cml_mil_op *op = b->ops[i];
    p->ops[p->op_count++] = (place){b, i};
    for (size_t k = 0; k < op->attributes.count; k++)
      if (strcmp(op->attributes.items[k].name, "name")) add_value(p, op->attributes.items[k].value);
    for (size_t k = 0; k < op->input_count; k++)
      for (size_t n = 0; n < op->inputs[k].count; n++) add_value(p, op->inputs[k].bindings[n].value);
    for (size_t k = 0; depth < 8 && k < op->block_count; k++) find_parts(p, op->blocks[k], depth + 1);
  }
}

static cml_mil_block *body_of(const cml_model *m) {
  return m->program && m->program->function_count ? cml_mil_body(m->program->functions[0]) : NULL;
}

/* An operation that is more than a constant, if there is one. */
static place *choose_op(parts *p, dice *d) {
  place *at = NULL;
  for (int tries = 0; p->op_count && tries < 8; tries++) {
    at = &p->ops[roll(d, (uint32_t)p->op_count)];
    if (strcmp(at->block->ops[at->index]->type, "const")) break;
  }
  return at;
}

/* The name of a value defined in the block before the operation; "" when there is none. */
static const char *earlier_name(const place *at, const cml_model *m, dice *d) {
  const cml_mil_function *f = m->program->functions[0];
  size_t total = at->index + at->block->input_count + f->input_count;
  size_t i = total ? roll(d, (uint32_t)total) : 0;
  if (i < at->index) return at->block->ops[i]->output_count ? at->block->ops[i]->outputs[0].name : "";
  if ((i -= at->index) < at->block->input_count) return at->block->inputs[i].name;
  i -= at->block->input_count;
  return i < f->input_count ? f->inputs[i].name : "";
}

/* ---- values ---- */

static double choose_number(dice *d) {
  static const double numbers[] = {0, -1, 1, 2, 3, 4, -2, -3, 5, 7, 16, 64, 127, 128, 255, 256, 1000, 65536, 2147483647, -2147483648.0,
                                   -0.0, 0.5, 1e-8, 1e30, 65504, -1e30, 4294967296.0, 1e18};
  uint32_t i = roll(d, sizeof numbers / sizeof *numbers + 2);
  if (i < sizeof numbers / sizeof *numbers) return numbers[i];
  return i == sizeof numbers / sizeof *numbers ? __builtin_nan("") : __builtin_inf();
}

static void change_number(cml_model *m, cml_mil_value *v, dice *d) {
  if (!v->data.size || v->type->dtype == CML_STRING) return;
  uint8_t *copy = cml_arena_alloc(&m->arena, v->data.size + 8);
  size_t bytes = cml_dtype_bits(v->type->dtype) / 8;
  if (!copy) return;
  memcpy(copy, v->data.data, v->data.size);
  v->data.data = copy;
  if (!bytes) copy[roll(d, (uint32_t)v->data.size)] ^= (uint8_t)(1u << roll(d, 8));
  else if (v->type->dtype == CML_BOOL) copy[roll(d, (uint32_t)v->data.size)] ^= 1;
  else {
    cml_tensor t = {.dtype = v->type->dtype, .rank = 1, .dims = {(int64_t)(v->data.size / bytes)}, .data = copy};
    int64_t i = roll(d, (uint32_t)t.dims[0]);
    double x = roll(d, 3) ? choose_number(d) : cml_tensor_get(&t, i) + (roll(d, 2) ? 1 : -1);
    if (t.dims[0]) cml_tensor_set(&t, i, x);
  }
}

/* One element more or fewer, or other dimensions for the same data. */
static void change_length(cml_model *m, cml_mil_value *v, dice *d) {
  size_t bytes = cml_dtype_bits(v->type->dtype) / 8, count = bytes ? v->data.size / bytes : 0;
  if (v->type->kind != CML_TYPE_TENSOR || !bytes || v->type->dtype == CML_STRING || v->type->rank > 1) return;
  size_t wanted = roll(d, 4) ? count + (roll(d, 2) ? 1 : (size_t)-1) : roll(d, 6);
  if (wanted == (size_t)-1) wanted = 0;
  uint8_t *copy = cml_arena_alloc(&m->arena, wanted * bytes + 1);
  int64_t dims[1] = {(int64_t)wanted};
  cml_mil_type *type = cml_mil_type_tensor(&m->arena, v->type->dtype, wanted == 1 && roll(d, 2) ? 0 : 1, dims);
  if (!copy || !type) return;
  for (size_t i = 0; count && i < wanted; i++) memcpy(copy + i * bytes, v->data.data + i % count * bytes, bytes);
  v->data = cml_span_of(copy, wanted * bytes);
  v->count = wanted;
  v->type = type;
}

static void change_text(cml_model *m, cml_mil_value *v, parts *p, dice *d) {
  const cml_mil_value *other = p->values[roll(d, (uint32_t)p->value_count)];
  (void)m;
  if (v->type->dtype == CML_STRING && other->type->dtype == CML_STRING && v->count && other->count) v->strings = other->strings;
}

/* ---- types ---- */

static const cml_dtype dtypes[] = {CML_F16, CML_F32, CML_I32, CML_BOOL, CML_I8, CML_U8, CML_I16, CML_U16, CML_I4, CML_U4, CML_STRING};

static void change_type(cml_model *m, cml_mil_type **type, dice *d) {
  if (!*type || (*type)->kind != CML_TYPE_TENSOR) return;
  cml_mil_type *t = CML_ARENA_NEW(&m->arena, cml_mil_type);
  if (!t) return;
  *t = **type;
  if (roll(d, 3) == 0) t->dtype = dtypes[roll(d, sizeof dtypes / sizeof *dtypes)];
  else if (t->rank > 0) {
    t->dims = cml_arena_array(&m->arena, (size_t)t->rank, sizeof *t->dims);
    if (!t->dims) return;
    memcpy(t->dims, (*type)->dims, (size_t)t->rank * sizeof *t->dims);
    uint32_t k = roll(d, (uint32_t)t->rank);
    t->dims[k] = roll(d, 4) ? (int64_t)roll(d, 9) : roll(d, 2) ? CML_DIM_UNKNOWN : t->dims[k] * 2 + 1;
  }
  *type = t;
}

/* An input's shape, in the program and in its description. */
static void change_input(cml_model *m, dice *d) {
  cml_mil_function *f = m->program->functions[0];
  if (!f->input_count) return;
  cml_mil_named *in = &f->inputs[roll(d, (uint32_t)f->input_count)];
  change_type(m, &in->type, d);
  if (!in->type || in->type->kind != CML_TYPE_TENSOR) return;
  for (size_t i = 0; i < m->inputs.count; i++) {
    cml_feature *feature = &m->inputs.items[i];
    if (strcmp(feature->name, in->name) || feature->kind != CML_FEATURE_ARRAY || (int32_t)feature->rank != in->type->rank) continue;
    for (size_t k = 0; k < feature->rank; k++)
      feature->shape[k] = in->type->dims[k] >= 0 ? in->type->dims[k] : (int64_t)roll(d, 5);
  }
}

static void forget_declared(cml_model *m, cml_mil_block *b, int depth) {
  for (size_t i = 0; i < b->op_count; i++) {
    cml_mil_op *op = b->ops[i];
    bool keep = !strcmp(op->type, "const") || op->block_count; /* control flow's results are what is declared: dims go, no more */
    for (size_t k = 0; k < op->output_count; k++) {
      cml_mil_type *t = op->outputs[k].type;
      if (keep || !t || t->kind != CML_TYPE_TENSOR) continue;
      cml_mil_type *unknown = CML_ARENA_NEW(&m->arena, cml_mil_type);
      if (!unknown) return;
      *unknown = *t;
      unknown->rank = CML_RANK_UNKNOWN;
      unknown->dims = NULL;
      op->outputs[k].type = unknown;
    }
    for (size_t k = 0; depth < 8 && k < op->block_count; k++) forget_declared(m, op->blocks[k], depth + 1);
  }
}

/* ---- operations ---- */

/* A copy that may be changed, with names of its own for its results. */
static cml_mil_op *copy_op(cml_model *m, const cml_mil_op *from, dice *d) {
  cml_mil_op *op = CML_ARENA_NEW(&m->arena, cml_mil_op);
  if (!op) return NULL;
  *op = *from;
  op->outputs = cml_arena_array(&m->arena, from->output_count, sizeof *op->outputs);
  op->inputs = cml_arena_array(&m->arena, from->input_count, sizeof *op->inputs);
  if (!op->outputs || !op->inputs) return NULL;
  for (size_t i = 0; i < from->input_count; i++) {
    op->inputs[i] = from->inputs[i];
    op->inputs[i].bindings = cml_arena_array(&m->arena, from->inputs[i].count, sizeof *op->inputs[i].bindings);
    if (!op->inputs[i].bindings) return NULL;
    if (from->inputs[i].count) memcpy(op->inputs[i].bindings, from->inputs[i].bindings, from->inputs[i].count * sizeof *op->inputs[i].bindings);
  }
  for (size_t i = 0; i < from->output_count; i++) {
    op->outputs[i] = from->outputs[i];
    op->outputs[i].name = cml_arena_printf(&m->arena, "%s_%u", from->outputs[i].name, roll(d, 1000000));
    if (!op->outputs[i].name) return NULL;
  }
  return op;
}

static void insert_op(cml_model *m, cml_mil_block *b, size_t at, cml_mil_op *op) {
  cml_mil_op **ops = cml_arena_array(&m->arena, b->op_count + 1, sizeof *ops);
  if (!ops) return;
  for (size_t i = 0; i < at; i++) ops[i] = b->ops[i];
  ops[at] = op;
  for (size_t i = at; i < b->op_count; i++) ops[i + 1] = b->ops[i];
  b->ops = ops;
  b->op_count++;
}

/* Makes someone behind the operation use its result; else it would be left out. */
static void use_result(cml_mil_block *b, size_t at, const char *name, dice *d) {
  size_t behind = b->op_count - at - 1, k = roll(d, (uint32_t)behind + 1);
  if (k == behind) {
    if (b->output_count) b->outputs[roll(d, (uint32_t)b->output_count)] = name;
    return;
  }
  cml_mil_op *op = b->ops[at + 1 + k];
  if (!op->input_count) return;
  cml_mil_argument *a = &op->inputs[roll(d, (uint32_t)op->input_count)];
  if (a->count) a->bindings[roll(d, (uint32_t)a->count)] = (cml_mil_binding){.name = name};
}

static void rebind(cml_model *m, place *at, dice *d) {
  cml_mil_op *op = at->block->ops[at->index];
  if (!op->input_count) return;
  cml_mil_argument *a = &op->inputs[roll(d, (uint32_t)op->input_count)], *b = &op->inputs[roll(d, (uint32_t)op->input_count)];
  if (a != b && roll(d, 2)) {
    cml_mil_binding *bindings = a->bindings;
    size_t count = a->count;
    a->bindings = b->bindings, a->count = b->count;
    b->bindings = bindings, b->count = count;
  } else if (a->count) {
    const char *name = earlier_name(at, m, d);
    if (*name) a->bindings[roll(d, (uint32_t)a->count)] = (cml_mil_binding){.name = name};
  }
}

static void drop_op(place *at) {
  cml_mil_block *b = at->block;
  memmove(b->ops + at->index, b->ops + at->index + 1, (b->op_count - at->index - 1) * sizeof *b->ops);
  b->op_count--;
}

static void drop_argument(cml_mil_op *op, dice *d) {
  if (!op->input_count) return;
  uint32_t k = roll(d, (uint32_t)op->input_count);
  op->inputs[k] = op->inputs[--op->input_count];
}

/* Another operator that takes the same arguments, if one is found soon. */
static void change_operator(cml_mil_op *op, dice *d) {
  size_t count = 0;
  while (cml_op_at(count)) count++;
  for (int tries = 0; tries < 64; tries++) {
    const cml_op *row = cml_op_at(roll(d, (uint32_t)count));
    bool fits = !(row->flags & (CML_OP_INTERNAL | CML_OP_CONTROL)) && row->param_count >= op->input_count;
    for (size_t i = 0; fits && i < op->input_count; i++) {
      bool has = false;
      for (int k = 0; k < row->param_count; k++) has |= !strcmp(row->params[k].name, op->inputs[i].parameter);
      fits = has;
    }
    if (fits) return (void)(op->type = row->name);
  }
}

static void change_opset(cml_model *m, dice *d) {
  static const char *const opsets[] = {"CoreML5", "CoreML6", "CoreML7", "CoreML8"};
  cml_mil_function *f = m->program->functions[0];
  f->opset = opsets[roll(d, 4)];
  if (f->specialization_count) f->specializations[0].opset = f->opset;
}

/* ---- one change ---- */

static void change(cml_model *m, dice *d) {
  static parts p;
  p.op_count = p.value_count = 0;
  find_parts(&p, body_of(m), 0);
  place *at = choose_op(&p, d);
  if (!at) return;
  cml_mil_op *op = at->block->ops[at->index], *copy;
  uint32_t kind = roll(d, 24);
  cml_mil_value *v = p.value_count ? p.values[roll(d, (uint32_t)p.value_count)] : NULL;
  if (kind < 8) {
    if (v && v->type->dtype == CML_STRING) change_text(m, v, &p, d);
    else if (v) change_number(m, v, d);
  } else if (kind < 11) {
    if (v) change_length(m, v, d);
  } else if (kind < 14) {
    rebind(m, at, d);
  } else if (kind == 14) {
    drop_op(at);
  } else if (kind < 17) {
    if ((copy = copy_op(m, op, d))) {
      insert_op(m, at->block, at->index + 1, copy);
      if (roll(d, 2)) change_operator(copy, d);
      if (copy->output_count) use_result(at->block, at->index + 1, copy->outputs[0].name, d);
    }
  } else if (kind < 19) {
    change_input(m, d);
  } else if (kind == 19) {
    if (op->output_count) change_type(m, &op->outputs[roll(d, (uint32_t)op->output_count)].type, d);
  } else if (kind == 20) {
    drop_argument(op, d);
  } else if (kind < 23) {
    change_operator(op, d);
  } else {
    change_opset(m, d);
  }
}

static size_t write_model(cml_model *m, uint8_t *data, size_t room) {
  cml_buffer out = CML_BUFFER_INIT;
  cml_error error;
  size_t size = 0;
  if (!cml_model_serialize(m, &out, &error) && out.size && out.size <= room) {
    memcpy(data, out.data, out.size);
    size = out.size;
  }
  cml_buffer_free(&out);
  return size;
}

static bool loads(cml_model *m) {
  cml_executable *e = NULL;
  if (!body_of(m) || cml_executable_prepare(m, &(cml_prepare_options){.passes = "", .threads = 1, .max_memory = 16 << 20}, &e, NULL)) return false;
  cml_executable_unref(e);
  return true;
}

/* A changed program; 0 when there is none. */
static size_t mutate_once(const uint8_t *data, size_t size, uint8_t *out, size_t room, bool must_load, dice *d) {
  cml_model m = {0};
  size_t got = 0;
  if (!cml_model_parse(cml_span_of(data, size), NULL, &m, NULL) && body_of(&m)) {
    if (roll(d, 4)) forget_declared(&m, body_of(&m), 0);
    for (uint32_t n = 1 + roll(d, 2) * roll(d, 4); n > 0; n--) change(&m, d);
    if (!must_load || loads(&m)) got = write_model(&m, out, room);
  }
  cml_arena_free(&m.arena);
  return got;
}

/* Mostly from what ran to what loads; now and then whatever comes. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
  enum { TRIES = 8 };
  dice d = {seed};
  size_t got = 0;
  bool must_load = roll(&d, 8) != 0;
  if (!roll(&d, 32)) return LLVMFuzzerMutate(data, size, room);
  uint32_t kept = programs_that_ran_count < KEPT_PROGRAMS ? programs_that_ran_count : KEPT_PROGRAMS;
  ran from = {data, size};
  for (int i = 0; !got && i < TRIES; i++) {
    if (kept && (i || roll(&d, 2))) from = programs_that_ran[roll(&d, kept)];
    got = mutate_once(from.data, from.size, data, room, must_load, &d);
  }
  return got ? got : LLVMFuzzerMutate(data, size, room);
}

/* ---- two programs ---- */

static const cml_mil_value *constant_of(const cml_mil_block *b, const char *name) {
  for (size_t i = 0; i < b->op_count; i++)
    if (!strcmp(b->ops[i]->type, "const") && b->ops[i]->output_count && !strcmp(b->ops[i]->outputs[0].name, name))
      return cml_mil_attribute_find(&b->ops[i]->attributes, "val");
  return NULL;
}

/* An operation of b into a: its constants come along inline, its other arguments are what a has. */
static void splice(cml_model *a, cml_model *b, dice *d) {
  static parts from, to;
  from.op_count = from.value_count = to.op_count = to.value_count = 0;
  find_parts(&from, body_of(b), 0);
  find_parts(&to, body_of(a), 0);
  place *source = choose_op(&from, d), *at = choose_op(&to, d);
  if (!source || !at) return;
  cml_mil_op *op = copy_op(a, source->block->ops[source->index], d);
  if (!op || op->block_count) return;
  for (size_t i = 0; i < op->input_count; i++)
    for (size_t k = 0; k < op->inputs[i].count; k++) {
      cml_mil_binding *binding = &op->inputs[i].bindings[k];
      const cml_mil_value *v = binding->name ? constant_of(source->block, binding->name) : binding->value;
      if (v) *binding = (cml_mil_binding){.value = (cml_mil_value *)(uintptr_t)v};
      else binding->name = earlier_name(at, a, d);
      if (!v && !*binding->name) return;
    }
  insert_op(a, at->block, at->index, op);
  if (op->output_count) use_result(at->block, at->index, op->outputs[0].name, d);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t room, unsigned seed) {
  cml_model into = {0}, from = {0};
  cml_error error;
  dice d = {seed};
  size_t got = 0;
  if (!cml_model_parse(cml_span_of(a, a_size), NULL, &into, &error) && !cml_model_parse(cml_span_of(b, b_size), NULL, &from, &error) &&
      body_of(&into) && body_of(&from)) {
    forget_declared(&into, body_of(&into), 0);
    for (uint32_t n = 1 + roll(&d, 3); n > 0; n--) splice(&into, &from, &d);
    got = write_model(&into, out, room);
  }
  cml_arena_free(&into.arena);
  cml_arena_free(&from.arena);
  return got;
}
