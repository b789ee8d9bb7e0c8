/* The bottom of .mil text's reader: the bytes, the scratch stack, words, strings and errors. Internal to mil_text_*.c. */
#ifndef CML_MIL_TEXT_PARSER_H
#define CML_MIL_TEXT_PARSER_H

#include "mil.h"

typedef struct cml_mil_parser {
  const uint8_t *start, *p, *end;
  cml_arena *arena;
  cml_error *err; /* never NULL */
  uint8_t *scratch;
  size_t scratch_size, scratch_capacity;
  unsigned depth;
} cml_mil_parser;

/* ---- errors ---- */

/* Puts "line 3, column 14: " before an error at `at`. Columns count characters. */
cml_status cml_mil_text_place(const cml_mil_parser *r, cml_status status, const uint8_t *at);
cml_status cml_mil_text_fail(cml_mil_parser *r, cml_status status, const uint8_t *at, const char *format, ...) CML_PRINTF(4, 5);
/* "expected WHAT, found …" at the current place. */
cml_status cml_mil_text_expected(cml_mil_parser *r, const char *what);
/* One level more of types, values or blocks; the caller takes it back with depth--. */
cml_status cml_mil_text_deeper(cml_mil_parser *r);

/* ---- the scratch stack ---- */

bool cml_mil_text_grow(cml_mil_parser *r);
/* Room for one more item (of less than 4096 bytes) on top; the pointer holds until the next push. */
static inline void *cml_mil_text_push(cml_mil_parser *r, size_t size) {
  if (size > r->scratch_capacity - r->scratch_size && !cml_mil_text_grow(r)) return NULL;
  void *top = r->scratch + r->scratch_size;
  r->scratch_size += size;
  return top;
}
/* Moves what lies above `mark` to the arena. */
cml_status cml_mil_text_pop(cml_mil_parser *r, size_t mark, size_t item, void *out_items, size_t *out_count);

#define PUSH(r, item) \
  do { \
    void *push_top = cml_mil_text_push((r), sizeof(item)); \
    if (!push_top) return cml_fail_memory((r)->err); \
    memcpy(push_top, &(item), sizeof(item)); \
  } while (0)

/* ---- words ---- */

void cml_mil_text_skip(cml_mil_parser *r); /* white space and comments */

static inline void skip(cml_mil_parser *r) {
  if (r->p < r->end && *r->p == ' ') r->p++;
  if (r->p < r->end && (*r->p <= ' ' || *r->p == '#' || *r->p == '/')) cml_mil_text_skip(r);
}

static inline bool next_is(cml_mil_parser *r, char c) {
  skip(r);
  return r->p < r->end && *r->p == (uint8_t)c;
}

static inline bool accept(cml_mil_parser *r, char c) {
  if (!next_is(r, c)) return false;
  r->p++;
  return true;
}

cml_status cml_mil_text_expect(cml_mil_parser *r, char c);
cml_status cml_mil_text_expect_arrow(cml_mil_parser *r);
/* The identifier that comes next, not taken; empty when there is none. */
cml_span cml_mil_text_peek(cml_mil_parser *r);
static inline bool cml_mil_text_is(cml_span word, const char *text) { return cml_span_equal(word, cml_span_text(text)); }
bool cml_mil_text_accept_word(cml_mil_parser *r, const char *text);
/* A string in quotes, copied to the arena with its escapes undone. */
cml_status cml_mil_text_string(cml_mil_parser *r, cml_string *out);
/* A name: an identifier, or a string for names that are none. */
cml_status cml_mil_text_name(cml_mil_parser *r, const char *what, const char **out);
cml_status cml_mil_text_unsigned(cml_mil_parser *r, const char *what, int64_t *out);

#endif
