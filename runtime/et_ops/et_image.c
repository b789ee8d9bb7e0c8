/* Images: resizing, sampling at grids, padding. */
#include <math.h>

#include "et_families.h"
#include "et_view.h"
#include "strided.h"

/* ---- padding: each padded dimension is up to three runs: before, the tensor itself, behind ---- */

typedef struct padding {
  int64_t before[CML_PTE_MAX_RANK], after[CML_PTE_MAX_RANK];
} padding;

/* Pairs for the last dimensions, last first. */
static cml_status take_padding(cml_et_call *c, const cml_et_tensor *x, padding *p, int64_t *sizes, cml_error *err) {
  int64_t list[2 * CML_PTE_MAX_RANK];
  size_t count;
  CML_TRY(cml_et_ints(c, 1, list, 2 * CML_PTE_MAX_RANK, &count, err));
  if (count % 2 || count / 2 > x->rank) return cml_et_fail(c, err, "%zu numbers to pad a tensor of rank %d", count, x->rank);
  memset(p, 0, sizeof *p);
  for (size_t i = 0; i < count / 2; i++) {
    size_t k = x->rank - 1 - i;
    p->before[k] = list[2 * i];
    p->after[k] = list[2 * i + 1];
  }
  for (int k = 0; k < x->rank; k++) {
    int64_t n = x->sizes[k], a = p->before[k], b = p->after[k];
    if (a > INT32_MAX || b > INT32_MAX || a < -n || b < -n || n + a + b < 0) return cml_et_fail(c, err, "dimension %d of %lld cannot be padded by %lld and %lld", k, (long long)n, (long long)a, (long long)b);
    sizes[k] = n + a + b;
  }
  return CML_OK;
}

/* What is left of the tensor itself, on both sides. */
static void middle(cml_et_view *from, cml_et_view *to, int k, const padding *p) {
  int64_t a = p->before[k], b = p->after[k], n = from->sizes[k] + (a < 0 ? a : 0) + (b < 0 ? b : 0);
  cml_et_view_slice(from, k, a < 0 ? -a : 0, n > 0 ? n : 0, 1);
  cml_et_view_slice(to, k, a > 0 ? a : 0, n > 0 ? n : 0, 1);
}

static cml_status op_constant_pad(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 3);
  int64_t sizes[CML_PTE_MAX_RANK];
  uint64_t value = 0;
  cml_et_number n = cml_et_scalar(c, 2);
  cml_et_local one;
  padding p;
  CML_TRY(cml_et_same_type(c, x, out, err));
  CML_TRY(cml_et_want(c, x, CML_ET_ANY, "the tensor", err));
  CML_TRY(take_padding(c, x, &p, sizes, err));
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  cml_et_make(&one, out->dtype, 0, NULL, &value);
  if (n.kind == CML_PTE_REAL) cml_et_store_f64(&one.t, 0, 1, 1, &n.d);
  else cml_et_store_i64(&one.t, 0, 1, 1, &n.i);
  cml_fill_elements(out->data, &value, cml_et_width(out), cml_et_numel(out), c->pool);
  cml_et_view from = cml_et_view_of(x), to = cml_et_view_of(out);
  for (int k = 0; k < x->rank; k++) middle(&from, &to, k, &p);
  cml_et_view_move(c, &to, &from);
  return CML_OK;
}

/* Run `which` (0 before, 1 middle, 2 behind) of dimension k; false when there is nothing of it. */
static bool pad_run(cml_et_view *from, cml_et_view *to, int k, const padding *p, int which, bool reflect) {
  int64_t n = from->sizes[k], count = which ? p->after[k] : p->before[k];
  if (which == 1) {
    middle(from, to, k, p);
    return true;
  }
  if (count <= 0) return false;
  cml_et_view_slice(to, k, which ? to->sizes[k] - count : 0, count, 1);
  if (reflect) cml_et_view_slice(from, k, which ? n - 2 : count, count, -1);
  else cml_et_view_slice(from, k, which ? n - 1 : 0, count, 0);
  return true;
}

static cml_status pad_edges(cml_et_call *c, int dims, bool reflect, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 2);
  int64_t sizes[CML_PTE_MAX_RANK];
  int runs = 1;
  padding p;
  CML_TRY(cml_et_same_type(c, x, out, err));
  if (x->rank != dims + 1 && x->rank != dims + 2) return cml_et_fail(c, err, "a tensor of rank %d, where %d or %d is wanted", x->rank, dims + 1, dims + 2);
  if (cml_et_count(c, 1) != (size_t)(2 * dims)) return cml_et_fail(c, err, "%zu numbers, where %d are wanted", cml_et_count(c, 1), 2 * dims);
  CML_TRY(take_padding(c, x, &p, sizes, err));
  for (int k = x->rank - dims; k < x->rank; k++) {
    int64_t most = reflect ? x->sizes[k] - 1 : x->sizes[k] ? INT64_MAX : 0;
    if (p.before[k] > most || p.after[k] > most || sizes[k] < 1) return cml_et_fail(c, err, "dimension %d of %lld cannot be padded so far", k, (long long)x->sizes[k]);
    runs *= 3;
  }
  CML_TRY(cml_et_resize(c, out, x->rank, sizes, err));
  for (int r = 0; r < runs; r++) {
    cml_et_view from = cml_et_view_of(x), to = cml_et_view_of(out);
    bool some = true;
    for (int k = x->rank - dims, rest = r; k < x->rank && some; k++, rest /= 3) some = pad_run(&from, &to, k, &p, rest % 3, reflect);
    if (some) cml_et_view_move(c, &to, &from);
  }
  return CML_OK;
}
#define PAD(name, dims, reflect) \
  static cml_status name(cml_et_call *c, cml_error *err) { return pad_edges(c, dims, reflect, err); }
PAD(op_reflection1, 1, true)
PAD(op_reflection2, 2, true)
PAD(op_reflection3, 3, true)
PAD(op_replication1, 1, false)
PAD(op_replication2, 2, false)
PAD(op_replication3, 3, false)

/* ---- resizing: a table of sources and weights for each dimension, applied to columns, then to rows ---- */

/* A dimension from `in` to `out` positions. */
typedef struct scaling scaling;
struct scaling {
  void (*fill)(scaling *s); /* the table of positions begin .. begin + count */
  int64_t in, out;
  double scale, width;      /* source positions between neighbours; of half a triangle */
  bool align, wide;
  int64_t most;             /* taps of a position */
  int64_t span;             /* positions of a table: it and the sources behind it are bounded */
  int64_t begin, count;     /* of the table */
  int64_t *first, *taps;
  double *weights;          /* [position][most]; NULL: of so many taps that they are computed when they are used, a position in a table */
  double center, sum;       /* then: of the position's triangle */
};

enum { TABLE = 1 << 14 }; /* numbers in a table, or sources of one */

static cml_status make_table(cml_et_call *c, scaling *s, cml_error *err) {
  double each = s->scale > (double)s->most + 2 ? s->scale : (double)s->most + 2;
  uint64_t bytes;
  s->span = each < TABLE ? (int64_t)(TABLE / each) : 1;
  if (s->span > s->out) s->span = s->out;
  bool kept = s->most <= TABLE;
  if (!cml_mul((uint64_t)s->span * 8, kept ? (uint64_t)s->most + 2 : 2, &bytes)) return cml_fail_memory(err);
  char *p = cml_et_temp(c, bytes);
  if (!p) return cml_fail_memory(err);
  s->first = (int64_t *)(void *)p;
  s->taps = s->first + s->span;
  s->weights = kept ? (double *)(void *)(s->taps + s->span) : NULL;
  return CML_OK;
}

/* The next positions from `begin` on. */
static void take_table(scaling *s, int64_t begin) {
  s->begin = begin;
  s->count = s->out - begin < s->span ? s->out - begin : s->span;
  s->fill(s);
}

/* torch's area_pixel_compute_scale: in float for all tensors but those of double. */
static double pixel_scale(int64_t in, int64_t out, bool align, double factor, bool wide) {
  double scale = align ? (out > 1 ? (double)(in - 1) / (double)(out - 1) : 0) : factor > 0 ? 1.0 / factor : (double)in / (double)out;
  return wide ? scale : (float)scale;
}

static void fill_nearest(scaling *s) {
  for (int64_t k = 0; k < s->count; k++) {
    int64_t i = s->begin + k;
    int64_t at = s->out == s->in ? i : s->out == 2 * s->in ? i >> 1 : (int64_t)floorf((float)i * (float)s->scale); /* torch takes two sizes for exact */
    s->first[k] = at < s->in ? at : s->in - 1;
    s->taps[k] = 1;
    s->weights[k] = 1;
  }
}

static scaling nearest(int64_t in, int64_t out, double factor) {
  return (scaling){.fill = fill_nearest, .in = in, .out = out, .scale = pixel_scale(in, out, false, factor, false), .most = 1};
}

/* Where output i lies in the image: in float or in double, as the tensor is. */
static double source_of(int64_t i, double scale, bool align, bool wide) {
  if (wide) return align ? scale * (double)i : scale * ((double)i + 0.5) - 0.5;
  float s = (float)scale;
  return align ? s * (float)i : s * ((float)i + 0.5f) - 0.5f;
}

static void fill_linear(scaling *s) {
  for (int64_t k = 0; k < s->count; k++) {
    bool same = s->in == s->out; /* then as torch: neighbours, which may be NaN, are not asked */
    double x = same ? (double)(s->begin + k) : source_of(s->begin + k, s->scale, s->align, s->wide);
    if (x < 0) x = 0;
    int64_t at = x < (double)s->in ? (int64_t)x : s->in - 1;
    bool two = !same && at + 1 < s->in;
    double part = x - (double)at < 1 ? x - (double)at : 1;
    s->first[k] = at;
    s->taps[k] = two ? 2 : 1;
    s->weights[2 * k] = two ? s->wide ? 1 - part : (double)(1 - (float)part) : 1;
    s->weights[2 * k + 1] = part;
  }
}

static scaling linear(const cml_et_tensor *image, int dim, int64_t out, bool align, double factor) {
  int64_t in = image->sizes[dim];
  bool wide = image->dtype == CML_F64;
  return (scaling){.fill = fill_linear, .in = in, .out = out, .scale = pixel_scale(in, out, align, factor, wide), .align = align, .wide = wide, .most = 2};
}

/* Antialiasing: a triangle as wide as the step between outputs. */
static double triangle_at(const scaling *s, double center, int64_t source) {
  double d = fabs(((double)source - center + 0.5) / s->width);
  return d < 1 ? 1 - d : 0;
}

static void fill_triangle(scaling *s) {
  for (int64_t i = 0; i < s->count; i++) {
    double center = s->scale * ((double)(s->begin + i) + 0.5), sum = 0, *w = s->weights ? s->weights + i * s->most : NULL;
    int64_t first = (int64_t)(center - s->width + 0.5), last = (int64_t)(center + s->width + 0.5);
    first = first < 0 ? 0 : first > s->in - 1 ? s->in - 1 : first;
    last = last > s->in ? s->in : last <= first ? first + 1 : last;
    if (last - first > s->most) last = first + s->most;
    for (int64_t k = first; k < last; k++) {
      double v = triangle_at(s, center, k);
      if (w) w[k - first] = v;
      sum += v;
    }
    for (int64_t k = first; k < last && sum != 0 && w; k++) w[k - first] /= sum;
    s->center = center;
    s->sum = sum != 0 ? sum : 1;
    s->first[i] = first;
    s->taps[i] = last - first;
  }
}

static cml_status triangle(cml_et_call *c, scaling *s, int64_t in, int64_t out, bool align, double factor, cml_error *err) {
  double scale = align ? (out > 1 ? (double)(in - 1) / (double)(out - 1) : 0) : factor > 0 ? 1 / factor : (double)in / (double)out, width = scale > 1 ? scale : 1;
  if (!(width < 0x1p24)) return cml_et_fail(c, err, "the scale %g is out of reach", scale);
  int64_t taps = (int64_t)ceil(width) * 2 + 1;
  *s = (scaling){.fill = fill_triangle, .in = in, .out = out, .scale = scale, .width = width, .most = taps < in ? taps : in};
  return CML_OK;
}

/* Of tap k of position i of the table. */
static double weight_of(const scaling *s, int64_t i, int64_t k) {
  return s->weights ? s->weights[i * s->most + k] : triangle_at(s, s->center, s->first[i] + k) / s->sum;
}

/* The only position of a table without weights. */
static double sum_of_many(const scaling *s, const cml_et_tensor *x, int64_t from, int64_t step) {
  double some[256], sum = 0;
  for (int64_t k = 0; k < s->taps[0]; k += 256) {
    int64_t n = s->taps[0] - k < 256 ? s->taps[0] - k : 256;
    cml_et_load_f64(some, x, from + (s->first[0] + k) * step, step, n);
    for (int64_t i = 0; i < n; i++) sum += some[i] * weight_of(s, 0, k + i);
  }
  return sum;
}

/* Rows of the image whose columns are done, some columns of them: row r stands at r % kept. */
typedef struct resized {
  const scaling *h, *w;
  double *row, *lines, *sums; /* of the image; kept * columns; columns */
  int64_t room, columns;      /* of row; of a line */
  int64_t *held, kept;        /* which row stands where */
} resized;

static const double *resized_row(const resized *r, const cml_et_tensor *x, int64_t from, int64_t y) {
  const scaling *w = r->w;
  double *line = r->lines + y % r->kept * r->columns;
  int64_t start = w->first[0];
  if (r->held[y % r->kept] == y) return line;
  r->held[y % r->kept] = y;
  if (!w->weights) {
    double sum = sum_of_many(w, x, from + y * x->strides[2], x->strides[3]);
    line[0] = x->dtype == CML_U8 ? floor(sum + 0.5) : sum;
    return line;
  }
  cml_et_load_f64(r->row, x, from + y * x->strides[2] + start * x->strides[3], x->strides[3], w->first[w->count - 1] + w->taps[w->count - 1] - start);
  for (int64_t i = 0; i < w->count; i++) {
    const double *at = r->row + (w->first[i] - start);
    double sum = at[0] * w->weights[i * w->most];
    for (int64_t k = 1; k < w->taps[i]; k++) sum += at[k] * w->weights[i * w->most + k];
    line[i] = x->dtype == CML_U8 ? floor(sum + 0.5) : sum; /* as torch rounds bytes: after each dimension */
  }
  return line;
}

/* The part of a plane that the two tables give. */
static void resize_plane(const resized *r, const cml_et_tensor *x, int64_t from, cml_et_tensor *out, int64_t to) {
  const scaling *h = r->h;
  double least = out->dtype == CML_U8 ? 0.5 : 0; /* bytes are cut off when they are stored */
  for (int64_t k = 0; k < r->kept; k++) r->held[k] = -1;
  for (int64_t i = 0; i < h->count; i++) {
    for (int64_t k = 0; k < r->w->count; k++) r->sums[k] = least;
    for (int64_t j = 0; j < h->taps[i]; j++) {
      const double *line = resized_row(r, x, from, h->first[i] + j);
      double weight = weight_of(h, i, j);
      for (int64_t k = 0; k < r->w->count; k++) r->sums[k] += line[k] * weight;
    }
    cml_et_store_f64(out, to + (h->begin + i) * out->strides[2] + r->w->begin * out->strides[3], out->strides[3], r->w->count, r->sums);
  }
}

/* A row's room holds what the table reaches: sources go up with positions, and may reach further than the scale says by roundings. */
static cml_status make_room(cml_et_call *c, resized *r, cml_error *err) {
  int64_t reach = r->w->first[r->w->count - 1] + r->w->taps[r->w->count - 1] - r->w->first[0];
  if (reach <= r->room || !r->w->weights) return CML_OK;
  r->room = reach + reach / 8 < r->w->in ? reach + reach / 8 : r->w->in;
  r->row = cml_et_temp(c, (uint64_t)r->room * 8);
  return r->row ? CML_OK : cml_fail_memory(err);
}

static cml_status resize_image(cml_et_call *c, const cml_et_tensor *x, cml_et_tensor *out, scaling *h, scaling *w, cml_error *err) {
  int64_t sizes[4] = {x->sizes[0], x->sizes[1], h->out, w->out};
  CML_TRY(cml_et_resize(c, out, 4, sizes, err));
  if (cml_et_numel(out) == 0) return CML_OK;
  CML_TRY(make_table(c, h, err));
  CML_TRY(make_table(c, w, err));
  resized r = {.h = h, .w = w, .columns = w->span, .kept = 2 * TABLE / w->span};
  r.kept = h->most < r.kept ? h->most : r.kept; /* others are made again */
  r.lines = cml_et_temp(c, (uint64_t)((r.kept + 1) * r.columns) * 8);
  r.held = cml_et_temp(c, (uint64_t)r.kept * 8);
  if (!r.lines || !r.held) return cml_fail_memory(err);
  r.sums = r.lines + r.kept * r.columns;
  for (int64_t left = 0; left < w->out; left += w->count) {
    take_table(w, left);
    CML_TRY(make_room(c, &r, err));
    for (int64_t top = 0; top < h->out; top += h->count) {
      take_table(h, top);
      for (int64_t n = 0; n < sizes[0]; n++)
        for (int64_t k = 0; k < sizes[1]; k++) resize_plane(&r, x, n * x->strides[0] + k * x->strides[1], out, n * out->strides[0] + k * out->strides[1]);
    }
  }
  return CML_OK;
}

/* Nearest: elements move, whatever they are. */
#define PICK(T)                                                                     \
  {                                                                                 \
    T *y = to;                                                                      \
    const T *x = from;                                                              \
    for (int64_t i = 0; i < w->count; i++) y[i * to_step] = x[w->first[i] * from_step]; \
  }                                                                                 \
  break
static void pick_row(void *to, int64_t to_step, const void *from, int64_t from_step, const scaling *w, size_t width) {
  switch (width) {
    case 1: PICK(uint8_t);
    case 2: PICK(uint16_t);
    case 4: PICK(uint32_t);
    default: PICK(uint64_t);
  }
}

static void pick_plane(const cml_et_tensor *x, int64_t from, cml_et_tensor *out, int64_t to, const scaling *h, const scaling *w) {
  size_t width = cml_et_width(x);
  int64_t step = out->strides[3];
  for (int64_t y = 0; y < h->count; y++) {
    char *row = (char *)out->data + (size_t)(to + (h->begin + y) * out->strides[2] + w->begin * step) * width;
    if (y && h->first[y] == h->first[y - 1]) cml_et_copy_steps(row, step, row - out->strides[2] * (int64_t)width, step, w->count, width);
    else pick_row(row, step, (const char *)x->data + (size_t)(from + h->first[y] * x->strides[2]) * width, x->strides[3], w, width);
  }
}

static cml_status pick_image(cml_et_call *c, const cml_et_tensor *x, cml_et_tensor *out, scaling *h, scaling *w, cml_error *err) {
  int64_t sizes[4] = {x->sizes[0], x->sizes[1], h->out, w->out};
  CML_TRY(cml_et_resize(c, out, 4, sizes, err));
  CML_TRY(make_table(c, h, err));
  CML_TRY(make_table(c, w, err));
  for (int64_t left = 0; left < w->out; left += w->count) {
    take_table(w, left);
    for (int64_t top = 0; top < h->out; top += h->count) {
      take_table(h, top);
      for (int64_t p = 0; p < sizes[0] * sizes[1]; p++)
        pick_plane(x, p / sizes[1] * x->strides[0] + p % sizes[1] * x->strides[1], out, p / sizes[1] * out->strides[0] + p % sizes[1] * out->strides[1], h, w);
    }
  }
  return CML_OK;
}

static cml_status check_image(cml_et_call *c, const cml_et_tensor *x, const cml_et_tensor *out, const int64_t *size, cml_error *err) {
  CML_TRY(cml_et_same_type(c, x, out, err));
  if (x->rank != 4) return cml_et_fail(c, err, "takes tensors of rank 4; this one is of rank %d", x->rank);
  if (size[0] < 1 || size[1] < 1 || size[0] > INT32_MAX || size[1] > INT32_MAX || x->sizes[2] < 1 || x->sizes[3] < 1)
    return cml_et_fail(c, err, "an image of %lld by %lld cannot become one of %lld by %lld", (long long)x->sizes[2], (long long)x->sizes[3], (long long)size[0], (long long)size[1]);
  return CML_OK;
}

/* Size and factors of the .vec variants: either is given. */
static cml_status vec_size(cml_et_call *c, const cml_et_tensor *x, size_t size_arg, size_t factor_arg, int64_t *size, double *factors, cml_error *err) {
  size_t count = 0;
  factors[0] = factors[1] = 0;
  if (x->rank != 4) return cml_et_fail(c, err, "takes tensors of rank 4; this one is of rank %d", x->rank);
  CML_TRY(cml_et_ints(c, size_arg, size, 2, &count, err));
  if (!cml_et_none(c, size_arg)) return count == 2 ? CML_OK : cml_et_fail(c, err, "output_size has %zu numbers, not 2", count);
  if (cml_et_none(c, factor_arg) || c->args[factor_arg]->count != 2) return cml_et_fail(c, err, "neither output_size nor two scale_factors are given");
  for (int k = 0; k < 2; k++) {
    factors[k] = c->args[factor_arg]->reals[k];
    double to = floor((double)x->sizes[2 + k] * factors[k]);
    if (!(to >= 0 && to <= INT32_MAX)) return cml_et_fail(c, err, "the scale factor %g is out of range", factors[k]);
    size[k] = (int64_t)to;
  }
  return CML_OK;
}

static cml_status op_bilinear(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  bool align = cml_et_bool(c, 2, false);
  int64_t size[2];
  double factors[2];
  CML_TRY(vec_size(c, x, 1, 3, size, factors, err));
  CML_TRY(check_image(c, x, cml_et_arg(c, 4), size, err));
  CML_TRY(cml_et_want(c, x, CML_ET_FLOATING | CML_MASK(U8), "the tensor", err));
  scaling h = linear(x, 2, size[0], align, factors[0]), w = linear(x, 3, size[1], align, factors[1]);
  return resize_image(c, x, cml_et_arg(c, 4), &h, &w, err);
}

static cml_status op_bilinear_aa(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  bool align = cml_et_bool(c, 2, false);
  int64_t size[2];
  size_t count;
  CML_TRY(cml_et_ints(c, 1, size, 2, &count, err));
  if (count != 2) return cml_et_fail(c, err, "output_size has %zu numbers, not 2", count);
  CML_TRY(check_image(c, x, cml_et_arg(c, 5), size, err));
  CML_TRY(cml_et_want(c, x, CML_ET_FLOATING | CML_MASK(U8), "the tensor", err));
  scaling h, w;
  CML_TRY(triangle(c, &h, x->sizes[2], size[0], align, cml_et_real(c, 3, 0), err));
  CML_TRY(triangle(c, &w, x->sizes[3], size[1], align, cml_et_real(c, 4, 0), err));
  return resize_image(c, x, cml_et_arg(c, 5), &h, &w, err);
}

static cml_status op_nearest(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0);
  int64_t size[2];
  double factors[2];
  CML_TRY(vec_size(c, x, 1, 2, size, factors, err));
  CML_TRY(check_image(c, x, cml_et_arg(c, 3), size, err));
  CML_TRY(cml_et_want(c, x, CML_ET_ANY, "the tensor", err));
  scaling h = nearest(x->sizes[2], size[0], factors[0]), w = nearest(x->sizes[3], size[1], factors[1]);
  return pick_image(c, x, cml_et_arg(c, 3), &h, &w, err);
}

/* ---- sampling at a grid ---- */

typedef struct sampler {
  const cml_et_tensor *x;
  int64_t mode, padding; /* 0 bilinear, 1 nearest, 2 cubic; 0 zeros, 1 border, 2 reflection */
  bool align;
} sampler;

static double reflect(double v, double low, double high) { /* low, high: twice the borders */
  if (low == high) return 0;
  double least = low / 2, span = (high - low) / 2, d = fabs(v - least), extra = fmod(d, span), flips = floor(d / span);
  return fmod(flips, 2) == 0 ? extra + least : span - extra + least;
}

static double place(const sampler *s, double v, int64_t n) {
  if (s->padding == 2) v = s->align ? reflect(v, 0, 2 * (double)(n - 1)) : reflect(v, -1, 2 * (double)n - 1);
  if (s->padding != 0) v = !(v > 0) ? 0 : v > (double)(n - 1) ? (double)(n - 1) : v;
  return v;
}

/* What one place of the grid takes from every channel: offsets into a plane and weights. */
typedef struct spot {
  int count;
  int64_t at[16];
  double weight[16];
} spot;

static void add_pixel(const sampler *s, spot *p, double y, double x, double weight) {
  int64_t h = s->x->sizes[2], w = s->x->sizes[3];
  if (!(y >= 0 && y < (double)h && x >= 0 && x < (double)w)) return;
  p->at[p->count] = (int64_t)y * s->x->strides[2] + (int64_t)x * s->x->strides[3];
  p->weight[p->count++] = weight;
}

static void cubic(double t, double *w) {
  const double a = -0.75;
  double x = t + 1;
  w[0] = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
  x = 1 - t;
  w[2] = ((a + 2) * x - (a + 3)) * x * x + 1;
  x = 2 - t;
  w[3] = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
}

static spot spot_of(const sampler *s, double gx, double gy) {
  int64_t h = s->x->sizes[2], w = s->x->sizes[3];
  double x = s->align ? (gx + 1) / 2 * (double)(w - 1) : ((gx + 1) * (double)w - 1) / 2;
  double y = s->align ? (gy + 1) / 2 * (double)(h - 1) : ((gy + 1) * (double)h - 1) / 2;
  spot p = {.count = 0};
  if (s->mode == 2) {
    double wx[4], wy[4], x0 = floor(x), y0 = floor(y);
    cubic(x - x0, wx);
    cubic(y - y0, wy);
    for (int j = 0; j < 4; j++)
      for (int i = 0; i < 4; i++) add_pixel(s, &p, place(s, y0 - 1 + j, h), place(s, x0 - 1 + i, w), wy[j] * wx[i]);
    return p;
  }
  x = place(s, x, w);
  y = place(s, y, h);
  if (s->mode == 1) {
    add_pixel(s, &p, rint(y), rint(x), 1);
    return p;
  }
  double x0 = floor(x), y0 = floor(y), tx = x - x0, ty = y - y0;
  add_pixel(s, &p, y0, x0, (1 - ty) * (1 - tx));
  add_pixel(s, &p, y0, x0 + 1, (1 - ty) * tx);
  add_pixel(s, &p, y0 + 1, x0, ty * (1 - tx));
  add_pixel(s, &p, y0 + 1, x0 + 1, ty * tx);
  return p;
}

static double sample(const sampler *s, const spot *p, int64_t base) {
  double sum = 0, v;
  for (int k = 0; k < p->count; k++) {
    if (s->x->dtype == CML_F32) v = (double)((const float *)s->x->data)[base + p->at[k]];
    else cml_et_load_f64(&v, s->x, base + p->at[k], 1, 1);
    sum += p->weight[k] * v;
  }
  return sum;
}

static cml_status op_grid_sampler(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *x = cml_et_arg(c, 0), *grid = cml_et_arg(c, 1);
  cml_et_tensor *out = cml_et_arg(c, 5);
  sampler s = {.x = x, .mode = cml_et_int(c, 2, 0), .padding = cml_et_int(c, 3, 0), .align = cml_et_bool(c, 4, false)};
  CML_TRY(cml_et_want(c, x, CML_ET_FLOATING, "the tensor", err));
  CML_TRY(cml_et_same_type(c, x, grid, err));
  CML_TRY(cml_et_same_type(c, x, out, err));
  if (x->rank != 4 || grid->rank != 4 || grid->sizes[3] != 2 || grid->sizes[0] != x->sizes[0] || x->sizes[2] < 1 || x->sizes[3] < 1)
    return cml_et_fail(c, err, "the grid does not fit the image");
  if (s.mode < 0 || s.mode > 2 || s.padding < 0 || s.padding > 2) return cml_et_fail(c, err, "interpolation %lld, padding %lld", (long long)s.mode, (long long)s.padding);
  int64_t sizes[4] = {x->sizes[0], x->sizes[1], grid->sizes[1], grid->sizes[2]};
  CML_TRY(cml_et_resize(c, out, 4, sizes, err));
  for (int64_t n = 0; n < sizes[0]; n++)
    for (int64_t i = 0; i < sizes[2]; i++)
      for (int64_t j = 0; j < sizes[3]; j++) {
        double at[2];
        cml_et_load_f64(at, grid, n * grid->strides[0] + i * grid->strides[1] + j * grid->strides[2], grid->strides[3], 2);
        const spot p = spot_of(&s, at[0], at[1]);
        int64_t to = n * out->strides[0] + i * out->strides[2] + j * out->strides[3];
        for (int64_t k = 0; k < sizes[1]; k++, to += out->strides[1]) {
          double v = sample(&s, &p, n * x->strides[0] + k * x->strides[1]);
          if (out->dtype == CML_F32) ((float *)out->data)[to] = (float)v;
          else cml_et_store_f64(out, to, 1, 1, &v);
        }
      }
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"aten::constant_pad_nd.out", "tIno", op_constant_pad},
    {"aten::grid_sampler_2d.out", "ttiibo", op_grid_sampler},
    {"aten::reflection_pad1d.out", "tIo", op_reflection1},
    {"aten::reflection_pad2d.out", "tIo", op_reflection2},
    {"aten::reflection_pad3d.out", "tIo", op_reflection3},
    {"aten::replication_pad1d.out", "tIo", op_replication1},
    {"aten::replication_pad2d.out", "tIo", op_replication2},
    {"aten::replication_pad3d.out", "tIo", op_replication3},
    {"aten::upsample_bilinear2d.vec_out", "tI?bD?o", op_bilinear},
    {"aten::_upsample_bilinear2d_aa.out", "tIbd?d?o", op_bilinear_aa},
    {"aten::upsample_nearest2d.vec_out", "tI?D?o", op_nearest},
};
CML_ET_FAMILY(image)
