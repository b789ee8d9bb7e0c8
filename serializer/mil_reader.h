/* What the parts of the protobuf's reader share. Internal to mil_read*.c. */
#ifndef CML_MIL_READER_H
#define CML_MIL_READER_H

#include "mil_fields.h"
#include "wire.h"

typedef struct reader {
  cml_arena *arena;
  const uint8_t *origin;
  cml_mil_program *program;
  size_t extra_capacity;
  bool in_constexpr; /* the operation being read is one */
  unsigned depth;
  cml_error *err;
} reader;

static inline uint64_t offset_of(const reader *r, const void *at) {
  return at ? (uint64_t)((const uint8_t *)at - r->origin) : CML_NO_OFFSET;
}

static inline cml_status out_of_memory(reader *r) {
  const cml_arena *a = r->arena;
  if (a->limited)
    return cml_fail(r->err, CML_LIMIT, CML_NO_OFFSET, "the program needs more than the limit of %zu bytes of memory", a->limit);
  return cml_fail_memory(r->err);
}

/* Whether elements of a type may be stored so. */
bool cml_mil_storage_fits(cml_mil_storage storage, cml_dtype type);
/* The elements in a RepeatedFloats or the like, as value->storage says, into value->data or strings. */
cml_status cml_mil_read_elements(reader *r, cml_span bytes, cml_mil_value *value);

#endif
