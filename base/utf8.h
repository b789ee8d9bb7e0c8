/* UTF-8 as RFC 3629 has it: overlong forms, surrogates and values past U+10FFFF are not UTF-8. */
#ifndef CML_UTF8_H
#define CML_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Length of the sequence at p (left > 0 bytes remain), or 0 when there is none. */
static inline size_t cml_utf8_length(const void *text, size_t left) {
  const unsigned char *p = (const unsigned char *)text;
  if (p[0] < 0x80) return 1;
  size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
  if (p[0] < 0xc2 || p[0] > 0xf4 || n > left) return 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
  if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
  return n;
}

static inline bool cml_utf8_valid(const void *text, size_t size) {
  const unsigned char *p = (const unsigned char *)text;
  for (size_t i = 0, n; i < size; i += n)
    if (!(n = cml_utf8_length(p + i, size - i))) return false;
  return true;
}

#endif
