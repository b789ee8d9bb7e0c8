/* Load and prepare: choose the function, build its graph, pack, plan. The result never changes and is shared by sessions. */
#include "exec_types.h"
#include "machine.h"
#include "pack_cache.h"
#include "passes.h"
#include "session.h"
#include "summary.h"

#include <stdio.h>
#include <stdlib.h>

static cml_status choose_function(const cml_model *m, const char *wanted, const cml_mil_function **out, cml_error *err) {
  if (!m->program)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "the model is no ML Program but a %s: only ML Programs run",
                    cml_model_type_name(m->type_number));
  const char *name = wanted && *wanted ? wanted : m->default_function && *m->default_function ? m->default_function : "main";
  *out = cml_mil_find_function(m->program, name);
  if (*out) return CML_OK;
  cml_buffer b = CML_BUFFER_INIT;
  for (size_t i = 0; i < m->program->function_count; i++)
    cml_buffer_printf(&b, "%s'%s'", i ? ", " : "", m->program->functions[i]->name);
  cml_status status = cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the model has no function '%s'; it has %s", name,
                               b.data ? (char *)b.data : "none");
  cml_buffer_free(&b);
  return status;
}

static const cml_feature *input_feature(const cml_executable *e, uint32_t value) {
  for (size_t i = 0; i < e->inputs.count; i++)
    if (e->input_values[i] == value) return &e->inputs.items[i];
  return NULL;
}

/* The plan for the shapes that the program itself fixes and, where it leaves some open, the description's default ones: none
 * when these do not fit. */
static cml_status plan_default(cml_executable *e, cml_error *err) {
  const cml_graph *g = &e->graph;
  bool flexible = false;
  cml_tensor *types = calloc(g->function->input_count + 1, sizeof *types);
  if (!types) return cml_fail_memory(err);
  bool known = true;
  for (uint32_t i = 0; known && i < g->function->input_count; i++) {
    types[i] = g->values[i].type;
    if (cml_tensor_known_shape(&types[i])) continue;
    const cml_feature *f = input_feature(e, i);
    known = f && cml_feature_default_type(f, &types[i]);
    flexible = true;
  }
  cml_error unfit;
  cml_status status = known ? cml_plan_create(g, types, &e->plan, flexible ? &unfit : err) : CML_OK;
  free(types);
  return flexible ? CML_OK : status;
}

/* Of a later version nobody knows yet what it means; a program without a description has no number. */
static cml_status check_head(const cml_model *m, cml_error *err) {
  enum { IOS15 = 6, IOS26 = 10, PROGRAM = 1 };
  int32_t version = m->specification_version;
  if (version && (version < IOS15 || version > IOS26))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "specification version %d: ML Programs of versions %d (iOS 15) to %d (iOS 26) run", (int)version,
                    IOS15, IOS26);
  if (m->program->version != PROGRAM)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "version %lld of the program's format: only %d is known", (long long)m->program->version, PROGRAM);
  for (size_t i = 0; i < m->function_count; i++)
    if (!cml_mil_find_function(m->program, m->functions[i].name))
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the description has a function '%s', and the program has none", m->functions[i].name);
  return CML_OK;
}

static cml_status create(cml_model *model, size_t threads, uint64_t max_memory, cml_executable **out, cml_error *err) {
  CML_TRY(check_head(model, err));
  cml_executable *e = calloc(1, sizeof *e);
  if (!e) return cml_fail_memory(err);
  atomic_init(&e->references, 1);
  e->model = model;
  e->account.limit = max_memory ? max_memory : cml_machine_limits().memory;
  e->graph.account = &e->account;
  cml_status status = cml_pool_create(threads, &e->pool, err);
  e->graph.pool = e->pool;
  if (status) cml_executable_unref(e);
  else *out = e;
  return status;
}

cml_status cml_executable_prepare(cml_model *model, const cml_prepare_options *options, cml_executable **out, cml_error *err) {
  static const cml_prepare_options defaults;
  const cml_mil_function *function;
  cml_executable *e = NULL;
  if (!options) options = &defaults;
  CML_TRY(choose_function(model, options->function, &function, err));
  CML_TRY(create(model, options->threads, options->max_memory, &e, err));
  cml_status status = cml_exec_build(&e->graph, function, err);
  if (!status) status = cml_executable_check_features(e, err);
  if (!status && !(options->passes && !*options->passes)) cml_exec_widen_states(&e->graph);
  if (!status) status = cml_executable_bind_features(e, err);
  if (!status) status = cml_passes_run(&e->graph, options->passes, NULL, NULL, err);
  if (!status && options->cache && *options->cache)
    status = cml_pack_cache_open(options->cache, function, options->passes, e->pool, &e->graph.cache, err);
  if (!status) status = cml_exec_prepare(&e->graph, e->pool, err);
  if (!status) status = plan_default(e, err);
  if (!status) cml_pack_cache_write(e->graph.cache);
  if (status) cml_executable_unref(e);
  else *out = e;
  return status;
}

cml_status cml_executable_check(cml_model *model, const cml_mil_function *function, cml_executable **out, cml_error *err) {
  cml_executable *e = NULL;
  CML_TRY(create(model, 1, 0, &e, err));
  e->graph.shapes_only = true;
  cml_status status = cml_exec_build(&e->graph, function, err);
  if (!status) status = cml_executable_check_features(e, err);
  if (!status) status = cml_executable_bind_features(e, err);
  if (!status) status = plan_default(e, err);
  if (status) cml_executable_unref(e);
  else *out = e;
  return status;
}

/* ---- what the passes do, in words ---- */

typedef struct pass_printer {
  cml_buffer *out;
  cml_buffer before; /* the program before the pass */
} pass_printer;

static void print_pass(void *context, const cml_graph *g, const cml_pass *pass) {
  pass_printer *p = context;
  cml_buffer now = CML_BUFFER_INIT;
  cml_graph_print(g, &now);
  bool same = now.size == p->before.size && now.size && !memcmp(now.data, p->before.data, now.size);
  cml_buffer_printf(p->out, "\n# after %s: %s%s\n", pass->name, pass->what, same ? " (nothing to do)" : "");
  if (!same) cml_buffer_append(p->out, now.data, now.size);
  cml_buffer_free(&p->before);
  p->before = now;
}

cml_status cml_executable_print_passes(cml_model *model, const cml_prepare_options *options, cml_buffer *out, cml_error *err) {
  static const cml_prepare_options defaults;
  const cml_mil_function *function;
  cml_executable *e = NULL;
  pass_printer p = {out, CML_BUFFER_INIT};
  if (!options) options = &defaults;
  CML_TRY(choose_function(model, options->function, &function, err));
  CML_TRY(create(model, 1, 0, &e, err));
  cml_status status = cml_exec_build(&e->graph, function, err);
  if (!status) {
    cml_graph_print(&e->graph, &p.before);
    cml_buffer_text(out, "# as written, constants folded\n");
    cml_buffer_append(out, p.before.data, p.before.size);
    status = cml_passes_run(&e->graph, options->passes, print_pass, &p, err);
  }
  cml_buffer_free(&p.before);
  cml_executable_unref(e);
  return status ? status : cml_buffer_check(out, err);
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
const cml_tensor *cml_executable_output_type(const cml_executable *e, size_t i) {
  return e->plan ? &e->plan->types[e->output_values[i]] : &e->graph.values[e->output_values[i]].type;
}
const cml_features *cml_executable_states(const cml_executable *e) { return &e->states; }
cml_pool *cml_executable_pool(const cml_executable *e) { return e->pool; }
const cml_model *cml_executable_model(const cml_executable *e) { return e->model; }
const cml_mil_program *cml_executable_program(const cml_executable *e) { return e->model->program; }

void cml_executable_memory(const cml_executable *e, uint64_t *arena, uint64_t *packed, uint64_t *live) {
  *arena = e->plan ? e->plan->arena_size : 0;
  *live = e->plan ? e->plan->live_peak : 0;
  *packed = 0;
  for (const struct cml_kept *k = e->graph.kept; k; k = k->next) *packed += k->size;
  uint64_t found, fresh, bytes;
  bool written;
  cml_pack_cache_counts(e->graph.cache, &found, &fresh, &bytes, &written);
  *packed += bytes;
}

size_t cml_executable_plan(const cml_executable *e, cml_planned_value *out, size_t room) {
  const cml_graph_block *body = &e->graph.body;
  const cml_plan *plan = e->plan;
  size_t n = 0;
  for (size_t i = 0; plan && i < body->step_count; i++) {
    const cml_step *s = &body->steps[plan->order[i]];
    for (size_t k = 0; k < s->out_count; k++) {
      uint32_t v = s->outs[k];
      uint64_t bytes;
      if (plan->offsets[v] == CML_NO_OFFSET || !cml_tensor_bytes(&plan->types[v], &bytes)) continue;
      size_t last = plan->last[v] < body->step_count ? plan->last[v] : body->step_count - 1;
      if (n < room) out[n] = (cml_planned_value){e->graph.values[v].name, false, plan->offsets[v], bytes, i, last};
      n++;
    }
    if (plan->scratch[s->index] == CML_NO_OFFSET) continue;
    if (n < room) out[n] = (cml_planned_value){s->name, true, plan->scratch[s->index], plan->scratch_bytes[s->index], i, i};
    n++;
  }
  return n;
}

void cml_executable_cached(const cml_executable *e, uint64_t *found, uint64_t *packed, bool *written) {
  uint64_t bytes;
  cml_pack_cache_counts(e->graph.cache, found, packed, &bytes, written);
}
