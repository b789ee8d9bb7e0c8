/* Two passes in one: while members are unpacked behind each other into the temporary file, their names and places are
 * noted; once all is there the file is mapped and the tree is built. Holes of sparse members are skipped, not written.
 *
 * libarchive is loaded when the first archive is met: with what it needs itself (libxml2, ICU) it would triple the time in
 * which every program starts. */
#include "archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checked.h"

#define DEFAULT_BYTES (UINT64_C(16) << 30)
enum { DEFAULT_ENTRIES = 1000000, MAX_DEPTH = 256 };

/* The functions of libarchive that are called, without their common start. */
#define FUNCTIONS(X)                                                                                                    \
  X(error_string) X(read_new) X(read_free) X(read_open_memory) X(read_next_header2) X(read_data_block)                    \
  X(read_support_format_tar) X(read_support_format_zip) X(read_support_filter_gzip) X(read_support_filter_xz)            \
  X(read_support_filter_zstd) X(entry_pathname) X(entry_pathname_utf8) X(entry_hardlink) X(entry_symlink)                 \
  X(entry_filetype) X(entry_is_encrypted) X(entry_size) X(entry_size_is_set)  \
  X(entry_new2) X(entry_free)

typedef struct functions {
#define FUNCTION_FIELD(name) __typeof__(archive_##name) *name;
  FUNCTIONS(FUNCTION_FIELD)
#undef FUNCTION_FIELD
} functions;

/* Stays loaded; loading it twice at once gives the same pointers. */
static cml_status load_functions(functions *f, cml_error *err) {
  void *library = dlopen("libarchive.so.13", RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen("libarchive.so", RTLD_NOW | RTLD_LOCAL);
  if (!library) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "an archive, but libarchive is not installed (%s)", dlerror());
#define FUNCTION_LOAD(name)                                                                                              \
  *(void **)&f->name = dlsym(library, "archive_" #name);                                                                \
  if (!f->name) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "an archive, but libarchive lacks archive_" #name);
  FUNCTIONS(FUNCTION_LOAD)
#undef FUNCTION_LOAD
  return CML_OK;
}

typedef struct member {
  const char *path; /* normalised: no empty or "." components */
  bool folder;
  uint64_t offset, size;
} member;

typedef struct unpacker {
  functions f;
  struct archive *archive;
  cml_arena arena;
  member *members;
  size_t count, capacity;
  uint64_t max_bytes, max_entries, entries, end;
  int fd;
} unpacker;

bool cml_archive_is(cml_span f) {
  static const struct {
    uint8_t size;
    const char *bytes;
  } starts[] = {{4, "PK\3\4"}, {4, "PK\5\6"}, {2, "\x1f\x8b"}, {6, "\xfd" "7zXZ"}, {4, "\x28\xb5\x2f\xfd"}};
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
    if (f.size >= starts[i].size && !memcmp(f.data, starts[i].bytes, starts[i].size)) return true;
  return f.size >= 512 && !memcmp(f.data + 257, "ustar", 5);
}

/* ---- unpacking ---- */

/* A file without a name, on disk where one may be made, else in memory. */
static int open_temporary(void) {
  int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  return fd < 0 ? memfd_create("cml-archive", MFD_CLOEXEC) : fd;
}

static cml_status archive_error(unpacker *u, const char *path, cml_error *err) {
  if (errno == ENOMEM) return cml_fail_memory(err);
  const char *words = u->f.error_string(u->archive);
  return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "archive%s%s: %s", path ? " member " : "", path ? path : "",
                  words ? words : "cannot be read");
}

/* "./a//b/" becomes "a/b"; "" for the root itself. Refuses what would lead outside. */
static cml_status normalise(cml_arena *arena, const char *path, const char **out, cml_error *err) {
  size_t size = strlen(path), used = 0, depth = 0;
  char *text = cml_arena_alloc(arena, size + 1);
  if (!text) return cml_fail_memory(err);
  if (*path == '/') return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "archive member %s has an absolute path", path);
  for (size_t n; *path; path += n + (path[n] == '/')) {
    n = strcspn(path, "/");
    if (!n || (n == 1 && *path == '.')) continue;
    if (n == 2 && path[0] == '.' && path[1] == '.')
      return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "an archive member's path leads outside with \"..\"");
    if (++depth > MAX_DEPTH) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "an archive member lies over %d folders deep", MAX_DEPTH);
    if (used) text[used++] = '/';
    memcpy(text + used, path, n);
    used += n;
  }
  *out = text;
  return CML_OK;
}

static cml_status write_at(int fd, const uint8_t *data, size_t size, uint64_t at, cml_error *err) {
  while (size) {
    ssize_t n = pwrite(fd, data, size, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return cml_fail_errno(err, n ? errno : EIO, "cannot unpack into a temporary file");
    data += n;
    size -= (size_t)n;
    at += (uint64_t)n;
  }
  return CML_OK;
}

static cml_status unpack_data(unpacker *u, struct archive_entry *entry, member *m, cml_error *err) {
  const void *block;
  size_t size;
  int64_t offset;
  int r;
  if (u->f.entry_size_is_set(entry)) m->size = (uint64_t)u->f.entry_size(entry);
  if (m->size > u->max_bytes - u->end) goto too_large;
  while ((r = u->f.read_data_block(u->archive, &block, &size, &offset)) == ARCHIVE_OK) {
    uint64_t end;
    if (offset < 0 || !cml_add((uint64_t)offset, size, &end) || end > u->max_bytes - u->end) goto too_large;
    if (end > m->size) m->size = end;
    CML_TRY(write_at(u->fd, block, size, m->offset + (uint64_t)offset, err));
  }
  return r == ARCHIVE_EOF ? CML_OK : archive_error(u, m->path, err);
too_large:
  return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "archive member %s: unpacked contents exceed %llu bytes in all", m->path,
                  (unsigned long long)u->max_bytes);
}

/* What archivers for macOS put beside the files themselves. */
static bool is_resource_fork(const char *path) {
  const char *name = strrchr(path, '/');
  name = name ? name + 1 : path;
  return !strncmp(path, "__MACOSX/", 9) || !strcmp(path, "__MACOSX") || !strncmp(name, "._", 2) || !strcmp(name, ".DS_Store");
}

static cml_status add_member(unpacker *u, member m, cml_error *err) {
  if (u->count == u->capacity) {
    size_t capacity = u->capacity ? u->capacity * 2 : 64;
    member *grown = realloc(u->members, capacity * sizeof *grown);
    if (!grown) return cml_fail_memory(err);
    u->members = grown;
    u->capacity = capacity;
  }
  u->members[u->count++] = m;
  uint64_t end;
  if (!cml_add(m.offset, m.size, &end) || !cml_align(end, 64, &u->end)) return cml_fail_memory(err);
  return CML_OK;
}

static cml_status unpack_entry(unpacker *u, struct archive_entry *entry, cml_error *err) {
  const char *path = u->f.entry_pathname_utf8(entry);
  if (!path) path = u->f.entry_pathname(entry);
  if (!path) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "archive member %llu has no name", (unsigned long long)u->entries);
  if (++u->entries > u->max_entries)
    return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the archive has over %llu members", (unsigned long long)u->max_entries);
  member m = {.offset = u->end};
  CML_TRY(normalise(&u->arena, path, &m.path, err));
  if (is_resource_fork(m.path)) return CML_OK;
  unsigned type = u->f.entry_filetype(entry);
  if (u->f.entry_hardlink(entry) || u->f.entry_symlink(entry) || (type != AE_IFREG && type != AE_IFDIR))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "archive member %s is a link or special file, expected files and folders", m.path);
  if (u->f.entry_is_encrypted(entry)) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "archive member %s is encrypted", m.path);
  m.folder = type == AE_IFDIR;
  if (!*m.path) return m.folder ? CML_OK : cml_fail(err, CML_INVALID, CML_NO_OFFSET, "an archive member has an empty path");
  if (!m.folder) CML_TRY(unpack_data(u, entry, &m, err));
  return add_member(u, m, err);
}

static cml_status unpack(unpacker *u, struct archive_entry *entry, cml_span file, cml_error *err) {
  struct archive *a = u->archive;
  errno = 0; /* libarchive does not always say that memory ran out */
  if (u->f.read_support_format_tar(a) || u->f.read_support_format_zip(a)) return archive_error(u, NULL, err);
  /* These warn where libarchive was built to call a program instead; an error shows when such a file is read. */
  u->f.read_support_filter_gzip(a);
  u->f.read_support_filter_xz(a);
  u->f.read_support_filter_zstd(a);
  if (u->f.read_open_memory(a, file.data, file.size)) return archive_error(u, NULL, err);
  for (;;) {
    int r = u->f.read_next_header2(a, entry);
    if (r == ARCHIVE_EOF) break;
    if (r != ARCHIVE_OK && r != ARCHIVE_WARN) return archive_error(u, NULL, err);
    CML_TRY(unpack_entry(u, entry, err));
  }
  if (u->end && ftruncate(u->fd, (off_t)u->end)) return cml_fail_errno(err, errno, "cannot size a temporary file");
  return CML_OK;
}

/* ---- the tree ---- */

/* The folder at the first `size` bytes of a path, made when it is not there yet. */
static cml_status find_folder(cml_tree *tree, const char *path, size_t size, cml_node **out, cml_error *err) {
  cml_node *folder = cml_tree_root_mutable(tree);
  while (size) {
    const char *slash = memchr(path, '/', size);
    size_t n = slash ? (size_t)(slash - path) : size;
    const cml_node *child = cml_node_lookup(folder, path, n);
    if (child && cml_node_kind_of(child) == CML_NODE_FOLDER) folder = (cml_node *)(uintptr_t)child;
    else CML_TRY(cml_tree_add_folder(tree, folder, path, n, &folder, err));
    path += n + (slash != NULL);
    size -= n + (slash != NULL);
  }
  *out = folder;
  return CML_OK;
}

static cml_status add_to_tree(cml_tree *tree, const member *m, cml_mapping *mapping, cml_error *err) {
  const char *slash = strrchr(m->path, '/'), *name = slash ? slash + 1 : m->path;
  cml_node *folder;
  cml_span bytes;
  if (m->folder) return find_folder(tree, m->path, strlen(m->path), &folder, err);
  CML_TRY(find_folder(tree, m->path, slash ? (size_t)(slash - m->path) : 0, &folder, err));
  if (!m->size) return cml_tree_add_file(tree, folder, name, strlen(name), NULL, 0, NULL, err);
  if (!cml_span_slice(cml_mapping_span(mapping), m->offset, m->size, &bytes))
    return cml_fail(err, CML_IO, CML_NO_OFFSET, "the temporary file of an archive shrank");
  cml_piece piece = {bytes.data, m->size, mapping, m->offset};
  return cml_tree_add_file(tree, folder, name, strlen(name), &piece, 1, NULL, err);
}

static cml_status build_tree(unpacker *u, cml_tree **out, cml_error *err) {
  cml_tree *tree = NULL;
  cml_mapping *mapping = NULL;
  CML_TRY(cml_tree_create("", &tree, err));
  cml_status status = cml_mapping_from_fd(u->fd, "archive", &mapping, err);
  u->fd = -1;
  for (size_t i = 0; !status && i < u->count; i++) {
    status = add_to_tree(tree, &u->members[i], mapping, err);
    if (status) cml_error_prefix(err, status, "archive member %s", u->members[i].path);
  }
  cml_mapping_unref(mapping);
  if (status) cml_tree_unref(tree);
  else *out = tree;
  return status;
}

cml_status cml_archive_open(cml_span file, const cml_archive_options *options, cml_tree **out, cml_error *err) {
  unpacker u = {.max_bytes = options && options->max_bytes ? options->max_bytes : DEFAULT_BYTES,
                .max_entries = options && options->max_entries ? options->max_entries : DEFAULT_ENTRIES};
  u.fd = open_temporary();
  if (u.fd < 0) return cml_fail_errno(err, errno, "cannot make a temporary file to unpack an archive");
  cml_status status = load_functions(&u.f, err);
  if (!status && !(u.archive = u.f.read_new())) status = cml_fail_memory(err);
  struct archive_entry *entry = status ? NULL : u.f.entry_new2(u.archive); /* its own it makes without a check */
  if (!status && !entry) status = cml_fail_memory(err);
  if (!status) status = unpack(&u, entry, file, err);
  if (entry) u.f.entry_free(entry);
  if (!status) status = build_tree(&u, out, err);
  if (u.archive) u.f.read_free(u.archive);
  if (u.fd >= 0) close(u.fd);
  free(u.members);
  cml_arena_free(&u.arena);
  return status;
}
