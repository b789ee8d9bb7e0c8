/* See et_view.h. Equal types go through the strided copy engine of the MIL operators; others row by row through a computing type. */
#include "et_view.h"

#include "strided.h"

cml_et_view cml_et_view_of(const cml_et_tensor *t) {
  cml_et_view v = {.t = t, .rank = t->rank};
  memcpy(v.sizes, t->sizes, t->rank * sizeof *v.sizes);
  memcpy(v.strides, t->strides, t->rank * sizeof *v.strides);
  return v;
}

int64_t cml_et_view_numel(const cml_et_view *v) {
  int64_t n = 1;
  for (int k = 0; k < v->rank; k++) n *= v->sizes[k];
  return n;
}

void cml_et_view_slice(cml_et_view *v, int axis, int64_t start, int64_t count, int64_t step) {
  v->offset += start * v->strides[axis];
  v->sizes[axis] = count;
  v->strides[axis] *= step;
}

void cml_et_view_select(cml_et_view *v, int axis, int64_t index) {
  v->offset += index * v->strides[axis];
  v->rank--;
  for (int k = axis; k < v->rank; k++) {
    v->sizes[k] = v->sizes[k + 1];
    v->strides[k] = v->strides[k + 1];
  }
}

void cml_et_view_insert(cml_et_view *v, int axis, int64_t size, int64_t stride) {
  for (int k = v->rank; k > axis; k--) {
    v->sizes[k] = v->sizes[k - 1];
    v->strides[k] = v->strides[k - 1];
  }
  v->sizes[axis] = size;
  v->strides[axis] = stride;
  v->rank++;
}

void cml_et_view_split(cml_et_view *v, int axis, int64_t inner) {
  cml_et_view_insert(v, axis + 1, inner, v->strides[axis]);
  v->sizes[axis] /= inner;
  v->strides[axis] *= inner;
}

void cml_et_view_permute(cml_et_view *v, const int *order) {
  cml_et_view old = *v;
  for (int k = 0; k < v->rank; k++) {
    v->sizes[k] = old.sizes[order[k]];
    v->strides[k] = old.strides[order[k]];
  }
}

const cml_et_tensor *cml_et_view_tensor(const cml_et_view *v, cml_et_local *out) {
  size_t width = cml_et_width(v->t);
  cml_et_make(out, v->t->dtype, (size_t)v->rank, v->sizes, v->t->data ? (char *)v->t->data + v->offset * (int64_t)width : NULL);
  memcpy(out->strides, v->strides, (size_t)v->rank * sizeof *v->strides);
  return &out->t;
}

/* Row k of the conversion: `inner` elements. */
static void convert(const cml_et_view *to, const cml_et_view *from, int64_t to_at, int64_t from_at, int64_t to_step, int64_t from_step,
                    int64_t count) {
  enum { CHUNK = 512 };
  union { float f[CHUNK]; double d[CHUNK]; int64_t i[CHUNK]; } b;
  cml_et_tensor *out = (cml_et_tensor *)(uintptr_t)to->t;
  for (int64_t at = 0; at < count; at += CHUNK) {
    int64_t n = count - at < CHUNK ? count - at : CHUNK, x = from_at + at * from_step, y = to_at + at * to_step;
    if (out->dtype == CML_F32 && to_step == 1 && (from->t->dtype != CML_F64)) { /* one rounding, whatever it was */
      cml_et_load_f32((float *)out->data + y, from->t, x, from_step, n);
    } else if (from->t->dtype == CML_F64) {
      cml_et_load_f64(b.d, from->t, x, from_step, n);
      cml_et_store_f64(out, y, to_step, n, b.d);
    } else if (cml_dtype_is_float(from->t->dtype)) {
      cml_et_load_f32(b.f, from->t, x, from_step, n);
      cml_et_store_f32(out, y, to_step, n, b.f);
    } else {
      cml_et_load_i64(b.i, from->t, x, from_step, n);
      cml_et_store_i64(out, y, to_step, n, b.i);
    }
  }
}

static void convert_all(const cml_et_view *to, const cml_et_view *from) {
  int64_t at[CML_ET_VIEW_RANK] = {0}, x = from->offset, y = to->offset, sizes[CML_ET_VIEW_RANK], xs[CML_ET_VIEW_RANK], ys[CML_ET_VIEW_RANK];
  int rank = 0;
  for (int k = 0; k < to->rank; k++) {
    if (to->sizes[k] == 1) continue;
    bool join = rank && xs[rank - 1] == from->strides[k] * to->sizes[k] && ys[rank - 1] == to->strides[k] * to->sizes[k];
    if (!join) sizes[rank++] = 1;
    sizes[rank - 1] *= to->sizes[k];
    xs[rank - 1] = from->strides[k];
    ys[rank - 1] = to->strides[k];
  }
  int last = rank - 1;
  for (;;) {
    convert(to, from, y, x, last < 0 ? 1 : ys[last], last < 0 ? 1 : xs[last], last < 0 ? 1 : sizes[last]);
    int k = last - 1;
    for (; k >= 0; k--) {
      x += xs[k];
      y += ys[k];
      if (++at[k] < sizes[k]) break;
      x -= at[k] * xs[k];
      y -= at[k] * ys[k];
      at[k] = 0;
    }
    if (k < 0) return;
  }
}

void cml_et_view_move(cml_et_call *c, const cml_et_view *to, const cml_et_view *from) {
  if (cml_et_view_numel(to) == 0) return;
  if (to->t->dtype != from->t->dtype) {
    convert_all(to, from);
    return;
  }
  size_t width = cml_et_width(to->t);
  cml_strided s = {.size = width};
  for (int k = 0; k < to->rank; k++) cml_strided_loop(&s, to->sizes[k], to->strides[k], from->strides[k]);
  char *y = (char *)to->t->data + to->offset * (int64_t)width;
  const char *x = (const char *)from->t->data + from->offset * (int64_t)width;
  bool same = x == y;
  for (int k = 0; same && k < to->rank; k++) same = to->sizes[k] == 1 || to->strides[k] == from->strides[k];
  if (!same) cml_strided_copy(&s, y, x, c->pool);
}

cml_status cml_et_same_type(const cml_et_call *c, const cml_et_tensor *a, const cml_et_tensor *b, cml_error *err) {
  if (a->dtype == b->dtype) return CML_OK;
  return cml_et_fail(c, err, "an argument of type %s meets one of type %s", cml_dtype_name(a->dtype), cml_dtype_name(b->dtype));
}

cml_et_tensor *cml_et_dense(cml_et_call *c, cml_et_tensor *out, cml_et_local *local) {
  if (cml_et_is_contiguous(out)) return out;
  cml_et_make(local, out->dtype, out->rank, out->sizes, cml_et_temp(c, (uint64_t)cml_et_numel(out) * cml_et_width(out)));
  return local->t.data ? &local->t : NULL;
}

void cml_et_dense_done(cml_et_tensor *out, const cml_et_tensor *dense) {
  if (dense != out) cml_et_copy(out, dense);
}

cml_status cml_et_view_emit(cml_et_call *c, const cml_et_view *from, cml_et_tensor *out, cml_error *err) {
  CML_TRY(cml_et_same_type(c, from->t, out, err));
  CML_TRY(cml_et_resize(c, out, (size_t)from->rank, from->sizes, err));
  cml_et_view to = cml_et_view_of(out);
  cml_et_view_move(c, &to, from);
  return CML_OK;
}
