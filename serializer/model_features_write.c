/* A description that was edited, as bytes: the message that was read is unpacked once more, what the model now says differently
 * is changed in it, and it is packed again, so that fields which cml does not know stay where they were. Features, functions
 * and metadata are matched with what was read by name; one whose name is new takes the place of the one that stood there.
 *
 * A description that was not touched is written as the bytes that were read. */
#include "model_features.h"

#include <protobuf-c/protobuf-c.h>

#include "description.pb-c.h"

typedef struct writer {
  cml_arena arena; /* of the message */
  bool failed;
} writer;

static void *allocate(void *context, size_t size) {
  writer *w = context;
  void *p = cml_arena_alloc(&w->arena, size);
  w->failed |= !p;
  return p;
}
static void keep(void *context, void *p) { (void)context, (void)p; }

/* ---- comparing ---- */

static bool same_text(const char *a, const char *b) { return !strcmp(a ? a : "", b ? b : ""); }
static bool same_bytes(const void *a, const void *b, size_t size) { return !size || (a && b && !memcmp(a, b, size)); }

static bool same_shape(const cml_feature *a, const cml_feature *b) { return a->rank == b->rank && same_bytes(a->shape, b->shape, a->rank * sizeof *a->shape); }

static bool same_flexibility(const cml_feature *a, const cml_feature *b) {
  if (a->flexibility != b->flexibility || (a->flexibility && a->rank != b->rank)) return false;
  if (a->flexibility == CML_FLEX_RANGE) return same_bytes(a->ranges, b->ranges, a->rank * sizeof *a->ranges);
  if (a->flexibility == CML_FLEX_ENUMERATED)
    return a->shape_count == b->shape_count && same_bytes(a->shapes, b->shapes, a->shape_count * a->rank * sizeof *a->shapes);
  return true;
}

static bool same_default(const cml_feature *a, const cml_feature *b) {
  return a->has_default == b->has_default && (!a->has_default || !memcmp(&a->default_value, &b->default_value, sizeof a->default_value));
}

static bool same_feature(const cml_feature *a, const cml_feature *b) {
  return same_text(a->name, b->name) && same_text(a->doc, b->doc) && a->kind == b->kind && a->optional == b->optional && a->dtype == b->dtype &&
         same_shape(a, b) && same_flexibility(a, b) && same_default(a, b) && a->color == b->color && a->key_is_string == b->key_is_string;
}

static bool same_features(const cml_features *a, const cml_features *b) {
  bool same = a->count == b->count;
  for (size_t i = 0; same && i < a->count; i++) same = same_feature(&a->items[i], &b->items[i]);
  return same;
}

static bool same_function(const cml_function_description *a, const cml_function_description *b) {
  return same_text(a->name, b->name) && same_features(&a->inputs, &b->inputs) && same_features(&a->outputs, &b->outputs) &&
         same_features(&a->states, &b->states) && same_text(a->predicted_feature, b->predicted_feature) &&
         same_text(a->predicted_probabilities, b->predicted_probabilities);
}

static bool same_user_data(const cml_model *a, const cml_model *b) {
  bool same = a->metadata_count == b->metadata_count;
  for (size_t i = 0; same && i < a->metadata_count; i++)
    same = same_text(a->metadata[i].key, b->metadata[i].key) && same_text(a->metadata[i].value, b->metadata[i].value);
  return same;
}

static bool same_metadata(const cml_model *a, const cml_model *b) {
  return same_text(a->short_description, b->short_description) && same_text(a->version, b->version) && same_text(a->author, b->author) &&
         same_text(a->license, b->license) && same_user_data(a, b);
}

static bool same_description(const cml_model *a, const cml_model *b) {
  bool same = a->function_count == b->function_count;
  for (size_t i = 0; same && i < a->function_count; i++) same = same_function(&a->functions[i], &b->functions[i]);
  return same && same_features(&a->inputs, &b->inputs) && same_features(&a->outputs, &b->outputs) && same_features(&a->states, &b->states) &&
         same_text(a->predicted_feature, b->predicted_feature) && same_text(a->predicted_probabilities, b->predicted_probabilities) &&
         same_text(a->default_function, b->default_function) && same_metadata(a, b);
}

/* ---- changing the message ---- */

static void *made(writer *w, size_t size, const void *init) {
  void *p = allocate(w, size);
  return p ? memcpy(p, init, size) : NULL;
}
#define MADE(w, Type, INIT) ((Type *)made((w), sizeof(Type), &(const Type)INIT))

static void put_text(ProtobufCBinaryData *out, const char *now, const char *was) {
  if (same_text(now, was)) return;
  out->data = (uint8_t *)(uintptr_t)(now ? now : "");
  out->len = now ? strlen(now) : 0;
}

static Cml__Proto__SizeRange *make_range(writer *w, cml_range range) {
  Cml__Proto__SizeRange *r = MADE(w, Cml__Proto__SizeRange, CML__PROTO__SIZE_RANGE__INIT);
  if (r) r->lower = (uint64_t)range.lower, r->upper = range.upper;
  return r;
}

static int32_t array_number(cml_dtype dtype) {
  switch (dtype) {
  case CML_F16: return 0x10010;
  case CML_F32: return 0x10020;
  case CML_F64: return 0x10040;
  case CML_I32: return 0x20020;
  case CML_I8: return 0x20008;
  default: return 0;
  }
}

static void put_array_flexibility(writer *w, Cml__Proto__ArrayType *a, const cml_feature *f) {
  a->range = NULL;
  a->enumerated = NULL;
  if (f->flexibility == CML_FLEX_RANGE && (a->range = MADE(w, Cml__Proto__ShapeRange, CML__PROTO__SHAPE_RANGE__INIT))) {
    a->range->ranges = cml_arena_array(&w->arena, f->rank, sizeof *a->range->ranges);
    a->range->n_ranges = a->range->ranges ? f->rank : 0;
    w->failed |= !a->range->ranges;
    for (size_t i = 0; i < a->range->n_ranges; i++) a->range->ranges[i] = make_range(w, f->ranges[i]);
  }
  if (f->flexibility == CML_FLEX_ENUMERATED && (a->enumerated = MADE(w, Cml__Proto__Shapes, CML__PROTO__SHAPES__INIT))) {
    a->enumerated->shapes = cml_arena_array(&w->arena, f->shape_count, sizeof *a->enumerated->shapes);
    a->enumerated->n_shapes = a->enumerated->shapes ? f->shape_count : 0;
    w->failed |= !a->enumerated->shapes;
    for (size_t i = 0; i < a->enumerated->n_shapes; i++) {
      Cml__Proto__Shape *s = a->enumerated->shapes[i] = MADE(w, Cml__Proto__Shape, CML__PROTO__SHAPE__INIT);
      if (s) s->n_dims = f->rank, s->dims = f->shapes + i * f->rank;
    }
  }
}

static void put_default(Cml__Proto__ArrayType *a, const cml_feature *f) {
  a->default_case = CML__PROTO__ARRAY_TYPE__DEFAULT__NOT_SET;
  if (!f->has_default) return;
  if (f->dtype == CML_F64) {
    a->default_case = CML__PROTO__ARRAY_TYPE__DEFAULT_DOUBLE_DEFAULT;
    a->double_default = f->default_value;
  } else { /* coremltools writes a float for int32 and float16 too */
    a->default_case = CML__PROTO__ARRAY_TYPE__DEFAULT_FLOAT_DEFAULT;
    a->float_default = (float)f->default_value;
  }
}

static void put_array(writer *w, Cml__Proto__ArrayType *a, const cml_feature *f, const cml_feature *was) {
  if (f->dtype != was->dtype) a->element = array_number(f->dtype);
  if (!same_shape(f, was)) a->n_shape = f->rank, a->shape = f->shape;
  if (!same_flexibility(f, was)) put_array_flexibility(w, a, f);
  if (!same_default(f, was)) put_default(a, f);
}

static void put_image(writer *w, Cml__Proto__ImageType *m, const cml_feature *f, const cml_feature *was) {
  m->color = (int32_t)f->color;
  if (!same_shape(f, was) && f->rank == 2) m->height = f->shape[0], m->width = f->shape[1];
  if (same_flexibility(f, was)) return;
  m->range = NULL;
  m->enumerated = NULL;
  if (f->flexibility == CML_FLEX_RANGE && (m->range = MADE(w, Cml__Proto__ImageRange, CML__PROTO__IMAGE_RANGE__INIT)))
    m->range->height = make_range(w, f->ranges[0]), m->range->width = make_range(w, f->ranges[1]);
  if (f->flexibility == CML_FLEX_ENUMERATED && (m->enumerated = MADE(w, Cml__Proto__ImageSizes, CML__PROTO__IMAGE_SIZES__INIT))) {
    m->enumerated->sizes = cml_arena_array(&w->arena, f->shape_count, sizeof *m->enumerated->sizes);
    m->enumerated->n_sizes = m->enumerated->sizes ? f->shape_count : 0;
    w->failed |= !m->enumerated->sizes;
    for (size_t i = 0; i < m->enumerated->n_sizes; i++) {
      Cml__Proto__ImageSize *s = m->enumerated->sizes[i] = MADE(w, Cml__Proto__ImageSize, CML__PROTO__IMAGE_SIZE__INIT);
      if (s) s->height = (uint64_t)f->shapes[2 * i], s->width = (uint64_t)f->shapes[2 * i + 1];
    }
  }
}

static Cml__Proto__Empty *empty(writer *w, bool wanted) { return wanted ? MADE(w, Cml__Proto__Empty, CML__PROTO__EMPTY__INIT) : NULL; }

static void put_keys(writer *w, Cml__Proto__FeatureType *type, const cml_feature *f) {
  if (f->kind == CML_FEATURE_DICTIONARY)
    type->dictionary->string_key = empty(w, f->key_is_string), type->dictionary->int64_key = empty(w, !f->key_is_string);
  else type->sequence->string_items = empty(w, f->key_is_string), type->sequence->int64_items = empty(w, !f->key_is_string);
}

/* A type of another kind has nothing of the old one. */
static void make_kind(writer *w, Cml__Proto__FeatureType *type, cml_feature_kind kind) {
  switch (kind) {
  case CML_FEATURE_INT64: type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_INT64, type->int64 = empty(w, true); break;
  case CML_FEATURE_DOUBLE: type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_REAL, type->real = empty(w, true); break;
  case CML_FEATURE_STRING: type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_TEXT, type->text = empty(w, true); break;
  case CML_FEATURE_IMAGE:
    type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_IMAGE, type->image = MADE(w, Cml__Proto__ImageType, CML__PROTO__IMAGE_TYPE__INIT); break;
  case CML_FEATURE_ARRAY:
    type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_ARRAY, type->array = MADE(w, Cml__Proto__ArrayType, CML__PROTO__ARRAY_TYPE__INIT); break;
  case CML_FEATURE_DICTIONARY:
    type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_DICTIONARY;
    type->dictionary = MADE(w, Cml__Proto__DictionaryType, CML__PROTO__DICTIONARY_TYPE__INIT); break;
  case CML_FEATURE_SEQUENCE:
    type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_SEQUENCE;
    type->sequence = MADE(w, Cml__Proto__SequenceType, CML__PROTO__SEQUENCE_TYPE__INIT); break;
  case CML_FEATURE_STATE:
    type->kind_case = CML__PROTO__FEATURE_TYPE__KIND_STATE;
    if ((type->state = MADE(w, Cml__Proto__StateType, CML__PROTO__STATE_TYPE__INIT)))
      type->state->array = MADE(w, Cml__Proto__ArrayType, CML__PROTO__ARRAY_TYPE__INIT);
    break;
  default: type->kind_case = CML__PROTO__FEATURE_TYPE__KIND__NOT_SET;
  }
}

static void put_feature(writer *w, Cml__Proto__Feature *message, const cml_feature *f, const cml_feature *was) {
  static const cml_feature nothing = {.kind = CML_FEATURE_NONE};
  put_text(&message->name, f->name, was->name);
  put_text(&message->doc, f->doc, was->doc);
  if (!message->type) message->type = MADE(w, Cml__Proto__FeatureType, CML__PROTO__FEATURE_TYPE__INIT);
  if (w->failed) return;
  Cml__Proto__FeatureType *type = message->type;
  type->optional = f->optional;
  if (f->kind != was->kind) make_kind(w, type, f->kind), was = &nothing;
  if (w->failed) return;
  if (f->kind == CML_FEATURE_ARRAY) put_array(w, type->array, f, was);
  if (f->kind == CML_FEATURE_STATE) put_array(w, type->state->array, f, was);
  if (f->kind == CML_FEATURE_IMAGE) put_image(w, type->image, f, was);
  if ((f->kind == CML_FEATURE_DICTIONARY || f->kind == CML_FEATURE_SEQUENCE) && (was == &nothing || f->key_is_string != was->key_is_string)) put_keys(w, type, f);
}

/* ---- lists ---- */

/* Items begin with their name. */
static const char *name_at(const void *items, size_t size, size_t i) {
  const char *name;
  memcpy(&name, (const char *)items + i * size, sizeof name);
  return name;
}

static size_t find_name(const void *items, size_t count, size_t size, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (same_text(name_at(items, size, i), name)) return i;
  return count;
}

/* Which of `was` the item i of `now` comes from; was_count: from none. */
static size_t origin(const void *now, size_t now_count, const void *was, size_t was_count, size_t size, size_t i) {
  size_t j = find_name(was, was_count, size, name_at(now, size, i));
  if (j == was_count && i < was_count && find_name(now, now_count, size, name_at(was, size, i)) == now_count) j = i;
  return j;
}

static void put_features(writer *w, Cml__Proto__Feature ***list, size_t *count, const cml_features *now, const cml_features *was) {
  static const cml_feature nothing = {.kind = CML_FEATURE_NONE};
  if (same_features(now, was)) return;
  Cml__Proto__Feature **messages = cml_arena_array(&w->arena, now->count + 1, sizeof *messages);
  w->failed |= !messages;
  for (size_t i = 0; i < now->count && !w->failed; i++) {
    size_t j = origin(now->items, now->count, was->items, was->count, sizeof *now->items, i);
    messages[i] = j < was->count ? (*list)[j] : MADE(w, Cml__Proto__Feature, CML__PROTO__FEATURE__INIT);
    if (messages[i]) put_feature(w, messages[i], &now->items[i], j < was->count ? &was->items[j] : &nothing);
  }
  *list = messages;
  *count = now->count;
}

static void put_functions(writer *w, Cml__Proto__Description *d, const cml_model *now, const cml_model *was) {
  static const cml_function_description nothing;
  Cml__Proto__FunctionDescription **messages = cml_arena_array(&w->arena, now->function_count + 1, sizeof *messages);
  w->failed |= !messages;
  for (size_t i = 0; i < now->function_count && !w->failed; i++) {
    const cml_function_description *f = &now->functions[i];
    size_t j = origin(now->functions, now->function_count, was->functions, was->function_count, sizeof *f, i);
    const cml_function_description *old = j < was->function_count ? &was->functions[j] : &nothing;
    Cml__Proto__FunctionDescription *m = messages[i] =
        j < was->function_count ? d->functions[j] : MADE(w, Cml__Proto__FunctionDescription, CML__PROTO__FUNCTION_DESCRIPTION__INIT);
    if (!m) return;
    put_text(&m->name, f->name, old->name);
    put_features(w, &m->inputs, &m->n_inputs, &f->inputs, &old->inputs);
    put_features(w, &m->outputs, &m->n_outputs, &f->outputs, &old->outputs);
    put_features(w, &m->states, &m->n_states, &f->states, &old->states);
    put_text(&m->predicted_feature, f->predicted_feature, old->predicted_feature);
    put_text(&m->predicted_probabilities, f->predicted_probabilities, old->predicted_probabilities);
  }
  d->functions = messages;
  d->n_functions = now->function_count;
}

static void put_metadata(writer *w, Cml__Proto__Description *d, const cml_model *now, const cml_model *was) {
  if (same_metadata(now, was)) return;
  if (!d->metadata && !(d->metadata = MADE(w, Cml__Proto__Metadata, CML__PROTO__METADATA__INIT))) return;
  Cml__Proto__Metadata *m = d->metadata;
  put_text(&m->short_description, now->short_description, was->short_description);
  put_text(&m->version, now->version, was->version);
  put_text(&m->author, now->author, was->author);
  put_text(&m->license, now->license, was->license);
  if (same_user_data(now, was)) return;
  Cml__Proto__UserEntry **entries = cml_arena_array(&w->arena, now->metadata_count + 1, sizeof *entries);
  w->failed |= !entries;
  for (size_t i = 0; i < now->metadata_count && !w->failed; i++) {
    size_t j = find_name(was->metadata, was->metadata_count, sizeof *was->metadata, now->metadata[i].key);
    entries[i] = j < was->metadata_count ? m->user[j] : MADE(w, Cml__Proto__UserEntry, CML__PROTO__USER_ENTRY__INIT);
    if (!entries[i]) return;
    put_text(&entries[i]->key, now->metadata[i].key, j < was->metadata_count ? was->metadata[j].key : "");
    put_text(&entries[i]->value, now->metadata[i].value, j < was->metadata_count ? was->metadata[j].value : "");
  }
  m->user = entries;
  m->n_user = now->metadata_count;
}

static void put_description(writer *w, Cml__Proto__Description *d, const cml_model *now, const cml_model *was) {
  put_features(w, &d->inputs, &d->n_inputs, &now->inputs, &was->inputs);
  put_features(w, &d->outputs, &d->n_outputs, &now->outputs, &was->outputs);
  put_features(w, &d->states, &d->n_states, &now->states, &was->states);
  put_text(&d->predicted_feature, now->predicted_feature, was->predicted_feature);
  put_text(&d->predicted_probabilities, now->predicted_probabilities, was->predicted_probabilities);
  put_text(&d->default_function, now->default_function, was->default_function);
  put_functions(w, d, now, was);
  put_metadata(w, d, now, was);
}

static cml_status pack(const Cml__Proto__Description *d, cml_buffer *out, cml_error *err) {
  size_t size = cml__proto__description__get_packed_size(d);
  uint8_t *room = cml_buffer_extend(out, size);
  if (room) cml__proto__description__pack(d, room);
  return cml_buffer_check(out, err);
}

cml_status cml_model_write_description(const cml_model *model, cml_span old, cml_buffer *out, cml_error *err) {
  cml_model was = {.arena = CML_ARENA_INIT};
  writer w = {.arena = CML_ARENA_INIT};
  ProtobufCAllocator allocator = {allocate, keep, &w};
  cml_status status = cml_model_parse_description(old, old.data, &was, err);
  if (!status && same_description(model, &was)) {
    cml_buffer_append(out, old.data, old.size);
    status = cml_buffer_check(out, err);
  } else if (!status) {
    Cml__Proto__Description *d = cml__proto__description__unpack(&allocator, old.size, old.data ? old.data : (const uint8_t *)"");
    if (d) put_description(&w, d, model, &was);
    status = !d || w.failed ? cml_fail_memory(err) : pack(d, out, err);
  }
  cml_arena_free(&w.arena);
  cml_arena_free(&was.arena);
  return status;
}
