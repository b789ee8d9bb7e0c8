/* Products of a few vectors with codes of 8 and 4 bits that have scales, in fixed point, for CPUs without the instructions of compressed_fixed.c:
 * sums of products of words or bytes in place of floats, each of which takes a shift, a conversion and a multiplication.
 *
 * A vector becomes whole numbers of 24 bits, x = q * 2^e with one e, as in compressed_fixed.c (which says what that does to errors), and those
 * are cut into signed digits. Sums of digits times codes are exact in 32 bits; they become floats once a row or once a block of scales.
 *
 *   8 bits  two digits of 12 bits in words; codes are widened to words, pairs of products added (pmaddwd)
 *   4 bits  three digits of 8 bits in bytes, first those of even elements, then those of odd ones, as codes lie in bytes; pairs of products
 *           are words (pmaddubsw), of which eight can be added before they must be widened: 15 * 128 * 2 * 8 < 2^15
 *
 * With AVX-VNNI both are bytes times three digits of 8 bits, four products added at once. (In registers of 512 bits that gave nothing from memory.)
 * Float16's vectors become numbers of 16 bits where two_digits_err_little: one digit in words or two in bytes.
 *
 * Up to three vectors come one after the other; for more the ordinary functions, which share the codes' expansion, are as fast. */
#include "compressed_digits.h"
#include "compressed_registers.h"

enum { MOST_DIGITS = 3, FLUSH = 4 }; /* digits; groups of words that can be added */
enum { MOST_GROUPS = 1024, MOST_LONG = 128 }; /* groups of dwords that can be added, and of those with words of 16 bits: 2 * 255 * 32514 each */

#if defined(__AVXVNNI__)
enum { VNNI = 1 };
#else
enum { VNNI = 0 };
#endif

enum { LANE_BITS = W == 16 ? 4 : 3 };

/* sum + four products a lane. As intrinsics do it, but without gcc 12's copies of the sum. */
VINLINE bytes add_four_products(bytes sum, bytes u, const void *s) {
#if defined(__AVXVNNI__)
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u), "m"(*(const bytes *)s));
#else
  (void)u, (void)s;
#endif
  return sum;
}

static cml_kernels ordinary; /* for what is not done here */

/* How an arranged vector begins. */
typedef struct words_head {
  double unit;    /* what the last digit counts */
  int64_t digits; /* 0: what follows is an ordinary arranged vector */
} words_head;

/* The digits of a number are bytes, 2 or 3; words hold two of them, or one and a half of three. */
VINLINE bool in_words(unsigned bits) { return bits == 8 && !VNNI; }
VINLINE int register_digits(unsigned bits, int digits) { return in_words(bits) ? digits - 1 : digits; }

/* A group of codes fills a register of words, or of bytes of two codes; a step is as many groups as share one scale in each lane. */
typedef struct layout {
  size_t elements, bytes; /* of a group, bytes of its codes */
  size_t groups, per, steps, digits; /* digits: bytes of a group's */
  size_t blocks; /* that meet in a step: a power of two, up to W */
} layout;

static layout lay_out(const cml_compressed *w, int digits) {
  layout l = {.elements = w->bits == 4 ? 8 * W : VNNI ? 4 * W : 2 * W, .blocks = 1};
  l.bytes = l.elements * w->bits / 8;
  l.groups = (w->depth + l.elements - 1) / l.elements;
  l.digits = (size_t)(register_digits(w->bits, digits) * (w->bits == 4 ? 2 : 1)) * REGISTER;
  l.per = l.groups;
  if (w->blocks > 1) {
    l.per = w->block / l.elements ? w->block / l.elements : 1;
    l.blocks = w->block < l.elements ? l.elements / w->block : 1;
  }
  l.steps = (l.groups + l.per - 1) / l.per;
  return l;
}

static bool by_words(const cml_compressed *w) {
  layout l = lay_out(w, MOST_DIGITS);
  size_t lane = l.elements / W;
  if (!w->scale || w->vectors > 3 || l.per > MOST_GROUPS) return false;
  return w->blocks == 1 || w->block % l.elements == 0 || (l.elements % w->block == 0 && w->block % lane == 0);
}

/* Groups of the smallest steps that have functions of their own, `single`: those of blocks of 32 codes. */
VINLINE size_t few_groups(unsigned bits) { return in_words(bits) && W == 8 ? 2 : 1; }
VINLINE bool is_single(const cml_compressed *w, const layout *l) { return l->per == few_groups(w->bits); }

/* Whether digits' sums are joined as they are widened: those of one group, which are small. */
VINLINE bool joined(const unsigned bits, const bool single) { return bits == 4 && single && !VNNI; }

/* Whether codes are made unsigned, and sums begin with what that adds to them. */
VINLINE bool shifted(const unsigned bits, const bool is_signed) { return is_signed && (bits == 4 || VNNI); }

/* Behind the head: digits by group; if codes are shifted, what sums of each step and digit begin with; the elements' sums by step and lane. */
typedef struct parts {
  int8_t *digits;
  int32_t *start;
  float *sums;
} parts;

static parts find_parts(const layout *l, float *arranged) {
  parts p = {.digits = (int8_t *)(arranged + HEAD)};
  p.start = (int32_t *)(void *)(p.digits + l->groups * l->digits);
  p.sums = (float *)(p.start + l->steps * MOST_DIGITS * W);
  return p;
}

static size_t words_room(const cml_compressed *w) {
  layout l = lay_out(w, MOST_DIGITS);
  size_t room = ordinary.compressed_room(w), here = l.groups * l.digits / 4 + l.steps * (MOST_DIGITS + 1) * W;
  return by_words(w) ? HEAD + (room > here ? room : here) : room;
}

/* ---- arranging ---- */

/* q as digits of 12 bits in words, the lower ones in a register of their own, or as it is. */
static void cut_into_words(const int32_t *q, int count, int16_t *to) {
  for (int i = 0; i < 2 * W; i++) {
    int32_t high = count == 2 ? (q[i] + 2048) >> 12 : 0;
    to[i] = (int16_t)(q[i] - high * 4096);
    if (count == 2) to[2 * W + i] = (int16_t)high;
  }
}

/* Every `halves`th number, from the first one and so on. */
static void cut_into_bytes(const int32_t *q, int count, int halves, int8_t *to) {
  for (int half = 0; half < halves; half++, to += count * REGISTER)
    for (int i = 0; i < REGISTER; i++) {
      int32_t v = q[halves * i + half];
      for (int d = 0; d < count; d++, v = (v + 128) >> 8) to[d * REGISTER + i] = (int8_t)v;
    }
}

/* What sums begin with, for codes that are 8 or 128 larger than they should be. */
static void find_start(const cml_compressed *w, const layout *l, size_t digits, const parts *to) {
  const int bias = !w->is_signed ? 0 : w->bits == 4 ? 8 : 128;
  memset(to->start, 0, l->steps * MOST_DIGITS * W * sizeof *to->start);
  for (size_t g = 0; g < l->groups; g++)
    for (size_t i = 0; i < l->digits; i++)
      to->start[(g / l->per * MOST_DIGITS + i / REGISTER % digits) * W + i % REGISTER / 4] -= bias * to->digits[g * l->digits + i];
  for (size_t s = 0; s < l->steps && joined(w->bits, is_single(w, l)); s++) {
    int32_t *start = to->start + s * MOST_DIGITS * W;
    for (size_t i = 0; i < W; i++) start[i] += start[W + i] * 256 + start[2 * W + i] * 65536;
  }
}

static void arrange_digits(const cml_compressed *w, const float *x, int digits, int e, float *arranged) {
  const layout l = lay_out(w, digits);
  const parts to = find_parts(&l, arranged);
  const float first = ldexpf(1, e / 2), second = ldexpf(1, e - e / 2); /* 2^e may be too large for a float */
  memset(to.sums, 0, l.steps * W * sizeof *to.sums);
  for (size_t g = 0; g < l.groups; g++) {
    int32_t q[8 * W];
    float *sums = to.sums + g / l.per * W;
    for (size_t i = 0; i < l.elements; i += W) {
      vi whole = vf_int(load_elements(x, g * l.elements + i, w->depth) * first * second);
      memcpy(q + i, &whole, sizeof whole);
    }
    for (size_t i = 0; i < l.elements; i++) sums[i / (l.elements / W)] += (float)q[i];
    if (in_words(w->bits)) cut_into_words(q, digits - 1, (int16_t *)(void *)(to.digits + g * l.digits));
    else cut_into_bytes(q, digits, w->bits == 4 ? 2 : 1, to.digits + g * l.digits);
  }
  if (!in_words(w->bits)) find_start(w, &l, (size_t)digits, &to);
}

static int count_digits(const cml_compressed *w, const float *x, double largest) {
  if (!w->vectors_half || (in_words(w->bits) && lay_out(w, 2).per > (w->is_signed ? 2 * MOST_LONG : MOST_LONG))) return MOST_DIGITS;
  return two_digits_err_little(x, w->depth, largest, true) ? 2 : MOST_DIGITS;
}

static void words_arrange(const cml_compressed *w, const float *x, float *arranged) {
  if (!by_words(w)) {
    ordinary.compressed_arrange(w, x, arranged);
    return;
  }
  vf size = vf_zero(), large = vf_zero();
  for (size_t i = 0; i < w->depth; i += W) {
    vf v = vf_abs(load_elements(x, i, w->depth));
    size += v, large = vf_max(large, v);
  }
  double largest = (double)vf_hmax(large);
  words_head head = {0};
  if (digits_suffice((double)vf_sum(size), largest, (double)w->depth)) {
    head.digits = count_digits(w, x, largest);
    int e = digits_exponent(largest, (int)head.digits);
    head.unit = ldexp(1, -e);
    arrange_digits(w, x, (int)head.digits, e, arranged);
  } else {
    ordinary.compressed_arrange(w, x, arranged + HEAD);
  }
  memcpy(arranged, &head, sizeof head);
}

/* ---- products ---- */

enum { ROWS = 4 };

/* Rows that are worked on together: where their codes lie, their sums so far, and the scales and offsets of W blocks. */
typedef struct rows {
  const uint8_t *codes;
  size_t distance, left; /* bytes from row to row; of a row from `codes` on */
  vf total[ROWS], scales[ROWS], offsets[ROWS];
} rows;

/* Where a group's codes lie, or a copy of what is left of them, followed by zeros. */
VINLINE const uint8_t *codes_of(const rows *a, int r, const bool whole, uint8_t *copy) {
  const uint8_t *p = a->codes + (size_t)r * a->distance;
  if (whole) return p;
  memset(copy, 0, REGISTER);
  memcpy(copy, p, a->left);
  return copy;
}

VINLINE void ask_row(const rows *a, int r) {
  const char *codes = (const char *)a->codes + (size_t)r * a->distance;
  _mm_prefetch(codes + AHEAD / 2, _MM_HINT_T1);
  _mm_prefetch(codes + NEAR, _MM_HINT_T0);
}

/* Adds a group of R rows with VNNI; D: digits in registers of their own, as everywhere here. */
VINLINE void add_group(const int R, const int D, const int bits, const bool whole, const int8_t *digits, bytes flip, rows *a, bytes (*acc)[MOST_DIGITS]) {
  const bytes nibble = all_bytes(15);
  uint8_t copy[REGISTER];
  CML_UNROLL for (int r = 0; r < R; r++) {
    bytes code = differ(load_register(codes_of(a, r, whole, copy)), flip), odd = both(right(code, 4), nibble);
    ask_row(a, r);
    if (bits == 4) code = both(code, nibble);
    CML_UNROLL for (int d = 0; d < D; d++) acc[r][d] = add_four_products(acc[r][d], code, digits + d * REGISTER);
    if (bits == 4) CML_UNROLL for (int d = 0; d < D; d++) acc[r][d] = add_four_products(acc[r][d], odd, digits + (D + d) * REGISTER);
  }
  a->codes += REGISTER, a->left -= REGISTER;
}

VINLINE bytes signed_words(const uint8_t *p) { return ON_LANES(cvtepi8_epi16)(load_half(p)); }
VINLINE bytes unsigned_words(const uint8_t *p) { return ON_LANES(cvtepu8_epi16)(load_half(p)); }

/* Adds a group of R rows of 8 bits: acc[r][0] those of the lower digits, acc[r][1] those of the others. */
VINLINE void add_eights(const int R, const int D, const bool is_signed, const bool whole, const int8_t *digits, rows *a, bytes (*acc)[MOST_DIGITS]) {
  uint8_t copy[REGISTER];
  const bytes low = load_register(digits), high = load_register(digits + (D - 1) * REGISTER);
  CML_UNROLL for (int r = 0; r < R; r++) {
    const uint8_t *p = codes_of(a, r, whole, copy);
    bytes code = is_signed ? signed_words(p) : unsigned_words(p);
    acc[r][0] = add_dwords(acc[r][0], product_of_words(code, low));
    if (D == 2) acc[r][1] = add_dwords(acc[r][1], product_of_words(code, high));
  }
  a->codes += 2 * W, a->left -= 2 * W;
}

/* Adds sums of words of a group of R rows of 4 bits. */
VINLINE void add_fours(const int R, const int D, const bool whole, const int8_t *digits, bytes flip, rows *a, bytes (*words)[MOST_DIGITS]) {
  const bytes nibble = all_bytes(15);
  uint8_t copy[REGISTER];
  CML_UNROLL for (int r = 0; r < R; r++) {
    bytes code = differ(load_register(codes_of(a, r, whole, copy)), flip), even = both(code, nibble), odd = both(right(code, 4), nibble);
    ask_row(a, r);
    CML_UNROLL for (int d = 0; d < D; d++) {
      bytes two = add_words(product_of_bytes(even, load_register(digits + d * REGISTER)), product_of_bytes(odd, load_register(digits + (D + d) * REGISTER)));
      words[r][d] = add_words(words[r][d], two);
    }
  }
  a->codes += REGISTER, a->left -= REGISTER;
}

/* `groups` groups, all of them in their rows but perhaps the last one. */
VINLINE void add_groups(const int R, const int D, const int bits, const bool is_signed, const bool single, const int8_t *digits, size_t groups, bytes flip, rows *a,
                        bytes (*acc)[MOST_DIGITS]) {
  const size_t group_bytes = bits == 8 && !VNNI ? 2 * W : REGISTER, step = (size_t)(bits == 4 ? 2 * D : D) * REGISTER;
  bool whole = a->left >= groups * group_bytes;
  size_t g = 0, sure = whole ? groups : groups - 1;
  if (VNNI) {
    for (; g < sure; g++, digits += step) add_group(R, D, bits, true, digits, flip, a, acc);
    if (!whole) add_group(R, D, bits, false, digits, flip, a, acc);
    return;
  }
  if (bits == 8) {
    const size_t line = 64 / group_bytes;
    if (single && sure == few_groups(8)) {
      CML_UNROLL for (int r = 0; r < R; r++) ask_row(a, r);
      CML_UNROLL for (size_t i = 0; i < few_groups(8); i++, digits += step) add_eights(R, D, is_signed, true, digits, a, acc);
      return;
    }
    for (; !single && g + line <= sure; g += line) {
      CML_UNROLL for (int r = 0; r < R; r++) ask_row(a, r);
      CML_UNROLL for (size_t i = 0; i < line; i++, digits += step) add_eights(R, D, is_signed, true, digits, a, acc);
    }
    if (single || g < sure)
      CML_UNROLL for (int r = 0; r < R; r++) ask_row(a, r);
    for (; g < sure; g++, digits += step) add_eights(R, D, is_signed, true, digits, a, acc);
    if (!whole) add_eights(R, D, is_signed, false, digits, a, acc);
    return;
  }
  for (size_t some; g < groups; g += some) {
    bytes words[ROWS][MOST_DIGITS];
    some = single ? 1 : groups - g < FLUSH ? groups - g : FLUSH;
    CML_UNROLL for (int i = 0; i < R * D; i++) words[i / D][i % D] = zero_register();
    const size_t last = g + some > sure;
    for (size_t i = 0; i < some - last; i++, digits += step) add_fours(R, D, true, digits, flip, a, words);
    if (last) add_fours(R, D, false, digits, flip, a, words);
    CML_UNROLL for (int r = 0; r < R; r++)
      CML_UNROLL for (int d = 0; d < D; d++) {
        const bytes sum = product_of_words(words[r][d], all_words(single && d == 1 ? 256 : 1));
        acc[r][single ? 0 : d] = add_dwords(acc[r][single ? 0 : d], single && d == 2 ? upper_words(sum) : sum);
      }
  }
}

/* Sums of digits in units of the lowest one; `few`: of one group, whose sums are small. */
VINLINE vf join(const bytes *acc, const int D, const int bits, const bool few) {
  vi low = (vi)acc[0], middle = (vi)acc[D > 1], high = (vi)acc[D - 1];
  if (D == 1 || joined((unsigned)bits, few)) return vf_from_int(low);
  if (in_words((unsigned)bits)) return vf_fma(vf_from_int(middle), vf_set1(4096), vf_from_int(low));
  if (few && D == 2) return vf_from_int((middle << 8) + low);
  if (few && bits == 4) return vf_from_int((((high << 8) + middle) << 8) + low);
  if (D == 2) return vf_fma(vf_from_int(middle), vf_set1(256), vf_from_int(low));
  return vf_fma(vf_from_int(high), vf_set1(65536), vf_fma(vf_from_int(middle), vf_set1(256), vf_from_int(low)));
}

/* R rows from n, `apart` from one another. */
VINLINE void product_rows(const int R, const int digits, const int bits, const bool is_signed, const bool single, const cml_compressed *w, const layout *l, const parts *x,
                          size_t n, size_t apart, double unit, float *y) {
  const int D = register_digits((unsigned)bits, digits);
  const size_t row_bytes = w->depth * (size_t)bits / 8, per = single ? few_groups((unsigned)bits) : l->per, blocks = l->blocks;
  const bytes flip = all_bytes(!is_signed ? 0 : bits == 4 ? 0x88 : 0x80);
  rows a = {.codes = w->codes + n * w->row_bytes, .distance = apart * w->row_bytes, .left = row_bytes};
  for (size_t s = 0, g = 0, b = 0; g < l->groups; b += W) { /* W blocks after W blocks */
    CML_UNROLL for (int r = 0; r < R; r++) {
      size_t at = (n + (size_t)r * apart) / w->scale_rows * w->blocks + b;
      a.scales[r] = load_scales(w->scale, w->scale_half, at, w->blocks - b);
      if (w->offset) a.offsets[r] = load_scales(w->offset, w->scale_half, at, w->blocks - b);
    }
    vi lane = vi_iota() * (int)blocks >> LANE_BITS;
    for (size_t i = 0; i < W && g < l->groups; i += blocks, s++, lane += (int)blocks) {
      size_t some = l->groups - g < per ? l->groups - g : per;
      bytes acc[ROWS][MOST_DIGITS];
      CML_UNROLL for (int r = 0; r < R; r++)
        CML_UNROLL for (size_t d = 0; d < (size_t)D; d++) acc[r][d] = shifted((unsigned)bits, is_signed) ? load_register(x->start + (s * MOST_DIGITS + d) * W) : zero_register();
      add_groups(R, D, bits, is_signed, single, x->digits + g * l->digits, some, flip, &a, acc);
      CML_UNROLL for (int r = 0; r < R; r++) {
        vf sum = join(acc[r], D, bits, single);
        if (w->offset) sum -= vf_permute(a.offsets[r], lane) * vf_load(x->sums + s * W);
        a.total[r] = vf_fma(sum, vf_permute(a.scales[r], lane), a.total[r]);
      }
      g += some;
    }
  }
  CML_UNROLL for (int r = 0; r < R; r++) y[n + (size_t)r * apart] = (float)((double)vf_sum(a.total[r]) * unit);
}

typedef void rows_function(const cml_compressed *w, const layout *l, const parts *x, size_t n, size_t apart, double unit, float *y);
#define ROWS_FUNCTION(name, R, digits, bits, is_signed, single)                                                                                        \
  static void name(const cml_compressed *w, const layout *l, const parts *x, size_t n, size_t apart, double unit, float *y) {                   \
    product_rows(R, digits, bits, is_signed, single, w, l, x, n, apart, unit, y);                                                                       \
  }
/* By digits (2, 3), of one scale a group (or a few) or not, signed or not, many rows (R; of single ones S) or one. */
#define FORMS(R, S, digits, bits)                                             \
  ROWS_FUNCTION(rows_##bits##_##digits##_000, 1, digits, bits, false, false)  \
  ROWS_FUNCTION(rows_##bits##_##digits##_001, R, digits, bits, false, false)  \
  ROWS_FUNCTION(rows_##bits##_##digits##_010, 1, digits, bits, true, false)   \
  ROWS_FUNCTION(rows_##bits##_##digits##_011, R, digits, bits, true, false)   \
  ROWS_FUNCTION(rows_##bits##_##digits##_100, 1, digits, bits, false, true)   \
  ROWS_FUNCTION(rows_##bits##_##digits##_101, S, digits, bits, false, true)   \
  ROWS_FUNCTION(rows_##bits##_##digits##_110, 1, digits, bits, true, true)    \
  ROWS_FUNCTION(rows_##bits##_##digits##_111, S, digits, bits, true, true)
enum { FEW_ROWS = W == 8 ? 2 : 4 }; /* two digits and scales of four rows do not fit into 16 registers */
FORMS(4, 4, 2, 8)
FORMS(4, FEW_ROWS, 3, 8)
FORMS(2, 2, 2, 4)
FORMS(2, 2, 3, 4)
#define FORMS_OF(name) {{{name##_000, name##_001}, {name##_010, name##_011}}, {{name##_100, name##_101}, {name##_110, name##_111}}}
static rows_function *const functions[2][2][2][2][2] = {{FORMS_OF(rows_4_2), FORMS_OF(rows_4_3)}, {FORMS_OF(rows_8_2), FORMS_OF(rows_8_3)}};

/* Rows a half or a quarter of the matrix apart: prefetchers follow few long streams better than many short ones. */
static void words_product(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride) {
  const size_t room = words_room(w);
  if (!by_words(w)) {
    ordinary.compressed_product(w, begin, end, x, vectors, y, y_stride);
    return;
  }
  for (size_t v = 0; v < vectors; v++, x += room, y += y_stride) {
    words_head head;
    memcpy(&head, x, sizeof head);
    if (!head.digits) {
      ordinary.compressed_product(w, begin, end, x + HEAD, 1, y, y_stride);
      continue;
    }
    const layout l = lay_out(w, (int)head.digits);
    const parts from = find_parts(&l, (float *)(uintptr_t)x);
    const bool single = is_single(w, &l);
    const size_t together = w->bits == 4 ? 2 : single && head.digits == 3 ? FEW_ROWS : 4, apart = (end - begin) / together;
    rows_function *const *form = functions[w->bits == 8][head.digits - 2][single][w->is_signed];
    for (size_t i = 0; i < apart; i++) form[1](w, &l, &from, begin + i, apart, head.unit, y);
    for (size_t n = begin + together * apart; n < end; n++) form[0](w, &l, &from, n, 1, head.unit, y);
  }
}

#if defined(__AVXVNNI__)
void cml_fill_words_avxvnni(cml_kernels *k) {
#else
void CML_SIMD(cml_fill_words)(cml_kernels *k) {
#endif
  ordinary = *k;
  k->compressed_room = words_room;
  k->compressed_arrange = words_arrange;
  k->compressed_product = words_product;
}
