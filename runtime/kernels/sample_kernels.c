/* Sampling images at points between pixels, compiled once for each instruction set; see kernels.h.
 *
 * Coordinates become neighbours and weights without branches: a coordinate outside is first moved to one that says the same, next to
 * the image, and a neighbour outside is one inside with the weight 0. Planes then are sums of four products of what is read with the
 * weights. A neighbour with the weight 0 is not to be seen, not even where it is infinite. */
#include "kernels_internal.h"
#include "simd.h"

VINLINE vi vi_clamp(vi x, int32_t low, int32_t high) {
  vi above = x > low, below = x < high;
  return (x & above & below) | (vi_set1(low) & ~above) | (vi_set1(high) & ~below & above);
}

/* What lies below each coordinate and how far above that it is, once moved into [first, last]; NaN becomes first. Plain loops over doubles:
 * compilers cut them into the CPU's vectors themselves, which vectors of W doubles are not. */
static void floors(const double *at, size_t n, double first, double last, double shift, int32_t *low, float *part) {
  for (size_t i = 0; i < n; i++) {
    double v = at[i] + shift;
    v = v > first ? v : first;
    v = v < last ? v : last;
    int32_t whole = (int32_t)v;
    whole -= v < (double)whole;
    low[i] = whole;
    part[i] = (float)(v - (double)whole);
  }
}

static void sample_axis(const double *at, size_t n, int32_t size, bool border, bool nearest, cml_axis_points *to) {
  int32_t lows[CML_SAMPLES];
  float parts[CML_SAMPLES];
  const size_t room = (n + W - 1) / W * W;
  floors(at, room, border ? 0 : -1, border ? nearest ? size - 0.5 : size - 1 : size, nearest ? 0.5 : 0, lows, parts);
  for (size_t i = 0; i < n; i += W) {
    vi low;
    memcpy(&low, lows + i, sizeof low);
    vf zero = vf_zero(), part = nearest ? zero : vf_load(parts + i), low_weight = 1 - part;
    vi low_inside = (low >= 0) & (low < size), high_inside = (low >= -1) & (low < size - 1);
    vi first = vi_clamp(low, 0, size - 1), second = vi_clamp(low + 1, 0, size - 1);
    memcpy(to->index[0] + i, &first, sizeof first);
    memcpy(to->index[1] + i, &second, sizeof second);
    vf_store(to->weight[0] + i, vf_select(low_inside, low_weight, zero));
    vf_store(to->weight[1] + i, vf_select(high_inside, part, zero));
    vf_store(to->outside + i, vf_select(low_inside, zero, low_weight) + vf_select(high_inside, zero, part));
  }
}

static void sample_points(const cml_axis_points *rows, const cml_axis_points *columns, size_t n, int32_t width, float pad, cml_plane_points *to) {
  for (size_t i = 0; i < n; i += W) {
    vf out_row = vf_load(rows->outside + i), out_column = vf_load(columns->outside + i), in_row = vf_zero();
    for (size_t k = 0; k < 4; k++) {
      vf weight = vf_load(rows->weight[k / 2] + i);
      if (k % 2) in_row += weight;
      vi row, column, place;
      memcpy(&row, rows->index[k / 2] + i, sizeof row);
      memcpy(&column, columns->index[k % 2] + i, sizeof column);
      place = row * width + column;
      memcpy(to->place[k] + i, &place, sizeof place);
      vf_store(to->weight[k] + i, weight * vf_load(columns->weight[k % 2] + i));
    }
    vf out = out_row + in_row * out_column;
    vf_store(to->outside + i, vf_select(out != 0, out * pad, vf_zero()));
  }
}

static void sample_plane(const cml_plane_points *points, size_t n, const void *x, bool half, void *y) {
  float values[4][CML_SAMPLES];
  cml_f16 halves[4][CML_SAMPLES];
  const size_t room = (n + W - 1) / W * W; /* places and weights beyond n are those of some point */
  for (size_t k = 0; k < 4; k++) {
    const int32_t *place = points->place[k];
    if (half)
      for (size_t i = 0; i < room; i++) halves[k][i] = ((const cml_f16 *)x)[place[i]];
    else
      for (size_t i = 0; i < room; i++) values[k][i] = ((const float *)x)[place[i]];
  }
  for (size_t i = 0; i < n; i += W) {
    vf sum = vf_load(points->outside + i);
    for (size_t k = 0; k < 4; k++) {
      vf weight = vf_load(points->weight[k] + i), value = half ? vh_load(halves[k] + i) : vf_load(values[k] + i);
      sum = vf_fma(weight, vf_select(weight != 0, value, vf_zero()), sum);
    }
    size_t rest = n - i;
    if (half && rest >= W) vh_store((cml_f16 *)y + i, sum);
    else if (half) vh_store_n((cml_f16 *)y + i, sum, rest);
    else if (rest >= W) vf_store((float *)y + i, sum);
    else vf_store_n((float *)y + i, sum, rest);
  }
}

/* Enlarged, W points lie between W + 1 neighbours, which are two vectors to choose from. */
static void interpolate(size_t n, const int32_t *low, const float *weight, const float *x, size_t count, float *y) {
  for (size_t i = 0; i < n; i += W) {
    if (i + W > n && n >= W) i = n - W; /* again what is done, for a whole vector */
    if (i + W <= n && low[i + W - 1] - low[i] < W) {
      const size_t at = (size_t)low[i], left = count - at;
      vi lane;
      memcpy(&lane, low + i, sizeof lane);
      lane -= low[i];
      const vf w = vf_load(weight + i), a = vf_permute(left >= W ? vf_load(x + at) : vf_load_n(x + at, left), lane);
      const vf b = vf_permute(left > W ? vf_load(x + at + 1) : vf_load_n(x + at + 1, left - 1), lane);
      vf_store(y + i, vf_select(w == 0, a, vf_fma(w, b - a, a)));
      continue;
    }
#ifdef CML_HAVE_PERMUTE2
    if (i + W <= n && low[i + W - 1] - low[i] < 2 * W && (size_t)low[i] + 2 * W < count) { /* rows made up to half as long */
      const float *from = x + low[i];
      vi lane;
      memcpy(&lane, low + i, sizeof lane);
      lane -= low[i];
      const vf w = vf_load(weight + i), a = vf_permute2(vf_load(from), vf_load(from + W), lane);
      const vf b = vf_permute2(vf_load(from + 1), vf_load(from + 1 + W), lane);
      vf_store(y + i, vf_select(w == 0, a, vf_fma(w, b - a, a)));
      continue;
    }
#endif
    for (size_t k = i; k < n && k < i + W; k++) {
      const float a = x[low[k]];
      y[k] = weight[k] == 0 ? a : a + weight[k] * (x[low[k] + 1] - a);
    }
  }
}

void CML_SIMD(cml_fill_sample)(cml_kernels *k) {
  k->sample_axis = sample_axis;
  k->sample_points = sample_points;
  k->sample_plane = sample_plane;
  k->interpolate = interpolate;
}
