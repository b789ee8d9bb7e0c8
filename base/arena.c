/* Chunks double up to 1 MiB, so that a small file costs one small chunk and a large one few calls;
 * an allocation that fits no chunk gets one of its own. */
#include "arena.h"

#include <stdio.h>
#include <stdlib.h>

struct cml_arena_chunk {
  _Alignas(16) cml_arena_chunk *next;
};

enum { FIRST_CHUNK = 4096, LARGEST_CHUNK = 1 << 20 };

static unsigned char *chunk_bytes(cml_arena_chunk *c) { return (unsigned char *)(c + 1); }

static cml_arena_chunk *chunk_create(cml_arena *arena, size_t size) {
  if (size > SIZE_MAX - sizeof(cml_arena_chunk)) return NULL;
  size_t bytes = size + sizeof(cml_arena_chunk);
  if (arena->limit && (bytes > arena->limit || arena->total > arena->limit - bytes)) {
    arena->limited = true;
    return NULL;
  }
  cml_arena_chunk *c = calloc(1, bytes);
  if (c) arena->total += bytes;
  return c;
}

void *cml_arena_alloc(cml_arena *arena, size_t size) {
  if (size > SIZE_MAX - 15) return NULL;
  size = size ? (size + 15) & ~(size_t)15 : 16;
  if (size > arena->capacity - arena->used) {
    size_t next = arena->capacity ? arena->capacity * 2 : FIRST_CHUNK;
    if (next > LARGEST_CHUNK) next = LARGEST_CHUNK;
    cml_arena_chunk *c = chunk_create(arena, size > next ? size : next);
    if (!c) return NULL;
    if (size > next && arena->chunks) { /* a large one: keep filling the current chunk */
      c->next = arena->chunks->next;
      arena->chunks->next = c;
      return chunk_bytes(c);
    }
    c->next = arena->chunks;
    arena->chunks = c;
    arena->used = 0;
    arena->capacity = size > next ? size : next;
  }
  void *p = chunk_bytes(arena->chunks) + arena->used;
  arena->used += size;
  return p;
}

void *cml_arena_array(cml_arena *arena, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
  return cml_arena_alloc(arena, bytes);
}

char *cml_arena_text(cml_arena *arena, const char *text, size_t size) {
  if (size == SIZE_MAX) return NULL;
  char *copy = cml_arena_alloc(arena, size + 1);
  if (copy && size) memcpy(copy, text, size);
  return copy;
}

char *cml_arena_printf(cml_arena *arena, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, format, args);
  va_end(args);
  char *text = n < 0 ? NULL : cml_arena_alloc(arena, (size_t)n + 1);
  if (text) vsnprintf(text, (size_t)n + 1, format, again);
  va_end(again);
  return text;
}

void cml_arena_free(cml_arena *arena) {
  if (!arena) return;
  for (cml_arena_chunk *c = arena->chunks, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  size_t limit = arena->limit;
  *arena = (cml_arena)CML_ARENA_INIT;
  arena->limit = limit;
}
