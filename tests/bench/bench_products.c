/* Matrix products and convolutions of the shapes that networks have, alone: GFLOP/s with one thread and with all of a pool, share of
 * the measured peak of multiplying and adding, and what the second thread gains.
 *
 *     build/tests/bench-products [--threads N] [--cold] [--kernels TABLE] [NAME...]
 *
 * The peak is that of the product's tile with both its operands in the first-level cache. One thread and several take turns in slices
 * of milliseconds; the fastest run of each counts. Winograd's convolutions count the multiplications of the definition, so that more than the peak is
 * possible. --cold: each run takes the next of several copies of the weights, 64 MB together, as the layers of a network do. NAMEs choose shapes that contain one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "conv.h"

enum { COLD_BYTES = 64 << 20, HUGE_PAGE = 2 << 20, SLICE_NS = 6000000, SLICES = 6, MOST_NAMES = 16 };

typedef struct shape {
  const char *name;
  int64_t size, channels, outputs, kernel, stride; /* size: of a square image; rows of a matrix product when kernel is 0. outputs: 0 when depthwise */
} shape;

static const shape shapes[] = {
    {"product", 512, 512, 512, 0, 0},
    {"product", 64, 64, 64, 0, 0},
    {"product", 128, 128, 128, 0, 0},
    {"product", 256, 256, 256, 0, 0},
    {"product", 1024, 1024, 1024, 0, 0},
    {"vit_tiny qkv", 197, 192, 576, 0, 0},
    {"vit_tiny out", 197, 192, 192, 0, 0},
    {"vit_tiny up", 197, 192, 768, 0, 0},
    {"vit_tiny down", 197, 768, 192, 0, 0},
    {"encoder qkv", 128, 384, 1152, 0, 0},
    {"encoder out", 128, 384, 384, 0, 0},
    {"encoder up", 128, 384, 1536, 0, 0},
    {"encoder down", 128, 1536, 384, 0, 0},
    {"llama up", 64, 512, 1408, 0, 0},
    {"llama down", 64, 1408, 512, 0, 0},
    {"resnet50 stem", 224, 3, 64, 7, 2},
    {"resnet50 1x1", 56, 64, 64, 1, 1},
    {"resnet50 1x1", 56, 64, 256, 1, 1},
    {"resnet50 1x1", 56, 256, 64, 1, 1},
    {"resnet50 3x3", 56, 64, 64, 3, 1},
    {"resnet50 3x3 /2", 56, 128, 128, 3, 2},
    {"resnet50 1x1", 28, 128, 512, 1, 1},
    {"resnet50 1x1", 28, 512, 128, 1, 1},
    {"resnet50 3x3", 28, 128, 128, 3, 1},
    {"resnet50 1x1", 14, 256, 1024, 1, 1},
    {"resnet50 1x1", 14, 1024, 256, 1, 1},
    {"resnet50 3x3", 14, 256, 256, 3, 1},
    {"resnet50 3x3 /2", 14, 512, 512, 3, 2},
    {"resnet50 1x1", 7, 512, 2048, 1, 1},
    {"resnet50 1x1", 7, 2048, 512, 1, 1},
    {"resnet50 3x3", 7, 512, 512, 3, 1},
    {"resnet50 1x1 /2", 14, 1024, 2048, 1, 2},
    {"unet 3x3", 64, 64, 64, 3, 1},
    {"unet 3x3", 32, 128, 128, 3, 1},
    {"unet 3x3 /2", 64, 64, 128, 3, 2},
    {"mobilenet_v2 1x1", 56, 24, 144, 1, 1},
    {"mobilenet_v2 1x1", 28, 192, 32, 1, 1},
    {"mobilenet_v2 1x1", 14, 64, 384, 1, 1},
    {"mobilenet_v2 1x1", 14, 384, 96, 1, 1},
    {"mobilenet_v2 1x1", 14, 96, 576, 1, 1},
    {"mobilenet_v2 1x1", 7, 160, 960, 1, 1},
    {"mobilenet_v2 1x1", 7, 960, 320, 1, 1},
    {"mobilenet_v2 1x1", 7, 320, 1280, 1, 1},
    {"few 1x1", 3, 320, 640, 1, 1},
    {"few 1x1", 3, 640, 320, 1, 1},
    {"few 1x1", 2, 640, 320, 1, 1},
    {"few 3x3", 3, 256, 256, 3, 1},
    {"few 1x1", 5, 224, 448, 1, 1},
    {"few 1x1", 4, 448, 224, 1, 1},
    {"few product", 12, 384, 1152, 0, 0},
    {"few product", 8, 512, 2048, 0, 0},
    {"few product", 5, 768, 768, 0, 0},
    {"few product", 3, 768, 768, 0, 0},
    {"depthwise 3x3", 112, 32, 0, 3, 1},
    {"depthwise 3x3 /2", 112, 96, 0, 3, 2},
    {"depthwise 3x3", 56, 144, 0, 3, 1},
    {"depthwise 3x3", 28, 192, 0, 3, 1},
    {"depthwise 3x3", 14, 576, 0, 3, 1},
    {"depthwise 3x3", 7, 960, 0, 3, 1},
    {"depthwise 5x5 /2", 56, 144, 0, 5, 2},
    {"depthwise 5x5", 28, 240, 0, 5, 1},
    {"depthwise 5x5", 14, 672, 0, 5, 1},
    {"depthwise 7x7", 14, 384, 0, 7, 1},
};

/* Everything of one shape; `run` makes one run on the given pool. */
typedef struct work {
  const cml_kernels *k;
  const shape *s;
  bool half;
  bool packed_half; /* as the operators pack them */
  cml_conv conv;
  char *x, *y, *weights, *scratch;
  float *bias;
  size_t weight_bytes, copies, turn, slots;
  double flops;
} work;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void run(work *w, cml_pool *pool) {
  const void *b = w->weights + (w->turn = (w->turn + 1) % w->copies) * w->weight_bytes;
  cml_epilogue after = {.bias = w->bias, .activation = CML_UNARY_RELU};
  if (w->s->kernel) {
    cml_conv_run(&(cml_conv_call){.k = w->k, .v = &w->conv, .weights = {b, w->packed_half}, .after = after, .x = w->x, .y = w->y,
                                  .pool = pool, .scratch = w->scratch, .slots = w->slots});
    return;
  }
  size_t rows = (size_t)w->s->size, depth = (size_t)w->s->channels, columns = (size_t)w->s->outputs;
  cml_gemm g = {.rows = rows, .columns = columns, .depth = depth, .a = w->x, .a_stride = depth, .a_depth_stride = 1, .a_half = w->half, .b = b,
                .b_half = w->packed_half, .in_parts = w->packed_half == w->half && cml_parts_pay(w->k, w->half, (int64_t)rows, depth, columns), .c = w->y, .c_stride = columns, .c_half = w->half, .after = after};
  cml_gemm_run(w->k, &g, 1, pool, w->scratch, w->slots);
}

/* Small numbers, floats or halves. */
static void *numbers(size_t count, bool half) {
  char *to = malloc(count * (half ? 2 : 4) + 64);
  for (size_t i = 0; to && i < count; i++) {
    float v = (float)((i * 7919) % 97) / 97.0f - 0.5f;
    if (half) ((cml_f16 *)(void *)to)[i] = cml_f16_from_f32(v);
    else ((float *)(void *)to)[i] = v;
  }
  return to;
}

static cml_conv conv_of(const shape *s, bool half) {
  int64_t pad = s->kernel / 2, out = (s->size + 2 * pad - s->kernel) / s->stride + 1;
  cml_conv v = {.batch = 1, .channels = (size_t)s->channels, .outputs = (size_t)(s->outputs ? s->outputs : s->channels), .groups = s->outputs ? 1 : (size_t)s->channels, .in = {1, s->size, s->size}, .out = {1, out, out},
                .kernel = {1, s->kernel, s->kernel}, .stride = {1, s->stride, s->stride}, .dilation = {1, 1, 1}, .offset = {0, -pad, -pad},
                .in_last = true, .out_last = true, .in_half = half, .out_half = half};
  cml_conv_place_all(&v);
  v.winograd = cml_conv_suits_winograd(cml_kernels_get(), &v);
  return v;
}

static bool prepare(work *w, size_t threads, bool cold) {
  const shape *s = w->s;
  size_t taps = (size_t)(s->kernel ? s->kernel * s->kernel : 1), depth = (size_t)s->channels, outputs = (size_t)s->outputs, in, out, scratch, shared = 0;
  if (s->kernel) {
    w->conv = conv_of(s, w->half);
    in = (size_t)(s->size * s->size) * depth;
    depth /= w->conv.groups;
    outputs = w->conv.outputs;
    out = (size_t)(w->conv.out[1] * w->conv.out[2]);
    w->packed_half = cml_conv_pack_half(w->k, &w->conv, w->half);
    w->weight_bytes = cml_conv_packed_bytes(w->k, &w->conv, w->packed_half);
    scratch = cml_conv_scratch(w->k, &w->conv);
    shared = cml_conv_shared(w->k, &w->conv, threads);
  } else {
    in = (size_t)s->size * depth;
    out = (size_t)s->size;
    w->packed_half = w->half;
    w->weight_bytes = cml_pack_bytes(w->k, depth, outputs, w->packed_half);
    scratch = cml_gemm_scratch(w->k);
  }
  w->flops = 2.0 * (double)(out * outputs * depth * taps);
  w->slots = threads;
  w->weight_bytes = (w->weight_bytes + 4095) & ~(size_t)4095;
  w->copies = cold ? 1 + COLD_BYTES / w->weight_bytes : 1;
  void *source = numbers(outputs * depth * taps, w->half);
  w->x = numbers(in, w->half);
  w->y = numbers(out * outputs, w->half);
  w->bias = numbers(outputs, false);
  w->weights = aligned_alloc(HUGE_PAGE, (w->copies * w->weight_bytes + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1));
  if (w->weights) madvise(w->weights, w->copies * w->weight_bytes, MADV_HUGEPAGE); /* as packed weights lie in models */
  w->scratch = aligned_alloc(64, ((scratch + 64) * threads + shared + 127) & ~(size_t)63);
  bool made = source && w->x && w->y && w->bias && w->weights && w->scratch;
  for (size_t i = 0; made && i < w->copies; i++) {
    void *to = w->weights + i * w->weight_bytes;
    int64_t n = (int64_t)taps;
    if (s->kernel)
      cml_conv_pack(w->k, &w->conv, &(cml_conv_source){.data = source, .half = w->half, .group_stride = n, .output_stride = n * (int64_t)depth, .channel_stride = n,
                                                       .tap_stride = {n, s->kernel, 1}}, w->packed_half, to, NULL);
    else cml_pack_panels(w->k, to, w->packed_half, source, w->half, depth, outputs, 1, depth, 0, cml_panel_count(w->k, outputs));
  }
  free(source);
  return made;
}

static void fastest(work *w, cml_pool *pool, int64_t *best) {
  for (int64_t end = now() + SLICE_NS, t, begin = now(); begin < end; begin = now()) {
    run(w, pool);
    t = now() - begin;
    if (t < *best) *best = t;
  }
}

/* GFLOP/s of the tile, everything it reads in the first-level cache. */
static double peak(const cml_kernels *k) {
  enum { DEPTH = 256, TIMES = 400 };
  float *x = numbers(64 * DEPTH, false), *y = numbers(64 * DEPTH, false), c[64 * 64];
  int64_t best = INT64_MAX;
  for (int round = 0; x && y && round < 200; round++) {
    int64_t begin = now(), t;
    for (int i = 0; i < TIMES; i++)
      k->gemm_tile(k->tile_rows, k->tile_columns, DEPTH, x, DEPTH, y, false, c, k->tile_columns, false, NULL, -INFINITY, INFINITY);
    t = now() - begin;
    if (t < best) best = t;
  }
  free(x);
  free(y);
  return 2.0 * TIMES * (double)(k->tile_rows * k->tile_columns * DEPTH) / (double)best;
}

static bool chosen(const shape *s, char **names, int count) {
  for (int i = 0; i < count; i++)
    if (strstr(s->name, names[i])) return true;
  return !count;
}

static bool measure(const cml_kernels *k, const shape *s, bool half, bool cold, cml_pool *pool, double most) {
  work w = {.k = k, .s = s, .half = half};
  size_t threads = cml_pool_threads(pool);
  bool made = prepare(&w, threads, cold);
  int64_t one = INT64_MAX, all = INT64_MAX;
  for (int i = 0; made && i < SLICES; i++) {
    fastest(&w, NULL, &one);
    fastest(&w, pool, &all);
  }
  char text[64];
  if (s->kernel) snprintf(text, sizeof text, "%lldx%lldx%lld to %lld", (long long)s->size, (long long)s->size, (long long)s->channels, (long long)w.conv.outputs);
  else snprintf(text, sizeof text, "%lld x %lld to %lld", (long long)s->size, (long long)s->channels, (long long)s->outputs);
  if (made)
    printf("| %s | %s | %s | %s | %.3f | %.0f | %.0f %% | %.0f | %.0f %% | %.2f |\n", s->name, text, half ? "fp16" : "fp32", w.conv.winograd ? "Winograd" : s->kernel && !s->outputs ? "taps" : "tiles", (double)one * 1e-6,
           w.flops / (double)one, 100 * w.flops / (double)one / most, w.flops / (double)all, 100 * w.flops / (double)all / most / (double)threads,
           (double)one / (double)all);
  void *parts[] = {w.x, w.y, w.weights, w.scratch, w.bias};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
  return made;
}

int main(int argc, char **argv) {
  size_t threads = 2;
  bool cold = false, ok = true;
  const char *table = NULL;
  char *names[MOST_NAMES];
  int count = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--cold")) cold = true;
    else if (!strcmp(argv[i], "--kernels") && i + 1 < argc) table = argv[++i];
    else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = (size_t)strtoul(argv[++i], NULL, 10);
    else if (count < MOST_NAMES) names[count++] = argv[i];
  }
  cml_pool *pool = NULL;
  cml_error err;
  if (cml_kernels_use(table, &err)) return fprintf(stderr, "bench-products: %s\n", err.text), 1;
  const cml_kernels *k = cml_kernels_get();
  if (cml_pool_create(threads, &pool, &err)) return fprintf(stderr, "bench-products: %s\n", err.text), 1;
  double most = peak(k);
  printf("%s, peak of one thread %.0f GFLOP/s\n\n| layer | shape | type | by | ms | GFLOP/s | of peak | with %zu threads | of peak | gain |\n|---|---|---|---|---|---|---|---|---|---|\n", k->name, most,
         cml_pool_threads(pool));
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (int half = 0; half < 2; half++)
      if (chosen(&shapes[i], names, count)) ok = measure(k, &shapes[i], half, cold, pool, most) && ok;
  cml_pool_destroy(pool);
  return ok ? 0 : 1;
}
