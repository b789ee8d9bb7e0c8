/* The commands of cmlpack, one file each: cmlpack_NAME.c. A new one is a row here and its file in meson.build.
 * Each takes the arguments behind its name and returns an exit code; see cli.h. */
#ifndef CML_CMLPACK_H
#define CML_CMLPACK_H

#include "cli.h"
#include "container.h"

/* name, what it does */
#define CMLPACK_COMMANDS(X)                      \
  X(info, "say what a file is")                  \
  X(ls, "list what a file holds")                \
  X(cat, "print one of the files within")        \
  X(extract, "write the files within to a folder") \
  X(verify, "check everything that can be checked") \
  X(describe, "show what a model is made of")    \
  X(diff, "compare two files or models")         \
  X(flatten, "pack a folder into a flat blob")   \
  X(unflatten, "unpack a flat blob to a folder")

#define CMLPACK_DECLARE(name, summary) int cmlpack_##name(int argc, char **argv);
CMLPACK_COMMANDS(CMLPACK_DECLARE)
#undef CMLPACK_DECLARE

/* Opens FILE and finds PATH in its view ("": the root; out_node NULL: not wanted). Returns 0, or reports and returns the
 * exit code. data: an external .ptd, or NULL. */
int cmlpack_open(const char *file, const char *data, const char *path, cml_container **out, const cml_node **out_node);

#endif
