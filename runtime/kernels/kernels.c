/* Which table of kernels this CPU can run. Tables are filled once; what a build or a CPU lacks is left out. */
#include "kernels_internal.h"
#include "x86_features.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#if defined(CML_HAVE_NEON_KERNELS)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum { MAX_TABLES = 8 };

static cml_kernels tables[MAX_TABLES];
static size_t table_count;
static const cml_kernels *on_tiles; /* the last table, which needs the kernel's leave; NULL: there is none */
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
    cml_fill_plane_##variant(k);               \
    cml_fill_attention_##variant(k);           \
    cml_fill_pack_##variant(k);                \
    cml_fill_sample_##variant(k);              \
    cml_fill_sort_##variant(k);                \
    cml_fill_fourier_##variant(k);             \
    cml_fill_fourier64_##variant(k);           \
    cml_fill_compressed_##variant(k);          \
    cml_fill_integer_##variant(k);             \
    cml_fill_int32_##variant(k);               \
  } while (0)

#if defined(CML_HAVE_X86_KERNELS) || defined(CML_HAVE_NEON_KERNELS)
/* The table before with some entries replaced. */
static cml_kernels *add_like_last(const char *name) {
  cml_kernels *k = &tables[table_count++];
  *k = k[-1];
  k->name = name;
  return k;
}

#endif

#if defined(CML_HAVE_X86_KERNELS)
static void add_newer(cml_x86_features f) {
#if defined(CML_HAVE_FP16_KERNELS)
  if (f.fp16) {
    cml_kernels *k = add_like_last("avx512fp16");
    cml_fill_half_avx512fp16(k);
    cml_fill_quarters_avx512vbmi(k);
  }
#endif
#if defined(CML_HAVE_AMX_KERNELS)
  if (f.amx_bf16) {
    cml_kernels *k = add_like_last("amx");
    on_tiles = k;
    cml_fill_parts_amx(k, f.amx_fp16);
    if (f.amx_int8) cml_fill_bytes_amx(k);
  }
#endif
  (void)f;
}
#endif

static void fill(void) {
  ADD_TABLE(portable);
#if defined(CML_HAVE_X86_KERNELS)
  __builtin_cpu_init();
  const cml_x86_words words = cml_x86_read();
  const cml_x86_features features = cml_x86_features_of(&words);
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) {
    ADD_TABLE(avx2); /* every CPU with AVX2 has F16C */
    cml_kernels *plain = &tables[table_count - 1];
    if (features.avx_vnni) {
      cml_kernels *k = add_like_last("avxvnni");
      cml_fill_words_avxvnni(k);
      cml_fill_entries_avxvnni(k);
      cml_fill_nibbles_avxvnni(k);
      cml_fill_integer_avxvnni(k);
    }
    cml_fill_words_avx2(plain);
    cml_fill_entries_avx2(plain);
    cml_fill_nibbles_avx2(plain);
  }
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    ADD_TABLE(avx512);
    cml_kernels *plain = &tables[table_count - 1], *vnni = NULL;
    cml_fill_words_avx512(plain);
    cml_fill_entries_avx512(plain);
    if (__builtin_cpu_supports("avx512vnni")) cml_fill_integer_avx512vnni(vnni = add_like_last("avx512vnni"));
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi")) {
      cml_kernels *k = add_like_last("avx512vbmi");
      cml_fill_compressed_avx512vbmi(k);
      cml_fill_integer_avx512vbmi(k);
    }
    cml_fill_nibbles_avx512(plain); /* packed in another way than VBMI's */
    if (vnni) cml_fill_nibbles_avx512(vnni);
    add_newer(features);
  }
#endif
#if defined(CML_HAVE_NEON_KERNELS)
  ADD_TABLE(neon);
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) cml_fill_integer_neondot(add_like_last("neondot"));
#endif
}

/* Asked of nobody who chose another table. */
static bool usable(const cml_kernels *k) {
#if defined(CML_HAVE_AMX_KERNELS)
  return k != on_tiles || cml_x86_permit_tiles();
#else
  return k != on_tiles;
#endif
}

const cml_kernels *cml_kernels_at(size_t i) {
  pthread_once(&once, fill);
  return i < table_count && usable(&tables[i]) ? &tables[i] : NULL;
}

const cml_kernels *cml_kernels_get(void) {
  pthread_once(&once, fill);
  const cml_kernels *k = atomic_load_explicit(&chosen, memory_order_relaxed);
  if (k) return k;
  k = &tables[table_count - 1];
  return usable(k) ? k : k - 1;
}

cml_status cml_kernels_use(const char *name, cml_error *err) {
  pthread_once(&once, fill);
  if (!name || !*name) {
    atomic_store(&chosen, NULL);
    return CML_OK;
  }
  for (size_t i = 0; i < table_count; i++)
    if (!strcmp(tables[i].name, name) && usable(&tables[i])) {
      atomic_store(&chosen, &tables[i]);
      return CML_OK;
    }
  return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "no kernels named '%s' on this machine", name);
}
