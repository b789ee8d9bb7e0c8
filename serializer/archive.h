/* Archives (.tar, .tar.gz, .tar.xz, .tar.zst, .zip) as trees, through libarchive and within limits.
 *
 * Members are unpacked once, into an unlinked temporary file that is mapped: memory stays small and contents are spans as
 * everywhere else. Links, special files, absolute paths, "..", and repeated names are refused; the error names the member. */
#ifndef CML_ARCHIVE_H
#define CML_ARCHIVE_H

#include "tree.h"

typedef struct cml_archive_options {
  uint64_t max_bytes;   /* unpacked; 0: 16 GiB */
  uint64_t max_entries; /* 0: one million */
} cml_archive_options;

/* Whether the bytes start like an archive that cml_archive_open takes. */
CML_API bool cml_archive_is(cml_span file);
/* options may be NULL. The result has an unnamed root. */
CML_API CML_NODISCARD cml_status cml_archive_open(cml_span file, const cml_archive_options *options, cml_tree **out, cml_error *err);

#endif
