/* Indices as gather and scatter take them: any integer type, negative ones counted from the end, and a rule for those out of
 * range. Up to iOS16 they are errors; from iOS17 on they are errors where validate_indices says so (then negative ones, too),
 * and else undefined but safe: the nearest valid place is taken. */
#ifndef CML_POSITIONS_H
#define CML_POSITIONS_H

#include "op.h"

typedef struct cml_positions {
  const cml_tensor *indices;
  bool validate, clamp;
} cml_positions;

/* validate: the parameter validate_indices, or a negative number when the operator has none. */
static inline cml_positions cml_positions_of(const cml_call *c, const cml_tensor *indices, int validate) {
  bool strict = validate >= 0 && cml_arg_bool(c, (unsigned)validate, false);
  return (cml_positions){indices, strict, c->opset >= CML_IOS17 && !strict};
}

/* Index i as a place in [0, n), or -1 when it is refused. */
static inline int64_t cml_position(const cml_positions *p, int64_t i, int64_t n) {
  int64_t v = p->indices->dtype == CML_I32 ? ((const int32_t *)p->indices->data)[i] : cml_tensor_get_int(p->indices, i);
  if (v >= 0 && v < n) return v;
  if (p->validate) return -1;
  if (v < 0 && v + n >= 0) return v + n;
  if (!p->clamp || n == 0) return -1;
  return v < 0 ? 0 : n - 1;
}

static inline cml_status cml_position_fail(const cml_call *c, const cml_positions *p, int64_t i, int64_t n, cml_error *err) {
  return cml_call_fail(c, err, "index %lld is out of range for a dimension of %lld", (long long)cml_tensor_get_int(p->indices, i), (long long)n);
}

/* Refuses at load what is known to be out of range; every index is for a dimension of n elements. */
static inline cml_status cml_positions_check(const cml_call *c, const cml_positions *p, int64_t n, cml_error *err) {
  if (!p->indices->data || n < 0 || (p->clamp && n > 0)) return CML_OK;
  const int64_t count = cml_tensor_count(p->indices);
  if (p->indices->dtype == CML_I32 && n <= INT32_MAX) { /* first whether there is anything to look at: most often there is not */
    const int32_t *at = p->indices->data;
    bool odd = false;
    for (int64_t i = 0; i < count; i++) odd |= (uint32_t)at[i] >= (uint32_t)n;
    if (!odd) return CML_OK;
  }
  for (int64_t i = 0; i < count; i++)
    if (cml_position(p, i, n) < 0) return cml_position_fail(c, p, i, n, err);
  return CML_OK;
}

/* The last dimension of indices of gather_nd and scatter_nd, -1 while unknown. */
static inline int64_t cml_index_depth(const cml_tensor *indices) { return indices->rank > 0 ? indices->dims[indices->rank - 1] : -1; }

/* Tuple `at` of `depth` indices into dims from `first` on, as an element offset; false when one is refused (*bad: which). */
static inline bool cml_tuple_offset(const cml_positions *p, int64_t at, int64_t depth, const cml_tensor *x, const int64_t *strides,
                                    int32_t first, int64_t *offset, int64_t *bad) {
  *offset = 0;
  for (int64_t k = 0; k < depth; k++) {
    int64_t v = cml_position(p, at * depth + k, x->dims[first + k]);
    if (v < 0) return *bad = at * depth + k, false;
    *offset += v * strides[first + k];
  }
  return true;
}

#endif
