/* mmap with MAP_PRIVATE | PROT_READ. A file that shrinks under a mapping raises SIGBUS in whoever touches
 * the lost pages; system calls that read from the mapping (write, writev) get EFAULT instead. */
#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct cml_mapping {
  cml_span span;
  int fd;
  bool mapped;
  atomic_uint references;
  uint64_t identity[4]; /* device, inode, size, time of change */
  cml_mapping *next, **place; /* of all that are mapped */
  char path[];
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static cml_mapping *list;

static void list_add(cml_mapping *m) {
  pthread_mutex_lock(&list_lock);
  m->next = list;
  m->place = &list;
  if (list) list->place = &m->next;
  list = m;
  pthread_mutex_unlock(&list_lock);
}

static void list_remove(cml_mapping *m) {
  pthread_mutex_lock(&list_lock);
  *m->place = m->next;
  if (m->next) m->next->place = m->place;
  pthread_mutex_unlock(&list_lock);
}

static cml_mapping *mapping_create(const char *path) {
  size_t n = strlen(path);
  cml_mapping *m = calloc(1, sizeof *m + n + 1);
  if (!m) return NULL;
  memcpy(m->path, path, n + 1);
  m->fd = -1;
  atomic_init(&m->references, 1);
  return m;
}

cml_status cml_mapping_from_fd(int fd, const char *path, cml_mapping **out, cml_error *err) {
  cml_mapping *m = mapping_create(path);
  if (!m) {
    close(fd);
    return cml_fail_memory(err);
  }
  struct stat st;
  cml_status status = CML_OK;
  m->fd = fd;
  if (fstat(m->fd, &st)) {
    status = cml_fail_errno(err, errno, "cannot read its size");
    goto done;
  }
  if (!S_ISREG(st.st_mode)) {
    status = cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "not a regular file");
    goto done;
  }
  m->span.size = (size_t)st.st_size;
  m->identity[0] = (uint64_t)st.st_dev;
  m->identity[1] = (uint64_t)st.st_ino;
  m->identity[2] = (uint64_t)st.st_size;
  m->identity[3] = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
  if (m->span.size) {
    void *p = mmap(NULL, m->span.size, PROT_READ, MAP_PRIVATE, m->fd, 0);
    if (p == MAP_FAILED) {
      status = cml_fail_errno(err, errno, "cannot map %zu bytes", m->span.size);
      m->span.size = 0;
      goto done;
    }
    m->span.data = p;
    m->mapped = true;
    list_add(m);
  }
done:
  if (status) cml_mapping_unref(m);
  else *out = m;
  return status;
}

cml_status cml_mapping_open_at(int folder_fd, const char *name, cml_mapping **out, cml_error *err) {
  int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (folder_fd == AT_FDCWD ? 0 : O_NOFOLLOW);
  int fd = openat(folder_fd, name, flags);
  if (fd < 0 && errno == ENOENT) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "no such file");
  if (fd < 0) return cml_fail_errno(err, errno, "cannot open");
  return cml_mapping_from_fd(fd, name, out, err);
}

cml_status cml_mapping_open(const char *path, cml_mapping **out, cml_error *err) {
  return cml_mapping_open_at(AT_FDCWD, path, out, err);
}

cml_status cml_mapping_own(void *data, size_t size, const char *path, cml_mapping **out, cml_error *err) {
  cml_mapping *m = mapping_create(path);
  if (!m) return cml_fail_memory(err);
  m->span = (cml_span){data, size};
  *out = m;
  return CML_OK;
}

cml_mapping *cml_mapping_ref(cml_mapping *m) {
  atomic_fetch_add_explicit(&m->references, 1, memory_order_relaxed);
  return m;
}

void cml_mapping_unref(cml_mapping *m) {
  if (!m || atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel) != 1) return;
  if (m->mapped) {
    list_remove(m);
    munmap((void *)(uintptr_t)m->span.data, m->span.size);
  } else {
    free((void *)(uintptr_t)m->span.data);
  }
  if (m->fd >= 0) close(m->fd);
  free(m);
}

/* Under the lock: the mapping may not go meanwhile. */
static const cml_mapping *list_find(uintptr_t begin, uintptr_t end) {
  const cml_mapping *m = list;
  while (m && !(begin >= (uintptr_t)m->span.data && end - (uintptr_t)m->span.data <= m->span.size)) m = m->next;
  return m;
}

bool cml_mapping_identify(const void *data, size_t size, uint64_t out[5]) {
  pthread_mutex_lock(&list_lock);
  const cml_mapping *m = list_find((uintptr_t)data, (uintptr_t)data + size);
  if (m) {
    memcpy(out, m->identity, sizeof m->identity);
    out[4] = (uint64_t)((uintptr_t)data - (uintptr_t)m->span.data);
  }
  pthread_mutex_unlock(&list_lock);
  return m != NULL;
}

void cml_mapping_drop(const void *data, size_t size) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)data + page - 1) & ~(page - 1), end = ((uintptr_t)data + size) & ~(page - 1);
  if (end <= begin) return;
  pthread_mutex_lock(&list_lock);
  if (list_find(begin, end)) (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
  pthread_mutex_unlock(&list_lock);
}

cml_span cml_mapping_span(const cml_mapping *m) { return m->span; }
const char *cml_mapping_path(const cml_mapping *m) { return m->path; }
int cml_mapping_fd(const cml_mapping *m) { return m->fd; }
