/* Pooling and sums over pixels with the channels last, compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "simd.h"

VINLINE vf load_at(const void *p, bool half, size_t i, size_t n) {
  if (half) return n >= W ? vh_load((const cml_f16 *)p + i) : vh_load_n((const cml_f16 *)p + i, n);
  return n >= W ? vf_load((const float *)p + i) : vf_load_n((const float *)p + i, n);
}

VINLINE void store_at(void *p, bool half, size_t i, vf x, size_t n) {
  if (half) {
    if (n >= W) vh_store((cml_f16 *)p + i, x);
    else vh_store_n((cml_f16 *)p + i, x, n);
  } else {
    if (n >= W) vf_store((float *)p + i, x);
    else vf_store_n((float *)p + i, x, n);
  }
}

/* `vectors` of them side by side: as many chains of operations. */
VINLINE void pool_vectors(const int vectors, const bool max, const bool half, size_t taps, const void *const *x, size_t c, size_t n, vf scale, void *y) {
  vf acc[4];
  for (int v = 0; v < vectors; v++) acc[v] = load_at(x[0], half, c + (size_t)v * W, n);
  for (size_t t = 1; t < taps; t++)
    for (int v = 0; v < vectors; v++) {
      vf a = load_at(x[t], half, c + (size_t)v * W, n);
      acc[v] = max ? vf_max_nan(a, acc[v]) : acc[v] + a;
    }
  for (int v = 0; v < vectors; v++) store_at(y, half, c + (size_t)v * W, max ? acc[v] : acc[v] * scale, n);
}

VINLINE void pool_channels(const bool max, const bool half, size_t taps, const void *const *x, size_t channels, float divisor, void *y) {
  const vf scale = vf_set1(1 / divisor); /* a division takes as long as the sum */
  size_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) pool_vectors(4, max, half, taps, x, c, W, scale, y);
  for (; c + W <= channels; c += W) pool_vectors(1, max, half, taps, x, c, W, scale, y);
  if (c < channels) pool_vectors(1, max, half, taps, x, c, channels - c, scale, y);
}

static void pool_pixel(bool max, bool half, size_t taps, const void *const *x, size_t channels, float divisor, void *y) {
  if (max && half) pool_channels(true, true, taps, x, channels, divisor, y);
  else if (max) pool_channels(true, false, taps, x, channels, divisor, y);
  else if (half) pool_channels(false, true, taps, x, channels, divisor, y);
  else pool_channels(false, false, taps, x, channels, divisor, y);
}

VINLINE vf fold_tap(cml_pool_fold f, vf sum, vf x) { return f == CML_POOL_MAX ? vf_max_nan(x, sum) : f == CML_POOL_SUM ? sum + x : sum + x * x; }

/* `vectors` of them side by side: as many chains of operations. */
VINLINE void fold_vectors(const int vectors, const cml_pool_fold f, const bool half, size_t taps, const void *const *rows, size_t i, size_t n, bool begun, float *line) {
  vf sum[4];
  for (int v = 0; v < vectors; v++) sum[v] = begun ? load_at(line, false, i + (size_t)v * W, n) : vf_set1(f == CML_POOL_MAX ? -__builtin_inff() : 0);
  for (size_t t = 0; t < taps; t++)
    for (int v = 0; v < vectors; v++) sum[v] = fold_tap(f, sum[v], load_at(rows[t], half, i + (size_t)v * W, n));
  for (int v = 0; v < vectors; v++) store_at(line, false, i + (size_t)v * W, sum[v], n);
}

VINLINE void fold_rows(const cml_pool_fold f, const bool half, size_t taps, const void *const *rows, size_t width, bool begun, float *line) {
  size_t i = 0;
  for (; i + 4 * W <= width; i += 4 * W) fold_vectors(4, f, half, taps, rows, i, W, begun, line);
  for (; i < width; i += W) fold_vectors(1, f, half, taps, rows, i, width - i, begun, line);
}

static void pool_rows(cml_pool_fold f, bool half, size_t taps, const void *const *rows, size_t width, bool begun, float *line) {
  if (half) {
    if (f == CML_POOL_MAX) fold_rows(CML_POOL_MAX, true, taps, rows, width, begun, line);
    else if (f == CML_POOL_SUM) fold_rows(CML_POOL_SUM, true, taps, rows, width, begun, line);
    else fold_rows(CML_POOL_SQUARES, true, taps, rows, width, begun, line);
  } else {
    if (f == CML_POOL_MAX) fold_rows(CML_POOL_MAX, false, taps, rows, width, begun, line);
    else if (f == CML_POOL_SUM) fold_rows(CML_POOL_SUM, false, taps, rows, width, begun, line);
    else fold_rows(CML_POOL_SQUARES, false, taps, rows, width, begun, line);
  }
}

/* W outputs from the i-th on. */
VINLINE vf fold_line(const cml_pool_fold f, const float *line, size_t kernel, size_t stride, size_t i, size_t n) {
  vf sum = vf_set1(f == CML_POOL_MAX ? -__builtin_inff() : 0);
  if (stride == 1) {
    for (size_t v = 0; v < kernel; v++) sum = fold_tap(f, sum, vf_load(line + i + v));
  } else if (stride == 2) {
    for (size_t v = 0; v < kernel; v += 2) {
      const vf a = vf_load(line + 2 * i + v), b = vf_load(line + 2 * i + v + W);
      sum = fold_tap(f, sum, vf_even(a, b));
      if (v + 1 < kernel) sum = fold_tap(f, sum, vf_odd(a, b));
    }
  } else {
    for (size_t v = 0; v < kernel; v++) {
      float x[W] = {0};
      for (size_t l = 0; l < W && l < n; l++) x[l] = line[(i + l) * stride + v];
      sum = fold_tap(f, sum, vf_load(x));
    }
  }
  return sum;
}

static void pool_line(cml_pool_fold f, const float *line, size_t kernel, size_t stride, size_t outputs, const float *scales, float scale, bool half, void *y) {
  for (size_t i = 0; i < outputs; i += W) {
    const size_t n = outputs - i;
    vf sum = f == CML_POOL_MAX ? fold_line(CML_POOL_MAX, line, kernel, stride, i, n) : fold_line(CML_POOL_SUM, line, kernel, stride, i, n);
    if (scales) sum *= load_at(scales, false, i, n) * scale;
    if (f == CML_POOL_SQUARES) sum = vf_sqrt(sum);
    store_at(y, half, i, sum, n);
  }
}

/* W columns of the rows from `column` on, folded; those outside are what changes nothing. Edges take whole vectors from inside and move them. */
VINLINE vf fold_columns(const cml_pool_fold f, const bool half, size_t taps, const void *const *rows, int64_t width, int64_t column) {
  const vf none = vf_set1(f == CML_POOL_MAX ? -__builtin_inff() : 0);
  if (column >= width || column <= -W) return none;
  const int64_t at = column < 0 ? 0 : column > width - W ? width - W : column;
  vf sum = fold_tap(f, none, load_at(rows[0], half, (size_t)at, W));
  if (taps > 1) sum = fold_tap(f, sum, load_at(rows[1], half, (size_t)at, W));
  if (taps > 2) sum = fold_tap(f, sum, load_at(rows[2], half, (size_t)at, W));
  for (size_t t = 3; t < taps; t++) sum = fold_tap(f, sum, load_at(rows[t], half, (size_t)at, W));
  if (at == column) return sum;
  const vi from = vi_iota() + vi_set1((int32_t)(column - at));
  return vf_select((from >= 0) & (from < W), vf_permute(sum, from), none);
}

/* The vectors that outputs from one place on read: with stride 2 those of the even and of the odd taps. */
VINLINE void columns_at(const cml_pool_fold f, const bool half, const size_t stride, size_t taps, const void *const *rows, int64_t width, int64_t column, vf *to) {
  to[0] = fold_columns(f, half, taps, rows, width, column);
  if (stride == 1) return;
  const vf more = fold_columns(f, half, taps, rows, width, column + W), even = vf_even(to[0], more);
  to[1] = vf_odd(to[0], more);
  to[0] = even;
}

VINLINE void slide_windows(const cml_pool_fold f, const bool half, const size_t stride, const size_t kernel, const cml_pool_line *l) {
  const cml_pool_fold along = f == CML_POOL_MAX ? f : CML_POOL_SUM;
  const int64_t width = (int64_t)l->width, before = (int64_t)l->before;
  vf here[2], next[2];
  columns_at(f, half, stride, l->taps, l->rows, width, -before, next);
  for (size_t i = 0; i < l->outputs; i += W) {
    for (size_t s = 0; s < stride; s++) here[s] = next[s];
    columns_at(f, half, stride, l->taps, l->rows, width, (int64_t)((i + W) * stride) - before, next);
    vf sum = here[0];
    if (stride == 2 && kernel > 1) sum = fold_tap(along, sum, here[1]);
    for (size_t v = stride; v < kernel; v += stride) {
      sum = fold_tap(along, sum, vf_slide(here[0], next[0], v / stride));
      if (stride == 2 && v + 1 < kernel) sum = fold_tap(along, sum, vf_slide(here[1], next[1], v / stride));
    }
    const size_t n = l->outputs - i;
    if (l->scales) sum *= load_at(l->scales, false, i, n) * l->scale;
    if (f == CML_POOL_SQUARES) sum = vf_sqrt(sum);
    store_at(l->y, half, i, sum, n);
  }
}

VINLINE void slide_along(const cml_pool_fold f, const bool half, const cml_pool_line *l) {
  if (l->stride == 1 && l->kernel == 3) slide_windows(f, half, 1, 3, l);
  else if (l->stride == 1) slide_windows(f, half, 1, l->kernel, l);
  else if (l->kernel == 3) slide_windows(f, half, 2, 3, l);
  else if (l->kernel == 2) slide_windows(f, half, 2, 2, l);
  else slide_windows(f, half, 2, l->kernel, l);
}

VINLINE void slide_by(const cml_pool_fold f, const cml_pool_line *l) {
  if (l->half) slide_along(f, true, l);
  else slide_along(f, false, l);
}

static bool pool_slide(cml_pool_fold f, const cml_pool_line *l) {
  if (l->stride > 2 || l->kernel > W * l->stride || l->width < W || !l->taps) return false;
  if (f == CML_POOL_MAX) slide_by(CML_POOL_MAX, l);
  else if (f == CML_POOL_SUM) slide_by(CML_POOL_SUM, l);
  else slide_by(CML_POOL_SQUARES, l);
  return true;
}

VINLINE vf tap_at(const cml_pool_fold f, const bool half, const void *row, size_t i) {
  const vf x = load_at(row, half, i, W);
  return f == CML_POOL_SQUARES ? x * x : x;
}

/* W columns of one row, each folded with its neighbours: loads move along by one, and what is outside the row comes out of registers. */
VINLINE vf fold_three(const cml_pool_fold f, const bool half, const bool left, const bool right, const void *row, size_t i) {
  const cml_pool_fold along = f == CML_POOL_MAX ? f : CML_POOL_SUM;
  const vf none = vf_set1(f == CML_POOL_MAX ? -__builtin_inff() : 0), x = tap_at(f, half, row, i);
  const vf before = left ? vf_slide(none, x, W - 1) : tap_at(f, half, row, i - 1), behind = right ? vf_slide(x, none, 1) : tap_at(f, half, row, i + 1);
  return fold_tap(along, fold_tap(along, x, before), behind);
}

/* W columns of outputs, from the first line down: each row is read once, and serves three lines. */
VINLINE void fold_strip(const cml_pool_fold f, const bool half, const bool left, const bool right, const cml_pool_strip *s, size_t at) {
  const cml_pool_fold along = f == CML_POOL_MAX ? f : CML_POOL_SUM;
  const vf none = vf_set1(f == CML_POOL_MAX ? -__builtin_inff() : 0);
  const size_t size = half ? 2 : 4, row = s->width * size;
  const size_t i = at + 1 - s->before; /* the middle of the windows */
  const vf scale = s->scales ? load_at(s->scales, false, at, W) * s->scale : vf_set1(1);
  const char *x = s->x;
  char *y = s->y;
  vf before = s->above ? none : fold_three(f, half, left, right, x, i), here;
  if (!s->above) x += row;
  here = fold_three(f, half, left, right, x, i);
  for (size_t n = s->lines; n > 0; n--, y += s->outputs * size) {
    const bool inside = n > 1 || !s->below;
    if (inside) x += row;
    const vf next = inside ? fold_three(f, half, left, right, x, i) : none;
    vf sum = fold_tap(along, fold_tap(along, before, here), next);
    if (s->scales) sum *= scale;
    if (f == CML_POOL_SQUARES) sum = vf_sqrt(sum);
    store_at(y, half, at, sum, W);
    before = here, here = next;
  }
}

VINLINE void fold_strips(const cml_pool_fold f, const bool half, const cml_pool_strip *s) {
  for (size_t i = 0; i < s->outputs; i += W) {
    const size_t at = i + W <= s->outputs ? i : s->outputs - W; /* the last strip lies over the one before it */
    const bool left = at < s->before, right = at + W + 2 - s->before > s->width;
    if (left && right) fold_strip(f, half, true, true, s, at);
    else if (left) fold_strip(f, half, true, false, s, at);
    else if (right) fold_strip(f, half, false, true, s, at);
    else fold_strip(f, half, false, false, s, at);
  }
}

static bool pool_strip(cml_pool_fold f, const cml_pool_strip *s) {
  if (s->before > 1 || s->outputs < W || s->outputs + 2 - s->before > s->width + 1) return false;
  if (f == CML_POOL_MAX && s->half) fold_strips(CML_POOL_MAX, true, s);
  else if (f == CML_POOL_MAX) fold_strips(CML_POOL_MAX, false, s);
  else if (f == CML_POOL_SUM && s->half) fold_strips(CML_POOL_SUM, true, s);
  else if (f == CML_POOL_SUM) fold_strips(CML_POOL_SUM, false, s);
  else if (s->half) fold_strips(CML_POOL_SQUARES, true, s);
  else fold_strips(CML_POOL_SQUARES, false, s);
  return true;
}

VINLINE void sum_vectors(const int vectors, const bool half, size_t pixels, const void *x, size_t c, size_t pixel, size_t n, float *sums) {
  vf acc[4][2] = {{{0}}};
  size_t p = 0;
  for (; p + 2 <= pixels; p += 2)
    for (int v = 0; v < vectors; v++) {
      acc[v][0] += load_at(x, half, p * pixel + c + (size_t)v * W, n);
      acc[v][1] += load_at(x, half, (p + 1) * pixel + c + (size_t)v * W, n);
    }
  for (int v = 0; v < vectors; v++) {
    if (p < pixels) acc[v][0] += load_at(x, half, p * pixel + c + (size_t)v * W, n);
    store_at(sums, false, c + (size_t)v * W, acc[v][0] + acc[v][1], n);
  }
}

VINLINE void sum_channels(const bool half, size_t pixels, size_t channels, const void *x, size_t pixel, float *sums) {
  size_t c = 0;
  for (; c + 4 * W <= channels; c += 4 * W) sum_vectors(4, half, pixels, x, c, pixel, W, sums);
  for (; c + W <= channels; c += W) sum_vectors(1, half, pixels, x, c, pixel, W, sums);
  if (c < channels) sum_vectors(1, half, pixels, x, c, pixel, channels - c, sums);
}

static void channel_sums(size_t pixels, size_t channels, const void *x, bool half, size_t pixel, float *sums) {
  if (half) sum_channels(true, pixels, channels, x, pixel, sums);
  else sum_channels(false, pixels, channels, x, pixel, sums);
}

void CML_SIMD(cml_fill_pool)(cml_kernels *k) {
  k->pool_pixel = pool_pixel;
  k->pool_rows = pool_rows;
  k->pool_line = pool_line;
  k->pool_slide = pool_slide;
  k->pool_strip = pool_strip;
  k->channel_sums = channel_sums;
}
