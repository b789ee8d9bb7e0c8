/* Three forms are one to the kernels: codes in rows, and either a table for each few rows or scales (and offsets) for each
 * few rows and block of a row. Codes and, where they are alone, scales are used where the file is mapped. */
#include "compressed.h"

#include <math.h>

#include "pack_cache.h"

static bool finite_values(const cml_tensor *t) {
  for (int64_t i = 0, n = t ? cml_tensor_count(t) : 0; i < n; i++)
    if (!isfinite(cml_tensor_get(t, i))) return false;
  return true;
}

static bool is_plain(const cml_tensor *t) { return t->dtype == CML_F16 || t->dtype == CML_F32; }

static void set_codes(cml_compressed *w, const cml_tensor *data, unsigned bits) {
  w->codes = data->data;
  w->row_bytes = w->depth * bits / 8;
  w->bits = bits;
  w->is_signed = data->dtype == CML_I4 || data->dtype == CML_I8;
}

/* Scalars, or vectors along the rows. */
static bool read_affine(const cml_call *c, cml_compressed *w) {
  const cml_tensor *data = cml_arg(c, 0), *zero = cml_arg(c, 1), *scale = cml_arg(c, 2);
  int64_t axis = cml_arg_int(c, 3, 0);
  bool vector = zero->rank == 1 || scale->rank == 1;
  set_codes(w, data, 8);
  w->scale_rows = vector ? 1 : w->columns;
  w->blocks = 1;
  w->block = w->depth;
  return is_plain(scale) && (!vector || axis == 0 || axis == -2);
}

static bool read_blockwise(const cml_call *c, cml_compressed *w) {
  const cml_tensor *data = cml_arg(c, 0), *scale = cml_arg(c, 1);
  if (data->dtype != CML_I4 && data->dtype != CML_U4 && data->dtype != CML_I8 && data->dtype != CML_U8) return false;
  if (!is_plain(scale) || scale->rank != 2 || scale->dims[0] <= 0 || scale->dims[1] <= 0) return false;
  set_codes(w, data, cml_dtype_bits(data->dtype));
  w->scale_rows = w->columns / (size_t)scale->dims[0];
  w->blocks = (size_t)scale->dims[1];
  w->block = w->depth / w->blocks;
  return true;
}

static unsigned bits_of(int64_t entries) {
  for (unsigned bits = 1; bits <= 8; bits++)
    if (INT64_C(1) << bits == entries) return bits == 5 || bits == 7 ? 0 : bits;
  return 0;
}

static bool read_palette(const cml_call *c, cml_compressed *w) {
  const cml_tensor *indices = cml_arg(c, 0), *lut = cml_arg(c, 1);
  bool flat = lut->rank == 1; /* up to iOS 17 */
  if (!is_plain(lut) || (!flat && (lut->rank != 4 || lut->dims[1] != 1 || lut->dims[3] != 1 || lut->dims[0] <= 0))) return false;
  set_codes(w, indices, bits_of(lut->dims[flat ? 0 : 2]));
  w->table_size = w->bits <= 4 ? 16 : (size_t)1 << w->bits;
  w->table_rows = flat ? w->columns : w->columns / (size_t)lut->dims[0];
  return w->bits > 0;
}

static bool is(const cml_call *c, const char *name) { return !strcmp(c->op->name, name); }

static bool read_source(const cml_call *c, cml_compressed *w) {
  const cml_tensor *out = c->outs[0];
  if (out->rank != 2 || out->dims[0] <= 0 || out->dims[1] <= 0 || !is_plain(out)) return false;
  *w = (cml_compressed){.columns = (size_t)out->dims[0], .depth = (size_t)out->dims[1]};
  w->scale_rows = w->table_rows = w->columns;
  if (is(c, "constexpr_affine_dequantize")) return read_affine(c, w);
  if (is(c, "constexpr_blockwise_shift_scale")) return read_blockwise(c, w);
  return is(c, "constexpr_lut_to_dense") && read_palette(c, w);
}

bool cml_compressed_possible(const cml_kernels *k, const cml_call *c) {
  cml_compressed w;
  if (!read_source(c, &w)) return false;
  if (!w.table_size) w.scale = &w; /* there is one */
  if (!k->compressed_fits(&w)) return false;
  for (unsigned i = 1; i < c->op->param_count && i < 3; i++)
    if (cml_arg(c, i) && cml_arg(c, i)->dtype != CML_STRING && !finite_values(cml_arg(c, i))) return false;
  return true;
}

/* Vectors that expanding codes anew for each of pays for. Up to 2 bits, sums of products are looked up. A float16 program's floats are half as many bytes, and
 * from 5 vectors on sooner multiplied where matrix units are, from 3 on with narrow registers, from 2 on where look-ups there are in more than 16 entries. */
static int64_t most_vectors(const cml_kernels *k, const cml_compressed *w, bool half) {
  enum { MOST = 8 };
  if (w->table_size > 64) return 1;
  if (!half || (w->bits <= 2 && w->table_rows == w->columns)) return MOST;
  if (k->width < 16) return w->table_size > 16 ? 1 : 2;
  return k->tile_parts ? 4 : MOST;
}

/* Several vectors gain where the matrix is so large that memory bounds its floats: expanding codes for each vector anew takes longer than reading floats
 * from a cache, and looking them up in 256 entries longer than from memory. */
bool cml_compressed_pays(const cml_kernels *k, const cml_call *c, int64_t vectors) {
  enum { ALONE = 1 << 15, EACH = 1 << 17 }; /* elements, for one vector and for each of several */
  cml_compressed w;
  if (vectors < 1 || !read_source(c, &w) || vectors > most_vectors(k, &w, c->outs[0]->dtype == CML_F16)) return false;
  size_t elements = w.columns * w.depth;
  return elements >= (vectors == 1 ? ALONE : (size_t)vectors * EACH);
}

static void *keep_numbers(cml_call *keeper, const cml_tensor *t, size_t count, bool half, cml_error *err) {
  void *to = cml_call_keep(keeper, count * (half ? sizeof(cml_f16) : sizeof(float)), err);
  size_t n = (size_t)cml_tensor_count(t);
  for (size_t i = 0; to && i < count; i++) {
    float v = (float)cml_tensor_get(t, (int64_t)(n == 1 ? 0 : i));
    if (half) ((cml_f16 *)to)[i] = cml_f16_from_f32(v);
    else ((float *)to)[i] = v;
  }
  return to;
}

static bool all_zero(const cml_tensor *t) {
  for (int64_t i = 0, n = cml_tensor_count(t); i < n; i++)
    if (cml_tensor_get(t, i) != 0) return false;
  return true;
}

static cml_status make_scales(const cml_call *c, cml_call *keeper, cml_compressed *w, cml_error *err) {
  bool affine = is(c, "constexpr_affine_dequantize");
  const cml_tensor *scale = cml_arg(c, affine ? 2 : 1), *offset = cml_arg(c, affine ? 1 : 2);
  size_t count = w->columns / w->scale_rows * w->blocks;
  if (offset && all_zero(offset)) offset = NULL;
  bool in_place = (size_t)cml_tensor_count(scale) == count && !offset;
  w->scale_half = scale->dtype == CML_F16 && (!offset || !is_plain(offset)); /* whole numbers of 8 bits are halves, too */
  w->scale = in_place ? scale->data : keep_numbers(keeper, scale, count, w->scale_half, err);
  if (!w->scale) return keeper->keep_status;
  if (offset && !(w->offset = keep_numbers(keeper, offset, count, w->scale_half, err))) return keeper->keep_status;
  if (w->bits != 4) return CML_OK;
  float *table = cml_call_keep(keeper, 16 * sizeof *table, err); /* the codes' values, for kernels that look them up */
  if (!table) return keeper->keep_status;
  for (int i = 0; i < 16; i++) table[i] = (float)(w->is_signed && i > 7 ? i - 16 : i);
  w->table = table;
  w->table_size = 16;
  return CML_OK;
}

static cml_status make_tables(const cml_call *c, cml_call *keeper, cml_compressed *w, cml_error *err) {
  const cml_tensor *lut = cml_arg(c, 1);
  size_t tables = w->columns / w->table_rows, entries = (size_t)1 << w->bits;
  float *to = cml_call_keep(keeper, tables * w->table_size * sizeof *to, err);
  if (!to) return keeper->keep_status;
  for (size_t t = 0; t < tables; t++)
    for (size_t i = 0; i < w->table_size; i++) to[t * w->table_size + i] = (float)cml_tensor_get(lut, (int64_t)(t * entries + i % entries));
  w->table = to;
  return CML_OK;
}

typedef struct pack_context {
  const cml_kernels *k;
  const cml_compressed *w;
  void *to;
} pack_context;

static void pack_blocks(void *context, size_t begin, size_t end) {
  const pack_context *p = context;
  size_t last = end * CML_COMPRESSED_ROWS;
  p->k->compressed_pack(p->w, begin * CML_COMPRESSED_ROWS, last < p->w->columns ? last : p->w->columns, p->to);
}

/* Scales and several tables are packed beside the codes, and the same codes may have others; palettes of 8 bits decide how codes are numbered, those of 6, too,
 * what float16 programs add. */
static uint64_t mix(uint64_t hash, const void *data, size_t bytes) {
  const char *p = data;
  for (size_t i = 0; p && i < bytes; i += 8) {
    uint64_t word = 0;
    memcpy(&word, p + i, bytes - i < 8 ? bytes - i : 8);
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 29;
  }
  return hash;
}

/* For kernels that want the codes in another order. begin: where in the depth the matrix begins. */
static cml_status pack_codes(const cml_kernels *k, const cml_tensor *codes, size_t begin, cml_call *keeper, cml_compressed *w, cml_error *err) {
  enum { BLOCKS = 4 }; /* a thread packs at a time */
  size_t bytes = k->compressed_bytes(w);
  bool ready;
  if (!bytes) return CML_OK;
  size_t scales = w->scale ? w->columns / w->scale_rows * w->blocks * (w->scale_half ? 2 : 4) : 0;
  size_t tables = !w->scale && (w->bits >= 6 || w->table_rows < w->columns) ? w->columns / w->table_rows * w->table_size * sizeof *w->table : 0;
  uint64_t hash = mix(mix(mix(scales, w->scale, scales), w->offset, scales), w->table, tables) ^ (tables && w->vectors_half);
  int64_t layout[] = {w->bits, (int64_t)w->columns, (int64_t)begin, (int64_t)w->depth, (int64_t)w->block, w->scale_half, w->offset != NULL, (int64_t)hash};
  void *to = cml_call_keep_packed(keeper, bytes, codes, layout, sizeof layout / sizeof *layout, &ready, err);
  if (!to) return keeper->keep_status;
  if (!ready) cml_parallel(keeper->pool, (w->columns + CML_COMPRESSED_ROWS - 1) / CML_COMPRESSED_ROWS, BLOCKS, pack_blocks, &(pack_context){k, w, to});
  w->packed = to;
  return CML_OK;
}

cml_status cml_compressed_make(const cml_kernels *k, const cml_call *c, size_t vectors, bool half, cml_call *keeper, cml_compressed_parts *out, cml_error *err) {
  cml_compressed w;
  if (!read_source(c, &w)) return cml_call_fail(keeper, err, "the weights are not compressed in a way that can be multiplied");
  w.vectors = vectors;
  w.vectors_half = half;
  CML_TRY(w.table_size ? make_tables(c, keeper, &w, err) : make_scales(c, keeper, &w, err));
  const size_t depth = k->compressed_depth(&w), count = (w.depth + depth - 1) / depth;
  if (!(out->parts = cml_call_keep(keeper, count * sizeof w, err))) return keeper->keep_status;
  for (size_t at = 0; at < w.depth; at += depth) {
    cml_compressed *part = &out->parts[out->count++];
    *part = w;
    part->depth = w.depth - at < depth ? w.depth - at : depth;
    part->codes += at * w.bits / 8;
    CML_TRY(pack_codes(k, cml_arg(c, 0), at, keeper, part, err));
  }
  return CML_OK;
}
