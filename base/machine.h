/* What this process may use of its machine. */
#ifndef CML_MACHINE_H
#define CML_MACHINE_H

#include <stdint.h>

#include "error.h"

typedef struct cml_machine {
  size_t cores;    /* at least 1 */
  uint64_t memory; /* bytes; UINT64_MAX when nothing says */
} cml_machine;

/* The cores that the scheduler may give it, and the machine's memory; in containers no more than the CPU quota (rounded up) and the
 * memory limit of its control groups. Asks the system anew at each call. */
CML_API cml_machine cml_machine_limits(void);

/* Lowers `machine` to the limits of the control groups that `list` names (as /proc/self/cgroup does, both versions), and of those
 * around them, whose files lie below the folder `root` (/sys/fs/cgroup). What cannot be read sets no limit. */
CML_API void cml_machine_apply_groups(cml_machine *machine, const char *list, const char *root);

#endif
