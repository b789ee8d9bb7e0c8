/* Numbers as three signed digits to the base of 256, or as two, in as many planes of bytes: what the files of products in fixed point share.
 * Needs AVX-512 with VBMI and VNNI. */
#ifndef CML_COMPRESSED_FIXED_H
#define CML_COMPRESSED_FIXED_H

#include "compressed_digits.h"

enum { PLANES = 3, PLANE = 64 }; /* planes at most; bytes */
enum { MOST_TOGETHER = 4 };     /* vectors that share the codes */

/* How an arranged vector begins. */
typedef struct fixed_head {
  double unit;   /* what the last digit counts */
  float sum;      /* of the elements */
  int32_t planes; /* 0: what follows is an ordinary arranged vector */
  /* For palettes of several tables, */
  float error, low;       /* with two planes: squares of what is rounded and of lower digits, as parts of the elements' squares */
  float low_sum, outlier; /* the sum of lower digits; how much what one entry errs may count more, for one large element */
} fixed_head;

/* As _mm512_dpbusd_epi32, which gcc 12 wraps in copies of the sum. */
VINLINE __m512i dpbusd(__m512i sum, __m512i u, __m512i s) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "vm"(s));
  return sum;
}

/* As ask, behind what `sum` has by now: two that stand side by side hold up a Xeon with AMX, and gcc moves sums over a barrier alone. */
VINLINE void ask_after(const uint8_t *p, __m512i *sum) { __asm__ volatile("prefetcht1 %1" : "+v"(*sum) : "m"(*p)); }

/* The digits of whole numbers that digits_exponent allows: the last one has `lowest` bits, 7 or 8, the others 8. */
VINLINE void store_digits(const int planes, const int lowest, vf scaled, int8_t *to, size_t plane) {
  __m512i q = _mm512_cvtps_epi32((__m512)scaled);
  CML_UNROLL for (int p = 0; p < planes; p++) {
    const int bits = p ? 8 : lowest;
    __m512i rest = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(1 << (bits - 1))), bits);
    if (bits < 8) q = _mm512_sub_epi32(q, _mm512_slli_epi32(rest, bits));
    _mm_storeu_si128((__m128i *)(void *)(to + (size_t)p * plane), _mm512_cvtepi32_epi8(q));
    q = rest;
  }
}

/* Bits `at` to `at` + 7 of 64 numbers, number 4 l + k of which is lane l of register k. */
VINLINE __m512i gather_bits(const __m512i *q, const int at) {
  const __m512i windows = _mm512_set1_epi64(0x2020202000000000 + at * INT64_C(0x0101010101010101));
  __m512i to = _mm512_multishift_epi64_epi8(windows, q[0]);
  CML_UNROLL for (int k = 1; k < 4; k++) to = _mm512_mask_multishift_epi64_epi8(to, UINT64_C(0x1111111111111111) << k, windows, q[k]);
  return to;
}

VINLINE vf scaled_by(vf x, int e) { return vf_scalef(x, vf_set1((float)e)); }

VINLINE __m512i load_plane(const int8_t *digits, size_t i) { return _mm512_loadu_si512(digits + i * PLANE); }

VINLINE vf join_digits(const int planes, const int lowest, const __m512i *acc) {
  vf low = vf_fma(vf_from_int((vi)acc[1]), vf_set1((float)(1 << lowest)), vf_from_int((vi)acc[0]));
  return planes == 2 ? low : vf_fma(vf_from_int((vi)acc[2]), vf_set1((float)(256 << lowest)), low);
}

/* Of codes of 8 bits: which have the highest bit set, the second one, both; the latter two for quarters alone. */
typedef struct code_masks {
  __mmask64 upper, odd, last;
} code_masks;

VINLINE code_masks find_masks(const bool quarters, __m512i code) {
  code_masks h = {.upper = _mm512_movepi8_mask(code)};
  if (quarters) h.odd = _mm512_movepi8_mask(_mm512_add_epi8(code, code)), h.last = _kand_mask64(h.upper, h.odd);
  return h;
}

/* Entry `code` of 256 in four registers: from two halves, or from quarters, each of which is written over what the ones before have. A half is one
 * instruction of a Zen 4, and three of an Intel CPU, where a quarter is one. gcc copies tables over which it writes results. */
VINLINE __m512i look_up_bytes(const bool quarters, __m512i code, code_masks h, const __m512i *table) {
  __m512i v = code;
  if (quarters) {
    v = _mm512_permutexvar_epi8(code, table[0]);
    v = _mm512_mask_permutexvar_epi8(v, h.odd, code, table[1]);
    v = _mm512_mask_permutexvar_epi8(v, h.upper, code, table[2]);
    return _mm512_mask_permutexvar_epi8(v, h.last, code, table[3]);
  }
  __asm__("vpermi2b %2, %1, %0" : "+v"(v) : "v"(table[0]), "v"(table[1]));
  v = _mm512_mask_mov_epi8(v, h.upper, code);
  __asm__("vpermi2b %2, %1, %0%{%3%}" : "+v"(v) : "v"(table[2]), "v"(table[3]), "Yk"(h.upper));
  return v;
}

VINLINE __m512i look_up_halves(__m512i code, const __m512i *table) { return look_up_bytes(false, code, find_masks(false, code), table); }

/* Up to 64 bytes of a row from byte `at`, the others zero. */
VINLINE __m512i load_bytes(const uint8_t *row, size_t at, size_t end) {
  if (!row || at >= end) return _mm512_setzero_si512();
  return at + 64 <= end ? _mm512_loadu_si512(row + at) : _mm512_maskz_loadu_epi8(UINT64_MAX >> (64 - (end - at)), row + at);
}

/* The 64 codes of 6 bits in the first bytes of a register, a byte each: the 8 of a qword come from its lowest bytes. */
VINLINE __m512i spread_codes(__m512i codes) {
  const __m512i eighth = _mm512_set1_epi64(0x0706050403020100);
  const __m512i qword = _mm512_mullo_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(6 * INT64_C(0x0101010101010101)));
  __m512i bytes = _mm512_permutexvar_epi8(_mm512_add_epi8(eighth, qword), codes);
  return _mm512_and_si512(_mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x2a241e18120c0600), bytes), _mm512_set1_epi8(63));
}

/* The largest sum of the sizes of `n` neighbouring elements, from a multiple of n on; n: 1, 2, 4 or 8. */
VINLINE double largest_sum(const float *x, size_t depth, int n) {
  vf largest = vf_zero();
  for (size_t i = 0; i < depth; i += W) {
    vf v = vf_abs(load_elements(x, i, depth));
    for (int apart = 1; apart < n; apart *= 2) v += vf_permute(v, vi_iota() ^ apart);
    largest = vf_max(largest, v);
  }
  return (double)vf_hmax(largest);
}

/* Entries repeat up to 16. */
VINLINE float largest_entry(const float *table, size_t n) {
  vf largest = vf_zero();
  for (size_t i = 0; i < n; i += W) largest = vf_max(largest, vf_abs(vf_load(table + i)));
  return vf_hmax(largest);
}

VINLINE const float *palette_of(const cml_compressed *w, size_t n) { return w->table + n / w->table_rows * w->table_size; }

/* Digits of row n's palette, `factor` (from 1/2 to 1) times its entries plus 128 of the first digit, by digit and entry; entries repeat up to 64. Returns
 * what the last digit counts. */
VINLINE double cut_palette(const cml_compressed *w, size_t n, int planes, float factor, uint8_t to[PLANES][256]) {
  const float *t = palette_of(w, n);
  size_t entries = (size_t)1 << w->bits;
  int e = digits_exponent((double)largest_entry(t, entries), planes);
  for (size_t i = 0; i < (entries < 64 ? 64 : entries); i += W) {
    vf v = entries < W ? vf_permute(vf_load(t), vi_iota() & (int)(entries - 1)) : vf_load(t + i % entries);
    __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32((__m512)(scaled_by(v, e) * factor)), _mm512_set1_epi32(1 << (8 * planes - 1)));
    for (int p = 0; p < planes; p++) {
      _mm_storeu_si128((__m128i *)(void *)(to[p] + i), _mm512_cvtepi32_epi8(q));
      q = _mm512_srli_epi32(q, 8);
    }
  }
  return ldexp(1, -e) / (double)factor;
}

/* Of bytes of 6 bits four registers are stored as three, the fourth one in the others' upper bits. */
VINLINE __m512i upper_bits(__m512i a, __m512i b, __m512i c) {
  __m512i ab = _mm512_ternarylogic_epi32(_mm512_set1_epi8(3), _mm512_srli_epi16(a, 6), _mm512_srli_epi16(b, 4), 0xca); /* mask ? a : b */
  return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), ab, _mm512_srli_epi16(c, 2), 0xca);
}

/* Register i of such four, the three from p on `apart` bytes from each other. */
VINLINE __m512i load_sixes(const uint8_t *p, size_t apart, const int i) {
  __m512i a = _mm512_loadu_si512(p + (i < 3 ? (size_t)i : 0) * apart);
  return i < 3 ? a : upper_bits(a, _mm512_loadu_si512(p + apart), _mm512_loadu_si512(p + 2 * apart));
}

/* ---- packed palettes: compressed_lanes.c ---- */

/* Bytes of the packed matrix; 0: this one is used as it is. */
size_t cml_lanes_bytes(const cml_compressed *w);
void cml_lanes_pack(const cml_compressed *w, size_t begin, size_t end, void *to);
/* For a vector times a packed matrix: floats behind the head; the largest number to cut into digits if `largest` is the largest element; into how
 * many planes. */
size_t cml_lanes_room(const cml_compressed *w);
double cml_lanes_bound(const cml_compressed *w, const float *x, double largest);
int cml_lanes_planes(const cml_compressed *w, const float *x, double largest);
/* Returns what the last digit counts. bound: as cml_lanes_bound has it. */
double cml_lanes_arrange(const cml_compressed *w, const float *x, int planes, double bound, float *arranged);
/* quarters: how codes of 8 bits are looked up. */
void cml_lanes_product(const cml_compressed *w, bool quarters, size_t begin, size_t end, const float *x, const fixed_head *head, float *y);
/* Dwords of 16 rows (NULL: zeros) side by side, a register after the other, `step` apart. */
void cml_pack_dwords(const uint8_t *const *rows, size_t row_bytes, size_t dwords, char *to, size_t step);

/* A palette of 8 bits whose codes are numbered anew, in the order of their entries' lowest digits. */
typedef struct entry_order {
  uint8_t cut[PLANES][256], place[256]; /* digits by old codes; new codes */
  double unit;                          /* what the lowest digit counts */
  bool close;                           /* new codes may stand for lowest digits */
} entry_order;

/* Of row n's palette. */
void cml_order_entries(const cml_compressed *w, size_t n, entry_order *o);

/* ---- packed palettes of several tables, of 2 bits and more: compressed_tables.c, compressed_tables_pack.c ---- */

size_t cml_tables_bytes(const cml_compressed *w);
void cml_tables_pack(const cml_compressed *w, size_t begin, size_t end, void *to);
size_t cml_tables_room(const cml_compressed *w);
/* largest: of the elements' sizes. Fills the head but for the elements' sum. */
void cml_tables_arrange(const cml_compressed *w, const float *x, double largest, fixed_head *head, float *arranged);
void cml_tables_product(const cml_compressed *w, bool quarters, size_t begin, size_t end, const float *x, const fixed_head *head, float *y);

/* ---- packed palettes of 3 bits: compressed_pairs.c ---- */

size_t cml_pairs_bytes(const cml_compressed *w);
void cml_pairs_pack(const cml_compressed *w, size_t begin, size_t end, void *to);
size_t cml_pairs_room(const cml_compressed *w);
/* Returns which tables these are, for the head's planes, and what sums begin with. */
int cml_pairs_arrange(const cml_compressed *w, const float *x, void *arranged, float *sum);
/* All vectors in fixed point. */
void cml_pairs_product(const cml_compressed *w, size_t begin, size_t end, float *const *x, const fixed_head *heads, size_t vectors, float *y,
                       size_t y_stride);

/* ---- packed codes with scales: compressed_scaled.c ---- */

size_t cml_scaled_bytes(const cml_compressed *w);
void cml_scaled_pack(const cml_compressed *w, size_t begin, size_t end, void *to);
size_t cml_scaled_room(const cml_compressed *w);
void cml_scaled_arrange(const cml_compressed *w, const float *x, int e, float *arranged);
/* 1, 2 or 4 vectors; units: what their last digits count. */
void cml_scaled_product(const cml_compressed *w, size_t begin, size_t end, float *const *x, const double *units, size_t vectors, float *y,
                        size_t y_stride);

#endif
