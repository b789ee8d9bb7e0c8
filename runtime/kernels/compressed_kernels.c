/* Products of few vectors with compressed weights, which are expanded in registers and never stored.
 *
 * A row of weights is read in words of 32 bits, one a lane, each of which holds `c` neighbouring codes (24 bits of three bytes
 * where codes are of 3 or 6 bits): shift j brings the j-th code of every lane to the bottom. Lane l of shift j is thus element
 * l * c + j of the group of W * c, and the vectors are brought into that order once (cml_compressed_arrange), so that weights
 * need no rearranging. Codes become floats by conversion, or by a table: up to 16 entries in one register, 64 in four.
 * Scales apply to a lane's sum over a group, whose elements share a block. */
#include "kernels_internal.h"
#include "simd.h"

#if defined(__AVX512F__)
#define TABLE_REGISTERS 4
#elif defined(__AVX2__)
#define TABLE_REGISTERS 2
#else
#define TABLE_REGISTERS 0
#endif

typedef struct palette {
#if TABLE_REGISTERS
  vf r[TABLE_REGISTERS];
#endif
  const float *memory;
} palette;

VINLINE palette palette_load(const float *table, int bits) {
  palette t = {.memory = table};
#if TABLE_REGISTERS
  int n = bits == 6 && TABLE_REGISTERS * W >= 64 ? 4 : TABLE_REGISTERS < 16 / W ? TABLE_REGISTERS : 16 / W;
  CML_UNROLL for (int i = 0; i < n && table; i++) t.r[i] = vf_load(table + i * W);
#endif
  (void)bits;
  return t;
}

/* The entries of codes whose lowest `bits` count. */
VINLINE vf look_up(const palette *t, vi code, int bits) {
#if defined(__AVX512F__)
  if (bits <= 4) return (vf)_mm512_permutexvar_ps((__m512i)code, (__m512)t->r[0]);
  if (bits == 6) {
    __m512 low = _mm512_permutex2var_ps((__m512)t->r[0], (__m512i)code, (__m512)t->r[1]);
    __m512 high = _mm512_permutex2var_ps((__m512)t->r[2], (__m512i)code, (__m512)t->r[3]);
    return (vf)_mm512_mask_mov_ps(low, _mm512_test_epi32_mask((__m512i)code, _mm512_set1_epi32(32)), high);
  }
  return (vf)_mm512_i32gather_ps((__m512i)(code & 255), t->memory, 4);
#elif defined(__AVX2__)
  if (bits <= 3) return (vf)_mm256_permutevar8x32_ps((__m256)t->r[0], (__m256i)code);
  if (bits == 4) {
    __m256 low = _mm256_permutevar8x32_ps((__m256)t->r[0], (__m256i)code), high = _mm256_permutevar8x32_ps((__m256)t->r[1], (__m256i)code);
    return (vf)_mm256_blendv_ps(low, high, (__m256)(code << 28));
  }
  return (vf)_mm256_i32gather_ps(t->memory, (__m256i)(code & ((1 << bits) - 1)), 4);
#else
  vf x;
  code &= (1 << bits) - 1;
  for (int i = 0; i < W; i++) x[i] = t->memory[code[i]];
  return x;
#endif
}

VINLINE int codes_in_lane(int bits) { return bits == 3 ? 8 : bits == 6 ? 4 : 32 / bits; }

/* A group's words: W of 4 bytes, or of 3. */
VINLINE vi load_words(const uint8_t *p, int bits) {
  vi x;
  if (bits != 3 && bits != 6) {
    memcpy(&x, p, sizeof x);
    return x;
  }
#if defined(__AVX512F__)
  const __m512i spread = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
  return (vi)_mm512_shuffle_epi8(_mm512_permutexvar_epi32(spread, _mm512_maskz_loadu_epi32(0xfff, p)), bytes);
#elif defined(__AVX2__)
  const __m128i bytes = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1), three = _mm_setr_epi32(-1, -1, -1, 0);
  __m128i a = _mm_maskload_epi32((const int *)(const void *)p, three), b = _mm_maskload_epi32((const int *)(const void *)(p + 12), three);
  return (vi)_mm256_set_m128i(_mm_shuffle_epi8(b, bytes), _mm_shuffle_epi8(a, bytes));
#else
  for (int i = 0; i < W; i++) x[i] = p[3 * i] | p[3 * i + 1] << 8 | p[3 * i + 2] << 16;
  return x;
#endif
}

enum { DECODE_TABLE, DECODE_SIGNED, DECODE_UNSIGNED };

VINLINE vf decode(vi word, int j, const int bits, const int mode, const palette *t) {
  if (mode == DECODE_SIGNED) return vf_from_int((word << (32 - bits - j * bits)) >> (32 - bits));
  vi code = (vi)((vu)word >> (unsigned)(j * bits));
  return mode == DECODE_UNSIGNED ? vf_from_int(code & ((1 << bits) - 1)) : look_up(t, code, bits);
}

VINLINE float scale_at(const void *s, bool half, size_t i) { return half ? cml_f16_to_f32(((const cml_f16 *)s)[i]) : ((const float *)s)[i]; }

/* How blocks and groups lie to one another, worked out once: divisions cost more than a group's product. */
typedef struct lane_map {
  vi block;      /* of each lane's codes, counted from the group's first, where several meet in a group */
  size_t blocks; /* in a group; 0: a block is `groups` groups or more */
  uint32_t groups;
} lane_map;

VINLINE lane_map map_lanes(const cml_compressed *w, size_t elements, int c) {
  lane_map l = {.blocks = elements / w->block, .groups = (uint32_t)(w->block / elements)};
  for (int i = 0; i < W; i++) l.block[i] = (int)((size_t)(i * c) / w->block);
  if (l.groups) l.blocks = 0;
  return l;
}

/* Each lane's scale: of the block that its codes lie in, from the group's first one on. */
VINLINE vf lane_scales(const cml_compressed *w, const void *row, size_t first, const lane_map *l) {
  if (!l->blocks) return vf_set1(scale_at(row, w->scale_half, first));
  const cml_f16 *half = (const cml_f16 *)row + first;
  const float *whole = (const float *)row + first;
  size_t left = w->blocks - first; /* a whole vector, where there is one, is loaded faster than its beginning */
  vf s, x;
  if (left >= W) s = w->scale_half ? vh_load(half) : vf_load(whole);
  else s = w->scale_half ? vh_load_n(half, left) : vf_load_n(whole, left);
#if defined(__AVX512F__)
  x = (vf)_mm512_permutexvar_ps((__m512i)l->block, (__m512)s);
#elif defined(__AVX2__)
  x = (vf)_mm256_permutevar8x32_ps((__m256)s, (__m256i)l->block);
#else
  for (int i = 0; i < W; i++) x[i] = s[l->block[i]];
#endif
  return x;
}

#if defined(__AVX2__)
VINLINE void add_entry(__m128 *sum, __m128 x, const float *entry) {
  __asm__("vfmadd231ss %2, %1, %0" : "+x"(*sum) : "x"(x), "m"(*entry));
}

/* R rows times a vector, entry by entry: two loads, of the code and the entry, and a multiplication, which gathers take three times as long for. */
VINLINE void entry_product(const int R, const int bits, const cml_compressed *w, size_t n, size_t apart, const float *x, float *y) {
  enum { LANE = 4, FLUSH = 2 }; /* codes; groups, whose sums are added to the others at once: a large element costs few others precision */
  const size_t elements = (size_t)LANE * W, bytes = elements * (size_t)bits / 8, row_bytes = w->depth * (size_t)bits / 8, groups = (w->depth + elements - 1) / elements;
  const float *table = w->table + n / w->table_rows * w->table_size;
  __asm__("" : "+r"(table)); /* or each entry's place is computed in two steps */
  float total[4] = {0};
  for (size_t from = 0; from < groups; from += FLUSH) {
    __m128 sums[4][2] = {{{0}}};
    for (size_t g = from; g < groups && g < from + FLUSH; g++, x += elements) {
      const bool whole = (g + 1) * bytes < row_bytes; /* with a byte behind it */
      const uint8_t *codes[4];
      uint8_t copies[4][2 * sizeof(vi)];
      CML_UNROLL for (int r = 0; r < R; r++) {
        codes[r] = w->codes + (n + (size_t)r * apart) * w->row_bytes + g * bytes;
        if (whole) continue;
        memset(copies[r], 0, sizeof *copies);
        memcpy(copies[r], codes[r], row_bytes - g * bytes);
        codes[r] = copies[r];
      }
      for (size_t l = 0; l < W; l++) {
        uint32_t word[4];
        CML_UNROLL for (int r = 0; r < R; r++) memcpy(&word[r], codes[r] + l * (size_t)bits / 2, sizeof *word);
        CML_UNROLL for (int j = 0; j < LANE; j++) {
          const __m128 element = _mm_load_ss(x + j * W + l);
          CML_UNROLL for (int r = 0; r < R; r++) add_entry(&sums[r][j & 1], element, table + (word[r] >> (j * bits) & ((1u << bits) - 1)));
        }
      }
    }
    CML_UNROLL for (int r = 0; r < R; r++) total[r] += _mm_cvtss_f32(sums[r][0]) + _mm_cvtss_f32(sums[r][1]);
  }
  CML_UNROLL for (int r = 0; r < R; r++) y[n + (size_t)r * apart] = total[r];
}
#endif

/* R rows of the weights from n, `apart` from one another, times M vectors. */
VINLINE void product(const int R, const int M, const int bits, const int mode, const bool scaled, const cml_compressed *w, size_t n, size_t apart,
                     const float *x, size_t x_stride, const float *sums, size_t sums_stride, float *y, size_t y_stride) {
#if defined(__AVX2__)
  if (M == 1 && mode == DECODE_TABLE && (bits == 8 || (bits == 6 && W < 16))) {
    entry_product(R, bits, w, n, apart, x, y);
    return;
  }
#endif
  const int c = codes_in_lane(bits);
  const size_t elements = (size_t)c * W, bytes = elements * (size_t)bits / 8, row_bytes = w->depth * (size_t)bits / 8;
  const size_t groups = (w->depth + elements - 1) / elements, scale_bytes = w->scale_half ? 2 : 4;
  const palette t = palette_load(mode == DECODE_TABLE ? w->table + n / w->table_rows * w->table_size : NULL, bits);
  const lane_map lanes = scaled ? map_lanes(w, elements, c) : (lane_map){.blocks = 0};
  size_t scale_rows[4] = {0}, first = 0, rest = lanes.groups; /* where rows' scales lie; the group's first block, and its groups to come */
  CML_UNROLL for (int r = 0; r < R && scaled; r++) scale_rows[r] = (n + (size_t)r * apart) / w->scale_rows * w->blocks * scale_bytes;
  vf acc[4][4][2] = {{{{0}}}};
  for (size_t g = 0; g < groups; g++) {
    bool whole = (g + 1) * bytes <= row_bytes;
    CML_UNROLL for (int r = 0; r < R; r++) {
      const uint8_t *p = w->codes + (n + (size_t)r * apart) * w->row_bytes + g * bytes;
      vi word;
      if (whole) {
        word = load_words(p, bits);
      } else {
        uint8_t some[sizeof(vi)] = {0};
        memcpy(some, p, row_bytes - g * bytes);
        word = load_words(some, bits);
      }
      vf part[4][2] = {{{0}}};
      CML_UNROLL for (int j = 0; j < c; j++) {
        vf v = decode(word, j, bits, mode, &t);
        CML_UNROLL for (int m = 0; m < M; m++) {
          vf xv = vf_load(x + (size_t)m * x_stride + g * elements + (size_t)j * W);
          if (scaled) part[m][j & 1] = vf_fma(v, xv, part[m][j & 1]);
          else acc[r][m][j & 1] = vf_fma(v, xv, acc[r][m][j & 1]);
        }
      }
      if (!scaled) continue;
      vf s = lane_scales(w, (const char *)w->scale + scale_rows[r], first, &lanes);
      CML_UNROLL for (int m = 0; m < M; m++) {
        vf sum = part[m][0] + part[m][1];
        if (w->offset) sum -= lane_scales(w, (const char *)w->offset + scale_rows[r], first, &lanes) * vf_load(sums + (size_t)m * sums_stride + g * W);
        acc[r][m][0] = vf_fma(sum, s, acc[r][m][0]);
      }
    }
    if (lanes.blocks) first += lanes.blocks;
    else if (--rest == 0) first++, rest = lanes.groups;
  }
  CML_UNROLL for (int r = 0; r < R; r++)
    CML_UNROLL for (int m = 0; m < M; m++) y[(size_t)m * y_stride + n + (size_t)r * apart] = vf_sum(acc[r][m][0] + acc[r][m][1]);
}

typedef void product_function(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t x_stride, const float *sums,
                              size_t sums_stride, float *y, size_t y_stride);

/* Four rows at once where they share a palette, far apart: prefetchers follow few long streams better than many short rows. */
VINLINE void all_rows(const int M, const int bits, const int mode, const bool scaled, const cml_compressed *w, size_t begin, size_t end,
                      const float *x, size_t x_stride, const float *sums, size_t sums_stride, float *y, size_t y_stride) {
  enum { FEW = 2 };
  const int R = M == 1 ? 4 : FEW;
  for (size_t n = begin, last; n < end; n = last) {
    last = mode == DECODE_TABLE ? (n / w->table_rows + 1) * w->table_rows : end;
    if (last > end) last = end;
    size_t apart = (last - n) / (size_t)R;
    for (size_t i = 0; i < apart; i++) product(R, M, bits, mode, scaled, w, n + i, apart, x, x_stride, sums, sums_stride, y, y_stride);
    for (n += (size_t)R * apart; n < last; n++) product(1, M, bits, mode, scaled, w, n, 1, x, x_stride, sums, sums_stride, y, y_stride);
  }
}

#define PRODUCT(name, bits, mode, scaled)                                                                                       \
  static void name##_1(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t x_stride, const float *sums,   \
                       size_t sums_stride, float *y, size_t y_stride) {                                                         \
    all_rows(1, bits, mode, scaled, w, begin, end, x, x_stride, sums, sums_stride, y, y_stride);                                \
  }                                                                                                                             \
  static void name##_4(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t x_stride, const float *sums,   \
                       size_t sums_stride, float *y, size_t y_stride) {                                                         \
    all_rows(4, bits, mode, scaled, w, begin, end, x, x_stride, sums, sums_stride, y, y_stride);                                \
  }

PRODUCT(palette_1, 1, DECODE_TABLE, false)
PRODUCT(palette_2, 2, DECODE_TABLE, false)
PRODUCT(palette_3, 3, DECODE_TABLE, false)
PRODUCT(palette_4, 4, DECODE_TABLE, false)
PRODUCT(palette_6, 6, DECODE_TABLE, false)
PRODUCT(palette_8, 8, DECODE_TABLE, false)
PRODUCT(row_signed_8, 8, DECODE_SIGNED, false)
PRODUCT(row_unsigned_8, 8, DECODE_UNSIGNED, false)
#if defined(__AVX512F__)
#define row_signed_4_1 palette_4_1
#define row_signed_4_4 palette_4_4
#define row_unsigned_4_1 palette_4_1
#define row_unsigned_4_4 palette_4_4
PRODUCT(four, 4, DECODE_TABLE, true) /* a permutation for a code is less than a mask and a conversion */
#define signed_4_1 four_1
#define signed_4_4 four_4
#define unsigned_4_1 four_1
#define unsigned_4_4 four_4
#else
PRODUCT(row_signed_4, 4, DECODE_SIGNED, false)
PRODUCT(row_unsigned_4, 4, DECODE_UNSIGNED, false)
PRODUCT(signed_4, 4, DECODE_SIGNED, true)
PRODUCT(unsigned_4, 4, DECODE_UNSIGNED, true)
#endif
PRODUCT(signed_8, 8, DECODE_SIGNED, true)
PRODUCT(unsigned_8, 8, DECODE_UNSIGNED, true)

static product_function *choose(const cml_compressed *w, bool four) {
  if (w->scale && w->blocks == 1) {
    if (w->bits == 4) return w->is_signed ? (four ? row_signed_4_4 : row_signed_4_1) : (four ? row_unsigned_4_4 : row_unsigned_4_1);
    return w->is_signed ? (four ? row_signed_8_4 : row_signed_8_1) : (four ? row_unsigned_8_4 : row_unsigned_8_1);
  }
  if (w->scale) {
    if (w->bits == 4) return w->is_signed ? (four ? signed_4_4 : signed_4_1) : (four ? unsigned_4_4 : unsigned_4_1);
    return w->is_signed ? (four ? signed_8_4 : signed_8_1) : (four ? unsigned_8_4 : unsigned_8_1);
  }
  switch (w->bits) {
    case 1: return four ? palette_1_4 : palette_1_1;
    case 2: return four ? palette_2_4 : palette_2_1;
    case 3: return four ? palette_3_4 : palette_3_1;
    case 4: return four ? palette_4_4 : palette_4_1;
    case 6: return four ? palette_6_4 : palette_6_1;
    default: return four ? palette_8_4 : palette_8_1;
  }
}

static size_t group_elements(const cml_compressed *w) { return (size_t)codes_in_lane((int)w->bits) * W; }

static size_t compressed_room(const cml_compressed *w) {
  size_t groups = (w->depth + group_elements(w) - 1) / group_elements(w);
  return groups * (group_elements(w) + W);
}

static void compressed_arrange(const cml_compressed *w, const float *x, float *to) {
  size_t elements = group_elements(w), c = elements / W, groups = (w->depth + elements - 1) / elements;
  float *sums = to + groups * elements;
  for (size_t g = 0; g < groups; g++)
    for (size_t l = 0; l < W; l++) {
      float sum = 0;
      for (size_t j = 0; j < c; j++) {
        size_t e = g * elements + l * c + j;
        float v = e < w->depth ? x[e] : 0;
        to[g * elements + j * W + l] = v;
        sum += v;
      }
      sums[g * W + l] = sum;
    }
}

/* Rows with one scale were summed without it. */
static void scale_rows(const cml_compressed *w, size_t begin, size_t end, const float *sums, size_t groups, float *y) {
  float all = 0;
  for (size_t i = 0; w->offset && i < groups * W; i++) all += sums[i];
  for (size_t n = begin; n < end; n++) {
    size_t row = n / w->scale_rows;
    float offset = w->offset ? scale_at(w->offset, w->scale_half, row) * all : 0;
    y[n] = (y[n] - offset) * scale_at(w->scale, w->scale_half, row);
  }
}

static void compressed_product(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride) {
  size_t room = compressed_room(w), groups = (w->depth + group_elements(w) - 1) / group_elements(w), at = groups * group_elements(w), m = 0;
  for (; m + 4 <= vectors; m += 4)
    choose(w, true)(w, begin, end, x + m * room, room, x + m * room + at, room, y + m * y_stride, y_stride);
  for (; m < vectors; m++) choose(w, false)(w, begin, end, x + m * room, room, x + m * room + at, room, y + m * y_stride, y_stride);
  for (m = 0; w->scale && w->blocks == 1 && m < vectors; m++) scale_rows(w, begin, end, x + m * room + at, groups, y + m * y_stride);
}

/* A lane's codes lie in one block; where several blocks meet in a group, each has as many lanes, a power of two. */
static bool compressed_fits(const cml_compressed *w) {
  size_t elements = group_elements(w), c = elements / W;
  if (w->depth * w->bits % 8) return false;
  if (!w->scale || w->block >= w->depth) return true;
  return w->block % elements == 0 || (elements % w->block == 0 && w->block % c == 0);
}

static size_t compressed_depth(const cml_compressed *w) { return w->depth; }

static size_t compressed_bytes(const cml_compressed *w) {
  (void)w;
  return 0; /* rows are used as they lie */
}

static void compressed_pack(const cml_compressed *w, size_t begin, size_t end, void *to) { (void)w, (void)begin, (void)end, (void)to; }

void CML_SIMD(cml_fill_compressed)(cml_kernels *k) {
  k->compressed_fits = compressed_fits;
  k->compressed_depth = compressed_depth;
  k->compressed_bytes = compressed_bytes;
  k->compressed_pack = compressed_pack;
  k->compressed_room = compressed_room;
  k->compressed_arrange = compressed_arrange;
  k->compressed_product = compressed_product;
}
