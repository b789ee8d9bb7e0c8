/* The virtual machine's operators against torch's results.
 *
 * A file of cases (make_et_op_cases.py wrote it) holds for each the operator's name, the arguments in the order of its schema
 * and the outputs that eager torch gave. Numbers are little-endian:
 *
 *     file     "ETOP1\n", then cases to the end
 *     case     text name, u8 1 when the operator must refuse, f32 rtol, f32 atol, u8 arguments, arguments
 *     argument u8 kind and: N nothing | i i64 | b u8 | d f64 | s text | I u8 n, i64 each | D u8 n, f64 each | B u8 n, u8 each
 *              t tensor | T u8 n, (t tensor or N) each | o tensor (expected) | W u8 n, tensor each | m tensor (before), tensor (after)
 *     tensor   u8 torch scalar type, u8 rank, i32 sizes, u8 dim order, data
 *     text     u16 length, bytes
 *
 * Outputs start without memory and with sizes of 0: operators must size them. */
#include "test.h"

#include <math.h>

#include "et_op.h"

typedef struct reader {
  const unsigned char *at, *end;
} reader;

static const void *take(reader *r, size_t n) {
  if ((size_t)(r->end - r->at) < n) fail_msg("the file of cases is cut short");
  const void *p = r->at;
  r->at += n;
  return p;
}
#define TAKE(type, name) \
  static type name(reader *r) { type v; memcpy(&v, take(r, sizeof v), sizeof v); return v; }
TAKE(uint8_t, take_u8)
TAKE(uint16_t, take_u16)
TAKE(int32_t, take_i32)
TAKE(int64_t, take_i64)
TAKE(float, take_f32)
TAKE(double, take_f64)

enum { MAX_ITEMS = 64 };

typedef struct tensor {
  cml_et_local local;
  void *allocated;
} tensor;

static void take_tensor(reader *r, tensor *t) {
  int64_t sizes[CML_PTE_MAX_RANK], step = 1;
  uint8_t type = take_u8(r), rank = take_u8(r);
  for (int k = 0; k < rank; k++) sizes[k] = take_i32(r);
  cml_et_make(&t->local, cml_pte_scalar_dtype(type), rank, sizes, NULL);
  if (!t->local.t.dtype) t->local.t.dtype = CML_U1; /* no type of cml's */
  for (int k = 0; k < rank; k++) t->local.order[k] = take_u8(r);
  for (int k = rank - 1; k >= 0; k--) {
    t->local.strides[t->local.order[k]] = step;
    step *= sizes[t->local.order[k]];
  }
  size_t bytes = (size_t)t->local.t.capacity;
  t->allocated = malloc(bytes ? bytes : 1);
  memcpy(t->allocated, take(r, bytes), bytes);
  t->local.t.data = t->allocated;
  t->local.t.dynamism = CML_PTE_BOUNDED;
}

typedef struct arg {
  cml_et_value value, items[MAX_ITEMS], *pointers[MAX_ITEMS];
  tensor tensors[MAX_ITEMS], expected[MAX_ITEMS];
  double reals[MAX_ITEMS];
  bool booleans[MAX_ITEMS];
  size_t inputs, outputs; /* tensors to free; outputs to compare with expected */
} arg;

static void take_output(reader *r, arg *a, size_t k) {
  static const int64_t zeros[CML_PTE_MAX_RANK];
  take_tensor(r, &a->expected[k]);
  const cml_et_local *e = &a->expected[k].local;
  cml_et_make(&a->tensors[k].local, e->t.dtype, e->t.rank, zeros, NULL);
  memcpy(a->tensors[k].local.order, e->order, sizeof e->order);
  a->tensors[k].local.t.capacity = 0;
  a->tensors[k].local.t.owned = true;
  a->tensors[k].local.t.dynamism = CML_PTE_UNBOUNDED;
  a->outputs = k + 1;
}

static void take_list(reader *r, arg *a, char kind) {
  uint8_t n = take_u8(r);
  a->value.count = n;
  a->value.items = a->pointers;
  for (size_t k = 0; k < n; k++) {
    char item = kind == 'T' ? (char)take_u8(r) : kind;
    a->pointers[k] = &a->items[k];
    a->items[k].kind = item == 'I' ? CML_PTE_INTEGER : item == 'N' ? CML_PTE_NONE : CML_PTE_TENSOR;
    if (item == 'I') a->items[k].integer = take_i64(r);
    if (item == 't') take_tensor(r, &a->tensors[k]);
    if (item == 'W') take_output(r, a, k);
    a->items[k].kind == CML_PTE_TENSOR ? (void)(a->items[k].tensor = &a->tensors[k].local.t) : (void)0;
  }
  a->value.kind = kind == 'I' ? CML_PTE_INTEGERS : CML_PTE_TENSORS;
  for (size_t k = 0; k < n; k++)
    if (a->items[k].kind == CML_PTE_NONE) a->value.kind = CML_PTE_OPTIONAL_TENSORS;
}

static void take_arg(reader *r, arg *a) {
  char kind = (char)take_u8(r);
  memset(a, 0, sizeof *a);
  switch (kind) {
    case 'N': a->value.kind = CML_PTE_NONE; break;
    case 'i': a->value.kind = CML_PTE_INTEGER; a->value.integer = take_i64(r); break;
    case 'b': a->value.kind = CML_PTE_BOOLEAN; a->value.boolean = take_u8(r); break;
    case 'd': a->value.kind = CML_PTE_REAL; a->value.real = take_f64(r); break;
    case 's':
      a->value.kind = CML_PTE_STRING;
      a->value.count = take_u16(r);
      a->value.text = take(r, a->value.count);
      break;
    case 'D':
      a->value.kind = CML_PTE_REALS;
      a->value.count = take_u8(r);
      for (size_t k = 0; k < a->value.count; k++) a->reals[k] = take_f64(r);
      a->value.reals = a->reals;
      break;
    case 'B':
      a->value.kind = CML_PTE_BOOLEANS;
      a->value.count = take_u8(r);
      for (size_t k = 0; k < a->value.count; k++) a->booleans[k] = take_u8(r);
      a->value.booleans = a->booleans;
      break;
    case 'I': case 'T': case 'W': take_list(r, a, kind); break;
    default:
      a->value.kind = CML_PTE_TENSOR;
      a->value.tensor = &a->tensors[0].local.t;
      if (kind == 'o') take_output(r, a, 0);
      else take_tensor(r, &a->tensors[0]);
      if (kind == 'm') {
        take_tensor(r, &a->expected[0]);
        a->outputs = 1;
      }
  }
}

/* Counts elements that are too far from what is expected; says the first. */
static int compare(const cml_et_tensor *got, const cml_et_tensor *expected, float rtol, float atol, char *text, size_t room) {
  int64_t n = cml_et_numel(expected);
  int bad = 0;
  char a[128], b[128];
  if (!cml_et_same_shape(got, expected)) {
    snprintf(text, room, "shape %s, expected %s", cml_et_shape_text(got, a, sizeof a), cml_et_shape_text(expected, b, sizeof b));
    return 1;
  }
  for (int64_t i = 0; i < n; i++) {
    double g, e;
    int64_t gi = 0, ei = 0;
    cml_et_load_f64(&g, got, i, 1, 1);
    cml_et_load_f64(&e, expected, i, 1, 1);
    if (!cml_dtype_is_float(expected->dtype)) {
      cml_et_load_i64(&gi, got, i, 1, 1);
      cml_et_load_i64(&ei, expected, i, 1, 1);
      if (gi == ei) continue;
    } else if ((isnan(g) && isnan(e)) || g == e || fabs(g - e) <= atol + rtol * fabs(e)) {
      continue;
    }
    if (!bad++) snprintf(text, room, "element %lld is %.9g, expected %.9g", (long long)i, g, e);
  }
  return bad;
}

static void free_arg(arg *a) {
  for (size_t k = 0; k < MAX_ITEMS; k++) {
    if (a->tensors[k].allocated) free(a->tensors[k].allocated);
    else if (a->tensors[k].local.t.owned) cml_et_tensor_free(&a->tensors[k].local.t);
    free(a->expected[k].allocated);
  }
}

static arg args[24];

/* 1 when the case fails, after saying so. */
static int run_case(reader *r, int number) {
  char name[128] = {0}, text[640] = "";
  cml_et_value *values[24];
  cml_error error = {0};
  uint16_t size = take_u16(r);
  assert_true(size < sizeof name);
  memcpy(name, take(r, size), size);
  bool refuse = take_u8(r);
  float rtol = take_f32(r), atol = take_f32(r);
  size_t count = take_u8(r);
  assert_true(count <= 24);
  for (size_t i = 0; i < count; i++) {
    take_arg(r, &args[i]);
    values[i] = &args[i].value;
  }
  if (getenv("CML_VERBOSE")) fprintf(stderr, "# case %d, %s\n", number, name);
  const cml_et_op *op = cml_et_op_find(name, size);
  int bad = 0;
  if (!op) {
    bad = 1;
    snprintf(text, sizeof text, "no such operator");
  } else {
    cml_status status = cml_et_op_eval(op, values, count, &error);
    if (!!status != refuse) {
      bad = 1;
      snprintf(text, sizeof text, "%s", status ? error.text : "succeeds, and should refuse");
    } else if (status && !strstr(error.text, name)) {
      bad = 1;
      snprintf(text, sizeof text, "the error does not name it: %.180s", error.text);
    }
  }
  for (size_t i = 0; i < count && !bad && !refuse; i++)
    for (size_t k = 0; k < args[i].outputs && !bad; k++)
      bad = compare(&args[i].tensors[k].local.t, &args[i].expected[k].local.t, rtol, atol, text, sizeof text);
  if (bad) fprintf(stderr, "# case %d, %s: %s\n", number, name, text);
  for (size_t i = 0; i < count; i++) free_arg(&args[i]);
  return bad != 0;
}

static const char *path;

static void run_file(const char *file) {
  char recorded[1024];
  snprintf(recorded, sizeof recorded, "%s/tests/data/et/%s", getenv("CML_SOURCE") ? getenv("CML_SOURCE") : ".", file);
  FILE *f = fopen(path ? path : recorded, "rb");
  assert_non_null(f);
  fseek(f, 0, SEEK_END);
  size_t size = (size_t)ftell(f);
  rewind(f);
  unsigned char *bytes = malloc(size);
  assert_int_equal(fread(bytes, 1, size, f), size);
  fclose(f);
  reader r = {bytes, bytes + size};
  assert_memory_equal(take(&r, 6), "ETOP1\n", 6);
  int number = 0, failed = 0;
  for (; r.at < r.end; number++) failed += run_case(&r, number);
  free(bytes);
  if (failed) fail_msg("%d of %d cases fail", failed, number);
  printf("# %d cases\n", number);
  assert_true(number > 0);
}

static void test_aten(void **state) {
  (void)state;
  run_file("aten.cases");
}

/* quantized_decomposed, llama, copies: make_et_custom_cases.py wrote them. */
static void test_custom(void **state) {
  (void)state;
  if (!path) run_file("custom.cases");
}

/* Indices that were checked must not be written over before they are used: an output on top of them is refused. */
static void test_indices_apart(void **state) {
  static const char *const names[] = {"aten::index_select.out", "aten::gather.out", "aten::scatter.src_out", "aten::embedding.out"};
  int64_t memory[4] = {0, 1, 0, 1}, source[4] = {5, 6, 7, 8}, two = 2;
  (void)state;
  for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
    cml_et_local self, index, out;
    cml_et_make(&self, CML_I64, 1, (int64_t[]){4}, source);
    if (k == 3) cml_et_make(&self, CML_I64, 2, (int64_t[]){4, 1}, source);
    cml_et_make(&index, CML_I64, 1, &two, memory);
    cml_et_make(&out, CML_I64, k == 3 ? 2 : 1, k == 3 ? (int64_t[]){2, 1} : &two, memory + 1); /* over the second index */
    cml_et_value t = {.kind = CML_PTE_TENSOR, .tensor = &self.t}, x = {.kind = CML_PTE_TENSOR, .tensor = &index.t},
                 o = {.kind = CML_PTE_TENSOR, .tensor = &out.t}, zero = {.kind = CML_PTE_INTEGER}, no = {.kind = CML_PTE_BOOLEAN};
    cml_et_value *given[4][6] = {{&t, &zero, &x, &o}, {&t, &zero, &x, &no, &o}, {&t, &zero, &x, &x, &o}, {&t, &x, &zero, &no, &no, &o}};
    static const size_t counts[4] = {4, 5, 5, 6};
    const cml_et_op *op = cml_et_op_find(names[k], strlen(names[k]));
    cml_error error = {0};
    assert_non_null(op);
    assert_int_equal(cml_et_op_eval(op, given[k], counts[k], &error), CML_INVALID);
    assert_non_null(strstr(error.text, "indices lie in the memory of output"));
  }
}

/* ---- large tensors in little memory: by rules that need no peer ---- */

enum { MANY = 100000, ROOM = 400 << 10 };

static cml_status eval_within(const char *name, cml_et_value **given, size_t count, cml_error *err) {
  const cml_et_op *op = cml_et_op_find(name, strlen(name));
  assert_non_null(op);
  return cml_et_op_eval_within(op, given, count, NULL, ROOM, err);
}

/* Indices and masks with more places than are looked at together. */
static void test_many_places(void **state) {
  float *x = malloc(MANY * sizeof *x), *y = malloc(MANY * sizeof *y);
  int64_t *index = malloc(MANY * sizeof *index), many = MANY, held = 0, thirds = MANY / 3 + 1;
  uint8_t *bits = malloc(MANY);
  cml_error error = {0};
  (void)state;
  for (int64_t i = 0; i < MANY; i++) x[i] = (float)i, index[i] = i * 7 % MANY - (i & 1 ? MANY : 0), bits[i] = i % 3 == 0, y[i] = -1;
  cml_et_local self, list, mask, out, few, one;
  cml_et_make(&self, CML_F32, 1, &many, x);
  cml_et_make(&list, CML_I64, 1, &many, index);
  cml_et_make(&mask, CML_BOOL, 1, &many, bits);
  cml_et_make(&out, CML_F32, 1, &many, y);
  cml_et_make(&few, CML_F32, 1, &thirds, y);
  cml_et_make(&one, CML_F32, 0, NULL, &(float){0.5f});
  cml_et_value vself = {.kind = CML_PTE_TENSOR, .tensor = &self.t}, vlist = {.kind = CML_PTE_TENSOR, .tensor = &list.t},
               vmask = {.kind = CML_PTE_TENSOR, .tensor = &mask.t}, vout = {.kind = CML_PTE_TENSOR, .tensor = &out.t},
               vfew = {.kind = CML_PTE_TENSOR, .tensor = &few.t}, vone = {.kind = CML_PTE_TENSOR, .tensor = &one.t}, no = {.kind = CML_PTE_BOOLEAN};
  cml_et_value by_index = {.kind = CML_PTE_OPTIONAL_TENSORS, .count = 1, .items = (cml_et_value *[]){&vlist}},
               by_mask = {.kind = CML_PTE_OPTIONAL_TENSORS, .count = 1, .items = (cml_et_value *[]){&vmask}};
  if (eval_within("aten::index.Tensor_out", (cml_et_value *[]){&vself, &by_index, &vout}, 3, &error)) fail_msg("%s", error.text);
  for (int64_t i = 0; i < MANY; i++) assert_true(y[i] == (float)(i * 7 % MANY));
  if (eval_within("aten::index.Tensor_out", (cml_et_value *[]){&vself, &by_mask, &vfew}, 3, &error)) fail_msg("%s", error.text);
  for (int64_t i = 0; i < thirds; i++) assert_true(y[i] == (float)(3 * i));
  if (eval_within("aten::index_put.out", (cml_et_value *[]){&vself, &by_mask, &vone, &no, &vout}, 5, &error)) fail_msg("%s", error.text);
  for (int64_t i = 0; i < MANY; i++) held += y[i] == (i % 3 ? (float)i : 0.5f);
  assert_int_equal(held, MANY);
  index[MANY - 1] = MANY; /* the last index of all is wrong: nothing may be written */
  assert_int_equal(eval_within("aten::index_put_", (cml_et_value *[]){&vout, &by_index, &vone, &no}, 4, &error), CML_INVALID);
  assert_true(y[7] == 7 && y[1] == 1);
  free(x), free(y), free(index), free(bits);
}

/* A plane that is larger than what is looked at together; and windows that hold no element, whose index torch gives so. */
static void test_large_planes(void **state) {
  enum { H = 700, W = 500 };
  float *x = malloc(H * W * sizeof *x), *y = malloc(H * W * sizeof *y);
  int64_t *at = malloc(H * W * sizeof *at), sizes[4] = {1, 1, H, W}, half[4] = {1, 1, H / 2, W / 2}, small[4] = {1, 1, 2, 2}, single[4] = {1, 1, 1, 1};
  cml_error error = {0};
  (void)state;
  for (int64_t i = 0; i < H * W; i++) x[i] = (float)(i % 977);
  cml_et_local image, out, places;
  cml_et_make(&image, CML_F32, 4, sizes, x);
  cml_et_make(&out, CML_F32, 4, half, y);
  cml_et_make(&places, CML_I64, 4, half, at);
  cml_et_value numbers[6], *two[2], *one[2], *three[2], vimage = {.kind = CML_PTE_TENSOR, .tensor = &image.t}, vout = {.kind = CML_PTE_TENSOR, .tensor = &out.t},
               vplaces = {.kind = CML_PTE_TENSOR, .tensor = &places.t}, no = {.kind = CML_PTE_BOOLEAN}, none = {.kind = CML_PTE_INTEGERS};
  for (int k = 0; k < 6; k++) numbers[k] = (cml_et_value){.kind = CML_PTE_INTEGER, .integer = k / 2 + 1};
  for (int k = 0; k < 2; k++) one[k] = &numbers[k], two[k] = &numbers[2 + k], three[k] = &numbers[4 + k];
  cml_et_value ones = {.kind = CML_PTE_INTEGERS, .count = 2, .items = one}, twos = {.kind = CML_PTE_INTEGERS, .count = 2, .items = two},
               threes = {.kind = CML_PTE_INTEGERS, .count = 2, .items = three};
  if (eval_within("aten::max_pool2d_with_indices.out", (cml_et_value *[]){&vimage, &twos, &none, &none, &none, &no, &vout, &vplaces}, 8, &error))
    fail_msg("%s", error.text);
  for (int64_t i = 0; i < H / 2; i++)
    for (int64_t j = 0; j < W / 2; j++) {
      int64_t best = 2 * i * W + 2 * j;
      for (int k = 1; k < 4; k++) {
        int64_t other = (2 * i + k / 2) * W + 2 * j + k % 2;
        if (x[other] > x[best]) best = other;
      }
      assert_true(y[i * (W / 2) + j] == x[best] && at[i * (W / 2) + j] == best);
    }
  cml_et_make(&image, CML_F32, 4, small, x);
  cml_et_make(&out, CML_F32, 4, single, y);
  cml_et_make(&places, CML_I64, 4, single, at);
  if (eval_within("aten::max_pool2d_with_indices.out", (cml_et_value *[]){&vimage, &twos, &ones, &ones, &threes, &no, &vout, &vplaces}, 8, &error))
    fail_msg("%s", error.text);
  assert_true(y[0] == -INFINITY && at[0] == 6); /* torch.max_pool2d(x, 2, 1, 1, 3): the window's first place is row 2, column 2 */
  free(x), free(y), free(at);
}

int main(int argc, char **argv) {
  if (argc > 1) path = argv[1];
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_aten), cmocka_unit_test(test_custom), cmocka_unit_test(test_indices_apart),
                                     cmocka_unit_test(test_many_places), cmocka_unit_test(test_large_planes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
