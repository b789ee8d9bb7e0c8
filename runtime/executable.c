/* Load and prepare: choose the function, build its graph, pack, plan. The result never changes and is shared by sessions. */
#include "exec_graph.h"
#include "passes.h"
#include "session.h"

#include <stdio.h>
#include <stdlib.h>

static cml_status choose_function(const cml_model *m, const char *wanted, const cml_mil_function **out, cml_error *err) {
  if (!m->program)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "the model is no ML Program (its type is number %u of Model's): only ML Programs run",
                    m->type_number);
  const char *name = wanted && *wanted ? wanted : m->default_function && *m->default_function ? m->default_function : "main";
  *out = cml_mil_find_function(m->program, name);
  if (!*out && !(wanted && *wanted) && m->program->function_count == 1) *out = m->program->functions[0];
  if (*out) return CML_OK;
  cml_buffer b = CML_BUFFER_INIT;
  for (size_t i = 0; i < m->program->function_count; i++)
    cml_buffer_printf(&b, "%s'%s'", i ? ", " : "", m->program->functions[i]->name);
  cml_status status = cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the model has no function '%s'; it has %s", name,
                               b.data ? (char *)b.data : "none");
  cml_buffer_free(&b);
  return status;
}

/* The plan for the shapes that the program itself fixes; none when some are open. */
static cml_status plan_default(cml_executable *e, cml_error *err) {
  const cml_graph *g = &e->graph;
  for (size_t i = 0; i < g->function->input_count; i++)
    if (!cml_tensor_known_shape(&g->values[i].type)) return CML_OK;
  return cml_plan_create(g, NULL, &e->plan, err);
}

cml_status cml_executable_prepare(cml_model *model, const cml_prepare_options *options, cml_executable **out, cml_error *err) {
  static const cml_prepare_options defaults;
  const cml_mil_function *function;
  if (!options) options = &defaults;
  CML_TRY(choose_function(model, options->function, &function, err));
  cml_executable *e = calloc(1, sizeof *e);
  if (!e) return cml_fail_memory(err);
  atomic_init(&e->references, 1);
  e->model = model;
  cml_status status = cml_pool_create(options->threads, &e->pool, err);
  e->graph.pool = e->pool;
  if (!status) status = cml_exec_build(&e->graph, function, err);
  if (!status && !(options->passes && !*options->passes)) cml_exec_widen_states(&e->graph);
  if (!status) status = cml_executable_bind_features(e, err);
  if (!status) status = cml_passes_run(&e->graph, options->passes, err);
  if (!status) status = cml_exec_prepare(&e->graph, e->pool, err);
  if (!status) status = plan_default(e, err);
  if (status) cml_executable_unref(e);
  else *out = e;
  return status;
}

cml_executable *cml_executable_ref(cml_executable *e) {
  atomic_fetch_add_explicit(&e->references, 1, memory_order_relaxed);
  return e;
}

void cml_executable_unref(cml_executable *e) {
  if (!e || atomic_fetch_sub_explicit(&e->references, 1, memory_order_acq_rel) != 1) return;
  cml_plan_destroy(e->plan);
  cml_exec_free(&e->graph);
  cml_pool_destroy(e->pool);
  cml_arena_free(&e->arena);
  free(e);
}

const cml_features *cml_executable_inputs(const cml_executable *e) { return &e->inputs; }
const cml_features *cml_executable_outputs(const cml_executable *e) { return &e->outputs; }
const cml_features *cml_executable_states(const cml_executable *e) { return &e->states; }
const cml_model *cml_executable_model(const cml_executable *e) { return e->model; }
const cml_mil_program *cml_executable_program(const cml_executable *e) { return e->model->program; }

void cml_executable_memory(const cml_executable *e, uint64_t *arena, uint64_t *packed, uint64_t *live) {
  *arena = e->plan ? e->plan->arena_size : 0;
  *live = e->plan ? e->plan->live_peak : 0;
  *packed = 0;
  for (const struct cml_kept *k = e->graph.kept; k; k = k->next) *packed += k->size;
}
