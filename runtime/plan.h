/* What the planner knows while it works. Internal to plan*.c. */
#ifndef CML_PLAN_H
#define CML_PLAN_H

#include "exec_graph.h"

/* Values lie in others' memory: `within` leads from each to another that holds it, `inner` bytes from its start, and so on up to
 * a root, which leads to itself. */
typedef struct cml_planner {
  const cml_graph *g;
  cml_plan *plan;
  uint32_t *order, *other; /* by position: the step that runs then; and room for another order */
  uint32_t *within;       /* by value */
  uint64_t *inner;        /* by value: bytes */
  uint32_t *first, *last; /* by root: positions in the order */
  uint64_t *scratch;      /* by step: bytes */
  bool *spaces_rows;      /* by step: as in cml_call */
  uint64_t *spaced_args;  /* the same */
  uint32_t *maker, *uses; /* by value: the step that makes it, and how often it is used */
  uint32_t *spaced_uses;  /* by value: how often where its rows may lie apart */
  bool *pinned;           /* by value: its memory is not in the arena, or not known before the run */
  bool *parted;           /* by root: other values are parts of it, */
  bool *dense;            /* some of which have no rows */
  int64_t *row;           /* by value: 0, or the elements of a row of `host`, whose rows it is part of; these may be part of another's */
  uint32_t *host;
  const cml_tensor **args;
  cml_tensor **outs;
  uint32_t *used;         /* what cml_planner_uses found last */
  size_t use_total;       /* of all steps */
} cml_planner;

/* A view leads to its root at once, until parts are put into their wholes. */
static inline uint32_t cml_planner_view_root(const cml_planner *p, uint32_t v) { return p->within[v]; }
/* The root that holds v, and at which of its bytes when inner is not NULL. */
uint32_t cml_planner_root(cml_planner *p, uint32_t v, uint64_t *inner);
/* The values that a step takes: its arguments, then those of the steps in its blocks and what these give out. Returns how many are
 * in p->used now. */
size_t cml_planner_uses(const cml_planner *p, const cml_step *s);
/* The step's call with types for data; valid until the next. */
cml_call cml_planner_call(cml_planner *p, const cml_step *s);
/* Kernels may read up to 64 bytes beyond a value. */
static inline uint64_t cml_planner_padded(uint64_t bytes) { return (bytes + 64 + 63) & ~UINT64_C(63); }
static inline const cml_step *cml_planner_step(const cml_planner *p, size_t position) { return &p->g->body.steps[p->order[position]]; }
/* An order of the steps with a lower peak than theirs in the body, if one was found; needs lifetimes without parts. */
CML_NODISCARD cml_status cml_planner_order(const cml_planner *p, uint32_t *order, bool *better, cml_error *err);
/* Lets what is read of states lie in them; after the lifetimes. */
CML_NODISCARD cml_status cml_planner_states(cml_planner *p, cml_error *err);
/* Puts parts into their wholes; after the states. */
CML_NODISCARD cml_status cml_planner_parts(cml_planner *p, cml_error *err);

#endif
