/* cmlrun describe: what a model takes and gives, and what running it costs. */
#include "cmlrun.h"

static const cli_page page = {
    "cmlrun describe MODEL [--json | --passes]", "Shows a model's inputs, outputs and states, and the memory that a run takes.",
    "Of flexible models, output shapes and memory are those of the inputs' default shapes; ? stands for sizes that only data decide.",
    "cmlrun describe model.mlpackage\n"
    "cmlrun describe model.mlpackage --passes           # the program as it is built and after each graph pass\n", 1, 1};

static void put_dims(cml_buffer *b, const int64_t *dims, size_t rank, bool json) {
  cml_buffer_char(b, '[');
  for (size_t i = 0; i < rank; i++) {
    if (dims[i] < 0) cml_buffer_printf(b, "%s%s", i ? ", " : "", json ? "null" : "?");
    else cml_buffer_printf(b, "%s%lld", i ? ", " : "", (long long)dims[i]);
  }
  cml_buffer_char(b, ']');
}

static void put_range(cml_buffer *b, const cml_range *r) {
  if (r->upper < 0) cml_buffer_printf(b, "\"%lld..\"", (long long)r->lower);
  else cml_buffer_printf(b, "\"%lld..%lld\"", (long long)r->lower, (long long)r->upper);
}

/* type: the program's, for outputs of which the description says no shape; or NULL. */
static void put_shape(cml_buffer *b, const cml_feature *f, const cml_tensor *type, bool json) {
  if (f->flexibility != CML_FLEX_RANGE) {
    bool open = type && f->kind == CML_FEATURE_ARRAY && !f->rank && type->rank >= 0;
    put_dims(b, open ? type->dims : f->shape, open ? (size_t)type->rank : f->rank, json);
    return;
  }
  cml_buffer_char(b, '[');
  for (size_t i = 0; i < f->rank; i++) {
    if (i) cml_buffer_text(b, ", ");
    if (f->ranges[i].lower != f->ranges[i].upper) put_range(b, &f->ranges[i]);
    else cml_buffer_printf(b, "%lld", (long long)f->ranges[i].lower);
  }
  cml_buffer_char(b, ']');
}

static const char *kind_name(const cml_feature *f) {
  static const char *const names[] = {"int64", "double", "string", "image", "array", "dictionary", "sequence", "state", "none"};
  return (size_t)f->kind < sizeof names / sizeof *names ? names[f->kind] : "?";
}

/* e: whose outputs these are, or NULL. */
static void put_features(cml_buffer *b, const char *title, const cml_features *features, const cml_executable *e, bool json, bool first) {
  if (json) cml_buffer_printf(b, "%s\"%s\": [", first ? "" : ", ", title);
  for (size_t i = 0; i < features->count; i++) {
    const cml_feature *f = &features->items[i];
    const cml_tensor *type = e ? cml_executable_output_type(e, i) : NULL;
    if (json) {
      cml_buffer_printf(b, "%s{\"name\": ", i ? ", " : "");
      cml_buffer_json_string(b, f->name, strlen(f->name));
      cml_buffer_printf(b, ", \"kind\": \"%s\", \"type\": \"%s\", \"shape\": ", kind_name(f), f->dtype ? cml_dtype_name(f->dtype) : "");
      put_shape(b, f, type, json);
      cml_buffer_printf(b, ", \"optional\": %s}", f->optional ? "true" : "false");
    } else {
      cml_buffer_printf(b, "%-8s %-24s %-10s %-5s ", i ? "" : title, f->name, kind_name(f), f->dtype ? cml_dtype_name(f->dtype) : "");
      put_shape(b, f, type, json);
      cml_buffer_text(b, f->optional ? " optional\n" : "\n");
    }
  }
  if (json) cml_buffer_char(b, ']');
}

static void put_model(cml_buffer *b, const cml_executable *e, bool json) {
  uint64_t arena, packed, live;
  char text[3][24];
  cml_executable_memory(e, &arena, &packed, &live);
  if (json) cml_buffer_char(b, '{');
  put_features(b, "inputs", cml_executable_inputs(e), NULL, json, true);
  put_features(b, "outputs", cml_executable_outputs(e), e, json, false);
  put_features(b, "states", cml_executable_states(e), NULL, json, false);
  if (json)
    cml_buffer_printf(b, ", \"arena_bytes\": %llu, \"live_bytes\": %llu, \"packed_bytes\": %llu}\n", (unsigned long long)arena,
                      (unsigned long long)live, (unsigned long long)packed);
  else
    cml_buffer_printf(b, "memory   arena %s (largest live set %s), packed weights %s\n", cli_bytes(arena, text[0]), cli_bytes(live, text[1]),
                      cli_bytes(packed, text[2]));
}

int cmlrun_describe(int argc, char **argv) {
  cmlrun_options options = {.threads = 1};
  cmlrun_model model;
  bool json = false, passes = false;
  cli_option table[] = {CLI_TEXT(0, "function", "NAME", &options.function, "function of the model"),
                        CLI_TEXT(0, "method", "NAME", &options.method, "method of a .pte"),
                        CLI_FLAG('j', "json", &json, "one JSON object"),
                        CLI_FLAG(0, "passes", &passes, "the program as it is built and after each graph pass"), CLI_END};
  int code = cli_parse(&page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  if (json && passes) return cli_usage_error("describe takes one of --json and --passes");
  cml_error err = {0};
  cml_status status = cmlrun_open(argv[0], &options, &model, &err);
  if (status) return cli_error(argv[0], &err);
  cml_buffer b = CML_BUFFER_INIT;
  const cml_prepare_options prepare = {.function = options.function};
  if (passes) status = cml_executable_print_passes(model.model, &prepare, &b, &err);
  else put_model(&b, model.executable, json);
  if (!status) cli_put(&b);
  cml_buffer_free(&b);
  cmlrun_close(&model);
  return status ? cli_error(argv[0], &err) : CLI_OK;
}
