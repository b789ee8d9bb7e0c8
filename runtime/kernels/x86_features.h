/* What AVX-VNNI, AMX and AVX512-FP16 kernels ask of an x86 machine: the CPU's own word (CPUID), that the operating system keeps the registers
 * (XCR0) and, for tiles, that it lets this process use them. */
#ifndef CML_X86_FEATURES_H
#define CML_X86_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

/* Registers as CPUID leaves them; 0 where the CPU has no such leaf. */
typedef struct cml_x86_words {
  uint32_t basic_ecx;      /* leaf 1 */
  uint32_t extended_edx;   /* leaf 7, subleaf 0 */
  uint32_t more_eax;       /* leaf 7, subleaf 1 */
  uint32_t palette[3];     /* leaf 1d, subleaf 1: eax, ebx, ecx */
  uint64_t xcr0;           /* 0 where the operating system does not use XSAVE */
} cml_x86_words;

typedef struct cml_x86_features {
  bool avx_vnni; /* products of bytes in vectors of AVX, which are kept */
  bool fp16;     /* AVX512-FP16 with the registers of AVX-512 kept */
  bool amx_bf16; /* AVX512-BF16, AMX-TILE and AMX-BF16 with eight tiles of 16 rows x 64 bytes, kept */
  bool amx_fp16; /* AMX-FP16 as well */
  bool amx_int8; /* AMX-INT8 as well */
} cml_x86_features;

cml_x86_words cml_x86_read(void);
/* A pure function of the words. */
cml_x86_features cml_x86_features_of(const cml_x86_words *w);
/* Asks the kernel once for the use of tiles, for all threads of the process. False when it refuses or does not know of them. */
bool cml_x86_permit_tiles(void);

#endif
