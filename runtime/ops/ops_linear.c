/* Matrix products: linear, matmul, einsum.
 *
 * All three become runs of cml_gemm: a list of products of one shape, each with its own A, packed B and C. Constant weights are
 * packed once (prepare); float16 weights stay float16. A linear layer for one vector reads the weights where they lie, row by
 * row: packing would cost as much as the product. B matrices that are computed are packed into scratch memory, by all threads,
 * before the products begin. Integers take a plain loop. */
#include "compressed.h"
#include "families.h"
#include "gemm.h"
#include "pack_cache.h"

typedef struct packed_b {
  const void *b;
  const float *bias; /* or NULL */
  bool half;
  bool raw;          /* row-major weights as they are, for one row of A */
  const cml_kernels *kernels;
  cml_compressed_parts compressed; /* or none; then b is NULL */
} packed_b;

static size_t slots(const cml_call *c) { return cml_pool_threads(c->pool); }

/* Elements of a float tensor as float32. */
static void widen(const cml_kernels *k, const cml_tensor *t, float *to) {
  size_t n = (size_t)cml_tensor_count(t);
  if (t->dtype == CML_F16) k->f16_to_f32(t->data, to, n);
  else cml_convert(to, CML_F32, t->data, t->dtype, (int64_t)n);
}

static bool is_plain(cml_dtype t) { return t == CML_F16 || t == CML_F32; }

/* ---- linear ---- */

enum { X, WEIGHT, BIAS };

static const cml_param linear_params[] = {
    {"x", CML_M_FLOAT | CML_MASK(I32), 0, 1},
    {"weight", CML_M_FLOAT | CML_MASK(I32), CML_CONST, 1},
    {"bias", CML_M_FLOAT | CML_MASK(I32), CML_CONST | CML_OPTIONAL, 1},
};
static const cml_param linear_params_17[] = {
    {"x", CML_M_FLOAT | CML_MASK(I32), 0, 0},
    {"weight", CML_M_FLOAT | CML_MASK(I32), CML_CONST, 2},
    {"bias", CML_M_FLOAT | CML_MASK(I32), CML_CONST | CML_OPTIONAL, 2},
};

/* Made by passes: with what follows it. */
enum { L_RESIDUAL = 3, L_ACTIVATION, L_ALPHA, L_BETA };
static const cml_param fused_params[] = {
    {"x", CML_M_FLOAT, 0, 0},
    {"weight", CML_M_FLOAT, CML_CONST, 2},
    {"bias", CML_M_FLOAT, CML_CONST | CML_OPTIONAL, 2},
    {"residual", CML_M_FLOAT, CML_OPTIONAL, 0},
    {"activation", CML_MASK(I32), CML_CONST | CML_OPTIONAL, 0},
    {"alpha", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
    {"beta", CML_MASK(F32), CML_CONST | CML_OPTIONAL, 0},
};

static cml_epilogue read_epilogue(const cml_call *c, const float *bias, size_t columns) {
  cml_epilogue e = {.bias = bias, .activation = CML_UNARY_COPY};
  if (c->op->param_count <= L_RESIDUAL) return e;
  const cml_tensor *residual = cml_arg(c, L_RESIDUAL);
  if (residual) e.residual = residual->data, e.residual_stride = columns;
  e.activation = (cml_unary)cml_arg_int(c, L_ACTIVATION, CML_UNARY_COPY);
  e.a = (float)cml_arg_float(c, L_ALPHA, 0);
  e.b = (float)cml_arg_float(c, L_BETA, 0);
  return e;
}

static bool is_float_product(const cml_tensor *x, const cml_tensor *w) { return is_plain(x->dtype) && is_plain(w->dtype); }

static size_t compressed_rows(const cml_tensor *y) {
  int64_t columns = y->dims[y->rank - 1];
  return columns ? (size_t)(cml_tensor_count(y) / columns) : 0;
}

/* Scratch memory of `vectors` vectors times compressed weights, in bytes: vectors as floats; sums, by part, vector and column; for each thread, as many as
 * take few megabytes, which part's vectors it has arranged, counted from 1, and these, `room` floats apart. */
typedef struct compressed_rooms {
  size_t sums, held, arranged, size, room, threads;
} compressed_rooms;

static compressed_rooms compressed_scratch(const packed_b *p, size_t vectors, size_t threads) {
  enum { MOST = 4 << 20 }; /* floats of arranged vectors */
  const cml_compressed *w = p->compressed.parts;
  size_t depth = 0;
  compressed_rooms r = {.room = 0};
  for (size_t i = 0; i < p->compressed.count; i++) {
    const size_t room = cml_scratch_part(p->kernels->compressed_room(&w[i]) * 4) / 4;
    depth += w[i].depth, r.room = room > r.room ? room : r.room;
  }
  const size_t most = 1 + MOST / (vectors * r.room + 1);
  r.threads = threads < most ? threads : most;
  r.sums = cml_scratch_part(vectors * depth * 4);
  r.held = r.sums + cml_scratch_part(p->compressed.count * vectors * w->columns * 4);
  r.arranged = r.held + cml_scratch_part(r.threads * sizeof(size_t));
  r.size = r.arranged + r.threads * vectors * r.room * 4;
  return r;
}

static cml_status infer_linear(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  if (w->rank != 2) return cml_call_fail(c, err, "weight must have rank 2, not %d", w->rank);
  if (bias && (bias->rank != 1 || (bias->dims[0] != w->dims[0] && bias->dims[0] >= 0)))
    return cml_call_fail(c, err, "bias must have as many elements as weight has rows, %lld", (long long)w->dims[0]);
  if (x->rank == CML_RANK_UNKNOWN) return cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN), CML_OK;
  if (x->rank < 1) return cml_call_fail(c, err, "x must have at least rank 1");
  int64_t depth = x->dims[x->rank - 1], dims[CML_MAX_RANK];
  if (depth >= 0 && w->dims[1] >= 0 && depth != w->dims[1])
    return cml_call_fail(c, err, "the last dimension of x is %lld, weight has %lld columns", (long long)depth, (long long)w->dims[1]);
  memcpy(dims, x->dims, sizeof dims);
  dims[x->rank - 1] = w->dims[0];
  cml_out_set(c, 0, x->dtype, x->rank, dims);
  const cml_kernels *k = cml_kernels_get();
  if (w->dims[0] >= 0 && w->dims[1] >= 0 && is_float_product(x, w)) {
    c->scratch_size = slots(c) * cml_scratch_part(cml_gemm_scratch(k)) + cml_scratch_part((uint64_t)w->dims[0] * 4) + cml_scratch_part((uint64_t)w->dims[1] * 4);
    const packed_b *p = c->prepared;
    const bool packed = !p || !p->compressed.count;
    c->spaced_args = packed ? 1 << X : 0;
    c->spaces_rows = packed && (c->op->param_count <= L_RESIDUAL || !cml_arg(c, L_RESIDUAL));
    if (!packed && cml_tensor_known_shape(c->outs[0])) c->scratch_size = compressed_scratch(p, compressed_rows(c->outs[0]), slots(c)).size;
    if (!c->prepared) c->scratch_size += cml_scratch_part(cml_pack_bytes(k, (size_t)w->dims[1], (size_t)w->dims[0], w->dtype == CML_F16));
  }
  return CML_OK;
}

typedef struct pack_context {
  const cml_kernels *k;
  const cml_tensor *w;
  void *to;
  bool half;
} pack_context;

static void pack_weight(void *context, size_t begin, size_t end) {
  const pack_context *p = context;
  size_t depth = (size_t)p->w->dims[1];
  cml_pack_panels(p->k, p->to, p->half, p->w->data, p->w->dtype == CML_F16, depth, (size_t)p->w->dims[0], 1, depth, begin, end);
}

static cml_status prepare_linear(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  if (!cml_arg_is_constant(c, WEIGHT) || (bias && !cml_arg_is_constant(c, BIAS)) || (!w->data && !c->compressed) || !is_float_product(x, w)) return CML_OK;
  const cml_kernels *k = cml_kernels_get();
  size_t depth = (size_t)w->dims[1], columns = (size_t)w->dims[0];
  packed_b *p = cml_call_keep(c, sizeof *p, err);
  if (!p) return c->keep_status;
  p->kernels = k;
  if (bias) {
    float *b = cml_call_keep(c, columns * 4, err);
    if (!b) return c->keep_status;
    widen(k, bias, b);
    p->bias = b;
  }
  int64_t rows = x->rank < 0 ? -1 : 1;
  for (int32_t i = 0; i + 1 < x->rank; i++) rows = cml_dim_mul(rows, x->dims[i]);
  if (!w->data) {
    CML_TRY(cml_compressed_make(k, c->compressed, rows > 0 ? (size_t)rows : 1, x->dtype == CML_F16, c, &p->compressed, err));
    bool packed = true;
    for (size_t i = 0; i < p->compressed.count; i++) packed = packed && p->compressed.parts[i].packed;
    if (packed) cml_arg_unread(c, w);
    c->prepared = p;
    return CML_OK;
  }
  p->raw = rows == 1;
  p->half = w->dtype == CML_F16;
  if (p->raw) {
    p->b = w->data;
  } else {
    bool ready;
    void *b = cml_call_keep_packed(c, cml_pack_bytes(k, depth, columns, p->half), w, (int64_t[]){p->half}, 1, &ready, err);
    if (!b) return c->keep_status;
    if (!ready) cml_parallel(c->pool, cml_panel_count(k, columns), 4, pack_weight, &(pack_context){k, w, b, p->half});
    p->b = b;
    cml_arg_unread(c, w);
  }
  cml_arg_unread(c, bias);
  c->prepared = p;
  return CML_OK;
}

/* Anything with an integer in it. Integers wrap; a mixture with floats is computed in double. */
static void linear_general(const cml_tensor *x, const cml_tensor *w, const cml_tensor *bias, cml_tensor *y) {
  int64_t depth = w->dims[1], columns = w->dims[0], rows = columns ? cml_tensor_count(y) / columns : 0;
  bool whole = x->dtype == CML_I32 && w->dtype == CML_I32;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < columns; j++) {
      double f = bias ? cml_tensor_get(bias, j) : 0;
      uint64_t n = bias && whole ? (uint64_t)cml_tensor_get_int(bias, j) : 0;
      for (int64_t d = 0; d < depth; d++) {
        if (whole) n += (uint64_t)((const int32_t *)x->data)[r * depth + d] * (uint64_t)((const int32_t *)w->data)[j * depth + d];
        else f += cml_tensor_get(x, r * depth + d) * cml_tensor_get(w, j * depth + d);
      }
      if (whole) cml_tensor_set_int(y, r * columns + j, (int64_t)n);
      else cml_tensor_set(y, r * columns + j, f);
    }
}

typedef struct vector_context {
  const cml_kernels *k;
  const packed_b *p;
  const float *x;
  size_t depth;
  float *y;
  const cml_epilogue *after; /* NULL: the bias alone */
  cml_f16 *half;             /* where the results go, or NULL */
} vector_context;

static void run_vector(void *context, size_t begin, size_t end) {
  const vector_context *v = context;
  const bool half = v->p->half;
  const char *w = (const char *)v->p->b + begin * v->depth * (half ? 2 : 4);
  v->k->gemv_rows(end - begin, v->depth, w, half, v->depth, v->x, v->y + begin);
  if (v->p->bias) v->k->binary(CML_BINARY_ADD, v->y + begin, v->p->bias + begin, v->y + begin, end - begin);
  if (v->after && v->after->activation != CML_UNARY_COPY) v->k->unary(v->after->activation, v->y + begin, v->y + begin, end - begin, v->after->a, v->after->b);
  if (v->half) v->k->f32_to_f16(v->y + begin, v->half + begin, end - begin);
}

typedef struct compressed_context {
  const packed_b *p;
  const float *x; /* vectors, depth apart */
  size_t depth, vectors, columns, blocks;
  compressed_rooms rooms;
  char *scratch;
  float *y, *sums; /* of the first part; of all, by part */
  const cml_epilogue *after;
  cml_f16 *half; /* where the results go, or NULL */
} compressed_context;

static float *part_sums(const compressed_context *v, size_t part) { return part ? v->sums + part * v->vectors * v->columns : v->y; }

/* The vectors in a part's order, made by the thread that reads them: tables that another core has written come slowly. */
static const float *arrange_part(const compressed_context *v, size_t part, size_t thread) {
  const cml_compressed *w = v->p->compressed.parts;
  size_t *held = (size_t *)(void *)(v->scratch + v->rooms.held) + thread, at = part * w->depth; /* only the last part is shorter */
  float *arranged = (float *)(void *)(v->scratch + v->rooms.arranged) + thread * v->vectors * v->rooms.room;
  if (*held == part + 1) return arranged;
  const size_t room = v->p->kernels->compressed_room(&w[part]);
  for (size_t r = 0; r < v->vectors; r++) v->p->kernels->compressed_arrange(&w[part], v->x + r * v->depth + at, arranged + r * room);
  *held = part + 1;
  return arranged;
}

/* Items: blocks of rows by part. */
static void run_compressed_rows(void *context, size_t thread, size_t begin, size_t end) {
  const compressed_context *v = context;
  for (size_t last; begin < end; begin = last) {
    const size_t part = begin / v->blocks, first = part * v->blocks;
    last = first + v->blocks < end ? first + v->blocks : end;
    const size_t from = (begin - first) * CML_COMPRESSED_ROWS, to = (last - first) * CML_COMPRESSED_ROWS;
    v->p->kernels->compressed_product(&v->p->compressed.parts[part], from, to < v->columns ? to : v->columns, arrange_part(v, part, thread), v->vectors, part_sums(v, part), v->columns);
  }
}

/* The parts' sums, and what follows them but for a residual. */
static void finish_compressed(void *context, size_t begin, size_t end) {
  const compressed_context *v = context;
  const cml_kernels *k = v->p->kernels;
  for (size_t r = 0; r < v->vectors; r++) {
    const size_t at = r * v->columns + begin;
    float *y = v->y + at;
    for (size_t part = 1; part < v->p->compressed.count; part++) k->binary(CML_BINARY_ADD, y, part_sums(v, part) + at, y, end - begin);
    if (v->p->bias) k->binary(CML_BINARY_ADD, y, v->p->bias + begin, y, end - begin);
    if (v->after->activation != CML_UNARY_COPY && !v->after->residual) k->unary(v->after->activation, y, y, end - begin, v->after->a, v->after->b);
    if (v->half) k->f32_to_f16(y, v->half + at, end - begin);
  }
}

/* Few vectors times weights that stay compressed. */
static void run_compressed(cml_call *c, const packed_b *p) {
  enum { ALONE = 100000, FINISH_ALONE = 1 << 14 }; /* products, sums that one thread makes sooner than two */
  const cml_tensor *x = cml_arg(c, X);
  cml_tensor *y = c->outs[0];
  const size_t columns = p->compressed.parts->columns, parts = p->compressed.count, vectors = compressed_rows(y), depth = (size_t)x->dims[x->rank - 1];
  const cml_epilogue after = read_epilogue(c, NULL, columns);
  compressed_context v = {.p = p, .x = x->data, .depth = depth, .vectors = vectors, .columns = columns, .scratch = c->scratch, .after = &after};
  v.blocks = (columns + CML_COMPRESSED_ROWS - 1) / CML_COMPRESSED_ROWS;
  v.rooms = compressed_scratch(p, vectors, slots(c));
  v.sums = (float *)(void *)(v.scratch + v.rooms.sums);
  v.y = y->dtype == CML_F32 ? y->data : v.sums;
  v.half = y->dtype == CML_F16 && !after.residual ? y->data : NULL;
  memset(v.scratch + v.rooms.held, 0, v.rooms.threads * sizeof(size_t));
  if (x->dtype == CML_F16) p->kernels->f16_to_f32(x->data, c->scratch, vectors * depth), v.x = c->scratch;
  /* A few blocks at a time read all that rows share again, and of several parts are sooner waited for than taken over. */
  const size_t grain = parts > 1 ? (v.blocks + 3) / 4 : v.blocks / (4 * slots(c)) >= 4 ? 4 : 1;
  cml_parallel_among(vectors * depth * columns < ALONE ? NULL : c->pool, v.rooms.threads, parts * v.blocks, grain, run_compressed_rows, &v);
  cml_parallel(parts * vectors * columns < FINISH_ALONE ? NULL : c->pool, columns, FINISH_ALONE / 8, finish_compressed, &v);
  if (after.residual) cml_epilogue_store(p->kernels, &after, v.y, columns, vectors, columns, y->data, columns, y->dtype == CML_F16, 0, 0);
}

static cml_status run_linear(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, X), *w = cml_arg(c, WEIGHT), *bias = cml_arg(c, BIAS);
  cml_tensor *y = c->outs[0];
  if (!is_float_product(x, w)) return linear_general(x, w, bias, y), CML_OK;
  const packed_b *p = c->prepared;
  if (p && p->compressed.count) return run_compressed(c, p), CML_OK;
  const cml_kernels *k = p ? p->kernels : cml_kernels_get();
  size_t depth = (size_t)w->dims[1], columns = (size_t)w->dims[0], rows = columns ? (size_t)cml_tensor_count(y) / columns : 0;
  char *scratch = c->scratch, *vectors = scratch + slots(c) * cml_scratch_part(cml_gemm_scratch(k));
  float *wide_y = (float *)(void *)vectors, *wide_x = (float *)(void *)(vectors + cml_scratch_part(columns * 4));
  packed_b local = {.half = w->dtype == CML_F16, .kernels = k};
  if (!p) {
    char *b = (char *)wide_x + cml_scratch_part(depth * 4);
    cml_parallel(c->pool, cml_panel_count(k, columns), 4, pack_weight, &(pack_context){k, w, b, local.half});
    if (bias) widen(k, bias, wide_y), local.bias = wide_y;
    local.b = b;
    p = &local;
  }
  if (p->raw && rows == 1) {
    cml_epilogue after = read_epilogue(c, NULL, columns);
    vector_context v = {k, p, x->data, depth, y->dtype == CML_F32 ? y->data : wide_y, after.residual ? NULL : &after, y->dtype == CML_F16 && !after.residual ? y->data : NULL};
    if (x->dtype == CML_F16) k->f16_to_f32(x->data, wide_x, depth), v.x = wide_x;
    cml_parallel(c->pool, columns, 64, run_vector, &v);
    if (after.residual) /* the rows know no clamp: nothing was done but the bias */
      cml_epilogue_store(k, &after, v.y, columns, 1, columns, y->data, columns, y->dtype == CML_F16, 0, 0);
    return CML_OK;
  }
  cml_gemm g = {.rows = rows, .columns = columns, .depth = depth, .a = x->data, .a_stride = (size_t)cml_row_step(x), .a_depth_stride = 1,
                .a_half = x->dtype == CML_F16, .b = p->b, .b_half = p->half, .c = y->data, .c_stride = (size_t)cml_row_step(y),
                .in_parts = p->half == (x->dtype == CML_F16) && cml_parts_pay(k, p->half, (int64_t)rows, depth, columns),
                .c_half = y->dtype == CML_F16, .after = read_epilogue(c, p->bias, columns)};
  cml_gemm_run(k, &g, 1, c->pool, scratch, slots(c));
  return CML_OK;
}

/* ---- matmul ---- */

enum { Y = 1, TRANSPOSE_X, TRANSPOSE_Y };

static const cml_param matmul_params[] = {
    {"x", CML_M_FLOAT | CML_MASK(I32), 0, 1},
    {"y", CML_M_FLOAT | CML_MASK(I32), 0, 1},
    {"transpose_x", CML_M_BOOL, CML_CONST | CML_OPTIONAL, 0},
    {"transpose_y", CML_M_BOOL, CML_CONST | CML_OPTIONAL, 0},
};
static const cml_param matmul_params_17[] = {
    {"x", CML_M_FLOAT | CML_MASK(I32), 0, 0},
    {"y", CML_M_FLOAT | CML_MASK(I32), 0, 0},
    {"transpose_x", CML_M_BOOL, CML_CONST | CML_OPTIONAL, 0},
    {"transpose_y", CML_M_BOOL, CML_CONST | CML_OPTIONAL, 0},
};

/* C[i] = A[i / a_every % a_count] B[…]: a batched product of matrices with any strides, as matmul and einsum make it. */
typedef struct product {
  int64_t rows, columns, depth;
  int64_t a_row, a_depth, b_depth, b_column, c_row; /* strides in elements */
  int32_t batch_rank;
  int64_t batch[CML_MAX_RANK], a_batch[CML_MAX_RANK], b_batch[CML_MAX_RANK], c_batch[CML_MAX_RANK]; /* dims; strides, 0: broadcast */
} product;

static int64_t batch_count(const product *p) {
  int64_t n = 1;
  for (int32_t i = 0; i < p->batch_rank; i++) n *= p->batch[i];
  return n;
}

static int64_t batch_offset(const product *p, const int64_t *strides, int64_t i) {
  int64_t at = 0;
  for (int32_t d = p->batch_rank - 1; d >= 0; d--) {
    at += i % p->batch[d] * strides[d];
    i /= p->batch[d];
  }
  return at;
}

/* B matrices that differ: packed once each. The index of product i's. */
static int64_t b_index(const product *p, int64_t i, int64_t *out_count) {
  int64_t at = 0, step = 1;
  for (int32_t d = p->batch_rank - 1; d >= 0; d--) {
    if (p->batch[d] == 0) { /* no product at all */
      if (out_count) *out_count = 0;
      return 0;
    }
    if (p->b_batch[d]) {
      at += i % p->batch[d] * step;
      step *= p->batch[d];
    }
    i /= p->batch[d];
  }
  if (out_count) *out_count = step;
  return at;
}

/* So few rows that packing B would take longer than the products do: they read it where it lies, and only halves of A and C are kept as
 * floats, and what of A does not lie in rows. */
static bool few_rows(const product *p) {
  return p->rows <= CML_ATTEND && (p->b_column == 1 || p->b_depth == 1);
}

/* A matrix times one column is a row times the matrix turned round: its rows are read where they lie, not packed with a panel that is all but empty. */
static bool turn_column(product *p) {
  if (p->columns != 1 || p->c_row != 1 || p->b_depth != 1 || (p->a_row != 1 && p->a_depth != 1)) return false;
  const product was = *p;
  p->rows = 1, p->columns = was.rows;
  p->a_row = was.b_column, p->a_depth = was.b_depth, p->b_depth = was.a_depth, p->b_column = was.a_row;
  p->c_row = was.rows;
  memcpy(p->a_batch, was.b_batch, sizeof p->a_batch);
  memcpy(p->b_batch, was.a_batch, sizeof p->b_batch);
  return true;
}

/* So few columns that a panel would be all but empty: they lie one after the other, in place or in scratch, and vectors go along the depth. */
static bool few_columns(const product *p) {
  enum { LEAST_DEPTH = 32 }; /* sums of lanes take as long as four vectors of it */
  return p->columns <= CML_SLIM && p->depth >= LEAST_DEPTH;
}

/* How a product is computed when B is not packed before. TURNED: as FEW_ROWS, p having been turned. */
typedef enum way { PANELS, FEW_ROWS, TURNED, FEW_COLUMNS } way;
static way way_of(product *p) {
  if (few_rows(p) && p->a_depth == 1) return FEW_ROWS;
  if (turn_column(p)) return TURNED;
  return few_columns(p) ? FEW_COLUMNS : few_rows(p) ? FEW_ROWS : PANELS;
}

/* Whether matrix units take it, and so a B that is not constant is packed as halves, which is widened else. */
static bool in_parts(const cml_kernels *k, const product *p, const cml_tensor *x, const cml_tensor *y) {
  return x->dtype == y->dtype && p->depth >= 0 && p->columns >= 0 && cml_parts_pay(k, y->dtype == CML_F16, p->rows, (size_t)p->depth, (size_t)p->columns);
}

/* Bytes of a B in scratch. */
static uint64_t b_bytes(const cml_kernels *k, const product *p, way w, bool half) {
  if (w == FEW_COLUMNS) return p->b_depth == 1 ? 0 : cml_scratch_part((uint64_t)(p->columns * p->depth) * 4);
  return cml_scratch_part(cml_pack_bytes(k, (size_t)p->depth, (size_t)p->columns, half));
}

static uint64_t product_scratch(const cml_call *c, const product *shape, bool packs, bool half) {
  const cml_kernels *k = cml_kernels_get();
  product p = *shape;
  const way w = packs ? way_of(&p) : PANELS;
  int64_t n = batch_count(&p), b_count = 1;
  if (w == FEW_ROWS || w == TURNED) return cml_scratch_part((uint64_t)(n * p.rows * (p.depth + p.columns)) * 4);
  b_index(&p, 0, &b_count);
  return slots(c) * cml_scratch_part(cml_gemm_scratch(k)) + cml_scratch_part((uint64_t)n * sizeof(cml_gemm)) + (packs ? (uint64_t)b_count * b_bytes(k, &p, w, half) : 0);
}

typedef struct product_pack {
  const cml_kernels *k;
  const product *p;
  const cml_tensor *b;
  char *to;
  bool half;
} product_pack;

/* The wanted-th different B: its offset. */
static int64_t b_offset(const product *p, size_t wanted) {
  int64_t n = (int64_t)wanted, at = 0;
  for (int32_t d = p->batch_rank - 1; d >= 0; d--)
    if (p->b_batch[d]) {
      at += n % p->batch[d] * p->b_batch[d];
      n /= p->batch[d];
    }
  return at;
}

static void pack_products(void *context, size_t begin, size_t end) {
  const product_pack *q = context;
  const product *p = q->p;
  size_t panels = cml_panel_count(q->k, (size_t)p->columns), bytes = cml_scratch_part(cml_pack_bytes(q->k, (size_t)p->depth, (size_t)p->columns, q->half));
  for (size_t i = begin; i < end; i++) {
    size_t wanted = i / panels, panel = i % panels;
    const char *from = (const char *)q->b->data + b_offset(p, wanted) * (q->b->dtype == CML_F16 ? 2 : 4);
    cml_pack_panels(q->k, q->to + wanted * bytes, q->half, from, q->b->dtype == CML_F16, (size_t)p->depth, (size_t)p->columns,
                    (size_t)p->b_depth, (size_t)p->b_column, panel, panel + 1);
  }
}

static void turn_products(void *context, size_t begin, size_t end) {
  const product_pack *q = context;
  const product *p = q->p;
  const bool half = q->b->dtype == CML_F16;
  for (size_t i = begin; i < end; i++)
    cml_gemm_stage(q->k, (const char *)q->b->data + b_offset(p, i) * (half ? 2 : 4), half, (size_t)p->b_column, (size_t)p->b_depth, (size_t)p->columns, (size_t)p->depth,
                   (float *)(void *)(q->to + i * b_bytes(q->k, p, FEW_COLUMNS, false)), (size_t)p->depth);
}

static void turn_all(const cml_kernels *k, const product *p, const cml_tensor *b, void *to, cml_pool *pool) {
  enum { WORK = 65536 }; /* elements that are worth a thread */
  int64_t count;
  b_index(p, 0, &count);
  cml_parallel(pool, (size_t)count, 1 + (size_t)(WORK / (p->depth * p->columns)), turn_products, &(product_pack){k, p, b, to, false});
}

static void pack_all(const cml_kernels *k, const product *p, const cml_tensor *b, bool half, void *to, cml_pool *pool) {
  int64_t count;
  b_index(p, 0, &count);
  cml_parallel(pool, (size_t)count * cml_panel_count(k, (size_t)p->columns), 1, pack_products, &(product_pack){k, p, b, to, half});
}

typedef struct few_product {
  const cml_kernels *k;
  const product *p;
  const cml_tensor *x, *y;
  cml_tensor *out;
  float *a, *c; /* halves as floats, by product; NULL: they are floats */
  size_t pieces, step;
} few_product;

/* A piece is `step` columns of one product. */
static void run_few(void *context, size_t begin, size_t end) {
  const few_product *f = context;
  const product *p = f->p;
  const bool half = f->y->dtype == CML_F16;
  const size_t rows = (size_t)p->rows, depth = (size_t)p->depth, columns = (size_t)p->columns;
  for (size_t i = begin; i < end; i++) {
    const int64_t at = (int64_t)(i / f->pieces);
    const size_t first = i % f->pieces * f->step, n = columns - first < f->step ? columns - first : f->step;
    const size_t a_row = f->a ? depth : (size_t)p->a_row, c_row = f->c ? columns : (size_t)p->c_row;
    const float *a = f->a ? f->a + (size_t)at * rows * depth : (const float *)f->x->data + batch_offset(p, p->a_batch, at);
    float *c = (f->c ? f->c + (size_t)at * rows * columns : (float *)f->out->data + batch_offset(p, p->c_batch, at)) + first;
    const char *b = (const char *)f->y->data + (batch_offset(p, p->b_batch, at) + (int64_t)first * p->b_column) * (half ? 2 : 4);
    if (p->b_column == 1) f->k->attend_values(rows, depth, n, a, a_row, b, half, (size_t)p->b_depth, c, c_row);
    else
      for (size_t r = 0; r < rows; r++) f->k->gemv_rows(n, depth, b, half, (size_t)p->b_column, a + r * a_row, c + r * c_row);
  }
}

static void few_products(cml_call *c, const product *p, const cml_tensor *x, const cml_tensor *y, cml_tensor *out) {
  enum { WORK = 65536 }; /* numbers of B in a piece */
  const cml_kernels *k = cml_kernels_get();
  const size_t n = (size_t)batch_count(p), rows = (size_t)p->rows, depth = (size_t)p->depth, columns = (size_t)p->columns;
  few_product f = {.k = k, .p = p, .x = x, .y = y, .out = out, .step = (WORK / (depth + 1) + 64) / 64 * 64};
  if (f.step > columns) f.step = columns;
  f.pieces = (columns + f.step - 1) / f.step;
  if (x->dtype == CML_F16 || p->a_depth != 1) f.a = c->scratch;
  if (out->dtype == CML_F16) f.c = (float *)c->scratch + n * rows * depth;
  for (size_t i = 0; f.a && i < n; i++)
    cml_gemm_stage(k, (const char *)x->data + batch_offset(p, p->a_batch, (int64_t)i) * (x->dtype == CML_F16 ? 2 : 4), x->dtype == CML_F16, (size_t)p->a_row, (size_t)p->a_depth,
                   rows, depth, f.a + i * rows * depth, depth);
  cml_parallel(c->pool, n * f.pieces, 1 + WORK / (f.step * depth + 1), run_few, &f);
  for (size_t i = 0; f.c && i < n * rows; i++)
    k->f32_to_f16(f.c + i * columns, (cml_f16 *)out->data + batch_offset(p, p->c_batch, (int64_t)(i / rows)) + (int64_t)(i % rows) * p->c_row, columns);
}

static void integer_product(const product *p, const int32_t *a, const int32_t *b, int32_t *c) {
  for (int64_t r = 0; r < p->rows; r++) {
    int32_t *row = c + r * p->c_row;
    for (int64_t j = 0; j < p->columns; j++) row[j] = 0;
    for (int64_t d = 0; d < p->depth; d++) {
      uint32_t v = (uint32_t)a[r * p->a_row + d * p->a_depth];
      const int32_t *line = b + d * p->b_depth;
      for (int64_t j = 0; j < p->columns; j++) row[j] = (int32_t)((uint32_t)row[j] + v * (uint32_t)line[j * p->b_column]);
    }
  }
}

/* Types that mix integers and floats (one constant, iOS 17). */
static void mixed_product(const product *p, const cml_tensor *a, int64_t a0, const cml_tensor *b, int64_t b0, cml_tensor *c, int64_t c0) {
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t j = 0; j < p->columns; j++) {
      double sum = 0;
      for (int64_t d = 0; d < p->depth; d++)
        sum += cml_tensor_get(a, a0 + r * p->a_row + d * p->a_depth) * cml_tensor_get(b, b0 + d * p->b_depth + j * p->b_column);
      cml_tensor_set(c, c0 + r * p->c_row + j, sum);
    }
}

static void run_product(cml_call *c, const product *p, const cml_tensor *x, const cml_tensor *y, cml_tensor *out, const packed_b *ready) {
  int64_t n = batch_count(p);
  if (n <= 0 || p->rows <= 0 || p->columns <= 0) return;
  if (!is_float_product(x, y) || !is_plain(out->dtype)) {
    for (int64_t i = 0; i < n; i++) {
      int64_t a0 = batch_offset(p, p->a_batch, i), b0 = batch_offset(p, p->b_batch, i), c0 = batch_offset(p, p->c_batch, i);
      if (x->dtype == CML_I32 && y->dtype == CML_I32)
        integer_product(p, (const int32_t *)x->data + a0, (const int32_t *)y->data + b0, (int32_t *)out->data + c0);
      else mixed_product(p, x, a0, y, b0, out, c0);
    }
    return;
  }
  product turned = *p;
  const way w = ready ? PANELS : way_of(&turned);
  if (w == FEW_ROWS || w == TURNED) {
    few_products(c, &turned, w == TURNED ? y : x, w == TURNED ? x : y, out);
    return;
  }
  const cml_kernels *k = ready ? ready->kernels : cml_kernels_get();
  size_t a_size = x->dtype == CML_F16 ? 2 : 4, c_size = out->dtype == CML_F16 ? 2 : 4;
  const bool in_place = w == FEW_COLUMNS && p->b_depth == 1;
  const bool pays = w == PANELS && in_parts(k, p, x, y), half = ready ? ready->half : y->dtype == CML_F16 && (pays || in_place);
  size_t bytes = (size_t)b_bytes(k, p, w, half);
  char *scratch = c->scratch, *list = scratch + slots(c) * cml_scratch_part(cml_gemm_scratch(k)), *packed = list + cml_scratch_part((uint64_t)n * sizeof(cml_gemm));
  if (w == FEW_COLUMNS && !in_place) turn_all(k, p, y, packed, c->pool);
  if (w == PANELS && !ready) pack_all(k, p, y, half, packed, c->pool);
  cml_gemm *g = (cml_gemm *)(void *)list;
  for (int64_t i = 0; i < n; i++)
    g[i] = (cml_gemm){.rows = (size_t)p->rows, .columns = (size_t)p->columns, .depth = (size_t)p->depth,
                      .a = (const char *)x->data + (size_t)batch_offset(p, p->a_batch, i) * a_size,
                      .a_stride = (size_t)p->a_row, .a_depth_stride = (size_t)p->a_depth, .a_half = x->dtype == CML_F16,
                      .b = in_place ? (const char *)y->data + (size_t)batch_offset(p, p->b_batch, i) * (half ? 2 : 4)
                                    : (ready ? (const char *)ready->b : packed) + (size_t)b_index(p, i, NULL) * bytes,
                      .b_half = half, .in_parts = pays && half == (y->dtype == CML_F16), .b_column = w != FEW_COLUMNS ? 0 : (size_t)(in_place ? p->b_column : p->depth),
                      .c = (char *)out->data + (size_t)batch_offset(p, p->c_batch, i) * c_size, .c_stride = (size_t)p->c_row,
                      .c_half = out->dtype == CML_F16, .after = {.activation = CML_UNARY_COPY}};
  cml_gemm_run(k, g, (size_t)n, c->pool, scratch, slots(c));
}

/* Fills p for known shapes; also the output's shape for partly known ones. */
static cml_status matmul_shapes(const cml_call *c, product *p, int32_t *out_rank, int64_t *out, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *y = cml_arg(c, Y);
  if (x->rank == CML_RANK_UNKNOWN || y->rank == CML_RANK_UNKNOWN) return *out_rank = CML_RANK_UNKNOWN, CML_OK;
  if (x->rank < 1 || y->rank < 1) return cml_call_fail(c, err, "x and y must have at least rank 1");
  bool tx = cml_arg_bool(c, TRANSPOSE_X, false) && x->rank > 1, ty = cml_arg_bool(c, TRANSPOSE_Y, false) && y->rank > 1;
  cml_tensor a = *x, b = *y;
  if (x->rank == 1) a.rank = 2, a.dims[0] = 1, a.dims[1] = x->dims[0];
  if (y->rank == 1) b.rank = 2, b.dims[0] = y->dims[0], b.dims[1] = 1;
  int64_t ar = a.dims[a.rank - 2], ac = a.dims[a.rank - 1], br = b.dims[b.rank - 2], bc = b.dims[b.rank - 1];
  p->rows = tx ? ac : ar;
  p->depth = tx ? ar : ac;
  p->columns = ty ? br : bc;
  int64_t depth = ty ? bc : br;
  if (p->depth >= 0 && depth >= 0 && p->depth != depth)
    return cml_call_fail(c, err, "x has %lld and y has %lld elements along the dimension that is summed", (long long)p->depth, (long long)depth);
  if (p->depth < 0) p->depth = depth;
  p->a_row = tx ? 1 : ac, p->a_depth = tx ? ac : 1;
  p->b_depth = ty ? 1 : bc, p->b_column = ty ? bc : 1;
  p->c_row = p->columns;
  cml_tensor a_batch = a, b_batch = b;
  a_batch.rank -= 2, b_batch.rank -= 2;
  if (!cml_broadcast(&a_batch, &b_batch, &p->batch_rank, p->batch)) return cml_call_fail(c, err, "the batch dimensions of x and y do not fit");
  int64_t as = ar * ac, bs = br * bc, cs = p->rows * p->columns;
  for (int32_t i = p->batch_rank - 1, ai = a_batch.rank - 1, bi = b_batch.rank - 1; i >= 0; i--, ai--, bi--) {
    p->a_batch[i] = ai >= 0 && a_batch.dims[ai] != 1 ? as : 0;
    p->b_batch[i] = bi >= 0 && b_batch.dims[bi] != 1 ? bs : 0;
    p->c_batch[i] = cs;
    if (ai >= 0) as *= a_batch.dims[ai];
    if (bi >= 0) bs *= b_batch.dims[bi];
    cs *= p->batch[i];
  }
  int32_t r = p->batch_rank;
  memcpy(out, p->batch, (size_t)r * sizeof *out);
  if (x->rank > 1) out[r++] = p->rows;
  if (y->rank > 1) out[r++] = p->columns;
  *out_rank = r;
  return CML_OK;
}

static bool product_known(const product *p) {
  bool known = p->rows >= 0 && p->columns >= 0 && p->depth >= 0;
  for (int32_t i = 0; i < p->batch_rank; i++) known = known && p->batch[i] >= 0;
  return known;
}

static cml_status infer_matmul(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *y = cml_arg(c, Y);
  product p = {0};
  int32_t rank;
  int64_t dims[CML_MAX_RANK + 2];
  bool x_constant = cml_arg_is_constant(c, X), y_constant = cml_arg_is_constant(c, Y);
  if (x->dtype != y->dtype && c->arg_constant && x_constant == y_constant)
    return cml_call_fail(c, err, "x is %s and y is %s; they may differ only when one of them is constant", cml_dtype_name(x->dtype),
                         cml_dtype_name(y->dtype));
  cml_dtype type = x_constant && !y_constant ? y->dtype : x->dtype;
  CML_TRY(matmul_shapes(c, &p, &rank, dims, err));
  if (rank == CML_RANK_UNKNOWN) return cml_out_unknown(c, 0, type, rank), CML_OK;
  cml_out_set(c, 0, type, rank, dims);
  if (product_known(&p)) c->scratch_size = product_scratch(c, &p, !c->prepared, y->dtype == CML_F16 && in_parts(cml_kernels_get(), &p, x, y));
  return CML_OK;
}

static cml_status prepare_matmul(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, X), *y = cml_arg(c, Y);
  if (!cml_arg_is_constant(c, Y) || !y->data || y->rank < 2 || !is_float_product(x, y)) return CML_OK;
  bool ty = cml_arg_bool(c, TRANSPOSE_Y, false);
  int64_t r = y->dims[y->rank - 2], n = y->dims[y->rank - 1], others = 1;
  product p = {.columns = ty ? r : n, .depth = ty ? n : r, .b_depth = ty ? 1 : n, .b_column = ty ? n : 1, .batch_rank = y->rank - 2};
  for (int32_t i = p.batch_rank - 1; i >= 0; i--) { /* as b_index counts them, whatever x's dims are */
    p.batch[i] = y->dims[i];
    p.b_batch[i] = y->dims[i] == 1 ? 0 : others * r * n;
    others *= y->dims[i];
  }
  const cml_kernels *k = cml_kernels_get();
  packed_b *ready = cml_call_keep(c, sizeof *ready, err);
  const bool half = y->dtype == CML_F16;
  bool packed;
  void *b = ready ? cml_call_keep_packed(c, (size_t)others * cml_scratch_part(cml_pack_bytes(k, (size_t)p.depth, (size_t)p.columns, half)), y, (int64_t[]){half, ty, others, p.depth}, 4, &packed, err) : NULL;
  if (!b) return c->keep_status;
  if (!packed) pack_all(k, &p, y, half, b, c->pool);
  *ready = (packed_b){.b = b, .half = half, .kernels = k};
  cml_arg_unread(c, y);
  c->prepared = ready;
  return CML_OK;
}

static cml_status run_matmul(cml_call *c, cml_error *err) {
  product p = {0};
  int32_t rank;
  int64_t dims[CML_MAX_RANK + 2];
  CML_TRY(matmul_shapes(c, &p, &rank, dims, err));
  run_product(c, &p, cml_arg(c, X), cml_arg(c, Y), c->outs[0], c->prepared);
  return CML_OK;
}

/* ---- einsum ---- */

enum { VALUES, EQUATION };

static const cml_param einsum_params[] = {
    {"values", CML_M_FLOAT | CML_MASK(I32), CML_VARIADIC, 1},
    {"equation", CML_M_STRING, CML_CONST, 0},
};

/* Letters of the equation, by their first appearance: "nchw,nwhu->nchu" gives 0123,0324->0124. */
static bool same_equation(const char *text, const char *pattern) {
  char seen[32] = {0};
  size_t count = 0;
  for (; *text; text++) {
    if (*text == ' ') continue;
    if (*text == ',' || *text == '-' || *text == '>') {
      if (*pattern++ != *text) return false;
      continue;
    }
    size_t i = 0;
    while (i < count && seen[i] != *text) i++;
    if (i == count && count < sizeof seen) seen[count++] = *text;
    if (*pattern++ != (char)('0' + i)) return false;
  }
  return !*pattern;
}

static cml_status einsum_shapes(const cml_call *c, product *p, int32_t *rank, int64_t *out, cml_error *err) {
  const char *equation = cml_arg_text(c, EQUATION, "");
  bool four = same_equation(equation, "0123,0324->0124");
  if (!four && !same_equation(equation, "012,213->013")) return cml_call_fail(c, err, "equation '%s' is not supported", equation);
  if (cml_arg_count(c, VALUES) != 2) return cml_call_fail(c, err, "takes two values, not %zu", cml_arg_count(c, VALUES));
  const cml_tensor *x = cml_arg(c, VALUES), *y = cml_arg_at(c, VALUES, 1);
  if (x->rank < 0 || y->rank < 0) return *rank = CML_RANK_UNKNOWN, CML_OK;
  int32_t r = four ? 4 : 3;
  if (x->rank != r || y->rank != r) return cml_call_fail(c, err, "the values must have rank %d", r);
  const int64_t *a = x->dims + r - 3, *b = y->dims + r - 3; /* [C, H, W1], [W1, H, W2] */
  int64_t an = four ? x->dims[0] : 1, bn = four ? y->dims[0] : 1;
  if (a[2] >= 0 && b[0] >= 0 && a[2] != b[0]) return cml_call_fail(c, err, "the summed dimensions differ: %lld and %lld", (long long)a[2], (long long)b[0]);
  cml_tensor ta = {.rank = 2, .dims = {an, a[1]}}, tb = {.rank = 2, .dims = {bn, b[1]}};
  if (!cml_broadcast(&ta, &tb, &p->batch_rank, p->batch)) return cml_call_fail(c, err, "the batch dimensions do not fit");
  p->rows = a[0], p->columns = b[2], p->depth = a[2] < 0 ? b[0] : a[2];
  p->a_row = a[1] * a[2], p->a_depth = 1;
  p->b_depth = b[1] * b[2], p->b_column = 1;
  p->c_row = p->batch[1] * p->columns;
  p->a_batch[0] = an == 1 ? 0 : a[0] * a[1] * a[2], p->a_batch[1] = a[1] == 1 ? 0 : a[2];
  p->b_batch[0] = bn == 1 ? 0 : b[0] * b[1] * b[2], p->b_batch[1] = b[1] == 1 ? 0 : b[2];
  p->c_batch[0] = p->rows * p->batch[1] * p->columns, p->c_batch[1] = p->columns;
  *rank = r;
  if (four) *out++ = p->batch[0];
  out[0] = p->rows, out[1] = p->batch[1], out[2] = p->columns;
  return CML_OK;
}

static cml_status infer_einsum(cml_call *c, cml_error *err) {
  product p = {0};
  int32_t rank = CML_RANK_UNKNOWN;
  int64_t dims[4];
  CML_TRY(einsum_shapes(c, &p, &rank, dims, err));
  cml_dtype type = cml_arg(c, VALUES)->dtype;
  if (rank == CML_RANK_UNKNOWN) return cml_out_unknown(c, 0, type, rank), CML_OK;
  cml_out_set(c, 0, type, rank, dims);
  if (product_known(&p)) c->scratch_size = product_scratch(c, &p, true, false);
  return CML_OK;
}

static cml_status run_einsum(cml_call *c, cml_error *err) {
  product p = {0};
  int32_t rank;
  int64_t dims[4];
  CML_TRY(einsum_shapes(c, &p, &rank, dims, err));
  run_product(c, &p, cml_arg(c, VALUES), cml_arg_at(c, VALUES, 1), c->outs[0], NULL);
  return CML_OK;
}

static const cml_op rows[] = {
    {.name = "linear", .since = CML_IOS15, .until = CML_IOS16, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(linear_params),
     .infer = infer_linear, .prepare = prepare_linear, .run = run_linear},
    {.name = "linear", .since = CML_IOS17, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(linear_params_17),
     .infer = infer_linear, .prepare = prepare_linear, .run = run_linear},
    {.name = "cml_linear", .since = CML_IOS15, .flags = CML_OP_INTERNAL, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(fused_params),
     .infer = infer_linear, .prepare = prepare_linear, .run = run_linear},
    {.name = "matmul", .since = CML_IOS15, .until = CML_IOS16, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(matmul_params),
     .infer = infer_matmul, .prepare = prepare_matmul, .run = run_matmul},
    {.name = "matmul", .since = CML_IOS17, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(matmul_params_17),
     .infer = infer_matmul, .prepare = prepare_matmul, .run = run_matmul},
    {.name = "einsum", .since = CML_IOS15, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(einsum_params), .infer = infer_einsum,
     .run = run_einsum},
};

const cml_op_family cml_ops_linear = {"linear", rows, sizeof rows / sizeof *rows};
