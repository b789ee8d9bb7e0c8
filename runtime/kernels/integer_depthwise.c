/* Depthwise convolutions of bytes: with signed bytes for weights, or floats. A row of outputs is made at a time, in chunks of channels whose
 * bytes for one row stay in the first-level cache.
 *
 * Signed bytes: the input rows that an output row needs are woven, four at a time, so that the four bytes of one column and channel lie side by
 * side, with the byte that stands for zero around the image. A tap column of four rows is then one step of a product in which each channel has
 * its own four bytes, and the end of a tile is that of all products. Weights lie [panel of channels][row / 4][tap of the row][channel][4].
 *
 * Floats: the depthwise kernel takes bytes where they lie; its sums are finished a row at a time. */
#include "integer.h"
#include "sizes.h"

#include <math.h>
#include <string.h>

enum { CHUNK_BYTES = 24 << 10 /* of woven rows, or sums */, BAND_BYTES = 256 << 10 /* of input that a unit reads */, MOST_TAPS = 1 << 16, SERIAL_BELOW = 1 << 13 };

typedef struct layout {
  size_t fours, stretches; /* of kernel rows; tap columns of those */
  size_t columns;          /* of the input that a row of outputs needs, those outside the image too */
  size_t chunk;            /* channels */
  size_t offsets, slot;    /* bytes of a thread's scratch: before the rows, in all */
} layout;

bool cml_integer_depthwise_fits(const cml_conv *v) {
  return cml_conv_is_depthwise(v) && v->kernel[0] == 1 && v->in[0] == 1 && v->kernel[1] <= CML_DEPTHWISE_ROWS && v->kernel[2] < MOST_TAPS / CML_DEPTHWISE_ROWS;
}

static void lay_out(const cml_kernels *k, const cml_conv *v, bool floats, layout *l) {
  *l = (layout){.fours = up((size_t)v->kernel[1], 4) / 4, .columns = (size_t)((v->out[2] - 1) * v->stride[2] + (v->kernel[2] - 1) * v->dilation[2] + 1)};
  l->stretches = l->fours * (size_t)v->kernel[2];
  size_t bytes = floats ? (size_t)v->out[2] * 4 : l->columns * l->fours * 4, most = CHUNK_BYTES / bytes / k->integer_columns, panels = up(v->channels, k->integer_columns) / k->integer_columns;
  if (most < 1) most = 1;
  size_t chunks = (panels + most - 1) / most;
  l->chunk = least((panels + chunks - 1) / chunks * k->integer_columns, v->channels);
  l->offsets = up(l->stretches * sizeof(size_t), 64);
  l->slot = l->offsets + up(bytes * l->chunk + k->integer_columns * 4, 64);
}

size_t cml_integer_depthwise_scratch(const cml_kernels *k, const cml_conv *v, bool floats) {
  layout l;
  if (v->out[1] <= 0 || v->out[2] <= 0) return 0;
  lay_out(k, v, floats, &l);
  return l.slot;
}

size_t cml_integer_depthwise_packed_bytes(const cml_kernels *k, const cml_conv *v) {
  return up(v->channels, k->integer_columns) * up((size_t)v->kernel[1], 4) * (size_t)v->kernel[2];
}

void cml_integer_depthwise_pack(const cml_kernels *k, const cml_conv *v, const void *w, bool is_signed, const int32_t *zero, void *to, int32_t *sums) {
  size_t height = (size_t)v->kernel[1], width = (size_t)v->kernel[2], columns = k->integer_columns, panel = up(height, 4) * width * columns;
  int8_t *packed = to;
  memset(to, 0, cml_integer_depthwise_packed_bytes(k, v));
  for (size_t c = 0; c < v->channels; c++) {
    const uint8_t *from = (const uint8_t *)w + c * height * width;
    sums[c] = 0;
    for (size_t t = 0; t < height * width; t++) {
      int32_t value = (is_signed ? (int8_t)from[t] : from[t]) - (zero ? zero[c] : 0);
      size_t step = t / width / 4 * width + t % width;
      packed[c / columns * panel + (step * columns + c % columns) * 4 + t / width % 4] = (int8_t)value;
      sums[c] += value;
    }
  }
}

/* ---- running ---- */

typedef struct job {
  const cml_integer_call *c;
  layout l;
  bool floats;
  int64_t rows; /* of a unit */
  size_t units; /* of an image */
} job;

/* The rows of the image that tap rows [first, first + count) of an output row take; NULL: outside. */
static void find_rows(const job *j, size_t image, int64_t row, int64_t first, int64_t count, size_t channel, const uint8_t **rows) {
  const cml_conv *v = j->c->v;
  for (int64_t r = 0; r < count; r++) {
    int64_t h = row * v->stride[1] + v->offset[1] + (first + r) * v->dilation[1];
    bool outside = first + r >= v->kernel[1] || h < 0 || h >= v->in[1];
    rows[r] = outside ? NULL : j->c->x + ((image * (size_t)v->in[1] + (size_t)h) * (size_t)v->in[2]) * v->channels + channel;
  }
}

/* Channels [c, c + n) of one output row's input. */
static void weave_row(const job *j, size_t image, int64_t row, size_t c, size_t n, uint8_t *to) {
  const cml_conv *v = j->c->v;
  size_t from = v->offset[2] > 0 ? (size_t)v->offset[2] : 0, before = v->offset[2] < 0 ? least((size_t)-v->offset[2], j->l.columns) : 0, pixel = n * 4;
  size_t inside = (size_t)v->in[2] > from ? least((size_t)v->in[2] - from, j->l.columns - before) : 0;
  for (size_t i = 0; i < j->l.fours; i++, to += j->l.columns * pixel) {
    const uint8_t *rows[4];
    find_rows(j, image, row, (int64_t)i * 4, 4, c + from * v->channels, rows);
    memset(to, j->c->x_zero, before * pixel);
    j->c->k->weave_bytes(rows, j->c->x_zero, inside, n, v->channels, to + before * pixel, pixel);
    memset(to + (before + inside) * pixel, j->c->x_zero, (j->l.columns - before - inside) * pixel);
  }
}

/* What follows the sums, for columns of the output from place `at` on, which belongs to channel c. */
static cml_integer_tile place(const job *j, size_t c, size_t at) {
  cml_integer_tile t = j->c->after;
  t.rows = (size_t)j->c->v->out[2];
  t.start += c;
  t.scale += c;
  t.bias += c;
  t.c = (char *)t.c + at * cml_integer_to_bytes(t.to);
  t.c_stride = t.residual_stride = j->c->v->channels;
  if (t.residual) t.residual += at;
  return t;
}

static void products(const job *j, size_t c, size_t n, size_t at, const size_t *offsets, const uint8_t *woven) {
  const layout *l = &j->l;
  size_t columns = j->c->k->integer_columns;
  for (size_t i = 0; i < n; i += columns) {
    cml_integer_tile t = place(j, c + i, at + i);
    t.columns = least(n - i, columns);
    t.stretches = l->stretches;
    t.offsets = offsets;
    t.a = woven + i * 4;
    t.a_stride = n * 4 * (size_t)j->c->v->stride[2];
    t.b = (const int8_t *)j->c->packed + (c + i) * l->stretches * 4;
    j->c->k->integer_depthwise(&t);
  }
}

static void sum_floats(const job *j, size_t image, int64_t row, size_t c, size_t n, float *sums) {
  const cml_conv *v = j->c->v;
  const uint8_t *rows[CML_DEPTHWISE_ROWS];
  find_rows(j, image, row, 0, v->kernel[1], c, rows);
  j->c->k->depthwise(&(cml_depthwise){.outputs = (size_t)v->out[2], .channels = n, .kh = (size_t)v->kernel[1], .kw = (size_t)v->kernel[2], .rows = (const void *const *)rows,
                                      .x_bytes = true, .x_zero = j->c->x_zero, .stride = v->stride[2], .dilation = v->dilation[2], .first = v->offset[2],
                                      .columns = v->in[2], .pixel = v->channels, .w = (const float *)j->c->packed + c, .w_stride = v->channels, .low = -INFINITY,
                                      .high = INFINITY, .y = sums, .y_pixel = n});
}

/* The end of the tile for sums of floats takes few rows and columns where a function follows. */
static void finish_floats(const job *j, size_t c, size_t n, size_t at, const float *sums) {
  const cml_kernels *k = j->c->k;
  size_t rows = j->c->after.unary_rows ? k->integer_rows : (size_t)j->c->v->out[2], columns = j->c->after.unary_rows ? k->integer_columns : n;
  for (size_t i = 0; i < n; i += columns)
    for (size_t r = 0, all = (size_t)j->c->v->out[2]; r < all; r += rows) {
      cml_integer_tile t = place(j, c + i, at + i + r * j->c->v->channels);
      t.rows = least(all - r, rows);
      t.columns = least(n - i, columns);
      k->integer_finish(&t, sums + r * n + i, n);
    }
}

static void run_row(const job *j, size_t image, int64_t row, char *scratch) {
  const cml_conv *v = j->c->v;
  size_t *offsets = (size_t *)(void *)scratch, at = (image * (size_t)v->out[1] + (size_t)row) * (size_t)v->out[2] * v->channels;
  char *room = scratch + j->l.offsets;
  for (size_t c = 0, n; c < v->channels; c += n) {
    n = least(v->channels - c, j->l.chunk);
    if (j->floats) {
      sum_floats(j, image, row, c, n, (float *)(void *)room);
      finish_floats(j, c, n, at + c, (const float *)(const void *)room);
      continue;
    }
    for (size_t s = 0; s < j->l.stretches; s++)
      offsets[s] = (s / (size_t)v->kernel[2] * j->l.columns + s % (size_t)v->kernel[2] * (size_t)v->dilation[2]) * n * 4;
    weave_row(j, image, row, c, n, (uint8_t *)room);
    products(j, c, n, at + c, offsets, (const uint8_t *)room);
  }
  if (j->c->table) { /* a row is whole now */
    uint8_t *y = (uint8_t *)j->c->after.c + at;
    j->c->k->map_bytes(y, (size_t)v->out[2] * v->channels, j->c->table, y);
  }
}

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) {
    int64_t first = (int64_t)(i % j->units) * j->rows, last = first + j->rows < j->c->v->out[1] ? first + j->rows : j->c->v->out[1];
    for (int64_t row = first; row < last; row++) run_row(j, i / j->units, row, (char *)j->c->scratch + thread * j->l.slot);
  }
}

void cml_integer_depthwise_run(const cml_integer_call *call, bool floats) {
  const cml_conv *v = call->v;
  job j = {.c = call, .floats = floats};
  if (!v->batch || !v->outputs || v->out[1] <= 0 || v->out[2] <= 0) return;
  lay_out(call->k, v, floats, &j.l);
  size_t threads = cml_pool_threads(call->pool), row = (size_t)v->in[2] * v->channels * (size_t)v->stride[1];
  bool serial = call->slots < threads || v->batch * (size_t)(v->out[1] * v->out[2]) * v->channels < SERIAL_BELOW;
  int64_t wanted = serial || threads == 1 ? 1 : (int64_t)((6 * threads + v->batch - 1) / v->batch), most = (v->out[1] + wanted - 1) / wanted;
  j.rows = 1 + (int64_t)(BAND_BYTES / (row + 1));
  if (j.rows > most) j.rows = most;
  j.units = (size_t)((v->out[1] + j.rows - 1) / j.rows);
  cml_parallel_with_thread(serial ? NULL : call->pool, v->batch * j.units, 1, run_units, &j);
}
