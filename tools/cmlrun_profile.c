/* Operations by time, with what they compute and move. Floating-point operations are counted from shapes alone: two for each
 * multiplication of a product, one for each element of everything else's results. Bytes are those of arguments and results, as if
 * nothing stayed in a cache; weights that are kept compressed are not counted. */
#include "cmlrun_profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels.h"
#include "op.h"
#include "parallel.h"

static uint64_t count(const cml_tensor *t) { return t && !t->list && cml_tensor_known_shape(t) ? (uint64_t)cml_tensor_count(t) : 0; }
static uint64_t dim(const cml_tensor *t, int32_t back) { return t->rank >= back && t->dims[t->rank - back] > 0 ? (uint64_t)t->dims[t->rank - back] : 1; }
static bool has(const char *type, const char *word) { return strstr(type, word) != NULL; }

/* Its shapes say nothing of heads; the numbers of its layout begin with 4 batch dims, queries, keys, depth, value depth. */
static uint64_t strided_attention_flops(const cml_tensor *const *in, size_t inputs) {
  for (size_t i = 3; i < inputs; i++) {
    if (in[i]->dtype != CML_I32 || !in[i]->data || count(in[i]) < 8) continue;
    const int32_t *n = in[i]->data;
    uint64_t scores = 1;
    for (int k = 0; k < 6; k++) scores *= (uint64_t)n[k];
    return 2 * scores * (uint64_t)(n[6] + n[7]);
  }
  return 0;
}

/* Another shape of the same bytes: nothing is done. */
static bool is_view(const char *type) {
  const cml_op *op = cml_op_find(type, CML_IOS18);
  return op && op->flags & CML_OP_VIEW;
}

static uint64_t flops_of(const char *type, const cml_tensor *const *in, size_t inputs, const cml_tensor *const *out, size_t outputs) {
  uint64_t results = 0;
  for (size_t i = 0; i < outputs; i++) results += count(out[i]);
  if (inputs < 2 || !outputs) return results;
  if (has(type, "linear")) return 2 * count(out[0]) * dim(in[0], 1);
  if (has(type, "matmul")) return 2 * count(in[0]) * dim(out[0], 1);
  if (has(type, "conv_transpose")) return in[1]->dims[0] > 0 ? 2 * count(in[0]) * (count(in[1]) / (uint64_t)in[1]->dims[0]) : 0;
  if (!strcmp(type, "cml_conv_pair") && in[1]->dims[0] > 0) { /* weight, the second's, has one dims[0] for each channel between */
    uint64_t channels = (uint64_t)in[1]->dims[0];
    return 2 * (count(in[0]) * channels + count(out[0]) * (count(in[1]) / channels));
  }
  if (has(type, "conv")) return in[1]->rank > 0 && in[1]->dims[0] > 0 ? 2 * count(out[0]) * (count(in[1]) / (uint64_t)in[1]->dims[0]) : 0;
  if (!strcmp(type, "cml_attention_view")) return strided_attention_flops(in, inputs);
  if (has(type, "attention")) return 2 * (count(in[0]) + count(out[0])) * dim(in[1], 2);
  bool lstm = !strcmp(type, "lstm");
  if (lstm || !strcmp(type, "gru") || !strcmp(type, "cml_gru") || !strcmp(type, "rnn")) { /* x [steps, batch, …], states, and the matrices behind are weights */
    uint64_t weights = 0, vectors = in[0]->rank == 3 ? (uint64_t)(in[0]->dims[0] * in[0]->dims[1]) : 1;
    for (size_t i = lstm ? 3 : 2; i < inputs; i++)
      if (in[i]->rank == 2) weights += count(in[i]);
    return 2 * vectors * weights;
  }
  return results;
}

static void describe_shapes(cmlrun_event *e, const cml_tensor *const *out, size_t outputs) {
  size_t n = 0, room = sizeof e->shapes;
  for (size_t i = 0; i < outputs && n < room; i++) {
    n += (size_t)snprintf(e->shapes + n, room - n, "%s%s [", i ? ", " : "", out[i]->dtype ? cml_dtype_name(out[i]->dtype) : "list");
    for (int32_t k = 0; k < out[i]->rank && n < room; k++)
      n += (size_t)snprintf(e->shapes + n, room - n, "%s%lld", k ? ", " : "", (long long)out[i]->dims[k]);
    if (n < room) n += (size_t)snprintf(e->shapes + n, room - n, "]");
  }
}

static uint64_t bytes_of(const cml_tensor *const *t, size_t n) {
  uint64_t sum = 0, bytes;
  for (size_t i = 0; i < n; i++) {
    size_t same = 0; /* one tensor may be query, key and value */
    while (same < i && t[same]->data != t[i]->data) same++;
    if (same == i && t[i]->data && cml_tensor_bytes(t[i], &bytes)) sum += bytes;
  }
  return sum;
}

/* Whether a part lies in its whole already, so that joining or cutting copies nothing. */
static bool in_place(const cml_tensor *part, const cml_tensor *whole) {
  uint64_t bytes, room;
  if (!part->data || !whole->data || !cml_tensor_bytes(part, &bytes) || !cml_tensor_bytes(whole, &room)) return false;
  uintptr_t at = (uintptr_t)part->data - (uintptr_t)whole->data;
  return at <= room && bytes <= room - at;
}

/* Bytes of what concat, split and the like join or cut but do not copy, read and written. */
static uint64_t bytes_in_place(const char *type, const cml_tensor *const *in, size_t inputs, const cml_tensor *const *out, size_t outputs) {
  bool joins = has(type, "concat") || has(type, "stack"), cuts = has(type, "split") || has(type, "slice");
  uint64_t sum = 0;
  for (size_t i = 0; joins && outputs && i < inputs; i++)
    if (in_place(in[i], out[0])) sum += 2 * bytes_of(in + i, 1);
  for (size_t i = 0; cuts && inputs && i < outputs; i++)
    if (in_place(out[i], in[0])) sum += 2 * bytes_of(out + i, 1);
  return sum;
}

static cmlrun_operator *find_operator(cmlrun_profile *p, const char *type) {
  for (size_t i = 0; i < p->operator_count; i++)
    if (!strcmp(p->operators[i].type, type)) return &p->operators[i];
  if (p->operator_count == sizeof p->operators / sizeof *p->operators) return NULL;
  p->operators[p->operator_count].type = type;
  return &p->operators[p->operator_count++];
}

void cmlrun_profile_observe(void *context, const char *type, const char *name, uint64_t begin, uint64_t end, const cml_tensor *const *inputs,
                            size_t input_count, const cml_tensor *const *outputs, size_t output_count) {
  enum { MOST_EVENTS = 1 << 20 };
  cmlrun_profile *p = context;
  cmlrun_event e = {.type = type, .name = name ? name : "", .begin_ns = begin, .end_ns = end};
  if (!is_view(type)) {
    e.flops = flops_of(type, inputs, input_count, outputs, output_count);
    e.bytes = bytes_of(inputs, input_count) + bytes_of(outputs, output_count);
    uint64_t stays = bytes_in_place(type, inputs, input_count, outputs, output_count);
    if (stays) e.bytes = stays < e.bytes ? e.bytes - stays : 0, e.flops = 0;
  }
  cmlrun_operator *o = find_operator(p, type);
  if (o) o->ns += end - begin, o->flops += e.flops, o->bytes += e.bytes, o->calls++;
  if (p->event_count == p->event_capacity) {
    size_t capacity = p->event_capacity ? 2 * p->event_capacity : 1024;
    cmlrun_event *events = capacity > MOST_EVENTS ? NULL : realloc(p->events, capacity * sizeof *events);
    if (!events) return;
    p->events = events;
    p->event_capacity = capacity;
  }
  describe_shapes(&e, outputs, output_count);
  p->events[p->event_count++] = e;
}

enum { MOST_PIECES = 1 << 18 };

cml_status cmlrun_profile_keep_pieces(cmlrun_profile *p, cml_error *err) {
  p->pieces = malloc(MOST_PIECES * sizeof *p->pieces); /* touched as it fills */
  return p->pieces ? CML_OK : cml_fail_memory(err);
}

size_t cmlrun_piece_count(const cmlrun_profile *p) {
  size_t n = atomic_load(&p->piece_count);
  return !p->pieces ? 0 : n < MOST_PIECES ? n : MOST_PIECES;
}

/* The operation's event comes when all its pieces are done: it is the next one. */
void cmlrun_profile_piece(void *context, size_t thread, uint64_t begin, uint64_t end) {
  cmlrun_profile *p = context;
  size_t i = atomic_fetch_add(&p->piece_count, 1);
  if (i < MOST_PIECES) p->pieces[i] = (cmlrun_piece){(uint32_t)thread, (uint32_t)p->event_count, begin, end};
}

void cmlrun_profile_begin_run(cmlrun_profile *p) {
  p->event_count = 0;
  atomic_store(&p->piece_count, 0);
  p->runs++;
}

static int by_time(const void *a, const void *b) {
  const cmlrun_operator *x = a, *y = b;
  return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

void cmlrun_profile_sort(cmlrun_profile *p) { qsort(p->operators, p->operator_count, sizeof *p->operators, by_time); }

void cmlrun_profile_free(cmlrun_profile *p) {
  if (!p) return;
  free(p->events);
  free(p->pieces);
  free(p);
}

/* ---- what the machine can do ---- */

enum { TILE_DEPTH = 256, TILES = 6000, READ_BYTES = 32 << 20, ROUNDS = 5 };

typedef struct peak_context {
  const cml_kernels *k;
  float *memory; /* READ_BYTES a thread; the first floats are the tiles' operands, too */
  float *sums;   /* one a thread */
} peak_context;

static void multiply(void *context, size_t begin, size_t end) {
  const peak_context *c = context;
  const cml_kernels *k = c->k;
  float result[64 * 64];
  for (size_t i = begin; i < end; i++)
    for (int n = 0; n < TILES; n++) {
      const float *m = c->memory + i * (READ_BYTES / 4);
      k->gemm_tile(k->tile_rows, k->tile_columns, TILE_DEPTH, m, TILE_DEPTH + 16, m + 8192, false, result, k->tile_columns, n > 0, NULL, -1e30f, 1e30f);
      c->sums[16 * i] = result[0];
    }
}

typedef uint32_t words __attribute__((vector_size(64), aligned(4), may_alias));

static void read_memory(void *context, size_t begin, size_t end) {
  const peak_context *c = context;
  for (size_t i = begin; i < end; i++) {
    const words *p = (const words *)(const void *)(c->memory + i * (READ_BYTES / 4));
    words s[4] = {p[0], p[1], p[2], p[3]};
    for (size_t n = 4; n < READ_BYTES / sizeof *p; n += 4)
      for (size_t k = 0; k < 4; k++) s[k] ^= p[n + k];
    s[0] ^= s[1] ^ s[2] ^ s[3];
    c->sums[16 * i] = (float)s[0][0];
  }
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Work items a second, each thread one at a time; the best of some rounds. */
static double best_rate(cml_pool *pool, size_t threads, void (*body)(void *, size_t, size_t), peak_context *c) {
  double best = 0;
  for (int i = 0; i < ROUNDS; i++) {
    double begin = seconds();
    cml_parallel(pool, threads, 1, body, c);
    double rate = (double)threads / (seconds() - begin);
    if (rate > best) best = rate;
  }
  return best;
}

cml_status cmlrun_measure_peaks(size_t threads, cmlrun_peaks *out, cml_error *err) {
  cml_pool *pool = NULL;
  CML_TRY(cml_pool_create(threads, &pool, err));
  threads = cml_pool_threads(pool);
  const cml_kernels *k = cml_kernels_get();
  peak_context c = {.k = k, .memory = malloc(threads * READ_BYTES), .sums = calloc(threads * 16, 4)};
  cml_status status = c.memory && c.sums ? CML_OK : cml_fail_memory(err);
  if (!status) {
    for (size_t i = 0; i < threads * (READ_BYTES / 4); i++) c.memory[i] = (float)(i % 7) * 0.001f;
    double flops = 2.0 * TILES * (double)(k->tile_rows * k->tile_columns * TILE_DEPTH);
    out->gflops = 1e-9 * flops * best_rate(pool, threads, multiply, &c);
    out->gbytes = 1e-9 * READ_BYTES * best_rate(pool, threads, read_memory, &c);
  }
  free(c.memory);
  free(c.sums);
  cml_pool_destroy(pool);
  return status;
}

double cmlrun_share(const cmlrun_peaks *peaks, uint64_t flops, uint64_t bytes, uint64_t ns) {
  double work = ns && peaks->gflops > 0 ? (double)flops / (double)ns / peaks->gflops : 0;
  double moved = ns && peaks->gbytes > 0 ? (double)bytes / (double)ns / peaks->gbytes : 0;
  return work > moved ? work : moved;
}
