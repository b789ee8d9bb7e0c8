/* Tensors of the virtual machine: strides and layouts, broadcasting, copies between layouts and types. */
#include <math.h>
#include <stdio.h>

#include "et_memory.h"
#include "wide.h"

void cml_et_strides(cml_et_tensor *t) {
  int64_t step = 1;
  for (int k = t->rank - 1; k >= 0; k--) {
    t->strides[t->order[k]] = step;
    step *= t->sizes[t->order[k]];
  }
}

bool cml_et_is_contiguous(const cml_et_tensor *t) {
  int64_t step = 1;
  for (int k = t->rank - 1; k >= 0; k--) {
    if (t->sizes[k] == 0) return true;
    if (t->sizes[k] != 1 && t->strides[k] != step) return false;
    step *= t->sizes[k];
  }
  return true;
}

bool cml_et_same_shape(const cml_et_tensor *a, const cml_et_tensor *b) {
  return a->rank == b->rank && !memcmp(a->sizes, b->sizes, a->rank * sizeof *a->sizes);
}

bool cml_et_same_layout(const cml_et_tensor *a, const cml_et_tensor *b) {
  if (!cml_et_same_shape(a, b)) return false;
  for (int k = 0; k < a->rank; k++)
    if (a->sizes[k] > 1 && a->strides[k] != b->strides[k]) return false;
  return true;
}

const char *cml_et_shape_text(const cml_et_tensor *t, char *text, size_t room) {
  size_t at = (size_t)snprintf(text, room, "[");
  for (int k = 0; k < t->rank && at < room; k++) at += (size_t)snprintf(text + at, room - at, "%s%lld", k ? ", " : "", (long long)t->sizes[k]);
  if (at < room) snprintf(text + at, room - at, "]");
  return text;
}

cml_status cml_et_broadcast(const cml_et_call *c, const cml_et_tensor *const *tensors, size_t n, size_t *rank, int64_t *sizes, cml_error *err) {
  size_t r = 0;
  for (size_t i = 0; i < n; i++)
    if (tensors[i] && tensors[i]->rank > r) r = tensors[i]->rank;
  for (size_t k = 0; k < r; k++) sizes[k] = 1;
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; tensors[i] && k < tensors[i]->rank; k++) {
      int64_t size = tensors[i]->sizes[k], *out = &sizes[r - tensors[i]->rank + k];
      if (size == 1 || size == *out) continue;
      if (*out != 1)
        return cml_et_fail(c, err, "shapes do not broadcast: %lld and %lld along dimension %zu", (long long)*out, (long long)size,
                           r - tensors[i]->rank + k);
      *out = size;
    }
  *rank = r;
  return CML_OK;
}

void cml_et_broadcast_strides(const cml_et_tensor *t, size_t rank, const int64_t *sizes, int64_t *out) {
  size_t lead = rank - t->rank;
  for (size_t k = 0; k < rank; k++) out[k] = k < lead || (t->sizes[k - lead] == 1 && sizes[k] != 1) ? 0 : t->strides[k - lead];
}

void cml_et_make(cml_et_local *out, cml_dtype dtype, size_t rank, const int64_t *sizes, void *data) {
  out->t = (cml_et_tensor){.dtype = dtype, .rank = (uint8_t)rank, .data = data, .sizes = out->sizes, .strides = out->strides, .order = out->order};
  for (size_t k = 0; k < rank && k < CML_PTE_MAX_RANK; k++) {
    out->sizes[k] = sizes[k];
    out->order[k] = (uint8_t)k;
  }
  cml_et_strides(&out->t);
  out->t.capacity = (uint64_t)cml_et_numel(&out->t) * cml_et_width(&out->t);
}

void cml_et_as_real(const cml_et_tensor *t, cml_et_local *out) {
  const uint8_t last = t->rank;
  memcpy(out->sizes, t->sizes, last * sizeof *t->sizes);
  memcpy(out->order, t->order, last);
  for (int k = 0; k < last; k++) out->strides[k] = 2 * t->strides[k];
  out->sizes[last] = 2;
  out->strides[last] = 1;
  out->order[last] = last;
  out->t = *t;
  out->t.dtype = cml_et_part_type(t);
  out->t.complex = 0;
  out->t.rank = last + 1;
  out->t.sizes = out->sizes, out->t.strides = out->strides, out->t.order = out->order;
}

cml_status cml_et_contiguous(cml_et_call *c, const cml_et_tensor *t, cml_et_local *local, const cml_et_tensor **out, cml_error *err) {
  *out = t;
  if (cml_et_is_contiguous(t)) return CML_OK;
  void *data = cml_et_temp(c, (uint64_t)cml_et_numel(t) * cml_et_width(t));
  if (!data) return cml_fail_memory(err);
  cml_et_make(local, t->dtype, t->rank, t->sizes, data);
  cml_et_copy(&local->t, t);
  *out = &local->t;
  return CML_OK;
}

/* ---- elements ---- */

#define LOAD(T)                                                     \
  {                                                                 \
    const T *p = (const T *)t->data + first;                        \
    for (int64_t i = 0; i < count; i++) out[i] = (OUT)p[i * step];  \
  }

#define LOADS(HALF)                                                                                          \
  switch (t->dtype) {                                                                                        \
    case CML_F32: LOAD(float) break;                                                                         \
    case CML_F64: LOAD(double) break;                                                                        \
    case CML_I8: LOAD(int8_t) break;                                                                         \
    case CML_I16: LOAD(int16_t) break;                                                                       \
    case CML_I32: LOAD(int32_t) break;                                                                       \
    case CML_I64: LOAD(int64_t) break;                                                                       \
    case CML_BOOL:                                                                                           \
    case CML_U8: LOAD(uint8_t) break;                                                                        \
    case CML_U16: LOAD(uint16_t) break;                                                                      \
    case CML_U32: LOAD(uint32_t) break;                                                                      \
    case CML_U64: LOAD(uint64_t) break;                                                                      \
    case CML_F16: {                                                                                          \
      const cml_f16 *p = (const cml_f16 *)t->data + first;                                                   \
      for (int64_t i = 0; i < count; i++) out[i] = HALF((double)cml_f16_to_f32(p[i * step]));                \
    } break;                                                                                                 \
    case CML_BF16: {                                                                                         \
      const uint16_t *p = (const uint16_t *)t->data + first;                                                 \
      for (int64_t i = 0; i < count; i++) out[i] = HALF((double)cml_bf16_to_f32(p[i * step]));               \
    } break;                                                                                                 \
    default: memset(out, 0, (size_t)count * sizeof *out); break;                                             \
  }

/* What x86 makes of a conversion that C leaves open; torch's results there. */
static inline int64_t to_i64(double v) { return v >= -0x1p63 && v < 0x1p63 ? (int64_t)v : INT64_MIN; }
static inline int32_t to_i32(double v) { return v > -2147483649.0 && v < 2147483648.0 ? (int32_t)v : INT32_MIN; }

CML_WIDE_INLINE void load_f32_loop(float *out, const cml_et_tensor *t, int64_t first, int64_t step, int64_t count) {
#define OUT float
#define HALF (float)
  if (step == 1 && t->dtype == CML_F32) memcpy(out, (const float *)t->data + first, (size_t)count * sizeof *out);
  else if (step == 1 && t->dtype == CML_F16) cml_kernels_get()->f16_to_f32((const cml_f16 *)t->data + first, out, (size_t)count);
  else if (step == 1 && t->dtype == CML_BF16) cml_kernels_get()->bf16_to_f32((const uint16_t *)t->data + first, out, (size_t)count);
  else LOADS(HALF)
#undef OUT
#undef HALF
}

CML_WIDE_INLINE void load_f64_loop(double *out, const cml_et_tensor *t, int64_t first, int64_t step, int64_t count) {
#define OUT double
#define HALF (double)
  LOADS(HALF)
#undef OUT
#undef HALF
}

#define LOAD_INT(T)                                                                       \
  {                                                                                       \
    const T *p = (const T *)t->data + first;                                              \
    for (int64_t i = 0; i < count; i++) out[i] = to_i64((double)p[i * step]);             \
  }

CML_WIDE_INLINE void load_i64_loop(int64_t *out, const cml_et_tensor *t, int64_t first, int64_t step, int64_t count) {
#define OUT int64_t
#define HALF to_i64
  if (t->dtype == CML_F32) LOAD_INT(float)
  else if (t->dtype == CML_F64) LOAD_INT(double)
  else LOADS(HALF)
#undef OUT
#undef HALF
}

#define TO_F16(v) cml_f16_from_f32((float)(v))
#define TO_BF16(v) cml_bf16_from_f32((float)(v))
#define STORE(T, CONVERT)                                                  \
  {                                                                        \
    T *p = (T *)t->data + first;                                           \
    for (int64_t i = 0; i < count; i++) p[i * step] = (T)CONVERT(in[i]);   \
  }

#define STORES(INT, LONG, BIG)                          \
  switch (t->dtype) {                                   \
    case CML_F32: STORE(float, (float)) break;          \
    case CML_F64: STORE(double, (double)) break;        \
    case CML_I8: STORE(int8_t, INT) break;              \
    case CML_I16: STORE(int16_t, INT) break;            \
    case CML_I32: STORE(int32_t, INT) break;            \
    case CML_I64: STORE(int64_t, LONG) break;           \
    case CML_BOOL: STORE(uint8_t, 0 !=) break;          \
    case CML_U8: STORE(uint8_t, LONG) break;            \
    case CML_U16: STORE(uint16_t, LONG) break;          \
    case CML_U32: STORE(uint32_t, LONG) break;          \
    case CML_U64: STORE(uint64_t, BIG) break;           \
    case CML_F16: STORE(cml_f16, TO_F16) break;         \
    case CML_BF16: STORE(uint16_t, TO_BF16) break;      \
    default: break;                                     \
  }

/* Positive reals from 2^63 on fit into uint64. */
static inline uint64_t to_u64(double v) { return v >= 0x1p63 && v < 0x1p64 ? (uint64_t)v : (uint64_t)to_i64(v); }

CML_WIDE_INLINE void store_f32_loop(cml_et_tensor *t, int64_t first, int64_t step, int64_t count, const float *in) {
  if (step == 1 && t->dtype == CML_F32) memcpy((float *)t->data + first, in, (size_t)count * sizeof *in);
  else if (step == 1 && t->dtype == CML_F16) cml_kernels_get()->f32_to_f16(in, (cml_f16 *)t->data + first, (size_t)count);
  else if (step == 1 && t->dtype == CML_BF16) cml_kernels_get()->f32_to_bf16(in, (uint16_t *)t->data + first, (size_t)count);
  else STORES(to_i32, to_i64, to_u64)
}

CML_WIDE_INLINE void store_f64_loop(cml_et_tensor *t, int64_t first, int64_t step, int64_t count, const double *in) {
  STORES(to_i32, to_i64, to_u64)
}

CML_WIDE_INLINE void store_i64_loop(cml_et_tensor *t, int64_t first, int64_t step, int64_t count, const int64_t *in) {
    STORES((int32_t), (int64_t), (uint64_t))
}

/* Steps of 0 and 1 are known to the compiler here; loops over both are what programs run most. */
#define LOADER(name, T)                                                                                                        \
  CML_WIDE static void load_##name##_wide(T *out, const cml_et_tensor *t, int64_t first, int64_t count) {                       \
    load_##name##_loop(out, t, first, 1, count);                                                                               \
  }                                                                                                                            \
  void cml_et_load_##name(T *out, const cml_et_tensor *t, int64_t first, int64_t step, int64_t count) {                         \
    if (step == 0 && count > 0) {                                                                                              \
      load_##name##_loop(out, t, first, 1, 1);                                                                                 \
      for (int64_t i = 1; i < count; i++) out[i] = out[0];                                                                     \
    } else if (step == 1 && count > 8 && cml_wide()) {                                                                         \
      load_##name##_wide(out, t, first, count);                                                                                \
    } else {                                                                                                                   \
      load_##name##_loop(out, t, first, step, count);                                                                          \
    }                                                                                                                          \
  }
LOADER(f32, float)
LOADER(f64, double)
LOADER(i64, int64_t)

#define STORER(name, T)                                                                                                        \
  CML_WIDE static void store_##name##_wide(cml_et_tensor *t, int64_t first, int64_t count, const T *in) {                       \
    store_##name##_loop(t, first, 1, count, in);                                                                               \
  }                                                                                                                            \
  void cml_et_store_##name(cml_et_tensor *t, int64_t first, int64_t step, int64_t count, const T *in) {                         \
    if (step == 1 && count > 8 && cml_wide()) store_##name##_wide(t, first, count, in);                                        \
    else store_##name##_loop(t, first, step, count, in);                                                                       \
  }
STORER(f32, float)
STORER(f64, double)
STORER(i64, int64_t)

/* ---- copies ---- */

#define MOVE(T)                                                                                \
  {                                                                                            \
    T *p = (T *)to->data + to_first;                                                           \
    const T *q = (const T *)from->data + from_first;                                           \
    for (int64_t i = 0; i < count; i++) p[i * to_step] = q[i * from_step];                     \
  }

static void move_row(cml_et_tensor *to, int64_t to_first, int64_t to_step, const cml_et_tensor *from, int64_t from_first, int64_t from_step,
                     int64_t count) {
  size_t width = cml_et_width(to);
  if (to_step == 1 && from_step == 1) {
    memmove((char *)to->data + (size_t)to_first * width, (const char *)from->data + (size_t)from_first * width, (size_t)count * width);
    return;
  }
  switch (width) {
    case 1: MOVE(uint8_t) break;
    case 2: MOVE(uint16_t) break;
    case 4: MOVE(uint32_t) break;
    default: MOVE(uint64_t) break;
  }
}

/* Through the narrowest type that holds both ends, so that each value is rounded once. */
static void convert_row(cml_et_tensor *to, int64_t to_first, int64_t to_step, const cml_et_tensor *from, int64_t from_first,
                        int64_t from_step, int64_t count) {
  enum { CHUNK = 512 };
  union { float f[CHUNK]; double d[CHUNK]; int64_t i[CHUNK]; } b;
  bool real = cml_dtype_is_float(from->dtype), wide = from->dtype == CML_F64;
  for (int64_t at = 0; at < count; at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK, x = from_first + at * from_step, y = to_first + at * to_step;
    if (wide) {
      cml_et_load_f64(b.d, from, x, from_step, n);
      cml_et_store_f64(to, y, to_step, n, b.d);
    } else if (real) {
      cml_et_load_f32(b.f, from, x, from_step, n);
      cml_et_store_f32(to, y, to_step, n, b.f);
    } else {
      cml_et_load_i64(b.i, from, x, from_step, n);
      cml_et_store_i64(to, y, to_step, n, b.i);
    }
  }
}

void cml_et_copy(cml_et_tensor *to, const cml_et_tensor *from) {
  void (*row)(cml_et_tensor *, int64_t, int64_t, const cml_et_tensor *, int64_t, int64_t, int64_t) =
      to->dtype == from->dtype ? move_row : convert_row;
  int64_t count = cml_et_numel(to);
  if (count == 0) return;
  if (cml_et_same_layout(to, from)) {
    row(to, 0, 1, from, 0, 1, count);
    return;
  }
  /* The output's innermost dimension in memory is the row; the others count like an odometer. */
  int64_t at[CML_PTE_MAX_RANK] = {0}, x = 0, y = 0;
  int inner = to->order[to->rank - 1];
  for (;;) {
    row(to, y, to->strides[inner], from, x, from->strides[inner], to->sizes[inner]);
    int k = to->rank - 2;
    for (; k >= 0; k--) {
      int d = to->order[k];
      x += from->strides[d];
      y += to->strides[d];
      if (++at[d] < to->sizes[d]) break;
      x -= at[d] * from->strides[d];
      y -= at[d] * to->strides[d];
      at[d] = 0;
    }
    if (k < 0) return;
  }
}
