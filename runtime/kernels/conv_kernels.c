/* Convolution kernels that are no matrix products, compiled once for each instruction set; see kernels.h. */
#include <math.h>

#include "kernels_internal.h"
#include "simd.h"
#include "winograd.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

VINLINE vf load_some(const float *p, size_t n) { return n >= W ? vf_load(p) : vf_load_n(p, n); }

/* ---- depthwise ---- */

static const float zeros[W];

enum { FLOATS, HALVES, BYTES };
VINLINE size_t x_size(const int kind) { return kind == BYTES ? 1 : kind == HALVES ? 2 : 4; }

VINLINE vf x_load(const void *p, const int kind, vi zero, size_t n) {
  if (kind == BYTES) return vf_from_int((n >= W ? bytes_load(p) : bytes_load_n(p, n)) - zero);
  if (kind == HALVES) return n >= W ? vh_load(p) : vh_load_n(p, n);
  return n >= W ? vf_load(p) : vf_load_n(p, n);
}

/* A vector that stands for zeros. */
VINLINE const void *x_nothing(const int kind, vi zero, uint8_t *room) {
  if (kind == BYTES) bytes_store(room, zero);
  return kind == BYTES ? (const void *)room : zeros;
}

VINLINE void depthwise_store(const cml_depthwise *d, size_t o, size_t c, vf v, size_t n) {
  v = vf_min(vf_set1(d->high), vf_max(vf_set1(d->low), v));
  if (d->y_half) {
    cml_f16 *to = (cml_f16 *)d->y + o * d->y_pixel + c;
    if (n >= W) vh_store(to, v);
    else vh_store_n(to, v, n);
  } else {
    float *to = (float *)d->y + o * d->y_pixel + c;
    if (n >= W) vf_store(to, v);
    else vf_store_n(to, v, n);
  }
}

/* Outputs [o, o + together) of one vector of channels. What d says is read before the first store, which may be to anywhere as far as compilers know. */
VINLINE void depthwise_store_all(const int together, const cml_depthwise *d, size_t o, size_t c, vf *acc, size_t outputs) {
  const size_t pixel = d->y_pixel * (d->y_half ? 2 : 4);
  const bool half = d->y_half;
  char *to = (char *)d->y + o * pixel + c * (half ? 2 : 4);
  if (d->low > -INFINITY) { /* extremes keep units busy that multiply */
    const vf low = vf_set1(d->low);
    UNROLL for (int i = 0; i < together; i++) acc[i] = vf_max(low, acc[i]);
  }
  if (d->high < INFINITY) {
    const vf high = vf_set1(d->high);
    UNROLL for (int i = 0; i < together; i++) acc[i] = vf_min(high, acc[i]);
  }
  UNROLL for (int i = 0; i < together; i++, to += pixel) {
    if (o + (size_t)i >= outputs) break;
    if (half) vh_store((cml_f16 *)(void *)to, acc[i]);
    else vf_store((float *)(void *)to, acc[i]);
  }
}

/* Which columns may be outside, and are read as zeros: of half a kernel at both ends, as where images are padded to keep their size; or any. */
enum edge { INSIDE, ENDS, ANY };

/* `together` outputs of one vector of channels, for small kernels without dilation: each input column is loaded once for all taps
 * that want it. */
VINLINE void depthwise_together(const int together, const int kw, const int stride, const int kind, const enum edge edge, const cml_depthwise *d,
                                size_t o, size_t c) {
  const int columns = (together - 1) * stride + kw;
  const size_t size = x_size(kind), step = d->pixel * size, rows = d->kh, w_stride = d->w_stride;
  uint8_t room[W];
  const vi zero = vi_set1(d->x_zero);
  const void *nothing = x_nothing(kind, zero, room);
  vf acc[8], bias = d->bias ? vf_load(d->bias + c) : vf_zero();
  const int64_t first = d->first + (int64_t)o * stride;
  const uint64_t inside = (uint64_t)d->columns;
  const float *w = d->w + c;
  UNROLL for (int i = 0; i < together; i++) acc[i] = bias;
  for (size_t r = 0; r < rows; r++, w += (size_t)kw * w_stride) {
    if (!d->rows[r]) continue;
    const char *x_at = (const char *)d->rows[r] + c * size + first * (int64_t)step;
    vf weight[7];
    UNROLL for (int t = 0; t < kw; t++) weight[t] = vf_load(w + (size_t)t * w_stride);
    UNROLL for (int i = 0; i < columns; i++, x_at += step) {
      const bool asked = edge == ANY || (edge == ENDS && (i < kw / 2 || i >= columns - kw / 2));
      vf x = x_load(asked && (uint64_t)(first + i) >= inside ? nothing : x_at, kind, zero, W);
      UNROLL for (int t = 0; t < kw; t++)
        if (i >= t && (i - t) % stride == 0 && (i - t) / stride < together) acc[(i - t) / stride] = vf_fma(x, weight[t], acc[(i - t) / stride]);
    }
  }
  depthwise_store_all(together, d, o, c, acc, edge == ANY && together > 1 ? d->outputs : SIZE_MAX);
}

/* What the lanes of a vector of outputs read: each its own channel, all channels of its group, or one that several outputs share. */
enum reads { OWN, GROUP, SHARED };

/* For each lane that of its group's first channel. */
VINLINE vi group_first(size_t group) {
  if (!(group & (group - 1))) return vi_iota() & ~(int32_t)(group - 1);
  return vf_int(vf_floor((vf_from_int(vi_iota()) + 0.5f) / (float)group)) * (int32_t)group;
}

/* Several outputs of any kernel: each weight is loaded once for all of them. GROUP: lanes of `base` choose the channels of it, one
 * after the other. SHARED: so do they, once. edge: some columns are outside, and read as zeros. n: outputs, W or fewer. */
VINLINE void depthwise_several(const int together, const int kind, const enum reads reads, const bool edge, const cml_depthwise *d, size_t o, size_t c, size_t n) {
  const bool grouped = reads == GROUP, shared = reads == SHARED;
  const size_t size = x_size(kind), group = grouped ? d->group : 1, from = shared ? c / d->multiplier : c;
  const size_t wanted = shared ? (c + n - 1) / d->multiplier - from + 1 : n;
  uint8_t room[W];
  const vi zero = vi_set1(d->x_zero);
  const void *nothing = x_nothing(kind, zero, room);
  const int64_t first = d->first + (int64_t)o * d->stride, step = d->stride * (int64_t)(d->pixel * size);
  vf acc[8], bias = d->bias ? load_some(d->bias + c, n) : vf_zero();
  vi base = grouped ? group_first(group) : vi_iota();
  for (size_t i = 0; shared && i < W; i++) base[i] = (int32_t)(((c + i) / d->multiplier - from) % W); /* lanes beyond n read anything */
  UNROLL for (int i = 0; i < together; i++) acc[i] = bias;
  for (size_t r = 0; r < d->kh; r++) {
    if (!d->rows[r]) continue;
    const char *row = (const char *)d->rows[r] + from * size;
    const float *w = d->w + r * d->kw * group * d->w_stride + c;
    for (size_t t = 0; t < d->kw; t++) {
      const int64_t column = first + (int64_t)t * d->dilation, at = column * (int64_t)(d->pixel * size);
      vf x[8];
      UNROLL for (int i = 0; i < together; i++) {
        bool outside = edge && (column + i * d->stride < 0 || column + i * d->stride >= d->columns);
        x[i] = x_load(outside ? nothing : row + at + i * step, kind, zero, wanted);
      }
      for (size_t k = 0; k < group; k++, w += d->w_stride) {
        vf weight = load_some(w, n);
        UNROLL for (int i = 0; i < together; i++) acc[i] = vf_fma(grouped || shared ? vf_permute(x[i], base + (int32_t)k) : x[i], weight, acc[i]);
      }
    }
  }
  UNROLL for (int i = 0; i < together; i++)
    if (!edge || together == 1 || o + (size_t)i < d->outputs) depthwise_store(d, o + (size_t)i, c, acc[i], n);
}

/* Several outputs of a kernel of any width, stride 1 and no dilation: the columns under a tap are those under the one before, but for one. */
VINLINE void depthwise_sliding(const int together, const int kind, const cml_depthwise *d, size_t o, size_t c) {
  const size_t size = x_size(kind), step = d->pixel * size, kw = d->kw, w_stride = d->w_stride;
  uint8_t room[W];
  const vi zero = vi_set1(d->x_zero);
  const void *nothing = x_nothing(kind, zero, room);
  vf acc[8], x[8], bias = d->bias ? vf_load(d->bias + c) : vf_zero();
  const int64_t first = d->first + (int64_t)o;
  const uint64_t inside = (uint64_t)d->columns;
  const float *w = d->w + c;
  UNROLL for (int i = 0; i < together; i++) acc[i] = bias;
  for (size_t r = 0; r < d->kh; r++) {
    if (!d->rows[r]) {
      w += kw * w_stride;
      continue;
    }
    const char *at = (const char *)d->rows[r] + c * size + first * (int64_t)step;
    uint64_t column = (uint64_t)first;
    UNROLL for (int i = 0; i < together - 1; i++, at += step, column++) x[i] = x_load(column >= inside ? nothing : at, kind, zero, W);
    for (size_t t = 0; t < kw; t += (size_t)together)
      UNROLL for (int u = 0; u < together; u++)
        if (t + (size_t)u < kw) {
          vf weight = vf_load(w);
          x[(u + together - 1) % together] = x_load(column >= inside ? nothing : at, kind, zero, W);
          UNROLL for (int i = 0; i < together; i++) acc[i] = vf_fma(x[(u + i) % together], weight, acc[i]);
          at += step, column++, w += w_stride;
        }
  }
  depthwise_store_all(together, d, o, c, acc, d->outputs);
}

/* Groups of channels in kernels three wide: the weights of a row's taps and one channel of the group stay in registers, and each
 * column is loaded once for all taps that want it. */
VINLINE void grouped_together(const int together, const int stride, const bool half, const cml_depthwise *d, size_t o, size_t c) {
  enum { KW = 3 };
  const int columns = (together - 1) * stride + KW;
  const size_t size = half ? 2 : 4;
  vf acc[8], bias = d->bias ? vf_load(d->bias + c) : vf_zero();
  vi base = vi_iota() & ~(int32_t)(d->group - 1);
  UNROLL for (int i = 0; i < together; i++) acc[i] = bias;
  for (size_t r = 0; r < d->kh; r++) {
    if (!d->rows[r]) continue;
    const char *row = (const char *)d->rows[r] + ((size_t)(d->first + (int64_t)o * stride) * d->pixel + c) * size;
    const float *w = d->w + r * KW * d->group * d->w_stride + c;
    for (size_t k = 0; k < d->group; k++) {
      vf weight[KW];
      vi from = base + (int32_t)k;
      UNROLL for (int t = 0; t < KW; t++) weight[t] = vf_load(w + ((size_t)t * d->group + k) * d->w_stride);
      UNROLL for (int i = 0; i < columns; i++) {
        const void *p = row + (size_t)i * d->pixel * size;
        vf x = vf_permute(half ? vh_load(p) : vf_load(p), from);
        UNROLL for (int t = 0; t < KW; t++)
          if (i >= t && (i - t) % stride == 0 && (i - t) / stride < together) acc[(i - t) / stride] = vf_fma(x, weight[t], acc[(i - t) / stride]);
      }
    }
  }
  UNROLL for (int i = 0; i < together; i++) depthwise_store(d, o + (size_t)i, c, acc[i], W);
}

/* One output of any kernel. */
static void depthwise_one(const cml_depthwise *d, size_t o, size_t c, size_t n) {
  vf acc = d->bias ? load_some(d->bias + c, n) : vf_zero();
  const int kind = d->x_bytes ? BYTES : d->x_half ? HALVES : FLOATS;
  size_t size = x_size(kind), group = d->group > 1 ? d->group : 1;
  vi base = group_first(group);
  for (size_t r = 0; r < d->kh; r++) {
    if (!d->rows[r]) continue;
    for (size_t t = 0; t < d->kw; t++) {
      int64_t column = d->first + (int64_t)o * d->stride + (int64_t)t * d->dilation;
      if (column < 0 || column >= d->columns) continue;
      vf x = x_load((const char *)d->rows[r] + ((size_t)column * d->pixel + c) * size, kind, vi_set1(d->x_zero), n);
      for (size_t k = 0; k < group; k++)
        acc = vf_fma(group > 1 ? vf_permute(x, base + (int32_t)k) : x, load_some(d->w + ((r * d->kw + t) * group + k) * d->w_stride + c, n), acc);
    }
  }
  depthwise_store(d, o, c, acc, n);
}

enum { TOGETHER = CML_TILE_MAX > 4 ? 7 : 4, FEW = CML_TILE_MAX > 4 ? 4 : 2 }; /* outputs at once */

/* The next outputs: where fewer than TOGETHER are left, some are computed once more. Rows shorter than that are computed at once, with
 * outputs behind their end (at an edge) that nobody stores. */
VINLINE size_t next_outputs(const cml_depthwise *d, size_t *o) {
  if (d->outputs >= TOGETHER && d->outputs - *o < TOGETHER) *o = d->outputs - TOGETHER;
  return d->outputs == 1 ? 1 : d->outputs <= FEW ? FEW : TOGETHER;
}

VINLINE void depthwise_columns(const int kw, const int stride, const int kind, const cml_depthwise *d, size_t c) {
  for (size_t o = 0, step; o < d->outputs; o += step) {
    step = next_outputs(d, &o);
    int64_t before = -(d->first + (int64_t)o * stride), behind = (int64_t)(step - 1) * stride + kw - before - d->columns;
    if (step == 1) depthwise_together(1, kw, stride, kind, ANY, d, o, c);
    else if (step == FEW) depthwise_together(FEW, kw, stride, kind, ANY, d, o, c);
    else if (before <= 0 && behind <= 0) depthwise_together(TOGETHER, kw, stride, kind, INSIDE, d, o, c);
    else if (before <= kw / 2 && behind <= kw / 2 && o + TOGETHER <= d->outputs) depthwise_together(TOGETHER, kw, stride, kind, ENDS, d, o, c);
    else depthwise_together(TOGETHER, kw, stride, kind, ANY, d, o, c);
  }
}

static bool inside(const cml_depthwise *d, size_t o, size_t outputs) {
  int64_t first = d->first + (int64_t)o * d->stride;
  return first >= 0 && first + (int64_t)(outputs - 1) * d->stride + (int64_t)(d->kw - 1) * d->dilation < d->columns;
}

/* Any other kernel; kw three wide and stride 1 or 2, when they are not 0, are known to be so. */
VINLINE void any_columns(const int kw, const int stride, const int kind, const bool grouped, const cml_depthwise *d, size_t c) {
  for (size_t o = 0, step; o < d->outputs; o += step) {
    step = next_outputs(d, &o);
    if (step == 1) depthwise_one(d, o, c, W);
    else if (step == FEW) depthwise_several(FEW, kind, grouped ? GROUP : OWN, true, d, o, c, W);
    else if (!inside(d, o, TOGETHER)) depthwise_several(TOGETHER, kind, grouped ? GROUP : OWN, true, d, o, c, W);
    else if (kw) grouped_together(TOGETHER, stride, kind == HALVES, d, o, c);
    else depthwise_several(TOGETHER, kind, grouped ? GROUP : OWN, false, d, o, c, W);
  }
}

VINLINE void sliding_columns(const int kind, const cml_depthwise *d, size_t c) {
  for (size_t o = 0, step; o < d->outputs; o += step) {
    step = next_outputs(d, &o);
    if (step == 1) depthwise_one(d, o, c, W);
    else if (step == FEW) depthwise_sliding(FEW, kind, d, o, c);
    else depthwise_sliding(TOGETHER, kind, d, o, c);
  }
}

/* One function for each kind: compilers spill in one that holds all cases. */
VINLINE void depthwise_kind(const int kind, const cml_depthwise *d, size_t c) {
  const bool grouped = d->group > 1, plain = d->dilation == 1 && !grouped;
  if (plain && d->kw == 3 && d->stride == 1) depthwise_columns(3, 1, kind, d, c);
  else if (plain && d->kw == 3 && d->stride == 2) depthwise_columns(3, 2, kind, d, c);
  else if (plain && d->kw == 5 && d->stride == 1) depthwise_columns(5, 1, kind, d, c);
  else if (plain && d->kw == 5 && d->stride == 2) depthwise_columns(5, 2, kind, d, c);
  else if (plain && d->kw == 7 && d->stride == 1 && kind != BYTES) depthwise_columns(7, 1, kind, d, c);
  else if (kind != BYTES && grouped && d->dilation == 1 && d->kw == 3 && d->stride == 1) any_columns(3, 1, kind, true, d, c);
  else if (kind != BYTES && grouped && d->dilation == 1 && d->kw == 3 && d->stride == 2) any_columns(3, 2, kind, true, d, c);
  else if (kind != BYTES && grouped) any_columns(0, 0, kind, true, d, c);
  else if (plain && d->kw > 1 && d->stride == 1) sliding_columns(kind, d, c);
  else any_columns(0, 0, kind, false, d, c);
}

static __attribute__((noinline)) void depthwise_floats(const cml_depthwise *d, size_t c) { depthwise_kind(FLOATS, d, c); }
static __attribute__((noinline)) void depthwise_halves(const cml_depthwise *d, size_t c) { depthwise_kind(HALVES, d, c); }
static __attribute__((noinline)) void depthwise_bytes(const cml_depthwise *d, size_t c) { depthwise_kind(BYTES, d, c); }

static void depthwise_vector(const cml_depthwise *d, size_t c) {
  if (d->x_bytes) depthwise_bytes(d, c);
  else if (d->x_half) depthwise_halves(d, c);
  else depthwise_floats(d, c);
}

/* Fewer channels than a vector has lanes; two outputs at least. */
VINLINE void few_channels(const int kind, const cml_depthwise *d) {
  for (size_t o = 0; o < d->outputs; o += TOGETHER) {
    next_outputs(d, &o);
    if (!inside(d, o, TOGETHER)) depthwise_several(TOGETHER, kind, OWN, true, d, o, 0, d->channels);
    else depthwise_several(TOGETHER, kind, OWN, false, d, o, 0, d->channels);
  }
}

/* `together` vectors of neighbouring pixels of few channels each, n lanes of a vector in all, whose columns are inside. repeat: the channel of a lane. */
VINLINE void pixels_together(const int together, const int kind, const cml_depthwise *d, size_t o, size_t n, vi repeat) {
  const size_t size = x_size(kind), channels = d->channels;
  const vi none = vi_set1(0);
  vf acc[8], bias = d->bias ? vf_permute(vf_load_n(d->bias, channels), repeat) : vf_zero();
  UNROLL for (int i = 0; i < together; i++) acc[i] = bias;
  for (size_t r = 0; r < d->kh; r++) {
    if (!d->rows[r]) continue;
    const char *at = (const char *)d->rows[r] + (size_t)(d->first + (int64_t)o) * channels * size;
    const float *w = d->w + r * d->kw * d->w_stride;
    for (size_t t = 0; t < d->kw; t++, at += (size_t)d->dilation * channels * size, w += d->w_stride) {
      vf weight = vf_permute(vf_load_n(w, channels), repeat);
      UNROLL for (int i = 0; i < together; i++) acc[i] = vf_fma(x_load(at + (size_t)i * n * size, kind, none, n), weight, acc[i]);
    }
  }
  UNROLL for (int i = 0; i < together; i++) depthwise_store(d, o + (size_t)i * (n / channels), 0, acc[i], n);
}

/* Pixels that share vectors: half a vector of channels or fewer, no distance between them, and nothing outside. */
static bool shares_pixels(const cml_depthwise *d) {
  return d->channels <= W / 2 && d->outputs >= W / d->channels && d->stride == 1 && d->pixel == d->channels && d->y_pixel == d->channels && inside(d, 0, d->outputs);
}

VINLINE void shared_pixels(const int kind, const cml_depthwise *d) {
  const size_t each = W / d->channels, n = each * d->channels;
  vi repeat = vi_iota();
  for (size_t i = 0; i < W; i++) repeat[i] = (int32_t)(i % d->channels);
  for (size_t o = 0, step; o < d->outputs; o += step * each) {
    size_t left = (d->outputs - o) / each;
    step = left >= TOGETHER ? TOGETHER : left >= FEW ? FEW : 1;
    if (!left) o = d->outputs - each; /* some are computed once more */
    if (step == TOGETHER) pixels_together(TOGETHER, kind, d, o, n, repeat);
    else if (step == FEW) pixels_together(FEW, kind, d, o, n, repeat);
    else pixels_together(1, kind, d, o, n, repeat);
  }
}

static void few_floats(const cml_depthwise *d) {
  if (shares_pixels(d)) shared_pixels(FLOATS, d);
  else few_channels(FLOATS, d);
}

static void few_halves(const cml_depthwise *d) {
  if (shares_pixels(d)) shared_pixels(HALVES, d);
  else few_channels(HALVES, d);
}

/* Outputs of channels [c, c + n), W or fewer, whatever they read. */
VINLINE void several_columns(const int kind, const enum reads reads, const cml_depthwise *d, size_t c, size_t n) {
  for (size_t o = 0, step; o < d->outputs; o += step) {
    step = next_outputs(d, &o);
    if (step == 1) depthwise_several(1, kind, reads, true, d, o, c, n);
    else if (step == FEW) depthwise_several(FEW, kind, reads, true, d, o, c, n);
    else if (!inside(d, o, TOGETHER)) depthwise_several(TOGETHER, kind, reads, true, d, o, c, n);
    else depthwise_several(TOGETHER, kind, reads, false, d, o, c, n);
  }
}

static void shared_channels(const cml_depthwise *d) {
  for (size_t c = 0; c < d->channels; c += W) {
    size_t n = d->channels < W ? d->channels : W, at = c + n <= d->channels ? c : d->channels - n;
    if (d->x_half) several_columns(HALVES, SHARED, d, at, n);
    else several_columns(FLOATS, SHARED, d, at, n);
  }
}

/* Groups of which no whole number fills a vector: as many as there is room for, each vector of them for itself. */
VINLINE void uneven_groups(const int kind, const cml_depthwise *d) {
  const size_t most = W / d->group * d->group;
  for (size_t c = 0, n; c < d->channels; c += n) {
    n = d->channels - c < most ? d->channels - c : most;
    several_columns(kind, GROUP, d, c, n);
  }
}

enum { SUMS = CML_TILE_MAX > 6 ? 3 : 1 }; /* outputs that sum over all channels at once: 32 registers hold 7 pixels of 3, and their columns */

/* Adds to them what n channels from c on give, a vector of them. width: of the kernel, 0: any. */
VINLINE void add_channels(const int together, const int count, const int width, const int kind, const cml_depthwise *d, size_t o, size_t j, size_t c, size_t n, vf (*acc)[8]) {
  const size_t size = x_size(kind), step = d->pixel * size, kw = width ? (size_t)width : d->kw, w_stride = d->w_stride, apart = d->kh * kw * w_stride;
  const vi none = vi_set1(0);
  const int64_t first = d->first + (int64_t)o;
  const uint64_t inside = (uint64_t)d->columns;
  const float *row = d->w + j * apart + c;
  for (size_t r = 0; r < d->kh; r++, row += kw * w_stride) {
    if (!d->rows[r]) continue;
    const char *at = (const char *)d->rows[r] + c * size + first * (int64_t)step;
    const float *w = row;
    uint64_t column = (uint64_t)first;
    vf x[8];
    UNROLL for (int i = 0; i < together - 1; i++, at += step, column++) x[i] = x_load(column >= inside ? (const void *)zeros : at, kind, none, n);
    for (size_t t = 0; t < kw; t += (size_t)together)
      UNROLL for (int u = 0; u < together; u++)
        if (t + (size_t)u < kw) {
          x[(u + together - 1) % together] = x_load(column >= inside ? (const void *)zeros : at, kind, none, n);
          UNROLL for (int m = 0; m < count; m++) {
            vf weight = load_some(w + (size_t)m * apart, n);
            UNROLL for (int i = 0; i < together; i++) acc[m][i] = vf_fma(x[(u + i) % together], weight, acc[m][i]);
          }
          at += step, column++, w += w_stride;
        }
  }
}

/* Several pixels of outputs [j, j + count), which sum over all channels: as depthwise_sliding, one vector of channels after the other in the same sums. */
VINLINE void sums_together(const int together, const int count, const int width, const int kind, const cml_depthwise *d, size_t o, size_t j) {
  vf acc[SUMS][8];
  UNROLL for (int m = 0; m < count; m++)
    UNROLL for (int i = 0; i < 8; i++) acc[m][i] = vf_zero();
  size_t c = 0;
  for (; c + W <= d->channels; c += W) add_channels(together, count, width, kind, d, o, j, c, W, acc);
  if (c < d->channels) add_channels(together, count, width, kind, d, o, j, c, d->channels - c, acc);
  UNROLL for (int m = 0; m < count; m++) {
    const float bias = d->bias ? d->bias[j + (size_t)m] : 0;
    float *to = (float *)d->y + j + (size_t)m, all[8];
    vf_sum_4(acc[m], all), vf_sum_4(acc[m] + 4, all + 4);
    for (size_t i = 0; i < (size_t)together && o + i < d->outputs; i++) {
      float sum = all[i] + bias;
      sum = sum < d->low ? d->low : sum;
      to[(o + i) * d->y_pixel] = sum > d->high ? d->high : sum;
    }
  }
}

VINLINE void sums_of_row(const int width, const int kind, const cml_depthwise *d) {
  for (size_t o = 0, step; o < d->outputs; o += step) {
    step = next_outputs(d, &o);
    for (size_t j = 0, n; j < d->sums; j += n) {
      n = step < TOGETHER ? 1 : d->sums - j < SUMS ? d->sums - j : SUMS;
      if (step < TOGETHER) sums_together(FEW, 1, 0, kind, d, o, j);
      else if (n == 3) sums_together(TOGETHER, SUMS, width, kind, d, o, j);
      else if (n == 2) sums_together(TOGETHER, SUMS < 2 ? SUMS : 2, width, kind, d, o, j);
      else sums_together(TOGETHER, 1, width, kind, d, o, j);
    }
  }
}

static __attribute__((noinline)) void sums_3_floats(const cml_depthwise *d) { sums_of_row(3, FLOATS, d); }
static __attribute__((noinline)) void sums_3_halves(const cml_depthwise *d) { sums_of_row(3, HALVES, d); }
static __attribute__((noinline)) void sums_floats(const cml_depthwise *d) { sums_of_row(0, FLOATS, d); }
static __attribute__((noinline)) void sums_halves(const cml_depthwise *d) { sums_of_row(0, HALVES, d); }

static void depthwise_row(const cml_depthwise *d) {
  if (d->sums) {
    if (d->kw == 3 && d->x_half) sums_3_halves(d);
    else if (d->kw == 3) sums_3_floats(d);
    else if (d->x_half) sums_halves(d);
    else sums_floats(d);
    return;
  }
  if (d->group > 1 && (W % d->group || d->channels < W)) {
    if (d->x_half) uneven_groups(HALVES, d);
    else uneven_groups(FLOATS, d);
    return;
  }
  if (d->multiplier > 1) {
    shared_channels(d);
    return;
  }
  if (d->channels < W && d->group <= 1 && d->outputs > 1 && !d->x_bytes) {
    if (d->x_half) few_halves(d);
    else few_floats(d);
    return;
  }
  if (d->channels < W) {
    for (size_t o = 0; o < d->outputs; o++) depthwise_one(d, o, 0, d->channels);
    return;
  }
  /* the last vector overlaps the one before it, where there is one */
  for (size_t c = 0; c < d->channels; c += W) depthwise_vector(d, c + W <= d->channels ? c : d->channels - W);
}

static void depthwise_ends(const cml_depthwise *d) {
  if (d->outputs == 1 || d->outputs >= TOGETHER) {
    depthwise_row(d);
    return;
  }
  cml_depthwise ends = *d; /* what only outputs behind the row's end want is outside */
  int64_t wanted = d->first + (int64_t)(d->outputs - 1) * d->stride + (int64_t)(d->kw - 1) * d->dilation + 1;
  if (ends.columns > wanted) ends.columns = wanted < 0 ? 0 : wanted; /* all outputs may be before the first column */
  depthwise_row(&ends);
}

/* Every dilation-th output is a convolution of every dilation-th column, without dilation. */
static void depthwise(const cml_depthwise *d) {
  enum { ROWS = 64 };
  const int64_t apart = d->dilation;
  if (apart == 1 || d->stride != 1 || d->kw == 1 || d->kh > ROWS || d->outputs < (size_t)apart * FEW || d->channels < W) {
    depthwise_ends(d);
    return;
  }
  for (int64_t i = 0; i < apart; i++) {
    const void *rows[ROWS];
    cml_depthwise part = *d;
    int64_t column = d->first + i, phase = (column % apart + apart) % apart;
    size_t skip = (size_t)phase * d->pixel * (d->x_bytes ? 1 : d->x_half ? 2 : 4);
    for (size_t r = 0; r < d->kh; r++) rows[r] = d->rows[r] ? (const char *)d->rows[r] + skip : NULL;
    part.rows = rows;
    part.outputs = (d->outputs - 1 - (size_t)i) / (size_t)apart + 1;
    part.columns = d->columns > phase ? (d->columns - 1 - phase) / apart + 1 : 0;
    part.first = (column - phase) / apart;
    part.dilation = 1;
    part.pixel = d->pixel * (size_t)apart, part.y_pixel = d->y_pixel * (size_t)apart;
    part.y = (char *)d->y + (size_t)i * d->y_pixel * (d->y_half ? 2 : 4);
    depthwise_ends(&part);
  }
}

/* ---- Winograd: d -> B^T d B, m -> A^T m A. A row of B^T has the coefficients of the product of x - x_j over the other points x_j. ---- */

VINLINE void input_line(const vf *d, size_t step, vf *out, size_t out_step) {
  const float p = CML_WINOGRAD_P, q = CML_WINOGRAD_Q;
  vf d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  vf square_p = vf_set1(-p * p), square_q = vf_set1(-q * q), sum = vf_set1(-p * p - q * q), product = vf_set1(p * p * q * q);
  vf a = vf_fma(d2, square_q, d4), b = vf_fma(d1, square_q, d3), c = vf_fma(d2, square_p, d4), e = vf_fma(d1, square_p, d3);
  out[0] = vf_fma(d0, product, vf_fma(d2, sum, d4));
  out[out_step] = vf_fma(b, vf_set1(p), a);
  out[2 * out_step] = vf_fma(b, vf_set1(-p), a);
  out[3 * out_step] = vf_fma(e, vf_set1(q), c);
  out[4 * out_step] = vf_fma(e, vf_set1(-q), c);
  out[5 * out_step] = vf_fma(d1, product, vf_fma(d3, sum, d5));
}

static void winograd_input(size_t channels, const float *x, size_t pixel, size_t row, float *v, size_t v_stride) {
  for (size_t c = 0; c < channels; c += W) {
    size_t n = channels - c < W ? channels - c : W;
    vf t[36], line[6];
    for (size_t r = 0; r < 6; r++) {
      for (size_t i = 0; i < 6; i++) line[i] = load_some(x + r * row + i * pixel + c, n);
      input_line(line, 1, t + r * 6, 1);
    }
    for (size_t i = 0; i < 6; i++) {
      input_line(t + i, 6, line, 1);
      for (size_t r = 0; r < 6; r++) {
        float *to = v + (r * 6 + i) * v_stride + c;
        if (n == W) vf_store(to, line[r]);
        else vf_store_n(to, line[r], n);
      }
    }
  }
}

/* Sums of the points p and -p come times p, which saves the multiplication of one place. */
VINLINE void output_line(const vf *m, size_t step, vf *out, size_t out_step) {
  const float p = CML_WINOGRAD_P, q = CML_WINOGRAD_Q;
  vf a = m[step] + m[2 * step], b = m[step] - m[2 * step], c = m[3 * step] + m[4 * step], d = m[3 * step] - m[4 * step];
  out[0] = vf_fma(a, vf_set1(1 / p), m[0] + c);
  out[out_step] = vf_fma(d, vf_set1(q), b);
  out[2 * out_step] = vf_fma(c, vf_set1(q * q), a * vf_set1(p));
  out[3 * out_step] = vf_fma(d, vf_set1(q * q * q), vf_fma(b, vf_set1(p * p), m[5 * step]));
}

static void winograd_output(size_t outputs, const float *m, size_t m_stride, const float *bias, float low, float high, float *y, size_t pixel,
                            size_t row, size_t rows, size_t columns) {
  vf lo = vf_set1(low), hi = vf_set1(high);
  for (size_t o = 0; o < outputs; o += W) {
    size_t n = outputs - o < W ? outputs - o : W;
    vf t[24], line[6], add = bias ? load_some(bias + o, n) : vf_zero();
    for (size_t r = 0; r < 6; r++) {
      for (size_t i = 0; i < 6; i++) line[i] = load_some(m + (r * 6 + i) * m_stride + o, n);
      output_line(line, 1, t + r * 4, 1);
    }
    for (size_t i = 0; i < columns; i++) {
      output_line(t + i, 4, line, 1);
      for (size_t r = 0; r < rows; r++) {
        float *to = y + r * row + i * pixel + o;
        vf v = vf_min(hi, vf_max(lo, line[r] + add));
        if (n == W) vf_store(to, v);
        else vf_store_n(to, v, n);
      }
    }
  }
}

/* `nv` vectors of channels at once: sums of one wait for each other. n: channels of the last. */
VINLINE void vectors_moments(const int nv, size_t pixels, size_t channels, const float *x, const float *shift, float *sum, float *squares, size_t n) {
  vf m[4], s[4], q[4];
  UNROLL for (int j = 0; j < nv; j++) m[j] = load_some(shift + j * W, n), s[j] = load_some(sum + j * W, n), q[j] = load_some(squares + j * W, n);
  for (size_t p = 0; p < pixels; p++, x += channels)
    UNROLL for (int j = 0; j < nv; j++) {
      vf d = load_some(x + j * W, n) - m[j];
      s[j] += d;
      q[j] = vf_fma(d, d, q[j]);
    }
  UNROLL for (int j = 0; j < nv; j++) {
    if (n >= W) vf_store(sum + j * W, s[j]), vf_store(squares + j * W, q[j]);
    else vf_store_n(sum + j * W, s[j], n), vf_store_n(squares + j * W, q[j], n);
  }
}

static void channel_moments(size_t pixels, size_t channels, const float *x, const float *shift, float *sum, float *squares) {
  size_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) vectors_moments(4, pixels, channels, x + c, shift + c, sum + c, squares + c, W);
  for (; c + W <= channels; c += W) vectors_moments(1, pixels, channels, x + c, shift + c, sum + c, squares + c, W);
  if (c < channels) vectors_moments(1, pixels, channels, x + c, shift + c, sum + c, squares + c, channels - c);
}

/* Many channels pixel by pixel, as they lie in memory; few with what they are scaled by in registers. */
static void scale_channels(size_t pixels, size_t channels, const float *x, size_t x_pixel, float *y, size_t y_pixel, const float *scale, const float *bias) {
  size_t c = 0, whole = channels > 4 * W ? channels / W * W : 0;
  for (size_t p = 0; p < pixels && whole; p++)
    for (c = 0; c < whole; c += W) vf_store(y + p * y_pixel + c, vf_fma(vf_load(x + p * x_pixel + c), vf_load(scale + c), vf_load(bias + c)));
  for (; c < channels; c += W) {
    size_t n = channels - c < W ? channels - c : W;
    vf a = load_some(scale + c, n), b = load_some(bias + c, n);
    for (size_t p = 0; p < pixels && n == W; p++) vf_store(y + p * y_pixel + c, vf_fma(vf_load(x + p * x_pixel + c), a, b));
    for (size_t p = 0; p < pixels && n < W; p++) vf_store_n(y + p * y_pixel + c, vf_fma(vf_load_n(x + p * x_pixel + c, n), a, b), n);
  }
}

void CML_SIMD(cml_fill_conv)(cml_kernels *k) {
  k->depthwise = depthwise;
  k->winograd_input = winograd_input;
  k->winograd_output = winograd_output;
  k->channel_moments = channel_moments;
  k->scale_channels = scale_channels;
}
