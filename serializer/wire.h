/* Protobuf's wire format, read in place and written into a buffer.
 *
 * A message is a row of fields, each a varint key (number << 3 | type) and a payload whose length the type tells. So a
 * reader can step over what it does not know without understanding it, and can cut a large message into its parts
 * without touching their bytes. protobuf-c does the same but copies every part and tells no offsets; it reads the small
 * descriptions, this reads the program.
 *
 * Source of the format: Protocol Buffers, "Encoding". */
#ifndef CML_WIRE_H
#define CML_WIRE_H

#include "buffer.h"

typedef enum cml_wire_type { CML_WIRE_VARINT, CML_WIRE_FIXED64, CML_WIRE_BYTES, CML_WIRE_GROUP, CML_WIRE_GROUP_END,
                             CML_WIRE_FIXED32 } cml_wire_type;

typedef struct cml_wire_field {
  uint32_t number;
  cml_wire_type type;
  uint64_t value; /* VARINT, FIXED64, FIXED32 */
  cml_span bytes; /* BYTES: the payload */
  cml_span raw;   /* key and payload */
} cml_wire_field;

/* A position in a message, and why reading stopped. */
typedef struct cml_wire {
  const uint8_t *at, *end;
  const char *problem; /* NULL, or what is wrong at `at` */
} cml_wire;

static inline cml_wire cml_wire_over(cml_span s) { return (cml_wire){s.data, s.data ? s.data + s.size : NULL, NULL}; }

/* False when the bytes end early or the number needs more than 64 bits. */
bool cml_wire_varint(cml_wire *w, uint64_t *out);
/* The next field; false at the end, or with `problem` set and `at` unmoved at a malformed field. */
bool cml_wire_next(cml_wire *w, cml_wire_field *out);

/* ---- writing ---- */

void cml_wire_put_varint(cml_buffer *b, uint64_t value);
void cml_wire_put_key(cml_buffer *b, uint32_t number, cml_wire_type type);
void cml_wire_put_uint(cml_buffer *b, uint32_t number, uint64_t value); /* always written; int64 and int32 sign-extended */
void cml_wire_put_bytes(cml_buffer *b, uint32_t number, const void *data, size_t size);
/* A nested message of unknown length: what is appended between begin and end becomes its payload. */
size_t cml_wire_begin(cml_buffer *b, uint32_t number);
void cml_wire_end(cml_buffer *b, size_t mark);

/* Whether the bytes are UTF-8 without NUL, which every name and text in a model must be. */
bool cml_wire_is_text(cml_span s);

#endif
