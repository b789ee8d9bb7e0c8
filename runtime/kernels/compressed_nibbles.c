/* Palettes of up to 6 bits times few vectors in fixed point, for CPUs with vpshufb and without the instructions of compressed_fixed.c: products, or sums
 * of them, are worked out once for a vector as three planes of digits, and codes choose among 16 at a time.
 *
 *   1, 2, 4 bits  A nibble of codes (4, 2 or 1 of them) chooses one of 16 sums.
 *   3 bits        A code chooses one of 8 products, which stand twice in a table: the fourth bit of an index does not count. Six codes lie in the nibbles
 *                 of three bytes, the bits of two more in the fourth bits.
 *   6 bits        A code chooses among four tables. Look-ups are zero where bit 7 of an index is set: with 0x70, 0x60 and 0x50 added (up to 255) it is for
 *                 codes from 16, 32 and 48 on, and what is looked up with these and the code itself is added, modulo 256. So each table has what the
 *                 products of its quarter are more than those of the next.
 *
 * A lane (a byte) is a row, and a table of 16 bytes stands in each 128 bits of a register, so that all rows look up the same one. Four look-ups for each
 * plane (of 6 bits, four times four) are a quad. As in compressed_pairs.c, whose digits, averages, and choice of tables these are,
 * digits are so small that those of a quad's tables are added as bytes before they are widened:
 *
 *   the highest  by the choice of the unit: the four largest sums of a quad have digits of less than 256 together;
 *   the middle   6 bits; of `fine` tables 7, which are added in pairs;
 *   the lowest   8 bits, of which averages are taken for sums, rounded up: twice, of fine tables once.
 *
 * Words (even lane + 256 odd lane) are added, modulo 2^16, and so are the odd lanes alone. What digits are of a table's sums begins with its least
 * possible sum, and with the middle of the palette as its zero.
 *
 * Tables are 48 bytes for 16 sums, so the depth is cut into pieces, whose tables stay in the first-level cache for a stripe of rows; each piece has a
 * unit of its own, so that a large element costs its neighbours precision and not all. In memory a stripe is its pieces, a piece its blocks of a
 * register's rows, a block its groups: the quads of two or three bytes of a row. Lane 4 j + i is row W i + j of its block: bytes i of all dwords are neighbouring rows.
 * Errors are worked out for each vector, from its units: coarse tables in float16 programs, fine ones, or floats where large elements make units large. */
#include "compressed_pieces.h"
#include "compressed_registers.h"

enum { PLANES = 3, TABLES = 4, TABLE = 16, BLOCK = REGISTER };
enum { PIECE_TABLES = 12 << 10 }; /* bytes, at most 64 quads, such that sums of words stay below 2^15 */

static cml_kernels ordinary; /* for what is not done here */

/* How an arranged vector begins; tables follow it, or an ordinary arranged vector. */
typedef struct nibbles_head {
  float sum; /* what all rows' sums begin with */
  int32_t tables;
} nibbles_head;

VINLINE size_t table_codes(unsigned bits) { return bits < 3 ? 4 / bits : 1; }

/* Of a group: bytes of a row, codes, quads. */
static size_t row_bytes(const cml_compressed *w) { return w->bits == 3 || w->bits == 6 ? 3 : 2; }
static size_t group_codes(const cml_compressed *w) { return row_bytes(w) * 8 / w->bits; }
static size_t group_quads(const cml_compressed *w) { return w->bits == 3 ? 2 : 1; }
static size_t group_tables(const cml_compressed *w) { return group_quads(w) * TABLES * (w->bits == 6 ? 4 : 1) * PLANES * TABLE; } /* bytes */
static size_t quad_codes(const cml_compressed *w) { return group_codes(w) / group_quads(w); }
static size_t group_count(const cml_compressed *w) { return (w->depth + group_codes(w) - 1) / group_codes(w); }

static pieces pieces_of(const cml_compressed *w) {
  return (pieces){group_count(w), PIECE_TABLES / group_tables(w), BLOCK, row_bytes(w), group_tables(w)};
}

static bool in_nibbles(const cml_compressed *w) { return w->packed && !w->scale; }

static bool fits_nibbles(const cml_compressed *w) {
  const bool narrow = w->bits < 4 || (w->bits < 8 && W < 16); /* with AVX-512 words or floats of 4 and 6 bits take few instructions, and are as fast */
  const bool many = w->bits % 3 == 0 && w->vectors > 4; /* whose tables, 48 and 192 bytes an element each, give nothing over floats, which vectors share */
  return !w->scale && narrow && !many && w->columns >= CML_COMPRESSED_ROWS && w->table_rows == w->columns;
}

static size_t nibbles_depth(const cml_compressed *w) { return fits_nibbles(w) ? part_depth(w->depth) : ordinary.compressed_depth(w); }

static size_t nibbles_bytes(const cml_compressed *w) {
  const pieces p = pieces_of(w);
  return fits_nibbles(w) ? pieces_bytes(&p, w) : ordinary.compressed_bytes(w);
}

/* ---- packing ---- */

/* Bytes of four rows (NULL: zeros) side by side, a register apart; `some` bytes of `all`, zeros behind them. */
static void pack_rows(const uint8_t *const *rows, size_t some, size_t all, uint8_t *to) {
  for (size_t b = 0; b < all; b += 16) {
    uint32_t dwords[16];
    __m128i a[4];
    for (size_t i = 0; i < 4; i++) {
      uint8_t copy[16] = {0};
      if (rows[i] && b < some) memcpy(copy, rows[i] + b, least(some - b, 16));
      memcpy(&a[i], copy, sizeof copy);
    }
    __m128i low = _mm_unpacklo_epi8(a[0], a[1]), low2 = _mm_unpacklo_epi8(a[2], a[3]);
    __m128i high = _mm_unpackhi_epi8(a[0], a[1]), high2 = _mm_unpackhi_epi8(a[2], a[3]);
    const __m128i four[4] = {_mm_unpacklo_epi16(low, low2), _mm_unpackhi_epi16(low, low2), _mm_unpacklo_epi16(high, high2), _mm_unpackhi_epi16(high, high2)};
    memcpy(dwords, four, sizeof dwords);
    for (size_t i = 0; i < 16 && b + i < all; i++) memcpy(to + (b + i) * REGISTER, &dwords[i], sizeof *dwords);
  }
}

/* Bytes of 8 codes of 3 bits each, as nibbles of six of them, whose fourth bits are the last two codes: those of the seventh in even nibbles. */
static void spread_threes(size_t groups, uint8_t *to) {
  for (size_t g = 0; g < groups; g++, to += 3 * REGISTER)
    for (size_t i = 0; i < REGISTER; i++) {
      const uint32_t v = to[i] | (uint32_t)to[REGISTER + i] << 8 | (uint32_t)to[2 * REGISTER + i] << 16;
      for (unsigned b = 0; b < 3; b++)
        to[b * REGISTER + i] = (uint8_t)((v >> 6 * b & 7) | (v >> (18 + b) & 1) << 3 | (v >> (6 * b + 3) & 7) << 4 | (v >> (21 + b) & 1) << 7);
    }
}

static void pack_piece(const cml_compressed *w, size_t n, size_t at, size_t groups, uint8_t *to) {
  const size_t row = w->depth * w->bits / 8;
  for (size_t j = 0; j < W; j++) {
    const uint8_t *rows[4];
    for (size_t i = 0; i < 4; i++) rows[i] = n + i * W + j < w->columns ? w->codes + (n + i * W + j) * w->row_bytes + at : NULL;
    pack_rows(rows, row - at, groups * row_bytes(w), to + j * 4);
  }
  if (w->bits == 3) spread_threes(groups, to);
}

static void nibbles_pack(const cml_compressed *w, size_t begin, size_t end, void *to) {
  const pieces p = pieces_of(w);
  for (size_t n = begin; n < end; n += BLOCK)
    for (size_t g = 0, some; g < p.groups; g += some) {
      some = least(p.groups - g, p.piece);
      pack_piece(w, n, g * p.row_bytes, some, (uint8_t *)to + piece_at(&p, w, n, g, some));
    }
}

/* ---- arranging ---- */

static size_t nibbles_room(const cml_compressed *w) {
  const pieces p = pieces_of(w);
  size_t room = ordinary.compressed_room(w), here = pieces_room(&p);
  return in_nibbles(w) ? HEAD + (room > here ? room : here) : room;
}

/* Entries less the palette's middle, of a table's j-th code, for its 16 or 64 sums. */
typedef struct palette {
  range of;
  vf entries[4][64 / W];
} palette;

static palette read_palette(const cml_compressed *w) {
  const size_t entries = (size_t)1 << w->bits;
  palette t = {.of = range_of(w)};
  float own[64];
  for (size_t j = 0; j < table_codes(w->bits); j++) {
    for (size_t i = 0; i < 64; i++) own[i] = w->table[i >> j * w->bits & (entries - 1)] - t.of.middle;
    memcpy(t.entries[j], own, sizeof own);
  }
  return t;
}

/* The largest sum of the sizes of a quad's elements. */
static float largest_quad(const cml_compressed *w, const float *x, size_t n) {
  const size_t codes = quad_codes(w);
  float largest = 0;
  for (size_t i = 0; i < n; i += codes) {
    float sum = 0;
    for (size_t j = i; j < i + codes && j < n; j++) sum += fabsf(x[j]);
    largest = fmaxf(largest, sum);
  }
  return largest;
}

/* A table of 16 sums less the least one. */
VINLINE void store_table(const bool fine, const vi *q, uint8_t *to) {
  const int middle = fine ? 127 : 63, upper = fine ? 15 : 14;
#if defined(__AVX512F__)
  _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8((__m512i)q[0]));
  _mm_storeu_si128((__m128i *)(void *)(to + TABLE), _mm512_cvtepi32_epi8((__m512i)(q[0] >> 8 & middle)));
  _mm_storeu_si128((__m128i *)(void *)(to + 2 * TABLE), _mm512_cvtepi32_epi8((__m512i)(q[0] >> upper)));
#else
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  __m256i low = _mm256_packus_epi32((__m256i)(q[0] & 255), (__m256i)(q[1] & 255));
  __m256i mid = _mm256_packus_epi32((__m256i)(q[0] >> 8 & middle), (__m256i)(q[1] >> 8 & middle));
  __m256i high = _mm256_packus_epi32((__m256i)(q[0] >> upper), (__m256i)(q[1] >> upper));
  _mm256_storeu_si256((__m256i *)(void *)to, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, mid), order));
  __m256i last = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(high, high), order);
  _mm_storeu_si128((__m128i *)(void *)(to + 2 * TABLE), _mm256_castsi256_si128(last));
#endif
}

/* The tables of a piece, by `factor`. */
VINLINE scale arrange_piece(const bool fine, const unsigned bits, const palette *t, const float *x, size_t n, size_t quads, float factor, uint8_t *to) {
  const size_t codes = table_codes(bits), quarters = bits == 6 ? 4 : 1;
  const int32_t averaged = fine ? 2 : 4;
  int32_t offset = 0;
  for (size_t i = 0; i < quads * TABLES; i++, to += quarters * PLANES * TABLE) {
    float v[4] = {0}, size = 0;
    for (size_t j = 0; j < codes; j++) v[j] = i * codes + j < n ? x[i * codes + j] * factor : 0, size += fabsf(v[j]);
    const int32_t lowest = -(int32_t)(size * t->of.reach * 0.25f) - 1;
    for (size_t quarter = 0; quarter < quarters; quarter++) {
      vi q[16 / W];
      CML_UNROLL for (size_t h = 0; h < 16 / W; h++) {
        vf sum = vf_set1((float)(-4 * lowest));
        CML_UNROLL for (size_t j = 0; j < codes; j++) sum = vf_fma(vf_set1(v[j]), t->entries[j][quarter * (16 / W) + h], sum);
        q[h] = vf_int(sum);
      }
      store_table(fine, q, to + quarter * PLANES * TABLE);
    }
    for (size_t j = 0; j < (quarters - 1) * PLANES * TABLE; j++) to[j] = (uint8_t)(to[j] - to[j + PLANES * TABLE]);
    offset += lowest;
  }
  return (scale){factor > 0 ? (float)averaged / factor : 0, offset * (4 / averaged) - rounded_up(fine, x, least(n, quads * TABLES * codes), TABLES * codes)};
}

typedef scale arrange_function(const palette *t, const float *x, size_t n, size_t quads, float factor, uint8_t *to);
#define ARRANGE(bits)                                                                                            \
  static scale coarse_##bits(const palette *t, const float *x, size_t n, size_t quads, float factor, uint8_t *to) { \
    return arrange_piece(false, bits, t, x, n, quads, factor, to);                                               \
  }                                                                                                              \
  static scale fine_##bits(const palette *t, const float *x, size_t n, size_t quads, float factor, uint8_t *to) {   \
    return arrange_piece(true, bits, t, x, n, quads, factor, to);                                                \
  }
ARRANGE(1)
ARRANGE(2)
ARRANGE(4)
ARRANGE(6)

static nibbles_head arrange_tables(const cml_compressed *w, const float *x, uint8_t *to) {
  static arrange_function *const functions[2][7] = {{NULL, coarse_1, coarse_2, coarse_4, coarse_4, NULL, coarse_6}, {NULL, fine_1, fine_2, fine_4, fine_4, NULL, fine_6}};
  const palette t = read_palette(w);
  const pieces p = pieces_of(w);
  const size_t elements = p.piece * group_codes(w);
  scale *scales = scales_of(&p, to);
  double total = 0, plain = 0, largest = 0, units = 0;
  for (size_t i = 0; i < w->depth; i += elements) {
    const size_t n = least(w->depth - i, elements);
    vf sizes = vf_zero(), all = vf_zero(), large = vf_zero();
    for (size_t j = 0; j < n; j += W) {
      vf v = load_elements(x + i, j, n);
      sizes += vf_abs(v), large = vf_max(large, vf_abs(v)), all += v;
    }
    total += (double)vf_sum(sizes), plain += (double)vf_sum(all), largest = fmax(largest, (double)vf_hmax(large));
    const float factor = piece_factor(largest_quad(w, x + i, n), &t.of);
    scales[i / elements].unit = factor;
    if (factor > 0) units += (double)(n + quad_codes(w) - 1) / (double)quad_codes(w) / ((double)factor * (double)factor);
  }
  const int tables = choose_tables(w, &t.of, total, largest, units);
  arrange_function *arrange = functions[tables == FINE][w->bits];
  for (size_t g = 0; g < p.groups && tables; g += p.piece) {
    const size_t at = g * group_codes(w), n = w->depth - at;
    scale *s = scales + g / p.piece;
    *s = arrange(&t, x + at, n, least(p.groups - g, p.piece) * group_quads(w), tables == FINE ? 2 * s->unit : s->unit, to + g * p.tables);
  }
  return (nibbles_head){(float)(plain * (double)t.of.middle), tables};
}

static void nibbles_arrange(const cml_compressed *w, const float *x, float *arranged) {
  if (!in_nibbles(w)) {
    ordinary.compressed_arrange(w, x, arranged);
    return;
  }
  const nibbles_head head = arrange_tables(w, x, (uint8_t *)(arranged + HEAD));
  if (!head.tables) ordinary.compressed_arrange(w, x, arranged + HEAD);
  memcpy(arranged, &head, sizeof head);
}

/* ---- products ---- */

/* Sums of words, and of the upper bytes of words. */
VINLINE void widen(bytes *sums, bytes a) {
  sums[0] = add_words(sums[0], a);
  sums[1] = add_words(sums[1], right(a, 8));
  __asm__("" : "+v"(sums[0]), "+v"(sums[1]));
}

/* Of one code an index. */
VINLINE void add_quad(const bool fine, const bytes *c, const uint8_t *tables, bytes (*acc)[2]) {
  CML_UNROLL for (int p = 0; p < PLANES; p++) {
    bytes t[TABLES], a, b;
    CML_UNROLL for (int i = 0; i < TABLES; i++) t[i] = look_up(load_table(tables + (i * PLANES + p) * TABLE), c[i]);
    a = p ? add_bytes(t[0], t[1]) : average(t[0], t[1]);
    b = p ? add_bytes(t[2], t[3]) : average(t[2], t[3]);
    if (fine && p < 2) widen(acc[p], a), widen(acc[p], b);
    else widen(acc[p], p ? add_bytes(a, b) : average(a, b));
  }
}

VINLINE void add_nibbles(const bool fine, const uint8_t *codes, const uint8_t *tables, bytes (*acc)[2]) {
  const bytes a = load_register(codes), b = load_register(codes + REGISTER);
  const bytes c[TABLES] = {bits_of(a, 15), bits_of(right(a, 4), 15), bits_of(b, 15), bits_of(right(b, 4), 15)};
  add_quad(fine, c, tables, acc);
}

VINLINE void add_threes(const bool fine, const uint8_t *codes, const uint8_t *tables, bytes (*acc)[2]) {
  const bytes a = load_register(codes), b = load_register(codes + REGISTER), c = load_register(codes + 2 * REGISTER);
  const bytes fourth = either(right(bits_of(a, 0x88), 3), either(right(bits_of(b, 0x88), 2), right(bits_of(c, 0x88), 1)));
  const bytes even[TABLES] = {bits_of(a, 0x77), bits_of(b, 0x77), bits_of(c, 0x77), fourth};
  CML_UNROLL for (int i = 0; i < TABLES; i += 2) {
    const bytes four[TABLES] = {even[i], right(even[i], 4), even[i + 1], right(even[i + 1], 4)};
    add_quad(fine, four, tables + i / 2 * TABLES * PLANES * TABLE, acc);
  }
}

/* sum + what an index chooses: in this order, as compilers that take another one run out of registers. */
VINLINE bytes add_choice(bytes sum, const uint8_t *table, bytes index) {
  sum = add_bytes(sum, look_up(load_table(table), index));
  __asm__("" : "+v"(sum));
  return sum;
}

VINLINE void add_sixes(const bool fine, const uint8_t *codes, const uint8_t *tables, bytes (*acc)[2]) {
  const bytes a = load_register(codes), b = load_register(codes + REGISTER), third = load_register(codes + 2 * REGISTER);
  const bytes code[TABLES] = {bits_of(a, 63), either(bits_of(right(a, 6), 3), bits_of(left(b, 2), 60)),
                              either(bits_of(right(b, 4), 15), bits_of(left(third, 4), 48)), bits_of(right(third, 2), 63)};
  bytes first = (bytes){0}, two = (bytes){0}, middle = (bytes){0}, high = (bytes){0}; /* lowest digits of a pair's first code, of the first pair */
  CML_UNROLL for (int i = 0; i < TABLES; i++) {
    bytes low = (bytes){0};
    CML_UNROLL for (int q = 0; q < 4; q++) {
      const uint8_t *table = tables + (i * 4 + q) * PLANES * TABLE;
      const bytes index = q == 3 ? code[i] : add_bounded(code[i], 0x70 - 16 * q);
      low = add_choice(low, table, index), middle = add_choice(middle, table + TABLE, index), high = add_choice(high, table + 2 * TABLE, index);
    }
    if (i % 2 == 0) {
      first = low;
      continue;
    }
    low = average(first, low);
    if (fine) widen(acc[0], low);
    else if (i == 3) widen(acc[0], average(two, low));
    two = low;
    if (fine || i == 3) widen(acc[1], middle), middle = (bytes){0};
  }
  widen(acc[2], high);
}

VINLINE void add_group(const bool fine, const unsigned bits, const uint8_t *codes, const uint8_t *tables, bytes (*acc)[2]) {
  if (bits == 3) add_threes(fine, codes, tables, acc);
  else if (bits == 6) add_sixes(fine, codes, tables, acc);
  else add_nibbles(fine, codes, tables, acc);
}

/* Adds the sums of `rows` rows to y: bytes 0, 1, 2 and 3 of the dwords are W rows each. */
VINLINE void add_sums(const bool fine, bytes (*acc)[2], scale s, size_t rows, float *y) {
  const int counts[PLANES] = {1, fine ? 128 : 64, fine ? 16384 : 4096};
  CML_UNROLL for (size_t i = 0; i < 4; i++) {
    const size_t some = rows > i * W ? least(rows - i * W, W) : 0;
    vi sum = vi_set1(s.offset);
    CML_UNROLL for (int p = 0; p < PLANES; p++)
      sum += (vi)product_of_words(i % 2 ? acc[p][1] : sub_words(acc[p][0], left(acc[p][1], 8)), (bytes)vi_set1(i / 2 ? counts[p] << 16 : counts[p]));
    if (some == W) vf_store(y + i * W, vf_fma(vf_from_int(sum), vf_set1(s.unit), vf_load(y + i * W)));
    else if (some) vf_store_n(y + i * W, vf_fma(vf_from_int(sum), vf_set1(s.unit), vf_load_n(y + i * W, some)), some);
  }
}

VINLINE void sums_of_block(const bool fine, const unsigned bits, const stretch *from, const uint8_t *tables, scale s, size_t rows, float *y) {
  const size_t group = (bits == 4 ? 2 : 3) * REGISTER, far = AHEAD / group * group, step = (bits == 4 ? 1 : bits == 3 ? 2 : 4) * TABLES * PLANES * TABLE;
  const uint8_t *codes = from->codes, *later = from->left > far ? codes + far : from->next + (far - from->left);
  size_t rest = from->left > far ? from->left - far : 0; /* of what is asked for, until it is of the next piece */
  bytes acc[PLANES][2];
  CML_UNROLL for (int i = 0; i < 2 * PLANES; i++) acc[i / 2][i % 2] = (bytes){0};
  for (size_t g = 0; g < from->groups; g++, codes += group, tables += step) {
    CML_UNROLL for (size_t i = 0; i < group; i += 64) ask(later + i);
    later += group;
    if (rest && !(rest -= group)) later = from->next;
    add_group(fine, bits, codes, tables, acc);
  }
  add_sums(fine, acc, s, rows, y);
}

/* bits: 4 for all nibbles of codes. */
#define SUMS(bits)                                                                                                                           \
  static __attribute__((noinline)) void coarse_sums_##bits(const stretch *from, const uint8_t *tables, scale s, size_t rows, float *y) {      \
    sums_of_block(false, bits, from, tables, s, rows, y);                                                                                    \
  }                                                                                                                                          \
  static __attribute__((noinline)) void fine_sums_##bits(const stretch *from, const uint8_t *tables, scale s, size_t rows, float *y) {        \
    sums_of_block(true, bits, from, tables, s, rows, y);                                                                                     \
  }
SUMS(3)
SUMS(4)
SUMS(6)

static void nibbles_product(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride) {
  static piece_function *const functions[3][3] = {{NULL, coarse_sums_4, fine_sums_4}, {NULL, coarse_sums_3, fine_sums_3}, {NULL, coarse_sums_6, fine_sums_6}};
  const pieces p = pieces_of(w);
  const size_t room = nibbles_room(w);
  if (!in_nibbles(w)) {
    ordinary.compressed_product(w, begin, end, x, vectors, y, y_stride);
    return;
  }
  for (size_t v = 0; v < vectors; v++, x += room, y += y_stride) {
    nibbles_head head;
    memcpy(&head, x, sizeof head);
    if (!head.tables) {
      ordinary.compressed_product(w, begin, end, x + HEAD, 1, y, y_stride);
      continue;
    }
    const uint8_t *tables = (const uint8_t *)(x + HEAD);
    piece_products(&p, w, functions[w->bits % 3 ? 0 : w->bits / 3], begin, end, 1, &tables, &head.tables, &head.sum, y, y_stride);
  }
}

#if defined(__AVXVNNI__)
void cml_fill_nibbles_avxvnni(cml_kernels *k) {
#else
void CML_SIMD(cml_fill_nibbles)(cml_kernels *k) {
#endif
  ordinary = *k;
  k->compressed_depth = nibbles_depth;
  k->compressed_bytes = nibbles_bytes;
  k->compressed_pack = nibbles_pack;
  k->compressed_room = nibbles_room;
  k->compressed_arrange = nibbles_arrange;
  k->compressed_product = nibbles_product;
}
