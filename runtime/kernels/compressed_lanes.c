/* Palettes of one table times few vectors in fixed point (see compressed_fixed.c), of 1 bit also of several, packed so that a lane is a row: what is looked up
 * for one lane is looked up for all, and a register of a table serves 64 rows.
 *
 *   1, 2, 4 bits  A nibble of codes (4, 2 or 1 of them) chooses one of 16 sums of products. These sums are worked out once for a vector, as
 *                 three planes of digits; four tables of 16 are one register, which the four nibbles of a lane look up at once. Digits are so
 *                 small that those of a byte's two nibbles are added as bytes in two of the planes: 22 bits of 24, and fewer sums of products.
 *   3 bits        compressed_pairs.c; several tables: compressed_tables.c
 *   6 bits        A register of 64 entries' digits, multiplied with digits of the elements, which are the same for all lanes.
 *   8 bits        The same. Two digits of 256 entries are looked up in four registers each. Codes are renumbered in the order of their entries' lowest
 *                 digits, so that a code is nearly that digit itself. Palettes of which that is not true are not packed.
 *
 * Rows are packed in blocks of 64, in sets of 16. The codes of a group of elements follow one another for all sets of a block:
 * a dword of each row, or three of 6 bits: then these lie in the lower six bits of three registers' bytes, and a fourth register is made of
 * their upper two bits. All sets' first registers come first, so that lines are read one after the other.
 * Tables of a long row would not stay in the first-level cache, so the depth is cut into pieces: stripes of rows take one piece after the other,
 * and in memory a stripe is its pieces, a piece its blocks.
 * Packed matrices are as large as their codes, but for rows and codes that fill up the last block and group, for a number a row of 6 and 8 bits
 * in float16 programs, and for these palettes.
 *
 * Those do with two planes of digits. Each table of sums of two planes has a power of two of its own, by which what is looked up in it is multiplied,
 * up to 128: 15 or 16 bits of each element's products count, and 22 of the largest one's. Entries of palettes, and elements that are multiplied
 * with them, have two digits where two_digits_suffice. */
#include "compressed_fixed.h"
#include "sizes.h"

enum { BLOCK = CML_COMPRESSED_ROWS, SETS = 4, REGISTER = 64 };
enum { STRIPE = 16 * BLOCK, TABLES = 12 << 10 }; /* rows that take one piece of the depth after the other, at most; bytes of tables for a piece */
enum { GROUP_POWERS = 8 };                       /* bytes, of a group's nibbles */
enum { WHOLE_DEPTH = 2048 };                     /* up to which nibbles' tables of all of the depth are used for two blocks at a time */
enum { FLUSH = 4096 }; /* elements whose products with entries' digits fit into 32 bits: 3 of 2^15 each */

static bool by_entries(const cml_compressed *w) { return w->bits == 6 || w->bits == 8; }

/* Elements whose codes lie together, and bytes of them in a row. */
static size_t group_codes(const cml_compressed *w) { return w->bits == 6 ? 16 : 32 / w->bits; }
static size_t group_bytes(const cml_compressed *w) { return w->bits == 6 ? 12 : 4; }
static size_t group_tables(int planes) { return (size_t)planes * PLANE * 2; } /* bytes, of nibbles' sums */
static size_t group_count(const cml_compressed *w) { return (w->depth + group_codes(w) - 1) / group_codes(w); }

/* Groups of a piece of the depth, whatever the planes: packed matrices serve all vectors. */
static size_t piece_groups(const cml_compressed *w) {
  return by_entries(w) || w->depth <= WHOLE_DEPTH ? group_count(w) : TABLES / group_tables(PLANES);
}

/* Where the codes of block n begin that belong to the piece from group g on, which has `groups`. */
static size_t piece_at(const cml_compressed *w, size_t n, size_t g, size_t groups) {
  size_t stripe = n / STRIPE * STRIPE, rows = up(w->columns - stripe, BLOCK), bytes = group_bytes(w);
  if (rows > STRIPE) rows = STRIPE;
  return stripe * group_count(w) * bytes + (rows * g + (n - stripe) * groups) * bytes;
}

/* Digits of the palette of row n. */
static int palette_planes(const cml_compressed *w, size_t n) {
  const float *t = palette_of(w, n);
  size_t entries = (size_t)1 << w->bits;
  return w->vectors_half && two_digits_suffice(t, entries, (double)largest_entry(t, entries)) ? 2 : PLANES;
}

/* Lowest digits of many entries are spread so evenly that in their order the number of each is nearly the digit, when the scale is none that makes many of
 * them equal, as powers of two do for float16's: the errors that are left must be 102 dB (84 in float16 programs) below the entries' mean size. */
void cml_order_entries(const cml_compressed *w, size_t n, entry_order *o) {
  static const float factors[] = {0.9707f, 0.8319f, 0.7231f};
  const float *t = palette_of(w, n);
  double sizes = 0, largest = (double)largest_entry(t, 256);
  for (size_t i = 0; i < 256; i++) sizes += fabs((double)t[i]);
  const double mean = (sizes - largest) / 256;
  o->close = false;
  for (size_t f = 0; f < sizeof factors / sizeof *factors && !o->close; f++) {
    uint16_t first[257] = {0};
    double errors = 0;
    o->unit = cut_palette(w, n, PLANES, factors[f], o->cut);
    for (size_t i = 0; i < 256; i++) first[o->cut[0][i] + 1]++;
    for (size_t i = 0; i < 256; i++) first[i + 1] = (uint16_t)(first[i + 1] + first[i]);
    for (size_t i = 0; i < 256; i++) {
      o->place[i] = (uint8_t)first[o->cut[0][i]]++;
      int error = o->cut[0][i] - o->place[i];
      errors += error * error;
    }
    o->close = errors * o->unit * o->unit <= (w->vectors_half ? 0x1p-28 : 0x1p-34) * mean * mean * 256;
  }
}

/* Whether that is so for a palette of three digits, and the matrix is large enough for it to pay to put them in order at each product. */
static bool ordered(const cml_compressed *w) {
  entry_order o;
  if (palette_planes(w, 0) == 2) return true;
  if (w->columns * w->depth < 1 << 16) return false;
  cml_order_entries(w, 0, &o);
  return o.close;
}

/* Whether rows have a number each: entries of fewer than three digits. */
static bool has_errors(const cml_compressed *w) { return w->bits == 8 || (w->bits == 6 && w->vectors_half); }

static size_t code_bytes(const cml_compressed *w) { return up(w->columns, BLOCK) * group_count(w) * group_bytes(w); }

/* Behind codes and rows' numbers: digits of entries by packed codes, and what the last one counts. */
typedef struct packed_palette {
  uint8_t digits[PLANES][256];
  double unit;
  int32_t planes;
} packed_palette;

static size_t packed_palette_at(const cml_compressed *w) { return code_bytes(w) + (has_errors(w) ? up(w->columns, BLOCK) * sizeof(float) : 0); }

size_t cml_lanes_bytes(const cml_compressed *w) {
  if (w->scale || w->columns < BLOCK || w->depth >= 1 << 18) return 0;
  if (w->bits == 8 && !ordered(w)) return 0;
  return packed_palette_at(w) + (by_entries(w) ? sizeof(packed_palette) : 0);
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

void cml_pack_dwords(const uint8_t *const *rows, size_t row_bytes, size_t dwords, char *to, size_t step) {
  for (size_t d = 0; d < dwords; d += 16) {
    __m512i a[16];
    CML_UNROLL for (size_t r = 0; r < 16; r++) a[r] = load_bytes(rows[r], d * 4, row_bytes);
    transpose_dwords(a);
    for (size_t i = 0; i < 16 && d + i < dwords; i++) _mm512_storeu_si512(to + (d + i) * step, a[i]);
  }
}

static void pack_sixes(const uint8_t *row, size_t row_bytes, size_t groups, size_t r, char *to) {
  for (size_t g = 0; g < groups; g++) {
    uint32_t d[16];
    if (g % 4 == 0) _mm512_storeu_si512(d, spread_codes(load_bytes(row, g * 12, row_bytes)));
    const uint32_t *q = d + g % 4 * 4;
    char *from = to + (g * 3 * SETS + r / 16) * REGISTER + r % 16 * 4;
    for (size_t i = 0; i < 3; i++) {
      uint32_t v = q[i] | (q[3] >> (2 * i) & 0x03030303) << 6;
      memcpy(from + i * SETS * REGISTER, &v, sizeof v);
    }
  }
}

static void pack_piece(const cml_compressed *w, const uint8_t *const *rows, size_t g, size_t groups, char *to) {
  const size_t row_bytes = w->depth * w->bits / 8, at = g * group_bytes(w);
  for (size_t s = 0; s < SETS && w->bits != 6; s++) {
    const uint8_t *from[16];
    for (size_t r = 0; r < 16; r++) from[r] = rows[s * 16 + r] ? rows[s * 16 + r] + at : NULL;
    cml_pack_dwords(from, row_bytes > at ? row_bytes - at : 0, groups, to + s * REGISTER, SETS * REGISTER);
  }
  for (size_t r = 0; r < BLOCK && w->bits == 6; r++) pack_sixes(rows[r], row_bytes, groups, r, to);
}

static void renumber(const entry_order *o, char *codes, size_t bytes) {
  __m512i table[4];
  for (size_t i = 0; i < 4; i++) table[i] = _mm512_loadu_si512(o->place + i * REGISTER);
  for (size_t i = 0; i < bytes; i += REGISTER) {
    __m512i code = _mm512_loadu_si512(codes + i);
    _mm512_storeu_si512(codes + i, look_up_halves(code, table));
  }
}

/* By how much entries are larger than the digits that stand for them, as bytes. o: of palettes whose codes are renumbered. Returns what 1 is of
 * these; 0: there are none. */
static double entry_errors(const cml_compressed *w, size_t n, const entry_order *o, int8_t *errors) {
  enum { PARTS = 254 }; /* of an error of up to half a unit */
  const size_t entries = (size_t)1 << w->bits;
  const float *t = palette_of(w, n);
  if (palette_planes(w, n) == 2) {
    const int e = digits_exponent((double)largest_entry(t, entries), 2);
    for (size_t i = 0; i < 256; i += W) {
      vf v = scaled_by(vf_load(t + i % entries), e);
      _mm_storeu_si128((__m128i *)(void *)(errors + i), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)((v - vf_round(v)) * PARTS))));
    }
    return ldexp(1, -e) / PARTS;
  }
  for (size_t i = 0; i < 256 && o; i++) {
    int error = o->cut[0][i] - o->place[i];
    errors[i] = (int8_t)(error > 127 ? 127 : error < -127 ? -127 : error);
  }
  return o ? o->unit : 0;
}

/* What the weights of a block's rows are larger, in the mean, than what stands for them: x's mean would add that up where random errors cancel. The rows
 * share a palette; 0 where it has three digits, and for rows beyond the last. */
static void find_mean_errors(const cml_compressed *w, size_t n, const entry_order *o, float *to) {
  const size_t row_bytes = w->depth * w->bits / 8;
  int8_t errors[256];
  __m512i table[4];
  memset(to, 0, BLOCK * sizeof *to);
  const double unit = entry_errors(w, n, o, errors);
  if (!(unit > 0)) return;
  for (size_t i = 0; i < 4; i++) table[i] = _mm512_loadu_si512(errors + i * REGISTER);
  for (size_t r = 0; r < BLOCK && n + r < w->columns; r++) {
    const uint8_t *row = w->codes + (n + r) * w->row_bytes;
    __m512i sum = _mm512_setzero_si512();
    for (size_t k = 0; k < w->depth; k += REGISTER) {
      __m512i code = load_bytes(row, k * w->bits / 8, row_bytes);
      if (w->bits == 6) code = spread_codes(code);
      __mmask64 there = w->depth - k < REGISTER ? UINT64_MAX >> (REGISTER - (w->depth - k)) : UINT64_MAX;
      sum = dpbusd(sum, _mm512_maskz_set1_epi8(there, 1), look_up_halves(code, table));
    }
    to[r] = (float)((double)_mm512_reduce_add_epi32(sum) * unit / (double)w->depth);
  }
}

static float *mean_errors(const cml_compressed *w, const void *packed) { return (float *)((uintptr_t)packed + code_bytes(w)); }

/* o: of a palette whose codes are renumbered, or NULL. */
static void pack_palette(const cml_compressed *w, const entry_order *o, void *packed) {
  packed_palette p = {.planes = palette_planes(w, 0)};
  if (!o) p.unit = cut_palette(w, 0, p.planes, 1, p.digits);
  for (size_t i = 0; o && i < PLANES * 256; i++) p.digits[i / 256][o->place[i % 256]] = o->cut[i / 256][i % 256];
  if (o) p.unit = o->unit;
  memcpy((char *)packed + packed_palette_at(w), &p, sizeof p);
}

void cml_lanes_pack(const cml_compressed *w, size_t begin, size_t end, void *to) {
  const size_t groups = group_count(w), piece = piece_groups(w);
  entry_order of_palette, *o = w->bits == 8 && palette_planes(w, 0) == PLANES ? &of_palette : NULL; /* of a palette whose codes are renumbered */
  if (o) cml_order_entries(w, 0, o);
  if (by_entries(w) && begin == 0) pack_palette(w, o, to);
  for (size_t n = begin; n < end; n += BLOCK) {
    const uint8_t *rows[BLOCK];
    for (size_t r = 0; r < BLOCK; r++) rows[r] = n + r < w->columns ? w->codes + (n + r) * w->row_bytes : NULL;
    for (size_t g = 0; g < groups; g += piece) {
      size_t some = groups - g < piece ? groups - g : piece;
      pack_piece(w, rows, g, some, (char *)to + piece_at(w, n, g, some));
      if (o) renumber(o, (char *)to + piece_at(w, n, g, some), BLOCK * some * group_bytes(w));
    }
    if (has_errors(w)) find_mean_errors(w, n, o, mean_errors(w, to) + n);
  }
}

/* ---- arranging ---- */

/* Bytes of a plane of the elements' digits. */
static size_t entry_plane(const cml_compressed *w) { return up(w->depth, 16); }

size_t cml_lanes_room(const cml_compressed *w) {
  size_t plane = entry_plane(w), flushes = (plane + FLUSH - 1) / FLUSH;
  if (by_entries(w)) return up(plane * PLANES, REGISTER) / 4 + up(flushes * PLANES, 16);
  return group_count(w) * group_tables(PLANES) / 4;
}

double cml_lanes_bound(const cml_compressed *w, const float *x, double largest) {
  if (by_entries(w)) return largest;
  double both = largest_sum(x, w->depth, 8 / (int)w->bits) * (w->bits == 1 ? 1 : (double)largest_entry(w->table, (size_t)1 << w->bits));
  return 2 * (1 + 0x1p-6) * both; /* both sums that a byte chooses are less than 2^22 - 2^16 together: their digits of 7 bits fit into bytes */
}

int cml_lanes_planes(const cml_compressed *w, const float *x, double largest) {
  return w->vectors_half && (!by_entries(w) || two_digits_suffice(x, w->depth, largest)) ? 2 : PLANES;
}

/* The exponents of what tables of two planes are multiplied with, 0 to 7, so that products up to `sizes` in units of 2^-e fit into two digits.
 * Of the largest one in 22 bits 16 are left. */
VINLINE vi own_exponents(vf sizes, int e) {
  vf scaled = scaled_by(sizes * vf_set1(1 + 0x1p-7f), e);
  return (vi)_mm512_max_epi32(_mm512_sub_epi32(_mm512_srli_epi32((__m512i)scaled, 23), _mm512_set1_epi32(126 + 15)), _mm512_setzero_si512());
}

/* For the nibble of each of 16 elements. largest: what they are multiplied with. */
VINLINE vi nibble_exponents(const int codes, vf elements, float largest, int e) {
  vf sizes = vf_abs(elements);
  CML_UNROLL for (int apart = 1; apart < codes; apart *= 2) sizes += vf_permute(sizes, vi_iota() ^ apart);
  return own_exponents(sizes * largest, e);
}

/* What the elements of a nibble are multiplied with for its 16 sums, in the order of gather_bits, which is that of a register with four nibbles' sums; of
 * one bit x and -x are summed. */
typedef struct nibble_factors {
  vf of[4][4]; /* by element and register */
} nibble_factors;

static nibble_factors find_factors(const cml_compressed *w) {
  nibble_factors f;
  const vi mask = vi_set1((1 << w->bits) - 1);
  for (size_t j = 0; j < 4 / w->bits; j++)
    for (int k = 0; k < 4; k++) {
      vi own = ((vi_iota() * 4 + k) & 15) >> (int)(j * w->bits) & mask;
      f.of[j][k] = w->bits == 1 ? vf_from_int(own * 2 - 1) : vf_permute(vf_load(w->table), own);
    }
  return f;
}

/* Four tables of two or three planes, from sums times 2^exponents; digits as store_digits has them. */
VINLINE void store_tables(const int planes, const vf *sums, vf exponents, int8_t *to) {
  const __m512i sign = _mm512_set1_epi8(-128);
  __m512i q[4];
  CML_UNROLL for (int k = 0; k < 4; k++)
    q[k] = _mm512_add_epi32(_mm512_cvtps_epi32((__m512)vf_scalef(sums[k], exponents)), _mm512_set1_epi32(planes == 2 ? 128 : 64 + (128 << 7)));
  if (planes == 2) {
    _mm512_storeu_si512(to, _mm512_xor_si512(gather_bits(q, 0), sign));
    _mm512_storeu_si512(to + PLANE, gather_bits(q, 8));
    return;
  }
  _mm512_storeu_si512(to, _mm512_sub_epi8(_mm512_and_si512(gather_bits(q, 0), _mm512_set1_epi8(127)), _mm512_set1_epi8(64)));
  _mm512_storeu_si512(to + PLANE, _mm512_xor_si512(gather_bits(q, 7), sign));
  _mm512_storeu_si512(to + 2 * PLANE, gather_bits(q, 15));
}

/* A group's eight nibbles, first the even and then the odd ones. codes: of a nibble. */
VINLINE void arrange_groups(const int codes, const int planes, const cml_compressed *w, const float *x, int e, int8_t *to) {
  const nibble_factors f = find_factors(w);
  const size_t groups = group_count(w), elements = (size_t)codes * 8;
  const float largest = w->bits == 1 ? 1 : largest_entry(w->table, (size_t)1 << w->bits);
  uint8_t *powers = (uint8_t *)to + groups * group_tables(planes);
  for (size_t g = 0; g < groups; g++, to += group_tables(planes)) {
    const vf low = load_elements(x, g * elements, w->depth), high = codes == 4 ? load_elements(x, g * elements + W, w->depth) : low;
    vi own_low = vi_set1(0), own_high = own_low;
    if (planes == 2) own_low = nibble_exponents(codes, low, largest, e), own_high = codes == 4 ? nibble_exponents(codes, high, largest, e) : own_low;
    CML_UNROLL for (int h = 0; h < 2; h++) {
      const vi first = ((vi_iota() >> 2) * 2 + h) * codes; /* of each lane's nibble */
      vf sums[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
      CML_UNROLL for (int j = 0; j < codes; j++) {
        const vf v = (vf)_mm512_permutex2var_ps((__m512)low, (__m512i)(first + j), (__m512)high);
        CML_UNROLL for (int k = 0; k < 4; k++) sums[k] = vf_fma(v, f.of[j][k], sums[k]);
      }
      const __m512i own = _mm512_permutex2var_epi32((__m512i)own_low, (__m512i)first, (__m512i)own_high);
      store_tables(planes, sums, vf_set1((float)e) - vf_from_int((vi)own), to + h * planes * PLANE);
      if (planes == PLANES) continue;
      const __m512i four = _mm512_maskz_compress_epi32(0x1111, _mm512_sllv_epi32(_mm512_set1_epi32(1), own));
      _mm_storeu_si32(powers + g * GROUP_POWERS + h * 4, _mm512_cvtepi32_epi8(four));
    }
  }
}

static void arrange_nibbles(const cml_compressed *w, const float *x, int planes, int e, int8_t *to) {
  if (w->bits == 1) planes == 2 ? arrange_groups(4, 2, w, x, e, to) : arrange_groups(4, 3, w, x, e, to);
  else if (w->bits == 2) planes == 2 ? arrange_groups(2, 2, w, x, e, to) : arrange_groups(2, 3, w, x, e, to);
  else planes == 2 ? arrange_groups(1, 2, w, x, e, to) : arrange_groups(1, 3, w, x, e, to);
}

/* Where sums of the elements' digits lie, for each FLUSH elements by plane. */
static int32_t *digit_sums(const cml_compressed *w, const int8_t *digits) {
  return (int32_t *)(uintptr_t)(digits + up(entry_plane(w) * PLANES, REGISTER));
}

/* By plane. */
static void arrange_entries(const cml_compressed *w, const float *x, const int planes, int e, int8_t *to) {
  const size_t plane = entry_plane(w);
  int32_t *sums = digit_sums(w, to);
  const __m512i ones = _mm512_set1_epi8(1);
  for (size_t from = 0; from < plane; from += FLUSH, sums += PLANES) {
    size_t end = from + FLUSH < plane ? from + FLUSH : plane;
    for (size_t i = from; i < end; i += W) store_digits(planes, 8, scaled_by(load_elements(x, i, w->depth), e), to + i, plane);
    for (size_t p = 0; p < (size_t)planes; p++) {
      __m512i sum = _mm512_setzero_si512();
      for (size_t i = from; i < end; i += W)
        sum = dpbusd(sum, ones, _mm512_zextsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(to + p * plane + i))));
      sums[p] = _mm512_reduce_add_epi32(sum);
    }
  }
}

double cml_lanes_arrange(const cml_compressed *w, const float *x, int planes, double bound, float *arranged) {
  int8_t *to = (int8_t *)arranged;
  int e = digits_exponent(bound, by_entries(w) ? planes : PLANES);
  if (by_entries(w)) arrange_entries(w, x, planes, e, to);
  else arrange_nibbles(w, x, planes, e, to);
  return ldexp(1, -e);
}

/* ---- products: `sums` of a block's rows, in units of the last digit ---- */

/* (codes & mask) | which */
VINLINE __m512i table_index(__m512i codes, __m512i mask, __m512i which) { return _mm512_ternarylogic_epi32(codes, mask, which, 0xea); }

/* Codes of one piece of the depth for a block of rows, what is read after them, and the tables they choose from. */
typedef struct stretch {
  const uint8_t *codes, *next;
  size_t bytes; /* of codes */
  const int8_t *tables;
  const uint8_t *powers; /* with two planes, what each byte that is looked up is multiplied with */
} stretch;

/* What is read AHEAD bytes after the codes at `at`. */
VINLINE const uint8_t *ahead(const stretch *s, size_t at) {
  return at + AHEAD < s->bytes ? s->codes + at + AHEAD : s->next + (at + AHEAD - s->bytes);
}

/* Four of the powers for all lanes, eight for all pairs of lanes. */
VINLINE __m512i spread_four(const void *p) {
  int32_t four;
  memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

/* Of B blocks, `apart` bytes from one another: added to what `sums` holds. */
VINLINE void nibble_sums_of_blocks(const int P, const int B, const stretch *from, size_t apart, float *sums) {
  const __m512i ones = _mm512_set1_epi8(1), nibble = _mm512_set1_epi8(15), which = _mm512_set1_epi32(0x30201000);
  const int8_t *tables = from->tables;
  const uint8_t *powers = from->powers;
  __m512i acc[2 * SETS][PLANES];
  CML_UNROLL for (int i = 0; i < B * SETS * P; i++) acc[i / P][i % P] = _mm512_setzero_si512();
  for (size_t at = 0; at < from->bytes; at += SETS * REGISTER, tables += 2 * P * PLANE, powers += 8) {
    const uint8_t *codes = from->codes + at, *later = ahead(from, at);
    __m512i table[2][PLANES], own[2] = {ones, ones};
    CML_UNROLL for (int i = 0; i < 2 * P; i++) table[i / P][i % P] = load_plane(tables, (size_t)i);
    if (P == 2) own[0] = spread_four(powers), own[1] = spread_four(powers + 4);
    CML_UNROLL for (int s = 0; s < B * SETS; s++) {
      const size_t place = (size_t)(s / SETS) * apart + s % SETS * REGISTER;
      ask(later + place);
      __m512i code = _mm512_loadu_si512(codes + place), even = table_index(code, nibble, which), odd = table_index(_mm512_srli_epi32(code, 4), nibble, which);
      __m512i a[PLANES], b[PLANES];
      CML_UNROLL for (int p = 0; p < P; p++) a[p] = _mm512_permutexvar_epi8(even, table[0][p]), b[p] = _mm512_permutexvar_epi8(odd, table[1][p]);
      CML_UNROLL for (int p = 0; p < P; p++) {
        if (P == PLANES && p != 1) acc[s][p] = dpbusd(acc[s][p], ones, _mm512_add_epi8(a[p], b[p])); /* of 7 bits */
        else acc[s][p] = dpbusd(dpbusd(acc[s][p], own[0], a[p]), own[1], b[p]);
      }
    }
  }
  CML_UNROLL for (int s = 0; s < B * SETS; s++) vf_store(sums + s * W, vf_load(sums + s * W) + join_digits(P, P == 2 ? 8 : 7, acc[s]));
}

#define NIBBLE_SUMS(P, B)                                                                                                   \
  static __attribute__((noinline)) void nibble_sums_##P##_##B(const stretch *from, size_t apart, float *sums) {             \
    nibble_sums_of_blocks(P, B, from, apart, sums);                                                                         \
  }
NIBBLE_SUMS(2, 1)
NIBBLE_SUMS(2, 2)
NIBBLE_SUMS(3, 1)
NIBBLE_SUMS(3, 2)

/* Adds four elements' products for 16 rows, whose entries' T digits were looked up, with X digits of the elements: of 6 to 9 products of digits those
 * that are not 2^-24 of the largest one's unit. */
VINLINE void add_products(const int X, const int T, __m512i *acc, const __m512i *t, const __m512i *x) {
  CML_UNROLL for (int i = T; i--;)
    CML_UNROLL for (int j = X; j--;)
      if (i + j >= X + T - 4) acc[i + j - (X + T - 4)] = dpbusd(acc[i + j - (X + T - 4)], t[i], x[j]);
}

/* The digits of four elements for all lanes. */
VINLINE void spread_digits(const int X, const int8_t *digits, size_t plane, __m512i *x) {
  CML_UNROLL for (int p = 0; p < X; p++) x[p] = spread_four(digits + (size_t)p * plane);
}

/* What sums begin with, entries' digits being those plus 128 of the first digit. The products of the lowest digits that are left out are made up
 * for by 2^-8 of their mean: digits that are 127.5 in the mean. */
VINLINE void entry_start(const int X, const int T, const int32_t *sums, __m512i *start) {
  int32_t rest = X + T == 6 ? (sums[0] + sums[1]) >> 1 : X + T == 5 ? sums[0] >> 1 : 0;
  start[0] = _mm512_set1_epi32(X == 2 ? rest : rest - sums[0] * 128);
  start[1] = _mm512_set1_epi32(sums[X - 2] * -128), start[2] = _mm512_set1_epi32(sums[X - 1] * -128);
}

VINLINE void six_products(const int X, const int T, const uint8_t *codes, const int8_t *digits, size_t plane, __m512i table[PLANES][4],
                          __m512i acc[SETS][PLANES]) {
  CML_UNROLL for (int i = 0; i < 4; i++) {
    __m512i x[PLANES], t[PLANES];
    spread_digits(X, digits + i * 4, plane, x);
    CML_UNROLL for (int s = 0; s < SETS; s++) {
      const uint8_t *at = codes + s * REGISTER;
      __m512i code = load_sixes(at, SETS * REGISTER, i);
      CML_UNROLL for (int p = 0; p < T; p++) t[p] = _mm512_permutexvar_epi8(code, table[p][0]);
      add_products(X, T, acc[s], t, x);
      if (i < 3) ask_after(at + i * SETS * REGISTER + AHEAD, &acc[s][0]);
    }
  }
}

VINLINE void byte_products(const bool quarters, const int X, const int T, const uint8_t *codes, const int8_t *digits, size_t plane, __m512i table[PLANES][4],
                           __m512i acc[SETS][PLANES]) {
  __m512i x[PLANES], t[PLANES];
  spread_digits(X, digits, plane, x);
  CML_UNROLL for (int s = 0; s < SETS; s++) {
    __m512i code = _mm512_loadu_si512(codes + s * REGISTER);
    const code_masks h = find_masks(quarters, code);
    if (T == PLANES) t[0] = code;
    CML_UNROLL for (int p = T - 2; p < T; p++) t[p] = look_up_bytes(quarters, code, h, table[p]);
    add_products(X, T, acc[s], t, x);
    ask_after(codes + s * REGISTER + AHEAD, &acc[s][0]);
  }
}

VINLINE void entry_sums_of_block(const int bits, const bool quarters, const int X, const int T, const uint8_t *codes, const cml_compressed *w, const int8_t *digits,
                                 const uint8_t palette[PLANES][256], float *sums) {
  const size_t plane = entry_plane(w), depth = up(w->depth, group_codes(w)), step = bits == 6 ? 16 : 4;
  const int32_t *of_digits = digit_sums(w, digits);
  __m512i table[PLANES][4];
  CML_UNROLL for (int i = 0; i < T * 4; i++) table[i / 4][i % 4] = _mm512_loadu_si512(palette[i / 4] + (bits == 8 ? i % 4 * REGISTER : 0));
  for (size_t from = 0; from < depth; from += FLUSH, of_digits += PLANES) {
    __m512i acc[SETS][PLANES];
    size_t end = from + FLUSH < depth ? from + FLUSH : depth;
    CML_UNROLL for (int s = 0; s < SETS; s++) entry_start(X, T, of_digits, acc[s]);
    for (size_t k = from; k < end; k += step, codes += step * (size_t)bits / 8 * BLOCK) {
      if (bits == 6) six_products(X, T, codes, digits + k, plane, table, acc);
      else byte_products(quarters, X, T, codes, digits + k, plane, table, acc);
    }
    CML_UNROLL for (int s = 0; s < SETS; s++) {
      vf sum = join_digits(PLANES, 8, acc[s]);
      vf_store(sums + s * W, from ? vf_load(sums + s * W) + sum : sum);
    }
  }
}

typedef void entry_function(const uint8_t *codes, const cml_compressed *w, const int8_t *digits, const uint8_t palette[PLANES][256], float *sums);
#define ENTRY_SUMS(name, bits, quarters, X, T)                                                                                                             \
  static void name##_##X##_##T(const uint8_t *codes, const cml_compressed *w, const int8_t *digits, const uint8_t palette[PLANES][256], float *sums) {         \
    entry_sums_of_block(bits, quarters, X, T, codes, w, digits, palette, sums);                                                                          \
  }
#define ALL_ENTRY_SUMS(name, bits, quarters) \
  ENTRY_SUMS(name, bits, quarters, 2, 2)     \
  ENTRY_SUMS(name, bits, quarters, 2, 3)     \
  ENTRY_SUMS(name, bits, quarters, 3, 2)     \
  ENTRY_SUMS(name, bits, quarters, 3, 3)
#define ENTRY_FUNCTIONS(name) {{name##_2_2, name##_2_3}, {name##_3_2, name##_3_3}}
ALL_ENTRY_SUMS(sixes, 6, false)
ALL_ENTRY_SUMS(bytes, 8, false)
ALL_ENTRY_SUMS(bytes_by_quarters, 8, true)
static entry_function *const entry_functions[3][2][2] = {ENTRY_FUNCTIONS(sixes), ENTRY_FUNCTIONS(bytes), ENTRY_FUNCTIONS(bytes_by_quarters)};

/* Of one bit sums of x and -x were looked up: (t0 + t1) / 2 times the sum of x and (t1 - t0) / 2 times those. */
static void finish(const cml_compressed *w, size_t n, size_t rows, const float *sums, const fixed_head *head, double unit, float *y) {
  const int e = ilogb(unit);
  const float factor = (float)ldexp(unit, -e);
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
      sum = scaled_by(sum * factor, e);
      if (has_errors(w)) sum = vf_fma(vf_load_n(mean_errors(w, w->packed) + n + r, some), vf_set1(head->sum), sum);
      vf_store_n(y + r, sum, some);
    }
  }
}

/* Rows [begin, end) of a stripe: a piece of the depth after the other, whose tables stay in the first-level cache. */
static void stripe_products(const cml_compressed *w, size_t begin, size_t end, const int8_t *tables, const fixed_head *head, float *y) {
  const size_t groups = group_count(w), piece = piece_groups(w), bytes = BLOCK * group_bytes(w), step = group_tables(head->planes);
  const uint8_t *powers = (const uint8_t *)tables + groups * step;
  const uint8_t *codes = w->packed;
  float sums[STRIPE] = {0};
  for (size_t g = 0, some; g < groups; g += some) {
    some = groups - g < piece ? groups - g : piece;
    size_t after = groups - g - some < piece ? groups - g - some : piece; /* groups of the next piece */
    for (size_t n = begin; n < end; n += BLOCK) {
      stretch s = {codes + piece_at(w, n, g, some), NULL, some * bytes, tables + g * step, powers + g * GROUP_POWERS};
      s.next = n + BLOCK < end || !after ? s.codes + s.bytes : codes + piece_at(w, begin, g + some, after);
      (head->planes == 2 ? nibble_sums_2_1 : nibble_sums_3_1)(&s, 0, sums + n - begin);
    }
  }
  finish(w, begin, end - begin, sums, head, head->unit, y + begin);
}

/* With tables of the whole depth, from the second-level cache: two blocks at a time, half of the rows apart, halve what is read of them. */
static void whole_products(const cml_compressed *w, size_t begin, size_t end, const int8_t *tables, const fixed_head *head, float *y) {
  const size_t groups = group_count(w), row = groups * group_bytes(w), blocks = (end - begin + BLOCK - 1) / BLOCK, apart = blocks / 2 * BLOCK;
  const uint8_t *codes = (const uint8_t *)w->packed + begin * row, *powers = (const uint8_t *)tables + groups * group_tables(head->planes);
  for (size_t i = 0; i < apart; i += BLOCK) {
    size_t second = begin + apart + i;
    float sums[2 * BLOCK] = {0};
    const stretch s = {codes + i * row, codes + (i + BLOCK) * row, BLOCK * row, tables, powers};
    (head->planes == 2 ? nibble_sums_2_2 : nibble_sums_3_2)(&s, apart * row, sums);
    finish(w, begin + i, BLOCK, sums, head, head->unit, y + begin + i);
    finish(w, second, end - second < BLOCK ? end - second : BLOCK, sums + BLOCK, head, head->unit, y + second);
  }
  if (blocks % 2 == 0) return;
  size_t last = 2 * apart;
  float sums[BLOCK] = {0};
  const stretch s = {codes + last * row, codes + (last + BLOCK) * row, BLOCK * row, tables, powers};
  (head->planes == 2 ? nibble_sums_2_1 : nibble_sums_3_1)(&s, 0, sums);
  finish(w, begin + last, end - begin - last, sums, head, head->unit, y + begin + last);
}

void cml_lanes_product(const cml_compressed *w, bool quarters, size_t begin, size_t end, const float *x, const fixed_head *head, float *y) {
  const size_t groups = group_count(w), packed_row = groups * group_bytes(w);
  const int8_t *from = (const int8_t *)x;
  const uint8_t *codes = w->packed;
  if (!by_entries(w) && piece_groups(w) == groups) {
    whole_products(w, begin, end, from, head, y);
    return;
  }
  for (size_t n = begin, last; n < end && !by_entries(w); n = last) {
    last = (n / STRIPE + 1) * STRIPE < end ? (n / STRIPE + 1) * STRIPE : end;
    stripe_products(w, n, last, from, head, y);
  }
  if (!by_entries(w)) return;
  const packed_palette *p = (const packed_palette *)((uintptr_t)w->packed + packed_palette_at(w));
  const double unit = ldexp(head->unit * p->unit, 8 * (head->planes + p->planes - 4));
  for (size_t n = begin; n < end; n += BLOCK) {
    float sums[BLOCK];
    entry_functions[w->bits == 8 ? 1 + quarters : 0][head->planes - 2][p->planes - 2](codes + n * packed_row, w, from, p->digits, sums);
    finish(w, n, end - n < BLOCK ? end - n : BLOCK, sums, head, unit, y + n);
  }
}
