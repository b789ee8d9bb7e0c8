/* Opens any file or folder that cml knows, by content, and shows it as one tree: the same for listing, printing,
 * extracting and mounting. The models within can be found for running. */
#ifndef CML_CONTAINER_H
#define CML_CONTAINER_H

#include "model_view.h"

typedef enum cml_container_kind {
  CML_CONTAINER_PTE,       /* ExecuTorch program */
  CML_CONTAINER_BPTE,      /* bundled program */
  CML_CONTAINER_PTD,       /* external tensors */
  CML_CONTAINER_MLPACKAGE, /* folder */
  CML_CONTAINER_MLMODEL,   /* protobuf file */
  CML_CONTAINER_MLMODELC,  /* compiled folder */
  CML_CONTAINER_FLAT,      /* flat blob of a tree */
  CML_CONTAINER_FOLDER,    /* any other folder */
} cml_container_kind;

typedef struct cml_container cml_container;

typedef struct cml_container_options {
  const char *data_path;         /* an external .ptd for a .pte, or NULL */
  uint64_t max_archive_bytes;    /* unpacked; 0: 16 GiB */
  uint64_t max_archive_entries;  /* 0: one million */
  cml_model_decompress *decompress; /* for NAME.view/dense/ (cml_decompress of decompress.h), or NULL: then there is none */
  bool only_exact;               /* leave out NAME.view/: for those who want the models, not the tree */
} cml_container_options;

/* A Core ML model in the container. */
typedef struct cml_container_model {
  const char *method;    /* of a .pte: the method whose delegate it is; else "" */
  const char *function;  /* function to run (CMJR's functionName), or "" for the default */
  size_t delegate;       /* of a .pte: index in the method's delegates */
  cml_tree *tree;        /* the restored tree, held by the container */
  const cml_node *folder;/* holds metadata.json, for a delegate; NULL else */
  const cml_node *root;  /* what cml_model_read takes */
  const char **input_names, **output_names; /* of a delegate: features in the order of its arguments; NULL when not known */
  size_t input_count, output_count;
} cml_container_model;

/* options may be NULL. Opening costs what the structure costs, whatever the weights weigh. */
CML_API CML_NODISCARD cml_status cml_container_open(const char *path, const cml_container_options *options,
                                                    cml_container **out, cml_error *err);
CML_API void cml_container_close(cml_container *container); /* NULL is accepted; the view stays valid while referenced */

CML_API cml_container_kind cml_container_kind_of(const cml_container *container);
CML_API const char *cml_container_kind_name(cml_container_kind kind); /* "ExecuTorch program", … */
CML_API cml_tree *cml_container_view(const cml_container *container); /* held by the container; ref to keep */
CML_API size_t cml_container_model_count(const cml_container *container);
CML_API const cml_container_model *cml_container_model_at(const cml_container *container, size_t i);
/* The parsed .pte (for BPTE the nested one), or NULL for other kinds; see pte.h. */
struct cml_pte;
CML_API const struct cml_pte *cml_container_pte(const cml_container *container);
/* A .ptd that was opened, or that came with a .pte (options.data_path, or beside it in a folder or archive); or NULL. */
struct cml_ptd;
CML_API const struct cml_ptd *cml_container_ptd(const cml_container *container);
/* The bytes of the .pte or .bpte file (which may lie in an archive), and of the .ptd that came with it, in the mappings that
 * hold them; no mapping for other kinds, or when there is none. Valid as long as the container, or a reference to the mapping. */
typedef struct cml_container_file {
  cml_mapping *mapping;
  cml_span bytes;
} cml_container_file;
CML_API cml_container_file cml_container_program_file(const cml_container *container);
CML_API cml_container_file cml_container_data_file(const cml_container *container);

#endif
