/* Nodes live in the tree's arena and are never removed, so a node is a pointer that stays good.
 *
 * Children are kept sorted while they are added: in order costs one comparison each, which is how folders, flat blobs
 * and grafts add theirs; out of order costs a search and a short move. A graft copies the shape of what it shows
 * (a node has one parent and one inode) and leaves the contents with the original. */
#include "tree_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "checked.h"
#include "utf8.h"

enum { TAIL_CAPACITY = 1024 };

typedef struct cml_keep {
  void (*release)(void *);
  void *object;
  struct cml_keep *next;
} cml_keep;

/* ---- children ---- */

static int name_order(const char *a, size_t a_size, const char *b, size_t b_size) {
  int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
  return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int node_order(const cml_node *a, const cml_node *b) { return name_order(a->name, a->name_size, b->name, b->name_size); }

/* The first of `count` sorted nodes whose name is not before `name`. */
static size_t lower_bound(cml_node *const *nodes, size_t count, const char *name, size_t size) {
  size_t low = 0;
  while (low < count) {
    size_t middle = low + (count - low) / 2;
    if (name_order(nodes[middle]->name, nodes[middle]->name_size, name, size) < 0) low = middle + 1;
    else count = middle;
  }
  return low;
}

static cml_node *search(cml_node *const *nodes, size_t count, const char *name, size_t size) {
  size_t i = lower_bound(nodes, count, name, size);
  return i < count && nodes[i]->name_size == size && !memcmp(nodes[i]->name, name, size) ? nodes[i] : NULL;
}

static bool reserve_main(cml_tree *tree, cml_children *c, size_t more) {
  if (c->main_capacity - c->main_count >= more) return true;
  size_t capacity = c->main_capacity ? c->main_capacity * 2 : 4;
  if (capacity < c->main_count + more) capacity = c->main_count + more;
  cml_node **grown = CML_ARENA_NEW_ARRAY(&tree->arena, cml_node *, capacity);
  if (!grown) return false;
  if (c->main_count) memcpy(grown, c->main, c->main_count * sizeof *grown);
  c->main = grown;
  c->main_capacity = capacity;
  return true;
}

static void insert(cml_node **nodes, size_t *count, size_t at, cml_node *node) {
  memmove(nodes + at + 1, nodes + at, (*count - at) * sizeof *nodes);
  nodes[at] = node;
  ++*count;
}

/* Moves the tail into main from the back: each block of main between two tail nodes moves once. */
static bool merge_tail(cml_tree *tree, cml_children *c) {
  if (!reserve_main(tree, c, c->tail_count)) return false;
  size_t end = c->main_count;
  for (size_t i = c->tail_count; i--;) {
    size_t at = lower_bound(c->main, end, c->tail[i]->name, c->tail[i]->name_size);
    memmove(c->main + at + i + 1, c->main + at, (end - at) * sizeof *c->main);
    c->main[at + i] = c->tail[i];
    end = at;
  }
  c->main_count += c->tail_count;
  c->tail_count = 0;
  return true;
}

static bool add_child(cml_tree *tree, cml_children *c, cml_node *node) {
  if (!c->main_count || node_order(c->main[c->main_count - 1], node) < 0) {
    if (!reserve_main(tree, c, 1)) return false;
    c->main[c->main_count++] = node;
    return true;
  }
  if (c->main_count < TAIL_CAPACITY) {
    if (!reserve_main(tree, c, 1)) return false;
    insert(c->main, &c->main_count, lower_bound(c->main, c->main_count, node->name, node->name_size), node);
    return true;
  }
  if (!c->tail && !(c->tail = CML_ARENA_NEW_ARRAY(&tree->arena, cml_node *, TAIL_CAPACITY))) return false;
  if (c->tail_count == TAIL_CAPACITY && !merge_tail(tree, c)) return false;
  insert(c->tail, &c->tail_count, lower_bound(c->tail, c->tail_count, node->name, node->name_size), node);
  return true;
}

/* The i-th of two sorted lists taken as one: how many of them come from the tail is searched. */
const cml_node *cml_node_child(const cml_node *folder, size_t i) {
  if (i >= cml_node_count(folder)) return NULL;
  const cml_children *c = &folder->folder;
  if (!c->tail_count) return c->main[i];
  size_t low = i > c->main_count ? i - c->main_count : 0, high = i < c->tail_count ? i : c->tail_count;
  while (low < high) {
    size_t t = low + (high - low) / 2;
    if (node_order(c->tail[t], c->main[i - t - 1]) < 0) low = t + 1;
    else high = t;
  }
  size_t m = i - low;
  if (low == c->tail_count) return c->main[m];
  if (m == c->main_count) return c->tail[low];
  return node_order(c->main[m], c->tail[low]) < 0 ? c->main[m] : c->tail[low];
}

/* ---- reading ---- */

const cml_node *cml_tree_root(const cml_tree *tree) { return &tree->root; }
cml_node *cml_tree_root_mutable(cml_tree *tree) { return &tree->root; }
cml_arena *cml_tree_arena(cml_tree *tree) { return &tree->arena; }
const char *cml_node_name(const cml_node *node) { return node->name; }
cml_node_kind cml_node_kind_of(const cml_node *node) { return (cml_node_kind)node->kind; }
const cml_node *cml_node_parent(const cml_node *node) { return node->parent; }
uint64_t cml_node_inode(const cml_node *node) { return node->inode; }

size_t cml_node_count(const cml_node *folder) {
  return folder->kind == CML_NODE_FOLDER ? folder->folder.main_count + folder->folder.tail_count : 0;
}

static cml_node *lookup(const cml_node *folder, const char *name, size_t size) {
  if (folder->kind != CML_NODE_FOLDER) return NULL;
  const cml_children *c = &folder->folder;
  cml_node *found = search(c->main, c->main_count, name, size);
  return found || !c->tail_count ? found : search(c->tail, c->tail_count, name, size);
}

const cml_node *cml_node_lookup(const cml_node *folder, const char *name, size_t size) { return lookup(folder, name, size); }

const cml_node *cml_node_find(const cml_node *from, const char *path) {
  while (from && *path) {
    size_t n = strcspn(path, "/");
    if (n && !(n == 1 && *path == '.')) from = cml_node_lookup(from, path, n);
    if (from && path[n] && from->kind != CML_NODE_FOLDER) return NULL;
    path += n + (path[n] == '/');
  }
  return from;
}

const cml_node *cml_node_find_file(const cml_node *from, const char *path) {
  const cml_node *node = cml_node_find(from, path);
  return node && node->kind == CML_NODE_FILE ? node : NULL;
}

void cml_node_path(const cml_node *node, cml_buffer *out) {
  size_t size = 0;
  for (const cml_node *n = node; n->parent; n = n->parent) size += n->name_size + (size_t)(n->parent->parent != NULL);
  uint8_t *end = cml_buffer_extend(out, size);
  if (!end) return;
  end += size;
  for (const cml_node *n = node; n->parent; n = n->parent) {
    memcpy(end -= n->name_size, n->name, n->name_size);
    if (n->parent->parent) *--end = '/';
  }
}

cml_status cml_node_error(cml_error *err, cml_status status, const cml_node *node) {
  if (!err) return status;
  cml_buffer path = CML_BUFFER_INIT;
  cml_node_path(node, &path);
  if (path.size) cml_error_prefix(err, status, "%s", (const char *)path.data);
  cml_buffer_free(&path);
  return status;
}

bool cml_node_is_generated(const cml_node *node) {
  node = cml_node_origin(node);
  return node->kind == CML_NODE_FILE && node->source == CML_FROM_GENERATOR;
}

static cml_status refuse_folder(const cml_node *node, cml_error *err) {
  return cml_node_error(err, cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "a folder has no contents"), node);
}

static cml_status generate(const cml_node *node, cml_contents *out, cml_error *err) {
  cml_buffer bytes = CML_BUFFER_INIT;
  cml_status status = node->file.generate(node->file.context, node, &bytes, err);
  if (!status) status = cml_buffer_check(&bytes, err);
  if (status) {
    cml_buffer_free(&bytes);
    return cml_node_error(err, status, node);
  }
  atomic_store_explicit(&((cml_node *)(uintptr_t)node)->file.size, bytes.size, memory_order_relaxed);
  *out = (cml_contents){.owned = bytes, .size = bytes.size, .count = bytes.size ? 1 : 0};
  out->single = (cml_piece){bytes.data, bytes.size, NULL, 0};
  out->pieces = &out->single;
  return CML_OK;
}

cml_status cml_node_open(const cml_node *file, cml_contents *out, cml_error *err) {
  if (file->kind != CML_NODE_FILE) return refuse_folder(file, err);
  file = cml_node_origin(file);
  if (file->source == CML_FROM_GENERATOR) return generate(file, out, err);
  if (file->source == CML_FROM_DISK) return cml_disk_file_open(file, out, err);
  *out = (cml_contents){.pieces = file->file.pieces, .count = file->file.count, .size = file->file.size};
  return CML_OK;
}

void cml_contents_close(cml_contents *contents) {
  if (!contents) return;
  cml_buffer_free(&contents->owned);
  cml_mapping_unref(contents->held);
  *contents = (cml_contents){0};
}

cml_status cml_node_size(const cml_node *node, uint64_t *out, cml_error *err) {
  uint64_t size = 0;
  if (node->kind == CML_NODE_FILE) {
    const cml_node *origin = cml_node_origin(node);
    size = atomic_load_explicit(&origin->file.size, memory_order_relaxed);
    if (size == CML_SIZE_UNKNOWN) {
      cml_contents contents;
      CML_TRY(cml_node_open(origin, &contents, err));
      size = contents.size;
      cml_contents_close(&contents);
    }
  }
  *out = size;
  return CML_OK;
}

cml_status cml_node_span(const cml_node *file, cml_span *out, cml_error *err) {
  if (file->kind != CML_NODE_FILE) return refuse_folder(file, err);
  file = cml_node_origin(file);
  if (file->source == CML_FROM_DISK) return cml_disk_file_span(file, out, err);
  if (file->source == CML_FROM_GENERATOR || file->file.count > 1)
    return cml_node_error(err, cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "its contents are not one span of bytes"), file);
  const cml_piece *p = file->file.pieces;
  *out = file->file.count ? (cml_span){p->data, (size_t)p->size} : (cml_span){NULL, 0};
  return CML_OK;
}

/* ---- building ---- */

cml_status cml_tree_create(const char *root_name, cml_tree **out, cml_error *err) {
  cml_tree *tree = calloc(1, sizeof *tree);
  if (!tree) return cml_fail_memory(err);
  size_t size = strlen(root_name);
  tree->root.name = cml_arena_text(&tree->arena, root_name, size);
  cml_status status = tree->root.name ? CML_OK : cml_fail_memory(err);
  if (!status && (size > CML_NAME_MAX || memchr(root_name, '/', size) || !cml_utf8_valid(root_name, size)))
    status = cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the root's name holds '/', is not UTF-8 or has over %d bytes", CML_NAME_MAX);
  if (status) {
    cml_arena_free(&tree->arena);
    free(tree);
    return status;
  }
  atomic_init(&tree->references, 1);
  tree->root.name_size = (uint16_t)size;
  tree->root.kind = CML_NODE_FOLDER;
  tree->root.inode = tree->nodes = 1;
  *out = tree;
  return CML_OK;
}

cml_tree *cml_tree_ref(cml_tree *tree) {
  atomic_fetch_add_explicit(&tree->references, 1, memory_order_relaxed);
  return tree;
}

void cml_tree_unref(cml_tree *tree) {
  if (!tree || atomic_fetch_sub_explicit(&tree->references, 1, memory_order_acq_rel) != 1) return;
  for (cml_keep *k = tree->keeps; k; k = k->next) k->release(k->object);
  cml_arena_free(&tree->arena);
  free(tree);
}

cml_status cml_tree_keep(cml_tree *tree, void (*release)(void *), void *object, cml_error *err) {
  cml_keep *k = CML_ARENA_NEW(&tree->arena, cml_keep);
  if (!k) {
    release(object);
    return cml_fail_memory(err);
  }
  *k = (cml_keep){release, object, tree->keeps};
  tree->keeps = k;
  return CML_OK;
}

const char *cml_name_fault(const char *name, size_t size) {
  if (!size) return "is empty";
  if (size > CML_NAME_MAX) return "has over 255 bytes";
  if (memchr(name, '/', size)) return "holds '/'";
  if (memchr(name, 0, size)) return "holds a NUL byte";
  if (name[0] == '.' && (size == 1 || (size == 2 && name[1] == '.'))) return "stands for a folder itself or its parent";
  return cml_utf8_valid(name, size) ? NULL : "is not UTF-8";
}

/* Names that come in order need no search to tell that they are new. */
static bool comes_last(const cml_children *c, const char *name, size_t size) {
  const cml_node *last = c->main_count ? c->main[c->main_count - 1] : NULL;
  return !c->tail_count && (!last || name_order(last->name, last->name_size, name, size) < 0);
}

/* Checks everything and gives a node that is not yet linked. */
static cml_status make_node(cml_tree *tree, cml_node *parent, const char *name, size_t size, cml_node_kind kind, cml_node **out,
                            cml_error *err) {
  if (parent->kind != CML_NODE_FOLDER)
    return cml_node_error(err, cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "a file has no children"), parent);
  const char *fault = cml_name_fault(name, size);
  int shown = size < 80 ? (int)size : 80;
  if (fault)
    return cml_node_error(err, cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the name \"%.*s\" %s", shown, name ? name : "", fault),
                          parent);
  if (!comes_last(&parent->folder, name, size) && lookup(parent, name, size))
    return cml_node_error(err, cml_fail(err, CML_EXISTS, CML_NO_OFFSET, "the name \"%.*s\" occurs twice", shown, name), parent);
  if (parent->depth >= CML_TREE_MAX_DEPTH)
    return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the tree is over %d folders deep", CML_TREE_MAX_DEPTH);
  cml_node *node = CML_ARENA_NEW(&tree->arena, cml_node);
  if (!node || !(node->name = cml_arena_text(&tree->arena, name, size))) return cml_fail_memory(err);
  node->name_size = (uint16_t)size;
  node->kind = (uint8_t)kind;
  node->parent = parent;
  node->depth = parent->depth + 1;
  *out = node;
  return CML_OK;
}

static cml_status link_node(cml_tree *tree, cml_node *node, cml_node **out, cml_error *err) {
  if (!add_child(tree, &node->parent->folder, node)) return cml_fail_memory(err);
  node->inode = ++tree->nodes;
  if (out) *out = node;
  return CML_OK;
}

cml_status cml_tree_add_folder(cml_tree *tree, cml_node *parent, const char *name, size_t name_size, cml_node **out,
                               cml_error *err) {
  cml_node *node = NULL;
  CML_TRY(make_node(tree, parent, name, name_size, CML_NODE_FOLDER, &node, err));
  return link_node(tree, node, out, err);
}

static void release_mapping(void *mapping) { cml_mapping_unref(mapping); }

static cml_status keep_mapping(cml_tree *tree, cml_mapping *mapping, cml_error *err) {
  if (!mapping || mapping == tree->newest_mapping) return CML_OK;
  CML_TRY(cml_tree_keep(tree, release_mapping, cml_mapping_ref(mapping), err));
  tree->newest_mapping = mapping;
  return CML_OK;
}

/* Copies the pieces that are not empty. */
static cml_status copy_pieces(cml_tree *tree, cml_node *node, const cml_piece *pieces, size_t count, cml_error *err) {
  uint64_t size = 0;
  cml_piece *copy = count ? CML_ARENA_NEW_ARRAY(&tree->arena, cml_piece, count) : NULL;
  if (count && !copy) return cml_fail_memory(err);
  for (size_t i = 0; i < count; i++) {
    if (!pieces[i].size) continue;
    if (!cml_add(size, pieces[i].size, &size) || size > INT64_MAX)
      return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "a file of more than 2^63 - 1 bytes");
    CML_TRY(keep_mapping(tree, pieces[i].mapping, err));
    copy[node->file.count++] = pieces[i];
  }
  node->file.pieces = copy;
  node->file.size = size;
  return CML_OK;
}

cml_status cml_tree_add_file(cml_tree *tree, cml_node *parent, const char *name, size_t name_size, const cml_piece *pieces,
                             size_t count, cml_node **out, cml_error *err) {
  cml_node *node = NULL;
  CML_TRY(make_node(tree, parent, name, name_size, CML_NODE_FILE, &node, err));
  CML_TRY(copy_pieces(tree, node, pieces, count, err));
  return link_node(tree, node, out, err);
}

cml_status cml_tree_add_generated(cml_tree *tree, cml_node *parent, const char *name, size_t name_size,
                                  cml_node_generate *generate_bytes, void *context, cml_node **out, cml_error *err) {
  cml_node *node = NULL;
  CML_TRY(make_node(tree, parent, name, name_size, CML_NODE_FILE, &node, err));
  node->source = CML_FROM_GENERATOR;
  node->file.size = CML_SIZE_UNKNOWN;
  node->file.generate = generate_bytes;
  node->file.context = context;
  return link_node(tree, node, out, err);
}

cml_status cml_tree_add_disk_file(cml_tree *tree, cml_node *parent, const char *name, size_t name_size, cml_disk *disk,
                                  uint64_t size, cml_error *err) {
  cml_node *node = NULL;
  CML_TRY(make_node(tree, parent, name, name_size, CML_NODE_FILE, &node, err));
  node->source = CML_FROM_DISK;
  node->file.size = size;
  node->file.disk.disk = disk;
  return link_node(tree, node, NULL, err);
}

/* Copies the shape below `from`. Recursion is bounded by CML_TREE_MAX_DEPTH. */
static cml_status graft_node(cml_tree *tree, cml_node *parent, const char *name, size_t name_size, const cml_node *from,
                             cml_error *err) {
  cml_node *node = NULL;
  CML_TRY(make_node(tree, parent, name, name_size, (cml_node_kind)from->kind, &node, err));
  if (from->kind == CML_NODE_FILE) {
    node->source = CML_FROM_NODE;
    node->file.origin = cml_node_origin(from);
  }
  for (size_t i = 0, n = cml_node_count(from); i < n; i++) {
    const cml_node *child = cml_node_child(from, i);
    CML_TRY(graft_node(tree, node, child->name, child->name_size, child, err));
  }
  return link_node(tree, node, NULL, err);
}

static void release_tree(void *tree) { cml_tree_unref(tree); }

cml_status cml_tree_graft(cml_tree *tree, cml_node *parent, const char *name, size_t name_size, cml_tree *other,
                          const cml_node *node, cml_error *err) {
  for (const cml_node *n = parent; n; n = n->parent)
    if (n == node) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "a folder cannot be shown below itself");
  if (other != tree) CML_TRY(cml_tree_keep(tree, release_tree, cml_tree_ref(other), err));
  return graft_node(tree, parent, name, name_size, node, err);
}

/* ---- escaped names ---- */

static void escape(const char *name, size_t size, cml_buffer *out) {
  bool dots = (size == 1 || size == 2) && name[0] == '.' && name[size - 1] == '.';
  if (!size) cml_buffer_char(out, '%');
  for (size_t i = 0; i < size && out->size <= CML_NAME_MAX;) {
    size_t n = cml_utf8_length(name + i, size - i);
    if (!n || dots || name[i] == '/' || !name[i]) {
      cml_buffer_printf(out, "%%%02X", (unsigned char)name[i]);
      i++;
    } else {
      cml_buffer_append(out, name + i, n);
      i += n;
    }
  }
}

/* Writes the first `size` bytes of base, cut so that the suffix "~N" fits; N of 0 or 1 means no suffix. */
static size_t with_suffix(char text[CML_NAME_MAX + 1], const cml_buffer *base, uint64_t number) {
  char suffix[24] = "";
  size_t suffix_size = number > 1 ? (size_t)snprintf(suffix, sizeof suffix, "~%" PRIu64, number) : 0;
  size_t size = base->size;
  if (size > CML_NAME_MAX - suffix_size) {
    size = CML_NAME_MAX - suffix_size;
    while (size && (base->data[size] & 0xc0) == 0x80) size--;
  }
  memcpy(text, base->data, size);
  memcpy(text + size, suffix, suffix_size + 1);
  return size + suffix_size;
}

/* A free number is looked for by doubling and then halving, so that a million equal names cost no million look-ups each. */
cml_status cml_tree_escape_name(cml_tree *tree, const cml_node *folder, const char *name, size_t size, const char **out,
                                cml_error *err) {
  cml_buffer base = CML_BUFFER_INIT;
  escape(name, size, &base);
  if (base.failed) return cml_fail_memory(err);
  char text[CML_NAME_MAX + 1];
  uint64_t taken = 0, number = 1;
  while (cml_node_lookup(folder, text, with_suffix(text, &base, number))) {
    taken = number;
    number *= 2;
  }
  while (number - taken > 1) {
    uint64_t middle = taken + (number - taken) / 2;
    if (cml_node_lookup(folder, text, with_suffix(text, &base, middle))) taken = middle;
    else number = middle;
  }
  size_t length = with_suffix(text, &base, number);
  cml_buffer_free(&base);
  const char *copy = cml_arena_text(&tree->arena, text, length);
  if (!copy) return cml_fail_memory(err);
  *out = copy;
  return CML_OK;
}
