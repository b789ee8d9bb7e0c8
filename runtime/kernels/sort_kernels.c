/* The first few of each of neighbouring columns, compiled once for each instruction set; see kernels.h. */
#include "kernels_internal.h"
#include "simd.h"

VINLINE vi load(const int32_t *p) { return vf_bits(vf_load((const float *)(const void *)p)); }
VINLINE void store(int32_t *p, vi x) { vf_store((float *)(void *)p, vi_float(x)); }
VINLINE vi choose(vi mask, vi a, vi b) { return (mask & a) | (~mask & b); }

VINLINE bool any(vi mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask);
#else
  int32_t all = 0;
  for (int i = 0; i < W; i++) all |= mask[i];
  return all;
#endif
}

static void sort_keys(const float *x, size_t n, bool descending, int32_t *keys) {
  const vi turn = vi_set1(descending ? -1 : 0);
  for (size_t i = 0; i < n; i += W) {
    const size_t m = n - i;
    const vf v = (m >= W ? vf_load(x + i) : vf_load_n(x + i, m)) + vf_zero(); /* -0 equals 0 */
    const vi bits = vf_bits(v), key = bits ^ (vi)((vu)(bits >> 31) >> 1) ^ turn, number = v == v;
    const vi all = choose(number, key, vi_set1(INT32_MAX));
    if (m >= W) store(keys + i, all);
    else vf_store_n((float *)(void *)(keys + i), vi_float(all), m);
  }
}

/* A key goes down the levels to where it belongs; from there on each level's key goes to the next. */
static void sort_insert(size_t levels, bool grow, const int32_t *row, int32_t number, int32_t *keys, int32_t *rows) {
  for (size_t c = 0; c < CML_SORT_COLUMNS; c += W) {
    vi key = load(row + c), from = vi_set1(number), entered = {0};
    if (!grow && !any(key < load(keys + (levels - 1) * CML_SORT_COLUMNS + c))) continue;
    for (size_t l = 0; l < levels; l++) {
      int32_t *const key_at = keys + l * CML_SORT_COLUMNS + c, *const row_at = rows + l * CML_SORT_COLUMNS + c;
      const vi here = load(key_at), of = load(row_at);
      entered |= key < here;
      store(key_at, choose(entered, key, here)), store(row_at, choose(entered, from, of));
      key = choose(entered, here, key), from = choose(entered, of, from);
    }
    if (grow) store(keys + levels * CML_SORT_COLUMNS + c, key), store(rows + levels * CML_SORT_COLUMNS + c, from);
  }
}

void CML_SIMD(cml_fill_sort)(cml_kernels *k) {
  k->sort_keys = sort_keys;
  k->sort_insert = sort_insert;
}
