/* States of float32 programs. Core ML's files hold states as float16 alone, so a program that computes in float32 casts what
 * it reads and what it writes, and each step of a sequence rounds its state. Where every read of a state is cast to float32
 * and every write comes from a cast of a float32 value, the state is kept in float32 instead, and nothing is lost between
 * steps: the rounding was the file's, not the program's. */
#include "exec_graph.h"

static bool is_op(const cml_step *s, const char *name) { return !strcmp(s->op->name, name); }

/* Calls use(s, k) for each argument k of a step that is value v; false as soon as one is not fine, or a block gives v out. */
static bool all_uses(const cml_graph_block *b, uint32_t v, bool (*fine)(const cml_graph *g, const cml_step *s, size_t k), const cml_graph *g) {
  for (size_t i = 0; i < b->output_count; i++)
    if (b->outputs[i] == v) return false;
  for (size_t i = 0; i < b->step_count; i++) {
    const cml_step *s = &b->steps[i];
    for (size_t k = 0; k < s->arg_count; k++)
      if (s->args[k] == v && !fine(g, s, k)) return false;
    for (size_t k = 0; k < s->block_count; k++)
      if (!all_uses(s->blocks[k], v, fine, g)) return false;
  }
  return true;
}

static bool is_cast_to_f32(const cml_graph *g, const cml_step *s, size_t k) {
  return k == 0 && is_op(s, "cast") && s->out_count == 1 && g->values[s->outs[0]].type.dtype == CML_F32;
}

/* The step of the body that computes v; NULL for others. */
static const cml_step *producer(const cml_graph *g, uint32_t v) {
  for (size_t i = 0; i < g->body.step_count; i++)
    for (size_t k = 0; k < g->body.steps[i].out_count; k++)
      if (g->body.steps[i].outs[k] == v) return &g->body.steps[i];
  return NULL;
}

/* What a write_state's data was before it was cast from float32. */
static bool before_cast(const cml_graph *g, const cml_step *write, uint32_t *out) {
  const cml_step *cast = write->arg_count == 2 ? producer(g, write->args[1]) : NULL;
  if (!cast || !is_op(cast, "cast") || cast->arg_count < 1 || g->values[cast->args[0]].type.dtype != CML_F32) return false;
  *out = cast->args[0];
  return true;
}

static bool is_read_or_write(const cml_graph *g, const cml_step *s, size_t k) {
  uint32_t from;
  if (k != 0 || s < g->body.steps || s >= g->body.steps + g->body.step_count) return false; /* in the body alone */
  if (is_op(s, "read_state")) return s->out_count == 1 && all_uses(&g->body, s->outs[0], is_cast_to_f32, g);
  return is_op(s, "write_state") && s->out_count == 0 && before_cast(g, s, &from);
}

void cml_exec_widen_states(cml_graph *g) {
  for (uint32_t v = 0; v < g->function->input_count; v++) {
    if (g->values[v].role != CML_ROLE_STATE || g->values[v].type.dtype != CML_F16) continue;
    if (!all_uses(&g->body, v, is_read_or_write, g)) continue;
    g->values[v].type.dtype = CML_F32;
    for (size_t i = 0; i < g->body.step_count; i++) {
      cml_step *s = &g->body.steps[i];
      if (!s->arg_count || s->args[0] != v) continue;
      if (is_op(s, "write_state")) {
        (void)before_cast(g, s, &s->args[1]);
      } else {
        g->values[s->outs[0]].type.dtype = CML_F32;
        s->declared[0].dtype = CML_F32;
      }
    }
  }
}
