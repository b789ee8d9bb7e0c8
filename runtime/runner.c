/* Values whose memory the plan could not place: results with data-dependent shapes, lists, and copies across blocks.
 * Such memory belongs to a slot and is reused as long as it is large enough, so that a loop settles after one round. */
#include "runner.h"

#include <stdlib.h>

/* ---- accounts ---- */

cml_status cml_account_refuse(uint64_t bytes, uint64_t used, uint64_t limit, cml_error *err) {
  return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the model asks for %llu bytes of memory and has taken %llu; it may take %llu",
                  (unsigned long long)bytes, (unsigned long long)used, (unsigned long long)limit);
}

cml_status cml_account_take(cml_account *a, uint64_t bytes, cml_error *err) {
  if (!a) return CML_OK;
  uint64_t used = atomic_load_explicit(&a->used, memory_order_relaxed);
  do {
    if (used <= a->limit && bytes <= a->limit - used) continue;
    return cml_account_refuse(bytes, used, a->limit, err);
  } while (!atomic_compare_exchange_weak_explicit(&a->used, &used, used + bytes, memory_order_relaxed, memory_order_relaxed));
  return CML_OK;
}

void cml_account_give(cml_account *a, uint64_t bytes) {
  if (a) atomic_fetch_sub_explicit(&a->used, bytes, memory_order_relaxed);
}

/* ---- slots ---- */

void cml_slot_use_account(cml_slot *slot, cml_account *account) { slot->account = slot->own_list.account = account; }

cml_status cml_scratch_check(uint64_t bytes, cml_error *err) {
  if (bytes <= UINT64_C(1) << 48) return CML_OK;
  return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "needs %llu bytes of scratch memory", (unsigned long long)bytes);
}

cml_status cml_slot_reserve(cml_slot *slot, cml_error *err) {
  uint64_t bytes;
  if (!cml_tensor_bytes(&slot->tensor, &bytes)) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "a value is too large");
  if (!slot->owned || bytes > slot->capacity) {
    size_t capacity = (size_t)(bytes + 127) & ~(size_t)63; /* room for vectors that read past the end */
    CML_TRY(cml_account_take(slot->account, capacity, err));
    void *p = aligned_alloc(64, capacity);
    if (!p) {
      cml_account_give(slot->account, capacity);
      return cml_fail_memory(err);
    }
    if (slot->owned) cml_account_give(slot->account, slot->capacity + 64);
    free(slot->owned);
    slot->owned = p;
    slot->capacity = capacity - 64;
  }
  slot->tensor.data = slot->owned;
  return CML_OK;
}

/* An element's data follows a count of the lists that hold it: copies of a list share elements, which never change. */
enum { ITEM_HEADER = 64 };
typedef struct item_header {
  size_t count, size;
  cml_account *account;
} item_header;

static cml_status item_create(cml_account *account, cml_tensor *item, const cml_tensor *value, cml_error *err) {
  uint64_t bytes;
  if (!cml_tensor_bytes(value, &bytes)) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "a list's element is too large");
  size_t size = (ITEM_HEADER + bytes + 127) & ~UINT64_C(63);
  CML_TRY(cml_account_take(account, size, err));
  item_header *header = aligned_alloc(64, size);
  if (!header) {
    cml_account_give(account, size);
    return cml_fail_memory(err);
  }
  *header = (item_header){1, size, account};
  *item = *value;
  item->data = (char *)header + ITEM_HEADER;
  if (bytes) memcpy(item->data, value->data, bytes);
  return CML_OK;
}

static item_header *header_of(const cml_tensor *item) { return (item_header *)(void *)((char *)item->data - ITEM_HEADER); }

static void item_release(cml_tensor *item) {
  if (item->data && --header_of(item)->count == 0) {
    cml_account_give(header_of(item)->account, header_of(item)->size);
    free(header_of(item));
  }
  item->data = NULL;
}

void cml_list_clear(cml_list *list) {
  for (int64_t i = 0; i < list->length; i++) item_release(&list->items[i]);
  free(list->items);
  cml_account_give(list->account, (uint64_t)list->capacity * sizeof *list->items);
  *list = (cml_list){.account = list->account};
}

cml_status cml_list_resize(cml_list *list, int64_t length, cml_error *err) {
  if (length > list->capacity) {
    int64_t capacity = length > 2 * list->capacity ? length : 2 * list->capacity;
    uint64_t more;
    if (__builtin_mul_overflow((uint64_t)(capacity - list->capacity), sizeof *list->items, &more))
      return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "a list is too long");
    CML_TRY(cml_account_take(list->account, more, err));
    cml_tensor *items = realloc(list->items, (size_t)capacity * sizeof *items);
    if (!items) {
      cml_account_give(list->account, more);
      return cml_fail_memory(err);
    }
    list->items = items;
    list->capacity = capacity;
  }
  for (; list->length > length; list->length--) item_release(&list->items[list->length - 1]);
  for (; list->length < length; list->length++) list->items[list->length] = (cml_tensor){0};
  return CML_OK;
}

static cml_status copy_list(cml_list *to, const cml_list *from, cml_error *err) {
  if (to == from) return CML_OK;
  CML_TRY(cml_list_resize(to, 0, err));
  CML_TRY(cml_list_resize(to, from->length, err));
  to->dtype = from->dtype;
  to->element_rank = from->element_rank;
  memcpy(to->element_dims, from->element_dims, sizeof to->element_dims);
  for (int64_t i = 0; i < from->length; i++) {
    to->items[i] = from->items[i];
    if (from->items[i].data) ++header_of(&from->items[i])->count;
  }
  return CML_OK;
}

cml_status cml_list_store(cml_list *list, int64_t index, const cml_tensor *value, cml_error *err) {
  cml_tensor item;
  CML_TRY(item_create(list->account, &item, value, err));
  cml_status status = index >= list->length ? cml_list_resize(list, index + 1, err) : CML_OK;
  if (status) {
    item_release(&item);
    return status;
  }
  item_release(&list->items[index]);
  list->items[index] = item;
  return CML_OK;
}

cml_status cml_slot_copy(cml_slot *slot, const cml_tensor *from, cml_error *err) {
  if (&slot->tensor == from) return CML_OK;
  if (from->list) {
    CML_TRY(copy_list(&slot->own_list, from->list, err));
    slot->tensor = *from;
    slot->tensor.list = &slot->own_list;
    return CML_OK;
  }
  uint64_t bytes;
  slot->tensor.dtype = from->dtype;
  slot->tensor.rank = from->rank;
  memcpy(slot->tensor.dims, from->dims, sizeof from->dims);
  CML_TRY(cml_slot_reserve(slot, err));
  if (cml_tensor_bytes(from, &bytes) && bytes) memmove(slot->tensor.data, from->data, bytes);
  return CML_OK;
}

void cml_slot_clear(cml_slot *slot) {
  cml_account *account = slot->account;
  if (slot->owned) cml_account_give(account, slot->capacity + 64);
  free(slot->owned);
  cml_list_clear(&slot->own_list);
  *slot = (cml_slot){0};
  cml_slot_use_account(slot, account);
}

/* splitmix64 spreads a seed over xoshiro's state (Blackman and Vigna). */
void cml_random_seed(uint64_t state[4], uint64_t seed) {
  for (int i = 0; i < 4; i++) {
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    state[i] = z ^ z >> 31;
  }
}

/* ---- what op.h offers to run ---- */

/* Every output that an operation sees is the first member of a slot. */
static cml_slot *slot_of(cml_tensor *t) { return (cml_slot *)(void *)t; }

cml_status cml_out_alloc(cml_call *c, size_t i, cml_error *err) { return cml_slot_reserve(slot_of(c->outs[i]), err); }

cml_status cml_out_copy(cml_call *c, size_t i, const cml_tensor *from, cml_error *err) {
  cml_tensor *out = c->outs[i];
  uint64_t bytes;
  if (from->list || !out->data || !cml_tensor_same_shape(out, from)) return cml_slot_copy(slot_of(out), from, err);
  if (cml_tensor_bytes(from, &bytes) && bytes) memmove(out->data, from->data, bytes);
  return CML_OK;
}

cml_list *cml_list_create(cml_call *c, cml_error *err) {
  (void)err;
  cml_slot *slot = slot_of(c->outs[0]);
  cml_list_clear(&slot->own_list);
  slot->tensor.list = &slot->own_list;
  return &slot->own_list;
}

cml_status cml_run_block(cml_call *c, size_t b, const cml_tensor *const *inputs, size_t input_count, const cml_tensor **outputs,
                         size_t output_count, cml_error *err) {
  if (!c->runner || !c->runner->run_block) return cml_call_fail(c, err, "control flow needs a program around it");
  return c->runner->run_block(c, b, inputs, input_count, outputs, output_count, err);
}

uint64_t *cml_random_state(cml_call *c) { return c->runner->random; }
