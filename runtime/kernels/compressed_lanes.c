/* Palettes times few vectors in fixed point (see compressed_fixed.c), packed so that a lane is a row: what is looked up
 * for one lane is looked up for all, and a register of a table serves 64 rows.
 *
 *   1, 2, 4 bits  A nibble of codes (4, 2 or 1 of them) chooses one of 16 sums of products. These sums are worked out once for a vector, as
 *                 three planes of digits; four tables of 16 are one register, which the four nibbles of a lane look up at once. Digits are so
 *                 small that those of a byte's two nibbles are added as bytes in two of the planes: 22 bits of 24, and fewer sums of products.
 *   3 bits        The same, with all 24, with tables of 8 products, eight to a register: a row is two lanes.
 *   6 bits        A register of 64 entries' digits, multiplied with digits of the elements, which are the same for all lanes.
 *   8 bits        The same. Two digits of 256 entries are looked up in four registers each; of the lowest digit 64 entries alone may be other than
 *                 zero, as is usual where entries are float16, and codes are renumbered so that these come first. Other palettes are not packed.
 *
 * Rows are packed in blocks of 64, in sets of 16 (3 bits: 8). The codes of a group of elements follow one another for all sets of a block:
 * a dword of each row, or three of 3 and 6 bits: then these lie in the lower six bits of three registers' bytes, and a fourth register is made of
 * their upper two bits.
 * Tables of a long row would not stay in the first-level cache, so the depth is cut into pieces: stripes of rows take one piece after the other,
 * and in memory a stripe is its pieces, a piece its blocks.
 * Packed matrices are as large as their codes, but for rows and codes that fill up the last block and group. */
#include "compressed_fixed.h"

enum { BLOCK = CML_COMPRESSED_ROWS, SETS = 4, REGISTER = 64 };
enum { NIBBLE_TABLES = 2 * PLANES * PLANE, EIGHT_TABLES = 8 * PLANES * PLANE };
enum { STRIPE = 16 * BLOCK, TABLES = 12 << 10 }; /* rows that take one piece of the depth after the other, at most; bytes of tables for a piece */
enum { WHOLE_DEPTH = 2048 };                     /* up to which nibbles' tables of all of the depth are used for two blocks at a time */
enum { FLUSH = 4096 }; /* elements whose products with entries' digits fit into 32 bits: 3 of 2^15 each */

static bool by_nibbles(const cml_compressed *w) { return w->bits == 1 || w->bits == 2 || w->bits == 4; }
static bool by_entries(const cml_compressed *w) { return w->bits == 6 || w->bits == 8; }

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

/* Elements whose codes lie together, and bytes of them in a row. */
static size_t group_codes(const cml_compressed *w) { return w->bits == 3 ? 64 : w->bits == 6 ? 16 : 32 / w->bits; }
static size_t group_bytes(const cml_compressed *w) { return w->bits == 3 ? 24 : w->bits == 6 ? 12 : 4; }
static size_t group_count(const cml_compressed *w) { return (w->depth + group_codes(w) - 1) / group_codes(w); }

/* Groups of a piece of the depth. */
static size_t piece_groups(const cml_compressed *w) {
  if (by_entries(w) || (by_nibbles(w) && w->depth <= WHOLE_DEPTH)) return group_count(w);
  return TABLES / (by_nibbles(w) ? NIBBLE_TABLES : EIGHT_TABLES);
}


/* Where the codes of block n begin that belong to the piece from group g on, which has `groups`. */
static size_t piece_at(const cml_compressed *w, size_t n, size_t g, size_t groups) {
  size_t stripe = n / STRIPE * STRIPE, rows = round_up(w->columns - stripe, BLOCK), bytes = group_bytes(w);
  if (rows > STRIPE) rows = STRIPE;
  return stripe * group_count(w) * bytes + (rows * g + (n - stripe) * groups) * bytes;
}

/* The place of each of 256 entries when those whose lowest digit is not zero come first. Returns how many these are. */
static size_t order_entries(const uint8_t *lowest, uint8_t *place) {
  size_t some = 0, first = 0;
  for (size_t i = 0; i < 256; i++) some += lowest[i] != 0;
  for (size_t i = 0, next = some; i < 256; i++) place[i] = (uint8_t)(lowest[i] ? first++ : next++);
  return some;
}

/* Whether all palettes' lowest digits are in one register, and palettes are large enough for it to pay to put them in order at each product. */
static bool ordered(const cml_compressed *w) {
  uint8_t cut[PLANES][256], place[256];
  if (w->table_rows * w->depth < 1 << 16) return false;
  for (size_t n = 0; n < w->columns; n += w->table_rows) {
    (void)cut_palette(w, n, cut);
    if (order_entries(cut[0], place) > REGISTER) return false;
  }
  return true;
}

size_t cml_lanes_bytes(const cml_compressed *w) {
  if (w->scale || w->columns < BLOCK || w->depth >= 1 << 18) return 0;
  bool one = w->table_rows == w->columns;
  if (w->bits != 1 && !one && (!by_entries(w) || w->table_rows % BLOCK)) return 0;
  if (w->bits == 8 && !ordered(w)) return 0;
  return round_up(w->columns, BLOCK) * group_count(w) * group_bytes(w);
}

/* ---- packing ---- */

/* Dword i of each of 16 rows, for 16 neighbouring dwords. */
VINLINE void transpose_dwords(__m512i *a) {
  __m512i b[16];
  CML_UNROLL for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  CML_UNROLL for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]), a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]), a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  CML_UNROLL for (int i = 0; i < 4; i++) {
    b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88), b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
  }
  CML_UNROLL for (int i = 0; i < 8; i++) {
    a[i] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88);
    a[i + 8] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd);
  }
}

/* Up to 64 bytes of a row from byte `at`, the others zero. */
VINLINE __m512i load_bytes(const uint8_t *row, size_t at, size_t end) {
  if (!row || at >= end) return _mm512_setzero_si512();
  return at + REGISTER <= end ? _mm512_loadu_si512(row + at) : _mm512_maskz_loadu_epi8(UINT64_MAX >> (REGISTER - (end - at)), row + at);
}

void cml_pack_dwords(const uint8_t *const *rows, size_t row_bytes, size_t dwords, char *to, size_t step) {
  for (size_t d = 0; d < dwords; d += 16) {
    __m512i a[16];
    CML_UNROLL for (size_t r = 0; r < 16; r++) a[r] = load_bytes(rows[r], d * 4, row_bytes);
    transpose_dwords(a);
    for (size_t i = 0; i < 16 && d + i < dwords; i++) _mm512_storeu_si512(to + (d + i) * step, a[i]);
  }
}

/* The 64 codes of 3 or 6 bits in the first bytes of a register, a byte each: the 8 of a qword come from its lowest bytes. */
VINLINE __m512i spread_codes(__m512i codes, const int bits) {
  const __m512i eighth = _mm512_set1_epi64(0x0706050403020100);
  const __m512i qword = _mm512_mullo_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(bits * INT64_C(0x0101010101010101)));
  const __m512i shifts = _mm512_set1_epi64(bits == 3 ? 0x15120f0c09060300 : 0x2a241e18120c0600);
  __m512i bytes = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(_mm512_add_epi8(eighth, qword), codes));
  return _mm512_and_si512(bytes, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

/* 64 codes of a row: 8 for each of the 8 tables, of which the first and the second of each pair share a register's bytes. */
static void pack_eights(const uint8_t *row, size_t row_bytes, size_t begin, size_t groups, size_t r, char *to) {
  const uint64_t two = 0x0303030303030303;
  for (size_t g = 0; g < groups; g++) {
    uint64_t q[8];
    _mm512_storeu_si512(q, spread_codes(load_bytes(row, (begin + g) * 24, row_bytes), 3));
    uint64_t rest = q[6] | q[7] << 3;
    char *from = to + (g * SETS + r / 8) * 3 * REGISTER + r % 8 * 8;
    for (size_t i = 0; i < 3; i++) {
      uint64_t v = q[2 * i] | q[2 * i + 1] << 3 | (rest >> (2 * i) & two) << 6;
      memcpy(from + i * REGISTER, &v, sizeof v);
    }
  }
}

static void pack_sixes(const uint8_t *row, size_t row_bytes, size_t groups, size_t r, char *to) {
  for (size_t g = 0; g < groups; g++) {
    uint32_t d[16];
    if (g % 4 == 0) _mm512_storeu_si512(d, spread_codes(load_bytes(row, g * 12, row_bytes), 6));
    const uint32_t *q = d + g % 4 * 4;
    char *from = to + (g * SETS + r / 16) * 3 * REGISTER + r % 16 * 4;
    for (size_t i = 0; i < 3; i++) {
      uint32_t v = q[i] | (q[3] >> (2 * i) & 0x03030303) << 6;
      memcpy(from + i * REGISTER, &v, sizeof v);
    }
  }
}

static void pack_piece(const cml_compressed *w, const uint8_t *const *rows, size_t g, size_t groups, char *to) {
  const size_t row_bytes = w->depth * w->bits / 8, at = g * group_bytes(w);
  for (size_t s = 0; s < SETS && group_bytes(w) == 4; s++) {
    const uint8_t *from[16];
    for (size_t r = 0; r < 16; r++) from[r] = rows[s * 16 + r] ? rows[s * 16 + r] + at : NULL;
    cml_pack_dwords(from, row_bytes > at ? row_bytes - at : 0, groups, to + s * REGISTER, SETS * REGISTER);
  }
  for (size_t r = 0; r < BLOCK && group_bytes(w) != 4; r++) {
    if (w->bits == 6) pack_sixes(rows[r], row_bytes, groups, r, to);
    else pack_eights(rows[r], row_bytes, g, groups, r % 32, to + r / 32 * (32 * groups * group_bytes(w)));
  }
}

/* Entry `code` of 256, or half of them, in four registers. */
VINLINE __m512i look_up_bytes(__m512i code, __mmask64 upper, const __m512i *table) {
  return _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(table[0], code, table[1]), upper, _mm512_permutex2var_epi8(table[2], code, table[3]));
}

static void renumber(const cml_compressed *w, size_t n, char *codes, size_t bytes) {
  uint8_t cut[PLANES][256], place[256];
  __m512i table[4];
  (void)cut_palette(w, n, cut);
  if (!order_entries(cut[0], place)) return;
  for (size_t i = 0; i < 4; i++) table[i] = _mm512_loadu_si512(place + i * REGISTER);
  for (size_t i = 0; i < bytes; i += REGISTER) {
    __m512i code = _mm512_loadu_si512(codes + i);
    _mm512_storeu_si512(codes + i, look_up_bytes(code, _mm512_movepi8_mask(code), table));
  }
}

void cml_lanes_pack(const cml_compressed *w, size_t begin, size_t end, void *to) {
  const size_t row_bytes = w->depth * w->bits / 8, groups = group_count(w), piece = piece_groups(w);
  for (size_t n = begin; n < end; n += BLOCK) {
    const uint8_t *rows[BLOCK];
    for (size_t r = 0; r < BLOCK; r++) rows[r] = n + r < w->columns ? w->codes + (n + r) * row_bytes : NULL;
    for (size_t g = 0; g < groups; g += piece) {
      size_t some = groups - g < piece ? groups - g : piece;
      pack_piece(w, rows, g, some, (char *)to + piece_at(w, n, g, some));
      if (w->bits == 8) renumber(w, n, (char *)to + piece_at(w, n, g, some), BLOCK * some * group_bytes(w));
    }
  }
}

/* ---- arranging ---- */

/* Bytes of a plane of the elements' digits. */
static size_t entry_plane(const cml_compressed *w) { return round_up(w->depth, 16); }

size_t cml_lanes_room(const cml_compressed *w) {
  size_t plane = entry_plane(w), flushes = (plane + FLUSH - 1) / FLUSH;
  if (by_entries(w)) return round_up(plane * PLANES, REGISTER) / 4 + round_up(flushes * PLANES, 16);
  return group_count(w) * (by_nibbles(w) ? NIBBLE_TABLES : EIGHT_TABLES) / 4;
}

/* The largest sum of the sizes of `n` neighbouring elements, from a multiple of n on; n: 1, 2, 4 or 8. */
static double largest_sum(const float *x, size_t depth, int n) {
  vf largest = vf_zero();
  for (size_t i = 0; i < depth; i += W) {
    vf v = vf_abs(load_elements(x, i, depth));
    for (int apart = 1; apart < n; apart *= 2) v += vf_permute(v, vi_iota() ^ apart);
    largest = vf_max(largest, v);
  }
  return (double)vf_hmax(largest);
}

double cml_lanes_bound(const cml_compressed *w, const float *x, double largest) {
  if (w->bits == 3) return largest * (double)largest_entry(w->table, 8);
  if (by_entries(w)) return largest;
  double both = largest_sum(x, w->depth, 8 / (int)w->bits) * (w->bits == 1 ? 1 : (double)largest_entry(w->table, (size_t)1 << w->bits));
  return 2 * (1 + 0x1p-6) * both; /* as store_sums wants it */
}

/* The three digits of a sum that is looked up, of 7, 8 and 8 bits. Both sums that a byte of codes chooses are less than 2^22 - 2^16 together, so that
 * their first digits can be added as bytes, as their last ones can. */
VINLINE void store_sums(vf scaled, int8_t *to) {
  __m512i q = _mm512_cvtps_epi32((__m512)scaled), rest = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(64)), 7);
  __m512i first = _mm512_srai_epi32(_mm512_add_epi32(rest, _mm512_set1_epi32(128)), 8);
  _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(_mm512_sub_epi32(q, _mm512_slli_epi32(rest, 7))));
  _mm_storeu_si128((__m128i *)(void *)(to + PLANE), _mm512_cvtepi32_epi8(rest));
  _mm_storeu_si128((__m128i *)(void *)(to + 2 * PLANE), _mm512_cvtepi32_epi8(first));
}

VINLINE vf join_sums(const __m512i *acc) {
  return vf_fma(vf_from_int((vi)acc[2]), vf_set1(1 << 15), vf_fma(vf_from_int((vi)acc[1]), vf_set1(128), vf_from_int((vi)acc[0])));
}

/* The 16 sums that four bits of codes choose from; with one bit a code, sums of x and -x. */
VINLINE vf nibble_sums(const float *x, size_t at, size_t n, size_t codes, const vf *factors) {
  vf sum = vf_zero();
  CML_UNROLL for (size_t j = 0; j < codes; j++) sum = vf_fma(vf_set1(at + j < n ? x[at + j] : 0), factors[j], sum);
  return sum;
}

static void arrange_nibbles(const cml_compressed *w, const float *x, int e, int8_t *to) {
  size_t codes = 4 / w->bits, nibbles = group_count(w) * 8;
  vf factors[4];
  vi code = vi_iota(), mask = vi_set1((1 << w->bits) - 1);
  for (size_t j = 0; j < codes; j++) {
    vi own = code >> (int)(j * w->bits) & mask;
    factors[j] = w->bits == 1 ? vf_from_int(own * 2 - 1) : vf_permute(vf_load(w->table), own);
  }
  for (size_t i = 0; i < nibbles; i++) {
    vf sums = w->bits == 1   ? nibble_sums(x, i * 4, w->depth, 4, factors)
              : w->bits == 2 ? nibble_sums(x, i * 2, w->depth, 2, factors)
                             : nibble_sums(x, i, w->depth, 1, factors);
    store_sums(scaled_by(sums, e), to + i / 8 * NIBBLE_TABLES + i % 2 * PLANES * PLANE + i / 2 % 4 * 16);
  }
}

/* Tables of even number hold the 8 products of one element after those of the one before, the others the eight elements' products for one
 * entry after those for the entry before: so the index of either is three bits of codes where they lie, and three bits of the place. */
static void arrange_eights(const cml_compressed *w, const float *x, int e, int8_t *to) {
  const vi lane = vi_iota(), high = lane >> 3, low = lane & 7;
  const vf entries = vf_permute(vf_load(w->table), low);
  for (size_t i = 0; i < group_count(w) * 8; i++, to += PLANES * PLANE) {
    vf v = load_elements(x, i * 8, w->depth);
    for (int part = 0; part < 4; part++) {
      vf products = i % 2 ? vf_permute(v, low) * vf_permute(entries, high + 2 * part) : vf_permute(v, high + 2 * part) * entries;
      store_digits(scaled_by(products, e), to + 16 * part, PLANE);
    }
  }
}

/* By plane; behind them what the sums begin with. */
static void arrange_entries(const cml_compressed *w, const float *x, int e, int8_t *to) {
  const size_t plane = entry_plane(w);
  int32_t *start = (int32_t *)(void *)(to + round_up(plane * PLANES, REGISTER));
  const __m512i ones = _mm512_set1_epi8(1);
  for (size_t from = 0; from < plane; from += FLUSH, start += PLANES) {
    int32_t sums[PLANES];
    size_t end = from + FLUSH < plane ? from + FLUSH : plane;
    for (size_t i = from; i < end; i += W) store_digits(scaled_by(load_elements(x, i, w->depth), e), to + i, plane);
    for (size_t p = 0; p < PLANES; p++) {
      __m512i sum = _mm512_setzero_si512();
      for (size_t i = from; i < end; i += W)
        sum = dpbusd(sum, ones, _mm512_zextsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(to + p * plane + i))));
      sums[p] = _mm512_reduce_add_epi32(sum);
    }
    palette_start(sums[0], sums[1], sums[2], start);
  }
}

void cml_lanes_arrange(const cml_compressed *w, const float *x, int e, float *arranged) {
  int8_t *to = (int8_t *)arranged;
  if (by_entries(w)) arrange_entries(w, x, e, to);
  else if (w->bits == 3) arrange_eights(w, x, e, to);
  else arrange_nibbles(w, x, e, to);
}

/* ---- products: `sums` of a block's rows, in units of the last digit ---- */

/* Into the second-level cache: the first one holds tables. */
VINLINE void ask(const uint8_t *p) {
  _mm_prefetch((const char *)p, _MM_HINT_T1);
  __asm__ volatile(""); /* where it stands: compilers gather them, and bursts wait for one another */
}

/* (codes & mask) | which */
VINLINE __m512i table_index(__m512i codes, __m512i mask, __m512i which) { return _mm512_ternarylogic_epi32(codes, mask, which, 0xea); }

/* Codes of one piece of the depth for a block of rows, and what is read after them. */
typedef struct stretch {
  const uint8_t *codes, *next;
  size_t bytes; /* of codes */
} stretch;

/* What is read AHEAD bytes after the codes at `at`. */
VINLINE const uint8_t *ahead(const stretch *s, size_t at) {
  return at + AHEAD < s->bytes ? s->codes + at + AHEAD : s->next + (at + AHEAD - s->bytes);
}

/* Of B blocks, `apart` bytes from one another: added to what `sums` holds. */
VINLINE void nibble_sums_of_blocks(const int B, const stretch *from, size_t apart, const int8_t *tables, float *sums) {
  const __m512i ones = _mm512_set1_epi8(1), nibble = _mm512_set1_epi8(15), which = _mm512_set1_epi32(0x30201000);
  __m512i acc[2 * SETS][PLANES];
  CML_UNROLL for (int i = 0; i < B * SETS * PLANES; i++) acc[i / PLANES][i % PLANES] = _mm512_setzero_si512();
  for (size_t at = 0; at < from->bytes; at += SETS * REGISTER, tables += NIBBLE_TABLES) {
    const uint8_t *codes = from->codes + at, *later = ahead(from, at);
    __m512i table[2][PLANES];
    CML_UNROLL for (size_t i = 0; i < 2 * PLANES; i++) table[i / PLANES][i % PLANES] = load_plane(tables, i);
    CML_UNROLL for (int s = 0; s < B * SETS; s++) {
      const size_t place = (size_t)(s / SETS) * apart + s % SETS * REGISTER;
      ask(later + place);
      __m512i code = _mm512_loadu_si512(codes + place), even = table_index(code, nibble, which), odd = table_index(_mm512_srli_epi32(code, 4), nibble, which);
      __m512i a[PLANES], b[PLANES];
      CML_UNROLL for (size_t p = 0; p < PLANES; p++) a[p] = _mm512_permutexvar_epi8(even, table[0][p]), b[p] = _mm512_permutexvar_epi8(odd, table[1][p]);
      acc[s][2] = dpbusd(acc[s][2], ones, _mm512_add_epi8(a[2], b[2]));
      acc[s][1] = dpbusd(dpbusd(acc[s][1], ones, a[1]), ones, b[1]);
      acc[s][0] = dpbusd(acc[s][0], ones, _mm512_add_epi8(a[0], b[0]));
    }
  }
  CML_UNROLL for (int s = 0; s < B * SETS; s++) vf_store(sums + s * W, vf_load(sums + s * W) + join_sums(acc[s]));
}

static __attribute__((noinline)) void nibble_sums_of_one(const stretch *from, const int8_t *tables, float *sums) {
  nibble_sums_of_blocks(1, from, 0, tables, sums);
}

static __attribute__((noinline)) void nibble_sums_of_two(const stretch *from, size_t apart, const int8_t *tables, float *sums) {
  nibble_sums_of_blocks(2, from, apart, tables, sums);
}

/* Register i of the four that the three at p hold; i = 3: their upper bits. */
VINLINE __m512i load_codes(const uint8_t *p, const int i) {
  __m512i a = _mm512_loadu_si512(p + (i < 3 ? i : 0) * REGISTER);
  if (i < 3) return a;
  __m512i b = _mm512_loadu_si512(p + REGISTER), c = _mm512_loadu_si512(p + 2 * REGISTER);
  __m512i ab = _mm512_ternarylogic_epi32(_mm512_set1_epi8(3), _mm512_srli_epi16(a, 6), _mm512_srli_epi16(b, 4), 0xca); /* mask ? a : b */
  return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), ab, _mm512_srli_epi16(c, 2), 0xca);
}

/* 32 rows. */
static void eight_sums_of_half(const stretch *from, const int8_t *tables, float *sums) {
  const __m512i ones = _mm512_set1_epi8(1), low = _mm512_set1_epi8(7), high = _mm512_set1_epi8(0x38);
  const __m512i eighths = _mm512_set1_epi64(0x3830282018100800), places = _mm512_set1_epi64(0x0706050403020100);
  __m512i acc[SETS][PLANES];
  CML_UNROLL for (int i = 0; i < SETS * PLANES; i++) acc[i / PLANES][i % PLANES] = _mm512_setzero_si512();
  for (size_t at = 0; at < from->bytes; at += SETS * 3 * REGISTER, tables += EIGHT_TABLES) {
    const uint8_t *codes = from->codes + at, *later = ahead(from, at);
    CML_UNROLL for (int i = 0; i < 4; i++) {
      CML_UNROLL for (int s = 0; s < SETS; s++) {
        if (i < 3) ask(later + (s * 3 + i) * REGISTER);
        __m512i code = load_codes(codes + s * 3 * REGISTER, i), first = table_index(code, low, eighths), second = table_index(code, high, places);
        CML_UNROLL for (size_t p = 0; p < PLANES; p++) {
          acc[s][p] = dpbusd(acc[s][p], ones, _mm512_permutexvar_epi8(first, load_plane(tables, (size_t)i * 2 * PLANES + p)));
          acc[s][p] = dpbusd(acc[s][p], ones, _mm512_permutexvar_epi8(second, load_plane(tables, ((size_t)i * 2 + 1) * PLANES + p)));
        }
      }
    }
  }
  const vi even = vi_iota() * 2;
  CML_UNROLL for (int s = 0; s < SETS; s += 2) {
    __m512 a = (__m512)join_digits(acc[s]), b = (__m512)join_digits(acc[s + 1]);
    vf pairs = (vf)_mm512_permutex2var_ps(a, (__m512i)even, b) + (vf)_mm512_permutex2var_ps(a, (__m512i)(even + 1), b);
    vf_store(sums + s * 8, vf_load(sums + s * 8) + pairs);
  }
}

static void eight_sums_of_block(const stretch *from, const int8_t *tables, float *sums) {
  const size_t half = from->bytes / 2;
  eight_sums_of_half(&(stretch){from->codes, from->codes + half, half}, tables, sums);
  eight_sums_of_half(&(stretch){from->codes + half, from->next, half}, tables, sums + BLOCK / 2);
}

/* Adds four elements' products for 16 rows, whose entries' digits were looked up. */
VINLINE void add_products(__m512i *acc, const __m512i *t, const __m512i *x) {
  acc[2] = dpbusd(acc[2], t[2], x[2]);
  acc[1] = dpbusd(dpbusd(acc[1], t[2], x[1]), t[1], x[2]);
  acc[0] = dpbusd(dpbusd(dpbusd(acc[0], t[2], x[0]), t[1], x[1]), t[0], x[2]);
}

/* The digits of four elements for all lanes. */
VINLINE void spread_digits(const int8_t *digits, size_t plane, __m512i *x) {
  CML_UNROLL for (size_t p = 0; p < PLANES; p++) {
    int32_t four;
    memcpy(&four, digits + p * plane, 4);
    x[p] = _mm512_set1_epi32(four);
  }
}

VINLINE void six_products(const uint8_t *codes, const int8_t *digits, size_t plane, __m512i table[PLANES][4], __m512i acc[SETS][PLANES]) {
  CML_UNROLL for (int i = 0; i < 4; i++) {
    __m512i x[PLANES], t[PLANES];
    spread_digits(digits + i * 4, plane, x);
    CML_UNROLL for (int s = 0; s < SETS; s++) {
      const uint8_t *at = codes + s * 3 * REGISTER;
      if (i < 3) ask(at + i * REGISTER + AHEAD);
      __m512i code = load_codes(at, i);
      CML_UNROLL for (int p = 0; p < PLANES; p++) t[p] = _mm512_permutexvar_epi8(code, table[p][0]);
      add_products(acc[s], t, x);
    }
  }
}

VINLINE void byte_products(const uint8_t *codes, const int8_t *digits, size_t plane, __m512i table[PLANES][4], __m512i acc[SETS][PLANES]) {
  const __m512i beyond = _mm512_set1_epi8((char)-REGISTER);
  __m512i x[PLANES], t[PLANES];
  spread_digits(digits, plane, x);
  CML_UNROLL for (int s = 0; s < SETS; s++) {
    ask(codes + s * REGISTER + AHEAD);
    __m512i code = _mm512_loadu_si512(codes + s * REGISTER);
    __mmask64 upper = _mm512_movepi8_mask(code);
    t[0] = _mm512_maskz_permutexvar_epi8(_mm512_testn_epi8_mask(code, beyond), code, table[0][0]);
    CML_UNROLL for (int p = 1; p < PLANES; p++) t[p] = look_up_bytes(code, upper, table[p]);
    add_products(acc[s], t, x);
  }
}

VINLINE void entry_sums_of_block(const int bits, const uint8_t *codes, const cml_compressed *w, const int8_t *digits, uint8_t palette[PLANES][256],
                                 float *sums) {
  const size_t plane = entry_plane(w), depth = round_up(w->depth, group_codes(w)), step = bits == 6 ? 16 : 4;
  const int32_t *start = (const int32_t *)(const void *)(digits + round_up(plane * PLANES, REGISTER));
  __m512i table[PLANES][4];
  CML_UNROLL for (int i = 0; i < PLANES * 4; i++) table[i / 4][i % 4] = _mm512_loadu_si512(palette[i / 4] + (bits == 8 ? i % 4 * REGISTER : 0));
  for (size_t from = 0; from < depth; from += FLUSH, start += PLANES) {
    __m512i acc[SETS][PLANES];
    size_t end = from + FLUSH < depth ? from + FLUSH : depth;
    CML_UNROLL for (int i = 0; i < SETS * PLANES; i++) acc[i / PLANES][i % PLANES] = _mm512_set1_epi32(start[i % PLANES]);
    for (size_t k = from; k < end; k += step, codes += step * (size_t)bits / 8 * BLOCK) {
      if (bits == 6) six_products(codes, digits + k, plane, table, acc);
      else byte_products(codes, digits + k, plane, table, acc);
    }
    CML_UNROLL for (int s = 0; s < SETS; s++) vf_store(sums + s * W, from ? vf_load(sums + s * W) + join_digits(acc[s]) : join_digits(acc[s]));
  }
}

/* `unit` is a power of two. Of one bit sums of x and -x were looked up: (t0 + t1) / 2 times the sum of x and (t1 - t0) / 2 times those. */
static void finish(const cml_compressed *w, size_t n, size_t rows, const float *sums, const fixed_head *head, double unit, float *y) {
  const int e = ilogb(unit);
  for (size_t r = 0, some; r < rows; r += some) {
    size_t left = w->bits == 1 ? w->table_rows - (n + r) % w->table_rows : W; /* of the same table */
    some = rows - r < W ? rows - r : W;
    if (some > left) some = left;
    vf sum = vf_load_n(sums + r, some);
    if (w->bits == 1) {
      const float *t = w->table + (n + r) / w->table_rows * w->table_size;
      double zero = 0.5 * ((double)t[0] + (double)t[1]) * (double)head->sum, one = 0.5 * ((double)t[1] - (double)t[0]) * unit;
      vf_store_n(y + r, vd_float(vf_double(sum) * vd_set1(one) + vd_set1(zero)), some);
    } else {
      vf_store_n(y + r, scaled_by(sum, e), some);
    }
  }
}

/* Rows [begin, end) of a stripe: a piece of the depth after the other, whose tables stay in the first-level cache. */
static void stripe_products(const cml_compressed *w, size_t begin, size_t end, const int8_t *tables, const fixed_head *head, float *y) {
  const size_t groups = group_count(w), piece = piece_groups(w), bytes = BLOCK * group_bytes(w), step = by_nibbles(w) ? NIBBLE_TABLES : EIGHT_TABLES;
  const uint8_t *codes = w->packed;
  float sums[STRIPE] = {0};
  for (size_t g = 0, some; g < groups; g += some) {
    some = groups - g < piece ? groups - g : piece;
    size_t after = groups - g - some < piece ? groups - g - some : piece; /* groups of the next piece */
    for (size_t n = begin; n < end; n += BLOCK) {
      stretch s = {codes + piece_at(w, n, g, some), NULL, some * bytes};
      s.next = n + BLOCK < end || !after ? s.codes + s.bytes : codes + piece_at(w, begin, g + some, after);
      if (by_nibbles(w)) nibble_sums_of_one(&s, tables + g * step, sums + n - begin);
      else eight_sums_of_block(&s, tables + g * step, sums + n - begin);
    }
  }
  finish(w, begin, end - begin, sums, head, head->unit, y + begin);
}

/* With tables of the whole depth, from the second-level cache: two blocks at a time, half of the rows apart, halve what is read of them. */
static void whole_products(const cml_compressed *w, size_t begin, size_t end, const int8_t *tables, const fixed_head *head, float *y) {
  const size_t groups = group_count(w), row = groups * group_bytes(w), blocks = (end - begin + BLOCK - 1) / BLOCK, apart = blocks / 2 * BLOCK;
  const uint8_t *codes = (const uint8_t *)w->packed + begin * row;
  for (size_t i = 0; i < apart; i += BLOCK) {
    size_t second = begin + apart + i;
    float sums[2 * BLOCK] = {0};
    const stretch s = {codes + i * row, codes + (i + BLOCK) * row, BLOCK * row};
    nibble_sums_of_two(&s, apart * row, tables, sums);
    finish(w, begin + i, BLOCK, sums, head, head->unit, y + begin + i);
    finish(w, second, end - second < BLOCK ? end - second : BLOCK, sums + BLOCK, head, head->unit, y + second);
  }
  if (blocks % 2 == 0) return;
  size_t last = 2 * apart;
  float sums[BLOCK] = {0};
  const stretch s = {codes + last * row, codes + (last + BLOCK) * row, BLOCK * row};
  nibble_sums_of_one(&s, tables, sums);
  finish(w, begin + last, end - begin - last, sums, head, head->unit, y + begin + last);
}

/* As cut_palette, by renumbered codes. */
static double cut_in_order(const cml_compressed *w, size_t n, uint8_t palette[PLANES][256]) {
  uint8_t place[256], cut[PLANES][256];
  double unit = cut_palette(w, n, palette);
  if (w->bits != 8 || !order_entries(palette[0], place)) return unit;
  memcpy(cut, palette, sizeof cut);
  for (size_t i = 0; i < PLANES * 256; i++) palette[i / 256][place[i % 256]] = cut[i / 256][i % 256];
  return unit;
}

void cml_lanes_product(const cml_compressed *w, size_t begin, size_t end, const float *x, const fixed_head *head, float *y) {
  const size_t groups = group_count(w), packed_row = groups * group_bytes(w);
  const int8_t *from = (const int8_t *)x;
  const uint8_t *codes = w->packed;
  uint8_t palette[PLANES][256];
  double unit = head->unit;
  if (by_nibbles(w) && piece_groups(w) == groups) {
    whole_products(w, begin, end, from, head, y);
    return;
  }
  for (size_t n = begin, last; n < end && !by_entries(w); n = last) {
    last = (n / STRIPE + 1) * STRIPE < end ? (n / STRIPE + 1) * STRIPE : end;
    stripe_products(w, n, last, from, head, y);
  }
  for (size_t n = begin; n < end && by_entries(w); n += BLOCK) {
    float sums[BLOCK];
    if (n == begin || n % w->table_rows == 0) unit = 65536 * head->unit * cut_in_order(w, n, palette);
    if (w->bits == 6) entry_sums_of_block(6, codes + n * packed_row, w, from, palette, sums);
    else entry_sums_of_block(8, codes + n * packed_row, w, from, palette, sums);
    finish(w, n, end - n < BLOCK ? end - n : BLOCK, sums, head, unit, y + n);
  }
}
