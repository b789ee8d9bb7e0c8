/* Which table of kernels this CPU can run. Tables are filled once; what a build or a CPU lacks is left out. */
#include "kernels_internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { MAX_TABLES = 5 };

static cml_kernels tables[MAX_TABLES];
static size_t table_count;
static _Atomic(const cml_kernels *) chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define ADD_TABLE(variant)                     \
  do {                                         \
    cml_kernels *k = &tables[table_count++];   \
    k->name = #variant;                        \
    cml_fill_vector_##variant(k);              \
    cml_fill_gemm_##variant(k);                \
    cml_fill_conv_##variant(k);                \
    cml_fill_pool_##variant(k);                \
    cml_fill_pack_##variant(k);                \
    cml_fill_compressed_##variant(k);          \
  } while (0)

static void fill(void) {
  ADD_TABLE(portable);
#if defined(CML_HAVE_X86_KERNELS)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) ADD_TABLE(avx2); /* every CPU with AVX2 has F16C */
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    ADD_TABLE(avx512);
    if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni")) { /* the same but for products with compressed weights */
      cml_kernels *k = &tables[table_count];
      *k = tables[table_count - 1];
      k->name = "avx512vbmi";
      cml_fill_compressed_avx512vbmi(k);
      table_count++;
    }
  }
#endif
#if defined(CML_HAVE_NEON_KERNELS)
  ADD_TABLE(neon);
#endif
}

const cml_kernels *cml_kernels_at(size_t i) {
  pthread_once(&once, fill);
  return i < table_count ? &tables[i] : NULL;
}

const cml_kernels *cml_kernels_get(void) {
  pthread_once(&once, fill);
  const cml_kernels *k = atomic_load_explicit(&chosen, memory_order_relaxed);
  return k ? k : &tables[table_count - 1];
}

cml_status cml_kernels_use(const char *name, cml_error *err) {
  pthread_once(&once, fill);
  if (!name || !*name) {
    atomic_store(&chosen, NULL);
    return CML_OK;
  }
  for (size_t i = 0; i < table_count; i++)
    if (!strcmp(tables[i].name, name)) {
      atomic_store(&chosen, &tables[i]);
      return CML_OK;
    }
  return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "no kernels named '%s' on this machine", name);
}
