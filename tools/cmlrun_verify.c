/* cmlrun verify: a bundled program against the outputs that it brings along. */
#include "cmlrun_watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bpte.h"

static const cli_page page = {
    "cmlrun verify MODEL.bpte [--rtol R] [--atol A] [--json]",
    "Runs the test sets of a bundled program and compares each output with the expected one.",
    "A number passes when |got - expected| <= atol + rtol |expected|; the defaults, 0.01 and 0.01, suit float16 delegates.\n"
    "Exit code 1 when an output fails.",
    "cmlrun verify model.bpte\ncmlrun verify model.bpte --rtol 1e-5 --atol 1e-6 --json\n", 1, 1};

typedef struct verify {
  cmlrun_program p;
  double rtol, atol;
  bool json;
  const char *path;
  cml_buffer ignored; /* compile specs, as JSON, of the first method */
  cml_buffer out;
  size_t results, failures;
} verify;

/* Test values lie in the order of their dim order, aligned to nothing; the machine takes them in the order of their dimensions. */
static cml_status plain_tensor(const cml_pte_tensor *t, cml_tensor *out, void **memory, cml_error *err) {
  cml_et_local given, parts, plain;
  const cml_et_tensor *from = &given.t;
  int64_t sizes[CML_PTE_MAX_RANK];
  bool complex = t->scalar >= CML_PTE_COMPLEX_HALF && t->scalar <= CML_PTE_COMPLEX_DOUBLE;
  *memory = NULL;
  if ((!t->dtype && !complex) || (complex && t->rank == CML_PTE_MAX_RANK))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "a test value is of type %s", cml_pte_scalar_name(t->scalar));
  size_t room = ((size_t)t->bytes + 64) & ~(size_t)63; /* twice: as it lies in the file, and in order */
  if (!(*memory = calloc(2, room))) return cml_fail_memory(err);
  if (t->bytes) memcpy(*memory, t->data.data, t->bytes);
  for (int k = 0; k < t->rank; k++) sizes[k] = t->sizes[k];
  cml_et_make(&given, t->dtype, t->rank, sizes, *memory);
  for (int k = 0; k < t->rank; k++) given.strides[k] = t->strides[k];
  if (complex) {
    given.t.complex = (uint8_t)(cml_pte_scalar_bytes(t->scalar) / 2);
    cml_et_as_real(&given.t, &parts);
    from = &parts.t;
  }
  cml_et_make(&plain, from->dtype, from->rank, from->sizes, (char *)*memory + room);
  cml_et_copy(&plain.t, from);
  *out = (cml_tensor){.dtype = from->dtype, .rank = from->rank, .data = plain.t.data};
  memcpy(out->dims, from->sizes, from->rank * sizeof *out->dims);
  return CML_OK;
}

static cml_status set_input(verify *v, size_t i, const cml_pte_value *value, cml_error *err) {
  cml_tensor t;
  void *memory = NULL;
  if (value->kind != CML_PTE_TENSOR) {
    cml_et_value number = {.kind = value->kind};
    if (value->kind == CML_PTE_INTEGER) number.integer = value->integer;
    else if (value->kind == CML_PTE_BOOLEAN) number.boolean = value->boolean;
    else number.real = value->real;
    return cml_et_method_set_number(v->p.method, i, cml_et_number_of(&number), err);
  }
  cml_status status = plain_tensor(value->tensor, &t, &memory, err);
  if (!status) status = cml_et_method_set_tensor(v->p.method, i, &t, err);
  free(memory);
  return status;
}

static void report(verify *v, const char *method, size_t set, size_t output, bool ok, const cmlrun_difference *d) {
  v->failures += !ok;
  if (v->json) {
    cml_buffer_printf(&v->out, "%s{\"method\": ", v->results ? ", " : "");
    cml_buffer_json_string(&v->out, method, strlen(method));
    cml_buffer_printf(&v->out, ", \"set\": %zu, \"output\": %zu, \"ok\": %s, \"max_error\": ", set, output, ok ? "true" : "false");
    if (isfinite(d->largest)) cml_buffer_printf(&v->out, "%.9g, \"snr_db\": ", d->largest);
    else cml_buffer_text(&v->out, "null, \"snr_db\": ");
    if (isfinite(d->snr)) cml_buffer_printf(&v->out, "%.4f", d->snr);
    else cml_buffer_text(&v->out, "null");
    cml_buffer_printf(&v->out, ", \"wrong\": %lld, \"count\": %lld}", (long long)d->wrong, (long long)d->count);
  } else {
    cml_buffer_printf(&v->out, "%s  %s set %zu output %zu: largest error %.6g, SNR %.1f dB", ok ? "ok  " : "FAIL", method, set, output,
                      d->largest, d->snr);
    if (d->wrong) cml_buffer_printf(&v->out, ", %lld of %lld numbers too far off", (long long)d->wrong, (long long)d->count);
    cml_buffer_char(&v->out, '\n');
  }
  v->results++;
}

static cml_status check_output(verify *v, const char *method, size_t set, size_t i, const cml_pte_value *expected, cml_error *err) {
  const cml_et_value *got = cml_et_method_output(v->p.method, i);
  cmlrun_difference d = {.count = 1, .snr = -INFINITY, .largest = INFINITY, .wrong = 1};
  cml_tensor e, g;
  void *memory = NULL;
  cml_status status = CML_OK;
  if (got->kind != CML_PTE_TENSOR || expected->kind != CML_PTE_TENSOR) {
    cml_et_value x = {.kind = expected->kind};
    if (expected->kind == CML_PTE_INTEGER) x.integer = expected->integer;
    else if (expected->kind == CML_PTE_BOOLEAN) x.boolean = expected->boolean;
    else x.real = expected->real;
    double a = cml_et_number_of(got).d, b = cml_et_number_of(&x).d;
    const cml_tensor one = {.dtype = CML_F64, .data = &a}, other = {.dtype = CML_F64, .data = &b};
    if (got->kind == expected->kind) d = cmlrun_difference_of(&one, &other, v->rtol, v->atol);
  } else {
    status = plain_tensor(expected->tensor, &e, &memory, err);
    if (!status) status = cml_et_method_export(v->p.method, got, &g, err);
    if (!status && g.dtype == e.dtype && cml_tensor_same_shape(&g, &e)) d = cmlrun_difference_of(&g, &e, v->rtol, v->atol);
  }
  if (!status) report(v, method, set, i, d.wrong == 0, &d);
  free(memory);
  return status;
}

static void note_ignored(verify *v) {
  if (!v->json) cmlrun_program_note_ignored(v->path, v->p.method);
  else if (!v->ignored.size) cmlrun_program_ignored_json(v->p.method, &v->ignored);
}

static cml_status run_suite(verify *v, const cml_bpte_suite *suite, cml_error *err) {
  char name[256];
  snprintf(name, sizeof name, "%.*s", (int)suite->method.size, suite->method.data);
  for (uint32_t s = 0; s < suite->count; s++) { /* each set starts from the method's initial state */
    const cml_bpte_case *c = &suite->cases[s];
    CML_TRY(cml_et_method_load(v->p.program, name, &v->p.method, err));
    cmlrun_stops(NULL, v->p.method);
    if (!s) note_ignored(v);
    cml_status status = CML_OK;
    for (uint32_t i = 0; !status && i < c->input_count; i++) status = set_input(v, i, &c->inputs[i], err);
    if (!status) status = cml_et_method_run(v->p.method, err);
    if (!status && c->output_count > cml_et_method_output_count(v->p.method))
      status = cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "set %u expects %u outputs and the method has %zu", s, c->output_count,
                        cml_et_method_output_count(v->p.method));
    for (uint32_t i = 0; !status && i < c->output_count; i++) status = check_output(v, name, s, i, &c->outputs[i], err);
    cmlrun_stops(NULL, NULL);
    cml_et_method_unload(v->p.method);
    v->p.method = NULL;
    if (status) return cml_error_prefix(err, status, "set %u of method '%s'", s, name);
  }
  return CML_OK;
}

static cml_status run(verify *v, const char *path, const cmlrun_options *options, cml_error *err) {
  const cml_et_options how = {.threads = options->threads, .passes = options->passes, .memory_limit = options->max_memory};
  CML_TRY(cmlrun_program_parse(path, &options->data, &how, &v->p.program, err));
  const cml_bpte *b = cml_et_program_bpte(v->p.program);
  if (!b) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "the file is no bundled program: it has no test sets");
  for (uint32_t i = 0; i < b->suite_count; i++) CML_TRY(run_suite(v, &b->suites[i], err));
  return v->results ? CML_OK : cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the bundled program has no test sets");
}

int cmlrun_verify(int argc, char **argv) {
  verify v = {.rtol = 0.01, .atol = 0.01, .out = CML_BUFFER_INIT, .ignored = CML_BUFFER_INIT};
  cmlrun_options options = {.threads = 0};
  const char *rtol = NULL, *atol = NULL;
  cli_option table[] = {CLI_TEXT(0, "rtol", "R", &rtol, "relative tolerance (default: 0.01)"),
                        CLI_TEXT(0, "atol", "A", &atol, "absolute tolerance (default: 0.01)"),
                        CLI_LIST(0, "data", "FILE.ptd", &options.data, "external tensors; again for each further file"),
                        CMLRUN_LIMITS(options),
                        CLI_FLAG('j', "json", &v.json, "one JSON object on standard output"), CLI_END};
  int code = cli_parse(&page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  char *end = NULL;
  if (rtol && (v.rtol = strtod(rtol, &end), end == rtol || *end || !(v.rtol >= 0))) return cli_usage_error("--rtol takes a number, at least 0");
  if (atol && (v.atol = strtod(atol, &end), end == atol || *end || !(v.atol >= 0))) return cli_usage_error("--atol takes a number, at least 0");
  cml_error err = {0};
  v.path = argv[0];
  if (v.json) cml_buffer_text(&v.out, "{\"outputs\": [");
  cml_status status = run(&v, argv[0], &options, &err);
  if (v.json)
    cml_buffer_printf(&v.out, "], \"failures\": %zu, \"ignored_specs\": %.*s}\n", v.failures, v.ignored.size ? (int)v.ignored.size : 2,
                      v.ignored.size ? (const char *)v.ignored.data : "[]");
  if (!status || !v.json) cli_put(&v.out);
  cml_buffer_free(&v.out);
  cml_buffer_free(&v.ignored);
  cmlrun_program_close(&v.p);
  if (status) return cmlrun_failed(argv[0], &err);
  return v.failures ? CLI_FAILED : CLI_OK;
}
