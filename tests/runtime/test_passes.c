/* Graph passes: programs in .mil text run with and without them and give the same values, and each pass makes the steps that it
 * is there for. */
#include "test.h"

#include <math.h>

#include "buffer.h"
#include "executable.h"
#include "exec_graph.h"
#include "kernels.h"
#include "passes.h"
#include "program_text.h"
#include "random_numbers.h"

/* ---- programs as text; constants are random ---- */

static const char *type; /* fp32, fp16 */

static void start(const char *input_shape) {
  used = 0;
  put("program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{\"a\", \"b\"}})]\n{\n  func main<ios16>(tensor<%s, %s> x) {\n", type, input_shape);
}
static void finish(const char *output) { put("  } -> (%s);\n}\n", output); }
static void nested(const int64_t *dims, int32_t rank) {
  if (!rank) {
    put("%.4f", (double)uniform() * 0.3);
    return;
  }
  put("[");
  for (int64_t i = 0; i < dims[0]; i++) {
    if (i) put(", ");
    nested(dims + 1, rank - 1);
  }
  put("]");
}
static void constant(const char *name, const char *shape) {
  int64_t dims[5];
  int32_t rank = 0;
  for (const char *p = shape + 1; *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : "") dims[rank++] = strtol(p, NULL, 10);
  put("tensor<%s, %s> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<%s, %s>(", type, shape, name, name, type, shape);
  nested(dims, rank);
  put(")];\n");
}
static void scalar(const char *name, double value) {
  put("tensor<%s, []> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<%s, []>(%.6f)];\n", type, name, name, type, value);
}
static void ints(const char *name, const char *dims, const char *values) {
  put("tensor<int32, %s> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<int32, %s>(%s)];\n", dims, name, name, dims, values);
}
static void flag(const char *name, const char *value) {
  put("tensor<bool, []> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<bool, []>(%s)];\n", name, name, value);
}
static void word(const char *name, const char *value) {
  put("tensor<string, []> %s = const()[name = tensor<string, []>(\"%s\"), val = tensor<string, []>(\"%s\")];\n", name, name, value);
}
static void op(const char *dims, const char *name, const char *call) {
  put("tensor<%s, %s> %s = %s[name = tensor<string, []>(\"%s\")];\n", type, dims, name, call, name);
}

static void condition(const char *dims, const char *name, const char *call) {
  put("tensor<bool, %s> %s = %s[name = tensor<string, []>(\"%s\")];\n", dims, name, call, name);
}

/* ---- running ---- */

static const char *must_lack; /* an operator that the passes take away, or NULL */
static bool exact;            /* the passes change no bit */
static size_t steps_wanted;   /* of must_have, exactly; 0: one or more */
static size_t threads = 2;    /* of a run */
static size_t spaced;         /* at least so many values that the passes leave lie with their rows apart in a whole, which are looked at, */
static size_t spaced_least;   /* or are not */

/* The parts that an observer saw, behind one another as the joined value has them, must be that value. */
typedef struct seen {
  float parts[5][1 << 14], whole[1 << 16];
  int64_t channels[5];
  size_t count;
} seen;

static void see(void *context, const char *op_type, const char *name, uint64_t begin, uint64_t end, const cml_tensor *const *in, size_t in_count,
                const cml_tensor *const *out, size_t out_count) {
  seen *s = context;
  const cml_tensor *t = out_count ? out[0] : NULL;
  (void)op_type, (void)begin, (void)end, (void)in, (void)in_count;
  if (!strncmp(name, "part", 4)) {
    cml_convert(s->parts[name[4] - '0'], CML_F32, t->data, t->dtype, cml_tensor_count(t));
    s->channels[name[4] - '0'] = t->dims[t->rank - 1];
    s->count++;
  }
  if (!strcmp(name, "whole")) cml_convert(s->whole, CML_F32, t->data, t->dtype, cml_tensor_count(t));
}

static void parts_make_the_whole(const seen *s, int64_t pixels) {
  const float *w = s->whole;
  assert_int_equal(s->count, 5);
  for (int64_t i = 0; i < pixels; i++)
    for (size_t k = 0; k < 5; w += s->channels[k++]) assert_memory_equal(w, s->parts[k] + i * s->channels[k], (size_t)s->channels[k] * 4);
}

static float *run(const char *passes, const float *x, size_t n, const int64_t *dims, int32_t rank, const char *must_have, size_t *out_count) {
  cml_model *model = calloc(1, sizeof *model);
  assert_ok(cml_mil_parse_text(cml_span_of(text, used), &model->arena, &model->program, err));
  cml_executable *e;
  cml_session *s;
  assert_ok(cml_executable_prepare(model, &(cml_prepare_options){.passes = passes, .threads = threads}, &e, err));
  const cml_variant *v = e->preferred;
  const cml_graph_block *body = &v->graph.body;
  size_t count = 0;
  for (size_t i = 0; must_have && i < body->step_count; i++) count += !strcmp(body->steps[i].op->name, must_have);
  for (size_t i = 0; must_have && must_lack && i < body->step_count; i++)
    if (!strcmp(body->steps[i].op->name, must_lack)) fail_msg("%s is still there with passes '%s'", must_lack, passes ? passes : "(all)");
  size_t apart = 0;
  for (size_t i = 0; v->plan && i < v->graph.value_count; i++) apart += v->plan->types[i].row != 0;
  if (must_have && apart < spaced + spaced_least) fail_msg("%zu values with their rows apart with passes '%s'", apart, passes ? passes : "(all)");
  if (must_have && (steps_wanted ? count != steps_wanted : !count)) fail_msg("%zu %s with passes '%s'", count, must_have, passes ? passes : "(all)");
  cml_tensor in = {.dtype = CML_F32, .rank = rank, .data = (void *)(uintptr_t)x};
  memcpy(in.dims, dims, (size_t)rank * sizeof *dims);
  (void)n;
  assert_ok(cml_session_create(e, &s, err));
  assert_ok(cml_session_set_input(s, "x", &in, err));
  static seen eyes;
  eyes.count = 0;
  if (must_have && spaced) cml_session_observe(s, see, &eyes, true);
  assert_ok(cml_session_run(s, err));
  if (must_have && spaced) parts_make_the_whole(&eyes, dims[0] * dims[2] * dims[3]);
  const cml_tensor *y = cml_session_output(s, 0);
  *out_count = (size_t)cml_tensor_count(y);
  float *copy = malloc(*out_count * sizeof *copy);
  cml_convert(copy, CML_F32, y->data, y->dtype, (int64_t)*out_count);
  cml_session_destroy(s);
  cml_executable_unref(e);
  cml_arena_free(&model->arena);
  free(model);
  return copy;
}

static void same_with_and_without(const int64_t *dims, int32_t rank, const char *pass, const char *must_have) {
  size_t n = 1, a_count, b_count;
  for (int32_t i = 0; i < rank; i++) n *= (size_t)dims[i];
  float *x = malloc(n * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = uniform();
  float *want = run("", x, n, dims, rank, NULL, &a_count);
  const char *const lists[] = {NULL, pass};
  for (size_t l = 0; l < 2; l++) {
    float *got = run(lists[l], x, n, dims, rank, must_have, &b_count);
    assert_int_equal(a_count, b_count);
    double signal = 0, noise = 0;
    for (size_t i = 0; i < a_count; i++) {
      assert_true(isfinite(got[i]));
      signal += (double)want[i] * (double)want[i], noise += (double)(want[i] - got[i]) * (double)(want[i] - got[i]);
    }
    if (exact && memcmp(want, got, a_count * sizeof *got)) fail_msg("passes change bits of %s", type);
    double snr = noise == 0 ? 300 : 10 * log10(signal / noise);
    if (snr < (!strcmp(type, "fp32") ? 110 : 50)) fail_msg("passes change the result: %.1f dB of %s", snr, type);
    threads = 1;
    float *alone = l ? NULL : run(lists[l], x, n, dims, rank, NULL, &b_count);
    threads = 2;
    if (alone && memcmp(got, alone, a_count * sizeof *got)) fail_msg("threads change bits of %s", type);
    free(alone);
    free(got);
  }
  free(want);
  free(x);
}

static void each_type(void (*test)(void)) {
  const cml_kernels *k;
  for (size_t i = 0; (k = cml_kernels_at(i)); i++) {
    assert_ok(cml_kernels_use(k->name, err));
    type = "fp32";
    test();
    type = "fp16";
    test();
  }
  assert_ok(cml_kernels_use(NULL, err));
}

/* ---- programs ---- */

static void convolutions(void) {
  start("[2, 3, 18, 22]");
  word("custom", "custom");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("two", "[2]", "[2, 2]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("axis", "[]", "1");
  flag("no", "false");
  flag("yes", "true");
  ints("axes", "[2]", "[2, -1]");
  scalar("zero", 0);
  scalar("six", 0.8);
  constant("w1", "[32, 3, 3, 3]");
  constant("b1", "[32]");
  constant("w2", "[32, 32, 3, 3]");
  constant("w3", "[32, 1, 3, 3]");
  ints("groups", "[]", "32");
  constant("per", "[1, 32, 1, 1]");
  op("[2, 32, 18, 22]", "c1", "conv(x = x, weight = w1, bias = b1, pad = pad1, pad_type = custom, strides = one)");
  op("[2, 32, 18, 22]", "r1", "relu(x = c1)");
  op("[2, 32, 18, 22]", "c2", "conv(x = r1, weight = w2, bias = b1, pad = pad1, pad_type = custom, strides = one)");
  op("[2, 32, 18, 22]", "sum", "add(x = r1, y = c2)");
  op("[2, 32, 18, 22]", "r2", "silu(x = sum)");
  op("[2, 32, 18, 22]", "c3", "conv(x = r2, weight = w3, pad = pad1, pad_type = custom, strides = one, groups = groups)");
  op("[2, 32, 18, 22]", "r3", "clip(x = c3, alpha = zero, beta = six)");
  op("[2, 32, 1, 1]", "mean", "reduce_mean(x = r3, axes = axes, keep_dims = yes)");
  op("[2, 32, 1, 1]", "gate", "sigmoid(x = mean)");
  op("[2, 32, 18, 22]", "gated", "mul(x = r3, y = gate)");
  op("[2, 32, 18, 22]", "scaled", "mul(x = gated, y = per)");
  put("tensor<%s, [2, 64, 18, 22]> both = concat(values = (scaled, r1), axis = axis, interleave = no)[name = tensor<string, []>(\"both\")];\n", type);
  op("[2, 64, 9, 11]", "pooled", "max_pool(x = both, kernel_sizes = two, strides = two, pad_type = valid, ceil_mode = no)");
  op("[2, 64, 8, 10]", "average", "avg_pool(x = pooled, kernel_sizes = two, strides = one, pad_type = valid, ceil_mode = no, exclude_padding_from_average = no)");
  finish("average");
  same_with_and_without((const int64_t[]){2, 3, 18, 22}, 4, "epilogues,layout", "cml_conv");
}

/* What is computed of each element alone leaves the channels last: functions, comparisons, logic and choices. */
static void elements(void) {
  start("[2, 3, 9, 14]");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("axes", "[2]", "[2, 3]");
  flag("no", "false");
  scalar("zero", 0);
  scalar("low", -0.75);
  constant("w", "[20, 3, 3, 3]");
  constant("per", "[1, 20, 1, 1]");
  op("[2, 20, 7, 12]", "c", "conv(x = x, weight = w, pad_type = valid, strides = one)");
  op("[2, 20, 7, 12]", "s", "sin(x = c)");
  op("[2, 20, 7, 12]", "m", "mul(x = s, y = s)");
  put("tensor<bool, [2, 20, 7, 12]> g = greater(x = m, y = zero)[name = tensor<string, []>(\"g\")];\n");
  put("tensor<bool, [2, 20, 7, 12]> l = less_equal(x = c, y = low)[name = tensor<string, []>(\"l\")];\n");
  put("tensor<bool, [2, 20, 7, 12]> n = logical_not(x = l)[name = tensor<string, []>(\"n\")];\n");
  put("tensor<bool, [2, 20, 7, 12]> b = logical_and(x = g, y = n)[name = tensor<string, []>(\"b\")];\n");
  op("[2, 20, 7, 12]", "t", "select(cond = b, a = c, b = low)"); /* continuous where c is low */
  op("[2, 20, 7, 12]", "u", "select(cond = n, a = t, b = per)");
  op("[2, 20]", "y", "reduce_mean(x = t, axes = axes, keep_dims = no)");
  op("[2, 20]", "z", "reduce_max(x = u, axes = axes, keep_dims = no)");
  op("[2, 20]", "both", "add(x = y, y = z)");
  finish("both");
  must_lack = "cml_to_first";
  same_with_and_without((const int64_t[]){2, 3, 9, 14}, 4, "epilogues,layout", "cml_conv");
  must_lack = NULL;
}

/* Large convolutions whose results nothing but planes are made of: along one dimension with many outputs, with strides and a function behind, of single
 * pixels; and one that stays as it is for Winograd's tiles, as all do in float16. */
static void planes(void) {
  static const struct { const char *x, *pad, *strides, *weight, *y, *after; int64_t dims[4]; } kinds[] = {
      {"[2, 1, 1400]", "[3, 2]", "[5]", "[520, 1, 10]", "[2, 520, 280]", "relu(x = c)", {2, 1, 1400}},
      {"[2, 9, 83, 91]", "[0, 0, 0, 0]", "[1, 2]", "[37, 9, 3, 3]", "[2, 37, 81, 45]", "silu(x = c)", {2, 9, 83, 91}},
      {"[2, 9, 83, 91]", "[0, 0, 0, 0]", "[1, 1]", "[37, 9, 1, 1]", "[2, 37, 83, 91]", "relu(x = c)", {2, 9, 83, 91}},
      {"[2, 9, 83, 91]", "[1, 1, 1, 1]", "[1, 1]", "[37, 9, 3, 3]", "[2, 37, 83, 91]", "relu(x = c)", {2, 9, 83, 91}},
  };
  for (size_t i = 0; i < 4; i++) {
    start(kinds[i].x);
    word("custom", "custom");
    ints("strides", i ? "[2]" : "[1]", kinds[i].strides);
    ints("pad", i ? "[4]" : "[2]", kinds[i].pad);
    constant("w", kinds[i].weight);
    constant("b", i ? "[37]" : "[520]");
    op(kinds[i].y, "c", "conv(x = x, weight = w, bias = b, pad = pad, pad_type = custom, strides = strides)");
    op(kinds[i].y, "r", kinds[i].after);
    finish("r");
    bool stays = i == 3 || !strcmp(type, "fp16");
    must_lack = stays ? NULL : "cml_to_first";
    same_with_and_without(kinds[i].dims, i ? 4 : 3, "epilogues,layout", stays ? "cml_to_first" : "cml_conv");
    must_lack = NULL;
  }
}

/* Depthwise convolutions behind those of single pixels, whose image between is larger than what a thread holds of it: strides, dilation,
 * padding on some sides, channels that fill no panel, activations, a residual behind; and one whose image is wanted elsewhere too. */
static void pairs(void) {
  start("[2, 5, 46, 61]");
  word("custom", "custom");
  word("same", "same");
  ints("one", "[2]", "[1, 1]");
  ints("two", "[2]", "[2, 2]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("side", "[4]", "[0, 3, 4, 0]");
  ints("groups40", "[]", "40");
  ints("groups72", "[]", "72");
  scalar("zero", 0);
  scalar("six", 0.8);
  constant("w1", "[40, 5, 1, 1]");
  constant("b1", "[40]");
  constant("w2", "[40, 1, 3, 3]");
  constant("w3", "[72, 40, 1, 1]");
  constant("w4", "[72, 1, 4, 5]");
  constant("b4", "[72]");
  constant("w5", "[72, 72, 1, 1]");
  constant("w6", "[72, 1, 3, 2]");
  constant("w7", "[72, 1, 1, 1]");
  op("[2, 40, 46, 61]", "c1", "conv(x = x, weight = w1, bias = b1, pad_type = same, strides = one)");
  op("[2, 40, 46, 61]", "r1", "silu(x = c1)");
  op("[2, 40, 46, 61]", "c2", "conv(x = r1, weight = w2, pad = pad1, pad_type = custom, strides = one, groups = groups40)");
  op("[2, 40, 46, 61]", "r2", "silu(x = c2)");
  op("[2, 72, 46, 61]", "c3", "conv(x = r2, weight = w3, pad_type = same, strides = one)");
  op("[2, 72, 46, 61]", "r3", "clip(x = c3, alpha = zero, beta = six)");
  op("[2, 72, 23, 31]", "c4", "conv(x = r3, weight = w4, bias = b4, pad = side, pad_type = custom, strides = two, groups = groups72)");
  op("[2, 72, 23, 31]", "c5", "conv(x = c4, weight = w5, pad_type = same, strides = one)");
  op("[2, 72, 23, 31]", "c6", "conv(x = c5, weight = w6, pad_type = same, strides = one, dilations = two, groups = groups72)");
  op("[2, 72, 23, 31]", "sum", "add(x = c6, y = c4)");
  op("[2, 72, 23, 31]", "r6", "relu(x = sum)");
  op("[2, 72, 23, 31]", "c7", "conv(x = r6, weight = w5, bias = b4, pad_type = same, strides = one)"); /* not this one */
  op("[2, 72, 23, 31]", "c8", "conv(x = c7, weight = w7, pad_type = same, strides = one, groups = groups72)");
  op("[2, 72, 23, 31]", "y", "mul(x = c8, y = c7)");
  finish("y");
  steps_wanted = 3;
  same_with_and_without((const int64_t[]){2, 5, 46, 61}, 4, "epilogues,layout,pairs", "cml_conv_pair");
  steps_wanted = 0;
}

/* Each way of computing a convolution writes its channels between those of the others: pointwise, Winograd, depthwise, transposed; so
 * does pooling. */
static void joined(void) {
  start("[2, 16, 10, 12]");
  word("custom", "custom");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("three", "[2]", "[3, 3]");
  ints("groups", "[]", "16");
  ints("axis", "[]", "1");
  flag("no", "false");
  constant("w0", "[5, 16, 1, 1]");
  constant("w1", "[32, 16, 3, 3]");
  constant("w2", "[16, 1, 3, 3]");
  constant("w3", "[16, 7, 1, 1]");
  constant("b1", "[32]");
  op("[2, 5, 10, 12]", "part0", "conv(x = x, weight = w0, pad_type = valid)");
  op("[2, 32, 10, 12]", "part1", "conv(x = x, weight = w1, bias = b1, pad = pad1, pad_type = custom, strides = one)");
  op("[2, 32, 10, 12]", "s1", "silu(x = part1)"); /* joins the step before it, which keeps its name */
  op("[2, 16, 10, 12]", "part2", "conv(x = x, weight = w2, pad = pad1, pad_type = custom, strides = one, groups = groups)");
  op("[2, 7, 10, 12]", "part3", "conv_transpose(x = x, weight = w3, pad_type = valid, strides = one)");
  op("[2, 16, 10, 12]", "part4", "max_pool(x = x, kernel_sizes = three, strides = one, pad_type = custom, pad = pad1, ceil_mode = no)");
  put("tensor<%s, [2, 76, 10, 12]> whole = concat(values = (part0, s1, part2, part3, part4), axis = axis, interleave = no)"
      "[name = tensor<string, []>(\"whole\")];\n", type);
  op("[2, 76, 10, 12]", "y", "sigmoid(x = whole)");
  ints("reps", "[4]", "[1, 32, 1, 1]"); /* so much memory that the whole may be there early */
  op("[2, 2432, 10, 12]", "z", "tile(x = y, reps = reps)");
  finish("z");
  spaced = 5;
  same_with_and_without((const int64_t[]){2, 16, 10, 12}, 4, "epilogues,layout,parts", "cml_conv");
  spaced = 0;
}

/* Channels that are cut, read where they lie, joined, and joined again with more. */
static void rows_apart(void) {
  start("[2, 16, 10, 12]");
  word("custom", "custom");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("groups", "[]", "12");
  ints("axis", "[]", "1");
  ints("sizes", "[3]", "[8, 20, 12]");
  flag("no", "false");
  constant("w0", "[40, 16, 3, 3]");
  constant("w1", "[9, 20, 1, 1]");
  constant("w2", "[12, 1, 3, 3]");
  constant("w3", "[24, 29, 3, 3]");
  constant("w4", "[17, 69, 1, 1]");
  constant("shift", "[1, 29, 1, 1]");
  op("[2, 40, 10, 12]", "c", "conv(x = x, weight = w0, pad = pad1, pad_type = custom, strides = one)");
  put("tensor<%s, [2, 8, 10, 12]> p0, tensor<%s, [2, 20, 10, 12]> p1, tensor<%s, [2, 12, 10, 12]> p2 = split(x = c, split_sizes = sizes, axis = axis)"
      "[name = tensor<string, []>(\"p\")];\n", type, type, type);
  op("[2, 8, 10, 12]", "s0", "sigmoid(x = p0)");
  op("[2, 8, 10, 12]", "m0", "mul(x = p0, y = s0)");
  op("[2, 8, 10, 12]", "a0", "sub(x = m0, y = p0)");
  op("[2, 9, 10, 12]", "q1", "conv(x = p1, weight = w1, pad_type = valid)");
  op("[2, 12, 10, 12]", "d2", "conv(x = p2, weight = w2, pad = pad1, pad_type = custom, strides = one, groups = groups)");
  op("[2, 29, 10, 12]", "j1", "concat(values = (a0, q1, d2), axis = axis, interleave = no)");
  op("[2, 29, 10, 12]", "n1", "add(x = j1, y = shift)");
  op("[2, 24, 10, 12]", "c1", "conv(x = n1, weight = w3, pad = pad1, pad_type = custom, strides = one)");
  op("[2, 53, 10, 12]", "j2", "concat(values = (a0, q1, d2, c1), axis = axis, interleave = no)");
  op("[2, 53, 10, 12]", "n2", "tanh(x = j2)");
  op("[2, 69, 10, 12]", "j3", "concat(values = (n2, x), axis = axis, interleave = no)");
  op("[2, 17, 10, 12]", "y", "conv(x = j3, weight = w4, pad_type = valid)");
  ints("reps", "[4]", "[1, 64, 1, 1]"); /* so much memory that wholes may be there early */
  op("[2, 1088, 10, 12]", "z", "tile(x = y, reps = reps)");
  finish("z");
  spaced_least = 8;
  same_with_and_without((const int64_t[]){2, 16, 10, 12}, 4, "epilogues,layout,joins,chains,parts", "cml_conv");
  spaced_least = 0;
}

/* A single channel of many, by a factor for each image: its elements are a row of the whole apart. */
static void single_channel_apart(void) {
  start("[2, 16, 10, 12]");
  word("custom", "custom");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("axis", "[]", "1");
  ints("space", "[2]", "[2, 3]");
  flag("yes", "true");
  flag("no", "false");
  constant("w", "[40, 16, 3, 3]");
  constant("w0", "[1, 40, 1, 1]");
  constant("w1", "[15, 40, 3, 3]");
  op("[2, 40, 10, 12]", "c", "conv(x = x, weight = w, pad = pad1, pad_type = custom, strides = one)");
  op("[2, 1, 10, 12]", "c0", "conv(x = c, weight = w0, pad_type = valid)");
  op("[2, 1, 1, 1]", "mean", "reduce_mean(x = c0, axes = space, keep_dims = yes)");
  op("[2, 1, 10, 12]", "m0", "mul(x = c0, y = mean)");
  op("[2, 15, 10, 12]", "c1", "conv(x = c, weight = w1, pad = pad1, pad_type = custom, strides = one)");
  op("[2, 16, 10, 12]", "j", "concat(values = (c1, m0), axis = axis, interleave = no)");
  op("[2, 16, 10, 12]", "y", "tanh(x = j)");
  ints("reps", "[4]", "[1, 64, 1, 1]"); /* so much memory that the whole may be there early */
  op("[2, 1024, 10, 12]", "z", "tile(x = y, reps = reps)");
  finish("z");
  spaced_least = 1;
  same_with_and_without((const int64_t[]){2, 16, 10, 12}, 4, "epilogues,layout,joins,chains,parts", "mul");
  spaced_least = 0;
}

/* Pools and resizing of such images. */
static void resized_rows_apart(void) {
  start("[2, 16, 10, 12]");
  word("custom", "custom");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("two", "[2]", "[2, 2]");
  ints("three", "[2]", "[3, 3]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("axis", "[]", "1");
  ints("sizes", "[4]", "[20, 24, 17, 19]");
  ints("factor", "[]", "2");
  flag("no", "false");
  flag("yes", "true");
  constant("w0", "[80, 16, 1, 1]");
  constant("w1", "[21, 80, 3, 3]");
  op("[2, 80, 10, 12]", "c", "conv(x = x, weight = w0, pad_type = valid)");
  put("tensor<%s, [2, 20, 10, 12]> p0, tensor<%s, [2, 24, 10, 12]> p1, tensor<%s, [2, 17, 10, 12]> p2, tensor<%s, [2, 19, 10, 12]> p3 = "
      "split(x = c, split_sizes = sizes, axis = axis)[name = tensor<string, []>(\"p\")];\n", type, type, type, type);
  op("[2, 20, 20, 24]", "u0", "upsample_nearest_neighbor(x = p0, scale_factor_height = factor, scale_factor_width = factor)");
  op("[2, 24, 20, 24]", "u1", "upsample_bilinear(x = p1, scale_factor_height = factor, scale_factor_width = factor, align_corners = no)");
  op("[2, 17, 10, 12]", "m2", "max_pool(x = p2, kernel_sizes = three, strides = one, pad_type = custom, pad = pad1, ceil_mode = no)");
  op("[2, 17, 20, 24]", "u2", "upsample_nearest_neighbor(x = m2, scale_factor_height = factor, scale_factor_width = factor)");
  op("[2, 19, 5, 6]", "a3", "avg_pool(x = p3, kernel_sizes = two, strides = two, pad_type = valid, exclude_padding_from_average = yes, ceil_mode = no)");
  op("[2, 19, 10, 12]", "v3", "upsample_bilinear(x = a3, scale_factor_height = factor, scale_factor_width = factor, align_corners = no)");
  op("[2, 19, 20, 24]", "u3", "upsample_nearest_neighbor(x = v3, scale_factor_height = factor, scale_factor_width = factor)");
  op("[2, 80, 20, 24]", "j", "concat(values = (u0, u1, u2, u3), axis = axis, interleave = no)");
  op("[2, 21, 18, 22]", "y", "conv(x = j, weight = w1, pad_type = valid)");
  ints("reps", "[4]", "[1, 64, 1, 1]"); /* so much memory that wholes may be there early */
  op("[2, 1344, 18, 22]", "z", "tile(x = y, reps = reps)");
  finish("z");
  spaced_least = 8;
  same_with_and_without((const int64_t[]){2, 16, 10, 12}, 4, "epilogues,layout,parts", "cml_conv");
  spaced_least = 0;
}

/* The same of rows of tokens: slices of the last dimension, linear layers, normalisations and transposes. */
static void token_rows_apart(void) {
  start("[2, 10, 24]");
  constant("w0", "[96, 24]");
  constant("w1", "[18, 32]");
  constant("w2", "[40, 92]");
  constant("gamma", "[31]");
  ints("at0", "[3]", "[0, 0, 1]");
  ints("at1", "[3]", "[0, 0, 32]");
  ints("end1", "[3]", "[2, 10, 64]");
  ints("at2", "[3]", "[0, 0, 64]");
  ints("size0", "[3]", "[2, 10, 31]");
  ints("size2", "[3]", "[-1, -1, -1]");
  ints("at3", "[3]", "[0, 0, 20]");
  ints("size3", "[3]", "[2, 10, 11]");
  ints("axes", "[1]", "[-1]");
  ints("axis", "[]", "2");
  ints("turn", "[3]", "[0, 2, 1]");
  flag("no", "false");
  put("tensor<%s, []> epsilon = const()[name = tensor<string, []>(\"epsilon\"), val = tensor<%s, []>(0x1p-10)];\n", type, type);
  op("[2, 10, 96]", "h", "linear(x = x, weight = w0)");
  op("[2, 10, 31]", "s0", "slice_by_size(x = h, begin = at0, size = size0)");
  op("[2, 10, 32]", "s1", "slice_by_index(x = h, begin = at1, end = end1)");
  op("[2, 10, 32]", "s2", "slice_by_size(x = h, begin = at2, size = size2)");
  op("[2, 10, 31]", "n", "layer_norm(x = s0, axes = axes, gamma = gamma, epsilon = epsilon)");
  op("[2, 32, 10]", "t", "transpose(x = s1, perm = turn)");
  op("[2, 32, 10]", "e", "exp(x = t)");
  op("[2, 10, 32]", "f", "transpose(x = e, perm = turn)");
  op("[2, 10, 18]", "l", "linear(x = s2, weight = w1)");
  op("[2, 10, 11]", "s3", "slice_by_size(x = s0, begin = at3, size = size3)");
  op("[2, 10, 11]", "q", "tanh(x = s3)");
  op("[2, 10, 92]", "j", "concat(values = (n, f, l, q), axis = axis, interleave = no)");
  op("[2, 10, 40]", "y", "linear(x = j, weight = w2)");
  ints("reps", "[3]", "[1, 1, 2048]"); /* so much memory that wholes may be there early */
  op("[2, 10, 81920]", "z", "tile(x = y, reps = reps)");
  finish("z");
  spaced_least = 8;
  same_with_and_without((const int64_t[]){2, 10, 24}, 3, "parts", "linear");
  spaced_least = 0;
}

/* Windows that overlap along rows longer than are pooled at once, with the channels last. */
static void overlapping(void) {
  start("[2, 8, 5, 70]");
  word("custom", "custom");
  word("valid", "valid");
  flag("yes", "true");
  flag("no", "false");
  ints("one", "[2]", "[1, 1]");
  ints("down", "[2]", "[2, 1]");
  ints("three", "[2]", "[3, 3]");
  ints("wide", "[2]", "[2, 5]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("uneven", "[4]", "[1, 0, 1, 3]");
  constant("w", "[136, 8, 1, 1]");
  op("[2, 136, 5, 70]", "c", "conv(x = x, weight = w, pad_type = valid)");
  op("[2, 136, 5, 70]", "most", "max_pool(x = c, kernel_sizes = three, strides = one, pad_type = custom, pad = pad1, ceil_mode = no)");
  op("[2, 136, 5, 70]", "mean", "avg_pool(x = most, kernel_sizes = three, strides = one, pad_type = custom, pad = pad1, ceil_mode = no, exclude_padding_from_average = yes)");
  op("[2, 136, 3, 70]", "all", "avg_pool(x = mean, kernel_sizes = wide, strides = down, pad_type = custom, pad = uneven, ceil_mode = no, exclude_padding_from_average = no)");
  finish("all");
  same_with_and_without((const int64_t[]){2, 8, 5, 70}, 4, "epilogues,layout", "cml_max_pool_last");
}

/* Images made larger, padded, repeated and cut between convolutions keep their channels last: no conversion but at the program's ends. */
static void moved(void) {
  start("[2, 3, 7, 9]");
  word("custom", "custom");
  word("valid", "valid");
  word("mirror", "reflect");
  flag("yes", "true");
  flag("no", "false");
  ints("one", "[2]", "[1, 1]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("axis", "[]", "1");
  ints("sides", "[2]", "[2, 1]");
  ints("all_sides", "[8]", "[0, 0, 1, 3, 2, 0, 0, 1]");
  ints("reps", "[4]", "[1, 2, 1, 3]");
  ints("parts", "[3]", "[9, 20, 3]");
  ints("five", "[]", "5");
  ints("twenty", "[]", "20");
  put("tensor<fp32, []> two = const()[name = tensor<string, []>(\"two\"), val = tensor<fp32, []>(2.0)];\n"
      "tensor<fp32, []> three = const()[name = tensor<string, []>(\"three\"), val = tensor<fp32, []>(3.0)];\n");
  scalar("edge", 0.25);
  constant("w0", "[12, 3, 3, 3]");
  constant("w1", "[9, 32, 1, 1]");
  op("[2, 12, 7, 9]", "c0", "conv(x = x, weight = w0, pad = pad1, pad_type = custom, strides = one)");
  op("[2, 12, 14, 27]", "u0", "upsample_bilinear(x = c0, scale_factor_height = two, scale_factor_width = three, align_corners = no)");
  op("[2, 12, 28, 54]", "u1", "upsample_bilinear(x = u0, scale_factor_height = two, scale_factor_width = two, align_corners = yes)");
  op("[2, 12, 5, 20]", "r0", "resize_bilinear(x = u1, target_size_height = five, target_size_width = twenty)");
  op("[2, 12, 10, 60]", "u2", "upsample_nearest_neighbor(x = r0, scale_factor_height = two, scale_factor_width = three)");
  op("[2, 12, 5, 20]", "r1", "resize_nearest_neighbor(x = u2, target_size_height = five, target_size_width = twenty)");
  op("[2, 12, 5, 23]", "p0", "pad(x = r1, pad = sides, mode = mirror)");
  op("[2, 16, 7, 24]", "p1", "pad(x = p0, pad = all_sides, constant_val = edge)");
  op("[2, 32, 7, 72]", "t0", "tile(x = p1, reps = reps)");
  put("tensor<%s, [2, 9, 7, 72]> s0, tensor<%s, [2, 20, 7, 72]> s1, tensor<%s, [2, 3, 7, 72]> s2 = split(x = t0, split_sizes = parts, axis = axis)"
      "[name = tensor<string, []>(\"s\")];\n", type, type, type);
  put("tensor<%s, [2, 32, 7, 72]> j0 = concat(values = (s1, s2, s0), axis = axis, interleave = no)[name = tensor<string, []>(\"j0\")];\n", type);
  op("[2, 9, 7, 72]", "c1", "conv(x = j0, weight = w1, pad_type = valid)");
  op("[2, 9, 14, 144]", "y", "upsample_bilinear(x = c1, scale_factor_height = two, scale_factor_width = two, align_corners = no)");
  finish("y");
  must_lack = "upsample_nearest_neighbor";
  same_with_and_without((const int64_t[]){2, 3, 7, 9}, 4, "epilogues,layout", "cml_upsample_bilinear_last");
  must_lack = "resize_nearest_neighbor";
  same_with_and_without((const int64_t[]){2, 3, 7, 9}, 4, "epilogues,layout", "upsample_bilinear"); /* the last one, in the program's form */
  must_lack = NULL;
}

/* Volumes whose depth is not known when weights are packed: that of one run may be 1, as if they were images. */
static void volumes(void) {
  for (int64_t several = 0; several < 2; several++) { /* outputs for each channel; else groups of four channels */
    start("[1, 3, ?, 9, 11]");
    word("custom", "custom");
    ints("pad", "[6]", "[0, 0, 1, 1, 1, 1]");
    ints("groups", "[]", several ? "8" : "2");
    constant("w1", "[8, 3, 1, 1, 1]");
    constant("w2", several ? "[16, 1, 1, 3, 3]" : "[8, 4, 1, 3, 3]");
    constant("w3", several ? "[5, 16, 1, 1, 1]" : "[5, 8, 1, 1, 1]");
    op("[1, 8, ?, 9, 11]", "c1", "conv(x = x, weight = w1)");
    op(several ? "[1, 16, ?, 9, 11]" : "[1, 8, ?, 9, 11]", "c2", "conv(x = c1, weight = w2, pad = pad, pad_type = custom, groups = groups)");
    op("[1, 5, ?, 9, 11]", "c3", "conv(x = c2, weight = w3)");
    finish("c3");
    for (int64_t depth = 1; depth < 5; depth += 3) same_with_and_without((const int64_t[]){1, 3, depth, 9, 11}, 5, "epilogues,layout", "cml_conv");
  }
}

/* Images of more tiles than one stripe of Winograd's has, Winograd's convolutions to and from few channels, and kernels so large that depthwise convolutions stage their rows. */
static void large(void) {
  start("[1, 40, 61, 46]");
  word("custom", "custom");
  ints("one", "[2]", "[1, 1]");
  ints("steps", "[2]", "[2, 1]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("pad4", "[4]", "[4, 3, 5, 4]");
  ints("groups", "[]", "36");
  constant("w0", "[36, 40, 3, 3]");
  constant("w1", "[36, 1, 9, 9]");
  constant("b1", "[36]");
  constant("w2", "[36, 1, 8, 7]");
  constant("w3", "[9, 36, 3, 3]");
  constant("b3", "[9]");
  constant("w4", "[17, 9, 3, 3]");
  constant("w5", "[8, 17, 3, 3]");
  constant("w6", "[9, 8, 3, 3]");
  op("[1, 36, 61, 46]", "c0", "conv(x = x, weight = w0, bias = b1, pad = pad1, pad_type = custom, strides = one)");
  op("[1, 36, 60, 47]", "c1", "conv(x = c0, weight = w1, bias = b1, pad = pad4, pad_type = custom, strides = one, groups = groups)");
  op("[1, 36, 60, 47]", "g1", "silu(x = c1)");
  op("[1, 36, 28, 43]", "c2", "conv(x = g1, weight = w2, pad = pad1, pad_type = custom, strides = steps, groups = groups)");
  op("[1, 9, 28, 43]", "c3", "conv(x = c2, weight = w3, bias = b3, pad = pad1, pad_type = custom, strides = one)");
  op("[1, 17, 28, 43]", "c4", "conv(x = c3, weight = w4, pad = pad1, pad_type = custom, strides = one)");
  op("[1, 8, 28, 43]", "c5", "conv(x = c4, weight = w5, pad = pad1, pad_type = custom, strides = one)");
  op("[1, 9, 28, 43]", "c6", "conv(x = c5, weight = w6, bias = b3, pad = pad1, pad_type = custom, strides = one)");
  finish("c6");
  same_with_and_without((const int64_t[]){1, 40, 61, 46}, 4, "epilogues,layout", "cml_conv");
}

/* A generator's layers: transposed convolutions alone have their channels last, too. */
static void transposed(void) {
  start("[1, 20, 5, 4]");
  word("custom", "custom");
  ints("two", "[2]", "[2, 2]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  constant("w1", "[20, 36, 4, 4]");
  constant("b1", "[36]");
  constant("w2", "[36, 3, 4, 4]");
  op("[1, 36, 10, 8]", "c1", "conv_transpose(x = x, weight = w1, bias = b1, pad = pad1, pad_type = custom, strides = two)");
  op("[1, 36, 10, 8]", "r1", "relu(x = c1)");
  op("[1, 3, 20, 16]", "c2", "conv_transpose(x = r1, weight = w2, pad = pad1, pad_type = custom, strides = two)");
  op("[1, 3, 20, 16]", "t2", "tanh(x = c2)");
  finish("t2");
  same_with_and_without((const int64_t[]){1, 20, 5, 4}, 4, "epilogues,layout", "cml_to_last");
}

/* Convolutions of one image, its norm and the image itself, summed: one convolution. */
static void sums(void) {
  start("[2, 6, 9, 7]");
  word("custom", "custom");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("two", "[2]", "[2, 2]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("pad2", "[4]", "[2, 2, 2, 2]");
  ints("tall", "[4]", "[1, 1, 0, 0]");
  ints("groups", "[]", "2");
  constant("w1", "[6, 3, 3, 3]");
  constant("w2", "[6, 3, 3, 1]");
  constant("w3", "[6, 3, 1, 1]");
  constant("w4", "[8, 6, 5, 5]");
  constant("w5", "[8, 6, 1, 1]");
  constant("b1", "[6]");
  constant("mean", "[6]");
  constant("gamma", "[6]");
  put("tensor<%s, [6]> variance = const()[name = tensor<string, []>(\"variance\"), val = tensor<%s, [6]>([0.5, 1.5, 0.25, 2.0, 1, 3])];\n", type, type);
  op("[2, 6, 9, 7]", "c1", "conv(x = x, weight = w1, pad = pad1, pad_type = custom, strides = one, groups = groups)");
  op("[2, 6, 9, 7]", "c2", "conv(x = x, weight = w2, bias = b1, pad = tall, pad_type = custom, strides = one, groups = groups)");
  op("[2, 6, 9, 7]", "c3", "conv(x = x, weight = w3, bias = b1, pad_type = valid, strides = one, groups = groups)");
  op("[2, 6, 9, 7]", "n", "batch_norm(x = x, mean = mean, variance = variance, gamma = gamma, beta = mean)");
  op("[2, 6, 9, 7]", "s1", "add(x = c3, y = c1)");
  op("[2, 6, 9, 7]", "s2", "add(x = n, y = s1)");
  op("[2, 6, 9, 7]", "s3", "add(x = x, y = c2)");
  op("[2, 6, 9, 7]", "s4", "add(x = s2, y = s3)");
  op("[2, 6, 9, 7]", "r", "relu(x = s4)");
  op("[2, 8, 5, 4]", "d1", "conv(x = r, weight = w4, pad = pad2, pad_type = custom, strides = two)");
  op("[2, 8, 5, 4]", "d2", "conv(x = r, weight = w5, pad_type = valid, strides = two)");
  op("[2, 8, 5, 4]", "d", "add(x = d1, y = d2)");
  op("[2, 8, 5, 4]", "e", "mul(x = d, y = d)");
  finish("e");
  must_lack = "batch_norm";
  same_with_and_without((const int64_t[]){2, 6, 9, 7}, 4, "sums", "mul");
  must_lack = "add";
  same_with_and_without((const int64_t[]){2, 6, 9, 7}, 4, "sums", "mul");
  must_lack = NULL;
}

/* A cross of kernels, and a sum with another image's, are no one convolution. */
static void not_sums(void) {
  start("[2, 6, 9, 7]");
  word("custom", "custom");
  ints("one", "[2]", "[1, 1]");
  ints("tall", "[4]", "[1, 1, 0, 0]");
  ints("flat", "[4]", "[0, 0, 1, 1]");
  constant("w1", "[6, 6, 3, 1]");
  constant("w2", "[6, 6, 1, 3]");
  op("[2, 6, 9, 7]", "c1", "conv(x = x, weight = w1, pad = tall, pad_type = custom, strides = one)");
  op("[2, 6, 9, 7]", "c2", "conv(x = x, weight = w2, pad = flat, pad_type = custom, strides = one)");
  op("[2, 6, 9, 7]", "s1", "add(x = c1, y = c2)");
  op("[2, 6, 9, 7]", "c3", "conv(x = s1, weight = w1, pad = tall, pad_type = custom, strides = one)");
  op("[2, 6, 9, 7]", "c4", "conv(x = x, weight = w1, pad = tall, pad_type = custom, strides = one)");
  op("[2, 6, 9, 7]", "s2", "add(x = c3, y = c4)");
  finish("s2");
  same_with_and_without((const int64_t[]){2, 6, 9, 7}, 4, "sums", NULL);
}

/* Grouped and transposed convolutions with everything behind them that scales and shifts channels. */
static void scales(void) {
  start("[2, 6, 9, 7]");
  word("custom", "custom");
  word("valid", "valid");
  ints("one", "[2]", "[1, 1]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("groups", "[]", "2");
  scalar("epsilon", 0.01);
  scalar("twice", 2);
  constant("w1", "[4, 3, 3, 3]");
  constant("w2", "[4, 3, 2, 2]");
  constant("w3", "[5, 6, 1, 1]");
  constant("b3", "[5]");
  constant("mean", "[4]");
  constant("gamma", "[4]");
  constant("beta", "[4]");
  put("tensor<%s, [4]> variance = const()[name = tensor<string, []>(\"variance\"), val = tensor<%s, [4]>([0.5, 1.5, 0.25, 2.0])];\n", type, type);
  constant("six", "[6, 1, 1]");
  constant("five", "[1, 5, 1, 1]");
  op("[2, 4, 9, 7]", "c1", "conv(x = x, weight = w1, pad = pad1, pad_type = custom, strides = one, groups = groups)");
  op("[2, 4, 9, 7]", "n1", "batch_norm(x = c1, mean = mean, variance = variance, gamma = gamma, beta = beta, epsilon = epsilon)");
  op("[2, 4, 9, 7]", "n2", "real_div(x = n1, y = twice)");
  op("[2, 6, 10, 8]", "c2", "conv_transpose(x = n2, weight = w2, pad_type = valid, strides = one, groups = groups)");
  op("[2, 6, 10, 8]", "m2", "mul(x = six, y = c2)");
  op("[2, 6, 10, 8]", "a2", "sub(x = m2, y = six)");
  op("[2, 5, 10, 8]", "c3", "conv(x = a2, weight = w3, bias = b3, pad_type = valid, strides = one)");
  op("[2, 5, 10, 8]", "a3", "add(x = five, y = c3)");
  op("[2, 5, 10, 8]", "s3", "sub(x = twice, y = a3)"); /* does not join: the constant is on the left */
  finish("s3");
  must_lack = "batch_norm";
  same_with_and_without((const int64_t[]){2, 6, 9, 7}, 4, "scales", "sub");
  must_lack = "mul";
  same_with_and_without((const int64_t[]){2, 6, 9, 7}, 4, "scales", "sub");
  must_lack = NULL;
}

static void group_norm(void) {
  start("[1, 16, 40, 30]");
  word("valid", "valid");
  ints("s5", "[5]", "[1, 4, 4, 40, 30]");
  ints("s4", "[4]", "[1, 16, 40, 30]");
  ints("axes", "[3]", "[2, 3, 4]");
  flag("yes", "true");
  scalar("epsilon", 0.001);
  constant("w", "[16, 16, 1, 1]");
  op("[1, 16, 40, 30]", "c", "conv(x = x, weight = w, pad_type = valid)");
  op("[1, 4, 4, 40, 30]", "g", "reshape(x = c, shape = s5)");
  op("[1, 4, 1, 1, 1]", "m", "reduce_mean(x = g, axes = axes, keep_dims = yes)");
  op("[1, 4, 4, 40, 30]", "d", "sub(x = g, y = m)");
  op("[1, 4, 4, 40, 30]", "q", "square(x = d)");
  op("[1, 4, 1, 1, 1]", "v", "reduce_mean(x = q, axes = axes, keep_dims = yes)");
  op("[1, 4, 1, 1, 1]", "e", "add(x = v, y = epsilon)");
  op("[1, 4, 1, 1, 1]", "r", "sqrt(x = e)");
  op("[1, 4, 4, 40, 30]", "n", "real_div(x = d, y = r)");
  op("[1, 16, 40, 30]", "f", "reshape(x = n, shape = s4)");
  op("[1, 16, 40, 30]", "y", "silu(x = f)");
  finish("y");
  same_with_and_without((const int64_t[]){1, 16, 40, 30}, 4, "group-norm", "cml_group_norm");
}

/* Written out in two ways with a mean, and in two without one, as language models have it. */
/* A norm along the channels of an image between two convolutions, as programs write it that keep channels first: it works on channels
 * that are last, with nothing put elsewhere before or after it. */
static void channel_norm(void) {
  start("[2, 6, 5, 7]");
  ints("one", "[1]", "[1]");
  ints("minus", "[1]", "[-3]");
  flag("yes", "true");
  scalar("epsilon", 0.02);
  scalar("two", 2);
  word("valid", "valid");
  constant("w1", "[19, 6, 1, 1]");
  constant("w2", "[19, 19, 1, 1]");
  constant("gamma", "[19, 1, 1]");
  constant("beta", "[1, 19, 1, 1]");
  op("[2, 19, 5, 7]", "c1", "conv(x = x, weight = w1, pad_type = valid)");
  op("[2, 1, 5, 7]", "m", "reduce_mean(x = c1, axes = one, keep_dims = yes)");
  op("[2, 19, 5, 7]", "d", "sub(x = c1, y = m)");
  op("[2, 19, 5, 7]", "s", "pow(x = d, y = two)");
  op("[2, 1, 5, 7]", "v", "reduce_mean(x = s, axes = minus, keep_dims = yes)");
  op("[2, 1, 5, 7]", "e", "add(x = v, y = epsilon)");
  op("[2, 1, 5, 7]", "r", "sqrt(x = e)");
  op("[2, 19, 5, 7]", "n", "real_div(x = d, y = r)");
  op("[2, 19, 5, 7]", "g", "mul(x = gamma, y = n)");
  op("[2, 19, 5, 7]", "b", "add(x = g, y = beta)");
  op("[2, 19, 5, 7]", "c2", "conv(x = b, weight = w2, pad_type = valid)");
  finish("c2");
  must_lack = "reduce_mean";
  same_with_and_without((const int64_t[]){2, 6, 5, 7}, 4, "layer-norm,epilogues,layout", "layer_norm");
  must_lack = NULL;
}

static void row_norms(void) {
  start("[2, 9, 48]");
  ints("last", "[1]", "[-1]");
  ints("both", "[2]", "[2, 1]");
  flag("yes", "true");
  scalar("epsilon", 0.02);
  scalar("two", 2);
  scalar("none", 0);
  constant("gamma", "[48]");
  constant("beta", "[48]");
  constant("plane", "[9, 48]");
  op("[2, 9, 1]", "m", "reduce_mean(x = x, axes = last, keep_dims = yes)");
  op("[2, 9, 48]", "d", "sub(x = x, y = m)");
  op("[2, 9, 48]", "s", "mul(x = d, y = d)");
  op("[2, 9, 1]", "v", "reduce_mean(x = s, axes = last, keep_dims = yes)");
  op("[2, 9, 1]", "e", "add(x = epsilon, y = v)");
  op("[2, 9, 1]", "r", "rsqrt(x = e, epsilon = none)");
  op("[2, 9, 48]", "n", "mul(x = r, y = d)");
  op("[2, 9, 48]", "w", "mul(x = gamma, y = n)");
  op("[2, 9, 48]", "b", "add(x = w, y = beta)");
  op("[2, 9, 48]", "s2", "pow(x = b, y = two)");
  op("[2, 9, 1]", "v2", "reduce_mean(x = s2, axes = last, keep_dims = yes)");
  op("[2, 9, 1]", "r2", "rsqrt(x = v2, epsilon = epsilon)");
  op("[2, 9, 48]", "n2", "mul(x = b, y = r2)");
  op("[2, 9, 48]", "w2", "mul(x = n2, y = gamma)");
  op("[2, 1, 1]", "m3", "reduce_mean(x = w2, axes = both, keep_dims = yes)");
  op("[2, 9, 48]", "d3", "sub(x = w2, y = m3)");
  op("[2, 9, 48]", "s3", "square(x = d3)");
  op("[2, 1, 1]", "v3", "reduce_mean(x = s3, axes = both, keep_dims = yes)");
  op("[2, 1, 1]", "e3", "add(x = v3, y = epsilon)");
  op("[2, 1, 1]", "r3", "sqrt(x = e3)");
  op("[2, 9, 48]", "n3", "real_div(x = d3, y = r3)");
  op("[2, 9, 48]", "w3", "mul(x = n3, y = plane)");
  op("[2, 9, 48]", "y", "add(x = w3, y = x)");
  op("[2, 9, 48]", "d4", "sub(x = y, y = beta)"); /* no mean: only the division by the root joins */
  op("[2, 9, 48]", "s4", "square(x = d4)");
  op("[2, 9, 1]", "v4", "reduce_mean(x = s4, axes = last, keep_dims = yes)");
  op("[2, 9, 1]", "e4", "add(x = v4, y = epsilon)");
  op("[2, 9, 1]", "r4", "sqrt(x = e4)");
  op("[2, 9, 48]", "n4", "real_div(x = d4, y = r4)");
  finish("n4");
  must_lack = "reduce_mean";
  same_with_and_without((const int64_t[]){2, 9, 48}, 3, "layer-norm", "cml_rms_norm");
  same_with_and_without((const int64_t[]){2, 9, 48}, 3, "layer-norm", "layer_norm");
  must_lack = NULL;
}

static void attention(void) {
  start("[2, 3, 37, 16]");
  ints("axis", "[]", "-1");
  flag("no", "false");
  flag("yes", "true");
  scalar("scale", 0.25);
  op("[2, 3, 37, 37]", "s", "matmul(x = x, y = x, transpose_x = no, transpose_y = yes)");
  op("[2, 3, 37, 37]", "t", "mul(x = s, y = scale)");
  op("[2, 3, 37, 37]", "w", "softmax(x = t, axis = axis)");
  op("[2, 3, 37, 16]", "y", "matmul(x = w, y = x, transpose_x = no, transpose_y = no)");
  finish("y");
  same_with_and_without((const int64_t[]){2, 3, 37, 16}, 4, "attention", "cml_attention");
}

static void attention_in_one_step(const int64_t *dims, int32_t rank, const char *step) {
  must_lack = "softmax";
  same_with_and_without(dims, rank, "attention,attention-views", step);
  must_lack = NULL;
}

/* Rows that lie as columns, and a product of the transposed matrices. */
static void turned_attention(void) {
  start("[2, 3, 16, 37]");
  ints("axis", "[]", "-1");
  flag("no", "false");
  flag("yes", "true");
  ints("perm", "[4]", "[0, 1, 3, 2]");
  scalar("scale", 0.5);
  op("[2, 3, 16, 37]", "q", "mul(x = x, y = scale)");
  op("[2, 3, 16, 37]", "k", "mul(x = scale, y = x)");
  op("[2, 3, 37, 37]", "s", "matmul(x = q, y = k, transpose_x = yes, transpose_y = no)");
  op("[2, 3, 37, 37]", "w", "softmax(x = s, axis = axis)");
  op("[2, 3, 16, 37]", "y", "matmul(x = x, y = w, transpose_x = no, transpose_y = yes)");
  finish("y");
  attention_in_one_step((const int64_t[]){2, 3, 16, 37}, 4, "cml_attention");
  for (int swapped = 0; swapped < 2; swapped++) {
    start("[2, 3, 37, 16]");
    ints("axis", "[]", "-1");
    flag("no", "false");
    flag("yes", "true");
    ints("perm", "[4]", "[0, 1, 3, 2]");
    ints("flat", "[3]", "[6, 37, 37]");
    ints("rows", "[3]", "[6, 37, 16]");
    scalar("scale", 0.5);
    op("[2, 3, 37, 16]", "q", "mul(x = x, y = scale)");
    op("[2, 3, 16, 37]", "t", "transpose(x = q, perm = perm)"); /* the key's scale is behind its transpose */
    op("[2, 3, 37, 37]", "s", "matmul(x = x, y = t, transpose_x = no, transpose_y = no)");
    op("[2, 3, 37, 37]", "w", "softmax(x = s, axis = axis)");
    op("[6, 37, 37]", "f", "reshape(x = w, shape = flat)"); /* heads grouped in another way behind the softmax */
    op("[6, 37, 16]", "v", "reshape(x = x, shape = rows)");
    if (swapped) op("[6, 16, 37]", "y", "matmul(x = v, y = f, transpose_x = yes, transpose_y = yes)");
    else op("[6, 37, 16]", "y", "matmul(x = f, y = v, transpose_x = no, transpose_y = no)");
    finish("y");
    attention_in_one_step((const int64_t[]){2, 3, 37, 16}, 4, "cml_attention_view");
  }
}

/* Keys and values that heads share by broadcasting. */
static void broadcast_attention(void) {
  for (int queries = 1; queries < 40; queries += 36) {
    char shape[40], scores[40], out[40];
    snprintf(shape, sizeof shape, "[2, 3, 4, %d, 16]", queries);
    snprintf(scores, sizeof scores, "[2, 3, 4, %d, 23]", queries);
    snprintf(out, sizeof out, "[2, 3, 4, %d, 9]", queries);
    start(shape);
    ints("axis", "[]", "-1");
    flag("no", "false");
    flag("yes", "true");
    constant("k", "[2, 3, 1, 23, 16]");
    constant("v", "[2, 1, 1, 23, 9]");
    op(scores, "s", "matmul(x = x, y = k, transpose_x = no, transpose_y = yes)");
    op(scores, "w", "softmax(x = s, axis = axis)");
    op(out, "y", "matmul(x = w, y = v, transpose_x = no, transpose_y = no)");
    finish("y");
    attention_in_one_step((const int64_t[]){2, 3, 4, queries, 16}, 5, "cml_attention_view");
  }
}

/* Scores that select takes or leaves: what it leaves has a number of its own, however large. */
static void selected_attention(void) {
  static const char *const conds[] = {"[2, 3, 37, 37]", "[37, 37]", "[2, 1, 1, 37]", "[2, 1, 37, 1]"};
  for (int i = 0; i < 16; i++) {
    const char *cond = conds[i / 4];
    bool after = i % 2, left = i & 2;
    start("[2, 3, 37, 16]");
    ints("axis", "[]", "-1");
    flag("no", "false");
    flag("yes", "true");
    scalar("scale", 0.5);
    scalar("zero", 0);
    scalar("fill", i % 8 < 4 ? -10000 : 0.25);
    constant("m", cond);
    constant("places", "[37, 37]");
    if (i < 4) op(cond, "n", "matmul(x = x, y = x, transpose_x = no, transpose_y = yes)");
    condition(cond, "c", i < 4 ? "greater(x = n, y = zero)" : "greater(x = m, y = zero)");
    op("[2, 3, 37, 37]", "r", "matmul(x = x, y = x, transpose_x = no, transpose_y = yes)");
    if (after) op("[2, 3, 37, 37]", "t", "mul(x = r, y = scale)");
    if (after) op("[2, 3, 37, 37]", "s", "add(x = t, y = places)"); /* before it: what is left out has no place */
    char call[80];
    snprintf(call, sizeof call, left ? "select(cond = c, a = fill, b = %s)" : "select(cond = c, a = %s, b = fill)", after ? "s" : "r");
    op("[2, 3, 37, 37]", "u", call);
    if (!after) op("[2, 3, 37, 37]", "t", "mul(x = u, y = scale)");
    op("[2, 3, 37, 37]", "w", after ? "softmax(x = u, axis = axis)" : "softmax(x = t, axis = axis)");
    op("[2, 3, 37, 16]", "y", "matmul(x = w, y = x, transpose_x = no, transpose_y = no)");
    finish("y");
    attention_in_one_step((const int64_t[]){2, 3, 37, 16}, 4, "cml_attention");
  }
}

/* Zeros around an image: joined by a convolution without padding and by one with its own; values that are no zeros, channels and other
 * modes stay. */
static void pads(void) {
  static const struct { const char *by, *mode, *value, *dims; bool joined; } cases[] = {
      {"[0, 0, 0, 0, 0, 1, 0, 1]", "constant", "0", "[1, 6, 10, 13]", true},   {"[2, 1, 0, 3]", "constant", "0", "[1, 6, 12, 15]", true},
      {"[2, 1]", "constant", "0", "[1, 6, 9, 15]", true},                      {"[1, 1, 1, 1]", "constant", "1", "[1, 6, 11, 14]", false},
      {"[1, 1, 1, 1]", "reflect", "0", "[1, 6, 11, 14]", false},               {"[0, 2, 0, 0, 1, 1]", "constant", "0", "[1, 8, 9, 14]", false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int custom = 0; custom < 2; custom++) {
      bool channels = !strncmp(cases[i].dims, "[1, 8", 5);
      start("[1, 6, 9, 12]");
      ints("by", strlen(cases[i].by) > 20 ? "[8]" : strlen(cases[i].by) > 14 ? "[6]" : strlen(cases[i].by) > 8 ? "[4]" : "[2]", cases[i].by);
      word("mode", cases[i].mode);
      scalar("value", strtod(cases[i].value, NULL));
      constant("w", channels ? "[4, 8, 3, 3]" : "[4, 6, 3, 3]");
      word("type", custom ? "custom" : "valid");
      ints("own", "[4]", "[1, 1, 1, 1]");
      ints("two", "[2]", "[2, 2]");
      op(cases[i].dims, "p", "pad(x = x, pad = by, mode = mode, constant_val = value)");
      long height = (strtol(cases[i].dims + 7, NULL, 10) + 2 * custom - 3) / 2 + 1, width = (strtol(strrchr(cases[i].dims, ' '), NULL, 10) + 2 * custom - 3) / 2 + 1;
      char out[80];
      snprintf(out, sizeof out, "[1, 4, %ld, %ld]", height, width);
      op(out, "c", custom ? "conv(x = p, weight = w, strides = two, pad_type = type, pad = own)" : "conv(x = p, weight = w, strides = two, pad_type = type)");
      op(out, "y", "relu(x = c)");
      finish("y");
      must_lack = cases[i].joined ? "pad" : NULL;
      same_with_and_without((const int64_t[]){1, 6, 9, 12}, 4, "pads,epilogues", cases[i].joined ? "cml_conv" : "pad");
      must_lack = NULL;
    }
}

/* Transposed convolutions with few outputs: one convolution and pixel_shuffle, or turned lines, and a slice where taps overlap or
 * paddings cut; as before with many outputs, different strides, or strides without taps to spare. */
static void spread(void) {
  static const struct { const char *weight, *bias, *out, *strides, *pads, *op; bool cut; } cases[] = {
      {"[20, 1, 2, 2]", "[1]", "[2, 1, 10, 14]", "[2, 2]", "[0, 0, 0, 0]", "pixel_shuffle", false},
      {"[20, 3, 2, 2]", "[3]", "[2, 3, 10, 14]", "[2, 2]", "[0, 0, 0, 0]", "pixel_shuffle", false},
      {"[20, 1, 4, 4]", "[1]", "[2, 1, 20, 28]", "[4, 4]", "[0, 0, 0, 0]", "pixel_shuffle", false},
      {"[20, 2, 4, 4]", "[2]", "[2, 2, 20, 28]", "[4, 4]", "[0, 0, 0, 0]", "pixel_shuffle", false},
      {"[20, 3, 5, 5]", "[3]", "[2, 3, 25, 35]", "[5, 5]", "[0, 0, 0, 0]", "cml_conv_transpose", false}, /* too many places */
      {"[20, 1, 4, 4]", "[1]", "[2, 1, 10, 14]", "[2, 2]", "[1, 1, 1, 1]", "pixel_shuffle", true},
      {"[20, 3, 4, 4]", "[3]", "[2, 3, 8, 13]", "[2, 2]", "[2, 2, 0, 3]", "pixel_shuffle", true},
      {"[20, 3, 3, 3]", "[3]", "[2, 3, 9, 13]", "[2, 2]", "[1, 1, 1, 1]", "pixel_shuffle", true},
      {"[20, 1, 5, 5]", "[1]", "[2, 1, 16, 20]", "[3, 3]", "[1, 0, 2, 1]", "pixel_shuffle", true},
      {"[20, 1, 7, 7]", "[1]", "[2, 1, 11, 12]", "[2, 2]", "[2, 2, 4, 3]", "pixel_shuffle", true},
      {"[20, 1, 2, 2]", "[1]", "[2, 1, 8, 12]", "[2, 2]", "[1, 1, 1, 1]", "pixel_shuffle", true},
      {"[20, 3, 3, 3]", "[3]", "[2, 3, 5, 7]", "[1, 1]", "[1, 1, 1, 1]", "cml_conv", false}, /* stride 1: an ordinary one */
      {"[20, 7, 4, 4]", "[7]", "[2, 7, 5, 7]", "[1, 1]", "[0, 3, 2, 1]", "cml_conv", false},
      {"[20, 1, 2, 2]", "[1]", "[2, 1, 7, 26]", "[2, 4]", "[1, 2, 0, 0]", "cml_conv_transpose", false},
      {"[20, 1, 2, 2]", "[1]", "[2, 1, 14, 20]", "[3, 3]", "[0, 0, 0, 0]", "cml_conv_transpose", false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int with_bias = 0; with_bias < 2; with_bias++) {
      start("[2, 20, 5, 7]");
      constant("w", cases[i].weight);
      constant("b", cases[i].bias);
      ints("steps", "[2]", cases[i].strides);
      ints("pads", "[4]", cases[i].pads);
      word("custom", "custom");
      op(cases[i].out, "c", with_bias ? "conv_transpose(x = x, weight = w, bias = b, strides = steps, pad_type = custom, pad = pads)"
                                      : "conv_transpose(x = x, weight = w, strides = steps, pad_type = custom, pad = pads)");
      op(cases[i].out, "y", "sigmoid(x = c)");
      finish("y");
      must_lack = cases[i].cut ? "cml_conv_transpose" : "slice_by_index";
      same_with_and_without((const int64_t[]){2, 20, 5, 7}, 4, "transposed,epilogues", cases[i].op);
      must_lack = NULL;
    }
}

/* Pixels of a row that share no taps are outputs of one pixel where the channels are last, and those of small groups of one product; with the
 * channels first they are not. */
static void neighbours(void) {
  static const struct { const char *weight, *bias, *groups, *out, *strides; } cases[] = {
      {"[20, 6, 2, 2]", "[6]", "1", "[2, 6, 10, 14]", "[2, 2]"},      {"[20, 3, 2, 2]", "[12]", "4", "[2, 12, 10, 14]", "[2, 2]"},
      {"[20, 21, 3, 3]", "[21]", "1", "[2, 21, 15, 21]", "[3, 3]"},   {"[20, 5, 3, 5]", "[5]", "1", "[2, 5, 11, 35]", "[2, 5]"},
      {"[20, 9, 2, 2]", "[18]", "2", "[2, 18, 10, 14]", "[2, 2]"},    {"[20, 1, 2, 2]", "[20]", "20", "[2, 20, 10, 14]", "[2, 2]"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    start("[2, 20, 5, 7]");
    constant("w", cases[i].weight);
    constant("b", cases[i].bias);
    ints("groups", "[]", cases[i].groups);
    ints("steps", "[2]", cases[i].strides);
    word("valid", "valid");
    op(cases[i].out, "c", "conv_transpose(x = x, weight = w, bias = b, strides = steps, pad_type = valid, groups = groups)");
    op(cases[i].out, "r", "sigmoid(x = c)");
    op(cases[i].out, "y", "add(x = r, y = r)");
    finish("y");
    same_with_and_without((const int64_t[]){2, 20, 5, 7}, 4, "layout,epilogues", "cml_conv_transpose");
  }
}

/* A single pixel gives its block, the whole kernel, whatever the stride and the outputs. */
static void spread_pixel(void) {
  static const struct { const char *out, *strides, *pads; bool cut; } cases[] = {
      {"[3, 17, 4, 4]", "[1, 1]", "[0, 0, 0, 0]", false}, {"[3, 17, 4, 4]", "[2, 2]", "[0, 0, 0, 0]", false}, {"[3, 17, 4, 4]", "[5, 5]", "[0, 0, 0, 0]", false},
      {"[3, 17, 2, 1]", "[2, 2]", "[1, 1, 1, 2]", true},  {"[3, 17, 2, 4]", "[1, 1]", "[2, 0, 0, 0]", true}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    start("[3, 20, 1, 1]");
    constant("w", "[20, 17, 4, 4]");
    constant("b", "[17]");
    ints("steps", "[2]", cases[i].strides);
    ints("pads", "[4]", cases[i].pads);
    word("custom", "custom");
    op(cases[i].out, "c", "conv_transpose(x = x, weight = w, bias = b, strides = steps, pad_type = custom, pad = pads)");
    op(cases[i].out, "y", "sigmoid(x = c)");
    finish("y");
    must_lack = cases[i].cut ? "cml_conv_transpose" : "slice_by_index";
    same_with_and_without((const int64_t[]){3, 20, 1, 1}, 4, "transposed,epilogues", strcmp(cases[i].strides, "[5, 5]") ? "pixel_shuffle" : "cml_conv_transpose");
    must_lack = NULL;
  }
}

/* Tokens become an image and tokens again: nothing is turned, and the function behind joins the convolution. */
static void tokens(void) {
  static const struct { const char *op, *made, *weight, *gone; } cases[] = {
      {"conv(x = r, weight = w, pad_type = same)", "[2, 8, 3, 4]", "[8, 20, 3, 3]", "cml_to_last"},
      {"conv(x = r, weight = w, pad_type = same)", "[2, 8, 3, 4]", "[8, 20, 3, 3]", "cml_to_first"},
      {"conv(x = r, weight = w, pad_type = same)", "[2, 8, 3, 4]", "[8, 20, 3, 3]", "gelu"},
      {"conv_transpose(x = r, weight = w, pad_type = same)", "[2, 8, 3, 4]", "[20, 8, 3, 3]", "cml_to_first"},
      {"conv_transpose(x = r, weight = w, pad_type = same)", "[2, 8, 3, 4]", "[20, 8, 3, 3]", "gelu"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    start("[2, 12, 20]");
    constant("w", cases[i].weight);
    word("same", "same");
    word("exact", "EXACT");
    ints("turn", "[3]", "[0, 2, 1]");
    ints("image", "[4]", "[2, 20, 3, 4]");
    ints("line", "[3]", "[2, 8, -1]");
    op("[2, 20, 12]", "t", "transpose(x = x, perm = turn)");
    op("[2, 20, 3, 4]", "r", "reshape(x = t, shape = image)");
    op(cases[i].made, "c", cases[i].op);
    op("[2, 8, 12]", "l", "reshape(x = c, shape = line)");
    op("[2, 12, 8]", "k", "transpose(x = l, perm = turn)");
    op("[2, 12, 8]", "y", "gelu(x = k, mode = exact)");
    finish("y");
    must_lack = cases[i].gone;
    same_with_and_without((const int64_t[]){2, 12, 20}, 3, "epilogues,layout", i < 3 ? "cml_conv" : "cml_conv_transpose");
    must_lack = NULL;
  }
}

/* Edges cut off of what a transposed convolution makes: its padding, but for steps over elements, channels, and results that others read. */
static void cut_edges(void) {
  static const struct { const char *input, *weight, *steps, *own, *made, *begin, *end, *by, *out; bool joined; } cases[] = {
      {"[2, 20, 5, 7]", "[20, 8, 3, 3]", "[2, 2]", "[0, 0, 0, 0]", "[2, 8, 11, 15]", NULL, NULL, NULL, "[2, 8, 10, 14]", true},
      {"[2, 20, 5, 7]", "[20, 8, 4, 4]", "[2, 2]", "[1, 2, 0, 1]", "[2, 8, 9, 15]", NULL, NULL, NULL, "[2, 8, 8, 14]", true},
      {"[2, 20, 5, 7]", "[20, 8, 3, 3]", "[1, 2]", "[0, 0, 0, 0]", "[2, 8, 7, 15]", "[0, 0, 4, 6]", "[2, 8, 7, 11]", "[1, 1, 1, 1]", "[2, 8, 3, 5]", true},
      {"[2, 20, 5, 7]", "[20, 8, 3, 3]", "[2, 2]", "[0, 1, 1, 0]", "[2, 8, 10, 14]", "[0, 0, -9, 0]", "[2, 8, -1, 14]", "[1, 1, 1, 1]", "[2, 8, 8, 14]", true},
      {"[2, 20, 5, 7]", "[20, 8, 3, 3]", "[2, 2]", "[0, 0, 0, 0]", "[2, 8, 11, 15]", "[0, 0, 0, 1]", "[2, 8, 11, 15]", "[1, 1, 1, 2]", "[2, 8, 11, 7]", false},
      {"[2, 20, 5, 7]", "[20, 8, 3, 3]", "[2, 2]", "[0, 0, 0, 0]", "[2, 8, 11, 15]", "[0, 1, 1, 1]", "[2, 8, 11, 15]", "[1, 1, 1, 1]", "[2, 7, 10, 14]", false},
      {"[2, 20, 11]", "[20, 6, 4]", "[2]", "[0, 0]", "[2, 6, 24]", "[0, 0, 0]", "[2, 6, 22]", "[1, 1, 1]", "[2, 6, 22]", true},
      {"[2, 20, 11]", "[20, 6, 9]", "[4]", "[1, 0]", "[2, 6, 48]", "[0, 0, 17]", "[2, 6, 43]", "[1, 1, 1]", "[2, 6, 26]", true}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int twice = 0; twice < 2; twice++) {
      const bool line = strlen(cases[i].input) < 12, joined = cases[i].joined && !twice;
      const char *vector = line ? "[3]" : "[4]";
      start(cases[i].input);
      constant("w", cases[i].weight);
      ints("steps", line ? "[1]" : "[2]", cases[i].steps);
      ints("own", line ? "[2]" : "[4]", cases[i].own);
      word("custom", "custom");
      op(cases[i].made, "c", "conv_transpose(x = x, weight = w, strides = steps, pad_type = custom, pad = own)");
      if (cases[i].begin) {
        ints("begin", vector, cases[i].begin);
        ints("end", vector, cases[i].end);
        ints("by", vector, cases[i].by);
        op(cases[i].out, "s", "slice_by_index(x = c, begin = begin, end = end, stride = by)");
      } else {
        ints("down", "[2]", "[1, 0]");
        ints("across", "[2]", "[0, 1]");
        op(cases[i].out, "s", "crop(x = c, crop_height = down, crop_width = across)");
      }
      op(cases[i].out, "y", "sigmoid(x = s)");
      if (twice) op(cases[i].made, "z", "sigmoid(x = c)");
      finish(twice ? "y, z" : "y");
      must_lack = !joined ? NULL : cases[i].begin ? "slice_by_index" : "crop";
      int64_t dims[4];
      int32_t rank = 0;
      for (const char *p = cases[i].input + 1; *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : "") dims[rank++] = strtol(p, NULL, 10);
      same_with_and_without(dims, rank, "pads,epilogues", joined ? "cml_conv_transpose" : cases[i].begin ? "slice_by_index" : "crop");
      must_lack = NULL;
    }
}

static void spread_lines(void) {
  static const struct { const char *weight, *out, *strides, *pads, *op; } cases[] = {
      {"[12, 1, 4]", "[2, 1, 22]", "[2]", "[1, 1]", "slice_by_index"}, {"[12, 3, 5]", "[2, 3, 53]", "[5]", "[0, 2]", "slice_by_index"},
      {"[12, 2, 3]", "[2, 2, 33]", "[3]", "[0, 0]", "transpose"},      {"[12, 4, 10]", "[2, 4, 46]", "[4]", "[3, 1]", "slice_by_index"},
      {"[12, 5, 4]", "[2, 5, 22]", "[2]", "[1, 1]", "cml_conv_transpose"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    start("[2, 12, 11]");
    constant("w", cases[i].weight);
    ints("steps", "[1]", cases[i].strides);
    ints("pads", "[2]", cases[i].pads);
    word("custom", "custom");
    op(cases[i].out, "c", "conv_transpose(x = x, weight = w, strides = steps, pad_type = custom, pad = pads)");
    op(cases[i].out, "y", "sigmoid(x = c)");
    finish("y");
    same_with_and_without((const int64_t[]){2, 12, 11}, 3, "transposed,epilogues", cases[i].op);
  }
}

/* im2col as converters write it, a convolution with the rows of a unit matrix: what is computed is what stands in the image, and an
 * infinity stays in its channel. One weight beside the diagonal, and the convolution reads all channels. */
static void unfolded(void) {
  enum { CHANNELS = 6, HEIGHT = 7, WIDTH = 9, K = 3 };
  const int64_t dims[] = {1, CHANNELS, HEIGHT, WIDTH};
  for (int other = 0; other < 2; other++) {
    start("[1, 6, 7, 9]");
    put("tensor<%s, [54, 6, 3, 3]> w = const()[name = tensor<string, []>(\"w\"), val = tensor<%s, [54, 6, 3, 3]>([", type, type);
    for (int o = 0; o < CHANNELS * K * K; o++) {
      put(o ? ", [" : "[");
      for (int c = 0; c < CHANNELS; c++) {
        put(c ? ", [" : "[");
        for (int k = 0; k < K * K; k++) put("%s%d%s", k % K ? ", " : k ? ", [" : "[", (other && o == 10 && c == 5) || o == c * K * K + k, k % K == K - 1 ? "]" : "");
        put("]");
      }
      put("]");
    }
    put("])];\n");
    word("custom", "custom");
    ints("pads", "[4]", "[1, 1, 0, 2]");
    ints("steps", "[2]", "[2, 1]");
    op("[1, 54, 4, 9]", "y", "conv(x = x, weight = w, strides = steps, pad_type = custom, pad = pads)");
    finish("y");
    float x[CHANNELS * HEIGHT * WIDTH];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i % 251) / 8; /* float16 holds them */
    x[sizeof x / sizeof *x - 1] = INFINITY;
    const char *const lists[] = {"groups", NULL};
    for (int l = 0; l < 2; l++) {
      size_t count, wrong = 0;
      float *y = run(lists[l], x, sizeof x / sizeof *x, dims, 4, l ? "cml_conv" : "conv", &count);
      assert_int_equal(count, 54 * 4 * 9);
      for (int o = 0; o < 54 - K * K; o++) /* the last channel's infinity times zero is nobody's concern */
        for (int i = 0; i < 4 * 9; i++) {
          int r = i / 9 * 2 + o / K % K - 1, column = i % 9 + o % K;
          bool inside = r >= 0 && r < HEIGHT && column < WIDTH;
          wrong += y[o * 36 + i] != (inside ? x[(o / (K * K) * HEIGHT + r) * WIDTH + column] : 0);
        }
      if (other ? !wrong : wrong) fail_msg("%zu of im2col are wrong with weights %s", wrong, other ? "of another channel" : "on the diagonal");
      free(y);
    }
  }
}

/* Windows of two images: positions are added by head, then what a window leaves out, between reshapes; the query has a scale of its own. */
static void window_attention(void) {
  const int64_t dims[] = {6, 2, 19, 10};
  const char *const masked[] = {"[1, 3, 1, 19, 19]", "[1, 3, 1, 1, 19]", "[2, 1, 2, 19, 1]", "[1, 1, 1]"};
  for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
    start("[6, 2, 19, 10]");
    ints("axis", "[]", "-1");
    flag("no", "false");
    flag("yes", "true");
    scalar("scale", 0.25);
    constant("places", i % 2 ? "[1, 2, 19, 19]" : "[2, 1, 19]");
    constant("left", masked[i]);
    ints("apart", "[5]", "[2, 3, 2, 19, 19]");
    ints("together", "[4]", "[-1, 2, 19, 19]");
    op("[6, 2, 19, 10]", "q", "mul(x = x, y = scale)");
    op("[6, 2, 19, 19]", "s", "matmul(x = q, y = x, transpose_x = no, transpose_y = yes)");
    op("[6, 2, 19, 19]", "t", i % 2 ? "add(x = s, y = places)" : "add(x = places, y = s)");
    op("[2, 3, 2, 19, 19]", "u", "reshape(x = t, shape = apart)");
    op("[2, 3, 2, 19, 19]", "a", "add(x = u, y = left)");
    op("[6, 2, 19, 19]", "b", "reshape(x = a, shape = together)");
    op("[6, 2, 19, 19]", "w", "softmax(x = b, axis = axis)");
    op("[6, 2, 19, 10]", "y", "matmul(x = w, y = x, transpose_x = no, transpose_y = no)");
    finish("y");
    must_lack = "softmax";
    same_with_and_without(dims, 4, "attention", "cml_attention");
    must_lack = NULL;
  }
  /* heads grouped so that the first mask's dims are none of the second's: not joined, or joined rightly */
  start("[2, 4, 19, 10]");
  ints("axis", "[]", "-1");
  flag("no", "false");
  flag("yes", "true");
  constant("first", "[2, 1, 19, 19]");
  constant("second", "[2, 1, 1, 1, 19]");
  ints("apart", "[5]", "[2, 2, 2, 19, 19]");
  ints("together", "[4]", "[2, 4, 19, 19]");
  op("[2, 4, 19, 19]", "s", "matmul(x = x, y = x, transpose_x = no, transpose_y = yes)");
  op("[2, 4, 19, 19]", "t", "add(x = s, y = first)");
  op("[2, 2, 2, 19, 19]", "u", "reshape(x = t, shape = apart)");
  op("[2, 2, 2, 19, 19]", "a", "add(x = u, y = second)");
  op("[2, 4, 19, 19]", "b", "reshape(x = a, shape = together)");
  op("[2, 4, 19, 19]", "w", "softmax(x = b, axis = axis)");
  op("[2, 4, 19, 10]", "y", "matmul(x = w, y = x, transpose_x = no, transpose_y = no)");
  finish("y");
  same_with_and_without((const int64_t[]){2, 4, 19, 10}, 4, "attention", "softmax");
}

/* Matrices that differ by product are packed once when they are constant; each run when they are not, as w + 0 is. */
static void constant_matrices(void) {
  const int64_t dims[] = {3, 1, 5, 20};
  const char *const turned[] = {"no", "yes"};
  for (int i = 0; i < 4; i++) {
    const char *shape = i % 2 ? "[3, 2, 17, 20]" : "[3, 2, 20, 17]";
    char call[2][100];
    start("[3, 1, 5, 20]");
    flag("no", "false");
    flag("yes", "true");
    ints("all", "[4]", "[0, 1, 2, 3]");
    constant("w", i / 2 ? i % 2 ? "[1, 2, 17, 20]" : "[1, 2, 20, 17]" : shape);
    for (int k = 0; k < 2; k++) snprintf(call[k], sizeof call[k], "matmul(x = x, y = %s, transpose_x = no, transpose_y = %s)", k ? "v" : "w", turned[i % 2]);
    op("[3, 1, 5, 20]", "d", "sub(x = x, y = x)");
    op("[1, 1, 1, 1]", "z", "reduce_sum(x = d, axes = all, keep_dims = yes)");
    op(i / 2 ? i % 2 ? "[1, 2, 17, 20]" : "[1, 2, 20, 17]" : shape, "v", "add(x = w, y = z)");
    op("[3, 2, 5, 17]", "y1", call[0]);
    op("[3, 2, 5, 17]", "y2", call[1]);
    op("[3, 2, 5, 17]", "y", "sub(x = y1, y = y2)");
    finish("y");
    float x[300];
    for (size_t k = 0; k < 300; k++) x[k] = uniform();
    size_t count;
    float *y = run(NULL, x, 300, dims, 4, NULL, &count);
    assert_int_equal(count, 510);
    for (size_t k = 0; k < count; k++) assert_true(fabsf(y[k]) < (strcmp(type, "fp16") ? 1e-5f : 4e-3f));
    free(y);
  }
}

/* Four heads of the query, two of key and value, which are repeated as programs do it: one after the other, in turns, and by torch's
 * repeat_interleave, with key and value turned as well. Few queries and many, with and without masks. */
static void repeated_heads(const char *name, const char *from, int how, bool columns) {
  char line[200], whole[3][16];
  for (int i = 0; i < 3; i++) snprintf(whole[i], sizeof whole[i], "%s_%d", name, i);
#define STEP(dims, to, ...) (snprintf(line, sizeof line, __VA_ARGS__), op(dims, to, line))
  if (how == 0) {
    STEP("[2, 2, 1, 37, 8]", whole[0], "expand_dims(x = %s, axes = third)", from);
    STEP("[2, 2, 2, 37, 8]", whole[1], "tile(x = %s, reps = twice3)", whole[0]);
    STEP("[2, 4, 37, 8]", name, "reshape(x = %s, shape = all)", whole[1]);
  } else if (how == 1) {
    STEP("[2, 4, 37, 8]", name, "tile(x = %s, reps = twice2)", from);
  } else {
    STEP("[2, 2, 37, 8]", whole[0], "transpose(x = %s, perm = swapped)", from); /* heads, images */
    STEP("[4, 2, 37, 8]", whole[1], "tile(x = %s, reps = twice1)", whole[0]);
    STEP("[2, 2, 2, 37, 8]", whole[2], "reshape(x = %s, shape = cut)", whole[1]);
    snprintf(whole[0], sizeof whole[0], "%s_t", name);
    snprintf(whole[1], sizeof whole[1], "%s_r", name);
    STEP("[2, 2, 2, 37, 8]", whole[0], "transpose(x = %s, perm = swapped5)", whole[2]);
    STEP("[4, 2, 37, 8]", whole[1], "reshape(x = %s, shape = heads)", whole[0]);
    if (columns) STEP("[2, 4, 8, 37]", name, "transpose(x = %s, perm = columns)", whole[1]);
    else STEP("[2, 4, 37, 8]", name, "transpose(x = %s, perm = swapped)", whole[1]);
  }
#undef STEP
}

static void shared_heads(void) {
  const char *const masks[] = {NULL, "[1, 4, 1, 37]", "[2, 1, 1, 1]", "[37]"};
  for (int i = 0; i < 24; i++) {
    const int how = i % 3, few = i / 3 % 2;
    const char *mask = masks[i / 6], *q = few ? "[2, 4, 2, 8]" : "[2, 4, 37, 8]", *scores = few ? "[2, 4, 2, 37]" : "[2, 4, 37, 37]";
    start("[2, 37, 64]");
    ints("axis", "[]", "-1");
    ints("one", "[]", "1");
    ints("widths", "[3]", "[32, 16, 16]");
    ints("lengths", "[2]", "[2, 35]");
    ints("four", "[4]", few ? "[2, 2, 4, 8]" : "[2, 37, 4, 8]");
    ints("two", "[4]", "[2, 37, 2, 8]");
    ints("back", "[4]", "[0, 2, 1, 3]");
    ints("third", "[1]", "[2]");
    ints("all", "[4]", "[2, 4, 37, 8]");
    ints("heads", "[4]", "[4, 2, 37, 8]");
    ints("cut", "[5]", "[2, 2, 2, 37, 8]");
    ints("twice1", "[4]", "[2, 1, 1, 1]");
    ints("twice2", "[4]", "[1, 2, 1, 1]");
    ints("twice3", "[5]", "[1, 1, 2, 1, 1]");
    ints("swapped", "[4]", "[1, 0, 2, 3]");
    ints("swapped5", "[5]", "[1, 0, 2, 3, 4]");
    ints("columns", "[4]", "[1, 0, -1, -2]");
    flag("no", "false");
    flag("yes", "true");
    scalar("scale", 0.35);
    put("tensor<%s, [2, 37, 32]> qs, tensor<%s, [2, 37, 16]> ks, tensor<%s, [2, 37, 16]> vs = split(x = x, split_sizes = widths, axis = axis)"
        "[name = tensor<string, []>(\"columns3\")];\n", type, type, type);
    put("tensor<%s, [2, 2, 32]> qf, tensor<%s, [2, 35, 32]> qr = split(x = qs, split_sizes = lengths, axis = one)[name = tensor<string, []>(\"rows2\")];\n", type, type);
    op(few ? "[2, 2, 4, 8]" : "[2, 37, 4, 8]", "q1", few ? "reshape(x = qf, shape = four)" : "reshape(x = qs, shape = four)");
    op("[2, 37, 2, 8]", "k1", "reshape(x = ks, shape = two)");
    op("[2, 37, 2, 8]", "v1", "reshape(x = vs, shape = two)");
    op(q, "q2", "transpose(x = q1, perm = back)");
    op("[2, 2, 37, 8]", "k2", "transpose(x = k1, perm = back)");
    op("[2, 2, 37, 8]", "v2", "transpose(x = v1, perm = back)");
    repeated_heads("k", "k2", how, true);
    repeated_heads("v", "v2", how, false);
    op(scores, "s", how == 2 ? "matmul(x = q2, y = k, transpose_x = no, transpose_y = no)" : "matmul(x = q2, y = k, transpose_x = no, transpose_y = yes)");
    op(scores, "t", "mul(x = s, y = scale)");
    if (mask) {
      constant("left", mask);
      op(scores, "u", "add(x = t, y = left)");
    }
    op(scores, "w", mask ? "softmax(x = u, axis = axis)" : "softmax(x = t, axis = axis)");
    op(q, "y", "matmul(x = w, y = v, transpose_x = no, transpose_y = no)");
    finish("y");
    must_lack = "tile";
    same_with_and_without((const int64_t[]){2, 37, 64}, 3, "attention,attention-views", "cml_attention_view");
    must_lack = "transpose";
    same_with_and_without((const int64_t[]){2, 37, 64}, 3, "attention,attention-views", "cml_attention_view");
    must_lack = NULL;
  }
}

/* A joint product cut into q, k and v in two ways, and the result turned back. */
static void attention_views(void) {
  const int64_t dims[] = {2, 37, 48};
  start("[2, 37, 48]");
  ints("axis", "[]", "-1");
  ints("zero", "[1]", "[0]");
  ints("first", "[]", "0");
  ints("cut", "[5]", "[2, 37, 3, 2, 8]");
  ints("order", "[5]", "[2, 0, 3, 1, 4]");
  ints("thirds", "[3]", "[1, 1, 1]");
  ints("widths", "[3]", "[16, 16, 16]");
  ints("heads", "[4]", "[2, 37, 2, 8]");
  ints("back", "[4]", "[0, 2, 1, 3]");
  ints("joined", "[3]", "[2, 37, 16]");
  flag("no", "false");
  flag("yes", "true");
  op("[2, 37, 3, 2, 8]", "r", "reshape(x = x, shape = cut)");
  op("[3, 2, 2, 37, 8]", "t", "transpose(x = r, perm = order)");
  put("tensor<%s, [1, 2, 2, 37, 8]> q0, tensor<%s, [1, 2, 2, 37, 8]> k0, tensor<%s, [1, 2, 2, 37, 8]> v0 = split(x = t, split_sizes = thirds, axis = first)"
      "[name = tensor<string, []>(\"parts\")];\n", type, type, type);
  op("[2, 2, 37, 8]", "q", "squeeze(x = q0, axes = zero)");
  op("[2, 2, 37, 8]", "k", "squeeze(x = k0, axes = zero)");
  op("[2, 2, 37, 8]", "v", "squeeze(x = v0, axes = zero)");
  op("[2, 2, 37, 37]", "s", "matmul(x = q, y = k, transpose_x = no, transpose_y = yes)");
  op("[2, 2, 37, 37]", "w", "softmax(x = s, axis = axis)");
  op("[2, 2, 37, 8]", "a", "matmul(x = w, y = v, transpose_x = no, transpose_y = no)");
  op("[2, 37, 2, 8]", "b", "transpose(x = a, perm = back)");
  op("[2, 37, 16]", "y1", "reshape(x = b, shape = joined)");
  put("tensor<%s, [2, 37, 16]> q2, tensor<%s, [2, 37, 16]> k2, tensor<%s, [2, 37, 16]> v2 = split(x = x, split_sizes = widths, axis = axis)"
      "[name = tensor<string, []>(\"columns\")];\n", type, type, type);
  op("[2, 37, 2, 8]", "q3", "reshape(x = q2, shape = heads)");
  op("[2, 37, 2, 8]", "k3", "reshape(x = k2, shape = heads)");
  op("[2, 37, 2, 8]", "v3", "reshape(x = v2, shape = heads)");
  op("[2, 2, 37, 8]", "q4", "transpose(x = q3, perm = back)");
  op("[2, 2, 37, 8]", "k4", "transpose(x = k3, perm = back)");
  op("[2, 2, 37, 8]", "v4", "transpose(x = v3, perm = back)");
  op("[2, 2, 37, 37]", "s2", "matmul(x = q4, y = k4, transpose_x = no, transpose_y = yes)");
  op("[2, 2, 37, 37]", "w2", "softmax(x = s2, axis = axis)");
  op("[2, 2, 37, 8]", "a2", "matmul(x = w2, y = v4, transpose_x = no, transpose_y = no)");
  op("[2, 37, 2, 8]", "b2", "transpose(x = a2, perm = back)");
  op("[2, 37, 16]", "y2", "reshape(x = b2, shape = joined)");
  op("[2, 37, 16]", "y", "add(x = y1, y = y2)");
  op("[2, 37, 16]", "z", "add(x = y, y = q2)");
  finish("z");
  must_lack = "transpose";
  same_with_and_without(dims, 3, "attention,attention-views", "cml_attention_view");
  must_lack = NULL;
}

static void linear(void) {
  start("[5, 24]");
  constant("w1", "[48, 24]");
  constant("b1", "[48]");
  constant("w2", "[24, 48]");
  word("mode", "EXACT");
  op("[5, 48]", "u", "linear(x = x, weight = w1, bias = b1)");
  op("[5, 48]", "g", "gelu(x = u, mode = mode)");
  op("[5, 24]", "d", "linear(x = g, weight = w2)");
  op("[5, 24]", "y", "add(x = x, y = d)");
  finish("y");
  same_with_and_without((const int64_t[]){5, 24}, 2, "epilogues", "cml_linear");
}

/* Scalars, broadcasting, a comparison, a result that two steps of the chain use, and one (b) that a step outside uses too. */
/* The logarithm of a softmax along rows and along columns; a logarithm that adds more than nothing stays. */
static void log_softmax(void) {
  for (int i = 0; i < 4; i++) {
    start("[3, 21, 37]");
    put("tensor<int32, []> axis = const()[name = tensor<string, []>(\"axis\"), val = tensor<int32, []>(%d)];\n", i % 2 ? 1 : -1);
    put("tensor<%s, []> epsilon = const()[name = tensor<string, []>(\"epsilon\"), val = tensor<%s, []>(%s)];\n", type, type,
        i > 1 ? "0x1p-10" : strcmp(type, "fp32") ? "0x0p+0" : "0x1p-149");
    op("[3, 21, 37]", "p", "softmax(x = x, axis = axis)");
    op("[3, 21, 37]", "y", "log(x = p, epsilon = epsilon)");
    finish("y");
    must_lack = i < 2 ? "log" : NULL;
    same_with_and_without((const int64_t[]){3, 21, 37}, 3, "epilogues", i < 2 ? "cml_log_softmax" : "log");
    must_lack = NULL;
  }
}

static void chains(void) {
  start("[2, 5, 33, 37]");
  constant("per", "[1, 5, 1, 1]");
  constant("column", "[33, 1]");
  scalar("half", 0.5);
  scalar("low", -0.3);
  scalar("high", 0.4);
  ints("axes", "[2]", "[2, 3]");
  flag("yes", "true");
  op("[2, 5, 33, 37]", "a", "mul(x = x, y = per)");
  op("[2, 5, 33, 37]", "b", "add(x = half, y = a)");
  op("[2, 5, 33, 37]", "c", "sigmoid(x = b)");
  op("[2, 5, 33, 37]", "d", "mul(x = b, y = c)");
  op("[2, 5, 33, 37]", "e", "tanh(x = x)");
  op("[2, 5, 33, 37]", "f", "sub(x = d, y = e)");
  put("tensor<bool, [2, 5, 33, 37]> g = greater(x = f, y = column)[name = tensor<string, []>(\"g\")];\n");
  op("[2, 5, 33, 37]", "h", "select(cond = g, a = f, b = e)");
  op("[2, 5, 1, 1]", "mean", "reduce_mean(x = h, axes = axes, keep_dims = yes)");
  op("[2, 5, 33, 37]", "i", "sub(x = h, y = mean)");
  op("[2, 5, 33, 37]", "j", "square(x = i)");
  op("[2, 5, 33, 37]", "k", "clip(x = j, alpha = low, beta = high)");
  op("[2, 5, 33, 37]", "l", "add(x = k, y = b)");
  op("[2, 5, 33, 37]", "m", "maximum(x = l, y = x)");
  finish("m");
  must_lack = "sub";
  exact = true;
  same_with_and_without((const int64_t[]){2, 5, 33, 37}, 4, "chains", "cml_chain");
  must_lack = NULL;
  exact = false;
}

/* Integers and truth values between floats, in one step. */
static void whole_chains(void) {
  start("[3, 7, 41]");
  word("whole", "int32"), word("back", type), word("truth", "bool");
  ints("three", "[]", "3"), ints("column", "[7, 1]", "[[5], [-5], [0], [1], [-1], [1000], [-7]]");
  scalar("hundred", 100);
  op("[3, 7, 41]", "a", "mul(x = x, y = hundred)");
  put("tensor<int32, [3, 7, 41]> b = cast(x = a, dtype = whole)[name = tensor<string, []>(\"b\")];\n");
  put("tensor<int32, [3, 7, 41]> c = floor_div(x = b, y = three)[name = tensor<string, []>(\"c\")];\n");
  put("tensor<int32, [3, 7, 41]> d = mod(x = b, y = column)[name = tensor<string, []>(\"d\")];\n");
  put("tensor<int32, [3, 7, 41]> e = mul(x = c, y = d)[name = tensor<string, []>(\"e\")];\n");
  condition("[3, 7, 41]", "f", "greater(x = e, y = three)");
  condition("[3, 7, 41]", "g", "cast(x = c, dtype = truth)");
  condition("[3, 7, 41]", "h", "logical_xor(x = f, y = g)");
  put("tensor<int32, [3, 7, 41]> i = cast(x = h, dtype = whole)[name = tensor<string, []>(\"i\")];\n");
  put("tensor<int32, [3, 7, 41]> j = select(cond = h, a = e, b = i)[name = tensor<string, []>(\"j\")];\n");
  op("[3, 7, 41]", "k", "cast(x = j, dtype = back)");
  finish("k");
  must_lack = "mod";
  exact = true;
  same_with_and_without((const int64_t[]){3, 7, 41}, 3, "chains", "cml_chain");
  must_lack = NULL;
  exact = false;
}

/* A cast goes behind a transpose, and there behind a slice and a gather; one whose result a maximum reads, too, stays, as does one that is half read. */
static void test_casts(void **state) {
  (void)state;
  const int64_t dims[] = {4, 10, 60};
  float x[2400];
  size_t counts[3];
  for (size_t i = 0; i < 2400; i++) x[i] = uniform() * 70000; /* some are infinite as halves */
  type = "fp32";
  start("[4, 10, 60]");
  type = "fp16";
  word("half", "fp16");
  word("single", "fp32");
  ints("perm", "[3]", "[0, 2, 1]");
  ints("begin", "[3]", "[0, 3, 0]"), ints("end", "[3]", "[4, 9, 10]");
  ints("begin1", "[3]", "[0, 0, 0]"), ints("end1", "[3]", "[4, 6, 10]"), ints("end2", "[3]", "[4, 6, 60]");
  ints("indices", "[6]", "[5, 1, 2, 40, 59, 0]");
  ints("one", "[]", "1"), ints("axes", "[2]", "[1, 2]"), ints("last", "[1]", "[2]");
  flag("yes", "true");
  op("[4, 10, 60]", "a", "cast(x = x, dtype = half)");
  op("[4, 60, 10]", "b", "transpose(x = a, perm = perm)");
  op("[4, 6, 10]", "c", "slice_by_index(x = b, begin = begin, end = end)");
  op("[4, 6, 10]", "d", "gather(x = b, indices = indices, axis = one)");
  op("[4, 6, 10]", "e", "maximum(x = c, y = d)");
  op("[4, 10, 60]", "f", "cast(x = x, dtype = half)");
  op("[4, 1, 1]", "g", "reduce_max(x = f, axes = axes, keep_dims = yes)");
  op("[4, 6, 10]", "h", "slice_by_index(x = f, begin = begin1, end = end1)");
  op("[4, 6, 10]", "i", "minimum(x = g, y = h)");
  op("[4, 10, 60]", "j", "cast(x = x, dtype = half)");
  op("[4, 6, 60]", "k", "slice_by_index(x = j, begin = begin1, end = end2)");
  op("[4, 6, 1]", "l", "reduce_min(x = k, axes = last, keep_dims = yes)");
  op("[4, 6, 10]", "m", "maximum(x = e, y = i)");
  op("[4, 6, 10]", "n", "maximum(x = m, y = l)");
  type = "fp32";
  op("[4, 6, 10]", "y", "cast(x = n, dtype = single)");
  finish("y");
  float *want = run("", x, 2400, dims, 3, NULL, &counts[0]);
  steps_wanted = 5; /* two for the first, one each for the second and the third, and the last */
  float *got = run("casts", x, 2400, dims, 3, "cast", &counts[1]);
  steps_wanted = 0;
  float *all = run(NULL, x, 2400, dims, 3, NULL, &counts[2]);
  assert_memory_equal(want, got, counts[0] * sizeof *want);
  assert_memory_equal(want, all, counts[0] * sizeof *want);
  free(want), free(got), free(all);
}

/* Normalisation by constants, before and after convolutions and where the channels stay second; hard_swish with and without its
 * threshold, silu as written out; convolutions in narrow groups, five and seven wide. */
static void norms_and_gates(void) {
  start("[2, 3, 13, 11]");
  word("custom", "custom");
  word("valid", "valid");
  ints("pad3", "[4]", "[3, 3, 3, 3]");
  ints("pad1", "[4]", "[1, 1, 1, 1]");
  ints("eight", "[]", "8");
  ints("four", "[]", "4");
  ints("all", "[]", "32");
  ints("axis", "[]", "1");
  flag("no", "false");
  scalar("sixth", 1.0 / 6);
  scalar("half", 0.5);
  scalar("least", -3);
  scalar("epsilon", 0.001);
  constant("m3", "[3]");
  constant("mean", "[32]");
  constant("gamma", "[32]");
  put("tensor<%s, [3]> v3 = square(x = m3)[name = tensor<string, []>(\"v3\")];\n", type);
  put("tensor<%s, [32]> variance = square(x = mean)[name = tensor<string, []>(\"variance\")];\n", type);
  constant("w1", "[32, 3, 1, 1]");
  constant("w4", "[32, 4, 3, 3]");
  constant("w8", "[32, 8, 3, 3]");
  constant("w7", "[32, 1, 7, 7]");
  op("[2, 3, 13, 11]", "x0", "batch_norm(x = x, mean = m3, variance = v3, epsilon = epsilon)");
  op("[2, 3, 13, 11]", "xr", "relu(x = x0)");
  op("[2, 32, 13, 11]", "c1", "conv(x = xr, weight = w1, pad_type = valid)");
  op("[2, 32, 13, 11]", "t1", "thresholded_relu(x = c1, alpha = least)");
  op("[2, 32, 13, 11]", "h1", "sigmoid_hard(x = t1, alpha = sixth, beta = half)");
  op("[2, 32, 13, 11]", "s1", "mul(x = t1, y = h1)");
  op("[2, 32, 13, 11]", "c2", "conv(x = s1, weight = w4, pad = pad1, pad_type = custom, groups = eight)");
  op("[2, 32, 13, 11]", "n2", "batch_norm(x = c2, mean = mean, variance = variance, gamma = gamma, beta = mean, epsilon = epsilon)");
  op("[2, 32, 13, 11]", "g2", "sigmoid(x = n2)");
  op("[2, 32, 13, 11]", "s2", "mul(x = g2, y = n2)");
  op("[2, 32, 13, 11]", "c3", "conv(x = s2, weight = w8, pad = pad1, pad_type = custom, groups = four)");
  op("[2, 32, 13, 11]", "h3", "sigmoid_hard(x = c3, alpha = sixth, beta = half)");
  op("[2, 32, 13, 11]", "s3", "mul(x = c3, y = h3)");
  op("[2, 32, 13, 11]", "c4", "conv(x = s3, weight = w7, pad = pad3, pad_type = custom, groups = all)");
  op("[2, 32, 13, 11]", "h4", "sigmoid_hard(x = c4, alpha = sixth, beta = half)");
  put("tensor<%s, [2, 64, 13, 11]> y = concat(values = (h4, s2), axis = axis, interleave = no)[name = tensor<string, []>(\"y\")];\n", type);
  finish("y");
  const int64_t dims[] = {2, 3, 13, 11};
  must_lack = "batch_norm";
  same_with_and_without(dims, 4, "epilogues,layout", "cml_affine");
  must_lack = "sigmoid_hard";
  same_with_and_without(dims, 4, "epilogues,layout", "cml_affine");
  must_lack = "thresholded_relu";
  same_with_and_without(dims, 4, "epilogues,layout", "cml_conv");
  must_lack = NULL;
}

/* Vectors normalised by channel: each channel has one element. */
static void affine_vectors(void) {
  start("[4, 19, 1]");
  scalar("epsilon", 1e-3);
  constant("mean", "[19]");
  constant("gamma", "[19]");
  put("tensor<%s, [19]> variance = const()[name = tensor<string, []>(\"variance\"), val = tensor<%s, [19]>([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1])];\n", type, type);
  op("[4, 19, 1]", "n", "batch_norm(x = x, mean = mean, variance = variance, gamma = gamma, beta = mean, epsilon = epsilon)");
  op("[4, 19, 1]", "y", "silu(x = n)");
  finish("y");
  same_with_and_without((const int64_t[]){4, 19, 1}, 3, "epilogues", "cml_affine");
}

/* Short and long runs of each channel, more than a thread's block holds. */
static void affine_runs(void) {
  static const int64_t lengths[] = {3, 12, 400, 9000};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    char shape[32];
    snprintf(shape, sizeof shape, "[2, 19, %lld]", (long long)lengths[i]);
    start(shape);
    scalar("epsilon", 1e-3);
    constant("mean", "[19]");
    constant("gamma", "[19]");
    put("tensor<%s, [19]> variance = const()[name = tensor<string, []>(\"variance\"), val = tensor<%s, [19]>([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1])];\n", type, type);
    op(shape, "n", "batch_norm(x = x, mean = mean, variance = variance, gamma = gamma, beta = mean, epsilon = epsilon)");
    op(shape, "y", "silu(x = n)");
    finish("y");
    same_with_and_without((const int64_t[]){2, 19, lengths[i]}, 3, "epilogues", "cml_affine");
  }
}

/* A block as in ConvNeXt: between convolutions the channels are moved last by the program itself. */
static void moved_last(void) {
  start("[1, 16, 9, 7]");
  word("custom", "custom");
  word("valid", "valid");
  ints("pad2", "[4]", "[2, 2, 2, 2]");
  ints("all", "[]", "16");
  ints("to_last", "[4]", "[0, 2, 3, 1]");
  ints("to_first", "[4]", "[0, -1, 1, 2]");
  ints("axes", "[1]", "[-1]");
  constant("w5", "[16, 1, 5, 5]");
  constant("w1", "[24, 16]");
  constant("w2", "[16, 24]");
  constant("w3", "[8, 16, 1, 1]");
  constant("per", "[16, 1, 1]");
  op("[1, 16, 9, 7]", "c", "conv(x = x, weight = w5, pad = pad2, pad_type = custom, groups = all)");
  op("[1, 9, 7, 16]", "l", "transpose(x = c, perm = to_last)");
  op("[1, 9, 7, 16]", "n", "layer_norm(x = l, axes = axes)");
  op("[1, 9, 7, 24]", "u", "linear(x = n, weight = w1)");
  op("[1, 9, 7, 16]", "d", "linear(x = u, weight = w2)");
  op("[1, 16, 9, 7]", "f", "transpose(x = d, perm = to_first)");
  op("[1, 16, 9, 7]", "s", "mul(x = per, y = f)");
  op("[1, 16, 9, 7]", "r", "add(x = s, y = c)");
  op("[1, 8, 9, 7]", "y", "conv(x = r, weight = w3, pad_type = valid)");
  finish("y");
  must_lack = "transpose";
  same_with_and_without((const int64_t[]){1, 16, 9, 7}, 4, "epilogues,layout", "cml_conv");
  must_lack = NULL;
}

/* Six rows of two vectors of three values, or so many that compressed weights are left so, and what loops over them share. */
static bool many_inputs;
#define MANY(dims) many_inputs ? dims "900]" : dims "3]"

static void compressed_constant(const char *name) {
  put("tensor<int8, [5, 900]> %s_codes = const()[name = tensor<string, []>(\"%s_codes\"), val = tensor<int8, [5, 900]>(", name, name);
  for (int i = 0; i < 5 * 900; i++) put("%s%d", i == 0 ? "[[" : i % 900 ? ", " : "], [", (int)(uniform() * 7));
  put("]])];\ntensor<%s, [5]> %s_scale = const()[name = tensor<string, []>(\"%s_scale\"), val = tensor<%s, [5]>([0.01, 0.02, 0.01, 0.015, 0.01])];\n", type, name, name, type);
  put("tensor<int8, []> %s_zero = const()[name = tensor<string, []>(\"%s_zero\"), val = tensor<int8, []>(2)];\n", name, name);
  put("tensor<%s, [5, 900]> %s = constexpr_affine_dequantize(quantized_data = %s_codes, zero_point = %s_zero, scale = %s_scale, axis = zero)[name = tensor<string, []>(\"%s\")];\n", type, name, name, name, name, name);
}

static void start_loops(void) {
  start(MANY("[6, 2, "));
  ints("zero", "[]", "0");
  ints("one", "[]", "1");
  ints("steps", "[]", "6");
  ints("more", "[]", "7");
  ints("start", "[1]", "[0]");
  ints("first", "[1]", "[0]");
  word("mode", "add");
  flag("no", "false");
  scalar("unit", 1);
  ints("shape", "[3]", "[7, 2, 5]");
  scalar("nothing", 0);
  op("[7, 2, 5]", "buffer", "fill(shape = shape, value = nothing)");
}

static void gru_product(const char *name, const char *of, const char *weight, const char *bias, const char *states) {
  put("tensor<%s, [2, 5]> %s = linear(x = %s, weight = %s_%s", type, name, of, weight, states);
  if (bias) put(", bias = %s_%s", bias, states);
  put(")[name = tensor<string, []>(\"%s\")];\n", name);
}

/* A GRU layer as coremltools 9 writes torch's: a loop over a buffer of states. other_gate: (1 - z) h + z n, which is none. */
static bool other_gate;
static void gru_loop(const char *input, const char *states) {
  static const char *const weights[][2] = {{"wr", "[5, 3]"}, {"wz", "[5, 3]"}, {"wn", "[5, 3]"}, {"rr", "[5, 5]"}, {"rz", "[5, 5]"},
                                           {"rn", "[5, 5]"}, {"br", "[5]"},    {"bn", "[5]"},    {"cn", "[5]"}};
  for (size_t k = 0; k < sizeof weights / sizeof *weights; k++) {
    char name[32];
    snprintf(name, sizeof name, "%s_%s", weights[k][0], states);
    if (many_inputs && k < 3) compressed_constant(name);
    else constant(name, weights[k][1]);
  }
  put("tensor<int32, [1]> last_%s, tensor<%s, [7, 2, 5]> %s = while_loop(loop_vars = (start, buffer)) (tensor<int32, [1]> ci, tensor<%s, [7, 2, 5]> cb) {\n",
      states, type, states, type);
  put("tensor<bool, [1]> on = less(x = ci, y = steps)[name = tensor<string, []>(\"on\")];\n");
  put("} -> (on) (tensor<int32, [1]> i, tensor<%s, [7, 2, 5]> b) {\n", type);
  put("tensor<bool, [1]> ge = greater_equal(x = i, y = zero)[name = tensor<string, []>(\"ge\")];\n");
  put("tensor<int32, [1]> ia = add(x = i, y = more)[name = tensor<string, []>(\"ia\")];\n");
  put("tensor<int32, [1]> is = select(cond = ge, a = i, b = ia)[name = tensor<string, []>(\"is\")];\n");
  put("tensor<%s, %s> xg = gather(x = %s, indices = i, axis = zero)[name = tensor<string, []>(\"xg\")];\n", type, MANY("[1, 2, "), input);
  op("[1, 2, 5]", "hg", "gather(x = b, indices = is, axis = zero)");
  op(MANY("[2, "), "xt", "squeeze(x = xg, axes = first)");
  op("[2, 5]", "h", "squeeze(x = hg, axes = first)");
  gru_product("r1", "xt", "wr", "br", states);
  gru_product("r2", "h", "rr", NULL, states);
  op("[2, 5]", "r3", "add(x = r1, y = r2)");
  op("[2, 5]", "r", "sigmoid(x = r3)");
  gru_product("z1", "h", "rz", "bn", states);
  gru_product("z2", "xt", "wz", "cn", states);
  op("[2, 5]", "z3", "add(x = z1, y = z2)");
  op("[2, 5]", "z", "sigmoid(x = z3)");
  gru_product("n1", "xt", "wn", "bn", states);
  gru_product("n2", "h", "rn", "cn", states);
  op("[2, 5]", "n3", "mul(x = r, y = n2)");
  op("[2, 5]", "n4", "add(x = n1, y = n3)");
  op("[2, 5]", "n", "tanh(x = n4)");
  op("[2, 5]", "o", "sub(x = unit, y = z)");
  op("[2, 5]", "m1", other_gate ? "mul(x = o, y = h)" : "mul(x = o, y = n)");
  op("[2, 5]", "m2", other_gate ? "mul(x = z, y = n)" : "mul(x = z, y = h)");
  op("[2, 5]", "s", "add(x = m1, y = m2)");
  put("tensor<int32, [1]> next = add(x = i, y = one)[name = tensor<string, []>(\"next\")];\n");
  op("[1, 2, 5]", "e", "expand_dims(x = s, axes = first)");
  op("[7, 2, 5]", "put", "scatter(data = b, indices = next, updates = e, axis = zero, mode = mode)");
  put("} -> (next, put)[name = tensor<string, []>(\"loop_%s\")];\n", states);
}

static void recurrent(void) {
  start_loops();
  gru_loop("x", "states");
  op("[7, 2, 5]", "y", "relu(x = states)");
  finish("y");
  must_lack = other_gate ? "cml_gru" : "while_loop";
  same_with_and_without((const int64_t[]){6, 2, many_inputs ? 900 : 3}, 3, "recurrent", other_gate ? "while_loop" : "cml_gru");
  must_lack = NULL;
}

/* Two layers: over an input and its reverse, the other way round, and over one input, all of which become one step; over two inputs, and over
 * one and its reverse by another axis, which stay two. */
static void directions(void) {
  static const char *const inputs[][2] = {{"x", "back"}, {"back", "x"}, {"x", "x"}, {"back", "back"}, {"x", "half"}, {"x", "swapped"}};
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
    start_loops();
    ints("reversed_axis", "[1]", "[-3]");
    ints("middle", "[1]", "[1]");
    op("[6, 2, 3]", "half", "mul(x = x, y = x)");
    op("[6, 2, 3]", "back", "reverse(x = x, axes = reversed_axis)");
    op("[6, 2, 3]", "swapped", "reverse(x = x, axes = middle)");
    gru_loop(inputs[i][0], "left");
    op("[7, 2, 5]", "between", "relu(x = left)");
    gru_loop(inputs[i][1], "right");
    op("[14, 2, 5]", "y", "concat(values = (between, right), axis = zero, interleave = no)");
    finish("y");
    steps_wanted = i < 4 ? 1 : 2;
    must_lack = i < 3 ? "reverse" : "while_loop";
    same_with_and_without((const int64_t[]){6, 2, 3}, 3, "recurrent", "cml_gru");
  }
  must_lack = NULL;
  steps_wanted = 0;
}

/* Layers one behind the other. */
static void layers(void) {
  start_loops();
  ints("begin", "[3]", "[0, 0, 1]");
  ints("end", "[3]", "[6, 2, 4]");
  gru_loop("x", "left");
  op("[6, 2, 3]", "cut", "slice_by_index(x = left, begin = begin, end = end)");
  op("[6, 2, 3]", "back", "reverse(x = cut, axes = first)");
  gru_loop("back", "right");
  op("[7, 2, 5]", "y", "relu(x = right)");
  finish("y");
  steps_wanted = 2;
  same_with_and_without((const int64_t[]){6, 2, 3}, 3, "recurrent", "cml_gru");
  steps_wanted = 0;
}

/* Sequences of a batch, which threads share, have nothing in common: each gives the same alone. */
static void test_sequences(void **state) {
  (void)state;
  enum { STEPS = 80, BATCH = 13, HIDDEN = 24, INPUTS = 6 };
  static const char *const calls[] = {"rnn(x = %s, initial_h = %s, weight_ih = w1, weight_hh = r1, bias = b1, direction = way, output_sequence = yes)",
                                      "gru(x = %s, initial_h = %s, weight_ih = w3, weight_hh = r3, bias = b3, direction = way, output_sequence = yes)",
                                      "lstm(x = %s, initial_h = %s, initial_c = %s, weight_ih = w4, weight_hh = r4, bias = b4, direction = way, output_sequence = yes)"};
  const int64_t dims[] = {STEPS, BATCH, INPUTS};
  static float x[STEPS * BATCH * INPUTS];
  for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = uniform();
  type = "fp32";
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    for (int backwards = 0; backwards < 2; backwards++) {
      char call[400];
      size_t count;
      start("[80, 13, 6]");
      constant("w1", "[24, 6]"), constant("r1", "[24, 24]"), constant("b1", "[24]"), constant("h", "[13, 24]");
      constant("w3", "[72, 6]"), constant("r3", "[72, 24]"), constant("b3", "[72]");
      constant("w4", "[96, 6]"), constant("r4", "[96, 24]"), constant("b4", "[96]");
      word("way", backwards ? "reverse" : "forward");
      flag("yes", "true"), flag("no", "false");
      ints("axis", "[]", "1"), ints("rows", "[]", "0"), ints("thirteen", "[]", "13");
      for (int state_or_x = 0; state_or_x < 2; state_or_x++) {
        for (int b = 0; b < BATCH; b++) put("%stensor<fp32, [%s]> %s%d", b ? ", " : "", state_or_x ? "80, 1, 6" : "1, 24", state_or_x ? "x" : "h", b);
        put(" = split(x = %s, num_splits = thirteen, axis = %s)[name = tensor<string, []>(\"%s\")];\n", state_or_x ? "x" : "h", state_or_x ? "axis" : "rows", state_or_x ? "xs" : "hs");
      }
      snprintf(call, sizeof call, calls[i], "x", "h", "h");
      op("[80, 13, 24]", "all", call);
      for (int b = 0; b < BATCH; b++) {
        char own[2][8], name[8];
        snprintf(own[0], sizeof own[0], "x%d", b), snprintf(own[1], sizeof own[1], "h%d", b), snprintf(name, sizeof name, "y%d", b);
        snprintf(call, sizeof call, calls[i], own[0], own[1], own[1]);
        op("[80, 1, 24]", name, call);
      }
      op("[80, 26, 24]", "y", "concat(values = (all, y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, y10, y11, y12), axis = axis, interleave = no)");
      finish("y");
      float *y = run(NULL, x, sizeof x / sizeof *x, dims, 3, NULL, &count);
      assert_int_equal(count, 2 * STEPS * BATCH * HIDDEN);
      for (size_t at = 0; at < STEPS * BATCH * HIDDEN; at++) {
        const float *both = y + at / (BATCH * HIDDEN) * 2 * BATCH * HIDDEN + at % (BATCH * HIDDEN);
        assert_true(fabsf(both[0] - both[BATCH * HIDDEN]) < 1e-5f);
      }
      free(y);
    }
}

static void test_recurrent(void **state) {
  (void)state;
  each_type(recurrent);
  other_gate = true;
  each_type(recurrent);
  other_gate = false;
  many_inputs = true;
  each_type(recurrent);
  many_inputs = false;
}
static void test_directions(void **state) { (void)state, each_type(directions), each_type(layers); }
static void test_norms_and_gates(void **state) { (void)state, each_type(norms_and_gates); }
static void test_moved_last(void **state) { (void)state, each_type(moved_last); }
static void test_convolutions(void **state) { (void)state, each_type(convolutions); }
static void test_joined(void **state) { (void)state, each_type(joined); }
static void test_planes(void **state) { (void)state, each_type(planes); }
static void test_elements(void **state) { (void)state, each_type(elements); }
static void test_pairs(void **state) { (void)state, each_type(pairs); }
static void test_transposed(void **state) { (void)state, each_type(transposed); }
static void test_spread(void **state) { (void)state, each_type(spread), each_type(neighbours), each_type(spread_pixel), each_type(spread_lines); }
static void test_unfolded(void **state) { (void)state, each_type(unfolded); }
static void test_pads(void **state) { (void)state, each_type(pads), each_type(cut_edges), each_type(tokens); }
static void test_window_attention(void **state) { (void)state, each_type(window_attention); }
static void test_affine_vectors(void **state) { (void)state, each_type(affine_vectors); }
static void test_affine_runs(void **state) { (void)state, each_type(affine_runs); }
static void test_moved(void **state) { (void)state, each_type(moved); }
static void test_rows_apart(void **state) { (void)state, each_type(rows_apart), each_type(single_channel_apart), each_type(resized_rows_apart), each_type(token_rows_apart); }
static void test_overlapping(void **state) { (void)state, each_type(overlapping); }
static void test_volumes(void **state) { (void)state, each_type(volumes); }
static void test_large(void **state) { (void)state, each_type(large); }
static void test_sums(void **state) { (void)state, each_type(sums); }
static void test_not_sums(void **state) { (void)state, each_type(not_sums); }
static void test_scales(void **state) { (void)state, each_type(scales); }
static void test_group_norm(void **state) { (void)state, each_type(group_norm); }
static void test_row_norms(void **state) { (void)state, each_type(row_norms); }
static void test_channel_norm(void **state) { (void)state, each_type(channel_norm); }
static void test_attention(void **state) { (void)state, each_type(attention); }
static void test_turned_attention(void **state) { (void)state, each_type(turned_attention); }
static void test_broadcast_attention(void **state) { (void)state, each_type(broadcast_attention); }
static void test_selected_attention(void **state) { (void)state, each_type(selected_attention); }
static void test_attention_views(void **state) { (void)state, each_type(attention_views); }
static void test_constant_matrices(void **state) { (void)state, each_type(constant_matrices); }
static void test_shared_heads(void **state) { (void)state, each_type(shared_heads); }
static void test_log_softmax(void **state) { (void)state, each_type(log_softmax); }
static void test_chains(void **state) { (void)state, each_type(chains), each_type(whole_chains); }
static void test_linear(void **state) { (void)state, each_type(linear); }

/* (x - 1) / 0 is infinite on both sides of 1; as a factor and a term it would be NaN above. */
static void test_an_infinite_norm_stays(void **state) {
  (void)state;
  const float x[] = {0.5f, 2, -3, 4};
  size_t count;
  type = "fp32";
  start("[1, 1, 2, 2]");
  put("tensor<fp32, [1]> mean = const()[name = tensor<string, []>(\"mean\"), val = tensor<fp32, [1]>([1])];\n");
  put("tensor<fp32, [1]> variance = const()[name = tensor<string, []>(\"variance\"), val = tensor<fp32, [1]>([0])];\n");
  scalar("epsilon", 0);
  op("[1, 1, 2, 2]", "y", "batch_norm(x = x, mean = mean, variance = variance, epsilon = epsilon)");
  finish("y");
  float *y = run(NULL, x, 4, (const int64_t[]){1, 1, 2, 2}, 4, "batch_norm", &count);
  for (size_t i = 0; i < 4; i++) assert_true(y[i] == (x[i] > 1 ? INFINITY : -INFINITY));
  free(y);
}

static void test_unknown_pass_is_refused(void **state) {
  (void)state;
  cml_error error = {0};
  cml_graph g = {0};
  assert_int_equal(cml_passes_run(&g, "layout,nothing", NULL, NULL, &error), CML_ARGUMENT);
  assert_non_null(strstr(error.text, "'nothing'"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_convolutions), cmocka_unit_test(test_joined), cmocka_unit_test(test_planes), cmocka_unit_test(test_elements), cmocka_unit_test(test_pairs), cmocka_unit_test(test_transposed), cmocka_unit_test(test_moved), cmocka_unit_test(test_rows_apart), cmocka_unit_test(test_overlapping), cmocka_unit_test(test_affine_vectors), cmocka_unit_test(test_affine_runs), cmocka_unit_test(test_large), cmocka_unit_test(test_volumes), cmocka_unit_test(test_scales), cmocka_unit_test(test_sums), cmocka_unit_test(test_not_sums), cmocka_unit_test(test_group_norm), cmocka_unit_test(test_row_norms), cmocka_unit_test(test_channel_norm), cmocka_unit_test(test_attention), cmocka_unit_test(test_turned_attention), cmocka_unit_test(test_broadcast_attention), cmocka_unit_test(test_selected_attention), cmocka_unit_test(test_window_attention), cmocka_unit_test(test_pads), cmocka_unit_test(test_unfolded), cmocka_unit_test(test_spread),
      cmocka_unit_test(test_attention_views), cmocka_unit_test(test_shared_heads), cmocka_unit_test(test_constant_matrices), cmocka_unit_test(test_log_softmax), cmocka_unit_test(test_chains), cmocka_unit_test(test_casts),
      cmocka_unit_test(test_norms_and_gates), cmocka_unit_test(test_moved_last), cmocka_unit_test(test_recurrent), cmocka_unit_test(test_sequences), cmocka_unit_test(test_directions),
      cmocka_unit_test(test_linear),       cmocka_unit_test(test_an_infinite_norm_stays), cmocka_unit_test(test_unknown_pass_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
