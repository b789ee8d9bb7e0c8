/* Any file at all: opened by content, everything in its view listed and read, its models looked at. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "container.h"
#include "verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned sum;

static void read_all(const cml_node *node) {
  cml_contents contents = {0};
  for (size_t i = 0; i < cml_node_count(node); i++) read_all(cml_node_child(node, i));
  if (cml_node_kind_of(node) == CML_NODE_FOLDER || cml_node_open(node, &contents, NULL)) return;
  for (size_t i = 0; i < contents.count; i++)
    for (uint64_t k = 0; k < contents.pieces[i].size; k += 61) sum += contents.pieces[i].data[k];
  cml_contents_close(&contents);
}

static void ignore_finding(void *context, const cml_finding *finding) { (void)context, sum += (unsigned)finding->text[0]; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const cml_container_options options = {.max_archive_bytes = 1 << 22, .max_archive_entries = 1000};
  cml_container *container;
  cml_verify_result result;
  char path[40];
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  if (!cml_container_open(path, &options, &container, NULL)) {
    read_all(cml_tree_root(cml_container_view(container)));
    cml_container_close(container);
  }
  if (cml_verify(path, &options, ignore_finding, NULL, &result, NULL)) abort();
  close(fd);
  return 0;
}
