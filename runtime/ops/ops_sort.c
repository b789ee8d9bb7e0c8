/* argsort and topk.
 *
 * Every element type here has at most 32 bits, so an element becomes a 32-bit key whose unsigned order is the wanted
 * one, and key and index together one 64-bit number. Sorting those numbers is stable without further thought: equal
 * elements keep their order. All of a line is sorted by radix; a few largest are kept in a heap. Lines are shared by the threads. NaN comes last. */
#include "elementwise.h"
#include "families.h"

/* ---- keys ---- */

static uint32_t key_of_float(float v, bool descending) {
  uint32_t bits;
  if (!(v == v)) return UINT32_MAX;
  if (v == 0) v = 0; /* -0 equals 0 */
  memcpy(&bits, &v, 4);
  bits = bits >> 31 ? ~bits : bits | UINT32_C(0x80000000);
  return descending ? ~bits : bits;
}

static uint32_t key_of_int(int64_t v, bool descending) {
  uint32_t bits = (uint32_t)(v + (INT64_C(1) << 31));
  return descending ? ~bits : bits;
}

/* A line of n elements, `step` apart, as keys with their indices. */
static void load_keys(const cml_tensor *x, int64_t at, int64_t step, int64_t n, bool descending, uint64_t *keys) {
  enum { CHUNK = 256 };
  float f[CHUNK];
  int64_t v[CHUNK];
  bool floats = cml_dtype_is_float(x->dtype);
  if (x->dtype == CML_F32 && step > 1) {
    const float *p = (const float *)x->data + at;
    for (int64_t i = 0; i < n; i++, p += step) keys[i] = (uint64_t)key_of_float(*p, descending) << 32 | (uint64_t)i;
    return;
  }
  for (int64_t i = 0; i < n;) {
    size_t m = step > 1 ? 1 : n - i < CHUNK ? (size_t)(n - i) : CHUNK;
    if (floats) cml_load_f32(f, x->data, x->dtype, at + i * step, m);
    else cml_load_i64(v, x->data, x->dtype, at + i * step, m);
    for (size_t k = 0; k < m; k++, i++)
      keys[i] = (uint64_t)(floats ? key_of_float(f[k], descending) : key_of_int(v[k], descending)) << 32 | (uint64_t)i;
  }
}

/* ---- sorting ---- */

static void insertion_sort(uint64_t *keys, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    uint64_t v = keys[i];
    int64_t k = i;
    for (; k > 0 && keys[k - 1] > v; k--) keys[k] = keys[k - 1];
    keys[k] = v;
  }
}

/* By the four bytes of the key, least first; the indices are in order already. Four passes: the result is in `keys`. */
static void radix_sort(uint64_t *keys, uint64_t *other, int64_t n) {
  if (n < 64) {
    insertion_sort(keys, n);
    return;
  }
  for (unsigned shift = 32; shift < 64; shift += 8) {
    size_t starts[256] = {0}, sum = 0;
    for (int64_t i = 0; i < n; i++) starts[keys[i] >> shift & 255]++;
    for (size_t b = 0; b < 256; b++) {
      size_t count = starts[b];
      starts[b] = sum;
      sum += count;
    }
    for (int64_t i = 0; i < n; i++) other[starts[keys[i] >> shift & 255]++] = keys[i];
    uint64_t *t = keys;
    keys = other;
    other = t;
  }
}

static void sift_down(uint64_t *heap, int64_t n, int64_t at) {
  for (int64_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && heap[child + 1] > heap[child]) child++;
    if (heap[at] >= heap[child]) return;
    uint64_t t = heap[at];
    heap[at] = heap[child];
    heap[child] = t;
  }
}

static void sort_heap(uint64_t *keys, int64_t k) {
  for (int64_t i = k - 1; i > 0; i--) {
    uint64_t t = keys[0];
    keys[0] = keys[i];
    keys[i] = t;
    sift_down(keys, i, 0);
  }
}

/* The k least of n come first, in order: a heap with the greatest of them on top. */
static void select_least(uint64_t *keys, int64_t n, int64_t k) {
  for (int64_t i = k / 2 - 1; i >= 0; i--) sift_down(keys, k, i);
  for (int64_t i = k; i < n; i++)
    if (keys[i] < keys[0]) keys[0] = keys[i], sift_down(keys, k, 0);
  sort_heap(keys, k);
}

/* Sorted keys take in another one, and the greatest falls out. No branches: where it belongs nobody can predict. */
static void insert_key(uint64_t *keys, int64_t k, uint64_t key) {
  for (int64_t i = k - 1; i > 0; i--) {
    uint64_t here = keys[i - 1] > key ? keys[i - 1] : key;
    keys[i] = here < keys[i] ? here : keys[i];
  }
  keys[0] = key < keys[0] ? key : keys[0];
}

static const float *floats_at(const cml_tensor *x, int64_t at, size_t n, float *room) {
  if (x->dtype == CML_F32) return (const float *)x->data + at;
  cml_load_f32(room, x->data, x->dtype, at, n);
  return room;
}

/* The k first of n floats side by side, in order: of a stretch of elements, then of a chunk of it, only the first by value is looked at, since
 * most hold none that is among the first k so far. Few are kept sorted, more in a heap. False when there are NaN, which max and min show. */
static bool select_floats(const cml_tensor *x, int64_t at, int64_t n, int64_t k, bool descending, uint64_t *keys) {
  enum { CHUNK = 32, STRETCH = 8 * CHUNK, SORTED = 32 };
  const cml_kernels *kernels = cml_kernels_get();
  float (*const first_of)(const float *, size_t) = descending ? kernels->max : kernels->min;
  const bool sorted = k <= SORTED;
  float f[STRETCH], bound = 0;
  for (int64_t i = 0; i < k; i++) keys[i] = UINT64_MAX;
  for (int64_t i = 0; i < k; i += STRETCH) {
    const size_t m = (size_t)(k - i < STRETCH ? k - i : STRETCH);
    const float *p = floats_at(x, at + i, m, f), first = first_of(p, m);
    if (first != first) return false;
    for (size_t e = 0; e < m; e++) {
      const uint64_t key = (uint64_t)key_of_float(p[e], descending) << 32 | (uint64_t)(i + (int64_t)e);
      if (sorted) insert_key(keys, k, key);
      else keys[i + (int64_t)e] = key;
    }
  }
  for (int64_t h = k / 2 - 1; h >= 0 && !sorted; h--) sift_down(keys, k, h);
  const uint64_t *const last = keys + (sorted ? k - 1 : 0);
  cml_load_f32(&bound, x->data, x->dtype, at + (int64_t)(uint32_t)*last, 1);
  for (int64_t i = k; i < n; i += STRETCH) {
    const size_t stretch = (size_t)(n - i < STRETCH ? n - i : STRETCH);
    const float *p = floats_at(x, at + i, stretch, f), first = first_of(p, stretch);
    if (first != first) return false;
    if (!(descending ? first > bound : first < bound)) continue;
    for (size_t c = 0; c < stretch; c += CHUNK) {
      const size_t m = stretch - c < CHUNK ? stretch - c : CHUNK;
      const float best = first_of(p + c, m);
      if (!(descending ? best > bound : best < bound)) continue;
      for (size_t e = c; e < c + m; e++) {
        if (!(descending ? p[e] > bound : p[e] < bound)) continue;
        const uint64_t key = (uint64_t)key_of_float(p[e], descending) << 32 | (uint64_t)(i + (int64_t)e);
        if (sorted) insert_key(keys, k, key);
        else keys[0] = key, sift_down(keys, k, 0);
        cml_load_f32(&bound, x->data, x->dtype, at + (int64_t)(uint32_t)*last, 1);
      }
    }
  }
  if (!sorted) sort_heap(keys, k);
  return true;
}

enum { COLUMNS = CML_SORT_COLUMNS, MOST_BESIDE = 32, LONGEST_TURNED = 128 };

/* Bytes of a block of short lines as they are and turned; 0: lines of x stay lines. */
static uint64_t turned_room(const cml_tensor *x, int64_t n) {
  return cml_dtype_is_float(x->dtype) && n <= LONGEST_TURNED ? 2 * COLUMNS * (uint64_t)n * sizeof(float) : 0;
}

/* Two lines of keys for each thread, or a block of lines. */
static cml_status ask_scratch(cml_call *c, int64_t n, cml_error *err) {
  if (n > INT32_MAX) return cml_call_fail(c, err, "%lld elements are too many to sort", (long long)n);
  const uint64_t keys = n > 0 ? 2 * (uint64_t)n * sizeof(uint64_t) : 0, turned = n > 0 ? turned_room(cml_arg(c, 0), n) : 0;
  c->scratch_size = cml_pool_threads(c->pool) * (turned > keys ? turned : keys);
  return CML_OK;
}

/* Calls emit with the first k of each sorted line. */
typedef struct line {
  int64_t in, out, step; /* offsets of the line's first element, and from one to the next */
  const uint64_t *keys;
  int64_t k;
} line;

typedef struct sort_job {
  cml_call *c;
  int64_t outer, n, inner, k;
  bool descending;
  void (*emit)(cml_call *c, const line *l);
} sort_job;

static void sort_some(void *context, size_t thread, size_t begin, size_t end) {
  enum { SHORT = 1024 };
  const sort_job *j = context;
  const cml_tensor *x = cml_arg(j->c, 0);
  int64_t n = j->n, k = j->k, inner = j->inner;
  uint64_t *keys = (uint64_t *)j->c->scratch + thread * 2 * (size_t)n;
  const bool few = k < n / 8 || (k < n && k * n <= SHORT); /* of a short line even half of it is found sooner than all is sorted */
  bool floats = inner == 1 && cml_dtype_is_float(x->dtype) && k > 0 && few;
  for (int64_t i = (int64_t)begin; i < (int64_t)end; i++) {
    line l = {.in = i / inner * n * inner + i % inner, .out = i / inner * k * inner + i % inner, .step = inner, .keys = keys, .k = k};
    if (!floats || !select_floats(x, l.in, n, k, j->descending, keys)) {
      load_keys(x, l.in, inner, n, j->descending, keys);
      if (few) select_least(keys, n, k);
      else radix_sort(keys, keys + n, n);
    }
    j->emit(j->c, &l);
  }
}

/* ---- the k first of neighbouring lines, side by side ---- */

/* Sorted levels of some columns, the first on top. */
typedef struct levels {
  int32_t keys[MOST_BESIDE][COLUMNS], rows[MOST_BESIDE][COLUMNS], row[COLUMNS];
  int64_t held, k;
} levels;

/* Keys of a row of n neighbouring elements. */
static void row_keys(const cml_tensor *x, int64_t at, size_t n, bool descending, int32_t *keys) {
  float f[COLUMNS];
  int64_t v[COLUMNS];
  if (cml_dtype_is_float(x->dtype)) {
    const float *p = x->dtype == CML_F32 ? (const float *)x->data + at : f;
    if (p == f) cml_load_f32(f, x->data, x->dtype, at, n);
    cml_kernels_get()->sort_keys(p, n, descending, keys);
    return;
  }
  cml_load_i64(v, x->data, x->dtype, at, n);
  for (size_t i = 0; i < n; i++) keys[i] = (int32_t)(key_of_int(v[i], descending) ^ UINT32_C(0x80000000));
}

static void insert_row(levels *l, int64_t r) {
  const bool grow = l->held < l->k;
  cml_kernels_get()->sort_insert((size_t)l->held, grow, l->row, (int32_t)r, l->keys[0], l->rows[0]);
  l->held += grow;
}

/* `width` lines, which begin at in and out, and `apart`; their elements are `step` apart. */
static void emit_columns(const sort_job *j, const levels *l, size_t width, int64_t in, int64_t in_apart, int64_t out, int64_t out_apart, int64_t step) {
  uint64_t one[MOST_BESIDE];
  for (size_t i = 0; i < width; i++) {
    for (int64_t k = 0; k < j->k; k++) one[k] = (uint32_t)l->rows[k][i];
    j->emit(j->c, &(line){.in = in + (int64_t)i * in_apart, .out = out + (int64_t)i * out_apart, .step = step, .keys = one, .k = j->k});
  }
}

static void sort_columns(void *context, size_t begin, size_t end) {
  const sort_job *j = context;
  const cml_tensor *x = cml_arg(j->c, 0);
  levels l = {.row = {0}};
  const int64_t blocks = (j->inner + COLUMNS - 1) / COLUMNS;
  for (int64_t b = (int64_t)begin; b < (int64_t)end; b++) {
    int64_t outer = b / blocks, column = b % blocks * COLUMNS;
    size_t width = (size_t)(j->inner - column < COLUMNS ? j->inner - column : COLUMNS);
    l.held = 0, l.k = j->k;
    for (int64_t r = 0; r < j->n; r++) {
      row_keys(x, (outer * j->n + r) * j->inner + column, width, j->descending, l.row);
      insert_row(&l, r);
    }
    emit_columns(j, &l, width, outer * j->n * j->inner + column, 1, outer * j->k * j->inner + column, 1, j->inner);
  }
}

/* Short lines of floats become columns, COLUMNS of them at a time. */
static void sort_turned(void *context, size_t thread, size_t begin, size_t end) {
  const sort_job *j = context;
  const cml_tensor *x = cml_arg(j->c, 0);
  const cml_kernels *kernels = cml_kernels_get();
  const size_t n = (size_t)j->n;
  float *turned = (float *)j->c->scratch + thread * 2 * COLUMNS * n, *wide = turned + COLUMNS * n;
  levels l = {.row = {0}};
  for (size_t b = begin; b < end; b++) {
    const int64_t first = (int64_t)b * COLUMNS, left = j->outer - first;
    const size_t width = (size_t)(left < COLUMNS ? left : COLUMNS);
    const float *from = x->dtype == CML_F32 ? (const float *)x->data + first * j->n : wide;
    if (from == wide) cml_load_f32(wide, x->data, x->dtype, first * j->n, width * n);
    kernels->transpose(width, n, from, n, turned, COLUMNS);
    l.held = 0, l.k = j->k;
    for (size_t r = 0; r < n; r++) {
      kernels->sort_keys(turned + r * COLUMNS, width, j->descending, l.row);
      insert_row(&l, (int64_t)r);
    }
    emit_columns(j, &l, width, first * j->n, j->n, first * j->k, j->k, 1);
  }
}

static void sort_lines(cml_call *c, int32_t axis, int64_t k, bool descending, void (*emit)(cml_call *c, const line *l)) {
  const cml_tensor *x = cml_arg(c, 0);
  sort_job j = {.c = c, .outer = 1, .n = x->dims[axis], .inner = 1, .k = k, .descending = descending, .emit = emit};
  for (int32_t i = 0; i < axis; i++) j.outer *= x->dims[i];
  for (int32_t i = axis + 1; i < x->rank; i++) j.inner *= x->dims[i];
  if (!j.n || !k) return;
  if (j.inner > 1 && k <= MOST_BESIDE) {
    cml_parallel(c->pool, (size_t)(j.outer * ((j.inner + COLUMNS - 1) / COLUMNS)), (size_t)(8192 / (j.n * COLUMNS) + 1), sort_columns, &j);
    return;
  }
  if (j.inner == 1 && k <= MOST_BESIDE && turned_room(x, j.n) && j.outer >= COLUMNS / 4) {
    cml_parallel_with_thread(c->pool, (size_t)((j.outer + COLUMNS - 1) / COLUMNS), (size_t)(8192 / (j.n * COLUMNS) + 1), sort_turned, &j);
    return;
  }
  cml_parallel_with_thread(c->pool, (size_t)(j.outer * j.inner), (size_t)(8192 / j.n + 1), sort_some, &j);
}

/* ---- argsort ---- */

#define ASCENDING {"ascending", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}
#define AXIS {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}
#define NUMBERS_15 (CML_M_FLOAT | CML_MASK(I32))
#define NUMBERS_17 (NUMBERS_15 | CML_MASK(I8) | CML_MASK(U8) | CML_MASK(I16) | CML_MASK(U16))

static const cml_param argsort_params[] = {{"x", NUMBERS_15, 0, 0}, AXIS, ASCENDING};

static cml_status infer_argsort(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axis;
  CML_TRY(cml_check_scalars(c, ~1u, err));
  CML_TRY(cml_check_axis(c, 1, -1, x->rank, &axis, err));
  cml_out_like(c, 0, x);
  c->outs[0]->dtype = CML_I32;
  return axis < 0 ? CML_OK : ask_scratch(c, x->dims[axis], err);
}

static void emit_indices(cml_call *c, const line *l) {
  for (int64_t i = 0; i < l->k; i++) ((int32_t *)c->outs[0]->data)[l->out + i * l->step] = (int32_t)(uint32_t)l->keys[i];
}

static cml_status run_argsort(cml_call *c, cml_error *err) {
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, -1, cml_arg(c, 0)->rank, &axis, err));
  sort_lines(c, axis, cml_arg(c, 0)->dims[axis], !cml_arg_bool(c, 2, false), emit_indices);
  return CML_OK;
}

/* ---- topk ---- */

#define K(types) {"k", types, CML_OPTIONAL | CML_CONST, 0}
#define SORT_AND_INDICES \
  {"sort", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}, {"return_indices", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}
static const cml_param topk_params_15[] = {{"x", NUMBERS_15, 0, 0}, K(CML_MASK(I32)), AXIS, ASCENDING};
static const cml_param topk_params_16[] = {{"x", NUMBERS_15, 0, 0}, K(CML_MASK(I32)), AXIS, ASCENDING, SORT_AND_INDICES};
static const cml_param topk_params_17[] = {{"x", NUMBERS_17, 0, 0}, K(CML_MASK(I8) | CML_MASK(I16) | CML_MASK(I32)), AXIS, ASCENDING,
                                           SORT_AND_INDICES, {"output_indices_dtype", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}};

static bool with_indices(const cml_call *c) { return c->op->param_count < 6 || cml_arg_bool(c, 5, true); }

static cml_status indices_type(const cml_call *c, cml_dtype *out, cml_error *err) {
  static const char *const types[] = {"int32", "uint16", NULL};
  bool given = c->op->param_count > 6 && cml_arg(c, 6);
  if (given && !with_indices(c)) return cml_call_fail(c, err, "output_indices_dtype is given, but no indices are asked for");
  int type = given ? cml_word_index(cml_arg_text(c, 6, ""), types) : 0;
  if (type < 0) return cml_call_fail(c, err, "output_indices_dtype '%s' is neither int32 nor uint16", cml_arg_text(c, 6, ""));
  *out = type ? CML_U16 : CML_I32;
  return CML_OK;
}

static cml_status infer_topk(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axis;
  cml_dtype type = CML_I32;
  CML_TRY(cml_check_scalars(c, ~1u, err));
  CML_TRY(cml_check_axis(c, 2, -1, x->rank, &axis, err));
  CML_TRY(indices_type(c, &type, err));
  int64_t k = cml_arg_int(c, 1, 1), n = axis < 0 ? CML_DIM_UNKNOWN : x->dims[axis];
  if (k < -1 || (n >= 0 && k > n)) return cml_call_fail(c, err, "k is %lld for %lld elements", (long long)k, (long long)n);
  size_t outputs = with_indices(c) ? 2 : 1;
  if (c->out_count != outputs) return cml_call_fail(c, err, "there must be %zu outputs, found %zu", outputs, c->out_count);
  for (size_t i = 0; i < outputs; i++) {
    cml_out_like(c, i, x);
    c->outs[i]->dtype = i ? type : x->dtype;
    if (axis >= 0) c->outs[i]->dims[axis] = k < 0 ? n : k; /* -1: all */
  }
  return axis < 0 ? CML_OK : ask_scratch(c, n, err);
}

static void emit_top(cml_call *c, const line *l) {
  const cml_tensor *x = cml_arg(c, 0);
  const size_t size = cml_dtype_bits(x->dtype) / 8;
  cml_tensor *indices = c->out_count > 1 ? c->outs[1] : NULL;
  for (int64_t i = 0; i < l->k; i++) {
    const int64_t index = (int64_t)(uint32_t)l->keys[i], from = l->in + index * l->step, to = l->out + i * l->step;
    char *at = (char *)c->outs[0]->data + (size_t)to * size;
    const char *element = (const char *)x->data + (size_t)from * size;
    if (size == 4) memcpy(at, element, 4);
    else memcpy(at, element, size);
    if (indices && indices->dtype == CML_I32) ((int32_t *)indices->data)[to] = (int32_t)index;
    else if (indices) cml_tensor_set_int(indices, to, index);
  }
}

static cml_status run_topk(cml_call *c, cml_error *err) {
  int32_t axis;
  CML_TRY(cml_check_axis(c, 2, -1, cml_arg(c, 0)->rank, &axis, err));
  sort_lines(c, axis, c->outs[0]->dims[axis], !cml_arg_bool(c, 3, false), emit_top);
  return CML_OK;
}

/* ---- the table ---- */

#define TOPK_ROW(since_, until_, least, parameters)                                                             \
  {.name = "topk", .since = since_, .until = until_, .min_outputs = least, .max_outputs = 2,                    \
   CML_PARAMS(parameters), .infer = infer_topk, .run = run_topk},

static const cml_op rows[] = {
    {.name = "argsort", .since = CML_IOS15, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(argsort_params), .infer = infer_argsort,
     .run = run_argsort},
    TOPK_ROW(CML_IOS15, CML_IOS15, 2, topk_params_15)
    TOPK_ROW(CML_IOS16, CML_IOS16, 1, topk_params_16)
    TOPK_ROW(CML_IOS17, 0, 1, topk_params_17)
};

const cml_op_family cml_ops_sort = {"sort", rows, sizeof rows / sizeof *rows};
