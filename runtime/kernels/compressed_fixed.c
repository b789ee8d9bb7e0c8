/* Products of few vectors with compressed weights in fixed point, for AVX-512 with VBMI and VNNI: 64 products of bytes an instruction, where
 * compressed_kernels.c has 16 of floats and must make a float of every code.
 *
 * A vector becomes whole numbers q of 24 bits, x = q * 2^e with one e, each cut into three signed digits to the base of 256, which lie in
 * three planes of bytes. Sums of digits times codes are exact in 32 bits; they become floats once a row or once a block of scales. The
 * largest element is rounded at its 23rd bit or beyond and so are all others, at the same place: as good as a sum of floats unless few
 * elements are far larger than the rest. Such vectors, and those with infinities or NaN, are left to the table's ordinary functions.
 *
 *   int8, int4   codes times digits
 *   palettes     entries too are cut into three digits, looked up as bytes; of the nine products of digits those six are summed that reach
 *                the upper 32 of 48 bits, and the mean of the others is added. Most palettes are packed: compressed_lanes.c,
 *                compressed_pairs.c for 3 bits, and compressed_tables.c for several tables. */
#include "compressed_fixed.h"

/* Rows that are read at once, as far apart as they can be: ROWS of 8 bits, 4 of 4 bits share the loads of digits, and more streams find more of the
 * memory's speed. Palettes' sums leave registers for a pair. */
enum { ROWS = 8, PAIR = 2 };
static cml_kernels ordinary; /* for what is not done here */

/* A group of codes fills a register (or less, with palettes); a step is as many groups as share one scale in each lane. */
typedef struct layout {
  size_t elements; /* of a group */
  size_t groups, per, steps;
  size_t blocks; /* that meet in a step: 1, 2, 4, 8 or 16 */
  int halves;    /* registers of digits a group and plane: 2 for codes of four bits, first the even elements, then the odd ones */
  int bias;      /* what was added to codes to make them unsigned */
} layout;

static bool several_tables(const cml_compressed *w) { return !w->scale && w->bits > 1 && w->table_rows < w->columns; }
static bool in_tables(const cml_compressed *w) { return w->packed && several_tables(w); }
static bool in_pairs(const cml_compressed *w) { return w->packed && !w->scale && w->bits == 3 && !several_tables(w); }
static bool by_digits(const cml_compressed *w) { return w->depth < 1 << 18 && w->bits >= 3; } /* if it is not packed */

static layout lay_out(const cml_compressed *w) {
  layout l = {.elements = w->bits == 4 ? 128 : 64, .blocks = 1, .halves = w->bits == 4 ? 2 : 1};
  l.groups = (w->depth + l.elements - 1) / l.elements;
  l.per = l.groups;
  if (w->scale && w->blocks > 1) {
    l.per = w->block / l.elements ? w->block / l.elements : 1;
    l.blocks = w->block < l.elements ? l.elements / w->block : 1;
  }
  l.steps = (l.groups + l.per - 1) / l.per;
  l.bias = w->scale && !w->is_signed ? 0 : w->scale && w->bits == 4 ? 8 : 128;
  return l;
}

/* Behind the head: the planes, by group, half and plane; what sums of each step and plane begin with; the elements' sums by step. */
typedef struct parts {
  int8_t *digits;
  int32_t *start;
  float *sums;
} parts;

static size_t digit_bytes(const layout *l) { return l->groups * (size_t)l->halves * PLANES * PLANE; }

static parts find_parts(const layout *l, float *arranged) {
  parts p = {.digits = (int8_t *)(arranged + HEAD)};
  p.start = (int32_t *)(void *)(p.digits + digit_bytes(l));
  p.sums = (float *)(p.start + l->steps * PLANES * W);
  return p;
}

static size_t fixed_room(const cml_compressed *w) {
  size_t room = ordinary.compressed_room(w), here = 0;
  if (w->packed) {
    here = w->scale ? cml_scaled_room(w) : in_tables(w) ? cml_tables_room(w) : in_pairs(w) ? cml_pairs_room(w) : cml_lanes_room(w);
  } else if (by_digits(w)) {
    layout l = lay_out(w);
    here = digit_bytes(&l) / 4 + l.steps * (PLANES + 1) * W;
  }
  return HEAD + (room > here ? room : here);
}

/* ---- arranging ---- */

static void arrange_digits(const cml_compressed *w, const float *x, int e, float *arranged) {
  layout l = lay_out(w);
  parts to = find_parts(&l, arranged);
  vi even = vi_iota() * 2, odd = even + 1;
  for (size_t g = 0; g < l.groups; g++) {
    int8_t *d = to.digits + g * (size_t)l.halves * PLANES * PLANE;
    for (size_t i = 0; i < PLANE; i += W) {
      if (l.halves == 1) {
        store_digits(PLANES, 8, scaled_by(load_elements(x, g * l.elements + i, w->depth), e), d + i, PLANE);
        continue;
      }
      vf a = scaled_by(load_elements(x, g * l.elements + 2 * i, w->depth), e), b = scaled_by(load_elements(x, g * l.elements + 2 * i + W, w->depth), e);
      store_digits(PLANES, 8, (vf)_mm512_permutex2var_ps((__m512)a, (__m512i)even, (__m512)b), d + i, PLANE);
      store_digits(PLANES, 8, (vf)_mm512_permutex2var_ps((__m512)a, (__m512i)odd, (__m512)b), d + PLANES * PLANE + i, PLANE);
    }
  }
  const __m512i ones = _mm512_set1_epi8(1);
  for (size_t s = 0; s < l.steps; s++) {
    __m512i sum[PLANES] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    size_t end = (s + 1) * l.per < l.groups ? (s + 1) * l.per : l.groups;
    for (size_t i = s * l.per * (size_t)l.halves * PLANES; i < end * (size_t)l.halves * PLANES; i++)
      sum[i % PLANES] = dpbusd(sum[i % PLANES], ones, _mm512_loadu_si512(to.digits + i * PLANE));
    vi low = (vi)sum[0], middle = (vi)sum[1], high = (vi)sum[2];
    vf_store(to.sums + s * W, vf_from_int(low) + vf_from_int(middle) * 256 + vf_from_int(high) * 65536);
    vi rest = w->scale ? vi_set1(0) : (low + middle) >> 1; /* 2^-8 of the products left out: digits that are 127.5 in the mean */
    vi first[PLANES] = {rest - low * l.bias, middle * -l.bias, high * -l.bias};
    memcpy(to.start + s * PLANES * W, first, sizeof first);
  }
}

/* A vector times packed codes of all forms but three bits, or times others. */
static fixed_head arrange_by_digits(const cml_compressed *w, const float *x, float *arranged) {
  vf all = vf_zero(), size = vf_zero(), large = vf_zero();
  for (size_t i = 0; i < w->depth; i += W) {
    vf v = load_elements(x, i, w->depth);
    all += v, size += vf_abs(v);
    large = vf_max(large, vf_abs(v));
  }
  double total = (double)vf_sum(size), largest = (double)vf_hmax(large);
  const bool lanes = w->packed && !w->scale && !in_tables(w);
  double bound = lanes ? cml_lanes_bound(w, x, largest) : largest; /* of what is cut into digits */
  fixed_head head = {.sum = vf_sum(all)};
  bool fixed = (w->packed || by_digits(w)) && bound <= 1e37 && digits_suffice(total, largest, (double)w->depth);
  if (fixed) head.planes = lanes ? cml_lanes_planes(w, x, largest) : PLANES;
  if (in_tables(w) && fixed) {
    cml_tables_arrange(w, x, largest, &head, arranged + HEAD);
  } else if (lanes && fixed) {
    head.unit = cml_lanes_arrange(w, x, head.planes, bound, arranged + HEAD);
  } else if (fixed) {
    int e = digits_exponent(bound, head.planes);
    head.unit = ldexp(1, -e);
    if (w->packed) cml_scaled_arrange(w, x, e, arranged + HEAD);
    else arrange_digits(w, x, e, arranged);
  }
  return head;
}

static void fixed_arrange(const cml_compressed *w, const float *x, float *arranged) {
  fixed_head head = {0};
  if (in_pairs(w)) head.planes = cml_pairs_arrange(w, x, arranged + HEAD, &head.sum);
  else head = arrange_by_digits(w, x, arranged);
  if (!head.planes) ordinary.compressed_arrange(w, x, arranged + HEAD);
  memcpy(arranged, &head, sizeof head);
}

/* ---- codes with scales ---- */

/* The bytes of a group that lie in its row: `left` are left from its beginning. */
VINLINE __mmask64 code_mask(size_t left, size_t bytes) { return UINT64_MAX >> (64 - (left < bytes ? left : bytes)); }

/* Masked only where it must be: such loads do not seem to set off the prefetchers, and halved the speed. What lies `ahead` is asked for into the
 * second-level cache, and what lies near into the first (why: all_rows in gemm_kernels.c). */
VINLINE __m512i load_codes(const uint8_t *p, size_t ahead, const bool masked, __mmask64 mask) {
  _mm_prefetch((const char *)p + ahead, _MM_HINT_T1);
  _mm_prefetch((const char *)p + NEAR, _MM_HINT_T0);
  return masked ? _mm512_maskz_loadu_epi8(mask, p) : _mm512_loadu_si512(p);
}

/* The codes of a register without their sign, a byte each: half 0, the only one of 8 bits, or half 1 of 4 bits. */
VINLINE __m512i unpack(__m512i codes, const int bits, const int half, __m512i flip) {
  if (bits == 8) return _mm512_xor_si512(codes, flip);
  return _mm512_ternarylogic_epi32(half ? _mm512_srli_epi16(codes, 4) : codes, _mm512_set1_epi8(15), flip, 0x6a); /* (codes & 15) ^ flip */
}

/* The same of one group, whose sums are small: less by a conversion or two. */
VINLINE vf join_few(const __m512i *acc, const int bits) {
  vi high = ((vi)acc[2] << 8) + (vi)acc[1];
  return bits == 4 ? vf_from_int((high << 8) + (vi)acc[0]) : vf_fma(vf_from_int(high), vf_set1(256), vf_from_int((vi)acc[0]));
}

/* Rows that are worked on together: where their codes lie, their sums so far, and the scales and offsets of 16 blocks. */
typedef struct affine {
  const uint8_t *codes;
  size_t distance, left; /* bytes from row to row; of a row from `codes` on */
  vf total[ROWS], scales[ROWS], offsets[ROWS];
} affine;

/* Adds step s of R rows: `groups` groups, which share their scales: those of lanes `lane`. single: one group. */
VINLINE void affine_step(const int R, const int bits, const bool offset, const bool single, const bool masked, const parts *x, size_t s,
                         const int8_t *digits, size_t groups, vi lane, __m512i flip, affine *a) {
  const bool together = single || R > PAIR; /* halves' sums have chains of their own where there are many groups and few rows */
  __m512i acc[ROWS][2][PLANES];
  CML_UNROLL for (int r = 0; r < R; r++) {
    CML_UNROLL for (int p = 0; p < PLANES; p++) acc[r][0][p] = _mm512_loadu_si512(x->start + (s * PLANES + (size_t)p) * W), acc[r][1][p] = _mm512_setzero_si512();
  }
  do {
    __mmask64 mask = masked ? code_mask(a->left, 64) : 0;
    __m512i u[ROWS];
    CML_UNROLL for (int r = 0; r < R; r++) u[r] = load_codes(a->codes + (size_t)r * a->distance, AHEAD / 2, masked, mask);
    CML_UNROLL for (int h = 0; h < 8 / bits; h++) {
      CML_UNROLL for (int r = 0; r < R; r++) {
        __m512i half = unpack(u[r], bits, h, flip), *to = acc[r][together ? 0 : h];
        CML_UNROLL for (size_t p = 0; p < PLANES; p++) to[p] = dpbusd(to[p], half, load_plane(digits, (size_t)h * PLANES + p));
      }
    }
    a->codes += 64, a->left -= 64, digits += 8 / bits * PLANES * PLANE;
  } while (!single && --groups);
  CML_UNROLL for (int r = 0; r < R; r++) {
    if (bits == 4 && !together) {
      CML_UNROLL for (int p = 0; p < PLANES; p++) acc[r][0][p] = _mm512_add_epi32(acc[r][0][p], acc[r][1][p]);
    }
    vf f = single ? join_few(acc[r][0], bits) : join_digits(PLANES, 8, acc[r][0]);
    if (offset) f -= vf_permute(a->offsets[r], lane) * vf_load(x->sums + s * W);
    a->total[r] = vf_fma(f, vf_permute(a->scales[r], lane), a->total[r]);
  }
}

VINLINE void affine_rows(const int R, const int bits, const bool offset, const bool single, const cml_compressed *w, const layout *l,
                         const parts *x, size_t n, size_t apart, float *sum) {
  const size_t row_bytes = w->depth * (size_t)bits / 8, whole = row_bytes / 64, per = single ? 1 : l->per, groups = l->groups, blocks = l->blocks;
  const size_t group = (size_t)(8 / bits) * PLANES * PLANE, scale_bytes = w->scale_half ? 2 : 4;
  const __m512i flip = _mm512_set1_epi8((char)l->bias);
  affine a = {.codes = w->codes + n * w->row_bytes, .distance = apart * w->row_bytes, .left = row_bytes};
  size_t at[ROWS];
  CML_UNROLL for (int r = 0; r < R; r++) at[r] = (n + (size_t)r * apart) / w->scale_rows * w->blocks;
  for (size_t s = 0, g = 0, b = 0; g < groups; b += W) { /* 16 blocks after 16 blocks */
    CML_UNROLL for (int r = 0; r < R; r++) {
      a.scales[r] = load_scales(w->scale, w->scale_half, at[r] + b, w->blocks - b);
      _mm_prefetch((const char *)w->scale + (at[r] + b) * scale_bytes + AHEAD / R / 8, _MM_HINT_T1);
      if (offset) a.offsets[r] = load_scales(w->offset, w->scale_half, at[r] + b, w->blocks - b);
    }
    vi lane = vi_iota() * (int)blocks >> 4;
    for (size_t i = 0; i < W && g < groups; i += blocks, s++, g += per, lane += (int)blocks) {
      const int8_t *digits = x->digits + g * group;
      if (g + per <= whole) affine_step(R, bits, offset, single, false, x, s, digits, per, lane, flip, &a);
      else affine_step(R, bits, offset, single, true, x, s, digits, groups - g < per ? groups - g : per, lane, flip, &a);
    }
  }
  CML_UNROLL for (int r = 0; r < R; r++) sum[r] = vf_sum(a.total[r]);
}

/* ---- palettes ---- */

VINLINE __m512i entry_digit(const __m512i *table, __m512i code, const int bits) {
  if (bits < 8) return _mm512_permutexvar_epi8(code, table[0]);
  return look_up_halves(code, table);
}

/* Six sums, so that none waits for another: acc[3] is a part of acc[1], acc[4] and acc[5] are parts of acc[0]. */
VINLINE void add_products(__m512i *acc, __m512i code, const int bits, __m512i table[PLANES][4], const int8_t *x) {
  __m512i t2 = entry_digit(table[2], code, bits), t1 = entry_digit(table[1], code, bits), t0 = entry_digit(table[0], code, bits);
  acc[2] = dpbusd(acc[2], t2, load_plane(x, 2));
  acc[1] = dpbusd(acc[1], t2, load_plane(x, 1));
  acc[0] = dpbusd(acc[0], t2, load_plane(x, 0));
  acc[3] = dpbusd(acc[3], t1, load_plane(x, 2));
  acc[4] = dpbusd(acc[4], t1, load_plane(x, 1));
  acc[5] = dpbusd(acc[5], t0, load_plane(x, 2));
}

VINLINE void palette_group(const int R, const int bits, const bool masked, const uint8_t *codes, size_t distance, __mmask64 mask, __m512i spread,
                           __m512i shifts, __m512i table[PLANES][4], const int8_t *digits, __m512i acc[ROWS][6]) {
  CML_UNROLL for (int r = 0; r < R; r++) {
    __m512i code = load_codes(codes + (size_t)r * distance, AHEAD / R, masked, mask);
    if (bits == 3 || bits == 6) code = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(spread, code));
    add_products(acc[r], code, bits, table, digits);
    if (bits == 4) add_products(acc[r], _mm512_srli_epi16(code, 4), bits, table, digits + PLANES * PLANE);
  }
}

VINLINE void palette_rows(const int R, const int bits, const cml_compressed *w, const layout *l, const parts *x, size_t n, size_t apart,
                          uint8_t palette[PLANES][256], float *sum) {
  const size_t row_bytes = w->depth * (size_t)bits / 8, distance = apart * w->row_bytes, bytes = bits == 4 ? 64 : 8 * (size_t)bits, groups = l->groups;
  const size_t digits = (bits == 4 ? 2 : 1) * PLANES * PLANE;
  const uint8_t *codes = w->codes + n * w->row_bytes;
  __m512i table[PLANES][4], acc[ROWS][6];
  CML_UNROLL for (int p = 0; p < PLANES; p++) {
    CML_UNROLL for (int i = 0; i < 4; i++) table[p][i] = _mm512_loadu_si512(palette[p] + 64 * (bits == 8 ? i : 0));
  }
  /* Codes of 3 and 6 bits: the 8 of a qword come from its lowest bytes, each to a byte of its own, below bits of the next code. */
  const __m512i eighth = _mm512_set1_epi64(0x0706050403020100);
  const __m512i qword = _mm512_mullo_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(bits * INT64_C(0x0101010101010101)));
  const __m512i spread = _mm512_add_epi8(eighth, qword);
  const __m512i shifts = _mm512_set1_epi64(bits == 3 ? 0x15120f0c09060300 : 0x2a241e18120c0600);
  CML_UNROLL for (int r = 0; r < R; r++) {
    CML_UNROLL for (int p = 0; p < PLANES; p++) acc[r][p] = _mm512_loadu_si512(x->start + p * W);
    CML_UNROLL for (int p = PLANES; p < 6; p++) acc[r][p] = _mm512_setzero_si512();
  }
  const size_t whole = row_bytes < 64 ? 0 : (row_bytes - 64) / bytes + 1; /* groups behind which 64 bytes can be read */
  size_t g = 0;
  for (; g < whole; g++) palette_group(R, bits, false, codes + g * bytes, distance, 0, spread, shifts, table, x->digits + g * digits, acc);
  for (; g < groups; g++)
    palette_group(R, bits, true, codes + g * bytes, distance, code_mask(row_bytes - g * bytes, bytes), spread, shifts, table, x->digits + g * digits, acc);
  CML_UNROLL for (int r = 0; r < R; r++) {
    acc[r][0] = _mm512_add_epi32(acc[r][0], _mm512_add_epi32(acc[r][4], acc[r][5]));
    acc[r][1] = _mm512_add_epi32(acc[r][1], acc[r][3]);
    sum[r] = vf_sum(join_digits(PLANES, 8, acc[r]));
  }
}

/* ---- all ---- */

typedef void rows_function(const cml_compressed *w, const layout *l, const parts *x, size_t n, size_t apart, uint8_t palette[PLANES][256], float *sum);

#define ROWS_FUNCTION(name, call)                                                                                                       \
  static void name(const cml_compressed *w, const layout *l, const parts *x, size_t n, size_t apart, uint8_t palette[PLANES][256], float *sum) {     \
    (void)palette;                                                                                                                      \
    call;                                                                                                                               \
  }

#define AFFINE(suffix, R, single_R, bits)                                                                     \
  ROWS_FUNCTION(affine_##bits##_##suffix, affine_rows(R, bits, false, false, w, l, x, n, apart, sum))         \
  ROWS_FUNCTION(offset_##bits##_##suffix, affine_rows(R, bits, true, false, w, l, x, n, apart, sum))          \
  ROWS_FUNCTION(affine_few_##bits##_##suffix, affine_rows(single_R, bits, false, true, w, l, x, n, apart, sum)) \
  ROWS_FUNCTION(offset_few_##bits##_##suffix, affine_rows(single_R, bits, true, true, w, l, x, n, apart, sum))
#define PALETTE(suffix, R, bits) ROWS_FUNCTION(palette_##bits##_##suffix, palette_rows(R, bits, w, l, x, n, apart, palette, sum))

AFFINE(many, ROWS, 4, 8)
AFFINE(1, 1, 1, 8)
AFFINE(many, 4, 4, 4)
AFFINE(1, 1, 1, 4)
PALETTE(many, PAIR, 3)
PALETTE(1, 1, 3)
PALETTE(many, PAIR, 4)
PALETTE(1, 1, 4)
PALETTE(many, PAIR, 6)
PALETTE(1, 1, 6)
PALETTE(many, PAIR, 8)
PALETTE(1, 1, 8)

static bool alone(const cml_compressed *w, const layout *l) { return w->scale && l->per == 1; }

static rows_function *choose_affine(const cml_compressed *w, bool few, bool many) {
  if (w->bits == 8 && few) return w->offset ? (many ? offset_few_8_many : offset_few_8_1) : (many ? affine_few_8_many : affine_few_8_1);
  if (w->bits == 8) return w->offset ? (many ? offset_8_many : offset_8_1) : (many ? affine_8_many : affine_8_1);
  if (few) return w->offset ? (many ? offset_few_4_many : offset_few_4_1) : (many ? affine_few_4_many : affine_few_4_1);
  return w->offset ? (many ? offset_4_many : offset_4_1) : (many ? affine_4_many : affine_4_1);
}

static rows_function *choose(const cml_compressed *w, const layout *l, bool many) {
  if (w->scale) return choose_affine(w, alone(w, l), many);
  switch (w->bits) {
    case 3: return many ? palette_3_many : palette_3_1;
    case 4: return many ? palette_4_many : palette_4_1;
    case 6: return many ? palette_6_many : palette_6_1;
    default: return many ? palette_8_many : palette_8_1;
  }
}

static void product_by_digits(const cml_compressed *w, size_t begin, size_t end, float *x, const fixed_head *head, float *y) {
  layout l = lay_out(w);
  parts from = find_parts(&l, x);
  rows_function *many = choose(w, &l, true), *one = choose(w, &l, false);
  uint8_t palette[PLANES][256];
  double unit = head->unit;
  size_t rows = !w->scale ? PAIR : w->bits == 8 && !alone(w, &l) ? ROWS : 4;
  for (size_t n = begin, last; n < end; n = last) {
    last = w->scale ? end : (n / w->table_rows + 1) * w->table_rows; /* of the rows that share a palette */
    if (last > end) last = end;
    if (!w->scale) unit = 65536 * head->unit * cut_palette(w, n, PLANES, 1, palette);
    float sums[ROWS];
    size_t apart = (last - n) / rows;
    for (size_t i = 0; i < apart; i++) {
      many(w, &l, &from, n + i, apart, palette, sums);
      for (size_t r = 0; r < rows; r++) y[n + i + r * apart] = (float)((double)sums[r] * unit);
    }
    for (n += rows * apart; n < last; n++) {
      one(w, &l, &from, n, 1, palette, sums);
      y[n] = (float)((double)sums[0] * unit);
    }
  }
}

/* Neighbouring vectors in fixed point, of `left`, that are multiplied at once. */
static size_t together(const cml_compressed *w, const float *x, size_t room, size_t left) {
  size_t n = 0;
  if (!w->packed || !(w->scale || in_pairs(w))) return 1;
  for (fixed_head head; n < left && n < MOST_TOGETHER; n++) {
    memcpy(&head, x + n * room, sizeof head);
    if (!head.planes) break;
  }
  return n == MOST_TOGETHER ? MOST_TOGETHER : n > 1 ? 2 : 1;
}

static void multiply(const cml_compressed *w, bool quarters, size_t begin, size_t end, const float *x, size_t room, size_t vectors, float *y, size_t y_stride) {
  fixed_head heads[4];
  float *from[4];
  double units[4];
  for (size_t v = 0; v < vectors; v++) {
    memcpy(&heads[v], x + v * room, sizeof *heads);
    from[v] = (float *)(uintptr_t)x + v * room + HEAD;
    units[v] = heads[v].unit;
  }
  if (!heads->planes) ordinary.compressed_product(w, begin, end, from[0], 1, y, y_stride);
  else if (w->packed && w->scale) cml_scaled_product(w, begin, end, from, units, vectors, y, y_stride);
  else if (in_pairs(w)) cml_pairs_product(w, begin, end, from, heads, vectors, y, y_stride);
  else if (in_tables(w)) cml_tables_product(w, quarters, begin, end, from[0], heads, y);
  else if (w->packed) cml_lanes_product(w, quarters, begin, end, from[0], heads, y);
  else product_by_digits(w, begin, end, (float *)(uintptr_t)x, heads, y);
}

/* Rows in portions that stay in the cache while one vector comes after the other. */
static void product_in_portions(const cml_compressed *w, bool quarters, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride) {
  size_t room = fixed_room(w), portion = end - begin, row_bytes = w->depth * w->bits / 8;
  if (vectors > 1 && row_bytes && !in_pairs(w)) portion = ((128 << 10) / row_bytes + CML_COMPRESSED_ROWS) / CML_COMPRESSED_ROWS * CML_COMPRESSED_ROWS;
  for (size_t n = begin; n < end; n += portion)
    for (size_t v = 0, many; v < vectors; v += many) {
      size_t last = end - n < portion ? end : n + portion;
      many = together(w, x + v * room, room, vectors - v);
      multiply(w, quarters, n, last, x + v * room, room, many, y + v * y_stride, y_stride);
    }
}

static void fixed_product(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride) {
  product_in_portions(w, false, begin, end, x, vectors, y, y_stride);
}

static void fixed_product_by_quarters(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride) {
  product_in_portions(w, true, begin, end, x, vectors, y, y_stride);
}

static size_t fixed_bytes(const cml_compressed *w) {
  if (several_tables(w)) return cml_tables_bytes(w);
  return w->scale ? cml_scaled_bytes(w) : w->bits == 3 ? cml_pairs_bytes(w) : cml_lanes_bytes(w);
}

static size_t fixed_depth(const cml_compressed *w) {
  const bool sums = !w->scale && w->bits <= 4 && !several_tables(w); /* are looked up */
  return sums && fixed_bytes(w) ? part_depth(w->depth) : w->depth;
}

static void fixed_pack(const cml_compressed *w, size_t begin, size_t end, void *to) {
  if (w->scale) cml_scaled_pack(w, begin, end, to);
  else if (several_tables(w)) cml_tables_pack(w, begin, end, to);
  else if (w->bits == 3) cml_pairs_pack(w, begin, end, to);
  else cml_lanes_pack(w, begin, end, to);
}

void cml_fill_compressed_avx512vbmi(cml_kernels *k) {
  cml_fill_compressed_avx512(&ordinary);
  k->compressed_depth = fixed_depth;
  k->compressed_bytes = fixed_bytes;
  k->compressed_pack = fixed_pack;
  k->compressed_room = fixed_room;
  k->compressed_arrange = fixed_arrange;
  k->compressed_product = fixed_product;
}

void cml_fill_quarters_avx512vbmi(cml_kernels *k) {
  if (k->compressed_product == fixed_product) k->compressed_product = fixed_product_by_quarters;
}
