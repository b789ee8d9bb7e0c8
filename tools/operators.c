/* Prints docs/operators.md from the operator tables: `meson compile -C build operators` writes it, a test compares. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "et_op.h"
#include "mapping.h"
#include "op.h"

static int by_name(const void *a, const void *b) {
  const cml_op *x = *(const cml_op *const *)a, *y = *(const cml_op *const *)b;
  int order = strcmp(x->name, y->name);
  return order ? order : x->since - y->since;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void print_params(const cml_op *op) {
  for (size_t i = 0; i < op->param_count; i++) {
    const cml_param *p = &op->params[i];
    printf("%s%s%s%s", i ? ", " : "", p->flags & CML_OPTIONAL ? "[" : "", p->name, p->flags & CML_OPTIONAL ? "]" : "");
    if (p->flags & CML_VARIADIC) printf("…");
    if (p->flags & CML_CONST) printf("°");
  }
}

/* The element types of the operator's main parameter. */
static void print_types(const cml_op *op) {
  if (!op->param_count) return;
  uint32_t mask = op->params[0].types;
  const char *between = "";
  if (mask & CML_M_LIST) printf("list"), between = " ";
  if ((mask & CML_M_ANY) == CML_M_ANY) {
    printf("%sany", between);
    return;
  }
  for (int t = 1; t < CML_DTYPE_COUNT; t++)
    if (mask >> t & 1) printf("%s%s", between, cml_dtype_name((cml_dtype)t)), between = " ";
}

/* ---- recorded cases: tests/runtime/op_cases.h ---- */

enum { ROWS = 1024 };
static unsigned cases[ROWS]; /* by row */

static size_t text_length(const uint8_t *p, const uint8_t *end) { return end - p < 2 ? 0 : (size_t)(p[0] | p[1] << 8); }

/* A record begins with CASE, the operator's name, the case's name and the opset; the next is looked for. */
static void count_file(const char *path) {
  cml_mapping *mapping = NULL;
  if (cml_mapping_open(path, &mapping, NULL)) return;
  cml_span s = cml_mapping_span(mapping);
  const uint8_t *p = s.data, *end = s.data + s.size;
  while (p && (p = memmem(p, (size_t)(end - p), "CASE", 4))) {
    char name[64];
    const uint8_t *text = p += 4;
    size_t n = text_length(text, end);
    if (n == 0 || n >= sizeof name || (size_t)(end - text) < n + 4) continue;
    size_t more = text_length(text + 2 + n, end);
    if ((size_t)(end - text) < n + more + 5) continue;
    memcpy(name, text + 2, n);
    name[n] = 0;
    const cml_op *op = cml_op_find(name, text[4 + n + more]);
    for (size_t i = 0; op && i < ROWS && cml_op_at(i); i++) cases[i] += cml_op_at(i) == op;
  }
  cml_mapping_unref(mapping);
}

static void count_cases(const char *folder) {
  char pattern[4096];
  glob_t g;
  snprintf(pattern, sizeof pattern, "%s/*.cases", folder);
  if (glob(pattern, 0, NULL, &g)) return;
  for (size_t i = 0; i < g.gl_pathc; i++) count_file(g.gl_pathv[i]);
  globfree(&g);
}

static void print_cases(const cml_op *op) {
  for (size_t i = 0; i < ROWS && cml_op_at(i); i++)
    if (cml_op_at(i) == op && cases[i]) printf("%u", cases[i]);
    else if (cml_op_at(i) == op) printf("programs");
}

static int print_mil(void) {
  size_t count = 0, names = 0;
  while (cml_op_at(count)) count++;
  const cml_op **rows = calloc(count + 1, sizeof *rows);
  if (!rows) return 1;
  size_t used = 0;
  for (size_t i = 0; i < count; i++)
    if (!(cml_op_at(i)->flags & CML_OP_INTERNAL)) rows[used++] = cml_op_at(i);
  qsort(rows, used, sizeof *rows, by_name);
  for (size_t i = 0; i < used; i++) names += !i || strcmp(rows[i]->name, rows[i - 1]->name);
  printf("## Core ML: %zu operators\n\n`[x]` may be left out; `x°` must be known when the program is loaded; `x…` takes several values. Types\nare those of the first "
         "parameter. Tests are recorded cases of the row by itself (tests/data/ops); `programs`: tested in whole programs only.\n\n", names);
  printf("| operator | since | until | parameters | types | tests |\n|---|---|---|---|---|---|\n");
  for (size_t i = 0; i < used; i++) {
    printf("| %s | iOS%d | ", rows[i]->name, rows[i]->since);
    if (rows[i]->until) printf("iOS%d", rows[i]->until);
    printf(" | ");
    print_params(rows[i]);
    printf(" | ");
    print_types(rows[i]);
    printf(" | ");
    print_cases(rows[i]);
    printf(" |\n");
  }
  free(rows);
  return 0;
}

static int print_et(void) {
  size_t count = 0, used = 0, room = 0;
  char **names = NULL;
  for (; cml_et_op_at(count); count++) {
    char *text = strdup(cml_et_op_at(count)->names), *rest = text;
    for (char *name; text && (name = strtok_r(rest, " ", &rest));) {
      if (used == room) names = realloc(names, (room = 2 * room + 64) * sizeof *names);
      if (!names) return 1;
      names[used++] = strdup(name);
    }
    free(text);
  }
  if (used) qsort(names, used, sizeof *names, by_text);
  printf("\n## ExecuTorch: %zu operators\n\n", used);
  for (size_t i = 0, column = 0; i < used; i++) {
    size_t width = strlen(names[i]) + 4;
    bool fits = column + width <= 140;
    printf("%s`%s`%s", !column ? "" : fits ? " " : "\n", names[i], i + 1 < used ? "," : "");
    column = fits ? column + width : width;
    free(names[i]);
  }
  printf("\n");
  free(names);
  return 0;
}

/* operators FOLDER-OF-CASES */
int main(int argc, char **argv) {
  if (argc > 1) count_cases(argv[1]);
  printf("# Operators\n\nWhat `cmlrun` runs. Written by `meson compile -C build operators` from the operator tables; do not edit.\n\n");
  return print_mil() || print_et();
}
