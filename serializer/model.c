/* The Model message: cut at the top level into the program, the description, and the rest, which stays bytes.
 *
 * A neural network of a hundred megabytes is thus never unpacked: its field is stepped over. */
#include "mil.h"

#include <stdlib.h>

#include "mil_fields.h"
#include "mil_check.h"
#include "model_features.h"
#include "wire.h"

enum { F_VERSION = 1, F_DESCRIPTION = 2, F_UPDATABLE = 10, F_PROGRAM = 502 };

/* The alternatives of Model.Type; other numbers are fields that we do not know. */
static bool is_type(uint32_t n) {
  return (n >= 200 && n <= 202) || (n >= 300 && n <= 304) || (n >= 400 && n <= 404) || (n >= 500 && n <= 502) || n == 555 ||
         n == 556 || n == 560 || (n >= 600 && n <= 610 && n != 605 && n != 608) || n == 900 || (n >= 2000 && n <= 2006) || n == 3000;
}

typedef struct model_parts {
  uint64_t version, updatable;
  uint32_t type_number;
  cml_span description, program, program_field;
} model_parts;

static cml_status twice(cml_error *err, uint64_t offset, const char *what) {
  return cml_fail(err, CML_INVALID, offset, "the model holds a second %s", what);
}

static cml_status find_parts(cml_span bytes, model_parts *parts, cml_error *err) {
  cml_wire_field f;
  cml_wire w = cml_wire_over(bytes);
  while (cml_wire_next(&w, &f)) {
    uint64_t offset = (uint64_t)(f.raw.data - bytes.data);
    bool varint = f.number == F_VERSION || f.number == F_UPDATABLE;
    bool message = f.number == F_DESCRIPTION || is_type(f.number);
    if ((varint && f.type != CML_WIRE_VARINT) || (message && f.type != CML_WIRE_BYTES))
      return cml_fail(err, CML_INVALID, offset, "not a Core ML model: field %u has wire type %d", f.number, f.type);
    if (f.number == F_VERSION) parts->version = f.value;
    if (f.number == F_UPDATABLE) parts->updatable = f.value;
    if (f.number == F_DESCRIPTION) {
      if (parts->description.data) return twice(err, offset, "description");
      parts->description = f.bytes;
    }
    if (!is_type(f.number)) continue;
    if (parts->type_number) return twice(err, offset, "network");
    parts->type_number = f.number;
    if (f.number == F_PROGRAM) parts->program = f.bytes, parts->program_field = f.raw;
  }
  if (w.problem) return cml_fail(err, CML_INVALID, (uint64_t)(w.at - bytes.data), "not a Core ML model: %s", w.problem);
  if (!parts->version || parts->version > INT32_MAX || !parts->type_number)
    return cml_fail(err, CML_INVALID, 0, "not a Core ML model: it names no %s", parts->type_number ? "specification version" : "type of model");
  return CML_OK;
}

/* Everything but the program: one piece of the file, or a copy when the program stands in the middle. */
static cml_status keep_rest(cml_model *model, cml_span bytes, cml_span program, cml_error *err) {
  size_t before = program.data ? (size_t)(program.data - bytes.data) : bytes.size, after = bytes.size - before - program.size;
  if (!after) {
    model->rest = (cml_span){bytes.data, before};
  } else if (!before) {
    model->rest = (cml_span){program.data + program.size, after};
  } else {
    uint8_t *copy = cml_arena_alloc(&model->arena, before + after);
    if (!copy) return cml_fail_memory(err);
    memcpy(copy, bytes.data, before);
    memcpy(copy + before, program.data + program.size, after);
    model->rest = (cml_span){copy, before + after};
  }
  return CML_OK;
}

cml_status cml_model_parse(cml_span bytes, const cml_model_options *options, cml_model *model, cml_error *err) {
  model_parts parts = {0};
  CML_TRY(find_parts(bytes, &parts, err));
  cml_model m = {.specification_version = (int32_t)parts.version, .type_number = parts.type_number, .updatable = parts.updatable != 0,
                 .tree = model->tree, .root = model->root};
  size_t parsed = parts.description.size + parts.program.size;
  m.arena.limit = options && options->max_memory ? (size_t)options->max_memory : parsed < SIZE_MAX / 64 ? parsed * 16 + (1 << 24) : SIZE_MAX;
  cml_status status = keep_rest(&m, bytes, parts.program_field, err);
  if (!status) status = cml_model_parse_description(parts.description, bytes.data, &m, err);
  if (!status && parts.type_number == F_PROGRAM) status = cml_mil_parse_proto(parts.program, bytes.data, &m.arena, &m.program, err);
  if (!status && m.program) status = cml_mil_check(m.program, err);
  if (status) {
    cml_arena_free(&m.arena);
    return status;
  }
  *model = m;
  return CML_OK;
}

/* Whether there is anything to describe in a model that was read without a description. */
static bool says_something(const cml_model *m) {
  const char *const texts[] = {m->predicted_feature, m->predicted_probabilities, m->short_description, m->version, m->author, m->license, m->default_function};
  bool any = m->inputs.count || m->outputs.count || m->states.count || m->metadata_count || m->function_count;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) any = any || (texts[i] && *texts[i]);
  return any;
}

static cml_status put_description(const cml_model *model, cml_span old, cml_buffer *out, cml_error *err) {
  size_t mark = cml_wire_begin(out, F_DESCRIPTION);
  CML_TRY(cml_model_write_description(model, old, out, err));
  cml_wire_end(out, mark);
  return CML_OK;
}

static cml_status put_program(const cml_model *model, const cml_mil_moves *moves, cml_buffer *out, cml_error *err) {
  size_t mark = cml_wire_begin(out, F_PROGRAM);
  CML_TRY(cml_mil_write_proto(model->program, moves, out, err));
  cml_wire_end(out, mark);
  return CML_OK;
}

/* The rest's fields in their order; those that the model now says otherwise are written anew. */
cml_status cml_model_serialize_moved(const cml_model *model, const cml_mil_moves *moves, cml_buffer *out, cml_error *err) {
  if (model->type_number != F_PROGRAM && !model->rest.size)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "only an ML Program can be written");
  cml_wire_field f;
  cml_wire w = cml_wire_over(model->rest);
  bool versioned = false, described = false, written = !model->program;
  while (cml_wire_next(&w, &f)) {
    if (!written && f.number > F_PROGRAM) {
      CML_TRY(put_program(model, moves, out, err));
      written = true;
    }
    versioned |= f.number == F_VERSION;
    described |= f.number == F_DESCRIPTION;
    if (f.number == F_DESCRIPTION) CML_TRY(put_description(model, f.bytes, out, err));
    else if (f.number == F_VERSION && f.value != (uint64_t)model->specification_version) cml_wire_put_uint(out, F_VERSION, (uint64_t)model->specification_version);
    else if (f.number == F_UPDATABLE && (f.value != 0) != model->updatable) cml_wire_put_uint(out, F_UPDATABLE, model->updatable);
    else cml_buffer_append(out, f.raw.data, f.raw.size);
  }
  if (!versioned && model->specification_version > 0) cml_wire_put_uint(out, F_VERSION, (uint64_t)model->specification_version);
  if (!described && says_something(model)) CML_TRY(put_description(model, (cml_span){NULL, 0}, out, err));
  if (!written) CML_TRY(put_program(model, moves, out, err));
  return cml_buffer_check(out, err);
}

cml_status cml_model_serialize(const cml_model *model, cml_buffer *out, cml_error *err) {
  return cml_model_serialize_moved(model, NULL, out, err);
}
