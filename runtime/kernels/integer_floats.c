/* Convolutions of bytes whose weights are floats, and those whose sums are too short for integers to pay: depthwise ones and groups
 * of few channels. A block of output rows is computed in floats within the second-level cache by the ordinary convolutions: the bytes that
 * it needs, less their zero, are whole numbers, so that with whole weights the sums are exact here as well (up to 2^24). */
#include "integer.h"
#include "sizes.h"

enum { BLOCK = 48 << 10 /* floats of a block's input and sums, about */, TOGETHER = 32 /* pixels that are finished at a time */ };

typedef struct layout {
  int64_t rows;         /* output rows of a block */
  size_t staged, inner; /* bytes of the input in floats, of the convolution's own scratch */
  size_t sums;
} layout;

static int64_t in_rows(const cml_conv *v, int64_t rows) { return (rows - 1) * v->stride[1] + (v->kernel[1] - 1) * v->dilation[1] + 1; }

/* The convolution that makes output rows [row, row + rows) of rows [*first, ...) of the input. */
static cml_conv block_conv(const cml_conv *v, int64_t row, int64_t rows, int64_t *first) {
  cml_conv b = *v;
  int64_t from = row * v->stride[1] + v->offset[1], to = from + in_rows(v, rows);
  *first = from < 0 ? 0 : from > v->in[1] ? v->in[1] : from;
  if (to > v->in[1]) to = v->in[1];
  b.batch = 1;
  b.in[1] = to > *first ? to - *first : 0;
  b.offset[1] = from - *first;
  b.out[1] = rows;
  b.in_last = b.out_last = true;
  b.in_half = b.out_half = b.winograd = false;
  cml_conv_place_all(&b);
  return b;
}

static void lay_out(const cml_kernels *k, const cml_conv *v, layout *l) {
  size_t in = (size_t)v->in[2] * v->channels, out = (size_t)v->out[2] * v->outputs;
  *l = (layout){.rows = 1};
  while (l->rows < v->out[1] && (size_t)in_rows(v, l->rows + 1) * in + (size_t)(l->rows + 1) * out <= BLOCK) l->rows++;
  l->staged = up((size_t)in_rows(v, l->rows) * in * 4 + 64, 64);
  l->sums = up((size_t)l->rows * out * 4 + 64, 64);
  for (int64_t rows = 1, first; rows <= l->rows; rows++) {
    cml_conv b = block_conv(v, 0, rows, &first);
    size_t need = up(cml_conv_scratch(k, &b), 64);
    if (need > l->inner) l->inner = need;
  }
}

size_t cml_integer_floats_scratch(const cml_kernels *k, const cml_conv *v) {
  layout l;
  if (v->out[1] <= 0 || v->out[2] <= 0) return 0;
  lay_out(k, v, &l);
  return l.staged + l.sums + l.inner;
}

typedef struct job {
  const cml_integer_call *c;
  layout l;
  size_t slot, blocks;
} job;

/* Sums of `pixels` neighbouring pixels from `first` on. */
static void finish(const job *j, const float *sums, size_t first, size_t pixels) {
  const cml_kernels *k = j->c->k;
  const cml_integer_tile *whole = &j->c->after;
  size_t outputs = j->c->v->outputs, size = cml_integer_to_bytes(whole->to);
  size_t rows = whole->unary_rows ? k->integer_rows : TOGETHER, columns = whole->unary_rows ? k->integer_columns : outputs;
  for (size_t p = 0; p < pixels; p += rows)
    for (size_t o = 0; o < outputs; o += columns) {
      cml_integer_tile t = *whole;
      size_t at = (first + p) * outputs + o;
      t.rows = least(pixels - p, rows);
      t.columns = least(outputs - o, columns);
      t.scale += o;
      t.bias += o;
      t.c = (char *)t.c + at * size;
      t.c_stride = t.residual_stride = outputs;
      if (t.residual) t.residual += at;
      k->integer_finish(&t, sums + p * outputs + o, outputs);
    }
  uint8_t *c = (uint8_t *)whole->c + first * outputs;
  if (j->c->table) k->map_bytes(c, pixels * outputs, j->c->table, c);
}

static void run_units(void *context, size_t thread, size_t begin, size_t end) {
  const job *j = context;
  const cml_conv *v = j->c->v;
  char *scratch = (char *)j->c->scratch + thread * j->slot;
  float *staged = (float *)(void *)scratch, *sums = (float *)(void *)(scratch + j->l.staged);
  size_t row_bytes = (size_t)v->in[2] * v->channels;
  for (size_t i = begin; i < end; i++) {
    size_t image = i / j->blocks;
    int64_t row = (int64_t)(i % j->blocks) * j->l.rows, rows = v->out[1] - row < j->l.rows ? v->out[1] - row : j->l.rows, first;
    if (rows <= 0) continue;
    cml_conv b = block_conv(v, row, rows, &first);
    const uint8_t *x = j->c->x + (image * (size_t)v->in[1] + (size_t)first) * row_bytes;
    j->c->k->dequantize(x, (size_t)b.in[1] * row_bytes, 1, j->c->x_zero, staged, false);
    cml_conv_run(&(cml_conv_call){.k = j->c->k, .v = &b, .weights = {j->c->packed, false}, .after = {.activation = CML_UNARY_COPY}, .x = staged, .y = sums,
                                  .scratch = scratch + j->l.staged + j->l.sums, .slots = 1});
    finish(j, sums, (image * (size_t)v->out[1] + (size_t)row) * (size_t)v->out[2], (size_t)(rows * v->out[2]));
  }
}

void cml_integer_floats_run(const cml_integer_call *call) {
  const cml_conv *v = call->v;
  job j = {.c = call};
  if (!v->batch || !v->outputs || v->out[1] <= 0 || v->out[2] <= 0) return;
  lay_out(call->k, v, &j.l);
  j.slot = j.l.staged + j.l.sums + j.l.inner;
  size_t threads = cml_pool_threads(call->pool);
  int64_t wanted = threads == 1 || call->slots < threads ? 1 : (int64_t)((4 * threads + v->batch - 1) / v->batch), rows = (v->out[1] + wanted - 1) / wanted;
  if (rows < 2) rows = 2;
  if (rows < j.l.rows) j.l.rows = rows;
  j.blocks = (size_t)((v->out[1] + j.l.rows - 1) / j.l.rows);
  j.l.rows = (v->out[1] + (int64_t)j.blocks - 1) / (int64_t)j.blocks;
  cml_parallel_with_thread(call->slots < threads ? NULL : call->pool, v->batch * j.blocks, 1, run_units, &j);
}
