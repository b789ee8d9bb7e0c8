/* cmlpack describe: what a model is made of. */
#include <string.h>

#include "cmlpack.h"
#include "cmlpack_models.h"
#include "executable.h"
#include "mil_graph.h"
#include "model_io.h"
#include "pte_describe.h"
#include "summary.h"

static const cli_page page = {
    .usage = "cmlpack describe MODEL [--json | --text | --dot | --svg | --passes]",
    .summary = "Shows what a model is made of: inputs and outputs with their shapes, operators with counts, parameters, weight bytes\n"
               "and multiply-adds, layer by layer; of an ExecuTorch program its methods, memory plans, operators and delegates. MODEL is anything that holds\n"
               "Core ML models, or a program.",
    .details = "--text prints the program itself, as .mil text. Multiply-adds are those of one pass, without bias and activations. Shapes\n"
               "that depend on flexible inputs are those of their default shapes.",
    .examples = "cmlpack describe model.mlpackage\n"
                "cmlpack describe model.pte --json | jq '.models[0].summary.functions[0].multiplyAdds'\n"
                "cmlpack describe model.mlpackage --text > model.mil\n"
                "cmlpack describe model.mlpackage --dot | dot -Tpdf > graph.pdf",
    .min_operands = 1, .max_operands = 1};

typedef struct forms { bool json, text, dot, svg, passes; } forms;

/* One model's program as text, or its functions' graphs. */
static cml_status put_program(cml_model *model, const forms *f, cml_buffer *out, cml_error *err) {
  if (!model->program)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "the model is of type %s, which has no program", cml_model_type_name(model->type_number));
  if (f->passes) {
    for (size_t i = 0; i < model->program->function_count; i++) {
      const cml_prepare_options options = {.function = model->program->functions[i]->name};
      CML_TRY(cml_executable_print_passes(model, &options, out, err));
    }
    return CML_OK;
  }
  if (f->text) {
    CML_TRY(cml_mil_print_text(model->program, CML_MIL_1_3, out, err));
    cml_buffer_char(out, '\n');
    return cml_buffer_check(out, err);
  }
  for (size_t i = 0; i < model->program->function_count; i++)
    CML_TRY(f->dot ? cml_graph_dot(model->program->functions[i], out, err) : cml_graph_svg(model->program->functions[i], out, err));
  return CML_OK;
}

static cml_status put_json(const cmlpack_models *models, cml_buffer *out, cml_error *err) {
  const cml_pte *pte = cml_container_pte(models->container);
  cml_buffer_char(out, '{');
  if (pte) {
    cml_buffer_text(out, "\"program\": ");
    CML_TRY(cml_pte_describe_json(pte, out, err));
    cml_buffer_text(out, ", ");
  }
  cml_buffer_text(out, "\"models\": [");
  for (size_t i = 0; i < models->count; i++) {
    cml_buffer_text(out, i ? ",\n{\"name\": " : "\n{\"name\": ");
    cml_buffer_json_string(out, models->items[i].name, strlen(models->items[i].name));
    cml_buffer_text(out, ", \"io\": ");
    cml_error ignored;
    if (cml_model_infer_types(models->items[i].model, &ignored)) { /* as declared then */ }
    CML_TRY(cml_model_io_json(models->items[i].model, out, err));
    cml_buffer_text(out, ", \"summary\": ");
    CML_TRY(cml_summary_json(models->items[i].model, out, err));
    cml_buffer_text(out, "}");
  }
  cml_buffer_text(out, "]}\n");
  return cml_buffer_check(out, err);
}

/* With the types that the operator table infers; of a model that it refuses those that are declared, and why. */
static cml_status put_summary(cml_model *model, cml_buffer *out, cml_error *err) {
  cml_error why = {0};
  cml_status refused = cml_model_infer_types(model, &why);
  CML_TRY(cml_summary_text(model, out, err));
  if (refused) cml_buffer_printf(out, "\nIt does not run: %s. Types are as declared.\n", why.text);
  return cml_buffer_check(out, err);
}

static cml_status put_models(const cmlpack_models *models, const forms *f, cml_buffer *out, cml_error *err) {
  if (f->json) return put_json(models, out, err);
  const cml_pte *pte = f->text || f->dot || f->svg || f->passes ? NULL : cml_container_pte(models->container);
  if (pte) CML_TRY(cml_pte_describe_text(pte, out, err));
  if (pte && models->count) cml_buffer_char(out, '\n');
  for (size_t i = 0; i < models->count; i++) {
    const char *name = models->items[i].name;
    bool program = f->text || f->dot || f->svg || f->passes;
    if (i && !program) cml_buffer_char(out, '\n');
    if (*name && !program) cml_buffer_printf(out, "%s: ", name);
    if (*name && f->text && models->count > 1) cml_buffer_printf(out, "// %s\n", name);
    CML_TRY(program ? put_program(models->items[i].model, f, out, err) : put_summary(models->items[i].model, out, err));
  }
  return CML_OK;
}

int cmlpack_describe(int argc, char **argv) {
  forms f = {.json = false};
  const cli_option table[] = {
      CLI_FLAG(0, "json", &f.json, "as JSON"),
      CLI_FLAG(0, "text", &f.text, "the program as .mil text"),
      CLI_FLAG(0, "dot", &f.dot, "the graph in Graphviz's language"),
      CLI_FLAG(0, "svg", &f.svg, "the graph drawn, when it is small"),
      CLI_FLAG(0, "passes", &f.passes, "the program as it is built to run, and after each graph pass"),
      CLI_END,
  };
  int code = cli_parse(&page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  if (f.json + f.text + f.dot + f.svg + f.passes > 1) return cli_usage_error("describe takes one of --json, --text, --dot, --svg and --passes");
  cml_model_options options = {.skip_weights = false};
  cmlpack_models models;
  cml_error err = {0};
  cml_buffer out = CML_BUFFER_INIT;
  cml_status status = cmlpack_models_open(argv[0], &options, &models, &err);
  if (status) { /* weights may be missing or broken; the rest can still be told */
    options.skip_weights = true;
    status = cmlpack_models_open(argv[0], &options, &models, &err);
  }
  if (status) return cli_error(argv[0], &err);
  bool told = models.count || (cml_container_pte(models.container) && !f.text && !f.dot && !f.svg && !f.passes);
  if (!told) status = cml_fail(&err, CML_NOT_FOUND, CML_NO_OFFSET, "it holds no Core ML model");
  if (!status) status = put_models(&models, &f, &out, &err);
  if (status) code = cli_error(argv[0], &err);
  else cli_put(&out), code = CLI_OK;
  cml_buffer_free(&out);
  cmlpack_models_close(&models);
  return code;
}
