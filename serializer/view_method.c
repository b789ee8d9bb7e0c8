/* method.txt: a method's instructions in words, one a line, under a head that names its inputs and outputs.
 *
 *     forward(%0: float32[1, 3]) -> (%7: float32[1, 10])
 *        0  call CoreMLBackend coreml_0 (%0: float32[1, 3], %5: float32[1, 8])
 *        1  aten::add.out (%5: float32[1, 8], %6: float32[1, 8] constants/2.npy, 1, %7: float32[1, 8])
 *
 * %N is value N of the method; numbers, texts and lists stand for themselves. */
#include "view.h"

enum { MAX_LIST = 64, MAX_TEXT = 256 }; /* lists and texts may be shared by many lines: each shows so much of one */

static void put_text(cml_buffer *out, cml_string s) {
  for (size_t i = 0; i < s.size && i < MAX_TEXT; i++) cml_buffer_char(out, (unsigned char)s.data[i] < 0x20 || s.data[i] == 0x7f ? '?' : s.data[i]);
}

static void put_real(cml_buffer *out, double value) {
  cml_buffer text = CML_BUFFER_INIT;
  cml_json j = cml_json_over(&text);
  cml_json_real(&j, value);
  for (size_t i = 0; i < text.size; i++)
    if (text.data[i] != '"') cml_buffer_char(out, (char)text.data[i]);
  if (text.failed) out->failed = true;
  cml_buffer_free(&text);
}

static void put_tensor(cml_buffer *out, const cml_view_pte *v, uint32_t index, const cml_pte_tensor *t) {
  const char *name = cml_pte_scalar_name(t->scalar);
  cml_buffer_printf(out, "%%%u: %s[", index, name ? name : "?");
  for (size_t i = 0; i < t->rank; i++) cml_buffer_printf(out, "%s%s%d", i ? ", " : "", t->dynamism ? "<=" : "", t->sizes[i]);
  cml_buffer_char(out, ']');
  if (t->storage == CML_PTE_CONSTANT && t->data_index < v->constant_count && v->constants[t->data_index].file)
    cml_buffer_printf(out, " constants/%s", v->constants[t->data_index].file);
  if (t->storage == CML_PTE_MUTABLE) cml_buffer_text(out, " mutable");
  if (t->storage == CML_PTE_EXTERNAL || t->storage == CML_PTE_EXTERNAL_MUTABLE) cml_buffer_text(out, " external");
  if (t->extra && t->extra->name.size) {
    cml_buffer_char(out, ' ');
    put_text(out, t->extra->name);
  }
}

static void put_value(cml_buffer *out, const cml_view_pte *v, const cml_pte_method *m, uint32_t index, bool inside);

static void put_list(cml_buffer *out, const cml_view_pte *v, const cml_pte_method *m, const cml_pte_value *value) {
  cml_buffer_char(out, '[');
  for (uint32_t i = 0; i < value->count; i++) {
    if (i) cml_buffer_text(out, ", ");
    if (i == MAX_LIST) {
      cml_buffer_printf(out, "… %u more", value->count - i);
      break;
    }
    if (value->kind == CML_PTE_REALS) put_real(out, value->reals[i]);
    else if (value->kind == CML_PTE_BOOLEANS) cml_buffer_text(out, value->booleans[i] ? "true" : "false");
    else if (value->items[i] == CML_PTE_NO_VALUE) cml_buffer_text(out, "None");
    else put_value(out, v, m, value->items[i], true);
  }
  cml_buffer_char(out, ']');
}

/* inside: within a list, whose items are never lists themselves. */
static void put_value(cml_buffer *out, const cml_view_pte *v, const cml_pte_method *m, uint32_t index, bool inside) {
  const cml_pte_value *value = &m->values[index];
  switch (value->kind) {
    case CML_PTE_NONE: cml_buffer_text(out, "None"); break;
    case CML_PTE_INTEGER: cml_buffer_printf(out, "%lld", (long long)value->integer); break;
    case CML_PTE_BOOLEAN: cml_buffer_text(out, value->boolean ? "true" : "false"); break;
    case CML_PTE_REAL: put_real(out, value->real); break;
    case CML_PTE_STRING: cml_buffer_json_string(out, value->text, value->count < MAX_TEXT ? value->count : MAX_TEXT); break;
    case CML_PTE_TENSOR: put_tensor(out, v, index, value->tensor); break;
    default:
      if (inside) cml_buffer_printf(out, "%%%u", index);
      else put_list(out, v, m, value);
  }
}

static void put_values(cml_buffer *out, const cml_view_pte *v, const cml_pte_method *m, uint32_t count, const uint32_t *items) {
  cml_buffer_char(out, '(');
  for (uint32_t i = 0; i < count; i++) {
    if (i) cml_buffer_text(out, ", ");
    put_value(out, v, m, items[i], false);
  }
  cml_buffer_char(out, ')');
}

static void put_instruction(cml_buffer *out, const cml_view_pte *v, uint32_t method, const cml_pte_instruction *in) {
  const cml_pte_method *m = &v->pte->methods[method];
  switch (in->opcode) {
    case CML_PTE_KERNEL_CALL:
      put_text(out, m->operators[in->index].full);
      cml_buffer_char(out, ' ');
      break;
    case CML_PTE_DELEGATE_CALL:
      cml_buffer_text(out, "call ");
      put_text(out, m->delegates[in->index].id);
      cml_buffer_printf(out, " %s ", v->methods[method].delegates[in->index].name);
      break;
    case CML_PTE_MOVE_CALL:
      cml_buffer_printf(out, "move %%%u to %%%u", in->index, in->target);
      return;
    case CML_PTE_JUMP_FALSE_CALL:
      cml_buffer_printf(out, "unless %%%u jump to %u", in->index, in->target);
      return;
    case CML_PTE_FREE_CALL:
      cml_buffer_printf(out, "free %%%u", in->index);
      return;
  }
  put_values(out, v, m, in->arg_count, in->args);
}

cml_status cml_view_method_text(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  const cml_view_method_context *c = context;
  const cml_pte_method *m = &c->view->pte->methods[c->method];
  put_text(out, m->name);
  put_values(out, c->view, m, m->inputs.count, m->inputs.items);
  cml_buffer_text(out, " -> ");
  put_values(out, c->view, m, m->outputs.count, m->outputs.items);
  cml_buffer_char(out, '\n');
  for (uint32_t i = 0; i < m->chain_count; i++) {
    if (m->chain_count > 1) cml_buffer_printf(out, "chain %u\n", i);
    for (uint32_t k = 0; k < m->chains[i].count; k++) {
      cml_buffer_printf(out, "%4u  ", k);
      put_instruction(out, c->view, c->method, &m->chains[i].instructions[k]);
      cml_buffer_char(out, '\n');
    }
  }
  return cml_buffer_check(out, err);
}
