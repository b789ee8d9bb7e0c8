/* Containers: what the view shows is what the peers wrote. Truth: the sizes, offsets and names that the reference cases
 * recorded when they were made, elements that coremltools' own storage writer was given and its reader returned, and files
 * put into archives by the system's tar and zip. */
#include <glob.h>
#include <jansson.h>

#include "../inmemoryfs/scratch.h"
#include "archive.h"
#include "blob.h"
#include "container.h"
#include "flat.h"
#include "mil_equal.h"
#include "mlpackage.h"
#include "npy.h"
#include "verify.h"

static const char *shared(const char *path) {
  static char full[512];
  snprintf(full, sizeof full, "%s/../shared/%s", getenv("CML_SOURCE"), path);
  return full;
}

static const char *data_file(const char *path) {
  static char full[512];
  snprintf(full, sizeof full, "%s/tests/data/%s", getenv("CML_SOURCE"), path);
  return full;
}

static bool present(const char *path) { return !access(path, R_OK); }

#define NEED(path)                                    \
  do {                                                \
    if (!present(path)) {                             \
      print_message("skip: %s is absent\n", path);    \
      skip();                                         \
    }                                                 \
  } while (0)

static cml_container *open_container(const char *path) {
  cml_container *c = NULL;
  assert_ok(cml_container_open(path, NULL, &c, err));
  return c;
}

static const cml_node *find_node(const cml_container *c, const char *path) {
  return cml_node_find(cml_tree_root(cml_container_view(c)), path);
}

static cml_buffer read_node(const cml_node *node) {
  cml_contents contents = {0};
  cml_buffer all = CML_BUFFER_INIT;
  assert_ok(cml_node_open(node, &contents, err));
  for (size_t i = 0; i < contents.count; i++) cml_buffer_append(&all, contents.pieces[i].data, contents.pieces[i].size);
  assert_int_equal(all.size, contents.size);
  cml_contents_close(&contents);
  return all;
}

/* ---- weight.bin ---- */

/* What coremltools' writer was given, and its reader gave back. */
static const struct {
  uint64_t record;
  cml_dtype dtype;
  size_t count;
  int elements[12];
} sub_byte[] = {
    {1088, CML_U1, 9, {1, 0, 1, 1, 0, 0, 1, 0, 1}},
    {1216, CML_U2, 5, {3, 0, 1, 2, 3}},
    {1344, CML_U3, 11, {7, 0, 1, 2, 3, 4, 5, 6, 7, 1, 2}},
    {1472, CML_U4, 3, {15, 0, 9}},
    {1600, CML_U6, 5, {63, 0, 33, 62, 1}},
    {1728, CML_I4, 5, {-8, 7, -1, 3, 0}},
};

static void blobs_are_read_as_coremltools_wrote_them(void **state) {
  (void)state;
  static const struct { uint64_t record; cml_dtype dtype; size_t count; uint8_t bytes[12]; } whole[] = {
      {64, CML_F32, 3, {0, 0, 0, 0x3f, 0, 0, 0xa0, 0xbf, 0xe6, 0xb1, 0x61, 0x7f}}, /* 0.5 -1.25 3e38 */
      {192, CML_F16, 3, {0x00, 0x3e, 0x00, 0xc0, 0xff, 0x7b}},
      {320, CML_U8, 3, {0, 7, 255}},
      {448, CML_I8, 3, {0x80, 0xff, 0x7f}},
      {576, CML_I16, 2, {0x00, 0x80, 5, 0}},
      {704, CML_U16, 2, {0xff, 0xff, 5, 0}},
      {832, CML_I32, 2, {0, 0, 0, 0x80, 9, 0, 0, 0}},
      {960, CML_U32, 2, {0xff, 0xff, 0xff, 0xff, 9, 0, 0, 0}},
  };
  cml_mapping *m;
  assert_ok(cml_mapping_open(data_file("weights/all-types.bin"), &m, err));
  cml_blobs blobs;
  cml_blob b;
  bool found;
  assert_ok(cml_blobs_begin(cml_mapping_span(m), &blobs, err));
  assert_int_equal(blobs.count, 14);
  for (size_t i = 0; i < 8; i++) {
    assert_ok(cml_blobs_next(&blobs, &b, &found, err));
    assert_int_equal(b.record, whole[i].record);
    assert_int_equal(b.dtype, whole[i].dtype);
    assert_int_equal(b.count, whole[i].count);
    assert_memory_equal(b.data.data, whole[i].bytes, b.data.size);
  }
  for (size_t i = 0; i < 6; i++) {
    assert_ok(cml_blobs_next(&blobs, &b, &found, err));
    assert_int_equal(b.record, sub_byte[i].record);
    assert_int_equal(b.dtype, sub_byte[i].dtype);
    assert_int_equal(b.count, sub_byte[i].count);
    for (size_t k = 0; k < b.count; k++) assert_int_equal(cml_blob_element(&b, k), sub_byte[i].elements[k]);
  }
  assert_ok(cml_blobs_next(&blobs, &b, &found, err));
  assert_false(found);
  cml_mapping_unref(m);
}

static void damaged_blobs_are_refused(void **state) {
  (void)state;
  static const struct { size_t at; uint8_t value; uint64_t offset; const char *words; } cases[] = {
      {4, 3, 4, "version 3"},      {64, 0, 64, "0xdeadbeef"},          {68, 99, 68, "element type 99"},
      {72, 11, 88, "whole fp32"},  {79, 1, 72, "past the end"},        {80, 129, 80, "not aligned"},
      {80, 64, 80, "overlaps"},
  };
  cml_mapping *m;
  assert_ok(cml_mapping_open(data_file("weights/all-types.bin"), &m, err));
  cml_span whole = cml_mapping_span(m);
  uint8_t *copy = malloc(whole.size);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cml_error err = {0};
    cml_blobs blobs;
    cml_blob b;
    bool found;
    memcpy(copy, whole.data, whole.size);
    copy[cases[i].at] = cases[i].value;
    cml_status status = cml_blobs_begin(cml_span_of(copy, whole.size), &blobs, &err);
    if (!status) status = cml_blobs_next(&blobs, &b, &found, &err);
    assert_int_not_equal(status, CML_OK);
    assert_int_equal(err.offset, cases[i].offset);
    assert_non_null(strstr(err.text, cases[i].words));
  }
  free(copy);
  cml_mapping_unref(m);
}

/* ---- manifests ---- */

static void manifests_are_checked(void **state) {
  (void)state;
  static const struct { const char *json, *words; } cases[] = {
      {"", "not JSON"},
      {"[]", "no JSON object"},
      {"{}", "fileFormatVersion"},
      {"{\"fileFormatVersion\":\"2.0.0\"}", "expected 1.0.0"},
      {"{\"fileFormatVersion\":\"1.0.0\"}", "itemInfoEntries"},
      {"{\"fileFormatVersion\":\"1.0.0\",\"itemInfoEntries\":{}}", "rootModelIdentifier"},
      {"{\"fileFormatVersion\":\"1.0.0\",\"itemInfoEntries\":{\"A\":{\"path\":\"../m\"}},\"rootModelIdentifier\":\"A\"}", "inside Data/"},
      {"{\"fileFormatVersion\":\"1.0.0\",\"itemInfoEntries\":{\"A\":{\"path\":\"/m\"}},\"rootModelIdentifier\":\"A\"}", "inside Data/"},
      {"{\"fileFormatVersion\":\"1.0.0\",\"itemInfoEntries\":{\"A\":{\"path\":\"m\"}},\"rootModelIdentifier\":\"B\"}", "names no item"},
      {"{\"fileFormatVersion\":\"1.0.0\",\"itemInfoEntries\":{\"A\":{},\"A\":{}}}", "not JSON"},
  };
  cml_manifest m;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cml_arena arena = CML_ARENA_INIT;
    cml_error err = {0};
    assert_int_not_equal(cml_manifest_parse(cml_span_text(cases[i].json), &arena, &m, &err), CML_OK);
    if (!strstr(err.text, cases[i].words)) fail_msg("%s: %s", cases[i].json, err.text);
    cml_arena_free(&arena);
  }
  cml_arena arena = CML_ARENA_INIT;
  const char *good = "{\"fileFormatVersion\":\"1.0.0\",\"itemInfoEntries\":{\"B\":{\"path\":\"c/w\"},\"A\":{\"path\":\"c/m\",\"name\":\"n\"}},"
                     "\"rootModelIdentifier\":\"A\"}";
  assert_ok(cml_manifest_parse(cml_span_text(good), &arena, &m, err));
  assert_int_equal(m.count, 2);
  assert_string_equal(m.root_model->path, "c/m");
  assert_string_equal(m.items[1].path, "c/w");
  cml_arena_free(&arena);
}

/* ---- .pte ---- */

static void check_files(const cml_container *c, const char *folder, json_t *blob, const char *path) {
  const char *name;
  json_t *size;
  uint64_t start = (uint64_t)json_integer_value(json_object_get(blob, "offset"));
  uint64_t end = start + (uint64_t)json_integer_value(json_object_get(blob, "bytes"));
  json_object_foreach(json_object_get(blob, "files"), name, size) {
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", folder, name);
    const cml_node *node = find_node(c, full);
    if (!node) fail_msg("%s: there is no %s", path, full);
    cml_contents contents = {0};
    assert_ok(cml_node_open(node, &contents, err));
    assert_int_equal(contents.size, json_integer_value(size));
    for (size_t i = 0; i < contents.count; i++) {
      if (contents.pieces[i].offset < start || contents.pieces[i].offset + contents.pieces[i].size > end)
        fail_msg("%s: %s lies at %llu, outside of its blob", path, full, (unsigned long long)contents.pieces[i].offset);
    }
    cml_contents_close(&contents);
  }
}

static void check_metadata(const cml_container *c, const char *folder, json_t *blob) {
  char full[1024];
  snprintf(full, sizeof full, "%s/metadata.json", folder);
  cml_buffer text = read_node(find_node(c, full));
  json_t *read = json_loadb((const char *)text.data, text.size, 0, NULL);
  assert_true(json_equal(read, json_object_get(blob, "metadata")));
  json_decref(read);
  snprintf(full, sizeof full, "%s.view/metadata.json", folder);
  cml_buffer pretty = read_node(find_node(c, full));
  read = json_loadb((const char *)pretty.data, pretty.size, 0, NULL);
  assert_true(json_equal(read, json_object_get(blob, "metadata")));
  json_decref(read);
  cml_buffer_free(&text);
  cml_buffer_free(&pretty);
}

/* Returns the number of Core ML delegates that were compared. */
static size_t check_case(const char *folder) {
  char path[512];
  size_t compared = 0;
  snprintf(path, sizeof path, "%s/case.json", folder);
  json_t *json = json_load_file(path, 0, NULL), *blobs = json_object_get(json, "blobs"), *method;
  const char *name;
  if (!json_array_size(blobs)) goto done;
  snprintf(path, sizeof path, "%s/model.pte", folder);
  cml_container *c = open_container(path);
  assert_int_equal(cml_container_kind_of(c), CML_CONTAINER_PTE);
  assert_int_equal(cml_container_model_count(c), json_integer_value(json_object_get(json, "coreml_delegates")));
  json_object_foreach(json_object_get(json, "methods"), name, method) {
    size_t i;
    unsigned number = 0;
    json_t *delegate;
    json_array_foreach(json_object_get(method, "delegates"), i, delegate) {
      if (strcmp(json_string_value(json_object_get(delegate, "id")), "CoreMLBackend")) continue;
      char shown[256];
      snprintf(shown, sizeof shown, "%s/coreml_%u", name, number++);
      json_t *blob = json_array_get(blobs, (size_t)json_integer_value(json_object_get(delegate, "blob")));
      check_files(c, shown, blob, path);
      check_metadata(c, shown, blob);
      compared++;
    }
  }
  cml_container_close(c);
done:
  json_decref(json);
  return compared;
}

static void delegates_hold_what_the_cases_say(void **state) {
  (void)state;
  glob_t found = {0};
  size_t compared = 0;
  NEED(shared("reference/pte"));
  glob(shared("reference/pte/*"), GLOB_ONLYDIR, NULL, &found);
  for (size_t i = 0; i < found.gl_pathc; i++) compared += check_case(found.gl_pathv[i]);
  globfree(&found);
  print_message("%zu delegates compared\n", compared);
  assert_true(compared > 50);
}

/* CRC-32 as zlib's, which the recorded values come from. */
static uint32_t crc_of(const uint8_t *p, size_t n) {
  uint32_t crc = UINT32_MAX;
  while (n--) {
    crc ^= *p++;
    for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
  }
  return ~crc;
}

/* Counts and CRCs of what coremltools' reader gives for the record at each offset. */
static void weights_are_arrays(void **state) {
  (void)state;
  static const struct { unsigned record, count; uint32_t crc; } rows[] = {
      {64, 144, 0x8aeed546},   {448, 16, 0x2bc09008},   {576, 4608, 0x81bbc69e}, {9856, 32, 0xc2955214},
      {9984, 8192, 0xcfcce6bd}, {26432, 64, 0x6b95467a}, {26624, 640, 0xeeea3a28}, {27968, 10, 0x8d124171}};
  NEED(shared("reference/digits/digits.pte"));
  cml_container *c = open_container(shared("reference/digits/digits.pte"));
  for (size_t i = 0; i < 8; i++) {
    char path[80];
    snprintf(path, sizeof path, "forward/coreml_0.view/weights/%u.npy", rows[i].record);
    assert_non_null(find_node(c, path));
    cml_buffer file = read_node(find_node(c, path));
    cml_array array;
    cml_arena arena = CML_ARENA_INIT;
    assert_ok(cml_npy_parse(cml_buffer_span(&file), &arena, &array, err));
    assert_int_equal(array.dtype, CML_F16);
    assert_int_equal(array.rank, 1);
    assert_int_equal(array.dims[0], rows[i].count);
    assert_int_equal(crc_of(array.data, array.bytes), rows[i].crc);
    cml_arena_free(&arena);
    cml_buffer_free(&file);
  }
  cml_container_close(c);
}

static void program_json_is_json(void **state) {
  (void)state;
  glob_t found = {0};
  NEED(shared("reference/pte"));
  glob(shared("reference/pte/*/model.pte"), 0, NULL, &found);
  for (size_t i = 0; i < found.gl_pathc; i += 9) {
    cml_container *c = open_container(found.gl_pathv[i]);
    cml_buffer text = read_node(find_node(c, "program.json"));
    json_error_t problem;
    json_t *json = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &problem);
    if (!json) fail_msg("%s: line %d: %s", found.gl_pathv[i], problem.line, problem.text);
    assert_true(json_array_size(json_object_get(json, "methods")) > 0);
    json_decref(json);
    cml_buffer_free(&text);
    cml_container_close(c);
  }
  globfree(&found);
}

static void external_data_is_shown(void **state) {
  (void)state;
  NEED(shared("reference/pte/external_ptd/model.ptd"));
  cml_container *c = open_container(shared("reference/pte/external_ptd/model.ptd"));
  assert_int_equal(cml_container_kind_of(c), CML_CONTAINER_PTD);
  assert_non_null(cml_container_ptd(c));
  assert_non_null(find_node(c, "data.json"));
  cml_container_close(c);
  c = open_container(shared("reference/pte/external_ptd")); /* a folder with one program and its data */
  assert_int_equal(cml_container_kind_of(c), CML_CONTAINER_PTE);
  assert_non_null(cml_container_ptd(c));
  cml_container_close(c);
}

/* ---- kinds ---- */

static void kinds_are_told_by_content(void **state) {
  (void)state;
  static const struct { const char *path; cml_container_kind kind; size_t models; } rows[] = {
      {"reference/digits/digits.pte", CML_CONTAINER_PTE, 1},
      {"reference/pte/bundled/model.bpte", CML_CONTAINER_BPTE, 0},
      {"reference/digits/digits-int8.mlpackage", CML_CONTAINER_MLPACKAGE, 1},
      {"corpus/neuralnetwork/MNIST.mlmodel", CML_CONTAINER_MLMODEL, 1},
      {"corpus/mlprogram-compiled/add_model.mlmodelc", CML_CONTAINER_MLMODELC, 1},
      {"corpus/pte/linear-no-constant-segment.pte", CML_CONTAINER_PTE, 0},
      {"corpus/neuralnetwork", CML_CONTAINER_FOLDER, 0},
  };
  NEED(shared("reference"));
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    cml_container *c = open_container(shared(rows[i].path));
    assert_int_equal(cml_container_kind_of(c), rows[i].kind);
    if (rows[i].kind != CML_CONTAINER_BPTE) assert_int_equal(cml_container_model_count(c), rows[i].models);
    cml_container_close(c);
  }
  char command[700]; /* the same bytes under a name that says nothing */
  snprintf(command, sizeof command, "cp '%s' thing.xyz", shared("corpus/neuralnetwork/MNIST.mlmodel"));
  assert_int_equal(system(command), 0);
  cml_container *c = open_container("thing.xyz");
  assert_int_equal(cml_container_kind_of(c), CML_CONTAINER_MLMODEL);
  assert_int_equal(cml_container_model_count(c), 1);
  cml_container_close(c);
}

static void what_is_none_is_refused(void **state) {
  (void)state;
  static const struct { const char *bytes; size_t size; const char *words; } rows[] = {
      {"", 0, "empty"}, {"hello", 5, "no format"}, {"\0\0\0\0ET12", 8, ""}, {"PK\3\4xxxx", 8, "archive"}, {"{", 1, ""},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    cml_container *c = NULL;
    cml_error err = {0};
    put_file("bad", rows[i].bytes, rows[i].size);
    assert_int_not_equal(cml_container_open("bad", NULL, &c, &err), CML_OK);
    assert_null(c);
    if (!strstr(err.text, rows[i].words)) fail_msg("%zu: %s", i, err.text);
  }
}

/* ---- archives ---- */

static void archives_hold_the_same(void **state) {
  (void)state;
  static const char *const makers[] = {"tar cf a.bin m.mlpackage", "tar czf a.bin m.mlpackage", "tar cJf a.bin ./m.mlpackage",
                                       "tar --zstd -cf a.bin m.mlpackage", "zip -qr a.zip m.mlpackage && mv a.zip a.bin",
                                       "python3 -m zipfile -c a.bin m.mlpackage"};
  char command[800];
  NEED(shared("reference/digits/digits-int8.mlpackage"));
  snprintf(command, sizeof command, "cp -r '%s' m.mlpackage", shared("reference/digits/digits-int8.mlpackage"));
  assert_int_equal(system(command), 0);
  cml_container *plain = open_container("m.mlpackage");
  size_t made = 0;
  for (size_t i = 0; i < sizeof makers / sizeof *makers; i++) {
    snprintf(command, sizeof command, "rm -f a.bin; (%s) 2>/dev/null", makers[i]);
    if (system(command)) continue; /* the packer is not installed */
    cml_container *c = open_container("a.bin");
    cml_buffer difference = CML_BUFFER_INIT;
    bool equal = false;
    assert_int_equal(cml_container_kind_of(c), CML_CONTAINER_MLPACKAGE);
    assert_ok(cml_node_compare(cml_tree_root(cml_container_view(plain)), cml_tree_root(cml_container_view(c)), &equal, &difference, err));
    assert_true(equal);
    cml_buffer_free(&difference);
    cml_container_close(c);
    made++;
  }
  assert_true(made >= 3);
  cml_container_close(plain);
}

static void hostile_archives_are_refused(void **state) {
  (void)state;
  static const struct { const char *make, *words; } rows[] = {
      {"mkdir -p x; echo 1 > x/a; tar cf a.bin -P --transform='s,^x/,../,' x/a", ".."},
      {"mkdir -p x; echo 1 > x/a; tar cf a.bin -P --transform='s,^x/,/etc/,' x/a", "absolute"},
      {"mkdir -p y; ln -sf /etc/passwd y/l; tar cf a.bin y", "link"},
      {"mkdir -p x; echo 1 > x/a; ln -f x/a x/b; tar cf a.bin x", "link"},
      {"echo 1 > twice; tar cf a.bin twice twice --hard-dereference; tar rf a.bin twice", "occurs twice"},
      {"echo 1 > one; tar cf a.bin one; truncate -s 700 a.bin; printf x | dd of=a.bin bs=1 seek=150 conv=notrunc 2>/dev/null", "archive"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char command[600];
    cml_container *c = NULL;
    cml_error err = {0};
    snprintf(command, sizeof command, "rm -rf a.bin x y; (%s) >/dev/null 2>&1", rows[i].make);
    assert_int_equal(system(command), 0);
    if (!cml_container_open("a.bin", NULL, &c, &err)) fail_msg("%s: accepted", rows[i].make);
    if (!strstr(err.text, rows[i].words)) fail_msg("%s: %s", rows[i].make, err.text);
  }
}

static void archive_limits_hold(void **state) {
  (void)state;
  cml_container *c = NULL;
  cml_error problem = {0};
  assert_int_equal(system("truncate -s 5M zeros; echo 1 > one; tar czf a.bin zeros one"), 0);
  cml_container_options small = {.max_archive_bytes = 1 << 20}, few = {.max_archive_entries = 1};
  assert_int_equal(cml_container_open("a.bin", &small, &c, &problem), CML_LIMIT);
  assert_non_null(strstr(problem.text, "zeros"));
  assert_int_equal(cml_container_open("a.bin", &few, &c, &problem), CML_LIMIT);
  assert_ok(cml_container_open("a.bin", NULL, &c, err));
  cml_container_close(c);
}

/* ---- verify ---- */

static size_t heard;
static char last_text[700];

static void listen_to(void *context, const cml_finding *finding) {
  (void)context;
  heard++;
  snprintf(last_text, sizeof last_text, "%s", finding->text);
}

static void verify_finds_damage(void **state) {
  (void)state;
  char command[800];
  cml_verify_result r;
  NEED(shared("reference/digits/digits-int8.mlpackage"));
  heard = 0;
  assert_ok(cml_verify(shared("reference/digits/digits.pte"), NULL, listen_to, NULL, &r, err));
  assert_int_equal(heard, 0);
  snprintf(command, sizeof command, "rm -rf v; cp -r '%s' v; chmod -R u+w v; echo 1 > v/Data/extra", shared("reference/digits/digits-int8.mlpackage"));
  assert_int_equal(system(command), 0);
  assert_ok(cml_verify("v", NULL, listen_to, NULL, &r, err));
  assert_int_equal(r.warnings, 1);
  assert_non_null(strstr(last_text, "Data/extra is no item"));
  assert_int_equal(system("rm v/Data/extra; printf '\\0' | dd of=v/Data/com.apple.CoreML/weights/weight.bin bs=1 seek=64 conv=notrunc 2>/dev/null"), 0);
  assert_ok(cml_verify("v", NULL, listen_to, NULL, &r, err));
  assert_true(r.errors >= 1);
  assert_int_equal(system("rm v/Data/com.apple.CoreML/model.mlmodel"), 0);
  assert_ok(cml_verify("v", NULL, listen_to, NULL, &r, err));
  assert_true(r.errors >= 1);
}

/* A flat blob starts as its first file does: here with a model, and with a program. A program may end in a flat blob. */
static void flat_blobs_are_told_from_their_first_file(void **state) {
  (void)state;
  static const char *const folders[] = {"digits/digits-classifier.mlpackage", "digits", "fuzz/pte"};
  for (size_t i = 0; i < 3; i++) {
    cml_tree *tree;
    assert_ok(cml_tree_from_folder(data_file(folders[i]), NULL, &tree, err));
    assert_ok(cml_flatten_to_path(cml_tree_root(tree), "told.bin", NULL, err));
    cml_container *c = open_container("told.bin");
    assert_int_equal(cml_container_kind_of(c), CML_CONTAINER_FLAT);
    cml_container_close(c);
    cml_tree_unref(tree);
  }
  cml_container *c = open_container(data_file("digits/digits.pte"));
  assert_int_equal(cml_container_kind_of(c), CML_CONTAINER_PTE);
  cml_container_close(c);
}

static cml_model *read_model(const char *path, cml_container **c) {
  cml_model *m = NULL;
  *c = open_container(path);
  assert_int_equal(cml_container_model_count(*c), 1);
  const cml_container_model *found = cml_container_model_at(*c, 0);
  assert_ok(cml_model_read(found->tree, found->root, NULL, &m, err));
  return m;
}

/* Apple's compiler wrote the text and, beside it, what the text's types are called as features. */
static void text_alone_is_described_by_its_types(void **state) {
  (void)state;
  char path[600];
  cml_container *one, *whole;
  snprintf(path, sizeof path, "%s", shared("corpus/mlprogram-compiled/add_model.mlmodelc"));
  NEED(path);
  cml_model *b = read_model(path, &whole);
  strcat(path, "/model.mil");
  cml_model *a = read_model(path, &one);
  assert_true(cml_mil_program_equal(a->program, b->program, NULL));
  assert_int_equal(a->inputs.count, 2);
  assert_int_equal(a->outputs.count, 1);
  for (size_t i = 0; i < 2; i++) {
    const cml_feature *f = &a->inputs.items[i], *g = &b->inputs.items[i];
    assert_string_equal(f->name, g->name);
    assert_int_equal(f->dtype, g->dtype);
    assert_int_equal(f->rank, g->rank);
    assert_memory_equal(f->shape, g->shape, f->rank * sizeof *f->shape);
  }
  assert_string_equal(a->outputs.items[0].name, b->outputs.items[0].name);
  assert_int_equal(a->specification_version, b->specification_version);
  cml_model_close(a), cml_model_close(b);
  cml_container_close(one), cml_container_close(whole);
}

/* A model taken by its own path has the weights that lie beside it; from a place without them it says which are missing. */
static void weights_beside_a_model_file_are_found(void **state) {
  (void)state;
  cml_container *c;
  const char *package = data_file("digits/digits-classifier.mlpackage");
  char path[700], command[1600];
  snprintf(path, sizeof path, "%s/Data/com.apple.CoreML/model.mlmodel", package);
  cml_model *m = read_model(path, &c);
  assert_non_null(m->program);
  cml_model_close(m);
  cml_container_close(c);
  snprintf(command, sizeof command, "cp '%s' lone.mlmodel", path);
  assert_int_equal(system(command), 0);
  c = open_container("lone.mlmodel");
  const cml_container_model *found = cml_container_model_at(c, 0);
  cml_error problem;
  assert_int_equal(cml_model_read(found->tree, found->root, NULL, &m, &problem), CML_NOT_FOUND);
  assert_non_null(strstr(problem.text, "weight"));
  cml_container_close(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(blobs_are_read_as_coremltools_wrote_them),
      cmocka_unit_test(damaged_blobs_are_refused),
      cmocka_unit_test(manifests_are_checked),
      cmocka_unit_test(delegates_hold_what_the_cases_say),
      cmocka_unit_test(weights_are_arrays),
      cmocka_unit_test(program_json_is_json),
      cmocka_unit_test(external_data_is_shown),
      cmocka_unit_test(kinds_are_told_by_content),
      cmocka_unit_test(what_is_none_is_refused),
      cmocka_unit_test(archives_hold_the_same),
      cmocka_unit_test(hostile_archives_are_refused),
      cmocka_unit_test(archive_limits_hold),
      cmocka_unit_test(verify_finds_damage),
      cmocka_unit_test(flat_blobs_are_told_from_their_first_file),
      cmocka_unit_test(text_alone_is_described_by_its_types),
      cmocka_unit_test(weights_beside_a_model_file_are_found),
  };
  return cmocka_run_group_tests_name("container", tests, scratch_enter, scratch_leave);
}
