/* How the tables are filled: each source of kernels, compiled for an instruction set, has one function that sets its entries. */
#ifndef CML_KERNELS_INTERNAL_H
#define CML_KERNELS_INTERNAL_H

#include "kernels.h"

#define CML_KERNEL_FILLS(variant)                 \
  void cml_fill_vector_##variant(cml_kernels *k); \
  void cml_fill_gemm_##variant(cml_kernels *k);   \
  void cml_fill_conv_##variant(cml_kernels *k);   \
  void cml_fill_pool_##variant(cml_kernels *k);   \
  void cml_fill_plane_##variant(cml_kernels *k);  \
  void cml_fill_attention_##variant(cml_kernels *k); \
  void cml_fill_pack_##variant(cml_kernels *k);   \
  void cml_fill_sample_##variant(cml_kernels *k); \
  void cml_fill_sort_##variant(cml_kernels *k); \
  void cml_fill_fourier_##variant(cml_kernels *k); \
  void cml_fill_fourier64_##variant(cml_kernels *k); \
  void cml_fill_compressed_##variant(cml_kernels *k); \
  void cml_fill_integer_##variant(cml_kernels *k); \
  void cml_fill_int32_##variant(cml_kernels *k);

CML_KERNEL_FILLS(portable)
CML_KERNEL_FILLS(avx2)
CML_KERNEL_FILLS(avx512)
CML_KERNEL_FILLS(neon)

/* The table's functions for compressed weights stay in use for what these leave. */
void cml_fill_words_avx2(cml_kernels *k);
void cml_fill_words_avx512(cml_kernels *k);
void cml_fill_words_avxvnni(cml_kernels *k);
void cml_fill_entries_avx2(cml_kernels *k);
void cml_fill_entries_avx512(cml_kernels *k);
void cml_fill_entries_avxvnni(cml_kernels *k);
void cml_fill_nibbles_avx2(cml_kernels *k);
void cml_fill_nibbles_avx512(cml_kernels *k);
void cml_fill_nibbles_avxvnni(cml_kernels *k);
void cml_fill_compressed_avx512vbmi(cml_kernels *k);
void cml_fill_quarters_avx512vbmi(cml_kernels *k); /* codes of 8 bits looked up as an Intel CPU likes it */
void cml_fill_half_avx512fp16(cml_kernels *k);
/* native: the CPU multiplies float16 in tiles (AMX-FP16), not bfloat16 alone */
void cml_fill_parts_amx(cml_kernels *k, bool native);
void cml_fill_integer_avx512vnni(cml_kernels *k);
void cml_fill_integer_avx512vbmi(cml_kernels *k);
void cml_fill_integer_avxvnni(cml_kernels *k);
void cml_fill_integer_neondot(cml_kernels *k);
void cml_fill_bytes_amx(cml_kernels *k);

/* Lanes of all ones where a comparison of two vectors holds; c is known to the compiler. */
#define V_COMPARED(c, x, y)                              \
  ((c) == CML_COMPARE_EQUAL           ? (x) == (y)       \
   : (c) == CML_COMPARE_NOT_EQUAL     ? (x) != (y)       \
   : (c) == CML_COMPARE_LESS          ? (x) < (y)        \
   : (c) == CML_COMPARE_LESS_EQUAL    ? (x) <= (y)       \
   : (c) == CML_COMPARE_GREATER       ? (x) > (y)        \
                                      : (x) >= (y))

#endif
