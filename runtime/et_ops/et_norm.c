/* Normalisations: over the last dimensions, over groups of channels, over batches. Statistics are computed in double precision. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_view.h"
#include "kernels.h"

/* Rows of n in the order of the shape: normalised, times gamma plus beta, which repeat every `channels` for `run` elements each. */
typedef struct norm {
  const cml_et_tensor *x, *gamma, *beta; /* the latter two: or NULL */
  cml_et_tensor *out, *mean, *rstd;
  int64_t rows, n, channels, run; /* channels: of the parameters; a row starts at channel (row * n / run) % channels */
  double epsilon;
  int64_t piece; /* elements of a row that are looked at together */
} norm;

enum { LEAST_PIECE = 2048, MOST_PIECE = 8192, PIECE_F64 = 512 };

/* One thread's: a piece each. Elements are taken from x itself where that is dense and float32, from `row` where the row is short, else
 * they are loaded piece by piece. */
typedef struct room {
  float *row, *gamma, *beta;
} room;

static bool in_place(const norm *j) { return j->x->dtype == CML_F32 && cml_et_is_contiguous(j->x); }

static const float *piece_of(const norm *j, const room *r, int64_t row, int64_t at, int64_t n) {
  int64_t first = row * j->n + at;
  if (in_place(j)) return (const float *)j->x->data + first;
  if (j->n > j->piece) cml_et_load_run_f32(r->row, j->x, first, n);
  return r->row;
}

static int64_t piece_at(const norm *j, int64_t at) { return j->n - at < j->piece ? j->n - at : j->piece; }

static void moments(const norm *j, const room *r, int64_t row, double *mean, double *variance) {
  double sum = 0, squares = 0;
  const cml_kernels *k = cml_kernels_get();
  for (int64_t at = 0, n; at < j->n; at += n) {
    n = piece_at(j, at);
    const float *x = piece_of(j, r, row, at, n);
    for (int64_t i = 0; i < n; i += 4096) sum += (double)k->sum(x + i, n - i < 4096 ? (size_t)(n - i) : 4096);
  }
  *mean = sum / (double)j->n;
  for (int64_t at = 0, n; at < j->n; at += n) {
    n = piece_at(j, at);
    const float *x = piece_of(j, r, row, at, n);
    for (int64_t i = 0; i < n; i += 4096) {
      float s, q;
      size_t m = n - i < 4096 ? (size_t)(n - i) : 4096;
      k->moments(x + i, m, (float)*mean, &s, &q);
      double d = *mean - (double)(float)*mean;
      squares += (double)q - 2 * d * (double)s + (double)m * d * d;
    }
  }
  *variance = squares / (double)j->n > 0 || squares != squares ? squares / (double)j->n : 0;
}

static bool readable(const cml_et_tensor *t) { return t && t->dtype == CML_F32 && cml_et_is_contiguous(t); }

/* n of a parameter from `first` on, or of `otherwise` where it is missing. */
static const float *parameter(const cml_et_tensor *t, int64_t first, int64_t n, float otherwise, float *to) {
  if (readable(t)) return (const float *)t->data + first;
  if (t) cml_et_load_run_f32(to, t, first, n);
  else for (int64_t i = 0; i < n; i++) to[i] = otherwise;
  return to;
}

static void norm_piece(const norm *j, const room *r, int64_t row, int64_t at, int64_t n, const float *x, float *y, float mean, float rstd) {
  int64_t channel = row * (j->n / j->run) % j->channels;
  if (j->run == 1) {
    const float *gamma = parameter(j->gamma, channel + at, n, 1, r->gamma), *beta = parameter(j->beta, channel + at, n, 0, r->beta);
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * gamma[i] + beta[i];
    return;
  }
  for (int64_t i = 0, m; i < n; i += m) {
    int64_t k = channel + (at + i) / j->run, left = j->run - (at + i) % j->run;
    float a = rstd * *parameter(j->gamma, k, 1, 1, r->gamma), b = *parameter(j->beta, k, 1, 0, r->beta);
    m = left < n - i ? left : n - i;
    for (int64_t e = i; e < i + m; e++) y[e] = (x[e] - mean) * a + b;
  }
}

static void norm_rows(void *context, void *scratch, size_t begin, size_t end) {
  const norm *j = context;
  float *after = (float *)scratch + j->piece;
  const room rooms = {scratch, after, readable(j->gamma) ? after : after + j->piece}, *r = &rooms;
  bool dense = j->out->dtype == CML_F32 && cml_et_is_contiguous(j->out);
  for (int64_t row = (int64_t)begin; row < (int64_t)end; row++) {
    double mean, variance, rstd;
    if (j->n <= j->piece && !in_place(j)) cml_et_load_run_f32(r->row, j->x, row * j->n, j->n);
    moments(j, r, row, &mean, &variance);
    rstd = 1 / sqrt(variance + j->epsilon);
    cml_et_store_run_f64(j->mean, row, 1, &mean);
    cml_et_store_run_f64(j->rstd, row, 1, &rstd);
    for (int64_t at = 0, n; at < j->n; at += n) {
      n = piece_at(j, at);
      const float *x = piece_of(j, r, row, at, n);
      float *y = dense ? (float *)j->out->data + row * j->n + at : r->row;
      norm_piece(j, r, row, at, n, x, y, (float)mean, (float)rstd);
      if (!dense) cml_et_store_run_f32(j->out, row * j->n + at, n, y);
    }
  }
}

/* float64 at its own precision; simple, for it is rare. The sums over a row of x - shift, or of its squares. */
static double sum_f64(const norm *j, int64_t row, double shift, bool square) {
  double x[PIECE_F64], sum = 0;
  for (int64_t at = 0; at < j->n; at += PIECE_F64) {
    int64_t n = j->n - at < PIECE_F64 ? j->n - at : PIECE_F64;
    cml_et_load_run_f64(x, j->x, row * j->n + at, n);
    for (int64_t i = 0; i < n; i++) sum += square ? (x[i] - shift) * (x[i] - shift) : x[i] - shift;
  }
  return sum;
}

static void norm_rows_f64(const norm *j) {
  double x[PIECE_F64];
  for (int64_t row = 0; row < j->rows; row++) {
    double mean = sum_f64(j, row, 0, false) / (double)j->n, rstd = 1 / sqrt(sum_f64(j, row, mean, true) / (double)j->n + j->epsilon);
    cml_et_store_run_f64(j->mean, row, 1, &mean);
    cml_et_store_run_f64(j->rstd, row, 1, &rstd);
    for (int64_t at = 0; at < j->n; at += PIECE_F64) {
      int64_t n = j->n - at < PIECE_F64 ? j->n - at : PIECE_F64;
      cml_et_load_run_f64(x, j->x, row * j->n + at, n);
      for (int64_t i = 0; i < n; i++) {
        int64_t channel = (row * j->n + at + i) / j->run % j->channels;
        double a = 1, b = 0;
        if (j->gamma) cml_et_load_run_f64(&a, j->gamma, channel, 1);
        if (j->beta) cml_et_load_run_f64(&b, j->beta, channel, 1);
        x[i] = (x[i] - mean) * rstd * a + b;
      }
      cml_et_store_run_f64(j->out, row * j->n + at, n, x);
    }
  }
}

static cml_status run_norm(cml_et_call *c, norm *j, cml_error *err) {
  const cml_et_tensor *both[2] = {j->gamma, j->beta};
  CML_TRY(cml_et_same_type(c, j->x, j->out, err));
  CML_TRY(cml_et_want(c, j->mean, CML_ET_FLOATING, "the output of means", err));
  CML_TRY(cml_et_want(c, j->rstd, CML_ET_FLOATING, "the output of deviations", err));
  for (int k = 0; k < 2; k++) {
    if (!both[k]) continue;
    CML_TRY(cml_et_want(c, both[k], CML_ET_FLOATING, "a parameter", err));
    if (cml_et_numel(both[k]) != j->channels) return cml_et_fail(c, err, "a parameter has not %lld elements", (long long)j->channels);
  }
  CML_TRY(cml_et_resize_like(c, j->out, j->x, err));
  if (j->rows == 0) return CML_OK;
  if (j->x->dtype == CML_F64) {
    norm_rows_f64(j);
    return CML_OK;
  }
  cml_et_crew crew;
  size_t each = sizeof(float) * (size_t)(3 - readable(j->gamma) - readable(j->beta));
  j->piece = (int64_t)(cml_et_crew_share(c, LEAST_PIECE * each, MOST_PIECE * each) / each);
  if (j->piece > j->n) j->piece = j->n;
  CML_TRY(cml_et_crew_of(c, (uint64_t)j->piece * each, &crew, err));
  cml_et_crew_run(&crew, (size_t)j->rows, (size_t)(16384 / (j->n + 1) + 1), norm_rows, j);
  return CML_OK;
}

static cml_status op_layer_norm(cml_et_call *c, cml_error *err) {
  norm j = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 5), .mean = cml_et_arg(c, 6), .rstd = cml_et_arg(c, 7), .rows = 1, .n = 1, .run = 1,
            .gamma = cml_et_arg(c, 2), .beta = cml_et_arg(c, 3), .epsilon = cml_et_real(c, 4, 1e-5)};
  int64_t shape[CML_PTE_MAX_RANK], sizes[CML_PTE_MAX_RANK];
  size_t count;
  CML_TRY(cml_et_want(c, j.x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_ints(c, 1, shape, CML_PTE_MAX_RANK, &count, err));
  if (!count || count > j.x->rank || memcmp(shape, j.x->sizes + j.x->rank - count, count * sizeof *shape))
    return cml_et_fail(c, err, "normalized_shape is not that of the last dimensions");
  for (int k = 0; k < j.x->rank; k++) {
    bool inner = k >= j.x->rank - (int)count;
    *(inner ? &j.n : &j.rows) *= j.x->sizes[k];
    sizes[k] = inner ? 1 : j.x->sizes[k];
  }
  j.channels = j.n;
  CML_TRY(cml_et_resize(c, j.mean, j.x->rank, sizes, err));
  CML_TRY(cml_et_resize(c, j.rstd, j.x->rank, sizes, err));
  if (j.n == 0) return cml_et_fail(c, err, "rows of no elements have no mean");
  return run_norm(c, &j, err);
}

static cml_status op_group_norm(cml_et_call *c, cml_error *err) {
  norm j = {.x = cml_et_arg(c, 0), .out = cml_et_arg(c, 8), .mean = cml_et_arg(c, 9), .rstd = cml_et_arg(c, 10),
            .gamma = cml_et_arg(c, 1), .beta = cml_et_arg(c, 2), .epsilon = cml_et_real(c, 7, 1e-5)};
  int64_t n = cml_et_int(c, 3, 0), channels = cml_et_int(c, 4, 0), plane = cml_et_int(c, 5, 0), groups = cml_et_int(c, 6, 0), count, area;
  CML_TRY(cml_et_want(c, j.x, CML_ET_FLOATING, "the tensor", err));
  if (n < 0 || channels < 1 || plane < 1 || groups < 1 || channels % groups || __builtin_mul_overflow(n, channels, &area) ||
      __builtin_mul_overflow(area, plane, &count) || count != cml_et_numel(j.x))
    return cml_et_fail(c, err, "%lld images of %lld channels of %lld pixels in %lld groups are not the tensor", (long long)n, (long long)channels, (long long)plane, (long long)groups);
  j.rows = n * groups;
  j.n = channels / groups * plane;
  j.channels = channels;
  j.run = plane;
  CML_TRY(cml_et_resize(c, j.mean, 2, (int64_t[]){n, groups}, err));
  CML_TRY(cml_et_resize(c, j.rstd, 2, (int64_t[]){n, groups}, err));
  return run_norm(c, &j, err);
}

/* ---- over the batch ---- */

CML_ET_MAP3(affine_f32, float, float, x * y + z)
CML_ET_MAP3(affine_f64, double, double, x * y + z)

/* Some channels at a time: `count` of `all` from `first` on. */
enum { CHANNELS = 4096 };
typedef struct channels_of {
  int64_t all, first, count;
  const cml_et_tensor *x;
  double *mean, *variance, *scale, *shift;
} channels_of;

static cml_status take_channels(cml_et_call *c, channels_of *s, const cml_et_tensor *const *parameters, size_t count, cml_error *err) {
  s->x = cml_et_arg(c, 0);
  CML_TRY(cml_et_want(c, s->x, CML_ET_FLOATING, "the tensor", err));
  if (s->x->rank < 2) return cml_et_fail(c, err, "a tensor of rank %d has no channels", s->x->rank);
  s->all = s->x->sizes[1];
  s->first = 0;
  s->count = s->all < CHANNELS ? s->all : CHANNELS;
  for (size_t i = 0; i < count; i++) {
    if (!parameters[i]) continue;
    CML_TRY(cml_et_want(c, parameters[i], CML_ET_FLOATING, "a parameter", err));
    if (parameters[i]->rank != 1 || parameters[i]->sizes[0] != s->all) return cml_et_fail(c, err, "a parameter has not %lld elements", (long long)s->all);
  }
  if (!(s->mean = cml_et_temp(c, (uint64_t)s->count * 4 * sizeof *s->mean))) return cml_fail_memory(err);
  s->variance = s->mean + s->count;
  s->scale = s->variance + s->count;
  s->shift = s->scale + s->count;
  return CML_OK;
}

/* To the next channels; false when there are none. */
static bool next_channels(channels_of *s) {
  s->first += s->count;
  if (s->count > s->all - s->first) s->count = s->all - s->first;
  return s->count > 0;
}

/* Float32 in rows of one channel. */
static void affine_rows(const channels_of *s, cml_et_tensor *out) {
  const cml_kernels *k = cml_kernels_get();
  size_t n = 1;
  for (int i = 2; i < s->x->rank; i++) n *= (size_t)s->x->sizes[i];
  for (int64_t image = 0; image < s->x->sizes[0]; image++) {
    size_t at = (size_t)(image * s->all + s->first) * n;
    for (int64_t i = 0; i < s->count; i++, at += n)
      k->unary(CML_UNARY_SCALE, (const float *)s->x->data + at, (float *)out->data + at, n, (float)s->scale[i], (float)s->shift[i]);
  }
}

/* Whatever the dim orders: lines of channels, some at a time. */
static void affine_lines(const channels_of *s, cml_et_tensor *out) {
  double line[256];
  int64_t at[CML_PTE_MAX_RANK] = {0}, from = s->first * s->x->strides[1], to = s->first * out->strides[1];
  for (int64_t left = cml_et_numel(s->x) / s->all; left > 0; left--) {
    for (int64_t k = 0; k < s->count; k += 256) {
      int64_t n = s->count - k < 256 ? s->count - k : 256;
      cml_et_load_f64(line, s->x, from + k * s->x->strides[1], s->x->strides[1], n);
      for (int64_t i = 0; i < n; i++) line[i] = line[i] * s->scale[k + i] + s->shift[k + i];
      cml_et_store_f64(out, to + k * out->strides[1], out->strides[1], n, line);
    }
    for (int d = s->x->rank - 1; d >= 0; d--) {
      if (d == 1) continue;
      from += s->x->strides[d];
      to += out->strides[d];
      if (++at[d] < s->x->sizes[d]) break;
      from -= at[d] * s->x->strides[d];
      to -= at[d] * out->strides[d];
      at[d] = 0;
    }
  }
}

/* (x - mean) / sqrt(variance + epsilon) * weight + bias: one multiplication and one addition an element. out has its shape. */
static cml_status normalise(cml_et_call *c, const channels_of *s, const cml_et_tensor *weight, const cml_et_tensor *bias, double epsilon,
                            cml_et_tensor *out, cml_error *err) {
  static const cml_et_maps maps = {affine_f32, affine_f64, NULL, false};
  int64_t sizes[CML_PTE_MAX_RANK];
  cml_et_local a, b;
  for (int64_t k = 0; k < s->count; k++) {
    double w = 1, v = 0;
    if (weight) cml_et_load_f64(&w, weight, s->first + k, 1, 1);
    if (bias) cml_et_load_f64(&v, bias, s->first + k, 1, 1);
    s->scale[k] = w / sqrt(s->variance[k] + epsilon);
    s->shift[k] = v - s->mean[k] * s->scale[k];
  }
  if (s->x->dtype == CML_F32 && out->dtype == CML_F32 && cml_et_is_contiguous(s->x) && cml_et_is_contiguous(out)) return affine_rows(s, out), CML_OK;
  for (int k = 0; k < s->x->rank; k++) sizes[k] = 1;
  sizes[0] = s->count;
  cml_et_make(&a, CML_F64, (size_t)s->x->rank - 1, sizes, s->scale);
  cml_et_make(&b, CML_F64, (size_t)s->x->rank - 1, sizes, s->shift);
  if (s->count == s->all) return cml_et_elementwise(c, &maps, s->x->dtype, (const cml_et_tensor *const[]){s->x, &a.t, &b.t}, 3, NULL, out, err);
  affine_lines(s, out);
  return CML_OK;
}

/* Mean and variance of each channel over all else. */
static void batch_statistics(channels_of *s) {
  const cml_et_tensor *x = s->x;
  int64_t n = cml_et_numel(x) / s->all, at[CML_PTE_MAX_RANK];
  for (int64_t k = 0; k < s->count; k++)
    for (int pass = 0; pass < 2; pass++) {
      int64_t offset = (s->first + k) * x->strides[1];
      double sum = 0;
      memset(at, 0, sizeof at);
      for (int64_t i = 0; i < n; i++) {
        double v;
        cml_et_load_f64(&v, x, offset, 1, 1);
        sum += pass ? (v - s->mean[k]) * (v - s->mean[k]) : v;
        for (int d = x->rank - 1; d >= 0; d--) {
          if (d == 1) continue;
          offset += x->strides[d];
          if (++at[d] < x->sizes[d]) break;
          offset -= at[d] * x->strides[d];
          at[d] = 0;
        }
      }
      *(pass ? &s->variance[k] : &s->mean[k]) = sum / (double)n;
    }
}

static void running(const channels_of *s, cml_et_tensor *mean, cml_et_tensor *variance) {
  cml_et_load_f64(s->mean, mean, s->first, 1, s->count);
  cml_et_load_f64(s->variance, variance, s->first, 1, s->count);
}

/* Batch statistics: kept in the running ones (which may be missing) and given out. */
static void train(channels_of *s, cml_et_tensor *mean, cml_et_tensor *variance, double momentum, double epsilon, cml_et_tensor *save_mean,
                  cml_et_tensor *save_rstd) {
  batch_statistics(s);
  double n = (double)(cml_et_numel(s->x) / s->all);
  for (int64_t k = 0; k < s->count; k++) {
    double rstd = 1 / sqrt(s->variance[k] + epsilon), old;
    cml_et_store_f64(save_mean, s->first + k, 1, 1, &s->mean[k]);
    cml_et_store_f64(save_rstd, s->first + k, 1, 1, &rstd);
    if (!mean) continue;
    cml_et_load_f64(&old, mean, s->first + k, 1, 1);
    old = (1 - momentum) * old + momentum * s->mean[k];
    cml_et_store_f64(mean, s->first + k, 1, 1, &old);
    cml_et_load_f64(&old, variance, s->first + k, 1, 1);
    old = (1 - momentum) * old + momentum * s->variance[k] * n / (n - 1);
    cml_et_store_f64(variance, s->first + k, 1, 1, &old);
  }
}

static cml_status take_statistics(cml_et_call *c, const channels_of *s, cml_et_tensor *mean, cml_et_tensor *rstd, cml_error *err) {
  if (cml_et_numel(s->x) == 0) return cml_et_fail(c, err, "there are no elements to learn from");
  CML_TRY(cml_et_resize(c, mean, 1, &s->all, err));
  return cml_et_resize(c, rstd, 1, &s->all, err);
}

static cml_status no_statistics(cml_et_call *c, cml_et_tensor *a, cml_et_tensor *b, cml_error *err) {
  int64_t none = 0;
  CML_TRY(cml_et_resize(c, a, 1, &none, err));
  return cml_et_resize(c, b, 1, &none, err);
}

static cml_status op_batch_norm_inference(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *p[4] = {cml_et_arg(c, 1), cml_et_arg(c, 2), cml_et_arg(c, 3), cml_et_arg(c, 4)};
  channels_of s;
  CML_TRY(take_channels(c, &s, p, 4, err));
  CML_TRY(no_statistics(c, cml_et_arg(c, 8), cml_et_arg(c, 9), err));
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 7), s.x, err));
  do {
    running(&s, cml_et_arg(c, 3), cml_et_arg(c, 4));
    CML_TRY(normalise(c, &s, p[0], p[1], cml_et_real(c, 6, 0), cml_et_arg(c, 7), err));
  } while (next_channels(&s));
  return CML_OK;
}

static cml_status op_batch_norm(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *p[4] = {cml_et_arg(c, 1), cml_et_arg(c, 2), cml_et_arg(c, 3), cml_et_arg(c, 4)};
  double epsilon = cml_et_real(c, 7, 0);
  channels_of s;
  CML_TRY(take_channels(c, &s, p, 4, err));
  bool learns = cml_et_bool(c, 5, false);
  if (learns) CML_TRY(take_statistics(c, &s, cml_et_arg(c, 9), cml_et_arg(c, 10), err));
  else CML_TRY(no_statistics(c, cml_et_arg(c, 9), cml_et_arg(c, 10), err));
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 8), s.x, err));
  do {
    if (learns) train(&s, cml_et_arg(c, 3), cml_et_arg(c, 4), cml_et_real(c, 6, 0), epsilon, cml_et_arg(c, 9), cml_et_arg(c, 10));
    else running(&s, cml_et_arg(c, 3), cml_et_arg(c, 4));
    CML_TRY(normalise(c, &s, p[0], p[1], epsilon, cml_et_arg(c, 8), err));
  } while (next_channels(&s));
  return CML_OK;
}

static cml_status op_batch_norm_no_stats(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *p[2] = {cml_et_arg(c, 1), cml_et_arg(c, 2)};
  double epsilon = cml_et_real(c, 5, 0);
  channels_of s;
  CML_TRY(take_channels(c, &s, p, 2, err));
  CML_TRY(take_statistics(c, &s, cml_et_arg(c, 7), cml_et_arg(c, 8), err));
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 6), s.x, err));
  do {
    train(&s, NULL, NULL, 0, epsilon, cml_et_arg(c, 7), cml_et_arg(c, 8));
    CML_TRY(normalise(c, &s, p[0], p[1], epsilon, cml_et_arg(c, 6), err));
  } while (next_channels(&s));
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::_native_batch_norm_legit.no_stats_out", "tt?t?bddooo", op_batch_norm_no_stats},
    {"aten::_native_batch_norm_legit.out", "tt?t?oobddooo", op_batch_norm},
    {"aten::_native_batch_norm_legit_no_training.out", "tt?t?ttddooo", op_batch_norm_inference},
    {"aten::native_group_norm.out", "tt?t?iiiidooo", op_group_norm},
    {"aten::native_layer_norm.out", "tIt?t?dooo", op_layer_norm},
};
CML_ET_FAMILY(norm)
