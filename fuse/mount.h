/* Shows a tree as a read-only file system. The only part of cml that knows FUSE. */
#ifndef CML_MOUNT_H
#define CML_MOUNT_H

#include <sys/types.h>
#include <time.h>

#include "tree.h"

/* Extended attribute of a mount's root: which process serves it. The same as user.cml.pid, but the kernel lets everybody read
 * it who reaches the folder, as is needed where the options give the mount to somebody else than the user who mounted. */
#define CML_MOUNT_PID "security.cml.pid"
/* Extended attribute of a folder that cml_mount_create made. */
#define CML_MOUNT_CREATED "user.cml.created"

typedef struct cml_mount_options {
  const char *source; /* shown as the mounted device: the container's path; NULL: "cml" */
  uid_t uid;          /* owner of everything */
  gid_t gid;
  mode_t umask;       /* bits taken from 0444 for files and 0555 for folders */
  struct timespec time; /* of everything: the container's own */
  bool allow_other;   /* let other users in */
  bool debug;         /* print each request to standard error */
} cml_mount_options;

typedef struct cml_mount cml_mount;

/* Mounts the tree at `folder`, which is created when it is absent (and then removed again at the end). When this returns the
 * mount is there; requests wait until cml_mount_serve answers them. SIGINT, SIGTERM and SIGHUP end the mount from here on,
 * unless they had handlers: one mount a process. The tree is referenced.
 * CML_UNSUPPORTED: there is no FUSE here (no /dev/fuse, or no right to mount). */
CML_API CML_NODISCARD cml_status cml_mount_create(cml_tree *tree, const char *folder, const cml_mount_options *options,
                                                  cml_mount **out, cml_error *err);
/* Answers requests until the file system is unmounted, or SIGINT, SIGTERM or SIGHUP comes. Uses one thread. */
CML_API CML_NODISCARD cml_status cml_mount_serve(cml_mount *mount, cml_error *err);
/* Unmounts when that has not happened, removes the folder when it was created. NULL is accepted. */
CML_API void cml_mount_destroy(cml_mount *mount);

#endif
