/* 3 x 3 convolutions by Winograd's F(4 x 4, 3 x 3): 36 products of tiles x channels with channels x outputs make 16 pixels of a
 * tile, where the definition takes 144: a quarter of the multiplications, for transformations of input and output by additions.
 *
 * Tiles of the input are transformed into V[36][tile][channels]; the 36 products of a block of tiles and of outputs are made in a thread's scratch and
 * transformed into pixels. Where tiles are many, each thread takes some, transforms them and goes through all outputs; where weights are more, threads
 * transform all tiles together and then take blocks of both. Weights are transformed when they are packed, in double. */
#include <math.h>
#include <string.h>

#include "conv.h"
#include "sizes.h"
#include "winograd.h"

enum { POINTS = 36, OUT = 4, IN = 6, PAD = 16, TILE_GROUPS = 2, OUTPUT_PANELS = 2, DEPTH_BLOCK = 288, FEWEST_TILES = 9,
       GROUP_CHANNELS = 16, /* of each group, in and out, where there are several; */
       GROUP_WORK = 512 /* such channels times tiles: fewer wait for the weights as long as they save */ };

static size_t tiles_across(const cml_conv *v) { return (size_t)(v->out[2] + OUT - 1) / OUT; }
static size_t tile_count(const cml_conv *v) { return tiles_across(v) * ((size_t)(v->out[1] + OUT - 1) / OUT); }

/* With fewer tiles than FEWEST_TILES, reading the weights, four times as many, takes the time that multiplications save, and memory. */
bool cml_conv_suits_winograd(const cml_kernels *k, const cml_conv *v) {
  if (v->kernel[0] != 1 || v->kernel[1] != 3 || v->kernel[2] != 3 || v->in[0] != 1 || !v->groups || !v->in_last || !v->out_last) return false;
  if (v->in_half && cml_conv_suits_parts(k, v)) return false; /* nine products of halves by matrix units are faster than four, and exact */
  for (int i = 0; i < 3; i++)
    if (v->stride[i] != 1 || v->dilation[i] != 1 || v->step[i] != 1) return false;
  /* for what the transforms cost: vectors of 16 take half of the instructions for 8 channels, and leave a direct tile three quarters idle */
  const size_t channels = v->channels / v->groups, outputs = v->outputs / v->groups, smaller = least(channels, outputs), larger = channels + outputs - smaller;
  bool enough = smaller >= 8 && larger >= (k->width >= 16 ? 8 : 16);
  /* Tiles that hang over the image's edges take what they save where a direct convolution fills its tiles no worse. */
  size_t tiles = tile_count(v), pixels = (size_t)(v->out[1] * v->out[2]);
  if (v->groups > 1 && (smaller < GROUP_CHANNELS || smaller * tiles < GROUP_WORK)) return false;
  bool filled = smaller > (k->width >= 16 ? 16 : 23) || 10 * OUT * OUT * tiles <= 14 * pixels;
  return enough && filled && v->out[1] >= 8 && v->out[2] >= 8 && tiles >= FEWEST_TILES;
}

/* ---- weights: [group][output block][36][panel of the block][channel][tile_columns], as they are read ---- */

static size_t block_panels(const cml_kernels *k) { return k->tile_columns >= 32 ? OUTPUT_PANELS : 2 * OUTPUT_PANELS; }
static size_t output_block(const cml_kernels *k) { return k->tile_columns * block_panels(k); }
static size_t group_channels(const cml_conv *v) { return v->channels / v->groups; }
static size_t group_outputs(const cml_conv *v) { return v->outputs / v->groups; }
static size_t group_panels(const cml_kernels *k, const cml_conv *v) { return cml_panel_count(k, group_outputs(v)); }
static size_t panel_floats(const cml_kernels *k, const cml_conv *v) { return group_channels(v) * k->tile_columns; }

/* Where the panels of a block begin, those of one point after those of the one before; how many they are. */
static size_t block_floats(const cml_kernels *k, const cml_conv *v, size_t group, size_t block, size_t *panels) {
  size_t each = block_panels(k), all = group_panels(k, v);
  *panels = least(all - block * each, each);
  return (group * all + block * each) * POINTS * panel_floats(k, v);
}

size_t cml_winograd_packed_bytes(const cml_kernels *k, const cml_conv *v) { return v->groups * POINTS * group_panels(k, v) * panel_floats(k, v) * 4 + 64; }

enum { LANES = 2 /* of the narrowest CPU */, TOGETHER = CML_CONV_ROWS / 9 /* channels, whose rows of a point are written side by side */ };
typedef float floats __attribute__((vector_size(LANES * 4)));
typedef double doubles __attribute__((vector_size(LANES * 8)));

/* G g. Its rows are x = 0: {1, 0, 0} / p^2 q^2; +-p: p {1, +-p, p^2} / D p^2; +-q: {1, +-q, q^2} / -D q^2; infinity: {0, 0, 1}; D = 2 (p^2 - q^2). */
static inline void weight_line(const doubles *g, size_t step, doubles *to, size_t to_step) {
  const double p = CML_WINOGRAD_P, q = CML_WINOGRAD_Q, d = 2 * (p * p - q * q);
  const doubles a = g[0] * (1 / (d * p)) + g[2 * step] * (p / d), b = g[step] * (1 / d), c = g[0] * (-1 / (d * q * q)) - g[2 * step] * (1 / d), e = g[step] * (-1 / (d * q));
  to[0] = g[0] * (1 / (p * p * q * q));
  to[to_step] = a + b;
  to[2 * to_step] = a - b;
  to[3 * to_step] = c + e;
  to[4 * to_step] = c - e;
  to[5 * to_step] = g[2 * step];
}

/* G g G^T of weights [9][stride] for LANES outputs: point q to to[q * to_stride] */
static void transform_weights(const float *g, size_t stride, float *to, size_t to_stride) {
  doubles from[9], t[IN * 3], u[IN];
  for (size_t i = 0; i < 9; i++) {
    floats x;
    memcpy(&x, g + i * stride, sizeof x);
    from[i] = __builtin_convertvector(x, doubles);
  }
  for (size_t i = 0; i < 3; i++) weight_line(from + i, 3, t + i, 3);
  for (size_t i = 0; i < IN; i++) {
    weight_line(t + i * 3, 1, u, 1);
    for (size_t j = 0; j < IN; j++) {
      const floats x = __builtin_convertvector(u[j], floats);
      memcpy(to + (i * IN + j) * to_stride, &x, sizeof x);
    }
  }
}

static void pack_panel(void *context, size_t begin, size_t end) {
  const cml_conv_packing *j = context;
  const cml_conv *v = j->v;
  const size_t nr = j->k->tile_columns, each = block_panels(j->k), all = group_panels(j->k, v), channels = group_channels(v);
  float rows[CML_CONV_ROWS * CML_CONV_COLUMNS], points[POINTS * TOGETHER * CML_CONV_COLUMNS];
  for (size_t at = begin; at < end; at++) {
    const size_t group = at / all, p = at % all;
    size_t panels, base = block_floats(j->k, v, group, p / each, &panels), point = panels * panel_floats(j->k, v);
    for (size_t c = 0, n; c < channels; c += n) {
      n = least(channels - c, TOGETHER);
      cml_conv_weight_rows(j, group, p, c * 9, n * 9, rows);
      for (size_t i = 0; i < n; i++)
        for (size_t lane = 0; lane < nr; lane += LANES) transform_weights(rows + i * 9 * nr + lane, nr, points + i * nr + lane, n * nr);
      for (size_t q = 0; q < POINTS; q++) memcpy((float *)j->to + base + q * point + (p % each * channels + c) * nr, points + q * n * nr, n * nr * 4);
    }
  }
}

void cml_winograd_pack(cml_conv_packing *p, cml_pool *pool) { cml_parallel(pool, p->v->groups * group_panels(p->k, p->v), 1, pack_panel, p); }

/* ---- running ---- */

/* Transformed tiles of the images, from `first` on. */
typedef struct stripe {
  float *points; /* V: [36][count][channels + PAD] */
  size_t first, count;
} stripe;

typedef struct job {
  const cml_conv_call *c;
  size_t slot;                  /* bytes of a thread's scratch */
  stripe all;                   /* what threads share, or all tiles and the first thread's room for some */
  size_t across, of_image;      /* tiles in a row of an image, and in an image */
  size_t tile_blocks, output_blocks;
  size_t in_group, together;    /* blocks of a group's outputs, or groups in a block */
  size_t shares;                /* of blocks of tiles: a share's units follow each other, those of the same weights first */
} job;

static size_t tile_block(const cml_kernels *k) { return k->tile_rows * (k->tile_rows > 8 ? TILE_GROUPS : 2 * TILE_GROUPS); }

/* products of a block, and a patch of the input; pixels of a tile where the output is not written directly */
size_t cml_winograd_scratch(const cml_kernels *k, const cml_conv *v) {
  size_t sums = POINTS * tile_block(k) * (output_block(k) + PAD), patch = IN * IN * v->channels, pixels = OUT * OUT * output_block(k);
  return up((sums + patch + pixels) * 4, 64) + 64;
}

static size_t all_tiles(const cml_conv *v) { return v->batch * tile_count(v); }

/* What is larger, transformed tiles or weights, is read once: tiles by the thread that made them. */
static bool reads_tiles_once(const cml_conv *v) { return all_tiles(v) >= group_outputs(v); }
static size_t stripe_floats(const cml_conv *v, size_t tiles) { return POINTS * tiles * (v->channels + PAD); }

size_t cml_winograd_shared(const cml_kernels *k, const cml_conv *v, size_t slots) {
  return (reads_tiles_once(v) ? slots * stripe_floats(v, tile_block(k)) : stripe_floats(v, all_tiles(v))) * 4 + 64;
}

/* The 6 x 6 pixels that a tile needs, zeros where they are padding. */
static void patch_of(const job *j, size_t image, int64_t row, int64_t column, float *to) {
  const cml_conv *v = j->c->v;
  const size_t n = v->channels, pixel = cml_conv_in_pixel(v);
  for (int64_t r = row; r < row + IN; r++, to += IN * n) {
    if (r < 0 || r >= v->in[1]) {
      memset(to, 0, IN * n * 4);
      continue;
    }
    int64_t first = column < 0 ? -column : 0, last = v->in[2] - column < IN ? v->in[2] - column : IN;
    if (first > IN) first = IN;
    if (last < first) last = first;
    memset(to, 0, (size_t)first * n * 4);
    memset(to + (size_t)last * n, 0, (size_t)(IN - last) * n * 4);
    size_t at = ((image * (size_t)v->in[1] + (size_t)r) * (size_t)v->in[2] + (size_t)(column + first)) * pixel, runs = pixel == n ? last > first : (size_t)(last - first);
    size_t count = runs ? (size_t)(last - first) * n / runs : 0;
    float *into = to + (size_t)first * n;
    for (size_t i = 0; i < runs; i++, at += pixel, into += count) {
      if (v->in_half) j->c->k->f16_to_f32((const cml_f16 *)j->c->x + at, into, count);
      else memcpy(into, (const float *)j->c->x + at, count * 4);
    }
  }
}

static void transform_tiles(const job *j, const stripe *s, size_t thread, size_t begin, size_t end) {
  const cml_conv *v = j->c->v;
  const size_t n = v->channels, pixel = cml_conv_in_pixel(v), stride = n + PAD;
  float *patch = (float *)(void *)((char *)j->c->scratch + thread * j->slot);
  for (size_t i = begin; i < end; i++) {
    const size_t image = (s->first + i) / j->of_image, t = (s->first + i) % j->of_image;
    int64_t row = (int64_t)(t / j->across * OUT) + v->offset[1], column = (int64_t)(t % j->across * OUT) + v->offset[2];
    bool inside = !v->in_half && row >= 0 && column >= 0 && row + IN <= v->in[1] && column + IN <= v->in[2];
    const float *x = patch;
    size_t line = IN * n, each = n;
    if (inside) {
      each = pixel;
      x = (const float *)j->c->x + ((image * (size_t)v->in[1] + (size_t)row) * (size_t)v->in[2] + (size_t)column) * pixel;
      line = (size_t)v->in[2] * pixel;
    } else {
      patch_of(j, image, row, column, patch);
    }
    j->c->k->winograd_input(n, x, each, line, s->points + i * stride, s->count * stride);
  }
}

/* One panel of weights against all tiles of the block; with each goes a part of asking for the next panel. */
static void panel_products(const job *j, const float *a, const float *b, size_t tiles, size_t outputs, float *c, size_t c_stride, bool last) {
  const cml_kernels *k = j->c->k;
  size_t n = group_channels(j->c->v), nr = k->tile_columns, a_stride = j->c->v->channels + PAD, groups = (tiles + k->tile_rows - 1) / k->tile_rows;
  size_t pieces = (n + DEPTH_BLOCK - 1) / DEPTH_BLOCK, even = (n + pieces - 1) / pieces;
  cml_tile tile = {.columns = outputs, .stretches = 1, .a_stride = a_stride, .from_stride = c_stride, .low = -INFINITY, .high = INFINITY, .c_stride = c_stride};
  for (size_t d = 0; d < n; d += even) {
    tile.depth = least(n - d, even);
    tile.b = b + d * nr;
    size_t bytes = tile.depth * nr * 4, share = (bytes / groups + 63) & ~(size_t)63;
    const char *next = last && d + even >= n ? NULL : (const char *)(b + (d + tile.depth) * nr);
    tile.ask_step = (share + tile.depth - 1) / tile.depth;
    for (size_t t = 0, g = 0, end; g < groups; g++, t = end) {
      end = (g + 1) * tiles / groups;
      tile.rows = end - t;
      tile.a = a + t * a_stride + d;
      tile.c = c + t * c_stride;
      tile.from = d ? tile.c : NULL;
      tile.ask = next ? next + g * share : NULL;
      k->tile(&tile);
    }
  }
}

/* A block of a group's outputs, or all of them. */
static void products(const job *j, const stripe *s, size_t t0, size_t tiles, size_t group, size_t block, size_t outputs, float *sums, size_t stride) {
  const cml_kernels *k = j->c->k;
  const cml_conv *v = j->c->v;
  size_t nr = k->tile_columns, panels;
  const float *b = (const float *)j->c->weights.packed + block_floats(k, v, group, block, &panels);
  const bool last = group + 1 == v->groups && block + 1 == j->in_group;
  for (size_t q = 0; q < POINTS; q++) {
    const float *a = s->points + (q * s->count + t0) * (v->channels + PAD) + group * group_channels(v);
    float *c = sums + q * tile_block(k) * stride;
    for (size_t p = 0; p < panels; p++, b += panel_floats(k, v))
      panel_products(j, a, b, tiles, least(outputs - p * nr, nr), c + p * nr, stride, last && q + 1 == POINTS && p + 1 == panels);
  }
}

/* Those of tiles [t0, t0 + tiles) of the stripe, of outputs' block o. */
static void make_pixels(const job *j, const stripe *s, size_t thread, size_t t0, size_t tiles, size_t o) {
  const cml_conv *v = j->c->v;
  const size_t stride = output_block(j->c->k) + PAD, q_stride = tile_block(j->c->k) * stride;
  float *sums = (float *)(void *)((char *)j->c->scratch + thread * j->slot), *pixels = sums + POINTS * q_stride + IN * IN * v->channels, low, high;
  cml_epilogue_clamp(&j->c->after, &low, &high);
  const size_t group = o / j->in_group * j->together, block = o % j->in_group, some = least(v->groups - group, j->together);
  const size_t before = block * output_block(j->c->k), each = least(group_outputs(v) - before, output_block(j->c->k));
  const size_t o0 = group * group_outputs(v) + before, outputs = some * each;
  for (size_t g = 0; g < some; g++) products(j, s, t0, tiles, group + g, block, each, sums + g * each, stride);
  const float *bias = j->c->after.bias ? j->c->after.bias + o0 : NULL;
  for (size_t t = t0; t < t0 + tiles; t++) {
    const size_t image = (s->first + t) / j->of_image, place = (s->first + t) % j->of_image;
    size_t row = place / j->across * OUT, column = place % j->across * OUT;
    size_t rows = least((size_t)v->out[1] - row, OUT), columns = least((size_t)v->out[2] - column, OUT);
    size_t at = (image * (size_t)v->out[1] + row) * (size_t)v->out[2] + column, line = (size_t)v->out[2];
    const float *m = sums + (t - t0) * stride;
    float *y = v->out_half ? pixels : (float *)j->c->y + at * v->out_pixel + o0;
    size_t pixel = v->out_half ? outputs : v->out_pixel, y_row = v->out_half ? OUT * outputs : line * v->out_pixel;
    j->c->k->winograd_output(outputs, m, q_stride, bias, low, high, y, pixel, y_row, rows, columns);
    for (size_t r = 0; r < rows; r++)
      cml_epilogue_store(j->c->k, &j->c->after, y + r * y_row, pixel, columns, outputs, j->c->y, v->out_pixel, v->out_half, at + r * line, o0);
  }
}

static void transform_shared(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  transform_tiles(j, &j->all, thread, begin, end);
}

static void pixels_of_shared(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) {
    size_t share = ((i / j->output_blocks + 1) * j->shares - 1) / j->tile_blocks, begins = share * j->tile_blocks / j->shares;
    size_t parts = (share + 1) * j->tile_blocks / j->shares - begins, part = begins + (i - begins * j->output_blocks) % parts;
    size_t t0 = part * j->all.count / j->tile_blocks, tiles = (part + 1) * j->all.count / j->tile_blocks - t0;
    make_pixels(j, &j->all, thread, t0, tiles, (i - begins * j->output_blocks) / parts);
  }
}

static void blocks_alone(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) {
    const size_t first = i * j->all.count / j->tile_blocks, count = (i + 1) * j->all.count / j->tile_blocks - first;
    const stripe s = {j->all.points + thread * stripe_floats(j->c->v, tile_block(j->c->k)), first, count};
    transform_tiles(j, &s, thread, 0, count);
    for (size_t o = 0; o < j->output_blocks; o++) make_pixels(j, &s, thread, 0, count, o);
  }
}

/* In how many blocks the tiles are cut, by what the busiest thread does, in rows of a panel: those it multiplies, of each panel as many at least as take the time in
 * which the panel comes from memory, and those that another thread transformed, which come from its cache, where threads share tiles. */
static size_t choose_blocks(const cml_kernels *k, const cml_conv *v, size_t panels, size_t threads) {
  enum { WAIT = 10, FIXED = 2 };
  const bool alone = reads_tiles_once(v);
  const size_t count = all_tiles(v), least_blocks = (count + tile_block(k) - 1) / tile_block(k);
  size_t best = least_blocks, best_cost = SIZE_MAX;
  for (size_t blocks = least_blocks; blocks < least_blocks + 2 * threads && blocks <= count; blocks++) {
    const size_t rows = (count + blocks - 1) / blocks, groups = (rows + k->tile_rows - 1) / k->tile_rows, high = groups * ((rows + groups - 1) / groups);
    const size_t even = alone ? (blocks + threads - 1) / threads * panels : (blocks * panels + threads - 1) / threads, fewest = least(panels, block_panels(k));
    const size_t foreign = !alone && blocks % threads ? count * 6 / (5 * threads) : 0, cost = (even > fewest ? even : fewest) * ((high > WAIT ? high : WAIT) + FIXED) + foreign;
    if (cost < best_cost) best = blocks, best_cost = cost;
  }
  return best;
}

void cml_winograd_run(const cml_conv_call *c) {
  const cml_conv *v = c->v;
  job j = {.c = c, .slot = up(cml_winograd_scratch(c->k, v), 64), .across = tiles_across(v), .of_image = tile_count(v)};
  cml_pool *pool = cml_pool_threads(c->pool) > c->slots ? NULL : c->pool;
  j.all = (stripe){(float *)(void *)((char *)c->scratch + c->slots * j.slot), 0, all_tiles(v)};
  j.in_group = (group_outputs(v) + output_block(c->k) - 1) / output_block(c->k);
  j.together = j.in_group > 1 ? 1 : least(output_block(c->k) / group_outputs(v), v->groups);
  j.output_blocks = j.in_group * ((v->groups + j.together - 1) / j.together);
  j.tile_blocks = choose_blocks(c->k, v, (v->groups + j.together - 1) / j.together * group_panels(c->k, v), cml_pool_threads(pool));
  if (reads_tiles_once(v)) {
    cml_parallel_with_thread(pool, j.tile_blocks, 1, blocks_alone, &j);
    return;
  }
  j.shares = least(j.tile_blocks, cml_pool_threads(pool)); /* a thread has the tiles that it transformed */
  cml_parallel_with_thread(pool, j.all.count, 4, transform_shared, &j);
  cml_parallel_with_thread(pool, j.tile_blocks * j.output_blocks, 1, pixels_of_shared, &j);
}
