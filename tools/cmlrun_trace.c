/* cmlrun trace: what each operation gives, in a line, to find the first NaN. cmlrun compare: two models side by side, to find
 * where they part. */
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

static void print_source(const cmlrun_seen *s) {
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
  print_source(s);
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
                        CLI_TEXT(0, "data", "FILE.ptd", &options.data, "external tensors of a .pte"),
                        CLI_TEXT(0, "passes", "LIST", &options.passes, "graph passes to run: all by default, \"\" none"),
                        CMLRUN_LIMITS(options),
                        CLI_END};
  int code = cli_parse(&trace_page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_error err = {0};
  cml_status status = cmlrun_watch(argv[0], &options, &inputs, look_trace, &t, &err);
  free(inputs.items);
  if (status) return cmlrun_failed(argv[0], &err);
  return t.found ? CLI_FAILED : CLI_OK;
}

/* ---- compare ---- */

static const cli_page compare_page = {
    "cmlrun compare A B --input in.npz [--snr DB] [--all]",
    "Runs two models on the same inputs and names the first operation where B drifts away from A.",
    "Operations are matched by name (without the _cast_fp16 that conversion to float16 adds), instructions by operator and\n"
    "order; a program exported with stack traces also says where in the source. An operation has drifted when its\n"
    "outputs' signal-to-noise ratio against A is below --snr (default: 30 dB), or its shape is another. Exit code 1\n"
    "when one has. Between fp32 and fp16, 40 to 70 dB are common.",
    "cmlrun compare fp32.mlpackage fp16.mlpackage --input in.npz\n"
    "cmlrun compare model.pte quantized.pte --input in.npz --snr 20 --all\n",
    2, 2};

typedef struct kept {
  char *key;
  cml_tensor value; /* float64 or as it was; owned */
} kept;

typedef struct comparison {
  kept *items;
  size_t count, capacity, matched, next;
  double limit;
  bool all, drifted, failed;
} comparison;

/* "conv relu_1 #0", the same in both models. */
static void key_of(const cmlrun_seen *s, char *key, size_t room) {
  size_t n = strlen(s->name);
  if (n > 10 && !strcmp(s->name + n - 10, "_cast_fp16")) n -= 10;
  snprintf(key, room, "%s %.*s #%zu", *s->name ? "" : s->type, (int)n, s->name, s->output);
}

static void keep(void *context, const cmlrun_seen *s) {
  comparison *c = context;
  char key[512];
  uint64_t bytes;
  if (s->value->dtype == CML_STRING || !cml_tensor_bytes(s->value, &bytes)) return;
  if (c->count == c->capacity) {
    size_t capacity = c->capacity ? c->capacity * 2 : 256;
    kept *items = realloc(c->items, capacity * sizeof *items);
    if (!items) return (void)(c->failed = true);
    c->items = items;
    c->capacity = capacity;
  }
  key_of(s, key, sizeof key);
  kept *k = &c->items[c->count];
  *k = (kept){strdup(key), *s->value};
  k->value.data = malloc(bytes ? bytes : 1);
  if (!k->key || !k->value.data) {
    free(k->key);
    free(k->value.data);
    c->failed = true;
    return;
  }
  memcpy(k->value.data, s->value->data, bytes);
  c->count++;
}

/* The next of that key behind the last match, else the first. */
static kept *find(comparison *c, const char *key) {
  for (size_t n = 0; n < c->count; n++) {
    size_t i = (c->next + n) % c->count;
    if (strcmp(c->items[i].key, key)) continue;
    c->next = i + 1;
    return &c->items[i];
  }
  return NULL;
}

static void look_compare(void *context, const cmlrun_seen *s) {
  comparison *c = context;
  char key[512];
  key_of(s, key, sizeof key);
  kept *k = s->value->dtype == CML_STRING ? NULL : find(c, key);
  if (!k) return;
  c->matched++;
  bool same = cml_tensor_same_shape(s->value, &k->value);
  cmlrun_difference d = {.snr = -INFINITY};
  if (same) d = cmlrun_difference_of(s->value, &k->value, 0, 0);
  bool drifts = !(d.snr >= c->limit);
  if (!c->all && (!drifts || c->drifted)) return;
  printf("%s%-5s ", drifts && !c->drifted ? "first drift: " : "", s->where);
  cli_print_text(stdout, s->type);
  if (*s->name) fputs(" ", stdout), cli_print_text(stdout, s->name);
  print_source(s);
  if (!same) printf(": the shapes differ\n");
  else printf(": SNR %.1f dB, largest difference %.6g\n", d.snr, d.largest);
  c->drifted |= drifts;
}

int cmlrun_compare(int argc, char **argv) {
  comparison c = {.limit = 30};
  cmlrun_options options = {.threads = 0};
  cli_list inputs = {NULL, 0};
  const char *limit = NULL;
  cli_option table[] = {CLI_LIST('i', "input", "FILE.npz", &inputs, "arrays by input name; again for each further step"),
                        CLI_TEXT(0, "snr", "DB", &limit, "what counts as drift (default: below 30 dB)"),
                        CLI_FLAG('a', "all", &c.all, "print every operation that both models have"),
                        CLI_TEXT(0, "method", "NAME", &options.method, "method of a .pte"),
                        CLI_TEXT(0, "data", "FILE.ptd", &options.data, "external tensors of a .pte"),
                        CMLRUN_LIMITS(options),
                        CLI_END};
  int code = cli_parse(&compare_page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  char *end = NULL;
  if (limit && (c.limit = strtod(limit, &end), end == limit || *end)) return cli_usage_error("--snr takes a number");
  options.passes = ""; /* as the files have their operations */
  cml_error err = {0};
  const char *at = argv[0];
  cml_status status = cmlrun_watch(argv[0], &options, &inputs, keep, &c, &err);
  if (!status && c.failed) status = cml_fail_memory(&err);
  if (!status) status = cmlrun_watch(at = argv[1], &options, &inputs, look_compare, &c, &err);
  for (size_t i = 0; i < c.count; i++) {
    free(c.items[i].key);
    free(c.items[i].value.data);
  }
  free(c.items);
  free(inputs.items);
  if (status) return cmlrun_failed(at, &err);
  if (!c.matched) return cli_fail("the models have no operation of one name");
  if (!c.drifted) printf("no drift in %zu outputs\n", c.matched);
  return c.drifted ? CLI_FAILED : CLI_OK;
}
