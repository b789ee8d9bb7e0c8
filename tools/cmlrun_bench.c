/* cmlrun bench: how long a run takes, once everything is prepared, and which operators it spends its time in. */
#include "cmlrun_profile.h"
#include "cmlrun_program.h"
#include "kernels.h"
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const cli_page page = {
    "cmlrun bench MODEL [--threads N] [--seconds S] [--input FILE.npz] [--profile] [--trace FILE.json] [--html FILE] [--json]",
    "Times runs of a prepared model on inputs of its default shapes, filled with small pseudo-random numbers, or on those given.\n"
    "Of an ExecuTorch program the whole method is run, delegates and all, and copying its inputs in is part of a run.",
    "The median over all runs within --seconds is what to quote; p90 shows how noisy the machine was. Operators are timed in further\n"
    "runs, for looking takes time.",
    "cmlrun bench model.mlpackage --threads 1\n"
    "cmlrun bench model.mlpackage --profile      # what bounds each operator\n",
    1, 1};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- runs ---- */

typedef struct bench {
  cmlrun_options options;
  cmlrun_model model;
  cml_session *session;
  double seconds, *times, prepare_ms;
  size_t count, capacity;
  cmlrun_profile *profile; /* of runs of their own, so that nobody looks on while runs are timed */
  bool long_profile;       /* as long as the timing, with the machine's peaks; else a few runs */
  const char *input, *trace, *html;
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

static cml_status time_runs(bench *b, cml_error *err) {
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

static cml_status profile_runs(bench *b, cml_error *err) {
  enum { FEW = 5 };
  cml_session_observe(b->session, cmlrun_profile_observe, b->profile, false);
  if (b->trace || b->html) {
    cml_pool *pool = cml_executable_pool(b->model.executable);
    CML_TRY(cmlrun_profile_keep_pieces(b->profile, err));
    cml_pool_watch(pool, cmlrun_profile_piece, b->profile);
    b->profile->threads = cml_pool_threads(pool);
  }
  double end = now() + b->seconds;
  for (size_t i = 0; b->long_profile ? i == 0 || now() < end : i < FEW; i++) {
    cmlrun_profile_begin_run(b->profile);
    CML_TRY(cml_session_run(b->session, err));
  }
  return CML_OK;
}

static cml_status run(bench *b, const char *path, cml_error *err) {
  double start = now();
  CML_TRY(cmlrun_open(path, &b->options, b->input != NULL, &b->model, err));
  b->prepare_ms = (now() - start) * 1e3;
  CML_TRY(cml_session_create(b->model.executable, &b->session, err));
  cmlrun_stops(b->session, NULL);
  CML_TRY(b->input ? cmlrun_session_inputs(b->session, b->input, err) : fill_inputs(b, err));
  start = now();
  CML_TRY(cml_session_run(b->session, err)); /* warm up; and prepare, for the shapes of given inputs */
  double first = now() - start;
  CML_TRY(time_runs(b, err));
  if (b->input && first > b->times[0]) b->prepare_ms += (first - b->times[0]) * 1e3;
  return profile_runs(b, err);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void print_profile(const bench *b, bool json) {
  cmlrun_profile *p = b->profile;
  cmlrun_profile_sort(p);
  uint64_t total = 0;
  for (size_t i = 0; i < p->operator_count; i++) total += p->operators[i].ns;
  if (!json) printf("%-32s %6s %11s %7s %9s %8s %9s%s\n", "operator", "calls", "ms a run", "share", "MB", "GFLOP/s", "GB/s", b->long_profile ? "  of peak" : "");
  for (size_t i = 0; i < p->operator_count; i++) {
    const cmlrun_operator *o = &p->operators[i];
    double ms = (double)o->ns / 1e6 / (double)p->runs, ns = o->ns ? (double)o->ns : 1, share = cmlrun_share(&p->peaks, o->flops, o->bytes, o->ns);
    unsigned long long calls = o->calls / p->runs;
    if (json)
      printf("%s{\"operator\": \"%s\", \"calls\": %llu, \"ms\": %.6f, \"bytes\": %llu, \"flops\": %llu, \"gflops_per_s\": %.4f, "
             "\"gbytes_per_s\": %.4f",
             i ? ", " : "", o->type, calls, ms, (unsigned long long)(o->bytes / p->runs), (unsigned long long)(o->flops / p->runs),
             (double)o->flops / ns, (double)o->bytes / ns);
    else
      printf("%-32s %6llu %11.4f %6.1f%% %9.3f %8.2f %9.2f", o->type, calls, ms, total ? 100.0 * (double)o->ns / (double)total : 0,
             (double)o->bytes / 1e6 / (double)p->runs, (double)o->flops / ns, (double)o->bytes / ns);
    if (b->long_profile) printf(json ? ", \"share_of_peak\": %.5f" : " %7.1f%%", json ? share : 100 * share);
    printf(json ? "}" : "\n");
  }
}

/* "-": standard output. */
static cml_status write_out(const char *path, cml_buffer *bytes, cml_error *err) {
  CML_TRY(cml_buffer_check(bytes, err));
  FILE *f = strcmp(path, "-") ? fopen(path, "wb") : stdout;
  bool ok = f && fwrite(bytes->data, 1, bytes->size, f) == bytes->size;
  ok = f && (f == stdout ? fflush(f) : fclose(f)) == 0 && ok;
  if (ok) return CML_OK;
  return cml_error_prefix(err, cml_fail_errno(err, errno, "cannot write"), "%s", path);
}

static cml_status write_pages(const bench *b, const char *model, cml_error *err) {
  cml_buffer out = CML_BUFFER_INIT;
  cml_status status = CML_OK;
  if (b->trace) {
    cmlrun_trace_json(b->profile, model, &out);
    status = write_out(b->trace, &out, err);
    cml_buffer_free(&out);
  }
  if (!status && b->html) {
    cmlrun_profile_html(b->profile, model, b->model.executable, b->times[b->count / 2] * 1e3, &out);
    status = write_out(b->html, &out, err);
    cml_buffer_free(&out);
  }
  return status;
}

static void report(bench *b, bool json) {
  uint64_t arena, packed, live;
  qsort(b->times, b->count, sizeof *b->times, by_value);
  cml_executable_memory(b->model.executable, &arena, &packed, &live);
  double median = b->times[b->count / 2] * 1e3, p90 = b->times[b->count * 9 / 10] * 1e3;
  if (json) {
    printf("{\"threads\": %llu, \"kernels\": \"%s\", \"median_ms\": %.6f, \"p90_ms\": %.6f, \"min_ms\": %.6f, \"runs\": %zu, "
           "\"prepare_ms\": %.3f, \"arena_bytes\": %llu, \"packed_bytes\": %llu, ",
           (unsigned long long)b->options.threads, cml_kernels_get()->name, median, p90, b->times[0] * 1e3, b->count, b->prepare_ms,
           (unsigned long long)arena, (unsigned long long)packed);
    if (b->long_profile) printf("\"peak_gflops\": %.4f, \"peak_gbytes_per_s\": %.4f, ", b->profile->peaks.gflops, b->profile->peaks.gbytes);
    printf("\"operators\": [");
    print_profile(b, true);
    printf("]}\n");
    return;
  }
  char a[24], k[24];
  printf("median %.4f ms, p90 %.4f ms, fastest %.4f ms of %zu runs, threads %llu, %s kernels; prepared in %.1f ms; arena %s, packed weights %s\n",
         median, p90, b->times[0] * 1e3, b->count, (unsigned long long)b->options.threads, cml_kernels_get()->name, b->prepare_ms,
         cli_bytes(arena, a), cli_bytes(packed, k));
  if (b->long_profile) printf("measured peaks: %.1f GFLOP/s, reading %.1f GB/s\n", b->profile->peaks.gflops, b->profile->peaks.gbytes);
  print_profile(b, false);
}

int cmlrun_bench(int argc, char **argv) {
  bench b = {.seconds = 1};
  bool json = false, with_profile = false;
  const char *seconds = NULL;
  cli_option options[] = {
      CMLRUN_LIMITS(b.options),
      CMLRUN_KERNELS(b.options),
      CLI_TEXT('s', "seconds", "S", &seconds, "run for at least S seconds (default: 1)"),
      CLI_TEXT(0, "function", "NAME", &b.options.function, "function of the model"),
      CLI_TEXT(0, "method", "NAME", &b.options.method, "method of a .pte"),
      CLI_TEXT('i', "input", "FILE.npz", &b.input, "inputs, as cmlrun predict takes them (default: random ones of the default shapes)"),
      CLI_LIST(0, "data", "FILE.ptd", &b.options.data, "external tensors of a .pte; again for each further file"),
      CLI_TEXT(0, "passes", "LIST", &b.options.passes, "graph passes to run: all by default, \"\" none"),
      CLI_TEXT(0, "cache", "DIR", &b.options.cache, "keep packed weights in DIR for the next time"),
      CLI_FLAG('p', "profile", &with_profile, "look longer at the operators, and show their share of the machine's peak"),
      CLI_TEXT(0, "trace", "FILE.json", &b.trace, "write what each thread did in a run for ui.perfetto.dev or chrome://tracing"),
      CLI_TEXT(0, "html", "FILE", &b.html, "write a page with timeline, memory plan and operators"),
      CLI_FLAG('j', "json", &json, "one JSON object on standard output"),
      CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  if ((code = cmlrun_choose_kernels(&b.options)) != CLI_GO_ON) return code;
  if (seconds && (b.seconds = strtod(seconds, NULL)) <= 0) return cli_usage_error("--seconds takes a positive number");
  if (!b.options.threads) b.options.threads = cml_machine_limits().cores;
  if (cmlrun_is_program(argv[0]) && (b.trace || b.html)) return cli_usage_error("--trace and --html are for Core ML models");
  if (cmlrun_is_program(argv[0]))
    return cmlrun_bench_program(argv[0], &(cmlrun_bench_options){b.options, b.input, b.seconds, with_profile, json});
  b.long_profile = with_profile || b.trace || b.html;
  cml_error err = {0};
  b.profile = calloc(1, sizeof *b.profile);
  cml_status status = !b.profile ? cml_fail_memory(&err) : b.long_profile ? cmlrun_measure_peaks(b.options.threads, &b.profile->peaks, &err) : CML_OK;
  if (!status) status = run(&b, argv[0], &err);
  if (!status) report(&b, json);
  if (!status) status = write_pages(&b, argv[0], &err);
  cmlrun_stops(NULL, NULL);
  cml_session_destroy(b.session);
  cmlrun_close(&b.model);
  free(b.times);
  cmlrun_profile_free(b.profile);
  return status ? cmlrun_failed(argv[0], &err) : CLI_OK;
}
