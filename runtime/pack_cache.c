/* The file: a header of 64 bytes, a directory (for each piece key, place and size; then a checksum for each 256 KiB of the
 * data), the data. The directory is checked as a whole. So is the data up to 16 MiB of it; of more, as many blocks spread over
 * all of it, for a load shall take milliseconds. Numbers are in the machine's byte order: the file never leaves it. */
#include "pack_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels.h"
#include "mapping.h"

enum {
  FORMAT = 15,             /* another one whenever packed weights look different */
  SMALLEST = 4096,        /* bytes of a piece worth keeping */
  BLOCK = 1 << 18,        /* bytes under one checksum */
  BLOCKS_CHECKED = 64,
  SAMPLE = 64, SAMPLES = 16, /* bytes, and places in a source */
  MOST_PIECES = 1 << 20
};

typedef struct hash128 {
  uint64_t a, b;
} hash128;

typedef struct file_header {
  char magic[8];
  uint64_t format, size, pieces, data, directory_sum;
  hash128 program;
} file_header;

typedef struct piece {
  hash128 key;
  uint64_t offset, size;
} piece;

struct cml_pack_cache {
  char *folder, *path;
  hash128 program;
  cml_pool *pool;
  cml_mapping *mapping; /* NULL: nothing was found */
  const piece *pieces;
  size_t piece_count;
  struct fresh {
    piece piece;
    const void *data;
  } *fresh; /* all pieces of this load, found or packed, as they are written */
  size_t fresh_count, fresh_capacity;
  size_t shared, next; /* the first pieces are of earlier graphs; after the last that was found of all */
  bool *asked;            /* by piece */
  uint64_t found, packed, bytes, saved; /* saved: of packed, what the file has */
  bool mapped;        /* only pieces of mapped sources are looked for */
  bool written, lost; /* lost: a piece could not be noted; the file would be incomplete */
};

static const char magic[8] = "CMLPACK";

/* ---- hashing ---- */

static uint64_t rotate(uint64_t x, int n) { return x << n | x >> (64 - n); }

static uint64_t finish(uint64_t x) {
  x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
  x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
  return x ^ x >> 32;
}

/* Four chains of multiplications: about as fast as memory. */
static uint64_t hash_bytes(const void *data, size_t size, uint64_t seed) {
  static const uint64_t prime = UINT64_C(0x9e3779b185ebca87);
  uint64_t h[4] = {seed, ~seed, seed * prime, rotate(seed, 31)}, word;
  const unsigned char *p = data;
  size_t left = size;
  for (; left >= 32; left -= 32, p += 32)
    for (int i = 0; i < 4; i++) {
      memcpy(&word, p + 8 * i, 8);
      h[i] = rotate((h[i] ^ word) * prime, 29);
    }
  for (; left; left--) h[left % 4] = rotate((h[left % 4] ^ *p++) * prime, 29);
  return finish(finish(h[0] + size) + finish(h[1]) * 3 + finish(h[2]) * 5 + finish(h[3]) * 7);
}

static void mix(hash128 *h, const void *data, size_t size) {
  h->a = hash_bytes(data, size, h->a + 1);
  h->b = hash_bytes(data, size, rotate(h->b, 17) + 2);
}

static void mix_text(hash128 *h, const char *text) { mix(h, text ? text : "", text ? strlen(text) + 1 : 1); }

static bool same(hash128 x, hash128 y) { return x.a == y.a && x.b == y.b; }

/* What the bytes are: whose, and a sample of them. False, and nothing mixed, of bytes that lie in no file when only `mapped` ones are wanted. */
static bool mix_source(hash128 *h, const void *data, size_t size, bool mapped) {
  uint64_t identity[5];
  if (size <= (size_t)SAMPLE * SAMPLES || !cml_mapping_identify(data, size, identity)) {
    if (!mapped) mix(h, data, size);
    return !mapped;
  }
  mix(h, identity, sizeof identity);
  for (size_t i = 0; i < SAMPLES; i++) mix(h, (const char *)data + (size - SAMPLE) / (SAMPLES - 1) * i, SAMPLE);
  return true;
}

static hash128 hash_program(const cml_mil_function *f, const char *salt) {
  const cml_kernels *k = cml_kernels_get();
  const cml_mil_block *body = cml_mil_body(f);
  uint64_t numbers[] = {FORMAT, k->width, k->tile_rows, k->tile_columns, body ? body->op_count : 0};
  hash128 h = {0, 0};
  mix(&h, numbers, sizeof numbers);
  mix_text(&h, CML_VERSION);
  mix_text(&h, k->name);
  mix_text(&h, f->name);
  mix_text(&h, salt);
  for (size_t i = 0; body && i < body->op_count; i++) {
    const cml_mil_op *op = body->ops[i];
    mix_text(&h, op->type);
    mix_text(&h, cml_mil_op_name(op));
    const cml_mil_value *v = cml_mil_attribute_find(&op->attributes, "val");
    if (v && v->kind == CML_VALUE_BLOB) mix(&h, &v->offset, sizeof v->offset);
  }
  return h;
}

/* ---- reading ---- */

typedef struct check_context {
  const unsigned char *data;
  const uint64_t *sums;
  size_t size, blocks, checked;
  atomic_bool bad;
} check_context;

static uint64_t block_sum(const unsigned char *data, size_t size, size_t block) {
  size_t begin = block * BLOCK, n = size - begin < BLOCK ? size - begin : BLOCK;
  return hash_bytes(data + begin, n, block);
}

static void check_blocks(void *context, size_t begin, size_t end) {
  check_context *c = context;
  for (size_t i = begin; i < end; i++) {
    size_t block = c->blocks <= c->checked ? i : (size_t)((uint64_t)i * (c->blocks - 1) / (c->checked - 1));
    if (block_sum(c->data, c->size, block) != c->sums[block]) atomic_store(&c->bad, true);
  }
}

static bool valid(cml_pack_cache *c, cml_span file) {
  file_header h;
  if (file.size < sizeof h) return false;
  memcpy(&h, file.data, sizeof h);
  if (memcmp(h.magic, magic, 8) || h.format != FORMAT || h.size != file.size || !same(h.program, c->program)) return false;
  if (h.pieces > MOST_PIECES || h.data > h.size || h.data % 64 || h.data < sizeof h) return false;
  uint64_t room = h.data - sizeof h, blocks = (h.size - h.data + BLOCK - 1) / BLOCK, need = h.pieces * sizeof(piece) + blocks * 8;
  if (need > room || hash_bytes(file.data + sizeof h, (size_t)room, h.pieces) != h.directory_sum) return false;
  c->pieces = (const piece *)(const void *)(file.data + sizeof h);
  c->piece_count = (size_t)h.pieces;
  for (size_t i = 0; i < c->piece_count; i++) {
    const piece *p = &c->pieces[i];
    if (p->offset < h.data || p->offset % 64 || p->offset > h.size || p->size > h.size - p->offset) return false;
  }
  check_context check = {.data = file.data + h.data, .sums = (const uint64_t *)(const void *)(c->pieces + c->piece_count), .size = (size_t)(h.size - h.data),
                         .blocks = (size_t)blocks, .checked = blocks < BLOCKS_CHECKED ? (size_t)blocks : BLOCKS_CHECKED};
  atomic_init(&check.bad, false);
  cml_parallel(c->pool, check.checked, 1, check_blocks, &check);
  return !atomic_load(&check.bad);
}

static void open_file(cml_pack_cache *c) {
  if (cml_mapping_open(c->path, &c->mapping, NULL)) return;
  if (valid(c, cml_mapping_span(c->mapping)) && (c->asked = calloc(c->piece_count + 1, sizeof *c->asked))) return;
  cml_mapping_unref(c->mapping);
  c->mapping = NULL;
  c->pieces = NULL;
  c->piece_count = 0;
}

cml_status cml_pack_cache_open(const char *folder, const cml_mil_function *function, const char *salt, cml_pool *pool, bool mapped, cml_pack_cache **out,
                               cml_error *err) {
  cml_pack_cache *c = calloc(1, sizeof *c);
  if (!c) return cml_fail_memory(err);
  *out = c;
  c->mapped = mapped;
  if (!folder) return CML_OK;
  size_t n = strlen(folder) + 64;
  c->folder = strdup(folder), c->path = malloc(n);
  if (!c->folder || !c->path) {
    *out = NULL;
    cml_pack_cache_destroy(c);
    return cml_fail_memory(err);
  }
  c->pool = pool;
  c->program = hash_program(function, salt);
  snprintf(c->path, n, "%s/%016llx%016llx.cmlpack", folder, (unsigned long long)c->program.a, (unsigned long long)c->program.b);
  (void)mkdir(folder, 0777);
  open_file(c);
  return CML_OK;
}

void cml_pack_cache_begin(cml_pack_cache *c) {
  if (c) c->shared = c->fresh_count, c->next = 0;
}

void cml_pack_cache_undo(cml_pack_cache *c) {
  if (c) c->fresh_count = c->shared;
}

void cml_pack_cache_destroy(cml_pack_cache *c) {
  if (!c) return;
  cml_mapping_unref(c->mapping);
  free(c->asked);
  free(c->fresh);
  free(c->folder);
  free(c->path);
  free(c);
}

void cml_pack_cache_counts(const cml_pack_cache *c, uint64_t *found, uint64_t *packed, uint64_t *bytes, bool *written) {
  *found = c ? c->found : 0;
  *packed = c ? c->packed : 0;
  *bytes = c ? c->bytes : 0;
  *written = c && c->written;
}

/* ---- pieces ---- */

static void note(cml_pack_cache *c, hash128 key, const void *data, size_t size) {
  if (c->fresh_count == c->fresh_capacity) {
    size_t capacity = c->fresh_capacity ? c->fresh_capacity * 2 : 64;
    struct fresh *fresh = realloc(c->fresh, capacity * sizeof *fresh);
    if (!fresh) {
      c->lost = true;
      return;
    }
    c->fresh = fresh;
    c->fresh_capacity = capacity;
  }
  c->fresh[c->fresh_count++] = (struct fresh){{key, 0, size}, data};
}

/* Of the executable's other graphs, which asked in the same order, or of this graph: steps may have the same weights. */
static const void *find_shared(cml_pack_cache *c, hash128 key, size_t size) {
  for (size_t i = 0; i < c->fresh_count; i++) {
    size_t at = (c->next + i) % c->fresh_count;
    if (!same(c->fresh[at].piece.key, key) || c->fresh[at].piece.size != size) continue;
    c->next = at + 1;
    return c->fresh[at].data;
  }
  return NULL;
}

static const void *find(cml_pack_cache *c, hash128 key, size_t size) {
  for (size_t i = 0; i < c->piece_count; i++) {
    const piece *p = &c->pieces[(c->fresh_count + i) % c->piece_count]; /* they are asked for in the order in which they were written */
    if (!same(p->key, key) || p->size != size) continue;
    c->asked[p - c->pieces] = true;
    return cml_mapping_span(c->mapping).data + p->offset;
  }
  return NULL;
}

void *cml_call_keep_packed(cml_call *c, size_t size, const cml_tensor *source, const int64_t *layout, size_t count, bool *ready, cml_error *err) {
  cml_pack_cache *cache = c->cache;
  uint64_t bytes;
  *ready = false;
  if (!cache || size < SMALLEST || !cml_tensor_bytes(source, &bytes)) return cml_call_keep(c, size, err);
  hash128 key = {size, (uint64_t)source->dtype};
  mix(&key, layout, count * sizeof *layout);
  mix_text(&key, c->op->name);
  mix(&key, source->dims, (size_t)source->rank * sizeof *source->dims);
  if (!mix_source(&key, source->data, (size_t)bytes, cache->mapped)) return cml_call_keep(c, size, err);
  void *data = (void *)(uintptr_t)find_shared(cache, key, size);
  if (data) {
    *ready = true;
    return data;
  }
  if ((data = (void *)(uintptr_t)find(cache, key, size))) {
    *ready = true;
    cache->found++;
    cache->bytes += size;
  } else {
    if (!(data = cml_call_keep(c, size, err))) return NULL;
    cache->packed += !cache->mapped; /* what is said of a file */
  }
  note(cache, key, data, size);
  return data;
}

/* ---- writing ---- */

static bool write_all(int fd, const void *data, size_t size, uint64_t at) {
  const char *p = data;
  while (size) {
    ssize_t n = pwrite(fd, p, size < (1u << 30) ? size : 1u << 30, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    size -= (size_t)n;
    at += (uint64_t)n;
  }
  return true;
}

static uint64_t up(uint64_t x, uint64_t to) { return (x + to - 1) / to * to; }

/* The sums are over the file's data with the gaps between pieces, so they are taken of the file once it is written. */
static bool write_file(cml_pack_cache *c, int fd) {
  uint64_t at = 0, size = 0;
  for (size_t i = 0; i < c->fresh_count; i++) {
    size = up(size, 64) + c->fresh[i].piece.size;
  }
  uint64_t blocks = (size + BLOCK - 1) / BLOCK, room = up(c->fresh_count * sizeof(piece) + blocks * 8 + sizeof(file_header), 4096) - sizeof(file_header);
  file_header h = {.format = FORMAT, .pieces = c->fresh_count, .data = room + sizeof h, .size = room + sizeof h + size, .program = c->program};
  memcpy(h.magic, magic, sizeof magic);
  unsigned char *directory = calloc(1, (size_t)room);
  if (!directory) return false;
  bool ok = ftruncate(fd, (off_t)h.size) == 0;
  piece *pieces = (piece *)(void *)directory;
  uint64_t *sums = (uint64_t *)(void *)(pieces + c->fresh_count);
  for (size_t i = 0; ok && i < c->fresh_count; i++) {
    at = up(at, 64);
    pieces[i] = c->fresh[i].piece;
    pieces[i].offset = h.data + at;
    ok = write_all(fd, c->fresh[i].data, (size_t)pieces[i].size, pieces[i].offset);
    at += pieces[i].size;
  }
  unsigned char *block = ok ? malloc(BLOCK) : NULL;
  ok = block != NULL;
  for (uint64_t b = 0; ok && b < blocks; b++) {
    size_t n = size - b * BLOCK < BLOCK ? (size_t)(size - b * BLOCK) : BLOCK;
    ok = pread(fd, block, n, (off_t)(h.data + b * BLOCK)) == (ssize_t)n;
    if (ok) sums[b] = hash_bytes(block, n, b);
  }
  free(block);
  h.directory_sum = hash_bytes(directory, (size_t)room, h.pieces);
  ok = ok && write_all(fd, directory, (size_t)room, sizeof h) && write_all(fd, &h, sizeof h, 0);
  free(directory);
  return ok && fdatasync(fd) == 0;
}

/* What the file has for other shapes stays in it, unless that is most of it. */
static void keep_unasked(cml_pack_cache *c) {
  uint64_t unasked = 0, asked = 0;
  for (size_t i = 0; i < c->fresh_count; i++) asked += c->fresh[i].piece.size;
  for (size_t i = 0; i < c->piece_count; i++) unasked += c->asked[i] ? 0 : c->pieces[i].size;
  for (size_t i = 0; i < c->piece_count && unasked <= asked; i++)
    if (!c->asked[i]) note(c, c->pieces[i].key, cml_mapping_span(c->mapping).data + c->pieces[i].offset, (size_t)c->pieces[i].size), c->asked[i] = true;
}

void cml_pack_cache_write(cml_pack_cache *c) {
  if (!c || !c->path || c->packed == c->saved || c->lost) return;
  c->saved = c->packed;
  keep_unasked(c);
  size_t n = strlen(c->path) + 16;
  char *temporary = malloc(n);
  if (!temporary) return;
  snprintf(temporary, n, "%s.XXXXXX", c->path);
  int fd = mkostemp(temporary, O_CLOEXEC);
  if (fd >= 0) {
    bool ok = write_file(c, fd);
    ok = close(fd) == 0 && ok;
    c->written = ok && rename(temporary, c->path) == 0;
    if (!c->written) (void)unlink(temporary);
  }
  free(temporary);
}
