/* What the parsers of .pte, .ptd and .bpte share. Failures are recorded in the FlatBuffer reader and asked for once. */
#ifndef CML_PTE_INTERNAL_H
#define CML_PTE_INTERNAL_H

#include "flatbuffer.h"
#include "pte.h"

typedef struct pte_parser {
  cml_fb fb;
  cml_arena *arena;
  cml_pte *pte; /* NULL in the parsers of other formats */
} pte_parser;

/* Zeroed memory in the arena, or NULL after recording a failure. */
void *cml_pte_take(pte_parser *p, size_t count, size_t size);
#define TAKE(p, type, count) ((type *)cml_pte_take((p), (count), sizeof(type)))
/* Puts "WHAT I: " before a recorded failure. */
void cml_pte_context(pte_parser *p, const char *what, size_t i);
/* An index that must be below `limit`. */
uint32_t cml_pte_index(pte_parser *p, int64_t index, uint64_t limit, uint64_t at, const char *what);
/* A vector of i32 indices, each below `limit`. */
cml_pte_indices cml_pte_read_indices(pte_parser *p, const cml_fb_table *t, unsigned slot, uint64_t limit, const char *what);

/* pte_values.c: a tensor's scalar type, sizes and dim order from fields of a table (each a slot), and what derives from them. */
void cml_pte_parse_layout(pte_parser *p, cml_pte_tensor *t, const cml_fb_table *f, unsigned scalar, unsigned sizes, unsigned dim_order);
/* Values of a method, whose memory_sizes are known. */
void cml_pte_parse_values(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan);
/* pte_plan.c: one method. */
void cml_pte_parse_method(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan);
/* Where segments lie: the extended header's part. */
typedef struct pte_segment_area {
  cml_span file;
  uint64_t base, size; /* base 0: there are none; size 0: up to the file's end */
} pte_segment_area;
/* A table {offset, size}, in slots 0 and 1. */
void cml_pte_parse_segment(pte_parser *p, cml_pte_segment *s, const cml_fb_table *t, pte_segment_area area);
int cml_pte_compare_strings(cml_string a, cml_string b);

/* pte_write.c: places of segments, each aligned behind the one before it. Returns false on overflow. */
bool cml_pte_place_segments(const cml_pte_segment *segments, uint32_t count, uint64_t alignment, uint64_t *offsets, uint64_t *out_end);
/* Writes segments at base + offsets; `position` bytes were written so far. */
cml_status cml_pte_write_segments(const cml_pte_segment *segments, uint32_t count, const uint64_t *offsets, uint64_t base,
                                  uint64_t position, cml_sink sink, cml_error *err);

#endif
