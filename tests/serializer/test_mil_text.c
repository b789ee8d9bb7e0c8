/* .mil text: numbers against the C library, constructs by hand, errors with their places, and the files that Apple's
 * compiler wrote, which must come back byte for byte. */
#include <fcntl.h>
#include <glob.h>
#include <math.h>
#include <unistd.h>

#include "f16.h"
#include "mapping.h"
#include "mil_text_check.h"
#include "mil_text_number.h"

/* ---- numbers ---- */

static uint64_t float_bits(const char *text, cml_dtype type) {
  uint64_t bits = 0xdead;
  const uint8_t *p = (const uint8_t *)text, *end = p + strlen(text);
  const uint8_t *stop = cml_mil_number_float(p, end, type, &bits);
  if (stop != end) fail_msg("%s: not read to its end", text);
  return bits;
}

static uint64_t bits_of_double(double d) {
  uint64_t bits;
  memcpy(&bits, &d, 8);
  return bits;
}

static uint32_t bits_of_float(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}

/* strtod and strtof are exact in glibc. */
static void test_floats_as_the_c_library_reads_them(void **state) {
  (void)state;
  static const char *const texts[] = {
      "0x1p+0", "-0x1.8p-3", "0x0p+0", "-0x0p+0", "0x1.fffffep+127", "0x1.ffffffp+127", "0x1p-149", "0x1p-150", "0x1.000002p-150",
      "0x1.8p-149", "0x1p-126", "0x1.fffffcp-127", "0x1.fffffffffffffp+1023", "0x1p-1074", "0x1p-1075", "0x1.8p-1075", "0x1p+99999999999",
      "0x1p-99999999999", "0x123456789abcdef01234p0", "0x.00000000000000000001p3", "0x1.0000000000000800000000000001p0",
      "0x1.00000000000008p0", "0x1.00000000000018p0", "0x1.000001p0", "0x1.000003p0", "0x1.00000100000000000001p0", "0XAP1", "0x10",
      "1", "-1.5", "1e-05", "3.4028236e38", "1e400", "0.1", "123456789012345678", "1e-320", ".5", "inf", "-inf", "infinity"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (float_bits(texts[i], CML_F64) != bits_of_double(strtod(texts[i], NULL))) fail_msg("double %s", texts[i]);
    if (float_bits(texts[i], CML_F32) != bits_of_float(strtof(texts[i], NULL))) fail_msg("float %s", texts[i]);
  }
}

static void test_every_half_survives(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 65536; h++) {
    char text[CML_MIL_NUMBER_SIZE + 1];
    size_t n = cml_mil_number_print(text, CML_F16, h);
    text[n] = 0;
    assert_int_equal(float_bits(text, CML_F16), h);
    if ((h & 0x7fff) > 0x7c00) continue;
    char expected[64]; /* %a of the value as a double: what Apple's compiler prints */
    snprintf(expected, sizeof expected, "%a", (double)cml_f16_to_f32((cml_f16)h));
    assert_string_equal(text, expected);
    assert_int_equal(float_bits(text, CML_F32), bits_of_float(cml_f16_to_f32((cml_f16)h)));
  }
}

static uint64_t next_random(uint64_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  return *seed ^= *seed << 17;
}

static void test_random_floats_survive(void **state) {
  (void)state;
  uint64_t seed = 88172645463325252;
  for (int i = 0; i < 200000; i++) {
    uint64_t r = next_random(&seed);
    cml_dtype type = i & 1 ? CML_F32 : CML_F64;
    uint64_t bits = i & 1 ? (uint32_t)r : r;
    char text[CML_MIL_NUMBER_SIZE + 1];
    text[cml_mil_number_print(text, type, bits)] = 0;
    if (float_bits(text, type) != bits) fail_msg("%s", text);
    float f;
    memcpy(&f, &bits, 4);
    double d = i & 1 ? (double)f : 0;
    if (!(i & 1)) memcpy(&d, &bits, 8);
    if (isnan(d)) continue;
    if (bits_of_double(strtod(text, NULL)) != bits_of_double(d)) fail_msg("%s is not %a", text, d);
    if (isnormal(f) && float_bits(text, CML_F16) != cml_f16_from_f32(f) && (i & 1)) fail_msg("half of %s", text);
  }
}

static void test_integers_keep_to_their_type(void **state) {
  (void)state;
  static const struct { cml_dtype type; const char *text; bool fits; uint64_t bits; } cases[] = {
      {CML_I8, "127", true, 127}, {CML_I8, "128", false, 0}, {CML_I8, "-128", true, (uint64_t)-128}, {CML_I8, "-129", false, 0},
      {CML_U8, "255", true, 255}, {CML_U8, "256", false, 0}, {CML_U8, "-1", false, 0}, {CML_U8, "-0", true, 0},
      {CML_I4, "-8", true, (uint64_t)-8}, {CML_I4, "8", false, 0}, {CML_U1, "1", true, 1}, {CML_U1, "2", false, 0},
      {CML_U6, "63", true, 63}, {CML_U6, "64", false, 0}, {CML_I64, "-9223372036854775808", true, (uint64_t)INT64_MIN},
      {CML_I64, "9223372036854775808", false, 0}, {CML_U64, "18446744073709551615", true, UINT64_MAX},
      {CML_U64, "18446744073709551616", false, 0}, {CML_I32, "0x1F", true, 31}, {CML_I32, "2147483648", false, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint64_t bits = 0;
    bool range;
    const uint8_t *p = (const uint8_t *)cases[i].text, *end = p + strlen(cases[i].text);
    const uint8_t *stop = cml_mil_number_integer(p, end, cases[i].type, &bits, &range);
    if ((stop == end) != cases[i].fits || range != cases[i].fits || bits != cases[i].bits) fail_msg("%s", cases[i].text);
    if (!stop || p[1] == 'x' || p[1] == '0') continue;
    char text[CML_MIL_NUMBER_SIZE + 1];
    text[cml_mil_number_print(text, cases[i].type, bits)] = 0;
    assert_string_equal(text, cases[i].text);
  }
}

/* ---- constructs ---- */

#define OP(line) "program(1.3)\n{\n    func main<ios18>(tensor<fp16, [1]> x, bool p, int32 i, state<tensor<fp16, [1]>> s) {\n            " line "\n        } -> (x);\n}"
#define VAL(v) OP("int32 c = const()[val = " v "];")

static void test_constructs_come_back(void **state) {
  (void)state;
  static const char *const texts[] = {
      "program(1.3)\n{\n}",
      "program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}, {\"c\", \"\"}})]\n{\n}",
      OP("write_state(data = x, input = s)[name = string(\"w\")];"),
      OP("tensor<fp16, [1]> a, tensor<int32, [1]> b = topk(axis = int32(-1), x = x)[name = string(\"t\")];"),
      OP("tensor<fp16, [2]> c = concat(axis = int32(0), interleave = bool(false), values = (x, x));"),
      OP("tensor<fp16, [1]> c = concat(values = (x));"),
      OP("tensor<fp16, [1]> c = concat(values = ());"),
      OP("tensor<fp16, [1]> c = concat(values = (x, tensor<fp16, [1]>([0x1p+0])));"),
      OP("string string = identity(x = x);\n            string list = identity(x = string);"),
      OP("tensor<fp16, [?, ..., 3]> c = identity(x = x);"),
      OP("tensor<fp16, [...]> c = identity(x = x);"),
      OP("list<tensor<int32, [2]>, ?> c = make_list(x = x);"),
      OP("tensor<fp16, [1]> \"odd name/1\" = noop();"),
      VAL("tensor<fp16, [2, 3]>([[0x1p+0, -0x1.8p-3, nan], [inf, -inf, nan(0x1)]])"),
      VAL("tensor<fp32, [3]>([-nan, -0x0p+0, 0x1.77540ap-4])"),
      VAL("tensor<fp64, [1]>([0x1.5555555555555p-2])"),
      VAL("bf16(0x1.8p+0)"),
      VAL("tensor<int4, [5]>([-8, 7, 0, -1, 3])"),
      VAL("tensor<uint6, [2, 2]>([[63, 0], [33, 1]])"),
      VAL("tensor<uint3, [6]>([7, 0, 5, 2, 1, 6])"),
      VAL("tensor<bool, [2]>([true, false])"),
      VAL("tensor<string, [2]>([\"a, ]\", \"\\\"q\\\"\\\\ \\n\\x01 \xc3\xa9\"])"),
      VAL("tensor<fp32, [0]>([])"),
      VAL("tensor<fp32, [2, 0]>([[], []])"),
      VAL("tensor<fp32, [0, 2]>([])"),
      VAL("tensor<int32, [2, ?]>([[1, 2], [3, 4]])"),
      VAL("tensor<fp16, [4]>(BLOBFILE(path = string(\"@model_path/weights/weight.bin\"), offset = uint64(64)))"),
      VAL("tuple<>()"),
      VAL("tuple<string, tuple<int32, fp32>>((\"a\", (1, 0x1p+0)))"),
      VAL("list<string, 2>([\"a\", \"b\"])"),
      VAL("list<string, ?>([])"),
      VAL("dict<int64, list<tensor<int32, [2]>, ?>>({{-5, [[1, 2], [3, 4]]}, {6, []}})"),
      VAL("dict<string, int32>({})"),
      VAL("tensor<uint8, [4, 4]>(PACKED([1, 2]))"),
      VAL("tensor<int32, [?, ?]>(PACKED([1, 2]))"),
      VAL("tuple<string>((int32(5)))"), /* an item that is not of the container's type */
      OP("tensor<fp16, [1]> y = cond(pred = p)[name = string(\"c\")] {\n                tensor<fp16, [1]> a = relu(x = x);\n            } -> (a) {\n            } -> (x);"),
      OP("int32 i_out, tensor<fp16, [1]> y = while_loop(loop_vars = (i, x)) (int32 i_1, tensor<fp16, [1]> x_1) {\n            } -> (p) (int32 i_2, tensor<fp16, [1]> x_2) {\n            } -> (i_2, x_2);"),
      "program(1.3)\n{\n    func main<ios18>(state<tensor<fp16, [1, 4]>> k, tensor<fp16, [1]> x) [A = tuple<>()] {\n        } -> (x) [b = int32(1)];\n"
      "    func main<ios16>(state<tensor<fp16, [1, 4]>> k, tensor<fp16, [1]> x) [A = tuple<>()] {\n        } -> (x);\n"
      "    func other<CoreML99>() (int32 inner) {\n        } -> ();\n}",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    cml_buffer out;
    cml_error e;
    if (mil_round_trip(cml_span_text(texts[i]), &out, &e)) fail_msg("%s\n%s", e.text, texts[i]);
    assert_same_text(cml_span_text(texts[i]), cml_buffer_span(&out), texts[i]);
    cml_buffer_free(&out);
  }
}

/* Written by hand: other dialect's words, comments, parentheses, either name of an opset. */
static void test_lenient_forms_are_normalized(void **state) {
  (void)state;
  const char *text =
      "program(1)\n// a comment\n{ func main<CoreML8>(tensor<fp16,[1]> x) {\n (tensor<fp16, [1]> a, tensor<string, []> b)=split(axis=tensor<int32,[]>(1),x=x)\n"
      "  [name=tensor<string,[]>(\"s\")]; # another\n int32 c = const()[val = int32(0x10)]; fp32 d = const()[val = fp32(1.5)];"
      " int32 e = cond(p = c) body0 { } -> (c), body1 { } -> (c) [name = string(\"k\")];\n } -> (a); } ";
  const char *expected =
      "program(1.3)\n{\n    func main<ios18>(tensor<fp16, [1]> x) {\n            tensor<fp16, [1]> a, string b = split(axis = int32(1), x = x)[name = string(\"s\")];\n"
      "            int32 c = const()[val = int32(16)];\n            fp32 d = const()[val = fp32(0x1.8p+0)];\n"
      "            int32 e = cond(p = c)[name = string(\"k\")] {\n            } -> (c) {\n            } -> (c);\n        } -> (a);\n}";
  cml_buffer out;
  assert_ok(mil_round_trip(cml_span_text(text), &out, err));
  assert_same_text(cml_span_text(expected), cml_buffer_span(&out), "normalized");
  cml_buffer_free(&out);
}

/* What stands where in the IR. */
static void test_the_ir_holds_what_the_text_says(void **state) {
  (void)state;
  const char *text = VAL("tensor<uint4, [3]>([1, 2, 15])");
  cml_arena arena = CML_ARENA_INIT;
  cml_mil_program *program;
  assert_ok(cml_mil_parse_text(cml_span_text(text), &arena, &program, err));
  assert_int_equal(program->version, 1);
  assert_string_equal(program->functions[0]->opset, "CoreML8");
  assert_string_equal(program->functions[0]->inputs[0].name, "x");
  cml_mil_block *body = program->functions[0]->specializations[0].block;
  assert_string_equal(body->outputs[0], "x");
  assert_int_equal(body->ops[0]->source_offset, strstr(text, "int32 c") - text);
  const cml_mil_value *value = body->ops[0]->attributes.items[0].value;
  assert_int_equal(value->count, 3);
  assert_int_equal(value->data.size, 2);
  assert_int_equal(value->data.data[0], 0x21); /* low bits first */
  assert_int_equal(value->data.data[1], 0x0f);
  cml_arena_free(&arena);
}

/* ---- errors ---- */

static void test_errors_say_where_and_what(void **state) {
  (void)state;
  static const struct { const char *text, *says; } cases[] = {
      {"", "line 1, column 1: expected \"program(1.0)\""},
      {"program(2.0)\n{}", "line 1, column 9: version 2"},
      {"program(1.3)\n{\n  func f<ios16>(int32 x) {\n    int32 y = add(x = x)\n  } -> (y);\n}", "line 5, column 3: expected \";\", found \"}\""},
      {"program(1.3)\n{\n  fun", "line 3, column 3: expected \"func\" or \"}\", found \"fun\""},
      {OP("tensor<fp17, [1]> a = relu(x = x);"), "line 4, column 20: expected an element type"},
      {OP("tensor<fp16, [1.5]> a = relu(x = x);"), "expected \",\" or \"]\" in a shape"},
      {VAL("tensor<int32, [2]>([1, 2, 3])"), "dimension 0 has 3 elements, expected 2"},
      {VAL("tensor<int32, [2, 2]>([[1, 2], [3]])"), "dimension 1 has 1 elements, expected 2"},
      {VAL("tensor<int32, [2]>([1, x])"), "expected an integer, found \"x\""},
      {VAL("tensor<int8, [1]>([300])"), "a number does not fit int8"},
      {VAL("int32(1, 2)"), "expected \")\""},
      {VAL("string(\"abc)"), "a string does not end"},
      {VAL("string(\"a\\q\")"), "unknown escape \\q"},
      {VAL("tuple<int32>((1, 2))"), "more values than the tuple has types (1)"},
      {VAL("state<int32>(1)"), "a state has no literal value"},
      {VAL("fp32(BLOBFILE(path = string(\"a\")))"), "expected \",\""},
      {VAL("fp32(BLOBFILE(path = string(\"a\"), path = string(\"a\")))"), "both path and offset"},
      {VAL("fp32(BLOBFILE(path = int32(1), offset = uint64(1)))"), "a BLOBFILE's path must be one string"},
      {"program(1.3)\n{\n} x", "line 3, column 3: expected the end of the text"},
      {"program(1.3)\n{\nfunc f<a>() {} -> ();\nfunc f<a>() {} -> ();}", "function f is defined twice for opset a"},
      {OP("tensor<fp16, [1]> a = relu(x = y);"), "line 4, column 13: function main: operation a (relu): the name y is used, but not defined before"},
      {OP("bool p = relu(x = x);"), "the name p is defined twice"},
      {OP("bool q = relu(x = x, x = x);"), "line 4, column 13: function main: operation q (relu): x is given twice"},
      {"program(1.3)\n[\xc3\xa9", "line 2, column 2: expected an attribute's name"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cml_buffer out;
    cml_error e = {0};
    if (!mil_round_trip(cml_span_text(cases[i].text), &out, &e)) fail_msg("accepted: %s", cases[i].text);
    if (!strstr(e.text, cases[i].says)) fail_msg("%s\n%s", e.text, cases[i].text);
    assert_true(e.offset <= strlen(cases[i].text));
    cml_buffer_free(&out);
  }
}

static void repeat(cml_buffer *b, const char *text, int n) {
  for (int i = 0; i < n; i++) cml_buffer_text(b, text);
}

static void test_depth_is_bounded(void **state) {
  (void)state;
  static const char *const open[] = {"program(1.3)[a = tuple<", "program(1.3){func f<a>(){c=d(){", "program(1.3)[a = tensor<fp32, [...]>(["};
  static const char *const unit[] = {"tuple<", "c(){", "["};
  for (size_t i = 0; i < 3; i++) {
    cml_buffer text = CML_BUFFER_INIT, out;
    cml_error e;
    cml_buffer_text(&text, open[i]);
    repeat(&text, unit[i], 100000);
    assert_int_not_equal(mil_round_trip(cml_buffer_span(&text), &out, &e), CML_OK);
    cml_buffer_free(&text);
    cml_buffer_free(&out);
  }
}

/* ---- files ---- */

static int open_corpus(glob_t *found) {
  char pattern[4096];
  const char *source = getenv("CML_SOURCE");
  snprintf(pattern, sizeof pattern, "%s/../shared/corpus/*/*/model.mil", source ? source : ".");
  return glob(pattern, 0, NULL, found);
}

static void test_the_corpus_comes_back(void **state) {
  (void)state;
  glob_t found;
  if (open_corpus(&found)) {
    print_message("no ../shared/corpus here\n");
    skip();
  }
  assert_true(found.gl_pathc >= 6);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    cml_mapping *mapping;
    cml_buffer out;
    assert_ok(cml_mapping_open(found.gl_pathv[i], &mapping, err));
    assert_ok(mil_round_trip(cml_mapping_span(mapping), &out, err));
    assert_same_text(cml_mapping_span(mapping), cml_buffer_span(&out), found.gl_pathv[i]);
    cml_buffer_free(&out);
    cml_mapping_unref(mapping);
  }
  globfree(&found);
}

/* Cut anywhere: an error, never a program (the last brace is needed), and the offset within. */
static void test_cut_files_are_refused(void **state) {
  (void)state;
  glob_t found;
  if (open_corpus(&found)) {
    print_message("no ../shared/corpus here\n");
    skip();
  }
  for (size_t i = 0; i < found.gl_pathc; i++) {
    cml_mapping *mapping;
    assert_ok(cml_mapping_open(found.gl_pathv[i], &mapping, err));
    cml_span text = cml_mapping_span(mapping);
    for (size_t cut = 0; cut < text.size - 2; cut += 1 + text.size / 256) {
      cml_buffer out;
      cml_error e;
      assert_int_not_equal(mil_round_trip((cml_span){text.data, cut}, &out, &e), CML_OK);
      assert_true(e.offset <= cut);
      cml_buffer_free(&out);
    }
    cml_mapping_unref(mapping);
  }
  globfree(&found);
}

/* Random bytes overwritten: an error, or a program whose text is read again to the same text. */
static void test_changed_files_are_read_or_refused(void **state) {
  (void)state;
  static const char bytes[] = "0123456789abcxp.-+[](){}<>=,;\"\\?_ \n\x80";
  glob_t found;
  if (open_corpus(&found)) {
    print_message("no ../shared/corpus here\n");
    skip();
  }
  uint64_t seed = 42;
  for (size_t i = 0; i < found.gl_pathc; i++) {
    cml_mapping *mapping;
    assert_ok(cml_mapping_open(found.gl_pathv[i], &mapping, err));
    cml_span text = cml_mapping_span(mapping);
    uint8_t *copy = malloc(text.size);
    for (int round = 0; round < (text.size > 50000 ? 100 : 2000); round++) {
      memcpy(copy, text.data, text.size);
      for (int k = 0; k < 3; k++) copy[next_random(&seed) % text.size] = (uint8_t)bytes[next_random(&seed) % (sizeof bytes - 1)];
      cml_buffer out, again;
      if (!mil_round_trip((cml_span){copy, text.size}, &out, NULL)) {
        assert_ok(mil_round_trip(cml_buffer_span(&out), &again, err));
        assert_same_text(cml_buffer_span(&out), cml_buffer_span(&again), "printed twice");
        cml_buffer_free(&again);
      }
      cml_buffer_free(&out);
    }
    free(copy);
    cml_mapping_unref(mapping);
  }
  globfree(&found);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_floats_as_the_c_library_reads_them),
      cmocka_unit_test(test_every_half_survives),
      cmocka_unit_test(test_random_floats_survive),
      cmocka_unit_test(test_integers_keep_to_their_type),
      cmocka_unit_test(test_constructs_come_back),
      cmocka_unit_test(test_lenient_forms_are_normalized),
      cmocka_unit_test(test_the_ir_holds_what_the_text_says),
      cmocka_unit_test(test_errors_say_where_and_what),
      cmocka_unit_test(test_depth_is_bounded),
      cmocka_unit_test(test_the_corpus_comes_back),
      cmocka_unit_test(test_cut_files_are_refused),
      cmocka_unit_test(test_changed_files_are_read_or_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
