/* Flat blobs in real ExecuTorch programs (../shared, read in place): each Core ML delegate restores, shows what a delegate
 * has, and flattens to a blob of the same meaning; cut short or damaged, each does no harm. */
#include <ftw.h>

#include "flat.h"
#include "pte.h"
#include "test.h"

static size_t blobs, programs;
static uint64_t bytes_tried;

static void restore_damaged(const uint8_t *bytes, size_t size) {
  cml_mapping *mapping = NULL;
  cml_tree *tree = NULL;
  cml_error e = {0};
  void *copy = malloc(size + 1);
  memcpy(copy, bytes, size);
  assert_ok(cml_mapping_own(copy, size, "damaged", &mapping, err));
  cml_status status = cml_flat_restore(mapping, 0, size, NULL, &tree, &e);
  if (status) assert_true(!tree && e.text[0] && e.offset <= size);
  cml_tree_unref(tree);
  cml_mapping_unref(mapping);
}

/* Flips fall into the last bytes, where the table is; the contents are not looked at. */
static void damage(cml_span blob) {
  size_t tail = blob.size < 8192 ? blob.size : 8192;
  uint8_t *bytes = malloc(tail);
  uint32_t random = (uint32_t)blob.size;
  for (size_t i = 0; i < 64 && blob.size < 1 << 16; i++) restore_damaged(blob.data, blob.size * i / 64);
  for (int i = 0; i < 20; i++) {
    memcpy(bytes, blob.data + blob.size - tail, tail);
    for (int k = 0; k < 2; k++) {
      random = random * 1664525 + 1013904223;
      bytes[(random >> 8) % tail] ^= (uint8_t)(1u << (random & 7));
    }
    restore_damaged(bytes, tail);
  }
  free(bytes);
}

static void check_blob(const cml_pte *pte, cml_mapping *file, cml_span blob) {
  cml_tree *tree, *again;
  cml_mapping *mapping = NULL;
  cml_buffer bytes = CML_BUFFER_INIT;
  bool equal = false;
  blobs++;
  bytes_tried += blob.size;
  assert_true(cml_flat_recognise(blob));
  assert_ok(cml_flat_restore(file, cml_pte_offset(pte, blob.data), blob.size, NULL, &tree, err));
  const cml_node *root = cml_tree_root(tree);
  assert_true(!strncmp(cml_node_name(root), "lowered_module", 14));
  assert_non_null(cml_node_find(root, "metadata.json"));
  assert_true(cml_node_find(root, "model.mlpackage/Manifest.json") || cml_node_find(root, "model.mlmodelc"));
  assert_ok(cml_flatten_to_sink(root, cml_sink_to_buffer(&bytes), NULL, err));
  assert_int_equal(bytes.data[bytes.size - 1], '{');
  size_t size = bytes.size;
  assert_ok(cml_mapping_own(bytes.data, size, "again", &mapping, err));
  assert_ok(cml_flat_restore(mapping, 0, size, NULL, &again, err));
  assert_ok(cml_node_compare(root, cml_tree_root(again), &equal, NULL, err));
  assert_true(equal);
  assert_string_equal(cml_node_name(cml_tree_root(again)), cml_node_name(root));
  damage(blob);
  cml_tree_unref(tree);
  cml_tree_unref(again);
  cml_mapping_unref(mapping);
}

static void check_program(const char *path) {
  cml_mapping *file = NULL;
  cml_pte *pte = NULL;
  assert_ok(cml_mapping_open(path, &file, err));
  if (!cml_pte_parse(cml_mapping_span(file), &pte, NULL)) {
    programs++;
    for (uint32_t m = 0; m < pte->method_count; m++)
      for (uint32_t d = 0; d < pte->methods[m].delegate_count; d++) {
        const cml_pte_delegate *delegate = &pte->methods[m].delegates[d];
        cml_arena arena = CML_ARENA_INIT;
        cml_pte_coreml coreml = {0};
        if (!cml_pte_is_coreml(delegate)) continue;
        assert_ok(cml_pte_coreml_decode(pte, delegate, &arena, &coreml, err));
        check_blob(pte, file, coreml.blob);
        cml_arena_free(&arena);
      }
  }
  cml_pte_destroy(pte);
  cml_mapping_unref(file);
}

static int visit(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
  (void)st, (void)ftw;
  size_t n = strlen(path);
  if (kind == FTW_F && n > 4 && !strcmp(path + n - 4, ".pte")) check_program(path);
  return 0;
}

static void real_delegates_are_restored(void **state) {
  (void)state;
  const char *source = getenv("CML_SOURCE"), *folders[] = {"corpus/pte", "reference"};
  for (size_t i = 0; i < 2; i++) {
    char path[1024];
    snprintf(path, sizeof path, "%s/../shared/%s", source ? source : ".", folders[i]);
    nftw(path, visit, 16, FTW_PHYS);
  }
  if (!programs) {
    print_message("no ../shared here\n");
    skip();
  }
  print_message("%zu blobs in %zu programs, %llu bytes\n", blobs, programs, (unsigned long long)bytes_tried);
  assert_true(blobs > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(real_delegates_are_restored)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
