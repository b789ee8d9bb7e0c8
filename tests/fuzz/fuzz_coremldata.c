/* coremldata.bin of a compiled model, and with it the description's parser. */
#include "model_compiled.h"
#include "model_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_model model = {.arena = {.limit = 64 << 20}};
  cml_buffer out = CML_BUFFER_INIT;
  cml_error error;
  if (!cml_model_parse_compiled(cml_span_of(data, size), &model, &error)) {
    cml_status ignored = cml_model_io_json(&model, &out, &error);
    (void)ignored;
  }
  cml_buffer_free(&out);
  cml_arena_free(&model.arena);
  return 0;
}
