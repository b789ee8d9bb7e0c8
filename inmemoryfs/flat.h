/* The flat blob: a whole folder in one run of bytes, as ExecuTorch's Core ML backend stores it in .pte files.
 *
 *     file bytes, each at an offset aligned to A, in post-order | zeros to a multiple of A | node table | zeros
 *
 * The node table is JSON written back to front, so that a reader finds it from the blob's end:
 * {"nodes":[{"children":{NAME:INDEX,...},"dataRegion":{"offset":N,"size":N},"kind":0|1,"name":NAME},...]}. Kind 0 is a
 * file, 1 a folder; an index points to an earlier node; the last node is the root. */
#ifndef CML_FLAT_H
#define CML_FLAT_H

#include "sink.h"
#include "write.h"

typedef struct cml_flat_options {
  uint64_t max_nodes; /* 0: one million */
  unsigned max_depth; /* folders within folders; 0: 1024, never over 4096 */
} cml_flat_options;

/* True when the bytes end as a flat blob does. Cheap; says nothing about the rest. */
CML_API bool cml_flat_recognise(cml_span blob);
/* Whether the bytes are one flat blob from the first to the last, and not a file of another format that ends in one (a .pte
 * does), nor one that merely starts as another format because the blob's first file does. Reads the node table. */
CML_API CML_NODISCARD cml_status cml_flat_is_whole(cml_span blob, bool *out, cml_error *err);

/* The tree in [offset, offset + size) of a mapping, which the tree references; nothing is copied. The tree's root is the
 * blob's, with its name. options may be NULL. Offsets in errors count from the start of the mapping.
 * CML_INVALID for anything that is not as described above: also for names that a tree refuses or that repeat, nodes that
 * two folders or no folder holds, contents outside the blob or shared by two files; CML_LIMIT past a limit. */
CML_API CML_NODISCARD cml_status cml_flat_restore(cml_mapping *mapping, uint64_t offset, uint64_t size,
                                                  const cml_flat_options *options, cml_tree **out, cml_error *err);

typedef struct cml_flatten_options {
  uint64_t alignment;      /* a power of two; 0: ExecuTorch's rule, 1 for a blob of up to 1 GiB, above that the page size */
  const char *root_name;   /* NULL: the folder's own */
  cml_write_options write; /* progress */
} cml_flatten_options;

/* Flattens a folder. Equal folders give equal bytes. Memory grows with the number of nodes, not with their contents.
 * CML_ARGUMENT for a file, an alignment that is no power of two, or a root name that a tree refuses; CML_IO when a file
 * changes its size meanwhile. options may be NULL.
 * To a file, which appears when it is whole and replaces an existing one then; */
CML_API CML_NODISCARD cml_status cml_flatten_to_path(const cml_node *folder, const char *path, const cml_flatten_options *options,
                                                     cml_error *err);
/* to a descriptor, from its present position (a pipe, or a regular file, which gets the folder's holes); */
CML_API CML_NODISCARD cml_status cml_flatten_to_fd(const cml_node *folder, int fd, const cml_flatten_options *options,
                                                   cml_error *err);
/* to a sink, in the order of the blob's bytes. */
CML_API CML_NODISCARD cml_status cml_flatten_to_sink(const cml_node *folder, cml_sink sink, const cml_flatten_options *options,
                                                     cml_error *err);
/* How many bytes that would be. */
CML_API CML_NODISCARD cml_status cml_flatten_size(const cml_node *folder, const cml_flatten_options *options, uint64_t *out,
                                                  cml_error *err);

#endif
