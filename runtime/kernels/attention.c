/* One thread takes a head and a part of its queries: packs the head's keys (as columns) and values once, also for the heads after it that
 * have the same, then goes through the queries in blocks of a few tiles. Few queries (decoding) read keys and values where they lie,
 * CML_ATTEND at a time, which may be of several heads with the same keys and values. */
#include "attention.h"
#include "sizes.h"

#include <math.h>
#include <string.h>

enum { KEY_BLOCK = 256, FEW_QUERIES = 6, QUERY_TILES = 3, NEAR_KEYS = 8192 }; /* elements of keys that stay in the first-level cache while each of a few queries meets them */

static size_t up16(size_t x) { return up(x, 16); }
static size_t query_block(const cml_kernels *k) { return k->tile_rows * (k->tile_rows > 8 ? QUERY_TILES : 2 * QUERY_TILES); }

/* floats of each part of one thread's scratch */
typedef struct parts {
  size_t keys, values, query, scores, sums, rows, total;
} parts;

static parts measure(const cml_kernels *k, const cml_attention *a) {
  parts p = {.query = up16(CML_ATTEND * a->depth), .scores = CML_ATTEND * up16(a->keys), .sums = up16(CML_ATTEND * a->value_depth)};
  size_t n = query_block(k);
  p.total = p.query + p.scores + p.sums;
  if (a->queries <= FEW_QUERIES) return p;
  p.keys = up16(cml_pack_bytes(k, a->depth, a->keys, false) / 4);
  p.values = up16(cml_pack_bytes(k, a->keys, a->value_depth, false) / 4);
  p.query = up16(n * a->depth + 16);
  p.scores = up16(n * KEY_BLOCK);
  p.sums = up16(n * a->value_depth + 16);
  p.rows = up16(3 * n);
  p.total = p.keys + p.values + p.query + p.scores + p.sums + p.rows;
  return p;
}

size_t cml_attention_scratch(const cml_kernels *k, const cml_attention *a) { return measure(k, a).total * 4 + 64; }

static int64_t base_of(const cml_attention *a, const cml_attention_view *v, size_t head) {
  int64_t at = 0, h = (int64_t)head;
  for (int i = CML_ATTENTION_DIMS - 1; i >= 0; i--) {
    at += h % a->dims[i] * v->batch[i];
    h /= a->dims[i];
  }
  return at;
}

static void load_rows(const cml_kernels *k, const cml_attention *a, const cml_attention_view *v, int64_t at, size_t rows, float *to, size_t n) {
  if (v->row == (int64_t)n) n *= rows, rows = 1; /* side by side */
  for (size_t r = 0; r < rows; r++, at += v->row, to += n) {
    if (a->half) k->f16_to_f32((const cml_f16 *)v->data + at, to, n);
    else memcpy(to, (const float *)v->data + at, n * 4);
  }
}

static void fill_scores(const uint8_t *there, int64_t column, float fill, float *x, size_t n) {
  if (column == 1)
    for (size_t s = 0; s < n; s++) x[s] = there[s] ? x[s] : fill;
  else
    for (size_t s = 0; s < n; s++) x[s] = there[(int64_t)s * column] ? x[s] : fill;
}

/* Adds the masks, the last first, to scores of queries [query, query + rows) and keys [first, first + n), `stride` apart. */
static void add_masks(const cml_kernels *k, const cml_attention *a, size_t head, size_t query, size_t rows, size_t first, float *scores, size_t stride,
                      size_t n) {
  for (int i = CML_ATTENTION_MASKS; i-- > 0;) {
    const cml_attention_mask *mask = &a->masks[i];
    if (mask->type == CML_MASK_NONE) continue;
    int64_t row = mask->view.row, at = base_of(a, &mask->view, head) + (int64_t)query * row + (int64_t)first * mask->column;
    const bool half = mask->type == CML_MASK_F16;
    const uint8_t *there = mask->view.data;
    const cml_f16 *halves = mask->view.data;
    const float *floats = mask->view.data;
    if (mask->type != CML_MASK_BOOL && mask->column) {
      k->add_rows(rows, n, scores, stride, half ? (const void *)(halves + at) : floats + at, half, (size_t)row);
      continue;
    }
    for (size_t r = 0; r < rows; r++, at += row) {
      float *x = scores + r * stride;
      if (mask->type != CML_MASK_BOOL) k->binary_scalar(CML_BINARY_ADD, x, half ? cml_f16_to_f32(halves[at]) : floats[at], false, x, n);
      else fill_scores(there + at, mask->column, a->fill, x, n);
    }
  }
}

/* Row `query` of the result: x * scale. x does not stay. */
static void store_row(const cml_kernels *k, const cml_attention *a, int64_t base, size_t query, float *x, float scale) {
  int64_t at = base + (int64_t)query * a->out.row;
  void *out = (void *)(uintptr_t)a->out.data;
  float *to = a->half ? x : (float *)out + at;
  k->binary_scalar(CML_BINARY_MUL, x, scale, false, to, a->value_depth);
  if (a->half) k->f32_to_f16(x, (cml_f16 *)out + at, a->value_depth);
}

/* ---- few queries ---- */

/* How many heads, from a multiple of it on, have the same keys and values. */
static size_t sharing_heads(const cml_attention *a) {
  size_t n = 1;
  for (int i = CML_ATTENTION_DIMS - 1; i >= 0 && (a->dims[i] == 1 || (!a->k.batch[i] && !a->v.batch[i])); i--) n *= (size_t)a->dims[i];
  return n;
}

/* Queries [begin, end) of all heads, counted through, that have the same keys and values. */
static void decode(const cml_kernels *k, const cml_attention *a, size_t begin, size_t end, float *scratch) {
  parts p = measure(k, a);
  float *q = scratch, *scores = q + p.query, *sums = scores + p.scores;
  const size_t size = a->half ? 2 : 4, first = begin / a->queries, stride = up16(a->keys), n = end - begin;
  for (size_t i = 0; i < n; i++)
    load_rows(k, a, &a->q, base_of(a, &a->q, (begin + i) / a->queries) + (int64_t)((begin + i) % a->queries) * a->q.row, 1, q + i * a->depth, a->depth);
  k->binary_scalar(CML_BINARY_MUL, q, a->scale, false, q, n * a->depth);
  const char *keys = (const char *)a->k.data + (size_t)base_of(a, &a->k, first) * size;
  for (size_t s = 0, m; s < a->keys; s += m) {
    /* 16 more than a round number: streams of an eighth of them would share the cache's sets */
    m = least(a->keys - s, n == 1 ? a->keys : up16(NEAR_KEYS / (a->depth + 1)) + 16);
    for (size_t i = 0; i < n; i++)
      k->gemv_rows(m, a->depth, keys + s * (size_t)a->k.row * size, a->half, (size_t)a->k.row, q + i * a->depth, scores + i * stride + s);
  }
  for (size_t i = 0; i < n; i++) {
    add_masks(k, a, (begin + i) / a->queries, (begin + i) % a->queries, 1, 0, scores + i * stride, 0, a->keys);
    k->softmax_rows(1, a->keys, scores + i * stride, scores + i * stride, false, false, 0);
  }
  k->attend_values(n, a->keys, a->value_depth, scores, stride, (const char *)a->v.data + (size_t)base_of(a, &a->v, first) * size, a->half,
                   (size_t)a->v.row, sums, a->value_depth);
  for (size_t i = 0; i < n; i++)
    store_row(k, a, base_of(a, &a->out, (begin + i) / a->queries), (begin + i) % a->queries, sums + i * a->value_depth, 1);
}

/* ---- blocks ---- */

typedef struct head_work {
  const cml_kernels *k;
  const cml_attention *a;
  size_t head;
  float *keys, *values, *query, *scores, *sums, *tops, *totals, *corrections;
} head_work;

static void query_rows(const head_work *w, size_t q0, size_t rows) {
  const cml_kernels *k = w->k;
  const cml_attention *a = w->a;
  size_t nr = k->tile_columns, tiles = (rows + k->tile_rows - 1) / k->tile_rows, e = a->depth, ev = a->value_depth;
  int64_t out = base_of(a, &a->out, w->head);
  load_rows(k, a, &a->q, base_of(a, &a->q, w->head) + (int64_t)q0 * a->q.row, rows, w->query, e);
  for (size_t r = 0; r < rows; r++) w->tops[r] = -INFINITY, w->totals[r] = 0;
  k->binary_scalar(CML_BINARY_MUL, w->query, a->scale, false, w->query, rows * e);
  memset(w->sums, 0, rows * ev * 4);
  for (size_t s0 = 0; s0 < a->keys; s0 += KEY_BLOCK) {
    size_t n = least(a->keys - s0, KEY_BLOCK);
    for (size_t j = 0; j < n; j += nr)
      for (size_t t = 0, r = 0, end; t < tiles; t++, r = end) {
        end = (t + 1) * rows / tiles;
        k->gemm_tile(end - r, least(n - j, nr), e, w->query + r * e, e, w->keys + (s0 + j) * e, false, w->scores + r * KEY_BLOCK + j, KEY_BLOCK,
                     false, NULL, -INFINITY, INFINITY);
      }
    add_masks(k, a, w->head, q0, rows, s0, w->scores, KEY_BLOCK, n);
    k->soften_rows(rows, n, w->scores, KEY_BLOCK, w->tops, w->totals, w->corrections);
    for (size_t r = 0; s0 && r < rows; r++)
      if (w->corrections[r] != 1) k->binary_scalar(CML_BINARY_MUL, w->sums + r * ev, w->corrections[r], false, w->sums + r * ev, ev);
    for (size_t j = 0; j < ev; j += nr)
      for (size_t t = 0, r = 0, end; t < tiles; t++, r = end) {
        end = (t + 1) * rows / tiles;
        k->gemm_tile(end - r, least(ev - j, nr), n, w->scores + r * KEY_BLOCK, KEY_BLOCK, w->values + j * a->keys + s0 * nr, false,
                     w->sums + r * ev + j, ev, true, NULL, -INFINITY, INFINITY);
      }
  }
  for (size_t r = 0; r < rows; r++) /* every key left out: 0 / 0 = NaN, as torch has it */
    store_row(k, a, out, q0 + r, w->sums + r * ev, w->totals[r] == 0 ? NAN : 1.0f / w->totals[r]);
}

typedef struct job {
  const cml_kernels *k;
  const cml_attention *a;
  size_t splits;   /* parts of a head's queries, or, of few, of those that have the same keys and values */
  size_t together; /* how many these are */
  char *scratch;
  size_t slot;
} job;

static void run_few(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) {
    size_t first = i / j->splits * j->together, part = i % j->splits;
    decode(j->k, j->a, first + part * j->together / j->splits, first + (part + 1) * j->together / j->splits, (float *)(void *)(j->scratch + thread * j->slot));
  }
}

static void run_range(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  const cml_attention *a = j->a;
  const cml_kernels *k = j->k;
  float *scratch = (float *)(void *)(j->scratch + thread * j->slot);
  size_t size = a->half ? 2 : 4;
  int64_t packed_keys = -1, packed_values = -1;
  parts p = measure(k, a);
  head_work w = {.k = k, .a = a, .keys = scratch};
  w.values = w.keys + p.keys, w.query = w.values + p.values, w.scores = w.query + p.query, w.sums = w.scores + p.scores;
  w.tops = w.sums + p.sums, w.totals = w.tops + query_block(k), w.corrections = w.totals + query_block(k);
  for (size_t i = begin; i < end; i++) {
    w.head = i / j->splits;
    size_t part = i % j->splits, q = part * a->queries / j->splits, last = (part + 1) * a->queries / j->splits;
    int64_t keys = base_of(a, &a->k, w.head), values = base_of(a, &a->v, w.head);
    if (keys != packed_keys)
      cml_pack_panels(k, w.keys, false, (const char *)a->k.data + (size_t)keys * size, a->half, a->depth, a->keys, 1, (size_t)a->k.row, 0,
                      cml_panel_count(k, a->keys));
    if (values != packed_values)
      cml_pack_panels(k, w.values, false, (const char *)a->v.data + (size_t)values * size, a->half, a->keys, a->value_depth, (size_t)a->v.row, 1, 0,
                      cml_panel_count(k, a->value_depth));
    packed_keys = keys, packed_values = values;
    size_t blocks = (last - q + query_block(k) - 1) / query_block(k), count = last - q; /* of nearly equal height */
    for (size_t b = 0; b < blocks; b++) query_rows(&w, q + b * count / blocks, (b + 1) * count / blocks - b * count / blocks);
  }
}

void cml_attention_run(const cml_kernels *k, const cml_attention *a, cml_pool *pool, void *scratch, size_t slots) {
  size_t heads = 1, threads = cml_pool_threads(pool);
  for (int i = 0; i < CML_ATTENTION_DIMS; i++) heads *= (size_t)a->dims[i];
  if (!heads || !a->queries || !a->value_depth) return;
  if (slots < threads) pool = NULL, threads = 1;
  job j = {k, a, 1, a->queries * sharing_heads(a), scratch, cml_attention_scratch(k, a)};
  if (a->queries <= FEW_QUERIES) {
    size_t groups = heads * a->queries / j.together;
    j.splits = (j.together + CML_ATTEND - 1) / CML_ATTEND;
    if (groups * j.splits < threads) j.splits = least(j.together, (threads + groups - 1) / groups);
    cml_parallel_with_thread(pool, groups * j.splits, 1, run_few, &j);
    return;
  }
  if (threads > 1 && heads % threads) /* heads do not divide evenly: parts of them do */
    j.splits = least(threads, (a->queries + k->tile_rows - 1) / k->tile_rows);
  cml_parallel_with_thread(pool, heads * j.splits, 1, run_range, &j);
}
