/* Temporaries come from one block that is kept between calls: a call that wants more gets the rest from malloc, and the
 * block grows to what was wanted once the call is over, so that a program settles after its first run. Blocks larger than
 * MAX_KEPT are given back at once: they would stay in memory for the sake of one operator. What is large comes from the kernel
 * and not from malloc, whose heap would keep it or tear holes. */
#include "et_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "runner.h"

enum { MAX_KEPT = 1 << 20, SLACK = 64, OWN_PAGES = 64 << 10 };

struct cml_et_chunk {
  _Alignas(64) cml_et_chunk *next;
  uint64_t size;
};

static bool whole_size(uint64_t size, uint64_t *whole) {
  return cml_align(size, 64, whole) && cml_add(*whole, SLACK, whole) && *whole <= PTRDIFF_MAX;
}

static void release(void *p, uint64_t size) {
  uint64_t whole = 0;
  if (p && whole_size(size, &whole) && whole >= OWN_PAGES) munmap(p, (size_t)whole);
  else free(p);
}

void *cml_et_memory_get(struct cml_et_memory *m, uint64_t size) {
  uint64_t whole, total;
  if (!whole_size(size, &whole) || !cml_add(m->total, size, &total)) return NULL;
  if (m->limit && total > m->limit) return m->refused = size, NULL;
  void *p = whole < OWN_PAGES ? aligned_alloc(64, (size_t)whole)
                              : mmap(NULL, (size_t)whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) p = NULL;
  if (p) m->total = total;
  return p;
}

cml_status cml_et_memory_explain(const struct cml_et_memory *m, cml_status status, cml_error *err) {
  if (status != CML_NO_MEMORY || !m->refused) return status;
  return cml_account_refuse(m->refused, m->planned + m->total, m->planned + m->limit, err);
}

void cml_et_memory_give(struct cml_et_memory *m, void *p, uint64_t size) {
  if (!p) return;
  release(p, size);
  m->total -= size;
}

static void *chain(struct cml_et_memory *m, cml_et_chunk **list, uint64_t size) {
  uint64_t whole;
  if (!cml_add(size, sizeof(cml_et_chunk), &whole)) return NULL;
  cml_et_chunk *c = cml_et_memory_get(m, whole);
  if (!c) return NULL;
  c->next = *list;
  c->size = whole;
  *list = c;
  return c + 1;
}

static void unchain(struct cml_et_memory *m, cml_et_chunk **list) {
  for (cml_et_chunk *c = *list, *next; c; c = next) {
    next = c->next;
    cml_et_memory_give(m, c, c->size);
  }
  *list = NULL;
}

static void want(struct cml_et_memory *m, uint64_t size) {
  m->temp_wanted += size;
  if (m->temp_wanted > m->temp_peak) m->temp_peak = m->temp_wanted;
}

void *cml_et_temp(cml_et_call *call, uint64_t size) {
  struct cml_et_memory *m = call->memory;
  uint64_t whole;
  if (!cml_align(size ? size : 1, 64, &whole)) return NULL;
  if (whole <= m->temp_size - m->temp_used) {
    void *p = m->temp + m->temp_used;
    m->temp_used += whole;
    return want(m, whole), p;
  }
  if (!m->temp_used) { /* of no use to this call */
    cml_et_memory_give(m, m->temp, m->temp_size);
    m->temp = NULL;
    m->temp_size = 0;
  }
  void *p = chain(m, &m->overflow, whole);
  if (p) want(m, whole);
  return p;
}

cml_et_mark cml_et_temp_mark(const cml_et_call *call) {
  const struct cml_et_memory *m = call->memory;
  return (cml_et_mark){m->temp_used, m->temp_wanted, m->overflow};
}

void cml_et_temp_release(cml_et_call *call, cml_et_mark mark) {
  struct cml_et_memory *m = call->memory;
  while (m->overflow != mark.overflow) {
    cml_et_chunk *c = m->overflow;
    m->overflow = c->next;
    cml_et_memory_give(m, c, c->size);
  }
  m->temp_used = mark.used;
  m->temp_wanted = mark.wanted;
}

void *cml_et_keep(cml_et_call *call, uint64_t size) {
  void *p = chain(call->memory, &call->memory->kept, size);
  if (p) memset(p, 0, (size_t)size);
  return p;
}

/* ---- scratch of threads ---- */

/* A thread takes about two pages by itself, which many threads leave less room for. */
size_t cml_et_scratch(const cml_et_call *c) {
  const uint64_t all = 1792 << 10, most = 1280 << 10, least = 384 << 10, tables = c->memory->tables;
  return (size_t)(tables < all - most ? most : tables > all - least ? least : all - tables);
}

static size_t crew_room(const cml_et_call *c) {
  size_t own = (cml_pool_threads(c->pool) - 1) * 4096, crew = cml_et_crew_scratch(c);
  return own < crew / 3 * 2 ? crew - own : crew / 3;
}

static size_t crew_size(const cml_et_call *c, uint64_t bytes) {
  uint64_t most = bytes ? crew_room(c) / bytes : SIZE_MAX;
  size_t threads = cml_pool_threads(c->pool);
  return most < 1 ? 1 : most < threads ? (size_t)most : threads;
}

size_t cml_et_crew_share(const cml_et_call *c, size_t least, size_t most) {
  size_t share = crew_room(c) / cml_pool_threads(c->pool) / 64 * 64;
  return share < least ? least : share > most ? most : share;
}

cml_status cml_et_crew_of(cml_et_call *c, uint64_t bytes, cml_et_crew *out, cml_error *err) {
  uint64_t slot;
  if (!cml_align(bytes, 64, &slot)) return cml_fail_memory(err);
  *out = (cml_et_crew){.pool = c->pool, .threads = crew_size(c, slot), .slot = (size_t)slot};
  if (!cml_mul(slot, out->threads, &slot) || !(out->scratch = cml_et_temp(c, slot))) return cml_fail_memory(err);
  return CML_OK;
}

void cml_et_parallel(const cml_et_call *c, size_t stack, size_t count, size_t grain, void (*body)(void *, size_t, size_t), void *context) {
  cml_parallel_most(c->pool, crew_size(c, stack), count, grain, body, context);
}

typedef struct crew_task {
  const cml_et_crew *crew;
  void (*body)(void *context, void *scratch, size_t begin, size_t end);
  void *context;
} crew_task;

static void run_with_scratch(void *context, size_t thread, size_t begin, size_t end) {
  const crew_task *t = context;
  t->body(t->context, t->crew->scratch + thread * t->crew->slot, begin, end);
}

void cml_et_crew_run(const cml_et_crew *crew, size_t count, size_t grain, void (*body)(void *, void *, size_t, size_t), void *context) {
  crew_task t = {crew, body, context};
  cml_parallel_among(crew->pool, crew->threads, count, grain, run_with_scratch, &t);
}

void cml_et_memory_reset(struct cml_et_memory *m) {
  unchain(m, &m->overflow);
  if (m->temp_peak > m->temp_size && m->temp_peak <= MAX_KEPT) {
    cml_et_memory_give(m, m->temp, m->temp_size);
    m->temp = cml_et_memory_get(m, m->temp_peak);
    m->temp_size = m->temp ? m->temp_peak : 0;
  }
  m->temp_used = m->temp_wanted = m->temp_peak = m->refused = 0;
}

/* ---- data of tensors that no plan places ---- */

struct cml_et_retired {
  struct cml_et_retired *next;
  void *data;
  uint64_t size;
};

void cml_et_memory_drop(struct cml_et_memory *m, cml_et_tensor *t) {
  struct cml_et_retired *r;
  if (!t->owned || !t->data) return;
  if (!t->viewed) {
    cml_et_memory_give(m, t->data, t->capacity);
  } else if ((r = malloc(sizeof *r))) { /* else it leaks rather than dangles */
    *r = (struct cml_et_retired){m->retired, t->data, t->capacity};
    m->retired = r;
  }
  t->data = NULL;
  t->capacity = 0;
  t->viewed = false;
}

void cml_et_memory_release(struct cml_et_memory *m) {
  for (struct cml_et_retired *r = m->retired, *next; r; r = next) {
    next = r->next;
    cml_et_memory_give(m, r->data, r->size);
    free(r);
  }
  m->retired = NULL;
}

void cml_et_alias(cml_et_call *c, cml_et_tensor *view, cml_et_tensor *of) {
  cml_et_memory_drop(c->memory, view);
  of->viewed = true;
  view->owned = false;
  view->view = true;
  view->data = of->data;
  view->capacity = of->capacity;
  view->constant = of->constant;
}

void cml_et_memory_free(struct cml_et_memory *m) {
  cml_et_memory_release(m);
  unchain(m, &m->overflow);
  unchain(m, &m->kept);
  cml_et_memory_give(m, m->temp, m->temp_size);
  m->temp = NULL;
  m->temp_size = m->temp_used = m->temp_wanted = m->temp_peak = 0;
}

/* ---- an output's sizes ---- */

void cml_et_tensor_free(cml_et_tensor *t) {
  if (!t->owned) return;
  release(t->data, t->capacity);
  t->data = NULL;
  t->capacity = 0;
}

static cml_status grow(cml_et_call *c, cml_et_tensor *t, uint64_t bytes, cml_error *err) {
  if (!t->owned) {
    char text[128];
    return cml_et_fail(c, err, "the output of shape %s needs %llu bytes and has %llu", cml_et_shape_text(t, text, sizeof text),
                       (unsigned long long)bytes, (unsigned long long)t->capacity);
  }
  void *p = cml_et_memory_get(c->memory, bytes);
  if (!p) return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "%s: no memory for an output of %llu bytes", c->name, (unsigned long long)bytes);
  cml_et_memory_drop(c->memory, t);
  t->data = p;
  t->capacity = bytes;
  return CML_OK;
}

static cml_status wrong_shape(cml_et_call *c, const cml_et_tensor *t, size_t rank, const int64_t *sizes, const char *why, cml_error *err) {
  char has[128], wants[128] = "a shape of more dimensions than any tensor has";
  cml_et_tensor wanted = {.rank = (uint8_t)rank, .sizes = (int64_t *)(uintptr_t)sizes};
  if (rank <= CML_PTE_MAX_RANK) cml_et_shape_text(&wanted, wants, sizeof wants);
  return cml_et_fail(c, err, "the result's shape is %s, but the output is %s %s", wants, why, cml_et_shape_text(t, has, sizeof has));
}

cml_status cml_et_resize(cml_et_call *c, cml_et_tensor *t, size_t rank, const int64_t *sizes, cml_error *err) {
  uint64_t count = 1, bytes;
  bool changed = false;
  if (rank != t->rank) return wrong_shape(c, t, rank, sizes, "declared as", err);
  for (size_t k = 0; k < rank; k++) {
    if (sizes[k] < 0 || !cml_mul(count, (uint64_t)sizes[k], &count)) return wrong_shape(c, t, rank, sizes, "declared as", err);
    changed |= sizes[k] != t->sizes[k];
  }
  if (changed && t->dynamism == CML_PTE_STATIC) return wrong_shape(c, t, rank, sizes, "static", err);
  if (!cml_mul(count, cml_et_width(t), &bytes) || bytes > INT64_MAX) return wrong_shape(c, t, rank, sizes, "declared as", err);
  if (bytes > t->capacity) {
    if (t->dynamism == CML_PTE_BOUNDED && !t->owned) return wrong_shape(c, t, rank, sizes, "bounded; its memory is full, now", err);
    CML_TRY(grow(c, t, bytes, err));
  }
  if (!changed) return CML_OK;
  memcpy(t->sizes, sizes, rank * sizeof *sizes);
  cml_et_strides(t);
  return CML_OK;
}

/* ---- one operator alone ---- */

cml_status cml_et_op_eval(const cml_et_op *op, cml_et_value **args, size_t arg_count, cml_error *err) {
  return cml_et_op_eval_within(op, args, arg_count, NULL, 0, err);
}

cml_status cml_et_op_eval_within(const cml_et_op *op, cml_et_value **args, size_t arg_count, cml_pool *pool, uint64_t limit, cml_error *err) {
  struct cml_et_memory memory = {.limit = limit};
  uint64_t random[4] = {1, 2, 3, 4};
  void *memo = NULL;
  char name[128];
  size_t n = strcspn(op->names, " ");
  snprintf(name, sizeof name, "%.*s", (int)n, op->names);
  cml_et_call call = {.op = op, .name = name, .args = args, .arg_count = arg_count, .random = random, .memory = &memory, .pool = pool, .memo = &memo};
  cml_status status = cml_et_check_args(op, args, arg_count, true, err);
  if (status) status = cml_error_prefix(err, status, "%s", name);
  else status = op->run(&call, err);
  cml_et_memory_free(&memory);
  return status;
}
