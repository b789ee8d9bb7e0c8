/* What cmlrun bench knows of a run: an event for each operation, what it computed and moved, and what the machine can do. */
#ifndef CMLRUN_PROFILE_H
#define CMLRUN_PROFILE_H

#include <stdatomic.h>

#include "buffer.h"
#include "executable.h"

typedef struct cmlrun_event {
  const char *type, *name; /* the executable's */
  char shapes[96];         /* of the outputs */
  uint64_t begin_ns, end_ns;
  uint64_t flops, bytes;   /* floating-point operations; operands read and results written */
} cmlrun_event;

/* What one thread did of an operation that several shared. */
typedef struct cmlrun_piece {
  uint32_t thread, event; /* 0: the caller; number of the operation's event */
  uint64_t begin_ns, end_ns;
} cmlrun_piece;

typedef struct cmlrun_operator {
  const char *type;
  uint64_t ns, flops, bytes, calls;
} cmlrun_operator;

typedef struct cmlrun_peaks {
  double gflops, gbytes; /* a second, on the threads that were asked for */
} cmlrun_peaks;

/* All runs count in the operators; events and pieces are those of the newest run. */
typedef struct cmlrun_profile {
  cmlrun_event *events;
  size_t event_count, event_capacity;
  cmlrun_operator operators[512];
  size_t operator_count;
  uint64_t runs;
  size_t threads;
  cmlrun_peaks peaks;
  cmlrun_piece *pieces;
  atomic_size_t piece_count; /* those that found no room, too */
} cmlrun_profile;

/* For cml_session_observe and cml_pool_watch; context: a cmlrun_profile. */
cml_observe cmlrun_profile_observe;
cml_pool_observe cmlrun_profile_piece;
/* Makes room for pieces, of which cmlrun_piece_count are there. */
CML_NODISCARD cml_status cmlrun_profile_keep_pieces(cmlrun_profile *p, cml_error *err);
size_t cmlrun_piece_count(const cmlrun_profile *p);
void cmlrun_profile_begin_run(cmlrun_profile *p);
void cmlrun_profile_sort(cmlrun_profile *p); /* operators by time */
void cmlrun_profile_free(cmlrun_profile *p);
/* Multiplies and reads for about a tenth of a second on so many threads (0: one for each core). */
CML_NODISCARD cml_status cmlrun_measure_peaks(size_t threads, cmlrun_peaks *out, cml_error *err);
/* The larger of the shares of the two peaks that so much in so many nanoseconds is, 0 to 1. */
double cmlrun_share(const cmlrun_peaks *peaks, uint64_t flops, uint64_t bytes, uint64_t ns);

/* The events as chrome://tracing and ui.perfetto.dev read them. */
void cmlrun_trace_json(const cmlrun_profile *p, const char *model, cml_buffer *out);
/* One page without anything from outside: timeline, memory plan, table of operators. */
void cmlrun_profile_html(const cmlrun_profile *p, const char *model, const cml_executable *executable, double median_ms, cml_buffer *out);

#endif
