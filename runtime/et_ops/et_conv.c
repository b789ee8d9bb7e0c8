/* Convolutions. Ordinary ones of float32 and float16 go through the blocked convolution of the kernels; transposed ones, gradients
 * and the other types through plain loops in double precision, which all are one: the taps pair elements of a small image
 * (the output of an ordinary convolution, the input of a transposed one) with those of a big one, and each of small, big and
 * weight can be what is summed up. Neither makes a copy of an image or a large weight: a program's peak memory is its plan. */
#include "conv.h"
#include "et_families.h"
#include "et_view.h"

typedef struct geometry {
  int dims; /* of space: 1 to 3 */
  int64_t stride[3], pad[3], dilation[3], output_pad[3];
  bool transposed;
  int64_t groups, batch, small_channels, big_channels;
  int64_t small[3], big[3], kernel[3]; /* leading ones are 1 */
} geometry;

static cml_status take_list(cml_et_call *c, size_t i, int dims, int64_t least, int64_t otherwise, int64_t *out, cml_error *err) {
  int64_t list[3];
  size_t count;
  CML_TRY(cml_et_ints(c, i, list, 3, &count, err));
  if (count > 1 && count != (size_t)dims) return cml_et_fail(c, err, "argument %zu has %zu numbers for %d dimensions", i, count, dims);
  for (int k = 0; k < 3; k++) out[k] = otherwise;
  for (int k = 0; k < dims; k++) {
    int64_t v = count == 0 ? otherwise : list[count == 1 ? 0 : k];
    if (v < least || v > INT32_MAX) return cml_et_fail(c, err, "%lld in argument %zu is out of range", (long long)v, i);
    out[3 - dims + k] = v;
  }
  return CML_OK;
}

/* first: the argument of strides. x: the convolution's input. out: sizes of its output. */
static cml_status take_geometry(cml_et_call *c, size_t first, const cml_et_tensor *x, const cml_et_tensor *w, geometry *g, int64_t *out, cml_error *err) {
  memset(g, 0, sizeof *g);
  g->dims = x->rank - 2;
  if (x->rank < 3 || x->rank > 5 || w->rank != x->rank) return cml_et_fail(c, err, "an image of rank %d and a weight of rank %d", x->rank, w->rank);
  CML_TRY(take_list(c, first, g->dims, 1, 1, g->stride, err));
  CML_TRY(take_list(c, first + 1, g->dims, 0, 0, g->pad, err));
  CML_TRY(take_list(c, first + 2, g->dims, 1, 1, g->dilation, err));
  CML_TRY(take_list(c, first + 4, g->dims, 0, 0, g->output_pad, err));
  g->transposed = cml_et_bool(c, first + 3, false);
  g->groups = cml_et_int(c, first + 5, 1);
  g->batch = x->sizes[0];
  int64_t in = x->sizes[1], w0 = w->sizes[0], w1 = w->sizes[1];
  if (g->groups < 1 || g->groups > INT32_MAX || w1 > INT32_MAX || w0 % g->groups || in != (g->transposed ? w0 : w1 * g->groups))
    return cml_et_fail(c, err, "%lld channels in %lld groups do not fit a weight of %lld by %lld", (long long)in, (long long)g->groups, (long long)w0, (long long)w1);
  g->small_channels = w0;
  g->big_channels = w1 * g->groups;
  out[0] = g->batch;
  out[1] = g->transposed ? g->big_channels : g->small_channels;
  for (int k = 0; k < 3; k++) {
    int at = 2 + k - (3 - g->dims);
    bool used = k >= 3 - g->dims;
    int64_t n = used ? x->sizes[at] : 1, reach;
    g->kernel[k] = used ? w->sizes[at] : 1;
    if (g->kernel[k] < 1 || g->kernel[k] > INT32_MAX || n > INT32_MAX || n < 1) return cml_et_fail(c, err, "dimension %d of the image or the weight is out of range", at);
    reach = g->dilation[k] * (g->kernel[k] - 1) + 1;
    int64_t result = g->transposed ? (n - 1) * g->stride[k] - 2 * g->pad[k] + reach + g->output_pad[k]
                                   : n + 2 * g->pad[k] < reach ? 0 : (n + 2 * g->pad[k] - reach) / g->stride[k] + 1;
    if (result < !g->transposed) return cml_et_fail(c, err, "the kernel is larger than the padded image along dimension %d", at);
    g->small[k] = g->transposed ? n : result;
    g->big[k] = g->transposed ? result : n;
    if (used) out[at] = result;
  }
  return CML_OK;
}

/* ---- plain loops ---- */

typedef enum target { SMALL, BIG, WEIGHT } target;

/* Three images, one of which (by t) is summed up and written, row by row: nothing but pieces of rows is held as doubles. */
typedef struct plain {
  const geometry *g;
  const cml_et_tensor *small, *big, *w, *bias;
  cml_et_tensor *sum;
  target t;
} plain;

enum { PIECE = 2048 };

/* Positions first .. first + count of a row, which begins at element `row` of a tensor. */
typedef struct piece {
  int64_t row, first, count;
  double *at;
} piece;

typedef struct pieces { piece small, big, taps; } pieces;

static int64_t line_room(const geometry *g) {
  int64_t room = g->small[2] > g->big[2] ? g->small[2] : g->big[2];
  if (room < g->kernel[2]) room = g->kernel[2];
  return room < PIECE ? room : PIECE;
}

/* Element (n, channel, z, y, 0) of an image, or of a weight with n and channel as its two channels. */
static int64_t element(const geometry *g, const cml_et_tensor *t, int64_t n, int64_t channel, int64_t z, int64_t y) {
  int64_t at = n * t->strides[0] + channel * t->strides[1];
  if (g->dims == 3) at += z * t->strides[2];
  return g->dims >= 2 ? at + y * t->strides[g->dims] : at;
}

static void load_piece(const cml_et_tensor *t, piece *p) {
  int64_t step = t->strides[t->rank - 1];
  cml_et_load_f64(p->at, t, p->row + p->first * step, step, p->count);
}

static int64_t big_of(const geometry *g, int k, int64_t small, int64_t tap) {
  return small * g->stride[k] - g->pad[k] + tap * g->dilation[k];
}

/* The least position of small whose partner is at `big` or behind it. */
static int64_t small_from(const geometry *g, int64_t big, int64_t tap) {
  int64_t at = big + g->pad[2] - tap * g->dilation[2], s = g->stride[2];
  return at <= 0 ? 0 : (at + s - 1) / s;
}

/* All taps of a piece of the kernel's row, between pieces of a row of small and of one of big. */
static void tap_pieces(const geometry *g, pieces *p, target t) {
  for (int64_t x = p->taps.first, step = g->stride[2]; x < p->taps.first + p->taps.count; x++) {
    int64_t first = cml_et_most(p->small.first, small_from(g, p->big.first, x));
    int64_t count = cml_et_least(p->small.first + p->small.count, small_from(g, p->big.first + p->big.count, x)) - first;
    if (count <= 0) continue;
    double *s = p->small.at + (first - p->small.first), *b = p->big.at + (big_of(g, 2, first, x) - p->big.first), *w = p->taps.at + (x - p->taps.first), sum = 0;
    if (t == SMALL) for (int64_t i = 0; i < count; i++) s[i] += b[i * step] * *w;
    else if (t == BIG) for (int64_t i = 0; i < count; i++) b[i * step] += s[i] * *w;
    else for (int64_t i = 0; i < count; i++) sum += s[i] * b[i * step];
    if (t == WEIGHT) *w += sum;
  }
}

/* What one row of each gives to the piece that is summed up: all pieces of another row, and of the third what meets those. */
static void sum_rows(const plain *p, pieces *s) {
  const geometry *g = p->g;
  piece *second = p->t == WEIGHT ? &s->small : &s->taps, *third = p->t == BIG ? &s->small : &s->big;
  const cml_et_tensor *second_of = p->t == WEIGHT ? p->small : p->w, *third_of = p->t == BIG ? p->small : p->big;
  int64_t length = p->t == WEIGHT ? g->small[2] : g->kernel[2], room = line_room(g);
  for (second->first = 0; second->first < length; second->first += room) {
    second->count = cml_et_least(room, length - second->first);
    load_piece(second_of, second);
    int64_t first, end, last_tap = s->taps.first + s->taps.count - 1;
    if (p->t == BIG) {
      first = small_from(g, s->big.first, last_tap);
      end = cml_et_least(g->small[2], small_from(g, s->big.first + s->big.count, s->taps.first));
    } else {
      first = cml_et_most(0, big_of(g, 2, s->small.first, s->taps.first));
      end = cml_et_least(g->big[2], big_of(g, 2, s->small.first + s->small.count - 1, last_tap) + 1);
    }
    for (third->first = first; third->first < end; third->first += room) {
      third->count = cml_et_least(room, end - third->first);
      load_piece(third_of, third);
      tap_pieces(g, s, p->t);
    }
  }
}

/* The row of small that meets row `big` under the tap; false when none does. */
static bool small_of(const geometry *g, int k, int64_t big, int64_t tap, int64_t *small) {
  int64_t at = big + g->pad[k] - tap * g->dilation[k];
  *small = at / g->stride[k];
  return at >= 0 && at % g->stride[k] == 0 && *small < g->small[k];
}

/* A piece of row (n, channel, z, y) of small or big: over the other image's channels of its group and the rows that meet it. */
static void sum_image_row(const plain *p, int64_t n, int64_t channel, int64_t z, int64_t y, pieces *s) {
  const geometry *g = p->g;
  bool big = p->t == BIG;
  int64_t smalls = g->small_channels / g->groups, bigs = g->big_channels / g->groups;
  int64_t group = channel / (big ? bigs : smalls), others = big ? smalls : bigs;
  piece *other = big ? &s->small : &s->big;
  for (int64_t i = 0; i < others; i++)
    for (int64_t kz = 0; kz < g->kernel[0]; kz++)
      for (int64_t ky = 0; ky < g->kernel[1]; ky++) {
        int64_t oz, oy, so = big ? group * smalls + i : channel, bi = big ? channel - group * bigs : i;
        if (big) {
          if (!small_of(g, 0, z, kz, &oz) || !small_of(g, 1, y, ky, &oy)) continue;
        } else {
          oz = big_of(g, 0, z, kz);
          oy = big_of(g, 1, y, ky);
          if (oz < 0 || oz >= g->big[0] || oy < 0 || oy >= g->big[1]) continue;
        }
        other->row = element(g, big ? p->small : p->big, n, group * others + i, oz, oy);
        s->taps.row = element(g, p->w, so, bi, kz, ky);
        sum_rows(p, s);
      }
}

/* A piece of row (o, i, kz, ky) of the weight's gradient. */
static void sum_weight_row(const plain *p, int64_t o, int64_t i, int64_t kz, int64_t ky, pieces *s) {
  const geometry *g = p->g;
  int64_t channel = o / (g->small_channels / g->groups) * (g->big_channels / g->groups) + i;
  for (int64_t n = 0; n < g->batch; n++)
    for (int64_t z = 0; z < g->small[0]; z++)
      for (int64_t y = 0; y < g->small[1]; y++) {
        int64_t bz = big_of(g, 0, z, kz), by = big_of(g, 1, y, ky);
        if (bz < 0 || bz >= g->big[0] || by < 0 || by >= g->big[1]) continue;
        s->small.row = element(g, p->small, n, o, z, y);
        s->big.row = element(g, p->big, n, channel, bz, by);
        sum_rows(p, s);
      }
}

/* Items are rows of what is summed up. scratch: a piece of each image. */
static void plain_rows(void *context, void *scratch, size_t begin, size_t end) {
  const plain *p = context;
  const geometry *g = p->g;
  bool weight = p->t == WEIGHT;
  const int64_t *size = weight ? g->kernel : p->t == BIG ? g->big : g->small;
  double *room = scratch;
  pieces s = {.small = {.at = room}, .big = {.at = room + line_room(g)}, .taps = {.at = room + 2 * line_room(g)}};
  piece *sum = weight ? &s.taps : p->t == BIG ? &s.big : &s.small;
  int64_t step = p->sum->strides[p->sum->rank - 1];
  for (size_t item = begin; item < end; item++) {
    int64_t i = (int64_t)item, y = i % size[1], z = i / size[1] % size[0], c = i / (size[1] * size[0]), n = c / p->sum->sizes[1];
    double start = 0;
    c %= p->sum->sizes[1];
    if (p->bias) cml_et_load_f64(&start, p->bias, c, 1, 1);
    int64_t row = element(g, p->sum, n, c, z, y);
    for (sum->first = 0; sum->first < size[2]; sum->first += line_room(g)) {
      sum->count = cml_et_least(line_room(g), size[2] - sum->first);
      for (int64_t x = 0; x < sum->count; x++) sum->at[x] = start;
      if (weight) sum_weight_row(p, n, c, z, y, &s);
      else sum_image_row(p, n, c, z, y, &s);
      cml_et_store_f64(p->sum, row + sum->first * step, step, sum->count, sum->at);
    }
  }
}

static cml_status run_rows(cml_et_call *c, plain *p, cml_error *err) {
  int64_t rows = 1;
  cml_et_crew crew;
  CML_TRY(cml_et_crew_of(c, (uint64_t)line_room(p->g) * 3 * sizeof(double), &crew, err));
  for (int k = 0; k < p->sum->rank - 1; k++) rows *= p->sum->sizes[k];
  cml_et_crew_run(&crew, (size_t)rows, 1, plain_rows, p);
  return CML_OK;
}

static cml_status run_plain(cml_et_call *c, const geometry *g, const cml_et_tensor *x, const cml_et_tensor *w, const cml_et_tensor *bias,
                            cml_et_tensor *out, cml_error *err) {
  plain p = {.g = g, .small = g->transposed ? x : out, .big = g->transposed ? out : x, .w = w, .bias = bias, .sum = out,
             .t = g->transposed ? BIG : SMALL};
  return run_rows(c, &p, err);
}

/* ---- the blocked convolution ---- */

/* Layout of an image: 0 channels first, 1 last, -1 neither. */
static int layout_of(const cml_et_tensor *t) {
  if (cml_et_is_contiguous(t)) return 0;
  int64_t step = t->sizes[1];
  if (t->strides[1] != 1 && t->sizes[1] != 1) return -1;
  for (int k = t->rank - 1; k != 1; k = k == 2 ? 0 : k - 1) {
    if (t->sizes[k] != 1 && t->strides[k] != step) return -1;
    step *= t->sizes[k];
    if (k == 0) break;
  }
  return 1;
}

/* Weights are packed for each call, all at once where that is little. Else a slice of output channels after the other, so that no
 * second copy of them is ever made, and the pixels in tiles that bound what each thread holds. A slice of an image with its
 * channels last is an image of more pixels with fewer channels, of which one in so many is written. */
enum { LEAST_TILE = 48 << 10, MOST_TILE = 384 << 10 };

typedef struct blocked {
  const cml_kernels *k;
  cml_conv conv; /* of one slice and image; pixels of the whole image */
  cml_conv_source source;
  cml_conv_weights weights;
  cml_epilogue after;
  const char *x;
  char *y;
  size_t image_in, image_out; /* bytes of an image */
  int64_t tile[3], tiles[3];
  void *packed;
  float *widened; /* the bias; NULL: none */
  cml_et_crew crew;
} blocked;

static cml_conv tile_conv(const blocked *b, const int64_t *at) {
  cml_conv v = b->conv;
  for (int i = 0; i < 3; i++) {
    int64_t left = v.out[i] - at[i];
    v.out[i] = left < b->tile[i] ? left : b->tile[i];
    v.offset[i] += at[i] * v.stride[i];
    v.place[i] = at[i] * v.step[i];
  }
  return v;
}

static void run_tiles(void *context, void *scratch, size_t begin, size_t end) {
  const blocked *b = context;
  for (size_t item = begin; item < end; item++) {
    int64_t i = (int64_t)item, x = i % b->tiles[2], y = i / b->tiles[2] % b->tiles[1], z = i / (b->tiles[2] * b->tiles[1]) % b->tiles[0];
    size_t image = item / (size_t)(b->tiles[0] * b->tiles[1] * b->tiles[2]);
    cml_conv v = tile_conv(b, (int64_t[3]){z * b->tile[0], y * b->tile[1], x * b->tile[2]});
    cml_conv_run(&(cml_conv_call){.k = b->k, .v = &v, .weights = b->weights, .after = b->after, .x = b->x + image * b->image_in,
                                  .y = b->y + image * b->image_out, .scratch = scratch, .slots = 1});
  }
}

/* Tiles so small that all threads' scratch is little, or that of some; its bytes for a thread. More than a crew has where no tile is
 * small, for taps that lie far apart. */
static size_t choose_tiles(const cml_et_call *c, blocked *b) {
  const int64_t start[3] = {0, 0, 0};
  size_t slot, most = cml_et_crew_share(c, LEAST_TILE, MOST_TILE);
  memcpy(b->tile, b->conv.out, sizeof b->tile);
  for (;;) {
    cml_conv v = tile_conv(b, start);
    int widest = b->tile[0] > 1 ? 0 : b->tile[1] > 1 ? 1 : 2;
    slot = cml_conv_scratch(b->k, &v);
    if (slot <= most || b->tile[widest] <= 1) break;
    b->tile[widest] = (b->tile[widest] + 1) / 2;
  }
  for (int i = 0; i < 3; i++) b->tiles[i] = (b->conv.out[i] + b->tile[i] - 1) / b->tile[i];
  return slot;
}

static cml_status take_room(cml_et_call *c, blocked *b, const cml_et_tensor *bias, size_t scratch, cml_error *err) {
  b->weights.packed = b->packed = cml_et_temp(c, cml_conv_packed_bytes(b->k, &b->conv, b->weights.half));
  b->after.bias = b->widened = bias ? cml_et_temp(c, b->conv.outputs * sizeof *b->widened) : NULL;
  if (!b->packed || (bias && !b->widened)) return cml_fail_memory(err);
  return cml_et_crew_of(c, scratch, &b->crew, err);
}

/* Output channels from `first` on, as many as conv has. */
static void pack(cml_et_call *c, blocked *b, const cml_et_tensor *bias, size_t first) {
  if (bias) cml_et_load_f32(b->widened, bias, (int64_t)first, 1, (int64_t)b->conv.outputs);
  cml_conv_pack(b->k, &b->conv, &b->source, b->weights.half, b->packed, c->pool);
}

/* Output channels of a slice of one group (or of groups of one channel): whole panels that fit; with the channels last a divisor of all. */
static size_t slice_of(const blocked *b, size_t room, size_t outputs, size_t all, size_t depth) {
  size_t nr = b->k->tile_columns, panels = room / 5 * 2 / (depth * nr * (b->weights.half ? 2 : 4));
  size_t slice = panels > 1 ? panels * nr : nr;
  if (slice > outputs) slice = outputs;
  while (b->conv.out_last && all % slice) slice--;
  return slice;
}

/* *done: whether that could be. */
static cml_status run_slices(cml_et_call *c, blocked *b, const cml_et_tensor *bias, size_t images, bool *done, cml_error *err) {
  const cml_conv all = b->conv;
  const cml_conv_source source = b->source;
  const bool depthwise = cml_conv_is_depthwise(&all);
  size_t size = b->weights.half ? 2 : 4, groups = depthwise ? 1 : all.groups, outputs = all.outputs / groups, channels = all.channels / all.groups;
  size_t slice = slice_of(b, cml_et_scratch(c), outputs, all.outputs, channels * cml_conv_taps(&all));
  size_t plane_in = (size_t)(all.in[0] * all.in[1] * all.in[2]), plane_out = (size_t)(all.out[0] * all.out[1] * all.out[2]);
  const char *x = b->x;
  char *y = b->y;
  if (all.in_last && (depthwise ? slice < all.channels : groups > 1)) return CML_OK; /* the channels do not lie together */
  b->image_in = plane_in * all.channels * size;
  b->image_out = plane_out * all.outputs * size;
  b->conv.batch = 1;
  b->conv.groups = depthwise ? slice : 1;
  b->conv.channels = depthwise ? slice : channels;
  b->conv.outputs = slice;
  if (all.out_last) {
    b->conv.step[2] = (int64_t)(all.outputs / slice);
    b->conv.full[2] *= b->conv.step[2];
    b->conv.out_pixel = slice;
  }
  size_t scratch = choose_tiles(c, b);
  if (!(*done = scratch <= cml_et_crew_scratch(c))) return CML_OK;
  CML_TRY(take_room(c, b, bias, scratch, err));
  for (size_t o = 0; o < all.outputs; o += b->conv.outputs) {
    size_t group = o / outputs, first = o % outputs;
    b->conv.outputs = outputs - first < slice ? outputs - first : slice;
    if (depthwise) b->conv.groups = b->conv.channels = b->conv.outputs;
    b->x = x + (depthwise ? o : group * channels) * plane_in * size;
    b->y = y + o * (all.out_last ? 1 : plane_out) * size;
    b->source.start = source.start + (int64_t)group * source.group_stride + (int64_t)first * (depthwise ? source.group_stride : source.output_stride);
    pack(c, b, bias, o);
    cml_et_crew_run(&b->crew, images * (size_t)(b->tiles[0] * b->tiles[1] * b->tiles[2]), 1, run_tiles, b);
  }
  return CML_OK;
}

static void describe(const geometry *g, const cml_et_tensor *x, const cml_et_tensor *w, const cml_et_tensor *out, blocked *b) {
  bool half = x->dtype == CML_F16;
  *b = (blocked){.k = cml_kernels_get(), .weights = {.half = half}, .after = {.activation = CML_UNARY_COPY}, .x = x->data, .y = out->data};
  b->conv = (cml_conv){.batch = (size_t)g->batch, .channels = (size_t)g->big_channels, .outputs = (size_t)g->small_channels,
                       .groups = (size_t)g->groups, .in_last = layout_of(x) == 1, .out_last = layout_of(out) == 1, .in_half = half, .out_half = half,
                       .planar = g->dims < 3, .plain = true};
  b->source = (cml_conv_source){.data = w->data, .half = half, .group_stride = g->small_channels / g->groups * w->strides[0],
                                .output_stride = w->strides[0], .channel_stride = w->strides[1]};
  for (int i = 0; i < 3; i++) {
    b->conv.in[i] = g->big[i];
    b->conv.out[i] = g->small[i];
    b->conv.kernel[i] = g->kernel[i];
    b->conv.stride[i] = g->stride[i];
    b->conv.dilation[i] = g->dilation[i];
    b->conv.offset[i] = -g->pad[i];
    b->source.tap_stride[i] = i >= 3 - g->dims ? w->strides[2 + i - (3 - g->dims)] : 0;
  }
  cml_conv_place_all(&b->conv);
  cml_conv_trim(&b->conv, &b->source);
}

static cml_status run_blocked(cml_et_call *c, const geometry *g, const cml_et_tensor *x, const cml_et_tensor *w, const cml_et_tensor *bias,
                              cml_et_tensor *out, cml_error *err) {
  blocked b;
  describe(g, x, w, out, &b);
  size_t threads = cml_pool_threads(c->pool), scratch = cml_conv_scratch(b.k, &b.conv);
  if (scratch > cml_et_crew_share(c, 0, SIZE_MAX) || cml_conv_packed_bytes(b.k, &b.conv, b.weights.half) + scratch * threads > cml_et_scratch(c)) {
    bool done = false;
    CML_TRY(run_slices(c, &b, bias, (size_t)g->batch, &done, err));
    return done ? CML_OK : run_plain(c, g, x, w, bias, out, err);
  }
  CML_TRY(take_room(c, &b, bias, scratch, err));
  pack(c, &b, bias, 0);
  cml_conv_run(&(cml_conv_call){.k = b.k, .v = &b.conv, .weights = b.weights, .after = b.after, .x = x->data, .y = out->data, .pool = c->pool,
                                .scratch = b.crew.scratch, .slots = b.crew.threads});
  return CML_OK;
}

static cml_status op_convolution(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *w = cml_et_arg(c, 1), *bias = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 9);
  int64_t sizes[5];
  geometry g;
  CML_TRY(cml_et_want(c, x, CML_ET_ANY & ~CML_M_BOOL, "the image", err));
  CML_TRY(cml_et_same_type(c, x, w, err));
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(take_geometry(c, 3, x, w, &g, sizes, err));
  if (bias) CML_TRY(cml_et_same_type(c, x, bias, err));
  if (bias && (bias->rank != 1 || bias->sizes[0] != sizes[1])) return cml_et_fail(c, err, "the bias does not fit %lld channels", (long long)sizes[1]);
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  bool fast = !g.transposed && (x->dtype == CML_F32 || x->dtype == CML_F16) && layout_of(x) >= 0 && layout_of(out) >= 0 && g.big_channels > 0;
  return (fast ? run_blocked : run_plain)(c, &g, x, w, bias, out, err);
}

/* ---- gradients ---- */

static cml_status gradient(cml_et_call *c, plain p, target t, const cml_et_tensor *like, cml_et_tensor *out, cml_error *err) {
  if (!out) return CML_OK;
  CML_TRY(cml_et_resize_like(c, out, like, err));
  p.t = t;
  p.sum = out;
  return run_rows(c, &p, err);
}

/* Sums over all but the channels, row by row. */
static cml_status bias_gradient(cml_et_call *c, const geometry *g, const cml_et_tensor *grad, cml_et_tensor *out, cml_error *err) {
  if (!out) return CML_OK;
  const int64_t *size = g->transposed ? g->big : g->small;
  double line[512];
  CML_TRY(cml_et_resize(c, out, 1, &grad->sizes[1], err));
  for (int64_t k = 0; k < grad->sizes[1]; k++) {
    double sum = 0;
    for (int64_t row = 0; row < g->batch * size[0] * size[1]; row++) {
      piece p = {.row = element(g, grad, row / (size[0] * size[1]), k, row / size[1] % size[0], row % size[1]), .at = line};
      for (; p.first < size[2]; p.first += 512) {
        p.count = cml_et_least(size[2] - p.first, 512);
        load_piece(grad, &p);
        for (int64_t i = 0; i < p.count; i++) sum += line[i];
      }
    }
    cml_et_store_f64(out, k, 1, 1, &sum);
  }
  return CML_OK;
}

static cml_status op_backward(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *grad = cml_et_arg(c, 0), *x = cml_et_arg(c, 1), *w = cml_et_arg(c, 2);
  cml_et_tensor *outs[3];
  int64_t sizes[5];
  geometry g;
  CML_TRY(cml_et_want(c, x, CML_ET_FLOATING, "the image", err));
  CML_TRY(cml_et_same_type(c, x, w, err));
  CML_TRY(cml_et_same_type(c, x, grad, err));
  CML_TRY(take_geometry(c, 4, x, w, &g, sizes, err));
  if (c->args[10]->count != 3) return cml_et_fail(c, err, "output_mask has %u entries, not 3", c->args[10]->count);
  if (grad->rank != x->rank || memcmp(grad->sizes, sizes, x->rank * sizeof *sizes)) return cml_et_fail(c, err, "the gradient's shape is not that of the convolution's result");
  for (size_t k = 0; k < 3; k++) {
    outs[k] = c->args[10]->booleans[k] ? cml_et_arg(c, 11 + k) : NULL;
    if (outs[k]) CML_TRY(cml_et_same_type(c, x, outs[k], err));
  }
  plain p = {.g = &g, .small = g.transposed ? x : grad, .big = g.transposed ? grad : x, .w = w};
  CML_TRY(gradient(c, p, g.transposed ? SMALL : BIG, x, outs[0], err));
  CML_TRY(gradient(c, p, WEIGHT, w, outs[1], err));
  return bias_gradient(c, &g, grad, outs[2], err);
}

static const cml_et_op rows[] = {
    {"aten::convolution.out", "ttt?IIIbIio", op_convolution},
    {"aten::convolution_backward.out", "tttI?IIIbIiBo?o?o?", op_backward},
};
CML_ET_FAMILY(conv)
