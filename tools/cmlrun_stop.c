/* Ctrl-C: the run in progress is stopped before its next operation, what was being written is finished or removed, and cmlrun ends
 * with 128 and the signal's number, as shells expect. Where nothing runs, and at the second signal, the signal does what it always does. */
#include "cmlrun_program.h"

#include <signal.h>
#include <stdatomic.h>

static _Atomic(cml_session *) session;
static _Atomic(cml_et_method *) method;
static volatile sig_atomic_t stopped;

static void stop(int number) {
  cml_session *s = session;
  cml_et_method *m = method;
  if (stopped || (!s && !m)) {
    signal(number, SIG_DFL);
    raise(number);
    return;
  }
  stopped = number;
  if (s) cml_session_cancel(s);
  if (m) cml_et_method_cancel(m);
}

void cmlrun_stops(cml_session *s, cml_et_method *m) {
  const struct sigaction action = {.sa_handler = stop, .sa_flags = SA_RESTART};
  session = s;
  method = m;
  if (!s && !m) return;
  (void)!sigaction(SIGINT, &action, NULL);
  (void)!sigaction(SIGTERM, &action, NULL);
}

int cmlrun_failed(const char *path, const cml_error *err) {
  int code = cli_error(path, err);
  return stopped && err->status == CML_CANCELLED ? 128 + stopped : code;
}
