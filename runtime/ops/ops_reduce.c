/* Reductions over any set of axes, and argmax, argmin.
 *
 * Neighbouring dims that are all kept or all reduced are merged. Where the last merged dim is reduced, an output is a
 * fold over contiguous runs; where it is kept, a band of neighbouring outputs is folded together, row by row. Floats
 * accumulate in double, integers in int64, so that neither the order of the fold nor the number of threads shows.
 *
 * FOLD_MAP lists the folds: start value and one step, for floats and for integers. An operator is a fold and what is
 * done to its result. */
#include "families.h"

#include <math.h>

#include "elementwise.h"
#include "strided.h"

/* ---- folds ---- */

enum { BAND = 256 };

/* name, start and step (of accumulator a and element x) for floats, the same for integers. NaN stays in max and min. */
#define FOLD_MAP(X)                                                                                    \
  X(sum, 0.0, a + x, 0, (int64_t)((uint64_t)a + (uint64_t)x))                                          \
  X(sum_abs, 0.0, a + fabs(x), 0, (int64_t)((uint64_t)a + (x < 0 ? 0 - (uint64_t)x : (uint64_t)x)))    \
  X(sum_square, 0.0, a + x * x, 0, (int64_t)((uint64_t)a + (uint64_t)x * (uint64_t)x))                 \
  X(product, 1.0, a *x, 1, (int64_t)((uint64_t)a * (uint64_t)x))                                       \
  X(maximum, -INFINITY, x > a || x != x ? x : a, INT64_MIN, x > a ? x : a)                             \
  X(minimum, INFINITY, x < a || x != x ? x : a, INT64_MAX, x < a ? x : a)

/* Folds a run into one accumulator; eight partial ones break the chain of additions. */
#define FOLD_RUN(function, type, lane, start, step)                          \
  __attribute__((unused)) static inline type function##_run(type first, const lane *p, size_t n) { \
    type part[8];                                                            \
    size_t i = 0;                                                            \
    for (size_t k = 0; k < 8; k++) part[k] = start;                          \
    for (; i + 8 <= n; i += 8)                                               \
      for (size_t k = 0; k < 8; k++) {                                       \
        const type x = (type)p[i + k], a = part[k];                          \
        part[k] = step;                                                      \
      }                                                                      \
    for (; i < n; i++) {                                                     \
      const type x = (type)p[i], a = part[0];                                \
      part[0] = step;                                                        \
    }                                                                        \
    for (size_t k = 0; k < 8; k++) first = function##_join(first, part[k]);  \
    return first;                                                            \
  }
/* Folds a row of the band into the band's accumulators. */
#define FOLD_BAND(function, type, lane, step)                                \
  static void function##_band(type *sums, const lane *p, size_t n) {         \
    CML_INDEPENDENT for (size_t i = 0; i < n; i++) {                         \
      const type x = (type)p[i], a = sums[i];                                \
      sums[i] = step;                                                        \
    }                                                                        \
  }
/* Two partial results: a square or absolute value is not taken twice. */
#define JOIN_F(name, start, step) static double name##_f_join(double a, double x) { return step; }
#define JOIN_I(name, start, step) static int64_t name##_i_join(int64_t a, int64_t x) { return step; }
#define FOLD(name, f_start, f_step, i_start, i_step)        \
  FOLD_RUN(name##_f, double, float, f_start, f_step)        \
  FOLD_BAND(name##_f, double, float, f_step)                \
  FOLD_RUN(name##_i, int64_t, int64_t, i_start, i_step)     \
  FOLD_BAND(name##_i, int64_t, int64_t, i_step)

#define ADD_I (int64_t)((uint64_t)a + (uint64_t)x)
JOIN_F(sum, 0, a + x)
JOIN_I(sum, 0, ADD_I)
JOIN_F(sum_abs, 0, a + x)
JOIN_I(sum_abs, 0, ADD_I)
JOIN_F(sum_square, 0, a + x)
JOIN_I(sum_square, 0, ADD_I)
JOIN_F(product, 1, a *x)
JOIN_I(product, 1, (int64_t)((uint64_t)a * (uint64_t)x))
JOIN_F(maximum, 0, x > a || x != x ? x : a)
JOIN_I(maximum, 0, x > a ? x : a)
JOIN_F(minimum, 0, x < a || x != x ? x : a)
JOIN_I(minimum, 0, x < a ? x : a)
FOLD_MAP(FOLD)

/* Where the kernels have the fold of a run, they do it: floats over at most a chunk, which then joins in double. */
static double kernel_sum(double a, const float *p, size_t n) { return a + (double)cml_kernels_get()->sum(p, n); }
static double kernel_maximum(double a, const float *p, size_t n) { return maximum_f_join(a, (double)cml_kernels_get()->max(p, n)); }
static double kernel_minimum(double a, const float *p, size_t n) { return minimum_f_join(a, (double)cml_kernels_get()->min(p, n)); }
static double kernel_sum_square(double a, const float *p, size_t n) { return a + (double)cml_kernels_get()->dot(p, p, n); }
#define RUN_OF_sum kernel_sum
#define RUN_OF_sum_abs sum_abs_f_run
#define RUN_OF_sum_square kernel_sum_square
#define RUN_OF_product product_f_run
#define RUN_OF_maximum kernel_maximum
#define RUN_OF_minimum kernel_minimum

typedef struct fold {
  double f_start;
  int64_t i_start;
  double (*f_run)(double, const float *, size_t);
  void (*f_band)(double *, const float *, size_t);
  double (*f_join)(double, double);
  int64_t (*i_run)(int64_t, const int64_t *, size_t);
  void (*i_band)(int64_t *, const int64_t *, size_t);
} fold;

enum fold_index {
#define FOLD_ENUM(name, f_start, f_step, i_start, i_step) FOLD_##name,
  FOLD_MAP(FOLD_ENUM)
};

static const fold folds[] = {
#define FOLD_ENTRY(name, f_start, f_step, i_start, i_step) \
  {f_start, i_start, RUN_OF_##name, name##_f_band, name##_f_join, name##_i_run, name##_i_band},
    FOLD_MAP(FOLD_ENTRY)
};

/* ---- operators: a fold, and what becomes of its result ---- */

typedef enum finish { AS_IT_IS, MEAN, ROOT, LOGARITHM, LOG_SUM_EXP } finish;

#define REDUCE_MAP(X)                             \
  X(reduce_l1_norm, sum_abs, AS_IT_IS)            \
  X(reduce_l2_norm, sum_square, ROOT)             \
  X(reduce_log_sum, sum, LOGARITHM)               \
  X(reduce_log_sum_exp, maximum, LOG_SUM_EXP)     \
  X(reduce_max, maximum, AS_IT_IS)                \
  X(reduce_mean, sum, MEAN)                       \
  X(reduce_min, minimum, AS_IT_IS)                \
  X(reduce_prod, product, AS_IT_IS)               \
  X(reduce_sum, sum, AS_IT_IS)                    \
  X(reduce_sum_square, sum_square, AS_IT_IS)

static const struct reduction {
  enum fold_index fold;
  finish finish;
} reductions[] = {
#define REDUCE_ENTRY(name, fold_, finish_) {FOLD_##fold_, finish_},
    REDUCE_MAP(REDUCE_ENTRY)
};

static double finish_float(finish f, double v, double count) {
  switch (f) {
    case MEAN: return v / count;
    case ROOT: return sqrt(v);
    case LOGARITHM: return log(v);
    default: return v;
  }
}

/* ---- shapes ---- */

extern const cml_op_family cml_ops_reduce;

/* Bit i: axis i is reduced. All of them when the parameter is absent. */
static cml_status reduced_axes(const cml_call *c, int32_t rank, uint32_t *out, cml_error *err) {
  const cml_tensor *t = cml_arg(c, 1);
  *out = (1u << rank) - 1;
  if (!t) return CML_OK;
  if (!t->data) return cml_call_fail(c, err, "axes must be a constant");
  int64_t axes[CML_MAX_RANK];
  size_t n = cml_arg_ints(c, 1, axes, CML_MAX_RANK);
  if (t->rank > 1 || n > CML_MAX_RANK) return cml_call_fail(c, err, "axes must be a vector of at most %d values", CML_MAX_RANK);
  *out = 0;
  for (size_t i = 0; i < n; i++) {
    int32_t axis;
    if (!cml_axis(axes[i], rank, &axis))
      return cml_call_fail(c, err, "axis %lld is out of range for rank %d", (long long)axes[i], (int)rank);
    if (*out >> axis & 1) return cml_call_fail(c, err, "axis %d is given twice", (int)axis);
    *out |= 1u << axis;
  }
  return CML_OK;
}

static void set_reduced(cml_call *c, const cml_tensor *x, uint32_t reduced, bool keep, cml_dtype dtype) {
  int64_t dims[CML_MAX_RANK];
  int32_t rank = 0;
  for (int32_t i = 0; i < x->rank; i++) {
    if (!(reduced >> i & 1)) dims[rank++] = x->dims[i];
    else if (keep) dims[rank++] = 1;
  }
  cml_out_set(c, 0, dtype, rank, dims);
}

/* Sums over pixels with the channels last (means of images): pieces of SUM_PIXELS are added in float by a kernel, and what they
 * give in double. The pieces do not depend on the number of threads. */
enum { SUM_PIXELS = 128 };

static bool sums_pixels(const cml_tensor *x, uint32_t reduced, int64_t *pixels, int64_t *channels) {
  *pixels = 1;
  if (x->rank < 2 || x->rank > CML_MAX_RANK || !cml_tensor_known_shape(x) || (x->dtype != CML_F32 && x->dtype != CML_F16)) return false;
  *channels = x->dims[x->rank - 1];
  for (int32_t i = 0; i + 1 < x->rank; i++) {
    if (!(reduced >> i & 1) && x->dims[i] != 1) return false;
    *pixels *= x->dims[i];
  }
  return !(reduced >> (x->rank - 1) & 1) && *pixels >= 32 && *channels >= 8;
}

/* Short rows that are reduced, under dims that are kept and others that are reduced: first each row is folded, then what the rows gave, as
 * floats. In `step` comes what remains of x after the first fold: no more than stays in cache. */
enum { SHORT_ROW = 128, MOST_ROWS = 1 << 18 };

static bool folds_twice(const cml_tensor *x, uint32_t reduced, const struct reduction *r, cml_tensor *step) {
  if (!cml_tensor_known_shape(x) || (x->dtype != CML_F32 && x->dtype != CML_F16) || r->fold == FOLD_product || r->finish == LOG_SUM_EXP) return false;
  int64_t last = 1;
  *step = (cml_tensor){.dtype = CML_F32, .rank = x->rank};
  for (; step->rank && (reduced >> (step->rank - 1) & 1 || x->dims[step->rank - 1] == 1); step->rank--) last *= x->dims[step->rank - 1];
  bool others = false;
  for (int32_t i = 0; i < step->rank; i++) {
    step->dims[i] = x->dims[i];
    others |= (reduced >> i & 1) && x->dims[i] > 1;
  }
  return others && last > 1 && last <= SHORT_ROW && cml_tensor_count(step) <= MOST_ROWS;
}

static uint64_t sum_pieces(int64_t pixels) { return (uint64_t)(pixels + SUM_PIXELS - 1) / SUM_PIXELS; }

static cml_status infer_reduce(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  uint32_t reduced;
  CML_TRY(cml_check_scalars(c, 4, err));
  if (x->rank < 0) return cml_out_unknown(c, 0, x->dtype, CML_RANK_UNKNOWN), CML_OK;
  CML_TRY(reduced_axes(c, x->rank, &reduced, err));
  set_reduced(c, x, reduced, cml_arg_bool(c, 2, false), x->dtype);
  int64_t pixels, channels;
  if (reductions[c->op - cml_ops_reduce.rows].fold == FOLD_sum && sums_pixels(x, reduced, &pixels, &channels))
    c->scratch_size = sum_pieces(pixels) * (uint64_t)channels * 4;
  cml_tensor step;
  if (folds_twice(x, reduced, &reductions[c->op - cml_ops_reduce.rows], &step)) c->scratch_size = (uint64_t)cml_tensor_count(&step) * 4;
  return CML_OK;
}

/* ---- running ---- */

typedef struct sum_job {
  const cml_tensor *x;
  size_t pixels, channels;
  float *parts;
} sum_job;

static void sum_parts(void *context, size_t begin, size_t end) {
  const sum_job *j = context;
  bool half = j->x->dtype == CML_F16;
  for (size_t i = begin; i < end; i++) {
    size_t first = i * SUM_PIXELS, n = j->pixels - first < SUM_PIXELS ? j->pixels - first : SUM_PIXELS;
    cml_kernels_get()->channel_sums(n, j->channels, (const char *)j->x->data + first * j->channels * (half ? 2 : 4), half, j->channels,
                                    j->parts + i * j->channels);
  }
}

static void reduce_pixels(cml_call *c, finish f, int64_t pixels, int64_t channels) {
  sum_job j = {cml_arg(c, 0), (size_t)pixels, (size_t)channels, c->scratch};
  size_t pieces = sum_pieces(pixels), n = (size_t)channels;
  cml_parallel(c->pool, pieces, 1 + 65536 / (SUM_PIXELS * n), sum_parts, &j);
  for (size_t at = 0; at < n; at += BAND) {
    size_t width = n - at < BAND ? n - at : BAND;
    double sums[BAND] = {0};
    float row[BAND];
    for (size_t i = 0; i < pieces; i++) sum_f_band(sums, j.parts + i * n + at, width);
    for (size_t k = 0; k < width; k++) row[k] = (float)finish_float(f, sums[k], (double)pixels);
    cml_store_f32(c->outs[0]->data, c->outs[0]->dtype, (int64_t)at, row, width);
  }
}

typedef struct reduce_job {
  const cml_tensor *x;
  cml_tensor *out;
  const fold *fold;
  finish finish;
  double count;            /* of elements in one output; set to how many an element of x stands for before the plan is made */
  bool whole;              /* integers */
  int32_t kept, inner;     /* merged dims: kept ones, reduced ones, without the last dim */
  int64_t kept_dims[CML_MAX_RANK], kept_strides[CML_MAX_RANK];
  int64_t inner_dims[CML_MAX_RANK], inner_strides[CML_MAX_RANK], inner_count;
  bool last_reduced;
  int64_t last, bands;     /* length of the last merged dim; bands in it where it is kept */
} reduce_job;

static void reduce_plan(reduce_job *j, uint32_t reduced) {
  const cml_tensor *x = j->x;
  int64_t dims[CML_MAX_RANK + 1], strides[CML_MAX_RANK + 1], stride = 1;
  bool flags[CML_MAX_RANK + 1];
  int32_t n = 0; /* from the last dim to the first */
  for (int32_t i = x->rank - 1; i >= 0; i--) {
    bool flag = reduced >> i & 1;
    if (x->dims[i] == 1) continue;
    if (n && flags[n - 1] == flag) dims[n - 1] *= x->dims[i];
    else dims[n] = x->dims[i], strides[n] = stride, flags[n++] = flag;
    stride *= x->dims[i];
  }
  if (!n) dims[0] = 1, strides[0] = 1, flags[0] = true, n = 1;
  j->last = dims[0];
  j->last_reduced = flags[0];
  j->inner_count = 1;
  for (int32_t i = n - 1; i > 0; i--) {
    if (flags[i]) {
      j->inner_dims[j->inner] = dims[i], j->inner_strides[j->inner++] = strides[i];
      j->inner_count *= dims[i];
    } else {
      j->kept_dims[j->kept] = dims[i], j->kept_strides[j->kept++] = strides[i];
    }
  }
  j->count *= (double)j->inner_count * (j->last_reduced ? (double)j->last : 1.0);
  j->bands = j->last_reduced ? 1 : (j->last + BAND - 1) / BAND;
}

/* Results for integers truncate, as NumPy's astype does. */
static void store_one(const reduce_job *j, int64_t at, double v) {
  cml_tensor_set(j->out, at, v);
}

/* log(sum(exp(x - top))) + top, from the top that the fold gave. */
static double log_sum_exp_run(const reduce_job *j, int64_t base, double top) {
  const cml_kernels *kernels = cml_kernels_get();
  float row[BAND], shift = isinf(top) ? 0 : (float)top;
  double sum = 0;
  for (int64_t r = 0; r < j->inner_count; r++) {
    int64_t at = base + cml_step_offset(r, j->inner, j->inner_dims, j->inner_strides);
    for (int64_t k = 0; k < j->last; k += BAND) {
      size_t n = j->last - k < BAND ? (size_t)(j->last - k) : BAND;
      cml_load_f32(row, j->x->data, j->x->dtype, at + k, n);
      kernels->binary_scalar(CML_BINARY_SUB, row, shift, false, row, n);
      kernels->unary(CML_UNARY_EXP, row, row, n, 0, 0);
      sum += (double)kernels->sum(row, n);
    }
  }
  return log(sum) + (double)shift;
}

static void reduce_run_f32(const reduce_job *j, int64_t o) {
  float row[CML_CHUNK];
  int64_t base = cml_step_offset(o, j->kept, j->kept_dims, j->kept_strides);
  double v = j->fold->f_start;
  for (int64_t r = 0; r < j->inner_count; r++) {
    int64_t at = base + cml_step_offset(r, j->inner, j->inner_dims, j->inner_strides);
    for (int64_t k = 0; k < j->last; k += CML_CHUNK) {
      size_t n = j->last - k < CML_CHUNK ? (size_t)(j->last - k) : CML_CHUNK;
      const float *p = row;
      if (j->x->dtype == CML_F32) p = (const float *)j->x->data + at + k;
      else cml_load_f32(row, j->x->data, j->x->dtype, at + k, n);
      v = j->fold->f_run(v, p, n);
    }
  }
  store_one(j, o, j->finish == LOG_SUM_EXP ? log_sum_exp_run(j, base, v) : finish_float(j->finish, v, j->count));
}

static void reduce_run_i64(const reduce_job *j, int64_t o) {
  int64_t row[CML_CHUNK], base = cml_step_offset(o, j->kept, j->kept_dims, j->kept_strides), v = j->fold->i_start;
  for (int64_t r = 0; r < j->inner_count; r++) {
    int64_t at = base + cml_step_offset(r, j->inner, j->inner_dims, j->inner_strides);
    for (int64_t k = 0; k < j->last; k += CML_CHUNK) {
      size_t n = j->last - k < CML_CHUNK ? (size_t)(j->last - k) : CML_CHUNK;
      cml_load_i64(row, j->x->data, j->x->dtype, at + k, n);
      v = j->fold->i_run(v, row, n);
    }
  }
  if (j->finish == AS_IT_IS) cml_store_i64(j->out->data, j->out->dtype, o, &v, 1);
  else store_one(j, o, finish_float(j->finish, (double)v, j->count));
}

/* Rows of a band are folded side by side where the band is short, as many as BAND holds, so that a kernel has more than a few elements to
 * fold; what the rows of such a group give is joined at the end. */
static size_t rows_beside(const reduce_job *j) {
  const int64_t rows = j->inner ? j->inner_dims[j->inner - 1] : 1, room = BAND / j->last;
  return rows < 2 || room < 2 ? 1 : (size_t)(rows < room ? rows : room);
}

/* How many rows from row r on lie side by side: not more than `rows`, nor beyond the innermost reduced dim. */
static size_t group_from(const reduce_job *j, int64_t r, size_t rows) {
  int64_t left = j->inner ? j->inner_dims[j->inner - 1] - r % j->inner_dims[j->inner - 1] : 1;
  return left < (int64_t)rows ? (size_t)left : rows;
}

static int64_t row_at(const reduce_job *j, int64_t base, int64_t r) { return base + cml_step_offset(r, j->inner, j->inner_dims, j->inner_strides); }

/* The greatest of each column, a stretch of rows in one call, which keeps what it has in registers. From the last row to the first: of two
 * zeros the later one stays, of NaNs the first, as in the rows' order with the other kernel below. */
static void greatest_band(const reduce_job *j, int64_t base, size_t width, size_t rows, float *best) {
  enum { TAPS = 64 };
  const void *taps[TAPS];
  const size_t size = j->x->dtype == CML_F16 ? 2 : 4;
  const int64_t inner = j->inner_dims[j->inner - 1], groups = (inner + (int64_t)rows - 1) / (int64_t)rows;
  size_t count = 0, across = 0;
  for (size_t i = 0; i < rows * width; i++) best[i] = -INFINITY;
  for (int64_t g = j->inner_count / inner * groups - 1; g >= 0; g--) {
    const int64_t r = g / groups * inner + g % groups * (int64_t)rows;
    const size_t n = group_from(j, r, rows);
    if (count && (count == TAPS || n != across)) cml_kernels_get()->pool_rows(CML_POOL_MAX, size == 2, count, taps, across * width, true, best), count = 0;
    across = n;
    taps[count++] = (const char *)j->x->data + (size_t)row_at(j, base, r) * size;
  }
  cml_kernels_get()->pool_rows(CML_POOL_MAX, size == 2, count, taps, across * width, true, best);
}

/* The greatest or least of each column: a float comes out as it went in, so that no sum in double is needed. */
static void extreme_band(const reduce_job *j, int64_t base, size_t width, float *best) {
  cml_binary f = j->fold == &folds[FOLD_maximum] ? CML_BINARY_MAX : CML_BINARY_MIN;
  const cml_kernels *kernels = cml_kernels_get();
  float wide[BAND];
  size_t rows = rows_beside(j), n;
  const bool greatest = f == CML_BINARY_MAX && j->inner && (j->x->dtype == CML_F32 || j->x->dtype == CML_F16);
  if (greatest) greatest_band(j, base, width, rows, best);
  for (int64_t r = 0; r < j->inner_count && !greatest; r += (int64_t)n) {
    int64_t at = row_at(j, base, r);
    n = group_from(j, r, rows);
    const float *row = j->x->dtype == CML_F32 ? (const float *)j->x->data + at : wide;
    if (!r || row == wide) cml_load_f32(r ? wide : best, j->x->data, j->x->dtype, at, n * width);
    if (r) kernels->binary(f, best, row, best, n * width);
  }
  for (size_t half; rows > 1; rows = half) { /* the upper half to the lower one */
    half = (rows + 1) / 2;
    kernels->binary(f, best, best + half * width, best, (rows - half) * width);
  }
}

/* Sums of columns: some rows at a time as floats, by vectors, then in double. */
static bool suits_columns(const reduce_job *j) {
  return j->fold == &folds[FOLD_sum] && j->inner == 1 && (j->x->dtype == CML_F32 || j->x->dtype == CML_F16);
}

enum { ROWS = 64 };

static void add_columns(const reduce_job *j, int64_t base, size_t width, double *sums) {
  float row[BAND];
  const bool half = j->x->dtype == CML_F16;
  const size_t beside = rows_beside(j), stride = (size_t)j->inner_strides[0];
  for (size_t r = 0, count = (size_t)j->inner_count, n, across; r < count; r += n * across) {
    across = count - r < beside ? count - r : beside;
    n = (count - r) / across < ROWS ? (count - r) / across : ROWS;
    const char *x = (const char *)j->x->data + ((size_t)base + r * stride) * (half ? 2 : 4);
    cml_kernels_get()->channel_sums(n, across * width, x, half, across * stride, row);
    j->fold->f_band(sums, row, across * width);
  }
}

/* Sums of exp(x - top) in place of the greatest elements, `sums`, of each column. */
static void log_sum_exp_band(const reduce_job *j, int64_t base, size_t width, double *sums) {
  const cml_kernels *kernels = cml_kernels_get();
  float row[BAND], top[BAND];
  size_t rows = rows_beside(j), n;
  for (size_t i = 0; i < rows * width; i++) top[i] = isinf(sums[i % width]) ? 0 : (float)sums[i % width];
  for (size_t i = 0; i < rows * width; i++) sums[i] = 0;
  for (int64_t r = 0; r < j->inner_count; r += (int64_t)n) {
    n = group_from(j, r, rows);
    cml_load_f32(row, j->x->data, j->x->dtype, row_at(j, base, r), n * width);
    kernels->binary(CML_BINARY_SUB, row, top, row, n * width);
    kernels->unary(CML_UNARY_EXP, row, row, n * width, 0, 0);
    for (size_t i = 0; i < n * width; i++) sums[i] += (double)row[i];
  }
  for (size_t r = 1; r < rows; r++)
    for (size_t i = 0; i < width; i++) sums[i] += sums[r * width + i];
  for (size_t i = 0; i < width; i++) sums[i] = log(sums[i]) + (double)top[i];
}

static void finish_row(const reduce_job *j, float *row, size_t n) {
  const cml_kernels *k = cml_kernels_get();
  if (j->finish == MEAN) k->binary_scalar(CML_BINARY_DIV, row, (float)j->count, false, row, n);
  if (j->finish == ROOT) k->unary(CML_UNARY_SQRT, row, row, n, 0, 0);
  if (j->finish == LOGARITHM) k->unary(CML_UNARY_LOG, row, row, n, 0, 0);
}

static void reduce_band_f32(const reduce_job *j, int64_t base, int64_t out, size_t width) {
  float row[BAND];
  double sums[BAND];
  if (j->finish == AS_IT_IS && j->inner_count && (j->fold == &folds[FOLD_maximum] || j->fold == &folds[FOLD_minimum])) {
    extreme_band(j, base, width, row);
    cml_store_f32(j->out->data, j->out->dtype, out, row, width);
    return;
  }
  const bool columns = suits_columns(j), half = j->x->dtype == CML_F16;
  if (columns && j->inner_count && j->inner_count <= ROWS) { /* so few rows need no double */
    const char *x = (const char *)j->x->data + (size_t)base * (half ? 2 : 4);
    cml_kernels_get()->channel_sums((size_t)j->inner_count, width, x, half, (size_t)j->inner_strides[0], row);
    finish_row(j, row, width);
    cml_store_f32(j->out->data, j->out->dtype, out, row, width);
    return;
  }
  const size_t rows = rows_beside(j);
  for (size_t i = 0; i < rows * width; i++) sums[i] = j->fold->f_start;
  if (columns) add_columns(j, base, width, sums);
  for (int64_t r = 0, n; r < j->inner_count && !columns; r += n) {
    n = (int64_t)group_from(j, r, rows);
    cml_load_f32(row, j->x->data, j->x->dtype, row_at(j, base, r), (size_t)n * width);
    j->fold->f_band(sums, row, (size_t)n * width);
  }
  for (size_t r = 1; r < rows; r++)
    for (size_t i = 0; i < width; i++) sums[i] = j->fold->f_join(sums[i], sums[r * width + i]);
  if (j->finish == LOG_SUM_EXP) log_sum_exp_band(j, base, width, sums);
  for (size_t i = 0; i < width; i++) row[i] = (float)finish_float(j->finish, sums[i], j->count);
  cml_store_f32(j->out->data, j->out->dtype, out, row, width);
}

static void reduce_band_i64(const reduce_job *j, int64_t base, int64_t out, size_t width) {
  int64_t row[BAND], sums[BAND];
  for (size_t i = 0; i < width; i++) sums[i] = j->fold->i_start;
  for (int64_t r = 0; r < j->inner_count; r++) {
    cml_load_i64(row, j->x->data, j->x->dtype, base + cml_step_offset(r, j->inner, j->inner_dims, j->inner_strides), width);
    j->fold->i_band(sums, row, width);
  }
  if (j->finish == AS_IT_IS) cml_store_i64(j->out->data, j->out->dtype, out, sums, width);
  for (size_t i = 0; i < width && j->finish != AS_IT_IS; i++)
    store_one(j, out + (int64_t)i, finish_float(j->finish, (double)sums[i], j->count));
}

/* Short rows that lie one after the other, many at once. */
static bool suits_rows(const reduce_job *j) {
  return !j->whole && j->last_reduced && !j->inner && j->last > 0 && j->last <= CML_CHUNK && j->fold != &folds[FOLD_product] &&
         (j->x->dtype == CML_F32 || j->x->dtype == CML_F16);
}

static void log_sum_exp_rows(const reduce_job *j, size_t begin, size_t end) {
  const cml_kernels *k = cml_kernels_get();
  const size_t last = (size_t)j->last, size = j->x->dtype == CML_F16 ? 2 : 4;
  float x[CML_CHUNK], tops[CML_CHUNK], top[CML_CHUNK], sums[CML_CHUNK];
  for (size_t i = begin, n; i < end; i += n) {
    n = end - i < CML_CHUNK / last ? end - i : CML_CHUNK / last;
    k->fold_rows(CML_FOLD_MAX, n, last, (const char *)j->x->data + i * last * size, size == 2, top);
    for (size_t r = 0; r < n; r++) {
      if (isinf(top[r])) top[r] = 0;
      for (size_t e = 0; e < last; e++) tops[r * last + e] = top[r];
    }
    cml_load_f32(x, j->x->data, j->x->dtype, (int64_t)(i * last), n * last);
    k->binary(CML_BINARY_SUB, x, tops, x, n * last);
    k->unary(CML_UNARY_EXP, x, x, n * last, 0, 0);
    k->fold_rows(CML_FOLD_SUM, n, last, x, false, sums);
    k->unary(CML_UNARY_LOG, sums, sums, n, 0, 0);
    k->binary(CML_BINARY_ADD, sums, top, sums, n);
    cml_store_f32(j->out->data, j->out->dtype, (int64_t)i, sums, n);
  }
}

static void reduce_rows(const reduce_job *j, size_t begin, size_t end) {
  static const cml_row_fold row_folds[] = {[FOLD_sum] = CML_FOLD_SUM, [FOLD_sum_abs] = CML_FOLD_ABS, [FOLD_sum_square] = CML_FOLD_SQUARE,
                                           [FOLD_maximum] = CML_FOLD_MAX, [FOLD_minimum] = CML_FOLD_MIN};
  const cml_kernels *k = cml_kernels_get();
  bool half = j->x->dtype == CML_F16;
  float row[BAND];
  for (size_t i = begin, n; i < end; i += n) {
    n = end - i < BAND ? end - i : BAND;
    k->fold_rows(row_folds[j->fold - folds], n, (size_t)j->last, (const char *)j->x->data + i * (size_t)j->last * (half ? 2 : 4), half, row);
    finish_row(j, row, n);
    cml_store_f32(j->out->data, j->out->dtype, (int64_t)i, row, n);
  }
}

/* Small blocks of rows that lie one after the other, each folded to a row: many at once. A chunk of blocks is folded with itself, moved by
 * one row, two, four, and so on, so that each row becomes the fold of itself and those behind it; the first row of each block is kept. */
enum { SMALL_BLOCK = 128 };

static bool suits_blocks(const reduce_job *j) {
  return !j->whole && !j->last_reduced && j->inner == 1 && j->inner_strides[0] == j->last && j->kept == 1 && j->inner_count > 1 &&
         j->inner_count * j->last <= SMALL_BLOCK && j->finish != LOG_SUM_EXP && j->fold != &folds[FOLD_product] &&
         (j->x->dtype == CML_F32 || j->x->dtype == CML_F16);
}

static void reduce_blocks(const reduce_job *j, size_t begin, size_t end) {
  const cml_kernels *kernels = cml_kernels_get();
  const cml_binary f = j->fold == &folds[FOLD_maximum] ? CML_BINARY_MAX : j->fold == &folds[FOLD_minimum] ? CML_BINARY_MIN : CML_BINARY_ADD;
  const size_t width = (size_t)j->last, rows = (size_t)j->inner_count, block = rows * width;
  float room[2][CML_CHUNK], folded[CML_CHUNK];
  for (size_t i = begin, blocks; i < end; i += blocks) {
    blocks = end - i < CML_CHUNK / block ? end - i : CML_CHUNK / block;
    const size_t n = blocks * block, wanted = n - block + width;
    const float *x = room[0];
    if (j->x->dtype == CML_F32) x = (const float *)j->x->data + i * block;
    else cml_load_f32(room[0], j->x->data, j->x->dtype, (int64_t)(i * block), n);
    if (j->fold == &folds[FOLD_sum_square]) kernels->binary(CML_BINARY_MUL, x, x, room[0], n), x = room[0];
    if (j->fold == &folds[FOLD_sum_abs]) kernels->unary(CML_UNARY_ABS, x, room[0], n, 0, 0), x = room[0];
    size_t done = 0; /* rows in `folded`; those of x are folds of `size` */
    for (size_t size = 1;; size *= 2) {
      if (rows & size) {
        if (done) kernels->binary(f, folded, x + done * width, folded, wanted);
        else memcpy(folded, x, wanted * sizeof *x);
        done += size;
      }
      if (done == rows) break;
      float *to = x == room[0] ? room[1] : room[0];
      kernels->binary(f, x, x + size * width, to, n - (2 * size - 1) * width);
      x = to;
    }
    for (size_t b = 1; b < blocks; b++)
      for (size_t k = 0; k < width; k++) folded[b * width + k] = folded[b * block + k];
    finish_row(j, folded, blocks * width);
    cml_store_f32(j->out->data, j->out->dtype, (int64_t)(i * width), folded, blocks * width);
  }
}

static void reduce_tasks(void *context, size_t begin, size_t end) {
  const reduce_job *j = context;
  if (suits_rows(j)) {
    if (j->finish == LOG_SUM_EXP) log_sum_exp_rows(j, begin, end);
    else reduce_rows(j, begin, end);
    return;
  }
  if (suits_blocks(j)) {
    reduce_blocks(j, begin, end);
    return;
  }
  for (size_t t = begin; t < end; t++) {
    if (j->last_reduced) {
      if (j->whole) reduce_run_i64(j, (int64_t)t);
      else reduce_run_f32(j, (int64_t)t);
      continue;
    }
    int64_t o = (int64_t)t / j->bands, from = (int64_t)t % j->bands * BAND;
    int64_t base = cml_step_offset(o, j->kept, j->kept_dims, j->kept_strides) + from;
    size_t width = j->last - from < BAND ? (size_t)(j->last - from) : BAND;
    if (j->whole) reduce_band_i64(j, base, o * j->last + from, width);
    else reduce_band_f32(j, base, o * j->last + from, width);
  }
}

static void reduce_with(reduce_job *j, uint32_t reduced, cml_pool *pool) {
  reduce_plan(j, reduced);
  int64_t outputs = cml_tensor_count(j->out), work = j->inner_count * (j->last_reduced || j->last < BAND ? j->last : BAND);
  if (!outputs) return;
  if (work < 1) work = 1;
  size_t tasks = (size_t)(j->last_reduced ? outputs : outputs / j->last * j->bands);
  cml_parallel(pool, tasks, (size_t)(work < 32768 ? 32768 / work : 1), reduce_tasks, j);
}

static cml_status run_reduce(cml_call *c, cml_error *err) {
  const struct reduction *r = &reductions[c->op - cml_ops_reduce.rows];
  reduce_job j = {.x = cml_arg(c, 0), .out = c->outs[0], .fold = &folds[r->fold], .finish = r->finish, .count = 1};
  uint32_t reduced;
  CML_TRY(reduced_axes(c, j.x->rank, &reduced, err));
  int64_t pixels, channels;
  if (r->fold == FOLD_sum && sums_pixels(j.x, reduced, &pixels, &channels) && c->scratch) {
    reduce_pixels(c, r->finish, pixels, channels);
    return CML_OK;
  }
  cml_tensor step;
  if (c->scratch && cml_tensor_count(j.x) && folds_twice(j.x, reduced, r, &step)) {
    step.data = c->scratch;
    uint32_t rest = (1u << step.rank) - 1;
    reduce_job rows = {.x = j.x, .out = &step, .fold = j.fold, .finish = AS_IT_IS, .count = 1};
    reduce_with(&rows, ~rest, c->pool);
    j.x = &step;
    j.count = rows.count;
    if (r->fold == FOLD_sum_abs || r->fold == FOLD_sum_square) j.fold = &folds[FOLD_sum];
    reduce_with(&j, reduced & rest, c->pool);
    return CML_OK;
  }
  j.whole = !cml_dtype_is_float(j.x->dtype) && r->finish != LOG_SUM_EXP;
  reduce_with(&j, reduced, c->pool);
  return CML_OK;
}

/* ---- argmax, argmin ---- */

static const char *const index_types[] = {"int32", "uint16", NULL};

static cml_status infer_arg(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  int32_t axis;
  CML_TRY(cml_check_scalars(c, ~1u, err));
  CML_TRY(cml_check_axis(c, 1, -1, x->rank, &axis, err));
  const char *text = c->op->param_count > 3 ? cml_arg_text(c, 3, "int32") : "int32";
  int type = cml_word_index(text, index_types);
  if (type < 0) return cml_call_fail(c, err, "output_dtype '%s' is neither int32 nor uint16", text);
  cml_dtype dtype = type ? CML_U16 : CML_I32;
  if (axis < 0) return cml_out_unknown(c, 0, dtype, CML_RANK_UNKNOWN), CML_OK;
  if (!x->dims[axis]) return cml_call_fail(c, err, "there is nothing along axis %d", (int)axis);
  set_reduced(c, x, 1u << axis, cml_arg_bool(c, 2, false), dtype);
  return CML_OK;
}

typedef struct arg_job {
  const cml_tensor *x;
  cml_tensor *out;
  int64_t n, inner;
  bool lowest;
} arg_job;

/* One output of a contiguous line. The first of equals wins, and the first NaN over all. */
static int64_t arg_float(const arg_job *j, int64_t at) {
  enum { STRETCH = 1 << 20 };
  const bool half = j->x->dtype == CML_F16;
  float best = 0, value;
  int64_t index = -1;
  for (int64_t k = 0; k < j->n && best == best; k += STRETCH) {
    const size_t n = j->n - k < STRETCH ? (size_t)(j->n - k) : STRETCH;
    const size_t place = cml_kernels_get()->first_extreme((const char *)j->x->data + (at + k) * (half ? 2 : 4), half, n, j->lowest, &value);
    if (index < 0 || (j->lowest ? value < best : value > best) || value != value) best = value, index = k + (int64_t)place;
  }
  return index;
}

static int64_t arg_int(const arg_job *j, int64_t at) {
  int64_t best = 0, v, index = 0;
  for (int64_t k = 0; k < j->n; k++) {
    cml_load_i64(&v, j->x->data, j->x->dtype, at + k * j->inner, 1);
    if (!k || (j->lowest ? v < best : v > best)) best = v, index = k;
  }
  return index;
}

/* Element k of `width` lines side by side. */
static void arg_step(const arg_job *j, int32_t k, const float *p, size_t width, float *best, int32_t *index) {
  const float sign = j->lowest ? -1 : 1;
  CML_INDEPENDENT for (size_t i = 0; i < width; i++) {
    const float v = p[i], b = best[i];
    const int32_t was = index[i];
    const bool better = !(v * sign <= b * sign) & (b == b); /* NaN is, but no second one */
    best[i] = better ? v : b;
    index[i] = better ? k : was;
  }
}

/* The same for `width` columns side by side, row by row. */
static void arg_columns(const arg_job *j, int64_t at, size_t width, int64_t *out) {
  float best[BAND], row[BAND];
  int32_t index[BAND] = {0};
  cml_load_f32(best, j->x->data, j->x->dtype, at, width);
  for (int32_t k = 1; k < j->n; k++) {
    const float *p = j->x->dtype == CML_F32 ? (const float *)j->x->data + at + k * j->inner : row;
    if (p == row) cml_load_f32(row, j->x->data, j->x->dtype, at + k * j->inner, width);
    arg_step(j, k, p, width, best, index);
  }
  for (size_t i = 0; i < width; i++) out[i] = index[i];
}

/* Blocks of n rows so small that a call for each would cost more than its elements: their columns side by side, as many blocks as fit. */
enum { ARG_BLOCK = 256 };

static bool arg_suits_blocks(const arg_job *j) {
  return cml_dtype_is_float(j->x->dtype) && j->inner > 0 && j->inner <= 16 && j->n * j->inner <= ARG_BLOCK && (j->inner > 1 || j->n <= 32);
}

static void arg_blocks(const arg_job *j, size_t from, size_t blocks, int64_t *out) {
  const size_t inner = (size_t)j->inner, block = (size_t)j->n * inner, width = blocks * inner;
  float loaded[CML_CHUNK], best[BAND], row[BAND];
  int32_t index[BAND] = {0};
  const float *x = loaded;
  if (j->x->dtype == CML_F32) x = (const float *)j->x->data + from * block;
  else cml_load_f32(loaded, j->x->data, j->x->dtype, (int64_t)(from * block), blocks * block);
  for (int32_t k = 0; k < j->n; k++) {
    float *to = k ? row : best;
    const float *p = x + (size_t)k * inner;
    if (inner == 1)
      for (size_t b = 0; b < blocks; b++) to[b] = p[b * block];
    else
      for (size_t b = 0; b < blocks; b++)
        for (size_t i = 0; i < inner; i++) to[b * inner + i] = p[b * block + i];
    if (k) arg_step(j, k, row, width, best, index);
  }
  for (size_t i = 0; i < width; i++) out[i] = index[i];
}

static void arg_block_tasks(void *context, size_t begin, size_t end) {
  const arg_job *j = context;
  const size_t inner = (size_t)j->inner, by_width = BAND / inner, by_room = CML_CHUNK / ((size_t)j->n * inner);
  const size_t room = j->x->dtype == CML_F32 || by_width < by_room ? by_width : by_room;
  int64_t band[BAND];
  for (size_t b = begin, blocks; b < end; b += blocks) {
    blocks = end - b < room ? end - b : room;
    arg_blocks(j, b, blocks, band);
    cml_store_i64(j->out->data, j->out->dtype, (int64_t)(b * inner), band, blocks * inner);
  }
}

static void arg_tasks(void *context, size_t begin, size_t end) {
  const arg_job *j = context;
  const bool columns = j->inner > 1 && cml_dtype_is_float(j->x->dtype); /* indices are int32 */
  int64_t band[BAND];
  for (size_t t = begin, width; columns && t < end; t += width) {
    int64_t column = (int64_t)t % j->inner;
    width = end - t < BAND ? end - t : BAND;
    if ((int64_t)width > j->inner - column) width = (size_t)(j->inner - column);
    arg_columns(j, (int64_t)t / j->inner * j->n * j->inner + column, width, band);
    cml_store_i64(j->out->data, j->out->dtype, (int64_t)t, band, width);
  }
  for (size_t t = begin; !columns && t < end; t++) {
    int64_t at = (int64_t)t / j->inner * j->n * j->inner + (int64_t)t % j->inner;
    int64_t index = !cml_dtype_is_float(j->x->dtype) ? arg_int(j, at) : arg_float(j, at);
    cml_store_i64(j->out->data, j->out->dtype, (int64_t)t, &index, 1);
  }
}

static cml_status run_arg(cml_call *c, cml_error *err) {
  arg_job j = {.x = cml_arg(c, 0), .out = c->outs[0], .inner = 1, .lowest = !strcmp(c->op->name, "reduce_argmin")};
  int32_t axis;
  CML_TRY(cml_check_axis(c, 1, -1, j.x->rank, &axis, err));
  j.n = j.x->dims[axis];
  for (int32_t i = axis + 1; i < j.x->rank; i++) j.inner *= j.x->dims[i];
  if (arg_suits_blocks(&j))
    cml_parallel(c->pool, (size_t)(cml_tensor_count(j.out) / j.inner), (size_t)(16384 / (j.n * j.inner) + 1), arg_block_tasks, &j);
  else
    cml_parallel(c->pool, (size_t)cml_tensor_count(j.out), (size_t)(16384 / j.n + 1), arg_tasks, &j);
  return CML_OK;
}

/* ---- the table: first the rows beside `reductions` ---- */

#define REDUCED {"x", CML_M_FLOAT | CML_MASK(I32), 0, 0}
#define KEEP_DIMS {"keep_dims", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}
static const cml_param reduce_params[] = {REDUCED, {"axes", CML_MASK(I32), CML_OPTIONAL | CML_CONST | CML_VECTOR, 0}, KEEP_DIMS};
static const cml_param arg_params_15[] = {REDUCED, {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}, KEEP_DIMS};
static const cml_param arg_params_17[] = {REDUCED, {"axis", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}, KEEP_DIMS,
                                          {"output_dtype", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}};

#define ARG_ROWS(text)                                                                                             \
  {.name = text, .since = CML_IOS15, .until = CML_IOS16, .min_outputs = 1, .max_outputs = 1,                       \
   CML_PARAMS(arg_params_15), .infer = infer_arg, .run = run_arg},                                                 \
  {.name = text, .since = CML_IOS17, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(arg_params_17),                \
   .infer = infer_arg, .run = run_arg},

static const cml_op rows[] = {
#define REDUCE_ROW(text, fold_, finish_)                                                                           \
  {.name = #text, .since = CML_IOS15, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(reduce_params),               \
   .infer = infer_reduce, .run = run_reduce},
    REDUCE_MAP(REDUCE_ROW)
    ARG_ROWS("reduce_argmax") ARG_ROWS("reduce_argmin")
};

const cml_op_family cml_ops_reduce = {"reduce", rows, sizeof rows / sizeof *rows};
