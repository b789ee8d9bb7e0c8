/* Protobuf messages assembled from their field numbers, so that what a test expects does not come from the code under test. */
#ifndef CML_PROTOBUF_BY_HAND_H
#define CML_PROTOBUF_BY_HAND_H

#include "test.h"

typedef struct bytes { uint8_t data[4096]; size_t size; } bytes;

static bytes cat(size_t count, const bytes *parts) {
  bytes b = {{0}, 0};
  for (size_t i = 0; i < count; i++) {
    assert_true(b.size + parts[i].size <= sizeof b.data);
    memcpy(b.data + b.size, parts[i].data, parts[i].size);
    b.size += parts[i].size;
  }
  return b;
}
#define CAT(...) cat(sizeof((bytes[]){__VA_ARGS__}) / sizeof(bytes), (bytes[]){__VA_ARGS__})

static bytes varint(uint64_t v) {
  bytes b = {{0}, 0};
  for (; v >= 0x80; v >>= 7) b.data[b.size++] = (uint8_t)(v | 0x80);
  b.data[b.size++] = (uint8_t)v;
  return b;
}
static bytes raw(const void *p, size_t n) { bytes b = {{0}, n}; memcpy(b.data, p, n); return b; }
static bytes num(uint32_t field, uint64_t v) { return CAT(varint(field << 3), varint(v)); }
static bytes msg(uint32_t field, bytes payload) { return CAT(varint(field << 3 | 2), varint(payload.size), payload); }
static bytes str(uint32_t field, const char *s) { return msg(field, raw(s, strlen(s))); }

#endif
