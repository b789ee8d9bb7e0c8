/* gather, gather_along_axis, gather_nd: whole slices, single elements and tuples of indices.
 *
 * Indices are checked before anything is copied, in one pass on one thread; copying then is free to run on several. */
#include "elementwise.h"
#include "families.h"
#include "positions.h"
#include "strided.h"

#define CML_M_INDEX16 (CML_MASK(I32) | CML_MASK(I16) | CML_MASK(U16))
#define CML_M_INDEX17 (CML_M_INDEX16 | CML_MASK(I8) | CML_MASK(U8))
#define AXIS {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}
#define BATCH {"batch_dims", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}
#define VALIDATE {"validate_indices", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}

/* ---- gather ---- */

static const cml_param gather_15[] = {{"x", CML_M_MOVE15, 0, 0}, {"indices", CML_MASK(I32), 0, 0}, AXIS};
static const cml_param gather_16[] = {{"x", CML_M_MOVE15, 0, 0}, {"indices", CML_M_INDEX16, 0, 0}, AXIS, BATCH};
static const cml_param gather_17[] = {{"x", CML_M_MOVE17, 0, 0}, {"indices", CML_M_INDEX17, 0, 0}, AXIS, BATCH, VALIDATE};

static int64_t batch_dims(const cml_call *c, unsigned param) { return c->op->param_count > param ? cml_arg_int(c, param, 0) : 0; }

/* The first dims of x and indices are the same batch. */
static cml_status check_batch(const cml_call *c, int64_t batch, const cml_tensor *x, const cml_tensor *indices, cml_error *err) {
  if (batch < 0 || batch > x->rank || batch > indices->rank)
    return cml_call_fail(c, err, "batch_dims is %lld for x of rank %d and indices of rank %d", (long long)batch, x->rank, indices->rank);
  for (int64_t i = 0; i < batch; i++)
    if (x->dims[i] >= 0 && indices->dims[i] >= 0 && x->dims[i] != indices->dims[i])
      return cml_call_fail(c, err, "batch dimension %lld is %lld in x and %lld in indices", (long long)i, (long long)x->dims[i],
                           (long long)indices->dims[i]);
  return CML_OK;
}

static int validate_param(const cml_call *c) { return c->opset >= CML_IOS17 ? c->op->param_count - 1 : -1; }

static cml_status infer_gather(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int64_t dims[CML_MAX_RANK];
  int32_t axis, rank = 0;
  CML_TRY(cml_check_scalars(c, (1u << c->op->param_count) - 4, err));
  if (x->rank < 0 || indices->rank < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(cml_check_axis(c, 2, 0, x->rank, &axis, err));
  int64_t batch = batch_dims(c, 3);
  CML_TRY(check_batch(c, batch, x, indices, err));
  if (batch > axis) return cml_call_fail(c, err, "batch_dims %lld is beyond axis %d", (long long)batch, axis);
  if (x->rank - 1 + indices->rank - batch > CML_MAX_RANK) return cml_call_fail(c, err, "the result would have more than %d dimensions", CML_MAX_RANK);
  for (int32_t i = 0; i < axis; i++) dims[rank++] = x->dims[i];
  for (int32_t i = (int32_t)batch; i < indices->rank; i++) dims[rank++] = indices->dims[i];
  for (int32_t i = axis + 1; i < x->rank; i++) dims[rank++] = x->dims[i];
  cml_out_set(c, 0, x->dtype, rank, dims);
  cml_positions p = cml_positions_of(c, indices, validate_param(c));
  CML_TRY(cml_positions_check(c, &p, x->dims[axis], err));
  return cml_check_output(c, 0, err);
}

typedef struct gather_job {
  cml_positions p;
  char *to;
  const char *from;
  int64_t mid, n, count, bytes; /* x is [batch, mid, n, bytes], indices [batch, count] */
} gather_job;

static void copy_small(char *to, const char *from, int64_t bytes) {
  switch (bytes) {
    case 1: *to = *from; break;
    case 2: memcpy(to, from, 2); break;
    case 4: memcpy(to, from, 4); break;
    case 8: memcpy(to, from, 8); break;
    default: memcpy(to, from, (size_t)bytes); break;
  }
}

/* `bytes` from each of `rows` places to as many. */
static void copy_column(char *to, int64_t to_row, const char *from, int64_t from_row, int64_t bytes, int64_t rows) {
  if (bytes == 4) {
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * to_row, from + r * from_row, 4);
  } else if (bytes == 2) {
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * to_row, from + r * from_row, 2);
  } else {
    for (int64_t r = 0; r < rows; r++) copy_small(to + r * to_row, from + r * from_row, bytes);
  }
}

/* All slices of `rows` rows of a batch from number `outer` on: places are read once for all rows, and those that follow one another are one copy. */
static void gather_rows(const gather_job *j, int64_t outer, int64_t rows) {
  const int64_t base = outer / j->mid * j->count, to_row = j->count * j->bytes, from_row = j->n * j->bytes;
  for (int64_t k = 0, m, v, next = cml_position(&j->p, base, j->n); k < j->count; k += m) {
    for (m = 1, v = next; k + m < j->count && (next = cml_position(&j->p, base + k + m, j->n)) == v + m; m++) {}
    copy_column(j->to + outer * to_row + k * j->bytes, to_row, j->from + outer * from_row + v * j->bytes, from_row, m * j->bytes, rows);
  }
}

static void gather_slices(void *context, size_t begin, size_t end) {
  enum { NEAR = 16 << 10, FEW = 4 }; /* bytes of rows, and of what they are made of, that stay in the first-level cache; rows that are not worth while */
  const gather_job *j = context;
  const int64_t together = NEAR / ((j->count + j->n) * j->bytes);
  for (int64_t i = (int64_t)begin, last = (int64_t)end; i < last;) {
    const int64_t k = i % j->count, outer = i / j->count, in_batch = j->mid - outer % j->mid;
    int64_t rows = (last - i) / j->count < together ? (last - i) / j->count : together;
    if (rows > in_batch) rows = in_batch;
    if (!k && rows >= FEW) {
      gather_rows(j, outer, rows);
      i += rows * j->count;
      continue;
    }
    const int64_t base = outer / j->mid * j->count - outer * j->count, row_end = (outer + 1) * j->count < last ? (outer + 1) * j->count : last;
    for (; i < row_end; i++)
      copy_small(j->to + i * j->bytes, j->from + (outer * j->n + cml_position(&j->p, base + i, j->n)) * j->bytes, j->bytes);
  }
}

static cml_status run_gather(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 2, 0, x->rank, &axis, err));
  int32_t batch = (int32_t)batch_dims(c, 3);
  gather_job j = {.p = cml_positions_of(c, indices, validate_param(c)), .to = c->outs[0]->data, .from = x->data, .n = x->dims[axis]};
  CML_TRY(cml_positions_check(c, &j.p, j.n, err));
  int64_t total = cml_tensor_count(c->outs[0]);
  if (total == 0) return CML_OK;
  j.mid = cml_dims_product(x->dims, batch, axis);
  j.count = cml_dims_product(indices->dims, batch, indices->rank);
  int64_t inner = cml_dims_product(x->dims, axis + 1, x->rank);
  j.bytes = inner * (int64_t)cml_element_size(x);
  cml_parallel(c->pool, (size_t)(total / inner), (size_t)(65536 / j.bytes + 1), gather_slices, &j);
  return CML_OK;
}

/* ---- gather_along_axis ---- */

static const cml_param along_15[] = {{"x", CML_M_MOVE15, 0, 0}, {"indices", CML_MASK(I32), 0, 0}, AXIS};
static const cml_param along_16[] = {{"x", CML_M_MOVE15, 0, 0}, {"indices", CML_M_INDEX16, 0, 0}, AXIS};
static const cml_param along_17[] = {{"x", CML_M_MOVE17, 0, 0}, {"indices", CML_M_INDEX17, 0, 0}, AXIS, VALIDATE};

static cml_status infer_along(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int32_t axis;
  CML_TRY(cml_check_scalars(c, (1u << c->op->param_count) - 4, err));
  cml_out_like(c, 0, indices);
  c->outs[0]->dtype = x->dtype;
  if (x->rank < 0 || indices->rank < 0) return CML_OK;
  if (x->rank != indices->rank) return cml_call_fail(c, err, "x has rank %d and indices %d", x->rank, indices->rank);
  CML_TRY(cml_check_axis(c, 2, 0, x->rank, &axis, err));
  for (int32_t i = 0; i < x->rank; i++)
    if (i != axis && x->dims[i] >= 0 && indices->dims[i] >= 0 && x->dims[i] != indices->dims[i])
      return cml_call_fail(c, err, "dimension %d is %lld in x and %lld in indices", i, (long long)x->dims[i], (long long)indices->dims[i]);
  cml_positions p = cml_positions_of(c, indices, validate_param(c));
  return cml_positions_check(c, &p, x->dims[axis], err);
}

typedef struct along_job {
  cml_positions p;
  char *to;
  const char *from;
  int64_t n, count, inner, size; /* x is [outer, n, inner], indices [outer, count, inner] */
} along_job;

/* Outputs [first, first + n) that lie side by side: each from its own place in x, `step` apart, where its neighbours' are `beside`. */
#define GATHER_RUN(type, index)                                                              \
  for (int64_t i = 0; i < n; i++) {                                                          \
    int64_t v = ((const index *)j->p.indices->data)[first + i];                              \
    if (v < 0 || v >= j->n) v = cml_position(&j->p, first + i, j->n);                        \
    ((type *)(void *)to)[i] = ((const type *)(const void *)from)[v * j->inner + i * beside]; \
  }
#define GATHER_BY(index)                               \
  if (j->size == 4) { GATHER_RUN(uint32_t, index) }    \
  else { GATHER_RUN(uint16_t, index) }

static void gather_run(const along_job *j, int64_t first, int64_t n, const char *from, int64_t beside) {
  char *to = j->to + first * j->size;
  const cml_dtype index = j->size == 4 || j->size == 2 ? j->p.indices->dtype : CML_STRING;
  if (index == CML_I32) {
    GATHER_BY(int32_t)
  } else if (index == CML_I16) {
    GATHER_BY(int16_t)
  } else if (index == CML_U16) {
    GATHER_BY(uint16_t)
  } else {
    for (int64_t i = 0; i < n; i++)
      copy_small(to + i * j->size, from + (cml_position(&j->p, first + i, j->n) * j->inner + i * beside) * j->size, j->size);
  }
}
#undef GATHER_BY
#undef GATHER_RUN

/* Runs of the last dim, or of `inner` elements where that is not the axis. */
static void gather_runs(void *context, size_t begin, size_t end) {
  const along_job *j = context;
  const bool last = j->inner == 1;
  const int64_t run = last ? j->count : j->inner, runs = last ? 1 : j->count;
  for (int64_t i = (int64_t)begin; i < (int64_t)end; i++) gather_run(j, i * run, run, j->from + i / runs * j->n * j->inner * j->size, !last);
}

static cml_status run_along(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 2, 0, x->rank, &axis, err));
  along_job j = {.p = cml_positions_of(c, indices, validate_param(c)), .to = c->outs[0]->data, .from = x->data, .n = x->dims[axis],
                 .count = indices->dims[axis], .size = (int64_t)cml_element_size(x)};
  j.inner = cml_dims_product(x->dims, axis + 1, x->rank);
  CML_TRY(cml_positions_check(c, &j.p, j.n, err));
  int64_t total = cml_tensor_count(indices), run = j.inner == 1 ? j.count : j.inner;
  if (total) cml_parallel(c->pool, (size_t)(total / run), (size_t)(16384 / run + 1), gather_runs, &j);
  return CML_OK;
}

/* ---- gather_nd ---- */

static const cml_param nd_15[] = {{"x", CML_M_MOVE15, 0, 0}, {"indices", CML_MASK(I32), 0, 0}};
static const cml_param nd_16[] = {{"x", CML_M_MOVE15, 0, 0}, {"indices", CML_M_INDEX16, 0, 0}, BATCH};
static const cml_param nd_17[] = {{"x", CML_M_MOVE17, 0, 0}, {"indices", CML_M_INDEX17, 0, 0}, BATCH, VALIDATE};

static cml_status infer_nd(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int64_t dims[CML_MAX_RANK], depth = cml_index_depth(indices), batch = batch_dims(c, 2);
  int32_t rank = 0;
  CML_TRY(cml_check_scalars(c, (1u << c->op->param_count) - 4, err));
  if (indices->rank == 0) return cml_call_fail(c, err, "indices must not be a scalar");
  if (x->rank < 0 || indices->rank < 0 || depth < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(check_batch(c, batch, x, indices, err));
  if (batch >= indices->rank) return cml_call_fail(c, err, "batch_dims %lld leaves no indices", (long long)batch);
  if (depth > x->rank - batch)
    return cml_call_fail(c, err, "indices have %lld elements for x of rank %d with %lld batch dimensions", (long long)depth, x->rank, (long long)batch);
  if (indices->rank - 1 + x->rank - batch - depth > CML_MAX_RANK)
    return cml_call_fail(c, err, "the result would have more than %d dimensions", CML_MAX_RANK);
  for (int32_t i = 0; i < indices->rank - 1; i++) dims[rank++] = indices->dims[i];
  for (int32_t i = (int32_t)(batch + depth); i < x->rank; i++) dims[rank++] = x->dims[i];
  cml_out_set(c, 0, x->dtype, rank, dims);
  return cml_check_output(c, 0, err);
}

static cml_status run_nd(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *indices = cml_arg(c, 1);
  int32_t batch = (int32_t)batch_dims(c, 2);
  int64_t strides[CML_MAX_RANK], depth = cml_index_depth(indices), size = (int64_t)cml_element_size(x), offset, bad;
  cml_positions p = cml_positions_of(c, indices, validate_param(c));
  cml_row_strides(x, strides);
  if (cml_tensor_count(c->outs[0]) == 0) return CML_OK;
  int64_t inner = cml_dims_product(x->dims, batch + (int32_t)depth, x->rank);
  int64_t one_batch = cml_dims_product(x->dims, batch, x->rank), tuples = cml_dims_product(indices->dims, batch, indices->rank - 1);
  int64_t total = cml_dims_product(indices->dims, 0, indices->rank - 1);
  for (int64_t i = 0; i < total; i++) {
    if (!cml_tuple_offset(&p, i, depth, x, strides, batch, &offset, &bad))
      return cml_position_fail(c, &p, bad, x->dims[batch + bad % depth], err);
    copy_small((char *)c->outs[0]->data + i * inner * size, (const char *)x->data + (i / tuples * one_batch + offset) * size, inner * size);
  }
  return CML_OK;
}

/* ---- rows ---- */

#define ROW(op, first, last, p, infer_function, run_function)                                                  \
  {.name = op, .since = first, .until = last, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(p), .infer = infer_function, \
   .run = run_function}

static const cml_op rows[] = {
    ROW("gather", CML_IOS15, CML_IOS15, gather_15, infer_gather, run_gather),
    ROW("gather", CML_IOS16, CML_IOS16, gather_16, infer_gather, run_gather),
    ROW("gather", CML_IOS17, 0, gather_17, infer_gather, run_gather),
    ROW("gather_along_axis", CML_IOS15, CML_IOS15, along_15, infer_along, run_along),
    ROW("gather_along_axis", CML_IOS16, CML_IOS16, along_16, infer_along, run_along),
    ROW("gather_along_axis", CML_IOS17, 0, along_17, infer_along, run_along),
    ROW("gather_nd", CML_IOS15, CML_IOS15, nd_15, infer_nd, run_nd),
    ROW("gather_nd", CML_IOS16, CML_IOS16, nd_16, infer_nd, run_nd),
    ROW("gather_nd", CML_IOS17, 0, nd_17, infer_nd, run_nd),
};

const cml_op_family cml_ops_gather = {"gather", rows, sizeof rows / sizeof *rows};
