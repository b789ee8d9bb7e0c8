/* Summaries and graphs of small programs, with numbers worked out by hand. */
#include "mil_graph.h"
#include "mil_macs.h"
#include "summary.h"
#include "test.h"

static cml_model *model_of(const char *text) {
  cml_model *model = calloc(1, sizeof *model);
  model->type_number = 502;
  model->specification_version = 9;
  assert_ok(cml_mil_parse_text(cml_span_text(text), &model->arena, &model->program, err));
  return model;
}

static void drop(cml_model *model) {
  cml_arena_free(&model->arena);
  free(model);
}

#define PROGRAM(inputs, body, output) "program(1.3)\n{ func main<ios18>(" inputs ") {" body "} -> (" output "); }"
#define W(name, shape) "tensor<fp16, " shape "> " name " = const()[val = tensor<fp16, " shape ">(BLOBFILE(path = string(\"w\"), offset = uint64(64)))];"

static void test_multiply_adds(void **state) {
  (void)state;
  static const struct { const char *text; uint64_t macs; } cases[] = {
      /* out [1, 8, 5, 5] = 200 values, each 4/2 channels * 3 * 3 = 18 products */
      {PROGRAM("tensor<fp16, [1, 4, 7, 7]> x", W("w", "[8, 2, 3, 3]") "tensor<fp16, [1, 8, 5, 5]> y = conv(groups = int32(2), weight = w, x = x);", "y"), 3600},
      /* in [1, 3, 4] = 12 values, each feeds 5 channels * 2 */
      {PROGRAM("tensor<fp16, [1, 3, 4]> x", W("w", "[3, 5, 2]") "tensor<fp16, [1, 5, 8]> y = conv_transpose(weight = w, x = x);", "y"), 120},
      {PROGRAM("tensor<fp16, [2, 3, 4]> x", W("w", "[5, 4]") "tensor<fp16, [2, 3, 5]> y = linear(weight = w, x = x);", "y"), 120},
      {PROGRAM("tensor<fp16, [2, 4, 3]> x, tensor<fp16, [2, 4, 5]> z", "tensor<fp16, [2, 3, 5]> y = matmul(transpose_x = bool(true), x = x, y = z);", "y"), 120},
      {PROGRAM("tensor<fp16, [6]> x, tensor<fp16, [6, 5]> z", "tensor<fp16, [5]> y = matmul(x = x, y = z);", "y"), 30},
      /* labels b 2, h 3, i 4, j 5, k 6 */
      {PROGRAM("tensor<fp16, [2, 3, 4, 6]> x, tensor<fp16, [2, 3, 6, 5]> z",
               "tensor<fp16, [2, 3, 4, 5]> y = einsum(equation = string(\"bhik,bhkj->bhij\"), values = (x, z));", "y"), 720},
      /* 7 steps, batch 2, (4H * I + 4H * H) with H 3, I 5: 60 + 36; both directions */
      {PROGRAM("tensor<fp16, [7, 2, 5]> x", W("a", "[12, 5]") W("b", "[12, 3]")
               "tensor<fp16, [7, 2, 6]> y = lstm(direction = string(\"bidirectional\"), weight_hh = b, weight_hh_back = b, weight_ih = a, weight_ih_back = a, x = x);", "y"), 2688},
      {PROGRAM("tensor<fp16, [7, 2, 5]> x", W("a", "[9, 5]") W("b", "[9, 3]") "tensor<fp16, [7, 2, 3]> y = gru(weight_hh = b, weight_ih = a, x = x);", "y"), 1008},
      /* 2 heads, L 3, S 4, E 5, Ev 6: 2 * 3 * 4 * 11 */
      {PROGRAM("tensor<fp16, [1, 2, 3, 5]> q, tensor<fp16, [1, 2, 4, 5]> k, tensor<fp16, [1, 2, 4, 6]> v",
               "tensor<fp16, [1, 2, 3, 6]> y = scaled_dot_product_attention(key = k, query = q, value = v);", "y"), 264},
      {PROGRAM("tensor<fp16, [2, 3]> x", "tensor<fp16, [2, 3]> y = softmax(axis = int32(-1), x = x);", "y"), 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cml_model *model = model_of(cases[i].text);
    cml_summary s;
    assert_ok(cml_summary_of(model->program->functions[0], &model->arena, &s, err));
    if (s.macs != cases[i].macs || s.macs_unknown) fail_msg("%llu: %s", (unsigned long long)s.macs, cases[i].text);
    drop(model);
  }
}

static void test_unknown_shapes_are_told(void **state) {
  (void)state;
  cml_model *model = model_of(PROGRAM("tensor<fp16, [?, 4]> x", W("w", "[5, 4]") "tensor<fp16, [?, 5]> y = linear(weight = w, x = x);", "y"));
  cml_summary s;
  assert_ok(cml_summary_of(model->program->functions[0], &model->arena, &s, err));
  assert_int_equal(s.macs_unknown, 1);
  assert_int_equal(s.macs, 0);
  assert_int_equal(s.parameters, 20);
  drop(model);
}

/* A weight used twice counts once; a shape is no parameter; a palettized weight counts as it decompresses. */
static void test_parameters_and_bytes(void **state) {
  (void)state;
  cml_model *model = model_of(PROGRAM(
      "tensor<fp16, [1, 4]> x",
      W("w", "[4, 4]") "tensor<int32, [2]> shape = const()[val = tensor<int32, [2]>([4, 4])];"
      "tensor<uint4, [6, 4]> idx = const()[val = tensor<uint4, [6, 4]>(BLOBFILE(path = string(\"w\"), offset = uint64(64)))];"
      "tensor<fp16, [1, 1, 16, 1]> lut = const()[val = tensor<fp16, [1, 1, 16, 1]>(BLOBFILE(path = string(\"w\"), offset = uint64(64)))];"
      "tensor<fp16, [6, 4]> p = constexpr_lut_to_dense(indices = idx, lut = lut)[name = string(\"p\")];"
      "tensor<fp16, [1, 4]> a = linear(weight = w, x = x); tensor<fp16, [1, 4]> b = linear(weight = w, x = a);"
      "tensor<fp16, [1, 6]> y = linear(bias = tensor<fp16, [6]>([0x1p+0, 0x1p+0, 0x1p+0, 0x1p+0, 0x1p+0, 0x1p+0]), weight = p, x = b);", "y"));
  cml_summary s;
  assert_ok(cml_summary_of(model->program->functions[0], &model->arena, &s, err));
  assert_int_equal(s.parameters, 16 + 24 + 6);
  assert_int_equal(s.weight_bytes, 32 + (12 + 32) + 12);
  assert_int_equal(s.macs, 16 + 16 + 24);
  assert_int_equal(s.layer_count, 3);
  assert_int_equal(s.layers[0].parameters, 16);
  assert_int_equal(s.layers[1].parameters, 0);
  assert_int_equal(s.layers[2].weight_bytes, 12 + 32 + 12);
  assert_int_equal(s.operator_count, 3);
  assert_string_equal(s.operators[0].type, "const");
  assert_int_equal(s.operators[0].count, 4);
  assert_string_equal(s.operators[1].type, "linear");
  assert_int_equal(s.operators[1].macs, 56);
  drop(model);
}

static void test_text_and_json_say_the_same(void **state) {
  (void)state;
  cml_model *model = model_of(PROGRAM("tensor<fp16, [1000, 40]> x", W("w", "[50, 40]") "tensor<fp16, [1000, 50]> y = linear(weight = w, x = x)[name = string(\"a\\\"b\")];", "y"));
  cml_buffer text = CML_BUFFER_INIT, json = CML_BUFFER_INIT;
  assert_ok(cml_summary_text(model, &text, err));
  assert_ok(cml_summary_json(model, &json, err));
  assert_non_null(strstr((char *)text.data, "mlProgram, specification version 9"));
  assert_non_null(strstr((char *)text.data, "multiply-adds    2,000,000\n"));
  assert_non_null(strstr((char *)text.data, "tensor<fp16, [1000, 50]>"));
  assert_non_null(strstr((char *)json.data, "\"parameters\": 2000, \"weightBytes\": 4000, \"multiplyAdds\": 2000000"));
  assert_non_null(strstr((char *)json.data, "\"name\": \"a\\\"b\""));
  cml_buffer_free(&text);
  cml_buffer_free(&json);
  drop(model);
}

/* ---- graphs ---- */

static const char *const branchy =
    PROGRAM("tensor<fp16, [1]> x, bool p", "fp16 k = const()[val = fp16(0x1p+0)]; tensor<fp16, [1]> a = relu(x = x);"
            "tensor<fp16, [1]> y = cond(pred = p)[name = string(\"c\")] { tensor<fp16, [1]> t = add(x = a, y = a); tensor<fp16, [1]> u = exp(x = t); } -> (u) { } -> (x);"
            "tensor<fp16, [1]> z = add(x = y, y = x);", "z");

static void test_edges_follow_names(void **state) {
  (void)state;
  cml_model *model = model_of(branchy);
  cml_graph g;
  assert_ok(cml_graph_build(model->program->functions[0], &model->arena, &g, err));
  /* 0 x, 1 p, 2 relu, 3 cond, 4 add in it, 5 exp in it, 6 add, 7 output */
  static const cml_graph_edge expected[] = {{0, 2}, {0, 6}, {1, 3}, {2, 4}, {3, 6}, {4, 5}, {6, 7}};
  assert_int_equal(g.node_count, 8);
  assert_int_equal(g.nodes[4].parent, 3);
  assert_int_equal(g.edge_count, sizeof expected / sizeof *expected);
  for (size_t i = 0; i < g.edge_count; i++) {
    assert_int_equal(g.edges[i].from, expected[i].from);
    assert_int_equal(g.edges[i].to, expected[i].to);
  }
  drop(model);
}

static size_t count_of(const cml_buffer *b, const char *what) {
  size_t n = 0;
  for (const char *p = (const char *)b->data; (p = strstr(p, what)); p++) n++;
  return n;
}

static void test_drawings(void **state) {
  (void)state;
  cml_model *model = model_of(branchy);
  const cml_mil_function *f = model->program->functions[0];
  cml_buffer dot = CML_BUFFER_INIT, svg = CML_BUFFER_INIT;
  assert_ok(cml_graph_dot(f, &dot, err));
  assert_int_equal(count_of(&dot, " -> "), 7);
  assert_int_equal(count_of(&dot, "subgraph"), 1);
  assert_true(cml_graph_is_small(f));
  assert_ok(cml_graph_svg(f, &svg, err));
  assert_int_equal(count_of(&svg, "<rect x="), 6); /* the nested ones are within cond's */
  assert_int_equal(count_of(&svg, "marker-end=\""), 6); /* x-relu, x-add, p-cond, relu-cond, cond-add, add-output */
  cml_buffer_free(&dot);
  cml_buffer_free(&svg);
  drop(model);
}

static void test_large_graphs_are_not_drawn(void **state) {
  (void)state;
  cml_buffer text = CML_BUFFER_INIT, svg = CML_BUFFER_INIT;
  cml_buffer_text(&text, "program(1.3){func main<ios18>(fp32 v0){");
  for (int i = 1; i <= 1000; i++) cml_buffer_printf(&text, "fp32 v%d = relu(x = v%d);", i, i - 1);
  cml_buffer_text(&text, "} -> (v1000);}");
  cml_model *model = model_of((char *)text.data);
  cml_error e;
  assert_false(cml_graph_is_small(model->program->functions[0]));
  assert_int_equal(cml_graph_svg(model->program->functions[0], &svg, &e), CML_LIMIT);
  assert_ok(cml_graph_dot(model->program->functions[0], &svg, err));
  cml_buffer_free(&svg);
  cml_buffer_free(&text);
  drop(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_multiply_adds),
      cmocka_unit_test(test_unknown_shapes_are_told),
      cmocka_unit_test(test_parameters_and_bytes),
      cmocka_unit_test(test_text_and_json_say_the_same),
      cmocka_unit_test(test_edges_follow_names),
      cmocka_unit_test(test_drawings),
      cmocka_unit_test(test_large_graphs_are_not_drawn),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
