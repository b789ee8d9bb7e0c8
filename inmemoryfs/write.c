/* A tree to disk: all folders first, then their files, each folder by one of a few threads, since the kernel's work for a small
 * file (a name, an inode, a page) keeps one processor busy. A folder is opened once, by its path below the new top, and its
 * files are made with O_EXCL, so that nothing outside is ever reached; no descriptor stays open across folders, however
 * deep they lie. Only the caller's thread talks to the caller's progress function. */
#include "write.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"
#include "output.h"
#include "outflow.h"
#include "tree_internal.h"

enum {
  HELPERS_MAX = 3,
  SHARED_MIN = 256, /* files from which on a helper is worth its start */
};

/* What the threads share. */
typedef struct team {
  const cml_node *top;
  int fd; /* of the new top */
  const cml_node **folders; /* those that hold files */
  size_t count, files;
  atomic_size_t next; /* the first folder that nobody has taken */
  atomic_bool stop;   /* one has failed, or the caller said so */
  atomic_uint_fast64_t done;
  sem_t finished;
  cml_write_options options;
} team;

/* One thread's part. */
typedef struct writer {
  cml_outflow out;
  team *team;
  pthread_t thread;
  bool helper;
  unsigned files;
  uint64_t told; /* how much of what it wrote the team's `done` holds */
  cml_status status;
  cml_error error; /* a helper's */
} writer;

static bool tell(void *context, uint64_t done, uint64_t total) {
  writer *w = context;
  team *t = w->team;
  uint64_t more = done - w->told, all = atomic_fetch_add(&t->done, more) + more;
  w->told = done;
  if (!w->helper && t->options.progress && !t->options.progress(t->options.progress_context, all, total)) atomic_store(&t->stop, true);
  return !atomic_load(&t->stop);
}

static cml_status open_writer(writer *w, team *t, uint64_t total, cml_error *err) {
  w->team = t;
  return cml_outflow_open(&w->out, &(cml_write_options){.progress = tell, .progress_context = w}, total, err);
}

static cml_status write_file(writer *w, int folder, const cml_node *file) {
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

static int open_folder(const team *t, const cml_node *folder, cml_error *err, cml_status *out_status) {
  int fd = cml_open_below(t->fd, t->top, folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0) *out_status = cml_node_error(err, cml_fail_errno(err, errno, "cannot open"), folder);
  return fd;
}

static cml_status write_files(writer *w, const cml_node *folder) {
  cml_status status = CML_OK;
  int fd = open_folder(w->team, folder, w->out.err, &status);
  if (fd < 0) return status;
  for (size_t i = 0, n = cml_node_count(folder); i < n && !status; i++) {
    const cml_node *child = cml_node_child(folder, i);
    if (child->kind == CML_NODE_FILE) status = write_file(w, fd, child);
  }
  close(fd);
  return status;
}

/* Folder after folder until none is left or somebody has failed. */
static void write_share(writer *w) {
  team *t = w->team;
  for (size_t i; !w->status && !atomic_load(&t->stop) && (i = atomic_fetch_add(&t->next, 1)) < t->count;)
    w->status = write_files(w, t->folders[i]);
  if (w->status) atomic_store(&t->stop, true);
}

static void *help(void *context) {
  writer *w = context;
  write_share(w);
  sem_post(&w->team->finished);
  return NULL;
}

/* Where a helper cannot be had, the others do its work. */
static unsigned start_helpers(writer *helpers, team *t) {
  size_t most = t->files < SHARED_MIN ? 1 : cml_machine_limits().cores;
  if (most > t->count) most = t->count;
  unsigned n = 0;
  for (; n + 1 < most && n < HELPERS_MAX; n++) {
    writer *w = &helpers[n];
    w->helper = true;
    if (open_writer(w, t, 0, &w->error)) break;
    if (!pthread_create(&w->thread, NULL, help, w)) continue;
    cml_outflow_close(&w->out);
    break;
  }
  return n;
}

/* While others still write, the caller goes on to hear of it and may stop them. */
static void await_helpers(writer *self, unsigned count) {
  for (unsigned left = count; left;) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += 100000000;
    if (at.tv_nsec >= 1000000000) at.tv_sec++, at.tv_nsec -= 1000000000;
    if (!sem_timedwait(&self->team->finished, &at)) left--;
    else tell(self, self->out.done, self->out.total);
  }
}

/* A failure makes the others stop: it is the reason, and not that they did. */
static cml_status write_all_files(writer *self, team *t, cml_error *err) {
  writer helpers[HELPERS_MAX] = {0};
  if (sem_init(&t->finished, 0, 0)) return cml_fail_errno(err, errno, "cannot make a semaphore");
  unsigned count = start_helpers(helpers, t);
  write_share(self);
  await_helpers(self, count);
  cml_status status = self->status;
  for (unsigned i = 0; i < count; i++) {
    writer *w = &helpers[i];
    pthread_join(w->thread, NULL);
    cml_outflow_close(&w->out);
    if (w->status && (!status || (status == CML_CANCELLED && w->status != CML_CANCELLED))) {
      status = w->status;
      if (err) *err = w->error;
    }
  }
  sem_destroy(&t->finished);
  if (!status && atomic_load(&t->stop)) status = cml_fail(err, CML_CANCELLED, CML_NO_OFFSET, "stopped on request");
  return status;
}

/* ---- folders ---- */

static size_t count_folders(const cml_node *folder) {
  size_t count = 1;
  for (size_t i = 0, n = cml_node_count(folder); i < n; i++)
    if (cml_node_child(folder, i)->kind == CML_NODE_FOLDER) count += count_folders(cml_node_child(folder, i));
  return count;
}

/* Recursion is bounded by CML_TREE_MAX_DEPTH. */
static cml_status make_folders(team *t, const cml_node *folder, cml_error *err) {
  cml_status status = CML_OK;
  size_t n = cml_node_count(folder), files = 0;
  int fd = open_folder(t, folder, err, &status);
  if (fd < 0) return status;
  for (size_t i = 0; i < n && !status; i++) {
    const cml_node *child = cml_node_child(folder, i);
    if (child->kind == CML_NODE_FILE) files++;
    else if (mkdirat(fd, child->name, 0777)) status = cml_node_error(err, cml_fail_errno(err, errno, "cannot create"), child);
  }
  close(fd);
  if (files) t->folders[t->count++] = folder;
  t->files += files;
  for (size_t i = 0; i < n && !status; i++) {
    const cml_node *child = cml_node_child(folder, i);
    if (child->kind == CML_NODE_FOLDER) status = make_folders(t, child, err);
  }
  return status;
}

static cml_status write_folder(writer *w, team *t, cml_error *err) {
  t->folders = calloc(count_folders(t->top), sizeof *t->folders);
  if (!t->folders) return cml_fail_memory(err);
  cml_status status = make_folders(t, t->top, err);
  if (!status) status = write_all_files(w, t, err);
  free(t->folders);
  return status;
}

/* Takes away what write_folder may have made, and nothing else. */
static void remove_written(const team *t, const cml_node *folder) {
  for (size_t i = 0, n = cml_node_count(folder); i < n; i++) {
    const cml_node *child = cml_node_child(folder, i);
    if (child->kind == CML_NODE_FOLDER) remove_written(t, child);
  }
  int fd = cml_open_below(t->fd, t->top, folder, O_RDONLY | O_DIRECTORY);
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
  team t = {.top = node};
  writer w = {0};
  cml_output output;
  uint64_t size;
  bool folder = node->kind == CML_NODE_FOLDER;
  if (options) t.options = *options;
  CML_TRY(cml_output_open(&output, path, folder, false, err));
  t.fd = output.fd;
  cml_status status = open_writer(&w, &t, t.options.progress ? known_size(node) : 0, err);
  if (!status && folder) status = write_folder(&w, &t, err);
  if (!status && !folder) {
    cml_outflow_target(&w.out, output.fd, true);
    status = cml_outflow_file(&w.out, node, &size);
    if (!status) status = cml_outflow_finish(&w.out);
  }
  if (!status) status = cml_output_commit(&output, err);
  if (status && folder && output.fd >= 0) remove_written(&t, node);
  if (status) cml_output_abort(&output);
  cml_outflow_close(&w.out);
  return status;
}

cml_status cml_node_write(const cml_node *node, const char *path, cml_error *err) {
  return cml_node_write_with(node, path, NULL, err);
}
