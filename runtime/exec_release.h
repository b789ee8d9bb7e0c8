/* Gives back the memory of weights once packed copies of them are read. Internal to runtime/. */
#ifndef CML_EXEC_RELEASE_H
#define CML_EXEC_RELEASE_H

#include "exec_graph.h"

typedef struct cml_release {
  cml_graph *graph;
  struct cml_release_item *items; /* constants that the graph made itself, by place */
  size_t count;
  uintptr_t begin, end; /* of a file's part that is still to be dropped */
} cml_release;

cml_status cml_release_begin(cml_release *r, cml_graph *graph, cml_error *err);
/* A step is prepared and reads these arguments no more (cml_call.unread). */
void cml_release_step(cml_release *r, const cml_step *step, uint64_t unread);
void cml_release_end(cml_release *r);

#endif
