/* max_pool, avg_pool, l2_pool over one to three spatial dimensions, channels first or (made by passes) last.
 *
 * Channels last, a window's pixels are vectors of channels that are combined one after the other; where windows overlap along a row (stride 1) its
 * rows are combined to one first, and that with itself, a pixel further for each tap. Channels first, each plane
 * is pooled along one dimension after the other, which a window's maximum and sum allow: first along the rows' direction into a
 * buffer, then along the columns. Planes so small that a line is less than a few vectors are transposed first, many at once: then a
 * pixel is a vector of planes. */
#include "families.h"
#include "kernels.h"
#include "strided.h"
#include "windows.h"

#include <math.h>

enum { X, KERNEL_SIZES, STRIDES, PAD_TYPE, PAD, CEIL_MODE, EXCLUDE };
typedef enum pool_kind { POOL_MAX, POOL_AVERAGE, POOL_L2 } pool_kind;

#define POOL_PARAMS                                             \
  {"x", CML_M_FLOAT, 0, 1},                                     \
  {"kernel_sizes", CML_MASK(I32), CML_CONST | CML_VECTOR, 0},                \
  {"strides", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},      \
  {"pad_type", CML_M_STRING, CML_CONST | CML_OPTIONAL, 0},      \
  {"pad", CML_MASK(I32), CML_CONST | CML_OPTIONAL | CML_VECTOR, 0},          \
  {"ceil_mode", CML_M_BOOL, CML_CONST | CML_OPTIONAL, 0},
static const cml_param pool_params[] = {POOL_PARAMS};
static const cml_param average_params[] = {POOL_PARAMS{"exclude_padding_from_average", CML_M_BOOL, CML_CONST | CML_OPTIONAL, 0}};

typedef struct pool_call {
  cml_windows w; /* three dimensions, leading ones 1 */
  pool_kind kind;
  bool last, exclude, half;
  size_t batch, channels;
} pool_call;

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && !strcmp(text + n - m, end);
}

static cml_status read_pool(const cml_call *c, pool_call *p, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X);
  const char *name = c->op->name;
  *p = (pool_call){.kind = strstr(name, "max") ? POOL_MAX : strstr(name, "avg") ? POOL_AVERAGE : POOL_L2, .last = ends_with(name, "_last")};
  if (x->rank < 0) return CML_OK;
  if (x->rank < 3 || x->rank > 5) return cml_call_fail(c, err, "x has rank %d, expected 3 to 5", x->rank);
  if (p->kind == POOL_L2 && x->rank > 4) return cml_call_fail(c, err, "x has rank %d, expected 3 or 4", x->rank);
  p->w.dims = x->rank - 2;
  for (int32_t i = 0; i < p->w.dims; i++) p->w.in[i] = x->dims[i + (p->last ? 1 : 2)];
  CML_TRY(cml_window_list(c, KERNEL_SIZES, p->w.dims, 1, 1, p->w.kernel, err));
  CML_TRY(cml_windows_read(c, &(cml_window_params){STRIDES, PAD_TYPE, PAD, -1, CEIL_MODE}, &p->w, err));
  p->exclude = p->kind == POOL_AVERAGE && cml_arg_bool(c, EXCLUDE, false);
  p->half = x->dtype == CML_F16;
  p->batch = (size_t)x->dims[0];
  p->channels = (size_t)x->dims[p->last ? x->rank - 1 : 1];
  return CML_OK;
}

/* Three dimensions; slices of a volume that no window joins are so many more planes. */
static void to_three(pool_call *p) {
  cml_windows *w = &p->w;
  cml_windows t = {.dims = 3};
  for (int i = 0; i < 3; i++) {
    int d = i - (3 - w->dims);
    t.in[i] = d < 0 ? 1 : w->in[d], t.out[i] = d < 0 ? 1 : w->out[d], t.kernel[i] = d < 0 ? 1 : w->kernel[d];
    t.stride[i] = d < 0 ? 1 : w->stride[d], t.dilation[i] = 1, t.before[i] = d < 0 ? 0 : w->before[d], t.after[i] = d < 0 ? 0 : w->after[d];
  }
  *w = t;
  if (p->last || w->kernel[0] > 1 || w->stride[0] > 1 || w->before[0] || w->after[0]) return;
  p->channels *= (size_t)w->in[0];
  w->in[0] = w->out[0] = 1;
}

/* Of a line of a plane with what stands for padding around it, and what the kernel reads behind it. */
static size_t line_floats(const cml_windows *w) {
  int64_t n = w->before[2] + w->in[2], last = (w->out[2] - 1) * w->stride[2] + w->kernel[2];
  return (size_t)(last > n ? last : n) + CML_POOL_APART;
}

/* Small planes are pooled PLANES at a time: their pixels, a row of windows' rows, results as floats and as they are stored. */
enum { PLANES = 64, UNIT = 16, SMALL_PLANE = 1024, SMALL_WIDTH = 32, TAPS = 128, STRIP_BYTES = 8192, APART = 128, STRIDED = 4096 };

/* Windows of 3 x 3 with stride 1 whose middles are inside, which one kernel takes by vectors of columns. */
static bool nine_by_one(const cml_windows *w) {
  for (int d = 1; d < 3; d++)
    if (w->kernel[d] != 3 || w->stride[d] != 1 || w->before[d] > 1 || w->out[d] - w->before[d] > w->in[d]) return false;
  return w->in[0] == 1 && w->out[0] == 1 && w->kernel[0] == 1;
}

static bool small_planes(const pool_call *p) {
  const cml_windows *w = &p->w;
  const int64_t plane = w->in[0] * w->in[1] * w->in[2], to = w->out[0] * w->out[1] * w->out[2];
  for (int d = 0; d < 3; d++) /* no window lies wholly in the padding */
    if (w->kernel[d] <= w->before[d] || (w->out[d] - 1) * w->stride[d] - w->before[d] >= w->in[d]) return false;
  if (w->out[2] >= 16 && nine_by_one(w)) return false;
  const int64_t more = w->stride[2] > 2 ? 4 : 1; /* lines take such strides element by element */
  return !p->last && w->in[2] <= SMALL_WIDTH * more && plane <= SMALL_PLANE * more && to <= SMALL_PLANE && p->batch * p->channels >= UNIT / 2 &&
         w->kernel[0] * w->kernel[1] <= TAPS && w->kernel[2] <= TAPS;
}

static size_t planes_together(const cml_windows *w) { return w->in[0] * w->in[1] * w->in[2] <= SMALL_PLANE ? PLANES : UNIT; }

static uint64_t small_floats(const cml_windows *w) {
  return (uint64_t)(w->in[0] * w->in[1] * w->in[2] + w->in[2] + 2 * w->out[0] * w->out[1] * w->out[2]) * planes_together(w);
}

/* Channels last, windows that overlap along a row: so many outputs of a row at a time, for a combined row that stays in the first-level cache. */
enum { SLIDE_FLOATS = 4096 };

static bool slides(const pool_call *p) { return p->last && p->kind != POOL_L2 && p->w.stride[2] == 1 && p->w.kernel[2] > 1 && p->w.kernel[2] <= TAPS; }

static int64_t slide_parts(const pool_call *p) {
  int64_t most = SLIDE_FLOATS / (int64_t)(p->channels + 1);
  if (most < p->w.kernel[2]) most = p->w.kernel[2];
  return (p->w.out[2] + most - 1) / most;
}

static int64_t slide_outputs(const pool_call *p) {
  const int64_t parts = slide_parts(p);
  return parts ? (p->w.out[2] + parts - 1) / parts : 0;
}

static void join_untouched(pool_call *p);

/* Floats of scratch for each of two parts, in either form. */
static uint64_t part_floats(const pool_call *p) {
  uint64_t plane = 1;
  for (int d = 0; d < p->w.dims; d++) plane *= (uint64_t)p->w.in[d];
  pool_call three = *p;
  to_three(&three);
  join_untouched(&three);
  if (three.last) return (uint64_t)three.channels * (slides(&three) ? (uint64_t)(slide_outputs(&three) + three.w.kernel[2]) : 1);
  uint64_t line = (uint64_t)line_floats(&three.w);
  if ((uint64_t)three.w.out[2] > line) line = (uint64_t)three.w.out[2];
  uint64_t most = plane > line ? plane : line, small = small_planes(&three) ? (small_floats(&three.w) + 1) / 2 : 0;
  return small > most ? small : most;
}

static cml_status infer(cml_call *c, cml_error *err) {
  pool_call p;
  const cml_tensor *x = cml_arg(c, X);
  int64_t dims[5];
  CML_TRY(read_pool(c, &p, err));
  if (x->rank < 0) return cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN), CML_OK;
  memcpy(dims, x->dims, sizeof dims);
  for (int32_t i = 0; i < p.w.dims; i++) dims[i + (p.last ? 1 : 2)] = p.w.out[i];
  cml_out_set(c, 0, x->dtype, x->rank, dims);
  c->spaces_rows = p.last;
  c->spaced_args = p.last ? 1 << X : 0;
  /* an accumulator of floats and a widened pixel for each thread; or a line of them and what its elements count */
  if (cml_tensor_known_shape(x)) {
    c->scratch_size = cml_pool_threads(c->pool) * ((2 * part_floats(&p) * 4 + 127) & ~UINT64_C(63));
  }
  return CML_OK;
}

typedef struct pool_job {
  const cml_kernels *k;
  const pool_call *p;
  const char *x;
  char *y;
  char *scratch;
  size_t slot;           /* bytes of a thread's scratch */
  size_t x_pixel, pixel; /* channels last: elements from one pixel of x, and of y, to the next */
} pool_job;

/* The part of a window that lies inside, and how many elements (padding included, as far as it was asked for) it counts. */
static void window(const cml_windows *w, int i, int64_t o, int64_t *begin, int64_t *end, int64_t *counted) {
  int64_t from = o * w->stride[i] - w->before[i], to = from + w->kernel[i], limit = w->in[i] + w->after[i];
  *counted = (to < limit ? to : limit) - from;
  *begin = from < 0 ? 0 : from;
  *end = to < w->in[i] ? to : w->in[i];
}

/* A pixel of the output and its window. */
typedef struct place {
  int64_t image, at[3], begin[3], end[3], counted[3];
} place;

static place place_of(const cml_windows *w, size_t pixel) {
  place t = {.image = (int64_t)pixel};
  for (int d = 2; d >= 0; d--) {
    t.at[d] = t.image % w->out[d], t.image /= w->out[d];
    window(w, d, t.at[d], &t.begin[d], &t.end[d], &t.counted[d]);
  }
  return t;
}

/* To the next pixel: most of the time one window moves by its stride, and nothing is divided. */
static void move_on(const cml_windows *w, place *t) {
  for (int d = 2; d >= 0; d--) {
    bool over = ++t->at[d] == w->out[d];
    if (over) t->at[d] = 0;
    window(w, d, t->at[d], &t->begin[d], &t->end[d], &t->counted[d]);
    if (!over) return;
  }
  t->image++;
}

static void combine(const cml_kernels *k, pool_kind kind, float *sum, const float *x, size_t n) {
  if (kind == POOL_MAX) {
    k->binary(CML_BINARY_MAX, sum, x, sum, n);
  } else if (kind == POOL_AVERAGE) {
    k->binary(CML_BINARY_ADD, sum, x, sum, n);
  } else {
    for (size_t i = 0; i < n; i++) sum[i] += x[i] * x[i];
  }
}

/* The window's pixels, when they are few enough for the kernel that takes them all at once; else 0. */
static size_t gather_window(const pool_job *j, const place *t, const void **taps) {
  const cml_windows *w = &j->p->w;
  const int64_t *b = t->begin, *e = t->end;
  size_t n = 0, bytes = j->x_pixel * (j->p->half ? 2 : 4);
  if (j->p->kind == POOL_L2) return 0;
  for (int64_t d = b[0]; d < e[0]; d++)
    for (int64_t h = b[1]; h < e[1]; h++)
      for (int64_t v = b[2]; v < e[2]; v++) {
        if (n == TAPS) return 0;
        taps[n++] = j->x + (size_t)(((t->image * w->in[0] + d) * w->in[1] + h) * w->in[2] + v) * bytes;
      }
  return n;
}

static void pixels_last(void *context, size_t thread, size_t begin, size_t end) {
  const pool_job *j = context;
  const pool_call *p = j->p;
  const cml_windows *w = &p->w;
  size_t n = p->channels, size = p->half ? 2 : 4;
  float *wide = (float *)(void *)(j->scratch + thread * j->slot), *sums = wide + n;
  place t = place_of(w, begin);
  for (size_t i = begin; i < end; i++, move_on(w, &t)) {
    const int64_t *b = t.begin, *e = t.end, *counted = t.counted;
    int64_t inside = (e[0] - b[0]) * (e[1] - b[1]) * (e[2] - b[2]), all = counted[0] * counted[1] * counted[2];
    const void *taps[TAPS];
    size_t count = gather_window(j, &t, taps);
    char *y = j->y + i * j->pixel * size;
    if (count) {
      j->k->pool_pixel(p->kind == POOL_MAX, p->half, count, taps, n, (float)(p->exclude ? inside : all), y);
      continue;
    }
    float *sum = p->half ? sums : (float *)(void *)y;
    for (size_t c = 0; c < n; c++) sum[c] = p->kind == POOL_MAX ? -INFINITY : 0;
    for (int64_t d = b[0]; d < e[0]; d++)
      for (int64_t h = b[1]; h < e[1]; h++)
        for (int64_t v = b[2]; v < e[2]; v++) {
          const char *from = j->x + (size_t)(((t.image * w->in[0] + d) * w->in[1] + h) * w->in[2] + v) * j->x_pixel * size;
          if (p->half) j->k->f16_to_f32((const cml_f16 *)(const void *)from, wide, n);
          combine(j->k, p->kind, sum, p->half ? wide : (const float *)(const void *)from, n);
        }
    if (p->kind == POOL_AVERAGE) {
      float divisor = (float)(p->exclude ? inside : all);
      for (size_t c = 0; c < n; c++) sum[c] /= divisor;
    }
    if (p->kind == POOL_L2) j->k->unary(CML_UNARY_SQRT, sum, sum, n, 0, 0);
    if (p->half) j->k->f32_to_f16(sum, (cml_f16 *)(void *)y, n);
  }
}

/* Rows of x, from the pixels that taps point at on, are combined to one of floats side by side. */
static void fold_pixels(const pool_job *j, cml_pool_fold fold, size_t count, const void **taps, size_t pixels, bool begun, float *to) {
  const size_t n = j->p->channels, size = j->p->half ? 2 : 4;
  if (j->x_pixel == n) {
    j->k->pool_rows(fold, j->p->half, count, taps, pixels * n, begun, to);
    return;
  }
  for (size_t i = 0; i < pixels; i++, to += n) {
    j->k->pool_rows(fold, j->p->half, count, taps, n, begun, to);
    for (size_t k = 0; k < count; k++) taps[k] = (const char *)taps[k] + j->x_pixel * size;
  }
}

/* Outputs [begin, end) of a row of windows; o: their depth and row. line: the combined rows, with what changes nothing outside the image. */
static void slide_row(const pool_job *j, int64_t image, const int64_t *o, int64_t begin, int64_t end, float *line, float *sums, char *y) {
  const pool_call *p = j->p;
  const cml_windows *w = &p->w;
  const cml_pool_fold fold = p->kind == POOL_MAX ? CML_POOL_MAX : CML_POOL_SUM;
  const size_t n = p->channels, size = p->half ? 2 : 4, outputs = (size_t)(end - begin);
  const int64_t from = begin - w->before[2], to = from + end - begin + w->kernel[2] - 1;
  int64_t first = from < 0 ? 0 : from, last = to < w->in[2] ? to : w->in[2], b[3], e[3], counted[3];
  if (last < first) first = last = to;
  for (size_t i = 0; i < (size_t)(first - from) * n; i++) line[i] = p->kind == POOL_MAX ? -INFINITY : 0;
  for (size_t i = (size_t)(last - from) * n; i < (size_t)(to - from) * n; i++) line[i] = p->kind == POOL_MAX ? -INFINITY : 0;
  for (int d = 0; d < 2; d++) window(w, d, o[d], &b[d], &e[d], &counted[d]);
  const void *taps[TAPS];
  size_t count = 0;
  bool begun = false;
  for (int64_t d = b[0]; d < e[0] && last > first; d++)
    for (int64_t h = b[1]; h < e[1]; h++) {
      if (count == TAPS) fold_pixels(j, fold, count, taps, (size_t)(last - first), begun, line + (size_t)(first - from) * n), count = 0, begun = true;
      taps[count++] = j->x + (size_t)(((image * w->in[0] + d) * w->in[1] + h) * w->in[2] + first) * j->x_pixel * size;
    }
  fold_pixels(j, fold, count, taps, (size_t)(last - first), begun, line + (size_t)(first - from) * n);
  const bool direct = !p->half && j->pixel == n;
  float *z = direct ? (float *)(void *)y : sums;
  for (int64_t v = 0; v < w->kernel[2]; v++) taps[v] = line + (size_t)v * n;
  j->k->pool_rows(fold, false, (size_t)w->kernel[2], taps, outputs * n, false, z);
  const int64_t rows = p->exclude ? (e[0] - b[0]) * (e[1] - b[1]) : counted[0] * counted[1];
  for (int64_t v = begin, same; p->kind == POOL_AVERAGE && v < end; v = same) { /* neighbours of the same size together */
    window(w, 2, v, &b[2], &e[2], &counted[2]);
    const int64_t columns = p->exclude ? e[2] - b[2] : counted[2];
    for (same = v + 1; same < end; same++) {
      window(w, 2, same, &b[2], &e[2], &counted[2]);
      if ((p->exclude ? e[2] - b[2] : counted[2]) != columns) break;
    }
    float *part = z + (size_t)(v - begin) * n;
    j->k->binary_scalar(CML_BINARY_MUL, part, 1 / (float)(rows * columns), false, part, (size_t)(same - v) * n);
  }
  if (direct) return;
  if (p->half) j->k->f32_to_f16(z, j->pixel == n ? (cml_f16 *)(void *)y : (cml_f16 *)(void *)line, outputs * n);
  if (j->pixel != n) cml_copy_runs(y, j->pixel * size, p->half ? line : z, n * size, n * size, outputs);
}

static void rows_last(void *context, size_t thread, size_t begin, size_t end) {
  const pool_job *j = context;
  const cml_windows *w = &j->p->w;
  const size_t outputs = (size_t)slide_outputs(j->p), parts = (size_t)slide_parts(j->p);
  float *line = (float *)(void *)(j->scratch + thread * j->slot), *sums = line + (outputs + (size_t)w->kernel[2]) * j->p->channels;
  for (size_t i = begin; i < end; i++) {
    const int64_t row = (int64_t)(i / parts), first = (int64_t)(i % parts * outputs), last = first + (int64_t)outputs < w->out[2] ? first + (int64_t)outputs : w->out[2];
    const int64_t o[2] = {row / w->out[1] % w->out[0], row % w->out[1]};
    if (first < last) slide_row(j, row / w->out[1] / w->out[0], o, first, last, line, sums, j->y + (size_t)(row * w->out[2] + first) * j->pixel * (j->p->half ? 2 : 4));
  }
}

static const cml_pool_fold folds[] = {[POOL_MAX] = CML_POOL_MAX, [POOL_AVERAGE] = CML_POOL_SUM, [POOL_L2] = CML_POOL_SQUARES};

/* Outputs of a line by more than every second element: its elements are a matrix of `stride` columns, which are turned to lines that windows read in order. */
static void apart_line(const pool_job *j, const float *line, const float *scales, float scale, char *to) {
  const cml_windows *w = &j->p->w;
  const cml_pool_fold fold = j->p->kind == POOL_MAX ? CML_POOL_MAX : CML_POOL_SUM;
  const size_t stride = (size_t)w->stride[2], kernel = (size_t)w->kernel[2], outputs = (size_t)w->out[2], more = (kernel - 1) / stride, size = j->p->half ? 2 : 4;
  float turned[STRIDED], sums[APART];
  const void *taps[TAPS];
  for (size_t v = 0; v < kernel; v++) taps[v] = turned + v % stride * APART + v / stride;
  for (size_t i = 0, n; i < outputs; i += n) {
    n = outputs - i < APART - more ? outputs - i : APART - more;
    for (size_t v = 0, columns; v < stride && v < kernel; v += columns) { /* those that the last window reads in each row */
      const size_t rows = n + (kernel - 1 - v) / stride;
      columns = v < (kernel - 1) % stride + 1 ? (kernel - 1) % stride + 1 - v : (kernel < stride ? kernel : stride) - v;
      j->k->transpose(rows, columns, line + i * stride + v, stride, turned + v * APART, APART);
    }
    j->k->pool_rows(fold, false, kernel, taps, n, false, sums);
    if (scales) {
      j->k->binary(CML_BINARY_MUL, sums, scales + i, sums, n);
      j->k->binary_scalar(CML_BINARY_MUL, sums, scale, false, sums, n);
    }
    if (j->p->kind == POOL_L2) j->k->unary(CML_UNARY_SQRT, sums, sums, n, 0, 0);
    if (j->p->half) j->k->f32_to_f16(sums, (cml_f16 *)(void *)(to + i * size), n);
    else memcpy(to + i * size, sums, n * size);
  }
}

/* Lines of planes: the rows of a window are combined to one line, with what stands for padding around it, and that line with itself,
 * shifted; in registers where the kernel can. A line of output is a unit of work. */
static void pool_line(const pool_job *j, int64_t plane, const int64_t *o, float *line, const float *scales, char *to) {
  const pool_call *p = j->p;
  const cml_windows *w = &p->w;
  const cml_pool_fold fold = folds[p->kind];
  const size_t width = (size_t)w->in[2], row = width * (p->half ? 2 : 4);
  float *inside = line + w->before[2];
  const void *rows[TAPS];
  size_t n = 0;
  bool begun = false;
  int64_t b[3], e[3], counted[3];
  for (int d = 0; d < 2; d++) window(w, d, o[d], &b[d], &e[d], &counted[d]);
  const float scale = 1 / (float)(p->exclude ? (e[0] - b[0]) * (e[1] - b[1]) : counted[0] * counted[1]);
  for (int64_t d = b[0]; d < e[0]; d++)
    for (int64_t h = b[1]; h < e[1]; h++) {
      if (n == TAPS) j->k->pool_rows(fold, p->half, n, rows, width, begun, inside), n = 0, begun = true;
      rows[n++] = j->x + (size_t)((plane * w->in[0] + d) * w->in[1] + h) * row;
    }
  const cml_pool_line l = {.half = p->half, .taps = n, .width = width, .before = (size_t)w->before[2], .kernel = (size_t)w->kernel[2],
                           .stride = (size_t)w->stride[2], .outputs = (size_t)w->out[2], .rows = rows, .scales = scales, .scale = scale, .y = to};
  if (!begun && j->k->pool_slide(fold, &l)) return;
  j->k->pool_rows(fold, p->half, n, rows, width, begun, inside);
  if (l.stride > 2 && l.kernel <= l.stride * 2 && l.kernel <= TAPS && l.stride * APART <= STRIDED) apart_line(j, line, scales, scale, to);
  else j->k->pool_line(fold, line, l.kernel, l.stride, l.outputs, scales, scale, p->half, to);
}

/* Of lines [o, end) of such windows over a plane as many as have the same scale and share the first-level cache: how many were done at once, 0 where the kernel cannot. */
static int64_t strip(const pool_job *j, int64_t plane, int64_t o, int64_t end, const float *scales, void *to) {
  const pool_call *p = j->p;
  const cml_windows *w = &p->w;
  const int64_t row = w->in[2] * (p->half ? 2 : 4), most = STRIP_BYTES / row > 4 ? STRIP_BYTES / row : 4;
  int64_t first, last, b, e, counted, rows, n = 1;
  window(w, 1, o, &first, &last, &counted);
  for (rows = p->exclude ? last - first : counted; o + n < end && n < most; n++) {
    window(w, 1, o + n, &b, &e, &counted);
    if ((p->exclude ? e - b : counted) != rows) break;
  }
  const cml_pool_strip s = {.half = p->half, .above = o < w->before[1], .below = o + n + 2 - w->before[1] > w->in[1], .width = (size_t)w->in[2],
                            .before = (size_t)w->before[2], .outputs = (size_t)w->out[2], .lines = (size_t)n,
                            .x = j->x + (plane * w->in[1] + first) * row, .scales = scales, .scale = 1 / (float)rows, .y = to};
  return j->k->pool_strip(folds[p->kind], &s) ? n : 0;
}

static void lines(void *context, size_t thread, size_t begin, size_t end) {
  const pool_job *j = context;
  const cml_windows *w = &j->p->w;
  const size_t floats = line_floats(w), bytes = (size_t)w->out[2] * (j->p->half ? 2 : 4);
  float *line = (float *)(void *)(j->scratch + thread * j->slot), *scales = line + floats;
  for (size_t i = 0; i < floats; i++) line[i] = j->p->kind == POOL_MAX ? -INFINITY : 0;
  for (int64_t v = 0, from, to, all; v < w->out[2]; v++) {
    window(w, 2, v, &from, &to, &all);
    scales[v] = 1 / (float)(j->p->exclude ? to - from : all);
  }
  int64_t at = (int64_t)begin / w->out[1], plane = at / w->out[0], o[2] = {at % w->out[0], (int64_t)begin % w->out[1]};
  const float *scaled = j->p->kind == POOL_AVERAGE ? scales : NULL;
  const bool strips = nine_by_one(w);
  for (size_t i = begin; i < end;) {
    const int64_t left = (int64_t)(end - i), same = w->out[1] - o[1];
    int64_t n = strips ? strip(j, plane, o[1], o[1] + (left < same ? left : same), scaled, j->y + i * bytes) : 0;
    if (!n) pool_line(j, plane, o, line, scaled, j->y + i * bytes), n = 1;
    i += (size_t)n;
    if ((o[1] += n) < w->out[1]) continue;
    o[1] = 0;
    if (++o[0] == w->out[0]) o[0] = 0, plane++;
  }
}

static void transpose(const pool_job *j, size_t rows, size_t columns, const void *x, void *y) {
  if (j->p->half) j->k->transpose_16(rows, columns, x, columns, y, rows);
  else j->k->transpose(rows, columns, x, columns, y, rows);
}

/* One row of windows of `planes` planes: their rows are combined to one, and of that the pixels of each window. */
static void small_row(const pool_job *j, const char *x, size_t planes, const int64_t *o, float *line, float *y) {
  const pool_call *p = j->p;
  const cml_windows *w = &p->w;
  const cml_pool_fold fold = folds[p->kind];
  const size_t width = (size_t)w->in[2] * planes, row = width * (p->half ? 2 : 4);
  const void *taps[TAPS];
  size_t n = 0;
  int64_t b[3], e[3], counted[3];
  for (int d = 0; d < 2; d++) window(w, d, o[d], &b[d], &e[d], &counted[d]);
  for (int64_t d = b[0]; d < e[0]; d++)
    for (int64_t h = b[1]; h < e[1]; h++) taps[n++] = x + (size_t)(d * w->in[1] + h) * row;
  j->k->pool_rows(fold, p->half, n, taps, width, false, line);
  for (int64_t v = 0; v < w->out[2]; v++, y += planes) {
    window(w, 2, v, &b[2], &e[2], &counted[2]);
    for (int64_t i = b[2]; i < e[2]; i++) taps[i - b[2]] = line + (size_t)i * planes;
    const int64_t inside = (e[0] - b[0]) * (e[1] - b[1]) * (e[2] - b[2]), all = counted[0] * counted[1] * counted[2];
    const float divisor = p->kind != POOL_AVERAGE ? 1 : (float)(p->exclude ? inside : all);
    j->k->pool_pixel(p->kind == POOL_MAX, false, (size_t)(e[2] - b[2]), taps, planes, divisor, y);
  }
}

static void small_group(const pool_job *j, size_t first, size_t planes, float *scratch) {
  const cml_windows *w = &j->p->w;
  const size_t in = (size_t)(w->in[0] * w->in[1] * w->in[2]), out = (size_t)(w->out[0] * w->out[1] * w->out[2]), size = j->p->half ? 2 : 4;
  float *pixels = scratch, *line = pixels + in * planes, *sums = line + (size_t)w->in[2] * planes, *stored = sums + out * planes, *y = sums;
  transpose(j, planes, in, j->x + first * in * size, pixels);
  for (int64_t d = 0; d < w->out[0]; d++)
    for (int64_t h = 0; h < w->out[1]; h++, y += (size_t)w->out[2] * planes)
      small_row(j, (const char *)pixels, planes, (const int64_t[]){d, h}, line, y);
  if (j->p->kind == POOL_L2) j->k->unary(CML_UNARY_SQRT, sums, sums, out * planes, 0, 0);
  if (j->p->half) j->k->f32_to_f16(sums, (cml_f16 *)(void *)stored, out * planes);
  transpose(j, out, planes, j->p->half ? stored : sums, j->y + first * out * size);
}

static void planes_at_once(void *context, size_t thread, size_t begin, size_t end) {
  const pool_job *j = context;
  const size_t all = j->p->batch * j->p->channels, last = end * UNIT < all ? end * UNIT : all;
  const size_t together = planes_together(&j->p->w);
  for (size_t first = begin * UNIT; first < last; first += together)
    small_group(j, first, last - first < together ? last - first : together, (float *)(void *)(j->scratch + thread * j->slot));
}

/* Dims at the end that no window spans (normalisation over neighbouring channels is written so) are like channels at the end. */
static void join_untouched(pool_call *p) {
  cml_windows *w = &p->w;
  int untouched = 0;
  int64_t size = 1;
  for (int d = 2; d > 0 && w->kernel[d] == 1 && w->stride[d] == 1 && !w->before[d] && !w->after[d]; d--) size *= w->in[d], untouched++;
  if (p->last || size < 8) return;
  for (int d = 2; d >= 0; d--) {
    bool moved = d >= untouched;
    int from = moved ? d - untouched : d;
    w->in[d] = moved ? w->in[from] : 1, w->out[d] = moved ? w->out[from] : 1, w->kernel[d] = moved ? w->kernel[from] : 1;
    w->stride[d] = moved ? w->stride[from] : 1, w->before[d] = moved ? w->before[from] : 0, w->after[d] = moved ? w->after[from] : 0;
  }
  p->batch *= p->channels;
  p->channels = (size_t)size;
  p->last = true;
}

static cml_status run(cml_call *c, cml_error *err) {
  pool_call p;
  CML_TRY(read_pool(c, &p, err));
  size_t one = (size_t)part_floats(&p);
  to_three(&p);
  join_untouched(&p);
  const cml_tensor *x = cml_arg(c, X);
  pool_job j = {cml_kernels_get(), &p, x->data, c->outs[0]->data, c->scratch, (2 * one * 4 + 127) & ~(size_t)63, x->row ? (size_t)x->row : p.channels,
                c->outs[0]->row ? (size_t)c->outs[0]->row : p.channels};
  size_t pixels = (size_t)(p.w.out[0] * p.w.out[1] * p.w.out[2]);
  if (slides(&p)) cml_parallel_with_thread(c->pool, p.batch * (size_t)(p.w.out[0] * p.w.out[1] * slide_parts(&p)), 1 + 2048 / ((size_t)slide_outputs(&p) * p.channels + 1), rows_last, &j);
  else if (p.last) cml_parallel_with_thread(c->pool, p.batch * pixels, 16, pixels_last, &j);
  else if (small_planes(&p)) cml_parallel_with_thread(c->pool, (p.batch * p.channels + UNIT - 1) / UNIT, 1 + 256 / (size_t)(1 + p.w.in[0] * p.w.in[1] * p.w.in[2]), planes_at_once, &j);
  else cml_parallel_with_thread(c->pool, p.batch * p.channels * (size_t)(p.w.out[0] * p.w.out[1]), 1 + 4096 / (size_t)(p.w.out[2] + 1), lines, &j);
  return CML_OK;
}

#define POOL_ROW(title, params, flag) \
  {.name = title, .since = CML_IOS15, .flags = flag, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(params), .infer = infer, .run = run}

static const cml_op rows[] = {
    POOL_ROW("max_pool", pool_params, 0),
    POOL_ROW("avg_pool", average_params, 0),
    POOL_ROW("l2_pool", pool_params, 0),
    POOL_ROW("cml_max_pool_last", pool_params, CML_OP_INTERNAL),
    POOL_ROW("cml_avg_pool_last", average_params, CML_OP_INTERNAL),
};

const cml_op_family cml_ops_pool = {"pool", rows, sizeof rows / sizeof *rows};
