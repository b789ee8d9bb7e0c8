/* Nested messages are written with one byte kept free for their length, which is enough for most; a longer length moves
 * the payload up by a few bytes. That is cheaper than measuring every message before it is written. */
#include "wire.h"

bool cml_wire_varint(cml_wire *w, uint64_t *out) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && w->at < w->end; shift += 7) {
    uint8_t byte = *w->at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte & 0x80) continue;
    if (shift == 63 && byte > 1) break;
    *out = value;
    return true;
  }
  w->problem = w->at < w->end ? "a number of more than 64 bits" : "the data ends within a number";
  return false;
}

static bool stop(cml_wire *w, const uint8_t *at, const char *problem) {
  w->at = at;
  w->problem = problem;
  return false;
}

static bool take(cml_wire *w, uint64_t size, cml_span *out) {
  if (size > (uint64_t)(w->end - w->at)) return false;
  *out = (cml_span){w->at, (size_t)size};
  w->at += size;
  return true;
}

/* One field without looking into groups. */
static bool next_flat(cml_wire *w, cml_wire_field *out) {
  const uint8_t *start = w->at;
  cml_span s = {0};
  uint64_t key;
  if (!cml_wire_varint(w, &key)) return stop(w, start, w->problem);
  *out = (cml_wire_field){.number = (uint32_t)(key >> 3), .type = (cml_wire_type)(key & 7)};
  if (key > UINT32_MAX || !out->number) return stop(w, start, "a field number out of range");
  switch (out->type) {
  case CML_WIRE_VARINT:
    if (!cml_wire_varint(w, &out->value)) return stop(w, start, w->problem);
    break;
  case CML_WIRE_FIXED64:
    if (!take(w, 8, &s)) return stop(w, start, "the data ends within a field");
    out->value = cml_load_u64(s.data);
    break;
  case CML_WIRE_FIXED32:
    if (!take(w, 4, &s)) return stop(w, start, "the data ends within a field");
    out->value = cml_load_u32(s.data);
    break;
  case CML_WIRE_BYTES:
    if (!cml_wire_varint(w, &out->value)) return stop(w, start, w->problem);
    if (!take(w, out->value, &out->bytes)) return stop(w, start, "a field that is longer than what is left");
    break;
  case CML_WIRE_GROUP:
  case CML_WIRE_GROUP_END: break;
  default: return stop(w, start, "an unknown wire type");
  }
  out->raw = (cml_span){start, (size_t)(w->at - start)};
  return true;
}

bool cml_wire_next(cml_wire *w, cml_wire_field *out) {
  if (w->at == w->end || w->problem) return false;
  const uint8_t *start = w->at;
  if (!next_flat(w, out)) return false;
  if (out->type == CML_WIRE_GROUP_END) return stop(w, start, "the end of a group that was not begun");
  if (out->type != CML_WIRE_GROUP) return true;
  cml_wire_field inner;
  for (size_t depth = 1; depth;) { /* groups are obsolete: kept whole as something unknown */
    if (w->at == w->end || !next_flat(w, &inner)) return stop(w, start, "a group without an end");
    if (inner.type == CML_WIRE_GROUP) depth++;
    else if (inner.type == CML_WIRE_GROUP_END) depth--;
  }
  out->raw = (cml_span){start, (size_t)(w->at - start)};
  return true;
}

static size_t varint_bytes(uint64_t value, uint8_t out[10]) {
  size_t n = 0;
  for (; value >= 0x80; value >>= 7) out[n++] = (uint8_t)(value | 0x80);
  out[n++] = (uint8_t)value;
  return n;
}

void cml_wire_put_varint(cml_buffer *b, uint64_t value) {
  uint8_t bytes[10];
  cml_buffer_append(b, bytes, varint_bytes(value, bytes));
}

void cml_wire_put_key(cml_buffer *b, uint32_t number, cml_wire_type type) {
  cml_wire_put_varint(b, (uint64_t)number << 3 | type);
}

void cml_wire_put_uint(cml_buffer *b, uint32_t number, uint64_t value) {
  cml_wire_put_key(b, number, CML_WIRE_VARINT);
  cml_wire_put_varint(b, value);
}

void cml_wire_put_bytes(cml_buffer *b, uint32_t number, const void *data, size_t size) {
  cml_wire_put_key(b, number, CML_WIRE_BYTES);
  cml_wire_put_varint(b, size);
  cml_buffer_append(b, data, size);
}

size_t cml_wire_begin(cml_buffer *b, uint32_t number) {
  cml_wire_put_key(b, number, CML_WIRE_BYTES);
  cml_buffer_char(b, 0);
  return b->size;
}

void cml_wire_end(cml_buffer *b, size_t mark) {
  if (b->failed) return;
  uint8_t bytes[10];
  size_t size = b->size - mark, n = varint_bytes(size, bytes);
  if (n > 1 && !cml_buffer_extend(b, n - 1)) return;
  memmove(b->data + mark + n - 1, b->data + mark, size);
  memcpy(b->data + mark - 1, bytes, n);
}

bool cml_wire_is_text(cml_span s) {
  for (size_t i = 0; i < s.size;) {
    const uint8_t *p = s.data + i;
    size_t left = s.size - i;
    if (p[0] < 0x80) {
      if (!p[0]) return false;
      i++;
      continue;
    }
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2; /* RFC 3629: no overlong forms, surrogates, or past U+10FFFF */
    if (p[0] < 0xc2 || p[0] > 0xf4 || n > left) return false;
    for (size_t k = 1; k < n; k++)
      if ((p[k] & 0xc0) != 0x80) return false;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return false;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return false;
    i += n;
  }
  return true;
}
