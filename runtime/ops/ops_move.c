/* Operators that put a tensor's elements elsewhere: transpose, reverse, tile, pad and the block rearrangements. Each writes its
 * result as loops over output and input and leaves the copying to strided.c. */
#include "elementwise.h"
#include "families.h"
#include "strided.h"

/* ---- transpose ---- */

#define TRANSPOSE_PARAMS(types) {{"x", types, 0, 0}, {"perm", CML_MASK(I32), CML_CONST | CML_VECTOR, 0}}
static const cml_param transpose_15[] = TRANSPOSE_PARAMS(CML_M_MOVE15);
static const cml_param transpose_17[] = TRANSPOSE_PARAMS(CML_M_MOVE17);

static cml_status get_perm(const cml_call *c, int32_t rank, int32_t *perm, cml_error *err) {
  int64_t given[CML_MAX_RANK];
  uint32_t seen = 0;
  CML_TRY(cml_arg_vector(c, 1, rank, given, CML_MAX_RANK, NULL, err));
  for (int32_t i = 0; i < rank; i++) {
    if (!cml_axis(given[i], rank, &perm[i]) || seen >> perm[i] & 1)
      return cml_call_fail(c, err, "perm is no permutation: element %d is %lld", i, (long long)given[i]);
    seen |= 1u << perm[i];
  }
  return CML_OK;
}

static cml_status infer_transpose(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t perm[CML_MAX_RANK];
  int64_t dims[CML_MAX_RANK];
  if (x->rank < 0) {
    cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN);
    return CML_OK;
  }
  CML_TRY(get_perm(c, x->rank, perm, err));
  for (int32_t i = 0; i < x->rank; i++) dims[i] = x->dims[perm[i]];
  cml_out_set(c, 0, x->dtype, x->rank, dims);
  c->spaces_rows = true;
  c->spaced_args = 1;
  return CML_OK;
}

static cml_status run_transpose(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t perm[CML_MAX_RANK];
  int64_t to[CML_MAX_RANK], from[CML_MAX_RANK];
  CML_TRY(get_perm(c, x->rank, perm, err));
  cml_row_strides(c->outs[0], to);
  cml_row_strides(x, from);
  cml_strided s = {.size = cml_element_size(x)};
  for (int32_t i = 0; i < x->rank; i++) cml_strided_loop(&s, x->dims[perm[i]], to[i], from[perm[i]]);
  cml_strided_copy(&s, c->outs[0]->data, x->data, c->pool);
  return CML_OK;
}

/* ---- reverse ---- */

#define REVERSE_PARAMS(types) {{"x", types, 0, 0}, {"axes", CML_MASK(I32), CML_OPTIONAL | CML_CONST | CML_VECTOR, 0}}
static const cml_param reverse_15[] = REVERSE_PARAMS(CML_M_MOVE15);
static const cml_param reverse_17[] = REVERSE_PARAMS(CML_M_MOVE17);

/* An axis that is named twice is turned twice, as numpy.flip one after the other does. */
static cml_status get_flips(const cml_call *c, bool *flips, cml_error *err) {
  int32_t rank = cml_arg(c, 0)->rank;
  int64_t axes[64];
  size_t n;
  for (int32_t i = 0; i < CML_MAX_RANK; i++) flips[i] = !cml_arg(c, 1);
  if (!cml_arg(c, 1)) return CML_OK;
  CML_TRY(cml_arg_vector(c, 1, -1, axes, 64, &n, err));
  for (size_t i = 0; i < n; i++) {
    int32_t axis;
    if (!cml_axis(axes[i], rank, &axis))
      return cml_call_fail(c, err, "axis %lld is out of range for rank %d", (long long)axes[i], rank);
    flips[axis] = !flips[axis];
  }
  return CML_OK;
}

static cml_status infer_reverse(cml_call *c, cml_error *err) {
  bool flips[CML_MAX_RANK];
  if (cml_arg(c, 0)->rank >= 0) CML_TRY(get_flips(c, flips, err));
  cml_out_like(c, 0, cml_arg(c, 0));
  return CML_OK;
}

static cml_status run_reverse(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  bool flips[CML_MAX_RANK];
  int64_t strides[CML_MAX_RANK], first = 0;
  CML_TRY(get_flips(c, flips, err));
  if (cml_tensor_count(x) == 0) return CML_OK;
  cml_row_strides(x, strides);
  cml_strided s = {.size = cml_element_size(x)};
  for (int32_t i = 0; i < x->rank; i++) {
    cml_strided_loop(&s, x->dims[i], strides[i], flips[i] ? -strides[i] : strides[i]);
    if (flips[i]) first += (x->dims[i] - 1) * strides[i];
  }
  cml_strided_copy(&s, c->outs[0]->data, (const char *)x->data + first * (int64_t)s.size, c->pool);
  return CML_OK;
}

/* ---- reverse_sequence ---- */

#define SEQUENCE_PARAMS(types, length_types)                                                            \
  {{"x", types, 0, 0}, {"lengths", length_types, 0, 0}, {"seq_axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}, \
   {"batch_axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}}
static const cml_param sequence_15[] = SEQUENCE_PARAMS(CML_M_MOVE15, CML_M_AT15);
static const cml_param sequence_17[] = SEQUENCE_PARAMS(CML_M_MOVE17, CML_M_AT17);

static cml_status infer_reverse_sequence(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *lengths = cml_arg(c, 1);
  int32_t seq, batch;
  CML_TRY(cml_check_scalars(c, 4 | 8, err));
  cml_out_like(c, 0, x);
  if (x->rank < 0) return CML_OK;
  CML_TRY(cml_check_axis(c, 2, 0, x->rank, &seq, err));
  CML_TRY(cml_check_axis(c, 3, 0, x->rank, &batch, err));
  if (seq == batch) return cml_call_fail(c, err, "seq_axis and batch_axis are the same");
  if (lengths->rank >= 0 && lengths->rank != 1) return cml_call_fail(c, err, "lengths must be a vector");
  if (lengths->rank == 1 && lengths->dims[0] >= 0 && x->dims[batch] >= 0 && lengths->dims[0] != x->dims[batch])
    return cml_call_fail(c, err, "lengths has %lld elements for %lld sequences", (long long)lengths->dims[0], (long long)x->dims[batch]);
  return CML_OK;
}

static cml_status run_reverse_sequence(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *lengths = cml_arg(c, 1);
  int64_t strides[CML_MAX_RANK];
  int32_t seq, batch;
  CML_TRY(cml_check_axis(c, 2, 0, x->rank, &seq, err));
  CML_TRY(cml_check_axis(c, 3, 0, x->rank, &batch, err));
  cml_row_strides(x, strides);
  int64_t size = (int64_t)cml_element_size(x), length = x->dims[seq];
  for (int64_t b = 0; b < x->dims[batch]; b++) {
    int64_t n = cml_tensor_get_int(lengths, b);
    if (n < 0 || n > length)
      return cml_call_fail(c, err, "lengths[%lld] is %lld and must be from 0 to %lld", (long long)b, (long long)n, (long long)length);
    for (int part = 0; part < 2; part++) { /* the part that is turned, and the rest */
      cml_strided s = {.size = (size_t)size};
      int64_t at = b * strides[batch], to = part ? n * strides[seq] : 0, from = part ? to : (n - 1) * strides[seq];
      for (int32_t i = 0; i < x->rank; i++) {
        if (i == seq) cml_strided_loop(&s, part ? length - n : n, strides[i], part ? strides[i] : -strides[i]);
        else if (i != batch) cml_strided_loop(&s, x->dims[i], strides[i], strides[i]);
      }
      if (part ? length == n : n == 0) continue;
      cml_strided_copy(&s, (char *)c->outs[0]->data + (at + to) * size, (const char *)x->data + (at + from) * size, c->pool);
    }
  }
  return CML_OK;
}

/* ---- tile ---- */

static const cml_param tile_params[] = {{"x", CML_M_MOVE17, 0, 0}, {"reps", CML_M_AT17, CML_VECTOR, 0}};

static cml_status infer_tile(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *reps = cml_arg(c, 1);
  int64_t r[CML_MAX_RANK], dims[CML_MAX_RANK];
  if (x->rank < 0 || !reps->data) {
    if (x->rank >= 0 && reps->rank == 1 && reps->dims[0] >= 0 && reps->dims[0] != x->rank)
      return cml_call_fail(c, err, "reps has %lld elements and x rank %d", (long long)reps->dims[0], x->rank);
    cml_out_unknown(c, 0, x->dtype, x->rank);
    return CML_OK;
  }
  CML_TRY(cml_arg_vector(c, 1, x->rank, r, CML_MAX_RANK, NULL, err));
  for (int32_t i = 0; i < x->rank; i++) {
    if (r[i] < 0) return cml_call_fail(c, err, "reps[%d] is %lld and must not be negative", i, (long long)r[i]); /* 0 where a mask selects nothing */
    if (!cml_dim_affine(x->dims[i], r[i], 0, &dims[i])) return cml_call_fail(c, err, "dimension %d of the result is too large", i);
  }
  cml_out_set(c, 0, x->dtype, x->rank, dims);
  return cml_check_output(c, 0, err);
}

static cml_status run_tile(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  int64_t to[CML_MAX_RANK], from[CML_MAX_RANK];
  if (cml_tensor_count(c->outs[0]) == 0) return CML_OK;
  cml_row_strides(c->outs[0], to);
  cml_row_strides(x, from);
  cml_strided s = {.size = cml_element_size(x)};
  for (int32_t i = 0; i < x->rank; i++) {
    cml_strided_loop(&s, c->outs[0]->dims[i] / x->dims[i], to[i] * x->dims[i], 0);
    cml_strided_loop(&s, x->dims[i], to[i], from[i]);
  }
  cml_strided_copy(&s, c->outs[0]->data, x->data, c->pool);
  return CML_OK;
}

/* ---- blocks of pixels ---- */

static const cml_param depth_params[] = {{"x", CML_M_MOVE17, 0, 0}, {"block_size", CML_M_INT, CML_CONST, 0}};
static const cml_param shuffle_params[] = {{"x", CML_M_MOVE17, 0, 0}, {"upscale_factor", CML_M_INT, CML_CONST, 0}};
static const cml_param unshuffle_params[] = {{"x", CML_M_MOVE17, 0, 0}, {"downscale_factor", CML_M_INT, CML_CONST, 0}};

static bool is_upward(const cml_call *c) { return c->op->name[0] == 'd' || !strcmp(c->op->name, "pixel_shuffle"); }
static bool block_is_slow(const cml_call *c) { return c->op->name[0] != 'p'; }

static cml_status infer_depth(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t dims[4] = {-1, -1, -1, -1};
  CML_TRY(cml_check_scalars(c, 2, err));
  int64_t b = cml_arg_int(c, 1, 1);
  if (b < 1 || b > 1 << 20) return cml_call_fail(c, err, "%s is %lld", c->op->params[1].name, (long long)b);
  if (x->rank >= 0 && x->rank != 4) return cml_call_fail(c, err, "x has rank %d and needs 4", x->rank);
  if (x->rank == 4) {
    bool up = is_upward(c), fits = true;
    dims[0] = x->dims[0];
    fits = up ? x->dims[1] < 0 || x->dims[1] % (b * b) == 0 : (x->dims[2] < 0 || x->dims[2] % b == 0) && (x->dims[3] < 0 || x->dims[3] % b == 0);
    if (!fits) return cml_call_fail(c, err, "x's %s cannot be divided by %s %lld", up ? "channels" : "height and width", c->op->params[1].name, (long long)b);
    for (int i = 1; i < 4; i++) {
      bool divide = up == (i == 1);
      int64_t f = i == 1 ? b * b : b;
      if (divide) dims[i] = x->dims[i] < 0 ? CML_DIM_UNKNOWN : x->dims[i] / f;
      else if (!cml_dim_affine(x->dims[i], f, 0, &dims[i])) return cml_call_fail(c, err, "the result is too large");
    }
  }
  cml_out_set(c, 0, x->dtype, 4, dims);
  return CML_OK;
}

/* The side with many channels is [n][c][b][b][h][w], or [n][b][b][c][h][w] where the block is the slow part; the other is
 * [n][c][h][b][w][b]. */
static cml_status run_depth(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0), *deep = is_upward(c) ? x : c->outs[0], *wide = is_upward(c) ? c->outs[0] : x;
  int64_t b = cml_arg_int(c, 1, 1), d[4], w[4], channels = wide->dims[1];
  cml_row_strides(deep, d);
  cml_row_strides(wide, w);
  int64_t step = block_is_slow(c) ? channels : 1, channel_step = block_is_slow(c) ? 1 : b * b;
  const int64_t count[6] = {wide->dims[0], channels, deep->dims[2], b, deep->dims[3], b};
  const int64_t wide_stride[6] = {w[0], w[1], w[2] * b, w[2], b, 1};
  const int64_t deep_stride[6] = {d[0], d[1] * channel_step, d[2], d[1] * step * b, d[3], d[1] * step};
  cml_strided s = {.size = cml_element_size(x)};
  for (int i = 0; i < 6; i++)
    cml_strided_loop(&s, count[i], wide == x ? deep_stride[i] : wide_stride[i], wide == x ? wide_stride[i] : deep_stride[i]);
  cml_strided_copy(&s, c->outs[0]->data, x->data, c->pool);
  return CML_OK;
}

/* ---- blocks in the batch ---- */

static const cml_param to_batch_params[] = {
    {"x", CML_M_MOVE17, 0, 0}, {"block_shape", CML_M_INT, CML_CONST | CML_VECTOR, 0}, {"paddings", CML_M_INT, CML_CONST, 0}};
static const cml_param to_space_params[] = {
    {"x", CML_M_MOVE17, 0, 0}, {"block_shape", CML_M_INT, CML_CONST | CML_VECTOR, 0}, {"crops", CML_M_INT, CML_CONST, 0}};

/* block_shape [2], and paddings or crops [2, 2]. */
static cml_status get_blocks(const cml_call *c, int64_t block[2], int64_t edge[4], cml_error *err) {
  const cml_tensor *e = cml_arg(c, 2);
  CML_TRY(cml_arg_vector(c, 1, 2, block, 2, NULL, err));
  if (e->rank != 2 || e->dims[0] != 2 || e->dims[1] != 2) return cml_call_fail(c, err, "%s must have shape [2, 2]", c->op->params[2].name);
  for (int i = 0; i < 4; i++)
    if ((edge[i] = cml_tensor_get_int(e, i)) < 0 || edge[i] > 1 << 30)
      return cml_call_fail(c, err, "%s has the element %lld", c->op->params[2].name, (long long)edge[i]);
  for (int i = 0; i < 2; i++)
    if (block[i] < 1 || block[i] > 1 << 20) return cml_call_fail(c, err, "block_shape has the element %lld", (long long)block[i]);
  return CML_OK;
}

static cml_status infer_batch(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int64_t block[2], edge[4], dims[4] = {-1, -1, -1, -1};
  bool to_batch = c->op->name[0] == 's';
  CML_TRY(get_blocks(c, block, edge, err));
  if (x->rank >= 0 && x->rank != 4) return cml_call_fail(c, err, "x has rank %d and needs 4", x->rank);
  bool fits = true;
  if (x->rank == 4) {
    dims[1] = x->dims[1];
    if (to_batch) fits = cml_dim_affine(x->dims[0], block[0] * block[1], 0, &dims[0]);
    else if (x->dims[0] >= 0 && x->dims[0] % (block[0] * block[1]))
      return cml_call_fail(c, err, "a batch of %lld cannot be divided by blocks of %lld x %lld", (long long)x->dims[0], (long long)block[0], (long long)block[1]);
    else dims[0] = x->dims[0] < 0 ? CML_DIM_UNKNOWN : x->dims[0] / (block[0] * block[1]);
    for (int i = 0; fits && i < 2; i++) {
      int64_t e = edge[2 * i] + edge[2 * i + 1];
      fits = to_batch ? cml_dim_affine(x->dims[2 + i], 1, e, &dims[2 + i]) : cml_dim_affine(x->dims[2 + i], block[i], -e, &dims[2 + i]);
      if (!fits || !to_batch || dims[2 + i] < 0) continue;
      if (dims[2 + i] % block[i]) return cml_call_fail(c, err, "%lld padded rows or columns cannot be divided by %lld", (long long)dims[2 + i], (long long)block[i]);
      dims[2 + i] /= block[i];
    }
  }
  if (!fits) return cml_call_fail(c, err, "the result would have an impossible size");
  cml_out_set(c, 0, x->dtype, 4, dims);
  return CML_OK;
}

/* Rows y of the small images that lie in the large one: 0 <= y block + offset - edge < size. */
static void valid_range(int64_t offset, int64_t block, int64_t edge, int64_t size, int64_t small, int64_t *first, int64_t *count) {
  int64_t low = edge - offset, high = size + edge - offset;
  *first = low <= 0 ? 0 : (low + block - 1) / block;
  int64_t end = high <= 0 ? 0 : (high + block - 1) / block;
  if (end > small) end = small;
  *count = end > *first ? end - *first : 0;
}

/* Batch (i * block[1] + j) * n + k of the small images is pixel (i, j) of each block of image k. */
static cml_status run_batch(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  cml_tensor *out = c->outs[0];
  bool to_batch = c->op->name[0] == 's';
  const cml_tensor *small = to_batch ? out : x, *large = to_batch ? x : out;
  int64_t block[2], edge[4], s_stride[4], l_stride[4], size = (int64_t)cml_element_size(x), n = large->dims[0];
  CML_TRY(get_blocks(c, block, edge, err));
  cml_row_strides(small, s_stride);
  cml_row_strides(large, l_stride);
  if (to_batch && (edge[0] | edge[1] | edge[2] | edge[3])) memset(out->data, 0, (size_t)(cml_tensor_count(out) * size));
  for (int64_t i = 0; i < block[0]; i++)
    for (int64_t j = 0; j < block[1]; j++) {
      int64_t y, x0, rows_count, columns;
      valid_range(i, block[0], edge[0], large->dims[2], small->dims[2], &y, &rows_count);
      valid_range(j, block[1], edge[2], large->dims[3], small->dims[3], &x0, &columns);
      if (!rows_count || !columns) continue;
      int64_t s_at = (i * block[1] + j) * n * s_stride[0] + y * s_stride[2] + x0;
      int64_t l_at = (y * block[0] + i - edge[0]) * l_stride[2] + x0 * block[1] + j - edge[2];
      const int64_t count[4] = {n, x->dims[1], rows_count, columns};
      const int64_t ss[4] = {s_stride[0], s_stride[1], s_stride[2], 1}, ls[4] = {l_stride[0], l_stride[1], l_stride[2] * block[0], block[1]};
      cml_strided s = {.size = (size_t)size};
      for (int k = 0; k < 4; k++) cml_strided_loop(&s, count[k], to_batch ? ss[k] : ls[k], to_batch ? ls[k] : ss[k]);
      cml_strided_copy(&s, (char *)out->data + (to_batch ? s_at : l_at) * size, (const char *)x->data + (to_batch ? l_at : s_at) * size, c->pool);
    }
  return CML_OK;
}

/* ---- rows ---- */

#define ROW(op, first, last, p, infer_function, run_function)                                                  \
  {.name = op, .since = first, .until = last, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(p), .infer = infer_function, \
   .run = run_function}

static const cml_op rows[] = {
    ROW("transpose", CML_IOS15, CML_IOS16, transpose_15, infer_transpose, run_transpose),
    ROW("transpose", CML_IOS17, 0, transpose_17, infer_transpose, run_transpose),
    ROW("reverse", CML_IOS15, CML_IOS16, reverse_15, infer_reverse, run_reverse),
    ROW("reverse", CML_IOS17, 0, reverse_17, infer_reverse, run_reverse),
    ROW("reverse_sequence", CML_IOS15, CML_IOS16, sequence_15, infer_reverse_sequence, run_reverse_sequence),
    ROW("reverse_sequence", CML_IOS17, 0, sequence_17, infer_reverse_sequence, run_reverse_sequence),
    ROW("tile", CML_IOS15, 0, tile_params, infer_tile, run_tile),
    ROW("depth_to_space", CML_IOS15, 0, depth_params, infer_depth, run_depth),
    ROW("space_to_depth", CML_IOS15, 0, depth_params, infer_depth, run_depth),
    ROW("pixel_shuffle", CML_IOS15, 0, shuffle_params, infer_depth, run_depth),
    ROW("pixel_unshuffle", CML_IOS16, 0, unshuffle_params, infer_depth, run_depth),
    ROW("space_to_batch", CML_IOS15, 0, to_batch_params, infer_batch, run_batch),
    ROW("batch_to_space", CML_IOS15, 0, to_space_params, infer_batch, run_batch),
};

const cml_op_family cml_ops_move = {"move", rows, sizeof rows / sizeof *rows};
