/* Pooling over two dimensions. Rows of a plane are brought into double precision, a band of them at a time and very wide ones in tiles of
 * columns; each row of windows takes in the rows that it covers, one after the other. */
#include <math.h>

#include "et_elementwise.h"
#include "et_families.h"
#include "et_view.h"

typedef struct window {
  int64_t kernel[2], stride[2], pad[2], dilation[2];
  int64_t in[2], out[2];
  int64_t n, channels;
  const cml_et_tensor *x;
  int d; /* first of the image's dimensions: 1 or 2 */
} window;

/* A list of two, of one that counts for both, or of none: `otherwise`. */
static cml_status take_two(cml_et_call *c, size_t i, const int64_t *otherwise, int64_t least, int64_t *out, cml_error *err) {
  size_t count;
  CML_TRY(cml_et_ints(c, i, out, 2, &count, err));
  if (count == 1) out[1] = out[0];
  if (count == 0 && !otherwise) return cml_et_fail(c, err, "argument %zu is an empty list", i);
  if (count == 0) memcpy(out, otherwise, 2 * sizeof *out);
  for (int k = 0; k < 2; k++)
    if (out[k] < least || out[k] > INT32_MAX) return cml_et_fail(c, err, "%lld in argument %zu is out of range", (long long)out[k], i);
  return CML_OK;
}

static cml_status take_image(cml_et_call *c, window *w, const cml_et_tensor *x, cml_error *err) {
  w->x = x;
  if (x->rank != 3 && x->rank != 4) return cml_et_fail(c, err, "takes images of rank 3 or 4; this tensor is of rank %d", x->rank);
  w->d = x->rank - 2;
  w->n = x->rank == 4 ? x->sizes[0] : 1;
  w->channels = x->sizes[w->d - 1];
  memcpy(w->in, x->sizes + w->d, sizeof w->in);
  return CML_OK;
}

static cml_status take_window(cml_et_call *c, window *w, size_t first, bool dilated, bool ceiling, cml_error *err) {
  static const int64_t zeros[2] = {0, 0}, ones[2] = {1, 1};
  CML_TRY(take_two(c, first, NULL, 1, w->kernel, err));
  CML_TRY(take_two(c, first + 1, w->kernel, 1, w->stride, err));
  CML_TRY(take_two(c, first + 2, zeros, 0, w->pad, err));
  memcpy(w->dilation, ones, sizeof ones);
  if (dilated) CML_TRY(take_two(c, first + 3, ones, 1, w->dilation, err));
  for (int k = 0; k < 2; k++) {
    int64_t room = w->in[k] + 2 * w->pad[k] - w->dilation[k] * (w->kernel[k] - 1) - 1;
    if (w->pad[k] > w->kernel[k] / 2) return cml_et_fail(c, err, "padding of %lld for windows of %lld", (long long)w->pad[k], (long long)w->kernel[k]);
    if (ceiling) room += w->stride[k] - 1;
    if (room < 0) return cml_et_fail(c, err, "the window is larger than the padded image");
    w->out[k] = room / w->stride[k] + 1;
    if (ceiling && (w->out[k] - 1) * w->stride[k] >= w->in[k] + w->pad[k]) w->out[k]--;
    if (w->in[k] < 1 || w->out[k] < 1) return cml_et_fail(c, err, "the image is empty");
  }
  return CML_OK;
}

static cml_status resize_out(cml_et_call *c, const window *w, cml_et_tensor *out, cml_error *err) {
  int64_t sizes[4] = {w->n, w->channels, w->out[0], w->out[1]};
  return cml_et_resize(c, out, w->x->rank, sizes + (w->d == 1), err);
}

static int64_t plane_of(const cml_et_tensor *t, int64_t n, int64_t channel) {
  return t->rank == 4 ? n * t->strides[0] + channel * t->strides[1] : channel * t->strides[0];
}

enum {
  /* with all threads' share in scratch: elements of a plane that are in double precision at once; columns that are looked at together,
   * of windows or of the image */
  TILE = 1 << 13, BAND = 4 * TILE, MOST = (BAND + 3 * TILE) * 8, LEAST = MOST / 16,
};

typedef struct pool_job {
  window w;
  cml_et_tensor *out, *indices;
  int64_t band;       /* BAND, or a share of it */
  int64_t tile;       /* columns of windows together */
  int64_t from, to;   /* those columns, now */
  int64_t left, span; /* the image's columns that they cover: the first, and how many */
  bool include_pad;
  int64_t divisor;
  double least; /* of the type: what a window without elements has at most */
  /* to: columns from .. to of a row of results, with room for the image's columns behind it */
  void (*begin)(const struct pool_job *j, int64_t y, double *to, int64_t *index);
  void (*row)(const struct pool_job *j, const double *line, int64_t at, int64_t y, double *to, int64_t *index); /* takes in row `at` */
  void (*end)(const struct pool_job *j, int64_t y, double *to);
  /* what of the image window `at` of dimension k covers: may end beyond it */
  void (*cover)(const struct pool_job *j, int k, int64_t at, int64_t *first, int64_t *last);
} pool_job;

/* ---- the largest ---- */

/* The first step of a window that is not before the image. */
static int64_t first_in(const window *w, int k, int64_t at) {
  int64_t from = at * w->stride[k] - w->pad[k], step = w->dilation[k];
  return from >= 0 ? from : from + (-from + step - 1) / step * step;
}

/* As torch has it, a window without elements names the place where its first one would be. */
static void max_begin(const pool_job *j, int64_t y, double *to, int64_t *index) {
  const window *w = &j->w;
  for (int64_t x = j->from; x < j->to; x++) {
    to[x - j->from] = j->least;
    index[x - j->from] = first_in(w, 0, y) * w->in[1] + first_in(w, 1, x);
  }
}

static void max_cover(const pool_job *j, int k, int64_t at, int64_t *first, int64_t *last) {
  const window *w = &j->w;
  int64_t from = at * w->stride[k] - w->pad[k];
  *first = from < 0 ? 0 : from;
  *last = from + (w->kernel[k] - 1) * w->dilation[k] + 1;
}

/* One tap of n windows; `at`: the index of the first one's element, of which the others' are `step` apart. NaN wins. */
CML_WIDE_INLINE void max_tap_loop(double *to, int64_t *index, const double *line, int64_t n, int64_t step, int64_t at) {
  CML_INDEPENDENT for (int64_t x = 0; x < n; x++) {
    double v = line[x * step];
    bool better = (v > to[x]) | (v != v);
    to[x] = better ? v : to[x];
    index[x] = better ? at + x * step : index[x];
  }
}
CML_WIDE_INLINE void max_tap_steps(double *to, int64_t *index, const double *line, int64_t n, int64_t step, int64_t at) {
  if (step == 1) max_tap_loop(to, index, line, n, 1, at);
  else if (step == 2) max_tap_loop(to, index, line, n, 2, at);
  else max_tap_loop(to, index, line, n, step, at);
}
CML_WIDE static void max_tap_wide(double *to, int64_t *index, const double *line, int64_t n, int64_t step, int64_t at) {
  max_tap_steps(to, index, line, n, step, at);
}

static void max_row(const pool_job *j, const double *line, int64_t at, int64_t y, double *to, int64_t *index) {
  const window *w = &j->w;
  if ((at - first_in(w, 0, y)) % w->dilation[0]) return;
  int64_t step = w->stride[1], columns = w->in[1], d = w->dilation[1], before = w->pad[1] - (j->to - 1) * step;
  for (int64_t k = before > 0 ? before / d : 0; k < w->kernel[1]; k++) { /* those before are in the padding of all windows */
    int64_t from = k * d - w->pad[1]; /* window x asks column from + x * step */
    if (from >= columns) break;
    int64_t first = from < 0 ? (-from + step - 1) / step : 0, last = (columns - from + step - 1) / step;
    if (first < j->from) first = j->from;
    if (last > j->to) last = j->to;
    if (first >= last) continue;
    int64_t column = from + first * step;
    (cml_wide() ? max_tap_wide : max_tap_steps)(to + (first - j->from), index + (first - j->from), line + (column - j->left), last - first, step, at * columns + column);
  }
}

/* ---- means: rows are added up by columns, behind the row of results; in the end windows take in their columns ---- */

static void mean_begin(const pool_job *j, int64_t y, double *to, int64_t *index) {
  (void)y, (void)index;
  memset(to + (j->to - j->from), 0, (size_t)j->span * sizeof *to);
}

CML_WIDE_INLINE void add_line_loop(double *sums, const double *line, int64_t n) {
  CML_INDEPENDENT for (int64_t i = 0; i < n; i++) sums[i] += line[i];
}
CML_WIDE static void add_line_wide(double *sums, const double *line, int64_t n) { add_line_loop(sums, line, n); }
static void mean_row(const pool_job *j, const double *line, int64_t at, int64_t y, double *to, int64_t *index) {
  (void)at, (void)y, (void)index;
  (cml_wide() ? add_line_wide : add_line_loop)(to + (j->to - j->from), line, j->span);
}

/* Four sums at once, for each waits for the addition before. */
static double row_sum(const double *x, int64_t n) {
  double a = 0, b = 0, c = 0, d = 0;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) a += x[i], b += x[i + 1], c += x[i + 2], d += x[i + 3];
  for (; i < n; i++) a += x[i];
  return (a + b) + (c + d);
}

/* The part of the padded image that a window covers in dimension k, and the part of the image. */
static void covered(const window *w, int k, int64_t at, int64_t *padded, int64_t *first, int64_t *last) {
  int64_t from = at * w->stride[k] - w->pad[k], to = from + w->kernel[k];
  if (to > w->in[k] + w->pad[k]) to = w->in[k] + w->pad[k];
  *padded = to - from;
  *first = from < 0 ? 0 : from;
  *last = to < w->in[k] ? to : w->in[k];
}

static void mean_cover(const pool_job *j, int k, int64_t at, int64_t *first, int64_t *last) {
  int64_t padded;
  covered(&j->w, k, at, &padded, first, last);
}

static void mean_end(const pool_job *j, int64_t y, double *to) {
  const double *sums = to + (j->to - j->from);
  int64_t height, width, t, b, l, r;
  covered(&j->w, 0, y, &height, &t, &b);
  for (int64_t x = j->from; x < j->to; x++) {
    covered(&j->w, 1, x, &width, &l, &r);
    to[x - j->from] = b <= t || r <= l ? 0 : row_sum(sums + (l - j->left), r - l) / (double)(j->divisor ? j->divisor : j->include_pad ? height * width : (b - t) * (r - l));
  }
}

static void share(const window *w, int k, int64_t at, int64_t *first, int64_t *last) {
  *first = at * w->in[k] / w->out[k];
  *last = ((at + 1) * w->in[k] + w->out[k] - 1) / w->out[k];
}

static void adaptive_cover(const pool_job *j, int k, int64_t at, int64_t *first, int64_t *last) { share(&j->w, k, at, first, last); }

static void adaptive_end(const pool_job *j, int64_t y, double *to) {
  const double *sums = to + (j->to - j->from);
  int64_t t, b, l, r;
  share(&j->w, 0, y, &t, &b);
  for (int64_t x = j->from; x < j->to; x++) {
    share(&j->w, 1, x, &l, &r);
    to[x - j->from] = row_sum(sums + (l - j->left), r - l) / (double)((b - t) * (r - l));
  }
}

/* ---- planes ---- */

/* Rows [first, last) of a tile of a plane in double precision; at most `most` of them. */
typedef struct band {
  double *lines;
  int64_t first, last, most;
} band;

static const double *line_of(const pool_job *j, int64_t plane, int64_t at, band *b) {
  const window *w = &j->w;
  int64_t step = w->x->strides[w->d + 1];
  if (at < b->first || at >= b->last) {
    b->first = at;
    b->last = at + b->most < w->in[0] ? at + b->most : w->in[0];
    for (int64_t y = b->first; y < b->last; y++)
      cml_et_load_f64(b->lines + (y - at) * j->span, w->x, plane + y * w->x->strides[w->d] + j->left * step, step, j->span);
  }
  return b->lines + (at - b->first) * j->span;
}

/* The columns of the image that columns from .. to of the windows cover. */
static void take_tile(pool_job *j, int64_t from) {
  int64_t first, last, ignored;
  j->from = from;
  j->to = from + j->tile < j->w.out[1] ? from + j->tile : j->w.out[1];
  j->cover(j, 1, j->from, &first, &ignored);
  j->cover(j, 1, j->to - 1, &ignored, &last);
  if (last > j->w.in[1]) last = j->w.in[1];
  j->left = first < last ? first : last;
  j->span = last - j->left;
}

static int64_t band_rows(const pool_job *j) {
  int64_t rows = j->band / (j->span + 1) + 1;
  return rows < j->w.in[0] ? rows : j->w.in[0];
}

static void pool_tile(const pool_job *j, int64_t from, int64_t to, int64_t indices, char *room) {
  const window *w = &j->w;
  band b = {.lines = (double *)(void *)room, .most = band_rows(j)};
  double *row = b.lines + b.most * j->span;
  int64_t count = j->to - j->from, *index = (int64_t *)(void *)(row + count + j->span), step = j->out->strides[w->d + 1];
  for (int64_t y = 0; y < w->out[0]; y++) {
    int64_t first, last;
    j->cover(j, 0, y, &first, &last);
    if (last > w->in[0]) last = w->in[0];
    j->begin(j, y, row, index);
    for (int64_t at = first; at < last; at++) j->row(j, line_of(j, from, at, &b), at, y, row, index);
    if (j->end) j->end(j, y, row);
    cml_et_store_f64(j->out, to + y * j->out->strides[w->d] + j->from * step, step, count, row);
    if (j->indices)
      cml_et_store_i64(j->indices, indices + y * j->indices->strides[w->d] + j->from * j->indices->strides[w->d + 1], j->indices->strides[w->d + 1], count, index);
  }
}

static void pool_planes(void *context, void *scratch, size_t begin, size_t end) {
  pool_job j = *(const pool_job *)context;
  const window *w = &j.w;
  for (size_t p = begin; p < end; p++) {
    int64_t n = (int64_t)p / w->channels, channel = (int64_t)p % w->channels;
    for (int64_t from = 0; from < w->out[1]; from += j.tile) {
      take_tile(&j, from);
      pool_tile(&j, plane_of(w->x, n, channel), plane_of(j.out, n, channel), j.indices ? plane_of(j.indices, n, channel) : 0, scratch);
    }
  }
}

static cml_status run_pool(cml_et_call *c, pool_job *j, cml_error *err) {
  CML_TRY(cml_et_same_type(c, j->w.x, j->out, err));
  CML_TRY(resize_out(c, &j->w, j->out, err));
  if (j->indices) CML_TRY(resize_out(c, &j->w, j->indices, err));
  if (cml_et_numel(j->out) == 0) return CML_OK;
  int64_t widest = j->w.in[1] > j->w.out[1] ? j->w.in[1] : j->w.out[1], share = (int64_t)cml_et_crew_share(c, LEAST, MOST);
  int64_t tile = share * TILE / MOST;
  size_t room = 0;
  cml_et_crew crew;
  j->band = share * BAND / MOST;
  j->tile = widest <= tile ? j->w.out[1] : tile * j->w.out[1] / widest;
  if (j->tile < 1) j->tile = 1;
  for (int64_t from = 0; from < j->w.out[1]; from += j->tile) {
    take_tile(j, from);
    size_t need = (size_t)((band_rows(j) + 1) * j->span + 2 * (j->to - j->from)) * 8;
    if (need > room) room = need;
  }
  CML_TRY(cml_et_crew_of(c, room, &crew, err));
  cml_et_crew_run(&crew, (size_t)(j->w.n * j->w.channels), 1, pool_planes, j);
  return CML_OK;
}

static cml_status op_max_pool(cml_et_call *c, cml_error *err) {
  pool_job j = {.out = cml_et_arg(c, 6), .indices = cml_et_arg(c, 7), .begin = max_begin, .row = max_row, .cover = max_cover};
  cml_dtype type = j.out->dtype;
  j.least = cml_dtype_is_float(type) ? -INFINITY : cml_dtype_is_signed(type) ? -ldexp(1, (int)cml_dtype_bits(type) - 1) : 0;
  CML_TRY(take_image(c, &j.w, cml_et_arg(c, 0), err));
  CML_TRY(cml_et_want(c, j.w.x, CML_ET_ANY & ~CML_M_BOOL, "the tensor", err));
  CML_TRY(cml_et_want(c, j.indices, CML_MASK(I64), "the output of indices", err));
  CML_TRY(take_window(c, &j.w, 1, true, cml_et_bool(c, 5, false), err));
  return run_pool(c, &j, err);
}

static cml_status op_avg_pool(cml_et_call *c, cml_error *err) {
  pool_job j = {.out = cml_et_arg(c, 7), .begin = mean_begin, .row = mean_row, .end = mean_end, .cover = mean_cover,
                .include_pad = cml_et_bool(c, 5, true), .divisor = cml_et_int(c, 6, 0)};
  CML_TRY(take_image(c, &j.w, cml_et_arg(c, 0), err));
  CML_TRY(cml_et_want(c, j.w.x, CML_ET_FLOATING | CML_MASK(I64), "the tensor", err));
  if (!cml_et_none(c, 6) && j.divisor == 0) return cml_et_fail(c, err, "divisor_override is 0");
  CML_TRY(take_window(c, &j.w, 1, false, cml_et_bool(c, 4, false), err));
  return run_pool(c, &j, err);
}

static cml_status op_adaptive(cml_et_call *c, cml_error *err) {
  pool_job j = {.out = cml_et_arg(c, 2), .begin = mean_begin, .row = mean_row, .end = adaptive_end, .cover = adaptive_cover};
  CML_TRY(take_image(c, &j.w, cml_et_arg(c, 0), err));
  CML_TRY(cml_et_want(c, j.w.x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(take_two(c, 1, NULL, 0, j.w.out, err));
  if (j.w.in[0] < 1 || j.w.in[1] < 1) return cml_et_fail(c, err, "the image is empty");
  return run_pool(c, &j, err);
}

/* One plane: each gradient goes to the place that its window took. Here all lie densely. */
static cml_status give_back_dense(cml_et_call *c, const int64_t *index, const float *grad, float *to, int64_t n, int64_t size, cml_error *err) {
  memset(to, 0, (size_t)size * sizeof *to);
  for (int64_t i = 0; i < n; i++) {
    if ((uint64_t)index[i] >= (uint64_t)size) return cml_et_fail(c, err, "index %lld is outside the image", (long long)index[i]);
    to[index[i]] += grad[i];
  }
  return CML_OK;
}

static cml_status give_back(cml_et_call *c, const window *w, int64_t n, int64_t channel, const cml_et_tensor *grad, const cml_et_tensor *indices,
                            cml_et_tensor *out, cml_error *err) {
  const int64_t *index = (const int64_t *)indices->data + plane_of(indices, n, channel);
  int64_t from = plane_of(grad, n, channel), to = plane_of(out, n, channel), columns = w->in[1], size = w->in[0] * columns;
  bool dense = out->strides[w->d + 1] == 1 && out->strides[w->d] == columns, single = out->dtype == CML_F32;
  for (int64_t y = 0; y < grad->sizes[w->d]; y++)
    for (int64_t x = 0; x < grad->sizes[w->d + 1]; x++) {
      int64_t at = index[y * indices->strides[w->d] + x * indices->strides[w->d + 1]];
      int64_t source = from + y * grad->strides[w->d] + x * grad->strides[w->d + 1];
      double g, v;
      if (at < 0 || at >= size) return cml_et_fail(c, err, "index %lld is outside the image", (long long)at);
      int64_t place = to + (dense ? at : at / columns * out->strides[w->d] + at % columns * out->strides[w->d + 1]);
      if (single) {
        ((float *)out->data)[place] += ((const float *)grad->data)[source];
        continue;
      }
      cml_et_load_f64(&g, grad, source, 1, 1);
      cml_et_load_f64(&v, out, place, 1, 1);
      v += g;
      cml_et_store_f64(out, place, 1, 1, &v);
    }
  return CML_OK;
}

static cml_status op_max_pool_backward(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *grad = cml_et_arg(c, 0), *x = cml_et_arg(c, 1), *indices = cml_et_arg(c, 7);
  cml_et_tensor *out = cml_et_arg(c, 8);
  window w = {0};
  CML_TRY(take_image(c, &w, x, err));
  CML_TRY(cml_et_want(c, grad, CML_ET_FLOATING, "the gradient", err));
  CML_TRY(cml_et_want(c, indices, CML_MASK(I64), "the indices", err));
  CML_TRY(cml_et_same_type(c, grad, out, err));
  if (grad->rank != x->rank || !cml_et_same_shape(grad, indices) || (x->rank == 4 && grad->sizes[0] != w.n) || grad->sizes[w.d - 1] != w.channels)
    return cml_et_fail(c, err, "the gradient's shape is not that of the indices");
  CML_TRY(cml_et_resize_like(c, out, x, err));
  int64_t size = w.in[0] * w.in[1], taken = grad->sizes[w.d] * grad->sizes[w.d + 1];
  bool dense = out->dtype == CML_F32 && cml_et_is_contiguous(out) && cml_et_is_contiguous(grad) && cml_et_is_contiguous(indices);
  for (int64_t p = 0; p < w.n * w.channels && dense; p++)
    CML_TRY(give_back_dense(c, (const int64_t *)indices->data + p * taken, (const float *)grad->data + p * taken, (float *)out->data + p * size, taken,
                            size, err));
  if (dense) return CML_OK;
  if (cml_et_numel(out)) memset(out->data, 0, (size_t)cml_et_numel(out) * cml_et_width(out));
  for (int64_t p = 0; p < w.n * w.channels; p++) CML_TRY(give_back(c, &w, p / w.channels, p % w.channels, grad, indices, out, err));
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::_adaptive_avg_pool2d.out", "tIo", op_adaptive},
    {"aten::avg_pool2d.out", "tIIIbbi?o", op_avg_pool},
    {"aten::max_pool2d_with_indices.out", "tIIIIboo", op_max_pool},
    {"aten::max_pool2d_with_indices_backward.grad_input", "ttIIIIbto", op_max_pool_backward},
};
CML_ET_FAMILY(pool)
