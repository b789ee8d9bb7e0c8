/* cmlrun runs models. */
#include "cmlrun.h"

int main(int argc, char **argv) {
  static const cli_command commands[] = {{"predict", cmlrun_predict, "run a model on arrays or images"},
                                         {"describe", cmlrun_describe, "show inputs, outputs, states and memory"},
                                         {"bench", cmlrun_bench, "time a model and its operators"},
                                         {NULL, NULL, NULL}};
  static const cli_page page = {"cmlrun COMMAND ...", "Runs Core ML models.", NULL,
                                "cmlrun predict model.mlpackage --input in.npz --output out.npz\ncmlrun describe model.mlpackage\n", 0, -1};
  cli_start("cmlrun");
  return cli_end(cli_run_command(&page, commands, argc, argv));
}
