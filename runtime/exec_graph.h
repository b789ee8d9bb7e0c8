/* The executable program: values by index, steps in order. Internal to runtime/.
 *
 * Building it from the MIL program resolves names, binds arguments to the parameters of each operator's row, checks types and
 * infers shapes. What then depends on constants alone is computed at once. */
#ifndef CML_EXEC_GRAPH_H
#define CML_EXEC_GRAPH_H

#include <pthread.h>
#include <stdatomic.h>

#include "executable.h"
#include "runner.h"

typedef enum cml_value_role { CML_ROLE_COMPUTED, CML_ROLE_CONSTANT, CML_ROLE_INPUT, CML_ROLE_STATE } cml_value_role;

typedef struct cml_graph_value {
  const char *name;
  cml_tensor type;       /* as inferred at load (dims may be -1); a constant's has data */
  cml_value_role role;
  uint32_t depth;        /* of the block that defines it; 0 for the function's body */
  const struct cml_step *deferred; /* a compressed constant without data: what would make it; else NULL */
} cml_graph_value;

typedef struct cml_step cml_step;

typedef struct cml_graph_block {
  uint32_t *inputs, *outputs; /* values */
  size_t input_count, output_count;
  cml_step *steps;
  size_t step_count;
} cml_graph_block;

struct cml_step {
  const cml_op *op;
  const char *name;
  uint32_t index;        /* unique in the graph, in program order */
  uint32_t *args, *outs; /* values */
  uint16_t *first;       /* param_count + 1 */
  size_t arg_count, out_count;
  bool *arg_constant;
  cml_tensor *declared;
  cml_graph_block **blocks;
  size_t block_count;
  void *prepared;
  bool folded;           /* its outputs are constants now */
};

enum { CML_PLAN_PARTS = 1, CML_PLAN_STATES = 2, CML_PLAN_ORDER = 4 };

typedef struct cml_graph {
  cml_arena arena;
  const cml_mil_function *function;
  int opset;
  cml_graph_value *values;
  size_t value_count, value_capacity;
  cml_graph_block body;
  uint32_t step_total;   /* of all blocks */
  size_t max_args, max_outs;
  cml_slot **folded;     /* memory of computed constants */
  size_t folded_count, folded_capacity;
  struct cml_kept *kept;
  struct cml_pack_cache *cache; /* the executable's; NULL: none */
  cml_account *account;  /* of the executable and its sessions */
  cml_pool *pool;        /* the executable's: scratch depends on its threads */
  unsigned plan_with;    /* CML_PLAN_…: what passes let the planner do */
  bool shapes_only;      /* it will not run: large compressed weights stay so */
} cml_graph;

/* Resolves, checks, infers and folds. `shapes`, by position of the function's inputs, fix those that the function leaves open; NULL: none.
 * Errors name the operation; operators that are missing are all named in one error. */
cml_status cml_exec_build(cml_graph *graph, const cml_mil_function *function, const cml_tensor *shapes, cml_error *err);
/* Keeps float16 states of float32 programs in float32 (exec_widen.c). */
void cml_exec_widen_states(cml_graph *graph);
/* Gives a tensor of known shape memory of the graph's own, contents undefined, for a constant that a pass makes. */
cml_status cml_graph_constant(cml_graph *graph, cml_tensor *t, cml_error *err);
/* A deferred value's data is made: it is a constant as any other then. */
CML_NODISCARD cml_status cml_graph_expand(cml_graph *graph, uint32_t value, cml_error *err);
/* Calls each step's prepare. */
cml_status cml_exec_prepare(cml_graph *graph, cml_pool *pool, cml_error *err);
void cml_exec_free(cml_graph *graph);

/* The tensor type of a MIL type: a state's wrapped type, a list as dtype NONE, rank unknown for a variadic shape. */
void cml_tensor_from_type(const cml_mil_type *type, cml_tensor *out);
/* "[1, 3, ?] fp16" for messages. */
void cml_tensor_describe(const cml_tensor *t, char *out, size_t room);
/* True when a step's results follow from what is known of its arguments (values, or for `shape` the shape). */
bool cml_step_foldable(const cml_step *step, const cml_tensor *const *args);

/* How the values of one set of input shapes lie in memory. */
typedef struct cml_plan {
  cml_tensor *types;       /* by value; data for constants and for what was computed while planning */
  uint32_t *order;         /* by position: the step of the body that runs then */
  uint64_t *offsets;       /* by value: in the arena, or CML_NO_OFFSET for constants, inputs, states and slots' own memory */
  uint32_t *state;         /* by value: the state in whose memory it is, or UINT32_MAX */
  uint32_t *last;          /* by computed value: the last position that uses it, its own where none does, beyond all for the body's outputs */
  uint64_t *scratch;       /* by step: in the arena, or CML_NO_OFFSET for none */
  uint64_t *scratch_bytes; /* by step */
  bool *dynamic;           /* by step: infer again right before run, outputs in memory of their slots */
  bool *skip;              /* by step: computed while planning, or a view */
  uint64_t arena_size, live_peak; /* values and scratch */
  cml_arena arena;
  cml_slot **computed;
  size_t computed_count, computed_capacity;
} cml_plan;

/* input_types: by position of the function's inputs; NULL: the graph's own. */
cml_status cml_plan_create(const cml_graph *graph, const cml_tensor *input_types, cml_plan **out, cml_error *err);
void cml_plan_destroy(cml_plan *plan);

/* Runs one step's operator on known arguments into new memory; for folding. */
cml_status cml_step_evaluate(const cml_graph *graph, const cml_step *step, const cml_tensor **args, cml_slot **slots,
                             cml_error *err);

/* A function's graph for one set of input shapes (exec_variants.c), or for all. */
typedef struct cml_variant {
  struct cml_variant *next;
  cml_tensor *shapes;      /* by position of the function's inputs; NULL: any */
  cml_graph graph;
  cml_plan *plan;          /* for these shapes; of the one for any for the default shapes, if it has one */
  uint32_t *output_values; /* by feature */
  atomic_bool ready;       /* prepared: it may run. One for certain shapes which is not could not be */
} cml_variant;

struct cml_executable {
  atomic_uint_least32_t references;
  cml_model *model;
  cml_variant general;               /* for any shapes */
  _Atomic(cml_variant *) variants;   /* for certain shapes, the newest first: added to, never taken from */
  atomic_size_t variant_count;
  _Atomic(const cml_variant *) preferred; /* that of the default shapes, or those of the first run; or the general one */
  cml_error failure;                 /* of preparing the general graph */
  pthread_mutex_t preparing;         /* variants, and the general graph when it is not ready at load */
  bool flexible;
  char *passes;                      /* as in cml_prepare_options */
  cml_pool *pool;
  struct cml_pack_cache *cache;      /* NULL: none */
  cml_account account;
  cml_features inputs, outputs, states;
  uint32_t *input_values, *state_values; /* by feature; the same in all variants */
  const cml_graph_value *given;      /* the function's inputs, by position, as it was built: the graphs may change while others run */
  cml_arena arena;
};

#endif
