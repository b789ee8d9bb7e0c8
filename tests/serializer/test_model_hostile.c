/* Models that lie, break off or meet an exhausted memory. Real files are cut at every 64th and have single bits turned: each
 * gives an error or a valid model, which can be written again, and never takes more than 64 MB. */
#include <ftw.h>

#include "../fail_alloc.h"
#include "../inmemoryfs/scratch.h"
#include "mapping.h"
#include "mil.h"
#include "mil_equal.h"
#include "model_compiled.h"
#include "weights.h"

static const char *source(void) { return getenv("CML_SOURCE") ? getenv("CML_SOURCE") : "."; }

static size_t accepted, refused;

static void try_model(const uint8_t *data, size_t size) {
  uint8_t *exact = malloc(size ? size : 1);
  assert_non_null(exact);
  memcpy(exact, data, size);
  cml_model m = {0};
  cml_error error = {0};
  cml_status status = cml_model_parse(cml_span_of(exact, size), NULL, &m, &error);
  if (status) {
    assert_true(*error.text && error.status == status);
    assert_true(error.offset == CML_NO_OFFSET || error.offset <= size);
    refused++;
  } else {
    cml_buffer out = CML_BUFFER_INIT;
    assert_ok(cml_model_serialize(&m, &out, err));
    cml_buffer_free(&out);
    accepted++;
  }
  assert_true(m.arena.total <= 64 << 20);
  cml_arena_free(&m.arena);
  free(exact);
}

static void sweep(const char *path) {
  size_t size = 0;
  uint8_t *data = (uint8_t *)get_file(path, &size);
  assert_non_null(data);
  for (size_t i = 0; i < 64; i++) try_model(data, size * i / 64);
  uint64_t seed = 88172645463325252;
  for (int i = 0; i < 2000; i++) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    uint8_t *at = &data[seed % size], kept = *at;
    *at ^= (uint8_t)(1u << (seed >> 60 & 7));
    try_model(data, size);
    *at = kept;
  }
  free(data);
}

static int sweep_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
  (void)ftw;
  if (kind == FTW_F && st->st_size < 1 << 17 && st->st_size) sweep(path);
  return 0;
}

static void damaged_models_do_no_harm(void **state) {
  (void)state;
  char path[4096];
  snprintf(path, sizeof path, "%s/tests/data/fuzz/model", source());
  nftw(path, sweep_one, 16, FTW_PHYS);
  print_message("# %zu accepted, %zu refused\n", accepted, refused);
  assert_true(accepted > 100 && refused > 100);
}

/* Messages that are two bytes in the file and a hundred in memory. */
static void memory_is_bounded(void **state) {
  (void)state;
  enum { COUNT = 4 << 20 };
  uint8_t *data = malloc(COUNT * 2 + 64), *p = data;
  cml_model m = {0};
  cml_error error = {0};
  assert_non_null(data);
  memcpy(p, "\x08\x08\xb2\x1f", 4); /* version 8; field 502 with a length of four bytes */
  p += 4;
  for (int i = 0; i < 4; i++) *p++ = (uint8_t)((COUNT * 2 >> 7 * i & 0x7f) | (i < 3 ? 0x80 : 0));
  for (size_t i = 0; i < COUNT; i++) *p++ = 0x12, *p++ = 0; /* functions, each without anything */
  assert_int_equal(cml_model_parse(cml_span_of(data, (size_t)(p - data)), NULL, &m, &error), CML_LIMIT);
  cml_model_options small = {.max_memory = 100000};
  assert_int_equal(cml_model_parse(cml_span_of(data, (size_t)(p - data)), &small, &m, &error), CML_LIMIT);
  free(data);
}

static void damaged_descriptions_do_no_harm(void **state) {
  (void)state;
  char path[4096];
  size_t size = 0;
  snprintf(path, sizeof path, "%s/tests/data/fuzz/coremldata/test_multi_io", source());
  uint8_t *data = (uint8_t *)get_file(path, &size);
  assert_non_null(data);
  for (size_t at = 0; at < size; at++)
    for (unsigned bit = 0; bit < 8; bit++) {
      cml_model m = {.arena = {.limit = 64 << 20}};
      data[at] ^= (uint8_t)(1u << bit);
      cml_error error = {0};
      cml_status status = cml_model_parse_compiled(cml_span_of(data, size), &m, &error);
      assert_true(!status == !*error.text);
      data[at] ^= (uint8_t)(1u << bit);
      cml_arena_free(&m.arena);
    }
  for (size_t cut = 0; cut < size - 32; cut++) { /* a trailer of 16 bytes follows the description */
    cml_model m = {0};
    uint8_t *exact = malloc(cut + 1);
    memcpy(exact, data, cut);
    assert_int_equal(cml_model_parse_compiled(cml_span_of(exact, cut), &m, NULL), CML_INVALID);
    cml_arena_free(&m.arena);
    free(exact);
  }
  free(data);
}

/* ---- memory runs out ---- */

static cml_status read_and_write(void *context, cml_error *err) {
  cml_tree *tree = NULL;
  cml_model *model = NULL, *again = NULL;
  cml_buffer difference = CML_BUFFER_INIT;
  cml_status status = cml_tree_from_folder(context, NULL, &tree, err);
  if (!status) status = cml_model_read(tree, cml_tree_root(tree), NULL, &model, err);
  if (!status) status = cml_model_write_package(model, "q.mlpackage", err);
  cml_tree_unref(tree);
  tree = NULL;
  if (!status) status = cml_tree_from_folder("q.mlpackage", NULL, &tree, err);
  if (!status) status = cml_model_read(tree, cml_tree_root(tree), NULL, &again, err);
  if (!status) assert_true(cml_mil_program_equal(model->program, again->program, &difference));
  cml_buffer_free(&difference);
  cml_tree_unref(tree);
  cml_model_close(model);
  cml_model_close(again);
  fail_alloc_pause();
  scratch_remove("q.mlpackage");
  fail_alloc_resume();
  return status;
}

static void memory_may_run_out_anywhere(void **state) {
  (void)state;
  char path[4096];
  if (!FAIL_ALLOC_WORKS) return;
  snprintf(path, sizeof path, "%s/tests/data/models/lut.mlpackage", source());
  long seen = fail_alloc_each(read_and_write, path);
  print_message("# %ld allocations\n", seen);
  assert_in_range(seen, 20, 5000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(damaged_models_do_no_harm), cmocka_unit_test(memory_is_bounded), cmocka_unit_test(damaged_descriptions_do_no_harm),
      cmocka_unit_test_setup_teardown(memory_may_run_out_anywhere, scratch_enter, scratch_leave),
  };
  return cmocka_run_group_tests_name("model-hostile", tests, NULL, NULL);
}
