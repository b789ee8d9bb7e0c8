/* base: cursors stop at the end and say where, arithmetic refuses to wrap, f16 agrees with IEEE 754. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

#include "arena.h"
#include "buffer.h"
#include "checked.h"
#include "dtype.h"
#include "f16.h"
#include "machine.h"
#include "mapping.h"
#include "resident.h"

static void cursor_is_sticky(void **state) {
  (void)state;
  const uint8_t bytes[] = {1, 2, 3, 4, 5, 6};
  cml_cursor c = cml_cursor_over(cml_span_of(bytes, sizeof bytes));
  assert_int_equal(cml_cursor_u32(&c), 0x04030201);
  assert_int_equal(cml_cursor_u32(&c), 0);
  assert_int_equal(cml_cursor_u8(&c), 0);
  cml_error err;
  assert_int_equal(cml_cursor_check(&c, "record", &err), CML_INVALID);
  assert_int_equal(err.offset, 4);
  c = cml_cursor_over(cml_span_of(bytes, sizeof bytes));
  cml_cursor_u16(&c);
  cml_cursor sub = cml_cursor_sub(&c, 3);
  cml_cursor_u32(&sub);
  assert_int_equal(cml_cursor_check(&sub, "part", &err), CML_INVALID);
  assert_int_equal(err.offset, 2);
  assert_int_equal(cml_cursor_u8(&c), 6);
}

static void sums_do_not_wrap(void **state) {
  (void)state;
  uint64_t r = 7;
  assert_false(cml_add(UINT64_MAX, 1, &r));
  assert_false(cml_mul(UINT64_C(1) << 33, UINT64_C(1) << 31, &r));
  assert_false(cml_align(UINT64_MAX - 2, 16, &r));
  assert_int_equal(r, 7);
  assert_true(cml_align(17, 16, &r));
  assert_int_equal(r, 32);
  assert_false(cml_dtype_bytes(CML_F64, UINT64_MAX / 32, &r));
  assert_true(cml_dtype_bytes(CML_U3, 3, &r));
  assert_int_equal(r, 2);
}

static void arena_keeps_its_limit(void **state) {
  (void)state;
  cml_arena a = CML_ARENA_INIT;
  a.limit = 1 << 16;
  size_t n = 0;
  for (unsigned char *p; (p = cml_arena_alloc(&a, 1000)); n++)
    for (int i = 0; i < 1000; i++) assert_int_equal(p[i], 0);
  assert_in_range(n, 30, 66);
  assert_null(cml_arena_array(&a, SIZE_MAX / 2, 4));
  cml_arena_free(&a);
  assert_non_null(cml_arena_alloc(&a, 1000));
  cml_arena_free(&a);
}

/* Each finite half is a multiple of 2^-24 that ldexp gives exactly; what lies halfway goes to the even neighbour. */
static void half_is_ieee(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 0x7c00; h++) {
    uint32_t e = h >> 10, m = h & 0x3ff;
    float want = e ? ldexpf((float)(1024 + m), (int)e - 25) : ldexpf((float)m, -24);
    assert_true(cml_f16_to_f32((cml_f16)h) == want);
    assert_int_equal(cml_f16_from_f32(want), h);
    assert_int_equal(cml_f16_from_f32(-want), h | 0x8000);
    if (h + 1 < 0x7c00) {
      float middle = (want + cml_f16_to_f32((cml_f16)(h + 1))) / 2;
      assert_int_equal(cml_f16_from_f32(middle), h + (h & 1));
      assert_int_equal(cml_f16_from_f32(nextafterf(middle, 1e9f)), h + 1);
      assert_int_equal(cml_f16_from_f32(nextafterf(middle, 0)), h);
    }
  }
  assert_int_equal(cml_f16_from_f32(65519.996f), 0x7bff);
  assert_int_equal(cml_f16_from_f32(65520.f), 0x7c00);
  assert_int_equal(cml_f16_from_f32(INFINITY), 0x7c00);
  assert_true(isnan(cml_f16_to_f32(cml_f16_from_f32(NAN))));
  assert_true(isinf(cml_f16_to_f32(0xfc00)));
  assert_int_equal(cml_bf16_from_f32(1.00390625f), 0x3f80);
  assert_int_equal(cml_bf16_from_f32(1.01171875f), 0x3f82);
}

static void json_strings_are_utf8(void **state) {
  (void)state;
  cml_buffer b = CML_BUFFER_INIT;
  cml_buffer_json_string(&b, "a\"\\\n\x01\xff\xc3\xa9\xed\xa0\x80", 11);
  assert_string_equal((char *)b.data, "\"a\\\"\\\\\\n\\u0001\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
  cml_buffer_free(&b);
}

static void errors_are_one_line(void **state) {
  (void)state;
  cml_error err;
  assert_int_equal(cml_fail(&err, CML_INVALID, 12, "found \"%s\"", "a\nb"), CML_INVALID);
  assert_string_equal(err.text, "found \"a?b\"");
  assert_int_equal(cml_error_prefix(&err, CML_INVALID, "item %d", 3), CML_INVALID);
  assert_string_equal(err.text, "item 3: found \"a?b\"");
  assert_int_equal(err.offset, 12);
  assert_int_equal(cml_status_exit_code(CML_ARGUMENT), 2);
}

static void pages_are_dropped_and_come_back(void **state) {
  (void)state;
  enum { SIZE = 1 << 20 };
  char path[] = "/tmp/cml-mapping-XXXXXX", *own = malloc(SIZE);
  int fd = mkstemp(path);
  assert_true(fd >= 0 && own);
  for (size_t i = 0; i < SIZE; i++) own[i] = (char)(i * 7 / 5);
  assert_int_equal(write(fd, own, SIZE), SIZE);
  cml_mapping *m;
  assert_ok(cml_mapping_from_fd(fd, path, &m, err));
  unlink(path);
  const uint8_t *data = cml_mapping_span(m).data;
  assert_memory_equal(data, own, SIZE);
  if (resident_kb(data) < SIZE / 1024) {
    cml_mapping_unref(m);
    free(own);
    skip_because("no /proc/self/smaps");
  }
  cml_mapping_drop(data + 5, SIZE / 2);
  assert_true(resident_kb(data) <= SIZE / 1024 / 2 + 8);
  cml_mapping_drop(own, SIZE); /* not mapped: stays what it is */
  assert_memory_equal(data, own, SIZE);
  cml_mapping_unref(m);
  free(own);
}

/* The files as Linux writes them for a container of two and a half cores, with a group around it that has four and less memory;
 * version 1 as in a container that sees its own group as the root. */
static void containers_set_limits(void **state) {
  (void)state;
  char folder[] = "/tmp/cml-test-XXXXXX", path[256], list[256];
  assert_non_null(mkdtemp(folder));
  static const struct {
    const char *name, *text;
  } files[] = {{"a", NULL}, {"a/b", NULL}, {"a/cpu.max", "400000 100000\n"}, {"a/memory.max", "1073741824\n"}, {"a/b/cpu.max", "250000 100000\n"},
               {"a/b/memory.max", "max\n"}, {"cpu,cpuacct", NULL}, {"memory", NULL}, {"cpu,cpuacct/cpu.cfs_quota_us", "150000\n"},
               {"cpu,cpuacct/cpu.cfs_period_us", "100000\n"}, {"memory/memory.limit_in_bytes", "9223372036854771712\n"},
               {"list2", "0::/a/b\n"}, {"list1", "12:memory:/docker/f\n4:cpu,cpuacct:/docker/f\n1:name=systemd:/docker/f\n0::/\n"}, {"none", "0::/elsewhere\nbroken\n::\n"},
               {"free", NULL}, {"free/cpu.max", "max 100000\n"}, {"free/memory.max", "x\n"}, {"listfree", "0::/free\n"}};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
    if (!files[i].text) {
      assert_int_equal(mkdir(path, 0700), 0);
      continue;
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(files[i].text, f);
    fclose(f);
  }
  static const struct {
    const char *list;
    size_t cores;
    uint64_t memory;
  } expected[] = {{"list2", 3, 1 << 30}, {"list1", 2, UINT64_C(1) << 40}, {"none", 64, UINT64_C(1) << 40}, {"listfree", 64, UINT64_C(1) << 40}, {"absent", 64, UINT64_C(1) << 40}};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    cml_machine m = {.cores = 64, .memory = UINT64_C(1) << 40};
    snprintf(list, sizeof list, "%s/%s", folder, expected[i].list);
    cml_machine_apply_groups(&m, list, folder);
    assert_int_equal(m.cores, expected[i].cores);
    assert_int_equal(m.memory, expected[i].memory);
  }
  for (size_t i = sizeof files / sizeof *files; i-- > 0;) {
    snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
    assert_int_equal(remove(path), 0);
  }
  assert_int_equal(rmdir(folder), 0);
  cml_machine here = cml_machine_limits();
  assert_in_range(here.cores, 1, sysconf(_SC_NPROCESSORS_CONF));
  assert_true(here.memory <= (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(cursor_is_sticky),      cmocka_unit_test(sums_do_not_wrap), cmocka_unit_test(arena_keeps_its_limit),
      cmocka_unit_test(half_is_ieee),          cmocka_unit_test(json_strings_are_utf8),
      cmocka_unit_test(errors_are_one_line),   cmocka_unit_test(pages_are_dropped_and_come_back), cmocka_unit_test(containers_set_limits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
