/* Convolutions of one to three spatial dimensions, computed with the channels last.
 *
 * A block of output pixels is one thread's work. What it needs of the input is used in place where it lies there as it should
 * (channels last, float, nothing of it in the padding), else brought into scratch memory that way. Then each tap of the kernel
 * is a matrix product of pixels x channels with channels x outputs, whose sums stay in the block; neighbouring taps of a row
 * join into one product, and convolutions with few channels gather all taps of a pixel first. Depthwise ones have kernels of
 * their own. Other layouts and float16 are met at the borders of a block only.
 *
 * A transposed convolution is stride^dims ordinary ones, each of which makes every stride-th output pixel. So a cml_conv may
 * start anywhere in the input (a negative padding) and places its pixels at any distance. */
#ifndef CML_CONV_H
#define CML_CONV_H

#include "gemm.h"

typedef struct cml_conv {
  size_t batch, channels, outputs, groups; /* channels, outputs: of all groups */
  int64_t in[3];        /* size of the input; unused leading dimensions are 1 */
  int64_t out[3];       /* pixels that this convolution makes */
  int64_t kernel[3], stride[3], dilation[3];
  int64_t offset[3];    /* input coordinate of output 0, tap 0: the negative padding */
  int64_t place[3], step[3], full[3]; /* pixel q goes to place + q * step of an output of size full */
  size_t in_pixel;      /* elements from one pixel to the next with in_last, where they are parts of a larger image; 0: channels */
  size_t out_pixel;     /* elements from one pixel to the next with out_last: outputs, or more where they are parts of a larger image */
  bool in_last, out_last; /* channels last in memory; else right after the batch */
  bool in_half, out_half;
  bool planar;          /* at most two spatial dimensions: in[0] and out[0] are 1 whatever the image's size */
  bool wide;            /* integer.c: weights are sums of two signed bytes each */
  bool plain;           /* no matrix units: what a call computes depends on memory, and its results do not */
  bool winograd;        /* weights are transformed; cml_conv_suits_winograd said yes when they were packed */
} cml_conv;

typedef struct cml_conv_weights {
  const void *packed;
  bool half;
} cml_conv_weights;

enum { CML_CONV_FEW_PIXELS = 64 }; /* for which float16 weights stay halves when they are packed: memory bounds the work */

/* Where weight (output o of its group, channel c of its group, tap) lies: at group * group_stride + o * output_stride +
 * c * channel_stride + start + sum of tap[i] * tap_stride[i], in elements. */
typedef struct cml_conv_source {
  const void *data;
  bool half;
  int64_t group_stride, output_stride, channel_stride, start, tap_stride[3];
  size_t bundle; /* groups of the source in one of the convolution's, whose outputs do not read each other's channels; 0: 1 */
  size_t joined; /* neighbouring pixels of a transposed convolution that are outputs of one pixel, each joined_stride from the last; 0: 1 */
  int64_t joined_stride;
} cml_conv_source;

static inline size_t cml_conv_in_pixel(const cml_conv *v) { return v->in_pixel ? v->in_pixel : v->channels; }
static inline size_t cml_conv_taps(const cml_conv *v) { return (size_t)(v->kernel[0] * v->kernel[1] * v->kernel[2]); }
bool cml_conv_is_depthwise(const cml_conv *v);
/* Channels of a group, up to 8, where groups are so narrow that the depthwise kernels work on one or more in a vector; 0: they are not. Decided
 * without the sizes of images, for it decides how weights are packed. */
size_t cml_conv_narrow(const cml_kernels *k, const cml_conv *v);
/* Outputs for each channel, where each has several and the depthwise kernels compute them; 0: they do not. As narrow: without sizes. */
size_t cml_conv_multiplier(const cml_conv *v);
/* How many groups are computed as one, with zeros for weights between them, because their outputs together fit in one vector: the same number
 * of instructions in longer sums. As narrow: without sizes. */
size_t cml_conv_bundle(const cml_kernels *k, const cml_conv *v);
/* Whether a group has so few outputs that its weights lie by output (cml_tile's b_column). */
bool cml_conv_slim(const cml_kernels *k, const cml_conv *v);
/* Whether transformed tiles are worth while: 3 x 3, stride 1, channels last, enough pixels, and channels for the table. */
bool cml_conv_suits_winograd(const cml_kernels *k, const cml_conv *v);
/* Whether a direct convolution goes to the CPU's matrix unit. */
bool cml_conv_suits_parts(const cml_kernels *k, const cml_conv *v);
/* Whether its weights, when halves, are best packed as such. */
bool cml_conv_pack_half(const cml_kernels *k, const cml_conv *v, bool half);
/* Fills the placement of an ordinary convolution, whose pixels are the whole output; out_pixel, too. */
void cml_conv_place_all(cml_conv *v);
/* Leaves out taps that fall outside the image for all outputs, as those of a dilation that is larger than the image do. One stays.
 * Before anything is packed. */
void cml_conv_trim(cml_conv *v, cml_conv_source *from);
size_t cml_conv_packed_bytes(const cml_kernels *k, const cml_conv *v, bool half);
/* Packs all weights; to halves only when the source is of halves (depthwise and Winograd's are widened anyhow). */
void cml_conv_pack(const cml_kernels *k, const cml_conv *v, const cml_conv_source *from, bool half, void *to, cml_pool *pool);
size_t cml_conv_scratch(const cml_kernels *k, const cml_conv *v); /* bytes, for one thread */
size_t cml_conv_shared(const cml_kernels *k, const cml_conv *v, size_t slots); /* bytes, for `slots` threads together, behind the others */

/* All that one run needs, whichever way it is computed. */
typedef struct cml_conv_call {
  const cml_kernels *k;
  const cml_conv *v;
  cml_conv_weights weights;
  cml_epilogue after; /* its residual: channels last, only with out_last and an out_pixel of outputs */
  const void *x;      /* the images, as v says */
  void *y;
  cml_pool *pool;     /* NULL: the caller alone */
  void *scratch;      /* cml_conv_scratch for each of `slots` threads, then cml_conv_shared */
  size_t slots;
  bool turned;        /* depthwise.c: v's rows are the columns of what lies in memory */
} cml_conv_call;

void cml_conv_run(const cml_conv_call *call);

enum { CML_DEPTHWISE_ROWS = 32 }; /* of a kernel, at most */
/* depthwise.c: images with the channels last; groups of one channel or of few */
bool cml_depthwise_fits(const cml_kernels *k, const cml_conv *v);
size_t cml_depthwise_scratch(const cml_kernels *k, const cml_conv *v);
bool cml_depthwise_shares(const cml_kernels *k, const cml_conv *v); /* neighbouring pixels of few channels share vectors */
void cml_depthwise_run(const cml_conv_call *call);
/* One row of outputs of `channels` channels from c on, and what follows it. from: where the input lies (rows, x_half, first, columns, pixel).
 * sums: out[2] * channels floats. */
void cml_depthwise_row(const cml_conv_call *call, int64_t image, int64_t row, size_t c, size_t channels, const cml_depthwise *from, float *sums);

/* planes.c: many groups of few channels, the channels first. Decided without the sizes of images. */
bool cml_planes_fit(const cml_conv *v);
size_t cml_planes_packed_bytes(const cml_conv *v);
size_t cml_planes_scratch(const cml_conv *v); /* bytes, for one thread */
void cml_planes_run(const cml_conv_call *call);

/* conv_pair.c: a convolution of single pixels and the depthwise one that alone reads what it makes, which never is in memory as a whole. */
typedef struct cml_conv_pair {
  cml_conv_call second; /* x: what the first reads, as the second's in_half and in_last say; no padding of its own */
  size_t depth;         /* channels of x */
  const void *packed;   /* the first's weights, by cml_pack_panels */
  bool half;
  cml_epilogue before;  /* no residual */
} cml_conv_pair;

/* Whether rows enough for one row of outputs fit near the CPU. */
bool cml_conv_pair_fits(const cml_kernels *k, const cml_conv *second);
size_t cml_conv_pair_scratch(const cml_kernels *k, const cml_conv *second, size_t threads); /* bytes, for one of them */
void cml_conv_pair_run(const cml_conv_pair *pair);

/* conv_pack.c */
enum { CML_CONV_COLUMNS = 32, CML_CONV_ROWS = 36 }; /* of a panel, at most; rows at once, four channels of 3 x 3: 4.5 KB of each thread's stack */
/* What is packed, by which table, and where to. */
typedef struct cml_conv_packing {
  const cml_kernels *k;
  const cml_conv *v;
  const cml_conv_source *from;
  bool half;
  void *to;
} cml_conv_packing;
size_t cml_conv_group_bytes(const cml_kernels *k, const cml_conv *v, bool half);
/* Neighbouring taps of a row whose channels are one stretch of the depth. */
static inline size_t cml_conv_joined(const cml_conv *v) { return v->dilation[2] == 1 && (v->groups == 1 || v->kernel[2] == 1) ? (size_t)v->kernel[2] : 1; }
/* Rows [first, first + n) of a panel's weights, floats or halves as they are packed, as [channel][tap][tile_columns]; n <= CML_CONV_ROWS. */
void cml_conv_weight_rows(const cml_conv_packing *p, size_t group, size_t panel, size_t first, size_t n, void *to);

/* im2col.c: images of few pixels, few enough for the weights to be read once for all */
bool cml_im2col_suits(const cml_kernels *k, const cml_conv *v);
size_t cml_im2col_shared(const cml_conv *v); /* bytes, behind cml_gemm_scratch_without_parts for each slot */
void cml_im2col_run(const cml_conv_call *call);

/* winograd.c */
size_t cml_winograd_packed_bytes(const cml_kernels *k, const cml_conv *v);
void cml_winograd_pack(cml_conv_packing *p, cml_pool *pool);
size_t cml_winograd_scratch(const cml_kernels *k, const cml_conv *v);
size_t cml_winograd_shared(const cml_kernels *k, const cml_conv *v, size_t slots);
void cml_winograd_run(const cml_conv_call *call);

#endif
