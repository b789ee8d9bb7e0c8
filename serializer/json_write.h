/* Writes JSON to a buffer, indented, in the order of the calls: the same calls give the same bytes. Commas and line breaks
 * are its own business. An array or object opened as `flat` stays on one line. */
#ifndef CML_JSON_WRITE_H
#define CML_JSON_WRITE_H

#include "buffer.h"
#include "dtype.h"

enum { CML_JSON_DEPTH = 64 };

typedef struct cml_json {
  cml_buffer *out;
  unsigned depth, flat;           /* flat: the depth from which on everything stays on its line; 0: none */
  bool used[CML_JSON_DEPTH];      /* something was written at this depth */
  bool after_key;
  uint64_t limit;                 /* 0, or: what would start past so many bytes is left out, and `over` is set */
  bool over;
} cml_json;

static inline cml_json cml_json_over(cml_buffer *out) { return (cml_json){.out = out}; }

CML_API void cml_json_open(cml_json *j, char bracket);      /* '{' or '[' */
CML_API void cml_json_open_flat(cml_json *j, char bracket); /* the same, on one line to its end */
CML_API void cml_json_close(cml_json *j, char bracket);     /* '}' or ']'; the outermost one ends the line */
CML_API void cml_json_key(cml_json *j, const char *key);
CML_API void cml_json_key_of(cml_json *j, const char *key, size_t size);

CML_API void cml_json_text(cml_json *j, const char *text, size_t size); /* NULL: null */
CML_API void cml_json_uint(cml_json *j, uint64_t value);
CML_API void cml_json_int(cml_json *j, int64_t value);
CML_API void cml_json_bool(cml_json *j, bool value);
CML_API void cml_json_null(cml_json *j);
/* The shortest decimals that give the same double; infinities and NaN, which JSON lacks, as the strings "inf", "-inf", "nan". */
CML_API void cml_json_real(cml_json *j, double value);
/* Text where the bytes are UTF-8 without control characters other than white space, else {"hex": "…"}. */
CML_API void cml_json_bytes(cml_json *j, cml_span bytes);

/* key and value in one call */
static inline void cml_json_put_uint(cml_json *j, const char *key, uint64_t v) { cml_json_key(j, key), cml_json_uint(j, v); }
static inline void cml_json_put_int(cml_json *j, const char *key, int64_t v) { cml_json_key(j, key), cml_json_int(j, v); }
static inline void cml_json_put_bool(cml_json *j, const char *key, bool v) { cml_json_key(j, key), cml_json_bool(j, v); }
static inline void cml_json_put_text(cml_json *j, const char *key, const char *text) {
  cml_json_key(j, key), cml_json_text(j, text, text ? strlen(text) : 0);
}
static inline void cml_json_put_string(cml_json *j, const char *key, cml_string s) {
  cml_json_key(j, key), cml_json_text(j, s.data, s.size);
}

#endif
