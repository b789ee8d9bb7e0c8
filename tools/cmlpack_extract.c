/* cmlpack extract: the view, or parts of it, written to a folder. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmlpack.h"

static const cli_page page = {
    .usage = "cmlpack extract FILE DIR [PATH]…",
    .summary = "Writes everything that FILE holds as the new folder DIR; or, with PATHs, each of these into DIR under its last name.",
    .details = "Nothing that exists is overwritten, and nothing half written is left: what is not whole has a temporary name.",
    .examples = "cmlpack extract model.pte out                                    # out/program.json, out/forward/…\n"
                "cmlpack extract model.pte . forward/coreml_0/model.mlpackage     # just the package, as ./model.mlpackage",
    .min_operands = 2,
    .max_operands = -1,
};

static int write_node(const char *file, const cml_node *node, const char *path) {
  cml_error err = {0};
  if (!cml_node_write(node, path, &err)) return CLI_OK;
  if (err.status == CML_EXISTS) return cli_fail("%s: exists already; name a new folder or remove it", path);
  return cli_error(err.status == CML_IO || err.status == CML_ARGUMENT ? path : file, &err);
}

static int extract_path(const char *file, const cml_node *root, const char *dir, const char *path) {
  const cml_node *node = cml_node_find(root, path);
  if (!node) return cli_fail("%s: there is no %s in it; cmlpack ls -R lists what there is", file, path);
  if (node == root) return cli_fail("%s: %s is everything; leave it out to extract all", file, path);
  const char *name = cml_node_name(node);
  size_t size = strlen(dir) + strlen(name) + 2;
  char *target = malloc(size);
  if (!target) return cli_fail("out of memory");
  snprintf(target, size, "%s/%s", dir, name);
  int code = write_node(file, node, target);
  free(target);
  return code;
}

int cmlpack_extract(int argc, char **argv) {
  const cli_option options[] = {CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_container *container = NULL;
  const cml_node *root;
  code = cmlpack_open(argv[0], NULL, "", &container, &root);
  if (code) return code;
  if (argc == 2) {
    code = write_node(argv[0], root, argv[1]);
  } else if (mkdir(argv[1], 0777) && errno != EEXIST) {
    code = cli_fail("%s: cannot make the folder: %s", argv[1], strerror(errno));
  } else {
    for (int i = 2; i < argc && !code; i++) code = extract_path(argv[0], root, argv[1], argv[i]);
  }
  cml_container_close(container);
  return code;
}
