/* Bytes of a tree on their way to files: pieces go out in order, many small ones in one system call, large ones inside
 * the kernel, and holes of sparse sources as holes. */
#ifndef CML_WRITE_H
#define CML_WRITE_H

#include "tree.h"

/* Told how many bytes are out now and then; false stops the work with CML_CANCELLED. total is 0 when it is not known. */
typedef bool cml_progress(void *context, uint64_t done, uint64_t total);

typedef struct cml_write_options {
  cml_progress *progress; /* may be NULL */
  void *progress_context;
} cml_write_options;

/* cml_node_write with options. */
CML_API CML_NODISCARD cml_status cml_node_write_with(const cml_node *node, const char *path, const cml_write_options *options,
                                                     cml_error *err);

#endif
