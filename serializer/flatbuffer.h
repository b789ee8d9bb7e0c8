/* FlatBuffers, read without trust and written without copying.
 *
 * A FlatBuffer is a web of little-endian offsets: a table starts with a signed 32-bit distance back to its vtable
 * {u16 bytes of the vtable, u16 bytes of the table, u16 position of each field or 0}, and everything of variable size
 * hangs on an unsigned 32-bit distance forward. (https://flatbuffers.dev/internals/)
 *
 * The reader checks each distance, vtable, vector and string when it is followed, so that a parser which copies what it
 * needs into a model of its own has verified exactly what it uses. Like a cml_cursor its failure is sticky: after the
 * first thing that does not fit, everything reads as absent, and the parser asks once. The first failure is kept, with
 * its byte offset. Alignment is never assumed. Two limits hold for any schema: distances are positive, hence no cycles;
 * and every table and vector that is visited is paid from a budget of twice the buffer's size, so that a small file
 * whose vectors all lead to the same tables cannot cost more than a large honest one (strings and byte spans are free,
 * because honest writers share them and reading them costs nothing).
 *
 * The writer collects nodes (children before parents) and lays them out at the end, parents first, so that distances
 * are positive, equal vtables are shared and payloads are passed to the sink straight from where they lie. */
#ifndef CML_FLATBUFFER_H
#define CML_FLATBUFFER_H

#include "arena.h"
#include "dtype.h"
#include "sink.h"
#include "span.h"

/* ---- reading ---- */

typedef struct cml_fb {
  cml_span bytes;
  uint64_t budget;
  cml_error error; /* status CML_OK until something failed */
} cml_fb;

/* All zero: an absent table, in which every field is absent. */
typedef struct cml_fb_table {
  uint32_t at, vtable; /* positions in the buffer */
  uint16_t vtable_size, size;
} cml_fb_table;

typedef struct cml_fb_vector {
  uint32_t at, count, element_size; /* position of the first element; count 0 when absent or failed */
  bool present;
} cml_fb_vector;

/* The buffer must outlive the reader and all that is read through it. */
CML_API void cml_fb_init(cml_fb *fb, cml_span bytes);
/* The root table. identifier: four characters that must stand at byte 4, or NULL. */
CML_API cml_fb_table cml_fb_root(cml_fb *fb, const char *identifier);
static inline bool cml_fb_failed(const cml_fb *fb) { return fb->error.status != CML_OK; }
/* Records a failure (CML_INVALID) unless there is one already. */
CML_API void cml_fb_fail(cml_fb *fb, uint64_t offset, const char *format, ...) CML_PRINTF(3, 4);
CML_API void cml_fb_fail_as(cml_fb *fb, cml_status status, uint64_t offset, const char *format, ...) CML_PRINTF(4, 5);
/* Pays for work or memory that the buffer asks for beyond its tables and vectors; false (and CML_LIMIT) when it is spent. */
CML_API bool cml_fb_spend(cml_fb *fb, uint64_t at, uint64_t bytes);
/* The recorded failure, or CML_OK. */
CML_API CML_NODISCARD cml_status cml_fb_check(const cml_fb *fb, cml_error *err);

/* Where a field's bytes start, or 0 when it is absent. `size` bytes of it are inside the table. */
CML_API uint32_t cml_fb_field(cml_fb *fb, const cml_fb_table *t, unsigned slot, unsigned size);
CML_API uint8_t cml_fb_u8(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint8_t otherwise);
CML_API uint16_t cml_fb_u16(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint16_t otherwise);
CML_API uint32_t cml_fb_u32(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint32_t otherwise);
CML_API uint64_t cml_fb_u64(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint64_t otherwise);
CML_API double cml_fb_f64(cml_fb *fb, const cml_fb_table *t, unsigned slot, double otherwise);
static inline int8_t cml_fb_i8(cml_fb *fb, const cml_fb_table *t, unsigned slot, int8_t otherwise) {
  return (int8_t)cml_fb_u8(fb, t, slot, (uint8_t)otherwise);
}
static inline int32_t cml_fb_i32(cml_fb *fb, const cml_fb_table *t, unsigned slot, int32_t otherwise) {
  return (int32_t)cml_fb_u32(fb, t, slot, (uint32_t)otherwise);
}
static inline int64_t cml_fb_i64(cml_fb *fb, const cml_fb_table *t, unsigned slot, int64_t otherwise) {
  return (int64_t)cml_fb_u64(fb, t, slot, (uint64_t)otherwise);
}
static inline bool cml_fb_bool(cml_fb *fb, const cml_fb_table *t, unsigned slot, bool otherwise) {
  return cml_fb_u8(fb, t, slot, otherwise) != 0;
}

/* What a field leads to; absent fields give an absent table, an empty vector, an empty string or span with NULL data. */
CML_API cml_fb_table cml_fb_table_of(cml_fb *fb, const cml_fb_table *t, unsigned slot);
CML_API cml_fb_vector cml_fb_vector_of(cml_fb *fb, const cml_fb_table *t, unsigned slot, unsigned element_size);
CML_API cml_string cml_fb_string(cml_fb *fb, const cml_fb_table *t, unsigned slot);
CML_API cml_span cml_fb_bytes(cml_fb *fb, const cml_fb_table *t, unsigned slot); /* a vector of bytes */
/* A union's type number (at slot) and table (at slot + 1; absent when the type is 0 or nothing is there). */
CML_API cml_fb_table cml_fb_union(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint8_t *out_type);
CML_API cml_span cml_fb_struct(cml_fb *fb, const cml_fb_table *t, unsigned slot, unsigned size);

/* Elements; i < count. */
CML_API cml_fb_table cml_fb_table_at(cml_fb *fb, const cml_fb_vector *v, uint32_t i);
CML_API cml_string cml_fb_string_at(cml_fb *fb, const cml_fb_vector *v, uint32_t i);
static inline const uint8_t *cml_fb_element(const cml_fb *fb, const cml_fb_vector *v, uint32_t i) {
  return fb->bytes.data + v->at + (size_t)i * v->element_size;
}

/* ---- writing ---- */

typedef uint32_t cml_fb_ref; /* a node of a writer; 0: none */

typedef struct cml_fb_node cml_fb_node;
typedef struct cml_fb_slot cml_fb_slot;

typedef struct cml_fb_writer {
  cml_arena arena;
  cml_fb_node **nodes; /* by ref - 1 */
  uint32_t count, capacity;
  cml_fb_slot *fields; /* of the table that is being filled */
  uint32_t field_count;
  cml_status status;    /* sticky: CML_NO_MEMORY, or CML_ARGUMENT after a misuse */
  uint64_t size;        /* bytes of the whole, set by cml_fb_layout */
  cml_fb_node *root;    /* what follows is set by cml_fb_layout, too */
  const char *identifier;
  uint32_t header_size;
  bool size_prefix;
} cml_fb_writer;

/* All zero bytes are an empty writer. */
#define CML_FB_WRITER_INIT {.count = 0}

enum { CML_FB_MAX_SLOT = 63 };

/* Text and payload bytes are not copied: they must live until the buffer is written. */
CML_API cml_fb_ref cml_fb_put_string(cml_fb_writer *w, cml_string s);
/* A vector of bytes whose first element is aligned to `alignment` (a power of two) from the buffer's start. */
CML_API cml_fb_ref cml_fb_put_bytes(cml_fb_writer *w, cml_span bytes, uint32_t alignment);
/* A vector of scalars or structs of 1, 2, 4, 8 or more bytes each; the elements are copied. */
CML_API cml_fb_ref cml_fb_put_vector(cml_fb_writer *w, const void *elements, size_t count, uint32_t element_size,
                                     uint32_t alignment);
/* A vector of tables or strings; no entry may be 0. The refs are copied. */
CML_API cml_fb_ref cml_fb_put_refs(cml_fb_writer *w, const cml_fb_ref *refs, size_t count);

/* A table: begin, fields in any order (slots up to CML_FB_MAX_SLOT), end. Tables do not nest: children are ended first. Scalars that equal
 * `otherwise` (the schema's default) are left out. */
CML_API void cml_fb_begin(cml_fb_writer *w);
CML_API void cml_fb_add_scalar(cml_fb_writer *w, unsigned slot, const void *value, unsigned size);
CML_API void cml_fb_add_u8(cml_fb_writer *w, unsigned slot, uint8_t value, uint8_t otherwise);
CML_API void cml_fb_add_u32(cml_fb_writer *w, unsigned slot, uint32_t value, uint32_t otherwise);
CML_API void cml_fb_add_u64(cml_fb_writer *w, unsigned slot, uint64_t value, uint64_t otherwise);
CML_API void cml_fb_add_f64(cml_fb_writer *w, unsigned slot, double value, double otherwise);
CML_API void cml_fb_add_struct(cml_fb_writer *w, unsigned slot, cml_span bytes, unsigned alignment); /* copied */
CML_API void cml_fb_add_ref(cml_fb_writer *w, unsigned slot, cml_fb_ref ref); /* 0 leaves the field out */
CML_API void cml_fb_add_union(cml_fb_writer *w, unsigned slot, uint8_t type, cml_fb_ref ref);
CML_API cml_fb_ref cml_fb_end(cml_fb_writer *w);

typedef struct cml_fb_layout_options {
  const char *identifier; /* four characters, or NULL */
  uint32_t header_size;   /* bytes left free behind the identifier (an extended header of the caller), 0 for none */
  bool size_prefix;       /* a u32 with the number of bytes that follow comes first */
} cml_fb_layout_options;

/* Places the nodes that are reachable from `root`. Afterwards w->size is known.
 * Fails with CML_LIMIT beyond 2^31 - 1 bytes, the largest FlatBuffer. */
CML_API CML_NODISCARD cml_status cml_fb_layout(cml_fb_writer *w, cml_fb_ref root, const cml_fb_layout_options *options,
                                               cml_error *err);
/* Writes the placed buffer: w->size bytes. header: header_size bytes, or NULL when that is 0. */
CML_API CML_NODISCARD cml_status cml_fb_write(const cml_fb_writer *w, const void *header, cml_sink sink, cml_error *err);
CML_API void cml_fb_writer_free(cml_fb_writer *w); /* empty and usable again */

#endif
