/* Loops around the tiles. A block of rows of C is finished by one thread: for each stretch of depth that lets a panel of B stay
 * in the first-level cache, every panel meets every tile of rows; the partial sums stay in C (or in scratch, when C is float16
 * and each result may be rounded only once). */
#include "gemm.h"

#include <math.h>
#include <string.h>

enum {
  DEPTH_BLOCK = 256,  /* depth x tile_columns floats stay in the first-level cache */
  ROW_TILES = 8,      /* tiles of rows in a block: its part of A stays in the second-level cache */
  COLUMN_BLOCK = 512, /* columns of C that are collected in scratch */
  PAD = 16,
  SERIAL_BELOW = 400000 /* multiply-adds */
};

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t row_block(const cml_kernels *k) { return k->tile_rows * (k->tile_rows > 8 ? ROW_TILES : 2 * ROW_TILES); }

size_t cml_panel_count(const cml_kernels *k, size_t columns) { return (columns + k->tile_columns - 1) / k->tile_columns; }

size_t cml_pack_bytes(const cml_kernels *k, size_t depth, size_t columns, bool half) {
  return cml_panel_count(k, columns) * k->tile_columns * depth * (half ? 2 : 4) + 64;
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

/* One panel whose source has the depth side by side (a linear layer's weights): a transposition. */
static void pack_along(const cml_kernels *k, char *to, bool half, const char *b, bool b_half, size_t depth, size_t n, size_t stride) {
  size_t nr = k->tile_columns;
  if (n < nr) memset(to, 0, depth * nr * (half ? 2 : 4));
  if (!half && !b_half) {
    k->transpose(n, depth, (const float *)(const void *)b, stride, (float *)(void *)to, nr);
    return;
  }
  const cml_f16 *x = (const cml_f16 *)(const void *)b;
  float wide[64];
  for (size_t d0 = 0; d0 < depth; d0 += 64) {
    size_t m = least(depth - d0, 64);
    for (size_t j = 0; j < n; j++) {
      const cml_f16 *row = x + j * stride + d0;
      if (half) {
        cml_f16 *out = (cml_f16 *)(void *)to + d0 * nr + j;
        for (size_t d = 0; d < m; d++) out[d * nr] = row[d];
      } else {
        float *out = (float *)(void *)to + d0 * nr + j;
        k->f16_to_f32(row, wide, m);
        for (size_t d = 0; d < m; d++) out[d * nr] = wide[d];
      }
    }
  }
}

void cml_pack_panels(const cml_kernels *k, void *to, bool half, const void *b, bool b_half, size_t depth, size_t columns,
                     size_t depth_stride, size_t column_stride, size_t first, size_t last) {
  size_t nr = k->tile_columns, panel = depth * nr * (half ? 2 : 4), size = b_half ? 2 : 4;
  for (size_t p = first; p < last; p++) {
    const char *from = (const char *)b + p * nr * column_stride * size;
    size_t n = least(columns - p * nr, nr);
    if (column_stride == 1) pack_across(k, (char *)to + p * panel, half, from, b_half, depth, n, depth_stride);
    else pack_along(k, (char *)to + p * panel, half, from, b_half, depth, n, column_stride);
  }
}

/* ---- what follows the product ---- */

bool cml_epilogue_clamp(const cml_epilogue *e, float *low, float *high) {
  *low = -INFINITY;
  *high = INFINITY;
  if (e->residual) return false;
  if (e->activation == CML_UNARY_RELU) *low = 0;
  if (e->activation == CML_UNARY_CLIP) *low = e->a, *high = e->b;
  return e->activation == CML_UNARY_RELU || e->activation == CML_UNARY_CLIP || e->activation == CML_UNARY_COPY;
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
  bool joined = rows > 1 && block_stride == columns && c_stride == columns && (!e->residual || e->residual_stride == columns);
  size_t lines = joined ? 1 : rows, n = joined ? rows * columns : columns;
  for (size_t r = 0; r < lines; r++) {
    float *x = block + r * block_stride;
    if (e->residual) add_residual(k, e, x, c_half, (row + r) * e->residual_stride + column, n);
    if (!clamped && e->activation != CML_UNARY_COPY) k->unary(e->activation, x, x, n, e->a, e->b);
    if (c_half) k->f32_to_f16(x, (cml_f16 *)c + (row + r) * c_stride + column, n);
    else if (x != (float *)c + (row + r) * c_stride + column) memcpy((float *)c + (row + r) * c_stride + column, x, n * 4);
  }
}

/* ---- blocks ---- */

size_t cml_gemm_scratch(const cml_kernels *k) {
  return row_block(k) * (DEPTH_BLOCK + PAD + COLUMN_BLOCK) * sizeof(float) + 256;
}

/* Rows whose distance is a multiple of 2 KiB fall into the same few sets of the cache; such blocks are copied too. */
static bool needs_staging(const cml_gemm *g) {
  return g->a_half || g->a_depth_stride != 1 || (g->rows > 8 && g->a_stride * 4 % 2048 == 0);
}

static void stage(const cml_kernels *k, const cml_gemm *g, size_t r0, size_t rows, size_t d0, size_t depth, float *to, size_t stride) {
  if (g->a_depth_stride == 1) {
    for (size_t r = 0; r < rows; r++) {
      size_t at = (r0 + r) * g->a_stride + d0;
      if (g->a_half) k->f16_to_f32((const cml_f16 *)g->a + at, to + r * stride, depth);
      else memcpy(to + r * stride, (const float *)g->a + at, depth * 4);
    }
    return;
  }
  size_t at = r0 * g->a_stride + d0 * g->a_depth_stride;
  if (!g->a_half && g->a_stride == 1) {
    k->transpose(depth, rows, (const float *)g->a + at, g->a_depth_stride, to, stride);
    return;
  }
  for (size_t r = 0; r < rows; r++)
    for (size_t d = 0; d < depth; d++) {
      size_t i = at + r * g->a_stride + d * g->a_depth_stride;
      to[r * stride + d] = g->a_half ? cml_f16_to_f32(((const cml_f16 *)g->a)[i]) : ((const float *)g->a)[i];
    }
}

/* A block of C that one thread finishes: at most row_block rows. */
static void block(const cml_kernels *k, const cml_gemm *g, size_t r0, size_t rows, size_t j0, size_t columns, float *staged, float *sums) {
  bool copied = needs_staging(g);
  float *c = g->c_half ? sums : (float *)g->c + r0 * g->c_stride + j0, low, high;
  size_t c_stride = g->c_half ? columns : g->c_stride, mr = k->tile_rows, nr = k->tile_columns;
  cml_epilogue_clamp(&g->after, &low, &high);
  size_t tiles = (rows + mr - 1) / mr, pieces = (g->depth + DEPTH_BLOCK - 1) / DEPTH_BLOCK, piece = pieces ? (g->depth + pieces - 1) / pieces : 1;
  for (size_t d0 = 0; d0 < g->depth || !d0; d0 += piece) {
    size_t depth = least(g->depth - d0, piece), a_stride = copied ? DEPTH_BLOCK + PAD : g->a_stride;
    bool last = d0 + depth >= g->depth;
    const float *a = copied ? staged : (const float *)g->a + r0 * g->a_stride + d0;
    if (copied) stage(k, g, r0, rows, d0, depth, staged, a_stride);
    for (size_t j = 0; j < columns; j += nr) {
      const char *b = (const char *)g->b + ((j0 + j) * g->depth + d0 * nr) * (g->b_half ? 2 : 4);
      const float *bias = last && g->after.bias ? g->after.bias + j0 + j : NULL;
      size_t n = least(columns - j, nr);
      if (rows == 1 && !d0 && last && !bias && low == -INFINITY && high == INFINITY) {
        k->gemv_panel(n, depth, a, b, g->b_half, c + j);
        continue;
      }
      for (size_t t = 0, r = 0, next; t < tiles; t++, r = next) { /* of nearly equal height: a low tile costs as much as a higher one */
        next = (t + 1) * rows / tiles;
        k->gemm_tile(next - r, n, depth, a + r * a_stride, a_stride, b, g->b_half, c + r * c_stride + j, c_stride, d0 > 0, bias,
                     last ? low : -INFINITY, last ? high : INFINITY);
      }
    }
    if (last) break;
  }
  cml_epilogue_store(k, &g->after, c, c_stride, rows, columns, g->c, g->c_stride, g->c_half, r0, j0);
}

void cml_gemm_part(const cml_kernels *k, const cml_gemm *g, size_t r0, size_t r1, size_t j0, size_t j1, void *scratch) {
  float *staged = scratch, *sums = staged + row_block(k) * (DEPTH_BLOCK + PAD);
  size_t step = g->c_half ? COLUMN_BLOCK : j1 - j0;
  size_t parts = (r1 - r0 + row_block(k) - 1) / row_block(k);
  for (size_t p = 0, r = r0, next; p < parts; p++, r = next) {
    next = r0 + (p + 1) * (r1 - r0) / parts;
    for (size_t j = j0; j < j1; j += step) block(k, g, r, next - r, j, least(j1 - j, step), staged, sums);
  }
}

/* ---- on all threads ---- */

typedef struct run_context {
  const cml_kernels *k;
  const cml_gemm *g;
  size_t row_parts, column_parts, rows, columns; /* of a part */
  char *scratch;
  size_t slot;
} run_context;

static void run_parts(void *context, size_t thread, size_t begin, size_t end) {
  const run_context *c = context;
  for (size_t i = begin; i < end; i++) {
    const cml_gemm *g = &c->g[i / (c->row_parts * c->column_parts)];
    size_t r = i / c->column_parts % c->row_parts * c->rows, j = i % c->column_parts * c->columns;
    cml_gemm_part(c->k, g, r, least(r + c->rows, g->rows), j, least(j + c->columns, g->columns), c->scratch + thread * c->slot);
  }
}

void cml_gemm_run(const cml_kernels *k, const cml_gemm *g, size_t count, cml_pool *pool, void *scratch, size_t slots) {
  if (!count || !g->rows || !g->columns) return;
  size_t threads = cml_pool_threads(pool);
  if (slots < threads || count * g->rows * g->columns * g->depth < SERIAL_BELOW) pool = NULL, threads = 1; /* waking threads would take longer */
  run_context c = {.k = k, .g = g, .scratch = scratch, .slot = cml_gemm_scratch(k)};
  size_t wanted = threads == 1 ? 1 : 4 * threads, tiles = (g->rows + k->tile_rows - 1) / k->tile_rows, panels = cml_panel_count(k, g->columns);
  /* whole blocks of rows when there are enough of them, else fewer rows, else some of the columns */
  size_t row_tiles = row_block(k) / k->tile_rows, parts = (wanted + count - 1) / count;
  if (tiles / row_tiles < parts) row_tiles = tiles / parts ? tiles / parts : 1;
  if (row_tiles < 2 && tiles > 1) row_tiles = least(tiles, 2);
  if (threads == 1) row_tiles = tiles; /* cut evenly further down */
  c.rows = row_tiles * k->tile_rows;
  c.row_parts = (g->rows + c.rows - 1) / c.rows;
  size_t across = c.row_parts * count < parts ? parts / (c.row_parts * count) : 1;
  if (across > panels) across = panels;
  c.columns = (panels + across - 1) / across * k->tile_columns;
  c.column_parts = (g->columns + c.columns - 1) / c.columns;
  cml_parallel_with_thread(pool, count * c.row_parts * c.column_parts, 1, run_parts, &c);
}
