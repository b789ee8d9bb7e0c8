/* Elementwise steps that feed one another become one cml_chain, which reads and writes memory once. A step joins the chain of a
 * later one when that chain is all that uses its result and both have one shape, known at load; then the results are the same to
 * the bit. Steps are looked at from the last one backwards, so that who uses a result is decided before its maker. */
#include <stdlib.h>

#include "elementwise.h"
#include "passes.h"

enum { FURTHEST = 64 }; /* steps back */

typedef struct chain {
  cml_graph *g;
  const cml_use *uses;
  uint32_t steps[CML_MAX_CHAIN]; /* in the body, from the last to the first */
  size_t count, loads;           /* loads: operands that come from memory */
} chain;

/* How the step maps elements, when it is one that a chain can hold. */
static bool read_map(const cml_graph *g, const cml_step *s, cml_elementwise *out) {
  const cml_tensor *args[CML_MAX_MAP_PARAMS];
  if (!s->op || s->folded || !s->op->elementwise || s->out_count != 1 || s->op->param_count > CML_MAX_MAP_PARAMS) return false;
  for (size_t i = 0; i < s->arg_count; i++) {
    if (g->values[s->args[i]].role == CML_ROLE_STATE) return false;
    args[i] = cml_pass_type(g, s->args[i]);
  }
  cml_tensor *result = &g->values[s->outs[0]].type;
  const cml_call c = {.op = s->op, .name = s->name, .opset = g->opset, .args = args, .first = s->first, .outs = &result, .out_count = 1};
  if (!cml_tensor_known_shape(result)) return false;
  *out = (cml_elementwise){.arity = 0};
  s->op->elementwise(&c, out);
  for (size_t k = 0; k < out->arity; k++)
    if (out->lanes[k] == CML_LANE_I64) return false;
  return out->out_lane != CML_LANE_I64;
}

static size_t times_used(const cml_step *s, uint32_t value) {
  size_t n = 0;
  for (size_t i = 0; i < s->arg_count; i++) n += s->args[i] == value;
  return n;
}

/* Whether the chain is all that uses the step's result, and takes it in the lane in which the step leaves it. */
static bool feeds(const chain *h, const cml_step *s, const cml_elementwise *map, size_t *uses) {
  uint32_t value = s->outs[0];
  const cml_tensor *result = cml_pass_type(h->g, value);
  *uses = 0;
  if (map->out_lane != cml_lane_of(result->dtype)) return false;
  for (size_t i = 0; i < h->count; i++) {
    const cml_step *user = &h->g->body.steps[h->steps[i]];
    cml_elementwise at;
    size_t n = times_used(user, value);
    if (!n) continue;
    if (!read_map(h->g, user, &at)) return false;
    for (size_t k = 0; k < at.arity; k++)
      if (at.in[k] == result && at.lanes[k] != map->out_lane) return false;
    *uses += n;
  }
  return *uses && *uses == h->uses[value].count;
}

static void collect(chain *h, uint32_t root, const cml_elementwise *map) {
  cml_graph *g = h->g;
  const cml_tensor *shape = cml_pass_type(g, g->body.steps[root].outs[0]);
  h->steps[0] = root;
  h->count = 1;
  h->loads = map->arity;
  for (uint32_t i = root; i-- > 0 && i + FURTHEST > root && h->count < CML_MAX_CHAIN;) {
    const cml_step *s = &g->body.steps[i];
    cml_elementwise e;
    size_t uses;
    if (!read_map(g, s, &e) || !cml_tensor_same_shape(cml_pass_type(g, s->outs[0]), shape) || !feeds(h, s, &e, &uses)) continue;
    if (h->loads + e.arity - uses > CML_MAX_CHAIN_OPERANDS) continue;
    h->loads += e.arity - uses;
    h->steps[h->count++] = i;
  }
}

/* ---- writing it down ---- */

static int64_t row_of(const cml_op *op) {
  for (size_t i = 0; cml_op_at(i); i++)
    if (cml_op_at(i) == op) return (int64_t)i;
  return -1;
}

/* The chain's argument that is this value, as a source. */
static int64_t leaf(uint32_t value, cml_binding *leaves, size_t *count) {
  for (size_t i = 0; i < *count; i++)
    if (leaves[i].value == value) return (int64_t)i + 1;
  leaves[(*count)++] = (cml_binding){"x", value};
  return (int64_t)*count;
}

static int64_t source(const chain *h, uint32_t value, cml_binding *leaves, size_t *count) {
  for (size_t i = 0; i < h->count; i++)
    if (h->g->body.steps[h->steps[h->count - 1 - i]].outs[0] == value) return -1 - (int64_t)i;
  return leaf(value, leaves, count);
}

static cml_status replace(const chain *h, cml_error *err) {
  cml_graph *g = h->g;
  cml_binding leaves[CML_MAX_CHAIN * CML_MAX_MAP_PARAMS + 1];
  size_t leaf_count = 0;
  int64_t program[1 + CML_MAX_CHAIN * (2 + CML_MAX_MAP_PARAMS)], n = 0; /* as ops_chain.c has it */
  cml_step *root = &g->body.steps[h->steps[0]];
  program[n++] = (int64_t)h->count;
  for (size_t i = h->count; i-- > 0;) {
    const cml_step *s = &g->body.steps[h->steps[i]];
    program[n++] = row_of(s->op);
    program[n++] = cml_pass_type(g, s->outs[0])->dtype;
    for (unsigned p = 0; p < s->op->param_count; p++)
      program[n++] = s->first[p] < s->first[p + 1] ? source(h, s->args[s->first[p]], leaves, &leaf_count) : 0;
  }
  leaves[leaf_count++] = (cml_binding){"program", cml_pass_ints(g, program, n)};
  if (leaves[leaf_count - 1].value == CML_NO_VALUE) return cml_fail_memory(err);
  CML_TRY(cml_pass_become(g, root, "cml_chain", leaves, leaf_count, err));
  for (size_t i = 1; i < h->count; i++) g->body.steps[h->steps[i]].op = NULL;
  return CML_OK;
}

cml_status cml_pass_chains(cml_graph *g, cml_error *err) {
  cml_use *uses = cml_pass_uses(g);
  if (!uses) return cml_fail_memory(err);
  cml_status status = CML_OK;
  for (uint32_t i = (uint32_t)g->body.step_count; i-- > 0 && !status;) {
    chain h = {.g = g, .uses = uses};
    cml_elementwise map;
    if (!read_map(g, &g->body.steps[i], &map)) continue;
    collect(&h, i, &map);
    if (h.count > 1) status = replace(&h, err);
  }
  free(uses);
  return status;
}
