/* Palettes of 3 bits times few vectors in fixed point (see compressed_fixed.c): the codes of two neighbouring elements are an index of 6 bits, and a
 * register of a table holds all 64 sums of two products, as one of three planes of digits.
 *
 * A lane (a byte) is a row. Its lower six bits are an index as they are, for look-ups ignore the upper two; those of three registers make a fourth,
 * so that 8 elements of 64 rows, a group, are three registers and four look-ups for each plane. Digits are so small that those of a group's four
 * tables are added as bytes before they are widened:
 *
 *   the highest  by the choice of the unit: the four largest sums of a group have digits of less than 256 together;
 *   the middle   6 bits; of `fine` tables 7, which are added in pairs;
 *   the lowest   8 bits, of which averages are taken for sums, rounded up, so that a bit of two is lost and half a unit in the mean is known: twice,
 *                of fine tables once.
 *
 * Bytes are widened without being taken apart: words (even lane + 256 odd lane) are added, modulo 2^16, and so are the odd lanes alone. What digits
 * are of a table's sums begins with its least possible sum, and with the middle of the palette as its zero.
 *
 * Tables are 96 bytes for an element, so the depth is cut into pieces, whose tables stay in the first-level cache for a stripe of rows; each piece has a
 * unit of its own, so that a large element costs its neighbours precision and not all. In memory a stripe is its pieces, a piece its blocks of 64 rows,
 * a block its groups. Several vectors take a piece of a stripe one after the other.
 * Errors are worked out for each vector, from its units: coarse tables (for normal numbers 109 dB: float16 programs take these), fine ones
 * (118), or floats where large elements make units large. */
#include "compressed_fixed.h"
#include "compressed_pieces.h"

enum { BLOCK = CML_COMPRESSED_ROWS, REGISTER = 64, GROUP = 8, ROW_BYTES = 3, TABLES = 4 }; /* of a group: elements, bytes in a row, tables */
enum { PIECE = 24, GROUP_TABLES = PLANES * TABLES * PLANE };                              /* groups; bytes, by plane from the lowest one on */

_Static_assert((int)ROW_BYTES == (int)PLANES, "a line of codes is asked for with each plane");

static size_t group_count(const cml_compressed *w) { return w->depth / GROUP; }
static pieces pieces_of(const cml_compressed *w) { return (pieces){group_count(w), PIECE, BLOCK, ROW_BYTES, GROUP_TABLES}; }

size_t cml_pairs_bytes(const cml_compressed *w) {
  if (w->columns < BLOCK || w->depth >= 1 << 18 || w->table_rows != w->columns) return 0;
  const pieces p = pieces_of(w);
  return pieces_bytes(&p, w);
}

/* ---- packing ---- */

/* The next 16 groups of a row: three bytes each, with an index in the lower bits of each and two bits of the fourth index above. */
static void split_groups(const uint8_t *row, size_t row_bytes, size_t g, uint32_t *to) {
  const __m512i dword = _mm512_mullo_epi32(_mm512_set1_epi32(ROW_BYTES * 0x01010101), (__m512i)vi_iota());
  const __m512i three = _mm512_add_epi8(dword, _mm512_set1_epi32(0x02020100)), windows = _mm512_set1_epi64(0x322c2620120c0600);
  __m512i bytes = _mm512_permutexvar_epi8(three, load_bytes(row, g * ROW_BYTES, row_bytes));
  vi four = (vi)_mm512_multishift_epi64_epi8(windows, bytes);
  vi upper = (four >> 18 & 0xc0) | (four >> 12 & 0xc000) | (four >> 6 & 0xc00000);
  _mm512_storeu_si512(to, (__m512i)((four & 0x3f3f3f) | upper));
}

/* Byte i of a group of 64 rows: those of row 16 s + j become byte s of dword j. */
VINLINE vi gather_bytes(const vi *rows, const int i) {
  vi to = vi_set1(0);
  CML_UNROLL for (int s = 0; s < 4; s++) to |= (rows[s] >> 8 * i & 0xff) << 8 * s;
  return to;
}

static void pack_piece(const cml_compressed *w, size_t n, size_t begin, size_t groups, char *to) {
  const size_t row_bytes = group_count(w) * ROW_BYTES;
  for (size_t g = 0; g < groups; g += W) {
    vi dwords[W][4];
    for (size_t s = 0; s < 4; s++) {
      uint32_t split[W][W];
      const uint8_t *rows[W];
      for (size_t r = 0; r < W; r++) {
        size_t row = n + s * W + r;
        split_groups(row < w->columns ? w->codes + row * w->row_bytes : NULL, row_bytes, begin + g, split[r]);
        rows[r] = (const uint8_t *)split[r];
      }
      cml_pack_dwords(rows, sizeof *split, W, (char *)dwords[0] + s * sizeof(vi), sizeof *dwords);
    }
    for (size_t i = 0; i < W && g + i < groups; i++, to += ROW_BYTES * REGISTER)
      CML_UNROLL for (int b = 0; b < ROW_BYTES; b++) _mm512_storeu_si512(to + b * REGISTER, (__m512i)gather_bytes(dwords[i], b));
  }
}

void cml_pairs_pack(const cml_compressed *w, size_t begin, size_t end, void *to) {
  const pieces p = pieces_of(w);
  for (size_t n = begin; n < end; n += BLOCK)
    for (size_t g = 0, some; g < p.groups; g += some) {
      some = least(p.groups - g, PIECE);
      pack_piece(w, n, g, some, (char *)to + piece_at(&p, w, n, g, some));
    }
}

/* ---- arranging ---- */

size_t cml_pairs_room(const cml_compressed *w) {
  const pieces p = pieces_of(w);
  return pieces_room(&p);
}

/* Entries less the palette's middle, for the sums of a table in the order of gather_bits, by the first and the second code. */
typedef struct palette {
  range of;
  vf first[4], second;
} palette;

static palette read_palette(const cml_compressed *w) {
  palette t = {.of = range_of(w)};
  const vf entries = vf_load(w->table) - t.of.middle;
  for (int k = 0; k < 4; k++) t.first[k] = vf_permute(entries, (vi_iota() * 4 + k) & 7);
  t.second = vf_permute(entries, vi_iota() >> 1);
  return t;
}

/* The table of two elements. from: what its sums begin with. */
VINLINE void store_table(const bool fine, const palette *t, float a, float b, float from, uint8_t *to) {
  const vf second = vf_fma(vf_set1(b), t->second, vf_set1(-from));
  __m512i q[4];
  CML_UNROLL for (int k = 0; k < 4; k++) q[k] = _mm512_cvtps_epi32((__m512)vf_fma(vf_set1(a), t->first[k], second));
  _mm512_storeu_si512(to, gather_bits(q, 0));
  _mm512_storeu_si512(to + TABLES * PLANE, _mm512_and_si512(gather_bits(q, 8), _mm512_set1_epi8(fine ? 127 : 63)));
  _mm512_storeu_si512(to + 2 * TABLES * PLANE, gather_bits(q, fine ? 15 : 14));
}

/* The tables of a piece, by `factor`. */
VINLINE scale arrange_piece(const bool fine, const palette *t, const float *x, size_t n, float factor, uint8_t *to) {
  vi offset = vi_set1(0);
  for (size_t i = 0; i < n; i += W) {
    float scaled[W], from[W];
    vf v = load_elements(x, i, n) * factor, sizes = vf_abs(v) * t->of.reach;
    vf lowest = vf_floor((sizes + vf_permute(sizes, vi_iota() ^ 1) + 1) * -0.25f);
    offset += vf_int(lowest);
    vf_store(scaled, v), vf_store(from, lowest * 4);
    for (size_t j = 0; j < W && i + j < n; j += 2)
      store_table(fine, t, scaled[j], scaled[j + 1], from[j], to + (i + j) / GROUP * GROUP_TABLES + (i + j) % GROUP / 2 * PLANE);
  }
  int32_t twice = _mm512_reduce_add_epi32((__m512i)offset) + (int32_t)(n % W); /* of elements beyond the last: -1 */
  return (scale){factor > 0 ? (fine ? 2 : 4) / factor : 0, (fine ? twice : twice / 2) - rounded_up(fine, x, n, GROUP)};
}

int cml_pairs_arrange(const cml_compressed *w, const float *x, void *arranged, float *sum) {
  enum { ELEMENTS = PIECE * GROUP };
  const palette t = read_palette(w);
  const pieces layout = pieces_of(w);
  scale *scales = scales_of(&layout, arranged);
  vf sizes = vf_zero(), largest = vf_zero();
  vd all = vd_set1(0);
  double units = 0;
  for (size_t i = 0; i < w->depth; i += W) {
    vf v = load_elements(x, i, w->depth);
    sizes += vf_abs(v), largest = vf_max(largest, vf_abs(v)), all += vf_double(v);
  }
  for (size_t i = 0; i < w->depth; i += ELEMENTS) {
    size_t n = least(w->depth - i, ELEMENTS);
    float factor = piece_factor((float)largest_sum(x + i, n, GROUP), &t.of);
    scales[i / ELEMENTS].unit = factor;
    if (factor > 0) units += (double)n / GROUP / ((double)factor * (double)factor);
  }
  int tables = choose_tables(w, &t.of, (double)vf_sum(sizes), (double)vf_hmax(largest), units);
  for (size_t i = 0; i < w->depth && tables; i += ELEMENTS) {
    size_t n = least(w->depth - i, ELEMENTS);
    uint8_t *to = (uint8_t *)arranged + i / GROUP * GROUP_TABLES;
    scale *s = scales + i / ELEMENTS;
    *s = tables == FINE ? arrange_piece(true, &t, x + i, n, 2 * s->unit, to) : arrange_piece(false, &t, x + i, n, s->unit, to);
  }
  double plain = 0;
  for (int i = 0; i < W; i++) plain += all[i];
  *sum = (float)(plain * (double)t.of.middle);
  return tables;
}

/* ---- products ---- */

VINLINE __m512i add_words(__m512i sum, __m512i v) { /* gcc 12 copies sums */
  __asm__("vpaddw %1, %0, %0" : "+v"(sum) : "v"(v));
  return sum;
}

/* Sums of words, and of the upper bytes of words. */
VINLINE void widen(__m512i *sums, __m512i bytes) {
  sums[0] = add_words(sums[0], bytes);
  sums[1] = add_words(sums[1], _mm512_srli_epi16(bytes, 8));
}

/* The four indices of a lane; the three that are loaded stay in registers. */
VINLINE void load_indices(const uint8_t *p, __m512i *c) {
  CML_UNROLL for (int i = 0; i < ROW_BYTES; i++) {
    c[i] = _mm512_loadu_si512(p + i * REGISTER);
    __asm__("" : "+v"(c[i]));
  }
  c[3] = upper_bits(c[0], c[1], c[2]);
}

/* Adds the sums of `rows` rows to y: bytes 0, 1, 2 and 3 of the dwords are 16 rows each. */
VINLINE void add_sums(const bool fine, __m512i acc[PLANES][2], scale s, size_t rows, float *y) {
  const int counts[PLANES] = {1, fine ? 128 : 64, fine ? 16384 : 4096};
  CML_UNROLL for (size_t i = 0; i < 4; i++) {
    const size_t some = rows > i * W ? least(rows - i * W, W) : 0;
    __m512i sum = _mm512_set1_epi32(s.offset);
    CML_UNROLL for (int p = 0; p < PLANES; p++) {
      __m512i words = i % 2 ? acc[p][1] : _mm512_sub_epi16(acc[p][0], _mm512_slli_epi16(acc[p][1], 8));
      sum = _mm512_dpwssd_epi32(sum, words, _mm512_set1_epi32(i / 2 ? counts[p] << 16 : counts[p]));
    }
    vf_store_n(y + i * W, vf_fma(vf_from_int((vi)sum), vf_set1(s.unit), vf_load_n(y + i * W, some)), some);
  }
}

VINLINE void sums_of_block(const bool fine, const stretch *from, const uint8_t *tables, scale s, size_t rows, float *y) {
  enum { FAR = AHEAD / (ROW_BYTES * REGISTER) * (ROW_BYTES * REGISTER) };
  const uint8_t *codes = from->codes, *later = from->left > FAR ? codes + FAR : from->next + (FAR - from->left);
  size_t left = from->left > FAR ? from->left - FAR : 0; /* of what is asked for, until it is of the next piece */
  __m512i acc[PLANES][2];
  CML_UNROLL for (int i = 0; i < 2 * PLANES; i++) acc[i / 2][i % 2] = _mm512_setzero_si512();
  for (size_t g = 0; g < from->groups; g++, codes += ROW_BYTES * REGISTER, tables += GROUP_TABLES) {
    __m512i c[TABLES];
    load_indices(codes, c);
    CML_UNROLL for (int p = 0; p < PLANES; p++) {
      __m512i t[TABLES], a, b;
      CML_UNROLL for (int i = 0; i < TABLES; i++) t[i] = _mm512_permutexvar_epi8(c[i], _mm512_loadu_si512(tables + (p * TABLES + i) * PLANE));
      a = p ? _mm512_add_epi8(t[0], t[1]) : _mm512_avg_epu8(t[0], t[1]);
      b = p ? _mm512_add_epi8(t[2], t[3]) : _mm512_avg_epu8(t[2], t[3]);
      if (fine && p < 2) widen(acc[p], a), widen(acc[p], b);
      else widen(acc[p], p ? _mm512_add_epi8(a, b) : _mm512_avg_epu8(a, b));
      ask_after(later + p * REGISTER, &acc[p][1]); /* a group's lines are as many as planes */
    }
    later += ROW_BYTES * REGISTER;
    if (left && !(left -= ROW_BYTES * REGISTER)) later = from->next;
  }
  add_sums(fine, acc, s, rows, y);
}

static __attribute__((noinline)) void fine_sums(const stretch *from, const uint8_t *tables, scale s, size_t rows, float *y) {
  sums_of_block(true, from, tables, s, rows, y);
}

static __attribute__((noinline)) void coarse_sums(const stretch *from, const uint8_t *tables, scale s, size_t rows, float *y) {
  sums_of_block(false, from, tables, s, rows, y);
}

void cml_pairs_product(const cml_compressed *w, size_t begin, size_t end, float *const *x, const fixed_head *heads, size_t vectors, float *y,
                       size_t y_stride) {
  static piece_function *const functions[] = {[COARSE] = coarse_sums, [FINE] = fine_sums};
  const pieces p = pieces_of(w);
  const uint8_t *tables[MOST_TOGETHER];
  int kinds[MOST_TOGETHER];
  float first[MOST_TOGETHER];
  for (size_t v = 0; v < vectors; v++) tables[v] = (const uint8_t *)x[v], kinds[v] = heads[v].planes, first[v] = heads[v].sum;
  piece_products(&p, w, functions, begin, end, vectors, tables, kinds, first, y, y_stride);
}
