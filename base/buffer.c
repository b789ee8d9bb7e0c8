/* Capacity doubles; the NUL behind the text costs one spare byte. */
#include "buffer.h"

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

/* Length of the UTF-8 sequence at p, or 0: overlong forms, surrogates and values past U+10FFFF are refused (RFC 3629). */
static size_t utf8_length(const unsigned char *p, size_t left) {
  if (p[0] < 0x80) return 1;
  size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
  if (p[0] < 0xc2 || p[0] > 0xf4 || n > left) return 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
  if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
  return n;
}

void cml_buffer_json_string(cml_buffer *b, const char *text, size_t size) {
  const unsigned char *p = (const unsigned char *)text;
  cml_buffer_char(b, '"');
  for (size_t i = 0; i < size;) {
    size_t n = utf8_length(p + i, size - i);
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
