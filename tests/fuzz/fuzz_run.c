/* ML Programs, run: a Model protobuf whose weights are inline. Whatever loads runs on small inputs made from its description,
 * three times: as it does by default, with no graph passes, and on two threads. Nothing may be read or written out of bounds;
 * errors are fine. Memory is limited, and a timer stops runs that go on for long.
 *
 * The three results should agree, with two threads to the bit. They need not where a program stands on a discontinuity or overflows, which mutated ones
 * like to do, so a difference is no crash: with CML_FUZZ_COMPARE naming a folder such programs are written there. */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "executable.h"
#include "fuzz_run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_MEMORY = 16 << 20, MAX_OUTPUTS = 16, MAX_ELEMENTS = 1 << 16, RUN_NS = 300000000, RUNS = 2 };

/* What a program gave: its last status and its outputs of all runs. */
typedef struct outcome {
  cml_status status;
  bool loaded;
  cml_error error;
  cml_tensor outputs[MAX_OUTPUTS * RUNS];
  size_t count;
} outcome;

ran programs_that_ran[KEPT_PROGRAMS];
uint32_t programs_that_ran_count;

static void remember(const uint8_t *data, size_t size) {
  ran *r = &programs_that_ran[programs_that_ran_count % KEPT_PROGRAMS];
  uint8_t *copy = realloc(r->data, size);
  if (!copy) return;
  memcpy(copy, data, size);
  *r = (ran){copy, size};
  programs_that_ran_count++;
}

/* ---- a deadline ---- */

static cml_session *volatile running;

static void stop(int number) {
  (void)number;
  if (running) cml_session_cancel(running);
}

static void set_timer(long ns) {
  static timer_t timer;
  static bool made;
  if (!made) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    const struct sigaction action = {.sa_handler = stop, .sa_flags = SA_RESTART};
    if (sigaction(SIGUSR2, &action, NULL) || timer_create(CLOCK_MONOTONIC, &event, &timer)) abort();
    made = true;
  }
  const struct itimerspec when = {.it_value = {0, ns}};
  if (timer_settime(timer, 0, &when, NULL)) abort();
}

/* ---- inputs ---- */

/* The default shape at first, then another that is allowed. Small numbers, some of them whole, so that they make indices. */
static cml_status set_input(cml_session *s, const cml_feature *f, int run, cml_error *err) {
  dice d = {(uint64_t)run * 77 + 5};
  cml_tensor t = {.dtype = CML_F32, .rank = (int32_t)f->rank};
  int64_t count = 1, channels = f->color == CML_COLOR_RGB || f->color == CML_COLOR_BGR ? 3 : 1;
  if (f->rank > CML_MAX_RANK - 1 || f->dtype == CML_STRING) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "no such inputs");
  const int64_t *row = f->shape;
  if (run && f->flexibility == CML_FLEX_ENUMERATED && f->shape_count) row = f->shapes + roll(&d, (uint32_t)f->shape_count) * f->rank;
  for (size_t k = 0; k < f->rank; k++) {
    t.dims[k] = row[k];
    if (run && f->flexibility == CML_FLEX_RANGE) t.dims[k] = f->ranges[k].lower + roll(&d, 3);
  }
  if (f->kind == CML_FEATURE_IMAGE && channels == 3) t.dims[t.rank++] = 3;
  for (int32_t k = 0; k < t.rank; k++) {
    if (t.dims[k] < 0 || t.dims[k] > MAX_ELEMENTS || (count *= t.dims[k]) > MAX_ELEMENTS)
      return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "too large");
  }
  float *data = malloc(((size_t)count + 1) * sizeof *data);
  if (!data) return cml_fail_memory(err);
  for (int64_t k = 0; k < count; k++) data[k] = roll(&d, 2) ? (float)roll(&d, 5) - 1 : (float)roll(&d, 2000) / 500 - 2;
  t.data = data;
  cml_status status = cml_session_set_input(s, f->name, &t, err);
  free(data);
  return status;
}

/* ---- runs ---- */

static void keep_output(outcome *o, const cml_tensor *t) {
  volatile uint8_t sum = 0;
  uint64_t bytes;
  if (o->count == sizeof o->outputs / sizeof *o->outputs || t->dtype == CML_STRING || !cml_tensor_bytes(t, &bytes)) return;
  void *copy = malloc(bytes + 1);
  if (!copy) return;
  for (uint64_t k = 0; k < bytes; k++) sum = (uint8_t)(sum + ((const uint8_t *)t->data)[k]);
  if (bytes) memcpy(copy, t->data, bytes);
  o->outputs[o->count] = *t;
  o->outputs[o->count++].data = copy;
}

static cml_status run_session(cml_session *s, const cml_executable *e, outcome *o) {
  const cml_features *inputs = cml_executable_inputs(e), *outputs = cml_executable_outputs(e);
  for (int run = 0; run < RUNS; run++) {
    for (size_t i = 0; i < inputs->count; i++) CML_TRY(set_input(s, &inputs->items[i], run, &o->error));
    set_timer(RUN_NS);
    cml_status status = cml_session_run(s, &o->error);
    set_timer(0);
    CML_TRY(status);
    for (size_t i = 0; i < outputs->count && i < MAX_OUTPUTS; i++) keep_output(o, cml_session_output(s, i));
  }
  return CML_OK;
}

static void run_program(cml_model *m, const char *passes, size_t threads, outcome *o) {
  const cml_prepare_options options = {.passes = passes, .threads = threads, .max_memory = MAX_MEMORY};
  cml_executable *e = NULL;
  cml_session *s = NULL;
  *o = (outcome){.status = CML_OK};
  o->status = cml_executable_prepare(m, &options, &e, &o->error);
  if (!o->status) o->status = cml_session_create(e, &s, &o->error);
  o->loaded = s != NULL;
  running = s;
  if (!o->status) o->status = run_session(s, e, o);
  running = NULL;
  cml_session_destroy(s);
  cml_executable_unref(e);
}

/* ---- the oracle ---- */

static bool halves(const cml_mil_block *b, int depth) {
  for (size_t i = 0; i < b->op_count; i++) {
    for (size_t k = 0; k < b->ops[i]->output_count; k++)
      if (b->ops[i]->outputs[k].type && b->ops[i]->outputs[k].type->dtype == CML_F16) return true;
    for (size_t k = 0; depth < 8 && k < b->ops[i]->block_count; k++)
      if (halves(b->ops[i]->blocks[k], depth + 1)) return true;
  }
  return false;
}

static bool agree(const cml_tensor *a, const cml_tensor *b, double tolerance, char *why, size_t room) {
  double scale = 1e-3;
  if (a->dtype != b->dtype || !cml_tensor_same_shape(a, b)) return snprintf(why, room, "shapes or types"), false;
  for (int64_t i = 0; i < cml_tensor_count(a); i++) {
    double y = fabs(cml_tensor_get(b, i));
    if (isfinite(y) && y > scale) scale = y;
  }
  for (int64_t i = 0; i < cml_tensor_count(a); i++) {
    double x = cml_tensor_get(a, i), y = cml_tensor_get(b, i);
    if (x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= tolerance * scale) continue;
    return snprintf(why, room, "element %lld is %g and %g", (long long)i, x, y), false;
  }
  return true;
}

/* What passes leave out may fail without them. */
static bool outcomes_agree(const outcome *a, const outcome *b, bool passes, double tolerance, char *why, size_t room) {
  static const uint32_t excused = 1u << CML_LIMIT | 1u << CML_CANCELLED | 1u << CML_NO_MEMORY;
  if (excused >> a->status & 1 || excused >> b->status & 1) return true;
  if (a->status != b->status && !(passes && b->status)) return snprintf(why, room, "one fails: %.200s%.200s", a->error.text, b->error.text), false;
  for (size_t i = 0; i < a->count && i < b->count; i++)
    if (!agree(&a->outputs[i], &b->outputs[i], tolerance, why, room)) return false;
  return true;
}

static void keep_difference(const uint8_t *data, size_t size, const char *which, const char *why) {
  char path[4096];
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < size; i++) hash = (hash ^ data[i]) * 1099511628211u;
  fprintf(stderr, "DIFFERENCE %016llx (%s): %s\n", (unsigned long long)hash, which, why);
  snprintf(path, sizeof path, "%s/%s-%016llx", getenv("CML_FUZZ_COMPARE"), which, (unsigned long long)hash);
  FILE *f = fopen(path, "wb");
  if (f) {
    fwrite(data, 1, size, f);
    fclose(f);
  }
}

static void outcome_free(outcome *o) {
  for (size_t i = 0; i < o->count; i++) free(o->outputs[i].data);
}

/* With CML_FUZZ_COUNTS naming a file: how many inputs were tried, held a program, loaded and ran, as 64-bit numbers there. */
static void tally(int which) {
  static atomic_ullong *counts;
  static bool asked;
  const char *path = asked ? NULL : getenv("CML_FUZZ_COUNTS");
  asked = true;
  if (path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    void *map = fd < 0 || ftruncate(fd, 4096) ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) counts = map;
    if (fd >= 0) close(fd);
  }
  if (counts) atomic_fetch_add(&counts[which], 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static outcome usual, plain, threaded;
  cml_model m = {0};
  cml_error error;
  char why[600] = "";
  tally(0);
  if (cml_model_parse(cml_span_of(data, size), NULL, &m, &error) || !m.program) return cml_arena_free(&m.arena), 0;
  tally(1);
  run_program(&m, NULL, 1, &usual);
  if (usual.loaded) tally(2);
  if (!usual.status) tally(3);
  run_program(&m, "", 1, &plain);
  run_program(&m, NULL, 2, &threaded);
  if (getenv("CML_FUZZ_COMPARE")) {
    const cml_mil_block *body = m.program->function_count ? cml_mil_body(m.program->functions[0]) : NULL;
    double tolerance = body && halves(body, 0) ? 3e-2 : 1e-3;
    if (!outcomes_agree(&usual, &threaded, false, 0, why, sizeof why)) keep_difference(data, size, "threads", why);
    else if (!outcomes_agree(&usual, &plain, true, tolerance, why, sizeof why)) keep_difference(data, size, "passes", why);
  }
  if (!usual.status) remember(data, size);
  outcome_free(&usual);
  outcome_free(&plain);
  outcome_free(&threaded);
  cml_arena_free(&m.arena);
  return 0;
}
