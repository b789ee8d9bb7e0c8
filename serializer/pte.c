/* The program level of a .pte: the extended header, segments, tables of data, and look-ups.
 *
 * Order matters: what tensors and delegates refer to (segments, inline data, constants) is parsed before the methods. */
#include "pte.h"

#include <inttypes.h>
#include <stdlib.h>

#include "checked.h"
#include "pte_internal.h"
#include "pte_schema.h"

/* ---- names ---- */

static const struct {
  const char *name;
  unsigned bytes;
  cml_dtype dtype;
} scalars[CML_PTE_SCALAR_COUNT] = {
#define SCALAR_ROW(name, number, text, bytes, dtype) [number] = {text, bytes, dtype},
    CML_PTE_SCALAR_MAP(SCALAR_ROW)
#undef SCALAR_ROW
};

const char *cml_pte_scalar_name(int s) { return s >= 0 && s < CML_PTE_SCALAR_COUNT ? scalars[s].name : NULL; }
unsigned cml_pte_scalar_bytes(int s) { return s >= 0 && s < CML_PTE_SCALAR_COUNT ? scalars[s].bytes : 0; }
cml_dtype cml_pte_scalar_dtype(int s) { return s >= 0 && s < CML_PTE_SCALAR_COUNT ? scalars[s].dtype : CML_DTYPE_NONE; }

int cml_pte_scalar_of(cml_dtype type) {
  for (int s = 0; type != CML_DTYPE_NONE && s < CML_PTE_SCALAR_COUNT; s++)
    if (scalars[s].name && scalars[s].dtype == type) return s;
  return -1;
}

const char *cml_pte_kind_name(cml_pte_kind kind) {
  static const char *const names[] = {"?",       "None",       "Int",      "Bool",       "Double",            "Tensor", "String",
                                      "IntList", "DoubleList", "BoolList", "TensorList", "OptionalTensorList"};
  return names[(unsigned)kind < sizeof names / sizeof *names ? kind : 0];
}

const char *cml_pte_opcode_name(cml_pte_opcode opcode) {
  static const char *const names[] = {"?", "KernelCall", "DelegateCall", "MoveCall", "JumpFalseCall", "FreeCall"};
  return names[(unsigned)opcode < sizeof names / sizeof *names ? opcode : 0];
}

/* ---- shared helpers ---- */

void *cml_pte_take(pte_parser *p, size_t count, size_t size) {
  if (cml_fb_failed(&p->fb)) return NULL;
  void *memory = cml_arena_array(p->arena, count, size);
  if (!memory) cml_fb_fail_as(&p->fb, CML_NO_MEMORY, CML_NO_OFFSET, "out of memory");
  return memory;
}

void cml_pte_context(pte_parser *p, const char *what, size_t i) {
  if (cml_fb_failed(&p->fb)) (void)cml_error_prefix(&p->fb.error, p->fb.error.status, "%s %zu", what, i);
}

uint32_t cml_pte_index(pte_parser *p, int64_t index, uint64_t limit, uint64_t at, const char *what) {
  if (index >= 0 && (uint64_t)index < limit) return (uint32_t)index;
  cml_fb_fail(&p->fb, at, "the index of %s is %" PRId64 ", there are %" PRIu64, what, index, limit);
  return 0;
}

cml_pte_indices cml_pte_read_indices(pte_parser *p, const cml_fb_table *t, unsigned slot, uint64_t limit, const char *what) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, t, slot, 4);
  cml_pte_indices r = {v.count, TAKE(p, uint32_t, v.count)};
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    const uint8_t *e = cml_fb_element(&p->fb, &v, i);
    r.items[i] = cml_pte_index(p, (int32_t)cml_load_u32(e), limit, v.at + 4 * (uint64_t)i, what);
  }
  return cml_fb_failed(&p->fb) ? (cml_pte_indices){0, NULL} : r;
}

/* ---- header and segments ---- */

enum { HEADER_AT = 8, HEADER_SHORT = 24, HEADER_LONG = 32 };

static cml_status parse_header(cml_span file, cml_pte_header *h, cml_error *err) {
  *h = (cml_pte_header){.program_size = file.size};
  if (file.size < HEADER_AT + 8 || memcmp(file.data + HEADER_AT, "eh00", 4)) return CML_OK;
  h->length = cml_load_u32(file.data + HEADER_AT + 4);
  if (h->length < HEADER_SHORT || h->length > file.size - HEADER_AT)
    return cml_fail(err, CML_INVALID, HEADER_AT + 4, "the extended header says %" PRIu32 " bytes for itself, expected %d or %d",
                    h->length, HEADER_SHORT, HEADER_LONG);
  h->program_size = cml_load_u64(file.data + HEADER_AT + 8);
  h->segment_base = cml_load_u64(file.data + HEADER_AT + 16);
  h->segment_size = h->length >= HEADER_LONG ? cml_load_u64(file.data + HEADER_AT + 24) : 0;
  cml_span part;
  if (h->program_size < HEADER_AT + (uint64_t)h->length || h->program_size > file.size)
    return cml_fail(err, CML_INVALID, HEADER_AT + 8, "the extended header says that the program has %" PRIu64
                    " bytes, the file has %zu", h->program_size, file.size);
  if (h->segment_base && h->segment_base < h->program_size)
    return cml_fail(err, CML_INVALID, HEADER_AT + 16, "segments start at %" PRIu64 ", inside the program of %" PRIu64 " bytes",
                    h->segment_base, h->program_size);
  if (h->segment_base && !cml_span_slice(file, h->segment_base, h->segment_size, &part))
    return cml_fail(err, CML_INVALID, HEADER_AT + 16, "segments lie at %" PRIu64 " with %" PRIu64 " bytes, the file has %zu",
                    h->segment_base, h->segment_size, file.size);
  return CML_OK;
}

void cml_pte_parse_segment(pte_parser *p, cml_pte_segment *s, const cml_fb_table *t, pte_segment_area area) {
  uint64_t size = cml_fb_u64(&p->fb, t, SEGMENT_SIZE, 0), end;
  s->offset = cml_fb_u64(&p->fb, t, SEGMENT_OFFSET, 0);
  if (cml_fb_failed(&p->fb) || size == 0) return;
  if (!area.base) {
    cml_fb_fail(&p->fb, t->at, "%" PRIu64 " bytes in a segment, but the file has no segments (no extended header)", size);
    return;
  }
  cml_span all = {area.file.data + area.base, area.file.size - (size_t)area.base};
  bool in_header = !area.size || (cml_add(s->offset, size, &end) && end <= area.size);
  if (!in_header || !cml_span_slice(all, s->offset, size, &s->data))
    cml_fb_fail(&p->fb, t->at, "the segment [%" PRIu64 " + %" PRIu64 ") exceeds the %" PRIu64 " bytes of segments", s->offset,
                size, area.size && area.size < all.size ? area.size : all.size);
}

static void parse_segments(pte_parser *p, const cml_fb_table *program) {
  cml_pte *pte = p->pte;
  pte_segment_area area = {pte->file, pte->header.segment_base, pte->header.segment_size};
  cml_fb_vector v = cml_fb_vector_of(&p->fb, program, PROGRAM_SEGMENTS, 4);
  pte->segments = TAKE(p, cml_pte_segment, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    cml_pte_parse_segment(p, &pte->segments[i], &t, area);
    cml_pte_context(p, "segment", i);
  }
  pte->segment_count = v.count;
}

/* unused: the number of offsets that may stand there without a segment. */
static void parse_subsegments(pte_parser *p, cml_pte_subsegments *s, const cml_fb_table *t, uint32_t unused) {
  s->segment = cml_fb_u32(&p->fb, t, SUBSEGMENT_SEGMENT, 0);
  cml_fb_vector v = cml_fb_vector_of(&p->fb, t, SUBSEGMENT_OFFSETS, 8);
  s->offsets = TAKE(p, uint64_t, v.count);
  s->count = v.count;
  if (v.count > unused) cml_pte_index(p, s->segment, p->pte->segment_count, t->at, "a segment");
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    s->offsets[i] = cml_load_u64(cml_fb_element(&p->fb, &v, i));
    if (v.count > unused && s->offsets[i] > p->pte->segments[s->segment].data.size)
      cml_fb_fail(&p->fb, v.at + 8 * (uint64_t)i, "data %" PRIu32 " is at %" PRIu64 " of a segment of %zu bytes", i,
                  s->offsets[i], p->pte->segments[s->segment].data.size);
  }
}

static void parse_data_tables(pte_parser *p, const cml_fb_table *program) {
  cml_pte *pte = p->pte;
  cml_fb_table constants = cml_fb_table_of(&p->fb, program, PROGRAM_CONSTANT_SEGMENT);
  pte->has_constant_segment = constants.at != 0;
  parse_subsegments(p, &pte->constant_segment, &constants, 1);
  cml_pte_context(p, "constants, segment", pte->constant_segment.segment);
  cml_fb_vector v = cml_fb_vector_of(&p->fb, program, PROGRAM_MUTABLE_SEGMENTS, 4);
  pte->mutable_segments = TAKE(p, cml_pte_subsegments, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    parse_subsegments(p, &pte->mutable_segments[i], &t, 0);
    cml_pte_context(p, "mutable data", i);
  }
  pte->mutable_count = v.count;
}

/* A vector of tables that each hold bytes. */
static cml_span *parse_byte_tables(pte_parser *p, const cml_fb_table *program, unsigned slot, const char *what,
                                   uint32_t *out_count) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, program, slot, 4);
  cml_span *spans = TAKE(p, cml_span, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    spans[i] = cml_fb_bytes(&p->fb, &t, BYTES_DATA);
    cml_pte_context(p, what, i);
  }
  *out_count = v.count;
  return spans;
}

/* ---- named data ---- */

int cml_pte_compare_strings(cml_string a, cml_string b) {
  size_t n = a.size < b.size ? a.size : b.size;
  int c = n ? memcmp(a.data, b.data, n) : 0;
  return c ? c : (a.size > b.size) - (a.size < b.size);
}

static int compare_named(const void *a, const void *b, void *context) {
  const cml_pte_named *named = context;
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  int c = cml_pte_compare_strings(named[i].key, named[j].key);
  return c ? c : (i > j) - (i < j);
}

static void parse_named(pte_parser *p, const cml_fb_table *program) {
  cml_pte *pte = p->pte;
  cml_fb_vector v = cml_fb_vector_of(&p->fb, program, PROGRAM_NAMED, 4);
  pte->named = TAKE(p, cml_pte_named, v.count);
  pte->named_order = TAKE(p, uint32_t, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    pte->named[i].key = cml_fb_string(&p->fb, &t, NAMED_KEY);
    if (!cml_fb_failed(&p->fb) && !pte->named[i].key.data) cml_fb_fail(&p->fb, t.at, "there is no key");
    pte->named[i].segment = cml_pte_index(p, cml_fb_u32(&p->fb, &t, NAMED_SEGMENT, 0), pte->segment_count, t.at, "a segment");
    pte->named_order[i] = i;
    cml_pte_context(p, "named data", i);
  }
  if (cml_fb_failed(&p->fb)) return;
  pte->named_count = v.count;
  qsort_r(pte->named_order, v.count, sizeof *pte->named_order, compare_named, pte->named);
}

bool cml_pte_find_named(const cml_pte *pte, cml_string key, cml_span *out) {
  uint32_t low = 0, high = pte->named_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (cml_pte_compare_strings(pte->named[pte->named_order[middle]].key, key) < 0) low = middle + 1;
    else high = middle;
  }
  if (low == pte->named_count) return false;
  const cml_pte_named *n = &pte->named[pte->named_order[low]];
  if (cml_pte_compare_strings(n->key, key)) return false;
  *out = pte->segments[n->segment].data;
  return true;
}

/* ---- the program ---- */

static void parse_methods(pte_parser *p, const cml_fb_table *program) {
  cml_pte *pte = p->pte;
  cml_fb_vector v = cml_fb_vector_of(&p->fb, program, PROGRAM_PLANS, 4);
  pte->methods = TAKE(p, cml_pte_method, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    cml_pte_parse_method(p, &pte->methods[i], &t);
    cml_pte_context(p, "method", i);
  }
  pte->method_count = v.count;
}

static cml_status parse_program(pte_parser *p, cml_error *err) {
  cml_pte *pte = p->pte;
  cml_fb_init(&p->fb, (cml_span){pte->file.data, (size_t)pte->header.program_size});
  cml_fb_table program = cml_fb_root(&p->fb, "ET12");
  pte->version = cml_fb_u32(&p->fb, &program, PROGRAM_VERSION, 0);
  parse_segments(p, &program);
  parse_data_tables(p, &program);
  pte->constants = parse_byte_tables(p, &program, PROGRAM_CONSTANTS, "constant", &pte->constant_count);
  pte->inline_data = parse_byte_tables(p, &program, PROGRAM_INLINE_DATA, "inline data", &pte->inline_count);
  parse_named(p, &program);
  parse_methods(p, &program);
  return cml_fb_check(&p->fb, err);
}

/* A version of the format that we do not know is a different failure from a file that is none. */
static cml_status check_identifier(cml_span file, cml_error *err) {
  if (file.size < 8) return cml_fail(err, CML_INVALID, 0, "%zu bytes are no ExecuTorch program", file.size);
  if (memcmp(file.data + 4, "ET", 2))
    return cml_fail(err, CML_INVALID, 4, "not an ExecuTorch program: the file identifier is not ET12");
  if (memcmp(file.data + 4, "ET12", 4))
    return cml_fail(err, CML_UNSUPPORTED, 4, "the file identifier is ET%c%c, this build reads ET12",
                    file.data[6] & 0x7f, file.data[7] & 0x7f);
  return CML_OK;
}

cml_status cml_pte_parse(cml_span file, cml_pte **out, cml_error *err) {
  CML_TRY(check_identifier(file, err));
  cml_pte *pte = calloc(1, sizeof *pte);
  if (!pte) return cml_fail_memory(err);
  pte->file = file;
  cml_status status = parse_header(file, &pte->header, err);
  pte_parser p = {.arena = &pte->arena, .pte = pte};
  if (!status) status = parse_program(&p, err);
  if (status) cml_pte_destroy(pte);
  else *out = pte;
  return status;
}

void cml_pte_destroy(cml_pte *pte) {
  if (!pte) return;
  cml_arena_free(&pte->arena);
  free(pte);
}

const cml_pte_method *cml_pte_find_method(const cml_pte *pte, const char *name) {
  for (uint32_t i = 0; i < pte->method_count; i++)
    if (cml_pte_string_is(pte->methods[i].name, name)) return &pte->methods[i];
  return NULL;
}

uint64_t cml_pte_offset(const cml_pte *pte, const void *data) {
  uintptr_t at = (uintptr_t)data, start = (uintptr_t)pte->file.data;
  return data && at >= start && at - start <= pte->file.size ? at - start : CML_NO_OFFSET;
}
