/* Writing: a first pass gives every node its position, a second one streams them out.
 *
 * Children are put before their parents, so a child's number is smaller; placing nodes from the highest number down puts
 * parents first, which makes every distance positive, and a node that nobody placed so far refers to is left out. A table
 * stands where the byte behind its 4-byte distance to the vtable is aligned for its widest field; with the fields sorted
 * by width there are no gaps. A vtable stands before the first table that uses it. */
#include <stdlib.h>

#include "checked.h"
#include "flatbuffer.h"

struct cml_fb_slot {
  uint16_t slot, offset; /* offset: in the table, set by cml_fb_end */
  uint32_t size, alignment;
  cml_fb_ref ref; /* or 0, and then */
  uint64_t value; /* up to 8 bytes, or */
  const uint8_t *bytes;
};

enum node_kind { NODE_TABLE, NODE_BYTES, NODE_STRING, NODE_REFS };

typedef struct vtable {
  uint16_t entries[2 + CML_FB_MAX_SLOT + 1];
  uint32_t size; /* bytes */
  uint64_t at;
  struct vtable *next;
} vtable;

struct cml_fb_node {
  enum node_kind kind;
  uint32_t alignment; /* of what follows the first four bytes */
  uint32_t count;     /* elements; fields of a table */
  bool wanted, owns_vtable;
  uint16_t table_size;
  uint64_t at;        /* of the length or of the distance to the vtable */
  cml_span bytes;     /* elements of BYTES and STRING */
  cml_fb_ref *refs;
  cml_fb_slot *fields;
  vtable *vtable;
};

static void fail(cml_fb_writer *w, cml_status status) {
  if (!w->status) w->status = status;
}

static void *take(cml_fb_writer *w, size_t count, size_t size) {
  void *p = w->status ? NULL : cml_arena_array(&w->arena, count, size);
  if (!p) fail(w, CML_NO_MEMORY);
  return p;
}

static cml_fb_ref add_node(cml_fb_writer *w, cml_fb_node node) {
  if (w->count == w->capacity && !w->status) {
    uint32_t capacity = w->capacity ? w->capacity * 2 : 64;
    cml_fb_node **nodes = capacity > w->capacity ? realloc(w->nodes, capacity * sizeof *nodes) : NULL;
    if (!nodes) fail(w, CML_NO_MEMORY);
    else w->nodes = nodes, w->capacity = capacity;
  }
  cml_fb_node *n = take(w, 1, sizeof *n);
  if (!n) return 0;
  *n = node;
  w->nodes[w->count++] = n;
  return w->count;
}

/* ---- vectors ---- */

cml_fb_ref cml_fb_put_string(cml_fb_writer *w, cml_string s) {
  if (s.size > INT32_MAX) return fail(w, CML_LIMIT), 0;
  return add_node(w, (cml_fb_node){
      .kind = NODE_STRING, .alignment = 4, .count = (uint32_t)s.size, .bytes = cml_span_of(s.data, s.size)});
}

cml_fb_ref cml_fb_put_bytes(cml_fb_writer *w, cml_span bytes, uint32_t alignment) {
  if (bytes.size > INT32_MAX) return fail(w, CML_LIMIT), 0;
  if (!cml_is_power_of_two(alignment)) return fail(w, CML_ARGUMENT), 0;
  return add_node(w, (cml_fb_node){
      .kind = NODE_BYTES, .alignment = alignment < 4 ? 4 : alignment, .count = (uint32_t)bytes.size, .bytes = bytes});
}

cml_fb_ref cml_fb_put_vector(cml_fb_writer *w, const void *elements, size_t count, uint32_t element_size, uint32_t alignment) {
  uint64_t size;
  if (!cml_mul(count, element_size, &size) || size > INT32_MAX) return fail(w, CML_LIMIT), 0;
  void *copy = take(w, (size_t)size, 1);
  if (!copy) return 0;
  if (size) memcpy(copy, elements, (size_t)size);
  cml_fb_ref ref = cml_fb_put_bytes(w, cml_span_of(copy, (size_t)size), alignment);
  if (ref) w->nodes[ref - 1]->count = (uint32_t)count;
  return ref;
}

cml_fb_ref cml_fb_put_refs(cml_fb_writer *w, const cml_fb_ref *refs, size_t count) {
  if (count > INT32_MAX / 4) return fail(w, CML_LIMIT), 0;
  cml_fb_ref *copy = take(w, count, sizeof *copy);
  for (size_t i = 0; copy && i < count; i++) {
    if (!refs[i] || refs[i] > w->count) return fail(w, CML_ARGUMENT), 0;
    copy[i] = refs[i];
  }
  return add_node(w, (cml_fb_node){.kind = NODE_REFS, .alignment = 4, .count = (uint32_t)count, .refs = copy});
}

/* ---- tables ---- */

void cml_fb_begin(cml_fb_writer *w) {
  if (w->field_count) fail(w, CML_ARGUMENT);
  if (!w->fields) w->fields = take(w, CML_FB_MAX_SLOT + 1, sizeof *w->fields);
}

static void add_field(cml_fb_writer *w, cml_fb_slot field) {
  if (w->status) return;
  if (field.slot > CML_FB_MAX_SLOT || w->field_count > CML_FB_MAX_SLOT || field.size > 1024) fail(w, CML_ARGUMENT);
  else w->fields[w->field_count++] = field;
}

void cml_fb_add_scalar(cml_fb_writer *w, unsigned slot, const void *value, unsigned size) {
  cml_fb_slot field = {.slot = (uint16_t)slot, .size = size, .alignment = size};
  if (size > 8) fail(w, CML_ARGUMENT);
  else memcpy(&field.value, value, size);
  add_field(w, field);
}

void cml_fb_add_u8(cml_fb_writer *w, unsigned slot, uint8_t value, uint8_t otherwise) {
  if (value != otherwise) cml_fb_add_scalar(w, slot, &value, sizeof value);
}

void cml_fb_add_u32(cml_fb_writer *w, unsigned slot, uint32_t value, uint32_t otherwise) {
  if (value != otherwise) cml_fb_add_scalar(w, slot, &value, sizeof value);
}

void cml_fb_add_u64(cml_fb_writer *w, unsigned slot, uint64_t value, uint64_t otherwise) {
  if (value != otherwise) cml_fb_add_scalar(w, slot, &value, sizeof value);
}

void cml_fb_add_f64(cml_fb_writer *w, unsigned slot, double value, double otherwise) {
  if (memcmp(&value, &otherwise, sizeof value)) cml_fb_add_scalar(w, slot, &value, sizeof value);
}

void cml_fb_add_struct(cml_fb_writer *w, unsigned slot, cml_span bytes, unsigned alignment) {
  uint8_t *copy = take(w, bytes.size, 1);
  if (!copy) return;
  if (!cml_is_power_of_two(alignment)) return fail(w, CML_ARGUMENT);
  if (bytes.size) memcpy(copy, bytes.data, bytes.size);
  add_field(w, (cml_fb_slot){.slot = (uint16_t)slot, .size = (uint32_t)bytes.size, .alignment = alignment, .bytes = copy});
}

void cml_fb_add_ref(cml_fb_writer *w, unsigned slot, cml_fb_ref ref) {
  if (ref > w->count) fail(w, CML_ARGUMENT);
  if (ref) add_field(w, (cml_fb_slot){.slot = (uint16_t)slot, .size = 4, .alignment = 4, .ref = ref});
}

void cml_fb_add_union(cml_fb_writer *w, unsigned slot, uint8_t type, cml_fb_ref ref) {
  cml_fb_add_u8(w, slot, type, 0);
  cml_fb_add_ref(w, slot + 1, ref);
}

static int by_alignment(const void *a, const void *b) {
  const cml_fb_slot *x = a, *y = b;
  if (x->alignment != y->alignment) return x->alignment < y->alignment ? 1 : -1;
  return (x->slot > y->slot) - (x->slot < y->slot);
}

cml_fb_ref cml_fb_end(cml_fb_writer *w) {
  uint32_t count = w->field_count;
  w->field_count = 0;
  cml_fb_slot *fields = take(w, count, sizeof *fields);
  if (!fields) return 0;
  if (count) memcpy(fields, w->fields, count * sizeof *fields);
  qsort(fields, count, sizeof *fields, by_alignment);
  uint64_t size = 4;
  for (uint32_t i = 0; i < count; i++) { /* structs may have a size that is no multiple of the next alignment */
    uint64_t at = ((size - 4 + fields[i].alignment - 1) & ~(uint64_t)(fields[i].alignment - 1)) + 4;
    fields[i].offset = (uint16_t)at;
    size = at + fields[i].size;
  }
  if (size > UINT16_MAX) return fail(w, CML_ARGUMENT), 0;
  uint32_t alignment = count && fields[0].alignment > 4 ? fields[0].alignment : 4;
  return add_node(w, (cml_fb_node){
      .kind = NODE_TABLE, .alignment = alignment, .count = count, .table_size = (uint16_t)size, .fields = fields});
}

/* ---- placing ---- */

static bool make_vtable(const cml_fb_node *n, vtable *v) {
  uint16_t slots = 0;
  memset(v, 0, sizeof *v);
  for (uint32_t i = 0; i < n->count; i++) {
    const cml_fb_slot *f = &n->fields[i];
    if (v->entries[2 + f->slot]) return false; /* a field twice */
    v->entries[2 + f->slot] = f->offset;
    if (f->slot >= slots) slots = (uint16_t)(f->slot + 1);
  }
  v->size = 4 + 2 * (uint32_t)slots;
  v->entries[0] = (uint16_t)v->size;
  v->entries[1] = n->table_size;
  return true;
}

/* An equal vtable that was placed before, or a new one. */
static void choose_vtable(cml_fb_writer *w, cml_fb_node *n, vtable **all) {
  vtable v;
  if (!make_vtable(n, &v)) return fail(w, CML_ARGUMENT);
  for (n->vtable = *all; n->vtable; n->vtable = n->vtable->next)
    if (n->vtable->size == v.size && !memcmp(n->vtable->entries, v.entries, v.size)) return;
  n->vtable = take(w, 1, sizeof v);
  if (!n->vtable) return;
  *n->vtable = v;
  n->vtable->next = *all;
  *all = n->vtable;
  n->owns_vtable = true;
}

static uint64_t node_size(const cml_fb_node *n) {
  switch (n->kind) {
    case NODE_TABLE: return n->table_size;
    case NODE_REFS: return 4 + 4 * (uint64_t)n->count;
    case NODE_STRING: return 4 + n->bytes.size + 1;
    default: return 4 + n->bytes.size;
  }
}

static void want(cml_fb_writer *w, const cml_fb_node *n) {
  if (n->kind == NODE_REFS)
    for (uint32_t i = 0; i < n->count; i++) w->nodes[n->refs[i] - 1]->wanted = true;
  if (n->kind == NODE_TABLE)
    for (uint32_t i = 0; i < n->count; i++)
      if (n->fields[i].ref) w->nodes[n->fields[i].ref - 1]->wanted = true;
}

cml_status cml_fb_layout(cml_fb_writer *w, cml_fb_ref root, const cml_fb_layout_options *options, cml_error *err) {
  const cml_fb_layout_options none = {0};
  if (!options) options = &none;
  if (!root || root > w->count || w->field_count || (options->header_size && !options->identifier)) fail(w, CML_ARGUMENT);
  w->identifier = options->identifier;
  w->header_size = options->header_size;
  w->size_prefix = options->size_prefix;
  uint64_t at = (w->size_prefix ? 4 : 0) + 4 + (w->identifier ? 4 : 0) + (uint64_t)w->header_size;
  vtable *vtables = NULL;
  for (uint32_t i = w->status ? 0 : root; i > 0 && !w->status; i--) {
    cml_fb_node *n = w->nodes[i - 1];
    if (i != root && !n->wanted) continue;
    if (n->kind == NODE_TABLE) choose_vtable(w, n, &vtables);
    if (n->owns_vtable) n->vtable->at = at = (at + 1) & ~(uint64_t)1, at += n->vtable->size;
    n->at = ((at + 4 + n->alignment - 1) & ~(uint64_t)(n->alignment - 1)) - 4;
    at = n->at + node_size(n);
    want(w, n);
    if (at > INT32_MAX) fail(w, CML_LIMIT);
  }
  w->size = (at + 3) & ~(uint64_t)3;
  if (w->status == CML_NO_MEMORY) return cml_fail_memory(err);
  if (w->status == CML_LIMIT) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "a FlatBuffer would exceed 2^31 - 1 bytes");
  if (w->status) return cml_fail(err, w->status, CML_NO_OFFSET, "a FlatBuffer's tables refer to what is not there");
  w->root = w->nodes[root - 1];
  return CML_OK;
}

/* ---- writing ---- */

typedef struct emitter {
  cml_sink sink;
  cml_buffer buffer; /* small things; flushed before payloads */
  uint64_t position; /* of the next byte */
  cml_status status;
  cml_error *err;
} emitter;

enum { FLUSH_AT = 1 << 16, PAYLOAD = 4096 };

static void flush(emitter *e) {
  if (!e->status) e->status = cml_buffer_check(&e->buffer, e->err);
  if (!e->status) e->status = cml_sink_write(e->sink, e->buffer.data, e->buffer.size, e->err);
  e->buffer.size = 0;
}

static void emit(emitter *e, const void *data, size_t size) {
  if (e->status) return;
  e->position += size;
  if (size >= PAYLOAD) {
    flush(e);
    if (!e->status) e->status = cml_sink_write(e->sink, data, size, e->err);
    return;
  }
  cml_buffer_append(&e->buffer, data, size);
  if (e->buffer.size >= FLUSH_AT) flush(e);
}

static void emit_u32(emitter *e, uint64_t value) {
  uint32_t v = (uint32_t)value;
  emit(e, &v, sizeof v);
}

static void pad_to(emitter *e, uint64_t position) {
  static const uint8_t zeros[PAYLOAD - 1];
  while (e->position < position && !e->status) {
    uint64_t n = position - e->position;
    emit(e, zeros, n < sizeof zeros ? (size_t)n : sizeof zeros);
  }
}

static void emit_table(const cml_fb_writer *w, emitter *e, const cml_fb_node *n) {
  emit_u32(e, n->at - n->vtable->at); /* two's complement, should the vtable lie behind */
  for (uint32_t i = 0; i < n->count; i++) {
    const cml_fb_slot *f = &n->fields[i];
    pad_to(e, n->at + f->offset);
    if (f->ref) emit_u32(e, w->nodes[f->ref - 1]->at - e->position);
    else emit(e, f->bytes ? f->bytes : (const void *)&f->value, f->size);
  }
}

static void emit_node(const cml_fb_writer *w, emitter *e, const cml_fb_node *n) {
  if (n->owns_vtable) {
    pad_to(e, n->vtable->at);
    emit(e, n->vtable->entries, n->vtable->size);
  }
  pad_to(e, n->at);
  if (n->kind == NODE_TABLE) return emit_table(w, e, n);
  emit_u32(e, n->count);
  if (n->kind == NODE_REFS)
    for (uint32_t i = 0; i < n->count; i++) emit_u32(e, w->nodes[n->refs[i] - 1]->at - e->position);
  else emit(e, n->bytes.data, n->bytes.size);
  if (n->kind == NODE_STRING) emit(e, "", 1);
}

cml_status cml_fb_write(const cml_fb_writer *w, const void *header, cml_sink sink, cml_error *err) {
  if (w->status || !w->root) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "a FlatBuffer is written before it is laid out");
  emitter e = {.sink = sink, .buffer = CML_BUFFER_INIT, .err = err};
  if (w->size_prefix) emit_u32(&e, w->size - 4);
  emit_u32(&e, w->root->at - e.position);
  if (w->identifier) emit(&e, w->identifier, 4);
  if (w->header_size) emit(&e, header, w->header_size);
  for (uint32_t i = w->count; i > 0 && !e.status; i--) {
    const cml_fb_node *n = w->nodes[i - 1];
    if (n == w->root || n->wanted) emit_node(w, &e, n);
  }
  pad_to(&e, w->size);
  flush(&e);
  cml_buffer_free(&e.buffer);
  return e.status;
}

void cml_fb_writer_free(cml_fb_writer *w) {
  free(w->nodes);
  cml_arena_free(&w->arena);
  *w = (cml_fb_writer)CML_FB_WRITER_INIT;
}
