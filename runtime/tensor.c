/* Elements by index and conversion between element types; the slow, general way. Kernels have faster ones. */
#include "tensor.h"

#include <math.h>

#include "f16.h"

bool cml_tensor_bytes(const cml_tensor *t, uint64_t *out) {
  uint64_t n = 1, bytes;
  for (int32_t i = 0; i < t->rank; i++)
    if (t->dims[i] < 0 || !cml_mul(n, (uint64_t)t->dims[i], &n)) return false;
  if (t->rank < 0 || !cml_dtype_bytes(t->dtype, n, &bytes) || bytes > UINT64_C(1) << 48) return false;
  *out = bytes;
  return true;
}

/* Element i of a packed sub-byte type, low bits first; sign-extended for int4. */
static int64_t get_bits(const uint8_t *p, unsigned bits, bool is_signed, int64_t i) {
  uint64_t at = (uint64_t)i * bits;
  unsigned word = p[at / 8];
  if (at % 8 + bits > 8) word |= (unsigned)p[at / 8 + 1] << 8;
  int64_t v = word >> (at % 8) & ((1u << bits) - 1);
  return is_signed && v >> (bits - 1) ? v - (INT64_C(1) << bits) : v;
}

static void set_bits(uint8_t *p, unsigned bits, int64_t i, int64_t value) {
  uint64_t at = (uint64_t)i * bits;
  unsigned mask = (1u << bits) - 1, v = (unsigned)value & mask, shift = at % 8;
  p[at / 8] = (uint8_t)((p[at / 8] & ~(mask << shift)) | v << shift);
  if (shift + bits > 8) p[at / 8 + 1] = (uint8_t)((p[at / 8 + 1] & ~(mask >> (8 - shift))) | v >> (8 - shift));
}

/* NaN gives 0; out of range saturates, as torch's and Arm's conversions do. */
static int64_t to_int(double v) {
  if (!(v == v)) return 0;
  if (v >= 9223372036854775808.0) return INT64_MAX;
  if (v <= -9223372036854775808.0) return INT64_MIN;
  return (int64_t)v;
}

double cml_tensor_get(const cml_tensor *t, int64_t i) {
  const void *p = t->data;
  switch (t->dtype) {
    case CML_F16: return (double)cml_f16_to_f32(((const cml_f16 *)p)[i]);
    case CML_BF16: return (double)cml_bf16_to_f32(((const uint16_t *)p)[i]);
    case CML_F32: return (double)((const float *)p)[i];
    case CML_F64: return ((const double *)p)[i];
    case CML_U64: return (double)((const uint64_t *)p)[i];
    default: return (double)cml_tensor_get_int(t, i);
  }
}

int64_t cml_tensor_get_int(const cml_tensor *t, int64_t i) {
  const void *p = t->data;
  switch (t->dtype) {
    case CML_I8: return ((const int8_t *)p)[i];
    case CML_I16: return ((const int16_t *)p)[i];
    case CML_I32: return ((const int32_t *)p)[i];
    case CML_I64: return ((const int64_t *)p)[i];
    case CML_U8: case CML_BOOL: return ((const uint8_t *)p)[i];
    case CML_U16: return ((const uint16_t *)p)[i];
    case CML_U32: return ((const uint32_t *)p)[i];
    case CML_U64: return (int64_t)((const uint64_t *)p)[i];
    case CML_F16: case CML_BF16: case CML_F32: case CML_F64: return to_int(cml_tensor_get(t, i));
    case CML_I4: case CML_U1: case CML_U2: case CML_U3: case CML_U4: case CML_U6:
      return get_bits(p, cml_dtype_bits(t->dtype), t->dtype == CML_I4, i);
    default: return 0;
  }
}

void cml_tensor_set(cml_tensor *t, int64_t i, double value) {
  void *p = t->data;
  switch (t->dtype) {
    case CML_F16: ((cml_f16 *)p)[i] = cml_f16_from_f32((float)value); break;
    case CML_BF16: ((uint16_t *)p)[i] = cml_bf16_from_f32((float)value); break;
    case CML_F32: ((float *)p)[i] = (float)value; break;
    case CML_F64: ((double *)p)[i] = value; break;
    case CML_BOOL: ((uint8_t *)p)[i] = value != 0; break;
    default: cml_tensor_set_int(t, i, to_int(value));
  }
}

void cml_tensor_set_int(cml_tensor *t, int64_t i, int64_t value) {
  void *p = t->data;
  switch (t->dtype) {
    case CML_I8: case CML_U8: ((uint8_t *)p)[i] = (uint8_t)value; break;
    case CML_I16: case CML_U16: ((uint16_t *)p)[i] = (uint16_t)value; break;
    case CML_I32: case CML_U32: ((uint32_t *)p)[i] = (uint32_t)value; break;
    case CML_I64: case CML_U64: ((int64_t *)p)[i] = value; break;
    case CML_BOOL: ((uint8_t *)p)[i] = value != 0; break;
    case CML_F16: case CML_BF16: case CML_F32: case CML_F64: cml_tensor_set(t, i, (double)value); break;
    case CML_I4: case CML_U1: case CML_U2: case CML_U3: case CML_U4: case CML_U6:
      set_bits(p, cml_dtype_bits(t->dtype), i, value);
      break;
    default: break;
  }
}

/* Floats into integers narrower than 64 bits saturate at the type's ends. */
static int64_t saturate(int64_t v, cml_dtype to) {
  unsigned bits = cml_dtype_bits(to);
  if (bits >= 64) return v;
  int64_t low = cml_dtype_is_signed(to) ? -(INT64_C(1) << (bits - 1)) : 0;
  int64_t high = cml_dtype_is_signed(to) ? (INT64_C(1) << (bits - 1)) - 1 : (INT64_C(1) << bits) - 1;
  return v < low ? low : v > high ? high : v;
}

void cml_convert(void *to, cml_dtype to_type, const void *from, cml_dtype from_type, int64_t count) {
  if (to_type == from_type) {
    memmove(to, from, (size_t)count * (cml_dtype_bits(to_type) / 8));
    return;
  }
  const cml_tensor in = {.dtype = from_type, .data = (void *)(uintptr_t)from};
  cml_tensor out = {.dtype = to_type, .data = to};
  bool from_float = cml_dtype_is_float(from_type), to_float = cml_dtype_is_float(to_type);
  for (int64_t i = 0; i < count; i++) {
    if (to_float || to_type == CML_BOOL) cml_tensor_set(&out, i, cml_tensor_get(&in, i));
    else if (from_float) cml_tensor_set_int(&out, i, saturate(to_int(cml_tensor_get(&in, i)), to_type));
    else cml_tensor_set_int(&out, i, cml_tensor_get_int(&in, i));
  }
}
