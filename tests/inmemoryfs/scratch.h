/* A private folder for a test's files, removed at the end, and short ways to fill and read it. */
#ifndef CML_SCRATCH_H
#define CML_SCRATCH_H

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

static char scratch[256];

static int scratch_enter(void **state) {
  (void)state;
  const char *base = getenv("TMPDIR");
  snprintf(scratch, sizeof scratch, "%s/cml-test-XXXXXX", base ? base : "/tmp");
  return !mkdtemp(scratch) || chdir(scratch) ? -1 : 0;
}

static int scratch_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
  (void)st, (void)kind, (void)ftw;
  return remove(path);
}

static inline void scratch_remove(const char *path) { nftw(path, scratch_remove_one, 64, FTW_DEPTH | FTW_PHYS); }

static int scratch_leave(void **state) {
  (void)state;
  if (chdir("/")) return -1;
  scratch_remove(scratch);
  return 0;
}

static inline void put_file(const char *path, const void *data, size_t size) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, data, size), size);
  close(fd);
}

static inline void put_text(const char *path, const char *text) { put_file(path, text, strlen(text)); }

/* A malloc'ed copy with a NUL behind it; NULL when there is no such file. */
static inline char *get_file(const char *path, size_t *out_size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  struct stat st;
  assert_int_equal(fstat(fd, &st), 0);
  char *data = malloc((size_t)st.st_size + 1);
  assert_non_null(data);
  assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
  data[st.st_size] = 0;
  close(fd);
  if (out_size) *out_size = (size_t)st.st_size;
  return data;
}


#endif
