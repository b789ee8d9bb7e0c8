/* The commands of cmlpack, one file each: cmlpack_NAME.c. A new one is a row here and its file in meson.build.
 * Each takes the arguments behind its name and returns an exit code; see cli.h. */
#ifndef CML_CMLPACK_H
#define CML_CMLPACK_H

#include "cli.h"

/* name, what it does */
#define CMLPACK_COMMANDS(X)                      \
  X(flatten, "pack a folder into a flat blob")   \
  X(unflatten, "unpack a flat blob to a folder")

#define CMLPACK_DECLARE(name, summary) int cmlpack_##name(int argc, char **argv);
CMLPACK_COMMANDS(CMLPACK_DECLARE)
#undef CMLPACK_DECLARE

#endif
