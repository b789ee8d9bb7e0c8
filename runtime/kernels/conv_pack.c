/* Weights of convolutions as their kernels read them: [group][panel][tap][channel][tile_columns], depthwise [tap][channel], narrow groups
 * [tap][channel of group][output], with a multiplier [tap][output], slim [group][output][tap][channel]; Winograd's: winograd.c. */
#include "conv.h"
#include "sizes.h"

#include <string.h>

static size_t panel_bytes(const cml_kernels *k, const cml_conv *v, bool half) { return cml_panel_bytes(k, half, cml_conv_taps(v) * (v->channels / v->groups)); }

size_t cml_conv_group_bytes(const cml_kernels *k, const cml_conv *v, bool half) {
  size_t columns = v->outputs / v->groups;
  if (cml_conv_slim(k, v)) return up(columns * cml_conv_taps(v) * (v->channels / v->groups) * (half ? 2 : 4), 64);
  return up(cml_panel_count(k, columns) * panel_bytes(k, v, half), 64);
}

size_t cml_conv_packed_bytes(const cml_kernels *k, const cml_conv *v, bool half) {
  if (v->winograd) return cml_winograd_packed_bytes(k, v);
  if (cml_planes_fit(v)) return cml_planes_packed_bytes(v);
  if (cml_conv_is_depthwise(v) || cml_conv_multiplier(v)) return cml_conv_taps(v) * v->outputs * 4 + 64;
  if (cml_conv_narrow(k, v)) return cml_conv_taps(v) * v->channels * cml_conv_narrow(k, v) * 4 + 64;
  return v->groups * cml_conv_group_bytes(k, v, half) + 64;
}

static int64_t tap_offset(const cml_conv *v, const cml_conv_source *s, size_t tap) {
  int64_t w = (int64_t)tap % v->kernel[2], h = (int64_t)tap / v->kernel[2] % v->kernel[1], d = (int64_t)tap / (v->kernel[1] * v->kernel[2]);
  return s->start + d * s->tap_stride[0] + h * s->tap_stride[1] + w * s->tap_stride[2];
}

static float source_float(const cml_conv_source *s, int64_t i) {
  return s->half ? cml_f16_to_f32(((const cml_f16 *)s->data)[i]) : ((const float *)s->data)[i];
}

/* An output's and a channel's share of where a weight is, and which of the bundled groups they are of. */
typedef struct place {
  int64_t at;
  size_t group;
} place;

static place output_place(const cml_conv *v, const cml_conv_source *s, size_t o) {
  const size_t all = v->outputs / v->groups / (s->joined ? s->joined : 1), each = all / (s->bundle ? s->bundle : 1), pixel = o / all;
  return (place){(int64_t)(o % each) * s->output_stride + (int64_t)pixel * s->joined_stride, o % all / each};
}

static place channel_place(const cml_conv *v, const cml_conv_source *s, size_t group, size_t c) {
  if (s->bundle <= 1) return (place){(int64_t)group * s->group_stride + (int64_t)c * s->channel_stride, 0};
  const size_t bundle = s->bundle, each = v->channels / v->groups / bundle;
  return (place){(int64_t)(group * bundle + c / each) * s->group_stride + (int64_t)(c % each) * s->channel_stride, c / each};
}

/* One weight to where it is packed; zero between groups. row: of the channel and the tap. */
static inline void pack_weight(const cml_conv_source *s, const place *output, const place *row, bool half, void *to, size_t i) {
  const bool none = output->group != row->group;
  const int64_t at = output->at + row->at;
  if (half) ((cml_f16 *)to)[i] = none ? 0 : ((const cml_f16 *)s->data)[at];
  else ((float *)to)[i] = none ? 0 : source_float(s, at);
}

/* Whether an output's weights lie as [channel][tap]. */
static bool side_by_side(const cml_conv *v, const cml_conv_source *s) {
  int64_t next = 1;
  for (int i = 2; i >= 0; next *= v->kernel[i--])
    if (v->kernel[i] > 1 && s->tap_stride[i] != next) return false;
  return s->bundle <= 1 && s->joined <= 1 && s->channel_stride == next;
}

void cml_conv_weight_rows(const cml_conv_packing *p, size_t group, size_t panel, size_t first, size_t n, void *to) {
  const cml_conv *v = p->v;
  const cml_conv_source *s = p->from;
  const size_t nr = p->k->tile_columns, begin = panel * nr, m = least(v->outputs / v->groups - begin, nr);
  const bool half = p->half;
  if (side_by_side(v, s)) {
    const int64_t at = s->start + (int64_t)group * s->group_stride + (int64_t)begin * s->output_stride + (int64_t)first;
    p->k->pack_panel(to, half, (const char *)s->data + at * (s->half ? 2 : 4), s->half, n, m, (size_t)s->output_stride);
    return;
  }
  place rows[CML_CONV_ROWS];
  for (size_t i = 0; i < n; i++) {
    rows[i] = channel_place(v, s, group, (first + i) / cml_conv_taps(v));
    rows[i].at += tap_offset(v, s, (first + i) % cml_conv_taps(v));
  }
  for (size_t j = 0; j < m; j++) {
    const place output = output_place(v, s, begin + j);
    for (size_t i = 0; i < n; i++) pack_weight(s, &output, &rows[i], half, to, i * nr + j);
  }
  for (size_t i = 0; i < n; i++) memset((char *)to + (i * nr + m) * (half ? 2 : 4), 0, (nr - m) * (half ? 2 : 4));
}

static void pack_slim(void *context, size_t begin, size_t end) {
  const cml_conv_packing *p = context;
  const cml_conv *v = p->v;
  const cml_conv_source *s = p->from;
  size_t columns = v->outputs / v->groups, channels = v->channels / v->groups;
  const bool half = p->half;
  for (size_t i = begin; i < end; i++) {
    size_t group = i / columns, o = i % columns;
    char *to = (char *)p->to + group * cml_conv_group_bytes(p->k, v, p->half) + o * cml_conv_taps(v) * channels * (half ? 2 : 4);
    const place output = output_place(v, s, o);
    for (size_t t = 0; t < cml_conv_taps(v); t++)
      for (size_t c = 0; c < channels; c++) {
        place row = channel_place(v, s, group, c);
        row.at += tap_offset(v, s, t);
        pack_weight(s, &output, &row, half, to, t * channels + c);
      }
  }
}

/* Taps stand after channels in the source, and before them here. */
static void pack_range(void *context, size_t begin, size_t end) {
  const cml_conv_packing *p = context;
  const cml_conv *v = p->v;
  const size_t columns = v->outputs / v->groups, channels = v->channels / v->groups, n_taps = cml_conv_taps(v), depth = channels * n_taps;
  const size_t panels = cml_panel_count(p->k, columns), row = p->k->tile_columns * (p->half ? 2 : 4);
  const bool direct = n_taps == 1;
  for (size_t i = begin; i < end; i++) {
    const size_t group = i / panels, panel = i % panels;
    char *to = (char *)p->to + group * cml_conv_group_bytes(p->k, v, p->half) + panel * panel_bytes(p->k, v, p->half);
    for (size_t d = 0, n; d < depth; d += n) {
      n = least(depth - d, CML_CONV_ROWS);
      _Alignas(64) float rows[CML_CONV_ROWS * CML_CONV_COLUMNS];
      if (direct) cml_conv_weight_rows(p, group, panel, d, n, to + d * row);
      else cml_conv_weight_rows(p, group, panel, d, n, rows);
      for (size_t r = 0, t = d % n_taps, c = d / n_taps; !direct && r < n; r++) {
        memcpy(to + (t * channels + c) * row, (const char *)rows + r * row, row);
        if (++t == n_taps) t = 0, c++;
      }
    }
  }
}

/* [group][CML_PLANE_OUTPUTS of its outputs, or what is left][channel][tap][output] */
static void pack_planes(const cml_conv_packing *p) {
  const cml_conv *v = p->v;
  const size_t taps = cml_conv_taps(v), channels = v->channels / v->groups, outputs = v->outputs / v->groups;
  float *to = p->to;
  for (size_t g = 0; g < v->groups; g++)
    for (size_t first = 0; first < outputs; first += CML_PLANE_OUTPUTS)
      for (size_t i = 0; i < channels * taps; i++)
        for (size_t o = first; o < outputs && o < first + CML_PLANE_OUTPUTS; o++)
          *to++ = source_float(p->from, (int64_t)g * p->from->group_stride + (int64_t)o * p->from->output_stride + (int64_t)(i / taps) * p->from->channel_stride + tap_offset(v, p->from, i % taps));
}

void cml_conv_pack(const cml_kernels *k, const cml_conv *v, const cml_conv_source *from, bool half, void *to, cml_pool *pool) {
  cml_conv_packing p = {k, v, from, half && !v->winograd, to};
  if (v->winograd) {
    cml_winograd_pack(&p, pool);
    return;
  }
  if (cml_planes_fit(v)) {
    pack_planes(&p);
    return;
  }
  if (cml_conv_is_depthwise(v) || cml_conv_multiplier(v)) {
    size_t each = v->outputs / v->groups;
    for (size_t t = 0; t < cml_conv_taps(v); t++)
      for (size_t o = 0; o < v->outputs; o++)
        ((float *)to)[t * v->outputs + o] =
            source_float(from, (int64_t)(o / each) * from->group_stride + (int64_t)(o % each) * from->output_stride + tap_offset(v, from, t));
    return;
  }
  size_t narrow = cml_conv_narrow(k, v);
  if (narrow) {
    for (size_t i = 0; i < cml_conv_taps(v) * narrow * v->channels; i++) {
      size_t output = i % v->channels, channel = i / v->channels % narrow, tap = i / v->channels / narrow;
      ((float *)to)[i] = source_float(from, (int64_t)(output / narrow) * from->group_stride + (int64_t)(output % narrow) * from->output_stride +
                                                (int64_t)channel * from->channel_stride + tap_offset(v, from, tap));
    }
    return;
  }
  if (cml_conv_slim(k, v)) cml_parallel(pool, v->outputs, 1, pack_slim, &p);
  else cml_parallel(pool, v->groups * cml_panel_count(k, v->outputs / v->groups), 1, pack_range, &p);
}
