/* cmlpack: looks into Core ML and ExecuTorch files and takes them apart. Nothing here but the table of commands. */
#include "cmlpack.h"

static const cli_page page = {
    .usage = "cmlpack COMMAND [ARGUMENT]…",
    .summary = "Looks into Core ML models (.mlpackage, .mlmodel, .mlmodelc, .mil), ExecuTorch programs (.pte, .bpte, .ptd)\n"
               "and flat blobs, alone or within .tar, .tar.gz, .tar.xz, .tar.zst and .zip archives. Files are told by content, not by name.",
    .details = "cmlpack COMMAND --help says more of each command. Exit codes: 0 done, 1 failed or something is wrong with the\n"
               "file, 2 called wrongly.",
    .examples = "cmlpack info model.pte\n"
                "cmlpack ls -R model.pte\n"
                "cmlpack cat model.pte forward/coreml_0/metadata.json\n"
                "cmlpack extract model.pte out forward/coreml_0/model.mlpackage",
};

static const cli_command commands[] = {
#define CMLPACK_ROW(name, summary) {#name, cmlpack_##name, summary},
    CMLPACK_COMMANDS(CMLPACK_ROW)
#undef CMLPACK_ROW
    {NULL, NULL, NULL},
};

int main(int argc, char **argv) {
  cli_start("cmlpack");
  return cli_end(cli_run_command(&page, commands, argc, argv));
}
