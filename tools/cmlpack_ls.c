/* cmlpack ls: the view of a container as a list. */
#include <string.h>

#include "cmlpack.h"
#include "container.h"
#include "json_write.h"

static const cli_page page = {
    .usage = "cmlpack ls FILE [PATH] [-l] [-R] [--json]",
    .summary = "Lists what FILE holds: the same tree that cat prints from, extract writes and cmlfs mounts.",
    .details = "A folder's name ends in /. --json prints an array of {path, kind (\"file\" or \"folder\"), size, generated, offset}:\n"
               "size is that of a file in bytes; generated tells files that are made when read; offset is where a file's bytes lie\n"
               "in FILE (or in the file of a folder that holds it), absent for those that do not lie there in one piece.",
    .examples = "cmlpack ls model.pte                     # the top of the tree\n"
                "cmlpack ls -lR model.pte                 # everything, with sizes and offsets\n"
                "cmlpack ls model.pte forward/coreml_0    # one folder\n"
                "cmlpack ls -R --json model.mlpackage     # for programs",
    .min_operands = 1,
    .max_operands = 2,
};

typedef struct listing {
  bool longer, recursive, json;
  cml_json *out;
  cml_buffer path;
  const char *file;
} listing;

static bool place_of(const cml_node *node, uint64_t *out_offset) {
  cml_contents contents = {0};
  if (cml_node_is_generated(node) || cml_node_open(node, &contents, NULL)) return false;
  bool found = contents.count == 1 && contents.pieces[0].mapping;
  if (found) *out_offset = contents.pieces[0].offset;
  cml_contents_close(&contents);
  return found;
}

static void print_json(listing *l, const cml_node *node, uint64_t size) {
  uint64_t offset;
  bool folder = cml_node_kind_of(node) == CML_NODE_FOLDER;
  cml_json_open_flat(l->out, '{');
  cml_json_put_string(l->out, "path", (cml_string){(const char *)l->path.data, l->path.size});
  cml_json_put_text(l->out, "kind", folder ? "folder" : "file");
  if (!folder) {
    cml_json_put_uint(l->out, "size", size);
    cml_json_put_bool(l->out, "generated", cml_node_is_generated(node));
    if (place_of(node, &offset)) cml_json_put_uint(l->out, "offset", offset);
  }
  cml_json_close(l->out, '}');
}

static void print_line(listing *l, const cml_node *node, uint64_t size) {
  bool folder = cml_node_kind_of(node) == CML_NODE_FOLDER;
  uint64_t offset;
  if (l->longer && folder) printf("%12s  %12s  ", "-", "-");
  else if (l->longer && place_of(node, &offset)) printf("%12llu  %12llu  ", (unsigned long long)size, (unsigned long long)offset);
  else if (l->longer) printf("%12llu  %12s  ", (unsigned long long)size, cml_node_is_generated(node) ? "made" : "-");
  fputs(folder ? cli_style_on(CLI_BLUE) : "", stdout);
  cli_print_text(stdout, (const char *)l->path.data);
  printf("%s%s\n", folder ? cli_style_on(CLI_PLAIN) : "", folder ? "/" : "");
}

/* A file whose contents cannot be made is listed with size 0 and reported; the listing goes on. */
static int list_node(listing *l, const cml_node *node) {
  cml_error err = {0};
  uint64_t size = 0;
  int code = CLI_OK;
  cml_buffer_free(&l->path);
  cml_node_path(node, &l->path);
  if (l->path.failed || !l->path.size) return cli_fail("out of memory");
  if ((l->longer || l->json) && cml_node_size(node, &size, &err)) code = cli_error(l->file, &err);
  if (l->json) print_json(l, node, size);
  else print_line(l, node, size);
  return code;
}

static int list_children(listing *l, const cml_node *folder) {
  int code = CLI_OK;
  for (size_t i = 0, n = cml_node_count(folder); i < n; i++) {
    const cml_node *child = cml_node_child(folder, i);
    int one = list_node(l, child);
    if (one) code = one;
    if (l->recursive) {
      one = list_children(l, child);
      if (one) code = one;
    }
  }
  return code;
}

int cmlpack_ls(int argc, char **argv) {
  listing l = {0};
  const char *data = NULL;
  const cli_option options[] = {CLI_FLAG('l', "long", &l.longer, "sizes and offsets in front of the names"),
                                CLI_FLAG('R', "recursive", &l.recursive, "folders within folders too"),
                                CLI_FLAG(0, "json", &l.json, "print JSON"),
                                CLI_TEXT(0, "data", "FILE.ptd", &data, "external data of a .pte"), CLI_END};
  int code = cli_parse(&page, options, &argc, argv);
  if (code != CLI_GO_ON) return code;
  cml_error err = {0};
  cml_container *container = NULL;
  const cml_node *node;
  l.file = argv[0];
  code = cmlpack_open(argv[0], data, argc > 1 ? argv[1] : "", &container, &node);
  if (code) return code;
  cml_buffer text = CML_BUFFER_INIT;
  cml_json json = cml_json_over(&text);
  l.out = &json;
  if (l.json) cml_json_open(&json, '[');
  code = cml_node_kind_of(node) == CML_NODE_FOLDER ? list_children(&l, node) : list_node(&l, node);
  if (l.json) cml_json_close(&json, ']');
  if (cml_buffer_check(&text, &err)) code = cli_error(NULL, &err);
  else cli_put(&text);
  cml_buffer_free(&text);
  cml_buffer_free(&l.path);
  cml_container_close(container);
  return code;
}
