/* Load and prepare: choose the function, build its graph, pack, plan. The result never changes and is shared by sessions. */
#include "exec_types.h"
#include "exec_variants.h"
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

/* The shapes that the program itself fixes and, where it leaves some open, the description's default ones. */
static cml_tensor *default_shapes(cml_executable *e, bool *known, cml_error *err) {
  size_t count = e->general.graph.function->input_count;
  cml_tensor *shapes = calloc(count + 1, sizeof *shapes);
  if (!shapes) cml_fail_memory(err);
  *known = true;
  for (uint32_t i = 0; shapes && i < count; i++) {
    shapes[i] = e->given[i].type;
    if (cml_tensor_known_shape(&shapes[i])) continue;
    const cml_feature *f = input_feature(e, i);
    *known = *known && f && cml_feature_default_type(f, &shapes[i]);
    e->flexible = true;
  }
  return shapes;
}

/* The general graph's plan for the default shapes: none when these do not fit. */
static cml_status plan_default(cml_executable *e, const cml_tensor *shapes, bool known, cml_error *err) {
  cml_error unfit;
  cml_status status = known ? cml_plan_create(&e->general.graph, shapes, &e->general.plan, e->flexible ? &unfit : err) : CML_OK;
  return e->flexible ? CML_OK : status;
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

static cml_status create(cml_model *model, const char *passes, size_t threads, uint64_t max_memory, cml_executable **out, cml_error *err) {
  CML_TRY(check_head(model, err));
  cml_executable *e = calloc(1, sizeof *e);
  if (!e) return cml_fail_memory(err);
  atomic_init(&e->references, 1);
  e->model = model;
  e->account.limit = max_memory ? max_memory : cml_machine_limits().memory;
  pthread_mutex_init(&e->preparing, NULL);
  atomic_init(&e->variants, NULL);
  atomic_init(&e->preferred, &e->general);
  cml_status status = passes && !(e->passes = strdup(passes)) ? cml_fail_memory(err) : cml_pool_create(threads, &e->pool, err);
  cml_variant_begin(e, &e->general);
  if (status) cml_executable_unref(e);
  else *out = e;
  return status;
}

static cml_status build_general(cml_executable *e, const cml_mil_function *function, cml_error *err) {
  CML_TRY(cml_exec_build(&e->general.graph, function, NULL, err));
  CML_TRY(cml_executable_check_features(e, err));
  if (!e->passes || *e->passes) cml_exec_widen_states(&e->general.graph);
  return cml_executable_bind_features(e, err);
}

/* What is kept of packed weights: for the next load in a folder, for other shapes and for steps with the same weights in memory. */
static cml_status open_cache(cml_executable *e, const char *folder, cml_error *err) {
  if (folder && !*folder) folder = NULL;
  CML_TRY(cml_pack_cache_open(folder, e->general.graph.function, e->passes, e->pool, !folder && !e->flexible, &e->cache, err));
  e->general.graph.cache = e->cache;
  return CML_OK;
}

static cml_status prepare(cml_executable *e, const cml_prepare_options *options, cml_error *err) {
  bool known;
  cml_tensor *shapes = default_shapes(e, &known, err);
  cml_status status = shapes ? open_cache(e, options->cache, err) : CML_NO_MEMORY;
  bool later = e->flexible && options->at_first_run, special = !status && !later && e->flexible && known && cml_variant_create(e, shapes, true);
  if (!status && !later && !special) {
    status = cml_variant_prepare_general(e, err);
    if (!status) status = plan_default(e, shapes, known, err);
  }
  if (!status) cml_pack_cache_write(e->cache);
  free(shapes);
  return status;
}

cml_status cml_executable_prepare(cml_model *model, const cml_prepare_options *options, cml_executable **out, cml_error *err) {
  static const cml_prepare_options defaults;
  const cml_mil_function *function;
  cml_executable *e = NULL;
  if (!options) options = &defaults;
  CML_TRY(choose_function(model, options->function, &function, err));
  CML_TRY(create(model, options->passes, options->threads, options->max_memory, &e, err));
  cml_status status = build_general(e, function, err);
  if (!status) status = prepare(e, options, err);
  if (status) cml_executable_unref(e);
  else *out = e;
  return status;
}

cml_status cml_executable_check(cml_model *model, const cml_mil_function *function, cml_executable **out, cml_error *err) {
  cml_executable *e = NULL;
  CML_TRY(create(model, "", 1, 0, &e, err));
  e->general.graph.shapes_only = true;
  cml_status status = build_general(e, function, err);
  bool known = false;
  cml_tensor *shapes = status ? NULL : default_shapes(e, &known, err);
  if (!status) status = shapes ? plan_default(e, shapes, known, err) : CML_NO_MEMORY;
  free(shapes);
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
  CML_TRY(create(model, options->passes, 1, 0, &e, err));
  cml_status status = build_general(e, function, err);
  bool known = false;
  cml_tensor *shapes = status ? NULL : default_shapes(e, &known, err);
  if (!status && !shapes) status = CML_NO_MEMORY;
  cml_variant *usual = known && e->flexible ? cml_variant_create(e, shapes, false) : NULL;
  cml_graph *g = usual ? &usual->graph : &e->general.graph;
  free(shapes);
  if (!status) {
    cml_graph_print(g, &p.before);
    cml_buffer_printf(out, "# as written, constants folded%s\n", usual ? ", for the default shapes" : "");
    cml_buffer_append(out, p.before.data, p.before.size);
    status = cml_passes_run(g, options->passes, print_pass, &p, err);
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
  cml_variants_free(e);
  cml_pack_cache_destroy(e->cache);
  cml_pool_destroy(e->pool);
  pthread_mutex_destroy(&e->preparing);
  free(e->passes);
  cml_arena_free(&e->arena);
  free(e);
}

const cml_features *cml_executable_inputs(const cml_executable *e) { return &e->inputs; }
const cml_features *cml_executable_outputs(const cml_executable *e) { return &e->outputs; }
const cml_tensor *cml_executable_output_type(const cml_executable *e, size_t i) {
  const cml_variant *v = e->preferred;
  return v->plan ? &v->plan->types[v->output_values[i]] : &v->graph.values[v->output_values[i]].type;
}
const cml_features *cml_executable_states(const cml_executable *e) { return &e->states; }
cml_pool *cml_executable_pool(const cml_executable *e) { return e->pool; }
const cml_model *cml_executable_model(const cml_executable *e) { return e->model; }
const cml_mil_program *cml_executable_program(const cml_executable *e) { return e->model->program; }

void cml_executable_memory(const cml_executable *e, uint64_t *arena, uint64_t *packed, uint64_t *live) {
  const cml_variant *v = e->preferred;
  const cml_plan *plan = v->plan;
  *arena = plan ? plan->arena_size : 0;
  *live = plan ? plan->live_peak : 0;
  uint64_t found, fresh;
  bool written;
  cml_pack_cache_counts(e->cache, &found, &fresh, packed, &written);
  for (const struct cml_kept *k = v->graph.kept; k; k = k->next) *packed += k->size;
}

size_t cml_executable_plan(const cml_executable *e, cml_planned_value *out, size_t room) {
  const cml_variant *variant = e->preferred;
  const cml_graph *g = &variant->graph;
  const cml_graph_block *body = &g->body;
  const cml_plan *plan = variant->plan;
  size_t n = 0;
  for (size_t i = 0; plan && i < body->step_count; i++) {
    const cml_step *s = &body->steps[plan->order[i]];
    for (size_t k = 0; k < s->out_count; k++) {
      uint32_t v = s->outs[k];
      uint64_t bytes;
      if (plan->offsets[v] == CML_NO_OFFSET || !cml_tensor_bytes(&plan->types[v], &bytes)) continue;
      size_t last = plan->last[v] < body->step_count ? plan->last[v] : body->step_count - 1;
      if (n < room) out[n] = (cml_planned_value){g->values[v].name, false, plan->offsets[v], bytes, i, last};
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
  cml_pack_cache_counts(e->cache, found, packed, &bytes, written);
}
