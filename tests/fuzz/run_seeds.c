/* Makes seeds for fuzz-run: run-seeds FOLDER MODEL… writes the Model protobuf of each with its weights inline, when that is small. */
#include <stdio.h>
#include <stdlib.h>

#include "container.h"
#include "mil.h"

enum { LARGEST = 48 << 10 };

static void value_inline(cml_mil_value *v) {
  if (!v || v->kind != CML_VALUE_BLOB) return;
  uint64_t elements = 0;
  v->kind = CML_VALUE_TENSOR;
  v->storage = CML_STORAGE_AUTO;
  if (v->type && cml_mil_type_elements(v->type, &elements)) v->count = (size_t)elements;
}

static void block_inline(cml_mil_block *b) {
  for (size_t i = 0; i < b->op_count; i++) {
    cml_mil_op *op = b->ops[i];
    for (size_t k = 0; k < op->attributes.count; k++) value_inline(op->attributes.items[k].value);
    for (size_t k = 0; k < op->input_count; k++)
      for (size_t n = 0; n < op->inputs[k].count; n++) value_inline(op->inputs[k].bindings[n].value);
    for (size_t k = 0; k < op->block_count; k++) block_inline(op->blocks[k]);
  }
}

static cml_status write_seed(const char *folder, const char *path, int number, cml_error *err) {
  cml_container *c = NULL;
  cml_model *m = NULL;
  cml_buffer out = CML_BUFFER_INIT;
  char name[4096];
  CML_TRY(cml_container_open(path, NULL, &c, err));
  const cml_container_model *found = cml_container_model_count(c) ? cml_container_model_at(c, 0) : NULL;
  cml_status status = found ? cml_model_read(found->tree, found->root, NULL, &m, err) : CML_NOT_FOUND;
  for (size_t i = 0; !status && m->program && i < m->program->function_count; i++)
    for (size_t k = 0; k < m->program->functions[i]->specialization_count; k++) block_inline(m->program->functions[i]->specializations[k].block);
  if (!status && m->program) status = cml_model_serialize(m, &out, err);
  if (!status && out.size && out.size <= LARGEST) {
    snprintf(name, sizeof name, "%s/%04d", folder, number);
    FILE *f = fopen(name, "wb");
    if (f) fwrite(out.data, 1, out.size, f), fclose(f);
  }
  cml_buffer_free(&out);
  cml_model_close(m);
  cml_container_close(c);
  return status;
}

int main(int argc, char **argv) {
  for (int i = 2; i < argc; i++) {
    cml_error error = {0};
    if (write_seed(argv[1], argv[i], i, &error)) fprintf(stderr, "%s: %s\n", argv[i], error.text);
  }
  return 0;
}
