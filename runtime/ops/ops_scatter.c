/* scatter, scatter_along_axis, scatter_nd: a copy of `data` into which `updates` are put or combined.
 *
 * All three come down to runs: so many elements of updates go to such an offset. float16 is combined in float32 and rounded
 * once at the end, even where many updates meet in one place. Runs are applied in order: the last `update` wins. */
#include "elementwise.h"
#include "families.h"
#include "positions.h"
#include "strided.h"

#define CML_M_SCATTER (CML_M_FLOAT | CML_MASK(I32))
#define DATA {"data", CML_M_SCATTER, 0, 1}, {"indices", CML_M_AT17 | CML_MASK(U16) | CML_MASK(U8), 0, 0}, {"updates", CML_M_SCATTER, 0, 1}
#define AXIS {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}
#define MODE {"mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}
#define VALIDATE {"validate_indices", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}
static const cml_param axis_15[] = {DATA, AXIS, MODE};
static const cml_param axis_17[] = {DATA, AXIS, MODE, VALIDATE};
static const cml_param nd_15[] = {DATA, MODE};
static const cml_param nd_17[] = {DATA, MODE, VALIDATE};

typedef enum mode { ADD, DIV, MAX, MIN, MUL, SUB, UPDATE } mode;
static const char *const modes[] = {"add", "div", "max", "min", "mul", "sub", "update", NULL};

static bool is_nd(const cml_call *c) { return !strcmp(c->op->name, "scatter_nd"); }
static int find_mode(const cml_call *c) { return cml_word_index(cml_arg_text(c, is_nd(c) ? 3 : 4, "add"), modes); }
static cml_positions positions(const cml_call *c) {
  return cml_positions_of(c, cml_arg(c, 1), c->opset >= CML_IOS17 ? c->op->param_count - 1 : -1);
}

/* ---- combining ---- */

/* What an element x and its update y give; `EACH` is a loop over them. */
#define COMBINE_FLOATS(m, EACH)                  \
  switch (m) {                                   \
    case ADD: EACH(x + y) break;                 \
    case SUB: EACH(x - y) break;                 \
    case MUL: EACH(x * y) break;                 \
    case DIV: EACH(x / y) break;                 \
    case MAX: EACH(x > y || x != x ? x : y) break; \
    case MIN: EACH(x < y || x != x ? x : y) break; \
    case UPDATE: EACH(((void)x, y)) break;       \
  }

static void combine_f32(float *to, const float *from, int64_t n, mode m) {
#define BESIDE(expression) for (int64_t i = 0; i < n; i++) { const float x = to[i], y = from[i]; to[i] = (expression); }
  COMBINE_FLOATS(m, BESIDE)
#undef BESIDE
}

static int32_t combine_int(int32_t x, int32_t y, mode m) {
  switch (m) {
    case ADD: return (int32_t)((uint32_t)x + (uint32_t)y);
    case SUB: return (int32_t)((uint32_t)x - (uint32_t)y);
    case MUL: return (int32_t)((uint32_t)x * (uint32_t)y);
    case DIV: return y == 0 ? 0 : (int32_t)((int64_t)x / y);
    case MAX: return x > y ? x : y;
    case MIN: return x < y ? x : y;
    default: return y;
  }
}

/* What runs are applied to: the output itself, or its float32 image. */
typedef struct target {
  void *data;
  cml_dtype dtype;
  const void *updates;
  cml_dtype update_dtype;
  size_t size;
  mode m;
} target;

static void apply(const target *t, int64_t to, int64_t from, int64_t n) {
  if (t->m == UPDATE) {
    memcpy((char *)t->data + to * (int64_t)t->size, (const char *)t->updates + from * (int64_t)t->size, (size_t)n * t->size);
  } else if (t->dtype == CML_I32) {
    int32_t *d = (int32_t *)t->data + to;
    const int32_t *u = (const int32_t *)t->updates + from;
    for (int64_t i = 0; i < n; i++) d[i] = combine_int(d[i], u[i], t->m);
  } else if (t->update_dtype == CML_F32) {
    combine_f32((float *)t->data + to, (const float *)t->updates + from, n, t->m);
  } else {
    for (int64_t i = 0, step; i < n; i += step) {
      float u[256];
      step = n - i < 256 ? n - i : 256;
      cml_load_f32(u, t->updates, t->update_dtype, from + i, (size_t)step);
      combine_f32((float *)t->data + to + i, u, step, t->m);
    }
  }
}

/* ---- runs ---- */

static cml_status scatter_axis(const cml_call *c, const target *t, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0), *indices = cml_arg(c, 1);
  cml_positions p = positions(c);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 3, 0, data->rank, &axis, err));
  int64_t n = data->dims[axis], outer = cml_dims_product(data->dims, 0, axis), inner = cml_dims_product(data->dims, axis + 1, data->rank);
  CML_TRY(cml_positions_check(c, &p, n, err));
  int64_t count = cml_tensor_count(indices);
  for (int64_t o = 0; o < outer; o++)
    for (int64_t k = 0; k < count; k++) apply(t, (o * n + cml_position(&p, k, n)) * inner, (o * count + k) * inner, inner);
  return CML_OK;
}

/* n neighbouring updates, each to its own place. */
static void spread_f32(float *to, const int64_t *at, const float *from, int64_t n, mode m) {
#define PLACED(expression) for (int64_t i = 0; i < n; i++) { const float x = to[at[i]], y = from[i]; to[at[i]] = (expression); }
  COMBINE_FLOATS(m, PLACED)
#undef PLACED
}

static void spread(const target *t, const int64_t *at, int64_t from, int64_t n) {
  enum { CHUNK = 256 };
  if (t->dtype != CML_F32 && (t->m == UPDATE || t->dtype == CML_I32)) {
    for (int64_t i = 0; i < n; i++) apply(t, at[i], from + i, 1);
    return;
  }
  for (int64_t i = 0, step; i < n; i += step) {
    float u[CHUNK];
    const float *updates = t->update_dtype == CML_F32 ? (const float *)t->updates + from + i : u;
    step = n - i < CHUNK ? n - i : CHUNK;
    if (updates == u) cml_load_f32(u, t->updates, t->update_dtype, from + i, (size_t)step);
    spread_f32(t->data, at + i, updates, step, t->m);
  }
}

/* Runs of the last dim, or of `inner` updates where that is not the axis. */
static cml_status scatter_along(const cml_call *c, const target *t, cml_error *err) {
  enum { CHUNK = 256 };
  const cml_tensor *data = cml_arg(c, 0), *indices = cml_arg(c, 1);
  cml_positions p = positions(c);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 3, 0, data->rank, &axis, err));
  int64_t n = data->dims[axis], inner = cml_dims_product(data->dims, axis + 1, data->rank), count = indices->dims[axis], at[CHUNK];
  CML_TRY(cml_positions_check(c, &p, n, err));
  const int64_t total = cml_tensor_count(indices), run = inner == 1 ? count : inner, beside = inner != 1;
  const int64_t runs = inner == 1 ? 1 : count; /* of one outer element */
  for (int64_t i = 0; i < total; i += run) {
    int64_t base = i / run / runs * n * inner;
    for (int64_t k = 0, step; k < run; k += step) {
      step = run - k < CHUNK ? run - k : CHUNK;
      for (int64_t e = 0; e < step; e++) at[e] = base + cml_position(&p, i + k + e, n) * inner + (k + e) * beside;
      spread(t, at, i + k, step);
    }
  }
  return CML_OK;
}

static cml_status scatter_nd(const cml_call *c, const target *t, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0), *indices = cml_arg(c, 1);
  cml_positions p = positions(c);
  int64_t strides[CML_MAX_RANK], depth = cml_index_depth(indices), offset, bad;
  cml_row_strides(data, strides);
  int64_t inner = cml_dims_product(data->dims, (int32_t)depth, data->rank);
  int64_t tuples = cml_dims_product(indices->dims, 0, indices->rank - 1);
  for (int64_t i = 0; i < tuples; i++) {
    if (!cml_tuple_offset(&p, i, depth, data, strides, 0, &offset, &bad)) return cml_position_fail(c, &p, bad, data->dims[bad % depth], err);
    apply(t, offset, i * inner, inner);
  }
  return CML_OK;
}

static cml_status run_scatter(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0), *updates = cml_arg(c, 2);
  cml_tensor *out = c->outs[0];
  int64_t count = cml_tensor_count(data);
  target t = {.data = out->data, .dtype = out->dtype, .updates = updates->data, .update_dtype = updates->dtype,
              .size = cml_element_size(data), .m = (mode)find_mode(c)};
  bool widened = out->dtype == CML_F16 && t.m != UPDATE;
  if (widened) {
    t.data = c->scratch;
    cml_load_f32(t.data, data->data, data->dtype, 0, (size_t)count);
  } else if (out->data != data->data) {
    cml_copy_bytes(out->data, data->data, (size_t)count * t.size, c->pool);
  }
  if (cml_tensor_count(updates)) CML_TRY(is_nd(c) ? scatter_nd(c, &t, err) : c->op->name[7] ? scatter_along(c, &t, err) : scatter_axis(c, &t, err));
  if (widened) cml_store_f32(out->data, out->dtype, 0, t.data, (size_t)count);
  return CML_OK;
}

/* ---- shapes ---- */

static cml_status expect_updates(const cml_call *c, int64_t rank, const int64_t *dims, cml_error *err) {
  const cml_tensor *u = cml_arg(c, 2);
  bool fits = rank <= CML_MAX_RANK && (u->rank < 0 || u->rank == rank);
  for (int32_t i = 0; fits && i < rank && u->rank >= 0; i++) fits = dims[i] < 0 || u->dims[i] < 0 || dims[i] == u->dims[i];
  if (fits) return CML_OK;
  char a[160], b[160];
  cml_tensor t = {.rank = rank <= CML_MAX_RANK ? (int32_t)rank : 0};
  memcpy(t.dims, dims, sizeof t.dims);
  return cml_call_fail(c, err, "updates have shape %s and should have %s", cml_shape_text(u, a, sizeof a), cml_shape_text(&t, b, sizeof b));
}

/* What all three check; *stop when a rank is unknown and no more can be said. */
static cml_status infer_common(cml_call *c, bool *stop, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, (1u << c->op->param_count) - 8, err));
  cml_out_like(c, 0, data);
  int m = find_mode(c);
  if (m < 0) return cml_call_fail(c, err, "mode '%s' is none of add, div, max, min, mul, sub, update", cml_arg_text(c, is_nd(c) ? 3 : 4, ""));
  if (data->dtype == CML_F16 && m != UPDATE && cml_tensor_known_shape(data)) {
    int64_t n = cml_dims_product(data->dims, 0, data->rank);
    if (n > INT64_C(1) << 40) return cml_call_fail(c, err, "data is too large");
    c->scratch_size = (uint64_t)n * 4;
  }
  *stop = data->rank < 0 || cml_arg(c, 1)->rank < 0;
  return CML_OK;
}

static cml_status infer_scatter(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int64_t dims[2 * CML_MAX_RANK];
  int32_t axis, rank = 0;
  bool stop;
  CML_TRY(infer_common(c, &stop, err));
  if (stop) return CML_OK;
  CML_TRY(cml_check_axis(c, 3, 0, data->rank, &axis, err));
  for (int32_t i = 0; i < axis; i++) dims[rank++] = data->dims[i];
  for (int32_t i = 0; i < indices->rank; i++) dims[rank++] = indices->dims[i];
  for (int32_t i = axis + 1; i < data->rank; i++) dims[rank++] = data->dims[i];
  CML_TRY(expect_updates(c, rank, dims, err));
  cml_positions p = positions(c);
  return cml_positions_check(c, &p, data->dims[axis], err);
}

static cml_status infer_scatter_along(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int32_t axis;
  bool stop;
  CML_TRY(infer_common(c, &stop, err));
  if (stop) return CML_OK;
  CML_TRY(cml_check_axis(c, 3, 0, data->rank, &axis, err));
  if (indices->rank != data->rank) return cml_call_fail(c, err, "data has rank %d and indices %d", data->rank, indices->rank);
  for (int32_t i = 0; i < data->rank; i++)
    if (i != axis && data->dims[i] >= 0 && indices->dims[i] >= 0 && data->dims[i] != indices->dims[i])
      return cml_call_fail(c, err, "dimension %d is %lld in data and %lld in indices", i, (long long)data->dims[i], (long long)indices->dims[i]);
  CML_TRY(expect_updates(c, indices->rank, indices->dims, err));
  cml_positions p = positions(c);
  return cml_positions_check(c, &p, data->dims[axis], err);
}

static cml_status infer_scatter_nd(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int64_t dims[2 * CML_MAX_RANK], depth = cml_index_depth(indices);
  int32_t rank = 0;
  bool stop;
  CML_TRY(infer_common(c, &stop, err));
  if (indices->rank == 0) return cml_call_fail(c, err, "indices must not be a scalar");
  if (stop || depth < 0) return CML_OK;
  if (depth > data->rank) return cml_call_fail(c, err, "indices have %lld elements for data of rank %d", (long long)depth, data->rank);
  for (int32_t i = 0; i < indices->rank - 1; i++) dims[rank++] = indices->dims[i];
  for (int32_t i = (int32_t)depth; i < data->rank; i++) dims[rank++] = data->dims[i];
  return expect_updates(c, rank, dims, err);
}

/* ---- rows ---- */

#define ROW(op, first, last, p, infer_function)                                                                             \
  {.name = op, .since = first, .until = last, .flags = CML_OP_IN_PLACE_FIRST, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(p), \
   .infer = infer_function, .run = run_scatter}

static const cml_op rows[] = {
    ROW("scatter", CML_IOS15, CML_IOS16, axis_15, infer_scatter),
    ROW("scatter", CML_IOS17, 0, axis_17, infer_scatter),
    ROW("scatter_along_axis", CML_IOS15, CML_IOS16, axis_15, infer_scatter_along),
    ROW("scatter_along_axis", CML_IOS17, 0, axis_17, infer_scatter_along),
    ROW("scatter_nd", CML_IOS15, CML_IOS16, nd_15, infer_scatter_nd),
    ROW("scatter_nd", CML_IOS17, 0, nd_17, infer_scatter_nd),
};

const cml_op_family cml_ops_scatter = {"scatter", rows, sizeof rows / sizeof *rows};
