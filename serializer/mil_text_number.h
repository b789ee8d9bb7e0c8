/* Numbers in .mil text: C99 hexadecimal floats, read and written exactly. */
#ifndef CML_MIL_TEXT_NUMBER_H
#define CML_MIL_TEXT_NUMBER_H

#include "buffer.h"
#include "dtype.h"

/* Enough for every number that cml_mil_number_print writes. */
enum { CML_MIL_NUMBER_SIZE = 48 };

/* Reads a number of a float type (F16, BF16, F32, F64) at [p, end): hexadecimal ("-0x1.8p-3"), decimal, "nan",
 * "nan(0x1)" (a payload), "inf", "infinity". Rounds to nearest, ties to even; too large becomes infinite.
 * Returns the first byte behind the number, or NULL when there is none. */
const uint8_t *cml_mil_number_float(const uint8_t *p, const uint8_t *end, cml_dtype type, uint64_t *out_bits);
/* Reads an integer ("-3", "0x1F") of an integer type; *out_bits is its two's complement. NULL when there is none,
 * or (*out_range false) when it does not fit the type. */
const uint8_t *cml_mil_number_integer(const uint8_t *p, const uint8_t *end, cml_dtype type, uint64_t *out_bits, bool *out_range);
/* Writes one element; returns its length (no NUL). Subnormals are normalized, as Apple's %a does. */
size_t cml_mil_number_print(char *out, cml_dtype type, uint64_t bits);

#endif
