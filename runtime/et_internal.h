/* The virtual machine's insides, shared by et_program.c (files, backends), et_method.c (loading), et_exec.c (running) and
 * et_coreml.c. Internal to runtime/. */
#ifndef CML_ET_INTERNAL_H
#define CML_ET_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "bpte.h"
#include "et_memory.h"
#include "et_program.h"
#include "executable.h"

typedef struct cml_et_coreml_model cml_et_coreml_model;

/* A .ptd. */
typedef struct cml_et_data {
  struct cml_et_data *next;
  cml_mapping *mapping;
  cml_ptd *ptd;
} cml_et_data;

struct cml_et_program {
  cml_mapping *mapping;
  cml_pte *pte;
  cml_bpte *bpte;
  cml_et_data *data; /* the last one given comes first */
  cml_et_options options;
  cml_pool *pool;
  pthread_mutex_t mutex;         /* for models */
  cml_et_coreml_model *models;   /* Core ML models loaded so far, each shared by the delegates that name it */
};

/* An instruction made ready to run. */
typedef struct cml_et_step {
  const cml_et_op *op;   /* of a kernel call */
  const char *name;
  cml_et_value **args;
  uint32_t arg_count;
  uint32_t ordinal;      /* of a delegate call: among the method's */
  void *memo;
  uint64_t out_mask;
} cml_et_step;

typedef struct cml_et_handle {
  const cml_et_backend *backend;
  void *handle;
} cml_et_handle;

/* An output of a skipped delegate call. */
typedef struct cml_et_skipped {
  uint32_t call, output, value;
  cml_et_tensor *tensor;
  bool given;
  cml_dtype type;        /* of what was given */
  void *data;            /* a copy of what was given: planned memory is reused by others */
  uint64_t bytes;
  int64_t sizes[CML_PTE_MAX_RANK];
} cml_et_skipped;

/* An input: never given, given, used by a run since, known to survive runs, overwritten by one. */
typedef enum cml_et_input { CML_ET_INPUT_UNSET, CML_ET_INPUT_SET, CML_ET_INPUT_USED, CML_ET_INPUT_KEPT, CML_ET_INPUT_LOST } cml_et_input;

struct cml_et_method {
  cml_et_program *program;
  const cml_pte_method *pte;
  cml_arena arena;
  char **arenas;         /* memory_count: aligned */
  struct cml_et_arena **shared; /* their owners */
  uint64_t planned;
  cml_et_value *values;
  cml_et_value none;
  cml_et_tensor **tensors; /* all that were made */
  uint32_t tensor_count;
  cml_et_step **steps;   /* by chain */
  cml_et_handle *handles;/* by delegate */
  uint8_t *input_set;    /* cml_et_input, by input */
  bool has_complex;      /* some tensor is of complex numbers */
  cml_et_skipped *skipped;
  size_t skipped_count;
  struct cml_et_memory memory;
  uint64_t random[4];
  cml_et_call call;
  cml_et_observe *observe;
  void *observe_context;
  void *exported;
  uint64_t exported_size;
  atomic_bool cancelled;       /* also what stops the sessions of Core ML delegates */
  const cml_et_event *current; /* the delegate call that runs, for events within it */
};

/* Words before an error: "method 'M', instruction N (NAME)". */
cml_status cml_et_at(const cml_et_method *m, size_t chain, size_t i, cml_status status, cml_error *err);

/* The backend of an id as registered, or NULL. */
const cml_et_backend *cml_et_backend_find(cml_string id);
extern const cml_et_backend cml_et_coreml_backend;
void cml_et_coreml_models_free(cml_et_coreml_model *models);
/* Binds a Core ML delegate to the method that is about to run it: its observer, and the flag that stops it. */
void cml_et_coreml_observe(void *handle, cml_et_method *method);

#endif
