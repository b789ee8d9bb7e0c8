/* Flat blobs: any bytes give an error or a tree, and a tree that is flattened again restores to an equal one. */
#include <stdlib.h>

#include "flat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static cml_tree *restore(const void *data, size_t size, cml_error *err) {
  cml_mapping *mapping = NULL;
  cml_tree *tree = NULL;
  void *copy = malloc(size ? size : 1);
  if (!copy) return NULL;
  if (size) memcpy(copy, data, size);
  if (cml_mapping_own(copy, size, "input", &mapping, err)) {
    free(copy);
    return NULL;
  }
  const cml_flat_options options = {.max_nodes = 10000};
  if (cml_flat_restore(mapping, 0, size, &options, &tree, err)) tree = NULL;
  cml_mapping_unref(mapping);
  return tree;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_error err = {0};
  cml_flat_recognise(cml_span_of(data, size));
  cml_tree *tree = restore(data, size, &err), *again = NULL;
  if (!tree) {
    if (!err.text[0] || err.offset > size) __builtin_trap();
    return 0;
  }
  cml_buffer blob = CML_BUFFER_INIT;
  bool equal = false;
  const cml_flatten_options options = {.root_name = "root", .alignment = size % 2 ? 0 : 32};
  if (cml_flatten_to_sink(cml_tree_root(tree), cml_sink_to_buffer(&blob), &options, &err)) __builtin_trap();
  again = restore(blob.data, blob.size, &err);
  if (!again || cml_node_compare(cml_tree_root(tree), cml_tree_root(again), &equal, NULL, &err) || !equal) __builtin_trap();
  cml_buffer_free(&blob);
  cml_tree_unref(again);
  cml_tree_unref(tree);
  return 0;
}
