/* Contents go out by write(2) straight from the mapping: one copy, in the kernel. */
#include <errno.h>
#include <unistd.h>

#include "cli.h"

cml_status cli_write_bytes(int fd, const void *data, uint64_t size, cml_error *err) {
  const uint8_t *p = data;
  while (size) {
    ssize_t n = write(fd, p, size < 1 << 30 ? (size_t)size : 1 << 30);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cml_fail_errno(err, errno, "cannot write");
    p += n;
    size -= (uint64_t)n;
  }
  return CML_OK;
}

cml_status cli_write_node(const cml_node *file, int fd, cml_error *err) {
  cml_contents contents = {0};
  if (fd == 1) fflush(stdout);
  cml_status status = cml_node_open(file, &contents, err);
  for (size_t i = 0; !status && i < contents.count; i++)
    status = cli_write_bytes(fd, contents.pieces[i].data, contents.pieces[i].size, err);
  cml_contents_close(&contents);
  return status;
}
