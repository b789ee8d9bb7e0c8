/* Constant weights that stay compressed: what a constexpr_ operation holds, as the kernels take it. Internal to runtime/. */
#ifndef CML_COMPRESSED_H
#define CML_COMPRESSED_H

#include "kernels.h"
#include "op.h"

/* Whether a matrix [columns, depth] that the constexpr_ operation `source` makes can be multiplied without being expanded. Not for palettes
 * of vectors, scales along both axes that do not fit a kernel's groups, sparse data, or tables with infinities or NaN. */
bool cml_compressed_possible(const cml_kernels *k, const cml_call *source);
/* Whether products of so many vectors with such a matrix are sooner computed from what it was compressed to than from its floats. */
bool cml_compressed_pays(const cml_kernels *k, const cml_call *source, int64_t vectors);
/* A matrix by parts of its depth, whose products are summed. */
typedef struct cml_compressed_parts {
  cml_compressed *parts;
  size_t count;
} cml_compressed_parts;

/* Fills `out`, zeros so far, for a source that is possible and products of so many vectors, of float16 when `half`; parts, tables and offsets that
 * the kernels want otherwise are kept by `keeper`. */
CML_NODISCARD cml_status cml_compressed_make(const cml_kernels *k, const cml_call *source, size_t vectors, bool half, cml_call *keeper,
                                                cml_compressed_parts *out, cml_error *err);

#endif
