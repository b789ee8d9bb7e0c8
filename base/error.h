/* Statuses and errors.
 *
 * A function that can fail returns a cml_status and takes, last, a nullable
 * cml_error that the caller owns. The error holds what was found, what was
 * expected, and where: a byte offset in the file or span that was read. */
#ifndef CML_ERROR_H
#define CML_ERROR_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CML_API __attribute__((visibility("default")))
#define CML_NODISCARD __attribute__((warn_unused_result))
#define CML_PRINTF(text, args) __attribute__((format(printf, text, args)))
#else
#define CML_API
#define CML_NODISCARD
#define CML_PRINTF(text, args)
#endif

/* name, exit code of a program that ends with it, words */
#define CML_STATUS_MAP(X)                                        \
  X(OK, 0, "success")                                            \
  X(INVALID, 1, "malformed data")                                \
  X(UNSUPPORTED, 1, "valid data that this build cannot handle")  \
  X(LIMIT, 1, "a configured limit was exceeded")                 \
  X(NOT_FOUND, 1, "no such file, entry, method or name")         \
  X(EXISTS, 1, "already exists")                                 \
  X(IO, 1, "the operating system refused to read or write")      \
  X(NO_MEMORY, 1, "out of memory")                               \
  X(ARGUMENT, 2, "the caller passed a wrong argument")           \
  X(MISMATCH, 1, "two things that must agree differ")            \
  X(CANCELLED, 1, "stopped on request")

typedef enum cml_status {
#define CML_STATUS_ENUM(name, exit_code, words) CML_##name,
  CML_STATUS_MAP(CML_STATUS_ENUM)
#undef CML_STATUS_ENUM
} cml_status;

/* The offset of an error that has none. */
#define CML_NO_OFFSET UINT64_MAX

typedef struct cml_error {
  cml_status status;
  uint64_t offset; /* bytes from the start of the file or span, or CML_NO_OFFSET */
  char text[480];  /* one line, without a full stop; UTF-8, cut at the end when too long */
} cml_error;

/* Fills err (when not NULL) and returns status, so that callers write `return cml_fail(...)`. */
CML_API cml_status cml_fail(cml_error *err, cml_status status, uint64_t offset, const char *format, ...)
    CML_PRINTF(4, 5);
CML_API cml_status cml_fail_va(cml_error *err, cml_status status, uint64_t offset, const char *format, va_list args)
    CML_PRINTF(4, 0);

/* Puts `prefix: ` before the text of an error that is already set; keeps status and offset. Returns its status. */
CML_API cml_status cml_error_prefix(cml_error *err, cml_status status, const char *format, ...) CML_PRINTF(3, 4);

/* cml_fail with CML_IO (CML_NO_MEMORY for ENOMEM) and the words for errno. */
CML_API cml_status cml_fail_errno(cml_error *err, int error_number, const char *format, ...) CML_PRINTF(3, 4);

CML_API cml_status cml_fail_memory(cml_error *err);

CML_API const char *cml_status_name(cml_status status);
CML_API const char *cml_status_words(cml_status status);
CML_API int cml_status_exit_code(cml_status status);

/* Returns from the enclosing function when expr fails; only for functions that own nothing yet. */
#define CML_TRY(expr)                          \
  do {                                         \
    cml_status cml_try_status = (expr);        \
    if (cml_try_status) return cml_try_status; \
  } while (0)

#endif
