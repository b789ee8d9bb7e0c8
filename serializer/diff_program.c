/* Compares two programs operation by operation.
 *
 * Operations of a block are matched by the name of their first output. What stays unmatched is tried again by type, in
 * order, within the same gap between matched neighbours: an operation that was only renamed. Arguments are then compared
 * under that renaming, so that one renamed operation is one difference and not one in each of its readers. */
#include <math.h>
#include <stdlib.h>

#include "diff_internal.h"
#include "f16.h"
#include "mil_equal.h"
#include "mil_names.h"
#include "mil_text_number.h"

#define NONE SIZE_MAX

typedef struct renaming { const char *from, *to; } renaming;

typedef struct comparing {
  cml_diff *diff;
  const char *where; /* "FUNCTION/" */
  renaming *renamed;
  size_t renamed_count, renamed_capacity;
  struct side { /* the two functions */
    const cml_mil_function *function;
    cml_mil_names names;
  } a, b;
  cml_error *err;
} comparing;

/* ---- measuring ---- */

static uint64_t bits_at(const cml_mil_value *v, size_t i) {
  unsigned bits = cml_dtype_bits(v->type->dtype);
  uint64_t raw = 0;
  if (bits >= 8) memcpy(&raw, v->data.data + i * (bits / 8), bits / 8);
  else for (unsigned b = 0; b < bits; b++) raw |= (uint64_t)(v->data.data[(i * bits + b) >> 3] >> ((i * bits + b) & 7) & 1) << b;
  return raw;
}

static double number_at(const cml_mil_value *v, size_t i) {
  cml_dtype type = v->type->dtype;
  unsigned unused = 64 - cml_dtype_bits(type);
  uint64_t raw = bits_at(v, i);
  uint32_t low = (uint32_t)raw;
  float f;
  double d;
  switch (type) {
    case CML_F16: return (double)cml_f16_to_f32((cml_f16)raw);
    case CML_BF16: return (double)cml_bf16_to_f32((uint16_t)raw);
    case CML_F32: return memcpy(&f, &low, 4), (double)f;
    case CML_F64: return memcpy(&d, &raw, 8), d;
    default: return cml_dtype_is_signed(type) ? (double)((int64_t)(raw << unused) >> unused) : (double)raw;
  }
}

static bool has_numbers(const cml_mil_value *v) {
  uint64_t bytes;
  if (!v || (v->kind != CML_VALUE_TENSOR && v->kind != CML_VALUE_BLOB) || !v->type || v->type->kind != CML_TYPE_TENSOR) return false;
  if (v->type->dtype == CML_STRING || v->type->dtype == CML_DTYPE_NONE) return false;
  return cml_dtype_bytes(v->type->dtype, v->count, &bytes) && bytes <= v->data.size && (v->data.data || !v->count);
}

bool cml_diff_measure(const cml_mil_value *a, const cml_mil_value *b, double *max_difference, double *snr) {
  if (!has_numbers(a) || !has_numbers(b) || a->count != b->count) return false;
  double signal = 0, noise = 0, most = 0;
  for (size_t i = 0; i < a->count; i++) {
    double x = number_at(a, i), y = number_at(b, i), d = fabs(x - y);
    if (x == y || (isnan(x) && isnan(y))) d = 0;
    if (d > most || isnan(d)) most = isnan(d) ? INFINITY : d;
    signal += isnan(x) ? 0 : x * x;
    noise += d * d;
  }
  *max_difference = most;
  *snr = noise == 0 ? INFINITY : 10 * log10(signal / noise);
  return true;
}

/* ---- words ---- */

static void value_words(const cml_mil_value *v, cml_buffer *out) {
  char number[CML_MIL_NUMBER_SIZE];
  if (!v) {
    cml_buffer_text(out, "nothing");
  } else if (v->kind == CML_VALUE_TENSOR && v->type && v->type->kind == CML_TYPE_TENSOR && v->strings && v->count <= 4) {
    for (size_t i = 0; i < v->count; i++) {
      if (i) cml_buffer_text(out, ", ");
      cml_buffer_json_string(out, v->strings[i].data, v->strings[i].size);
    }
  } else if (has_numbers(v) && v->count <= 8) {
    if (v->type->rank) cml_buffer_char(out, '[');
    for (size_t i = 0; i < v->count; i++) {
      if (i) cml_buffer_text(out, ", ");
      if (cml_dtype_is_float(v->type->dtype)) cml_buffer_printf(out, "%.6g", number_at(v, i));
      else cml_buffer_append(out, number, cml_mil_number_print(number, v->type->dtype, bits_at(v, i)));
    }
    if (v->type->rank) cml_buffer_char(out, ']');
  } else if (v->type) {
    cml_mil_type_print(v->type, out);
  }
}

static void argument_words(const cml_mil_argument *a, cml_buffer *out) {
  if (!a) cml_buffer_text(out, "nothing");
  for (size_t i = 0; a && i < a->count; i++) {
    if (i) cml_buffer_text(out, ", ");
    if (a->bindings[i].name) cml_buffer_text(out, a->bindings[i].name);
    else value_words(a->bindings[i].value, out);
  }
}

static void type_words(const cml_mil_type *type, cml_buffer *out) {
  if (type) cml_mil_type_print(type, out);
  else cml_buffer_text(out, "no type");
}

/* "conv -> tensor<fp16, [1, 8]>" */
static void op_words(const cml_mil_op *op, cml_buffer *out) {
  cml_buffer_text(out, op->type);
  for (size_t i = 0; i < op->output_count; i++) {
    cml_buffer_text(out, i ? ", " : " -> ");
    type_words(op->outputs[i].type, out);
  }
}

static const char *first_output(const cml_mil_op *op) { return op->output_count ? op->outputs[0].name : cml_mil_op_name(op); }

static char *place_of(comparing *c, const cml_mil_op *op) { return cml_arena_printf(&c->diff->arena, "%s%s", c->where, first_output(op)); }

static cml_status note_op(comparing *c, char change, const cml_mil_op *op) {
  cml_buffer words = CML_BUFFER_INIT;
  op_words(op, &words);
  char *place = place_of(c, op);
  cml_status status = place && words.data ? cml_diff_add(c->diff, CML_DIFF_PROGRAM, change, place, (const char *)words.data, c->err)
                                          : cml_fail_memory(c->err);
  cml_buffer_free(&words);
  return status;
}

/* "what: before -> after", in words that were already printed; frees them. */
static cml_status note_change(comparing *c, const cml_mil_op *op, const char *what, cml_buffer *before, cml_buffer *after) {
  char *place = place_of(c, op);
  cml_status status = place ? cml_diff_note(c->diff, CML_DIFF_PROGRAM, '~', place, c->err, "%s %s -> %s", what,
                                            before->data ? (const char *)before->data : "", after->data ? (const char *)after->data : "")
                            : cml_fail_memory(c->err);
  cml_buffer_free(before);
  cml_buffer_free(after);
  return status;
}

/* ---- renamed values ---- */

static cml_status add_renaming(comparing *c, const char *from, const char *to) {
  if (!strcmp(from, to)) return CML_OK;
  if (c->renamed_count == c->renamed_capacity) {
    size_t capacity = c->renamed_capacity ? c->renamed_capacity * 2 : 16;
    renaming *more = realloc(c->renamed, capacity * sizeof *more);
    if (!more) return cml_fail_memory(c->err);
    c->renamed = more;
    c->renamed_capacity = capacity;
  }
  c->renamed[c->renamed_count++] = (renaming){from, to};
  return CML_OK;
}

static bool same_name(const comparing *c, const char *a, const char *b) {
  if (!strcmp(a, b)) return true;
  for (size_t i = c->renamed_count; i-- > 0;)
    if (!strcmp(c->renamed[i].from, a)) return !strcmp(c->renamed[i].to, b);
  return false;
}

/* ---- operations ---- */

static bool same_argument(const comparing *c, const cml_mil_argument *a, const cml_mil_argument *b) {
  if (!a || !b || a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++) {
    const cml_mil_binding *x = &a->bindings[i], *y = &b->bindings[i];
    if (!x->name != !y->name) return false;
    if (x->name ? !same_name(c, x->name, y->name) : !cml_mil_value_equal(x->value, y->value)) return false;
  }
  return true;
}

/* ---- compressed constants ---- */

static bool is_constexpr(const cml_mil_op *op) { return !strncmp(op->type, "constexpr_", 10); }

/* What defines an argument's one value, when that is a constant, compressed or not. */
static const cml_mil_op *constant_of(const struct side *s, const cml_mil_argument *argument) {
  const cml_mil_definition *d = argument && argument->count == 1 ? cml_mil_names_find(&s->names, argument->bindings[0].name) : NULL;
  return d && d->op && (d->value || is_constexpr(d->op)) ? d->op : NULL;
}

/* A constant's elements: its own, or decompressed into `room`. False when they cannot be had. */
static bool dense_of(const comparing *c, const struct side *s, const cml_mil_op *op, cml_buffer *room, cml_mil_value *out) {
  const cml_mil_value *value = cml_mil_const_value(op);
  uint64_t count;
  if (value) return *out = *value, true;
  if (!c->diff->decompress || !op->output_count || !op->outputs[0].type || !cml_mil_type_elements(op->outputs[0].type, &count)) return false;
  if (c->diff->decompress(op, s->function, room, NULL)) return false;
  *out = (cml_mil_value){.kind = CML_VALUE_TENSOR, .type = op->outputs[0].type, .data = cml_buffer_span(room), .count = (size_t)count};
  return true;
}

/* Two constants, at least one of them compressed: an entry with their distance, unless they are equal or cannot be measured. */
static cml_status compare_dense(comparing *c, const char *place, const cml_mil_op *a, const cml_mil_op *b) {
  cml_buffer a_room = CML_BUFFER_INIT, b_room = CML_BUFFER_INIT, words = CML_BUFFER_INIT;
  cml_mil_value x, y;
  double most = 0, snr = 0;
  cml_status status = CML_OK;
  bool measured = dense_of(c, &c->a, a, &a_room, &x) && dense_of(c, &c->b, b, &b_room, &y) && cml_diff_measure(&x, &y, &most, &snr);
  if (measured && most > 0) {
    cml_buffer_printf(&words, "%s -> %s, ", a->type, b->type);
    type_words(b->outputs[0].type, &words);
    status = words.data ? cml_diff_add(c->diff, CML_DIFF_WEIGHTS, '~', place, (const char *)words.data, c->err) : cml_fail_memory(c->err);
    cml_diff_entry *entry = status ? NULL : &c->diff->entries[c->diff->count - 1];
    if (entry) entry->measured = true, entry->max_difference = most, entry->snr = snr;
  }
  cml_buffer_free(&a_room);
  cml_buffer_free(&b_room);
  cml_buffer_free(&words);
  return status;
}

static cml_status compare_argument(comparing *c, const cml_mil_op *op, const char *parameter, const cml_mil_argument *a, const cml_mil_argument *b) {
  cml_buffer before = CML_BUFFER_INIT, after = CML_BUFFER_INIT;
  if (same_argument(c, a, b)) return CML_OK;
  const cml_mil_op *x = constant_of(&c->a, a), *y = constant_of(&c->b, b);
  if (x && y && (is_constexpr(x) || is_constexpr(y))) {
    char *place = cml_arena_printf(&c->diff->arena, "%s%s.%s", c->where, first_output(op), parameter);
    if (!place) return cml_fail_memory(c->err);
    CML_TRY(compare_dense(c, place, x, y));
  }
  argument_words(a, &before);
  argument_words(b, &after);
  return note_change(c, op, parameter, &before, &after);
}

static bool is_weight(const cml_mil_value *v) {
  if (!v || !v->type || v->type->kind != CML_TYPE_TENSOR) return false;
  return v->kind == CML_VALUE_BLOB || (v->kind == CML_VALUE_TENSOR && cml_dtype_is_float(v->type->dtype) && v->type->rank != 0);
}

static cml_status compare_weights(comparing *c, const cml_mil_op *op, const char *part, const cml_mil_value *a, const cml_mil_value *b) {
  cml_diff *diff = c->diff;
  cml_buffer words = CML_BUFFER_INIT;
  type_words(a->type, &words);
  if (!cml_mil_type_equal(a->type, b->type)) cml_buffer_text(&words, " -> "), type_words(b->type, &words);
  char *place = cml_arena_printf(&diff->arena, "%s%s%s%s", c->where, first_output(op), *part ? "." : "", part);
  cml_status status = place && words.data ? cml_diff_add(diff, CML_DIFF_WEIGHTS, '~', place, (const char *)words.data, c->err) : cml_fail_memory(c->err);
  cml_buffer_free(&words);
  if (status) return status;
  cml_diff_entry *entry = &diff->entries[diff->count - 1];
  entry->measured = cml_diff_measure(a, b, &entry->max_difference, &entry->snr);
  return CML_OK;
}

static cml_status compare_values(comparing *c, const cml_mil_op *op, const char *what, const cml_mil_value *a, const cml_mil_value *b) {
  cml_buffer before = CML_BUFFER_INIT, after = CML_BUFFER_INIT;
  if (a && b && cml_mil_value_equal(a, b)) return CML_OK;
  if (is_weight(a) && is_weight(b)) return compare_weights(c, op, !strcmp(what, "val") ? "" : what, a, b);
  value_words(a, &before);
  value_words(b, &after);
  return note_change(c, op, what, &before, &after);
}

static cml_status compare_attributes(comparing *c, const cml_mil_op *a, const cml_mil_op *b) {
  for (size_t i = 0; i < a->attributes.count; i++) {
    const cml_mil_attribute *x = &a->attributes.items[i];
    if (strcmp(x->name, "name") != 0) CML_TRY(compare_values(c, a, x->name, x->value, cml_mil_attribute_find(&b->attributes, x->name)));
  }
  for (size_t i = 0; i < b->attributes.count; i++) {
    const cml_mil_attribute *y = &b->attributes.items[i];
    if (strcmp(y->name, "name") != 0 && !cml_mil_attribute_find(&a->attributes, y->name)) CML_TRY(compare_values(c, a, y->name, NULL, y->value));
  }
  return CML_OK;
}

static cml_status compare_outputs(comparing *c, const cml_mil_op *a, const cml_mil_op *b) {
  for (size_t i = 0; i < a->output_count && i < b->output_count; i++) {
    cml_buffer before = CML_BUFFER_INIT, after = CML_BUFFER_INIT;
    if (!cml_mil_type_equal(a->outputs[i].type, b->outputs[i].type)) {
      type_words(a->outputs[i].type, &before);
      type_words(b->outputs[i].type, &after);
      CML_TRY(note_change(c, a, "output", &before, &after));
    }
    CML_TRY(add_renaming(c, a->outputs[i].name, b->outputs[i].name));
  }
  return CML_OK;
}

static cml_status compare_blocks(comparing *c, const cml_mil_block *a, const cml_mil_block *b);

static cml_status compare_ops(comparing *c, const cml_mil_op *a, const cml_mil_op *b) {
  cml_buffer before = CML_BUFFER_INIT, after = CML_BUFFER_INIT;
  if (strcmp(a->type, b->type) != 0 || a->output_count != b->output_count || a->block_count != b->block_count) {
    op_words(a, &before);
    op_words(b, &after);
    CML_TRY(note_change(c, a, "was", &before, &after));
    if ((cml_mil_const_value(a) || is_constexpr(a)) && (cml_mil_const_value(b) || is_constexpr(b)) && b->output_count) {
      char *place = place_of(c, a);
      if (!place) return cml_fail_memory(c->err);
      CML_TRY(compare_dense(c, place, a, b));
    }
    return compare_outputs(c, a, b);
  }
  if (strcmp(first_output(a), first_output(b)) != 0) {
    cml_buffer_text(&before, first_output(a));
    cml_buffer_text(&after, first_output(b));
    CML_TRY(note_change(c, a, "renamed", &before, &after));
  }
  for (size_t i = 0; i < a->input_count; i++)
    CML_TRY(compare_argument(c, a, a->inputs[i].parameter, &a->inputs[i], cml_mil_input(b, a->inputs[i].parameter)));
  for (size_t i = 0; i < b->input_count; i++)
    if (!cml_mil_input(a, b->inputs[i].parameter)) CML_TRY(compare_argument(c, a, b->inputs[i].parameter, NULL, &b->inputs[i]));
  CML_TRY(compare_attributes(c, a, b));
  for (size_t i = 0; i < a->block_count; i++) CML_TRY(compare_blocks(c, a->blocks[i], b->blocks[i]));
  if (is_constexpr(a) && a->output_count) {
    char *place = place_of(c, a);
    if (!place) return cml_fail_memory(c->err);
    CML_TRY(compare_dense(c, place, a, b));
  }
  return compare_outputs(c, a, b);
}

/* ---- matching ---- */

typedef struct by_name { const char *name; size_t index; } by_name;

static int name_order(const void *x, const void *y) { return strcmp(((const by_name *)x)->name, ((const by_name *)y)->name); }

static void match_by_name(const cml_mil_block *a, const cml_mil_block *b, size_t *to_b, size_t *to_a, by_name *names) {
  for (size_t j = 0; j < b->op_count; j++) names[j] = (by_name){first_output(b->ops[j]), j}, to_a[j] = NONE;
  if (b->op_count) qsort(names, b->op_count, sizeof *names, name_order);
  for (size_t i = 0; i < a->op_count; i++) {
    by_name key = {first_output(a->ops[i]), 0};
    const by_name *found = b->op_count ? bsearch(&key, names, b->op_count, sizeof *names, name_order) : NULL;
    to_b[i] = found && to_a[found->index] == NONE ? found->index : NONE;
    if (to_b[i] != NONE) to_a[found->index] = i;
  }
}

static bool could_be_renamed(const cml_mil_op *a, const cml_mil_op *b) {
  if (strcmp(a->type, b->type) != 0 || a->output_count != b->output_count) return false;
  return !a->output_count || cml_mil_type_equal(a->outputs[0].type, b->outputs[0].type);
}

/* Unmatched operations of equal type and shape, in order, between the same matched neighbours. */
static void match_in_gaps(const cml_mil_block *a, const cml_mil_block *b, size_t *to_b, size_t *to_a) {
  size_t next = 0; /* in b: where the gap goes on */
  for (size_t i = 0; i < a->op_count; i++) {
    if (to_b[i] != NONE) {
      next = to_b[i] + 1;
      continue;
    }
    for (size_t j = next; j < b->op_count && to_a[j] == NONE; j++)
      if (could_be_renamed(a->ops[i], b->ops[j])) {
        to_b[i] = j;
        to_a[j] = i;
        next = j + 1;
        break;
      }
  }
}

static bool is_reordered(const size_t *to_b, size_t count) {
  size_t last = 0;
  for (size_t i = 0; i < count; i++) {
    if (to_b[i] == NONE) continue;
    if (to_b[i] < last) return true;
    last = to_b[i];
  }
  return false;
}

static cml_status note_block(comparing *c, const char *what) {
  char *where = cml_arena_text(&c->diff->arena, c->where, strlen(c->where));
  if (!where) return cml_fail_memory(c->err);
  if (*where) where[strlen(where) - 1] = 0; /* the slash */
  return cml_diff_add(c->diff, CML_DIFF_PROGRAM, '~', where, what, c->err);
}

static cml_status report(comparing *c, const cml_mil_block *a, const cml_mil_block *b, const size_t *to_b, const size_t *to_a) {
  size_t shown = 0; /* of b's unmatched */
  for (size_t i = 0; i <= a->op_count; i++) {
    size_t until = i == a->op_count ? b->op_count : to_b[i] == NONE ? 0 : to_b[i];
    for (; shown < until; shown++)
      if (to_a[shown] == NONE) CML_TRY(note_op(c, '+', b->ops[shown]));
    if (i == a->op_count) break;
    CML_TRY(to_b[i] == NONE ? note_op(c, '-', a->ops[i]) : compare_ops(c, a->ops[i], b->ops[to_b[i]]));
  }
  if (is_reordered(to_b, a->op_count)) CML_TRY(note_block(c, "operations stand in another order"));
  bool same = a->output_count == b->output_count;
  for (size_t i = 0; same && i < a->output_count; i++) same = same_name(c, a->outputs[i], b->outputs[i]);
  return same ? CML_OK : note_block(c, "the block's outputs differ");
}

static cml_status compare_blocks(comparing *c, const cml_mil_block *a, const cml_mil_block *b) {
  size_t n = a->op_count + b->op_count;
  size_t *to_b = calloc(n + 1, sizeof *to_b), *to_a = to_b ? to_b + a->op_count : NULL;
  by_name *names = calloc(b->op_count + 1, sizeof *names);
  cml_status status = CML_OK;
  for (size_t i = 0; i < a->input_count && i < b->input_count && !status; i++) status = add_renaming(c, a->inputs[i].name, b->inputs[i].name);
  if (!to_b || !names) {
    status = cml_fail_memory(c->err);
  } else if (!status) {
    match_by_name(a, b, to_b, to_a, names);
    match_in_gaps(a, b, to_b, to_a);
    status = report(c, a, b, to_b, to_a);
  }
  free(to_b);
  free(names);
  return status;
}

/* ---- functions ---- */

static cml_status compare_interface(comparing *c, const cml_mil_function *a, const cml_mil_function *b) {
  if (strcmp(a->opset ? a->opset : "", b->opset ? b->opset : "") != 0)
    CML_TRY(cml_diff_note(c->diff, CML_DIFF_PROGRAM, '~', a->name, c->err, "opset %s -> %s", a->opset, b->opset));
  if (a->input_count != b->input_count)
    CML_TRY(cml_diff_note(c->diff, CML_DIFF_PROGRAM, '~', a->name, c->err, "%zu inputs -> %zu", a->input_count, b->input_count));
  for (size_t i = 0; i < a->input_count && i < b->input_count; i++) {
    const cml_mil_named *x = &a->inputs[i], *y = &b->inputs[i];
    if (!strcmp(x->name, y->name) && cml_mil_type_equal(x->type, y->type)) continue;
    cml_buffer before = CML_BUFFER_INIT, after = CML_BUFFER_INIT;
    type_words(x->type, &before);
    type_words(y->type, &after);
    cml_status status = cml_diff_note(c->diff, CML_DIFF_PROGRAM, '~', a->name, c->err, "input %s %s -> %s %s", x->name,
                                      before.data ? (const char *)before.data : "", y->name, after.data ? (const char *)after.data : "");
    cml_buffer_free(&before);
    cml_buffer_free(&after);
    if (status) return status;
    CML_TRY(add_renaming(c, x->name, y->name));
  }
  return CML_OK;
}

static cml_status compare_functions(cml_diff *diff, const char *where, const cml_mil_function *a, const cml_mil_function *b, cml_error *err) {
  char *prefix = cml_arena_printf(&diff->arena, "%s%s/", where, a->name);
  comparing c = {.diff = diff, .where = prefix, .err = err};
  const cml_mil_block *x = cml_mil_body(a), *y = cml_mil_body(b);
  if (!prefix) return cml_fail_memory(err);
  c.a.function = a;
  c.b.function = b;
  if (x) CML_TRY(cml_mil_names_build(&c.a.names, &diff->arena, a, x, err));
  if (y) CML_TRY(cml_mil_names_build(&c.b.names, &diff->arena, b, y, err));
  cml_status status = compare_interface(&c, a, b);
  if (!status && x && y) status = compare_blocks(&c, x, y);
  free(c.renamed);
  return status;
}

cml_status cml_diff_programs(cml_diff *diff, const char *where, const cml_mil_program *a, const cml_mil_program *b, cml_error *err) {
  for (size_t i = 0; i < a->function_count; i++) {
    const cml_mil_function *other = cml_mil_find_function(b, a->functions[i]->name);
    if (other) CML_TRY(compare_functions(diff, where, a->functions[i], other, err));
    else CML_TRY(cml_diff_add(diff, CML_DIFF_PROGRAM, '-', a->functions[i]->name, "a function", err));
  }
  for (size_t i = 0; i < b->function_count; i++)
    if (!cml_mil_find_function(a, b->functions[i]->name)) CML_TRY(cml_diff_add(diff, CML_DIFF_PROGRAM, '+', b->functions[i]->name, "a function", err));
  return CML_OK;
}
