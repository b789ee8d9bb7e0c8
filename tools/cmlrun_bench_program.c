/* cmlrun bench for ExecuTorch programs: how long one call of a method takes, inputs copied in, and where the time goes. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmlrun_program.h"
#include "kernels.h"

enum { MAX_OPS = 512, MAX_RUNS = 1 << 20, FEW = 5 };

typedef struct op_time {
  char name[96];
  uint64_t ns, calls;
} op_time;

typedef struct bench {
  cmlrun_program p;
  const cmlrun_bench_options *how;
  cml_tensor *inputs;
  size_t input_count;
  double *times, open_ms, load_ms;
  uint64_t base, peak; /* bytes of the process that are no file's: before the program was opened, and at most */
  size_t count, observed; /* runs: timed, and then observed */
  op_time *ops;
  size_t op_count;
} bench;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- memory ---- */

/* A line of /proc/self/status in bytes; 0 where there is none. */
static uint64_t status_bytes(const char *text, const char *name) {
  const char *line = strstr(text, name);
  return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

/* Resident memory that belongs to no file: now, or at most since forget_peak. The files' part only grows, so the most is known
 * exactly only after a run that touched no page of a file for the first time. */
static uint64_t anonymous(bool most) {
  char text[4096] = "";
  FILE *f = fopen("/proc/self/status", "re");
  if (!f) return 0;
  text[fread(text, 1, sizeof text - 1, f)] = 0;
  fclose(f);
  uint64_t all = status_bytes(text, most ? "VmHWM:" : "VmRSS:"), files = status_bytes(text, "RssFile:");
  return all > files ? all - files : 0;
}

static void forget_peak(void) {
  FILE *f = fopen("/proc/self/clear_refs", "we");
  if (!f) return;
  (void)!fputs("5", f);
  fclose(f);
}

static void note_peak(bench *b) {
  uint64_t now = anonymous(true);
  if (now > b->peak) b->peak = now;
  forget_peak();
}

/* ---- inputs ---- */

/* Small pseudo-random numbers in the declared (largest) shape; zeros for integers, which may be indices. */
static cml_status make_input(const cml_et_tensor *t, cml_tensor *out, cml_error *err) {
  cml_et_local parts;
  if (t->complex) cml_et_as_real(t, &parts), t = &parts.t;
  *out = (cml_tensor){.dtype = t->dtype, .rank = t->rank};
  memcpy(out->dims, t->sizes, t->rank * sizeof *t->sizes);
  int64_t n = cml_tensor_count(out);
  uint32_t seed = 1;
  if (!t->dtype || !(out->data = calloc((size_t)n + 1, cml_et_width(t)))) return cml_fail_memory(err);
  for (int64_t i = 0; cml_dtype_is_float(t->dtype) && i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    cml_tensor_set(out, i, (double)(seed >> 8) / 8388608.0 - 1);
  }
  return CML_OK;
}

/* What the file or the generator gave stays outside the method, so that each run copies it in as a caller would. */
static cml_status take_inputs(bench *b, cml_error *err) {
  cml_et_method *m = b->p.method;
  b->input_count = cml_et_method_input_count(m);
  if (!(b->inputs = calloc(b->input_count + 1, sizeof *b->inputs))) return cml_fail_memory(err);
  if (b->how->input) CML_TRY(cmlrun_program_inputs(&b->p, b->how->input, err));
  for (size_t i = 0; i < b->input_count; i++) {
    const cml_et_value *v = cml_et_method_input(m, i);
    cml_tensor t;
    if (v->kind != CML_PTE_TENSOR) continue;
    CML_TRY(make_input(v->tensor, &b->inputs[i], err));
    if (!b->how->input) continue;
    CML_TRY(cml_et_method_export(m, v, &t, err));
    memcpy(b->inputs[i].data, t.data, (size_t)cml_tensor_count(&t) * (cml_dtype_bits(t.dtype) / 8));
  }
  return CML_OK;
}

/* ---- runs ---- */

static void observe(void *context, const cml_et_event *e) {
  bench *b = context;
  const char *name = e->op_type ? e->op_type : e->name;
  size_t i = 0;
  if (!e->op_type && e->opcode == CML_PTE_DELEGATE_CALL) name = "(delegate)";
  while (i < b->op_count && strcmp(b->ops[i].name, name)) i++;
  if (i == b->op_count) {
    if (i == MAX_OPS) return;
    snprintf(b->ops[b->op_count++].name, sizeof b->ops->name, "%s", name);
  }
  b->ops[i].ns += e->end_ns - e->begin_ns;
  b->ops[i].calls++;
}

static cml_status run_once(bench *b, cml_error *err) {
  for (size_t i = 0; i < b->input_count; i++)
    if (b->inputs[i].dtype) CML_TRY(cml_et_method_set_tensor(b->p.method, i, &b->inputs[i], err));
  return cml_et_method_run(b->p.method, err);
}

/* Opening without delegates, then all of it. */
static cml_status load(bench *b, const char *path, cml_error *err) {
  b->base = anonymous(false);
  double start = now();
  CML_TRY(cmlrun_program_open(path, &b->how->options, true, &b->p, err));
  b->open_ms = (now() - start) * 1e3;
  cmlrun_program_close(&b->p);
  forget_peak();
  start = now();
  CML_TRY(cmlrun_program_open(path, &b->how->options, false, &b->p, err));
  b->load_ms = (now() - start) * 1e3;
  note_peak(b);
  return CML_OK;
}

static cml_status run(bench *b, const char *path, cml_error *err) {
  CML_TRY(load(b, path, err));
  CML_TRY(take_inputs(b, err));
  for (int i = 0; i < 2; i++) { /* warm up */
    CML_TRY(run_once(b, err));
    note_peak(b);
  }
  if (!(b->times = malloc(MAX_RUNS * sizeof *b->times))) return cml_fail_memory(err); /* touched as it fills */
  double end = now() + b->how->seconds, t = now();
  while (b->count == 0 || (t < end && b->count < MAX_RUNS)) {
    CML_TRY(run_once(b, err));
    double after = now();
    b->times[b->count++] = after - t;
    t = after;
  }
  if (!(b->ops = calloc(MAX_OPS, sizeof *b->ops))) return cml_fail_memory(err);
  cml_et_method_observe(b->p.method, observe, b);
  for (t = now(); b->how->profile ? !b->observed || now() - t < b->how->seconds : b->observed < FEW; b->observed++) CML_TRY(run_once(b, err));
  return CML_OK;
}

/* ---- report ---- */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static int by_time(const void *a, const void *b) {
  const op_time *x = a, *y = b;
  return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

static void print_ops(bench *b, bool json) {
  uint64_t total = 0;
  qsort(b->ops, b->op_count, sizeof *b->ops, by_time);
  for (size_t i = 0; i < b->op_count; i++)
    if (strcmp(b->ops[i].name, "(delegate)")) total += b->ops[i].ns;
  if (!json) printf("%-52s %8s %12s %7s\n", "operator", "calls", "ms a run", "share");
  for (size_t i = 0; i < b->op_count; i++) {
    const op_time *o = &b->ops[i];
    double ms = (double)o->ns / 1e6 / (double)b->observed;
    if (json)
      printf("%s{\"operator\": \"%s\", \"calls\": %llu, \"ms\": %.6f}", i ? ", " : "", o->name, (unsigned long long)(o->calls / b->observed), ms);
    else
      printf("%-52s %8llu %12.4f %6.1f%%\n", o->name, (unsigned long long)(o->calls / b->observed), ms,
             total ? 100.0 * (double)o->ns / (double)total : 0);
  }
}

static void report(bench *b) {
  uint64_t planned, other;
  char p[24], o[24], most[24];
  qsort(b->times, b->count, sizeof *b->times, by_value);
  cml_et_method_memory(b->p.method, &planned, &other);
  double median = b->times[b->count / 2] * 1e3, p90 = b->times[b->count * 9 / 10] * 1e3, least = b->times[0] * 1e3;
  if (b->how->json) {
    printf("{\"threads\": %llu, \"kernels\": \"%s\", \"median_ms\": %.6f, \"p90_ms\": %.6f, \"min_ms\": %.6f, \"runs\": %zu, \"open_ms\": %.3f, \"prepare_ms\": %.3f, "
           "\"arena_bytes\": %llu, \"other_bytes\": %llu, \"base_bytes\": %llu, \"peak_bytes\": %llu, \"operators\": [", (unsigned long long)b->how->options.threads, cml_kernels_get()->name, median, p90, least,
           b->count, b->open_ms, b->load_ms, (unsigned long long)planned, (unsigned long long)other, (unsigned long long)b->base,
           (unsigned long long)b->peak);
    print_ops(b, true);
    cml_buffer ignored = CML_BUFFER_INIT;
    cmlrun_program_ignored_json(b->p.method, &ignored);
    printf("], \"ignored_specs\": %.*s}\n", (int)ignored.size, (const char *)ignored.data);
    cml_buffer_free(&ignored);
    return;
  }
  printf("median %.4f ms, p90 %.4f ms, fastest %.4f ms of %zu runs, threads %llu, %s kernels; loaded in %.1f ms; memory plan %s, other %s, "
         "at most %s of memory that is no file's\n", median, p90, least, b->count, (unsigned long long)b->how->options.threads, cml_kernels_get()->name, b->load_ms, cli_bytes(planned, p), cli_bytes(other, o), cli_bytes(b->peak, most));
  print_ops(b, false);
}

int cmlrun_bench_program(const char *path, const cmlrun_bench_options *how) {
  bench b = {.how = how};
  cml_error err = {0};
  cml_status status = run(&b, path, &err);
  if (!status) report(&b);
  for (size_t i = 0; b.inputs && i < b.input_count; i++) free(b.inputs[i].data);
  free(b.inputs);
  free(b.times);
  free(b.ops);
  cmlrun_program_close(&b.p);
  return status ? cmlrun_failed(path, &err) : CLI_OK;
}
