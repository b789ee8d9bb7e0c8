/* quantized_decomposed: affine quantization, q = clamp(round(x / scale) + zero point), by tensor, channel, token or group.
 *
 * Arithmetic is that of PyTorch's reference (torch.ao.quantization.fx._decomposed): with a tensor of float64 scales it is in
 * float64, else in float32; rounding is half to even. Halves are widened first. */
#include <float.h>
#include <math.h>

#include "et_families.h"
#include "kernels.h"
#include "parallel.h"
#include "wide.h"

enum { CHUNK = 512, MIXED_DEPTH = 1 << 16 }; /* the latter: where an input's row, as kernels want it, takes little memory */

#define QUANTIZED (CML_MASK(I8) | CML_MASK(U8) | CML_MASK(I16) | CML_MASK(U16) | CML_MASK(I32))

CML_WIDE_INLINE double clamp_to(double v, double low, double high) { return v < low ? low : v > high ? high : v; }

/* How a run of elements is quantized: in float32 or in float64. */
typedef struct affine {
  double scale, inverse, zero, low, high;
  bool wide;
  bool zero_inside; /* round(x / scale + zero), by token; else round(x / scale) + zero */
} affine;

static affine affine_of(double scale, double zero, double low, double high, bool wide) {
  affine a = {.scale = wide ? scale : (double)(float)scale, .zero = zero, .low = low, .high = high, .wide = wide};
  a.inverse = wide ? 1 / scale : (double)(float)(1 / scale);
  return a;
}

CML_WIDE_INLINE double quantize_one(const affine *a, double x) {
  double v = a->wide ? x * a->inverse : (double)((float)x * (float)a->inverse);
  if (a->zero_inside) return clamp_to(rint(a->wide ? v + a->zero : (double)((float)v + (float)a->zero)), a->low, a->high);
  return clamp_to(rint(v) + a->zero, a->low, a->high);
}

CML_WIDE_INLINE double dequantize_one(const affine *a, double q) {
  return a->wide ? (q - a->zero) * a->scale : (double)((float)(q - a->zero) * (float)a->scale);
}

/* What differs between affines is known to the compiler in each loop. */
CML_WIDE_INLINE void quantize_loop(const affine *from, double *b, int64_t n) {
  affine a = *from;
  if (!a.wide && !a.zero_inside) {
    a.wide = a.zero_inside = false;
    for (int64_t i = 0; i < n; i++) b[i] = quantize_one(&a, b[i]);
  } else {
    for (int64_t i = 0; i < n; i++) b[i] = quantize_one(&a, b[i]);
  }
}
CML_WIDE_INLINE void dequantize_loop(const affine *from, double *b, int64_t n) {
  affine a = *from;
  if (!a.wide) {
    a.wide = false;
    for (int64_t i = 0; i < n; i++) b[i] = dequantize_one(&a, b[i]);
  } else {
    for (int64_t i = 0; i < n; i++) b[i] = dequantize_one(&a, b[i]);
  }
}
CML_WIDE static void quantize_wide(const affine *a, double *b, int64_t n) { quantize_loop(a, b, n); }
CML_WIDE static void dequantize_wide(const affine *a, double *b, int64_t n) { dequantize_loop(a, b, n); }

/* The shared loop: elements first, first + step, … of both tensors. */
static void quantize_run(const affine *a, cml_et_tensor *out, int64_t to, int64_t to_step, const cml_et_tensor *in, int64_t from,
                         int64_t from_step, int64_t count) {
  double b[CHUNK];
  for (int64_t at = 0; at < count; at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK;
    cml_et_load_f64(b, in, from + at * from_step, from_step, n);
    (cml_wide() ? quantize_wide : quantize_loop)(a, b, n);
    cml_et_store_f64(out, to + at * to_step, to_step, n, b);
  }
}

/* Small integers stay whole in float: (q - zero) * scale. */
CML_WIDE_INLINE void narrow_loop(float *b, int64_t n, float zero, float scale) {
  for (int64_t i = 0; i < n; i++) b[i] = (b[i] - zero) * scale;
}
CML_WIDE static void narrow_wide(float *b, int64_t n, float zero, float scale) { narrow_loop(b, n, zero, scale); }

static void dequantize_narrow(const affine *a, cml_et_tensor *out, int64_t to, const cml_et_tensor *in, int64_t from, int64_t count) {
  float b[CHUNK];
  for (int64_t at = 0; at < count; at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK;
    float *y = out->dtype == CML_F32 ? (float *)out->data + to + at : b;
    cml_et_load_f32(y, in, from + at, 1, n);
    (cml_wide() ? narrow_wide : narrow_loop)(y, n, (float)a->zero, (float)a->scale);
    if (y == b) cml_et_store_f32(out, to + at, 1, n, b);
  }
}

static void dequantize_run(const affine *a, cml_et_tensor *out, int64_t to, int64_t to_step, const cml_et_tensor *in, int64_t from,
                           int64_t from_step, int64_t count) {
  double b[CHUNK];
  bool narrow = !a->wide && fabs(a->zero) < 0x1p20 && (in->dtype == CML_I8 || in->dtype == CML_U8 || in->dtype == CML_I16 || in->dtype == CML_U16);
  if (narrow && to_step == 1 && from_step == 1 && in->data != out->data) return dequantize_narrow(a, out, to, in, from, count);
  for (int64_t at = 0; at < count; at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK;
    cml_et_load_f64(b, in, from + at * from_step, from_step, n);
    (cml_wide() ? dequantize_wide : dequantize_loop)(a, b, n);
    cml_et_store_f64(out, to + at * to_step, to_step, n, b);
  }
}

static double element(const cml_et_tensor *t, int64_t i) {
  double v;
  cml_et_load_f64(&v, t, i, 1, 1);
  return v;
}

/* Checks types, resizes out as in; contiguous views of in where its layout is not out's. */
static cml_status begin(cml_et_call *c, const cml_et_tensor *in, cml_et_tensor *out, bool quantizes, cml_error *err) {
  CML_TRY(cml_et_want(c, in, quantizes ? CML_ET_FLOATING : QUANTIZED | CML_MASK(I64), "the input", err));
  CML_TRY(cml_et_want(c, out, quantizes ? QUANTIZED : CML_ET_FLOATING, "the output", err));
  CML_TRY(cml_et_resize_like(c, out, in, err));
  if (!cml_et_same_layout(in, out)) return cml_et_fail(c, err, "input and output have different dim orders");
  return CML_OK;
}

static cml_status one_number(const cml_et_call *c, size_t i, double *out, cml_error *err) {
  const cml_et_tensor *t = cml_et_arg(c, i);
  if (cml_et_numel(t) != 1) return cml_et_fail(c, err, "argument %zu is no single number", i);
  *out = element(t, 0);
  return CML_OK;
}

/* ---- by tensor: (input, scale, zero point, min, max, dtype, [out_dtype?,] out) ---- */

static cml_status quantize_tensor(cml_et_call *c, double scale, double zero, bool wide, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 6);
  CML_TRY(begin(c, in, out, true, err));
  affine a = affine_of(scale, zero, (double)cml_et_int(c, 3, 0), (double)cml_et_int(c, 4, 0), wide);
  quantize_run(&a, out, 0, 1, in, 0, 1, cml_et_numel(in));
  return CML_OK;
}

static cml_status quantize_per_tensor(cml_et_call *c, cml_error *err) {
  return quantize_tensor(c, cml_et_real(c, 1, 1), (double)cml_et_int(c, 2, 0), false, err);
}

static cml_status quantize_per_tensor_args(cml_et_call *c, cml_error *err) {
  double scale = 1, zero = 0;
  CML_TRY(one_number(c, 1, &scale, err));
  CML_TRY(one_number(c, 2, &zero, err));
  return quantize_tensor(c, scale, zero, false, err);
}

static cml_status dequantize_tensor(cml_et_call *c, double scale, double zero, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 7);
  CML_TRY(begin(c, in, out, false, err));
  affine a = affine_of(scale, zero, 0, 0, out->dtype == CML_F64);
  dequantize_run(&a, out, 0, 1, in, 0, 1, cml_et_numel(in));
  return CML_OK;
}

static cml_status dequantize_per_tensor(cml_et_call *c, cml_error *err) {
  return dequantize_tensor(c, cml_et_real(c, 1, 1), (double)cml_et_int(c, 2, 0), err);
}

static cml_status dequantize_per_tensor_args(cml_et_call *c, cml_error *err) {
  double scale = 1, zero = 0;
  CML_TRY(one_number(c, 1, &scale, err));
  CML_TRY(one_number(c, 2, &zero, err));
  return dequantize_tensor(c, scale, zero, err);
}

/* ---- by channel: (input, scales, zero points?, axis, min, max, dtype, [out_dtype?,] out) ---- */

static cml_status per_channel(cml_et_call *c, bool quantizes, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0), *scales = cml_et_arg(c, 1), *zeros = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, quantizes ? 7 : 8);
  int axis;
  CML_TRY(begin(c, in, out, quantizes, err));
  CML_TRY(cml_et_axis(c, cml_et_int(c, 3, 0), in->rank, &axis, err));
  int64_t channels = in->rank ? in->sizes[axis] : 1, inner = in->rank ? in->strides[axis] : 1; /* elements of a channel that lie together */
  if (cml_et_numel(scales) != channels || (zeros && cml_et_numel(zeros) != channels))
    return cml_et_fail(c, err, "%lld scales for %lld channels", (long long)cml_et_numel(scales), (long long)channels);
  if (!cml_et_numel(in)) return CML_OK;
  if (!cml_et_same_layout(in, out)) return cml_et_fail(c, err, "the tensors have different dim orders");
  int64_t outer = cml_et_numel(in) / channels / inner;
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < channels; i++) {
      affine a = affine_of(element(scales, i), zeros ? element(zeros, i) : 0, (double)cml_et_int(c, 4, 0), (double)cml_et_int(c, 5, 0),
                           scales->dtype == CML_F64);
      (quantizes ? quantize_run : dequantize_run)(&a, out, (o * channels + i) * inner, 1, in, (o * channels + i) * inner, 1, inner);
    }
  return CML_OK;
}
static cml_status quantize_per_channel(cml_et_call *c, cml_error *err) { return per_channel(c, true, err); }
static cml_status dequantize_per_channel(cml_et_call *c, cml_error *err) { return per_channel(c, false, err); }

/* ---- by token, the last dimension: (input, scales, zero points, min, max, dtype, [out dtype,] out) ---- */

static cml_status per_token(cml_et_call *c, bool quantizes, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0), *scales = cml_et_arg(c, 1), *zeros = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, quantizes ? 6 : 7);
  CML_TRY(begin(c, in, out, quantizes, err));
  if (!in->rank || !cml_et_is_contiguous(in)) return cml_et_fail(c, err, "takes contiguous tensors of rank 1 or more");
  int64_t width = in->sizes[in->rank - 1], tokens = 1;
  for (int k = 0; k < in->rank - 1; k++) tokens *= in->sizes[k];
  if (cml_et_numel(scales) != tokens || cml_et_numel(zeros) != tokens)
    return cml_et_fail(c, err, "%lld scales for %lld tokens", (long long)cml_et_numel(scales), (long long)tokens);
  for (int64_t t = 0; t < tokens; t++) {
    affine a = affine_of(element(scales, t), element(zeros, t), (double)cml_et_int(c, 3, 0), (double)cml_et_int(c, 4, 0), scales->dtype == CML_F64);
    a.zero_inside = true;
    (quantizes ? quantize_run : dequantize_run)(&a, out, t * width, 1, in, t * width, 1, width);
  }
  return CML_OK;
}
static cml_status quantize_per_token(cml_et_call *c, cml_error *err) { return per_token(c, true, err); }
static cml_status dequantize_per_token(cml_et_call *c, cml_error *err) { return per_token(c, false, err); }

/* ---- choosing parameters ---- */

/* Least and largest of a run, as float32 with zero among them; NaN where there is one. */
/* Least and largest of some numbers and what low and high hold; NaN (which one has no order) makes both NaN. */
CML_WIDE_INLINE void widen_loop(const float *b, int64_t n, float *low, float *high) {
  float least[16], most[16], odd[16];
  int64_t i = 0;
  for (int k = 0; k < 16; k++) least[k] = *low, most[k] = *high, odd[k] = 0;
  for (; i + 16 <= n; i += 16)
    for (int k = 0; k < 16; k++) {
      least[k] = b[i + k] < least[k] ? b[i + k] : least[k];
      most[k] = b[i + k] > most[k] ? b[i + k] : most[k];
      odd[k] += b[i + k] - b[i + k]; /* NaN from infinities, too: those are looked at again */
    }
  for (; i < n; i++) {
    least[0] = b[i] < least[0] ? b[i] : least[0];
    most[0] = b[i] > most[0] ? b[i] : most[0];
    odd[0] += b[i] - b[i];
  }
  for (int k = 0; k < 16; k++) {
    *low = least[k] < *low ? least[k] : *low;
    *high = most[k] > *high ? most[k] : *high;
    odd[0] += k ? odd[k] : 0;
  }
  for (i = 0; odd[0] != 0 && i < n; i++) {
    *low = isnan(b[i]) ? b[i] : *low;
    *high = isnan(b[i]) ? b[i] : *high;
  }
}
CML_WIDE static void widen_wide(const float *b, int64_t n, float *low, float *high) { widen_loop(b, n, low, high); }

static void range_with_zero(const cml_et_tensor *in, int64_t first, int64_t count, float *low, float *high) {
  float b[CHUNK];
  *low = *high = 0;
  for (int64_t at = 0; at < count && !isnan(*low); at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK;
    const float *from = b;
    if (in->dtype == CML_F32) from = (const float *)in->data + first + at;
    else cml_et_load_f32(b, in, first + at, 1, n);
    (cml_wide() ? widen_wide : widen_loop)(from, n, low, high);
  }
}

/* (input, min, max, eps, dtype, scale out, zero point out) */
static cml_status choose_qparams(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0);
  cml_et_tensor *scale_out = cml_et_arg(c, 5), *zero_out = cml_et_arg(c, 6);
  int64_t one = 1, qmin = cml_et_int(c, 1, 0), qmax = cml_et_int(c, 2, 0);
  float low, high;
  CML_TRY(cml_et_want(c, in, CML_ET_FLOATING, "the input", err));
  CML_TRY(cml_et_resize(c, scale_out, scale_out->rank ? 1 : 0, &one, err));
  CML_TRY(cml_et_resize(c, zero_out, zero_out->rank ? 1 : 0, &one, err));
  if (!cml_et_numel(in) || qmax <= qmin) return cml_et_fail(c, err, "an empty tensor or range has no parameters");
  range_with_zero(in, 0, cml_et_numel(in), &low, &high);
  float scale = (high - low) / (float)(qmax - qmin), eps = (float)cml_et_real(c, 3, 0);
  scale = scale < eps ? eps : scale;
  double wide = scale, zero = clamp_to((double)qmin - rint((double)(low / scale)), (double)qmin, (double)qmax);
  cml_et_store_f64(scale_out, 0, 1, 1, &wide);
  cml_et_store_f64(zero_out, 0, 1, 1, &zero);
  return CML_OK;
}

/* (input, dtype, scale out, zero point out): int8, each run of the last dimension */
static cml_status choose_per_token(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0);
  cml_et_tensor *scale_out = cml_et_arg(c, 2), *zero_out = cml_et_arg(c, 3);
  int64_t sizes[CML_PTE_MAX_RANK], tokens = 1;
  CML_TRY(cml_et_want(c, in, CML_ET_FLOATING, "the input", err));
  if (!in->rank || !cml_et_is_contiguous(in) || !in->sizes[in->rank - 1]) return cml_et_fail(c, err, "takes contiguous tensors with a last dimension");
  memcpy(sizes, in->sizes, in->rank * sizeof *sizes);
  sizes[in->rank - 1] = 1;
  CML_TRY(cml_et_resize(c, scale_out, in->rank, sizes, err));
  CML_TRY(cml_et_resize(c, zero_out, in->rank, sizes, err));
  for (int k = 0; k < in->rank - 1; k++) tokens *= in->sizes[k];
  for (int64_t t = 0; t < tokens; t++) {
    float low, high;
    range_with_zero(in, t * in->sizes[in->rank - 1], in->sizes[in->rank - 1], &low, &high);
    float scale = (high - low) / 255.0f;
    scale = scale < FLT_EPSILON ? FLT_EPSILON : scale;
    float below = low / scale, above = high / scale;
    float zero = (-128 + below) + (127 + above) > 0 ? -128 - below : 127 - above;
    double wide = scale, rounded = rint(clamp_to((double)zero, -128, 127));
    cml_et_store_f64(scale_out, t, 1, 1, &wide);
    cml_et_store_f64(zero_out, t, 1, 1, &rounded);
  }
  return CML_OK;
}

/* ---- add: (a, scale, zero, min, max, b, the same, out's scale, zero, min, max, out) ---- */

static cml_status add(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *y = cml_et_arg(c, 5);
  cml_et_tensor *out = cml_et_arg(c, 14);
  CML_TRY(cml_et_want(c, x, QUANTIZED, "a", err));
  CML_TRY(cml_et_want(c, y, QUANTIZED, "b", err));
  CML_TRY(cml_et_want(c, out, QUANTIZED, "the output", err));
  CML_TRY(cml_et_resize_like(c, out, x, err));
  if (!cml_et_same_layout(x, y) || !cml_et_same_layout(x, out)) return cml_et_fail(c, err, "the tensors have different shapes or dim orders");
  affine a = affine_of(cml_et_real(c, 1, 1), (double)cml_et_int(c, 2, 0), 0, 0, false);
  affine b = affine_of(cml_et_real(c, 6, 1), (double)cml_et_int(c, 7, 0), 0, 0, false);
  affine q = affine_of(cml_et_real(c, 10, 1), (double)cml_et_int(c, 11, 0), (double)cml_et_int(c, 12, 0), (double)cml_et_int(c, 13, 0), false);
  double p[CHUNK], r[CHUNK];
  for (int64_t at = 0, count = cml_et_numel(x); at < count; at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK;
    cml_et_load_f64(p, x, at, 1, n);
    cml_et_load_f64(r, y, at, 1, n);
    for (int64_t i = 0; i < n; i++) p[i] = quantize_one(&q, (double)((float)dequantize_one(&a, p[i]) + (float)dequantize_one(&b, r[i])));
    cml_et_store_f64(out, at, 1, n, p);
  }
  return CML_OK;
}

/* ---- embeddings: (weight, scales, zero points?, min, max, indices, [dtype?,] out) ---- */

/* Number k of a packed row: of 4 bits the first is the high half and 8 is 0; of 2 bits the first is lowest and 2 is 0. */
static double packed(const cml_et_tensor *w, int64_t row, int64_t k, int bits) {
  const uint8_t *p = (const uint8_t *)w->data + row * w->sizes[1];
  if (bits == 8) return w->dtype == CML_I8 ? (double)(int8_t)p[k] : (double)p[k];
  if (bits == 4) return (double)((k & 1 ? p[k / 2] & 15 : p[k / 2] >> 4) - 8);
  return (double)((p[k / 4] >> (k % 4 * 2) & 3) - 2);
}

static void embed_row(const cml_et_call *c, const cml_et_tensor *w, int64_t row, int bits, int64_t width, cml_et_tensor *out, int64_t to) {
  const cml_et_tensor *scales = cml_et_arg(c, 1), *zeros = cml_et_arg(c, 2);
  int64_t groups = scales->rank == 2 ? scales->sizes[1] : 1, size = width / groups;
  float b[CHUNK];
  for (int64_t g = 0; g < groups; g++) {
    float scale = (float)element(scales, row * groups + g), zero = zeros ? (float)element(zeros, row * groups + g) : 0;
    for (int64_t at = 0; at < size; at += CHUNK) {
      int64_t n = size - at < CHUNK ? size - at : CHUNK;
      for (int64_t i = 0; i < n; i++) b[i] = ((float)packed(w, row, g * size + at + i, bits) - zero) * scale;
      cml_et_store_f32(out, to + g * size + at, 1, n, b);
    }
  }
}

static cml_status embedding(cml_et_call *c, int bits, cml_et_tensor *out, cml_error *err) {
  const cml_et_tensor *w = cml_et_arg(c, 0), *scales = cml_et_arg(c, 1), *zeros = cml_et_arg(c, 2), *indices = cml_et_arg(c, 5);
  int64_t sizes[CML_PTE_MAX_RANK], row;
  CML_TRY(cml_et_want(c, w, CML_MASK(I8) | CML_MASK(U8), "the weight", err));
  CML_TRY(cml_et_want(c, indices, CML_MASK(I32) | CML_MASK(I64), "the index tensor", err));
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  if (w->rank != 2 || scales->rank < 1 || scales->rank > 2 || scales->sizes[0] != w->sizes[0] || indices->rank >= CML_PTE_MAX_RANK ||
      (zeros && cml_et_numel(zeros) != cml_et_numel(scales)))
    return cml_et_fail(c, err, "weight, scales and zero points do not fit together");
  int64_t width = w->sizes[1] * (8 / bits), groups = scales->rank == 2 ? scales->sizes[1] : 1;
  if (!groups || width % groups) return cml_et_fail(c, err, "%lld columns do not divide into %lld groups", (long long)width, (long long)groups);
  if (!cml_et_is_contiguous(w) || !cml_et_is_contiguous(scales) || (zeros && !cml_et_is_contiguous(zeros)) || !cml_et_is_contiguous(indices) ||
      !cml_et_is_contiguous(out))
    return cml_et_fail(c, err, "takes contiguous tensors only");
  memcpy(sizes, indices->sizes, indices->rank * sizeof *sizes);
  sizes[indices->rank] = width;
  CML_TRY(cml_et_resize(c, out, (size_t)indices->rank + 1, sizes, err));
  for (int64_t i = 0, n = cml_et_numel(indices); i < n; i++) {
    cml_et_load_i64(&row, indices, i, 1, 1);
    if (row < 0 || row >= w->sizes[0]) return cml_et_fail(c, err, "index %lld is out of range for %lld rows", (long long)row, (long long)w->sizes[0]);
    embed_row(c, w, row, bits, width, out, i * width);
  }
  return CML_OK;
}
static cml_status embedding_byte(cml_et_call *c, cml_error *err) { return embedding(c, 8, cml_et_arg(c, 6), err); }
static cml_status embedding_byte_dtype(cml_et_call *c, cml_error *err) { return embedding(c, 8, cml_et_arg(c, 7), err); }
static cml_status embedding_4bit(cml_et_call *c, cml_error *err) { return embedding(c, 4, cml_et_arg(c, 6), err); }
static cml_status embedding_4bit_dtype(cml_et_call *c, cml_error *err) { return embedding(c, 4, cml_et_arg(c, 7), err); }
static cml_status embedding_2bit(cml_et_call *c, cml_error *err) { return embedding(c, 2, cml_et_arg(c, 6), err); }
static cml_status embedding_2bit_dtype(cml_et_call *c, cml_error *err) { return embedding(c, 2, cml_et_arg(c, 7), err); }

/* ---- products with int8 weights, symmetric: zero points are not looked at, as in ExecuTorch ---- */

static cml_status check_mixed(cml_et_call *c, const cml_et_tensor *in, const cml_et_tensor *w, cml_et_tensor *out, cml_error *err) {
  CML_TRY(cml_et_want(c, in, CML_ET_FLOATING, "the input", err));
  CML_TRY(cml_et_want(c, w, CML_MASK(I8), "the weight", err));
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  if (in->rank != 2 || w->rank != 2 || !cml_et_is_contiguous(in) || !cml_et_is_contiguous(w) || !cml_et_is_contiguous(out))
    return cml_et_fail(c, err, "takes contiguous matrices only");
  return CML_OK;
}

/* (input [m, k], weight [k, n], scales [k], zero points?, out): input (scales weight) */
static cml_status mixed_mm(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0), *w = cml_et_arg(c, 1), *scales = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 4);
  CML_TRY(check_mixed(c, in, w, out, err));
  int64_t m = in->sizes[0], k = in->sizes[1], n = w->sizes[1], sizes[2] = {m, n};
  if (w->sizes[0] != k || cml_et_numel(scales) != k) return cml_et_fail(c, err, "the matrices' shapes do not fit together");
  CML_TRY(cml_et_resize(c, out, 2, sizes, err));
  float row[CHUNK], x[CHUNK], scale[CHUNK];
  for (int64_t i = 0; i < m; i++)
    for (int64_t at = 0; at < n; at += CHUNK) {
      int64_t columns = n - at < CHUNK ? n - at : CHUNK;
      memset(row, 0, sizeof row);
      for (int64_t j = 0; j < k; j++) {
        const int8_t *q = (const int8_t *)w->data + j * n + at;
        int64_t some = k - j < CHUNK ? k - j : CHUNK;
        if (j % CHUNK == 0) cml_et_load_f32(x, in, i * k + j, 1, some), cml_et_load_f32(scale, scales, j, 1, some);
        float f = x[j % CHUNK] * scale[j % CHUNK];
        for (int64_t o = 0; o < columns; o++) row[o] += f * (float)q[o];
      }
      cml_et_store_f32(out, i * n + at, 1, columns, row);
    }
  return CML_OK;
}

/* The product of n of the input's numbers from `first` on with as many weights. */
static float mixed_dot(const cml_et_tensor *in, int64_t first, const int8_t *q, int64_t n) {
  float x[CHUNK], sum = 0;
  for (int64_t at = 0; at < n; at += CHUNK) {
    int64_t some = n - at < CHUNK ? n - at : CHUNK;
    const float *v = in->dtype == CML_F32 ? (const float *)in->data + first + at : x;
    if (v == x) cml_et_load_f32(x, in, first + at, 1, some);
    for (int64_t j = 0; j < some; j++) sum += v[j] * (float)q[at + j];
  }
  return sum;
}

/* The weights as the kernels of compressed weights take them; false where these do not: then each row is summed as it stands. */
static bool mixed_matrix(const cml_et_tensor *w, const cml_et_tensor *scales, int64_t groups, cml_compressed *m) {
  *m = (cml_compressed){.columns = (size_t)w->sizes[0], .depth = (size_t)w->sizes[1], .codes = w->data, .row_bytes = (size_t)w->sizes[1], .bits = 8, .is_signed = true, .scale = scales->data};
  if ((scales->dtype != CML_F32 && scales->dtype != CML_F16) || !m->columns || !m->depth || m->depth > MIXED_DEPTH) return false;
  m->scale_half = scales->dtype == CML_F16;
  m->scale_rows = m->vectors = 1;
  m->table_rows = m->columns;
  m->blocks = (size_t)groups;
  m->block = m->depth / m->blocks;
  for (int64_t i = 0, n = cml_et_numel(scales); i < n; i += CHUNK) {
    float some[CHUNK], zero = 0; /* NaN where one is infinite */
    int64_t count = n - i < CHUNK ? n - i : CHUNK;
    cml_et_load_f32(some, scales, i, 1, count);
    for (int64_t j = 0; j < count; j++) zero += some[j] * 0;
    if (zero != 0) return false;
  }
  return cml_kernels_get()->compressed_fits(m);
}

typedef struct mixed_rows {
  const cml_compressed *w;
  const float *x;
  float *y;
} mixed_rows;

static void run_mixed_rows(void *context, size_t begin, size_t end) {
  const mixed_rows *r = context;
  size_t n = r->w->columns, to = end * CML_COMPRESSED_ROWS;
  cml_kernels_get()->compressed_product(r->w, begin * CML_COMPRESSED_ROWS, to < n ? to : n, r->x, 1, r->y, n);
}

/* A row of the input after the other; results that are no floats go through a block. */
static cml_status mixed_product(cml_et_call *c, const cml_et_tensor *in, const cml_compressed *w, cml_et_tensor *out, cml_error *err) {
  enum { COLUMNS = 4096 };
  const cml_kernels *k = cml_kernels_get();
  bool there = out->dtype == CML_F32;
  size_t step = there || w->columns < COLUMNS ? w->columns : COLUMNS;
  float *arranged = cml_et_temp(c, k->compressed_room(w) * sizeof(float)), *row = NULL, *block = NULL;
  if (in->dtype != CML_F32) row = cml_et_temp(c, w->depth * sizeof(float));
  if (!there) block = cml_et_temp(c, step * sizeof(float));
  if (!arranged || (in->dtype != CML_F32 && !row) || (!there && !block)) return cml_fail_memory(err);
  for (int64_t i = 0; i < in->sizes[0]; i++) {
    if (row) cml_et_load_f32(row, in, i * in->sizes[1], 1, in->sizes[1]);
    k->compressed_arrange(w, row ? row : (const float *)in->data + i * in->sizes[1], arranged);
    for (size_t at = 0; at < w->columns; at += step) {
      size_t n = w->columns - at < step ? w->columns - at : step;
      cml_compressed part = *w; /* its rows alone, so that results lie at the block's beginning */
      part.columns = part.table_rows = n;
      part.codes += at * w->depth;
      part.scale = (const char *)w->scale + at * w->blocks * (w->scale_half ? 2 : 4);
      mixed_rows r = {&part, arranged, there ? (float *)out->data + (size_t)i * w->columns : block};
      cml_parallel(n * w->depth < 100000 ? NULL : c->pool, (n + CML_COMPRESSED_ROWS - 1) / CML_COMPRESSED_ROWS, 1, run_mixed_rows, &r);
      if (!there) cml_et_store_f32(out, i * (int64_t)w->columns + (int64_t)at, 1, (int64_t)n, block);
    }
  }
  return CML_OK;
}

/* (input [m, k], weight [n, k], scales [n] or [n, groups], zero points?, dtype?, out) */
static cml_status mixed_linear(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0), *w = cml_et_arg(c, 1), *scales = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 5);
  CML_TRY(check_mixed(c, in, w, out, err));
  int64_t m = in->sizes[0], k = in->sizes[1], n = w->sizes[0], sizes[2] = {m, n}, groups = scales->rank == 2 ? scales->sizes[1] : 1;
  if (w->sizes[1] != k || groups < 1 || k % groups || cml_et_numel(scales) != n * groups || !cml_et_is_contiguous(scales))
    return cml_et_fail(c, err, "the matrices' shapes do not fit together");
  CML_TRY(cml_et_resize(c, out, 2, sizes, err));
  int64_t size = k / groups;
  cml_compressed matrix;
  if (mixed_matrix(w, scales, groups, &matrix)) return mixed_product(c, in, &matrix, out, err);
  for (int64_t i = 0; i < m; i++)
    for (int64_t o = 0; o < n; o++) {
      float sum = 0, scale;
      for (int64_t g = 0; g < groups; g++) {
        cml_et_load_f32(&scale, scales, o * groups + g, 1, 1);
        sum += mixed_dot(in, i * k + g * size, (const int8_t *)w->data + o * k + g * size, size) * scale;
      }
      cml_et_store_f32(out, i * n + o, 1, 1, &sum);
    }
  return CML_OK;
}

#define Q "quantized_decomposed::"
static const cml_et_op rows[] = {
    {Q "quantize_per_tensor.out", "tdiiiio", quantize_per_tensor},
    {Q "quantize_per_tensor.Tensor_out", "tttiiio", quantize_per_tensor_args},
    {Q "dequantize_per_tensor.out", "tdiiiii?o", dequantize_per_tensor},
    {Q "dequantize_per_tensor.Tensor_out", "tttiiii?o", dequantize_per_tensor_args},
    {Q "quantize_per_channel.out", "tttiiiio", quantize_per_channel},
    {Q "dequantize_per_channel.out", "ttt?iiiii?o", dequantize_per_channel},
    {Q "quantize_per_token.out", "tttiiio", quantize_per_token},
    {Q "dequantize_per_token.out", "tttiiiio", dequantize_per_token},
    {Q "choose_qparams.Tensor_out", "tiidioo", choose_qparams},
    {Q "choose_qparams_per_token_asymmetric.out", "tioo", choose_per_token},
    {Q "add.out", "tdiiitdiiidiiio", add},
    {Q "embedding_byte.out", "ttt?iixo", embedding_byte},
    {Q "embedding_byte.dtype_out", "ttt?iixi?o", embedding_byte_dtype},
    {Q "embedding_4bit.out", "ttt?iixo", embedding_4bit},
    {Q "embedding_4bit.dtype_out", "ttt?iixi?o", embedding_4bit_dtype},
    {Q "embedding_2bit.out", "ttt?iixo", embedding_2bit},
    {Q "embedding_2bit.dtype_out", "ttt?iixi?o", embedding_2bit_dtype},
    {Q "mixed_mm.out", "tttt?o", mixed_mm},
    {Q "mixed_linear.out", "tttt?i?o", mixed_linear},
};
CML_ET_FAMILY(quantized)
