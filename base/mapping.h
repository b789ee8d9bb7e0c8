/* A file mapped once, read-only, and shared by everything that holds a span of it. */
#ifndef CML_MAPPING_H
#define CML_MAPPING_H

#include "span.h"

typedef struct cml_mapping cml_mapping;

/* Maps a regular file. An empty file gives an empty span. On success the caller holds one reference. */
CML_API CML_NODISCARD cml_status cml_mapping_open(const char *path, cml_mapping **out, cml_error *err);
/* The same below an open folder, without following a symbolic link in the last component. */
CML_API CML_NODISCARD cml_status cml_mapping_open_at(int folder_fd, const char *name, cml_mapping **out, cml_error *err);
/* The same for an open descriptor, which the mapping takes: it is closed on failure too. */
CML_API CML_NODISCARD cml_status cml_mapping_from_fd(int fd, const char *path, cml_mapping **out, cml_error *err);
/* Bytes that are owned instead of mapped (say, an archive's member); takes `data`, which free() will free. */
CML_API CML_NODISCARD cml_status cml_mapping_own(void *data, size_t size, const char *path, cml_mapping **out, cml_error *err);

CML_API cml_mapping *cml_mapping_ref(cml_mapping *mapping); /* thread-safe */
CML_API void cml_mapping_unref(cml_mapping *mapping);       /* thread-safe; NULL is accepted */
/* Lets go of the pages of a mapped file that lie wholly within these bytes: they stop counting as the process's memory and come
 * back from the page cache, or the disk, when they are read again. Nothing happens to bytes that lie in no mapped file. */
CML_API void cml_mapping_drop(const void *data, size_t size); /* thread-safe */
/* Whose these bytes are: the device, inode, size and time of change (ns) of the mapped file they lie in, when it was mapped, and the place
 * of the first in it; false for bytes that lie in no mapped file. */
CML_API bool cml_mapping_identify(const void *data, size_t size, uint64_t out[5]); /* thread-safe */

CML_API cml_span cml_mapping_span(const cml_mapping *mapping);
CML_API const char *cml_mapping_path(const cml_mapping *mapping); /* as given at open; for messages */
/* The file's descriptor, kept open for readers that want pread or copy_file_range; -1 for owned bytes. */
CML_API int cml_mapping_fd(const cml_mapping *mapping);

#endif
