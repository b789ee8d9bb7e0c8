/* Transposing, of matrices and of weights whose depth lies side by side (a linear layer's) into panels: blocks of W x W are transposed in
 * registers, so that both the rows that are read and those that are written move in whole vectors. */
#include "kernels_internal.h"
#include "simd.h"
#include "transpose_block.h"

#include <string.h>

enum { NR = CML_TILE_VECTORS * W };

/* A depth of at most W of the rows i0 up to n (at most W of them), others zero. */
VINLINE void load_block(vf *r, const void *from, bool half, size_t stride, size_t rows, size_t depth) {
  for (size_t i = 0; i < W; i++) {
    if (i >= rows) r[i] = vf_zero();
    else if (half) r[i] = depth == W ? vh_load((const cml_f16 *)from + i * stride) : vh_load_n((const cml_f16 *)from + i * stride, depth);
    else r[i] = depth == W ? vf_load((const float *)from + i * stride) : vf_load_n((const float *)from + i * stride, depth);
  }
}

VINLINE void store_block(const vf *r, void *to, bool half, size_t depth) {
  for (size_t d = 0; d < depth; d++) {
    if (half) vh_store((cml_f16 *)to + d * NR, r[d]);
    else vf_store((float *)to + d * NR, r[d]);
  }
}

VINLINE void pack(const bool half, const bool from_half, void *to, const void *from, size_t depth, size_t n, size_t stride) {
  size_t size = half ? 2 : 4, from_size = from_half ? 2 : 4;
  for (size_t d = 0; d < depth; d += W) {
    size_t m = depth - d < W ? depth - d : W;
    for (size_t j = 0; j < NR; j += W) {
      vf r[W];
      size_t rows = n > j ? n - j : 0;
      const char *p = (const char *)from + (j * stride + d) * from_size;
      if (rows >= W && m == W) load_block(r, p, from_half, stride, W, W);
      else load_block(r, p, from_half, stride, rows, m);
      transpose_block(r);
      store_block(r, (char *)to + (d * NR + j) * size, half, m);
    }
  }
}

static void pack_panel(void *to, bool half, const void *from, bool from_half, size_t depth, size_t n, size_t stride) {
  if (half) pack(true, true, to, from, depth, n, stride);
  else if (from_half) pack(false, true, to, from, depth, n, stride);
  else pack(false, false, to, from, depth, n, stride);
}

/* ---- matrices of floats, or of any 16 bits, which a lane of a float carries as an integer ---- */

typedef uint16_t shorts __attribute__((vector_size(W * 2)));

VINLINE vf load_lanes(const void *p, bool half, size_t n) {
  if (!half) return n == W ? vf_load(p) : vf_load_n(p, n);
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(v_mask(n), p));
#else
  shorts s = {0};
  if (n == W) memcpy(&s, p, sizeof s);
  else for (size_t i = 0; i < n; i++) s[i] = ((const uint16_t *)p)[i];
  return (vf)__builtin_convertvector(s, vu);
#endif
}

VINLINE void store_lanes(void *p, bool half, vf v, size_t n) {
  if (!half) {
    if (n == W) vf_store(p, v);
    else vf_store_n(p, v, n);
    return;
  }
#if defined(__AVX512F__)
  _mm256_mask_storeu_epi16(p, v_mask(n), _mm512_cvtepi32_epi16((__m512i)v));
#else
  shorts s = __builtin_convertvector((vu)v, shorts);
  if (n == W) memcpy(p, &s, sizeof s);
  else for (size_t i = 0; i < n; i++) ((uint16_t *)p)[i] = s[i];
#endif
}

enum { MASKS = W == 16 };

#if defined(__AVX512F__)
/* n lanes from `lane` on, of numbers that begin at p: lanes that are masked are not touched, wherever they would be. */
VINLINE vf load_into(vf v, const void *p, bool half, size_t lane, size_t n) {
  const __mmask16 mask = (__mmask16)(v_mask(n) << lane);
  if (!half) return (vf)_mm512_mask_loadu_ps((__m512)v, mask, (const float *)p - lane);
  return (vf)_mm512_mask_cvtepu16_epi32((__m512i)v, mask, _mm256_maskz_loadu_epi16(mask, (const uint16_t *)p - lane));
}

VINLINE void store_from(void *p, bool half, vf v, size_t lane, size_t n) {
  const __mmask16 mask = (__mmask16)(v_mask(n) << lane);
  if (!half) _mm512_mask_storeu_ps((float *)p - lane, mask, (__m512)v);
  else _mm256_mask_storeu_epi16((uint16_t *)p - lane, mask, _mm512_cvtepi32_epi16((__m512i)v));
}

/* At most W / parts columns: blocks of so many times W rows fill one of W x W. The rest is left; returns where it begins. */
VINLINE size_t few_columns(const bool half, const size_t parts, size_t rows, size_t columns, const char *x, size_t x_stride, char *y, size_t y_stride) {
  const size_t size = half ? 2 : 4, each = W / parts;
  size_t r = 0;
  for (; r + parts * W <= rows; r += parts * W) {
    vf v[W];
    for (size_t i = 0; i < W; i++) {
      v[i] = vf_zero();
      CML_UNROLL for (size_t p = 0; p < parts; p++) v[i] = load_into(v[i], x + (r + p * W + i) * x_stride * size, half, p * each, columns);
    }
    transpose_block(v);
    for (size_t c = 0; c < columns; c++)
      for (size_t p = 0; p < parts; p++) store_lanes(y + (c * y_stride + r + p * W) * size, half, v[p * each + c], W);
  }
  return r;
}

/* The same the other way: few rows, and the first column that is left. */
VINLINE size_t few_rows(const bool half, const size_t parts, size_t rows, size_t columns, const char *x, size_t x_stride, char *y, size_t y_stride) {
  const size_t size = half ? 2 : 4, each = W / parts;
  size_t c = 0;
  for (; c + parts * W <= columns; c += parts * W) {
    vf v[W];
    for (size_t i = 0; i < W; i++) v[i] = i % each < rows ? load_lanes(x + (i % each * x_stride + c + i / each * W) * size, half, W) : vf_zero();
    transpose_block(v);
    for (size_t i = 0; i < W; i++)
      CML_UNROLL for (size_t p = 0; p < parts; p++) store_from(y + (c + p * W + i) * y_stride * size, half, v[i], p * each, rows);
  }
  return c;
}
#endif

/* 2, 4 or 8 rows whose columns lie one after the other in y: pairs of vectors are zipped, and again. Returns the first column that is left. */
VINLINE size_t interleave(const size_t rows, const bool half, size_t columns, const char *x, size_t x_stride, char *y) {
  const size_t size = half ? 2 : 4;
  size_t c = 0;
  for (; c + W <= columns; c += W) {
    vf v[8], z[8];
    CML_UNROLL for (size_t i = 0; i < rows; i++) v[i] = load_lanes(x + (i * x_stride + c) * size, half, W);
    CML_UNROLL for (size_t step = 1; step < rows; step *= 2) {
      CML_UNROLL for (size_t i = 0; i < rows / 2; i++) z[2 * i] = vf_zip_low(v[i], v[i + rows / 2]), z[2 * i + 1] = vf_zip_high(v[i], v[i + rows / 2]);
      CML_UNROLL for (size_t i = 0; i < rows; i++) v[i] = z[i];
    }
    CML_UNROLL for (size_t i = 0; i < rows; i++) store_lanes(y + (c * rows + i * W) * size, half, v[i], W);
  }
  return c;
}

/* The same back: every second element, and again. Returns the first row that is left. */
VINLINE size_t separate(const size_t columns, const bool half, size_t rows, const char *x, char *y, size_t y_stride) {
  const size_t size = half ? 2 : 4;
  size_t r = 0;
  for (; r + W <= rows; r += W) {
    vf v[8], z[8];
    CML_UNROLL for (size_t i = 0; i < columns; i++) v[i] = load_lanes(x + (r * columns + i * W) * size, half, W);
    CML_UNROLL for (size_t step = 1; step < columns; step *= 2) {
      CML_UNROLL for (size_t i = 0; i < columns / 2; i++) z[i] = vf_even(v[2 * i], v[2 * i + 1]), z[i + columns / 2] = vf_odd(v[2 * i], v[2 * i + 1]);
      CML_UNROLL for (size_t i = 0; i < columns; i++) v[i] = z[i];
    }
    CML_UNROLL for (size_t i = 0; i < columns; i++) store_lanes(y + (i * y_stride + r) * size, half, v[i], W);
  }
  return r;
}

/* Every 2nd, 4th or 8th of neighbouring numbers: vectors of all of them, of which every second element stays, and again. Ends before the last one,
 * behind which nothing may be read. */
VINLINE size_t pick(const size_t stride, const bool half, size_t rows, const char *x, char *y) {
  const size_t size = half ? 2 : 4;
  size_t r = 0;
  for (; r + W < rows; r += W) {
    vf v[8];
    CML_UNROLL for (size_t i = 0; i < stride; i++) v[i] = load_lanes(x + (r * stride + i * W) * size, half, W);
    CML_UNROLL for (size_t n = stride; n > 1; n /= 2)
      CML_UNROLL for (size_t i = 0; i < n / 2; i++) v[i] = vf_even(v[2 * i], v[2 * i + 1]);
    store_lanes(y + r * size, half, v[0], W);
  }
  return r;
}

VINLINE size_t dense_columns(const bool half, size_t rows, size_t columns, const char *x, size_t x_stride, char *y) {
  switch (rows) {
    case 2: return interleave(2, half, columns, x, x_stride, y);
    case 4: return interleave(4, half, columns, x, x_stride, y);
    case 8: return interleave(8, half, columns, x, x_stride, y);
    default: return 0;
  }
}

VINLINE size_t dense_rows(const bool half, size_t rows, size_t columns, const char *x, size_t x_stride, char *y, size_t y_stride) {
  if (columns == 1) return x_stride == 2 ? pick(2, half, rows, x, y) : x_stride == 4 ? pick(4, half, rows, x, y) : x_stride == 8 ? pick(8, half, rows, x, y) : 0;
  if (x_stride != columns) return 0;
  switch (columns) {
    case 2: return separate(2, half, rows, x, y, y_stride);
    case 4: return separate(4, half, rows, x, y, y_stride);
    case 8: return separate(8, half, rows, x, y, y_stride);
    default: return 0;
  }
}

VINLINE void transpose_any(const bool half, size_t rows, size_t columns, const char *x, size_t x_stride, char *y, size_t y_stride) {
  const size_t size = half ? 2 : 4;
  if (y_stride == rows && columns > 1 && rows <= 8) {
    const size_t done = dense_columns(half, rows, columns, x, x_stride, y);
    columns -= done, x += done * size, y += done * y_stride * size;
  } else if (columns <= 8) {
    const size_t done = dense_rows(half, rows, columns, x, x_stride, y, y_stride);
    rows -= done, x += done * x_stride * size, y += done * size;
  }
#if defined(__AVX512F__)
  if (columns <= W / 2) {
    const size_t done = columns <= W / 4 ? few_columns(half, 4, rows, columns, x, x_stride, y, y_stride) : few_columns(half, 2, rows, columns, x, x_stride, y, y_stride);
    rows -= done, x += done * x_stride * size, y += done * size;
  } else if (rows <= W / 2) {
    const size_t done = rows <= W / 4 ? few_rows(half, 4, rows, columns, x, x_stride, y, y_stride) : few_rows(half, 2, rows, columns, x, x_stride, y, y_stride);
    columns -= done, x += done * size, y += done * y_stride * size;
  }
#endif
  for (size_t r = 0; r < rows; r += W)
    for (size_t c = 0; c < columns; c += W) {
      size_t rn = rows - r < W ? rows - r : W, cn = columns - c < W ? columns - c : W;
      const char *from = x + (r * x_stride + c) * size;
      char *to = y + (c * y_stride + r) * size;
      vf v[W];
      if (rn == W && cn == W) {
        for (size_t i = 0; i < W; i++) v[i] = load_lanes(from + i * x_stride * size, half, W);
        transpose_block(v);
        for (size_t i = 0; i < W; i++) store_lanes(to + i * y_stride * size, half, v[i], W);
      } else if (!MASKS && half && cn < W) { /* parts of a vector would be read number by number all the same */
        for (size_t i = 0; i < cn; i++)
          for (size_t j = 0; j < rn; j++) ((uint16_t *)(void *)to)[i * y_stride + j] = ((const uint16_t *)(const void *)from)[j * x_stride + i];
      } else {
        for (size_t i = 0; i < W; i++) v[i] = i < rn ? load_lanes(from + i * x_stride * size, half, cn) : vf_zero();
        transpose_block(v);
        for (size_t i = 0; i < cn; i++) store_lanes(to + i * y_stride * size, half, v[i], rn);
      }
    }
}

static void transpose(size_t rows, size_t columns, const float *x, size_t x_stride, float *y, size_t y_stride) {
  if (rows == 3 && y_stride == 3) { /* an image's colours */
    const float *g = x + x_stride, *b = g + x_stride;
    for (size_t c = 0; c < columns; c++) y[3 * c] = x[c], y[3 * c + 1] = g[c], y[3 * c + 2] = b[c];
    return;
  }
  transpose_any(false, rows, columns, (const char *)x, x_stride, (char *)y, y_stride);
}

static void transpose_16(size_t rows, size_t columns, const uint16_t *x, size_t x_stride, uint16_t *y, size_t y_stride) {
  if (rows == 3 && y_stride == 3) {
    const uint16_t *g = x + x_stride, *b = g + x_stride;
    for (size_t c = 0; c < columns; c++) y[3 * c] = x[c], y[3 * c + 1] = g[c], y[3 * c + 2] = b[c];
    return;
  }
  transpose_any(true, rows, columns, (const char *)x, x_stride, (char *)y, y_stride);
}

void CML_SIMD(cml_fill_pack)(cml_kernels *k) {
  k->pack_panel = pack_panel;
  k->transpose = transpose;
  k->transpose_16 = transpose_16;
}
