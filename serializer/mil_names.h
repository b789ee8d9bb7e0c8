/* Who defines a name: a function's values by name, for everything that follows edges through a program. */
#ifndef CML_MIL_NAMES_H
#define CML_MIL_NAMES_H

#include "mil.h"

typedef struct cml_mil_definition {
  const char *name;
  const cml_mil_type *type;
  const cml_mil_op *op;       /* NULL for an input of the function or of a nested block */
  const cml_mil_value *value; /* of a const */
} cml_mil_definition;

typedef struct cml_mil_names {
  cml_mil_definition *slots; /* open addressing; in the arena that was given */
  size_t capacity, count;
} cml_mil_names;

/* All values of one body (nested blocks too) and the function's inputs. A name that is defined twice means its last. */
CML_API CML_NODISCARD cml_status cml_mil_names_build(cml_mil_names *names, cml_arena *arena, const cml_mil_function *function,
                                                     const cml_mil_block *body, cml_error *err);
CML_API const cml_mil_definition *cml_mil_names_find(const cml_mil_names *names, const char *name); /* NULL when undefined */
/* The type or the constant of an operation's parameter (its first binding); NULL when absent, or when no constant. */
CML_API const cml_mil_type *cml_mil_argument_type(const cml_mil_names *names, const cml_mil_op *op, const char *parameter);
CML_API const cml_mil_value *cml_mil_argument_constant(const cml_mil_names *names, const cml_mil_op *op, const char *parameter);
/* The value of a const operation, or NULL for other operations. */
CML_API const cml_mil_value *cml_mil_const_value(const cml_mil_op *op);

#endif
