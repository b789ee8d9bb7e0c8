/* See output.h. The name is claimed by link, or by a rename that refuses to replace, so two writers of one name cannot
 * both believe that they won. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static cml_status fail_exists(cml_error *err) { return cml_fail(err, CML_EXISTS, CML_NO_OFFSET, "already exists"); }

/* "a/b/" is folder "a" and name "b". */
static cml_status open_parent(cml_output *o, const char *path, cml_error *err) {
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/') end--;
  size_t start = end;
  while (start && path[start - 1] != '/') start--;
  size_t size = end - start;
  if (!size || size >= sizeof o->name || start >= PATH_MAX)
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "the path is empty, too long or has no last component");
  memcpy(o->name, path + start, size);
  o->name[size] = 0;
  if (!strcmp(o->name, "..") || !strcmp(o->name, ".")) return fail_exists(err);
  char parent[PATH_MAX] = ".";
  if (start) {
    memcpy(parent, path, start);
    parent[start] = 0;
  }
  o->parent = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (o->parent >= 0) return CML_OK;
  if (errno == ENOENT) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "there is no folder %s to write into", parent);
  return cml_fail_errno(err, errno, "cannot open the folder %s", parent);
}

static void choose_temporary(cml_output *o) {
  uint64_t random = 0;
  struct timespec now;
  if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    random = (uint64_t)now.tv_nsec * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)now.tv_sec;
  }
  snprintf(o->temporary, sizeof o->temporary, ".cml-tmp-%ld-%016llx", (long)getpid(), (unsigned long long)random);
}

static cml_status make_file(cml_output *o, cml_error *err) {
  if (!access("/proc/self/fd", X_OK)) { /* else a nameless file could not be given a name */
    o->fd = openat(o->parent, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (o->fd >= 0) return CML_OK;
  }
  for (int tries = 0; tries < 8; tries++) {
    choose_temporary(o);
    o->fd = openat(o->parent, o->temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (o->fd >= 0) return CML_OK;
    if (errno != EEXIST) break;
  }
  o->temporary[0] = 0;
  return cml_fail_errno(err, errno, "cannot make a file");
}

static cml_status make_folder(cml_output *o, cml_error *err) {
  for (int tries = 0; tries < 8; tries++) {
    choose_temporary(o);
    if (!mkdirat(o->parent, o->temporary, 0777)) {
      o->fd = openat(o->parent, o->temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      return o->fd >= 0 ? CML_OK : cml_fail_errno(err, errno, "cannot open a folder just made");
    }
    if (errno != EEXIST) break;
  }
  o->temporary[0] = 0;
  return cml_fail_errno(err, errno, "cannot make a folder");
}

cml_status cml_output_open(cml_output *o, const char *path, bool folder, bool replace, cml_error *err) {
  *o = (cml_output){.parent = -1, .fd = -1, .folder = folder, .replace = replace && !folder};
  struct stat st;
  cml_status status = open_parent(o, path, err);
  if (!status && !fstatat(o->parent, o->name, &st, AT_SYMLINK_NOFOLLOW) && (!o->replace || !S_ISREG(st.st_mode)))
    status = fail_exists(err);
  if (!status) status = folder ? make_folder(o, err) : make_file(o, err);
  if (status) cml_output_abort(o);
  return status;
}

/* Links a nameless file to a name. */
static int give_name(const cml_output *o, const char *name) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", o->fd);
  if (!linkat(AT_FDCWD, path, o->parent, name, AT_SYMLINK_FOLLOW)) return 0;
  if (errno == EEXIST) return -1;
  return linkat(o->fd, "", o->parent, name, AT_EMPTY_PATH);
}

static int rename_new(const cml_output *o) {
  if (o->replace) return renameat(o->parent, o->temporary, o->parent, o->name);
  if (!renameat2(o->parent, o->temporary, o->parent, o->name, RENAME_NOREPLACE)) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  struct stat st; /* a file system without RENAME_NOREPLACE: look, then rename */
  if (!fstatat(o->parent, o->name, &st, AT_SYMLINK_NOFOLLOW)) return errno = EEXIST, -1;
  return renameat(o->parent, o->temporary, o->parent, o->name);
}

cml_status cml_output_commit(cml_output *o, cml_error *err) {
  int failed = -1;
  if (!o->temporary[0]) {
    failed = give_name(o, o->name);
    if (failed && errno == EEXIST && o->replace) {
      choose_temporary(o);
      failed = give_name(o, o->temporary);
      if (failed) o->temporary[0] = 0;
      else failed = rename_new(o);
    }
  } else {
    failed = rename_new(o);
  }
  if (!failed) {
    o->temporary[0] = 0;
    if (close(o->fd)) failed = -1;
    o->fd = -1;
    if (failed) return cml_fail_errno(err, errno, "cannot finish %s", o->name);
    close(o->parent);
    o->parent = -1;
    return CML_OK;
  }
  return errno == EEXIST ? fail_exists(err) : cml_fail_errno(err, errno, "cannot name the result %s", o->name);
}

void cml_output_abort(cml_output *o) {
  if (o->fd >= 0) close(o->fd);
  if (o->temporary[0]) unlinkat(o->parent, o->temporary, o->folder ? AT_REMOVEDIR : 0);
  if (o->parent >= 0) close(o->parent);
  o->fd = o->parent = -1;
  o->temporary[0] = 0;
}
