/* Reading recorded cases, and checking an operator against one. */
#include "op_cases.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- reading ---- */

static const char *read_text(cml_cursor *c, cml_arena *a, size_t *size) {
  size_t n = cml_cursor_u16(c);
  cml_span s = cml_cursor_take(c, n);
  char *p = cml_arena_alloc(a, n + 1);
  if (s.data && p) memcpy(p, s.data, n);
  if (size) *size = s.data ? n : 0;
  return p;
}

/* Data is copied to memory of exactly its size, so that a sanitizer sees reads past the end. */
static bool read_tensor(cml_cursor *c, cml_arena *a, cml_tensor *t) {
  size_t size;
  uint64_t bytes;
  const char *dtype = read_text(c, a, &size);
  *t = (cml_tensor){.dtype = cml_dtype_by_name(dtype, size), .rank = cml_cursor_u8(c)};
  if (!t->dtype || t->rank > CML_MAX_RANK) return false;
  for (int32_t i = 0; i < t->rank; i++) t->dims[i] = (int32_t)cml_cursor_u32(c);
  if (!cml_tensor_bytes(t, &bytes)) return false;
  t->data = malloc(bytes ? bytes : 1);
  if (!t->data) return false;
  if (t->dtype == CML_STRING) {
    cml_string *s = t->data;
    for (int64_t i = 0, n = cml_tensor_count(t); i < n; i++) s[i].data = read_text(c, a, &s[i].size);
    return !c->failed;
  }
  cml_span s = cml_cursor_take(c, bytes);
  if (bytes && s.data) memcpy(t->data, s.data, bytes);
  return !c->failed;
}

bool op_case_next(cml_cursor *c, cml_arena *a, op_case *out) {
  if (!cml_cursor_left(c)) return false;
  cml_span magic = cml_cursor_take(c, 4);
  *out = (op_case){.op = read_text(c, a, NULL), .name = read_text(c, a, NULL)};
  out->opset = cml_cursor_u8(c);
  out->refused = cml_cursor_u8(c);
  uint32_t bits = cml_cursor_u32(c);
  memcpy(&out->atol, &bits, 4);
  bits = cml_cursor_u32(c);
  memcpy(&out->rtol, &bits, 4);
  size_t n = cml_cursor_u8(c);
  bool good = magic.data && !memcmp(magic.data, "CASE", 4) && n <= CASE_ARGS;
  for (size_t i = 0; good && i < n; i++) {
    out->params[i] = read_text(c, a, NULL);
    good = read_tensor(c, a, &out->args[i]);
    out->arg_count++;
  }
  n = cml_cursor_u8(c);
  good = good && n <= CASE_OUTPUTS;
  for (size_t i = 0; good && i < n; i++) {
    good = read_tensor(c, a, &out->outputs[i]);
    out->output_count++;
  }
  if (!good) c->failed = true;
  return good && !c->failed;
}

/* ---- checking ---- */

static const char *complain(cml_arena *a, const char *format, ...) {
  char *text = cml_arena_alloc(a, 512);
  va_list args;
  va_start(args, format);
  vsnprintf(text, 512, format, args);
  va_end(args);
  return text;
}

/* Arguments in the order of the row's parameters. */
static const char *arrange(const op_case *t, const cml_op *op, cml_arena *a, const cml_tensor **args, uint16_t *first) {
  size_t n = 0;
  for (unsigned p = 0; p < op->param_count; p++) {
    first[p] = (uint16_t)n;
    for (size_t i = 0; i < t->arg_count; i++)
      if (!strcmp(t->params[i], op->params[p].name)) args[n++] = &t->args[i];
  }
  first[op->param_count] = (uint16_t)n;
  return n == t->arg_count ? NULL : complain(a, "an argument has no parameter of its name");
}

static const char *compare(const op_case *t, cml_arena *a, size_t k, const cml_tensor *got) {
  const cml_tensor *want = &t->outputs[k];
  if (got->dtype != want->dtype)
    return complain(a, "output %zu is %s, expected %s", k, cml_dtype_name(got->dtype), cml_dtype_name(want->dtype));
  if (!cml_tensor_same_shape(got, want))
    return complain(a, "output %zu has another shape: rank %d, expected %d; first dims %lld, %lld", k, (int)got->rank, (int)want->rank,
                    (long long)got->dims[0], (long long)want->dims[0]);
  for (int64_t i = 0, n = cml_tensor_count(want); i < n; i++) {
    double g = cml_tensor_get(got, i), w = cml_tensor_get(want, i);
    if (g == w || (isnan(g) && isnan(w))) continue;
    if (!(fabs(g - w) <= (double)t->atol + (double)t->rtol * fabs(w)))
      return complain(a, "output %zu, element %lld of %lld: %.9g, expected %.9g", k, (long long)i, (long long)n, g, w);
  }
  return NULL;
}

/* With the activations' dims (or ranks) unknown, infer must not refuse what is right, nor promise what is wrong. */
static const char *check_unknown(const op_case *t, const cml_op *op, cml_arena *a, const cml_tensor **args, const uint16_t *first, bool ranks) {
  cml_tensor hidden[CASE_ARGS], outs[CASE_OUTPUTS] = {{0}}, *pointers[CASE_OUTPUTS];
  const cml_tensor *seen[CASE_ARGS];
  for (unsigned p = 0; p < op->param_count; p++)
    for (size_t i = first[p]; i < first[p + 1]; i++) {
      hidden[i] = *args[i];
      if (!(op->params[p].flags & CML_CONST)) {
        hidden[i].data = NULL;
        if (!ranks) hidden[i].rank = CML_RANK_UNKNOWN;
        for (int32_t k = 0; k < CML_MAX_RANK; k++) hidden[i].dims[k] = CML_DIM_UNKNOWN;
      }
      seen[i] = &hidden[i];
    }
  for (size_t k = 0; k < CASE_OUTPUTS; k++) pointers[k] = &outs[k];
  cml_call c = {.op = op, .name = t->name, .opset = t->opset, .args = seen, .first = first, .outs = pointers, .out_count = t->output_count};
  cml_error err = {0};
  if (op->infer(&c, &err)) return complain(a, "with unknown %s: %s", ranks ? "dims" : "ranks", err.text);
  for (size_t k = 0; k < t->output_count; k++) {
    const cml_tensor *want = &t->outputs[k];
    bool good = outs[k].dtype == want->dtype && (outs[k].rank < 0 || outs[k].rank == want->rank);
    for (int32_t i = 0; good && i < outs[k].rank; i++) good = outs[k].dims[i] < 0 || outs[k].dims[i] == want->dims[i];
    if (!good) return complain(a, "with unknown %s, infer promised another output %zu", ranks ? "dims" : "ranks", k);
  }
  return NULL;
}

const char *op_case_check(const op_case *t, cml_arena *a) {
  const cml_op *op = cml_op_find(t->op, t->opset);
  if (!op) return complain(a, "there is no such operator in opset %d", t->opset);
  const cml_tensor *args[CASE_ARGS];
  uint16_t first[CASE_ARGS + 1];
  const char *wrong = arrange(t, op, a, args, first);
  if (wrong) return wrong;
  cml_tensor outs[CASE_OUTPUTS] = {{0}};
  size_t count = t->refused ? op->min_outputs : t->output_count;
  cml_error err = {0};
  cml_status status = cml_op_eval(op, t->opset, args, first, outs, count, &err);
  if (t->refused) {
    if (!status) cml_eval_free(outs, count);
    return !status ? complain(a, "was not refused") : err.text[0] ? NULL : complain(a, "was refused without a word");
  }
  if (status) return complain(a, "%s", err.text);
  for (size_t k = 0; k < count && !wrong; k++) wrong = compare(t, a, k, &outs[k]);
  cml_eval_free(outs, count);
  if (!wrong) wrong = check_unknown(t, op, a, args, first, true);
  if (!wrong) wrong = check_unknown(t, op, a, args, first, false);
  return wrong;
}

/* ---- hostile arguments ---- */

static uint32_t roll(uint64_t *state, uint32_t n) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(*state >> 33) % n;
}

/* Another shape with as many bytes of data as that shape needs, or extreme values in the shape that it has. */
static void mutate(cml_tensor *t, uint64_t *state) {
  static const int64_t extremes[] = {INT32_MIN, -2, -1, 0, 1, 2, 3, 7, 1000, INT32_MAX};
  uint64_t bytes;
  if (t->dtype == CML_STRING) {
    static const char *const words[] = {"", "x", "int32", "LINEAR", "constant"};
    const char *word = words[roll(state, 5)];
    if (cml_tensor_count(t) > 0) *(cml_string *)t->data = (cml_string){word, strlen(word)};
    return;
  }
  if (roll(state, 2)) {
    for (int64_t i = 0, n = cml_tensor_count(t); i < n; i++)
      if (!roll(state, 3)) cml_tensor_set(t, i, roll(state, 8) ? (double)extremes[roll(state, 10)] : NAN);
    return;
  }
  t->rank = (int32_t)roll(state, 6);
  for (int32_t i = 0; i < t->rank; i++) t->dims[i] = roll(state, 4);
  if (!cml_tensor_bytes(t, &bytes)) return;
  free(t->data);
  t->data = calloc(1, bytes ? bytes : 1);
  for (uint64_t i = 0; t->data && i < bytes; i++) ((uint8_t *)t->data)[i] = t->dtype == CML_BOOL ? (uint8_t)roll(state, 2) : (uint8_t)roll(state, 256);
}

void op_case_attack(op_case *t, uint64_t *state) {
  const cml_op *op = cml_op_find(t->op, t->opset);
  const cml_tensor *args[CASE_ARGS];
  uint16_t first[CASE_ARGS + 1];
  cml_arena arena = CML_ARENA_INIT;
  cml_tensor outs[CASE_OUTPUTS] = {{0}}, *pointers[CASE_OUTPUTS];
  size_t count = op && t->output_count < op->min_outputs ? op->min_outputs : t->output_count;
  cml_error err = {0};
  if (op && t->arg_count && !arrange(t, op, &arena, args, first)) {
    for (uint32_t k = 1 + roll(state, 2); k > 0; k--) mutate(&t->args[roll(state, (uint32_t)t->arg_count)], state);
    for (size_t k = 0; k < CASE_OUTPUTS; k++) pointers[k] = &outs[k];
    cml_call c = {.op = op, .name = t->name, .opset = t->opset, .args = args, .first = first, .outs = pointers, .out_count = count};
    uint64_t bytes = 0, total = 0;
    bool small = !op->infer(&c, &err) && c.scratch_size < 1 << 22;
    for (size_t k = 0; small && k < count; k++) {
      small = !cml_tensor_known_shape(&outs[k]) || (cml_tensor_bytes(&outs[k], &bytes) && bytes < 1 << 22);
      total += bytes;
    }
    if (small && total < 1 << 22 && !cml_op_eval(op, t->opset, args, first, outs, count, &err)) cml_eval_free(outs, count);
  }
  cml_arena_free(&arena);
}
