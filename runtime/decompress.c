/* The operator table already knows how to decompress, so nothing is computed here: the operation and what it depends on
 * become the body of a small program without inputs, which is prepared and run like any other. */
#include "decompress.h"

#include "executable.h"
#include "mil_names.h"

enum { MAX_DEPTH = 16 }; /* of a constant that decompresses into another's part */

typedef struct collecting {
  cml_mil_names names;
  cml_arena *arena;
  const cml_mil_op **ops; /* what is needed, sources first */
  size_t count, capacity;
  cml_error *err;
} collecting;

static cml_status collect(collecting *c, const cml_mil_op *op, unsigned depth) {
  for (size_t i = 0; i < c->count; i++)
    if (c->ops[i] == op) return CML_OK;
  if (depth > MAX_DEPTH) return cml_fail(c->err, CML_LIMIT, CML_NO_OFFSET, "a constant depends on more than %d others in turn", MAX_DEPTH);
  for (size_t i = 0; i < op->input_count; i++)
    for (size_t k = 0; k < op->inputs[i].count; k++) {
      const cml_mil_definition *d = cml_mil_names_find(&c->names, op->inputs[i].bindings[k].name);
      if (d && d->op) CML_TRY(collect(c, d->op, depth + 1));
      else if (!op->inputs[i].bindings[k].value)
        return cml_fail(c->err, CML_INVALID, CML_NO_OFFSET, "%s depends on %s, which is no constant", cml_mil_op_name(op), op->inputs[i].bindings[k].name);
    }
  if (c->count == c->capacity) {
    size_t capacity = c->capacity ? c->capacity * 2 : 16;
    const cml_mil_op **ops = cml_arena_array(c->arena, capacity, sizeof *ops);
    if (!ops) return cml_fail_memory(c->err);
    if (c->count) memcpy(ops, c->ops, c->count * sizeof *ops);
    c->ops = ops;
    c->capacity = capacity;
  }
  c->ops[c->count++] = op;
  return CML_OK;
}

/* The last operation with its attributes as arguments: up to iOS 17 the parts of a compressed constant stand there. */
static cml_status spread_attributes(collecting *c) {
  const cml_mil_op *last = c->ops[c->count - 1];
  cml_mil_op *op = CML_ARENA_NEW(c->arena, cml_mil_op);
  size_t most = last->input_count + last->attributes.count;
  cml_mil_argument *inputs = CML_ARENA_NEW_ARRAY(c->arena, cml_mil_argument, most);
  cml_mil_binding *bindings = CML_ARENA_NEW_ARRAY(c->arena, cml_mil_binding, most);
  if (!op || !inputs || !bindings) return cml_fail_memory(c->err);
  *op = *last;
  if (last->input_count) memcpy(inputs, last->inputs, last->input_count * sizeof *inputs);
  for (size_t i = 0; i < last->attributes.count; i++) {
    const cml_mil_attribute *a = &last->attributes.items[i];
    if (!strcmp(a->name, "name") || cml_mil_input(last, a->name)) continue;
    bindings[i] = (cml_mil_binding){NULL, a->value};
    inputs[op->input_count++] = (cml_mil_argument){.parameter = a->name, .bindings = &bindings[i], .count = 1};
  }
  op->inputs = inputs;
  op->attributes = (cml_mil_attributes){NULL, 0};
  c->ops[c->count - 1] = op;
  return CML_OK;
}

/* Runs the collected operations as function main; the last one's output is appended. */
static cml_status run(const collecting *c, const cml_mil_function *like, cml_buffer *out, cml_error *err) {
  const cml_mil_op *last = c->ops[c->count - 1];
  const char *outputs[] = {last->outputs[0].name};
  cml_mil_op **ops;
  memcpy(&ops, &c->ops, sizeof ops); /* preparing works on a copy of its own */
  cml_mil_block body = {.outputs = outputs, .output_count = 1, .ops = ops, .op_count = c->count};
  struct cml_mil_specialization only = {like->opset, &body};
  cml_mil_function function = {.name = "main", .opset = like->opset, .specializations = &only, .specialization_count = 1}, *functions[] = {&function};
  cml_mil_program program = {.version = 1, .functions = functions, .function_count = 1};
  cml_model model = {.specification_version = 9, .type_number = 502, .program = &program};
  cml_executable *executable = NULL;
  cml_session *session = NULL;
  uint64_t bytes = 0;
  cml_prepare_options options = {.threads = 1};
  cml_status status = cml_executable_prepare(&model, &options, &executable, err);
  if (!status) status = cml_session_create(executable, &session, err);
  if (!status) status = cml_session_run(session, err);
  const cml_tensor *result = status ? NULL : cml_session_output(session, 0);
  if (result && result->dtype != last->outputs[0].type->dtype)
    status = cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "%s decompresses to another element type than it says", outputs[0]);
  else if (result && !cml_tensor_bytes(result, &bytes)) status = cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "%s is too large", outputs[0]);
  else if (result) cml_buffer_append(out, result->data, (size_t)bytes);
  cml_session_destroy(session);
  cml_executable_unref(executable);
  cml_arena_free(&model.arena);
  return status ? status : cml_buffer_check(out, err);
}

cml_status cml_decompress(const cml_mil_op *op, const cml_mil_function *function, cml_buffer *out, cml_error *err) {
  cml_arena arena = CML_ARENA_INIT;
  collecting c = {.arena = &arena, .err = err};
  const cml_mil_block *body = cml_mil_body(function);
  if (!body || !op->output_count || !op->outputs[0].type) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "the operation has no output");
  cml_status status = cml_mil_names_build(&c.names, &arena, function, body, err);
  if (!status) status = collect(&c, op, 0);
  if (!status) status = spread_attributes(&c);
  if (!status) status = run(&c, function, out, err);
  cml_arena_free(&arena);
  return status;
}
