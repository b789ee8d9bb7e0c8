/* cmlpack describe and diff as a user calls them: output, exit codes, errors. */
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static char *shared(const char *below) {
  static char paths[4][4096];
  static int next;
  const char *source = getenv("CML_SOURCE");
  char *path = paths[next++ & 3];
  snprintf(path, 4096, "%s/../shared/%s", source ? source : ".", below);
  return path;
}

/* Runs cmlpack; the exit code, and what it printed (both streams) in *out, which the caller frees. */
static int cmlpack(char **out, const char *arguments) {
  char command[16384];
  const char *build = getenv("CML_BUILD");
  snprintf(command, sizeof command, "timeout 60 '%s/tools/cmlpack' %s 2>&1", build ? build : "build", arguments);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  char *text = calloc(1, 1 << 20);
  size_t n = fread(text, 1, (1 << 20) - 1, pipe);
  text[n] = 0;
  int status = pclose(pipe);
  *out = text;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect(int code, const char *says, const char *format, const char *a, const char *b) {
  char arguments[12288], *out;
  snprintf(arguments, sizeof arguments, format, a, b);
  int found = cmlpack(&out, arguments);
  if (found != code) fail_msg("%s: exit code %d, expected %d\n%s", arguments, found, code, out);
  if (!strstr(out, says)) fail_msg("%s does not say \"%s\" but\n%s", arguments, says, out);
  free(out);
}

static void test_describe(void **state) {
  (void)state;
  const char *pte = shared("reference/digits/digits.pte"), *package = shared("corpus/mlprogram-pairs/mnist-conv.mlpackage");
  if (access(pte, F_OK)) {
    print_message("no %s here\n", pte);
    skip();
  }
  /* 8*28*28*25 + 16*14*14*8*25 + 256*10 */
  expect(0, "multiply-adds    786,560", "describe '%s'%s", package, "");
  expect(0, "\"multiplyAdds\": 786560", "describe --json '%s'%s", package, "");
  expect(0, "forward/coreml_0: mlProgram", "describe '%s'%s", pte, "");
  expect(0, "-> (Plus214_Output_0);", "describe --text '%s'%s", package, "");
  expect(0, "digraph \"main\"", "describe --dot '%s'%s", package, "");
  expect(0, "</svg>", "describe --svg '%s'%s", package, "");
  expect(0, "aten::add.out", "describe '%s'%s", shared("corpus/pte/add.pte"), "");
  expect(1, "holds no Core ML model", "describe --text '%s'%s", shared("corpus/pte/add.pte"), "");
  expect(1, "neuralNetwork", "describe --text '%s'%s", shared("corpus/neuralnetwork/MNIST.mlmodel"), "");
  expect(1, "/nonexistent/x: ", "describe %s%s", "/nonexistent/x", "");
  expect(2, "one of --json", "describe --json --text '%s'%s", package, "");
  expect(2, "describe", "describe%s%s", "", "");
}

static void test_diff(void **state) {
  (void)state;
  const char *a = shared("reference/digits/digits-classifier.mlpackage"), *b = shared("reference/digits/digits-int8.mlpackage");
  if (access(a, F_OK)) {
    print_message("no %s here\n", a);
    skip();
  }
  expect(0, "", "diff '%s' '%s'", a, a);
  expect(1, "~ specification version: 7 -> 8", "diff '%s' '%s'", a, b);
  expect(1, "+ main/const_0_to_fp16_quantized: constexpr_affine_dequantize", "diff '%s' '%s'", a, b);
  /* by NumPy: a = the one's const_0_to_fp16, b = float16(quantized_data) * scale of the other, per output channel */
  expect(1, "main/var_29_cast_fp16.weight: const -> constexpr_affine_dequantize, tensor<fp16, [16, 1, 3, 3]>: max difference 0.00927734, SNR 48.7 dB",
         "diff '%s' '%s'", a, b);
  expect(1, "{\"equal\": false", "diff --json '%s' '%s'", a, b);
  expect(0, "{\"equal\": true, \"differences\": []}", "diff --json '%s' '%s'", a, a);
  expect(2, "/nonexistent/x: ", "diff '%s' %s", a, "/nonexistent/x");
  expect(2, "diff", "diff '%s'%s", a, "");
}

/* Apple's compiler wrote the one from the other: the files differ, the program does not. */
static void test_a_compiled_pair_differs_in_files_alone(void **state) {
  (void)state;
  const char *a = shared("corpus/mlprogram-pairs/mnist-conv.mlpackage"), *b = shared("corpus/mlprogram-pairs/mnist-conv.mlmodelc");
  char arguments[12288], *out;
  if (access(a, F_OK)) {
    print_message("no %s here\n", a);
    skip();
  }
  snprintf(arguments, sizeof arguments, "diff '%s' '%s'", a, b);
  assert_int_equal(cmlpack(&out, arguments), 1);
  assert_non_null(strstr(out, "+ model.mil"));
  assert_null(strstr(out, "program\n"));
  assert_null(strstr(out, "weights\n"));
  free(out);
}

/* The sixteen by nine halves behind a header of 128 bytes. */
static void test_dense_weights_are_shown(void **state) {
  (void)state;
  const char *package = shared("reference/digits/digits-int8.mlpackage");
  if (access(package, F_OK)) {
    print_message("no %s here\n", package);
    skip();
  }
  expect(0, "digits-int8.mlpackage.view/dense/const_0_to_fp16_quantized.npy", "ls -R '%s'%s", package, "");
  expect(0, "\x93NUMPY", "cat '%s' %s", package, "digits-int8.mlpackage.view/dense/const_0_to_fp16_quantized.npy");
  expect(0, "constexpr_affine_dequantize", "cat '%s' %s", package, "digits-int8.mlpackage.view/summary.txt");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_describe), cmocka_unit_test(test_diff), cmocka_unit_test(test_dense_weights_are_shown),
                                     cmocka_unit_test(test_a_compiled_pair_differs_in_files_alone)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
