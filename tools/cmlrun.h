/* What cmlrun's commands share: a model opened for running. */
#ifndef CMLRUN_H
#define CMLRUN_H

#include "cli.h"
#include "container.h"
#include "executable.h"

int cmlrun_predict(int argc, char **argv);
int cmlrun_describe(int argc, char **argv);
int cmlrun_bench(int argc, char **argv);

typedef struct cmlrun_options {
  const char *method, *function, *passes, *cache, *kernels;
  cli_list data;                /* .ptd files */
  uint64_t threads, max_memory; /* 0: the machine's */
} cmlrun_options;

/* Rows of a command's option table: what a run may take of the machine. */
#define CMLRUN_LIMITS(options)                                                                        \
  CLI_NUMBER('t', "threads", "N", &(options).threads, "threads (default: one for each core that the process may use)"),        \
      CLI_NUMBER(0, "max-memory", "BYTES", &(options).max_memory, "what the model may take beside its file (default: what the machine or the container has)")

/* Another row, of commands that call cmlrun_choose_kernels with what it sets, before anything is prepared. */
#define CMLRUN_KERNELS(options) \
  CLI_TEXT(0, "kernels", "NAME", &(options).kernels, "portable, avx2, avxvnni, avx512, avx512vnni, avx512vbmi, avx512fp16, amx, neon or neondot (default: the fastest for this processor)")
/* CLI_GO_ON, or the exit code of a wrong call when this machine or build has no such kernels. */
int cmlrun_choose_kernels(const cmlrun_options *options);

/* An open model with its executable; close with cmlrun_close. */
typedef struct cmlrun_model {
  cml_container *container;
  cml_model *model;
  cml_executable *executable;
} cmlrun_model;

/* An archive is looked into to tell what it holds, and then opened: unpacked once, because what was looked into is kept for
 * whoever opens the same path next (a command is given one model). NULL when it cannot be opened; opening it will say why. */
const cml_container *cmlrun_look_into(const char *path);
/* The caller closes it; NULL when that path was not looked into. */
cml_container *cmlrun_take(const char *path);
/* at_first_run: as in cml_prepare_options. */
CML_NODISCARD cml_status cmlrun_open(const char *path, const cmlrun_options *options, bool at_first_run, cmlrun_model *out, cml_error *err);
/* Sets a session's inputs from an .npz, by feature name. */
CML_NODISCARD cml_status cmlrun_session_inputs(cml_session *session, const char *path, cml_error *err);
void cmlrun_close(cmlrun_model *m);
/* Prints the error; the exit code, 128 and more when a signal stopped the run. */
int cmlrun_failed(const char *path, const cml_error *err);

#endif
