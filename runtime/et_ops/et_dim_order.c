/* Copies between layouts and types: dim_order_ops, copies from and to devices (here all memory is one), copy_. An output's
 * dim order is its own, from the file; the dim_order argument says the same. */
#include "et_families.h"

/* (self, non_blocking, dim_order?, out) */
static cml_status to_copy(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *self = cml_et_arg(c, 0);
  cml_et_tensor *out = cml_et_arg(c, 3);
  CML_TRY(cml_et_resize_like(c, out, self, err));
  cml_et_copy(out, self);
  return CML_OK;
}

static cml_status clone(cml_et_call *c, cml_error *err) {
  if (cml_et_arg(c, 0)->dtype != cml_et_arg(c, 3)->dtype) return cml_et_fail(c, err, "a clone has its source's type");
  return to_copy(c, err);
}

/* (size, dim_order?, out): contents are undefined; zeros are the same each time */
static cml_status empty(cml_et_call *c, cml_error *err) {
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  cml_et_tensor *out = cml_et_arg(c, 2);
  CML_TRY(cml_et_ints(c, 0, sizes, CML_PTE_MAX_RANK, &rank, err));
  CML_TRY(cml_et_resize(c, out, rank, sizes, err));
  size_t bytes = (size_t)cml_et_numel(out) * cml_et_width(out);
  if (bytes) memset(out->data, 0, bytes);
  return CML_OK;
}

static cml_status device_copy(cml_et_call *c, cml_error *err) {
  CML_TRY(cml_et_resize_like(c, cml_et_arg(c, 1), cml_et_arg(c, 0), err));
  cml_et_copy(cml_et_arg(c, 1), cml_et_arg(c, 0));
  return CML_OK;
}

/* copy_(self, src, non_blocking): src broadcasts to self. */
static cml_status copy_into(cml_et_call *c, cml_error *err) {
  cml_et_tensor *self = cml_et_arg(c, 0);
  const cml_et_tensor *src = cml_et_arg(c, 1);
  const cml_et_tensor *both[] = {self, src};
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(cml_et_broadcast(c, both, 2, &rank, sizes, err));
  if (rank != self->rank || memcmp(sizes, self->sizes, rank * sizeof *sizes))
    return cml_et_fail(c, err, "the source does not broadcast to the tensor's shape");
  if (cml_et_same_shape(self, src)) {
    cml_et_copy(self, src);
    return CML_OK;
  }
  cml_et_local view;
  cml_et_make(&view, src->dtype, rank, sizes, src->data);
  cml_et_broadcast_strides(src, rank, sizes, view.strides);
  cml_et_copy(self, &view.t);
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"dim_order_ops::_to_dim_order_copy.out", "tbI?o", to_copy},
    {"dim_order_ops::_clone_dim_order.out", "tbI?o", clone},
    {"dim_order_ops::_empty_dim_order.out", "II?o", empty},
    {"et_copy::_h2d_copy.out et_copy::_d2h_copy.out", "to", device_copy},
    {"aten::copy_", "otb", copy_into},
};
CML_ET_FAMILY(dim_order)
