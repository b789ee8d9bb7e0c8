/* Packed weights between loads: the second load finds what the first one packed and computes the same; a damaged file is
 * packed anew and replaced; another model or processes at the same time disturb nothing. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"
#include "executable.h"
#include "test.h"

enum { PIXELS = 64, CLASSES = 10 };

static char folder[64];

typedef struct result {
  double classes[CLASSES];
  uint64_t found, packed;
  bool written;
} result;

static result load_and_run(const char *cache) {
  cml_container *c = NULL;
  cml_model *model = NULL;
  cml_executable *executable = NULL;
  cml_session *s = NULL;
  result r = {{0}, 0, 0, false};
  float pixels[PIXELS];
  char path[4096];
  for (int k = 0; k < PIXELS; k++) pixels[k] = (float)(k * 37 % 256);
  snprintf(path, sizeof path, "%s/tests/data/digits/digits.pte", getenv("CML_SOURCE"));
  assert_ok(cml_container_open(path, NULL, &c, err));
  const cml_container_model *m = cml_container_model_at(c, 0);
  assert_ok(cml_model_read(m->tree, m->root, NULL, &model, err));
  const cml_prepare_options options = {.function = m->function, .threads = 2, .cache = cache};
  assert_ok(cml_executable_prepare(model, &options, &executable, err));
  assert_ok(cml_session_create(executable, &s, err));
  cml_tensor t = {.dtype = CML_F32, .rank = 4, .dims = {1, 1, 8, 8}, .data = pixels};
  assert_ok(cml_session_set_input(s, cml_executable_inputs(executable)->items[0].name, &t, err));
  assert_ok(cml_session_run(s, err));
  for (int i = 0; i < CLASSES; i++) r.classes[i] = cml_tensor_get(cml_session_output(s, 0), i);
  cml_executable_cached(executable, &r.found, &r.packed, &r.written);
  cml_session_destroy(s);
  cml_executable_unref(executable);
  cml_model_close(model);
  cml_container_close(c);
  return r;
}

/* The one file of the cache; fails when there is another, say a temporary one that was left. */
static void cache_file(char path[400]) {
  DIR *d = opendir(folder);
  int count = 0;
  assert_non_null(d);
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.') snprintf(path, 400, "%s/%s", folder, e->d_name), count++;
  closedir(d);
  assert_int_equal(count, 1);
}

static int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/cml-cache-XXXXXX");
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));)
    if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
  if (d) closedir(d);
  return rmdir(folder);
}

static void the_second_load_finds_what_the_first_packed(void **state) {
  (void)state;
  result none = load_and_run(NULL), first = load_and_run(folder), second = load_and_run(folder);
  assert_int_equal(none.found + none.packed, 0);
  assert_true(first.packed > 0 && first.written && !first.found);
  assert_true(second.found == first.packed && !second.packed && !second.written);
  assert_memory_equal(first.classes, none.classes, sizeof none.classes);
  assert_memory_equal(second.classes, none.classes, sizeof none.classes);
}

static void check_replaced(const result *good, const char *what) {
  result damaged = load_and_run(folder), after = load_and_run(folder);
  if (damaged.found || !damaged.written) fail_msg("%s: a damaged file was used", what);
  assert_memory_equal(damaged.classes, good->classes, sizeof good->classes);
  assert_true(after.found > 0 && !after.packed);
}

static void a_damaged_file_is_replaced(void **state) {
  (void)state;
  char path[400], what[64];
  struct stat st;
  result good = load_and_run(folder);
  cache_file(path);
  assert_int_equal(stat(path, &st), 0);
  for (int i = 0; i < 16; i++) { /* shorter by something */
    snprintf(what, sizeof what, "cut, %d", i);
    assert_int_equal(truncate(path, st.st_size * i / 16), 0);
    check_replaced(&good, what);
  }
  for (int i = 0; i < 48; i++) { /* one bit is another; the small file is checked as a whole, but for gaps in the data */
    off_t at = i < 16 ? i * 4 : st.st_size * (i - 16) / 32;
    unsigned char byte = 0;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= (unsigned char)(1 << i % 8);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    snprintf(what, sizeof what, "bit at %lld", (long long)at);
    check_replaced(&good, what);
  }
}

static void processes_may_write_at_once(void **state) {
  (void)state;
  enum { PROCESSES = 6 };
  pid_t pids[PROCESSES];
  char path[400];
  result good = load_and_run(NULL);
  for (int i = 0; i < PROCESSES; i++) {
    pids[i] = fork();
    assert_true(pids[i] >= 0);
    if (!pids[i]) {
      bool ok = true;
      for (int k = 0; k < 4; k++) {
        result r = load_and_run(folder);
        ok = ok && !memcmp(r.classes, good.classes, sizeof r.classes) && r.found + r.packed > 0;
      }
      _exit(ok ? 0 : 1);
    }
  }
  for (int i = 0; i < PROCESSES; i++) {
    int status;
    assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
    assert_int_equal(status, 0);
  }
  cache_file(path);
  assert_true(load_and_run(folder).found > 0);
}

static void a_folder_that_cannot_be_written_is_no_error(void **state) {
  (void)state;
  result r = load_and_run("/proc/nothing/here"), good = load_and_run(NULL);
  assert_true(r.packed > 0 && !r.written);
  assert_memory_equal(r.classes, good.classes, sizeof r.classes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(the_second_load_finds_what_the_first_packed, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(a_damaged_file_is_replaced, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(processes_may_write_at_once, make_folder, remove_folder),
      cmocka_unit_test(a_folder_that_cannot_be_written_is_no_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
