/* Programs with quantised activations in .mil text, whose bytes the pass `integers` must give as exact arithmetic does, over every table of
 * kernels. Where an exact value lies so near a tie that rounding decides, another program is drawn. */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include "buffer.h"
#include "exec_graph.h"
#include "executable.h"
#include "passes.h"
#include "program_text.h"
#include "random_numbers.h"

static const char *type, *code; /* fp32, fp16; int8, uint8 */

/* A value of a program, as exact arithmetic has it. */
typedef struct image {
  int64_t channels, height, width;
  double v[1 << 12];
} image;

static size_t image_count(const image *x) { return (size_t)(x->channels * x->height * x->width); }

/* Codes in brackets by dims. */
static const int *put_nested(const int *codes, const int64_t *dims, int rank) {
  if (!rank) return put("%d", *codes), codes + 1;
  put("[");
  for (int64_t i = 0; i < dims[0]; i++) {
    if (i) put(", ");
    codes = put_nested(codes, dims + 1, rank - 1);
  }
  put("]");
  return codes;
}

static void put_words(const char *name, const char *value) {
  put("tensor<string, []> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<string, []>(\"%s\")];\n", name, name, value);
}

static void put_ints(const char *name, const char *dims, const char *values) {
  put("tensor<int32, %s> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<int32, %s>(%s)];\n", dims, name, name, dims, values);
}

static bool near_tie; /* an exact value lay so near a tie that the program's bytes may go another way */

/* Adds quantize and dequantize (with `back` times the scale) of `from`; exact values follow. Scales have few bits: they are the same in
 * float16. */
static void quantize(const char *from, const char *to, image *x, double scale, int zero, double back, int64_t rank) {
  char dims[64];
  snprintf(dims, sizeof dims, rank == 2 ? "[%lld, %lld]" : "[1, %lld, %lld, %lld]", (long long)(rank == 2 ? x->height : x->channels),
           (long long)(rank == 2 ? x->channels : x->height), (long long)x->width);
  int lowest = !strcmp(code, "int8") ? -128 : 0;
  put("tensor<%s, []> %s_scale = const()[name = tensor<string, []>(\"%s_scale\"), val = tensor<%s, []>(%.9g)];\n", type, to, to, type, scale);
  put("tensor<%s, []> %s_back = const()[name = tensor<string, []>(\"%s_back\"), val = tensor<%s, []>(%.9g)];\n", type, to, to, type, back);
  put("tensor<%s, []> %s_zero = const()[name = tensor<string, []>(\"%s_zero\"), val = tensor<%s, []>(%d)];\n", code, to, to, code, zero);
  put("tensor<%s, %s> %s_codes = quantize(input = %s, output_dtype = code, scale = %s_scale, zero_point = %s_zero)[name = tensor<string, []>(\"%s_codes\")];\n", code,
      dims, to, from, to, to, to);
  put("tensor<%s, %s> %s = dequantize(input = %s_codes, scale = %s_back, zero_point = %s_zero)[name = tensor<string, []>(\"%s\")];\n", type, dims, to, to, to, to, to);
  for (size_t i = 0; i < image_count(x); i++) {
    double v = x->v[i] / scale, q = nearbyint(v);
    near_tie = near_tie || (fabs(fabs(v - floor(v)) - 0.5) < 2e-4 && v > lowest - zero - 1 && v < lowest + 256 - zero);
    x->v[i] = (fmin(fmax(q + zero, lowest), lowest + 255) - zero) * back;
  }
}

/* Weights of random codes with a scale for each output, and a bias. */
static void weights(const char *name, const int64_t *shape, int rank, int *codes, double *scale, double *bias, int zero) {
  int64_t outputs = shape[0], depth = shape[1];
  char dims[64];
  for (int i = 2; i < rank; i++) depth *= shape[i];
  snprintf(dims, sizeof dims, rank == 2 ? "[%lld, %lld]" : "[%lld, %lld, %lld, %lld]", (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3]);
  for (int64_t i = 0; i < outputs * depth; i++) codes[i] = zero ? (int)between(0, 255) : (int)between(-127, 127);
  put("tensor<%s, %s> %s = constexpr_affine_dequantize()[axis = tensor<int32, []>(0), quantized_data = tensor<%s, %s>(", type, dims, name, zero ? "uint8" : "int8", dims);
  put_nested(codes, shape, rank);
  put("), scale = tensor<%s, [%lld]>([", type, (long long)outputs);
  for (int64_t o = 0; o < outputs; o++) scale[o] = (double)between(16, 63) / 65536, put("%s%.9g", o ? ", " : "", scale[o]);
  put("]), zero_point = tensor<%s, []>(%d), name = tensor<string, []>(\"%s\")];\n", zero ? "uint8" : "int8", zero, name);
  put("tensor<%s, [%lld]> %s_bias = const()[name = tensor<string, []>(\"%s_bias\"), val = tensor<%s, [%lld]>([", type, (long long)outputs, name, name, type, (long long)outputs);
  for (int64_t o = 0; o < outputs; o++) bias[o] = (double)between(-512, 512) / 1024, put("%s%.9g", o ? ", " : "", bias[o]);
  put("])];\n");
  for (int64_t i = 0; i < outputs * depth; i++) codes[i] -= zero;
}

static void convolve(image *x, int64_t outputs, int64_t kernel, int64_t pad, int64_t stride, const int *w, const double *scale, const double *bias) {
  static image y;
  y.channels = outputs, y.height = (x->height + 2 * pad - kernel) / stride + 1, y.width = (x->width + 2 * pad - kernel) / stride + 1;
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t h = 0; h < y.height; h++)
      for (int64_t c = 0; c < y.width; c++) {
        double sum = 0;
        for (int64_t i = 0; i < x->channels; i++)
          for (int64_t a = 0; a < kernel; a++)
            for (int64_t b = 0; b < kernel; b++) {
              int64_t r = h * stride + a - pad, s = c * stride + b - pad;
              if (r >= 0 && s >= 0 && r < x->height && s < x->width)
                sum += x->v[(i * x->height + r) * x->width + s] * w[((o * x->channels + i) * kernel + a) * kernel + b];
            }
        y.v[(o * y.height + h) * y.width + c] = sum * scale[o] + bias[o];
      }
  *x = y;
}

static void begin_program(const char *shape) {
  used = 0;
  near_tie = false;
  put("program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n  func main<ios17>(tensor<%s, %s> x) {\n", type, shape);
  put_words("code", code);
}

/* Runs the program and compares with the exact values; `operators`: what the pass must have made, how many of each. */
typedef struct wanted {
  const char *name;
  size_t count;
} wanted;

static void compare(const char *passes, const cml_tensor *x, const image *want, double slack, const wanted *operators) {
  cml_model *model = calloc(1, sizeof *model);
  cml_executable *e;
  cml_session *s;
  assert_ok(cml_mil_parse_text(cml_span_of(text, used), &model->arena, &model->program, err));
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.passes = passes, .threads = 2}, &e, err));
  for (; operators && operators->name; operators++) {
    const cml_graph_block *body = &e->general.graph.body;
    size_t count = 0;
    for (size_t i = 0; i < body->step_count; i++) count += !body->steps[i].folded && !strcmp(body->steps[i].op->name, operators->name);
    if (count != operators->count) fail_msg("%zu of %s, expected %zu (%s, %s)", count, operators->name, operators->count, type, code);
  }
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", x, err));
  assert_ok(cml_session_run(s, err));
  const cml_tensor *y = cml_session_output(s, 0);
  assert_int_equal(cml_tensor_count(y), image_count(want));
  for (size_t i = 0; i < image_count(want); i++)
    if (fabs(cml_tensor_get(y, (int64_t)i) - want->v[i]) > slack)
      fail_msg("%s, %s, %s, passes %s: element %zu is %g, should be %g", cml_kernels_get()->name, type, code, passes ? passes : "all", i, cml_tensor_get(y, (int64_t)i), want->v[i]);
  cml_session_destroy(s);
  cml_executable_unref(e);
  cml_arena_free(&model->arena);
  free(model);
}

static float input[4096];

/* A quarter beyond whole codes: no ties. */
static void draw_input(image *x, int64_t channels, int64_t height, int64_t width) {
  *x = (image){.channels = channels, .height = height, .width = width};
  for (size_t i = 0; i < image_count(x); i++) input[i] = (float)between(-127, 127) / 64 + 0x1p-8f, x->v[i] = (double)input[i];
}

/* An image that is quantized at once, and the constants of the layers behind it. */
static void begin_block(const char *shape, image *x, int64_t channels, int64_t height, int64_t width, int zero) {
  begin_program(shape);
  draw_input(x, channels, height, width);
  put_words("custom", "custom");
  put_words("valid", "valid");
  put_ints("pads", "[4]", "[1, 1, 1, 1]");
  put_ints("two", "[2]", "[2, 2]");
  put_ints("one", "[2]", "[1, 1]");
  put("tensor<bool, []> no = const()[name = tensor<string, []>(\"no\"), val = tensor<bool, []>(false)];\n");
  quantize("x", "q0", x, 0.015625, zero, 0.015625, 4);
}

/* An image through a convolution with relu, a pointwise one, a residual sum with relu, and a maximum; the last dequantize is the output. */
static void residual_block(void) {
  static image x, skip;
  static int w1[24 * 4 * 9], w2[24 * 24];
  static double scale[24], bias[24];
  int zero = !strcmp(code, "uint8") ? 120 : 3, relu_zero = !strcmp(code, "uint8") ? 0 : -128;
  do {
    begin_block("[1, 4, 9, 7]", &x, 4, 9, 7, zero);
    weights("w1", (const int64_t[]){24, 4, 3, 3}, 4, w1, scale, bias, 0);
    put("tensor<%s, [1, 24, 9, 7]> c1 = conv(x = q0, weight = w1, bias = w1_bias, pad = pads, pad_type = custom, strides = one)[name = tensor<string, []>(\"c1\")];\n", type);
    put("tensor<%s, [1, 24, 9, 7]> r1 = relu(x = c1)[name = tensor<string, []>(\"r1\")];\n", type);
    convolve(&x, 24, 3, 1, 1, w1, scale, bias);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] = fmax(x.v[i], 0);
    quantize("r1", "q1", &x, 0.0113525390625, relu_zero, 0.0113525390625, 4);
    skip = x;
    weights("w2", (const int64_t[]){24, 24, 1, 1}, 4, w2, scale, bias, 128);
    put("tensor<%s, [1, 24, 9, 7]> c2 = conv(x = q1, weight = w2, bias = w2_bias, pad_type = valid, strides = one)[name = tensor<string, []>(\"c2\")];\n", type);
    convolve(&x, 24, 1, 0, 1, w2, scale, bias);
    quantize("c2", "q2", &x, 0.017333984375, zero, 0.0234375, 4); /* and back by another scale */
    put("tensor<%s, [1, 24, 9, 7]> sum = add(x = q2, y = q1)[name = tensor<string, []>(\"sum\")];\n", type);
    put("tensor<%s, [1, 24, 9, 7]> r2 = relu(x = sum)[name = tensor<string, []>(\"r2\")];\n", type);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] = fmax(x.v[i] + skip.v[i], 0);
    quantize("r2", "q3", &x, 0.0259552001953125, relu_zero, 0.0259552001953125, 4);
    put("tensor<%s, [1, 24, 4, 3]> pooled = max_pool(x = q3, kernel_sizes = two, strides = two, pad_type = valid, ceil_mode = no)[name = tensor<string, []>(\"pooled\")];\n", type);
    static image y;
    y = (image){.channels = 24, .height = 4, .width = 3};
    for (int64_t c = 0; c < 24; c++)
      for (int64_t h = 0; h < 4; h++)
        for (int64_t w = 0; w < 3; w++) {
          const double *from = x.v + (c * 9 + 2 * h) * 7 + 2 * w;
          y.v[(c * 4 + h) * 3 + w] = fmax(fmax(from[0], from[1]), fmax(from[7], from[8]));
        }
    x = y;
    quantize("pooled", "q4", &x, 0.031219482421875, relu_zero, 0.031219482421875, 4);
    put("  } -> (q4);\n}\n");
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 4, .dims = {1, 4, 9, 7}, .data = input};
  const wanted all[] = {{"cml_integer_conv", 2}, {"cml_integer_max_pool", 1}, {"cml_integer_map", 1}, {"cml_quantize", 1}, {"cml_dequantize", 1}, {"quantize", 0},
                        {"dequantize", 0},       {"add", 0},                  {NULL, 0}};
  double slack = 0.0312 / 4; /* a byte is either right or off by four times as much */
  compare(NULL, &in, &x, slack, all);
  if (!strcmp(type, "fp32")) compare("-integers", &in, &x, slack, NULL); /* in float16 sums are rounded in between */
}

/* Three quantizations behind a convolution, the first of which cuts values off; the third is that of a sum. No sum of its codes lies at a tie:
 * scales are 25, 27 and 213 of 8192 parts. */
static void quantized_thrice(void) {
  static image x, skip;
  static int w1[4 * 4];
  static double scale[4], bias[4];
  int zero = !strcmp(code, "uint8") ? 120 : 3, relu_zero = !strcmp(code, "uint8") ? 0 : -128;
  do {
    begin_program("[1, 4, 9, 7]");
    draw_input(&x, 4, 9, 7);
    put_words("valid", "valid");
    put_ints("one", "[2]", "[1, 1]");
    quantize("x", "q0", &x, 0.015625, zero, 0.015625, 4);
    skip = x;
    weights("w1", (const int64_t[]){4, 4, 1, 1}, 4, w1, scale, bias, 0);
    put("tensor<%s, [1, 4, 9, 7]> c1 = conv(x = q0, weight = w1, bias = w1_bias, pad_type = valid, strides = one)[name = tensor<string, []>(\"c1\")];\n", type);
    convolve(&x, 4, 1, 0, 1, w1, scale, bias);
    quantize("c1", "q1", &x, 25.0 / 8192, zero, 25.0 / 8192, 4);
    put("tensor<%s, [1, 4, 9, 7]> r1 = relu(x = q1)[name = tensor<string, []>(\"r1\")];\n", type);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] = fmax(x.v[i], 0);
    quantize("r1", "q2", &x, 27.0 / 8192, relu_zero, 27.0 / 8192, 4);
    put("tensor<%s, [1, 4, 9, 7]> sum = add(x = q2, y = q0)[name = tensor<string, []>(\"sum\")];\n", type);
    for (size_t i = 0; i < image_count(&x); i++) x.v[i] += skip.v[i];
    quantize("sum", "q3", &x, 213.0 / 8192, zero, 213.0 / 8192, 4);
    put("  } -> (q3);\n}\n");
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 4, .dims = {1, 4, 9, 7}, .data = input};
  const wanted all[] = {{"cml_integer_conv", 1}, {"cml_integer_add", 1}, {"quantize", 0}, {"dequantize", 0}, {"add", 0}, {NULL, 0}};
  compare(NULL, &in, &x, 213.0 / 8192 / 4, all);
  if (!strcmp(type, "fp32")) compare("-integers", &in, &x, 213.0 / 8192 / 4, NULL);
}

/* What is summed in floats: a depthwise convolution with codes, which quantizes twice, and a pointwise one with weights of floats. */
static void depthwise_block(void) {
  static image x, y;
  static int w1[24 * 9];
  static double scale[24], bias[24];
  static float w2[8 * 24];
  int zero = !strcmp(code, "uint8") ? 120 : 3, relu_zero = !strcmp(code, "uint8") ? 0 : -128;
  do {
    begin_block("[1, 24, 11, 8]", &x, 24, 11, 8, zero);
    put_ints("groups", "[]", "24");
    weights("w1", (const int64_t[]){24, 1, 3, 3}, 4, w1, scale, bias, 0);
    put("tensor<%s, [1, 24, 6, 4]> c1 = conv(x = q0, weight = w1, bias = w1_bias, pad = pads, pad_type = custom, strides = two, groups = groups)[name = tensor<string, []>(\"c1\")];\n", type);
    y = (image){.channels = 24, .height = 6, .width = 4};
    for (int64_t c = 0; c < 24; c++) {
      static image one;
      one = (image){.channels = 1, .height = 11, .width = 8};
      memcpy(one.v, x.v + c * 88, 88 * sizeof *one.v);
      convolve(&one, 1, 3, 1, 2, w1 + c * 9, scale + c, bias + c);
      memcpy(y.v + c * 24, one.v, 24 * sizeof *one.v);
    }
    quantize("c1", "q1", &y, 0.0113525390625, zero, 0.0113525390625, 4);
    put("tensor<%s, [1, 24, 6, 4]> r1 = relu(x = q1)[name = tensor<string, []>(\"r1\")];\n", type);
    for (size_t i = 0; i < image_count(&y); i++) y.v[i] = fmax(y.v[i], 0);
    quantize("r1", "q2", &y, 0.01220703125, relu_zero, 0.01220703125, 4);
    put("tensor<%s, [8, 24, 1, 1]> w2 = const()[name = tensor<string, []>(\"w2\"), val = tensor<%s, [8, 24, 1, 1]>([", type, type);
    for (int i = 0; i < 8 * 24; i++)
      w2[i] = (float)between(-400, 400) / 1024, put("%s%s[[%.9g]]%s", i % 24 ? ", " : i ? "], " : "", i % 24 ? "" : "[", (double)w2[i], i == 8 * 24 - 1 ? "]" : "");
    put("])];\n");
    put("tensor<%s, [1, 8, 6, 4]> c2 = conv(x = q2, weight = w2, pad_type = valid, strides = one)[name = tensor<string, []>(\"c2\")];\n", type);
    x = (image){.channels = 8, .height = 6, .width = 4};
    for (int64_t o = 0; o < 8; o++)
      for (int64_t i = 0; i < 24; i++) {
        double sum = 0;
        for (int64_t c = 0; c < 24; c++) sum += y.v[c * 24 + i] * (double)w2[o * 24 + c];
        x.v[o * 24 + i] = sum;
      }
    quantize("c2", "q3", &x, 0.017333984375, zero, 0.017333984375, 4);
    put("  } -> (q3);\n}\n");
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 4, .dims = {1, 24, 11, 8}, .data = input};
  const wanted all[] = {{"cml_integer_conv", 2}, {"cml_quantize", 1}, {"cml_dequantize", 0}, {"relu", 0}, {"cml_conv", 0}, {NULL, 0}};
  compare(NULL, &in, &x, 0.0173 / 4, all);
}

/* Vectors through two linear layers with a function that is no clamp between them, which becomes a table. */
static void linear_block(void) {
  static image x;
  static int w1[40 * 32], w2[17 * 40];
  static double scale[40], bias[40];
  int zero = !strcmp(code, "uint8") ? 128 : 0;
  do {
    begin_program("[13, 32]");
    draw_input(&x, 32, 13, 1);
    quantize("x", "q0", &x, 0.015625, zero, 0.015625, 2);
    weights("w1", (const int64_t[]){40, 32, 1, 1}, 2, w1, scale, bias, 0);
    put("tensor<%s, [13, 40]> l1 = linear(x = q0, weight = w1, bias = w1_bias)[name = tensor<string, []>(\"l1\")];\n", type);
    static image y;
    y = (image){.channels = 40, .height = 13, .width = 1};
    for (int64_t r = 0; r < 13; r++)
      for (int64_t o = 0; o < 40; o++) {
        double sum = 0;
        for (int64_t i = 0; i < 32; i++) sum += x.v[r * 32 + i] * w1[o * 32 + i];
        y.v[r * 40 + o] = sum * scale[o] + bias[o];
      }
    quantize("l1", "q1", &y, 0.0113525390625, zero, 0.0113525390625, 2);
    put("tensor<%s, [13, 40]> f = tanh(x = q1)[name = tensor<string, []>(\"f\")];\n", type);
    for (size_t i = 0; i < image_count(&y); i++) {
      y.v[i] = tanh(y.v[i]);
      if (!strcmp(type, "fp16")) y.v[i] = (double)cml_f16_to_f32(cml_f16_from_f32((float)y.v[i]));
    }
    quantize("f", "q2", &y, 0.0078125 * 1.05078125, zero, 0.0078125 * 1.05078125, 2);
    weights("w2", (const int64_t[]){17, 40, 1, 1}, 2, w2, scale, bias, 40); /* up to 215: no signed bytes */
    put("tensor<%s, [13, 17]> l2 = linear(x = q2, weight = w2, bias = w2_bias)[name = tensor<string, []>(\"l2\")];\n  } -> (l2);\n}\n", type);
    x = (image){.channels = 17, .height = 13, .width = 1};
    for (int64_t r = 0; r < 13; r++)
      for (int64_t o = 0; o < 17; o++) {
        double sum = 0;
        for (int64_t i = 0; i < 40; i++) sum += y.v[r * 40 + i] * w2[o * 40 + i];
        x.v[r * 17 + o] = sum * scale[o] + bias[o];
      }
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 2, .dims = {13, 32}, .data = input};
  const wanted all[] = {{"cml_integer_linear", 2}, {"cml_integer_map", 1}, {"cml_quantize", 1}, {"cml_dequantize", 0}, {"linear", 0}, {"tanh", 0}, {NULL, 0}};
  compare(NULL, &in, &x, !strcmp(type, "fp16") ? 1e-2 : 3e-5, all);
}

/* Two convolutions whose bytes are joined and quantized by a third scale. */
static void joined_block(void) {
  static image x, left, right_part;
  static int w1[8 * 4], w2[6 * 4 * 9];
  static double scale[8], bias[8];
  int zero = !strcmp(code, "uint8") ? 120 : 3;
  do {
    begin_block("[1, 4, 9, 7]", &x, 4, 9, 7, zero);
    put_ints("axis", "[]", "1");
    left = right_part = x;
    weights("w1", (const int64_t[]){8, 4, 1, 1}, 4, w1, scale, bias, 90);
    put("tensor<%s, [1, 8, 9, 7]> c1 = conv(x = q0, weight = w1, bias = w1_bias, pad_type = valid, strides = one)[name = tensor<string, []>(\"c1\")];\n", type);
    convolve(&left, 8, 1, 0, 1, w1, scale, bias);
    quantize("c1", "q1", &left, 25.0 / 8192, zero, 25.0 / 8192, 4);
    weights("w2", (const int64_t[]){6, 4, 3, 3}, 4, w2, scale, bias, 0);
    put("tensor<%s, [1, 6, 9, 7]> c2 = conv(x = q0, weight = w2, bias = w2_bias, pad = pads, pad_type = custom, strides = one)[name = tensor<string, []>(\"c2\")];\n", type);
    convolve(&right_part, 6, 3, 1, 1, w2, scale, bias);
    quantize("c2", "q2", &right_part, 27.0 / 8192, zero, 27.0 / 8192, 4);
    put("tensor<%s, [1, 14, 9, 7]> both = concat(values = (q1, q2), axis = axis, interleave = no)[name = tensor<string, []>(\"both\")];\n", type);
    x = (image){.channels = 14, .height = 9, .width = 7};
    memcpy(x.v, left.v, image_count(&left) * sizeof *x.v);
    memcpy(x.v + image_count(&left), right_part.v, image_count(&right_part) * sizeof *x.v);
    quantize("both", "q3", &x, 213.0 / 32768, zero, 213.0 / 32768, 4);
    put("  } -> (q3);\n}\n");
  } while (near_tie);
  const cml_tensor in = {.dtype = CML_F32, .rank = 4, .dims = {1, 4, 9, 7}, .data = input};
  const wanted all[] = {{"cml_integer_conv", 2}, {"cml_integer_map", 2}, {"concat", 1}, {"cml_quantize", 1}, {"quantize", 0}, {"dequantize", 0}, {NULL, 0}};
  compare(NULL, &in, &x, 213.0 / 32768 / 4, all);
  if (!strcmp(type, "fp32")) compare("-integers", &in, &x, 213.0 / 32768 / 4, NULL);
}

static void each_kind(void (*test)(void)) {
  static const char *const types[] = {"fp32", "fp16"}, *const codes[] = {"int8", "uint8"};
  const cml_kernels *k;
  for (size_t i = 0; (k = cml_kernels_at(i)); i++) {
    assert_ok(cml_kernels_use(k->name, err));
    for (int t = 0; t < 4; t++) {
      type = types[t / 2], code = codes[t % 2];
      test();
    }
  }
  assert_ok(cml_kernels_use(NULL, err));
}

static void test_residual_block(void **state) {
  (void)state;
  each_kind(residual_block);
}
static void test_quantized_thrice(void **state) {
  (void)state;
  each_kind(quantized_thrice);
}
static void test_depthwise_block(void **state) {
  (void)state;
  each_kind(depthwise_block);
}
static void test_linear_block(void **state) {
  (void)state;
  each_kind(linear_block);
}

static void test_joined_block(void **state) {
  (void)state;
  each_kind(joined_block);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_residual_block), cmocka_unit_test(test_depthwise_block), cmocka_unit_test(test_linear_block),
                                     cmocka_unit_test(test_quantized_thrice), cmocka_unit_test(test_joined_block)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
