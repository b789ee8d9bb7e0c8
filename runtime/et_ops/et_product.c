/* Products in float32, for float32, float16 and bfloat16. The blocked matrix product (gemm.h) reads rows of floats or halves where they
 * lie and writes them; columns of b are packed some at a time. What it cannot read (bfloat16, elements that lie apart) is brought into
 * floats a block at a time, and what it cannot write goes through a block of results. Long sums of a few columns are split, each part
 * beginning with the one before. */
#include "et_product.h"

#include "et_elementwise.h"
#include "gemm.h"

enum {
  BLOCK = 1 << 16,         /* elements of a block that is converted; half of that where many threads have stacks */
  MANY = 48,
  LEAST_SCRATCH = 20 << 10 /* bytes of the matrix product's scratch for a thread: some rows */
};

/* Whether the kernels can read it where it lies. */
static bool readable(const cml_et_matrix *m) {
  return (m->t->dtype == CML_F32 || m->t->dtype == CML_F16) && (m->row == 1 || m->column == 1);
}

static const void *place(const cml_et_matrix *m, int64_t row, int64_t column) {
  return (const char *)m->t->data + (size_t)(m->first + row * m->row + column * m->column) * cml_et_width(m->t);
}

/* A block of m as floats, by rows or by columns as its elements lie closer; *row and *column: their distances there. */
static void load_block(float *to, const cml_et_matrix *m, int64_t r, int64_t c, int64_t rows, int64_t columns, size_t *row, size_t *column) {
  bool by_rows = m->column == 1 || m->row != 1;
  int64_t outer = by_rows ? rows : columns, inner = by_rows ? columns : rows, first = m->first + r * m->row + c * m->column;
  for (int64_t i = 0; i < outer; i++)
    cml_et_load_f32(to + i * inner, m->t, first + i * (by_rows ? m->row : m->column), by_rows ? m->column : m->row, inner);
  *row = by_rows ? (size_t)inner : 1;
  *column = by_rows ? 1 : (size_t)inner;
}

void cml_et_put_f32(float *block, int64_t rows, int64_t columns, const cml_et_blend *blend, cml_et_tensor *to, const cml_et_matrix *out,
                    int64_t row, int64_t column) {
  float add[256];
  float alpha = blend ? (float)blend->alpha.d : 1, beta = blend ? (float)blend->beta.d : 0;
  for (int64_t r = 0; r < rows; r++, block += columns) {
    for (int64_t j = 0; blend && j < columns; j += 256) {
      int64_t n = cml_et_least(columns - j, 256);
      const cml_et_matrix *m = &blend->add;
      if (beta != 0) cml_et_load_f32(add, m->t, m->first + (row + r) * m->row + (column + j) * m->column, m->column, n);
      for (int64_t i = 0; i < n; i++) block[j + i] = beta != 0 ? alpha * block[j + i] + beta * add[i] : alpha * block[j + i];
    }
    cml_et_store_f32(to, out->first + (row + r) * out->row + column * out->column, out->column, columns, block);
  }
}

typedef struct product {
  cml_et_call *call;
  cml_et_room *room;
  const cml_kernels *k;
  cml_et_matrix a, b, out;
  cml_et_tensor *to;
  const cml_et_blend *blend; /* NULL: none, or it is the bias */
  const cml_et_matrix *bias; /* by column; NULL: none */
  bool direct;               /* results go to out as they come */
} product;

static void *room_for(const product *p, void **room, int64_t floats) {
  if (!*room) *room = cml_et_temp(p->call, (uint64_t)floats * sizeof(float));
  return *room;
}

/* The bias of columns at .. at + n: in place where it can be. */
static cml_status take_bias(product *p, int64_t at, int64_t n, int64_t room, const float **out, cml_error *err) {
  *out = NULL;
  if (!p->bias) return CML_OK;
  if (p->bias->t->dtype == CML_F32 && p->bias->column == 1) return *out = place(p->bias, 0, at), CML_OK;
  float *mine = room_for(p, &p->room->bias, room);
  if (!mine) return cml_fail_memory(err);
  cml_et_load_f32(mine, p->bias->t, p->bias->first + at * p->bias->column, p->bias->column, n);
  *out = mine;
  return CML_OK;
}

/* ---- a few rows ---- */

/* Without packing b, which costs as much as going over it: each of b's columns against a row of a where the columns lie in one piece,
 * else each of b's rows on top of the others. */
typedef struct few_rows {
  const float *a, *bias;
  const void *b;
  bool half;
  int64_t rows, depth, a_row, b_row, b_column, to_row;
  float *to;
} few_rows;

static void few_columns(void *context, size_t begin, size_t end) {
  const few_rows *f = context;
  const cml_kernels *k = cml_kernels_get();
  size_t width = f->half ? 2 : 4, n = end - begin;
  for (int64_t r = 0; r < f->rows; r++) {
    float *to = f->to + r * f->to_row + begin;
    const float *a = f->a + r * f->a_row;
    const char *b = f->b;
    if (f->b_row == 1) {
      k->gemv_rows(n, (size_t)f->depth, b + (size_t)f->b_column * begin * width, f->half, (size_t)f->b_column, a, to);
      if (f->bias) k->binary(CML_BINARY_ADD, to, f->bias + begin, to, n);
      continue;
    }
    if (f->bias) memcpy(to, f->bias + begin, n * sizeof *to);
    else memset(to, 0, n * sizeof *to);
    for (int64_t d = 0; d < f->depth; d++) k->axpy(a[d], (const float *)(const void *)b + d * f->b_row + begin, to, n);
  }
}

static bool is_few(const product *p) {
  const cml_et_matrix *b = &p->b;
  bool by_columns = b->row == 1 && b->column >= 1, by_rows = b->column == 1 && b->t->dtype == CML_F32 && b->columns >= 16;
  bool fits = (p->a.t->dtype == CML_F32 && p->a.column == 1) || p->a.columns <= BLOCK; /* else it is brought into floats, whole rows */
  return p->a.rows <= 4 && p->a.columns > 0 && fits && readable(b) && (by_columns || by_rows);
}

static cml_status product_few(product *p, cml_error *err) {
  const cml_et_matrix *a = &p->a, *b = &p->b;
  bool by_columns = b->row == 1 && b->column >= 1, in_place = a->t->dtype == CML_F32 && (a->column == 1 || a->columns == 1);
  int64_t depth = a->columns, together = in_place ? a->rows : cml_et_least(a->rows, cml_et_most(1, BLOCK / depth));
  bool there = p->direct && p->to->dtype == CML_F32;
  int64_t step = there ? b->columns : cml_et_least(b->columns, BLOCK / 4);
  for (int64_t r = 0; r < a->rows; r += together) {
    int64_t rows = cml_et_least(together, a->rows - r);
    const float *x = in_place ? place(a, r, 0) : room_for(p, &p->room->a, together * depth);
    if (!x) return cml_fail_memory(err);
    for (int64_t i = 0; i < rows && !in_place; i++)
      cml_et_load_f32((float *)p->room->a + i * depth, a->t, a->first + (r + i) * a->row, a->column, depth);
    for (int64_t at = 0; at < b->columns; at += step) {
      int64_t n = cml_et_least(step, b->columns - at);
      few_rows f = {.a = x, .b = place(b, 0, at), .half = b->t->dtype == CML_F16, .rows = rows, .depth = depth, .a_row = in_place ? a->row : depth,
                    .b_row = by_columns ? 1 : b->row, .b_column = b->column, .to_row = n};
      CML_TRY(take_bias(p, at, n, step, &f.bias, err));
      if (there) f.to = (float *)(uintptr_t)place(&p->out, r, at), f.to_row = p->out.row;
      else if (!(f.to = room_for(p, &p->room->block, together * step))) return cml_fail_memory(err);
      cml_parallel(p->call->pool, (size_t)n, (size_t)(BLOCK / (depth * rows) + 16), few_columns, &f);
      if (!there) cml_et_put_f32(f.to, rows, n, p->blend, p->to, &p->out, r, at);
    }
  }
  return CML_OK;
}

/* ---- many ---- */

/* How a product is cut: columns and depth that are packed at a time, rows that are computed at a time. */
typedef struct cut {
  int64_t columns, depth, rows;
  bool half; /* packed as halves */
} cut;

static cut cut_of(const product *p) {
  int64_t tile = (int64_t)p->k->tile_columns, depth = p->a.columns, size = cml_pool_threads(p->call->pool) < MANY ? BLOCK : BLOCK / 2;
  bool in_place = readable(&p->b);
  cut u = {.half = in_place && p->b.t->dtype == CML_F16};
  int64_t whole = u.half ? 4 * size : in_place ? 2 * size : size;
  u.depth = cml_et_least(depth, whole / tile);
  u.columns = cml_et_least(p->b.columns, cml_et_most(1, whole / (u.depth + 1) / tile) * tile);
  if (!p->direct) u.columns = cml_et_least(u.columns, 2048); /* a block of results is that wide */
  u.rows = p->direct && readable(&p->a) ? p->a.rows : cml_et_least(p->a.rows, cml_et_most(16, size / cml_et_most(u.columns, readable(&p->a) ? 1 : u.depth)));
  return u;
}

static cml_status pack(product *p, const cut *u, int64_t d, int64_t depth, int64_t at, int64_t columns, cml_error *err) {
  const cml_et_matrix *b = &p->b;
  bool in_place = readable(b);
  if (!p->room->packed) p->room->packed = cml_et_temp(p->call, cml_pack_bytes(p->k, (size_t)u->depth, (size_t)u->columns, u->half));
  const void *from = in_place ? place(b, d, at) : room_for(p, &p->room->b, u->depth * u->columns);
  if (!p->room->packed || !from) return cml_fail_memory(err);
  size_t row = (size_t)b->row, column = (size_t)b->column;
  if (!in_place) load_block(p->room->b, b, d, at, depth, columns, &row, &column);
  cml_pack_panels(p->k, p->room->packed, u->half, from, in_place && b->t->dtype == CML_F16, (size_t)depth, (size_t)columns, row, column, 0,
                  cml_panel_count(p->k, (size_t)columns));
  return CML_OK;
}

/* Rows r .. of the packed columns, over one part of the depth; parts behind the first add to what is there. */
static cml_status multiply(product *p, const cut *u, int64_t r, int64_t rows, int64_t d, int64_t depth, int64_t at, int64_t columns, cml_error *err) {
  const cml_et_matrix *a = &p->a;
  bool in_place = readable(a);
  const float *bias = NULL;
  const void *x = in_place ? place(a, r, d) : room_for(p, &p->room->a, u->rows * u->depth);
  void *to = p->direct ? (void *)(uintptr_t)place(&p->out, r, at) : room_for(p, &p->room->block, u->rows * u->columns);
  size_t stride = p->direct ? (size_t)p->out.row : (size_t)columns, share = cml_et_crew_share(p->call, LEAST_SCRATCH, cml_gemm_scratch_without_parts());
  if (!p->room->crew.scratch) CML_TRY(cml_et_crew_of(p->call, share, &p->room->crew, err));
  if (!x || !to) return cml_fail_memory(err);
  size_t row = (size_t)a->row, column = (size_t)a->column;
  if (!in_place) load_block(p->room->a, a, r, d, rows, depth, &row, &column);
  if (d == 0) CML_TRY(take_bias(p, at, columns, u->columns, &bias, err));
  cml_gemm g = {.rows = (size_t)rows, .columns = (size_t)columns, .depth = (size_t)depth, .a = x, .a_stride = row,
                .a_depth_stride = column, .a_half = in_place && a->t->dtype == CML_F16, .b = p->room->packed, .b_half = u->half,
                .c = to, .c_stride = stride, .c_half = p->direct && p->to->dtype == CML_F16,
                .more = d > 0, .scratch = share & ~(size_t)63, .after = {.bias = bias, .activation = CML_UNARY_COPY}};
  cml_gemm_run(p->k, &g, 1, p->call->pool, p->room->crew.scratch, p->room->crew.threads);
  return CML_OK;
}

static cml_status product_many(product *p, cml_error *err) {
  cut u = cut_of(p);
  int64_t whole = p->a.columns;
  if (u.depth < whole && p->direct && p->to->dtype != CML_F32) p->direct = false, u = cut_of(p); /* parts are not rounded */
  for (int64_t at = 0; at < p->b.columns; at += u.columns) {
    int64_t columns = cml_et_least(u.columns, p->b.columns - at), packed = -1;
    for (int64_t r = 0; r < p->a.rows; r += u.rows) {
      int64_t rows = cml_et_least(u.rows, p->a.rows - r);
      for (int64_t d = 0; d < whole; d += u.depth) {
        int64_t depth = cml_et_least(u.depth, whole - d);
        if (packed != d) CML_TRY(pack(p, &u, d, depth, at, columns, err));
        packed = d;
        CML_TRY(multiply(p, &u, r, rows, d, depth, at, columns, err));
      }
      if (!p->direct) cml_et_put_f32(p->room->block, rows, columns, p->blend, p->to, &p->out, r, at);
    }
  }
  return CML_OK;
}

/* Without anything to add up: zeros, and what is added to them. */
static void product_of_nothing(product *p) {
  for (int64_t r = 0; r < p->a.rows; r++)
    for (int64_t j = 0; j < p->b.columns; j += 64) {
      float zeros[64] = {0};
      cml_et_put_f32(zeros, 1, cml_et_least(64, p->b.columns - j), p->blend, p->to, &p->out, r, j);
    }
}

cml_status cml_et_product(cml_et_call *c, cml_et_room *room, cml_et_matrix a, cml_et_matrix b, const cml_et_blend *blend, cml_et_tensor *to,
                          cml_et_matrix out, cml_error *err) {
  if (a.rows == 0 || b.columns == 0) return CML_OK;
  if (to->dtype == CML_F64 || !cml_dtype_is_float(to->dtype)) return cml_et_product64(c, room, a, b, blend, to, out, err);
  product p = {.call = c, .room = room, .k = cml_kernels_get(), .a = a, .b = b, .out = out, .to = to, .blend = blend};
  if (a.columns == 0) return product_of_nothing(&p), CML_OK;
  if (blend && blend->alpha.d == 1 && blend->beta.d == 1 && blend->add.row == 0 && blend->add.t->data != to->data) p.bias = &blend->add, p.blend = NULL;
  p.direct = !p.blend && out.column == 1 && (to->dtype == CML_F32 || to->dtype == CML_F16);
  return is_few(&p) ? product_few(&p, err) : product_many(&p, err);
}
