/* Packing palettes of several tables (see compressed_tables.h): codes are brought into registers, and tables are cut into digits, once for all products.
 *
 * Two digits of entries do in place of three where errors are small, and the lower one need not be multiplied with the elements' lower digits where it
 * is small, too. For both the scale and the middle of a table are free: of many pairs of these the one is taken that brings all entries nearest to whole numbers,
 * and their lower digits nearest to each other. Of 16 entries errors become half as large as they are without, of 8 a third.
 * What rounding and lower digits are in the mean is worked out for each row, as in compressed_lanes.c. */
#include "compressed_tables.h"

/* A table as digits, by packed code; entries repeat up to 64. Entry = offset + unit * (digits less half of their range) + error_unit * error; where two digits
 * suffice (`planes`), the third is what they err, plus 128. */
typedef struct cut_table {
  uint8_t digits[PLANES][256];
  int8_t errors[256];
  double unit, error_unit;
  float offset;
  float error, low; /* see tables_head */
  int planes;
  entry_order order; /* of codes of 8 bits; `close` where these stand for lowest digits */
} cut_table;

/* Entries become (entry - middle) * factor + shift. */
typedef struct fit {
  float middle, factor, shift;
} fit;

/* The best of some fits to 16 bits, 16 at a time. low: what squares of lower digits count, where squares of errors count 1; 0: they do not. Of float16's entries most
 * are whole numbers by a power of two, and one large element multiplies what an entry errs. */
static fit find_fit(const float *t, size_t entries, float low) {
  enum { MARGIN = 128 };
  const size_t count = (low > 0 ? 1 << 14 : 1 << 15) / entries;
  float lowest = t[0], most = t[0], least_sum = INFINITY;
  vf best = vf_set1(INFINITY), factors = vf_zero(), shifts = vf_zero();
  for (size_t i = 0; i < entries; i++) lowest = fminf(lowest, t[i]), most = fmaxf(most, t[i]);
  fit f = {.middle = 0.5f * lowest + 0.5f * most, .factor = 1};
  const float reach = fmaxf(most - f.middle, f.middle - lowest), largest = (0x1p15f - 2 - MARGIN) / reach;
  if (!(reach > 0)) return f;
  for (size_t n = 0; n < count; n += W) {
    vf number = vf_from_int(vi_iota()) + (float)n + 1, a = number * 0.7548777f, b = number * 0.5698403f; /* evenly in a square */
    vf factor = (1 - 0.25f * (a - vf_floor(a))) * largest, shift = (b - vf_floor(b) - 0.5f) * (2 * MARGIN - 2), sum = vf_zero();
    if (!n) factor[0] = ldexpf(1, digits_exponent((double)largest_entry(t, entries), 2)), shift[0] = f.middle * factor[0];
    for (size_t i = 0; i < entries; i++) {
      vf v = vf_fma(vf_set1(t[i] - f.middle), factor, shift), q = vf_round(v), error = v - q;
      sum = vf_fma(error, error, sum);
      if (!(low > 0)) continue;
      vf digit = q - vf_fma(vf_floor(q * 0x1p-8f), vf_set1(256), vf_set1(128));
      sum = vf_fma(digit * low, digit, sum);
    }
    sum /= factor * factor;
    const vi better = sum < best;
    best = vf_select(better, sum, best), factors = vf_select(better, factor, factors), shifts = vf_select(better, shift, shifts);
  }
  for (int i = 0; i < W; i++)
    if (best[i] < least_sum) least_sum = best[i], f.factor = factors[i], f.shift = shifts[i];
  return f;
}

/* Whether errors are small: 87 dB below what products are in the mean, for float32 programs 95; and where few products are added up, five deviations of their sum
 * within 2^-20 of the sum of their sizes. error: its mean square, and as a part of the mean size's square; largest: of entries, in the same unit. */
static bool err_little(const cml_compressed *w, float error, float part, float largest) {
  if (w->vectors_half) return part <= 0x1p-29f;
  return part <= 0x1.8p-32f && error <= 0x1p-45f * (float)w->depth * largest * largest;
}

/* Two digits. False where they do not suffice. */
static bool cut_two(const cml_compressed *w, const float *t, cut_table *c) {
  const size_t entries = (size_t)1 << w->bits;
  const fit f = find_fit(t, entries, w->vectors_half && w->bits < 6 ? 0x1p-13f : 0);
  float sizes = 0, digits = 0, squares = 0, errors = 0;
  if (!(f.factor <= 0x1p90f && f.factor >= 0x1p-90f)) return false;
  for (size_t i = 0; i < 256; i++) {
    const float v = (t[i % entries] - f.middle) * f.factor + f.shift, q = rintf(v), error = v - q;
    const unsigned number = (unsigned)((int)q + (1 << 15));
    c->digits[1][i] = (uint8_t)number, c->digits[2][i] = (uint8_t)(number >> 8), c->digits[0][i] = (uint8_t)(128 + rintf(error * 254));
    c->errors[i] = (int8_t)rintf(error * 254);
    if (i >= entries) continue;
    sizes += fabsf(t[i]) * f.factor, errors += error * error;
    digits += (float)c->digits[1][i], squares += (float)c->digits[1][i] * (float)c->digits[1][i];
  }
  const float n = (float)entries, largest = largest_entry(t, entries) * f.factor, mean = (sizes - largest) / n, digit = digits / n;
  const double unit = 1 / (double)f.factor;
  c->unit = unit / 256, c->error_unit = unit / 254, c->offset = (float)((double)f.middle - (double)f.shift * unit);
  c->error = errors > 0 ? errors / n / (mean * mean) : 0;
  c->low = fmaxf(squares / n - digit * digit, 0) / (mean * mean); /* not finite: more than is allowed */
  c->planes = 2;
  return errors == 0 || err_little(w, errors / n, c->error, largest);
}

static void cut_three(const cml_compressed *w, size_t n, cut_table *c) {
  const size_t entries = (size_t)1 << w->bits;
  c->planes = PLANES, c->offset = c->error = c->low = 0, c->order.close = false;
  c->error_unit = 0;
  memset(c->errors, 0, sizeof c->errors);
  if (w->bits == 8) cml_order_entries(w, n, &c->order);
  if (!c->order.close) {
    c->unit = cut_palette(w, n, PLANES, 1, c->digits);
    for (size_t i = entries < 64 ? 64 : entries; i < 256; i++)
      for (size_t p = 0; p < PLANES; p++) c->digits[p][i] = c->digits[p][i % entries];
    return;
  }
  c->unit = c->error_unit = c->order.unit;
  for (size_t i = 0; i < 256; i++) {
    const uint8_t place = c->order.place[i];
    const int error = c->order.cut[0][i] - place;
    for (size_t p = 0; p < PLANES; p++) c->digits[p][place] = c->order.cut[p][i];
    c->errors[place] = (int8_t)(error > 127 ? 127 : error < -127 ? -127 : error);
  }
}

/* The tables of a block's sets, as rows have them; those of sets beyond the last row repeat. */
static void cut_tables(const cml_compressed *w, size_t n, cut_table *c) {
  const size_t rows = tables_rows(w);
  bool two = true, ordered = true;
  for (size_t s = 0; s < SETS; s++) {
    const size_t row = least(n + s * rows, w->columns - 1);
    if (s && row / w->table_rows == least(n + (s - 1) * rows, w->columns - 1) / w->table_rows) c[s] = c[s - 1];
    else two = cut_two(w, palette_of(w, row), &c[s]) && two;
  }
  for (size_t s = 0; s < SETS && !two; s++) cut_three(w, least(n + s * rows, w->columns - 1), &c[s]), ordered = ordered && c[s].order.close;
  for (size_t s = 0; s < SETS && !two && !ordered; s++) /* all or none */
    if (c[s].order.close) {
      c[s].order.close = false, c[s].error_unit = 0;
      c[s].unit = cut_palette(w, least(n + s * rows, w->columns - 1), PLANES, 1, c[s].digits);
    }
}

static void write_head(const cml_compressed *w, const cut_table *c, char *to) {
  const size_t rows = tables_rows(w), entries = tables_entries((int)w->bits);
  tables_head h = {.planes = c->planes, .by_code = c->planes == PLANES && c->order.close};
  for (size_t s = 0; s < SETS; s++) {
    h.unit[s] = c[s].unit, h.offset[s] = (float)((double)c[s].offset - (c->planes == 2 ? 128 * c[s].unit : 0)), h.error = fmaxf(h.error, c[s].error), h.low = fmaxf(h.low, c[s].low);
    for (size_t p = 0; p < PLANES; p++) memcpy(to + tables_at(rows) + (s * PLANES + p) * entries, c[s].digits[p], entries);
  }
  memcpy(to, &h, sizeof h);
}

/* The 64 bytes from byte `at` on (a multiple of 64) that look up a row's codes. */
VINLINE __m512i row_bytes(const int bits, const cml_compressed *w, const uint8_t *row, size_t at) {
  const size_t end = w->depth * (size_t)bits / 8;
  return bits == 3 || bits == 6 ? spread_codes(load_bytes(row, at / 4 * 3, end)) : load_bytes(row, at, end);
}

/* The sums of a row's errors and of its second digits. */
static void add_up(const int bits, const cut_table *c, __m512i bytes, __mmask64 there, __m512i *errors, __m512i *digits) {
  const __m512i ones = _mm512_maskz_set1_epi8(there, 1);
  CML_UNROLL for (size_t j = 0; j < tables_codes(bits); j++) {
    const __m512i code = _mm512_srli_epi16(bytes, (unsigned)(bits * (int)j));
    __m512i error = _mm512_permutexvar_epi8(code, _mm512_loadu_si512(c->errors)), digit = _mm512_permutexvar_epi8(code, _mm512_loadu_si512(c->digits[1]));
    if (bits == 8) {
      __m512i of_errors[4], of_digits[4];
      for (size_t i = 0; i < 4; i++) of_errors[i] = _mm512_loadu_si512(c->errors + i * REGISTER), of_digits[i] = _mm512_loadu_si512(c->digits[1] + i * REGISTER);
      error = look_up_halves(code, of_errors), digit = look_up_halves(code, of_digits);
    }
    *errors = dpbusd(*errors, ones, error), *digits = dpbusd(*digits, digit, ones);
  }
}

/* Whether 16 rows' dwords are packed as they are, in registers. */
VINLINE bool by_dwords(const int bits, const size_t rows) { return rows == 16 && tables_stored(bits) == 1; }

/* Row r of a set; NULL: one beyond the last. */
VINLINE void pack_row(const int bits, const size_t rows, const cml_compressed *w, const uint8_t *row, const cut_table *c, size_t s, size_t r, char *to, float *numbers) {
  enum { TOGETHER = 4 * REGISTER };
  const size_t part = REGISTER / rows, step = tables_registers(bits) * part, stored = tables_stored(bits), steps = tables_steps(w), length = tables_bytes_of_row(w);
  __m512i errors = _mm512_setzero_si512(), digits = errors, place[4];
  CML_UNROLL for (size_t i = 0; i < 4 && bits == 8; i++) place[i] = _mm512_loadu_si512(c->order.place + i * REGISTER);
  for (size_t at = 0; at < steps * step; at += TOGETHER) {
    uint8_t bytes[TOGETHER];
    for (size_t k = 0; k < TOGETHER; k += REGISTER) {
      __m512i some = row_bytes(bits, w, row, at + k);
      if (bits == 8 && c->planes == PLANES && c->order.close) some = look_up_halves(some, place);
      _mm512_storeu_si512(bytes + k, some);
      if (row && at + k < length) add_up(bits, c, some, UINT64_MAX >> (REGISTER - least(length - at - k, REGISTER)), &errors, &digits);
    }
    for (size_t k = 0; k < TOGETHER && at + k < steps * step && !by_dwords(bits, rows); k += step) {
      const size_t g = (at + k) / step;
      CML_UNROLL for (size_t i = 0; i < stored; i++) {
        uint8_t some[REGISTER];
        memcpy(some, bytes + k + i * part, part);
        if (stored == 3)
          for (size_t b = 0; b < part; b++) some[b] = (uint8_t)(some[b] | (bytes[k + 3 * part + b] >> (2 * i) & 3) << 6);
        const size_t number = bits == 8 ? (g * SETS + s) * stored + i : (g * stored + i) * SETS + s;
        memcpy(to + number * REGISTER + r * part, some, part);
      }
    }
  }
  const double depth = (double)w->depth;
  numbers[0] = row ? (float)((double)c->offset + _mm512_reduce_add_epi32(errors) * c->error_unit / depth) : 0;
  numbers[tables_numbers(rows) / sizeof(float)] = row ? (float)(_mm512_reduce_add_epi32(digits) / depth) : 0;
}

VINLINE void pack_block(const int bits, const size_t rows, const cml_compressed *w, size_t n, char *to) {
  cut_table c[SETS];
  cut_tables(w, n, c);
  memset(to, 0, codes_at(rows, bits));
  write_head(w, c, to);
  float *numbers = (float *)(void *)(to + ROWS_AT);
  const uint8_t *from[SETS * 16];
  const size_t row = w->depth * (size_t)bits / 8;
  for (size_t r = 0; r < SETS * rows; r++) {
    from[r] = n + r < w->columns ? w->codes + (n + r) * w->row_bytes : NULL;
    pack_row(bits, rows, w, from[r], &c[r / rows], r / rows, r % rows, to + codes_at(rows, bits), numbers + r);
  }
  for (size_t s = 0; s < SETS && by_dwords(bits, rows); s++)
    cml_pack_dwords(from + s * rows, row, tables_steps(w), to + codes_at(rows, bits) + s * REGISTER, SETS * REGISTER);
}

VINLINE void pack_rows(const int bits, const cml_compressed *w, size_t n, char *to) {
  const size_t rows = tables_rows(w);
  if (rows == 16) pack_block(bits, 16, w, n, to);
  else if (rows == 4) pack_block(bits, 4, w, n, to);
  else pack_block(bits, 1, w, n, to);
}

void cml_tables_pack(const cml_compressed *w, size_t begin, size_t end, void *to) {
  const size_t rows = SETS * tables_rows(w), block = tables_block(w);
  char *at = (char *)to + begin / rows * block;
  for (size_t n = begin; n < end; n += rows, at += block) switch (w->bits) {
      case 2: pack_rows(2, w, n, at); break;
      case 3: pack_rows(3, w, n, at); break;
      case 4: pack_rows(4, w, n, at); break;
      case 6: pack_rows(6, w, n, at); break;
      default: pack_rows(8, w, n, at); break;
    }
}

size_t cml_tables_bytes(const cml_compressed *w) {
  const size_t rows = SETS * tables_rows(w), length = tables_bytes_of_row(w), whole = tables_steps(w) * tables_step(w);
  if (w->columns < rows || w->depth >= 1 << 18 || whole - length > length / 8) return 0;
  return up(w->columns, rows) / rows * tables_block(w);
}
