/* Depthwise convolutions, those in groups of a few channels, and those to a few outputs, of images with the channels last; input and
 * output are read and written where they lie.
 *
 * A band of output rows is worked through in chunks of channels so narrow that the input rows of one output row stay in the
 * first-level cache: each of them is then read once from further away, and the band's rows stay in the second-level cache from
 * chunk to chunk. Where many taps use each element, those rows are copied side by side first, as floats and with zeros around them:
 * pixels whose distance is a power of two share few sets of the cache, and would drive each other out of it. Images under a kernel one column
 * wide are turned: their columns are worked through as rows, along which a kernel's outputs share what they load. */
#include "conv.h"
#include "sizes.h"

#include <math.h>
#include <string.h>

enum {
  STAGE_TAPS = 50,        /* so many are worth a copy of the rows: more than in the kernels that load each column once for all of them */
  ROWS_BYTES = 24 << 10,  /* of a chunk's input rows for one output row */
  BAND_BYTES = 384 << 10, /* of a band's input rows */
  LINE = 64               /* bytes of the first-level cache */
};

typedef struct job {
  const cml_conv_call *c;
  size_t slot;          /* bytes of a thread's scratch */
  size_t chunk, chunks; /* channels */
  int64_t band, bands;  /* output rows */
  bool staged;
} job;

/* Each output of a pixel sums over all channels, which come in vectors: the columns under a kernel's taps are loaded once for neighbouring outputs,
 * from where they lie. */
static bool sums_channels(const cml_kernels *k, const cml_conv *v) {
  const bool shared = v->outputs == 1 || k->width >= 16; /* several outputs share what they load where there are registers for all */
  return cml_conv_slim(k, v) && v->groups == 1 && shared && v->kernel[1] * v->kernel[2] > 1 && v->stride[2] == 1 && v->dilation[2] == 1;
}

bool cml_depthwise_fits(const cml_kernels *k, const cml_conv *v) {
  if (cml_conv_narrow(k, v) || cml_conv_multiplier(v)) return true;
  bool fits = (cml_conv_is_depthwise(v) || sums_channels(k, v)) && v->in_last && v->out_last && v->kernel[0] == 1 && v->in[0] == 1 && v->out[0] == 1 && v->offset[0] == 0 &&
              v->kernel[1] <= CML_DEPTHWISE_ROWS;
  for (int i = 0; i < 3; i++) fits = fits && v->step[i] == 1 && v->place[i] == 0 && v->full[i] == v->out[i];
  return fits;
}

bool cml_depthwise_shares(const cml_kernels *k, const cml_conv *v) {
  return 2 * v->channels <= k->width && !cml_conv_narrow(k, v) && !cml_conv_multiplier(v) && !sums_channels(k, v) && v->stride[2] == 1 && v->dilation[1] == 1;
}

/* Rows with zeros around them spare pixels that share vectors the question whether they are outside. */
static bool stages(const cml_kernels *k, const cml_conv *v) {
  return cml_depthwise_shares(k, v) || (!cml_conv_multiplier(v) && !sums_channels(k, v) && v->dilation[1] == 1 && v->kernel[1] * v->kernel[2] >= STAGE_TAPS);
}

static bool turns(const cml_kernels *k, const cml_conv *v) {
  return cml_conv_is_depthwise(v) && v->kernel[2] == 1 && v->stride[2] == 1 && !v->offset[2] && v->kernel[1] > 1 && v->stride[1] == 1 && v->dilation[1] == 1 && v->channels >= k->width;
}

/* v with rows for columns. */
static cml_conv turn(cml_conv v) {
  int64_t *const triples[] = {v.in, v.out, v.kernel, v.stride, v.dilation, v.offset, v.full};
  for (size_t i = 0; i < sizeof triples / sizeof *triples; i++) {
    int64_t *t = triples[i], column = t[2];
    t[2] = t[1], t[1] = column;
  }
  return v;
}

/* Of the outputs; where they share channels, as many as whole channels have. Whole lines of the cache where they fit, which would be read again for
 * the next chunk. */
static size_t chunk_channels(const cml_kernels *k, const cml_conv *v) {
  size_t each = cml_conv_multiplier(v);
  if (sums_channels(k, v)) return v->outputs;
  if (each) return least(v->outputs, 4 * k->width * each);
  size_t vector = k->width * (v->in_half && !stages(k, v) ? 2 : 4), row = (size_t)v->kernel[1] * (size_t)(v->in[2] > 0 ? v->in[2] : 1) * vector, vectors = row < ROWS_BYTES ? ROWS_BYTES / row : 1;
  size_t line = vector < LINE ? LINE / vector : 1;
  size_t chunk = (vectors < line ? vectors : vectors / line * line) * k->width, group = cml_conv_narrow(k, v);
  return least(v->channels, group ? chunk / group * group : chunk); /* whole groups */
}

/* Input columns of a row of outputs, those outside the image too. */
static size_t staged_columns(const cml_conv *v) { return (size_t)((v->out[2] - 1) * v->stride[2] + (v->kernel[2] - 1) * v->dilation[2] + 1); }

/* A row of sums of a chunk, and its staged rows. */
size_t cml_depthwise_scratch(const cml_kernels *k, const cml_conv *given) {
  const cml_conv turned = turns(k, given) ? turn(*given) : *given, *v = &turned;
  if (!cml_depthwise_fits(k, given) || v->out[2] <= 0) return 0;
  size_t pixels = (size_t)v->out[2] + (stages(k, v) ? (size_t)v->kernel[1] * staged_columns(v) : 0);
  return (pixels * (chunk_channels(k, v) + k->width) * 4 + 127) & ~(size_t)63;
}

/* ---- staged rows: that of image row h at h % kernel rows ---- */

typedef struct stage {
  float *rows;
  size_t columns, row_floats;
  int64_t held[CML_DEPTHWISE_ROWS]; /* which row of the image it is; -1: none yet */
} stage;

static void stage_row(const job *j, stage *s, int64_t image, int64_t h, size_t c, size_t channels) {
  const cml_conv *v = j->c->v;
  size_t size = v->in_half ? 2 : 4, before = v->offset[2] < 0 ? (size_t)-v->offset[2] : 0, skip = v->offset[2] > 0 ? (size_t)v->offset[2] : 0;
  size_t inside = (size_t)v->in[2] > skip ? (size_t)v->in[2] - skip : 0;
  before = least(before, s->columns);
  inside = least(inside, s->columns - before);
  float *to = s->rows + (size_t)(h % v->kernel[1]) * s->row_floats;
  const char *from = (const char *)j->c->x + (((size_t)(image * v->in[1] + h) * (size_t)v->in[2] + skip) * cml_conv_in_pixel(v) + c) * size;
  memset(to, 0, before * channels * 4);
  to += before * channels;
  const bool whole = channels == cml_conv_in_pixel(v); /* pixels */
  size_t pieces = whole ? 1 : inside, n = whole ? inside * channels : channels;
  for (size_t i = 0; i < pieces; i++, to += n, from += cml_conv_in_pixel(v) * size) {
    if (v->in_half) j->c->k->f16_to_f32((const cml_f16 *)(const void *)from, to, n);
    else if (n == 16) memcpy(to, from, 64); /* the most usual one, without a call */
    else memcpy(to, from, n * 4);
  }
  memset(to, 0, (s->columns - before - inside) * channels * 4);
}

void cml_depthwise_row(const cml_conv_call *call, int64_t image, int64_t row, size_t c, size_t channels, const cml_depthwise *from, float *sums) {
  const cml_conv *v = call->v;
  const bool turned = call->turned;
  const size_t out = v->out_half ? 2 : 4, outputs = (size_t)v->out[2], lines = (size_t)v->out[1];
  const size_t pixel = (turned ? lines : 1) * v->out_pixel, at = ((size_t)image * lines * outputs + (size_t)row * (turned ? 1 : outputs)) * v->out_pixel + c;
  cml_depthwise d = *from;
  d.outputs = outputs, d.channels = channels;
  d.kh = (size_t)v->kernel[1], d.kw = (size_t)v->kernel[2];
  d.group = cml_conv_narrow(call->k, v), d.multiplier = v->outputs / v->channels;
  d.sums = sums_channels(call->k, v) ? v->outputs : 0;
  d.stride = v->stride[2], d.dilation = v->dilation[2];
  d.w = (const float *)call->weights.packed + c, d.w_stride = d.sums ? v->channels : v->outputs;
  if (d.sums) d.channels = v->channels;
  d.bias = call->after.bias ? call->after.bias + c : NULL;
  d.y = (char *)call->y + at * out, d.y_pixel = pixel, d.y_half = v->out_half;
  if (cml_epilogue_clamp(&call->after, &d.low, &d.high) && !(d.sums && v->out_half)) {
    call->k->depthwise(&d);
    return;
  }
  d.y = sums, d.y_pixel = channels, d.y_half = false;
  call->k->depthwise(&d);
  cml_epilogue e = call->after;
  if (e.residual) e.residual = (const char *)e.residual + at * out, e.residual_stride = pixel;
  cml_epilogue_store(call->k, &e, sums, channels, outputs, channels, (char *)call->y + at * out, pixel, v->out_half, 0, 0);
}

static void run_row(const job *j, int64_t image, int64_t row, size_t c, size_t channels, float *sums, stage *s) {
  const cml_conv *v = j->c->v;
  const void *rows[CML_DEPTHWISE_ROWS];
  const size_t in = v->in_half ? 2 : 4, each = sums_channels(j->c->k, v) ? v->outputs : v->outputs / v->channels, plane = (size_t)(v->in[1] * v->in[2]), line = (size_t)(j->c->turned ? 1 : v->in[2]);
  for (int64_t i = 0; i < v->kernel[1]; i++) {
    int64_t h = row * v->stride[1] + v->offset[1] + i * v->dilation[1];
    bool outside = h < 0 || h >= v->in[1];
    if (s && !outside && s->held[h % v->kernel[1]] != h) {
      stage_row(j, s, image, h, c, channels);
      s->held[h % v->kernel[1]] = h;
    }
    rows[i] = outside ? NULL : s ? (const char *)(s->rows + (size_t)(h % v->kernel[1]) * s->row_floats)
                                 : (const char *)j->c->x + (((size_t)image * plane + (size_t)h * line) * cml_conv_in_pixel(v) + c / each) * in;
  }
  cml_depthwise_row(j->c, image, row, c, channels,
                    &(cml_depthwise){.rows = rows, .x_half = v->in_half && !s, .first = s ? 0 : v->offset[2], .columns = s ? (int64_t)s->columns : v->in[2],
                                     .pixel = s ? channels : (j->c->turned ? (size_t)v->in[1] : 1) * cml_conv_in_pixel(v)}, sums);
}

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) {
    size_t c = i % j->chunks * j->chunk, n = i % j->chunks + 1 == j->chunks ? j->c->v->outputs - c : j->chunk;
    int64_t band = (int64_t)(i / j->chunks), image = band / j->bands, first = band % j->bands * j->band;
    int64_t last = first + j->band < j->c->v->out[1] ? first + j->band : j->c->v->out[1];
    float *sums = (float *)(void *)((char *)j->c->scratch + thread * j->slot);
    stage s = {.rows = sums + (size_t)j->c->v->out[2] * n, .columns = staged_columns(j->c->v)};
    s.row_floats = s.columns * n;
    for (int64_t r = 0; r < CML_DEPTHWISE_ROWS; r++) s.held[r] = -1;
    for (int64_t row = first; row < last; row++) run_row(j, image, row, c, n, sums, j->staged ? &s : NULL);
  }
}

void cml_depthwise_run(const cml_conv_call *given) {
  cml_conv_call call = *given, *c = &call;
  const cml_conv turned = turn(*given->v);
  if (turns(c->k, given->v)) call.v = &turned, call.turned = true;
  const cml_conv *v = c->v;
  size_t threads = cml_pool_threads(c->pool);
  job j = {.c = c, .slot = cml_depthwise_scratch(c->k, given->v), .chunk = chunk_channels(c->k, v), .staged = stages(c->k, v)};
  j.chunks = (v->outputs + j.chunk - 1) / j.chunk;
  if (j.chunks > 1 && v->outputs % j.chunk && v->outputs % j.chunk < c->k->width) j.chunks--; /* less than a vector joins the chunk before it */
  size_t row = (size_t)v->in[2] * v->channels * (v->in_half ? 2 : 4) * (size_t)v->stride[1];
  j.band = 1 + (int64_t)(BAND_BYTES / (row + 1));
  /* enough bands for the threads */
  int64_t wanted = threads == 1 ? 1 : (int64_t)((6 * threads + j.chunks - 1) / j.chunks);
  if (j.band > (v->out[1] + wanted - 1) / wanted) j.band = (v->out[1] + wanted - 1) / wanted;
  j.bands = (v->out[1] + j.band - 1) / j.band;
  cml_parallel_with_thread(c->pool, v->batch * (size_t)j.bands * j.chunks, 1, run_units, &j);
}
