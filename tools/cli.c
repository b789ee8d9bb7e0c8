/* Options are read by hand rather than with getopt_long: the table that parses is the table that prints the help, and
 * a wrong call is answered in one line that names what was found and what would have been right. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *program = "cml";
static const char *command; /* the one that runs, for usage errors */

/* ---- start and end ---- */

/* A file opened while descriptor 1 is closed would become standard output. /dev/null stands in: opened the wrong way
 * round, so that reading and writing fail as they would have. */
static void keep_standard_descriptors(void) {
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd ? O_RDONLY : O_WRONLY) < 0) _exit(CLI_FAILED);
}

static void report_sigbus(int signal_number) {
  (void)signal_number;
  static const char text[] = ": the file shrank or could not be read while it was in use\n";
  if (write(2, program, strlen(program)) >= 0 && write(2, text, sizeof text - 1) >= 0) { /* nothing more to do */
  }
  _exit(CLI_FAILED);
}

void cli_start(const char *name) {
  program = name;
  keep_standard_descriptors();
  struct sigaction action = {.sa_handler = report_sigbus};
  sigaction(SIGBUS, &action, NULL);
}

int cli_end(int code) {
  cli_progress_end();
  bool failed = ferror(stdout) != 0;
  if (fflush(stdout)) failed = true;
  if (!failed) return code;
  if (errno != EPIPE) fprintf(stderr, "%s: cannot write standard output: %s\n", program, strerror(errno));
  return code ? code : CLI_FAILED;
}

/* ---- messages ---- */

int cli_error(const char *file, const cml_error *err) {
  cli_progress_end();
  fflush(stdout);
  fprintf(stderr, "%s: ", program);
  if (file) cli_print_text(stderr, file), fputs(": ", stderr);
  cli_print_text(stderr, err->text[0] ? err->text : cml_status_words(err->status));
  if (err->offset != CML_NO_OFFSET) fprintf(stderr, " (at byte %llu)", (unsigned long long)err->offset);
  fputc('\n', stderr);
  int code = cml_status_exit_code(err->status);
  return code ? code : CLI_FAILED;
}

void cli_note(const char *file, const char *text) {
  cli_progress_end();
  fflush(stdout);
  fprintf(stderr, "%s: ", program);
  cli_print_text(stderr, file);
  fputs(": note: ", stderr);
  cli_print_text(stderr, text);
  fputc('\n', stderr);
}

static void say(const char *kind, const char *format, va_list args) {
  char text[1024];
  cli_progress_end();
  fflush(stdout);
  vsnprintf(text, sizeof text, format, args);
  fprintf(stderr, "%s: %s", program, kind);
  cli_print_text(stderr, text);
}

int cli_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say("", format, args);
  va_end(args);
  fputc('\n', stderr);
  return CLI_FAILED;
}

int cli_usage_error(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say("", format, args);
  va_end(args);
  fprintf(stderr, "; try %s%s%s --help\n", program, command ? " " : "", command ? command : "");
  return CLI_USAGE;
}

void cli_warn(const char *format, ...) {
  va_list args;
  va_start(args, format);
  say("warning: ", format, args);
  va_end(args);
  fputc('\n', stderr);
}

/* ---- help ---- */

/* Below a title lines are indented. */
static void print_paragraphs(const char *title, const char *text) {
  if (!text) return;
  bool indented = title[strlen(title) - 1] == ':';
  printf("%s%s", title, indented ? "\n  " : "");
  for (; *text; text++) {
    putchar(*text);
    if (*text == '\n' && indented && text[1] && text[1] != '\n') fputs("  ", stdout);
  }
  putchar('\n');
}

static void print_option(const cli_option *o) {
  char left[64];
  snprintf(left, sizeof left, "%c%c%s--%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ', o->letter ? ", " : "  ",
           o->name, o->argument ? " " : "", o->argument ? o->argument : "");
  printf("  %-24s %s\n", left, o->help);
}

static void print_help(const cli_page *page, const cli_option *options, const cli_command *commands) {
  static const cli_option common[] = {{CLI_KIND_FLAG, 'h', "help", NULL, "print this and end", NULL},
                                      {CLI_KIND_FLAG, 0, "version", NULL, "print the version and end", NULL},
                                      CLI_END};
  print_paragraphs("Usage:", page->usage);
  print_paragraphs("\n", page->summary);
  if (commands) fputs("\nCommands:\n", stdout);
  for (; commands && commands->name; commands++) printf("  %-12s %s\n", commands->name, commands->summary);
  fputs("\nOptions:\n", stdout);
  for (const cli_option *o = options; o && o->kind; o++) print_option(o);
  for (const cli_option *o = common; o->kind; o++) print_option(o);
  print_paragraphs("\n", page->details);
  print_paragraphs("\nExamples:", page->examples);
}

/* ---- options ---- */

static bool parse_number(const char *text, uint64_t *out) {
  char *end;
  if (*text < '0' || *text > '9') return false;
  errno = 0;
  unsigned long long value = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
  if (errno || end == text) return false;
  static const char units[] = "KMGT";
  const char *unit = *end ? strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end) : NULL;
  if (unit) {
    unsigned shift = 10 * (unsigned)(unit - units + 1);
    if (value > UINT64_MAX >> shift) return false;
    value <<= shift;
    end++;
  }
  if (*end) return false;
  *out = value;
  return true;
}

/* Lists stay as long as the program, as its arguments do: nobody frees them. */
static struct list_block {
  struct list_block *next;
  const char *items[];
} *list_blocks;

static int add_to_list(cli_list *list, const char *value) {
  struct list_block *block = malloc(sizeof *block + (list->count + 1) * sizeof *block->items);
  if (!block) return cli_fail("out of memory");
  *block = (struct list_block){.next = list_blocks};
  list_blocks = block;
  if (list->count) memcpy(block->items, list->items, list->count * sizeof *block->items);
  block->items[list->count++] = value;
  list->items = block->items;
  return CLI_GO_ON;
}

/* Stores the value; an error is reported. */
static int set_option(const cli_option *o, const char *value) {
  switch (o->kind) {
    case CLI_KIND_FLAG: *(bool *)o->target = true; break;
    case CLI_KIND_TEXT: *(const char **)o->target = value; break;
    case CLI_KIND_NUMBER:
      if (!parse_number(value, o->target)) return cli_usage_error("--%s wants a number, not \"%s\"", o->name, value);
      break;
    case CLI_KIND_LIST: return add_to_list(o->target, value);
    case CLI_KIND_END: break;
  }
  return CLI_GO_ON;
}

/* Names may be cut short where one option alone begins so, as getopt_long has it. */
static const cli_option *find_long(const cli_option *options, const char *name, size_t size) {
  const cli_option *found = NULL;
  size_t count = 0;
  for (const cli_option *o = options; o && o->kind; o++) {
    if (strncmp(o->name, name, size)) continue;
    if (strlen(o->name) == size) return o;
    found = o;
    count++;
  }
  return count == 1 && size > 1 ? found : NULL;
}

typedef struct parser {
  const cli_page *page;
  const cli_option *options;
  int argc, next; /* next: index of the argument behind the one that is read */
  char **argv;
} parser;

static int parse_long(parser *p, const char *argument) {
  const char *name = argument + 2, *equals = strchr(name, '=');
  size_t size = equals ? (size_t)(equals - name) : strlen(name);
  if (size == 4 && !memcmp(name, "help", 4)) return print_help(p->page, p->options, NULL), CLI_OK;
  if (size == 7 && !memcmp(name, "version", 7)) return printf("%s %s\n", program, CML_VERSION), CLI_OK;
  const cli_option *o = find_long(p->options, name, size);
  if (!o) return cli_usage_error("there is no option %.*s", (int)size + 2, argument);
  if (!o->argument) return equals ? cli_usage_error("--%s takes no value", o->name) : set_option(o, NULL);
  if (equals) return set_option(o, equals + 1);
  if (p->next >= p->argc) return cli_usage_error("--%s wants a value: %s", o->name, o->argument);
  return set_option(o, p->argv[p->next++]);
}

static int parse_letters(parser *p, const char *argument) {
  for (const char *c = argument + 1; *c; c++) {
    const cli_option *o = p->options;
    while (o && o->kind && o->letter != *c) o++;
    if (*c == 'h' && (!o || !o->kind)) return print_help(p->page, p->options, NULL), CLI_OK;
    if (!o || !o->kind) return cli_usage_error("there is no option -%c", *c);
    const char *value = NULL;
    if (o->argument) {
      if (!c[1] && p->next >= p->argc) return cli_usage_error("-%c wants a value: %s", *c, o->argument);
      value = c[1] ? c + 1 : p->argv[p->next++];
    }
    int code = set_option(o, value);
    if (code != CLI_GO_ON || value) return code;
  }
  return CLI_GO_ON;
}

int cli_parse(const cli_page *page, const cli_option *options, int *argc, char **argv) {
  parser p = {page, options, *argc, 0, argv};
  int operands = 0;
  bool only_operands = false;
  while (p.next < p.argc) {
    char *argument = argv[p.next++];
    int code = CLI_GO_ON;
    if (only_operands || argument[0] != '-' || !argument[1]) argv[operands++] = argument;
    else if (!strcmp(argument, "--")) only_operands = true;
    else code = argument[1] == '-' ? parse_long(&p, argument) : parse_letters(&p, argument);
    if (code != CLI_GO_ON) return code;
  }
  *argc = operands;
  size_t first_line = strcspn(page->usage, "\n");
  if (operands < page->min_operands)
    return cli_usage_error("too few arguments, expected %.*s", (int)first_line, page->usage);
  if (page->max_operands >= 0 && operands > page->max_operands)
    return cli_usage_error("\"%s\" is one argument too many, expected %.*s", argv[page->max_operands], (int)first_line, page->usage);
  return CLI_GO_ON;
}

int cli_run_command(const cli_page *page, const cli_command *commands, int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : NULL;
  if (!name) return cli_usage_error("no command given");
  if (!strcmp(name, "--help") || !strcmp(name, "-h") || (!strcmp(name, "help") && argc == 2))
    return print_help(page, NULL, commands), CLI_OK;
  if (!strcmp(name, "--version")) return printf("%s %s\n", program, CML_VERSION), CLI_OK;
  bool help = !strcmp(name, "help");
  if (help) name = argv[2];
  for (const cli_command *c = commands; c->name; c++) {
    if (strcmp(c->name, name)) continue;
    command = c->name;
    char help_word[] = "--help", *help_only[] = {help_word, NULL};
    return help ? c->run(1, help_only) : c->run(argc - 2, argv + 2);
  }
  return cli_usage_error("there is no command \"%s\"", name);
}

/* ---- output ---- */

bool cli_colors(FILE *stream) {
  const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
  return isatty(fileno(stream)) && !(no_color && *no_color) && term && strcmp(term, "dumb");
}

const char *cli_style_on(cli_style style) {
  static const char *const codes[] = {"\033[0m", "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[33m", "\033[34m"};
  static int colors = -1;
  if (colors < 0) colors = cli_colors(stdout);
  return colors ? codes[style] : "";
}

void cli_print_text(FILE *stream, const char *text) {
  for (; *text; text++) fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, stream);
}

const char *cli_bytes(uint64_t size, char out[24]) {
  static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  double value = (double)size;
  size_t unit = 0;
  while (value >= 999.5 && unit < 6) value /= 1000, unit++;
  snprintf(out, 24, unit && value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
  return out;
}

void cli_put(const cml_buffer *buffer) {
  if (buffer->size) fwrite(buffer->data, 1, buffer->size, stdout);
}

/* ---- progress ---- */

static bool progress_shown;

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void cli_progress(const char *what, uint64_t done, uint64_t total) {
  static double started, last;
  static int terminal = -1;
  if (terminal < 0) terminal = isatty(2), started = seconds_now();
  if (!terminal) return;
  double now = seconds_now();
  if (now - started < 1 || now - last < 0.1) return;
  last = now;
  char a[24], b[24];
  fprintf(stderr, "\r%s: %s of %s (%.0f%%)\033[K", what, cli_bytes(done, a), cli_bytes(total, b),
          total ? 100.0 * (double)done / (double)total : 100.0);
  progress_shown = true;
}

void cli_progress_end(void) {
  if (progress_shown) fputs("\r\033[K", stderr);
  progress_shown = false;
}
