/* Operators that make elements out of nothing but numbers: constants, ranges, random numbers. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_view.h"
#include "strided.h"

static cml_status resize_to_list(cml_et_call *c, size_t i, cml_et_tensor *out, cml_error *err) {
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(cml_et_ints(c, i, sizes, CML_PTE_MAX_RANK, &rank, err));
  CML_TRY(cml_et_want(c, out, CML_ET_ANY, "the output", err));
  return cml_et_resize(c, out, rank, sizes, err);
}

static cml_status fill(cml_et_call *c, cml_et_tensor *out, cml_et_number n, cml_error *err) {
  uint64_t room = 0;
  cml_et_local one;
  CML_TRY(cml_et_want(c, out, CML_ET_ANY, "the output", err));
  cml_et_make(&one, out->dtype, 0, NULL, &room);
  if (n.kind == CML_PTE_REAL) cml_et_store_f64(&one.t, 0, 1, 1, &n.d);
  else cml_et_store_i64(&one.t, 0, 1, 1, &n.i);
  cml_fill_elements(out->data, &room, cml_et_width(out), cml_et_numel(out), c->pool);
  return CML_OK;
}

static cml_et_number integer(int64_t i) { return (cml_et_number){.kind = CML_PTE_INTEGER, .i = i, .d = (double)i}; }

static cml_status op_full(cml_et_call *c, cml_error *err) {
  CML_TRY(resize_to_list(c, 0, cml_et_arg(c, 2), err));
  return fill(c, cml_et_arg(c, 2), cml_et_scalar(c, 1), err);
}
static cml_status op_full_like(cml_et_call *c, cml_error *err) {
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 3), cml_et_arg(c, 0), err));
  return fill(c, cml_et_arg(c, 3), cml_et_scalar(c, 1), err);
}
static cml_status op_zeros(cml_et_call *c, cml_error *err) {
  CML_TRY(resize_to_list(c, 0, cml_et_arg(c, 1), err));
  return fill(c, cml_et_arg(c, 1), integer(0), err);
}
static cml_status op_ones(cml_et_call *c, cml_error *err) {
  CML_TRY(resize_to_list(c, 0, cml_et_arg(c, 1), err));
  return fill(c, cml_et_arg(c, 1), integer(1), err);
}
/* Zeros: what a program reads before it has written should at least be the same each time. */
static cml_status op_empty(cml_et_call *c, cml_error *err) {
  CML_TRY(resize_to_list(c, 0, cml_et_arg(c, 2), err));
  return fill(c, cml_et_arg(c, 2), integer(0), err);
}
static cml_status op_scalar_tensor(cml_et_call *c, cml_error *err) {
  CML_TRY(cml_et_resize(c, cml_et_arg(c, 1), 0, NULL, err));
  return fill(c, cml_et_arg(c, 1), cml_et_scalar(c, 0), err);
}
static cml_status op_fill_scalar(cml_et_call *c, cml_error *err) {
  CML_TRY(cml_et_same_type(c, cml_et_arg(c, 0), cml_et_arg(c, 2), err));
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 2), cml_et_arg(c, 0), err));
  return fill(c, cml_et_arg(c, 2), cml_et_scalar(c, 1), err);
}
static cml_status op_fill_tensor(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *value = cml_et_arg(c, 1);
  cml_et_number n = integer(0);
  CML_TRY(cml_et_want(c, value, CML_ET_ANY, "the value", err));
  if (cml_et_numel(value) != 1 || value->rank) return cml_et_fail(c, err, "the value is a tensor of rank %d, not a single number", value->rank);
  n.kind = cml_dtype_is_float(value->dtype) ? CML_PTE_REAL : CML_PTE_INTEGER;
  if (n.kind == CML_PTE_REAL) cml_et_load_f64(&n.d, value, 0, 1, 1);
  else cml_et_load_i64(&n.i, value, 0, 1, 1);
  CML_TRY(cml_et_same_type(c, cml_et_arg(c, 0), cml_et_arg(c, 2), err));
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 2), cml_et_arg(c, 0), err));
  return fill(c, cml_et_arg(c, 2), n, err);
}

CML_WIDE_INLINE void range_loop(double *d, double start, double first, double step, int n) {
  CML_INDEPENDENT for (int i = 0; i < n; i++) d[i] = start + (first + i) * step; /* first + i is exact */
}
CML_WIDE static void range_wide(double *d, double start, double first, double step, int n) { range_loop(d, start, first, step, n); }

static cml_status arange(cml_et_call *c, cml_et_number start, cml_et_number end, cml_et_number step, cml_et_tensor *out, cml_error *err) {
  bool real = start.kind == CML_PTE_REAL || end.kind == CML_PTE_REAL || step.kind == CML_PTE_REAL;
  CML_TRY(cml_et_want(c, out, CML_ET_ANY & ~CML_M_BOOL, "the output", err));
  if (out->dtype == CML_I64) real = false, start.d = (double)start.i, end.d = (double)end.i, step.d = (double)step.i; /* torch casts first */
  double span = real ? end.d - start.d : (double)end.i - (double)start.i, count = ceil(span / step.d);
  if (!(step.d != 0) || !(span / step.d >= 0) || !(count < 0x1p53)) return cml_et_fail(c, err, "no range from %g to %g by %g", start.d, end.d, step.d);
  int64_t n = (int64_t)count;
  CML_TRY(cml_et_resize(c, out, 1, &n, err));
  enum { CHUNK = 256 };
  for (int64_t at = 0; at < n; at += CHUNK) {
    int64_t m = n - at < CHUNK ? n - at : CHUNK, v[CHUNK];
    double d[CHUNK];
    if (cml_dtype_is_float(out->dtype)) {
      (cml_wide() ? range_wide : range_loop)(d, start.d, (double)at, step.d, (int)m);
      cml_et_store_f64(out, at, 1, m, d);
    } else {
      for (int64_t i = 0; i < m; i++) v[i] = (int64_t)((uint64_t)start.i + (uint64_t)(at + i) * (uint64_t)step.i);
      cml_et_store_i64(out, at, 1, m, v);
    }
  }
  return CML_OK;
}
static cml_status op_arange(cml_et_call *c, cml_error *err) { return arange(c, integer(0), cml_et_scalar(c, 0), integer(1), cml_et_arg(c, 1), err); }
static cml_status op_arange_start(cml_et_call *c, cml_error *err) {
  return arange(c, cml_et_scalar(c, 0), cml_et_scalar(c, 1), cml_et_scalar(c, 2), cml_et_arg(c, 3), err);
}

/* ---- random ---- */

static double uniform(cml_et_call *c) { return (double)(cml_et_random(c) >> 40) * 0x1p-24; }

static cml_status op_rand(cml_et_call *c, cml_error *err) {
  cml_et_tensor *out = cml_et_arg(c, 1);
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  CML_TRY(resize_to_list(c, 0, out, err));
  for (int64_t i = 0, n = cml_et_numel(out); i < n; i++) {
    double v = uniform(c);
    if (out->dtype == CML_F16) v = floor(v * 0x1p11) * 0x1p-11; /* below 1 after rounding, too */
    if (out->dtype == CML_BF16) v = floor(v * 0x1p8) * 0x1p-8;
    cml_et_store_f64(out, i, 1, 1, &v);
  }
  return CML_OK;
}

static cml_status op_randn(cml_et_call *c, cml_error *err) {
  cml_et_tensor *out = cml_et_arg(c, 1);
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  CML_TRY(resize_to_list(c, 0, out, err));
  for (int64_t i = 0, n = cml_et_numel(out); i < n; i += 2) { /* Box and Muller: two at once */
    double r = sqrt(-2 * log(1 - uniform(c))), angle = 2 * M_PI * uniform(c), pair[2] = {r * cos(angle), r * sin(angle)};
    cml_et_store_f64(out, i, 1, n - i < 2 ? 1 : 2, pair);
  }
  return CML_OK;
}

static cml_status op_dropout(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 3), *mask = cml_et_arg(c, 4);
  double p = cml_et_real(c, 1, 0.5);
  bool train = cml_et_bool(c, 2, true);
  CML_TRY(cml_et_want(c, x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_want(c, mask, CML_M_BOOL, "the mask", err));
  CML_TRY(cml_et_same_type(c, x, out, err));
  if (!(p >= 0 && p <= 1)) return cml_et_fail(c, err, "%g is no probability", p);
  CML_TRY(cml_et_resize_like(c, mask, x, err));
  CML_TRY(cml_et_resize_like(c, out, x, err));
  if (!cml_et_same_layout(x, out)) return cml_et_fail(c, err, "the output lies otherwise than the tensor");
  for (int64_t i = 0, n = cml_et_numel(x); i < n; i++) {
    bool keep = !train || (double)(cml_et_random(c) >> 11) * 0x1p-53 >= p;
    double v;
    cml_et_load_f64(&v, x, i, 1, 1);
    v = !keep ? 0 : train ? v / (1 - p) : v;
    ((uint8_t *)mask->data)[i] = keep;
    cml_et_store_f64(out, i, 1, 1, &v);
  }
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::arange.out", "no", op_arange},
    {"aten::arange.start_out", "nnno", op_arange_start},
    {"aten::empty.out", "Ii?o", op_empty},
    {"aten::fill.Scalar_out", "tno", op_fill_scalar},
    {"aten::fill.Tensor_out", "tto", op_fill_tensor},
    {"aten::full.out", "Ino", op_full},
    {"aten::full_like.out", "tni?o", op_full_like},
    {"aten::native_dropout.out", "tdb?oo", op_dropout},
    {"aten::ones.out", "Io", op_ones},
    {"aten::rand.out", "Io", op_rand},
    {"aten::randn.out", "Io", op_randn},
    {"aten::scalar_tensor.out", "no", op_scalar_tensor},
    {"aten::zeros.out", "Io", op_zeros},
};
CML_ET_FAMILY(make)
