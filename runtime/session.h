/* A session's insides, shared by session.c (running) and features.c (inputs and outputs). Internal to runtime/. */
#ifndef CML_SESSION_H
#define CML_SESSION_H

#include "exec_graph.h"

struct cml_session {
  cml_executable *executable;
  cml_runner runner;
  const cml_variant *variant; /* whose graph ran last, NULL before the first run; slots, calls, args, outs, plan are for it */
  cml_slot *inputs;        /* by position of the function's inputs: inputs and states, which all variants share */
  cml_slot *slots;         /* by value, of all others */
  cml_call *calls;         /* by step index */
  const cml_tensor **args; /* of all calls */
  cml_tensor **outs;
  cml_plan *plan;
  bool own_plan;
  void *arena, *scratch;
  size_t arena_capacity, scratch_capacity;
  bool *input_set;         /* by input feature */
  cml_slot *results;       /* by output feature: what the caller sees */
  atomic_bool own_cancelled, *cancelled; /* the second: own, or that of a machine around it */
  cml_slot *gathered;      /* for the observer: copies of values whose rows lie apart, and all outputs with these in their place */
  const cml_tensor **seen;
  size_t seen_count;
  cml_observe *observe;
  void *observe_context;
  bool observe_values;
};

static inline cml_slot *cml_session_slot(const cml_session *s, uint32_t value) {
  return value < s->variant->graph.function->input_count ? &s->inputs[value] : &s->slots[value];
}
/* The run stops by this flag, which must outlive the session, instead of by cml_session_cancel. */
void cml_session_stop_by(cml_session *s, atomic_bool *flag);
/* Optional inputs that were not set get their default; a required one that was not set is an error. */
cml_status cml_session_complete_inputs(cml_session *s, cml_error *err);
/* Converts the program's outputs to what their features declare. */
cml_status cml_session_collect_outputs(cml_session *s, cml_error *err);
/* What the description says of a function: its own entry, or that of the whole model. */
cml_function_description cml_function_describe(const cml_model *model, const char *name);
/* Refuses a description that contradicts the program, as the graph was built from it. */
cml_status cml_executable_check_features(const cml_executable *e, cml_error *err);
/* Finds the values of a variant's graph, as it was built, behind the output features. */
cml_status cml_variant_bind_outputs(const cml_executable *e, cml_variant *v, cml_error *err);
/* Fills the executable's features and the values behind them in the general graph. */
cml_status cml_executable_bind_features(cml_executable *e, cml_error *err);

#endif
