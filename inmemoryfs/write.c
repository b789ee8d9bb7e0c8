/* A tree to disk: folder after folder, each opened once by its path below the new top, its files made with O_EXCL, so
 * that nothing outside is ever reached; no descriptor stays open across folders, however deep they lie. */
#include "write.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "outflow.h"
#include "tree_internal.h"

typedef struct writing {
  cml_outflow out;
  const cml_node *top;
  int fd; /* of the new top */
  unsigned files;
} writing;

static cml_status write_file(writing *w, int folder, const cml_node *file) {
  uint64_t size;
  int fd = openat(folder, file->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (fd < 0) return cml_node_error(w->out.err, cml_fail_errno(w->out.err, errno, "cannot create"), file);
  cml_outflow_target(&w->out, fd, true);
  cml_status status = cml_outflow_file(&w->out, file, &size);
  if (!status) status = cml_outflow_finish(&w->out);
  if (close(fd) && !status) status = cml_node_error(w->out.err, cml_fail_errno(w->out.err, errno, "cannot write"), file);
  if (!status && ++w->files % 256 == 0) status = cml_outflow_report(&w->out);
  return status;
}

static cml_status write_children(writing *w, int fd, const cml_node *folder) {
  cml_status status = CML_OK;
  for (size_t i = 0, n = cml_node_count(folder); i < n && !status; i++) {
    const cml_node *child = cml_node_child(folder, i);
    if (child->kind == CML_NODE_FILE) status = write_file(w, fd, child);
    else if (mkdirat(fd, child->name, 0777))
      status = cml_node_error(w->out.err, cml_fail_errno(w->out.err, errno, "cannot create"), child);
  }
  return status;
}

/* Recursion is bounded by CML_TREE_MAX_DEPTH. */
static cml_status write_folder(writing *w, const cml_node *folder) {
  int fd = cml_open_below(w->fd, w->top, folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return cml_node_error(w->out.err, cml_fail_errno(w->out.err, errno, "cannot open"), folder);
  cml_status status = write_children(w, fd, folder);
  close(fd);
  for (size_t i = 0, n = cml_node_count(folder); i < n && !status; i++) {
    const cml_node *child = cml_node_child(folder, i);
    if (child->kind == CML_NODE_FOLDER) status = write_folder(w, child);
  }
  return status;
}

/* Takes away what write_folder may have made, and nothing else. */
static void remove_written(writing *w, const cml_node *folder) {
  for (size_t i = 0, n = cml_node_count(folder); i < n; i++) {
    const cml_node *child = cml_node_child(folder, i);
    if (child->kind == CML_NODE_FOLDER) remove_written(w, child);
  }
  int fd = cml_open_below(w->fd, w->top, folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return;
  for (size_t i = 0, n = cml_node_count(folder); i < n; i++) {
    const cml_node *child = cml_node_child(folder, i);
    unlinkat(fd, child->name, child->kind == CML_NODE_FOLDER ? AT_REMOVEDIR : 0);
  }
  close(fd);
}

/* What will go out, as far as it is known without making it. */
static uint64_t known_size(const cml_node *node) {
  uint64_t total = 0;
  for (size_t i = 0, n = cml_node_count(node); i < n; i++) total += known_size(cml_node_child(node, i));
  if (node->kind == CML_NODE_FILE) {
    uint64_t size = cml_node_origin(node)->file.size;
    if (size != CML_SIZE_UNKNOWN) total += size;
  }
  return total;
}

cml_status cml_node_write_with(const cml_node *node, const char *path, const cml_write_options *options, cml_error *err) {
  writing w = {.top = node};
  cml_output output;
  uint64_t size;
  bool folder = node->kind == CML_NODE_FOLDER;
  CML_TRY(cml_output_open(&output, path, folder, false, err));
  w.fd = output.fd;
  cml_status status = cml_outflow_open(&w.out, options, options && options->progress ? known_size(node) : 0, err);
  if (!status && folder) status = write_folder(&w, node);
  if (!status && !folder) {
    cml_outflow_target(&w.out, output.fd, true);
    status = cml_outflow_file(&w.out, node, &size);
    if (!status) status = cml_outflow_finish(&w.out);
  }
  if (!status) status = cml_output_commit(&output, err);
  if (status && folder && output.fd >= 0) remove_written(&w, node);
  if (status) cml_output_abort(&output);
  cml_outflow_close(&w.out);
  return status;
}

cml_status cml_node_write(const cml_node *node, const char *path, cml_error *err) {
  return cml_node_write_with(node, path, NULL, err);
}
