/* A convolution of single pixels and the depthwise one behind it, as in inverted residuals, whose image between them has several times the
 * channels of what goes in and comes out. A thread makes the rows of it that the next rows of outputs want, of some of the channels, in a
 * ring small enough for the second-level cache, and reads them there: nothing of that image is written to memory.
 *
 * Work is cut into bands of rows, whose first rows are computed twice, where each thread gets a few rows: pixels whose channels two threads
 * write pass from one core's cache to the other's. Else it is cut along channels, which are independent of one another in the second. */
#include "conv.h"
#include "sizes.h"

enum {
  RING_BYTES = 192 << 10, /* of rows that a thread holds, about; */
  PARTS_WORK = 12 << 20,  /* multiply-adds of floats from which parts of them pay */
  PARTS_PIXELS = 128,     /* that are made at a time, where matrix units bring weights into parts each time */
  MOST_RING = 512 << 10,
  UNITS = 3,              /* of channels that each thread gets, where there are as many */
  DEPTHWISE_COST = 4,     /* of a depthwise multiply-add, in those of a tile */
  SERIAL_BELOW = 400000   /* multiply-adds */
};

typedef struct layout {
  size_t chunk, chunks; /* channels */
  int64_t band, bands;  /* output rows */
  int64_t strip;        /* output rows made at a time */
  int64_t ring;         /* rows between, as many as a strip wants */
  size_t row;           /* floats of such a row */
  size_t ring_floats, sums_floats, gemm_bytes;
} layout;

static int64_t rows_for(const cml_conv *v, int64_t outputs) { return (outputs - 1) * v->stride[1] + (v->kernel[1] - 1) * v->dilation[1] + 1; }

/* Rows of a band. Each makes rows that its neighbours make, too, so that more bands are more work; fewer leave more to wait for at the end, an eighth
 * of a band about. Making a row counts as much as convolving one. */
static int64_t band_rows(const cml_conv *v, size_t units, size_t threads) {
  int64_t best = v->out[1];
  for (size_t bands = 1, least_cost = SIZE_MAX; threads > 1 && bands <= least((size_t)v->out[1], 2 * UNITS * threads); bands++) {
    int64_t band = (v->out[1] + (int64_t)bands - 1) / (int64_t)bands, made = rows_for(v, band) < v->in[1] ? rows_for(v, band) : v->in[1];
    size_t cost = (8 * ((bands * units + threads - 1) / threads) + 1) * (size_t)(made + band);
    if (cost < least_cost) least_cost = cost, best = band;
  }
  return best;
}

/* in_parts: what goes in is brought into parts for each chunk of channels again, which are as few as may be. */
static void lay_out(const cml_kernels *k, const cml_conv *v, bool in_parts, size_t threads, layout *l) {
  size_t nr = k->tile_columns, panels = cml_panel_count(k, v->channels), panel_row = (size_t)v->in[2] * nr * 4;
  int64_t least_rows = rows_for(v, 1) < v->in[1] ? rows_for(v, 1) : v->in[1];
  const bool by_rows = threads == 1 || v->out[1] >= 2 * UNITS * (int64_t)threads;
  size_t fit = RING_BYTES / (panel_row * (size_t)least_rows + 1), parts = by_rows ? 1 : least(panels, (in_parts ? 1 : UNITS) * threads), most = (panels + parts - 1) / parts;
  fit = fit < 1 ? 1 : least(fit, most);
  l->chunks = (panels + fit - 1) / fit;
  l->chunk = (panels + l->chunks - 1) / l->chunks * nr;
  l->chunks = (v->channels + l->chunk - 1) / l->chunk;
  l->chunk = least(l->chunk, v->channels);
  l->band = band_rows(v, l->chunks * v->batch, threads);
  l->row = (size_t)v->in[2] * l->chunk;
  int64_t room = (int64_t)(RING_BYTES / (l->row * 4 + 1)), tall = rows_for(v, 1) + PARTS_PIXELS / v->in[2], most_room = (int64_t)(MOST_RING / (l->row * 4 + 1));
  if (in_parts && room < tall) room = tall < most_room ? tall : most_room;
  l->strip = room > rows_for(v, 1) ? (room - rows_for(v, 1)) / v->stride[1] + 1 : 1;
  if (l->strip > l->band) l->strip = l->band;
  l->bands = (v->out[1] + l->band - 1) / l->band;
  l->ring = rows_for(v, l->strip) < v->in[1] ? rows_for(v, l->strip) : v->in[1];
  l->ring_floats = up((size_t)l->ring * l->row, 16) + k->width; /* vectors may read past the end */
  l->sums_floats = up((size_t)v->out[2] * l->chunk, 16) + k->width;
  l->gemm_bytes = up(cml_gemm_scratch(k) / 2, 64);
}

bool cml_conv_pair_fits(const cml_kernels *k, const cml_conv *v) {
  if (!cml_conv_is_depthwise(v) || !cml_depthwise_fits(k, v) || v->in[2] < 1 || v->in[2] > MOST_RING || v->out[1] < 1 || v->out[2] < 1) return false;
  int64_t rows = rows_for(v, 1) < v->in[1] ? rows_for(v, 1) : v->in[1];
  return rows <= (int64_t)(MOST_RING / ((size_t)v->in[2] * k->tile_columns * 4));
}

static size_t slot_bytes(const layout *l) { return up((l->ring_floats + l->sums_floats) * sizeof(float) + l->gemm_bytes, 64); }

size_t cml_conv_pair_scratch(const cml_kernels *k, const cml_conv *v, size_t threads) {
  layout l, in_parts;
  lay_out(k, v, false, threads, &l);
  lay_out(k, v, true, threads, &in_parts);
  return slot_bytes(&l) > slot_bytes(&in_parts) || !k->tile_parts ? slot_bytes(&l) : slot_bytes(&in_parts);
}

typedef struct job {
  const cml_conv_pair *p;
  layout l;
  size_t slot;
  bool in_parts;
} job;

/* Rows [from, to) of the image between, of a chunk's channels, to their places in the ring. */
static void make_rows(const job *j, int64_t image, int64_t from, int64_t to, size_t c, size_t channels, float *ring, void *scratch) {
  const cml_conv_pair *p = j->p;
  const cml_conv *v = p->second.v;
  const cml_kernels *k = p->second.k;
  const size_t width = (size_t)v->in[2], pixel = v->in_pixel ? v->in_pixel : p->depth, size = v->in_half ? 2 : 4;
  for (int64_t n; from < to; from += n) {
    int64_t at = from % j->l.ring;
    n = to - from < j->l.ring - at ? to - from : j->l.ring - at;
    cml_epilogue after = p->before;
    if (after.bias) after.bias += c;
    cml_gemm g = {.rows = (size_t)n * width, .columns = channels, .depth = p->depth, .a_stride = pixel, .a_depth_stride = 1, .a_half = v->in_half,
                  .a = (const char *)p->second.x + (size_t)(image * v->in[1] + from) * width * pixel * size,
                  .b = (const char *)p->packed + c / k->tile_columns * cml_panel_bytes(k, p->half, p->depth), .b_half = p->half, .in_parts = j->in_parts,
                  .c = ring + (size_t)at * width * channels, .c_stride = channels, .scratch = j->l.gemm_bytes, .after = after};
    cml_gemm_run(k, &g, 1, NULL, scratch, 1);
  }
}

static void run_unit(const job *j, size_t unit, char *scratch) {
  const cml_conv_call *call = &j->p->second;
  const cml_conv *v = call->v;
  const layout *l = &j->l;
  size_t c = unit % l->chunks * l->chunk, channels = least(v->channels - c, l->chunk);
  int64_t i = (int64_t)(unit / l->chunks), image = i / l->bands, row = i % l->bands * l->band;
  int64_t last = row + l->band < v->out[1] ? row + l->band : v->out[1], done = 0;
  float *ring = (float *)(void *)scratch, *sums = ring + l->ring_floats;
  for (int64_t strip; row < last; row += strip) {
    strip = last - row < l->strip ? last - row : l->strip;
    int64_t from = row * v->stride[1] + v->offset[1], to = from + rows_for(v, strip);
    if (from < done) from = done;
    if (to > v->in[1]) to = v->in[1];
    if (from < to) make_rows(j, image, from, to, c, channels, ring, sums + l->sums_floats), done = to;
    for (int64_t r = row; r < row + strip; r++) {
      const void *rows[CML_DEPTHWISE_ROWS];
      for (int64_t t = 0; t < v->kernel[1]; t++) {
        int64_t h = r * v->stride[1] + v->offset[1] + t * v->dilation[1];
        rows[t] = h < 0 || h >= v->in[1] ? NULL : ring + (size_t)(h % l->ring) * (size_t)v->in[2] * channels;
      }
      cml_depthwise_row(call, image, r, c, channels, &(cml_depthwise){.rows = rows, .first = v->offset[2], .columns = v->in[2], .pixel = channels}, sums);
    }
  }
}

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) run_unit(j, i, (char *)j->p->second.scratch + thread * j->slot);
}

void cml_conv_pair_run(const cml_conv_pair *p) {
  const cml_conv_call *call = &p->second;
  const cml_conv *v = call->v;
  if (!v->batch || v->out[1] <= 0 || v->out[2] <= 0) return;
  job j = {.p = p};
  size_t threads = least(cml_pool_threads(call->pool), call->slots);
  const size_t work = (size_t)(v->in[1] * v->in[2]) * p->depth * v->channels;
  j.in_parts = !v->plain && p->half == v->in_half && (p->half || work >= PARTS_WORK) && cml_parts_pay(call->k, p->half, v->in[1] * v->in[2], p->depth, v->channels);
  lay_out(call->k, v, j.in_parts, threads, &j.l);
  j.slot = slot_bytes(&j.l);
  bool little = v->batch * (size_t)(v->in[1] * v->in[2]) * v->channels * (p->depth + DEPTHWISE_COST * (size_t)(v->kernel[1] * v->kernel[2])) < SERIAL_BELOW;
  cml_parallel_with_thread(little ? NULL : call->pool, v->batch * (size_t)j.l.bands * j.l.chunks, 1, run_units, &j);
}
