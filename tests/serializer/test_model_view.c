/* The view of a real package: its files are there, say what other readers say, and cost no copy of the weights. */
#include <unistd.h>

#include "mil_equal.h"
#include "model_view.h"
#include "npy.h"
#include "test.h"

static cml_tree *view_of(const char *below_shared, cml_tree **source) {
  char path[4096];
  const char *root = getenv("CML_SOURCE");
  cml_tree *view;
  snprintf(path, sizeof path, "%s/../shared/%s", root ? root : ".", below_shared);
  if (access(path, F_OK)) {
    print_message("no %s here\n", path);
    return NULL;
  }
  assert_ok(cml_tree_from_folder(path, NULL, source, err));
  assert_ok(cml_tree_create("", &view, err));
  assert_ok(cml_model_view_add(view, cml_tree_root_mutable(view), *source, cml_tree_root(*source), NULL, err));
  return view;
}

/* A file's bytes in one piece; free() them. */
static cml_span bytes_of(cml_tree *view, const char *path) {
  const cml_node *node = cml_node_find(cml_tree_root(view), path);
  cml_contents contents;
  if (!node) fail_msg("no %s", path);
  assert_ok(cml_node_open(node, &contents, err));
  uint8_t *data = malloc(contents.size + 1), *at = data;
  for (size_t i = 0; i < contents.count; i++) {
    memcpy(at, contents.pieces[i].data, contents.pieces[i].size);
    at += contents.pieces[i].size;
  }
  *at = 0;
  cml_span bytes = {data, contents.size};
  cml_contents_close(&contents);
  return bytes;
}

static void assert_holds(cml_tree *view, const char *path, const char *what) {
  cml_span bytes = bytes_of(view, path);
  if (!strstr((const char *)bytes.data, what)) fail_msg("%s does not hold %s", path, what);
  free((void *)(uintptr_t)bytes.data);
}

static void test_texts(void **state) {
  (void)state;
  cml_tree *source, *view = view_of("reference/digits/digits-classifier.mlpackage", &source);
  if (!view) skip();
  assert_holds(view, "model.mil", "program(1.3)");
  assert_holds(view, "summary.txt", "conv");
  assert_holds(view, "summary.json", "\"multiplyAdds\"");
  assert_holds(view, "io.json", "\"type\": \"mlProgram\"");
  assert_holds(view, "graph.svg", "</svg>");
  assert_null(cml_node_find(cml_tree_root(view), "error.txt"));
  cml_tree_unref(view);
  cml_tree_unref(source);
}

/* model.mil is the package's program. */
static void test_text_is_the_program(void **state) {
  (void)state;
  cml_tree *source, *view = view_of("reference/digits/digits-classifier.mlpackage", &source);
  if (!view) skip();
  cml_arena arena = CML_ARENA_INIT;
  cml_mil_program *program;
  cml_model *model;
  cml_model_options options = {.skip_weights = true};
  cml_buffer difference = CML_BUFFER_INIT;
  cml_span text = bytes_of(view, "model.mil");
  assert_ok(cml_mil_parse_text(text, &arena, &program, err));
  assert_ok(cml_model_read(source, cml_tree_root(source), &options, &model, err));
  if (!cml_mil_program_equal(model->program, program, &difference)) fail_msg("%s", (const char *)difference.data);
  cml_model_close(model);
  cml_arena_free(&arena);
  free((void *)(uintptr_t)text.data);
  cml_tree_unref(view);
  cml_tree_unref(source);
}

static const cml_mil_value *constant(const cml_model *model, const char *name) {
  const cml_mil_block *body = cml_mil_body(model->program->functions[0]);
  for (size_t i = 0; i < body->op_count; i++)
    if (body->ops[i]->output_count && !strcmp(body->ops[i]->outputs[0].name, name)) return cml_mil_attribute_find(&body->ops[i]->attributes, "val");
  return NULL;
}

static void test_weights_lie_where_they_are_mapped(void **state) {
  (void)state;
  cml_tree *source, *view = view_of("reference/digits/digits-classifier.mlpackage", &source);
  if (!view) skip();
  cml_model *model;
  assert_ok(cml_model_read(source, cml_tree_root(source), NULL, &model, err));
  const cml_node *folder = cml_node_find(cml_tree_root(view), "weights");
  assert_non_null(folder);
  assert_int_equal(cml_node_count(folder), 8);
  for (size_t i = 0; i < cml_node_count(folder); i++) {
    const cml_node *file = cml_node_child(folder, i);
    char name[256], path[300];
    snprintf(name, sizeof name, "%.*s", (int)(strlen(cml_node_name(file)) - 4), cml_node_name(file));
    snprintf(path, sizeof path, "weights/%s", cml_node_name(file));
    const cml_mil_value *value = constant(model, name);
    assert_non_null(value);
    cml_arena arena = CML_ARENA_INIT;
    cml_array array;
    cml_span bytes = bytes_of(view, path);
    assert_ok(cml_npy_parse(bytes, &arena, &array, err));
    assert_int_equal(array.dtype, value->type->dtype);
    assert_int_equal(array.rank, value->type->rank);
    assert_memory_equal(array.dims, value->type->dims, array.rank * sizeof(int64_t));
    assert_int_equal(array.bytes, value->data.size);
    assert_memory_equal(array.data, value->data.data, value->data.size);
    cml_contents contents;
    assert_ok(cml_node_open(file, &contents, err));
    assert_int_equal(contents.count, 2);
    assert_ptr_equal(contents.pieces[1].data, value->data.data); /* not a copy */
    cml_contents_close(&contents);
    free((void *)(uintptr_t)bytes.data);
    cml_arena_free(&arena);
  }
  cml_model_close(model);
  cml_tree_unref(view);
  cml_tree_unref(source);
}

static void test_compressed_parts_have_names(void **state) {
  (void)state;
  cml_tree *source, *view = view_of("corpus/mlprogram-pairs/mnist-conv-palettized.mlpackage", &source);
  if (!view) skip();
  cml_span bytes = bytes_of(view, "weights/Parameter193.lut.npy");
  cml_arena arena = CML_ARENA_INIT;
  cml_array array;
  assert_ok(cml_npy_parse(bytes, &arena, &array, err));
  assert_int_equal(array.dtype, CML_F32);
  assert_int_equal(array.bytes, 64);
  free((void *)(uintptr_t)bytes.data);
  cml_arena_free(&arena);
  cml_tree_unref(view);
  cml_tree_unref(source);
}

static void test_a_broken_model_says_why(void **state) {
  (void)state;
  cml_tree *source, *view;
  static const char manifest[] = "{\"rootModelIdentifier\": \"A\", \"itemInfoEntries\": {}}";
  cml_piece piece = {(const uint8_t *)manifest, sizeof manifest - 1, NULL, 0};
  assert_ok(cml_tree_create("", &source, err));
  assert_ok(cml_tree_add_file(source, cml_tree_root_mutable(source), "Manifest.json", 13, &piece, 1, NULL, err));
  assert_ok(cml_tree_create("", &view, err));
  assert_ok(cml_model_view_add(view, cml_tree_root_mutable(view), source, cml_tree_root(source), NULL, err));
  assert_holds(view, "error.txt", "Manifest.json");
  assert_int_equal(cml_node_count(cml_tree_root(view)), 1);
  cml_tree_unref(view);
  cml_tree_unref(source);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_texts),
      cmocka_unit_test(test_text_is_the_program),
      cmocka_unit_test(test_weights_lie_where_they_are_mapped),
      cmocka_unit_test(test_compressed_parts_have_names),
      cmocka_unit_test(test_a_broken_model_says_why),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
