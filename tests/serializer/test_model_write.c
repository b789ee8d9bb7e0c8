/* Writing weight files and packages. Truth: the weight files that coremltools wrote must come out the same, byte for byte, from
 * the same blobs; and, where CML_PYTHON names a Python with coremltools, it must load what was written here. */
#include "../inmemoryfs/scratch.h"
#include "mapping.h"
#include "mil.h"
#include "mil_equal.h"
#include "weights.h"

static char reference[4096];

static void find_reference(void) {
  const char *source = getenv("CML_SOURCE");
  snprintf(reference, sizeof reference, "%s/../shared/reference/ops", source ? source : ".");
  char *real = realpath(reference, NULL);
  snprintf(reference, sizeof reference, "%s", real ? real : "");
  free(real);
}

static void read_path(const char *path, cml_model **out) {
  cml_tree *tree = NULL;
  assert_ok(cml_tree_from_folder(path, NULL, &tree, err));
  assert_ok(cml_model_read(tree, cml_tree_root(tree), NULL, out, err));
  cml_tree_unref(tree);
}

/* Blobs of every type, by hand arithmetic: offsets, padding, sharing. */
static void test_writer(void **state) {
  (void)state;
  cml_blob_writer *w = NULL;
  cml_buffer out = CML_BUFFER_INIT;
  cml_span found;
  uint64_t at[4];
  uint8_t bytes[100];
  for (int i = 0; i < 100; i++) bytes[i] = (uint8_t)i;
  assert_ok(cml_blob_writer_create(true, &w, err));
  assert_ok(cml_blob_writer_add(w, CML_F32, 17, cml_span_of(bytes, 68), &at[0], err));
  assert_ok(cml_blob_writer_add(w, CML_U3, 3, cml_span_of(bytes, 2), &at[1], err)); /* 9 bits: 7 of padding */
  assert_ok(cml_blob_writer_add(w, CML_F32, 17, cml_span_of(bytes, 68), &at[2], err));
  assert_ok(cml_blob_writer_add(w, CML_I8, 68, cml_span_of(bytes, 68), &at[3], err)); /* the same bytes of another type */
  assert_int_equal(at[0], 64);
  assert_int_equal(at[1], 256); /* 64 + 64 + 68 = 196 */
  assert_int_equal(at[2], 64);
  assert_int_equal(at[3], 384); /* 256 + 64 + 2 = 322 */
  assert_int_equal(cml_blob_writer_size(w), 384 + 64 + 68);
  assert_int_equal(cml_blob_writer_add(w, CML_F32, 17, cml_span_of(bytes, 67), &at[3], NULL), CML_ARGUMENT);
  assert_int_equal(cml_blob_writer_add(w, CML_F64, 1, cml_span_of(bytes, 8), &at[3], NULL), CML_UNSUPPORTED);
  assert_ok(cml_blob_writer_write(w, cml_sink_to_buffer(&out), err));
  assert_int_equal(out.size, cml_blob_writer_size(w));
  assert_memory_equal(out.data, "\3\0\0\0\2\0\0\0", 8);
  assert_memory_equal(out.data + 256, "\xef\xbe\xad\xde\x0c\0\0\0\2\0\0\0\0\0\0\0\x40\1\0\0\0\0\0\0\7\0\0\0\0\0\0\0", 32);
  assert_ok(cml_blob_find(cml_buffer_span(&out), 256, CML_U3, 3, false, &found, err));
  assert_memory_equal(found.data, bytes, 2);
  cml_buffer_free(&out);
  cml_blob_writer_destroy(w);
}

/* Three elements of each type, as coremltools 9.0's _BlobStorageWriter records them: type, bytes, padding. */
static void test_types(void **state) {
  (void)state;
  static const struct { cml_dtype dtype; uint32_t number; uint64_t size, padding; } types[] = {
      {CML_F16, 1, 6, 0}, {CML_F32, 2, 12, 0}, {CML_U8, 3, 3, 0}, {CML_I8, 4, 3, 0}, {CML_I16, 6, 6, 0}, {CML_U16, 7, 6, 0},
      {CML_I4, 8, 2, 4}, {CML_U1, 9, 1, 5}, {CML_U2, 10, 1, 2}, {CML_U3, 12, 2, 7}, {CML_U4, 11, 2, 4}, {CML_U6, 13, 3, 6},
      {CML_I32, 14, 12, 0}, {CML_U32, 15, 12, 0}};
  cml_blob_writer *w = NULL;
  cml_buffer out = CML_BUFFER_INIT;
  uint64_t at[14];
  assert_ok(cml_blob_writer_create(false, &w, err));
  for (size_t i = 0; i < 14; i++)
    assert_ok(cml_blob_writer_add(w, types[i].dtype, 3, cml_span_of("\1\2\3\4\5\6\7\10\11\12\13\14", types[i].size), &at[i], err));
  assert_ok(cml_blob_writer_write(w, cml_sink_to_buffer(&out), err));
  for (size_t i = 0; i < 14; i++) {
    assert_int_equal(at[i], 64 + 128 * i);
    assert_int_equal(cml_load_u32(out.data + at[i] + 4), types[i].number);
    assert_int_equal(cml_load_u64(out.data + at[i] + 8), types[i].size);
    assert_int_equal(cml_load_u64(out.data + at[i] + 16), at[i] + 64);
    assert_int_equal(cml_load_u64(out.data + at[i] + 24), types[i].padding);
  }
  cml_buffer_free(&out);
  cml_blob_writer_destroy(w);
}

static void write_and_compare(const char *name, const char *out) {
  char path[8300];
  snprintf(path, sizeof path, "%s/%s/model.mlpackage", reference, name);
  cml_model *before = NULL, *after = NULL;
  read_path(path, &before);
  assert_ok(cml_model_write_package(before, out, err));
  read_path(out, &after);
  cml_buffer difference = CML_BUFFER_INIT;
  if (!cml_mil_program_equal(before->program, after->program, &difference)) fail_msg("%s: %s", name, (char *)difference.data);
  cml_model_close(before);
  cml_model_close(after);
}

static const char *const cases[] = {"mlprogram-fp16-test_scatter-144bfd804180", "mlprogram-fp16-compressed_network-0391f033e076",
                                    "mlprogram-fp16-test_quant_sparse_lut-06cb9ee388d2"};

static void test_packages(void **state) {
  (void)state;
  if (!*reference) {
    print_message("# skipped: no ../shared\n");
    return;
  }
  for (size_t i = 0; i < 3; i++) {
    char path[8300];
    size_t old_size, new_size;
    write_and_compare(cases[i], "out.mlpackage");
    snprintf(path, sizeof path, "%s/%s/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin", reference, cases[i]);
    char *old = get_file(path, &old_size), *new = get_file("out.mlpackage/Data/com.apple.CoreML/weights/weight.bin", &new_size);
    assert_int_equal(old_size, new_size);
    assert_memory_equal(old, new, old_size);
    free(old);
    free(new);
    assert_int_equal(cml_model_write_package(&(cml_model){.type_number = 502, .program = &(cml_mil_program){0}}, "out.mlpackage", NULL), CML_EXISTS);
    scratch_remove("out.mlpackage");
  }
}

/* A compiled model becomes a package: the program was text, nothing of a package was there. */
static void test_compiled_to_package(void **state) {
  (void)state;
  char path[4200];
  if (!*reference) return;
  snprintf(path, sizeof path, "%s/../../corpus/mlprogram-pairs/mnist-conv.mlmodelc", reference);
  cml_model *before = NULL, *after = NULL;
  read_path(path, &before);
  assert_ok(cml_model_write_package(before, "compiled.mlpackage", err));
  read_path("compiled.mlpackage", &after);
  assert_true(cml_mil_program_equal(before->program, after->program, NULL));
  assert_int_equal(after->specification_version, 9);
  assert_string_equal(after->inputs.items[0].name, "Input3");
  cml_model_close(before);
  cml_model_close(after);
}

static void test_coremltools_loads(void **state) {
  (void)state;
  const char *python = getenv("CML_PYTHON");
  char command[9000];
  if (!*reference) skip_because("../shared/reference is not there");
  snprintf(command, sizeof command, "%s -c 'import coremltools' 2>/dev/null", python ? python : "false");
  if (system(command)) skip_because("CML_PYTHON names no Python with coremltools");
  for (size_t i = 0; i < 3; i++) {
    char out[64];
    snprintf(out, sizeof out, "out%zu.mlpackage", i);
    write_and_compare(cases[i], out);
    snprintf(command, sizeof command, "%s %s/tests/serializer/load_package.py %s %s/%s/model.mlpackage", python, getenv("CML_SOURCE"), out,
             reference, cases[i]);
    assert_int_equal(system(command), 0);
  }
  snprintf(command, sizeof command, "%s %s/tests/serializer/load_package.py compiled.mlpackage", python, getenv("CML_SOURCE"));
  assert_int_equal(system(command), 0);
}

int main(void) {
  find_reference();
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_writer), cmocka_unit_test(test_types), cmocka_unit_test(test_packages),
                                     cmocka_unit_test(test_compiled_to_package), cmocka_unit_test(test_coremltools_loads)};
  return cmocka_run_group_tests_name("model-write", tests, scratch_enter, scratch_leave);
}
