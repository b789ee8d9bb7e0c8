/* The tile instructions that amx_tile.c uses. The compilers' own intrinsics do not say that they read and write memory (gcc 12), and
 * know nothing of AMX-FP16; these do, so the compiler moves no access of that memory across them. A tile's number is a literal. */
#ifndef CML_AMX_INSTRUCTIONS_H
#define CML_AMX_INSTRUCTIONS_H

#include <stddef.h>
#include <stdint.h>

typedef struct cml_tile_configuration {
  uint8_t palette, start, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} cml_tile_configuration; /* 64 bytes, as the CPU reads them */

/* all eight tiles whole */
static const cml_tile_configuration cml_whole_tiles = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

#define TILE_CONFIGURE(c) __asm__ volatile("ldtilecfg %0" : : "m"(*(c)) : "memory")
#define TILE_RELEASE() __asm__ volatile("tilerelease" : : : "memory")
/* 16 rows of 64 bytes, `stride` bytes apart */
#define TILE_LOAD(tile, from, stride) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"((const void *)(from)), "r"((size_t)(stride)) : "memory")
#define TILE_STORE(tile, to, stride) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"((void *)(to)), "r"((size_t)(stride)) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %tmm" #tile)
/* 16 floats and 16 more as 32 bfloat16, to nearest even; numbers below 2^-126 become zeros */
#define ROUND_BF16(low, high) ((__m512i)_mm512_cvtne2ps_pbh(high, low))
/* sums += a b, of unsigned bytes with signed ones, four to a place */
#define MULTIPLY_BYTES(sums, a, b) __asm__ volatile("tdpbusd %tmm" #b ", %tmm" #a ", %tmm" #sums)
/* sums += a b, pairs of bfloat16 or, tdpfp16ps, which assemblers of the time do not know, of float16 */
#define MULTIPLY_BF16(sums, a, b) __asm__ volatile("tdpbf16ps %tmm" #b ", %tmm" #a ", %tmm" #sums)
#define MULTIPLY_FP16(sums, a, b) \
  __asm__ volatile(".byte 0xc4, 0xe2, 3 + ((15 - " #b ") << 3), 0x5c, 0xc0 + (" #sums " << 3) + " #a)

#endif
