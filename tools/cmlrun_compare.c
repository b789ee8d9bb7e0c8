/* cmlrun compare: two models side by side, to find where they part.
 *
 * What A's operations give is kept; then B runs twice: once to see which operations it has, so that they can be aligned with A's, and
 * once to look at numbers. Operations of Core ML models have names, which both models keep; the others are aligned as a whole (the
 * longest common subsequence) by what they do and how much they give, so that what a quantizer puts between them or a converter
 * leaves out moves nothing. Those of Core ML delegates may have debug handles, too: numbers of nodes of the exported program, by which
 * operations that a converter named otherwise find each other. What a converter merged into one (a convolution with the normalisation behind it) gives what the last of
 * them gave: an operation has not drifted either where some operation of A without a partner gives the same. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cmlrun_watch.h"

static const cli_page compare_page = {
    "cmlrun compare A B --input in.npz [--snr DB] [--all]",
    "Runs two models on the same inputs and names the first operation where B drifts away from A.",
    "Operations are matched by name (without the _cast_fp16 that conversion to float16 adds), else by what they do, in order:\n"
    "a program with another, a program with Core ML delegates with one without, a quantized one with one in float. A program\n"
    "exported with stack traces also says where in the source, delegates that keep debug handles say which. An operation has\n"
    "drifted when its outputs' signal-to-noise ratio against A is below --snr (default: 30 dB), or its shape is another. Exit\n"
    "code 1 when one has. Between fp32 and fp16, 40 to 70 dB are common; with 8 bits, 20 to 40.",
    "cmlrun compare fp32.mlpackage fp16.mlpackage --input in.npz\n"
    "cmlrun compare portable.pte delegated.pte --input in.npz --all\n"
    "cmlrun compare model.pte quantized.pte --input in.npz --snr 20 --all\n",
    2, 2};

enum { NOBODY = -1, MAX_ALIGNED = 4000 };

/* One output of an operation. */
typedef struct item {
  char *text;       /* "3 aten::add.out", "0/ conv conv_1" */
  char *name;       /* "relu_1 #0"; empty: it has none */
  char *kind;       /* "add #0" */
  char *handles;    /* "7, 8 real_div #0"; empty: it has none */
  int64_t elements;
  cml_tensor value; /* A's; owned */
  long partner;     /* in the other list, or NOBODY */
  bool again;       /* it only gives again what its partner's partner gave, rounded */
} item;

typedef struct list {
  item *items;
  size_t count, capacity;
} list;

typedef struct comparison {
  list a, b, *into; /* into: the list that is being filled */
  size_t at, matched;
  double limit;
  bool all, drifted, failed;
} comparison;

/* ---- what an operation is ---- */

static size_t without(const char *s, size_t n, const char *end) {
  size_t m = strlen(end);
  return n > m && !memcmp(s + n - m, end, m) ? n - m : n;
}

static size_t without_number(const char *s, size_t n) {
  size_t k = n;
  while (k && isdigit((unsigned char)s[k - 1])) k--;
  return k < n && k > 1 && s[k - 1] == '_' ? k - 1 : n;
}

/* The operator of torch that something stands for: of "aten::_softmax.out", of a Core ML operation that was named after
 * "aten_softmax_int_1", else of its type. */
static void kind_of(const cmlrun_seen *s, char *kind, size_t room) {
  static const char *const same[][2] = {{"linear", "addmm"},  {"matmul", "mm"},  {"bmm", "mm"},          {"conv", "convolution"}, {"transpose", "permute"},
                                        {"reshape", "view"}, {"real_div", "div"}, {"reduce_mean", "mean"}, {"reduce_sum", "sum"},   {"max_pool", "max_pool2d"},
                                        {"avg_pool", "avg_pool2d"}};
  static const char *const ends[] = {"_with_indices", "_copy", "_legit_no_training"};
  const char *at = s->type, *colons = strstr(s->type, "::");
  size_t n;
  if (colons) {
    at = colons + 2;
    n = strcspn(at, ".");
  } else if (!strncmp(s->name, "aten_", 5)) {
    at = s->name + 5;
    n = without_number(at, without(at, strlen(at), "_cast_fp16"));
    while (n && at[n - 1] != '_') n--; /* the overload */
    n -= n > 0;
  } else {
    n = strlen(at);
  }
  if (n > 1 && *at == '_') at++, n--;
  if (n > 7 && !strncmp(at, "native_", 7)) at += 7, n -= 7;
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) n = without(at, n, ends[i]);
  for (size_t i = 0; i < sizeof same / sizeof *same; i++)
    if (strlen(same[i][0]) == n && !memcmp(at, same[i][0], n)) {
      at = same[i][1];
      n = strlen(at);
      break;
    }
  snprintf(kind, room, "%.*s #%zu", (int)n, at, s->output);
}

/* ---- lists ---- */

static void drop(list *l) {
  for (size_t i = 0; i < l->count; i++) {
    free(l->items[i].text);
    free(l->items[i].name);
    free(l->items[i].kind);
    free(l->items[i].handles);
    free(l->items[i].value.data);
  }
  free(l->items);
}

/* Places of largest elements are no numbers that could drift: near ties fall either way. */
static bool skipped(const cmlrun_seen *s) { return s->value->dtype == CML_STRING || (s->output && !cml_dtype_is_float(s->value->dtype)); }

static bool grow(list *l) {
  if (l->count < l->capacity) return true;
  size_t capacity = l->capacity ? l->capacity * 2 : 256;
  item *items = realloc(l->items, capacity * sizeof *items);
  if (!items) return false;
  l->items = items;
  l->capacity = capacity;
  return true;
}

static void keep(void *context, const cmlrun_seen *s) {
  comparison *c = context;
  char text[512], name[512] = "", kind[512], handles[800] = "";
  uint64_t bytes;
  if (c->failed || skipped(s) || !cml_tensor_bytes(s->value, &bytes)) return;
  snprintf(text, sizeof text, "%s%s%s%s%s", s->where, *s->where ? " " : "", s->type, *s->name ? " " : "", s->name);
  if (*s->name) snprintf(name, sizeof name, "%.*s #%zu", (int)without(s->name, strlen(s->name), "_cast_fp16"), s->name, s->output);
  kind_of(s, kind, sizeof kind);
  if (s->handles) snprintf(handles, sizeof handles, "%s %s #%zu", s->handles, s->type, s->output);
  if (!grow(c->into)) {
    c->failed = true;
    return;
  }
  item *i = &c->into->items[c->into->count++];
  *i = (item){strdup(text), strdup(name), strdup(kind), strdup(handles), cml_tensor_count(s->value), *s->value, NOBODY, false};
  i->value.data = c->into == &c->a ? malloc(bytes ? bytes : 1) : NULL;
  if (!i->text || !i->name || !i->kind || !i->handles || (c->into == &c->a && !i->value.data)) c->failed = true;
  else if (i->value.data) memcpy(i->value.data, s->value->data, bytes);
}

/* ---- who belongs to whom ---- */

static void join(comparison *c, size_t a, size_t b) {
  c->a.items[a].partner = (long)b;
  c->b.items[b].partner = (long)a;
}

static const char *name_of(const item *i) { return i->name; }
static const char *handles_of(const item *i) { return i->handles; }

typedef struct keyed {
  const char *key;
  size_t place;
} keyed;

static int by_key(const void *a, const void *b) {
  const keyed *x = a, *y = b;
  int order = strcmp(x->key, y->key);
  return order ? order : x->place < y->place ? -1 : x->place > y->place;
}

/* Those that have a key and no partner, in the order of keys. */
static keyed *sorted(const list *l, const char *key(const item *i), size_t *count) {
  keyed *k = malloc((l->count + 1) * sizeof *k);
  *count = 0;
  for (size_t i = 0; k && i < l->count; i++)
    if (l->items[i].partner == NOBODY && *key(&l->items[i])) k[(*count)++] = (keyed){key(&l->items[i]), i};
  if (k) qsort(k, *count, sizeof *k, by_key);
  return k;
}

/* Joins those of one key. Of several (loops, sequences of inputs) the first with the first. */
static bool align_by(comparison *c, const char *key(const item *i)) {
  size_t n, m, i = 0, k = 0;
  keyed *as = sorted(&c->a, key, &n), *bs = sorted(&c->b, key, &m);
  while (as && bs && i < n && k < m) {
    int order = strcmp(as[i].key, bs[k].key);
    if (!order) join(c, as[i++].place, bs[k++].place);
    else if (order < 0) i++;
    else k++;
  }
  bool done = as && bs;
  free(as);
  free(bs);
  return done;
}

static bool alike(const item *a, const item *b) { return a->elements == b->elements && !strcmp(a->kind, b->kind); }

static size_t lonely(const list *l, size_t *places) {
  size_t n = 0;
  for (size_t i = 0; i < l->count; i++)
    if (l->items[i].partner == NOBODY) places[n++] = i;
  return n;
}

/* The longest common subsequence of some of A and of B: best[i][k] of a from i on with b from k on. */
static bool align_some(comparison *c, const size_t *as, size_t n, const size_t *bs, size_t m) {
  uint32_t *best = calloc((n + 1) * (m + 1), sizeof *best);
  if (!best) return false;
#define BEST(i, k) best[(i) * (m + 1) + (k)]
  for (size_t i = n; i-- > 0;)
    for (size_t k = m; k-- > 0;) {
      uint32_t other = BEST(i + 1, k) > BEST(i, k + 1) ? BEST(i + 1, k) : BEST(i, k + 1), both = BEST(i + 1, k + 1) + 1;
      BEST(i, k) = alike(&c->a.items[as[i]], &c->b.items[bs[k]]) && both > other ? both : other;
    }
  for (size_t i = 0, k = 0; i < n && k < m;) {
    if (alike(&c->a.items[as[i]], &c->b.items[bs[k]]) && BEST(i, k) == BEST(i + 1, k + 1) + 1) join(c, as[i++], bs[k++]);
    else if (BEST(i + 1, k) >= BEST(i, k + 1)) i++;
    else k++;
  }
#undef BEST
  free(best);
  return true;
}

/* Those that no key joined. Equal beginnings and ends belong together; between them both lists are cut where they would be too long. */
static bool align_rest(comparison *c) {
  size_t *as = malloc((c->a.count + 1) * sizeof *as), *bs = malloc((c->b.count + 1) * sizeof *bs), n = 0, m = 0, begin = 0;
  bool done = as && bs;
  if (done) {
    n = lonely(&c->a, as);
    m = lonely(&c->b, bs);
  }
  for (; begin < n && begin < m && alike(&c->a.items[as[begin]], &c->b.items[bs[begin]]); begin++) join(c, as[begin], bs[begin]);
  for (; n > begin && m > begin && alike(&c->a.items[as[n - 1]], &c->b.items[bs[m - 1]]); n--, m--) join(c, as[n - 1], bs[m - 1]);
  size_t longest = n > m ? n - begin : m - begin, parts = longest / MAX_ALIGNED + 1;
  for (size_t p = 0; done && p < parts; p++) {
    size_t a = begin + (n - begin) * p / parts, b = begin + (m - begin) * p / parts;
    done = align_some(c, as + a, begin + (n - begin) * (p + 1) / parts - a, bs + b, begin + (m - begin) * (p + 1) / parts - b);
  }
  free(as);
  free(bs);
  return done;
}

static bool is_rounding(const item *i) { return !strncmp(i->kind, "quantize", 8) || !strncmp(i->kind, "dequantize", 10); }

/* What a quantizer put behind an operation is held against that one's partner, so that a wrong scale is found where it stands. */
static void align_rounding(comparison *c) {
  for (size_t b = 1; b < c->b.count; b++) {
    item *i = &c->b.items[b];
    size_t k = b;
    if (i->partner != NOBODY || strncmp(i->kind, "dequantize", 10)) continue;
    while (k && is_rounding(&c->b.items[k]) && c->b.items[k].elements == i->elements) k--;
    if (is_rounding(&c->b.items[k]) || c->b.items[k].elements != i->elements) continue;
    i->partner = c->b.items[k].partner;
    i->again = true;
  }
}

/* ---- numbers ---- */

/* The partner, or who else of A gives the same where the partner does not. */
static const item *closest(const comparison *c, const cmlrun_seen *s, const item *b, cmlrun_difference *out) {
  const item *found = &c->a.items[b->partner];
  cml_tensor value = *s->value;
  if (b->again) { /* perhaps under another shape */
    value.rank = found->value.rank;
    memcpy(value.dims, found->value.dims, sizeof value.dims);
  }
  bool same = cml_tensor_same_shape(&value, &found->value);
  *out = same ? cmlrun_difference_of(&value, &found->value, 0, 0) : (cmlrun_difference){.snr = -INFINITY, .wrong = -1};
  if (out->snr >= c->limit) return found;
  for (size_t i = 0; i < c->a.count; i++) {
    const item *a = &c->a.items[i];
    if (a->partner != NOBODY || !cml_tensor_same_shape(&value, &a->value)) continue;
    cmlrun_difference d = cmlrun_difference_of(&value, &a->value, 0, 0);
    if (d.snr < c->limit || d.snr < out->snr) continue;
    *out = d;
    found = a;
  }
  return found;
}

static void look(void *context, const cmlrun_seen *s) {
  comparison *c = context;
  uint64_t bytes;
  if (skipped(s) || !cml_tensor_bytes(s->value, &bytes) || c->at >= c->b.count) return;
  const item *b = &c->b.items[c->at++];
  if (b->partner == NOBODY) return;
  c->matched++;
  if (c->drifted && !c->all) return;
  cmlrun_difference d;
  const item *a = closest(c, s, b, &d);
  bool drifts = !(d.snr >= c->limit);
  if (!c->all && !drifts) return;
  printf("%s%-5s ", drifts && !c->drifted ? "first drift: " : "", s->where);
  cli_print_text(stdout, s->type);
  if (*s->name) fputs(" ", stdout), cli_print_text(stdout, s->name);
  cmlrun_print_source(s);
  if (d.wrong < 0) printf(": the shapes differ");
  else printf(": SNR %.1f dB, largest difference %.6g", d.snr, d.largest);
  const char *type = strchr(a->text, ' ');
  if (!*b->name ? !type || strcmp(type + 1, s->type) : strcmp(a->name, b->name)) fputs(", against ", stdout), cli_print_text(stdout, a->text);
  printf("\n");
  c->drifted |= drifts;
}

int cmlrun_compare(int argc, char **argv) {
  comparison c = {.limit = 30};
  cmlrun_options options = {.threads = 0};
  cli_list inputs = {NULL, 0};
  const char *limit = NULL;
  cli_option table[] = {CLI_LIST('i', "input", "FILE.npz", &inputs, "arrays by input name; again for each further step"),
                        CLI_TEXT(0, "snr", "DB", &limit, "what counts as drift (default: below 30 dB)"),
                        CLI_FLAG('a', "all", &c.all, "print every operation that both models have"),
                        CLI_TEXT(0, "method", "NAME", &options.method, "method of a .pte"),
                        CLI_LIST(0, "data", "FILE.ptd", &options.data, "external tensors of a .pte; again for each further file"),
                        CMLRUN_LIMITS(options),
                        CLI_END};
  int code = cli_parse(&compare_page, table, &argc, argv);
  if (code != CLI_GO_ON) return code;
  char *end = NULL;
  if (limit && (c.limit = strtod(limit, &end), end == limit || *end)) return cli_usage_error("--snr takes a number");
  options.passes = ""; /* as the files have their operations */
  cml_error err = {0};
  const char *at = argv[0];
  c.into = &c.a;
  cml_status status = cmlrun_watch(argv[0], &options, &inputs, keep, &c, &err);
  c.into = &c.b;
  if (!status && !c.failed) status = cmlrun_watch(at = argv[1], &options, &inputs, keep, &c, &err);
  if (!status && !c.failed) {
    c.failed = !align_by(&c, name_of) || !align_by(&c, handles_of) || !align_rest(&c);
    align_rounding(&c);
  }
  if (!status && c.failed) status = cml_fail_memory(&err);
  if (!status) status = cmlrun_watch(at = argv[1], &options, &inputs, look, &c, &err);
  drop(&c.a);
  drop(&c.b);
  if (status) return cmlrun_failed(at, &err);
  if (!c.matched) return cli_fail("the models have no operation in common");
  if (!c.drifted) printf("no drift in %zu outputs\n", c.matched);
  return c.drifted ? CLI_FAILED : CLI_OK;
}
