/* Slices: parts of a tensor by index or by size, slices that are written to, and windows that slide.
 *
 * A slice is solved once, as Python does it, into a first element, a step and a length for each dimension. Where begin and
 * end are only known when the program runs, that is done again right before the copy, and compared with the planned shape. */
#include "elementwise.h"
#include "families.h"
#include "strided.h"

#define SLICE_MASKS                                                                                        \
  {"begin_mask", CML_M_BOOL, CML_OPTIONAL | CML_CONST | CML_VECTOR, 0}, {"end_mask", CML_M_BOOL, CML_OPTIONAL | CML_CONST | CML_VECTOR, 0}, \
      {"squeeze_mask", CML_M_BOOL, CML_OPTIONAL | CML_CONST | CML_VECTOR, 0}
#define SLICE_PARAMS(types, at)                                                                                          \
  {{"x", types, 0, 0}, {"begin", at, CML_VECTOR, 2}, {"end", at, CML_VECTOR, 2}, {"stride", at, CML_OPTIONAL | CML_CONST | CML_VECTOR, 2}, SLICE_MASKS}
static const cml_param slice_15[] = SLICE_PARAMS(CML_M_MOVE15, CML_M_AT15);
static const cml_param slice_17[] = SLICE_PARAMS(CML_M_MOVE17, CML_M_AT17);
static const cml_param update_params[] = {{"x", CML_M_MOVE17, 0, 1},    {"update", CML_M_MOVE17, 0, 1},
                                          {"begin", CML_M_AT17, CML_VECTOR, 2},  {"end", CML_M_AT17, CML_VECTOR, 2},
                                          {"stride", CML_M_AT17, CML_OPTIONAL | CML_CONST | CML_VECTOR, 2}, SLICE_MASKS};
enum { BEGIN, END, STRIDE, BEGIN_MASK, END_MASK, SQUEEZE_MASK }; /* from the parameter `begin` on */

typedef struct slice {
  int64_t first[CML_MAX_RANK], step[CML_MAX_RANK];
  int64_t length[CML_MAX_RANK]; /* -1: unknown */
  bool squeezed[CML_MAX_RANK];
} slice;

/* A vector of one element for each dimension, or `otherwise` in all of them; *known false when its value is not there yet. */
static cml_status slice_vector(const cml_call *c, unsigned param, int32_t rank, int64_t otherwise, int64_t *v, bool *known, cml_error *err) {
  const cml_tensor *t = cml_arg(c, param);
  *known = !t || t->data;
  for (int32_t i = 0; i < rank; i++) v[i] = otherwise;
  if (!t) return CML_OK;
  if (t->data) return cml_arg_vector(c, param, rank, v, CML_MAX_RANK, NULL, err);
  if (t->rank > 1 || (t->rank == 1 && t->dims[0] >= 0 && t->dims[0] != rank))
    return cml_call_fail(c, err, "%s must have %d elements", c->op->params[param].name, rank);
  return CML_OK;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

/* One dimension, as Python's slice(begin, end, step) of `n` elements. */
static void solve_range(int64_t n, int64_t begin, int64_t end, int64_t step, bool from_start, bool to_end, int64_t *first, int64_t *length) {
  int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
  begin = from_start ? (step > 0 ? 0 : n - 1) : clamp(begin < 0 ? begin + n : begin, low, high);
  end = to_end ? (step > 0 ? n : -1) : clamp(end < 0 ? end + n : end, low, high);
  *first = begin;
  if (step > 0) *length = end > begin ? (end - begin - 1) / step + 1 : 0;
  else *length = begin > end ? (begin - end - 1) / -step + 1 : 0;
}

/* base: the parameter `begin`. */
static cml_status solve_slice(const cml_call *c, const cml_tensor *x, unsigned base, slice *s, cml_error *err) {
  int64_t v[6][CML_MAX_RANK];
  bool known[6];
  for (unsigned k = 0; k < 6; k++) CML_TRY(slice_vector(c, base + k, x->rank, k == STRIDE, v[k], &known[k], err));
  for (int32_t i = 0; i < x->rank; i++) {
    int64_t n = x->dims[i], begin = v[BEGIN][i], end = v[END][i], step = v[STRIDE][i];
    bool from_start = v[BEGIN_MASK][i] != 0, to_end = v[END_MASK][i] != 0;
    s->squeezed[i] = v[SQUEEZE_MASK][i] != 0;
    s->step[i] = step;
    s->length[i] = s->squeezed[i] ? 1 : CML_DIM_UNKNOWN;
    s->first[i] = 0;
    if (step == 0) return cml_call_fail(c, err, "stride of dimension %d is zero", i);
    if (n < 0 || (!from_start && !known[BEGIN])) continue;
    if (s->squeezed[i]) {
      int64_t at = from_start ? (step > 0 ? 0 : n - 1) : begin < 0 ? begin + n : begin;
      if (at < 0 || at >= n) return cml_call_fail(c, err, "index %lld is out of range for dimension %d of %lld", (long long)begin, i, (long long)n);
      s->first[i] = at;
      s->step[i] = 1;
    } else if (to_end || known[END]) {
      solve_range(n, begin, end, step, from_start, to_end, &s->first[i], &s->length[i]);
    }
  }
  return CML_OK;
}

/* coremltools takes any slice of a dimension of one element for that element, and declares it so. */
static void heed_declared(const cml_call *c, const cml_tensor *x, slice *s) {
  if (!c->declared || c->declared[0].rank < 0) return;
  for (int32_t i = 0, k = 0; i < x->rank; i++) {
    if (s->squeezed[i]) continue;
    if (k < c->declared[0].rank && x->dims[i] == 1 && s->length[i] == 0 && c->declared[0].dims[k] == 1) s->length[i] = 1, s->first[i] = 0;
    k++;
  }
}

static int32_t slice_shape(const cml_tensor *x, const slice *s, int64_t *dims) {
  int32_t rank = 0;
  for (int32_t i = 0; i < x->rank; i++)
    if (!s->squeezed[i]) dims[rank++] = s->length[i];
  return rank;
}

/* ---- slice_by_index ---- */

static cml_status infer_slice(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  slice s;
  int64_t dims[CML_MAX_RANK];
  if (x->rank < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(solve_slice(c, x, 1, &s, err));
  heed_declared(c, x, &s);
  int32_t rank = slice_shape(x, &s, dims);
  cml_out_set(c, 0, x->dtype, rank, dims);
  c->spaced_args = 1;
  return CML_OK;
}

/* Loops over the slice; returns the offset of its first element. The slice is the input (to a whole output) or the output. */
static int64_t slice_loops(const cml_tensor *x, const slice *s, bool is_output, cml_strided *copy) {
  int64_t strides[CML_MAX_RANK], whole[CML_MAX_RANK], first = 0, n = 1;
  cml_row_strides(x, strides);
  for (int32_t i = x->rank - 1; i >= 0; i--) {
    whole[i] = n;
    n *= s->length[i];
  }
  *copy = (cml_strided){.size = cml_element_size(x)};
  for (int32_t i = 0; i < x->rank; i++) {
    int64_t step = s->length[i] > 1 ? strides[i] * s->step[i] : strides[i];
    cml_strided_loop(copy, s->length[i], is_output ? step : whole[i], is_output ? whole[i] : step);
    first += s->first[i] * strides[i];
  }
  return first;
}

static cml_status check_slice(const cml_call *c, const cml_tensor *x, const slice *s, const cml_tensor *part, cml_error *err) {
  char a[160], b[160];
  cml_tensor t = {.dtype = x->dtype};
  t.rank = slice_shape(x, s, t.dims);
  if (cml_tensor_same_shape(&t, part)) return CML_OK;
  return cml_call_fail(c, err, "the slice has shape %s and %s is needed", cml_shape_text(&t, a, sizeof a), cml_shape_text(part, b, sizeof b));
}

static cml_status run_slice(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  slice s;
  cml_strided copy;
  CML_TRY(solve_slice(c, x, 1, &s, err));
  heed_declared(c, x, &s);
  CML_TRY(check_slice(c, x, &s, c->outs[0], err));
  if (cml_tensor_count(c->outs[0]) == 0 || c->outs[0]->row) return CML_OK; /* of rows that lie apart: it lies in x */
  int64_t first = slice_loops(x, &s, false, &copy);
  cml_strided_copy(&copy, c->outs[0]->data, (const char *)x->data + first * (int64_t)copy.size, c->pool);
  return CML_OK;
}

/* ---- slice_by_size ---- */

#define SIZE_PARAMS(types, at) {{"x", types, 0, 0}, {"begin", at, CML_VECTOR, 2}, {"size", at, CML_VECTOR, 2}}
static const cml_param size_15[] = SIZE_PARAMS(CML_M_MOVE15, CML_M_AT15);
static const cml_param size_17[] = SIZE_PARAMS(CML_M_MOVE17, CML_M_AT17);

static cml_status solve_size(const cml_call *c, slice *s, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t begin[CML_MAX_RANK], size[CML_MAX_RANK];
  bool begin_known, size_known;
  CML_TRY(slice_vector(c, 1, x->rank, 0, begin, &begin_known, err));
  CML_TRY(slice_vector(c, 2, x->rank, 0, size, &size_known, err));
  for (int32_t i = 0; i < x->rank; i++) {
    int64_t n = x->dims[i], at = begin[i] < 0 && n >= 0 ? begin[i] + n : begin[i];
    bool fixed = size_known && size[i] != -1;
    s->squeezed[i] = false;
    s->step[i] = 1;
    s->first[i] = at;
    s->length[i] = fixed ? size[i] : CML_DIM_UNKNOWN;
    if (fixed && size[i] < 0) return cml_call_fail(c, err, "size[%d] is %lld", i, (long long)size[i]);
    if (n < 0 || !size_known) continue;
    if (begin_known && !fixed && at >= 0) s->length[i] = n - at;
    if (begin_known ? at < 0 || at > n || s->length[i] > n - at : fixed && size[i] > n)
      return cml_call_fail(c, err, "begin %lld and size %lld leave dimension %d of %lld", (long long)begin[i], (long long)size[i], i, (long long)n);
  }
  return CML_OK;
}

static cml_status infer_slice_by_size(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  slice s;
  if (x->rank < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(solve_size(c, &s, err));
  cml_out_set(c, 0, x->dtype, x->rank, s.length);
  c->spaced_args = 1;
  return CML_OK;
}

static cml_status run_slice_by_size(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  slice s;
  cml_strided copy;
  CML_TRY(solve_size(c, &s, err));
  CML_TRY(check_slice(c, x, &s, c->outs[0], err));
  if (cml_tensor_count(c->outs[0]) == 0 || c->outs[0]->row) return CML_OK; /* of rows that lie apart: it lies in x */
  int64_t first = slice_loops(x, &s, false, &copy);
  cml_strided_copy(&copy, c->outs[0]->data, (const char *)x->data + first * (int64_t)copy.size, c->pool);
  return CML_OK;
}

/* A slice is one run of x's elements when only its first dimension of several elements is cut; of its rows, when the last dimension is, too. */
static cml_parts one_run(const cml_tensor *x, const slice *s, uint64_t *offset, int64_t *row) {
  int64_t strides[CML_MAX_RANK], first = 0;
  bool several = false;
  cml_row_strides(x, strides);
  *row = 0;
  for (int32_t i = 0; i < x->rank; i++) {
    const bool last = i == x->rank - 1, whole = s->length[i] == x->dims[i], in_steps = s->length[i] > 1 && s->step[i] != 1;
    if (in_steps || (several && !whole && (!last || s->squeezed[i]))) return CML_PARTS_NONE;
    if (several && !whole) *row = x->dims[i];
    several = several || s->length[i] > 1;
    first += s->first[i] * strides[i];
  }
  *offset = (uint64_t)first * cml_element_size(x);
  return CML_PARTS_OF_ARGUMENT;
}

static cml_parts parts_slice(const cml_call *c, uint64_t *offsets, int64_t *row) {
  const cml_tensor *x = cml_arg(c, 0);
  slice s;
  if (!cml_arg_known(c, 1) || !cml_arg_known(c, 2) || solve_slice(c, x, 1, &s, NULL)) return CML_PARTS_NONE;
  heed_declared(c, x, &s);
  return one_run(x, &s, offsets, row);
}

static cml_parts parts_slice_by_size(const cml_call *c, uint64_t *offsets, int64_t *row) {
  slice s;
  if (!cml_arg_known(c, 1) || !cml_arg_known(c, 2) || solve_size(c, &s, NULL)) return CML_PARTS_NONE;
  return one_run(cml_arg(c, 0), &s, offsets, row);
}

/* ---- slice_update ---- */

static cml_status check_update(const cml_call *c, const slice *s, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *u = cml_arg(c, 1);
  int64_t dims[CML_MAX_RANK];
  int32_t rank = slice_shape(x, s, dims);
  bool fits = u->rank < 0 || u->rank == rank;
  for (int32_t i = 0; fits && i < rank && u->rank >= 0; i++) fits = dims[i] < 0 || u->dims[i] < 0 || dims[i] == u->dims[i];
  if (fits) return CML_OK;
  char a[160], b[160];
  cml_tensor t = {.rank = rank};
  memcpy(t.dims, dims, sizeof dims);
  return cml_call_fail(c, err, "update has shape %s and the slice %s", cml_shape_text(u, a, sizeof a), cml_shape_text(&t, b, sizeof b));
}

static cml_status infer_slice_update(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  slice s;
  if (cml_arg(c, 1)->rank == 0) return cml_call_fail(c, err, "update must not be a scalar");
  cml_out_like(c, 0, x);
  if (x->rank < 0) return CML_OK;
  CML_TRY(solve_slice(c, x, 2, &s, err));
  return check_update(c, &s, err);
}

/* The output's strides must be positive: a slice that walks back is the same one walking forth, with update turned. */
static cml_status run_slice_update(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *u = cml_arg(c, 1);
  cml_tensor *out = c->outs[0];
  uint64_t bytes;
  slice s;
  cml_strided copy;
  CML_TRY(solve_slice(c, x, 2, &s, err));
  CML_TRY(check_slice(c, x, &s, u, err));
  if (out->data != x->data && cml_tensor_bytes(x, &bytes)) cml_copy_bytes(out->data, x->data, bytes, c->pool);
  if (cml_tensor_count(u) == 0) return CML_OK;
  int64_t to = slice_loops(x, &s, true, &copy), from = 0;
  for (int32_t i = 0; i < copy.loops; i++) {
    if (copy.to[i] >= 0) continue;
    to += (copy.count[i] - 1) * copy.to[i];
    from += (copy.count[i] - 1) * copy.from[i];
    copy.to[i] = -copy.to[i];
    copy.from[i] = -copy.from[i];
  }
  cml_strided_copy(&copy, (char *)out->data + to * (int64_t)copy.size, (const char *)u->data + from * (int64_t)copy.size, c->pool);
  return CML_OK;
}

/* ---- sliding_windows ---- */

#define WINDOW_PARAMS(types)                                                                              \
  {{"x", types, 0, 0}, {"axis", CML_MASK(I32), CML_CONST, 0}, {"size", CML_MASK(I32), CML_CONST, 0}, \
   {"stride", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}}
static const cml_param windows_15[] = WINDOW_PARAMS(CML_M_MOVE15 & ~CML_M_BOOL);
static const cml_param windows_17[] = WINDOW_PARAMS(CML_M_MOVE17);

static cml_status infer_windows(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t dims[CML_MAX_RANK];
  int32_t axis;
  CML_TRY(cml_check_scalars(c, 2 | 4 | 8, err));
  int64_t size = cml_arg_int(c, 2, 1), stride = cml_arg_int(c, 3, 1);
  if (size < 1 || stride < 1) return cml_call_fail(c, err, "size is %lld and stride %lld", (long long)size, (long long)stride);
  if (x->rank < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  if (x->rank >= CML_MAX_RANK) return cml_call_fail(c, err, "the result would have more than %d dimensions", CML_MAX_RANK);
  CML_TRY(cml_check_axis(c, 1, 0, x->rank, &axis, err));
  int64_t n = x->dims[axis];
  if (n >= 0 && n < size) return cml_call_fail(c, err, "dimension %d has %lld elements and a window %lld", axis, (long long)n, (long long)size);
  for (int32_t i = 0, k = 0; i < x->rank; i++) {
    dims[k++] = i != axis ? x->dims[i] : n < 0 ? CML_DIM_UNKNOWN : (n - size) / stride + 1;
    if (i == axis) dims[k++] = size;
  }
  cml_out_set(c, 0, x->dtype, x->rank + 1, dims);
  return cml_check_output(c, 0, err);
}

static cml_status run_windows(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t to[CML_MAX_RANK], from[CML_MAX_RANK], stride = cml_arg_int(c, 3, 1);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, 0, x->rank, &axis, err));
  cml_row_strides(c->outs[0], to);
  cml_row_strides(x, from);
  cml_strided s = {.size = cml_element_size(x)};
  for (int32_t k = 0; k < c->outs[0]->rank; k++) {
    int64_t f = k == axis ? from[axis] * stride : k <= axis ? from[k] : from[k - 1];
    cml_strided_loop(&s, c->outs[0]->dims[k], to[k], f);
  }
  cml_strided_copy(&s, c->outs[0]->data, x->data, c->pool);
  return CML_OK;
}

/* ---- rows ---- */

#define ROW(op, first, last, f, p, infer_function, run_function, parts_function)                                   \
  {.name = op, .since = first, .until = last, .flags = f, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(p), \
   .infer = infer_function, .run = run_function, .parts = parts_function}

static const cml_op rows[] = {
    ROW("slice_by_index", CML_IOS15, CML_IOS16, 0, slice_15, infer_slice, run_slice, parts_slice),
    ROW("slice_by_index", CML_IOS17, 0, 0, slice_17, infer_slice, run_slice, parts_slice),
    ROW("slice_by_size", CML_IOS15, CML_IOS16, 0, size_15, infer_slice_by_size, run_slice_by_size, parts_slice_by_size),
    ROW("slice_by_size", CML_IOS17, 0, 0, size_17, infer_slice_by_size, run_slice_by_size, parts_slice_by_size),
    ROW("slice_update", CML_IOS18, 0, CML_OP_IN_PLACE_FIRST, update_params, infer_slice_update, run_slice_update, NULL),
    ROW("sliding_windows", CML_IOS15, CML_IOS16, 0, windows_15, infer_windows, run_windows, NULL),
    ROW("sliding_windows", CML_IOS17, 0, 0, windows_17, infer_windows, run_windows, NULL),
};

const cml_op_family cml_ops_slice = {"slice", rows, sizeof rows / sizeof *rows};
