/* cmlrun bench: how long a run takes, once everything is prepared, and which operators it spends its time in. */
#include "cmlrun_program.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const cli_page page = {
    "cmlrun bench MODEL [--threads N] [--seconds S] [--profile] [--json]",
    "Times runs of a prepared model on inputs of its default shapes, filled with small pseudo-random numbers.\n"
    "Of an ExecuTorch program the whole method is run, delegates and all, and copying its inputs in is part of a run.",
    "The median over all runs within --seconds is what to quote; p90 shows how noisy the machine was.",
    "cmlrun bench model.mlpackage --threads 1\n"
    "cmlrun bench model.mlpackage --profile      # time by operator\n",
    1, 1};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- profile ---- */

typedef struct op_time {
  char name[64];
  uint64_t ns, bytes, calls;
} op_time;

typedef struct profile {
  op_time ops[512];
  size_t count;
} profile;

static void observe(void *context, const char *type, const char *name, uint64_t begin, uint64_t end, const cml_tensor *const *inputs,
                    size_t input_count, const cml_tensor *const *outputs, size_t output_count) {
  profile *p = context;
  size_t i = 0;
  (void)name;
  while (i < p->count && strcmp(p->ops[i].name, type)) i++;
  if (i == p->count) {
    if (p->count == sizeof p->ops / sizeof *p->ops) return;
    snprintf(p->ops[p->count++].name, sizeof p->ops->name, "%s", type);
  }
  p->ops[i].ns += end - begin;
  p->ops[i].calls++;
  uint64_t bytes;
  for (size_t k = 0; k < input_count; k++)
    if (cml_tensor_bytes(inputs[k], &bytes)) p->ops[i].bytes += bytes;
  for (size_t k = 0; k < output_count; k++)
    if (cml_tensor_bytes(outputs[k], &bytes)) p->ops[i].bytes += bytes;
}

static int by_time(const void *a, const void *b) {
  const op_time *x = a, *y = b;
  return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

/* ---- runs ---- */

typedef struct bench {
  cmlrun_options options;
  cmlrun_model model;
  cml_session *session;
  double seconds, *times, prepare_ms;
  size_t count, capacity;
  profile *profile;
} bench;

static cml_status fill_inputs(bench *b, cml_error *err) {
  const cml_features *inputs = cml_executable_inputs(b->model.executable);
  for (size_t i = 0; i < inputs->count; i++) {
    const cml_feature *f = &inputs->items[i];
    if (f->dtype == CML_STRING) continue;
    bool image = f->kind == CML_FEATURE_IMAGE;
    int64_t channels = f->color == CML_COLOR_RGB || f->color == CML_COLOR_BGR ? 3 : 1;
    cml_tensor t = {.dtype = CML_F32, .rank = (int32_t)f->rank};
    for (size_t k = 0; k < f->rank; k++) t.dims[k] = f->shape[k];
    if (image && channels == 3) t.dims[t.rank++] = 3;
    int64_t n = cml_tensor_count(&t);
    float *data = malloc((size_t)(n > 0 ? n : 1) * sizeof *data);
    if (!data) return cml_fail_memory(err);
    uint32_t seed = 1;
    for (int64_t k = 0; k < n; k++) {
      seed = seed * 1664525u + 1013904223u;
      data[k] = image ? (float)(seed >> 24) : f->dtype == CML_I32 ? 0 : (float)(seed >> 8) / 8388608.0f - 1;
    }
    t.data = data;
    cml_status status = cml_session_set_input(b->session, f->name, &t, err);
    free(data);
    CML_TRY(status);
  }
  return CML_OK;
}

static cml_status run(bench *b, const char *path, cml_error *err) {
  double start = now();
  CML_TRY(cmlrun_open(path, &b->options, &b->model, err));
  b->prepare_ms = (now() - start) * 1e3;
  CML_TRY(cml_session_create(b->model.executable, &b->session, err));
  CML_TRY(fill_inputs(b, err));
  CML_TRY(cml_session_run(b->session, err)); /* warm up */
  if (b->profile) cml_session_observe(b->session, observe, b->profile);
  double end = now() + b->seconds;
  do {
    if (b->count == b->capacity) {
      size_t capacity = b->capacity ? b->capacity * 2 : 1024;
      double *times = realloc(b->times, capacity * sizeof *times);
      if (!times) return cml_fail_memory(err);
      b->times = times;
      b->capacity = capacity;
    }
    double t = now();
    CML_TRY(cml_session_run(b->session, err));
    b->times[b->count++] = now() - t;
  } while (now() < end);
  return CML_OK;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void print_profile(const bench *b, bool json) {
  profile *p = b->profile;
  qsort(p->ops, p->count, sizeof *p->ops, by_time);
  uint64_t total = 0;
  for (size_t i = 0; i < p->count; i++) total += p->ops[i].ns;
  if (!json) printf("%-36s %8s %12s %7s %9s\n", "operator", "calls", "ms a run", "share", "GB/s");
  for (size_t i = 0; i < p->count; i++) {
    const op_time *o = &p->ops[i];
    double ms = (double)o->ns / 1e6 / (double)b->count, rate = o->ns ? (double)o->bytes / (double)o->ns : 0;
    if (json)
      printf("%s{\"operator\": \"%s\", \"calls\": %llu, \"ms\": %.6f, \"bytes\": %llu}", i ? ", " : "", o->name,
             (unsigned long long)(o->calls / b->count), ms, (unsigned long long)(o->bytes / b->count));
    else
      printf("%-36s %8llu %12.4f %6.1f%% %9.2f\n", o->name, (unsigned long long)(o->calls / b->count), ms,
             total ? 100.0 * (double)o->ns / (double)total : 0, rate);
  }
}

static void report(bench *b, bool json) {
  uint64_t arena, packed, live;
  qsort(b->times, b->count, sizeof *b->times, by_value);
  cml_executable_memory(b->model.executable, &arena, &packed, &live);
  double median = b->times[b->count / 2] * 1e3, p90 = b->times[b->count * 9 / 10] * 1e3;
  if (json) {
    printf("{\"median_ms\": %.6f, \"p90_ms\": %.6f, \"min_ms\": %.6f, \"runs\": %zu, \"prepare_ms\": %.3f, \"arena_bytes\": %llu, "
           "\"packed_bytes\": %llu, \"operators\": [",
           median, p90, b->times[0] * 1e3, b->count, b->prepare_ms, (unsigned long long)arena, (unsigned long long)packed);
    if (b->profile) print_profile(b, true);
    printf("]}\n");
    return;
  }
  char a[24], k[24];
  printf("median %.4f ms, p90 %.4f ms, fastest %.4f ms of %zu runs; prepared in %.1f ms; arena %s, packed weights %s\n", median, p90,
         b->times[0] * 1e3, b->count, b->prepare_ms, cli_bytes(arena, a), cli_bytes(packed, k));
  if (b->profile) print_profile(b, false);
}

int cmlrun_bench(int argc, char **argv) {
  bench b = {.seconds = 1};
  bool json = false, with_profile = false;
  const char *seconds = NULL, *input = NULL;
  cli_option options[] = {
      CLI_NUMBER('t', "threads", "N", &b.options.threads, "threads (default: one for each core)"),
      CLI_TEXT('s', "seconds", "S", &seconds, "run for at least S seconds (default: 1)"),
      CLI_TEXT(0, "function", "NAME", &b.options.function, "function of the model"),
      CLI_TEXT(0, "method", "NAME", &b.options.method, "method of a .pte"),
      CLI_TEXT('i', "input", "FILE.npz", &input, "inputs of a .pte, as cmlrun predict takes them"),
      CLI_TEXT(0, "data", "FILE.ptd", &b.options.data, "external tensors of a .pte"),
      CLI_TEXT(0, "passes", "LIST", &b.options.passes, "graph passes to run: all by default, \"\" none"),
      CLI_TEXT(0, "cache", "DIR", &b.options.cache, "keep packed weights in DIR for the next time"),
      CLI_FLAG('p', "profile", &with_profile, "time by operator"),
      CLI_FLAG('j', "json", &json, "one JSON object on standard output"),
      CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  if (seconds && (b.seconds = strtod(seconds, NULL)) <= 0) return cli_usage_error("--seconds takes a positive number");
  if (cmlrun_is_program(argv[0]))
    return cmlrun_bench_program(argv[0], &(cmlrun_bench_options){b.options, input, b.seconds, with_profile, json});
  if (input) return cli_usage_error("--input is for ExecuTorch programs");
  if (with_profile || json) b.profile = calloc(1, sizeof *b.profile);
  if (!with_profile) free(b.profile), b.profile = NULL;
  cml_error err = {0};
  cml_status status = run(&b, argv[0], &err);
  if (!status) report(&b, json);
  cml_session_destroy(b.session);
  cmlrun_close(&b.model);
  free(b.times);
  free(b.profile);
  return status ? cli_error(argv[0], &err) : CLI_OK;
}
