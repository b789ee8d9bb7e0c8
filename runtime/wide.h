/* Plain loops for wider vectors: where the kernels in use have vectors of 8 (AVX2 and better), a loop may be compiled for AVX2 as
 * well as for the least CPU, and chosen when it is called. FMA stays off, so that both give the same bits.
 *
 *     CML_WIDE_INLINE void add_loop(…) { the loop }
 *     CML_WIDE static void add_wide(…) { add_loop(…); }
 *     static void add(…) { (cml_wide() ? add_wide : add_loop)(…); } */
#ifndef CML_WIDE_H
#define CML_WIDE_H

#include "kernels.h"

#define CML_WIDE_INLINE static inline __attribute__((always_inline))
#ifdef __x86_64__
#define CML_WIDE __attribute__((target("avx2")))
static inline bool cml_wide(void) { return cml_kernels_get()->width >= 8; }
#else
#define CML_WIDE
static inline bool cml_wide(void) { return false; }
#endif

#endif
