/* A profile for other eyes: as a trace file, and as one page of HTML that holds its data as JSON and draws it itself. */
#include "cmlrun_profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_write.h"

static double microseconds(uint64_t ns) { return (double)ns * 1e-3; }

static double per_ns(uint64_t amount, uint64_t ns) { return ns ? (double)amount / (double)ns : 0; }

static void put_real(cml_json *j, const char *key, double v) { cml_json_key(j, key), cml_json_real(j, v); }

/* ---- trace ---- */

static void begin_trace_event(cml_json *j, const char *phase, const char *name, size_t thread) {
  cml_json_open_flat(j, '{');
  cml_json_put_text(j, "name", name);
  cml_json_put_text(j, "ph", phase);
  cml_json_put_uint(j, "pid", 1);
  cml_json_put_uint(j, "tid", thread + 1);
}

static void trace_name(cml_json *j, const char *what, size_t thread, const char *name) {
  begin_trace_event(j, "M", what, thread);
  cml_json_key(j, "args");
  cml_json_open(j, '{');
  cml_json_put_text(j, "name", name);
  cml_json_close(j, '}');
  cml_json_close(j, '}');
}

static void trace_slice(cml_json *j, const char *category, const char *name, size_t thread, uint64_t begin, uint64_t ns) {
  begin_trace_event(j, "X", name, thread);
  cml_json_put_text(j, "cat", category);
  put_real(j, "ts", microseconds(begin));
  put_real(j, "dur", microseconds(ns));
  cml_json_key(j, "args");
  cml_json_open(j, '{');
}

static void end_slice(cml_json *j) {
  cml_json_close(j, '}');
  cml_json_close(j, '}');
}

static void trace_operations(cml_json *j, const cmlrun_profile *p, uint64_t start) {
  for (size_t i = 0; i < p->event_count; i++) {
    const cmlrun_event *e = &p->events[i];
    uint64_t ns = e->end_ns - e->begin_ns;
    trace_slice(j, e->type, *e->name ? e->name : e->type, 0, e->begin_ns - start, ns);
    cml_json_put_text(j, "operator", e->type);
    cml_json_put_text(j, "outputs", e->shapes);
    cml_json_put_uint(j, "flops", e->flops);
    cml_json_put_uint(j, "bytes", e->bytes);
    put_real(j, "share_of_peak", cmlrun_share(&p->peaks, e->flops, e->bytes, ns));
    end_slice(j);
  }
}

/* The operation that a piece is part of, or NULL for work between operations. */
static const cmlrun_event *event_of(const cmlrun_profile *p, const cmlrun_piece *piece) {
  const cmlrun_event *e = piece->event < p->event_count ? &p->events[piece->event] : NULL;
  return e && e->begin_ns <= piece->begin_ns ? e : NULL;
}

static uint64_t first_begin(const cmlrun_profile *p) {
  uint64_t first = UINT64_MAX;
  for (size_t i = 0; i < p->event_count; i++)
    if (p->events[i].begin_ns < first) first = p->events[i].begin_ns; /* a loop comes behind what it holds */
  return first;
}

/* Slices of one track must nest: operations and the caller's pieces of them do, a worker's pieces follow one another. */
void cmlrun_trace_json(const cmlrun_profile *p, const char *model, cml_buffer *out) {
  cml_json j = cml_json_over(out);
  uint64_t start = first_begin(p);
  size_t pieces = cmlrun_piece_count(p);
  cml_json_open(&j, '{');
  cml_json_put_text(&j, "displayTimeUnit", "ms");
  cml_json_key(&j, "traceEvents");
  cml_json_open(&j, '[');
  trace_name(&j, "process_name", 0, model);
  trace_name(&j, "thread_name", 0, "operations, on the caller's thread");
  for (size_t i = 1; i < p->threads; i++) {
    char name[32];
    snprintf(name, sizeof name, "worker %zu", i);
    trace_name(&j, "thread_name", i, name);
  }
  trace_operations(&j, p, start);
  for (size_t i = 0; i < pieces; i++) {
    const cmlrun_piece *piece = &p->pieces[i];
    const cmlrun_event *e = event_of(p, piece);
    if (!e) continue;
    trace_slice(&j, "piece", *e->name ? e->name : e->type, piece->thread, piece->begin_ns - start, piece->end_ns - piece->begin_ns);
    cml_json_put_text(&j, "operator", e->type);
    end_slice(&j);
  }
  cml_json_close(&j, ']');
  cml_json_close(&j, '}');
}

/* ---- page ---- */

static void put_events(cml_json *j, const cmlrun_profile *p) {
  uint64_t start = first_begin(p);
  cml_json_key(j, "events");
  cml_json_open(j, '[');
  for (size_t i = 0; i < p->event_count; i++) {
    const cmlrun_event *e = &p->events[i];
    cml_json_open_flat(j, '{');
    cml_json_put_text(j, "type", e->type);
    cml_json_put_text(j, "name", e->name);
    cml_json_put_text(j, "shape", e->shapes);
    put_real(j, "at", microseconds(e->begin_ns - start));
    put_real(j, "us", microseconds(e->end_ns - e->begin_ns));
    put_real(j, "gflops", per_ns(e->flops, e->end_ns - e->begin_ns));
    put_real(j, "gbytes", per_ns(e->bytes, e->end_ns - e->begin_ns));
    put_real(j, "share", cmlrun_share(&p->peaks, e->flops, e->bytes, e->end_ns - e->begin_ns));
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

/* [thread, from, microseconds, number of the event] */
static void put_pieces(cml_json *j, const cmlrun_profile *p) {
  uint64_t start = first_begin(p);
  cml_json_key(j, "pieces");
  cml_json_open(j, '[');
  for (size_t i = 0, n = cmlrun_piece_count(p); i < n; i++) {
    const cmlrun_piece *piece = &p->pieces[i];
    if (!event_of(p, piece)) continue;
    cml_json_open_flat(j, '[');
    cml_json_uint(j, piece->thread);
    cml_json_real(j, microseconds(piece->begin_ns - start));
    cml_json_real(j, microseconds(piece->end_ns - piece->begin_ns));
    cml_json_uint(j, piece->event);
    cml_json_close(j, ']');
  }
  cml_json_close(j, ']');
}

static void put_plan(cml_json *j, const cml_executable *executable) {
  size_t n = cml_executable_plan(executable, NULL, 0);
  cml_planned_value *values = calloc(n + 1, sizeof *values);
  if (values) cml_executable_plan(executable, values, n);
  cml_json_key(j, "plan");
  cml_json_open(j, '[');
  for (size_t i = 0; values && i < n; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_text(j, "name", values[i].name);
    if (values[i].scratch) cml_json_put_bool(j, "scratch", true);
    cml_json_put_uint(j, "offset", values[i].offset);
    cml_json_put_uint(j, "bytes", values[i].bytes);
    cml_json_put_uint(j, "first", values[i].first);
    cml_json_put_uint(j, "last", values[i].last);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  free(values);
}

/* bench_page.html as a string: the data comes in place of the mark. */
static const char page[] =
#include "bench_page.inc"
    ;
static const char mark[] = "@DATA@";

/* JSON within a script: no '<' may stand in it, so that no text ends the script. */
static void append_escaped(cml_buffer *out, const cml_buffer *json) {
  for (size_t i = 0, from = 0; i <= json->size; i++) {
    if (i < json->size && json->data[i] != '<') continue;
    cml_buffer_append(out, json->data + from, i - from);
    if (i < json->size) cml_buffer_text(out, "\\u003c");
    from = i + 1;
  }
}

void cmlrun_profile_html(const cmlrun_profile *p, const char *model, const cml_executable *executable, double median_ms, cml_buffer *out) {
  cml_buffer data = CML_BUFFER_INIT;
  cml_json j = cml_json_over(&data);
  uint64_t arena, packed, live, total = 0;
  cml_executable_memory(executable, &arena, &packed, &live);
  for (size_t i = 0; i < p->operator_count; i++) total += p->operators[i].ns;
  cml_json_open(&j, '{');
  cml_json_put_text(&j, "model", model);
  put_real(&j, "median_ms", median_ms);
  cml_json_put_uint(&j, "arena", arena);
  cml_json_put_uint(&j, "packed", packed);
  cml_json_put_uint(&j, "threads", p->threads);
  put_real(&j, "peak_gflops", p->peaks.gflops);
  put_real(&j, "peak_gbytes", p->peaks.gbytes);
  cml_json_key(&j, "operators");
  cml_json_open(&j, '[');
  for (size_t i = 0; i < p->operator_count; i++) {
    const cmlrun_operator *o = &p->operators[i];
    cml_json_open_flat(&j, '{');
    cml_json_put_text(&j, "type", o->type);
    cml_json_put_uint(&j, "calls", o->calls / p->runs);
    put_real(&j, "ms", (double)o->ns / 1e6 / (double)p->runs);
    put_real(&j, "part", total ? (double)o->ns / (double)total : 0);
    put_real(&j, "gflops", per_ns(o->flops, o->ns));
    put_real(&j, "gbytes", per_ns(o->bytes, o->ns));
    put_real(&j, "share", cmlrun_share(&p->peaks, o->flops, o->bytes, o->ns));
    cml_json_close(&j, '}');
  }
  cml_json_close(&j, ']');
  put_events(&j, p);
  put_pieces(&j, p);
  put_plan(&j, executable);
  cml_json_close(&j, '}');
  const char *at = strstr(page, mark);
  cml_buffer_append(out, page, (size_t)(at - page));
  append_escaped(out, &data);
  cml_buffer_text(out, at + sizeof mark - 1);
  if (data.failed) out->failed = true;
  cml_buffer_free(&data);
}
