/* Weights that only packed copies are read of.
 *
 * Prepare tells which arguments a step reads no more. Those of mapped files just leave memory: whoever reads them all the same gets
 * them back. What the executable made itself (scaled, decompressed, folded) is gone for good, so it goes with its last reader: readers
 * are counted beforehand, by the place of the data, which several values may share. Only whole pages go; the place stays taken. */
#include "exec_release.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mapping.h"
#include "sanitized.h"

enum {
  WORTH = 64 << 10,   /* bytes of an own constant */
  TOGETHER = 4 << 20, /* bytes of a file that are dropped at a time */
  GAP = 64 << 10      /* between weights of a file that go together: small constants, which come back */
};

struct cml_release_item {
  cml_slot *slot;
  size_t readers;
};

static int by_place(const void *a, const void *b) {
  const struct cml_release_item *x = a, *y = b;
  uintptr_t p = (uintptr_t)x->slot->owned, q = (uintptr_t)y->slot->owned;
  return p < q ? -1 : p > q;
}

/* The constant that holds the place, or NULL. */
static struct cml_release_item *find(const cml_release *r, const void *data) {
  size_t low = 0, high = r->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    uintptr_t begin = (uintptr_t)r->items[middle].slot->owned, at = (uintptr_t)data;
    if (at < begin) high = middle;
    else if (at - begin >= r->items[middle].slot->capacity) low = middle + 1;
    else return &r->items[middle];
  }
  return NULL;
}

static void count_value(cml_release *r, uint32_t v) {
  const cml_graph_value *value = &r->graph->values[v];
  struct cml_release_item *item = value->type.data ? find(r, value->type.data) : NULL;
  if (item) item->readers++;
  for (size_t i = 0; value->deferred && i < value->deferred->arg_count; i++) count_value(r, value->deferred->args[i]);
}

static void count_block(cml_release *r, const cml_graph_block *block) {
  for (size_t i = 0; i < block->step_count; i++) {
    const cml_step *s = &block->steps[i];
    if (s->folded) continue;
    for (size_t k = 0; k < s->arg_count; k++) count_value(r, s->args[k]);
    for (size_t k = 0; k < s->block_count; k++) count_block(r, s->blocks[k]);
  }
  for (size_t i = 0; i < block->output_count; i++) count_value(r, block->outputs[i]);
}

static void let_go(cml_slot *slot) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)slot->owned + page - 1) & ~(page - 1),
            end = ((uintptr_t)slot->owned + slot->capacity) & ~(page - 1);
  if (CML_SANITIZED || end <= begin || madvise((void *)begin, end - begin, MADV_DONTNEED)) return;
  slot->capacity -= end - begin;
  cml_account_give(slot->account, end - begin);
}

cml_status cml_release_begin(cml_release *r, cml_graph *g, cml_error *err) {
  *r = (cml_release){.graph = g, .items = calloc(g->folded_count + 1, sizeof *r->items)};
  if (!r->items) return cml_fail_memory(err);
  for (size_t i = 0; i < g->folded_count; i++)
    if (g->folded[i]->owned && g->folded[i]->capacity >= WORTH) r->items[r->count++].slot = g->folded[i];
  if (!r->count) return CML_OK;
  qsort(r->items, r->count, sizeof *r->items, by_place);
  count_block(r, &g->body);
  for (size_t i = 0; i < r->count; i++)
    if (!r->items[i].readers) let_go(r->items[i].slot); /* a pass has put another in its place */
  return CML_OK;
}

static void drop_file_part(cml_release *r) {
  cml_mapping_drop((const void *)r->begin, r->end - r->begin);
  r->begin = r->end = 0;
}

/* Files hold weights in the order of their use, more or less: many go in one call. */
static void drop_later(cml_release *r, const cml_tensor *t) {
  uint64_t bytes;
  if (!cml_tensor_bytes(t, &bytes) || bytes > SIZE_MAX) return;
  uintptr_t begin = (uintptr_t)t->data, end = begin + (size_t)bytes;
  if (r->end && (begin < r->begin || begin > r->end + GAP)) drop_file_part(r);
  if (!r->end) r->begin = begin;
  if (end > r->end) r->end = end;
  if (r->end - r->begin >= TOGETHER) drop_file_part(r);
}

void cml_release_step(cml_release *r, const cml_step *s, uint64_t unread) {
  for (size_t k = 0; k < s->arg_count && k < 64; k++) {
    const cml_graph_value *value = &r->graph->values[s->args[k]];
    const cml_tensor *t = &value->type;
    if (!(unread >> k & 1) || !s->arg_constant[k]) continue;
    if (value->deferred && !t->data) { /* codes that were packed; rarely they are read all the same, so that own ones stay */
      const cml_tensor *codes = &r->graph->values[value->deferred->args[0]].type;
      if (codes->data && !find(r, codes->data)) drop_later(r, codes);
      continue;
    }
    if (!t->data) continue;
    struct cml_release_item *item = find(r, t->data);
    if (!item) drop_later(r, t);
    else if (item->readers && !--item->readers) let_go(item->slot);
  }
}

void cml_release_end(cml_release *r) {
  if (r->end) drop_file_part(r);
  free(r->items);
}
