/* Errors are formatted once, at the place that knows most, into a buffer that the caller owns:
 * no allocation, so that out-of-memory can be reported too. */
#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *name, *words;
  int exit_code;
} statuses[] = {
#define CML_STATUS_ROW(name, exit_code, words) {#name, words, exit_code},
    CML_STATUS_MAP(CML_STATUS_ROW)
#undef CML_STATUS_ROW
};

static size_t status_index(cml_status status) {
  size_t i = (size_t)status;
  return i < sizeof statuses / sizeof *statuses ? i : CML_INVALID;
}

const char *cml_status_name(cml_status status) { return statuses[status_index(status)].name; }
const char *cml_status_words(cml_status status) { return statuses[status_index(status)].words; }
int cml_status_exit_code(cml_status status) { return statuses[status_index(status)].exit_code; }

/* Text from files may hold anything; an error stays one printable line. */
static void make_one_line(char *text) {
  for (; *text; text++)
    if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
}

cml_status cml_fail_va(cml_error *err, cml_status status, uint64_t offset, const char *format, va_list args) {
  if (!err) return status;
  err->status = status;
  err->offset = offset;
  vsnprintf(err->text, sizeof err->text, format, args);
  make_one_line(err->text);
  return status;
}

cml_status cml_fail(cml_error *err, cml_status status, uint64_t offset, const char *format, ...) {
  va_list args;
  va_start(args, format);
  cml_fail_va(err, status, offset, format, args);
  va_end(args);
  return status;
}

cml_status cml_error_prefix(cml_error *err, cml_status status, const char *format, ...) {
  if (!err) return status;
  char old[sizeof err->text];
  memcpy(old, err->text, sizeof old);
  va_list args;
  va_start(args, format);
  int n = vsnprintf(err->text, sizeof err->text, format, args);
  va_end(args);
  if (n >= 0 && (size_t)n < sizeof err->text) snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
  make_one_line(err->text);
  return status;
}

cml_status cml_fail_errno(cml_error *err, int error_number, const char *format, ...) {
  cml_status status = error_number == ENOMEM ? CML_NO_MEMORY : CML_IO;
  va_list args;
  va_start(args, format);
  cml_fail_va(err, status, CML_NO_OFFSET, format, args);
  va_end(args);
  if (err) {
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", strerror(error_number));
  }
  return status;
}

cml_status cml_fail_memory(cml_error *err) { return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "out of memory"); }
