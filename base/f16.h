/* IEEE 754 binary16 as uint16_t: conversion in portable C, for places where speed does not matter and as the
 * reference for the vector kernels. Rounds to nearest, ties to even; NaN stays NaN, quiet. */
#ifndef CML_F16_H
#define CML_F16_H

#include <stdint.h>
#include <string.h>

typedef uint16_t cml_f16;

static inline float cml_f16_to_f32(cml_f16 h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff, bits;
  if (magnitude >= 0x7c00) {
    bits = sign | 0x7f800000 | (magnitude & 0x3ff) << 13 | (magnitude > 0x7c00 ? 0x400000 : 0);
  } else if (magnitude >= 0x400) {
    bits = sign | ((magnitude << 13) + 0x38000000);
  } else { /* zero or subnormal: exact in float */
    float f = (float)magnitude * 0x1p-24f;
    memcpy(&bits, &f, 4);
    bits |= sign;
  }
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline cml_f16 cml_f16_from_f32(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return (cml_f16)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
  if (bits >= 0x477ff000) return (cml_f16)(sign | 0x7c00); /* 65520 and above */
  if (bits < 0x38800000) {                                 /* below 2^-14: adding 0.5 leaves the rounded subnormal in the low bits */
    float a, half = 0.5f;
    memcpy(&a, &bits, 4);
    a += half;
    uint32_t r;
    memcpy(&r, &a, 4);
    return (cml_f16)(sign | (r - 0x3f000000));
  }
  uint32_t odd = bits >> 13 & 1;
  return (cml_f16)(sign | ((bits + 0xfff + odd - 0x38000000) >> 13));
}

static inline float cml_bf16_to_f32(uint16_t h) {
  uint32_t bits = (uint32_t)h << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline uint16_t cml_bf16_from_f32(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
