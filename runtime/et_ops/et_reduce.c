/* Reductions: sums, extremes, variances.
 *
 * A plan splits the input's dimensions into those that stay and those that go. For each element of the output the driver hands
 * the elements behind it, in runs of the computing type, to a step function with a small state; a last function makes the result. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_view.h"
#include "wide.h"

typedef enum lane { LANE_F32, LANE_F64, LANE_I64 } lane;
static const cml_dtype lane_types[] = {CML_F32, CML_F64, CML_I64};
static lane lane_of(cml_dtype t) { return t == CML_F64 ? LANE_F64 : cml_dtype_is_float(t) ? LANE_F32 : LANE_I64; }

typedef struct state {
  double d, mean;
  int64_t i, at, index; /* at: elements seen; index: of the extreme */
  int64_t first;        /* where the elements begin in x */
} state;

/* What a column step keeps: as a state, for COLUMNS neighbouring outputs at once. */
enum { CHUNK = 1024, COLUMNS = 256, STACK = 12 << 10 }; /* STACK: bytes of a thread, about */
typedef struct columns {
  _Alignas(64) union { double d[COLUMNS]; int64_t i[COLUMNS]; float f[COLUMNS]; };
  int64_t index[COLUMNS];
  double mean[COLUMNS];
  int64_t at; /* rows seen */
} columns;

typedef struct plan {
  const cml_et_tensor *x;
  lane lane;
  bool no_index;
  void (*step)(state *s, lane lane, const void *x, int64_t n);                           /* NULL: emit does it all */
  void (*column_step)(columns *c, lane lane, bool no_index, const void *x, int64_t n); /* NULL where there is none */
  void (*second_pass)(const struct plan *p, columns *c, int64_t first, int64_t n);     /* over the same rows; or NULL */
  void (*column_emit)(const struct plan *p, state *s, int64_t element);                /* NULL: emit */
  void (*emit)(const struct plan *p, state *s, int64_t element); /* element: which of the output, in its shape's order */
  void (*runs)(void *plan, size_t begin, size_t end); /* instead of step, where what goes is one dense run; or NULL */
  cml_et_tensor *out, *out2;
  int64_t reduced, outputs;
  double parameter;
  int kept, gone;
  int64_t kept_sizes[CML_PTE_MAX_RANK], kept_x[CML_PTE_MAX_RANK];
  bool apart; /* out2 has another dim order than out, and these strides */
  int64_t kept_second[CML_PTE_MAX_RANK];
  int64_t gone_sizes[CML_PTE_MAX_RANK], gone_x[CML_PTE_MAX_RANK];
} plan;

static void one_run(const plan *p, state *s, int64_t first, int64_t step, int64_t count) {
  _Alignas(64) double buffer[CHUNK];
  cml_dtype type = p->x->dtype;
  bool ready = step == 1 && type == lane_types[p->lane];
  for (int64_t at = 0; at < count; at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK, from = first + at * step;
    const void *x = buffer;
    if (ready) x = (const char *)p->x->data + (size_t)from * cml_et_width(p->x);
    else if (p->lane == LANE_F32) cml_et_load_f32((float *)(void *)buffer, p->x, from, step, n);
    else if (p->lane == LANE_F64) cml_et_load_f64(buffer, p->x, from, step, n);
    else cml_et_load_i64((int64_t *)(void *)buffer, p->x, from, step, n);
    p->step(s, p->lane, x, n);
    s->at += n;
  }
}

/* The next step over the first n of the dimensions that go; false after the last. */
static bool next_gone(const plan *p, int n, int64_t *at, int64_t *first) {
  for (int k = n - 1; k >= 0; k--) {
    *first += p->gone_x[k];
    if (++at[k] < p->gone_sizes[k]) return true;
    *first -= at[k] * p->gone_x[k];
    at[k] = 0;
  }
  return false;
}

static void all_runs(const plan *p, state *s, int64_t first) {
  int64_t at[CML_PTE_MAX_RANK] = {0};
  int last = p->gone - 1;
  if (p->reduced == 0) return;
  do one_run(p, s, first, last < 0 ? 1 : p->gone_x[last], last < 0 ? 1 : p->gone_sizes[last]);
  while (next_gone(p, last, at, &first));
}

/* Where element e of the output begins in x. */
static int64_t place_of(const plan *p, int64_t e) {
  int64_t first = 0;
  for (int k = p->kept - 1; k >= 0; k--) {
    first += e % p->kept_sizes[k] * p->kept_x[k];
    e /= p->kept_sizes[k];
  }
  return first;
}

/* The place in out2 of element e of the output. */
static int64_t second_place(const plan *p, int64_t e) {
  int64_t place = 0;
  if (!p->apart) return e;
  for (int k = p->kept - 1; k >= 0; e /= p->kept_sizes[k], k--) place += e % p->kept_sizes[k] * p->kept_second[k];
  return place;
}

static void reduce_range(void *context, size_t begin, size_t end) {
  const plan *p = context;
  int last = p->kept - 1;
  bool plain = p->gone == 1 && p->gone_x[0] == 1 && p->reduced > 0 && p->reduced <= CHUNK && p->x->dtype == lane_types[p->lane];
  for (size_t e = begin; e < end;) { /* rows of the last dimension that stays */
    int64_t first = place_of(p, (int64_t)e), size = last < 0 ? 1 : p->kept_sizes[last], step = last < 0 ? 0 : p->kept_x[last];
    for (int64_t k = (int64_t)e % size; k < size && e < end; k++, e++, first += step) {
      state s = {.mean = p->no_index, .first = first};
      if (plain && p->step) {
        p->step(&s, p->lane, (const char *)p->x->data + (size_t)first * cml_et_width(p->x), p->reduced);
        s.at = p->reduced;
      } else if (p->step) {
        all_runs(p, &s, first);
      }
      p->emit(p, &s, (int64_t)e);
    }
  }
}

static void columns_any(columns *c, lane l, bool no_index, const void *x, int64_t n);
static void columns_sum(columns *c, lane l, bool no_index, const void *x, int64_t n);
static void rows_sum(columns *c, const float *x, int64_t rows, int64_t stride, int64_t n);
static void emit_mean(const plan *p, state *s, int64_t e);

/* ---- neighbouring outputs at once, where the last dimension stays: each row of x is one step for all of them ---- */

static void one_row(const plan *p, columns *c, int64_t first, int64_t n) {
  _Alignas(64) double buffer[COLUMNS];
  cml_dtype type = p->x->dtype;
  const void *x = buffer;
  if (type == lane_types[p->lane]) x = (const char *)p->x->data + (size_t)first * cml_et_width(p->x);
  else if (p->lane == LANE_F32) cml_et_load_f32((float *)(void *)buffer, p->x, first, 1, n);
  else if (p->lane == LANE_F64) cml_et_load_f64(buffer, p->x, first, 1, n);
  else cml_et_load_i64((int64_t *)(void *)buffer, p->x, first, 1, n);
  p->column_step(c, p->lane, p->no_index, x, n);
  c->at++;
}

static void all_rows(const plan *p, columns *c, int64_t first, int64_t n) {
  int64_t at[CML_PTE_MAX_RANK] = {0};
  if (p->gone == 1 && p->column_step == columns_sum && p->lane == LANE_F32 && p->x->dtype == CML_F32) {
    rows_sum(c, (const float *)p->x->data + first, p->gone_sizes[0], p->gone_x[0], n);
    return;
  }
  do one_row(p, c, first, n);
  while (next_gone(p, p->gone, at, &first));
}

static void emit_columns(const plan *p, const columns *c, int64_t element, int64_t n) {
  if (p->column_step == columns_sum && !p->second_pass && p->lane != LANE_I64) { /* sums and means: all at once */
    double d[COLUMNS], divisor = p->emit == emit_mean ? (double)p->reduced : 1;
    for (int64_t k = 0; k < n; k++) d[k] = c->d[k] / divisor;
    cml_et_store_f64(p->out, element, 1, n, d);
    return;
  }
  for (int64_t k = 0; k < n; k++) {
    state s = {.at = c->at, .index = c->index[k], .mean = c->mean[k]};
    if (p->lane == LANE_I64 || p->column_step == columns_any) s.i = c->i[k];
    else s.d = p->lane == LANE_F32 && p->no_index ? (double)c->f[k] : c->d[k];
    (p->column_emit ? p->column_emit : p->emit)(p, &s, element + k);
  }
}

static void column_range(void *context, size_t begin, size_t end) { /* items: blocks of columns */
  const plan *p = context;
  int64_t size = p->kept_sizes[p->kept - 1], blocks = (size + COLUMNS - 1) / COLUMNS;
  for (size_t b = begin; b < end; b++) {
    int64_t from = (int64_t)b % blocks * COLUMNS, n = size - from < COLUMNS ? size - from : COLUMNS, element = (int64_t)b / blocks * size + from;
    columns c;
    memset(c.d, 0, (size_t)n * sizeof *c.d);
    memset(c.index, 0, (size_t)n * sizeof *c.index);
    c.at = 0;
    all_rows(p, &c, place_of(p, element), n);
    if (p->second_pass) p->second_pass(p, &c, place_of(p, element), n);
    emit_columns(p, &c, element, n);
  }
}

static bool by_columns(const plan *p) {
  return p->column_step && p->kept && p->kept_x[p->kept - 1] == 1 && p->kept_sizes[p->kept - 1] >= 4 && p->reduced > 1 && p->gone_x[p->gone - 1] != 1;
}

/* Sets the dimensions that go (a bit mask; neighbouring ones are joined) and the result's shape. */
static cml_status plan_dims(cml_et_call *c, plan *p, uint32_t gone, bool keep, int64_t *sizes, size_t *rank, cml_error *err) {
  const cml_et_tensor *x = p->x;
  CML_TRY(cml_et_want(c, x, CML_ET_ANY, "the tensor", err));
  p->outputs = p->reduced = 1;
  *rank = 0;
  for (int k = 0; k < x->rank; k++) {
    if (gone >> k & 1) {
      p->reduced *= x->sizes[k];
      if (keep) sizes[(*rank)++] = 1;
      if (x->sizes[k] == 1) continue;
      int last = p->gone - 1;
      if (last >= 0 && p->gone_x[last] == x->strides[k] * x->sizes[k]) {
        p->gone_sizes[last] *= x->sizes[k];
      } else {
        last = p->gone++;
        p->gone_sizes[last] = x->sizes[k];
      }
      p->gone_x[last] = x->strides[k];
    } else {
      p->outputs *= x->sizes[k];
      sizes[(*rank)++] = x->sizes[k];
    }
  }
  return CML_OK;
}

/* The dimensions that stay, as the output's memory has them: element e of the plan is element e there. */
static void keep_dims(plan *p, const cml_et_tensor *out, uint32_t gone, bool keep) {
  int from[CML_PTE_MAX_RANK], count = 0;
  for (int k = 0; k < p->x->rank; k++)
    if (keep || !(gone >> k & 1)) from[count++] = k;
  for (int i = 0; i < count; i++) {
    int k = from[out->order[i]];
    if (gone >> k & 1) continue;
    p->kept_sizes[p->kept] = p->x->sizes[k];
    p->kept_second[p->kept] = p->out2 ? p->out2->strides[out->order[i]] : 0;
    p->kept_x[p->kept++] = p->x->strides[k];
  }
}

/* Dims of argument i (an int or a list; none and an empty list: all) as a bit mask. */
static cml_status dims_mask(cml_et_call *c, size_t i, int rank, uint32_t *out, cml_error *err) {
  int64_t dims[CML_PTE_MAX_RANK];
  size_t count = 0;
  *out = 0;
  if (c->args[i]->kind == CML_PTE_INTEGERS) CML_TRY(cml_et_ints(c, i, dims, CML_PTE_MAX_RANK, &count, err));
  else if (!cml_et_none(c, i)) dims[count++] = cml_et_int(c, i, 0);
  for (size_t k = 0; k < count; k++) {
    int axis;
    CML_TRY(cml_et_axis(c, dims[k], rank, &axis, err));
    if (*out >> axis & 1) return cml_et_fail(c, err, "dimension %d is named twice", axis);
    *out |= UINT32_C(1) << axis;
  }
  if (!count) *out = (UINT32_C(1) << rank) - 1;
  return CML_OK;
}

/* Runs the plan. out2 has out's shape. */
static cml_status run_plan(cml_et_call *c, plan *p, uint32_t gone, bool keep, cml_error *err) {
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(plan_dims(c, p, gone, keep, sizes, &rank, err));
  CML_TRY(cml_et_resize(c, p->out, rank, sizes, err));
  if (p->out2) CML_TRY(cml_et_resize(c, p->out2, rank, sizes, err));
  p->apart = p->out2 && !cml_et_same_layout(p->out, p->out2);
  keep_dims(p, p->out, gone, keep);
  if (p->outputs && by_columns(p)) {
    int64_t size = p->kept_sizes[p->kept - 1], blocks = (size + COLUMNS - 1) / COLUMNS;
    cml_et_parallel(c, STACK, (size_t)(p->outputs / size * blocks), (size_t)(32768 / (p->reduced * (size < COLUMNS ? size : COLUMNS)) + 1), column_range, p);
  } else {
    int64_t grain = p->reduced ? 32768 / p->reduced + 1 : 32768;
    cml_et_parallel(c, STACK, (size_t)p->outputs, (size_t)grain, p->runs && p->gone == 1 && p->gone_x[0] == 1 ? p->runs : reduce_range, p);
  }
  return CML_OK;
}

/* ---- sums and products ---- */

/* Sums of doubles in eight parts, which vectors take: of x - shift, or of its squares. */
CML_WIDE_INLINE double sum_loop(const double *x, int64_t n, double shift, bool square) {
  double part[8] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int k = 0; k < 8; k++) {
      double d = x[i + k] - shift;
      part[k] += square ? d * d : d;
    }
  for (; i < n; i++) sum += square ? (x[i] - shift) * (x[i] - shift) : x[i] - shift;
  for (int k = 0; k < 8; k++) sum += part[k];
  return sum;
}
CML_WIDE static double sum_wide(const double *x, int64_t n, double shift, bool square) {
  return square ? sum_loop(x, n, shift, true) : sum_loop(x, n, 0, false);
}
static double sum_of(const double *x, int64_t n, double shift, bool square) {
  return cml_wide() ? sum_wide(x, n, shift, square) : square ? sum_loop(x, n, shift, true) : sum_loop(x, n, 0, false);
}
CML_WIDE_INLINE uint64_t sum_i64_loop(const int64_t *x, int64_t n) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (uint64_t)x[i];
  return sum;
}
CML_WIDE static uint64_t sum_i64_wide(const int64_t *x, int64_t n) { return sum_i64_loop(x, n); }

static void step_sum(state *s, lane l, const void *x, int64_t n) {
  if (l == LANE_F32) s->d += (double)cml_kernels_get()->sum(x, (size_t)n);
  else if (l == LANE_F64) s->d += sum_of(x, n, 0, false);
  else s->i = (int64_t)((uint64_t)s->i + (cml_wide() ? sum_i64_wide : sum_i64_loop)(x, n));
}

/* c += x, or its square beside the mean, by columns. */
CML_WIDE_INLINE void columns_sum_loop(columns *c, lane l, bool square, const void *x, int64_t n) {
  if (l == LANE_F32) for (int64_t i = 0; i < n; i++) c->d[i] += (double)((const float *)x)[i];
  else if (l == LANE_I64) for (int64_t i = 0; i < n; i++) c->i[i] = (int64_t)((uint64_t)c->i[i] + (uint64_t)((const int64_t *)x)[i]);
  else if (!square) for (int64_t i = 0; i < n; i++) c->d[i] += ((const double *)x)[i];
  else for (int64_t i = 0; i < n; i++) c->d[i] += (((const double *)x)[i] - c->mean[i]) * (((const double *)x)[i] - c->mean[i]);
}
CML_WIDE static void columns_sum_wide(columns *c, lane l, bool square, const void *x, int64_t n) { columns_sum_loop(c, l, square, x, n); }
/* d[k] += the sum of column k of rows of floats: in float over 64 rows, in double over those. */
CML_WIDE_INLINE void rows_sum_loop(double *d, const float *x, int64_t rows, int64_t stride, int64_t n) {
  for (int64_t r = 0; r < rows; r += 64) {
    int64_t end = rows - r < 64 ? rows : r + 64, j = 0;
    for (; j + 64 <= n; j += 64) { /* as many sums at once as hide how long one takes */
      float part[64] = {0};
      for (int64_t i = r; i < end; i++)
        for (int k = 0; k < 64; k++) part[k] += x[i * stride + j + k];
      for (int k = 0; k < 64; k++) d[j + k] += (double)part[k];
    }
    for (; j + 16 <= n; j += 16) {
      float part[16] = {0};
      for (int64_t i = r; i < end; i++)
        for (int k = 0; k < 16; k++) part[k] += x[i * stride + j + k];
      for (int k = 0; k < 16; k++) d[j + k] += (double)part[k];
    }
    for (; j < n; j++)
      for (int64_t i = r; i < end; i++) d[j] += (double)x[i * stride + j];
  }
}
CML_WIDE static void rows_sum_wide(double *d, const float *x, int64_t rows, int64_t stride, int64_t n) { rows_sum_loop(d, x, rows, stride, n); }
static void rows_sum(columns *c, const float *x, int64_t rows, int64_t stride, int64_t n) {
  (cml_wide() ? rows_sum_wide : rows_sum_loop)(c->d, x, rows, stride, n);
  c->at += rows;
}
static void columns_sum(columns *c, lane l, bool no_index, const void *x, int64_t n) {
  (void)no_index;
  (cml_wide() ? columns_sum_wide : columns_sum_loop)(c, l, false, x, n);
}
static void columns_squares(columns *c, lane l, bool no_index, const void *x, int64_t n) {
  (void)no_index;
  (cml_wide() ? columns_sum_wide : columns_sum_loop)(c, l, true, x, n);
}

/* A product as m 2^e. Products of floats are made in LANES parts at once, which no order of over- and underflows tells from the whole: m
 * stays in [1, 2) (or is zero, infinite or no number) but for a few factors, and those leave the range of a double nowhere. */
enum { LANES = 16, FACTORS = 6, EXPONENT = 0x7ff };
CML_WIDE_INLINE void normalise(double *m, int64_t *e, int n) {
  for (int k = 0; k < n; k++) {
    uint64_t bits;
    memcpy(&bits, &m[k], 8);
    int64_t exponent = (int64_t)(bits >> 52 & EXPONENT);
    bool plain = exponent != 0 && exponent != EXPONENT;
    e[k] += plain ? exponent - 1023 : 0;
    bits = plain ? (bits & ~((uint64_t)EXPONENT << 52)) | (uint64_t)1023 << 52 : bits;
    memcpy(&m[k], &bits, 8);
  }
}
CML_WIDE_INLINE void product_f32_loop(const float *x, int64_t n, double *d, int64_t *e) {
  double m[LANES];
  int64_t powers[LANES] = {0}, i = 0;
  for (int k = 0; k < LANES; k++) m[k] = 1;
  while (i + LANES <= n) {
    for (int f = 0; f < FACTORS && i + LANES <= n; f++, i += LANES)
      for (int k = 0; k < LANES; k++) m[k] *= (double)x[i + k];
    normalise(m, powers, LANES);
  }
  if (i < n) {
    for (int k = 0; k < n - i; k++) m[k] *= (double)x[i + k];
    normalise(m, powers, LANES);
  }
  for (int half = LANES / 2; half; half /= 2)
    for (int k = 0; k < half; k++) m[k] *= m[k + half], powers[k] += powers[k + half];
  *d *= m[0]; /* less than 2 ^ (LANES + 1) */
  *e += powers[0];
  normalise(d, e, 1);
}
CML_WIDE static void product_f32_wide(const float *x, int64_t n, double *d, int64_t *e) { product_f32_loop(x, n, d, e); }

static uint64_t product_i64(const int64_t *x, int64_t n) {
  uint64_t part[4] = {1, 1, 1, 1};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; k++) part[k] *= (uint64_t)x[i + k];
  for (; i < n; i++) part[0] *= (uint64_t)x[i];
  return part[0] * part[1] * part[2] * part[3];
}

/* The product starts at 1: kept as what is beyond it for a state of zeros. In d, with the power in i, or in i. */
static void step_product(state *s, lane l, const void *x, int64_t n) {
  double d = s->at ? s->d : 1;
  if (l == LANE_F32) (cml_wide() ? product_f32_wide : product_f32_loop)(x, n, &d, &s->i);
  else if (l == LANE_F64) for (int64_t i = 0; i < n; i++) d *= ((const double *)x)[i];
  else s->i = (int64_t)((s->at ? (uint64_t)s->i : 1) * product_i64(x, n));
  s->d = d;
}

static void put(const plan *p, cml_et_tensor *out, int64_t element, double d, int64_t i) {
  if (out->dtype == CML_F32 && p->lane != LANE_I64) ((float *)out->data)[element] = (float)d; /* mostly */
  else if (p->lane == LANE_I64) cml_et_store_i64(out, element, 1, 1, &i);
  else cml_et_store_f64(out, element, 1, 1, &d);
}
static void emit_value(const plan *p, state *s, int64_t e) { put(p, p->out, e, s->d, s->i); }
static void emit_product(const plan *p, state *s, int64_t e) {
  int64_t power = p->lane != LANE_F32 ? 0 : s->i > 1000 ? 1000 : s->i < -1000 ? -1000 : s->i; /* a float ends long before */
  const uint64_t bits = (uint64_t)(1023 + power) << 52;
  double scale;
  memcpy(&scale, &bits, 8);
  put(p, p->out, e, s->at ? s->d * scale : 1, s->at ? s->i : 1);
}
static void emit_mean(const plan *p, state *s, int64_t e) { put(p, p->out, e, s->d / (double)p->reduced, 0); }

/* Elements are cast to the output's type first. dtype: the argument that names it. */
static cml_status accumulate(cml_et_call *c, plan *p, uint32_t gone, bool keep, size_t dtype, cml_error *err) {
  p->lane = lane_of(p->out->dtype);
  CML_TRY(cml_et_want(c, p->out, CML_ET_ANY, "the output", err));
  if (cml_et_none(c, dtype) ? cml_dtype_is_float(p->x->dtype) && p->lane == LANE_I64 : cml_et_dtype(c, dtype) != p->out->dtype)
    return cml_et_fail(c, err, "the result's type is not the output's, %s", cml_dtype_name(p->out->dtype));
  return run_plan(c, p, gone, keep, err);
}

static cml_status op_sum(cml_et_call *c, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 4), .step = step_sum, .column_step = columns_sum, .emit = emit_value};
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  return accumulate(c, &p, gone, cml_et_bool(c, 2, false), 3, err);
}
static cml_status op_mean(cml_et_call *c, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 4), .step = step_sum, .column_step = columns_sum, .emit = emit_mean};
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  CML_TRY(cml_et_want(c, p.out, CML_ET_FLOATING, "the output", err));
  return accumulate(c, &p, gone, cml_et_bool(c, 2, false), 3, err);
}
static cml_status op_mean_all(cml_et_call *c, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 2), .step = step_sum, .column_step = columns_sum, .emit = emit_mean};
  CML_TRY(cml_et_want(c, p.out, CML_ET_FLOATING, "the output", err));
  return accumulate(c, &p, ~UINT32_C(0), false, 1, err);
}
static cml_status op_prod(cml_et_call *c, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 4), .step = step_product, .emit = emit_product};
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  return accumulate(c, &p, gone, cml_et_bool(c, 2, false), 3, err);
}
static cml_status op_prod_all(cml_et_call *c, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 2), .step = step_product, .emit = emit_product};
  return accumulate(c, &p, ~UINT32_C(0), false, 1, err);
}

/* ---- any ---- */

CML_WIDE_INLINE bool any_loop(lane l, const void *x, int64_t n) {
  int64_t any = 0;
  int32_t some = 0;
  if (l == LANE_F32) for (int64_t i = 0; i < n; i++) some |= ((const float *)x)[i] != 0;
  else if (l == LANE_F64) for (int64_t i = 0; i < n; i++) any |= ((const double *)x)[i] != 0;
  else for (int64_t i = 0; i < n; i++) any |= ((const int64_t *)x)[i];
  return any || some;
}
CML_WIDE static bool any_wide(lane l, const void *x, int64_t n) { return any_loop(l, x, n); }
static void step_any(state *s, lane l, const void *x, int64_t n) {
  if (!s->i) s->i = (cml_wide() ? any_wide : any_loop)(l, x, n);
}
CML_WIDE_INLINE void columns_any_loop(columns *c, lane l, const void *x, int64_t n) {
  if (l == LANE_F32) for (int64_t i = 0; i < n; i++) c->i[i] |= ((const float *)x)[i] != 0;
  else if (l == LANE_F64) for (int64_t i = 0; i < n; i++) c->i[i] |= ((const double *)x)[i] != 0;
  else for (int64_t i = 0; i < n; i++) c->i[i] |= ((const int64_t *)x)[i] != 0;
}
CML_WIDE static void columns_any_wide(columns *c, lane l, const void *x, int64_t n) { columns_any_loop(c, l, x, n); }
static void columns_any(columns *c, lane l, bool no_index, const void *x, int64_t n) {
  (void)no_index;
  (cml_wide() ? columns_any_wide : columns_any_loop)(c, l, x, n);
}
static void emit_any(const plan *p, state *s, int64_t e) { cml_et_store_i64(p->out, e, 1, 1, &s->i); }

/* Bytes in one run each, eight at a time. */
static void any_bytes(void *context, size_t begin, size_t end) {
  const plan *p = context;
  for (size_t e = begin; e < end; e++) {
    const uint8_t *x = (const uint8_t *)p->x->data + place_of(p, (int64_t)e);
    uint64_t some = 0, eight;
    int64_t i = 0;
    for (; i + 8 <= p->reduced; i += 8) {
      memcpy(&eight, x + i, 8);
      some |= eight;
    }
    for (; i < p->reduced; i++) some |= x[i];
    ((uint8_t *)p->out->data)[e] = some != 0;
  }
}

static cml_status any(cml_et_call *c, uint32_t gone, bool keep, size_t out, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, out), .step = step_any, .column_step = columns_any, .emit = emit_any};
  p.lane = lane_of(p.x->dtype);
  if (p.x->dtype == CML_BOOL || p.x->dtype == CML_U8) p.runs = any_bytes;
  CML_TRY(cml_et_want(c, p.out, CML_M_BOOL | CML_MASK(U8), "the output", err));
  return run_plan(c, &p, gone, keep, err);
}
static cml_status op_any_all(cml_et_call *c, cml_error *err) { return any(c, ~UINT32_C(0), false, 1, err); }
static cml_status op_any(cml_et_call *c, cml_error *err) {
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, cml_et_arg(c, 0)->rank, &gone, err));
  return any(c, gone, cml_et_bool(c, 2, false), 3, err);
}

/* ---- extremes: the first of the largest; NaN is larger than all, and smaller than all ---- */

#define FIND(T, better)                                                       \
  {                                                                           \
    const T *v = x;                                                           \
    for (int64_t i = 0; i < n; i++)                                           \
      if (better) {                                                           \
        best = v[i];                                                          \
        s->index = s->at + i;                                                 \
      }                                                                       \
  }
/* The place of a value that is there: NaN's is that of the first NaN. */
static int64_t find_f32(const float *x, float v) {
  int64_t i = 0;
  if (v == v) while (x[i] != v) i++;
  else while (x[i] == x[i]) i++;
  return i;
}
/* Rows of neighbours against the best so far; the comparisons are all of 8 bytes, so that vectors take them. */
#define EXTREME(name, OP, kernel, KERNEL)                                     \
  static void name(state *s, lane l, const void *x, int64_t n) {              \
    if (l == LANE_I64) {                                                      \
      int64_t best = s->at ? s->i : *(const int64_t *)x;                      \
      FIND(int64_t, v[i] OP best)                                             \
      s->i = best;                                                            \
    } else if (l == LANE_F64) {                                               \
      double best = s->at ? s->d : *(const double *)x;                        \
      if (!s->at && best != best) s->index = 0;                               \
      FIND(double, best == best && (v[i] OP best || v[i] != v[i]))            \
      s->d = best;                                                            \
    } else {                                                                  \
      float most = cml_kernels_get()->kernel(x, (size_t)n), best = (float)s->d; \
      if (s->at && !(best == best && (most OP best || most != most))) return; \
      if (!s->mean) s->index = s->at + find_f32(x, most); /* mean: no index is wanted */ \
      s->d = (double)most;                                                    \
    }                                                                         \
  }                                                                           \
  CML_WIDE_INLINE void name##_columns_loop(columns *c, lane l, const void *x, int64_t n) { \
    const int64_t at = c->at;                                                 \
    for (int64_t i = 0; l == LANE_I64 && i < n; i++) {                        \
      int64_t v = ((const int64_t *)x)[i];                                    \
      bool better = v OP c->i[i];                                             \
      c->i[i] = better ? v : c->i[i];                                         \
      c->index[i] = better ? at : c->index[i];                                \
    }                                                                         \
    for (int64_t i = 0; l != LANE_I64 && i < n; i++) {                        \
      double v = l == LANE_F32 ? (double)((const float *)x)[i] : ((const double *)x)[i], best = c->d[i]; \
      bool better = (best == best) & ((v OP best) | (v != v));                \
      c->d[i] = better ? v : best;                                            \
      c->index[i] = better ? at : c->index[i];                                \
    }                                                                         \
  }                                                                           \
  CML_WIDE static void name##_columns_wide(columns *c, lane l, const void *x, int64_t n) { \
    if (l == LANE_F32) name##_columns_loop(c, LANE_F32, x, n);                \
    else name##_columns_loop(c, l, x, n);                                     \
  }                                                                           \
  static void name##_columns(columns *c, lane l, bool no_index, const void *x, int64_t n) { \
    if (l == LANE_F32 && no_index && c->at) cml_kernels_get()->binary(CML_BINARY_##KERNEL, x, c->f, c->f, (size_t)n); \
    else if (c->at) (cml_wide() ? name##_columns_wide : name##_columns_loop)(c, l, x, n); \
    else if (l == LANE_F32 && !no_index) for (int64_t i = 0; i < n; i++) c->d[i] = (double)((const float *)x)[i]; \
    else memcpy(c->d, x, (size_t)n * (l == LANE_F32 ? sizeof(float) : sizeof(double))); \
  }
EXTREME(step_max, >, max, MAX)
EXTREME(step_min, <, min, MIN)

static void emit_index(const plan *p, state *s, int64_t e) { cml_et_store_i64(p->out, e, 1, 1, &s->index); }
static void emit_both(const plan *p, state *s, int64_t e) {
  put(p, p->out, e, s->d, s->i);
  cml_et_store_i64(p->out2, second_place(p, e), 1, 1, &s->index);
}

static cml_status extreme(cml_et_call *c, plan *p, bool largest, uint32_t gone, bool keep, cml_error *err) {
  p->lane = lane_of(p->x->dtype);
  p->step = largest ? step_max : step_min;
  p->column_step = largest ? step_max_columns : step_min_columns;
  p->no_index = p->emit == emit_value;
  if (p->emit == emit_index) CML_TRY(cml_et_want(c, p->out, CML_MASK(I64), "the output", err));
  else CML_TRY(cml_et_same_type(c, p->x, p->out, err));
  if (p->out2) CML_TRY(cml_et_want(c, p->out2, CML_MASK(I64), "the output of indices", err));
  int64_t n = 1, others = 1;
  for (int k = 0; k < p->x->rank; k++) *(gone >> k & 1 ? &n : &others) *= p->x->sizes[k];
  if (n == 0 && (others || gone == ~UINT32_C(0))) return cml_et_fail(c, err, "no elements have no extreme");
  return run_plan(c, p, gone, keep, err);
}

/* (x, dim, keepdim, outputs) */
static cml_status extreme_of_dims(cml_et_call *c, plan *p, bool largest, cml_error *err) {
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p->x->rank, &gone, err));
  return extreme(c, p, largest, gone, cml_et_bool(c, 2, false), err);
}

static cml_status amaxmin(cml_et_call *c, bool largest, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .emit = emit_value};
  return extreme_of_dims(c, &p, largest, err);
}
static cml_status op_amax(cml_et_call *c, cml_error *err) { return amaxmin(c, true, err); }
static cml_status op_amin(cml_et_call *c, cml_error *err) { return amaxmin(c, false, err); }

static cml_status arg(cml_et_call *c, bool largest, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .emit = emit_index};
  return extreme_of_dims(c, &p, largest, err);
}
static cml_status op_argmax(cml_et_call *c, cml_error *err) { return arg(c, true, err); }
static cml_status op_argmin(cml_et_call *c, cml_error *err) { return arg(c, false, err); }

static cml_status with_index(cml_et_call *c, bool largest, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .out2 = cml_et_arg(c, 4), .emit = emit_both};
  return extreme_of_dims(c, &p, largest, err);
}
static cml_status op_max_dim(cml_et_call *c, cml_error *err) { return with_index(c, true, err); }
static cml_status op_min_dim(cml_et_call *c, cml_error *err) { return with_index(c, false, err); }

static cml_status extreme_all(cml_et_call *c, bool largest, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 1), .emit = emit_value};
  return extreme(c, &p, largest, ~UINT32_C(0), false, err);
}
static cml_status op_max(cml_et_call *c, cml_error *err) { return extreme_all(c, true, err); }
static cml_status op_min(cml_et_call *c, cml_error *err) { return extreme_all(c, false, err); }

/* ---- variance: mean first, then squares of what differs from it; state.mean stays 0 in the first pass ---- */

static void step_variance(state *s, lane l, const void *x, int64_t n) {
  const double *d = x;
  (void)l;
  s->index = 1;
  s->d += sum_of(d, n, 0, false);
}
static void step_squares(state *s, lane l, const void *x, int64_t n) {
  const double *d = x;
  (void)l;
  s->d += sum_of(d, n, s->mean, true);
}
/* The mean, and the sum of squares beside it. A short run is loaded once. */
static void squares_of(const plan *p, int64_t first, double *mean, double *squares) {
  if (p->gone <= 1 && p->reduced <= CHUNK) {
    _Alignas(64) double buffer[CHUNK];
    cml_et_load_f64(buffer, p->x, first, p->gone ? p->gone_x[0] : 1, p->reduced);
    *mean = sum_of(buffer, p->reduced, 0, false) / (double)p->reduced;
    *squares = sum_of(buffer, p->reduced, *mean, true);
    return;
  }
  plan q = *p;
  state s = {0};
  q.step = step_variance;
  all_runs(&q, &s, first);
  *mean = s.d / (double)p->reduced;
  s = (state){.mean = *mean};
  q.step = step_squares;
  all_runs(&q, &s, first);
  *squares = s.d;
}
CML_WIDE_INLINE double fold16(double *part) {
  for (int half = 8; half; half /= 2)
    for (int k = 0; k < half; k++) part[k] += part[k + half];
  return part[0];
}
/* Mean and squares of floats in one dense run of at most CHUNK, both sums in double. */
CML_WIDE_INLINE void short_squares_loop(const float *x, int64_t n, double *mean, double *squares) {
  double part[16] = {0}, sum = 0;
  int64_t i, whole = n & ~INT64_C(15);
  for (i = 0; i < whole; i += 16)
    for (int k = 0; k < 16; k++) part[k] += (double)x[i + k];
  for (; i < n; i++) sum += (double)x[i];
  double m = (sum + fold16(part)) / (double)n;
  memset(part, 0, sizeof part);
  for (i = 0, sum = 0; i < whole; i += 16)
    for (int k = 0; k < 16; k++) {
      double d = (double)x[i + k] - m;
      part[k] += d * d;
    }
  for (; i < n; i++) sum += ((double)x[i] - m) * ((double)x[i] - m);
  *mean = m;
  *squares = sum + fold16(part);
}
CML_WIDE static void short_squares_wide(const float *x, int64_t n, double *mean, double *squares) { short_squares_loop(x, n, mean, squares); }
static void put_variance(const plan *p, double mean, double squares, int64_t e) {
  double divisor = (double)p->reduced - p->parameter, variance = squares / (divisor > 0 ? divisor : 0);
  put(p, p->out, e, variance, 0);
  if (p->out2) put(p, p->out2, second_place(p, e), mean, 0);
}
static void emit_variance(const plan *p, state *s, int64_t e) {
  double mean, squares;
  if (p->x->dtype == CML_F32 && p->gone == 1 && p->gone_x[0] == 1 && p->reduced <= CHUNK)
    (cml_wide() ? short_squares_wide : short_squares_loop)((const float *)p->x->data + s->first, p->reduced, &mean, &squares);
  else squares_of(p, s->first, &mean, &squares);
  put_variance(p, mean, squares, e);
}
static void emit_columns_variance(const plan *p, state *s, int64_t e) { put_variance(p, s->mean, s->d, e); }

static void columns_variance(const plan *p, columns *c, int64_t first, int64_t n) {
  plan q = *p;
  q.column_step = columns_squares;
  for (int64_t k = 0; k < n; k++) c->mean[k] = c->d[k] / (double)p->reduced;
  memset(c->d, 0, sizeof c->d);
  all_rows(&q, c, first, n);
}
static cml_status variance(cml_et_call *c, size_t keep, double correction, size_t out, bool with_mean, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, out), .lane = LANE_F64, .column_step = columns_sum,
            .second_pass = columns_variance, .emit = emit_variance, .column_emit = emit_columns_variance, .parameter = correction};
  if (with_mean) p.out2 = cml_et_arg(c, out + 1);
  uint32_t gone;
  CML_TRY(cml_et_want(c, p.x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_want(c, p.out, CML_ET_FLOATING, "the output", err));
  if (p.out2) CML_TRY(cml_et_want(c, p.out2, CML_ET_FLOATING, "the output", err));
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  return run_plan(c, &p, gone, cml_et_bool(c, keep, false), err);
}
static cml_status op_var(cml_et_call *c, cml_error *err) { return variance(c, 3, cml_et_bool(c, 2, true), 4, false, err); }
static cml_status op_var_correction(cml_et_call *c, cml_error *err) { return variance(c, 3, cml_et_real(c, 2, 1), 4, false, err); }
static cml_status op_var_mean(cml_et_call *c, cml_error *err) { return variance(c, 3, cml_et_real(c, 2, 1), 4, true, err); }

static const cml_et_op rows[] = {
    {"aten::amax.out", "tIbo", op_amax},
    {"aten::amin.out", "tIbo", op_amin},
    {"aten::any.all_out", "to", op_any_all},
    {"aten::any.dims_out", "tI?bo", op_any},
    {"aten::any.out", "tibo", op_any},
    {"aten::argmax.out", "ti?bo", op_argmax},
    {"aten::argmin.out", "ti?bo", op_argmin},
    {"aten::max.dim_max", "tiboo", op_max_dim},
    {"aten::max.unary_out", "to", op_max},
    {"aten::mean.dtype_out", "ti?o", op_mean_all},
    {"aten::mean.out", "tI?bi?o", op_mean},
    {"aten::min.dim_min", "tiboo", op_min_dim},
    {"aten::min.unary_out", "to", op_min},
    {"aten::prod.int_out", "tibi?o", op_prod},
    {"aten::prod.out", "ti?o", op_prod_all},
    {"aten::sum.IntList_out", "tI?bi?o", op_sum},
    {"aten::var.correction_out", "tI?n?bo", op_var_correction},
    {"aten::var.out", "tI?bbo", op_var},
    {"aten::var_mean.correction_out", "tI?n?boo", op_var_mean},
};
CML_ET_FAMILY(reduce)
