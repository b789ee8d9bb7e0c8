/* A mount shows the tree and nothing else, says where bytes lie, survives a file that shrinks under it, and leaves nothing
 * behind. Each test mounts at a place of its own; without FUSE all are skipped. */
#include "mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "test.h"

enum { BIG = 3 << 20, MANY = 3000, CRUMBS = 12000, CRUMB = 7 };

typedef struct fixture {
  char folder[64], file[96], place[96];
  uint8_t *bytes; /* what the file holds */
  pid_t server;
} fixture;

static cml_status generate(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node, (void)err;
  cml_buffer_text(out, context);
  return CML_OK;
}

/* Every CRUMB-th byte of the file: more pieces than one writev takes. */
static cml_status add_crumbs(cml_tree *tree, cml_node *folder, cml_mapping *m, cml_error *err) {
  static cml_piece crumbs[CRUMBS];
  for (size_t i = 0; i < CRUMBS; i++) crumbs[i] = (cml_piece){cml_mapping_span(m).data + i * CRUMB, 1, m, i * CRUMB};
  return cml_tree_add_file(tree, folder, "crumbs", 6, crumbs, CRUMBS, NULL, err);
}

/* a/big: the file from byte 4096 on, in two pieces; a/crumbs: in many; a/one: a part of it; a/text: generated; many empty files. */
static cml_status build_tree(const fixture *f, cml_tree **out, cml_error *err) {
  cml_mapping *m;
  cml_node *a;
  CML_TRY(cml_mapping_open(f->file, &m, err));
  CML_TRY(cml_tree_create("", out, err));
  cml_node *root = cml_tree_root_mutable(*out);
  const uint8_t *data = cml_mapping_span(m).data;
  cml_piece two[2] = {{data + 4096, 10000, m, 4096}, {data + 14096, BIG - 14096, m, 14096}}, one = {data + 100, 5000, m, 100};
  CML_TRY(cml_tree_add_folder(*out, root, "a", 1, &a, err));
  CML_TRY(cml_tree_add_file(*out, a, "big", 3, two, 2, NULL, err));
  CML_TRY(add_crumbs(*out, a, m, err));
  CML_TRY(cml_tree_add_file(*out, a, "one", 3, &one, 1, NULL, err));
  CML_TRY(cml_tree_add_generated(*out, a, "text", 4, generate, (void *)(uintptr_t) "made up\n", NULL, err));
  for (int i = 0; i < MANY; i++) { /* more than one reply holds */
    char name[32];
    CML_TRY(cml_tree_add_file(*out, a, name, (size_t)snprintf(name, sizeof name, "n%05d", i), NULL, 0, NULL, err));
  }
  cml_mapping_unref(m);
  return CML_OK;
}

static void write_file(fixture *f) {
  f->bytes = malloc(BIG);
  for (uint32_t i = 0, x = 1; i < BIG; i++) f->bytes[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
  int fd = open(f->file, O_CREAT | O_WRONLY | O_TRUNC, 0600);
  assert_int_equal(write(fd, f->bytes, BIG), BIG);
  close(fd);
}

/* In the child: serves until unmounted. Tells the parent 'm' (mounted), 's' (no FUSE) or 'e' through the pipe. */
static void serve(const fixture *f, int tell) {
  cml_tree *tree = NULL;
  cml_mount *mount = NULL;
  cml_error err = {0};
  cml_mount_options options = {.uid = 1234, .gid = 567, .umask = 027, .source = "a,b\\c"};
  cml_status status = build_tree(f, &tree, &err);
  if (!status) status = cml_mount_create(tree, f->place, &options, &mount, &err);
  char answer = status == CML_UNSUPPORTED ? 's' : status ? 'e' : 'm';
  if (status) fprintf(stderr, "# %s\n", err.text);
  (void)!write(tell, &answer, 1);
  close(tell);
  if (!status) status = cml_mount_serve(mount, &err);
  cml_mount_destroy(mount);
  cml_tree_unref(tree);
  _exit(status ? 1 : 0);
}

static int set_up(void **state) {
  fixture *f = *state = calloc(1, sizeof *f);
  int tell[2];
  char answer = 'e';
  snprintf(f->folder, sizeof f->folder, "/tmp/cml-mount-XXXXXX");
  if (!mkdtemp(f->folder) || pipe(tell)) return -1;
  snprintf(f->file, sizeof f->file, "%s/file", f->folder);
  snprintf(f->place, sizeof f->place, "%s/place", f->folder);
  write_file(f);
  f->server = fork();
  if (!f->server) serve(f, tell[1]);
  close(tell[1]);
  (void)!read(tell[0], &answer, 1);
  close(tell[0]);
  if (answer == 's') {
    waitpid(f->server, NULL, 0);
    f->server = 0;
  }
  return answer == 'e' ? -1 : 0;
}

static int tear_down(void **state) {
  fixture *f = *state;
  if (f->server) {
    umount2(f->place, MNT_DETACH);
    kill(f->server, SIGTERM);
    waitpid(f->server, NULL, 0);
  }
  unlink(f->file);
  rmdir(f->place);
  rmdir(f->folder);
  free(f->bytes);
  free(f);
  return 0;
}

static const char *below(const fixture *f, const char *path) {
  static char full[256];
  snprintf(full, sizeof full, "%s/%s", f->place, path);
  return full;
}

static void shows_the_bytes(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  int fd = open(below(f, "a/big"), O_RDONLY);
  assert_true(fd >= 0);
  uint8_t *got = malloc(BIG);
  size_t n = 0;
  for (ssize_t k; (k = read(fd, got + n, BIG - n)) > 0;) n += (size_t)k;
  assert_int_equal(n, BIG - 4096);
  assert_memory_equal(got, f->bytes + 4096, n);
  assert_int_equal(pread(fd, got, 300, 9900), 300); /* across the two pieces */
  assert_memory_equal(got, f->bytes + 13996, 300);
  assert_int_equal(pread(fd, got, 10, BIG), 0);
  uint8_t *map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
  assert_true(map != MAP_FAILED);
  assert_memory_equal(map, f->bytes + 4096, n);
  munmap(map, n);
  close(fd);
  fd = open(below(f, "a/text"), O_RDONLY);
  assert_int_equal(read(fd, got, 100), 8);
  assert_memory_equal(got, "made up\n", 8);
  close(fd);
  free(got);
}

static void crumbs_are_whole(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  uint8_t got[CRUMBS + 1];
  int fd = open(below(f, "a/crumbs"), O_RDONLY);
  assert_int_equal(pread(fd, got, sizeof got, 0), CRUMBS);
  for (size_t i = 0; i < CRUMBS; i++) assert_int_equal(got[i], f->bytes[i * CRUMB]);
  struct stat st;
  assert_int_equal(fstat(fd, &st), 0); /* a short reply would have told the kernel of an end */
  assert_int_equal(st.st_size, CRUMBS);
  close(fd);
}

static void crumbs_that_are_lost_are_an_error(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  uint8_t byte;
  int fd = open(below(f, "a/crumbs"), O_RDONLY);
  assert_int_equal(truncate(f->file, 4096), 0);
  assert_int_equal(pread(fd, &byte, 1, CRUMBS - 1), -1);
  assert_int_equal(errno, EIO);
  close(fd);
  assert_int_equal(access(below(f, "a/one"), R_OK), 0); /* the server lives */
}

static void shows_the_attributes(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  struct stat st;
  assert_int_equal(stat(below(f, "a/big"), &st), 0);
  assert_int_equal(st.st_size, BIG - 4096);
  assert_int_equal(st.st_mode, S_IFREG | 0440);
  assert_int_equal(st.st_uid, 1234);
  assert_int_equal(st.st_gid, 567);
  assert_int_equal(stat(below(f, "a"), &st), 0);
  assert_int_equal(st.st_mode, S_IFDIR | 0550);
  assert_int_equal(stat(below(f, "nothing"), &st), -1);
  assert_int_equal(errno, ENOENT);
  assert_int_equal(open(below(f, "new"), O_CREAT | O_WRONLY, 0600), -1);
  assert_int_equal(errno, EROFS);
  struct statvfs v;
  assert_int_equal(statvfs(f->place, &v), 0);
  assert_int_equal(v.f_files, MANY + 6);
}

static void lists_each_entry_once(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  DIR *d = opendir(below(f, "a"));
  assert_non_null(d);
  int numbered = 0, others = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == 'n') assert_int_equal(atoi(e->d_name + 1), numbered++);
    else others++;
  }
  closedir(d);
  assert_int_equal(numbered, MANY);
  assert_int_equal(others, 6); /* . .. big crumbs one text */
}

static void says_where_bytes_lie(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  char value[256] = "";
  assert_true(getxattr(below(f, "a/one"), "user.cml.offset", value, sizeof value) > 0);
  assert_string_equal(value, "100");
  memset(value, 0, sizeof value);
  assert_true(getxattr(below(f, "a/one"), "user.cml.source", value, sizeof value) > 0);
  assert_string_equal(value, f->file);
  assert_int_equal(listxattr(below(f, "a/one"), value, sizeof value), 16 + 14 + 16);
  assert_int_equal(getxattr(below(f, "a/text"), "user.cml.offset", value, sizeof value), -1);
  assert_int_equal(errno, ENODATA);
}

static void lost_bytes_are_an_error(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  int fd = open(below(f, "a/big"), O_RDONLY);
  char byte;
  assert_int_equal(truncate(f->file, 4096), 0);
  assert_int_equal(pread(fd, &byte, 1, BIG / 2), -1);
  assert_int_equal(errno, EIO);
  close(fd);
  fd = open(below(f, "a/text"), O_RDONLY); /* the server lives */
  assert_int_equal(read(fd, &byte, 1), 1);
  close(fd);
}

static void leaves_nothing_behind(void **state) {
  fixture *f = *state;
  if (!f->server) skip_because("no FUSE here: /dev/fuse is missing, or this user may not mount");
  int code = 0;
  assert_int_equal(kill(f->server, SIGTERM), 0);
  assert_int_equal(waitpid(f->server, &code, 0), f->server);
  f->server = 0;
  assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
  assert_int_equal(access(f->place, F_OK), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(shows_the_bytes, set_up, tear_down),
      cmocka_unit_test_setup_teardown(crumbs_are_whole, set_up, tear_down),
      cmocka_unit_test_setup_teardown(crumbs_that_are_lost_are_an_error, set_up, tear_down),
      cmocka_unit_test_setup_teardown(shows_the_attributes, set_up, tear_down),
      cmocka_unit_test_setup_teardown(lists_each_entry_once, set_up, tear_down),
      cmocka_unit_test_setup_teardown(says_where_bytes_lie, set_up, tear_down),
      cmocka_unit_test_setup_teardown(lost_bytes_are_an_error, set_up, tear_down),
      cmocka_unit_test_setup_teardown(leaves_nothing_behind, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
