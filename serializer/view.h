/* What the view of a container is made of; internal to container.c and view_*.c. */
#ifndef CML_VIEW_H
#define CML_VIEW_H

#include "bpte.h"
#include "container.h"
#include "json_write.h"
#include "mil.h"
#include "ptd.h"

/* A run of bytes in a mapping. */
typedef struct cml_view_source {
  cml_mapping *mapping;
  uint64_t offset; /* of bytes in the mapping */
  cml_span bytes;
} cml_view_source;

/* Files of a program have names of their own in the view: as asked for, or escaped. */
typedef struct cml_view_delegate {
  const char *name;        /* "coreml_0", "xnnpack_0.bin"; below the method's folder */
  cml_pte_coreml coreml;   /* of Core ML delegates */
  bool is_coreml;
  cml_tree *tree;          /* the restored blob, or NULL; referenced by the view */
  const char *problem;     /* why it could not be restored, or NULL */
} cml_view_delegate;

typedef struct cml_view_method {
  const char *folder;
  cml_view_delegate *delegates;
} cml_view_method;

typedef struct cml_view_constant {
  const cml_pte_tensor *tensor; /* the first value that uses it, or NULL */
  const char *file;             /* below constants/, or NULL */
} cml_view_constant;

typedef struct cml_view_pte {
  cml_tree *view; /* not referenced: this lies in its arena */
  cml_view_source source;
  bool only_exact; /* no NAME.view/ */
  cml_model_decompress *decompress;
  cml_pte *pte;
  const cml_bpte *bpte;
  cml_view_method *methods;
  cml_view_constant *constants, *initials; /* initials: of the first mutable segment */
  uint32_t constant_count, initial_count;
  const char **named; /* file names below named_data/ */
} cml_view_pte;

typedef struct cml_view_ptd {
  cml_view_source source;
  cml_ptd *ptd;
  const char **names;
} cml_view_ptd;

/* ---- view_files.c ---- */

/* A slice of the source as one piece of a file. */
cml_piece cml_view_piece(const cml_view_source *source, cml_span bytes);
/* A file of just these bytes. */
cml_status cml_view_add_bytes(cml_tree *view, cml_node *folder, const char *name, const cml_view_source *source, cml_span bytes,
                              cml_error *err);
/* A tensor as STEM.npy, zero copy where its memory is row-major; as STEM.bin where NumPy has no such type. */
cml_status cml_view_add_tensor(cml_tree *view, cml_node *folder, const char *stem, const cml_view_source *source,
                               const cml_pte_tensor *tensor, const char **out_name, cml_error *err);
/* The decoded siblings of a folder or file that holds a model: metadata.json pretty-printed, weights/, the program. */
cml_status cml_view_add_decoded(cml_tree *view, cml_node *parent, const char *exact_name, cml_tree *tree, const cml_node *node,
                                cml_model_decompress *decompress, cml_error *err);
/* The one model in a folder: itself, or the one below it; NULL when there is none or more than one. */
const cml_node *cml_view_find_model(const cml_node *node);

/* ---- the rest ---- */

cml_status cml_view_build_pte(cml_view_pte *v, cml_error *err);               /* view_pte.c */
cml_status cml_view_build_ptd(cml_tree *view, cml_view_ptd *v, cml_error *err);
cml_node_generate cml_view_program_json; /* view_program.c; context: cml_view_pte */
cml_node_generate cml_view_data_json;    /* context: cml_view_ptd */
cml_node_generate cml_view_method_text;  /* view_method.c; context: cml_view_method_context */

typedef struct cml_view_method_context {
  const cml_view_pte *view;
  uint32_t method;
} cml_view_method_context;

/* Names in METHOD/ and elsewhere: escaped and unique. */
static inline cml_status cml_view_name(cml_tree *view, const cml_node *folder, cml_string name, const char **out, cml_error *err) {
  return cml_tree_escape_name(view, folder, name.data ? name.data : "", name.size, out, err);
}

#endif
