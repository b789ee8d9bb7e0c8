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

/* x: 1024 numbers of 4 bytes. a = x|x, b = a|a, c = b|b, and c's sum: b and c together are the most, 16 KiB + 32 KiB. */
static void a_chain_needs_two_neighbours(void **state) {
  (void)state;
  static const char text[] =
      "program(1.0)\n{\n  func main<ios16>(tensor<fp32, [1024]> x) {\n"
      "    tensor<int32, []> axis = const()[name = tensor<string, []>(\"axis\"), val = tensor<int32, []>(0)];\n"
      "    tensor<int32, [1]> axes = const()[name = tensor<string, []>(\"axes\"), val = tensor<int32, [1]>([0])];\n"
      "    tensor<bool, []> no = const()[name = tensor<string, []>(\"no\"), val = tensor<bool, []>(false)];\n"
      "    tensor<fp32, [2048]> a = concat(axis = axis, interleave = no, values = (x, x))[name = tensor<string, []>(\"a\")];\n"
      "    tensor<fp32, [4096]> b = concat(axis = axis, interleave = no, values = (a, a))[name = tensor<string, []>(\"b\")];\n"
      "    tensor<fp32, [8192]> c = concat(axis = axis, interleave = no, values = (b, b))[name = tensor<string, []>(\"c\")];\n"
      "    tensor<fp32, []> s = reduce_sum(axes = axes, keep_dims = no, x = c)[name = tensor<string, []>(\"s\")];\n"
      "  } -> (s);\n}\n";
  cml_model *model = calloc(1, sizeof *model);
  uint64_t arena, live;
  assert_ok(cml_mil_parse_text(cml_span_of(text, sizeof text - 1), &model->arena, &model->program, err));
  model->type_number = 502;
  memory_of(model, &arena, &live);
  assert_in_range(live, (16 + 32) << 10, ((16 + 32) << 10) + 512);
  assert_int_equal(arena, live);
  cml_model_close(model);
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
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_chain_needs_two_neighbours), cmocka_unit_test(shared_models_waste_little)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
