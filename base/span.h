/* Bytes from outside: a span is a view of bytes that somebody else owns, a cursor reads through it.
 *
 * A cursor's error is sticky: after the first read that does not fit every later one gives zeros, so a
 * parser may read a whole record and check once. Offsets in errors count from the start of the outermost
 * span: a sub-cursor keeps its base. Integers are little-endian, as in every format that cml reads. */
#ifndef CML_SPAN_H
#define CML_SPAN_H

#include <stdbool.h>
#include <string.h>

#include "error.h"

typedef struct cml_span {
  const uint8_t *data;
  size_t size;
} cml_span;

/* The part [offset, offset + size) of a span; false when it does not fit. */
static inline bool cml_span_slice(cml_span s, uint64_t offset, uint64_t size, cml_span *out) {
  if (offset > s.size || size > s.size - offset) return false;
  *out = (cml_span){s.data ? s.data + offset : NULL, (size_t)size};
  return true;
}

static inline bool cml_span_equal(cml_span a, cml_span b) {
  return a.size == b.size && (a.size == 0 || !memcmp(a.data, b.data, a.size));
}

static inline cml_span cml_span_of(const void *data, size_t size) { return (cml_span){(const uint8_t *)data, size}; }
static inline cml_span cml_span_text(const char *text) { return (cml_span){(const uint8_t *)text, strlen(text)}; }

static inline uint16_t cml_load_u16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t cml_load_u32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t cml_load_u64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "cml reads little-endian formats in place and supports little-endian machines only"
#endif

typedef struct cml_cursor {
  cml_span span;
  size_t position;   /* in span */
  uint64_t base;     /* offset of span's first byte in the outermost span */
  bool failed;       /* sticky */
  uint64_t fail_at;  /* absolute offset of the read that failed */
} cml_cursor;

static inline cml_cursor cml_cursor_over(cml_span span) { return (cml_cursor){span, 0, 0, false, 0}; }
static inline size_t cml_cursor_left(const cml_cursor *c) { return c->failed ? 0 : c->span.size - c->position; }
static inline uint64_t cml_cursor_offset(const cml_cursor *c) { return c->base + c->position; }

/* Takes the next `size` bytes; an empty span when they are not there. */
static inline cml_span cml_cursor_take(cml_cursor *c, uint64_t size) {
  if (c->failed || size > c->span.size - c->position) {
    if (!c->failed) c->failed = true, c->fail_at = cml_cursor_offset(c);
    return (cml_span){NULL, 0};
  }
  cml_span s = {c->span.data ? c->span.data + c->position : NULL, (size_t)size};
  c->position += (size_t)size;
  return s;
}

static inline uint8_t cml_cursor_u8(cml_cursor *c) { cml_span s = cml_cursor_take(c, 1); return s.data ? s.data[0] : 0; }
static inline uint16_t cml_cursor_u16(cml_cursor *c) { cml_span s = cml_cursor_take(c, 2); return s.data ? cml_load_u16(s.data) : 0; }
static inline uint32_t cml_cursor_u32(cml_cursor *c) { cml_span s = cml_cursor_take(c, 4); return s.data ? cml_load_u32(s.data) : 0; }
static inline uint64_t cml_cursor_u64(cml_cursor *c) { cml_span s = cml_cursor_take(c, 8); return s.data ? cml_load_u64(s.data) : 0; }

static inline void cml_cursor_seek(cml_cursor *c, uint64_t position) {
  if (c->failed) return;
  if (position > c->span.size) c->failed = true, c->fail_at = c->base + position;
  else c->position = (size_t)position;
}

/* A cursor over the next `size` bytes, which this one skips. */
static inline cml_cursor cml_cursor_sub(cml_cursor *c, uint64_t size) {
  uint64_t base = cml_cursor_offset(c);
  cml_span s = cml_cursor_take(c, size);
  return (cml_cursor){s, 0, base, c->failed, c->fail_at};
}

/* CML_OK, or CML_INVALID "WHAT ends early". */
CML_API CML_NODISCARD cml_status cml_cursor_check(const cml_cursor *c, const char *what, cml_error *err);

#endif
