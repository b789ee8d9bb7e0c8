/* pte: programs that lie. A field of an honest program is found by walking its tables, overwritten, and the parser must
 * refuse it there. */
#include "test.h"

#include "flatbuffer.h"
#include "mapping.h"
#include "pte.h"

/* A walk: "S" enters the table (or union value) of slot S, "S:I" the I-th table of the vector there; the last step names
 * what is overwritten: "=S" a scalar, "#S:I" the I-th element of a vector of scalars. */
typedef struct row {
  const char *file, *path;
  int width; /* bytes of what is overwritten */
  int64_t value;
  cml_status status;
  const char *words; /* in the error's text */
} row;

#define FIRST_INSTRUCTION "1:0 5:0 2:0 1 "
#define FIRST_VALUE "1:0 2:0 1 "

static const row rows[] = {
    {"op_abs_f", FIRST_INSTRUCTION "#1:0", 4, 100, CML_INVALID, "an argument's value is 100"},
    {"op_abs_f", FIRST_INSTRUCTION "#1:1", 4, -1, CML_INVALID, "an argument's value is -1"},
    {"op_abs_f", "1:0 5:0 2:0 =0", 1, 6, CML_UNSUPPORTED, "an instruction of kind 6"},
    {"op_abs_f", "1:0 5:0 2:0 =0", 1, 0, CML_INVALID, "without content"},
    {"op_abs_f", "1:0 #3:0", 4, 2, CML_INVALID, "an input's value is 2, there are 2"},
    {"op_abs_f", "1:0 #4:0", 4, 1 << 30, CML_INVALID, "an output's value"},
    {"op_abs_f", "1:0 #8:1", 8, -1, CML_INVALID, "memory 1 has -1 bytes"},
    {"op_abs_f", "1:0 #8:1", 8, 39, CML_INVALID, "of memory 1, which has 39"},
    {"op_abs_f", FIRST_VALUE "6 =0", 4, 2, CML_INVALID, "memory 2, the method plans 1 to 1"},
    {"op_abs_f", FIRST_VALUE "#2:0", 4, -5, CML_INVALID, "dimension 0 has size -5"},
    {"op_abs_f", FIRST_VALUE "#2:0", 4, 2000000000, CML_INVALID, "a tensor of 40000000000 bytes"},
    {"op_abs_f", FIRST_VALUE "#3:1", 1, 0, CML_INVALID, "no permutation: entry 1 is 0"},
    {"op_abs_f", FIRST_VALUE "#3:0", 1, 255, CML_INVALID, "no permutation: entry 0 is 255"},
    {"op_abs_f", FIRST_VALUE "=0", 1, 30, CML_UNSUPPORTED, "scalar type is 30"},
    {"op_abs_f", FIRST_VALUE "=0", 1, -1, CML_UNSUPPORTED, "scalar type is -1"},
    {"op_abs_f", "1:0 2:0 =0", 1, 12, CML_UNSUPPORTED, "a value of kind 12"},
    {"pt_cond", "1:0 5:0 2:JUMP 1 =1", 4, 1000, CML_INVALID, "an instruction is 1000"},
    {"pt_cond", "1:0 5:0 2:MOVE 1 =1", 4, 1000, CML_INVALID, "a value moved to is 1000"},
    {"pt_cond", "1:0 2:CONSTANT 1 =5", 4, 1000, CML_INVALID, "a tensor's data is 1000"},
    {"pt_cond", "1:0 2:CONSTANT 1 #2:0", 4, 1000000, CML_INVALID, "bytes has its data at"},
    {"pt_cond", "1:0 2:INTEGERS 1 #0:0", 8, 0, CML_INVALID, "item 0 of the IntList is value 0, of kind Tensor"},
    {"pt_cond", "1:0 2:INTEGERS 1 #0:0", 8, -1, CML_INVALID, "a value is -1"},
    {"pt_dynamic", "1:0 2:TENSORS 1 #0:0", 4, 2, CML_INVALID, "item 0 of the TensorList is value 2, of kind Int"},
    {"op_index_Tensor_mask_f", "1:0 2:OPTIONALS 1 #0:0", 4, -2, CML_INVALID, "a value is -2"},
    {"multi_shared", "1:0 7:0 1 =1", 4, 1000, CML_INVALID, "a segment is 1000"},
    {"multi_shared", "1:0 7:0 1 =0", 1, 2, CML_INVALID, "location of the data is 2"},
    {"multi_shared", "4:1 =1", 8, -1, CML_INVALID, "exceeds the"},
    {"multi_shared", "4:2 =0", 8, -1, CML_INVALID, "exceeds the"},
    {"multi_shared", "7:0 =1", 4, 1000, CML_INVALID, "a segment is 1000"},
};

/* The first instruction or value of a sort in the program's first method. */
static bool is_wanted(const cml_pte_method *m, uint32_t i, const char *name) {
  const cml_pte_chain *c = &m->chains[0];
  if (!strcmp(name, "JUMP")) return i < c->count && c->instructions[i].opcode == CML_PTE_JUMP_FALSE_CALL;
  if (!strcmp(name, "MOVE")) return i < c->count && c->instructions[i].opcode == CML_PTE_MOVE_CALL;
  const cml_pte_value *v = &m->values[i];
  if (!strcmp(name, "CONSTANT")) return v->kind == CML_PTE_TENSOR && v->tensor->storage == CML_PTE_CONSTANT;
  if (!strcmp(name, "INTEGERS")) return v->kind == CML_PTE_INTEGERS && v->count;
  if (!strcmp(name, "TENSORS")) return v->kind == CML_PTE_TENSORS && v->count;
  return v->kind == CML_PTE_OPTIONAL_TENSORS && v->count;
}

static uint32_t read_index(const char **path, const cml_pte *pte) {
  if (**path >= '0' && **path <= '9') return (uint32_t)strtoul(*path, (char **)path, 10);
  char name[16] = "";
  for (size_t n = 0; **path >= 'A' && **path <= 'Z'; (*path)++) name[n++] = **path;
  const cml_pte_method *m = &pte->methods[0];
  for (uint32_t i = 0; i < m->value_count; i++)
    if (is_wanted(m, i, name)) return i;
  fail_msg("there is no %s", name);
  return 0;
}

/* The position that a walk ends at, and the table that it passed last. */
static uint32_t walk(cml_fb *fb, const char *path, unsigned width, const cml_pte *pte, uint32_t *out_table) {
  cml_fb_table t = cml_fb_root(fb, "ET12");
  for (;; path += *path == ' ') {
    char kind = *path == '=' || *path == '#' ? *path++ : ' ';
    unsigned slot = read_index(&path, pte);
    *out_table = t.at;
    if (kind == '=') return cml_fb_field(fb, &t, slot, width);
    if (*path != ':') {
      t = cml_fb_table_of(fb, &t, slot);
    } else {
      path++;
      uint32_t i = read_index(&path, pte);
      cml_fb_vector v = cml_fb_vector_of(fb, &t, slot, kind == '#' ? width : 4);
      assert_true(i < v.count);
      if (kind == '#') return v.at + i * width;
      t = cml_fb_table_at(fb, &v, i);
    }
    assert_true(t.at != 0);
  }
}

static void check_row(const row *r) {
  char path[4096];
  cml_mapping *mapping;
  cml_pte *pte, *bad = NULL;
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/tests/data/fuzz/pte/%s.pte", source ? source : ".", r->file);
  assert_ok(cml_mapping_open(path, &mapping, err));
  cml_span file = cml_mapping_span(mapping);
  assert_ok(cml_pte_parse(file, &pte, err));
  cml_fb fb;
  cml_fb_init(&fb, file);
  uint32_t table, at = walk(&fb, r->path, (unsigned)r->width, pte, &table);
  assert_ok(cml_fb_check(&fb, err));
  if (!at) fail_msg("%s: %s is not written there", r->file, r->path);
  uint8_t *bytes = malloc(file.size);
  memcpy(bytes, file.data, file.size);
  memcpy(bytes + at, &r->value, (size_t)r->width);
  cml_error error = {0};
  cml_status status = cml_pte_parse(cml_span_of(bytes, file.size), &bad, &error);
  if (status != r->status || !strstr(error.text, r->words))
    fail_msg("%s: %s = %lld gives %s: %s", r->file, r->path, (long long)r->value, cml_status_name(status), error.text);
  bool elsewhere = strstr(error.text, "a tensor of") || strstr(error.text, "item 0 of"); /* two places contradict each other */
  if (!elsewhere && error.offset != at && error.offset != table)
    fail_msg("%s: %s: offset %d, expected %d or %d", r->file, r->path, (int)error.offset, (int)at, (int)table);
  cml_pte_destroy(bad);
  cml_pte_destroy(pte);
  cml_mapping_unref(mapping);
  free(bytes);
}

static void refuses_each_lie(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) check_row(&rows[i]);
}

/* The extended header: a program or segments beyond the file, lengths that no version has. */
static void refuses_wrong_headers(void **state) {
  (void)state;
  static const struct {
    size_t at;
    uint64_t value;
    size_t width;
    uint64_t where;
  } changes[] = {{12, 23, 4, 12}, {12, UINT32_MAX, 4, 12}, {16, 39, 8, 16}, {16, UINT64_MAX, 8, 16}, {24, 100, 8, 24},
                 {24, UINT64_MAX, 8, 24}, {32, UINT64_MAX, 8, 24}, {4, 'X', 1, 4}};
  char path[4096];
  cml_mapping *mapping;
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/tests/data/fuzz/pte/multi_shared.pte", source ? source : ".");
  assert_ok(cml_mapping_open(path, &mapping, err));
  cml_span file = cml_mapping_span(mapping);
  uint8_t *bytes = malloc(file.size);
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    memcpy(bytes, file.data, file.size);
    memcpy(bytes + changes[i].at, &changes[i].value, changes[i].width);
    cml_pte *pte = NULL;
    cml_error error = {0};
    assert_int_equal(cml_pte_parse(cml_span_of(bytes, file.size), &pte, &error), CML_INVALID);
    assert_int_equal(error.offset, changes[i].where);
  }
  cml_pte *pte = NULL;
  memcpy(bytes, file.data, file.size);
  bytes[12] = 24; /* the older header, without the size of the segments */
  assert_ok(cml_pte_parse(cml_span_of(bytes, file.size), &pte, err));
  assert_int_equal(pte->header.segment_size, 0);
  cml_pte_destroy(pte);
  memcpy(bytes + 4, "ET13", 4);
  assert_int_equal(cml_pte_parse(cml_span_of(bytes, file.size), &pte, NULL), CML_UNSUPPORTED);
  free(bytes);
  cml_mapping_unref(mapping);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(refuses_each_lie), cmocka_unit_test(refuses_wrong_headers)};
  return cmocka_run_group_tests_name("pte-refuse", tests, NULL, NULL);
}
