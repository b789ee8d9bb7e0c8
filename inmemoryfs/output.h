/* A new file or folder that appears under its name when it is whole, or not at all. Internal.
 *
 * A file without a name (O_TMPFILE) leaves nothing behind even when the process is killed; a folder, or a file where
 * there are no nameless ones, is made as `.cml-tmp-PID-RANDOM` beside its place: whatever of that name no living
 * process owns may be deleted. */
#ifndef CML_OUTPUT_H
#define CML_OUTPUT_H

#include "tree.h"

typedef struct cml_output {
  int parent; /* the folder it will lie in */
  int fd;     /* of the file or folder being made */
  char name[256], temporary[64]; /* temporary is "" for a nameless file */
  bool folder, replace;
} cml_output;

/* folder false: a file, open for writing. replace: an existing file may be replaced (atomically). */
cml_status cml_output_open(cml_output *o, const char *path, bool folder, bool replace, cml_error *err);
/* Gives it its name, and is closed then; CML_EXISTS when the name is taken. After a failure call cml_output_abort. */
cml_status cml_output_commit(cml_output *o, cml_error *err);
/* Throws it away: the file, or the folder, which must be empty. */
void cml_output_abort(cml_output *o);

#endif
