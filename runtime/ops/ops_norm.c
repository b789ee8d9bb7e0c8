/* Normalisations. All subtract a mean and divide by a deviation; they differ in which elements share them.
 *
 * batch_norm has both as constants of a channel. instance_norm and l2_norm work on contiguous runs, and so does
 * layer_norm over trailing axes; over others it works on bands of neighbouring columns. Sums are in double, a mean is
 * taken before the squares, so that large means cost no digits. */
#include "families.h"

#include <math.h>

#include "elementwise.h"
#include "strided.h"

enum { TILE = 2048, ROW = 4 * TILE, BAND = 128 };

/* ---- parameters: iOS15 one float type for all, from iOS17 on x may have another; epsilon in fp32 occurs beside either ---- */

#define X(group) {"x", CML_M_FLOAT, 0, group}
#define CONSTANT(name, flags) {name, CML_M_FLOAT, (flags) | CML_CONST, 1}
#define EPSILON {"epsilon", CML_M_FLOAT, CML_OPTIONAL | CML_CONST, 0}
#define TWO_VERSIONS(name, ...)                                   \
  static const cml_param name##_15[] = {X(1), __VA_ARGS__};       \
  static const cml_param name##_17[] = {X(0), __VA_ARGS__};

#define SCALE_AND_SHIFT CONSTANT("gamma", CML_OPTIONAL), CONSTANT("beta", CML_OPTIONAL), EPSILON
TWO_VERSIONS(batch_norm_params, CONSTANT("mean", 0), CONSTANT("variance", 0), SCALE_AND_SHIFT)
TWO_VERSIONS(instance_norm_params, SCALE_AND_SHIFT)
TWO_VERSIONS(l2_norm_params, EPSILON)
TWO_VERSIONS(layer_norm_params, {"axes", CML_MASK(I32), CML_OPTIONAL | CML_CONST | CML_VECTOR, 0}, SCALE_AND_SHIFT)
TWO_VERSIONS(local_response_norm_params, {"size", CML_MASK(I32), CML_CONST, 0}, CONSTANT("alpha", CML_OPTIONAL),
             CONSTANT("beta", CML_OPTIONAL), CONSTANT("k", CML_OPTIONAL))

/* ---- pieces ---- */

static float value_or(const cml_tensor *t, int64_t i, float otherwise) { return t ? (float)cml_tensor_get(t, i) : otherwise; }

/* Of a tile: in float with many partial sums; tiles add up in double. */
static double sum_of(const float *p, size_t n) { return (double)cml_kernels_get()->sum(p, n); }

/* Sum of (p - mean)^2. */
static double squares_of(const float *p, size_t n, double mean) {
  float sum, squares;
  cml_kernels_get()->moments(p, n, (float)mean, &sum, &squares);
  return (double)squares;
}

/* A run of x, tile by tile; one that fits the buffer is loaded once. */
typedef struct tiles {
  const cml_tensor *x;
  int64_t at, n;
  float buffer[TILE];
} tiles;

static size_t tile_load(tiles *t, int64_t k, bool again) {
  size_t n = t->n - k < TILE ? (size_t)(t->n - k) : TILE;
  if (!again || t->n > TILE) cml_load_f32(t->buffer, t->x->data, t->x->dtype, t->at + k, n);
  return n;
}

static double run_mean(tiles *t) {
  double sum = 0;
  for (int64_t k = 0; k < t->n; k += TILE) sum += sum_of(t->buffer, tile_load(t, k, false));
  return sum / (double)t->n;
}

static double run_squares(tiles *t, double mean, bool again) {
  double sum = 0;
  for (int64_t k = 0; k < t->n; k += TILE) {
    size_t n = tile_load(t, k, again);
    sum += squares_of(t->buffer, n, mean);
  }
  return sum;
}

/* out = (x - mean) * scale * gamma[i] + beta[i], each optional vector along the run. */
static void run_write(tiles *t, cml_tensor *out, double mean, double scale, const cml_tensor *gamma, const cml_tensor *beta) {
  float row[TILE], factor = (float)scale;
  for (int64_t k = 0; k < t->n; k += TILE) {
    size_t n = tile_load(t, k, true);
    for (size_t i = 0; i < n; i++) t->buffer[i] = (float)((double)t->buffer[i] - mean) * factor;
    if (gamma) {
      cml_load_f32(row, gamma->data, gamma->dtype, k, n);
      for (size_t i = 0; i < n; i++) t->buffer[i] *= row[i];
    }
    if (beta) {
      cml_load_f32(row, beta->data, beta->dtype, k, n);
      for (size_t i = 0; i < n; i++) t->buffer[i] += row[i];
    }
    cml_store_f32(out->data, out->dtype, t->at + k, t->buffer, n);
  }
}

static int64_t product(const cml_tensor *t, int32_t from, int32_t to) {
  int64_t n = 1;
  for (int32_t i = from; i < to; i++) n *= t->dims[i];
  return n;
}

/* ---- batch_norm and instance_norm: per channel ---- */

/* Parameters from `first` on are vectors over the channels, the last is epsilon. */
static cml_status infer_channels(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  unsigned epsilon = c->op->param_count - 1u;
  if (x->rank >= 0 && x->rank < 3) return cml_call_fail(c, err, "x must have rank 3 or more, found %d", (int)x->rank);
  CML_TRY(cml_check_scalars(c, 1u << epsilon, err));
  for (unsigned p = 1; p < epsilon; p++) {
    const cml_tensor *t = cml_arg(c, p);
    if (!t || t->rank < 0) continue;
    if (t->rank != 1) return cml_call_fail(c, err, "%s must have rank 1, found %d", c->op->params[p].name, (int)t->rank);
    if (x->rank >= 0 && x->dims[1] >= 0 && t->dims[0] >= 0 && t->dims[0] != x->dims[1])
      return cml_call_fail(c, err, "%s has %lld values for %lld channels", c->op->params[p].name, (long long)t->dims[0], (long long)x->dims[1]);
  }
  cml_out_like(c, 0, x);
  return CML_OK;
}

typedef struct channel_job {
  cml_call *c;
  int64_t channels, plane;
  const cml_tensor *mean, *variance, *gamma, *beta;
  double epsilon;
} channel_job;

/* A plane that fits a tile, by its own mean and variance. */
static void normalise_plane(const channel_job *j, tiles *t, float gamma, float beta) {
  const cml_kernels *kernels = cml_kernels_get();
  const bool wide = t->x->dtype == CML_F32;
  const size_t n = wide ? (size_t)t->n : tile_load(t, 0, false);
  float *y = wide ? (float *)j->c->outs[0]->data + t->at : t->buffer;
  kernels->layer_norm(wide ? (const float *)t->x->data + t->at : t->buffer, y, n, NULL, NULL, (float)j->epsilon);
  if (j->gamma || j->beta) kernels->unary(CML_UNARY_SCALE, y, y, n, gamma, beta);
  if (!wide) cml_store_f32(j->c->outs[0]->data, j->c->outs[0]->dtype, t->at, y, n);
}

static void channel_tasks(void *context, size_t begin, size_t end) {
  const channel_job *j = context;
  const cml_kernels *kernels = cml_kernels_get();
  tiles t = {.x = cml_arg(j->c, 0), .n = j->plane};
  cml_tensor *out = j->c->outs[0];
  for (size_t i = begin; i < end; i++) {
    int64_t channel = (int64_t)i % j->channels;
    t.at = (int64_t)i * j->plane;
    if (!j->mean && j->plane <= TILE) {
      normalise_plane(j, &t, value_or(j->gamma, channel, 1), value_or(j->beta, channel, 0));
      continue;
    }
    double mean = j->mean ? cml_tensor_get(j->mean, channel) : run_mean(&t);
    double variance = j->variance ? cml_tensor_get(j->variance, channel) : run_squares(&t, mean, true) / (double)j->plane;
    float scale = value_or(j->gamma, channel, 1) / sqrtf((float)(variance + j->epsilon)), shift = value_or(j->beta, channel, 0);
    for (int64_t k = 0; k < j->plane; k += TILE) {
      size_t n = tile_load(&t, k, !j->mean);
      kernels->binary_scalar(CML_BINARY_SUB, t.buffer, (float)mean, false, t.buffer, n); /* first: what x and the mean share cancels */
      if (out->dtype == CML_F32) {
        kernels->unary(CML_UNARY_SCALE, t.buffer, (float *)out->data + t.at + k, n, scale, shift);
        continue;
      }
      kernels->unary(CML_UNARY_SCALE, t.buffer, t.buffer, n, scale, shift);
      cml_store_f32(out->data, out->dtype, t.at + k, t.buffer, n);
    }
  }
}

static cml_status run_channels(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  unsigned gamma = c->op->param_count - 3u; /* gamma, beta, epsilon come last */
  channel_job j = {.c = c, .channels = x->dims[1], .plane = product(x, 2, x->rank), .gamma = cml_arg(c, gamma),
                   .beta = cml_arg(c, gamma + 1), .epsilon = cml_arg_float(c, gamma + 2, 1e-5)};
  if (gamma > 1) j.mean = cml_arg(c, 1), j.variance = cml_arg(c, 2);
  cml_parallel(c->pool, (size_t)(x->dims[0] * j.channels), (size_t)(16384 / (j.plane + 1) + 1), channel_tasks, &j);
  return CML_OK;
}

/* ---- l2_norm: over the last three dims ---- */

static cml_status infer_l2_norm(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, 2, err));
  if (x->rank >= 0 && x->rank < 3) return cml_call_fail(c, err, "x must have rank 3 or more, found %d", (int)x->rank);
  cml_out_like(c, 0, x);
  return CML_OK;
}

static cml_status run_l2_norm(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  tiles t = {.x = x, .n = product(x, x->rank - 3, x->rank)};
  double epsilon = cml_arg_float(c, 1, 1e-6);
  for (int64_t i = 0, batches = product(x, 0, x->rank - 3); i < batches; i++) {
    t.at = i * t.n;
    double squares = run_squares(&t, 0, false);
    run_write(&t, c->outs[0], 0, 1 / sqrt(squares + epsilon), NULL, NULL);
  }
  return CML_OK;
}

/* ---- layer_norm ---- */

/* Bit i: axis i is normalised. */
static cml_status normalised_axes(const cml_call *c, int32_t rank, uint32_t *out, cml_error *err) {
  const cml_tensor *t = cml_arg(c, 1);
  *out = (1u << rank) - 1;
  if (!t) return CML_OK;
  int64_t axes[CML_MAX_RANK];
  size_t n = t->data ? cml_arg_ints(c, 1, axes, CML_MAX_RANK) : SIZE_MAX;
  if (n > CML_MAX_RANK) return cml_call_fail(c, err, "axes must be a constant vector of at most %d values", CML_MAX_RANK);
  *out = 0;
  for (size_t i = 0; i < n; i++) {
    int32_t axis;
    if (!cml_axis(axes[i], rank, &axis))
      return cml_call_fail(c, err, "axis %lld is out of range for rank %d", (long long)axes[i], (int)rank);
    *out |= 1u << axis;
  }
  return CML_OK;
}

static cml_status infer_layer_norm(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, 16, err));
  cml_out_like(c, 0, x);
  if (x->rank < 0) return CML_OK;
  uint32_t axes;
  CML_TRY(normalised_axes(c, x->rank, &axes, err));
  cml_tensor shape = {.rank = 0};
  for (int32_t i = 0; i < x->rank; i++)
    if (axes >> i & 1) shape.dims[shape.rank++] = x->dims[i];
  c->spaces_rows = x->rank > 0 && axes == 1u << (x->rank - 1) && x->dims[x->rank - 1] <= ROW;
  c->spaced_args = c->spaces_rows;
  c->scratch_size = 0;
  for (unsigned p = 2; p < 4; p++) { /* gamma and beta as floats */
    const cml_tensor *t = cml_arg(c, p);
    if (t && t->dtype != CML_F32 && cml_tensor_known_shape(t)) c->scratch_size += (uint64_t)cml_tensor_count(t) * sizeof(float);
  }
  for (unsigned p = 2; p < 4; p++) {
    const cml_tensor *t = cml_arg(c, p);
    bool fits = !t || t->rank < 0 || t->rank == shape.rank;
    for (int32_t i = 0; fits && t && i < t->rank; i++) fits = t->dims[i] < 0 || shape.dims[i] < 0 || t->dims[i] == shape.dims[i];
    char a[128], b[128];
    if (!fits)
      return cml_call_fail(c, err, "%s has shape %s, expected %s", c->op->params[p].name, cml_shape_text(t, a, sizeof a),
                           cml_shape_text(&shape, b, sizeof b));
  }
  return CML_OK;
}

typedef struct layer_job {
  cml_call *c;
  const cml_tensor *gamma, *beta;
  double epsilon;
  int64_t n;                /* elements that share a mean */
  int64_t width, bands;     /* of the last dim, where it is kept */
  int32_t kept, inner;      /* dims in row-major order, kept ones (the last left out where it is a band) and normalised ones */
  int64_t kept_dims[CML_MAX_RANK], kept_strides[CML_MAX_RANK], inner_dims[CML_MAX_RANK], inner_strides[CML_MAX_RANK];
} layer_job;

/* Rows by the kernel; longer ones than ROW, whose mean would suffer in float, tile by tile. */
static void layer_runs(void *context, size_t begin, size_t end) {
  const layer_job *j = context;
  const cml_kernels *kernels = cml_kernels_get();
  const cml_tensor *x = cml_arg(j->c, 0);
  const float *gamma = j->gamma ? j->gamma->data : NULL, *beta = j->beta ? j->beta->data : NULL;
  if (j->n <= ROW) {
    const cml_tensor *y = j->c->outs[0];
    for (size_t i = begin; i < end; i++) {
      const size_t from = i * (x->row ? (size_t)x->row : (size_t)j->n), to = i * (y->row ? (size_t)y->row : (size_t)j->n);
      if (x->dtype == CML_F32)
        kernels->layer_norm((const float *)x->data + from, (float *)y->data + to, (size_t)j->n, gamma, beta, (float)j->epsilon);
      else
        kernels->layer_norm_f16((const cml_f16 *)x->data + from, (cml_f16 *)y->data + to, (size_t)j->n, gamma, beta, (float)j->epsilon);
    }
    return;
  }
  tiles t = {.x = cml_arg(j->c, 0), .n = j->n};
  for (size_t i = begin; i < end; i++) {
    t.at = (int64_t)i * j->n;
    double mean = run_mean(&t), variance = run_squares(&t, mean, true) / (double)j->n;
    run_write(&t, j->c->outs[0], mean, 1 / sqrt(variance + j->epsilon), j->gamma, j->beta);
  }
}

/* Columns side by side. Sums are in float over PIECE rows, then in double. */
static void band_sums(const layer_job *j, int64_t base, size_t width, const float *mean, double *sums) {
  enum { PIECE = 16 };
  const cml_tensor *x = cml_arg(j->c, 0);
  float row[BAND], part[BAND];
  for (size_t i = 0; i < width; i++) sums[i] = 0;
  for (int64_t r = 0; r < j->n;) {
    for (size_t i = 0; i < width; i++) part[i] = 0;
    for (int64_t last = r + PIECE < j->n ? r + PIECE : j->n; r < last; r++) {
      const int64_t at = base + cml_step_offset(r, j->inner, j->inner_dims, j->inner_strides);
      const float *p = x->dtype == CML_F32 ? (const float *)x->data + at : row;
      if (p == row) cml_load_f32(row, x->data, x->dtype, at, width);
      if (mean) {
        CML_INDEPENDENT for (size_t i = 0; i < width; i++) part[i] += (p[i] - mean[i]) * (p[i] - mean[i]);
      } else {
        CML_INDEPENDENT for (size_t i = 0; i < width; i++) part[i] += p[i];
      }
    }
    CML_INDEPENDENT for (size_t i = 0; i < width; i++) sums[i] += (double)part[i];
  }
}

static void layer_bands(void *context, size_t begin, size_t end) {
  const layer_job *j = context;
  const cml_tensor *x = cml_arg(j->c, 0);
  cml_tensor *out = j->c->outs[0];
  const double part = 1 / (double)j->n;
  for (size_t task = begin; task < end; task++) {
    int64_t from = (int64_t)task % j->bands * BAND;
    int64_t base = cml_step_offset((int64_t)task / j->bands, j->kept, j->kept_dims, j->kept_strides) + from;
    size_t width = j->width - from < BAND ? (size_t)(j->width - from) : BAND;
    double sums[BAND];
    float mean[BAND], scale[BAND], row[BAND];
    band_sums(j, base, width, NULL, sums);
    for (size_t i = 0; i < width; i++) mean[i] = (float)(sums[i] * part);
    band_sums(j, base, width, mean, sums);
    for (size_t i = 0; i < width; i++) row[i] = (float)(sums[i] * part + j->epsilon);
    cml_kernels_get()->unary(CML_UNARY_SQRT, row, scale, width, 0, 0);
    for (size_t i = 0; i < width; i++) scale[i] = 1 / scale[i];
    for (int64_t r = 0; r < j->n; r++) {
      const int64_t at = base + cml_step_offset(r, j->inner, j->inner_dims, j->inner_strides);
      const float gamma = value_or(j->gamma, r, 1), beta = value_or(j->beta, r, 0);
      const float *p = x->dtype == CML_F32 ? (const float *)x->data + at : row;
      float *y = out->dtype == CML_F32 ? (float *)out->data + at : row;
      if (p == row) cml_load_f32(row, x->data, x->dtype, at, width);
      CML_INDEPENDENT for (size_t i = 0; i < width; i++) y[i] = (p[i] - mean[i]) * scale[i] * gamma + beta;
      if (y == row) cml_store_f32(out->data, out->dtype, at, row, width);
    }
  }
}

static cml_status run_layer_norm(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  uint32_t axes;
  CML_TRY(normalised_axes(c, x->rank, &axes, err));
  layer_job j = {.c = c, .gamma = cml_arg(c, 2), .beta = cml_arg(c, 3), .epsilon = cml_arg_float(c, 4, 1e-5), .n = 1, .width = 1};
  if (!cml_tensor_count(x)) return CML_OK;
  cml_tensor room[2];
  float *scratch = c->scratch;
  for (int k = 0; k < 2; k++) {
    const cml_tensor **t = k ? &j.beta : &j.gamma;
    if (!*t || (*t)->dtype == CML_F32) continue;
    int64_t n = cml_tensor_count(*t);
    cml_load_f32(scratch, (*t)->data, (*t)->dtype, 0, (size_t)n);
    room[k] = **t;
    room[k].dtype = CML_F32;
    room[k].data = scratch;
    *t = &room[k];
    scratch += n;
  }
  int64_t stride = cml_tensor_count(x), outputs = 1, run = 1;
  for (int32_t i = 0; i < x->rank; i++) {
    stride /= x->dims[i];
    bool last = i == x->rank - 1, normalised = axes >> i & 1;
    run = normalised || x->dims[i] == 1 ? run * x->dims[i] : 1; /* the trailing normalised elements */
    if (normalised) j.inner_dims[j.inner] = x->dims[i], j.inner_strides[j.inner++] = stride, j.n *= x->dims[i];
    else if (last) j.width = x->dims[i];
    else j.kept_dims[j.kept] = x->dims[i], j.kept_strides[j.kept++] = stride, outputs *= x->dims[i];
  }
  if (run == j.n) {
    cml_parallel(c->pool, (size_t)(outputs * j.width), (size_t)(8192 / j.n + 1), layer_runs, &j);
    return CML_OK;
  }
  j.bands = (j.width + BAND - 1) / BAND;
  cml_parallel(c->pool, (size_t)(outputs * j.bands), (size_t)(256 / j.n + 1), layer_bands, &j);
  return CML_OK;
}

/* ---- local_response_norm: over neighbouring channels ----
 *
 * They are dim 1; but a tensor of rank 3 is (C, H, W) to Core ML, as the values that coremltools' tests record show. */

static cml_status infer_local_response_norm(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, ~1u, err));
  int64_t size = cml_arg_int(c, 1, 0);
  if (size < 1) return cml_call_fail(c, err, "size must be 1 or more, found %lld", (long long)size);
  if (x->rank >= 0 && x->rank < 3) return cml_call_fail(c, err, "x must have rank 3 or more, found %d", (int)x->rank);
  cml_out_like(c, 0, x);
  return CML_OK;
}

typedef struct response_job {
  cml_call *c;
  int64_t channels, plane, bands, size;
  float alpha, beta, k;
} response_job;

/* One channel of a band: the window reaches size / 2 channels down and (size - 1) / 2 up, as torch's does. */
static void response_row(const response_job *j, int64_t base, int64_t channel, size_t width) {
  const cml_kernels *kernels = cml_kernels_get();
  const cml_tensor *x = cml_arg(j->c, 0);
  cml_tensor *out = j->c->outs[0];
  float row[BAND], sum[BAND] = {0};
  int64_t low = channel - j->size / 2, high = channel + (j->size - 1) / 2;
  for (int64_t k = low < 0 ? 0 : low; k <= high && k < j->channels; k++) {
    const float *p = x->dtype == CML_F32 ? (const float *)x->data + base + k * j->plane : row;
    if (p == row) cml_load_f32(row, x->data, x->dtype, base + k * j->plane, width);
    for (size_t i = 0; i < width; i++) sum[i] += p[i] * p[i];
  }
  cml_load_f32(row, x->data, x->dtype, base + channel * j->plane, width);
  for (size_t i = 0; i < width; i++) sum[i] = j->k + j->alpha / (float)j->size * sum[i];
  if (j->beta == 0.75f) { /* the usual one: the root times the root's root */
    float root[BAND];
    kernels->unary(CML_UNARY_SQRT, sum, root, width, 0, 0);
    kernels->unary(CML_UNARY_SQRT, root, sum, width, 0, 0);
    kernels->binary(CML_BINARY_MUL, root, sum, sum, width);
  } else {
    kernels->binary_scalar(CML_BINARY_POW, sum, j->beta, false, sum, width);
  }
  kernels->binary(CML_BINARY_DIV, row, sum, row, width);
  cml_store_f32(out->data, out->dtype, base + channel * j->plane, row, width);
}

static void response_tasks(void *context, size_t begin, size_t end) {
  const response_job *j = context;
  for (size_t t = begin; t < end; t++) {
    int64_t from = (int64_t)t % j->bands * BAND, base = (int64_t)t / j->bands * j->channels * j->plane + from;
    for (int64_t k = 0; k < j->channels; k++) response_row(j, base, k, j->plane - from < BAND ? (size_t)(j->plane - from) : BAND);
  }
}

static cml_status run_local_response_norm(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axis = x->rank == 3 ? 0 : 1;
  response_job j = {.c = c, .channels = x->dims[axis], .plane = product(x, axis + 1, x->rank), .size = cml_arg_int(c, 1, 1),
                    .alpha = (float)cml_arg_float(c, 2, 1e-4), .beta = (float)cml_arg_float(c, 3, 0.75), .k = (float)cml_arg_float(c, 4, 1)};
  if (!cml_tensor_count(x)) return CML_OK;
  j.bands = (j.plane + BAND - 1) / BAND;
  cml_parallel(c->pool, (size_t)(product(x, 0, axis) * j.bands), 1, response_tasks, &j);
  return CML_OK;
}

/* ---- cml_rms_norm: rows divided by the root of their mean square, times gamma; made by the pass layer-norm ---- */

static const cml_param rms_norm_params[] = {{"x", CML_M_FLOAT, 0, 1}, {"gamma", CML_M_FLOAT, CML_OPTIONAL | CML_CONST, 1},
                                            {"epsilon", CML_MASK(F32), CML_CONST, 0}};

static cml_status infer_rms_norm(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *gamma = cml_arg(c, 1);
  CML_TRY(cml_check_scalars(c, 4, err));
  if (x->rank == 0 || (gamma && x->rank > 0 && (gamma->rank != 1 || gamma->dims[0] != x->dims[x->rank - 1])))
    return cml_call_fail(c, err, "x must have rows as long as gamma");
  cml_out_like(c, 0, x);
  return CML_OK;
}

static void rms_rows(void *context, size_t begin, size_t end) {
  const cml_call *c = context;
  const cml_tensor *x = cml_arg(c, 0), *gamma = cml_arg(c, 1);
  const bool half = x->dtype == CML_F16;
  const size_t n = (size_t)x->dims[x->rank - 1], at = begin * n * (half ? 2 : 4);
  cml_kernels_get()->rms_norm(end - begin, n, (const char *)x->data + at, (char *)c->outs[0]->data + at, half, gamma ? gamma->data : NULL,
                              (float)cml_arg_float(c, 2, 0));
}

static cml_status run_rms_norm(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  size_t count = (size_t)cml_tensor_count(x);
  if (!count) return CML_OK;
  size_t n = (size_t)x->dims[x->rank - 1];
  cml_parallel(c->pool, count / n, 1 + 16384 / n, rms_rows, c);
  return CML_OK;
}

/* ---- the table ---- */

#define NORM_ROWS(name_, infer_, run_)                                                                                   \
  {.name = #name_, .since = CML_IOS15, .until = CML_IOS16, .min_outputs = 1, .max_outputs = 1,                           \
   CML_PARAMS(name_##_params_15), .infer = infer_, .run = run_},                                                         \
  {.name = #name_, .since = CML_IOS17, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(name_##_params_17),                \
   .infer = infer_, .run = run_},

static const cml_op rows[] = {
    NORM_ROWS(batch_norm, infer_channels, run_channels)
    NORM_ROWS(instance_norm, infer_channels, run_channels)
    NORM_ROWS(l2_norm, infer_l2_norm, run_l2_norm)
    NORM_ROWS(layer_norm, infer_layer_norm, run_layer_norm)
    NORM_ROWS(local_response_norm, infer_local_response_norm, run_local_response_norm)
    {.name = "cml_rms_norm", .since = CML_IOS15, .flags = CML_OP_INTERNAL | CML_OP_IN_PLACE_FIRST, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(rms_norm_params), .infer = infer_rms_norm, .run = run_rms_norm},
};

const cml_op_family cml_ops_norm = {"norm", rows, sizeof rows / sizeof *rows};
