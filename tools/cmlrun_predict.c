/* cmlrun predict: inputs from .npz files or images, outputs to .npz files, a state kept between steps. */
#include "cmlrun.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image.h"
#include "cmlrun_program.h"
#include "etdump.h"

static const cli_page page = {
    "cmlrun predict MODEL --input in.npz [--input next.npz ...] --output out.npz",
    "Runs a model. Inputs go by the model's feature names. Several inputs are steps of one sequence: the state is kept\n"
    "between them, and {step} in the output's name becomes 0, 1, ...",
    "An image comes as an array, height x width x 3 (red, green, blue) or height x width. What a model declares as a dictionary\n"
    "is written as two arrays, NAME.keys and NAME.values.\n"
    "The inputs of an ExecuTorch program are input_0, input_1, ... in the order of the method's tensors, its outputs output_0, ...\n"
    "Steps may call several of its methods, which then share the mutable buffers that the program says they share.",
    "cmlrun predict model.mlpackage --input in.npz --output out.npz\n"
    "cmlrun predict classifier.mlpackage --input image=cat.png      # prints labels and probabilities\n"
    "cmlrun predict model.mlpackage --input a.npz --input b.npz --output 'out_{step}.npz' --state state.npz\n"
    "cmlrun predict model.pte --method forward --data model.ptd --input in.npz --output out.npz\n"
    "cmlrun predict llm.pte --method prefill --input a.npz --method decode --input b.npz --input c.npz --output 'out_{step}.npz'\n",
    1, 1};

typedef struct predict {
  const char *path, *output, *state;
  bool resize;
  cli_list inputs;
  cmlrun_options options;
  cmlrun_model model;
  cml_session *session;
  cmlrun_program program;
  bool skip_delegates;
  const char *etdump, *etdump_values;
  cml_etdump *dump;
  cli_list methods;         /* of steps */
  cml_et_method **loaded;   /* by methods */
} predict;

cml_status cmlrun_session_inputs(cml_session *session, const char *path, cml_error *err) {
  cml_npz *npz = NULL;
  cml_status status = cml_npz_open(path, &npz, err);
  if (status) return cml_error_prefix(err, status, "%s", path);
  for (size_t i = 0; !status && i < cml_npz_count(npz); i++) {
    const cml_array *a = cml_npz_at(npz, i);
    if (a->rank > CML_MAX_RANK) status = cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "%s: array '%s' has %zu dimensions", path, a->name, a->rank);
    else if (a->complex) status = cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "%s: array '%s' is of complex numbers, which no Core ML model takes", path, a->name);
    cml_tensor t = cmlrun_tensor(a);
    if (!status) status = cml_session_set_input(session, a->name, &t, err);
  }
  cml_npz_close(npz);
  return status;
}

/* NAME=picture. Resized only with --resize. */
static cml_status set_picture(predict *p, const char *name, const char *path, cml_error *err) {
  const cml_features *inputs = cml_executable_inputs(p->model.executable);
  const cml_feature *f = NULL;
  for (size_t i = 0; !f && i < inputs->count; i++)
    if (!strcmp(inputs->items[i].name, name)) f = &inputs->items[i];
  bool color = !f || f->color == CML_COLOR_RGB || f->color == CML_COLOR_BGR;
  cml_image image = {0}, resized = {0};
  cml_status status = cml_image_read(path, color ? 3 : 1, &image, err);
  if (status) return cml_error_prefix(err, status, "%s", path);
  if (p->resize && f && f->rank >= 2 && (f->shape[0] != image.height || f->shape[1] != image.width)) {
    status = cml_image_resize(&image, (uint32_t)f->shape[1], (uint32_t)f->shape[0], &resized, err);
    cml_image_free(&image);
    image = resized;
  }
  cml_tensor t = {.dtype = CML_U8, .rank = color ? 3 : 2, .dims = {image.height, image.width, 3}, .data = image.pixels};
  if (!status) status = cml_session_set_input(p->session, name, &t, err);
  cml_image_free(&image);
  return status;
}

/* Inputs of the form NAME=PATH belong to the step before them; all of them to one step when there is no .npz. */
static const char *picture_path(const char *input, char *name, size_t room) {
  const char *at = strchr(input, '=');
  if (!at || at == input || (size_t)(at - input) >= room || !access(input, F_OK)) return NULL;
  memcpy(name, input, (size_t)(at - input));
  name[at - input] = 0;
  return at + 1;
}

static cml_status add_tensor(cml_npz_writer *w, const char *name, const cml_tensor *t, cml_error *err) {
  return cml_npz_add(w, name, t->dtype, (size_t)t->rank, t->dims, t->data, err);
}

static cml_status add_output(cml_npz_writer *w, const char *name, const cml_tensor *t, cml_error *err) {
  if (!t->keys) return add_tensor(w, name, t, err);
  char part[1024];
  snprintf(part, sizeof part, "%s.keys", name);
  CML_TRY(add_tensor(w, part, t->keys, err));
  snprintf(part, sizeof part, "%s.values", name);
  return add_tensor(w, part, t, err);
}

static cml_status write_outputs(predict *p, size_t step, cml_error *err) {
  char path[4096];
  cml_npz_writer *w = NULL;
  const cml_features *outputs = cml_executable_outputs(p->model.executable);
  cmlrun_step_path(p->output, step, path, sizeof path);
  cml_status status = cml_npz_create(path, &w, err);
  if (status) return cml_error_prefix(err, status, "%s", path);
  for (size_t i = 0; !status && i < outputs->count; i++)
    status = add_output(w, outputs->items[i].name, cml_session_output(p->session, i), err);
  if (status) (void)!cml_npz_finish(w, false, NULL);
  else status = cml_npz_finish(w, true, err);
  return status ? cml_error_prefix(err, status, "%s", path) : status;
}

/* ---- states ---- */

/* A file of other arrays is no state, and must not be written over. */
static cml_status refuse_foreign(const cml_npz *npz, const cml_features *states, cml_error *err) {
  for (size_t i = 0; i < cml_npz_count(npz); i++) {
    const char *name = cml_npz_at(npz, i)->name;
    bool known = false;
    for (size_t k = 0; !known && k < states->count; k++) known = !strcmp(states->items[k].name, name);
    if (!known) return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "'%s' is no state of the model: is this the file that --state means?", name);
  }
  return CML_OK;
}

static cml_status read_state(predict *p, cml_error *err) {
  cml_npz *npz = NULL;
  if (access(p->state, F_OK)) return CML_OK; /* starts at zeros */
  cml_status status = cml_npz_open(p->state, &npz, err);
  const cml_features *states = cml_executable_states(p->model.executable);
  if (!status) status = refuse_foreign(npz, states, err);
  for (size_t i = 0; !status && i < states->count; i++) {
    const cml_array *a = cml_npz_find(npz, states->items[i].name);
    cml_tensor *t = cml_session_state(p->session, i), from;
    if (!a) continue;
    from = cmlrun_tensor(a);
    if (a->rank > CML_MAX_RANK || a->dtype == CML_STRING || a->complex || !cml_tensor_same_shape(t, &from))
      status = cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "state '%s' has another shape or type than the model's", a->name);
    else cml_convert(t->data, t->dtype, from.data, from.dtype, cml_tensor_count(t));
  }
  cml_npz_close(npz);
  return status ? cml_error_prefix(err, status, "%s", p->state) : status;
}

static cml_status write_state(predict *p, cml_error *err) {
  cml_npz_writer *w = NULL;
  const cml_features *states = cml_executable_states(p->model.executable);
  cml_status status = cml_npz_create(p->state, &w, err);
  if (status) return cml_error_prefix(err, status, "%s", p->state);
  for (size_t i = 0; !status && i < states->count; i++) status = add_tensor(w, states->items[i].name, cml_session_state(p->session, i), err);
  if (status) (void)!cml_npz_finish(w, false, NULL);
  else status = cml_npz_finish(w, true, err);
  return status ? cml_error_prefix(err, status, "%s", p->state) : status;
}

/* ---- what a classifier says ---- */

static void print_best(const cml_tensor *values) {
  int64_t n = cml_tensor_count(values);
  bool *shown = calloc((size_t)n + 1, sizeof *shown);
  for (int rank = 0; shown && rank < 5 && rank < n; rank++) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
      if (!shown[i] && (best < 0 || cml_tensor_get(values, i) > cml_tensor_get(values, best))) best = i;
    shown[best] = true;
    printf("  %-24s %.4f\n", values->keys->dtype == CML_STRING ? ((const cml_string *)values->keys->data)[best].data : "", cml_tensor_get(values, best));
  }
  free(shown);
}

/* A result in words: its first elements. */
static void print_tensor(const char *name, const cml_tensor *t) {
  int64_t n = cml_tensor_count(t);
  printf("%s:", name);
  if (t->keys) {
    printf("\n");
    print_best(t);
    return;
  }
  if (t->rank) {
    printf(" [");
    for (int32_t k = 0; k < t->rank; k++) printf("%s%lld", k ? ", " : "", (long long)t->dims[k]);
    printf("] %s:", cml_dtype_name(t->dtype));
  }
  for (int64_t k = 0; k < n && k < 10; k++) {
    if (t->dtype == CML_STRING) printf(" %s", ((const cml_string *)t->data)[k].data);
    else printf(" %.7g", cml_tensor_get(t, k));
  }
  printf(n > 10 ? " ...\n" : "\n");
}

static void print_outputs(const predict *p) {
  const cml_features *outputs = cml_executable_outputs(p->model.executable);
  for (size_t i = 0; i < outputs->count; i++) print_tensor(outputs->items[i].name, cml_session_output(p->session, i));
}

static cml_status run_step(predict *p, size_t step, cml_error *err) {
  CML_TRY(cml_session_run(p->session, err));
  if (p->output) return write_outputs(p, step, err);
  print_outputs(p);
  return CML_OK;
}

static cml_status run(predict *p, cml_error *err) {
  CML_TRY(cmlrun_open(p->path, &p->options, true, &p->model, err));
  CML_TRY(cml_session_create(p->model.executable, &p->session, err));
  cmlrun_stops(p->session, NULL);
  if (p->state) CML_TRY(read_state(p, err));
  size_t step = 0;
  bool waiting = true; /* a step's inputs are being set */
  for (size_t i = 0; i < p->inputs.count; i++) {
    char name[256];
    const char *path = picture_path(p->inputs.items[i], name, sizeof name);
    if (path) {
      CML_TRY(set_picture(p, name, path, err));
      continue;
    }
    if (i && !waiting) CML_TRY(run_step(p, step++, err));
    CML_TRY(cmlrun_session_inputs(p->session, p->inputs.items[i], err));
    waiting = false;
  }
  CML_TRY(run_step(p, step, err));
  return p->state ? write_state(p, err) : CML_OK;
}

/* ---- ExecuTorch programs ---- */

static cml_status write_file(const char *path, cml_span bytes, cml_error *err) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return cml_fail_errno(err, errno, "%s", path);
  cml_status status = cli_write_bytes(fd, bytes.data, bytes.size, err);
  if (close(fd) && !status) status = cml_fail_errno(err, errno, "%s", path);
  return status;
}

static cml_status write_etdump(predict *p, cml_error *err) {
  cml_buffer b = CML_BUFFER_INIT;
  cml_status status = cml_etdump_write(p->dump, cml_sink_to_buffer(&b), err);
  if (!status) status = cml_buffer_check(&b, err);
  if (!status) status = write_file(p->etdump, cml_buffer_span(&b), err);
  if (!status && p->etdump_values) status = write_file(p->etdump_values, cml_etdump_values(p->dump), err);
  cml_buffer_free(&b);
  return status;
}

/* The method of step i: the last name given stands for all further steps. Methods are loaded once each, beside the first. */
static cml_et_method *method_of(const predict *p, size_t i) {
  size_t k = i < p->methods.count ? i : p->methods.count - 1;
  return p->methods.count ? p->loaded[k] : p->program.method;
}

static cml_status load_methods(predict *p, cml_error *err) {
  const char *const *names = p->methods.items;
  if (!(p->loaded = calloc(p->methods.count + 1, sizeof *p->loaded))) return cml_fail_memory(err);
  for (size_t i = 0; i < p->methods.count; i++) {
    size_t k = 0;
    while (k < i && strcmp(names[k], names[i])) k++;
    if (!i) p->loaded[i] = p->program.method;
    else if (k < i) p->loaded[i] = p->loaded[k];
    else CML_TRY(cml_et_method_load_beside(p->program.program, names[i], p->program.method, &p->loaded[i], err));
  }
  return CML_OK;
}

static void unload_methods(predict *p) {
  for (size_t i = 1; p->loaded && i < p->methods.count; i++) {
    size_t k = 0;
    while (k < i && p->loaded[k] != p->loaded[i]) k++;
    if (k == i) cml_et_method_unload(p->loaded[i]);
  }
  free(p->loaded);
}

static cml_status run_program_step(predict *p, size_t i, cml_error *err) {
  char path[4096];
  if (p->inputs.count) CML_TRY(cmlrun_program_inputs(&p->program, p->inputs.items[i], err));
  if (p->dump) cml_et_method_observe(p->program.method, cml_etdump_observe, p->dump), cml_etdump_begin(p->dump);
  CML_TRY(cml_et_method_run(p->program.method, err));
  if (p->dump) cml_etdump_outputs(p->dump, p->program.method), cml_etdump_end(p->dump);
  if (!p->output) return cmlrun_program_each_output(&p->program, print_tensor, err);
  cmlrun_step_path(p->output, i, path, sizeof path);
  return cmlrun_program_outputs(&p->program, path, err);
}

static cml_status run_program(predict *p, cml_error *err) {
  if (p->etdump_values && !p->options.passes) p->options.passes = ""; /* the values are those of the file's own operations */
  CML_TRY(cmlrun_program_open(p->path, &p->options, p->skip_delegates, &p->program, err));
  CML_TRY(load_methods(p, err));
  if (p->etdump) CML_TRY(cml_etdump_create(p->etdump_values != NULL, &p->dump, err));
  cml_et_method *first = p->program.method;
  cml_status status = CML_OK;
  for (size_t i = 0; !status && i < (p->inputs.count ? p->inputs.count : 1); i++) {
    p->program.method = method_of(p, i);
    cmlrun_stops(NULL, p->program.method);
    status = run_program_step(p, i, err);
  }
  p->program.method = first;
  if (!status && p->dump) status = write_etdump(p, err);
  return status;
}

int cmlrun_predict(int argc, char **argv) {
  predict p = {.path = NULL};
  cli_option options[] = {
      CLI_LIST('i', "input", "FILE.npz|NAME=PICTURE", &p.inputs, "arrays by input name, again for each further step; or a PNG, JPEG or PNM file"),
      CLI_TEXT('o', "output", "FILE.npz", &p.output, "where the outputs go; {step} is the step's number (default: print them)"),
      CLI_FLAG(0, "resize", &p.resize, "resize pictures to the model's size (bilinear)"),
      CLI_TEXT(0, "state", "FILE.npz", &p.state, "read the state from FILE when it exists, write it there afterwards"),
      CLI_TEXT(0, "function", "NAME", &p.options.function, "function of the model (default: its default function)"),
      CLI_LIST(0, "method", "NAME", &p.methods, "method of a .pte; again for each further step that calls another one"),
      CLI_LIST(0, "data", "FILE.ptd", &p.options.data, "external tensors of a .pte; again for each further file"),
      CLI_FLAG(0, "skip-delegates", &p.skip_delegates, "run a .pte around its delegates; their outputs are inputs delegate_K/output_J"),
      CLI_TEXT(0, "etdump", "FILE.etdp", &p.etdump, "write when each instruction of a .pte ran, for ExecuTorch's Inspector"),
      CLI_TEXT(0, "etdump-values", "FILE.bin", &p.etdump_values, "with --etdump: also what each gave (the Inspector's debug buffer), by default without passes"),
      CLI_TEXT(0, "passes", "LIST", &p.options.passes, "graph passes to run: all by default, \"\" none"),
      CLI_TEXT(0, "cache", "DIR", &p.options.cache, "keep packed weights in DIR for the next time"),
      CMLRUN_LIMITS(p.options),
      CMLRUN_KERNELS(p.options),
      CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  if ((code = cmlrun_choose_kernels(&p.options)) != CLI_GO_ON) return code;
  p.path = argv[0];
  size_t steps = 0;
  char name[256];
  for (size_t i = 0; i < p.inputs.count; i++) steps += !picture_path(p.inputs.items[i], name, sizeof name);
  if (p.output && steps > 1 && !strstr(p.output, "{step}"))
    return cli_usage_error("several inputs need {step} in the name of --output");
  if (p.methods.count > 1 && p.methods.count > p.inputs.count)
    return cli_usage_error("there are more methods than inputs: each step takes one of both");
  if (p.methods.count) p.options.method = p.methods.items[0];
  cml_error err = {0};
  cml_status status = cmlrun_is_program(p.path) ? run_program(&p, &err) : run(&p, &err);
  cmlrun_stops(NULL, NULL);
  cml_session_destroy(p.session);
  cmlrun_close(&p.model);
  cml_etdump_destroy(p.dump);
  unload_methods(&p);
  cmlrun_program_close(&p.program);
  return status ? cmlrun_failed(p.path, &err) : CLI_OK;
}
