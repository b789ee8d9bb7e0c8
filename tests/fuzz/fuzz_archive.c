/* Archives: what is unpacked stays within the limits and can be read. */
#include <stdlib.h>

#include "archive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t total(const cml_node *node) {
  uint64_t sum = 0, bytes = 0;
  if (cml_node_size(node, &bytes, NULL)) abort();
  for (size_t i = 0; i < cml_node_count(node); i++) sum += total(cml_node_child(node, i));
  return sum + bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const cml_archive_options options = {.max_bytes = 1 << 20, .max_entries = 100};
  cml_tree *tree;
  if (cml_archive_open(cml_span_of(data, size), &options, &tree, NULL)) return 0;
  if (total(cml_tree_root(tree)) > options.max_bytes) abort();
  cml_tree_unref(tree);
  return 0;
}
