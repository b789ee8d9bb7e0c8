/* Lines of tensors, in runs of memory where they lie so and else element by element; see et_lines.h. */
#include "et_lines.h"

typedef cml_et_grid grid;
typedef cml_et_walk walk;
typedef cml_fourier_kernels kernels;

void cml_et_grid_of(const cml_et_tensor *x, grid *g) {
  g->parts = x->complex ? cml_et_parts_of(x) : *x;
  g->im = x->complex ? 1 : 0;
  for (int k = 0; k < x->rank; k++) g->strides[k] = (x->complex ? 2 : 1) * x->strides[k];
}

const kernels *cml_et_kernels_of(const grid *g) { return g->parts.dtype == CML_F64 ? cml_kernels_get()->fourier64 : cml_kernels_get()->fourier; }

/* The largest dimension's lines are side by side; of dimensions that go on where another ends one is made before. */
walk cml_et_walk_of(size_t rank, const int64_t *sizes, int dim, const grid *from, const grid *to) {
  walk w = {.left = 1, .lanes = 1};
  for (int k = (int)rank - 1; k >= 0; k--) {
    if (k == dim || sizes[k] == 1) continue;
    const int at = w.rank;
    if (at && from->strides[k] == w.step_from[at - 1] * w.sizes[at - 1] && to->strides[k] == w.step_to[at - 1] * w.sizes[at - 1]) {
      w.sizes[at - 1] *= sizes[k];
      continue;
    }
    w.sizes[at] = sizes[k];
    w.step_from[at] = from->strides[k];
    w.step_to[at] = to->strides[k];
    w.rank++;
  }
  int most = 0;
  for (int k = 1; k < w.rank; k++)
    if (w.sizes[k] > w.sizes[most]) most = k;
  if (w.rank) {
    const int last = --w.rank;
    w.lanes = w.sizes[most], w.lane_from = w.step_from[most], w.lane_to = w.step_to[most];
    w.sizes[most] = w.sizes[last], w.step_from[most] = w.step_from[last], w.step_to[most] = w.step_to[last];
  }
  for (int k = 0; k < w.rank; k++) w.left *= w.sizes[k];
  return w;
}

void cml_et_walk_on(walk *w) {
  w->left--;
  for (int k = 0; k < w->rank; k++) {
    w->from += w->step_from[k];
    w->to += w->step_to[k];
    if (++w->at[k] < w->sizes[k]) return;
    w->from -= w->at[k] * w->step_from[k];
    w->to -= w->at[k] * w->step_to[k];
    w->at[k] = 0;
  }
}

static void load(const kernels *k, const grid *g, int64_t first, int64_t step, int64_t count, void *to) {
  if (k->width == 8) cml_et_load_f64(to, &g->parts, first, step, count);
  else cml_et_load_f32(to, &g->parts, first, step, count);
}

static void store(const kernels *k, grid *g, int64_t first, int64_t step, int64_t count, const void *from) {
  if (k->width == 8) cml_et_store_f64(&g->parts, first, step, count, from);
  else cml_et_store_f32(&g->parts, first, step, count, from);
}

static char *element(const grid *g, int64_t i) { return (char *)g->parts.data + (size_t)i * cml_et_width(&g->parts); }

void cml_et_load_range(const kernels *k, const grid *g, int64_t first, int64_t step, int64_t im, int64_t count, void *line, size_t apart) {
  char *side = cml_et_part_at(k, line, (int64_t)apart);
  if (cml_et_native(k, g) && im == 1 && step == 2) {
    k->part(1, (size_t)count, element(g, first), 0, line, apart, 0);
    return;
  }
  load(k, g, first, step, count, line);
  if (im) load(k, g, first + im, step, count, side);
  else memset(side, 0, (size_t)count * k->width);
}

void cml_et_store_range(const kernels *k, grid *g, int64_t first, int64_t step, int64_t im, int64_t count, const void *line, size_t apart) {
  if (cml_et_native(k, g) && im == 1 && step == 2) {
    k->join(1, (size_t)count, line, apart, 0, element(g, first), 0);
    return;
  }
  store(k, g, first, step, count, line);
  if (im) store(k, g, first + im, step, count, cml_et_part_at(k, line, (int64_t)apart));
}

/* Reals or pairs of them that lie side by side along the line: a matrix of lines becomes one of places. */
static bool turns(const kernels *k, const grid *g, int64_t step, int64_t im) { return cml_et_native(k, g) && k->width == 4 && (im == 1 ? step == 2 : im == 0 && step == 1); }

void cml_et_load_lanes(const kernels *k, const grid *g, int64_t first, int64_t step, int64_t im, int64_t lane, int64_t count, int64_t lanes, void *x) {
  const size_t all = k->lanes;
  if (turns(k, g, step, im)) {
    cml_kernels_get()->transpose((size_t)lanes, (size_t)(im ? 2 * count : count), (const float *)(const void *)element(g, first), (size_t)lane, x, im ? all : 2 * all);
  } else if (cml_et_native(k, g) && im == 1 && lane == 2) {
    k->part((size_t)count, (size_t)lanes, element(g, first), (size_t)step, x, all, 2 * all);
  } else {
    for (int64_t i = 0; i < count; i++) {
      load(k, g, first + i * step, lane, lanes, cml_et_part_at(k, x, 2 * i * (int64_t)all));
      if (im) load(k, g, first + i * step + im, lane, lanes, cml_et_part_at(k, x, (2 * i + 1) * (int64_t)all));
    }
  }
  for (int64_t i = 0; i < count && !im; i++) memset(cml_et_part_at(k, x, (2 * i + 1) * (int64_t)all), 0, all * k->width);
}

void cml_et_store_lanes(const kernels *k, grid *g, int64_t first, int64_t step, int64_t im, int64_t lane, int64_t count, int64_t lanes, const void *x) {
  const size_t all = k->lanes;
  if (im && turns(k, g, step, im)) {
    cml_kernels_get()->transpose((size_t)(2 * count), (size_t)lanes, x, all, (float *)(void *)element(g, first), (size_t)lane);
  } else if (cml_et_native(k, g) && im == 1 && lane == 2) {
    k->join((size_t)count, (size_t)lanes, x, all, 2 * all, element(g, first), (size_t)step);
  } else {
    for (int64_t i = 0; i < count; i++) {
      store(k, g, first + i * step, lane, lanes, cml_et_part_at(k, x, 2 * i * (int64_t)all));
      if (im) store(k, g, first + i * step + im, lane, lanes, cml_et_part_at(k, x, (2 * i + 1) * (int64_t)all));
    }
  }
}
