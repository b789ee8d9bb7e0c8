/* A container sees all cores and all memory of its host: what it may use of them stands in the files of its control groups
 * (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1). More threads than the quota has cores would be stopped for the rest of
 * each period; more memory than the limit ends the process. A group is bound by those around it, so all up to the root are read; where
 * a container does not see its own path, the root is its group. */
#include "machine.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CPUS = 1 << 16 };

/* The beginning of a small file as a string; false when there is none. */
static bool read_text(const char *path, char *text, size_t room) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, room - 1);
  if (fd >= 0) close(fd);
  text[n > 0 ? n : 0] = 0;
  return n > 0;
}

static void limit_cores(cml_machine *m, long long quota, long long period) {
  if (quota <= 0 || period <= 0) return;
  unsigned long long cores = ((unsigned long long)quota - 1) / (unsigned long long)period + 1;
  if (cores < m->cores) m->cores = (size_t)cores;
}

static void limit_memory(cml_machine *m, const char *text) {
  char *end;
  unsigned long long bytes = strtoull(text, &end, 10);
  if (end != text && bytes && bytes < m->memory) m->memory = bytes;
}

static bool read_in(const char *folder, const char *name, char *text, size_t room) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/%s", folder, name);
  return n > 0 && (size_t)n < sizeof path && read_text(path, text, room);
}

static void apply_folder(cml_machine *m, const char *folder) {
  char text[64], period[64];
  long long quota, length;
  if (read_in(folder, "cpu.max", text, sizeof text) && sscanf(text, "%lld %lld", &quota, &length) == 2) limit_cores(m, quota, length);
  if (read_in(folder, "cpu.cfs_quota_us", text, sizeof text) && read_in(folder, "cpu.cfs_period_us", period, sizeof period))
    limit_cores(m, strtoll(text, NULL, 10), strtoll(period, NULL, 10));
  if (read_in(folder, "memory.max", text, sizeof text)) limit_memory(m, text);
  if (read_in(folder, "memory.limit_in_bytes", text, sizeof text)) limit_memory(m, text);
}

/* Whether the list of version 1's controllers has one of those that set limits here. */
static bool names_any(const char *list, const char *end) {
  for (size_t n; list < end; list += n + 1) {
    n = strcspn(list, ",:");
    if ((n == 3 && !memcmp(list, "cpu", 3)) || (n == 6 && !memcmp(list, "memory", 6))) return true;
  }
  return false;
}

/* `line`: "ID:CONTROLLERS:/PATH"; version 2 has no controllers, version 1 a folder named after them. */
static void apply_line(cml_machine *m, const char *line, const char *root) {
  char folder[PATH_MAX];
  const char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
  if (!path || (path > controllers + 1 && !names_any(controllers + 1, path))) return;
  int names = (int)(path - controllers - 1);
  int n = snprintf(folder, sizeof folder, "%s%s%.*s%s", root, names ? "/" : "", names, controllers + 1, path + 1);
  if (n <= 0 || (size_t)n >= sizeof folder) return;
  size_t top = (size_t)n - strlen(path + 1);
  for (size_t end = (size_t)n;; folder[end] = 0) {
    apply_folder(m, folder);
    while (end > top && folder[end - 1] != '/') end--;
    if (end <= top) return;
    end--; /* the slash */
  }
}

void cml_machine_apply_groups(cml_machine *m, const char *list, const char *root) {
  FILE *f = fopen(list, "re");
  char *line = NULL;
  size_t room = 0;
  for (ssize_t n; f && (n = getline(&line, &room, f)) > 0;) {
    if (line[n - 1] == '\n') line[n - 1] = 0;
    apply_line(m, line, root);
  }
  free(line);
  if (f) fclose(f);
}

static size_t scheduled_cores(void) {
  for (int most = CPU_SETSIZE; most <= MOST_CPUS; most *= 2) { /* the kernel refuses sets that are smaller than its own */
    cpu_set_t *set = CPU_ALLOC(most);
    size_t bytes = CPU_ALLOC_SIZE(most);
    int cores = set && !sched_getaffinity(0, bytes, set) ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (cores > 0) return (size_t)cores;
  }
  return 1;
}

cml_machine cml_machine_limits(void) {
  long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  cml_machine m = {.cores = scheduled_cores(), .memory = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : UINT64_MAX};
  cml_machine_apply_groups(&m, "/proc/self/cgroup", "/sys/fs/cgroup");
  return m;
}
