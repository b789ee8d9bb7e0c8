/* Sums up a program.
 *
 * A constant is counted where it is used first, so that layers add up to the total. Which constants are parameters:
 * floating-point ones of at least one dimension, whatever lies in a weight file, and what a constexpr operation
 * decompresses; axes, shapes and flags are not. A compressed constant counts with the elements that it gives and the
 * bytes that it takes. */
#include "summary.h"

#include <stdlib.h>

#include "mil_macs.h"

enum { MAX_DEPTH = 64 };

typedef struct summing {
  cml_mil_names names;
  cml_summary *sum;
  cml_arena *arena;
  cml_error *err;
  size_t layer_capacity, operator_capacity;
  uint8_t *used; /* by slot of names: counted already */
} summing;

/* ---- constants ---- */

static bool is_constexpr(const cml_mil_op *op) { return !strncmp(op->type, "constexpr_", 10); }

static uint64_t stored_bytes(const cml_mil_value *value) {
  uint64_t n, bytes;
  if (!value->type || value->type->kind != CML_TYPE_TENSOR || value->type->dtype == CML_STRING) return 0;
  if (!cml_mil_type_elements(value->type, &n) || !cml_dtype_bytes(value->type->dtype, n, &bytes)) return 0;
  return bytes;
}

static bool is_parameter(const cml_mil_value *value) {
  if (!value->type || value->type->kind != CML_TYPE_TENSOR) return false;
  if (value->kind == CML_VALUE_BLOB) return true;
  return value->kind == CML_VALUE_TENSOR && cml_dtype_is_float(value->type->dtype) && value->type->rank != 0;
}

static void add(uint64_t *sum, uint64_t n) {
  if (!cml_add(*sum, n, sum)) *sum = UINT64_MAX;
}

static void count_value(const cml_mil_value *value, bool within_constexpr, cml_summary_layer *layer) {
  uint64_t n;
  if (!value) return;
  if (within_constexpr) {
    add(&layer->weight_bytes, stored_bytes(value));
  } else if (is_parameter(value) && cml_mil_type_elements(value->type, &n)) {
    add(&layer->parameters, n);
    add(&layer->weight_bytes, stored_bytes(value));
  }
}

static void count_binding(summing *s, const cml_mil_binding *binding, bool within, unsigned depth, cml_summary_layer *layer);

static void count_constexpr(summing *s, const cml_mil_op *op, bool within, unsigned depth, cml_summary_layer *layer) {
  uint64_t n;
  if (!within && op->output_count && op->outputs[0].type && cml_mil_type_elements(op->outputs[0].type, &n)) add(&layer->parameters, n);
  for (size_t i = 0; i < op->attributes.count; i++) /* iOS 16 stores the parts as attributes */
    if (strcmp(op->attributes.items[i].name, "name") != 0) count_value(op->attributes.items[i].value, true, layer);
  for (size_t i = 0; i < op->input_count; i++)
    for (size_t j = 0; j < op->inputs[i].count; j++) count_binding(s, &op->inputs[i].bindings[j], true, depth + 1, layer);
}

static void count_binding(summing *s, const cml_mil_binding *binding, bool within, unsigned depth, cml_summary_layer *layer) {
  if (binding->value) {
    count_value(binding->value, within, layer);
    return;
  }
  const cml_mil_definition *d = cml_mil_names_find(&s->names, binding->name);
  if (!d || !d->op || depth > MAX_DEPTH || s->used[d - s->names.slots]) return;
  if (!d->value && !is_constexpr(d->op)) return;
  s->used[d - s->names.slots] = 1;
  if (d->value) count_value(d->value, within, layer);
  else count_constexpr(s, d->op, within, depth, layer);
}

/* ---- operations ---- */

static void *grown(summing *s, void *items, size_t count, size_t *capacity, size_t size) {
  if (count < *capacity) return items;
  size_t next = *capacity ? *capacity * 2 : 16;
  void *more = cml_arena_array(s->arena, next, size);
  if (more && count) memcpy(more, items, count * size);
  if (more) *capacity = next;
  return more;
}

/* A row for one operation; rows of one type are joined at the end. */
static cml_summary_operator *add_row(summing *s, const char *type) {
  cml_summary *sum = s->sum;
  cml_summary_operator *rows = grown(s, sum->operators, sum->operator_count, &s->operator_capacity, sizeof *rows);
  if (!rows) return NULL;
  sum->operators = rows;
  rows[sum->operator_count] = (cml_summary_operator){.type = type, .count = 1};
  return &rows[sum->operator_count++];
}

static cml_status add_layer(summing *s, const cml_mil_op *op, unsigned depth, cml_summary_operator *row) {
  cml_summary_layer layer = {.op = op, .depth = depth};
  for (size_t i = 0; i < op->input_count; i++)
    for (size_t j = 0; j < op->inputs[i].count; j++) count_binding(s, &op->inputs[i].bindings[j], false, 0, &layer);
  layer.macs_known = cml_mil_macs(&s->names, op, &layer.macs);
  if (!layer.macs_known) layer.macs = 0, s->sum->macs_unknown++;
  add(&row->parameters, layer.parameters);
  add(&row->weight_bytes, layer.weight_bytes);
  add(&row->macs, layer.macs);
  add(&s->sum->parameters, layer.parameters);
  add(&s->sum->weight_bytes, layer.weight_bytes);
  add(&s->sum->macs, layer.macs);
  cml_summary_layer *layers = grown(s, s->sum->layers, s->sum->layer_count, &s->layer_capacity, sizeof *layers);
  if (!layers) return cml_fail_memory(s->err);
  s->sum->layers = layers;
  layers[s->sum->layer_count++] = layer;
  return CML_OK;
}

static cml_status sum_block(summing *s, const cml_mil_block *block, unsigned depth) {
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i];
    cml_summary_operator *row = add_row(s, op->type);
    if (!row) return cml_fail_memory(s->err);
    s->sum->operations++;
    if (cml_mil_const_value(op)) s->sum->constants++;
    else if (!is_constexpr(op)) CML_TRY(add_layer(s, op, depth, row));
    for (size_t j = 0; j < op->block_count; j++) CML_TRY(sum_block(s, op->blocks[j], depth + 1));
  }
  return CML_OK;
}

static int by_type(const void *a, const void *b) {
  return strcmp(((const cml_summary_operator *)a)->type, ((const cml_summary_operator *)b)->type);
}

static int more_frequent(const void *a, const void *b) {
  const cml_summary_operator *x = a, *y = b;
  return x->count != y->count ? (x->count < y->count ? 1 : -1) : strcmp(x->type, y->type);
}

static void join_rows(cml_summary *sum) {
  size_t kept = 0;
  if (sum->operator_count) qsort(sum->operators, sum->operator_count, sizeof *sum->operators, by_type);
  for (size_t i = 0; i < sum->operator_count; i++) {
    cml_summary_operator *row = &sum->operators[i], *last = kept ? &sum->operators[kept - 1] : NULL;
    if (!last || strcmp(last->type, row->type) != 0) {
      sum->operators[kept++] = *row;
      continue;
    }
    last->count++;
    add(&last->parameters, row->parameters);
    add(&last->weight_bytes, row->weight_bytes);
    add(&last->macs, row->macs);
  }
  sum->operator_count = kept;
  if (kept) qsort(sum->operators, kept, sizeof *sum->operators, more_frequent);
}

cml_status cml_summary_of(const cml_mil_function *function, cml_arena *arena, cml_summary *out, cml_error *err) {
  const cml_mil_block *body = cml_mil_body(function);
  cml_summary sum = {.function = function};
  summing s = {.sum = &sum, .arena = arena, .err = err};
  if (!body) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "function %s has no body", function->name);
  CML_TRY(cml_mil_names_build(&s.names, arena, function, body, err));
  if (!(s.used = cml_arena_alloc(arena, s.names.capacity))) return cml_fail_memory(err);
  CML_TRY(sum_block(&s, body, 0));
  join_rows(&sum);
  sum.names = s.names;
  *out = sum;
  return CML_OK;
}
