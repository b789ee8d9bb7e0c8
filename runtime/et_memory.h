/* Memory of a loaded method beside its planned arenas: temporaries of one kernel call, what kernels keep, and the growing
 * data of tensors that no plan has. Internal to runtime/. */
#ifndef CML_ET_MEMORY_H
#define CML_ET_MEMORY_H

#include "et_op.h"

typedef struct cml_et_chunk cml_et_chunk; /* a block from malloc with a header */

struct cml_et_memory {
  char *temp;          /* kept between calls */
  uint64_t temp_size, temp_used, temp_wanted, temp_peak; /* wanted: by this call by now; peak: the most of it */
  cml_et_chunk *overflow; /* of this call: what temp had no room for */
  cml_et_chunk *kept;
  struct cml_et_retired *retired; /* data that views may still point to */
  uint64_t limit;      /* of everything here together; 0: none */
  uint64_t total;
  uint64_t planned;    /* what the arenas have: for messages */
  uint64_t tables;     /* what the loaded program takes: values, instructions */
  uint64_t refused;    /* by this call: bytes that the limit did not allow */
};

/* After a call: its temporaries are gone. */
void cml_et_memory_reset(struct cml_et_memory *m);
/* Frees t's own data, or keeps it until cml_et_memory_release where views may point to it. */
void cml_et_memory_drop(struct cml_et_memory *m, cml_et_tensor *t);
/* Frees what was dropped under views; the caller has unset the views. */
void cml_et_memory_release(struct cml_et_memory *m);
void cml_et_memory_free(struct cml_et_memory *m);
/* 64-byte aligned memory that counts against the limit, with some readable bytes behind it; NULL when there is none. */
void *cml_et_memory_get(struct cml_et_memory *m, uint64_t size);
void cml_et_memory_give(struct cml_et_memory *m, void *p, uint64_t size);
/* The status of a call: where it lacked memory because of the limit, CML_LIMIT with an error that says so. */
cml_status cml_et_memory_explain(const struct cml_et_memory *m, cml_status status, cml_error *err);
/* Strides of sizes in a dim order. */
void cml_et_strides(cml_et_tensor *t);

/* Whether args fit the signature: count and kinds; with `err` in words that name the argument. full: also that tensors have
 * data and that outputs may be written. */
cml_status cml_et_check_args(const cml_et_op *op, cml_et_value *const *args, size_t count, bool full, cml_error *err);

#endif
