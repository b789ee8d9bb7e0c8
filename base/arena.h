/* An arena: many small allocations, freed at once. Parse results live in one.
 * Not thread-safe; memory is aligned to 16 bytes. */
#ifndef CML_ARENA_H
#define CML_ARENA_H

#include "span.h"

typedef struct cml_arena_chunk cml_arena_chunk;

typedef struct cml_arena {
  cml_arena_chunk *chunks; /* newest first */
  size_t used, capacity;   /* of the newest chunk */
  size_t total;            /* bytes asked of the system so far */
  size_t limit;            /* 0: none; else no more than this many bytes in all */
  bool limited;            /* an allocation failed because of the limit */
} cml_arena;

/* All zero bytes are an empty arena without a limit. */
#define CML_ARENA_INIT {NULL, 0, 0, 0, 0, false}

/* Zeroed memory, or NULL when memory (or the limit) is exhausted. size 0 gives a valid pointer. */
CML_API void *cml_arena_alloc(cml_arena *arena, size_t size);
/* The same for count * size; NULL on overflow. */
CML_API void *cml_arena_array(cml_arena *arena, size_t count, size_t size);
CML_API char *cml_arena_text(cml_arena *arena, const char *text, size_t size); /* a copy with NUL behind it */
CML_API char *cml_arena_printf(cml_arena *arena, const char *format, ...) CML_PRINTF(2, 3);
/* Bytes of it that are in use. */
static inline size_t cml_arena_filled(const cml_arena *arena) { return arena->total - (arena->capacity - arena->used); }
/* Frees everything; the arena is empty and usable again. NULL is accepted. */
CML_API void cml_arena_free(cml_arena *arena);

#define CML_ARENA_NEW(arena, type) ((type *)cml_arena_alloc((arena), sizeof(type)))
#define CML_ARENA_NEW_ARRAY(arena, type, count) ((type *)cml_arena_array((arena), (count), sizeof(type)))

#endif
