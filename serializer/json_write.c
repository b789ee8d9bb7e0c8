/* State is a depth and, for each depth, whether a comma is due: enough to write any document as a stream. */
#include "json_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "utf8.h"

static void new_line(cml_json *j) {
  cml_buffer_char(j->out, '\n');
  for (unsigned i = 0; i < j->depth; i++) cml_buffer_text(j->out, "  ");
}

static bool is_flat(const cml_json *j) { return j->flat && j->depth >= j->flat; }

/* What stands before a value or a key; false when nothing may be written any more. */
static bool begin(cml_json *j) {
  if (j->limit && j->out->size > j->limit) j->over = true;
  if (j->over) return false;
  if (j->after_key) return !(j->after_key = false);
  if (!j->depth) return true;
  bool *used = &j->used[j->depth < CML_JSON_DEPTH ? j->depth : CML_JSON_DEPTH - 1];
  if (*used) cml_buffer_text(j->out, is_flat(j) ? ", " : ",");
  *used = true;
  if (!is_flat(j)) new_line(j);
  return true;
}

void cml_json_open(cml_json *j, char bracket) {
  if (!begin(j)) {
    j->depth++;
    return;
  }
  cml_buffer_char(j->out, bracket);
  j->depth++;
  j->used[j->depth < CML_JSON_DEPTH ? j->depth : CML_JSON_DEPTH - 1] = false;
}

void cml_json_open_flat(cml_json *j, char bracket) {
  cml_json_open(j, bracket);
  if (!j->flat) j->flat = j->depth;
}

void cml_json_close(cml_json *j, char bracket) {
  bool used = j->used[j->depth < CML_JSON_DEPTH ? j->depth : CML_JSON_DEPTH - 1], flat = is_flat(j);
  if (j->flat == j->depth) j->flat = 0;
  j->depth--;
  if (j->over) return;
  if (used && !flat) new_line(j);
  cml_buffer_char(j->out, bracket);
  if (!j->depth) cml_buffer_char(j->out, '\n');
}

void cml_json_key_of(cml_json *j, const char *key, size_t size) {
  if (!begin(j)) return;
  cml_buffer_json_string(j->out, key, size);
  cml_buffer_text(j->out, ": ");
  j->after_key = true;
}

void cml_json_key(cml_json *j, const char *key) { cml_json_key_of(j, key, strlen(key)); }

void cml_json_null(cml_json *j) {
  if (!begin(j)) return;
  cml_buffer_text(j->out, "null");
}

void cml_json_text(cml_json *j, const char *text, size_t size) {
  if (!text) {
    cml_json_null(j);
    return;
  }
  if (!begin(j)) return;
  cml_buffer_json_string(j->out, text, size);
}

void cml_json_uint(cml_json *j, uint64_t value) {
  if (!begin(j)) return;
  cml_buffer_printf(j->out, "%llu", (unsigned long long)value);
}

void cml_json_int(cml_json *j, int64_t value) {
  if (!begin(j)) return;
  cml_buffer_printf(j->out, "%lld", (long long)value);
}

void cml_json_bool(cml_json *j, bool value) {
  if (!begin(j)) return;
  cml_buffer_text(j->out, value ? "true" : "false");
}

void cml_json_real(cml_json *j, double value) {
  char text[40];
  if (!begin(j)) return;
  if (!isfinite(value)) {
    cml_buffer_text(j->out, isnan(value) ? "\"nan\"" : value > 0 ? "\"inf\"" : "\"-inf\"");
    return;
  }
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  cml_buffer_text(j->out, text);
}

static bool is_text(cml_span bytes) {
  for (size_t i = 0; i < bytes.size; i++) {
    uint8_t c = bytes.data[i];
    if ((c < 0x20 && c != '\n' && c != '\t' && c != '\r') || c == 0x7f) return false;
  }
  return cml_utf8_valid((const char *)bytes.data, bytes.size);
}

void cml_json_bytes(cml_json *j, cml_span bytes) {
  if (!bytes.size || is_text(bytes)) {
    cml_json_text(j, bytes.size ? (const char *)bytes.data : "", bytes.size);
    return;
  }
  cml_json_open_flat(j, '{');
  cml_json_key(j, "hex");
  if (j->over) {
    cml_json_close(j, '}');
    return;
  }
  cml_buffer_char(j->out, '"');
  for (size_t i = 0; i < bytes.size; i++) cml_buffer_printf(j->out, "%02x", bytes.data[i]);
  cml_buffer_char(j->out, '"');
  j->after_key = false;
  cml_json_close(j, '}');
}
