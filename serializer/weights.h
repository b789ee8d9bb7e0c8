/* A program's values and the weight files (blob.h) that they lie in: bound when a model is read, written when it is saved. */
#ifndef CML_WEIGHTS_H
#define CML_WEIGHTS_H

#include "blob.h"
#include "mil.h"
#include "sink.h"

/* Checks the record at `offset` of a weight file and gives its data. dtype and count say what is expected: a mismatch is
 * CML_MISMATCH. fewer: a uint8 blob may be shorter (packed indices). Offsets in errors count from the file's start. */
CML_API CML_NODISCARD cml_status cml_blob_find(cml_span file, uint64_t offset, cml_dtype dtype, uint64_t count, bool fewer,
                                               cml_span *out, cml_error *err);

/* Writes a weight file in two passes, so that memory does not depend on the weights: first every blob is announced and gets
 * its offset, then the file is written as a stream. The blobs' bytes must stay valid until then. */
typedef struct cml_blob_writer cml_blob_writer;

/* share: blobs of the same type and bytes are stored once. */
CML_API CML_NODISCARD cml_status cml_blob_writer_create(bool share, cml_blob_writer **out, cml_error *err);
CML_API void cml_blob_writer_destroy(cml_blob_writer *writer); /* NULL is accepted */
/* data: count elements of dtype, packed as the dtype says. out_offset: what a BLOB value's offset must be. */
CML_API CML_NODISCARD cml_status cml_blob_writer_add(cml_blob_writer *writer, cml_dtype dtype, uint64_t count, cml_span data,
                                                     uint64_t *out_offset, cml_error *err);
CML_API uint64_t cml_blob_writer_size(const cml_blob_writer *writer); /* bytes of the file, so far */
CML_API CML_NODISCARD cml_status cml_blob_writer_write(const cml_blob_writer *writer, cml_sink sink, cml_error *err);

/* Saves an ML Program as a new .mlpackage at `path`, which must not exist, atomically (see cml_node_write). Bound BLOB
 * values of all functions are written into one new weight.bin, equal ones once; unbound ones are CML_ARGUMENT. Items of the
 * model's own package that are neither the model nor its weights are kept. The model itself is not changed. */
CML_API CML_NODISCARD cml_status cml_model_write_package(const cml_model *model, const char *path, cml_error *err);

/* Calls `visit` for every value in a program, outermost first; op is NULL for values that stand outside of operations. */
typedef cml_status cml_mil_visit(void *context, const cml_mil_op *op, cml_mil_value *value, cml_error *err);
CML_API CML_NODISCARD cml_status cml_mil_each_value(const cml_mil_program *program, cml_mil_visit *visit, void *context,
                                                    cml_error *err);

#endif
