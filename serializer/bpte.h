/* ExecuTorch's bundled programs (.bpte): a program with inputs for its methods and the outputs that they must give.
 *
 * The file is one FlatBuffer ("BP08"); the program is a vector of bytes in it, to be parsed by cml_pte_parse. Test values
 * are checked by cml_bpte_parse (each tensor has exactly the bytes that its type and sizes ask for); whether they suit the
 * program's methods is for the one who runs them to see. */
#ifndef CML_BPTE_H
#define CML_BPTE_H

#include "pte.h"

/* Values are of kind TENSOR (scalar, sizes, dim_order, derived fields, data), INTEGER, BOOLEAN or REAL. */
typedef struct cml_bpte_case {
  uint32_t input_count, output_count;
  cml_pte_value *inputs, *outputs; /* outputs: expected */
} cml_bpte_case;

typedef struct cml_bpte_suite {
  cml_string method;
  uint32_t count;
  cml_bpte_case *cases;
} cml_bpte_suite;

typedef struct cml_bpte {
  cml_span file; /* derived */
  uint32_t version, suite_count;
  cml_bpte_suite *suites;
  cml_span program; /* a .pte; offsets in its errors count from its first byte */
  cml_arena arena;
} cml_bpte;

/* `file` must outlive the result. Errors as cml_pte_parse. */
CML_API CML_NODISCARD cml_status cml_bpte_parse(cml_span file, cml_bpte **out, cml_error *err);
CML_API void cml_bpte_destroy(cml_bpte *bpte); /* NULL is accepted */
/* CML_ARGUMENT for values of other kinds; CML_LIMIT beyond 2 GiB. */
CML_API CML_NODISCARD cml_status cml_bpte_serialize(const cml_bpte *bpte, cml_sink sink, cml_error *err);

#endif
