/* Casts behind operators that leave little. A float16 program whose inputs are float32 converts each of them whole before it reads a part, by a slice or
 * by indices. Such operators put elements elsewhere, whatever their type, so that a cast may as well follow them: the results are the same to the bit.
 *
 * A cast goes behind all users of its result at once, if each is such an operator, and on from there; views in between, which leave as many
 * elements, are passed for what comes after them. */
#include "passes.h"

#include <stdlib.h>

enum { DEEPEST = 8, MOST_MOVES = 256 };

/* Whether the step puts the value's elements, and nothing else, elsewhere, and does so with this type as well. */
static bool moves(const cml_step *s, uint32_t value, cml_dtype type) {
  static const char *const names[] = {"slice_by_index", "slice_by_size", "gather", "gather_along_axis", "gather_nd", "split", "reshape",
                                      "transpose", "expand_dims", "squeeze", "reverse", "crop", "sliding_windows"};
  bool found = false;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) found = found || cml_pass_is(s, names[i]);
  return found && cml_pass_arg(s, "x") == value && s->op->params[0].types >> type & 1;
}

/* Elements that would be cast if the cast of `value`, made by a step before `step`, went behind its users, as far as that makes them fewer. */
static int64_t left(const cml_graph *g, const cml_use *uses, size_t step, uint32_t value, cml_dtype type, int deeper) {
  const cml_tensor *t = cml_pass_type(g, value);
  if (!cml_tensor_known_shape(t)) return INT32_MAX;
  const int64_t own = cml_tensor_count(t);
  int64_t sum = 0;
  uint32_t count = 0;
  for (size_t i = step; i < g->body.step_count && count < uses[value].count; i++) {
    const cml_step *s = &g->body.steps[i];
    uint32_t times = 0;
    for (size_t k = 0; s->op && k < s->arg_count; k++) times += s->args[k] == value;
    if (!times) continue;
    if (times > 1 || !deeper || !moves(s, value, type)) return own;
    count++;
    for (size_t k = 0; k < s->out_count && sum < own; k++) sum += left(g, uses, i + 1, s->outs[k], type, deeper - 1);
  }
  return count && count == uses[value].count && sum < own ? sum : own;
}

/* The step reads what was cast, and its results are cast. */
static cml_status follow(cml_graph *g, cml_additions *more, size_t at, uint32_t x, uint32_t dtype, cml_error *err) {
  cml_step *s = &g->body.steps[at];
  CML_TRY(cml_pass_become_like(g, s, s->op->name, s, &(cml_binding){"x", x}, 1, err));
  for (size_t k = 0; k < s->out_count; k++) {
    cml_tensor type = *cml_pass_type(g, s->outs[k]);
    const uint32_t result = s->outs[k];
    type.dtype = cml_pass_type(g, x)->dtype;
    const uint32_t moved = cml_pass_value(g, g->values[result].name, &type, CML_ROLE_COMPUTED);
    if (moved == CML_NO_VALUE) return cml_fail_memory(err);
    s->outs[k] = moved;
    CML_TRY(cml_pass_add(g, more, at + 1, "cast", (const cml_binding[]){{"x", moved}, {"dtype", dtype}}, 2, result, err));
  }
  return CML_OK;
}

/* Moves the first cast for which it is worth while; `moved` says whether there was one. What is selected is read and written in the type before. */
static cml_status move_one(cml_graph *g, const cml_use *uses, bool *moved, cml_error *err) {
  cml_additions more = {0};
  cml_status status = CML_OK;
  for (size_t i = 0; i < g->body.step_count && !*moved; i++) {
    cml_step *s = &g->body.steps[i];
    if (!cml_pass_is(s, "cast")) continue;
    const uint32_t x = cml_pass_arg(s, "x"), value = s->outs[0], dtype = cml_pass_arg(s, "dtype");
    const cml_tensor *t = cml_pass_type(g, value);
    if (g->values[x].role == CML_ROLE_STATE || !cml_tensor_known_shape(t)) continue;
    if (left(g, uses, i + 1, value, cml_pass_type(g, x)->dtype, DEEPEST) > cml_tensor_count(t) / 2) continue;
    *moved = true;
    s->op = NULL;
    for (size_t k = i + 1; k < g->body.step_count && !status; k++)
      if (g->body.steps[k].op && cml_pass_arg(&g->body.steps[k], "x") == value) status = follow(g, &more, k, x, dtype, err);
  }
  return cml_pass_put_in(g, &more, status, err);
}

cml_status cml_pass_casts(cml_graph *g, cml_error *err) {
  bool moved = true;
  cml_status status = CML_OK;
  for (int i = 0; i < MOST_MOVES && moved && !status; i++) {
    cml_use *uses = cml_pass_uses(g);
    if (!uses) return cml_fail_memory(err);
    moved = false;
    status = move_one(g, uses, &moved, err);
    free(uses);
  }
  return status;
}
