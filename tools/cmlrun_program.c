/* ExecuTorch programs for cmlrun: opening, inputs by number, outputs by number. */
#include "cmlrun_program.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"

bool cmlrun_is_program(const char *path) {
  uint8_t head[512] = {0};
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  bool readable = !fstat(fd, &st), folder = readable && S_ISDIR(st.st_mode);
  ssize_t size = readable && !folder ? pread(fd, head, sizeof head, 0) : 0;
  close(fd);
  if (size >= 8 && (!memcmp(head + 4, "ET", 2) || !memcmp(head + 4, "BP08", 4))) return true;
  if (!folder && !(size > 0 && cml_archive_is((cml_span){head, (size_t)size}))) return false;
  const cml_container *c = cmlrun_look_into(path);
  return c && cml_container_program_file(c).mapping;
}

cml_status cmlrun_program_parse(const char *path, const cli_list *data, const cml_et_options *how, cml_et_program **out, cml_error *err) {
  cml_container *within = cmlrun_is_program(path) ? cmlrun_take(path) : NULL;
  const char *first = data->count ? data->items[0] : NULL;
  cml_status status = within ? cml_et_program_from_container(within, first, how, out, err) : cml_et_program_open(path, first, how, out, err);
  cml_container_close(within);
  for (size_t i = 1; !status && i < data->count; i++)
    if ((status = cml_et_program_add_data(*out, data->items[i], err))) cml_et_program_close(*out), *out = NULL;
  return status;
}

/* One line: what the delegates ask for that is not heeded. */
void cmlrun_program_note_ignored(const char *path, const cml_et_method *m) {
  cml_buffer b = CML_BUFFER_INIT;
  cml_et_ignored s;
  for (size_t i = 0; cml_et_method_ignored(m, i, &s); i++) {
    if (i == 8) {
      cml_buffer_text(&b, ", …");
      break;
    }
    cml_buffer_printf(&b, "%s%.*s = %.*s of delegate %zu (%s)", i ? ", " : "ignored: ", (int)(s.key.size < 60 ? s.key.size : 60), s.key.data,
                      (int)(s.value.size < 60 ? s.value.size : 60), s.value.data, s.delegate, s.why);
  }
  cml_buffer_char(&b, 0);
  if (b.size > 1 && !b.failed) cli_note(path, (const char *)b.data);
  cml_buffer_free(&b);
}

void cmlrun_program_ignored_json(const cml_et_method *m, cml_buffer *out) {
  cml_et_ignored s;
  cml_buffer_char(out, '[');
  for (size_t i = 0; cml_et_method_ignored(m, i, &s); i++) {
    cml_buffer_printf(out, "%s{\"delegate\": %zu, \"key\": ", i ? ", " : "", s.delegate);
    cml_buffer_json_string(out, s.key.data, s.key.size);
    cml_buffer_text(out, ", \"value\": ");
    cml_buffer_json_string(out, s.value.data, s.value.size);
    cml_buffer_printf(out, ", \"why\": \"%s\"}", s.why);
  }
  cml_buffer_char(out, ']');
}

cml_status cmlrun_program_open(const char *path, const cmlrun_options *options, bool skip_delegates, cmlrun_program *out, cml_error *err) {
  const cml_et_options how = {.threads = options->threads, .passes = options->passes, .skip_delegates = skip_delegates,
                              .memory_limit = options->max_memory};
  *out = (cmlrun_program){NULL};
  cml_status status = cmlrun_program_parse(path, &options->data, &how, &out->program, err);
  if (!status) status = cml_et_method_load(out->program, options->method, &out->method, err);
  if (status == CML_UNSUPPORTED && err && strstr(err->text, "backend '")) {
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, " (predict --skip-delegates runs around delegates)");
  }
  if (status) cmlrun_program_close(out);
  else cmlrun_stops(NULL, out->method);
  if (!status && !skip_delegates) cmlrun_program_note_ignored(path, out->method);
  return status;
}

void cmlrun_program_close(cmlrun_program *p) {
  cmlrun_stops(NULL, NULL);
  cml_et_method_unload(p->method);
  cml_et_program_close(p->program);
  *p = (cmlrun_program){NULL};
}

cml_tensor cmlrun_tensor(const cml_array *a) {
  cml_tensor t = {.dtype = a->dtype, .rank = (int32_t)a->rank, .data = a->data};
  for (size_t i = 0; i < a->rank && i < CML_MAX_RANK; i++) t.dims[i] = a->dims[i];
  return t;
}

/* The input with that number among the method's tensors; the count of inputs when there is none. */
static size_t tensor_input(const cml_et_method *m, const char *name) {
  char *end;
  size_t count = cml_et_method_input_count(m);
  if (strncmp(name, "input_", 6) || name[6] < '0' || name[6] > '9') return count;
  unsigned long wanted = strtoul(name + 6, &end, 10);
  if (*end) return count;
  for (size_t i = 0; i < count; i++)
    if (cml_et_method_input(m, i)->kind == CML_PTE_TENSOR && wanted-- == 0) return i;
  return count;
}

static cml_status set_input(cmlrun_program *p, const cml_array *a, cml_error *err) {
  if (a->rank > CML_MAX_RANK) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "array '%s' has %zu dimensions", a->name, a->rank);
  cml_tensor t = cmlrun_tensor(a);
  size_t i = tensor_input(p->method, a->name), tensors = 0;
  if (!strncmp(a->name, "delegate_", 9) && !a->complex) return cml_et_method_set_skipped(p->method, a->name, &t, err);
  if (i < cml_et_method_input_count(p->method)) {
    if (a->complex && !cml_et_method_input(p->method, i)->tensor->complex)
      return cml_fail(err, CML_MISMATCH, CML_NO_OFFSET, "array '%s' is of complex numbers and the method takes real ones", a->name);
    return cml_et_method_set_tensor(p->method, i, &t, err);
  }
  for (i = 0; i < cml_et_method_input_count(p->method); i++) tensors += cml_et_method_input(p->method, i)->kind == CML_PTE_TENSOR;
  return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "there is no input '%s'; the method takes %zu tensors, input_0 and so on", a->name, tensors);
}

cml_status cmlrun_program_inputs(cmlrun_program *p, const char *path, cml_error *err) {
  cml_npz *npz = NULL;
  cml_status status = cml_npz_open(path, &npz, err);
  for (size_t i = 0; !status && i < cml_npz_count(npz); i++) status = set_input(p, cml_npz_at(npz, i), err);
  cml_npz_close(npz);
  return status ? cml_error_prefix(err, status, "%s", path) : status;
}

static cml_status add_output(cml_npz_writer *w, cmlrun_program *p, const char *name, const cml_et_value *v, cml_error *err) {
  cml_tensor t;
  CML_TRY(cml_et_method_export(p->method, v, &t, err));
  bool complex = v->tensor->complex;
  cml_status (*add)(cml_npz_writer *, const char *, cml_dtype, size_t, const int64_t *, const void *, cml_error *) = complex ? cml_npz_add_complex : cml_npz_add;
  if (t.dtype != CML_BF16 && !(complex && t.dtype == CML_F16)) return add(w, name, t.dtype, (size_t)t.rank, t.dims, t.data, err);
  float *wide = malloc((size_t)(cml_tensor_count(&t) + 1) * sizeof *wide); /* NumPy has no bfloat16 and no complex32 */
  if (!wide) return cml_fail_memory(err);
  cml_convert(wide, CML_F32, t.data, t.dtype, cml_tensor_count(&t));
  cml_status status = add(w, name, CML_F32, (size_t)t.rank, t.dims, wide, err);
  free(wide);
  return status;
}

cml_status cmlrun_program_outputs(cmlrun_program *p, const char *path, cml_error *err) {
  cml_npz_writer *w = NULL;
  char name[32];
  size_t number = 0;
  cml_status status = cml_npz_create(path, &w, err);
  if (status) return cml_error_prefix(err, status, "%s", path);
  for (size_t i = 0; !status && i < cml_et_method_output_count(p->method); i++) {
    const cml_et_value *v = cml_et_method_output(p->method, i);
    if (v->kind != CML_PTE_TENSOR) continue;
    snprintf(name, sizeof name, "output_%zu", number++);
    status = add_output(w, p, name, v, err);
  }
  if (status) (void)!cml_npz_finish(w, false, NULL);
  else status = cml_npz_finish(w, true, err);
  return status ? cml_error_prefix(err, status, "%s", path) : status;
}

cml_status cmlrun_program_each_output(cmlrun_program *p, void (*body)(const char *name, const cml_tensor *t), cml_error *err) {
  char name[32];
  size_t number = 0;
  for (size_t i = 0; i < cml_et_method_output_count(p->method); i++) {
    const cml_et_value *v = cml_et_method_output(p->method, i);
    cml_tensor t;
    if (v->kind != CML_PTE_TENSOR) continue;
    snprintf(name, sizeof name, "output_%zu", number++);
    CML_TRY(cml_et_method_export(p->method, v, &t, err));
    body(name, &t);
  }
  return CML_OK;
}

void cmlrun_step_path(const char *pattern, size_t step, char *out, size_t room) {
  const char *at = strstr(pattern, "{step}");
  if (!at) snprintf(out, room, "%s", pattern);
  else snprintf(out, room, "%.*s%zu%s", (int)(at - pattern), pattern, step, at + 6);
}
