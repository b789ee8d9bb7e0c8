/* Palettes times few vectors of float16 programs in whole numbers, for CPUs without the instructions of compressed_fixed.c: entries are looked up as words, and pairs
 * of products of words added (vpmaddwd). Rows are read as they lie in the file, and any number of them may share a table: palettes of several tables, and those of one
 * table that compressed_nibbles.c leaves.
 *
 *   AVX2     2, 3, 4 and 6 bits: vpshufb looks up both bytes of 32 entries, which unpacking brings together. Bytes of codes are two of 4 bits; two of 2 bits as an
 *            index, of a table by the first and one by the second; of 3 and 6 bits they are spread to bytes of six bits. Tables of 64 are four, as in compressed_nibbles.c.
 *   AVX-512  and 8 bits: vpermw and vpermi2w look up words. Bits above an index do not count, so that words of codes are shifted and never masked.
 *
 * A table's entries become whole numbers of 16 bits, with a power of two of its own. The vector's elements do so by unit, of 64 elements or 32, in the order in which they
 * meet the codes, with the largest power that lets a lane add up its products of the unit with any entries in 32 bits; then these sums become floats. So a large
 * element costs its unit precision and not the vector. Float16's numbers within a factor of 16 of the largest one are exact; what else errs is bounded when the vector is
 * arranged and when a table is made, and floats are taken where that is too much. */
#include "compressed_digits.h"
#include "compressed_registers.h"
#include "sizes.h"

static cml_kernels ordinary; /* for what is not done here */

/* How an arranged vector begins; behind it are its words, the units' scales, and the ordinary arranged vector. */
typedef struct entries_head {
  float sum;     /* of the elements */
  int32_t whole; /* whether words do */
} entries_head;

/* A group of codes: what is looked up from one load. `lookups` codes come from each byte (AVX2) or word, in the order of the elements. */
VINLINE int lookups(const unsigned bits) { return W == 16 ? (bits == 2 ? 8 : bits < 5 ? 4 : 2) : bits == 2 ? 4 : bits < 5 ? 2 : 1; }
VINLINE size_t word_registers(const unsigned bits) { return (size_t)lookups(bits) * (W == 16 ? 1 : 2); } /* of a group */
VINLINE size_t group_elements(const unsigned bits) { return word_registers(bits) * 2 * W; }
VINLINE size_t group_bytes(const unsigned bits) { return group_elements(bits) * bits / 8; }
VINLINE size_t unit_registers(const unsigned bits) { return least(word_registers(bits), 4); }
VINLINE size_t group_units(const unsigned bits) { return word_registers(bits) / unit_registers(bits); }
static size_t group_count(const cml_compressed *w) { return (w->depth + group_elements(w->bits) - 1) / group_elements(w->bits); }

static bool in_entries(const cml_compressed *w) {
  const bool width = w->bits > 1 && (w->bits < 8 || W == 16);
  return !w->scale && !w->packed && w->vectors_half && width && w->vectors <= 3; /* floats share look-ups among four */
}

typedef struct parts {
  int16_t *words;
  float *scales, *floats;
} parts;

static parts find_parts(const cml_compressed *w, const float *arranged) {
  const size_t groups = group_count(w);
  parts p = {.words = (int16_t *)(uintptr_t)(arranged + HEAD)};
  p.scales = (float *)(void *)(p.words + groups * group_elements(w->bits));
  p.floats = p.scales + up(groups * group_units(w->bits), W);
  return p;
}

static size_t entries_room(const cml_compressed *w) {
  const size_t room = ordinary.compressed_room(w), groups = group_count(w);
  return in_entries(w) ? room + HEAD + groups * group_elements(w->bits) / 2 + up(groups * group_units(w->bits), W) : room;
}

/* ---- arranging ---- */

/* Which element of a group meets word i of its word registers. */
static size_t element_at(const unsigned bits, size_t i) {
  const size_t codes = (size_t)lookups(bits), in = i % (2 * W), number = i / (2 * W);
  if (W == 16) return codes * in + number;
  const size_t byte = in / 8 * 16 + number % 2 * 8 + in % 8; /* lower and upper halves of 16 bytes, unpacked */
  return codes * byte + number / 2;
}

static float power_of_two(int e) { return ldexpf(1, e < 126 ? e : 126); }

/* A unit's words; adds to the squares of what is rounded. Returns what a whole number counts. */
static float arrange_unit(const float *x, size_t count, double *errors, int16_t *to) {
  vf lanes[2] = {vf_zero(), vf_zero()}, large = vf_zero(), square = vf_zero();
  for (size_t i = 0; i < count; i += 2 * W)
    for (size_t h = 0; h < 2; h++) {
      const vf size = vf_abs(vf_load(x + i + h * W));
      lanes[h] += size, large = vf_max(large, size);
    }
  for (size_t h = 0; h < 2; h++) lanes[h] += vf_permute(lanes[h], vi_iota() ^ 1);
  const double sums = (double)vf_hmax(vf_max(lanes[0], lanes[1])); /* times entries below 2^15 they stay below 2^31 */
  const int e = (int)least((size_t)(digits_exponent((double)vf_hmax(large), 2) + 256), (size_t)(digits_exponent(sums, 2) + 257)) - 256;
  const vf factor = vf_set1(power_of_two(e));
  for (size_t i = 0; i < count; i += W) {
    const vf v = vf_load(x + i) * factor, whole = vf_round(v), error = v - whole;
    const vi q = vf_int(whole);
    square = vf_fma(error, error, square);
    for (size_t j = 0; j < W; j++) to[i + j] = (int16_t)q[j];
  }
  const float scale = 1 / power_of_two(e);
  *errors += (double)vf_sum(square) * (double)scale * (double)scale;
  return scale;
}

static void arrange_words(const cml_compressed *w, const float *x, const parts *to, double *errors) {
  const size_t elements = group_elements(w->bits), units = group_units(w->bits), unit = elements / units;
  uint16_t order[16 * W];
  for (size_t i = 0; i < elements; i++) order[i] = (uint16_t)element_at(w->bits, i);
  for (size_t g = 0; g < group_count(w); g++) {
    float some[16 * W] = {0}, in_order[16 * W];
    const float *from = x + g * elements;
    if ((g + 1) * elements > w->depth) from = memcpy(some, from, (w->depth - g * elements) * sizeof *x);
    for (size_t i = 0; i < elements; i++) in_order[i] = from[order[i]];
    for (size_t u = 0; u < units; u++) to->scales[g * units + u] = arrange_unit(in_order + u * unit, unit, errors, to->words + g * elements + u * unit);
  }
}

static void entries_arrange(const cml_compressed *w, const float *x, float *arranged) {
  if (!in_entries(w)) {
    ordinary.compressed_arrange(w, x, arranged);
    return;
  }
  const parts to = find_parts(w, arranged);
  vf sizes = vf_zero(), all = vf_zero(), large = vf_zero();
  for (size_t i = 0; i < w->depth; i += W) {
    const vf v = load_elements(x, i, w->depth);
    sizes += vf_abs(v), large = vf_max(large, vf_abs(v)), all += v;
  }
  entries_head head = {.sum = vf_sum(all)};
  const double total = (double)vf_sum(sizes), largest = (double)vf_hmax(large), depth = (double)w->depth, mean = (total - largest) / depth;
  if (digits_suffice(total, largest, depth)) {
    double errors = 0;
    arrange_words(w, x, &to, &errors);
    head.whole = errors <= 0x1p-28 * mean * mean * depth; /* as two_digits_err_little has it */
  }
  ordinary.compressed_arrange(w, x, to.floats); /* for tables that need it, too */
  memcpy(arranged, &head, sizeof head);
}

/* ---- tables ---- */

/* A table as words (AVX-512), or as planes of their lower and upper bytes by quarter, of 2 bits by code. */
typedef struct table {
  bytes r[8];
  float unit, error; /* what a whole number counts; the entries' mean error */
} table;

/* Returns false where words are too coarse. */
static bool cut_entries(const float *entries, size_t count, int16_t *to, table *t) {
  vf large = vf_zero(), sizes = vf_zero(), squares = vf_zero(), sum = vf_zero();
  for (size_t i = 0; i < count; i += W) large = vf_max(large, vf_abs(load_elements(entries, i, count)));
  const double largest = (double)vf_hmax(large);
  const int e = digits_exponent(largest, 2);
  if (!(largest <= 0x1p100) || e > 126) return false;
  const float factor = power_of_two(e);
  for (size_t i = 0; i < count; i += W) {
    const vf v = load_elements(entries, i, count) * factor, whole = vf_round(v), error = v - whole;
    const vi q = vf_int(whole);
    sizes += vf_abs(v), sum += error, squares = vf_fma(error, error, squares);
    for (size_t j = 0; j < W; j++) to[i + j] = (int16_t)q[j];
  }
  const float n = (float)count, mean = (vf_sum(sizes) - (float)largest * factor) / n;
  t->unit = 1 / factor;
  t->error = vf_sum(sum) / n * t->unit;
  return vf_sum(squares) <= 0x1p-28f * mean * mean * n;
}

static bool make_table(const cml_compressed *w, size_t n, table *t) {
  _Alignas(64) int16_t q[256];
  const size_t entries = (size_t)1 << w->bits;
  if (!cut_entries(w->table + n / w->table_rows * w->table_size, entries, q, t)) return false;
  for (size_t i = entries; i < 32; i++) q[i] = q[i % entries];
#if defined(__AVX512F__)
  for (size_t i = 0; i < (entries + 31) / 32; i++) t->r[i] = load_register(q + 32 * i);
#else
  for (size_t part = 0; part < (w->bits == 6 ? 4 : w->bits == 2 ? 2 : 1); part++) {
    uint8_t low[16], high[16];
    for (size_t i = 0; i < 16; i++) {
      const int v = q[w->bits == 2 ? i >> 2 * part : 16 * part + i];
      low[i] = (uint8_t)v, high[i] = (uint8_t)(v >> 8);
      if (w->bits == 6 && part < 3) low[i] = (uint8_t)(low[i] - q[16 * part + 16 + i]), high[i] = (uint8_t)(high[i] - (q[16 * part + 16 + i] >> 8));
    }
    t->r[2 * part] = load_table(low), t->r[2 * part + 1] = load_table(high);
  }
#endif
  return true;
}

/* ---- products ---- */

#if defined(__AVX512F__)
/* A register of words with codes; 24 bits of codes are two words. */
VINLINE bytes load_codes(const unsigned bits, const uint8_t *p) {
  if (bits != 3 && bits != 6) return load_register(p);
  const __m512i quarters = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  const __m512i threes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11));
  const __m512i v = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(quarters, _mm512_maskz_loadu_epi32(0xfff, p)), threes);
  return _mm512_srlv_epi16(v, _mm512_set1_epi32(4 << 16)); /* the second word's codes begin at its bit 4 */
}

VINLINE bytes look_up_words(const unsigned bits, const table *t, bytes code) {
  if (bits < 6) return _mm512_permutexvar_epi16(code, t->r[0]);
  bytes v = _mm512_permutex2var_epi16(t->r[0], code, t->r[1]);
  if (bits == 6) return v;
  const __mmask32 odd = _mm512_test_epi16_mask(code, all_words(64)), upper = _mm512_test_epi16_mask(code, all_words(128));
  v = _mm512_mask_mov_epi16(v, odd, _mm512_permutex2var_epi16(t->r[2], code, t->r[3]));
  bytes second = _mm512_permutex2var_epi16(t->r[4], code, t->r[5]);
  second = _mm512_mask_mov_epi16(second, odd, _mm512_permutex2var_epi16(t->r[6], code, t->r[7]));
  return _mm512_mask_mov_epi16(v, upper, second);
}

/* Word register i of a group. */
VINLINE bytes entries_of(const unsigned bits, const table *t, bytes codes, size_t i, bytes *upper) {
  (void)upper;
  return look_up_words(bits, t, i ? right(codes, (int)(i * bits)) : codes);
}
#else
VINLINE bytes load_codes(const unsigned bits, const uint8_t *p) {
  if (bits != 3 && bits != 6) return load_register(p);
  const __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)p)), _mm_loadu_si128((const void *)(p + 8)), 1);
  /* bytes a, b, c of four: a as the first one's upper byte and b, c; a, b and c; codes 0 and 2 come to their places as upper halves of products, 1 and 3 as lower ones */
  const __m256i first = _mm256_setr_epi8(-1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15);
  const __m256i second = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1);
  const __m256i even = _mm256_mulhi_epu16(_mm256_shuffle_epi8(v, first), _mm256_set1_epi32(0x10000100));
  const __m256i odd = _mm256_mullo_epi16(_mm256_shuffle_epi8(v, second), _mm256_set1_epi32(0x00400004));
  return either(both(even, all_words(0x003f)), both(odd, all_words(0x3f00)));
}

/* Of bytes below 64. */
VINLINE void look_up_quarters(const table *t, bytes code, bytes *low, bytes *high) {
  *low = look_up(t->r[6], code), *high = look_up(t->r[7], code);
  CML_UNROLL for (int q = 0; q < 3; q++) {
    const bytes index = add_bounded(code, 0x70 - 16 * q);
    *low = add_bytes(*low, look_up(t->r[2 * q], index)), *high = add_bytes(*high, look_up(t->r[2 * q + 1], index));
  }
}

/* Word register i of a group; every second one is left in *upper by the one before it. */
VINLINE bytes entries_of(const unsigned bits, const table *t, bytes codes, size_t i, bytes *upper) {
  if (i % 2) return *upper;
  bytes low, high;
  if (bits == 6) {
    look_up_quarters(t, codes, &low, &high);
  } else {
    const size_t nibble = bits == 2 ? i / 4 : i / 2, by = bits == 2 ? i / 2 % 2 * 2 : 0;
    const bytes index = bits == 3 && !nibble ? codes : bits_of(nibble ? right(codes, bits == 3 ? 3 : 4) : codes, 15);
    low = look_up(t->r[by], index), high = look_up(t->r[by + 1], index);
  }
  *upper = _mm256_unpackhi_epi8(low, high);
  return _mm256_unpacklo_epi8(low, high);
}
#endif

/* The products of a group, whose codes are `codes`, in units' sums as floats. */
VINLINE vf add_group(const unsigned bits, const uint8_t *codes, const int16_t *words, const float *scales, const table *t, vf sum) {
  const size_t registers = unit_registers(bits);
  const bytes v = load_codes(bits, codes);
  CML_UNROLL for (size_t u = 0; u < group_units(bits); u++) {
    bytes all = zero_register(), upper = all;
    CML_UNROLL for (size_t i = u * registers; i < (u + 1) * registers; i++) {
      const bytes products = product_of_words(entries_of(bits, t, v, i, &upper), load_register(words + i * 2 * W));
      all = i % registers ? add_dwords(all, products) : products;
    }
    sum = vf_fma(vf_from_int((vi)all), vf_set1(scales[u]), sum);
  }
  return sum;
}

/* What lies behind a row's end meets zeros, and is not read behind the last one's. */
VINLINE float row_product(const unsigned bits, const cml_compressed *w, size_t n, const parts *x, const table *from) {
  const size_t elements = group_elements(bits), bytes_of = group_bytes(bits), units = group_units(bits), row_bytes = w->depth * bits / 8;
  const size_t left = (w->columns - n - 1) * w->row_bytes + row_bytes, groups = (w->depth + elements - 1) / elements, whole = least(groups, left / bytes_of);
  const uint8_t *codes = w->codes + n * w->row_bytes;
  const int16_t *words = x->words;
  const float *scales = x->scales;
  const table t = *from;
  vf sum = vf_zero();
  for (size_t g = 0; g < whole; g++, codes += bytes_of, words += elements, scales += units) {
    _mm_prefetch((const char *)codes + AHEAD / 2, _MM_HINT_T1);
    _mm_prefetch((const char *)codes + NEAR, _MM_HINT_T0);
    sum = add_group(bits, codes, words, scales, &t, sum);
  }
  if (whole < groups) {
    uint8_t copy[REGISTER] = {0};
    memcpy(copy, codes, left - whole * bytes_of);
    sum = add_group(bits, copy, words, scales, &t, sum);
  }
  return vf_sum(sum);
}

typedef float row_function(const cml_compressed *w, size_t n, const parts *x, const table *t);
#define ROW_FUNCTION(bits) \
  static float row_##bits(const cml_compressed *w, size_t n, const parts *x, const table *t) { return row_product(bits, w, n, x, t); }
ROW_FUNCTION(2)
ROW_FUNCTION(3)
ROW_FUNCTION(4)
ROW_FUNCTION(6)
#if defined(__AVX512F__)
ROW_FUNCTION(8)
#else
#define row_8 NULL
#endif

static void entries_product(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride) {
  static row_function *const functions[] = {NULL, NULL, row_2, row_3, row_4, NULL, row_6, NULL, row_8};
  const size_t room = entries_room(w);
  if (!in_entries(w)) {
    ordinary.compressed_product(w, begin, end, x, vectors, y, y_stride);
    return;
  }
  for (size_t v = 0; v < vectors; v++, x += room, y += y_stride) {
    const parts from = find_parts(w, x);
    entries_head head;
    memcpy(&head, x, sizeof head);
    if (!head.whole) {
      ordinary.compressed_product(w, begin, end, from.floats, 1, y, y_stride);
      continue;
    }
    for (size_t n = begin, last; n < end; n = last) {
      table t;
      last = least((n / w->table_rows + 1) * w->table_rows, end);
      if (!make_table(w, n, &t)) ordinary.compressed_product(w, n, last, from.floats, 1, y, y_stride);
      else
        for (; n < last; n++) y[n] = functions[w->bits](w, n, &from, &t) * t.unit + head.sum * t.error;
    }
  }
}

#if defined(__AVXVNNI__)
void cml_fill_entries_avxvnni(cml_kernels *k) {
#else
void CML_SIMD(cml_fill_entries)(cml_kernels *k) {
#endif
  ordinary = *k;
  k->compressed_room = entries_room;
  k->compressed_arrange = entries_arrange;
  k->compressed_product = entries_product;
}
