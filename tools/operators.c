/* Prints docs/operators.md from the operator tables: `meson compile -C build operators` writes it, a test compares. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "et_op.h"
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
  printf("## Core ML: %zu operators\n\n`[x]` may be left out; `x°` must be known when the program is loaded; `x…` takes several values.\n\n", names);
  printf("| operator | since | until | parameters |\n|---|---|---|---|\n");
  for (size_t i = 0; i < used; i++) {
    printf("| %s | iOS%d | ", rows[i]->name, rows[i]->since);
    if (rows[i]->until) printf("iOS%d", rows[i]->until);
    printf(" | ");
    print_params(rows[i]);
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
  for (size_t i = 0; i < used; i++) {
    printf("%s`%s`", i ? ", " : "", names[i]);
    free(names[i]);
  }
  printf("\n");
  free(names);
  return 0;
}

int main(void) {
  printf("# Operators\n\nWhat `cmlrun` runs. Written by `meson compile -C build operators` from the operator tables; do not edit.\n\n");
  return print_mil() || print_et();
}
