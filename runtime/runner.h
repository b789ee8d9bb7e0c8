/* What runs operations: slots that hold values, and memory for what could not be planned. Internal to runtime/. */
#ifndef CML_RUNNER_H
#define CML_RUNNER_H

#include <stdatomic.h>

#include "op.h"

/* What an executable and its sessions have taken of the memory that they may take: one account for all of them. */
typedef struct cml_account {
  uint64_t limit;
  atomic_uint_least64_t used;
} cml_account;

/* Books bytes, or refuses with CML_LIMIT; account may be NULL. What was taken is given back when it is freed. */
cml_status cml_account_take(cml_account *account, uint64_t bytes, cml_error *err);
/* CML_LIMIT, in words. */
cml_status cml_account_refuse(uint64_t bytes, uint64_t used, uint64_t limit, cml_error *err);
void cml_account_give(cml_account *account, uint64_t bytes);

/* A value's place in a session. cml_call.outs point at the tensor, so that the slot can be found from it. */
typedef struct cml_slot {
  cml_tensor tensor;
  void *owned;      /* grown on demand for values that the plan could not place; NULL else */
  size_t capacity;
  cml_account *account; /* that owned counts against, or NULL */
  cml_list own_list;/* where tensor.list points when the slot made the list */
} cml_slot;

struct cml_runner {
  uint64_t random[4];
  struct cml_session *session;
  cml_status (*run_block)(cml_call *c, size_t b, const cml_tensor *const *inputs, size_t input_count, const cml_tensor **outputs,
                          size_t output_count, cml_error *err);
};

/* Memory from cml_call_keep: a header of 64 bytes, then `size` bytes; or a chunk of `mapped` bytes that large pieces are cut from. */
struct cml_kept {
  struct cml_kept *next;
  size_t size;
  size_t mapped, used; /* 0 unless a chunk; used counts the header */
};
void cml_kept_free(struct cml_kept *kept);

/* Scratch beyond 2^48 bytes comes from hostile shapes; the limit keeps later roundings from wrapping. */
cml_status cml_scratch_check(uint64_t bytes, cml_error *err);
/* For a slot that is still empty: what its memory counts against. */
void cml_slot_use_account(cml_slot *slot, cml_account *account);
/* Gives the slot memory for its tensor's shape; keeps what it has when that is large enough. */
cml_status cml_slot_reserve(cml_slot *slot, cml_error *err);
/* Deep copy of a value with its type and shape. */
cml_status cml_slot_copy(cml_slot *slot, const cml_tensor *from, cml_error *err);
void cml_slot_clear(cml_slot *slot); /* keeps its account */
void cml_list_clear(cml_list *list);
void cml_random_seed(uint64_t state[4], uint64_t seed);

#endif
