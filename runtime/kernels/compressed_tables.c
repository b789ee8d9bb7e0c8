/* Palettes of several tables times few vectors in fixed point (see compressed_fixed.c), packed as compressed_tables.h says. A table serves too few rows for sums of
 * products to be worked out for it, as with one table: digits of entries are looked up, and multiplied with digits of the elements.
 *
 *   two digits of both      three products of digits: those of the lower ones are left out, but for the lower digits' mean, where that suffices, or all four (6 and 8 bits).
 *                           Float16 programs
 *   two and three           five: without those of the lowest ones. Of up to 4 bits: float32 programs; elements some of which are far larger than others
 *   three digits of both    six. Entries that need them; 8 bits: the lowest one is the code itself where these are numbered in its order
 *
 * Which of them is chosen by block, from what its tables and the vector have. Rows' sums lie in a lane each (16 rows a register), in four or in sixteen. */
#include "compressed_tables.h"

enum { TWO, FOUR, MIXED, THREE, BY_CODE, KINDS };
enum { FLUSH = 4096 }; /* elements whose products fit into 32 bits: 3 of 2^15 each */

/* ---- arranging ---- */

/* A plane of digits for each code of a byte, and by plane of each; behind them their sums, by FLUSH elements. */
typedef struct digits_of {
  int8_t *digits;
  int32_t *sums;
  size_t plane, flush; /* bytes of a plane; of a plane to FLUSH elements */
} digits_of;

static digits_of find_digits(const cml_compressed *w, const void *arranged) {
  const size_t codes = tables_codes((int)w->bits), plane = up(tables_bytes_of_row(w), 4 * REGISTER);
  int8_t *digits = (int8_t *)(uintptr_t)arranged;
  return (digits_of){digits, (int32_t *)(void *)(digits + codes * PLANES * plane), plane, FLUSH / codes};
}

size_t cml_tables_room(const cml_compressed *w) {
  const size_t codes = tables_codes((int)w->bits), plane = up(tables_bytes_of_row(w), 4 * REGISTER);
  return codes * PLANES * plane / 4 + up((plane * codes + FLUSH - 1) / FLUSH * PLANES, W);
}

/* Every second element of 2 W, from the first one and from the second. */
VINLINE void part_elements(vf *a, vf *b) {
  const vi even = vi_iota() * 2;
  const vf x = *a, y = *b;
  *a = vf_permute2(x, y, even), *b = vf_permute2(x, y, even + 1);
}

/* Elements of each code of the bytes from `at` on. */
VINLINE void load_parts(const cml_compressed *w, const float *x, size_t at, size_t codes, vf *v) {
  for (size_t j = 0; j < codes; j++) v[j] = load_elements(x, at * codes + j * W, w->depth);
  if (codes > 1) part_elements(&v[0], &v[1]);
  if (codes < 4) return;
  part_elements(&v[2], &v[3]);
  vf even[] = {v[0], v[2]}, odd[] = {v[1], v[3]};
  part_elements(&even[0], &even[1]), part_elements(&odd[0], &odd[1]);
  v[0] = even[0], v[2] = even[1], v[1] = odd[0], v[3] = odd[1];
}

static void add_digits(const digits_of *d, size_t codes, float *all) {
  const __m512i ones = _mm512_set1_epi8(1);
  int32_t *sums = d->sums;
  memset(all, 0, PLANES * sizeof *all);
  for (size_t from = 0; from < d->plane; from += d->flush, sums += PLANES)
    for (size_t p = 0; p < PLANES; p++) {
      __m512i sum = _mm512_setzero_si512();
      for (size_t j = 0; j < codes; j++)
        for (size_t i = from; i < least(from + d->flush, d->plane); i += REGISTER)
          sum = dpbusd(sum, ones, _mm512_loadu_si512(d->digits + (j * PLANES + p) * d->plane + i));
      sums[p] = _mm512_reduce_add_epi32(sum);
      all[p] += (float)sums[p];
    }
}

void cml_tables_arrange(const cml_compressed *w, const float *x, double largest, fixed_head *head, float *arranged) {
  const size_t codes = tables_codes((int)w->bits);
  const digits_of d = find_digits(w, arranged);
  const int planes = w->vectors_half && two_digits_suffice(x, w->depth, largest) ? 2 : PLANES, e = digits_exponent(largest, planes);
  float all[PLANES];
  vf errors = vf_zero(), low = vf_zero(), squares = vf_zero();
  if (planes == 2)
    for (size_t j = 0; j < codes; j++) memset(d.digits + j * PLANES * d.plane, 0, d.plane);
  for (size_t at = 0; at < d.plane; at += W) {
    vf parts[4];
    load_parts(w, x, at, codes, parts);
    for (size_t j = 0; j < codes; j++) {
      const vf v = scaled_by(parts[j], e), q = vf_round(v), error = v - q, digit = q - vf_floor((q + 128) * 0x1p-8f) * 256;
      int8_t *to = d.digits + j * PLANES * d.plane + at;
      errors = vf_fma(error, error, errors), low = vf_fma(digit, digit, low), squares = vf_fma(v, v, squares);
      if (planes == 2) store_digits(2, 8, v, to + d.plane, d.plane);
      else store_digits(PLANES, 8, v, to, d.plane);
    }
  }
  add_digits(&d, codes, all);
  const double most = ldexp(largest, e), one = (double)vf_sum(squares) - most * most; /* the largest may meet an entry of zero */
  head->planes = planes;
  head->unit = ldexp(1, -e - (planes == 2 ? 8 : 0));
  head->error = one > 0 ? (float)((double)vf_sum(errors) / one) : 0;
  head->low = one > 0 ? (float)((double)vf_sum(low) / one) : INFINITY;
  head->low_sum = all[1];
  head->outlier = one > 0 ? (float)(1 + 2 * most / sqrt(one)) : INFINITY;
}

/* ---- products ---- */

VINLINE int first_plane(const int kind) { return kind < THREE; }
VINLINE int least_place(const int kind) { return kind == TWO ? 3 : 2; } /* of products of digits: both digits' numbers added up */

/* The digits that R rows have from p on, for all. */
VINLINE __m512i spread_digits(const int R, const int8_t *p) {
  if (R == 1) return _mm512_loadu_si512(p);
  if (R == 4) return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)p));
  int32_t four;
  memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

VINLINE __m512i load_table(const int bits, const uint8_t *p) {
  return bits < 6 ? _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)p)) : _mm512_loadu_si512(p);
}

VINLINE void add_products(const int kind, __m512i *acc, const __m512i *t, const __m512i *x) {
  const int from = least_place(kind);
  CML_UNROLL for (int i = PLANES; i-- > first_plane(kind);)
    CML_UNROLL for (int j = PLANES; j-- > (kind <= FOUR);)
      if (i + j >= from) acc[i + j - from] = dpbusd(acc[i + j - from], t[i], x[j]);
}

/* Where a block's codes are read, its tables and the elements' digits. */
typedef struct place {
  const uint8_t *codes, *tables;
  const int8_t *digits;
  size_t plane;
} place;

VINLINE void load_digits(const int R, const int kind, const place *at, size_t k, size_t code, __m512i *x) {
  CML_UNROLL for (int p = kind <= FOUR; p < PLANES; p++) x[p] = spread_digits(R, at->digits + (code * PLANES + (size_t)p) * at->plane + k);
}

/* Bytes [k, end) of rows that look up codes of up to 6 bits. */
VINLINE const uint8_t *small_products(const int R, const int bits, const int kind, const place *at, size_t k, size_t end, __m512i acc[SETS][PLANES]) {
  const int codes = (int)tables_codes(bits), registers = (int)tables_registers(bits), stored = (int)tables_stored(bits);
  const uint8_t *from = at->codes;
  const bool upper = bits == 3 && kind == TWO; /* tables by the upper bits, too, for which there are registers: no shifts */
  const __m512i eighths = _mm512_setr_epi64(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303, 0x0404040404040404, 0x0505050505050505, 0x0606060606060606,
                                            0x0707070707070707);
  __m512i table[2][SETS][PLANES];
  CML_UNROLL for (int s = 0; s < SETS; s++)
    CML_UNROLL for (int p = first_plane(kind); p < PLANES; p++) {
      table[0][s][p] = load_table(bits, at->tables + (size_t)(s * PLANES + p) * tables_entries(bits));
      if (upper) table[1][s][p] = _mm512_shuffle_epi8(table[0][s][p], eighths);
    }
  for (; k < end; k += (size_t)(registers * REGISTER / R), from += stored * SETS * REGISTER)
    CML_UNROLL for (int i = 0; i < registers; i++) {
      __m512i x[4][PLANES];
      CML_UNROLL for (int j = 0; j < codes; j++) load_digits(R, kind, at, k + (size_t)(i * REGISTER / R), (size_t)j, x[j]);
      CML_UNROLL for (int s = 0; s < SETS; s++) {
        const uint8_t *p = from + s * REGISTER;
        const __m512i bytes = stored == 3 ? load_sixes(p, SETS * REGISTER, i) : _mm512_loadu_si512(p);
        CML_UNROLL for (int j = 0; j < codes; j++) {
          const __m512i code = j && !upper ? _mm512_srli_epi16(bytes, (unsigned)(j * bits)) : bytes;
          __m512i t[PLANES];
          CML_UNROLL for (int d = first_plane(kind); d < PLANES; d++) t[d] = _mm512_permutexvar_epi8(code, table[upper && j][s][d]);
          add_products(kind, acc[s], t, x[j]);
        }
        if (i < stored) ask_after(p + i * SETS * REGISTER + AHEAD, &acc[s][0]);
      }
    }
  return from;
}

/* The same of 8 bits: a set's tables serve four registers. */
VINLINE const uint8_t *byte_products(const bool quarters, const int R, const int kind, const place *at, size_t k, size_t end, __m512i acc[SETS][PLANES]) {
  const int first = kind == BY_CODE ? 1 : first_plane(kind);
  const uint8_t *from = at->codes;
  for (; k < end; k += 4 * REGISTER / R)
    CML_UNROLL for (int s = 0; s < SETS; s++) {
      __m512i table[PLANES][4];
      CML_UNROLL for (int p = first; p < PLANES; p++)
        CML_UNROLL for (int i = 0; i < 4; i++) {
          table[p][i] = _mm512_loadu_si512(at->tables + ((s * PLANES + p) * 4 + i) * REGISTER);
          __asm__ volatile("" : "+v"(table[p][i])); /* once, for four registers */
        }
      CML_UNROLL for (int i = 0; i < 4; i++, from += REGISTER) {
        __m512i x[PLANES], t[PLANES];
        load_digits(R, kind, at, k + (size_t)(i * REGISTER / R), 0, x);
        const __m512i code = _mm512_loadu_si512(from);
        const code_masks h = find_masks(quarters, code);
        t[0] = code;
        CML_UNROLL for (int p = first; p < PLANES; p++) t[p] = look_up_bytes(quarters, code, h, table[p]);
        add_products(kind, acc[s], t, x);
        ask_after(from + AHEAD, &acc[s][0]);
      }
    }
  return from;
}

/* What a row's sums begin with, entries' digits being those plus 128 of the first digit; what is left out with three digits of the elements is made up for as in
 * compressed_lanes.c. */
VINLINE void start_sums(const int kind, const __mmask16 first, const int32_t *sums, __m512i *acc) {
  const int32_t rest = kind < MIXED ? 0 : kind == MIXED ? sums[0] >> 1 : (sums[0] + sums[1]) >> 1;
  CML_UNROLL for (int i = 0; i < PLANES; i++) {
    const int j = i + least_place(kind) - 2;
    acc[i] = j < PLANES ? _mm512_maskz_set1_epi32(first, sums[j] * -128 + (i ? 0 : rest)) : _mm512_setzero_si512();
  }
}

/* A register of each set's lanes as a register of rows. */
VINLINE vf join_lanes(const __m512 *v) {
  __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  return (vf)_mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee)); /* four sets' sums, by four lanes */
}

/* Adds to the sums of `some` rows from n what is multiplied with the sum of the elements, and writes them. numbers: these, where they are not those of the tables. */
VINLINE void store_rows(const int R, const tables_head *t, const fixed_head *head, const float *numbers, size_t n, size_t some, vf sum, float *y) {
  const vf offsets = vf_permute(vf_load_n(t->offset, SETS), (vi_iota() + (int)n) / R);
  vf_store_n(y + n, vf_fma(numbers ? vf_load_n(numbers + n, some) : offsets, vf_set1(head->sum), sum), some);
}

/* x = fraction * 2^exponent, of numbers that are neither 0 nor subnormal; ilogb and ldexp took as long as a tenth of a block of 16 rows. */
VINLINE int exponent_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (int)(bits >> 52) - 1023;
}

VINLINE float fraction_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = (bits & (UINT64_MAX >> 12)) | UINT64_C(1023) << 52;
  memcpy(&x, &bits, sizeof x);
  return (float)x;
}

VINLINE void finish(const int R, const int kind, const uint8_t *block, const tables_head *t, const fixed_head *head, const vf *total, size_t rows, float *y) {
  const float *numbers = (const float *)(const void *)(block + ROWS_AT), *digits = numbers + tables_numbers((size_t)R) / sizeof(float);
  if (kind == THREE && t->planes == 2) numbers = NULL;
  __m512 v[SETS];
  CML_UNROLL for (int s = 0; s < SETS; s++) {
    const int e = exponent_of(head->unit * t->unit[s]) + 8 * least_place(kind);
    vf sum = total[s];
    if (kind == TWO) { /* one of a row's lanes has its number */
      const vf low = R == 16 ? vf_load(digits + s * W) : R == 4 ? vf_permute(vf_load_n(digits + s * 4, 4), vi_iota() >> 2) : vf_set1(digits[s]);
      const vf factor = (vf)_mm512_maskz_mov_ps(R == 16 ? 0xffff : R == 4 ? 0x1111 : 1, (__m512)vf_set1(head->low_sum * 0x1p-8f));
      sum = vf_fma(low, factor, sum);
    }
    v[s] = (__m512)scaled_by(sum * vf_set1(fraction_of(head->unit * t->unit[s])), e);
  }
  if (R == 16) {
    CML_UNROLL for (size_t s = 0; s < SETS; s++)
      if (rows > s * W) store_rows(R, t, head, numbers, s * W, least(rows - s * W, W), (vf)v[s], y);
    return;
  }
  vf sum = join_lanes(v);
  if (R == 4) sum = vf_permute(sum, (vi_iota() >> 2) | (vi_iota() & 3) << 2);
  if (R == 1) sum += vf_permute(sum, vi_iota() ^ 4), sum += vf_permute(sum, vi_iota() ^ 8);
  store_rows(R, t, head, numbers, 0, rows, sum, y);
}

VINLINE void block_product(const int R, const int bits, const bool quarters, const int kind, const cml_compressed *w, const uint8_t *block, const tables_head *t, const fixed_head *head,
                           const digits_of *d, size_t rows, float *y) {
  const size_t end = tables_steps(w) * (tables_registers(bits) * REGISTER / (size_t)R);
  place at = {block + codes_at((size_t)R, bits), block + tables_at((size_t)R), d->digits, d->plane};
  const int32_t *sums = d->sums;
  vf total[SETS] = {0};
  for (size_t i = 0; i < codes_at((size_t)R, bits); i += REGISTER) ask(block + AHEAD + i); /* as codes are */
  for (size_t from = 0; from < end; from += d->flush, sums += PLANES) {
    __m512i acc[SETS][PLANES];
    CML_UNROLL for (int s = 0; s < SETS; s++) start_sums(kind, R == 16 ? 0xffff : R == 4 ? 0x1111 : 1, sums, acc[s]);
    const size_t last = least(from + d->flush, end);
    at.codes = bits == 8 ? byte_products(quarters, R, kind, &at, from, last, acc) : small_products(R, bits, kind, &at, from, last, acc);
    CML_UNROLL for (int s = 0; s < SETS; s++) total[s] += join_digits(kind == TWO ? 2 : PLANES, 8, acc[s]);
  }
  finish(R, kind, block, t, head, total, rows, y);
}

typedef void block_function(const cml_compressed *w, const uint8_t *block, const tables_head *t, const fixed_head *head, const digits_of *d, size_t rows, float *y);
#define BLOCK_FUNCTION_OF(name, R, bits, quarters, kind)                                                                                                    \
  static void name##_##R##_##bits##_##kind(const cml_compressed *w, const uint8_t *block, const tables_head *t, const fixed_head *head, const digits_of *d, \
                                           size_t rows, float *y) {                                                                                         \
    block_product(R, bits, quarters, kind, w, block, t, head, d, rows, y);                                                                                  \
  }
#define BLOCK_FUNCTION(R, bits, kind) BLOCK_FUNCTION_OF(block, R, bits, false, kind)
#define BYTES_FUNCTION(R, kind)                 \
  BLOCK_FUNCTION_OF(block, R, 8, false, kind)   \
  BLOCK_FUNCTION_OF(quarters, R, 8, true, kind)
#define BLOCK_FUNCTIONS(R)     \
  BLOCK_FUNCTION(R, 2, TWO)    \
  BLOCK_FUNCTION(R, 2, MIXED)  \
  BLOCK_FUNCTION(R, 2, THREE)  \
  BLOCK_FUNCTION(R, 3, TWO)    \
  BLOCK_FUNCTION(R, 3, MIXED)  \
  BLOCK_FUNCTION(R, 3, THREE)  \
  BLOCK_FUNCTION(R, 4, TWO)    \
  BLOCK_FUNCTION(R, 4, MIXED)  \
  BLOCK_FUNCTION(R, 4, THREE)  \
  BLOCK_FUNCTION(R, 6, TWO)    \
  BLOCK_FUNCTION(R, 6, FOUR)   \
  BLOCK_FUNCTION(R, 6, THREE)  \
  BYTES_FUNCTION(R, TWO)       \
  BYTES_FUNCTION(R, FOUR)      \
  BYTES_FUNCTION(R, THREE)     \
  BYTES_FUNCTION(R, BY_CODE)
BLOCK_FUNCTIONS(16)
BLOCK_FUNCTIONS(4)
BLOCK_FUNCTIONS(1)
#define KINDS_OF(R, bits, second) [bits] = {[TWO] = block_##R##_##bits##_TWO, [second] = block_##R##_##bits##_##second, [THREE] = block_##R##_##bits##_THREE}
#define BYTES_OF(name, R) {name##_##R##_8_TWO, name##_##R##_8_FOUR, [THREE] = name##_##R##_8_THREE, name##_##R##_8_BY_CODE}
enum { BY_QUARTERS = 9 }; /* bits, behind the others */
#define FUNCTIONS_OF(R) {KINDS_OF(R, 2, MIXED), KINDS_OF(R, 3, MIXED), KINDS_OF(R, 4, MIXED), KINDS_OF(R, 6, FOUR), [8] = BYTES_OF(block, R), [BY_QUARTERS] = BYTES_OF(quarters, R)}
static block_function *const functions[3][10][KINDS] = {FUNCTIONS_OF(1), FUNCTIONS_OF(4), FUNCTIONS_OF(16)};

/* Two digits of both, without the lower ones' products, where all errors together are 85 dB below what products are in the mean. An element far larger than the
 * others multiplies what entries err, in rows that have a small one there. */
static int choose_kind(const cml_compressed *w, const tables_head *t, const fixed_head *head) {
  if (t->planes == PLANES) return t->by_code ? BY_CODE : THREE;
  const float error = t->error * head->outlier;
  if (error > (w->vectors_half ? 0x1p-29f : 0x1p-31f) || isnan(error)) return THREE;
  if (head->planes == PLANES) return w->bits < 6 ? MIXED : THREE; /* what is rare has no function of its own */
  if (error + head->error + t->low * head->low <= 0x1.8p-29f) return TWO;
  return w->bits < 6 ? MIXED : FOUR;
}

void cml_tables_product(const cml_compressed *w, bool quarters, size_t begin, size_t end, const float *x, const fixed_head *head, float *y) {
  const digits_of d = find_digits(w, x);
  const size_t shared = tables_rows(w), rows = SETS * shared, bytes = tables_block(w);
  const uint8_t *block = (const uint8_t *)w->packed + begin / rows * bytes;
  block_function *const(*of_bits)[KINDS] = &functions[shared == 16 ? 2 : shared == 4][w->bits == 8 && quarters ? BY_QUARTERS : w->bits];
  for (size_t n = begin; n < end; n += rows, block += bytes) {
    tables_head t;
    memcpy(&t, block, sizeof t);
    (*of_bits)[choose_kind(w, &t, head)](w, block, &t, head, &d, least(end - n, rows), y + n);
  }
}
