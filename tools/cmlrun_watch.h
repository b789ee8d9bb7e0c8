/* Running a model of either kind while looking at what each operation gives: for trace and compare. Also how two arrays of
 * numbers differ, for compare and verify. */
#ifndef CMLRUN_WATCH_H
#define CMLRUN_WATCH_H

#include "cmlrun_program.h"

/* One output of an operation. Valid during the call. */
typedef struct cmlrun_seen {
  const char *where;  /* "12" an instruction's number, "12/" within the delegate of that instruction, "" in a Core ML model */
  const char *type;   /* "aten::add.out", "conv" */
  const char *name;   /* of the operation in a Core ML program; "" for instructions */
  size_t output;
  uint64_t ns;
  const cml_tensor *value;
  const char *source; /* "model.py:12, forward" where the program keeps its stack traces, else NULL */
  const char *handles; /* "7, 8": debug handles, where a delegate keeps them, else NULL */
} cmlrun_seen;

/* " (model.py:12, forward)" or " (debug handle 7)", where there is one. */
void cmlrun_print_source(const cmlrun_seen *seen);

typedef void cmlrun_look(void *context, const cmlrun_seen *seen);

/* Runs the model on each input file in turn, calling look for each output of each operation. */
CML_NODISCARD cml_status cmlrun_watch(const char *path, const cmlrun_options *options, const cli_list *inputs, cmlrun_look *look, void *context,
                                      cml_error *err);

typedef struct cmlrun_statistics {
  int64_t count, nan, infinite;
  double least, most, mean, deviation; /* of the finite ones */
} cmlrun_statistics;
cmlrun_statistics cmlrun_statistics_of(const cml_tensor *t);

typedef struct cmlrun_difference {
  int64_t count, wrong;   /* wrong: |a - b| > atol + rtol |b|, or only one is NaN */
  double largest, snr;    /* largest |a - b|; 10 log10 of b's power over the difference's, INFINITY when equal */
} cmlrun_difference;
/* Of count numbers; b is the reference. */
cmlrun_difference cmlrun_difference_of(const cml_tensor *a, const cml_tensor *b, double rtol, double atol);

int cmlrun_verify(int argc, char **argv);
int cmlrun_trace(int argc, char **argv);
int cmlrun_compare(int argc, char **argv);

#endif
