/* What operators share: arguments, outputs, broadcasting, and running one operation alone. */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "sanitized.h"

/* ---- arguments ---- */

/* Has a first element. What is no scalar is refused in infer; until then nothing may be read of an empty one. */
static bool has_element(const cml_call *c, unsigned param) { return cml_arg_known(c, param) && cml_tensor_count(cml_arg(c, param)) > 0; }

int64_t cml_arg_int(const cml_call *c, unsigned param, int64_t otherwise) {
  return has_element(c, param) ? cml_tensor_get_int(cml_arg(c, param), 0) : otherwise;
}

double cml_arg_float(const cml_call *c, unsigned param, double otherwise) {
  return has_element(c, param) ? cml_tensor_get(cml_arg(c, param), 0) : otherwise;
}

bool cml_arg_bool(const cml_call *c, unsigned param, bool otherwise) {
  return has_element(c, param) ? cml_tensor_get_int(cml_arg(c, param), 0) != 0 : otherwise;
}

const char *cml_arg_text(const cml_call *c, unsigned param, const char *otherwise) {
  const cml_tensor *t = cml_arg(c, param);
  return has_element(c, param) && t->dtype == CML_STRING ? ((const cml_string *)t->data)->data : otherwise;
}

size_t cml_arg_ints(const cml_call *c, unsigned param, int64_t *out, size_t room) {
  const cml_tensor *t = cml_arg(c, param);
  if (!t || !t->data) return 0;
  int64_t n = cml_tensor_count(t);
  for (int64_t i = 0; i < n && (size_t)i < room; i++) out[i] = cml_tensor_get_int(t, i);
  return (size_t)n;
}

/* ---- outputs ---- */

void cml_out_set(cml_call *c, size_t i, cml_dtype dtype, int32_t rank, const int64_t *dims) {
  cml_tensor *t = c->outs[i];
  t->dtype = dtype;
  t->rank = rank;
  for (int32_t k = 0; k < rank && k < CML_MAX_RANK; k++) t->dims[k] = dims[k] < 0 ? CML_DIM_UNKNOWN : dims[k];
}

void cml_out_like(cml_call *c, size_t i, const cml_tensor *t) {
  int64_t dims[CML_MAX_RANK];
  memcpy(dims, t->dims, sizeof dims);
  cml_out_set(c, i, t->dtype, t->rank, dims);
}

void cml_out_unknown(cml_call *c, size_t i, cml_dtype dtype, int32_t rank) {
  c->outs[i]->dtype = dtype;
  c->outs[i]->rank = rank;
  for (int32_t k = 0; k < rank && k < CML_MAX_RANK; k++) c->outs[i]->dims[k] = CML_DIM_UNKNOWN;
}

cml_status cml_call_fail(const cml_call *c, cml_error *err, const char *format, ...) {
  va_list args;
  va_start(args, format);
  cml_fail_va(err, CML_INVALID, CML_NO_OFFSET, format, args);
  va_end(args);
  return cml_error_prefix(err, CML_INVALID, "operation '%s' (%s)", c->name ? c->name : "", c->op->name);
}

bool cml_broadcast(const cml_tensor *a, const cml_tensor *b, int32_t *rank, int64_t *dims) {
  if (a->rank < 0 || b->rank < 0) return *rank = CML_RANK_UNKNOWN, true;
  int32_t r = a->rank > b->rank ? a->rank : b->rank;
  for (int32_t i = 0; i < r; i++) {
    int64_t x = i < r - a->rank ? 1 : a->dims[i - (r - a->rank)], y = i < r - b->rank ? 1 : b->dims[i - (r - b->rank)];
    if (x == 1) dims[i] = y;
    else if (y == 1 || x == y) dims[i] = x;
    else if (x < 0) dims[i] = y;
    else if (y < 0) dims[i] = x;
    else return false;
  }
  *rank = r;
  return true;
}

/* ---- one operation alone ---- */

static cml_status eval(cml_call *c, cml_slot *slots, cml_error *err) {
  CML_TRY(c->op->infer(c, err));
  for (size_t i = 0; i < c->out_count; i++)
    if (cml_tensor_known_shape(&slots[i].tensor) && slots[i].tensor.dtype) CML_TRY(cml_slot_reserve(&slots[i], err));
  CML_TRY(cml_scratch_check(c->scratch_size, err));
  if (c->scratch_size && !(c->scratch = aligned_alloc(64, cml_scratch_part(c->scratch_size)))) return cml_fail_memory(err);
  if (c->op->prepare) CML_TRY(c->op->prepare(c, err));
  return c->op->run(c, err);
}

cml_status cml_op_eval(const cml_op *op, int opset, const cml_tensor **args, const uint16_t *first, cml_tensor *outs, size_t out_count,
                       cml_error *err) {
  cml_slot *slots = calloc(out_count ? out_count : 1, sizeof *slots);
  cml_tensor **pointers = calloc(out_count ? out_count : 1, sizeof *pointers);
  cml_status status = slots && pointers ? CML_OK : cml_fail_memory(err);
  cml_runner runner = {.session = NULL};
  struct cml_kept *kept = NULL;
  cml_random_seed(runner.random, 0);
  if (!status) {
    for (size_t i = 0; i < out_count; i++) pointers[i] = &slots[i].tensor;
    cml_call c = {.op = op, .name = op->name, .opset = opset, .args = args, .first = first, .outs = pointers, .out_count = out_count,
                  .runner = &runner, .kept = &kept};
    status = eval(&c, slots, err);
    free(c.scratch);
    cml_kept_free(kept);
  }
  for (size_t i = 0; slots && i < out_count; i++) {
    if (status) cml_slot_clear(&slots[i]);
    else outs[i] = slots[i].tensor;
  }
  free(slots);
  free(pointers);
  return status;
}

void cml_eval_free(cml_tensor *outs, size_t out_count) {
  for (size_t i = 0; i < out_count; i++) {
    free(outs[i].data);
    outs[i].data = NULL;
  }
}

/* ---- memory of prepare ---- */

/* Large pieces (packed weights) are cut from chunks of huge pages, which the kernel hands out already zeroed, when they are
 * first touched: by the threads that pack. What a chunk has left costs nothing. */
enum { LARGE_PIECE = 1 << 20, CHUNK = 256 << 20, HUGE_PAGE = 2 << 20 };

#if CML_SANITIZED
static struct cml_kept *chunk_create(size_t size) { return (void)size, NULL; } /* every piece between red zones of its own */
#else
static struct cml_kept *chunk_create(size_t size) {
  size_t wanted = size + 64 > CHUNK ? (size + 64 + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1) : CHUNK;
  char *p = mmap(NULL, wanted + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
  size_t before = -(uintptr_t)p & (HUGE_PAGE - 1);
  if (before) munmap(p, before);
  if (before < HUGE_PAGE) munmap(p + before + wanted, HUGE_PAGE - before);
  p += before;
  (void)madvise(p, wanted, MADV_HUGEPAGE);
  struct cml_kept *k = (struct cml_kept *)(void *)p;
  k->mapped = wanted;
  k->used = 64;
  return k;
}
#endif

static void *keep_large(cml_call *c, size_t size) {
  struct cml_kept *k = *c->kept;
  while (k && (!k->mapped || k->mapped - k->used < size)) k = k->next;
  if (!k) {
    if (!(k = chunk_create(size))) return NULL;
    k->next = *c->kept;
    *c->kept = k;
  }
  char *p = (char *)k + k->used;
  k->used += size;
  k->size += size;
  return p;
}

static void *keep_failed(cml_call *c, cml_status status) {
  c->keep_status = status;
  return NULL;
}

void *cml_call_keep(cml_call *c, size_t size, cml_error *err) {
  if (size > SIZE_MAX / 2) return keep_failed(c, cml_fail_memory(err));
  size_t room = (size + 127) & ~(size_t)63; /* vectors may read past the end */
  cml_status status = cml_account_take(c->account, room, err);
  if (status) return keep_failed(c, status);
  void *large = size >= LARGE_PIECE ? keep_large(c, room) : NULL;
  if (large) return large;
  struct cml_kept *k = aligned_alloc(64, room + 64);
  if (!k) return keep_failed(c, cml_fail_memory(err));
  memset(k, 0, room + 64);
  k->next = *c->kept;
  k->size = size;
  *c->kept = k;
  return (char *)k + 64;
}

void cml_kept_free(struct cml_kept *kept) {
  for (struct cml_kept *next; kept; kept = next) {
    next = kept->next;
    if (kept->mapped) munmap(kept, kept->mapped);
    else free(kept);
  }
}
