/* The layout is decided when a blob is announced, so that offsets are known before a byte is written; the file itself is
 * then a stream of records, data and padding. Equal blobs are found by a hash and then compared. */
#include <stdlib.h>

#include "weights.h"

typedef struct blob {
  cml_dtype dtype;
  uint64_t count, offset, hash;
  cml_span data;
} blob;

struct cml_blob_writer {
  bool share;
  blob *blobs;
  size_t count, capacity;
  size_t *table; /* of blobs by hash, index + 1; twice the capacity */
  uint64_t size;
};

cml_status cml_blob_writer_create(bool share, cml_blob_writer **out, cml_error *err) {
  cml_blob_writer *w = calloc(1, sizeof *w);
  if (!w) return cml_fail_memory(err);
  w->share = share;
  w->size = CML_BLOB_ALIGNMENT;
  *out = w;
  return CML_OK;
}

void cml_blob_writer_destroy(cml_blob_writer *w) {
  if (!w) return;
  free(w->blobs);
  free(w->table);
  free(w);
}

uint64_t cml_blob_writer_size(const cml_blob_writer *w) { return w->size; }

/* Four independent lanes, so that hashing keeps up with reading. */
static uint64_t hash_bytes(cml_span s) {
  static const uint64_t k = UINT64_C(0x9e3779b97f4a7c15);
  uint64_t lanes[4] = {s.size, k, ~k, k << 1}, word;
  size_t i = 0;
  for (; s.size - i >= 32; i += 32)
    for (size_t lane = 0; lane < 4; lane++) {
      memcpy(&word, s.data + i + lane * 8, 8);
      lanes[lane] = (lanes[lane] ^ word) * k;
      lanes[lane] ^= lanes[lane] >> 32;
    }
  for (; i < s.size; i++) lanes[i & 3] = (lanes[i & 3] ^ s.data[i]) * k;
  uint64_t h = lanes[0];
  for (size_t lane = 1; lane < 4; lane++) h = (h ^ lanes[lane] ^ h >> 29) * k;
  return h ^ h >> 32;
}

static void insert(cml_blob_writer *w, size_t index) {
  size_t mask = w->capacity * 2 - 1, i = (size_t)w->blobs[index].hash & mask;
  while (w->table[i]) i = (i + 1) & mask;
  w->table[i] = index + 1;
}

static const blob *find_equal(const cml_blob_writer *w, const blob *b) {
  if (!w->share || !w->capacity) return NULL;
  for (size_t mask = w->capacity * 2 - 1, i = (size_t)b->hash & mask; w->table[i]; i = (i + 1) & mask) {
    const blob *other = &w->blobs[w->table[i] - 1];
    if (other->hash == b->hash && other->dtype == b->dtype && other->count == b->count && cml_span_equal(other->data, b->data)) return other;
  }
  return NULL;
}

static cml_status grow(cml_blob_writer *w, cml_error *err) {
  size_t capacity = w->capacity ? w->capacity * 2 : 64;
  blob *blobs = realloc(w->blobs, capacity * sizeof *blobs);
  if (blobs) w->blobs = blobs;
  size_t *table = blobs ? calloc(capacity * 2, sizeof *table) : NULL;
  if (!table) return cml_fail_memory(err);
  free(w->table);
  w->table = table;
  w->capacity = capacity;
  for (size_t i = 0; i < w->count; i++) insert(w, i);
  return CML_OK;
}

cml_status cml_blob_writer_add(cml_blob_writer *w, cml_dtype dtype, uint64_t count, cml_span data, uint64_t *out_offset, cml_error *err) {
  uint64_t need, offset, end;
  if (!cml_blob_type_number(dtype))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "%s cannot be stored in a weight file", cml_dtype_name(dtype));
  if (!cml_dtype_bytes(dtype, count, &need) || need != data.size)
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "%zu bytes for %llu elements of %s", data.size, (unsigned long long)count,
                    cml_dtype_name(dtype));
  blob b = {dtype, count, 0, w->share ? hash_bytes(data) : 0, data};
  const blob *equal = find_equal(w, &b);
  if (equal) {
    *out_offset = equal->offset;
    return CML_OK;
  }
  if (!cml_align(w->size, CML_BLOB_ALIGNMENT, &offset) || !cml_add(offset, CML_BLOB_ALIGNMENT, &end) || !cml_add(end, need, &end) ||
      w->count == UINT32_MAX)
    return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the weight file is too large");
  if (w->count == w->capacity) CML_TRY(grow(w, err));
  b.offset = offset;
  w->blobs[w->count] = b;
  insert(w, w->count++);
  w->size = end;
  *out_offset = offset;
  return CML_OK;
}

static void make_record(const blob *b, uint8_t out[CML_BLOB_ALIGNMENT]) {
  uint32_t type = cml_blob_type_number(b->dtype), sentinel = CML_BLOB_SENTINEL;
  unsigned bits = cml_dtype_bits(b->dtype);
  uint64_t size = b->data.size, at = b->offset + CML_BLOB_ALIGNMENT, padding = bits < 8 ? size * 8 - b->count * bits : 0;
  memset(out, 0, CML_BLOB_ALIGNMENT);
  memcpy(out, &sentinel, 4);
  memcpy(out + 4, &type, 4);
  memcpy(out + 8, &size, 8);
  memcpy(out + 16, &at, 8);
  memcpy(out + 24, &padding, 8);
}

cml_status cml_blob_writer_write(const cml_blob_writer *w, cml_sink sink, cml_error *err) {
  uint8_t block[CML_BLOB_ALIGNMENT] = {0};
  uint32_t head[2] = {(uint32_t)w->count, CML_BLOB_VERSION};
  memcpy(block, head, sizeof head);
  CML_TRY(cml_sink_write(sink, block, sizeof block, err));
  uint64_t at = sizeof block;
  for (size_t i = 0; i < w->count; i++) {
    const blob *b = &w->blobs[i];
    CML_TRY(cml_sink_zeros(sink, b->offset - at, err));
    make_record(b, block);
    CML_TRY(cml_sink_write(sink, block, sizeof block, err));
    CML_TRY(cml_sink_write(sink, b->data.data, b->data.size, err));
    at = b->offset + sizeof block + b->data.size;
  }
  return CML_OK;
}
