/* Where pieces of memory that are needed over some steps each lie in one arena, so that it is small. */
#ifndef CML_PLACE_H
#define CML_PLACE_H

#include "error.h"

typedef struct cml_root {
  uint32_t value;      /* the caller's */
  uint32_t begin, end; /* steps, inclusive */
  uint64_t bytes, offset, crowd; /* crowd: the most bytes alive at one of its steps */
} cml_root;

/* The most bytes that live at one of the steps 0 to `steps`; fills in each root's crowd. */
CML_NODISCARD cml_status cml_place_peak(cml_root *roots, size_t count, size_t steps, uint64_t *peak, cml_error *err);
/* Gives each root its offset and returns the arena's size. Roots must have their crowds; their order changes. */
CML_NODISCARD cml_status cml_place(cml_root *roots, size_t count, uint64_t peak, uint64_t *size, cml_error *err);

#endif
