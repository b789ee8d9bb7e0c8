/* See conv.h for the idea. A block's memory, all of it one thread's scratch: the staged input region, results that cannot go to the
 * output directly (its channels are not last), a line to transpose through, and where in a row the taps lie. */
#include "conv.h"
#include "sizes.h"

#include <math.h>
#include <string.h>

enum {
  BLOCK_PIXELS = 112,       /* output pixels of a block, about */
  PARTS_PIXELS = 400,       /* the same in parts: weights come from the second-level cache or from beyond, for each block again */
  PARTS_OUTPUTS = 48,       /* of floats, however often a number meets taps */
  PARTS_WORK = 5 << 20,     /* multiply-adds of floats from which parts of them pay, and with few pixels, for which a panel of weights becomes parts */
  PARTS_FEW_WORK = 9 << 20,
  PARTS_WIDTH = 4,          /* pixels of a row from which a strip of them pays */
  STAGE_FLOATS = 160 << 10, /* staged floats of a block, about */
  OUTPUT_BLOCK = 128,       /* output channels that scratch holds at once, on their way to planes */
  SPLIT_DEPTH = 128,        /* of tiles over the end of a row of the image, which end through memory */
  WIDE_DEPTH = 160,         /* of tiles over two panels, which have to stay in the first-level cache */
  WIDENED_DEPTH = 256,      /* that halves are widened for at a time */
  LINE_CHANNELS = 16,
  SERIAL_BELOW = 300000, PARTS_SERIAL_BELOW = 400000, /* multiply-adds */
  FOREIGN = 4,           /* floats that another core has, which take as long to read as a step of a row of a tile */
  DEPTHWISE_COST = 5     /* of a depthwise multiply-add, in those of a tile */
};

bool cml_conv_is_depthwise(const cml_conv *v) { return v->groups == v->channels && v->outputs == v->channels; }

/* Nothing that depends on an image's size: weights are packed when that may not be known. */
static bool works_in_place(const cml_conv *v) {
  bool fits = v->groups > 1 && v->in_last && v->out_last && v->planar && v->kernel[1] <= CML_DEPTHWISE_ROWS;
  for (int i = 0; i < 3; i++) fits = fits && v->step[i] == 1 && v->place[i] == 0;
  return fits;
}

size_t cml_conv_narrow(const cml_kernels *k, const cml_conv *v) {
  size_t n = v->groups ? v->channels / v->groups : 0;
  bool fits = v->channels == v->outputs && n > 1 && n <= 8 && n <= k->width;
  return fits && works_in_place(v) ? n : 0;
}

size_t cml_conv_multiplier(const cml_conv *v) {
  bool fits = v->groups == v->channels && v->outputs > v->channels && v->outputs % v->groups == 0;
  return fits && works_in_place(v) ? v->outputs / v->groups : 0;
}

bool cml_conv_slim(const cml_kernels *k, const cml_conv *v) {
  enum { WORTH = 4 }; /* vectors of a sum */
  return !v->winograd && !cml_conv_is_depthwise(v) && !cml_conv_narrow(k, v) && v->groups && v->outputs / v->groups <= CML_SLIM &&
         cml_conv_taps(v) * (v->channels / v->groups) >= WORTH * k->width && v->channels / v->groups >= k->width;
}

size_t cml_conv_bundle(const cml_kernels *k, const cml_conv *v) {
  if (v->groups < 2 || cml_planes_fit(v) || cml_conv_is_depthwise(v) || cml_conv_narrow(k, v) || cml_conv_multiplier(v) || cml_conv_slim(k, v)) return 1;
  size_t n = least(v->groups, k->width / least(k->width, v->outputs / v->groups));
  while (n > 1 && v->groups % n) n--;
  return n;
}

void cml_conv_place_all(cml_conv *v) {
  for (int i = 0; i < 3; i++) {
    v->place[i] = 0;
    v->step[i] = 1;
    v->full[i] = v->out[i];
  }
  v->out_pixel = v->outputs;
}

void cml_conv_trim(cml_conv *v, cml_conv_source *from) {
  for (int i = 0; i < 3; i++) {
    int64_t reach = (v->out[i] - 1) * v->stride[i];
    while (v->kernel[i] > 1 && (v->offset[i] + reach < 0 || v->offset[i] >= v->in[i])) {
      v->offset[i] += v->dilation[i];
      from->start += from->tap_stride[i];
      v->kernel[i]--;
    }
    while (v->kernel[i] > 1 && v->offset[i] + (v->kernel[i] - 1) * v->dilation[i] >= v->in[i]) v->kernel[i]--;
  }
}

/* ---- how the work is cut ---- */

typedef struct layout {
  cml_conv v;             /* with a convolution of single pixels made one long row */
  int64_t rows, columns;  /* output pixels of a block: rows x columns of one depth */
  int64_t row_blocks, column_blocks;
  int64_t apart[2];            /* stride of rows and columns in scratch: 1 where single taps would leave out what lies between */
  int64_t near[2];             /* dilation of rows and columns in scratch, where taps far apart stand next to each other */
  int64_t in_rows, in_columns; /* of the region that a block needs, as scratch has it */
  bool depthwise;
  size_t group_channels, group_outputs, depth;
  size_t joined, stretches;    /* taps of a row whose channels are neighbours, so many of them */
  size_t staged, sums, line;   /* floats of each part of scratch, */
  size_t parted;               /* the tiles' room and the region in parts, where that suits; `staged` then has room for a row of it */
  size_t widened, partial;     /* these where a few pixels meet weights in halves: a piece of a panel widened for all tiles, and sums on their way */
} layout;

static int64_t span(int64_t outputs, int64_t stride, int64_t kernel, int64_t dilation) {
  return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}

/* Dilation in scratch: what lies between the taps of all `outputs` is not staged. */
static int64_t near_dilation(int64_t outputs, int64_t stride, int64_t dilation) {
  int64_t one_tap = (outputs - 1) * stride + 1;
  return dilation < one_tap ? dilation : one_tap;
}

static void flatten(cml_conv *v) {
  bool plain = true;
  for (int i = 0; i < 3; i++)
    plain = plain && v->kernel[i] == 1 && v->stride[i] == 1 && v->offset[i] == 0 && v->in[i] == v->out[i] && v->step[i] == 1 &&
            v->place[i] == 0 && v->full[i] == v->out[i];
  if (!plain) return;
  v->in[2] = v->out[2] = v->full[2] = v->in[0] * v->in[1] * v->in[2];
  v->in[0] = v->in[1] = v->out[0] = v->out[1] = v->full[0] = v->full[1] = 1;
}

/* Whether matrix units are worth while: enough of the depth fills a step, and enough pixels follow one another. A float that was brought into parts meets
 * `met` outputs' taps. Nothing that depends on blocks. */
static bool suits_parts(const cml_kernels *k, const layout *l) {
  const cml_conv *v = &l->v;
  const size_t pixels = (size_t)(v->out[0] * v->out[1] * v->out[2]), depth = l->joined * l->group_channels, taps = cml_conv_taps(v) / (size_t)(v->kernel[0] * l->apart[0] * l->apart[1]);
  const size_t met = v->in_half || l->group_outputs < PARTS_OUTPUTS ? l->group_outputs : l->group_outputs * (taps ? taps : 1);
  return !v->plain && !v->winograd && !l->depthwise && !cml_conv_slim(k, v) && !cml_conv_narrow(k, v) && !cml_conv_multiplier(v) && 3 * depth >= 2 * up(depth, CML_PART_DEPTH) &&
         v->out[2] >= PARTS_WIDTH && (v->in_half || pixels * v->outputs * l->depth >= (pixels > CML_CONV_FEW_PIXELS ? PARTS_WORK : PARTS_FEW_WORK)) &&
         cml_parts_pay(k, v->in_half, (int64_t)pixels, l->depth, met);
}

/* Of each part of the region that a block reads, with what a step may read behind. */
static size_t part_words(const layout *l) { return up((size_t)(l->v.kernel[0] * l->in_rows * l->in_columns) * l->v.channels, CML_PART_DEPTH) + CML_PART_DEPTH; }

/* Whether it is a plain product for matrix units: of pixels that lie one after the other. */
static bool is_product(const layout *l) {
  const cml_conv *v = &l->v;
  return l->parted && v->in_last && v->out_last && v->groups == 1 && cml_conv_taps(v) == 1 && v->in[0] * v->in[1] == 1 && v->out[2] == v->in[2] && v->full[2] == v->out[2];
}

static void lay_out(const cml_kernels *k, const cml_conv *given, layout *l) {
  *l = (layout){.v = *given};
  cml_conv *v = &l->v;
  for (int i = 0; i < 3; i++) v->out[i] = v->out[i] < 1 ? 1 : v->out[i]; /* phases of a transposed convolution may have no pixels */
  flatten(v);
  l->depthwise = cml_conv_is_depthwise(v);
  l->group_channels = v->channels / v->groups;
  l->group_outputs = v->outputs / v->groups;
  l->depth = cml_conv_taps(v) * l->group_channels;
  for (int i = 0; i < 2; i++) l->apart[i] = v->in_last && v->kernel[i + 1] == 1 && !l->depthwise ? 1 : v->stride[i + 1];
  l->joined = cml_conv_joined(v);
  l->stretches = cml_conv_taps(v) / l->joined;
  const bool parts = suits_parts(k, l);
  int64_t pixels = (int64_t)(STAGE_FLOATS / (v->channels * (size_t)(l->apart[0] * l->apart[1]) + 1)) + 1;
  if (pixels > (parts ? PARTS_PIXELS : BLOCK_PIXELS)) pixels = parts ? PARTS_PIXELS : BLOCK_PIXELS;
  if (pixels < 28) pixels = 28;
  l->columns = v->out[2] <= pixels + pixels / 4 ? v->out[2] : pixels;
  l->rows = pixels / l->columns < 1 ? 1 : pixels / l->columns;
  if (l->rows > v->out[1]) l->rows = v->out[1];
  l->row_blocks = (v->out[1] + l->rows - 1) / l->rows;
  l->rows = (v->out[1] + l->row_blocks - 1) / l->row_blocks;
  l->column_blocks = (v->out[2] + l->columns - 1) / l->columns;
  if (l->column_blocks > 1) l->columns = (v->out[2] + l->column_blocks - 1) / l->column_blocks; /* of equal size */
  l->near[0] = l->apart[0] < v->stride[1] ? 1 : near_dilation(l->rows, v->stride[1], v->dilation[1]);
  l->near[1] = l->apart[1] < v->stride[2] ? 1 : near_dilation(l->columns, v->stride[2], v->dilation[2]);
  l->in_rows = span(l->rows, l->apart[0], v->kernel[1], l->near[0]);
  l->in_columns = span(l->columns, l->apart[1], v->kernel[2], l->near[1]);
  size_t block = (size_t)(l->rows * l->columns);
  l->staged = up((size_t)(v->kernel[0] * l->in_rows * l->in_columns) * v->channels, 16) + 16;
  l->sums = up(block * (l->depthwise ? v->channels * (v->out_last ? 1 : 2) : v->out_last ? 0 : least(l->group_outputs, OUTPUT_BLOCK)), 16);
  l->line = LINE_CHANNELS * up((size_t)(l->in_columns > l->columns ? l->in_columns : l->columns), 16);
  l->parted = parts ? up(cml_part_count(k, v->in_half) * part_words(l) / 2, 16) + CML_PARTS_ROOM / 4 : 0;
  const bool few = v->in_half && v->out[0] * v->out[1] * v->out[2] <= CML_CONV_FEW_PIXELS && block * 2 > k->tile_rows;
  if (!few || l->depthwise || cml_conv_slim(k, v)) return;
  l->widened = WIDENED_DEPTH * k->tile_columns;
  l->partial = l->depth > WIDENED_DEPTH ? block * k->tile_columns : 0;
}

bool cml_conv_suits_parts(const cml_kernels *k, const cml_conv *v) {
  cml_conv direct = *v;
  layout l;
  direct.winograd = false;
  if (!k->tile_parts || cml_planes_fit(v)) return false;
  lay_out(k, &direct, &l);
  return l.parted > 0;
}

bool cml_conv_pack_half(const cml_kernels *k, const cml_conv *v, bool half) {
  return half && !cml_planes_fit(v) && !v->winograd && (v->out[0] * v->out[1] * v->out[2] <= CML_CONV_FEW_PIXELS || (v->in_half && cml_conv_suits_parts(k, v)));
}

size_t cml_conv_shared(const cml_kernels *k, const cml_conv *v, size_t slots) { return v->winograd ? cml_winograd_shared(k, v, slots) : cml_im2col_suits(k, v) ? cml_im2col_shared(v) : 0; }

static size_t block_scratch(const cml_kernels *k, const layout *l) {
  if (is_product(l)) return cml_gemm_scratch(k);
  return up((l->staged + l->sums + l->line + l->parted + l->widened + l->partial) * sizeof(float) + l->stretches * sizeof(size_t) + 64, 64);
}

size_t cml_conv_scratch(const cml_kernels *k, const cml_conv *v) {
  if (v->winograd) return cml_winograd_scratch(k, v);
  if (cml_im2col_suits(k, v)) return up(cml_gemm_scratch_without_parts(), 64);
  if (cml_planes_fit(v)) return cml_planes_scratch(v);
  if (cml_conv_narrow(k, v) || cml_conv_multiplier(v)) return cml_depthwise_scratch(k, v);
  layout l;
  lay_out(k, v, &l);
  size_t bytes = block_scratch(k, &l), rows = cml_depthwise_scratch(k, v);
  return bytes > rows ? bytes : rows;
}

/* ---- one block ---- */

typedef struct job {
  const cml_conv_call *c;
  const layout *l;
  size_t slot;                /* bytes of a thread's scratch */
  size_t groups, group_parts; /* of a unit of work, and how many such there are */
  size_t parts, part;         /* a group's output channels are cut into `parts`, of `part` each */
} job;

static bool in_parts(const job *j) { return j->l->parted && j->c->weights.half == j->l->v.in_half; }

typedef struct region {
  const float *data;
  size_t pixel, row, slice; /* distances in floats */
  size_t next_row, next_column; /* the same from tap to tap, */
  size_t out_row, out_pixel;    /* and from one output to the next */
  const uint16_t *parts;    /* in place of data; or NULL */
  void *room;               /* of the tiles */
  size_t apart;
  size_t group;             /* the first one whose channels it has */
  size_t skipped, stretches; /* of taps: those whose rows are above the image for all of the block's outputs, and how many are not outside behind them */
} region;

/* Where the region goes: floats, or parts, which lie `apart`; and which of the image's channels. */
typedef struct staging {
  float *floats, *line;
  uint16_t *parts;
  size_t apart, count;
  size_t channel, channels;
} staging;

static void stage_zeros(const staging *s, size_t at, size_t n) {
  if (!s->parts) memset(s->floats + at, 0, n * sizeof(float));
  for (size_t p = 0; p < s->count; p++) memset(s->parts + p * s->apart + at, 0, n * sizeof(uint16_t));
}

/* n pixels whose channels are planes, `plane` elements apart. */
static void stage_planes(const job *j, const staging *s, const void *x, size_t plane, size_t n, size_t at) {
  const cml_kernels *k = j->c->k;
  const size_t channels = s->channels;
  const bool half = j->l->v.in_half;
  if (s->parts) {
    if (half) k->transpose_16(channels, n, x, plane, (uint16_t *)(void *)s->floats, channels);
    else k->transpose(channels, n, x, plane, s->floats, channels);
    k->part(half, 1, n * channels, s->floats, 0, s->parts + at, 0, s->apart);
    return;
  }
  float *to = s->floats + at;
  if (!half) {
    k->transpose(channels, n, x, plane, to, channels);
    return;
  }
  for (size_t c = 0; c < channels; c += LINE_CHANNELS) {
    size_t m = least(channels - c, LINE_CHANNELS);
    for (size_t i = 0; i < m; i++) k->f16_to_f32((const cml_f16 *)x + (c + i) * plane, s->line + i * n, n);
    k->transpose(m, n, s->line, n, to + c, channels);
  }
}

/* n neighbouring numbers of the input. */
static void stage_run(const job *j, const staging *s, const char *x, size_t n, size_t at) {
  const cml_kernels *k = j->c->k;
  const bool half = j->l->v.in_half;
  if (s->parts) k->part(half, 1, n, x, 0, s->parts + at, 0, s->apart);
  else if (half) k->f16_to_f32((const cml_f16 *)(const void *)x, s->floats + at, n);
  else memcpy(s->floats + at, x, n * 4);
}

/* `width` columns of a row of the input into scratch, channels last. column: of the input; may start before or end after it. */
static void stage_columns(const job *j, int64_t image, int64_t depth, int64_t row, int64_t column, int64_t width, const staging *s, size_t to) {
  const cml_conv *v = &j->l->v;
  const size_t channels = s->channels;
  int64_t first = column < 0 ? -column : 0, last = v->in[2] - column;
  if (last > width) last = width;
  if (first > width) first = width;
  if (depth < 0 || depth >= v->in[0] || row < 0 || row >= v->in[1] || last <= first) {
    stage_zeros(s, to, (size_t)width * channels);
    return;
  }
  const size_t n = (size_t)(last - first), plane = (size_t)(v->in[0] * v->in[1] * v->in[2]), size = v->in_half ? 2 : 4, inside = to + (size_t)first * channels;
  const size_t at = (size_t)((depth * v->in[1] + row) * v->in[2] + column + first), pixel = cml_conv_in_pixel(v), image_at = (size_t)image * plane;
  const char *x = (const char *)j->c->x + (v->in_last ? (image_at + at) * pixel + s->channel : image_at * v->channels + at + s->channel * plane) * size;
  const size_t runs = channels < pixel ? n : 1;
  stage_zeros(s, to, (size_t)first * channels);
  if (!v->in_last) stage_planes(j, s, x, plane, n, inside);
  for (size_t i = 0; i < runs && v->in_last; i++) stage_run(j, s, x + i * pixel * size, n / runs * channels, inside + i * channels);
  stage_zeros(s, to + (size_t)last * channels, (size_t)(width - last) * channels); /* after what part leaves behind */
}

static void stage_row(const job *j, int64_t image, int64_t depth, int64_t row, int64_t column, const staging *s, size_t to) {
  const layout *l = j->l;
  if (l->apart[1] < l->v.stride[2]) {
    for (int64_t i = 0; i < l->in_columns; i++) stage_columns(j, image, depth, row, column + i * l->v.stride[2], 1, s, to + (size_t)i * s->channels);
    return;
  }
  if (l->near[1] == l->v.dilation[2]) {
    stage_columns(j, image, depth, row, column, l->in_columns, s, to);
    return;
  }
  for (int64_t i = 0; i < l->v.kernel[2]; i++)
    stage_columns(j, image, depth, row, column + i * l->v.dilation[2], l->near[1], s, to + (size_t)(i * l->near[1]) * s->channels);
}

/* group: the first of so many as a unit of work has. */
static region stage_region(const job *j, size_t group, int64_t image, int64_t d, int64_t h, int64_t w, int64_t rows, float *staged, float *line, float *parted) {
  const layout *l = j->l;
  const bool parts = in_parts(j);
  const cml_conv *v = &l->v;
  int64_t in_rows = span(rows, v->stride[1], v->kernel[1], v->dilation[1]);
  const size_t channel = group * l->group_channels, channels = least(v->channels - channel, j->groups * l->group_channels);
  size_t row;
  if (v->in_last && !v->in_half && !parts && (!v->in_pixel || l->joined == 1)) {
    int64_t columns = span(l->columns < v->out[2] - (w - v->offset[2]) / v->stride[2] ? l->columns : v->out[2] - (w - v->offset[2]) / v->stride[2],
                           v->stride[2], v->kernel[2], v->dilation[2]);
    bool inside = d >= 0 && d + (v->kernel[0] - 1) * v->dilation[0] < v->in[0] && h >= 0 && h + in_rows <= v->in[1] && w >= 0 &&
                  w + columns <= v->in[2];
    if (inside) {
      const size_t pixel = cml_conv_in_pixel(v), at = ((((size_t)image * (size_t)v->in[0] + (size_t)d) * (size_t)v->in[1] + (size_t)h) * (size_t)v->in[2] + (size_t)w) * pixel + channel;
      row = (size_t)v->in[2] * pixel;
      return (region){.data = (const float *)j->c->x + at, .group = group, .pixel = pixel, .row = row, .slice = (size_t)(v->dilation[0] * v->in[1]) * row,
                      .next_row = (size_t)v->dilation[1] * row, .next_column = (size_t)v->dilation[2] * pixel, .out_row = (size_t)v->stride[1] * row,
                      .out_pixel = (size_t)v->stride[2] * pixel};
    }
  }
  row = (size_t)l->in_columns * channels;
  in_rows = span(rows, l->apart[0], v->kernel[1], l->near[0]);
  region r = {.data = staged, .group = group, .pixel = channels, .row = row, .slice = (size_t)l->in_rows * row, .next_row = (size_t)l->near[0] * row,
              .next_column = (size_t)l->near[1] * channels, .out_row = (size_t)l->apart[0] * row, .out_pixel = (size_t)l->apart[1] * channels};
  const int64_t skip = l->apart[0] < v->stride[1] ? v->stride[1] : v->dilation[1]; /* from tap to tap, or from output to output of a single one */
  staging s = {.floats = staged, .line = line, .channel = channel, .channels = channels};
  if (parts) r.room = parted, r.parts = s.parts = (uint16_t *)(void *)(parted + CML_PARTS_ROOM / 4), r.apart = s.apart = part_words(l), s.count = cml_part_count(j->c->k, v->in_half);
  for (int64_t i = 0; i < v->kernel[0]; i++) {
    for (int64_t y = 0; y < in_rows; y++)
      stage_row(j, image, d + i * v->dilation[0], h + y / l->near[0] * skip + y % l->near[0], w, &s, (size_t)i * r.slice + (size_t)y * r.row);
    if (parts) stage_zeros(&s, (size_t)i * r.slice + (size_t)in_rows * r.row, CML_PART_DEPTH); /* steps read so far */
  }
  return r;
}

/* ---- products ---- */

/* Where a block's results go: sums of scratch, or the output itself, finished. */
typedef struct target {
  char *to;
  size_t pixel, row; /* distances in elements */
  bool half, finished;
  const char *residual;
} target;

static target output_at(const job *j, int64_t image, int64_t d, int64_t h, int64_t w) {
  const cml_conv *v = &j->l->v;
  size_t plane = (size_t)(v->full[0] * v->full[1] * v->full[2]), size = v->out_half ? 2 : 4;
  size_t at = (size_t)(((d * v->step[0] + v->place[0]) * v->full[1] + h * v->step[1] + v->place[1]) * v->full[2] + w * v->step[2] + v->place[2]);
  at = ((size_t)image * plane + at) * v->out_pixel;
  return (target){(char *)j->c->y + at * size, (size_t)v->step[2] * v->out_pixel, (size_t)(v->step[1] * v->full[2]) * v->out_pixel, v->out_half, true,
                  j->c->after.residual ? (const char *)j->c->after.residual + at * size : NULL};
}

/* How a panel's tiles cover a block's pixels: so many in each row of the image, or `across` the ends of rows. */
typedef struct cover {
  size_t rows, columns, in_row, tiles;
  size_t pixel, row; /* from one output pixel and row to the next, in floats of the region */
  bool across;
} cover;

/* The depth in pieces: some stretches each, or a part of one. */
typedef struct division {
  size_t count, together, parts, length;
} division;

static division cut_depth(const layout *l, bool widens) {
  const size_t depth = l->joined * l->group_channels;
  division p = {1, l->stretches, 1, depth};
  if (!widens || !depth) return p;
  p.together = depth < WIDENED_DEPTH ? least(WIDENED_DEPTH / depth, l->stretches) : 1;
  p.parts = (depth + WIDENED_DEPTH - 1) / WIDENED_DEPTH;
  p.length = (depth + p.parts - 1) / p.parts;
  p.count = p.parts * ((l->stretches + p.together - 1) / p.together);
  return p;
}

/* All tiles of one panel, or of a piece of it, which `t` describes but for its rows. What is asked for, `bytes` at `next`, comes in parts, one with each
 * tile. Sums go to `partial` and begin there when it is not NULL and the piece is not the last, or not the first one. */
static void cover_block(const cml_kernels *k, const cover *c, const target *to, cml_tile t, size_t o, const char *next, size_t bytes,
                        float *partial, bool first, bool last, float *widened) {
  const size_t to_size = to->half ? 2 : 4, share = (bytes / c->tiles + 63) & ~(size_t)63, depth = t.stretches * t.depth, nr = k->tile_columns;
  const float *a = t.a;
  t.ask_step = depth ? (share + depth - 1) / depth : 0;
  t.from_stride = nr;
  if (!last) t.c_stride = nr, t.c_half = false;
  for (size_t i = 0, y = 0, x = 0; i < c->tiles; i++) {
    size_t at = y * to->row + x * to->pixel + o, end = c->across ? (i + 1) * c->rows * c->columns / c->tiles - y * c->columns : (i % c->in_row + 1) * c->columns / c->in_row;
    float *sums = partial ? partial + (y * c->columns + x) * nr : NULL;
    t.ask = i * share < bytes ? next + i * share : NULL;
    t.rows = end - x;
    t.split = end > c->columns ? c->columns - x : 0;
    t.a = a + y * c->row + x * c->pixel;
    t.from = first ? NULL : sums;
    t.residual = to->residual && last ? to->residual + at * to_size : NULL;
    t.c = last ? (void *)(to->to + at * to_size) : sums;
    t.widened = i ? NULL : widened;
    if (i && widened) t.b = widened, t.b_half = false;
    k->tile(&t);
    x = end;
    for (; x >= c->columns; x -= c->columns) y++;
  }
}

/* The same piece by piece: what ends a tile comes with the last. next: what is read after the panel. */
static void cover_pieces(const job *j, const cover *c, const target *to, const cml_tile *whole, size_t o, const char *next, float *widened) {
  const layout *l = j->l;
  const division cut = cut_depth(l, widened != NULL);
  const size_t step = j->c->k->tile_columns * (whole->b_half ? 2 : 4);
  const char *b = whole->b;
  float *partial = widened + l->widened;
  for (size_t i = 0; i < cut.count; i++) {
    const bool last = i == cut.count - 1;
    const size_t s = i / cut.parts * cut.together, from = i % cut.parts * cut.length;
    cml_tile t = *whole;
    t.stretches = least(l->stretches - s, cut.together);
    t.depth = least(whole->depth - from, cut.length);
    t.offsets = whole->offsets + s;
    t.a = whole->a + from;
    t.b = b;
    size_t bytes = t.stretches * t.depth * step;
    b += bytes;
    if (!last) t.bias = NULL, t.unary_rows = NULL, t.low = -INFINITY, t.high = INFINITY;
    cover_block(j->c->k, c, to, t, o, last ? next : b, bytes, partial, !i, last, widened);
  }
}

/* Where the weights of output o of a group begin, o a multiple of tile_columns. */
static const char *panel_at(const job *j, size_t group, size_t o) {
  const cml_conv_weights *w = &j->c->weights;
  return (const char *)w->packed + group * cml_conv_group_bytes(j->c->k, &j->l->v, w->half) + o / j->c->k->tile_columns * cml_panel_bytes(j->c->k, w->half, j->l->depth);
}

/* A block's products by matrix units: all of its pixels at once with a panel. after: the panel that comes after these. */
static void products_in_parts(const job *j, const region *r, const size_t *offsets, size_t group, size_t o0, size_t outputs, size_t rows, size_t columns,
                              const target *to, const char *after) {
  const layout *l = j->l;
  const cml_kernels *k = j->c->k;
  const cml_epilogue *e = &j->c->after;
  const size_t nr = k->tile_columns, depth = l->joined * l->group_channels, size = to->half ? 2 : 4;
  size_t pixel = r->out_pixel, row = r->out_row;
  if (rows > 1 && row == pixel * columns && to->row == to->pixel * columns) columns *= rows, rows = 1;
  cml_tile t = {.rows = rows * columns, .stretches = l->stretches, .depth = depth, .offsets = offsets, .parts = r->parts + (group - r->group) * l->group_channels, .parts_apart = r->apart, .room = r->room,
                .a_stride = pixel, .split = rows > 1 ? columns : 0, .a_jump = row - columns * pixel, .c_jump = to->row - columns * to->pixel, .b_half = j->c->weights.half,
                .residual_stride = to->pixel, .c_stride = to->pixel, .c_half = to->half, .low = -INFINITY, .high = INFINITY};
  if (!cml_epilogue_bounds(e, &t.low, &t.high)) t.unary_rows = k->unary_rows, t.f = e->activation, t.f_a = e->a, t.f_b = e->b;
  for (size_t o = 0; o < outputs; o += nr) {
    t.columns = least(outputs - o, nr);
    t.b = panel_at(j, group, o0 + o);
    t.next = o + nr < outputs ? panel_at(j, group, o0 + o + nr) : after;
    t.bias = e->bias ? e->bias + group * l->group_outputs + o0 + o : NULL;
    t.residual = to->residual ? to->residual + o * size : NULL;
    t.c = to->to + o * size;
    k->tile_parts(&t);
  }
}

/* Outputs [o0, o0 + outputs) of a group over a block of rows x columns pixels; o0 a multiple of tile_columns. The next panel of
 * weights comes from far away, and is asked for while one is multiplied. more: the layout's `widened` and `partial`. */
static void products(const job *j, const region *r, const size_t *offsets, size_t group, size_t o0, size_t outputs, size_t rows, size_t columns,
                     const target *to, const char *after, float *more) {
  const layout *l = j->l;
  const cml_conv *v = &l->v;
  const cml_kernels *k = j->c->k;
  if (r->parts) {
    products_in_parts(j, r, offsets, group, o0, outputs, rows, columns, to, after);
    return;
  }
  const bool half = j->c->weights.half;
  size_t size = half ? 2 : 4, nr = k->tile_columns;
  bool slim = cml_conv_slim(k, v);
  size_t panel = l->depth * (slim ? outputs : nr) * size;
  size_t base = group * l->group_outputs + o0, pixel = r->out_pixel, row = r->out_row;
  const char *first = (const char *)j->c->weights.packed + group * cml_conv_group_bytes(k, v, j->c->weights.half) + o0 * l->depth * size +
                      r->skipped * l->joined * l->group_channels * (slim ? 1 : nr) * size, *b = first;
  /* as many rows as fit: pixels 4 KiB apart fall into the same set of the first-level cache */
  const size_t apart = k->tile_rows > 8 && pixel % 1024 == 0 ? 7 : SIZE_MAX, tall = least(k->tile_rows, apart);
  const bool wides = !slim && l->depth <= WIDE_DEPTH, widens = l->widened && half;
  if (rows > 1 && row == pixel * columns && to->row == to->pixel * columns) columns *= rows, rows = 1;
  /* where tiles end with a row they would be low; low ones wait for their sums, those over a row's end need more instructions */
  const size_t long_rows = least(tall, columns + 1);
  const bool splits = k->tile_splits && !slim && rows > 1 && l->depth >= SPLIT_DEPTH && columns < (columns + tall - 1) / tall * (tall - 1);
  cml_tile t = {.stretches = r->stretches, .depth = l->joined * l->group_channels, .offsets = offsets + r->skipped, .a = r->data + (group - r->group) * l->group_channels, .a_stride = pixel,
                .b_half = half, .b_panel = panel, .b_column = slim ? l->depth : 0, .residual_stride = to->pixel, .c_stride = to->pixel, .c_half = to->half,
                .a_jump = row - columns * pixel, .c_jump = to->row - columns * to->pixel, .low = -INFINITY, .high = INFINITY};
  bool clamp = cml_epilogue_bounds(&j->c->after, &t.low, &t.high);
  if (!clamp && to->finished) t.unary_rows = k->unary_rows, t.f = j->c->after.activation, t.f_a = j->c->after.a, t.f_b = j->c->after.b;
  for (size_t o = 0; o < outputs; o += t.columns, b += panel) {
    const bool wide = wides && outputs - o > nr && outputs - o <= k->wide_columns;
    const size_t most = wide ? least(k->wide_rows, apart) : tall, in_row = (columns + most - 1) / most;
    cover c = {.rows = rows, .columns = columns, .in_row = in_row, .tiles = rows * in_row, .pixel = pixel, .row = row, .across = splits && !wide};
    if (c.across) c.tiles = (rows * columns + long_rows - 1) / long_rows;
    t.b = b;
    t.columns = wide ? outputs - o : least(outputs - o, nr);
    t.bias = j->c->after.bias ? j->c->after.bias + base + o : NULL;
    const char *next = o + t.columns < outputs ? b + panel : first; /* the next block begins with the first again */
    if (widens && !wide && !c.across && c.tiles > 1 && t.columns > nr / 2) cover_pieces(j, &c, to, &t, o, next, more);
    else cover_block(k, &c, to, t, o, next, panel, NULL, true, true, NULL);
  }
}

/* Leaves out the rows of taps that a block has outside the image, as large dilations do. h: of the input, under the first row of taps. */
static void leave_out(const layout *l, region *r, int64_t h, int64_t rows) {
  const cml_conv *v = &l->v;
  r->skipped = 0, r->stretches = l->stretches;
  if (v->kernel[0] > 1 || r->parts || l->widened) return;
  const int64_t reach = (rows - 1) * v->stride[1], step = v->dilation[1];
  int64_t first = 0, last = v->kernel[1] - 1;
  while (first < last && h + first * step + reach < 0) first++;
  while (last > first && h + last * step >= v->in[1]) last--;
  const size_t each = (size_t)v->kernel[2] / l->joined;
  r->skipped = (size_t)first * each, r->stretches = (size_t)(last - first + 1) * each;
}

/* Where the stretches of neighbouring taps begin, in floats from a pixel's first. */
static void tap_offsets(const layout *l, const region *r, size_t *offsets) {
  const cml_conv *v = &l->v;
  for (size_t i = 0; i < l->stretches; i++) {
    size_t t = i * l->joined, w = t % (size_t)v->kernel[2], h = t / (size_t)v->kernel[2] % (size_t)v->kernel[1],
           d = t / (size_t)(v->kernel[1] * v->kernel[2]);
    offsets[i] = d * r->slice + h * r->next_row + w * r->next_column;
  }
}

/* A block of finished results, pixels of `pixel` elements of the output's type, to planes. */
static void to_planes(const job *j, const char *from, size_t pixel, int64_t image, int64_t d, int64_t h, int64_t w, int64_t rows, int64_t columns,
                      size_t o0, size_t outputs) {
  const cml_conv *v = &j->l->v;
  const cml_kernels *k = j->c->k;
  const size_t plane = (size_t)(v->full[0] * v->full[1] * v->full[2]), size = v->out_half ? 2 : 4, step = (size_t)v->step[2];
  if (step == 1 && v->step[1] == 1 && columns == v->full[2]) columns *= rows, rows = 1; /* whole rows follow one another */
  const size_t n = (size_t)columns;
  for (int64_t y = 0; y < rows; y++, from += n * pixel * size) {
    size_t at = (size_t)(((d * v->step[0] + v->place[0]) * v->full[1] + (h + y) * v->step[1] + v->place[1]) * v->full[2] + w * v->step[2] + v->place[2]);
    char *to = (char *)j->c->y + (((size_t)image * v->outputs + o0) * plane + at) * size;
    if (step == 1 && v->out_half) k->transpose_16(n, outputs, (const uint16_t *)(const void *)from, pixel, (uint16_t *)(void *)to, plane);
    else if (step == 1) k->transpose(n, outputs, (const float *)(const void *)from, pixel, (float *)(void *)to, plane);
    for (size_t c = 0; step != 1 && c < outputs; c++)
      for (size_t x = 0; x < n; x++) memcpy(to + (c * plane + x * step) * size, from + (x * pixel + c) * size, size);
  }
}

/* Sums of depthwise convolutions to where they belong. */
static void store(const job *j, float *sums, int64_t image, int64_t d, int64_t h, int64_t w, int64_t rows, int64_t columns) {
  const cml_conv *v = &j->l->v;
  const size_t n = v->outputs, pixels = (size_t)(rows * columns);
  for (int64_t y = 0; v->out_last && y < rows; y++) {
    target t = output_at(j, image, d, h + y, w);
    cml_epilogue e = j->c->after;
    e.residual = t.residual;
    e.residual_stride = t.pixel;
    cml_epilogue_store(j->c->k, &e, sums + (size_t)(y * columns) * n, n, (size_t)columns, n, t.to, t.pixel, t.half, 0, 0);
  }
  if (v->out_last) return;
  char *done = (char *)(v->out_half ? sums + pixels * n : sums);
  cml_epilogue_store(j->c->k, &j->c->after, sums, n, pixels, n, done, n, v->out_half, 0, 0);
  to_planes(j, done, n, image, d, h, w, rows, columns, 0, n);
}

/* Depthwise, from a staged region: the general case. */
static void depthwise(const job *j, const region *r, int64_t rows, int64_t columns, float *c, float low, float high) {
  const cml_conv *v = &j->l->v;
  const void *lines[64];
  size_t kd = (size_t)v->kernel[0], kh = (size_t)v->kernel[1], kw = (size_t)v->kernel[2];
  for (int64_t y = 0; y < rows; y++) {
    float *out = c + (size_t)(y * columns) * v->channels;
    if (kd * kh <= 64) {
      for (size_t i = 0; i < kd * kh; i++)
        lines[i] = r->data + i / kh * r->slice + (size_t)(y * v->stride[1]) * r->row + i % kh * r->next_row;
      j->c->k->depthwise(&(cml_depthwise){.outputs = (size_t)columns, .channels = v->channels, .kh = kd * kh, .kw = kw, .rows = lines,
                                       .stride = v->stride[2], .dilation = (int64_t)(r->next_column / r->pixel), .columns = INT64_MAX, .pixel = r->pixel,
                                       .w = j->c->weights.packed, .w_stride = v->channels, .bias = j->c->after.bias, .low = low, .high = high,
                                       .y = out, .y_pixel = v->channels});
      continue;
    }
    /* very tall kernels: one pixel and channel after the other */
    for (int64_t x = 0; x < columns; x++)
      for (size_t ch = 0; ch < v->channels; ch++) {
        float sum = j->c->after.bias ? j->c->after.bias[ch] : 0;
        for (size_t t = 0; t < cml_conv_taps(v); t++)
          sum += r->data[t / (kh * kw) * r->slice + (size_t)(y * v->stride[1]) * r->row + t / kw % kh * r->next_row +
                         (size_t)(x * v->stride[2]) * r->pixel + t % kw * r->next_column + ch] *
                 ((const float *)j->c->weights.packed)[t * v->channels + ch];
        out[(size_t)x * v->channels + ch] = fminf(high, fmaxf(low, sum));
      }
  }
}

/* One of the units of work: blocks of pixels, of each the parts of groups, of each the parts of their output channels. */
static void run_block(const job *j, size_t index, float *scratch) {
  const layout *l = j->l;
  const cml_conv *v = &l->v;
  size_t first = index % j->parts * j->part, last = first + least(l->group_outputs - first, j->part), next = (index + 1) % j->parts * j->part; /* the next block's first */
  index /= j->parts;
  const size_t g0 = index % j->group_parts * j->groups, groups = least(v->groups - g0, j->groups), after_g = (index + 1) % j->group_parts * j->groups;
  index /= j->group_parts;
  float *staged = scratch, *sums = staged + l->staged, *line = sums + l->sums, *parted = line + l->line, *more = parted + l->parted, low, high;
  size_t *offsets = (size_t *)(void *)(more + l->widened + l->partial);
  int64_t i = (int64_t)index, wb = i % l->column_blocks, hb = i / l->column_blocks % l->row_blocks,
          d = i / (l->column_blocks * l->row_blocks) % v->out[0], image = i / (l->column_blocks * l->row_blocks * v->out[0]);
  int64_t h = hb * l->rows, w = wb * l->columns;
  int64_t rows = v->out[1] - h < l->rows ? v->out[1] - h : l->rows, columns = v->out[2] - w < l->columns ? v->out[2] - w : l->columns;
  if (rows <= 0 || columns <= 0) return;
  region r = stage_region(j, g0, image, d * v->stride[0] + v->offset[0], h * v->stride[1] + v->offset[1], w * v->stride[2] + v->offset[2], rows,
                          staged, line, parted);
  if (l->depthwise) {
    cml_epilogue_clamp(&j->c->after, &low, &high);
    depthwise(j, &r, rows, columns, sums, low, high);
    store(j, sums, image, d, h, w, rows, columns);
    return;
  }
  tap_offsets(l, &r, offsets);
  leave_out(l, &r, h * v->stride[1] + v->offset[1], rows);
  for (size_t g = g0; g < g0 + groups; g++) {
    const char *after = g + 1 < g0 + groups ? panel_at(j, g + 1, first) : panel_at(j, next ? g0 : after_g, next);
    if (v->out_last) {
      target t = output_at(j, image, d, h, w);
      size_t at = (g * l->group_outputs + first) * (t.half ? 2 : 4);
      t.to += at;
      if (t.residual) t.residual += at;
      products(j, &r, offsets, g, first, last - first, (size_t)rows, (size_t)columns, &t, after, more);
      continue;
    }
    for (size_t o = first; o < last; o += OUTPUT_BLOCK) {
      size_t n = least(last - o, OUTPUT_BLOCK);
      products(j, &r, offsets, g, o, n, (size_t)rows, (size_t)columns, &(target){.to = (char *)sums, .pixel = n, .row = (size_t)columns * n, .half = v->out_half, .finished = true}, o + n < last ? panel_at(j, g, o + n) : after, more);
      to_planes(j, (const char *)sums, n, image, d, h, w, rows, columns, g * l->group_outputs + o, n);
    }
  }
}

static void run_blocks(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) run_block(j, i, (float *)(void *)((char *)j->c->scratch + thread * j->slot));
}

static size_t region_pixels(const layout *l, int64_t rows, int64_t columns) {
  return (size_t)(l->v.kernel[0] * span(rows, l->apart[0], l->v.kernel[1], l->near[0]) * span(columns, l->apart[1], l->v.kernel[2], l->near[1]));
}

/* Of a block and so many panels of so many groups, in multiply-adds of the other tile: bringing a number into parts takes as long as eight, and the
 * end of a strip as long as 48 of the depth. */
static size_t parts_cost(const layout *l, int64_t rows, int64_t wide, size_t groups, size_t panels) {
  enum { STRIP = 16, FASTER = 5, STAGE = 8, END = 48, COLUMNS = 32 };
  const size_t strips = (size_t)rows * (((size_t)wide + STRIP - 1) / STRIP);
  return strips * STRIP * COLUMNS * groups * panels * (l->depth + END) / FASTER + region_pixels(l, rows, wide) * groups * l->group_channels * STAGE + 2000;
}

/* How the work is shared: groups in parts, a group's output channels in parts of whole panels, and where blocks are few (late layers have few pixels) smaller
 * blocks, so that all threads end at about the same time. Threads that share a block's pixels read what others made of them. */
static void share_out(layout *l, job *j, size_t threads) {
  const cml_conv *v = &l->v;
  const size_t panels = cml_panel_count(j->c->k, l->group_outputs), mr = j->c->k->tile_rows, most = least(v->groups, 4 * threads);
  size_t best = SIZE_MAX;
  int64_t rows = l->rows, columns = l->columns;
  j->part = panels;
  for (int64_t pieces = 1; threads > 1 && pieces <= 4; pieces *= 2)
    for (int64_t more = 0; more < (in_parts(j) ? (int64_t)threads : 1); more++) {
      const int64_t wide = (l->columns + pieces - 1) / pieces, high = (v->out[1] + l->row_blocks + more - 1) / (l->row_blocks + more);
      const size_t blocks = v->batch * (size_t)(v->out[0] * ((v->out[1] + high - 1) / high) * ((v->out[2] + wide - 1) / wide)), steps = (size_t)high * (((size_t)wide + mr - 1) / mr);
      if (pieces > 1 && blocks >= 8 * threads * (size_t)pieces) break;
      for (size_t cut = 1; cut <= most; cut++)
        for (size_t part = 1; part <= panels; part++) {
          const size_t groups = (v->groups + cut - 1) / cut, units = blocks * ((v->groups + groups - 1) / groups) * ((panels + part - 1) / part), rounds = (units + threads - 1) / threads;
          size_t cost = rounds * (steps * groups * part * (l->depth + 8) * mr + 500 + (size_t)wide * 4);
          if (in_parts(j)) cost = rounds * parts_cost(l, high, wide, groups, part);
          else if (blocks < threads) cost += rounds * region_pixels(l, high, wide) * groups * l->group_channels / FOREIGN;
          if (cost < best) best = cost, j->groups = groups, j->part = part, rows = high, columns = wide;
        }
    }
  l->rows = rows, l->columns = columns;
  l->in_rows = span(rows, l->apart[0], v->kernel[1], l->near[0]);
  l->in_columns = span(columns, l->apart[1], v->kernel[2], l->near[1]);
  l->row_blocks = (v->out[1] + rows - 1) / rows;
  l->column_blocks = (v->out[2] + columns - 1) / columns;
  j->group_parts = (v->groups + j->groups - 1) / j->groups;
  j->part *= j->c->k->tile_columns;
  j->parts = (l->group_outputs + j->part - 1) / j->part;
}

static void run_product(const job *j) {
  const cml_conv_call *c = j->c;
  const cml_conv *v = &j->l->v;
  const cml_gemm g = {.rows = v->batch * (size_t)v->out[2], .columns = v->outputs, .depth = v->channels, .a = c->x, .a_stride = cml_conv_in_pixel(v), .a_depth_stride = 1, .a_half = v->in_half,
                      .b = c->weights.packed, .b_half = c->weights.half, .in_parts = true, .c = c->y, .c_stride = v->out_pixel, .c_half = v->out_half, .after = c->after};
  cml_gemm_run(c->k, &g, 1, c->pool, c->scratch, c->slots);
}

void cml_conv_run(const cml_conv_call *call) {
  const cml_conv *v = call->v;
  if (v->winograd) {
    cml_winograd_run(call);
    return;
  }
  if (!v->batch || v->out[0] <= 0 || v->out[1] <= 0 || v->out[2] <= 0) return;
  cml_conv_call c = *call;
  size_t cost = cml_conv_taps(v) * (v->channels / v->groups) * (cml_conv_is_depthwise(v) ? DEPTHWISE_COST : 1);
  size_t work = v->batch * (size_t)(v->out[0] * v->out[1] * v->out[2]) * v->outputs * cost;
  if (c.slots < cml_pool_threads(c.pool) || work < SERIAL_BELOW) c.pool = NULL; /* waking threads would take longer */
  if (cml_planes_fit(v)) {
    cml_planes_run(&c);
    return;
  }
  if (cml_depthwise_fits(c.k, v) && !(c.weights.half && cml_conv_slim(c.k, v))) {
    cml_depthwise_run(&c);
    return;
  }
  if (cml_im2col_suits(c.k, v)) {
    cml_im2col_run(&c);
    return;
  }
  layout l;
  lay_out(c.k, v, &l);
  job j = {.c = &c, .l = &l, .slot = block_scratch(c.k, &l), .groups = v->groups, .group_parts = 1, .parts = 1};
  if (in_parts(&j) && work < PARTS_SERIAL_BELOW) c.pool = NULL;
  if (is_product(&l) && in_parts(&j)) {
    run_product(&j);
    return;
  }
  if (l.depthwise) j.part = l.group_outputs;
  else share_out(&l, &j, cml_pool_threads(c.pool));
  for (size_t i = 0; in_parts(&j) && i < cml_pool_threads(c.pool); i++) cml_parts_begin((char *)c.scratch + i * j.slot + (l.staged + l.sums + l.line) * sizeof(float));
  cml_parallel_with_thread(c.pool, v->batch * (size_t)(l.v.out[0] * l.row_blocks * l.column_blocks) * j.group_parts * j.parts, 1, run_blocks, &j);
}
