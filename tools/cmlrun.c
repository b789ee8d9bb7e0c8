/* cmlrun runs models. */
#include "cmlrun_watch.h"

int main(int argc, char **argv) {
  static const cli_command commands[] = {{"predict", cmlrun_predict, "run a model on arrays or images"},
                                         {"describe", cmlrun_describe, "show inputs, outputs, states and memory"},
                                         {"bench", cmlrun_bench, "time a model and its operators"},
                                         {"verify", cmlrun_verify, "run a bundled program's test sets"},
                                         {"trace", cmlrun_trace, "show what each operation gives"},
                                         {"compare", cmlrun_compare, "find where two models drift apart"},
                                         {NULL, NULL, NULL}};
  static const cli_page page = {"cmlrun COMMAND ...", "Runs Core ML models and ExecuTorch programs.", NULL,
                                "cmlrun predict model.mlpackage --input in.npz --output out.npz\ncmlrun describe model.mlpackage\ncmlrun verify model.bpte\n", 0, -1};
  cli_start("cmlrun");
  return cli_end(cli_run_command(&page, commands, argc, argv));
}
