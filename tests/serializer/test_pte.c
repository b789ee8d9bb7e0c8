/* pte: what we read of ExecuTorch's files equals what ExecuTorch's own tools say about them (case.json), and what no
 * tool would write is refused. */
#include <dirent.h>
#include <jansson.h>
#include <unistd.h>

#include "test.h"

#include "mapping.h"
#include "pte.h"

static const char *shared(const char *below) {
  static char path[4096];
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/../shared/%s", source ? source : ".", below);
  return path;
}

/* ---- the model against case.json ---- */

static void check_tensors(const cml_pte_method *m, cml_pte_indices indices, const json_t *expected) {
  for (uint32_t i = 0; i < indices.count; i++) {
    const cml_pte_value *v = &m->values[indices.items[i]];
    const json_t *e = json_array_get(expected, i);
    const json_t *shape = json_object_get(e, "shape");
    if (!json_is_array(shape)) continue;
    assert_int_equal(v->kind, CML_PTE_TENSOR);
    assert_int_equal(v->tensor->rank, json_array_size(shape));
    for (size_t d = 0; d < v->tensor->rank; d++)
      assert_int_equal(v->tensor->sizes[d], json_integer_value(json_array_get(shape, d)));
    assert_int_equal(v->tensor->dynamism, json_integer_value(json_object_get(e, "dynamism")));
    const char *dtype = json_string_value(json_object_get(e, "dtype")), *found = cml_pte_scalar_name(v->tensor->scalar);
    if (!strcmp(dtype, "float")) dtype = "float32";
    if (!strcmp(dtype, "double")) dtype = "float64";
    if (!strcmp(dtype, "half")) dtype = "float16";
    if (!strcmp(dtype, "int")) dtype = "int32";
    assert_string_equal(found, dtype);
  }
}

static json_int_t count_calls(const cml_pte_method *m, const char *name) {
  json_int_t n = 0;
  for (uint32_t c = 0; c < m->chain_count; c++)
    for (uint32_t i = 0; i < m->chains[c].count; i++) {
      const cml_pte_instruction *in = &m->chains[c].instructions[i];
      n += in->opcode == CML_PTE_KERNEL_CALL && cml_pte_string_is(m->operators[in->index].full, name);
    }
  return n;
}

static void check_counts(const cml_pte_method *m, const json_t *expected) {
  json_int_t kinds[6] = {0}, calls = 0;
  for (uint32_t c = 0; c < m->chain_count; c++)
    for (uint32_t i = 0; i < m->chains[c].count; i++) kinds[m->chains[c].instructions[i].opcode]++;
  const json_t *instructions = json_object_get(expected, "instructions");
  for (unsigned k = 1; k < 6; k++)
    assert_int_equal(kinds[k], json_integer_value(json_object_get(instructions, cml_pte_opcode_name(k))));
  const char *name;
  json_t *count;
  json_object_foreach(json_object_get(expected, "portable_ops"), name, count) {
    assert_int_equal(count_calls(m, name), json_integer_value(count));
    calls += json_integer_value(count);
  }
  assert_int_equal(calls, kinds[CML_PTE_KERNEL_CALL]);
}

static void check_text(cml_string got, const json_t *expected) {
  assert_int_equal(got.size, json_is_string(expected) ? json_string_length(expected) : 0);
  if (got.size) assert_memory_equal(got.data, json_string_value(expected), got.size);
}

static void check_delegate(const cml_pte *pte, const cml_pte_delegate *d, const json_t *expected, const json_t *blobs) {
  check_text(d->id, json_object_get(expected, "id"));
  if (!cml_pte_is_coreml(d)) return;
  cml_arena arena = CML_ARENA_INIT;
  cml_pte_coreml c;
  assert_ok(cml_pte_coreml_decode(pte, d, &arena, &c, err));
  const json_t *reference = json_object_get(expected, "reference"), *specs = json_object_get(expected, "compile_specs");
  assert_int_equal(c.is_reference, json_is_object(reference));
  check_text(c.key, json_object_get(reference, "key"));
  check_text(c.function, json_object_get(reference, "functionName"));
  check_text(c.compute_units, json_object_get(specs, "compute_units"));
  check_text(c.model_type, json_object_get(specs, "model_type"));
  check_text(c.min_deployment_target, json_object_get(specs, "min_deployment_target"));
  check_text(c.compute_precision, json_object_get(specs, "model_compute_precision"));
  check_text(c.weight_sharing, json_object_get(specs, "multimethod_weight_sharing_strategy"));
  const json_t *blob = json_array_get(blobs, (size_t)json_integer_value(json_object_get(expected, "blob")));
  if (blob) {
    const char *location = json_string_value(json_object_get(blob, "location"));
    assert_int_equal(cml_pte_offset(pte, c.blob.data), json_integer_value(json_object_get(blob, "offset")));
    assert_int_equal(c.blob.size, json_integer_value(json_object_get(blob, "bytes")));
    assert_int_equal(d->in_segment, !strncmp(location, "segment", 7));
  }
  cml_arena_free(&arena);
}

static void check_method(const cml_pte *pte, const cml_pte_method *m, const json_t *expected, const json_t *blobs) {
  assert_non_null(expected);
  assert_ptr_equal(cml_pte_find_method(pte, m->name.data), m);
  assert_int_equal(m->value_count, json_integer_value(json_object_get(expected, "values")));
  check_tensors(m, m->inputs, json_object_get(expected, "inputs"));
  check_tensors(m, m->outputs, json_object_get(expected, "outputs"));
  check_counts(m, expected);
  const json_t *delegates = json_object_get(expected, "delegates");
  assert_int_equal(m->delegate_count, json_array_size(delegates));
  for (uint32_t d = 0; d < m->delegate_count; d++)
    check_delegate(pte, &m->delegates[d], json_array_get(delegates, d), blobs);
}

static void check_segments(const cml_pte *pte, const json_t *expected) {
  const json_t *header = json_object_get(expected, "header"), *segments = json_object_get(expected, "segments");
  if (json_is_object(header)) {
    assert_int_equal(pte->header.program_size, json_integer_value(json_object_get(header, "program_size")));
    assert_int_equal(pte->header.segment_base, json_integer_value(json_object_get(header, "segment_base_offset")));
    assert_int_equal(pte->header.segment_size, json_integer_value(json_object_get(header, "segment_data_size")));
  }
  assert_int_equal(pte->segment_count, json_array_size(segments));
  for (uint32_t i = 0; i < pte->segment_count; i++) {
    const json_t *s = json_array_get(segments, i);
    assert_int_equal(pte->segments[i].offset, json_integer_value(json_array_get(s, 0)));
    assert_int_equal(pte->segments[i].data.size, json_integer_value(json_array_get(s, 1)));
  }
  json_t *named = json_object_get(expected, "named_data"), *segment;
  const char *key;
  json_object_foreach(named, key, segment) {
    cml_span data;
    assert_true(cml_pte_find_named(pte, (cml_string){key, strlen(key)}, &data));
    assert_ptr_equal(data.data, pte->segments[json_integer_value(segment)].data.data);
  }
  if (named) assert_int_equal(pte->named_count, json_object_size(named));
}

static void check_case(const char *folder, const char *name) {
  char path[5000];
  snprintf(path, sizeof path, "%s/%s/case.json", folder, name);
  json_t *expected = json_load_file(path, 0, NULL);
  assert_non_null(expected);
  snprintf(path, sizeof path, "%s/%s/model.pte", folder, name);
  cml_mapping *mapping;
  cml_pte *pte;
  cml_error why;
  assert_ok(cml_mapping_open(path, &mapping, err));
  if (cml_pte_parse(cml_mapping_span(mapping), &pte, &why)) fail_msg("%s: %s", path, why.text);
  const json_t *methods = json_object_get(expected, "methods");
  assert_int_equal(pte->method_count, json_object_size(methods));
  for (uint32_t i = 0; i < pte->method_count; i++)
    check_method(pte, &pte->methods[i], json_object_get(methods, pte->methods[i].name.data), json_object_get(expected, "blobs"));
  check_segments(pte, expected);
  cml_pte_destroy(pte);
  cml_mapping_unref(mapping);
  json_decref(expected);
}

static void reads_the_reference_cases(void **state) {
  (void)state;
  const char *folder = shared("reference/pte");
  DIR *d = opendir(folder);
  if (!d) {
    print_message("no reference cases beside the sources\n");
    skip();
  }
  size_t cases = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.' || strchr(e->d_name, '.')) continue;
    check_case(folder, e->d_name);
    cases++;
  }
  closedir(d);
  print_message("%zu cases\n", cases);
  assert_true(cases > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_the_reference_cases),
  };
  return cmocka_run_group_tests_name("pte", tests, NULL, NULL);
}
