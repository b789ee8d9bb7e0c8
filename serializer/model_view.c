/* The files of a model's view. Texts are generated when they are read. A weight of whole bytes is two pieces, a header
 * that the tree owns and the data where it is mapped; sub-byte ones, for which NumPy has no type, are unpacked to
 * int8 or uint8 on reading. */
#include "model_view.h"

#include <stdio.h>
#include <stdlib.h>

#include "mil_graph.h"
#include "mil_names.h"
#include "model_io.h"
#include "npy.h"
#include "summary.h"

enum { SMALL_CONSTANT = 16 }; /* inline constants of fewer elements stay in model.mil alone */

typedef struct viewing {
  cml_tree *tree;
  cml_node *folder;
  cml_model *model;
  cml_model_view_options options;
  cml_piece *files; /* of the model's files, to find where a weight is mapped */
  size_t file_count;
  cml_node *weights, *dense;
  cml_error *err;
} viewing;

/* ---- generated texts ---- */

static cml_status make_mil(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  return cml_mil_print_text(((const cml_model *)context)->program, CML_MIL_1_3, out, err);
}

static cml_status make_summary(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  return cml_summary_text(context, out, err);
}

static cml_status make_summary_json(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  return cml_summary_json(context, out, err);
}

static cml_status make_io(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  return cml_model_io_json(context, out, err);
}

static cml_status make_dot(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  return cml_graph_dot(context, out, err);
}

static cml_status make_svg(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  return cml_graph_svg(context, out, err);
}

static cml_status make_text(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  cml_buffer_text(out, context);
  return cml_buffer_check(out, err);
}

static cml_status add_generated(viewing *v, cml_node *folder, const char *name, cml_node_generate *generate, const void *context) {
  const char *free_name;
  CML_TRY(cml_tree_escape_name(v->tree, folder, name, strlen(name), &free_name, v->err));
  void *plain;
  memcpy(&plain, &context, sizeof plain); /* generators do not change what they are given */
  return cml_tree_add_generated(v->tree, folder, free_name, strlen(free_name), generate, plain, NULL, v->err);
}

static cml_status add_graph(viewing *v, const cml_mil_function *f, bool only) {
  char name[300];
  bool svg = cml_graph_is_small(f);
  snprintf(name, sizeof name, "graph%s%.200s.%s", only ? "" : "_", only ? "" : f->name, svg ? "svg" : "dot");
  return add_generated(v, v->folder, name, svg ? make_svg : make_dot, f);
}

/* ---- weights ---- */

/* A tensor that NumPy has no type for. */
typedef struct unpacked {
  cml_dtype dtype;
  size_t rank, count;
  const int64_t *dims;
  const uint8_t *data;
} unpacked;

static cml_status make_unpacked(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  const unpacked *u = context;
  unsigned bits = cml_dtype_bits(u->dtype);
  bool is_signed = cml_dtype_is_signed(u->dtype);
  CML_TRY(cml_npy_header(is_signed ? CML_I8 : CML_U8, u->rank, u->dims, out, err));
  uint8_t *to = cml_buffer_extend(out, u->count);
  for (size_t i = 0; to && i < u->count; i++) {
    size_t at = i * bits;
    unsigned value = u->data[at >> 3] >> (at & 7);
    if ((at & 7) + bits > 8) value |= (unsigned)u->data[(at >> 3) + 1] << (8 - (at & 7));
    value &= (1u << bits) - 1;
    to[i] = is_signed && value >> (bits - 1) ? (uint8_t)(value | ~((1u << bits) - 1)) : (uint8_t)value;
  }
  return cml_buffer_check(out, err);
}

/* Where in the model's files `data` lies; a piece without a mapping when it lies in memory. */
static cml_piece piece_of(const viewing *v, cml_span data) {
  for (size_t i = 0; i < v->file_count; i++) {
    const cml_piece *p = &v->files[i];
    uintptr_t start = (uintptr_t)p->data, at = (uintptr_t)data.data;
    if (p->mapping && at >= start && at - start <= p->size && data.size <= p->size - (at - start))
      return (cml_piece){data.data, data.size, p->mapping, p->offset + (at - start)};
  }
  return (cml_piece){data.data, data.size, NULL, 0};
}

static cml_status add_array(viewing *v, cml_node *folder, const char *name, cml_dtype dtype, size_t rank, const int64_t *dims, cml_span data,
                            size_t count) {
  const char *free_name;
  cml_arena *arena = cml_tree_arena(v->tree);
  CML_TRY(cml_tree_escape_name(v->tree, folder, name, strlen(name), &free_name, v->err));
  if (cml_dtype_bits(dtype) < 8) {
    unpacked *u = CML_ARENA_NEW(arena, unpacked);
    if (!u) return cml_fail_memory(v->err);
    *u = (unpacked){dtype, rank, count, dims, data.data};
    return cml_tree_add_generated(v->tree, folder, free_name, strlen(free_name), make_unpacked, u, NULL, v->err);
  }
  cml_buffer header = CML_BUFFER_INIT;
  cml_status status = cml_npy_header(dtype, rank, dims, &header, v->err);
  char *kept = status ? NULL : cml_arena_text(arena, (const char *)header.data, header.size);
  if (!status && !kept) status = cml_fail_memory(v->err);
  if (!status) {
    cml_piece pieces[2] = {{(const uint8_t *)kept, header.size, NULL, 0}, piece_of(v, data)};
    status = cml_tree_add_file(v->tree, folder, free_name, strlen(free_name), pieces, data.size ? 2 : 1, NULL, v->err);
  }
  cml_buffer_free(&header);
  return status;
}

static bool worth_showing(const cml_mil_value *value) {
  if (!value || !value->type || value->type->kind != CML_TYPE_TENSOR || value->type->dtype == CML_STRING || value->type->rank < 0) return false;
  if (value->kind == CML_VALUE_BLOB) return value->data.data != NULL;
  return value->kind == CML_VALUE_TENSOR && value->count >= SMALL_CONSTANT;
}

static cml_status add_value(viewing *v, cml_node *folder, const char *name, const cml_mil_value *value) {
  const cml_mil_type *type = value->type;
  uint64_t elements, bytes;
  if (!worth_showing(value)) return CML_OK;
  char *file = cml_arena_printf(cml_tree_arena(v->tree), "%s.npy", name);
  int64_t *count = CML_ARENA_NEW(cml_tree_arena(v->tree), int64_t);
  if (!file || !count) return cml_fail_memory(v->err);
  *count = (int64_t)value->count;
  if (!cml_dtype_bytes(type->dtype, value->count, &bytes) || bytes > value->data.size) return CML_OK;
  if (cml_mil_type_elements(type, &elements) && elements == value->count)
    return add_array(v, folder, file, type->dtype, (size_t)type->rank, type->dims, value->data, value->count);
  return add_array(v, folder, file, type->dtype, 1, count, value->data, value->count); /* packed elements, or an unknown dimension */
}

static cml_status add_parts(viewing *v, cml_node *folder, const cml_mil_op *op) {
  for (size_t i = 0; i < op->attributes.count; i++) {
    char *name = cml_arena_printf(cml_tree_arena(v->tree), "%s.%s", op->outputs[0].name, op->attributes.items[i].name);
    if (!name) return cml_fail_memory(v->err);
    CML_TRY(add_value(v, folder, name, op->attributes.items[i].value));
  }
  for (size_t i = 0; i < op->input_count; i++) {
    const cml_mil_argument *argument = &op->inputs[i];
    if (argument->count != 1 || !argument->bindings[0].value) continue;
    char *name = cml_arena_printf(cml_tree_arena(v->tree), "%s.%s", op->outputs[0].name, argument->parameter);
    if (!name) return cml_fail_memory(v->err);
    CML_TRY(add_value(v, folder, name, argument->bindings[0].value));
  }
  return CML_OK;
}

/* ---- dense ---- */

typedef struct dense {
  const cml_mil_op *op;
  const cml_mil_function *function;
  cml_model_decompress *decompress;
} dense;

static cml_status make_dense(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  const dense *d = context;
  const cml_mil_type *type = d->op->outputs[0].type;
  CML_TRY(cml_npy_header(type->dtype, (size_t)type->rank, type->dims, out, err));
  return d->decompress(d->op, d->function, out, err);
}

static cml_status add_dense(viewing *v, cml_node *folder, const cml_mil_function *f, const cml_mil_op *op) {
  const cml_mil_type *type = op->outputs[0].type;
  uint64_t elements;
  if (!type || !cml_mil_type_elements(type, &elements) || cml_dtype_bits(type->dtype) < 8 || type->dtype == CML_STRING) return CML_OK;
  dense *d = CML_ARENA_NEW(cml_tree_arena(v->tree), dense);
  char *name = cml_arena_printf(cml_tree_arena(v->tree), "%s.npy", op->outputs[0].name);
  if (!d || !name) return cml_fail_memory(v->err);
  *d = (dense){op, f, v->options.decompress};
  return add_generated(v, folder, name, make_dense, d);
}

/* ---- all weights of a function ---- */

static cml_status subfolder(viewing *v, cml_node *parent, const char *name, cml_node **out) {
  const char *free_name;
  CML_TRY(cml_tree_escape_name(v->tree, parent, name, strlen(name), &free_name, v->err));
  return cml_tree_add_folder(v->tree, parent, free_name, strlen(free_name), out, v->err);
}

/* The function's own folder in *parent, which is made on first use. */
static cml_status folder_for(viewing *v, cml_node **parent, const char *name, const cml_mil_function *f, cml_node **out) {
  if (*out) return CML_OK;
  if (!*parent) CML_TRY(subfolder(v, v->folder, name, parent));
  if (v->model->program->function_count > 1) return subfolder(v, *parent, f->name, out);
  *out = *parent;
  return CML_OK;
}

static bool has_parts(const cml_mil_op *op) {
  for (size_t i = 0; i < op->attributes.count; i++)
    if (worth_showing(op->attributes.items[i].value)) return true;
  for (size_t i = 0; i < op->input_count; i++)
    if (op->inputs[i].count == 1 && worth_showing(op->inputs[i].bindings[0].value)) return true;
  return false;
}

static cml_status add_block(viewing *v, const cml_mil_function *f, const cml_mil_block *block, cml_node **weights, cml_node **dense_folder) {
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i];
    const cml_mil_value *value = cml_mil_const_value(op);
    bool compressed = !strncmp(op->type, "constexpr_", 10) && op->output_count;
    if (worth_showing(value) && op->output_count) {
      CML_TRY(folder_for(v, &v->weights, "weights", f, weights));
      CML_TRY(add_value(v, *weights, op->outputs[0].name, value));
    }
    if (compressed && has_parts(op)) {
      CML_TRY(folder_for(v, &v->weights, "weights", f, weights));
      CML_TRY(add_parts(v, *weights, op));
    }
    if (compressed && v->options.decompress) {
      CML_TRY(folder_for(v, &v->dense, "dense", f, dense_folder));
      CML_TRY(add_dense(v, *dense_folder, f, op));
    }
    for (size_t k = 0; k < op->block_count; k++) CML_TRY(add_block(v, f, op->blocks[k], weights, dense_folder));
  }
  return CML_OK;
}

/* ---- the model's files ---- */

/* Collects the mapped pieces of all files. A file that cannot be opened gives none, nor one that was mapped just now: no
 * weight can lie in it. */
static cml_status collect_files(viewing *v, const cml_node *node, size_t *capacity) {
  for (size_t i = 0; i < cml_node_count(node); i++) CML_TRY(collect_files(v, cml_node_child(node, i), capacity));
  cml_contents contents;
  if (cml_node_kind_of(node) != CML_NODE_FILE || cml_node_is_generated(node) || cml_node_open(node, &contents, NULL)) return CML_OK;
  for (size_t i = 0; i < contents.count && !contents.held; i++) {
    if (v->file_count == *capacity) {
      size_t next = *capacity ? *capacity * 2 : 8;
      cml_piece *files = realloc(v->files, next * sizeof *files);
      if (!files) break;
      v->files = files;
      *capacity = next;
    }
    v->files[v->file_count++] = contents.pieces[i];
  }
  cml_contents_close(&contents);
  return CML_OK;
}

/* ---- all ---- */

static cml_status add_program(viewing *v) {
  const cml_mil_program *program = v->model->program;
  size_t capacity = 0;
  CML_TRY(add_generated(v, v->folder, "model.mil", make_mil, v->model));
  CML_TRY(collect_files(v, v->model->root, &capacity));
  for (size_t i = 0; i < program->function_count; i++) {
    const cml_mil_function *f = program->functions[i];
    const cml_mil_block *body = cml_mil_body(f);
    cml_node *weights = NULL, *dense_folder = NULL;
    CML_TRY(add_graph(v, f, program->function_count == 1));
    if (body) CML_TRY(add_block(v, f, body, &weights, &dense_folder));
  }
  return CML_OK;
}

static cml_status add_model(viewing *v) {
  CML_TRY(add_generated(v, v->folder, "io.json", make_io, v->model));
  CML_TRY(add_generated(v, v->folder, "summary.txt", make_summary, v->model));
  CML_TRY(add_generated(v, v->folder, "summary.json", make_summary_json, v->model));
  return v->model->program ? add_program(v) : CML_OK;
}

static cml_status add_error(viewing *v, const cml_error *problem) {
  char *text = cml_arena_printf(cml_tree_arena(v->tree), "%s\n", problem->text);
  if (!text) return cml_fail_memory(v->err);
  return add_generated(v, v->folder, "error.txt", make_text, text);
}

static void release_model(void *model) { cml_model_close(model); }

cml_status cml_model_view_add(cml_tree *tree, cml_node *folder, cml_tree *source, const cml_node *root, const cml_model_view_options *options,
                              cml_error *err) {
  cml_error problem = {0};
  viewing v = {.tree = tree, .folder = folder, .err = err};
  const cml_node *weights = cml_node_lookup(folder, "weights", 7);
  if (weights && cml_node_kind_of(weights) == CML_NODE_FOLDER) memcpy(&v.weights, &weights, sizeof v.weights); /* this tree is being built */
  if (options) v.options = *options;
  cml_status status = cml_model_read(source, root, NULL, &v.model, &problem);
  if (status && status != CML_NO_MEMORY) { /* its weights may be missing or broken, the program whole */
    CML_TRY(add_error(&v, &problem));
    status = cml_model_read(source, root, &(cml_model_options){.skip_weights = true}, &v.model, &problem);
    if (status && status != CML_NO_MEMORY) return CML_OK;
  }
  if (status) return cml_fail_memory(err);
  CML_TRY(cml_tree_keep(tree, release_model, v.model, err));
  status = add_model(&v);
  free(v.files);
  return status;
}
