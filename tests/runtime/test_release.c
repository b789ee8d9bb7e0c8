/* Weights that the executable makes itself (folded, scaled by a pass) leave memory once they are packed, and stay where something
 * else reads them. Codes in a mapped file leave it once they are decompressed, which they are not for the sake of a few vectors. */
#include "test.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "executable.h"
#include "mapping.h"
#include "resident.h"
#include "sanitized.h"

enum { LAYERS = 6, CHANNELS = 1024, PIXELS = 2 };
static char text[16384];
static size_t length;

static void put(const char *format, ...) {
  va_list list;
  va_start(list, format);
  length += (size_t)vsnprintf(text + length, sizeof text - length, format, list);
  va_end(list);
  assert_true(length < sizeof text);
}

/* Each layer has 4 MiB of weights, all of one value; all but the first are scaled. The first layer's weights minus the sum of x are a
 * second result. */
static void write_program(void) {
  length = 0;
  put("program(1.0)\n{\n  func main<ios16>(tensor<fp32, [1, %d, 1, %d]> x) {\n", CHANNELS, PIXELS);
  put("    tensor<int32, [4]> shape = const()[name = tensor<string, []>(\"shape\"), val = tensor<int32, [4]>([%d, %d, 1, 1])];\n", CHANNELS, CHANNELS);
  put("    tensor<int32, [4]> column = const()[name = tensor<string, []>(\"column\"), val = tensor<int32, [4]>([1, %d, 1, 1])];\n", CHANNELS);
  put("    tensor<fp32, []> two = const()[name = tensor<string, []>(\"two\"), val = tensor<fp32, []>(2)];\n");
  put("    tensor<fp32, [1, %d, 1, 1]> scale = fill(shape = column, value = two)[name = tensor<string, []>(\"scale\")];\n", CHANNELS);
  put("    tensor<int32, [4]> axes = const()[name = tensor<string, []>(\"axes\"), val = tensor<int32, [4]>([0, 1, 2, 3])];\n");
  put("    tensor<bool, []> keep = const()[name = tensor<string, []>(\"keep\"), val = tensor<bool, []>(true)];\n");
  for (int i = 0; i < LAYERS; i++) {
    put("    tensor<fp32, []> v%d = const()[name = tensor<string, []>(\"v%d\"), val = tensor<fp32, []>(0.%d)];\n", i, i, i + 1);
    put("    tensor<fp32, [%d, %d, 1, 1]> w%d = fill(shape = shape, value = v%d)[name = tensor<string, []>(\"w%d\")];\n", CHANNELS, CHANNELS, i, i, i);
    put("    tensor<fp32, []> most%d = const()[name = tensor<string, []>(\"most%d\"), val = tensor<fp32, []>(%d)];\n", i, i, i + 2);
    put("    tensor<fp32, [1, %d, 1, %d]> x%d = clip(x = x, alpha = v%d, beta = most%d)[name = tensor<string, []>(\"x%d\")];\n", CHANNELS, PIXELS, i, i, i, i); /* one image would be one convolution */
    put("    tensor<fp32, [1, %d, 1, %d]> c%d = conv(x = x%d, weight = w%d)[name = tensor<string, []>(\"c%d\")];\n", CHANNELS, PIXELS, i, i, i, i);
    if (i) put("    tensor<fp32, [1, %d, 1, %d]> y%d = mul(x = c%d, y = scale)[name = tensor<string, []>(\"y%d\")];\n", CHANNELS, PIXELS, i, i, i);
  }
  put("    tensor<fp32, [1, %d, 1, %d]> s0 = mul(x = c0, y = two)[name = tensor<string, []>(\"s0\")];\n", CHANNELS, PIXELS);
  for (int i = 1; i < LAYERS; i++)
    put("    tensor<fp32, [1, %d, 1, %d]> s%d = add(x = s%d, y = y%d)[name = tensor<string, []>(\"s%d\")];\n", CHANNELS, PIXELS, i, i - 1, i, i);
  put("    tensor<fp32, [1, 1, 1, 1]> all = reduce_sum(axes = axes, keep_dims = keep, x = x)[name = tensor<string, []>(\"all\")];\n");
  put("    tensor<fp32, [%d, %d, 1, 1]> rest = sub(x = w0, y = all)[name = tensor<string, []>(\"rest\")];\n", CHANNELS, CHANNELS);
  put("  } -> (s%d, rest);\n}\n", LAYERS - 1);
}

static uint64_t anonymous_memory(void) {
  unsigned long size = 0, resident = 0, shared = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  assert_non_null(f);
  assert_int_equal(fscanf(f, "%lu %lu %lu", &size, &resident, &shared), 3);
  fclose(f);
  return (uint64_t)(resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void check_run(cml_executable *e) {
  static float ones[CHANNELS * PIXELS];
  const cml_tensor x = {.dtype = CML_F32, .rank = 4, .dims = {1, CHANNELS, 1, PIXELS}, .data = ones};
  for (size_t i = 0; i < CHANNELS * PIXELS; i++) ones[i] = 1;
  cml_session *s;
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", &x, err));
  assert_ok(cml_session_run(s, err));
  const float *sum = cml_session_output(s, 0)->data, *rest = cml_session_output(s, 1)->data;
  const double expected = 2 * CHANNELS * (0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6); /* ones, times each weight, times two */
  for (size_t i = 0; i < CHANNELS * PIXELS; i++) assert_true(sum[i] > expected * 0.9999 && sum[i] < expected * 1.0001);
  for (size_t i = 0; i < (size_t)CHANNELS * CHANNELS; i++) assert_true(rest[i] == 0.1f - CHANNELS * PIXELS);
  cml_session_destroy(s);
}

static void packed_weights_are_there_once(void **state) {
  (void)state;
  write_program();
  cml_model *model = calloc(1, sizeof *model);
  cml_executable *e;
  uint64_t arena, packed, live, before;
  assert_ok(cml_mil_parse_text(cml_span_of(text, length), &model->arena, &model->program, err));
  model->type_number = 502;
  before = anonymous_memory();
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.threads = 2}, &e, err));
  uint64_t grown = anonymous_memory() - before, weights = (uint64_t)CHANNELS * CHANNELS * 4;
  cml_executable_memory(e, &arena, &packed, &live);
  assert_true(packed >= LAYERS * weights);
  print_message("# %.1f MB packed, the process grew by %.1f MB\n", (double)packed * 1e-6, (double)grown * 1e-6);
  if (!CML_SANITIZED) assert_true(grown < packed + 2 * weights); /* the first layer's stay: they are read for the second result */
  check_run(e);
  check_run(e); /* another session of the same executable */
  cml_executable_unref(e);
  cml_model_close(model);
}

enum { COLUMNS = 512, DEPTH = 2048, SIZE = COLUMNS * DEPTH };

/* A program over x [rows, elements] whose w [COLUMNS, DEPTH] is 0.5 * (codes - 3), the codes a megabyte in a mapped file; `y` is its last line. */
static cml_model *model_of_codes(int8_t *codes, int rows, int elements, const char *y, cml_mapping **m, cml_span *mapped) {
  char path[] = "/tmp/cml-release-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  for (int i = 0; i < SIZE; i++) codes[i] = (int8_t)(i * 7 / 5);
  assert_int_equal(write(fd, codes, SIZE), SIZE);
  assert_ok(cml_mapping_from_fd(fd, path, m, err));
  unlink(path);
  length = 0;
  put("program(1.0)\n{\n  func main<ios16>(tensor<fp32, [%d, %d]> x) {\n", rows, elements);
  put("    tensor<fp32, [%d, %d]> w = constexpr_affine_dequantize()[axis = tensor<int32, []>(0), quantized_data = tensor<int8, [%d, %d]>(", COLUMNS, DEPTH, COLUMNS, DEPTH);
  put("BLOBFILE(path = tensor<string, []>(\"@model_path/weights/weight.bin\"), offset = tensor<uint64, []>(64))), "
      "scale = tensor<fp32, []>(0.5), zero_point = tensor<int8, []>(3), name = tensor<string, []>(\"w\")];\n");
  put("    %s[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n", y);
  cml_model *model = calloc(1, sizeof *model);
  assert_ok(cml_mil_parse_text(cml_span_of(text, length), &model->arena, &model->program, err));
  model->type_number = 502;
  const cml_mil_op *op = cml_mil_body(model->program->functions[0])->ops[0];
  cml_mil_value *data = cml_mil_attribute_find(&op->attributes, "quantized_data");
  assert_true(data && data->kind == CML_VALUE_BLOB);
  data->data = *mapped = cml_mapping_span(*m);
  return model;
}

static cml_session *run_once(cml_executable *e, const cml_tensor *x) {
  cml_session *s;
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", x, err));
  assert_ok(cml_session_run(s, err));
  return s;
}

static void decompressed_codes_leave_memory(void **state) {
  (void)state;
  int8_t *codes = malloc(SIZE);
  char line[200];
  cml_mapping *m;
  cml_span mapped;
  cml_executable *e;
  snprintf(line, sizeof line, "tensor<fp32, [%d, %d]> y = add(x = w, y = x)", COLUMNS, DEPTH);
  cml_model *model = model_of_codes(codes, 1, 1, line, &m, &mapped);
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.threads = 1}, &e, err));
  if (!CML_SANITIZED) assert_true(resident_kb(mapped.data) < SIZE / 1024 / 4);
  cml_session *s = run_once(e, &(cml_tensor){.dtype = CML_F32, .rank = 2, .dims = {1, 1}, .data = (float[]){10}});
  const float *y = cml_session_output(s, 0)->data;
  for (int i = 0; i < SIZE; i++) assert_true(y[i] == 10 + 0.5f * (float)(codes[i] - 3));
  cml_session_destroy(s);
  cml_executable_unref(e);
  cml_model_close(model);
  cml_mapping_unref(m);
  free(codes);
}

/* Products of one vector, and of so few that memory bounds them, make no dense copy of their weights; those of more may. */
static void compressed_weights_stay_so(void **state) {
  (void)state;
  enum { MOST = 9 };
  int8_t *codes = malloc(SIZE);
  float *x = malloc(MOST * DEPTH * sizeof *x);
  for (int i = 0; i < MOST * DEPTH; i++) x[i] = (float)(i * 37 % 101 - 50) / 64;
  for (int rows = 1; rows <= MOST; rows += rows < 3 ? 1 : 3) {
    char line[200];
    cml_mapping *m;
    cml_span mapped;
    cml_executable *e;
    uint64_t arena, packed, live;
    snprintf(line, sizeof line, "tensor<fp32, [%d, %d]> y = linear(x = x, weight = w)", rows, COLUMNS);
    cml_model *model = model_of_codes(codes, rows, DEPTH, line, &m, &mapped);
    assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.threads = 2}, &e, err));
    cml_executable_memory(e, &arena, &packed, &live);
    if (rows <= 3) assert_true(packed < 2 * SIZE); /* dense 4 */
    cml_session *s = run_once(e, &(cml_tensor){.dtype = CML_F32, .rank = 2, .dims = {rows, DEPTH}, .data = x});
    const float *y = cml_session_output(s, 0)->data;
    for (int r = 0; r < rows; r++)
      for (int n = 0; n < COLUMNS; n++) {
        double sum = 0, sizes = 0;
        for (int k = 0; k < DEPTH; k++) {
          const double product = (double)x[r * DEPTH + k] * 0.5 * (codes[n * DEPTH + k] - 3);
          sum += product, sizes += product < 0 ? -product : product;
        }
        assert_true(y[r * COLUMNS + n] > sum - sizes * 1e-6 && y[r * COLUMNS + n] < sum + sizes * 1e-6);
      }
    cml_session_destroy(s);
    cml_executable_unref(e);
    cml_model_close(model);
    cml_mapping_unref(m);
  }
  free(x), free(codes);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(packed_weights_are_there_once), cmocka_unit_test(decompressed_codes_leave_memory), cmocka_unit_test(compressed_weights_stay_so)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
