/* Bytes, words and strings of .mil text; see mil_text_read.c for the grammar. */
#include "mil_text_parser.h"

#include <stdlib.h>
#include <string.h>

#include "mil_text_number.h"
#include "mil_text_words.h"

enum { MAX_DEPTH = 64 };

/* ---- errors ---- */

/* Puts "line 3, column 14: " before an error at `at`. Columns count characters. */
cml_status cml_mil_text_place(const cml_mil_parser *r, cml_status status, const uint8_t *at) {
  size_t line = 1, column = 1;
  for (const uint8_t *p = r->start; p < at; p++) {
    if (*p == '\n') line++, column = 1;
    else column += (*p & 0xc0) != 0x80;
  }
  return cml_error_prefix(r->err, status, "line %zu, column %zu", line, column);
}

cml_status cml_mil_text_fail(cml_mil_parser *r, cml_status status, const uint8_t *at, const char *format, ...) {
  va_list args;
  va_start(args, format);
  cml_status s = cml_fail_va(r->err, status, (uint64_t)(at - r->start), format, args);
  va_end(args);
  return cml_mil_text_place(r, s, at);
}

/* The next few bytes, fit to be printed. */
static void quote_found(const cml_mil_parser *r, char out[48]) {
  if (r->p == r->end) {
    strcpy(out, "the end of the text");
    return;
  }
  size_t n = 0;
  out[n++] = '"';
  for (const uint8_t *p = r->p; p < r->end && n < 30; p++) {
    if (*p == '\n' || (n > 1 && strchr(" ,;()[]{}<>=", *p) && *p)) break;
    out[n++] = *p >= 0x20 && *p < 0x7f ? (char)*p : '?';
  }
  out[n++] = '"';
  out[n] = 0;
}

cml_status cml_mil_text_expected(cml_mil_parser *r, const char *what) {
  char found[48];
  quote_found(r, found);
  return cml_mil_text_fail(r, CML_INVALID, r->p, "expected %s, found %s", what, found);
}

cml_status cml_mil_text_deeper(cml_mil_parser *r) {
  if (r->depth == MAX_DEPTH) return cml_mil_text_fail(r, CML_LIMIT, r->p, "nested more than %d deep", MAX_DEPTH);
  r->depth++;
  return CML_OK;
}

/* ---- the scratch stack ---- */

bool cml_mil_text_grow(cml_mil_parser *r) {
  size_t capacity = r->scratch_capacity ? r->scratch_capacity * 2 : 8192;
  uint8_t *data = realloc(r->scratch, capacity);
  if (!data) return false;
  r->scratch = data;
  r->scratch_capacity = capacity;
  return true;
}

/* Moves what lies above `mark` to the arena. */
cml_status cml_mil_text_pop(cml_mil_parser *r, size_t mark, size_t item, void *out_items, size_t *out_count) {
  size_t bytes = r->scratch_size - mark;
  r->scratch_size = mark;
  *out_count = bytes / item;
  void *items = NULL;
  if (bytes) {
    if (!(items = cml_arena_alloc(r->arena, bytes))) return cml_fail_memory(r->err);
    memcpy(items, r->scratch + mark, bytes);
  }
  memcpy(out_items, &items, sizeof items);
  return CML_OK;
}

/* ---- words ---- */

void cml_mil_text_skip(cml_mil_parser *r) {
  for (; r->p < r->end; r->p++) {
    uint8_t c = *r->p;
    bool comment = c == '#' || (c == '/' && r->end - r->p > 1 && r->p[1] == '/');
    if (comment) {
      const uint8_t *newline = memchr(r->p, '\n', (size_t)(r->end - r->p));
      r->p = newline ? newline : r->end - 1;
    } else if (c != ' ' && c != '\n' && c != '\t' && c != '\r') {
      return;
    }
  }
}

cml_status cml_mil_text_expect(cml_mil_parser *r, char c) {
  if (accept(r, c)) return CML_OK;
  char what[4] = {'"', c, '"', 0};
  return cml_mil_text_expected(r, what);
}

cml_status cml_mil_text_expect_arrow(cml_mil_parser *r) {
  skip(r);
  if (r->end - r->p < 2 || r->p[0] != '-' || r->p[1] != '>') return cml_mil_text_expected(r, "\"->\"");
  r->p += 2;
  return CML_OK;
}

/* The identifier that comes next, not taken; empty when there is none. */
cml_span cml_mil_text_peek(cml_mil_parser *r) {
  skip(r);
  const uint8_t *p = r->p;
  if (p < r->end && cml_mil_name_start(*p))
    while (p < r->end && cml_mil_name_part(*p)) p++;
  return (cml_span){r->p, (size_t)(p - r->p)};
}

bool cml_mil_text_accept_word(cml_mil_parser *r, const char *text) {
  cml_span word = cml_mil_text_peek(r);
  if (!cml_mil_text_is(word, text)) return false;
  r->p += word.size;
  return true;
}

/* ---- strings ---- */

/* One escape behind the backslash; appends its bytes to *out. */
static cml_status parse_escape(cml_mil_parser *r, char **out) {
  static const char from[] = "nrtabfv0\"\\'", to[] = "\n\r\t\a\b\f\v\0\"\\'";
  if (r->p == r->end) return cml_mil_text_expected(r, "an escaped character");
  uint8_t c = *r->p++;
  if (c == 'x') {
    size_t size = (size_t)(r->end - r->p) < 2 ? (size_t)(r->end - r->p) : 2;
    uint64_t value;
    if (size < 2 || !cml_mil_hex(r->p, 2, &value)) return cml_mil_text_fail(r, CML_INVALID, r->p - 2, "\\x needs two hexadecimal digits");
    *(*out)++ = (char)value;
    r->p += 2;
    return CML_OK;
  }
  const char *found = c ? strchr(from, c) : NULL;
  if (!found) return cml_mil_text_fail(r, CML_INVALID, r->p - 2, "unknown escape \\%c in a string", c >= 0x20 && c < 0x7f ? c : '?');
  *(*out)++ = to[found - from];
  return CML_OK;
}

/* A string in quotes, copied to the arena with its escapes undone. */
cml_status cml_mil_text_string(cml_mil_parser *r, cml_string *out) {
  CML_TRY(cml_mil_text_expect(r, '"'));
  const uint8_t *start = r->p, *q = start;
  while (q < r->end && *q != '"') q += *q == '\\' ? 2 : 1;
  if (q >= r->end) return cml_mil_text_fail(r, CML_INVALID, start - 1, "a string does not end");
  char *text = cml_arena_alloc(r->arena, (size_t)(q - start) + 1), *to = text;
  if (!text) return cml_fail_memory(r->err);
  while (r->p < q) {
    const uint8_t *escape = memchr(r->p, '\\', (size_t)(q - r->p));
    size_t plain = (size_t)((escape ? escape : q) - r->p);
    memcpy(to, r->p, plain);
    to += plain;
    r->p += plain;
    if (!escape) break;
    r->p++;
    CML_TRY(parse_escape(r, &to));
  }
  r->p = q + 1;
  *to = 0;
  *out = (cml_string){text, (size_t)(to - text)};
  return CML_OK;
}

/* A name: an identifier, or a string for names that are none. */
cml_status cml_mil_text_name(cml_mil_parser *r, const char *what, const char **out) {
  cml_span word = cml_mil_text_peek(r);
  if (!word.size) {
    if (!next_is(r, '"')) return cml_mil_text_expected(r, what);
    const uint8_t *at = r->p;
    cml_string s;
    CML_TRY(cml_mil_text_string(r, &s));
    if (strlen(s.data) != s.size) return cml_mil_text_fail(r, CML_INVALID, at, "a name holds a zero byte");
    *out = s.data;
    return CML_OK;
  }
  r->p += word.size;
  *out = cml_arena_text(r->arena, (const char *)word.data, word.size);
  return *out ? CML_OK : cml_fail_memory(r->err);
}

cml_status cml_mil_text_unsigned(cml_mil_parser *r, const char *what, int64_t *out) {
  skip(r);
  uint64_t bits;
  bool range;
  const uint8_t *p = cml_mil_number_integer(r->p, r->end, CML_I64, &bits, &range);
  if (!p && !range) return cml_mil_text_fail(r, CML_INVALID, r->p, "a number is too large");
  if (!p || (int64_t)bits < 0) return cml_mil_text_expected(r, what);
  *out = (int64_t)bits;
  r->p = p;
  return CML_OK;
}
