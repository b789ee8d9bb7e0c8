/* The kernels: what the operators spend their time in, one table of function pointers for each instruction set.
 *
 * Every kernel is written once over vectors of whatever width (simd.h) and compiled for portable C (4 lanes), AVX2 with FMA
 * and F16C (8), AVX-512 F/BW/DQ/VL (16) and NEON (4); with AVX-512 VBMI and VNNI, products with compressed weights are others
 * (compressed_fixed.c; with AVX2 or AVX-512 alone some are: compressed_words.c, compressed_nibbles.c, compressed_entries.c), with AVX512-FP16 elementwise functions of float16 (half_fp16.c), and with AMX products of float16 and of bytes
 * (amx_tile.c, amx_bytes.c).
 * cml_kernels_get gives the best table that this CPU can run; tests take each in turn by cml_kernels_at. All kernels are pure functions of their arguments: no allocation, no state, any thread.
 * Pointers need no alignment. Nothing outside the named elements is read or written. Outputs may be the inputs themselves
 * (y == x) but must not overlap them otherwise.
 *
 * Errors of the vector functions, in units in the last place of float32 against the exact value, over all finite inputs
 * (tests/runtime/test_kernels.c measures them): exp 1.5, log 1.5, tanh 3, erf 2.5, sigmoid 3, silu 4; gelu (both modes) within
 * 4 ulp or 1e-7 absolute, whichever is larger; exp2 1.5, sin 2, cos 2, tan 3.5, asin 2.5, acos 2, atan 2.5, sinh 2.5, cosh 2.5,
 * atanh 2, pow 1. Infinities and NaN go where C's functions send them. */
#ifndef CML_KERNELS_H
#define CML_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "f16.h"
#include "fourier.h"

/* Functions of one float array: y[i] = f(x[i]); a, b: parameters. */
#define CML_UNARY_MAP(X)                                                                         \
  X(EXP) X(LOG) X(TANH) X(ERF) X(SIGMOID) X(SQRT) X(ABS) X(NEG) X(SQUARE) X(RECIPROCAL) X(FLOOR) \
  X(CEIL) X(ROUND) /* half to even */ X(COPY)                                                    \
  X(RELU) X(CLIP) /* [a, b] */ X(LEAKY_RELU) /* a x below 0 */ X(ELU) /* a (e^x - 1) */          \
  X(SILU) X(GELU) X(GELU_TANH) X(GELU_SIGMOID) /* x sigmoid(1.702 x) */                          \
  X(SOFTPLUS) X(SOFTSIGN) X(HARD_SIGMOID) /* clamp(a x + b, 0, 1) */ X(HARD_SWISH) /* x clamp(a x + b, 0, 1) */ \
  X(SCALE) /* a x + b, one rounding each */                                                      \
  X(EXP2) X(SIN) X(COS) X(TAN) X(ASIN) X(ACOS) X(ATAN) X(SINH) X(COSH) X(ATANH)

typedef enum cml_unary {
#define CML_UNARY_ENUM(name) CML_UNARY_##name,
  CML_UNARY_MAP(CML_UNARY_ENUM)
#undef CML_UNARY_ENUM
  CML_UNARY_COUNT
} cml_unary;

/* Functions of two float arrays. MAX and MIN give NaN when either is NaN. MOD and FLOOR_DIV are NumPy's mod, which has the divisor's sign, and
 * floor_divide: from the exact remainder. */
typedef enum cml_binary {
  CML_BINARY_ADD, CML_BINARY_SUB, CML_BINARY_MUL, CML_BINARY_DIV, CML_BINARY_MAX, CML_BINARY_MIN, CML_BINARY_POW, CML_BINARY_MOD,
  CML_BINARY_FLOOR_DIV, CML_BINARY_COUNT
} cml_binary;

typedef enum cml_comparison { CML_COMPARE_EQUAL, CML_COMPARE_NOT_EQUAL, CML_COMPARE_LESS, CML_COMPARE_LESS_EQUAL, CML_COMPARE_GREATER, CML_COMPARE_GREATER_EQUAL, CML_COMPARE_COUNT } cml_comparison;

/* A compressed matrix w[columns][depth]: row n's codes of `bits` bits (1, 2, 3, 4, 6, 8), low bits first, begin at codes[n *
 * row_bytes], `depth` of a longer row, maybe. Each stands for an entry of the table of its row, or for (code - offset) * scale of its row and block. */
enum { CML_COMPRESSED_ROWS = 64 };
typedef struct cml_compressed {
  size_t columns, depth;
  const uint8_t *codes;
  size_t row_bytes;
  unsigned bits;
  bool is_signed;           /* codes in two's complement; with scales only */
  const float *table;       /* of row n: at n / table_rows * table_size; entries repeat up to 16. With scales and 4 bits: the codes' values */
  size_t table_size, table_rows;
  const void *scale;        /* NULL: a palette. (n, k): at n / scale_rows * blocks + k / block; float16 when scale_half */
  const void *offset;       /* as scale; NULL: zeros */
  bool scale_half;
  size_t scale_rows, blocks, block;
  size_t vectors;           /* that are multiplied at once, at most: what is worth packing */
  bool vectors_half;        /* elements of vectors are float16 and so will be the results: errors may be a tenth of that type's rounding */
  const void *packed;       /* what compressed_pack made of the codes, which are read all the same for vectors that it does not suit; or NULL */
} cml_compressed;

/* A tile of a matrix product and all that follows it: c = f(clamp(a b + from + bias + residual)). Row r of a is stretches of
 * `depth` neighbouring floats, number s at a[r * a_stride + offsets[s]]. b is packed: steps of tile_columns floats, or halves when
 * b_half, one after the other over all stretches (columns beyond `columns` present). For at most CML_SLIM columns it may lie by
 * columns instead, which wastes no lanes: then b_column is the distance from one column to the next, in elements. */
enum { CML_SLIM = 4, CML_PART_DEPTH = 32, CML_PARTS_ROOM = 313 << 10 };
typedef struct cml_tile {
  size_t rows, columns;    /* at most tile_rows, tile_columns; or wide_rows, wide_columns */
  size_t stretches, depth;
  const size_t *offsets;   /* NULL: one stretch, at 0 */
  const float *a;
  size_t a_stride;
  size_t split;            /* not 0: rows from this one on lie a_jump floats and c_jump elements further, as behind the end of an image's row; */
  size_t a_jump, c_jump;   /* only where the table's tile_splits, not beyond tile_columns and without `from` */
  const void *b;
  bool b_half;
  const uint16_t *parts;   /* tile_parts: in place of a, strides and offsets in elements; part p lies p * parts_apart behind */
  size_t parts_apart;
  void *room;              /* of CML_PARTS_ROOM bytes, aligned to 64; cml_parts_begin before its first use, and when what b points to may have changed */
  const void *next;        /* the b of the next tile with this room, of the same stretches, depth and type; NULL: not known */
  float *widened;          /* NULL, or where halves in steps are also left as floats, b's layout, for the tiles of other rows that follow */
  size_t b_panel;          /* bytes from b to the panel of the columns from tile_columns on, where there are so many */
  size_t b_column;         /* 0: in steps */
  const char *ask;         /* what is wanted next and may come from memory: with each step of the depth, ask_step bytes of it are asked */
  size_t ask_step;         /* for, so that it comes while this tile is computed; NULL: nothing */
  const float *from;       /* sums to begin with; NULL: zeros */
  size_t from_stride;
  const float *bias;       /* by column; NULL: none */
  const void *residual;    /* of c's type; NULL: none */
  size_t residual_stride;
  float low, high;
  void (*unary_rows)(cml_unary f, size_t rows, size_t columns, const float *x, size_t x_stride, void *y, size_t y_stride, bool half, float a,
                     float b);  /* the table's own; NULL: no function */
  cml_unary f;
  float f_a, f_b;
  void *c;
  size_t c_stride;
  bool c_half;
} cml_tile;

/* A tile of a product of bytes with signed bytes, summed exactly in 32 bits, and all that follows it. Row r of a is stretches of `depth`
 * neighbouring bytes (a multiple of 4), number s at a[r * a_stride + offsets[s]]. b is packed: steps of integer_columns x 4 bytes, four of the
 * depth for each column. Sums may wrap on the way; with `start` added they must fit into 32 bits.
 *
 *   v = (sum + start) * scale + bias                                        by column
 *   v = clamp(round(v), middle_low, middle_high) * middle_scale             when middle
 *   v = v + r * residual_scale + residual_bias                              when there is a residual r
 *   v = f(v)                                                                when unary_rows
 *   c = clamp(v, low, high), or for bytes round(clamp(v, low, high)) + zero */
enum cml_integer_to { CML_TO_BYTE, CML_TO_F16, CML_TO_F32 };
static inline size_t cml_integer_to_bytes(enum cml_integer_to to) { return to == CML_TO_BYTE ? 1 : to == CML_TO_F16 ? 2 : 4; }
typedef struct cml_integer_tile {
  size_t rows, columns;    /* at most integer_rows, integer_columns */
  size_t stretches, depth;
  const size_t *offsets;   /* NULL: one stretch, at 0 */
  const uint8_t *a;
  size_t a_stride;
  const int8_t *b;
  const int32_t *start;
  const float *scale, *bias;
  bool middle;
  float middle_low, middle_high, middle_scale;
  const uint8_t *residual; /* NULL: none */
  size_t residual_stride;
  float residual_scale, residual_bias;
  void (*unary_rows)(cml_unary f, size_t rows, size_t columns, const float *x, size_t x_stride, void *y, size_t y_stride, bool half, float a,
                     float b);
  cml_unary f;
  float f_a, f_b, f_scale; /* bytes: what f gives is multiplied by f_scale */
  float low, high;
  int32_t zero;
  enum cml_integer_to to;
  void *c;
  size_t c_stride;
} cml_integer_tile;

/* One row of a channels-last depthwise convolution: y[o * y_pixel + c] = clamp(bias[c] + the sum over taps (r, t) of
 * rows[r][(first + o * stride + t * dilation) * pixel + c] * w[(r * kw + t) * w_stride + c]), where rows that are NULL and columns
 * outside [0, columns) are zeros.
 * With a group of 2, 4 or 8 (a divisor of the width and of channels) each output sums over all channels of its group as well:
 * channel i of it times w[((r * kw + t) * group + i) * w_stride + c].
 * With a multiplier m > 1 (and no group) output c reads channel c / m: there are m outputs for each channel of rows.
 * With sums (stride and dilation 1, no bytes, group or multiplier; y floats) each pixel has so many outputs, each of them the sum over all channels,
 * w[((j * kh + r) * kw + t) * w_stride + c] output j's. */
typedef struct cml_depthwise {
  size_t outputs, channels, kh, kw;
  size_t group;            /* 0 or 1: depthwise */
  size_t multiplier;       /* 0 or 1: as many outputs as channels */
  size_t sums;             /* 0: an output is a channel's */
  const void *const *rows; /* kh of them, floats, halves or bytes */
  bool x_half, x_bytes;    /* bytes: less x_zero each; not with a group or multiplier */
  int32_t x_zero;
  int64_t stride, dilation, first, columns;
  size_t pixel;
  const float *w;
  size_t w_stride;
  const float *bias;       /* NULL: none */
  float low, high;
  void *y;
  size_t y_pixel;
  bool y_half;
} cml_depthwise;

/* Points of an image that are sampled together, up to CML_SAMPLES of them; arrays are filled up to whole vectors. Along an axis: the two
 * neighbours, always inside; their weights, 0 where the neighbour is outside or does not count; and the weight of what is outside. */
enum { CML_SAMPLES = 64 };
typedef struct cml_axis_points {
  int32_t index[2][CML_SAMPLES];
  float weight[2][CML_SAMPLES], outside[CML_SAMPLES];
} cml_axis_points;

/* In a plane: the four neighbours' places and weights, and what the padding adds. */
typedef struct cml_plane_points {
  int32_t place[4][CML_SAMPLES];
  float weight[4][CML_SAMPLES], outside[CML_SAMPLES];
} cml_plane_points;

/* What windows are folded to: the greatest (NaN when there is one), sums of x or x^2. */
typedef enum cml_pool_fold { CML_POOL_MAX, CML_POOL_SUM, CML_POOL_SQUARES } cml_pool_fold;
enum { CML_POOL_APART = 48 }; /* two vectors of 16 floats, and what is left of one */
/* A line of windows: `taps` rows, half or float, of `width` elements, with `before` elements of padding before them and as many as it takes behind.
 * y[i], half or float, = the fold of all rows' elements [i * stride - before, + kernel), times scales[i] * scale where there are scales. */
typedef struct cml_pool_line {
  bool half;
  size_t taps, width, before, kernel, stride, outputs;
  const void *const *rows;
  const float *scales;
  float scale;
  void *y;
} cml_pool_line;
/* `lines` neighbouring lines, at least one, of windows of 3 x 3 elements with stride 1 over a plane of `width` elements a row: x is the first row of the first
 * line's windows, or where they hang out `above` the second; so do the last line's `below`. Each line's middle row is inside.
 * `before` elements of padding are before each row and as many as `outputs` take behind; scales as above. */
typedef struct cml_pool_strip {
  bool half, above, below;
  size_t width, before, outputs, lines;
  const void *x;
  const float *scales;
  float scale;
  void *y;
} cml_pool_strip;
enum { CML_SORT_COLUMNS = 64 };
typedef enum cml_row_fold { CML_FOLD_SUM, CML_FOLD_ABS, CML_FOLD_SQUARE, CML_FOLD_MAX, CML_FOLD_MIN } cml_row_fold; /* of rows: sums of x, |x| or x^2, extremes as above */

enum { CML_ATTEND = 4 };

/* y[o * stride + i] = bias[o] (NULL: 0) + sum over k of weights[k * outputs + o] * x[offsets[k] + i] */
enum { CML_PLANE_OUTPUTS = 4 };
typedef struct cml_plane_taps {
  size_t outputs, taps;
  const size_t *offsets;
  const float *x, *weights, *bias;
  size_t n;
  float *y;
  size_t stride;
} cml_plane_taps;

typedef struct cml_kernels {
  const char *name;      /* "portable", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512vbmi", "avx512fp16", "amx", "neon", "neondot" */
  size_t width;          /* floats in a vector */
  size_t tile_rows, tile_columns; /* of the matrix product */
  bool tile_splits;               /* whether `tile` takes rows in two parts: short tiles wait for their sums */
  size_t wide_rows, wide_columns; /* fewer rows of a panel and the first vector of the next: `tile` takes such, too */

  void (*f16_to_f32)(const cml_f16 *x, float *y, size_t n);
  void (*f32_to_f16)(const float *x, cml_f16 *y, size_t n); /* to nearest even */
  void (*f32_to_i32)(const float *x, int32_t *y, size_t n); /* toward zero; NaN gives 0, what does not fit the nearest that does */
  void (*i32_to_f32)(const int32_t *x, float *y, size_t n);
  void (*bytes_to_f32)(const uint8_t *x, float *y, size_t n);
  void (*compare)(cml_comparison c, const float *x, const float *y, uint8_t *to, size_t n); /* 1: so it is; 0: not, or one is NaN and c not NOT_EQUAL */
  void (*compare_i32)(cml_comparison c, const int32_t *x, const int32_t *y, uint8_t *to, size_t n);
  void (*bf16_to_f32)(const uint16_t *x, float *y, size_t n);
  void (*f32_to_bf16)(const float *x, uint16_t *y, size_t n);

  void (*unary)(cml_unary f, const float *x, float *y, size_t n, float a, float b);
  void (*unary_f16)(cml_unary f, const cml_f16 *x, cml_f16 *y, size_t n, float a, float b);
  /* y[r * y_stride + c] = f(x[r * x_stride + c]), y in halves when half: the end of a block of sums */
  void (*unary_rows)(cml_unary f, size_t rows, size_t columns, const float *x, size_t x_stride, void *y, size_t y_stride, bool half, float a, float b);
  void (*binary)(cml_binary f, const float *x1, const float *x2, float *y, size_t n);
  /* Integers wrap. DIV is rounded toward zero, FLOOR_DIV and MOD are NumPy's; all three give 0 for a divisor of 0. Not POW. */
  void (*binary_i32)(cml_binary f, const int32_t *x1, const int32_t *x2, int32_t *y, size_t n);
  void (*binary_f16)(cml_binary f, const cml_f16 *x1, const cml_f16 *x2, cml_f16 *y, size_t n);
  /* y = x1 f s, or s f x1 when reversed */
  void (*binary_scalar)(cml_binary f, const float *x, float s, bool reversed, float *y, size_t n);
  void (*binary_scalar_f16)(cml_binary f, const cml_f16 *x, float s, bool reversed, cml_f16 *y, size_t n);
  /* Row after row, `stride` elements apart, floats or halves: sums[i] += x[i] and y[i] what that gave, or what was there before; sums: n rounded up to
   * a whole number of vectors */
  void (*running_sums)(size_t rows, size_t n, const void *x, void *y, bool half, ptrdiff_t stride, double *sums, bool before);

  float (*sum)(const float *x, size_t n);
  float (*max)(const float *x, size_t n);  /* -inf for n 0; NaN when there is one */
  float (*min)(const float *x, size_t n);
  /* Where the first of the largest, or lowest, of 0 < n < 2^24 elements is, or the first NaN; and its value. */
  size_t (*first_extreme)(const void *x, bool half, size_t n, bool lowest, float *value);
  float (*dot)(const float *x1, const float *x2, size_t n);
  /* sum and sum of squares of (x - shift) */
  void (*moments)(const float *x, size_t n, float shift, float *sum, float *squares);
  /* y[r] = the fold of row r of n > 0 neighbouring floats, or halves */
  void (*fold_rows)(cml_row_fold f, size_t rows, size_t n, const void *x, bool half, float *y);
  /* x = e^(x - shift), no x above shift, results below 2^-125 perhaps 0; returns the sum of the results */
  float (*exp_sum)(float *x, size_t n, float shift);
  /* x[r * x_stride + c] += y[r * y_stride + c], y in halves when half */
  void (*add_rows)(size_t rows, size_t n, float *x, size_t x_stride, const void *y, bool half, size_t y_stride);
  /* A streaming softmax meets n more scores of each row, at x + r * stride: tops[r] becomes the largest so far, x = e^(x - top), corrections[r]
   * what sums for the top before are to be multiplied by (often 1), as totals[r] is before the results are added to it. */
  void (*soften_rows)(size_t rows, size_t n, float *x, size_t stride, float *tops, float *totals, float *corrections);
  /* y += a * x */
  void (*axpy)(float a, const float *x, float *y, size_t n);
  /* y = x1 + a (x2 - x1) */
  void (*blend)(float a, const float *x1, const float *x2, float *y, size_t n);

  /* A step of an LSTM cell: the gates i, f, o, z (n of each, one after the other) are gates + step through sigmoid, sigmoid, sigmoid
   * and tanh; c = f c + i z, h = o tanh(c). */
  void (*lstm_cell)(size_t n, const float *gates, const float *step, float *c, float *h);

  /* Rows of n one after the other: y = softmax(x) along a row, or its logarithm, `low` where that is less. */
  void (*softmax_rows)(size_t rows, size_t n, const void *x, void *y, bool half, bool logarithm, float low);
  /* y = (x - mean) / sqrt(variance + epsilon) * gamma + beta along a row; gamma, beta may be NULL. */
  void (*layer_norm)(const float *x, float *y, size_t n, const float *gamma, const float *beta, float epsilon);
  void (*layer_norm_f16)(const cml_f16 *x, cml_f16 *y, size_t n, const float *gamma, const float *beta, float epsilon);
  /* Rows of n neighbouring floats, or halves: y = x / sqrt(mean of x^2 + epsilon) * gamma along each; gamma, of the same type, may be NULL. */
  void (*rms_norm)(size_t rows, size_t n, const void *x, void *y, bool half, const void *gamma, float epsilon);

  /* ---- the matrix product; gemm.h drives these ---- */

  void (*tile)(const cml_tile *t);
  /* Where matrix units multiply sums of shorter numbers, the parts of floats (three) and halves (half_parts) (else NULL, all three).
   * part: of rows of n numbers side by side; number i of row r's part p to to[r * to_stride + p * apart + i]; zeros follow up to a multiple of CML_PART_DEPTH.
   * tile_parts: tile for `parts` and b as it is packed for tile. Any number of rows; when split, rows of so many pixels, each of which a_jump and c_jump move. Of a
   * stretch's parts whole steps of CML_PART_DEPTH are read. */
  size_t half_parts;
  void (*part)(bool half, size_t rows, size_t n, const void *x, size_t x_stride, uint16_t *to, size_t to_stride, size_t apart);
  void (*tile_parts)(const cml_tile *t);
  /* c[rows][columns] = a b (+ c when accumulate): rows <= tile_rows, columns <= tile_columns. Row r of a lies at a[r * a_stride];
   * b is packed: depth steps of tile_columns floats, or halves when b_half (columns beyond `columns` present). After the last
   * step bias[columns] is added (NULL: none) and values are kept within [low, high]. */
  void (*gemm_tile)(size_t rows, size_t columns, size_t depth, const float *a, size_t a_stride, const void *b, bool b_half, float *c,
                    size_t c_stride, bool accumulate, const float *bias, float low, float high);
  /* y[columns] = x[depth] b, b packed as for gemm_tile: a panel of floats, one of halves, or one or two of halves and then one of floats, which is
   * fastest where the caches hold all of it: widening halves and loading floats keep different parts of a CPU busy. */
  void (*gemv_panels)(size_t columns, size_t depth, const float *x, const void *b, int halves, int floats, float *y);
  /* y[rows] = w x for row-major w[rows][depth], float or half. */
  void (*gemv_rows)(size_t rows, size_t depth, const void *w, bool half, size_t row_stride, const float *x, float *y);

  /* Packs a panel for gemm_tile: to[d][tile_columns] = from[j * stride + d], columns n and up zero; halves stay halves when
   * `half` (from_half only), else are widened. */
  void (*pack_panel)(void *to, bool half, const void *from, bool from_half, size_t depth, size_t n, size_t stride);

  /* Up to CML_ATTEND rows times a matrix as it lies, floats or halves, its rows `row` elements apart: y[v * y_stride + c] = the sum over all keys s of
   * p[v * stride + s] * x[s * row + c], c < depth. */
  void (*attend_values)(size_t queries, size_t keys, size_t depth, const float *p, size_t stride, const void *x, bool half, size_t row, float *y, size_t y_stride);

  /* ---- bytes that stand for scale * (byte - zero) ---- */

  size_t integer_rows, integer_columns;
  void (*integer_tile)(const cml_integer_tile *t);
  /* The same with bytes of its own for each column: four of row r and column c at a[r * a_stride + offsets[s] + 4 c], one step a stretch (depth is
   * not looked at). Any number of rows. Of a whole vectors are read: up to integer_columns columns, whatever `columns` is. */
  void (*integer_depthwise)(const cml_integer_tile *t);
  /* z[p * z_pixel + 4 c + r] = rows[r][p * x_pixel + c], or `absent` where rows[r] is NULL; four rows */
  void (*weave_bytes)(const uint8_t *const *rows, uint8_t absent, size_t pixels, size_t channels, size_t x_pixel, uint8_t *z, size_t z_pixel);
  /* The end of such a tile alone, for sums of floats: v = x[r * x_stride + column] * scale + bias, and so on. Any number of rows and columns;
   * with unary_rows at most integer_rows, integer_columns. */
  void (*integer_finish)(const cml_integer_tile *t, const float *x, size_t x_stride);
  /* y[i] = clamp(round(x[i] / scale) + zero, 0, 255), NaN to nan_code; x in halves when half */
  void (*quantize)(const void *x, bool half, size_t n, float scale, int32_t zero, uint8_t nan_code, uint8_t *y);
  /* y[i] = (x[i] - zero) * scale */
  void (*dequantize)(const uint8_t *x, size_t n, float scale, int32_t zero, void *y, bool half);
  /* y[i] = round(clamp(x1[i] * scale1 + x2[i] * scale2 + bias, low, high)) + zero */
  void (*add_bytes)(const uint8_t *x1, const uint8_t *x2, size_t n, float scale1, float scale2, float bias, float low, float high, int32_t zero,
                    uint8_t *y);
  void (*map_bytes)(const uint8_t *x, size_t n, const uint8_t *table, uint8_t *y); /* y[i] = table[x[i]], 256 entries */
  /* One pixel of a maximum pooling: y[c] = the largest x[t][c]. taps > 0. */
  void (*max_bytes)(size_t taps, const uint8_t *const *x, size_t channels, uint8_t *y);
  void (*transpose_8)(size_t rows, size_t columns, const uint8_t *x, size_t x_stride, uint8_t *y, size_t y_stride);

  /* ---- products with compressed weights ---- */

  /* Whether the other three can work with this matrix: rows of whole bytes, blocks that do not cut a vector's lanes. */
  bool (*compressed_fits)(const cml_compressed *w);
  /* Elements of the depth that are best multiplied apart, a multiple of 128, where arranged vectors are tables many times their size, so that threads
   * make tables of their own; the depth: all at once. */
  size_t (*compressed_depth)(const cml_compressed *w);
  /* Bytes that the matrix takes when its codes are packed for the next three functions, about as many as codes; 0: it is not to be packed. */
  size_t (*compressed_bytes)(const cml_compressed *w);
  /* Packs rows [begin, end), begin a multiple of CML_COMPRESSED_ROWS and end, too, or the last row's. to: of all rows, at a cache line. */
  void (*compressed_pack)(const cml_compressed *w, size_t begin, size_t end, void *to);
  size_t (*compressed_room)(const cml_compressed *w); /* floats of an arranged vector */
  /* x[depth] in the order in which codes come out of their words. */
  void (*compressed_arrange)(const cml_compressed *w, const float *x, float *arranged);
  /* y[v * y_stride + n] = row n times vector v, for rows [begin, end), when packed as for compressed_pack; x: arranged
   * vectors, compressed_room apart. */
  void (*compressed_product)(const cml_compressed *w, size_t begin, size_t end, const float *x, size_t vectors, float *y, size_t y_stride);

  /* ---- convolution ---- */

  void (*depthwise)(const cml_depthwise *d);
  /* Winograd's F(4 x 4, 3 x 3), channels last. Input: the 6 x 6 pixels at x become 36 vectors, number i at v + i * v_stride.
   * Output: 36 vectors of sums become 4 x 4 pixels at y, of which the first rows x columns are written, with bias and clamp. */
  void (*winograd_input)(size_t channels, const float *x, size_t pixel, size_t row, float *v, size_t v_stride);
  void (*winograd_output)(size_t outputs, const float *m, size_t m_stride, const float *bias, float low, float high, float *y, size_t pixel,
                          size_t row, size_t rows, size_t columns);

  /* One output pixel of a pooling with the channels last, x and y half or float: y[c] = maximum (NaN when one is) of x[t][c], or
   * their sum times 1 / divisor. taps > 0. */
  void (*pool_pixel)(bool max, bool half, size_t taps, const void *const *x, size_t channels, float divisor, void *y);
  /* Pooling of planes, in two steps. Rows of a window, half or float, of `width` elements become a line: line[i] = the fold of rows[t][i], and of line[i]
   * where it is `begun`; a maximum is NaN when one is. Then y[i], half or float, = the fold of line[i * stride + v] over v < kernel, times
   * scales[i] * scale where there are scales; the root where the line is one of squares. CML_POOL_APART floats behind what the outputs read are read as well. */
  void (*pool_rows)(cml_pool_fold fold, bool half, size_t taps, const void *const *rows, size_t width, bool begun, float *line);
  void (*pool_line)(cml_pool_fold fold, const float *line, size_t kernel, size_t stride, size_t outputs, const float *scales, float scale, bool half, void *y);
  /* Both steps in registers: strides 1 and 2, lines of a vector and more, kernels of up to stride vectors. False, and nothing done: it is none such. */
  bool (*pool_slide)(cml_pool_fold fold, const cml_pool_line *line);
  /* Lines of 3 x 3 windows, each row read once for all of them: at least a vector of outputs and at most one element of padding at each side. False, and nothing done: else. */
  bool (*pool_strip)(cml_pool_fold fold, const cml_pool_strip *strip);
  /* Sampling, n <= CML_SAMPLES. Neighbours of coordinates along an axis of `size` > 0 elements (at: as many as whole vectors have, any
   * values beyond n): the nearest whole one (halves up) alone, or the two around it. What is outside is padding, for NaN all of it; with `border`
   * it is the element at that end, for NaN the first. */
  void (*sample_axis)(const double *at, size_t n, int32_t size, bool border, bool nearest, cml_axis_points *to);
  /* of a plane whose rows have `width` elements, fewer than 2^31 in all */
  void (*sample_points)(const cml_axis_points *rows, const cml_axis_points *columns, size_t n, int32_t width, float pad, cml_plane_points *to);
  /* y[i] = the weighted sum of what x holds at the neighbours of point i; neighbours of weight 0 do not count, whatever they are */
  void (*sample_plane)(const cml_plane_points *points, size_t n, const void *x, bool half, void *y);
  /* The first of CML_SORT_COLUMNS columns side by side. Keys of n floats in their order, NaN last; and row `number` of keys among the sorted
   * levels of keys and of their rows' numbers, CML_SORT_COLUMNS a level, behind equal ones. The last falls out; to grow, it is one more level. */
  void (*sort_keys)(const float *x, size_t n, bool descending, int32_t *keys);
  void (*sort_insert)(size_t levels, bool grow, const int32_t *row, int32_t number, int32_t *keys, int32_t *rows);
  /* Between neighbours of x[count], which y is not: y[i] = x[low[i]] + weight[i] (x[low[i] + 1] - x[low[i]]), and x[low[i]] alone where the weight
   * is 0. low[i] never falls. */
  void (*interpolate)(size_t n, const int32_t *low, const float *weight, const float *x, size_t count, float *y);
  const cml_fourier_kernels *fourier, *fourier64; /* of floats, of doubles */
  /* Up to CML_PLANE_OUTPUTS lines of n sums. Whole vectors where n is a multiple of the width. */
  void (*plane_taps)(const cml_plane_taps *t);
  /* sums[c] = sum over p of x[p * pixel + c] */
  void (*channel_sums)(size_t pixels, size_t channels, const void *x, bool half, size_t pixel, float *sums);
  /* Over pixels of `channels` neighbouring floats: sum[c] += x - shift[c], squares[c] += (x - shift[c])^2. */
  void (*channel_moments)(size_t pixels, size_t channels, const float *x, const float *shift, float *sum, float *squares);
  /* y = x * scale[c] + bias[c] */
  void (*scale_channels)(size_t pixels, size_t channels, const float *x, size_t x_pixel, float *y, size_t y_pixel, const float *scale, const float *bias);
  /* y[c * y_stride + r] = x[r * x_stride + c] */
  void (*transpose)(size_t rows, size_t columns, const float *x, size_t x_stride, float *y, size_t y_stride);
  void (*transpose_16)(size_t rows, size_t columns, const uint16_t *x, size_t x_stride, uint16_t *y, size_t y_stride); /* any 16 bits */
} cml_kernels;

/* Parts of each number where matrix units multiply it. */
static inline size_t cml_part_count(const cml_kernels *k, bool half) { return half ? k->half_parts : 3; }
static inline void cml_parts_begin(void *room) { *(const void **)room = NULL; }
/* Bytes of a panel of packed weights, floats or halves, of so many rows. */
static inline size_t cml_panel_bytes(const cml_kernels *k, bool half, size_t depth) { return depth * k->tile_columns * (half ? 2 : 4); }

/* The best table for this CPU, or the one chosen by cml_kernels_use. */
CML_API const cml_kernels *cml_kernels_get(void);
/* Tables that this CPU can run, slowest ("portable") first; NULL after the last. */
CML_API const cml_kernels *cml_kernels_at(size_t i);
/* Chooses a table by name for all that is prepared afterwards; NULL or "": the best. For tests and measurements, before any
 * model is prepared: packed weights have the shape of the table they were packed for. CML_NOT_FOUND when this CPU or build
 * has none of the name. */
CML_API CML_NODISCARD cml_status cml_kernels_use(const char *name, cml_error *err);

#endif
