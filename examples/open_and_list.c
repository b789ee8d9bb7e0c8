/* Opens any file that cml knows (.pte, .mlpackage, .mlmodel, .mlmodelc, .ptd, a flat blob, an archive of one of these) and
 * lists the tree that it holds, with the sizes of its files. Nothing is unpacked: the files' bytes stay where they are.
 *
 *     cc open_and_list.c $(pkg-config --cflags --libs cml) -o open_and_list && ./open_and_list model.pte */
#include <cml/container.h>
#include <inttypes.h>
#include <stdio.h>

static void list(const cml_node *node, int depth) {
  for (size_t i = 0; i < cml_node_count(node); i++) {
    const cml_node *child = cml_node_child(node, i);
    uint64_t size = 0;
    cml_error err;
    if (cml_node_kind_of(child) == CML_NODE_FOLDER) {
      printf("%*s%s/\n", 2 * depth, "", cml_node_name(child));
      list(child, depth + 1);
    } else if (cml_node_size(child, &size, &err)) { /* a decoded file is made here, which may fail */
      printf("%*s%s: %s\n", 2 * depth, "", cml_node_name(child), err.text);
    } else {
      printf("%*s%s  %" PRIu64 "\n", 2 * depth, "", cml_node_name(child), size);
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: open_and_list FILE\n");
    return 2;
  }
  cml_container *container;
  cml_error err;
  if (cml_container_open(argv[1], NULL, &container, &err)) { /* on failure `err` says what was found and expected */
    fprintf(stderr, "open_and_list: %s: %s\n", argv[1], err.text);
    return 1;
  }
  printf("%s: %s\n", argv[1], cml_container_kind_name(cml_container_kind_of(container)));
  list(cml_tree_root(cml_container_view(container)), 1); /* the tree belongs to the container */
  cml_container_close(container);
  return 0;
}
