/* ExecuTorch's virtual machine: runs the methods of a .pte.
 *
 * A program is one parsed file, shared by the methods that are loaded over it. A loaded method has its memory plan's arenas,
 * its values, its delegates and its state, and serves one caller at a time; several methods, of one name or of different
 * ones, may run at once from several threads. Loading finds a kernel for every operator and a backend for every delegate
 * and names all that are missing in one error; running allocates only what no plan foresees.
 *
 * Where the program lies (its plan, indices, shapes, types), loading refuses it or running stops at the instruction with an
 * error that names it: "method 'forward', instruction 12 (aten::add.out): …". */
#ifndef CML_ET_PROGRAM_H
#define CML_ET_PROGRAM_H

#include "container.h"
#include "et_op.h"
#include "mapping.h"
#include "ptd.h"

typedef struct cml_et_program cml_et_program;
typedef struct cml_et_method cml_et_method;

/* ---- backends ---- */

/* What a delegate is made of; valid during init alone, except what lies in the program. */
typedef struct cml_et_delegate_info {
  cml_et_program *program;
  const char *method;
  size_t index;                      /* in the method's delegates */
  const cml_pte_delegate *delegate;  /* its bytes (delegate->data) and compile specs, in the program */
} cml_et_delegate_info;

/* A backend: one table of functions (examples/own_backend.c is a whole one). init is called once for each delegate when its method
 * is loaded, destroy when it is unloaded. execute gets the call's values, inputs then outputs, as the program passes them (any
 * kind, any number: check them); outputs are resized with cml_et_resize through `call`, which also gives temporaries and
 * the thread pool; call->args and call->arg_count are the values. */
typedef struct cml_et_backend {
  const char *id; /* "CoreMLBackend" */
  cml_status (*init)(void *context, const cml_et_delegate_info *info, void **out_handle, cml_error *err);
  cml_status (*execute)(void *handle, cml_et_call *call, cml_error *err);
  void (*destroy)(void *handle); /* of what init gave; may be NULL */
  void *context;                 /* for init */
} cml_et_backend;

/* Makes a backend known to all programs opened later; the table is copied, its strings are not. One of the same id takes the
 * place of the one before (also of the built-in CoreMLBackend). CML_LIMIT beyond 32. Thread-safe. */
CML_API CML_NODISCARD cml_status cml_et_backend_register(const cml_et_backend *backend, cml_error *err);

/* ---- programs ---- */

typedef struct cml_et_options {
  uint64_t threads;            /* 0: one per available core */
  const char *passes;          /* graph passes of Core ML delegates; NULL: all */
  bool skip_delegates;         /* run around delegates: their outputs are given with cml_et_method_set_skipped */
  uint64_t memory_limit;       /* bytes that one method may take beside the file, and each function of a Core ML delegate with
                                * its sessions; 0: what the machine or the container has */
  uint64_t instruction_limit;  /* of one run, against loops that never end; 0: a billion */
} cml_et_options;

/* Opens a .pte or the program within a .bpte. data_path: a .ptd, or NULL. options may be NULL. */
CML_API CML_NODISCARD cml_status cml_et_program_open(const char *path, const char *data_path, const cml_et_options *options,
                                                     cml_et_program **out, cml_error *err);
/* The same over bytes of a mapping (all of it, or the program within), and of another for the .ptd (or NULL); both are
 * referenced. */
CML_API CML_NODISCARD cml_status cml_et_program_create(cml_mapping *mapping, cml_mapping *data, const cml_et_options *options,
                                                       cml_et_program **out, cml_error *err);
/* The same over the files that an open container found, in an archive say, whose mappings are referenced. A data_path takes the
 * place of a .ptd that came with the program; it may be NULL. CML_UNSUPPORTED when the container is no program. */
CML_API CML_NODISCARD cml_status cml_et_program_from_container(const cml_container *container, const char *data_path,
                                                               const cml_et_options *options, cml_et_program **out, cml_error *err);
/* One more .ptd, before methods are loaded: exporters may spread a program's tensors over several. */
CML_API CML_NODISCARD cml_status cml_et_program_add_data(cml_et_program *program, const char *path, cml_error *err);
/* Methods must be unloaded before. NULL is accepted. */
CML_API void cml_et_program_close(cml_et_program *program);
CML_API const cml_pte *cml_et_program_pte(const cml_et_program *program);
/* The test sets when the file is a .bpte, else NULL. */
struct cml_bpte;
CML_API const struct cml_bpte *cml_et_program_bpte(const cml_et_program *program);
/* The mapping that holds the program. */
CML_API cml_mapping *cml_et_program_mapping(const cml_et_program *program);
CML_API const cml_et_options *cml_et_program_options(const cml_et_program *program);

/* ---- methods ---- */

/* name NULL: the program's only method, or "forward". CML_NOT_FOUND with the names that there are; CML_UNSUPPORTED with
 * every operator and backend that is missing; CML_INVALID for what the program says wrongly. */
CML_API CML_NODISCARD cml_status cml_et_method_load(cml_et_program *program, const char *name, cml_et_method **out, cml_error *err);
/* The same, sharing mutable buffers with another loaded method of the program (or NULL): arenas of the memory plan behind the
 * first, where both methods' are equally large, as exporters lay out buffers that methods share (share_mutable_buffers). Loading
 * writes the buffers' initial values: load all, then run. Methods that share serve one caller together; any of them may be
 * unloaded first. A Core ML delegate's state is its own, and not shared. */
CML_API CML_NODISCARD cml_status cml_et_method_load_beside(cml_et_program *program, const char *name, const cml_et_method *beside,
                                                           cml_et_method **out, cml_error *err);
CML_API void cml_et_method_unload(cml_et_method *method); /* NULL is accepted */
CML_API const cml_pte_method *cml_et_method_of(const cml_et_method *method);

/* Compile specs of the method's Core ML delegates of which running takes no notice (cml_pte_coreml_ignores); other backends judge
 * their own. They lie in the program. */
typedef struct cml_et_ignored {
  size_t delegate; /* in the method's delegates */
  cml_string key, value;
  const char *why;
} cml_et_ignored;
/* The i-th one; false when there are no more. */
CML_API bool cml_et_method_ignored(const cml_et_method *method, size_t i, cml_et_ignored *out);

CML_API size_t cml_et_method_input_count(const cml_et_method *method);
CML_API size_t cml_et_method_output_count(const cml_et_method *method);
/* Complex tensors come and go as real ones with a last dimension of 2, as torch.view_as_real gives them. */
/* Input i: its kind, type and present sizes (the upper bound at first). */
CML_API const cml_et_value *cml_et_method_input(const cml_et_method *method, size_t i);
/* Output i: of the last run, valid until the next one. */
CML_API const cml_et_value *cml_et_method_output(const cml_et_method *method, size_t i);

/* Sets a tensor input from a contiguous tensor, which is copied: converted to the input's type; the shape must be the
 * declared one, or within bounds where it is dynamic. CML_MISMATCH says what the input takes. Kept for later runs, unless the
 * memory plan uses its place for something else: then the next run asks for it again (CML_ARGUMENT). */
CML_API CML_NODISCARD cml_status cml_et_method_set_tensor(cml_et_method *method, size_t i, const cml_tensor *value, cml_error *err);
/* Sets an Int, Bool or Double input. */
CML_API CML_NODISCARD cml_status cml_et_method_set_number(cml_et_method *method, size_t i, cml_et_number value, cml_error *err);

/* With skip_delegates: what the K-th delegate call's instruction computes, by output number J (in the order of the call's
 * arguments): "delegate_K/output_J". Converted to the output's type; CML_NOT_FOUND when there is no such output, CML_MISMATCH when it
 * has another shape. Copied, kept for later runs. */
CML_API CML_NODISCARD cml_status cml_et_method_set_skipped(cml_et_method *method, const char *name, const cml_tensor *value, cml_error *err);

/* Runs the method's chain. Inputs that were never set are zeros, which is refused: CML_ARGUMENT. */
CML_API CML_NODISCARD cml_status cml_et_method_run(cml_et_method *method, cml_error *err);

/* Stops the run in progress, which then fails with CML_CANCELLED before its next instruction (in a Core ML delegate: its next
 * operation or round of a loop); when there is none, the next one. From any thread or signal handler. */
CML_API void cml_et_method_cancel(cml_et_method *method);

/* A value as a tensor of the runtime: contiguous tensors in place, others copied to memory that lives until the next
 * call of this function, run or unload. */
CML_API CML_NODISCARD cml_status cml_et_method_export(cml_et_method *method, const cml_et_value *value, cml_tensor *out, cml_error *err);

/* ---- watching ---- */

/* One instruction that was run, or (op_type not NULL) one operation within a delegate. */
typedef struct cml_et_event {
  size_t chain, instruction;
  cml_pte_opcode opcode;
  const char *name;       /* "aten::add.out", the delegate's id, or the operation's name in the delegate */
  const char *op_type;    /* of an operation within a delegate: its MIL operator; else NULL */
  const char *delegate;   /* the delegate's id, within delegates and for their calls; else NULL */
  uint64_t begin_ns, end_ns; /* CLOCK_MONOTONIC */
  const cml_et_value *const *args; /* of the instruction: its values; outputs last */
  size_t arg_count;
  uint64_t out_mask;      /* bit i: argument i was written (first 64); of a delegate: what nothing wrote before it */
  const cml_tensor *const *outputs; /* of an operation within a delegate */
  size_t output_count;
  /* Where the delegate keeps debug information, else NULL: the name of the operation there ("OUTPUT:OPERATOR"), and "7" or "7, 8", the
   * exported program's nodes that it comes from. */
  const char *debug_symbol, *debug_handles;
} cml_et_event;

typedef void cml_et_observe(void *context, const cml_et_event *event);
/* NULL switches it off. Operations within Core ML delegates are told before the call's own event. */
CML_API void cml_et_method_observe(cml_et_method *method, cml_et_observe *observe, void *context);

/* ---- memory ---- */

/* Bytes of the plan's arenas, and of everything else that was allocated for the method so far (delegates aside). */
CML_API void cml_et_method_memory(const cml_et_method *method, uint64_t *planned, uint64_t *other);

#endif
