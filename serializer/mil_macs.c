/* One multiply-add is one product that enters a sum; bias, activation and normalization are left out, as is usual.
 *
 *   conv              output elements * weight elements / output channels    weight [Co, Ci/g, k...]: each output sums Ci/g * k
 *   conv_transpose    input elements * weight elements / input channels      weight [Ci, Co/g, k...]: each input feeds Co/g * k
 *   linear            output elements * D                                    weight [Do, D]
 *   matmul            output elements * K                                    K: the contracted dimension of x
 *   einsum            product of the sizes of all labels in the equation
 *   rnn, gru, lstm    S * B * (elements of weight_ih and weight_hh), for both directions    x [S, B, I]
 *   attention         B * L * S * (E + Ev)                                   query [B..., L, E], key [B..., S, E], value [B..., S, Ev]
 *
 * The parameters' shapes are those of coremltools' operator definitions (converters/mil/mil/ops/defs). */
#include "mil_macs.h"

typedef bool macs_function(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out);

static bool elements_of(const cml_mil_names *names, const cml_mil_op *op, const char *parameter, uint64_t *out) {
  const cml_mil_type *type = cml_mil_argument_type(names, op, parameter);
  return type && cml_mil_type_elements(type, out);
}

/* Dimension i, from the end when negative. */
static bool dimension(const cml_mil_type *type, int i, uint64_t *out) {
  if (!type || type->kind != CML_TYPE_TENSOR || type->rank <= 0) return false;
  if (i < 0) i += type->rank;
  if (i < 0 || i >= type->rank || type->dims[i] < 0) return false;
  *out = (uint64_t)type->dims[i];
  return true;
}

static const cml_mil_type *output_type(const cml_mil_op *op) { return op->output_count ? op->outputs[0].type : NULL; }

static bool output_elements(const cml_mil_op *op, uint64_t *out) {
  const cml_mil_type *type = output_type(op);
  return type && cml_mil_type_elements(type, out);
}

static bool flag(const cml_mil_names *names, const cml_mil_op *op, const char *parameter) {
  const cml_mil_value *value = cml_mil_argument_constant(names, op, parameter);
  return value && value->kind == CML_VALUE_TENSOR && value->type->dtype == CML_BOOL && value->data.size && value->data.data[0];
}

static bool per_first_dimension(const cml_mil_names *names, const cml_mil_op *op, uint64_t each, uint64_t *out) {
  uint64_t weight, first;
  const cml_mil_type *type = cml_mil_argument_type(names, op, "weight");
  if (!type || !cml_mil_type_elements(type, &weight) || !dimension(type, 0, &first)) return false;
  return cml_mul(each, first ? weight / first : 0, out);
}

static bool conv(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  uint64_t n;
  return output_elements(op, &n) && per_first_dimension(names, op, n, out);
}

static bool conv_transpose(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  uint64_t n;
  return elements_of(names, op, "x", &n) && per_first_dimension(names, op, n, out);
}

static bool linear(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  uint64_t n, k;
  return output_elements(op, &n) && dimension(cml_mil_argument_type(names, op, "weight"), -1, &k) && cml_mul(n, k, out);
}

static bool matmul(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  uint64_t n, k;
  const cml_mil_type *x = cml_mil_argument_type(names, op, "x");
  bool transpose = x && x->rank >= 2 && flag(names, op, "transpose_x");
  return output_elements(op, &n) && dimension(x, transpose ? -2 : -1, &k) && cml_mul(n, k, out);
}

/* Multiplies the sizes of an operand's labels that were not seen before. */
static bool einsum_operand(const char *labels, size_t count, const cml_mil_type *type, bool seen[128], uint64_t *product) {
  int at = 0;
  for (size_t i = 0; i < count; i++) {
    unsigned char c = (unsigned char)labels[i];
    uint64_t size;
    if (c == ' ') continue;
    if (c >= 128 || c == '.' || !dimension(type, at++, &size)) return false;
    if (!seen[c] && !cml_mul(*product, size, product)) return false;
    seen[c] = true;
  }
  return true;
}

static bool einsum(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  const cml_mil_value *equation = cml_mil_argument_constant(names, op, "equation");
  const cml_mil_argument *values = cml_mil_input(op, "values");
  if (!equation || equation->kind != CML_VALUE_TENSOR || !equation->strings || !equation->count || !values) return false;
  bool seen[128] = {false};
  uint64_t product = 1;
  const char *p = equation->strings[0].data;
  for (size_t i = 0; i < values->count; i++) {
    const cml_mil_definition *d = cml_mil_names_find(names, values->bindings[i].name);
    const cml_mil_type *type = values->bindings[i].value ? values->bindings[i].value->type : d ? d->type : NULL;
    size_t n = strcspn(p, ",-");
    if (!type || !einsum_operand(p, n, type, seen, &product)) return false;
    p += n + (p[n] == ',');
  }
  *out = product;
  return true;
}

static bool recurrent(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  static const char *const weights[] = {"weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back"};
  const cml_mil_type *x = cml_mil_argument_type(names, op, "x");
  uint64_t steps, batch, sum = 0, n;
  if (!dimension(x, 0, &steps) || !dimension(x, 1, &batch)) return false;
  for (size_t i = 0; i < 4; i++) {
    if (!cml_mil_input(op, weights[i]) && i >= 2) continue;
    if (!elements_of(names, op, weights[i], &n) || !cml_add(sum, n, &sum)) return false;
  }
  return cml_mul(steps, batch, &n) && cml_mul(n, sum, out);
}

static bool attention(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  const cml_mil_type *query = cml_mil_argument_type(names, op, "query");
  uint64_t elements, value_elements, source;
  if (!elements_of(names, op, "query", &elements) || !output_elements(op, &value_elements) || !query) return false;
  if (!dimension(cml_mil_argument_type(names, op, "key"), -2, &source) || !cml_add(elements, value_elements, &elements)) return false;
  return cml_mul(elements, source, out); /* B * L * (E + Ev) * S */
}

bool cml_mil_macs(const cml_mil_names *names, const cml_mil_op *op, uint64_t *out) {
  static const struct { const char *type; macs_function *macs; } rows[] = {
      {"conv", conv}, {"conv_transpose", conv_transpose}, {"linear", linear}, {"matmul", matmul}, {"einsum", einsum},
      {"rnn", recurrent}, {"gru", recurrent}, {"lstm", recurrent}, {"scaled_dot_product_attention", attention}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (!strcmp(op->type, rows[i].type)) return rows[i].macs(names, op, out);
  *out = 0;
  return true;
}
