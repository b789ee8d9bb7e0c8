/* Registers of bytes, words and dwords, of 256 or 512 bits: what the files of compressed products without the instructions of compressed_fixed.c share. */
#ifndef CML_COMPRESSED_REGISTERS_H
#define CML_COMPRESSED_REGISTERS_H

#include "simd.h"

#if defined(__AVX512F__)
typedef __m512i bytes;
#define ON_LANES(f) _mm512_##f
#define ON_BITS(f) _mm512_##f##_si512
VINLINE __m256i load_half(const void *p) { return _mm256_loadu_si256(p); }
#else
typedef __m256i bytes;
#define ON_LANES(f) _mm256_##f
#define ON_BITS(f) _mm256_##f##_si256
VINLINE __m128i load_half(const void *p) { return _mm_loadu_si128(p); }
#endif

enum { REGISTER = 4 * W };

VINLINE bytes load_register(const void *p) { return ON_BITS(loadu)(p); }
VINLINE bytes zero_register(void) { return ON_BITS(setzero)(); }
VINLINE bytes all_bytes(int v) { return ON_LANES(set1_epi8)((char)v); }
VINLINE bytes all_words(int v) { return ON_LANES(set1_epi16)((short)v); }
VINLINE bytes both(bytes a, bytes b) { return ON_BITS(and)(a, b); }
VINLINE bytes either(bytes a, bytes b) { return ON_BITS(or)(a, b); }
VINLINE bytes differ(bytes a, bytes b) { return ON_BITS(xor)(a, b); }
VINLINE bytes bits_of(bytes a, int bits) { return both(a, all_bytes(bits)); }
VINLINE bytes right(bytes words, int n) { return ON_LANES(srli_epi16)(words, n); }
VINLINE bytes left(bytes words, int n) { return ON_LANES(slli_epi16)(words, n); }
VINLINE bytes upper_words(bytes a) { return ON_LANES(slli_epi32)(a, 16); }
VINLINE bytes add_bytes(bytes a, bytes b) { return ON_LANES(add_epi8)(a, b); }
VINLINE bytes add_bounded(bytes a, int b) { return ON_LANES(adds_epu8)(a, all_bytes(b)); } /* to 255 */
VINLINE bytes average(bytes a, bytes b) { return ON_LANES(avg_epu8)(a, b); }
VINLINE bytes add_words(bytes a, bytes b) { return ON_LANES(add_epi16)(a, b); }
VINLINE bytes sub_words(bytes a, bytes b) { return ON_LANES(sub_epi16)(a, b); }
VINLINE bytes add_dwords(bytes a, bytes b) { return ON_LANES(add_epi32)(a, b); }
VINLINE bytes product_of_words(bytes a, bytes b) { return ON_LANES(madd_epi16)(a, b); }        /* pairs' products added, signed */
VINLINE bytes product_of_bytes(bytes u, bytes s) { return ON_LANES(maddubs_epi16)(u, s); }     /* the same of unsigned and signed bytes */

/* Entries of a table of 16 bytes, which stands in each 128 bits; zeros where bit 7 of an index is set, bits 4 to 6 do not count. */
VINLINE bytes look_up(bytes table, bytes index) { return ON_LANES(shuffle_epi8)(table, index); }
VINLINE bytes load_table(const void *p) {
  const __m128i t = _mm_loadu_si128(p);
#if defined(__AVX512F__)
  return _mm512_broadcast_i32x4(t);
#else
  return _mm256_broadcastsi128_si256(t);
#endif
}

#endif
