/* Convolutions in many groups of few channels over images whose channels come first: no channels are brought together, pixels are what a
 * vector holds.
 *
 * A group's planes are laid into scratch with the padding around them, as floats; with strides, pixels that outputs are apart become
 * neighbours (a plane for each place under a step). Then each tap is the line of all the band's pixels from one place on, and outputs are sums
 * of such lines, a few at the ends of rows for nothing. Single taps without padding are read where they lie. */
#include "conv.h"
#include "sizes.h"

#include <string.h>

enum {
  MOST_TAPS = 400,         /* of all channels of a group */
  STAGE_FLOATS = 96 << 10, /* of a band's planes, about */
  MOST_STRIDE = 4,
  SLACK = 64               /* floats that vectors may read and write behind a line */
};

bool cml_planes_fit(const cml_conv *v) {
  const size_t taps = (size_t)(v->kernel[1] * v->kernel[2]), channels = v->groups ? v->channels / v->groups : 0;
  bool fits = v->groups > 1 && !v->in_last && !v->out_last && !v->winograd && v->planar && v->kernel[0] == 1 && taps && (channels > 1 || v->outputs >= 2 * v->groups) && channels <= (taps == 1 ? 32 : 8) && channels * taps <= MOST_TAPS;
  for (int i = 0; i < 3; i++) fits = fits && v->step[i] == 1 && v->place[i] == 0 && v->stride[i] <= MOST_STRIDE;
  return fits;
}

size_t cml_planes_packed_bytes(const cml_conv *v) { return cml_conv_taps(v) * (v->channels / v->groups) * v->outputs * 4 + 64; }

/* ---- how the work is cut ---- */

typedef struct job {
  const cml_conv_call *c;
  size_t channels, outputs, taps; /* of a group; taps: of all its channels */
  bool plain, direct;      /* single taps of an image without padding; the same, read where it lies */
  const size_t *offsets;   /* of each tap's line */
  int64_t band, bands;     /* output rows */
  size_t row, plane, channel; /* floats of scratch, in order: a row, one of a plane's places under a step, all of these */
  size_t line;             /* of outputs */
  size_t slot;             /* bytes of a thread's scratch */
} job;

static int64_t reach(const cml_conv *v, int i, int64_t outputs) { return outputs + (v->kernel[i] - 1) * v->dilation[i] / v->stride[i]; }

static void lay_out(const cml_conv *v, size_t threads, job *j) {
  const int64_t steps = v->stride[1] * v->stride[2], rows = v->out[1] < 1 ? 1 : v->out[1], columns = v->out[2] < 1 ? 1 : v->out[2];
  *j = (job){.channels = v->channels / v->groups, .outputs = v->outputs / v->groups};
  j->taps = cml_conv_taps(v) * j->channels;
  j->plain = cml_conv_taps(v) == 1 && steps == 1 && !v->offset[1] && !v->offset[2] && v->in[1] == v->out[1] && v->in[2] == v->out[2];
  j->direct = j->plain && !v->in_half;
  j->row = (size_t)reach(v, 2, columns);
  const int64_t fit = (int64_t)(STAGE_FLOATS / ((size_t)steps * j->channels * j->row)) - (reach(v, 1, 1) - 1);
  int64_t pieces = fit < rows ? (rows + (fit < 4 ? 4 : fit) - 1) / (fit < 4 ? 4 : fit) : 1;
  const int64_t units = (int64_t)(v->batch * v->groups), wanted = threads > 1 ? (int64_t)(4 * threads) : 1;
  if (units * pieces < wanted) pieces = (wanted + units - 1) / units;
  if (pieces > rows) pieces = rows;
  j->band = (rows + pieces - 1) / pieces;
  j->bands = (rows + j->band - 1) / j->band;
  j->plane = (size_t)reach(v, 1, j->band) * j->row;
  j->channel = j->plane * (size_t)steps;
  j->line = up((size_t)j->band * j->row + SLACK, 16);
  j->slot = up(((j->direct ? 0 : j->channel * j->channels) + SLACK + CML_PLANE_OUTPUTS * j->line + (size_t)v->in[2] + SLACK) * sizeof(float), 64);
}

size_t cml_planes_scratch(const cml_conv *v) {
  job j;
  lay_out(v, 1, &j); /* the fewest bands */
  return j.slot;
}

/* ---- a group's planes ---- */

/* What is inside the image of one row, which is there: its columns go to the places under a step that they are at. Zeros around it are there. */
static void stage_row(const job *j, const void *x, float *wide, float *to) {
  const cml_conv *v = j->c->v;
  const int64_t s = v->stride[2], width = v->in[2];
  const bool widens = v->in_half && s > 1;
  if (widens) j->c->k->f16_to_f32(x, wide, (size_t)width);
  for (int64_t place = 0; place < s; place++) {
    const int64_t at = place + v->offset[2], first = at < 0 ? (-at + s - 1) / s : 0; /* at: of the row's first float */
    int64_t last = at < width ? (width - at + s - 1) / s : 0;
    if (last > (int64_t)j->row) last = (int64_t)j->row;
    if (last <= first) continue;
    float *row = to + (size_t)place * j->plane + first;
    const int64_t from = at + first * s, n = last - first;
    const float *floats = widens ? wide : x;
    if (s == 1 && v->in_half) j->c->k->f16_to_f32((const cml_f16 *)x + from, row, (size_t)n);
    else if (s == 1) memcpy(row, floats + from, (size_t)n * sizeof *row);
    else if (s == 2) for (int64_t i = 0; i < n; i++) row[i] = floats[from + 2 * i];
    else for (int64_t i = 0; i < n; i++) row[i] = floats[from + i * s];
  }
}

static void stage_planes(const job *j, size_t image, size_t group, int64_t first, int64_t rows, float *to, float *wide) {
  const cml_conv *v = j->c->v;
  const int64_t height = v->in[1], width = v->in[2], s = v->stride[1];
  const size_t size = v->in_half ? 2 : 4;
  for (size_t c = 0; c < j->channels; c++) {
    const char *x = (const char *)j->c->x + (image * v->channels + group * j->channels + c) * (size_t)(height * width) * size;
    if (j->plain) { /* halves */
      j->c->k->f16_to_f32((const cml_f16 *)(const void *)x + first * width, to + c * j->channel, (size_t)(rows * width));
      continue;
    }
    for (int64_t r = 0; r < reach(v, 1, rows) * s; r++) {
      const int64_t h = first * s + v->offset[1] + r;
      float *row = to + c * j->channel + (size_t)(r % s * v->stride[2]) * j->plane + (size_t)(r / s) * j->row;
      if (h >= 0 && h < height) stage_row(j, x + (size_t)(h * width) * size, wide, row);
      else if (j->bands > 1) for (int64_t i = 0; i < v->stride[2]; i++) memset(row + (size_t)i * j->plane, 0, j->row * sizeof *row); /* another band's were inside */
    }
  }
}

/* Where each tap's line begins. */
static void tap_offsets(const job *j, size_t *offsets) {
  const cml_conv *v = j->c->v;
  const size_t channel = j->direct ? (size_t)(v->in[1] * v->in[2]) : j->channel;
  for (size_t c = 0; c < j->channels; c++)
    for (int64_t y = 0; y < v->kernel[1]; y++)
      for (int64_t x = 0; x < v->kernel[2]; x++) {
        const int64_t h = y * v->dilation[1], w = x * v->dilation[2];
        *offsets++ = c * channel + (size_t)(h % v->stride[1] * v->stride[2] + w % v->stride[2]) * j->plane + (size_t)(h / v->stride[1]) * j->row + (size_t)(w / v->stride[2]);
      }
}

/* ---- a unit of work ---- */

/* Rows of one output, which lie `row` floats apart. */
static void finish_rows(const job *j, float *sums, size_t row, int64_t rows, size_t at) {
  const cml_conv_call *c = j->c;
  size_t width = (size_t)c->v->out[2];
  if (width == row) width *= (size_t)rows, rows = 1;
  for (int64_t r = 0; r < rows; r++, sums += row, at += width) {
    if (c->after.activation != CML_UNARY_COPY) c->k->unary(c->after.activation, sums, sums, width, c->after.a, c->after.b);
    if (c->v->out_half) c->k->f32_to_f16(sums, (cml_f16 *)c->y + at, width);
    else if (sums != (float *)c->y + at) memcpy((float *)c->y + at, sums, width * sizeof *sums);
  }
}

static void run_unit(const job *j, size_t unit, float *scratch) {
  const cml_conv *v = j->c->v;
  const size_t group = unit % v->groups, image = unit / v->groups / (size_t)j->bands, plane = (size_t)(v->out[1] * v->out[2]);
  const int64_t first = (int64_t)(unit / v->groups % (size_t)j->bands) * j->band, rows = v->out[1] - first < j->band ? v->out[1] - first : j->band;
  float *staged = scratch, *lines = staged + (j->direct ? 0 : j->channel * j->channels) + SLACK, *wide = lines + CML_PLANE_OUTPUTS * j->line;
  if (rows <= 0) return;
  if (!j->direct) stage_planes(j, image, group, first, rows, staged, wide);
  const float *x = j->direct ? (const float *)j->c->x + (image * v->channels + group * j->channels) * plane + (size_t)(first * v->out[2]) : staged;
  const size_t used = (size_t)(rows - 1) * j->row + (size_t)v->out[2];
  for (size_t o = 0; o < j->outputs; o += CML_PLANE_OUTPUTS) {
    const size_t n = least(j->outputs - o, CML_PLANE_OUTPUTS), output = group * j->outputs + o, at = (image * v->outputs + output) * plane + (size_t)(first * v->out[2]);
    float *y = j->direct ? (float *)j->c->y + at : lines;
    const size_t stride = j->direct ? plane : j->line;
    j->c->k->plane_taps(&(cml_plane_taps){.outputs = n, .taps = j->taps, .offsets = j->offsets, .x = x, .weights = (const float *)j->c->weights.packed + output * j->taps,
                                          .bias = j->c->after.bias ? j->c->after.bias + output : NULL, .n = j->direct ? used : up(used, 16), .y = y, .stride = stride});
    for (size_t i = 0; i < n && !(j->direct && j->c->after.activation == CML_UNARY_COPY); i++) finish_rows(j, y + i * stride, j->row, rows, at + i * plane);
  }
}

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  float *scratch = (float *)(void *)((char *)j->c->scratch + thread * j->slot);
  if (!j->plain) memset(scratch, 0, j->channel * j->channels * sizeof *scratch);
  for (size_t i = begin; i < end; i++) run_unit(j, i, scratch);
}

void cml_planes_run(const cml_conv_call *c) {
  job j;
  size_t offsets[MOST_TAPS];
  lay_out(c->v, cml_pool_threads(c->pool), &j);
  j.c = c;
  tap_offsets(&j, offsets);
  j.offsets = offsets;
  cml_parallel_with_thread(c->pool, c->v->batch * (size_t)j.bands * c->v->groups, 1, run_units, &j);
}
