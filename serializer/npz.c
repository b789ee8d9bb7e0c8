/* .npz: NumPy's zip of .npy members. Read from the central directory: sizes and offsets of every member stand there, and a
 * stored member is used where it lies in the mapping. Written stored, with ZIP64 records when a size needs them, into a
 * temporary file that gets its name when it is whole. Source: PKWARE's APPNOTE.TXT 6.3. */
#include "npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "checked.h"
#include "npy_header.h"

enum {
  LOCAL_SIGNATURE = 0x04034b50, CENTRAL_SIGNATURE = 0x02014b50, END_SIGNATURE = 0x06054b50,
  END64_SIGNATURE = 0x06064b50, LOCATOR64_SIGNATURE = 0x07064b50,
  MAX_MEMBERS = 65536,
};

struct cml_npz {
  cml_mapping *mapping;
  cml_arena arena;
  cml_array *arrays;
  size_t count;
};

typedef struct member {
  cml_span name;
  unsigned method, flags;
  uint64_t packed, size, local;
} member;

/* ---- reading ---- */

static cml_status find_directory(cml_span file, uint64_t *at, uint64_t *count, cml_error *err) {
  size_t lowest = file.size > 65557 ? file.size - 65557 : 0;
  for (size_t p = file.size < 22 ? 0 : file.size - 22 + 1; p-- > lowest;) {
    if (cml_load_u32(file.data + p) != END_SIGNATURE) continue;
    *count = cml_load_u16(file.data + p + 10);
    *at = cml_load_u32(file.data + p + 16);
    if (p >= 20 && cml_load_u32(file.data + p - 20) == LOCATOR64_SIGNATURE) {
      uint64_t end64 = cml_load_u64(file.data + p - 20 + 8);
      cml_span record;
      if (!cml_span_slice(file, end64, 56, &record) || cml_load_u32(record.data) != END64_SIGNATURE)
        return cml_fail(err, CML_INVALID, p - 20, "the zip's ZIP64 end record is not where its locator says");
      *count = cml_load_u64(record.data + 32);
      *at = cml_load_u64(record.data + 48);
    }
    return CML_OK;
  }
  return cml_fail(err, CML_INVALID, file.size, "not a .npz: no zip directory at its end");
}

/* ZIP64 extra field (id 1): 8-byte values for those that are all ones in the record, in this order. */
static void read_zip64(cml_cursor extra, member *m) {
  while (cml_cursor_left(&extra) >= 4) {
    unsigned id = cml_cursor_u16(&extra), size = cml_cursor_u16(&extra);
    cml_cursor field = cml_cursor_sub(&extra, size);
    if (id != 1) continue;
    if (m->size == UINT32_MAX) m->size = cml_cursor_u64(&field);
    if (m->packed == UINT32_MAX) m->packed = cml_cursor_u64(&field);
    if (m->local == UINT32_MAX) m->local = cml_cursor_u64(&field);
  }
}

static cml_status read_entry(cml_cursor *c, member *m, cml_error *err) {
  uint64_t at = cml_cursor_offset(c);
  uint32_t signature = cml_cursor_u32(c);
  cml_cursor_take(c, 4);
  m->flags = cml_cursor_u16(c);
  m->method = cml_cursor_u16(c);
  cml_cursor_take(c, 8);
  m->packed = cml_cursor_u32(c);
  m->size = cml_cursor_u32(c);
  unsigned name = cml_cursor_u16(c), extra = cml_cursor_u16(c), comment = cml_cursor_u16(c);
  cml_cursor_take(c, 8);
  m->local = cml_cursor_u32(c);
  m->name = cml_cursor_take(c, name);
  cml_cursor fields = cml_cursor_sub(c, extra);
  cml_cursor_take(c, comment);
  CML_TRY(cml_cursor_check(c, "the zip directory", err));
  if (signature != CENTRAL_SIGNATURE) return cml_fail(err, CML_INVALID, at, "the zip directory has no entry here");
  read_zip64(fields, m);
  if (m->flags & 1) return cml_fail(err, CML_UNSUPPORTED, at, "the zip is encrypted");
  return CML_OK;
}

static cml_status inflate_member(cml_span packed, uint64_t size, uint64_t at, cml_arena *arena, cml_span *out, cml_error *err) {
  if (size / 1032 > packed.size + 1) /* deflate's largest ratio */
    return cml_fail(err, CML_INVALID, at, "a zip member claims to unpack to %llu bytes", (unsigned long long)size);
  uint8_t *data = cml_arena_alloc(arena, size);
  if (!data) return cml_fail_memory(err);
  z_stream z = {0};
  if (inflateInit2(&z, -15) != Z_OK) return cml_fail_memory(err);
  size_t in = 0, done = 0;
  int code = Z_OK;
  while (code == Z_OK) {
    size_t give = packed.size - in > 1 << 30 ? 1 << 30 : packed.size - in, room = size - done > 1 << 30 ? 1 << 30 : size - done;
    z.next_in = (Bytef *)(uintptr_t)(packed.data + in), z.avail_in = (uInt)give;
    z.next_out = data + done, z.avail_out = (uInt)room;
    code = inflate(&z, Z_NO_FLUSH);
    in += give - z.avail_in;
    done += room - z.avail_out;
    if (code == Z_OK && z.avail_in == give && z.avail_out == room) break; /* no progress */
  }
  inflateEnd(&z);
  if (code != Z_STREAM_END || done != size) return cml_fail(err, CML_INVALID, at, "a zip member does not unpack");
  *out = cml_span_of(data, size);
  return CML_OK;
}

static cml_status member_bytes(cml_npz *npz, const member *m, cml_span *out, cml_error *err) {
  cml_span file = cml_mapping_span(npz->mapping), header, packed;
  if (!cml_span_slice(file, m->local, 30, &header) || cml_load_u32(header.data) != LOCAL_SIGNATURE)
    return cml_fail(err, CML_INVALID, m->local, "the zip directory points here, where no member starts");
  uint64_t at = m->local + 30 + cml_load_u16(header.data + 26) + cml_load_u16(header.data + 28);
  if (!cml_span_slice(file, at, m->packed, &packed)) return cml_fail(err, CML_INVALID, at, "a zip member ends behind the file");
  if (m->method == 8) return inflate_member(packed, m->size, at, &npz->arena, out, err);
  if (m->method) return cml_fail(err, CML_UNSUPPORTED, at, "a zip member is packed by method %u", m->method);
  if (m->size != m->packed) return cml_fail(err, CML_INVALID, at, "a stored zip member has two sizes");
  *out = packed;
  return CML_OK;
}

static cml_status read_member(cml_npz *npz, const member *m, cml_error *err) {
  cml_span bytes;
  cml_array *a = &npz->arrays[npz->count];
  size_t n = m->name.size;
  if (n < 4 || memcmp(m->name.data + n - 4, ".npy", 4)) return CML_OK;
  const char *name = cml_arena_text(&npz->arena, (const char *)m->name.data, n - 4);
  if (!name) return cml_fail_memory(err);
  CML_TRY(member_bytes(npz, m, &bytes, err));
  cml_status status = cml_npy_parse(bytes, &npz->arena, a, err);
  if (status) return cml_error_prefix(err, status, "%s", name);
  a->name = name;
  npz->count++;
  return CML_OK;
}

static cml_status read_zip(cml_npz *npz, cml_error *err) {
  cml_span file = cml_mapping_span(npz->mapping);
  uint64_t at = 0, count = 0;
  CML_TRY(find_directory(file, &at, &count, err));
  if (count > MAX_MEMBERS) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the zip has %llu members", (unsigned long long)count);
  if (!(npz->arrays = CML_ARENA_NEW_ARRAY(&npz->arena, cml_array, count))) return cml_fail_memory(err);
  cml_cursor c = cml_cursor_over(file);
  cml_cursor_seek(&c, at);
  for (uint64_t i = 0; i < count; i++) {
    member m = {0};
    CML_TRY(read_entry(&c, &m, err));
    CML_TRY(read_member(npz, &m, err));
  }
  return CML_OK;
}

cml_status cml_npz_parse(cml_mapping *mapping, cml_npz **out, cml_error *err) {
  cml_npz *npz = calloc(1, sizeof *npz);
  if (!npz) return cml_fail_memory(err);
  npz->arena.limit = (size_t)16 << 30;
  npz->mapping = cml_mapping_ref(mapping);
  cml_span file = cml_mapping_span(mapping);
  cml_status status = CML_OK;
  if (file.size >= 6 && !memcmp(file.data, "\x93NUMPY", 6)) {
    npz->arrays = CML_ARENA_NEW(&npz->arena, cml_array);
    status = npz->arrays ? cml_npy_parse(file, &npz->arena, npz->arrays, err) : cml_fail_memory(err);
    npz->count = 1;
  } else {
    status = read_zip(npz, err);
  }
  if (status) cml_npz_close(npz);
  else *out = npz;
  return status;
}

cml_status cml_npz_open(const char *path, cml_npz **out, cml_error *err) {
  cml_mapping *mapping = NULL;
  CML_TRY(cml_mapping_open(path, &mapping, err));
  cml_status status = cml_npz_parse(mapping, out, err);
  cml_mapping_unref(mapping);
  return status;
}

void cml_npz_close(cml_npz *npz) {
  if (!npz) return;
  cml_arena_free(&npz->arena);
  cml_mapping_unref(npz->mapping);
  free(npz);
}

size_t cml_npz_count(const cml_npz *npz) { return npz->count; }
const cml_array *cml_npz_at(const cml_npz *npz, size_t i) { return i < npz->count ? &npz->arrays[i] : NULL; }

const cml_array *cml_npz_find(const cml_npz *npz, const char *name) {
  for (size_t i = 0; i < npz->count; i++)
    if (!strcmp(npz->arrays[i].name, name)) return &npz->arrays[i];
  return NULL;
}

/* ---- writing ---- */

struct cml_npz_writer {
  FILE *file;
  char *path, *temporary;
  cml_buffer directory;
  uint64_t count, written;
};

static void writer_free(cml_npz_writer *w) {
  if (!w) return;
  if (w->temporary) unlink(w->temporary);
  cml_buffer_free(&w->directory);
  free(w->path);
  free(w->temporary);
  free(w);
}

/* A file appears when it is whole, in place of what a link leads to; a device or a pipe must not be replaced and is written to. */
static cml_status open_writer(cml_npz_writer *w, const char *path, cml_error *err) {
  struct stat st;
  bool exists = !stat(path, &st);
  if (!(w->path = exists ? realpath(path, NULL) : strdup(path))) return cml_fail_errno(err, errno, "cannot write");
  if (exists && !S_ISREG(st.st_mode)) {
    w->file = fopen(w->path, "wbe");
    return w->file ? CML_OK : cml_fail_errno(err, errno, "cannot write");
  }
  size_t room = strlen(w->path) + sizeof ".tmp-XXXXXX";
  char *temporary = malloc(room);
  if (!temporary) return cml_fail_memory(err);
  snprintf(temporary, room, "%s.tmp-XXXXXX", w->path);
  int fd = mkostemp(temporary, O_CLOEXEC);
  if (fd < 0) {
    cml_status status = cml_fail_errno(err, errno, "cannot write");
    free(temporary);
    return status;
  }
  w->temporary = temporary;
  if (!fchmod(fd, 0644) && (w->file = fdopen(fd, "wb"))) return CML_OK;
  cml_status status = cml_fail_errno(err, errno, "cannot write");
  close(fd);
  return status;
}

cml_status cml_npz_create(const char *path, cml_npz_writer **out, cml_error *err) {
  cml_npz_writer *w = calloc(1, sizeof *w);
  if (!w) return cml_fail_memory(err);
  cml_status status = open_writer(w, path, err);
  if (status) writer_free(w);
  else *out = w;
  return status;
}

static void put(cml_buffer *b, uint64_t value, unsigned bytes) { cml_buffer_append(b, &value, bytes); }

/* What local header and directory entry share: from "version needed" to the sizes' end. */
static void put_common(cml_buffer *b, uint32_t crc, uint64_t size, bool large) {
  put(b, large ? 45 : 20, 2);
  put(b, 1 << 11, 2); /* names are UTF-8 */
  put(b, 0, 2);       /* stored */
  put(b, 0, 2);       /* time: midnight */
  put(b, 0x21, 2);    /* date: 1980-01-01, so that the same arrays give the same file */
  put(b, crc, 4);
  put(b, large ? UINT32_MAX : size, 4);
  put(b, large ? UINT32_MAX : size, 4);
}

static uint32_t crc_of(uint32_t crc, const void *data, uint64_t size) {
  const uint8_t *p = data;
  while (size) {
    uInt n = size > 1 << 30 ? 1 << 30 : (uInt)size;
    crc = (uint32_t)crc32(crc, p, n);
    p += n, size -= n;
  }
  return crc;
}

static void put_headers(cml_npz_writer *w, const char *name, uint32_t crc, uint64_t size, cml_buffer *local) {
  bool large = size >= UINT32_MAX, far = w->written >= UINT32_MAX;
  size_t n = strlen(name) + 4;
  put(local, LOCAL_SIGNATURE, 4);
  put_common(local, crc, size, large);
  put(local, n, 2);
  /* pad with an extra field so that the array's header, and with it the data, is aligned to 64 bytes */
  size_t fixed = 30 + n + (large ? 20 : 0) + 4, pad = (64 - (w->written + fixed) % 64) % 64;
  put(local, (large ? 20 : 0) + 4 + pad, 2);
  cml_buffer_printf(local, "%s.npy", name);
  if (large) put(local, 1, 2), put(local, 16, 2), put(local, size, 8), put(local, size, 8);
  put(local, 0xd935, 2), put(local, pad, 2); /* the id that zipalign uses for padding */
  cml_buffer_zeros(local, pad);

  cml_buffer *d = &w->directory;
  unsigned extra = (large ? 16u : 0) + (far ? 8u : 0);
  put(d, CENTRAL_SIGNATURE, 4);
  put(d, 45, 2);
  put_common(d, crc, size, large);
  put(d, n, 2);
  put(d, extra ? extra + 4 : 0, 2);
  put(d, 0, 2), put(d, 0, 2), put(d, 0, 2), put(d, 0, 4);
  put(d, far ? UINT32_MAX : w->written, 4);
  cml_buffer_printf(d, "%s.npy", name);
  if (extra) put(d, 1, 2), put(d, extra, 2);
  if (large) put(d, size, 8), put(d, size, 8);
  if (far) put(d, w->written, 8);
}

static cml_status write_bytes(cml_npz_writer *w, const void *data, uint64_t size, cml_error *err) {
  if (size && fwrite(data, 1, size, w->file) != size) return cml_fail_errno(err, errno, "cannot write");
  w->written += size;
  return CML_OK;
}

/* STRING as NumPy's U: UCS-4, all as wide as the longest. */
static void put_strings(cml_buffer *b, size_t rank, const int64_t *dims, const cml_string *strings) {
  uint64_t count = 1, widest = 1;
  for (size_t i = 0; i < rank; i++) count *= (uint64_t)dims[i];
  for (uint64_t i = 0; i < count; i++)
    if (strings[i].size > widest) widest = strings[i].size; /* bytes are at least as many as characters */
  char descr[32];
  snprintf(descr, sizeof descr, "<U%llu", (unsigned long long)widest);
  cml_npy_header_descr(descr, rank, dims, b);
  for (uint64_t i = 0; i < count; i++) {
    const uint8_t *p = (const uint8_t *)strings[i].data, *end = p + strings[i].size;
    uint64_t written = 0;
    for (; p < end; written++) {
      unsigned n = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0xc0 ? 2 : 1;
      uint32_t c = n == 1 ? *p : *p & (0xffu >> (n + 1));
      for (unsigned k = 1; k < n && p + k < end; k++) c = c << 6 | (p[k] & 63);
      p += n;
      put(b, c, 4);
    }
    cml_buffer_zeros(b, (size_t)(widest - written) * 4);
  }
}

/* `npy`: the member's header (and its elements, where they are not in data); freed. */
static cml_status add_member(cml_npz_writer *w, const char *name, cml_buffer *npy, const void *data, uint64_t bytes, cml_error *err) {
  cml_buffer local = CML_BUFFER_INIT;
  cml_status status = CML_OK;
  if (strlen(name) > 60000) status = cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "an array's name is too long");
  if (!status) status = cml_buffer_check(npy, err);
  if (!status) {
    uint32_t crc = crc_of(crc_of((uint32_t)crc32(0, NULL, 0), npy->data, npy->size), data, bytes);
    put_headers(w, name, crc, npy->size + bytes, &local);
    w->count++;
    status = cml_buffer_check(&local, err);
  }
  if (!status) status = write_bytes(w, local.data, local.size, err);
  if (!status) status = write_bytes(w, npy->data, npy->size, err);
  if (!status) status = write_bytes(w, data, bytes, err);
  cml_buffer_free(npy);
  cml_buffer_free(&local);
  return status;
}

static cml_status count_bytes(cml_dtype dtype, size_t rank, const int64_t *dims, uint64_t *bytes, cml_error *err) {
  uint64_t count = 1;
  for (size_t i = 0; i < rank; i++) count *= (uint64_t)dims[i];
  return cml_dtype_bytes(dtype, count, bytes) ? CML_OK : cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "an array is too large");
}

cml_status cml_npz_add(cml_npz_writer *w, const char *name, cml_dtype dtype, size_t rank, const int64_t *dims, const void *data,
                       cml_error *err) {
  cml_buffer npy = CML_BUFFER_INIT;
  uint64_t bytes = 0;
  if (dtype == CML_STRING) {
    put_strings(&npy, rank, dims, data);
  } else {
    CML_TRY(count_bytes(dtype, rank, dims, &bytes, err));
    CML_TRY(cml_npy_header(dtype, rank, dims, &npy, err));
  }
  return add_member(w, name, &npy, data, bytes, err);
}

cml_status cml_npz_add_complex(cml_npz_writer *w, const char *name, cml_dtype dtype, size_t rank, const int64_t *dims, const void *data,
                               cml_error *err) {
  cml_buffer npy = CML_BUFFER_INIT;
  uint64_t bytes;
  if ((dtype != CML_F32 && dtype != CML_F64) || !rank || dims[rank - 1] != 2)
    return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "NumPy has no complex numbers of such parts");
  CML_TRY(count_bytes(dtype, rank, dims, &bytes, err));
  cml_npy_header_descr(dtype == CML_F32 ? "<c8" : "<c16", rank - 1, dims, &npy);
  return add_member(w, name, &npy, data, bytes, err);
}

static void put_end(cml_npz_writer *w, cml_buffer *end) {
  uint64_t at = w->written, size = w->directory.size;
  bool large = at >= UINT32_MAX || w->count >= UINT16_MAX;
  if (large) {
    put(end, END64_SIGNATURE, 4), put(end, 44, 8), put(end, 45, 2), put(end, 45, 2), put(end, 0, 4), put(end, 0, 4);
    put(end, w->count, 8), put(end, w->count, 8), put(end, size, 8), put(end, at, 8);
    put(end, LOCATOR64_SIGNATURE, 4), put(end, 0, 4), put(end, at + size, 8), put(end, 1, 4);
  }
  put(end, END_SIGNATURE, 4), put(end, 0, 2), put(end, 0, 2);
  put(end, large ? UINT16_MAX : w->count, 2), put(end, large ? UINT16_MAX : w->count, 2);
  put(end, size, 4), put(end, large ? UINT32_MAX : at, 4), put(end, 0, 2);
}

cml_status cml_npz_finish(cml_npz_writer *w, bool keep, cml_error *err) {
  cml_buffer end = CML_BUFFER_INIT;
  cml_status status = CML_OK;
  if (keep) {
    put_end(w, &end);
    status = cml_buffer_check(w->directory.failed ? &w->directory : &end, err);
    if (!status) status = write_bytes(w, w->directory.data, w->directory.size, err);
    if (!status) status = write_bytes(w, end.data, end.size, err);
  }
  if (fclose(w->file) && keep && !status) status = cml_fail_errno(err, errno, "cannot write");
  if (keep && !status && w->temporary) {
    if (rename(w->temporary, w->path)) status = cml_fail_errno(err, errno, "cannot rename to %s", w->path);
    else free(w->temporary), w->temporary = NULL;
  }
  cml_buffer_free(&end);
  writer_free(w);
  return status;
}
