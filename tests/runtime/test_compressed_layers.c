/* Linear layers whose weights are palettes, of a depth that is multiplied by parts: against sums in double, and the same bits with any number of threads. */
#include <math.h>

#include "exec_graph.h"
#include "kernels.h"
#include "program_text.h"
#include "random_numbers.h"
#include "session.h"

enum { COLUMNS = 390, DEPTH = 1032, MOST_VECTORS = 3 };

static uint8_t codes[COLUMNS * DEPTH / 2];
static float entries[16], bias[COLUMNS], x[MOST_VECTORS * DEPTH];

static unsigned code_at(unsigned bits, size_t i) { return codes[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1); }

static void write_numbers(const float *v, size_t n) {
  for (size_t i = 0; i < n; i++) put("%s%.9g", i ? ", " : "", (double)v[i]);
}

/* y = relu(x w^T + bias) */
static void write_program(unsigned bits, int vectors, const char *type) {
  const size_t bytes = COLUMNS * DEPTH * bits / 8;
  used = 0;
  put("program(1.0)\n{\n  func main<ios16>(tensor<%s, [%d, %d]> x) {\n", type, vectors, DEPTH);
  put("tensor<%s, [%d, %d]> w = constexpr_lut_to_dense()[indices = tensor<uint8, [%zu]>([", type, COLUMNS, DEPTH, bytes);
  for (size_t i = 0; i < bytes; i++) put("%s%u", i ? "," : "", codes[i]);
  put("]), lut = tensor<%s, [%u]>([", type, 1u << bits);
  write_numbers(entries, (size_t)1 << bits);
  put("]), shape = tensor<uint32, [2]>([%d, %d]), name = tensor<string, []>(\"w\")];\n", COLUMNS, DEPTH);
  put("tensor<%s, [%d]> b = const()[name = tensor<string, []>(\"b\"), val = tensor<%s, [%d]>([", type, COLUMNS, type, COLUMNS);
  write_numbers(bias, COLUMNS);
  put("])];\ntensor<%s, [%d, %d]> z = linear(bias = b, weight = w, x = x)[name = tensor<string, []>(\"z\")];\n", type, vectors, COLUMNS);
  put("tensor<%s, [%d, %d]> y = relu(x = z)[name = tensor<string, []>(\"y\")];\n  } -> (y);\n}\n", type, vectors, COLUMNS);
}

static float *run(cml_dtype type, int vectors, size_t threads) {
  cml_model *model = calloc(1, sizeof *model);
  assert_ok(cml_mil_parse_text(cml_span_of(text, used), &model->arena, &model->program, err));
  cml_executable *executable;
  cml_session *session;
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.threads = threads}, &executable, err));
  uint64_t kept = 0;
  for (const struct cml_kept *k = executable->general.graph.kept; k; k = k->next) kept += k->size;
  assert_true(kept < (uint64_t)COLUMNS * DEPTH); /* it is not expanded */
  assert_ok(cml_session_create(executable, &session, err));
  const cml_tensor in = {.dtype = CML_F32, .rank = 2, .dims = {vectors, DEPTH}, .data = x};
  cml_tensor given = {.dtype = type, .rank = 2, .dims = {vectors, DEPTH}, .data = malloc(sizeof x)};
  for (int64_t i = 0; i < vectors * DEPTH; i++) cml_tensor_set(&given, i, cml_tensor_get(&in, i));
  assert_ok(cml_session_set_input(session, "x", &given, err));
  assert_ok(cml_session_run(session, err));
  const cml_tensor *out = cml_session_output(session, 0);
  float *y = malloc((size_t)vectors * COLUMNS * sizeof *y);
  for (int64_t i = 0; i < vectors * COLUMNS; i++) y[i] = (float)cml_tensor_get(out, i);
  free(given.data);
  cml_session_destroy(session);
  cml_executable_unref(executable);
  cml_model_close(model);
  return y;
}

/* Numbers of few bits are the same in both types. */
static float few_bits(void) { return (float)((int)(rnd() % 255) - 127) / 64; }

static void check(unsigned bits, int vectors, cml_dtype type) {
  for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)rnd();
  for (size_t i = 0; i < 16; i++) entries[i] = few_bits();
  for (size_t i = 0; i < COLUMNS; i++) bias[i] = few_bits();
  for (size_t i = 0; i < MOST_VECTORS * DEPTH; i++) x[i] = few_bits();
  write_program(bits, vectors, type == CML_F16 ? "fp16" : "fp32");
  float *y = run(type, vectors, 1);
  for (size_t threads = 2; threads < 5; threads++) {
    float *again = run(type, vectors, threads);
    assert_memory_equal(y, again, (size_t)vectors * COLUMNS * sizeof *y);
    free(again);
  }
  for (size_t v = 0; v < (size_t)vectors; v++)
    for (size_t n = 0; n < COLUMNS; n++) {
      double sum = (double)bias[n], sizes = 0;
      for (size_t d = 0; d < DEPTH; d++) {
        const double p = (double)x[v * DEPTH + d] * (double)entries[code_at(bits, n * DEPTH + d)];
        sum += p, sizes += fabs(p);
      }
      const double want = sum > 0 ? sum : 0, off = fabs((double)y[v * COLUMNS + n] - want);
      if (off > 1e-6 * sizes + (type == CML_F16 ? 0x1p-10 * want : 0)) fail_msg("%u bits, vector %zu, row %zu: %g, should be %g", bits, v, n, (double)y[v * COLUMNS + n], want);
    }
  free(y);
}

static void layers(void **state) {
  (void)state;
  static const unsigned widths[] = {1, 2, 4};
  const cml_kernels *k;
  for (size_t t = 0; (k = cml_kernels_at(t)); t++) {
    assert_ok(cml_kernels_use(k->name, err));
    for (int i = 0; i < 12; i++) { /* for one vector and, where those stay compressed, for a few */
      const bool half = i / 6;
      if (i / 3 % 2 == 0) check(widths[i % 3], 1, half ? CML_F16 : CML_F32);
      else if (!half || widths[i % 3] < 4) check(widths[i % 3], MOST_VECTORS, half ? CML_F16 : CML_F32);
    }
  }
  assert_ok(cml_kernels_use(NULL, err));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(layers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
