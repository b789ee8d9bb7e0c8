/* A growing byte buffer, for text and files that are made in memory.
 *
 * A failed allocation is sticky: later appends do nothing, and cml_buffer_check tells at the end. */
#ifndef CML_BUFFER_H
#define CML_BUFFER_H

#include "span.h"

typedef struct cml_buffer {
  uint8_t *data; /* owned; a NUL follows the last byte whenever data is not NULL */
  size_t size, capacity;
  bool failed;
} cml_buffer;

#define CML_BUFFER_INIT {NULL, 0, 0, false}

CML_API void cml_buffer_append(cml_buffer *b, const void *data, size_t size);
CML_API void cml_buffer_text(cml_buffer *b, const char *text);
CML_API void cml_buffer_char(cml_buffer *b, char c);
CML_API void cml_buffer_printf(cml_buffer *b, const char *format, ...) CML_PRINTF(2, 3);
CML_API void cml_buffer_zeros(cml_buffer *b, size_t count);
/* Room for `size` more bytes at the end, counted as appended; NULL after a failure. */
CML_API uint8_t *cml_buffer_extend(cml_buffer *b, size_t size);
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
CML_API void cml_buffer_json_string(cml_buffer *b, const char *text, size_t size);
CML_API CML_NODISCARD cml_status cml_buffer_check(const cml_buffer *b, cml_error *err);
static inline cml_span cml_buffer_span(const cml_buffer *b) { return (cml_span){b->data, b->size}; }
CML_API void cml_buffer_free(cml_buffer *b); /* empty and usable again */

#endif
