/* The Model protobuf. What is accepted must come back: written and read again it is the same program, and writing that
 * gives the same bytes. */
#include <stdlib.h>

#include "mil.h"
#include "mil_equal.h"
#include "model_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_again(const cml_model *model) {
  cml_buffer first = CML_BUFFER_INIT, second = CML_BUFFER_INIT;
  cml_model again = {0};
  cml_error error;
  if (cml_model_serialize(model, &first, &error)) abort();
  if (cml_model_parse(cml_buffer_span(&first), NULL, &again, &error)) abort();
  if (!model->program != !again.program) abort();
  if (model->program && !cml_mil_program_equal(model->program, again.program, NULL)) abort();
  if (cml_model_serialize(&again, &second, &error) || !cml_span_equal(cml_buffer_span(&first), cml_buffer_span(&second))) abort();
  cml_arena_free(&again.arena);
  cml_buffer_free(&first);
  cml_buffer_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_model model = {0};
  cml_error error;
  cml_buffer out = CML_BUFFER_INIT;
  if (cml_model_parse(cml_span_of(data, size), NULL, &model, &error)) return 0;
  write_again(&model);
  if (cml_model_io_json(&model, &out, &error)) abort();
  cml_buffer_free(&out);
  cml_arena_free(&model.arena);
  return 0;
}
