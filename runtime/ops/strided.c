/* See strided.h. Strides are kept in elements until the loops are sorted, dropped and joined, then in bytes. The work is cut
 * into units (a row, a piece of a long row, a band of a transpose), so that threads share it whatever its shape. */
#include "strided.h"

#include "kernels.h"

enum {
  ROW_PIECE = 1 << 15,   /* elements of a row in one unit */
  BAND = 64,             /* rows of a transpose in one unit */
  TILE = 32,             /* a square of this side is moved at once, so that both sides stay in cache */
  SERIAL_BYTES = 1 << 16 /* less is not worth waking threads for */
};

typedef struct job {
  int32_t outer;                   /* loops around the inner ones */
  size_t size;
  int64_t count[CML_STRIDED_LOOPS], to[CML_STRIDED_LOOPS], from[CML_STRIDED_LOOPS]; /* strides in bytes */
  int64_t n, n_to, n_from;         /* the innermost loop */
  int64_t m, m_to, m_from;         /* a transpose's other loop: m_from is one element, n_to is one element */
  bool transpose;
  bool weave;                      /* n rows of m elements each into one: m_from is one element, m_to n of them */
  int64_t pieces;                  /* units in one pass of the inner loops */
  char *to_base;
  const char *from_base;
} job;

/* ---- inner loops ---- */

typedef struct bytes16 { uint64_t a, b; } bytes16;

#define ROW_LOOP(type)                                                                       \
  do {                                                                                       \
    if (n_to == (int64_t)sizeof(type)) {                                                     \
      type *t = (type *)(void *)to;                                                          \
      for (int64_t i = 0; i < n; i++) t[i] = *(const type *)(const void *)(from + i * n_from); \
    } else if (n_from == (int64_t)sizeof(type)) {                                            \
      const type *f = (const type *)(const void *)from;                                      \
      for (int64_t i = 0; i < n; i++) *(type *)(void *)(to + i * n_to) = f[i];               \
    } else {                                                                                 \
      for (int64_t i = 0; i < n; i++) *(type *)(void *)(to + i * n_to) = *(const type *)(const void *)(from + i * n_from); \
    }                                                                                        \
  } while (0)

static void fill_run(char *to, const char *value, size_t size, int64_t n) {
  switch (size) {
    case 1: memset(to, *(const unsigned char *)value, (size_t)n); break;
    case 2: for (int64_t i = 0; i < n; i++) ((uint16_t *)(void *)to)[i] = *(const uint16_t *)(const void *)value; break;
    case 4: for (int64_t i = 0; i < n; i++) ((uint32_t *)(void *)to)[i] = *(const uint32_t *)(const void *)value; break;
    case 8: for (int64_t i = 0; i < n; i++) ((uint64_t *)(void *)to)[i] = *(const uint64_t *)(const void *)value; break;
    default: for (int64_t i = 0; i < n; i++) memcpy(to + (size_t)i * size, value, size); break;
  }
}

static void copy_row(char *to, const char *from, int64_t n, int64_t n_to, int64_t n_from, size_t size) {
  if (n_to == (int64_t)size && n_from == n_to) {
    memmove(to, from, (size_t)n * size); /* plans that lie may let them overlap */
    return;
  }
  if (n_to == (int64_t)size && n_from == 0) {
    fill_run(to, from, size, n);
    return;
  }
  const bool apart = n_to == (int64_t)size && n > 16 && (n_from == 2 * n_to || n_from == 4 * n_to || n_from == 8 * n_to); /* a matrix's column */
  if (apart && size == 2) cml_kernels_get()->transpose_16((size_t)n, 1, (const uint16_t *)(const void *)from, (size_t)n_from / 2, (uint16_t *)(void *)to, (size_t)n);
  else if (apart && size == 4) cml_kernels_get()->transpose((size_t)n, 1, (const float *)(const void *)from, (size_t)n_from / 4, (float *)(void *)to, (size_t)n);
  else switch (size) {
    case 1: ROW_LOOP(uint8_t); break;
    case 2: ROW_LOOP(uint16_t); break;
    case 4: ROW_LOOP(uint32_t); break;
    case 8: ROW_LOOP(uint64_t); break;
    default: ROW_LOOP(bytes16); break;
  }
}

/* to[i][j] = from[j][i]: rows of `to` are m_to apart, rows of `from` n_from apart. */
#define TILE_LOOP(type)                                                                             \
  do {                                                                                              \
    for (int64_t i = 0; i < rows; i++) {                                                            \
      type *t = (type *)(void *)(to + i * m_to);                                                    \
      const char *f = from + i * (int64_t)sizeof(type);                                             \
      for (int64_t k = 0; k < columns; k++) t[k] = *(const type *)(const void *)(f + k * n_from);   \
    }                                                                                               \
  } while (0)

static void copy_tile(char *to, const char *from, int64_t rows, int64_t columns, int64_t m_to, int64_t n_from, size_t size) {
  switch (size) {
    case 1: TILE_LOOP(uint8_t); break;
    case 2:
      if (n_from >= 0)
        cml_kernels_get()->transpose_16((size_t)columns, (size_t)rows, (const uint16_t *)(const void *)from, (size_t)n_from / 2,
                                        (uint16_t *)(void *)to, (size_t)m_to / 2);
      else TILE_LOOP(uint16_t);
      break;
    case 4:
      if (n_from >= 0)
        cml_kernels_get()->transpose((size_t)columns, (size_t)rows, (const float *)(const void *)from, (size_t)n_from / 4,
                                     (float *)(void *)to, (size_t)m_to / 4);
      else TILE_LOOP(uint32_t);
      break;
    case 8: TILE_LOOP(uint64_t); break;
    default: TILE_LOOP(bytes16); break;
  }
}

static void copy_band(const job *j, char *to, const char *from, int64_t first, int64_t last) {
  const int64_t tall = j->n <= TILE / 4 ? BAND : TILE; /* few numbers fit the cache in any case */
  for (int64_t i = first; i < last; i += tall)
    for (int64_t k = 0; k < j->n; k += TILE)
      copy_tile(to + i * j->m_to + k * j->n_to, from + i * j->m_from + k * j->n_from, last - i < tall ? last - i : tall,
                j->n - k < TILE ? j->n - k : TILE, j->m_to, j->n_from, j->size);
}

/* to[i * 3 + k] = from[k][i]: the compiler has vectors for it, which it has not where loops are around. */
#define WEAVE_LOOP(type)                                                                                                 \
  do {                                                                                                                   \
    type *restrict t = (type *)(void *)to;                                                                               \
    const type *restrict f0 = (const type *)(const void *)from, *restrict f1 = (const type *)(const void *)(from + n_from), \
               *restrict f2 = (const type *)(const void *)(from + 2 * n_from);                                           \
    for (int64_t i = 0; i < m; i++) {                                                                                    \
      t[i * 3] = f0[i];                                                                                                  \
      t[i * 3 + 1] = f1[i];                                                                                              \
      t[i * 3 + 2] = f2[i];                                                                                              \
    }                                                                                                                    \
  } while (0)

static void weave(char *to, const char *from, int64_t m, int64_t n, int64_t n_from, size_t size) {
  if (n == 2) {
    copy_tile(to, from, m, n, n * (int64_t)size, n_from, size);
  } else if (size == 2) {
    WEAVE_LOOP(uint16_t);
  } else {
    WEAVE_LOOP(uint32_t);
  }
}

/* ---- units ---- */

static void copy_unit(const job *j, char *to, const char *from, int64_t piece) {
  if (j->weave) {
    int64_t first = piece * ROW_PIECE, left = j->m - first;
    weave(to + first * j->m_to, from + first * j->m_from, left < ROW_PIECE ? left : ROW_PIECE, j->n, j->n_from, j->size);
  } else if (j->transpose) {
    int64_t first = piece * BAND, last = first + BAND < j->m ? first + BAND : j->m;
    copy_band(j, to, from, first, last);
  } else {
    int64_t first = piece * ROW_PIECE, left = j->n - first;
    copy_row(to + first * j->n_to, from + first * j->n_from, left < ROW_PIECE ? left : ROW_PIECE, j->n_to, j->n_from, j->size);
  }
}

/* Short runs, as many as stand in one line: whole vectors where the length is one of theirs. */
static void copy_runs(char *to, const char *from, int64_t count, int64_t to_step, int64_t from_step, size_t bytes) {
#define RUNS(n)                                 \
  for (int64_t i = 0; i < count; i++) {         \
    char run[n]; /* in registers; they may overlap where a memory plan lies */ \
    memcpy(run, from + i * from_step, n);       \
    memcpy(to + i * to_step, run, n);           \
  }
  switch (bytes) {
    case 8: RUNS(8) break;
    case 16: RUNS(16) break;
    case 32: RUNS(32) break;
    case 64: RUNS(64) break;
    default: for (int64_t i = 0; i < count; i++) memmove(to + i * to_step, from + i * from_step, bytes); break;
  }
#undef RUNS
}

static void copy_units(void *context, size_t begin, size_t end) {
  const job *j = context;
  int64_t at[CML_STRIDED_LOOPS], piece = (int64_t)begin % j->pieces, rest = (int64_t)begin / j->pieces;
  char *to = j->to_base;
  const char *from = j->from_base;
  for (int32_t k = j->outer - 1; k >= 0; k--) {
    at[k] = rest % j->count[k];
    rest /= j->count[k];
    to += at[k] * j->to[k];
    from += at[k] * j->from[k];
  }
  int32_t last = j->outer - 1;
  bool runs = !j->transpose && !j->weave && last >= 0 && j->n_to == (int64_t)j->size && j->n_from == (int64_t)j->size && j->n * (int64_t)j->size <= 64;
  for (size_t unit = begin; unit < end; unit++) {
    if (runs) {
      int64_t n = j->count[last] - at[last] - 1, left = (int64_t)(end - unit) - 1;
      if (n > left) n = left;
      copy_runs(to, from, n + 1, j->to[last], j->from[last], (size_t)(j->n * (int64_t)j->size));
      to += n * j->to[last];
      from += n * j->from[last];
      at[last] += n;
      unit += (size_t)n;
    } else {
      copy_unit(j, to, from, piece);
      if (++piece < j->pieces) continue;
      piece = 0;
    }
    for (int32_t k = last; k >= 0; k--) { /* one step on, as an odometer does */
      to += j->to[k];
      from += j->from[k];
      if (++at[k] < j->count[k]) break;
      to -= at[k] * j->to[k];
      from -= at[k] * j->from[k];
      at[k] = 0;
    }
  }
}

/* ---- preparing ---- */

/* Drops loops of one step, sorts by the output's stride and joins neighbours. False when nothing is to be copied. */
static bool simplify(const cml_strided *s, job *j) {
  int32_t n = 0;
  for (int32_t k = 0; k < s->loops; k++) {
    if (s->count[k] <= 0) return false;
    if (s->count[k] == 1) continue;
    int32_t at = n++;
    for (; at > 0 && j->to[at - 1] < s->to[k]; at--) j->count[at] = j->count[at - 1], j->to[at] = j->to[at - 1], j->from[at] = j->from[at - 1];
    j->count[at] = s->count[k];
    j->to[at] = s->to[k];
    j->from[at] = s->from[k];
  }
  int32_t kept = 0;
  for (int32_t k = 1; k < n; k++) {
    if (j->to[kept] == j->to[k] * j->count[k] && j->from[kept] == j->from[k] * j->count[k]) {
      j->count[kept] *= j->count[k];
    } else {
      kept++;
      j->count[kept] = j->count[k];
    }
    j->to[kept] = j->to[k];
    j->from[kept] = j->from[k];
  }
  if (!n) j->count[0] = j->to[0] = j->from[0] = 1;
  j->outer = n ? kept + 1 : 1;
  for (int32_t k = 0; k < j->outer; k++) {
    j->to[k] *= (int64_t)s->size;
    j->from[k] *= (int64_t)s->size;
  }
  return true;
}

static void take_out(job *j, int32_t k) {
  j->outer--;
  for (; k < j->outer; k++) j->count[k] = j->count[k + 1], j->to[k] = j->to[k + 1], j->from[k] = j->from[k + 1];
}

static void choose_inner(job *j) {
  int32_t last = j->outer - 1, size = (int32_t)j->size;
  j->n = j->count[last];
  j->n_to = j->to[last];
  j->n_from = j->from[last];
  take_out(j, last);
  j->pieces = (j->n + ROW_PIECE - 1) / ROW_PIECE;
  if (j->n_to != size || j->n_from == size || j->n_from == 0) return;
  for (int32_t k = 0; k < j->outer; k++) {
    if (j->from[k] != size || j->count[k] < 4) continue;
    j->weave = j->n < 4 && j->to[k] == j->n * size && (size == 2 || size == 4);
    j->transpose = !j->weave && j->n >= 4;
    if (!j->weave && !j->transpose) continue;
    j->m = j->count[k];
    j->m_to = j->to[k];
    j->m_from = j->from[k];
    j->pieces = j->weave ? (j->m + ROW_PIECE - 1) / ROW_PIECE : (j->m + BAND - 1) / BAND;
    take_out(j, k);
    return;
  }
}

void cml_strided_copy(const cml_strided *s, void *to, const void *from, cml_pool *pool) {
  job j = {.size = s->size, .to_base = to, .from_base = from};
  if (to == from) return; /* a part that lies in its whole already */
  if (!simplify(s, &j)) return;
  choose_inner(&j);
  int64_t units = j.pieces;
  for (int32_t k = 0; k < j.outer; k++) units *= j.count[k];
  int64_t unit_bytes = (j.weave ? (j.m < ROW_PIECE ? j.m : ROW_PIECE) * j.n : j.transpose ? (j.m < BAND ? j.m : BAND) * j.n
                                                                            : j.n < ROW_PIECE ? j.n : ROW_PIECE) * (int64_t)j.size;
  cml_parallel(pool, (size_t)units, (size_t)(SERIAL_BYTES / unit_bytes + 1), copy_units, &j);
}

/* ---- arrays that become neighbours ---- */

enum { ZIP_BYTES = 1 << 13 }; /* of a block of all arrays: it stays in the first cache while it is read again */

typedef struct zip_job {
  char *to;
  const void *const *from;
  int64_t n, count, block; /* elements of an array in a block */
  size_t size;
} zip_job;

/* The arrays lie anywhere, and kernels take rows that are equally far apart: pieces of them are put next to each other first. */
static void zip_blocks(void *context, size_t begin, size_t end) {
  const zip_job *j = context;
  _Alignas(64) char rows[ZIP_BYTES];
  const size_t row = (size_t)j->block * j->size;
  for (int64_t i = (int64_t)begin * j->block; i < (int64_t)end * j->block && i < j->count; i += j->block) {
    const int64_t length = j->count - i < j->block ? j->count - i : j->block;
    for (int64_t k = 0; k < j->n; k++) memcpy(rows + (size_t)k * row, (const char *)j->from[k] + (size_t)i * j->size, (size_t)length * j->size);
    copy_tile(j->to + i * j->n * (int64_t)j->size, rows, length, j->n, j->n * (int64_t)j->size, (int64_t)row, j->size);
  }
}

void cml_strided_zip(void *to, const void *const *from, int64_t n, size_t size, int64_t count, cml_pool *pool) {
  zip_job j = {.to = to, .from = from, .n = n, .count = count, .size = size, .block = ZIP_BYTES / 64 / n * 64 / (int64_t)size};
  cml_parallel(pool, (size_t)((count + j.block - 1) / j.block), SERIAL_BYTES / ZIP_BYTES, zip_blocks, &j);
}

/* ---- runs ---- */

void cml_fill_elements(void *to, const void *value, size_t size, int64_t count, cml_pool *pool) {
  cml_strided s = {.size = size};
  cml_strided_loop(&s, count, 1, 0);
  cml_strided_copy(&s, to, value, pool);
}

#define COPY_RUNS(size) \
  case size:            \
    for (size_t i = 0; i < runs; i++) memcpy(t + i * to_step, f + i * from_step, size); \
    return;

/* Usual sizes without a call for each. */
void cml_copy_runs(void *to, size_t to_step, const void *from, size_t from_step, size_t bytes, size_t runs) {
  char *t = to;
  const char *f = from;
  switch (bytes) {
    COPY_RUNS(2) COPY_RUNS(4) COPY_RUNS(16) COPY_RUNS(32) COPY_RUNS(48) COPY_RUNS(64) COPY_RUNS(96) COPY_RUNS(128)
    default:
      for (size_t i = 0; i < runs; i++) memcpy(t + i * to_step, f + i * from_step, bytes);
  }
}

void cml_copy_bytes(void *to, const void *from, size_t bytes, cml_pool *pool) {
  cml_strided s = {.size = 1};
  cml_strided_loop(&s, (int64_t)bytes, 1, 1);
  cml_strided_copy(&s, to, from, pool);
}

/* ---- shapes ---- */

void cml_row_strides(const cml_tensor *t, int64_t *strides) {
  uint64_t s = 1; /* unsigned: shapes of empty tensors may wrap, and are never walked */
  for (int32_t i = t->rank - 1; i >= 0; i--) {
    strides[i] = (int64_t)s;
    s *= (uint64_t)(i == t->rank - 1 && t->row ? t->row : t->dims[i]);
  }
}

int64_t cml_dims_product(const int64_t *dims, int32_t begin, int32_t end) {
  int64_t n = 1;
  for (int32_t i = begin; i < end; i++) {
    if (dims[i] < 0) return CML_DIM_UNKNOWN;
    if (dims[i] == 0) n = 0;
  }
  for (int32_t i = begin; n && i < end; i++)
    if (__builtin_mul_overflow(n, dims[i], &n)) return INT64_MAX;
  return n;
}

bool cml_dim_affine(int64_t d, int64_t factor, int64_t term, int64_t *out) {
  int64_t v;
  if (d < 0) return *out = CML_DIM_UNKNOWN, true;
  if (__builtin_mul_overflow(d, factor, &v) || __builtin_add_overflow(v, term, &v) || v < 0 || v > INT64_C(1) << 47) return false;
  *out = v;
  return true;
}

cml_status cml_arg_vector(const cml_call *c, unsigned param, int64_t expected, int64_t *out, size_t room, size_t *count, cml_error *err) {
  const cml_tensor *t = cml_arg(c, param);
  const char *name = c->op->params[param].name;
  if (t->rank > 1) return cml_call_fail(c, err, "%s has rank %d; it must be a vector", name, t->rank);
  int64_t n = cml_tensor_count(t);
  if (n < 0 || (uint64_t)n > room) return cml_call_fail(c, err, "%s has %lld elements; at most %zu can be", name, (long long)n, room);
  if (expected >= 0 && n != expected)
    return cml_call_fail(c, err, "%s has %lld elements and %lld are needed", name, (long long)n, (long long)expected);
  for (int64_t i = 0; i < n; i++) out[i] = cml_tensor_get_int(t, i);
  if (count) *count = (size_t)n;
  return CML_OK;
}
