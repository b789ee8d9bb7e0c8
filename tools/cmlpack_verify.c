/* cmlpack verify: findings, one a line. */
#include "cmlpack.h"
#include "json_write.h"
#include "verify.h"

static const cli_page page = {
    .usage = "cmlpack verify FILE [--json]",
    .summary = "Checks everything that can be checked without running the model: structure, alignment, overlapping segments, the\n"
               "manifest's items, every blob of the weights, what the program refers to, and names that must agree.",
    .details = "Each finding is one line: error, warning or note; where; what; and what to do. Exit code 1 when there are errors.\n"
               "--json prints {file, kind, errors, warnings, notes, findings: [{severity, path, offset, text, advice}]}; kind is null\n"
               "when the file cannot be opened, path is \"\" for the file itself, offset is null when there is none.",
    .examples = "cmlpack verify model.pte\n"
                "cmlpack verify --json model.mlpackage | jq .errors",
    .min_operands = 1,
    .max_operands = 1,
};

typedef struct printer {
  const char *file;
  cml_json *json; /* NULL: lines */
} printer;

static void print_finding(void *context, const cml_finding *f) {
  const printer *p = context;
  if (p->json) {
    cml_json_open_flat(p->json, '{');
    cml_json_put_text(p->json, "severity", cml_severity_name(f->severity));
    cml_json_put_text(p->json, "path", f->path);
    cml_json_key(p->json, "offset");
    if (f->offset == CML_NO_OFFSET) cml_json_null(p->json);
    else cml_json_uint(p->json, f->offset);
    cml_json_put_text(p->json, "text", f->text);
    cml_json_put_text(p->json, "advice", f->advice);
    cml_json_close(p->json, '}');
    return;
  }
  cli_style color = f->severity == CML_SEVERITY_ERROR ? CLI_RED : f->severity == CML_SEVERITY_WARNING ? CLI_YELLOW : CLI_DIM;
  printf("%s%s%s: ", cli_style_on(color), cml_severity_name(f->severity), cli_style_on(CLI_PLAIN));
  if (*f->path) cli_print_text(stdout, f->path), fputs(": ", stdout);
  cli_print_text(stdout, f->text);
  if (f->offset != CML_NO_OFFSET) printf(" (at byte %llu)", (unsigned long long)f->offset);
  if (*f->advice) printf("; %s", f->advice);
  putchar('\n');
}

static void end_json(cml_json *j, const char *file, const cml_verify_result *r) {
  cml_json_close(j, ']');
  cml_json_put_text(j, "file", file);
  cml_json_put_text(j, "kind", r->kind);
  cml_json_put_uint(j, "errors", r->errors);
  cml_json_put_uint(j, "warnings", r->warnings);
  cml_json_put_uint(j, "notes", r->notes);
  cml_json_close(j, '}');
}

int cmlpack_verify(int argc, char **argv) {
  bool as_json = false;
  const cli_option options[] = {CLI_FLAG(0, "json", &as_json, "print JSON"), CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_error err = {0};
  cml_buffer text = CML_BUFFER_INIT;
  cml_json json = cml_json_over(&text);
  printer p = {argv[0], as_json ? &json : NULL};
  cml_verify_result result;
  if (as_json) {
    cml_json_open(&json, '{');
    cml_json_key(&json, "findings");
    cml_json_open(&json, '[');
  }
  if (cml_verify(argv[0], NULL, print_finding, &p, &result, &err)) return cli_error(argv[0], &err);
  if (as_json) end_json(&json, argv[0], &result), cli_put(&text);
  else
    printf("%s: %s, %zu errors, %zu warnings, %zu notes\n", argv[0], result.kind ? result.kind : "cannot be opened", result.errors,
           result.warnings, result.notes);
  if (result.errors) fflush(stdout), fprintf(stderr, "cmlpack: %s: %zu errors\n", argv[0], result.errors);
  cml_buffer_free(&text);
  return result.errors ? CLI_FAILED : CLI_OK;
}
