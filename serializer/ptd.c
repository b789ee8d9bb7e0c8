/* Reading and writing .ptd files, over the parts of the .pte parser that both formats share. */
#include "ptd.h"

#include <inttypes.h>
#include <stdlib.h>

#include "checked.h"
#include "pte_internal.h"

enum { LAYOUT_SCALAR, LAYOUT_SIZES, LAYOUT_DIM_ORDER };
enum { SEGMENT_OFFSET, SEGMENT_SIZE };
enum { NAMED_KEY, NAMED_SEGMENT, NAMED_LAYOUT };
enum { ROOT_VERSION, ROOT_SEGMENTS, ROOT_NAMED };
enum { HEADER_AT = 8, HEADER_SIZE = 40, DEFAULT_ALIGNMENT = 128 };

/* ---- reading ---- */

/* The FlatBuffer's part of the file, from byte 0, and the place of the segments. */
static cml_status parse_header(cml_span file, cml_span *out_buffer, pte_segment_area *out_area, cml_error *err) {
  if (file.size < HEADER_AT + HEADER_SIZE || memcmp(file.data + 4, "FT01", 4))
    return cml_fail(err, CML_INVALID, 4, "not a file of ExecuTorch tensors: the file identifier is not FT01");
  const uint8_t *h = file.data + HEADER_AT;
  if (memcmp(h, "FH01", 4)) return cml_fail(err, CML_INVALID, HEADER_AT, "the header FH01 is missing");
  uint32_t length = cml_load_u32(h + 4);
  if (length < HEADER_SIZE || length > file.size - HEADER_AT)
    return cml_fail(err, CML_INVALID, HEADER_AT + 4, "the header says %" PRIu32 " bytes for itself, expected %d", length, HEADER_SIZE);
  uint64_t end;
  pte_segment_area area = {file, cml_load_u64(h + 24), cml_load_u64(h + 32)};
  if (!cml_add(cml_load_u64(h + 8), cml_load_u64(h + 16), &end) || !cml_span_slice(file, 0, end, out_buffer))
    return cml_fail(err, CML_INVALID, HEADER_AT + 8, "the header says that the FlatBuffer lies at %" PRIu64 " with %" PRIu64
                    " bytes, the file has %zu", cml_load_u64(h + 8), cml_load_u64(h + 16), file.size);
  cml_span part;
  if (area.base && (area.base < end || !cml_span_slice(file, area.base, area.size, &part)))
    return cml_fail(err, CML_INVALID, HEADER_AT + 24, "segments lie at %" PRIu64 " with %" PRIu64 " bytes, the file has %zu",
                    area.base, area.size, file.size);
  *out_area = area;
  return CML_OK;
}

static void parse_segments(pte_parser *p, cml_ptd *ptd, const cml_fb_table *root, pte_segment_area area) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, root, ROOT_SEGMENTS, 4);
  ptd->segments = TAKE(p, cml_pte_segment, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    cml_pte_parse_segment(p, &ptd->segments[i], &t, area);
    cml_pte_context(p, "segment", i);
  }
  ptd->segment_count = v.count;
}

static void parse_entry(pte_parser *p, const cml_ptd *ptd, cml_ptd_entry *e, const cml_fb_table *t) {
  e->key = cml_fb_string(&p->fb, t, NAMED_KEY);
  if (!e->key.data) cml_fb_fail(&p->fb, t->at, "there is no key");
  e->segment = cml_pte_index(p, cml_fb_u32(&p->fb, t, NAMED_SEGMENT, 0), ptd->segment_count, t->at, "a segment");
  cml_fb_table layout = cml_fb_table_of(&p->fb, t, NAMED_LAYOUT);
  if (!layout.at || !(e->tensor = TAKE(p, cml_pte_tensor, 1))) return;
  cml_pte_parse_layout(p, e->tensor, &layout, LAYOUT_SCALAR, LAYOUT_SIZES, LAYOUT_DIM_ORDER);
  if (cml_fb_failed(&p->fb)) return;
  e->tensor->storage = CML_PTE_CONSTANT;
  cml_span all = ptd->segments[e->segment].data;
  if (!cml_span_slice(all, 0, e->tensor->bytes, &e->tensor->data))
    cml_fb_fail(&p->fb, layout.at, "a tensor of %" PRIu64 " bytes in a segment of %zu", e->tensor->bytes, all.size);
}

static int compare_entries(const void *a, const void *b, void *context) {
  const cml_ptd_entry *e = context;
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  int c = cml_pte_compare_strings(e[i].key, e[j].key);
  return c ? c : (i > j) - (i < j);
}

static void parse_entries(pte_parser *p, cml_ptd *ptd, const cml_fb_table *root) {
  cml_fb_vector v = cml_fb_vector_of(&p->fb, root, ROOT_NAMED, 4);
  ptd->entries = TAKE(p, cml_ptd_entry, v.count);
  ptd->order = TAKE(p, uint32_t, v.count);
  for (uint32_t i = 0; i < v.count && !cml_fb_failed(&p->fb); i++) {
    cml_fb_table t = cml_fb_table_at(&p->fb, &v, i);
    parse_entry(p, ptd, &ptd->entries[i], &t);
    ptd->order[i] = i;
    cml_pte_context(p, "entry", i);
  }
  if (cml_fb_failed(&p->fb)) return;
  ptd->count = v.count;
  qsort_r(ptd->order, v.count, sizeof *ptd->order, compare_entries, ptd->entries);
}

cml_status cml_ptd_parse(cml_span file, cml_ptd **out, cml_error *err) {
  cml_span buffer;
  pte_segment_area area;
  CML_TRY(parse_header(file, &buffer, &area, err));
  cml_ptd *ptd = calloc(1, sizeof *ptd);
  if (!ptd) return cml_fail_memory(err);
  ptd->file = file;
  pte_parser p = {.arena = &ptd->arena};
  cml_fb_init(&p.fb, buffer);
  cml_fb_table root = cml_fb_root(&p.fb, "FT01");
  ptd->version = cml_fb_u32(&p.fb, &root, ROOT_VERSION, 0);
  parse_segments(&p, ptd, &root, area);
  parse_entries(&p, ptd, &root);
  cml_status status = cml_fb_check(&p.fb, err);
  if (status) cml_ptd_destroy(ptd);
  else *out = ptd;
  return status;
}

void cml_ptd_destroy(cml_ptd *ptd) {
  if (!ptd) return;
  cml_arena_free(&ptd->arena);
  free(ptd);
}

const cml_ptd_entry *cml_ptd_find(const cml_ptd *ptd, cml_string key) {
  uint32_t low = 0, high = ptd->count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (cml_pte_compare_strings(ptd->entries[ptd->order[middle]].key, key) < 0) low = middle + 1;
    else high = middle;
  }
  const cml_ptd_entry *e = low < ptd->count ? &ptd->entries[ptd->order[low]] : NULL;
  return e && !cml_pte_compare_strings(e->key, key) ? e : NULL;
}

/* ---- writing ---- */

static cml_fb_ref put_entry(cml_fb_writer *w, const cml_ptd_entry *e) {
  cml_fb_ref key = cml_fb_put_string(w, e->key), layout = 0;
  if (e->tensor) {
    cml_fb_ref sizes = cml_fb_put_vector(w, e->tensor->sizes, e->tensor->rank, 4, 4);
    cml_fb_ref order = cml_fb_put_vector(w, e->tensor->dim_order, e->tensor->rank, 1, 1);
    cml_fb_begin(w);
    cml_fb_add_u8(w, LAYOUT_SCALAR, e->tensor->scalar, 0);
    cml_fb_add_ref(w, LAYOUT_SIZES, sizes);
    cml_fb_add_ref(w, LAYOUT_DIM_ORDER, order);
    layout = cml_fb_end(w);
  }
  cml_fb_begin(w);
  cml_fb_add_ref(w, NAMED_KEY, key);
  cml_fb_add_u32(w, NAMED_SEGMENT, e->segment, 0);
  cml_fb_add_ref(w, NAMED_LAYOUT, layout);
  return cml_fb_end(w);
}

static cml_fb_ref put_root(cml_fb_writer *w, const cml_ptd *ptd, const uint64_t *offsets, cml_fb_ref *refs) {
  for (uint32_t i = 0; i < ptd->segment_count; i++) {
    cml_fb_begin(w);
    cml_fb_add_u64(w, SEGMENT_OFFSET, offsets[i], 0);
    cml_fb_add_u64(w, SEGMENT_SIZE, ptd->segments[i].data.size, 0);
    refs[i] = cml_fb_end(w);
  }
  cml_fb_ref segments = cml_fb_put_refs(w, refs, ptd->segment_count);
  for (uint32_t i = 0; i < ptd->count; i++) refs[i] = put_entry(w, &ptd->entries[i]);
  cml_fb_ref named = cml_fb_put_refs(w, refs, ptd->count);
  cml_fb_begin(w);
  cml_fb_add_u32(w, ROOT_VERSION, ptd->version, 0);
  cml_fb_add_ref(w, ROOT_SEGMENTS, segments);
  cml_fb_add_ref(w, ROOT_NAMED, named);
  return cml_fb_end(w);
}

static cml_status write_file(const cml_ptd *ptd, cml_fb_writer *w, uint32_t alignment, cml_sink sink, cml_error *err) {
  uint32_t most = ptd->count > ptd->segment_count ? ptd->count : ptd->segment_count;
  uint64_t *offsets = CML_ARENA_NEW_ARRAY(&w->arena, uint64_t, ptd->segment_count);
  cml_fb_ref *refs = CML_ARENA_NEW_ARRAY(&w->arena, cml_fb_ref, most);
  if (!offsets || !refs) return cml_fail_memory(err);
  uint64_t end, base;
  if (!cml_pte_place_segments(ptd->segments, ptd->segment_count, alignment, offsets, &end))
    return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "segments exceed 2^64 bytes");
  cml_fb_ref root = put_root(w, ptd, offsets, refs);
  CML_TRY(cml_fb_layout(w, root, &(cml_fb_layout_options){"FT01", HEADER_SIZE, false}, err));
  if (!cml_align(w->size, alignment, &base)) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the file is too large");
  uint64_t fields[] = {HEADER_AT + HEADER_SIZE, w->size - HEADER_AT - HEADER_SIZE, end ? base : 0, end};
  uint8_t header[HEADER_SIZE] = "FH01";
  memcpy(header + 4, &(uint32_t){HEADER_SIZE}, 4);
  memcpy(header + 8, fields, sizeof fields);
  CML_TRY(cml_fb_write(w, header, sink, err));
  return cml_pte_write_segments(ptd->segments, ptd->segment_count, offsets, base, w->size, sink, err);
}

cml_status cml_ptd_serialize(const cml_ptd *ptd, uint32_t segment_alignment, cml_sink sink, cml_error *err) {
  if (!segment_alignment) segment_alignment = DEFAULT_ALIGNMENT;
  if (!cml_is_power_of_two(segment_alignment))
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "an alignment of %" PRIu32 " is no power of two", segment_alignment);
  for (uint32_t i = 0; i < ptd->count; i++)
    if (!ptd->entries[i].key.data || ptd->entries[i].segment >= ptd->segment_count)
      return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "entry %" PRIu32 " has no key or no segment", i);
  cml_fb_writer w = CML_FB_WRITER_INIT;
  cml_status status = write_file(ptd, &w, segment_alignment, sink, err);
  cml_fb_writer_free(&w);
  return status;
}
