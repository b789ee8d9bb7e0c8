/* cmlrun describe: what a model takes and gives, and what running it costs. */
#include "cmlrun_program.h"
#include "pte_describe.h"

#include <string.h>

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

static void put_range(cml_buffer *b, const cml_range *r, bool json) {
  const char *quote = json ? "\"" : "";
  if (r->upper < 0) cml_buffer_printf(b, "%s%lld..%s", quote, (long long)r->lower, quote);
  else cml_buffer_printf(b, "%s%lld..%lld%s", quote, (long long)r->lower, (long long)r->upper, quote);
}

/* The enumerated shapes: instead of the default one in words, beside it in JSON. */
static void put_shapes(cml_buffer *b, const cml_feature *f, bool json) {
  if (json) cml_buffer_text(b, ", \"shapes\": [");
  for (size_t i = 0; i < f->shape_count; i++) {
    if (i) cml_buffer_text(b, json ? ", " : " or ");
    put_dims(b, f->shapes + i * f->rank, f->rank, json);
  }
  if (json) cml_buffer_char(b, ']');
}

/* type: the program's, for outputs of which the description says no shape; or NULL. */
static void put_shape(cml_buffer *b, const cml_feature *f, const cml_tensor *type, bool json) {
  if (f->flexibility == CML_FLEX_ENUMERATED && !json) {
    put_shapes(b, f, json);
    return;
  }
  if (f->flexibility != CML_FLEX_RANGE) {
    bool open = type && f->kind == CML_FEATURE_ARRAY && !f->rank && type->rank >= 0;
    put_dims(b, open ? type->dims : f->shape, open ? (size_t)type->rank : f->rank, json);
    return;
  }
  cml_buffer_char(b, '[');
  for (size_t i = 0; i < f->rank; i++) {
    if (i) cml_buffer_text(b, ", ");
    if (f->ranges[i].lower != f->ranges[i].upper) put_range(b, &f->ranges[i], json);
    else cml_buffer_printf(b, "%lld", (long long)f->ranges[i].lower);
  }
  cml_buffer_char(b, ']');
}

static const char *kind_name(const cml_feature *f) {
  static const char *const names[] = {"int64", "double", "string", "image", "array", "dictionary", "sequence", "state", "none"};
  return (size_t)f->kind < sizeof names / sizeof *names ? names[f->kind] : "?";
}

/* An array's element type, an image's layout. */
static const char *type_name(const cml_feature *f) {
  if (f->kind != CML_FEATURE_IMAGE) return f->dtype ? cml_dtype_name(f->dtype) : "";
  return f->color == CML_COLOR_RGB ? "RGB" : f->color == CML_COLOR_BGR ? "BGR" : f->color == CML_COLOR_GRAYSCALE_FLOAT16 ? "gray16" : "gray";
}

static void put_optional(cml_buffer *b, const cml_feature *f, bool json) {
  if (json) cml_buffer_printf(b, ", \"optional\": %s", f->optional ? "true" : "false");
  else if (f->optional) cml_buffer_text(b, " optional");
  if (f->has_default) cml_buffer_printf(b, json ? ", \"default\": %.9g" : ", else %.9g", f->default_value);
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
      cml_buffer_printf(b, ", \"kind\": \"%s\", \"type\": \"%s\", \"shape\": ", kind_name(f), type_name(f));
      put_shape(b, f, type, json);
      if (f->flexibility == CML_FLEX_ENUMERATED) put_shapes(b, f, json);
    } else {
      cml_buffer_printf(b, "%-8s %-24s %-10s %-5s ", i ? "" : title, f->name, kind_name(f), type_name(f));
      put_shape(b, f, type, json);
    }
    put_optional(b, f, json);
    cml_buffer_char(b, json ? '}' : '\n');
  }
  if (json) cml_buffer_char(b, ']');
}

/* A package with several: which there are. */
static void put_functions(cml_buffer *b, const cml_mil_program *p, bool json) {
  if (p->function_count < 2 && !json) return;
  cml_buffer_text(b, json ? ", \"functions\": [" : "functions");
  for (size_t i = 0; i < p->function_count; i++) {
    const char *name = p->functions[i]->name;
    if (json) cml_buffer_text(b, i ? ", " : ""), cml_buffer_json_string(b, name, strlen(name));
    else cml_buffer_printf(b, " %s", name);
  }
  cml_buffer_char(b, json ? ']' : '\n');
}

/* begun: a JSON object is open already. */
static void put_model(cml_buffer *b, const cml_executable *e, bool json, bool begun) {
  uint64_t arena, packed, live;
  char text[3][24];
  cml_executable_memory(e, &arena, &packed, &live);
  if (json) cml_buffer_text(b, begun ? ", " : "{");
  put_features(b, "inputs", cml_executable_inputs(e), NULL, json, true);
  put_features(b, "outputs", cml_executable_outputs(e), e, json, false);
  put_features(b, "states", cml_executable_states(e), NULL, json, false);
  put_functions(b, cml_executable_program(e), json);
  if (json)
    cml_buffer_printf(b, ", \"arena_bytes\": %llu, \"live_bytes\": %llu, \"packed_bytes\": %llu}\n", (unsigned long long)arena,
                      (unsigned long long)live, (unsigned long long)packed);
  else
    cml_buffer_printf(b, "memory   arena %s (largest live set %s), packed weights %s\n", cli_bytes(arena, text[0]), cli_bytes(live, text[1]),
                      cli_bytes(packed, text[2]));
}

/* What an ExecuTorch program says of itself; `only` when that is all there is to tell: it has no model, or several and none is named. */
static cml_status put_program(const char *path, const cmlrun_options *options, bool json, cml_buffer *b, bool *only, cml_error *err) {
  const cml_container *c = cmlrun_is_program(path) ? cmlrun_look_into(path) : NULL;
  const cml_pte *pte = c ? cml_container_pte(c) : NULL;
  if (!pte) return CML_OK;
  *only = !options->method && cml_container_model_count(c) != 1;
  if (!json) return cml_pte_describe_text(pte, b, err);
  cml_buffer_text(b, "{\"program\": ");
  CML_TRY(cml_pte_describe_json(pte, b, err));
  cml_buffer_text(b, *only ? "}\n" : "");
  return CML_OK;
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
  cml_buffer b = CML_BUFFER_INIT;
  bool only = false;
  cml_status status = passes ? CML_OK : put_program(argv[0], &options, json, &b, &only, &err);
  bool program = b.size > 0;
  if (!status && !only && !(status = cmlrun_open(argv[0], &options, false, &model, &err))) {
    const cml_prepare_options prepare = {.function = options.function};
    if (passes) status = cml_executable_print_passes(model.model, &prepare, &b, &err);
    else put_model(&b, model.executable, json, program);
    cmlrun_close(&model);
  }
  if (!status) cli_put(&b);
  cml_buffer_free(&b);
  return status ? cli_error(argv[0], &err) : CLI_OK;
}
