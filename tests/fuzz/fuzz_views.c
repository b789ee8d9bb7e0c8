/* A program's views (summary as text and JSON, graph as .dot and SVG) for whatever program the text reader accepts. */
#include "mil_graph.h"
#include "summary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  cml_model model = {.arena = {.limit = 64 << 20}, .type_number = 502};
  cml_buffer out = CML_BUFFER_INIT;
  cml_error error;
  if (!cml_mil_parse_text(cml_span_of(data, size), &model.arena, &model.program, &error)) {
    cml_status ignored = cml_summary_text(&model, &out, &error);
    ignored = cml_summary_json(&model, &out, &error);
    for (size_t i = 0; i < model.program->function_count; i++) {
      ignored = cml_graph_dot(model.program->functions[i], &out, &error);
      ignored = cml_graph_svg(model.program->functions[i], &out, &error);
    }
    (void)ignored;
  }
  cml_buffer_free(&out);
  cml_arena_free(&model.arena);
  return 0;
}
