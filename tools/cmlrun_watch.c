/* Both kinds of model are watched through their observers; what they tell is brought into one form. */
#include "cmlrun_watch.h"

#include <math.h>
#include <string.h>

typedef struct watch {
  cmlrun_look *look;
  void *context;
  cml_et_method *method;
} watch;

/* ---- numbers ---- */

cmlrun_statistics cmlrun_statistics_of(const cml_tensor *t) {
  cmlrun_statistics s = {.count = t->dtype == CML_STRING ? 0 : cml_tensor_count(t), .least = INFINITY, .most = -INFINITY};
  double sum = 0, squares = 0;
  int64_t finite = 0;
  for (int64_t i = 0; i < s.count; i++) {
    double x = cml_tensor_get(t, i);
    if (isnan(x)) s.nan++;
    else if (isinf(x)) s.infinite++;
    else {
      if (x < s.least) s.least = x;
      if (x > s.most) s.most = x;
      sum += x;
      squares += x * x;
      finite++;
    }
  }
  if (!finite) return s.least = s.most = 0, s;
  s.mean = sum / (double)finite;
  double variance = squares / (double)finite - s.mean * s.mean;
  s.deviation = variance > 0 ? sqrt(variance) : 0;
  return s;
}

cmlrun_difference cmlrun_difference_of(const cml_tensor *a, const cml_tensor *b, double rtol, double atol) {
  cmlrun_difference d = {.count = cml_tensor_count(b), .snr = INFINITY};
  double power = 0, noise = 0;
  for (int64_t i = 0; i < d.count; i++) {
    double x = cml_tensor_get(a, i), y = cml_tensor_get(b, i), off = fabs(x - y);
    if ((isnan(x) && isnan(y)) || x == y) off = 0;
    if (!(off <= atol + rtol * fabs(y))) d.wrong++;
    if (!(off <= d.largest)) d.largest = isnan(off) ? INFINITY : off;
    if (isfinite(y)) power += y * y;
    noise += isnan(off) ? INFINITY : off * off;
  }
  if (noise > 0) d.snr = isinf(noise) ? -INFINITY : 10 * log10(power / noise);
  return d;
}

/* ---- Core ML models ---- */

static void see_operation(void *context, const char *op_type, const char *op_name, uint64_t begin, uint64_t end, const cml_tensor *const *inputs,
                          size_t input_count, const cml_tensor *const *outputs, size_t output_count) {
  watch *w = context;
  (void)inputs;
  (void)input_count;
  for (size_t i = 0; i < output_count; i++) {
    if (outputs[i]->list || !outputs[i]->data) continue;
    const cmlrun_seen seen = {"", op_type, op_name, i, end - begin, outputs[i], NULL, NULL};
    w->look(w->context, &seen);
  }
}

static cml_status watch_model(const char *path, const cmlrun_options *options, const cli_list *inputs, watch *w, cml_error *err) {
  cmlrun_model model;
  cml_session *session = NULL;
  CML_TRY(cmlrun_open(path, options, true, &model, err));
  cml_status status = cml_session_create(model.executable, &session, err);
  if (!status) cml_session_observe(session, see_operation, w, true), cmlrun_stops(session, NULL);
  for (size_t i = 0; !status && i < (inputs->count ? inputs->count : 1); i++) {
    if (inputs->count) status = cmlrun_session_inputs(session, inputs->items[i], err);
    if (!status) status = cml_session_run(session, err);
  }
  cmlrun_stops(NULL, NULL);
  cml_session_destroy(session);
  cmlrun_close(&model);
  return status;
}

/* ---- programs ---- */

/* The innermost frame of an instruction, from the exporter's stack traces (emit_stacktrace). */
static const char *source_of(const watch *w, const cml_et_event *e, char *text, size_t room) {
  const cml_pte_chain *chain = &cml_et_method_of(w->method)->chains[e->chain];
  if (e->instruction >= chain->stacktrace_count || !chain->stacktraces[e->instruction].count) return NULL;
  const cml_pte_frames *frames = &chain->stacktraces[e->instruction];
  const cml_pte_frame *f = &frames->frames[frames->count - 1];
  size_t at = f->filename.size;
  while (at && f->filename.data[at - 1] != '/') at--;
  snprintf(text, room, "%.*s:%d, %.*s", (int)(f->filename.size - at), f->filename.data + at, f->line, (int)f->name.size, f->name.data);
  return text;
}

static void see_value(watch *w, const char *where, const char *source, const cml_et_event *e, const cml_et_value *v, size_t output) {
  cml_tensor t;
  int64_t one;
  double real;
  if (v->kind == CML_PTE_TENSOR) {
    if (cml_et_method_export(w->method, v, &t, NULL)) return;
  } else if (v->kind == CML_PTE_REAL) {
    real = v->real;
    t = (cml_tensor){.dtype = CML_F64, .data = &real};
  } else if (v->kind == CML_PTE_INTEGER || v->kind == CML_PTE_BOOLEAN) {
    one = v->kind == CML_PTE_INTEGER ? v->integer : v->boolean;
    t = (cml_tensor){.dtype = CML_I64, .data = &one};
  } else {
    return;
  }
  const cmlrun_seen seen = {where, e->name, "", output, e->end_ns - e->begin_ns, &t, source, NULL};
  w->look(w->context, &seen);
}

static void see_instruction(void *context, const cml_et_event *e) {
  watch *w = context;
  char where[32], text[256];
  const char *source = source_of(w, e, text, sizeof text);
  size_t output = 0;
  snprintf(where, sizeof where, e->op_type ? "%zu/" : "%zu", e->instruction);
  if (e->op_type) {
    for (size_t i = 0; i < e->output_count; i++) {
      if (e->outputs[i]->list || !e->outputs[i]->data) continue;
      const cmlrun_seen seen = {where, e->op_type, e->name, i, e->end_ns - e->begin_ns, e->outputs[i], NULL, e->debug_handles};
      w->look(w->context, &seen);
    }
    return;
  }
  for (size_t i = 0; i < e->arg_count && i < 64; i++) {
    if (!(e->out_mask >> i & 1)) continue;
    const cml_et_value *v = e->args[i];
    if (v->kind != CML_PTE_TENSORS) see_value(w, where, source, e, v, output++);
    else
      for (uint32_t k = 0; k < v->count; k++) see_value(w, where, source, e, v->items[k], output++);
  }
}

static cml_status watch_program(const char *path, const cmlrun_options *options, const cli_list *inputs, watch *w, cml_error *err) {
  cmlrun_program p;
  CML_TRY(cmlrun_program_open(path, options, false, &p, err));
  w->method = p.method;
  cml_et_method_observe(p.method, see_instruction, w);
  cml_status status = CML_OK;
  for (size_t i = 0; !status && i < (inputs->count ? inputs->count : 1); i++) {
    if (inputs->count) status = cmlrun_program_inputs(&p, inputs->items[i], err);
    if (!status) status = cml_et_method_run(p.method, err);
  }
  cmlrun_program_close(&p);
  return status;
}

cml_status cmlrun_watch(const char *path, const cmlrun_options *options, const cli_list *inputs, cmlrun_look *look, void *context, cml_error *err) {
  watch w = {look, context, NULL};
  return cmlrun_is_program(path) ? watch_program(path, options, inputs, &w, err) : watch_model(path, options, inputs, &w, err);
}
