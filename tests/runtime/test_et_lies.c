/* Programs that contradict themselves in what a parser cannot see: kinds and number of arguments, types, shapes, memory, loops. Honest
 * programs are edited, written and run; each lie is refused when the program is loaded or stopped at its instruction, in words. */
#include "test.h"

#include "et_program.h"
#include "mapping.h"

typedef struct lie {
  const char *file;
  void (*tell)(cml_pte *pte);
  cml_status status;
  const char *words; /* in the error's text */
} lie;

static cml_pte_instruction *instruction(cml_pte *pte, size_t i) { return &pte->methods[0].chains[0].instructions[i]; }
static cml_pte_value *argument(cml_pte *pte, size_t i, size_t k) { return &pte->methods[0].values[instruction(pte, i)->args[k]]; }
static void as_integer(cml_pte_value *v) { *v = (cml_pte_value){.kind = CML_PTE_INTEGER, .integer = 7}; }

/* log.pte: 0 permute_copy, 1 addmm, 2 relu, 3 permute_copy, 4 addmm, 5 log, 6 sum. */
static void no_arguments(cml_pte *pte) { instruction(pte, 2)->arg_count = 0; }
static void too_few(cml_pte *pte) { instruction(pte, 1)->arg_count = 3; }
static void a_number(cml_pte *pte) { as_integer(argument(pte, 5, 0)); }
static void other_operator(cml_pte *pte) { instruction(pte, 5)->index = instruction(pte, 1)->index; }
static void unknown_operator(cml_pte *pte) { pte->methods[0].operators[instruction(pte, 5)->index].name = (cml_string){"aten::nonsense", 14}; }
static void other_type(cml_pte *pte) { argument(pte, 2, 1)->tensor->scalar = CML_PTE_INT; }
static void other_shape(cml_pte *pte) { argument(pte, 2, 1)->tensor->sizes[0] = 1; }
static void other_rank(cml_pte *pte) { argument(pte, 2, 1)->tensor->rank = 1; }
static void bounded(cml_pte *pte) {
  argument(pte, 2, 1)->tensor->dynamism = CML_PTE_BOUNDED;
  argument(pte, 2, 1)->tensor->sizes[0] = 1;
}
static void odd_place(cml_pte *pte) { argument(pte, 2, 1)->tensor->memory_offset = 1; }
static void huge_memory(cml_pte *pte) { pte->methods[0].memory_sizes[1] = UINT64_C(1) << 62; }
static void constant_output(cml_pte *pte) { instruction(pte, 2)->args[1] = instruction(pte, 1)->args[0]; }
static void axis(cml_pte *pte) { /* of permute_copy's list */
  cml_pte_value *dims = argument(pte, 0, 1);
  pte->methods[0].values[dims->items[0]].integer = INT64_MIN;
}
static void moved_kind(cml_pte *pte) { /* the place of relu's input becomes that of a number, in place of the product */
  *instruction(pte, 1) = (cml_pte_instruction){.opcode = CML_PTE_MOVE_CALL, .index = argument(pte, 0, 1)->items[0], .target = instruction(pte, 2)->args[0]};
}
static void freed(cml_pte *pte) { /* memory of its own, which is gone */
  argument(pte, 0, 2)->tensor->has_allocation = false;
  *instruction(pte, 0) = (cml_pte_instruction){.opcode = CML_PTE_FREE_CALL, .index = instruction(pte, 0)->args[2]};
}

/* control.pte */
static size_t jump_of(const cml_pte *pte) {
  size_t i = 0;
  while (pte->methods[0].chains[0].instructions[i].opcode != CML_PTE_JUMP_FALSE_CALL) i++;
  return i;
}
static void never_ends(cml_pte *pte) { /* on a bool that nothing writes */
  cml_pte_instruction *jump = instruction(pte, jump_of(pte));
  uint32_t i = 0;
  while (pte->methods[0].values[i].kind != CML_PTE_BOOLEAN) i++;
  pte->methods[0].values[i].boolean = false;
  *jump = (cml_pte_instruction){.opcode = CML_PTE_JUMP_FALSE_CALL, .index = i, .target = (uint32_t)jump_of(pte)};
}
static void goes_round(cml_pte *pte) { instruction(pte, jump_of(pte))->target = 0; } /* through kernels, which write what it looks at */
static void no_condition(cml_pte *pte) { as_integer(&pte->methods[0].values[instruction(pte, jump_of(pte))->index]); }

static const lie lies[] = {
    {"et/log.pte", NULL, CML_OK, ""},
    {"et/log.pte", no_arguments, CML_INVALID, "instruction 2 (aten::relu.out): has 0 arguments"},
    {"et/log.pte", too_few, CML_INVALID, "instruction 1 (aten::addmm.out): has 3 arguments"},
    {"et/log.pte", a_number, CML_INVALID, "instruction 4 (aten::addmm.out): argument 5 is of kind Int where a tensor to write to is wanted"},
    {"et/log.pte", other_operator, CML_INVALID, "instruction 5 (aten::addmm.out): "},
    {"et/log.pte", unknown_operator, CML_UNSUPPORTED, "operator 'aten::nonsense.out'"},
    {"et/log.pte", other_type, CML_INVALID, "instruction 2: aten::relu.out: "},
    {"et/log.pte", other_shape, CML_INVALID, "instruction 2: aten::relu.out: the result's shape is [2, 4], but the output is static [1, 4]"},
    {"et/log.pte", other_rank, CML_INVALID, "instruction 2: aten::relu.out: the result's shape is [2, 4], but the output is declared as [2]"},
    {"et/log.pte", bounded, CML_INVALID, "instruction 2: aten::relu.out: the result's shape is [2, 4], but the output is bounded"},
    {"et/log.pte", odd_place, CML_INVALID, "which is not aligned"},
    {"et/log.pte", huge_memory, CML_LIMIT, "arena 1 of the memory plan"},
    {"et/log.pte", constant_output, CML_INVALID, "instruction 2 (aten::relu.out): argument 1 would be written to, but is constant"},
    {"et/log.pte", axis, CML_INVALID, "instruction 0: aten::permute_copy.out: "},
    {"et/log.pte", moved_kind, CML_INVALID, "instruction 2 (aten::relu.out): argument 0 is of kind Int where a tensor is wanted"},
    {"et/log.pte", freed, CML_INVALID, "instruction 1 (aten::addmm.out): argument 2 has no data: nothing has written it, or it was freed"},
    {"et/programs/control.pte", NULL, CML_OK, ""},
    {"et/programs/control.pte", never_ends, CML_INVALID, "(JumpFalseCall): it jumps back to instruction "},
    {"et/programs/control.pte", goes_round, CML_LIMIT, "a loop that does not end?"},
    {"et/programs/control.pte", no_condition, CML_INVALID, "is of kind Int where a tensor to write to is wanted"},
};

static cml_pte *pte_of(const char *file, cml_mapping **mapping) {
  char path[4096];
  cml_pte *pte;
  const char *source = getenv("CML_SOURCE");
  snprintf(path, sizeof path, "%s/tests/data/%s", source ? source : ".", file);
  assert_ok(cml_mapping_open(path, mapping, err));
  assert_ok(cml_pte_parse(cml_mapping_span(*mapping), &pte, err));
  return pte;
}

static cml_status run(cml_mapping *file, cml_error *err) {
  const cml_et_options options = {.threads = 1, .instruction_limit = 10000};
  cml_et_program *program = NULL;
  cml_et_method *m = NULL;
  float zeros[16] = {-1, -1, -1, -1}; /* control.pte's condition is false */
  cml_status status = cml_et_program_create(file, NULL, &options, &program, err);
  if (!status) status = cml_et_method_load(program, "forward", &m, err);
  if (!status) {
    const cml_pte_tensor *t = cml_et_method_of(m)->values[cml_et_method_of(m)->inputs.items[0]].tensor;
    cml_tensor x = {.dtype = CML_F32, .rank = t->rank, .data = zeros};
    for (int k = 0; k < t->rank; k++) x.dims[k] = t->sizes[k];
    status = cml_et_method_set_tensor(m, 0, &x, err);
  }
  if (!status) status = cml_et_method_run(m, err);
  if (m) cml_et_method_unload(m);
  if (program) cml_et_program_close(program);
  return status;
}

static void stops_each_lie(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    const lie *l = &lies[i];
    cml_mapping *honest, *told;
    cml_pte *pte = pte_of(l->file, &honest);
    cml_buffer buffer = {0};
    cml_error error = {0};
    if (l->tell) l->tell(pte);
    assert_ok(cml_pte_serialize(pte, NULL, cml_sink_to_buffer(&buffer), err));
    void *bytes = aligned_alloc(64, (buffer.size + 63) & ~(size_t)63);
    memcpy(bytes, buffer.data, buffer.size);
    assert_ok(cml_mapping_own(bytes, buffer.size, "told.pte", &told, err));
    cml_status status = run(told, &error);
    if (status != l->status || !strstr(error.text, l->words)) fail_msg("lie %zu: %s: %s", i, cml_status_name(status), error.text);
    cml_mapping_unref(told);
    cml_buffer_free(&buffer);
    cml_pte_destroy(pte);
    cml_mapping_unref(honest);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(stops_each_lie)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
