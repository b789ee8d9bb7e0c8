/* What the files of palettes that are looked up as sums of products share (compressed_pairs.c, compressed_nibbles.c): the depth in pieces with a unit each,
 * rows in stripes that take one piece after the other, and the choice of digits. */
#ifndef CML_COMPRESSED_PIECES_H
#define CML_COMPRESSED_PIECES_H

#include "compressed_digits.h"
#include "sizes.h"

enum { STRIPE = 4096 };         /* rows */
enum { FLOATS, COARSE, FINE }; /* tables; the first: none */

/* In memory a stripe is its pieces, a piece its blocks of rows, a block its groups of elements. */
typedef struct pieces {
  size_t groups, piece;    /* groups of the depth, and of a piece */
  size_t block, row_bytes; /* rows; bytes of a group in a row */
  size_t tables;           /* bytes of a group's tables, which lie one after the other, the pieces' scales behind them */
} pieces;

typedef struct scale {
  float unit;     /* of a piece's sums */
  int32_t offset; /* what they begin with, in such units */
} scale;

/* A block's codes of a piece; how many bytes of the rows that are multiplied are left from there in this piece, and where they begin in the next. */
typedef struct stretch {
  const uint8_t *codes, *next;
  size_t left, groups;
} stretch;

/* Adds a block's sums to those of `rows` rows. */
typedef void piece_function(const stretch *from, const uint8_t *tables, scale s, size_t rows, float *y);

VINLINE size_t pieces_bytes(const pieces *p, const cml_compressed *w) { return up(w->columns, p->block) * p->groups * p->row_bytes; }
VINLINE size_t pieces_room(const pieces *p) { return up(p->groups * p->tables + (p->groups + p->piece - 1) / p->piece * sizeof(scale), 64) / sizeof(float); }
VINLINE scale *scales_of(const pieces *p, const void *tables) { return (scale *)((uintptr_t)tables + p->groups * p->tables); }

/* Where the codes of block n begin that belong to the piece from group g on, which has `groups`. */
VINLINE size_t piece_at(const pieces *p, const cml_compressed *w, size_t n, size_t g, size_t groups) {
  size_t stripe = n / STRIPE * STRIPE, rows = least(up(w->columns - stripe, p->block), STRIPE);
  return (stripe * p->groups + rows * g + (n - stripe) * groups) * p->row_bytes;
}

/* Rows [begin, end) of a stripe times vectors' tables: one piece of the depth after the other. functions: by kind of tables. */
static void stripe_products(const pieces *p, const cml_compressed *w, piece_function *const *functions, size_t begin, size_t end, size_t vectors,
                            const uint8_t *const *tables, const int *kinds, float *y, size_t y_stride) {
  const uint8_t *codes = w->packed;
  for (size_t g = 0, some; g < p->groups; g += some) {
    some = least(p->groups - g, p->piece);
    const size_t row = some * p->row_bytes, bytes = up(end - begin, p->block) * row, after = least(p->groups - g - some, p->piece);
    const uint8_t *from = codes + piece_at(p, w, begin, g, some), *next = after ? codes + piece_at(p, w, begin, g + some, after) : from + bytes;
    for (size_t v = 0; v < vectors; v++)
      for (size_t n = begin; n < end; n += p->block) {
        const size_t at = (n - begin) * row;
        const stretch s = {from + at, next, bytes - at, some};
        functions[kinds[v]](&s, tables[v] + g * p->tables, scales_of(p, tables[v])[g / p->piece], least(end - n, p->block), y + v * y_stride + n);
      }
  }
}

/* Rows [begin, end): sums begin with what `first` has for each vector. */
static void piece_products(const pieces *p, const cml_compressed *w, piece_function *const *functions, size_t begin, size_t end, size_t vectors,
                           const uint8_t *const *tables, const int *kinds, const float *first, float *y, size_t y_stride) {
  for (size_t v = 0; v < vectors; v++)
    for (size_t n = begin; n < end; n++) y[v * y_stride + n] = first[v];
  for (size_t n = begin, last; n < end; n = last) {
    last = least((n / STRIPE + 1) * STRIPE, end);
    stripe_products(p, w, functions, n, last, vectors, tables, kinds, y, y_stride);
  }
}

/* ---- the choice of digits ---- */

/* What averages of lowest digits are too large in the mean, for groups of four tables: a quarter of what sums count for each average, of coarse tables an eighth
 * and for the averages of averages a quarter. Where all elements are zero there is nothing to round. group: elements. */
static int32_t rounded_up(const bool fine, const float *x, size_t n, size_t group) {
  size_t eighths = 0;
  for (size_t i = 0; i < n; i += group) {
    size_t some[2] = {0};
    for (size_t j = 0; j < group && i + j < n; j++) some[2 * j / group] |= x[i + j] != 0;
    eighths += fine ? 2 * (some[0] + some[1]) : some[0] + some[1] + 2 * (some[0] | some[1]);
  }
  return (int32_t)(eighths / 8);
}

/* A palette around its middle. */
typedef struct range {
  float middle, reach; /* entries are from middle - reach to middle + reach */
  float largest, mean; /* of their sizes; the mean without the largest */
} range;

static range range_of(const cml_compressed *w) {
  const size_t entries = (size_t)1 << w->bits;
  range r = {.largest = 0};
  float lowest = w->table[0], most = lowest, sum = 0;
  for (size_t i = 0; i < entries; i++) {
    float v = w->table[i];
    lowest = fminf(lowest, v), most = fmaxf(most, v), sum += fabsf(v), r.largest = fmaxf(r.largest, fabsf(v));
  }
  r.mean = (sum - r.largest) / (float)entries;
  r.middle = 0.5f * lowest + 0.5f * most;
  r.reach = fmaxf(most - r.middle, r.middle - lowest);
  return r;
}

/* What a piece's products are multiplied with to become whole numbers of coarse tables (of fine ones twice that): the four sums of a group, whose
 * elements' sizes add up to `sizes` at most, begin up to 5 below 0, and must stay below 256 units of the highest digit. */
VINLINE float piece_factor(float sizes, const range *r) {
  const float all = 255 * 0x1p14f - 64, span = 2 * r->reach * sizes;
  return span > 0 ? fminf(all / span, 0x1p120f) : 0;
}

/* Which tables suffice. Errors of a group's sums are those of rounding four of them, 1/12 in squares, and of averages: the square of a quarter of what
 * is averaged, each. total, largest: of the elements' sizes. units: the squares of coarse tables' units, for all groups. A float16 program may have
 * errors 84 dB below what products are in the mean (two_digits_suffice), a float32 one 114, or 96 where floats are what is left. Where few products are
 * added up, six deviations must be within 2^-20 of the sum of their sizes. Floats where there is a NaN or an infinity. */
static int choose_tables(const cml_compressed *w, const range *r, double total, double largest, double units) {
  const double product = (total - largest) / (double)w->depth * (double)r->mean, mean = product * product * (double)w->depth;
  const double sizes = total * (double)r->largest, few = 0x1p-40 / 36 * sizes * sizes;
  const double coarse = (4 / 12. + 2 / 4. + 4 / 4.) * units, fine = (4 / 12. + 2 / 4.) / 4 * units;
  if (!(total * (double)r->reach <= 1e36 && total <= 1e36) || (r->reach > 0 && r->reach < 0x1p-60f)) return FLOATS;
  if (coarse <= few && coarse <= (w->vectors_half ? 0x1p-28 : 0x1p-38) * mean) return COARSE;
  if (w->vectors_half) return fine <= 0x1p-28 * mean ? FINE : FLOATS;
  return fine <= few && fine <= 0x1p-32 * mean ? FINE : FLOATS;
}

#endif
