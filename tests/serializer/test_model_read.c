/* Models in trees: packages, single files and compiled folders, weights bound. Truth: Apple's compiler wrote the pair (one
 * model in both forms); the weight file here is assembled by hand from the format; real packages are coremltools'. */
#include <ftw.h>

#include "mapping.h"
#include "mil.h"
#include "mil_equal.h"
#include "model_compiled.h"
#include "test.h"
#include "weights.h"

static const char *shared(const char *name) {
  static char path[4096];
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/../shared/%s", source ? source : ".", name);
  char *real = realpath(path, NULL);
  if (!real) return NULL;
  snprintf(path, sizeof path, "%s", real);
  free(real);
  return path;
}

static cml_status read_path(const char *path, cml_model **out, cml_error *error) {
  cml_tree *tree = NULL;
  assert_ok(cml_tree_from_folder(path, NULL, &tree, err));
  cml_status status = cml_model_read(tree, cml_tree_root(tree), NULL, out, error);
  cml_tree_unref(tree);
  return status;
}

#define NEED(name)                                   \
  do {                                               \
    if (!shared(name)) {                             \
      print_message("# skipped: no ../shared\n");    \
      return;                                        \
    }                                                \
  } while (0)

static void test_pair(void **state) {
  (void)state;
  NEED("corpus/mlprogram-pairs");
  cml_model *package = NULL, *compiled = NULL;
  assert_ok(read_path(shared("corpus/mlprogram-pairs/mnist-conv.mlpackage"), &package, err));
  assert_ok(read_path(shared("corpus/mlprogram-pairs/mnist-conv.mlmodelc"), &compiled, err));
  cml_buffer difference = CML_BUFFER_INIT;
  if (!cml_mil_program_equal(package->program, compiled->program, &difference)) fail_msg("%s", (char *)difference.data);
  assert_int_equal(package->specification_version, 9);
  assert_int_equal(compiled->specification_version, 9);
  assert_string_equal(compiled->inputs.items[0].name, "Input3");
  assert_int_equal(compiled->inputs.items[0].dtype, CML_F32);
  /* and a difference is seen */
  cml_mil_op *op = cml_mil_body(compiled->program->functions[0])->ops[0];
  op->type = "other";
  assert_false(cml_mil_program_equal(package->program, compiled->program, &difference));
  assert_non_null(strstr((char *)difference.data, "its type is const in one and other in the other"));
  cml_buffer_free(&difference);
  cml_model_close(package);
  cml_model_close(compiled);
}

static size_t packages, blobs;

static cml_status count_blob(void *context, const cml_mil_op *op, cml_mil_value *value, cml_error *err) {
  (void)context, (void)op, (void)err;
  if (value->kind != CML_VALUE_BLOB) return CML_OK;
  uint64_t need;
  assert_true(cml_dtype_bytes(value->type->dtype, value->count, &need));
  assert_int_equal(need, value->data.size);
  assert_non_null(value->data.data);
  blobs++;
  return CML_OK;
}

static int check_folder(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
  (void)st, (void)ftw;
  const char *dot = strrchr(path, '.');
  if (kind != FTW_D || !dot || (strcmp(dot, ".mlpackage") && strcmp(dot, ".mlmodelc"))) return 0;
  cml_model *model = NULL;
  cml_error error = {0};
  cml_status status = read_path(path, &model, &error);
  if (status == CML_NOT_FOUND && strstr(path, "mlprogram-compiled") && strstr(error.text, "weights are missing")) return 0;
  if (status) fail_msg("%s: %s", path, error.text);
  packages++;
  if (model->program) assert_ok(cml_mil_each_value(model->program, count_blob, NULL, err));
  cml_model_close(model);
  return 0;
}

static void test_real_packages(void **state) {
  (void)state;
  NEED("reference");
  nftw(shared("reference"), check_folder, 16, FTW_PHYS);
  nftw(shared("corpus"), check_folder, 16, FTW_PHYS);
  print_message("# %zu packages, %zu blobs\n", packages, blobs);
  assert_true(packages > 0 && blobs > 0);
}

/* header, record at 64, data at 128: three int4, so four bits of padding */
static void make_weights(uint8_t file[192]) {
  static const uint8_t header[] = {1, 0, 0, 0, 2}, record[] = {0xef, 0xbe, 0xad, 0xde, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
                                                              128, 0, 0, 0, 0, 0, 0, 0, 4};
  memset(file, 0, 192);
  memcpy(file, header, sizeof header);
  memcpy(file + 64, record, sizeof record);
  file[128] = 0x21, file[129] = 0x03;
}

static void refuse(const uint8_t file[192], size_t size, uint64_t offset, cml_dtype dtype, uint64_t count, cml_status status, uint64_t at) {
  cml_span out;
  cml_error err = {0};
  assert_int_equal(cml_blob_find(cml_span_of(file, size), offset, dtype, count, false, &out, &err), status);
  assert_int_equal(err.offset, at);
}

static void test_records(void **state) {
  (void)state;
  uint8_t file[192];
  cml_span out;
  make_weights(file);
  assert_ok(cml_blob_find(cml_span_of(file, 192), 64, CML_I4, 3, false, &out, err));
  assert_ptr_equal(out.data, file + 128);
  assert_int_equal(out.size, 2);
  refuse(file, 192, 64, CML_I4, 5, CML_MISMATCH, 72);
  refuse(file, 192, 64, CML_I4, 4, CML_MISMATCH, 72); /* same bytes, other padding */
  refuse(file, 192, 64, CML_U4, 3, CML_MISMATCH, 68);
  refuse(file, 192, 0, CML_I4, 3, CML_INVALID, 0);
  refuse(file, 192, 65, CML_I4, 3, CML_INVALID, 65);
  refuse(file, 192, 129, CML_I4, 3, CML_INVALID, 129);
  refuse(file, 192, UINT64_MAX - 3, CML_I4, 3, CML_INVALID, UINT64_MAX - 3);
  refuse(file, 129, 64, CML_I4, 3, CML_INVALID, 72); /* the data is cut */
  refuse(file, 63, 64, CML_I4, 3, CML_INVALID, 63);
  file[4] = 1;
  refuse(file, 192, 64, CML_I4, 3, CML_UNSUPPORTED, 4);
  file[4] = 2;
  memset(file + 80, 0xff, 8);
  refuse(file, 192, 64, CML_I4, 3, CML_INVALID, 80);
}

static void test_coremldata(void **state) {
  (void)state;
  NEED("corpus/neuralnetwork");
  cml_model *model = NULL;
  assert_ok(read_path(shared("corpus/neuralnetwork/s4tf_model_retrained.mlmodelc"), &model, err));
  assert_int_equal(model->type_number, 500);
  assert_int_equal(model->specification_version, 4);
  assert_null(model->program);
  assert_string_equal(model->inputs.items[0].name, "dense_input");
  assert_int_equal(model->inputs.items[0].dtype, CML_F64);
  cml_model_close(model);
}

static void add(cml_tree *tree, cml_node *parent, const char *name, const char *text) {
  cml_piece piece = {(const uint8_t *)text, strlen(text), NULL, 0};
  assert_ok(cml_tree_add_file(tree, parent, name, strlen(name), &piece, 1, NULL, err));
}

static void refuse_manifest(const char *manifest, cml_status status, const char *words) {
  cml_tree *tree = NULL;
  cml_node *data = NULL;
  cml_model *model = NULL;
  cml_error error = {0};
  assert_ok(cml_tree_create("m.mlpackage", &tree, err));
  assert_ok(cml_tree_add_folder(tree, cml_tree_root_mutable(tree), "Data", 4, &data, err));
  add(tree, data, "junk.mlmodel", "junk");
  if (manifest) add(tree, cml_tree_root_mutable(tree), "Manifest.json", manifest);
  assert_int_equal(cml_model_read(tree, cml_tree_root(tree), NULL, &model, &error), status);
  if (!strstr(error.text, words)) fail_msg("\"%s\" does not say \"%s\"", error.text, words);
  cml_tree_unref(tree);
}

static void test_manifest(void **state) {
  (void)state;
  refuse_manifest(NULL, CML_INVALID, "neither Manifest.json nor coremldata.bin");
  refuse_manifest("{", CML_INVALID, "Manifest.json is not JSON");
  refuse_manifest("{}", CML_INVALID, "no fileFormatVersion");
#define HEAD "{\"fileFormatVersion\":\"1.0.0\",\"rootModelIdentifier\":\"A\","
#define ITEM(path) HEAD "\"itemInfoEntries\":{\"A\":{\"path\":\"" path "\"}}}"
  refuse_manifest(HEAD "\"itemInfoEntries\":{}}", CML_INVALID, "rootModelIdentifier A names no item");
  refuse_manifest(ITEM("x"), CML_NOT_FOUND, "no Data/x");
  refuse_manifest(ITEM("../../etc"), CML_INVALID, "expected one inside Data/");
  refuse_manifest(ITEM("junk.mlmodel"), CML_INVALID, "junk.mlmodel: not a Core ML model");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pair),       cmocka_unit_test(test_real_packages), cmocka_unit_test(test_records),
      cmocka_unit_test(test_coremldata), cmocka_unit_test(test_manifest),
  };
  return cmocka_run_group_tests_name("model-read", tests, NULL, NULL);
}
