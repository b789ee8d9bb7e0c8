/* Products with compressed weights against the plain sum in double precision: every table of kernels, every width of codes, palettes
 * and scales of all groupings, ragged rows, buffers that end at an unmapped page. With --bench [TABLE [SECONDS [FORM [VECTORS]]]] it prints
 * how fast the products of one vector (or several; floats of one always) are at each width, for float32 and for float16 programs, and how much of
 * the memory's bandwidth that is. */
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "guarded.h"
#include "kernels.h"
#include "random_numbers.h"

static unsigned code_at(const cml_compressed *w, size_t n, size_t k) {
  size_t bit = n * w->row_bytes * 8 + k * w->bits;
  unsigned code = 0;
  for (unsigned i = 0; i < w->bits; i++) code |= (unsigned)(w->codes[(bit + i) / 8] >> ((bit + i) % 8) & 1) << i;
  return code;
}

static double scale_at(const cml_compressed *w, const void *s, size_t n, size_t k) {
  size_t i = n / w->scale_rows * w->blocks + k / w->block;
  return (double)(w->scale_half ? cml_f16_to_f32(((const cml_f16 *)s)[i]) : ((const float *)s)[i]);
}

static double weight_at(const cml_compressed *w, size_t n, size_t k) {
  unsigned code = code_at(w, n, k);
  if (!w->scale) return (double)w->table[n / w->table_rows * w->table_size + code];
  int value = w->is_signed && code >> (w->bits - 1) ? (int)code - (1 << w->bits) : (int)code;
  return scale_at(w, w->scale, n, k) * ((double)value - (w->offset ? scale_at(w, w->offset, n, k) : 0));
}

static size_t divisor(size_t n) { /* a random one */
  size_t d = between(1, n);
  while (n % d) d--;
  return d;
}

static void *some_scales(int buffer, size_t count, bool half, float factor, float add) {
  void *s = at_end(buffer, count * (half ? 2 : 4));
  for (size_t i = 0; i < count; i++) {
    float v = uniform() * factor + add;
    if (half) ((cml_f16 *)s)[i] = cml_f16_from_f32(v);
    else ((float *)s)[i] = v;
  }
  return s;
}

static cml_compressed random_matrix(void) {
  static const unsigned widths[] = {1, 2, 3, 4, 6, 8}, blocks[] = {8, 16, 32, 64, 128, 256};
  static float code_values[16];
  cml_compressed w = {.columns = rnd() % 8 ? between(1, 12) : between(64, 200), .bits = widths[rnd() % 6]};
  bool scaled = (w.bits == 4 || w.bits == 8) && rnd() % 2, halves = !scaled && w.bits == 8 && rnd() % 4 == 0; /* these are packed */
  w.depth = between(1, 60) * 8;
  if (w.bits == 8) w.depth += between(0, 7);
  if (halves) w.columns = between(16, 33) * 8, w.depth = between(500, 520);
  w.scale_rows = w.table_rows = w.columns / (rnd() % 2 ? divisor(w.columns) : 1);
  w.blocks = 1;
  w.block = w.depth;
  if (scaled) {
    size_t block = blocks[rnd() % 6];
    if (rnd() % 3) w.block = block, w.blocks = between(1, 5), w.depth = w.block * w.blocks;
    size_t count = w.columns / w.scale_rows * w.blocks;
    w.is_signed = rnd() % 2;
    w.scale_half = rnd() % 2;
    w.scale = some_scales(1, count, w.scale_half, 0.1f, 0);
    if (rnd() % 2) w.offset = some_scales(2, count, w.scale_half, 4, 4);
    w.table_rows = w.columns;
    w.table_size = 16;
    for (int i = 0; i < 16; i++) code_values[i] = (float)(w.is_signed && i > 7 ? i - 16 : i);
    w.table = code_values;
  } else {
    size_t entries = (size_t)1 << w.bits;
    w.table_size = entries < 16 ? 16 : entries;
    size_t tables = w.columns / w.table_rows;
    float *t = at_end(1, tables * w.table_size * 4);
    for (size_t i = 0; i < tables * w.table_size; i++) t[i] = i % w.table_size < entries ? uniform() : t[i - entries];
    for (size_t i = 0; halves && i < tables * w.table_size; i++) t[i] = cml_f16_to_f32(cml_f16_from_f32(t[i]));
    w.table = t;
  }
  const size_t row = (w.depth * w.bits + 7) / 8;
  w.row_bytes = row + (rnd() % 2 ? between(0, 100) : 0); /* a part of a longer row */
  size_t bytes = (w.columns - 1) * w.row_bytes + row;
  uint8_t *codes = at_end(0, bytes);
  for (size_t i = 0; i < bytes; i++) codes[i] = (uint8_t)rnd();
  w.codes = codes;
  w.vectors_half = rnd() % 2;
  return w;
}

static float rounded(float v) { return cml_f16_to_f32(cml_f16_from_f32(v)); }

static cml_compressed packed(const cml_kernels *k, const cml_compressed *w) {
  cml_compressed p = *w;
  p.vectors = between(1, 2);
  size_t bytes = k->compressed_bytes(&p), middle = between(0, w->columns / CML_COMPRESSED_ROWS) * CML_COMPRESSED_ROWS;
  if (!bytes) return p;
  char *to = at_end(6, bytes);
  k->compressed_pack(&p, 0, middle, to);
  k->compressed_pack(&p, middle, w->columns, to);
  p.packed = to;
  return p;
}

static void check_product(const cml_kernels *k, const cml_compressed *from) {
  cml_compressed matrix = rnd() % 8 ? packed(k, from) : *from, *w = &matrix;
  size_t vectors = between(1, 9), stride = w->columns + between(0, 2), room = k->compressed_room(w);
  float *x = at_end(3, vectors * w->depth * 4), *y = at_end(4, ((vectors - 1) * stride + w->columns) * 4);
  float *to = at_end(5, vectors * room * 4);
  float factor = rnd() % 8 ? 1 : rnd() % 2 ? (w->vectors_half ? 1e-6f : 1e-30f) : w->vectors_half ? 1e4f : 1e15f;
  for (size_t i = 0; i < vectors * w->depth; i++) x[i] = rnd() % 64 ? uniform() * factor : 0;
  if (rnd() % 8 == 0) x[rnd() % (vectors * w->depth)] *= w->vectors_half ? 6e4f / factor : 1e6f; /* what is left beside it cannot be rounded where it is */
  for (size_t i = 0; w->vectors_half && i < vectors * w->depth; i++) x[i] = rounded(x[i]);
  if (rnd() % 8 == 0) memset(x, 0, w->depth * 4);
  for (size_t v = 0; v < vectors; v++) k->compressed_arrange(w, x + v * w->depth, to + v * room);
  size_t middle = between(0, w->columns);
  if (w->packed) middle -= middle % CML_COMPRESSED_ROWS;
  k->compressed_product(w, 0, middle, to, vectors, y, stride);
  k->compressed_product(w, middle, w->columns, to, vectors, y, stride);
  float *whole = malloc(vectors * stride * 4); /* the same bits, however rows are shared among threads */
  k->compressed_product(w, 0, w->columns, to, vectors, whole, stride);
  for (size_t v = 0; v < vectors; v++) assert_memory_equal(whole + v * stride, y + v * stride, w->columns * 4);
  free(whole);
  for (size_t v = 0; v < vectors; v++)
    for (size_t n = 0; n < w->columns; n++) {
      double want = 0, sum = 0, elements = 0, weights = 0; /* sums of products, of sizes, of squares */
      for (size_t d = 0; d < w->depth; d++) {
        double e = (double)x[v * w->depth + d], weight = w->scale ? fabs(scale_at(w, w->scale, n, d)) * 256 : 1;
        want += e * weight_at(w, n, d);
        sum += fabs(e) * weight, elements += e * e, weights += weight * weight;
      }
      /* float16: two digits of the elements err by 2^-14 of their root mean square, those of entries or products by 2^-15 of the largest */
      if (fabs((double)y[v * stride + n] - want) > 1e-6 * sum + (w->vectors_half ? 0x1.8p-14 * sqrt(elements * weights) : 0))
        fail_msg("%s: %u bits, %s, [%zu, %zu], block %zu: row %zu is %g, should be %g", k->name, w->bits, w->scale ? "scales" : "palette", w->columns,
                 w->depth, w->block, n, (double)y[v * stride + n], want);
    }
}

static void test_products(void **state) {
  (void)state;
  const cml_kernels *k;
  size_t done[8] = {0};
  for (int round = 0; round < 4000; round++) {
    cml_compressed w = random_matrix();
    for (size_t t = 0; (k = cml_kernels_at(t)); t++)
      if (k->compressed_fits(&w)) check_product(k, &w), done[t]++;
  }
  for (size_t t = 0; cml_kernels_at(t); t++) assert_true(done[t] > 2000);
}

/* More rows than take one piece of a long depth after the other. */
static void test_stripes(void **state) {
  (void)state;
  static const struct { unsigned bits; size_t columns, depth; } sizes[] = {{3, 4196, 272}, {2, 1124, 2104}, {1, 4196, 1048}, {4, 4196, 272}, {6, 4196, 136}};
  const cml_kernels *k;
  for (size_t i = 0; i < 10; i++) {
    size_t columns = sizes[i / 2].columns, depth = sizes[i / 2].depth, bytes = columns * depth * sizes[i / 2].bits / 8;
    const size_t entries = sizes[i / 2].bits == 6 ? 64 : 16;
    float *table = at_end(1, entries * sizeof *table);
    uint8_t *codes = at_end(0, bytes);
    for (size_t j = 0; j < entries; j++) table[j] = j >> sizes[i / 2].bits ? table[j - ((size_t)1 << sizes[i / 2].bits)] : uniform();
    for (size_t j = 0; j < bytes; j++) codes[j] = (uint8_t)rnd();
    const cml_compressed w = {.columns = columns, .depth = depth, .codes = codes, .row_bytes = bytes / columns, .bits = sizes[i / 2].bits, .table = table, .table_size = entries,
                              .table_rows = columns, .vectors = 1, .vectors_half = i % 2};
    for (size_t t = 0; (k = cml_kernels_at(t)); t++)
      if (k->compressed_bytes(&w)) check_product(k, &w);
  }
}

static float normal(void) {
  float sum = 0;
  for (int i = 0; i < 12; i++) sum += uniform();
  return sum / 2;
}

/* Elements: normal, positive, of heavy tails, one or some far larger than the others, subnormal in float16, few. */
enum { KINDS = 7 };
static float element_of_kind(int kind, size_t i, bool half) {
  float v = normal();
  if (kind == 1) v = fabsf(v);
  if (kind == 2) v *= v * v;
  if ((kind == 3 && i == 7) || (kind == 4 && i % 61 == 0)) v *= 100;
  if (kind == 5) v *= 0x1p-19f;
  if (kind == 6 && i % 16) v = 0;
  return half ? rounded(v) : v;
}

/* Products for a float16 program: mean errors 84 dB below what sums of such products are in the mean, a tenth of the power of their rounding to float16.
 * For a float32 program 90 dB. Rounded to float16, at least seven of ten are the exact sum, rounded, and those that are not much smaller than the mean are its neighbours at worst. */
static void check_errors(const cml_kernels *k, bool half, unsigned bits, size_t block, size_t columns, size_t depth, size_t rows, int kind) {
  static uint8_t codes[200 * 2100];
  static float table[200 * 256], scales[200 * 2100 / 32], x[2100], y[200], arranged[1 << 18];
  static _Alignas(64) char to[1 << 20];
  cml_compressed w = {.columns = columns, .depth = depth, .codes = codes, .row_bytes = depth * bits / 8, .bits = bits, .table = table, .table_size = bits < 4 ? 16 : (size_t)1 << bits,
                      .table_rows = rows, .scale_rows = columns, .blocks = 1, .block = depth, .vectors = 1, .vectors_half = half};
  for (size_t i = 0; i < columns * depth * bits / 8; i++) codes[i] = (uint8_t)rnd();
  for (size_t i = 0; i < columns / rows * w.table_size; i++) table[i] = i % w.table_size >> bits ? table[i - ((size_t)1 << bits)] : half ? rounded(normal() / 16) : normal() / 16;
  if (block) { /* scales, a row or a block, and not a palette */
    w.scale = scales, w.scale_rows = 1, w.block = block < depth ? block : depth, w.blocks = depth / w.block, w.is_signed = kind % 2;
    for (size_t i = 0; i < columns * w.blocks; i++) scales[i] = 1.5f + uniform();
    for (int i = 0; i < 16; i++) table[i] = (float)(w.is_signed && i > 7 ? i - 16 : i);
  }
  if (!k->compressed_fits(&w)) return;
  for (size_t i = 0; i < depth; i++) x[i] = element_of_kind(kind, i, half);
  size_t bytes = k->compressed_bytes(&w), equal = 0;
  assert_true(bytes <= sizeof to);
  if (bytes) k->compressed_pack(&w, 0, columns, to), w.packed = to;
  assert_true(k->compressed_room(&w) <= sizeof arranged / 4);
  k->compressed_arrange(&w, x, arranged);
  k->compressed_product(&w, 0, columns, arranged, 1, y, columns);
  double errors = 0;
  for (size_t n = 0; n < columns; n++) {
    double want = 0, power = 0;
    for (size_t d = 0; d < depth; d++) {
      double p = (double)x[d] * weight_at(&w, n, d);
      want += p, power += p * p;
    }
    double error = (double)y[n] - want;
    errors += error * error / power / (double)columns;
    int off = abs((int)cml_f16_from_f32(y[n]) - (int)cml_f16_from_f32((float)want));
    equal += off == 0;
    if (half && want * want > power / 4 && off > 1) fail_msg("%s: %u bits, kind %d: row %zu is %g, should be %g", k->name, bits, kind, n, (double)y[n], want);
  }
  if (errors > (half ? 0x1p-28 : 0x1p-30)) fail_msg("%s: %u bits, [%zu, %zu], kind %d: errors of %g dB", k->name, bits, columns, depth, kind, 10 * log10(errors));
  if (half && equal * 10 < columns * 7) fail_msg("%s: %u bits, kind %d: %zu of %zu are right", k->name, bits, kind, equal, columns);
}

static void test_errors(void **state) {
  (void)state;
  static const unsigned widths[] = {1, 2, 3, 4, 6, 8};
  static const size_t shares[] = {1, 2, 4, 8, 12, 16, 20, 32, 48, 64}; /* rows that share a table */
  const cml_kernels *k;
  for (size_t t = 0; (k = cml_kernels_at(t)); t++)
    for (int i = 0; i < 6 * KINDS * 4; i++) {
      const bool half = i / (6 * KINDS) % 2;
      const size_t columns = between(64, 200), sharing = shares[rnd() % 10], tables = columns / sharing;
      check_errors(k, half, widths[i % 6], 0, columns, between(100, 260) * 8, columns, i / 6 % KINDS);
      check_errors(k, half, widths[i % 6], 0, tables * sharing, between(100, 260) * 8, sharing, i / 6 % KINDS);
      check_errors(k, half, i % 2 ? 4 : 8, i % 3 ? 32 : SIZE_MAX, columns, between(25, 65) * 32, columns, i / 6 % KINDS);
    }
}

/* A NaN or an infinity among the elements must reach every row. */
static void test_not_finite(void **state) {
  (void)state;
  const cml_kernels *k;
  for (int round = 0; round < 200; round++) {
    cml_compressed matrix = random_matrix();
    for (size_t t = 0; (k = cml_kernels_at(t)); t++) {
      if (!k->compressed_fits(&matrix)) continue;
      cml_compressed w = packed(k, &matrix);
      float *x = at_end(3, w.depth * 4), *y = at_end(4, w.columns * 4), *to = at_end(5, k->compressed_room(&w) * 4);
      for (size_t i = 0; i < w.depth; i++) x[i] = uniform();
      size_t at = rnd() % w.depth;
      x[at] = round % 2 ? NAN : INFINITY;
      k->compressed_arrange(&w, x, to);
      k->compressed_product(&w, 0, w.columns, to, 1, y, w.columns);
      for (size_t n = 0; n < w.columns; n++) {
        double want = (double)x[at] * weight_at(&w, n, at);
        if (isnan(want) || w.offset) assert_true(!isfinite(y[n])); /* with an offset both of its terms are infinite */
        else assert_true((double)y[n] == want);
      }
    }
  }
}

/* Sums as large as they can be: all codes the same, at either end, all elements of one size; rows too long for 32 bits, and one row alone. */
static void check_ends(const cml_kernels *k, size_t columns, size_t depth, unsigned bits, int form, uint8_t code, int signs, bool half) {
  static uint8_t codes[70 * 5000];
  static float table[256], scales[70], offsets[70], x[40000], arranged[1 << 20], y[70];
  static _Alignas(64) char to[1 << 20];
  cml_compressed w = {.columns = columns, .depth = depth, .codes = codes, .row_bytes = depth * bits / 8, .bits = bits, .table = table, .table_size = bits < 4 ? 16 : (size_t)1 << bits,
                      .scale_rows = 1, .table_rows = columns, .blocks = 1, .block = depth, .vectors = 1, .vectors_half = half, .is_signed = form == 1 || form == 3};
  if (form) w.scale = scales;
  if (form > 2) w.offset = offsets;
  if (depth * bits % 8 || !k->compressed_fits(&w) || columns * depth * bits / 8 > sizeof codes) return;
  memset(codes, code, columns * depth * bits / 8);
  for (size_t i = 0; i < w.table_size; i++) table[i] = form ? (float)(w.is_signed && i > 7 ? (int)i - 16 : (int)i) : i % ((size_t)1 << bits) ? 1.75f : -1.75f;
  for (size_t n = 0; n < columns; n++) scales[n] = 0.5f + (float)n / 64, offsets[n] = (float)(n % 2 ? 127 : -128);
  double sum = 0, size = 0;
  for (size_t d = 0; d < depth; d++) x[d] = signs == 0 ? 0x1.fbp0f : signs == 1 ? -0x1.fbp0f : d % 2 ? 0x1.fbp0f : -1.5f; /* nearly 2 (1 - 2^-7): digits_exponent */
  size_t bytes = k->compressed_bytes(&w);
  assert_true(bytes <= sizeof to && k->compressed_room(&w) <= sizeof arranged / 4);
  if (bytes) k->compressed_pack(&w, 0, columns, to), w.packed = to;
  assert_true(k->compressed_room(&w) <= sizeof arranged / 4);
  k->compressed_arrange(&w, x, arranged);
  k->compressed_product(&w, 0, columns, arranged, 1, y, columns);
  for (size_t n = 0; n < columns; n += columns > 1 ? columns - 1 : 1, sum = size = 0) {
    for (size_t d = 0; d < depth; d++) sum += (double)x[d] * weight_at(&w, n, d), size += fabs((double)x[d]) * (form ? fabs(scale_at(&w, scales, n, 0)) * 256 : 1.75);
    if (fabs((double)y[n] - sum) > (1e-6 + (double)depth * 0x1p-27) * size) /* floats' sums of equal products err in one direction */
      fail_msg("%s: %u bits, form %d, codes %02x, [%zu, %zu]: row %zu is %.9g, should be %.9g", k->name, bits, form, code, columns, depth, n, (double)y[n], sum);
  }
}

static void test_ends(void **state) {
  (void)state;
  static const size_t rows[] = {1, 3, 65, 70}, depths[] = {8, 40, 272, 4096, 16392, 39992};
  static const unsigned widths[] = {1, 2, 3, 4, 6, 8};
  static const uint8_t codes[] = {0, 0x80, 0x88, 0x7f, 0x77, 0xff};
  const cml_kernels *k;
  for (size_t t = 0; (k = cml_kernels_at(t)); t++)
    for (size_t i = 0; i < 4 * 6 * 6 * 6 * 3; i++) {
      unsigned bits = widths[i / 24 % 6];
      size_t depth = depths[i / 4 % 6];
      if (rows[i % 4] * depth > 300000) continue;
      for (int form = 0; form < (bits == 4 || bits == 8 ? 5 : 1); form++)
        for (int half = 0; half < 2; half++) check_ends(k, rows[i % 4], depth, bits, form, codes[i / 144 % 6], (int)(i / 864), half);
    }
}

static void test_what_does_not_fit(void **state) {
  (void)state;
  const cml_kernels *k;
  for (size_t t = 0; (k = cml_kernels_at(t)); t++) {
    cml_compressed w = {.columns = 2, .depth = 15, .bits = 4, .table_rows = 2}; /* the second row begins within a byte */
    assert_false(k->compressed_fits(&w));
    w = (cml_compressed){.columns = 1, .depth = 96, .row_bytes = 96, .bits = 8, .scale = &w, .scale_rows = 1, .blocks = 32, .block = 3}; /* a block within a lane */
    assert_false(k->compressed_fits(&w));
  }
}

/* ---- speed ---- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef uint32_t words __attribute__((vector_size(64), aligned(4), may_alias));

static uint32_t read_all(const char *data, size_t bytes) {
  const words *p = (const words *)(const void *)data;
  words s[4] = {p[0], p[1], p[2], p[3]};
  for (size_t n = 4; n < bytes / sizeof *p; n += 4)
    for (size_t k = 0; k < 4; k++) s[k] ^= p[n + k];
  s[0] ^= s[1] ^ s[2] ^ s[3];
  return s[0][0];
}

enum { BENCH_BYTES = 192 << 20, BEHIND = BENCH_BYTES / 256, PACKED_BYTES = 160 << 20, CACHE_BYTES = 512 << 10, OTHER_BYTES = 768 << 20, DEPTH = 4096, CORES = 2, MOST_VECTORS = 8 };

static const struct form {
  const char *name;
  unsigned bits;   /* 16 and 32: floats */
  size_t block;    /* 0: a palette */
  size_t rows;     /* that share one; 0: all. 16, where the name does not say it */
} forms[] = {
    {"reading", 0, 0}, {"fp32", 32, 0}, {"fp16", 16, 0}, {"int8, scale a row", 8, DEPTH}, {"int8, blocks of 32", 8, 32},
    {"int4, scale a row", 4, DEPTH}, {"int4, blocks of 32", 4, 32}, {"palette of 1 bit", 1, 0}, {"palette of 2 bits", 2, 0},
    {"palette of 3 bits", 3, 0}, {"palette of 4 bits", 4, 0}, {"palette of 6 bits", 6, 0}, {"palette of 8 bits", 8, 0}, {"palettes, 2 bits", 2, 0, 16}, {"palettes, 3 bits", 3, 0, 16},
    {"palettes, 4 bits", 4, 0, 16}, {"palettes, 6 bits", 6, 0, 16}, {"palettes, 8 bits", 8, 0, 16},
    {"palettes/4, 3 bits", 3, 0, 4}, {"palettes/4, 4 bits", 4, 0, 4}, {"palettes/4, 6 bits", 6, 0, 4}, {"palettes/4, 8 bits", 8, 0, 4}, {"palettes/1, 4 bits", 4, 0, 1}};

static bool is_compressed(const struct form *f) { return f->bits && f->bits <= 8; }

typedef struct work {
  const cml_kernels *k;
  const struct form *form;
  bool half; /* vectors of float16 */
  char *data, *packed; /* bytes and BEHIND; room */
  const char *other;   /* what is read before, so that nothing is left of data in the last cache */
  size_t bytes; /* of data, in the cache or not */
  const float *x;
  float *arranged, *y;
  pthread_barrier_t *start;
  size_t vectors, times, did; /* passes over the data; bytes of one */
  double seconds;
} work;

static void set_form(work *t, cml_compressed *w) {
  static float table[1 << 21]; /* denser near zero, as palettes of networks are, and of the program's type */
  const int entries = 1 << t->form->bits;
  for (int i = 0; i < (t->form->rows ? 1 << 21 : 256); i++) {
    float at = ((float)(i % entries) + 0.5f) / (float)entries * 2 - 1;
    float entry = at * (0.3f + 0.7f * at * at) * 0.1f;
    table[i] = t->half ? cml_f16_to_f32(cml_f16_from_f32(entry)) : entry;
  }
  *w = (cml_compressed){.bits = t->form->bits, .depth = DEPTH, .codes = (const uint8_t *)t->data, .row_bytes = DEPTH * t->form->bits / 8, .table = table, .is_signed = true, .vectors_half = t->half};
  size_t scales = 0;
  w->columns = t->bytes * 8 / (DEPTH * w->bits);
  if (t->form->block) {
    w->block = t->form->block, w->blocks = DEPTH / w->block, w->scale_rows = 1, w->scale_half = true;
    w->columns = t->bytes * 8 / (DEPTH * w->bits + 16 * w->blocks);
    scales = (w->columns * w->blocks * 2 + 63) / 64 * 64;
    w->codes = (const uint8_t *)t->data + scales;
    w->scale = t->data;
  }
  w->columns &= ~(size_t)(CML_COMPRESSED_ROWS - 1);
  w->table_rows = t->form->rows ? t->form->rows : w->columns, w->table_size = w->bits <= 4 ? 16 : (size_t)1 << w->bits;
  w->vectors = t->vectors;
  const size_t bytes = t->k->compressed_bytes(w);
  if (bytes && !t->form->rows) { /* any bytes will do for codes */
    t->k->compressed_pack(w, 0, CML_COMPRESSED_ROWS, t->data);
    w->packed = t->data;
  }
  if (bytes && t->form->rows) { /* tables are among them */
    assert_true(bytes <= PACKED_BYTES);
    t->k->compressed_pack(w, 0, w->columns, t->packed);
    w->packed = t->packed;
  }
  t->did = w->columns * DEPTH * w->bits / 8 + scales;
}

static void *do_work(void *argument) {
  work *t = argument;
  unsigned bits = t->form->bits;
  cml_compressed w;
  volatile uint32_t sink = 0;
  if (is_compressed(t->form)) {
    set_form(t, &w);
    for (size_t v = 0; v < t->vectors; v++) t->k->compressed_arrange(&w, t->x, t->arranged + v * t->k->compressed_room(&w));
  } else {
    t->did = t->bytes;
  }
  if (t->bytes != CACHE_BYTES) sink ^= read_all(t->other, OTHER_BYTES);
  pthread_barrier_wait(t->start);
  double begin = now();
  for (size_t i = 0; i < t->times; i++) {
    if (!bits) sink ^= read_all(t->data, t->bytes);
    else if (bits > 8) t->k->gemv_rows(t->bytes / DEPTH / (bits / 8), DEPTH, t->data, bits == 16, DEPTH, t->x, t->y);
    else t->k->compressed_product(&w, 0, w.columns, t->arranged, t->vectors, t->y, w.columns);
  }
  (void)sink;
  t->seconds = now() - begin;
  return NULL;
}

/* GB/s of what `threads` threads read, each from data of its own. */
static double measure(const cml_kernels *k, const struct form *form, bool half, size_t vectors, size_t threads, char *data, const char *other, char *packed, size_t bytes, const float *x) {
  static _Alignas(64) float arranged[CORES][MOST_VECTORS << 18], y[CORES][BENCH_BYTES / DEPTH * 8 * MOST_VECTORS];
  pthread_barrier_t start;
  pthread_t ids[CORES];
  work t[CORES];
  double longest = 0, did = 0;
  pthread_barrier_init(&start, NULL, (unsigned)threads);
  for (size_t i = 0; i < threads; i++) {
    t[i] = (work){.k = k, .form = form, .half = half, .data = data + i * (bytes + BEHIND), .other = other, .packed = packed + i * PACKED_BYTES, .bytes = bytes, .x = x, .arranged = arranged[i], .y = y[i], .start = &start, .vectors = vectors};
    t[i].times = bytes == CACHE_BYTES ? 10 : 1;
    if (i && pthread_create(&ids[i], NULL, do_work, &t[i])) exit(1);
  }
  do_work(&t[0]);
  for (size_t i = 0; i < threads; i++) {
    if (i) pthread_join(ids[i], NULL);
    longest = fmax(longest, t[i].seconds);
    did += (double)(t[i].did * t[i].times);
  }
  pthread_barrier_destroy(&start);
  return did / longest / 1e9;
}

/* Turns, each of which measures everything once: what else runs on the machine disturbs all alike, and the best is kept. */
static int bench(const char *name, double seconds, const char *only, size_t vectors) {
  enum { FORMS = sizeof forms / sizeof *forms };
  static _Alignas(64) float x[DEPTH]; /* float16's values, for all */
  const cml_kernels *k = cml_kernels_get();
  for (size_t i = 0; name && (k = cml_kernels_at(i)) && strcmp(k->name, name); i++) {}
  char *data = mmap(NULL, BENCH_BYTES + CORES * BEHIND, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED || !k || !vectors || vectors > MOST_VECTORS) return 1;
  char *packed_data = mmap(NULL, (size_t)CORES * PACKED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (packed_data == MAP_FAILED) return 1;
  char *other = mmap(NULL, OTHER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (other == MAP_FAILED) return 1;
  (void)madvise(other, OTHER_BYTES, MADV_HUGEPAGE);
  memset(other, 1, OTHER_BYTES);
  (void)madvise(data, BENCH_BYTES, MADV_HUGEPAGE);
  (void)madvise(packed_data, (size_t)CORES * PACKED_BYTES, MADV_HUGEPAGE);
  for (size_t i = 0; i < BENCH_BYTES / 4; i++) ((uint32_t *)(void *)data)[i] = (rnd() & 0x3bff3bff) | 0x20002000; /* no subnormal floats: some CPUs are slow with them */
  for (size_t i = 0; i < DEPTH; i++) x[i] = cml_f16_to_f32(cml_f16_from_f32(uniform()));
  double best[2 * FORMS][1 + CORES] = {{0}}, peaks[1 + CORES] = {0};
  for (double end = now() + seconds; now() < end;)
    for (size_t i = 0; i < 2 * FORMS; i++) {
      const struct form *f = &forms[i / 2];
      bool half = i % 2;
      if ((i > 3 && !strstr(f->name, only)) || (half && !is_compressed(f))) continue;
      best[i][0] = fmax(best[i][0], measure(k, f, half, vectors, 1, data, other, packed_data, CACHE_BYTES, x));
      for (size_t t = 1; t <= CORES; t++) best[i][t] = fmax(best[i][t], measure(k, f, half, vectors, t, data, other, packed_data, BENCH_BYTES / CORES, x));
    }
  for (size_t t = 1; t <= CORES; t++) peaks[t] = fmax(best[0][t], best[2][t]);
  printf("%s, GB/s: from the second-level cache; from memory with one thread and with two, each also as a share of the best of reading and fp32\n",
         k->name);
  for (size_t i = 0; i < 2 * FORMS; i++) {
    if (best[i][0] == 0) continue;
    printf("%-20s%-18s %6.1f", forms[i / 2].name, i % 2 ? ", float16 vectors" : "", best[i][0]);
    for (size_t t = 1; t <= CORES; t++) printf(" %8.1f %4.0f %%", best[i][t], 100 * best[i][t] / peaks[t]);
    printf("\n");
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--bench")) return bench(argc > 2 && *argv[2] ? argv[2] : NULL, argc > 3 ? atof(argv[3]) : 20, argc > 4 ? argv[4] : "", argc > 5 ? (size_t)atoi(argv[5]) : 1);
  guard_buffers();
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_products), cmocka_unit_test(test_stripes), cmocka_unit_test(test_errors), cmocka_unit_test(test_not_finite), cmocka_unit_test(test_ends), cmocka_unit_test(test_what_does_not_fit)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
