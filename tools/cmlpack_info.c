/* cmlpack info: what a file is, in a few lines. */
#include "cmlpack.h"
#include "json_write.h"
#include "mil.h"
#include "ptd.h"
#include "pte.h"
#include "summary.h"

static const cli_page page = {
    .usage = "cmlpack info FILE [--json]",
    .summary = "Says what FILE is: its kind, a program's methods with their inputs, outputs and delegates, and the Core ML models in it.",
    .details = "--json prints {file, kind, size, files, methods: [{name, inputs, outputs: [{dtype, sizes}], delegates: [id],\n"
               "operators, instructions}], tensors, models: [{method, function, path, type, specification_version, inputs, outputs,\n"
               "states: [name]}]}; methods and tensors stand there for ExecuTorch's files only. cmlpack cat FILE program.json prints all\n"
               "that a program says.",
    .examples = "cmlpack info model.pte\n"
                "cmlpack info --json model.mlpackage | jq .models[0].inputs",
    .min_operands = 1,
    .max_operands = 1,
};

static void put_names(cml_json *j, const char *key, const cml_features *features) {
  cml_json_key(j, key);
  cml_json_open_flat(j, '[');
  for (size_t i = 0; i < features->count; i++) cml_json_text(j, features->items[i].name, strlen(features->items[i].name));
  cml_json_close(j, ']');
}

static void put_tensors(cml_json *j, const char *key, const cml_pte_method *m, cml_pte_indices list) {
  cml_json_key(j, key);
  cml_json_open_flat(j, '[');
  for (uint32_t i = 0; i < list.count; i++) {
    const cml_pte_value *v = &m->values[list.items[i]];
    cml_json_open_flat(j, '{');
    cml_json_put_text(j, "dtype", v->kind == CML_PTE_TENSOR ? cml_pte_scalar_name(v->tensor->scalar) : cml_pte_kind_name(v->kind));
    if (v->kind == CML_PTE_TENSOR) {
      cml_json_key(j, "sizes");
      cml_json_open_flat(j, '[');
      for (size_t k = 0; k < v->tensor->rank; k++) cml_json_int(j, v->tensor->sizes[k]);
      cml_json_close(j, ']');
    }
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
}

static uint64_t count_instructions(const cml_pte_method *m) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < m->chain_count; i++) n += m->chains[i].count;
  return n;
}

static void put_method(cml_json *j, const cml_pte_method *m) {
  cml_json_open(j, '{');
  cml_json_put_string(j, "name", m->name);
  put_tensors(j, "inputs", m, m->inputs);
  put_tensors(j, "outputs", m, m->outputs);
  cml_json_key(j, "delegates");
  cml_json_open_flat(j, '[');
  for (uint32_t i = 0; i < m->delegate_count; i++) cml_json_text(j, m->delegates[i].id.data, m->delegates[i].id.size);
  cml_json_close(j, ']');
  cml_json_put_uint(j, "operators", m->operator_count);
  cml_json_put_uint(j, "instructions", count_instructions(m));
  cml_json_close(j, '}');
}

static void say_tensors(const cml_pte_method *m, cml_pte_indices list) {
  for (uint32_t i = 0; i < list.count; i++) {
    const cml_pte_value *v = &m->values[list.items[i]];
    printf("%s%s", i ? ", " : "", v->kind == CML_PTE_TENSOR ? cml_pte_scalar_name(v->tensor->scalar) : cml_pte_kind_name(v->kind));
    if (v->kind != CML_PTE_TENSOR) continue;
    for (size_t k = 0; k < v->tensor->rank; k++) printf("%s%s%d", k ? ", " : "[", v->tensor->dynamism ? "<=" : "", v->tensor->sizes[k]);
    fputs(v->tensor->rank ? "]" : "[]", stdout);
  }
}

static void say_method(const cml_pte_method *m) {
  fputs("method ", stdout);
  cli_print_text(stdout, m->name.data);
  putchar('(');
  say_tensors(m, m->inputs);
  fputs(") -> (", stdout);
  say_tensors(m, m->outputs);
  printf("): instructions %llu, operators %u, delegates:", (unsigned long long)count_instructions(m), m->operator_count);
  for (uint32_t i = 0; i < m->delegate_count; i++) putchar(' '), cli_print_text(stdout, m->delegates[i].id.data);
  puts(m->delegate_count ? "" : " none");
}

static void say_names(const char *what, const cml_features *features) {
  if (features->count) printf("  %s:", what);
  for (size_t i = 0; i < features->count; i++) putchar(' '), cli_print_text(stdout, features->items[i].name);
  if (features->count) putchar('\n');
}

/* Where a model lies: METHOD/delegate N, or its name. */
static void say_model(const cml_container_model *m, const cml_model *model) {
  fputs("model ", stdout);
  cli_print_text(stdout, cml_node_name(m->root));
  if (*m->method) printf(" (method %s, delegate %zu%s%s)", m->method, m->delegate, *m->function ? ", function " : "", m->function);
  printf(": %s, specification version %d\n", cml_model_type_name(model->type_number), model->specification_version);
  say_names("inputs", &model->inputs);
  say_names("outputs", &model->outputs);
  say_names("states", &model->states);
}

static void put_model(cml_json *j, const cml_container_model *m, const cml_model *model) {
  cml_json_open(j, '{');
  cml_json_put_text(j, "method", m->method);
  cml_json_put_text(j, "function", m->function);
  cml_json_put_text(j, "path", cml_node_name(m->root));
  cml_json_put_text(j, "type", cml_model_type_name(model->type_number));
  cml_json_put_int(j, "specification_version", model->specification_version);
  put_names(j, "inputs", &model->inputs);
  put_names(j, "outputs", &model->outputs);
  put_names(j, "states", &model->states);
  cml_json_close(j, '}');
}

/* A model that cannot be read is reported; the others are shown. json NULL: lines. */
static int show_models(const char *file, const cml_container *c, cml_json *json) {
  const cml_model_options options = {.skip_weights = true};
  int code = CLI_OK;
  for (size_t i = 0; i < cml_container_model_count(c); i++) {
    const cml_container_model *m = cml_container_model_at(c, i);
    cml_model *model = NULL;
    cml_error err = {0};
    if (cml_model_read(m->tree, m->root, &options, &model, &err)) code = cli_error(file, &err);
    else if (json) put_model(json, m, model);
    else say_model(m, model);
    cml_model_close(model);
  }
  return code;
}

static uint64_t count_files(const cml_node *node) {
  uint64_t n = cml_node_kind_of(node) == CML_NODE_FILE;
  for (size_t i = 0; i < cml_node_count(node); i++) n += count_files(cml_node_child(node, i));
  return n;
}

static int show_json(const char *file, const cml_container *c) {
  cml_buffer text = CML_BUFFER_INIT;
  cml_json json = cml_json_over(&text), *j = &json;
  const cml_pte *pte = cml_container_pte(c);
  const cml_ptd *ptd = cml_container_ptd(c);
  cml_error err = {0};
  cml_json_open(j, '{');
  cml_json_put_text(j, "file", file);
  cml_json_put_text(j, "kind", cml_container_kind_name(cml_container_kind_of(c)));
  if (pte || ptd) cml_json_put_uint(j, "size", pte ? pte->file.size : ptd->file.size);
  cml_json_put_uint(j, "files", count_files(cml_tree_root(cml_container_view(c))));
  if (pte) {
    cml_json_key(j, "methods");
    cml_json_open(j, '[');
    for (uint32_t i = 0; i < pte->method_count; i++) put_method(j, &pte->methods[i]);
    cml_json_close(j, ']');
  }
  if (ptd) cml_json_put_uint(j, "tensors", ptd->count);
  cml_json_key(j, "models");
  cml_json_open(j, '[');
  int code = show_models(file, c, j);
  cml_json_close(j, ']');
  cml_json_close(j, '}');
  if (cml_buffer_check(&text, &err)) code = cli_error(file, &err);
  else cli_put(&text);
  cml_buffer_free(&text);
  return code;
}

static int show_text(const char *file, const cml_container *c) {
  const cml_pte *pte = cml_container_pte(c);
  const cml_ptd *ptd = cml_container_ptd(c);
  char size[24];
  cli_print_text(stdout, file);
  printf(": %s%s%s", cli_style_on(CLI_BOLD), cml_container_kind_name(cml_container_kind_of(c)), cli_style_on(CLI_PLAIN));
  if (pte || ptd) printf(", %s", cli_bytes(pte ? pte->file.size : ptd->file.size, size));
  printf(", %llu files\n", (unsigned long long)count_files(cml_tree_root(cml_container_view(c))));
  for (uint32_t i = 0; pte && i < pte->method_count; i++) say_method(&pte->methods[i]);
  if (pte) printf("%u segments, %u named data\n", pte->segment_count, pte->named_count);
  if (ptd) printf("%u external tensors\n", ptd->count);
  return show_models(file, c, NULL);
}

int cmlpack_info(int argc, char **argv) {
  bool as_json = false;
  const cli_option options[] = {CLI_FLAG(0, "json", &as_json, "print JSON"), CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_container *container = NULL;
  code = cmlpack_open(argv[0], NULL, "", &container, NULL);
  if (code) return code;
  code = as_json ? show_json(argv[0], container) : show_text(argv[0], container);
  cml_container_close(container);
  return code;
}
