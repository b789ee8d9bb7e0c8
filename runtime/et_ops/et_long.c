/* Long lines as matrices of n = rows * columns numbers: columns are transformed in lanes, their results turned, and then rows.
 *
 * In place: result k of row r belongs to place k * rows + r. Where columns = s * rows, rows are stored so that place k1, b, u of the matrix
 * [rows][s][rows] is left to change over with u, b, k1, by squares; else numbers move along cycles.
 * By groups: columns are transformed again for each group of rows that fits into scratch memory, so that few rows are good. */
#include "et_long.h"

typedef cml_et_grid grid;
typedef cml_et_walk walk;
typedef cml_et_place place;
typedef cml_et_transform transform;
typedef cml_et_long_line long_line;
typedef cml_et_detour detour;
typedef cml_fourier_kernels kernels;

enum { SQUARE = 16, GROUPS = 768 << 10 /* bytes of a detour by groups */ };

static bool matrix(const kernels *k, int64_t n, int64_t rows) { return n % rows == 0 && cml_et_fits_lanes(k, rows) && cml_et_fits_line(k, n / rows); }

/* Rows of a matrix in place: at best their square divides n. 0: there is none. */
static int64_t rows_of(const kernels *k, int64_t n) {
  int64_t most = 1;
  while (cml_et_fits_lanes(k, 2 * most) && 4 * most * most <= n) most *= 2;
  most = 2 * most < n ? 2 * most : n;
  for (int64_t r = most; r > 1; r--)
    if (n % (r * r) == 0 && matrix(k, n, r)) return r;
  for (int64_t r = most; r > 1; r--)
    if (matrix(k, n, r)) return r;
  return 0;
}

bool cml_et_stays(const grid *g, int64_t n) {
  const kernels *k = cml_et_kernels_of(g);
  return cml_et_native(k, g) && rows_of(k, n) > 0;
}

static int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

static void run_columns(const transform *t, grid *g, const place *p, double sign) {
  const kernels *k = t->k;
  const int64_t rows = t->n, columns = p->n / rows, lanes = (int64_t)k->lanes;
  for (int64_t c = 0; c < columns; c += lanes) {
    const int64_t count = at_most(columns - c, lanes), first = p->first + c * p->step;
    cml_et_load_lanes(k, g, first, columns * p->step, p->im, p->step, rows, count, t->x);
    void *out = cml_et_transform_lanes(t);
    k->turn((double)p->n, sign, (size_t)rows, (size_t)c, out);
    cml_et_store_lanes(k, g, first, columns * p->step, p->im, p->step, rows, count, out);
  }
}

/* Number u * s + b goes to b * rows + u. */
static void shuffle(const kernels *k, size_t rows, size_t s, const void *from, void *to) {
  if (k->width == 4) {
    cml_kernels_get()->transpose(rows, s, from, s, to, rows);
    return;
  }
  for (size_t u = 0; u < rows; u++)
    for (size_t b = 0; b < s; b++) ((double *)to)[b * rows + u] = ((const double *)from)[u * s + b];
}

static void run_rows(const transform *t, grid *g, const place *p, double scale) {
  const kernels *k = t->k;
  const int64_t columns = t->n, rows = p->n / columns, s = columns / rows;
  const size_t im = t->line.im;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t first = p->first + r * columns * p->step;
    cml_et_load_range(k, g, first, p->step, p->im, columns, t->y, im);
    char *out = cml_et_transform_line(t), *other = cml_et_other(t, out);
    for (int part = 0; part < 2; part++) {
      char *x = cml_et_part_at(k, out, part ? (int64_t)im : 0);
      if (scale != 1) k->scale((size_t)columns, scale, x);
      if (columns % rows == 0 && s > 1) shuffle(k, (size_t)rows, (size_t)s, x, cml_et_part_at(k, other, part ? (int64_t)im : 0));
    }
    cml_et_store_range(k, g, first, p->step, p->im, columns, columns % rows == 0 && s > 1 ? other : out, im);
  }
}

/* Numbers of a line whose parts lie side by side change over as one. */
typedef struct swapper {
  char *data;
  size_t step, im, width; /* bytes */
} swapper;

static swapper swapper_of(const grid *g, const place *p) {
  const size_t width = cml_et_width(&g->parts);
  return (swapper){(char *)g->parts.data + (size_t)p->first * width, (size_t)p->step * width, (size_t)p->im * width, width};
}

#define CHANGE(T)                                  \
  do {                                             \
    T *p = (void *)a, *q = (void *)b, saved = *p;  \
    *p = *q;                                       \
    *q = saved;                                    \
  } while (0)

static inline void change_over(const swapper *s, int64_t i, int64_t j) {
  char *a = s->data + (size_t)i * s->step, *b = s->data + (size_t)j * s->step;
  if (s->width == 4) CHANGE(uint32_t);
  else CHANGE(uint64_t);
  a += s->im, b += s->im;
  if (s->width == 4) CHANGE(uint32_t);
  else CHANGE(uint64_t);
}

static void change_squares(const swapper *p, int64_t rows, int64_t s) {
  for (int64_t b = 0; b < s; b++)
    for (int64_t i = 0; i < rows; i += SQUARE)
      for (int64_t j = 0; j <= i; j += SQUARE)
        for (int64_t r = i; r < rows && r < i + SQUARE; r++)
          for (int64_t u = j; u < r && u < j + SQUARE; u++) change_over(p, (r * s + b) * rows + u, (u * s + b) * rows + r);
}

/* Number (r, k) goes to k * rows + r, cycle by cycle, each from its least place. */
static void move_cycles(const swapper *p, int64_t n, int64_t rows, int64_t columns) {
  for (int64_t start = 1; start + 1 < n; start++) {
    int64_t from = start;
    do from = from % rows * columns + from / rows;
    while (from > start);
    if (from < start) continue;
    for (int64_t to = start;; to = from) { /* what belongs at the start goes round */
      from = to % rows * columns + to / rows;
      if (from == start) break;
      change_over(p, to, from);
    }
  }
}

/* All lines by columns, then by rows, so that each kind of scratch memory is there for itself. */
cml_status cml_et_in_place(cml_et_call *c, grid *g, const walk *lines, const place *p, double sign, double scale, cml_error *err) {
  const kernels *k = cml_et_kernels_of(g);
  const int64_t rows = rows_of(k, p->n), columns = p->n / rows;
  for (int phase = 0; phase < 3; phase++) {
    const cml_et_mark mark = cml_et_temp_mark(c);
    transform t;
    if (phase < 2) CML_TRY(cml_et_transform_prepare(c, &t, k, phase ? columns : rows, sign, !phase, err));
    for (walk w = *lines; w.left > 0; cml_et_walk_on(&w))
      for (int64_t lane = 0; lane < w.lanes; lane++) {
        place line = *p;
        line.first += w.to + lane * w.lane_to;
        if (phase == 0) run_columns(&t, g, &line, sign);
        if (phase == 1) run_rows(&t, g, &line, scale);
        const swapper all = swapper_of(g, &line);
        if (phase == 2 && columns % rows == 0) change_squares(&all, rows, columns / rows);
        if (phase == 2 && columns % rows) move_cycles(&all, p->n, rows, columns);
      }
    cml_et_temp_release(c, mark);
  }
  return CML_OK;
}

/* ---- lines whose results lie elsewhere ---- */

/* The matrix that takes the fewest groups. */
static void choose_groups(const kernels *k, int64_t n, detour *d) {
  int64_t best = INT64_MAX;
  for (int64_t r = 2; r < n && cml_et_lane_bytes(k, r) < GROUPS / 2; r++) {
    if (n % r || n / r > GROUPS || !matrix(k, n, r)) continue;
    const int64_t row = n / r * 2 * (int64_t)k->width, group = (GROUPS - cml_et_lane_bytes(k, r) - cml_et_line_bytes(k, n / r)) / row;
    if (group < 1 || (r + group - 1) / group >= best) continue;
    best = (r + group - 1) / group;
    d->rows = r;
    d->columns = n / r;
    d->group = at_most(group, r);
  }
}

cml_status cml_et_detour_prepare(cml_et_call *c, detour *d, const kernels *k, int64_t n, double sign, cml_error *err) {
  *d = (detour){.n = n, .sign = sign};
  choose_groups(k, n, d);
  if (!d->rows) return cml_et_chirp_prepare(c, &d->chirp, k, n, sign, err);
  CML_TRY(cml_et_transform_prepare(c, &d->down, k, d->rows, sign, true, err));
  CML_TRY(cml_et_transform_prepare(c, &d->across, k, d->columns, sign, false, err));
  return (d->kept = cml_et_reals(c, k, d->group * d->columns)) ? CML_OK : cml_fail_memory(err);
}

/* Rows first .. first + count of all columns' transforms, turned. */
static void keep_rows(detour *d, const long_line *l, int64_t first, int64_t count) {
  const transform *t = &d->down;
  const kernels *k = t->k;
  const int64_t lanes = (int64_t)k->lanes;
  for (int64_t c = 0; c < d->columns; c += lanes) {
    const int64_t some = at_most(d->columns - c, lanes);
    for (int64_t r = 0; r < d->rows; r++) {
      char *x = cml_et_part_at(k, t->x, 2 * r * lanes);
      l->load(l, r * d->columns + c, some, x, cml_et_part_at(k, x, lanes));
    }
    char *out = cml_et_transform_lanes(t);
    k->turn((double)d->n, d->sign, (size_t)d->rows, (size_t)c, out);
    for (int64_t r = 0; r < count; r++) {
      char *x = cml_et_part_at(k, out, 2 * (first + r) * lanes), *kept = cml_et_part_at(k, d->kept, 2 * r * d->columns + c);
      memcpy(kept, x, (size_t)some * k->width);
      memcpy(cml_et_part_at(k, kept, d->columns), cml_et_part_at(k, x, lanes), (size_t)some * k->width);
    }
  }
}

void cml_et_detour_run(detour *d, const long_line *l, int64_t wanted) {
  const transform *t = &d->across;
  if (!d->rows) {
    cml_et_chirp_run(&d->chirp, l, wanted);
    return;
  }
  for (int64_t first = 0, count; first < d->rows; first += count) {
    count = at_most(d->rows - first, d->group);
    keep_rows(d, l, first, count);
    for (int64_t r = first; r < first + count && r < wanted; r++) {
      char *kept = cml_et_part_at(t->k, d->kept, 2 * (r - first) * d->columns);
      memcpy(t->y, kept, (size_t)d->columns * t->k->width);
      memcpy(cml_et_part_at(t->k, t->y, (int64_t)t->line.im), cml_et_part_at(t->k, kept, d->columns), (size_t)d->columns * t->k->width);
      char *out = cml_et_transform_line(t);
      l->store(l, r, d->rows, (wanted - r + d->rows - 1) / d->rows, out, cml_et_part_at(t->k, out, (int64_t)t->line.im));
    }
  }
}
