/* The CoreMLBackend: a delegate's blob is a folder with a model and metadata.json, which names the model's features in the
 * order of the call's arguments. Models and executables are shared by the delegates of a program that name the same blob
 * and function; each handle has a session of its own, and so its own state, which starts at zero.
 *
 * At the border types are what the program's tensors say on one side and the features on the other (int64 is int32 there,
 * bool float32, a rank of 0 [1]); both ways are conversions by element. */
#include <stdlib.h>

#include "et_internal.h"
#include "flat.h"
#include "json_read.h"
#include "session.h"
#include "view.h"

typedef struct function {
  struct function *next;
  const char *name;
  cml_executable *executable;
} function;

struct cml_et_coreml_model {
  cml_et_coreml_model *next;
  const uint8_t *blob;
  cml_tree *tree;
  cml_model *model;
  function *functions;
  json_t *symbols;  /* debug handles by "OUTPUT:OPERATOR", of debug_info.json; read when a method is first watched */
  bool symbols_read;
  cml_arena arena;
};

typedef struct handle {
  cml_et_coreml_model *model;
  cml_session *session;
  const cml_executable *executable;
  size_t input_count, output_count;
  const char **inputs; /* feature names, in the order of arguments */
  size_t *outputs;     /* indices of the executable's outputs */
  cml_arena arena;
  cml_et_method *watched;
} handle;

/* ---- models ---- */

void cml_et_coreml_models_free(cml_et_coreml_model *m) {
  for (cml_et_coreml_model *next; m; m = next) {
    next = m->next;
    for (function *f = m->functions; f; f = f->next) cml_executable_unref(f->executable);
    cml_model_close(m->model);
    cml_tree_unref(m->tree);
    json_decref(m->symbols);
    cml_arena_free(&m->arena);
    free(m);
  }
}

static cml_status open_model(cml_et_program *p, cml_span blob, cml_et_coreml_model **out, cml_error *err) {
  for (*out = p->models; *out; *out = (*out)->next)
    if ((*out)->blob == blob.data) return CML_OK;
  cml_span whole = cml_mapping_span(p->mapping);
  if (!blob.size || blob.data < whole.data || blob.data > whole.data + whole.size)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the delegate is empty");
  cml_et_coreml_model *m = calloc(1, sizeof *m);
  if (!m) return cml_fail_memory(err);
  m->blob = blob.data;
  cml_status status = cml_flat_restore(p->mapping, (uint64_t)(blob.data - whole.data), blob.size, NULL, &m->tree, err);
  const cml_node *root = status ? NULL : cml_view_find_model(cml_tree_root(m->tree));
  if (!status && !root) status = cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the delegate's folder holds no model");
  if (!status) status = cml_model_read(m->tree, root, NULL, &m->model, err);
  if (status) {
    cml_et_coreml_models_free(m);
    return status;
  }
  m->next = p->models;
  p->models = *out = m;
  return CML_OK;
}

static cml_status open_function(cml_et_program *p, cml_et_coreml_model *m, const char *name, cml_executable **out, cml_error *err) {
  for (function *f = m->functions; f; f = f->next)
    if (!strcmp(f->name, name)) return *out = f->executable, CML_OK;
  function *f = CML_ARENA_NEW(&m->arena, function);
  char *copy = cml_arena_text(&m->arena, name, strlen(name));
  if (!f || !copy) return cml_fail_memory(err);
  const cml_prepare_options options = {.function = name, .passes = p->options.passes, .threads = (size_t)p->options.threads,
                                       .max_memory = p->options.memory_limit, .at_first_run = true};
  CML_TRY(cml_executable_prepare(m->model, &options, &f->executable, err));
  f->name = copy;
  f->next = m->functions;
  m->functions = f;
  *out = f->executable;
  return CML_OK;
}

/* ---- names ---- */

static cml_status copy_names(handle *h, json_t *list, const char ***out, size_t *count, cml_error *err) {
  *count = json_array_size(list);
  *out = CML_ARENA_NEW_ARRAY(&h->arena, const char *, *count);
  if (!*out) return cml_fail_memory(err);
  for (size_t i = 0; i < *count; i++) {
    const char *text = json_string_value(json_array_get(list, i));
    if (!text) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "metadata.json: a name is no text");
    if (!((*out)[i] = cml_arena_text(&h->arena, text, strlen(text)))) return cml_fail_memory(err);
  }
  return CML_OK;
}

/* The features in the model's own order, for blobs without metadata. */
static cml_status names_of_features(handle *h, const cml_features *f, const char ***out, size_t *count, cml_error *err) {
  *count = f->count;
  if (!(*out = CML_ARENA_NEW_ARRAY(&h->arena, const char *, f->count))) return cml_fail_memory(err);
  for (size_t i = 0; i < f->count; i++) (*out)[i] = f->items[i].name;
  return CML_OK;
}

static cml_status read_metadata(handle *h, const cml_tree *tree, const char *method, const char *wanted, const char ***outputs, cml_error *err) {
  const cml_node *file = cml_node_find(cml_tree_root(tree), "metadata.json");
  cml_span text;
  json_t *json = NULL;
  if (file && cml_node_kind_of(file) == CML_NODE_FILE) {
    CML_TRY(cml_node_span(file, &text, err));
    CML_TRY(cml_json_parse(text, 0, "metadata.json", &json, err));
  }
  json_t *methods = json_object_get(json, "methods"), *named = json;
  if (json_is_object(methods)) {
    named = *wanted ? json_object_get(methods, wanted) : NULL;
    if (!named) named = json_object_get(methods, method);
  }
  json_t *in = json_object_get(named, "inputNames"), *out = json_object_get(named, "outputNames");
  cml_status status;
  if (json_is_array(in)) status = copy_names(h, in, &h->inputs, &h->input_count, err);
  else status = names_of_features(h, cml_executable_inputs(h->executable), &h->inputs, &h->input_count, err);
  if (status) (void)status;
  else if (json_is_array(out)) status = copy_names(h, out, outputs, &h->output_count, err);
  else status = names_of_features(h, cml_executable_outputs(h->executable), outputs, &h->output_count, err);
  json_decref(json);
  return status;
}

static cml_status bind_outputs(handle *h, const char **names, cml_error *err) {
  const cml_features *features = cml_executable_outputs(h->executable);
  if (!(h->outputs = CML_ARENA_NEW_ARRAY(&h->arena, size_t, h->output_count))) return cml_fail_memory(err);
  for (size_t i = 0; i < h->output_count; i++) {
    size_t k = 0;
    while (k < features->count && strcmp(features->items[k].name, names[i])) k++;
    if (k == features->count)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "metadata.json names output '%s', which the model does not have", names[i]);
    h->outputs[i] = k;
  }
  return CML_OK;
}

static bool has_feature(const cml_features *f, const char *name) {
  for (size_t i = 0; i < f->count; i++)
    if (!strcmp(f->items[i].name, name)) return true;
  return false;
}

static cml_status check_inputs(const handle *h, cml_error *err) {
  for (size_t i = 0; i < h->input_count; i++)
    if (!has_feature(cml_executable_inputs(h->executable), h->inputs[i]))
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "metadata.json names input '%s', which the model does not have", h->inputs[i]);
  return CML_OK;
}

/* ---- the backend's functions ---- */

static void destroy(void *object) {
  handle *h = object;
  if (!h) return;
  cml_session_destroy(h->session);
  cml_arena_free(&h->arena);
  free(h);
}

static cml_status build(handle *h, const cml_et_delegate_info *info, cml_error *err) {
  cml_et_program *p = info->program;
  cml_pte_coreml c;
  cml_et_coreml_model *model;
  cml_executable *executable = NULL;
  const char **outputs;
  CML_TRY(cml_pte_coreml_decode(p->pte, info->delegate, &h->arena, &c, err));
  const char *wanted = c.function.size ? cml_arena_text(&h->arena, c.function.data, c.function.size) : "";
  if (!wanted) return cml_fail_memory(err);
  CML_TRY(open_model(p, c.blob, &model, err));
  CML_TRY(open_function(p, model, wanted, &executable, err));
  h->executable = executable;
  h->model = model;
  CML_TRY(read_metadata(h, model->tree, info->method, wanted, &outputs, err));
  CML_TRY(check_inputs(h, err));
  CML_TRY(bind_outputs(h, outputs, err));
  return cml_session_create(executable, &h->session, err);
}

static cml_status init(void *context, const cml_et_delegate_info *info, void **out, cml_error *err) {
  (void)context;
  handle *h = calloc(1, sizeof *h);
  if (!h) return cml_fail_memory(err);
  pthread_mutex_lock(&info->program->mutex);
  cml_status status = build(h, info, err);
  pthread_mutex_unlock(&info->program->mutex);
  if (status) destroy(h);
  else *out = h;
  return status;
}

static cml_status set_input(handle *h, cml_et_call *call, size_t i, cml_error *err) {
  const cml_et_value *v = call->args[i];
  cml_et_local local;
  const cml_et_tensor *t;
  if (v->kind == CML_PTE_INTEGER || v->kind == CML_PTE_BOOLEAN || v->kind == CML_PTE_REAL) {
    double number = cml_et_number_of(v).d;
    const cml_tensor scalar = {.dtype = CML_F64, .rank = 1, .dims = {1}, .data = &number};
    return cml_session_set_input(h->session, h->inputs[i], &scalar, err);
  }
  if (v->kind != CML_PTE_TENSOR || !v->tensor->dtype || (!v->tensor->data && cml_et_numel(v->tensor)))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "argument %zu, input '%s', is no tensor with data", i, h->inputs[i]);
  CML_TRY(cml_et_contiguous(call, v->tensor, &local, &t, err));
  cml_tensor in = {.dtype = t->dtype, .rank = t->rank, .data = t->data ? t->data : h};
  memcpy(in.dims, t->sizes, t->rank * sizeof *t->sizes);
  if (!in.rank) in.rank = 1, in.dims[0] = 1;
  return cml_session_set_input(h->session, h->inputs[i], &in, err);
}

/* Shapes agree but for rank 0 and [1]; where they do not, the same number of elements in a static tensor is taken as meant. */
static cml_status get_output(handle *h, cml_et_call *call, size_t i, cml_error *err) {
  const char *name = cml_executable_outputs(h->executable)->items[h->outputs[i]].name;
  const cml_tensor *from = cml_session_output(h->session, h->outputs[i]);
  cml_et_value *v = call->args[h->input_count + i];
  cml_et_local view;
  if (v->kind != CML_PTE_TENSOR || !v->tensor->dtype || v->tensor->constant)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "argument %zu, output '%s', is no tensor to write to", h->input_count + i, name);
  if (from->dtype == CML_STRING || cml_dtype_bits(from->dtype) < 8 || from->rank > CML_PTE_MAX_RANK)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "output '%s' is of type %s", name, cml_dtype_name(from->dtype));
  cml_et_tensor *to = v->tensor;
  bool meant = (size_t)from->rank != to->rank && cml_tensor_count(from) == cml_et_numel(to);
  if (!meant) CML_TRY(cml_et_resize(call, to, (size_t)from->rank, from->dims, err));
  else CML_TRY(cml_et_resize(call, to, to->rank, to->sizes, err));
  cml_et_make(&view, from->dtype, to->rank, to->sizes, from->data);
  cml_et_copy(to, &view.t);
  return CML_OK;
}

static cml_status execute(void *object, cml_et_call *call, cml_error *err) {
  handle *h = object;
  if (call->arg_count != h->input_count + h->output_count)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the call has %zu arguments; the model has %zu inputs and %zu outputs", call->arg_count,
                    h->input_count, h->output_count);
  for (size_t i = 0; i < h->input_count; i++) CML_TRY(set_input(h, call, i, err));
  CML_TRY(cml_session_run(h->session, err));
  for (size_t i = 0; i < h->output_count; i++) CML_TRY(get_output(h, call, i, err));
  return CML_OK;
}

const cml_et_backend cml_et_coreml_backend = {.id = CML_PTE_COREML_ID, .init = init, .execute = execute, .destroy = destroy};

/* ---- events ---- */

/* Without debug information, or with what cannot be read, nothing is named. */
static void read_symbols(cml_et_coreml_model *m) {
  const cml_node *file = cml_node_find(cml_tree_root(m->tree), "debug_info.json");
  cml_span text;
  json_t *json = NULL;
  if (m->symbols_read) return;
  m->symbols_read = true;
  if (!file || cml_node_kind_of(file) != CML_NODE_FILE || cml_node_span(file, &text, NULL) || cml_json_parse(text, 0, "debug_info.json", &json, NULL)) return;
  m->symbols = json_incref(json_object_get(json, "debugSymbolToHandles"));
  json_decref(json);
}

typedef struct symbol {
  char name[512], handles[256];
} symbol;

/* The event's debug symbol and handles, kept in *s. What a pass made of an operation gives its output, under another type. */
static void name_symbol(const cml_et_coreml_model *m, cml_et_event *event, symbol *s) {
  const char *key;
  json_t *each;
  size_t at = 0, n = strlen(event->name);
  if (!m->symbols || (size_t)snprintf(s->name, sizeof s->name, "%s:%s", event->name, event->op_type) >= sizeof s->name) return;
  const json_t *list = json_object_get(m->symbols, s->name);
  event->debug_symbol = s->name;
  if (!list && !strncmp(event->op_type, "cml_", 4))
    json_object_foreach(m->symbols, key, each) if (!strncmp(key, event->name, n) && key[n] == ':') list = each, event->debug_symbol = key;
  for (size_t i = 0; i < json_array_size(list) && at < sizeof s->handles; i++)
    at += (size_t)snprintf(s->handles + at, sizeof s->handles - at, "%s%lld", i ? ", " : "", (long long)json_integer_value(json_array_get(list, i)));
  if (at) event->debug_handles = s->handles;
  else event->debug_symbol = NULL;
}

static void observe(void *context, const char *op_type, const char *op_name, uint64_t begin, uint64_t end, const cml_tensor *const *inputs,
                    size_t input_count, const cml_tensor *const *outputs, size_t output_count) {
  cml_et_method *m = ((handle *)context)->watched;
  (void)inputs;
  (void)input_count;
  if (!m || !m->observe || !m->current) return;
  cml_et_event event = *m->current;
  event.name = op_name;
  event.op_type = op_type;
  event.begin_ns = begin;
  event.end_ns = end;
  event.outputs = outputs;
  event.output_count = output_count;
  symbol kept;
  name_symbol(((handle *)context)->model, &event, &kept);
  m->observe(m->observe_context, &event);
}

void cml_et_coreml_observe(void *object, cml_et_method *method) {
  handle *h = object;
  h->watched = method;
  if (method->observe) {
    pthread_mutex_lock(&method->program->mutex);
    read_symbols(h->model);
    pthread_mutex_unlock(&method->program->mutex);
  }
  cml_session_observe(h->session, method->observe ? observe : NULL, h, true);
  cml_session_stop_by(h->session, &method->cancelled);
}
