/* Recorded cases of single operators: arguments and the results that NumPy or torch gave for them.
 *
 * A file is a sequence of records, little-endian, text as u16 length and bytes:
 *   "CASE", operator, name, u8 opset, u8 expectation (0 results, 1 a refusal), f32 atol, f32 rtol,
 *   u8 argument count, each: parameter's name, tensor; u8 output count, each: tensor.
 * A tensor: element type as in .mil text, u8 rank, i32 dims, packed data (strings as text).
 * tests/runtime/make_op_cases.py writes them. */
#ifndef CML_OP_CASES_H
#define CML_OP_CASES_H

#include "arena.h"
#include "op.h"
#include "span.h"

enum { CASE_ARGS = 24, CASE_OUTPUTS = 8 };

typedef struct op_case {
  const char *op, *name;
  int opset;
  bool refused;
  float atol, rtol;
  size_t arg_count, output_count;
  const char *params[CASE_ARGS];
  cml_tensor args[CASE_ARGS], outputs[CASE_OUTPUTS];
} op_case;

/* The next record of the file; false at its end or when it is malformed (then the cursor has failed). */
bool op_case_next(cml_cursor *c, cml_arena *arena, op_case *out);
/* Runs the case alone, with known shapes; and infers it with unknown ones. NULL when all is as expected, else what is not. */
const char *op_case_check(const op_case *t, cml_arena *arena);

/* Changes arguments at random and runs the operator if infer lets it: for sanitizers. The case is spoilt. */
void op_case_attack(op_case *t, uint64_t *state);

#endif
