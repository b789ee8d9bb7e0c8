/* What a program is, told from its structure alone: methods with inputs, outputs, memory plan, delegates and the operators that
 * they call. Nothing of a payload is read, so that it takes no longer for large programs. */
#include "pte_describe.h"

#include <stdlib.h>

#include "json_write.h"

/* ---- what is told ---- */

typedef struct facts {
  uint64_t planned, constants, initial; /* bytes; constants shared by several values count once each */
  uint64_t kernel_calls, delegate_calls, others;
  uint32_t *operator_calls, *delegate_uses; /* by operator, by delegate */
} facts;

static cml_status count(const cml_pte_method *m, facts *f, cml_error *err) {
  *f = (facts){.operator_calls = calloc(m->operator_count + 1, sizeof *f->operator_calls),
               .delegate_uses = calloc(m->delegate_count + 1, sizeof *f->delegate_uses)};
  if (!f->operator_calls || !f->delegate_uses) return cml_fail_memory(err);
  for (uint32_t i = 1; i < m->memory_count; i++) f->planned += m->memory_sizes[i];
  for (uint32_t i = 0; i < m->value_count; i++) {
    if (m->values[i].kind != CML_PTE_TENSOR) continue;
    const cml_pte_tensor *t = m->values[i].tensor;
    if (t->storage == CML_PTE_CONSTANT || t->storage == CML_PTE_EXTERNAL) f->constants += t->bytes;
    if (t->storage == CML_PTE_MUTABLE || t->storage == CML_PTE_EXTERNAL_MUTABLE) f->initial += t->bytes;
  }
  for (uint32_t c = 0; c < m->chain_count; c++)
    for (uint32_t i = 0; i < m->chains[c].count; i++) {
      const cml_pte_instruction *in = &m->chains[c].instructions[i];
      if (in->opcode == CML_PTE_KERNEL_CALL) f->kernel_calls++, f->operator_calls[in->index]++;
      else if (in->opcode == CML_PTE_DELEGATE_CALL) f->delegate_calls++, f->delegate_uses[in->index]++;
      else f->others++;
    }
  return CML_OK;
}

static void facts_free(facts *f) {
  free(f->operator_calls);
  free(f->delegate_uses);
}

static const char *const dynamism[] = {"static", "bounded", "unbounded"};

/* ---- JSON ---- */

static void put_value_json(cml_json *j, const cml_pte_value *v) {
  cml_json_open_flat(j, '{');
  cml_json_put_text(j, "kind", cml_pte_kind_name(v->kind));
  if (v->kind == CML_PTE_TENSOR) {
    cml_json_put_text(j, "dtype", cml_pte_scalar_name(v->tensor->scalar));
    cml_json_key(j, "sizes");
    cml_json_open_flat(j, '[');
    for (int k = 0; k < v->tensor->rank; k++) cml_json_int(j, v->tensor->sizes[k]);
    cml_json_close(j, ']');
    cml_json_put_text(j, "dynamism", v->tensor->dynamism < 3 ? dynamism[v->tensor->dynamism] : "?");
  }
  cml_json_close(j, '}');
}

static void put_values_json(cml_json *j, const char *key, const cml_pte_method *m, const cml_pte_indices *list) {
  cml_json_key(j, key);
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < list->count; i++) put_value_json(j, &m->values[list->items[i]]);
  cml_json_close(j, ']');
}

static void put_delegate_json(cml_json *j, const cml_pte_delegate *d, uint32_t calls) {
  cml_json_open(j, '{');
  cml_json_put_string(j, "id", d->id);
  cml_json_put_uint(j, "size", d->data.size);
  cml_json_put_uint(j, "calls", calls);
  cml_json_key(j, "compile_specs");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < d->spec_count; i++) {
    const cml_pte_spec *s = &d->specs[i];
    const char *why = cml_pte_is_coreml(d) ? cml_pte_coreml_ignores(s) : NULL;
    cml_json_open_flat(j, '{');
    cml_json_put_string(j, "key", s->key);
    cml_json_put_string(j, "value", (cml_string){s->value.data ? (const char *)s->value.data : "", s->value.size});
    if (cml_pte_is_coreml(d)) cml_json_put_bool(j, "ignored", why != NULL);
    if (why) cml_json_put_text(j, "why", why);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  cml_json_close(j, '}');
}

static cml_status put_method_json(cml_json *j, const cml_pte_method *m, cml_error *err) {
  facts f;
  cml_status status = count(m, &f, err);
  if (status) goto out;
  cml_json_open(j, '{');
  cml_json_put_string(j, "name", m->name);
  put_values_json(j, "inputs", m, &m->inputs);
  put_values_json(j, "outputs", m, &m->outputs);
  cml_json_key(j, "memory_plan");
  cml_json_open_flat(j, '[');
  for (uint32_t i = 1; i < m->memory_count; i++) cml_json_uint(j, m->memory_sizes[i]);
  cml_json_close(j, ']');
  cml_json_put_uint(j, "constant_bytes", f.constants);
  cml_json_put_uint(j, "initial_state_bytes", f.initial);
  cml_json_put_uint(j, "kernel_calls", f.kernel_calls);
  cml_json_put_uint(j, "delegate_calls", f.delegate_calls);
  cml_json_put_uint(j, "other_instructions", f.others);
  cml_json_key(j, "operators");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < m->operator_count; i++) {
    cml_json_open_flat(j, '{');
    cml_json_put_string(j, "name", m->operators[i].full);
    cml_json_put_uint(j, "calls", f.operator_calls[i]);
    cml_json_close(j, '}');
  }
  cml_json_close(j, ']');
  cml_json_key(j, "delegates");
  cml_json_open(j, '[');
  for (uint32_t i = 0; i < m->delegate_count; i++) put_delegate_json(j, &m->delegates[i], f.delegate_uses[i]);
  cml_json_close(j, ']');
  cml_json_close(j, '}');
out:
  facts_free(&f);
  return status;
}

cml_status cml_pte_describe_json(const cml_pte *pte, cml_buffer *out, cml_error *err) {
  cml_json j = cml_json_over(out);
  cml_json_open(&j, '{');
  cml_json_put_uint(&j, "version", pte->version);
  cml_json_put_uint(&j, "size", pte->file.size);
  cml_json_key(&j, "methods");
  cml_json_open(&j, '[');
  for (uint32_t i = 0; i < pte->method_count; i++) CML_TRY(put_method_json(&j, &pte->methods[i], err));
  cml_json_close(&j, ']');
  cml_json_close(&j, '}');
  return cml_buffer_check(out, err);
}

/* ---- text ---- */

static void put_string(cml_buffer *out, cml_string s) {
  for (size_t i = 0; i < s.size && i < 200; i++) cml_buffer_char(out, (unsigned char)s.data[i] < 0x20 || s.data[i] == 0x7f ? '?' : s.data[i]);
}

static void put_bytes(cml_buffer *out, uint64_t bytes) {
  if (bytes < 10000) cml_buffer_printf(out, "%llu bytes", (unsigned long long)bytes);
  else if (bytes < 10000000) cml_buffer_printf(out, "%.1f kB", (double)bytes / 1e3);
  else cml_buffer_printf(out, "%.1f MB", (double)bytes / 1e6);
}

static void put_values_text(cml_buffer *out, const char *title, const cml_pte_method *m, const cml_pte_indices *list) {
  for (uint32_t i = 0; i < list->count; i++) {
    const cml_pte_value *v = &m->values[list->items[i]];
    cml_buffer_printf(out, "  %-9s", i ? "" : title);
    if (v->kind == CML_PTE_TENSOR) {
      const cml_pte_tensor *t = v->tensor;
      cml_buffer_printf(out, "%s [", cml_pte_scalar_name(t->scalar));
      for (int k = 0; k < t->rank; k++) cml_buffer_printf(out, "%s%s%d", k ? ", " : "", t->dynamism ? "<=" : "", t->sizes[k]);
      cml_buffer_text(out, "]\n");
    } else {
      cml_buffer_printf(out, "%s\n", cml_pte_kind_name(v->kind));
    }
  }
}

static void put_delegates_text(cml_buffer *out, const cml_pte_method *m, const facts *f) {
  for (uint32_t i = 0; i < m->delegate_count; i++) {
    const cml_pte_delegate *d = &m->delegates[i];
    bool coreml = cml_pte_is_coreml(d);
    cml_buffer_printf(out, "  %-9s", i ? "" : "backends");
    put_string(out, d->id);
    cml_buffer_printf(out, ", called %u times, ", f->delegate_uses[i]);
    put_bytes(out, d->data.size);
    cml_buffer_char(out, '\n');
    for (uint32_t k = 0; k < d->spec_count; k++) {
      const char *why = coreml ? cml_pte_coreml_ignores(&d->specs[k]) : NULL;
      cml_buffer_printf(out, "  %-11s", "");
      put_string(out, d->specs[k].key);
      cml_buffer_text(out, " = ");
      put_string(out, (cml_string){(const char *)d->specs[k].value.data, d->specs[k].value.size});
      if (why) cml_buffer_printf(out, "  (ignored: %s)", why);
      cml_buffer_char(out, '\n');
    }
  }
}

static cml_status put_method_text(cml_buffer *out, const cml_pte_method *m, cml_error *err) {
  facts f;
  cml_status status = count(m, &f, err);
  if (status) goto out;
  cml_buffer_text(out, "method ");
  put_string(out, m->name);
  cml_buffer_char(out, '\n');
  put_values_text(out, "inputs", m, &m->inputs);
  put_values_text(out, "outputs", m, &m->outputs);
  cml_buffer_text(out, "  memory   plan ");
  put_bytes(out, f.planned);
  cml_buffer_printf(out, " in %u arena%s, constants ", m->memory_count ? m->memory_count - 1 : 0, m->memory_count == 2 ? "" : "s");
  put_bytes(out, f.constants);
  if (f.initial) cml_buffer_text(out, ", state that starts with "), put_bytes(out, f.initial);
  cml_buffer_printf(out, "\n  runs     %llu operator calls, %llu delegate calls, %llu other instructions\n", (unsigned long long)f.kernel_calls,
                    (unsigned long long)f.delegate_calls, (unsigned long long)f.others);
  put_delegates_text(out, m, &f);
  for (uint32_t i = 0; i < m->operator_count; i++) {
    cml_buffer_printf(out, "  %-8s%6u  ", i ? "" : "calls", f.operator_calls[i]);
    put_string(out, m->operators[i].full);
    cml_buffer_char(out, '\n');
  }
out:
  facts_free(&f);
  return status;
}

cml_status cml_pte_describe_text(const cml_pte *pte, cml_buffer *out, cml_error *err) {
  cml_buffer_printf(out, "ExecuTorch program of %u method%s, ", pte->method_count, pte->method_count == 1 ? "" : "s");
  put_bytes(out, pte->file.size);
  cml_buffer_char(out, '\n');
  for (uint32_t i = 0; i < pte->method_count; i++) CML_TRY(put_method_text(out, &pte->methods[i], err));
  return cml_buffer_check(out, err);
}
