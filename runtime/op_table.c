/* Looks rows up by name through one small hash table, built once: a program of a thousand operations asks a thousand times. */
#include "families.h"

#include <pthread.h>

static const cml_op_family *const families[] = {
#define CML_FAMILY_ROW(name) &cml_ops_##name,
    CML_FAMILY_MAP(CML_FAMILY_ROW)
#undef CML_FAMILY_ROW
};

enum { FAMILIES = sizeof families / sizeof *families, BUCKETS = 1024 };

static const cml_op *buckets[BUCKETS]; /* open addressing; several rows of one name stand behind one another */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t hash(const char *name) {
  uint32_t h = 2166136261u; /* FNV-1a */
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  return h % BUCKETS;
}

const cml_op *cml_op_at(size_t i) {
  for (size_t f = 0; f < FAMILIES; f++) {
    if (i < families[f]->count) return &families[f]->rows[i];
    i -= families[f]->count;
  }
  return NULL;
}

static void fill(void) {
  size_t used = 0;
  for (size_t i = 0; cml_op_at(i) && used < BUCKETS - 1; i++, used++) {
    uint32_t at = hash(cml_op_at(i)->name);
    while (buckets[at]) at = (at + 1) % BUCKETS;
    buckets[at] = cml_op_at(i);
  }
}

const cml_op *cml_op_find(const char *name, int opset) {
  pthread_once(&once, fill);
  for (uint32_t at = hash(name); buckets[at]; at = (at + 1) % BUCKETS) {
    const cml_op *op = buckets[at];
    if (!strcmp(op->name, name) && opset >= op->since && (!op->until || opset <= op->until)) return op;
  }
  return NULL;
}
