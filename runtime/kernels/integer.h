/* Convolutions and linear layers of bytes with signed bytes, summed exactly in integers: the drivers over the tables' integer_tile.
 *
 * Images have their channels last; cml_conv says their sizes as it does for floats (in_half and out_half mean nothing here). A linear layer is
 * a convolution of one pixel's kernel over a row of pixels. Kernels of one pixel read the image in place; others bring the rows
 * that a block of output rows needs into scratch memory, with the byte that stands for zero around the image. */
#ifndef CML_INTEGER_H
#define CML_INTEGER_H

#include "conv.h"

/* Whether the convolution can be computed so: two spatial dimensions, groups of whole words of channels, sums that fit 32 bits. Decided
 * without the sizes of images. */
bool cml_integer_fits(const cml_conv *v);
size_t cml_integer_packed_bytes(const cml_kernels *k, const cml_conv *v);
/* Packs w[outputs][channels of a group][kernel], less zero[o] (NULL: 0), which leaves them within a signed byte, or [-256, 254] when v->wide;
 * sums: of each output's. */
void cml_integer_pack(const cml_kernels *k, const cml_conv *v, const void *w, bool is_signed, const int32_t *zero, void *to, int32_t *sums,
                      cml_pool *pool);
size_t cml_integer_scratch(const cml_kernels *k, const cml_conv *v); /* bytes, for one thread */

typedef struct cml_integer_call {
  const cml_kernels *k;
  const cml_conv *v;
  const void *packed;
  cml_integer_tile after; /* what follows the sums: start, scale, bias, residual and c of the whole output; the rest is filled in */
  const uint8_t *table;   /* bytes are looked up in it at the end; NULL: they are not */
  const uint8_t *x;
  uint8_t x_zero;         /* stands for zero: what is around the image */
  cml_pool *pool;
  void *scratch;          /* cml_integer_scratch for each of `slots` threads */
  size_t slots;
} cml_integer_call;

void cml_integer_run(const cml_integer_call *call);

/* integer_depthwise.c: a channel for each output; weights of bytes, packed as here, or (floats) of cml_conv_pack. One scratch a thread. */
bool cml_integer_depthwise_fits(const cml_conv *v);
size_t cml_integer_depthwise_packed_bytes(const cml_kernels *k, const cml_conv *v);
void cml_integer_depthwise_pack(const cml_kernels *k, const cml_conv *v, const void *w, bool is_signed, const int32_t *zero, void *to, int32_t *sums);
size_t cml_integer_depthwise_scratch(const cml_kernels *k, const cml_conv *v, bool floats);
void cml_integer_depthwise_run(const cml_integer_call *call, bool floats);

/* integer_floats.c: the same for any convolution of two spatial dimensions, with packed float weights (cml_conv_pack); `start` is not
 * looked at. */
size_t cml_integer_floats_scratch(const cml_kernels *k, const cml_conv *v);
void cml_integer_floats_run(const cml_integer_call *call);

#endif
