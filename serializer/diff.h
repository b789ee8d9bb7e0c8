/* How two trees or models differ, for people and for programs. */
#ifndef CML_DIFF_H
#define CML_DIFF_H

#include "model_view.h"

typedef enum cml_diff_section {
  CML_DIFF_FILES,       /* the tree of exact files */
  CML_DIFF_DESCRIPTION, /* features, metadata, versions */
  CML_DIFF_PROGRAM,     /* functions, operations, small constants */
  CML_DIFF_WEIGHTS,     /* constants of weight files and other floating-point tensors */
} cml_diff_section;

typedef struct cml_diff_entry {
  cml_diff_section section;
  char change;       /* '-' only in the first, '+' only in the second, '~' in both, but different */
  const char *where; /* a path, a feature, or FUNCTION/OPERATION */
  const char *what;  /* in words */
  bool measured;     /* of a weight: the two numbers are there */
  double max_difference;
  double snr;        /* 10 log10(sum a^2 / sum (a - b)^2), in dB */
} cml_diff_entry;

typedef struct cml_diff {
  cml_diff_entry *entries; /* by section, in the order of the files and programs; empty: no difference */
  size_t count, capacity;
  cml_model_decompress *decompress; /* set by the caller (cml_decompress of decompress.h): compressed weights are measured too */
  cml_arena arena;
} cml_diff;

#define CML_DIFF_INIT {NULL, 0, 0, NULL, CML_ARENA_INIT}

/* Compares names, kinds and contents below two nodes; folders whose name ends in ".view" (generated) are left out. */
CML_API CML_NODISCARD cml_status cml_diff_trees(cml_diff *diff, const cml_node *a, const cml_node *b, cml_error *err);
/* Compares descriptions and programs. Operations are matched by the name of their first output, and where that fails by
 * their type between two matched ones (a renamed operation). A constant that one of them compresses is measured where it is
 * used. `where` stands before each place, "" or "forward/". */
CML_API CML_NODISCARD cml_status cml_diff_models(cml_diff *diff, const char *where, const cml_model *a, const cml_model *b, cml_error *err);
/* One more entry, for callers that compare more. */
CML_API CML_NODISCARD cml_status cml_diff_add(cml_diff *diff, cml_diff_section section, char change, const char *where, const char *what,
                                              cml_error *err);
CML_API CML_NODISCARD cml_status cml_diff_text(const cml_diff *diff, cml_buffer *out, cml_error *err);
CML_API CML_NODISCARD cml_status cml_diff_json(const cml_diff *diff, cml_buffer *out, cml_error *err);
CML_API void cml_diff_free(cml_diff *diff); /* empty and usable again */

/* The difference of two constants of equally many numbers; false when they are no numbers, not bound, or not equally many. */
CML_API bool cml_diff_measure(const cml_mil_value *a, const cml_mil_value *b, double *max_difference, double *snr);

#endif
