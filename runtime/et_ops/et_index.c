/* Operators that read and write where tensors of indices say. Indices are checked before anything is written. */
#include "et_families.h"
#include "et_view.h"
#include "wide.h"

/* ---- a walk over a shape with offsets into up to three arrays ---- */

typedef struct walk {
  int rank;
  int64_t sizes[CML_PTE_MAX_RANK], at[CML_PTE_MAX_RANK], strides[3][CML_PTE_MAX_RANK], offsets[3];
} walk;

static void walk_dim(walk *w, int64_t size, int64_t a, int64_t b, int64_t c) {
  w->sizes[w->rank] = size;
  w->strides[0][w->rank] = a;
  w->strides[1][w->rank] = b;
  w->strides[2][w->rank++] = c;
}

static inline void walk_next(walk *w) {
  int last = w->rank - 1;
  if (last >= 0 && w->at[last] + 1 < w->sizes[last]) { /* mostly */
    w->at[last]++;
    w->offsets[0] += w->strides[0][last];
    w->offsets[1] += w->strides[1][last];
    w->offsets[2] += w->strides[2][last];
    return;
  }
  for (int k = last; k >= 0; k--) {
    for (int i = 0; i < 3; i++) w->offsets[i] += w->strides[i][k];
    if (++w->at[k] < w->sizes[k]) return;
    for (int i = 0; i < 3; i++) w->offsets[i] -= w->at[k] * w->strides[i][k];
    w->at[k] = 0;
  }
}

static inline int64_t index_at(const cml_et_tensor *t, int64_t i) {
  return t->dtype == CML_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

static inline void copy_element(char *to, const char *from, size_t width) {
  switch (width) {
    case 1: *to = *from; break;
    case 2: memcpy(to, from, 2); break;
    case 4: memcpy(to, from, 4); break;
    default: memcpy(to, from, 8); break;
  }
}

static void add_element(cml_et_tensor *to, int64_t at, const cml_et_tensor *from, int64_t from_at) {
  if (to->dtype == CML_F32 && from->dtype == CML_F32) {
    ((float *)to->data)[at] += ((const float *)from->data)[from_at];
  } else if (cml_dtype_is_float(to->dtype)) {
    double a, b;
    cml_et_load_f64(&a, to, at, 1, 1);
    cml_et_load_f64(&b, from, from_at, 1, 1);
    a += b;
    cml_et_store_f64(to, at, 1, 1, &a);
  } else {
    int64_t a, b;
    cml_et_load_i64(&a, to, at, 1, 1);
    cml_et_load_i64(&b, from, from_at, 1, 1);
    a = (int64_t)((uint64_t)a + (uint64_t)b);
    cml_et_store_i64(to, at, 1, 1, &a);
  }
}

static cml_status bad_index(cml_et_call *c, int64_t index, int64_t n, cml_error *err) {
  return cml_et_fail(c, err, "index %lld is out of range for a dimension of %lld", (long long)index, (long long)n);
}

/* ---- gather, scatter ---- */

static cml_status check_along(cml_et_call *c, const cml_et_tensor *self, int axis, const cml_et_tensor *index, const cml_et_tensor *src,
                              cml_error *err) {
  CML_TRY(cml_et_want(c, index, CML_MASK(I64) | CML_MASK(I32), "the index", err));
  if (cml_et_numel(index) == 0) return CML_OK;
  int rank = index->rank ? index->rank : 1;
  if (rank != (self->rank ? self->rank : 1) || (src && rank != (src->rank ? src->rank : 1)))
    return cml_et_fail(c, err, "the index is of rank %d, the tensor of rank %d", index->rank, self->rank);
  for (int k = 0; k < index->rank; k++) {
    bool wide = k != axis && index->sizes[k] > (self->rank ? self->sizes[k] : 1);
    if (wide || (src && index->sizes[k] > (src->rank ? src->sizes[k] : 1))) return cml_et_fail(c, err, "the index reaches beyond dimension %d", k);
  }
  int64_t n = self->rank ? self->sizes[axis] : 1;
  for (int64_t i = 0, count = cml_et_numel(index); i < count; i++) {
    int64_t v = index_at(index, i);
    if (v < 0 || v >= n) return bad_index(c, v, n, err);
  }
  return CML_OK;
}

/* Over the index's shape: 0 the index, 1 the tensor without the axis, 2 the other tensor. */
static walk walk_along(const cml_et_tensor *index, const cml_et_tensor *self, int axis, const cml_et_tensor *other) {
  walk w = {0};
  for (int k = 0; k < index->rank; k++)
    walk_dim(&w, index->sizes[k], index->strides[k], self->rank && k != axis ? self->strides[k] : 0, other && other->rank ? other->strides[k] : 0);
  return w;
}

static cml_status op_gather(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0), *index = cml_et_arg(c, 2);
  cml_et_tensor *out = cml_et_arg(c, 4);
  int axis;
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), self->rank, &axis, err));
  CML_TRY(cml_et_same_type(c, self, out, err));
  CML_TRY(check_along(c, self, axis, index, NULL, err));
  CML_TRY(cml_et_resize_like(c, out, index, err));
  walk w = walk_along(index, self, axis, out);
  size_t width = cml_et_width(self);
  int64_t step = self->rank ? self->strides[axis] : 0;
  for (int64_t i = 0, n = cml_et_numel(index); i < n; i++, walk_next(&w))
    copy_element((char *)out->data + (size_t)w.offsets[2] * width,
                 (const char *)self->data + (size_t)(w.offsets[1] + index_at(index, w.offsets[0]) * step) * width, width);
  return CML_OK;
}

/* out is self with elements of src (or one value for all) put or added at the index's places. */
static cml_status scatter(cml_et_call *c, const cml_et_tensor *src, bool one, bool add, cml_et_tensor *out, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0), *index = cml_et_arg(c, 2);
  int axis;
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), self->rank, &axis, err));
  CML_TRY(cml_et_same_type(c, self, out, err));
  CML_TRY(cml_et_same_type(c, self, src, err));
  CML_TRY(cml_et_want(c, self, CML_ET_ANY, "the tensor", err));
  CML_TRY(check_along(c, self, axis, index, one ? NULL : src, err));
  CML_TRY(cml_et_resize_like(c, out, self, err));
  cml_et_view to = cml_et_view_of(out), from = cml_et_view_of(self);
  cml_et_view_move(c, &to, &from);
  walk w = walk_along(index, out, axis, one ? NULL : src);
  size_t width = cml_et_width(self);
  int64_t step = out->rank ? out->strides[axis] : 0;
  for (int64_t i = 0, n = cml_et_numel(index); i < n; i++, walk_next(&w)) {
    int64_t at = w.offsets[1] + index_at(index, w.offsets[0]) * step;
    if (add) add_element(out, at, src, w.offsets[2]);
    else copy_element((char *)out->data + (size_t)at * width, (const char *)src->data + (size_t)w.offsets[2] * width, width);
  }
  return CML_OK;
}
static cml_status op_scatter_src(cml_et_call *c, cml_error *err) { return scatter(c, cml_et_arg(c, 3), false, false, cml_et_arg(c, 4), err); }
static cml_status op_scatter_add(cml_et_call *c, cml_error *err) { return scatter(c, cml_et_arg(c, 3), false, true, cml_et_arg(c, 4), err); }
static cml_status op_scatter_value(cml_et_call *c, cml_error *err) {
  cml_et_number n = cml_et_scalar(c, 3);
  uint64_t room = 0;
  cml_et_local value;
  cml_et_make(&value, cml_et_arg(c, 0)->dtype, 0, NULL, &room);
  if (n.kind == CML_PTE_REAL) cml_et_store_f64(&value.t, 0, 1, 1, &n.d);
  else cml_et_store_i64(&value.t, 0, 1, 1, &n.i);
  return scatter(c, &value.t, true, false, cml_et_arg(c, 4), err);
}

/* ---- lists of index tensors ---- */

enum { PIECE = 1 << 14, VECTORS = 1 << 16 }; /* places that are known at a time; indices out of a mask that are held */

/* A mask in a list of indices stands for one vector of indices for each of its dimensions: where it holds, in order. */
typedef struct mask_index {
  const cml_et_tensor *t;
  int first, vectors; /* of the indexed dimensions */
  int64_t count;      /* where it holds */
  bool in_order;      /* looked for as places are wanted, again from the start for each row of indices; else the vectors are in memory */
  int64_t found;      /* of this row */
  walk at;
} mask_index;

typedef struct places {
  int count;                              /* indexed dimensions */
  int dims[CML_PTE_MAX_RANK];
  int64_t sizes_of[CML_PTE_MAX_RANK], steps[CML_PTE_MAX_RANK]; /* of the tensor, along them */
  const cml_et_tensor *tensors[CML_PTE_MAX_RANK];
  walk walks[CML_PTE_MAX_RANK];           /* over the indices */
  mask_index masks[CML_PTE_MAX_RANK];
  int mask_count;
  cml_et_local vectors[CML_PTE_MAX_RANK]; /* of masks */
  bool negative;                          /* indices count from the end, too */
  size_t rank;                            /* of the indices together */
  int64_t sizes[CML_PTE_MAX_RANK], total;
  bool known;                             /* all offsets are there */
  int64_t *offsets;                       /* of a piece: where each lies in the tensor, without the other dimensions */
} places;

static void start_mask(mask_index *m) {
  m->at = (walk){0};
  m->found = 0;
  for (int k = 0; k < m->t->rank; k++) walk_dim(&m->at, m->t->sizes[k], m->t->strides[k], 0, 0);
}

static cml_status take_mask(cml_et_call *c, places *p, const cml_et_tensor *t, const cml_et_tensor *self, int dim, cml_error *err) {
  mask_index *m = &p->masks[p->mask_count++];
  const uint8_t *bits = t->data;
  if (dim + t->rank > self->rank) return cml_et_fail(c, err, "too many indices for a tensor of rank %d", self->rank);
  for (int k = 0; k < t->rank; k++)
    if (t->sizes[k] != self->sizes[dim + k]) return cml_et_fail(c, err, "the mask's shape is not that of the tensor at dimension %d", dim + k);
  *m = (mask_index){.t = t, .first = p->count, .vectors = t->rank};
  for (int64_t i = 0, n = cml_et_numel(t); i < n; i++) m->count += bits[i] != 0;
  for (int k = 0; k < t->rank; k++, p->count++) {
    cml_et_make(&p->vectors[p->count], CML_I64, 1, &m->count, NULL);
    p->tensors[p->count] = &p->vectors[p->count].t;
    p->dims[p->count] = dim + k;
  }
  return CML_OK;
}

/* The vectors of a mask that stands beside other indices, where that is little. */
static cml_status write_vectors(cml_et_call *c, places *p, mask_index *m) {
  const uint8_t *bits = m->t->data;
  int64_t *indices = cml_et_temp(c, (uint64_t)m->count * 8 * (uint64_t)m->vectors);
  if (!indices) return CML_NO_MEMORY;
  for (int k = 0; k < m->vectors; k++) p->vectors[m->first + k].t.data = indices + k * m->count;
  start_mask(m);
  for (int64_t found = 0; found < m->count; walk_next(&m->at)) {
    if (!bits[m->at.offsets[0]]) continue;
    for (int k = 0; k < m->vectors; k++) indices[k * m->count + found] = m->at.at[k];
    found++;
  }
  return CML_OK;
}

static void start_places(places *p) {
  int64_t strides[CML_PTE_MAX_RANK];
  for (int i = 0; i < p->count; i++) {
    p->walks[i] = (walk){0};
    cml_et_broadcast_strides(p->tensors[i], p->rank, p->sizes, strides);
    for (size_t k = 0; k < p->rank; k++) walk_dim(&p->walks[i], p->sizes[k], strides[k], 0, 0);
  }
  for (int i = 0; i < p->mask_count; i++) start_mask(&p->masks[i]);
}

static void next_of_mask(places *p, mask_index *m, int64_t n) {
  const uint8_t *bits = m->t->data;
  for (int64_t k = 0; k < n; k++, walk_next(&m->at)) {
    if (m->found++ == m->count) start_mask(m), m->found = 1;
    while (!bits[m->at.offsets[0]]) walk_next(&m->at);
    for (int v = 0; v < m->vectors; v++) p->offsets[k] += m->at.at[v] * p->steps[m->first + v];
  }
}

/* The offsets of the next n places. */
static cml_status next_places(cml_et_call *c, places *p, int64_t n, cml_error *err) {
  memset(p->offsets, 0, (size_t)n * sizeof *p->offsets);
  for (int i = 0; i < p->count; i++) {
    const cml_et_tensor *t = p->tensors[i];
    int64_t size = p->sizes_of[i], step = p->steps[i];
    walk *w = &p->walks[i];
    for (int64_t k = 0; t->data && k < n; k++, walk_next(w)) {
      int64_t v = index_at(t, w->offsets[0]), place = v < 0 && p->negative ? v + size : v;
      if (place < 0 || place >= size) return bad_index(c, v, size, err);
      p->offsets[k] += place * step;
    }
  }
  for (int i = 0; i < p->mask_count; i++)
    if (p->masks[i].in_order) next_of_mask(p, &p->masks[i], n);
  return CML_OK;
}

/* Where there are several pieces, all indices are checked before the first is used. */
static cml_status find_places(cml_et_call *c, places *p, const cml_et_tensor *self, bool negative, cml_error *err) {
  CML_TRY(cml_et_broadcast(c, p->tensors, (size_t)p->count, &p->rank, p->sizes, err));
  p->negative = negative;
  p->total = 1;
  for (size_t k = 0; k < p->rank; k++)
    if (__builtin_mul_overflow(p->total, p->sizes[k], &p->total)) return cml_et_fail(c, err, "the indices broadcast to too many");
  for (int i = 0; i < p->count; i++) p->sizes_of[i] = self->sizes[p->dims[i]], p->steps[i] = self->strides[p->dims[i]];
  for (int i = 0; i < p->mask_count; i++) {
    mask_index *m = &p->masks[i];
    m->in_order = m->count == p->sizes[p->rank - 1] && (p->rank == 1 || m->count * m->vectors > VECTORS);
    if (!m->in_order && m->count && write_vectors(c, p, m)) return cml_fail_memory(err);
  }
  if (!(p->offsets = cml_et_temp(c, (uint64_t)(p->total < PIECE ? p->total : PIECE) * sizeof *p->offsets))) return cml_fail_memory(err);
  start_places(p);
  for (int64_t at = 0; at < p->total; at += PIECE) CML_TRY(next_places(c, p, p->total - at < PIECE ? p->total - at : PIECE, err));
  p->known = p->total <= PIECE;
  if (!p->known) start_places(p);
  return CML_OK;
}

static cml_status take_places(cml_et_call *c, places *p, size_t list, const cml_et_tensor *self, cml_error *err) {
  int dim = 0;
  p->count = p->mask_count = 0;
  for (uint32_t i = 0; i < c->args[list]->count; i++) {
    const cml_et_tensor *t = cml_et_item(c, list, i);
    if (t && (t->dtype == CML_BOOL || t->dtype == CML_U8)) {
      if (!t->rank) return cml_et_fail(c, err, "a mask of rank 0 is not taken");
      CML_TRY(take_mask(c, p, t, self, dim, err));
      dim += t->rank;
      continue;
    }
    if (dim >= self->rank) return cml_et_fail(c, err, "too many indices for a tensor of rank %d", self->rank);
    if (t) {
      CML_TRY(cml_et_want(c, t, CML_MASK(I64) | CML_MASK(I32), "an index", err));
      p->tensors[p->count] = t;
      p->dims[p->count++] = dim;
    }
    dim++;
  }
  return find_places(c, p, self, true, err);
}

/* The result's shape: the indices' dimensions stand where the indexed ones were, when those are neighbours, else in front. other:
 * for each of its dimensions the input's, or -1 - k for the indices' dimension k. */
static cml_status result_shape(cml_et_call *c, const places *p, const cml_et_tensor *self, size_t *rank, int64_t *sizes, int *other, cml_error *err) {
  bool together = true;
  for (int i = 1; i < p->count; i++) together &= p->dims[i] == p->dims[i - 1] + 1;
  int front = together && p->count ? p->dims[0] : 0, dim = 0;
  *rank = 0;
  if ((size_t)self->rank - (size_t)p->count + p->rank > CML_PTE_MAX_RANK) return cml_et_fail(c, err, "the result has too many dimensions");
  for (int stage = 0; stage < 3; stage++) {
    if (stage == 1)
      for (size_t k = 0; k < p->rank; k++) {
        sizes[*rank] = p->sizes[k];
        other[(*rank)++] = -1 - (int)k;
      }
    for (; stage != 1 && dim < self->rank && (stage == 2 || dim < front); dim++) {
      bool indexed = false;
      for (int i = 0; i < p->count; i++) indexed |= p->dims[i] == dim;
      if (indexed) continue;
      sizes[*rank] = self->sizes[dim];
      other[(*rank)++] = dim;
    }
  }
  return CML_OK;
}

typedef enum direction { READ, WRITE, ADD } direction;

/* to[i * step] = from[offsets[i]] */
static void gather_row(char *to, int64_t step, const char *from, const int64_t *offsets, int64_t n, size_t width) {
#define GATHER(T) for (int64_t i = 0; i < n; i++) ((T *)(void *)to)[i * step] = ((const T *)(const void *)from)[offsets[i]]
  switch (width) {
    case 1: GATHER(uint8_t); break;
    case 2: GATHER(uint16_t); break;
    case 4: GATHER(uint32_t); break;
    default: GATHER(uint64_t); break;
  }
#undef GATHER
}

/* A run of places, from place `from` on, between which and `other` elements move; outer walks over the indices' dimensions in other,
 * inner over the others in both, whose innermost `run` elements are dense. */
typedef struct move {
  cml_et_tensor *self, *other;
  direction d;
  walk inner, outer;
  int64_t run, blocks;
} move;

static void move_piece(move *m, const places *p, int64_t from, int64_t n) {
  size_t width = cml_et_width(m->self);
  if (m->d == READ && m->run == 1 && p->rank == 1) { /* an index into the last dimension: all of it for each row */
    int64_t step = m->outer.strides[0][0];
    for (int64_t b = 0; b < m->blocks; b++, walk_next(&m->inner))
      gather_row((char *)m->other->data + (size_t)(m->inner.offsets[1] + from * step) * width, step,
                 (const char *)m->self->data + (size_t)m->inner.offsets[0] * width, p->offsets, n, width);
    return;
  }
  for (int64_t i = 0; i < n; i++, walk_next(&m->outer))
    for (int64_t b = 0; b < m->blocks; b++, walk_next(&m->inner)) {
      int64_t x = p->offsets[i] + m->inner.offsets[0], y = m->outer.offsets[0] + m->inner.offsets[1];
      char *at = (char *)m->self->data + (size_t)x * width, *to = (char *)m->other->data + (size_t)y * width;
      bool read = m->d == READ;
      if (m->d == ADD) add_element(m->self, x, m->other, y);
      else if (m->run == 1) copy_element(read ? to : at, read ? at : to, width);
      else memmove(read ? to : at, read ? at : to, (size_t)m->run * width); /* plans that lie may let them overlap */
    }
}

/* Moves between the places of `self` and `other`, whose strides are given for the result's shape. */
static cml_status move_places(cml_et_call *c, places *p, cml_et_tensor *self, cml_et_tensor *other, const int64_t *strides, size_t rank, const int *map,
                              direction d, cml_error *err) {
  move m = {.self = self, .other = other, .d = d, .run = 1, .blocks = 1};
  int order[CML_PTE_MAX_RANK], kept = 0;
  for (size_t k = 0; k < rank; k++)
    if (map[k] >= 0) order[kept++] = (int)k;
    else walk_dim(&m.outer, p->sizes[-1 - map[k]], strides[k], 0, 0);
  for (; kept > 0; kept--) { /* what is dense on both sides is one run */
    int k = order[kept - 1];
    if (d == ADD || self->strides[map[k]] != m.run || strides[k] != m.run) break;
    m.run *= self->sizes[map[k]];
  }
  for (int i = 0; i < kept; i++) {
    walk_dim(&m.inner, self->sizes[map[order[i]]], self->strides[map[order[i]]], strides[order[i]], 0);
    m.blocks *= self->sizes[map[order[i]]];
  }
  for (int64_t at = 0; m.run && m.blocks && at < p->total; at += PIECE) {
    int64_t n = p->total - at < PIECE ? p->total - at : PIECE;
    if (!p->known) CML_TRY(next_places(c, p, n, err));
    move_piece(&m, p, at, n);
  }
  return CML_OK;
}

static cml_status read_places(cml_et_call *c, places *p, const cml_et_tensor *self, cml_et_tensor *out, cml_error *err) {
  int64_t sizes[CML_PTE_MAX_RANK];
  int map[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(cml_et_same_type(c, self, out, err));
  CML_TRY(result_shape(c, p, self, &rank, sizes, map, err));
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  return move_places(c, p, (cml_et_tensor *)(uintptr_t)self, out, out->strides, rank, map, READ, err);
}

static cml_status op_index(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0);
  places p;
  CML_TRY(take_places(c, &p, 1, self, err));
  return read_places(c, &p, self, cml_et_arg(c, 2), err);
}

static cml_status index_put(cml_et_call *c, cml_et_tensor *out, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0), *values = cml_et_arg(c, 2);
  int64_t sizes[CML_PTE_MAX_RANK], strides[CML_PTE_MAX_RANK];
  int map[CML_PTE_MAX_RANK];
  size_t rank;
  places p;
  CML_TRY(cml_et_same_type(c, self, out, err));
  CML_TRY(cml_et_same_type(c, self, values, err));
  CML_TRY(cml_et_want(c, self, CML_ET_ANY, "the tensor", err));
  CML_TRY(cml_et_resize_like(c, out, self, err)); /* the places are offsets into out */
  CML_TRY(take_places(c, &p, 1, out, err));
  CML_TRY(result_shape(c, &p, self, &rank, sizes, map, err));
  for (int k = 0; k < values->rank; k++) {
    int64_t at = (int64_t)rank - values->rank + k;
    if (at < 0 ? values->sizes[k] != 1 : values->sizes[k] != 1 && values->sizes[k] != sizes[at])
      return cml_et_fail(c, err, "the values do not broadcast to what is indexed");
  }
  cml_et_local shape;
  const cml_et_tensor *v = values;
  while (v->rank > rank) { /* leading dimensions of 1 */
    cml_et_view view = cml_et_view_of(v);
    cml_et_view_select(&view, 0, 0);
    cml_et_local next;
    cml_et_view_tensor(&view, &next);
    shape = next;
    shape.t.sizes = shape.sizes;
    shape.t.strides = shape.strides;
    shape.t.order = shape.order;
    v = &shape.t;
  }
  cml_et_broadcast_strides(v, rank, sizes, strides);
  cml_et_view to = cml_et_view_of(out), from = cml_et_view_of(self);
  cml_et_view_move(c, &to, &from);
  return move_places(c, &p, out, (cml_et_tensor *)(uintptr_t)v, strides, rank, map, cml_et_bool(c, 3, false) ? ADD : WRITE, err);
}
static cml_status op_index_put(cml_et_call *c, cml_error *err) { return index_put(c, cml_et_arg(c, 4), err); }
static cml_status op_index_put_(cml_et_call *c, cml_error *err) { return index_put(c, cml_et_arg(c, 0), err); }

static cml_status select_rows(cml_et_call *c, const cml_et_tensor *self, int axis, const cml_et_tensor *index, cml_et_tensor *out, cml_error *err) {
  places p;
  CML_TRY(cml_et_want(c, index, CML_MASK(I64) | CML_MASK(I32), "the index", err));
  p.count = 1;
  p.mask_count = 0;
  p.dims[0] = axis;
  p.tensors[0] = index;
  CML_TRY(find_places(c, &p, self, false, err));
  return read_places(c, &p, self, out, err);
}

/* Of a tensor of rank 0 there is index 0. */
static cml_status select_number(cml_et_call *c, const cml_et_tensor *self, const cml_et_tensor *index, cml_et_tensor *out, cml_error *err) {
  CML_TRY(cml_et_want(c, index, CML_MASK(I64) | CML_MASK(I32), "the index", err));
  if (index_at(index, 0)) return bad_index(c, index_at(index, 0), 1, err);
  cml_et_view view = cml_et_view_of(self);
  return cml_et_view_emit(c, &view, out, err);
}

static cml_status op_index_select(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0), *index = cml_et_arg(c, 2);
  cml_et_local local;
  int64_t n = cml_et_numel(index);
  int axis;
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), self->rank, &axis, err));
  if (index->rank > 1 || (!self->rank && n != 1)) return cml_et_fail(c, err, "takes a vector of indices, and one index for a tensor of rank 0");
  if (!self->rank) return select_number(c, self, index, cml_et_arg(c, 3), err);
  cml_et_make(&local, index->dtype, 1, &n, index->data);
  return select_rows(c, self, axis, &local.t, cml_et_arg(c, 3), err);
}

static cml_status op_embedding(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *weight = cml_et_arg(c, 0);
  if (weight->rank != 2) return cml_et_fail(c, err, "the weight is of rank %d, not a matrix", weight->rank);
  return select_rows(c, weight, 0, cml_et_arg(c, 1), cml_et_arg(c, 5), err);
}

/* ---- masks ---- */

/* 0: tensor, 1: mask, both broadcast; 2: contiguous. */
static cml_status walk_masked(cml_et_call *c, walk *w, int64_t *total, size_t *rank, int64_t *sizes, cml_error *err) {
  const cml_et_tensor *both[2] = {cml_et_arg(c, 0), cml_et_arg(c, 1)};
  int64_t strides[2][CML_PTE_MAX_RANK];
  CML_TRY(cml_et_want(c, both[1], CML_M_BOOL | CML_MASK(U8), "the mask", err));
  CML_TRY(cml_et_broadcast(c, both, 2, rank, sizes, err));
  *total = 1;
  for (size_t k = 0; k < *rank; k++)
    if (__builtin_mul_overflow(*total, sizes[k], total)) return cml_et_fail(c, err, "the shapes broadcast to too many elements");
  for (int i = 0; i < 2; i++) cml_et_broadcast_strides(both[i], *rank, sizes, strides[i]);
  *w = (walk){0};
  for (size_t k = 0; k < *rank; k++) walk_dim(w, sizes[k], strides[0][k], strides[1][k], 0);
  return CML_OK;
}

/* The tensor and the mask lie alike, in the order of their dimensions. */
static bool masked_densely(const cml_et_call *c) {
  return cml_et_same_shape(cml_et_arg(c, 0), cml_et_arg(c, 1)) && cml_et_is_contiguous(cml_et_arg(c, 0)) && cml_et_is_contiguous(cml_et_arg(c, 1));
}

static cml_status op_masked_select(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0);
  const uint8_t *mask = cml_et_arg(c, 1)->data;
  cml_et_tensor *out = cml_et_arg(c, 2);
  int64_t total, count = 0, sizes[CML_PTE_MAX_RANK];
  size_t rank, width = cml_et_width(self);
  walk first, w;
  CML_TRY(cml_et_same_type(c, self, out, err));
  CML_TRY(walk_masked(c, &first, &total, &rank, sizes, err));
  w = first;
  for (int64_t i = 0; i < total; i++, walk_next(&w)) count += mask[w.offsets[1]] != 0;
  CML_TRY(cml_et_resize(c, out, 1, &count, err));
  w = first;
  char *to = out->data;
  if (width == 4 && masked_densely(c)) { /* each element is written, and stays where the mask holds: nothing to guess for the CPU */
    const uint32_t *x = self->data;
    uint32_t *y = out->data;
    for (int64_t i = 0, used = 0; used < count; i++) {
      y[used] = x[i];
      used += mask[i] != 0;
    }
    return CML_OK;
  }
  for (int64_t i = 0; i < total; i++, walk_next(&w))
    if (mask[w.offsets[1]]) {
      copy_element(to, (const char *)self->data + (size_t)w.offsets[0] * width, width);
      to += width;
    }
  return CML_OK;
}

static cml_status op_masked_scatter(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0), *source = cml_et_arg(c, 2);
  const uint8_t *mask = cml_et_arg(c, 1)->data;
  cml_et_tensor *out = cml_et_arg(c, 3);
  int64_t total, sizes[CML_PTE_MAX_RANK], used = 0;
  size_t rank, width = cml_et_width(self);
  walk w, from_source = {0};
  CML_TRY(cml_et_same_type(c, self, out, err));
  CML_TRY(cml_et_same_type(c, self, source, err));
  CML_TRY(walk_masked(c, &w, &total, &rank, sizes, err));
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  for (size_t k = 0; k < rank; k++) w.strides[2][k] = out->strides[k];
  int64_t room = cml_et_numel(source);
  if (width == 4 && room && masked_densely(c) && cml_et_is_contiguous(out) && cml_et_is_contiguous(source) && source->data != out->data) {
    const uint32_t *x = self->data, *s = source->data;
    uint32_t *y = out->data;
    for (int64_t i = 0; i < total; i++) {
      uint32_t take = mask[i] != 0, all = -take, given = s[used < room ? used : room - 1]; /* no branch: masks are hard to foresee */
      y[i] = (given & all) | (x[i] & ~all);
      used += take;
    }
    return used <= room ? CML_OK : cml_et_fail(c, err, "the source has only %lld elements", (long long)room);
  }
  for (int k = 0; k < source->rank; k++) walk_dim(&from_source, source->sizes[k], source->strides[k], 0, 0);
  for (int64_t i = 0; i < total; i++, walk_next(&w)) {
    const char *from = (const char *)self->data + (size_t)w.offsets[0] * width;
    if (mask[w.offsets[1]]) {
      if (used++ == room) return cml_et_fail(c, err, "the source has only %lld elements", (long long)room);
      from = (const char *)source->data + (size_t)from_source.offsets[0] * width;
      walk_next(&from_source);
    }
    copy_element((char *)out->data + (size_t)w.offsets[2] * width, from, width);
  }
  return CML_OK;
}

enum { FLAGS = 1024 }; /* elements that are looked at together */

/* Whether elements first .. first + n of x are not 0: from `all` where that was noted, else in `piece`. */
static const uint8_t *flags_of(const cml_et_tensor *x, const uint8_t *all, int64_t first, int64_t n, uint8_t *piece) {
  int64_t gathered[FLAGS];
  cml_et_local from, to;
  if (all) return all + first;
  bool dense = cml_et_is_contiguous(x);
  cml_et_make(&from, x->dtype, 1, &n, dense ? (char *)x->data + (size_t)first * cml_et_width(x) : (char *)gathered);
  if (!dense) cml_et_move_run(&from.t, 0, x, first, n);
  cml_et_make(&to, CML_BOOL, 1, &n, piece);
  cml_et_copy(&to.t, &from.t);
  return piece;
}

/* One row for each element that is not 0: its place. torch gives the rows column by column, and so programs declare them. Elements are
 * looked at twice; which are 0 is noted at first where the output lies in their memory. */
static cml_status op_nonzero(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 1);
  int64_t sizes[2] = {0, x->rank}, n = cml_et_numel(x), row = 0;
  uint8_t piece[FLAGS], *all = NULL;
  const char *mine = x->data, *others = out->data;
  CML_TRY(cml_et_want(c, x, CML_ET_ANY, "the tensor", err));
  CML_TRY(cml_et_want(c, out, CML_MASK(I64), "the output", err));
  bool apart = !others || others + out->capacity <= mine || mine + (size_t)n * cml_et_width(x) <= others;
  if (n && !apart) {
    cml_et_local flags;
    if (!(all = cml_et_temp(c, (uint64_t)n))) return cml_fail_memory(err);
    cml_et_make(&flags, CML_BOOL, x->rank, x->sizes, all);
    cml_et_copy(&flags.t, x);
  }
  for (int64_t first = 0, m; first < n; first += m) {
    m = n - first < FLAGS ? n - first : FLAGS;
    const uint8_t *set = flags_of(x, all, first, m, piece);
    for (int64_t i = 0; i < m; i++) sizes[0] += set[i] != 0;
  }
  CML_TRY(cml_et_resize(c, out, 2, sizes, err));
  int64_t *to = out->data;
  for (int64_t first = 0, m; first < n && row < sizes[0]; first += m) {
    m = n - first < FLAGS ? n - first : FLAGS;
    const uint8_t *set = flags_of(x, all, first, m, piece);
    for (int64_t i = 0; i < m && row < sizes[0]; i++) {
      int64_t rest = first + i;
      if (!set[i]) continue;
      for (int k = x->rank - 1; k >= 0; rest /= x->sizes[k], k--) to[row * out->strides[0] + k * out->strides[1]] = rest % x->sizes[k];
      row++;
    }
  }
  return CML_OK;
}

static cml_status op_repeat_interleave(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *repeats = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 2);
  int64_t total = 0, at = 0;
  CML_TRY(cml_et_want(c, repeats, CML_MASK(I64) | CML_MASK(I32), "the tensor", err));
  CML_TRY(cml_et_same_type(c, repeats, out, err));
  if (repeats->rank != 1) return cml_et_fail(c, err, "takes a vector");
  for (int64_t i = 0; i < repeats->sizes[0]; i++) {
    int64_t n = index_at(repeats, i);
    if (n < 0 || __builtin_add_overflow(total, n, &total)) return cml_et_fail(c, err, "%lld repeats", (long long)n);
  }
  if (!cml_et_none(c, 1) && cml_et_int(c, 1, 0) != total) return cml_et_fail(c, err, "output_size is %lld, not %lld", (long long)cml_et_int(c, 1, 0), (long long)total);
  CML_TRY(cml_et_resize(c, out, 1, &total, err));
  for (int64_t i = 0; i < repeats->sizes[0]; i++)
    for (int64_t k = 0, n = index_at(repeats, i); k < n; k++) cml_et_store_i64(out, at++, 1, 1, &i);
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::embedding.out", "txibbo", op_embedding},
    {"aten::gather.out", "tixbo", op_gather},
    {"aten::index.Tensor_out", "tXo", op_index},
    {"aten::index_put.out", "tXtbo", op_index_put},
    {"aten::index_put_", "oXtb", op_index_put_},
    {"aten::index_select.out", "tixo", op_index_select},
    {"aten::masked_scatter.out", "txto", op_masked_scatter},
    {"aten::masked_select.out", "txo", op_masked_select},
    {"aten::nonzero.out", "to", op_nonzero},
    {"aten::repeat_interleave.Tensor_out", "xi?o", op_repeat_interleave},
    {"aten::scatter.src_out", "tixto", op_scatter_src},
    {"aten::scatter.value_out", "tixno", op_scatter_value},
    {"aten::scatter_add.out", "tixto", op_scatter_add},
};
CML_ET_FAMILY(index)
