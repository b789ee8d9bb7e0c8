/* Compressed constants, and quantize and dequantize, which compute the same.
 *
 * Scales and offsets: a chunk's entries are spread over its elements (blocks.h), then one loop computes
 * scale * (data - offset), per tensor, per channel or block-wise alike. Palettes: a chunk's indices are unpacked, then
 * looked up run by run. Sparse data: the mask's bits are walked a byte at a time. All in chunks on the stack, whose
 * starts are multiples of eight elements and so of whole bytes, in parallel where the place of the input is known. */
#include "families.h"

#include "blocks.h"
#include "elementwise.h"

/* ---- shared checks ---- */

static cml_status check_dense(const cml_call *c, unsigned param, cml_error *err) {
  const cml_tensor *t = cml_arg(c, param);
  if (t->rank >= 0 && t->rank < 1) return cml_call_fail(c, err, "%s must have rank 1 or more", c->op->params[param].name);
  return CML_OK;
}

/* A vector parameter of known length; anything goes while its shape is unknown. */
static cml_status check_vector(const cml_call *c, unsigned param, cml_error *err) {
  const cml_tensor *t = cml_arg(c, param);
  if (t->rank >= 0 && t->rank != 1) return cml_call_fail(c, err, "%s must have rank 1, found %d", c->op->params[param].name, (int)t->rank);
  return CML_OK;
}

/* Each count must divide its dim. */
static cml_status check_blocks(const cml_call *c, const char *name, const cml_tensor *data, const cml_tensor *table, int32_t rank, cml_error *err) {
  for (int32_t k = 0; k < rank; k++) {
    int64_t d = data->dims[k], n = table->dims[k];
    if (d >= 0 && n >= 0 && (n == 0 ? d != 0 : d % n != 0))
      return cml_call_fail(c, err, "%s has %lld entries along axis %d, which does not divide %lld", name, (long long)n, (int)k, (long long)d);
  }
  return CML_OK;
}

/* Dims from a known vector of uint32. */
static cml_status shape_from(cml_call *c, unsigned param, cml_dtype dtype, uint64_t *count, cml_error *err) {
  const cml_tensor *t = cml_arg(c, param);
  int64_t dims[CML_MAX_RANK];
  CML_TRY(check_vector(c, param, err));
  if (!t->data) return cml_call_fail(c, err, "shape must be a constant");
  size_t n = cml_arg_ints(c, param, dims, CML_MAX_RANK);
  if (n > CML_MAX_RANK) return cml_call_fail(c, err, "shape has %zu dims; at most %d are possible", n, CML_MAX_RANK);
  cml_out_set(c, 0, dtype, (int32_t)n, dims);
  CML_TRY(cml_check_output(c, 0, err));
  *count = (uint64_t)cml_tensor_count(c->outs[0]);
  return CML_OK;
}

/* Bits that are set among the first n; the ninth and later of the last byte do not count. */
static uint64_t count_bits(const uint8_t *p, uint64_t n) {
  uint64_t sum = 0, i = 0, word;
  for (; i + 64 <= n; i += 64) {
    memcpy(&word, p + i / 8, 8);
    sum += (uint64_t)__builtin_popcountll(word);
  }
  for (; i < n; i++) sum += p[i / 8] >> (i % 8) & 1;
  return sum;
}

/* ---- scale * (data - offset) ---- */

/* data, scale and offset over the same elements; offset may be NULL. Where `mask` is given, data holds only the elements
 * whose bit is set, one behind another, and so does out. */
typedef struct scale_job {
  const cml_tensor *data, *scale, *offset;
  const uint8_t *mask;
  cml_tensor *out;
  cml_blocks blocks;
  int64_t count; /* of dense elements */
  float low, high; /* quantize: data / scale, rounded, plus offset, clamped */
  bool quantize;
} scale_job;

/* The entries of `table` for n elements from position p on. Along a row, blocks follow one another and so do entries. */
static void spread(const cml_blocks *b, cml_block_position p, const cml_tensor *table, size_t n, float *to) {
  float values[CML_CHUNK];
  int32_t last = b->rank - 1;
  for (size_t done = 0; done < n;) {
    int64_t run, entry = cml_blocks_entry(b, &p, &run), size = b->sizes[last], left = b->dims[last] - p.index[last];
    if ((uint64_t)left > n - done) left = (int64_t)(n - done);
    int64_t count = left <= run ? 1 : 1 + (left - run + size - 1) / size;
    cml_load_f32(size == 1 ? to + done : values, table->data, table->dtype, entry, (size_t)count);
    for (int64_t k = 0, at = 0; size > 1 && k < count; k++, run = size) {
      if (run > left - at) run = left - at;
      for (int64_t i = 0; i < run; i++) to[done + (size_t)(at + i)] = values[k];
      at += run;
    }
    done += (size_t)left;
    cml_blocks_step(b, &p, left);
  }
}

/* Keeps what the mask's bits from `at` on select. */
static size_t compact(float *values, const uint8_t *mask, int64_t at, size_t n) {
  size_t kept = 0;
  for (size_t i = 0; i < n; i++) {
    values[kept] = values[i];
    kept += mask[(uint64_t)(at + (int64_t)i) / 8] >> ((at + (int64_t)i) % 8) & 1;
  }
  return kept;
}

static void apply_scale(float *x, const float *scale, const float *offset, size_t n) {
  for (size_t i = 0; i < n; i++) x[i] = scale[i] * (x[i] - offset[i]);
}

/* To codes of 8 bits, stored at `at`; NaN becomes 0. */
static void apply_quantize(const scale_job *j, float *x, const float *scale, const float *offset, int64_t at, size_t n) {
  const cml_kernels *k = cml_kernels_get();
  int8_t *to = (int8_t *)j->out->data + at;
  uint8_t *to_unsigned = (uint8_t *)to;
  float low = j->low, high = j->high;
  k->binary(CML_BINARY_DIV, x, scale, x, n);
  k->unary(CML_UNARY_ROUND, x, x, n, 0, 0);
  for (size_t i = 0; i < n; i++) {
    float v = x[i] + offset[i];
    v = v == v ? v : 0;
    v = v > low ? v : low;
    x[i] = v < high ? v : high;
  }
  if (j->out->dtype == CML_U8)
    for (size_t i = 0; i < n; i++) to_unsigned[i] = (uint8_t)(int32_t)x[i];
  else
    for (size_t i = 0; i < n; i++) to[i] = (int8_t)(int32_t)x[i];
}

/* Chunk by chunk from `begin`; `from` is the place of its first element in sparse data. */
static void scale_range(const scale_job *j, int64_t begin, int64_t end, int64_t from) {
  float x[CML_CHUNK], scale[CML_CHUNK], offset[CML_CHUNK] = {0};
  for (int64_t at = begin; at < end; at += CML_CHUNK) {
    size_t n = end - at < CML_CHUNK ? (size_t)(end - at) : CML_CHUNK;
    cml_block_position p;
    cml_blocks_seek(&j->blocks, at, &p);
    spread(&j->blocks, p, j->scale, n, scale);
    if (j->offset) spread(&j->blocks, p, j->offset, n, offset);
    if (j->mask) {
      size_t kept = compact(scale, j->mask, at, n);
      if (j->offset) compact(offset, j->mask, at, n);
      n = kept;
    }
    cml_load_f32(x, j->data->data, j->data->dtype, from, n);
    if (j->quantize) {
      apply_quantize(j, x, scale, offset, from, n);
    } else {
      apply_scale(x, scale, offset, n);
      cml_store_f32(j->out->data, j->out->dtype, from, x, n);
    }
    from += (int64_t)n;
  }
}

static void scale_tasks(void *context, size_t begin, size_t end) {
  const scale_job *j = context;
  int64_t to = (int64_t)end * CML_CHUNK;
  scale_range(j, (int64_t)begin * CML_CHUNK, to < j->count ? to : j->count, (int64_t)begin * CML_CHUNK);
}

static void run_scale(scale_job *j, int32_t rank, const int64_t *dims, const int64_t *counts, cml_pool *pool) {
  cml_blocks_init(&j->blocks, rank, dims, counts);
  j->count = 1;
  for (int32_t k = 0; k < rank; k++) j->count *= dims[k];
  if (!j->count) return;
  if (j->mask) scale_range(j, 0, j->count, 0);
  else cml_parallel(pool, (size_t)((j->count + CML_CHUNK - 1) / CML_CHUNK), 32, scale_tasks, j);
}

/* Scales that are one value, or a vector along an axis. */
static void run_scale_along_axis(scale_job *j, int64_t axis, cml_pool *pool) {
  int64_t counts[CML_MAX_RANK];
  bool vector = j->scale->rank == 1 || (j->offset && j->offset->rank == 1);
  for (int32_t k = 0; k < j->data->rank; k++) counts[k] = 1;
  int32_t where = 0;
  if (vector && cml_axis(axis, j->data->rank, &where)) counts[where] = j->data->dims[where];
  run_scale(j, j->data->rank, j->data->dims, counts, pool);
}

/* ---- constexpr_affine_dequantize ---- */

static const cml_param affine_params[] = {
    {"quantized_data", CML_MASK(I8) | CML_MASK(U8), CML_CONST, 0},
    {"zero_point", CML_MASK(I8) | CML_MASK(U8) | CML_MASK(F32), CML_CONST, 0},
    {"scale", CML_M_FLOAT, CML_CONST, 0},
    {"axis", CML_MASK(I32), CML_CONST, 0},
};

/* A scalar, or a vector as long as the axis. */
static cml_status check_along_axis(const cml_call *c, unsigned param, const cml_tensor *data, int32_t axis, cml_error *err) {
  const cml_tensor *t = cml_arg(c, param);
  const char *name = c->op->params[param].name;
  if (!t || t->rank < 0) return CML_OK;
  if (t->rank > 1) return cml_call_fail(c, err, "%s must be a scalar or a vector, found rank %d", name, (int)t->rank);
  if (t->rank == 1 && axis >= 0 && t->dims[0] >= 0 && data->dims[axis] >= 0 && t->dims[0] != data->dims[axis])
    return cml_call_fail(c, err, "%s has %lld values for %lld along axis %d", name, (long long)t->dims[0], (long long)data->dims[axis], (int)axis);
  return CML_OK;
}

static cml_status infer_affine(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0);
  int32_t axis;
  CML_TRY(cml_check_axis(c, 3, 0, data->rank, &axis, err));
  CML_TRY(check_along_axis(c, 1, data, axis, err));
  CML_TRY(check_along_axis(c, 2, data, axis, err));
  cml_out_like(c, 0, data);
  c->outs[0]->dtype = cml_arg(c, 2)->dtype;
  return CML_OK;
}

/* A scalar beside a vector: a table of its own, all of one value, would be needed; spreading by hand is simpler. */
static const cml_tensor *as_vector(const cml_tensor *t, const cml_tensor *other, cml_tensor *room, float *values, int64_t n) {
  if (!t || !other || t->rank == 1 || other->rank != 1) return t;
  *room = (cml_tensor){.dtype = CML_F32, .rank = 1, .dims = {n}, .data = values};
  for (int64_t i = 0; i < n; i++) values[i] = (float)cml_tensor_get(t, 0);
  return room;
}

/* Room for that table, where a scalar and a vector meet. */
static uint64_t vector_scratch(const cml_tensor *a, const cml_tensor *b) {
  if (!a || !b || a->rank == b->rank) return 0;
  const cml_tensor *v = a->rank == 1 ? a : b;
  return v->rank == 1 && v->dims[0] > 0 ? (uint64_t)v->dims[0] * sizeof(float) : 0;
}

static cml_status infer_affine_with_scratch(cml_call *c, cml_error *err) {
  CML_TRY(infer_affine(c, err));
  c->scratch_size = vector_scratch(cml_arg(c, 1), cml_arg(c, 2));
  return CML_OK;
}

static cml_status run_affine(cml_call *c, cml_error *err) {
  (void)err;
  cml_tensor room;
  const cml_tensor *data = cml_arg(c, 0), *zero = cml_arg(c, 1), *scale = cml_arg(c, 2);
  int64_t n = zero->rank == 1 ? zero->dims[0] : scale->rank == 1 ? scale->dims[0] : 1;
  scale_job j = {.data = data, .out = c->outs[0]};
  j.offset = as_vector(zero, scale, &room, c->scratch, n);
  j.scale = as_vector(scale, zero, &room, c->scratch, n);
  run_scale_along_axis(&j, cml_arg_int(c, 3, 0), c->pool);
  return CML_OK;
}

/* ---- quantize, dequantize ---- */

static const cml_param quantize_params[] = {
    {"input", CML_M_FLOAT, 0, 1},
    {"zero_point", CML_MASK(I8) | CML_MASK(U8), CML_OPTIONAL | CML_CONST, 0},
    {"scale", CML_M_FLOAT, CML_CONST, 1},
    {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},
    {"output_dtype", CML_M_STRING, CML_CONST, 0},
};
static const cml_param dequantize_params[] = {
    {"input", CML_MASK(I8) | CML_MASK(U8), 0, 1},
    {"zero_point", CML_MASK(I8) | CML_MASK(U8), CML_OPTIONAL | CML_CONST, 1},
    {"scale", CML_M_FLOAT, CML_CONST, 0},
    {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},
};

static cml_status check_quantization(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *zero = cml_arg(c, 1), *scale = cml_arg(c, 2);
  int32_t axis = -1;
  if (scale->rank == 1 && !cml_arg(c, 3)) return cml_call_fail(c, err, "scale is a vector, so that axis must be given");
  if (scale->rank == 0 && cml_arg(c, 3)) return cml_call_fail(c, err, "scale is a scalar, so that axis must not be given");
  if (zero && zero->rank >= 0 && scale->rank >= 0 && zero->rank != scale->rank)
    return cml_call_fail(c, err, "zero_point has rank %d, and scale %d", (int)zero->rank, (int)scale->rank);
  if (cml_arg(c, 3)) CML_TRY(cml_check_axis(c, 3, 0, x->rank, &axis, err));
  CML_TRY(check_along_axis(c, 1, x, axis, err));
  CML_TRY(check_along_axis(c, 2, x, axis, err));
  cml_out_like(c, 0, x);
  return CML_OK;
}

static const char *const quantized_types[] = {"int8", "uint8", NULL};

static cml_status infer_quantize(cml_call *c, cml_error *err) {
  const cml_tensor *zero = cml_arg(c, 1), *scale = cml_arg(c, 2);
  CML_TRY(cml_check_scalars(c, 16, err));
  CML_TRY(check_quantization(c, err));
  int type = cml_word_index(cml_arg_text(c, 4, ""), quantized_types);
  if (type < 0) return cml_call_fail(c, err, "output_dtype '%s' is neither int8 nor uint8", cml_arg_text(c, 4, ""));
  c->outs[0]->dtype = type ? CML_U8 : CML_I8;
  if (zero && zero->dtype != c->outs[0]->dtype) return cml_call_fail(c, err, "zero_point and output_dtype differ in type");
  bool zeros = scale->data && cml_tensor_count(scale) > 0;
  for (int64_t i = 0, n = scale->data ? cml_tensor_count(scale) : 0; i < n && zeros; i++) zeros = cml_tensor_get(scale, i) == 0;
  return zeros ? cml_call_fail(c, err, "scale is zero") : CML_OK;
}

static cml_status infer_dequantize(cml_call *c, cml_error *err) {
  CML_TRY(check_quantization(c, err));
  c->outs[0]->dtype = cml_arg(c, 2)->dtype;
  return CML_OK;
}

static cml_status run_quantization(cml_call *c, cml_error *err) {
  (void)err;
  scale_job j = {.data = cml_arg(c, 0), .scale = cml_arg(c, 2), .offset = cml_arg(c, 1), .out = c->outs[0],
                 .quantize = c->op->param_count == 5};
  j.low = c->outs[0]->dtype == CML_U8 ? 0 : -128;
  j.high = c->outs[0]->dtype == CML_U8 ? 255 : 127;
  run_scale_along_axis(&j, cml_arg_int(c, 3, 0), c->pool);
  return CML_OK;
}

/* ---- constexpr_blockwise_shift_scale, and its sparse form ---- */

#define SHIFTED (CML_MASK(I4) | CML_MASK(U4) | CML_MASK(I8) | CML_MASK(U8) | CML_M_FLOAT)
static const cml_param blockwise_params[] = {
    {"data", SHIFTED, 0, 0}, {"scale", CML_M_FLOAT, 0, 0}, {"offset", SHIFTED, CML_OPTIONAL, 0}};
static const cml_param sparse_blockwise_params[] = {
    {"data_mask", CML_MASK(U1), 0, 0}, {"nonzero_data", SHIFTED, 0, 0}, {"scale", CML_M_FLOAT, 0, 0}, {"offset", SHIFTED, CML_OPTIONAL, 0}};

/* shape: whose dims the blocks divide. */
static cml_status check_shift_scale(const cml_call *c, const cml_tensor *shape, cml_dtype data, unsigned scale_param, cml_error *err) {
  const cml_tensor *scale = cml_arg(c, scale_param), *offset = cml_arg(c, scale_param + 1);
  if (shape->rank == 0) return cml_call_fail(c, err, "the data must have rank 1 or more");
  if (shape->rank >= 0 && scale->rank >= 0) {
    if (shape->rank != scale->rank) return cml_call_fail(c, err, "scale has rank %d, and the data %d", (int)scale->rank, (int)shape->rank);
    CML_TRY(check_blocks(c, "scale", shape, scale, shape->rank, err));
  }
  if (!offset) return CML_OK;
  if (offset->rank >= 0 && scale->rank >= 0 && cml_tensor_known_shape(offset) && cml_tensor_known_shape(scale) && !cml_tensor_same_shape(offset, scale))
    return cml_call_fail(c, err, "offset and scale differ in shape");
  if (!cml_dtype_is_float(offset->dtype) && offset->dtype != data)
    return cml_call_fail(c, err, "offset is %s, and the data %s", cml_dtype_name(offset->dtype), cml_dtype_name(data));
  return CML_OK;
}

static cml_status infer_blockwise(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0);
  CML_TRY(check_shift_scale(c, data, data->dtype, 1, err));
  cml_out_like(c, 0, data);
  c->outs[0]->dtype = cml_arg(c, 1)->dtype;
  return CML_OK;
}

static cml_status run_blockwise(cml_call *c, cml_error *err) {
  (void)err;
  scale_job j = {.data = cml_arg(c, 0), .scale = cml_arg(c, 1), .offset = cml_arg(c, 2), .out = c->outs[0]};
  run_scale(&j, j.data->rank, j.data->dims, j.scale->dims, c->pool);
  return CML_OK;
}

static cml_status check_mask(const cml_call *c, const cml_tensor *mask, const cml_tensor *data, cml_error *err) {
  uint64_t n = count_bits(mask->data, (uint64_t)cml_tensor_count(mask));
  if (n != (uint64_t)data->dims[0])
    return cml_call_fail(c, err, "the mask has %llu bits set for %lld values", (unsigned long long)n, (long long)data->dims[0]);
  return CML_OK;
}

static cml_status infer_sparse_blockwise(cml_call *c, cml_error *err) {
  const cml_tensor *mask = cml_arg(c, 0), *data = cml_arg(c, 1);
  CML_TRY(check_vector(c, 1, err));
  CML_TRY(check_shift_scale(c, mask, data->dtype, 2, err));
  cml_out_like(c, 0, mask);
  cml_out_like(c, 1, data);
  c->outs[1]->dtype = cml_arg(c, 2)->dtype;
  return CML_OK;
}

static cml_status run_sparse_blockwise(cml_call *c, cml_error *err) {
  const cml_tensor *mask = cml_arg(c, 0), *data = cml_arg(c, 1);
  CML_TRY(check_mask(c, mask, data, err));
  scale_job j = {.data = data, .mask = mask->data, .scale = cml_arg(c, 2), .offset = cml_arg(c, 3), .out = c->outs[1]};
  run_scale(&j, mask->rank, mask->dims, j.scale->dims, c->pool);
  return cml_out_copy(c, 0, mask, err);
}

/* ---- palettes ---- */

#define ENTRIES (CML_MASK(I8) | CML_MASK(U8) | CML_M_FLOAT)
#define INDICES (CML_MASK(U1) | CML_MASK(U2) | CML_MASK(U3) | CML_MASK(U4) | CML_MASK(U6) | CML_MASK(U8))

static const cml_param lut_params_16[] = {
    {"indices", CML_MASK(U8), CML_CONST, 0}, {"lut", ENTRIES, CML_CONST, 0}, {"shape", CML_MASK(U32), CML_CONST | CML_VECTOR, 0}};
static const cml_param lut_params_18[] = {
    {"indices", INDICES, 0, 0}, {"lut", ENTRIES, 0, 0}, {"vector_axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}};
static const cml_param lut_sparse_params[] = {
    {"indices_mask", CML_MASK(U1), 0, 0}, {"indices_nonzero_data", INDICES, 0, 0}, {"lut", ENTRIES, 0, 0},
    {"vector_axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}};

static unsigned palette_bits(int64_t entries) {
  unsigned bits = 0;
  while (bits < 9 && INT64_C(1) << bits < entries) bits++;
  return bits <= 8 && INT64_C(1) << bits == entries ? bits : 0;
}

static cml_status infer_lut_16(cml_call *c, cml_error *err) {
  const cml_tensor *indices = cml_arg(c, 0), *lut = cml_arg(c, 1);
  uint64_t count;
  CML_TRY(check_vector(c, 0, err));
  CML_TRY(check_vector(c, 1, err));
  CML_TRY(shape_from(c, 2, lut->dtype, &count, err));
  unsigned bits = palette_bits(lut->dims[0]);
  if (!bits || bits == 3 || bits == 5 || bits == 7)
    return cml_call_fail(c, err, "lut has %lld entries; 2, 4, 16, 64 and 256 are possible", (long long)lut->dims[0]);
  if ((uint64_t)indices->dims[0] != (count * bits + 7) / 8)
    return cml_call_fail(c, err, "indices has %lld bytes, expected %llu", (long long)indices->dims[0], (unsigned long long)((count * bits + 7) / 8));
  return CML_OK;
}

/* shape: the indices' (or the mask's). Sets output `out`. */
static cml_status infer_lut(cml_call *c, const cml_tensor *shape, cml_dtype indices, unsigned lut_param, size_t out, cml_dtype dtype, cml_error *err) {
  const cml_tensor *lut = cml_arg(c, lut_param);
  CML_TRY(cml_check_scalars(c, 1u << (lut_param + 1), err));
  if (shape->rank == 0) return cml_call_fail(c, err, "the indices must have rank 1 or more");
  cml_out_like(c, out, shape);
  c->outs[out]->dtype = dtype;
  if (shape->rank < 0) return CML_OK;
  if (lut->rank < 0) return cml_out_unknown(c, out, dtype, shape->rank), CML_OK;
  if (lut->rank != shape->rank + 2) return cml_call_fail(c, err, "lut has rank %d, expected %d", (int)lut->rank, (int)shape->rank + 2);
  CML_TRY(check_blocks(c, "lut", shape, lut, shape->rank, err));
  int64_t entries = lut->dims[lut->rank - 2], vector = lut->dims[lut->rank - 1];
  if (entries >= 0 && palette_bits(entries) != cml_dtype_bits(indices))
    return cml_call_fail(c, err, "lut has %lld entries for indices of %s", (long long)entries, cml_dtype_name(indices));
  if (vector == 0) return cml_call_fail(c, err, "lut's vectors are empty");
  if (vector != 1 && vector >= 0 && !cml_arg(c, lut_param + 1)) return cml_call_fail(c, err, "lut holds vectors, so that vector_axis must be given");
  if (!cml_arg(c, lut_param + 1)) return CML_OK;
  int32_t axis;
  CML_TRY(cml_check_axis(c, lut_param + 1, 0, shape->rank, &axis, err));
  int64_t dim = shape->dims[axis];
  if (dim > 0 && vector > (INT64_C(1) << 48) / dim) return cml_call_fail(c, err, "the output is too large");
  c->outs[out]->dims[axis] = cml_dim_mul(dim, vector);
  return cml_check_output(c, out, err);
}

static cml_status infer_lut_18(cml_call *c, cml_error *err) {
  return infer_lut(c, cml_arg(c, 0), cml_arg(c, 0)->dtype, 1, 0, cml_arg(c, 1)->dtype, err);
}

static cml_status infer_lut_sparse(cml_call *c, cml_error *err) {
  const cml_tensor *mask = cml_arg(c, 0), *data = cml_arg(c, 1), *lut = cml_arg(c, 2);
  CML_TRY(check_vector(c, 1, err));
  CML_TRY(infer_lut(c, mask, data->dtype, 2, 0, CML_U1, err));
  int64_t vector = lut->rank > 0 ? lut->dims[lut->rank - 1] : -1, count = data->rank == 1 ? cml_dim_mul(data->dims[0], vector) : -1;
  cml_out_set(c, 1, lut->dtype, 1, &count);
  return cml_check_output(c, 1, err);
}

/* Entries by index, for each size of an entry; `stride` entries lie between neighbouring palette entries. */
static void look_up(void *out, int64_t at, const void *lut, int64_t base, int64_t stride, unsigned bits, const uint8_t *indices, size_t n) {
#define LOOK_UP(type)                                                                                   \
  {                                                                                                     \
    type *o = (type *)out + at;                                                                         \
    const type *table = (const type *)lut + base;                                                       \
    if (stride == 1) for (size_t i = 0; i < n; i++) o[i] = table[indices[i]];                           \
    else for (size_t i = 0; i < n; i++) o[i] = table[indices[i] * stride];                              \
  }
  if (bits == 8) LOOK_UP(uint8_t)
  else if (bits == 16) LOOK_UP(uint16_t)
  else LOOK_UP(uint32_t)
}

typedef struct lut_job {
  const cml_tensor *lut;
  cml_tensor *out;
  const void *indices;
  unsigned bits;
  int64_t count, vector, inner; /* inner: elements behind the vector axis */
  cml_blocks blocks;
  const uint8_t *mask;          /* sparse: indices holds only those of set bits */
} lut_job;

/* Indices [at, at + n), which share a palette and where there are vectors lie in one row behind the axis. */
static void look_up_run(const lut_job *j, int64_t at, const uint8_t *indices, size_t n, int64_t entry) {
  unsigned bits = cml_dtype_bits(j->lut->dtype);
  int64_t base = entry << j->bits;
  if (j->vector == 1) {
    look_up(j->out->data, at, j->lut->data, base, 1, bits, indices, n);
  } else if (j->inner == 1) {
    size_t size = (size_t)j->vector * bits / 8;
    const char *table = (const char *)j->lut->data + (size_t)base * size;
    for (size_t i = 0; i < n; i++) memcpy((char *)j->out->data + ((size_t)at + i) * size, table + indices[i] * size, size);
  } else {
    int64_t row = at / j->inner * j->vector * j->inner + at % j->inner;
    for (int64_t v = 0; v < j->vector; v++)
      look_up(j->out->data, row + v * j->inner, j->lut->data, base * j->vector + v, j->vector, bits, indices, n);
  }
}

static void lut_tasks(void *context, size_t begin, size_t end) {
  const lut_job *j = context;
  uint8_t indices[CML_CHUNK];
  cml_block_position p;
  cml_blocks_seek(&j->blocks, (int64_t)begin * CML_CHUNK, &p);
  for (size_t task = begin; task < end; task++) {
    int64_t at = (int64_t)task * CML_CHUNK;
    size_t n = j->count - at < CML_CHUNK ? (size_t)(j->count - at) : CML_CHUNK;
    cml_unpack(indices, j->indices, j->bits, at, n);
    for (size_t done = 0; done < n;) {
      int64_t run, entry = cml_blocks_entry(&j->blocks, &p, &run), here = at + (int64_t)done;
      if ((uint64_t)run > n - done) run = (int64_t)(n - done);
      if (j->vector > 1 && j->inner > 1 && run > j->inner - here % j->inner) run = j->inner - here % j->inner;
      look_up_run(j, here, indices + done, (size_t)run, entry);
      cml_blocks_step(&j->blocks, &p, run);
      done += (size_t)run;
    }
  }
}

static cml_status run_lut_16(cml_call *c, cml_error *err) {
  (void)err;
  static const int64_t one = 1;
  const cml_tensor *lut = cml_arg(c, 1);
  lut_job j = {.lut = lut, .out = c->outs[0], .indices = cml_arg(c, 0)->data, .bits = palette_bits(lut->dims[0]),
               .count = cml_tensor_count(c->outs[0]), .vector = 1, .inner = 1};
  cml_blocks_init(&j.blocks, 1, &j.count, &one);
  cml_parallel(c->pool, (size_t)((j.count + CML_CHUNK - 1) / CML_CHUNK), 32, lut_tasks, &j);
  return CML_OK;
}

/* shape: the indices' (or the mask's). */
static void lut_plan(lut_job *j, const cml_call *c, const cml_tensor *shape, unsigned axis_param) {
  int32_t axis = shape->rank - 1;
  if (cml_arg(c, axis_param)) (void)cml_axis(cml_arg_int(c, axis_param, 0), shape->rank, &axis);
  j->count = cml_tensor_count(shape);
  j->vector = j->lut->dims[j->lut->rank - 1];
  j->inner = 1;
  for (int32_t k = axis + 1; k < shape->rank; k++) j->inner *= shape->dims[k];
  cml_blocks_init(&j->blocks, shape->rank, shape->dims, j->lut->dims);
}

static cml_status run_lut_18(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *indices = cml_arg(c, 0);
  lut_job j = {.lut = cml_arg(c, 1), .out = c->outs[0], .indices = indices->data, .bits = cml_dtype_bits(indices->dtype)};
  lut_plan(&j, c, indices, 2);
  if (!j.count) return CML_OK;
  cml_parallel(c->pool, (size_t)((j.count + CML_CHUNK - 1) / CML_CHUNK), 32, lut_tasks, &j);
  return CML_OK;
}

static bool mask_bit(const uint8_t *mask, int64_t i) { return mask[i / 8] >> (i % 8) & 1; }

/* Row by row behind the vector axis: a row's set bits come out once for each element of the vector. */
static void lut_sparse_rows(const lut_job *j, cml_tensor *mask_out) {
  unsigned bits = cml_dtype_bits(j->lut->dtype);
  uint8_t *to = mask_out->data;
  memset(to, 0, (size_t)((cml_tensor_count(mask_out) + 7) / 8));
  cml_block_position p;
  cml_blocks_seek(&j->blocks, 0, &p);
  int64_t from = 0;
  for (int64_t row = 0; row < j->count; row += j->inner) {
    int64_t kept = (int64_t)0;
    for (int64_t i = 0; i < j->inner; i++) kept += mask_bit(j->mask, row + i);
    int64_t rank = 0;
    for (int64_t i = 0; i < j->inner; i++) {
      int64_t run, entry = cml_blocks_entry(&j->blocks, &p, &run);
      cml_blocks_step(&j->blocks, &p, 1);
      if (!mask_bit(j->mask, row + i)) continue;
      uint8_t index;
      cml_unpack(&index, j->indices, j->bits, from + rank, 1);
      for (int64_t v = 0; v < j->vector; v++) {
        look_up(j->out->data, from * j->vector + v * kept + rank, j->lut->data, (entry << j->bits) * j->vector + v, j->vector, bits, &index, 1);
        int64_t bit = (row * j->vector) + v * j->inner + i;
        to[bit / 8] = (uint8_t)(to[bit / 8] | 1u << (bit % 8));
      }
      rank++;
    }
    from += kept;
  }
}

static cml_status run_lut_sparse(cml_call *c, cml_error *err) {
  const cml_tensor *mask = cml_arg(c, 0), *data = cml_arg(c, 1);
  CML_TRY(check_mask(c, mask, data, err));
  lut_job j = {.lut = cml_arg(c, 2), .out = c->outs[1], .indices = data->data, .bits = cml_dtype_bits(data->dtype), .mask = mask->data};
  lut_plan(&j, c, mask, 3);
  if (j.count) lut_sparse_rows(&j, c->outs[0]);
  return CML_OK;
}

/* ---- sparse to dense ---- */

static const cml_param sparse_params_16[] = {
    {"nonzero_data", ENTRIES, CML_CONST, 0}, {"mask", CML_MASK(U8), CML_CONST, 0}, {"shape", CML_MASK(U32), CML_CONST | CML_VECTOR, 0}};
static const cml_param sparse_params_18[] = {{"nonzero_data", ENTRIES | CML_MASK(I4) | CML_MASK(U4), 0, 0}, {"mask", CML_MASK(U1), 0, 0}};

static cml_status infer_sparse_16(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0), *mask = cml_arg(c, 1);
  uint64_t count;
  CML_TRY(check_vector(c, 0, err));
  CML_TRY(check_vector(c, 1, err));
  CML_TRY(shape_from(c, 2, data->dtype, &count, err));
  if ((uint64_t)mask->dims[0] != (count + 7) / 8)
    return cml_call_fail(c, err, "mask has %lld bytes, expected %llu", (long long)mask->dims[0], (unsigned long long)((count + 7) / 8));
  if (mask->data && count % 8 && ((const uint8_t *)mask->data)[count / 8] >> (count % 8))
    return cml_call_fail(c, err, "the mask's bits behind the last element are not zero");
  return CML_OK;
}

static cml_status infer_sparse_18(cml_call *c, cml_error *err) {
  CML_TRY(check_vector(c, 0, err));
  CML_TRY(check_dense(c, 1, err));
  cml_out_like(c, 0, cml_arg(c, 1));
  c->outs[0]->dtype = cml_arg(c, 0)->dtype;
  return CML_OK;
}

/* Eight elements a byte of the mask; a set bit takes the next value. */
#define SCATTER(type)                                                       \
  {                                                                         \
    const type *from = data->data;                                          \
    type *to = out->data;                                                   \
    for (; i + 8 <= n; i += 8) {                                            \
      unsigned byte = mask[i / 8];                                          \
      if (!byte) { memset(to + i, 0, 8 * sizeof *to); continue; }           \
      for (unsigned k = 0; k < 8; k++) to[i + k] = byte >> k & 1 ? *from++ : (type)0; \
    }                                                                       \
    for (; i < n; i++) to[i] = mask_bit(mask, i) ? *from++ : (type)0;       \
  }

static cml_status run_sparse(cml_call *c, cml_error *err) {
  const cml_tensor *data = cml_arg(c, 0);
  cml_tensor *out = c->outs[0];
  const uint8_t *mask = cml_arg(c, 1)->data;
  int64_t n = cml_tensor_count(out), i = 0;
  const cml_tensor bits = {.dtype = CML_U1, .rank = 1, .dims = {n}, .data = (void *)(uintptr_t)mask};
  CML_TRY(check_mask(c, &bits, data, err));
  switch (cml_dtype_bits(out->dtype)) {
    case 8: SCATTER(uint8_t) break;
    case 16: SCATTER(uint16_t) break;
    case 32: SCATTER(uint32_t) break;
    default:
      memset(out->data, 0, (size_t)((n * cml_dtype_bits(out->dtype) + 7) / 8));
      for (int64_t k = 0; i < n; i++)
        if (mask_bit(mask, i)) cml_tensor_set_int(out, i, cml_tensor_get_int(data, k++));
  }
  return CML_OK;
}

/* ---- constexpr_cast ---- */

static const cml_param cast_params[] = {{"source_val", CML_MASK(F16), CML_CONST, 0}, {"output_dtype", CML_M_STRING, CML_CONST, 0}};

static cml_status infer_cast(cml_call *c, cml_error *err) {
  CML_TRY(cml_check_scalars(c, 2, err));
  if (strcmp(cml_arg_text(c, 1, ""), "fp32")) return cml_call_fail(c, err, "output_dtype '%s' is not fp32", cml_arg_text(c, 1, ""));
  cml_out_like(c, 0, cml_arg(c, 0));
  c->outs[0]->dtype = CML_F32;
  return CML_OK;
}

static cml_status run_cast(cml_call *c, cml_error *err) {
  (void)err;
  const cml_elementwise e = {.arity = 1, .in = {cml_arg(c, 0)}, .lanes = {CML_LANE_F32}, .out_lane = CML_LANE_F32, .out = c->outs[0]};
  cml_elementwise_run(&e, c->pool);
  return CML_OK;
}

/* ---- the table ---- */

#define ROW(text, since_, until_, flags_, outputs, parameters, infer_, run_)                                          \
  {.name = text, .since = since_, .until = until_, .flags = flags_, .min_outputs = outputs, .max_outputs = outputs,   \
   CML_PARAMS(parameters), .infer = infer_, .run = run_},
#define CONSTANT CML_OP_CONSTEXPR

static const cml_op rows[] = {
    ROW("constexpr_affine_dequantize", CML_IOS16, 0, CONSTANT, 1, affine_params, infer_affine_with_scratch, run_affine)
    ROW("constexpr_blockwise_shift_scale", CML_IOS18, 0, CONSTANT, 1, blockwise_params, infer_blockwise, run_blockwise)
    ROW("constexpr_cast", CML_IOS16, 0, CONSTANT, 1, cast_params, infer_cast, run_cast)
    ROW("constexpr_lut_to_dense", CML_IOS16, CML_IOS17, CONSTANT, 1, lut_params_16, infer_lut_16, run_lut_16)
    ROW("constexpr_lut_to_dense", CML_IOS18, 0, CONSTANT, 1, lut_params_18, infer_lut_18, run_lut_18)
    ROW("constexpr_lut_to_sparse", CML_IOS18, 0, CONSTANT, 2, lut_sparse_params, infer_lut_sparse, run_lut_sparse)
    ROW("constexpr_sparse_blockwise_shift_scale", CML_IOS18, 0, CONSTANT, 2, sparse_blockwise_params, infer_sparse_blockwise, run_sparse_blockwise)
    ROW("constexpr_sparse_to_dense", CML_IOS16, CML_IOS17, CONSTANT, 1, sparse_params_16, infer_sparse_16, run_sparse)
    ROW("constexpr_sparse_to_dense", CML_IOS18, 0, CONSTANT, 1, sparse_params_18, infer_sparse_18, run_sparse)
    ROW("dequantize", CML_IOS17, 0, 0, 1, dequantize_params, infer_dequantize, run_quantization)
    ROW("quantize", CML_IOS17, 0, 0, 1, quantize_params, infer_quantize, run_quantization)
};

const cml_op_family cml_ops_constexpr = {"constexpr", rows, sizeof rows / sizeof *rows};
