/* What a model is made of: operators by type with counts, parameters, weight bytes, multiply-adds by layer. */
#ifndef CML_SUMMARY_H
#define CML_SUMMARY_H

#include "mil_names.h"

/* An operation that is no constant, with the constants that feed it (through constexpr operations or directly). */
typedef struct cml_summary_layer {
  const cml_mil_op *op;
  unsigned depth;         /* of nested blocks */
  uint64_t parameters;    /* elements, as decompressed */
  uint64_t weight_bytes;  /* as stored */
  uint64_t macs;
  bool macs_known;
} cml_summary_layer;

typedef struct cml_summary_operator {
  const char *type;
  uint64_t count, parameters, weight_bytes, macs;
} cml_summary_operator;

typedef struct cml_summary {
  const cml_mil_function *function;
  cml_mil_names names;
  cml_summary_operator *operators; /* by type, all operations, most frequent first */
  size_t operator_count;
  cml_summary_layer *layers;       /* in the program's order */
  size_t layer_count;
  uint64_t operations, constants;  /* constants: const operations, counted in operations too */
  uint64_t parameters;             /* elements of floating-point and compressed constants that some operation uses */
  uint64_t weight_bytes;           /* of these as stored */
  uint64_t macs;                   /* of one pass: both branches of cond, one turn of while_loop */
  uint64_t macs_unknown;           /* layers whose shapes are not all known, not in macs */
} cml_summary;

/* Sums up one function (its body that runs); lives in the arena and points into the program. */
CML_API CML_NODISCARD cml_status cml_summary_of(const cml_mil_function *function, cml_arena *arena, cml_summary *out, cml_error *err);
/* The whole model, as lines for people or as JSON; appended to out. A model that is no ML Program has its description. */
CML_API CML_NODISCARD cml_status cml_summary_text(const cml_model *model, cml_buffer *out, cml_error *err);
CML_API CML_NODISCARD cml_status cml_summary_json(const cml_model *model, cml_buffer *out, cml_error *err);
/* "mlProgram", "neuralNetwork", … by the field number in Model's oneof; "model" for others. */
CML_API const char *cml_model_type_name(uint32_t type_number);

#endif
