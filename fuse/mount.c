/* Low-level FUSE over a tree that never changes.
 *
 * A node's FUSE id is its address (the root's is 1), so that no table of inodes is needed; the inode number that stat shows
 * is the tree's own, stable one. Nothing changes, so the kernel may keep entries, attributes, listings and pages for a day.
 * open and opendir answer ENOSYS: the kernel then stops asking and goes straight to read. Reads are answered with writev from
 * the mapping: the bytes are copied once, by the kernel.
 *
 * The mapped file may shrink under the mount. The kernel's writev then fails with EFAULT, and the reader gets EIO in
 * place of the data; a generator that trips over the lost pages is cut off by a SIGBUS handler, with EIO too. */
#define FUSE_USE_VERSION 314
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SPIN_NS = 50000, FOREVER = 86400, MAX_PARTS = 1000 /* writev takes 1,024 */, NAME_LIMIT = 255 };
#define READ_AHEAD_KIB "1024"

/* The protocol's reply header (linux/fuse.h): error is 0 or -errno. */
typedef struct reply_header {
  uint32_t length;
  int32_t error;
  uint64_t unique;
} reply_header;

struct cml_mount {
  cml_tree *tree;
  cml_mount_options options;
  struct fuse_session *session;
  char *folder;
  bool created, mounted, handlers, widened;
  struct statvfs statfs;
  sigset_t signals; /* the caller's mask: what may interrupt a wait */
  const cml_node *open_node; /* whose contents are at hand: reads of one generated file follow one another */
  cml_contents contents;
};

/* ---- SIGBUS: one guarded region at a time, on the one thread ---- */

static sigjmp_buf guard;
static volatile sig_atomic_t guarded;

static void on_sigbus(int signal_number) {
  if (guarded) siglongjmp(guard, 1);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

/* ---- nodes ---- */

static cml_mount *mount_of(fuse_req_t req) { return fuse_req_userdata(req); }

static const cml_node *node_of(fuse_req_t req, fuse_ino_t id) {
  return id == FUSE_ROOT_ID ? cml_tree_root(mount_of(req)->tree) : (const cml_node *)(uintptr_t)id;
}

static fuse_ino_t id_of(const cml_mount *m, const cml_node *node) {
  return node == cml_tree_root(m->tree) ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)node;
}

static int node_errno(cml_status status) { return status == CML_NO_MEMORY ? ENOMEM : EIO; }

/* Size and contents may run a generator over mapped bytes. What it had allocated when it was cut off is lost: a bounded
 * leak in a mount whose file was destroyed. */
static int guarded_size(const cml_node *node, uint64_t *size) {
  if (sigsetjmp(guard, 1)) return guarded = 0, EIO;
  guarded = 1;
  cml_status status = cml_node_size(node, size, NULL);
  guarded = 0;
  return status ? node_errno(status) : 0;
}

static int guarded_open(cml_mount *m, const cml_node *node) {
  if (m->open_node == node) return 0;
  if (m->open_node) cml_contents_close(&m->contents);
  m->open_node = NULL;
  if (sigsetjmp(guard, 1)) return guarded = 0, EIO;
  guarded = 1;
  cml_status status = cml_node_open(node, &m->contents, NULL);
  guarded = 0;
  if (status) return node_errno(status);
  m->open_node = node;
  return 0;
}

static int fill_attributes(const cml_mount *m, const cml_node *node, struct stat *st) {
  bool folder = cml_node_kind_of(node) == CML_NODE_FOLDER;
  uint64_t size = 0;
  int code = folder ? 0 : guarded_size(node, &size);
  if (code) return code;
  *st = (struct stat){.st_ino = cml_node_inode(node),
                      .st_mode = (folder ? S_IFDIR | 0555 : S_IFREG | 0444) & ~(m->options.umask & 0777),
                      .st_nlink = folder ? 2 : 1,
                      .st_uid = m->options.uid,
                      .st_gid = m->options.gid,
                      .st_size = (off_t)size,
                      .st_atim = m->options.time,
                      .st_mtim = m->options.time,
                      .st_ctim = m->options.time,
                      .st_blksize = 1 << 17,
                      .st_blocks = (blkcnt_t)((size + 511) / 512)};
  return 0;
}

static int fill_entry(const cml_mount *m, const cml_node *node, struct fuse_entry_param *e) {
  *e = (struct fuse_entry_param){.ino = id_of(m, node), .attr_timeout = FOREVER, .entry_timeout = FOREVER};
  return fill_attributes(m, node, &e->attr);
}

/* ---- requests ---- */

static void do_init(void *userdata, struct fuse_conn_info *conn) {
  (void)userdata;
  conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS);
  conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ);
  conn->max_readahead = 1 << 20;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
  const cml_mount *m = mount_of(req);
  const cml_node *node = cml_node_lookup(node_of(req, parent), name, strlen(name));
  struct fuse_entry_param e = {.ino = 0, .entry_timeout = FOREVER}; /* "not there" may be remembered, too */
  int code = node ? fill_entry(m, node, &e) : 0;
  if (code) fuse_reply_err(req, code);
  else fuse_reply_entry(req, &e);
}

static void do_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi) {
  struct stat st;
  (void)fi;
  int code = fill_attributes(mount_of(req), node_of(req, id), &st);
  if (code) fuse_reply_err(req, code);
  else fuse_reply_attr(req, &st, FOREVER);
}

static void do_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi) {
  (void)id, (void)fi;
  fuse_reply_err(req, ENOSYS);
}

/* What of a piece that starts at `at` lies in [from, to). */
static struct iovec cut(const cml_piece *p, uint64_t at, uint64_t from, uint64_t to) {
  uint64_t begin = from > at ? from - at : 0, end = at >= to ? 0 : to - at < p->size ? to - at : p->size;
  return begin < end ? (struct iovec){(void *)(uintptr_t)(p->data + begin), (size_t)(end - begin)} : (struct iovec){NULL, 0};
}

/* False when [from, to) is in more than MAX_PARTS pieces. */
static bool list_parts(const cml_contents *c, uint64_t from, uint64_t to, struct iovec *parts, int *count) {
  uint64_t at = 0;
  *count = 0;
  for (size_t i = 0; i < c->count && at < to; at += c->pieces[i++].size) {
    struct iovec part = cut(&c->pieces[i], at, from, to);
    if (!part.iov_len) continue;
    if (*count == MAX_PARTS) return false;
    parts[(*count)++] = part;
  }
  return true;
}

__attribute__((noinline)) static void copy_parts(const cml_contents *c, uint64_t from, uint64_t to, uint8_t *out) {
  uint64_t at = 0;
  for (size_t i = 0; i < c->count && at < to; at += c->pieces[i++].size) {
    struct iovec part = cut(&c->pieces[i], at, from, to);
    if (part.iov_len) memcpy(out, part.iov_base, part.iov_len);
    out += part.iov_len;
  }
}

/* The mapping may be lost meanwhile. */
static int guarded_copy(const cml_contents *c, uint64_t from, uint64_t to, uint8_t *out) {
  if (sigsetjmp(guard, 1)) return guarded = 0, EIO;
  guarded = 1;
  copy_parts(c, from, to, out);
  guarded = 0;
  return 0;
}

/* Contents in crumbs: a reply may not be short, for the kernel takes the rest as zeros or as the file's end. */
static void reply_copied(fuse_req_t req, const cml_contents *c, uint64_t from, uint64_t to) {
  uint8_t *copy = malloc((size_t)(to - from));
  int code = copy ? guarded_copy(c, from, to, copy) : ENOMEM;
  if (code) fuse_reply_err(req, code);
  else fuse_reply_buf(req, (const char *)copy, (size_t)(to - from));
  free(copy);
}

static void do_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi) {
  cml_mount *m = mount_of(req);
  struct iovec parts[MAX_PARTS];
  int count = 0, code = guarded_open(m, node_of(req, id));
  (void)fi;
  if (code) {
    fuse_reply_err(req, code);
    return;
  }
  const cml_contents *c = &m->contents;
  uint64_t from = (uint64_t)offset < c->size ? (uint64_t)offset : c->size, to = size < c->size - from ? from + size : c->size;
  if (list_parts(c, from, to, parts, &count)) fuse_reply_iov(req, parts, count);
  else reply_copied(req, c, from, to);
}

/* "." and ".." have offsets 1 and 2, child i has i + 3; an offset names the entry before it. */
static void list_folder(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, bool plus) {
  const cml_mount *m = mount_of(req);
  const cml_node *folder = node_of(req, id), *parent = cml_node_parent(folder);
  char *out = malloc(size);
  size_t used = 0;
  if (!out || cml_node_kind_of(folder) != CML_NODE_FOLDER) {
    fuse_reply_err(req, out ? ENOTDIR : ENOMEM);
    free(out);
    return;
  }
  for (off_t i = offset; i < (off_t)cml_node_count(folder) + 2; i++) {
    const cml_node *node = i == 0 ? folder : i == 1 ? (parent ? parent : folder) : cml_node_child(folder, (size_t)i - 2);
    const char *name = i == 0 ? "." : i == 1 ? ".." : cml_node_name(node);
    struct fuse_entry_param e;
    bool whole = plus && i >= 2 && !fill_entry(m, node, &e);
    if (!whole) /* id 0: the kernel looks it up when it is wanted */
      e = (struct fuse_entry_param){.attr = {.st_ino = cml_node_inode(node),
                                             .st_mode = cml_node_kind_of(node) == CML_NODE_FOLDER ? S_IFDIR : S_IFREG}};
    size_t n = plus ? fuse_add_direntry_plus(req, out + used, size - used, name, &e, i + 1)
                    : fuse_add_direntry(req, out + used, size - used, name, &e.attr, i + 1);
    if (n > size - used) break;
    used += n;
  }
  fuse_reply_buf(req, out, used);
  free(out);
}

static void do_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)fi;
  list_folder(req, id, size, offset, false);
}

static void do_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)fi;
  list_folder(req, id, size, offset, true);
}

static void do_statfs(fuse_req_t req, fuse_ino_t id) {
  (void)id;
  fuse_reply_statfs(req, &mount_of(req)->statfs);
}

/* ---- extended attributes: where a file's bytes lie in the container ---- */

static const char *const attribute_names[] = {"user.cml.offset", "user.cml.size", "user.cml.source"};

/* Only a file that is one piece of a mapping has them; the root alone tells which process serves the mount. */
static bool attribute(cml_mount *m, const cml_node *node, const char *name, char *out, size_t room) {
  bool pid = !strcmp(name, "user.cml.pid") || !strcmp(name, CML_MOUNT_PID);
  if (pid && node == cml_tree_root(m->tree)) return snprintf(out, room, "%d", (int)getpid()), true;
  if (cml_node_kind_of(node) != CML_NODE_FILE || cml_node_is_generated(node) || guarded_open(m, node)) return false;
  const cml_contents *c = &m->contents;
  if (c->count != 1 || !c->pieces[0].mapping) return false;
  if (!strcmp(name, attribute_names[0])) snprintf(out, room, "%" PRIu64, c->pieces[0].offset);
  else if (!strcmp(name, attribute_names[1])) snprintf(out, room, "%" PRIu64, c->pieces[0].size);
  else if (!strcmp(name, attribute_names[2])) snprintf(out, room, "%s", cml_mapping_path(c->pieces[0].mapping));
  else return false;
  return true;
}

static void reply_sized(fuse_req_t req, const char *data, size_t length, size_t room) {
  if (!room) fuse_reply_xattr(req, length);
  else if (room < length) fuse_reply_err(req, ERANGE);
  else fuse_reply_buf(req, data, length);
}

static void do_getxattr(fuse_req_t req, fuse_ino_t id, const char *name, size_t size) {
  char value[4096];
  bool ours = !strncmp(name, "user.cml.", 9) || !strcmp(name, CML_MOUNT_PID);
  if (!ours || !attribute(mount_of(req), node_of(req, id), name, value, sizeof value)) fuse_reply_err(req, ENODATA);
  else reply_sized(req, value, strlen(value), size);
}

static void do_listxattr(fuse_req_t req, fuse_ino_t id, size_t size) {
  char value[4096], names[64];
  size_t length = 0;
  if (attribute(mount_of(req), node_of(req, id), attribute_names[0], value, sizeof value))
    for (size_t i = 0; i < 3; i++) {
      size_t n = strlen(attribute_names[i]) + 1;
      memcpy(names + length, attribute_names[i], n);
      length += n;
    }
  reply_sized(req, names, length, size);
}

static const struct fuse_lowlevel_ops operations = {
    .init = do_init, .lookup = do_lookup, .getattr = do_getattr, .open = do_open, .opendir = do_open, .read = do_read,
    .readdir = do_readdir, .readdirplus = do_readdirplus, .statfs = do_statfs, .getxattr = do_getxattr, .listxattr = do_listxattr,
};

/* ---- the wire ---- */

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The next request mostly follows at once: asking for it a short while before going to sleep saves the time that waking takes,
 * which is most of a small read's. Signals are let in by ppoll alone, so that none comes unseen between a look and a sleep. */
static ssize_t wire_read(int fd, void *out, size_t size, void *userdata) {
  const cml_mount *m = userdata;
  struct pollfd p = {.fd = fd, .events = POLLIN};
  const struct timespec at_once = {0, 0};
  uint64_t begin = now_ns();
  if (ppoll(&p, 1, &at_once, &m->signals) < 0) return -1;
  for (;;) {
    ssize_t n = read(fd, out, size);
    if (n >= 0 || errno != EAGAIN) return n;
    if (now_ns() - begin < SPIN_NS) continue;
    if (ppoll(&p, 1, NULL, &m->signals) < 0) return -1;
  }
}

/* The kernel reads ahead by 128 KiB, whatever a file system asks for at its start; larger requests read a file about twice
 * as fast. Root may say so; for others it stays as it is. The root's attributes must not be asked for here: nobody answers. */
static void widen_readahead(const cml_mount *m) {
  struct statx st;
  char path[64];
  if (statx(AT_FDCWD, m->folder, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &st)) return;
  snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", st.stx_dev_major, st.stx_dev_minor);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  (void)!write(fd, READ_AHEAD_KIB, sizeof READ_AHEAD_KIB - 1);
  close(fd);
}

/* A reply whose data cannot be read any more becomes EIO. The first reply of all ends the kernel's own set-up. */
static ssize_t wire_writev(int fd, struct iovec *parts, int count, void *userdata) {
  cml_mount *m = userdata;
  ssize_t n = writev(fd, parts, count);
  if (!m->widened) {
    m->widened = true;
    int code = errno;
    widen_readahead(m);
    errno = code;
  }
  if (n >= 0 || errno != EFAULT || parts[0].iov_len < sizeof(reply_header)) return n;
  reply_header h;
  memcpy(&h, parts[0].iov_base, sizeof h);
  h.length = sizeof h;
  h.error = -EIO;
  return write(fd, &h, sizeof h) < 0 ? -1 : (ssize_t)sizeof h;
}

/* ---- mounting ---- */

static uint64_t count_nodes(const cml_node *node) {
  uint64_t n = 1;
  for (size_t i = 0; i < cml_node_count(node); i++) n += count_nodes(cml_node_child(node, i));
  return n;
}

/* Sizes of files that are there already; generated ones are not made for this. */
static uint64_t add_sizes(const cml_node *node) {
  uint64_t total = 0, size;
  if (cml_node_kind_of(node) == CML_NODE_FILE)
    return !cml_node_is_generated(node) && !cml_node_size(node, &size, NULL) ? (size + 4095) / 4096 : 0;
  for (size_t i = 0; i < cml_node_count(node); i++) total += add_sizes(cml_node_child(node, i));
  return total;
}

/* A folder that is made is marked, where the file system can, so that it goes even when this process is killed: with the
 * umount that clears the dead mount, or with the next mount there. */
static cml_status make_folder(cml_mount *m, const char *folder, cml_error *err) {
  struct stat st;
  errno = 0;
  if (getxattr(folder, CML_MOUNT_PID, NULL, 0) > 0)
    return cml_fail(err, CML_EXISTS, CML_NO_OFFSET, "%s shows a file already: take that away with cmlfs umount %s", folder, folder);
  if (errno == ENOTCONN) /* the kernel may still answer stat, from its cache */
    return cml_fail(err, CML_EXISTS, CML_NO_OFFSET, "%s is a mount whose process has died: clear it with cmlfs umount %s", folder, folder);
  if (stat(folder, &st)) {
    if (errno != ENOENT) return cml_fail_errno(err, errno, "cannot use the folder %s", folder);
    if (mkdir(folder, 0755)) return cml_fail_errno(err, errno, "cannot create the folder %s", folder);
    m->created = true;
    (void)!setxattr(folder, CML_MOUNT_CREATED, "1", 1, 0);
  } else if (!S_ISDIR(st.st_mode)) {
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "%s is not a folder", folder);
  } else {
    m->created = getxattr(folder, CML_MOUNT_CREATED, NULL, 0) > 0;
  }
  m->folder = realpath(folder, NULL);
  if (!m->folder) {
    int code = errno;
    if (m->created) rmdir(folder), m->created = false;
    return cml_fail_errno(err, code, "cannot use the folder %s", folder);
  }
  return CML_OK;
}

/* Commas and backslashes separate mount options. */
static void append_escaped(cml_buffer *b, const char *text) {
  for (; *text; text++) {
    if (*text == ',' || *text == '\\') cml_buffer_char(b, '\\');
    cml_buffer_char(b, *text);
  }
}

static cml_status start_session(cml_mount *m, cml_error *err) {
  cml_buffer o = CML_BUFFER_INIT;
  cml_buffer_text(&o, "ro,nosuid,nodev,default_permissions,subtype=cml,fsname=");
  append_escaped(&o, m->options.source ? m->options.source : "cml");
  if (m->options.allow_other) cml_buffer_text(&o, ",allow_other");
  struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
  bool ok = !o.failed && !fuse_opt_add_arg(&args, "cmlfs") && !fuse_opt_add_arg(&args, "-o") && !fuse_opt_add_arg(&args, (char *)o.data);
  if (ok && m->options.debug) ok = !fuse_opt_add_arg(&args, "-d");
  if (ok) m->session = fuse_session_new(&args, &operations, sizeof operations, m);
  fuse_opt_free_args(&args);
  cml_buffer_free(&o);
  if (!m->session) return cml_fail(err, CML_NO_MEMORY, CML_NO_OFFSET, "cannot start a FUSE session");
  m->handlers = !fuse_set_signal_handlers(m->session); /* before there is a mount to leave behind */
  if (fuse_session_mount(m->session, m->folder))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "cannot mount at %s: is /dev/fuse there, and may this user mount?", m->folder);
  m->mounted = true;
#if FUSE_VERSION >= 314
  static const struct fuse_custom_io wire = {.read = wire_read, .writev = wire_writev};
  if (fuse_session_custom_io(m->session, &wire, fuse_session_fd(m->session)))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "libfuse refuses the session's own input and output");
  int fd = fuse_session_fd(m->session), flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) return cml_fail_errno(err, errno, "cannot set up /dev/fuse");
#endif
  return CML_OK;
}

cml_status cml_mount_create(cml_tree *tree, const char *folder, const cml_mount_options *options, cml_mount **out, cml_error *err) {
  cml_mount *m = calloc(1, sizeof *m);
  if (!m) return cml_fail_memory(err);
  m->tree = cml_tree_ref(tree);
  m->options = *options;
  uint64_t nodes = count_nodes(cml_tree_root(tree));
  m->statfs = (struct statvfs){.f_bsize = 4096, .f_frsize = 4096, .f_blocks = add_sizes(cml_tree_root(tree)), .f_files = nodes,
                               .f_namemax = NAME_LIMIT, .f_flag = ST_RDONLY};
  cml_status status = make_folder(m, folder, err);
  if (!status) status = start_session(m, err);
  if (status) cml_mount_destroy(m);
  else *out = m;
  return status;
}

cml_status cml_mount_serve(cml_mount *m, cml_error *err) {
  struct sigaction bus = {.sa_handler = on_sigbus}, old;
  sigaction(SIGBUS, &bus, &old);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT), sigaddset(&ends, SIGTERM), sigaddset(&ends, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &ends, &m->signals);
  int code = fuse_session_loop(m->session);
  pthread_sigmask(SIG_SETMASK, &m->signals, NULL);
  sigaction(SIGBUS, &old, NULL);
  if (code < 0) return cml_fail_errno(err, -code, "the mount ended");
  return CML_OK; /* unmounted, or a signal's number */
}

void cml_mount_destroy(cml_mount *m) {
  if (!m) return;
  if (m->open_node) cml_contents_close(&m->contents);
  if (m->mounted) fuse_session_unmount(m->session);
  if (m->handlers) fuse_remove_signal_handlers(m->session);
  if (m->session) fuse_session_destroy(m->session);
  if (m->created && m->folder) rmdir(m->folder);
  free(m->folder);
  cml_tree_unref(m->tree);
  free(m);
}
