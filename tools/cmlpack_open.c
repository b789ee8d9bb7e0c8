/* What every command that looks into a container does first. */
#include <stdlib.h>
#include <string.h>

#include "cmlpack.h"
#include "decompress.h"

int cmlpack_open(const char *file, const char *data, const char *path, cml_container **out, const cml_node **out_node) {
  cml_error err = {0};
  cml_container_options options = {.data_path = data, .decompress = cml_decompress};
  if (cml_container_open(file, &options, out, &err)) return cli_error(file, &err);
  if (!out_node) return CLI_OK;
  *out_node = cml_node_find(cml_tree_root(cml_container_view(*out)), path);
  if (*out_node) return CLI_OK;
  cml_container_close(*out);
  *out = NULL;
  return cli_fail("%s: there is no %s in it; cmlpack ls -R lists what there is", file, path);
}
