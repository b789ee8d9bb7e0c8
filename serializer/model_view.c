/* The files of a model's view. The model is read once for the names of its constants and then let go: what a view takes
 * at rest is its nodes, however large the program. Texts are generated when they are read, from the model read again. A
 * weight of whole bytes is two pieces, a header that the tree owns and the data where it is mapped; sub-byte ones, for
 * which NumPy has no type, are unpacked to int8 or uint8 on reading. */
#include "model_view.h"

#include <stdio.h>
#include <stdlib.h>

#include "mil_graph.h"
#include "mil_names.h"
#include "model_io.h"
#include "npy.h"
#include "summary.h"

enum { SMALL_CONSTANT = 16 }; /* inline constants of fewer elements stay in model.mil alone */

/* What generators need; in the view's arena. */
typedef struct viewed {
  cml_tree *source; /* referenced by the view */
  const cml_node *root;
  cml_model_decompress *decompress;
} viewed;

typedef struct viewing {
  cml_tree *tree;
  cml_node *folder;
  cml_model *model;
  viewed *source;
  cml_piece *files; /* of the model's files, to find where a weight is mapped */
  size_t file_count;
  cml_node *weights, *dense;
  cml_error *err;
} viewing;

/* ---- generated texts ---- */

/* One thing in the model: a function, an operation, an attribute or argument of it; NULL for none. */
typedef struct part {
  const viewed *source;
  const char *function, *op, *name;
} part;

typedef cml_status make(const part *p, const cml_model *model, cml_buffer *out, cml_error *err);

static cml_status make_from(make *how, const part *p, bool weights, cml_buffer *out, cml_error *err) {
  cml_model *model = NULL;
  cml_model_options options = {.skip_weights = !weights};
  CML_TRY(cml_model_read(p->source->source, p->source->root, &options, &model, err));
  cml_status status = how(p, model, out, err);
  cml_model_close(model);
  return status;
}

static cml_status put_mil(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  (void)p;
  return cml_mil_print_text(model->program, CML_MIL_1_3, out, err);
}

static cml_status put_summary(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  (void)p;
  return cml_summary_text(model, out, err);
}

static cml_status put_summary_json(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  (void)p;
  return cml_summary_json(model, out, err);
}

static cml_status put_io(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  (void)p;
  return cml_model_io_json(model, out, err);
}

static cml_status put_dot(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  return cml_graph_dot(cml_mil_find_function(model->program, p->function), out, err);
}

static cml_status put_svg(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  return cml_graph_svg(cml_mil_find_function(model->program, p->function), out, err);
}

#define GENERATOR(name, put, weights)                                                                     \
  static cml_status name(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {          \
    (void)node;                                                                                           \
    return make_from(put, context, weights, out, err);                                                    \
  }
GENERATOR(make_mil, put_mil, false)
GENERATOR(make_summary, put_summary, false)
GENERATOR(make_summary_json, put_summary_json, false)
GENERATOR(make_io, put_io, false)
GENERATOR(make_dot, put_dot, false)
GENERATOR(make_svg, put_svg, false)

static cml_status make_text(void *context, const cml_node *node, cml_buffer *out, cml_error *err) {
  (void)node;
  cml_buffer_text(out, context);
  return cml_buffer_check(out, err);
}

static cml_status add_generated(viewing *v, cml_node *folder, const char *name, cml_node_generate *generate, void *context) {
  const char *free_name;
  CML_TRY(cml_tree_escape_name(v->tree, folder, name, strlen(name), &free_name, v->err));
  return cml_tree_add_generated(v->tree, folder, free_name, strlen(free_name), generate, context, NULL, v->err);
}

static const char *kept_text(viewing *v, const char *text) { return text ? cml_arena_text(cml_tree_arena(v->tree), text, strlen(text)) : NULL; }

static part *part_of(viewing *v, const char *function, const char *op, const char *name) {
  part *p = CML_ARENA_NEW(cml_tree_arena(v->tree), part);
  if (!p) return NULL;
  *p = (part){v->source, kept_text(v, function), kept_text(v, op), kept_text(v, name)};
  return (function && !p->function) || (op && !p->op) || (name && !p->name) ? NULL : p;
}

static cml_status add_part(viewing *v, cml_node *folder, const char *file, cml_node_generate *generate, const char *function, const char *op,
                           const char *name) {
  part *p = part_of(v, function, op, name);
  return p ? add_generated(v, folder, file, generate, p) : cml_fail_memory(v->err);
}

static cml_status add_graph(viewing *v, const cml_mil_function *f, bool only) {
  char name[300];
  bool svg = cml_graph_is_small(f);
  snprintf(name, sizeof name, "graph%s%.200s.%s", only ? "" : "_", only ? "" : f->name, svg ? "svg" : "dot");
  return add_part(v, v->folder, name, svg ? make_svg : make_dot, f->name, NULL, NULL);
}

/* ---- weights ---- */

static bool is_subbyte(cml_dtype dtype) { return cml_dtype_bits(dtype) < 8; }

static bool worth_showing(const cml_mil_value *value) {
  if (!value || !value->type || value->type->kind != CML_TYPE_TENSOR) return false;
  if (value->type->dtype == CML_STRING || value->type->dtype == CML_DTYPE_NONE || value->type->rank < 0) return false;
  uint64_t bytes;
  if (!cml_dtype_bytes(value->type->dtype, value->count, &bytes) || bytes > value->data.size) return false;
  if (value->kind == CML_VALUE_BLOB) return value->data.data != NULL;
  return value->kind == CML_VALUE_TENSOR && value->count >= SMALL_CONSTANT;
}

/* The header of a value's .npy: of its type's shape, or of as many elements as there are where the type does not tell
 * (packed indices, an unknown dimension). */
static cml_status put_header(const cml_mil_value *value, cml_buffer *out, cml_error *err) {
  const cml_mil_type *type = value->type;
  uint64_t elements;
  int64_t count = (int64_t)value->count;
  bool whole = cml_mil_type_elements(type, &elements) && elements == value->count;
  cml_dtype dtype = !is_subbyte(type->dtype) ? type->dtype : cml_dtype_is_signed(type->dtype) ? CML_I8 : CML_U8;
  return cml_npy_header(dtype, whole ? (size_t)type->rank : 1, whole ? type->dims : &count, out, err);
}

static void put_unpacked(const cml_mil_value *value, cml_buffer *out) {
  unsigned bits = cml_dtype_bits(value->type->dtype);
  bool is_signed = cml_dtype_is_signed(value->type->dtype);
  const uint8_t *data = value->data.data;
  uint8_t *to = cml_buffer_extend(out, value->count);
  for (size_t i = 0; to && i < value->count; i++) {
    size_t at = i * bits;
    unsigned n = data[at >> 3] >> (at & 7);
    if ((at & 7) + bits > 8) n |= (unsigned)data[(at >> 3) + 1] << (8 - (at & 7));
    n &= (1u << bits) - 1;
    to[i] = is_signed && n >> (bits - 1) ? (uint8_t)(n | ~((1u << bits) - 1)) : (uint8_t)n;
  }
}

static const cml_mil_op *find_op(const cml_mil_block *block, const char *output) {
  for (size_t i = 0; i < block->op_count; i++) {
    const cml_mil_op *op = block->ops[i], *nested = NULL;
    if (op->output_count && !strcmp(op->outputs[0].name, output)) return op;
    for (size_t k = 0; k < op->block_count && !nested; k++) nested = find_op(op->blocks[k], output);
    if (nested) return nested;
  }
  return NULL;
}

static const cml_mil_value *find_value(const part *p, const cml_mil_op *op) {
  if (!p->name) return cml_mil_const_value(op);
  const cml_mil_value *value = cml_mil_attribute_find(&op->attributes, p->name);
  const cml_mil_argument *argument = value ? NULL : cml_mil_input(op, p->name);
  return argument && argument->count ? argument->bindings[0].value : value;
}

static cml_status gone(const part *p, cml_error *err) { /* only when the file was exchanged under us */
  return cml_fail(err, CML_NOT_FOUND, CML_NO_OFFSET, "the model no longer holds %s", p->op);
}

static cml_status put_value(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  const cml_mil_function *f = cml_mil_find_function(model->program, p->function);
  const cml_mil_op *op = f && cml_mil_body(f) ? find_op(cml_mil_body(f), p->op) : NULL;
  const cml_mil_value *value = op ? find_value(p, op) : NULL;
  if (!worth_showing(value)) return gone(p, err);
  CML_TRY(put_header(value, out, err));
  if (is_subbyte(value->type->dtype)) put_unpacked(value, out);
  else cml_buffer_append(out, value->data.data, value->data.size);
  return cml_buffer_check(out, err);
}
GENERATOR(make_value, put_value, true)

/* Where in the model's files `data` lies; a piece without a mapping when the source tree holds it in memory. */
static cml_piece piece_of(const viewing *v, cml_span data) {
  for (size_t i = 0; i < v->file_count; i++) {
    const cml_piece *p = &v->files[i];
    uintptr_t start = (uintptr_t)p->data, at = (uintptr_t)data.data;
    if (p->mapping && at >= start && at - start <= p->size && data.size <= p->size - (at - start))
      return (cml_piece){data.data, data.size, p->mapping, p->offset + (at - start)};
  }
  return (cml_piece){data.data, data.size, NULL, 0};
}

static cml_status add_pieces(viewing *v, cml_node *folder, const char *file, const cml_mil_value *value) {
  cml_buffer header = CML_BUFFER_INIT;
  cml_status status = put_header(value, &header, v->err);
  char *kept = status ? NULL : cml_arena_text(cml_tree_arena(v->tree), (const char *)header.data, header.size);
  if (!status && !kept) status = cml_fail_memory(v->err);
  if (!status) {
    cml_piece pieces[2] = {{(const uint8_t *)kept, header.size, NULL, 0}, piece_of(v, value->data)};
    status = cml_tree_add_file(v->tree, folder, file, strlen(file), pieces, value->data.size ? 2 : 1, NULL, v->err);
  }
  cml_buffer_free(&header);
  return status;
}

/* `name`: of the part of a compressed constant, or NULL. */
static cml_status add_value(viewing *v, cml_node *folder, const char *function, const char *op, const char *name, const cml_mil_value *value) {
  const char *file;
  char wanted[600];
  if (!worth_showing(value)) return CML_OK;
  snprintf(wanted, sizeof wanted, "%.300s%s%.200s.npy", op, name ? "." : "", name ? name : "");
  CML_TRY(cml_tree_escape_name(v->tree, folder, wanted, strlen(wanted), &file, v->err));
  if (value->kind == CML_VALUE_BLOB && !is_subbyte(value->type->dtype)) return add_pieces(v, folder, file, value);
  return add_part(v, folder, file, make_value, function, op, name);
}

static cml_status add_parts(viewing *v, cml_node *folder, const char *function, const cml_mil_op *op) {
  const char *output = op->outputs[0].name;
  for (size_t i = 0; i < op->attributes.count; i++)
    CML_TRY(add_value(v, folder, function, output, op->attributes.items[i].name, op->attributes.items[i].value));
  for (size_t i = 0; i < op->input_count; i++)
    if (op->inputs[i].count == 1) CML_TRY(add_value(v, folder, function, output, op->inputs[i].parameter, op->inputs[i].bindings[0].value));
  return CML_OK;
}

/* ---- dense ---- */

static cml_status put_dense(const part *p, const cml_model *model, cml_buffer *out, cml_error *err) {
  const cml_mil_function *f = cml_mil_find_function(model->program, p->function);
  const cml_mil_op *op = f && cml_mil_body(f) ? find_op(cml_mil_body(f), p->op) : NULL;
  if (!op || !op->outputs[0].type || op->outputs[0].type->rank < 0) return gone(p, err);
  const cml_mil_type *type = op->outputs[0].type;
  CML_TRY(cml_npy_header(type->dtype, (size_t)type->rank, type->dims, out, err));
  return p->source->decompress(op, f, out, err);
}
GENERATOR(make_dense, put_dense, true)

static cml_status add_dense(viewing *v, cml_node *folder, const char *function, const cml_mil_op *op) {
  const cml_mil_type *type = op->outputs[0].type;
  uint64_t elements;
  char name[400];
  if (!type || !cml_mil_type_elements(type, &elements) || is_subbyte(type->dtype) || type->dtype == CML_STRING) return CML_OK;
  snprintf(name, sizeof name, "%.300s.npy", op->outputs[0].name);
  return add_part(v, folder, name, make_dense, function, op->outputs[0].name, NULL);
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
      CML_TRY(add_value(v, *weights, f->name, op->outputs[0].name, NULL, value));
    }
    if (compressed && has_parts(op)) {
      CML_TRY(folder_for(v, &v->weights, "weights", f, weights));
      CML_TRY(add_parts(v, *weights, f->name, op));
    }
    if (compressed && v->source->decompress) {
      CML_TRY(folder_for(v, &v->dense, "dense", f, dense_folder));
      CML_TRY(add_dense(v, *dense_folder, f->name, op));
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
  CML_TRY(add_part(v, v->folder, "model.mil", make_mil, NULL, NULL, NULL));
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
  CML_TRY(add_part(v, v->folder, "io.json", make_io, NULL, NULL, NULL));
  CML_TRY(add_part(v, v->folder, "summary.txt", make_summary, NULL, NULL, NULL));
  CML_TRY(add_part(v, v->folder, "summary.json", make_summary_json, NULL, NULL, NULL));
  return v->model->program ? add_program(v) : CML_OK;
}

static cml_status add_error(viewing *v, const cml_error *problem) {
  char *text = cml_arena_printf(cml_tree_arena(v->tree), "%s\n", problem->text);
  return text ? add_generated(v, v->folder, "error.txt", make_text, text) : cml_fail_memory(v->err);
}

static void release_tree(void *tree) { cml_tree_unref(tree); }

static cml_status hold_source(viewing *v, cml_tree *source, const cml_node *root, const cml_model_view_options *options) {
  v->source = CML_ARENA_NEW(cml_tree_arena(v->tree), viewed);
  if (!v->source) return cml_fail_memory(v->err);
  *v->source = (viewed){source, root, options ? options->decompress : NULL};
  return cml_tree_keep(v->tree, release_tree, cml_tree_ref(source), v->err);
}

cml_status cml_model_view_add(cml_tree *tree, cml_node *folder, cml_tree *source, const cml_node *root, const cml_model_view_options *options,
                              cml_error *err) {
  cml_error problem = {0};
  viewing v = {.tree = tree, .folder = folder, .err = err};
  const cml_node *weights = cml_node_lookup(folder, "weights", 7);
  if (weights && cml_node_kind_of(weights) == CML_NODE_FOLDER) memcpy(&v.weights, &weights, sizeof v.weights); /* this tree is being built */
  CML_TRY(hold_source(&v, source, root, options));
  cml_status status = cml_model_read(source, root, NULL, &v.model, &problem);
  if (status && status != CML_NO_MEMORY) { /* its weights may be missing or broken, the program whole */
    CML_TRY(add_error(&v, &problem));
    status = cml_model_read(source, root, &(cml_model_options){.skip_weights = true}, &v.model, &problem);
    if (status && status != CML_NO_MEMORY) return CML_OK;
  }
  if (status) return cml_fail_memory(err);
  status = add_model(&v);
  free(v.files);
  cml_model_close(v.model);
  return status;
}
