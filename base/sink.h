/* Where a writer puts its bytes: one function that takes them in order. Payloads are passed as they lie in memory, so
 * that writing a file of gigabytes needs no copy of it. */
#ifndef CML_SINK_H
#define CML_SINK_H

#include "buffer.h"

typedef struct cml_sink {
  cml_status (*write)(void *context, cml_span bytes, cml_error *err); /* takes all bytes or fails */
  void *context;
} cml_sink;

static inline CML_NODISCARD cml_status cml_sink_write(cml_sink sink, const void *data, size_t size, cml_error *err) {
  return size ? sink.write(sink.context, cml_span_of(data, size), err) : CML_OK;
}
CML_API CML_NODISCARD cml_status cml_sink_zeros(cml_sink sink, uint64_t count, cml_error *err);

CML_API cml_sink cml_sink_to_buffer(cml_buffer *buffer); /* appends; the buffer must outlive the sink */
/* write(2) to *fd, which must outlive the sink; interrupted and short writes are continued. */
CML_API cml_sink cml_sink_to_fd(const int *fd);

#endif
