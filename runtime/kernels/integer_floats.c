/* Convolutions of bytes whose weights are floats, and those whose sums are too short for integers to pay: depthwise ones and groups
 * of few channels. A block of output rows, or of pixels where the kernel is one pixel, is computed in floats within the nearer caches by the
 * ordinary convolutions: the bytes that it needs, less their zero, are whole numbers, so that with whole weights the sums are exact here as
 * well (up to 2^24). */
#include "integer.h"
#include "sizes.h"

#include <math.h>

enum { BLOCK = 12 << 10 /* floats of a block's input and sums, about */, TOGETHER = 32 /* pixels that are finished at a time */, PIXELS = 112 /* of a pointwise block */ };

typedef struct layout {
  int64_t rows;         /* output rows of a block */
  size_t staged, inner; /* bytes of the input in floats, of the convolution's own scratch */
  size_t sums;
} layout;

/* Whether pixels are all that there is, and panels of weights lie one after the other. */
static bool pointwise(const cml_kernels *k, const cml_conv *v) {
  bool plain = v->groups == 1 && v->channels <= BLOCK / PIXELS && !cml_conv_slim(k, v);
  for (int i = 0; i < 3; i++) plain = plain && v->kernel[i] == 1 && v->stride[i] == 1 && v->offset[i] == 0 && v->in[i] == v->out[i];
  return plain;
}

static int64_t in_rows(const cml_conv *v, int64_t rows) { return (rows - 1) * v->stride[1] + (v->kernel[1] - 1) * v->dilation[1] + 1; }

/* The convolution that makes output rows [row, row + rows) of rows [*first, ...) of the input. */
static cml_conv block_conv(const cml_conv *v, int64_t row, int64_t rows, int64_t *first) {
  cml_conv b = *v;
  int64_t from = row * v->stride[1] + v->offset[1], to = from + in_rows(v, rows);
  *first = from < 0 ? 0 : from > v->in[1] ? v->in[1] : from;
  if (to > v->in[1]) to = v->in[1];
  b.batch = 1;
  b.in[1] = to > *first ? to - *first : 0;
  b.offset[1] = from - *first;
  b.out[1] = rows;
  b.in_last = b.out_last = true;
  b.in_half = b.out_half = b.winograd = false;
  cml_conv_place_all(&b);
  return b;
}

static void lay_out(const cml_kernels *k, const cml_conv *v, layout *l) {
  size_t in = (size_t)v->in[2] * v->channels, out = (size_t)v->out[2] * v->outputs;
  *l = (layout){.rows = 1};
  if (pointwise(k, v)) {
    l->rows = PIXELS;
    l->staged = up(PIXELS * v->channels * 4 + 64, 64);
    l->sums = up(PIXELS * k->tile_columns * 4, 64);
    return;
  }
  while (l->rows < v->out[1] && (size_t)in_rows(v, l->rows + 1) * in + (size_t)(l->rows + 1) * out <= BLOCK) l->rows++;
  l->staged = up((size_t)in_rows(v, l->rows) * in * 4 + 64, 64);
  l->sums = up((size_t)l->rows * out * 4 + 64, 64);
  for (int64_t rows = 1, first; rows <= l->rows; rows++) {
    cml_conv b = block_conv(v, 0, rows, &first);
    size_t need = up(cml_conv_scratch(k, &b), 64);
    if (need > l->inner) l->inner = need;
  }
}

size_t cml_integer_floats_scratch(const cml_kernels *k, const cml_conv *v) {
  layout l;
  if (v->out[1] <= 0 || v->out[2] <= 0) return 0;
  lay_out(k, v, &l);
  return l.staged + l.sums + l.inner;
}

typedef struct job {
  const cml_integer_call *c;
  layout l;
  size_t slot, blocks;
  bool pixels; /* rows are single pixels, and sums are of one panel */
} job;

/* The sums of `pixels` neighbouring pixels from `first` on, `stride` apart: outputs [from, from + count) of each. */
static void finish(const job *j, const float *sums, size_t stride, size_t first, size_t pixels, size_t from, size_t count) {
  const cml_kernels *k = j->c->k;
  const cml_integer_tile *whole = &j->c->after;
  size_t outputs = j->c->v->outputs, size = cml_integer_to_bytes(whole->to);
  size_t rows = whole->unary_rows ? k->integer_rows : TOGETHER, columns = whole->unary_rows ? k->integer_columns : count;
  for (size_t p = 0; p < pixels; p += rows)
    for (size_t o = 0; o < count; o += columns) {
      cml_integer_tile t = *whole;
      size_t at = (first + p) * outputs + from + o;
      t.rows = least(pixels - p, rows);
      t.columns = least(count - o, columns);
      t.scale += from + o;
      t.bias += from + o;
      t.c = (char *)t.c + at * size;
      t.c_stride = t.residual_stride = outputs;
      if (t.residual) t.residual += at;
      k->integer_finish(&t, sums + p * stride + o, stride);
    }
}

static void look_up(const job *j, size_t first, size_t pixels) {
  uint8_t *c = (uint8_t *)j->c->after.c + first * j->c->v->outputs;
  if (j->c->table) j->c->k->map_bytes(c, pixels * j->c->v->outputs, j->c->table, c);
}

/* A block of pixels: the sums of one panel of outputs after the other. */
static void run_pixels(const job *j, size_t first, size_t pixels, float *staged, float *sums) {
  const cml_kernels *k = j->c->k;
  const cml_conv *v = j->c->v;
  size_t nr = k->tile_columns, tiles = (pixels + k->tile_rows - 1) / k->tile_rows;
  k->dequantize(j->c->x + first * v->channels, pixels * v->channels, 1, j->c->x_zero, staged, false);
  for (size_t o = 0; o < v->outputs; o += nr) {
    cml_tile t = {.stretches = 1, .depth = v->channels, .a_stride = v->channels, .b = (const float *)j->c->packed + o * v->channels, .columns = least(v->outputs - o, nr),
                  .c_stride = nr, .low = -INFINITY, .high = INFINITY};
    for (size_t i = 0, p = 0, end; i < tiles; i++, p = end) {
      end = (i + 1) * pixels / tiles;
      t.rows = end - p;
      t.a = staged + p * v->channels;
      t.c = sums + p * nr;
      k->tile(&t);
    }
    finish(j, sums, nr, first, pixels, o, t.columns);
  }
  look_up(j, first, pixels);
}

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  const cml_conv *v = j->c->v;
  char *scratch = (char *)j->c->scratch + thread * j->slot;
  float *staged = (float *)(void *)scratch, *sums = (float *)(void *)(scratch + j->l.staged);
  size_t row_bytes = (size_t)v->in[2] * v->channels;
  for (size_t i = begin; i < end; i++) {
    size_t image = i / j->blocks;
    int64_t row = (int64_t)(i % j->blocks) * j->l.rows, rows = v->out[1] - row < j->l.rows ? v->out[1] - row : j->l.rows, first;
    if (rows <= 0) continue;
    if (j->pixels) {
      run_pixels(j, image * (size_t)v->out[1] + (size_t)row, (size_t)rows, staged, sums);
      continue;
    }
    cml_conv b = block_conv(v, row, rows, &first);
    const uint8_t *x = j->c->x + (image * (size_t)v->in[1] + (size_t)first) * row_bytes;
    j->c->k->dequantize(x, (size_t)b.in[1] * row_bytes, 1, j->c->x_zero, staged, false);
    cml_conv_run(&(cml_conv_call){.k = j->c->k, .v = &b, .weights = {j->c->packed, false}, .after = {.activation = CML_UNARY_COPY}, .x = staged, .y = sums,
                                  .scratch = scratch + j->l.staged + j->l.sums, .slots = 1});
    size_t pixel = (image * (size_t)v->out[1] + (size_t)row) * (size_t)v->out[2], pixels = (size_t)(rows * v->out[2]);
    finish(j, sums, v->outputs, pixel, pixels, 0, v->outputs);
    look_up(j, pixel, pixels);
  }
}

void cml_integer_floats_run(const cml_integer_call *call) {
  const cml_conv *v = call->v;
  cml_conv flat = *v;
  cml_integer_call c = *call;
  job j = {.c = &c, .pixels = pointwise(c.k, v)};
  if (!v->batch || !v->outputs || v->out[1] <= 0 || v->out[2] <= 0) return;
  lay_out(c.k, v, &j.l);
  if (j.pixels) flat.in[1] = flat.out[1] = v->in[1] * v->in[2], flat.in[2] = flat.out[2] = 1, c.v = v = &flat;
  j.slot = j.l.staged + j.l.sums + j.l.inner;
  size_t threads = cml_pool_threads(call->pool);
  int64_t wanted = threads == 1 || call->slots < threads ? 1 : (int64_t)((4 * threads + v->batch - 1) / v->batch), rows = (v->out[1] + wanted - 1) / wanted;
  if (rows < (j.pixels ? 28 : 2)) rows = j.pixels ? 28 : 2;
  if (rows < j.l.rows) j.l.rows = rows;
  j.blocks = (size_t)((v->out[1] + j.l.rows - 1) / j.l.rows);
  j.l.rows = (v->out[1] + (int64_t)j.blocks - 1) / (int64_t)j.blocks;
  cml_parallel_with_thread(call->slots < threads ? NULL : call->pool, v->batch * j.blocks, 1, run_units, &j);
}
