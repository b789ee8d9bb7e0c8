/* Every operator with arguments that nobody would give it: random types, ranks, dims and values, absent and known, in all its
 * opsets. Nothing is expected of the results but that there is one or a refusal with words; the sanitizers see the rest. */
#include "test.h"

#include <math.h>
#include <sys/resource.h>

#include "op.h"

/* A result may be asked for that is too large for this machine: then memory is refused, and that is an answer. */
const char *__asan_default_options(void);
__attribute__((used, visibility("default"))) const char *__asan_default_options(void) {
  return "allocator_may_return_null=1:max_allocation_size_mb=512";
}
const char *__tsan_default_options(void);
__attribute__((used, visibility("default"))) const char *__tsan_default_options(void) { return __asan_default_options(); }

enum { ARGS = 64, DATA = 4096 };

static uint64_t state;

static uint64_t next(void) { /* xorshift64 */
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static int64_t below(int64_t n) { return (int64_t)(next() % (uint64_t)n); }

/* What modes and kinds are called, so that some calls get further than the words. */
static const char *const words[] = {"constant", "reflect", "replicate", "add", "update", "max", "valid", "same", "custom", "same_lower", "forward",
                                    "reverse", "bidirectional", "tanh", "sigmoid", "relu", "fp16", "fp32", "int32", "int8", "uint8", "bool", "EXACT",
                                    "TANH_APPROXIMATION", "STRICT_ALIGN_CORNERS", "DEFAULT", "bilinear", "nearest", "unnormalized", "CORNERS_HEIGHT_FIRST",
                                    "CENTER_SIZE_WIDTH_FIRST", "nchw,nchw->nchw", "ij,jk->ik", "", "nothing"};

static int64_t wild(void) {
  static const int64_t ends[] = {INT32_MAX, INT32_MIN, -1, 255, 65535};
  return below(40) == 0 ? ends[below(5)] : below(6) == 0 ? below(9) - 4 : below(4);
}

static void fill_data(cml_tensor *t, cml_string *strings) {
  int64_t n = cml_tensor_count(t);
  if (t->dtype == CML_STRING) {
    for (int64_t i = 0; i < n; i++) {
      const char *w = words[below((int64_t)(sizeof words / sizeof *words))];
      strings[i] = (cml_string){w, strlen(w)};
    }
    t->data = strings;
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    if (cml_dtype_is_float(t->dtype)) cml_tensor_set(t, i, below(30) ? (double)(below(17) - 8) / 4 : below(2) ? (double)NAN : (double)INFINITY);
    else cml_tensor_set_int(t, i, wild());
  }
}

static cml_dtype some_type(uint32_t mask) {
  cml_dtype found = CML_F32;
  int64_t seen = 0;
  for (int t = 1; t < CML_DTYPE_COUNT; t++)
    if (mask >> t & 1 && below(++seen) == 0) found = (cml_dtype)t;
  return found;
}

typedef struct call {
  cml_tensor tensors[ARGS];
  const cml_tensor *args[ARGS];
  uint16_t first[64];
  size_t count;
} call;

static void add_argument(call *c, const cml_param *p, const cml_tensor *like, cml_dtype *groups) {
  if (c->count == ARGS) return;
  cml_tensor *t = &c->tensors[c->count];
  *t = (cml_tensor){.dtype = some_type(p->types), .rank = (int32_t)(p->flags & CML_CONST && below(3) ? below(2) : below(5))};
  for (int32_t i = 0; i < t->rank; i++) t->dims[i] = below(12) ? 1 + below(4) : below(12) ? 0 : 5;
  if (like && !(p->flags & CML_CONST) && below(3)) {
    t->rank = like->rank;
    memcpy(t->dims, like->dims, sizeof t->dims);
  }
  if (p->group && p->group < 16) {
    if (groups[p->group] && p->types >> groups[p->group] & 1) t->dtype = groups[p->group];
    groups[p->group] = t->dtype;
  }
  uint64_t bytes = 0;
  assert_true(cml_tensor_bytes(t, &bytes));
  t->data = calloc(1, bytes + 1); /* exactly as large as it must be, and a NUL */
  cml_string *strings = t->data;
  fill_data(t, strings);
  c->args[c->count++] = t;
}

static void make_call(const cml_op *op, call *c) {
  cml_dtype groups[16] = {CML_DTYPE_NONE};
  c->count = 0;
  for (unsigned p = 0; p < op->param_count; p++) {
    const cml_param *param = &op->params[p];
    c->first[p] = (uint16_t)c->count;
    if (param->flags & CML_OPTIONAL && below(2)) continue;
    int64_t n = param->flags & CML_VARIADIC ? below(4) : 1;
    for (int64_t i = 0; i < n; i++) add_argument(c, param, c->count ? c->args[0] : NULL, groups);
  }
  c->first[op->param_count] = (uint16_t)c->count;
}

/* Returns whether the call had a result. */
static bool try_call(const cml_op *op, int opset) {
  static call c;
  cml_tensor outs[8] = {{0}};
  cml_error err = {0};
  make_call(op, &c);
  size_t most = op->max_outputs < 4 ? op->max_outputs : 4;
  size_t count = op->min_outputs + (most > op->min_outputs ? (size_t)below((int64_t)(most - op->min_outputs + 1)) : 0);
  cml_status status = cml_op_eval(op, opset, c.args, c.first, outs, count, &err);
  if (status) assert_true(err.text[0]);
  else cml_eval_free(outs, count);
  for (size_t i = 0; i < c.count; i++) free(c.tensors[i].data);
  return !status;
}

static const char *only;
static long rounds = 150;

static bool takes_tensors(const cml_op *op) {
  if (op->flags & (CML_OP_CONTROL | CML_OP_IMPURE) || !op->run || op->param_count > 40) return false;
  for (unsigned p = 0; p < op->param_count; p++)
    if (op->params[p].types == CML_M_LIST) return false;
  return strcmp(op->name, "make_list") != 0;
}

static void all_survive(void **unused) {
  (void)unused;
  long answered = 0, tried = 0;
  for (size_t i = 0; cml_op_at(i); i++) {
    const cml_op *op = cml_op_at(i);
    if (!takes_tensors(op) || (only && strcmp(only, op->name))) continue;
    int last = op->until ? op->until : CML_IOS18;
    for (long k = 0; k < rounds; k++) {
      state = (i + 1) * 0x9e3779b97f4a7c15u + (uint64_t)k * 0xbf58476d1ce4e5b9u + 1; /* each round alone can be repeated */
      if (getenv("CML_HOSTILE_TRACE")) fprintf(stderr, "%s %ld\n", op->name, k);
      answered += try_call(op, op->since + (int)below(last - op->since + 1));
      tried++;
    }
  }
  print_message("%ld calls, %ld answered\n", tried, answered);
  if (!only) assert_true(answered > tried / 100);
}

int main(int argc, char **argv) {
  struct rlimit limit = {UINT64_C(3) << 30, UINT64_C(3) << 30};
  if (!CML_SANITIZED) setrlimit(RLIMIT_AS, &limit);
  if (argc > 1) only = argv[1];
  if (argc > 2) rounds = strtol(argv[2], NULL, 10);
  const struct CMUnitTest tests[] = {cmocka_unit_test(all_survive)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
