/* Convolutions of few pixels as plain products: all that a pixel's taps meet is written side by side, once, so that a panel of weights,
 * which comes from memory, is read for all pixels at a time and in pieces that stay in the first-level cache, however narrow an image's
 * rows are. */
#include "conv.h"
#include "sizes.h"

#include <string.h>

enum {
  MOST_FLOATS = 1 << 20, /* gathered at a time */
  PAD = 16,              /* rows a multiple of 4 KiB apart share few sets of the cache */
  LEAST_OUTPUTS = 64,    /* that meet what was gathered */
  LEAST_DEPTH = 1024
};

typedef struct job {
  const cml_conv_call *c;
  float *rows;
  size_t row, first; /* floats of a row; pixels before the first */
} job;

static size_t pixels(const cml_conv *v) { return (size_t)(v->out[0] * v->out[1] * v->out[2]); }
static size_t depth(const cml_conv *v) { return cml_conv_taps(v) * v->channels; }

static size_t images(const cml_conv *v) { return least(v->batch, MOST_FLOATS / (pixels(v) * (depth(v) + PAD)) + 1); }

bool cml_im2col_suits(const cml_kernels *k, const cml_conv *v) {
  bool fits = v->groups == 1 && v->in_last && v->out_last && !v->winograd && !cml_conv_slim(k, v) && v->outputs >= LEAST_OUTPUTS && cml_conv_taps(v) > 1;
  for (int i = 0; i < 3; i++) fits = fits && v->out[i] > 0 && v->step[i] == 1 && v->place[i] == 0 && v->full[i] == v->out[i];
  return fits && pixels(v) <= CML_CONV_FEW_PIXELS && depth(v) >= LEAST_DEPTH && !cml_conv_suits_parts(k, v);
}

size_t cml_im2col_shared(const cml_conv *v) { return images(v) * pixels(v) * (depth(v) + PAD) * sizeof(float); }

/* Taps of a row of the kernel for one pixel: zeros where they are outside. */
static float *gather_row(const job *j, size_t image, int64_t d, int64_t h, int64_t w, float *to) {
  const cml_conv *v = j->c->v;
  const size_t n = v->channels, pixel = cml_conv_in_pixel(v), size = v->in_half ? 2 : 4;
  const bool outside = d < 0 || d >= v->in[0] || h < 0 || h >= v->in[1];
  const int64_t line = ((int64_t)image * v->in[0] + d) * v->in[1] + h;
  for (int64_t t = 0; t < v->kernel[2]; t++, to += n) {
    const int64_t x = w + t * v->dilation[2];
    if (outside || x < 0 || x >= v->in[2]) {
      memset(to, 0, n * sizeof(float));
      continue;
    }
    const void *from = (const char *)j->c->x + (size_t)(line * v->in[2] + x) * pixel * size;
    if (v->in_half) j->c->k->f16_to_f32(from, to, n);
    else memcpy(to, from, n * sizeof(float));
  }
  return to;
}

/* Units are rows of the kernel, of all pixels one after the other. */
static void gather(void *context, size_t begin, size_t end) {
  const job *j = context;
  const cml_conv *v = j->c->v;
  const size_t each = (size_t)(v->kernel[0] * v->kernel[1]), piece = (size_t)v->kernel[2] * v->channels;
  for (size_t i = begin; i < end; i++) {
    const size_t at = j->first + i / each, pixel = at % pixels(v), plane = (size_t)(v->out[1] * v->out[2]), part = i % each;
    const int64_t od = (int64_t)(pixel / plane), oh = (int64_t)(pixel % plane) / v->out[2], ow = (int64_t)(pixel % plane) % v->out[2];
    const int64_t kd = (int64_t)part / v->kernel[1], kh = (int64_t)part % v->kernel[1];
    gather_row(j, at / pixels(v), od * v->stride[0] + v->offset[0] + kd * v->dilation[0], oh * v->stride[1] + v->offset[1] + kh * v->dilation[1],
               ow * v->stride[2] + v->offset[2], j->rows + i / each * j->row + part * piece);
  }
}

void cml_im2col_run(const cml_conv_call *c) {
  const cml_conv *v = c->v;
  const size_t slot = cml_gemm_scratch_without_parts(), some = images(v), size = v->out_half ? 2 : 4;
  job j = {.c = c, .rows = (float *)(void *)((char *)c->scratch + c->slots * up(slot, 64)), .row = depth(v) + PAD};
  for (size_t image = 0; image < v->batch; image += some) {
    const size_t rows = least(v->batch - image, some) * pixels(v), at = image * pixels(v) * v->out_pixel * size;
    j.first = image * pixels(v);
    cml_parallel(c->pool, rows * (size_t)(v->kernel[0] * v->kernel[1]), 1 + 4096 / ((size_t)v->kernel[2] * v->channels), gather, &j);
    cml_gemm g = {.rows = rows, .columns = v->outputs, .depth = depth(v), .a = j.rows, .a_stride = j.row, .a_depth_stride = 1, .b = c->weights.packed, .b_half = c->weights.half,
                  .c = (char *)c->y + at, .c_stride = v->out_pixel, .c_half = v->out_half, .scratch = up(slot, 64), .after = c->after};
    if (g.after.residual) g.after.residual = (const char *)g.after.residual + at;
    cml_gemm_run(c->k, &g, 1, c->pool, c->scratch, c->slots);
  }
}
