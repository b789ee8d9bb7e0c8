/* The tree: names are refused, children sorted whatever the order they come in, contents found wherever they lie;
 * folders read from disk and written back are the same, and nothing half done or outside is ever left. */
#include <dirent.h>
#include <pthread.h>

#include "scratch.h"
#include "write.h"

static cml_piece text_piece(const char *text) { return (cml_piece){(const uint8_t *)text, strlen(text), NULL, 0}; }

static void add_text(cml_tree *tree, cml_node *parent, const char *name, const char *text) {
  cml_piece p = text_piece(text);
  assert_ok(cml_tree_add_file(tree, parent, name, strlen(name), &p, 1, NULL, err));
}

static cml_node *add_folder(cml_tree *tree, cml_node *parent, const char *name) {
  cml_node *node = NULL;
  assert_ok(cml_tree_add_folder(tree, parent, name, strlen(name), &node, err));
  return node;
}

static char *contents_of(const cml_node *file) {
  cml_contents c;
  assert_ok(cml_node_open(file, &c, err));
  char *text = calloc(1, c.size + 1), *at = text;
  for (size_t i = 0; i < c.count; i++) {
    memcpy(at, c.pieces[i].data, c.pieces[i].size);
    at += c.pieces[i].size;
  }
  assert_int_equal(at - text, c.size);
  cml_contents_close(&c);
  return text;
}

static void assert_contents(const cml_node *from, const char *path, const char *want) {
  const cml_node *file = cml_node_find(from, path);
  assert_non_null(file);
  char *text = contents_of(file);
  assert_string_equal(text, want);
  free(text);
}

static int count_entries(const char *path) {
  DIR *d = opendir(path);
  int n = 0;
  while (readdir(d)) n++;
  closedir(d);
  return n - 2;
}

static void wrong_names_are_refused(void **state) {
  (void)state;
  char longest[257];
  memset(longest, 'x', sizeof longest);
  const struct {
    const char *name;
    size_t size;
  } bad[] = {{"", 0}, {".", 1}, {"..", 2}, {"a/b", 3}, {"a\0b", 3}, {"\xff", 1}, {"\xc0\xaf", 2}, {"\xed\xa0\x80", 3}, {longest, 256}};
  cml_tree *tree;
  cml_node *node = NULL;
  cml_error e;
  assert_ok(cml_tree_create("", &tree, err));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(cml_tree_add_folder(tree, cml_tree_root_mutable(tree), bad[i].name, bad[i].size, &node, &e), CML_INVALID);
    assert_null(node);
  }
  assert_ok(cml_tree_add_folder(tree, cml_tree_root_mutable(tree), longest, 255, NULL, err));
  add_text(tree, cml_tree_root_mutable(tree), "...", "three dots are a name");
  assert_int_equal(cml_tree_add_file(tree, cml_tree_root_mutable(tree), longest, 255, NULL, 0, NULL, &e), CML_EXISTS);
  assert_int_equal(cml_node_count(cml_tree_root(tree)), 2);
  cml_tree_unref(tree);
}

static int text_order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* qsort is the judge; 5,000 names pass the size where the tail list comes in. */
static void children_are_sorted(void **state) {
  (void)state;
  enum { N = 5000 };
  static char names[N][16];
  static char *sorted[N];
  cml_tree *tree;
  assert_ok(cml_tree_create("r", &tree, err));
  cml_node *root = cml_tree_root_mutable(tree);
  for (unsigned i = 0; i < N; i++) {
    snprintf(names[i], sizeof names[i], "%u", (i * 2654435761u) % 1000003u);
    sorted[i] = names[i];
    add_text(tree, root, names[i], names[i]);
    cml_error e;
    assert_int_equal(cml_tree_add_folder(tree, root, names[i / 2], strlen(names[i / 2]), NULL, &e), CML_EXISTS);
  }
  qsort(sorted, N, sizeof *sorted, text_order);
  assert_int_equal(cml_node_count(root), N);
  for (size_t i = 0; i < N; i++) {
    assert_string_equal(cml_node_name(cml_node_child(root, i)), sorted[i]);
    assert_ptr_equal(cml_node_lookup(root, sorted[i], strlen(sorted[i])), cml_node_child(root, i));
  }
  assert_null(cml_node_child(root, N));
  assert_null(cml_node_lookup(root, "x", 1));
  cml_tree_unref(tree);
}

static cml_status count_calls(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)err;
  ++*(int *)context;
  cml_buffer_printf(out, "made for %s", cml_node_name(node));
  return CML_OK;
}

static void paths_inodes_and_contents(void **state) {
  (void)state;
  int calls = 0;
  cml_tree *tree;
  assert_ok(cml_tree_create("root", &tree, err));
  cml_node *root = cml_tree_root_mutable(tree), *a = add_folder(tree, root, "a"), *b = add_folder(tree, a, "b");
  cml_piece pieces[] = {text_piece("one "), text_piece(""), text_piece("two")};
  assert_ok(cml_tree_add_file(tree, b, "parts", 5, pieces, 3, NULL, err));
  assert_ok(cml_tree_add_generated(tree, b, "view", 4, count_calls, &calls, NULL, err));
  assert_contents(root, "a/b/parts", "one two");
  assert_contents(b, "./view", "made for view");
  assert_ptr_equal(cml_node_find(root, ""), root);
  assert_ptr_equal(cml_node_find(a, "."), a);
  assert_ptr_equal(cml_node_find(root, "a//b/"), b);
  assert_null(cml_node_find(root, "a/c"));
  assert_null(cml_node_find(root, "a/b/parts/x"));
  assert_null(cml_node_find(root, "a/b/parts/"));
  assert_null(cml_node_find(b, ".."));
  uint64_t size = 0;
  cml_span span;
  cml_error e;
  const cml_node *view = cml_node_find(root, "a/b/view"), *parts = cml_node_find(root, "a/b/parts");
  for (int i = 0; i < 3; i++) assert_ok(cml_node_size(view, &size, err));
  assert_int_equal(size, 13);
  assert_int_equal(calls, 1);
  assert_true(cml_node_is_generated(view));
  assert_int_equal(cml_node_span(view, &span, &e), CML_UNSUPPORTED);
  assert_int_equal(cml_node_span(parts, &span, &e), CML_UNSUPPORTED);
  assert_int_equal(cml_node_span(a, &span, &e), CML_ARGUMENT);
  assert_int_equal(cml_node_inode(root), 1);
  assert_int_not_equal(cml_node_inode(view), cml_node_inode(parts));
  cml_buffer path = CML_BUFFER_INIT;
  cml_node_path(parts, &path);
  assert_string_equal((char *)path.data, "a/b/parts");
  cml_buffer_free(&path);
  cml_tree_unref(tree);
}

static void grafts_have_their_own_place(void **state) {
  (void)state;
  int calls = 0;
  cml_tree *inner, *outer;
  cml_error e;
  assert_ok(cml_tree_create("inner", &inner, err));
  cml_node *folder = add_folder(inner, cml_tree_root_mutable(inner), "weights");
  add_text(inner, folder, "w", "bytes");
  assert_ok(cml_tree_add_generated(inner, folder, "v", 1, count_calls, &calls, NULL, err));
  assert_ok(cml_tree_create("outer", &outer, err));
  cml_node *root = cml_tree_root_mutable(outer), *below = add_folder(outer, root, "m");
  assert_ok(cml_tree_graft(outer, below, "one", 3, inner, cml_tree_root(inner), err));
  assert_ok(cml_tree_graft(outer, below, "two", 3, inner, folder, err));
  assert_int_equal(cml_tree_graft(outer, below, "x", 1, outer, root, &e), CML_ARGUMENT);
  cml_tree_unref(inner);
  assert_contents(root, "m/one/weights/w", "bytes");
  assert_contents(root, "m/two/v", "made for v");
  const cml_node *w1 = cml_node_find(root, "m/one/weights/w"), *w2 = cml_node_find(root, "m/two/w");
  assert_int_not_equal(cml_node_inode(w1), cml_node_inode(w2));
  assert_ptr_equal(cml_node_parent(cml_node_parent(w2)), below);
  cml_span span;
  assert_ok(cml_node_span(w1, &span, err));
  assert_int_equal(span.size, 5);
  cml_tree_unref(outer);
}

static void any_bytes_become_a_name(void **state) {
  (void)state;
  const struct {
    const char *from;
    size_t size;
    const char *want;
  } cases[] = {{"a/b", 3, "a%2Fb"}, {"a/b", 3, "a%2Fb~2"}, {"a/b", 3, "a%2Fb~3"}, {".", 1, "%2E"},     {"..", 2, "%2E%2E"},
               {"", 0, "%"},        {"\0x", 2, "%00x"},    {"\xff\xc3\xa9", 3, "%FF\xc3\xa9"},            {"...", 3, "..."}};
  cml_tree *tree;
  const char *name = NULL;
  assert_ok(cml_tree_create("", &tree, err));
  cml_node *root = cml_tree_root_mutable(tree);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_ok(cml_tree_escape_name(tree, root, cases[i].from, cases[i].size, &name, err));
    assert_string_equal(name, cases[i].want);
    add_text(tree, root, name, "");
  }
  char longest[600];
  for (int i = 0; i < 600; i += 2) memcpy(longest + i, "\xc3\xa9", 2);
  for (int i = 0; i < 1000; i++) {
    assert_ok(cml_tree_escape_name(tree, root, longest, sizeof longest, &name, err));
    add_text(tree, root, name, "");
  }
  assert_int_equal(cml_node_count(root), 1009);
  assert_string_equal(name + strlen(name) - 6, "\xa9~1000");
  cml_tree_unref(tree);
}

/* ---- disk ---- */

static void make_sample(const char *top) {
  char path[512];
  assert_int_equal(mkdir(top, 0777), 0);
  snprintf(path, sizeof path, "%s/empty folder", top);
  assert_int_equal(mkdir(path, 0777), 0);
  snprintf(path, sizeof path, "%s/sub", top);
  assert_int_equal(mkdir(path, 0777), 0);
  snprintf(path, sizeof path, "%s/sub/\xc3\xa9\xe6\x97\xa5.txt", top);
  put_text(path, "unicode");
  snprintf(path, sizeof path, "%s/empty", top);
  put_text(path, "");
  snprintf(path, sizeof path, "%s/large", top);
  char *large = malloc(3 << 20);
  for (size_t i = 0; i < 3 << 20; i++) large[i] = (char)(i * 2654435761u >> 13);
  put_file(path, large, 3 << 20);
  free(large);
}

static void assert_same_on_disk(const char *a, const char *b) {
  char command[1024];
  snprintf(command, sizeof command, "diff -r '%s' '%s'", a, b);
  assert_int_equal(system(command), 0);
}

static void folders_are_read_and_written(void **state) {
  (void)state;
  make_sample("sample");
  cml_tree *tree;
  assert_ok(cml_tree_from_folder("sample/", NULL, &tree, err));
  const cml_node *root = cml_tree_root(tree);
  assert_string_equal(cml_node_name(root), "sample");
  assert_int_equal(cml_node_count(root), 4);
  assert_contents(root, "sub/\xc3\xa9\xe6\x97\xa5.txt", "unicode");
  assert_contents(root, "empty", "");
  uint64_t size;
  assert_ok(cml_node_size(cml_node_find(root, "large"), &size, err));
  assert_int_equal(size, 3 << 20);
  assert_ok(cml_node_write(root, "copy", err));
  assert_same_on_disk("sample", "copy");
  assert_ok(cml_node_write(cml_node_find(root, "large"), "large.bin", err));
  assert_same_on_disk("sample/large", "large.bin");
  cml_error e;
  assert_int_equal(cml_node_write(root, "copy", &e), CML_EXISTS);
  assert_int_equal(cml_node_write(root, "large.bin", &e), CML_EXISTS);
  assert_int_equal(cml_node_write(root, "no/such/folder", &e), CML_NOT_FOUND);
  assert_int_equal(cml_node_write(root, "copy/..", &e), CML_EXISTS);
  assert_int_equal(count_entries("."), 3);
  cml_tree_unref(tree);
}

static void what_is_on_disk_must_be_plain(void **state) {
  (void)state;
  cml_tree *tree = NULL;
  cml_error e;
  assert_int_equal(mkdir("odd", 0777), 0);
  assert_int_equal(symlink("/etc/passwd", "odd/link"), 0);
  assert_int_equal(cml_tree_from_folder("odd", NULL, &tree, &e), CML_UNSUPPORTED);
  assert_non_null(strstr(e.text, "link"));
  unlink("odd/link");
  assert_int_equal(mkfifo("odd/fifo", 0666), 0);
  assert_int_equal(cml_tree_from_folder("odd", NULL, &tree, &e), CML_UNSUPPORTED);
  unlink("odd/fifo");
  put_text("odd/\xff", "");
  assert_int_equal(cml_tree_from_folder("odd", NULL, &tree, &e), CML_INVALID);
  assert_int_equal(cml_tree_from_folder("odd/none", NULL, &tree, &e), CML_NOT_FOUND);
  assert_int_equal(cml_tree_from_folder("odd/\xff", NULL, &tree, &e), CML_ARGUMENT);
  assert_int_equal(cml_tree_from_folder(".", &(cml_folder_options){.max_nodes = 1}, &tree, &e), CML_LIMIT);
  assert_null(tree);
}

/* A file that is swapped for a link, or that grows, after listing is noticed, and a failed write leaves nothing. */
static void changes_on_disk_are_noticed(void **state) {
  (void)state;
  cml_tree *tree;
  cml_error e;
  cml_contents c;
  assert_int_equal(mkdir("t", 0777), 0);
  assert_int_equal(mkdir("t/d", 0777), 0);
  put_text("t/d/a", "secret?");
  put_text("t/b", "b");
  assert_ok(cml_tree_from_folder("t", NULL, &tree, err));
  const cml_node *root = cml_tree_root(tree);
  put_text("t/b", "longer");
  assert_int_equal(cml_node_open(cml_node_find(root, "b"), &c, &e), CML_IO);
  assert_int_equal(cml_node_write(root, "out", &e), CML_IO);
  put_text("t/b", "b");
  assert_int_equal(rename("t/d", "elsewhere"), 0);
  assert_int_equal(symlink("../elsewhere", "t/d"), 0);
  assert_int_equal(cml_node_open(cml_node_find(root, "d/a"), &c, &e), CML_IO);
  assert_int_equal(cml_node_write(root, "out", &e), CML_IO);
  assert_int_equal(count_entries("."), 2);
  cml_tree_unref(tree);
}

static void deep_and_wide(void **state) {
  (void)state;
  cml_tree *tree, *again;
  cml_error e;
  char name[201];
  memset(name, 'd', 200);
  name[200] = 0;
  assert_ok(cml_tree_create("deep", &tree, err));
  cml_node *node = cml_tree_root_mutable(tree);
  for (int i = 0; i < 500; i++) node = add_folder(tree, node, name); /* 100,000 bytes of path */
  add_text(tree, node, "bottom", "here");
  node = add_folder(tree, cml_tree_root_mutable(tree), "wide");
  for (int i = 0; i < 2000; i++) {
    snprintf(name, sizeof name, "%d", i);
    add_text(tree, node, name, name);
  }
  assert_ok(cml_node_write(cml_tree_root(tree), "deep", err));
  assert_ok(cml_tree_from_folder("deep", NULL, &again, err));
  bool equal = false;
  assert_ok(cml_node_compare(cml_tree_root(tree), cml_tree_root(again), &equal, NULL, err));
  assert_true(equal);
  cml_tree_unref(again);
  assert_int_equal(cml_tree_from_folder("deep", &(cml_folder_options){.max_depth = 499}, &again, &e), CML_LIMIT);
  node = cml_tree_root_mutable(tree);
  for (int i = 0; i < 4096; i++) node = add_folder(tree, node, "x");
  assert_int_equal(cml_tree_add_folder(tree, node, "x", 1, &node, &e), CML_LIMIT);
  cml_tree_unref(tree);
  assert_int_equal(system("rm -rf deep"), 0);
}

static void differences_are_named(void **state) {
  (void)state;
  const char *changes[][3] = {{"m", "same", NULL}, {"m", "different", "f/m"}, {"n", "same", "f/m"}, {"a", "same", "f/a"}};
  for (size_t i = 0; i < 4; i++) {
    cml_tree *t[2];
    for (size_t j = 0; j < 2; j++) {
      assert_ok(cml_tree_create(j ? "right" : "left", &t[j], err));
      cml_node *f = add_folder(t[j], cml_tree_root_mutable(t[j]), "f");
      add_text(t[j], f, "b", "");
      add_text(t[j], f, j ? changes[i][0] : "m", j ? changes[i][1] : "same");
    }
    bool equal;
    cml_buffer difference = CML_BUFFER_INIT;
    assert_ok(cml_node_compare(cml_tree_root(t[0]), cml_tree_root(t[1]), &equal, &difference, err));
    assert_int_equal(equal, !changes[i][2]);
    if (!equal) assert_string_equal((char *)difference.data, changes[i][2]);
    cml_buffer_free(&difference);
    cml_tree_unref(t[0]);
    cml_tree_unref(t[1]);
  }
}

static void holes_stay_holes(void **state) {
  (void)state;
  assert_int_equal(mkdir("s", 0777), 0);
  int fd = open("s/sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  assert_int_equal(pwrite(fd, "middle", 6, (off_t)5 << 30), 6);
  assert_int_equal(ftruncate(fd, (off_t)6 << 30), 0);
  close(fd);
  cml_tree *tree;
  struct stat st;
  assert_ok(cml_tree_from_folder("s", NULL, &tree, err));
  assert_ok(cml_node_write(cml_tree_root(tree), "copy", err));
  assert_int_equal(stat("copy/sparse", &st), 0);
  assert_int_equal(st.st_size, (off_t)6 << 30);
  assert_true(st.st_blocks * 512 < 1 << 20);
  fd = open("copy/sparse", O_RDONLY | O_CLOEXEC);
  char text[7] = {0};
  assert_int_equal(pread(fd, text, 6, (off_t)5 << 30), 6);
  assert_string_equal(text, "middle");
  close(fd);
  cml_tree_unref(tree);
}

static bool stop_soon(void *context, uint64_t done, uint64_t total) {
  (void)done;
  assert_int_equal(total, 3 << 20 | 7);
  return --*(int *)context > 0;
}

static void writing_can_be_stopped(void **state) {
  (void)state;
  make_sample("stop");
  cml_tree *tree;
  cml_error e;
  int calls = 1, before = count_entries(".");
  assert_ok(cml_tree_from_folder("stop", NULL, &tree, err));
  assert_int_equal(cml_node_write_with(cml_tree_root(tree), "stopped", &(cml_write_options){stop_soon, &calls}, &e), CML_CANCELLED);
  assert_int_equal(count_entries("."), before);
  cml_tree_unref(tree);
}

/* Enough folders and files for several threads: 20 folders of 40 files, one of them in a folder of its own. */
static cml_tree *make_wide(void) {
  static char texts[20][40][32]; /* what the files hold */
  cml_tree *tree;
  assert_ok(cml_tree_create("wide", &tree, err));
  for (int i = 0; i < 20; i++) {
    char name[32];
    snprintf(name, sizeof name, "folder%d", i);
    cml_node *folder = add_folder(tree, cml_tree_root_mutable(tree), name);
    for (int k = 0; k < 40; k++) {
      char *text = texts[i][k];
      snprintf(text, sizeof texts[i][k], "file %d of %d", k, i);
      add_text(tree, k ? folder : add_folder(tree, folder, "inner"), text, text);
    }
  }
  return tree;
}

typedef struct listener {
  pthread_t thread;
  uint64_t newest;
  int calls, stop_at;
} listener;

static bool listen_in(void *context, uint64_t done, uint64_t total) {
  listener *l = context;
  assert_true(pthread_equal(l->thread, pthread_self()));
  assert_true(done >= l->newest && done <= total);
  l->newest = done;
  return ++l->calls != l->stop_at;
}

static void several_threads_write(void **state) {
  (void)state;
  cml_tree *tree = make_wide(), *again;
  cml_error e;
  bool equal = false;
  int before = count_entries(".");
  for (int stop_at = 1; stop_at <= 2; stop_at++) {
    listener l = {.thread = pthread_self(), .stop_at = stop_at};
    cml_status status = cml_node_write_with(cml_tree_root(tree), "wide", &(cml_write_options){listen_in, &l}, &e);
    if (l.calls < stop_at) { /* the others wrote nearly all */
      assert_int_equal(status, CML_OK);
      scratch_remove("wide");
    } else {
      assert_int_equal(status, CML_CANCELLED);
    }
    assert_int_equal(count_entries("."), before);
  }
  listener l = {.thread = pthread_self()};
  assert_ok(cml_node_write_with(cml_tree_root(tree), "wide", &(cml_write_options){listen_in, &l}, err));
  assert_ok(cml_tree_from_folder("wide", NULL, &again, err));
  assert_ok(cml_node_compare(cml_tree_root(tree), cml_tree_root(again), &equal, NULL, err));
  assert_true(equal);
  cml_tree_unref(tree);
  assert_int_equal(unlink("wide/folder13/inner/file 0 of 13"), 0); /* whoever meets it, its name is in the error */
  assert_int_equal(cml_node_write(cml_tree_root(again), "copy", &e), CML_IO);
  assert_non_null(strstr(e.text, "folder13/inner/file 0 of 13"));
  assert_int_equal(count_entries("."), before + 1);
  cml_tree_unref(again);
}

static void *read_all(void *root) {
  for (int round = 0; round < 20; round++)
    for (size_t i = 0; i < cml_node_count(root); i++) {
      const cml_node *file = cml_node_child(root, i);
      cml_span span;
      if (cml_node_span(file, &span, NULL)) return "failed";
      if (span.size != strlen(cml_node_name(file)) || memcmp(span.data, cml_node_name(file), span.size)) return "wrong";
    }
  return NULL;
}

static void many_threads_read(void **state) {
  (void)state;
  char path[64];
  assert_int_equal(mkdir("threads", 0777), 0);
  for (int i = 0; i < 100; i++) {
    snprintf(path, sizeof path, "threads/%d", i);
    put_text(path, path + 8);
  }
  cml_tree *tree;
  assert_ok(cml_tree_from_folder("threads", NULL, &tree, err));
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_all, cml_tree_root_mutable(tree)), 0);
  for (int i = 0; i < 4; i++) {
    void *result;
    pthread_join(threads[i], &result);
    assert_null(result);
  }
  cml_tree_unref(tree);
}

int main(void) {
#define ON_DISK(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(wrong_names_are_refused),
      cmocka_unit_test(children_are_sorted),
      cmocka_unit_test(paths_inodes_and_contents),
      cmocka_unit_test(grafts_have_their_own_place),
      cmocka_unit_test(any_bytes_become_a_name),
      cmocka_unit_test(differences_are_named),
      ON_DISK(folders_are_read_and_written),
      ON_DISK(what_is_on_disk_must_be_plain),
      ON_DISK(changes_on_disk_are_noticed),
      ON_DISK(deep_and_wide),
      ON_DISK(holes_stay_holes),
      ON_DISK(writing_can_be_stopped),
      ON_DISK(several_threads_write),
      ON_DISK(many_threads_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
