/* The words of .mil text that its reader and its writer share. */
#ifndef CML_MIL_TEXT_WORDS_H
#define CML_MIL_TEXT_WORDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "span.h"

static inline bool cml_mil_name_start(uint8_t c) { return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_'; }
static inline bool cml_mil_name_part(uint8_t c) {
  return cml_mil_name_start(c) || (c >= '0' && c <= '9') || c == '@' || c == '$' || c == '.' || c == ':';
}

/* Whether a name needs no quotes. */
static inline bool cml_mil_name_plain(const char *name) {
  if (!cml_mil_name_start((uint8_t)*name)) return false;
  for (const char *p = name; *p; p++)
    if (!cml_mil_name_part((uint8_t)*p)) return false;
  return true;
}

static inline bool cml_mil_hex(const uint8_t *p, size_t size, uint64_t *out) {
  *out = 0;
  for (size_t i = 0; i < size; i++) {
    uint8_t c = p[i], letter = c | 0x20;
    bool digit = c >= '0' && c <= '9', hex = letter >= 'a' && letter <= 'f';
    if (!digit && !hex) return false;
    *out = *out << 4 | (uint64_t)(digit ? c - '0' : letter - 'a' + 10);
  }
  return true;
}

/* Opsets: the protobuf names Core ML's version, the text the system's. Unknown ones pass through. */
static const struct { const char *text, *proto; } cml_mil_opsets[] = {
    {"ios13", "CoreML3"}, {"ios14", "CoreML4"}, {"ios15", "CoreML5"}, {"ios16", "CoreML6"},
    {"ios17", "CoreML7"}, {"ios18", "CoreML8"}, {"ios26", "CoreML9"}};

static inline const char *cml_mil_opset_from_text(const char *text) {
  for (size_t i = 0; i < sizeof cml_mil_opsets / sizeof *cml_mil_opsets; i++)
    if (!strcmp(text, cml_mil_opsets[i].text)) return cml_mil_opsets[i].proto;
  return text;
}

static inline const char *cml_mil_opset_to_text(const char *proto) {
  for (size_t i = 0; i < sizeof cml_mil_opsets / sizeof *cml_mil_opsets; i++)
    if (!strcmp(proto, cml_mil_opsets[i].proto)) return cml_mil_opsets[i].text;
  return proto;
}

#endif
