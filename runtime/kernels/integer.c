/* Work is cut into blocks of output rows (of pixels, where the kernel is one pixel and the image is one long row) and parts of the output
 * channels. The weights of a panel lie [stretch][depth / 4][column][4]: a stretch is the taps of one kernel row together where their
 * channels are neighbours in the image, else one tap. Stretches are filled with zeros up to whole words of four bytes; what a tile
 * then reads of the image beyond a stretch is multiplied by zero. Where a row of the image has fewer pixels than a matrix unit's tile has
 * rows, each pixel's stretches are gathered one behind the other (im2col) and all pixels are rows alike. Weights that are two signed bytes
 * each have all stretches twice, the image's bytes as well. */
#include "integer.h"
#include "sizes.h"

#include <string.h>

enum { STAGED = 48 << 10, SERIAL_BELOW = 1 << 15, PIXELS = 1024, MOST_DEPTH = 1 << 16, MATRIX_ROWS = 16, GATHERED = 384 << 10 };

typedef struct layout {
  size_t channels, outputs;        /* of a group */
  size_t stretches, distinct, joined, depth; /* taps in a stretch; bytes of one, whole words */
  size_t panels;
  bool direct, flat, gathered;     /* read where the image lies; all pixels alike, as rows of one; each pixel's stretches copied */
  int64_t columns;                 /* pixels of an output row */
  int64_t out_rows;                /* output rows */
  int64_t rows;                    /* of a block */
  size_t in_row, in_rows;          /* staged: bytes of a row, rows of a block */
} layout;

static bool one_pixel(const cml_conv *v) {
  for (int i = 0; i < 3; i++)
    if (v->kernel[i] != 1 || v->offset[i] || (v->out[i] - 1) * v->stride[i] >= v->in[i]) return false;
  return true;
}

bool cml_integer_fits(const cml_conv *v) {
  size_t channels = v->channels / v->groups, taps = cml_conv_taps(v);
  return v->kernel[0] == 1 && v->in[0] == 1 && (v->groups == 1 || channels % 4 == 0) && taps && channels <= MOST_DEPTH && taps <= MOST_DEPTH &&
         channels * taps < (v->wide ? MOST_DEPTH / 2 : MOST_DEPTH);
}

static void lay_weights(const cml_conv *v, layout *l) {
  *l = (layout){.channels = v->channels / v->groups, .outputs = v->outputs / v->groups};
  bool join = v->groups == 1 && v->dilation[2] == 1;
  l->joined = join ? (size_t)v->kernel[2] : 1;
  l->distinct = (size_t)v->kernel[1] * (join ? 1 : (size_t)v->kernel[2]);
  l->stretches = l->distinct * (v->wide ? 2 : 1);
  l->depth = up(l->joined * l->channels, 4);
}

/* Tables whose tiles have 32 rows and more multiply by a matrix unit, 16 rows at a time. */
static bool gathers(const cml_kernels *k, const cml_conv *v, const layout *l) {
  return k->integer_rows >= 2 * MATRIX_ROWS && !l->flat && v->groups == 1 && v->out[2] < MATRIX_ROWS && v->out[1] * v->out[2] >= MATRIX_ROWS &&
         l->joined * l->channels % 4 == 0;
}

static void lay_out(const cml_kernels *k, const cml_conv *v, layout *l) {
  lay_weights(v, l);
  l->panels = (l->outputs + k->integer_columns - 1) / k->integer_columns;
  l->direct = one_pixel(v) && l->channels % 4 == 0;
  l->columns = v->out[2];
  l->out_rows = v->out[1];
  l->flat = l->direct && v->stride[1] == 1 && v->stride[2] == 1 && v->in[2] == v->out[2];
  l->gathered = gathers(k, v, l);
  if (l->gathered) l->direct = false;
  if (l->flat || l->gathered) l->columns = 1, l->out_rows = v->out[1] * v->out[2];
  l->in_row = up(((size_t)(v->out[2] - 1) * (size_t)v->stride[2] + (size_t)((v->kernel[2] - 1) * v->dilation[2]) + 1) * v->channels, 4);
  size_t step = (size_t)v->stride[1] * l->in_row, more = (size_t)((v->kernel[1] - 1) * v->dilation[1] + 1) * l->in_row;
  l->rows = l->direct ? (PIXELS + l->columns - 1) / l->columns : more + step < STAGED ? (int64_t)(1 + (STAGED - more) / step) : 1;
  if (l->gathered) l->rows = (int64_t)(GATHERED / (l->distinct * l->depth) > 64 ? GATHERED / (l->distinct * l->depth) : 64);
  if (l->rows > l->out_rows) l->rows = l->out_rows;
}

size_t cml_integer_packed_bytes(const cml_kernels *k, const cml_conv *v) {
  layout l;
  lay_weights(v, &l);
  return v->groups * up(l.outputs, k->integer_columns) * l.stretches * l.depth;
}

static size_t staged_bytes(const cml_conv *v, const layout *l) {
  if (l->gathered) return up((size_t)l->rows * l->distinct * l->depth, 64);
  return l->direct ? 0 : up(((size_t)((l->rows - 1) * v->stride[1] + (v->kernel[1] - 1) * v->dilation[1]) + 1) * l->in_row + 64, 64);
}

size_t cml_integer_scratch(const cml_kernels *k, const cml_conv *v) {
  layout l;
  if (v->out[1] <= 0 || v->out[2] <= 0) return 0;
  lay_out(k, v, &l);
  return staged_bytes(v, &l) + up(l.stretches * sizeof(size_t), 64);
}

/* ---- weights ---- */

typedef struct packing {
  const cml_kernels *k;
  const cml_conv *v;
  layout l;
  const uint8_t *w;
  bool is_signed;
  const int32_t *zero;
  int8_t *to;
  int32_t *sums;
} packing;

/* Output o of all, as column `column` of its panel. */
static void pack_output(const packing *p, size_t o, int8_t *panel, size_t column) {
  const layout *l = &p->l;
  size_t taps = (size_t)(p->v->kernel[1] * p->v->kernel[2]), step = p->k->integer_columns * 4;
  const uint8_t *w = p->w + o * l->channels * taps;
  int32_t zero = p->zero ? p->zero[o] : 0, sum = 0;
  for (size_t t = 0; t < taps; t++)
    for (size_t c = 0; c < l->channels; c++) {
      size_t at = t % l->joined * l->channels + c; /* in its stretch */
      int32_t value = (p->is_signed ? (int8_t)w[c * taps + t] : w[c * taps + t]) - zero;
      int8_t *to = panel + (t / l->joined * l->depth + at) / 4 * step + column * 4 + at % 4;
      int32_t first = value < -128 ? -128 : value > 127 ? 127 : value;
      *to = (int8_t)first;
      if (p->v->wide) to[l->distinct * l->depth / 4 * step] = (int8_t)(value - first);
      sum += value;
    }
  p->sums[o] = sum;
}

static void pack_panels(void *context, size_t begin, size_t end) {
  const packing *p = context;
  size_t columns = p->k->integer_columns, bytes = p->l.stretches * p->l.depth * columns;
  for (size_t i = begin; i < end; i++) {
    size_t group = i / p->l.panels, first = i % p->l.panels * columns, n = least(p->l.outputs - first, columns);
    memset(p->to + i * bytes, 0, bytes);
    for (size_t j = 0; j < n; j++) pack_output(p, group * p->l.outputs + first + j, p->to + i * bytes, j);
  }
}

void cml_integer_pack(const cml_kernels *k, const cml_conv *v, const void *w, bool is_signed, const int32_t *zero, void *to, int32_t *sums,
                      cml_pool *pool) {
  packing p = {.k = k, .v = v, .w = w, .is_signed = is_signed, .zero = zero, .to = to, .sums = sums};
  lay_weights(v, &p.l);
  p.l.panels = (p.l.outputs + k->integer_columns - 1) / k->integer_columns;
  cml_parallel(pool, v->groups * p.l.panels, 1, pack_panels, &p);
}

/* ---- running ---- */

typedef struct job {
  const cml_integer_call *c;
  layout l;
  size_t slot;                /* bytes of a thread's scratch */
  size_t blocks, part, parts; /* blocks of rows in an image; panels in a part of all groups' */
} job;

/* The rows of the image that output rows from `row` on need, with what is around it. */
static void stage(const job *j, size_t image, int64_t row, int64_t rows, uint8_t *to) {
  const cml_conv *v = j->c->v;
  int64_t h = row * v->stride[1] + v->offset[1], count = (rows - 1) * v->stride[1] + (v->kernel[1] - 1) * v->dilation[1] + 1;
  int64_t width = (int64_t)(j->l.in_row / v->channels), before = v->offset[2] < 0 ? -v->offset[2] : 0, from = v->offset[2] > 0 ? v->offset[2] : 0;
  if (before > width) before = width;
  int64_t inside = v->in[2] - from < width - before ? v->in[2] - from : width - before;
  if (inside < 0) inside = 0;
  const uint8_t *x = j->c->x + image * (size_t)(v->in[1] * v->in[2]) * v->channels;
  for (int64_t i = 0; i < count; i++, h++, to += j->l.in_row) {
    if (h < 0 || h >= v->in[1]) {
      memset(to, j->c->x_zero, j->l.in_row);
      continue;
    }
    size_t first = (size_t)before * v->channels, n = (size_t)inside * v->channels;
    memset(to, j->c->x_zero, first);
    memcpy(to + first, x + (size_t)(h * v->in[2] + from) * v->channels, n);
    memset(to + first + n, j->c->x_zero, j->l.in_row - first - n);
  }
}

/* The stretches of output pixels from `first` on, one pixel's behind another's. */
static void gather(const job *j, size_t image, int64_t first, int64_t pixels, uint8_t *to) {
  const cml_conv *v = j->c->v;
  const uint8_t *x = j->c->x + image * (size_t)(v->in[1] * v->in[2]) * v->channels;
  int64_t taps = (int64_t)j->l.joined, across = taps > 1 ? 1 : v->kernel[2];
  for (int64_t p = first; p < first + pixels; p++)
    for (int64_t s = 0; s < (int64_t)j->l.distinct; s++, to += j->l.depth) {
      int64_t h = p / v->out[2] * v->stride[1] + s / across * v->dilation[1] + v->offset[1];
      int64_t w = p % v->out[2] * v->stride[2] + s % across * v->dilation[2] + v->offset[2], begin = w < 0 ? -w : 0, end = v->in[2] - w;
      if (end > taps) end = taps;
      if (h < 0 || h >= v->in[1] || begin >= end) {
        memset(to, j->c->x_zero, j->l.depth);
        continue;
      }
      size_t before = (size_t)begin * v->channels, until = (size_t)end * v->channels;
      memset(to, j->c->x_zero, before);
      memcpy(to + before, x + (size_t)(h * v->in[2] + w + begin) * v->channels, until - before);
      memset(to + until, j->c->x_zero, j->l.depth - until);
    }
}

/* Rows of pixels that lie at one distance, times one panel. */
static void run_panel(const job *j, cml_integer_tile *t, const uint8_t *a, size_t a_row, size_t rows, size_t columns, size_t first_pixel,
                      size_t c_row) {
  const cml_integer_tile *whole = &j->c->after;
  size_t most = j->c->k->integer_rows, size = cml_integer_to_bytes(whole->to), stride = j->c->v->outputs;
  if (most > 8 && t->a_stride % 4096 == 0) most = 8; /* rows of one set of the first-level cache */
  if (rows > 1 && a_row == t->a_stride * columns && c_row == columns) columns *= rows, rows = 1;
  size_t tiles = (columns + most - 1) / most;
  for (size_t y = 0; y < rows; y++)
    for (size_t i = 0, x = 0, end; i < tiles; i++, x = end) {
      size_t at = (first_pixel + y * c_row + x) * stride;
      end = (i + 1) * columns / tiles;
      t->rows = end - x;
      t->a = a + y * a_row + x * t->a_stride;
      cml_integer_tile tile = *t;
      tile.c = (char *)t->c + at * size;
      if (t->residual) tile.residual = t->residual + at;
      j->c->k->integer_tile(&tile);
    }
}

/* The table, over what a unit has made of `pixels` pixels: outputs [from, to) of each. */
static void look_up(const job *j, size_t first, size_t pixels, size_t from, size_t to) {
  size_t outputs = j->c->v->outputs;
  bool joined = to - from == outputs;
  for (size_t p = 0; p < pixels; p += joined ? pixels : 1) {
    uint8_t *c = (uint8_t *)j->c->after.c + (first + p) * outputs + from;
    j->c->k->map_bytes(c, joined ? pixels * outputs : to - from, j->c->table, c);
  }
}

static size_t first_output(const job *j, size_t panel) {
  size_t group = panel / j->l.panels;
  return group * j->l.outputs + least(panel % j->l.panels * j->c->k->integer_columns, j->l.outputs);
}

static void run_unit(const job *j, size_t unit, char *scratch) {
  const cml_conv *v = j->c->v;
  const layout *l = &j->l;
  size_t part = unit % j->parts, block = unit / j->parts % j->blocks, image = unit / j->parts / j->blocks;
  int64_t row = (int64_t)block * l->rows, rows = l->out_rows - row < l->rows ? l->out_rows - row : l->rows;
  size_t *offsets = (size_t *)(void *)scratch;
  uint8_t *staged = (uint8_t *)scratch + up(l->stretches * sizeof(size_t), 64);
  const uint8_t *a = staged;
  size_t pixel = v->channels * (size_t)v->stride[2], a_row = l->in_row * (size_t)v->stride[1];
  if (l->direct) {
    a_row = l->flat ? pixel : (size_t)(v->in[2] * v->stride[1]) * v->channels;
    a = j->c->x + image * (size_t)(v->in[1] * v->in[2]) * v->channels + (size_t)row * a_row;
  } else if (l->gathered) {
    a_row = pixel = l->distinct * l->depth;
    gather(j, image, row, rows, staged);
  } else {
    stage(j, image, row, rows, staged);
  }
  for (size_t s = 0; s < l->stretches; s++) {
    size_t taps = l->joined > 1 ? 1 : (size_t)v->kernel[2];
    size_t i = s % l->distinct;
    offsets[s] = l->gathered ? i * l->depth : i / taps * (size_t)v->dilation[1] * l->in_row + i % taps * (size_t)v->dilation[2] * v->channels;
  }
  size_t panel = l->stretches * l->depth * j->c->k->integer_columns, all = v->groups * l->panels;
  size_t pixels = (image * (size_t)l->out_rows + (size_t)row) * (size_t)l->columns;
  for (size_t i = part * j->part; i < all && i < (part + 1) * j->part; i++) {
    size_t group = i / l->panels, first = i % l->panels * j->c->k->integer_columns, o = group * l->outputs + first;
    cml_integer_tile t = j->c->after;
    t.columns = least(l->outputs - first, j->c->k->integer_columns);
    t.stretches = l->stretches;
    t.depth = l->depth;
    t.offsets = offsets;
    t.a_stride = pixel;
    t.b = (const int8_t *)j->c->packed + i * panel;
    t.start += o;
    t.scale += o;
    t.bias += o;
    t.c = (char *)t.c + o * cml_integer_to_bytes(t.to);
    t.c_stride = t.residual_stride = v->outputs;
    if (t.residual) t.residual += o;
    run_panel(j, &t, a + group * l->channels, a_row, (size_t)rows, (size_t)l->columns, pixels, (size_t)l->columns);
  }
  if (j->c->table)
    look_up(j, pixels, (size_t)(rows * l->columns), first_output(j, part * j->part), first_output(j, least(all, (part + 1) * j->part)));
}

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) run_unit(j, i, (char *)j->c->scratch + thread * j->slot);
}

void cml_integer_run(const cml_integer_call *call) {
  const cml_conv *v = call->v;
  cml_integer_call c = *call;
  job j = {.c = &c, .slot = cml_integer_scratch(c.k, v)};
  size_t threads = cml_pool_threads(c.pool);
  if (!v->batch || !v->outputs || v->out[1] <= 0 || v->out[2] <= 0) return;
  lay_out(c.k, v, &j.l);
  size_t all = v->groups * j.l.panels, work = v->batch * (size_t)(v->out[1] * v->out[2]) * v->outputs * j.l.stretches * j.l.depth / 4;
  if (c.slots < threads || work < SERIAL_BELOW) c.pool = NULL, threads = 1;
  j.part = all;
  if (threads > 1) { /* some units for each thread, of equal size */
    int64_t wanted = (int64_t)((4 * threads + v->batch - 1) / v->batch), rows = (j.l.out_rows + wanted - 1) / wanted;
    /* below which weights, or rows around a block, cost more */
    int64_t few = j.l.direct || j.l.gathered ? (int64_t)(4 * c.k->integer_rows) / j.l.columns : 4;
    if (rows < few) rows = few < 1 ? 1 : few;
    if (rows < j.l.rows) j.l.rows = rows;
  }
  j.blocks = (size_t)((j.l.out_rows + j.l.rows - 1) / j.l.rows);
  j.l.rows = (j.l.out_rows + (int64_t)j.blocks - 1) / (int64_t)j.blocks;
  while (threads > 1 && j.part > 1 && v->batch * j.blocks * ((all + j.part - 1) / j.part) < 4 * threads) j.part = (j.part + 1) / 2;
  j.parts = (all + j.part - 1) / j.part;
  cml_parallel_with_thread(c.pool, v->batch * j.blocks * j.parts, 1, run_units, &j);
}
