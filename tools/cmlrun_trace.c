/* cmlrun trace: what each operation gives, in a line, to find the first NaN. */
#include "cmlrun_watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- trace ---- */

static const cli_page trace_page = {
    "cmlrun trace MODEL --input in.npz [--input next.npz ...] [--nan]",
    "Prints each operation that runs with its outputs: shape, least, most, mean, standard deviation, NaNs and infinities.",
    "Instructions of an ExecuTorch program have numbers; operations within delegates stand behind them with a stroke.\n"
    "With --nan only the first output with a NaN or an infinity is printed, and the exit code is 1 when there is one.",
    "cmlrun trace model.pte --input in.npz\ncmlrun trace model.mlpackage --input in.npz --nan\n", 1, 1};

typedef struct trace {
  bool only_nan, found;
} trace;

void cmlrun_print_source(const cmlrun_seen *s) {
  if (s->handles) printf(" (debug handle%s %s)", strchr(s->handles, ',') ? "s" : "", s->handles);
  if (!s->source) return;
  fputs(" (", stdout);
  cli_print_text(stdout, s->source);
  fputs(")", stdout);
}

static void print_seen(const cmlrun_seen *s) {
  cmlrun_statistics n = cmlrun_statistics_of(s->value);
  char shape[200];
  size_t at = (size_t)snprintf(shape, sizeof shape, "%s [", cml_dtype_name(s->value->dtype));
  for (int32_t k = 0; k < s->value->rank && at < sizeof shape; k++)
    at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%lld", k ? ", " : "", (long long)s->value->dims[k]);
  printf("%-5s ", s->where);
  cli_print_text(stdout, s->type);
  if (*s->name) fputs(" ", stdout), cli_print_text(stdout, s->name);
  if (s->output) printf(" #%zu", s->output);
  cmlrun_print_source(s);
  printf("  %s]  %.6g .. %.6g, mean %.6g, sd %.6g", shape, n.least, n.most, n.mean, n.deviation);
  if (n.nan) printf(", %lld NaN", (long long)n.nan);
  if (n.infinite) printf(", %lld inf", (long long)n.infinite);
  printf("\n");
}

static void look_trace(void *context, const cmlrun_seen *s) {
  trace *t = context;
  if (t->only_nan) {
    if (t->found) return;
    cmlrun_statistics n = cmlrun_statistics_of(s->value);
    if (!n.nan && !n.infinite) return;
    t->found = true;
  }
  print_seen(s);
}

int cmlrun_trace(int argc, char **argv) {
  trace t = {false, false};
  cmlrun_options options = {.threads = 0};
  cli_list inputs = {NULL, 0};
  cli_option table[] = {CLI_LIST('i', "input", "FILE.npz", &inputs, "arrays by input name; again for each further step"),
                        CLI_FLAG(0, "nan", &t.only_nan, "print only the first output that holds a NaN or an infinity"),
                        CLI_TEXT(0, "method", "NAME", &options.method, "method of a .pte"),
                        CLI_TEXT(0, "function", "NAME", &options.function, "function of a Core ML model"),
                        CLI_LIST(0, "data", "FILE.ptd", &options.data, "external tensors of a .pte; again for each further file"),
                        CLI_TEXT(0, "passes", "LIST", &options.passes, "graph passes to run: all by default, \"\" none"),
                        CMLRUN_LIMITS(options),
                        CLI_END};
  int code = cli_parse(&trace_page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_error err = {0};
  cml_status status = cmlrun_watch(argv[0], &options, &inputs, look_trace, &t, &err);
  if (status) return cmlrun_failed(argv[0], &err);
  return t.found ? CLI_FAILED : CLI_OK;
}
