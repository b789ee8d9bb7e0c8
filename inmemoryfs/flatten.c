/* Flattening: sizes first, then bytes.
 *
 * All sizes are known before any byte is written, so the node table, and with it the alignment and the blob's size, is
 * made up front; then the files stream past in the table's order. What a file holds then must be what its size said. */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "checked.h"
#include "flat.h"
#include "outflow.h"
#include "output.h"
#include "tree_internal.h"

enum { UNALIGNED_MAX = 1 << 30 };

typedef struct layout {
  cml_buffer table; /* forwards */
  uint64_t alignment;
  uint64_t data;  /* bytes before the table */
  uint64_t total; /* the blob's size */
  uint64_t index; /* of the next node */
  const char *root_name;
  cml_error *err;
} layout;

/* ---- the table ---- */

static void put_number(cml_buffer *b, uint64_t value) {
  char digits[20];
  size_t at = sizeof digits;
  do digits[--at] = (char)('0' + value % 10);
  while (value /= 10);
  cml_buffer_append(b, digits + at, sizeof digits - at);
}

static void put_name(cml_buffer *b, const char *name, size_t size) {
  size_t plain = 0;
  while (plain < size && (unsigned char)name[plain] >= 0x20 && name[plain] != '"' && name[plain] != '\\' && name[plain] != 0x7f) plain++;
  if (plain < size) {
    cml_buffer_json_string(b, name, size);
    return;
  }
  cml_buffer_char(b, '"');
  cml_buffer_append(b, name, size);
  cml_buffer_char(b, '"');
}

#define PUT(b, literal) cml_buffer_append(b, literal, sizeof literal - 1)

static void put_row(layout *l, const cml_node *node, const char *name, const uint64_t *indices, uint64_t offset, uint64_t size) {
  cml_buffer *b = &l->table;
  if (l->index) PUT(b, ",");
  PUT(b, "{\"children\":{");
  for (size_t i = 0, n = cml_node_count(node); i < n; i++) {
    const cml_node *child = cml_node_child(node, i);
    if (i) PUT(b, ",");
    put_name(b, child->name, child->name_size);
    PUT(b, ":");
    put_number(b, indices[i]);
  }
  PUT(b, "},\"dataRegion\":{\"offset\":");
  put_number(b, offset);
  PUT(b, ",\"size\":");
  put_number(b, size);
  PUT(b, "},\"kind\":");
  put_number(b, node->kind == CML_NODE_FOLDER);
  PUT(b, ",\"name\":");
  put_name(b, name, strlen(name));
  PUT(b, "}");
}

static cml_status fail_large(layout *l) { return cml_fail(l->err, CML_LIMIT, CML_NO_OFFSET, "the blob would have over 2^63 - 1 bytes"); }

static cml_status lay_file(layout *l, const cml_node *file) {
  uint64_t size = 0;
  CML_TRY(cml_node_size(file, &size, l->err));
  if (!cml_align(l->data, l->alignment, &l->data)) return fail_large(l);
  put_row(l, file, file->name, NULL, l->data, size);
  if (!cml_add(l->data, size, &l->data) || l->data > INT64_MAX) return fail_large(l);
  return CML_OK;
}

/* Rows in post-order. Recursion is bounded by CML_TREE_MAX_DEPTH. */
static cml_status lay_node(layout *l, const cml_node *node, const char *name, uint64_t *out_index) {
  cml_status status = CML_OK;
  if (node->kind == CML_NODE_FILE) {
    status = lay_file(l, node);
  } else {
    size_t count = cml_node_count(node);
    uint64_t *indices = count ? calloc(count, sizeof *indices) : NULL;
    if (count && !indices) return cml_fail_memory(l->err);
    for (size_t i = 0; i < count && !status; i++) {
      const cml_node *child = cml_node_child(node, i);
      status = lay_node(l, child, child->name, &indices[i]);
    }
    if (!status) put_row(l, node, name, indices, 0, 0);
    free(indices);
  }
  if (!status) *out_index = l->index++;
  return status;
}

static cml_status lay_out_aligned(layout *l, const cml_node *folder, uint64_t alignment) {
  uint64_t root;
  cml_buffer_free(&l->table);
  l->alignment = alignment;
  l->data = l->index = 0;
  PUT(&l->table, "{\"nodes\":[");
  CML_TRY(lay_node(l, folder, l->root_name, &root));
  PUT(&l->table, "]}");
  CML_TRY(cml_buffer_check(&l->table, l->err));
  if (!cml_align(l->data, alignment, &l->data) || !cml_add(l->data, l->table.size, &l->total) || l->total > INT64_MAX)
    return fail_large(l);
  return CML_OK;
}

/* ExecuTorch measures the blob unaligned, table and all, and aligns to pages what is over 1 GiB. */
static cml_status lay_out(layout *l, const cml_node *folder, const cml_flatten_options *options, cml_error *err) {
  uint64_t alignment = options ? options->alignment : 0;
  *l = (layout){.err = err, .root_name = options && options->root_name ? options->root_name : folder->name};
  if (!*l->root_name && !(options && options->root_name)) l->root_name = "root";
  if (folder->kind != CML_NODE_FOLDER) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "only a folder can be flattened");
  if (alignment && !cml_is_power_of_two(alignment))
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "the alignment %" PRIu64 " is not a power of two", alignment);
  const char *fault = cml_name_fault(l->root_name, strlen(l->root_name));
  if (fault) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "the root's name \"%.80s\" %s", l->root_name, fault);
  CML_TRY(lay_out_aligned(l, folder, alignment ? alignment : 1));
  if (alignment || l->total <= UNALIGNED_MAX) return CML_OK;
  return lay_out_aligned(l, folder, (uint64_t)sysconf(_SC_PAGESIZE));
}

static void reverse(cml_buffer *b) {
  for (size_t i = 0, j = b->size; i + 1 < j; i++) {
    uint8_t c = b->data[i];
    b->data[i] = b->data[--j];
    b->data[j] = c;
  }
}

/* ---- the bytes ---- */

static cml_status fail_changed(const cml_node *file, cml_error *err) {
  return cml_node_error(err, cml_fail(err, CML_IO, CML_NO_OFFSET, "the file changed its size while it was flattened"), file);
}

static cml_status put_files(cml_outflow *out, const layout *l, const cml_node *node) {
  if (node->kind == CML_NODE_FILE) {
    uint64_t wanted = 0, size = 0, at;
    CML_TRY(cml_node_size(node, &wanted, out->err));
    if (!cml_align(out->position, l->alignment, &at)) return CML_LIMIT;
    CML_TRY(cml_outflow_zeros(out, at - out->position));
    CML_TRY(cml_outflow_file(out, node, &size));
    return size == wanted ? CML_OK : fail_changed(node, out->err);
  }
  for (size_t i = 0, n = cml_node_count(node); i < n; i++) CML_TRY(put_files(out, l, cml_node_child(node, i)));
  return CML_OK;
}

static cml_status flatten_to(layout *l, const cml_node *folder, int fd, const cml_flatten_options *options, cml_error *err) {
  cml_outflow out;
  CML_TRY(cml_outflow_open(&out, options ? &options->write : NULL, l->total, err));
  cml_outflow_target(&out, fd, cml_outflow_may_be_sparse(fd));
  cml_status status = put_files(&out, l, folder);
  if (!status && out.position > l->data) status = cml_fail(err, CML_IO, CML_NO_OFFSET, "a file grew while it was flattened");
  if (!status) status = cml_outflow_zeros(&out, l->data - out.position);
  reverse(&l->table);
  if (!status) status = cml_outflow_lasting(&out, l->table.data, l->table.size);
  if (!status) status = cml_outflow_finish(&out);
  cml_outflow_close(&out);
  return status;
}

cml_status cml_flatten_to_fd(const cml_node *folder, int fd, const cml_flatten_options *options, cml_error *err) {
  layout l;
  cml_status status = lay_out(&l, folder, options, err);
  if (!status) status = flatten_to(&l, folder, fd, options, err);
  cml_buffer_free(&l.table);
  return status;
}

cml_status cml_flatten_to_path(const cml_node *folder, const char *path, const cml_flatten_options *options, cml_error *err) {
  layout l;
  cml_output output;
  cml_status status = lay_out(&l, folder, options, err);
  if (!status) status = cml_output_open(&output, path, false, true, err);
  if (status) goto done;
  status = flatten_to(&l, folder, output.fd, options, err);
  if (!status) status = cml_output_commit(&output, err);
  if (status) cml_output_abort(&output);
done:
  cml_buffer_free(&l.table);
  return status;
}

static cml_status pour_file(cml_sink sink, const cml_node *file, uint64_t *out_size, cml_error *err) {
  cml_contents contents = {0};
  CML_TRY(cml_node_open(file, &contents, err));
  cml_status status = CML_OK;
  for (size_t i = 0; i < contents.count && !status; i++)
    status = cml_sink_write(sink, contents.pieces[i].data, (size_t)contents.pieces[i].size, err);
  *out_size = contents.size;
  cml_contents_close(&contents);
  return status;
}

static cml_status pour_files(cml_sink sink, const layout *l, const cml_node *node, uint64_t *position, cml_error *err) {
  if (node->kind == CML_NODE_FILE) {
    uint64_t wanted = 0, size = 0, at;
    CML_TRY(cml_node_size(node, &wanted, err));
    if (!cml_align(*position, l->alignment, &at)) return CML_LIMIT;
    CML_TRY(cml_sink_zeros(sink, at - *position, err));
    CML_TRY(pour_file(sink, node, &size, err));
    *position = at + size;
    return size == wanted ? CML_OK : fail_changed(node, err);
  }
  for (size_t i = 0, n = cml_node_count(node); i < n; i++) CML_TRY(pour_files(sink, l, cml_node_child(node, i), position, err));
  return CML_OK;
}

cml_status cml_flatten_to_sink(const cml_node *folder, cml_sink sink, const cml_flatten_options *options, cml_error *err) {
  layout l;
  uint64_t position = 0;
  cml_status status = lay_out(&l, folder, options, err);
  if (!status) status = pour_files(sink, &l, folder, &position, err);
  if (!status) status = cml_sink_zeros(sink, l.data - position, err);
  reverse(&l.table);
  if (!status) status = cml_sink_write(sink, l.table.data, l.table.size, err);
  cml_buffer_free(&l.table);
  return status;
}

cml_status cml_flatten_size(const cml_node *folder, const cml_flatten_options *options, uint64_t *out, cml_error *err) {
  layout l;
  cml_status status = lay_out(&l, folder, options, err);
  if (!status) *out = l.total;
  cml_buffer_free(&l.table);
  return status;
}
