/* Small pieces wait in a batch and leave by one writev, straight from the mapping they lie in; a large piece makes the
 * batch leave first and then goes by copy_file_range, which moves pages inside the kernel. Mapped bytes are only ever
 * touched by system calls: where a file was cut short under its mapping these fail, while reading would kill the process. */
#include "outflow.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree_internal.h"

enum {
  KERNEL_COPY_MIN = 128 << 10, /* below this a batch of pieces in one writev is faster */
  KERNEL_COPY_MAX = 16 << 20,  /* at once, so that progress and cancelling are told of in time */
  STAGED_FILE_MAX = 64 << 10,  /* files on disk up to here are read into the staging memory */
  COPIED_MAX = 256,            /* pieces up to here are copied there: cheaper than an iovec each */
  ZEROS = 64 << 10,            /* more zeros than these become a hole */
};

static const uint8_t zeros[ZEROS];

cml_status cml_outflow_open(cml_outflow *s, const cml_write_options *options, uint64_t total, cml_error *err) {
  memset(s, 0, sizeof *s);
  s->fd = s->near_fd = -1;
  s->total = total;
  s->kernel_copies = true;
  if (options) s->options = *options;
  s->err = err;
  s->staging = malloc(CML_OUTFLOW_STAGING);
  return s->staging ? CML_OK : cml_fail_memory(err);
}

void cml_outflow_close(cml_outflow *s) {
  free(s->staging);
  s->staging = NULL;
  if (s->near_fd >= 0) close(s->near_fd);
  s->near_fd = -1;
}

void cml_outflow_target(cml_outflow *s, int fd, bool sparse) {
  s->fd = fd;
  s->sparse = sparse;
  s->hole_at_end = false;
  s->position = 0;
  s->batched = 0;
  s->batch_bytes = s->staged = 0;
}

bool cml_outflow_may_be_sparse(int fd) {
  struct stat st;
  int flags = fcntl(fd, F_GETFL);
  return !fstat(fd, &st) && S_ISREG(st.st_mode) && flags >= 0 && !(flags & O_APPEND) && lseek(fd, 0, SEEK_CUR) == st.st_size;
}

cml_status cml_outflow_report(cml_outflow *s) {
  s->next_report = s->done + KERNEL_COPY_MAX;
  if (!s->options.progress || s->options.progress(s->options.progress_context, s->done, s->total)) return CML_OK;
  return cml_fail(s->err, CML_CANCELLED, CML_NO_OFFSET, "stopped on request");
}

static cml_status count_out(cml_outflow *s, size_t n) {
  s->done += n;
  return s->done >= s->next_report ? cml_outflow_report(s) : CML_OK;
}

static cml_status fail_write(cml_outflow *s, int code) {
  if (code == EFAULT) return cml_fail(s->err, CML_IO, CML_NO_OFFSET, "a mapped source file became shorter or cannot be read");
  return cml_fail_errno(s->err, code, "cannot write");
}

static cml_status flush(cml_outflow *s) {
  struct iovec *at = s->batch;
  unsigned left = s->batched;
  cml_status status = CML_OK;
  while (left && !status) {
    ssize_t n = writev(s->fd, at, (int)left);
    if (n < 0 && errno == EINTR) {
      status = cml_outflow_report(s);
      continue;
    }
    if (n <= 0) return fail_write(s, n ? errno : ENOSPC);
    status = count_out(s, (size_t)n);
    size_t gone = (size_t)n;
    for (; left && gone >= at->iov_len; at++, left--) gone -= at->iov_len;
    if (left) {
      at->iov_base = (uint8_t *)at->iov_base + gone;
      at->iov_len -= gone;
    }
  }
  s->batched = 0;
  s->batch_bytes = s->staged = 0;
  return status;
}

static cml_status push(cml_outflow *s, const void *data, size_t size) {
  struct iovec *last = s->batched ? &s->batch[s->batched - 1] : NULL;
  if (!size) return CML_OK;
  s->position += size;
  s->batch_bytes += size;
  s->hole_at_end = false;
  if (last && (uint8_t *)last->iov_base + last->iov_len == data) last->iov_len += size;
  else s->batch[s->batched++] = (struct iovec){(void *)(uintptr_t)data, size};
  return s->batched == CML_OUTFLOW_BATCH || s->batch_bytes >= CML_OUTFLOW_STAGING * 2 ? flush(s) : CML_OK;
}

cml_status cml_outflow_bytes(cml_outflow *s, const void *data, size_t size) {
  const uint8_t *p = data;
  while (size) {
    if (s->staged == CML_OUTFLOW_STAGING) CML_TRY(flush(s));
    size_t room = CML_OUTFLOW_STAGING - s->staged, n = size < room ? size : room;
    uint8_t *to = s->staging + s->staged;
    memcpy(to, p, n);
    s->staged += n;
    CML_TRY(push(s, to, n));
    p += n;
    size -= n;
  }
  return CML_OK;
}

cml_status cml_outflow_lasting(cml_outflow *s, const void *data, size_t size) {
  const uint8_t *p = data;
  for (size_t n; size; p += n, size -= n) {
    n = size < KERNEL_COPY_MAX ? size : KERNEL_COPY_MAX;
    CML_TRY(push(s, p, n));
  }
  return CML_OK;
}

cml_status cml_outflow_zeros(cml_outflow *s, uint64_t size) {
  if (s->sparse && size >= ZEROS) {
    CML_TRY(flush(s));
    if (lseek(s->fd, (off_t)size, SEEK_CUR) < 0) return cml_fail_errno(s->err, errno, "cannot make a hole");
    s->position += size;
    s->hole_at_end = true;
    return count_out(s, size);
  }
  for (size_t n; size; size -= n) {
    n = size < ZEROS ? (size_t)size : ZEROS;
    CML_TRY(push(s, zeros, n));
  }
  return CML_OK;
}

/* ---- large pieces ---- */

static bool kernel_refuses(int code) {
  return code == EXDEV || code == EINVAL || code == ENOSYS || code == EOPNOTSUPP || code == EPERM || code == EBADF || code == ETXTBSY;
}

static cml_status read_exactly(cml_outflow *s, int from, uint8_t *to, size_t size, uint64_t offset) {
  while (size) {
    ssize_t n = pread(from, to, size, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cml_fail_errno(s->err, errno, "cannot read");
    if (!n) return cml_fail(s->err, CML_IO, CML_NO_OFFSET, "the file became shorter while it was read");
    to += n;
    size -= (size_t)n;
    offset += (uint64_t)n;
  }
  return CML_OK;
}

/* Through the staging memory, for targets that the kernel does not copy to. */
static cml_status copy_staged(cml_outflow *s, int from, uint64_t offset, uint64_t size) {
  while (size) {
    CML_TRY(flush(s));
    size_t n = size < CML_OUTFLOW_STAGING ? (size_t)size : CML_OUTFLOW_STAGING;
    CML_TRY(read_exactly(s, from, s->staging, n, offset));
    s->staged = n;
    CML_TRY(push(s, s->staging, n));
    offset += n;
    size -= n;
  }
  return CML_OK;
}

static cml_status copy_data(cml_outflow *s, int from, uint64_t offset, uint64_t size) {
  if (size < KERNEL_COPY_MIN || !s->sparse || !s->kernel_copies) return copy_staged(s, from, offset, size);
  CML_TRY(flush(s));
  s->hole_at_end = false;
  while (size) {
    off_t at = (off_t)offset;
    ssize_t n = copy_file_range(from, &at, s->fd, NULL, size < KERNEL_COPY_MAX ? (size_t)size : KERNEL_COPY_MAX, 0);
    if (n < 0 && errno == EINTR) {
      CML_TRY(cml_outflow_report(s));
      continue;
    }
    if (n < 0 && !kernel_refuses(errno)) return cml_fail_errno(s->err, errno, "cannot copy");
    if (n <= 0) {
      s->kernel_copies = false;
      return copy_staged(s, from, offset, size);
    }
    s->position += (uint64_t)n;
    offset += (uint64_t)n;
    size -= (uint64_t)n;
    CML_TRY(count_out(s, (size_t)n));
  }
  return CML_OK;
}

/* The run of data, or hole, that starts at offset and ends no later than limit. Where the file system cannot tell, all is data. */
static uint64_t run_end(int fd, uint64_t offset, uint64_t limit, bool *out_data) {
  *out_data = true;
  off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
  if (data < 0 && errno == ENXIO) return *out_data = false, limit;
  if (data < 0) return limit;
  *out_data = (uint64_t)data <= offset;
  if (!*out_data) return (uint64_t)data < limit ? (uint64_t)data : limit;
  off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);
  return hole < 0 || (uint64_t)hole > limit ? limit : (uint64_t)hole;
}

static cml_status copy_runs(cml_outflow *s, int from, uint64_t offset, uint64_t size) {
  for (uint64_t end = offset + size; offset < end;) {
    bool data;
    uint64_t next = run_end(from, offset, end, &data);
    if (next <= offset) next = end;
    CML_TRY(data ? copy_data(s, from, offset, next - offset) : cml_outflow_zeros(s, next - offset));
    offset = next;
  }
  return CML_OK;
}

/* ---- pieces and files ---- */

static cml_status put_piece(cml_outflow *s, const cml_piece *p) {
  if (!p->mapping) return cml_outflow_lasting(s, p->data, (size_t)p->size);
  int fd = cml_mapping_fd(p->mapping);
  if (fd < 0) return cml_outflow_lasting(s, p->data, (size_t)p->size);
  for (uint64_t done = 0; done < p->size;) {
    uint64_t at = p->offset + done, end = p->offset + p->size;
    if (p->mapping != s->run_mapping || at < s->run_start || at >= s->run_end) {
      s->run_mapping = p->mapping;
      s->run_start = at;
      s->run_end = run_end(fd, at, cml_mapping_span(p->mapping).size, &s->run_is_data);
      if (s->run_end <= at) s->run_end = end;
    }
    uint64_t n = (s->run_end < end ? s->run_end : end) - at;
    if (!s->run_is_data) CML_TRY(cml_outflow_zeros(s, n));
    else if (n >= KERNEL_COPY_MIN && s->sparse && s->kernel_copies) CML_TRY(copy_data(s, fd, at, n));
    else CML_TRY(cml_outflow_lasting(s, p->data + done, (size_t)n));
    done += n;
  }
  return CML_OK;
}

/* One byte more is asked for than the file should have, so that one read tells that it is whole and has not grown. */
static cml_status stage_small(cml_outflow *s, int from, size_t size) {
  if (CML_OUTFLOW_STAGING - s->staged < size + 1) CML_TRY(flush(s));
  uint8_t *to = s->staging + s->staged;
  size_t have = 0;
  while (have <= size) {
    ssize_t n = read(from, to + have, size + 1 - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return cml_fail_errno(s->err, errno, "cannot read");
    have += (size_t)n;
    if (have == size || !n) break;
  }
  if (have != size) return cml_fail(s->err, CML_IO, CML_NO_OFFSET, "the file changed its size since its folder was read");
  s->staged += size;
  return push(s, to, size);
}

static cml_status put_large(cml_outflow *s, int from, uint64_t size) {
  struct stat st;
  if (fstat(from, &st)) return cml_fail_errno(s->err, errno, "cannot read its size");
  if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
    return cml_fail(s->err, CML_IO, CML_NO_OFFSET, "the file changed its size since its folder was read");
  return copy_runs(s, from, 0, size);
}

static int open_near(cml_outflow *s, const cml_node *file) {
  if (s->near != file->parent) {
    if (s->near_fd >= 0) close(s->near_fd);
    s->near_fd = cml_disk_open(file->file.disk.disk, file->parent, O_PATH | O_DIRECTORY);
    s->near = s->near_fd >= 0 ? file->parent : NULL;
  }
  return s->near_fd < 0 ? -1 : openat(s->near_fd, file->name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

static cml_status put_disk_file(cml_outflow *s, const cml_node *file) {
  uint64_t size = file->file.size;
  if (!size) return CML_OK;
  int from = open_near(s, file);
  if (from < 0) return cml_fail_errno(s->err, errno, "cannot open");
  cml_status status = size <= STAGED_FILE_MAX ? stage_small(s, from, (size_t)size) : put_large(s, from, size);
  close(from);
  return status;
}

/* Pieces lie in mappings that the tree holds; generated bytes go away with `contents` and so must be out by then. */
static cml_status put_contents(cml_outflow *s, const cml_node *file) {
  cml_contents contents = {0};
  CML_TRY(cml_node_open(file, &contents, s->err));
  cml_status status = CML_OK;
  bool passing = contents.owned.data || contents.held;
  for (size_t i = 0; i < contents.count && !status; i++) {
    const cml_piece *p = &contents.pieces[i];
    bool small = !p->mapping && p->size <= COPIED_MAX;
    status = small ? cml_outflow_bytes(s, p->data, (size_t)p->size) : put_piece(s, p);
  }
  if (passing && !status) status = flush(s);
  if (contents.held) s->run_mapping = NULL;
  cml_contents_close(&contents);
  return status;
}

cml_status cml_outflow_file(cml_outflow *s, const cml_node *file, uint64_t *out_size) {
  uint64_t before = s->position;
  const cml_node *origin = cml_node_origin(file);
  cml_status status = CML_OK;
  if (origin->source == CML_FROM_DISK) {
    status = put_disk_file(s, origin);
    if (status && status != CML_CANCELLED) cml_node_error(s->err, status, file);
  } else {
    status = put_contents(s, origin);
  }
  if (status) return status;
  *out_size = s->position - before;
  return CML_OK;
}

cml_status cml_outflow_finish(cml_outflow *s) {
  CML_TRY(flush(s));
  if (!s->hole_at_end) return CML_OK;
  off_t end = lseek(s->fd, 0, SEEK_CUR);
  if (end < 0 || ftruncate(s->fd, end)) return cml_fail_errno(s->err, errno, "cannot extend the file");
  return CML_OK;
}
