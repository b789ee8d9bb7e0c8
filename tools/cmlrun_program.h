/* What cmlrun's commands share for ExecuTorch programs. */
#ifndef CMLRUN_PROGRAM_H
#define CMLRUN_PROGRAM_H

#include "cmlrun.h"
#include "et_program.h"
#include "npy.h"

/* What a signal stops from now on; NULL and NULL before it is destroyed. */
void cmlrun_stops(cml_session *session, cml_et_method *method);

/* Whether it is a .pte or a .bpte, by its first bytes, or an archive or folder that holds one. */
bool cmlrun_is_program(const char *path);

/* An open program with one loaded method. */
typedef struct cmlrun_program {
  cml_et_program *program;
  cml_et_method *method;
} cmlrun_program;

/* The program alone; data: its .ptd files. */
CML_NODISCARD cml_status cmlrun_program_parse(const char *path, const cli_list *data, const cml_et_options *how, cml_et_program **out,
                                              cml_error *err);
CML_NODISCARD cml_status cmlrun_program_open(const char *path, const cmlrun_options *options, bool skip_delegates, cmlrun_program *out,
                                             cml_error *err);
void cmlrun_program_close(cmlrun_program *p);
/* The compile specs that are not heeded: in one line on standard error, which cmlrun_program_open writes; as a JSON list. */
void cmlrun_program_note_ignored(const char *path, const cml_et_method *m);
void cmlrun_program_ignored_json(const cml_et_method *m, cml_buffer *out);
/* Sets inputs from arrays input_0, input_1, … in the order of the method's tensor inputs, and delegate_K/output_J for
 * delegates that are skipped. */
CML_NODISCARD cml_status cmlrun_program_inputs(cmlrun_program *p, const char *path, cml_error *err);
/* Writes output_0, output_1, … in the order of the method's tensor outputs. */
CML_NODISCARD cml_status cmlrun_program_outputs(cmlrun_program *p, const char *path, cml_error *err);

/* Calls body for each tensor output, by the same names. */
CML_NODISCARD cml_status cmlrun_program_each_output(cmlrun_program *p, void (*body)(const char *name, const cml_tensor *t), cml_error *err);

/* cmlrun bench of a program. */
typedef struct cmlrun_bench_options {
  cmlrun_options options;
  const char *input; /* .npz, or NULL: small pseudo-random numbers in the largest shapes */
  double seconds;
  bool profile, json;
} cmlrun_bench_options;
int cmlrun_bench_program(const char *path, const cmlrun_bench_options *how);

/* An array's elements seen as a tensor; its rank is at most CML_MAX_RANK. */
cml_tensor cmlrun_tensor(const cml_array *a);
/* The output's path for a step: {step} replaced. */
void cmlrun_step_path(const char *pattern, size_t step, char *out, size_t room);

#endif
