/* ptd and bpte: names, layouts and bytes as ExecuTorch's own Python package reads them from the same files (recorded). */
#include "test.h"

#include "bpte.h"
#include "mapping.h"
#include "ptd.h"

static cml_mapping *open_file(const char *below) {
  char path[4096];
  const char *source = getenv("CML_SOURCE");
  cml_mapping *mapping;
  snprintf(path, sizeof path, "%s/%s", source ? source : ".", below);
  return cml_mapping_open(path, &mapping, NULL) ? NULL : mapping;
}

static unsigned sum(cml_span s) {
  unsigned n = 0;
  for (size_t i = 0; i < s.size; i++) n += s.data[i];
  return n;
}

/* From executorch.extension.flat_tensor.serialize: key, sizes, sum of the bytes. */
static const struct {
  const char *key;
  int rank, sizes[2];
  unsigned sum;
} tensors[] = {
    {"a.weight", 2, {32, 16}, 251847}, {"a.bias", 1, {32}, 14586}, {"b.weight", 2, {4, 32}, 66673}, {"b.bias", 1, {4}, 1805}};

static void check_ptd(const cml_ptd *ptd) {
  assert_int_equal(ptd->count, 4);
  for (size_t i = 0; i < 4; i++) {
    const cml_ptd_entry *e = cml_ptd_find(ptd, (cml_string){tensors[i].key, strlen(tensors[i].key)});
    assert_non_null(e);
    assert_ptr_equal(e, &ptd->entries[i]);
    assert_int_equal(e->tensor->dtype, CML_F32);
    assert_int_equal(e->tensor->rank, tensors[i].rank);
    for (int d = 0; d < tensors[i].rank; d++) {
      assert_int_equal(e->tensor->sizes[d], tensors[i].sizes[d]);
      assert_int_equal(e->tensor->dim_order[d], d);
    }
    assert_int_equal(sum(e->tensor->data), tensors[i].sum);
    assert_int_equal(cml_ptd_data(ptd, e).size, e->tensor->bytes);
  }
  assert_null(cml_ptd_find(ptd, (cml_string){"a", 1}));
  assert_null(cml_ptd_find(ptd, (cml_string){"zzz", 3}));
}

static void reads_and_writes_ptd(void **state) {
  (void)state;
  cml_mapping *mapping = open_file("tests/data/fuzz/ptd/external.ptd");
  assert_non_null(mapping);
  cml_ptd *ptd, *again;
  assert_ok(cml_ptd_parse(cml_mapping_span(mapping), &ptd, err));
  check_ptd(ptd);
  cml_buffer file = CML_BUFFER_INIT;
  assert_ok(cml_ptd_serialize(ptd, 0, cml_sink_to_buffer(&file), err));
  assert_ok(cml_ptd_parse(cml_buffer_span(&file), &again, err));
  check_ptd(again);
  cml_ptd *cut = NULL;
  cml_error error;
  assert_int_equal(cml_ptd_parse(cml_span_of(file.data, file.size - 1), &cut, &error), CML_INVALID);
  assert_int_equal(error.offset, 24 + 8); /* the segments' place in the header */
  assert_int_equal(cml_ptd_serialize(ptd, 24, cml_sink_to_buffer(&file), &error), CML_ARGUMENT);
  cml_buffer_free(&file);
  cml_ptd_destroy(ptd);
  cml_ptd_destroy(again);
  cml_mapping_unref(mapping);
}

/* The bundle holds two cases with one input [2, 8] and one output [2, 4]; numpy's sums of their bytes. */
static void check_bpte(const cml_bpte *b) {
  static const unsigned inputs[] = {7997, 7725}, outputs[] = {3583, 3297};
  assert_int_equal(b->suite_count, 1);
  assert_true(cml_pte_string_is(b->suites[0].method, "forward"));
  assert_int_equal(b->suites[0].count, 2);
  for (int i = 0; i < 2; i++) {
    const cml_bpte_case *c = &b->suites[0].cases[i];
    assert_int_equal(c->input_count, 1);
    assert_int_equal(c->output_count, 1);
    assert_int_equal(c->inputs[0].kind, CML_PTE_TENSOR);
    assert_int_equal(c->inputs[0].tensor->sizes[0] * 100 + c->inputs[0].tensor->sizes[1], 208);
    assert_int_equal(c->outputs[0].tensor->sizes[0] * 100 + c->outputs[0].tensor->sizes[1], 204);
    assert_int_equal(sum(c->inputs[0].tensor->data), inputs[i]);
    assert_int_equal(sum(c->outputs[0].tensor->data), outputs[i]);
  }
  cml_pte *pte;
  assert_int_equal(b->program.size, 11443); /* the same bytes as the .pte beside it */
  assert_ok(cml_pte_parse(b->program, &pte, err));
  assert_int_equal(pte->method_count, 1);
  assert_int_equal(pte->segments[1].data.size, 10163);
  cml_pte_destroy(pte);
}

static void reads_and_writes_bpte(void **state) {
  (void)state;
  cml_mapping *mapping = open_file("tests/data/fuzz/bpte/bundled.bpte");
  assert_non_null(mapping);
  cml_bpte *bpte, *again;
  assert_ok(cml_bpte_parse(cml_mapping_span(mapping), &bpte, err));
  check_bpte(bpte);
  cml_buffer file = CML_BUFFER_INIT;
  assert_ok(cml_bpte_serialize(bpte, cml_sink_to_buffer(&file), err));
  assert_ok(cml_bpte_parse(cml_buffer_span(&file), &again, err));
  check_bpte(again);
  assert_int_equal((again->program.data - file.data) % 32, 0);
  cml_bpte_destroy(again);
  cml_error error;
  bpte->suites[0].cases[0].inputs[0].kind = CML_PTE_STRING;
  assert_int_equal(cml_bpte_serialize(bpte, cml_sink_to_buffer(&file), &error), CML_ARGUMENT);
  cml_buffer_free(&file);
  cml_bpte_destroy(bpte);
  cml_mapping_unref(mapping);
}

/* ten cases of two int32 [2, 2] of zeros, expected 2 everywhere (as the Python package reads it) */
static void reads_a_bundle_of_another_writer(void **state) {
  (void)state;
  cml_mapping *mapping = open_file("../shared/corpus/pte/bundled.bpte");
  if (!mapping) {
    print_message("# no corpus beside the sources\n");
    skip();
  }
  cml_bpte *b;
  assert_ok(cml_bpte_parse(cml_mapping_span(mapping), &b, err));
  assert_int_equal(b->suites[0].count, 10);
  const cml_bpte_case *c = &b->suites[0].cases[9];
  assert_int_equal(c->input_count, 2);
  assert_int_equal(sum(c->inputs[1].tensor->data), 0);
  assert_int_equal(c->outputs[0].tensor->dtype, CML_I32);
  assert_int_equal(sum(c->outputs[0].tensor->data), 8);
  assert_int_equal(b->program.size, 1696);
  cml_bpte_destroy(b);
  cml_mapping_unref(mapping);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_and_writes_ptd),
      cmocka_unit_test(reads_and_writes_bpte),
      cmocka_unit_test(reads_a_bundle_of_another_writer),
  };
  return cmocka_run_group_tests_name("ptd", tests, NULL, NULL);
}
