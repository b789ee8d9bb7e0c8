/* The one place where a cursor's sticky failure becomes an error. */
#include "span.h"

#include <inttypes.h>

cml_status cml_cursor_check(const cml_cursor *c, const char *what, cml_error *err) {
  if (!c->failed) return CML_OK;
  return cml_fail(err, CML_INVALID, c->fail_at, "%s ends early: it has %zu bytes and a read at offset %" PRIu64 " needs more",
                  what, c->span.size, c->fail_at);
}
