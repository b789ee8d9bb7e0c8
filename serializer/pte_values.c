/* Values of a method: scalars, lists and tensors, each checked against what it refers to.
 *
 * Lists may name values that come later, so a second pass compares the kinds. */
#include <inttypes.h>

#include "pte_internal.h"
#include "pte_schema.h"

/* ---- tensors ---- */

static void parse_sizes(pte_parser *p, cml_pte_tensor *t, const cml_fb_table *f, unsigned sizes_slot, unsigned order_slot) {
  cml_fb *fb = &p->fb;
  cml_fb_vector sizes = cml_fb_vector_of(fb, f, sizes_slot, 4), order = cml_fb_vector_of(fb, f, order_slot, 1);
  if (cml_fb_failed(fb)) return;
  if (sizes.count > CML_PTE_MAX_RANK) {
    cml_fb_fail(fb, sizes.at - 4, "a tensor of rank %" PRIu32 ", the limit is %d", sizes.count, CML_PTE_MAX_RANK);
    return;
  }
  if (order.count != sizes.count) {
    cml_fb_fail(fb, f->at, "a tensor of rank %" PRIu32 " with a dim order of %" PRIu32 " entries", sizes.count, order.count);
    return;
  }
  t->rank = (uint8_t)sizes.count;
  uint8_t *block = cml_pte_take(p, t->rank, sizeof *t->strides + sizeof *t->sizes + 1);
  if (!block) return;
  t->strides = (int64_t *)(void *)block;
  t->sizes = (int32_t *)(void *)(block + t->rank * sizeof *t->strides);
  t->dim_order = block + t->rank * (sizeof *t->strides + sizeof *t->sizes);
  uint32_t seen = 0;
  for (uint32_t i = 0; i < t->rank; i++) {
    t->sizes[i] = (int32_t)cml_load_u32(cml_fb_element(fb, &sizes, i));
    t->dim_order[i] = *cml_fb_element(fb, &order, i);
    if (t->sizes[i] < 0) cml_fb_fail(fb, sizes.at + 4 * i, "dimension %" PRIu32 " has size %" PRId32, i, t->sizes[i]);
    if (t->dim_order[i] >= t->rank || seen >> t->dim_order[i] & 1)
      cml_fb_fail(fb, order.at + i, "the dim order is no permutation: entry %" PRIu32 " is %u of %u", i, t->dim_order[i],
                  t->rank);
    else seen |= 1u << t->dim_order[i];
  }
}

/* Strides from the innermost dimension out; a dimension of size 0 steps like one of size 1. All products fit 63 bits. */
static void derive_layout(pte_parser *p, cml_pte_tensor *t, uint64_t at) {
  uint64_t stride = 1, elements = 1;
  bool fits = true;
  for (unsigned i = t->rank; i-- > 0;) {
    unsigned d = t->dim_order[i];
    uint64_t size = (uint64_t)t->sizes[d];
    t->strides[d] = (int64_t)stride;
    fits = fits && cml_mul(stride, size ? size : 1, &stride) && stride <= INT64_MAX / 16;
    elements *= fits ? size : 0;
  }
  if (!fits) cml_fb_fail(&p->fb, at, "the sizes of a tensor multiply to more than 2^59 elements");
  t->elements = elements;
  t->bytes = elements * cml_pte_scalar_bytes(t->scalar);
}

void cml_pte_parse_layout(pte_parser *p, cml_pte_tensor *t, const cml_fb_table *f, unsigned scalar, unsigned sizes,
                          unsigned dim_order) {
  int8_t number = cml_fb_i8(&p->fb, f, scalar, 0);
  t->scalar = (uint8_t)number;
  t->dtype = cml_pte_scalar_dtype(number);
  if (!cml_pte_scalar_bytes(number)) cml_fb_fail_as(&p->fb, CML_UNSUPPORTED, f->at, "a tensor's scalar type is %d", number);
  parse_sizes(p, t, f, sizes, dim_order);
  if (!cml_fb_failed(&p->fb)) derive_layout(p, t, f->at);
}

static void parse_extra(pte_parser *p, cml_pte_tensor *t, const cml_fb_table *f) {
  cml_fb_table e = cml_fb_table_of(&p->fb, f, TENSOR_EXTRA);
  if (!e.at || !(t->extra = TAKE(p, cml_pte_tensor_extra, 1))) return;
  uint8_t location = cml_fb_u8(&p->fb, &e, EXTRA_LOCATION, 0);
  *t->extra = (cml_pte_tensor_extra){
      .mutable_segment = cml_fb_u64(&p->fb, &e, EXTRA_MUTABLE_SEGMENT, 0),
      .name = cml_fb_string(&p->fb, &e, EXTRA_NAME),
      .external = location == 1,
      .device_type = cml_fb_i8(&p->fb, &e, EXTRA_DEVICE_TYPE, 0),
      .device_index = cml_fb_i8(&p->fb, &e, EXTRA_DEVICE_INDEX, 0),
  };
  if (location > 1) cml_fb_fail(&p->fb, e.at, "a tensor's location is %u, expected 0 (segment) or 1 (external)", location);
  if (t->extra->external && !t->extra->name.size) cml_fb_fail(&p->fb, e.at, "an external tensor has no name");
}

static void parse_allocation(pte_parser *p, const cml_pte_method *m, cml_pte_tensor *t, const cml_fb_table *f) {
  cml_fb_table a = cml_fb_table_of(&p->fb, f, TENSOR_ALLOCATION);
  if (!a.at) return;
  t->has_allocation = true;
  t->memory_id = cml_fb_u32(&p->fb, &a, ALLOCATION_MEMORY, 0);
  t->memory_offset = cml_fb_u32(&p->fb, &a, ALLOCATION_LOW, 0) | (uint64_t)cml_fb_u32(&p->fb, &a, ALLOCATION_HIGH, 0) << 32;
  if (cml_fb_failed(&p->fb)) return;
  if (t->memory_id == 0 || t->memory_id >= m->memory_count) {
    cml_fb_fail(&p->fb, a.at, "a tensor lies in memory %" PRIu32 ", the method plans 1 to %" PRId64, t->memory_id,
                (int64_t)m->memory_count - 1);
    return;
  }
  uint64_t end, needed = t->dynamism == CML_PTE_UNBOUNDED ? 0 : t->bytes;
  if (!cml_add(t->memory_offset, needed, &end) || end > m->memory_sizes[t->memory_id])
    cml_fb_fail(&p->fb, a.at, "a tensor of %" PRIu64 " bytes at %" PRIu64 " of memory %" PRIu32 ", which has %" PRIu64 " bytes",
                needed, t->memory_offset, t->memory_id, m->memory_sizes[t->memory_id]);
}

/* The part of `whole` from `offset` that a tensor's bytes fill. */
static void set_data(pte_parser *p, cml_pte_tensor *t, cml_span whole, uint64_t offset, uint64_t at) {
  if (!cml_span_slice(whole, offset, t->bytes, &t->data))
    cml_fb_fail(&p->fb, at, "a tensor of %" PRIu64 " bytes has its data at %" PRIu64 " of %zu", t->bytes, offset, whole.size);
}

static void find_in(pte_parser *p, cml_pte_tensor *t, const cml_pte_subsegments *s, uint64_t at) {
  uint32_t i = cml_pte_index(p, t->data_index, s->count, at, "a tensor's data");
  if (!cml_fb_failed(&p->fb)) set_data(p, t, p->pte->segments[s->segment].data, s->offsets[i], at);
}

static void find_constant(pte_parser *p, cml_pte_tensor *t, uint64_t at) {
  const cml_pte *pte = p->pte;
  if (pte->constant_segment.count > 0) {
    find_in(p, t, &pte->constant_segment, at);
    return;
  }
  uint32_t i = cml_pte_index(p, t->data_index, pte->constant_count, at, "a tensor's data");
  if (!cml_fb_failed(&p->fb)) set_data(p, t, pte->constants[i], 0, at);
}

static void find_data(pte_parser *p, cml_pte_tensor *t, uint64_t at) {
  if (t->extra && t->extra->external) {
    t->storage = t->has_allocation ? CML_PTE_EXTERNAL_MUTABLE : CML_PTE_EXTERNAL;
  } else if (t->data_index == 0) {
    t->storage = t->has_allocation ? CML_PTE_PLANNED : CML_PTE_UNPLANNED;
  } else if (!t->has_allocation) {
    t->storage = CML_PTE_CONSTANT;
    find_constant(p, t, at);
  } else {
    t->storage = CML_PTE_MUTABLE;
    uint64_t k = t->extra ? t->extra->mutable_segment : 0;
    if (k < p->pte->mutable_count) {
      find_in(p, t, &p->pte->mutable_segments[k], at);
    } else {
      cml_fb_fail(&p->fb, at, "the index of a tensor's mutable data is %" PRIu64 ", there are %" PRIu32, k, p->pte->mutable_count);
    }
  }
}

static cml_pte_tensor *parse_tensor(pte_parser *p, const cml_pte_method *m, const cml_fb_table *f) {
  cml_fb *fb = &p->fb;
  cml_pte_tensor *t = TAKE(p, cml_pte_tensor, 1);
  if (!t) return NULL;
  int32_t offset = cml_fb_i32(fb, f, TENSOR_STORAGE_OFFSET, 0);
  t->dynamism = cml_fb_u8(fb, f, TENSOR_DYNAMISM, 0);
  t->layout = cml_fb_i8(fb, f, TENSOR_LAYOUT, 0);
  t->requires_grad = cml_fb_bool(fb, f, TENSOR_REQUIRES_GRAD, false);
  t->data_index = cml_fb_u32(fb, f, TENSOR_DATA_INDEX, 0);
  if (offset) cml_fb_fail_as(fb, CML_UNSUPPORTED, f->at, "a tensor's storage offset is %" PRId32 ", expected 0", offset);
  if (t->dynamism > CML_PTE_UNBOUNDED) cml_fb_fail(fb, f->at, "a tensor's shape dynamism is %u, expected 0 to 2", t->dynamism);
  cml_pte_parse_layout(p, t, f, TENSOR_SCALAR, TENSOR_SIZES, TENSOR_DIM_ORDER);
  if (cml_fb_failed(fb)) return NULL;
  parse_extra(p, t, f);
  parse_allocation(p, m, t, f);
  if (!cml_fb_failed(fb)) find_data(p, t, f->at);
  return t;
}

/* ---- lists ---- */

static void parse_integers(pte_parser *p, const cml_pte_method *m, cml_pte_value *v, const cml_fb_table *f) {
  cml_fb_vector items = cml_fb_vector_of(&p->fb, f, BOX_VALUE, 8);
  v->items = TAKE(p, uint32_t, items.count);
  v->count = items.count;
  for (uint32_t i = 0; i < items.count && !cml_fb_failed(&p->fb); i++)
    v->items[i] = cml_pte_index(p, (int64_t)cml_load_u64(cml_fb_element(&p->fb, &items, i)), m->value_count,
                                items.at + 8 * (uint64_t)i, "a value");
}

static void parse_reals(pte_parser *p, cml_pte_value *v, const cml_fb_table *f) {
  cml_fb_vector items = cml_fb_vector_of(&p->fb, f, BOX_VALUE, 8);
  v->reals = TAKE(p, double, items.count);
  v->count = items.count;
  if (v->reals && items.count) memcpy(v->reals, cml_fb_element(&p->fb, &items, 0), 8 * (size_t)items.count);
}

static void parse_booleans(pte_parser *p, cml_pte_value *v, const cml_fb_table *f) {
  cml_fb_vector items = cml_fb_vector_of(&p->fb, f, BOX_VALUE, 1);
  v->booleans = TAKE(p, bool, items.count);
  v->count = items.count;
  for (uint32_t i = 0; i < items.count && v->booleans; i++) v->booleans[i] = *cml_fb_element(&p->fb, &items, i) != 0;
}

static void parse_tensors(pte_parser *p, const cml_pte_method *m, cml_pte_value *v, const cml_fb_table *f) {
  cml_fb_vector items = cml_fb_vector_of(&p->fb, f, BOX_VALUE, 4);
  v->items = TAKE(p, uint32_t, items.count);
  v->count = items.count;
  for (uint32_t i = 0; i < items.count && !cml_fb_failed(&p->fb); i++) {
    int32_t index = (int32_t)cml_load_u32(cml_fb_element(&p->fb, &items, i));
    bool none = index == -1 && v->kind == CML_PTE_OPTIONAL_TENSORS;
    v->items[i] = none ? CML_PTE_NO_VALUE : cml_pte_index(p, index, m->value_count, items.at + 4 * (uint64_t)i, "a value");
  }
}

static bool item_fits(cml_pte_kind list, cml_pte_kind item) {
  switch (list) {
    case CML_PTE_INTEGERS: return item == CML_PTE_INTEGER;
    case CML_PTE_TENSORS: return item == CML_PTE_TENSOR;
    case CML_PTE_OPTIONAL_TENSORS: return item == CML_PTE_TENSOR || item == CML_PTE_NONE;
    default: return true;
  }
}

static void check_items(pte_parser *p, const cml_pte_method *m, const cml_pte_value *v, uint64_t at) {
  bool indices = v->kind == CML_PTE_INTEGERS || v->kind == CML_PTE_TENSORS || v->kind == CML_PTE_OPTIONAL_TENSORS;
  for (uint32_t i = 0; indices && i < v->count; i++) {
    if (v->items[i] == CML_PTE_NO_VALUE || item_fits(v->kind, m->values[v->items[i]].kind)) continue;
    cml_fb_fail(&p->fb, at, "item %" PRIu32 " of the %s is value %" PRIu32 ", of kind %s", i, cml_pte_kind_name(v->kind),
                v->items[i], cml_pte_kind_name(m->values[v->items[i]].kind));
    return;
  }
}

/* ---- values ---- */

static void parse_value(pte_parser *p, const cml_pte_method *m, cml_pte_value *v, const cml_fb_table *boxed) {
  uint8_t kind;
  cml_string text;
  cml_fb_table f = cml_fb_union(&p->fb, boxed, UNION_TYPE, &kind);
  v->kind = kind;
  if (kind != CML_PTE_NONE && !f.at) cml_fb_fail(&p->fb, boxed->at, "a value of kind %u has no content", kind);
  switch (v->kind) {
    case CML_PTE_NONE: break;
    case CML_PTE_INTEGER: v->integer = cml_fb_i64(&p->fb, &f, BOX_VALUE, 0); break;
    case CML_PTE_BOOLEAN: v->boolean = cml_fb_bool(&p->fb, &f, BOX_VALUE, false); break;
    case CML_PTE_REAL: v->real = cml_fb_f64(&p->fb, &f, BOX_VALUE, 0); break;
    case CML_PTE_TENSOR: v->tensor = parse_tensor(p, m, &f); break;
    case CML_PTE_STRING:
      v->text = (text = cml_fb_string(&p->fb, &f, BOX_VALUE)).data;
      v->count = (uint32_t)text.size;
      if (!v->text) cml_fb_fail(&p->fb, f.at, "a String without text");
      break;
    case CML_PTE_INTEGERS: parse_integers(p, m, v, &f); break;
    case CML_PTE_REALS: parse_reals(p, v, &f); break;
    case CML_PTE_BOOLEANS: parse_booleans(p, v, &f); break;
    case CML_PTE_TENSORS:
    case CML_PTE_OPTIONAL_TENSORS: parse_tensors(p, m, v, &f); break;
    default: cml_fb_fail_as(&p->fb, CML_UNSUPPORTED, boxed->at, "a value of kind %u, the schema knows 1 to 11", kind);
  }
}

void cml_pte_parse_values(pte_parser *p, cml_pte_method *m, const cml_fb_table *plan) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, plan, PLAN_VALUES, 4);
  m->values = TAKE(p, cml_pte_value, v.count);
  m->value_count = v.count;
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    parse_value(p, m, &m->values[i], &t);
    cml_pte_context(p, "value", i);
  }
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    check_items(p, m, &m->values[i], v.at + 4 * (uint64_t)i);
    cml_pte_context(p, "value", i);
  }
}
