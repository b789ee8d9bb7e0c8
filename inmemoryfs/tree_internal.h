/* What a node is made of, for the files of this folder only. */
#ifndef CML_TREE_INTERNAL_H
#define CML_TREE_INTERNAL_H

#include <stdatomic.h>

#include "tree.h"

enum { CML_TREE_MAX_DEPTH = 4096, CML_NAME_MAX = 255, CML_DEFAULT_DEPTH = 1024, CML_DEFAULT_NODES = 1000000 };

/* A folder on disk that files of a tree are read from: one descriptor, whatever the number of files. */
typedef struct cml_disk {
  int fd;
  struct cml_disk_file *_Atomic pinned; /* files whose mapping stays, newest first */
} cml_disk;

typedef struct cml_disk_file {
  cml_disk *disk;
  cml_mapping *_Atomic mapping; /* set once by cml_node_span */
  struct cml_disk_file *next;   /* in cml_disk.pinned */
} cml_disk_file;

/* Where a file's contents come from. */
typedef enum cml_source { CML_FROM_PIECES, CML_FROM_GENERATOR, CML_FROM_DISK, CML_FROM_NODE } cml_source;

/* A file's size that is not known yet. */
#define CML_SIZE_UNKNOWN UINT64_MAX

/* A folder's children: `main` is sorted; so is `tail`, where children go that come out of order once main is large,
 * so that building costs n log n whatever the order. The two are read as one sorted list. */
typedef struct cml_children {
  cml_node **main, **tail;
  size_t main_count, main_capacity, tail_count;
} cml_children;

struct cml_node {
  const char *name;
  cml_node *parent;
  uint64_t inode;
  uint32_t depth; /* the root's is 0 */
  uint16_t name_size;
  uint8_t kind, source;
  union {
    cml_children folder;
    struct {
      _Atomic uint64_t size;
      union {
        struct {
          const cml_piece *pieces;
          size_t count;
        };
        struct {
          cml_node_generate *generate;
          void *context;
        };
        cml_disk_file disk;
        const cml_node *origin; /* never itself CML_FROM_NODE */
      };
    } file;
  };
};

struct cml_tree {
  atomic_uint references;
  cml_arena arena;
  cml_node root;
  uint64_t nodes; /* made so far; the newest node's inode */
  struct cml_keep *keeps;
  cml_mapping *newest_mapping; /* the one that was kept last: pieces mostly share one */
};

/* The node that has the contents: itself, or where a graft came from. */
static inline const cml_node *cml_node_origin(const cml_node *n) {
  return n->kind == CML_NODE_FILE && n->source == CML_FROM_NODE ? n->file.origin : n;
}

/* A file whose contents lie on disk under its own path below the root. */
cml_status cml_tree_add_disk_file(cml_tree *tree, cml_node *parent, const char *name, size_t name_size, cml_disk *disk,
                                  uint64_t size, cml_error *err);
/* Opens the file or folder on disk that a node of cml_tree_from_folder stands for; -1 and errno on failure. Never
 * follows a symbolic link. `flags` as for open. */
int cml_disk_open(const cml_disk *disk, const cml_node *node, int flags);
/* The same for any folder `fd` that has, or gets, the shape of `top`; node is top or below it. */
int cml_open_below(int fd, const cml_node *top, const cml_node *node, int flags);
cml_status cml_disk_file_open(const cml_node *file, cml_contents *out, cml_error *err);
cml_status cml_disk_file_span(const cml_node *file, cml_span *out, cml_error *err);

/* What is wrong with a name, in words; NULL when it may stand in a tree. */
const char *cml_name_fault(const char *name, size_t size);
/* Puts "PATH: " before an error, the node's path below the root. */
cml_status cml_node_error(cml_error *err, cml_status status, const cml_node *node);

#endif
