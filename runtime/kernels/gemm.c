/* Loops around the tiles. A block of rows of C is finished by one thread: for each stretch of depth that lets a panel of B stay
 * in the first-level cache, every panel meets every tile of rows; the partial sums stay in C (or in scratch, when C is float16
 * and each result may be rounded only once). */
#include "gemm.h"
#include "sizes.h"

#include <math.h>
#include <string.h>

enum {
  DEPTH_BLOCK = 256,  /* depth x tile_columns floats stay in the first-level cache */
  MOST_COLUMNS = 32,  /* of a tile */
  PARTS_ROOM = 768 << 10, /* bytes of rows of A in parts that stay in the second-level cache */
  PARTS_DEPTH = 8192, /* of which a few rows fit there */
  PARTS_ROWS = 448,   /* rows, at most, for which a panel of B is brought into parts */
  SLIM_BLOCK = 1024,  /* depth x CML_SLIM floats, too */
  LINES = 16,         /* of halves that are widened, then transposed */
  ROW_BLOCK = 224,    /* rows whose part of A, DEPTH_BLOCK deep, stays in the second-level cache */
  COLUMN_BLOCK = 256, /* columns of C that are collected in scratch */
  SHALLOW = 32,       /* depth up to which storing takes longer than multiplying: rows are finished a few tiles at a time */
  ROWS_AHEAD = 3,     /* that are asked for while one is staged: no prefetcher goes from page to page */
  GROUP_PANELS = 4,   /* panels after which a block's results are finished, while they are in the cache */
  PAD = 16,
  SERIAL_BELOW = 200000, /* multiply-adds: waking threads would take longer */
  PARTS_SERIAL_BELOW = 800000, /* the same in parts */
  SHARED_ROWS = 24, /* of a thread at least, where threads share rows */
  PARTS_WORK = 4 << 20, /* multiply-adds of floats from which parts pay */
  LEAST_SHARE = 65536    /* that one thread takes at a time */
};

size_t cml_panel_count(const cml_kernels *k, size_t columns) { return (columns + k->tile_columns - 1) / k->tile_columns; }

size_t cml_pack_bytes(const cml_kernels *k, size_t depth, size_t columns, bool half) { return cml_panel_count(k, columns) * cml_panel_bytes(k, half, depth) + 64; }

bool cml_parts_pay(const cml_kernels *k, bool half, int64_t rows, size_t depth, size_t columns) {
  if (!k->tile_parts || depth > PARTS_DEPTH) return false;
  /* parts are made of A for all columns, and of B for all rows; of floats by each thread of all that it reads, and six products leave little to gain */
  return half ? rows >= 32 && depth >= 20 && columns >= 20 : rows >= 40 && depth >= 64 && columns >= 96 && (size_t)rows * depth * columns >= PARTS_WORK;
}

/* One panel whose source has its columns side by side: row by row. */
static void pack_across(const cml_kernels *k, char *to, bool half, const char *b, bool b_half, size_t depth, size_t n, size_t stride) {
  size_t nr = k->tile_columns;
  for (size_t d = 0; d < depth; d++) {
    if (half) {
      memcpy(to + d * nr * 2, b + d * stride * 2, n * 2);
      if (n < nr) memset(to + (d * nr + n) * 2, 0, (nr - n) * 2);
      continue;
    }
    float *row = (float *)(void *)to + d * nr;
    if (b_half) k->f16_to_f32((const cml_f16 *)(const void *)b + d * stride, row, n);
    else memcpy(row, b + d * stride * 4, n * 4);
    if (n < nr) memset(row + n, 0, (nr - n) * 4);
  }
}

static void pack_rows(const cml_kernels *k, void *to, bool half, const char *b, bool b_half, size_t depth, size_t n, size_t depth_stride, size_t column_stride) {
  if (column_stride == 1) pack_across(k, to, half, b, b_half, depth, n, depth_stride);
  else k->pack_panel(to, half, b, b_half, depth, n, column_stride);
}

void cml_pack_panels(const cml_kernels *k, void *to, bool half, const void *b, bool b_half, size_t depth, size_t columns,
                     size_t depth_stride, size_t column_stride, size_t first, size_t last) {
  const size_t nr = k->tile_columns, panel = cml_panel_bytes(k, half, depth);
  for (size_t p = first; p < last; p++)
    pack_rows(k, (char *)to + p * panel, half, (const char *)b + p * nr * column_stride * (b_half ? 2 : 4), b_half, depth, least(columns - p * nr, nr), depth_stride, column_stride);
}

/* ---- what follows the product ---- */

bool cml_epilogue_bounds(const cml_epilogue *e, float *low, float *high) {
  *low = -INFINITY;
  *high = INFINITY;
  if (e->activation == CML_UNARY_RELU) *low = 0;
  if (e->activation == CML_UNARY_CLIP) *low = e->a, *high = e->b;
  return e->activation == CML_UNARY_RELU || e->activation == CML_UNARY_CLIP || e->activation == CML_UNARY_COPY;
}

bool cml_epilogue_clamp(const cml_epilogue *e, float *low, float *high) {
  if (!e->residual) return cml_epilogue_bounds(e, low, high);
  *low = -INFINITY;
  *high = INFINITY;
  return false;
}

static void add_residual(const cml_kernels *k, const cml_epilogue *e, float *x, bool half, size_t at, size_t n) {
  if (!half) {
    k->binary(CML_BINARY_ADD, x, (const float *)e->residual + at, x, n);
    return;
  }
  float wide[256];
  for (size_t i = 0; i < n; i += 256) {
    size_t m = least(n - i, 256);
    k->f16_to_f32((const cml_f16 *)e->residual + at + i, wide, m);
    k->binary(CML_BINARY_ADD, x + i, wide, x + i, m);
  }
}

void cml_epilogue_store(const cml_kernels *k, const cml_epilogue *e, float *block, size_t block_stride, size_t rows, size_t columns,
                        void *c, size_t c_stride, bool c_half, size_t row, size_t column) {
  float low, high;
  bool clamped = cml_epilogue_clamp(e, &low, &high);
  if (clamped && !c_half && block == (float *)c + row * c_stride + column) return;
  cml_unary f = clamped ? CML_UNARY_COPY : e->activation;
  char *to = (char *)c + (row * c_stride + column) * (c_half ? 2 : 4);
  if (!e->residual) {
    k->unary_rows(f, rows, columns, block, block_stride, to, c_stride, c_half, e->a, e->b);
    return;
  }
  bool joined = rows > 1 && block_stride == columns && c_stride == columns && e->residual_stride == columns;
  size_t lines = joined ? 1 : rows, n = joined ? rows * columns : columns;
  for (size_t r = 0; r < lines; r++) {
    float *x = block + r * block_stride;
    add_residual(k, e, x, c_half, (row + r) * e->residual_stride + column, n);
    k->unary_rows(f, 1, n, x, n, to + r * c_stride * (c_half ? 2 : 4), c_stride, c_half, e->a, e->b);
  }
}

/* ---- blocks ---- */

static const size_t row_scratch = (DEPTH_BLOCK + PAD + COLUMN_BLOCK) * sizeof(float), more_scratch = 256, widened_scratch = DEPTH_BLOCK * MOST_COLUMNS * sizeof(float);

size_t cml_gemm_scratch(const cml_kernels *k) { return k->tile_parts ? CML_PARTS_ROOM + PARTS_ROOM + more_scratch : cml_gemm_scratch_without_parts(); }
size_t cml_gemm_scratch_without_parts(void) { return ROW_BLOCK * row_scratch + more_scratch + widened_scratch; }

static size_t rows_of(size_t scratch) {
  size_t rows = scratch > more_scratch ? (scratch - more_scratch) / row_scratch : 0;
  return rows < 1 ? 1 : least(rows, ROW_BLOCK);
}

/* Rows whose distance is a multiple of 2 KiB fall into the same few sets of the cache: such blocks of A are copied, and of C collected elsewhere
 * when it would be read again for each piece of the depth. */
static bool same_sets(const cml_gemm *g, size_t stride) { return g->rows > 8 && stride * sizeof(float) % 2048 == 0; }
static bool needs_staging(const cml_gemm *g) { return g->a_half || g->a_depth_stride != 1 || same_sets(g, g->a_stride); }
static bool collects(const cml_gemm *g) { return g->c_half || (!g->more && g->depth > DEPTH_BLOCK && same_sets(g, g->c_stride)); }

/* Rows that lie side by side, a few lines of the depth at a time. */
static void stage_lines(const cml_kernels *k, const cml_f16 *a, size_t depth_stride, size_t rows, size_t depth, float *to, size_t to_stride) {
  float lines[LINES * ROW_BLOCK];
  const size_t some = least(rows, ROW_BLOCK);
  for (size_t r = 0, m; r < rows; r += m) {
    m = least(rows - r, some);
    for (size_t d = 0, n; d < depth; d += n) {
      n = least(depth - d, LINES * ROW_BLOCK / some);
      if (depth_stride == rows && m == rows) k->f16_to_f32(a + d * rows, lines, n * rows);
      else for (size_t i = 0; i < n; i++) k->f16_to_f32(a + (d + i) * depth_stride + r, lines + i * m, m);
      k->transpose(n, m, lines, m, to + r * to_stride + d, to_stride);
    }
  }
}

void cml_gemm_stage(const cml_kernels *k, const void *a, bool half, size_t stride, size_t depth_stride, size_t rows, size_t depth, float *to, size_t to_stride) {
  const size_t size = half ? 2 : 4;
  if (half && depth_stride == 1 && stride == depth && to_stride == depth) {
    k->f16_to_f32(a, to, rows * depth);
  } else if (depth_stride == 1) {
    for (size_t r = 0; r < rows; r++) {
      const char *from = (const char *)a + r * stride * size;
      for (size_t i = 0; i < depth * size && r + ROWS_AHEAD < rows; i += 64) __builtin_prefetch(from + ROWS_AHEAD * stride * size + i);
      if (half) k->f16_to_f32((const cml_f16 *)(const void *)from, to + r * to_stride, depth);
      else memcpy(to + r * to_stride, from, depth * 4);
    }
  } else if (stride == 1 && half) {
    stage_lines(k, a, depth_stride, rows, depth, to, to_stride);
  } else if (stride == 1) {
    k->transpose(depth, rows, a, depth_stride, to, to_stride);
  } else {
    for (size_t r = 0; r < rows; r++)
      for (size_t d = 0; d < depth; d++) {
        const size_t i = r * stride + d * depth_stride;
        to[r * to_stride + d] = half ? cml_f16_to_f32(((const cml_f16 *)a)[i]) : ((const float *)a)[i];
      }
  }
}

/* A stretch of the depth: the rows' part of A, and whether sums begin or end with it. */
typedef struct piece {
  const float *a;
  size_t a_stride, from, depth;
  bool first, last;
  float low, high;
} piece;

/* One panel of B against all rows of the block. The first tile leaves halves widened for the others where `widened` has room. The tiles are of nearly equal height, and with each goes a part of asking for the
 * next panel, which comes from memory or from a cache far away. */
static void run_panel(const cml_kernels *k, const cml_gemm *g, const piece *p, size_t rows, size_t column, size_t n, float *c, size_t c_stride,
                      float *widened) {
  const bool half = g->b_half;
  size_t size = half ? 2 : 4, nr = k->tile_columns, tiles = (rows + k->tile_rows - 1) / k->tile_rows, bytes = p->depth * nr * size;
  size_t share = (bytes / tiles + 63) & ~(size_t)63;
  const char *b = (const char *)g->b + (g->b_column ? p->from : column * g->depth + p->from * nr) * size, *next = b + g->depth * nr * size;
  const float *bias = p->last && g->after.bias ? g->after.bias + column : NULL;
  if (g->rows == 1 && !g->b_column && p->first && p->last && !bias && p->low == -INFINITY && p->high == INFINITY) {
    k->gemv_panels(n, p->depth, p->a, b, half, !half, c);
    return;
  }
  cml_tile tile = {.columns = n, .stretches = 1, .depth = p->depth, .a_stride = p->a_stride, .b = b, .b_half = half, .b_column = g->b_column, .from_stride = c_stride,
                   .bias = bias, .low = p->last ? p->low : -INFINITY, .high = p->last ? p->high : INFINITY, .c_stride = c_stride,
                   .ask_step = p->depth ? (share + p->depth - 1) / p->depth : 0};
  for (size_t t = 0, r = 0, end; t < tiles; t++, r = end) {
    end = (t + 1) * rows / tiles;
    tile.rows = end - r;
    tile.ask = column + nr < g->columns && t * share < bytes ? next + t * share : NULL;
    tile.a = p->a + r * p->a_stride;
    tile.c = c + r * c_stride;
    tile.from = p->first ? NULL : tile.c;
    if (widened && tiles > 1 && n > nr / 2) {
      tile.widened = t ? NULL : widened;
      if (t) tile.b = widened, tile.b_half = false;
    }
    k->tile(&tile);
  }
}

/* A block of C that one thread finishes: at most as many rows as scratch has room for, and COLUMN_BLOCK columns when sums are collected. */
static void block(const cml_kernels *k, const cml_gemm *g, size_t r0, size_t rows, size_t j0, size_t columns, float *scratch,
                  size_t room) {
  bool copied = needs_staging(g), collected = collects(g);
  float *staged = scratch, *sums = staged + rows * (DEPTH_BLOCK + PAD);
  float *c = collected ? sums : (float *)g->c + r0 * g->c_stride + j0;
  size_t c_stride = collected ? columns : g->c_stride, nr = k->tile_columns;
  const size_t deepest = g->b_column && !copied ? SLIM_BLOCK : DEPTH_BLOCK; /* the ends of slim sums take as long as 64 of the depth */
  size_t pieces = (g->depth + deepest - 1) / deepest, depth = pieces ? (g->depth + pieces - 1) / pieces : 1;
  const bool shallow = g->depth <= SHALLOW, dense = shallow && g->depth == g->a_stride && g->a_depth_stride == 1;
  const size_t bands = shallow && collected && !g->b_column && columns > nr ? (rows + 2 * k->tile_rows - 1) / (2 * k->tile_rows) : 1, staged_stride = dense ? g->depth : DEPTH_BLOCK + PAD;
  const size_t used = up(rows * (DEPTH_BLOCK + PAD + (collected ? columns : 0)), 16);
  piece p = {.first = !g->more};
  cml_epilogue_clamp(&g->after, &p.low, &p.high);
  for (; !p.last; p.from += depth, p.first = false) {
    p.depth = least(g->depth - p.from, depth);
    p.last = p.from + p.depth >= g->depth;
    p.a = copied ? staged : (const float *)g->a + r0 * g->a_stride + p.from;
    p.a_stride = copied ? staged_stride : g->a_stride;
    if (copied) cml_gemm_stage(k, (const char *)g->a + (r0 * g->a_stride + p.from * g->a_depth_stride) * (g->a_half ? 2 : 4), g->a_half, g->a_stride, g->a_depth_stride, rows, p.depth, staged, p.a_stride);
    float *widened = g->b_half && !g->b_column && used + p.depth * nr <= room ? scratch + used : NULL;
    for (size_t i = 0; i < bands; i++) {
      const size_t r = i * rows / bands, some = (i + 1) * rows / bands - r;
      piece part = p;
      part.a += r * p.a_stride;
      float *to = collected ? c : c + r * c_stride; /* bands are finished with their only piece of the depth */
      for (size_t at = 0; at < columns; at += GROUP_PANELS * nr) {
        size_t end = least(columns, at + GROUP_PANELS * nr);
        for (size_t j = at; j < end; j += nr) run_panel(k, g, &part, some, j0 + j, least(end - j, nr), to + j, c_stride, widened);
        if (p.last) cml_epilogue_store(k, &g->after, to + at, c_stride, some, end - at, g->c, g->c_stride, g->c_half, r0 + r, j0 + at);
      }
    }
  }
}

/* ---- blocks in parts, for matrix units ---- */

/* From row to row: an odd number of lines, which are spread over all sets of the cache. */
static size_t parts_row(const cml_gemm *g) { return (up(g->depth, CML_PART_DEPTH) / CML_PART_DEPTH | 1) * CML_PART_DEPTH; }

/* Rows of A in parts. */
static void stage_parts(const cml_kernels *k, const cml_gemm *g, size_t r0, size_t rows, uint16_t *to, size_t stride) {
  const size_t size = g->a_half ? 2 : 4, apart = rows * stride;
  const char *a = (const char *)g->a + r0 * g->a_stride * size;
  const bool half = g->b_half;
  if (g->a_depth_stride == 1 && g->a_half == half) {
    k->part(g->a_half, rows, g->depth, a, g->a_stride, to, stride, apart);
    return;
  }
  float lines[LINES * DEPTH_BLOCK];
  cml_f16 halves[LINES * DEPTH_BLOCK];
  for (size_t r = 0, m; r < rows; r += m)
    for (size_t d = 0, n; m = least(rows - r, LINES), d < g->depth; d += n) {
      n = least(g->depth - d, DEPTH_BLOCK);
      cml_gemm_stage(k, a + (r * g->a_stride + d * g->a_depth_stride) * size, g->a_half, g->a_stride, g->a_depth_stride, m, n, lines, n);
      if (half) k->f32_to_f16(lines, halves, m * n);
      k->part(half, m, n, half ? (const void *)halves : lines, n, to + r * stride + d, stride, apart);
    }
}

/* The rows' whole depth in parts, so that results are stored as they should be. scratch: the tiles' room, then the rows'. after: the panel that comes
 * after these. */
static void block_of_parts(const cml_kernels *k, const cml_gemm *g, size_t r0, size_t rows, size_t j0, size_t columns, bool staged, const void *after, char *scratch) {
  const size_t nr = k->tile_columns, stride = parts_row(g), panel = cml_panel_bytes(k, g->b_half, g->depth), size = g->c_half ? 2 : 4;
  uint16_t *parts = (uint16_t *)(void *)(scratch + CML_PARTS_ROOM);
  const cml_epilogue *e = &g->after;
  if (!staged) stage_parts(k, g, r0, rows, parts, stride);
  cml_tile t = {.rows = rows, .stretches = 1, .depth = g->depth, .parts = parts, .a_stride = stride, .parts_apart = rows * stride, .room = scratch, .b_half = g->b_half,
                .from_stride = g->c_stride, .residual_stride = e->residual_stride, .c_stride = g->c_stride, .c_half = g->c_half};
  if (!cml_epilogue_bounds(e, &t.low, &t.high)) t.unary_rows = k->unary_rows, t.f = e->activation, t.f_a = e->a, t.f_b = e->b;
  for (size_t j = j0; j < j0 + columns; j += nr) {
    t.columns = least(j0 + columns - j, nr);
    t.b = (const char *)g->b + j / nr * panel;
    t.next = j + nr < j0 + columns ? (const char *)t.b + panel : after;
    t.bias = e->bias ? e->bias + j : NULL;
    t.residual = e->residual ? (const char *)e->residual + (r0 * e->residual_stride + j) * size : NULL;
    t.c = (char *)g->c + (r0 * g->c_stride + j) * size;
    t.from = g->more ? t.c : NULL;
    k->tile_parts(&t);
  }
}

/* ---- on all threads ---- */

/* Into how many parts rows are cut for matrix units: threads that take all rows of some columns bring each row into parts again, those that take some rows of
 * all columns each panel. In cycles of 32 of the depth: a row, a panel, and a strip of 16 rows times a panel, of which half hides the next panel. */
static size_t parts_of_rows(const cml_gemm *g, size_t panels, size_t threads, size_t least_parts) {
  const size_t row = g->b_half ? 12 : 24, panel = g->b_half ? 256 : 350, strip = g->b_half ? 96 : 192;
  size_t best = least_parts, least_cost = SIZE_MAX;
  for (size_t n = 1; n <= threads; n++) {
    const size_t parts = n * least_parts, rows = (g->rows + parts - 1) / parts, strips = (rows + 15) / 16, own = (panels * parts + threads - 1) / threads;
    if (parts > 1 && rows < 16) break;
    const size_t hidden = least(panel, strips * strip) * 3 / 4, cost = (own + panels - 1) / panels * rows * row + own * (strips * strip + panel - hidden);
    if (cost < least_cost) least_cost = cost, best = parts;
  }
  return best;
}

/* How many threads share the rows; as many times fewer share the columns. A row of A, most likely from another thread's cache and not asked for, is worth 16
 * columns of B. */
static size_t row_shares(const cml_gemm *g, size_t threads) {
  enum { ROW = 16 };
  size_t best = 1, least_cost = SIZE_MAX;
  for (size_t n = 1; n <= threads && (n == 1 || g->rows / n >= SHARED_ROWS); n++) {
    const size_t cost = ROW * g->rows / n + g->columns * n / threads;
    if (cost < least_cost) least_cost = cost, best = n;
  }
  return best;
}

/* The unit of work is a panel of columns against a part of the rows, all parts of nearly equal height. */
typedef struct run_context {
  const cml_kernels *k;
  const cml_gemm *g;
  size_t row_parts, panels, units;
  char *scratch;
  size_t slot;
} run_context;

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const run_context *c = context;
  float *scratch = (float *)(void *)(c->scratch + thread * c->slot);
  for (size_t n; begin < end; begin += n) { /* neighbouring panels together */
    const cml_gemm *g = &c->g[begin / (c->panels * c->row_parts)];
    size_t part = begin / c->panels % c->row_parts, panel = begin % c->panels, nr = c->k->tile_columns;
    n = least(end - begin, c->panels - panel);
    size_t r = part * g->rows / c->row_parts, rows = (part + 1) * g->rows / c->row_parts - r, last = least((panel + n) * nr, g->columns);
    if (g->in_parts) { /* what the thread has in parts stays there from piece to piece */
      size_t *staged = (size_t *)(void *)((char *)scratch + c->slot) - 1;
      const size_t next = begin + n; /* in this call, or likely in the next */
      const void *after = next >= c->units ? NULL : (const char *)c->g[next / (c->panels * c->row_parts)].b + next % c->panels * cml_panel_bytes(c->k, g->b_half, g->depth);
      block_of_parts(c->k, g, r, rows, panel * nr, last - panel * nr, *staged == begin / c->panels, after, (char *)scratch);
      *staged = begin / c->panels;
      continue;
    }
    size_t step = collects(g) ? COLUMN_BLOCK : last;
    for (size_t j = panel * nr; j < last; j += step) block(c->k, g, r, rows, j, least(last - j, step), scratch, c->slot / sizeof(float));
  }
}

void cml_gemm_run(const cml_kernels *k, const cml_gemm *g, size_t count, cml_pool *pool, void *scratch, size_t slots) {
  if (!count || !g->rows || !g->columns) return;
  const bool parts = g->in_parts;
  size_t threads = least(cml_pool_threads(pool), slots), most_rows = g->scratch ? rows_of(g->scratch) : ROW_BLOCK;
  const size_t slot = g->scratch ? g->scratch : cml_gemm_scratch(k);
  if (parts) {
    const size_t fit = (slot - CML_PARTS_ROOM - more_scratch) / (parts_row(g) * cml_part_count(k, g->b_half) * sizeof(uint16_t));
    most_rows = fit < 1 ? 1 : least(fit, PARTS_ROWS);
  }
  if (count * g->rows * g->columns * g->depth < (parts ? PARTS_SERIAL_BELOW : SERIAL_BELOW)) threads = 1;
  run_context c = {.k = k, .g = g, .row_parts = (g->rows + most_rows - 1) / most_rows, .panels = cml_panel_count(k, g->columns), .scratch = scratch, .slot = slot};
  /* enough units to end together */
  const size_t tiles = (g->rows + k->tile_rows - 1) / k->tile_rows, wanted = threads == 1 ? 1 : (12 * threads + count * c.panels - 1) / (count * c.panels);
  if (parts && count < threads) c.row_parts = parts_of_rows(g, c.panels, threads, c.row_parts);
  const size_t row_parts = count < threads ? up(c.row_parts, row_shares(g, threads)) : c.row_parts, units = count * row_parts * c.panels, longest = (units + threads - 1) / threads;
  if (!parts) c.row_parts = longest >= 3 && 10 * longest * threads <= 11 * units ? row_parts : c.row_parts < wanted ? least(wanted, tiles) : c.row_parts;
  c.units = count * c.row_parts * c.panels;
  for (size_t i = 0; i < threads && parts; i++) {
    *((size_t *)(void *)((char *)scratch + (i + 1) * slot) - 1) = SIZE_MAX;
    cml_parts_begin((char *)scratch + i * slot);
  }
  size_t unit = (g->rows + c.row_parts - 1) / c.row_parts * k->tile_columns * (g->depth + 1);
  cml_parallel_among(pool, threads, c.units, 1 + LEAST_SHARE / unit, run_units, &c);
}
