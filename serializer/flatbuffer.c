/* Reading: every accessor computes in 64 bits, compares with the buffer's size, and only then forms a pointer.
 * Positions fit 32 bits because cml_fb_init cuts nothing but refuses larger buffers at the root. */
#include "flatbuffer.h"

#include <inttypes.h>

void cml_fb_init(cml_fb *fb, cml_span bytes) {
  *fb = (cml_fb){.bytes = bytes, .budget = 2 * (uint64_t)bytes.size + 4096};
  fb->error.offset = CML_NO_OFFSET;
}

static void fail_va(cml_fb *fb, cml_status status, uint64_t offset, const char *format, va_list args) {
  if (!cml_fb_failed(fb)) cml_fail_va(&fb->error, status, offset, format, args);
}

void cml_fb_fail(cml_fb *fb, uint64_t offset, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fail_va(fb, CML_INVALID, offset, format, args);
  va_end(args);
}

void cml_fb_fail_as(cml_fb *fb, cml_status status, uint64_t offset, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fail_va(fb, status, offset, format, args);
  va_end(args);
}

cml_status cml_fb_check(const cml_fb *fb, cml_error *err) {
  if (cml_fb_failed(fb) && err) *err = fb->error;
  return fb->error.status;
}

/* True when `size` bytes lie at `at`; else the failure is recorded. `at` itself is at most the buffer's end. */
static bool inside(cml_fb *fb, uint64_t at, uint64_t size, const char *what) {
  if (cml_fb_failed(fb)) return false;
  if (at <= fb->bytes.size && size <= fb->bytes.size - at) return true;
  cml_fb_fail(fb, at, "%s at offset %" PRIu64 " needs %" PRIu64 " bytes, the buffer ends at %zu", what, at, size, fb->bytes.size);
  return false;
}

bool cml_fb_spend(cml_fb *fb, uint64_t at, uint64_t cost) {
  if (cml_fb_failed(fb)) return false;
  if (cost <= fb->budget) {
    fb->budget -= cost;
    return true;
  }
  fb->budget = 0;
  cml_fb_fail_as(fb, CML_LIMIT, at, "tables and vectors are shared so often that they expand to over twice the buffer's size");
  return false;
}

/* Follows the distance that is stored at `at`; 0 after a failure. */
static uint32_t follow(cml_fb *fb, uint64_t at, const char *what) {
  if (!inside(fb, at, 4, what)) return 0;
  uint32_t distance = cml_load_u32(fb->bytes.data + at);
  uint64_t target = at + distance;
  if (distance == 0 || target >= fb->bytes.size) {
    cml_fb_fail(fb, at, "the offset of %s at %" PRIu64 " leads to %" PRIu64 ", the buffer has %zu bytes", what, at, target,
                fb->bytes.size);
    return 0;
  }
  return (uint32_t)target;
}

static cml_fb_table table_behind(cml_fb *fb, uint64_t at) {
  const cml_fb_table none = {0};
  uint32_t t = follow(fb, at, "a table");
  if (!t || !inside(fb, t, 4, "a table")) return none;
  int64_t vtable = (int64_t)t - (int32_t)cml_load_u32(fb->bytes.data + t);
  if (vtable < 0 || (uint64_t)vtable + 4 > fb->bytes.size) {
    cml_fb_fail(fb, t, "the table at %" PRIu32 " has its vtable at %" PRId64 ", outside the buffer of %zu bytes", t, vtable,
                fb->bytes.size);
    return none;
  }
  cml_fb_table r = {t, (uint32_t)vtable, cml_load_u16(fb->bytes.data + vtable), cml_load_u16(fb->bytes.data + vtable + 2)};
  if (r.vtable_size < 4 || r.vtable_size % 2 || r.size < 4) {
    cml_fb_fail(fb, r.vtable, "the vtable at %" PRIu32 " says %u bytes for itself and %u for its table", r.vtable,
                r.vtable_size, r.size);
    return none;
  }
  if (!inside(fb, r.vtable, r.vtable_size, "a vtable") || !cml_fb_spend(fb, t, r.size)) return none;
  return r;
}

cml_fb_table cml_fb_root(cml_fb *fb, const char *identifier) {
  if (fb->bytes.size > INT32_MAX) {
    cml_fb_fail_as(fb, CML_LIMIT, 0, "a FlatBuffer of %zu bytes; the format ends at 2^31 - 1", fb->bytes.size);
    return (cml_fb_table){0};
  }
  if (!inside(fb, 0, 8, "the header")) return (cml_fb_table){0};
  if (identifier && memcmp(fb->bytes.data + 4, identifier, 4)) {
    const uint8_t *found = fb->bytes.data + 4;
    bool text = true;
    for (int i = 0; i < 4; i++) text = text && found[i] > 0x20 && found[i] < 0x7f;
    cml_fb_fail(fb, 4, "the file identifier is %s%.*s, expected %s", text ? "" : "not text", text ? 4 : 0, (const char *)found,
                identifier);
    return (cml_fb_table){0};
  }
  return table_behind(fb, 0);
}

/* The table's size is not asked: FlatBuffers' Python and Go builders share vtables between tables whose fields start at
 * the same places, whatever their widths, so that in honest files it can be too small or too large. */
uint32_t cml_fb_field(cml_fb *fb, const cml_fb_table *t, unsigned slot, unsigned size) {
  uint32_t entry = 4 + 2 * slot;
  if (cml_fb_failed(fb) || !t->at || entry + 2 > t->vtable_size) return 0;
  uint16_t offset = cml_load_u16(fb->bytes.data + t->vtable + entry);
  if (!offset) return 0;
  if (offset < 4) {
    cml_fb_fail(fb, t->vtable + entry, "field %u is at byte %u of its table, inside the distance to the vtable", slot,
                offset);
    return 0;
  }
  uint64_t at = (uint64_t)t->at + offset;
  if (at <= fb->bytes.size && size <= fb->bytes.size - at) return (uint32_t)at;
  cml_fb_fail(fb, t->vtable + entry, "field %u (%u bytes) is at byte %u of the table at %" PRIu32 ", the buffer ends at %zu", slot,
              size, offset, t->at, fb->bytes.size);
  return 0;
}

uint8_t cml_fb_u8(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint8_t otherwise) {
  uint32_t at = cml_fb_field(fb, t, slot, 1);
  return at ? fb->bytes.data[at] : otherwise;
}

uint16_t cml_fb_u16(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint16_t otherwise) {
  uint32_t at = cml_fb_field(fb, t, slot, 2);
  return at ? cml_load_u16(fb->bytes.data + at) : otherwise;
}

uint32_t cml_fb_u32(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint32_t otherwise) {
  uint32_t at = cml_fb_field(fb, t, slot, 4);
  return at ? cml_load_u32(fb->bytes.data + at) : otherwise;
}

uint64_t cml_fb_u64(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint64_t otherwise) {
  uint32_t at = cml_fb_field(fb, t, slot, 8);
  return at ? cml_load_u64(fb->bytes.data + at) : otherwise;
}

double cml_fb_f64(cml_fb *fb, const cml_fb_table *t, unsigned slot, double otherwise) {
  uint32_t at = cml_fb_field(fb, t, slot, 8);
  if (at) memcpy(&otherwise, fb->bytes.data + at, 8);
  return otherwise;
}

cml_span cml_fb_struct(cml_fb *fb, const cml_fb_table *t, unsigned slot, unsigned size) {
  uint32_t at = cml_fb_field(fb, t, slot, size);
  return at ? cml_span_of(fb->bytes.data + at, size) : (cml_span){NULL, 0};
}

cml_fb_table cml_fb_table_of(cml_fb *fb, const cml_fb_table *t, unsigned slot) {
  uint32_t at = cml_fb_field(fb, t, slot, 4);
  return at ? table_behind(fb, at) : (cml_fb_table){0};
}

static cml_fb_vector vector_behind(cml_fb *fb, uint64_t at, unsigned element_size, const char *what) {
  const cml_fb_vector none = {0};
  uint32_t v = follow(fb, at, what);
  if (!v || !inside(fb, v, 4, what)) return none;
  uint32_t count = cml_load_u32(fb->bytes.data + v);
  uint64_t left = fb->bytes.size - v - 4;
  if (count > left / element_size) {
    cml_fb_fail(fb, v, "%s at %" PRIu32 " counts %" PRIu32 " elements of %u bytes, %" PRIu64 " bytes are left", what, v, count,
                element_size, left);
    return none;
  }
  return (cml_fb_vector){v + 4, count, element_size, true};
}

cml_fb_vector cml_fb_vector_of(cml_fb *fb, const cml_fb_table *t, unsigned slot, unsigned element_size) {
  uint32_t at = cml_fb_field(fb, t, slot, 4);
  if (!at) return (cml_fb_vector){0};
  cml_fb_vector v = vector_behind(fb, at, element_size, "a vector");
  if (!cml_fb_spend(fb, v.at, (uint64_t)v.count * v.element_size)) v = (cml_fb_vector){0};
  return v;
}

cml_span cml_fb_bytes(cml_fb *fb, const cml_fb_table *t, unsigned slot) {
  uint32_t at = cml_fb_field(fb, t, slot, 4);
  cml_fb_vector v = at ? vector_behind(fb, at, 1, "a vector") : (cml_fb_vector){0};
  return v.present ? cml_span_of(fb->bytes.data + v.at, v.count) : (cml_span){NULL, 0};
}

static cml_string string_behind(cml_fb *fb, uint64_t at) {
  cml_fb_vector v = vector_behind(fb, at, 1, "a string");
  if (!v.present) return (cml_string){NULL, 0};
  uint64_t end = (uint64_t)v.at + v.count;
  if (end >= fb->bytes.size || fb->bytes.data[end]) {
    cml_fb_fail(fb, v.at - 4, "the string at %" PRIu32 " has no NUL behind its %" PRIu32 " bytes", v.at - 4, v.count);
    return (cml_string){NULL, 0};
  }
  return (cml_string){(const char *)fb->bytes.data + v.at, v.count};
}

cml_string cml_fb_string(cml_fb *fb, const cml_fb_table *t, unsigned slot) {
  uint32_t at = cml_fb_field(fb, t, slot, 4);
  return at ? string_behind(fb, at) : (cml_string){NULL, 0};
}

cml_fb_table cml_fb_union(cml_fb *fb, const cml_fb_table *t, unsigned slot, uint8_t *out_type) {
  uint8_t type = cml_fb_u8(fb, t, slot, 0);
  cml_fb_table value = type ? cml_fb_table_of(fb, t, slot + 1) : (cml_fb_table){0};
  *out_type = cml_fb_failed(fb) ? 0 : type;
  return value;
}

cml_fb_table cml_fb_table_at(cml_fb *fb, const cml_fb_vector *v, uint32_t i) {
  return table_behind(fb, (uint64_t)v->at + 4 * (uint64_t)i);
}

cml_string cml_fb_string_at(cml_fb *fb, const cml_fb_vector *v, uint32_t i) {
  return string_behind(fb, (uint64_t)v->at + 4 * (uint64_t)i);
}
