/* The table of passes and what they share. */
#include "passes.h"

#include <stdlib.h>

/* These rewrite nothing: the planner does it, for each set of shapes. */
static cml_status allow_parts(cml_graph *g, cml_error *err) { return (void)err, g->plan_with |= CML_PLAN_PARTS, CML_OK; }
static cml_status allow_states(cml_graph *g, cml_error *err) { return (void)err, g->plan_with |= CML_PLAN_STATES, CML_OK; }
static cml_status allow_order(cml_graph *g, cml_error *err) { return (void)err, g->plan_with |= CML_PLAN_ORDER, CML_OK; }

static const cml_pass passes[] = {
    {"dead-code", "operations whose results nobody uses are left out", cml_pass_dead_code},
    {"casts", "conversions behind the slices, gathers and views that leave little of what would be converted", cml_pass_casts},
    {"recurrent", "loops that write out a GRU layer as one operation", cml_pass_recurrent},
    {"pads", "zeros around an image into the padding of the convolution that reads them, edges cut off of a transposed one's result into its own", cml_pass_pads},
    {"groups", "convolutions whose outputs each read one channel, the other weights being zeros, as depthwise ones", cml_pass_groups},
    {"scales", "constants that scale and shift a convolution's channels into its weights", cml_pass_scales},
    {"sums", "convolutions of one image whose results are summed as one", cml_pass_sums},
    {"transposed", "transposed convolutions with few outputs as ordinary ones with all places of a block as outputs, and pixel_shuffle", cml_pass_transposed},
    {"attention", "matrix product, scale, softmax, matrix product: one streaming attention", cml_pass_attention},
    {"attention-views", "transposes and splits around attention become strides that it reads and writes by", cml_pass_attention_views},
    {"group-norm", "the written-out group normalisation as one operation", cml_pass_group_norm},
    {"layer-norm", "written-out normalisations of rows, with or without a mean, as one operation", cml_pass_layer_norm},
    {"epilogues", "residual additions and activations into the convolution or linear layer before them, a logarithm into its softmax", cml_pass_epilogues},
    {"layout", "convolutions and their neighbours with the channels last, converted at the borders only", cml_pass_layout},
    {"integers", "what stands between dequantize and quantize, with weights of 8 bits: exact sums of bytes", cml_pass_integers},
    {"pairs", "convolutions of single pixels into the depthwise ones that alone read them", cml_pass_pairs},
    {"joins", "what begins with all that an earlier concat joined takes its result", cml_pass_joins},
    {"chains", "elementwise operations that feed one another in one pass over memory", cml_pass_chains},
    {"parts", "in the plan: what is joined is made where it will lie, what is cut is read where it is", allow_parts},
    {"states", "in the plan: states are read and updated in their own memory", allow_states},
    {"order", "in the plan: operations run in the order that needs the least memory at once", allow_order},
};

const cml_pass *cml_pass_at(size_t i) { return i < sizeof passes / sizeof *passes ? &passes[i] : NULL; }

/* Where a pass stands in the list: 1 named, -1 named with a minus, 0 not. */
static int listed(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; p; p = strchr(p, ','), p = p ? p + 1 : NULL) {
    bool minus = *p == '-';
    const char *word = p + minus;
    if (!strncmp(word, name, n) && (!word[n] || word[n] == ',')) return minus ? -1 : 1;
  }
  return 0;
}

static cml_status check_list(const char *list, cml_error *err) {
  for (const char *p = list; p && *p; p = strchr(p, ','), p = p ? p + 1 : NULL) {
    const char *word = p + (*p == '-');
    size_t n = strcspn(word, ",");
    bool found = false;
    for (size_t i = 0; cml_pass_at(i); i++) found = found || (strlen(passes[i].name) == n && !strncmp(passes[i].name, word, n));
    if (!found) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "there is no pass '%.*s'", (int)n, word);
  }
  return CML_OK;
}

cml_status cml_passes_run(cml_graph *g, const char *list, void (*after)(void *context, const cml_graph *g, const cml_pass *pass),
                          void *context, cml_error *err) {
  CML_TRY(check_list(list, err));
  bool exclusive = list && *list != '-';
  for (size_t i = 0; cml_pass_at(i); i++) {
    int how = list ? listed(list, passes[i].name) : 1;
    if (how < 0 || (exclusive && how <= 0)) continue;
    CML_TRY(passes[i].run(g, err));
    cml_pass_compact(g);
    if (after) after(context, g, &passes[i]);
  }
  return CML_OK;
}

/* ---- uses ---- */

static void use_block(const cml_graph_block *b, cml_use *uses, uint32_t outer, bool body) {
  for (size_t i = 0; i < b->step_count; i++) {
    const cml_step *s = &b->steps[i];
    if (!s->op) continue;
    for (size_t k = 0; k < s->arg_count; k++) {
      uses[s->args[k]].count++;
      uses[s->args[k]].step = body ? (uint32_t)i : outer;
    }
    for (size_t k = 0; k < s->block_count; k++) use_block(s->blocks[k], uses, body ? (uint32_t)i : outer, false);
  }
  /* an output of the block is a use that no step can take over */
  for (size_t i = 0; i < b->output_count; i++) {
    uses[b->outputs[i]].count += 2;
    uses[b->outputs[i]].step = UINT32_MAX;
  }
}

cml_use *cml_pass_uses(const cml_graph *g) {
  cml_use *uses = calloc(g->value_count + 1, sizeof *uses);
  if (uses) use_block(&g->body, uses, 0, true);
  return uses;
}

cml_status cml_pass_dead_code(cml_graph *g, cml_error *err) {
  cml_use *uses = cml_pass_uses(g);
  if (!uses) return cml_fail_memory(err);
  for (size_t i = g->body.step_count; i-- > 0;) { /* backwards: what fed a dropped step may be unused now */
    cml_step *s = &g->body.steps[i];
    if (!s->op || s->folded || (s->op->flags & (CML_OP_IMPURE | CML_OP_CONTROL))) continue;
    bool used = false;
    for (size_t k = 0; k < s->out_count; k++) used = used || uses[s->outs[k]].count;
    if (used) continue;
    for (size_t k = 0; k < s->arg_count; k++) uses[s->args[k]].count--;
    s->op = NULL;
  }
  free(uses);
  return CML_OK;
}

/* ---- values and steps ---- */

cml_status cml_pass_each(cml_graph *g, cml_status (*fuse)(cml_graph *g, const cml_use *uses, size_t step, cml_error *err), cml_error *err) {
  cml_use *uses = cml_pass_uses(g);
  if (!uses) return cml_fail_memory(err);
  cml_status status = CML_OK;
  for (size_t i = 0; i < g->body.step_count && !status; i++)
    if (g->body.steps[i].op) status = fuse(g, uses, i, err);
  free(uses);
  return status;
}

cml_step *cml_pass_only_user(cml_graph *g, const cml_use *uses, uint32_t value) {
  if (uses[value].count != 1 || uses[value].step >= g->body.step_count) return NULL;
  cml_step *s = &g->body.steps[uses[value].step];
  if (!s->op) return NULL;
  for (size_t i = 0; i < s->arg_count; i++)
    if (s->args[i] == value) return s;
  return NULL;
}

cml_step *cml_pass_maker(cml_graph *g, size_t before, uint32_t value) {
  for (size_t i = before; value != CML_NO_VALUE && i-- > 0;) {
    cml_step *s = &g->body.steps[i];
    if (s->op && !s->folded && s->out_count == 1 && s->outs[0] == value) return s;
  }
  return NULL;
}

uint32_t cml_pass_value(cml_graph *g, const char *name, const cml_tensor *type, cml_value_role role) {
  if (g->value_count == g->value_capacity) {
    size_t capacity = g->value_capacity ? g->value_capacity * 2 : 256;
    cml_tensor copy = *type; /* type may lie in the array that moves */
    cml_graph_value *values = realloc(g->values, capacity * sizeof *values);
    if (!values) return CML_NO_VALUE;
    g->values = values;
    g->value_capacity = capacity;
    g->values[g->value_count] = (cml_graph_value){name, copy, role, 0};
    return (uint32_t)g->value_count++;
  }
  g->values[g->value_count] = (cml_graph_value){name, *type, role, 0};
  return (uint32_t)g->value_count++;
}

uint32_t cml_pass_ints(cml_graph *g, const int64_t *values, int64_t count) {
  cml_tensor t = {.dtype = CML_I32, .rank = count < 0 ? 0 : 1, .dims = {count}};
  int64_t n = count < 0 ? 1 : count;
  if (!(t.data = cml_arena_array(&g->arena, (size_t)n + 1, 4))) return CML_NO_VALUE;
  for (int64_t i = 0; i < n; i++) ((int32_t *)t.data)[i] = (int32_t)values[i];
  return cml_pass_value(g, "", &t, CML_ROLE_CONSTANT);
}

uint32_t cml_pass_int(cml_graph *g, int64_t value) { return cml_pass_ints(g, &value, -1); }

uint32_t cml_pass_float(cml_graph *g, float value) {
  cml_tensor t = {.dtype = CML_F32};
  if (!(t.data = cml_arena_alloc(&g->arena, 16))) return CML_NO_VALUE;
  *(float *)t.data = value;
  return cml_pass_value(g, "", &t, CML_ROLE_CONSTANT);
}

uint32_t cml_pass_word(cml_graph *g, const char *word) {
  cml_tensor t = {.dtype = CML_STRING};
  cml_string *text = cml_arena_alloc(&g->arena, sizeof *text);
  if (!text) return CML_NO_VALUE;
  *text = (cml_string){word, strlen(word)};
  t.data = text;
  return cml_pass_value(g, "", &t, CML_ROLE_CONSTANT);
}

bool cml_pass_is_word(const cml_graph *g, const cml_step *s, const char *param, const char *word) {
  if (cml_pass_arg(s, param) == CML_NO_VALUE) return true;
  const cml_tensor *t = cml_pass_constant(g, s, param);
  return t && t->dtype == CML_STRING && cml_tensor_count(t) == 1 && !strcmp(((const cml_string *)t->data)->data, word);
}

uint32_t cml_pass_arg(const cml_step *s, const char *param) {
  for (unsigned p = 0; p < s->op->param_count; p++)
    if (!strcmp(s->op->params[p].name, param)) return s->first[p] < s->first[p + 1] ? s->args[s->first[p]] : CML_NO_VALUE;
  return CML_NO_VALUE;
}

const cml_tensor *cml_pass_constant(const cml_graph *g, const cml_step *s, const char *param) {
  uint32_t v = cml_pass_arg(s, param);
  return v != CML_NO_VALUE && g->values[v].role == CML_ROLE_CONSTANT && cml_pass_type(g, v)->data ? cml_pass_type(g, v) : NULL;
}

double cml_pass_number(const cml_graph *g, const cml_step *s, const char *param, double otherwise) {
  const cml_tensor *t = cml_pass_constant(g, s, param);
  return t ? cml_tensor_get(t, 0) : otherwise;
}

bool cml_pass_is(const cml_step *s, const char *type) { return s->op && !s->folded && !strcmp(s->op->name, type); }

cml_status cml_pass_become(cml_graph *g, cml_step *s, const char *type, const cml_binding *bindings, size_t count, cml_error *err) {
  const cml_op *op = cml_op_find(type, g->opset);
  if (!op) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "no operator '%s'", type);
  uint32_t *args = CML_ARENA_NEW_ARRAY(&g->arena, uint32_t, count + 1);
  uint16_t *first = CML_ARENA_NEW_ARRAY(&g->arena, uint16_t, (size_t)op->param_count + 1);
  bool *constant = CML_ARENA_NEW_ARRAY(&g->arena, bool, count + 1);
  if (!args || !first || !constant) return cml_fail_memory(err);
  size_t n = 0;
  for (unsigned p = 0; p < op->param_count; p++) {
    first[p] = (uint16_t)n;
    for (size_t i = 0; i < count; i++)
      if (bindings[i].value != CML_NO_VALUE && !strcmp(bindings[i].param, op->params[p].name)) {
        constant[n] = g->values[bindings[i].value].role == CML_ROLE_CONSTANT;
        args[n++] = bindings[i].value;
      }
  }
  first[op->param_count] = (uint16_t)n;
  s->op = op;
  s->args = args;
  s->first = first;
  s->arg_constant = constant;
  s->arg_count = n;
  s->folded = false;
  if (n > g->max_args) g->max_args = n;
  return CML_OK;
}

cml_status cml_pass_new_step(cml_graph *g, const char *type, const cml_binding *bindings, size_t count, uint32_t out, cml_step *step, cml_error *err) {
  *step = (cml_step){.name = g->values[out].name, .index = g->step_total++, .out_count = 1, .outs = CML_ARENA_NEW(&g->arena, uint32_t)};
  if (!step->outs) return cml_fail_memory(err);
  step->outs[0] = out;
  return cml_pass_become(g, step, type, bindings, count, err);
}

typedef struct cml_addition {
  size_t at;
  cml_step step;
} cml_addition;

cml_status cml_pass_add(cml_graph *g, cml_additions *a, size_t at, const char *type, const cml_binding *bindings, size_t count, uint32_t out, cml_error *err) {
  if (a->count == a->room) {
    size_t room = a->room * 2 + 16;
    cml_addition *list = realloc(a->list, room * sizeof *list);
    if (!list) return cml_fail_memory(err);
    a->list = list, a->room = room;
  }
  for (size_t i = 0; i < count; i++)
    if (bindings[i].value == CML_NO_VALUE) return cml_fail_memory(err);
  a->list[a->count].at = at;
  CML_TRY(cml_pass_new_step(g, type, bindings, count, out, &a->list[a->count].step, err));
  a->count++;
  return CML_OK;
}

cml_status cml_pass_put_in(cml_graph *g, cml_additions *a, cml_status status, cml_error *err) {
  cml_graph_block *b = &g->body;
  cml_step *steps = a->count && !status ? CML_ARENA_NEW_ARRAY(&g->arena, cml_step, b->step_count + a->count) : NULL;
  if (a->count && !status && !steps) status = cml_fail_memory(err);
  size_t n = 0, k = 0;
  for (size_t i = 0; steps && i <= b->step_count; i++) {
    while (k < a->count && a->list[k].at == i) steps[n++] = a->list[k++].step;
    if (i < b->step_count) steps[n++] = b->steps[i];
  }
  if (steps) b->steps = steps, b->step_count = n;
  free(a->list);
  return status;
}

cml_status cml_pass_become_like(cml_graph *g, cml_step *s, const char *type, const cml_step *like, const cml_binding *others, size_t count,
                                cml_error *err) {
  const cml_op *op = like->op;
  cml_binding *bindings = CML_ARENA_NEW_ARRAY(&g->arena, cml_binding, (size_t)op->param_count + 1);
  if (!bindings) return cml_fail_memory(err);
  for (unsigned p = 0; p < op->param_count; p++) {
    bindings[p] = (cml_binding){op->params[p].name, cml_pass_arg(like, op->params[p].name)};
    for (size_t i = 0; i < count; i++)
      if (!strcmp(others[i].param, bindings[p].param)) bindings[p].value = others[i].value;
  }
  return cml_pass_become(g, s, type, bindings, op->param_count, err);
}

void cml_pass_compact(cml_graph *g) {
  size_t n = 0;
  for (size_t i = 0; i < g->body.step_count; i++)
    if (g->body.steps[i].op) g->body.steps[n++] = g->body.steps[i];
  g->body.step_count = n;
}
