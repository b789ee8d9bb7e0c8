/* Hexadecimal floats are exact: the digits are the mantissa, "p" gives a power of two. Reading collects up to 64 bits
 * of mantissa and one sticky bit for what follows, then rounds once, straight to the wanted format: through double,
 * a float16 could be rounded twice. Decimal numbers, which Apple's compiler does not write, go through strtod. */
#include "mil_text_number.h"

#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- formats ---- */

typedef struct format {
  int precision; /* bits of the mantissa, the hidden one included */
  int emax;      /* largest exponent; also the bias */
  int bits;
} format;

static format format_of(cml_dtype type) {
  switch (type) {
    case CML_F16: return (format){11, 15, 16};
    case CML_BF16: return (format){8, 127, 16};
    case CML_F32: return (format){24, 127, 32};
    default: return (format){53, 1023, 64};
  }
}

static uint64_t infinity_bits(format f) { return (uint64_t)(2 * f.emax + 1) << (f.precision - 1); }
static uint64_t sign_bit(format f) { return UINT64_C(1) << (f.bits - 1); }

/* mantissa * 2^exponent (and a little more when `sticky`), rounded to nearest even; without the sign. */
static uint64_t round_to(format f, uint64_t mantissa, int64_t exponent, bool sticky) {
  if (!mantissa) return 0;
  int zeros = __builtin_clzll(mantissa);
  mantissa <<= zeros;
  int64_t e = exponent - zeros + 63, emin = 1 - f.emax; /* of the leading bit */
  if (e > f.emax) return infinity_bits(f);
  int64_t keep = e >= emin ? f.precision : f.precision - (emin - e);
  if (keep < 0) return 0;
  uint64_t q = keep ? mantissa >> (64 - keep) : 0, rest = mantissa << keep, half = UINT64_C(1) << 63;
  q += rest > half || (rest == half && (sticky || (q & 1)));
  if (e < emin) return q; /* subnormal, or by its carry the smallest normal */
  uint64_t hidden = UINT64_C(1) << (f.precision - 1);
  uint64_t r = ((uint64_t)(e + f.emax) << (f.precision - 1)) + (q - hidden);
  return r > infinity_bits(f) ? infinity_bits(f) : r;
}

/* ---- reading ---- */

static unsigned hex_digit(uint8_t c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10u : 16;
}

/* "p-12" */
static const uint8_t *read_exponent(const uint8_t *p, const uint8_t *end, int64_t *exponent) {
  bool minus = false;
  if (p < end && (*p == '+' || *p == '-')) minus = *p++ == '-';
  if (p == end || *p < '0' || *p > '9') return NULL;
  int64_t n = 0;
  for (; p < end && *p >= '0' && *p <= '9'; p++)
    if (n < 1 << 24) n = n * 10 + (*p - '0');
  *exponent += minus ? -n : n;
  return p;
}

/* Behind "0x". */
static const uint8_t *read_hex(const uint8_t *p, const uint8_t *end, format f, uint64_t *out) {
  uint64_t mantissa = 0;
  int64_t exponent = 0;
  bool sticky = false, point = false, any = false;
  for (; p < end; p++) {
    unsigned d = hex_digit(*p);
    if (d < 16) {
      any = true;
      if (mantissa >> 60) {
        sticky |= d != 0;
        exponent += point ? 0 : 4;
      } else {
        mantissa = mantissa << 4 | d;
        exponent -= point ? 4 : 0;
      }
    } else if (*p == '.' && !point) {
      point = true;
    } else {
      break;
    }
  }
  if (!any) return NULL;
  if (p < end && (*p | 0x20) == 'p' && !(p = read_exponent(p + 1, end, &exponent))) return NULL;
  *out = round_to(f, mantissa, exponent, sticky);
  return p;
}

static locale_t c_locale;
static void make_locale(void) { c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

static bool decimal_part(uint8_t c) { return (c >= '0' && c <= '9') || c == '.' || c == '+' || c == '-' || (c | 0x20) == 'e'; }

static const uint8_t *read_decimal(const uint8_t *p, const uint8_t *end, cml_dtype type, uint64_t *out) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_locale);
  char text[128], *stop;
  size_t n = 0;
  while (n + 1 < sizeof text && p + n < end && decimal_part(p[n])) text[n] = (char)p[n], n++;
  text[n] = 0;
  if (!n || n + 1 == sizeof text || text[0] == '+' || text[0] == '-' || !c_locale) return NULL;
  if (type == CML_F32) {
    float value = strtof_l(text, &stop, c_locale);
    uint32_t bits;
    memcpy(&bits, &value, 4);
    *out = bits;
  } else {
    double value = strtod_l(text, &stop, c_locale);
    uint64_t bits;
    memcpy(&bits, &value, 8);
    uint64_t biased = bits >> 52;
    if (type == CML_F64) *out = bits;
    else if (biased == 2047) *out = infinity_bits(format_of(type));
    else *out = round_to(format_of(type), biased ? (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52 : bits,
                         (biased ? (int64_t)biased : 1) - 1075, false);
  }
  return stop == text ? NULL : p + (stop - text);
}

static bool word(const uint8_t *p, const uint8_t *end, const char *text, size_t size) {
  if ((size_t)(end - p) < size) return false;
  for (size_t i = 0; i < size; i++)
    if ((p[i] | 0x20) != (uint8_t)text[i]) return false;
  return true;
}

/* Behind "nan": an optional payload. Without one, or with payload 0 (that would be infinity), the quiet NaN. */
static const uint8_t *read_nan(const uint8_t *p, const uint8_t *end, format f, uint64_t *out) {
  uint64_t quiet = UINT64_C(1) << (f.precision - 2), mask = quiet * 2 - 1, payload = quiet;
  if (end - p > 3 && p[0] == '(' && p[1] == '0' && (p[2] | 0x20) == 'x') {
    const uint8_t *q = p + 3;
    uint64_t n = 0;
    for (; q < end && hex_digit(*q) < 16; q++) n = n << 4 | hex_digit(*q);
    if (q == end || *q != ')') return NULL;
    if (n & mask) payload = n & mask;
    p = q + 1;
  }
  *out = infinity_bits(f) | payload;
  return p;
}

const uint8_t *cml_mil_number_float(const uint8_t *p, const uint8_t *end, cml_dtype type, uint64_t *out_bits) {
  format f = format_of(type);
  bool minus = false;
  if (p < end && (*p == '-' || *p == '+')) minus = *p++ == '-';
  uint64_t bits = 0;
  if (end - p > 2 && p[0] == '0' && (p[1] | 0x20) == 'x') {
    p = read_hex(p + 2, end, f, &bits);
  } else if (word(p, end, "nan", 3)) {
    p = read_nan(p + 3, end, f, &bits);
  } else if (word(p, end, "inf", 3)) {
    p += word(p, end, "infinity", 8) ? 8 : 3;
    bits = infinity_bits(f);
  } else {
    p = read_decimal(p, end, type, &bits);
  }
  if (p) *out_bits = bits | (minus ? sign_bit(f) : 0);
  return p;
}

const uint8_t *cml_mil_number_integer(const uint8_t *p, const uint8_t *end, cml_dtype type, uint64_t *out_bits, bool *out_range) {
  bool minus = false;
  *out_range = true;
  if (p < end && (*p == '-' || *p == '+')) minus = *p++ == '-';
  unsigned base = end - p > 2 && p[0] == '0' && (p[1] | 0x20) == 'x' ? 16 : 10;
  if (base == 16) p += 2;
  const uint8_t *start = p;
  uint64_t n = 0;
  for (; p < end; p++) {
    unsigned d = hex_digit(*p);
    if (d >= base) break;
    if (__builtin_mul_overflow(n, (uint64_t)base, &n) || __builtin_add_overflow(n, (uint64_t)d, &n)) *out_range = false;
  }
  if (p == start) return NULL;
  unsigned bits = cml_dtype_bits(type);
  bool is_signed = cml_dtype_is_signed(type);
  uint64_t most = (bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1) >> is_signed;
  if (minus ? n > (is_signed ? most + 1 : 0) : n > most) *out_range = false;
  if (!*out_range) return NULL;
  *out_bits = minus ? 0 - n : n;
  return p;
}

/* ---- writing ---- */

static size_t print_unsigned(char *out, uint64_t n) {
  char digits[20];
  size_t count = 0;
  do digits[count++] = (char)('0' + n % 10); while (n /= 10);
  for (size_t i = 0; i < count; i++) out[i] = digits[count - 1 - i];
  return count;
}

static size_t print_signed(char *out, int64_t n) {
  if (n >= 0) return print_unsigned(out, (uint64_t)n);
  out[0] = '-';
  return 1 + print_unsigned(out + 1, 0 - (uint64_t)n);
}

static const char hex[] = "0123456789abcdef";

static size_t print_nan(char *out, format f, uint64_t fraction) {
  memcpy(out, "nan", 3);
  if (fraction == UINT64_C(1) << (f.precision - 2)) return 3;
  size_t n = 6;
  memcpy(out + 3, "(0x", 3);
  for (int shift = 60; shift >= 0; shift -= 4)
    if (fraction >> shift) out[n++] = hex[fraction >> shift & 15];
  out[n++] = ')';
  return n;
}

static size_t print_float(char *out, format f, uint64_t bits) {
  char *p = out;
  if (bits & sign_bit(f)) *p++ = '-';
  uint64_t fraction = bits & ((UINT64_C(1) << (f.precision - 1)) - 1);
  int64_t e = (int64_t)((bits & (sign_bit(f) - 1)) >> (f.precision - 1));
  if (e == 2 * f.emax + 1) {
    if (fraction) return (size_t)(p - out) + print_nan(p, f, fraction);
    memcpy(p, "inf", 3);
    return (size_t)(p - out) + 3;
  }
  if (!e && !fraction) {
    memcpy(p, "0x0p+0", 6);
    return (size_t)(p - out) + 6;
  }
  fraction <<= 53 - f.precision; /* as in double: 13 hexadecimal digits */
  if (e) {
    e -= f.emax;
  } else { /* subnormal */
    int zeros = __builtin_clzll(fraction) - 11;
    fraction = (fraction << zeros) & ((UINT64_C(1) << 52) - 1);
    e = 1 - f.emax - zeros;
  }
  memcpy(p, "0x1", 3);
  p += 3;
  if (fraction) *p++ = '.';
  for (uint64_t rest = fraction << 12; rest; rest <<= 4) *p++ = hex[rest >> 60];
  *p++ = 'p';
  if (e >= 0) *p++ = '+';
  return (size_t)(p - out) + print_signed(p, e);
}

size_t cml_mil_number_print(char *out, cml_dtype type, uint64_t bits) {
  if (cml_dtype_is_float(type)) return print_float(out, format_of(type), bits);
  if (type == CML_BOOL) {
    memcpy(out, bits ? "true" : "false", 5);
    return bits ? 4 : 5;
  }
  unsigned unused = 64 - cml_dtype_bits(type);
  return cml_dtype_is_signed(type) ? print_signed(out, (int64_t)(bits << unused) >> unused) : print_unsigned(out, bits << unused >> unused);
}
