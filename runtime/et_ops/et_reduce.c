/* Reductions and what runs along one dimension: sums, extremes, variances, softmax, running sums.
 *
 * A plan splits the input's dimensions into those that stay and those that go. For each element of the output the driver hands
 * the elements behind it, in runs of the computing type, to a step function with a small state; a last function makes the result. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_view.h"
#include "kernels.h"

typedef enum lane { LANE_F32, LANE_F64, LANE_I64 } lane;
static lane lane_of(cml_dtype t) { return t == CML_F64 ? LANE_F64 : cml_dtype_is_float(t) ? LANE_F32 : LANE_I64; }

typedef struct state {
  double d, mean;
  int64_t i, at, index; /* at: elements seen; index: of the extreme */
} state;

typedef struct plan {
  const cml_et_tensor *x;
  lane lane;
  void (*step)(state *s, lane lane, const void *x, int64_t n);
  void (*emit)(const struct plan *p, state *s, int64_t element); /* element: which of the output, in its shape's order */
  cml_et_tensor *out, *out2;
  int64_t reduced, outputs;
  double parameter;
  int kept, gone;
  int64_t kept_sizes[CML_PTE_MAX_RANK], kept_x[CML_PTE_MAX_RANK];
  int64_t gone_sizes[CML_PTE_MAX_RANK], gone_x[CML_PTE_MAX_RANK];
} plan;

enum { CHUNK = 1024 };

static void one_run(const plan *p, state *s, int64_t first, int64_t step, int64_t count) {
  _Alignas(64) double buffer[CHUNK];
  cml_dtype type = p->x->dtype;
  bool ready = step == 1 && type == (p->lane == LANE_F32 ? CML_F32 : p->lane == LANE_F64 ? CML_F64 : CML_I64);
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

static void all_runs(const plan *p, state *s, int64_t first) {
  int64_t at[CML_PTE_MAX_RANK] = {0};
  int last = p->gone - 1;
  if (p->reduced == 0) return;
  for (;;) {
    one_run(p, s, first, last < 0 ? 1 : p->gone_x[last], last < 0 ? 1 : p->gone_sizes[last]);
    int k = last - 1;
    for (; k >= 0; k--) {
      first += p->gone_x[k];
      if (++at[k] < p->gone_sizes[k]) break;
      first -= at[k] * p->gone_x[k];
      at[k] = 0;
    }
    if (k < 0) return;
  }
}

static void reduce_range(void *context, size_t begin, size_t end) {
  const plan *p = context;
  for (size_t e = begin; e < end; e++) {
    int64_t rest = (int64_t)e, first = 0;
    state s = {0};
    for (int k = p->kept - 1; k >= 0; k--) {
      first += rest % p->kept_sizes[k] * p->kept_x[k];
      rest /= p->kept_sizes[k];
    }
    all_runs(p, &s, first);
    p->emit(p, &s, (int64_t)e);
  }
}

/* Sets the dimensions; gone: bit mask. Neighbouring dimensions that go are joined. */
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
      p->kept_sizes[p->kept] = x->sizes[k];
      p->kept_x[p->kept++] = x->strides[k];
    }
  }
  return CML_OK;
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

/* Runs the plan; out (and out2, with out's shape) are contiguous or copied at the end. */
static cml_status run_plan(cml_et_call *c, plan *p, uint32_t gone, bool keep, cml_error *err) {
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(plan_dims(c, p, gone, keep, sizes, &rank, err));
  cml_et_tensor *outs[2] = {p->out, p->out2};
  cml_et_local locals[2];
  for (int k = 0; k < 2 && outs[k]; k++) {
    CML_TRY(cml_et_resize(c, outs[k], rank, sizes, err));
    if (cml_et_is_contiguous(outs[k])) continue;
    void *data = cml_et_temp(c, (uint64_t)p->outputs * cml_et_width(outs[k]));
    if (!data) return cml_fail_memory(err);
    cml_et_make(&locals[k], outs[k]->dtype, rank, sizes, data);
    *(k ? &p->out2 : &p->out) = &locals[k].t;
  }
  int64_t grain = p->reduced ? 32768 / p->reduced + 1 : 32768;
  cml_parallel(c->pool, (size_t)p->outputs, (size_t)grain, reduce_range, p);
  if (p->out != outs[0]) cml_et_copy(outs[0], p->out);
  if (p->out2 != outs[1]) cml_et_copy(outs[1], p->out2);
  return CML_OK;
}

/* ---- sums and products ---- */

static void step_sum(state *s, lane l, const void *x, int64_t n) {
  if (l == LANE_F32) s->d += (double)cml_kernels_get()->sum(x, (size_t)n);
  else if (l == LANE_F64) for (int64_t i = 0; i < n; i++) s->d += ((const double *)x)[i];
  else for (int64_t i = 0; i < n; i++) s->i = (int64_t)((uint64_t)s->i + (uint64_t)((const int64_t *)x)[i]);
}

/* The product starts at 1: kept as what is beyond it for a state of zeros. */
static void step_product(state *s, lane l, const void *x, int64_t n) {
  double d = s->at ? s->d : 1;
  uint64_t v = s->at ? (uint64_t)s->i : 1;
  if (l == LANE_F32) for (int64_t i = 0; i < n; i++) d *= (double)((const float *)x)[i];
  else if (l == LANE_F64) for (int64_t i = 0; i < n; i++) d *= ((const double *)x)[i];
  else for (int64_t i = 0; i < n; i++) v *= (uint64_t)((const int64_t *)x)[i];
  s->d = d;
  s->i = (int64_t)v;
}

static void put(const plan *p, cml_et_tensor *out, int64_t element, double d, int64_t i) {
  if (p->lane == LANE_I64) cml_et_store_i64(out, element, 1, 1, &i);
  else cml_et_store_f64(out, element, 1, 1, &d);
}
static void emit_value(const plan *p, state *s, int64_t e) { put(p, p->out, e, s->d, s->i); }
static void emit_product(const plan *p, state *s, int64_t e) { put(p, p->out, e, s->at ? s->d : 1, s->at ? s->i : 1); }
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
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 4), .step = step_sum, .emit = emit_value};
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  return accumulate(c, &p, gone, cml_et_bool(c, 2, false), 3, err);
}
static cml_status op_mean(cml_et_call *c, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 4), .step = step_sum, .emit = emit_mean};
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  CML_TRY(cml_et_want(c, p.out, CML_ET_FLOATING, "the output", err));
  return accumulate(c, &p, gone, cml_et_bool(c, 2, false), 3, err);
}
static cml_status op_mean_all(cml_et_call *c, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 2), .step = step_sum, .emit = emit_mean};
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

static void step_any(state *s, lane l, const void *x, int64_t n) {
  bool any = false;
  if (l == LANE_F32) for (int64_t i = 0; i < n; i++) any |= ((const float *)x)[i] != 0;
  else if (l == LANE_F64) for (int64_t i = 0; i < n; i++) any |= ((const double *)x)[i] != 0;
  else for (int64_t i = 0; i < n; i++) any |= ((const int64_t *)x)[i] != 0;
  s->i |= any;
}
static void emit_any(const plan *p, state *s, int64_t e) { cml_et_store_i64(p->out, e, 1, 1, &s->i); }

static cml_status any(cml_et_call *c, uint32_t gone, bool keep, size_t out, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, out), .step = step_any, .emit = emit_any};
  p.lane = lane_of(p.x->dtype);
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
#define EXTREME(name, OP, kernel)                                             \
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
      float most = cml_kernels_get()->kernel(x, (size_t)n), best = s->at ? (float)s->d : *(const float *)x; \
      if (!s->at || (best == best && (most OP best || most != most)))         \
        FIND(float, best == best && (v[i] OP best || v[i] != v[i]))           \
      s->d = (double)best;                                                    \
    }                                                                         \
  }
EXTREME(step_max, >, max)
EXTREME(step_min, <, min)

static void emit_index(const plan *p, state *s, int64_t e) { cml_et_store_i64(p->out, e, 1, 1, &s->index); }
static void emit_both(const plan *p, state *s, int64_t e) {
  put(p, p->out, e, s->d, s->i);
  cml_et_store_i64(p->out2, e, 1, 1, &s->index);
}

static cml_status extreme(cml_et_call *c, plan *p, bool largest, uint32_t gone, bool keep, cml_error *err) {
  p->lane = lane_of(p->x->dtype);
  p->step = largest ? step_max : step_min;
  if (p->emit == emit_index) CML_TRY(cml_et_want(c, p->out, CML_MASK(I64), "the output", err));
  else CML_TRY(cml_et_same_type(c, p->x, p->out, err));
  if (p->out2) CML_TRY(cml_et_want(c, p->out2, CML_MASK(I64), "the output of indices", err));
  int64_t n = 1, others = 1;
  for (int k = 0; k < p->x->rank; k++) *(gone >> k & 1 ? &n : &others) *= p->x->sizes[k];
  if (n == 0 && (others || gone == ~UINT32_C(0))) return cml_et_fail(c, err, "no elements have no extreme");
  return run_plan(c, p, gone, keep, err);
}

static cml_status amaxmin(cml_et_call *c, bool largest, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .emit = emit_value};
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  return extreme(c, &p, largest, gone, cml_et_bool(c, 2, false), err);
}
static cml_status op_amax(cml_et_call *c, cml_error *err) { return amaxmin(c, true, err); }
static cml_status op_amin(cml_et_call *c, cml_error *err) { return amaxmin(c, false, err); }

static cml_status arg(cml_et_call *c, bool largest, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .emit = emit_index};
  cml_et_local local;
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  bool all = cml_et_none(c, 1);
  if (all) CML_TRY(cml_et_contiguous(c, p.x, &local, &p.x, err)); /* counts elements by position */
  return extreme(c, &p, largest, gone, cml_et_bool(c, 2, false), err);
}
static cml_status op_argmax(cml_et_call *c, cml_error *err) { return arg(c, true, err); }
static cml_status op_argmin(cml_et_call *c, cml_error *err) { return arg(c, false, err); }

static cml_status with_index(cml_et_call *c, bool largest, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .out2 = cml_et_arg(c, 4), .emit = emit_both};
  uint32_t gone;
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  return extreme(c, &p, largest, gone, cml_et_bool(c, 2, false), err);
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
  for (int64_t i = 0; i < n; i++) s->d += d[i];
}
static void step_squares(state *s, lane l, const void *x, int64_t n) {
  const double *d = x;
  (void)l;
  for (int64_t i = 0; i < n; i++) s->d += (d[i] - s->mean) * (d[i] - s->mean);
}
static void variance_of(const plan *p, int64_t first, double *mean, double *variance) {
  plan q = *p;
  state s = {0};
  q.step = step_variance;
  all_runs(&q, &s, first);
  *mean = s.d / (double)p->reduced;
  s = (state){.mean = *mean};
  q.step = step_squares;
  all_runs(&q, &s, first);
  double divisor = (double)p->reduced - p->parameter;
  *variance = s.d / (divisor > 0 ? divisor : 0);
}
static void step_none(state *s, lane l, const void *x, int64_t n) { (void)s, (void)l, (void)x, (void)n; }
static void emit_variance(const plan *p, state *s, int64_t e) {
  int64_t rest = e, first = 0;
  double mean, variance;
  (void)s;
  for (int k = p->kept - 1; k >= 0; k--) {
    first += rest % p->kept_sizes[k] * p->kept_x[k];
    rest /= p->kept_sizes[k];
  }
  variance_of(p, first, &mean, &variance);
  cml_et_store_f64(p->out, e, 1, 1, &variance);
  if (p->out2) cml_et_store_f64(p->out2, e, 1, 1, &mean);
}

static cml_status variance(cml_et_call *c, size_t keep, double correction, size_t out, bool with_mean, cml_error *err) {
  plan p = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, out), .lane = LANE_F64, .step = step_none, .emit = emit_variance, .parameter = correction};
  uint32_t gone;
  if (with_mean) p.out2 = cml_et_arg(c, out + 1);
  CML_TRY(cml_et_want(c, p.x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_want(c, p.out, CML_ET_FLOATING, "the output", err));
  if (p.out2) CML_TRY(cml_et_want(c, p.out2, CML_ET_FLOATING, "the output", err));
  CML_TRY(dims_mask(c, 1, p.x->rank, &gone, err));
  return run_plan(c, &p, gone, cml_et_bool(c, keep, false), err);
}
static cml_status op_var(cml_et_call *c, cml_error *err) { return variance(c, 3, cml_et_bool(c, 2, true), 4, false, err); }
static cml_status op_var_correction(cml_et_call *c, cml_error *err) { return variance(c, 3, cml_et_real(c, 2, 1), 4, false, err); }
static cml_status op_var_mean(cml_et_call *c, cml_error *err) { return variance(c, 3, cml_et_real(c, 2, 1), 4, true, err); }

/* ---- along one dimension ---- */

typedef struct rows_job {
  const cml_et_tensor *x;
  cml_et_tensor *out;
  int axis;
  int64_t n;
  char *scratch;
  bool log;
} rows_job;

static int64_t row_offset(const cml_et_tensor *t, int axis, int64_t row) {
  int64_t offset = 0;
  for (int k = t->rank - 1; k >= 0; k--) {
    if (k == axis) continue;
    offset += row % t->sizes[k] * t->strides[k];
    row /= t->sizes[k];
  }
  return offset;
}

static void softmax_f64(double *x, int64_t n, bool log_of) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) most = x[i] > most || x[i] != x[i] ? x[i] : most;
  for (int64_t i = 0; i < n; i++) sum += exp(x[i] - most);
  for (int64_t i = 0; i < n; i++) x[i] = log_of ? x[i] - most - log(sum) : exp(x[i] - most) / sum;
}

static void softmax_f32(float *x, int64_t n, bool log_of) {
  const cml_kernels *k = cml_kernels_get();
  if (!log_of) {
    k->softmax(x, x, (size_t)n);
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

static void softmax_rows(void *context, size_t thread, size_t begin, size_t end) {
  const rows_job *j = context;
  void *room = j->scratch + thread * (size_t)j->n * 8;
  int64_t xs = j->x->rank ? j->x->strides[j->axis] : 1, ys = j->out->rank ? j->out->strides[j->axis] : 1;
  for (size_t r = begin; r < end; r++) {
    int64_t from = row_offset(j->x, j->axis, (int64_t)r), to = row_offset(j->out, j->axis, (int64_t)r);
    if (j->x->dtype == CML_F64 || j->out->dtype == CML_F64) {
      cml_et_load_f64(room, j->x, from, xs, j->n);
      softmax_f64(room, j->n, j->log);
      cml_et_store_f64(j->out, to, ys, j->n, room);
    } else if (xs == 1 && ys == 1 && j->x->dtype == CML_F32 && j->out->dtype == CML_F32 && !j->log) {
      cml_kernels_get()->softmax((const float *)j->x->data + from, (float *)j->out->data + to, (size_t)j->n);
    } else {
      cml_et_load_f32(room, j->x, from, xs, j->n);
      softmax_f32(room, j->n, j->log);
      cml_et_store_f32(j->out, to, ys, j->n, room);
    }
  }
}

static cml_status softmax(cml_et_call *c, bool log_of, cml_error *err) {
  rows_job j = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 3), .log = log_of};
  CML_TRY(cml_et_want(c, j.x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_want(c, j.out, CML_ET_FLOATING, "the output", err));
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), j.x->rank, &j.axis, err));
  CML_TRY(cml_et_resize_like(c, j.out, j.x, err));
  int64_t total = cml_et_numel(j.x);
  if (total == 0) return CML_OK;
  j.n = j.x->rank ? j.x->sizes[j.axis] : 1;
  j.scratch = cml_et_temp(c, (uint64_t)j.n * 8 * cml_pool_threads(c->pool));
  if (!j.scratch) return cml_fail_memory(err);
  cml_parallel_with_thread(c->pool, (size_t)(total / j.n), (size_t)(8192 / j.n + 1), softmax_rows, &j);
  return CML_OK;
}
static cml_status op_softmax(cml_et_call *c, cml_error *err) { return softmax(c, false, err); }
static cml_status op_log_softmax(cml_et_call *c, cml_error *err) { return softmax(c, true, err); }

static void running_sum(const cml_et_tensor *x, cml_et_tensor *out, int64_t from, int64_t to, int64_t xs, int64_t ys, int64_t n) {
  double d[256], sum = 0;
  int64_t v[256], whole = 0;
  for (int64_t at = 0; at < n; at += 256) {
    int64_t m = n - at < 256 ? n - at : 256;
    if (lane_of(out->dtype) == LANE_I64) {
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

static const cml_et_op rows[] = {
    {"aten::_log_softmax.out", "tibo", op_log_softmax},
    {"aten::_softmax.out", "tibo", op_softmax},
    {"aten::amax.out", "tIbo", op_amax},
    {"aten::amin.out", "tIbo", op_amin},
    {"aten::any.all_out", "to", op_any_all},
    {"aten::any.dims_out", "tI?bo", op_any},
    {"aten::any.out", "tibo", op_any},
    {"aten::argmax.out", "ti?bo", op_argmax},
    {"aten::argmin.out", "ti?bo", op_argmin},
    {"aten::cumsum.out", "tii?o", op_cumsum},
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
