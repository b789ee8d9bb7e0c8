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

/* ---- runs ---- */

void cml_et_run_from(cml_et_run *r, const cml_et_tensor *t, int64_t first) {
  *r = (cml_et_run){.t = t, .step = 1, .place = first, .at = first, .size = cml_et_numel(t)};
  if (cml_et_is_contiguous(t)) return;
  r->place = 0;
  for (int k = t->rank - 1; k >= 0; k--) {
    r->index[k] = first % t->sizes[k];
    r->place += r->index[k] * t->strides[k];
    first /= t->sizes[k];
  }
  r->at = r->index[t->rank - 1];
  r->size = t->sizes[t->rank - 1];
  r->step = t->strides[t->rank - 1];
}

int64_t cml_et_run_take(cml_et_run *r, int64_t most, int64_t *place) {
  const cml_et_tensor *t = r->t;
  int64_t n = r->size - r->at < most ? r->size - r->at : most;
  *place = r->place;
  r->at += n;
  r->place += n * r->step;
  if (r->at < r->size) return n;
  r->place -= r->size * r->step;
  r->at = 0;
  for (int k = t->rank - 2; k >= 0; k--) {
    r->place += t->strides[k];
    if (++r->index[k] < t->sizes[k]) break;
    r->place -= r->index[k] * t->strides[k];
    r->index[k] = 0;
  }
  return n;
}

#define EACH_RUN(call)                            \
  {                                               \
    cml_et_run r;                                 \
    if (n > 0) cml_et_run_from(&r, t, first);     \
    for (int64_t at = 0, m, place; at < n; at += m) { \
      m = cml_et_run_take(&r, n - at, &place);    \
      call;                                       \
    }                                             \
  }
void cml_et_load_run_f32(float *out, const cml_et_tensor *t, int64_t first, int64_t n) EACH_RUN(cml_et_load_f32(out + at, t, place, r.step, m))
void cml_et_load_run_f64(double *out, const cml_et_tensor *t, int64_t first, int64_t n) EACH_RUN(cml_et_load_f64(out + at, t, place, r.step, m))
void cml_et_store_run_f32(cml_et_tensor *t, int64_t first, int64_t n, const float *in) EACH_RUN(cml_et_store_f32(t, place, r.step, m, in + at))
void cml_et_store_run_f64(cml_et_tensor *t, int64_t first, int64_t n, const double *in) EACH_RUN(cml_et_store_f64(t, place, r.step, m, in + at))

#define STEPS(T)                                                        \
  {                                                                     \
    T *y = to;                                                          \
    const T *x = from;                                                  \
    for (int64_t i = 0; i < count; i++) y[i * to_step] = x[i * from_step]; \
  }                                                                     \
  break

void cml_et_copy_steps(void *to, int64_t to_step, const void *from, int64_t from_step, int64_t count, size_t width) {
  if (to_step == 1 && from_step == 1) {
    memmove(to, from, (size_t)count * width);
    return;
  }
  switch (width) {
    case 1: STEPS(uint8_t);
    case 2: STEPS(uint16_t);
    case 4: STEPS(uint32_t);
    default: STEPS(uint64_t);
  }
}

void cml_et_move_run(cml_et_tensor *to, int64_t to_first, const cml_et_tensor *from, int64_t from_first, int64_t n) {
  size_t width = cml_et_width(to);
  cml_et_run x, y;
  if (n <= 0) return;
  cml_et_run_from(&x, from, from_first);
  cml_et_run_from(&y, to, to_first);
  for (int64_t at = 0, m, source, place; at < n; at += m) {
    int64_t most = y.size - y.at < n - at ? y.size - y.at : n - at;
    m = cml_et_run_take(&x, most, &source);
    cml_et_run_take(&y, m, &place);
    cml_et_copy_steps((char *)to->data + (size_t)place * width, y.step, (const char *)from->data + (size_t)source * width, x.step, m, width);
  }
}

cml_status cml_et_view_emit(cml_et_call *c, const cml_et_view *from, cml_et_tensor *out, cml_error *err) {
  CML_TRY(cml_et_same_type(c, from->t, out, err));
  CML_TRY(cml_et_resize(c, out, (size_t)from->rank, from->sizes, err));
  cml_et_view to = cml_et_view_of(out);
  cml_et_view_move(c, &to, from);
  return CML_OK;
}
