/* What is joined again: networks whose layers read all that those before them made write concat(a, b), concat(a, b, c), and so on. A concat
 * whose first values are all of an earlier one's takes that one's result in their place: each value is copied at most once then, and not at
 * all where the plan lets parts lie in their whole. */
#include "passes.h"

/* How many values the step joins; 0: it is no plain concat of tensors. */
static size_t values_of(const cml_graph *g, const cml_step *s, int64_t *axis) {
  const cml_tensor *a = s->op && !s->folded && cml_pass_is(s, "concat") ? cml_pass_constant(g, s, "axis") : NULL;
  if (!a || cml_pass_number(g, s, "interleave", 0) != 0 || cml_pass_type(g, s->args[0])->rank < 1) return 0;
  *axis = cml_tensor_get_int(a, 0);
  return (size_t)(s->first[1] - s->first[0]);
}

/* The earlier step that joins the most of the first of `count` values of step number `at`. */
static const cml_step *longest_start(const cml_graph *g, size_t at, size_t count, int64_t axis) {
  const cml_step *s = &g->body.steps[at], *best = NULL;
  size_t most = 1;
  int64_t other;
  for (size_t i = 0; i < at; i++) {
    const cml_step *t = &g->body.steps[i];
    const size_t n = t->op == s->op ? values_of(g, t, &other) : 0;
    if (n > most && n < count && other == axis && !memcmp(s->args, t->args, n * sizeof *s->args)) best = t, most = n;
  }
  return best;
}

/* From the last to the first, so that earlier ones still say all that they join. */
cml_status cml_pass_joins(cml_graph *g, cml_error *err) {
  (void)err;
  for (size_t at = g->body.step_count; at-- > 0;) {
    cml_step *s = &g->body.steps[at];
    int64_t axis;
    const size_t count = values_of(g, s, &axis);
    const cml_step *start = count > 2 ? longest_start(g, at, count, axis) : NULL;
    if (!start) continue;
    const size_t gone = (size_t)(start->first[1] - start->first[0]) - 1;
    memmove(s->args + 1, s->args + 1 + gone, (s->arg_count - 1 - gone) * sizeof *s->args);
    memmove(s->arg_constant + 1, s->arg_constant + 1 + gone, (s->arg_count - 1 - gone) * sizeof *s->arg_constant);
    s->args[0] = start->outs[0];
    s->arg_constant[0] = false;
    s->arg_count -= gone;
    for (unsigned k = 1; k <= s->op->param_count; k++) s->first[k] = (uint16_t)(s->first[k] - gone);
  }
  return CML_OK;
}
