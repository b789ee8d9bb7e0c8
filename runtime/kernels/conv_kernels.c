/* Convolution kernels that are no matrix products, compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "simd.h"

VINLINE vf load_some(const float *p, size_t n) { return n >= W ? vf_load(p) : vf_load_n(p, n); }

/* One vector of channels over a row: `together` outputs at a time share each weight. */
VINLINE void depthwise_outputs(const int together, size_t n, size_t kh, size_t kw, const float *const *rows, size_t column, size_t step,
                               size_t dilation, size_t pixel, const float *w, size_t channels, vf bias, vf low, vf high, float *y) {
  vf acc[4] = {bias, bias, bias, bias};
  for (size_t r = 0; r < kh; r++) {
    if (!rows[r]) continue;
    const float *x = rows[r] + column;
    for (size_t t = 0; t < kw; t++, x += dilation * pixel) {
      vf weight = load_some(w + (r * kw + t) * channels, n);
      for (int o = 0; o < together; o++) acc[o] = vf_fma(load_some(x + (size_t)o * step, n), weight, acc[o]);
    }
  }
  for (int o = 0; o < together; o++) {
    vf v = vf_min(high, vf_max(low, acc[o]));
    if (n >= W) vf_store(y + (size_t)o * channels, v);
    else vf_store_n(y + (size_t)o * channels, v, n);
  }
}

static void depthwise_row(size_t outputs, size_t channels, size_t kh, size_t kw, const float *const *rows, size_t stride, size_t dilation,
                          size_t pixel, const float *w, const float *bias, float low, float high, float *y) {
  vf lo = vf_set1(low), hi = vf_set1(high);
  size_t step = stride * pixel;
  for (size_t c = 0; c < channels; c += W) {
    size_t n = channels - c, o = 0;
    vf b = bias ? load_some(bias + c, n) : vf_zero();
    if (n >= W) {
      for (; o + 4 <= outputs; o += 4)
        depthwise_outputs(4, W, kh, kw, rows, o * step + c, step, dilation, pixel, w + c, channels, b, lo, hi, y + o * channels + c);
      for (; o < outputs; o++)
        depthwise_outputs(1, W, kh, kw, rows, o * step + c, step, dilation, pixel, w + c, channels, b, lo, hi, y + o * channels + c);
    } else {
      for (; o < outputs; o++)
        depthwise_outputs(1, n, kh, kw, rows, o * step + c, step, dilation, pixel, w + c, channels, b, lo, hi, y + o * channels + c);
    }
  }
}

/* ---- Winograd: d -> B^T d B, m -> A^T m A, with the points 0, 1, -1, 2, -2 and infinity ---- */

VINLINE void input_line(const vf *d, size_t step, vf *out, size_t out_step) {
  vf d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  vf a = d4 - d2 * 4.0f, b = d3 - d1 * 4.0f, c = d4 - d2, e = (d3 - d1) * 2.0f;
  out[0] = d0 * 4.0f - d2 * 5.0f + d4;
  out[out_step] = a + b;
  out[2 * out_step] = a - b;
  out[3 * out_step] = c + e;
  out[4 * out_step] = c - e;
  out[5 * out_step] = d1 * 4.0f - d3 * 5.0f + d5;
}

static void winograd_input(size_t channels, const float *x, size_t pixel, size_t row, float *v, size_t v_stride) {
  for (size_t c = 0; c < channels; c += W) {
    size_t n = channels - c < W ? channels - c : W;
    vf t[36], line[6];
    for (size_t r = 0; r < 6; r++) {
      for (size_t i = 0; i < 6; i++) line[i] = load_some(x + r * row + i * pixel + c, n);
      input_line(line, 1, t + r * 6, 1);
    }
    for (size_t i = 0; i < 6; i++) {
      input_line(t + i, 6, line, 1);
      for (size_t r = 0; r < 6; r++) {
        float *to = v + (r * 6 + i) * v_stride + c;
        if (n == W) vf_store(to, line[r]);
        else vf_store_n(to, line[r], n);
      }
    }
  }
}

VINLINE void output_line(const vf *m, size_t step, vf *out, size_t out_step) {
  vf a = m[step] + m[2 * step], b = m[step] - m[2 * step], c = m[3 * step] + m[4 * step], d = m[3 * step] - m[4 * step];
  out[0] = m[0] + a + c;
  out[out_step] = b + d * 2.0f;
  out[2 * out_step] = a + c * 4.0f;
  out[3 * out_step] = b + d * 8.0f + m[5 * step];
}

static void winograd_output(size_t outputs, const float *m, size_t m_stride, const float *bias, float low, float high, float *y, size_t pixel,
                            size_t row, size_t rows, size_t columns) {
  vf lo = vf_set1(low), hi = vf_set1(high);
  for (size_t o = 0; o < outputs; o += W) {
    size_t n = outputs - o < W ? outputs - o : W;
    vf t[24], line[6], add = bias ? load_some(bias + o, n) : vf_zero();
    for (size_t r = 0; r < 6; r++) {
      for (size_t i = 0; i < 6; i++) line[i] = load_some(m + (r * 6 + i) * m_stride + o, n);
      output_line(line, 1, t + r * 4, 1);
    }
    for (size_t i = 0; i < columns; i++) {
      output_line(t + i, 4, line, 1);
      for (size_t r = 0; r < rows; r++) {
        float *to = y + r * row + i * pixel + o;
        vf v = vf_min(hi, vf_max(lo, line[r] + add));
        if (n == W) vf_store(to, v);
        else vf_store_n(to, v, n);
      }
    }
  }
}

static void channel_moments(size_t pixels, size_t channels, const float *x, const float *shift, float *sum, float *squares) {
  for (size_t c = 0; c < channels; c += W) {
    size_t n = channels - c < W ? channels - c : W;
    vf m = load_some(shift + c, n), s = load_some(sum + c, n), q = load_some(squares + c, n);
    for (size_t p = 0; p < pixels; p++) {
      vf d = load_some(x + p * channels + c, n) - m;
      s += d;
      q = vf_fma(d, d, q);
    }
    if (n == W) vf_store(sum + c, s), vf_store(squares + c, q);
    else vf_store_n(sum + c, s, n), vf_store_n(squares + c, q, n);
  }
}

static void scale_channels(size_t pixels, size_t channels, const float *x, float *y, const float *scale, const float *bias) {
  for (size_t c = 0; c < channels; c += W) {
    size_t n = channels - c < W ? channels - c : W;
    vf a = load_some(scale + c, n), b = load_some(bias + c, n);
    for (size_t p = 0; p < pixels; p++) {
      vf v = vf_fma(load_some(x + p * channels + c, n), a, b);
      if (n == W) vf_store(y + p * channels + c, v);
      else vf_store_n(y + p * channels + c, v, n);
    }
  }
}

/* Blocks of W x W through registers would be faster; 8 rows at a time keep the reads and the writes in whole cache lines. */
static void transpose(size_t rows, size_t columns, const float *x, size_t x_stride, float *y, size_t y_stride) {
  enum { B = 16 };
  for (size_t r = 0; r < rows; r += B)
    for (size_t c = 0; c < columns; c += B) {
      size_t rn = rows - r < B ? rows - r : B, cn = columns - c < B ? columns - c : B;
      for (size_t j = 0; j < cn; j++)
        for (size_t i = 0; i < rn; i++) y[(c + j) * y_stride + r + i] = x[(r + i) * x_stride + c + j];
    }
}

void CML_SIMD(cml_fill_conv)(cml_kernels *k) {
  k->depthwise_row = depthwise_row;
  k->winograd_input = winograd_input;
  k->winograd_output = winograd_output;
  k->channel_moments = channel_moments;
  k->scale_channels = scale_channels;
  k->transpose = transpose;
}
