/* See et_elementwise.h. Dimensions are taken in the order of the output's memory, so that the output is always one run; those
 * that all operands walk alike are joined. */
#include "et_elementwise.h"

#include "kernels.h"

typedef enum lane { LANE_F32, LANE_F64, LANE_I64 } lane;

typedef struct operand {
  const cml_et_tensor *t;
  int64_t strides[CML_PTE_MAX_RANK];
  bool linear, constant, ready; /* ready: linear and of the computing type */
} operand;

typedef struct job {
  cml_et_map *map;
  lane lane;
  bool bytes;
  size_t width, arity; /* bytes of the computing type */
  operand in[CML_ET_OPERANDS];
  double constants[CML_ET_OPERANDS]; /* values of constant operands, in the computing type */
  cml_et_tensor *out;
  bool out_ready;
  int rank;
  int64_t sizes[CML_PTE_MAX_RANK];
  const cml_et_scalars *scalars;
} job;

static lane lane_of(cml_dtype t) { return t == CML_F64 ? LANE_F64 : cml_dtype_is_float(t) ? LANE_F32 : LANE_I64; }
static const cml_dtype lane_types[] = {CML_F32, CML_F64, CML_I64};

static void load(const job *j, void *to, size_t at, const cml_et_tensor *t, int64_t first, int64_t step, int64_t n) {
  switch (j->lane) {
    case LANE_F32: cml_et_load_f32((float *)to + at, t, first, step, n); break;
    case LANE_F64: cml_et_load_f64((double *)to + at, t, first, step, n); break;
    default: cml_et_load_i64((int64_t *)to + at, t, first, step, n); break;
  }
}

static void store(const job *j, int64_t first, int64_t n, const void *from) {
  cml_et_local local;
  if (j->bytes) {
    cml_et_tensor *out = j->out;
    cml_et_make(&local, CML_U8, 1, &n, (void *)(uintptr_t)from);
    int64_t values[CML_ET_CHUNK];
    cml_et_load_i64(values, &local.t, 0, 1, n);
    cml_et_store_i64(out, first, 1, n, values);
    return;
  }
  switch (j->lane) {
    case LANE_F32: cml_et_store_f32(j->out, first, 1, n, from); break;
    case LANE_F64: cml_et_store_f64(j->out, first, 1, n, from); break;
    default: cml_et_store_i64(j->out, first, 1, n, from); break;
  }
}

/* Elements [at, at + n) of the output's memory order, of an operand that lies otherwise. */
static void gather(const job *j, const operand *o, void *to, int64_t at, int64_t n) {
  int64_t index[CML_PTE_MAX_RANK] = {0}, offset = 0, rest = at;
  int last = j->rank - 1;
  for (int k = last; k >= 0; k--) {
    index[k] = rest % j->sizes[k];
    rest /= j->sizes[k];
    offset += index[k] * o->strides[k];
  }
  for (int64_t done = 0; done < n;) {
    int64_t run = j->sizes[last] - index[last];
    if (run > n - done) run = n - done;
    load(j, to, (size_t)done, o->t, offset, o->strides[last], run);
    done += run;
    offset -= index[last] * o->strides[last];
    index[last] = 0;
    for (int k = last - 1; k >= 0; k--) {
      offset += o->strides[k];
      if (++index[k] < j->sizes[k]) break;
      offset -= index[k] * o->strides[k];
      index[k] = 0;
    }
  }
}

static void fill(const job *j, size_t k, void *to, int64_t n) {
  if (j->lane == LANE_F32) {
    float v;
    memcpy(&v, &j->constants[k], sizeof v);
    for (int64_t i = 0; i < n; i++) ((float *)to)[i] = v;
  } else {
    uint64_t v;
    memcpy(&v, &j->constants[k], sizeof v);
    for (int64_t i = 0; i < n; i++) ((uint64_t *)to)[i] = v;
  }
}

static void run_range(void *context, size_t begin, size_t end) {
  const job *j = context;
  _Alignas(64) double buffers[CML_ET_OPERANDS][CML_ET_CHUNK], result[CML_ET_CHUNK];
  const void *in[CML_ET_OPERANDS];
  for (size_t k = 0; k < j->arity; k++)
    if (j->in[k].constant) fill(j, k, buffers[k], end - begin < CML_ET_CHUNK ? (int64_t)(end - begin) : CML_ET_CHUNK);
  for (size_t at = begin; at < end; at += CML_ET_CHUNK) {
    size_t n = end - at < CML_ET_CHUNK ? end - at : CML_ET_CHUNK;
    for (size_t k = 0; k < j->arity; k++) {
      const operand *o = &j->in[k];
      in[k] = buffers[k];
      if (o->constant) continue;
      if (o->ready) in[k] = (const char *)o->t->data + at * j->width;
      else if (o->linear) load(j, buffers[k], 0, o->t, (int64_t)at, 1, (int64_t)n);
      else gather(j, o, buffers[k], (int64_t)at, (int64_t)n);
    }
    if (j->out_ready) {
      j->map((char *)j->out->data + at * (j->bytes ? 1 : j->width), in, n, j->scalars);
    } else {
      j->map(result, in, n, j->scalars);
      store(j, (int64_t)at, (int64_t)n, result);
    }
  }
}

/* What run_range touches of its buffers. */
static size_t stack_of(const job *j) {
  size_t buffers = !j->out_ready;
  for (size_t k = 0; k < j->arity; k++) buffers += !j->in[k].ready;
  return buffers * CML_ET_CHUNK * j->width;
}

/* Dimensions in the output's memory order, without those of one step, neighbours joined. */
static void collapse(job *j, const int64_t (*strides)[CML_PTE_MAX_RANK]) {
  const cml_et_tensor *out = j->out;
  j->rank = 0;
  for (int k = 0; k < out->rank; k++) {
    int d = out->order[k], r = j->rank - 1;
    int64_t size = out->sizes[d];
    if (size == 1) continue;
    bool join = r >= 0;
    for (size_t i = 0; i < j->arity && join; i++) join = j->in[i].strides[r] == strides[i][d] * size;
    if (!join) {
      r = j->rank++;
      j->sizes[r] = 1;
    }
    j->sizes[r] *= size;
    for (size_t i = 0; i < j->arity; i++) j->in[i].strides[r] = strides[i][d];
  }
  if (j->rank == 0) {
    j->sizes[j->rank++] = 1;
    for (size_t i = 0; i < j->arity; i++) j->in[i].strides[0] = 0;
  }
}

static void classify(job *j, operand *o, double *constant, cml_dtype dtype) {
  int64_t step = 1;
  o->linear = true;
  o->constant = true;
  for (int k = j->rank - 1; k >= 0; k--) {
    o->linear &= o->strides[k] == step || j->sizes[k] == 1;
    o->constant &= o->strides[k] == 0 || j->sizes[k] == 1;
    step *= j->sizes[k];
  }
  o->ready = o->linear && o->t->dtype == lane_types[j->lane];
  if (!o->constant) return;
  /* A single value counts in the computing type, as torch has it where it compares. */
  cml_et_local one;
  uint64_t room = 0;
  load(j, constant, 0, o->t, 0, 1, 1);
  cml_et_make(&one, dtype, 0, NULL, &room);
  if (!j->bytes && j->lane != LANE_I64) return;
  switch (j->lane) {
    case LANE_F32: cml_et_store_f32(&one.t, 0, 1, 1, (const float *)(void *)constant); break;
    case LANE_F64: cml_et_store_f64(&one.t, 0, 1, 1, constant); break;
    default: cml_et_store_i64(&one.t, 0, 1, 1, (const int64_t *)(void *)constant); break;
  }
  load(j, constant, 0, &one.t, 0, 1, 1);
}

cml_status cml_et_castable(const cml_et_call *c, cml_dtype from, const cml_et_tensor *out, cml_error *err) {
  cml_dtype to = out->dtype;
  if (!(CML_ET_ANY >> to & 1) || (cml_dtype_is_float(from) && !cml_dtype_is_float(to)) || (from != CML_BOOL && to == CML_BOOL))
    return cml_et_fail(c, err, "the result's type %s cannot be stored as %s", cml_dtype_name(from), cml_dtype_name(to));
  return CML_OK;
}

const cml_et_tensor *cml_et_number_tensor(cml_et_number number, cml_et_scalar_tensor *out) {
  cml_dtype type = number.kind == CML_PTE_REAL ? CML_F64 : number.kind == CML_PTE_BOOLEAN ? CML_BOOL : CML_I64;
  if (type == CML_F64) out->value.d = number.d;
  else if (type == CML_I64) out->value.i = number.i;
  else out->value.b = number.i != 0;
  cml_et_make(&out->local, type, 0, NULL, &out->value);
  return &out->local.t;
}

cml_status cml_et_elementwise(cml_et_call *c, const cml_et_maps *maps, cml_dtype dtype, const cml_et_tensor *const *in, size_t arity,
                              const cml_et_scalars *scalars, cml_et_tensor *out, cml_error *err) {
  static const cml_et_scalars none;
  int64_t sizes[CML_PTE_MAX_RANK], strides[CML_ET_OPERANDS][CML_PTE_MAX_RANK];
  size_t rank;
  atomic_bool failed = false;
  cml_et_scalars s = scalars ? *scalars : none;
  for (size_t i = 0; i < arity; i++) CML_TRY(cml_et_want(c, in[i], CML_ET_ANY, "an argument", err));
  lane l = lane_of(dtype);
  cml_et_map *map = l == LANE_F32 ? maps->f32 : l == LANE_F64 ? maps->f64 : maps->i64;
  if (!map) return cml_et_fail(c, err, "does not take elements of type %s", cml_dtype_name(dtype));
  CML_TRY(cml_et_castable(c, maps->bytes ? CML_BOOL : dtype, out, err));
  CML_TRY(cml_et_broadcast(c, in, arity, &rank, sizes, err));
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  int64_t count = cml_et_numel(out);
  if (count == 0) return CML_OK;
  job j = {.map = map, .lane = l, .bytes = maps->bytes, .width = l == LANE_F32 ? 4 : 8, .arity = arity, .out = out, .scalars = &s};
  s.failed = &failed;
  for (size_t i = 0; i < arity; i++) {
    j.in[i].t = in[i];
    cml_et_broadcast_strides(in[i], rank, sizes, strides[i]);
  }
  collapse(&j, (const int64_t(*)[CML_PTE_MAX_RANK])strides);
  for (size_t i = 0; i < arity; i++) classify(&j, &j.in[i], &j.constants[i], dtype);
  j.out_ready = j.bytes ? out->dtype == CML_BOOL || out->dtype == CML_U8 : out->dtype == lane_types[l];
  cml_et_parallel(c, stack_of(&j), (size_t)count, 1 << 15, run_range, &j);
  return failed ? cml_et_fail(c, err, "an integer is divided by zero") : CML_OK;
}
