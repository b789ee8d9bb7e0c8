/* Features and metadata of a model, unpacked by protobuf-c into a scratch arena and then made into plain structures.
 *
 * The description's messages do not contain themselves, so protobuf-c's recursion is as deep as description.proto, and the
 * scratch arena's limit bounds what a hostile count can take. */
#include "model_features.h"

#include <protobuf-c/protobuf-c.h>

#include "description.pb-c.h"
#include "wire.h"

typedef struct description_reader {
  cml_model *model;
  uint64_t offset; /* of the description: protobuf-c does not say where its parts lay */
  cml_error *err;
} description_reader;

typedef struct scratch {
  cml_arena arena;
  bool failed; /* protobuf-c does not tell a lack of memory from malformed data */
} scratch;

static void *scratch_alloc(void *context, size_t size) {
  scratch *s = context;
  void *p = cml_arena_alloc(&s->arena, size);
  s->failed |= !p;
  return p;
}
static void scratch_free(void *context, void *p) { (void)context, (void)p; }

static cml_status out_of_memory(const cml_arena *arena, cml_error *err) {
  if (!arena->limited) return cml_fail_memory(err);
  return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the description needs more than the limit of %zu bytes of memory", arena->limit);
}

static cml_status read_text(description_reader *r, ProtobufCBinaryData text, const char **out) {
  if (!cml_wire_is_text(cml_span_of(text.data, text.len)))
    return cml_fail(r->err, CML_INVALID, r->offset, "the description holds a text that is not UTF-8, or holds a NUL");
  *out = cml_arena_text(&r->model->arena, (const char *)text.data, text.len);
  return *out ? CML_OK : out_of_memory(&r->model->arena, r->err);
}

static cml_dtype array_dtype(int32_t number) { /* ArrayFeatureType.ArrayDataType: kind << 16 | bits */
  switch (number) {
  case 0x10010: return CML_F16;
  case 0x10020: return CML_F32;
  case 0x10040: return CML_F64;
  case 0x20020: return CML_I32;
  case 0x20008: return CML_I8;
  default: return CML_DTYPE_NONE;
  }
}

static cml_status bad_feature(description_reader *r, const cml_feature *f, const char *what) {
  return cml_fail(r->err, CML_INVALID, r->offset, "feature %s: %s", f->name, what);
}

static cml_status make_range(description_reader *r, const cml_feature *f, const Cml__Proto__SizeRange *range, cml_range *out) {
  *out = range ? (cml_range){(int64_t)range->lower, range->upper} : (cml_range){0, 0};
  if (out->lower < 0 || out->upper < -1 || (out->upper >= 0 && out->upper < out->lower))
    return bad_feature(r, f, "a range whose bounds are not in order");
  return CML_OK;
}

static cml_status array_ranges(description_reader *r, const Cml__Proto__ArrayType *a, cml_feature *f) {
  size_t n = a->range->n_ranges;
  if (f->rank && f->rank != n) return bad_feature(r, f, "as many ranges as dimensions are expected");
  f->flexibility = CML_FLEX_RANGE;
  f->ranges = CML_ARENA_NEW_ARRAY(&r->model->arena, cml_range, n);
  if (!f->ranges) return out_of_memory(&r->model->arena, r->err);
  for (size_t i = 0; i < n; i++) CML_TRY(make_range(r, f, a->range->ranges[i], &f->ranges[i]));
  if (f->rank || !n) return CML_OK;
  f->shape = CML_ARENA_NEW_ARRAY(&r->model->arena, int64_t, n); /* no default shape: the smallest */
  if (!f->shape) return out_of_memory(&r->model->arena, r->err);
  for (size_t i = 0; i < n; i++) f->shape[i] = f->ranges[i].lower;
  f->rank = n;
  return CML_OK;
}

static cml_status array_shapes(description_reader *r, const Cml__Proto__ArrayType *a, cml_feature *f) {
  size_t n = a->enumerated->n_shapes;
  Cml__Proto__Shape *const *shapes = a->enumerated->shapes;
  if (!n) return CML_OK;
  if (!f->rank && shapes[0]->n_dims) { /* no default shape: the first */
    f->rank = shapes[0]->n_dims;
    f->shape = CML_ARENA_NEW_ARRAY(&r->model->arena, int64_t, f->rank);
    if (!f->shape) return out_of_memory(&r->model->arena, r->err);
    memcpy(f->shape, shapes[0]->dims, f->rank * sizeof(int64_t));
  }
  for (size_t i = 0; i < n; i++) {
    if (shapes[i]->n_dims != f->rank) return bad_feature(r, f, "enumerated shapes of different rank");
    for (size_t k = 0; k < f->rank; k++)
      if (shapes[i]->dims[k] < 0) return bad_feature(r, f, "a negative dimension");
  }
  uint64_t count;
  f->flexibility = CML_FLEX_ENUMERATED;
  f->shape_count = n;
  f->shapes = cml_mul(n, f->rank, &count) ? CML_ARENA_NEW_ARRAY(&r->model->arena, int64_t, count) : NULL;
  if (!f->shapes) return out_of_memory(&r->model->arena, r->err);
  for (size_t i = 0; i < n && f->rank; i++) memcpy(f->shapes + i * f->rank, shapes[i]->dims, f->rank * sizeof(int64_t));
  return CML_OK;
}

static cml_status read_array(description_reader *r, const Cml__Proto__ArrayType *a, cml_feature *f) {
  f->dtype = array_dtype(a->element);
  if (!f->dtype && a->element) return bad_feature(r, f, "an array of an unknown element type");
  f->rank = a->n_shape;
  f->shape = CML_ARENA_NEW_ARRAY(&r->model->arena, int64_t, a->n_shape);
  if (!f->shape) return out_of_memory(&r->model->arena, r->err);
  for (size_t i = 0; i < a->n_shape; i++)
    if ((f->shape[i] = a->shape[i]) < 0 && a->shape[i] != -1) return bad_feature(r, f, "a negative dimension");
  if (a->range) CML_TRY(array_ranges(r, a, f));
  else if (a->enumerated) CML_TRY(array_shapes(r, a, f));
  f->has_default = a->default_case != CML__PROTO__ARRAY_TYPE__DEFAULT__NOT_SET;
  if (a->default_case == CML__PROTO__ARRAY_TYPE__DEFAULT_INT_DEFAULT) f->default_value = a->int_default;
  else if (a->default_case == CML__PROTO__ARRAY_TYPE__DEFAULT_FLOAT_DEFAULT) f->default_value = (double)a->float_default;
  else if (f->has_default) f->default_value = a->double_default;
  return CML_OK;
}

static cml_status read_image(description_reader *r, const Cml__Proto__ImageType *image, cml_feature *f) {
  cml_arena *arena = &r->model->arena;
  f->color = (cml_color)image->color;
  if (image->color != 0 && image->color != 10 && image->color != 20 && image->color != 30 && image->color != 40)
    return bad_feature(r, f, "an image of an unknown colour layout");
  if (image->width < 0 || image->height < 0) return bad_feature(r, f, "a negative image size");
  f->rank = 2;
  f->shape = CML_ARENA_NEW_ARRAY(arena, int64_t, 2);
  if (!f->shape) return out_of_memory(&r->model->arena, r->err);
  f->shape[0] = image->height, f->shape[1] = image->width;
  if (image->range) {
    f->flexibility = CML_FLEX_RANGE;
    f->ranges = CML_ARENA_NEW_ARRAY(arena, cml_range, 2);
    if (!f->ranges) return out_of_memory(&r->model->arena, r->err);
    CML_TRY(make_range(r, f, image->range->height, &f->ranges[0]));
    CML_TRY(make_range(r, f, image->range->width, &f->ranges[1]));
  } else if (image->enumerated && image->enumerated->n_sizes) {
    f->flexibility = CML_FLEX_ENUMERATED;
    f->shape_count = image->enumerated->n_sizes;
    f->shapes = cml_arena_array(arena, f->shape_count, 2 * sizeof(int64_t));
    if (!f->shapes) return out_of_memory(&r->model->arena, r->err);
    for (size_t i = 0; i < f->shape_count; i++) {
      const Cml__Proto__ImageSize *size = image->enumerated->sizes[i];
      if (size->height > INT64_MAX || size->width > INT64_MAX) return bad_feature(r, f, "an image size out of range");
      f->shapes[2 * i] = (int64_t)size->height, f->shapes[2 * i + 1] = (int64_t)size->width;
    }
  }
  return CML_OK;
}

static cml_status read_feature(description_reader *r, const Cml__Proto__Feature *in, cml_feature *f) {
  CML_TRY(read_text(r, in->name, &f->name));
  CML_TRY(read_text(r, in->doc, &f->doc));
  const Cml__Proto__FeatureType *type = in->type;
  f->kind = CML_FEATURE_NONE;
  if (!type) return CML_OK;
  f->optional = type->optional;
  switch (type->kind_case) {
  case CML__PROTO__FEATURE_TYPE__KIND_INT64: f->kind = CML_FEATURE_INT64; break;
  case CML__PROTO__FEATURE_TYPE__KIND_REAL: f->kind = CML_FEATURE_DOUBLE; break;
  case CML__PROTO__FEATURE_TYPE__KIND_TEXT: f->kind = CML_FEATURE_STRING; break;
  case CML__PROTO__FEATURE_TYPE__KIND_SEQUENCE:
    f->kind = CML_FEATURE_SEQUENCE;
    f->key_is_string = type->sequence->string_items != NULL;
    break;
  case CML__PROTO__FEATURE_TYPE__KIND_DICTIONARY:
    f->kind = CML_FEATURE_DICTIONARY;
    f->key_is_string = type->dictionary->string_key != NULL;
    break;
  case CML__PROTO__FEATURE_TYPE__KIND_IMAGE: f->kind = CML_FEATURE_IMAGE; return read_image(r, type->image, f);
  case CML__PROTO__FEATURE_TYPE__KIND_ARRAY: f->kind = CML_FEATURE_ARRAY; return read_array(r, type->array, f);
  case CML__PROTO__FEATURE_TYPE__KIND_STATE:
    f->kind = CML_FEATURE_STATE;
    return type->state->array ? read_array(r, type->state->array, f) : bad_feature(r, f, "a state of an unknown type");
  default: break;
  }
  return CML_OK;
}

static cml_status read_features(description_reader *r, Cml__Proto__Feature *const *in, size_t count, cml_features *out) {
  out->items = CML_ARENA_NEW_ARRAY(&r->model->arena, cml_feature, count);
  if (!out->items) return out_of_memory(&r->model->arena, r->err);
  for (size_t i = 0; i < count; i++) CML_TRY(read_feature(r, in[i], &out->items[i]));
  out->count = count;
  return CML_OK;
}

static cml_status read_functions(description_reader *r, const Cml__Proto__Description *in) {
  cml_model *m = r->model;
  m->functions = CML_ARENA_NEW_ARRAY(&m->arena, cml_function_description, in->n_functions);
  if (!m->functions) return out_of_memory(&r->model->arena, r->err);
  for (size_t i = 0; i < in->n_functions; i++) {
    const Cml__Proto__FunctionDescription *f = in->functions[i];
    cml_function_description *out = &m->functions[i];
    CML_TRY(read_text(r, f->name, &out->name));
    CML_TRY(read_features(r, f->inputs, f->n_inputs, &out->inputs));
    CML_TRY(read_features(r, f->outputs, f->n_outputs, &out->outputs));
    CML_TRY(read_features(r, f->states, f->n_states, &out->states));
    CML_TRY(read_text(r, f->predicted_feature, &out->predicted_feature));
    CML_TRY(read_text(r, f->predicted_probabilities, &out->predicted_probabilities));
  }
  m->function_count = in->n_functions;
  return CML_OK;
}

static cml_status read_metadata(description_reader *r, const Cml__Proto__Metadata *in) {
  cml_model *m = r->model;
  CML_TRY(read_text(r, in->short_description, &m->short_description));
  CML_TRY(read_text(r, in->version, &m->version));
  CML_TRY(read_text(r, in->author, &m->author));
  CML_TRY(read_text(r, in->license, &m->license));
  m->metadata = CML_ARENA_NEW_ARRAY(&m->arena, cml_metadata_item, in->n_user);
  if (!m->metadata) return out_of_memory(&r->model->arena, r->err);
  for (size_t i = 0; i < in->n_user; i++) {
    CML_TRY(read_text(r, in->user[i]->key, &m->metadata[i].key));
    CML_TRY(read_text(r, in->user[i]->value, &m->metadata[i].value));
  }
  m->metadata_count = in->n_user;
  return CML_OK;
}

static cml_status read_description(description_reader *r, const Cml__Proto__Description *in) {
  static const Cml__Proto__Metadata no_metadata = CML__PROTO__METADATA__INIT;
  cml_model *m = r->model;
  CML_TRY(read_features(r, in->inputs, in->n_inputs, &m->inputs));
  CML_TRY(read_features(r, in->outputs, in->n_outputs, &m->outputs));
  CML_TRY(read_features(r, in->states, in->n_states, &m->states));
  CML_TRY(read_text(r, in->predicted_feature, &m->predicted_feature));
  CML_TRY(read_text(r, in->predicted_probabilities, &m->predicted_probabilities));
  CML_TRY(read_text(r, in->default_function, &m->default_function));
  CML_TRY(read_functions(r, in));
  return read_metadata(r, in->metadata ? in->metadata : &no_metadata);
}

cml_status cml_model_parse_description(cml_span bytes, const uint8_t *origin, cml_model *model, cml_error *err) {
  scratch memory = {.arena = {.limit = bytes.size < SIZE_MAX / 64 ? bytes.size * 16 + (1 << 24) : SIZE_MAX}};
  description_reader r = {model, bytes.data ? (uint64_t)(bytes.data - origin) : 0, err};
  ProtobufCAllocator allocator = {scratch_alloc, scratch_free, &memory};
  Cml__Proto__Description *description = cml__proto__description__unpack(&allocator, bytes.size, bytes.data ? bytes.data : (const uint8_t *)"");
  cml_status status = description     ? read_description(&r, description)
                      : memory.failed ? out_of_memory(&memory.arena, err)
                                      : cml_fail(err, CML_INVALID, r.offset, "the model's description is malformed");
  cml_arena_free(&memory.arena);
  return status;
}
