/* Each root goes to the lowest offset at which nothing that was placed before lives at the same time. In which order they are
 * placed decides how well that goes: several orders are tried, and the best is kept. */
#include "place.h"

#include <stdlib.h>
#include <string.h>

/* Orders of placing; each wins on some programs, so all are tried. */
static int by_time(const void *a, const void *b) {
  const cml_root *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end != y->end ? (x->end > y->end ? -1 : 1) : 0;
}
static int by_size(const void *a, const void *b) {
  const cml_root *x = a, *y = b;
  return x->bytes != y->bytes ? (x->bytes < y->bytes ? 1 : -1) : by_time(a, b);
}
static int by_crowd(const void *a, const void *b) { /* where the most is alive first */
  const cml_root *x = a, *y = b;
  return x->crowd != y->crowd ? (x->crowd < y->crowd ? 1 : -1) : by_size(a, b);
}
static int by_life(const void *a, const void *b) {
  const cml_root *x = a, *y = b;
  uint32_t m = x->end - x->begin, n = y->end - y->begin;
  return m != n ? (m < n ? 1 : -1) : by_size(a, b);
}

static int by_offset(const void *a, const void *b) {
  const cml_root *const *x = a, *const *y = b;
  return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

/* Lowest offset where `r` fits among the placed roots that live at the same time. */
static void place(cml_root *r, cml_root *roots, size_t count, const cml_root **overlap) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    if (roots[i].begin <= r->end && roots[i].end >= r->begin) overlap[n++] = &roots[i];
  qsort(overlap, n, sizeof *overlap, by_offset);
  uint64_t at = 0;
  for (size_t i = 0; i < n && at + r->bytes > overlap[i]->offset; i++)
    if (overlap[i]->offset + overlap[i]->bytes > at) at = overlap[i]->offset + overlap[i]->bytes;
  r->offset = at;
}

cml_status cml_place_peak(cml_root *roots, size_t count, size_t steps, uint64_t *peak, cml_error *err) {
  uint64_t *live = calloc(steps + 2, sizeof *live);
  if (!live) return cml_fail_memory(err);
  for (size_t i = 0; i < count; i++) {
    live[roots[i].begin] += roots[i].bytes;
    live[roots[i].end + 1] -= roots[i].bytes;
  }
  for (size_t i = 1; i < steps + 2; i++) live[i] += live[i - 1];
  for (size_t i = 0; i < count; i++)
    for (size_t k = roots[i].begin; k <= roots[i].end; k++)
      if (live[k] > roots[i].crowd) roots[i].crowd = live[k];
  *peak = 0;
  for (size_t i = 0; i < count; i++)
    if (roots[i].crowd > *peak) *peak = roots[i].crowd;
  free(live);
  return CML_OK;
}

static uint64_t place_all(cml_root *roots, size_t count, size_t *top, const cml_root **overlap) {
  uint64_t size = 0;
  for (size_t i = 0; i < count; i++) {
    place(&roots[i], roots, i, overlap);
    if (roots[i].offset + roots[i].bytes > size) size = roots[i].offset + roots[i].bytes, *top = i;
  }
  return size;
}

/* Tries the orders; what then sticks out at the top is placed first in another round. Leaves the best offsets in `roots`. */
static uint64_t place_well(cml_root *roots, size_t count, uint64_t bound, cml_root *best, const cml_root **overlap) {
  static int (*const orders[])(const void *, const void *) = {by_size, by_crowd, by_life, by_time};
  enum { ORDERS = sizeof orders / sizeof *orders, ROUNDS = 8, WORK = 1 << 24 };
  uint64_t least = UINT64_MAX;
  size_t left = count ? WORK / count / count : 0; /* a round looks at every pair */
  for (size_t k = 0; k < ORDERS && least > bound && (!k || left); k++) {
    qsort(roots, count, sizeof *roots, orders[k]);
    for (size_t round = 0, top = 0; round < ROUNDS && least > bound && (least == UINT64_MAX || left); round++) {
      left -= left > 0;
      uint64_t size = place_all(roots, count, &top, overlap);
      if (size < least) least = size, memcpy(best, roots, count * sizeof *roots);
      cml_root first = roots[top];
      memmove(roots + 1, roots, top * sizeof *roots);
      roots[0] = first;
    }
  }
  if (count) memcpy(roots, best, count * sizeof *roots);
  return count ? least : 0;
}

cml_status cml_place(cml_root *roots, size_t count, uint64_t peak, uint64_t *size, cml_error *err) {
  cml_root *best = calloc(count + 1, sizeof *best);
  const cml_root **overlap = calloc(count + 1, sizeof *overlap);
  if (best && overlap) *size = place_well(roots, count, peak, best, overlap);
  cml_status status = best && overlap ? CML_OK : cml_fail_memory(err);
  free(overlap);
  free(best);
  return status;
}
