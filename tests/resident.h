/* Pages in memory of this process's part of the mapping that begins at p, in kilobytes. */
#ifndef CML_TESTS_RESIDENT_H
#define CML_TESTS_RESIDENT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static inline size_t resident_kb(const void *p) {
  char line[256], wanted[32];
  size_t kb = 0;
  bool inside = false;
  FILE *f = fopen("/proc/self/smaps", "re");
  snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)(uintptr_t)p);
  while (f && fgets(line, sizeof line, f)) {
    if (!strncmp(line, wanted, strlen(wanted))) inside = true;
    if (inside && sscanf(line, "Rss: %zu", &kb) == 1) break;
  }
  if (f) fclose(f);
  return kb;
}

#endif
