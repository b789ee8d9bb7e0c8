/* What the operators of ExecuTorch's virtual machine share: the table, arguments, and torch's rules for types. */
#include "et_op.h"

#include <math.h>
#include <stdio.h>

#include "et_families.h"
#include "et_memory.h"

/* ---- the table ---- */

static const cml_et_family *const families[] = {
#define CML_ET_FAMILY_ROW(name) &cml_et_ops_##name,
    CML_ET_FAMILY_MAP(CML_ET_FAMILY_ROW)
#undef CML_ET_FAMILY_ROW
};

const cml_et_op *cml_et_op_at(size_t i) {
  for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
    if (i < families[f]->count) return &families[f]->rows[i];
    i -= families[f]->count;
  }
  return NULL;
}

static bool has_name(const char *names, const char *name, size_t size) {
  while (*names) {
    size_t n = strcspn(names, " ");
    if (n == size && !memcmp(names, name, n)) return true;
    names += n + (names[n] == ' ');
  }
  return false;
}

/* A few hundred rows, looked at once for each operator that a method lists. */
const cml_et_op *cml_et_op_find(const char *name, size_t size) {
  for (size_t f = 0; f < sizeof families / sizeof *families; f++)
    for (size_t i = 0; i < families[f]->count; i++)
      if (has_name(families[f]->rows[i].names, name, size)) return &families[f]->rows[i];
  return NULL;
}

/* ---- signatures ---- */

#define KIND(name) (1u << CML_PTE_##name)

/* Kinds that a letter takes. */
static unsigned letter_kinds(char letter) {
  switch (letter) {
    case 't': case 'x': case 'o': case 'w': case 'c': case 'k': return KIND(TENSOR);
    case 'i': return KIND(INTEGER) | KIND(BOOLEAN);
    case 'b': return KIND(BOOLEAN) | KIND(INTEGER);
    case 'd': case 'n': case 'v': return KIND(INTEGER) | KIND(BOOLEAN) | KIND(REAL);
    case 's': return KIND(STRING);
    case 'I': return KIND(INTEGERS);
    case 'D': return KIND(REALS);
    case 'B': return KIND(BOOLEANS);
    case 'T': case 'W': return KIND(TENSORS);
    case 'O': case 'X': return KIND(OPTIONAL_TENSORS) | KIND(TENSORS);
    case 'a': return ~0u;
    default: return 0;
  }
}

static const char *letter_words(char letter) {
  switch (letter) {
    case 't': case 'x': case 'w': case 'c': return "a tensor";
    case 'o': case 'k': return "a tensor to write to";
    case 'i': return "an integer";
    case 'b': return "a bool";
    case 'd': return "a float";
    case 'n': case 'v': return "a number";
    case 's': return "a string";
    case 'I': return "a list of integers";
    case 'D': return "a list of floats";
    case 'B': return "a list of bools";
    default: return "a list of tensors";
  }
}

static cml_status check_tensor(const cml_et_tensor *t, bool written, bool complex, size_t i, cml_error *err) {
  if (written && t->constant) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "argument %zu would be written to, but is constant", i);
  if (!t->dtype && !(t->complex && complex)) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "argument %zu has an element type that the operator does not take", i);
  if (!t->data && !(written && t->owned) && cml_et_numel(t) > 0)
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "argument %zu has no data: nothing has written it, or it was freed", i);
  return CML_OK;
}

static cml_status check_arg(const cml_et_value *v, char letter, bool optional, bool full, bool moves, size_t i, cml_error *err) {
  unsigned kinds = letter_kinds(letter) | (optional ? KIND(NONE) : 0);
  if (!(kinds >> v->kind & 1))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "argument %zu is of kind %s where %s is wanted", i, cml_pte_kind_name(v->kind),
                    letter_words(letter));
  if (!full) return CML_OK;
  if (v->kind == CML_PTE_TENSOR && letter != 'w') return check_tensor(v->tensor, letter == 'o' || letter == 'k', moves || letter == 'c' || letter == 'k', i, err);
  if (v->kind == CML_PTE_TENSORS || v->kind == CML_PTE_OPTIONAL_TENSORS)
    for (uint32_t k = 0; k < v->count; k++) {
      if (v->items[k]->kind == CML_PTE_TENSOR) CML_TRY(check_tensor(v->items[k]->tensor, letter == 'W', moves, i, err));
      else if (v->items[k]->kind != CML_PTE_NONE || (letter != 'O' && letter != 'X'))
        return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "item %u of argument %zu is of kind %s where a tensor is wanted", k, i,
                        cml_pte_kind_name(v->items[k]->kind));
    }
  if (v->kind == CML_PTE_INTEGERS)
    for (uint32_t k = 0; k < v->count; k++)
      if (v->items[k]->kind != CML_PTE_INTEGER && v->items[k]->kind != CML_PTE_BOOLEAN)
        return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "item %u of argument %zu is of kind %s where an integer is wanted", k, i,
                        cml_pte_kind_name(v->items[k]->kind));
  return CML_OK;
}

/* Whether two tensors share bytes. */
static bool overlap(const cml_et_tensor *a, const cml_et_tensor *b) {
  uintptr_t x = (uintptr_t)a->data, y = (uintptr_t)b->data;
  uint64_t n = (uint64_t)cml_et_numel(a) * cml_et_width(a), m = b->capacity;
  return a->data && b->data && n && m && x < y + m && y < x + n;
}

static cml_status check_apart(const cml_et_tensor *indices, const cml_et_op *op, cml_et_value *const *args, size_t count, cml_error *err) {
  size_t i = 0;
  for (const char *s = op->signature; *s && i < count; s++) {
    if (*s == '?' || *s == '*') continue;
    bool list = *s == 'W', one = *s == 'o' || *s == 'k';
    for (uint32_t k = 0; (one || list) && args[i]->kind != CML_PTE_NONE && k < (one ? 1 : args[i]->count); k++)
      if (overlap(indices, one ? args[i]->tensor : args[i]->items[k]->tensor))
        return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the indices lie in the memory of output %zu", i);
    i++;
  }
  return CML_OK;
}

static cml_status check_indices(char letter, size_t i, const cml_et_op *op, cml_et_value *const *args, size_t count, cml_error *err) {
  const cml_et_value *v = args[i];
  if (letter == 'x') return v->kind == CML_PTE_TENSOR ? check_apart(v->tensor, op, args, count, err) : CML_OK;
  for (uint32_t k = 0; v->kind != CML_PTE_NONE && k < v->count; k++)
    if (v->items[k]->kind == CML_PTE_TENSOR) CML_TRY(check_apart(v->items[k]->tensor, op, args, count, err));
  return CML_OK;
}

cml_status cml_et_check_args(const cml_et_op *op, cml_et_value *const *args, size_t count, bool full, cml_error *err) {
  size_t i = 0;
  bool indices = false;
  for (const char *s = op->signature; *s;) {
    bool optional = s[1] == '?';
    bool many = s[1 + optional] == '*';
    if (i >= count && !many)
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "has %zu arguments; '%s' wants more", count, op->signature);
    do {
      if (i >= count) break;
      CML_TRY(check_arg(args[i], *s, optional, full, op->moves, i, err));
      if (full && (*s == 'x' || *s == 'X')) indices = true;
      i++;
    } while (many);
    s += 1 + optional + many;
  }
  if (!indices) return CML_OK;
  i = 0;
  for (const char *s = op->signature; *s; s++) { /* such rows have no `*` */
    if (*s == '?') continue;
    if (*s == 'x' || *s == 'X') CML_TRY(check_indices(*s, i, op, args, count, err));
    i++;
  }
  return CML_OK;
}

/* ---- arguments ---- */

cml_et_number cml_et_number_of(const cml_et_value *v) {
  cml_et_number n = {.kind = v->kind};
  switch (v->kind) {
    case CML_PTE_INTEGER: n.i = v->integer; n.d = (double)v->integer; break;
    case CML_PTE_BOOLEAN: n.i = v->boolean; n.d = v->boolean; break;
    case CML_PTE_REAL:
      n.d = v->real;
      n.i = isnan(n.d) ? 0 : n.d >= 0x1p63 ? INT64_MAX : n.d < -0x1p63 ? INT64_MIN : (int64_t)n.d;
      break;
    default: n.kind = CML_PTE_NONE; break;
  }
  return n;
}

cml_status cml_et_ints(const cml_et_call *c, size_t i, int64_t *out, size_t room, size_t *count, cml_error *err) {
  const cml_et_value *v = c->args[i];
  *count = 0;
  if (v->kind == CML_PTE_NONE) return CML_OK;
  if (v->count > room) return cml_et_fail(c, err, "argument %zu is a list of %u integers; at most %zu make sense", i, v->count, room);
  for (uint32_t k = 0; k < v->count; k++) out[k] = cml_et_number_of(v->items[k]).i;
  *count = v->count;
  return CML_OK;
}

cml_dtype cml_et_dtype(const cml_et_call *c, size_t i) {
  int64_t number = cml_et_int(c, i, -1);
  return number < 0 || number >= CML_PTE_SCALAR_COUNT ? CML_DTYPE_NONE : cml_pte_scalar_dtype((int)number);
}

cml_status cml_et_axis(const cml_et_call *c, int64_t axis, int rank, int *out, cml_error *err) {
  int r = rank ? rank : 1;
  if (axis < -r || axis >= r)
    return cml_et_fail(c, err, "dimension %lld is out of range for a tensor of rank %d", (long long)axis, rank);
  *out = (int)(axis < 0 ? axis + r : axis);
  return CML_OK;
}

cml_status cml_et_fail(const cml_et_call *c, cml_error *err, const char *format, ...) {
  va_list args;
  va_start(args, format);
  cml_fail_va(err, CML_INVALID, CML_NO_OFFSET, format, args);
  va_end(args);
  return cml_error_prefix(err, CML_INVALID, "%s", c->name);
}

cml_status cml_et_want(const cml_et_call *c, const cml_et_tensor *t, uint32_t mask, const char *what, cml_error *err) {
  if (mask >> t->dtype & 1) return CML_OK;
  return cml_et_fail(c, err, "%s is of type %s, which this operator does not take there", what, cml_dtype_name(t->dtype));
}

uint64_t cml_et_random(cml_et_call *c) { /* xoshiro256++ by Blackman and Vigna */
  uint64_t *s = c->random, sum = s[0] + s[3], result = (sum << 23 | sum >> 41) + s[0], t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = s[3] << 45 | s[3] >> 19;
  return result;
}

/* ---- torch's result types ---- */

/* Place in the order bool < integers < floats, with the bits that values need. */
static bool is_unsigned(cml_dtype t) { return t == CML_U8 || t == CML_U16 || t == CML_U32 || t == CML_U64; }

cml_dtype cml_et_promote(cml_dtype a, cml_dtype b) {
  if (a == b) return a;
  if (a == CML_BOOL) return b;
  if (b == CML_BOOL) return a;
  bool af = cml_dtype_is_float(a), bf = cml_dtype_is_float(b);
  unsigned an = cml_dtype_bits(a), bn = cml_dtype_bits(b);
  if (af && bf) return an == bn ? CML_F32 : an > bn ? a : b; /* of one width: float16 and bfloat16 */
  if (af != bf) return af ? a : b;
  if (is_unsigned(a) == is_unsigned(b)) return an > bn ? a : b;
  cml_dtype u = is_unsigned(a) ? a : b, s = is_unsigned(a) ? b : a;
  unsigned un = cml_dtype_bits(u), sn = cml_dtype_bits(s);
  if (sn > un) return s;
  return un == 8 ? CML_I16 : un == 16 ? CML_I32 : CML_I64;
}

cml_dtype cml_et_promote_scalar(cml_dtype tensor, cml_pte_kind scalar) {
  if (scalar == CML_PTE_REAL) return cml_dtype_is_float(tensor) ? tensor : CML_F32;
  if (scalar == CML_PTE_INTEGER) return tensor == CML_BOOL ? CML_I64 : tensor;
  return tensor;
}

static int category(cml_dtype t) { return cml_dtype_is_float(t) ? 2 : t == CML_BOOL ? 0 : 1; }

cml_dtype cml_et_result_type(const cml_et_tensor *const *tensors, size_t n) {
  cml_dtype dims = CML_DTYPE_NONE, zero = CML_DTYPE_NONE;
  for (size_t i = 0; i < n; i++) {
    if (!tensors[i]) continue;
    cml_dtype *t = tensors[i]->rank ? &dims : &zero;
    *t = *t ? cml_et_promote(*t, tensors[i]->dtype) : tensors[i]->dtype;
  }
  if (!dims || !zero) return dims ? dims : zero;
  return category(dims) >= category(zero) ? dims : cml_et_promote(dims, zero);
}
