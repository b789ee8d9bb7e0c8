/* Load -> prepare -> run.
 *
 * An executable is one function of a model, checked by the operator table, folded, packed and planned; it is immutable and
 * shared. A session runs it: it holds the arena, the state and the inputs of one caller. Several sessions of one executable
 * run at once from several threads. */
#ifndef CML_EXECUTABLE_H
#define CML_EXECUTABLE_H

#include "buffer.h"
#include "mil.h"
#include "parallel.h"
#include "tensor.h"

typedef struct cml_executable cml_executable;
typedef struct cml_session cml_session;

typedef struct cml_prepare_options {
  const char *function;   /* NULL or "": the model's default */
  const char *passes;     /* NULL: all; "" none; else a comma-separated list ("-name" leaves one out of all) */
  size_t threads;         /* 0: one per available core */
  const char *cache;      /* NULL: none; else a folder, made when missing, that keeps packed weights for the next time. Files in it are
                             * trusted like the model: it must not be writable by those who are not. Nothing is ever removed from it. */
  uint64_t max_memory;    /* bytes that the executable and its sessions may take in all beside the model (packed weights, arenas,
                           * inputs, results, states); what asks for more fails with CML_LIMIT. 0: what the machine or the
                           * container has */
  bool at_first_run;      /* a program that leaves shapes open is prepared in the first run, for the shapes of that, and not here for
                             * the default ones */
} cml_prepare_options;

/* Refuses a program with everything that it lacks named at once. The model must outlive the executable. */
CML_API CML_NODISCARD cml_status cml_executable_prepare(cml_model *model, const cml_prepare_options *options, cml_executable **out,
                                                        cml_error *err);
CML_API cml_executable *cml_executable_ref(cml_executable *executable);
CML_API void cml_executable_unref(cml_executable *executable);

/* The function's features, by the model's description (or made from the program's types where it says nothing). */
CML_API const cml_features *cml_executable_inputs(const cml_executable *executable);
CML_API const cml_features *cml_executable_outputs(const cml_executable *executable);
CML_API const cml_features *cml_executable_states(const cml_executable *executable);
/* Output i's type in the program: at the inputs' default shapes; dims that only data decide are -1. */
CML_API const cml_tensor *cml_executable_output_type(const cml_executable *executable, size_t i);
CML_API const cml_model *cml_executable_model(const cml_executable *executable);
/* Bytes of the arena for the default shapes, of packed weights, and of the largest set of values alive at once. */
CML_API void cml_executable_memory(const cml_executable *executable, uint64_t *arena, uint64_t *packed, uint64_t *live);
/* A value of the default plan, or the scratch memory of a step: where it lies in the arena, and the first and last step that needs
 * it, in the order in which they run. */
typedef struct cml_planned_value {
  const char *name; /* the executable's: of the value, or of the operation whose scratch it is */
  bool scratch;
  uint64_t offset, bytes;
  size_t first, last;
} cml_planned_value;

/* How many there are, of which the first `room` are written. Views, parts and results in place have an entry of their own. */
CML_API size_t cml_executable_plan(const cml_executable *executable, cml_planned_value *out, size_t room);
/* Pieces of packed weights that were found in the cache, that were packed, and whether the cache's file was written. */
CML_API void cml_executable_cached(const cml_executable *executable, uint64_t *found, uint64_t *packed, bool *written);
/* The program as it runs, after the passes. */
CML_API const cml_mil_program *cml_executable_program(const cml_executable *executable);

/* Checks every function of the model by the operator table and writes the types that it infers into the program, at the inputs'
 * default shapes, and the shapes of outputs for which the description has none. For summaries: what was flexible is so no longer. */
CML_API CML_NODISCARD cml_status cml_model_infer_types(cml_model *model, cml_error *err);
/* Appends the program as it is built and after each pass of options->passes, one line an operation. options may be NULL. */
CML_API CML_NODISCARD cml_status cml_executable_print_passes(cml_model *model, const cml_prepare_options *options, cml_buffer *out,
                                                             cml_error *err);

CML_API CML_NODISCARD cml_status cml_session_create(cml_executable *executable, cml_session **out, cml_error *err);
CML_API void cml_session_destroy(cml_session *session);

/* Binds an input by its feature's name. Converted to the declared element type; shape checked against the feature (flexible
 * shapes included; the error says what is allowed). The data is copied. */
CML_API CML_NODISCARD cml_status cml_session_set_input(cml_session *session, const char *name, const cml_tensor *value, cml_error *err);
/* Runs with the inputs that were set; optional ones that were not take their default. Inputs are kept for the next run. */
CML_API CML_NODISCARD cml_status cml_session_run(cml_session *session, cml_error *err);
/* Stops the run in progress, which then fails with CML_CANCELLED before its next operation or round of a loop; when there is none,
 * the next one. From any thread or signal handler. */
CML_API void cml_session_cancel(cml_session *session);
/* Output i in the order of cml_executable_outputs; valid until the next run. */
CML_API const cml_tensor *cml_session_output(const cml_session *session, size_t i);
/* State i in the order of cml_executable_states, to read or to write; zeros at first. */
CML_API cml_tensor *cml_session_state(cml_session *session, size_t i);

/* Called after each operation of a run with its inputs (of which only types and shapes may be looked at) and outputs; for profiles and
 * traces. NULL switches it off. values: outputs may be read, row after row (costs a copy of those whose rows lie apart); else only where they lie. */
typedef void cml_observe(void *context, const char *op_type, const char *op_name, uint64_t begin_ns, uint64_t end_ns,
                         const cml_tensor *const *inputs, size_t input_count, const cml_tensor *const *outputs, size_t output_count);
CML_API void cml_session_observe(cml_session *session, cml_observe *observe, void *context, bool values);
/* The threads that run the executable's operations, to watch what each does (cml_pool_watch) while no session runs. */
CML_API cml_pool *cml_executable_pool(const cml_executable *executable);

#endif
