/* The elements of an immediate tensor, decoded once into the arena: packed or one by one, fixed or varints, narrowed to the
 * width that the tensor's type has. Everything is counted before it is allocated. */
#include "mil_reader.h"

typedef struct numbers {
  cml_wire_type wire; /* of one element that is not packed */
  unsigned fixed;     /* bytes of one element in the file; 0: a varint */
} numbers;

static const numbers number_kinds[] = {
    [CML_STORAGE_FLOATS] = {CML_WIRE_FIXED32, 4}, [CML_STORAGE_DOUBLES] = {CML_WIRE_FIXED64, 8},
    [CML_STORAGE_INTS] = {CML_WIRE_VARINT, 0},    [CML_STORAGE_LONGS] = {CML_WIRE_VARINT, 0},
    [CML_STORAGE_BOOLS] = {CML_WIRE_VARINT, 0},   [CML_STORAGE_STRINGS] = {CML_WIRE_BYTES, 0},
    [CML_STORAGE_BYTES] = {CML_WIRE_BYTES, 0},
};

bool cml_mil_storage_fits(cml_mil_storage storage, cml_dtype type) {
  switch (storage) {
  case CML_STORAGE_FLOATS: return type == CML_F32;
  case CML_STORAGE_DOUBLES: return type == CML_F64;
  case CML_STORAGE_BOOLS: return type == CML_BOOL;
  case CML_STORAGE_STRINGS: return type == CML_STRING;
  case CML_STORAGE_INTS: return type >= CML_I8 && type <= CML_U64 && cml_dtype_bits(type) <= 32;
  case CML_STORAGE_LONGS: return type >= CML_I8 && type <= CML_U64;
  case CML_STORAGE_BYTES: return type != CML_STRING;
  default: return true;
  }
}

/* Elements in one RepeatedInts or the like. */
static size_t packed_count(cml_span s, numbers kind) {
  if (kind.fixed) return s.size / kind.fixed;
  size_t n = 0;
  for (size_t i = 0; i < s.size; i++) n += s.data[i] < 0x80;
  return n;
}

static bool store_integer(cml_dtype type, uint64_t raw, uint8_t *out) {
  unsigned bits = cml_dtype_bits(type);
  int64_t v = (int64_t)raw;
  if (type == CML_BOOL) {
    *out = raw != 0;
    return true;
  }
  if (type == CML_U32 && v < 0 && v >= INT32_MIN) raw &= UINT32_MAX; /* stored in an int32 field */
  else if (type == CML_I32) raw = (uint32_t)raw; /* protobuf keeps the low bits of an int32 */
  else if (bits < 64 && cml_dtype_is_signed(type) && (v < -(INT64_C(1) << (bits - 1)) || v >= INT64_C(1) << (bits - 1))) return false;
  else if (bits < 64 && !cml_dtype_is_signed(type) && raw >> bits) return false;
  memcpy(out, &raw, bits / 8);
  return true;
}

static cml_status store_packed(reader *r, cml_span s, numbers kind, cml_dtype type, uint8_t **at) {
  if (kind.fixed) {
    if (s.size % kind.fixed) return cml_fail(r->err, CML_INVALID, offset_of(r, s.data), "numbers that end within one");
    if (s.size) memcpy(*at, s.data, s.size);
    *at += s.size;
    return CML_OK;
  }
  cml_wire w = cml_wire_over(s);
  while (w.at < w.end) {
    const uint8_t *start = w.at;
    uint64_t raw;
    if (!cml_wire_varint(&w, &raw)) return cml_fail(r->err, CML_INVALID, offset_of(r, start), "%s", w.problem);
    if (!store_integer(type, raw, *at))
      return cml_fail(r->err, CML_INVALID, offset_of(r, start), "%lld does not fit in %s", (long long)raw, cml_dtype_name(type));
    *at += cml_dtype_bits(type) / 8;
  }
  return CML_OK;
}

/* Numbers, packed or one by one, into one array. */
static cml_status read_numbers(reader *r, cml_span bytes, cml_mil_value *value) {
  numbers kind = number_kinds[value->storage];
  cml_dtype type = value->type->dtype;
  size_t width = cml_dtype_bits(type) / 8, count = 0;
  cml_wire_field f;
  for (cml_wire w = cml_wire_over(bytes); cml_wire_next(&w, &f);)
    if (f.number == 1) count += f.type == CML_WIRE_BYTES ? packed_count(f.bytes, kind) : 1;
  uint8_t *data = cml_arena_array(r->arena, count, width), *at = data;
  if (!data) return out_of_memory(r);
  for (cml_wire w = cml_wire_over(bytes); cml_wire_next(&w, &f);) {
    if (f.number != 1) continue;
    if (f.type == CML_WIRE_BYTES) {
      CML_TRY(store_packed(r, f.bytes, kind, type, &at));
    } else if (f.type != kind.wire) {
      return cml_fail(r->err, CML_INVALID, offset_of(r, f.raw.data), "a number of wire type %d", f.type);
    } else if (kind.fixed) {
      memcpy(at, &f.value, kind.fixed);
      at += kind.fixed;
    } else {
      if (!store_integer(type, f.value, at))
        return cml_fail(r->err, CML_INVALID, offset_of(r, f.raw.data), "a number that does not fit in %s", cml_dtype_name(type));
      at += width;
    }
  }
  value->data = cml_span_of(data, (size_t)(at - data));
  value->count = count;
  return CML_OK;
}

static cml_status read_strings(reader *r, cml_span bytes, cml_mil_value *value) {
  cml_wire_field f;
  size_t count = 0;
  for (cml_wire w = cml_wire_over(bytes); cml_wire_next(&w, &f);) count += f.number == 1;
  value->strings = CML_ARENA_NEW_ARRAY(r->arena, cml_string, count);
  if (!value->strings) return out_of_memory(r);
  for (cml_wire w = cml_wire_over(bytes); cml_wire_next(&w, &f);) {
    if (f.number != 1) continue;
    if (f.type != CML_WIRE_BYTES || !cml_wire_is_text(f.bytes))
      return cml_fail(r->err, CML_INVALID, offset_of(r, f.raw.data), "a string that is not UTF-8, or holds a NUL");
    const char *text = cml_arena_text(r->arena, (const char *)f.bytes.data, f.bytes.size);
    if (!text) return out_of_memory(r);
    value->strings[value->count++] = (cml_string){text, f.bytes.size};
  }
  return CML_OK;
}

/* Elements as raw bytes, packed as blob storage packs them. How many there are follows from the type. */
static cml_status read_bytes(reader *r, cml_span bytes, cml_mil_value *value) {
  cml_wire_field f;
  cml_span raw = {0};
  for (cml_wire w = cml_wire_over(bytes); cml_wire_next(&w, &f);)
    if (f.number == 1) raw = f.bytes;
  uint8_t *copy = cml_arena_alloc(r->arena, raw.size);
  if (!copy) return out_of_memory(r);
  if (raw.size) memcpy(copy, raw.data, raw.size);
  value->data = cml_span_of(copy, raw.size);
  uint64_t count, need;
  unsigned bits = cml_dtype_bits(value->type->dtype);
  if (!cml_mil_type_elements(value->type, &count)) count = (uint64_t)raw.size * 8 / bits;
  /* Apple's compiler gives packed indices the type of unpacked ones; whoever expands them goes by the bytes. */
  bool packed = value->type->dtype == CML_U8 && raw.size < count && r->in_constexpr;
  if (packed) count = raw.size;
  if (!cml_dtype_bytes(value->type->dtype, count, &need) || need != raw.size)
    return cml_fail(r->err, CML_INVALID, offset_of(r, bytes.data), "%zu bytes for %llu elements of %s", raw.size,
                    (unsigned long long)count, cml_dtype_name(value->type->dtype));
  value->count = (size_t)count;
  return CML_OK;
}

cml_status cml_mil_read_elements(reader *r, cml_span bytes, cml_mil_value *value) {
  if (value->storage == CML_STORAGE_STRINGS) return read_strings(r, bytes, value);
  if (value->storage == CML_STORAGE_BYTES) return read_bytes(r, bytes, value);
  return read_numbers(r, bytes, value);
}
