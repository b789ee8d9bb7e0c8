/* pte: what we read of ExecuTorch's files equals what ExecuTorch's own tools say about them (case.json), and what no
 * tool would write is refused. */
#include <dirent.h>
#include <jansson.h>
#include <unistd.h>

#include "test.h"

#include "mapping.h"
#include "pte.h"
#include "pte_dump.h"

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
    print_message("# no reference cases beside the sources\n");
    skip();
  }
  size_t cases = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.' || strchr(e->d_name, '.')) continue;
    check_case(folder, e->d_name);
    cases++;
  }
  closedir(d);
  print_message("# %zu cases\n", cases);
  assert_true(cases > 0);
}

/* Files of other writers and older versions, with what ExecuTorch's Python package says of them. */
static void reads_older_programs(void **state) {
  (void)state;
  static const struct {
    const char *name;
    uint32_t segments, constants, offsets;
    size_t segment_size;
  } rows[] = {
      {"add", 1, 0, 1, 0},
      {"linear-no-constant-segment", 0, 3, 0, 0}, /* the deprecated constant buffer */
      {"keyword-spotting", 1, 0, 64, 39216},      /* vtables shared between tables of different sizes */
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char path[200];
    snprintf(path, sizeof path, "corpus/pte/%s.pte", rows[i].name);
    cml_mapping *mapping;
    cml_pte *pte;
    if (cml_mapping_open(shared(path), &mapping, NULL)) {
      print_message("# no corpus beside the sources\n");
      skip();
    }
    assert_ok(cml_pte_parse(cml_mapping_span(mapping), &pte, err));
    assert_non_null(cml_pte_find_method(pte, "forward"));
    assert_int_equal(pte->segment_count, rows[i].segments);
    assert_int_equal(pte->constant_count, rows[i].constants);
    assert_int_equal(pte->constant_segment.count, rows[i].offsets);
    if (rows[i].segments) assert_int_equal(pte->segments[0].data.size, rows[i].segment_size);
    cml_pte_destroy(pte);
    cml_mapping_unref(mapping);
  }
}

/* ---- writing ---- */

static cml_mapping *open_data(const char *name, cml_pte **out) {
  char path[4096];
  cml_mapping *mapping;
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/tests/data/fuzz/pte/%s.pte", source ? source : ".", name);
  assert_ok(cml_mapping_open(path, &mapping, err));
  assert_ok(cml_pte_parse(cml_mapping_span(mapping), out, err));
  return mapping;
}

static void round_trip(const cml_pte *pte, const cml_pte_write_options *options, uint64_t alignment) {
  cml_buffer file = CML_BUFFER_INIT, a = CML_BUFFER_INIT, b = CML_BUFFER_INIT;
  cml_pte *again;
  assert_ok(cml_pte_serialize(pte, options, cml_sink_to_buffer(&file), err));
  assert_ok(cml_pte_parse(cml_buffer_span(&file), &again, err));
  dump_pte(&a, pte);
  dump_pte(&b, again);
  assert_string_equal((char *)a.data, (char *)b.data);
  for (uint32_t i = 0; i < again->segment_count; i++)
    if (again->segments[i].data.size) assert_int_equal(cml_pte_offset(again, again->segments[i].data.data) % alignment, 0);
  for (uint32_t i = 0; i < again->inline_count; i++)
    assert_int_equal(cml_pte_offset(again, again->inline_data[i].data) % 16, 0);
  cml_pte_destroy(again);
  cml_buffer_free(&file);
  cml_buffer_free(&a);
  cml_buffer_free(&b);
}

static const char *const data_names[] = {"op_abs_f",    "pt_cond",      "pt_map",      "pt_state",     "pt_dynamic", "mutable_named",
                                         "multi_state", "multi_shared", "inline_blob", "external_ptd", "op_index_Tensor_mask_f"};
enum { DATA_COUNT = sizeof data_names / sizeof *data_names };

static void writes_what_it_reads(void **state) {
  (void)state;
  for (size_t i = 0; i < DATA_COUNT; i++) {
    cml_pte *pte;
    cml_mapping *mapping = open_data(data_names[i], &pte);
    round_trip(pte, NULL, 16);
    round_trip(pte, &(cml_pte_write_options){.segment_alignment = 4096}, 4096);
    cml_pte_destroy(pte);
    cml_mapping_unref(mapping);
  }
}

/* A delegate's segment is replaced: everything behind it moves. */
static void writes_an_edited_program(void **state) {
  (void)state;
  cml_pte *pte, *again;
  cml_mapping *mapping = open_data("multi_shared", &pte);
  static uint8_t bytes[10000];
  memset(bytes, 7, sizeof bytes);
  uint32_t first = pte->methods[0].delegates[0].index;
  pte->segments[first].data = cml_span_of(bytes, sizeof bytes);
  cml_buffer file = CML_BUFFER_INIT;
  assert_ok(cml_pte_serialize(pte, NULL, cml_sink_to_buffer(&file), err));
  assert_ok(cml_pte_parse(cml_buffer_span(&file), &again, err));
  assert_true(cml_span_equal(again->methods[0].delegates[0].data, cml_span_of(bytes, sizeof bytes)));
  for (uint32_t i = 0; i < pte->segment_count; i++)
    assert_true(cml_span_equal(pte->segments[i].data, again->segments[i].data));
  cml_pte_destroy(again);
  cml_buffer_free(&file);
  cml_error error;
  pte->methods[0].delegates[0].index = pte->segment_count;
  assert_int_equal(cml_pte_serialize(pte, NULL, cml_sink_to_buffer(&file), &error), CML_ARGUMENT);
  cml_buffer_free(&file);
  cml_pte_destroy(pte);
  cml_mapping_unref(mapping);
}

/* ---- bad input ---- */

/* Accepted or refused, but never out of bounds (sanitizer builds see that), and refused with an offset in the file. */
static void try_bytes(const uint8_t *bytes, size_t size) {
  uint8_t *copy = malloc(size ? size : 1); /* of its own, so that a read past the end is seen */
  memcpy(copy, bytes, size);
  cml_pte *pte = NULL;
  cml_error error = {.offset = 0};
  if (cml_pte_parse(cml_span_of(copy, size), &pte, &error)) {
    assert_null(pte);
    assert_true(error.status != CML_OK && error.text[0]);
    assert_in_range(error.offset, 0, size);
  }
  cml_pte_destroy(pte);
  free(copy);
}

static void survives_damage(void **state) {
  (void)state;
  uint32_t random = 1;
  for (size_t i = 0; i < DATA_COUNT; i++) {
    cml_pte *pte;
    cml_mapping *mapping = open_data(data_names[i], &pte);
    cml_span file = cml_mapping_span(mapping);
    size_t structure = (size_t)pte->header.program_size;
    for (size_t cut = 0; cut < 64; cut++) try_bytes(file.data, file.size * cut / 64);
    uint8_t *bytes = malloc(file.size);
    memcpy(bytes, file.data, file.size);
    for (int n = 0; n < 2000; n++) {
      random = random * 1664525 + 1013904223;
      size_t at = (random >> 8) % structure;
      bytes[at] ^= (uint8_t)(1 + n % 255);
      try_bytes(bytes, file.size);
      bytes[at] = file.data[at];
    }
    free(bytes);
    cml_pte_destroy(pte);
    cml_mapping_unref(mapping);
  }
}

static void refuses_truncation(void **state) {
  (void)state;
  for (size_t i = 0; i < DATA_COUNT; i++) {
    cml_pte *pte, *cut = NULL;
    cml_mapping *mapping = open_data(data_names[i], &pte);
    cml_span file = cml_mapping_span(mapping);
    cml_error error;
    if (pte->header.length) /* without segments, a file may end in padding */
      assert_int_equal(cml_pte_parse(cml_span_of(file.data, file.size - 1), &cut, &error), CML_INVALID);
    assert_int_equal(cml_pte_parse(cml_span_of(file.data, file.size / 2), &cut, &error), CML_INVALID);
    cml_pte_destroy(pte);
    cml_mapping_unref(mapping);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_the_reference_cases),
      cmocka_unit_test(reads_older_programs),
      cmocka_unit_test(writes_what_it_reads),
      cmocka_unit_test(writes_an_edited_program),
      cmocka_unit_test(survives_damage),
      cmocka_unit_test(refuses_truncation),
  };
  return cmocka_run_group_tests_name("pte", tests, NULL, NULL);
}
