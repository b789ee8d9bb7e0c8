/* The elementwise driver: lanes, broadcasting, chunks and threads. See elementwise.h for the idea. */
#include "elementwise.h"

#include <stdio.h>
#include <strings.h>

#include "f16.h"
#include "strided.h"

/* ---- elements in and out of lanes ---- */

/* Sub-byte elements one at a time: low bits first, a value may lie across two bytes. */
static int64_t packed_element(const uint8_t *p, unsigned bits, bool is_signed, int64_t i) {
  uint64_t at = (uint64_t)i * bits;
  unsigned word = p[at / 8];
  if (at % 8 + bits > 8) word |= (unsigned)p[at / 8 + 1] << 8;
  int64_t v = word >> (at % 8) & ((1u << bits) - 1);
  return is_signed && v >> (bits - 1) ? v - (INT64_C(1) << bits) : v;
}

/* One case of a switch over element types. */
#define CML_LOAD_CASE(tag, type)                            \
  case CML_##tag: {                                         \
    const type *p = (const type *)data + at;                \
    for (size_t i = 0; i < n; i++) to[i] = (LANE)p[i];      \
    return;                                                 \
  }
#define CML_LOAD_INTEGERS                                                                            \
  CML_LOAD_CASE(I8, int8_t) CML_LOAD_CASE(I16, int16_t) CML_LOAD_CASE(I32, int32_t) CML_LOAD_CASE(I64, int64_t) \
  CML_LOAD_CASE(U8, uint8_t) CML_LOAD_CASE(BOOL, uint8_t) CML_LOAD_CASE(U16, uint16_t) CML_LOAD_CASE(U32, uint32_t) \
  CML_LOAD_CASE(U64, uint64_t)

/* Eight elements lie in as many bytes as one has bits. They are spread to a byte each by halving: four and four to 32-bit
 * places, two and two to 16-bit places, one and one to bytes. */
#define CML_UNPACK(bits)                                                                        \
  case bits:                                                                                    \
    for (; i + 8 <= n; i += 8) {                                                                \
      const uint64_t four = (UINT64_C(1) << (4 * bits)) - 1;                                    \
      const uint64_t two = ((UINT64_C(1) << (2 * bits)) - 1) * UINT64_C(0x0000000100000001);    \
      const uint64_t one = ((UINT64_C(1) << bits) - 1) * UINT64_C(0x0001000100010001);          \
      uint64_t w = 0;                                                                           \
      memcpy(&w, p + i / 8 * bits, bits);                                                       \
      w = (w & four) | (w & four << (4 * bits)) << (32 - 4 * bits);                             \
      w = (w & two) | (w & two << (2 * bits)) << (16 - 2 * bits);                               \
      w = (w & one) | (w & one << bits) << (8 - bits);                                          \
      memcpy(to + i, &w, 8);                                                                    \
    }                                                                                           \
    break;

void cml_unpack(uint8_t *to, const void *data, unsigned bits, int64_t at, size_t n) {
  size_t i = 0;
  const uint8_t *p = (const uint8_t *)data + (uint64_t)at / 8 * bits;
  if (at % 8 == 0) switch (bits) {
    CML_UNPACK(1) CML_UNPACK(2) CML_UNPACK(3) CML_UNPACK(4) CML_UNPACK(6)
    default: break;
  }
  if (bits == 8) memcpy(to, (const uint8_t *)data + at, n);
  else for (; i < n; i++) to[i] = (uint8_t)packed_element(data, bits, false, at + (int64_t)i);
}

/* int4's sign is bit 3 of the unpacked byte. */
#define CML_LOAD_PACKED(type)                                                              \
  for (size_t done = 0; done < n;) {                                                       \
    uint8_t bytes[256];                                                                    \
    size_t m = n - done < sizeof bytes ? n - done : sizeof bytes;                          \
    cml_unpack(bytes, data, cml_dtype_bits(dtype), at + (int64_t)done, m);                 \
    if (dtype == CML_I4) for (size_t i = 0; i < m; i++) to[done + i] = (type)((bytes[i] ^ 8) - 8); \
    else for (size_t i = 0; i < m; i++) to[done + i] = (type)bytes[i];                     \
    done += m;                                                                             \
  }

void cml_load_f32(float *to, const void *data, cml_dtype dtype, int64_t at, size_t n) {
#define LANE float
  switch (dtype) {
    case CML_F32: memcpy(to, (const float *)data + at, n * sizeof *to); return;
    case CML_F16:
      if (n == 1) *to = cml_f16_to_f32(((const cml_f16 *)data)[at]);
      else cml_kernels_get()->f16_to_f32((const cml_f16 *)data + at, to, n);
      return;
    case CML_BF16: cml_kernels_get()->bf16_to_f32((const uint16_t *)data + at, to, n); return;
    CML_LOAD_CASE(F64, double)
    CML_LOAD_INTEGERS
    default: CML_LOAD_PACKED(float)
  }
#undef LANE
}

void cml_load_i64(int64_t *to, const void *data, cml_dtype dtype, int64_t at, size_t n) {
#define LANE int64_t
  switch (dtype) {
    CML_LOAD_INTEGERS
    case CML_F16: case CML_F32: case CML_F64: case CML_BF16: {
      const cml_tensor t = {.dtype = dtype, .data = (void *)(uintptr_t)data};
      for (size_t i = 0; i < n; i++) to[i] = cml_tensor_get_int(&t, at + (int64_t)i);
      return;
    }
    default: CML_LOAD_PACKED(int64_t)
  }
#undef LANE
}

/* Truncates toward zero; NaN gives 0, what does not fit the nearest value that does. */
static int64_t truncate(float x, int64_t low, int64_t high) {
  if (!(x == x)) return 0;
  return x <= (float)low ? low : x >= (float)high ? high : (int64_t)x;
}

#define CML_STORE_CASE(tag, type, low, high)                                              \
  case CML_##tag: {                                                                       \
    type *p = (type *)data + at;                                                          \
    for (size_t i = 0; i < n; i++) p[i] = (type)truncate(from[i], low, high);             \
    return;                                                                               \
  }

void cml_store_f32(void *data, cml_dtype dtype, int64_t at, const float *from, size_t n) {
  switch (dtype) {
    case CML_F32: memmove((float *)data + at, from, n * sizeof *from); return;
    case CML_F16:
      if (n == 1) ((cml_f16 *)data)[at] = cml_f16_from_f32(*from);
      else cml_kernels_get()->f32_to_f16(from, (cml_f16 *)data + at, n);
      return;
    case CML_BF16: cml_kernels_get()->f32_to_bf16(from, (uint16_t *)data + at, n); return;
    case CML_F64:
      for (size_t i = 0; i < n; i++) ((double *)data)[at + (int64_t)i] = from[i];
      return;
    case CML_BOOL:
      for (size_t i = 0; i < n; i++) ((uint8_t *)data)[at + (int64_t)i] = from[i] != 0;
      return;
    CML_STORE_CASE(I8, int8_t, INT8_MIN, INT8_MAX)
    CML_STORE_CASE(I16, int16_t, INT16_MIN, INT16_MAX)
    case CML_I32: cml_kernels_get()->f32_to_i32(from, (int32_t *)data + at, n); return;
    CML_STORE_CASE(I64, int64_t, INT64_MIN, INT64_MAX)
    CML_STORE_CASE(U8, uint8_t, 0, UINT8_MAX)
    CML_STORE_CASE(U16, uint16_t, 0, UINT16_MAX)
    CML_STORE_CASE(U32, uint32_t, 0, UINT32_MAX)
    CML_STORE_CASE(U64, uint64_t, 0, INT64_MAX)
    default: return;
  }
}

#define CML_WRAP_CASE(tag, type)                                             \
  case CML_##tag: {                                                          \
    type *p = (type *)data + at;                                             \
    for (size_t i = 0; i < n; i++) p[i] = (type)from[i];                     \
    return;                                                                  \
  }

void cml_store_i64(void *data, cml_dtype dtype, int64_t at, const int64_t *from, size_t n) {
  switch (dtype) {
    CML_WRAP_CASE(I8, int8_t) CML_WRAP_CASE(I16, int16_t) CML_WRAP_CASE(I32, int32_t) CML_WRAP_CASE(I64, int64_t)
    CML_WRAP_CASE(U8, uint8_t) CML_WRAP_CASE(U16, uint16_t) CML_WRAP_CASE(U32, uint32_t) CML_WRAP_CASE(U64, uint64_t)
    CML_WRAP_CASE(F32, float) CML_WRAP_CASE(F64, double)
    default: {
      cml_tensor t = {.dtype = dtype, .data = data};
      for (size_t i = 0; i < n; i++) cml_tensor_set_int(&t, at + (int64_t)i, from[i]);
    }
  }
}

cml_lane cml_lane_of(cml_dtype dtype) {
  return cml_dtype_is_float(dtype) ? CML_LANE_F32 : dtype == CML_I32 ? CML_LANE_I32 : dtype == CML_BOOL ? CML_LANE_BYTE : CML_LANE_I64;
}

static size_t lane_size(cml_lane lane) {
  static const uint8_t sizes[] = {[CML_LANE_F32] = 4, [CML_LANE_I32] = 4, [CML_LANE_I64] = 8, [CML_LANE_BYTE] = 1, [CML_LANE_F16] = 2};
  return sizes[lane];
}

static void load_lane(cml_lane lane, void *to, const void *data, cml_dtype dtype, int64_t at, size_t n) {
  if (lane == CML_LANE_F32) cml_load_f32(to, data, dtype, at, n);
  else if (lane == CML_LANE_I64) cml_load_i64(to, data, dtype, at, n);
  else memcpy(to, (const uint8_t *)data + (size_t)at * lane_size(lane), n * lane_size(lane)); /* of the same type */
}

static void store_lane(cml_lane lane, void *data, cml_dtype dtype, int64_t at, const void *from, size_t n) {
  if (lane == CML_LANE_F32) cml_store_f32(data, dtype, at, from, n);
  else if (lane == CML_LANE_I64) cml_store_i64(data, dtype, at, from, n);
  else memmove((uint8_t *)data + (size_t)at * lane_size(lane), from, n * lane_size(lane));
}

/* The lane's elements are the tensor's own, so that no copy is needed. */
static bool lane_is_native(cml_lane lane, cml_dtype dtype) {
  static const cml_dtype types[] = {[CML_LANE_F32] = CML_F32, [CML_LANE_I32] = CML_I32, [CML_LANE_I64] = CML_I64, [CML_LANE_BYTE] = CML_BOOL, [CML_LANE_F16] = CML_F16};
  return dtype == types[lane];
}

/* ---- operands under broadcasting ---- */

/* An operand over the output's elements: dims with strides in elements (0 where it repeats), neighbouring dims that are
 * walked alike merged into one. One dim with stride 1 is the output's own shape, with stride 0 a single value. */
typedef struct operand {
  const void *data;
  cml_dtype dtype;
  cml_lane lane;
  int32_t rank;
  int64_t dims[CML_MAX_RANK + 1], strides[CML_MAX_RANK + 1];
} operand;

/* The distance between elements of dim number i from the last. `stride`: of the dim behind it, then of it: what the dim before steps by. */
static int64_t next_stride(const cml_tensor *t, int32_t i, int64_t *stride) {
  const int64_t own = i < t->rank ? t->dims[t->rank - 1 - i] : 1, step = own == 1 ? 0 : *stride;
  *stride *= i || !t->row ? own : t->row;
  return step;
}

static void operand_init(operand *o, const cml_tensor *t, cml_lane lane, const cml_tensor *out) {
  *o = (operand){.data = t->data, .dtype = t->dtype, .lane = lane, .rank = 0};
  int64_t dims[CML_MAX_RANK + 1], strides[CML_MAX_RANK + 1], stride = 1;
  int32_t n = 0; /* from the last dim to the first */
  for (int32_t i = 0; i < out->rank; i++) {
    const int64_t dim = out->dims[out->rank - 1 - i], step = next_stride(t, i, &stride);
    if (dim == 1) continue;
    if (n && (step ? strides[n - 1] && step == strides[n - 1] * dims[n - 1] : !strides[n - 1])) dims[n - 1] *= dim;
    else dims[n] = dim, strides[n++] = step;
  }
  if (!n) dims[0] = 1, strides[n++] = 0;
  if (strides[0] > 1) { /* single columns of a wider tensor */
    memmove(dims + 1, dims, (size_t)n * sizeof *dims);
    memmove(strides + 1, strides, (size_t)n++ * sizeof *strides);
    dims[0] = strides[0] = 1;
  }
  for (int32_t i = 0; i < n; i++) o->dims[i] = dims[n - 1 - i], o->strides[i] = strides[n - 1 - i];
  o->rank = n;
}

enum { APART = 192 }; /* bytes between places: stores and loads at one distance in two pages get in each other's way */

/* n copies of the lane's first element. */
static void repeat_lane(cml_lane lane, void *buffer, size_t n) {
  const size_t size = lane_size(lane);
  if (size == 1) memset(buffer, ((uint8_t *)buffer)[0], n);
  else for (size_t m = 1; m < n; m *= 2) memcpy((char *)buffer + m * size, buffer, (m < n - m ? m : n - m) * size);
}

/* A short row that repeats: its first round from where the chunk begins, then by doubling. */
static void load_period(const operand *o, int64_t begin, size_t n, char *buffer) {
  size_t size = lane_size(o->lane), period = (size_t)o->dims[1], phase = (size_t)(begin % o->dims[1]);
  size_t first = period - phase < n ? period - phase : n, filled = n < period ? n : period;
  load_lane(o->lane, buffer, o->data, o->dtype, (int64_t)phase, first);
  if (first < filled) load_lane(o->lane, buffer + first * size, o->data, o->dtype, 0, filled - first);
  for (; filled < n; filled *= 2) memcpy(buffer + filled * size, buffer, (filled < n - filled ? filled : n - filled) * size);
}

#define SPREAD(type)                                                        \
  case sizeof(type):                                                        \
    for (; rows; rows--, from += step, to += bytes) {                       \
      type value[SPREAD_BYTES / sizeof(type)];                              \
      memcpy(value, from, sizeof(type));                                    \
      for (size_t i = 1; i < SPREAD_BYTES / sizeof(type); i++) value[i] = *value; \
      for (size_t i = 0; i < bytes; i += SPREAD_BYTES) memcpy(to + i, value, sizeof value); \
    }                                                                       \
    return;

/* Rows of n copies each of elements `step` bytes apart; writes up to SPREAD_BYTES, less than APART, beyond the last. */
static void spread_rows(cml_lane lane, char *to, const char *from, int64_t step, size_t n, size_t rows) {
  enum { SPREAD_BYTES = 64 };
  const size_t size = lane_size(lane), bytes = n * size;
  if (bytes <= 8 * SPREAD_BYTES) switch (size) {
    SPREAD(uint16_t) SPREAD(uint32_t)
    default: break;
  }
  for (; rows; rows--, from += step, to += bytes) memcpy(to, from, size), repeat_lane(lane, to, n);
}

/* Rows of n elements, contiguous or one that repeats, the first at `at` and `step` elements apart. */
static void load_row(const operand *o, int64_t at, int64_t step, size_t n, size_t rows, char *to) {
  const size_t size = lane_size(o->lane), bytes = n * size;
  const bool repeats = !o->strides[o->rank - 1];
  if (lane_is_native(o->lane, o->dtype)) {
    const char *from = (const char *)o->data + at * (int64_t)size;
    step *= (int64_t)size;
    if (repeats) spread_rows(o->lane, to, from, step, n, rows);
    else cml_copy_runs(to, bytes, from, (size_t)step, bytes, rows);
    return;
  }
  for (; rows; rows--, at += step, to += bytes) {
    load_lane(o->lane, to, o->data, o->dtype, at, repeats ? 1 : n);
    if (repeats) repeat_lane(o->lane, to, n);
  }
}

/* Along the two innermost dims. held: of which element the buffer is all copies; -1: of none. */
static void load_rows(const operand *o, int64_t begin, size_t n, char *buffer, int64_t *held) {
  int64_t index[CML_MAX_RANK + 1], at = 0, rest = begin;
  for (int32_t i = o->rank - 1; i >= 0; i--) {
    index[i] = rest % o->dims[i];
    rest /= o->dims[i];
    at += index[i] * o->strides[i];
  }
  const int32_t last = o->rank - 1, next = last - 1;
  const int64_t length = o->dims[last];
  const size_t size = lane_size(o->lane);
  const bool alike = !o->strides[last] && (uint64_t)(length - index[last]) >= n;
  if (alike && *held == at) return;
  *held = alike ? at : -1;
  while (n) {
    const uint64_t left = (uint64_t)(length - index[last]), whole = n / (uint64_t)length, rows = (uint64_t)(o->dims[next] - index[next]);
    const size_t take = index[last] || !whole ? 1 : (size_t)(whole < rows ? whole : rows), run = left < n ? (size_t)left : n;
    load_row(o, at, o->strides[next], run, take, buffer);
    buffer += take * run * size, n -= take * run;
    at += (int64_t)take * o->strides[next] - index[last] * o->strides[last];
    index[last] = 0, index[next] += (int64_t)take;
    for (int32_t i = next; i > 0 && index[i] == o->dims[i]; i--) {
      at += o->strides[i - 1] - o->dims[i] * o->strides[i];
      index[i] = 0, index[i - 1]++;
    }
  }
}

/* Elements [at, at + n) of a tensor whose rows lie apart. */
static void store_rows(const cml_tensor *t, cml_lane lane, int64_t at, size_t n, const char *from) {
  const int64_t length = t->dims[t->rank - 1];
  for (int64_t row = at / length, i = at % length; n; row++, i = 0) {
    const size_t m = (uint64_t)(length - i) < n ? (size_t)(length - i) : n;
    store_lane(lane, t->data, t->dtype, row * t->row + i, from, m);
    from += m * lane_size(lane), n -= m;
  }
}

static const void *operand_load(const operand *o, int64_t begin, size_t n, void *buffer, int64_t *held) {
  if (o->rank == 2 && !o->strides[0] && o->dims[1] < 256) {
    load_period(o, begin, n, buffer);
  } else if (o->rank > 1) {
    load_rows(o, begin, n, buffer, held);
  } else if (o->strides[0]) {
    if (lane_is_native(o->lane, o->dtype)) return (const char *)o->data + (size_t)begin * lane_size(o->lane);
    load_lane(o->lane, buffer, o->data, o->dtype, begin, n);
  }
  return buffer; /* a single value is there already */
}

static bool operand_is_single(const operand *o) { return o->rank == 1 && !o->strides[0]; }

/* ---- the driver ---- */

/* Each operand in memory and each result has a place of CML_CHUNK elements, of 4 bytes in a chain, which has no integers. */
typedef struct job {
  const cml_elementwise *e;
  size_t count, place_size;
  uint8_t places[CML_MAX_CHAIN][CML_MAX_OPERANDS], results[CML_MAX_CHAIN];
  bool loaded[CML_MAX_CHAIN][CML_MAX_OPERANDS]; /* from memory; else the place has it already */
  operand operands[CML_MAX_CHAIN][CML_MAX_OPERANDS];
} job;

enum { PLACES = CML_MAX_CHAIN + CML_MAX_CHAIN_OPERANDS };

/* float16 stays so between memory and maps. */
static cml_lane kept_lane(cml_lane lane, cml_dtype dtype) { return lane == CML_LANE_F32 && dtype == CML_F16 ? CML_LANE_F16 : lane; }

static bool takes_half(const cml_elementwise *e) {
  bool any = false;
  for (size_t k = 0; k < e->arity; k++) {
    if (e->lanes[k] != CML_LANE_F32) continue;
    if (e->in[k]->dtype != CML_F16) return false;
    any = true;
  }
  return any && e->half && (e->out_lane != CML_LANE_F32 || e->out->dtype == CML_F16);
}

void cml_map_widened(cml_map *map, size_t arity, bool half, void *out, const void *const *in, size_t n, const cml_scalars *s) {
  float wide[CML_MAX_OPERANDS][CML_CHUNK];
  const void *operands[CML_MAX_OPERANDS];
  const cml_kernels *k = cml_kernels_get();
  for (size_t i = 0; i < arity; i++) k->f16_to_f32(in[i], wide[i], n), operands[i] = wide[i];
  map(half ? wide[0] : out, operands, n, s);
  if (half) k->f32_to_f16(wide[0], out, n);
}

/* By floats. `to`: the place of the result as it is kept; NULL: the last step's, to be converted. */
static void run_wide(const job *j, size_t i, void *to, size_t at, size_t n, const void **in) {
  const cml_elementwise *e = &j->e[i];
  float wide[CML_MAX_OPERANDS][CML_CHUNK];
  int64_t result[CML_CHUNK];
  for (size_t k = 0; k < e->arity; k++) {
    if (kept_lane(e->lanes[k], e->in[k]->dtype) != CML_LANE_F16) continue;
    cml_load_f32(wide[k], in[k], CML_F16, 0, n);
    in[k] = wide[k];
  }
  bool convert = !to || (e->out_lane == CML_LANE_F32 && e->out->dtype == CML_F16);
  const void *from = in[0];
  if (e->map) e->map(convert ? result : to, in, n, &e->scalars), from = result;
  if (!to && e->out->row) store_rows(e->out, e->out_lane, (int64_t)at, n, from);
  else if (!to) store_lane(e->out_lane, e->out->data, e->out->dtype, (int64_t)at, from, n);
  else if (convert) cml_store_f32(to, CML_F16, 0, from, n);
  else if (!e->map) memcpy(to, from, n * lane_size(e->out_lane));
}

static void run_step(const job *j, size_t i, size_t at, size_t n, char *room, int64_t *held) {
  const cml_elementwise *e = &j->e[i];
  const void *in[CML_MAX_OPERANDS];
  for (size_t k = 0; k < e->arity; k++) {
    in[k] = room + j->places[i][k] * j->place_size;
    if (j->loaded[i][k]) in[k] = operand_load(&j->operands[i][k], (int64_t)at, n, room + j->places[i][k] * j->place_size, &held[k]);
  }
  cml_lane lane = kept_lane(e->out_lane, e->out->dtype);
  void *to = room + j->results[i] * j->place_size;
  const bool last = i + 1 == j->count, native = lane_is_native(lane, e->out->dtype), apart = last && native && e->out->row;
  if (last && !apart) to = native ? (char *)e->out->data + at * lane_size(lane) : NULL;
  if (to && takes_half(e)) e->half(to, in, n, &e->scalars);
  else run_wide(j, i, to, at, n, in);
  if (apart) store_rows(e->out, lane, (int64_t)at, n, to);
}

static void run_range(void *context, size_t begin, size_t end) {
  const job *j = context;
  _Alignas(64) char room[PLACES * (CML_CHUNK * 4 + APART)];
  int64_t held[CML_MAX_CHAIN][CML_MAX_OPERANDS];
  memset(held, -1, sizeof held);
  for (size_t i = 0; i < j->count; i++)
    for (size_t k = 0; k < j->e[i].arity; k++) {
      const operand *o = &j->operands[i][k];
      if (!j->loaded[i][k] || !operand_is_single(o)) continue;
      char *place = room + j->places[i][k] * j->place_size;
      load_lane(o->lane, place, o->data, o->dtype, 0, 1);
      repeat_lane(o->lane, place, end - begin < CML_CHUNK ? end - begin : CML_CHUNK);
    }
  for (size_t at = begin; at < end; at += CML_CHUNK) /* chunks get no longer, so that what is held is enough */
    for (size_t i = 0; i < j->count; i++) run_step(j, i, at, end - at < CML_CHUNK ? end - at : CML_CHUNK, room, held[i]);
}

/* Where operand k of step i is found when an earlier step has made or converted it; false when it must be loaded. */
static bool find_place(job *j, size_t i, size_t k) {
  const cml_tensor *t = j->e[i].in[k];
  for (size_t s = 0; s < i; s++) {
    if (t == j->e[s].out) return j->places[i][k] = j->results[s], true;
    for (size_t m = 0; m < j->e[s].arity && !lane_is_native(kept_lane(j->e[i].lanes[k], t->dtype), t->dtype); m++)
      if (t == j->e[s].in[m] && j->e[i].lanes[k] == j->e[s].lanes[m]) return j->places[i][k] = j->places[s][m], true;
  }
  return false;
}

/* ---- rows of two operands as they lie in memory ---- */

/* Both operands and the output over dims that all walk alike, which are more than one as a rule; strides in elements. */
enum { ROWS_OUT = 2, ROWS_WALKED };
typedef struct rows_job {
  const cml_elementwise *e;
  bool half;
  int32_t rank;
  int64_t dims[CML_MAX_RANK], strides[ROWS_WALKED][CML_MAX_RANK];
} rows_job;

/* False where rows are short, or what the kernels take is not what is in memory. */
static bool rows_init(rows_job *j, const cml_elementwise *e) {
  enum { SHORT = 48 };
  const cml_tensor *out = e->out, *walked[ROWS_WALKED] = {e->in[0], e->in[1], out};
  if (!e->kernel || e->in[0]->dtype != out->dtype || e->in[1]->dtype != out->dtype || (out->dtype != CML_F32 && out->dtype != CML_F16)) return false;
  *j = (rows_job){.e = e, .half = out->dtype == CML_F16};
  int64_t stride[ROWS_WALKED] = {1, 1, 1};
  int32_t n = 0; /* from the last dim to the first */
  for (int32_t i = 0; i < out->rank; i++) {
    const int64_t dim = out->dims[out->rank - 1 - i];
    int64_t step[ROWS_WALKED];
    bool joined = n > 0;
    for (int k = 0; k < ROWS_WALKED; k++) {
      step[k] = next_stride(walked[k], i, &stride[k]);
      joined = joined && step[k] == j->strides[k][n - 1] * j->dims[n - 1];
    }
    if (dim == 1) continue;
    if (joined) j->dims[n - 1] *= dim;
    else {
      for (int k = 0; k < ROWS_WALKED; k++) j->strides[k][n] = step[k];
      j->dims[n++] = dim;
    }
  }
  j->rank = n;
  const int64_t x = j->strides[0][0], y = j->strides[1][0];
  /* One row is a chunk of any length. Single elements of rows that lie apart are no row. */
  return n > 1 && j->dims[0] >= SHORT && x <= 1 && y <= 1 && x + y > 0 && j->strides[ROWS_OUT][0] == 1;
}

static float scalar_at(const void *data, bool half, int64_t i) { return half ? cml_f16_to_f32(((const cml_f16 *)data)[i]) : ((const float *)data)[i]; }

/* Part of a row: one operand may be the same all along. */
static void run_row(const rows_job *j, const cml_kernels *k, const int64_t *from, size_t n) {
  const size_t size = j->half ? 2 : 4;
  const char *x = (const char *)j->e->in[0]->data + (size_t)from[0] * size, *y = (const char *)j->e->in[1]->data + (size_t)from[1] * size;
  void *to = (char *)j->e->out->data + (size_t)from[ROWS_OUT] * size;
  const cml_binary f = j->e->function;
  const bool first = !j->strides[0][0], second = !j->strides[1][0];
  if (first || second) {
    const float s = scalar_at(first ? x : y, j->half, 0);
    if (j->half) k->binary_scalar_f16(f, (const void *)(first ? y : x), s, first, to, n);
    else k->binary_scalar(f, (const void *)(first ? y : x), s, first, to, n);
  } else if (j->half) k->binary_f16(f, (const void *)x, (const void *)y, to, n);
  else k->binary(f, (const void *)x, (const void *)y, to, n);
}

/* Moves all that is walked by `steps` of dim i. */
static void walk(const rows_job *j, int64_t *from, int32_t i, int64_t steps) {
  for (int k = 0; k < ROWS_WALKED; k++) from[k] += steps * j->strides[k][i];
}

static void run_rows(void *context, size_t begin, size_t end) {
  const rows_job *j = context;
  const cml_kernels *k = cml_kernels_get();
  int64_t index[CML_MAX_RANK], from[ROWS_WALKED] = {0}, rest = (int64_t)begin;
  for (int32_t i = 0; i < j->rank; rest /= j->dims[i++]) walk(j, from, i, index[i] = rest % j->dims[i]);
  for (size_t at = begin; at < end;) {
    const size_t left = (size_t)(j->dims[0] - index[0]), n = left < end - at ? left : end - at;
    run_row(j, k, from, n);
    at += n;
    walk(j, from, 0, -index[0]), index[0] = 0;
    for (int32_t i = 1; i < j->rank; i++) {
      walk(j, from, i, 1);
      if (++index[i] < j->dims[i]) break;
      walk(j, from, i, -index[i]), index[i] = 0;
    }
  }
}

void cml_elementwise_run_chain(const cml_elementwise *steps, size_t count, cml_pool *pool) {
  job j;
  const cml_tensor *out = steps[count - 1].out;
  uint8_t used = 0;
  rows_job r;
  if (count == 1 && rows_init(&r, steps)) {
    cml_parallel(pool, (size_t)cml_tensor_count(out), 16 * CML_CHUNK, run_rows, &r);
    return;
  }
  j.e = steps;
  j.count = count;
  j.place_size = CML_CHUNK * (count == 1 ? sizeof(int64_t) : sizeof(float)) + APART;
  for (size_t i = 0; i < count; i++) {
    for (size_t k = 0; k < steps[i].arity; k++) {
      if (!(j.loaded[i][k] = !find_place(&j, i, k))) continue;
      j.places[i][k] = used++;
      operand_init(&j.operands[i][k], steps[i].in[k], kept_lane(steps[i].lanes[k], steps[i].in[k]->dtype), out);
    }
    j.results[i] = used++;
  }
  cml_parallel(pool, (size_t)cml_tensor_count(out), 16 * CML_CHUNK / count, run_range, &j);
}

void cml_elementwise_run(const cml_elementwise *e, cml_pool *pool) { cml_elementwise_run_chain(e, 1, pool); }

cml_status cml_elementwise_call(cml_call *c, cml_error *err) {
  (void)err;
  cml_elementwise e = {.arity = 0};
  c->op->elementwise(c, &e);
  cml_elementwise_run(&e, c->pool);
  return CML_OK;
}

/* ---- checks ---- */

cml_status cml_check_scalars(const cml_call *c, uint32_t params, cml_error *err) {
  for (unsigned p = 0; p < c->op->param_count; p++) {
    const cml_tensor *t = params >> p & 1 ? cml_arg(c, p) : NULL;
    if (!t) continue;
    if (!t->data) return cml_call_fail(c, err, "parameter '%s' must be a constant", c->op->params[p].name);
    if (cml_tensor_count(t) != 1)
      return cml_call_fail(c, err, "parameter '%s' must be one value, found %lld", c->op->params[p].name, (long long)cml_tensor_count(t));
  }
  return CML_OK;
}

cml_status cml_check_output(const cml_call *c, size_t i, cml_error *err) {
  const cml_tensor *t = c->outs[i];
  uint64_t bytes;
  if (!cml_tensor_known_shape(t)) return CML_OK;
  if (!cml_tensor_bytes(t, &bytes) || bytes > UINT64_C(1) << 40) return cml_call_fail(c, err, "output %zu is too large", i);
  return CML_OK;
}

cml_status cml_check_axis(const cml_call *c, unsigned param, int64_t otherwise, int32_t rank, int32_t *out, cml_error *err) {
  CML_TRY(cml_check_scalars(c, 1u << param, err));
  int64_t axis = cml_arg_int(c, param, otherwise);
  *out = -1;
  if (rank >= 0 && !cml_axis(axis, rank, out))
    return cml_call_fail(c, err, "axis %lld is out of range for rank %d", (long long)axis, (int)rank);
  return CML_OK;
}

const char *cml_shape_text(const cml_tensor *t, char *buffer, size_t size) {
  size_t n = 0;
  if (t->rank < 0) snprintf(buffer, size, "[...]");
  else snprintf(buffer, size, "[");
  for (int32_t i = 0; i < t->rank; i++) {
    n = strlen(buffer);
    if (t->dims[i] < 0) snprintf(buffer + n, size - n, "%s?", i ? ", " : "");
    else snprintf(buffer + n, size - n, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
  }
  n = strlen(buffer);
  if (t->rank >= 0) snprintf(buffer + n, size - n, "]");
  return buffer;
}

int cml_word_index(const char *word, const char *const *words) {
  for (int i = 0; word && words[i]; i++)
    if (!strcasecmp(word, words[i])) return i;
  return -1;
}
