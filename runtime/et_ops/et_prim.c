/* executorch_prim: arithmetic on the program's own numbers, views, and what loops and dynamic shapes need. The numbers'
 * operators follow Python: an int stays an int, / gives a float, // and % round toward minus infinity. */
#include <math.h>

#include "et_families.h"

static cml_status put_int(cml_et_call *c, int64_t v) {
  c->args[2]->kind = CML_PTE_INTEGER;
  c->args[2]->integer = v;
  return CML_OK;
}

static cml_status put_real(cml_et_call *c, double v) {
  c->args[2]->kind = CML_PTE_REAL;
  c->args[2]->real = v;
  return CML_OK;
}

static cml_status put_bool(cml_et_call *c, bool v) {
  c->args[2]->kind = CML_PTE_BOOLEAN;
  c->args[2]->boolean = v;
  return CML_OK;
}

/* Both arguments; true where one is a float. */
static bool reals(const cml_et_call *c, cml_et_number *a, cml_et_number *b) {
  *a = cml_et_scalar(c, 0);
  *b = cml_et_scalar(c, 1);
  return a->kind == CML_PTE_REAL || b->kind == CML_PTE_REAL;
}

#define ARITHMETIC(name, integer, real)                                              \
  static cml_status name(cml_et_call *c, cml_error *err) {                           \
    cml_et_number a, b;                                                              \
    (void)err;                                                                       \
    if (reals(c, &a, &b)) return put_real(c, real);                                  \
    return put_int(c, (int64_t)(integer)); /* wraps, as a machine's integers do */   \
  }
ARITHMETIC(add, (uint64_t)a.i + (uint64_t)b.i, a.d + b.d)
ARITHMETIC(sub, (uint64_t)a.i - (uint64_t)b.i, a.d - b.d)
ARITHMETIC(mul, (uint64_t)a.i * (uint64_t)b.i, a.d * b.d)

static int64_t floor_div(int64_t a, int64_t b) {
  if (b == -1) return (int64_t)(0 - (uint64_t)a);
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static cml_status floordiv(cml_et_call *c, cml_error *err) {
  cml_et_number a, b;
  if (reals(c, &a, &b)) return put_real(c, floor(a.d / b.d));
  return b.i ? put_int(c, floor_div(a.i, b.i)) : cml_et_fail(c, err, "division by zero");
}

static cml_status mod(cml_et_call *c, cml_error *err) {
  cml_et_number a, b;
  if (reals(c, &a, &b)) return put_real(c, a.d - b.d * floor(a.d / b.d));
  return b.i ? put_int(c, (int64_t)((uint64_t)a.i - (uint64_t)b.i * (uint64_t)floor_div(a.i, b.i))) : cml_et_fail(c, err, "division by zero");
}

static cml_status truediv(cml_et_call *c, cml_error *err) {
  cml_et_number a, b;
  (void)err;
  reals(c, &a, &b);
  return put_real(c, a.d / b.d);
}

#define COMPARISON(name, op)                                          \
  static cml_status name(cml_et_call *c, cml_error *err) {            \
    cml_et_number a, b;                                               \
    (void)err;                                                        \
    return put_bool(c, reals(c, &a, &b) ? a.d op b.d : a.i op b.i);   \
  }
COMPARISON(eq, ==)
COMPARISON(gt, >)
COMPARISON(lt, <)
COMPARISON(ge, >=)
COMPARISON(le, <=)

static cml_status sym_min(cml_et_call *c, cml_error *err) {
  cml_et_number a, b;
  (void)err;
  if (reals(c, &a, &b)) return put_real(c, b.d < a.d ? b.d : a.d);
  return put_int(c, b.i < a.i ? b.i : a.i);
}

static cml_status sym_max(cml_et_call *c, cml_error *err) {
  cml_et_number a, b;
  (void)err;
  if (reals(c, &a, &b)) return put_real(c, b.d > a.d ? b.d : a.d);
  return put_int(c, b.i > a.i ? b.i : a.i);
}

/* ---- one argument: out is args[1] ---- */

static cml_status put_second(cml_et_call *c, cml_et_value v) {
  c->args[1]->kind = v.kind;
  if (v.kind == CML_PTE_REAL) c->args[1]->real = v.real;
  else c->args[1]->integer = v.integer;
  return CML_OK;
}

static cml_status neg(cml_et_call *c, cml_error *err) {
  cml_et_number a = cml_et_scalar(c, 0);
  (void)err;
  if (a.kind == CML_PTE_REAL) return put_second(c, (cml_et_value){.kind = CML_PTE_REAL, .real = -a.d});
  return put_second(c, (cml_et_value){.kind = CML_PTE_INTEGER, .integer = (int64_t)(0 - (uint64_t)a.i)});
}

static cml_status sym_not(cml_et_call *c, cml_error *err) {
  (void)err;
  c->args[1]->kind = CML_PTE_BOOLEAN;
  c->args[1]->boolean = cml_et_scalar(c, 0).d == 0;
  return CML_OK;
}

/* b ? t : f into args[3] */
static cml_status sym_ite(cml_et_call *c, cml_error *err) {
  cml_et_number n = cml_et_scalar(c, cml_et_scalar(c, 0).d != 0 ? 1 : 2);
  (void)err;
  c->args[3]->kind = n.kind;
  if (n.kind == CML_PTE_REAL) c->args[3]->real = n.d;
  else if (n.kind == CML_PTE_BOOLEAN) c->args[3]->boolean = n.i != 0;
  else c->args[3]->integer = n.i;
  return CML_OK;
}

static cml_status sym_float(cml_et_call *c, cml_error *err) {
  (void)err;
  return put_second(c, (cml_et_value){.kind = CML_PTE_REAL, .real = cml_et_scalar(c, 0).d});
}

/* A float as an integer by one of C's rounding functions; an integer as it is. */
static cml_status to_integer(cml_et_call *c, double (*round)(double), cml_error *err) {
  cml_et_number a = cml_et_scalar(c, 0);
  if (a.kind != CML_PTE_REAL) return put_second(c, (cml_et_value){.kind = CML_PTE_INTEGER, .integer = a.i});
  double v = round(a.d);
  if (!(v >= -0x1p63 && v < 0x1p63)) return cml_et_fail(c, err, "%g is no 64-bit integer", a.d);
  return put_second(c, (cml_et_value){.kind = CML_PTE_INTEGER, .integer = (int64_t)v});
}
static cml_status sym_ceil(cml_et_call *c, cml_error *err) { return to_integer(c, ceil, err); }
static cml_status sym_floor(cml_et_call *c, cml_error *err) { return to_integer(c, floor, err); }
static cml_status sym_trunc(cml_et_call *c, cml_error *err) { return to_integer(c, trunc, err); }
static cml_status sym_round(cml_et_call *c, cml_error *err) { return to_integer(c, rint, err); }

/* ---- tensors' sizes and values ---- */

static cml_status sym_size(cml_et_call *c, cml_error *err) {
  int axis;
  const cml_et_tensor *t = cml_et_arg(c, 0);
  if (!t->rank) return cml_et_fail(c, err, "a tensor of rank 0 has no sizes");
  CML_TRY(cml_et_axis(c, cml_et_int(c, 1, 0), t->rank, &axis, err));
  return put_int(c, t->sizes[axis]);
}

static cml_status sym_numel(cml_et_call *c, cml_error *err) {
  (void)err;
  return put_second(c, (cml_et_value){.kind = CML_PTE_INTEGER, .integer = cml_et_numel(cml_et_arg(c, 0))});
}

static cml_status item(cml_et_call *c, cml_error *err) {
  const cml_et_tensor *t = cml_et_arg(c, 0);
  int64_t i;
  double d;
  if (cml_et_numel(t) != 1) return cml_et_fail(c, err, "a tensor of %lld elements is no number", (long long)cml_et_numel(t));
  CML_TRY(cml_et_want(c, t, CML_ET_ANY, "the tensor", err));
  if (cml_dtype_is_float(t->dtype)) {
    cml_et_load_f64(&d, t, 0, 1, 1);
    return put_second(c, (cml_et_value){.kind = CML_PTE_REAL, .real = d});
  }
  cml_et_load_i64(&i, t, 0, 1, 1);
  if (t->dtype != CML_BOOL) return put_second(c, (cml_et_value){.kind = CML_PTE_INTEGER, .integer = i});
  c->args[1]->kind = CML_PTE_BOOLEAN;
  c->args[1]->boolean = i != 0;
  return CML_OK;
}

/* ---- et_view, et_copy_index ---- */

/* The sizes with at most one -1 worked out. */
static cml_status view_sizes(cml_et_call *c, const cml_et_tensor *t, size_t rank, int64_t *sizes, cml_error *err) {
  uint64_t known = 1, count = (uint64_t)cml_et_numel(t);
  int64_t *open = NULL;
  for (size_t k = 0; k < rank; k++) {
    if (sizes[k] == -1 && !open) open = &sizes[k];
    else if (sizes[k] < 0 || !cml_mul(known, (uint64_t)sizes[k], &known)) return cml_et_fail(c, err, "the view's sizes make no shape");
  }
  if (open) {
    if (!known || count % known) return cml_et_fail(c, err, "%llu elements do not fill the view", (unsigned long long)count);
    *open = (int64_t)(count / known);
    known = count;
  }
  return known == count ? CML_OK : cml_et_fail(c, err, "a view of %llu elements of a tensor of %llu", (unsigned long long)known,
                                               (unsigned long long)count);
}

/* The output's data becomes the input's: the memory plan gives it none of its own. */
static cml_status et_view(cml_et_call *c, cml_error *err) {
  cml_et_tensor *t = cml_et_arg(c, 0), *out = cml_et_arg(c, 2);
  int64_t sizes[CML_PTE_MAX_RANK];
  size_t rank;
  CML_TRY(cml_et_ints(c, 1, sizes, CML_PTE_MAX_RANK, &rank, err));
  CML_TRY(view_sizes(c, t, rank, sizes, err));
  if (t->dtype != out->dtype) return cml_et_fail(c, err, "the view is of another type than the tensor");
  if (out == t) return cml_et_fail(c, err, "a tensor cannot be a view of itself");
  cml_et_alias(c, out, t);
  return cml_et_resize(c, out, rank, sizes, err);
}

/* et_copy_index(to, from, index): row `index` of `to` becomes `from`; `to` grows to index + 1 rows (torch.map's results). */
static cml_status copy_index(cml_et_call *c, cml_error *err) {
  cml_et_tensor *to = cml_et_arg(c, 0);
  const cml_et_tensor *from = cml_et_arg(c, 1);
  int64_t index = cml_et_int(c, 2, 0), sizes[CML_PTE_MAX_RANK];
  if (to->rank != from->rank + 1 || to->dtype != from->dtype || index < 0 || index == INT64_MAX)
    return cml_et_fail(c, err, "a row of rank %d cannot be put at index %lld of a tensor of rank %d", from->rank, (long long)index, to->rank);
  if (!cml_et_is_contiguous(from) || !cml_et_is_contiguous(to)) return cml_et_fail(c, err, "takes contiguous tensors only");
  for (int k = 0; k < from->rank; k++)
    if (to->sizes[k + 1] != from->sizes[k]) return cml_et_fail(c, err, "the row's shape is not that of the tensor's rows");
  memcpy(sizes, to->sizes, to->rank * sizeof *sizes);
  sizes[0] = index + 1;
  if (to->dynamism == CML_PTE_STATIC) {
    if (index >= to->sizes[0]) return cml_et_fail(c, err, "index %lld is out of range", (long long)index);
  } else {
    CML_TRY(cml_et_resize(c, to, to->rank, sizes, err));
  }
  size_t bytes = (size_t)cml_et_numel(from) * cml_et_width(from);
  if (bytes) memmove((char *)to->data + (size_t)index * bytes, from->data, bytes);
  return CML_OK;
}

static const cml_et_op rows[] = {
    {"executorch_prim::add.Scalar", "nnv", add},
    {"executorch_prim::sub.Scalar", "nnv", sub},
    {"executorch_prim::mul.Scalar", "nnv", mul},
    {"executorch_prim::floordiv.Scalar executorch_prim::floordiv.int", "nnv", floordiv},
    {"executorch_prim::mod.Scalar executorch_prim::mod.int", "nnv", mod},
    {"executorch_prim::truediv.Scalar", "nnv", truediv},
    {"executorch_prim::eq.Scalar", "nnv", eq},
    {"executorch_prim::gt.Scalar", "nnv", gt},
    {"executorch_prim::lt.Scalar", "nnv", lt},
    {"executorch_prim::ge.Scalar", "nnv", ge},
    {"executorch_prim::le.Scalar", "nnv", le},
    {"executorch_prim::sym_min.Scalar", "nnv", sym_min},
    {"executorch_prim::sym_max.Scalar", "nnv", sym_max},
    {"executorch_prim::sym_not.Scalar", "nv", sym_not},
    {"executorch_prim::sym_ite.Scalar", "nnnv", sym_ite},
    {"executorch_prim::neg.Scalar", "nv", neg},
    {"executorch_prim::sym_float.Scalar", "nv", sym_float},
    {"executorch_prim::ceil.Scalar", "nv", sym_ceil},
    {"executorch_prim::floor.Scalar", "nv", sym_floor},
    {"executorch_prim::trunc.Scalar executorch_prim::sym_int.Scalar", "nv", sym_trunc},
    {"executorch_prim::round.Scalar", "nv", sym_round},
    {"aten::sym_size.int", "tiv", sym_size},
    {"aten::sym_numel", "tv", sym_numel},
    {"aten::_local_scalar_dense", "tv", item},
    {"executorch_prim::et_view.default", "tIw", et_view},
    {"executorch_prim::et_copy_index.tensor", "oti", copy_index},
};
CML_ET_FAMILY(prim)
