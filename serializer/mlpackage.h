/* The manifest of a Core ML package (.mlpackage): Manifest.json {fileFormatVersion, itemInfoEntries {identifier: {author,
 * name, description, path}}, rootModelIdentifier}. A path counts from the package's Data/ and must stay inside it. */
#ifndef CML_MLPACKAGE_H
#define CML_MLPACKAGE_H

#include "tree.h"

typedef struct cml_manifest_item {
  const char *identifier, *path;
  const char *author, *name, *description; /* "" when absent */
} cml_manifest_item;

typedef struct cml_manifest {
  const char *version;    /* "1.0.0" */
  cml_manifest_item *items; /* in the order of identifiers */
  size_t count;
  const cml_manifest_item *root_model;
} cml_manifest;

/* Everything lives in the arena. CML_INVALID says which entry is wrong; CML_UNSUPPORTED: another major version. */
CML_API CML_NODISCARD cml_status cml_manifest_parse(cml_span text, cml_arena *arena, cml_manifest *out, cml_error *err);
/* The node of an item in the package `root`, or NULL when it is missing. */
CML_API const cml_node *cml_manifest_node(const cml_node *root, const cml_manifest_item *item);
/* What a folder is, by what it holds: a package, or a compiled model (.mlmodelc). False for a file. */
CML_API bool cml_mlpackage_is(const cml_node *node);
CML_API bool cml_mlmodelc_is(const cml_node *node);
/* The package's model file; reads its manifest. */
CML_API CML_NODISCARD cml_status cml_mlpackage_model(const cml_node *root, const cml_node **out, cml_error *err);

#endif
