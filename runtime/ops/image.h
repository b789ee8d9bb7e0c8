/* Sampling grids of image operators: where output point i of `to` lies among `from` input points. */
#ifndef CML_IMAGE_H
#define CML_IMAGE_H

#include "op.h"

typedef enum cml_grid {
  CML_GRID_STRICT_ALIGN_CORNERS,
  CML_GRID_ALIGN_CORNERS,
  CML_GRID_DEFAULT,
  CML_GRID_OFFSET_CORNERS,
  CML_GRID_UNALIGN_CORNERS,
} cml_grid;

/* The mode's number, or -1. */
int cml_grid_by_name(const char *name);
/* A place in [0, from - 1]; from need not be whole (a box). */
double cml_grid_point(cml_grid grid, int64_t i, double from, int64_t to);

#endif
