/* cml_chain: elementwise operations of one shape, run one after the other over pieces that stay in the first-level cache. The
 * pass `chains` makes it and writes the operations down as int32s: how many, then for each its row in the table of operators, the type of
 * its result, and for each of the row's parameters where that comes from: 0 left out, i > 0 argument i - 1 of the chain, -i operation
 * i - 1. */
#include "elementwise.h"
#include "families.h"

enum { X, PROGRAM };

static const cml_param chain_params[] = {{"x", CML_M_ANY, CML_VARIADIC, 0}, {"program", CML_MASK(I32), CML_CONST, 0}};

typedef struct node {
  const cml_op *op;
  cml_dtype dtype;
  uint16_t first[CML_MAX_MAP_PARAMS + 1];
  int32_t sources[CML_MAX_MAP_PARAMS]; /* by argument: from 0 up an argument of the chain, below 0 an earlier node, counted from -1 */
} node;

typedef struct chain {
  size_t count;
  node nodes[CML_MAX_CHAIN];
} chain;

/* False when the program is none: the pass writes no such thing. */
static bool read_chain(const cml_call *c, chain *h) {
  const cml_tensor *program = cml_arg(c, PROGRAM);
  int64_t size = cml_tensor_count(program), leaves = (int64_t)cml_arg_count(c, X), at = 1;
  const int32_t *p = program->data;
  if (size < 1 || p[0] < 1 || p[0] > CML_MAX_CHAIN) return false;
  h->count = (size_t)p[0];
  for (size_t i = 0; i < h->count; i++) {
    node *n = &h->nodes[i];
    n->op = at + 2 <= size && p[at] >= 0 ? cml_op_at((size_t)p[at]) : NULL;
    if (!n->op || !n->op->elementwise || n->op->param_count > CML_MAX_MAP_PARAMS || at + 2 + n->op->param_count > size) return false;
    n->dtype = (cml_dtype)p[at + 1];
    n->first[0] = 0;
    at += 2;
    for (unsigned k = 0; k < n->op->param_count; k++, at++) {
      if (p[at] > leaves || -(int64_t)p[at] > (int64_t)i || (!p[at] && !(n->op->params[k].flags & CML_OPTIONAL))) return false;
      uint16_t used = n->first[k];
      if (p[at]) n->sources[used++] = p[at] > 0 ? p[at] - 1 : p[at];
      n->first[k + 1] = used;
    }
  }
  return true;
}

/* The operations as calls of their own, one's output another's argument. */
typedef struct bound {
  const cml_tensor *args[CML_MAX_CHAIN][CML_MAX_MAP_PARAMS];
  cml_tensor results[CML_MAX_CHAIN], *outs[CML_MAX_CHAIN];
  cml_call calls[CML_MAX_CHAIN];
} bound;

static void bind(const cml_call *c, const chain *h, bound *b) {
  for (size_t i = 0; i < h->count; i++) {
    const node *n = &h->nodes[i];
    b->outs[i] = i + 1 == h->count ? c->outs[0] : &b->results[i];
    for (size_t k = 0; k < n->first[n->op->param_count]; k++)
      b->args[i][k] = n->sources[k] < 0 ? b->outs[-1 - n->sources[k]] : cml_arg_at(c, X, (size_t)n->sources[k]);
    b->calls[i] = (cml_call){.op = n->op, .name = c->name, .opset = c->opset, .args = b->args[i], .first = n->first, .outs = &b->outs[i], .out_count = 1};
  }
}

static bool fits(const cml_call *call) {
  for (unsigned k = 0; k < call->op->param_count; k++) {
    const cml_tensor *t = cml_arg(call, k);
    if (t && (!(call->op->params[k].types >> t->dtype & 1) || ((call->op->params[k].flags & CML_CONST) && !t->data))) return false;
  }
  return true;
}

/* Operands in memory, where no step takes or leaves integers; else more than there may be. */
static size_t loads_of(const bound *b, size_t count) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++) {
    cml_elementwise e;
    b->calls[i].op->elementwise(&b->calls[i], &e);
    if (e.out_lane == CML_LANE_I64 || (i + 1 < count && e.out_lane != cml_lane_of(b->outs[i]->dtype))) return SIZE_MAX;
    for (size_t k = 0; k < e.arity; k++) {
      bool made = false;
      for (size_t s = 0; s < i; s++) made = made || e.in[k] == b->outs[s];
      if (e.lanes[k] == CML_LANE_I64 || (made && e.lanes[k] != cml_lane_of(e.in[k]->dtype))) return SIZE_MAX;
      n += !made;
    }
  }
  return n;
}

static cml_status infer_chain(cml_call *c, cml_error *err) {
  chain h;
  bound b;
  if (!read_chain(c, &h)) return cml_call_fail(c, err, "its program is none");
  bind(c, &h, &b);
  for (size_t i = 0; i < h.count; i++) {
    if (!fits(&b.calls[i])) return cml_call_fail(c, err, "operation %zu does not take its arguments", i);
    *b.outs[i] = (cml_tensor){.rank = CML_RANK_UNKNOWN};
    CML_TRY(h.nodes[i].op->infer(&b.calls[i], err));
    if (b.outs[i]->dtype != h.nodes[i].dtype || !cml_tensor_known_shape(b.outs[i]) || (i && !cml_tensor_same_shape(b.outs[i], b.outs[i - 1])))
      return cml_call_fail(c, err, "operation %zu gives another type or shape", i);
  }
  if (loads_of(&b, h.count) > CML_MAX_CHAIN_OPERANDS) return cml_call_fail(c, err, "it has too many operands, or integers");
  c->spaces_rows = true;
  c->spaced_args = UINT64_MAX;
  return CML_OK;
}

static cml_status prepare_chain(cml_call *c, cml_error *err) {
  chain *h = cml_call_keep(c, sizeof *h, err);
  if (!h) return CML_NO_MEMORY;
  (void)read_chain(c, h); /* infer has seen it */
  c->prepared = h;
  return CML_OK;
}

static cml_status run_chain(cml_call *c, cml_error *err) {
  const chain *h = c->prepared;
  chain own;
  bound b;
  cml_elementwise steps[CML_MAX_CHAIN];
  (void)err;
  if (!h) h = read_chain(c, &own) ? &own : NULL; /* while planning */
  bind(c, h, &b);
  for (size_t i = 0; i < h->count; i++) {
    if (b.outs[i] != c->outs[0]) *b.outs[i] = (cml_tensor){.dtype = h->nodes[i].dtype, .rank = c->outs[0]->rank}, memcpy(b.outs[i]->dims, c->outs[0]->dims, sizeof b.outs[i]->dims);
    h->nodes[i].op->elementwise(&b.calls[i], &steps[i]);
  }
  cml_elementwise_run_chain(steps, h->count, c->pool);
  return CML_OK;
}

static const cml_op rows[] = {
    {.name = "cml_chain", .since = CML_IOS15, .flags = CML_OP_INTERNAL | CML_OP_IN_PLACE, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(chain_params), .infer = infer_chain, .prepare = prepare_chain, .run = run_chain},
};

const cml_op_family cml_ops_chain = {"chain", rows, sizeof rows / sizeof *rows};
