/* The two sinks that everybody needs, memory and file descriptors, and padding. */
#include "sink.h"

#include <errno.h>
#include <unistd.h>

cml_status cml_sink_zeros(cml_sink sink, uint64_t count, cml_error *err) {
  static const uint8_t zeros[4096];
  while (count) {
    size_t n = count < sizeof zeros ? (size_t)count : sizeof zeros;
    CML_TRY(cml_sink_write(sink, zeros, n, err));
    count -= n;
  }
  return CML_OK;
}

static cml_status write_to_buffer(void *context, cml_span bytes, cml_error *err) {
  cml_buffer_append(context, bytes.data, bytes.size);
  return cml_buffer_check(context, err);
}

cml_sink cml_sink_to_buffer(cml_buffer *buffer) { return (cml_sink){write_to_buffer, buffer}; }

static cml_status write_to_fd(void *context, cml_span bytes, cml_error *err) {
  while (bytes.size) {
    ssize_t n = write(*(const int *)context, bytes.data, bytes.size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return cml_fail_errno(err, n ? errno : EIO, "cannot write %zu bytes", bytes.size);
    bytes.data += n;
    bytes.size -= (size_t)n;
  }
  return CML_OK;
}

cml_sink cml_sink_to_fd(const int *fd) { return (cml_sink){write_to_fd, (void *)(uintptr_t)fd}; }
