/* From names to indices. One pass over the operations in program order: by the time an operation is met, the types of its
 * arguments are known, so that binding, checking, inference and folding happen together and an error names the place. */
#include "exec_graph.h"

#include <stdio.h>
#include <stdlib.h>

#include "compressed.h"
#include "exec_release.h"
#include "mapping.h"
#include "pack_cache.h"

/* ---- types ---- */

void cml_tensor_from_type(const cml_mil_type *type, cml_tensor *out) {
  *out = (cml_tensor){.dtype = CML_DTYPE_NONE, .rank = CML_RANK_UNKNOWN};
  if (!type) return;
  if (type->kind == CML_TYPE_STATE && type->arg_count == 1) type = type->args[0];
  if (type->kind != CML_TYPE_TENSOR) return;
  out->dtype = type->dtype;
  if (type->rank < 0 || type->rank > CML_MAX_RANK) return;
  for (int32_t i = 0; i < type->rank; i++) {
    if (type->dims[i] == CML_DIM_VARIADIC) return;
    out->dims[i] = type->dims[i] < 0 ? CML_DIM_UNKNOWN : type->dims[i];
  }
  out->rank = type->rank;
}

void cml_tensor_describe(const cml_tensor *t, char *out, size_t room) {
  size_t n = (size_t)snprintf(out, room, "%s [", t->dtype ? cml_dtype_name(t->dtype) : "list");
  if (t->rank < 0 && n < room) n += (size_t)snprintf(out + n, room - n, "...");
  for (int32_t i = 0; i < t->rank && n < room; i++)
    n += (size_t)(t->dims[i] < 0 ? snprintf(out + n, room - n, "%s?", i ? ", " : "")
                                 : snprintf(out + n, room - n, "%s%lld", i ? ", " : "", (long long)t->dims[i]));
  if (n < room) snprintf(out + n, room - n, "]");
}

/* ---- names in scope ---- */

typedef struct scope_entry {
  const char *name;
  uint32_t value, next; /* next: older entry of the same bucket, + 1 */
} scope_entry;

enum { SCOPE_BUCKETS = 4096 };

typedef struct builder {
  cml_graph *g;
  scope_entry *entries;
  size_t entry_count, entry_capacity;
  uint32_t heads[SCOPE_BUCKETS]; /* entry + 1 */
  cml_buffer missing;            /* operators that the table lacks */
  size_t missing_count;
} builder;

static uint32_t scope_hash(const char *name) {
  uint32_t h = 2166136261u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  return h % SCOPE_BUCKETS;
}

static cml_status scope_add(builder *b, const char *name, uint32_t value, cml_error *err) {
  if (b->entry_count == b->entry_capacity) {
    size_t capacity = b->entry_capacity ? b->entry_capacity * 2 : 256;
    scope_entry *entries = realloc(b->entries, capacity * sizeof *entries);
    if (!entries) return cml_fail_memory(err);
    b->entries = entries;
    b->entry_capacity = capacity;
  }
  uint32_t h = scope_hash(name);
  b->entries[b->entry_count] = (scope_entry){name, value, b->heads[h]};
  b->heads[h] = (uint32_t)++b->entry_count;
  return CML_OK;
}

static bool scope_find(const builder *b, const char *name, uint32_t *value) {
  for (uint32_t i = b->heads[scope_hash(name)]; i; i = b->entries[i - 1].next)
    if (!strcmp(b->entries[i - 1].name, name)) return *value = b->entries[i - 1].value, true;
  return false;
}

static void scope_leave(builder *b, size_t count) {
  while (b->entry_count > count) {
    scope_entry *e = &b->entries[--b->entry_count];
    b->heads[scope_hash(e->name)] = e->next;
  }
}

/* ---- values ---- */

static cml_status value_add(cml_graph *g, const char *name, const cml_tensor *type, cml_value_role role, uint32_t depth, uint32_t *out,
                            cml_error *err) {
  if (g->value_count == g->value_capacity) {
    size_t capacity = g->value_capacity ? g->value_capacity * 2 : 256;
    cml_graph_value *values = realloc(g->values, capacity * sizeof *values);
    if (!values) return cml_fail_memory(err);
    g->values = values;
    g->value_capacity = capacity;
  }
  g->values[g->value_count] = (cml_graph_value){name, *type, role, depth};
  *out = (uint32_t)g->value_count++;
  return CML_OK;
}

/* Data as the kernels want it: aligned to the element. */
static cml_status aligned_data(cml_graph *g, cml_tensor *t, cml_span bytes, cml_error *err) {
  static const uint64_t nothing[8];
  size_t size = cml_dtype_bits(t->dtype) / 8;
  t->data = (void *)(uintptr_t)(bytes.size ? (const void *)bytes.data : nothing);
  if (size > 1 && (uintptr_t)t->data % size) {
    void *copy = cml_arena_alloc(&g->arena, bytes.size);
    if (!copy) return cml_fail_memory(err);
    memcpy(copy, bytes.data, bytes.size);
    t->data = copy;
  }
  return CML_OK;
}

static cml_status constant_scalars(cml_graph *g, const cml_mil_value *v, cml_tensor *out, cml_error *err);

/* The tensor of a constant: an immediate one, a bound blob, or a list of scalars as a vector. */
static cml_status constant_tensor(cml_graph *g, const cml_mil_value *v, cml_tensor *out, cml_error *err) {
  static const cml_string no_string;
  uint64_t bytes;
  if (v->kind == CML_VALUE_LIST || v->kind == CML_VALUE_TUPLE) return constant_scalars(g, v, out, err);
  cml_tensor_from_type(v->type, out);
  if (v->kind == CML_VALUE_DICTIONARY || !out->dtype)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "a constant that is no tensor");
  if (v->kind == CML_VALUE_BLOB && !v->data.data && v->data.size == 0)
    return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "its weights at %s, offset %llu, are not there", v->file ? v->file : "?",
                    (unsigned long long)v->offset);
  if (!cml_tensor_bytes(out, &bytes)) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "a constant without a known shape");
  if (out->dtype == CML_STRING) {
    if (v->count < (uint64_t)cml_tensor_count(out)) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "a constant has too few strings");
    out->data = v->count ? (void *)v->strings : (void *)(uintptr_t)&no_string;
    return CML_OK;
  }
  if (v->data.size < bytes)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "a constant has %zu bytes and its type needs %llu", v->data.size,
                    (unsigned long long)bytes);
  return aligned_data(g, out, v->data, err);
}

static cml_status constant_scalars(cml_graph *g, const cml_mil_value *v, cml_tensor *out, cml_error *err) {
  *out = (cml_tensor){.rank = 1, .dims = {(int64_t)v->count}};
  size_t size = 0;
  for (size_t i = 0; i < v->count; i++) {
    cml_tensor item;
    if (v->items[i]->kind != CML_VALUE_TENSOR) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "a nested constant list");
    CML_TRY(constant_tensor(g, v->items[i], &item, err));
    if (i == 0) {
      out->dtype = item.dtype;
      size = cml_dtype_bits(item.dtype) / 8;
      out->data = size ? cml_arena_array(&g->arena, v->count, size) : NULL;
      if (!out->data) return cml_fail_memory(err);
    }
    if (item.dtype != out->dtype || cml_tensor_count(&item) != 1)
      return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "a constant list of other things than scalars of one type");
    memcpy((char *)out->data + i * size, item.data, size);
  }
  if (!v->count) {
    out->dtype = CML_STRING;
    if (!(out->data = cml_arena_alloc(&g->arena, 1))) return cml_fail_memory(err);
  }
  return CML_OK;
}

/* ---- arguments ---- */

static int find_param(const cml_op *op, const char *name) {
  for (int i = 0; i < op->param_count; i++)
    if (!strcmp(op->params[i].name, name)) return i;
  return -1;
}

static cml_status step_fail(const cml_step *s, const cml_mil_op *source, cml_error *err, cml_status status) {
  return cml_error_prefix(err, status, "operation '%s' (%s)", s->name, source->type);
}

/* The call behind a value that was left compressed. */
static cml_status compressed_source(cml_graph *g, uint32_t value, cml_call **out, cml_error *err) {
  const cml_step *d = g->values[value].deferred;
  cml_call *c = CML_ARENA_NEW(&g->arena, cml_call);
  const cml_tensor **args = cml_arena_array(&g->arena, d->arg_count, sizeof *args);
  cml_tensor **outs = cml_arena_array(&g->arena, 1, sizeof *outs);
  if (!c || !args || !outs) return cml_fail_memory(err);
  for (size_t i = 0; i < d->arg_count; i++) args[i] = &g->values[d->args[i]].type;
  outs[0] = &g->values[value].type;
  *c = (cml_call){.op = d->op, .name = d->name, .opset = g->opset, .args = args, .first = d->first, .outs = outs, .out_count = 1};
  *out = c;
  return CML_OK;
}

/* Vectors that a linear layer multiplies with `param`, when it may be compressed; else, and where their number is open, 0. */
static int64_t vectors_of(const cml_graph *g, const cml_step *s, const cml_param *param) {
  if (strcmp(s->op->name, "linear") || strcmp(param->name, "weight")) return 0;
  const cml_tensor *x = &g->values[s->args[0]].type;
  if (x->rank < 1 || g->values[s->args[0]].role == CML_ROLE_CONSTANT || (x->dtype != CML_F16 && x->dtype != CML_F32)) return 0;
  int64_t vectors = 1;
  for (int32_t i = 0; i + 1 < x->rank; i++) {
    if (x->dims[i] < 1 || x->dims[i] > INT32_MAX / vectors) return 0;
    vectors *= x->dims[i];
  }
  return vectors;
}

/* Weights stay compressed for a linear layer, where that pays; everything else takes them expanded. */
static cml_status expand_argument(cml_graph *g, const cml_step *s, const cml_param *param, uint32_t value, cml_error *err) {
  int64_t vectors = vectors_of(g, s, param);
  cml_call *source;
  if (vectors) {
    CML_TRY(compressed_source(g, value, &source, err));
    if (cml_compressed_pays(cml_kernels_get(), source, vectors)) return CML_OK;
  }
  return cml_graph_expand(g, value, err);
}

static cml_status bind_argument(builder *b, cml_step *s, const cml_param *param, const cml_mil_argument *argument, size_t *at,
                                uint32_t depth, cml_error *err) {
  cml_graph *g = b->g;
  if (!argument->count && !(param->flags & (CML_OPTIONAL | CML_VARIADIC)))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "argument '%s' has no value", param->name);
  if (argument->count > 1 && !(param->flags & CML_VARIADIC))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s takes one value and has %zu", param->name, argument->count);
  for (size_t i = 0; i < argument->count; i++) {
    const cml_mil_binding *binding = &argument->bindings[i];
    uint32_t value;
    if (binding->value) {
      cml_tensor t;
      CML_TRY(constant_tensor(g, binding->value, &t, err));
      CML_TRY(value_add(g, param->name, &t, CML_ROLE_CONSTANT, depth, &value, err));
    } else if (!scope_find(b, binding->name, &value)) {
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s names '%s', which is not defined before", param->name, binding->name);
    }
    if (g->values[value].deferred) CML_TRY(expand_argument(g, s, param, value, err));
    s->args[*at] = value;
    s->arg_constant[(*at)++] = g->values[value].role == CML_ROLE_CONSTANT;
  }
  return CML_OK;
}

static cml_status check_argument(const cml_graph *g, const cml_step *s, unsigned p, cml_dtype groups[256], cml_error *err) {
  const cml_param *param = &s->op->params[p];
  for (size_t i = s->first[p]; i < s->first[p + 1]; i++) {
    const cml_graph_value *v = &g->values[s->args[i]];
    if (!(param->types >> v->type.dtype & 1))
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s does not take %s", param->name,
                      v->type.dtype ? cml_dtype_name(v->type.dtype) : "a list");
    if ((param->flags & CML_CONST) && !v->type.data && !v->deferred)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s must be a constant", param->name);
    if ((param->flags & CML_STATE) && v->role != CML_ROLE_STATE)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s must be a state", param->name);
    if (!(param->flags & CML_STATE) && v->role == CML_ROLE_STATE)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s takes a value and has a state, which must be read first", param->name);
    if ((param->flags & CML_VECTOR) && v->type.rank >= 0 && v->type.rank != 1)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s must be a vector (rank 1) and has rank %d", param->name, (int)v->type.rank);
    if (param->group) {
      if (!groups[param->group]) groups[param->group] = v->type.dtype;
      else if (groups[param->group] != v->type.dtype)
        return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s is %s and others are %s", param->name,
                        cml_dtype_name(v->type.dtype), cml_dtype_name(groups[param->group]));
    }
  }
  return CML_OK;
}

static cml_status bind_arguments(builder *b, cml_step *s, const cml_mil_op *source, uint32_t depth, cml_error *err) {
  cml_graph *g = b->g;
  size_t total = source->attributes.count; /* iOS16's constexpr operators have attributes in place of inputs */
  for (size_t i = 0; i < source->input_count; i++) {
    total += source->inputs[i].count;
    if (find_param(s->op, source->inputs[i].parameter) < 0)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "has no parameter %s in this opset", source->inputs[i].parameter);
  }
  if (total > UINT16_MAX) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "too many arguments");
  s->args = CML_ARENA_NEW_ARRAY(&g->arena, uint32_t, total);
  s->arg_constant = CML_ARENA_NEW_ARRAY(&g->arena, bool, total);
  s->first = CML_ARENA_NEW_ARRAY(&g->arena, uint16_t, (size_t)s->op->param_count + 1);
  if (!s->args || !s->arg_constant || !s->first) return cml_fail_memory(err);
  cml_dtype groups[256] = {0};
  size_t at = 0;
  for (unsigned p = 0; p < s->op->param_count; p++) {
    const cml_param *param = &s->op->params[p];
    const cml_mil_argument *argument = cml_mil_input(source, param->name);
    cml_mil_argument from_attribute;
    cml_mil_binding attribute = {.value = argument ? NULL : cml_mil_attribute_find(&source->attributes, param->name)};
    if (attribute.value) {
      from_attribute = (cml_mil_argument){.parameter = param->name, .bindings = &attribute, .count = 1};
      argument = &from_attribute;
    }
    s->first[p] = (uint16_t)at;
    if (argument && at + argument->count > total) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "a parameter is given twice");
    if (argument) CML_TRY(bind_argument(b, s, param, argument, &at, depth, err));
    else if (!(param->flags & (CML_OPTIONAL | CML_VARIADIC)))
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "parameter %s is missing", param->name);
    s->first[p + 1] = (uint16_t)at;
    CML_TRY(check_argument(g, s, p, groups, err));
  }
  s->arg_count = at;
  if (at > g->max_args) g->max_args = at;
  return CML_OK;
}

/* ---- outputs ---- */

/* As far as both are known. */
static bool shapes_agree(const cml_tensor *a, const cml_tensor *b) {
  if (a->rank < 0 || b->rank < 0) return true;
  if (a->rank != b->rank) return false;
  for (int32_t k = 0; k < a->rank; k++)
    if (a->dims[k] >= 0 && b->dims[k] >= 0 && a->dims[k] != b->dims[k]) return false;
  return true;
}

/* Inferred and declared must not contradict each other; `but` says where the inferred type comes from. */
static cml_status check_declared(const cml_tensor *inferred, const cml_tensor *declared, const char *but, cml_error *err) {
  if ((inferred->dtype == declared->dtype || !declared->dtype) && shapes_agree(inferred, declared)) return CML_OK;
  char a[128], b[128];
  cml_tensor_describe(inferred, a, sizeof a);
  cml_tensor_describe(declared, b, sizeof b);
  return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "is declared %s, and %s %s", b, but, a);
}

static cml_status more_folded(cml_graph *g, size_t count, cml_error *err) {
  if (g->folded_count + count <= g->folded_capacity) return CML_OK;
  size_t capacity = 2 * g->folded_capacity + count + 64;
  cml_slot **folded = realloc(g->folded, capacity * sizeof *folded);
  if (!folded) return cml_fail_memory(err);
  g->folded = folded;
  g->folded_capacity = capacity;
  return CML_OK;
}

cml_status cml_graph_constant(cml_graph *g, cml_tensor *t, cml_error *err) {
  CML_TRY(more_folded(g, 1, err));
  cml_slot *slot = calloc(1, sizeof *slot);
  if (!slot) return cml_fail_memory(err);
  slot->tensor = *t;
  cml_slot_use_account(slot, g->account);
  cml_status status = cml_slot_reserve(slot, err);
  if (status) {
    free(slot);
    return status;
  }
  g->folded[g->folded_count++] = slot;
  t->data = slot->tensor.data;
  return CML_OK;
}

/* What has been decompressed is read no more, as a rule; codes in a mapped file leave memory, and come back if they are. */
static void drop_codes(const cml_step *s, const cml_tensor **args) {
  enum { WORTH = 16 << 10 }; /* bytes */
  uint64_t bytes;
  for (size_t i = 0; s->op->flags & CML_OP_CONSTEXPR && i < s->arg_count; i++)
    if (args[i]->data && cml_tensor_bytes(args[i], &bytes) && bytes >= WORTH && bytes <= SIZE_MAX) cml_mapping_drop(args[i]->data, (size_t)bytes);
}

/* Computes a step now; too large a result is left to run time. */
static cml_status fold_step(cml_graph *g, cml_step *s, const cml_tensor **args, cml_tensor *outs, cml_error *err) {
  cml_slot **slots = CML_ARENA_NEW_ARRAY(&g->arena, cml_slot *, s->out_count);
  if (!slots) return cml_fail_memory(err);
  CML_TRY(more_folded(g, s->out_count, err));
  cml_status status = cml_step_evaluate(g, s, args, slots, err);
  if (status == CML_CANCELLED) return CML_OK;
  CML_TRY(status);
  for (size_t i = 0; i < s->out_count; i++) {
    outs[i] = slots[i]->tensor;
    g->folded[g->folded_count++] = slots[i];
  }
  s->folded = true;
  drop_codes(s, args);
  return CML_OK;
}

/* Compressed weights are expanded when something takes them that cannot do without. */
static bool defer_step(const builder *b, cml_step *s, const cml_tensor **args, const cml_tensor *out) {
  cml_tensor *outs[] = {(cml_tensor *)(uintptr_t)out};
  const cml_call c = {.op = s->op, .name = s->name, .opset = b->g->opset, .args = args, .first = s->first, .outs = outs, .out_count = 1};
  if (!(s->op->flags & CML_OP_CONSTEXPR) || s->out_count != 1 || !cml_tensor_known_shape(out)) return false;
  return s->folded = cml_compressed_pays(cml_kernels_get(), &c, 1) && cml_compressed_possible(cml_kernels_get(), &c);
}

static cml_status infer_step(builder *b, cml_step *s, const cml_mil_op *source, uint32_t depth, cml_error *err) {
  cml_graph *g = b->g;
  const cml_tensor **args = cml_arena_array(&g->arena, s->arg_count, sizeof *args);
  cml_tensor *outs = cml_arena_array(&g->arena, s->out_count, sizeof *outs);
  cml_tensor **pointers = cml_arena_array(&g->arena, s->out_count, sizeof *pointers);
  s->outs = CML_ARENA_NEW_ARRAY(&g->arena, uint32_t, s->out_count);
  s->declared = CML_ARENA_NEW_ARRAY(&g->arena, cml_tensor, s->out_count);
  if (!args || !outs || !pointers || !s->outs || !s->declared) return cml_fail_memory(err);
  for (size_t i = 0; i < s->arg_count; i++) args[i] = &g->values[s->args[i]].type;
  for (size_t i = 0; i < s->out_count; i++) {
    pointers[i] = &outs[i];
    outs[i].rank = CML_RANK_UNKNOWN;
    cml_tensor_from_type(source->outputs[i].type, &s->declared[i]);
  }
  cml_call c = {.op = s->op, .name = s->name, .opset = g->opset, .args = args, .first = s->first, .outs = pointers,
                .out_count = s->out_count, .arg_constant = s->arg_constant, .declared = s->declared, .step = s};
  CML_TRY(s->op->infer(&c, err));
  for (size_t i = 0; i < s->out_count; i++) {
    cml_status status = check_declared(&outs[i], &s->declared[i], "the arguments give", err);
    if (status) return step_fail(s, source, err, s->out_count > 1 ? cml_error_prefix(err, status, "output %zu", i) : status);
  }
  bool foldable = cml_step_foldable(s, args), deferred = foldable && defer_step(b, s, args, &outs[0]);
  if (foldable && !deferred) CML_TRY(fold_step(g, s, args, outs, err));
  for (size_t i = 0; i < s->out_count; i++) {
    CML_TRY(value_add(g, source->outputs[i].name, &outs[i], s->folded ? CML_ROLE_CONSTANT : CML_ROLE_COMPUTED, depth, &s->outs[i], err));
    CML_TRY(scope_add(b, source->outputs[i].name, s->outs[i], err));
  }
  if (!deferred) return CML_OK;
  cml_step *copy = CML_ARENA_NEW(&g->arena, cml_step); /* passes move steps */
  if (!copy) return cml_fail_memory(err);
  *copy = *s;
  g->values[s->outs[0]].deferred = copy;
  return CML_OK;
}

/* ---- folding ---- */

cml_status cml_graph_expand(cml_graph *g, uint32_t value, cml_error *err) {
  cml_step step = *g->values[value].deferred;
  cml_tensor out;
  const cml_tensor **args = cml_arena_array(&g->arena, step.arg_count, sizeof *args);
  if (!args) return cml_fail_memory(err);
  for (size_t i = 0; i < step.arg_count; i++) {
    if (g->values[step.args[i]].deferred) CML_TRY(cml_graph_expand(g, step.args[i], err));
    args[i] = &g->values[step.args[i]].type;
  }
  out = g->values[value].type;
  CML_TRY(fold_step(g, &step, args, &out, err));
  g->values[value].type = out;
  g->values[value].deferred = NULL;
  return CML_OK;
}

enum { LARGEST_FOLD = 64 << 20, LARGEST_SHAPE = 1 << 20 }; /* bytes; beyond the first only decompression is folded */

bool cml_step_foldable(const cml_step *step, const cml_tensor *const *args) {
  if (step->op->flags & (CML_OP_IMPURE | CML_OP_CONTROL) || step->block_count || !step->op->run) return false;
  if (!strcmp(step->op->name, "shape")) return step->arg_count == 1 && cml_tensor_known_shape(args[0]);
  for (size_t i = 0; i < step->arg_count; i++)
    if (!args[i]->data || args[i]->list) return false;
  return step->arg_count > 0;
}

static cml_status evaluate(const cml_graph *g, cml_call *c, cml_slot **slots, cml_error *err) {
  uint64_t largest = g->shapes_only ? LARGEST_SHAPE : c->op->flags & CML_OP_CONSTEXPR ? UINT64_MAX : LARGEST_FOLD;
  CML_TRY(c->op->infer(c, err));
  for (size_t i = 0; i < c->out_count; i++) {
    uint64_t bytes;
    if (!cml_tensor_known_shape(&slots[i]->tensor)) continue; /* run will allocate */
    if (!cml_tensor_bytes(&slots[i]->tensor, &bytes) || bytes > largest) return CML_CANCELLED;
    CML_TRY(cml_slot_reserve(slots[i], err));
  }
  CML_TRY(cml_scratch_check(c->scratch_size, err));
  CML_TRY(cml_account_take(g->account, c->scratch_size, err));
  c->scratch = c->scratch_size ? aligned_alloc(64, cml_scratch_part(c->scratch_size)) : NULL;
  cml_status status = c->scratch_size && !c->scratch ? cml_fail_memory(err) : c->op->run(c, err);
  cml_account_give(g->account, c->scratch_size);
  return status;
}

cml_status cml_step_evaluate(const cml_graph *graph, const cml_step *s, const cml_tensor **args, cml_slot **slots, cml_error *err) {
  cml_tensor *pointers[256];
  cml_status status = s->out_count <= 256 ? CML_OK : cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "too many outputs");
  cml_runner runner = {.session = NULL};
  size_t made = 0;
  for (; !status && made < s->out_count; made++) {
    if (!(slots[made] = calloc(1, sizeof **slots))) {
      status = cml_fail_memory(err);
      break;
    }
    cml_slot_use_account(slots[made], graph->account);
    pointers[made] = &slots[made]->tensor;
  }
  if (!status) {
    cml_call c = {.op = s->op, .name = s->name, .opset = graph->opset, .args = args, .first = s->first, .outs = pointers,
                  .out_count = s->out_count, .declared = s->declared, .runner = &runner, .step = s};
    status = evaluate(graph, &c, slots, err);
    free(c.scratch);
  }
  if (status) {
    for (size_t i = 0; i < made; i++) cml_slot_clear(slots[i]), free(slots[i]);
  }
  return status;
}

/* ---- blocks ---- */

static cml_status build_block(builder *b, const cml_mil_block *source, cml_graph_block *block, uint32_t depth, cml_error *err);

static cml_status add_missing(builder *b, const char *type) {
  size_t n = strlen(type);
  for (const char *p = (const char *)b->missing.data; p && (p = strstr(p, type)); p += n) /* name it once */
    if ((p[n] == ',' || !p[n]) && (p == (const char *)b->missing.data || p[-1] == ' ')) return CML_OK;
  if (b->missing.size) cml_buffer_text(&b->missing, ", ");
  cml_buffer_text(&b->missing, type);
  b->missing_count++;
  return CML_OK;
}

/* Operators that passes make are no part of any opset: a file may not name them. */
static const cml_op *find_operator(const char *type, int opset) {
  const cml_op *op = cml_op_find(type, opset);
  return op && !(op->flags & CML_OP_INTERNAL) ? op : NULL;
}

static bool has_missing(builder *b, const cml_mil_block *block, int depth) {
  bool found = false;
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i];
    if (strcmp(op->type, "const") && !find_operator(op->type, b->g->opset)) add_missing(b, op->type), found = true;
    for (size_t k = 0; depth < 64 && k < op->block_count; k++) found |= has_missing(b, op->blocks[k], depth + 1);
  }
  return found;
}

static cml_status build_constant(builder *b, const cml_mil_op *source, uint32_t depth, cml_error *err) {
  const cml_mil_value *v = cml_mil_attribute_find(&source->attributes, "val");
  const cml_mil_argument *argument = cml_mil_input(source, "val");
  if (!v && argument && argument->count) v = argument->bindings[0].value;
  if (!v || source->output_count != 1)
    return cml_fail(err, CML_INVALID, source->source_offset, "operation '%s' (const): has no value", cml_mil_op_name(source));
  cml_tensor t;
  uint32_t value;
  cml_status status = constant_tensor(b->g, v, &t, err);
  if (status == CML_UNSUPPORTED && v->kind == CML_VALUE_DICTIONARY) return CML_OK; /* nothing that runs takes one */
  cml_tensor declared;
  cml_tensor_from_type(source->outputs[0].type, &declared);
  if (!status) status = check_declared(&t, &declared, "the value is", err);
  if (status) return cml_error_prefix(err, status, "operation '%s' (const)", cml_mil_op_name(source));
  CML_TRY(value_add(b->g, source->outputs[0].name, &t, CML_ROLE_CONSTANT, depth, &value, err));
  return scope_add(b, source->outputs[0].name, value, err);
}

/* Values that a block takes or gives against what the operation has or declares: as many, of the same types. */
static cml_status check_handed(const cml_graph *g, const uint32_t *values, size_t count, const cml_tensor *const *want, size_t want_count,
                               size_t block, const char *what, cml_error *err) {
  if (count != want_count) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "block %zu has %zu %ss, expected %zu", block, count, what, want_count);
  for (size_t i = 0; i < count; i++) {
    const cml_tensor *found = &g->values[values[i]].type;
    if (found->dtype == want[i]->dtype && shapes_agree(found, want[i])) continue; /* a list has no element type */
    char a[128], b[128];
    cml_tensor_describe(found, a, sizeof a);
    cml_tensor_describe(want[i], b, sizeof b);
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "%s %zu of block %zu is %s, expected %s", what, i, block, a, b);
  }
  return CML_OK;
}

/* cond has a block for each case, which take nothing; while_loop's take the loop variables, and the first gives one bool. */
static cml_status check_blocks(builder *b, const cml_step *s, const cml_mil_op *source, cml_error *err) {
  static const cml_tensor one_bool = {.dtype = CML_BOOL, .rank = CML_RANK_UNKNOWN};
  const cml_tensor *answer = &one_bool, *const *no_values = NULL;
  const cml_graph *g = b->g;
  size_t count = s->op->flags & CML_OP_CONTROL ? 2 : 0;
  if (s->block_count != count) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "has %zu blocks, expected %zu", s->block_count, count);
  if (!count) return CML_OK;
  bool loop = strcmp(s->op->name, "cond") != 0;
  const cml_tensor **types = cml_arena_array(&b->g->arena, s->out_count + s->arg_count + 1, sizeof *types);
  cml_tensor *declared = CML_ARENA_NEW_ARRAY(&b->g->arena, cml_tensor, s->out_count + 1);
  if (!types || !declared) return cml_fail_memory(err);
  for (size_t i = 0; i < s->out_count; i++) {
    cml_tensor_from_type(source->outputs[i].type, &declared[i]);
    types[i] = &declared[i];
  }
  for (size_t i = 0; i < s->arg_count; i++) types[s->out_count + i] = &g->values[s->args[i]].type;
  for (size_t k = 0; k < count; k++) {
    const cml_graph_block *block = s->blocks[k];
    bool asks = loop && k == 0;
    CML_TRY(check_handed(g, block->inputs, block->input_count, loop ? types + s->out_count : no_values, loop ? s->arg_count : 0, k, "input", err));
    CML_TRY(check_handed(g, block->outputs, block->output_count, asks ? &answer : types, asks ? 1 : s->out_count, k, "output", err));
  }
  return CML_OK;
}

static cml_status build_step(builder *b, const cml_mil_op *source, cml_step *s, uint32_t depth, cml_error *err) {
  cml_graph *g = b->g;
  s->op = find_operator(source->type, g->opset);
  s->name = cml_mil_op_name(source);
  s->index = g->step_total++;
  s->out_count = source->output_count;
  if (s->out_count < s->op->min_outputs || (s->op->max_outputs != 255 && s->out_count > s->op->max_outputs))
    return step_fail(s, source, err, cml_fail(err, CML_INVALID, source->source_offset, "has %zu outputs", s->out_count));
  if (s->out_count > g->max_outs) g->max_outs = s->out_count;
  cml_status status = bind_arguments(b, s, source, depth, err);
  if (status) return step_fail(s, source, err, status);
  s->block_count = source->block_count;
  s->blocks = CML_ARENA_NEW_ARRAY(&g->arena, cml_graph_block *, s->block_count);
  if (!s->blocks) return cml_fail_memory(err);
  for (size_t i = 0; i < s->block_count; i++) {
    if (!(s->blocks[i] = CML_ARENA_NEW(&g->arena, cml_graph_block))) return cml_fail_memory(err);
    CML_TRY(build_block(b, source->blocks[i], s->blocks[i], depth + 1, err));
  }
  status = check_blocks(b, s, source, err);
  return status ? step_fail(s, source, err, status) : infer_step(b, s, source, depth, err);
}

static cml_status build_block(builder *b, const cml_mil_block *source, cml_graph_block *block, uint32_t depth, cml_error *err) {
  cml_graph *g = b->g;
  size_t outer = b->entry_count;
  if (depth > 64) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "blocks are nested more than 64 deep");
  block->input_count = source->input_count;
  block->inputs = CML_ARENA_NEW_ARRAY(&g->arena, uint32_t, source->input_count);
  block->output_count = source->output_count;
  block->outputs = CML_ARENA_NEW_ARRAY(&g->arena, uint32_t, source->output_count);
  block->steps = CML_ARENA_NEW_ARRAY(&g->arena, cml_step, source->op_count);
  if (!block->inputs || !block->outputs || !block->steps) return cml_fail_memory(err);
  for (size_t i = 0; i < source->input_count; i++) {
    cml_tensor t;
    cml_tensor_from_type(source->inputs[i].type, &t);
    CML_TRY(value_add(g, source->inputs[i].name, &t, CML_ROLE_COMPUTED, depth, &block->inputs[i], err));
    CML_TRY(scope_add(b, source->inputs[i].name, block->inputs[i], err));
  }
  for (size_t i = 0; i < source->op_count; i++) {
    if (!strcmp(source->ops[i]->type, "const")) CML_TRY(build_constant(b, source->ops[i], depth, err));
    else CML_TRY(build_step(b, source->ops[i], &block->steps[block->step_count++], depth, err));
  }
  for (size_t i = 0; i < source->output_count; i++)
    if (!scope_find(b, source->outputs[i], &block->outputs[i]))
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the block's output '%s' is not defined", source->outputs[i]);
  for (size_t i = 0; i < source->output_count; i++) {
    const cml_graph_value *v = &g->values[block->outputs[i]];
    if (v->role == CML_ROLE_STATE) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the block gives out the state '%s', which must be read first", v->name);
    if (v->deferred) CML_TRY(cml_graph_expand(g, block->outputs[i], err));
  }
  if (depth) scope_leave(b, outer);
  return CML_OK;
}

static int opset_number(const char *opset) {
  static const struct { const char *name; int number; } known[] = {
      {"CoreML5", CML_IOS15}, {"CoreML6", CML_IOS16}, {"CoreML7", CML_IOS17}, {"CoreML8", CML_IOS18}, {"CoreML9", CML_IOS26}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (opset && !strcmp(opset, known[i].name)) return known[i].number;
  return 0;
}

static cml_status input_type(const cml_mil_function *f, size_t i, const cml_tensor *shapes, cml_tensor *out, cml_error *err) {
  cml_tensor_from_type(f->inputs[i].type, out);
  if (!shapes || cml_tensor_known_shape(out)) return CML_OK;
  if (!shapes_agree(out, &shapes[i])) return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "input '%s' has another shape", f->inputs[i].name);
  out->rank = shapes[i].rank;
  memcpy(out->dims, shapes[i].dims, sizeof out->dims);
  return CML_OK;
}

static cml_status build_function(builder *b, const cml_mil_function *f, const cml_tensor *shapes, cml_error *err) {
  cml_graph *g = b->g;
  const cml_mil_block *body = cml_mil_body(f);
  if (!body) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "function '%s' has no body", f->name);
  if (!(g->opset = opset_number(f->opset)))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "function '%s' is in opset %s, which this version does not know", f->name,
                    f->opset ? f->opset : "(none)");
  if (body->input_count) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the body of function '%s' has inputs of its own", f->name);
  if (has_missing(b, body, 0))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "function '%s' has %zu operator%s that opset %s lacks: %s", f->name, b->missing_count,
                    b->missing_count == 1 ? "" : "s", f->opset, b->missing.data ? (char *)b->missing.data : "");
  for (size_t i = 0; i < f->input_count; i++) {
    cml_tensor t;
    uint32_t value;
    CML_TRY(input_type(f, i, shapes, &t, err));
    bool state = f->inputs[i].type && f->inputs[i].type->kind == CML_TYPE_STATE;
    CML_TRY(value_add(g, f->inputs[i].name, &t, state ? CML_ROLE_STATE : CML_ROLE_INPUT, 0, &value, err));
    CML_TRY(scope_add(b, f->inputs[i].name, value, err));
  }
  return build_block(b, body, &g->body, 0, err);
}

cml_status cml_exec_build(cml_graph *graph, const cml_mil_function *function, const cml_tensor *shapes, cml_error *err) {
  builder *b = calloc(1, sizeof *b);
  if (!b) return cml_fail_memory(err);
  b->g = graph;
  graph->function = function;
  cml_status status = build_function(b, function, shapes, err);
  cml_buffer_free(&b->missing);
  free(b->entries);
  free(b);
  return status;
}

/* ---- prepare ---- */

static cml_status prepare_block(cml_release *release, cml_graph_block *block, const cml_tensor **args, cml_tensor **outs, cml_pool *pool,
                                cml_error *err) {
  cml_graph *g = release->graph;
  for (size_t i = 0; i < block->step_count; i++) {
    cml_step *s = &block->steps[i];
    for (size_t k = 0; k < s->block_count; k++) CML_TRY(prepare_block(release, s->blocks[k], args, outs, pool, err));
    if (s->folded || !s->op->prepare) continue;
    cml_call *source = NULL;
    for (size_t k = 0; k < s->arg_count; k++) {
      args[k] = &g->values[s->args[k]].type;
      if (g->values[s->args[k]].deferred) CML_TRY(compressed_source(g, s->args[k], &source, err));
    }
    for (size_t k = 0; k < s->out_count; k++) outs[k] = &g->values[s->outs[k]].type;
    cml_call c = {.op = s->op, .name = s->name, .opset = g->opset, .args = args, .first = s->first, .outs = outs,
                  .out_count = s->out_count, .arg_constant = s->arg_constant, .declared = s->declared, .pool = pool,
                  .kept = &g->kept, .account = g->account, .step = s, .compressed = source, .cache = g->cache};
    CML_TRY(s->op->prepare(&c, err));
    if ((s->prepared = c.prepared)) cml_release_step(release, s, c.unread);
  }
  return CML_OK;
}

cml_status cml_exec_prepare(cml_graph *g, cml_pool *pool, cml_error *err) {
  const cml_tensor **args = calloc(g->max_args + 1, sizeof *args);
  cml_tensor **outs = calloc(g->max_outs + 1, sizeof *outs);
  cml_release release = {.graph = g};
  cml_status status = args && outs ? cml_release_begin(&release, g, err) : cml_fail_memory(err);
  if (!status) status = prepare_block(&release, &g->body, args, outs, pool, err);
  cml_release_end(&release);
  free(args);
  free(outs);
  return status;
}

void cml_exec_free(cml_graph *g) {
  for (size_t i = 0; i < g->folded_count; i++) {
    cml_slot_clear(g->folded[i]);
    free(g->folded[i]);
  }
  free(g->folded);
  cml_kept_free(g->kept);
  free(g->values);
  cml_arena_free(&g->arena);
  *g = (cml_graph){.arena = CML_ARENA_INIT};
}
