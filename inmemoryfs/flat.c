/* Restoring a flat blob.
 *
 * The table is read in place, from the blob's last byte towards its first, by a parser for just this schema; what is
 * read becomes rows of plain numbers. The rows are checked as a whole (every node in exactly one folder, made before it:
 * so there are no cycles; no two files on the same bytes), and only then become a tree. */
#include "flat.h"

#include <inttypes.h>
#include <stdlib.h>

#include "checked.h"
#include "tree_internal.h"
#include "utf8.h"

enum {
  TRAILING_ZEROS_MAX = 64 << 20, /* padding behind the table that is looked through */
  SKIPPED_DEPTH_MAX = 32,        /* nesting of values that are not ours */
  TEXT_MAX = 4096,               /* bytes of a string; names have at most 255 */
};

typedef struct flat_row {
  const char *name;
  size_t name_size;
  uint64_t offset, size; /* contents, from the blob's start */
  uint64_t at;           /* where the row stands, for errors */
  size_t edges, edge_count;
  bool folder, held;
} flat_row;

typedef struct edge {
  const char *name;
  size_t name_size;
  uint64_t index;
  uint64_t at;
} edge;

typedef struct reader {
  const uint8_t *blob;
  uint64_t left;     /* the next byte is blob[left - 1] */
  uint64_t base;     /* offset of the blob's first byte in the mapping */
  uint64_t data_end; /* bytes before the table */
  uint64_t max_nodes;
  unsigned max_depth;
  cml_arena names;
  flat_row *rows;
  size_t row_count, row_capacity;
  edge *edges;
  size_t edge_count, edge_capacity;
  char text[TEXT_MAX];
  size_t text_size;
  cml_mapping *mapping;
  cml_error *err;
} reader;

/* ---- JSON, backwards ---- */

static int peek(const reader *r) { return r->left ? r->blob[r->left - 1] : -1; }
static uint64_t here(const reader *r) { return r->base + (r->left ? r->left - 1 : 0); }

static cml_status refuse(reader *r, const char *expected) {
  int c = peek(r);
  if (c < 0) return cml_fail(r->err, CML_INVALID, r->base, "flat blob: the node table is cut short; expected %s", expected);
  return cml_fail(r->err, CML_INVALID, here(r), "flat blob: the node table has byte 0x%02x where %s should be", (unsigned)c, expected);
}

static void skip_space(reader *r) {
  for (int c = peek(r); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = peek(r)) r->left--;
}

/* Takes a character, and the space before it, when it is the next one. */
static bool take(reader *r, char wanted) {
  skip_space(r);
  if (peek(r) != (unsigned char)wanted) return false;
  r->left--;
  return true;
}

static cml_status expect(reader *r, char wanted) {
  char words[] = "'?'";
  words[1] = wanted;
  return take(r, wanted) ? CML_OK : refuse(r, words);
}

static cml_status read_hex4(reader *r, uint32_t *out) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) {
    int c = peek(r);
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return refuse(r, "a hexadecimal digit");
    value = value << 4 | (uint32_t)digit;
    r->left--;
  }
  *out = value;
  return CML_OK;
}

static size_t encode_utf8(uint32_t c, char out[4]) {
  if (c < 0x80) return out[0] = (char)c, 1;
  if (c < 0x800) return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3f)), 2;
  if (c < 0x10000) {
    out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3f)), out[2] = (char)(0x80 | (c & 0x3f));
    return 3;
  }
  out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 0x3f)), out[2] = (char)(0x80 | (c >> 6 & 0x3f));
  return out[3] = (char)(0x80 | (c & 0x3f)), 4;
}

/* Behind "\u": one unit, or two that make a surrogate pair. */
static cml_status read_unicode(reader *r, char out[4], size_t *out_size) {
  uint32_t high = 0, low = 0;
  CML_TRY(read_hex4(r, &high));
  if (high >= 0xd800 && high < 0xdc00) {
    if (peek(r) != '\\') return refuse(r, "the second half of a surrogate pair");
    r->left--;
    if (peek(r) != 'u') return refuse(r, "the second half of a surrogate pair");
    r->left--;
    CML_TRY(read_hex4(r, &low));
    if (low < 0xdc00 || low > 0xdfff) return refuse(r, "the second half of a surrogate pair");
    high = 0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00));
  } else if (high >= 0xdc00 && high < 0xe000) {
    return refuse(r, "the first half of a surrogate pair");
  }
  *out_size = encode_utf8(high, out);
  return CML_OK;
}

static cml_status read_escape(reader *r, char out[4], size_t *out_size) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  int c = peek(r);
  const char *found = c > 0 ? strchr(from, c) : NULL;
  if (!found && c != 'u') return refuse(r, "an escape");
  r->left--;
  if (c == 'u') return read_unicode(r, out, out_size);
  out[0] = to[found - from];
  *out_size = 1;
  return CML_OK;
}

/* A string, decoded into r->text. */
static cml_status read_text(reader *r) {
  uint64_t start = here(r);
  CML_TRY(expect(r, '"'));
  r->text_size = 0;
  for (int c; (c = peek(r)) != '"';) {
    char bytes[4] = {(char)c};
    size_t n = 1;
    if (c < 0x20) return refuse(r, "a character of a string");
    r->left--;
    if (c == '\\') CML_TRY(read_escape(r, bytes, &n));
    if (n > TEXT_MAX - r->text_size) return cml_fail(r->err, CML_LIMIT, start, "flat blob: a string has over %d bytes", TEXT_MAX);
    memcpy(r->text + r->text_size, bytes, n);
    r->text_size += n;
  }
  r->left--;
  return cml_utf8_valid(r->text, r->text_size) ? CML_OK : cml_fail(r->err, CML_INVALID, start, "flat blob: a string is not UTF-8");
}

static bool text_is(const reader *r, const char *word) {
  return r->text_size == strlen(word) && !memcmp(r->text, word, r->text_size);
}

static cml_status read_number(reader *r, uint64_t *out) {
  skip_space(r);
  uint64_t start = here(r), value = 0;
  int first = peek(r);
  if (first < '0' || first > '9') return refuse(r, "a whole number");
  for (int c = first; c >= '0' && c <= '9'; c = peek(r)) {
    if (!cml_mul(value, 10, &value) || !cml_add(value, (uint64_t)(c - '0'), &value))
      return cml_fail(r->err, CML_INVALID, start, "flat blob: a number does not fit 64 bits");
    r->left--;
    if (first == '0') break;
  }
  int c = peek(r);
  if ((c >= '0' && c <= '9') || c == '.' || c == 'e' || c == 'E') return refuse(r, "the end of a whole number");
  *out = value;
  return CML_OK;
}

static cml_status skip_value(reader *r, int depth);

static cml_status skip_members(reader *r, char end, int depth) {
  if (take(r, end)) return CML_OK;
  do {
    if (end == '}') {
      skip_space(r);
      CML_TRY(read_text(r));
      CML_TRY(expect(r, ':'));
    }
    CML_TRY(skip_value(r, depth + 1));
  } while (take(r, ','));
  return expect(r, end);
}

/* A value of a key that we do not know. Recursion is bounded by SKIPPED_DEPTH_MAX. */
static cml_status skip_value(reader *r, int depth) {
  if (depth > SKIPPED_DEPTH_MAX) return cml_fail(r->err, CML_LIMIT, here(r), "flat blob: values nest over %d deep", SKIPPED_DEPTH_MAX);
  if (take(r, '{')) return skip_members(r, '}', depth);
  if (take(r, '[')) return skip_members(r, ']', depth);
  if (peek(r) == '"') return read_text(r);
  size_t n = 0;
  for (int c = peek(r); (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'E'; c = peek(r))
    r->left--, n++;
  return n && n < 64 ? CML_OK : refuse(r, "a value");
}

/* ---- rows ---- */

/* Room for one more; false without memory. */
static bool grow(void **list, size_t *capacity, size_t count, size_t size) {
  if (count < *capacity) return true;
  size_t more = *capacity ? *capacity * 2 : 64;
  void *grown = realloc(*list, more * size);
  if (!grown) return false;
  *list = grown;
  *capacity = more;
  return true;
}

static cml_status keep_text(reader *r, const char **out, size_t *out_size) {
  const char *copy = cml_arena_text(&r->names, r->text, r->text_size);
  if (!copy) return cml_fail_memory(r->err);
  *out = copy;
  *out_size = r->text_size;
  return CML_OK;
}

static cml_status read_children(reader *r, flat_row *row) {
  row->edges = r->edge_count;
  CML_TRY(expect(r, '{'));
  if (take(r, '}')) return CML_OK;
  do {
    if (r->edge_count >= r->max_nodes)
      return cml_fail(r->err, CML_LIMIT, here(r), "flat blob: over %" PRIu64 " nodes", r->max_nodes);
    if (!grow((void **)&r->edges, &r->edge_capacity, r->edge_count, sizeof *r->edges)) return cml_fail_memory(r->err);
    edge *e = &r->edges[r->edge_count];
    skip_space(r);
    e->at = here(r);
    CML_TRY(read_text(r));
    CML_TRY(keep_text(r, &e->name, &e->name_size));
    CML_TRY(expect(r, ':'));
    CML_TRY(read_number(r, &e->index));
    r->edge_count++;
    row->edge_count++;
  } while (take(r, ','));
  return expect(r, '}');
}

static cml_status read_region(reader *r, flat_row *row) {
  unsigned seen = 0;
  CML_TRY(expect(r, '{'));
  do {
    skip_space(r);
    CML_TRY(read_text(r));
    unsigned bit = text_is(r, "offset") ? 1 : text_is(r, "size") ? 2 : 0;
    if (bit & seen) return cml_fail(r->err, CML_INVALID, here(r), "flat blob: a key occurs twice in a dataRegion");
    seen |= bit;
    CML_TRY(expect(r, ':'));
    CML_TRY(bit ? read_number(r, bit == 1 ? &row->offset : &row->size) : skip_value(r, 0));
  } while (take(r, ','));
  if (seen != 3) return cml_fail(r->err, CML_INVALID, here(r), "flat blob: a dataRegion lacks its offset or size");
  return expect(r, '}');
}

static cml_status read_kind(reader *r, flat_row *row) {
  uint64_t kind = 0, at = here(r);
  CML_TRY(read_number(r, &kind));
  if (kind > 1)
    return cml_fail(r->err, CML_INVALID, at, "flat blob: kind %" PRIu64 " of a node; 0 (file) and 1 (folder) are known", kind);
  row->folder = kind == 1;
  return CML_OK;
}

enum { CHILDREN = 1, REGION = 2, KIND = 4, NAME = 8 };

static cml_status read_row(reader *r, flat_row *row) {
  unsigned seen = 0;
  skip_space(r);
  row->at = here(r);
  CML_TRY(expect(r, '{'));
  do {
    skip_space(r);
    CML_TRY(read_text(r));
    unsigned bit = text_is(r, "children")     ? CHILDREN
                   : text_is(r, "dataRegion") ? REGION
                   : text_is(r, "kind")       ? KIND
                   : text_is(r, "name")       ? NAME
                                              : 0;
    if (bit & seen) return cml_fail(r->err, CML_INVALID, here(r), "flat blob: a key occurs twice in a node");
    seen |= bit;
    CML_TRY(expect(r, ':'));
    skip_space(r);
    if (bit == CHILDREN) CML_TRY(read_children(r, row));
    else if (bit == REGION) CML_TRY(read_region(r, row));
    else if (bit == KIND) CML_TRY(read_kind(r, row));
    else CML_TRY(bit == NAME ? read_text(r) : skip_value(r, 0));
    if (bit == NAME) CML_TRY(keep_text(r, &row->name, &row->name_size));
  } while (take(r, ','));
  if ((seen & (KIND | NAME)) != (KIND | NAME) || (!row->folder && !(seen & REGION)))
    return cml_fail(r->err, CML_INVALID, row->at, "flat blob: a node lacks its kind, name or dataRegion");
  return expect(r, '}');
}

static cml_status read_rows(reader *r) {
  CML_TRY(expect(r, '['));
  if (take(r, ']')) return CML_OK;
  do {
    if (r->row_count >= r->max_nodes)
      return cml_fail(r->err, CML_LIMIT, here(r), "flat blob: over %" PRIu64 " nodes", r->max_nodes);
    if (!grow((void **)&r->rows, &r->row_capacity, r->row_count, sizeof *r->rows)) return cml_fail_memory(r->err);
    r->rows[r->row_count] = (flat_row){0};
    CML_TRY(read_row(r, &r->rows[r->row_count]));
    r->row_count++;
  } while (take(r, ','));
  return expect(r, ']');
}

static cml_status read_table(reader *r) {
  bool seen = false;
  CML_TRY(expect(r, '{'));
  do {
    skip_space(r);
    CML_TRY(read_text(r));
    bool nodes = text_is(r, "nodes");
    if (nodes && seen) return cml_fail(r->err, CML_INVALID, here(r), "flat blob: two lists of nodes");
    CML_TRY(expect(r, ':'));
    CML_TRY(nodes ? read_rows(r) : skip_value(r, 0));
    seen |= nodes;
  } while (take(r, ','));
  CML_TRY(expect(r, '}'));
  r->data_end = r->left;
  if (!r->row_count) return cml_fail(r->err, CML_INVALID, r->base + r->left, "flat blob: the node table has no nodes");
  return CML_OK;
}

/* ---- checks over all rows ---- */

static int edge_order(const void *a, const void *b) {
  const edge *x = a, *y = b;
  int order = memcmp(x->name, y->name, x->name_size < y->name_size ? x->name_size : y->name_size);
  return order ? order : (x->name_size > y->name_size) - (x->name_size < y->name_size);
}

static cml_status check_edge(reader *r, size_t parent, const edge *e) {
  int shown = e->name_size < 80 ? (int)e->name_size : 80;
  const char *fault = cml_name_fault(e->name, e->name_size);
  if (fault) return cml_fail(r->err, CML_INVALID, e->at, "flat blob: the name \"%.*s\" %s", shown, e->name, fault);
  if (e->index >= parent)
    return cml_fail(r->err, CML_INVALID, e->at,
                    "flat blob: \"%.*s\" is node %" PRIu64 ", which does not come before its folder, node %zu (a cycle or a wrong index)",
                    shown, e->name, e->index, parent);
  flat_row *child = &r->rows[e->index];
  if (child->held)
    return cml_fail(r->err, CML_INVALID, e->at, "flat blob: node %" PRIu64 ", \"%.*s\", lies in two folders", e->index, shown, e->name);
  child->held = true;
  if (child->name_size != e->name_size || memcmp(child->name, e->name, e->name_size))
    return cml_fail(r->err, CML_INVALID, e->at, "flat blob: node %" PRIu64 " has one name in its folder, \"%.*s\", and another itself",
                    e->index, shown, e->name);
  return CML_OK;
}

static cml_status check_row(reader *r, size_t i) {
  const flat_row *row = &r->rows[i];
  if (!row->folder && row->edge_count)
    return cml_fail(r->err, CML_INVALID, row->at, "flat blob: node %zu is a file with children", i);
  if (!row->folder && (row->offset > r->data_end || row->size > r->data_end - row->offset))
    return cml_fail(r->err, CML_INVALID, row->at,
                    "flat blob: node %zu holds bytes %" PRIu64 " to %" PRIu64 " + %" PRIu64 " of %" PRIu64 " that there are", i,
                    row->offset, row->offset, row->size, r->data_end);
  if (!row->edge_count) return CML_OK;
  edge *edges = r->edges + row->edges;
  if (row->edge_count > 1) qsort(edges, row->edge_count, sizeof *edges, edge_order);
  for (size_t k = 0; k < row->edge_count; k++) {
    if (k && !edge_order(&edges[k - 1], &edges[k]))
      return cml_fail(r->err, CML_INVALID, edges[k].at, "flat blob: the name \"%.80s\" occurs twice in one folder", edges[k].name);
    CML_TRY(check_edge(r, i, &edges[k]));
  }
  return CML_OK;
}

static int region_order(const void *a, const void *b) {
  const flat_row *x = *(const flat_row *const *)a, *y = *(const flat_row *const *)b;
  return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Two files on the same bytes would let a small blob unpack to any size. */
static cml_status check_overlaps(reader *r) {
  const flat_row **files = malloc(r->row_count * sizeof *files);
  if (!files) return cml_fail_memory(r->err);
  size_t count = 0;
  bool sorted = true;
  for (size_t i = 0; i < r->row_count; i++)
    if (!r->rows[i].folder && r->rows[i].size) {
      sorted = sorted && (!count || files[count - 1]->offset <= r->rows[i].offset);
      files[count++] = &r->rows[i];
    }
  if (!sorted) qsort(files, count, sizeof *files, region_order);
  cml_status status = CML_OK;
  for (size_t i = 1; i < count && !status; i++)
    if (files[i]->offset - files[i - 1]->offset < files[i - 1]->size)
      status = cml_fail(r->err, CML_INVALID, files[i]->at, "flat blob: nodes %zu and %zu hold the same bytes, from %" PRIu64,
                        (size_t)(files[i - 1] - r->rows), (size_t)(files[i] - r->rows), files[i]->offset);
  free(files);
  return status;
}

static cml_status check_rows(reader *r) {
  for (size_t i = 0; i < r->row_count; i++) CML_TRY(check_row(r, i));
  for (size_t i = 0; i + 1 < r->row_count; i++)
    if (!r->rows[i].held) return cml_fail(r->err, CML_INVALID, r->rows[i].at, "flat blob: node %zu lies in no folder", i);
  if (!r->rows[r->row_count - 1].folder)
    return cml_fail(r->err, CML_INVALID, r->rows[r->row_count - 1].at, "flat blob: the root is not a folder");
  return check_overlaps(r);
}

/* ---- the tree ---- */

/* Recursion is bounded by max_depth, which is at most CML_TREE_MAX_DEPTH. */
static cml_status add_rows(reader *r, cml_tree *tree, cml_node *folder, const flat_row *from) {
  if (folder->depth > r->max_depth)
    return cml_fail(r->err, CML_LIMIT, from->at, "flat blob: over %u folders deep", r->max_depth);
  for (size_t i = 0; i < from->edge_count; i++) {
    const edge *e = &r->edges[from->edges + i];
    const flat_row *row = &r->rows[e->index];
    cml_node *child = NULL;
    if (row->folder) {
      CML_TRY(cml_tree_add_folder(tree, folder, e->name, e->name_size, &child, r->err));
      CML_TRY(add_rows(r, tree, child, row));
      continue;
    }
    cml_piece piece = {r->blob + row->offset, row->size, r->mapping, r->base + row->offset};
    CML_TRY(cml_tree_add_file(tree, folder, e->name, e->name_size, &piece, 1, NULL, r->err));
  }
  return CML_OK;
}

static cml_status build(reader *r, cml_tree **out) {
  const flat_row *root = &r->rows[r->row_count - 1];
  const char *fault = root->name_size ? cml_name_fault(root->name, root->name_size) : NULL;
  if (fault) return cml_fail(r->err, CML_INVALID, root->at, "flat blob: the root's name %s", fault);
  cml_tree *tree = NULL;
  CML_TRY(cml_tree_create(root->name, &tree, r->err));
  cml_status status = add_rows(r, tree, &tree->root, root);
  if (status) cml_tree_unref(tree);
  else *out = tree;
  return status;
}

/* ---- the whole ---- */

/* Takes the zeros that may follow the table; false when there are too many to be padding. */
static bool skip_padding(reader *r) {
  uint64_t stop = r->left > TRAILING_ZEROS_MAX ? r->left - TRAILING_ZEROS_MAX : 0;
  while (r->left > stop && !r->blob[r->left - 1]) r->left--;
  return r->left > stop || !stop;
}

bool cml_flat_recognise(cml_span blob) {
  reader r = {.blob = blob.data, .left = blob.size};
  if (!skip_padding(&r) || !take(&r, '{')) return false;
  skip_space(&r);
  return !read_text(&r) && text_is(&r, "nodes") && take(&r, ':') && take(&r, '[');
}

/* Reads and checks the node table of the blob. */
static cml_status open_reader(cml_span blob, uint64_t base, const cml_flat_options *options, reader **out, cml_error *err) {
  reader *r = calloc(1, sizeof *r);
  if (!r) return cml_fail_memory(err);
  r->blob = blob.data;
  r->left = blob.size;
  r->base = base;
  r->err = err;
  r->max_nodes = options && options->max_nodes ? options->max_nodes : CML_DEFAULT_NODES;
  r->max_depth = options && options->max_depth ? options->max_depth : CML_DEFAULT_DEPTH;
  if (r->max_depth > CML_TREE_MAX_DEPTH - 1) r->max_depth = CML_TREE_MAX_DEPTH - 1;
  *out = r;
  if (!skip_padding(r)) return cml_fail(err, CML_INVALID, base + r->left, "flat blob: it ends in too many zero bytes");
  CML_TRY(read_table(r));
  return check_rows(r);
}

static void close_reader(reader *r) {
  if (!r) return;
  cml_arena_free(&r->names);
  free(r->rows);
  free(r->edges);
  free(r);
}

cml_status cml_flat_is_whole(cml_span blob, bool *out, cml_error *err) {
  reader *r = NULL;
  cml_error problem;
  uint64_t end = 0;
  *out = false;
  if (!cml_flat_recognise(blob)) return CML_OK;
  cml_status status = open_reader(blob, 0, NULL, &r, &problem);
  for (size_t i = 0; !status && i < r->row_count; i++)
    if (!r->rows[i].folder && r->rows[i].offset + r->rows[i].size > end) end = r->rows[i].offset + r->rows[i].size;
  if (!status) {
    while (end < r->data_end && !blob.data[end]) end++;
    *out = end == r->data_end;
  }
  close_reader(r);
  return status == CML_NO_MEMORY ? cml_fail_memory(err) : CML_OK;
}

cml_status cml_flat_restore(cml_mapping *mapping, uint64_t offset, uint64_t size, const cml_flat_options *options, cml_tree **out,
                            cml_error *err) {
  cml_span blob;
  if (!cml_span_slice(cml_mapping_span(mapping), offset, size, &blob))
    return cml_fail(err, CML_INVALID, offset, "flat blob: bytes %" PRIu64 " + %" PRIu64 " of a file that has %zu", offset, size,
                    cml_mapping_span(mapping).size);
  reader *r = NULL;
  cml_status status = open_reader(blob, offset, options, &r, err);
  if (!status) {
    r->mapping = mapping;
    status = build(r, out);
  }
  close_reader(r);
  return status;
}
