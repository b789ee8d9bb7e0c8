/* Arithmetic of sizes that were checked before. Internal to the kernels. */
#ifndef CML_SIZES_H
#define CML_SIZES_H

#include <stddef.h>

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }
/* n, made larger to a multiple of `to` */
static inline size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

#endif
