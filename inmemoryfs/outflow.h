/* Where bytes go on their way out: one file descriptor, many small pieces in one system call, large ones copied inside
 * the kernel, holes as holes. Memory does not depend on what passes through. Internal. */
#ifndef CML_OUTFLOW_H
#define CML_OUTFLOW_H

#include <sys/uio.h>

#include "write.h"

enum { CML_OUTFLOW_BATCH = 128, CML_OUTFLOW_STAGING = 256 << 10 };

typedef struct cml_outflow {
  int fd;
  bool sparse;        /* a regular file that may get holes and bytes from copy_file_range */
  bool kernel_copies; /* false once the kernel refused */
  bool hole_at_end;   /* the file must be extended to its position */
  uint64_t position;  /* bytes put since cml_outflow_target */
  uint64_t done;      /* bytes that went out since cml_outflow_open, for progress */
  uint64_t total;     /* what `done` will be, or 0 */
  uint64_t next_report;
  struct iovec batch[CML_OUTFLOW_BATCH];
  unsigned batched;
  size_t batch_bytes;
  uint8_t *staging; /* small things that have no lasting address lie here until the batch goes */
  size_t staged;
  /* The newest mapping's run of bytes without holes, so that its holes are asked for once and not for each piece. */
  const cml_mapping *run_mapping;
  uint64_t run_start, run_end;
  bool run_is_data;
  /* The folder on disk of the newest file: its neighbours are opened from there. */
  const cml_node *near;
  int near_fd;
  cml_write_options options;
  cml_error *err;
} cml_outflow;

cml_status cml_outflow_open(cml_outflow *s, const cml_write_options *options, uint64_t total, cml_error *err);
void cml_outflow_close(cml_outflow *s); /* frees memory; the descriptor is the caller's */
/* Starts a file at the descriptor's present position. */
void cml_outflow_target(cml_outflow *s, int fd, bool sparse);
/* Bytes that stay in place until cml_outflow_finish. */
cml_status cml_outflow_lasting(cml_outflow *s, const void *data, size_t size);
/* Bytes that may go away at once. */
cml_status cml_outflow_bytes(cml_outflow *s, const void *data, size_t size);
cml_status cml_outflow_zeros(cml_outflow *s, uint64_t size);
/* A file's contents; *out_size is how many bytes there were. */
cml_status cml_outflow_file(cml_outflow *s, const cml_node *file, uint64_t *out_size);
/* Everything out, and the file as long as it must be. */
cml_status cml_outflow_finish(cml_outflow *s);
/* True for a regular file at its end that is not opened for appending: what is skipped there reads as zeros. */
bool cml_outflow_may_be_sparse(int fd);
/* CML_CANCELLED when the progress function says so; to be called now and then. */
cml_status cml_outflow_report(cml_outflow *s);

#endif
