/* Capacity doubles; the NUL behind the text costs one spare byte. */
#include "buffer.h"

#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>

uint8_t *cml_buffer_extend(cml_buffer *b, size_t size) {
  if (b->failed) return NULL;
  size_t need;
  if (__builtin_add_overflow(b->size, size, &need) || need == SIZE_MAX) return b->failed = true, NULL;
  if (need + 1 > b->capacity) {
    size_t capacity = b->capacity > SIZE_MAX / 2 ? need + 1 : b->capacity * 2;
    if (capacity < 64) capacity = 64;
    if (capacity < need + 1) capacity = need + 1;
    uint8_t *data = realloc(b->data, capacity);
    if (!data) return b->failed = true, NULL;
    b->data = data;
    b->capacity = capacity;
  }
  uint8_t *room = b->data + b->size;
  b->size = need;
  b->data[need] = 0;
  return room;
}

void cml_buffer_append(cml_buffer *b, const void *data, size_t size) {
  uint8_t *room = cml_buffer_extend(b, size);
  if (room && size) memcpy(room, data, size);
}

void cml_buffer_text(cml_buffer *b, const char *text) { cml_buffer_append(b, text, strlen(text)); }
void cml_buffer_char(cml_buffer *b, char c) { cml_buffer_append(b, &c, 1); }

void cml_buffer_zeros(cml_buffer *b, size_t count) {
  uint8_t *room = cml_buffer_extend(b, count);
  if (room) memset(room, 0, count);
}

void cml_buffer_printf(cml_buffer *b, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  char small[256];
  int n = vsnprintf(small, sizeof small, format, args);
  va_end(args);
  if (n < 0) {
    b->failed = true;
  } else if ((size_t)n < sizeof small) {
    cml_buffer_append(b, small, (size_t)n);
  } else {
    uint8_t *room = cml_buffer_extend(b, (size_t)n);
    if (room) vsnprintf((char *)room, (size_t)n + 1, format, again);
  }
  va_end(again);
}

void cml_buffer_json_string(cml_buffer *b, const char *text, size_t size) {
  const unsigned char *p = (const unsigned char *)text;
  cml_buffer_char(b, '"');
  for (size_t i = 0; i < size;) {
    size_t n = cml_utf8_length(p + i, size - i);
    if (!n) {
      cml_buffer_text(b, "\xef\xbf\xbd");
      i++;
      continue;
    }
    if (p[i] == '"' || p[i] == '\\') cml_buffer_char(b, '\\');
    if (p[i] == '\n') cml_buffer_text(b, "\\n");
    else if (p[i] < 0x20 || p[i] == 0x7f) cml_buffer_printf(b, "\\u%04x", p[i]);
    else cml_buffer_append(b, p + i, n);
    i += n;
  }
  cml_buffer_char(b, '"');
}

cml_status cml_buffer_check(const cml_buffer *b, cml_error *err) { return b->failed ? cml_fail_memory(err) : CML_OK; }

void cml_buffer_free(cml_buffer *b) {
  free(b->data);
  *b = (cml_buffer)CML_BUFFER_INIT;
}
