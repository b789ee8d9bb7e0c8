/* Graphs for certain input shapes.
 *
 * What a program leaves open keeps passes and kernels from their best: they cannot know that rows are enough for a transform, or that
 * two shapes agree. So a flexible program is prepared for its default shapes as if they were fixed, and again for others once they
 * repeat; whatever comes in between runs by the general graph, which is prepared when it is first needed. Weights that are packed
 * alike are shared (pack_cache.h). Shapes for which this fails, be it for want of memory, are noted, and run by the general graph. */
#include "exec_variants.h"

#include <stdlib.h>

#include "exec_types.h"
#include "pack_cache.h"
#include "passes.h"
#include "session.h"

enum { MOST_VARIANTS = 8 };

bool cml_executable_same_shapes(const cml_executable *e, const cml_tensor *shapes, const cml_slot *inputs) {
  for (size_t i = 0; i < e->general.graph.function->input_count; i++)
    if (e->given[i].role == CML_ROLE_INPUT && !cml_tensor_same_shape(&shapes[i], &inputs[i].tensor)) return false;
  return true;
}

cml_tensor *cml_executable_shapes(const cml_executable *e, const cml_slot *inputs) {
  size_t count = e->general.graph.function->input_count;
  cml_tensor *shapes = calloc(count + 1, sizeof *shapes);
  for (size_t i = 0; shapes && i < count; i++) {
    shapes[i] = inputs[i].tensor;
    shapes[i].data = NULL;
  }
  return shapes;
}

/* ---- preparing ---- */

static cml_status prepare(cml_executable *e, cml_variant *v, cml_error *err) {
  CML_TRY(cml_passes_run(&v->graph, e->passes, NULL, NULL, err));
  return cml_exec_prepare(&v->graph, e->pool, err);
}

void cml_variant_begin(cml_executable *e, cml_variant *v) {
  v->graph = (cml_graph){.arena = CML_ARENA_INIT, .account = &e->account, .pool = e->pool, .cache = e->cache};
}

/* States are the session's and must look the same to all. */
static cml_status check_states(const cml_executable *e, const cml_graph *g, cml_error *err) {
  for (size_t i = 0; i < g->function->input_count; i++) {
    const cml_tensor *a = &g->values[i].type, *b = &e->given[i].type;
    if (g->values[i].role == CML_ROLE_STATE && (a->dtype != b->dtype || !cml_tensor_same_shape(a, b)))
      return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "state '%s' has another type", g->values[i].name);
  }
  return CML_OK;
}

static cml_status build(cml_executable *e, cml_variant *v, bool to_run, cml_error *err) {
  cml_variant_begin(e, v);
  CML_TRY(cml_exec_build(&v->graph, e->general.graph.function, v->shapes, err));
  if (!e->passes || *e->passes) cml_exec_widen_states(&v->graph);
  CML_TRY(check_states(e, &v->graph, err));
  CML_TRY(cml_variant_bind_outputs(e, v, err));
  if (!to_run) return CML_OK;
  CML_TRY(prepare(e, v, err));
  return cml_plan_create(&v->graph, v->shapes, &v->plan, err);
}

static void clear(cml_executable *e, cml_variant *v) {
  cml_plan_destroy(v->plan);
  v->plan = NULL;
  for (struct cml_kept *k = v->graph.kept; k; k = k->next) cml_account_give(&e->account, k->size);
  cml_exec_free(&v->graph);
}

/* Shapes for which there can be none are noted, too. */
cml_variant *cml_variant_create(cml_executable *e, const cml_tensor *shapes, bool to_run) {
  const cml_mil_function *f = e->general.graph.function;
  cml_variant *v = calloc(1, sizeof *v);
  if (!v || !(v->shapes = calloc(f->input_count + 1, sizeof *v->shapes))) {
    free(v);
    return NULL;
  }
  memcpy(v->shapes, shapes, f->input_count * sizeof *shapes);
  cml_error unfit;
  cml_pack_cache_begin(e->cache);
  bool ready = !build(e, v, to_run, &unfit);
  atomic_init(&v->ready, ready);
  if (!ready) {
    cml_pack_cache_undo(e->cache);
    clear(e, v);
  }
  v->next = atomic_load_explicit(&e->variants, memory_order_relaxed);
  atomic_store_explicit(&e->variants, v, memory_order_release);
  if (!e->variant_count++ && ready && !e->general.ready) atomic_store_explicit(&e->preferred, v, memory_order_release);
  return ready ? v : NULL;
}

cml_status cml_variant_prepare_general(cml_executable *e, cml_error *err) {
  if (!e->general.ready && !e->failure.status) { /* passes change the graph: there is no second try */
    cml_pack_cache_begin(e->cache);
    e->general.ready = !prepare(e, &e->general, &e->failure);
  }
  if (e->general.ready) return CML_OK;
  if (err) *err = e->failure;
  return e->failure.status;
}

void cml_variants_free(cml_executable *e) {
  for (cml_variant *v = atomic_load(&e->variants), *next; v; v = next) {
    next = v->next;
    clear(e, v);
    free(v->shapes);
    free(v);
  }
  clear(e, &e->general);
}

/* ---- choosing ---- */

static const cml_variant *find(cml_executable *e, const cml_slot *inputs) {
  const cml_variant *v = atomic_load_explicit(&e->variants, memory_order_acquire);
  while (v && !cml_executable_same_shapes(e, v->shapes, inputs)) v = v->next;
  return v;
}

static const cml_variant *make(cml_executable *e, const cml_slot *inputs) {
  const cml_variant *v = find(e, inputs);
  if (v || e->variant_count >= MOST_VARIANTS) return v; /* another session was first */
  cml_tensor *shapes = cml_executable_shapes(e, inputs);
  if (!shapes) return NULL;
  v = cml_variant_create(e, shapes, true);
  free(shapes);
  return v;
}

cml_status cml_executable_variant(cml_executable *e, const cml_slot *inputs, bool repeated, const cml_variant **out, cml_error *err) {
  cml_status status = CML_OK;
  const cml_variant *v = find(e, inputs);
  *out = v && v->ready ? v : &e->general;
  bool makes = !v && repeated && e->variant_count < MOST_VARIANTS;
  if ((*out)->ready && !makes) return CML_OK; /* without waiting for others who prepare something */
  pthread_mutex_lock(&e->preparing);
  if (!v && (repeated || !(e->variant_count || e->general.ready))) v = make(e, inputs);
  if (v && v->ready) *out = v;
  else status = cml_variant_prepare_general(e, err);
  cml_pack_cache_write(e->cache);
  pthread_mutex_unlock(&e->preparing);
  return status;
}
