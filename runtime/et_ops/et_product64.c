/* Products of 64-bit numbers: doubles, and integers that wrap. As the kernels of float32 do it: panels of b's columns are packed, so
 * that a step of the depth is a few vectors; tiles keep their sums in registers, and each number of a is multiplied with all of a step.
 * What is not of that type, or lies apart, is converted when it is packed (b) or a block at a time (a, the result). */
#include "et_elementwise.h"
#include "et_product.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { ROWS = 8, COLUMNS = 16, BLOCK = 1 << 15 }; /* of a tile; elements of a block */

/* One tile: to (+)= a b over `depth` steps of COLUMNS numbers; a's element (r, d) at r * a_row + d. */
typedef struct tile {
  const void *a, *b;
  void *to;
  int64_t a_row, to_row, depth;
  bool more; /* adds to what is there */
} tile;

/* In parts of R rows and N vectors V, as many as there are registers. */
#define TILE(T, V, R, N, MULTIPLY)                                                                              \
  enum { LANES = sizeof(V) / sizeof(T) };                                                                       \
  for (int first = 0; first < ROWS; first += R)                                                                 \
    for (int column = 0; column < COLUMNS; column += N * LANES) {                                               \
      const T *a = (const T *)t->a + first * t->a_row, *b = (const T *)t->b + column;                           \
      T *to = (T *)t->to + first * t->to_row + column;                                                          \
      V sums[R][N];                                                                                             \
      for (int r = 0; r < R; r++)                                                                               \
        for (int v = 0; v < N; v++) sums[r][v] = t->more ? *(const V *)(to + r * t->to_row + v * LANES) : (V){0}; \
      for (int64_t d = 0; d < t->depth; d++, b += COLUMNS)                                                      \
        for (int r = 0; r < R; r++)                                                                             \
          for (int v = 0; v < N; v++) sums[r][v] = MULTIPLY(a[r * t->a_row + d], *(const V *)(b + v * LANES), sums[r][v]); \
      for (int r = 0; r < R; r++)                                                                               \
        for (int v = 0; v < N; v++) *(V *)(to + r * t->to_row + v * LANES) = sums[r][v];                        \
    }
#define VECTOR(T, bytes) T __attribute__((vector_size(bytes), aligned(8), may_alias))
typedef VECTOR(double, 16) double2;
typedef VECTOR(uint64_t, 16) word2;
#define PLAIN(x, y, sum) ((sum) + (x) * (y))
static void tile_f64(const tile *t) { TILE(double, double2, 4, 2, PLAIN) }
static void tile_i64(const tile *t) { TILE(uint64_t, word2, 2, 2, PLAIN) }

#ifdef __x86_64__
typedef VECTOR(double, 32) double4;
typedef VECTOR(uint64_t, 32) word4;
typedef VECTOR(double, 64) double8;
typedef VECTOR(uint64_t, 64) word8;
#define FUSED4(x, y, sum) _mm256_fmadd_pd(_mm256_set1_pd(x), y, sum)
#define FUSED8(x, y, sum) _mm512_fmadd_pd(_mm512_set1_pd(x), y, sum)
#define WORDS8(x, y, sum) ((sum) + (word8)_mm512_mullo_epi64(_mm512_set1_epi64((long long)(x)), (__m512i)(y)))
__attribute__((target("avx2,fma"))) static void tile_f64_avx2(const tile *t) { TILE(double, double4, 4, 2, FUSED4) }
__attribute__((target("avx2,fma"))) static void tile_i64_avx2(const tile *t) { TILE(uint64_t, word4, 2, 2, PLAIN) }
__attribute__((target("avx512f,avx512dq"))) static void tile_f64_avx512(const tile *t) { TILE(double, double8, 8, 2, FUSED8) }
__attribute__((target("avx512f,avx512dq"))) static void tile_i64_avx512(const tile *t) { TILE(uint64_t, word8, 8, 2, WORDS8) }
#endif

typedef void tile_function(const tile *t);

static tile_function *best(bool real) {
#ifdef __x86_64__
  size_t width = cml_kernels_get()->width;
  if (width >= 16) return real ? tile_f64_avx512 : tile_i64_avx512;
  if (width >= 8) return real ? tile_f64_avx2 : tile_i64_avx2;
#endif
  return real ? tile_f64 : tile_i64;
}

/* ---- the product ---- */

typedef struct product {
  bool real;
  tile_function *run;
  const cml_et_matrix *a, *b, *out;
  cml_et_tensor *to;
  /* the part that runs: rows of a, b's columns packed, results */
  const char *x, *panels;
  char *result;
  int64_t x_row, to_row, rows, columns, depth;
  bool more;
} product;

static void load(const product *p, void *to, const cml_et_matrix *m, int64_t row, int64_t column, int64_t n) {
  int64_t first = m->first + row * m->row + column * m->column;
  if (p->real) cml_et_load_f64(to, m->t, first, m->column, n);
  else cml_et_load_i64(to, m->t, first, m->column, n);
}

/* Columns at .. of b into panels of COLUMNS, the last one filled with zeros. */
static void pack(const product *p, char *to, int64_t d, int64_t depth, int64_t at, int64_t columns) {
  for (int64_t j = 0; j < columns; j += COLUMNS) {
    int64_t n = cml_et_least(COLUMNS, columns - j);
    for (int64_t i = 0; i < depth; i++, to += COLUMNS * 8) {
      load(p, to, p->b, d + i, at + j, n);
      if (n < COLUMNS) memset(to + n * 8, 0, (size_t)(COLUMNS - n) * 8);
    }
  }
}

/* Rows of tiles [begin, end): each panel of b against each of them, so that the panel stays in the cache. */
static void run_rows(void *context, size_t begin, size_t end) {
  const product *p = context;
  char ragged[ROWS * COLUMNS * 8];
  for (int64_t j = 0; j < p->columns; j += COLUMNS)
    for (size_t i = begin; i < end; i++) {
      int64_t r = (int64_t)i * ROWS, rows = cml_et_least(ROWS, p->rows - r), columns = cml_et_least(COLUMNS, p->columns - j);
      char *to = p->result + (r * p->to_row + j) * 8;
      bool whole = rows == ROWS && columns == COLUMNS;
      tile t = {p->x + r * p->x_row * 8, p->panels + j * p->depth * 8, whole ? to : ragged, p->x_row, whole ? p->to_row : COLUMNS, p->depth, p->more};
      for (int64_t k = 0; k < rows && !whole && p->more; k++) memcpy(ragged + k * COLUMNS * 8, to + k * p->to_row * 8, (size_t)columns * 8);
      p->run(&t);
      for (int64_t k = 0; k < rows && !whole; k++) memcpy(to + k * p->to_row * 8, ragged + k * COLUMNS * 8, (size_t)columns * 8);
    }
}

/* A row of results, blended with its part of `add`, to its place. */
static void put_row(const product *p, char *row, const cml_et_blend *blend, int64_t r, int64_t at, int64_t n) {
  union { double d[128]; int64_t i[128]; } add;
  for (int64_t j = 0; blend && j < n; j += 128) {
    int64_t m = cml_et_least(128, n - j);
    double *d = (double *)(void *)row + j;
    uint64_t *u = (uint64_t *)(void *)row + j;
    bool adds = blend->beta.d != 0;
    if (adds) load(p, &add, &blend->add, r, at + j, m);
    for (int64_t i = 0; i < m && p->real; i++) d[i] = blend->alpha.d * d[i] + (adds ? blend->beta.d * add.d[i] : 0);
    for (int64_t i = 0; i < m && !p->real; i++) u[i] = (uint64_t)blend->alpha.i * u[i] + (adds ? (uint64_t)blend->beta.i * (uint64_t)add.i[i] : 0);
  }
  int64_t first = p->out->first + r * p->out->row + at * p->out->column;
  if (p->real) cml_et_store_f64(p->to, first, p->out->column, n, (double *)(void *)row);
  else cml_et_store_i64(p->to, first, p->out->column, n, (int64_t *)(void *)row);
}

/* The rows of a from r on, in place or in `room`, which has whole tiles. */
static void take_rows(product *p, char *room, int64_t r, int64_t d) {
  const cml_et_matrix *a = p->a;
  if (a->t->dtype == (p->real ? CML_F64 : CML_I64) && a->column == 1 && p->rows % ROWS == 0) {
    p->x = (const char *)a->t->data + (a->first + r * a->row + d) * 8;
    p->x_row = a->row;
    return;
  }
  for (int64_t i = 0; i < p->rows; i++) load(p, room + i * p->depth * 8, a, r + i, d, p->depth);
  int64_t whole = (p->rows + ROWS - 1) / ROWS * ROWS;
  memset(room + p->rows * p->depth * 8, 0, (size_t)((whole - p->rows) * p->depth) * 8);
  p->x = room;
  p->x_row = p->depth;
}

cml_status cml_et_product64(cml_et_call *c, cml_et_room *room, cml_et_matrix a, cml_et_matrix b, const cml_et_blend *blend, cml_et_tensor *to,
                            cml_et_matrix out, cml_error *err) {
  bool real = to->dtype == CML_F64, direct = !blend && out.column == 1 && to->dtype == (real ? CML_F64 : CML_I64);
  product p = {.real = real, .run = best(real), .a = &a, .b = &b, .out = &out, .to = to};
  int64_t deep = cml_et_most(1, cml_et_least(a.columns, 2 * BLOCK / COLUMNS)), wide = cml_et_most(1, 2 * BLOCK / deep / COLUMNS) * COLUMNS;
  int64_t tall = cml_et_most(1, BLOCK / cml_et_most(deep, direct ? 1 : cml_et_least(wide, b.columns)) / ROWS) * ROWS; /* whole tiles */
  if (!direct) wide = cml_et_least(wide, 1024);
  wide = cml_et_least(wide, (b.columns + COLUMNS - 1) / COLUMNS * COLUMNS);
  tall = cml_et_least(tall, (a.rows + ROWS - 1) / ROWS * ROWS);
  if (!room->packed) room->packed = cml_et_temp(c, (uint64_t)(deep * wide) * 8);
  if (!room->a) room->a = cml_et_temp(c, (uint64_t)(deep * tall) * 8);
  if (!room->block && !direct) room->block = cml_et_temp(c, (uint64_t)(tall * wide) * 8);
  if (!room->packed || !room->a || (!room->block && !direct)) return cml_fail_memory(err);
  for (int64_t at = 0; at < b.columns; at += wide) {
    int64_t packed = -1;
    p.columns = cml_et_least(wide, b.columns - at);
    for (int64_t r = 0; r < a.rows; r += tall) {
      p.rows = cml_et_least(tall, a.rows - r);
      p.result = direct ? (char *)to->data + (out.first + r * out.row + at) * 8 : room->block;
      p.to_row = direct ? out.row : p.columns;
      for (int64_t d = 0; d == 0 || d < a.columns; d += deep) {
        p.depth = cml_et_least(deep, a.columns - d);
        p.more = d > 0;
        if (packed != d) pack(&p, room->packed, d, p.depth, at, p.columns);
        packed = d;
        p.panels = room->packed;
        take_rows(&p, room->a, r, d);
        cml_parallel(c->pool, (size_t)((p.rows + ROWS - 1) / ROWS), (size_t)(BLOCK / (p.columns * (p.depth + 1)) + 1), run_rows, &p);
      }
      for (int64_t i = 0; i < p.rows && !direct; i++) put_row(&p, (char *)room->block + i * p.columns * 8, blend, r + i, at, p.columns);
    }
  }
  return CML_OK;
}
