/* llama: attention over a cache of keys and values, the cache's updates, the Hadamard transform, the gated delta rule.
 *
 * Layouts are [batch, sequence, heads, size] (quantized attention also [batch, heads, sequence, size]); keys may have fewer
 * heads, each then shared by several of the queries'. Without a mask the first start_pos + sequence keys are seen, with a mask all
 * of the cache; causal: query i sees keys up to start_pos + i. Scores, softmax and sums are float32. Facts about arguments
 * from running ExecuTorch's own operators. */
#include <math.h>

#include "et_families.h"
#include "kernels.h"

/* ---- attention ---- */

/* One of query, key, value as rows of `size` floats; int8 with scale and zero point by row. */
typedef struct rows_of {
  const cml_et_tensor *t, *scales, *zeros;
  int64_t batch_step, head_step, step; /* in rows */
  int64_t size;
} rows_of;

enum { KEYS = 4096 };
typedef struct attention {
  rows_of q, k, v;
  cml_et_tensor *out;
  const cml_et_tensor *mask;
  int64_t batches, heads, key_heads, queries, keys, start;
  float scale;
  bool causal;
} attention;

/* Row r as floats: in place where it is float32, else into `buffer`. */
static const float *load_row(const rows_of *x, int64_t r, float *buffer) {
  if (x->t->dtype == CML_F32) return (const float *)x->t->data + r * x->size;
  cml_et_load_f32(buffer, x->t, r * x->size, 1, x->size);
  if (!x->scales) return buffer;
  float scale, zero = 0;
  cml_et_load_f32(&scale, x->scales, r, 1, 1);
  if (x->zeros) cml_et_load_f32(&zero, x->zeros, r, 1, 1);
  for (int64_t i = 0; i < x->size; i++) buffer[i] = (buffer[i] - zero) * scale;
  return buffer;
}

static int64_t row_of(const rows_of *x, int64_t batch, int64_t head, int64_t i) { return batch * x->batch_step + head * x->head_step + i * x->step; }

/* The scores of keys first .. first + n. */
static void scores_of(const attention *a, int64_t batch, int64_t key_head, int64_t i, const float *q, int64_t first, int64_t n, float *scores, float *buffer) {
  const cml_kernels *kernels = cml_kernels_get();
  for (int64_t j = 0; j < n; j++)
    scores[j] = kernels->dot(q, load_row(&a->k, row_of(&a->k, batch, key_head, first + j), buffer), (size_t)a->q.size) * a->scale;
  for (int64_t j = 0, some; a->mask && j < n; j += some) { /* in pieces that the row's buffer holds */
    some = n - j < a->v.size ? n - j : a->v.size;
    cml_et_load_f32(buffer, a->mask, i * a->mask->sizes[1] + first + j, 1, some);
    for (int64_t l = 0; l < some; l++) scores[j + l] += buffer[l];
  }
}

/* Keys are taken KEYS at a time. Where there are more, what was summed up is scaled to the largest score so far. */
static void attend(const attention *a, int64_t batch, int64_t head, int64_t i, float *scratch) {
  const cml_kernels *kernels = cml_kernels_get();
  int64_t size = a->v.size, out_row = row_of(&a->q, batch, head, i), key_head = head / (a->heads / a->key_heads);
  int64_t seen = a->causal && a->start + i + 1 < a->keys ? a->start + i + 1 : a->keys;
  float *scores = scratch, *sum = scores + KEYS, *part = sum + size, *query_buffer = part + size, *row_buffer = query_buffer + size;
  const float *q = load_row(&a->q, out_row, query_buffer);
  float largest = -INFINITY;
  double total = 0;
  memset(sum, 0, (size_t)size * sizeof *sum);
  for (int64_t first = 0; first < seen; first += KEYS) {
    int64_t n = seen - first < KEYS ? seen - first : KEYS;
    float before = largest;
    scores_of(a, batch, key_head, i, q, first, n, scores, row_buffer);
    if (seen > KEYS) {
      for (int64_t j = 0; j < n; j++) largest = scores[j] > largest || scores[j] != scores[j] ? scores[j] : largest;
      if (largest == -INFINITY) continue; /* all masked so far */
      for (int64_t j = 0; j < n; j++) scores[j] = expf(scores[j] - largest);
    } else {
      kernels->softmax_rows(1, (size_t)n, scores, scores, false, false, 0);
    }
    memset(part, 0, (size_t)size * sizeof *part);
    for (int64_t j = 0; j < n; j++) kernels->axpy(scores[j], load_row(&a->v, row_of(&a->v, batch, key_head, first + j), row_buffer), part, (size_t)size);
    float shrink = first ? expf(before - largest) : 0;
    total *= (double)shrink;
    for (int64_t j = 0; j < n; j++) total += (double)scores[j];
    for (int64_t l = 0; l < size; l++) sum[l] = sum[l] * shrink + part[l];
  }
  for (int64_t l = 0; seen > KEYS && l < size; l++) sum[l] = (float)((double)sum[l] / total);
  cml_et_store_f32(a->out, out_row * size, 1, size, sum);
}

static void attend_range(void *context, void *scratch, size_t begin, size_t end) {
  const attention *a = context;
  for (size_t n = begin; n < end; n++) {
    int64_t i = (int64_t)n % a->queries, rest = (int64_t)n / a->queries;
    attend(a, rest / a->heads, rest % a->heads, i, scratch);
  }
}

static void set_rows(rows_of *r, const cml_et_tensor *t, bool sequence_last) {
  int64_t heads = t->sizes[sequence_last ? 1 : 2], length = t->sizes[sequence_last ? 2 : 1];
  *r = (rows_of){.t = t, .batch_step = heads * length, .head_step = sequence_last ? length : 1, .step = sequence_last ? 1 : heads,
                 .size = t->sizes[3]};
}

/* out: resized like the query. */
static cml_status check_attention(cml_et_call *c, const cml_et_tensor *q, const cml_et_tensor *k, const cml_et_tensor *v, cml_et_tensor *out,
                                  int sequence, cml_error *err) {
  int head = 3 - sequence;
  if (q->rank != 4 || k->rank != 4 || v->rank != 4) return cml_et_fail(c, err, "takes query, key and value of rank 4");
  if (!cml_et_is_contiguous(q) || !cml_et_is_contiguous(k) || !cml_et_is_contiguous(v) || !cml_et_is_contiguous(out))
    return cml_et_fail(c, err, "takes contiguous tensors only");
  if (k->dtype != q->dtype || v->dtype != q->dtype) return cml_et_fail(c, err, "query, key and value have different types");
  if (q->sizes[3] != k->sizes[3] || q->sizes[3] != v->sizes[3] || q->sizes[0] != k->sizes[0] || !cml_et_same_shape(k, v) || !k->sizes[head] ||
      q->sizes[head] % k->sizes[head])
    return cml_et_fail(c, err, "the shapes of query, key and value do not fit together");
  return cml_et_resize_like(c, out, q, err);
}

static cml_status run_attention(cml_et_call *c, attention *a, int sequence, cml_error *err) {
  const cml_et_tensor *q = a->q.t, *k = a->k.t;
  a->batches = q->sizes[0];
  a->heads = q->sizes[3 - sequence];
  a->queries = q->sizes[sequence];
  a->key_heads = k->sizes[3 - sequence];
  int64_t cache = k->sizes[sequence];
  if (a->start < 0 || a->start > cache || a->queries > cache - a->start)
    return cml_et_fail(c, err, "position %lld and %lld queries do not fit into a cache of %lld", (long long)a->start, (long long)a->queries,
                       (long long)cache);
  a->keys = a->mask ? cache : a->start + a->queries;
  if (a->mask && a->causal) return cml_et_fail(c, err, "a mask and causal attention exclude each other");
  if (a->mask && (a->mask->rank != 2 || a->mask->sizes[0] != a->queries || a->mask->sizes[1] != cache || !cml_et_is_contiguous(a->mask) ||
                  !cml_dtype_is_float(a->mask->dtype)))
    return cml_et_fail(c, err, "the mask is no float tensor of [%lld, %lld]", (long long)a->queries, (long long)cache);
  if (!cml_et_numel(q)) return CML_OK;
  cml_et_crew crew;
  CML_TRY(cml_et_crew_of(c, (uint64_t)(KEYS + 4 * a->q.size + 16) * sizeof(float), &crew, err));
  cml_et_crew_run(&crew, (size_t)(a->batches * a->heads * a->queries), 1, attend_range, a);
  return CML_OK;
}

static float scale_of(const cml_et_call *c, size_t i, int64_t size) { return (float)cml_et_real(c, i, 1 / sqrt((double)(size ? size : 1))); }

/* first: the position of start_pos; then mask?, dropout, causal, scale?, out at `out` */
static cml_status float_attention(cml_et_call *c, const cml_et_tensor *k, const cml_et_tensor *v, size_t mask, size_t start, cml_error *err) {
  const cml_et_tensor *q = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, mask + 4);
  CML_TRY(cml_et_want(c, q, CML_ET_FLOATING, "the query", err));
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  CML_TRY(check_attention(c, q, k, v, out, 1, err));
  attention a = {.out = out, .mask = cml_et_arg(c, mask), .start = cml_et_int(c, start, 0), .causal = cml_et_bool(c, mask + 2, false),
                 .scale = scale_of(c, mask + 3, q->sizes[3])};
  set_rows(&a.q, q, false);
  set_rows(&a.k, k, false);
  set_rows(&a.v, v, false);
  return run_attention(c, &a, 1, err);
}

/* (query, key, value, start_pos, mask?, dropout, causal, scale?, out) */
static cml_status custom_sdpa(cml_et_call *c, cml_error *err) { return float_attention(c, cml_et_arg(c, 1), cml_et_arg(c, 2), 4, 3, err); }

static cml_status update(cml_et_call *c, const cml_et_tensor *value, cml_et_tensor *cache, int64_t start, cml_error *err);

/* (query, key, value, key_cache, value_cache, start_pos, seq_len, mask?, dropout, causal, scale?, out) */
static cml_status sdpa_with_kv_cache(cml_et_call *c, cml_error *err) {
  int64_t start = cml_et_int(c, 5, 0);
  CML_TRY(update(c, cml_et_arg(c, 1), cml_et_arg(c, 3), start, err));
  CML_TRY(update(c, cml_et_arg(c, 2), cml_et_arg(c, 4), start, err));
  return float_attention(c, cml_et_arg(c, 3), cml_et_arg(c, 4), 7, 5, err);
}

static cml_status check_scales(cml_et_call *c, const rows_of *r, cml_error *err) {
  int64_t rows = cml_et_numel(r->t) / (r->size ? r->size : 1);
  if (!r->scales || cml_et_numel(r->scales) != rows || (r->zeros && cml_et_numel(r->zeros) != rows))
    return cml_et_fail(c, err, "there must be a scale and a zero point for each of %lld rows", (long long)rows);
  return CML_OK;
}

/* (query, key, value, start_pos, mask?, dropout, causal, scale?, q zeros?, q scales?, k …, v …, is_seq_at_dim_2, out) */
static cml_status custom_quantized_sdpa(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *t[3] = {cml_et_arg(c, 0), cml_et_arg(c, 1), cml_et_arg(c, 2)};
  cml_et_tensor *out = cml_et_arg(c, 15);
  bool last = cml_et_bool(c, 14, false);
  CML_TRY(cml_et_want(c, t[0], CML_MASK(I8), "the query", err));
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  CML_TRY(check_attention(c, t[0], t[1], t[2], out, last ? 2 : 1, err));
  attention a = {.out = out, .mask = cml_et_arg(c, 4), .start = cml_et_int(c, 3, 0), .causal = cml_et_bool(c, 6, false),
                 .scale = scale_of(c, 7, t[0]->sizes[3])};
  rows_of *rows[3] = {&a.q, &a.k, &a.v};
  for (size_t i = 0; i < 3; i++) {
    set_rows(rows[i], t[i], last);
    rows[i]->zeros = cml_et_arg(c, 8 + 2 * i);
    rows[i]->scales = cml_et_arg(c, 9 + 2 * i);
    CML_TRY(check_scales(c, rows[i], err));
  }
  return run_attention(c, &a, last ? 2 : 1, err);
}

/* ---- caches ---- */

static cml_status check_cache(cml_et_call *c, const cml_et_tensor *value, const cml_et_tensor *cache, cml_error *err) {
  if (value->rank != 4 || cache->rank != 4 || value->dtype != cache->dtype || value->sizes[0] != cache->sizes[0] ||
      value->sizes[2] != cache->sizes[2] || value->sizes[3] != cache->sizes[3] || !cml_et_is_contiguous(value) || !cml_et_is_contiguous(cache))
    return cml_et_fail(c, err, "value and cache do not fit together");
  return CML_OK;
}

static cml_status update(cml_et_call *c, const cml_et_tensor *value, cml_et_tensor *cache, int64_t start, cml_error *err) {
  CML_TRY(check_cache(c, value, cache, err));
  int64_t length = value->sizes[1], room = cache->sizes[1];
  if (start < 0 || start > room || length > room - start)
    return cml_et_fail(c, err, "%lld entries at position %lld do not fit into a cache of %lld", (long long)length, (long long)start, (long long)room);
  size_t row = (size_t)(value->sizes[2] * value->sizes[3]) * cml_et_width(value);
  for (int64_t b = 0; b < value->sizes[0] && row && length; b++)
    memmove((char *)cache->data + (size_t)(b * room + start) * row, (const char *)value->data + (size_t)(b * length) * row, (size_t)length * row);
  return CML_OK;
}

/* (value, cache, start_pos, out): what out holds means nothing */
static cml_status update_cache(cml_et_call *c, cml_error *err) { return update(c, cml_et_arg(c, 0), cml_et_arg(c, 1), cml_et_int(c, 2, 0), err); }

/* (value, cache, start_pos, indices [batch, sequence], out) */
static cml_status update_cache_with_indices(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *value = cml_et_arg(c, 0), *indices = cml_et_arg(c, 3);
  cml_et_tensor *cache = cml_et_arg(c, 1);
  CML_TRY(check_cache(c, value, cache, err));
  CML_TRY(cml_et_want(c, indices, CML_MASK(I64), "the index tensor", err));
  if (indices->rank != 2 || indices->sizes[0] != value->sizes[0] || indices->sizes[1] != value->sizes[1] || !cml_et_is_contiguous(indices))
    return cml_et_fail(c, err, "the indices' shape is not that of the values");
  size_t row = (size_t)(value->sizes[2] * value->sizes[3]) * cml_et_width(value);
  int64_t length = value->sizes[1], room = cache->sizes[1];
  for (int64_t i = 0; i < value->sizes[0] * length && row; i++) {
    int64_t to = ((const int64_t *)indices->data)[i];
    if (to < 0 || to >= room) return cml_et_fail(c, err, "index %lld is out of range for a cache of %lld", (long long)to, (long long)room);
    memmove((char *)cache->data + (size_t)(i / length * room + to) * row, (const char *)value->data + (size_t)i * row, row);
  }
  return CML_OK;
}

/* ---- the Hadamard transform of the last dimension ---- */

/* Sizes 28 * 2^k use a Hadamard matrix of order 28: bit k of row r is set where the entry is 1 and not -1 (as ExecuTorch's
 * operator shows it on the unit vectors). The part of 2^k alone is normalised. */
static const uint32_t order_28[28] = {
    0x3296181, 0x6528382, 0xc854704, 0x92a8e08, 0x2751c10, 0x4ca7820, 0x994b0c0, 0x4b980bc, 0x9534178,
    0x2a6c271, 0x54d8463, 0xa9b0847, 0x536500f, 0xa4ce01e, 0x7804cda, 0xf009935, 0xe21326a, 0xc6224d5,
    0x8e409ab, 0x1e81356, 0x3d0262d, 0x030ed66, 0x041dacd, 0x083b51b, 0x1072ab6, 0x20e15ec, 0x41c2b59,
    0x81856b3};

static void transform_pow2(float *x, int64_t n, int64_t step) {
  for (int64_t h = 1; h < n; h *= 2)
    for (int64_t i = 0; i < n; i += 2 * h)
      for (int64_t j = i; j < i + h; j++) {
        float a = x[j * step], b = x[(j + h) * step];
        x[j * step] = a + b;
        x[(j + h) * step] = a - b;
      }
}

/* x: 28 groups of n; mixes the groups. */
static void transform_28(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    float y[28];
    for (int r = 0; r < 28; r++) {
      y[r] = 0;
      for (int k = 0; k < 28; k++) y[r] += order_28[r] >> k & 1 ? x[k * n + i] : -x[k * n + i];
    }
    for (int r = 0; r < 28; r++) x[r * n + i] = y[r];
  }
}

static cml_status hadamard(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *in = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 1);
  CML_TRY(cml_et_want(c, in, CML_ET_FLOATING, "the matrix", err));
  CML_TRY(cml_et_want(c, out, CML_ET_FLOATING, "the output", err));
  CML_TRY(cml_et_resize_like(c, out, in, err));
  if (!in->rank || !cml_et_is_contiguous(in) || !cml_et_is_contiguous(out)) return cml_et_fail(c, err, "takes contiguous tensors of rank 1 or more");
  int64_t width = in->sizes[in->rank - 1], groups = width % 28 == 0 && width ? 28 : 1, n = width / groups;
  if (!cml_is_power_of_two((uint64_t)n)) return width ? cml_et_fail(c, err, "takes sizes of 2^k and 28 * 2^k, not %lld", (long long)width) : CML_OK;
  bool in_place = out->dtype == CML_F32;
  float *x = in_place ? NULL : cml_et_temp(c, (uint64_t)width * sizeof *x), factor = (float)(1 / sqrt((double)n));
  if (!x && !in_place) return cml_fail_memory(err);
  for (int64_t first = 0, count = cml_et_numel(in); first < count; first += width) {
    if (in_place) x = (float *)out->data + first;
    cml_et_load_f32(x, in, first, 1, width);
    for (int64_t g = 0; g < groups; g++) transform_pow2(x + g * n, n, 1);
    if (groups == 28) transform_28(x, n);
    for (int64_t i = 0; i < width; i++) x[i] *= factor;
    if (!in_place) cml_et_store_f32(out, first, 1, width, x);
  }
  return CML_OK;
}

/* ---- the gated delta rule ---- */

/* (query, key, value, decay, beta, initial state, out, final state): for each step S = S decay; S += k (v - k S) beta; out = q S. */
static cml_status delta_rule(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *t[6];
  cml_et_tensor *out = cml_et_arg(c, 6), *state = cml_et_arg(c, 7);
  for (size_t i = 0; i < 6; i++) {
    t[i] = cml_et_arg(c, i);
    CML_TRY(cml_et_want(c, t[i], CML_MASK(F32), "an input", err));
    if (t[i]->rank != (i == 4 ? 3 : 4) || !cml_et_is_contiguous(t[i])) return cml_et_fail(c, err, "argument %zu has another rank or dim order", i);
  }
  CML_TRY(cml_et_want(c, out, CML_MASK(F32), "the output", err));
  CML_TRY(cml_et_want(c, state, CML_MASK(F32), "the state", err));
  CML_TRY(cml_et_resize_like(c, out, t[2], err));
  CML_TRY(cml_et_resize_like(c, state, t[5], err));
  int64_t pairs = t[0]->sizes[0] * t[0]->sizes[1], steps = t[0]->sizes[2], n = t[0]->sizes[3], m = t[2]->sizes[3];
  bool fits = cml_et_same_shape(t[0], t[1]) && cml_et_same_shape(t[0], t[3]) && !memcmp(t[2]->sizes, t[0]->sizes, 3 * sizeof(int64_t)) &&
              !memcmp(t[4]->sizes, t[0]->sizes, 3 * sizeof(int64_t)) && !memcmp(t[5]->sizes, t[0]->sizes, 2 * sizeof(int64_t)) &&
              t[5]->sizes[2] == n && t[5]->sizes[3] == m && cml_et_is_contiguous(out) && cml_et_is_contiguous(state);
  if (!fits) return cml_et_fail(c, err, "the arguments' shapes do not fit together");
  float *change = cml_et_temp(c, (uint64_t)m * sizeof *change);
  if (!change) return cml_fail_memory(err);
  cml_et_copy(state, t[5]);
  for (int64_t p = 0; p < pairs; p++) {
    float *s = (float *)state->data + p * n * m;
    for (int64_t i = p * steps; i < (p + 1) * steps; i++) {
      const float *q = (const float *)t[0]->data + i * n, *k = (const float *)t[1]->data + i * n, *v = (const float *)t[2]->data + i * m;
      const float *decay = (const float *)t[3]->data + i * n;
      float beta = ((const float *)t[4]->data)[i], *y = (float *)out->data + i * m;
      memset(change, 0, (size_t)m * sizeof *change);
      for (int64_t a = 0; a < n; a++)
        for (int64_t b = 0; b < m; b++) change[b] += k[a] * (s[a * m + b] *= decay[a]);
      for (int64_t b = 0; b < m; b++) change[b] = (v[b] - change[b]) * beta;
      for (int64_t b = 0; b < m; b++) y[b] = 0;
      for (int64_t a = 0; a < n; a++)
        for (int64_t b = 0; b < m; b++) {
          s[a * m + b] += k[a] * change[b];
          y[b] += q[a] * s[a * m + b];
        }
    }
  }
  return CML_OK;
}

static cml_status fallback(cml_et_call *c, cml_error *err) {
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 1), cml_et_arg(c, 0), err));
  cml_et_copy(cml_et_arg(c, 1), cml_et_arg(c, 0));
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"llama::custom_sdpa.out", "tttit?dbd?o", custom_sdpa},
    {"llama::sdpa_with_kv_cache.out", "tttooiit?dbd?o", sdpa_with_kv_cache},
    {"llama::custom_quantized_sdpa.out", "tttit?dbd?t?t?t?t?t?t?bo", custom_quantized_sdpa},
    {"llama::update_cache.out", "toio", update_cache},
    {"llama::update_cache_with_indices.out", "toixo", update_cache_with_indices},
    {"llama::fast_hadamard_transform.out", "to", hadamard},
    {"llama::channelwise_gated_delta_rule.out", "ttttttoo", delta_rule},
    {"llama::fallback.out", "to", fallback},
};
CML_ET_FAMILY(llama)
