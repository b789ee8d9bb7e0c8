/* flatbuffer: buffers made by hand from the format's description are read as written down and refused where they lie;
 * what the writer makes has the bytes that the format asks for. */
#include "test.h"

#include "flatbuffer.h"

/* ---- reading ---- */

/* Root at 20: vtable at 12 {8 bytes, table 12, field 0 at 4, field 1 at 8}; field 0 = 42, field 1 -> string at 32 "hey". */
static const uint8_t honest[] = {
    20, 0, 0, 0, 'T', 'E', 'S', 'T', 0, 0, 0, 0, /* root, identifier, padding */
    8,  0, 12, 0, 4, 0, 8, 0,                    /* 12: vtable */
    8,  0, 0, 0, 42, 0, 0, 0, 4, 0, 0, 0,        /* 20: table */
    3,  0, 0, 0, 'h', 'e', 'y', 0,               /* 32: string */
};

static void reads_by_hand(void **state) {
  (void)state;
  cml_fb fb;
  cml_fb_init(&fb, cml_span_of(honest, sizeof honest));
  cml_fb_table t = cml_fb_root(&fb, "TEST");
  assert_int_equal(cml_fb_u32(&fb, &t, 0, 7), 42);
  assert_int_equal(cml_fb_u32(&fb, &t, 2, 7), 7); /* not in the vtable */
  cml_string s = cml_fb_string(&fb, &t, 1);
  assert_int_equal(s.size, 3);
  assert_string_equal(s.data, "hey");
  assert_ok(cml_fb_check(&fb, err));
}

/* Reads everything that `honest` has, from a copy with one value changed; the failure must lie at `where`. */
static void expect_failure(size_t at, uint32_t value, size_t width, size_t size, uint64_t where, cml_status status) {
  uint8_t *bytes = malloc(size);
  memcpy(bytes, honest, size);
  memcpy(bytes + at, &value, width);
  cml_fb fb;
  cml_error error = {0};
  cml_fb_init(&fb, cml_span_of(bytes, size));
  cml_fb_table t = cml_fb_root(&fb, "TEST");
  cml_fb_u32(&fb, &t, 0, 0);
  cml_fb_string(&fb, &t, 1);
  assert_int_equal(cml_fb_check(&fb, &error), status);
  if (error.offset != where) fail_msg("%s: at %d, expected %d", error.text, (int)error.offset, (int)where);
  free(bytes);
}

static void refuses_what_does_not_fit(void **state) {
  (void)state;
  size_t all = sizeof honest;
  expect_failure(4, 'X', 1, all, 4, CML_INVALID);          /* another identifier */
  expect_failure(0, 0, 4, all, 0, CML_INVALID);            /* the root leads to itself */
  expect_failure(0, 400, 4, all, 0, CML_INVALID);          /* beyond the end */
  expect_failure(0, 0xffffffff, 4, all, 0, CML_INVALID);
  expect_failure(0, 38, 4, all, 38, CML_INVALID);          /* a table of two bytes at the end */
  expect_failure(20, 100, 4, all, 20, CML_INVALID);        /* a vtable before the start */
  expect_failure(20, (uint32_t)-30, 4, all, 20, CML_INVALID); /* and behind the end */
  expect_failure(20, 0x80000000, 4, all, 20, CML_INVALID);
  expect_failure(12, 200, 2, all, 12, CML_INVALID);        /* a vtable longer than the buffer */
  expect_failure(12, 3, 2, all, 12, CML_INVALID);          /* shorter than its own header */
  expect_failure(12, 9, 2, all, 12, CML_INVALID);          /* odd */
  expect_failure(14, 2, 2, all, 12, CML_INVALID);          /* a table without room for its first distance */
  expect_failure(16, 2, 2, all, 16, CML_INVALID);          /* a field inside that distance */
  expect_failure(16, 18, 2, all, 16, CML_INVALID);         /* a field across the end */
  expect_failure(28, 0, 4, all, 28, CML_INVALID);          /* a string at its own offset */
  expect_failure(28, 9, 4, all, 37, CML_INVALID);          /* a length that is cut off */
  expect_failure(32, 0xffffffff, 4, all, 32, CML_INVALID); /* huge counts */
  expect_failure(32, 5, 4, all, 32, CML_INVALID);
  expect_failure(32, 4, 4, all, 32, CML_INVALID);          /* the NUL would lie behind the end */
  expect_failure(39, 'x', 1, all, 32, CML_INVALID);        /* no NUL */
  expect_failure(4, 'T', 1, 39, 32, CML_INVALID);          /* cut */
  expect_failure(4, 'T', 1, 7, 0, CML_INVALID);
}

static void failures_are_sticky(void **state) {
  (void)state;
  uint8_t bytes[sizeof honest];
  memcpy(bytes, honest, sizeof bytes);
  bytes[39] = 'x';
  cml_fb fb;
  cml_fb_init(&fb, cml_span_of(bytes, sizeof bytes));
  cml_fb_table t = cml_fb_root(&fb, NULL);
  assert_null(cml_fb_string(&fb, &t, 1).data);
  assert_int_equal(cml_fb_u32(&fb, &t, 0, 7), 7); /* as if absent */
  cml_fb_fail(&fb, 1, "later");
  cml_error error;
  assert_int_equal(cml_fb_check(&fb, &error), CML_INVALID);
  assert_int_equal(error.offset, 32); /* the first one stays */
}

/* Python's and Go's builders share vtables between tables whose fields start at the same places, so that the table's
 * size in it may be another one's. */
static void table_sizes_may_lie(void **state) {
  (void)state;
  for (uint8_t size = 4; size < 40; size++) {
    uint8_t bytes[sizeof honest];
    memcpy(bytes, honest, sizeof bytes);
    bytes[14] = size;
    cml_fb fb;
    cml_fb_init(&fb, cml_span_of(bytes, sizeof bytes));
    cml_fb_table t = cml_fb_root(&fb, "TEST");
    assert_int_equal(cml_fb_u32(&fb, &t, 0, 7), 42);
    assert_string_equal(cml_fb_string(&fb, &t, 1).data, "hey");
    assert_ok(cml_fb_check(&fb, err));
  }
}

/* A vector whose entries all lead to one table is honest once, and an attack when it is nested: reading it over and over
 * stands for the levels. */
static void sharing_has_a_price(void **state) {
  (void)state;
  enum { N = 4000, VTABLE = 8, ROOT = 16, LIST = 24, LEAF = LIST + 4 + 4 * N, SIZE = LEAF + 8 };
  uint8_t *b = calloc(1, SIZE);
  memcpy(b + VTABLE, (const uint16_t[]){6, 8, 4}, 6);
#define PUT(at, value) memcpy(b + (at), &(uint32_t){value}, 4)
  PUT(0, ROOT);
  PUT(ROOT, ROOT - VTABLE);
  PUT(ROOT + 4, LIST - ROOT - 4);
  PUT(LIST, N);
  for (uint32_t i = 0; i < N; i++) PUT(LIST + 4 + 4 * i, LEAF - (LIST + 4 + 4 * i));
  PUT(LEAF, LEAF - VTABLE);
#undef PUT
  cml_fb fb;
  cml_fb_init(&fb, cml_span_of(b, SIZE));
  cml_fb_table root = cml_fb_root(&fb, NULL);
  cml_error error;
  size_t visits = 0;
  for (int level = 0; level < 100 && !cml_fb_failed(&fb); level++) {
    cml_fb_vector list = cml_fb_vector_of(&fb, &root, 0, 4);
    for (uint32_t i = 0; i < list.count && !cml_fb_failed(&fb); i++) visits += cml_fb_table_at(&fb, &list, i).at == LEAF;
  }
  assert_int_equal(cml_fb_check(&fb, &error), CML_LIMIT);
  assert_in_range(visits, SIZE / 100, SIZE);
  free(b);
}

/* ---- writing ---- */

static void writes_by_hand(void **state) {
  (void)state;
  cml_fb_writer w = CML_FB_WRITER_INIT;
  cml_buffer b = CML_BUFFER_INIT;
  cml_fb_ref s = cml_fb_put_string(&w, (cml_string){"hey", 3});
  cml_fb_begin(&w);
  cml_fb_add_u32(&w, 0, 42, 0);
  cml_fb_add_ref(&w, 1, s);
  cml_fb_add_u32(&w, 2, 9, 9); /* the default: left out */
  cml_fb_ref root = cml_fb_end(&w);
  assert_ok(cml_fb_layout(&w, root, &(cml_fb_layout_options){.identifier = "TEST"}, err));
  assert_ok(cml_fb_write(&w, NULL, cml_sink_to_buffer(&b), err));
  static const uint8_t expected[] = {
      16, 0, 0, 0, 'T', 'E', 'S', 'T', 8, 0, 12, 0, 4, 0, 8, 0, /* vtable at 8, without a gap before it */
      8,  0, 0, 0, 42, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 'h', 'e', 'y', 0,
  };
  assert_int_equal(b.size, sizeof expected);
  assert_int_equal(w.size, sizeof expected);
  assert_memory_equal(b.data, expected, sizeof expected);
  cml_buffer_free(&b);
  cml_fb_writer_free(&w);
}

static void aligns_and_shares(void **state) {
  (void)state;
  static const uint8_t payload[5000] = {1, 2, 3};
  cml_fb_writer w = CML_FB_WRITER_INIT;
  cml_buffer b = CML_BUFFER_INIT;
  cml_fb_ref bytes = cml_fb_put_bytes(&w, cml_span_of(payload, sizeof payload), 256), children[3];
  const int64_t wide[] = {-1, INT64_MIN};
  cml_fb_ref numbers = cml_fb_put_vector(&w, wide, 2, 8, 8);
  for (uint32_t i = 0; i < 3; i++) {
    cml_fb_begin(&w);
    cml_fb_add_u8(&w, 0, (uint8_t)(i + 1), 0);
    cml_fb_add_f64(&w, 1, i + 0.5, 0);
    children[i] = cml_fb_end(&w);
  }
  cml_fb_ref list = cml_fb_put_refs(&w, children, 3);
  cml_fb_put_string(&w, (cml_string){"nobody refers to this", 21});
  cml_fb_begin(&w);
  cml_fb_add_ref(&w, 0, bytes);
  cml_fb_add_union(&w, 1, 5, children[1]); /* shared with the list */
  cml_fb_add_ref(&w, 3, list);
  cml_fb_add_ref(&w, 4, numbers);
  cml_fb_add_struct(&w, 5, cml_span_of("abcdefghijkl", 12), 4);
  cml_fb_ref root = cml_fb_end(&w);
  assert_ok(cml_fb_layout(&w, root, &(cml_fb_layout_options){"TEST", 32, true}, err));
  assert_ok(cml_fb_write(&w, "0123456789abcdef0123456789abcdef", cml_sink_to_buffer(&b), err));
  assert_int_equal(b.size, w.size);
  assert_int_equal(cml_load_u32(b.data), b.size - 4); /* the size prefix */
  assert_memory_equal(b.data + 12, "0123456789abcdef", 16);
  assert_null(memmem(b.data, b.size, "nobody", 6));

  cml_fb fb;
  cml_fb_init(&fb, cml_span_of(b.data + 4, b.size - 4));
  cml_fb_table t = cml_fb_root(&fb, "TEST");
  cml_span read = cml_fb_bytes(&fb, &t, 0);
  assert_true(cml_span_equal(read, cml_span_of(payload, sizeof payload)));
  assert_int_equal((read.data - b.data) % 256, 0);
  uint8_t type;
  cml_fb_table shared = cml_fb_union(&fb, &t, 1, &type);
  assert_int_equal(type, 5);
  cml_fb_vector v = cml_fb_vector_of(&fb, &t, 3, 4);
  assert_int_equal(v.count, 3);
  for (uint32_t i = 0; i < 3; i++) {
    cml_fb_table c = cml_fb_table_at(&fb, &v, i);
    assert_int_equal(cml_fb_u8(&fb, &c, 0, 0), i + 1);
    assert_true(cml_fb_f64(&fb, &c, 1, 0) == i + 0.5);
    assert_int_equal((cml_fb_field(&fb, &c, 1, 8) + 4) % 8, 0);
    assert_int_equal(c.vtable, shared.vtable);
    if (i == 1) assert_int_equal(c.at, shared.at);
  }
  v = cml_fb_vector_of(&fb, &t, 4, 8);
  assert_int_equal((v.at + 4) % 8, 0);
  assert_memory_equal(cml_fb_element(&fb, &v, 0), wide, sizeof wide);
  assert_memory_equal(cml_fb_struct(&fb, &t, 5, 12).data, "abcdefghijkl", 12);
  assert_ok(cml_fb_check(&fb, err));
  cml_buffer_free(&b);
  cml_fb_writer_free(&w);
}

static void misuse_is_an_error(void **state) {
  (void)state;
  cml_error error;
  cml_fb_writer w = CML_FB_WRITER_INIT;
  cml_fb_begin(&w);
  cml_fb_add_ref(&w, 0, 12); /* nobody put that */
  assert_int_equal(cml_fb_layout(&w, cml_fb_end(&w), NULL, &error), CML_ARGUMENT);
  cml_fb_writer_free(&w);
  cml_fb_begin(&w);
  cml_fb_add_u8(&w, 3, 1, 0);
  cml_fb_add_u8(&w, 3, 2, 0); /* twice */
  assert_int_equal(cml_fb_layout(&w, cml_fb_end(&w), NULL, &error), CML_ARGUMENT);
  cml_fb_writer_free(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_by_hand),       cmocka_unit_test(refuses_what_does_not_fit), cmocka_unit_test(failures_are_sticky),
      cmocka_unit_test(sharing_has_a_price), cmocka_unit_test(writes_by_hand),            cmocka_unit_test(aligns_and_shares),
      cmocka_unit_test(misuse_is_an_error),  cmocka_unit_test(table_sizes_may_lie),
  };
  return cmocka_run_group_tests_name("flatbuffer", tests, NULL, NULL);
}
