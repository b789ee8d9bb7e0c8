/* Operators that only graph passes make: conversions between layouts, group normalisation in one, and a factor and a
 * term by channel. */
#include <math.h>

#include "families.h"
#include "kernels.h"
#include "strided.h"

/* ---- cml_to_last, cml_to_first ---- */

static const cml_param layout_params[] = {{"x", CML_M_ANY, 0, 0}};

static cml_status infer_layout(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  if (x->rank < 0) return cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN), CML_OK;
  if (x->rank < 2) return cml_call_fail(c, err, "x has no channels");
  int64_t dims[CML_MAX_RANK];
  int32_t r = x->rank;
  bool to_last = !strcmp(c->op->name, "cml_to_last");
  dims[0] = x->dims[0];
  if (to_last) dims[r - 1] = x->dims[1];
  else dims[1] = x->dims[r - 1];
  for (int32_t i = 2; i < r; i++) {
    if (to_last) dims[i - 1] = x->dims[i];
    else dims[i] = x->dims[i - 1];
  }
  cml_out_set(c, 0, x->dtype, r, dims);
  c->spaces_rows = to_last; /* the pixels */
  c->spaced_args = !to_last;
  return CML_OK;
}

typedef struct transpose_job {
  const cml_kernels *k;
  const char *x;
  char *y;
  size_t rows, columns, size;                    /* y[c][r] = x[r][c] in each image; */
  size_t x_row, y_row;                           /* their strides in elements */
  size_t task_rows, task_columns, across, tasks; /* of an image, `across` of them side by side */
} transpose_job;

enum { BLOCK_ROWS = 64, TASK_BYTES = 64 << 10 };

static void transpose_block(const transpose_job *j, size_t image, size_t r0, size_t rows, size_t c0, size_t columns) {
  const char *x = j->x + ((image * j->rows + r0) * j->x_row + c0) * j->size;
  char *y = j->y + ((image * j->columns + c0) * j->y_row + r0) * j->size;
  if (j->size == 4) {
    j->k->transpose(rows, columns, (const float *)(const void *)x, j->x_row, (float *)(void *)y, j->y_row);
  } else if (j->size == 2) {
    j->k->transpose_16(rows, columns, (const uint16_t *)(const void *)x, j->x_row, (uint16_t *)(void *)y, j->y_row);
  } else if (j->size == 1) {
    j->k->transpose_8(rows, columns, (const uint8_t *)x, j->x_row, (uint8_t *)y, j->y_row);
  } else {
    for (size_t c = 0; c < columns; c++)
      for (size_t r = 0; r < rows; r++) memcpy(y + (c * j->y_row + r) * j->size, x + (r * j->x_row + c) * j->size, j->size);
  }
}

static void transpose_blocks(void *context, size_t begin, size_t end) {
  const transpose_job *j = context;
  for (size_t i = begin; i < end; i++) {
    const size_t image = i / j->tasks, at = i % j->tasks, r0 = at / j->across * j->task_rows, c0 = at % j->across * j->task_columns;
    const size_t end_row = j->rows - r0 < j->task_rows ? j->rows : r0 + j->task_rows, columns = j->columns - c0 < j->task_columns ? j->columns - c0 : j->task_columns;
    for (size_t r = r0; r < end_row; r += BLOCK_ROWS) transpose_block(j, image, r, end_row - r < BLOCK_ROWS ? end_row - r : BLOCK_ROWS, c0, columns);
  }
}

static cml_status run_layout(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  bool to_last = !strcmp(c->op->name, "cml_to_last");
  size_t channels = (size_t)x->dims[to_last ? 1 : x->rank - 1], images = (size_t)x->dims[0], count = (size_t)cml_tensor_count(x);
  if (!count) return CML_OK;
  size_t plane = count / channels / images, size = cml_dtype_bits(x->dtype) / 8;
  if (!size) return cml_call_fail(c, err, "elements of less than a byte have no layout");
  const cml_tensor *pixels = to_last ? c->outs[0] : x;
  if ((plane == 1 || channels == 1) && !pixels->row) return memcpy(c->outs[0]->data, x->data, count * size), CML_OK;
  transpose_job j = {.k = cml_kernels_get(), .x = x->data, .y = c->outs[0]->data, .rows = to_last ? channels : plane, .columns = to_last ? plane : channels, .size = size};
  const size_t pixel = (size_t)cml_row_step(pixels);
  j.x_row = to_last ? plane : pixel, j.y_row = to_last ? pixel : plane;
  j.task_rows = BLOCK_ROWS, j.task_columns = j.columns;
  if (to_last && plane >= channels) { /* threads take pixels, as they will in what comes next */
    const size_t room = TASK_BYTES / (channels * size) / BLOCK_ROWS * BLOCK_ROWS;
    j.task_rows = channels, j.task_columns = room ? room : BLOCK_ROWS;
  }
  j.across = (j.columns + j.task_columns - 1) / j.task_columns;
  j.tasks = j.across * ((j.rows + j.task_rows - 1) / j.task_rows);
  cml_parallel(c->pool, images * j.tasks, 1 + 32768 / (j.task_rows * j.task_columns), transpose_blocks, &j);
  return CML_OK;
}

/* ---- cml_group_norm ---- */

enum { X, GROUPS, EPSILON, GAMMA, BETA, LAYOUT, ACTIVATION };

static const cml_param norm_params[] = {
    {"x", CML_M_FLOAT, 0, 0}, {"groups", CML_MASK(I32), CML_CONST, 0}, {"epsilon", CML_MASK(F32), CML_CONST, 0},
    {"gamma", CML_M_FLOAT, CML_CONST | CML_OPTIONAL, 0}, {"beta", CML_M_FLOAT, CML_CONST | CML_OPTIONAL, 0},
    {"layout", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0}, {"activation", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
};

enum { PIXELS = 64 }; /* widened at a time */

typedef struct norm_job {
  const cml_kernels *k;
  const char *x;
  char *y;
  size_t channels, groups, plane, parts, images;
  bool half, last;
  float epsilon;
  cml_unary f;
  const cml_tensor *gamma, *beta;
  float *sums;    /* [image][part][3][channels]: shift, sum, squares; then [image][2][channels]: scale, bias in its place */
  float *wide;    /* [thread][PIXELS * channels or plane] */
  size_t wide_floats;
} norm_job;

/* Of an image of so many elements. Channels last, they have sums of their own, so that the number of threads must not say how many there are. */
static size_t norm_parts(const cml_call *c, bool last, uint64_t elements) {
  return !last ? cml_pool_threads(c->pool) * 4 : elements < 1 << 13 ? 1 : elements < 1 << 18 ? 4 : 16;
}

static cml_status infer_norm(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X);
  cml_out_like(c, 0, x);
  if (!cml_tensor_known_shape(x)) return CML_OK;
  bool last = cml_arg_int(c, LAYOUT, 0) == 1;
  if (x->rank < 3) return cml_call_fail(c, err, "x has rank %d and needs at least 3", x->rank);
  int64_t channels = x->dims[last ? x->rank - 1 : 1], groups = cml_arg_int(c, GROUPS, 1);
  if (groups < 1 || channels % groups) return cml_call_fail(c, err, "%lld channels do not divide into %lld groups", (long long)channels, (long long)groups);
  for (unsigned i = 0; i < 2; i++) {
    const cml_tensor *t = cml_arg(c, i ? BETA : GAMMA);
    if (t && (!cml_tensor_known_shape(t) || cml_tensor_count(t) != channels))
      return cml_call_fail(c, err, "gamma and beta must have %lld elements", (long long)channels);
  }
  int64_t activation = cml_arg_int(c, ACTIVATION, CML_UNARY_COPY);
  if (activation < 0 || activation >= CML_UNARY_COUNT) return cml_call_fail(c, err, "there is no activation %lld", (long long)activation);
  uint64_t plane = channels && x->dims[0] ? (uint64_t)(cml_tensor_count(x) / channels / x->dims[0]) : 0;
  uint64_t wide = last ? PIXELS * (uint64_t)channels : plane;
  c->scratch_size = 4 * ((uint64_t)x->dims[0] * norm_parts(c, last, plane * (uint64_t)channels) * 3 * (uint64_t)channels + cml_pool_threads(c->pool) * (wide + 16)) + 64;
  return CML_OK;
}

static const float *norm_floats(const norm_job *j, size_t at, size_t n, float *wide) {
  if (!j->half) return (const float *)(const void *)j->x + at;
  j->k->f16_to_f32((const cml_f16 *)(const void *)j->x + at, wide, n);
  return wide;
}

static void measure_parts(void *context, size_t thread, size_t begin, size_t end) {
  const norm_job *j = context;
  float *wide = j->wide + thread * j->wide_floats;
  size_t n = j->channels;
  for (size_t i = begin; i < end; i++) {
    size_t image = i / j->parts, part = i % j->parts;
    float *shift = j->sums + i * 3 * n, *sum = shift + n, *squares = sum + n;
    if (!j->last) { /* parts of the channels */
      for (size_t c = part * n / j->parts; c < (part + 1) * n / j->parts; c++) {
        const float *x = norm_floats(j, (image * n + c) * j->plane, j->plane, wide);
        float *out = j->sums + image * j->parts * 3 * n;
        out[c] = x[0];
        j->k->moments(x, j->plane, x[0], &out[n + c], &out[2 * n + c]);
      }
      continue;
    }
    size_t p0 = part * j->plane / j->parts, p1 = (part + 1) * j->plane / j->parts;
    memset(shift, 0, 3 * n * sizeof *shift);
    for (size_t p = p0; p < p1; p += PIXELS) {
      size_t m = p1 - p < PIXELS ? p1 - p : PIXELS;
      const float *x = norm_floats(j, (image * j->plane + p) * n, m * n, wide);
      if (p == p0) memcpy(shift, x, n * sizeof *shift);
      j->k->channel_moments(m, n, x, shift, sum, squares);
    }
  }
}

/* Sums of all parts to a scale and a bias by channel. */
static void settle(norm_job *j, size_t image) {
  size_t n = j->channels, each = n / j->groups, parts = j->last ? j->parts : 1;
  float *base = j->sums + image * j->parts * 3 * n;
  for (size_t g = 0; g < j->groups; g++) {
    double total = 0, spread = 0, count = (double)each * (double)j->plane;
    for (int pass = 0; pass < 2; pass++)
      for (size_t p = 0; p < parts; p++) {
        double pixels = j->last ? (double)((p + 1) * j->plane / j->parts - p * j->plane / j->parts) : (double)j->plane;
        const double inverse = 1 / pixels, all = total / count;
        for (size_t c = g * each; pixels > 0 && c < (g + 1) * each; c++) {
          const float *s = base + p * 3 * n + c;
          double shift = (double)s[0], sum = (double)s[n], off = shift + sum * inverse - all;
          if (!pass) total += shift * pixels + sum;
          else spread += (double)s[2 * n] - sum * sum * inverse + pixels * off * off;
        }
      }
    double r = 1 / sqrt(spread / count + (double)j->epsilon);
    for (size_t c = g * each; c < (g + 1) * each; c++) {
      double scale = r * (j->gamma ? cml_tensor_get(j->gamma, (int64_t)c) : 1);
      /* parts of this group's channels are read; what is written was read already: scale and bias take the first part's place */
      base[c] = (float)scale;
      base[n + c] = (float)((j->beta ? cml_tensor_get(j->beta, (int64_t)c) : 0) - total / count * scale);
    }
  }
}

static void apply_parts(void *context, size_t thread, size_t begin, size_t end) {
  const norm_job *j = context;
  float *wide = j->wide + thread * j->wide_floats;
  size_t n = j->channels;
  for (size_t i = begin; i < end; i++) {
    size_t image = i / j->parts, part = i % j->parts;
    const float *scale = j->sums + image * j->parts * 3 * n, *bias = scale + n;
    size_t step = j->last ? PIXELS : 1, limit = j->last ? j->plane : n;
    size_t p0 = part * limit / j->parts, p1 = (part + 1) * limit / j->parts;
    for (size_t p = p0; p < p1; p += step) {
      size_t m = j->last ? (p1 - p < PIXELS ? p1 - p : PIXELS) * n : j->plane, at = j->last ? (image * j->plane + p) * n : (image * n + p) * j->plane;
      const float *x = norm_floats(j, at, m, wide);
      float *y = j->half ? wide : (float *)(void *)j->y + at;
      if (j->last) j->k->scale_channels(m / n, n, x, n, y, n, scale, bias);
      else j->k->unary(CML_UNARY_SCALE, x, y, m, scale[p], bias[p]);
      if (j->f != CML_UNARY_COPY) j->k->unary(j->f, y, y, m, 0, 0);
      if (j->half) j->k->f32_to_f16(y, (cml_f16 *)(void *)j->y + at, m);
    }
  }
}

static cml_status run_norm(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, X);
  if (!cml_tensor_count(x)) return CML_OK;
  norm_job j = {.k = cml_kernels_get(), .x = x->data, .y = c->outs[0]->data, .last = cml_arg_int(c, LAYOUT, 0) == 1, .half = x->dtype == CML_F16,
                .groups = (size_t)cml_arg_int(c, GROUPS, 1), .epsilon = (float)cml_arg_float(c, EPSILON, 0),
                .f = (cml_unary)cml_arg_int(c, ACTIVATION, CML_UNARY_COPY), .gamma = cml_arg(c, GAMMA), .beta = cml_arg(c, BETA)};
  j.images = (size_t)x->dims[0];
  j.channels = (size_t)x->dims[j.last ? x->rank - 1 : 1];
  j.plane = (size_t)cml_tensor_count(x) / j.channels / j.images;
  j.parts = norm_parts(c, j.last, j.plane * j.channels);
  j.sums = c->scratch;
  j.wide = j.sums + j.images * j.parts * 3 * j.channels;
  j.wide_floats = (j.last ? PIXELS * j.channels : j.plane) + 16;
  cml_parallel_with_thread(c->pool, j.images * j.parts, 1, measure_parts, &j);
  for (size_t i = 0; i < j.images; i++) settle(&j, i);
  cml_parallel_with_thread(c->pool, j.images * j.parts, 1, apply_parts, &j);
  return CML_OK;
}

/* ---- cml_affine: y = f(x * scale[channel] + bias[channel]) ---- */

enum { A_SCALE = 1, A_BIAS, A_LAYOUT, A_ACTIVATION, A_ALPHA, A_BETA };

static const cml_param affine_params[] = {
    {"x", CML_M_FLOAT, 0, 0}, {"scale", CML_MASK(F32), CML_CONST, 0}, {"bias", CML_MASK(F32), CML_CONST, 0},
    {"layout", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0}, {"activation", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"alpha", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0}, {"beta", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
};

enum { AFFINE_FLOATS = 4096 }; /* of a thread's block, at least */

typedef struct affine_job {
  const cml_kernels *k;
  const char *x;
  char *y;
  size_t runs, run, block; /* runs of neighbouring elements: pixels of all channels, or planes of one; so many are a unit of work */
  size_t channels;
  size_t x_row, y_row; /* elements from one pixel to the next */
  bool last, half;
  const float *scale, *bias;
  cml_unary f;
  float a, b;
  float *wide; /* [thread][wide_floats] */
  size_t wide_floats;
} affine_job;

static bool affine_last(const cml_call *c) { return cml_arg_int(c, A_LAYOUT, 0) == 1; }

static cml_status infer_affine(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  cml_out_like(c, 0, x);
  if (x->rank < 0) return CML_OK;
  if (x->rank < 2) return cml_call_fail(c, err, "x has no channels");
  int64_t channels = x->dims[affine_last(c) ? x->rank - 1 : 1], activation = cml_arg_int(c, A_ACTIVATION, CML_UNARY_COPY);
  for (unsigned i = A_SCALE; i <= A_BIAS && channels >= 0; i++)
    if (cml_tensor_count(cml_arg(c, i)) != channels) return cml_call_fail(c, err, "scale and bias must have %lld elements", (long long)channels);
  if (activation < 0 || activation >= CML_UNARY_COUNT) return cml_call_fail(c, err, "there is no activation %lld", (long long)activation);
  if (channels >= 0) c->scratch_size = 4 * cml_pool_threads(c->pool) * ((uint64_t)channels + AFFINE_FLOATS);
  c->spaces_rows = affine_last(c);
  c->spaced_args = affine_last(c) ? 1 : 0;
  return CML_OK;
}

/* `n` pixels by way of `wide`, where they are not floats side by side. */
static void affine_pixels(const affine_job *j, size_t first, size_t n, float *wide) {
  const size_t channels = j->channels;
  const cml_f16 *halves = (const cml_f16 *)(const void *)j->x + first * j->x_row;
  cml_f16 *to_halves = (cml_f16 *)(void *)j->y + first * j->y_row;
  const float *x = j->half ? wide : (const float *)(const void *)j->x + first * j->x_row;
  float *to = (float *)(void *)j->y + first * j->y_row, *y = j->half || j->y_row != channels ? wide : to;
  const size_t in = j->x_row == channels ? 1 : n, out = j->y_row == channels ? 1 : n; /* pieces */
  for (size_t i = 0; i < in && j->half; i++) j->k->f16_to_f32(halves + i * j->x_row, wide + i * channels, n / in * channels);
  j->k->scale_channels(n, channels, x, j->half ? channels : j->x_row, y, channels, j->scale, j->bias);
  if (j->f != CML_UNARY_COPY) j->k->unary(j->f, y, y, n * channels, j->a, j->b);
  for (size_t i = 0; i < out && j->half; i++) j->k->f32_to_f16(wide + i * channels, to_halves + i * j->y_row, n / out * channels);
  if (!j->half && y == wide) cml_copy_runs(to, j->y_row * sizeof(float), wide, channels * sizeof(float), channels * sizeof(float), n);
}

/* Elements [from, last) of planes; short ones are converted many at a time. */
static void affine_planes(const affine_job *j, size_t from, size_t last, float *wide) {
  const size_t most = j->run <= j->wide_floats ? j->wide_floats / j->run * j->run : AFFINE_FLOATS;
  for (size_t n; from < last; from += n) {
    const size_t left = j->run <= j->wide_floats ? last - from : j->run - from % j->run;
    n = left < most ? left : most;
    const float *x = j->half ? wide : (const float *)(const void *)j->x + from;
    float *y = j->half ? wide : (float *)(void *)j->y + from;
    if (j->half) j->k->f16_to_f32((const cml_f16 *)(const void *)j->x + from, wide, n);
    for (size_t i = 0, c = from / j->run % j->channels; i < n; i += j->run, c = c + 1 < j->channels ? c + 1 : 0)
      j->k->unary(CML_UNARY_SCALE, x + i, y + i, n - i < j->run ? n - i : j->run, j->scale[c], j->bias[c]);
    if (j->f != CML_UNARY_COPY) j->k->unary(j->f, y, y, n, j->a, j->b);
    if (j->half) j->k->f32_to_f16(y, (cml_f16 *)(void *)j->y + from, n);
  }
}

static void affine_blocks(void *context, size_t thread, size_t begin, size_t end) {
  const affine_job *j = context;
  float *wide = j->wide + thread * j->wide_floats;
  const size_t first = begin * j->block, last = end * j->block < j->runs ? end * j->block : j->runs, most = j->wide_floats / j->channels;
  if (!j->last) affine_planes(j, first * j->run, last * j->run, wide);
  for (size_t pixel = first, n; pixel < last && j->last; pixel += n) {
    n = last - pixel < most ? last - pixel : most;
    affine_pixels(j, pixel, n, wide);
  }
}

static cml_status run_affine(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  size_t count = (size_t)cml_tensor_count(x), threads = cml_pool_threads(c->pool);
  if (!count) return CML_OK;
  affine_job j = {.k = cml_kernels_get(), .x = x->data, .y = c->outs[0]->data, .last = affine_last(c), .half = x->dtype == CML_F16,
                  .scale = cml_arg(c, A_SCALE)->data, .bias = cml_arg(c, A_BIAS)->data, .f = (cml_unary)cml_arg_int(c, A_ACTIVATION, CML_UNARY_COPY),
                  .a = (float)cml_arg_float(c, A_ALPHA, 0), .b = (float)cml_arg_float(c, A_BETA, 0), .wide = c->scratch};
  j.channels = (size_t)x->dims[j.last ? x->rank - 1 : 1];
  j.last = j.last || count == j.channels * (size_t)x->dims[0]; /* vectors: their channels are neighbours either way */
  j.x_row = x->row ? (size_t)x->row : j.channels, j.y_row = c->outs[0]->row ? (size_t)c->outs[0]->row : j.channels;
  j.run = j.last ? j.channels : count / j.channels / (size_t)x->dims[0];
  j.runs = count / j.run;
  j.wide_floats = j.channels + AFFINE_FLOATS;
  j.block = 1 + AFFINE_FLOATS / j.run;
  cml_parallel_with_thread(count < 8 * AFFINE_FLOATS || threads == 1 ? NULL : c->pool, (j.runs + j.block - 1) / j.block, 1, affine_blocks, &j);
  return CML_OK;
}

static const cml_op rows[] = {
    {.name = "cml_to_last", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(layout_params),
     .infer = infer_layout, .run = run_layout},
    {.name = "cml_to_first", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(layout_params),
     .infer = infer_layout, .run = run_layout},
    {.name = "cml_group_norm", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(norm_params),
     .infer = infer_norm, .run = run_norm},
    {.name = "cml_affine", .since = CML_IOS15, .flags = CML_OP_INTERNAL | CML_OP_IN_PLACE_FIRST, .min_outputs = 1, .max_outputs = 1,
     CML_PARAMS(affine_params), .infer = infer_affine, .run = run_affine},
};

const cml_op_family cml_ops_internal = {"internal", rows, sizeof rows / sizeof *rows};
