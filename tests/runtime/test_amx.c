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
    assert_int_equal(k->part != NULL, k->tile_parts != NULL);
    assert_int_equal(k->tile_parts != NULL, !strcmp(k->name, "amx"));
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
    if (cml_kernels_at(i)->tile_parts) return 2;
  if (cml_kernels_get()->tile_parts || cml_kernels_use("amx", &refused) != CML_NOT_FOUND) return 3;
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

void cml_fill_parts_model(cml_kernels *k, bool native);
void cml_fill_bytes_model(cml_kernels *k);

static void fill_tables(void) {
  const cml_kernels *k, *wide = NULL;
  for (size_t i = 0; (k = cml_kernels_at(i)); i++) {
    if (k->width == 16) wide = k;
    if (k->tile_parts) tables[table_count++] = *k;
  }
#if defined(CML_HAVE_AMX_MODEL)
  for (int native = 0; native < 2 && wide && !wide->tile_parts; native++) {
    cml_kernels *m = &tables[table_count++];
    *m = *wide;
    m->name = native ? "model of AMX-FP16" : "model of AMX-BF16";
    cml_fill_parts_model(m, native);
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

static float some_float(void) {
  uint32_t r = rnd();
  if (r % 16 == 0) return 0;
  return ldexpf(uniform(), (int)(r >> 8) % 12 - 6);
}

/* The parts of element i of what `part` made of n, as one number; infinities are in the first parts that hold them. */
static double whole(const uint16_t *parts, size_t count, size_t apart, bool native) {
  if (native) return (double)cml_f16_to_f32(parts[0]);
  double sum = 0;
  for (size_t p = 0; p < count && isfinite(sum); p++) sum += (double)cml_bf16_to_f32(parts[p * apart]);
  return sum;
}

/* Every number is the sum of its parts, each of which is the nearest bfloat16 to what is left; zeros follow. */
static void test_part(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    enum { N = 40, ROWS = 3, STRIDE = 72, APART = ROWS * STRIDE };
    for (uint32_t round = 0; round < 65536 / (N * ROWS) + 2000; round++) {
      const bool half = round <= 65536 / (N * ROWS);
      const size_t count = half ? k->half_parts : 3, n = round % 5 ? N : between(0, N);
      static cml_f16 halves[ROWS * N];
      static float floats[ROWS * N];
      static uint16_t parts[3 * APART];
      for (uint32_t i = 0; i < ROWS * N; i++) {
        uint32_t bits = round % 2 ? rnd() : rnd() & 0xff7fffffu; /* any, and mostly numbers */
        if (!half && (bits >> 23 & 255) < 26) bits |= 26u << 23;  /* parts of smaller ones are no longer normal */
        if (!half && round % 7 == 0) bits = i % 3 == 2 ? 0xff800000 : i % 3 ? 0x7f7fffff : 0xff7f8001;
        memcpy(&floats[i], &bits, 4);
        halves[i] = (cml_f16)(round * N * ROWS + i);
      }
      memset(parts, 0x55, sizeof parts);
      k->part(half, ROWS, n, half ? (const void *)halves : floats, N, parts, STRIDE, APART);
      for (size_t r = 0; r < ROWS; r++)
        for (size_t i = 0; i < (n + 31) / 32 * 32; i++) {
          const double want = i >= n ? 0 : half ? (double)cml_f16_to_f32(halves[r * N + i]) : (double)floats[r * N + i];
          const double got = whole(parts + r * STRIDE + i, count, APART, half && count == 1);
          if (isnan(want) ? !isnan(got) : got != want) fail_msg("%s: %a is taken for %a", k->name, want, got);
          const float first = count > 1 && isfinite(want) ? cml_bf16_to_f32(parts[r * STRIDE + i]) : 0;
          if (count > 1 && isfinite(want) && fabs(want) < 0x1.fdp127 && fabs((double)first - want) > fabs(want) * 0x1p-8) fail_msg("%s: the first part of %a is %a", k->name, want, (double)first);
        }
    }
  }
}

/* n numbers of either type; with room for results. */
static void *some_numbers(bool half, size_t n) {
  void *x = malloc(n * 4 + 4);
  for (size_t i = 0; i < n; i++) {
    if (half) ((cml_f16 *)x)[i] = cml_f16_from_f32(uniform());
    else ((float *)x)[i] = uniform();
  }
  return x;
}

static _Alignas(64) char tile_room[CML_PARTS_ROOM];

/* Tiles of every height, width and depth, in stretches and in rows of pixels, that end at unmapped pages; with all that may follow a product.
 * `odd`: values that are no numbers are strewn in. Sometimes the tile before said that this one follows. */
static void check_tile(const cml_kernels *k, bool half, bool odd) {
  const size_t lines = rnd() % 3 ? 1 : between(1, 5), in_line = between(1, lines > 1 ? 20 : 90), rows = lines * in_line, n = between(1, 32), stretches = between(1, 3);
  const size_t depth = rnd() % 4 ? between(0, 70) : between(100, 300), whole_depth = (depth + 31) / 32 * 32, jump = lines > 1 ? between(0, 9) : 0, c_jump = lines > 1 ? between(0, 9) : 0;
  const size_t stride = whole_depth + between(0, 20), gap = rows * stride + lines * jump, offsets[] = {gap * 2, 0, gap}, steps = stretches * depth, count = half ? k->half_parts : 3;
  const bool c_half = rnd() % 2, with_from = rnd() % 2, with_bias = rnd() % 2, with_residual = rnd() % 2, with_f = rnd() % 4 == 0, clipped = rnd() % 2;
  const size_t c_stride = n + between(0, 3), size = c_half ? 2 : 4, results = (rows - 1) * c_stride + (lines - 1) * c_jump + n, apart = 3 * gap;
  const size_t panel = cml_panel_bytes(k, half, steps);
  float *b = malloc((steps * 32 + 1) * 4), *a = malloc(3 * gap * 4 + 4), *from = at_end(2, rows * n * 4), *bias = at_end(3, n * 4);
  cml_f16 *halves = malloc((steps * 32 + 3 * gap + 1) * 2), *b_halves = halves + 3 * gap;
  uint16_t *parts = at_end(0, apart * count * 2);
  char *packed = at_end(1, panel), *c = at_end(4, results * size), *residual = at_end(5, results * size);
  memset(c, 0x55, results * size);
  for (size_t i = 0; i < 3 * gap; i++) a[i] = half ? cml_f16_to_f32(halves[i] = some_half()) : some_float();
  for (size_t i = 0; i < steps * 32; i++) b[i] = half ? cml_f16_to_f32(b_halves[i] = some_half()) : some_float();
  for (size_t i = 0; i < rows * n; i++) from[i] = uniform();
  for (size_t i = 0; i < n; i++) bias[i] = uniform();
  for (size_t i = 0; i < results; i++) {
    if (c_half) ((cml_f16 *)(void *)residual)[i] = cml_f16_from_f32(uniform());
    else ((float *)(void *)residual)[i] = uniform();
  }
  static const cml_f16 none[] = {0x7c00, 0xfc00, 0x7e00};
  for (int i = 0; i < 3 && odd && steps && gap; i++) {
    const size_t at = rnd() % (i < 2 ? steps * 32 : 3 * gap);
    const cml_f16 x = none[rnd() % 3];
    if (i < 2) b_halves[at] = x, b[at] = cml_f16_to_f32(x);
    else halves[at] = x, a[at] = cml_f16_to_f32(x);
  }
  k->part(half, 1, 3 * gap / 32 * 32, half ? (const void *)halves : a, 0, parts, 0, apart);
  if (3 * gap % 32) { /* nothing is written behind the last */
    static uint16_t rest[3 * 32];
    k->part(half, 1, 3 * gap % 32, half ? (const void *)(halves + 3 * gap / 32 * 32) : a + 3 * gap / 32 * 32, 0, rest, 0, 32);
    for (size_t p = 0; p < count; p++) memcpy(parts + p * apart + 3 * gap / 32 * 32, rest + p * 32, 3 * gap % 32 * 2);
  }
  memcpy(packed, half ? (const void *)b_halves : b, panel);
  float low = clipped ? -1.5f : -INFINITY, high = clipped ? 2.5f : INFINITY;
  const cml_tile t = {.rows = rows, .columns = n, .stretches = stretches, .depth = depth, .offsets = stretches > 1 ? offsets : NULL, .parts = parts, .parts_apart = apart, .a_stride = stride,
                      .split = lines > 1 ? in_line : 0, .a_jump = jump, .c_jump = c_jump, .b = packed, .b_half = half, .room = tile_room,
                      .from = with_from && lines == 1 ? from : NULL, .from_stride = n, .bias = with_bias ? bias : NULL, .residual = with_residual ? residual : NULL, .residual_stride = c_stride,
                      .low = low, .high = high, .unary_rows = with_f ? k->unary_rows : NULL, .f = CML_UNARY_SQUARE, .c = c, .c_stride = c_stride, .c_half = c_half};
  cml_parts_begin(tile_room);
  if (rnd() % 2) {
    cml_tile before = t;
    float *other = some_numbers(half, steps * 32), *sums = malloc(rows * n * 4);
    before.b = other, before.next = packed, before.from = NULL, before.residual = NULL, before.c = sums, before.c_half = false, before.c_stride = n, before.c_jump = 0;
    k->tile_parts(&before);
    free(other), free(sums);
  }
  k->tile_parts(&t);
  for (size_t r = 0; r < rows; r++)
    for (size_t j = 0; j < n; j++) {
      const size_t line = r / in_line, to = r * c_stride + line * c_jump + j;
      double want = t.from ? (double)from[r * n + j] : 0, size_of = fabs(want);
      for (size_t s = 0; s < stretches; s++)
        for (size_t d = 0; d < depth; d++) {
          double p = (double)a[(stretches > 1 ? offsets[s] : 0) + r * stride + line * jump + d] * (double)b[(s * depth + d) * 32 + j];
          want += p, size_of += fabs(p);
        }
      if (with_bias) want += (double)bias[j];
      if (with_residual) want += c_half ? (double)cml_f16_to_f32(((cml_f16 *)(void *)residual)[to]) : (double)((float *)(void *)residual)[to];
      /* float32's, of a step's sums and of theirs; of halves the products of last parts are left out */
      double error = 0x1p-24 * (20 + (double)steps / 8) * (size_of + 4) + (half && count > 1 ? 0x1p-15 * size_of : 0);
      if (clipped && !isnan(want)) want = fmin(fmax(want, -1.5), 2.5);
      if (with_f) error *= 2 * fabs(want) + 1, want *= want;
      double got = c_half ? (double)cml_f16_to_f32(((cml_f16 *)(void *)c)[to]) : (double)((float *)(void *)c)[to];
      if (isnan(want)) {
        if (!clipped && !isnan(got)) fail_msg("%s: %g for NaN", k->name, got);
        continue;
      }
      if (c_half && fabs(want) > 65520) want = copysign(INFINITY, want);
      if (c_half) error += fabs(want) * 0x1.01p-11 + 0x1p-25;
      if (got == want || fabs(got - want) <= error) continue;
      if (c_half && isinf(got) && fabs(want) > 65400) continue;
      fail_msg("%s: %s, %zu x %zu (%zu lines) x %zu * %zu, row %zu column %zu: %a, should be %a", k->name, half ? "halves" : "floats", rows, n, lines, stretches, depth, r, j, got, want);
    }
  free(a), free(b), free(halves);
}

static void test_tile(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    const int rounds = strncmp(k->name, "model", 5) ? 300 : 60; /* which take a hundred times as long */
    for (int round = 0; round < rounds; round++) check_tile(k, round % 2, round % 10 > 7);
  }
}

/* Of a float's bits. */
static float upper_half(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits &= 0xffff0000;
  memcpy(&x, &bits, 4);
  return x;
}

/* Products of two halves: without matrix units for halves all but those of their last parts. */
static void test_exact(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    for (int round = 0; round < 40; round++) {
      float c[32][32];
      cml_f16 a[32], b[32];
      static uint16_t parts[3 * 32 * 32];
      static cml_f16 packed[32];
      for (int i = 0; i < 32; i++) {
        do b[i] = (cml_f16)rnd();
        while (!isfinite(cml_f16_to_f32(b[i])));
        do a[i] = (cml_f16)rnd();
        while (!isfinite(cml_f16_to_f32(a[i])));
      }
      if (!round) a[0] = 0x7bff, b[0] = 0x7bff, a[1] = 0x0001, b[1] = 0x8001;
      k->part(true, 32, 1, a, 1, parts, 32, 32 * 32);
      memcpy(packed, b, sizeof packed);
      cml_parts_begin(tile_room);
      k->tile_parts(&(cml_tile){.rows = 32, .columns = 32, .stretches = 1, .depth = 1, .parts = parts, .parts_apart = 32 * 32, .a_stride = 32, .b = packed, .b_half = true, .room = tile_room,
                                .low = -INFINITY, .high = INFINITY, .c = c[0], .c_stride = 32});
      for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++) {
          const float x = cml_f16_to_f32(a[i]), y = cml_f16_to_f32(b[j]);
          float left_out = 0;
          if (k->half_parts > 1) left_out = (x - cml_bf16_to_f32(cml_bf16_from_f32(x))) * (y - upper_half(y));
          if (c[i][j] != x * y - left_out) fail_msg("%s: %a times %04x is %a", k->name, (double)x, b[j], (double)c[i][j]);
        }
    }
  }
}

/* Tiles of bytes give what the table without matrix units gives, bit for bit: heights that make the second tile overlap the first, stretches
 * that end within a tile, rows and weights that end at unmapped pages. (test_integers.c holds that table against exact sums.) */
static void test_bytes(void **state) {
  (void)state;
  const cml_kernels *k, *plain = NULL;
  for (size_t i = 0; cml_kernels_at(i) && !cml_kernels_at(i)->tile_parts; i++) plain = cml_kernels_at(i);
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

/* Results against the same table's without its matrix unit: sums of the same products in another order, and halves' last parts. Numbers are below 1 in size. */
static void agree(const cml_kernels *k, const char *what, size_t number, bool half, size_t depth, size_t n, const void *got, const void *want) {
  for (size_t i = 0; i < n; i++) {
    const float x = half ? cml_f16_to_f32(((const cml_f16 *)got)[i]) : ((const float *)got)[i], y = half ? cml_f16_to_f32(((const cml_f16 *)want)[i]) : ((const float *)want)[i];
    const float error = (half ? 0x1p-10f * fabsf(y) + 1e-4f : 0x1p-20f * fabsf(y)) + 0x1p-24f * (float)depth;
    if (!(isnan(x) && isnan(y)) && x != y && !(fabsf(x - y) <= error)) fail_msg("%s: %s %zu of %s, %zu: %a, not %a", k->name, what, number, half ? "halves" : "floats", i, (double)x, (double)y);
  }
}

static void *lines_of(size_t bytes) { return aligned_alloc(64, (bytes + 127) & ~(size_t)63); }

/* A product through the blocks, its first matrix as it lies and turned. */
static void test_product(void **state) {
  (void)state;
  const cml_kernels *k;
  EACH_TABLE(k) {
    static const size_t shapes[][3] = {{32, 33, 300}, {70, 64, 16}, {229, 40, 517}, {31, 64, 64}, {300, 70, 2000}};
    for (size_t s = 0; s < 20; s++) {
      const size_t rows = shapes[s % 5][0], columns = shapes[s % 5][1], depth = shapes[s % 5][2];
      const bool odd = s % 5 == 1, half = s / 5 % 2, turned = s >= 10;
      void *a = some_numbers(half, rows * depth), *b = some_numbers(half, depth * columns), *c = malloc(rows * columns * 4), *want = malloc(rows * columns * 4);
      void *packed = lines_of(cml_pack_bytes(k, depth, columns, half)), *scratch = lines_of(cml_gemm_scratch(k));
      if (odd && half) ((cml_f16 *)a)[rows * depth / 2] = 0x7c00;
      if (odd && !half) ((float *)a)[rows * depth / 2] = INFINITY;
      cml_pack_panels(k, packed, half, b, half, depth, columns, columns, 1, 0, cml_panel_count(k, columns));
      cml_gemm g = {.rows = rows, .columns = columns, .depth = depth, .a = a, .a_stride = turned ? 1 : depth, .a_depth_stride = turned ? rows : 1, .a_half = half, .b = packed,
                    .b_half = half, .in_parts = true, .c = c, .c_stride = columns, .c_half = half, .after = {.activation = CML_UNARY_RELU}};
      cml_gemm_run(k, &g, 1, NULL, scratch, 1);
      g.c = want, g.in_parts = false;
      cml_gemm_run(k, &g, 1, NULL, scratch, 1);
      agree(k, "product", s, half, depth, rows * columns, c, want);
      for (size_t r = 0, n = rows / 3; r < rows; r += n, n = rows - n) { /* as threads would share the rows: no bit changes */
        g.in_parts = true, g.rows = n;
        g.a = (char *)a + r * (turned ? 1 : depth) * (half ? 2 : 4), g.c = (char *)want + r * columns * (half ? 2 : 4);
        cml_gemm_run(k, &g, 1, NULL, scratch, 1);
      }
      assert_memory_equal(c, want, rows * columns * (half ? 2 : 4));
      free(a), free(b), free(c), free(want), free(packed), free(scratch);
    }
  }
}

/* Convolutions likewise: single pixels, taps side by side, dilated ones, strides, groups, channels first, volumes. */
static void test_convolution(void **state) {
  (void)state;
  const cml_kernels *k;
  static const struct { int64_t deep, size, kernel, stride, dilation, pad; size_t channels, outputs, groups; bool last; } cases[] = {
      {1, 30, 1, 1, 1, 0, 70, 99, 1, true}, {1, 40, 3, 1, 1, 1, 22, 97, 1, true}, {1, 40, 3, 1, 2, 2, 24, 96, 1, true}, {1, 70, 5, 2, 1, 2, 56, 200, 2, true},
      {1, 36, 3, 1, 1, 1, 22, 110, 1, false}, {1, 120, 1, 2, 1, 0, 64, 96, 1, true}, {1, 60, 3, 1, 20, 20, 32, 96, 1, true}, {4, 12, 3, 1, 1, 1, 32, 96, 1, true}};
  EACH_TABLE(k) {
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
      const size_t at = i / 2;
      const bool half = i % 2;
      int64_t out = (cases[at].size + 2 * cases[at].pad - cases[at].dilation * (cases[at].kernel - 1) - 1) / cases[at].stride + 1, n = cases[at].kernel, high = 30, deep = cases[at].deep;
      cml_conv v = {.batch = 1, .channels = cases[at].channels, .outputs = cases[at].outputs, .groups = cases[at].groups, .in = {deep, high, cases[at].size},
                    .out = {deep, (high + 2 * cases[at].pad - cases[at].dilation * (n - 1) - 1) / cases[at].stride + 1, out}, .kernel = {deep > 1 ? n : 1, n, n},
                    .stride = {1, cases[at].stride, cases[at].stride}, .dilation = {1, cases[at].dilation, cases[at].dilation},
                    .offset = {deep > 1 ? -cases[at].pad : 0, -cases[at].pad, -cases[at].pad}, .in_last = cases[at].last, .out_last = cases[at].last, .in_half = half, .out_half = half};
      cml_conv_place_all(&v);
      assert_true(cml_conv_suits_parts(k, &v));
      assert_int_equal(cml_conv_pack_half(k, &v, half), half);
      size_t in_count = (size_t)(deep * high * cases[at].size) * v.channels, out_count = (size_t)(deep * v.out[1] * out) * v.outputs, group_channels = v.channels / v.groups;
      const int64_t taps = (int64_t)cml_conv_taps(&v);
      void *x = some_numbers(half, in_count), *w = some_numbers(half, (size_t)taps * v.outputs * group_channels), *y = malloc(out_count * 4), *want = malloc(out_count * 4);
      const cml_conv_source from = {.data = w, .half = half, .group_stride = (int64_t)(v.outputs / v.groups * group_channels) * taps,
                                    .output_stride = (int64_t)group_channels * taps, .channel_stride = taps, .tap_stride = {n * n, n, 1}};
      void *packed = lines_of(cml_conv_packed_bytes(k, &v, half)), *scratch = lines_of(cml_conv_scratch(k, &v) + cml_conv_shared(k, &v, 1));
      cml_conv_pack(k, &v, &from, half, packed, NULL);
      cml_conv_call call = {.k = k, .v = &v, .weights = {packed, half}, .after = {.activation = CML_UNARY_COPY}, .x = x, .y = y, .scratch = scratch, .slots = 1};
      cml_conv_run(&call);
      v.plain = true;
      call.y = want;
      cml_conv_run(&call);
      agree(k, "convolution", at, half, (size_t)taps * group_channels, out_count, y, want);
      free(x), free(w), free(y), free(want), free(packed), free(scratch);
    }
  }
}

/* The first of a pair of convolutions likewise. */
static void test_conv_pair(void **state) {
  (void)state;
  const cml_kernels *k;
  enum { SIDE = 43, DEPTH = 70, CHANNELS = 112 }; /* floats, too, are enough work for tiles */
  EACH_TABLE(k) {
    for (int half = 0; half < 2; half++) {
      cml_conv placed = {.batch = 1, .channels = CHANNELS, .outputs = CHANNELS, .groups = CHANNELS, .in = {1, SIDE, SIDE}, .out = {1, SIDE, SIDE}, .kernel = {1, 3, 3},
                         .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .offset = {0, -1, -1}, .in_last = true, .out_last = true, .in_half = half, .out_half = half};
      cml_conv_place_all(&placed);
      assert_true(cml_conv_pair_fits(k, &placed));
      const size_t results = SIDE * SIDE * CHANNELS;
      void *x = some_numbers(half, SIDE * SIDE * DEPTH), *first = some_numbers(half, CHANNELS * DEPTH), *second = some_numbers(half, CHANNELS * 9), *y = malloc(results * 4), *want = malloc(results * 4);
      const cml_conv_source from = {.data = second, .half = half, .group_stride = 9, .output_stride = 9, .channel_stride = 9, .tap_stride = {9, 3, 1}};
      void *packed = lines_of(cml_conv_packed_bytes(k, &placed, false)), *panels = lines_of(cml_pack_bytes(k, DEPTH, CHANNELS, half));
      void *scratch = lines_of(cml_conv_pair_scratch(k, &placed, 1));
      cml_conv_pack(k, &placed, &from, false, packed, NULL);
      cml_conv_pair pair = {.second = {.k = k, .v = &placed, .weights = {packed, false}, .after = {.activation = CML_UNARY_COPY}, .x = x, .y = y, .scratch = scratch, .slots = 1},
                            .depth = DEPTH, .packed = panels, .half = half, .before = {.activation = CML_UNARY_RELU}};
      cml_pack_panels(k, panels, half, first, half, DEPTH, CHANNELS, 1, DEPTH, 0, cml_panel_count(k, CHANNELS));
      cml_conv_pair_run(&pair);
      placed.plain = true, pair.second.y = want;
      cml_conv_pair_run(&pair);
      agree(k, "pair", 0, half, 9 * DEPTH, results, y, want);
      free(x), free(first), free(second), free(y), free(want), free(packed), free(panels), free(scratch);
    }
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--refused")) return without_permission();
  guard_buffers();
  fill_tables();
  for (size_t i = 0; i < table_count; i++) printf("# %s\n", tables[i].name);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_features), cmocka_unit_test(test_choice), cmocka_unit_test(test_refused), cmocka_unit_test(test_part), cmocka_unit_test(test_exact), cmocka_unit_test(test_tile), cmocka_unit_test(test_bytes),
      cmocka_unit_test(test_product), cmocka_unit_test(test_convolution), cmocka_unit_test(test_conv_pair),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
