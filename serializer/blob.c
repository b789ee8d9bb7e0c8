/* The header's count is believed only as far as records follow: the file's size bounds the work. */
#include "blob.h"

#include "checked.h"

/* Numbers of MIL's blob storage; 8-bit floats have no cml_dtype yet. */
static const struct {
  cml_dtype dtype;
  uint8_t bits;
  const char *name;
} types[] = {
    {CML_DTYPE_NONE, 0, "?"}, {CML_F16, 16, "fp16"},  {CML_F32, 32, "fp32"},   {CML_U8, 8, "uint8"},
    {CML_I8, 8, "int8"},      {CML_BF16, 16, "bf16"}, {CML_I16, 16, "int16"},  {CML_U16, 16, "uint16"},
    {CML_I4, 4, "int4"},      {CML_U1, 1, "uint1"},   {CML_U2, 2, "uint2"},    {CML_U4, 4, "uint4"},
    {CML_U3, 3, "uint3"},     {CML_U6, 6, "uint6"},   {CML_I32, 32, "int32"},  {CML_U32, 32, "uint32"},
    {CML_DTYPE_NONE, 8, "fp8e4m3fn"}, {CML_DTYPE_NONE, 8, "fp8e5m2"},
};

uint32_t cml_blob_type_number(cml_dtype type) {
  if (type == CML_BOOL) type = CML_U8;
  for (uint32_t i = 1; type && i < sizeof types / sizeof *types; i++)
    if (types[i].dtype == type) return i;
  return 0;
}

cml_status cml_blobs_begin(cml_span file, cml_blobs *out, cml_error *err) {
  if (file.size < CML_BLOB_HEADER)
    return cml_fail(err, CML_INVALID, file.size, "a weight file starts with a header of 64 bytes, found %zu", file.size);
  uint32_t version = cml_load_u32(file.data + 4);
  if (version != CML_BLOB_VERSION) return cml_fail(err, CML_UNSUPPORTED, 4, "blob storage version %u, expected 2", version);
  *out = (cml_blobs){file, cml_load_u32(file.data), 0, CML_BLOB_HEADER};
  return CML_OK;
}

cml_status cml_blob_at(cml_span file, uint64_t offset, cml_blob *out, cml_error *err) {
  cml_span record, data;
  if (offset % CML_BLOB_ALIGNMENT) return cml_fail(err, CML_INVALID, offset, "a blob's record is not aligned to 64 bytes");
  if (!cml_span_slice(file, offset, CML_BLOB_RECORD, &record))
    return cml_fail(err, CML_INVALID, offset, "a blob's record of 64 bytes lies past the end of the file at %zu", file.size);
  uint32_t sentinel = cml_load_u32(record.data), type = cml_load_u32(record.data + 4);
  uint64_t size = cml_load_u64(record.data + 8), at = cml_load_u64(record.data + 16), padding = cml_load_u64(record.data + 24);
  if (sentinel != CML_BLOB_SENTINEL)
    return cml_fail(err, CML_INVALID, offset, "a blob's record starts with 0x%08x, expected 0xdeadbeef", sentinel);
  if (!type || type >= sizeof types / sizeof *types)
    return cml_fail(err, CML_UNSUPPORTED, offset + 4, "blob of unknown element type %u", type);
  if (at % CML_BLOB_ALIGNMENT) return cml_fail(err, CML_INVALID, offset + 16, "a blob's data at %llu is not aligned to 64 bytes", (unsigned long long)at);
  if (!cml_span_slice(file, at, size, &data))
    return cml_fail(err, CML_INVALID, offset + 8, "a blob of %llu bytes at %llu lies past the end of the file at %zu",
                    (unsigned long long)size, (unsigned long long)at, file.size);
  if (size && at < offset + CML_BLOB_RECORD && at + size > offset)
    return cml_fail(err, CML_INVALID, offset + 16, "a blob's data at %llu overlaps its record", (unsigned long long)at);
  unsigned bits = types[type].bits;
  uint64_t all = (uint64_t)data.size * 8;
  if (bits >= 8 ? padding != 0 || size % (bits / 8) : padding > all || padding >= 8 || (all - padding) % bits)
    return cml_fail(err, CML_INVALID, offset + 24, "a blob of %llu bytes with %llu bits of padding does not hold whole %s elements",
                    (unsigned long long)size, (unsigned long long)padding, types[type].name);
  *out = (cml_blob){offset, at, type, types[type].dtype, types[type].name, (all - padding) / bits, data};
  return CML_OK;
}

cml_status cml_blobs_next(cml_blobs *blobs, cml_blob *out, bool *out_found, cml_error *err) {
  *out_found = false;
  if (blobs->done >= blobs->count) return CML_OK;
  cml_blob blob;
  cml_status status = cml_blob_at(blobs->file, blobs->next, &blob, err);
  if (status) return cml_error_prefix(err, status, "blob %u of %u", blobs->done, blobs->count);
  uint64_t next;
  if (blob.offset < blob.record || !cml_align(blob.offset + blob.data.size, CML_BLOB_ALIGNMENT, &next) || next <= blob.record)
    return cml_fail(err, CML_INVALID, blob.record + 16, "blob %u of %u: its data at %llu lies before its record", blobs->done, blobs->count,
                    (unsigned long long)blob.offset);
  blobs->next = next;
  blobs->done++;
  *out = blob;
  *out_found = true;
  return CML_OK;
}

int cml_blob_element(const cml_blob *blob, uint64_t i) {
  unsigned bits = types[blob->type].bits;
  uint64_t bit = i * bits, byte = bit / 8;
  unsigned value = blob->data.data[byte];
  if (byte + 1 < blob->data.size) value |= (unsigned)blob->data.data[byte + 1] << 8;
  value = value >> bit % 8 & ((1u << bits) - 1);
  return blob->dtype == CML_I4 && value > 7 ? (int)value - 16 : (int)value;
}
