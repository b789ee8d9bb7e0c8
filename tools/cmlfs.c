/* cmlfs shows what is inside a model file as files. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli.h"
#include "container.h"
#include "decompress.h"
#include "mount.h"

static const cli_page mount_page = {
    "cmlfs mount FILE DIR [-f] [-o OPTIONS]",
    "Shows FILE (.pte, .ptd, .bpte, .mlpackage, .mlmodel, .mlmodelc, a flat blob, or an archive of one) as files below DIR.\n"
    "DIR is created when it is absent, and removed again at the end. The mount is ready when the command returns.",
    "OPTIONS, separated by commas: ro (always so), uid=N, gid=N, umask=OCTAL, allow_other.",
    "cmlfs mount model.pte /mnt/m && ls -R /mnt/m\n"
    "cmlfs umount /mnt/m\n"
    "cmlfs mount -f model.pte /mnt/m     # stay in the foreground; Ctrl-C unmounts\n",
    2, 2};
static const cli_page umount_page = {"cmlfs umount DIR", "Unmounts DIR, and waits until its process has gone.", NULL,
                                     "cmlfs umount /mnt/m\n", 1, 1};

/* One of "uid=0", "allow_other", …; false when it is not understood. */
static bool take_option(char *text, cml_mount_options *o) {
  char *end = NULL;
  if (!strcmp(text, "ro")) return true;
  if (!strcmp(text, "allow_other")) return o->allow_other = true;
  char *value = strchr(text, '=');
  if (!value || !value[1] || value[1] == '-' || value[1] == '+') return false;
  *value++ = 0;
  if (!strcmp(text, "uid")) o->uid = (uid_t)strtoul(value, &end, 10);
  else if (!strcmp(text, "gid")) o->gid = (gid_t)strtoul(value, &end, 10);
  else if (!strcmp(text, "umask")) o->umask = (mode_t)strtoul(value, &end, 8);
  value[-1] = '=';
  return end && !*end && o->umask <= 0777;
}

static int take_options(const cli_list *lists, cml_mount_options *o) {
  for (size_t i = 0; i < lists->count; i++) {
    char *copy = strdup(lists->items[i]), *save = NULL;
    if (!copy) return cli_fail("out of memory");
    for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
      if (take_option(t, o)) continue;
      int code = cli_usage_error("unknown or wrong mount option '%s'", t);
      free(copy);
      return code;
    }
    free(copy);
  }
  return CLI_GO_ON;
}

/* The child serves; the parent returns at once, the mount being there. */
static bool go_to_background(void) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0) return false;
  if (pid > 0) _exit(0);
  setsid();
  if (chdir("/")) return false;
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; null >= 0 && fd < 3; fd++) dup2(null, fd);
  if (null > 2) close(null);
  return true;
}

static int serve(const char *file, cml_tree *tree, const char *folder, const cml_mount_options *options, bool foreground) {
  cml_error err = {0};
  cml_mount *mount = NULL;
  cml_status status = cml_mount_create(tree, folder, options, &mount, &err);
  if (!status && !foreground && !go_to_background()) status = cml_fail_errno(&err, errno, "cannot start a process of its own");
  if (!status) status = cml_mount_serve(mount, &err);
  cml_mount_destroy(mount);
  return status ? cli_error(file, &err) : CLI_OK;
}

static int run_mount(int argc, char **argv) {
  bool foreground = false;
  cli_list lists = {NULL, 0};
  cml_mount_options options = {.uid = getuid(), .gid = getgid(), .umask = 0};
  cli_option table[] = {CLI_FLAG('f', "foreground", &foreground, "stay in the foreground"),
                        CLI_FLAG('d', "debug", &options.debug, "print each request (implies -f)"),
                        CLI_LIST('o', "options", "OPTIONS", &lists, "mount options"), CLI_END};
  int code = cli_parse(&mount_page, table, &argc, argv);
  if (code == CLI_GO_ON) code = take_options(&lists, &options);
  if (code != CLI_GO_ON) return code;
  cml_error err = {0};
  cml_container *container = NULL;
  struct stat st;
  char *source = realpath(argv[0], NULL); /* the server works in another folder */
  options.source = source ? source : argv[0];
  if (!stat(options.source, &st)) options.time = st.st_mtim;
  const cml_container_options what = {.decompress = cml_decompress};
  if (cml_container_open(options.source, &what, &container, &err)) {
    free(source);
    return cli_error(argv[0], &err);
  }
  code = serve(argv[0], cml_container_view(container), argv[1], &options, foreground || options.debug);
  cml_container_close(container);
  free(source);
  return code;
}

/* ---- umount ---- */

/* fusermount3 may unmount what this user mounted; root may anyway. */
static bool unmount(const char *folder) {
  if (!umount2(folder, UMOUNT_NOFOLLOW)) return true;
  int code = errno;
  if (code != EPERM) return false;
  pid_t pid = fork();
  if (!pid) {
    execlp("fusermount3", "fusermount3", "-u", folder, (char *)NULL);
    _exit(127);
  }
  int status = 1;
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  errno = code;
  return pid > 0 && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* The serving process, from the root's own attribute; 0 when it is no mount of ours. */
static pid_t serving_process(const char *folder) {
  char value[32] = "";
  errno = 0;
  ssize_t n = getxattr(folder, CML_MOUNT_PID, value, sizeof value - 1);
  return n > 0 ? (pid_t)strtol(value, NULL, 10) : 0;
}

/* A mount whose process has died, and the folder that it made. */
static int clear(const char *folder) {
  if (!unmount(folder)) return cli_fail("%s: cannot unmount: %s", folder, strerror(errno));
  if (getxattr(folder, CML_MOUNT_CREATED, NULL, 0) > 0) rmdir(folder);
  return CLI_OK;
}

static int run_umount(int argc, char **argv) {
  cli_option table[] = {CLI_END};
  int code = cli_parse(&umount_page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  pid_t pid = serving_process(argv[0]);
  if (pid <= 0 && errno == ENOTCONN) return clear(argv[0]);
  if (pid <= 0) return cli_fail("%s: not mounted by cmlfs", argv[0]);
  int process = (int)syscall(SYS_pidfd_open, pid, 0u);
  if (!unmount(argv[0])) return cli_fail("%s: cannot unmount: %s", argv[0], strerror(errno));
  struct pollfd wait = {.fd = process, .events = POLLIN};
  if (process >= 0 && poll(&wait, 1, 10000) < 1) cli_warn("%s: unmounted, but its process %d is still running", argv[0], (int)pid);
  if (process >= 0) close(process);
  return CLI_OK;
}

int main(int argc, char **argv) {
  static const cli_command commands[] = {{"mount", run_mount, "show a model file as files"},
                                         {"umount", run_umount, "take a mount away"},
                                         {NULL, NULL, NULL}};
  static const cli_page page = {"cmlfs COMMAND ...", "Mounts model files.", NULL,
                                "cmlfs mount model.pte /mnt/m\ncmlfs umount /mnt/m\n", 0, -1};
  cli_start("cmlfs");
  return cli_end(cli_run_command(&page, commands, argc, argv));
}
