/* Codes of 4 and 8 bits with scales (and offsets) times few vectors in fixed point, packed so that a lane is a row: a dword of codes of 64 rows
 * meets digits that are the same for all lanes, and the scales of a block are a vector. Up to four vectors at once share what is read.
 *
 * Rows are packed in blocks of 64, in four sets of 16. A block of rows is, for each block of scales: 64 scales, 64 offsets where there are any,
 * and the codes, a dword of each row after the other. An arranged vector is, for each such dword, the digits of its elements by plane (4 bits:
 * first of those of even number, then of the others); then by block of scales what sums of each plane begin with, and the elements' sums. */
#include "compressed_fixed.h"

enum { BLOCK = CML_COMPRESSED_ROWS, SETS = 4, REGISTER = 64, MOST = 1 << 16 }; /* elements of a block of scales whose sums fit into 32 bits */

static size_t block_dwords(const cml_compressed *w) { return (w->block * w->bits + 31) / 32; }
static size_t scales_bytes(const cml_compressed *w) { return BLOCK * (size_t)(w->scale_half ? 2 : 4); }
static size_t head_bytes(const cml_compressed *w) { return scales_bytes(w) * (w->offset ? 2 : 1); }
static size_t packed_rows(const cml_compressed *w) { return w->blocks * (head_bytes(w) + block_dwords(w) * SETS * REGISTER); } /* bytes of 64 rows */

/* Rows with one scale each are read as fast where they lie, by a single vector. */
size_t cml_scaled_bytes(const cml_compressed *w) {
  if (!w->scale || w->columns < BLOCK || w->block > MOST || w->scale_rows != 1 || (w->blocks == 1 && w->vectors < 2)) return 0;
  if (w->blocks > 1 && w->block * w->bits % 32) return 0;
  return (w->columns + BLOCK - 1) / BLOCK * packed_rows(w);
}

/* ---- packing ---- */

static void pack_scales(const cml_compressed *w, const void *from, size_t n, size_t k, char *to) {
  size_t size = w->scale_half ? 2 : 4;
  for (size_t r = 0; r < BLOCK; r++) {
    if (n + r < w->columns) memcpy(to + r * size, (const char *)from + ((n + r) * w->blocks + k) * size, size);
    else memset(to + r * size, 0, size);
  }
}

void cml_scaled_pack(const cml_compressed *w, size_t begin, size_t end, void *to) {
  const size_t row_bytes = w->depth * w->bits / 8, dwords = block_dwords(w), head = head_bytes(w);
  for (size_t n = begin; n < end; n += BLOCK) {
    char *block = (char *)to + n / BLOCK * packed_rows(w);
    for (size_t k = 0; k < w->blocks; k++, block += head + dwords * SETS * REGISTER) {
      pack_scales(w, w->scale, n, k, block);
      if (w->offset) pack_scales(w, w->offset, n, k, block + scales_bytes(w));
      for (size_t s = 0; s < SETS; s++) {
        const uint8_t *rows[16];
        for (size_t r = 0; r < 16; r++) rows[r] = n + s * 16 + r < w->columns ? w->codes + (n + s * 16 + r) * w->row_bytes + k * dwords * 4 : NULL;
        cml_pack_dwords(rows, row_bytes - k * dwords * 4, dwords, block + head + s * REGISTER, SETS * REGISTER);
      }
    }
  }
}

/* ---- arranging ---- */

static size_t dword_digits(const cml_compressed *w) { return w->bits == 4 ? 2 * PLANES : PLANES; } /* dwords of digits for one of codes */

typedef struct parts {
  int8_t *digits;
  int32_t *start;
  float *sums;
} parts;

static parts find_parts(const cml_compressed *w, float *arranged) {
  parts p = {.digits = (int8_t *)arranged};
  p.start = (int32_t *)(void *)(p.digits + w->blocks * block_dwords(w) * dword_digits(w) * 4);
  p.sums = (float *)(p.start + w->blocks * PLANES);
  return p;
}

size_t cml_scaled_room(const cml_compressed *w) { return w->blocks * (block_dwords(w) * dword_digits(w) + PLANES + 1) + W; }

/* Where each byte of the digits of 16 elements, two or four dwords of codes, comes from: they lie by plane first. */
static __m512i digit_order(const cml_compressed *w) {
  uint8_t from[REGISTER] = {0};
  size_t bytes = dword_digits(w) * 4, halves = bytes / (4 * PLANES);
  for (size_t i = 0; i < PLANES * W; i++) {
    size_t dword = i / bytes, half = i % bytes / (4 * PLANES), plane = i % (4 * PLANES) / 4;
    from[i] = (uint8_t)(plane * W + dword * 4 * halves + i % 4 * halves + half);
  }
  return _mm512_loadu_si512(from);
}

void cml_scaled_arrange(const cml_compressed *w, const float *x, int e, float *arranged) {
  const parts to = find_parts(w, arranged);
  const __m512i order = digit_order(w), ones = _mm512_set1_epi8(1);
  const size_t bytes = dword_digits(w) * 4, block_digits = block_dwords(w) * bytes, step = PLANES * W;
  const int bias = !w->is_signed ? 0 : w->bits == 4 ? 8 : 128;
  for (size_t k = 0; k < w->blocks; k++) {
    __m512i sum = _mm512_setzero_si512(); /* four lanes for each plane */
    int32_t lanes[W];
    for (size_t i = 0, at = 0; i < w->block; i += W, at += step) {
      int8_t digits[REGISTER] = {0};
      store_digits(PLANES, 8, scaled_by(load_elements(x + k * w->block, i, w->block), e), digits, W);
      __m512i all = _mm512_loadu_si512(digits);
      sum = dpbusd(sum, ones, all);
      size_t left = block_digits - at;
      _mm512_mask_storeu_epi8(to.digits + k * block_digits + at, UINT64_MAX >> (REGISTER - (left < step ? left : step)), _mm512_permutexvar_epi8(order, all));
    }
    _mm512_storeu_si512(lanes, sum);
    to.sums[k] = 0;
    for (size_t p = PLANES; p--;) {
      int32_t plane = lanes[4 * p] + lanes[4 * p + 1] + lanes[4 * p + 2] + lanes[4 * p + 3];
      to.start[k * PLANES + p] = plane * -bias;
      to.sums[k] = to.sums[k] * 256 + (float)plane;
    }
  }
}

/* ---- products ---- */

VINLINE __m512i broadcast_digits(const int8_t *p) {
  int32_t four;
  memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

VINLINE vf scales_of(const char *p, bool half, int set) { return half ? vh_load((const cml_f16 *)(const void *)p + set * W) : vf_load((const float *)(const void *)p + set * W); }

/* One block of scales for S sets of rows and M vectors: totals[m][set] grow by (sum - offset * the elements' sum) * scale. */
VINLINE void scaled_block(const int M, const int S, const int bits, const cml_compressed *w, const char *block, int set, const parts *x, size_t k,
                          vf (*totals)[SETS]) {
  const size_t dwords = block_dwords(w), dword = (size_t)(bits == 4 ? 2 : 1) * PLANES * 4, at = k * dwords * dword;
  const char *codes = block + head_bytes(w) + set * REGISTER;
  const __m512i flip = _mm512_set1_epi8((char)(!w->is_signed ? 0 : bits == 4 ? 8 : 128)), nibble = _mm512_set1_epi8(15);
  __m512i acc[4][SETS][PLANES];
  CML_UNROLL for (int m = 0; m < M; m++)
    CML_UNROLL for (int s = 0; s < S; s++)
      CML_UNROLL for (size_t p = 0; p < PLANES; p++) acc[m][s][p] = _mm512_set1_epi32(x[m].start[k * PLANES + p]);
  for (size_t d = 0; d < dwords; d++, codes += SETS * REGISTER) {
    CML_UNROLL for (int h = 0; h < 8 / bits; h++) {
      __m512i u[SETS];
      CML_UNROLL for (int s = 0; s < S; s++) {
        __m512i c = _mm512_loadu_si512(codes + s * REGISTER);
        if (bits == 8) u[s] = _mm512_xor_si512(c, flip);
        else u[s] = _mm512_ternarylogic_epi32(h ? _mm512_srli_epi16(c, 4) : c, nibble, flip, 0x6a); /* (c & nibble) ^ flip */
      }
      CML_UNROLL for (int m = 0; m < M; m++)
        CML_UNROLL for (size_t p = 0; p < PLANES; p++) {
          __m512i digits = broadcast_digits(x[m].digits + at + d * dword + ((size_t)h * PLANES + p) * 4);
          CML_UNROLL for (int s = 0; s < S; s++) {
            const int each = 8 / bits * M * PLANES, done = ((h * M + m) * PLANES + (int)p) * S + s; /* sums for a line that is asked for */
            acc[m][s][p] = dpbusd(acc[m][s][p], u[s], digits);
            if (done % each == each - 1) ask_after((const uint8_t *)codes + done / each * REGISTER + AHEAD, &acc[m][s][p]);
          }
        }
    }
  }
  CML_UNROLL for (int s = 0; s < S; s++) {
    vf scale = scales_of(block, w->scale_half, set + s);
    CML_UNROLL for (int m = 0; m < M; m++) {
      vf f = join_digits(PLANES, 8, acc[m][s]);
      if (w->offset) f -= scales_of(block + scales_bytes(w), w->scale_half, set + s) * x[m].sums[k];
      totals[m][set + s] = vf_fma(f, scale, totals[m][set + s]);
    }
  }
}

VINLINE void scaled_rows(const int M, const int S, const int bits, const cml_compressed *w, size_t n, const parts *x, vf (*totals)[SETS]) {
  const char *block = (const char *)w->packed + n / BLOCK * packed_rows(w);
  const size_t bytes = head_bytes(w) + block_dwords(w) * SETS * REGISTER;
  for (size_t k = 0; k < w->blocks; k++, block += bytes) {
    for (size_t i = 0; i < head_bytes(w); i += REGISTER) ask((const uint8_t *)block + AHEAD + i); /* codes ask for as many lines as they are */
    CML_UNROLL for (int set = 0; set < SETS; set += S) scaled_block(M, S, bits, w, block, set, x, k, totals);
  }
}

typedef void rows_function(const cml_compressed *w, size_t n, const parts *x, vf (*totals)[SETS]);
#define SCALED(M, S, bits) \
  static void scaled_##bits##_##M(const cml_compressed *w, size_t n, const parts *x, vf (*totals)[SETS]) { scaled_rows(M, S, bits, w, n, x, totals); }
SCALED(1, 4, 4)
SCALED(2, 4, 4)
SCALED(4, 2, 4)
SCALED(1, 4, 8)
SCALED(2, 4, 8)
SCALED(4, 2, 8)

void cml_scaled_product(const cml_compressed *w, size_t begin, size_t end, float *const *x, const double *units, size_t vectors, float *y,
                        size_t y_stride) {
  parts from[4];
  rows_function *rows = w->bits == 4 ? (vectors == 4 ? scaled_4_4 : vectors == 2 ? scaled_4_2 : scaled_4_1)
                                     : (vectors == 4 ? scaled_8_4 : vectors == 2 ? scaled_8_2 : scaled_8_1);
  for (size_t v = 0; v < vectors; v++) from[v] = find_parts(w, x[v]);
  for (size_t n = begin; n < end; n += BLOCK) {
    vf totals[4][SETS] = {{{0}}};
    rows(w, n, from, totals);
    for (size_t v = 0; v < vectors; v++)
      for (size_t r = 0; r < BLOCK && n + r < end; r += W)
        vf_store_n(y + v * y_stride + n + r, scaled_by(totals[v][r / W], ilogb(units[v])), end - n - r < W ? end - n - r : W); /* a power of two */
  }
}
