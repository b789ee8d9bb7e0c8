/* The matrix product's inner kernels, compiled once for each instruction set.
 *
 * A tile of the result, tile_rows x tile_columns, stays in registers while the depth is walked: each step loads one row of the
 * packed b (contiguous) and broadcasts one element of each row of a. a is read in place, its rows at a constant distance, so
 * that neither linear layers nor channels-last convolutions copy it; b, mostly weights, is packed in panels. */
#include <math.h>

#include "kernels_internal.h"
#include "simd.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Panels hold NV vectors of columns. WIDE: one vector more, the first of the next panel, for fewer rows: what is left of the columns behind
 * a panel would fill half of a tile, which waits for its loads. */
enum { MR = CML_TILE_ROWS, NV = CML_TILE_VECTORS, NR = NV * W, WIDE = NV + 1, WIDE_ROWS = CML_TILE_MAX > 6 ? 9 : 4 };

/* A panel's only tile asks for all of the next one: two lines a step where a row of a panel is two. Few rows wait for memory either way, and lose by it. */
enum { LINE = 64, ASKS_TWO = NR * sizeof(float) > LINE, ASKING_ROWS = 5 };

VINLINE void b_row(const int nv, vf *to, const void *b, bool half, size_t k) {
  UNROLL for (int j = 0; j < nv; j++)
    to[j] = half ? vh_load((const cml_f16 *)b + k * NR + (size_t)j * W) : vf_load((const float *)b + k * NR + (size_t)j * W);
}
VINLINE vf b_one(const void *b, bool half, size_t k) { return half ? vh_load((const cml_f16 *)b + k * NR) : vf_load((const float *)b + k * NR); }

/* ---- the end of a tile: bias, residual, clamp and the store, from registers where columns are whole vectors ---- */

VINLINE void store_some(void *y, bool half, size_t at, vf v, size_t n) {
  if (half && n >= W) vh_store((cml_f16 *)y + at, v);
  else if (half) vh_store_n((cml_f16 *)y + at, v, n);
  else if (n >= W) vf_store((float *)y + at, v);
  else vf_store_n((float *)y + at, v, n);
}

/* The same through memory: functions other than a clamp, and columns that are no whole vectors. block: rows of `width`. */
static __attribute__((noinline)) void finish_block(const cml_tile *t, float *block, size_t width) {
  vf lo = vf_set1(t->low), hi = vf_set1(t->high);
  const bool last = !t->unary_rows, plain = !last && !t->residual && t->low == -INFINITY && t->high == INFINITY;
  for (size_t r = 0; r < t->rows && !plain; r++)
    for (size_t c = 0; c < t->columns; c += W) {
      size_t n = t->columns - c, at = r * t->residual_stride + c;
      vf v = vf_load(block + r * width + c);
      if (t->residual && t->c_half) v += n < W ? vh_load_n((const cml_f16 *)t->residual + at, n) : vh_load((const cml_f16 *)t->residual + at);
      else if (t->residual) v += n < W ? vf_load_n((const float *)t->residual + at, n) : vf_load((const float *)t->residual + at);
      v = vf_min(hi, vf_max(lo, v));
      if (last) store_some(t->c, t->c_half, r * t->c_stride + c, v, n);
      else vf_store(block + r * width + c, v);
    }
  if (!last) t->unary_rows(t->f, t->rows, t->columns, block, width, t->c, t->c_stride, t->c_half, t->f_a, t->f_b);
}

/* Vector j of row i of what is added or stored: whole but for the last where columns are ragged. */
VINLINE vf residual_at(const cml_tile *t, const int i, const int j, size_t n) {
  size_t at = (size_t)i * t->residual_stride + (size_t)j * W;
  if (t->c_half) return n < W ? vh_load_n((const cml_f16 *)t->residual + at, n) : vh_load((const cml_f16 *)t->residual + at);
  return n < W ? vf_load_n((const float *)t->residual + at, n) : vf_load((const float *)t->residual + at);
}

VINLINE void finish_registers(const int rows, const int nv, const bool ragged, vf (*acc)[WIDE], const cml_tile *t) {
  const size_t c_stride = t->c_stride, tail = ragged ? t->columns - (size_t)(nv - 1) * W : W;
  if (t->residual)
    UNROLL for (int i = 0; i < rows; i++)
      UNROLL for (int j = 0; j < nv; j++) acc[i][j] += residual_at(t, i, j, j < nv - 1 ? W : tail);
  if (t->low > -INFINITY) { /* a tile of little depth takes a tenth of its time for this and what is below */
    vf lo = vf_set1(t->low);
    UNROLL for (int i = 0; i < rows; i++)
      UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf_max(lo, acc[i][j]);
  }
  if (t->high < INFINITY) {
    vf hi = vf_set1(t->high);
    UNROLL for (int i = 0; i < rows; i++)
      UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf_min(hi, acc[i][j]);
  }
  if (t->c_half) {
    UNROLL for (int i = 0; i < rows; i++)
      UNROLL for (int j = 0; j < nv; j++) store_some(t->c, true, (size_t)i * c_stride + (size_t)j * W, acc[i][j], j < nv - 1 ? W : tail);
  } else {
    UNROLL for (int i = 0; i < rows; i++)
      UNROLL for (int j = 0; j < nv; j++) store_some(t->c, false, (size_t)i * c_stride + (size_t)j * W, acc[i][j], j < nv - 1 ? W : tail);
  }
}

VINLINE void finish(const int rows, const int nv, vf (*acc)[WIDE], const cml_tile *t) {
  enum { MASKS = W == 16 }; /* part of a vector costs no more than all of it */
  const size_t columns = t->columns;
  if (t->bias)
    UNROLL for (int j = 0; j < nv; j++) {
      if (columns <= (size_t)j * W) break;
      vf add = columns >= (size_t)(j + 1) * W ? vf_load(t->bias + j * W) : vf_load_n(t->bias + j * W, columns - (size_t)j * W);
      UNROLL for (int i = 0; i < rows; i++) acc[i][j] += add;
    }
  if (columns == (size_t)(nv * W) && !t->unary_rows) {
    finish_registers(rows, nv, false, acc, t);
  } else if (MASKS && columns > (size_t)(nv - 1) * W && !t->unary_rows) {
    finish_registers(rows, nv, true, acc, t);
  } else {
    _Alignas(64) float block[(MR * NV > WIDE_ROWS * WIDE ? MR * NV : WIDE_ROWS * WIDE) * W];
    UNROLL for (int i = 0; i < rows; i++)
      UNROLL for (int j = 0; j < nv; j++) vf_store(block + (i * nv + j) * W, acc[i][j]);
    finish_block(t, block, (size_t)(nv * W));
  }
}

VINLINE void begin(const int rows, const int nv, vf (*acc)[WIDE], const cml_tile *t) {
  const float *c = t->from;
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf_zero();
  if (!c) return;
  UNROLL for (int j = 0; j < nv; j++) {
    if (t->columns <= (size_t)j * W) break;
    size_t n = t->columns - (size_t)j * W;
    if (n >= W) {
      UNROLL for (int i = 0; i < rows; i++) acc[i][j] = vf_load(c + (size_t)i * t->from_stride + j * W);
    } else {
      UNROLL for (int i = 0; i < rows; i++) acc[i][j] = vf_load_n(c + (size_t)i * t->from_stride + j * W, n);
    }
  }
}

VINLINE void tile_of(const int rows, const int nv, const bool half, const cml_tile *t) {
  vf acc[MR][WIDE];
  const size_t a_stride = t->a_stride, depth = t->depth;
  const char *b = t->b, *ask = t->ask ? t->ask : b;
  const size_t ask_step = t->ask ? t->ask_step : 0, ask_more = ask_step > LINE ? LINE : 0;
  float *widened = half && nv == NV ? t->widened : NULL;
  begin(rows, nv, acc, t);
  for (size_t s = 0; s < t->stretches; s++, b += depth * NR * (half ? 2 : 4)) {
    /* one pointer for three rows, the others by index: sixteen integer registers do for all */
    const float *a = t->a + (t->offsets ? t->offsets[s] : 0), *p[(MR + 2) / 3];
    UNROLL for (int i = 0; i < rows; i += 3) p[i / 3] = a + (size_t)i * a_stride;
    for (size_t k = 0; k < depth; k++, ask += ask_step) {
      vf bv[WIDE];
      __builtin_prefetch(ask, 0, 2);
      if (ASKS_TWO && !half && rows >= ASKING_ROWS) __builtin_prefetch(ask + ask_more, 0, 2);
      b_row(nv < WIDE ? nv : NV, bv, b, half, k);
      if (nv == WIDE) bv[NV] = b_one(b + t->b_panel, half, k);
      if (half && nv == NV && widened) {
        UNROLL for (int j = 0; j < nv; j++) vf_store(widened + j * W, bv[j]);
        widened += NR;
      }
      UNROLL for (int i = 0; i < rows; i++) {
        vf av = vf_set1(p[i / 3][(size_t)(i % 3) * a_stride + k]);
        UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf_fma(av, bv[j], acc[i][j]);
      }
    }
  }
  finish(rows, nv, acc, t);
}

/* A last panel of half the columns takes half the time: one vector a row. */
VINLINE void tile_rows(const int rows, const cml_tile *t) {
  if (t->columns <= W) {
    if (t->b_half) tile_of(rows, 1, true, t);
    else tile_of(rows, 1, false, t);
  } else {
    if (t->b_half) tile_of(rows, NV, true, t);
    else tile_of(rows, NV, false, t);
  }
}

enum { SLIM_ROWS = MR == 6 ? 3 : 4 }; /* at a time: a tile's rows are a multiple, and sixteen registers hold the sums of 3 x 4 */

/* Few columns that lie one after the other: vectors along the depth, some rows at a time. */
VINLINE void slim_rows(const int rows, const int columns, const bool half, const cml_tile *t, size_t r, float *block) {
  vf acc[SLIM_ROWS][CML_SLIM];
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < columns; j++) acc[i][j] = vf_zero();
  for (size_t s = 0; s < t->stretches; s++) {
    const float *a = t->a + r * t->a_stride + (t->offsets ? t->offsets[s] : 0);
    size_t k = 0, at = s * t->depth;
    for (; k < t->depth; k += W) {
      vf x[SLIM_ROWS];
      size_t n = t->depth - k;
      UNROLL for (int i = 0; i < rows; i++) x[i] = n >= W ? vf_load(a + (size_t)i * t->a_stride + k) : vf_load_n(a + (size_t)i * t->a_stride + k, n);
      UNROLL for (int j = 0; j < columns; j++) {
        size_t from = (size_t)j * t->b_column + at + k;
        vf w = half ? n >= W ? vh_load((const cml_f16 *)t->b + from) : vh_load_n((const cml_f16 *)t->b + from, n)
                    : n >= W ? vf_load((const float *)t->b + from) : vf_load_n((const float *)t->b + from, n);
        UNROLL for (int i = 0; i < rows; i++) acc[i][j] = vf_fma(x[i], w, acc[i][j]);
      }
    }
  }
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < columns; j++) {
      float from = t->from ? t->from[(r + (size_t)i) * t->from_stride + (size_t)j] : 0;
      block[(r + (size_t)i) * W + (size_t)j] = vf_sum(acc[i][j]) + (t->bias ? t->bias[j] : 0) + from;
    }
}

VINLINE void slim_columns(const int columns, const bool half, const cml_tile *t, float *block) {
  size_t r = 0;
  for (; r + SLIM_ROWS <= t->rows; r += SLIM_ROWS) slim_rows(SLIM_ROWS, columns, half, t, r, block);
  for (; r + 2 <= t->rows; r += 2) slim_rows(2, columns, half, t, r, block);
  for (; r < t->rows; r++) slim_rows(1, columns, half, t, r, block);
}

static __attribute__((noinline)) void slim_tile(const cml_tile *t) {
  _Alignas(64) float block[MR * W] = {0};
  switch (t->columns * 2 + t->b_half) {
    case 2: slim_columns(1, false, t, block); break;
    case 3: slim_columns(1, true, t, block); break;
    case 4: slim_columns(2, false, t, block); break;
    case 5: slim_columns(2, true, t, block); break;
    case 6: slim_columns(3, false, t, block); break;
    case 7: slim_columns(3, true, t, block); break;
    case 8: slim_columns(4, false, t, block); break;
    case 9: slim_columns(4, true, t, block); break;
    default: break;
  }
  finish_block(t, block, W);
}

#define WIDE_CASE(r)                                         \
  case r:                                                    \
    if (r > WIDE_ROWS) break;                                \
    if (t->b_half) tile_of(r > WIDE_ROWS ? 1 : r, WIDE, true, t); \
    else tile_of(r > WIDE_ROWS ? 1 : r, WIDE, false, t);          \
    break;

static __attribute__((noinline)) void wide_tile(const cml_tile *t) {
  switch (t->rows) {
    WIDE_CASE(1) WIDE_CASE(2) WIDE_CASE(3) WIDE_CASE(4)
#if CML_TILE_MAX > 6
    WIDE_CASE(5) WIDE_CASE(6) WIDE_CASE(7) WIDE_CASE(8) WIDE_CASE(9)
#endif
    default: break;
  }
}

/* Rows in two parts: a pointer for each, which takes few rows; the end goes through memory. */
enum { SPLITS = CML_TILE_MAX == 6 };

VINLINE void split_rows(const int rows, const int nv, const bool half, const cml_tile *t) {
  vf acc[MR][WIDE];
  _Alignas(64) float block[MR * NV * W];
  const char *b = t->b, *ask = t->ask ? t->ask : b;
  const size_t depth = t->depth, ask_step = t->ask ? t->ask_step : 0;
  begin(rows, nv, acc, &(cml_tile){0});
  for (size_t s = 0; s < t->stretches; s++, b += depth * NR * (half ? 2 : 4)) {
    const float *a = t->a + (t->offsets ? t->offsets[s] : 0), *p[MR];
    UNROLL for (int i = 0; i < rows; i++) p[i] = a + (size_t)i * t->a_stride + ((size_t)i < t->split ? 0 : t->a_jump);
    for (size_t k = 0; k < depth; k++, ask += ask_step) {
      vf bv[NV];
      __builtin_prefetch(ask, 0, 2);
      b_row(nv, bv, b, half, k);
      UNROLL for (int i = 0; i < rows; i++) {
        vf av = vf_set1(p[i][k]);
        UNROLL for (int j = 0; j < nv; j++) acc[i][j] = vf_fma(av, bv[j], acc[i][j]);
      }
    }
  }
  UNROLL for (int j = 0; j < nv; j++) {
    size_t n = t->columns > (size_t)j * W ? t->columns - (size_t)j * W : 0;
    vf add = !t->bias || !n ? vf_zero() : n < W ? vf_load_n(t->bias + j * W, n) : vf_load(t->bias + j * W);
    UNROLL for (int i = 0; i < rows; i++) vf_store(block + (i * nv + j) * W, acc[i][j] + add);
  }
  cml_tile part = *t;
  part.rows = t->split;
  finish_block(&part, block, (size_t)(nv * W));
  size_t at = (t->split * t->c_stride + t->c_jump) * (t->c_half ? 2 : 4);
  part.rows = t->rows - t->split;
  part.c = (char *)t->c + at;
  if (t->residual) part.residual = (const char *)t->residual + (t->split * t->residual_stride + t->c_jump) * (t->c_half ? 2 : 4);
  finish_block(&part, block + t->split * (size_t)(nv * W), (size_t)(nv * W));
}

#define SPLIT_CASE(r)                                          \
  case r:                                                      \
    if (t->columns <= W && t->b_half) split_rows(r, 1, true, t);  \
    else if (t->columns <= W) split_rows(r, 1, false, t);         \
    else if (t->b_half) split_rows(r, NV, true, t);               \
    else split_rows(r, NV, false, t);                             \
    break;

static __attribute__((noinline)) void split_tile(const cml_tile *t) {
  switch (t->rows) {
#if CML_TILE_MAX == 6
    SPLIT_CASE(2) SPLIT_CASE(3) SPLIT_CASE(4) SPLIT_CASE(5) SPLIT_CASE(6)
#endif
    default: break;
  }
}

#define TILE_CASE(r) \
  case r:            \
    if (r > MR) break; \
    tile_rows(r > MR ? MR : r, t); \
    break;

static void tile(const cml_tile *t) {
  if (t->b_column) {
    slim_tile(t);
    return;
  }
  if (t->columns > NR) {
    wide_tile(t);
    return;
  }
  if (SPLITS && t->split) {
    split_tile(t);
    return;
  }
  switch (t->rows) {
    TILE_CASE(1) TILE_CASE(2) TILE_CASE(3) TILE_CASE(4)
#if CML_TILE_MAX > 4
    TILE_CASE(5) TILE_CASE(6)
#endif
#if CML_TILE_MAX > 6
    TILE_CASE(7) TILE_CASE(8) TILE_CASE(9) TILE_CASE(10) TILE_CASE(11) TILE_CASE(12) TILE_CASE(13) TILE_CASE(14)
#endif
    default: break;
  }
}

static void gemm_tile(size_t rows, size_t columns, size_t depth, const float *a, size_t a_stride, const void *b, bool b_half, float *c,
                      size_t c_stride, bool accumulate, const float *bias, float low, float high) {
  const cml_tile t = {.rows = rows, .columns = columns, .stretches = 1, .depth = depth, .a = a, .a_stride = a_stride, .b = b, .b_half = b_half,
                      .from = accumulate ? c : NULL, .from_stride = c_stride, .bias = bias, .low = low, .high = high, .c = c, .c_stride = c_stride};
  tile(&t);
}

VINLINE void panels_step(const int halves, const int panels, size_t depth, const char *b, size_t k, vf xv, vf *acc) {
  UNROLL for (int p = 0; p < panels; p++) {
    vf bv[NV];
    b_row(NV, bv, b + (size_t)p * depth * NR * 2, p < halves, k);
    UNROLL for (int j = 0; j < NV; j++) acc[p * NV + j] = vf_fma(xv, bv[j], acc[p * NV + j]);
  }
}

/* Several chains of additions, so that the latency of an FMA does not bound a product that memory should. */
VINLINE void panels_product(const int halves, const int floats, size_t columns, size_t depth, const float *x, const char *b, float *y) {
  enum { MOST = 4 };
  const int panels = halves + floats, chains = panels == 1 ? MOST : 2;
  vf acc[MOST][3 * NV] = {{{0}}};
  size_t k = 0;
  for (; k + (size_t)chains <= depth; k += (size_t)chains)
    UNROLL for (int u = 0; u < chains; u++) panels_step(halves, panels, depth, b, k + (size_t)u, vf_set1(x[k + (size_t)u]), acc[u]);
  for (; k < depth; k++) panels_step(halves, panels, depth, b, k, vf_set1(x[k]), acc[0]);
  UNROLL for (int j = 0; j < panels * NV; j++) {
    const size_t at = (size_t)j * W;
    if (at >= columns) break;
    vf s = acc[0][j] + acc[1][j];
    if (chains == MOST) s += acc[2][j] + acc[3][j];
    if (columns - at >= W) vf_store(y + at, s);
    else vf_store_n(y + at, s, columns - at);
  }
}

static void gemv_panels(size_t columns, size_t depth, const float *x, const void *b, int halves, int floats, float *y) {
  if (!halves) panels_product(0, 1, columns, depth, x, b, y);
  else if (!floats) panels_product(1, 0, columns, depth, x, b, y);
  else if (halves == 1) panels_product(1, 1, columns, depth, x, b, y);
  else panels_product(2, 1, columns, depth, x, b, y);
}

VINLINE vf w_load(const void *w, bool half, size_t i) { return half ? vh_load((const cml_f16 *)w + i) : vf_load((const float *)w + i); }

/* Rows that are read at once, as streams of their own. */
enum { STREAMS = W == 16 ? 8 : 4 };

/* Rows that lie `apart` rows from one another. Each is summed in the same order however many they are: threads change no bit. */
VINLINE void rows_product(const int rows, const bool half, size_t depth, const char *w, size_t stride, size_t apart, const float *x, float *y) {
  enum { STEP = 4, CHAINS = 2, NEAR = 512, FAR = 4096 };
  const size_t size = half ? 2 : 4;
  vf s[STREAMS][CHAINS] = {{{0}}};
  size_t k = 0;
  for (; k + STEP * W <= depth; k += STEP * W) {
    UNROLL for (int i = 0; i < rows; i++) {
      const char *row = w + ((size_t)i * apart * stride + k) * size;
      UNROLL for (size_t b = 0; b < STEP * W * size; b += 64) __builtin_prefetch(row + b + FAR, 0, 2), __builtin_prefetch(row + b + NEAR);
      UNROLL for (int u = 0; u < STEP; u++) {
        vf *to = &s[i][u % CHAINS];
        *to = vf_fma(w_load(row, half, (size_t)u * W), vf_load(x + k + (size_t)u * W), *to);
      }
    }
  }
  for (; k < depth; k += W) {
    size_t n = depth - k < W ? depth - k : W;
    vf xv = n < W ? vf_load_n(x + k, n) : vf_load(x + k);
    UNROLL for (int i = 0; i < rows; i++) {
      const void *row = w + ((size_t)i * apart * stride + k) * size;
      vf v = n == W ? w_load(row, half, 0) : half ? vh_load_n(row, n) : vf_load_n(row, n);
      s[i][0] = vf_fma(v, xv, s[i][0]);
    }
  }
  UNROLL for (int i = 0; i < rows; i++) y[(size_t)i * apart] = vf_sum(s[i][0] + s[i][1]);
}

/* Rows an eighth (or a quarter) of the matrix apart share the loads of x and are as many streams of memory. What lies 4 KB ahead in each is asked for
 * into the second-level cache and comes to the first from there: a first-level cache waits for some 24 lines at once, which is half of what
 * memory can give a core (Zen 4), and asked for there those lines keep the other prefetchers from finding the streams. */
VINLINE void all_rows(const bool half, size_t rows, size_t depth, const char *w, size_t stride, const float *x, float *y) {
  const size_t apart = rows / STREAMS, row_bytes = stride * (half ? 2 : 4);
  for (size_t i = 0; i < apart; i++) rows_product(STREAMS, half, depth, w + i * row_bytes, stride, apart, x, y + i);
  for (size_t i = apart * STREAMS; i < rows; i++) rows_product(1, half, depth, w + i * row_bytes, stride, 0, x, y + i);
}

/* Products of W rows of so few elements that `depth` vectors hold them all, one row behind the other: neighbours are added until a row is one. */
VINLINE vf short_block(const bool half, const int depth, const void *w, const vf *x) {
  enum { MOST = 16 };
  vf p[MOST];
  UNROLL for (int i = 0; i < depth; i++) p[i] = w_load(w, half, (size_t)i * W) * x[depth > W ? i % (depth / W) : 0];
  UNROLL for (int n = depth; n > 1; n /= 2)
    UNROLL for (int i = 0; i < n / 2; i++) p[i] = vf_even(p[2 * i], p[2 * i + 1]) + vf_odd(p[2 * i], p[2 * i + 1]);
  return p[0];
}

/* The last rows are copied: their sums are made as the others', for threads change no bit. */
VINLINE void short_rows(const bool half, const int depth, size_t rows, const char *w, const float *x, float *y) {
  enum { MOST = 16 };
  float line[MOST];
  const size_t block = (size_t)depth * W * (half ? 2 : 4);
  for (size_t i = 0; i < MOST; i++) line[i] = x[i % (size_t)depth];
  vf xv[MOST / W];
  UNROLL for (int i = 0; i < MOST / W; i++) xv[i] = vf_load(line + i * W);
  size_t r = 0;
  for (; r + W <= rows; r += W, w += block) vf_store(y + r, short_block(half, depth, w, xv));
  if (r == rows) return;
  float rest[MOST * W] = {0};
  memcpy(rest, w, (rows - r) * (size_t)depth * (half ? 2 : 4));
  vf_store_n(y + r, short_block(half, depth, rest, xv), rows - r);
}

#define SHORT_CASE(depth_)                                        \
  case depth_:                                                    \
    if (half) short_rows(true, depth_, rows, w, x, y);            \
    else short_rows(false, depth_, rows, w, x, y);                \
    return;

static void gemv_rows(size_t rows, size_t depth, const void *w, bool half, size_t stride, const float *x, float *y) {
  if (stride == depth) {
    switch (depth) {
      SHORT_CASE(1) SHORT_CASE(2) SHORT_CASE(4) SHORT_CASE(8) SHORT_CASE(16)
      default: break;
    }
  }
  if (half) all_rows(true, rows, depth, w, stride, x, y);
  else all_rows(false, rows, depth, w, stride, x, y);
}

void CML_SIMD(cml_fill_gemm)(cml_kernels *k) {
  k->tile_rows = MR;
  k->tile_columns = NR;
  k->tile_splits = SPLITS;
  k->wide_rows = WIDE_ROWS;
  k->wide_columns = WIDE * W;
  k->tile = tile;
  k->gemm_tile = gemm_tile;
  k->gemv_panels = gemv_panels;
  k->gemv_rows = gemv_rows;
}
