/* See conv.h for the idea. A block's memory, all of it one thread's scratch: the staged input region, gathered taps (few
 * channels only), sums that cannot go to the output directly, and a line to transpose through. */
#include "conv.h"

#include <math.h>
#include <string.h>

enum {
  BLOCK_PIXELS = 112,       /* output pixels of a block, about */
  STAGE_FLOATS = 160 << 10, /* staged floats of a block, about */
  OUTPUT_BLOCK = 512,       /* output channels that scratch sums hold at once */
  GATHER_BELOW = 40,        /* floats of a row of taps under which all taps are gathered */
  DEPTH_BLOCK = 288,
  LINE_CHANNELS = 16,
  SPREAD = 16,
  SERIAL_BELOW = 400000 /* multiply-adds */
};

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t round_up(size_t a, size_t b) { return (a + b - 1) / b * b; }
static size_t taps(const cml_conv *v) { return (size_t)(v->kernel[0] * v->kernel[1] * v->kernel[2]); }

bool cml_conv_is_depthwise(const cml_conv *v) { return v->groups > 1 && v->groups == v->channels && v->outputs == v->channels; }

void cml_conv_place_all(cml_conv *v) {
  for (int i = 0; i < 3; i++) {
    v->place[i] = 0;
    v->step[i] = 1;
    v->full[i] = v->out[i];
  }
}

/* ---- weights: [group][panel][tap][channel][tile_columns], depthwise [tap][channel] ---- */

static size_t group_bytes(const cml_kernels *k, const cml_conv *v, bool half) {
  size_t columns = v->outputs / v->groups;
  return round_up(cml_panel_count(k, columns) * k->tile_columns * taps(v) * (v->channels / v->groups) * (half ? 2 : 4), 64);
}

size_t cml_conv_packed_bytes(const cml_kernels *k, const cml_conv *v, bool half) {
  if (v->winograd) return cml_winograd_packed_bytes(k, v);
  if (cml_conv_is_depthwise(v)) return taps(v) * v->channels * 4 + 64;
  return v->groups * group_bytes(k, v, half) + 64;
}

static int64_t tap_offset(const cml_conv *v, const cml_conv_source *s, size_t tap) {
  int64_t w = (int64_t)tap % v->kernel[2], h = (int64_t)tap / v->kernel[2] % v->kernel[1], d = (int64_t)tap / (v->kernel[1] * v->kernel[2]);
  return s->start + d * s->tap_stride[0] + h * s->tap_stride[1] + w * s->tap_stride[2];
}

typedef struct pack_context {
  const cml_kernels *k;
  const cml_conv *v;
  const cml_conv_source *from;
  bool half;
  char *to;
} pack_context;

static float source_float(const cml_conv_source *s, int64_t i) {
  return s->half ? cml_f16_to_f32(((const cml_f16 *)s->data)[i]) : ((const float *)s->data)[i];
}

static void pack_range(void *context, size_t begin, size_t end) {
  const pack_context *p = context;
  const cml_conv *v = p->v;
  const cml_conv_source *s = p->from;
  size_t columns = v->outputs / v->groups, channels = v->channels / v->groups, nr = p->k->tile_columns, n_taps = taps(v);
  size_t panels = cml_panel_count(p->k, columns), size = p->half ? 2 : 4;
  for (size_t i = begin; i < end; i++) {
    size_t group = i / panels, panel = i % panels, n = least(columns - panel * nr, nr);
    char *to = p->to + group * group_bytes(p->k, v, p->half) + panel * n_taps * channels * nr * size;
    for (size_t t = 0; t < n_taps; t++) {
      int64_t base = (int64_t)group * s->group_stride + (int64_t)(panel * nr) * s->output_stride + tap_offset(v, s, t);
      for (size_t c = 0; c < channels; c++) {
        int64_t at = base + (int64_t)c * s->channel_stride;
        size_t row = (t * channels + c) * nr;
        for (size_t j = 0; j < nr; j++, at += s->output_stride) {
          if (p->half) ((cml_f16 *)(void *)to)[row + j] = j < n ? ((const cml_f16 *)s->data)[at] : 0;
          else ((float *)(void *)to)[row + j] = j < n ? source_float(s, at) : 0.0f;
        }
      }
    }
  }
}

void cml_conv_pack(const cml_kernels *k, const cml_conv *v, const cml_conv_source *from, bool half, void *to, cml_pool *pool) {
  if (v->winograd) {
    cml_winograd_pack(k, v, from, to, pool);
    return;
  }
  if (cml_conv_is_depthwise(v)) {
    for (size_t t = 0; t < taps(v); t++)
      for (size_t c = 0; c < v->channels; c++)
        ((float *)to)[t * v->channels + c] = source_float(from, (int64_t)c * from->group_stride + tap_offset(v, from, t));
    return;
  }
  pack_context p = {k, v, from, half, to};
  cml_parallel(pool, v->groups * cml_panel_count(k, v->outputs / v->groups), 1, pack_range, &p);
}

/* ---- how the work is cut ---- */

typedef struct layout {
  cml_conv v;             /* with a convolution of single pixels made one long row */
  int64_t rows, columns;  /* output pixels of a block: rows x columns of one depth */
  int64_t row_blocks, column_blocks;
  int64_t in_rows, in_columns; /* of the region that a block needs */
  bool depthwise, gather, direct; /* direct: sums go to the output itself */
  bool spread; /* pixels lie at a distance that puts them into the same few sets of the cache: they are copied further apart */
  size_t group_channels, group_outputs, depth;
  size_t staged, gathered, sums, line; /* floats of each part of scratch */
} layout;

static int64_t span(int64_t outputs, int64_t stride, int64_t kernel, int64_t dilation) {
  return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
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

static void lay_out(const cml_conv *given, layout *l) {
  *l = (layout){.v = *given};
  cml_conv *v = &l->v;
  flatten(v);
  l->depthwise = cml_conv_is_depthwise(v);
  l->group_channels = v->channels / v->groups;
  l->group_outputs = v->outputs / v->groups;
  l->depth = taps(v) * l->group_channels;
  int64_t pixels = (int64_t)(STAGE_FLOATS / (v->channels * (size_t)(v->stride[1] * v->stride[2]) + 1)) + 1;
  if (pixels > BLOCK_PIXELS) pixels = BLOCK_PIXELS;
  if (pixels < 28) pixels = 28;
  l->columns = v->out[2] <= pixels + pixels / 4 ? v->out[2] : pixels;
  l->rows = pixels / l->columns < 1 ? 1 : pixels / l->columns;
  if (l->rows > v->out[1]) l->rows = v->out[1];
  l->row_blocks = (v->out[1] + l->rows - 1) / l->rows;
  l->rows = (v->out[1] + l->row_blocks - 1) / l->row_blocks;
  l->column_blocks = (v->out[2] + l->columns - 1) / l->columns;
  l->in_rows = span(l->rows, v->stride[1], v->kernel[1], v->dilation[1]);
  l->in_columns = span(l->columns, v->stride[2], v->kernel[2], v->dilation[2]);
  size_t row_of_taps = l->group_channels * (v->dilation[2] == 1 ? (size_t)v->kernel[2] : 1);
  l->gather = !l->depthwise && taps(v) > 1 && row_of_taps < GATHER_BELOW && l->depth <= 8192;
  l->direct = v->out_last && !v->out_half && v->step[0] == 1 && v->step[1] == 1 && v->step[2] == 1;
  size_t block = (size_t)(l->rows * l->columns);
  l->spread = v->in_last && !v->in_half && taps(v) == 1 && v->groups == 1 && v->channels % 256 == 0 && v->stride[2] == 1 && v->out[2] > 8 &&
              v->outputs >= 64;
  l->staged = round_up((size_t)(v->kernel[0] * l->in_rows * l->in_columns) * (v->channels + (l->spread ? SPREAD : 0)), 16) + 16;
  l->gathered = l->gather ? round_up(block * l->depth, 16) : 0;
  l->sums = l->direct ? 0 : round_up(block * (l->depthwise ? v->channels : v->groups > 1 ? v->outputs : least(v->outputs, OUTPUT_BLOCK)), 16);
  l->line = LINE_CHANNELS * round_up((size_t)(l->in_columns > l->columns ? l->in_columns : l->columns), 16);
}

size_t cml_conv_shared(const cml_kernels *k, const cml_conv *v) { return v->winograd ? cml_winograd_shared(k, v) : 0; }

size_t cml_conv_scratch(const cml_kernels *k, const cml_conv *v) {
  if (v->winograd) return cml_winograd_scratch(k, v);
  layout l;
  lay_out(v, &l);
  return round_up((l.staged + l.gathered + l.sums + l.line) * sizeof(float) + 64, 64);
}

/* ---- one block ---- */

typedef struct job {
  const cml_kernels *k;
  const layout *l;
  const cml_conv_weights *w;
  const cml_epilogue *after;
  const char *x;
  char *y;
  char *scratch;
  size_t slot;
  size_t parts, part; /* the output channels are cut into `parts`, of `part` each */
} job;

typedef struct region {
  const float *data;
  size_t pixel, row, slice; /* distances in floats */
} region;

/* One row of the input region into scratch, channels last. column: of the input; may start before or end after it. */
static void stage_row(const job *j, int64_t image, int64_t depth, int64_t row, int64_t column, float *to, float *line) {
  const cml_conv *v = &j->l->v;
  size_t channels = v->channels;
  int64_t width = j->l->in_columns, first = column < 0 ? -column : 0, last = v->in[2] - column;
  if (last > width) last = width;
  if (first > width) first = width;
  if (depth < 0 || depth >= v->in[0] || row < 0 || row >= v->in[1] || last <= first) {
    memset(to, 0, (size_t)width * channels * 4);
    return;
  }
  memset(to, 0, (size_t)first * channels * 4);
  memset(to + (size_t)last * channels, 0, (size_t)(width - last) * channels * 4);
  size_t n = (size_t)(last - first), plane = (size_t)(v->in[0] * v->in[1] * v->in[2]);
  size_t at = (size_t)((depth * v->in[1] + row) * v->in[2] + column + first), base = (size_t)image * plane * channels;
  to += (size_t)first * channels;
  if (v->in_last) {
    if (v->in_half) j->k->f16_to_f32((const cml_f16 *)(const void *)j->x + base + at * channels, to, n * channels);
    else memcpy(to, (const float *)(const void *)j->x + base + at * channels, n * channels * 4);
    return;
  }
  if (!v->in_half) {
    j->k->transpose(channels, n, (const float *)(const void *)j->x + base + at, plane, to, channels);
    return;
  }
  for (size_t c = 0; c < channels; c += LINE_CHANNELS) {
    size_t m = least(channels - c, LINE_CHANNELS);
    for (size_t i = 0; i < m; i++) j->k->f16_to_f32((const cml_f16 *)(const void *)j->x + base + (c + i) * plane + at, line + i * n, n);
    j->k->transpose(m, n, line, n, to + c, channels);
  }
}

static region stage_region(const job *j, int64_t image, int64_t d, int64_t h, int64_t w, int64_t rows, float *staged, float *line) {
  const layout *l = j->l;
  const cml_conv *v = &l->v;
  int64_t in_rows = span(rows, v->stride[1], v->kernel[1], v->dilation[1]);
  size_t channels = v->channels;
  if (v->in_last && !v->in_half) {
    int64_t columns = span(l->columns < v->out[2] - (w - v->offset[2]) / v->stride[2] ? l->columns : v->out[2] - (w - v->offset[2]) / v->stride[2],
                           v->stride[2], v->kernel[2], v->dilation[2]);
    bool inside = d >= 0 && d + (v->kernel[0] - 1) * v->dilation[0] < v->in[0] && h >= 0 && h + in_rows <= v->in[1] && w >= 0 &&
                  w + columns <= v->in[2];
    if (inside && l->spread && rows == 1) {
      const float *x = (const float *)(const void *)j->x + ((((size_t)image * (size_t)v->in[0] + (size_t)d) * (size_t)v->in[1] + (size_t)h) * (size_t)v->in[2] + (size_t)w) * channels;
      for (size_t i = 0; i < (size_t)columns; i++) memcpy(staged + i * (channels + SPREAD), x + i * channels, channels * sizeof *x);
      return (region){staged, channels + SPREAD, 0, 0};
    }
    if (inside) {
      size_t at = ((((size_t)image * (size_t)v->in[0] + (size_t)d) * (size_t)v->in[1] + (size_t)h) * (size_t)v->in[2] + (size_t)w) * channels;
      return (region){(const float *)(const void *)j->x + at, channels, (size_t)v->in[2] * channels,
                      (size_t)(v->dilation[0] * v->in[1] * v->in[2]) * channels};
    }
  }
  region r = {staged, channels, (size_t)l->in_columns * channels, (size_t)(l->in_rows * l->in_columns) * channels};
  for (int64_t i = 0; i < v->kernel[0]; i++)
    for (int64_t y = 0; y < in_rows; y++)
      stage_row(j, image, d + i * v->dilation[0], h + y, w, staged + (size_t)i * r.slice + (size_t)y * r.row, line);
  return r;
}

/* All taps of each pixel side by side, for one group. */
static void gather_taps(const layout *l, const region *r, size_t group, int64_t rows, int64_t columns, float *to) {
  const cml_conv *v = &l->v;
  size_t n = l->group_channels, line = v->dilation[2] == 1 && v->groups == 1 ? (size_t)v->kernel[2] * n : n;
  int64_t across = line == n ? v->kernel[2] : 1;
  for (int64_t y = 0; y < rows; y++)
    for (int64_t x = 0; x < columns; x++)
      for (int64_t d = 0; d < v->kernel[0]; d++)
        for (int64_t h = 0; h < v->kernel[1]; h++)
          for (int64_t w = 0; w < across; w++, to += line) {
            const float *from = r->data + (size_t)d * r->slice + (size_t)(y * v->stride[1] + h * v->dilation[1]) * r->row +
                                (size_t)(x * v->stride[2] + w * v->dilation[2]) * r->pixel + group * n;
            for (size_t i = 0; i < line; i++) to[i] = from[i];
          }
}

/* rows x columns pixels (constant distances) times one stretch of depth; c accumulates. */
typedef struct stretch {
  const float *a;
  size_t pixel, row; /* distances between output pixels and output rows in a */
  size_t depth;
  const char *b;     /* of the first panel; panels lie panel_bytes apart */
  size_t panel_bytes;
  bool first, last;
} stretch;

static void multiply(const job *j, const stretch *s, size_t rows, size_t columns, size_t outputs, float *c, size_t c_pixel, size_t c_row,
                     const float *bias, float low, float high) {
  const cml_kernels *k = j->k;
  size_t nr = k->tile_columns, tiles = (columns + k->tile_rows - 1) / k->tile_rows;
  for (size_t o = 0, p = 0; o < outputs; o += nr, p++)
    for (size_t y = 0; y < rows; y++)
      for (size_t t = 0, x = 0, next; t < tiles; t++, x = next) {
        next = (t + 1) * columns / tiles;
        k->gemm_tile(next - x, least(outputs - o, nr), s->depth, s->a + y * s->row + x * s->pixel, s->pixel,
                     s->b + p * s->panel_bytes, j->w->half, c + y * c_row + x * c_pixel + o, c_pixel, !s->first,
                     s->last && bias ? bias + o : NULL, s->last ? low : -INFINITY, s->last ? high : INFINITY);
      }
}

/* Outputs [o0, o0 + outputs) of a group over a block, into c. */
static void products(const job *j, const region *r, const float *gathered, size_t group, size_t o0, size_t outputs, int64_t rows,
                     int64_t columns, float *c, size_t c_pixel, size_t c_row, float low, float high) {
  const layout *l = j->l;
  const cml_conv *v = &l->v;
  size_t size = j->w->half ? 2 : 4, nr = j->k->tile_columns, n = l->group_channels;
  const char *b = (const char *)j->w->packed + group * group_bytes(j->k, v, j->w->half) + o0 * l->depth * size;
  const float *bias = j->after->bias ? j->after->bias + group * l->group_outputs + o0 : NULL;
  stretch s = {.panel_bytes = l->depth * nr * size};
  size_t joined = v->dilation[2] == 1 && (v->groups == 1 || v->kernel[2] == 1) ? (size_t)v->kernel[2] : 1, line = joined * n;
  size_t lines = l->gather ? 1 : taps(v) / joined, total = l->gather ? l->depth : line;
  for (size_t t = 0; t < lines; t++) {
    size_t w = t * joined % (size_t)v->kernel[2], h = t * joined / (size_t)v->kernel[2] % (size_t)v->kernel[1],
           d = t * joined / (size_t)(v->kernel[1] * v->kernel[2]);
    const float *a = l->gather ? gathered
                               : r->data + d * r->slice + h * (size_t)v->dilation[1] * r->row + w * (size_t)v->dilation[2] * r->pixel + group * n;
    s.pixel = l->gather ? l->depth : r->pixel * (size_t)v->stride[2];
    s.row = l->gather ? l->depth * (size_t)columns : r->row * (size_t)v->stride[1];
    size_t pieces = (total + DEPTH_BLOCK - 1) / DEPTH_BLOCK, even = (total + pieces - 1) / pieces;
    for (size_t d0 = 0; d0 < total; d0 += even) {
      s.a = a + d0;
      s.depth = least(total - d0, even);
      s.b = b + (t * line + d0) * nr * size;
      s.first = t == 0 && d0 == 0;
      s.last = t + 1 == lines && d0 + even >= total;
      bool flat = l->gather || (rows > 1 && s.row == s.pixel * (size_t)columns);
      multiply(j, &s, flat ? 1 : (size_t)rows, (size_t)(flat ? rows * columns : columns), outputs, c, c_pixel, c_row, bias, low, high);
    }
  }
}

/* Finished pixels of a block to where they belong. */
static void store(const job *j, float *sums, size_t pixel, int64_t image, int64_t d, int64_t h, int64_t w, int64_t rows, int64_t columns,
                  size_t o0, size_t outputs, float *line) {
  const cml_conv *v = &j->l->v;
  size_t plane = (size_t)(v->full[0] * v->full[1] * v->full[2]), size = v->out_half ? 2 : 4;
  for (int64_t y = 0; y < rows; y++) {
    size_t at = (size_t)(((d * v->step[0] + v->place[0]) * v->full[1] + (h + y) * v->step[1] + v->place[1]) * v->full[2] + w * v->step[2] + v->place[2]);
    float *from = sums + (size_t)(y * columns) * pixel;
    if (v->out_last) {
      char *to = j->y + (size_t)image * plane * v->outputs * size;
      if (v->step[2] == 1) {
        cml_epilogue_store(j->k, j->after, from, pixel, (size_t)columns, outputs, to, v->outputs, v->out_half, at, o0);
        continue;
      }
      for (int64_t x = 0; x < columns; x++)
        cml_epilogue_store(j->k, j->after, from + (size_t)x * pixel, pixel, 1, outputs, to, v->outputs, v->out_half,
                           at + (size_t)(x * v->step[2]), o0);
      continue;
    }
    cml_epilogue_store(j->k, j->after, from, pixel, (size_t)columns, outputs, from, pixel, false, 0, 0);
    char *to = j->y + ((size_t)image * v->outputs + o0) * plane * size + at * size;
    size_t n = (size_t)columns;
    if (v->step[2] == 1 && !v->out_half) {
      j->k->transpose(n, outputs, from, pixel, (float *)(void *)to, plane);
      continue;
    }
    for (size_t c = 0; c < outputs; c += LINE_CHANNELS) {
      size_t m = least(outputs - c, LINE_CHANNELS);
      j->k->transpose(n, m, from + c, pixel, line, n);
      for (size_t i = 0; i < m; i++) {
        char *row = to + (c + i) * plane * size;
        if (v->step[2] == 1) {
          j->k->f32_to_f16(line + i * n, (cml_f16 *)(void *)row, n);
          continue;
        }
        for (size_t x = 0; x < n; x++) {
          if (v->out_half) ((cml_f16 *)(void *)row)[x * (size_t)v->step[2]] = cml_f16_from_f32(line[i * n + x]);
          else ((float *)(void *)row)[x * (size_t)v->step[2]] = line[i * n + x];
        }
      }
    }
  }
}

static void depthwise(const job *j, const region *r, int64_t rows, int64_t columns, float *c, size_t c_row, float low, float high) {
  const cml_conv *v = &j->l->v;
  const float *lines[64];
  size_t kd = (size_t)v->kernel[0], kh = (size_t)v->kernel[1], kw = (size_t)v->kernel[2];
  for (int64_t y = 0; y < rows; y++) {
    float *out = c + (size_t)y * c_row;
    if (kd * kh <= 64) {
      for (size_t i = 0; i < kd * kh; i++)
        lines[i] = r->data + i / kh * r->slice + ((size_t)(y * v->stride[1]) + i % kh * (size_t)v->dilation[1]) * r->row;
      j->k->depthwise_row((size_t)columns, v->channels, kd * kh, kw, lines, (size_t)v->stride[2], (size_t)v->dilation[2], r->pixel,
                          j->w->packed, j->after->bias, low, high, out);
      continue;
    }
    /* very tall kernels: one pixel and channel after the other */
    for (int64_t x = 0; x < columns; x++)
      for (size_t ch = 0; ch < v->channels; ch++) {
        float sum = j->after->bias ? j->after->bias[ch] : 0;
        for (size_t t = 0; t < taps(v); t++)
          sum += r->data[t / (kh * kw) * r->slice + ((size_t)(y * v->stride[1]) + t / kw % kh * (size_t)v->dilation[1]) * r->row +
                         ((size_t)(x * v->stride[2]) + t % kw * (size_t)v->dilation[2]) * r->pixel + ch] *
                 ((const float *)j->w->packed)[t * v->channels + ch];
        out[(size_t)x * v->channels + ch] = fminf(high, fmaxf(low, sum));
      }
  }
}

/* Block index / parts, of its output channels the part index % parts. */
static void run_block(const job *j, size_t index, float *scratch) {
  const layout *l = j->l;
  const cml_conv *v = &l->v;
  size_t first = index % j->parts * j->part, last = first + least(v->outputs - first, j->part);
  index /= j->parts;
  float *staged = scratch, *gathered = staged + l->staged, *sums = gathered + l->gathered, *line = sums + l->sums, low, high;
  int64_t i = (int64_t)index, wb = i % l->column_blocks, hb = i / l->column_blocks % l->row_blocks,
          d = i / (l->column_blocks * l->row_blocks) % v->out[0], image = i / (l->column_blocks * l->row_blocks * v->out[0]);
  int64_t h = hb * l->rows, w = wb * l->columns;
  int64_t rows = v->out[1] - h < l->rows ? v->out[1] - h : l->rows, columns = v->out[2] - w < l->columns ? v->out[2] - w : l->columns;
  if (rows <= 0 || columns <= 0) return;
  cml_epilogue_clamp(j->after, &low, &high);
  region r = stage_region(j, image, d * v->stride[0] + v->offset[0], h * v->stride[1] + v->offset[1], w * v->stride[2] + v->offset[2], rows,
                          staged, line);
  size_t plane = (size_t)(v->full[0] * v->full[1] * v->full[2]);
  float *out = l->direct ? (float *)(void *)j->y + ((size_t)image * plane + (size_t)((d * v->full[1] + h) * v->full[2] + w)) * v->outputs : NULL;
  if (l->depthwise || v->groups > 1) {
    float *c = out ? out : sums;
    size_t c_row = out ? (size_t)v->full[2] * v->outputs : (size_t)columns * v->outputs;
    if (l->depthwise) depthwise(j, &r, rows, columns, c, c_row, low, high);
    for (size_t g = 0; g < v->groups && !l->depthwise; g++) {
      if (l->gather) gather_taps(l, &r, g, rows, columns, gathered);
      /* gathered pixels are one run; in the output they are only when rows are joined */
      for (int64_t y = 0; y < (l->gather ? rows : 1); y++)
        products(j, &r, gathered + (size_t)(y * columns) * l->depth, g, 0, l->group_outputs, l->gather ? 1 : rows, columns,
                 c + (size_t)y * c_row + g * l->group_outputs, v->outputs, c_row, low, high);
    }
    store(j, c, v->outputs, image, d, h, w, l->direct ? 0 : rows, columns, 0, v->outputs, line);
  } else {
    if (l->gather) gather_taps(l, &r, 0, rows, columns, gathered);
    size_t step = out ? last - first : OUTPUT_BLOCK;
    for (size_t o = first; o < last; o += step) {
      size_t n = least(last - o, step), pixel = out ? v->outputs : n, c_row = out ? (size_t)v->full[2] * v->outputs : (size_t)columns * n;
      float *c = out ? out + o : sums;
      for (int64_t y = 0; y < (l->gather ? rows : 1); y++)
        products(j, &r, gathered + (size_t)(y * columns) * l->depth, 0, o, n, l->gather ? 1 : rows, columns, c + (size_t)y * c_row, pixel, c_row,
                 low, high);
      if (!out) store(j, sums, n, image, d, h, w, rows, columns, o, n, line);
    }
  }
  if (out)
    for (int64_t y = 0; y < rows; y++)
      cml_epilogue_store(j->k, j->after, out + (size_t)(y * v->full[2]) * v->outputs + first, v->outputs, (size_t)columns, last - first,
                         j->y + (size_t)image * plane * v->outputs * 4, v->outputs, false, (size_t)((d * v->full[1] + h + y) * v->full[2] + w),
                         first);
}

static void run_blocks(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) run_block(j, i, (float *)(void *)(j->scratch + thread * j->slot));
}

void cml_conv_run(const cml_kernels *k, const cml_conv *v, const cml_conv_weights *w, const cml_epilogue *after, const void *x, void *y,
                  cml_pool *pool, void *scratch, size_t slots) {
  if (v->winograd) {
    cml_winograd_run(k, v, w, after, x, y, pool, scratch, slots);
    return;
  }
  layout l;
  lay_out(v, &l);
  job j = {.k = k, .l = &l, .w = w, .after = after, .x = x, .y = y, .scratch = scratch, .slot = cml_conv_scratch(k, v)};
  size_t work = v->batch * (size_t)(v->out[0] * v->out[1] * v->out[2]) * v->outputs * l.depth;
  if (slots < cml_pool_threads(pool) || work < SERIAL_BELOW) pool = NULL; /* waking threads would take longer */
  if (!v->batch || l.row_blocks <= 0 || l.column_blocks <= 0 || l.v.out[0] <= 0) return;
  size_t blocks = v->batch * (size_t)(l.v.out[0] * l.row_blocks * l.column_blocks), panels = cml_panel_count(k, v->outputs), wanted = 1;
  /* few blocks (late layers have few pixels): their output channels are shared out, too */
  if (pool && v->groups == 1 && blocks < 4 * cml_pool_threads(pool)) wanted = least(panels, (4 * cml_pool_threads(pool) + blocks - 1) / blocks);
  j.part = (panels + wanted - 1) / wanted * k->tile_columns;
  j.parts = (v->outputs + j.part - 1) / j.part;
  cml_parallel_with_thread(pool, blocks * j.parts, 1, run_blocks, &j);
}
