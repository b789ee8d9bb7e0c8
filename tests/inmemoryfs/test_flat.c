/* Flat blobs: what ExecuTorch wrote is read, what is written here is what the format says byte for byte, and every way
 * in which a blob can be wrong is refused where it is wrong. The expected bytes are written out by hand. */
#include <sys/resource.h>

#include "flat.h"
#include "fail_alloc.h"
#include "scratch.h"

static cml_mapping *own(const void *data, size_t size) {
  cml_mapping *mapping = NULL;
  void *copy = malloc(size + 1);
  memcpy(copy, data, size);
  assert_ok(cml_mapping_own(copy, size, "test", &mapping, err));
  return mapping;
}

/* data, then the table back to front, then `zeros` zero bytes. */
static cml_mapping *make_blob(const char *data, const char *table, size_t zeros) {
  size_t n = strlen(data), t = strlen(table);
  char *bytes = calloc(1, n + t + zeros + 1);
  memcpy(bytes, data, n);
  for (size_t i = 0; i < t; i++) bytes[n + i] = table[t - 1 - i];
  cml_mapping *mapping = own(bytes, n + t + zeros);
  free(bytes);
  return mapping;
}

static cml_status restore(cml_mapping *mapping, cml_tree **out, cml_error *err) {
  return cml_flat_restore(mapping, 0, cml_mapping_span(mapping).size, NULL, out, err);
}

static void assert_file(const cml_tree *tree, const char *path, const char *want) {
  cml_span span;
  const cml_node *file = cml_node_find(cml_tree_root(tree), path);
  assert_non_null(file);
  assert_ok(cml_node_span(file, &span, err));
  assert_int_equal(span.size, strlen(want));
  assert_memory_equal(span.data, want, span.size);
}

static cml_mapping *open_data(const char *name) {
  char path[1024];
  cml_mapping *mapping = NULL;
  snprintf(path, sizeof path, "%s/tests/data/flat/%s", getenv("CML_SOURCE"), name);
  assert_ok(cml_mapping_open(path, &mapping, err));
  return mapping;
}

/* wheel.bin was written by executorchcoreml of ExecuTorch 1.4.1 from the folder that is spelt out here. */
static void executorchs_blob_is_restored(void **state) {
  (void)state;
  cml_mapping *mapping = open_data("wheel.bin");
  cml_tree *tree;
  assert_true(cml_flat_recognise(cml_mapping_span(mapping)));
  assert_ok(restore(mapping, &tree, err));
  assert_string_equal(cml_node_name(cml_tree_root(tree)), "lowered_module");
  assert_int_equal(cml_node_count(cml_tree_root(tree)), 5);
  assert_file(tree, "x.txt", "hello");
  assert_file(tree, "a/y", "yy\n");
  assert_file(tree, "a/b/z\"q", "ZZZZZZZZZZ");
  assert_file(tree, "\xc3\xa9\xe6\x97\xa5/\\u", "1");
  assert_file(tree, "metadata.json", "{\"inputNames\":[\"x\"]}");
  assert_int_equal(cml_node_count(cml_node_find(cml_tree_root(tree), "nothing")), 0);
  cml_mapping_unref(mapping);
  cml_tree_unref(tree);
}

static cml_node *add_folder(cml_tree *tree, cml_node *parent, const char *name) {
  cml_node *node = NULL;
  assert_ok(cml_tree_add_folder(tree, parent, name, strlen(name), &node, err));
  return node;
}

static void add_text(cml_tree *tree, cml_node *parent, const char *name, const char *text) {
  cml_piece p = {(const uint8_t *)text, strlen(text), NULL, 0};
  assert_ok(cml_tree_add_file(tree, parent, name, strlen(name), &p, 1, NULL, err));
}

static cml_tree *make_tree(void) {
  cml_tree *tree;
  assert_ok(cml_tree_create("top", &tree, err));
  cml_node *root = cml_tree_root_mutable(tree), *b = add_folder(tree, root, "b");
  add_text(tree, root, "c", "CCC");
  add_text(tree, b, "\"", "B");
  add_text(tree, root, "a", "");
  add_folder(tree, root, "d");
  return tree;
}

static char *flatten(const cml_tree *tree, const cml_flatten_options *options, size_t *out_size) {
  cml_buffer out = CML_BUFFER_INIT;
  uint64_t size;
  assert_ok(cml_flatten_to_sink(cml_tree_root(tree), cml_sink_to_buffer(&out), options, err));
  assert_ok(cml_flatten_size(cml_tree_root(tree), options, &size, err));
  assert_int_equal(size, out.size);
  *out_size = out.size;
  return (char *)out.data;
}

static void bytes_are_as_the_format_says(void **state) {
  (void)state;
  const char *tables[] = {"{\"nodes\":["
                          "{\"children\":{},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":0,\"name\":\"a\"},"
                          "{\"children\":{},\"dataRegion\":{\"offset\":0,\"size\":1},\"kind\":0,\"name\":\"\\\"\"},"
                          "{\"children\":{\"\\\"\":1},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":1,\"name\":\"b\"},"
                          "{\"children\":{},\"dataRegion\":{\"offset\":1,\"size\":3},\"kind\":0,\"name\":\"c\"},"
                          "{\"children\":{},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":1,\"name\":\"d\"},"
                          "{\"children\":{\"a\":0,\"b\":2,\"c\":3,\"d\":4},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":1,\"name\":\"top\"}]}",
                          "{\"nodes\":["
                          "{\"children\":{},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":0,\"name\":\"a\"},"
                          "{\"children\":{},\"dataRegion\":{\"offset\":0,\"size\":1},\"kind\":0,\"name\":\"\\\"\"},"
                          "{\"children\":{\"\\\"\":1},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":1,\"name\":\"b\"},"
                          "{\"children\":{},\"dataRegion\":{\"offset\":16,\"size\":3},\"kind\":0,\"name\":\"c\"},"
                          "{\"children\":{},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":1,\"name\":\"d\"},"
                          "{\"children\":{\"a\":0,\"b\":2,\"c\":3,\"d\":4},\"dataRegion\":{\"offset\":0,\"size\":0},\"kind\":1,\"name\":\"R\"}]}"};
  const char *data[] = {"BCCC", "B\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0CCC\0\0\0\0\0\0\0\0\0\0\0\0\0"};
  const size_t data_size[] = {4, 32};
  const cml_flatten_options options[] = {{0}, {.alignment = 16, .root_name = "R"}};
  cml_tree *tree = make_tree();
  for (size_t k = 0; k < 2; k++) {
    size_t size, t = strlen(tables[k]);
    char *bytes = flatten(tree, &options[k], &size);
    assert_int_equal(size, data_size[k] + t);
    assert_memory_equal(bytes, data[k], data_size[k]);
    for (size_t i = 0; i < t; i++) assert_int_equal(bytes[size - 1 - i], tables[k][i]);
    free(bytes);
  }
  cml_error e;
  uint64_t size;
  const cml_node *root = cml_tree_root(tree);
  assert_int_equal(cml_flatten_size(root, &(cml_flatten_options){.alignment = 24}, &size, &e), CML_ARGUMENT);
  assert_int_equal(cml_flatten_size(root, &(cml_flatten_options){.root_name = "a/b"}, &size, &e), CML_ARGUMENT);
  assert_int_equal(cml_flatten_size(root, &(cml_flatten_options){.root_name = ""}, &size, &e), CML_ARGUMENT);
  assert_int_equal(cml_flatten_size(cml_node_find(root, "c"), NULL, &size, &e), CML_ARGUMENT);
  cml_tree_unref(tree);
}

#define REGION "\"dataRegion\":{\"offset\":0,\"size\":1}"
#define FILE_F "{\"kind\":0,\"name\":\"f\"," REGION "}"
#define FOLDER(name, children) "{\"kind\":1,\"name\":\"" name "\",\"children\":{" children "}}"
#define NODES(rows) "{\"nodes\":[" rows "]}"

/* `at` is a text in the table whose first byte the error's offset must point to. */
static void wrong_tables_are_refused(void **state) {
  (void)state;
  const struct {
    const char *table, *words, *at;
    cml_status status;
  } bad[] = {
      {NODES(FILE_F "," FOLDER("r", "\"f\":1")), "cycle", "\"f\":1", CML_INVALID},
      {NODES(FOLDER("a", "\"r\":1") "," FOLDER("r", "\"a\":0")), "cycle", "\"r\":1", CML_INVALID},
      {NODES(FILE_F "," FOLDER("r", "\"f\":7")), "wrong index", "\"f\":7", CML_INVALID},
      {NODES(FILE_F "," FOLDER("a", "\"f\":0") "," FOLDER("r", "\"a\":1,\"f\":0")), "two folders", "\"f\":0}}]", CML_INVALID},
      {NODES(FILE_F "," FOLDER("r", "\"f\":0,\"f\":0")), "twice", NULL, CML_INVALID},
      {NODES(FILE_F "," FOLDER("r", "\"g\":0")), "another itself", "\"g\":0", CML_INVALID},
      {NODES(FILE_F "," FOLDER("r", "")), "in no folder", "{\"kind\":0", CML_INVALID},
      {NODES(FILE_F), "root is not a folder", "{\"kind\":0", CML_INVALID},
      {NODES(""), "no nodes", NULL, CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"f\",\"dataRegion\":{\"offset\":0,\"size\":5}}," FOLDER("r", "\"f\":0")), "holds bytes",
       "{\"kind\":0", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"f\",\"dataRegion\":{\"offset\":18446744073709551615,\"size\":2}}," FOLDER("r", "\"f\":0")),
       "holds bytes", "{\"kind\":0", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"f\",\"dataRegion\":{\"offset\":18446744073709551616,\"size\":2}}," FOLDER("r", "\"f\":0")),
       "64 bits", "18446744073709551616", CML_INVALID},
      {NODES(FILE_F ",{\"kind\":0,\"name\":\"g\"," REGION "}," FOLDER("r", "\"f\":0,\"g\":1")), "same bytes",
       "{\"kind\":0,\"name\":\"g\"", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"..\"," REGION "}," FOLDER("r", "\"..\":0")), "parent", "\"..\":0", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"\"," REGION "}," FOLDER("r", "\"\":0")), "is empty", "\"\":0", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"a/b\"," REGION "}," FOLDER("r", "\"a/b\":0")), "holds '/'", "\"a/b\":0", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"\\u0000\"," REGION "}," FOLDER("r", "\"\\u0000\":0")), "NUL", "\"\\u0000\":0", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"\xff\"," REGION "}," FOLDER("r", "\"f\":0")), "not UTF-8", "\"\xff", CML_INVALID},
      {NODES(FOLDER("..", "")), "root's name", NULL, CML_INVALID},
      {NODES("{\"kind\":2,\"name\":\"f\"," REGION "}"), "kind 2", "2,", CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"f\"}"), "lacks", "{\"kind", CML_INVALID},
      {NODES("{\"kind\":0," REGION "}"), "lacks", "{\"kind", CML_INVALID},
      {NODES("{\"kind\":0,\"kind\":0,\"name\":\"f\"," REGION "}"), "twice", NULL, CML_INVALID},
      {NODES("{\"kind\":0,\"name\":\"f\",\"children\":{\"x\":0}," REGION "}," FOLDER("r", "\"f\":0")), "file with children",
       "{\"kind\":0", CML_INVALID},
      {NODES("{\"kind\":-1,\"name\":\"f\"}"), "whole number", "-1", CML_INVALID},
      {NODES("{\"kind\":01,\"name\":\"f\"}"), "end of a whole number", "1,", CML_INVALID},
      {NODES("{\"kind\":1.0,\"name\":\"f\"}"), "end of a whole number", ".0", CML_INVALID},
      {NODES("{\"kind\":1,\"name\":\"\\ud800\"}"), "surrogate", NULL, CML_INVALID},
      {NODES("{\"kind\":1,\"name\":\"r\",}"), "'\"'", NULL, CML_INVALID},
      {"{\"other\":[[[1,{\"a\":null}]],true]}", "no nodes", NULL, CML_INVALID},
      {"{\"nodes\":", "'['", NULL, CML_INVALID},
      {"[]", "'{'", "[", CML_INVALID},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    cml_mapping *mapping = make_blob("DDD", bad[i].table, 2);
    cml_tree *tree = NULL;
    cml_error e = {0};
    if (restore(mapping, &tree, &e) != bad[i].status || !strstr(e.text, bad[i].words))
      fail_msg("table %zu, %s: %s, %s", i, bad[i].table, cml_status_name(e.status), e.text);
    assert_null(tree);
    const char *at = bad[i].at ? strstr(bad[i].table, bad[i].at) : NULL;
    if (bad[i].at && e.offset != 3 + strlen(bad[i].table) - 1 - (size_t)(at - bad[i].table))
      fail_msg("table %zu, %s: offset %llu", i, bad[i].table, (unsigned long long)e.offset);
    cml_mapping_unref(mapping);
  }
}

/* White space, unknown keys, escapes, other orders and padding are no faults. */
static void other_writers_tables_are_read(void **state) {
  (void)state;
  cml_mapping *mapping = make_blob("xyz",
                                   "{ \"version\" : {\"a\":[1,-2.5e3,\"s\",{}]}, \"nodes\" : [\n"
                                   "{\"name\":\"\\u00e9\\ud83d\\ude00\\/\\\"\",\"kind\":1,\"extra\":null},"
                                   "{\"dataRegion\":{\"size\":2,\"attributes\":[],\"offset\":1},\"kind\":0,\"name\":\"b\\\\\"},"
                                   "{\"kind\":1,\"name\":\"\",\"children\": {\"b\\\\\" : 1 } } ] }",
                                   5000);
  cml_tree *tree = NULL;
  cml_error e;
  assert_int_equal(restore(mapping, &tree, &e), CML_INVALID); /* node 0 lies in no folder, and its name holds '/' */
  assert_non_null(strstr(e.text, "node 0 lies in no folder"));
  cml_mapping_unref(mapping);
  mapping = make_blob("xyz",
                      "{ \"version\" : {\"a\":[1,-2.5e3,\"s\",{}]}, \"nodes\" : [\n"
                      "{\"name\":\"\\u00e9\\ud83d\\ude00\\\"\",\"kind\":1,\"extra\":null},"
                      "{\"dataRegion\":{\"size\":2,\"attributes\":[],\"offset\":1},\"kind\":0,\"name\":\"b\\\\\"},"
                      "{\"kind\":1,\"name\":\"\",\"children\": {\"b\\\\\" : 1, \"\xc3\xa9\\ud83d\\uDE00\\\"\":0 } } ] }",
                      5000);
  assert_ok(restore(mapping, &tree, err));
  assert_file(tree, "b\\", "yz");
  assert_non_null(cml_node_find(cml_tree_root(tree), "\xc3\xa9\xf0\x9f\x98\x80\""));
  assert_string_equal(cml_node_name(cml_tree_root(tree)), "");
  cml_tree_unref(tree);
  cml_flat_options limits[] = {{.max_nodes = 2}, {.max_nodes = 3}};
  assert_int_equal(cml_flat_restore(mapping, 0, cml_mapping_span(mapping).size, &limits[0], &tree, &e), CML_LIMIT);
  assert_ok(cml_flat_restore(mapping, 0, cml_mapping_span(mapping).size, &limits[1], &tree, err));
  cml_tree_unref(tree);
  assert_int_equal(cml_flat_restore(mapping, 1, cml_mapping_span(mapping).size, NULL, &tree, &e), CML_INVALID);
  cml_mapping_unref(mapping);
}

static void what_is_flattened_is_restored(void **state) {
  (void)state;
  cml_tree *tree = make_tree(), *again;
  char name[256];
  memset(name, 'n', 255);
  name[255] = 0;
  cml_node *node = add_folder(tree, cml_tree_root_mutable(tree), "deep");
  for (int i = 0; i < 900; i++) node = add_folder(tree, node, i % 100 ? "d" : name);
  add_text(tree, node, "\xf0\x9f\x98\x80\n\x7f", "bottom");
  node = add_folder(tree, cml_tree_root_mutable(tree), "wide");
  for (int i = 0; i < 3000; i++) {
    snprintf(name, sizeof name, "%d", i);
    add_text(tree, node, name, name);
  }
  for (uint64_t alignment = 0; alignment <= 1 << 16; alignment = alignment ? alignment * 16 : 1) {
    size_t size;
    bool equal = false;
    const cml_flatten_options options = {.alignment = alignment};
    char *bytes = flatten(tree, &options, &size);
    cml_mapping *mapping = own(bytes, size);
    assert_ok(restore(mapping, &again, err));
    assert_ok(cml_node_compare(cml_tree_root(tree), cml_tree_root(again), &equal, NULL, err));
    assert_true(equal);
    assert_string_equal(cml_node_name(cml_tree_root(again)), "top");
    assert_ok(cml_flatten_to_path(cml_tree_root(again), "again.bin", &options, err));
    size_t again_size;
    char *again_bytes = get_file("again.bin", &again_size);
    assert_int_equal(again_size, size);
    assert_memory_equal(again_bytes, bytes, size);
    free(bytes);
    free(again_bytes);
    cml_tree_unref(again);
    cml_mapping_unref(mapping);
  }
  cml_tree_unref(tree);
}

static size_t peak_memory(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (size_t)usage.ru_maxrss << 10;
}

/* 5 GiB with one byte of data in the middle and one near the end: pages align it, holes keep it small. */
static void large_sparse_files_stay_small(void **state) {
  (void)state;
  const off_t size = ((off_t)5 << 30) + 7;
  assert_int_equal(mkdir("s", 0777), 0);
  int fd = open("s/sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  assert_int_equal(pwrite(fd, "m", 1, (off_t)3 << 30), 1);
  assert_int_equal(pwrite(fd, "e", 1, size - 1), 1);
  close(fd);
  put_text("s/tiny", "small");
  cml_tree *tree;
  size_t before = peak_memory();
  assert_ok(cml_tree_from_folder("s", NULL, &tree, err));
  assert_ok(cml_flatten_to_path(cml_tree_root(tree), "s.bin", NULL, err));
  cml_tree_unref(tree);
  assert_in_range(peak_memory() - before, 0, 8 << 20);
  struct stat st;
  assert_int_equal(stat("s.bin", &st), 0);
  assert_true(st.st_blocks * 512 < 1 << 20);
  cml_mapping *mapping;
  assert_ok(cml_mapping_open("s.bin", &mapping, err));
  assert_ok(restore(mapping, &tree, err));
  cml_contents c;
  assert_ok(cml_node_open(cml_node_find(cml_tree_root(tree), "tiny"), &c, err));
  const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  assert_int_equal(c.pieces[0].offset, ((uint64_t)size + page - 1) / page * page);
  cml_contents_close(&c);
  assert_file(tree, "tiny", "small");
  assert_ok(cml_node_write(cml_tree_root(tree), "again", err));
  assert_int_equal(stat("again/sparse", &st), 0);
  assert_int_equal(st.st_size, size);
  assert_true(st.st_blocks * 512 < 1 << 20);
  char text[2] = "";
  fd = open("again/sparse", O_RDONLY | O_CLOEXEC);
  assert_int_equal(pread(fd, text, 1, (off_t)3 << 30), 1);
  assert_string_equal(text, "m");
  assert_int_equal(pread(fd, text, 1, size - 1), 1);
  assert_string_equal(text, "e");
  close(fd);
  cml_tree_unref(tree);
  cml_mapping_unref(mapping);
}

/* Any bytes give an error or a tree that can be walked and read. */
static void try_bytes(const void *bytes, size_t size) {
  cml_mapping *mapping = own(bytes, size);
  cml_tree *tree = NULL;
  cml_error e = {0};
  cml_status status = restore(mapping, &tree, &e);
  if (status) {
    assert_null(tree);
    assert_true(e.text[0] && e.offset <= size);
  } else {
    size_t flat_size;
    free(flatten(tree, &(cml_flatten_options){.root_name = "r"}, &flat_size));
    assert_true(flat_size > 0);
  }
  cml_tree_unref(tree);
  cml_mapping_unref(mapping);
}

static void damaged_blobs_do_no_harm(void **state) {
  (void)state;
  cml_mapping *mapping = open_data("wheel.bin");
  cml_span blob = cml_mapping_span(mapping);
  uint8_t *bytes = malloc(blob.size);
  uint32_t random = 1;
  for (size_t i = 0; i <= 64; i++) try_bytes(blob.data, blob.size * i / 64);
  for (int i = 0; i < 2000; i++) {
    memcpy(bytes, blob.data, blob.size);
    for (int k = 0; k <= i % 4; k++) {
      random = random * 1664525 + 1013904223;
      size_t at = (random >> 8) % blob.size;
      bytes[at] = (uint8_t)(i % 2 ? random : bytes[at] ^ 1u << (random & 7));
    }
    try_bytes(bytes, blob.size);
  }
  free(bytes);
  cml_mapping_unref(mapping);
}

/* ---- without memory ---- */

static cml_status walk_through_it(void *context, cml_error *err) {
  cml_tree *folder = NULL, *again = NULL;
  cml_mapping *mapping = NULL;
  cml_span span;
  bool equal = false;
  cml_buffer difference = CML_BUFFER_INIT;
  (void)context;
  cml_status status = cml_tree_from_folder("m", NULL, &folder, err);
  if (!status) status = cml_node_span(cml_node_find(cml_tree_root(folder), "sub/f"), &span, err);
  if (!status) status = cml_flatten_to_path(cml_tree_root(folder), "m.bin", NULL, err);
  if (!status) status = cml_mapping_open("m.bin", &mapping, err);
  if (!status) status = cml_flat_restore(mapping, 0, cml_mapping_span(mapping).size, NULL, &again, err);
  if (!status) status = cml_node_write(cml_tree_root(again), "m2", err);
  if (!status) status = cml_node_compare(cml_tree_root(folder), cml_tree_root(again), &equal, &difference, err);
  if (!status) assert_true(equal);
  cml_buffer_free(&difference);
  cml_tree_unref(folder);
  cml_tree_unref(again);
  cml_mapping_unref(mapping);
  unlink("m.bin");
  unlink("m2/g");
  unlink("m2/sub/f");
  rmdir("m2/sub");
  assert_true(!rmdir("m2") || status);
  return status;
}

static void memory_may_run_out_anywhere(void **state) {
  (void)state;
  if (!FAIL_ALLOC_WORKS) skip();
  assert_int_equal(mkdir("m", 0777), 0);
  assert_int_equal(mkdir("m/sub", 0777), 0);
  put_text("m/sub/f", "some bytes");
  put_text("m/g", "");
  assert_in_range(fail_alloc_each(walk_through_it, NULL), 20, 1000);
}

int main(void) {
#define ON_DISK(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(executorchs_blob_is_restored), cmocka_unit_test(bytes_are_as_the_format_says),
      cmocka_unit_test(wrong_tables_are_refused),     cmocka_unit_test(other_writers_tables_are_read),
      cmocka_unit_test(damaged_blobs_do_no_harm),     ON_DISK(what_is_flattened_is_restored),
      ON_DISK(large_sparse_files_stay_small),         ON_DISK(memory_may_run_out_anywhere),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
