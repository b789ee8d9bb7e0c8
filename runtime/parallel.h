/* Threads for operators. A pool with one thread starts none; idle ones sleep. */
#ifndef CML_PARALLEL_H
#define CML_PARALLEL_H

#include "error.h"

typedef struct cml_pool cml_pool;

/* threads 0: one per available core. */
CML_API CML_NODISCARD cml_status cml_pool_create(size_t threads, cml_pool **out, cml_error *err);
CML_API void cml_pool_destroy(cml_pool *pool);
CML_API size_t cml_pool_threads(const cml_pool *pool); /* 1 for NULL */

/* Calls body(context, begin, end) over disjoint ranges that cover [0, count), each of at least `grain` items but the last
 * few; on the calling thread alone when pool is NULL or the work is small. Returns when all are done: it waits for pieces that
 * workers have begun, not for workers. Any number of threads may call at once, and a body may call again. */
CML_API void cml_parallel(cml_pool *pool, size_t count, size_t grain, void (*body)(void *context, size_t begin, size_t end),
                          void *context);
/* The same with the index of the thread, 0 to threads - 1, for scratch of its own. */
CML_API void cml_parallel_with_thread(cml_pool *pool, size_t count, size_t grain,
                                      void (*body)(void *context, size_t thread, size_t begin, size_t end), void *context);

/* The same on at most `most` threads, whose indices are below that: for scratch that many threads would make large. */
CML_API void cml_parallel_among(cml_pool *pool, size_t most, size_t count, size_t grain,
                                void (*body)(void *context, size_t thread, size_t begin, size_t end), void *context);
/* The same for a body that does not ask which thread it is. */
CML_API void cml_parallel_most(cml_pool *pool, size_t most, size_t count, size_t grain, void (*body)(void *context, size_t begin, size_t end),
                               void *context);

/* Called after each piece of work that threads shared, on the thread that did it: 0 for a caller, 1 to threads - 1 for the workers;
 * times as CLOCK_MONOTONIC. Several threads may call at once; all have returned when cml_parallel does. What one thread did alone,
 * because it was little, is no piece. */
typedef void cml_pool_observe(void *context, size_t thread, uint64_t begin_ns, uint64_t end_ns);
/* While nobody uses the pool. NULL switches it off. */
CML_API void cml_pool_watch(cml_pool *pool, cml_pool_observe *observe, void *context);

#endif
