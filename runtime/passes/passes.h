/* Graph passes: they rewrite the executable graph between building and preparing, so that fewer and larger operations run.
 *
 * Each pass is one function over the body of the graph; it may change a step's operator and arguments, drop steps whose results
 * are no longer used, and insert steps. It never changes what the program computes but for the roundings between joined
 * operations. Internal operators (cml_…) come from the families like all others. */
#ifndef CML_PASSES_H
#define CML_PASSES_H

#include "exec_graph.h"
#include "kernels.h"

typedef struct cml_pass {
  const char *name, *what;
  cml_status (*run)(cml_graph *g, cml_error *err);
} cml_pass;

/* In the order in which they run; NULL after the last. */
const cml_pass *cml_pass_at(size_t i);
/* list: NULL all, "" none, "a,b" only these, "-a" all but a. CML_ARGUMENT names a pass that there is not. After each pass that
 * ran, `after` is called if it is not NULL. */
CML_NODISCARD cml_status cml_passes_run(cml_graph *g, const char *list, void (*after)(void *context, const cml_graph *g, const cml_pass *pass),
                                        void *context, cml_error *err);

/* ---- for passes ---- */

enum { CML_NO_VALUE = UINT32_MAX };

/* Who uses a value: `count` uses in all, `step` the body's last step that does (an index), blocks and outputs count as well. */
typedef struct cml_use {
  uint32_t count, step;
} cml_use;
cml_use *cml_pass_uses(const cml_graph *g); /* by value, malloc'ed; NULL when memory is out */

/* Tries `fuse` at each step of the body that is still there, in order, with the uses as they were before the first. */
CML_NODISCARD cml_status cml_pass_each(cml_graph *g, cml_status (*fuse)(cml_graph *g, const cml_use *uses, size_t step, cml_error *err),
                                       cml_error *err);

/* The step of the body that alone uses the value, once; NULL when there are several or none, or an output is made of it. */
cml_step *cml_pass_only_user(cml_graph *g, const cml_use *uses, uint32_t value);

/* The body's step before number `before` that makes the value and nothing else; NULL when there is none. */
cml_step *cml_pass_maker(cml_graph *g, size_t before, uint32_t value);

uint32_t cml_pass_value(cml_graph *g, const char *name, const cml_tensor *type, cml_value_role role); /* CML_NO_VALUE: no memory */
uint32_t cml_pass_int(cml_graph *g, int64_t value);
uint32_t cml_pass_ints(cml_graph *g, const int64_t *values, int64_t count);
uint32_t cml_pass_float(cml_graph *g, float value);
uint32_t cml_pass_word(cml_graph *g, const char *word); /* which stays: a literal */
/* The (first) argument of a parameter by name; CML_NO_VALUE when absent. */
uint32_t cml_pass_arg(const cml_step *s, const char *param);
bool cml_pass_is(const cml_step *s, const char *type);
/* Whether an argument is absent or the constant word. */
bool cml_pass_is_word(const cml_graph *g, const cml_step *s, const char *param, const char *word);
/* Whether the step is an activation of its x in one step, by constants: what the kernels know. */
bool cml_pass_activation(const cml_graph *g, const cml_step *s, cml_unary *f, float *a, float *b);
/* Makes s a step of another operator: named arguments, one value each; outputs and name stay. */
typedef struct cml_binding {
  const char *param;
  uint32_t value; /* CML_NO_VALUE: left out */
} cml_binding;
CML_NODISCARD cml_status cml_pass_become(cml_graph *g, cml_step *s, const char *type, const cml_binding *bindings, size_t count, cml_error *err);
/* A new step that makes `out` and is named after it; whoever called puts it into the body. */
CML_NODISCARD cml_status cml_pass_new_step(cml_graph *g, const char *type, const cml_binding *bindings, size_t count, uint32_t out, cml_step *step,
                                           cml_error *err);
/* Steps that go into the body when a pass is through with it: until then the body's steps keep their numbers. Begins as zeros. */
typedef struct cml_additions {
  struct cml_addition *list;
  size_t count, room;
} cml_additions;
/* A new step that makes `out`, to stand before the body's step number `at`, none smaller than before; all bindings have values: CML_NO_VALUE, memory
 * was out. */
CML_NODISCARD cml_status cml_pass_add(cml_graph *g, cml_additions *a, size_t at, const char *type, const cml_binding *bindings, size_t count, uint32_t out,
                                      cml_error *err);
/* Puts them in, unless `status` says that the pass failed, which is returned then, and frees the list. */
CML_NODISCARD cml_status cml_pass_put_in(cml_graph *g, cml_additions *a, cml_status status, cml_error *err);
/* With the arguments of `like`, which may be s itself and takes no lists of values; `others`, each a parameter of it, instead of its own. */
CML_NODISCARD cml_status cml_pass_become_like(cml_graph *g, cml_step *s, const char *type, const cml_step *like, const cml_binding *others, size_t count,
                                              cml_error *err);
/* Takes dropped steps (op NULL) out of the body. */
void cml_pass_compact(cml_graph *g);
static inline const cml_tensor *cml_pass_type(const cml_graph *g, uint32_t value) { return &g->values[value].type; }
/* The constant that is the value of the named parameter; NULL when it is absent or none. */
const cml_tensor *cml_pass_constant(const cml_graph *g, const cml_step *s, const char *param);
/* Its first element; `otherwise` when there is none. */
double cml_pass_number(const cml_graph *g, const cml_step *s, const char *param, double otherwise);

cml_status cml_pass_casts(cml_graph *g, cml_error *err);
cml_status cml_pass_chains(cml_graph *g, cml_error *err);
cml_status cml_pass_epilogues(cml_graph *g, cml_error *err);
cml_status cml_pass_attention(cml_graph *g, cml_error *err);
cml_status cml_pass_attention_views(cml_graph *g, cml_error *err);
cml_status cml_pass_dead_code(cml_graph *g, cml_error *err); /* for other passes too: drops pure steps whose results nobody uses */
cml_status cml_pass_group_norm(cml_graph *g, cml_error *err);
cml_status cml_pass_groups(cml_graph *g, cml_error *err);
cml_status cml_pass_layer_norm(cml_graph *g, cml_error *err);
cml_status cml_pass_pairs(cml_graph *g, cml_error *err);
cml_status cml_pass_pads(cml_graph *g, cml_error *err);
cml_status cml_pass_recurrent(cml_graph *g, cml_error *err);
cml_status cml_pass_integers(cml_graph *g, cml_error *err);
cml_status cml_pass_joins(cml_graph *g, cml_error *err);
cml_status cml_pass_layout(cml_graph *g, cml_error *err);
cml_status cml_pass_scales(cml_graph *g, cml_error *err);
cml_status cml_pass_sums(cml_graph *g, cml_error *err);
cml_status cml_pass_transposed(cml_graph *g, cml_error *err);

#endif
