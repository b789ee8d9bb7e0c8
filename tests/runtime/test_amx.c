/* Float16 products on matrix units: which machines have them, and the tiles, alone and driven by products and convolutions. The table
 * "amx" is tested where the CPU has it; elsewhere, with AVX-512, its loops with their six instructions in C (amx_model.h). */
#include "test.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conv.h"
#include "guarded.h"
#include "kernels.h"
#include "random_numbers.h"
#if defined(__x86_64__)
#include "x86_features.h"
#endif

/* ---- which machines ---- */

static void test_features(void **state) {
  (void)state;
#if defined(__x86_64__)
  /* what CPUID and XGETBV say on a Sapphire Rapids under Linux (Intel's manual, volumes 1 and 2A) */
  const cml_x86_words sapphire = {.basic_ecx = 0x7ffafbff, .extended_edx = 0xffdd4432, .more_eax = 0x1c30,
                                  .palette = {0x04002000, 0x00080040, 0x10}, .xcr0 = 0x602e7};
  cml_x86_features f = cml_x86_features_of(&sapphire);
  assert_true(f.avx_vnni && f.fp16 && f.amx_bf16 && f.amx_int8 && !f.amx_fp16);
  cml_x86_words w = sapphire;
  w.more_eax |= 1u << 21;
  assert_true(cml_x86_features_of(&w).amx_fp16);
  /* each bit that has to be there: without it neither or only one of the two is */
  static const struct { size_t word; uint32_t bits; bool fp16, amx; } needed[] = {
      {0, 1u << 27, false, false}, {1, 1u << 23, false, true}, {1, 1u << 22, true, false}, {1, 1u << 24, true, false},
      {3, 0x04000000, true, false}, {4, 0x40, true, false}, {4, 0x80000, true, false}, {5, 0x10, true, false}};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    w = sapphire;
    w.more_eax |= 1u << 21;
    uint32_t *words[] = {&w.basic_ecx, &w.extended_edx, &w.more_eax, &w.palette[0], &w.palette[1], &w.palette[2]};
    *words[needed[i].word] &= ~needed[i].bits;
    f = cml_x86_features_of(&w);
    if (f.fp16 != needed[i].fp16 || f.amx_bf16 != needed[i].amx || f.amx_fp16 != needed[i].amx) fail_msg("without bits %zu", i);
  }
  w = sapphire;
  w.extended_edx &= ~(1u << 25);
  f = cml_x86_features_of(&w);
  assert_true(f.amx_bf16 && !f.amx_int8);
  w = sapphire;
  w.more_eax &= ~(1u << 4);
  assert_false(cml_x86_features_of(&w).avx_vnni);
  for (int bit = 0; bit < 64; bit++) { /* what the operating system keeps */
    w = sapphire;
    w.xcr0 &= ~(UINT64_C(1) << bit);
    f = cml_x86_features_of(&w);
    bool vectors = !(bit == 1 || bit == 2 || bit == 5 || bit == 6 || bit == 7);
    assert_int_equal(f.fp16, vectors);
    assert_int_equal(f.avx_vnni, bit != 1 && bit != 2);
    assert_int_equal(f.amx_bf16, vectors && bit != 17 && bit != 18);
  }
  w = (cml_x86_words){0};
  f = cml_x86_features_of(&w);
  assert_true(!f.fp16 && !f.amx_bf16 && !f.amx_fp16);
#else
  skip_because("no x86");
#endif
}

/* Whoever chose another table is not given this one, nor is its permission asked for. */
static void test_choice(void **state) {
  (void)state;
  cml_error refused;
  size_t n = 0;
  while (cml_kernels_at(n)) n++;
  assert_ptr_equal(cml_kernels_get(), cml_kernels_at(n - 1));
  for (size_t i = 0; i < n; i++) {
    const cml_kernels *k = cml_kernels_at(i);
    assert_ok(cml_kernels_use(k->name, err));
    assert_ptr_equal(cml_kernels_get(), k);
    assert_int_equal(k->pair != NULL, k->tile_pairs != NULL);
    assert_int_equal(k->pair != NULL, !strcmp(k->name, "amx"));
  }
  assert_int_equal(cml_kernels_use("amx512", &refused), CML_NOT_FOUND);
  assert_ok(cml_kernels_use(NULL, err));
}

/* Linux refuses tiles to a process one of whose threads takes signals on a stack that their registers would not fit on. A process of its
 * own, for permission once given stays. */
static int without_permission(void) {
#if defined(__x86_64__)
  static char stack[8192]; /* what SIGSTKSZ was */
  stack_t small = {.ss_sp = stack, .ss_size = sizeof stack};
  cml_error refused;
  if (sigaltstack(&small, NULL) || cml_x86_permit_tiles()) return 1;
  for (size_t i = 0; cml_kernels_at(i); i++)
    if (cml_kernels_at(i)->pair) return 2;
  if (cml_kernels_get()->pair || cml_kernels_use("amx", &refused) != CML_NOT_FOUND) return 3;
#endif
  return 0;
}

static void test_refused(void **state) {
  (void)state;
#if defined(__x86_64__)
  const cml_x86_words words = cml_x86_read();
  if (!cml_x86_features_of(&words).amx_bf16) skip_because("no AMX");
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) {
    execl("/proc/self/exe", "test-amx", "--refused", (char *)NULL);
    _exit(127);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
#else
  skip_because("no x86");
#endif
}

/* ---- tables with matrix units: the machine's, and models ---- */

static cml_kernels tables[4];
static size_t table_count;

void cml_fill_pairs_model(cml_kernels *k, bool native);
void cml_fill_bytes_model(cml_kernels *k);

static void fill_tables(void) {
  const cml_kernels *k, *wide = NULL;
  for (size_t i = 0; (k = cml_kernels_at(i)); i++) {
    if (k->width == 16) wide = k;
    if (k->pair) tables[table_count++] = *k;
  }
#if defined(CML_HAVE_AMX_MODEL)
  for (int native = 0; native < 2 && wide && !wide->pair; native++) {
    cml_kernels *m = &tables[table_count++];
    *m = *wide;
    m->name = native ? "model of AMX-FP16" : "model of AMX-BF16";
    cml_fill_pairs_model(m, native);
    if (native) cml_fill_bytes_model(m);
  }
#endif
  (void)wide;
}

#define EACH_TABLE(k)                                                                    \
  if (!table_count) skip_because("neither AMX nor AVX-512 here, with which to model it"); \
  for (k = tables; k < tables + table_count; k++)

/* Halves of every size, as the sums' weights: many small, some large, some subnormal, zeros. */
static cml_f16 some_half(void) {
  uint32_t r = rnd();
  if (r % 8 == 0) return (cml_f16)((r >> 8 & 0x83ff));
  if (r % 64 == 1) return cml_f16_from_f32(uniform() * 60000);
  return cml_f16_from_f32(uniform());
}

/* Every half that is a number is the sum of its two parts; one that is none stops the whole. */
static void test_pair(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    bool native = strstr(k->name, "FP16") != NULL;
    for (uint32_t h = 0; h < 65536; h += 48) {
      float x[2][24], before[2][24];
      for (uint32_t i = 0; i < 48; i++) x[i / 24][i % 24] = cml_f16_to_f32((cml_f16)(h + i));
      memcpy(before, x, sizeof x);
      bool finite = true;
      for (int i = 0; i < 48; i++) finite = finite && isfinite(before[i / 24][i % 24]);
      bool done = k->pair(x[0], 2, 24, 24);
      if (!done) {
        assert_false(finite);
        assert_memory_equal(x, before, sizeof x);
        continue;
      }
      for (int i = 0; i < 48 && finite; i++) {
        uint16_t parts[2];
        memcpy(parts, &x[i / 24][i % 24], 4);
        bool half = parts[1] == 0 && cml_f16_to_f32(parts[0]) == before[i / 24][i % 24];
        bool sum = cml_bf16_to_f32(parts[0]) + cml_bf16_to_f32(parts[1]) == before[i / 24][i % 24];
        if (!half && !sum) fail_msg("%s: %a is %04x + %04x", k->name, (double)before[i / 24][i % 24], parts[0], parts[1]);
        if (!strncmp(k->name, "model", 5)) assert_true(native ? half : sum);
      }
    }
  }
}

/* Tiles of every height, width and depth, in stretches, that end at unmapped pages; with all that may follow a product. `odd`: values
 * that are no numbers are strewn in. */
static void check_tile(const cml_kernels *k, bool odd) {
  size_t rows = between(1, CML_PAIR_ROWS), n = between(1, 32), stretches = between(1, 3), depth = rnd() % 4 ? between(0, 40) : between(100, 300);
  size_t stride = depth + between(0, 20), gap = rows * stride, offsets[] = {gap * 2, 0, gap}, steps = stretches * depth;
  bool c_half = rnd() % 2, with_from = rnd() % 2, with_bias = rnd() % 2, with_residual = rnd() % 2, with_f = rnd() % 4 == 0, clipped = rnd() % 2;
  size_t c_stride = n + between(0, 3), size = c_half ? 2 : 4;
  cml_f16 *b = at_end(1, steps * 32 * 2);
  float *a = at_end(0, 3 * gap * 4), *from = at_end(2, rows * n * 4), *bias = at_end(3, n * 4);
  static float values[3 * CML_PAIR_ROWS * 400];
  char *c = at_end(4, ((rows - 1) * c_stride + n) * size), *residual = at_end(5, ((rows - 1) * c_stride + n) * size);
  memset(c, 0x55, ((rows - 1) * c_stride + n) * size);
  for (size_t i = 0; i < 3 * gap; i++) a[i] = cml_f16_to_f32(some_half());
  for (size_t i = 0; i < steps * 32; i++) b[i] = some_half();
  for (size_t i = 0; i < rows * n; i++) from[i] = uniform();
  for (size_t i = 0; i < n; i++) bias[i] = uniform();
  for (size_t i = 0; i < (rows - 1) * c_stride + n; i++) {
    if (c_half) ((cml_f16 *)(void *)residual)[i] = cml_f16_from_f32(uniform());
    else ((float *)(void *)residual)[i] = uniform();
  }
  static const cml_f16 none[] = {0x7c00, 0xfc00, 0x7e00};
  if (odd && steps) b[rnd() % (steps * 32)] = none[rnd() % 3], b[rnd() % (steps * 32)] = none[rnd() % 3];
  if (odd && gap && strstr(k->name, "FP16")) a[rnd() % (3 * gap)] = INFINITY; /* the others leave such rows to floats */
  memcpy(values, a, 3 * gap * 4);
  if (!k->pair(a, 3, gap, gap)) return;
  float low = clipped ? -1.5f : -INFINITY, high = clipped ? 2.5f : INFINITY;
  const cml_tile t = {.rows = rows, .columns = n, .stretches = stretches, .depth = depth, .offsets = stretches > 1 ? offsets : NULL, .a = a, .a_stride = stride,
                      .b = b, .b_half = true, .ask = rnd() % 2 ? (const char *)b : NULL, .ask_step = 64, .from = with_from ? from : NULL,
                      .from_stride = n, .bias = with_bias ? bias : NULL, .residual = with_residual ? residual : NULL, .residual_stride = c_stride,
                      .low = low, .high = high, .unary_rows = with_f ? k->unary_rows : NULL, .f = CML_UNARY_SQUARE, .c = c, .c_stride = c_stride, .c_half = c_half};
  k->tile_pairs(&t);
  for (size_t r = 0; r < rows; r++)
    for (size_t j = 0; j < n; j++) {
      double want = with_from ? (double)from[r * n + j] : 0, size_of = fabs(want);
      for (size_t s = 0; s < stretches; s++)
        for (size_t d = 0; d < depth; d++) {
          double p = (double)values[(stretches > 1 ? offsets[s] : 0) + r * stride + d] * (double)cml_f16_to_f32(b[(s * depth + d) * 32 + j]);
          want += p, size_of += fabs(p);
        }
      if (with_bias) want += (double)bias[j];
      if (with_residual) want += c_half ? (double)cml_f16_to_f32(((cml_f16 *)(void *)residual)[r * c_stride + j]) : (double)((float *)(void *)residual)[r * c_stride + j];
      double error = 0x1p-24 * (20 + (double)steps / 8) * (size_of + 4); /* float32's, of a step's sums and of theirs */
      if (clipped && !isnan(want)) want = fmin(fmax(want, -1.5), 2.5);
      if (with_f) error *= 2 * fabs(want) + 1, want *= want;
      double got = c_half ? (double)cml_f16_to_f32(((cml_f16 *)(void *)c)[r * c_stride + j]) : (double)((float *)(void *)c)[r * c_stride + j];
      if (isnan(want)) {
        if (!clipped && !isnan(got)) fail_msg("%s: %g for NaN", k->name, got);
        continue;
      }
      if (c_half && fabs(want) > 65520) want = copysign(INFINITY, want);
      if (c_half) error += fabs(want) * 0x1.01p-11 + 0x1p-25;
      if (got == want || fabs(got - want) <= error) continue;
      if (c_half && isinf(got) && fabs(want) > 65400) continue;
      fail_msg("%s: %zu x %zu x %zu * %zu, row %zu column %zu: %a, should be %a", k->name, rows, n, stretches, depth, r, j, got, want);
    }
}

static void test_tile(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 150; round++) check_tile(k, round % 5 == 4);
  }
}

/* Products of two halves are exact, the smallest and the largest. */
static void test_exact(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 40; round++) {
      float a[32], x[32], c[32][32];
      cml_f16 b[32];
      for (int i = 0; i < 32; i++) {
        do b[i] = (cml_f16)rnd();
        while (!isfinite(cml_f16_to_f32(b[i])));
        do x[i] = cml_f16_to_f32((cml_f16)rnd());
        while (!isfinite(x[i]));
      }
      if (!round) x[0] = 65504, b[0] = 0x7bff, x[1] = 0x1p-24f, b[1] = 0x8001;
      memcpy(a, x, sizeof a);
      assert_true(k->pair(a, 32, 1, 1));
      k->tile_pairs(&(cml_tile){.rows = 32, .columns = 32, .stretches = 1, .depth = 1, .a = a, .a_stride = 1, .b = b, .b_half = true, .low = -INFINITY,
                                .high = INFINITY, .c = c, .c_stride = 32});
      for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++)
          if (c[i][j] != x[i] * cml_f16_to_f32(b[j])) fail_msg("%s: %a times %04x is %a", k->name, (double)x[i], b[j], (double)c[i][j]);
    }
  }
}

/* Tiles of bytes give what the table without matrix units gives, bit for bit: heights that make the second tile overlap the first, stretches
 * that end within a tile, rows and weights that end at unmapped pages. (test_integers.c holds that table against exact sums.) */
static void test_bytes(void **state) {
  (void)state;
  const cml_kernels *k, *plain = NULL;
  for (size_t i = 0; cml_kernels_at(i) && !cml_kernels_at(i)->pair; i++) plain = cml_kernels_at(i);
  EACH_TABLE(k) {
    if (k->integer_tile == plain->integer_tile || k->integer_columns != plain->integer_columns) continue;
    for (int round = 0; round < 300; round++) {
      size_t rows = between(1, k->integer_rows), n = between(1, 32), stretches = between(1, 3), depth = 4 * between(1, rnd() % 3 ? 20 : 80);
      size_t stride = depth + between(0, 40), gap = (rows - 1) * stride + depth, offsets[] = {gap * 2, 0, gap}, c_stride = n + between(0, 3), size;
      uint8_t *a = at_end(0, 3 * gap), *residual = at_end(2, rows * c_stride);
      int8_t *b = at_end(1, stretches * depth * 32);
      int32_t *start = at_end(3, n * 4);
      float *scale = at_end(4, n * 4), bias[32];
      static uint8_t got[64 * 40 * 4], want[64 * 40 * 4];
      for (size_t i = 0; i < 3 * gap; i++) a[i] = round % 8 ? (uint8_t)rnd() : 255;
      for (size_t i = 0; i < stretches * depth * 32; i++) b[i] = round % 8 ? (int8_t)rnd() : -128;
      for (size_t i = 0; i < rows * c_stride; i++) residual[i] = (uint8_t)rnd();
      for (size_t i = 0; i < n; i++) start[i] = (int32_t)rnd() >> 12, scale[i] = uniform() * 1e-3f, bias[i] = uniform() * 10;
      cml_integer_tile t = {.rows = rows, .columns = n, .stretches = stretches, .depth = depth, .offsets = stretches > 1 ? offsets : NULL, .a = a,
                            .a_stride = stride, .b = b, .start = start, .scale = scale, .bias = bias, .middle = rnd() % 3 == 0, .middle_low = -90,
                            .middle_high = 77, .middle_scale = 1.25f, .residual = rnd() % 2 ? residual : NULL, .residual_stride = c_stride,
                            .residual_scale = 0.25f, .residual_bias = -7, .unary_rows = rnd() % 4 ? NULL : k->unary_rows, .f = CML_UNARY_TANH,
                            .f_scale = 100, .to = (enum cml_integer_to)(rnd() % 3), .c = got, .c_stride = c_stride};
      t.low = t.to == CML_TO_BYTE ? -100 : -INFINITY, t.high = t.to == CML_TO_BYTE ? 155 : INFINITY, t.zero = t.to == CML_TO_BYTE ? 100 : 0;
      size = t.to == CML_TO_BYTE ? 1 : t.to == CML_TO_F16 ? 2 : 4;
      memset(got, 0x55, sizeof got), memset(want, 0x55, sizeof want);
      k->integer_tile(&t);
      for (size_t r = 0; r < rows; r += t.rows) {
        cml_integer_tile u = t;
        u.rows = t.rows = rows - r < plain->integer_rows ? rows - r : plain->integer_rows;
        u.a = a + r * stride;
        u.residual = t.residual ? residual + r * c_stride : NULL;
        u.c = want + r * c_stride * size;
        plain->integer_tile(&u);
      }
      if (memcmp(got, want, sizeof got)) fail_msg("%s: bytes, round %d: %zu x %zu x %zu * %zu to %d", k->name, round, rows, n, stretches, depth, (int)t.to);
    }
  }
}

/* ---- driven ---- */

/* A product through the blocks, against the same table without its matrix unit: sums of the same products in another order. */
static void test_product(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    static const size_t shapes[][3] = {{32, 33, 300}, {70, 64, 16}, {229, 40, 517}, {31, 64, 64}};
    for (size_t s = 0; s < 4; s++) {
      size_t rows = shapes[s][0], columns = shapes[s][1], depth = shapes[s][2], bytes = cml_pack_bytes(k, depth, columns, true);
      bool odd = s == 1;
      cml_f16 *a = malloc(rows * depth * 2), *b = malloc(depth * columns * 2), *c = malloc(rows * columns * 2), *want = malloc(rows * columns * 2);
      void *packed = aligned_alloc(64, (bytes + 63) & ~(size_t)63), *scratch = aligned_alloc(64, (cml_gemm_scratch(k) + 63) & ~(size_t)63);
      for (size_t i = 0; i < rows * depth; i++) a[i] = cml_f16_from_f32(uniform());
      for (size_t i = 0; i < depth * columns; i++) b[i] = cml_f16_from_f32(uniform());
      if (odd) a[rows * depth / 2] = 0x7c00;
      cml_pack_panels(k, packed, true, b, true, depth, columns, columns, 1, 0, cml_panel_count(k, columns));
      cml_gemm g = {.rows = rows, .columns = columns, .depth = depth, .a = a, .a_stride = depth, .a_depth_stride = 1, .a_half = true, .b = packed,
                    .b_half = true, .c = c, .c_stride = columns, .c_half = true, .after = {.activation = CML_UNARY_RELU}};
      cml_gemm_run(k, &g, 1, NULL, scratch, 1);
      cml_kernels plain = *k;
      plain.pair = NULL, plain.tile_pairs = NULL;
      g.c = want;
      cml_gemm_run(&plain, &g, 1, NULL, scratch, 1);
      for (size_t i = 0; i < rows * columns; i++) {
        float x = cml_f16_to_f32(c[i]), y = cml_f16_to_f32(want[i]);
        if (!(isnan(x) && isnan(y)) && x != y && !(fabsf(x - y) <= 0x1p-10f * fabsf(y) + 1e-4f)) fail_msg("%s: product %zu, %zu: %a, not %a", k->name, s, i, (double)x, (double)y);
      }
      free(a), free(b), free(c), free(want), free(packed), free(scratch);
    }
  }
}

/* Convolutions likewise: single pixels, taps side by side, dilated ones, strides, groups, channels first. */
static void test_convolution(void **state) {
  (void)state;
  const cml_kernels *k;
  static const struct { int64_t size, kernel, stride, dilation, pad; size_t channels, outputs, groups; bool last; } cases[] = {
      {12, 1, 1, 1, 0, 40, 48, 1, true}, {40, 3, 1, 1, 1, 3, 33, 1, true}, {40, 3, 1, 2, 2, 16, 20, 1, true},
      {70, 5, 2, 1, 2, 6, 40, 2, true},  {36, 3, 1, 1, 1, 17, 8, 1, false}};
  EACH_TABLE(k) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
      int64_t out = (cases[i].size + 2 * cases[i].pad - cases[i].dilation * (cases[i].kernel - 1) - 1) / cases[i].stride + 1, n = cases[i].kernel;
      cml_conv v = {.batch = 1, .channels = cases[i].channels, .outputs = cases[i].outputs, .groups = cases[i].groups, .in = {1, 9, cases[i].size},
                    .out = {1, (9 + 2 * cases[i].pad - cases[i].dilation * (n - 1) - 1) / cases[i].stride + 1, out}, .kernel = {1, n, n},
                    .stride = {1, cases[i].stride, cases[i].stride}, .dilation = {1, cases[i].dilation, cases[i].dilation},
                    .offset = {0, -cases[i].pad, -cases[i].pad}, .in_last = cases[i].last, .out_last = cases[i].last, .in_half = true, .out_half = true};
      cml_conv_place_all(&v);
      size_t in_count = (size_t)(9 * cases[i].size) * v.channels, out_count = (size_t)(v.out[1] * out) * v.outputs, group_channels = v.channels / v.groups;
      size_t w_count = (size_t)(n * n) * v.outputs * group_channels;
      cml_f16 *x = malloc(in_count * 2), *w = malloc(w_count * 2), *y = malloc(out_count * 2), *want = malloc(out_count * 2);
      for (size_t j = 0; j < in_count; j++) x[j] = cml_f16_from_f32(uniform());
      for (size_t j = 0; j < w_count; j++) w[j] = cml_f16_from_f32(uniform());
      const cml_conv_source from = {.data = w, .half = true, .group_stride = (int64_t)(v.outputs / v.groups * group_channels) * n * n,
                                    .output_stride = (int64_t)group_channels * n * n, .channel_stride = n * n, .tap_stride = {n * n, n, 1}};
      void *packed = aligned_alloc(64, (cml_conv_packed_bytes(k, &v, true) + 127) & ~(size_t)63);
      void *scratch = aligned_alloc(64, (cml_conv_scratch(k, &v) + cml_conv_shared(k, &v, 1) + 127) & ~(size_t)63);
      cml_conv_pack(k, &v, &from, true, packed, NULL);
      cml_conv_call call = {.k = k, .v = &v, .weights = {packed, true}, .after = {.activation = CML_UNARY_COPY}, .x = x, .y = y, .scratch = scratch, .slots = 1};
      cml_conv_run(&call);
      cml_kernels plain = *k;
      plain.pair = NULL, plain.tile_pairs = NULL;
      call.k = &plain;
      call.y = want;
      cml_conv_run(&call);
      for (size_t j = 0; j < out_count; j++) {
        float p = cml_f16_to_f32(y[j]), q = cml_f16_to_f32(want[j]);
        if (!(fabsf(p - q) <= 0x1p-10f * fabsf(q) + 1e-4f)) fail_msg("%s: convolution %zu, %zu: %a, not %a", k->name, i, j, (double)p, (double)q);
      }
      free(x), free(w), free(y), free(want), free(packed), free(scratch);
    }
  }
}

/* The first of a pair of convolutions likewise. */
static void test_conv_pair(void **state) {
  (void)state;
  const cml_kernels *k;
  enum { SIDE = 33, DEPTH = 24, CHANNELS = 80 };
  EACH_TABLE(k) {
    cml_conv placed = {.batch = 1, .channels = CHANNELS, .outputs = CHANNELS, .groups = CHANNELS, .in = {1, SIDE, SIDE}, .out = {1, SIDE, SIDE}, .kernel = {1, 3, 3},
                        .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .offset = {0, -1, -1}, .in_last = true, .out_last = true, .in_half = true, .out_half = true};
    cml_conv_place_all(&placed);
    assert_true(cml_conv_pair_fits(k, &placed));
    static cml_f16 x[SIDE * SIDE * DEPTH], first[CHANNELS * DEPTH], second[CHANNELS * 9], y[SIDE * SIDE * CHANNELS], want[SIDE * SIDE * CHANNELS];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = cml_f16_from_f32(uniform());
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) first[i] = cml_f16_from_f32(uniform());
    for (size_t i = 0; i < sizeof second / sizeof *second; i++) second[i] = cml_f16_from_f32(uniform());
    const cml_conv_source from = {.data = second, .half = true, .group_stride = 9, .output_stride = 9, .channel_stride = 9, .tap_stride = {9, 3, 1}};
    void *packed = aligned_alloc(64, (cml_conv_packed_bytes(k, &placed, false) + 127) & ~(size_t)63);
    void *panels = aligned_alloc(64, (cml_pack_bytes(k, DEPTH, CHANNELS, true) + 127) & ~(size_t)63);
    void *scratch = aligned_alloc(64, (cml_conv_pair_scratch(k, &placed, 1) + 127) & ~(size_t)63);
    cml_conv_pack(k, &placed, &from, false, packed, NULL);
    cml_pack_panels(k, panels, true, first, true, DEPTH, CHANNELS, 1, DEPTH, 0, cml_panel_count(k, CHANNELS));
    cml_conv_pair pair = {.second = {.k = k, .v = &placed, .weights = {packed, false}, .after = {.activation = CML_UNARY_COPY}, .x = x, .y = y, .scratch = scratch, .slots = 1},
                          .depth = DEPTH, .packed = panels, .half = true, .before = {.activation = CML_UNARY_RELU}};
    cml_conv_pair_run(&pair);
    cml_kernels plain = *k;
    plain.pair = NULL, plain.tile_pairs = NULL;
    pair.second.k = &plain, pair.second.y = want;
    cml_conv_pair_run(&pair);
    for (size_t i = 0; i < sizeof y / sizeof *y; i++) {
      float p = cml_f16_to_f32(y[i]), q = cml_f16_to_f32(want[i]);
      if (!(fabsf(p - q) <= 0x1p-10f * fabsf(q) + 1e-4f)) fail_msg("%s: pair, %zu: %a, not %a", k->name, i, (double)p, (double)q);
    }
    free(packed), free(panels), free(scratch);
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--refused")) return without_permission();
  guard_buffers();
  fill_tables();
  for (size_t i = 0; i < table_count; i++) printf("# %s\n", tables[i].name);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_features), cmocka_unit_test(test_choice), cmocka_unit_test(test_refused), cmocka_unit_test(test_pair), cmocka_unit_test(test_exact), cmocka_unit_test(test_tile), cmocka_unit_test(test_bytes),
      cmocka_unit_test(test_product), cmocka_unit_test(test_convolution), cmocka_unit_test(test_conv_pair),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
