/* The tile instructions in C, as Intel's manual defines them, for amx_tile.c's loops on machines without AMX. Sums are float32, one
 * rounding for each product that is added; numbers below 2^-126 are zeros, in what is read and in what comes out. */
#ifndef CML_AMX_MODEL_H
#define CML_AMX_MODEL_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "amx_instructions.h"
#include "f16.h"

#undef ROUND_BF16
#undef TILE_CONFIGURE
#undef TILE_RELEASE
#undef TILE_LOAD
#undef TILE_STORE
#undef TILE_ZERO
#undef MULTIPLY_BYTES
#undef MULTIPLY_BF16
#undef MULTIPLY_FP16

typedef union model_tile {
  uint16_t halves[16][32];
  float floats[16][16];
  uint8_t bytes[16][64];
  int32_t sums[16][16];
} model_tile;
static _Thread_local model_tile tiles[8];
static _Thread_local int configured;
static _Thread_local uint8_t tile_rows_set[8];

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
static inline float bf16(uint16_t x) { return flushed(cml_bf16_to_f32(x)); }

static inline void model_multiply(int to, int a, int b, float (*value)(uint16_t)) {
  for (int m = 0; m < tile_rows_set[to]; m++)
    for (int n = 0; n < 16; n++) {
      float sums[2] = {0, 0};
      for (int k = 0; k < 16; k++)
        for (int i = 0; i < 2; i++) sums[i] = flushed(fmaf(value(tiles[a].halves[m][2 * k + i]), value(tiles[b].halves[k][2 * n + i]), sums[i]));
      tiles[to].floats[m][n] = flushed(flushed(tiles[to].floats[m][n]) + flushed(sums[0] + sums[1]));
    }
}

static inline void model_multiply_bytes(int to, int a, int b) {
  for (int m = 0; m < tile_rows_set[to]; m++)
    for (int n = 0; n < 16; n++)
      for (int k = 0; k < 64; k++)
        tiles[to].sums[m][n] = (int32_t)((uint32_t)tiles[to].sums[m][n] + (uint32_t)(tiles[a].bytes[m][k] * (int8_t)tiles[b].bytes[k / 4][4 * n + k % 4]));
}

static inline void model_configure(const cml_tile_configuration *c) {
  configured = c->palette == 1;
  for (int i = 0; i < 8; i++) configured = configured && c->row_bytes[i] == 64 && c->rows[i] > 0 && c->rows[i] <= 16;
  memcpy(tile_rows_set, c->rows, sizeof tile_rows_set);
  memset(tiles, 0, sizeof tiles);
}
static inline void model_load(int tile, const char *from, size_t stride) {
  for (size_t i = 0; i < tile_rows_set[tile] && configured; i++) memcpy(tiles[tile].halves[i], from + i * stride, 64);
}
static inline void model_store(int tile, char *to, size_t stride) {
  for (size_t i = 0; i < tile_rows_set[tile] && configured; i++) memcpy(to + i * stride, tiles[tile].halves[i], 64);
}

static inline __m512i model_round(__m512 low, __m512 high) {
  float x[32];
  uint16_t y[32];
  _mm512_storeu_ps(x, low), _mm512_storeu_ps(x + 16, high);
  for (int i = 0; i < 32; i++) y[i] = cml_bf16_from_f32(flushed(x[i]));
  return _mm512_loadu_si512(y);
}

#define ROUND_BF16(low, high) model_round(low, high)
#define TILE_CONFIGURE(c) model_configure(c)
#define TILE_RELEASE() (configured = 0)
#define TILE_LOAD(tile, from, stride) model_load(tile, (const char *)(from), stride)
#define TILE_STORE(tile, to, stride) model_store(tile, (char *)(to), stride)
#define TILE_ZERO(tile) memset(&tiles[tile], 0, sizeof tiles[tile])
#define MULTIPLY_BYTES(sums, a, b) model_multiply_bytes(sums, a, b)
#define MULTIPLY_BF16(sums, a, b) model_multiply(sums, a, b, bf16)
#define MULTIPLY_FP16(sums, a, b) model_multiply(sums, a, b, cml_f16_to_f32)

#endif
