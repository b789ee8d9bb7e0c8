/* A folder on disk as a tree.
 *
 * Opening reads names and sizes only. One descriptor, the folder's, is kept; everything below is opened by its path from
 * there, which the kernel resolves without following symbolic links (openat2, or one component at a time where that
 * is missing), so that a folder swapped for a link between listing and reading leads nowhere. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tree_internal.h"

/* ---- opening below ---- */

static int open_resolved(int fd, const char *path, int flags) {
  struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  return (int)syscall(SYS_openat2, fd, path, &how, sizeof how);
}

/* One component at a time; `path` is cut at its slashes. */
static int open_stepwise(int fd, char *path, int flags) {
  int at = fd;
  for (char *slash; (slash = strchr(path, '/')); path = slash + 1) {
    *slash = 0;
    int next = openat(at, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int code = errno;
    if (at != fd) close(at);
    if (next < 0) return errno = code, -1;
    at = next;
  }
  int result = openat(at, path, flags | O_NOFOLLOW | O_CLOEXEC), code = errno;
  if (at != fd) close(at);
  errno = code;
  return result;
}

static int open_path(int fd, char *path, int flags) {
  int result = open_resolved(fd, path, flags);
  if (result >= 0 || (errno != ENOSYS && errno != EPERM)) return result;
  return open_stepwise(fd, path, flags);
}

/* The path is written from its end; where it outgrows PATH_MAX, the folder at that point is opened first. */
int cml_open_below(int fd, const cml_node *top, const cml_node *node, int flags) {
  if (node == top) return open_path(fd, (char[]){"."}, flags);
  char path[PATH_MAX];
  size_t at = sizeof path - 1;
  path[at] = 0;
  const cml_node *n = node;
  for (; n != top && at > n->name_size; n = n->parent) {
    if (n != node) path[--at] = '/';
    memcpy(path + (at -= n->name_size), n->name, n->name_size);
  }
  if (n == top) return open_path(fd, path + at, flags);
  int folder = cml_open_below(fd, top, n, O_PATH | O_DIRECTORY);
  if (folder < 0) return -1;
  int result = open_path(folder, path + at, flags), code = errno;
  close(folder);
  errno = code;
  return result;
}

int cml_disk_open(const cml_disk *disk, const cml_node *node, int flags) {
  const cml_node *top = node;
  while (top->parent) top = top->parent;
  return cml_open_below(disk->fd, top, node, flags);
}

/* ---- contents ---- */

static cml_status map_disk_file(const cml_node *file, cml_mapping **out, cml_error *err) {
  cml_mapping *mapping = NULL;
  cml_status status = CML_OK;
  int fd = cml_disk_open(file->file.disk.disk, file, O_RDONLY | O_NONBLOCK);
  if (fd < 0) status = cml_fail_errno(err, errno, "cannot open");
  else status = cml_mapping_from_fd(fd, file->name, &mapping, err);
  if (!status && cml_mapping_span(mapping).size != file->file.size)
    status = cml_fail(err, CML_IO, CML_NO_OFFSET, "the file changed its size since its folder was read");
  if (status) {
    cml_mapping_unref(mapping);
    return cml_node_error(err, status, file);
  }
  *out = mapping;
  return CML_OK;
}

cml_status cml_disk_file_open(const cml_node *file, cml_contents *out, cml_error *err) {
  *out = (cml_contents){.size = file->file.size};
  if (!out->size) return CML_OK;
  cml_mapping *mapping = atomic_load_explicit(&((cml_node *)(uintptr_t)file)->file.disk.mapping, memory_order_acquire);
  if (!mapping) {
    CML_TRY(map_disk_file(file, &mapping, err));
    out->held = mapping;
  }
  /* A pinned small file is held as bytes, without a descriptor: then there is no mapping to read from. */
  cml_mapping *shown = cml_mapping_fd(mapping) < 0 ? NULL : mapping;
  out->single = (cml_piece){cml_mapping_span(mapping).data, out->size, shown, 0};
  out->pieces = &out->single;
  out->count = 1;
  return CML_OK;
}

/* A mapping keeps its descriptor open; thousands of small files would use up the process's descriptors. */
static cml_status without_descriptor(cml_mapping **mapping, cml_error *err) {
  cml_span span = cml_mapping_span(*mapping);
  if (span.size > 1 << 16) return CML_OK;
  uint8_t *copy = malloc(span.size);
  if (!copy) return cml_fail_memory(err);
  ssize_t n = pread(cml_mapping_fd(*mapping), copy, span.size, 0);
  cml_mapping *owned = NULL;
  cml_status status = n < 0 ? cml_fail_errno(err, errno, "cannot read") : CML_OK;
  if (n >= 0 && (size_t)n != span.size) status = cml_fail(err, CML_IO, CML_NO_OFFSET, "the file became shorter while it was read");
  if (!status) status = cml_mapping_own(copy, span.size, cml_mapping_path(*mapping), &owned, err);
  if (status) {
    free(copy);
    return status;
  }
  cml_mapping_unref(*mapping);
  *mapping = owned;
  return CML_OK;
}

/* The first caller's mapping stays for as long as the tree; the others' go. */
static cml_mapping *pin(cml_disk_file *d, cml_mapping *mapping) {
  cml_mapping *expected = NULL;
  if (!atomic_compare_exchange_strong(&d->mapping, &expected, mapping)) {
    cml_mapping_unref(mapping);
    return expected;
  }
  d->next = atomic_load(&d->disk->pinned);
  while (!atomic_compare_exchange_weak(&d->disk->pinned, &d->next, d)) continue;
  return mapping;
}

cml_status cml_disk_file_span(const cml_node *file, cml_span *out, cml_error *err) {
  if (!file->file.size) return *out = (cml_span){NULL, 0}, CML_OK;
  cml_disk_file *d = &((cml_node *)(uintptr_t)file)->file.disk;
  cml_mapping *mapping = atomic_load_explicit(&d->mapping, memory_order_acquire);
  if (!mapping) {
    CML_TRY(map_disk_file(file, &mapping, err));
    cml_status status = without_descriptor(&mapping, err);
    if (status) {
      cml_mapping_unref(mapping);
      return cml_node_error(err, status, file);
    }
    mapping = pin(d, mapping);
  }
  *out = cml_mapping_span(mapping);
  return CML_OK;
}

/* ---- listing ---- */

typedef struct entry {
  char *name;
  uint64_t size;
  bool folder;
} entry;

typedef struct entries {
  entry *list;
  size_t count, capacity;
} entries;

typedef struct scan {
  cml_tree *tree;
  cml_disk *disk;
  uint64_t nodes, max_nodes;
  unsigned max_depth;
  cml_error *err;
} scan;

static void disk_close(void *object) {
  cml_disk *disk = object;
  for (cml_disk_file *d = atomic_load(&disk->pinned); d; d = d->next) cml_mapping_unref(atomic_load(&d->mapping));
  if (disk->fd >= 0) close(disk->fd);
  free(disk);
}

static int entry_order(const void *a, const void *b) { return strcmp(((const entry *)a)->name, ((const entry *)b)->name); }

static void entries_free(entries *e) {
  for (size_t i = 0; i < e->count; i++) free(e->list[i].name);
  free(e->list);
}

static cml_status entries_add(entries *e, const char *name, const struct stat *st, cml_error *err) {
  if (e->count == e->capacity) {
    size_t capacity = e->capacity ? e->capacity * 2 : 16;
    entry *list = realloc(e->list, capacity * sizeof *list);
    if (!list) return cml_fail_memory(err);
    e->list = list;
    e->capacity = capacity;
  }
  char *copy = strdup(name);
  if (!copy) return cml_fail_memory(err);
  e->list[e->count++] = (entry){copy, (uint64_t)st->st_size, S_ISDIR(st->st_mode)};
  return CML_OK;
}

static cml_status read_entry(int fd, const struct dirent *d, entries *e, cml_error *err) {
  struct stat st = {.st_mode = S_IFDIR};
  if (d->d_type != DT_DIR && fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
    return cml_fail_errno(err, errno, "%s: cannot read its size", d->d_name);
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "%s: is a %s; only folders and regular files can be in a tree", d->d_name,
                    S_ISLNK(st.st_mode) ? "symbolic link" : "special file");
  return entries_add(e, d->d_name, &st, err);
}

/* Takes the descriptor. */
static cml_status read_entries(int fd, entries *e, const scan *s) {
  DIR *dir = fdopendir(fd);
  if (!dir) {
    int code = errno;
    close(fd);
    return cml_fail_errno(s->err, code, "cannot list");
  }
  cml_status status = CML_OK;
  while (!status) {
    errno = 0;
    struct dirent *d = readdir(dir);
    if (!d) {
      if (errno) status = cml_fail_errno(s->err, errno, "cannot list");
      break;
    }
    if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..")) continue;
    if (s->nodes + e->count >= s->max_nodes)
      status = cml_fail(s->err, CML_LIMIT, CML_NO_OFFSET, "the folder holds over %llu files and folders",
                        (unsigned long long)s->max_nodes);
    else status = read_entry(fd, d, e, s->err);
  }
  closedir(dir);
  if (!status && e->count) qsort(e->list, e->count, sizeof *e->list, entry_order);
  return status;
}

/* Recursion is bounded by max_depth; no descriptor is open across it. */
static cml_status scan_folder(scan *s, cml_node *folder) {
  if (folder->depth > s->max_depth)
    return cml_node_error(s->err, cml_fail(s->err, CML_LIMIT, CML_NO_OFFSET, "over %u folders deep", s->max_depth), folder);
  entries e = {0};
  int fd = cml_disk_open(s->disk, folder, O_RDONLY | O_DIRECTORY);
  cml_status status = fd < 0 ? cml_fail_errno(s->err, errno, "cannot open") : read_entries(fd, &e, s);
  if (status) cml_node_error(s->err, status, folder);
  s->nodes += e.count;
  for (size_t i = 0; i < e.count && !status; i++) {
    const entry *x = &e.list[i];
    cml_node *child = NULL;
    if (!x->folder) {
      status = cml_tree_add_disk_file(s->tree, folder, x->name, strlen(x->name), s->disk, x->size, s->err);
      continue;
    }
    status = cml_tree_add_folder(s->tree, folder, x->name, strlen(x->name), &child, s->err);
    if (!status) status = scan_folder(s, child);
  }
  entries_free(&e);
  return status;
}

/* The last component; of "." and the like, that of the real path. */
static cml_status root_name(const char *path, char name[CML_NAME_MAX + 1], cml_error *err) {
  char real[PATH_MAX];
  size_t end = strlen(path);
  while (end && path[end - 1] == '/') end--;
  size_t start = end;
  while (start && path[start - 1] != '/') start--;
  size_t size = end - start;
  if (!size || !strncmp(path + start, "..", size)) {
    if (!realpath(path, real)) return cml_fail_errno(err, errno, "cannot open");
    path = real;
    start = (size_t)(strrchr(real, '/') + 1 - real);
    size = strlen(real + start);
  }
  if (size > CML_NAME_MAX) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the folder's name has over 255 bytes");
  memcpy(name, path + start, size);
  name[size] = 0;
  return CML_OK;
}

cml_status cml_tree_from_folder(const char *path, const cml_folder_options *options, cml_tree **out, cml_error *err) {
  char name[CML_NAME_MAX + 1];
  scan s = {.max_nodes = options && options->max_nodes ? options->max_nodes : CML_DEFAULT_NODES,
            .max_depth = options && options->max_depth ? options->max_depth : CML_DEFAULT_DEPTH,
            .err = err};
  cml_status status = CML_OK;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "no such folder");
    if (errno == ENOTDIR) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "not a folder");
    return cml_fail_errno(err, errno, "cannot open");
  }
  s.disk = calloc(1, sizeof *s.disk);
  if (!s.disk) {
    close(fd);
    return cml_fail_memory(err);
  }
  s.disk->fd = fd;
  status = root_name(path, name, err);
  if (!status) status = cml_tree_create(name, &s.tree, err);
  if (status) {
    disk_close(s.disk);
    return status;
  }
  status = cml_tree_keep(s.tree, disk_close, s.disk, err);
  if (!status) status = scan_folder(&s, &s.tree->root);
  if (status) {
    cml_tree_unref(s.tree);
    return status;
  }
  *out = s.tree;
  return CML_OK;
}

/* ---- comparing ---- */

/* Two lists of pieces as two streams that are cut at each other's borders. */
static bool same_bytes(const cml_contents *a, const cml_contents *b) {
  uint64_t a_done = 0, b_done = 0;
  for (size_t i = 0, j = 0; i < a->count && j < b->count;) {
    uint64_t a_left = a->pieces[i].size - a_done, b_left = b->pieces[j].size - b_done, n = a_left < b_left ? a_left : b_left;
    if (memcmp(a->pieces[i].data + a_done, b->pieces[j].data + b_done, n)) return false;
    a_done += n;
    b_done += n;
    if (a_done == a->pieces[i].size) i++, a_done = 0;
    if (b_done == b->pieces[j].size) j++, b_done = 0;
  }
  return true;
}

static cml_status compare_files(const cml_node *a, const cml_node *b, bool *out_equal, cml_error *err) {
  uint64_t a_size, b_size;
  CML_TRY(cml_node_size(a, &a_size, err));
  CML_TRY(cml_node_size(b, &b_size, err));
  if (a_size != b_size) return *out_equal = false, CML_OK;
  cml_contents x = {0}, y = {0};
  cml_status status = cml_node_open(a, &x, err);
  if (!status) status = cml_node_open(b, &y, err);
  if (!status) *out_equal = x.size == y.size && same_bytes(&x, &y);
  cml_contents_close(&x);
  cml_contents_close(&y);
  return status;
}

static const cml_node *first_difference(const cml_node *a, const cml_node *b, cml_error *err, cml_status *status);

static const cml_node *child_difference(const cml_node *a, const cml_node *b, cml_error *err, cml_status *status) {
  size_t a_count = cml_node_count(a), b_count = cml_node_count(b), shared = a_count < b_count ? a_count : b_count;
  for (size_t i = 0; i < shared; i++) {
    const cml_node *x = cml_node_child(a, i), *y = cml_node_child(b, i);
    int order = strcmp(x->name, y->name);
    if (order) return order < 0 ? x : y; /* the one that the other side lacks */
    const cml_node *found = first_difference(x, y, err, status);
    if (found || *status) return found;
  }
  if (a_count == b_count) return NULL;
  return a_count > b_count ? cml_node_child(a, shared) : cml_node_child(b, shared);
}

/* Recursion is bounded by CML_TREE_MAX_DEPTH. */
static const cml_node *first_difference(const cml_node *a, const cml_node *b, cml_error *err, cml_status *status) {
  if (a->kind != b->kind) return a;
  if (a->kind == CML_NODE_FOLDER) return child_difference(a, b, err, status);
  bool equal = true;
  *status = compare_files(a, b, &equal, err);
  return equal ? NULL : a;
}

/* The path of a node below a or b, whichever has it. */
static void path_below(const cml_node *node, const cml_node *a, const cml_node *b, cml_buffer *out) {
  cml_buffer whole = CML_BUFFER_INIT, top = CML_BUFFER_INIT;
  const cml_node *from = node;
  while (from != a && from != b) from = from->parent;
  cml_node_path(node, &whole);
  cml_node_path(from, &top);
  size_t skip = from->parent ? top.size + 1 : 0;
  if (whole.failed || top.failed) out->failed = true;
  else if (whole.size > skip) cml_buffer_append(out, whole.data + skip, whole.size - skip);
  cml_buffer_free(&whole);
  cml_buffer_free(&top);
}

cml_status cml_node_compare(const cml_node *a, const cml_node *b, bool *out_equal, cml_buffer *difference, cml_error *err) {
  cml_status status = CML_OK;
  const cml_node *found = first_difference(a, b, err, &status);
  if (status) return status;
  if (found && difference) path_below(found, a, b, difference);
  if (difference) CML_TRY(cml_buffer_check(difference, err));
  *out_equal = !found;
  return CML_OK;
}
