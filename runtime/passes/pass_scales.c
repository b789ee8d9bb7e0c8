/* A convolution whose result is scaled and shifted by constants, one a channel (batch_norm, mul, real_div, add, sub), does so with
 * weights and a bias that are scaled beforehand. And convolutions of one image whose results are summed, as networks are trained that should be
 * re-parameterised before they are used and often are not, are one with the sum of their weights: a smaller kernel lies within the largest, and a batch
 * norm of the image itself, or the image, is a kernel of one pixel and one channel. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "elementwise.h"
#include "mapping.h"
#include "passes.h"

/* y = scale[c] x + shift[c] */
typedef struct affine {
  int64_t channels;
  double *scale, *shift;
} affine;

static const cml_tensor *constant(const cml_graph *g, const cml_step *s, const char *param) {
  const cml_tensor *t = cml_pass_constant(g, s, param);
  return t && cml_dtype_is_float(t->dtype) ? t : NULL;
}

/* Whether a constant broadcasts along all dims of a tensor of this rank but the channels, dim 1. */
static bool is_per_channel(const cml_tensor *t, int32_t rank, int64_t channels) {
  if (!cml_tensor_known_shape(t) || t->rank > rank) return false;
  for (int32_t i = 0; i < t->rank; i++) {
    int64_t dim = t->dims[t->rank - 1 - i];
    if (dim != 1 && (i != rank - 2 || dim != channels)) return false;
  }
  return true;
}

static double at(const cml_tensor *t, int64_t c) { return cml_tensor_get(t, cml_tensor_count(t) == 1 ? 0 : c); }

static bool join_norm(const cml_graph *g, const cml_step *s, affine *f) {
  const cml_tensor *mean = constant(g, s, "mean"), *variance = constant(g, s, "variance"), *gamma = constant(g, s, "gamma"),
                   *beta = constant(g, s, "beta"), *epsilon = constant(g, s, "epsilon");
  if (!mean || !variance || (!gamma && cml_pass_arg(s, "gamma") != CML_NO_VALUE) || (!beta && cml_pass_arg(s, "beta") != CML_NO_VALUE)) return false;
  if (!epsilon && cml_pass_arg(s, "epsilon") != CML_NO_VALUE) return false;
  const cml_tensor *all[] = {mean, variance, gamma, beta};
  for (size_t i = 0; i < 4; i++)
    if (all[i] && (all[i]->rank != 1 || all[i]->dims[0] != f->channels)) return false;
  for (int64_t c = 0; c < f->channels; c++) {
    double scale = (gamma ? at(gamma, c) : 1) / sqrt(at(variance, c) + (epsilon ? at(epsilon, 0) : 1e-5));
    f->shift[c] = (f->shift[c] - at(mean, c)) * scale + (beta ? at(beta, c) : 0);
    f->scale[c] *= scale;
  }
  return true;
}

/* x op constant, or constant op x where that is the same. */
static bool join_binary(const cml_graph *g, const cml_step *s, uint32_t value, affine *f) {
  bool mul = cml_pass_is(s, "mul"), add = cml_pass_is(s, "add"), sub = cml_pass_is(s, "sub"), div = cml_pass_is(s, "real_div");
  if (!mul && !add && !sub && !div) return false;
  bool first = cml_pass_arg(s, "x") == value;
  const cml_tensor *t = constant(g, s, first ? "y" : "x"), *x = cml_pass_type(g, value);
  if (!t || (!first && !mul && !add) || !is_per_channel(t, x->rank, f->channels)) return false;
  for (int64_t c = 0; c < f->channels; c++) {
    double k = mul ? at(t, c) : div ? 1 / at(t, c) : 1, b = add ? at(t, c) : sub ? -at(t, c) : 0;
    f->scale[c] *= k;
    f->shift[c] = f->shift[c] * k + b;
  }
  return true;
}

/* ---- the new constants ---- */

/* Fails to fit when a float16 would overflow or a channel's scale is no number. */
static bool store(cml_tensor *t, int64_t i, double x) {
  cml_tensor_set(t, i, x);
  return isfinite(cml_tensor_get(t, i));
}

static bool scale_weight(const cml_tensor *from, cml_tensor *to, const affine *f, bool transpose, int64_t groups) {
  int64_t inner = 1, a = from->dims[0], b = from->dims[1];
  for (int32_t i = 2; i < from->rank; i++) inner *= from->dims[i];
  for (int64_t i = 0; i < a; i++)
    for (int64_t k = 0; k < b; k++) {
      double scale = f->scale[transpose ? i / (a / groups) * b + k : i];
      int64_t n = (i * b + k) * inner, end = n + inner;
      bool fits = true;
      if (from->dtype == CML_F32) /* most weights: no look at the type of each */
        for (; n < end; n++) fits &= isfinite(((float *)to->data)[n] = (float)((double)((const float *)from->data)[n] * scale)) != 0;
      for (; n < end; n++) fits = store(to, n, cml_tensor_get(from, n) * scale) && fits;
      if (!fits) return false;
    }
  return true;
}

static cml_status new_constant(cml_graph *g, const cml_tensor *like, uint32_t *value, cml_tensor **out, cml_error *err) {
  cml_tensor t = *like;
  CML_TRY(cml_graph_constant(g, &t, err));
  if ((*value = cml_pass_value(g, "", &t, CML_ROLE_CONSTANT)) == CML_NO_VALUE) return cml_fail_memory(err);
  *out = &g->values[*value].type;
  return CML_OK;
}

/* The convolution with other constants takes the place of `last`, the step that it has joined. */
static cml_status rewrite(cml_graph *g, cml_step *s, cml_step *last, const affine *f, bool *done, cml_error *err) {
  bool transpose = cml_pass_is(s, "conv_transpose");
  uint32_t weight = cml_pass_arg(s, "weight"), bias = cml_pass_arg(s, "bias");
  const cml_tensor *groups = cml_pass_arg(s, "groups") == CML_NO_VALUE ? NULL : cml_pass_type(g, cml_pass_arg(s, "groups"));
  cml_tensor like = {.dtype = cml_pass_type(g, s->outs[0])->dtype, .rank = 1, .dims = {f->channels}}, w = *cml_pass_type(g, weight), *to = NULL;
  uint32_t new_weight, new_bias;
  CML_TRY(new_constant(g, &w, &new_weight, &to, err));
  if (!scale_weight(&w, to, f, transpose, groups ? cml_tensor_get_int(groups, 0) : 1)) return CML_OK;
  CML_TRY(new_constant(g, &like, &new_bias, &to, err));
  for (int64_t c = 0; c < f->channels; c++)
    if (!store(to, c, (bias == CML_NO_VALUE ? 0 : cml_tensor_get(cml_pass_type(g, bias), c)) * f->scale[c] + f->shift[c])) return CML_OK;
  const cml_binding bindings[] = {
      {"x", cml_pass_arg(s, "x")}, {"weight", new_weight}, {"bias", new_bias}, {"strides", cml_pass_arg(s, "strides")},
      {"pad_type", cml_pass_arg(s, "pad_type")}, {"pad", cml_pass_arg(s, "pad")}, {"dilations", cml_pass_arg(s, "dilations")},
      {"groups", cml_pass_arg(s, "groups")}, {"output_shape", transpose ? cml_pass_arg(s, "output_shape") : CML_NO_VALUE}};
  CML_TRY(cml_pass_become(g, last, s->op->name, bindings, sizeof bindings / sizeof *bindings, err));
  last->name = s->name;
  cml_mapping_drop(w.data, (size_t)cml_tensor_count(&w) * cml_dtype_bits(w.dtype) / 8); /* the file's are not read again */
  *done = true;
  return CML_OK;
}

static cml_status fold(cml_graph *g, const cml_use *uses, size_t i, cml_error *err) {
  cml_step *s = &g->body.steps[i], *last = s, *joined[8];
  if (!cml_pass_is(s, "conv") && !cml_pass_is(s, "conv_transpose")) return CML_OK;
  const cml_tensor *weight = constant(g, s, "weight"), *bias = constant(g, s, "bias"), *y = cml_pass_type(g, s->outs[0]);
  if (!weight || weight->rank < 3 || y->rank < 3 || y->dims[1] < 1 || weight->dtype != y->dtype || (!bias && cml_pass_arg(s, "bias") != CML_NO_VALUE))
    return CML_OK;
  affine f = {.channels = y->dims[1], .scale = calloc((size_t)y->dims[1], sizeof(double)), .shift = calloc((size_t)y->dims[1], sizeof(double))};
  size_t count = 0;
  cml_status status = f.scale && f.shift ? CML_OK : cml_fail_memory(err);
  for (int64_t c = 0; !status && c < f.channels; c++) f.scale[c] = 1;
  while (!status && count < sizeof joined / sizeof *joined) {
    cml_step *next = cml_pass_only_user(g, uses, last->outs[0]);
    if (!next || !(cml_pass_is(next, "batch_norm") ? join_norm(g, next, &f) : join_binary(g, next, last->outs[0], &f))) break;
    joined[count++] = last = next;
  }
  bool done = false;
  if (!status && count) status = rewrite(g, s, last, &f, &done, err);
  if (done) {
    s->op = NULL;
    for (size_t k = 0; k + 1 < count; k++) joined[k]->op = NULL;
  }
  free(f.scale);
  free(f.shift);
  return status;
}

cml_status cml_pass_scales(cml_graph *g, cml_error *err) { return cml_pass_each(g, fold, err); }

/* ---- sums ---- */

enum { MOST_TERMS = 16 };

/* Where a convolution's taps lie; the leading of three dims are 1. */
typedef struct geometry {
  int64_t kernel[3], stride[3], dilation[3], before[3], groups;
} geometry;

static int64_t taps_of(const geometry *at) { return at->kernel[0] * at->kernel[1] * at->kernel[2]; } /* 0: no convolution's */

/* What is summed: a step that nobody else reads, or NULL for a value as it is. */
typedef struct sum {
  uint32_t terms[MOST_TERMS];
  cml_step *makers[MOST_TERMS], *adds[MOST_TERMS];
  geometry at[MOST_TERMS]; /* of convolutions */
  size_t count, add_count, largest;
} sum;

static bool same_type(const cml_tensor *a, const cml_tensor *b) {
  return a->dtype == b->dtype && cml_tensor_known_shape(a) && a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
}

static bool gather(cml_graph *g, const cml_use *uses, size_t before, const cml_step *add, sum *t) {
  static const char *const sides[] = {"x", "y"};
  for (int i = 0; i < 2; i++) {
    uint32_t v = cml_pass_arg(add, sides[i]);
    if (v == CML_NO_VALUE || !same_type(cml_pass_type(g, v), cml_pass_type(g, add->outs[0]))) return false;
    cml_step *maker = cml_pass_maker(g, before, v);
    if (maker && cml_pass_only_user(g, uses, v) != add) maker = NULL;
    if (maker && cml_pass_is(maker, "add")) {
      if (t->add_count == MOST_TERMS) return false;
      t->adds[t->add_count++] = maker;
      if (!gather(g, uses, before, maker, t)) return false;
      continue;
    }
    if (t->count == MOST_TERMS) return false;
    t->makers[t->count] = maker && (cml_pass_is(maker, "conv") || cml_pass_is(maker, "batch_norm")) ? maker : NULL;
    t->terms[t->count++] = v;
  }
  return true;
}

static int64_t number_at(const cml_graph *g, const cml_step *s, const char *param, int64_t i, int64_t otherwise) {
  const cml_tensor *t = cml_pass_constant(g, s, param);
  return t && i < cml_tensor_count(t) ? (int64_t)cml_tensor_get(t, i) : otherwise;
}

static bool read_geometry(const cml_graph *g, const cml_step *s, geometry *at) {
  const cml_tensor *w = constant(g, s, "weight"), *y = cml_pass_type(g, s->outs[0]);
  if (!w || w->rank < 3 || w->rank > 5 || w->rank != y->rank || w->dtype != y->dtype || (!constant(g, s, "bias") && cml_pass_arg(s, "bias") != CML_NO_VALUE)) return false;
  bool valid = cml_pass_is_word(g, s, "pad_type", "valid"), custom = !valid && cml_pass_constant(g, s, "pad") && !cml_pass_is_word(g, s, "pad_type", "same") &&
                                                                  !cml_pass_is_word(g, s, "pad_type", "same_lower");
  if (!valid && !custom) return false;
  *at = (geometry){.groups = number_at(g, s, "groups", 0, 1)};
  for (int32_t i = 0; i < 3; i++) {
    int32_t d = i - (5 - w->rank);
    at->kernel[i] = d < 0 ? 1 : w->dims[d + 2];
    at->stride[i] = d < 0 ? 1 : number_at(g, s, "strides", d, 1);
    at->dilation[i] = d < 0 ? 1 : number_at(g, s, "dilations", d, 1);
    at->before[i] = d < 0 || valid ? 0 : number_at(g, s, "pad", 2 * d, 0);
  }
  return true;
}

/* The tap of the larger kernel that a smaller one's first lies on, in each dim; false: it does not lie within. */
static bool lies_within(const geometry *large, const geometry *small, int64_t *offset) {
  for (int i = 0; i < 3; i++) {
    int64_t apart = large->before[i] - small->before[i];
    if (large->stride[i] != small->stride[i] || large->dilation[i] < 1 || apart < 0 || apart % large->dilation[i]) return false;
    offset[i] = apart / large->dilation[i];
    if (offset[i] + small->kernel[i] > large->kernel[i] || (small->kernel[i] > 1 && small->dilation[i] != large->dilation[i])) return false;
  }
  return true;
}

static const geometry a_pixel = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, 0};

/* Whether all terms are made of one image by two convolutions or more, or by one and a norm. */
static bool is_one(cml_graph *g, const cml_use *uses, cml_step *add, sum *t) {
  *t = (sum){0};
  if (!cml_pass_is(add, "add") || !gather(g, uses, (size_t)(add - g->body.steps), add, t)) return false;
  uint32_t x = CML_NO_VALUE;
  size_t convolutions = 0, norms = 0;
  int64_t largest_taps = 0;
  for (size_t i = 0; i < t->count; i++) {
    if (!t->makers[i] || !cml_pass_is(t->makers[i], "conv")) continue;
    if (!read_geometry(g, t->makers[i], &t->at[i])) return false;
    if (!convolutions++) x = cml_pass_arg(t->makers[i], "x");
    if (taps_of(&t->at[i]) > largest_taps) largest_taps = taps_of(&t->at[i]), t->largest = i;
  }
  if (!convolutions) return false;
  const cml_tensor *w = constant(g, t->makers[t->largest], "weight"), *in = cml_pass_type(g, x);
  for (size_t i = 0; i < t->count; i++) {
    const cml_step *m = t->makers[i];
    const bool convolves = m && cml_pass_is(m, "conv");
    int64_t offset[3];
    if ((m ? cml_pass_arg(m, "x") : t->terms[i]) != x) return false;
    if (!lies_within(&t->at[t->largest], convolves ? &t->at[i] : &a_pixel, offset)) return false;
    if (convolves) {
      const cml_tensor *own = constant(g, m, "weight");
      if (own->dims[0] != w->dims[0] || own->dims[1] != w->dims[1] || t->at[i].groups != t->at[t->largest].groups) return false;
    } else if (in->rank != w->rank || in->dims[1] != w->dims[0] || w->dims[1] * t->at[t->largest].groups != w->dims[0]) {
      return false;
    }
    norms += m && !convolves;
  }
  return convolutions > 1 || norms;
}

/* An output's weights of a smaller kernel onto those of the larger one, from the tap `first` on. */
static void add_kernel(const geometry *large, const geometry *small, const int64_t *first, int64_t channels, const float *from, double *to) {
  for (int64_t c = 0; c < channels; c++, to += taps_of(large))
    for (int64_t d = first[0]; d < first[0] + small->kernel[0]; d++)
      for (int64_t h = first[1]; h < first[1] + small->kernel[1]; h++, from += small->kernel[2]) {
        double *line = to + (d * large->kernel[1] + h) * large->kernel[2] + first[2];
        for (int64_t k = 0; k < small->kernel[2]; k++) line[k] += (double)from[k];
      }
}

/* The sum of the convolutions' weights, and f's scale where an output meets its own pixel and channel; false when a float16 would overflow. */
static bool add_weights(const cml_graph *g, const sum *t, const affine *f, bool pixels, cml_tensor *to) {
  const geometry *large = &t->at[t->largest];
  const int64_t channels = to->dims[1], n = channels * taps_of(large);
  const float end = to->dtype == CML_F16 ? 65520 : INFINITY;
  int64_t first[3], own[3] = {0};
  double *row = malloc((size_t)n * sizeof *row);
  float *part = malloc((size_t)n * sizeof *part);
  bool fits = row && part && (!pixels || lies_within(large, &a_pixel, own));
  for (int64_t o = 0; fits && o < to->dims[0]; o++) {
    memset(row, 0, (size_t)n * sizeof *row);
    for (size_t i = 0; fits && i < t->count; i++) {
      const geometry *at = &t->at[i];
      if (!taps_of(at)) continue;
      const cml_tensor *w = constant(g, t->makers[i], "weight");
      cml_load_f32(part, w->data, w->dtype, o * channels * taps_of(at), (size_t)(channels * taps_of(at)));
      fits = lies_within(large, at, first);
      if (fits) add_kernel(large, at, first, channels, part, row);
    }
    if (!fits) break;
    if (pixels) row[o % channels * taps_of(large) + (own[0] * large->kernel[1] + own[1]) * large->kernel[2] + own[2]] += f->scale[o];
    for (int64_t k = 0; k < n; k++) part[k] = (float)row[k], fits &= fabsf(part[k]) < end;
    cml_store_f32(to->data, to->dtype, o * n, part, (size_t)n);
  }
  free(row), free(part);
  return fits;
}

static cml_status rewrite_sum(cml_graph *g, cml_step *add, const sum *t, const affine *f, bool pixels, cml_error *err) {
  const cml_step *s = t->makers[t->largest];
  cml_tensor like = {.dtype = cml_pass_type(g, add->outs[0])->dtype, .rank = 1, .dims = {f->channels}}, w = *constant(g, s, "weight"), *to = NULL;
  uint32_t weight, bias;
  CML_TRY(new_constant(g, &w, &weight, &to, err));
  if (!add_weights(g, t, f, pixels, to)) return CML_OK;
  CML_TRY(new_constant(g, &like, &bias, &to, err));
  for (int64_t c = 0; c < f->channels; c++)
    if (!store(to, c, f->shift[c])) return CML_OK;
  const cml_binding bindings[] = {{"x", cml_pass_arg(s, "x")}, {"weight", weight}, {"bias", bias}, {"strides", cml_pass_arg(s, "strides")}, {"pad_type", cml_pass_arg(s, "pad_type")},
                                  {"pad", cml_pass_arg(s, "pad")}, {"dilations", cml_pass_arg(s, "dilations")}, {"groups", cml_pass_arg(s, "groups")}};
  CML_TRY(cml_pass_become(g, add, "conv", bindings, sizeof bindings / sizeof *bindings, err));
  for (size_t i = 0; i < t->count; i++) {
    if (taps_of(&t->at[i])) w = *constant(g, t->makers[i], "weight"), cml_mapping_drop(w.data, (size_t)cml_tensor_count(&w) * cml_dtype_bits(w.dtype) / 8);
    if (t->makers[i]) t->makers[i]->op = NULL;
  }
  for (size_t i = 0; i < t->add_count; i++) t->adds[i]->op = NULL;
  return CML_OK;
}

static cml_status add_up(cml_graph *g, const cml_use *uses, size_t i, cml_error *err) {
  cml_step *add = &g->body.steps[i], *user;
  sum t, whole;
  if (!is_one(g, uses, add, &t)) return CML_OK;
  if ((user = cml_pass_only_user(g, uses, add->outs[0])) && is_one(g, uses, user, &whole)) return CML_OK; /* it has its turn */
  const int64_t n = cml_pass_type(g, add->outs[0])->dims[1];
  affine all = {n, calloc((size_t)n, sizeof(double)), calloc((size_t)n, sizeof(double))}, one = {n, calloc((size_t)n, sizeof(double)), calloc((size_t)n, sizeof(double))};
  cml_status status = all.scale && all.shift && one.scale && one.shift ? CML_OK : cml_fail_memory(err);
  bool fits = !status, pixels = false;
  for (size_t k = 0; fits && k < t.count; k++) {
    const cml_tensor *bias = taps_of(&t.at[k]) ? constant(g, t.makers[k], "bias") : NULL;
    for (int64_t c = 0; c < n; c++) one.scale[c] = !taps_of(&t.at[k]), one.shift[c] = bias ? cml_tensor_get(bias, c) : 0;
    if (!taps_of(&t.at[k])) pixels = true;
    if (!taps_of(&t.at[k]) && t.makers[k]) fits = join_norm(g, t.makers[k], &one);
    for (int64_t c = 0; c < n; c++) all.scale[c] += one.scale[c], all.shift[c] += one.shift[c];
  }
  if (fits) status = rewrite_sum(g, add, &t, &all, pixels, err);
  free(all.scale), free(all.shift), free(one.scale), free(one.shift);
  return status;
}

cml_status cml_pass_sums(cml_graph *g, cml_error *err) { return cml_pass_each(g, add_up, err); }
