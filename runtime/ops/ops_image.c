/* Resizing: bilinear and nearest, by target size, by scale, or by a shape that is a tensor.
 *
 * All are one thing. For each resized axis a table gives the two neighbours of each output point and the weight of the
 * second. A band of an output row is made by adding the input rows that its outer axes select, each with its weight, and
 * then interpolating along the last axis. Nearest copies elements of any type by the same tables.
 * Grids: coremltools' iOS15 resize_bilinear and iOS16 upsample_bilinear. */
#include "image.h"

#include <math.h>

#include "elementwise.h"
#include "families.h"
#include "strided.h"

/* ---- grids ---- */

int cml_grid_by_name(const char *name) {
  static const char *const names[] = {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS", NULL};
  return cml_word_index(name, names);
}

double cml_grid_point(cml_grid grid, int64_t i, double from, int64_t to) {
  double n = (double)to, x = (double)i, p = 0;
  switch (grid) {
    case CML_GRID_STRICT_ALIGN_CORNERS: p = to > 1 ? x * (from - 1) / (n - 1) : 0; break;
    case CML_GRID_ALIGN_CORNERS: p = to > 1 ? x * (from - 1) / (n - 1) : (from - 1) / 2; break;
    case CML_GRID_DEFAULT: p = x * from / n; break;
    case CML_GRID_OFFSET_CORNERS: p = (x + 0.5) * fmax(1, from - 1) / n; break;
    case CML_GRID_UNALIGN_CORNERS: p = (x + 0.5) * from / n - 0.5; break;
  }
  return fmin(fmax(p, 0), fmax(from - 1, 0));
}

/* ---- the tables ---- */

typedef struct tap {
  int32_t low, high; /* neighbours */
  float weight;      /* of high */
} tap;

enum rule { LINEAR, NEAREST, BY_SCALE };

/* Nearest by scale: a size that is a whole multiple (but for the 1e-4 that converters add) divides evenly, and an equal
 * one stays as it is; else the scale itself divides, as in torch. In float, since a product may be exactly whole. */
static int64_t scaled_index(int64_t i, int64_t from, int64_t to, float scale) {
  double product = (double)from * (double)scale;
  if (from == to || product - floor(product) < 1e-3) return i * from / to;
  int64_t index = (int64_t)floorf((float)i * (1.0f / scale));
  return index < from ? index : from - 1;
}

static void fill_taps(tap *taps, cml_grid grid, enum rule rule, int64_t from, int64_t to, float scale) {
  for (int64_t i = 0; i < to; i++) {
    tap *t = &taps[i];
    if (rule == BY_SCALE) {
      t->low = t->high = (int32_t)scaled_index(i, from, to, scale);
      t->weight = 0;
      continue;
    }
    double p = cml_grid_point(grid, i, (double)from, to);
    if (rule == NEAREST) p = fmin(floor(p + 0.5), (double)(from - 1));
    t->low = (int32_t)p;
    t->high = t->low + 1 < from ? t->low + 1 : t->low;
    t->weight = (float)(p - t->low);
  }
}

/* ---- running ---- */

typedef struct resize_job {
  const cml_tensor *x;
  cml_tensor *out;
  int32_t axes;                         /* resized ones, the last of the shape */
  int64_t from[CML_MAX_RANK], to[CML_MAX_RANK];
  tap *taps[CML_MAX_RANK];
  bool nearest;
} resize_job;

/* Adds up the input rows of one output row over input columns [first, first + n). */
static void gather_rows(const resize_job *j, int64_t plane, const int64_t *index, int64_t first, size_t n, float *to) {
  float row[CML_CHUNK];
  int32_t outer = j->axes - 1;
  bool begun = false;
  for (uint32_t corner = 0; corner < 1u << outer; corner++) {
    float weight = 1;
    int64_t at = plane;
    for (int32_t k = 0; k < outer; k++) {
      const tap *t = &j->taps[k][index[k]];
      bool high = corner >> k & 1;
      weight *= high ? t->weight : 1 - t->weight;
      at = at * j->from[k] + (high ? t->high : t->low);
    }
    if (weight == 0) continue;
    cml_load_f32(begun ? row : to, j->x->data, j->x->dtype, at * j->from[outer] + first, n);
    if (!begun && weight != 1)
      for (size_t i = 0; i < n; i++) to[i] *= weight;
    else if (begun)
      for (size_t i = 0; i < n; i++) to[i] += weight * row[i];
    begun = true;
  }
}

/* ---- images made taller: each input row is interpolated along its last axis once, and output rows blend two of those ---- */

enum { BAND = 32 }; /* output rows of a plane that are one unit of work */

static bool by_bands(const resize_job *j) { return !j->nearest && j->axes == 2 && j->to[0] > j->from[0]; }

/* Columns of a band: which input columns they lie between, from `first` on, of which there are `count`. */
typedef struct band_places {
  int64_t first;
  size_t n, count;
  int32_t low[CML_CHUNK];
  float weight[CML_CHUNK];
} band_places;

static void place_columns(const tap *taps, int64_t begin, int64_t end, band_places *p) {
  p->first = taps[begin].low;
  p->n = (size_t)(end - begin);
  p->count = (size_t)(taps[end - 1].high - p->first + 1);
  for (size_t i = 0; i < p->n; i++) p->low[i] = taps[begin + (int64_t)i].low - (int32_t)p->first, p->weight[i] = taps[begin + (int64_t)i].weight;
}

/* Output row `index` of the outer axes: the input rows it lies between are blended first, then columns are interpolated. */
static void narrow_row(const resize_job *j, int64_t plane, const int64_t *index, const band_places *p, int64_t out) {
  const cml_kernels *k = cml_kernels_get();
  float columns[CML_CHUNK], result[CML_CHUNK];
  const float *from = columns;
  const int32_t outer = j->axes - 1;
  const bool plain = j->x->dtype == CML_F32;
  const tap *t = outer ? &j->taps[0][index[0]] : NULL;
  if (outer > 1 || (!plain && t && t->weight != 0)) {
    gather_rows(j, plane, index, p->first, p->count, columns);
  } else {
    const int64_t low = (outer ? (plane * j->from[0] + t->low) : plane) * j->from[outer] + p->first;
    if (!plain) cml_load_f32(columns, j->x->data, j->x->dtype, low, p->count);
    else if (!t || t->weight == 0) from = (const float *)j->x->data + low;
    else k->blend(t->weight, (const float *)j->x->data + low, (const float *)j->x->data + low + (t->high - t->low) * j->from[1], columns, p->count);
  }
  float *to = j->out->dtype == CML_F32 ? (float *)j->out->data + out : result;
  k->interpolate(p->n, p->low, p->weight, from, p->count, to);
  if (to == result) cml_store_f32(j->out->data, j->out->dtype, out, result, p->n);
}

static void widen_row(const resize_job *j, int64_t row, const band_places *p, float *to) {
  float columns[CML_CHUNK];
  const int64_t at = row * j->from[1] + p->first;
  const float *from = columns;
  if (j->x->dtype == CML_F32) from = (const float *)j->x->data + at;
  else cml_load_f32(columns, j->x->data, j->x->dtype, at, p->count);
  cml_kernels_get()->interpolate(p->n, p->low, p->weight, from, p->count, to);
}

static void band_columns(const resize_job *j, int64_t plane, int64_t top, int64_t bottom, int64_t begin, int64_t end) {
  const cml_kernels *k = cml_kernels_get();
  float rows[2][CML_CHUNK], blend[CML_CHUNK];
  int64_t held[2] = {-1, -1};
  band_places places;
  place_columns(j->taps[1], begin, end, &places);
  for (int64_t r = top; r < bottom; r++) {
    const tap *t = &j->taps[0][r];
    for (int32_t i = t->low; i <= (t->weight == 0 ? t->low : t->high); i++) {
      if (held[i & 1] == i) continue;
      widen_row(j, plane * j->from[0] + i, &places, rows[i & 1]);
      held[i & 1] = i;
    }
    const float *from = rows[t->low & 1];
    const int64_t at = (plane * j->to[0] + r) * j->to[1] + begin;
    float *to = j->out->dtype == CML_F32 ? (float *)j->out->data + at : blend;
    if (t->weight != 0) k->blend(t->weight, from, rows[t->high & 1], to, places.n), from = to;
    if (to == blend || from != to) cml_store_f32(j->out->data, j->out->dtype, at, from, places.n);
  }
}

static void resize_bands(void *context, size_t begin, size_t end) {
  const resize_job *j = context;
  int64_t bands = (j->to[0] + BAND - 1) / BAND, width = j->to[1];
  const tap *taps = j->taps[1];
  for (size_t t = begin; t < end; t++) {
    int64_t top = (int64_t)t % bands * BAND, bottom = top + BAND < j->to[0] ? top + BAND : j->to[0];
    for (int64_t at = 0, next; at < width; at = next) {
      for (next = at; next < width && next - at < CML_CHUNK && taps[next].high - taps[at].low < CML_CHUNK; next++) {}
      band_columns(j, (int64_t)t / bands, top, bottom, at, next);
    }
  }
}

/* ---- images with the channels last: what is done to an element above is done to a pixel's channels here ---- */

enum { PIECE = 4096 }; /* floats of a row worked on at once */

typedef struct last_job {
  const cml_tensor *x;
  cml_tensor *out;
  int64_t from[2], to[2], channels, bands;
  int64_t x_pixel, pixel; /* elements from one pixel of x, and of out, to the next */
  const tap *taps[2];
  float *scratch;  /* for each thread four pieces: input, two rows between which is blended, the result */
  size_t piece;    /* floats of one */
} last_job;

static size_t piece_floats(int64_t channels) { return PIECE + 2 * (size_t)channels; }

/* Output columns [begin, end) of input row `row`. */
static void widen_pixels(const last_job *j, int64_t row, int64_t begin, int64_t end, float *columns, float *to) {
  const cml_kernels *k = cml_kernels_get();
  const tap *taps = j->taps[1];
  const int64_t first = taps[begin].low, n = j->channels, at = (row * j->from[1] + first) * j->x_pixel, pixels = taps[end - 1].high - first + 1;
  const bool in_place = j->x->dtype == CML_F32;
  const float *from = in_place ? (const float *)j->x->data + at : columns;
  const int64_t step = in_place ? j->x_pixel : n, pieces = j->x_pixel == n ? 1 : pixels;
  for (int64_t i = 0; i < pieces && !in_place; i++) cml_load_f32(columns + i * n, j->x->data, j->x->dtype, at + i * j->x_pixel, (size_t)(pixels / pieces * n));
  for (int64_t i = begin; i < end; i++, to += n) {
    const float *a = from + (taps[i].low - first) * step, *b = from + (taps[i].high - first) * step;
    if (taps[i].weight == 0) memcpy(to, a, (size_t)n * sizeof *to);
    else k->blend(taps[i].weight, a, b, to, (size_t)n);
  }
}

static void band_pixels(const last_job *j, int64_t image, int64_t top, int64_t bottom, int64_t begin, int64_t end, float *scratch) {
  float *rows[2] = {scratch + j->piece, scratch + 2 * j->piece}, *result = scratch + 3 * j->piece;
  int64_t held[2] = {-1, -1}, n = (end - begin) * j->channels;
  for (int64_t r = top; r < bottom; r++) {
    const tap *t = &j->taps[0][r];
    for (int32_t i = t->low; i <= (t->weight == 0 ? t->low : t->high); i++) {
      if (held[i & 1] == i) continue;
      widen_pixels(j, image * j->from[0] + i, begin, end, scratch, rows[i & 1]);
      held[i & 1] = i;
    }
    const float *from = rows[t->low & 1];
    if (t->weight != 0) {
      cml_kernels_get()->blend(t->weight, from, rows[t->high & 1], result, (size_t)n);
      from = result;
    }
    const int64_t at = ((image * j->to[0] + r) * j->to[1] + begin) * j->pixel;
    if (j->pixel == j->channels) {
      cml_store_f32(j->out->data, j->out->dtype, at, from, (size_t)n);
      continue;
    }
    const size_t size = cml_dtype_bits(j->out->dtype) / 8, pixel = (size_t)j->channels * size;
    const bool as_it_is = j->out->dtype == CML_F32;
    if (!as_it_is) cml_store_f32(scratch, j->out->dtype, 0, from, (size_t)n);
    cml_copy_runs((char *)j->out->data + (size_t)at * size, (size_t)j->pixel * size, as_it_is ? from : scratch, pixel, pixel, (size_t)(end - begin));
  }
}

static void resize_pixels(void *context, size_t thread, size_t begin, size_t end) {
  const last_job *j = context;
  const tap *taps = j->taps[1];
  for (size_t t = begin; t < end; t++) {
    int64_t top = (int64_t)t % j->bands * BAND, bottom = top + BAND < j->to[0] ? top + BAND : j->to[0];
    for (int64_t at = 0, next; at < j->to[1]; at = next) {
      for (next = at + 1; next < j->to[1] && (next - at + 1) * j->channels <= PIECE && (taps[next].high - taps[at].low + 1) * j->channels <= PIECE; next++) {}
      band_pixels(j, (int64_t)t / j->bands, top, bottom, at, next, j->scratch + thread * 4 * j->piece);
    }
  }
}

static void nearest_pixels(void *context, size_t thread, size_t begin, size_t end) {
  (void)thread;
  const last_job *j = context;
  const size_t size = cml_dtype_bits(j->x->dtype) / 8, bytes = (size_t)j->channels * size, in = (size_t)j->x_pixel * size, pixel = (size_t)j->pixel * size, row = (size_t)j->to[1] * pixel;
  for (size_t t = begin; t < end; t++) {
    int64_t image = (int64_t)t / j->bands, top = (int64_t)t % j->bands * BAND, bottom = top + BAND < j->to[0] ? top + BAND : j->to[0];
    for (int64_t r = top; r < bottom; r++) {
      char *to = (char *)j->out->data + (size_t)(image * j->to[0] + r) * row;
      const char *from = (const char *)j->x->data + (size_t)((image * j->from[0] + j->taps[0][r].low) * j->from[1]) * in;
      if (r > top && j->taps[0][r].low == j->taps[0][r - 1].low && pixel == bytes) memcpy(to, to - row, row);
      else
        for (int64_t i = 0; i < j->to[1]; i++) memcpy(to + (size_t)i * pixel, from + (size_t)j->taps[1][i].low * in, bytes);
    }
  }
}

static bool is_last(const cml_call *c) { return c->op->flags & CML_OP_INTERNAL; }

static cml_status run_resize_last(cml_call *c, cml_grid grid, enum rule rule, const float *scales) {
  last_job j = {.x = cml_arg(c, 0), .out = c->outs[0], .channels = c->outs[0]->dims[3]};
  tap *taps = c->scratch;
  if (!cml_tensor_count(j.out)) return CML_OK;
  for (int k = 0; k < 2; k++) {
    j.from[k] = j.x->dims[1 + k];
    j.to[k] = j.out->dims[1 + k];
    j.taps[k] = taps;
    fill_taps(taps, grid, rule, j.from[k], j.to[k], scales ? scales[k] : 1);
    taps += j.to[k];
  }
  j.scratch = (float *)(void *)taps;
  j.piece = piece_floats(j.channels);
  j.x_pixel = cml_row_step(j.x), j.pixel = cml_row_step(j.out);
  j.bands = (j.to[0] + BAND - 1) / BAND;
  cml_parallel_with_thread(c->pool, (size_t)(j.out->dims[0] * j.bands), (size_t)(16384 / (BAND * j.to[1] * j.channels) + 1),
                           rule == LINEAR ? resize_pixels : nearest_pixels, &j);
  return CML_OK;
}

/* Every element `times` times, for the few that are usual. */
#define NEAREST(type)                                                                       \
  static void nearest_##type(const type *from, const tap *taps, int64_t width, int64_t times, type *to) { \
    if (times == 2)                                                                         \
      for (int64_t i = 0; i < width / 2; i++) to[2 * i] = to[2 * i + 1] = from[i];          \
    else if (times == 4)                                                                    \
      for (int64_t i = 0; i < width / 4; i++) to[4 * i] = to[4 * i + 1] = to[4 * i + 2] = to[4 * i + 3] = from[i]; \
    else                                                                                    \
      for (int64_t i = 0; i < width; i++) to[i] = from[taps[i].low];                        \
  }
NEAREST(uint16_t)
NEAREST(uint32_t)

/* How many times each column is repeated where that is the same for all; else 0. */
static int64_t repeats(const resize_job *j) {
  const int64_t from = j->from[j->axes - 1], to = j->to[j->axes - 1], times = from ? to / from : 0;
  if (times * from != to) return 0;
  for (int64_t i = 0; i < to; i++)
    if (j->taps[j->axes - 1][i].low != i / times) return 0;
  return times;
}

static void nearest_row(const resize_job *j, int64_t plane, const int64_t *index, int64_t times, int64_t out) {
  int64_t at = plane, width = j->to[j->axes - 1];
  const tap *taps = j->taps[j->axes - 1];
  for (int32_t k = 0; k < j->axes - 1; k++) at = at * j->from[k] + j->taps[k][index[k]].low;
  at *= j->from[j->axes - 1];
  if (cml_dtype_bits(j->x->dtype) == 16) nearest_uint16_t((const uint16_t *)j->x->data + at, taps, width, times, (uint16_t *)j->out->data + out);
  else nearest_uint32_t((const uint32_t *)j->x->data + at, taps, width, times, (uint32_t *)j->out->data + out);
}

/* The plane of output row t, and its place along the outer axes. */
static int64_t place_row(const resize_job *j, int64_t t, int64_t *index) {
  for (int32_t k = j->axes - 2; k >= 0; k--) {
    index[k] = t % j->to[k];
    t /= j->to[k];
  }
  return t;
}

static void nearest_rows(void *context, size_t begin, size_t end) {
  const resize_job *j = context;
  const int64_t times = repeats(j), width = j->to[j->axes - 1];
  const size_t bytes = (size_t)width * cml_dtype_bits(j->x->dtype) / 8;
  for (size_t t = begin; t < end; t++) {
    int64_t index[CML_MAX_RANK], plane = place_row(j, (int64_t)t, index);
    char *to = (char *)j->out->data + t * bytes;
    const int32_t last = j->axes - 2;
    if (t > begin && last >= 0 && index[last] && j->taps[last][index[last]].low == j->taps[last][index[last] - 1].low) memcpy(to, to - bytes, bytes);
    else nearest_row(j, plane, index, times, (int64_t)t * width);
  }
}

static void linear_rows(void *context, size_t begin, size_t end) {
  const resize_job *j = context;
  const tap *taps = j->taps[j->axes - 1];
  const int64_t width = j->to[j->axes - 1];
  band_places places;
  for (int64_t at = 0, next; at < width; at = next) {
    for (next = at; next < width && next - at < CML_CHUNK && taps[next].high - taps[at].low < CML_CHUNK; next++) {}
    place_columns(taps, at, next, &places);
    for (size_t t = begin; t < end; t++) {
      int64_t index[CML_MAX_RANK], plane = place_row(j, (int64_t)t, index);
      narrow_row(j, plane, index, &places, (int64_t)t * width + at);
    }
  }
}

/* The last `axes` dims of x become those of out; scales: for each, where the rule is BY_SCALE. */
static cml_status run_resize_job(cml_call *c, int32_t axes, cml_grid grid, enum rule rule, const float *scales) {
  if (is_last(c)) return run_resize_last(c, grid, rule, scales);
  cml_tensor x = *cml_arg(c, 0), out = *c->outs[0];
  for (; axes > 1 && x.dims[x.rank - 1] == 1 && out.dims[out.rank - 1] == 1; axes--) x.rank--, out.rank--; /* images of one column are rows */
  resize_job j = {.x = &x, .out = &out, .axes = axes, .nearest = rule != LINEAR};
  int64_t rows = 1;
  tap *taps = c->scratch;
  uint64_t bytes;
  if (!cml_tensor_count(j.out)) return CML_OK;
  if (!axes) { /* nothing is resized */
    if (cml_tensor_bytes(j.x, &bytes)) memcpy(j.out->data, j.x->data, bytes);
    return CML_OK;
  }
  for (int32_t i = 0; i < j.x->rank; i++) {
    int32_t k = i - (j.x->rank - axes);
    if (i < j.x->rank - 1) rows *= j.out->dims[i];
    if (k < 0) continue;
    j.from[k] = j.x->dims[i];
    j.to[k] = j.out->dims[i];
    j.taps[k] = taps;
    fill_taps(taps, grid, rule, j.from[k], j.to[k], scales ? scales[k] : 1);
    taps += j.to[k];
  }
  if (by_bands(&j)) {
    int64_t bands = (j.to[0] + BAND - 1) / BAND;
    cml_parallel(c->pool, (size_t)(rows / j.to[0] * bands), (size_t)(16384 / (BAND * j.to[1]) + 1), resize_bands, &j);
    return CML_OK;
  }
  cml_parallel(c->pool, (size_t)rows, (size_t)(8192 / j.to[axes - 1] + 1), j.nearest ? nearest_rows : linear_rows, &j);
  return CML_OK;
}

/* Output dims are set; asks for room for the tables and refuses what cannot be. */
static cml_status finish_infer(cml_call *c, int32_t axes, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *out = c->outs[0];
  CML_TRY(cml_check_output(c, 0, err));
  int32_t after = is_last(c) ? 1 : 0; /* dims behind the resized ones */
  c->scratch_size = 0;
  for (int32_t i = out->rank < 0 ? 0 : out->rank - axes - after; i < out->rank - after; i++) {
    if (out->dims[i] < 0) continue;
    if (x->dims[i] == 0 && out->dims[i] > 0) return cml_call_fail(c, err, "dim %d of x is empty", (int)i);
    if (out->dims[i] > INT32_MAX || x->dims[i] > INT32_MAX) return cml_call_fail(c, err, "dim %d is too large", (int)i);
    c->scratch_size += (uint64_t)out->dims[i] * sizeof(tap);
  }
  c->spaces_rows = after;
  c->spaced_args = after ? 1 : 0;
  if (after && out->rank == 4 && out->dims[3] >= 0) c->scratch_size += cml_pool_threads(c->pool) * 4 * piece_floats(out->dims[3]) * sizeof(float);
  return CML_OK;
}

static cml_status check_rank(const cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  if (is_last(c) && x->rank >= 0 && x->rank != 4) return cml_call_fail(c, err, "x must have rank 4, found %d", (int)x->rank);
  return x->rank >= 0 && x->rank < 3 ? cml_call_fail(c, err, "x must have rank 3 or more, found %d", (int)x->rank) : CML_OK;
}

/* The axis of the height; that of the width follows. */
static int32_t height_axis(const cml_call *c) { return cml_arg(c, 0)->rank - (is_last(c) ? 3 : 2); }

/* ---- by target size ---- */

#define FLOAT_X {"x", CML_M_FLOAT, 0, 0}
#define SIZES(flags) \
  {"target_size_height", CML_MASK(I32), (flags) | CML_CONST, 0}, {"target_size_width", CML_MASK(I32), (flags) | CML_CONST, 0}
static const cml_param resize_nearest_params[] = {FLOAT_X, SIZES(0)};
static const cml_param resize_bilinear_params[] = {FLOAT_X, SIZES(CML_OPTIONAL), {"sampling_mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}};

static cml_status infer_by_size(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, ~1u, err));
  CML_TRY(check_rank(c, err));
  int64_t height = cml_arg_int(c, 1, 1), width = cml_arg_int(c, 2, 1);
  if (height < 1 || width < 1) return cml_call_fail(c, err, "a target size of %lld x %lld is not possible", (long long)height, (long long)width);
  if (c->op->param_count > 3 && cml_grid_by_name(cml_arg_text(c, 3, "DEFAULT")) < 0)
    return cml_call_fail(c, err, "sampling_mode '%s' is not known", cml_arg_text(c, 3, ""));
  cml_out_like(c, 0, x);
  if (x->rank < 0) return CML_OK;
  c->outs[0]->dims[height_axis(c)] = height;
  c->outs[0]->dims[height_axis(c) + 1] = width;
  return finish_infer(c, 2, err);
}

static cml_status run_resize_bilinear(cml_call *c, cml_error *err) {
  (void)err;
  return run_resize_job(c, 2, (cml_grid)cml_grid_by_name(cml_arg_text(c, 3, "DEFAULT")), LINEAR, NULL);
}

/* The pixel whose area holds the output pixel's centre. */
static cml_status run_resize_nearest(cml_call *c, cml_error *err) {
  (void)err;
  return run_resize_job(c, 2, CML_GRID_UNALIGN_CORNERS, NEAREST, NULL);
}

/* ---- by scale ---- */

#define SCALES                                                                                     \
  {"scale_factor_height", CML_MASK(F32) | CML_MASK(I32), CML_OPTIONAL | CML_CONST, 1},             \
  {"scale_factor_width", CML_MASK(F32) | CML_MASK(I32), CML_OPTIONAL | CML_CONST, 1}
#define ALIGN {"align_corners", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}
static const cml_param upsample_nearest_params[] = {FLOAT_X, SCALES};
static const cml_param upsample_bilinear_params_15[] = {FLOAT_X, SCALES, ALIGN};
static const cml_param upsample_bilinear_params_16[] = {FLOAT_X, SCALES, ALIGN, {"half_pixel_centers", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}};

/* floor(dim * scale). The product was rounded to float32 or not, by whoever wrote the model; what it declares decides. */
static int64_t scaled(const cml_call *c, int64_t dim, double scale, int32_t axis) {
  if (dim < 0) return CML_DIM_UNKNOWN;
  double narrow = floor((double)((float)dim * (float)scale)), wide = floor((double)dim * scale);
  const cml_tensor *d = c->declared;
  double chosen = d && d->rank > axis && (double)d->dims[axis] == wide ? wide : narrow;
  return chosen < (double)INT32_MAX ? (int64_t)chosen : INT32_MAX;
}

static cml_status infer_by_scale(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, ~1u, err));
  CML_TRY(check_rank(c, err));
  double height = cml_arg_float(c, 1, 1), width = cml_arg_float(c, 2, 1);
  if (!(height > 0 && width > 0)) return cml_call_fail(c, err, "scales of %g and %g are not possible", height, width);
  cml_out_like(c, 0, x);
  if (x->rank < 0) return CML_OK;
  int32_t axis = height_axis(c);
  c->outs[0]->dims[axis] = scaled(c, x->dims[axis], height, axis);
  c->outs[0]->dims[axis + 1] = scaled(c, x->dims[axis + 1], width, axis + 1);
  return finish_infer(c, 2, err);
}

static cml_status run_upsample_nearest(cml_call *c, cml_error *err) {
  (void)err;
  const float scales[2] = {(float)cml_arg_float(c, 1, 1), (float)cml_arg_float(c, 2, 1)};
  return run_resize_job(c, 2, CML_GRID_DEFAULT, BY_SCALE, scales);
}

static cml_status run_upsample_bilinear(cml_call *c, cml_error *err) {
  (void)err;
  bool align = cml_arg_bool(c, 3, true), half = c->op->param_count > 4 ? cml_arg_bool(c, 4, !align) : !align;
  return run_resize_job(c, 2, align ? CML_GRID_STRICT_ALIGN_CORNERS : half ? CML_GRID_UNALIGN_CORNERS : CML_GRID_DEFAULT, LINEAR, NULL);
}

/* ---- by a shape ---- */

static const cml_param resize_params[] = {
    {"x", CML_M_FLOAT | CML_MASK(I32), 0, 0},
    {"shape", CML_MASK(I32) | CML_MASK(I16) | CML_MASK(U16) | CML_MASK(U32), CML_VECTOR, 0},
    {"resized_dims", CML_MASK(U32), CML_CONST, 0},
    {"interpolation_mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0},
    {"sampling_mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0},
};
static const char *const interpolations[] = {"LINEAR", "NEAREST_NEIGHBOR", NULL};

static cml_status infer_resize(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *shape = cml_arg(c, 1);
  CML_TRY(cml_check_scalars(c, ~3u, err));
  int64_t axes = cml_arg_int(c, 2, 0), sizes[CML_MAX_RANK];
  if (cml_word_index(cml_arg_text(c, 3, "LINEAR"), interpolations) < 0)
    return cml_call_fail(c, err, "interpolation_mode '%s' is not known", cml_arg_text(c, 3, ""));
  if (cml_grid_by_name(cml_arg_text(c, 4, "DEFAULT")) < 0)
    return cml_call_fail(c, err, "sampling_mode '%s' is not known", cml_arg_text(c, 4, ""));
  if (shape->rank >= 0 && shape->rank != 1) return cml_call_fail(c, err, "shape must have rank 1, found %d", (int)shape->rank);
  int64_t count = shape->rank == 1 ? shape->dims[0] : CML_DIM_UNKNOWN;
  if (count >= 0 && axes > count) return cml_call_fail(c, err, "resized_dims is %lld, and shape has %lld values", (long long)axes, (long long)count);
  if (count > CML_MAX_RANK || axes > CML_MAX_RANK) return cml_call_fail(c, err, "shape has too many values");
  cml_out_like(c, 0, x);
  if (x->rank < 0) return CML_OK;
  if (count > x->rank || axes > x->rank) return cml_call_fail(c, err, "shape has %lld values for rank %d", (long long)count, (int)x->rank);
  bool known = shape->data && count >= 0;
  if (known) cml_arg_ints(c, 1, sizes, CML_MAX_RANK);
  for (int64_t k = 0; k < axes; k++) {
    int64_t size = known ? sizes[count - axes + k] : CML_DIM_UNKNOWN;
    if (known && size < 0) return cml_call_fail(c, err, "a size of %lld is not possible", (long long)size);
    if (size) c->outs[0]->dims[x->rank - axes + k] = size; /* 0: as x has it */
  }
  return finish_infer(c, (int32_t)axes, err);
}

/* NEAREST_NEIGHBOR with DEFAULT takes the pixel that holds the centre, as resize_nearest_neighbor does. */
static cml_status run_resize(cml_call *c, cml_error *err) {
  (void)err;
  enum rule rule = cml_word_index(cml_arg_text(c, 3, "LINEAR"), interpolations) ? NEAREST : LINEAR;
  cml_grid grid = (cml_grid)cml_grid_by_name(cml_arg_text(c, 4, "DEFAULT"));
  if (rule == NEAREST && grid == CML_GRID_DEFAULT) grid = CML_GRID_UNALIGN_CORNERS;
  return run_resize_job(c, (int32_t)cml_arg_int(c, 2, 0), grid, rule, NULL);
}

/* ---- crop ---- */

static const cml_param crop_params[] = {FLOAT_X, {"crop_height", CML_MASK(I32), CML_CONST | CML_VECTOR, 0}, {"crop_width", CML_MASK(I32), CML_CONST | CML_VECTOR, 0}};

static cml_status crop_amounts(const cml_call *c, unsigned param, int64_t amounts[2], cml_error *err) {
  size_t n = cml_arg_known(c, param) ? cml_arg_ints(c, param, amounts, 2) : 0;
  if (n != 2) return cml_call_fail(c, err, "%s must have 2 values, found %zu", c->op->params[param].name, n);
  if (amounts[0] < 0 || amounts[1] < 0) return cml_call_fail(c, err, "%s is negative", c->op->params[param].name);
  return CML_OK;
}

static cml_status infer_crop(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t amounts[2];
  CML_TRY(check_rank(c, err));
  cml_out_like(c, 0, x);
  for (unsigned p = 1; p < 3; p++) {
    CML_TRY(crop_amounts(c, p, amounts, err));
    if (x->rank < 0) continue;
    int64_t *dim = &c->outs[0]->dims[x->rank - 3 + (int32_t)p];
    if (*dim >= 0 && amounts[0] + amounts[1] > *dim)
      return cml_call_fail(c, err, "%s takes %lld from %lld", c->op->params[p].name, (long long)(amounts[0] + amounts[1]), (long long)*dim);
    if (*dim >= 0) *dim -= amounts[0] + amounts[1];
  }
  return CML_OK;
}

static cml_status run_crop(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  cml_tensor *out = c->outs[0];
  int64_t vertical[2], horizontal[2];
  CML_TRY(crop_amounts(c, 1, vertical, err));
  CML_TRY(crop_amounts(c, 2, horizontal, err));
  if (!cml_tensor_count(out)) return CML_OK;
  int64_t height = x->dims[x->rank - 2], width = x->dims[x->rank - 1], rows = out->dims[x->rank - 2], columns = out->dims[x->rank - 1];
  int64_t planes = cml_tensor_count(out) / (rows * columns);
  size_t size = cml_dtype_bits(x->dtype) / 8;
  for (int64_t i = 0; i < planes * rows; i++) {
    int64_t from = (i / rows * height + vertical[0] + i % rows) * width + horizontal[0];
    memcpy((char *)out->data + (size_t)(i * columns) * size, (const char *)x->data + (size_t)from * size, (size_t)columns * size);
  }
  return CML_OK;
}

/* ---- the table ---- */

#define ROW(text, since_, until_, parameters, infer_, run_)                                                    \
  {.name = text, .since = since_, .until = until_, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(parameters), \
   .infer = infer_, .run = run_},

/* With the channels last; graph passes make them. */
#define LAST(text, parameters, infer_, run_)                                                                      \
  {.name = text, .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(parameters), \
   .infer = infer_, .run = run_},

static const cml_op rows[] = {
    ROW("resize_nearest_neighbor", CML_IOS15, 0, resize_nearest_params, infer_by_size, run_resize_nearest)
    ROW("resize_bilinear", CML_IOS15, 0, resize_bilinear_params, infer_by_size, run_resize_bilinear)
    ROW("upsample_nearest_neighbor", CML_IOS15, 0, upsample_nearest_params, infer_by_scale, run_upsample_nearest)
    ROW("upsample_bilinear", CML_IOS15, CML_IOS15, upsample_bilinear_params_15, infer_by_scale, run_upsample_bilinear)
    ROW("upsample_bilinear", CML_IOS16, 0, upsample_bilinear_params_16, infer_by_scale, run_upsample_bilinear)
    ROW("resize", CML_IOS17, 0, resize_params, infer_resize, run_resize)
    ROW("crop", CML_IOS15, 0, crop_params, infer_crop, run_crop)
    LAST("cml_resize_nearest_neighbor_last", resize_nearest_params, infer_by_size, run_resize_nearest)
    LAST("cml_resize_bilinear_last", resize_bilinear_params, infer_by_size, run_resize_bilinear)
    LAST("cml_upsample_nearest_neighbor_last", upsample_nearest_params, infer_by_scale, run_upsample_nearest)
    LAST("cml_upsample_bilinear_last", upsample_bilinear_params_16, infer_by_scale, run_upsample_bilinear)
};

const cml_op_family cml_ops_image = {"image", rows, sizeof rows / sizeof *rows};
