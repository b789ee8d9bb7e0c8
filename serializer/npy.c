/* .npy: a magic, a version, the length of a header, and the header itself: a Python dictionary literal with 'descr',
 * 'fortran_order' and 'shape'. The header is small and of one form in practice, so it is read by searching its keys.
 * .npz is a zip of those; stored members are read in place through the mapping, deflated ones through zlib. */
#include "npy.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "checked.h"
#include "npy_header.h"

enum { MAX_DIMS = 32 };

/* ---- writing a header ---- */

static const char *descr_of(cml_dtype t) {
  switch (t) {
    case CML_F16: return "<f2";
    case CML_F32: return "<f4";
    case CML_F64: return "<f8";
    case CML_I8: return "|i1";
    case CML_I16: return "<i2";
    case CML_I32: return "<i4";
    case CML_I64: return "<i8";
    case CML_U8: return "|u1";
    case CML_U16: case CML_BF16: return "<u2";
    case CML_U32: return "<u4";
    case CML_U64: return "<u8";
    case CML_BOOL: return "|b1";
    default: return NULL;
  }
}

void cml_npy_header_descr(const char *descr, size_t rank, const int64_t *dims, cml_buffer *out) {
  size_t start = out->size;
  cml_buffer_append(out, "\x93NUMPY\x01\x00\x00\x00", 10);
  cml_buffer_printf(out, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
  for (size_t i = 0; i < rank; i++) cml_buffer_printf(out, "%s%lld", i ? ", " : "", (long long)dims[i]);
  cml_buffer_text(out, rank == 1 ? ",), }" : "), }");
  while (!out->failed && (out->size - start + 1) % 64) cml_buffer_char(out, ' ');
  cml_buffer_char(out, '\n');
  size_t length = out->size - start - 10;
  if (!out->failed) {
    out->data[start + 8] = (uint8_t)length;
    out->data[start + 9] = (uint8_t)(length >> 8);
  }
}

cml_status cml_npy_header(cml_dtype dtype, size_t rank, const int64_t *dims, cml_buffer *out, cml_error *err) {
  const char *descr = descr_of(dtype);
  if (!descr || rank > MAX_DIMS)
    return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "NumPy has no type for %s", cml_dtype_name(dtype));
  cml_npy_header_descr(descr, rank, dims, out);
  return cml_buffer_check(out, err);
}

/* ---- reading ---- */

typedef struct layout {
  char kind;         /* f c i u b U S; V of 2 bytes, as NumPy writes the bfloat16 of ml_dtypes */
  unsigned item;     /* bytes of an element */
  bool swap, fortran;
  size_t rank;
  int64_t dims[MAX_DIMS];
} layout;

static const char *find_key(const char *text, const char *key) {
  const char *p = strstr(text, key);
  if (!p) return NULL;
  p += strlen(key);
  while (*p == ' ' || *p == ':') p++;
  return p;
}

static bool parse_descr(const char *p, layout *l) {
  if (!p || (*p != '\'' && *p != '"')) return false;
  char order = *++p;
  if (order == '<' || order == '>' || order == '|' || order == '=') p++;
  l->swap = order == '>';
  l->kind = *p++;
  if (!isdigit((unsigned char)*p)) return false;
  unsigned long n = strtoul(p, NULL, 10);
  if (n > 1u << 20) return false;
  l->item = (unsigned)n * (l->kind == 'U' ? 4u : 1u);
  return strchr("fciubUSV", l->kind) != NULL;
}

static bool parse_shape(const char *p, layout *l) {
  if (!p || *p++ != '(') return false;
  for (l->rank = 0; *p != ')';) {
    char *end;
    while (*p == ' ' || *p == ',') p++;
    if (*p == ')') break;
    if (!isdigit((unsigned char)*p) || l->rank == MAX_DIMS) return false;
    unsigned long long n = strtoull(p, &end, 10);
    if (n > INT64_MAX) return false;
    l->dims[l->rank++] = (int64_t)n;
    p = end;
    if (*p == 'L') p++;
  }
  return true;
}

static cml_dtype dtype_of(const layout *l) {
  switch (l->kind) {
    case 'f': return l->item == 2 ? CML_F16 : l->item == 4 ? CML_F32 : l->item == 8 ? CML_F64 : CML_DTYPE_NONE;
    case 'c': return l->item == 8 ? CML_F32 : l->item == 16 ? CML_F64 : CML_DTYPE_NONE;
    case 'i': return l->item == 1 ? CML_I8 : l->item == 2 ? CML_I16 : l->item == 4 ? CML_I32 : l->item == 8 ? CML_I64 : CML_DTYPE_NONE;
    case 'u': return l->item == 1 ? CML_U8 : l->item == 2 ? CML_U16 : l->item == 4 ? CML_U32 : l->item == 8 ? CML_U64 : CML_DTYPE_NONE;
    case 'V': return l->item == 2 ? CML_BF16 : CML_DTYPE_NONE;
    case 'b': return l->item == 1 ? CML_BOOL : CML_DTYPE_NONE;
    default: return CML_STRING;
  }
}

static size_t put_utf8(char *out, uint32_t c) {
  if (c >= 0xd800 && c <= 0xdfff) c = 0xfffd;
  if (c > 0x10ffff) c = 0xfffd;
  if (c < 0x80) return out[0] = (char)c, 1;
  if (c < 0x800) return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
  if (c < 0x10000) {
    out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)), out[2] = (char)(0x80 | (c & 63));
    return 3;
  }
  out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 63)), out[2] = (char)(0x80 | (c >> 6 & 63)),
  out[3] = (char)(0x80 | (c & 63));
  return 4;
}

/* U (UCS-4, padded with zeros) and S (bytes) become UTF-8 strings. */
static cml_status read_strings(const layout *l, cml_span data, uint64_t count, cml_arena *arena, void **out, cml_error *err) {
  cml_string *strings = cml_arena_array(arena, count, sizeof *strings);
  if (!strings) return cml_fail_memory(err);
  unsigned units = l->kind == 'U' ? l->item / 4 : l->item;
  for (uint64_t i = 0; i < count; i++) {
    char *text = cml_arena_alloc(arena, (size_t)units * 4 + 1);
    if (!text) return cml_fail_memory(err);
    size_t n = 0;
    for (unsigned k = 0; k < units; k++) {
      const uint8_t *p = data.data + i * l->item + (l->kind == 'U' ? 4 * k : k);
      uint32_t c = l->kind == 'U' ? (l->swap ? __builtin_bswap32(cml_load_u32(p)) : cml_load_u32(p)) : *p;
      if (!c) break;
      if (l->kind == 'U') n += put_utf8(text + n, c);
      else text[n++] = (char)c;
    }
    strings[i] = (cml_string){text, n};
  }
  *out = strings;
  return CML_OK;
}

/* Element at row-major index i lies at this index in Fortran order. */
static uint64_t fortran_index(const layout *l, uint64_t i) {
  uint64_t at = 0, stride = 1, coordinates[MAX_DIMS];
  for (size_t k = l->rank; k-- > 0;) {
    coordinates[k] = i % (uint64_t)l->dims[k];
    i /= (uint64_t)l->dims[k];
  }
  for (size_t k = 0; k < l->rank; k++) {
    at += coordinates[k] * stride;
    stride *= (uint64_t)l->dims[k];
  }
  return at;
}

static cml_status read_numbers(const layout *l, cml_span data, uint64_t count, cml_arena *arena, void **out, cml_error *err) {
  unsigned part = l->kind == 'c' ? l->item / 2 : l->item; /* each is little- or big-endian for itself */
  if (!l->swap && !l->fortran && (uintptr_t)data.data % part == 0) {
    *out = (void *)(uintptr_t)data.data;
    return CML_OK;
  }
  uint8_t *copy = cml_arena_alloc(arena, data.size);
  if (!copy) return cml_fail_memory(err);
  for (uint64_t i = 0; i < count; i++) {
    const uint8_t *from = data.data + (l->fortran ? fortran_index(l, i) : i) * l->item;
    for (unsigned k = 0; k < l->item; k++) copy[i * l->item + k] = from[l->swap ? k / part * part + part - 1 - k % part : k];
  }
  *out = copy;
  return CML_OK;
}

static cml_status parse_header(cml_cursor *c, layout *l, cml_error *err) {
  cml_span magic = cml_cursor_take(c, 6);
  uint8_t major = cml_cursor_u8(c);
  cml_cursor_u8(c);
  uint64_t length = major == 1 ? cml_cursor_u16(c) : cml_cursor_u32(c);
  cml_span text = cml_cursor_take(c, length);
  CML_TRY(cml_cursor_check(c, "the .npy header", err));
  if (memcmp(magic.data, "\x93NUMPY", 6) || major < 1 || major > 3) return cml_fail(err, CML_INVALID, 0, "not a NumPy .npy file");
  if (length > 65536) return cml_fail(err, CML_LIMIT, 8, "the .npy header has %llu bytes", (unsigned long long)length);
  char header[65537];
  memcpy(header, text.data, length);
  header[length] = 0;
  const char *order = find_key(header, "'fortran_order'");
  l->fortran = order && *order == 'T';
  const char *descr = find_key(header, "'descr'");
  if (!parse_descr(descr, l) || dtype_of(l) == CML_DTYPE_NONE || (l->item == 0 && l->kind != 'U' && l->kind != 'S'))
    return cml_fail(err, CML_UNSUPPORTED, 10, "the .npy file's element type is not one that cml reads");
  if (!parse_shape(find_key(header, "'shape'"), l)) return cml_fail(err, CML_INVALID, 10, "the .npy header has no proper shape");
  return CML_OK;
}

cml_status cml_npy_parse(cml_span bytes, cml_arena *arena, cml_array *out, cml_error *err) {
  cml_cursor c = cml_cursor_over(bytes);
  layout l = {0};
  CML_TRY(parse_header(&c, &l, err));
  uint64_t count = 1, size;
  for (size_t i = 0; i < l.rank; i++)
    if (!cml_mul(count, (uint64_t)l.dims[i], &count)) return cml_fail(err, CML_INVALID, 10, "the .npy shape is too large");
  if (!cml_mul(count, l.item, &size) || size > cml_cursor_left(&c) || (!l.item && count > bytes.size))
    return cml_fail(err, CML_INVALID, cml_cursor_offset(&c), "the .npy data ends early: %zu bytes are there", cml_cursor_left(&c));
  bool complex = l.kind == 'c';
  cml_array a = {.name = "", .dtype = dtype_of(&l), .rank = l.rank + complex, .complex = complex};
  a.dims = CML_ARENA_NEW_ARRAY(arena, int64_t, a.rank);
  if (!a.dims) return cml_fail_memory(err);
  memcpy(a.dims, l.dims, l.rank * sizeof *a.dims);
  if (complex) a.dims[l.rank] = 2;
  cml_span data = cml_cursor_take(&c, size);
  static const uint64_t nothing;
  if (!size && a.dtype != CML_STRING) a.data = (void *)(uintptr_t)&nothing;
  else if (a.dtype == CML_STRING) CML_TRY(read_strings(&l, data, count, arena, &a.data, err));
  else CML_TRY(read_numbers(&l, data, count, arena, &a.data, err));
  a.bytes = a.dtype == CML_STRING ? count * sizeof(cml_string) : size;
  *out = a;
  return CML_OK;
}
