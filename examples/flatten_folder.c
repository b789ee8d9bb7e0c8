/* Flattens a folder into one blob in ExecuTorch's format, restores the blob in memory, and compares: what a Core ML
 * delegate in a .pte goes through.
 *
 *     cc flatten_folder.c $(pkg-config --cflags --libs cml) -o flatten_folder && ./flatten_folder folder blob.bin */
#include <cml/flat.h>
#include <stdio.h>

static cml_status flatten(const char *folder, const char *blob, cml_tree **out, cml_error *err) {
  cml_flatten_options options = {.alignment = 64}; /* each file starts at a multiple of 64 bytes */
  cml_status status = cml_tree_from_folder(folder, NULL, out, err);
  if (!status) status = cml_flatten_to_path(cml_tree_root(*out), blob, &options, err);
  return status;
}

static cml_status restore(const char *blob, cml_tree **out, cml_error *err) {
  cml_mapping *mapping;
  cml_status status = cml_mapping_open(blob, &mapping, err);
  if (status) return status;
  status = cml_flat_restore(mapping, 0, cml_mapping_span(mapping).size, NULL, out, err);
  cml_mapping_unref(mapping); /* the tree keeps its own reference */
  return status;
}

int main(int argc, char **argv) {
  cml_tree *folder = NULL, *restored = NULL;
  cml_error err;
  bool equal = false;
  if (argc != 3) {
    fprintf(stderr, "usage: flatten_folder FOLDER BLOB\n");
    return 2;
  }
  cml_status status = flatten(argv[1], argv[2], &folder, &err);
  if (!status) status = restore(argv[2], &restored, &err);
  if (!status) status = cml_node_compare(cml_tree_root(folder), cml_tree_root(restored), &equal, NULL, &err);
  if (status) fprintf(stderr, "flatten_folder: %s\n", err.text);
  else printf("%s: %s\n", argv[2], equal ? "restores to the same folder" : "differs from the folder");
  cml_tree_unref(restored);
  cml_tree_unref(folder);
  return status || !equal;
}
