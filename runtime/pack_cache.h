/* Packed weights that are kept: in memory between the graphs of one executable, in a file between loads. Internal to runtime/.
 *
 * A folder of such files is given with cml_prepare_options.cache. One file serves one program with one set of kernels; each
 * piece in it has a key of its own, made of how it was packed and of what. A hash of all weights would cost as much as
 * packing, so that what a source is stands for: the mapped file's device, inode, size and time of change, the place in it, and
 * a sample of its bytes; of bytes that lie in no file, all of them. */
#ifndef CML_PACK_CACHE_H
#define CML_PACK_CACHE_H

#include "mil.h"
#include "op.h"

typedef struct cml_pack_cache cml_pack_cache;

/* Opens the program's file in `folder`, which is made when it is missing; NULL: in memory alone, and with `mapped` only of sources that lie in
 * mapped files, whose names cost nothing: steps of one graph that have the same weights. A file that is not there, or is damaged, leaves the
 * cache empty; only want of memory is an error. `salt`: options that change how weights are packed. */
CML_NODISCARD cml_status cml_pack_cache_open(const char *folder, const cml_mil_function *function, const char *salt, cml_pool *pool, bool mapped,
                                             cml_pack_cache **out, cml_error *err);
/* Writes the file anew when pieces were packed that it lacks; to another name first, so that readers see all of it or the file
 * before. A folder that cannot be written to leaves everything as it is. */
void cml_pack_cache_write(cml_pack_cache *cache);
/* A graph begins: it shares the pieces of those before. And forgets what it made, whose memory is about to go. */
void cml_pack_cache_begin(cml_pack_cache *cache);
void cml_pack_cache_undo(cml_pack_cache *cache);
/* Unmaps; pieces that were found in it are gone. */
void cml_pack_cache_destroy(cml_pack_cache *cache);
/* Pieces found, pieces packed anew, bytes of the former, whether the file was written. */
void cml_pack_cache_counts(const cml_pack_cache *cache, uint64_t *found, uint64_t *packed, uint64_t *bytes, bool *written);

/* Memory for `source` packed into `size` bytes as `layout` (everything that the result depends on beside the source and the
 * kernel table) says. *ready: it is packed already and may only be read. Else as from cml_call_keep: to be filled by prepare. */
void *cml_call_keep_packed(cml_call *c, size_t size, const cml_tensor *source, const int64_t *layout, size_t count, bool *ready, cml_error *err);

#endif
