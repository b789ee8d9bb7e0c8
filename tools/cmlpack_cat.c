/* cmlpack cat: one file of the view to standard output. */
#include "cmlpack.h"
#include "container.h"

static const cli_page page = {
    .usage = "cmlpack cat FILE PATH",
    .summary = "Prints the file that lies at PATH within FILE, byte for byte.",
    .examples = "cmlpack cat model.pte program.json | jq .methods[0].inputs\n"
                "cmlpack cat model.pte forward/method.txt        # the instructions in words\n"
                "cmlpack cat model.pte constants/2.npy > c.npy   # numpy.load reads it",
    .min_operands = 2,
    .max_operands = 2,
};

int cmlpack_cat(int argc, char **argv) {
  const cli_option options[] = {CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_container *container = NULL;
  const cml_node *node;
  cml_error err = {0};
  code = cmlpack_open(argv[0], NULL, argv[1], &container, &node);
  if (code) return code;
  if (cml_node_kind_of(node) == CML_NODE_FOLDER) code = cli_fail("%s: %s is a folder; cmlpack ls lists it", argv[0], argv[1]);
  else if (cli_write_node(node, 1, &err)) code = cli_error(argv[0], &err);
  cml_container_close(container);
  return code;
}
