/* Plans: the arena is as large as what has to live at once, by hand for small programs, within 5 % for the shared models. */
#include "test.h"

#include <glob.h>
#include <string.h>

#include "container.h"
#include "executable.h"

static void memory_of(cml_model *model, uint64_t *arena, uint64_t *live) {
  uint64_t packed;
  cml_executable *e;
  cml_error err;
  const cml_prepare_options options = {.threads = 1};
  *arena = *live = 0;
  if (cml_executable_prepare(model, &options, &e, &err)) return; /* other tests tell which models run */
  cml_executable_memory(e, arena, &packed, live);
  cml_executable_unref(e);
}

#define HEAD(input)                                                                                                            \
  "program(1.0)\n{\n  func main<ios16>(tensor<fp32, " input "> x) {\n"                                                              \
  "    tensor<int32, []> axis = const()[name = tensor<string, []>(\"axis\"), val = tensor<int32, []>(0)];\n"                        \
  "    tensor<int32, [1]> axes = const()[name = tensor<string, []>(\"axes\"), val = tensor<int32, [1]>([0])];\n"                    \
  "    tensor<int32, [1]> two = const()[name = tensor<string, []>(\"two\"), val = tensor<int32, [1]>([2])];\n"                      \
  "    tensor<int32, []> halves = const()[name = tensor<string, []>(\"halves\"), val = tensor<int32, []>(2)];\n"                    \
  "    tensor<bool, []> no = const()[name = tensor<string, []>(\"no\"), val = tensor<bool, []>(false)];\n"
#define OP(dims, name, call) "    tensor<fp32, " dims "> " name " = " call "[name = tensor<string, []>(\"" name "\")];\n"
#define CONCAT(a, b) "concat(axis = axis, interleave = no, values = (" a ", " b "))"
#define TILE(a) "tile(reps = two, x = " a ")"
#define SUM(a) "reduce_sum(axes = axes, keep_dims = no, x = " a ")"
#define TAIL(output) "  } -> (" output ");\n}\n"

static cml_model *parse(const char *text) {
  cml_model *model = calloc(1, sizeof *model);
  assert_ok(cml_mil_parse_text(cml_span_of(text, strlen(text)), &model->arena, &model->program, err));
  model->type_number = 502;
  return model;
}

/* Each value takes up to 128 bytes more than its numbers. */
static void needs(const char *text, uint64_t kib) {
  cml_model *model = parse(text);
  uint64_t arena, live;
  memory_of(model, &arena, &live);
  assert_in_range(live, kib << 10, (kib << 10) + 768);
  assert_int_equal(arena, live);
  cml_model_close(model);
}

/* x: 1024 numbers of 4 bytes; b and c together are the most, 16 KiB + 32 KiB. */
static void a_chain_needs_two_neighbours(void **state) {
  (void)state;
  needs(HEAD("[1024]") OP("[2048]", "a", TILE("x")) OP("[4096]", "b", TILE("a")) OP("[8192]", "c", TILE("b")) OP("[]", "s", SUM("c")) TAIL("s"), 16 + 32);
}

/* One of the two that are joined lies in the result, so that the result is all there is. */
static void what_is_joined_lies_in_the_result(void **state) {
  (void)state;
  needs(HEAD("[1024]") OP("[2048]", "a", CONCAT("x", "x")) OP("[4096]", "b", CONCAT("a", "a")) OP("[8192]", "c", CONCAT("b", "b")) OP("[]", "s", SUM("c"))
            TAIL("s"), 32);
  needs(HEAD("[1024]") OP("[2048]", "a", TILE("x")) OP("[2048]", "b", TILE("x")) OP("[4096]", "c", CONCAT("a", "b")) OP("[]", "s", SUM("c")) TAIL("s"), 16);
}

/* a (8 KiB) waits for its neighbour d while b (16 KiB) and c (32 KiB) come and go: 56 KiB. In the result e (16 KiB) it would
 * already take that whole beside them. */
static void a_whole_does_not_lift_the_peak(void **state) {
  (void)state;
  needs(HEAD("[1024]") OP("[2048]", "a", TILE("x")) OP("[4096]", "b", TILE("a")) OP("[8192]", "c", TILE("b")) OP("[]", "t", SUM("c"))
            OP("[2048]", "d", "add(x = a, y = t)") OP("[4096]", "e", CONCAT("d", "a")) TAIL("e"), 8 + 16 + 32);
}

static void halves_are_read_where_they_are(void **state) {
  (void)state;
  needs(HEAD("[1024]") OP("[2048]", "a", TILE("x")) "    tensor<fp32, [1024]> l, tensor<fp32, [1024]> h = split(axis = axis, num_splits = halves, x = a)[name = tensor<string, []>(\"l\")];\n"
            OP("[]", "p", SUM("l")) OP("[]", "q", SUM("h")) OP("[]", "s", "add(x = p, y = q)") TAIL("s"), 8);
}

/* As written all three tiles are alive at once; each could be summed before the next is made. */
static void steps_run_in_the_order_that_needs_least(void **state) {
  (void)state;
  needs(HEAD("[1024]") OP("[2048]", "a", TILE("x")) OP("[2048]", "b", TILE("x")) OP("[2048]", "c", TILE("x")) OP("[]", "p", SUM("a")) OP("[]", "q", SUM("b"))
            OP("[]", "r", SUM("c")) OP("[]", "t", "add(x = p, y = q)") OP("[]", "s", "add(x = t, y = r)") TAIL("s"), 8);
}

/* a is read last within the block of y: it is needed until y has run, b until the sum after it. */
static void lives_last_until_blocks_have_run(void **state) {
  (void)state;
  cml_model *model = parse(HEAD("[1024]") OP("[2048]", "a", TILE("x")) OP("[2048]", "b", "relu(x = a)") OP("[]", "s", SUM("b"))
      "    tensor<fp32, []> zero = const()[name = tensor<string, []>(\"zero\"), val = tensor<fp32, []>(0)];\n"
      "    tensor<bool, []> more = greater(x = s, y = zero)[name = tensor<string, []>(\"more\")];\n"
      "    tensor<fp32, []> y = cond(pred = more)[name = tensor<string, []>(\"y\")] {\n" OP("[]", "t", SUM("a")) "    } -> (t) {\n    } -> (zero);\n"
      OP("[]", "u", SUM("b")) OP("[]", "z", "add(x = u, y = y)") TAIL("z"));
  cml_executable *e;
  cml_planned_value values[32];
  size_t found = 0;
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.passes = "parts", .threads = 1}, &e, err));
  size_t n = cml_executable_plan(e, values, 32);
  assert_in_range(n, 1, 32);
  for (size_t i = 0; i < n; i++) {
    static const struct {
      const char *name;
      size_t first, last;
    } expected[] = {{"a", 0, 4}, {"b", 1, 5}, {"s", 2, 3}, {"more", 3, 4}, {"u", 5, 6}};
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++)
      if (!values[i].scratch && !strcmp(values[i].name, expected[k].name)) {
        found++;
        if (values[i].first != expected[k].first || values[i].last != expected[k].last)
          fail_msg("%s lives from %zu to %zu", values[i].name, values[i].first, values[i].last);
      }
  }
  assert_int_equal(found, 5);
  cml_executable_unref(e);
  cml_model_close(model);
}

/* [x, 2x, relu(x)] cut and joined again in other places; parts of parts. */
static void parts_hold_the_same_numbers(void **state) {
  (void)state;
  static const char text[] = HEAD("[64]") "    tensor<int32, []> parts = const()[name = tensor<string, []>(\"parts\"), val = tensor<int32, []>(2)];\n"
      OP("[64]", "d", "add(x = x, y = x)") OP("[64]", "r", "relu(x = x)") OP("[128]", "c", CONCAT("d", "r"))
      "    tensor<fp32, [64]> l, tensor<fp32, [64]> h = split(axis = axis, num_splits = parts, x = c)[name = tensor<string, []>(\"l\")];\n"
      OP("[64]", "m", "sub(x = h, y = l)") OP("[128]", "e", CONCAT("m", "l")) OP("[256]", "f", CONCAT("e", "c")) TAIL("f");
  cml_model *model = parse(text);
  cml_executable *e;
  cml_session *s;
  float x[64];
  for (int i = 0; i < 64; i++) x[i] = (float)(i * 7 % 64 - 30);
  const cml_tensor in = {.dtype = CML_F32, .rank = 1, .dims = {64}, .data = x};
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.passes = "parts", .threads = 1}, &e, err));
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", &in, err));
  for (int round = 0; round < 2; round++) {
    assert_ok(cml_session_run(s, err));
    const float *f = cml_session_output(s, 0)->data;
    for (int i = 0; i < 64; i++) {
      float twice = 2 * x[i], positive = x[i] > 0 ? x[i] : 0;
      assert_true(f[i] == positive - twice && f[64 + i] == twice && f[128 + i] == twice && f[192 + i] == positive);
    }
  }
  cml_session_destroy(s);
  cml_executable_unref(e);
  cml_model_close(model);
}

#define INT(name, value) "    tensor<int32, []> " name " = const()[name = tensor<string, []>(\"" name "\"), val = tensor<int32, []>(" value ")];\n"
#define FOUND                                                                                                                          \
  INT("one", "1")                                                                                                                      \
  "    tensor<int32, [1]> last = const()[name = tensor<string, []>(\"last\"), val = tensor<int32, [1]>([1])];\n"                        \
  "    tensor<string, []> same = const()[name = tensor<string, []>(\"same\"), val = tensor<string, []>(\"same\")];\n"                 \
  "    tensor<fp32, [1, 2, 3]> w = const()[name = tensor<string, []>(\"w\"), val = tensor<fp32, [1, 2, 3]>([[[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]]])];\n" \
  "    tensor<int32, [?, 1]> found = non_zero(x = x)[name = tensor<string, []>(\"found\")];\n"                                        \
  "    tensor<int32, [?]> places = squeeze(x = found, axes = last)[name = tensor<string, []>(\"places\")];\n"

/* Two of x are not zero, which gives y; and then three, which the program cannot do. */
static void two_are_found(const char *text, const float *y, int n) {
  cml_model *model = parse(text);
  cml_executable *e;
  cml_session *s;
  float x[] = {0, 1, 0, 1};
  const cml_tensor in = {.dtype = CML_F32, .rank = 1, .dims = {4}, .data = x};
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.threads = 1}, &e, err));
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", &in, err));
  assert_ok(cml_session_run(s, err));
  assert_int_equal(cml_tensor_count(cml_session_output(s, 0)), n);
  assert_memory_equal(cml_session_output(s, 0)->data, y, (size_t)n * sizeof *y);
  x[0] = 1;
  cml_error error;
  assert_ok(cml_session_set_input(s, "x", &in, err));
  assert_int_not_equal(cml_session_run(s, &error), CML_OK);
  cml_session_destroy(s);
  cml_executable_unref(e);
  cml_model_close(model);
}

/* Of a convolution's channels only a run says how many there are, though its result's shape is known: as many as the weight has, or it is
 * refused then. */
static void unknown_arguments_are_looked_at_again(void **state) {
  (void)state;
  static const char text[] = HEAD("[4]") FOUND
      "    tensor<fp32, [1, 4, 2]> d = const()[name = tensor<string, []>(\"d\"), val = tensor<fp32, [1, 4, 2]>([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]])];\n"
      OP("[1, ?, 2]", "some", "gather(x = d, indices = places, axis = one)")
      OP("[1, 1, 2]", "y", "conv(x = some, weight = w, pad_type = same)") TAIL("y");
  two_are_found(text, (const float[]){30 + 400 + 140 + 1600, 3 + 40 + 14 + 160}, 2);
}

/* And of the one behind squeeze the rank. */
static void unknown_ranks_stay(void **state) {
  (void)state;
  static const char text[] = HEAD("[4]") FOUND
      "    tensor<fp32, [2, 4, 2, 1]> d = const()[name = tensor<string, []>(\"d\"), val = tensor<fp32, [2, 4, 2, 1]>([[[[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]], "
      "[[7.0], [8.0]]], [[[0.0], [0.0]], [[-1.0], [0.0]], [[0.0], [0.0]], [[1.0], [0.0]]]])];\n"
      OP("[2, ?, 2, 1]", "some", "gather(x = d, indices = places, axis = one)")
      "    tensor<fp32, [...]> flat = squeeze(x = some)[name = tensor<string, []>(\"flat\")];\n"
      OP("[?, 1, ?]", "c", "conv(x = flat, weight = w, pad_type = same)") OP("[?, 1, ?]", "y", "relu(x = c)") TAIL("y");
  two_are_found(text, (const float[]){30 + 400 + 140 + 1600, 3 + 40 + 14 + 160, 10, 1}, 4);
}

static void shared_models_waste_little(void **state) {
  (void)state;
  char pattern[512];
  glob_t found = {0};
  snprintf(pattern, sizeof pattern, "%s/../shared/reference/ops/mlprogram-*/model.mlpackage", getenv("CML_SOURCE"));
  if (glob(pattern, 0, NULL, &found)) {
    print_message("skip: ../shared/reference is absent\n");
    skip();
  }
  size_t planned = 0, step = getenv("CML_REFERENCE_SHARE") ? 4 : 1;
  for (size_t i = 0; i < found.gl_pathc; i += step) {
    cml_container *c;
    cml_model *model;
    uint64_t arena, live;
    cml_error err;
    const cml_container_options exact = {.only_exact = true};
    if (cml_container_open(found.gl_pathv[i], &exact, &c, &err)) continue;
    const cml_container_model *m = cml_container_model_at(c, 0);
    if (m && !cml_model_read(m->tree, m->root, NULL, &model, &err)) {
      memory_of(model, &arena, &live);
      if (arena > live + live / 20) fail_msg("%s: arena %llu, live %llu", found.gl_pathv[i], (unsigned long long)arena, (unsigned long long)live);
      planned += live > 0;
      cml_model_close(model);
    }
    cml_container_close(c);
  }
  assert_true(planned * step > found.gl_pathc / 2);
  globfree(&found);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_chain_needs_two_neighbours), cmocka_unit_test(what_is_joined_lies_in_the_result),
                                     cmocka_unit_test(a_whole_does_not_lift_the_peak), cmocka_unit_test(halves_are_read_where_they_are),
                                     cmocka_unit_test(steps_run_in_the_order_that_needs_least), cmocka_unit_test(parts_hold_the_same_numbers), cmocka_unit_test(lives_last_until_blocks_have_run), cmocka_unit_test(unknown_arguments_are_looked_at_again), cmocka_unit_test(unknown_ranks_stay),
                                     cmocka_unit_test(shared_models_waste_little)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
