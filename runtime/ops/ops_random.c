/* Random tensors. The generator is xoshiro256++ (Blackman and Vigna): the session's stream, or where the operation has a
 * seed of its own, a stream that starts anew with each run, so that every run gives the same values. */
#include <math.h>

#include "elementwise.h"
#include "families.h"
#include "runner.h"

static uint64_t rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }

static uint64_t next(uint64_t s[4]) {
  uint64_t result = rotate(s[0] + s[3], 23) + s[0], t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate(s[3], 45);
  return result;
}

/* In [0, 1), in steps of 2^-53. */
static double unit(uint64_t s[4]) { return (double)(next(s) >> 11) * 0x1p-53; }

/* The stream for this run. */
static uint64_t *stream(cml_call *c, unsigned seed_param, uint64_t own[4]) {
  int64_t seed = cml_arg_int(c, seed_param, -1);
  if (seed < 0) return cml_random_state(c);
  cml_random_seed(own, (uint64_t)seed);
  return own;
}

/* ---- distributions over a shape ---- */

#define SHAPE {"shape", CML_MASK(I32), CML_VECTOR, 0}
#define NUMBER(name) {name, CML_M_FLOAT, CML_OPTIONAL | CML_CONST, 1}
#define SEED {"seed", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}
static const cml_param bernoulli_params[] = {SHAPE, NUMBER("prob"), SEED};
static const cml_param normal_params[] = {SHAPE, NUMBER("mean"), NUMBER("stddev"), SEED};
static const cml_param uniform_params[] = {SHAPE, NUMBER("low"), NUMBER("high"), SEED};

static cml_status infer_shape(cml_call *c, cml_error *err) {
  const cml_tensor *shape = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, ~1u, err));
  cml_dtype dtype = CML_F32;
  for (unsigned p = c->op->param_count - 2u; p > 0; p--)
    if (cml_arg(c, p)) dtype = cml_arg(c, p)->dtype;
  if (shape->rank >= 0 && shape->rank != 1) return cml_call_fail(c, err, "shape must have rank 1, found %d", (int)shape->rank);
  int64_t rank = shape->rank == 1 ? shape->dims[0] : -1, dims[CML_MAX_RANK];
  if (rank > CML_MAX_RANK) return cml_call_fail(c, err, "shape has %lld dims; at most %d are possible", (long long)rank, CML_MAX_RANK);
  if (rank < 0 || !shape->data) return cml_out_unknown(c, 0, dtype, (int32_t)rank), CML_OK;
  cml_arg_ints(c, 0, dims, CML_MAX_RANK);
  for (int64_t i = 0; i < rank; i++)
    if (dims[i] < 0) return cml_call_fail(c, err, "shape holds %lld", (long long)dims[i]);
  cml_out_set(c, 0, dtype, (int32_t)rank, dims);
  return cml_check_output(c, 0, err);
}

static void fill(cml_call *c, double (*draw)(uint64_t s[4], double a, double b), double a, double b) {
  uint64_t own[4], *s = stream(c, c->op->param_count - 1u, own);
  float chunk[CML_CHUNK];
  cml_tensor *out = c->outs[0];
  for (int64_t at = 0, count = cml_tensor_count(out); at < count; at += CML_CHUNK) {
    size_t n = count - at < CML_CHUNK ? (size_t)(count - at) : CML_CHUNK;
    for (size_t i = 0; i < n; i++) chunk[i] = (float)draw(s, a, b);
    cml_store_f32(out->data, out->dtype, at, chunk, n);
  }
}

static double draw_bernoulli(uint64_t s[4], double p, double unused) {
  (void)unused;
  return unit(s) < p ? 1 : 0;
}
static cml_status run_bernoulli(cml_call *c, cml_error *err) {
  (void)err;
  return fill(c, draw_bernoulli, cml_arg_float(c, 1, 0.5), 0), CML_OK;
}

/* Box and Muller's; one of the pair is thrown away. */
static double draw_normal(uint64_t s[4], double mean, double deviation) {
  double radius = sqrt(-2 * log(1 - unit(s))), angle = 6.283185307179586 * unit(s);
  return mean + deviation * radius * cos(angle);
}
static cml_status run_normal(cml_call *c, cml_error *err) {
  (void)err;
  return fill(c, draw_normal, cml_arg_float(c, 1, 0), cml_arg_float(c, 2, 1)), CML_OK;
}

static double draw_uniform(uint64_t s[4], double low, double high) { return low + (high - low) * unit(s); }

/* high itself is excluded: what rounds up to it becomes low. */
static cml_status run_uniform(cml_call *c, cml_error *err) {
  (void)err;
  double low = cml_arg_float(c, 1, 0), high = cml_arg_float(c, 2, 1);
  fill(c, draw_uniform, low, high);
  cml_tensor *out = c->outs[0];
  for (int64_t i = 0, n = cml_tensor_count(out); i < n && low < high; i++)
    if (cml_tensor_get(out, i) >= high) cml_tensor_set(out, i, low);
  return CML_OK;
}

/* ---- random_categorical ---- */

static const cml_param categorical_params[] = {
    {"x", CML_M_FLOAT, 0, 0}, {"mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}, {"size", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0}, SEED};
static const char *const categorical_modes[] = {"logits", "probs", NULL};

static cml_status infer_categorical(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  CML_TRY(cml_check_scalars(c, ~1u, err));
  const char *mode = cml_arg_text(c, 1, "logits");
  int64_t size = cml_arg_int(c, 2, 1);
  if (cml_word_index(mode, categorical_modes) < 0) return cml_call_fail(c, err, "mode '%s' is neither logits nor probs", mode);
  if (size < 0) return cml_call_fail(c, err, "size is %lld", (long long)size);
  if (x->rank == 0) return cml_call_fail(c, err, "x must have rank 1 or more");
  if (x->rank > 0 && x->dims[x->rank - 1] == 0) return cml_call_fail(c, err, "there are no categories");
  cml_out_like(c, 0, x);
  if (x->rank > 0) c->outs[0]->dims[x->rank - 1] = size;
  return cml_check_output(c, 0, err);
}

/* A category's weight: e^(logit - top), or the probability. */
static double weight_of(const cml_tensor *x, int64_t i, bool probs, double top) {
  double v = cml_tensor_get(x, i);
  v = probs ? v : exp(v - top);
  return v > 0 ? v : 0;
}

/* The first category at which the running sum of weights passes the drawn part of the total. */
static cml_status run_categorical(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *x = cml_arg(c, 0);
  cml_tensor *out = c->outs[0];
  bool probs = cml_word_index(cml_arg_text(c, 1, "logits"), categorical_modes) == 1;
  int64_t n = x->dims[x->rank - 1], size = out->dims[x->rank - 1], rows = n ? cml_tensor_count(x) / n : 0;
  uint64_t own[4], *s = stream(c, 3, own);
  for (int64_t r = 0; r < rows; r++) {
    double top = -INFINITY, total = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, cml_tensor_get(x, r * n + i));
    for (int64_t i = 0; i < n; i++) total += weight_of(x, r * n + i, probs, top);
    for (int64_t k = 0; k < size; k++) {
      double drawn = unit(s) * total, sum = 0;
      int64_t found = 0;
      for (int64_t i = 0; i < n; i++) {
        double w = weight_of(x, r * n + i, probs, top);
        sum += w;
        if (w > 0) found = i;
        if (sum > drawn) break;
      }
      cml_tensor_set(out, r * size + k, (double)found);
    }
  }
  return CML_OK;
}

/* ---- the table ---- */

#define ROW(text, parameters, infer_, run_)                                                       \
  {.name = text, .since = CML_IOS15, .flags = CML_OP_IMPURE, .min_outputs = 1, .max_outputs = 1,  \
   CML_PARAMS(parameters), .infer = infer_, .run = run_},

static const cml_op rows[] = {
    ROW("random_bernoulli", bernoulli_params, infer_shape, run_bernoulli)
    ROW("random_categorical", categorical_params, infer_categorical, run_categorical)
    ROW("random_normal", normal_params, infer_shape, run_normal)
    ROW("random_uniform", uniform_params, infer_shape, run_uniform)
};

const cml_op_family cml_ops_random = {"random", rows, sizeof rows / sizeof *rows};
