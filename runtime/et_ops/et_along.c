/* What goes along one dimension, row by row: softmax, running sums, the largest k. */
#include <math.h>

#include "et_families.h"
#include "et_view.h"
#include "kernels.h"
#include "wide.h"

/* Where row number `row` of what lies beside the axis begins. */
static int64_t row_offset(const cml_et_tensor *t, int axis, int64_t row) {
  int64_t offset = 0;
  for (int k = t->rank - 1; k >= 0; k--) {
    if (k == axis) continue;
    offset += row % t->sizes[k] * t->strides[k];
    row /= t->sizes[k];
  }
  return offset;
}

/* ---- softmax ---- */

typedef struct rows_job {
  const cml_et_tensor *x;
  cml_et_tensor *out;
  int axis;
  int64_t n, held; /* held: elements of a row that scratch has room for */
  bool log, f64;
} rows_job;

enum { LEAST_HELD = 4096, MOST_HELD = 8192 };

static void softmax_f64(double *x, int64_t n, bool log_of) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) most = x[i] > most || x[i] != x[i] ? x[i] : most;
  for (int64_t i = 0; i < n; i++) sum += exp(x[i] - most);
  for (int64_t i = 0; i < n; i++) x[i] = log_of ? x[i] - most - log(sum) : exp(x[i] - most) / sum;
}

static void softmax_f32(float *x, int64_t n, bool log_of) {
  const cml_kernels *k = cml_kernels_get();
  if (!log_of) {
    k->softmax_rows(1, (size_t)n, x, x, false, false, 0);
    return;
  }
  float most = k->max(x, (size_t)n), part[256];
  double sum = 0;
  for (int64_t at = 0; at < n; at += 256) {
    size_t m = n - at < 256 ? (size_t)(n - at) : 256;
    memcpy(part, x + at, m * sizeof *part);
    sum += (double)k->exp_sum(part, m, most);
  }
  float shift = (float)log(sum);
  for (int64_t i = 0; i < n; i++) x[i] = x[i] - most - shift;
}

/* A row that is too long to be held: three times over it, piece by piece. The largest, the sum, the results. */
static void softmax_long(const rows_job *j, int64_t from, int64_t xs, int64_t to, int64_t ys, float *room) {
  const cml_kernels *k = cml_kernels_get();
  float most = -INFINITY, part[256];
  double sum = 0;
  for (int64_t at = 0; at < j->n; at += j->held) {
    int64_t n = j->n - at < j->held ? j->n - at : j->held;
    cml_et_load_f32(room, j->x, from + at * xs, xs, n);
    float m = k->max(room, (size_t)n);
    most = m > most || m != m ? m : most;
  }
  for (int pass = 0; pass < 2; pass++) {
    float shift = (float)log(sum), factor = (float)(1 / sum);
    for (int64_t at = 0; at < j->n; at += 256) {
      int64_t n = j->n - at < 256 ? j->n - at : 256;
      cml_et_load_f32(part, j->x, from + at * xs, xs, n);
      if (pass == 1 && j->log) {
        for (int64_t i = 0; i < n; i++) part[i] = part[i] - most - shift;
      } else {
        float some = k->exp_sum(part, (size_t)n, most);
        if (pass == 0) sum += (double)some;
        for (int64_t i = 0; i < n; i++) part[i] *= factor;
      }
      if (pass == 1) cml_et_store_f32(j->out, to + at * ys, ys, n, part);
    }
  }
}

static void softmax_long_f64(const rows_job *j, int64_t from, int64_t xs, int64_t to, int64_t ys) {
  double most = -INFINITY, sum = 0, part[256];
  for (int pass = 0; pass < 3; pass++)
    for (int64_t at = 0; at < j->n; at += 256) {
      int64_t n = j->n - at < 256 ? j->n - at : 256;
      cml_et_load_f64(part, j->x, from + at * xs, xs, n);
      for (int64_t i = 0; i < n; i++) {
        if (pass == 0) most = part[i] > most || part[i] != part[i] ? part[i] : most;
        else if (pass == 1) sum += exp(part[i] - most);
        else part[i] = j->log ? part[i] - most - log(sum) : exp(part[i] - most) / sum;
      }
      if (pass == 2) cml_et_store_f64(j->out, to + at * ys, ys, n, part);
    }
}

static void softmax_rows(void *context, void *room, size_t begin, size_t end) {
  const rows_job *j = context;
  int64_t xs = j->x->rank ? j->x->strides[j->axis] : 1, ys = j->out->rank ? j->out->strides[j->axis] : 1;
  for (size_t r = begin; r < end; r++) {
    int64_t from = row_offset(j->x, j->axis, (int64_t)r), to = row_offset(j->out, j->axis, (int64_t)r);
    if (xs == 1 && ys == 1 && j->x->dtype == CML_F32 && j->out->dtype == CML_F32 && !j->log) {
      cml_kernels_get()->softmax_rows(1, (size_t)j->n, (const float *)j->x->data + from, (float *)j->out->data + to, false, false, 0);
    } else if (j->n > j->held) {
      if (j->f64) softmax_long_f64(j, from, xs, to, ys);
      else softmax_long(j, from, xs, to, ys, room);
    } else if (j->f64) {
      cml_et_load_f64(room, j->x, from, xs, j->n);
      softmax_f64(room, j->n, j->log);
      cml_et_store_f64(j->out, to, ys, j->n, room);
    } else {
      cml_et_load_f32(room, j->x, from, xs, j->n);
      softmax_f32(room, j->n, j->log);
      cml_et_store_f32(j->out, to, ys, j->n, room);
    }
  }
}

static cml_status softmax(cml_et_call *c, bool log_of, cml_error *err) {
  rows_job j = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .log = log_of};
  cml_et_crew crew;
  CML_TRY(cml_et_want(c, j.x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_want(c, j.out, CML_ET_FLOATING, "the output", err));
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), j.x->rank, &j.axis, err));
  CML_TRY(cml_et_resize_like(c, j.out, j.x, err));
  int64_t total = cml_et_numel(j.x);
  if (total == 0) return CML_OK;
  j.n = j.x->rank ? j.x->sizes[j.axis] : 1;
  j.f64 = j.x->dtype == CML_F64 || j.out->dtype == CML_F64;
  size_t width = j.f64 ? 8 : 4;
  j.held = (int64_t)(cml_et_crew_share(c, LEAST_HELD * width, MOST_HELD * width) / width);
  CML_TRY(cml_et_crew_of(c, (uint64_t)(j.n < j.held ? j.n : j.held) * width, &crew, err));
  cml_et_crew_run(&crew, (size_t)(total / j.n), (size_t)(8192 / j.n + 1), softmax_rows, &j);
  return CML_OK;
}
static cml_status op_softmax(cml_et_call *c, cml_error *err) { return softmax(c, false, err); }
static cml_status op_log_softmax(cml_et_call *c, cml_error *err) { return softmax(c, true, err); }

/* ---- running sums ---- */

static void running_sum(const cml_et_tensor *x, cml_et_tensor *out, int64_t from, int64_t to, int64_t xs, int64_t ys, int64_t n) {
  double d[256], sum = 0;
  int64_t v[256], whole = 0;
  for (int64_t at = 0; at < n; at += 256) {
    int64_t m = n - at < 256 ? n - at : 256;
    if (!cml_dtype_is_float(out->dtype)) {
      cml_et_load_i64(v, x, from + at * xs, xs, m);
      for (int64_t i = 0; i < m; i++) v[i] = whole = (int64_t)((uint64_t)whole + (uint64_t)v[i]);
      cml_et_store_i64(out, to + at * ys, ys, m, v);
    } else {
      cml_et_load_f64(d, x, from + at * xs, xs, m);
      for (int64_t i = 0; i < m; i++) d[i] = sum += d[i];
      cml_et_store_f64(out, to + at * ys, ys, m, d);
    }
  }
}

static cml_status op_cumsum(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 3);
  int axis;
  CML_TRY(cml_et_want(c, x, CML_ET_ANY, "the tensor", err));
  CML_TRY(cml_et_want(c, out, CML_ET_ANY, "the output", err));
  if (!cml_et_none(c, 2) ? cml_et_dtype(c, 2) != out->dtype : cml_dtype_is_float(x->dtype) && !cml_dtype_is_float(out->dtype))
    return cml_et_fail(c, err, "the result's type is not the output's, %s", cml_dtype_name(out->dtype));
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), x->rank, &axis, err));
  CML_TRY(cml_et_resize_like(c, out, x, err));
  int64_t total = cml_et_numel(x), n = x->rank ? x->sizes[axis] : 1;
  for (int64_t r = 0; total && r < total / n; r++)
    running_sum(x, out, row_offset(x, axis, r), row_offset(out, axis, r), x->rank ? x->strides[axis] : 1, x->rank ? out->strides[axis] : 1, n);
  return CML_OK;
}

/* ---- the largest k: a heap of the best so far, whose worst is on top ---- */

enum { LONG_HEAP = 1 << 14 };

typedef struct entry {
  int64_t key, index;
} entry;

/* Whether a comes before b: larger keys first, then smaller indices. */
static inline bool before(entry a, entry b) { return a.key != b.key ? a.key > b.key : a.index < b.index; }

static void sift(entry *heap, int64_t n, int64_t at) {
  for (;;) {
    int64_t worst = at, left = 2 * at + 1;
    if (left < n && before(heap[worst], heap[left])) worst = left;
    if (left + 1 < n && before(heap[worst], heap[left + 1])) worst = left + 1;
    if (worst == at) return;
    entry e = heap[at];
    heap[at] = heap[worst];
    heap[worst] = e;
    at = worst;
  }
}

/* Keeps the order of all reals as integers: NaN above infinity, -0 equal to 0. */
static inline int64_t real_key(double d) {
  int64_t bits;
  d += 0.0;
  memcpy(&bits, &d, sizeof bits);
  bits = bits < 0 ? INT64_MIN - bits : bits;
  return d != d ? INT64_MAX : bits;
}

static inline int64_t key_of(const cml_et_tensor *x, int64_t at, bool largest) {
  int64_t key;
  if (cml_dtype_is_float(x->dtype)) {
    double d;
    if (x->dtype == CML_F32) d = (double)((const float *)x->data)[at];
    else cml_et_load_f64(&d, x, at, 1, 1);
    key = real_key(d);
  } else {
    cml_et_load_i64(&key, x, at, 1, 1);
  }
  return largest ? key : ~key;
}

/* The first of x[i], i < n, that is larger than the bound, or smaller, or NaN, as both mean to go on: most blocks hold none. */
CML_WIDE_INLINE int64_t beyond_loop(const float *x, int64_t i, int64_t n, float bound, bool largest) {
  for (; i + 32 <= n; i += 32) {
    int any = 0;
    if (largest) for (int k = 0; k < 32; k++) any |= !(x[i + k] <= bound);
    else for (int k = 0; k < 32; k++) any |= !(x[i + k] >= bound);
    if (any) break;
  }
  return i;
}
CML_WIDE static int64_t beyond_wide(const float *x, int64_t i, int64_t n, float bound, bool largest) { return beyond_loop(x, i, n, bound, largest); }

static void top_row(const cml_et_tensor *x, int64_t from, int64_t step, int64_t n, int64_t k, bool largest, entry *heap) {
  const float *dense = x->dtype == CML_F32 && step == 1 ? (const float *)x->data + from : NULL;
  for (int64_t i = 0; i < k; i++) heap[i] = (entry){key_of(x, from + i * step, largest), i};
  for (int64_t i = k / 2 - 1; i >= 0; i--) sift(heap, k, i);
  for (int64_t i = k, worst = heap[0].key, checked = k; i < n; i++) { /* an equal one comes too late */
    if (dense && i >= checked) { /* up to the next block that may hold one */
      float bound = dense[heap[0].index];
      i = (cml_wide() ? beyond_wide : beyond_loop)(dense, i, n, bound, largest);
      checked = i + 32;
      if (i >= n) break;
    }
    int64_t key = key_of(x, from + i * step, largest);
    if (__builtin_expect(key <= worst, 1)) continue;
    heap[0] = (entry){key, i};
    sift(heap, k, 0);
    worst = heap[0].key;
  }
  for (int64_t i = k - 1; i > 0; i--) {
    entry e = heap[0];
    heap[0] = heap[i];
    heap[i] = e;
    sift(heap, i, 0);
  }
}

/* The same for a k whose heap would be large: it lies in the output of indices, and keys are read anew. */
typedef struct long_heap {
  const cml_et_tensor *x;
  int64_t from, step, *at, at_step;
  bool largest;
} long_heap;

static inline entry entry_of(const long_heap *h, int64_t i) { return (entry){key_of(h->x, h->from + i * h->step, h->largest), i}; }

static void put_in(const long_heap *h, int64_t n, int64_t at, entry e) {
  for (int64_t child; (child = 2 * at + 1) < n; at = child) {
    entry worse = entry_of(h, h->at[child * h->at_step]);
    if (child + 1 < n) {
      entry other = entry_of(h, h->at[(child + 1) * h->at_step]);
      if (before(worse, other)) worse = other, child++;
    }
    if (!before(e, worse)) break;
    h->at[at * h->at_step] = worse.index;
  }
  h->at[at * h->at_step] = e.index;
}

static void top_long(const long_heap *h, int64_t n, int64_t k) {
  for (int64_t i = 0; i < k; i++) h->at[i * h->at_step] = i;
  for (int64_t i = k / 2 - 1; i >= 0; i--) put_in(h, k, i, entry_of(h, h->at[i * h->at_step]));
  entry worst = entry_of(h, h->at[0]);
  for (int64_t i = k; i < n; i++) {
    entry e = entry_of(h, i);
    if (e.key <= worst.key) continue;
    put_in(h, k, 0, e);
    worst = entry_of(h, h->at[0]);
  }
  for (int64_t i = k - 1; i > 0; i--) {
    entry e = entry_of(h, h->at[i * h->at_step]);
    h->at[i * h->at_step] = h->at[0];
    put_in(h, i, 0, e);
  }
}

static cml_status op_topk(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *values = cml_et_arg(c, 5), *indices = cml_et_arg(c, 6);
  int64_t k = cml_et_int(c, 1, 0), sizes[CML_PTE_MAX_RANK];
  size_t width = cml_et_width(x);
  int axis;
  CML_TRY(cml_et_want(c, x, CML_ET_ANY, "the tensor", err));
  CML_TRY(cml_et_want(c, indices, CML_MASK(I64), "the output of indices", err));
  CML_TRY(cml_et_same_type(c, x, values, err));
  CML_TRY(cml_et_axis(c, cml_et_int(c, 2, -1), x->rank, &axis, err));
  int64_t n = x->rank ? x->sizes[axis] : 1;
  if (k < 0 || k > n) return cml_et_fail(c, err, "%lld of %lld elements", (long long)k, (long long)n);
  if (x->rank) memcpy(sizes, x->sizes, x->rank * sizeof *sizes);
  if (x->rank) sizes[axis] = k;
  CML_TRY(cml_et_resize(c, values, x->rank, sizes, err));
  CML_TRY(cml_et_resize(c, indices, x->rank, sizes, err));
  if (k == 0 || cml_et_numel(values) == 0) return CML_OK;
  entry *heap = k <= LONG_HEAP ? cml_et_temp(c, (uint64_t)k * sizeof *heap) : NULL;
  if (k <= LONG_HEAP && !heap) return cml_fail_memory(err);
  int64_t step[3] = {x->rank ? x->strides[axis] : 1, x->rank ? values->strides[axis] : 1, x->rank ? indices->strides[axis] : 1};
  bool largest = cml_et_bool(c, 3, true);
  for (int64_t r = 0, rows_count = cml_et_numel(values) / k; r < rows_count; r++) {
    int64_t from = row_offset(x, axis, r);
    char *value = (char *)values->data + (size_t)row_offset(values, axis, r) * width;
    int64_t *to = (int64_t *)indices->data + row_offset(indices, axis, r);
    if (heap) top_row(x, from, step[0], n, k, largest, heap);
    else top_long(&(long_heap){x, from, step[0], to, step[2], largest}, n, k);
    for (int64_t i = 0; i < k; i++) {
      int64_t at = heap ? heap[i].index : to[i * step[2]];
      if (at < 0 || at >= n) at = 0; /* where a program lets the two outputs overlap */
      to[i * step[2]] = at;
      cml_et_copy_steps(value + i * step[1] * (int64_t)width, 1, (const char *)x->data + (size_t)(from + at * step[0]) * width, 1, 1, width);
    }
  }
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::_log_softmax.out", "tibo", op_log_softmax},
    {"aten::_softmax.out", "tibo", op_softmax},
    {"aten::cumsum.out", "tii?o", op_cumsum},
    {"aten::topk.values", "tiibboo", op_topk},
};
CML_ET_FAMILY(along)
