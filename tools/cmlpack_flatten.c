/* cmlpack flatten and unflatten: a folder to a flat blob and back, as ExecuTorch's Core ML backend stores it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checked.h"
#include "cmlpack.h"
#include "flat.h"

static volatile sig_atomic_t stopped; /* the signal that asked to stop, or 0 */

static void stop(int signal_number) { stopped = signal_number; }

static bool go_on(void *what, uint64_t done, uint64_t total) {
  cli_progress(what, done, total);
  return !stopped;
}

/* From here on SIGINT, SIGTERM and SIGHUP let the work clean up behind itself. */
static void catch_signals(void) {
  static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction action = {.sa_handler = stop}, old;
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
}

/* The exit code; a stopped program dies of the signal, as its shell expects. */
static int finish(cml_status status, const char *file, const cml_error *err) {
  cli_progress_end();
  if (!status) return CLI_OK;
  if (status == CML_CANCELLED && stopped) {
    signal(stopped, SIG_DFL);
    raise(stopped);
  }
  return cli_error(file, err);
}

/* A pipe, a terminal or /dev/null is written to as it is; a file appears when it is whole. */
static cml_status flatten_to(const cml_node *root, const char *path, const cml_flatten_options *options, cml_error *err) {
  struct stat st;
  if (!strcmp(path, "-")) return cml_flatten_to_fd(root, STDOUT_FILENO, options, err);
  if (stat(path, &st) || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) return cml_flatten_to_path(root, path, options, err);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return cml_fail_errno(err, errno, "cannot open");
  cml_status status = cml_flatten_to_fd(root, fd, options, err);
  if (close(fd) && !status) status = cml_fail_errno(err, errno, "cannot write");
  return status;
}

int cmlpack_flatten(int argc, char **argv) {
  uint64_t alignment = UINT64_MAX; /* not given */
  cml_flatten_options options = {.write = {go_on, "flattening"}};
  const cli_option table[] = {
      CLI_NUMBER(0, "align", "N", &alignment, "start each file at a multiple of N bytes, a power of two"),
      CLI_TEXT(0, "name", "ROOT", &options.root_name, "name the root ROOT instead of DIR's own name"),
      CLI_END,
  };
  static const cli_page page = {
      .usage = "cmlpack flatten DIR OUT.bin [--align N] [--name ROOT]",
      .summary = "Packs a folder into one flat blob, as ExecuTorch's Core ML backend stores it in .pte files.",
      .details = "Equal folders give equal bytes. Files are aligned to 1 byte, or to pages in blobs of over 1 GiB, as ExecuTorch does.\n"
                 "OUT.bin appears when it is whole; an existing file is replaced. - stands for standard output.\n"
                 "Symbolic links and special files are refused.",
      .examples = "cmlpack flatten lowered_module model.bin\n"
                  "cmlpack flatten model.mlpackage - --align 4K | xz > model.bin.xz",
      .min_operands = 2,
      .max_operands = 2,
  };
  int code = cli_parse(&page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  if (alignment != UINT64_MAX && !cml_is_power_of_two(alignment)) return cli_usage_error("--align takes a power of two");
  cml_tree *tree = NULL;
  cml_error err = {0};
  options.alignment = alignment == UINT64_MAX ? 0 : alignment;
  catch_signals();
  cml_status status = cml_tree_from_folder(argv[0], NULL, &tree, &err);
  if (status) return finish(status, argv[0], &err);
  status = flatten_to(cml_tree_root(tree), argv[1], &options, &err);
  cml_tree_unref(tree);
  return finish(status, argv[1], &err);
}

int cmlpack_unflatten(int argc, char **argv) {
  const cli_option table[] = {CLI_END};
  static const cli_page page = {
      .usage = "cmlpack unflatten IN.bin DIR",
      .summary = "Unpacks a flat blob, as `cmlpack flatten` and ExecuTorch write it, to a new folder.",
      .details = "DIR must not exist; it becomes the blob's root, and appears when it is whole. The root's stored name is not used.",
      .examples = "cmlpack unflatten model.bin lowered_module",
      .min_operands = 2,
      .max_operands = 2,
  };
  int code = cli_parse(&page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_mapping *mapping = NULL;
  cml_tree *tree = NULL;
  cml_error err = {0};
  const char *file = argv[0];
  cml_write_options options = {go_on, "unflattening"};
  catch_signals();
  cml_status status = cml_mapping_open(argv[0], &mapping, &err);
  if (!status && !cml_flat_recognise(cml_mapping_span(mapping)))
    status = cml_fail(&err, CML_INVALID, CML_NO_OFFSET, "not a flat blob: it does not end in a node table");
  if (!status) status = cml_flat_restore(mapping, 0, cml_mapping_span(mapping).size, NULL, &tree, &err);
  if (!status) {
    file = argv[1];
    status = cml_node_write_with(cml_tree_root(tree), argv[1], &options, &err);
  }
  cml_tree_unref(tree);
  cml_mapping_unref(mapping);
  return finish(status, file, &err);
}
