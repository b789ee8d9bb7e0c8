/* ExecuTorch's external data (.ptd): named tensors and other named bytes, which a .pte's external tensors refer to.
 *
 * The file: a FlatBuffer ("FT01") with, behind its identifier, the header {"FH01", u32 header bytes (40), u64 FlatBuffer
 * offset, u64 FlatBuffer bytes, u64 segment base, u64 segment bytes}, then segments. Each entry names a segment and, for a
 * tensor, its type, sizes and dim order. Everything is checked by cml_ptd_parse as by cml_pte_parse. */
#ifndef CML_PTD_H
#define CML_PTD_H

#include "pte.h"

typedef struct cml_ptd_entry {
  cml_string key;
  uint32_t segment;
  cml_pte_tensor *tensor; /* scalar, sizes, dim_order and what derives from them, with data of exactly its bytes; NULL: bytes */
} cml_ptd_entry;

typedef struct cml_ptd {
  cml_span file; /* derived */
  uint32_t version, segment_count, count;
  cml_pte_segment *segments;
  cml_ptd_entry *entries; /* in the file's order */
  uint32_t *order;        /* derived: indices of entries, sorted by key */
  cml_arena arena;
} cml_ptd;

/* `file` must outlive the result. Errors as cml_pte_parse. */
CML_API CML_NODISCARD cml_status cml_ptd_parse(cml_span file, cml_ptd **out, cml_error *err);
CML_API void cml_ptd_destroy(cml_ptd *ptd); /* NULL is accepted */
CML_API const cml_ptd_entry *cml_ptd_find(const cml_ptd *ptd, cml_string key); /* NULL when there is none */
/* The whole segment of an entry. */
static inline cml_span cml_ptd_data(const cml_ptd *ptd, const cml_ptd_entry *e) { return ptd->segments[e->segment].data; }
/* Writes the file; segment_alignment: a power of two, 0 for 128. CML_ARGUMENT when an entry's segment does not exist. */
CML_API CML_NODISCARD cml_status cml_ptd_serialize(const cml_ptd *ptd, uint32_t segment_alignment, cml_sink sink, cml_error *err);

#endif
