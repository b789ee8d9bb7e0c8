/* What the files of the .pte parser share. Failures are recorded in the FlatBuffer reader and asked for once. */
#ifndef CML_PTE_INTERNAL_H
#define CML_PTE_INTERNAL_H

#include "flatbuffer.h"
#include "pte.h"

typedef struct pte_parser {
  cml_fb fb;
  cml_pte *pte;
} pte_parser;

/* Zeroed memory in the program's arena, or NULL after recording a failure. */
void *cml_pte_take(pte_parser *p, size_t count, size_t size);
#define TAKE(p, type, count) ((type *)cml_pte_take((p), (count), sizeof(type)))
/* Puts "WHAT I: " before a recorded failure. */
void cml_pte_context(pte_parser *p, const char *what, size_t i);
/* An index that must be below `limit`. */
uint32_t cml_pte_index(pte_parser *p, int64_t index, uint64_t limit, uint64_t at, const char *what);
/* A vector of i32 indices, each below `limit`. */
cml_pte_indices cml_pte_read_indices(pte_parser *p, const cml_fb_table *t, unsigned slot, uint64_t limit, const char *what);

/* pte_values.c: values of a method, whose memory_sizes are known. */
void cml_pte_parse_values(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan);
/* pte_plan.c: one method. */
void cml_pte_parse_method(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan);

#endif
