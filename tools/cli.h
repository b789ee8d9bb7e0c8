/* What cml's programs share: options, help, errors, progress, and streaming of a node to a descriptor.
 *
 * A program's main calls cli_start first and ends with `return cli_end(code)`. A command describes its options in a
 * table, calls cli_parse, and returns an exit code: 0 done, 1 it failed or found something wrong, 2 it was called
 * wrongly. Errors are one line on standard error, `PROGRAM: FILE: what is wrong (at byte N)`. */
#ifndef CML_CLI_H
#define CML_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tree.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* ---- options ---- */

typedef enum cli_kind { CLI_KIND_END, CLI_KIND_FLAG, CLI_KIND_TEXT, CLI_KIND_NUMBER, CLI_KIND_LIST } cli_kind;

/* Values of an option that may be given several times, in order. items is NULL when it was not given. */
typedef struct cli_list {
  const char **items; /* as long as the program: the strings are argv's */
  size_t count;
} cli_list;

typedef struct cli_option {
  cli_kind kind;
  char letter;          /* -l, or 0 */
  const char *name;     /* --name */
  const char *argument; /* how help calls the value; NULL for a flag */
  const char *help;     /* one line */
  void *target;
} cli_option;

#define CLI_FLAG(letter, name, target, help) {CLI_KIND_FLAG, letter, name, NULL, help, (bool *){target}}
#define CLI_TEXT(letter, name, argument, target, help) {CLI_KIND_TEXT, letter, name, argument, help, (const char **){target}}
/* Decimal or 0x…, with an optional K, M, G or T (powers of 1024) behind it. */
#define CLI_NUMBER(letter, name, argument, target, help) {CLI_KIND_NUMBER, letter, name, argument, help, (uint64_t *){target}}
#define CLI_LIST(letter, name, argument, target, help) {CLI_KIND_LIST, letter, name, argument, help, (cli_list *){target}}
#define CLI_END {CLI_KIND_END, 0, NULL, NULL, NULL, NULL}

/* What `--help` says about a program or a command. */
typedef struct cli_page {
  const char *usage;    /* "cmlpack ls FILE [PATH]"; several lines for several forms */
  const char *summary;  /* a sentence or two */
  const char *details;  /* further paragraphs, or NULL */
  const char *examples; /* lines of "command   # what it does", or NULL */
  int min_operands, max_operands; /* max -1: any number */
} cli_page;

#define CLI_GO_ON (-1)

/* Reads options wherever they stand (until `--`), fills their targets and moves the operands to the front of argv;
 * *argc becomes their count. argv[0] is not looked at by a command: pass the arguments behind the command's name.
 * Returns CLI_GO_ON, or the exit code: 0 after --help and --version, 2 after a wrong call (already reported). */
int cli_parse(const cli_page *page, const cli_option *options, int *argc, char **argv);

/* ---- commands ---- */

typedef struct cli_command {
  const char *name;
  int (*run)(int argc, char **argv); /* the arguments behind the command's name */
  const char *summary;
} cli_command;

/* Runs the command that argv[1] names; the table ends with a NULL name. Prints the list of commands for --help. */
int cli_run_command(const cli_page *page, const cli_command *commands, int argc, char **argv);

/* ---- start and end ---- */

/* Names the program in messages, makes sure that descriptors 0 to 2 are open, reports a file that shrinks while
 * it is mapped (SIGBUS). */
void cli_start(const char *program);
/* Flushes standard output: `code`, or 1 with a message when the output could not be written. */
int cli_end(int code);

/* ---- messages ---- */

/* `PROGRAM: FILE: text (at byte N)`; returns the status' exit code. file may be NULL. */
int cli_error(const char *file, const cml_error *err);
/* `PROGRAM: FILE: note: text` on standard error. */
void cli_note(const char *file, const char *text);
/* `PROGRAM: text`; returns 1. */
int cli_fail(const char *format, ...) CML_PRINTF(1, 2);
/* `PROGRAM: text; try PROGRAM COMMAND --help`; returns 2. */
int cli_usage_error(const char *format, ...) CML_PRINTF(1, 2);
/* `PROGRAM: warning: text`. */
void cli_warn(const char *format, ...) CML_PRINTF(1, 2);

/* ---- output ---- */

/* True on a terminal that shows colours, unless NO_COLOR is set. */
bool cli_colors(FILE *stream);
typedef enum cli_style { CLI_PLAIN, CLI_BOLD, CLI_DIM, CLI_RED, CLI_GREEN, CLI_YELLOW, CLI_BLUE } cli_style;
/* The escape sequence for standard output, or "" where there are no colours. */
const char *cli_style_on(cli_style style);
/* Text from a file made fit for a terminal: control characters become '?'. */
void cli_print_text(FILE *stream, const char *text);
/* "1.2 MB" in decimal units; writes into `out`, which it returns. */
const char *cli_bytes(uint64_t size, char out[24]);
/* Writes a buffer to standard output. */
void cli_put(const cml_buffer *buffer);
/* Streams a file node's contents to a descriptor, mapped bytes straight from the mapping. */
CML_NODISCARD cml_status cli_write_node(const cml_node *file, int fd, cml_error *err);
CML_NODISCARD cml_status cli_write_bytes(int fd, const void *data, uint64_t size, cml_error *err);

/* A line on a terminal's standard error, shown for what takes longer than a second. */
void cli_progress(const char *what, uint64_t done, uint64_t total);
void cli_progress_end(void);

#endif
