/* Palettes of several tables in fixed point, what packing (compressed_tables_pack.c) and products (compressed_tables.c) share.
 *
 * A register of codes is R rows that share a table, a register's R-th part for each: 16 rows, 4 or one, as the rows of a table have it, so that any number
 * of rows may share one. Four registers, `sets` of the same elements, follow one another, so that rows lie in blocks of 4 R, which each begin with what
 * their tables are. Elements' digits are the same for all rows: 4, 16 or 64 bytes of them are spread over a register.
 *
 * Bytes look up one code of 8 or 6 bits, two of 4 or 3 (the second one where bytes are shifted: look-ups in 64 bytes ignore upper bits, and smaller tables repeat),
 * or four of 2 bits. Bytes of 6 bits, of codes of 6 or 3, are stored as in compressed_lanes.c: four registers in three. */
#ifndef CML_COMPRESSED_TABLES_H
#define CML_COMPRESSED_TABLES_H

#include "compressed_fixed.h"
#include "sizes.h"

enum { SETS = 4, REGISTER = 64 };

/* How a block begins. Behind it: by row what is multiplied with the sum of the elements, by row the mean second digit, the tables' digits by set and plane. */
typedef struct tables_head {
  double unit[SETS];  /* what the last digit of a set's table counts */
  float offset[SETS]; /* what is added to each entry, of three digits */
  int32_t planes;     /* digits of entries that do where the elements' sizes are not far apart, 2 or 3 */
  int32_t by_code;    /* codes of 8 bits stand for lowest digits */
  float error, low;   /* with two: mean squares of what is rounded and of the lower digits (about their mean), as parts of the mean size's square */
} tables_head;

/* bits: 2, 3, 4, 6, 8 */
VINLINE size_t tables_codes(const int bits) { return bits > 4 ? 1 : bits == 2 ? 4 : 2; }      /* that a byte looks up */
VINLINE size_t tables_registers(const int bits) { return bits == 2 || bits == 4 ? 1 : 4; }    /* of a set that are read together */
VINLINE size_t tables_stored(const int bits) { return bits == 3 || bits == 6 ? 3 : tables_registers(bits); }
VINLINE size_t tables_entries(const int bits) { return bits < 6 ? 16 : (size_t)1 << bits; }   /* bytes of a plane of a table */

VINLINE size_t tables_rows(const cml_compressed *w) { return w->table_rows % 16 == 0 ? 16 : w->table_rows % 4 == 0 ? 4 : 1; } /* R */
VINLINE size_t tables_bytes_of_row(const cml_compressed *w) { return w->depth / tables_codes((int)w->bits); }                 /* that look up */
VINLINE size_t tables_step(const cml_compressed *w) { return tables_registers((int)w->bits) * REGISTER / tables_rows(w); }    /* of them, that are read together */
VINLINE size_t tables_steps(const cml_compressed *w) { return (tables_bytes_of_row(w) + tables_step(w) - 1) / tables_step(w); }

/* Bytes from a block's beginning to its rows' numbers, from the first of these to the second, to its tables, to its codes, to the next block. */
enum { ROWS_AT = 64 }; /* at least the head's size */
VINLINE size_t tables_numbers(const size_t rows) { return up(SETS * rows, W) * sizeof(float); }
VINLINE size_t tables_at(const size_t rows) { return ROWS_AT + 2 * tables_numbers(rows); }
VINLINE size_t codes_at(const size_t rows, const int bits) { return tables_at(rows) + SETS * PLANES * tables_entries(bits); }
VINLINE size_t tables_block(const cml_compressed *w) {
  const int bits = (int)w->bits;
  return codes_at(tables_rows(w), bits) + tables_steps(w) * SETS * tables_stored(bits) * REGISTER;
}

#endif
